"""Gaussian mixtures of which some coordinates are known, some lie in intervals, and the others are free.

Definition. With L_k L_kᵀ the covariance of part k given the known coordinates and L_k lower triangular in the order
(intervals, free), x_i = m_i + Σ_{j<i} L_ij e_j + L_ii e_i: each e_i of an interval is drawn from a normal law cut to where
x_i stays inside, and the product of the masses that were cut out weighs the draw (Geweke 1991; Keane 1994; Hajivassiliou
and McFadden 1998). The mean weight is without bias for w_k N(x_o; k) P(box | x_o, k), summed over parts. Parts are drawn by
their weight times the product of the masses one by one, so all weights are equal, and the draws exact, wherever one
coordinate is in an interval or those that are have no correlation within a part. Identity: ``density.conditional``.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.special import log_ndtr, ndtri_exp

from mulligan.models.incomplete import MixtureForm, PatternLaw, log_joint, pattern_law

_NUMBERS = 2_000_000  # held at once
_EVEN = 1e-9  # spread of log weights below which they are equal but for rounding


class Candidates(NamedTuple):
    """``points`` (n, S, d) with ``log_weights`` (n, S), whose mean of exp is the mixture's density of the known coordinates
    times the probability of the intervals."""

    points: np.ndarray
    log_weights: np.ndarray

    @property
    def even(self) -> np.ndarray:
        """Rows whose weights are all equal: the draws are exact, bool (n,)."""
        with np.errstate(invalid="ignore"):
            return np.ptp(self.log_weights, axis=1) < _EVEN


def box_candidates(
    form: MixtureForm, low: np.ndarray, high: np.ndarray, draws: int, generator: np.random.Generator
) -> Candidates:
    """``draws`` weighted points a row; a coordinate is known where low = high (n, d), free where both are infinite.

    >>> form = MixtureForm(np.zeros(1), np.zeros((1, 1)), np.ones((1, 1, 1)))
    >>> found = box_candidates(form, np.array([[0.0]]), np.array([[np.inf]]), 5, np.random.default_rng(0))
    >>> bool((found.points > 0).all()), np.exp(found.log_weights).round(6).tolist()
    (True, [[0.5, 0.5, 0.5, 0.5, 0.5]])
    """
    known = low == high
    boxed = ~known & (np.isfinite(low) | np.isfinite(high))
    n, d = low.shape
    points, log_weights = np.empty((n, draws, d)), np.empty((n, draws))
    distinct, which = np.unique(np.concatenate([known, boxed], axis=1), axis=0, return_inverse=True)
    for index, mask in enumerate(distinct):
        o, b = np.flatnonzero(mask[:d]), np.flatnonzero(mask[d:])
        u = np.concatenate([b, np.flatnonzero(~mask[:d] & ~mask[d:])])
        law = pattern_law(form, o, u)
        rows = np.flatnonzero(which.reshape(-1) == index)
        size = max(1, _NUMBERS // max(draws * len(u) ** 2, draws * len(form.means), form.means.size))
        for piece in np.array_split(rows, -(-len(rows) // size)):
            x, log_w = _candidates(
                law, low[np.ix_(piece, o)], low[np.ix_(piece, b)], high[np.ix_(piece, b)], draws, generator
            )
            points[piece[:, None, None], np.arange(draws)[:, None], u] = x
            points[piece[:, None, None], np.arange(draws)[:, None], o] = low[np.ix_(piece, o)][:, None, :]
            log_weights[piece] = log_w
    return Candidates(points, log_weights)


def _candidates(
    law: PatternLaw, known: np.ndarray, low: np.ndarray, high: np.ndarray, draws: int, generator: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    joint = log_joint(law, known)
    n, k = joint.shape
    whitened = np.einsum("kij,nj->nki", np.broadcast_to(law.whiten, (k, *law.whiten.shape[1:])), known) - law.centres
    means = law.unknown_means + np.einsum("kui,nki->nku", np.broadcast_to(law.gain, (k, *law.gain.shape[1:])), whitened)
    m = low.shape[1]
    spread = np.sqrt((law.factor[:, :m] ** 2).sum(2))
    alone = cut((low[:, None] - means[:, :, :m]) / spread, (high[:, None] - means[:, :, :m]) / spread)[2].sum(2)
    logits = joint + alone
    total = np.logaddexp.reduce(logits, axis=1)
    safe = np.where(np.isfinite(total)[:, None], logits - total[:, None], -np.log(k))
    cumulated = np.cumsum(np.exp(safe), axis=1)
    part = (generator.random((n, draws, 1)) * cumulated[:, None, -1:] > cumulated[:, None, :]).sum(2).clip(0, k - 1)
    row = np.arange(n)[:, None]
    centre = means[row, part]
    factor = (
        law.factor[part] if len(law.factor) > 1 else np.broadcast_to(law.factor[0], (n, draws, *law.factor.shape[1:]))
    )
    e = generator.standard_normal(centre.shape)
    log_mass = np.zeros((n, draws))
    for i in range(m):
        at = centre[..., i] + np.einsum("nsj,nsj->ns", factor[..., i, :i], e[..., :i])
        scale = factor[..., i, i]
        a, b, log_cut = cut((low[:, None, i] - at) / scale, (high[:, None, i] - at) / scale)
        e[..., i] = truncated(a, b, log_cut, generator.random((n, draws)))
        log_mass += log_cut
    x = centre + np.einsum("nsij,nsj->nsi", factor, e)
    x[..., :m] = np.clip(x[..., :m], low[:, None], high[:, None])
    # what is left of log w_k N(x_o; k) Π masses − log of the probability with which the part was drawn
    with np.errstate(invalid="ignore"):
        log_w = total[:, None] + np.where(log_mass == alone[row, part], 0.0, log_mass - alone[row, part])
    return x, np.where(np.isnan(log_w), -np.inf, log_w)


def cut(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The interval, and log P(a < e ≤ b) of a standard normal e, on the side of the mean where no digits are lost."""
    flip = a > 0
    left, right = np.where(flip, -b, a), np.where(flip, -a, b)
    with np.errstate(divide="ignore", invalid="ignore"):
        upper, lower = log_ndtr(right), log_ndtr(left)
        log_mass = upper + np.log1p(-np.exp(np.minimum(lower - upper, 0.0)))
    return a, b, np.where(np.isnan(log_mass), -np.inf, log_mass)


def truncated(a: np.ndarray, b: np.ndarray, log_mass: np.ndarray, uniform: np.ndarray) -> np.ndarray:
    """A standard normal number cut to (a, b), by inversion of log Φ."""
    flip = a > 0
    left, right = np.where(flip, -b, a), np.where(flip, -a, b)
    with np.errstate(divide="ignore", invalid="ignore"):
        e = ndtri_exp(np.minimum(np.logaddexp(log_ndtr(left), np.log(uniform) + log_mass), 0.0))
    e = np.clip(np.where(np.isfinite(e), e, right), left, right)
    return np.where(flip, -e, e)
