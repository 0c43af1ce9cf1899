"""Every family of the catalog, on a small table of all kinds of columns and on a small law of the plane."""

from __future__ import annotations

import re
from collections import Counter

import numpy as np
import pytest
from shared_fits import LABELS, ON_PLANE, OTHERS, WITH_DENSITY, fit_small, fitted, home, in_turn, mixed_for, table

import mulligan
from mulligan.catalog import EFFORTS, FAMILIES, LAWS, TABLES, find_family, parse_settings
from mulligan.compilations import compilations
from mulligan.core import Bound, Density, Energy, NoisedScore, Sampler, Score
from mulligan.errors import DataError, MulliganError, NoDensity, UsageError
from mulligan.quantity import Quantity
from mulligan.workbench.artifact import load
from mulligan.workbench.fitting import fit

CONTRACTS = {c.__name__: c for c in (Sampler, Density, Energy, Score, NoisedScore, Bound)}
TABLES_OF = [(label, place) for label in LABELS for place in dict.fromkeys((home(label), mixed_for(label)))]
DENSITIES_OF = [(label, place) for label, place in TABLES_OF if label in WITH_DENSITY]
BY_ODE = {"diffusion", "continuous-flow"}
EXACT_ON_CELLS = {"autoregressive"}  # probabilities of discrete values, not bounds
# log Z is an estimate in general, and better known here: by quadrature in the plane, summed for a small layer.
BETTER_KNOWN = {"energy": "numeric", "boltzmann": "exact"}
everywhere = pytest.mark.parametrize("label, place", in_turn(TABLES_OF), ids=[":".join(pair) for pair in TABLES_OF])
with_density = pytest.mark.parametrize(
    "label, place", in_turn(DENSITIES_OF), ids=[":".join(pair) for pair in DENSITIES_OF]
)


# --- what it can do ---------------------------------------------------------------------------------------------------


@everywhere
def test_capabilities_are_the_catalogs(label, place):
    model = fitted(label, place)
    declared = FAMILIES[model.family].capabilities
    assert {name for name, contract in CONTRACTS.items() if isinstance(model.model, contract)} == set(declared)
    assert set(model.capabilities) == set(declared)
    assert model.family == label.split(":")[0] and model.label and model.variant == [*label.split(":"), None][1]


@pytest.mark.parametrize("label", OTHERS)
def test_another_variant_in_short(label, tmp_path):
    """What the catalog declares, finite log p, valid samples, and the same after saving and loading."""
    test_capabilities_are_the_catalogs(label, home(label))
    test_log_p_is_of_the_catalogs_kind(label, home(label))
    if label in WITH_DENSITY:
        test_log_prob_of_the_data_is_finite_float64(label, home(label))
    test_samples_are_valid_rows(label, home(label))
    test_a_saved_model_is_the_same_model(label, home(label), tmp_path)


@everywhere
def test_log_p_is_of_the_catalogs_kind(label, place):
    model, declared = fitted(label, place), FAMILIES[label.split(":")[0]].log_p
    assert (declared == "none") == (model.log_prob_kind == "none")
    if declared != "none":
        exact = place == home(label) or label in EXACT_ON_CELLS
        assert model.log_prob_kind == (BETTER_KNOWN.get(model.family, declared) if exact else "lower bound")


@with_density
def test_log_prob_of_the_data_is_finite_float64(label, place):
    model, rows = fitted(label, place), table(place)
    log_p = model.log_prob(rows)
    assert log_p.shape == (len(rows),) and log_p.dtype == np.float64 and np.isfinite(log_p).all()
    assert np.array_equal(model.log_prob(rows), log_p)
    quantity = model.evaluate(rows)
    assert quantity.value == pytest.approx(log_p.mean()) and quantity.kind == model.log_prob_kind
    assert quantity.n == len(rows) and quantity.note == model.schema.measure


@with_density
def test_order_and_company_of_rows_do_not_matter(label, place):
    model, rows = fitted(label, place), table(place)
    log_p = model.log_prob(rows)
    order = np.random.default_rng(0).permutation(len(rows))
    assert np.array_equal(model.log_prob(rows.rows(order)), log_p[order])
    assert np.array_equal(model.log_prob(rows.rows(slice(7, 10))), log_p[7:10])


@with_density
def test_finite_everywhere_inside_the_range(label, place):
    model, rows = fitted(label, place), table(place)
    rng = np.random.default_rng(3)
    shuffled = np.stack([rng.permutation(column) for column in rows.values.T], axis=1)  # corners that no row is in
    assert np.isfinite(model.log_prob(rows.with_values(shuffled))).all()


@pytest.mark.parametrize("label", in_turn([label for label in WITH_DENSITY if label in ON_PLANE]))
def test_score_is_the_gradient_of_log_prob(label):
    model, rows = fitted(label, "plane"), table("plane").rows(slice(0, 20))
    score = model.score(rows)
    assert score.shape == rows.values.shape and np.isfinite(score).all()
    step = 2e-3
    for j in range(rows.values.shape[1]):
        nudge = np.zeros(rows.values.shape[1])
        nudge[j] = step
        ahead, behind = (model.log_prob(rows.values + sign * nudge) for sign in (1, -1))
        numerical = (ahead - behind) / (2 * step)
        # Where a histogram's edge or a spline's knot lies between, log p or its slope jumps: the two sides differ there.
        compared = np.abs(ahead + behind - 2 * model.log_prob(rows)) / step < 0.3
        assert compared.sum() >= 15
        np.testing.assert_allclose(score[compared, j], numerical[compared], atol=0.02, rtol=0.02)


def test_score_is_refused_where_log_p_has_no_gradient():
    with pytest.raises(UsageError, match="no gradient in discrete columns"):
        fitted("gaussian", "mixed").score(table("mixed"))


# --- samples ----------------------------------------------------------------------------------------------------------


@everywhere
def test_the_first_samples_do_not_depend_on_how_many(label, place):
    model = fitted(label, place)
    many = model.sample(1500, seed=4).values
    assert np.array_equal(model.sample(500, seed=4).values, many[:500])
    assert np.array_equal(model.sample(1500, seed=4).values, many)
    assert not np.array_equal(model.sample(500, seed=5).values, many[:500])
    # A constant sampler is no sampler.
    assert len(np.unique(many, axis=0)) > (200 if label == "resample" else 20 if place == "binary" else 700)


@everywhere
def test_samples_are_valid_rows(label, place):
    model, rows = fitted(label, place), table(place)
    drawn = model.sample(1000, seed=1)
    assert drawn.schema == rows.schema and np.isfinite(drawn.values).all()
    assert list(drawn.to_dict()) == list(rows.to_dict())
    for column, values in zip(drawn.schema.modelled, drawn.values.T):
        if column.levels:
            assert set(values) <= set(range(len(column.levels)))
        if column.step:
            assert (
                np.abs((values - column.offset) / column.step - np.rint((values - column.offset) / column.step)).max()
                < 1e-6
            )
    for name, values in rows.to_dict().items():
        assert drawn.to_dict()[name].dtype.kind == values.dtype.kind
    if label in WITH_DENSITY:
        assert np.isfinite(model.log_prob(drawn)).all()


@pytest.mark.parametrize("n", [0, -1, 2.5, "3"])
def test_a_senseless_number_of_samples_is_refused(n):
    with pytest.raises(UsageError, match="whole number from 1"):
        fitted("gaussian", "plane").sample(n)


# --- fits -------------------------------------------------------------------------------------------------------------


@everywhere
def test_same_seed_same_model_bit_for_bit(label, place):
    model, again = fitted(label, place), fitted.__wrapped__(label, place)
    assert model is not again
    assert np.array_equal(model.sample(200).values, again.sample(200).values)
    assert np.array_equal(model.calibration, again.calibration) and model.label == again.label
    if label in WITH_DENSITY:
        assert np.array_equal(model.log_prob(table(place)), again.log_prob(table(place)))


@pytest.mark.parametrize("label", in_turn(LABELS))
def test_a_second_fit_of_the_same_shape_compiles_nothing(label):
    place = home(label)
    model = fitted(label, place)
    model.sample(10)
    options = ()
    if model.family in BY_ODE:  # how many steps log p needs depends on the rows, and another number is another program
        path = model.model.path if model.family == "diffusion" else model.model.times
        options = (("solver_steps", len(path) - 1),)
    with compilations() as seen:
        other = fitted.__wrapped__(label, place, 0, options, data_seed=1)
        other.sample(10)
    assert not np.array_equal(other.sample(50).values, model.sample(50).values)
    assert seen.count == 0, f"{seen.count} programs compiled"


@everywhere
def test_calibration_is_the_sorted_log_prob_of_select(label, place):
    calibration = fitted(label, place).calibration
    assert (label in WITH_DENSITY) == bool(len(calibration))
    assert (np.diff(calibration) >= 0).all() and np.isfinite(calibration).all()


@everywhere
def test_a_saved_model_is_the_same_model(label, place, tmp_path):
    model = fitted(label, place)
    model.save(tmp_path / "model")
    again = load(tmp_path / "model")
    assert (again.family, again.variant, again.label) == (model.family, model.variant, model.label)
    assert again.codec == model.codec and again.capabilities == model.capabilities
    assert again.log_prob_kind == model.log_prob_kind
    assert np.array_equal(again.sample(300, seed=2).values, model.sample(300, seed=2).values)
    assert np.array_equal(again.calibration, model.calibration)
    assert set(again.history) == set(model.history)
    for name in model.history:
        np.testing.assert_allclose(again.history[name], model.history[name])
    if label in WITH_DENSITY:
        assert np.array_equal(again.log_prob(table(place)), model.log_prob(table(place)))
    assert again.card == model.card or set(again.card) == set(model.card)


def test_resample_has_no_density():
    model = fitted("resample", "plane")
    with pytest.raises(NoDensity, match="resample has no log density"):
        model.log_prob(table("plane"))
    with pytest.raises(NoDensity):
        model.evaluate(table("plane"))
    drawn, trained = model.sample(300).values, table("plane").values
    assert all(np.abs(trained - row).max(1).min() < 1e-5 for row in drawn)


@pytest.mark.parametrize("label", ["gaussian", "resample"])
def test_the_whole_of_fit(label):
    """Through the front door: the card holds a row as reports have it, and the test part was read once."""
    model = fit(table("narrow"), label, effort="quick", seed=3)
    row = model.card["row"]
    assert row["status"] == "ok" and row["family"] == label and model.card["test_reads"] == [label]
    assert Quantity.from_json(row["log_prob"]).kind == model.log_prob_kind
    assert 0 <= row["two_sample_auc"]["value"] <= 1
    assert sum(model.card["split"][part] for part in ("train", "select", "test")) == len(table("narrow"))
    assert "seed=3" in model.card["reproduce"]["command"] and model.card["reproduce"]["versions"]["jax"]


def test_too_many_columns_for_a_histogram():
    with pytest.raises(DataError, match="histogram takes at most 3 encoded columns; here are 6"):
        fitted("histogram", "mixed")


# --- options ----------------------------------------------------------------------------------------------------------

# One value that the option takes, and one that it must refuse; where none is stated they follow from its range.
STATED = {
    ("mixture", "parts"): ("2", "0"),
    ("mixture", "covariance"): ("tied", "round"),
    ("mixture", "restarts"): ("1", "101"),
    ("mixture", "regularisation"): ("1e-3", "-1"),
    ("kde", "bandwidth"): ("0.5", "0"),
    ("kde", "kernel"): ("full", "cubic"),
    ("factor", "factors"): ("1", "-1"),
    ("histogram", "bins"): ("7", "1"),
    ("histogram", "pseudo_count"): ("0.5", "1e9"),
    ("energy", "noise"): ("flow", "pink"),
    ("energy", "negatives"): ("cd", "positive"),
    ("energy", "objective"): ("exact", "none"),
    ("energy", "reference"): ("mixture", "none"),
    ("energy", "step_size"): ("0.5", "-1"),
    ("energy", "depth"): ("1", "-1"),
    ("energy", "frequencies"): ("4", "-1"),
    ("energy", "ratio"): ("3", "0"),
    ("energy", "sigma"): ("0.3", "0"),
    ("energy", "sampler_steps"): ("2", "0"),
    ("boltzmann", "sampler_steps"): ("3", "0"),
    ("continuous-flow", "coupling"): ("optimal", "none"),
    ("continuous-flow", "solver"): ("heun", "none"),
    ("continuous-flow", "probes"): ("2", "-1"),
    ("diffusion", "output"): ("noise", "none"),
    ("diffusion", "schedule"): ("cosine", "none"),
    ("diffusion", "sampler"): ("ancestral", "none"),
    ("diffusion", "sampler_steps"): ("3", "0"),
    ("diffusion", "solver"): ("heun", "none"),
    ("diffusion", "probes"): ("2", "-1"),
    ("gan", "pairing"): ("pairs", "none"),
    ("gan", "latent"): ("3", "0"),
    ("gan", "critic_steps"): ("3", "0"),
}
# An option that only one variant has.
OF_VARIANT = {("energy", name): "energy:mle" for name in ("negatives", "sampler_steps", "chains", "step_size")}
OF_VARIANT |= {("energy", name): "energy:score-matching" for name in ("objective", "sigma")}
OF_VARIANT |= {("boltzmann", name): "boltzmann:pcd" for name in ("sampler_steps", "chains")}
OF_PICTURES = {("diffusion", "network"), ("diffusion", "channels")}  # tests/exact/test_unet_diffusion.py
FEW = 25  # steps of a family trained by gradient: enough to see that an option matters


def values_of(option):
    if option.kind == "choice":
        return option.choices[0], "nothing-like-it"
    return f"{option.low if option.low != option.default else option.low + 1:g}", f"{option.low - 1:g}"


VALUES = {
    (name, option.name): STATED.get((name, option.name)) or values_of(option)
    for name, family in FAMILIES.items()
    for option in family.options
    if option.kind != "names"  # of columns: what they may be is known when there is a table
    and (name, option.name) not in OF_PICTURES
}


def test_stated_values_are_of_options_that_exist():
    assert set(VALUES) >= set(STATED) | LATER


# Each of the others is a program of its own, and one that is kept goes the same way: left to `make test-slow`.
KEPT = {
    "energy": ("reference", "width"),
    "flow": ("layers", "decay", "rate"),
    "autoregressive": ("order", "parts", "decay", "rate"),
    "diffusion": ("output", "sampler"),
    "continuous-flow": ("coupling",),
    "vae": ("latent", "draws"),
    "gan": ("pairing",),
}
LATER = {(family, name) for family, name in VALUES if family in KEPT and name not in KEPT[family]}
LATER |= {("boltzmann", "chains")}


@pytest.mark.parametrize(
    "family, option", [pytest.param(*pair, marks=pytest.mark.slow) if pair in LATER else pair for pair in VALUES]
)
def test_every_option_is_reachable_and_matters(family, option):
    good, _ = VALUES[family, option]
    settings = parse_settings([f"{family}.{option}={good}"])
    chosen = (("parts", "3"),) if family == "mixture" and option != "parts" else ()  # a short search
    steps = FEW if FAMILIES[family].by_gradient else None
    label = OF_VARIANT.get((family, option), family)
    base = fitted(label, home(family), options=chosen, steps=steps)
    other = fitted(label, home(family), options=(*chosen, *settings[family].items()), steps=steps)
    assert other.card["settings"]["options"][option] == FAMILIES[family].parse_options({option: good})[option]
    if option not in ("restarts", "factors"):  # in the plane one factor is all that there is
        same = np.array_equal(other.calibration, base.calibration)
        assert (
            other.label != base.label or not same or not np.array_equal(other.sample(9).values, base.sample(9).values)
        )


@pytest.mark.parametrize("family, option", VALUES)
def test_a_value_out_of_range_is_refused_with_the_range(family, option):
    declared = next(o for o in FAMILIES[family].options if o.name == option)
    for bad in (VALUES[family, option][1], "many"):
        with pytest.raises(UsageError, match=re.escape(f"expected {declared.expected}")) as raised:
            fit(table("plane"), family, options={option: bad})
        assert option in str(raised.value) and family in str(raised.value) and repr(bad) in str(raised.value)
    assert declared.help and declared.expected


@pytest.mark.parametrize("family", FAMILIES)
def test_an_unknown_option_is_refused_with_those_that_exist(family):
    with pytest.raises(UsageError, match=f"{family} has no option 'colour'"):
        fit(table("plane"), family, options={"colour": 1})


def test_too_many_factors_are_refused_with_the_range():
    with pytest.raises(UsageError, match="less than the 2 encoded columns"):
        fitted("factor", "plane", options=(("factors", "2"),))


@pytest.mark.parametrize("words", [{"effort": "brisk"}, {"steps": 0}, {"budget": "-1s"}, {"budget": "soon"}])
def test_senseless_effort_steps_and_budget_are_refused(words):
    with pytest.raises(UsageError):
        fit(table("plane"), "gaussian", **words)


def test_steps_cap_the_whole_search():
    few = mulligan.fit(table("plane"), "mixture", effort="quick", steps=7, options={"parts": "2", "covariance": "full"})
    assert few.card["row"]["steps"] <= 7
    outcome = fit(table("plane"), "factor", effort="quick", steps=1)
    assert outcome.card["row"]["steps"] <= 1


# --- the catalog ------------------------------------------------------------------------------------------------------


def test_names_do_not_collide():
    names = [*FAMILIES, *(alias for family in FAMILIES.values() for alias in family.aliases), *LAWS, *TABLES]
    twice = [name for name, count in Counter(names).items() if count > 1]
    assert not twice, twice
    assert all(re.fullmatch(r"[a-z0-9][a-z0-9_-]*", name) for name in names)


@pytest.mark.parametrize("name", [*FAMILIES, *(a for f in FAMILIES.values() for a in f.aliases)])
def test_every_name_and_alias_is_found(name):
    family, variant = find_family(name.upper())
    assert name in (family.name, *family.aliases)
    assert variant is None or variant in family.variants
    for wanted in family.variants:
        assert find_family(f"{family.name}:{wanted}") == (family, wanted)


@pytest.mark.parametrize(
    "name, near", [("mixtur", "mixture"), ("gausian", "gaussian"), ("nothing-like-it", "families:")]
)
def test_an_unknown_family_is_refused_with_the_nearest(name, near):
    with pytest.raises(UsageError, match=near):
        find_family(name)
    with pytest.raises(UsageError, match="no variant 'nce'"):
        find_family("mixture:nce")


@pytest.mark.parametrize("family", FAMILIES.values(), ids=list(FAMILIES))
def test_entries_are_complete(family):
    assert family.good_at and family.watch_for and family.strokes and family.balls
    assert set(family.capabilities) <= set(CONTRACTS)
    for effort in EFFORTS:
        assert callable(family.recipe(None, family.parse_options({}), effort))
    for option in family.options:
        assert option.default is None or option.parse(option.default, "default") == option.default


def test_every_error_has_its_exit_code():
    from mulligan import errors

    codes = {
        name: cls.exit_code
        for name, cls in vars(errors).items()
        if isinstance(cls, type) and issubclass(cls, MulliganError)
    }
    assert codes == {
        "MulliganError": 1,
        "UsageError": 2,
        "NoDensity": 2,
        "DataError": 3,
        "FitError": 4,
        "FormatError": 5,
        "SetupError": 6,
    }


@pytest.mark.parametrize("label", in_turn(WITH_DENSITY))
def test_outcomes_state_what_they_tried(label):
    model, outcome = fit_small(label, home(label))
    assert outcome.parameters > 0 and outcome.label == model.label
    if outcome.choices:
        by = "held out" if "held out" in outcome.choices[0] else "select"  # kde also leaves training rows out
        best = max(outcome.choices, key=lambda choice: choice[by])["select"]
        # Where log p follows an ODE, the choice is made before the number of its steps is.
        assert np.mean(model.calibration) == pytest.approx(best, abs=0.05 if model.family in BY_ODE else 2e-4)
