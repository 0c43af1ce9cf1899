"""EM with empty cells: the likelihood of what is there, never falling, equal to the closed form, and unbiased under MAR."""

from __future__ import annotations

import numpy as np
import pytest
from saboteurs.imputations import columns_filled_with_their_means, covariance_forgotten, incomplete_rows_dropped
from scipy.stats import multivariate_normal

from mulligan.data.codec import fit_codec
from mulligan.data.frames import from_object
from mulligan.data.inspection import conform, inspect
from mulligan.data.table import ReadOptions
from mulligan.errors import DataError
from mulligan.learners.expectation_maximisation import COVARIANCES, MixtureState
from mulligan.learners.incomplete_rows import FactorRows, climb, factor_step, incomplete_rows, mixture_step
from mulligan.models.incomplete import MixtureForm, draw_unknown, marginal_log_prob, pattern_law, patterns_of

ROUNDING = 1e-10


def holed(seed: int, n: int = 300, d: int = 4) -> np.ndarray:
    rng = np.random.default_rng(seed)
    points = (
        rng.normal(size=(3, d))[rng.integers(3, size=n)] * 2 + rng.normal(size=(n, d)) @ rng.normal(size=(d, d)) / 2
    )
    points[rng.random((n, d)) < 0.3] = np.nan
    return points


def start(points: np.ndarray, k: int) -> MixtureState:
    d = points.shape[1]
    complete = points[~np.isnan(points).any(axis=1)]
    return MixtureState(np.full(k, 1 / k), complete[:k].copy(), np.broadcast_to(np.eye(d), (k, d, d)).copy())


def curve_of(step, state, points: np.ndarray, steps: int) -> np.ndarray:
    """The mean log p of what is there, by the closed form, before and after every step."""
    found = []
    for _ in range(steps + 1):
        form = MixtureForm(np.log(state.weights), np.asarray(state.means), np.asarray(state.choleskys))
        found.append(marginal_log_prob(form, points, np.isnan(points)).mean())
        state, _ = step(state)
    return np.array(found)


@pytest.mark.parametrize("covariance", COVARIANCES)
def test_the_likelihood_never_falls(covariance, seed):
    points = holed(seed)
    points = points[~np.isnan(points).all(axis=1)]
    rows = incomplete_rows(points)
    curve = curve_of(lambda s: mixture_step(s, rows, covariance, 0.0), start(points, 3), points, 25)
    stated = climb(lambda s: mixture_step(s, rows, covariance, 0.0), start(points, 3), 25, -np.inf).history[
        "log_likelihood"
    ]
    np.testing.assert_allclose(
        stated, curve[:-1], atol=ROUNDING
    )  # the step states the likelihood that the closed form has
    assert np.diff(curve).min() > -ROUNDING and curve[-1] > curve[0] + 0.1


def test_saboteur_covariance_of_the_unknown_forgotten(seed):
    points = holed(seed)
    points = points[~np.isnan(points).all(axis=1)]
    rows = incomplete_rows(points)
    right = curve_of(lambda s: mixture_step(s, rows, "full", 0.0), start(points, 1), points, 40)
    wrong = curve_of(lambda s: covariance_forgotten(s, rows, "full", 0.0), start(points, 1), points, 40)
    assert np.diff(right).min() > -ROUNDING
    assert np.diff(wrong).min() < -ROUNDING and wrong[-1] < right[-1] - 0.01


@pytest.mark.parametrize("isotropic", [True, False])
def test_factor_likelihood_never_falls(isotropic, seed):
    rows = incomplete_rows(holed(seed))
    begin = FactorRows(np.zeros(4), np.random.default_rng(seed).normal(size=(4, 2)), np.ones(4))
    curve = climb(lambda s: factor_step(s, rows, isotropic, 1e-6), begin, 40, -np.inf).history["log_likelihood"]
    assert np.diff(curve).min() > -ROUNDING and curve[-1] > curve[0] + 0.1
    form = MixtureForm(
        np.zeros(1), begin.mean[None], np.linalg.cholesky(begin.loadings @ begin.loadings.T + np.eye(4))[None]
    )
    log_p = marginal_log_prob(form, rows.points, np.isnan(rows.points))
    np.testing.assert_allclose(curve[0], log_p.mean(), atol=ROUNDING)


def test_complete_rows_give_the_moments_in_one_step(seed):
    points = np.random.default_rng(seed).normal(size=(50, 3))
    state, _ = mixture_step(start(points, 1), incomplete_rows(points), "full", 0.0)
    np.testing.assert_allclose(state.means[0], points.mean(0), atol=ROUNDING)
    np.testing.assert_allclose(state.choleskys[0] @ state.choleskys[0].T, np.cov(points.T, bias=True), atol=ROUNDING)


def mean_where_missing_at_random(make, seed: int) -> float:
    """|mean of y − 0| in standard errors of n draws, where y is hidden wherever x > 0 and corr(x, y) = .8."""
    rng = np.random.default_rng(seed)
    n = 20_000
    points = rng.normal(size=(n, 2)) @ np.linalg.cholesky([[1, 0.8], [0.8, 1]]).T
    points[points[:, 0] > 0, 1] = np.nan
    rows = make(points)
    begin = MixtureState(np.ones(1), np.zeros((1, 2)), np.eye(2)[None])
    state = climb(lambda s: mixture_step(s, rows, "full", 0.0), begin, 400, 1e-12).state
    return abs(float(state.means[0, 1])) * n**0.5


def test_unbiased_where_cells_are_missing_at_random(seed):
    assert mean_where_missing_at_random(incomplete_rows, seed) < 4.75 * 3  # half of y is there, on one side of x


@pytest.mark.parametrize("saboteur", [incomplete_rows_dropped, columns_filled_with_their_means])
def test_saboteur_not_missing_completely_at_random(saboteur, seed):
    assert mean_where_missing_at_random(saboteur, seed) > 4.75 * 3


def test_closed_form_against_scipy(seed):
    rng = np.random.default_rng(seed)
    k, d = 3, 4
    weights, means = np.array([0.5, 0.3, 0.2]), rng.normal(size=(k, d))
    factors = np.tril(rng.normal(size=(k, d, d))) + 2 * np.eye(d)
    form = MixtureForm(np.log(weights), means, factors)
    points = rng.normal(size=(20, d))
    hidden = rng.random((20, d)) < 0.4
    hidden[0], hidden[1] = False, True
    found = marginal_log_prob(form, np.where(hidden, np.nan, points), hidden)
    for i, mask in enumerate(hidden):
        o = ~mask
        terms = [
            w * (multivariate_normal(m[o], (f @ f.T)[np.ix_(o, o)]).pdf(points[i, o]) if o.any() else 1.0)
            for w, m, f in zip(weights, means, factors)
        ]
        np.testing.assert_allclose(found[i], np.log(sum(terms)), atol=1e-9)
    assert sum(len(pattern.rows) for pattern in patterns_of(hidden)) == 20


def test_draws_have_the_conditional_moments(seed):
    rng = np.random.default_rng(seed)
    factor = np.tril(rng.normal(size=(3, 3))) + 2 * np.eye(3)
    form = MixtureForm(np.zeros(1), np.ones((1, 3)), factor[None])
    point, hidden = np.array([[[0.5, np.nan, -1.0]]]), np.array([[False, True, False]])
    draws = draw_unknown(form, point, hidden, 25_000, rng)[:, 0, 1]
    sigma, o = factor @ factor.T, [0, 2]
    slope = sigma[1, o] @ np.linalg.inv(sigma[np.ix_(o, o)])
    mean, variance = 1 + slope @ (np.array([0.5, -1.0]) - 1), sigma[1, 1] - slope @ sigma[o, 1]
    assert abs(draws.mean() - mean) < 4.75 * (variance / 25_000) ** 0.5
    assert abs(draws.var() / variance - 1) < 4.75 * (2 / 25_000) ** 0.5
    law = pattern_law(form, np.array([0, 2]), np.array([1]))
    np.testing.assert_allclose(law.factor[0, 0, 0] ** 2, variance, atol=1e-9)


COLUMNS = {
    "x": [0.12, 1.53, None, 3.71, 2.22, 5.05, 4.48, 2.91],
    "i": [1, None, 3, 3, 2, 7, 5, 4],
    "c": ["u", "v", "v", None, "w", "u", "u", "v"],
}


def test_empty_cells_come_in_and_are_encoded_as_nothing():
    table = inspect(from_object(COLUMNS), ReadOptions(missing="model"))
    assert np.isnan(table.values).sum() == 3
    assert "3 of 8 rows have empty cells (x 1, i 1, c 1): kept as unknown (--missing model)" in table.notes
    codec = fit_codec(table)
    encoded = codec.encode(table.values)
    assert encoded.missing.sum(1).tolist() == [0, 1, 1, 2, 0, 0, 0, 0]
    assert (np.isnan(encoded.points) == encoded.missing[:, None, :]).all()
    filled = np.where(np.isnan(table.values), 1.0, table.values)
    whole = codec.encode(filled)
    np.testing.assert_array_equal(encoded.points[[0, 4]], whole.points[[0, 4]])
    assert np.isfinite(encoded.log_jacobian).all()
    again = conform(from_object(table.to_dict()), table.schema, ReadOptions(missing="model"))
    np.testing.assert_array_equal(again.values, table.values)


def test_what_cannot_be_modelled_is_refused():
    with pytest.raises(DataError, match="'c' has no cell that is not empty"):
        inspect(from_object({"x": [1.5, 2.5, 3.5], "c": [None, None, None]}), ReadOptions(missing="model"))
    with pytest.raises(DataError, match="inf"):
        inspect(from_object({"x": [1.5, np.inf, None]}), ReadOptions(missing="model"))
