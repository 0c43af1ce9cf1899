"""EM for Gaussian mixtures and factor models of which some cells are empty: exact E steps, one pattern at a time.

Definition (Dempster, Laird and Rubin 1977; Ghahramani and Jordan 1994; Little and Rubin 2019, chapter 8). The empty cells
are hidden beside the part k, or the factors z: θ' = argmax_θ Σ_i w_i E_{p_θ_t(x_u, k | x_o)} log p_θ(x, k). No cell is
filled in: what is unknown enters with its conditional mean *and* covariance. The log-likelihood is that of the cells that
are there, Σ_i w_i log p(x_o), and it never falls (``em.monotone``). That is maximum likelihood where cells are missing at
random (Rubin 1976): whether a cell is empty may depend on what the row shows, not on what it hides.

As in ``expectation_maximisation`` a part works in its own coordinates y = L_k⁻¹(x − μ_k): the rows o of L_k are A, Aᵀ = QR,
and y | x_o ~ N(Q R⁻ᵀ(x_o − μ_o), I − QQᵀ). Only L_k is ever factorised, never its square. NumPy, float64: patterns are many
and small, and a step of a program compiled for one set of them would be of no use to the next.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from mulligan.learners.expectation_maximisation import COVARIANCES, MixtureState
from mulligan.loop import Run
from mulligan.models.incomplete import Pattern, patterns_of

_GONE = 1e-9  # of all weight: a part below keeps its place and its covariance
_NEGLIGIBLE = 1e-300


class IncompleteRows(NamedTuple):
    """Points (n, d), NaN where unknown; their weights (n,), which add up to 1; and their patterns."""

    points: np.ndarray
    weights: np.ndarray
    patterns: list[Pattern]


def incomplete_rows(points: np.ndarray, weights: np.ndarray | None = None) -> IncompleteRows:
    """Rows (n, d) with NaN in unknown coordinates, sorted by pattern; rows that show nothing are left out.

    They say nothing of any parameter: their log-likelihood is 0 whatever the parameters are.

    >>> rows = incomplete_rows(np.array([[0.0, np.nan], [np.nan, np.nan], [1.0, 2.0]]))
    >>> len(rows.points), len(rows.patterns)
    (2, 2)
    """
    points = np.asarray(points, np.float64)
    shown = ~np.isnan(points).all(1)
    weights = np.ones(len(points)) if weights is None else np.asarray(weights, np.float64)
    points, weights = points[shown], weights[shown]
    return IncompleteRows(points, weights / weights.sum(), patterns_of(np.isnan(points)))


def mixture_step(
    state: MixtureState, rows: IncompleteRows, covariance: str, regularisation: float
) -> tuple[MixtureState, float]:
    """One step of EM for a mixture (float64), and the log-likelihood of the state before it.

    ``covariance`` is one of ``COVARIANCES``, to which the state must belong; Σ + ``regularisation``·I as with complete rows
    (0 keeps the likelihood from ever falling, a ridge almost). Raises ValueError for an unknown covariance.
    """
    if covariance not in COVARIANCES:
        raise ValueError(f"covariance is {covariance!r}; expected one of {', '.join(COVARIANCES)}")
    log_likelihood, counts, first, second = _expected(state, rows)
    _, means, factors = state
    safe = np.maximum(counts, _NEGLIGIBLE)
    shift = first / safe[:, None]
    spread = second / safe[:, None, None] - shift[:, :, None] * shift[:, None, :]
    alive = counts > _GONE
    new_means, new_factors = np.array(means), np.array(factors)
    constrained = _constrained(spread, counts, covariance)
    for k in np.flatnonzero(alive):
        inverse = np.linalg.inv(factors[k])
        inner = np.linalg.cholesky(constrained[k] + regularisation * inverse @ inverse.T)
        new_means[k] = means[k] + factors[k] @ shift[k]
        new_factors[k] = factors[k] @ inner
    return MixtureState(counts / counts.sum(), new_means, new_factors), log_likelihood  # type: ignore[arg-type]


def _expected(state: MixtureState, rows: IncompleteRows) -> tuple[float, np.ndarray, np.ndarray, np.ndarray]:
    """Σ w log p(x_o), and Σ w r, Σ w r E[y], Σ w r E[y yᵀ] for every part."""
    weights, means, factors = state
    k, d = means.shape
    log_likelihood, counts, first, second = 0.0, np.zeros(k), np.zeros((k, d)), np.zeros((k, d, d))
    with np.errstate(divide="ignore"):
        log_weights = np.log(weights)
    for pattern in rows.patterns:
        x, w = rows.points[np.ix_(pattern.rows, pattern.observed)], rows.weights[pattern.rows]
        q, r = np.linalg.qr(np.swapaxes(factors[:, pattern.observed], 1, 2))
        centred = np.swapaxes(x - means[:, None, pattern.observed], 1, 2)
        z = np.linalg.solve(np.swapaxes(r, 1, 2), centred)
        log_det = np.log(np.abs(np.diagonal(r, axis1=1, axis2=2))).sum(1)
        half = 0.5 * len(pattern.observed) * math.log(2 * math.pi)
        joint = (log_weights - log_det - half)[:, None] - 0.5 * (z**2).sum(1)
        log_p = np.logaddexp.reduce(joint, axis=0)
        share = np.exp(joint - log_p) * w
        y = q @ z
        shared = share.sum(1)
        log_likelihood += float(w @ log_p)
        counts += shared
        first += np.einsum("kn,kdn->kd", share, y)
        left_open = np.eye(d) - q @ np.swapaxes(q, 1, 2)  # Cov(y | x_o): what filling in means would forget
        second += (y * share[:, None, :]) @ np.swapaxes(y, 1, 2) + shared[:, None, None] * left_open
    return log_likelihood, counts, first, second


def _constrained(spread: np.ndarray, counts: np.ndarray, covariance: str) -> np.ndarray:
    """The M step of each shape, in the parts' own coordinates; see ``expectation_maximisation``."""
    d = spread.shape[1]
    if covariance == "tied":
        return np.broadcast_to(np.einsum("k,kij->ij", counts / counts.sum(), spread), spread.shape)
    if covariance == "diagonal":
        return spread * np.eye(d)
    if covariance == "spherical":
        return (np.trace(spread, axis1=1, axis2=2) / d)[:, None, None] * np.eye(d)
    return spread


class FactorRows(NamedTuple):
    """Mean μ (d,), loadings W (d, q) and noise variances ψ (d,)."""

    mean: np.ndarray
    loadings: np.ndarray
    noise: np.ndarray


def factor_step(state: FactorRows, rows: IncompleteRows, isotropic: bool, floor: float) -> tuple[FactorRows, float]:
    """One step of EM for x = μ + W z + e with empty cells, and the log-likelihood of the state before it.

    Given z the columns are independent, so a column's new (W_j, μ_j) is its regression on E[(z, 1)] over the rows that show
    it, and ψ_j what that leaves, not less than ``floor``; one ψ for all columns where ``isotropic`` (Rubin and Thayer 1982).
    """
    mean, w, psi = state
    d, q = w.shape
    log_likelihood = 0.0
    gram, cross, square, count = np.zeros((d, q + 1, q + 1)), np.zeros((d, q + 1)), np.zeros(d), np.zeros(d)
    for pattern in rows.patterns:
        o = pattern.observed
        x, weight = rows.points[np.ix_(pattern.rows, o)], rows.weights[pattern.rows]
        scaled = w[o] / psi[o, None]
        covariance = np.linalg.inv(np.eye(q) + w[o].T @ scaled)
        centred = x - mean[o]
        z = centred @ scaled @ covariance
        log_det = np.log(psi[o]).sum() - np.linalg.slogdet(covariance)[1]
        # Woodbury's identity without its cancellation: the residual and the size of z are both sums of squares
        residual = (((centred - z @ w[o].T) ** 2) / psi[o]).sum(1) + (z**2).sum(1)
        log_likelihood += float(weight @ (-0.5 * (len(o) * math.log(2 * math.pi) + log_det + residual)))
        longer = np.concatenate([z, np.ones((len(z), 1))], axis=1)
        moment = (longer * weight[:, None]).T @ longer
        moment[:q, :q] += weight.sum() * covariance
        gram[o] += moment
        cross[o] += (x * weight[:, None]).T @ longer
        square[o] += weight @ x**2
        count[o] += weight.sum()
    seen = count > 0
    solved = np.zeros((d, q + 1))
    solved[seen] = np.linalg.solve(gram[seen], cross[seen][:, :, None])[:, :, 0]
    left = square - (solved * cross).sum(1)
    noise = np.full(d, left.sum() / count.sum()) if isotropic else left / np.maximum(count, _NEGLIGIBLE)
    return FactorRows(solved[:, q], solved[:, :q], np.maximum(noise, floor)), log_likelihood


def climb(
    step: Callable[[Any], tuple[Any, float]],
    state: Any,
    most: int,
    tolerance: float,
    budget: float | None = None,
    listener: Callable[[int, int, dict[str, float]], None] = lambda step, total, latest: None,
    interrupted: Callable[[], bool] = lambda: False,
) -> Run:
    """At most so many steps of EM, fewer once a step gains less than ``tolerance`` nats a row.

    ``step`` maps a state to the next one and the log-likelihood before it. The other arguments and what comes back are those
    of ``loop.run``, of which this is the twin for steps that are not compiled.

    >>> finished = climb(lambda x: (x / 2, -abs(x)), 1.0, 50, 1e-3)
    >>> finished.step, finished.stopped
    (11, 'log_likelihood settled: the last step gained less than 0.001')
    """
    began, stopped = time.perf_counter(), None
    curve: list[float] = []
    while stopped is None and len(curve) < most:
        following, log_likelihood = step(state)
        if not all(np.isfinite(leaf).all() for leaf in (log_likelihood, *_leaves(following))):
            stopped = f"non-finite values in step {len(curve) + 1}"
            return _finished(state, curve, stopped, began, healthy=False)
        state = following
        curve.append(log_likelihood)
        listener(len(curve), most, {"log_likelihood": log_likelihood})
        if interrupted():
            return _finished(state, curve, "interrupted", began, interrupted=True)
        if len(curve) > 1 and curve[-1] - curve[-2] < tolerance:
            stopped = f"log_likelihood settled: the last step gained less than {tolerance:g}"
        elif budget is not None and time.perf_counter() - began > budget:
            stopped = f"budget of {budget:g} s is spent"
    return _finished(state, curve, stopped, began)


def _leaves(state: Any) -> tuple[Any, ...]:
    return tuple(state) if isinstance(state, tuple) else (state,)


def _finished(
    state: Any, curve: list[float], stopped: str | None, began: float, healthy: bool = True, interrupted: bool = False
) -> Run:
    history = {"log_likelihood": np.array(curve)}
    return Run(state, len(curve), history, stopped, healthy, interrupted, time.perf_counter() - began, 0.0)


def first_moments(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and variance of each column over the cells that are there, (d,) both: where EM starts."""
    return np.nanmean(points, axis=0), np.nanvar(points, axis=0)
