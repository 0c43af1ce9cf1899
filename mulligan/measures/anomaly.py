"""Conformal p-values of unusual rows: valid whatever the model is.

Definition (Vovk, Gammerman and Shafer 2005). Let s be a score that is high for usual rows, c_1 … c_m the scores of
calibration rows that had no part in making s, and s_0 that of a fresh row of the same law. Then all m + 1 are exchangeable,
and with U uniform on [0, 1]

    p = (#{c_i < s_0} + U·(1 + #{c_i = s_0}))/(m + 1)

is uniform, however wrong the model is. With U = 1 it is p = (1 + #{c_i ≤ s_0})/(m + 1): the same number for the same row,
and conservative where scores tie (atoms of discrete data): P(p ≤ a) ≤ a. That form is shown; the randomised one is for
checks of uniformity. The p-values of several rows share their calibration rows and are positively dependent, so Benjamini
and Hochberg's (1995) rule still bounds the expected share of false flags (Bates et al. 2023).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from mulligan.quantity import Quantity, none

LEAST_ROWS = 20
KOLMOGOROV = 1.3581  # 95 % quantile of √(nm/(n+m)) times the distance of two samples of one law (Smirnov 1948)
LEVELS = 51  # where the shares are stated: 0, .02, … 1


def conformal_p(
    calibration: np.ndarray, scores: np.ndarray, generator: np.random.Generator | None = None
) -> np.ndarray:
    """p of each score (n,) among the calibration scores (m,); conservative, or randomised with a generator.

    Raises ValueError where there is no calibration score, or one is NaN.

    >>> conformal_p(np.array([1.0, 2.0, 3.0]), np.array([0.0, 2.0, 9.0])).tolist()
    [0.25, 0.75, 1.0]
    """
    calibration = np.sort(np.asarray(calibration, np.float64))
    scores = np.asarray(scores, np.float64)
    if not calibration.size or np.isnan(calibration).any() or np.isnan(scores).any():
        raise ValueError("p-values need calibration scores, and no score may be NaN")
    below = np.searchsorted(calibration, scores, side="left")
    upto = np.searchsorted(calibration, scores, side="right")
    u = np.ones(scores.shape) if generator is None else generator.random(scores.shape)
    return (below + u * (1 + upto - below)) / (calibration.size + 1)


def benjamini_hochberg(p: np.ndarray, level: float) -> np.ndarray:
    """Which p-values (n,) are flagged so that the expected share of false flags is at most ``level``, bool (n,).

    >>> benjamini_hochberg(np.array([0.001, 0.04, 0.9, 0.2]), 0.05).tolist()
    [True, False, False, False]
    """
    if not 0 < level < 1:
        raise ValueError(f"level is {level}; expected a share between 0 and 1")
    p = np.asarray(p, np.float64)
    order = np.argsort(p, kind="stable")
    passed = np.flatnonzero(p[order] <= level * np.arange(1, p.size + 1) / max(p.size, 1))
    flagged = np.zeros(p.size, bool)
    flagged[order[: passed[-1] + 1 if passed.size else 0]] = True
    return flagged


def ks_to_uniform(p: np.ndarray) -> float:
    """Kolmogorov and Smirnov's distance sup |F_n(a) − a| of p-values (n,) from the uniform law.

    >>> ks_to_uniform(np.array([0.5]))
    0.5
    """
    p = np.sort(np.asarray(p, np.float64))
    n = p.size
    steps = np.arange(n + 1) / n
    return float(max(np.max(steps[1:] - p), np.max(p - steps[:-1])))


class Uniformity(NamedTuple):
    """How the p-values of fresh rows lie: ``ks``, what 95 % of valid ones stay below (``bar``), and P(p ≤ a) at LEVELS a.

    ``calibration_rows`` is m; the number of fresh rows is ``ks.n``.
    """

    ks: Quantity
    bar: float
    shares: tuple[float, ...]
    calibration_rows: int


def uniformity(
    calibration: np.ndarray, scores: np.ndarray, seed: int = 0, independent: int | None = None
) -> Uniformity:
    """Are the p-values of fresh scores (n,) among calibration scores (m,) uniform, as they must be for rows of one law?

    Ties are broken at random, so that atoms do not count. ``ks`` is the distance of p from uniform; by Dvoretzky, Kiefer
    and Wolfowitz's inequality for two samples the true one is within ``bar`` = 1.358 √((n+m)/(nm)) of it. ``independent``
    is the number of calibration rows that are independent draws, where that is less than m; fresh rows must be so.

    >>> rng = np.random.default_rng(0)
    >>> found = uniformity(rng.normal(size=400), rng.normal(size=300))
    >>> found.ks.low, uniformity(rng.normal(size=400), rng.normal(size=300) - 1).ks.low > 0.1
    (0.0, True)
    """
    m, n = len(calibration), len(scores)
    if min(m, n) < LEAST_ROWS or np.isnan(calibration).any() or np.isnan(scores).any():
        why = f"{n} rows against {m} are too few" if min(m, n) < LEAST_ROWS else "some scores are NaN"
        return Uniformity(none(f"p-values: {why}", "distance"), 1.0, (), m)
    p = conformal_p(calibration, scores, np.random.default_rng([seed, 257]))
    value, drawn = ks_to_uniform(p), min(m, independent or m)
    bar = KOLMOGOROV * math.sqrt((n + drawn) / (n * drawn))
    note = f"Kolmogorov distance of {n:,} p-values from uniform; 95 % of valid ones are below {bar:.3f}"
    ks = Quantity(value, "estimate", max(0.0, value - bar), min(1.0, value + bar), None, n, "distance", note)
    shares = np.searchsorted(np.sort(p), np.linspace(0, 1, LEVELS), side="right") / n
    return Uniformity(ks, bar, tuple(np.round(shares, 6).tolist()), m)
