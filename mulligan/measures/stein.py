"""Kernel Stein discrepancy: do draws follow a density that is known up to a constant? Only its score is needed.

Definition. With k(x, y) = (c² + |x − y|²)^(−1/2) and s = ∇ log π, u(x, y) = s(x)ᵀs(y) k + s(x)ᵀ∇_y k + s(y)ᵀ∇_x k +
tr ∇_x∇_y k has E_{y~π} u(x, y) = 0 for every x, so KSD²(p, π) = E_{x,y~p} u(x, y) is 0 for p = π, positive for other p
(Liu, Lee and Jordan 2016; Chwialkowski, Strathmann and Gretton 2016; the inverse multiquadric sees tails that a Gaussian
kernel does not: Gorham and Mackey 2017). It is blind to the weights of modes far apart. Theory: chapter 3.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from mulligan.errors import DataError
from mulligan.quantity import Quantity

MOST_DRAWS = 3000  # memory and time grow as the square
BOOTSTRAP = 1000


class SteinTest(NamedTuple):
    """``discrepancy``, an estimate of KSD² without bias (it may be negative), and the ``p_value`` of p = π."""

    discrepancy: Quantity
    p_value: float


def kernel_stein(points: Any, scores: Any, seed: int = 0, scale: float | None = None, flip: float = 0.5) -> SteinTest:
    """KSD² of draws (n, d) with the target's scores there (n, d), and the p-value of the draws being the target's.

    The value is the U-statistic Σ_{i≠j} u(x_i, x_j)/(n(n − 1)), its error that of a U-statistic's projection; the p-value is
    by wild bootstrap, Σ ε_i ε_j u_ij with random signs. Signs change from a draw to the next with probability ``flip``: ½
    for independent draws, less for draws of a chain in order (about 1/(2 autocorrelation time); Chwialkowski et al.
    2014). ``scale`` is c (None: the median distance). More than 3 000 draws are thinned evenly.

    Raises DataError for fewer than 10 draws, for shapes that differ and for scores that are not finite.

    >>> x = np.random.default_rng(0).normal(size=(300, 2))
    >>> kernel_stein(x, -x).p_value > 0.01, kernel_stein(x + 0.5, -x - 0.5).p_value < 0.01
    (True, True)
    """
    x, s = np.asarray(points, np.float64), np.asarray(scores, np.float64)
    if x.ndim != 2 or x.shape != s.shape or len(x) < 10 or not (np.isfinite(x).all() and np.isfinite(s).all()):
        raise DataError(
            f"points {x.shape} and scores {s.shape}", "kernel_stein", "10 or more finite rows of both, of one shape"
        )
    note = ""
    if len(x) > MOST_DRAWS:
        chosen = np.linspace(0, len(x) - 1, MOST_DRAWS).round().astype(int)
        note = f"{MOST_DRAWS:,} of {len(x):,} draws, evenly spaced"
        x, s = x[chosen], s[chosen]
    n = len(x)
    u = stein_kernel(x, s, scale)
    np.fill_diagonal(u, 0.0)
    means = u.sum(axis=1) / (n - 1)
    value = float(means.mean())
    stderr = 2 * float(means.std(ddof=1)) / math.sqrt(n)
    rng = np.random.default_rng(seed)
    first = rng.choice([-1.0, 1.0], size=(BOOTSTRAP, 1))
    signs = first * np.cumprod(np.where(rng.uniform(size=(BOOTSTRAP, n)) < flip, -1.0, 1.0), axis=1)
    null = np.einsum("bi,bi->b", signs @ u, signs) / (n * (n - 1))
    p_value = (1 + int((null >= value).sum())) / (BOOTSTRAP + 1)
    reach = 1.96 * stderr
    found = Quantity(value, "estimate", value - reach, value + reach, stderr, n, "KSD²", note)
    return SteinTest(found, p_value)


def stein_kernel(points: np.ndarray, scores: np.ndarray, scale: float | None = None) -> np.ndarray:
    """u(x_i, x_j) of all pairs, (n, n).

    >>> stein_kernel(np.zeros((1, 1)), np.ones((1, 1)), 1.0).tolist()  # |s|² + d
    [[2.0]]
    """
    points = points - points.mean(axis=0)  # nothing depends on the place, and far from 0 digits would be lost
    norms = (points**2).sum(axis=1)
    distance2 = np.maximum(norms[:, None] + norms - 2 * points @ points.T, 0.0)
    if scale is None:
        apart = distance2[np.triu_indices(len(points), 1)]
        scale = math.sqrt(float(np.median(apart))) if apart.size else 0.0
        scale = scale if scale > 1e-12 * (1 + math.sqrt(float(norms.max()))) else 1.0  # most draws are one point
    q = scale**2 + distance2
    along = (scores * points).sum(axis=1)
    cross = scores @ points.T
    slope = along[:, None] + along - cross - cross.T  # (s_i − s_j)·(x_i − x_j)
    d = points.shape[1]
    return (scores @ scores.T) / np.sqrt(q) + (slope + d) / q**1.5 - 3 * distance2 / q**2.5
