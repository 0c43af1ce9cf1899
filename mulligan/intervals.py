"""How far a 95 % interval of a mean reaches: Student's t, mended for rows that are skewed and for rows with a heavy tail.

Definition. Of G independent residuals r_g around their mean, a reach is a number of standard errors sd(r)/√G.
``reaches`` gives both. From 10 residuals on it is Student's t with Hall's correction for skewness (Hall 1992). Where the
skewness γ says that one tail is heavy (|γ| > 2), the end on that side is also read from a model of that tail, and the
farther one is taken: below a threshold the residuals speak for themselves, beyond it their excesses are generalised Pareto
with shape k and scale σ (Pickands 1975; Johansson 2003 for means, Taddy, Lopes and Gardner 2016 with a posterior), whose
mean is σ/(1−k). log p of a row that no training row is near has such a tail: one row in a hundred moves the mean by more
than all others, and most test parts hold none of them.
Identity: ``mle.kl`` (the mean of log p that the interval is about).
"""

from __future__ import annotations

import math

import numpy as np

LEAST_FOR_SKEWNESS = 10  # residuals below which a skewness is itself mostly noise
MOST_SKEWNESS = 0.4  # of γ/√G
HEAVY = 2.0  # skewness (an exponential law's) up to which Hall's correction alone was seen to cover
TAIL_SHARE, LEAST_TAIL, MOST_TAIL = 0.2, 5, 300  # residuals in the tail: min(G/5, 3√G), as for smoothed weights
SHAPE, SHAPE_SPREAD = 0.25, 0.3  # prior of k, N(¼, 0.3²): from light tails to no variance (k = ½) and beyond
_SHAPES = np.linspace(-0.5, 0.9, 15)  # k ≥ 1 would be a mean that does not exist; even, so that none of them is 0
_SCALES = np.geomspace(0.25, 4.0, 15)  # σ in units of the mean excess


def reaches(residuals: np.ndarray, level: float) -> tuple[float, float]:
    """Standard errors from the mean down and up, for residuals (G,) that sum to 0 and one-sided ``level``.

    With T the studentised mean and u = γ/√G, g(T) = ((1 + uT/3)³ − 1)/u + u/6 is Student's to higher order (Hall 1992), so
    the ends of T are g⁻¹(±t). u is held within ±0.4: beyond that a few rows decide and the expansion no longer holds.

    >>> down, up = reaches(np.array([-1.0, 0.0, 1.0]), 0.975)
    >>> down == up, round(down, 3)
    (True, 4.303)
    """
    groups = residuals.size
    t = student_quantile(level, groups - 1)
    spread = float(np.mean(residuals**2))
    if groups < LEAST_FOR_SKEWNESS or spread <= 0:
        return t, t
    skewness = float(np.mean(residuals**3)) / spread**1.5
    u = max(-MOST_SKEWNESS, min(MOST_SKEWNESS, skewness / math.sqrt(groups)))
    if abs(u) < 1e-6:
        return t, t

    def inverse(y: float) -> float:
        return 3 / u * (math.cbrt(1 + u * (y - u / 6)) - 1)

    down, up = inverse(t), -inverse(-t)
    if skewness < -HEAVY:
        down = max(down, tail_reach(-residuals, level))
    elif skewness > HEAVY:
        up = max(up, tail_reach(residuals, level))
    return down, up


def tail_reach(residuals: np.ndarray, level: float) -> float:
    """Standard errors from the mean up to the ``level`` quantile of the posterior of the mean, by a generalised Pareto tail.

    With tail indicator a_g and mean excess μ the mean is that of min(r_g, threshold) + μ a_g, Student's t given μ; the
    posterior of μ = σ/(1−k) is summed over a grid of (k, σ). 0 where the tail says nothing: fewer than 5 residuals in it,
    or equal ones (a discrete law).

    >>> rows = np.sort(np.random.default_rng(0).pareto(1.8, 60))
    >>> 3 < tail_reach(rows - rows.mean(), 0.975) < 12
    True
    """
    from scipy.special import stdtr  # 60 ms: only when a number is made

    n = residuals.size
    m = int(min(TAIL_SHARE * n, 3 * math.sqrt(n), MOST_TAIL))
    ordered = np.sort(residuals)
    if m < LEAST_TAIL or not np.all(np.diff(ordered[-m - 1 :]) > 0):
        return 0.0
    threshold = ordered[-m - 1]
    means, weights = _mean_excesses(ordered[-m:] - threshold)
    body, share = np.minimum(ordered, threshold), m / n
    centres = body.mean() + share * means
    covariance = share * (threshold - body.mean())
    errors = np.sqrt((body.var() + means**2 * share * (1 - share) + 2 * means * covariance) / (n - 1))
    low, high = 0.0, float(np.max(centres + 40 * errors))
    for _ in range(40):  # bisection: 12 digits
        middle = 0.5 * (low + high)
        if weights @ stdtr(n - 1, (middle - centres) / errors) < level:
            low = middle
        else:
            high = middle
    return low / (float(residuals.std()) / math.sqrt(n - 1))


def _mean_excesses(excesses: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean excesses σ/(1−k) over the grid, with their posterior weights."""
    scale = float(excesses.mean())
    shapes, scales = _SHAPES[:, None], _SCALES[None]
    with np.errstate(invalid="ignore", divide="ignore"):  # beyond the end of a short tail: density 0
        grown = np.log1p((excesses / scale)[:, None, None] * (shapes / scales)).sum(axis=0)
    log_weights = (
        -excesses.size * np.log(scales) - (1 + 1 / shapes) * grown - 0.5 * ((shapes - SHAPE) / SHAPE_SPREAD) ** 2
    )
    log_weights = np.where(np.isfinite(log_weights), log_weights, -np.inf)
    weights = np.exp(log_weights - log_weights.max()).reshape(-1)
    means = (scale * scales / (1 - shapes)).reshape(-1)
    kept = weights > 1e-7
    return means[kept], weights[kept] / weights[kept].sum()


def student_quantile(level: float, freedom: float) -> float:
    """Student's t quantile."""
    from scipy.special import stdtrit

    return float(stdtrit(freedom, level))
