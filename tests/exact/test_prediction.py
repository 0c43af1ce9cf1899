"""p(y | x): equal to the joint over its integral, uniform in its PIT, Bayes' rule by hand; broken twins are refused."""

from __future__ import annotations

import numpy as np
import pytest
from saboteurs.imputations import of_predictions
from scipy.special import ndtr
from shared_fits import fitted

from mulligan.data.codec import Codec, Part
from mulligan.data.table import Column, Schema
from mulligan.models.incomplete import MixtureForm, marginal_log_prob
from mulligan.workbench.prediction import class_probabilities, predict
from mulligan.workbench.predictive import Draws, NormalMixtures, normal_mixtures

PARTS, DIM, ROWS = 3, 3, 6000


def law_and_draws(seed: int) -> tuple[MixtureForm, np.ndarray]:
    rng = np.random.default_rng(seed)
    weights, means = np.array([0.5, 0.3, 0.2]), 2 * rng.normal(size=(PARTS, DIM))
    factors = np.tril(rng.normal(size=(PARTS, DIM, DIM)), -1) + np.eye(DIM) * rng.uniform(0.4, 1.2, (PARTS, DIM, 1))
    part = rng.choice(PARTS, ROWS, p=weights)
    draws = means[part] + np.einsum("nij,nj->ni", factors[part], rng.normal(size=(ROWS, DIM)))
    return MixtureForm(np.log(weights), means, factors), draws


def codec_of(*columns: Column) -> Codec:
    parts = tuple(Part(j, 1, mean=0.5, scale=2.0, low_width=1.0, high_width=1.0) for j in range(len(columns)))
    return Codec(Schema(columns), parts)


SMOOTH = codec_of(*(Column(f"x{j}", "continuous") for j in range(DIM)))


def predicted(seed: int, j: int = 1) -> tuple[NormalMixtures, np.ndarray, MixtureForm]:
    """p(x_j | others) at draws of the law itself, in units in which z = (x − .5)/2."""
    form, z = law_and_draws(seed)
    rows = z * 2 + 0.5
    known = rows.copy()
    known[:, j] = np.nan
    return normal_mixtures(SMOOTH, form, known, j), rows, form


def distance(law: NormalMixtures, truth: np.ndarray) -> float:
    """KS distance of the PIT to the uniform law, in units of what the suite allows."""
    pit = np.sort(law.pit(truth))
    n = len(pit)
    steps = np.arange(n + 1) / n
    return float(max(np.abs(pit - steps[1:]).max(), np.abs(pit - steps[:-1]).max())) / (2.63 / n**0.5)


def test_density_is_the_joint_over_its_integral(seed):
    law, rows, form = predicted(seed)
    rows, law = rows[:20], law.rows(np.arange(20))
    grid = np.linspace(-25, 25, 20_001)
    for i, row in enumerate(rows):
        points = np.repeat((row[None] - 0.5) / 2, len(grid), axis=0)
        points[:, 1] = grid
        joint = np.exp(marginal_log_prob(form, points, np.zeros(points.shape, bool)))
        integral = float(
            joint.sum() * (grid[1] - grid[0])
        )  # for a smooth function that vanishes at the ends exact to rounding
        here = (row[None] - 0.5) / 2
        expected = marginal_log_prob(form, here, np.zeros((1, DIM), bool))[0] - np.log(integral) - np.log(2.0)
        assert law.rows(np.array([i])).log_prob(row[1:2])[0] == pytest.approx(expected, abs=1e-8)
        mean = float((grid * joint).sum() / joint.sum()) * 2 + 0.5
        found, sd = (float(v[0]) for v in law.rows(np.array([i])).moments())
        spread = (float((grid**2 * joint).sum() / joint.sum()) - ((mean - 0.5) / 2) ** 2) ** 0.5 * 2
        assert (found, sd) == pytest.approx((mean, spread), abs=1e-8)


def test_pit_is_uniform_and_quantiles_hold_their_share(seed):
    law, rows, _ = predicted(seed)
    assert distance(law, rows[:, 1]) < 1
    few = law.rows(np.arange(50))
    for p in (0.05, 0.5, 0.95):
        np.testing.assert_allclose(few.pit(few.quantile(p)), p, atol=1e-9)


@pytest.mark.parametrize("saboteur", of_predictions())
def test_saboteur_of_predictions(saboteur, seed):
    law, rows, _ = predicted(seed)
    assert distance(saboteur(law), rows[:, 1]) > 1


CELLED = Column("g", "gridded", step=0.5, low_cap=-2.0, high_cap=3.0, minimum=-2.0, maximum=3.0)


@pytest.mark.parametrize("transform", ["none", "log"])
def test_probabilities_of_cells_add_up_to_one(transform, seed):
    rng = np.random.default_rng(seed)
    if transform == "log":
        column = Column("g", "integer", "integer", step=1.0, transform="log", minimum=0.0, maximum=90.0)
        values = np.arange(0.0, 20_000.0)
    else:
        column, values = CELLED, np.arange(-2.0, 3.25, 0.5)
    n = len(values)
    part = Part(0, 1, mean=0.5, scale=1.3, low_width=0.5, high_width=0.5)
    spread = (
        np.zeros((n, 2)) + np.log([0.4, 0.6]),
        np.zeros((n, 2)) + rng.uniform(-1, 1, size=2),
        np.ones((n, 2)) * [0.5, 1.1],
    )
    law = NormalMixtures(column, part, *spread)
    assert np.exp(law.log_prob(values)).sum() == pytest.approx(1.0, abs=1e-6)
    mean, sd = (float(v[0]) for v in law.moments())
    shares = np.exp(law.log_prob(values))
    by_sum = float(shares @ values)
    assert abs(mean - by_sum) < 0.1 * sd  # the mean is taken before rounding to the grid
    median = law.quantile(0.5)[0]
    assert median in values and abs(np.cumsum(shares)[int(np.searchsorted(values, median))] - 0.5) <= shares.max()


def test_far_tails_have_finite_log_probabilities():
    law = NormalMixtures(CELLED, Part(0, 1, 0.0, 1.0), np.zeros((2, 1)), np.full((2, 1), [40.0]), np.ones((2, 1)))
    assert np.isfinite(law.log_prob(np.array([-1.5, 2.5]))).all()
    assert law.log_prob(np.array([3.0, 3.0])) == pytest.approx(np.log(ndtr(40 - 2.75)))


def test_classes_follow_bayes_rule_by_hand():
    model = fitted("gaussian", "mixed")
    table = model.sample(40, seed=1)
    found = predict(model, table, "kind")
    levels = model.schema.column("kind").levels
    j = model.schema.names.index("kind")
    joint = []
    for code in range(len(levels)):
        values = table.values.copy()
        values[:, j] = code
        joint.append(np.exp(model.log_prob(table.with_values(values))))
    by_hand = np.array(joint).T / np.sum(joint, axis=0)[:, None]
    np.testing.assert_allclose(found.probabilities, by_hand, atol=1e-9)
    np.testing.assert_allclose(found.probabilities.sum(1), 1.0, atol=1e-12)
    np.testing.assert_allclose(
        np.exp(found.log_prob()), by_hand[np.arange(40), table.values[:, j].astype(int)], atol=1e-9
    )
    assert set(found.mode) <= set(levels) and found.levels == levels
    wrong = by_hand[:, ::-1]  # saboteur: levels in another order
    assert np.abs(class_probabilities(model, table, j) - wrong).max() > 0.05


def test_a_number_beside_all_kinds_of_columns():
    model = fitted("gaussian", "mixed")
    table = model.sample(300, seed=2)
    for column in ("length", "count", "price"):
        found = predict(model, table, column)
        pit = np.sort(found.pit())
        assert np.abs(pit - (np.arange(300) + 0.5) / 300).max() < 2.63 / 300**0.5
        low, high = found.interval(0.9)
        assert (low <= high).all() and np.isfinite(found.log_prob()).all()
        assert found.judged()["share inside the 90 % interval"].high > 0.9
    without = {name: table[name] for name in table.names if name != "price"}
    np.testing.assert_allclose(predict(model, without, "price").mean, predict(model, table, "price").mean)


def test_ranks_of_draws(seed):
    rng = np.random.default_rng(seed)
    law = Draws(np.sort(rng.normal(size=(199, 4000)), axis=0))
    truth = rng.normal(size=4000)
    low, high = law.quantile(0.05), law.quantile(0.95)
    assert abs(((low <= truth) & (truth <= high)).mean() - 0.9) < 4.75 * (0.09 / 4000) ** 0.5
    assert abs(law.pit(truth).mean() - 0.5) < 4.75 * (1 / 12 / 4000) ** 0.5
