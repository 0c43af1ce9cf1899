"""Divergences between two laws whose log densities are known, each as a number with the estimator that made it.

Definitions. KL(p‖q) = E_p log p/q (Kullback and Leibler 1951); JS = ½KL(p‖m) + ½KL(q‖m) with m = (p + q)/2 (Lin 1991),
between 0 and log 2; χ²(p‖q) = E_q (p/q)² − 1 = E_p p/q − 1 (Pearson 1900); W_2² = min E|x − y|² over couplings. The first
three are means over draws: KL over those of p, JS over both, χ² over those of q, where the squared weights of a q with thin
tails have no variance and no interval would be honest: the effective number of draws says so. Between normal laws KL, χ² and
W_2 are closed forms. The integral of p is a mean of importance weights under a proposal with a wide part (defensive:
Hesterberg 1995), whose weights are bounded where p has no heavier tails.
Identity: ``kl.sample``.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from mulligan.quantity import Quantity, mean_of_rows, none

LEAST_EFFECTIVE = 30  # draws: below it a few weights decide
MOST_MATCHED = 1000  # points a side of an exact matching: its time grows with the cube


class Normal(NamedTuple):
    """A normal law: ``mean`` (d,) and ``covariance`` (d, d), float64."""

    mean: np.ndarray
    covariance: np.ndarray


def kl(log_p: np.ndarray, log_q: np.ndarray) -> Quantity:
    """KL(p‖q) from log p and log q (n,) at n independent draws of p; infinite where q is 0 at one of them.

    >>> x = np.random.default_rng(0).normal(size=4000)
    >>> found = kl(-0.5 * x**2, -0.5 * (x - 1) ** 2)
    >>> abs(found.value - 0.5) < 4 * found.stderr
    True
    """
    ratio = np.asarray(log_p, np.float64) - np.asarray(log_q, np.float64)
    if not np.isfinite(ratio).all():
        return none("a draw of p has no finite log p − log q")
    return mean_of_rows(ratio, "estimate", unit="nats", note="mean of log p − log q over draws of p")


def js(log_p_at_p: np.ndarray, log_q_at_p: np.ndarray, log_p_at_q: np.ndarray, log_q_at_q: np.ndarray) -> Quantity:
    """Jensen and Shannon's divergence in nats, from both log densities at as many draws of either law.

    >>> x, y = np.random.default_rng(0).normal(size=(2, 100))
    >>> abs(js(-0.5 * x**2, -0.5 * x**2, -0.5 * y**2, -0.5 * y**2).value) < 1e-12
    True
    """
    left = np.asarray(log_p_at_p) - np.logaddexp(log_p_at_p, log_q_at_p) + math.log(2)
    right = np.asarray(log_q_at_q) - np.logaddexp(log_p_at_q, log_q_at_q) + math.log(2)
    if len(left) != len(right):
        raise ValueError(f"{len(left)} draws of p and {len(right)} of q; expected as many of either")
    return mean_of_rows((left + right) / 2, "estimate", unit="nats", note="mean over draws of both laws")


def chi_square(log_p: np.ndarray, log_q: np.ndarray) -> Quantity:
    """χ²(p‖q) from both log densities at draws of q; ``none`` where the weights' effective number is too small.

    >>> x = np.random.default_rng(0).normal(size=(20_000,))
    >>> found = chi_square(-0.5 * (x - 0.3) ** 2, -0.5 * x**2)
    >>> abs(found.value - math.expm1(0.09)) < 4 * found.stderr
    True
    """
    squares = np.exp(2 * (np.asarray(log_p, np.float64) - np.asarray(log_q, np.float64)))
    effective = _effective(squares)
    if effective < LEAST_EFFECTIVE:
        return none(f"{effective:.0f} effective draws of q: its tails are too thin for p")
    note = f"mean of (p/q)² − 1 over draws of q, {effective:.0f} effective"
    return mean_of_rows(squares - 1, "estimate", unit="", note=note)


def integral(log_p: np.ndarray, log_proposal: np.ndarray) -> Quantity:
    """∫p from log p and the proposal's log density at the proposal's draws: 1 for a density that is normalised.

    >>> x = 2 * np.random.default_rng(0).normal(size=5000)
    >>> found = integral(-0.5 * x**2 - 0.9189385, -x**2 / 8 - 0.9189385 - math.log(2))
    >>> found.low < 1 < found.high
    True
    """
    weights = np.exp(np.asarray(log_p, np.float64) - np.asarray(log_proposal, np.float64))
    effective = _effective(weights)
    if effective < LEAST_EFFECTIVE:
        return none(f"{effective:.0f} effective draws: the proposal misses the law")
    return mean_of_rows(weights, "estimate", unit="", note=f"importance sampling, {effective:.0f} effective draws")


def wasserstein(x: np.ndarray, y: np.ndarray) -> Quantity:
    """W_2 between the empirical laws of as many points (n, d) on either side, by an exact matching.

    Sorted in one dimension, else by the Hungarian method (at most 1 000 points). Its expectation lies above the distance of
    the laws, by an amount that falls slowly with n in high dimension, so it is a number without interval.

    >>> wasserstein(np.zeros((4, 1)), np.full((4, 1), 3.0)).value
    3.0
    """
    from scipy.optimize import linear_sum_assignment
    from scipy.spatial.distance import cdist

    if x.shape != y.shape or x.ndim != 2 or not len(x):
        raise ValueError(f"points of shapes {x.shape} and {y.shape}; expected the same (n, d)")
    if x.shape[1] == 1:
        square = np.mean((np.sort(x[:, 0]) - np.sort(y[:, 0])) ** 2)
    else:
        x, y = x[:MOST_MATCHED], y[:MOST_MATCHED]
        cost = cdist(x, y, "sqeuclidean")
        square = cost[linear_sum_assignment(cost)].mean()
    note = f"exact matching of {len(x):,} points a side; above the laws' distance on average"
    return Quantity(math.sqrt(square), "estimate", n=len(x), unit="", note=note)


def normal_kl(p: Normal, q: Normal) -> Quantity:
    """KL(p‖q) = ½(tr Σ_q⁻¹Σ_p + |μ_q − μ_p|²_{Σ_q⁻¹} − d + log det Σ_q/det Σ_p), exact.

    >>> normal_kl(Normal(np.zeros(1), np.eye(1)), Normal(np.ones(1), np.eye(1))).value
    0.5
    """
    shift, d = q.mean - p.mean, len(p.mean)
    trace = np.trace(np.linalg.solve(q.covariance, p.covariance))
    dets = np.linalg.slogdet(q.covariance)[1] - np.linalg.slogdet(p.covariance)[1]
    value = 0.5 * (trace + shift @ np.linalg.solve(q.covariance, shift) - d + dets)
    return Quantity(float(value), "exact", unit="nats", note="closed form")


def normal_wasserstein(p: Normal, q: Normal) -> Quantity:
    """W_2² = |μ_p − μ_q|² + tr(Σ_p + Σ_q − 2(Σ_p^½ Σ_q Σ_p^½)^½), exact (Givens and Shortt 1984).

    >>> normal_wasserstein(Normal(np.zeros(1), np.eye(1)), Normal(np.zeros(1), 4 * np.eye(1))).value
    1.0
    """
    values, vectors = np.linalg.eigh(p.covariance)
    root = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
    cross = np.sqrt(np.maximum(np.linalg.eigvalsh(root @ q.covariance @ root), 0)).sum()
    square = ((p.mean - q.mean) ** 2).sum() + np.trace(p.covariance) + np.trace(q.covariance) - 2 * cross
    return Quantity(math.sqrt(max(0.0, float(square))), "exact", unit="", note="closed form")


def _effective(weights: np.ndarray) -> float:
    """(Σw)²/Σw²; 0 where a weight is not finite."""
    if not np.isfinite(weights).all() or not weights.any():
        return 0.0
    scaled = weights / weights.max()
    return float(scaled.sum() ** 2 / (scaled**2).sum())
