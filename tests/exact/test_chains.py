"""What is said of chains: against arviz-stats and closed forms, on chains made to be good, stuck, apart, biased."""

from __future__ import annotations

import sys
import warnings
from dataclasses import replace

import jax.numpy as jnp
import numpy as np
import pytest
from arviz_stats.base import array_stats

from mulligan.core import Law
from mulligan.errors import SetupError
from mulligan.measures.chains import Chains, inference_data, summarise
from mulligan.measures.diagnosis import VERDICTS, Diagnosis, diagnose
from mulligan.measures.modes import Modes, find_modes, given_modes


@pytest.fixture
def rng(seed):
    return np.random.default_rng(seed)


def autoregressive(rng, rho, shape):
    """Stationary AR(1) chains with unit variance: the ESS is n (1 − ρ)/(1 + ρ)."""
    chains, draws = shape
    x = np.empty(shape)
    x[:, 0] = rng.normal(size=chains)
    for i in range(1, draws):
        x[:, i] = rho * x[:, i - 1] + np.sqrt(1 - rho**2) * rng.normal(size=chains)
    return x[..., None]


# --- numbers ----------------------------------------------------------------------------------------------------------


def test_the_numbers_are_those_of_arviz_stats(rng):
    draws = np.concatenate([autoregressive(rng, 0.5, (4, 300)), 7 + 3 * autoregressive(rng, -0.3, (4, 300))], axis=2)
    found = summarise(draws)
    for i in range(2):
        column, axes = draws[..., i], {"chain_axis": 0, "draw_axis": 1}
        assert found.rhat[i] == pytest.approx(float(array_stats.rhat(column, **axes)), abs=1e-12)
        assert found.ess_bulk[i] == pytest.approx(float(array_stats.ess(column, method="bulk", **axes)))
        tail = float(array_stats.ess(column, method="tail", prob=(0.05, 0.95), **axes))
        assert found.ess_tail[i] == pytest.approx(tail)
        assert found.mean[i] == pytest.approx(column.mean()) and found.sd[i] == pytest.approx(column.std())
        # MCSE from the rank-normalised ESS: ArviZ uses the plain one, equal to a few per cent on light tails
        assert found.mcse[i] == pytest.approx(float(array_stats.mcse(column, method="mean", **axes)), rel=0.1)


def test_the_ess_of_a_known_process(rng):
    """AR(1) with ρ = .8: 40 000 draws are worth 4444. 12 % is four standard errors of the estimator here (measured)."""
    found = summarise(autoregressive(rng, 0.8, (8, 5000)))
    assert found.ess_bulk[0] == pytest.approx(40_000 / 9, rel=0.12)


def test_constants_count_as_failed(rng):
    """The usual estimators give R-hat nan and ESS n for what never moved."""
    moving = rng.normal(size=(4, 50))
    each_its_own = np.broadcast_to(np.arange(4.0)[:, None], (4, 50))
    draws = np.stack([moving, np.ones((4, 50)), each_its_own], axis=2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = summarise(draws)
    with np.errstate(invalid="ignore"):  # why this is not left to them
        assert np.isnan(array_stats.rhat(np.ones((4, 50)), chain_axis=0, draw_axis=1))
    assert np.isfinite(found.rhat[0]) and np.all(np.isinf(found.rhat[1:]))
    assert np.all(found.ess_bulk[1:] == 0) and np.all(np.isinf(found.mcse[1:]))
    discrete = summarise(draws, discrete=True)
    assert discrete.rhat[1] == 1 and discrete.ess_bulk[1] == 200  # a site may have one value; chains may not differ
    assert np.isinf(discrete.rhat[2])


def test_chains_are_checked():
    for bad in (np.zeros((3, 4)), np.zeros((0, 4, 1)), np.full((2, 2, 1), np.nan), np.full((2, 2, 1), np.inf)):
        with pytest.raises(ValueError, match="draws"):
            Chains(bad)
    with pytest.raises(ValueError, match="2 names for 1"):
        Chains(np.zeros((2, 3, 1)), ("a", "b"))
    with pytest.raises(ValueError, match="acceptance has the shape"):
        Chains(np.zeros((2, 3, 1)), statistics={"acceptance": np.ones(3)})


def test_strokes_and_acceptance(rng):
    draws = rng.normal(size=(4, 500, 1))
    told = {"acceptance": np.full((4, 500), 0.25), "divergent": np.eye(4, 500)}
    chains = Chains(draws, statistics=told, strokes=10.0)
    assert chains.acceptance == 0.25 and chains.divergences == 4
    assert chains.ess_per_1000_strokes == pytest.approx(1000 * chains.ess / 20_000)
    assert replace(chains, law=Law("order", 1)).acceptance is None  # an unadjusted kernel rejects nothing


# --- stuck chains -----------------------------------------------------------------------------------------------------


def test_stuck_chains_are_found(rng):
    good = rng.normal(size=(64, 200, 2))
    assert Chains(good).stuck == ()
    frozen = good.copy()
    frozen[5] = frozen[5, 0]
    late = good.copy()
    late[7, 140:] = late[7, 139]  # 61 equal draws of 200
    nearly = good.copy()
    nearly[9] = nearly[9, :1] + 1e-3 * rng.normal(size=(200, 2))
    short = good.copy()
    short[3, 100:140] = short[3, 99]  # 41 of 200: a long rejection, no more
    assert Chains(frozen).stuck == (5,)
    assert Chains(late).stuck == (7,)
    assert Chains(nearly).stuck == (9,)
    assert Chains(short).stuck == ()
    assert Chains(np.zeros((2, 50, 1)), discrete=True).stuck == (0, 1)


def test_a_frozen_chain_among_many_is_seen_where_r_hat_is_blind(rng):
    """One of 64 chains stands still near the middle: R-hat stays below 1.05, the verdict does not."""
    draws = rng.normal(size=(64, 500, 1))
    draws[11] = 0.1
    chains = Chains(draws)
    assert chains.summary.rhat[0] < 1.05
    said = diagnose(chains)
    assert said.verdict == "stuck" and said.sentences[0] == "Chain 12 of 64 stands still."
    assert said.numbers["stuck_chains"] == [11]


# --- verdicts ---------------------------------------------------------------------------------------------------------


def test_independent_draws_are_ok(rng):
    said = diagnose(Chains(rng.normal(size=(8, 1000, 3)), statistics={"log_density": rng.normal(size=(8, 1000))}))
    assert (said.verdict, said.found, said.advice) == ("ok", ("ok",), "") and said.ok and said.usable
    assert said.numbers["rhat"] < 1.01 and said.numbers["ess_bulk"] > 6000
    assert str(said).startswith("ok: 8 chains of 1000 draws")
    assert said.to_json()["verdict"] == "ok"


def test_few_draws_are_said_to_be_few(rng):
    said = diagnose(Chains(rng.normal(size=(4, 80, 1))))
    assert said.verdict == "too few draws" and not said.ok and said.usable and "400 are needed" in str(said)
    one = diagnose(Chains(rng.normal(size=(16, 1, 1))))
    assert one.verdict == "chains do not mix" and "1 draw a chain cannot show" in str(one) and not one.usable


def test_chains_apart_do_not_mix(rng):
    said = diagnose(
        Chains(rng.normal(size=(4, 500, 2)) + np.array([0.0, 3.0]) * np.arange(4)[:, None, None], ("a", "b"))
    )
    assert said.verdict == "chains do not mix" and said.numbers["rhat_of"] == "b" and "do not trust" in str(said)


def test_other_scales_in_other_chains_do_not_mix(rng):
    """Equal means, unequal spreads: only the folded R-hat sees it."""
    scales = np.array([1.0, 1.0, 3.0, 3.0])[:, None, None]
    assert diagnose(Chains(scales * rng.normal(size=(4, 1000, 1)))).verdict == "chains do not mix"


def test_levels_of_the_log_density_are_looked_at(rng):
    told = {"log_density": rng.normal(size=(4, 1000)) + np.arange(4)[:, None]}
    said = diagnose(Chains(rng.normal(size=(4, 1000, 1)), statistics=told))
    assert said.verdict == "chains do not mix" and said.numbers["rhat_of"] == "the log density"


def corners(rng, swapped):
    """Eight chains on four modes at (±3, ±3), two of them a chain. ``swapped``: each chain on one diagonal of its own."""
    signs = rng.choice([-1.0, 1.0], size=(8, 1000, 1))
    turn = np.where(np.arange(8) % 2 == 0, 1.0, -1.0)[:, None, None]
    other = signs * turn if swapped else rng.choice([-1.0, 1.0], size=(8, 1000, 1))
    return 3 * np.concatenate([signs, other], axis=2) + 0.3 * rng.normal(size=(8, 1000, 2))


def bumps(x):
    return jnp.sum(jnp.logaddexp(-0.5 * ((x - 3) / 0.3) ** 2, -0.5 * ((x + 3) / 0.3) ** 2))


def test_swapped_modes_are_seen_though_every_coordinate_agrees(rng):
    """Saboteur: the marginals of all chains are the same, the modes that they visit are not."""
    draws = corners(rng, swapped=True)
    chains = Chains(draws)
    assert chains.summary.rhat.max() < 1.01 and diagnose(chains).verdict == "ok"  # R-hat alone is blind
    modes = find_modes(bumps, draws)
    said = diagnose(chains, modes)
    assert modes.number == 4 and modes.visited == 4 and np.all(modes.visited_by_chain == 2)
    assert said.verdict == "chains do not mix" and said.numbers["rhat_of"].startswith("being in mode")
    assert "8 chains visit 2.0 of 4 modes on average" in str(said)
    mixed = corners(rng, swapped=False)
    assert diagnose(Chains(mixed), find_modes(bumps, mixed)).verdict == "ok"


def test_divergences_and_stops_are_verdicts(rng):
    draws = rng.normal(size=(4, 1000, 1))
    few = Chains(draws, statistics={"divergent": np.eye(4, 1000)})
    many = Chains(draws, statistics={"divergent": (np.arange(4000).reshape(4, 1000) % 100 == 0).astype(float)})
    assert diagnose(few).verdict == "ok" and "4 divergent moves" in str(diagnose(few))
    assert diagnose(many).verdict == "divergent" and "40 of 4,000" in str(diagnose(many))
    stopped = diagnose(Chains(draws[:, :2]), stopped="non-finite position at step 3")
    assert stopped.verdict == "stopped" and "non-finite position at step 3" in str(stopped) and not stopped.usable


def test_running_away_is_told_from_not_mixing(rng):
    steps = 10.0 ** np.linspace(0, 8, 400)
    away = rng.normal(size=(8, 1, 1)) * steps[:, None] + rng.normal(size=(8, 400, 1))
    said = diagnose(Chains(away), start_size=3.0)
    assert said.verdict == "runs away" and "is exp(log density) integrable?" in str(said)
    apart = rng.normal(size=(8, 400, 1)) + 1e3 * rng.normal(size=(8, 1, 1))
    assert diagnose(Chains(apart), start_size=3.0).verdict == "chains do not mix"
    wide = 1e8 * rng.normal(size=(8, 400, 1))  # a wide law, well drawn
    assert diagnose(Chains(wide), start_size=3.0).verdict == "ok"


def test_missed_holes_are_a_verdict(rng):
    draws = rng.normal(size=(4, 1000, 1))
    assert diagnose(Chains(draws), holes={"found": 3, "of": 4, "low": 3, "high": 3}).verdict == "misses holes"
    assert "4 of 4 holes found" in str(diagnose(Chains(draws), holes={"found": 4, "of": 4, "low": 4, "high": 4}))


def test_the_bias_of_unadjusted_langevin_is_seen(rng):
    """On N(0, 1) its variance is 1/(1 − Δt/4): the mean of x ∂ log π is −1.6 at Δt = 1.5, and −1.0025 at .01."""

    def judged(step, law):
        draws = rng.normal(size=(8, 2000, 1)) / np.sqrt(1 - step / 4)
        return diagnose(Chains(draws, law=law), scores=-draws)

    biased = judged(1.5, Law("order", 1))
    assert biased.verdict == "biased" and "where −1 is due" in str(biased)
    assert judged(0.01, Law("order", 1)).verdict == "ok"
    assert judged(1.5, Law("exact")).verdict == "ok"  # of an exact kernel the identity is not asked


def test_weighted_draws_are_judged_by_their_weights(rng):
    draws = np.repeat(
        rng.normal(size=(4, 10, 1)), 50, axis=1
    )  # resampled: few distinct ones, in rows that are no chains
    assert diagnose(Chains(draws, law=Law("none")), weights_ess=900.0).verdict == "ok"
    poor = diagnose(Chains(draws, law=Law("none")), weights_ess=12.0)
    assert poor.verdict == "too few draws" and "worth 12" in str(poor)


def test_every_verdict_has_its_place():
    assert VERDICTS[-1] == "ok" and len(set(VERDICTS)) == len(VERDICTS)
    assert str(Diagnosis("stuck", ("stuck",), ("Chain 1 stands still.",), advice="move")) == (
        "stuck: Chain 1 stands still. DO: move"
    )


# --- modes ------------------------------------------------------------------------------------------------------------


def ring(x):
    return -50.0 * (jnp.sqrt(jnp.sum(x**2) + 1e-6) - 3.0) ** 2


def test_a_ridge_is_one_mode_and_a_bump_below_a_nat_is_none(rng):
    angle = rng.uniform(0, 2 * np.pi, size=(4, 500))
    round_ = np.stack([np.cos(angle), np.sin(angle)], axis=-1) * (3 + 0.1 * rng.normal(size=(4, 500, 1)))
    assert find_modes(ring, round_).number == 1

    def shallow(x):  # two tops, .4 nats above the saddle between them
        return -0.1 * (x[0] ** 2 - 2.0) ** 2 - 0.5 * x[1] ** 2

    assert find_modes(shallow, rng.normal(size=(4, 500, 2))).number == 1


def test_modes_in_many_chains_are_labelled_by_their_own(rng):
    centres = np.array([[-2.0, 0.0], [2.0, 0.0], [0.0, 4.0]])
    which = rng.integers(0, 3, size=(1000, 5))

    def three(x):
        return jnp.logaddexp(
            -10 * jnp.sum((x - centres[0]) ** 2),
            jnp.logaddexp(-10 * jnp.sum((x - centres[1]) ** 2), -10 * jnp.sum((x - centres[2]) ** 2)),
        )

    draws = centres[which] + 0.2 * rng.normal(size=(1000, 5, 2))
    modes = find_modes(three, draws)
    order = np.lexsort(centres.T[::-1])
    assert modes.number == 3 and np.allclose(modes.centres, centres[order], atol=0.02)
    assert np.mean(modes.labels == np.argsort(order)[which]) > 0.999
    given = given_modes(draws, centres, 0.5)
    assert given.given and np.mean((given.labels == which) | (given.labels == -1)) == 1.0
    assert np.allclose(given.shares.sum(), np.mean(given.labels >= 0))


def test_modes_count_who_visits():
    modes = Modes(np.zeros((3, 1)), np.array([[0, 0, 1], [-1, -1, 0]]))
    assert modes.visits.tolist() == [[2, 1, 0], [1, 0, 0]] and modes.visited == 2
    assert modes.visited_by_chain.tolist() == [2, 1] and modes.shares.tolist() == [0.5, 1 / 6, 0.0]


# --- ArviZ ------------------------------------------------------------------------------------------------------------


def test_arviz_gets_named_variables_and_its_own_words(rng):
    positions = {"mu": rng.normal(size=(4, 50)), "theta": rng.normal(size=(4, 50, 3))}
    told = {"acceptance": np.full((4, 50), 0.8), "divergent": np.eye(4, 50), "log_density": rng.normal(size=(4, 50))}
    data = inference_data(positions, told, {"sampler": "nuts"})
    assert data["posterior"]["theta"].shape == (4, 50, 3) and data.attrs["sampler"] == "nuts"
    stats = data["sample_stats"]
    assert {"acceptance_rate", "diverging", "lp"} <= set(stats.data_vars)
    assert stats["diverging"].dtype == bool and int(stats["diverging"].sum()) == 4
    assert np.array_equal(data["posterior"]["mu"].values, positions["mu"])


@pytest.mark.parametrize(
    ("missing", "call", "said"),
    [
        ("arviz_base", lambda: inference_data({"x": np.zeros((1, 4))}, {}, {}), "pip install 'arviz-base"),
        ("arviz_stats.base", lambda: summarise(np.zeros((1, 4, 1))), "pip install arviz-stats"),
    ],
)
def test_a_missing_package_is_told_with_its_command(missing, call, said, monkeypatch):
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(SetupError, match="not installed") as raised:
        call()
    assert said in str(raised.value)
