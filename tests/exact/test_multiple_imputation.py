"""Rubin's rules: a case by hand, coverage over many replicates, and intervals of imputed cells."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from saboteurs.imputations import (
    between_forgotten,
    draws_without_noise,
    finite_number_of_tables_forgotten,
    parameters_taken_as_known,
)
from scipy.special import stdtrit

from mulligan.measures.multiple_imputation import pool, pool_arrays
from mulligan.workbench.imputation import conformal_threshold, nested_interval, nested_score

REPLICATES, ROWS = 5000, 60
Z = 4.75


def by_hand(pooled) -> tuple:
    """Three tables: Q̄ = 2, Ū = 2, B = 1, T = 2 + 4/3; λ = .4, ν = 2/.16."""
    return tuple(float(v[0]) for v in pooled(np.array([[1.0], [2.0], [3.0]]), np.array([[1.0], [2.0], [3.0]])))


def test_by_hand():
    assert by_hand(pool_arrays) == pytest.approx((2.0, 2.0, 1.0, 10 / 3, 12.5))
    found = pool([1.0, 2.0, 3.0], [1.0, 2.0, 3.0], complete_degrees=20)
    shown = 21 / 23 * 20 * 0.6
    assert found.degrees_of_freedom == pytest.approx(1 / (1 / 12.5 + 1 / shown))
    r = 2 / 3
    assert found.missing_information == pytest.approx((r + 2 / (found.degrees_of_freedom + 3)) / (r + 1))
    assert found.quantity.contains(2.0) and found.quantity.stderr == pytest.approx((10 / 3) ** 0.5)
    whole = pool([1.0, 1.0], [4.0, 4.0])
    assert whole.total == 4.0 and whole.degrees_of_freedom == np.inf and whole.missing_information == 0.0


@pytest.mark.parametrize("saboteur", [between_forgotten, finite_number_of_tables_forgotten])
def test_saboteur_by_hand(saboteur):
    assert by_hand(lambda q, u: saboteur(q, u, pool_arrays))[3] != pytest.approx(10 / 3)


def covered(seed: int, tables: int = 5, pooled=None, drawn=np.add, proper: bool = True) -> float:
    """How often the pooled 95 % interval of E y = 0 holds; y = .4 x + .9 e is hidden more often where x is large.

    Imputations are proper: σ², then the slopes, then the noise are drawn from their posterior given the rows that are there.
    """
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(REPLICATES, ROWS))
    y = 0.4 * x + 0.9 * rng.normal(size=x.shape)
    there = rng.random(x.shape) > 1 / (1 + np.exp(-1.5 * x - 0.5))
    w, n = there.astype(float), there.sum(1)
    mx, my = (w * x).sum(1) / n, (w * y).sum(1) / n
    sxx = (w * (x - mx[:, None]) ** 2).sum(1)
    slope = (w * (x - mx[:, None]) * y).sum(1) / sxx
    left = (w * (y - my[:, None] - slope[:, None] * (x - mx[:, None])) ** 2).sum(1)
    q, u = [], []
    for _ in range(tables):
        sigma = np.sqrt(left / (rng.chisquare(n - 2) if proper else n - 2))
        a = my + proper * sigma / np.sqrt(n) * rng.normal(size=REPLICATES)
        b = slope + proper * sigma / np.sqrt(sxx) * rng.normal(size=REPLICATES)
        guess = a[:, None] + b[:, None] * (x - mx[:, None])
        whole = np.where(there, y, drawn(guess, sigma[:, None] * rng.normal(size=x.shape)))
        q.append(whole.mean(1))
        u.append(whole.var(1, ddof=1) / ROWS)
    estimate, _, _, total, degrees = (pooled or partial(pool_arrays, complete_degrees=ROWS - 1))(
        np.array(q), np.array(u)
    )
    return float((np.abs(estimate) <= stdtrit(degrees, 0.975) * np.sqrt(total)).mean())


LEAST, MOST = (0.95 + side * (Z * (0.95 * 0.05 / REPLICATES) ** 0.5 + 0.01) for side in (-1, 1))


def test_pooled_intervals_cover(seed):
    """Within 4.75 standard errors, and .01 beside: with 60 rows Rubin's t is itself an approximation."""
    assert LEAST < covered(seed) < MOST


@pytest.mark.parametrize(
    "how",
    [
        {"pooled": partial(between_forgotten, pooled=partial(pool_arrays, complete_degrees=ROWS - 1))},
        {"drawn": draws_without_noise},
        {"drawn": parameters_taken_as_known, "proper": False},
    ],
)
def test_saboteur_does_not_cover(how, seed):
    assert not LEAST < covered(seed, **how) < MOST


def intervals(seed: int, spread: float, threshold: float | None) -> float:
    """The share of 20 000 fresh normal values in intervals from 199 draws of a normal law of another spread."""
    rng = np.random.default_rng(seed)
    draws, truth = np.sort(spread * rng.normal(size=(199, 20_000)), axis=0), rng.normal(size=20_000)
    if threshold is None:
        held = nested_score(np.sort(spread * rng.normal(size=(199, 5000)), axis=0), rng.normal(size=5000))
        threshold = conformal_threshold(held, 0.9)
    low, high = nested_interval(draws, np.full(20_000, threshold))
    return float(((low <= truth) & (truth <= high)).mean())


def test_ranks_of_draws_cover_exactly(seed):
    assert abs(intervals(seed, 1.0, -10.0) - 0.9) < Z * (0.09 / 20_000) ** 0.5


@pytest.mark.parametrize("spread", [0.2, 0.5, 1.0, 3.0])
def test_calibrated_intervals_of_a_wrong_model_cover(spread, seed):
    """Their coverage varies with the 5 000 rows they are calibrated by, and by one rank of 200."""
    assert abs(intervals(seed, spread, None) - 0.9) < Z * (0.09 / 20_000 + 0.09 / 5000) ** 0.5 + 0.01


@pytest.mark.parametrize("spread", [0.2, 0.5, 3.0])
def test_saboteur_calibration_left_out(spread, seed):
    assert abs(intervals(seed, spread, -10.0) - 0.9) > Z * (0.09 / 20_000 + 0.09 / 5000) ** 0.5 + 0.01


def test_score_and_interval_agree(seed):
    """{score ≤ t} is the interval at t, for inner ranks and beyond the outermost draws, with ties, too."""
    rng = np.random.default_rng(seed)
    for draws in (rng.normal(size=(19, 400)), rng.integers(0, 6, (19, 400)).astype(float)):
        draws = np.sort(draws, axis=0)
        truth = np.where(
            rng.random(400) < 0.5, draws[rng.integers(19, size=400), np.arange(400)], 2 * rng.normal(size=400)
        )
        for threshold in (-5.0, -1.0, 0.0, 0.3):
            low, high = nested_interval(draws, np.full(400, threshold))
            inside = (low <= truth) & (truth <= high)
            np.testing.assert_array_equal(inside, nested_score(draws, truth) <= threshold + 1e-12)
