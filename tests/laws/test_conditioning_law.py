"""Conditional draws and densities agree with the exact answer: closed forms, quadrature in the plane, boxes by counting."""

from __future__ import annotations

from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from saboteurs import conditions as wrong
from shared_fits import ON_PLANE, OTHERS, WITH_DENSITY, fitted

from mulligan.catalog import FAMILIES
from mulligan.core import Density, Sampler
from mulligan.data.codec import Codec, Part
from mulligan.data.native import NativeCodec
from mulligan.data.table import Column, Schema
from mulligan.errors import DataError, UsageError
from mulligan.models import counted as counted_cells
from mulligan.models.autoregressive import make_autoregressive
from mulligan.models.columns import columns_of
from mulligan.models.ensemble import Ensemble
from mulligan.models.flow import stack
from mulligan.targets.gaussian import Gaussian
from mulligan.targets.mixture import GaussianMixture
from mulligan.targets.named import law
from mulligan.workbench import completion, direct, operations, spaces
from mulligan.workbench.fitted import Fitted
from mulligan.workbench.operations import condition, expectation, factor, marginal
from mulligan.workbench.spaces import closed_form, proposal

N = 2000
KS = 2.63  # level 2e-6
SCALE, SHIFT = 1.7, 0.4  # of every column: a forgotten Jacobian or shift shows


class Veiled(Sampler, Density):
    """A law whose closed form is not to be seen: the general method has to find it."""

    kind: ClassVar[str] = "exact"
    of: Density

    def log_prob(self, x, given=None):
        return self.of.log_prob(x)

    def sample(self, key, given=None):
        return self.of.sample(key)


def wrapped(model, d: int) -> Fitted:
    columns = tuple(Column(f"x{j + 1}", "continuous") for j in range(d))
    return Fitted("law", None, "law", Codec(Schema(columns), tuple(Part(j, 1, SHIFT, SCALE) for j in range(d))), model)


def five() -> tuple[Gaussian, np.ndarray, np.ndarray]:
    a = np.random.default_rng(2).normal(size=(5, 5))
    mean, covariance = np.arange(5.0) / 3, a @ a.T / 5 + 0.3 * np.eye(5)
    return Gaussian.from_covariance(mean, covariance), mean, covariance


def ring() -> GaussianMixture:
    angles = np.arange(8) * np.pi / 4
    means = 2 * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    return GaussianMixture.from_covariances(np.arange(1.0, 9) / 36, means, np.tile(0.04 * np.eye(2), (8, 1, 1)))


def on_plane(model: Fitted, at: float, low: float, high: float) -> tuple[np.ndarray, np.ndarray, float]:
    """Values of the second column, the exact cdf given the first, and log p of the first, by quadrature."""
    points = 128_001 if model.family == "histogram" else 4001  # its density jumps
    y, dy = np.linspace(low, high, points, retstep=True)
    p = np.exp(model.log_prob(np.column_stack([np.full(len(y), at), y])))
    return y, (np.cumsum(p) - 0.5 * p) / p.sum(), float(np.log(p.sum() * dy))


def distance(draws: np.ndarray, y: np.ndarray, cdf: np.ndarray) -> float:
    n = len(draws)
    return float(np.max(np.abs(np.interp(np.sort(draws), y, cdf) - (np.arange(n) + 0.5) / n)))


def bar(given, n: int = N) -> float:
    """The Kolmogorov-Smirnov bar for n draws resampled from a candidate pool worth the stated number of draws."""
    told = given.diagnostics
    return KS * np.sqrt(1 / n + (1 / told["effective_draws"] if "effective_draws" in told else 0.0))


def violation(model: Fitted, at: float, low: float, high: float) -> float:
    """The greatest of KS distance over its bar, and of the error of log p(evidence) over 5 standard errors plus 1e-3."""
    y, cdf, log_evidence = on_plane(model, at, low, high)
    names = model.schema.names
    given = condition(model, {names[0]: at}, seed=3)
    drawn = given.sample(N, seed=4)
    assert np.all(drawn[names[0]] == at)
    off = abs(given.log_evidence.value - log_evidence) / (1e-3 + 5 * given.log_evidence.stderr)
    rows = np.column_stack([np.full(N, at), drawn[names[1]]])
    told = given.log_prob(rows)
    truth = model.log_prob(rows) - log_evidence
    off = max(off, np.max(np.abs(told - truth)) / (1e-3 + 5 * given.log_evidence.stderr))
    return max(distance(drawn[names[1]], y, cdf) / bar(given), off)


LAWS = {
    "eight-gaussians": (lambda: wrapped(ring(), 2), 1.5 * SCALE + SHIFT, -8.0, 8.0),
    "eight-gaussians, closed form not known": (lambda: wrapped(Veiled(law("eight-gaussians")), 2), 2.4, -8.0, 8.0),
    "banana, closed form not known": (lambda: wrapped(Veiled(law("banana")), 2), 2.0, -12.0, 20.0),
}


@pytest.mark.parametrize("name", LAWS)
def test_the_conditional_law_is_that_of_quadrature(name):
    make, at, low, high = LAWS[name]
    assert violation(make(), at, low, high) < 1


@pytest.mark.parametrize("veiled", [False, True])
def test_five_coordinates(veiled):
    gaussian, mean, covariance = five()
    model = wrapped(Veiled(gaussian) if veiled else gaussian, 5)
    known = np.array([0.5, -0.2])
    given = condition(model, {"x2": known[0], "x4": known[1]}, seed=3)
    assert veiled or given.method == "exact"
    o, u = [1, 3], [0, 2, 4]
    z = (known - SHIFT) / SCALE - mean[o]
    gain = covariance[np.ix_(u, o)] @ np.linalg.inv(covariance[np.ix_(o, o)])
    centre = SHIFT + SCALE * (mean[u] + gain @ z)
    spread = SCALE**2 * (covariance[np.ix_(u, u)] - gain @ covariance[np.ix_(o, u)])
    drawn = given.sample(N, seed=1).values[:, u]
    whitened = np.linalg.solve(np.linalg.cholesky(spread), (drawn - centre).T)
    from scipy.stats import multivariate_normal, norm

    grid = np.linspace(-8, 8, 4001)
    for e in (*whitened, whitened.sum(axis=0) / np.sqrt(3)):
        assert distance(e, grid, norm.cdf(grid)) < bar(given)
    truth = multivariate_normal(SHIFT + SCALE * mean[o], SCALE**2 * covariance[np.ix_(o, o)]).logpdf(known)
    assert abs(given.log_evidence.value - truth) < 1e-4 + 5 * given.log_evidence.stderr
    rows = np.tile(SHIFT + SCALE * mean, (5, 1)) + np.eye(5)
    rows[:, o] = known
    expected = multivariate_normal(centre, spread).logpdf(rows[:, u])
    np.testing.assert_allclose(given.log_prob(rows), expected, atol=1e-3 + 5 * given.log_evidence.stderr)


# every run takes the families that fit at once, and of the others those whose programs other tests compile
EVERY_RUN = ("gaussian", "mixture", "factor", "kde", "histogram", "logistic-mixture", "flow")
FAMILIES_ON_PLANE = [label for label in WITH_DENSITY if label in ON_PLANE]


@pytest.mark.parametrize(
    "label",
    [
        label
        if label.split(":")[0] in EVERY_RUN and label not in OTHERS
        else pytest.param(label, marks=pytest.mark.slow)
        for label in FAMILIES_ON_PLANE
    ],
)
def test_each_family_agrees_with_quadrature_of_its_own_density(label):
    assert violation(fitted(label, "plane"), 0.7, -12.0, 20.0) < 1


def in_order(members: int = 2) -> Fitted:
    """An ensemble that was not trained, of a number on a grid and two continuous ones, in the order x2, x1, x3."""
    columns = (Column("x1", "continuous"), Column("x2", "integer", "integer", step=1.0), Column("x3", "continuous"))
    codec = NativeCodec(Schema(columns), tuple(Part(j, 1, SHIFT, SCALE) for j in range(3)))
    rng = np.random.default_rng(5)
    made = [
        make_autoregressive(columns_of(codec), rng, order=[1, 0, 2], width=8, depth=1, parts=2) for _ in range(members)
    ]
    bent = [
        jax.tree.map(
            lambda leaf: (
                leaf + 0.4 * rng.normal(size=leaf.shape).astype(leaf.dtype)
                if jnp.issubdtype(leaf.dtype, jnp.inexact)
                else leaf
            ),
            each,
        )
        for each in made
    ]
    return Fitted("autoregressive", None, "untrained", codec, Ensemble(stack(bent)))


def violation_in_order(model: Fitted) -> float:
    """Of p(x1 | x2) by its exact marginal and p(x3 | x2, x1) by quadrature: KS over its bar, errors of log p over 1e-3."""
    grid, step = np.linspace(-60, 60, 12_001, retstep=True)
    first, both = {"x2": np.ones(len(grid)), "x1": grid}, {"x2": 1.0, "x1": 0.5}
    rows = np.column_stack([np.full(len(grid), 0.5), np.ones(len(grid)), grid])
    off = []
    for known, name, log_p in (
        ({"x2": 1.0}, "x1", marginal(model, ["x1", "x2"]).log_prob(first)),
        (both, "x3", model.log_prob(rows)),
    ):
        p = np.exp(log_p)
        given = condition(model, known)
        assert given.method == "exact" and given.log_evidence.kind == "exact"
        off.append(abs(given.log_evidence.value - np.log(p.sum() * step)) / 1e-3)
        drawn = given.sample(N, seed=4)[name]
        off.append(distance(drawn, grid, (np.cumsum(p) - 0.5 * p) / p.sum()) / (KS / np.sqrt(N)))
    return max(off)


def test_an_autoregressive_model_is_exact_in_its_order():
    model = in_order()
    assert violation_in_order(model) < 1
    shown = np.array([[True, False, True], [False, False, True], [False, True, True]])  # x2; x1 and x2; x1
    assert direct.has_own_way(model, shown).tolist() == [True, True, False]
    rows = model.sample(5, seed=1)
    terms = factor(model, rows, ["x2", "x1", "x3"])
    np.testing.assert_allclose(terms.sum(axis=1), model.log_prob(rows), atol=1e-4)


def test_saboteur_of_the_order(monkeypatch):
    monkeypatch.setattr(direct, "continued", wrong.front_forgotten)
    assert violation_in_order(in_order()) > 1


# --- boxes: ranges, grids, categories ---------------------------------------------------------------------------------


def counted(model: Fitted, evidence, n: int = 60_000) -> tuple[np.ndarray, np.ndarray]:
    """Draws of the whole law, and those of them in the evidence."""
    drawn = model.sample(n, seed=5).values
    return drawn, drawn[operations.parse_evidence(evidence, model.schema).holds(drawn, model.schema)]


BOXES = (["count>4"], ["kind=green"], ["count=3", "kind=red"], ["1<=length<2.5", "sold=True", "price>3"])


@pytest.mark.parametrize(
    "name, table, evidence",
    [(name, "mixed", evidence) for name in ("gaussian", "mixture") for evidence in BOXES]
    + [("histogram", "narrow", evidence) for evidence in (["count>4"], ["1<=length<2.5", "sold=True"])]
    + [pytest.param("vae", "mixed", evidence, marks=pytest.mark.slow) for evidence in BOXES],
)
def test_ranges_and_categories_are_boxes(name, table, evidence):
    model = fitted(name, table)
    drawn, inside = counted(model, evidence)
    given = condition(model, evidence, seed=1)
    p, n = len(inside) / len(drawn), len(drawn)
    found = np.exp(given.log_evidence.value)
    error = np.hypot(np.sqrt(p * (1 - p) / n), found * given.log_evidence.stderr)
    assert abs(found - p) < 5 * error
    rows = given.sample(N, seed=2)
    assert given.evidence.holds(rows.values, rows.schema).all()
    for j in range(rows.values.shape[1]):  # two-sample Kolmogorov-Smirnov, for ties conservative
        values = np.unique(np.concatenate([inside[:, j], rows.values[:, j]]))
        both = [np.searchsorted(np.sort(x), values, side="right") / len(x) for x in (inside[:, j], rows.values[:, j])]
        assert np.max(np.abs(both[0] - both[1])) < KS * np.sqrt(1 / len(inside)) + bar(given)


@pytest.mark.parametrize("name", ["mixture", "histogram"])
def test_marginals_and_factors_add_up(name):
    model = fitted(name, "plane")
    rows = np.array([[0.3, 1.0], [1.0, -0.5]])
    terms = factor(model, rows, ["x2", "x1"] if "x2" in model.schema.names else model.schema.names[::-1])
    np.testing.assert_allclose(terms.sum(axis=1), model.log_prob(rows), atol=1e-4)
    name = model.schema.names[0]
    grid = np.linspace(-15, 15, 6001)
    log_p = marginal(model, name).log_prob({name: grid})
    rough = 1e-2 if model.family == "histogram" else 1e-6  # a rule of equal steps on a law that jumps
    assert np.trapezoid(np.exp(log_p), grid) == pytest.approx(1, abs=rough)


def test_an_expectation_states_its_error():
    gaussian, mean, covariance = five()
    model = wrapped(gaussian, 5)
    found = expectation(model, lambda rows: rows["x1"])
    assert abs(found.value - (SHIFT + SCALE * mean[0])) < 5 * found.stderr
    assert found.stderr == pytest.approx(SCALE * np.sqrt(covariance[0, 0] / 10_000), rel=0.1)
    assert expectation(model, lambda rows: rows["x1"] > 1, given=["x1>1"]).value == 1


# --- saboteurs ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["evidence_ignored", "mask_inverted", "jacobian_forgotten"])
def test_saboteurs_of_the_evidence(monkeypatch, name):
    monkeypatch.setattr(operations, "region_of", getattr(wrong, name))
    assert violation(wrapped(ring(), 2), 1.5 * SCALE + SHIFT, -8.0, 8.0) > 1


def test_saboteur_weights_of_the_parts(monkeypatch):
    monkeypatch.setattr("mulligan.models.boxes.log_joint", wrong.weights_of_the_parts_not_updated)
    assert violation(wrapped(ring(), 2), 1.5 * SCALE + SHIFT, -8.0, 8.0) > 1


@pytest.mark.parametrize("name, where", [("ratio_forgotten", "weigh"), ("correction_missing", "accept")])
def test_saboteurs_of_the_general_method(monkeypatch, name, where):
    monkeypatch.setattr(
        spaces, "proposal", lambda points: proposal(points, parts=1)
    )  # a proposal that has to be mended
    model = wrapped(Veiled(law("banana")), 2)
    right = condition(model, {"x1": 2.0}, seed=3)
    y, cdf, _ = on_plane(model, 2.0, -12.0, 20.0)
    assert distance(right.sample(N, seed=4)["x2"], y, cdf) < bar(right)
    monkeypatch.setattr(completion, where, getattr(wrong, name))
    if where == "weigh":
        monkeypatch.setattr(operations, "MOVES", 0)
    assert distance(right.sample(N, seed=4)["x2"], y, cdf) > bar(right)


def test_groups_that_the_moves_do_not_bring_together_are_said(monkeypatch):
    monkeypatch.setattr(spaces, "proposal", lambda points: proposal(points, parts=1))
    model = wrapped(Veiled(law("banana")), 2)
    assert condition(model, {"x1": 2.0}, seed=3).diagnostics["rhat"] < 1.05
    monkeypatch.setattr(completion, "resampled", wrong.each_group_from_one_candidate)
    monkeypatch.setattr(completion, "accept", wrong.nothing_taken)
    assert "groups of draws disagree" in condition(model, {"x1": 2.0}, seed=3).diagnostics["warning"]


@pytest.mark.parametrize("where, name", [("axis_log_shares", "evidence_not_counted"), ("_within", "cells_uncut")])
def test_saboteurs_of_counting(monkeypatch, where, name):
    evidence = {"x1": 0.7} if where == "axis_log_shares" else {"x2": (0.0, 1.0)}
    model = fitted("histogram", "plane")
    monkeypatch.setattr(counted_cells, where, getattr(wrong, name))
    if where == "axis_log_shares":
        assert violation(model, 0.7, -12.0, 20.0) > 1
    else:
        inside = condition(model, evidence).sample(N)["x2"]
        assert np.mean((inside > 0) & (inside < 1)) < 0.99


# --- what is refused ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "evidence, error, said",
    [
        (["lenght>1"], UsageError, "Did you mean length"),
        (["kind=purple"], DataError, "has no level 'purple'"),
        (["kind>red"], UsageError, "it has no order"),
        (["count=2.5"], DataError, "no row has count=2.5"),
        (["count>4", "count<3"], DataError, "the range of 'count' is empty"),
        (["length"], UsageError, "says nothing of a column"),
        (["length=soon"], UsageError, "is a number"),
        ([], UsageError, "no evidence"),
    ],
)
def test_senseless_evidence_is_refused(evidence, error, said):
    with pytest.raises(error, match=said):
        condition(fitted("gaussian", "mixed"), evidence)


class Broken(Veiled):
    """No number on one side of the plane."""

    def log_prob(self, x, given=None):
        return jnp.where(x[1] > 0, jnp.nan, self.of.log_prob(x))


def test_a_density_that_is_no_number_is_said():
    with pytest.raises(DataError, match="NaN or infinite at"):
        condition(wrapped(Broken(law("banana")), 2), {"x1": 2.0}, draws=64)


def test_the_closed_forms_are_used_where_they_are():
    closed = ("gaussian", "mixture", "factor", "kde", "histogram")
    assert all(closed_form(fitted(name, "plane")) is not None for name in closed)
    assert set(EVERY_RUN) <= set(FAMILIES)
