"""Gaussian mixtures of which some coordinates are unknown: one closed form for each pattern of unknown cells.

Definition. x ~ Σ_k w_k N(μ_k, L_k L_kᵀ), of which a row shows the coordinates o and hides u. With the rows of L_k in the
order (o, u), a QR factorisation gives [[L_oo, 0], [L_uo, L_uu]]; then z = L_oo⁻¹(x_o − μ_o) has log N(x_o; k) = −½|z|² −
Σ log diag L_oo − (|o|/2) log 2π, and x_u | x_o, k ~ N(μ_u + L_uo z, L_uu L_uuᵀ). Rows with one pattern share all matrices
(Little and Rubin 2019, chapter 8). NumPy, float64: patterns are many and small, and nothing is compiled for them.
Identities: ``density.marginal``, ``density.conditional``.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from mulligan.models.factor import FactorModel
from mulligan.models.kernel_density import KernelDensity
from mulligan.targets.gaussian import Gaussian
from mulligan.targets.mixture import GaussianMixture

_COMPONENTS = 20_000  # of a row: with more parts fewer candidates of what is known are kept
_CELLS = 4_000_000  # numbers held at once while rows meet parts


class MixtureForm(NamedTuple):
    """A model as a Gaussian mixture: ``log_weights`` (k,), ``means`` (k, d), ``choleskys`` (k, d, d), or (1, d, d) where all
    parts share one."""

    log_weights: np.ndarray
    means: np.ndarray
    choleskys: np.ndarray


class Pattern(NamedTuple):
    """Rows with the same unknown coordinates: positions of the ``rows``, of the ``observed`` and of the ``unknown``."""

    rows: np.ndarray
    observed: np.ndarray
    unknown: np.ndarray


class PatternLaw(NamedTuple):
    """What a mixture says under one pattern; every leading axis is k, or 1 where all parts share the matrix.

    ``whiten`` L_oo⁻¹ (k, |o|, |o|), ``centres`` L_oo⁻¹μ_o (k, |o|), ``constant`` (k,) of log w_k N(x_o; k),
    ``unknown_means`` μ_u (k, |u|), ``gain`` L_uo (k, |u|, |o|), ``factor`` L_uu (k, |u|, |u|).
    """

    whiten: np.ndarray
    centres: np.ndarray
    constant: np.ndarray
    unknown_means: np.ndarray
    gain: np.ndarray
    factor: np.ndarray


def mixture_form(model: Any) -> MixtureForm | None:
    """The model as a Gaussian mixture in float64; None where it is none.

    >>> import jax.numpy as jnp
    >>> mixture_form(FactorModel(jnp.zeros(2), jnp.ones((2, 1)), jnp.ones(2))).choleskys.round(3).tolist()
    [[[1.414, 0.0], [0.707, 1.225]]]
    """

    def numbers(leaf: Any) -> np.ndarray:
        return np.asarray(leaf, np.float64)

    if isinstance(model, Gaussian):
        return MixtureForm(np.zeros(1), numbers(model.mean)[None], numbers(model.cholesky)[None])
    if isinstance(model, GaussianMixture):
        log_weights = numbers(model.log_weights)
        kept = log_weights > -np.inf
        log_weights = log_weights[kept] - np.logaddexp.reduce(log_weights[kept])
        return MixtureForm(log_weights, numbers(model.means)[kept], numbers(model.choleskys)[kept])
    if isinstance(model, FactorModel):
        w = numbers(model.loadings)
        factor = np.linalg.cholesky(w @ w.T + np.diag(numbers(model.noise)))
        return MixtureForm(np.zeros(1), numbers(model.mean)[None], factor[None])
    if isinstance(model, KernelDensity):
        factor, whitened = numbers(model.cholesky), numbers(model.whitened)
        even = np.full(len(whitened), -math.log(len(whitened)))
        share = even if model.log_shares is None else numbers(model.log_shares)
        return MixtureForm(share, whitened @ factor.T, float(model.bandwidth) * factor[None])
    return None


def patterns_of(unknown: np.ndarray) -> list[Pattern]:
    """The rows of ``unknown`` (n, d), bool, by pattern.

    >>> [pattern.rows.tolist() for pattern in patterns_of(np.array([[True, False], [False, False], [True, False]]))]
    [[1], [0, 2]]
    """
    distinct, which = np.unique(unknown, axis=0, return_inverse=True)
    order = np.argsort(which.reshape(-1), kind="stable")
    ends = np.cumsum(np.bincount(which.reshape(-1), minlength=len(distinct)))
    groups = np.split(order, ends[:-1])
    return [Pattern(rows, np.flatnonzero(~mask), np.flatnonzero(mask)) for rows, mask in zip(groups, distinct)]


def pattern_law(form: MixtureForm, observed: np.ndarray, unknown: np.ndarray) -> PatternLaw:
    """The closed form for one pattern: positions of observed and unknown coordinates."""
    m = len(observed)
    triangle = np.swapaxes(np.linalg.qr(np.swapaxes(form.choleskys[:, np.r_[observed, unknown]], 1, 2), mode="r"), 1, 2)
    triangle = triangle * np.sign(np.diagonal(triangle, axis1=1, axis2=2))[:, None, :]
    front = triangle[:, :m, :m]
    whiten = np.linalg.inv(front) if m else front
    centres = np.einsum("kij,kj->ki", np.broadcast_to(whiten, (len(form.means), m, m)), form.means[:, observed])
    log_diagonal = np.log(np.diagonal(front, axis1=1, axis2=2)).sum(1)
    constant = form.log_weights - log_diagonal - 0.5 * m * math.log(2 * math.pi)
    return PatternLaw(whiten, centres, constant, form.means[:, unknown], triangle[:, m:, :m], triangle[:, m:, m:])


def log_joint(law: PatternLaw, known: np.ndarray) -> np.ndarray:
    """log w_k + log N(x_o; k) for every row of ``known`` (n, |o|) and every part, (n, k)."""
    if len(law.whiten) == 1:  # all parts share their covariance: rows and centres meet in whitened coordinates
        z = known @ law.whiten[0].T
        square = np.zeros((len(known), len(law.centres)))
        for mine, theirs in zip(z.T, law.centres.T):
            square += (mine[:, None] - theirs) ** 2
        return law.constant - 0.5 * square
    z = np.einsum("kij,nj->kni", law.whiten, known) - law.centres[:, None, :]
    return law.constant - 0.5 * (z**2).sum(2).T


def marginal_log_prob(form: MixtureForm, points: np.ndarray, unknown: np.ndarray) -> np.ndarray:
    """log p(x_o) of points (n, d) whose ``unknown`` coordinates (n, d) are not known, float64 (n,).

    >>> form = MixtureForm(np.zeros(1), np.zeros((1, 2)), np.eye(2)[None])
    >>> hidden = np.array([[False, True]])
    >>> round(float(marginal_log_prob(form, np.array([[1.0, np.nan]]), hidden)[0]), 4)
    -1.4189
    """
    log_p = np.empty(len(points))
    for pattern in patterns_of(unknown):
        law = pattern_law(form, pattern.observed, pattern.unknown)
        for rows in chunks(pattern.rows, form):
            log_p[rows] = np.logaddexp.reduce(log_joint(law, points[np.ix_(rows, pattern.observed)]), axis=1)
    return log_p


def draw_unknown(
    form: MixtureForm,
    points: np.ndarray,
    unknown: np.ndarray,
    draws: int,
    generator: np.random.Generator,
    log_weights: np.ndarray | None = None,
) -> np.ndarray:
    """Draws (draws, n, d) of rows whose ``unknown`` coordinates (n, d) follow p(x_u | x_o); the others stay.

    ``points`` (n, m, d) are m candidates for what each row shows (dequantised values, say) with ``log_weights`` (n, m)
    beside their density: a candidate is drawn with probability proportional to exp(log_weight) p(x_o), then the part, then
    x_u.

    >>> form = MixtureForm(np.zeros(1), np.zeros((1, 2)), np.array([[[1.0, 0.0], [1.0, 1e-9]]]))
    >>> hidden = np.array([[False, True]])
    >>> draw_unknown(form, np.array([[[2.0, np.nan]]]), hidden, 1, np.random.default_rng(0)).round(6).tolist()
    [[[2.0, 2.0]]]
    """
    n, m, d = points.shape
    log_weights = np.zeros((n, m)) if log_weights is None else log_weights
    drawn = np.empty((draws, n, d))
    for pattern in patterns_of(unknown):
        law = pattern_law(form, pattern.observed, pattern.unknown)
        for rows in chunks(pattern.rows, form, m):
            known = points[np.ix_(rows, np.arange(m), pattern.observed)]
            joint = log_joint(law, known.reshape(len(rows) * m, -1)).reshape(len(rows), m, -1)
            candidate, part = _draw_parts(joint + log_weights[rows, :, None], draws, generator)
            at = np.arange(len(rows))
            drawn[:, rows[:, None], pattern.observed] = known[at, candidate]
            noise = generator.standard_normal((draws, len(rows), len(pattern.unknown)))
            drawn[:, rows[:, None], pattern.unknown] = _unknown_given(law, known[at, candidate], part, noise)
    return drawn


def _draw_parts(joint: np.ndarray, draws: int, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Positions (draws, n) drawn from exp of ``joint`` (n, m, k), normalised over both last axes."""
    n, _, k = joint.shape
    flat = joint.reshape(n, -1)
    cumulated = np.cumsum(np.exp(flat - flat.max(axis=1, keepdims=True)), axis=1)
    uniforms = generator.random((n, draws)) * cumulated[:, -1:]
    chosen = np.stack([np.searchsorted(sums, u, side="right") for sums, u in zip(cumulated, uniforms)], axis=1)
    return np.divmod(np.minimum(chosen, flat.shape[1] - 1), k)


def _unknown_given(law: PatternLaw, known: np.ndarray, part: np.ndarray, noise: np.ndarray) -> np.ndarray:
    """x_u = μ_u + L_uo L_oo⁻¹(x_o − μ_o) + L_uu e for the drawn parts; ``known`` (draws, n, |o|), ``noise`` e."""
    drawn = law.unknown_means[part]
    if len(law.whiten) == 1:
        z = known @ law.whiten[0].T - law.centres[part]
        return drawn + z @ law.gain[0].T + noise @ law.factor[0].T
    for k in np.unique(part):
        here = part == k
        z = known[here] @ law.whiten[k].T - law.centres[k]
        drawn[here] += z @ law.gain[k].T + noise[here] @ law.factor[k].T
    return drawn


def candidates_for(parts: int) -> int:
    """How many points a row with discrete cells stands for: 16, fewer where each meets thousands of parts."""
    return max(1, min(16, _COMPONENTS // parts))


def chunks(rows: np.ndarray, form: MixtureForm, candidates: int = 1) -> list[np.ndarray]:
    """Rows cut so that what they have with every part fits into memory."""
    return np.array_split(rows, max(1, min(len(rows), -(-len(rows) * candidates * form.means.size // _CELLS))))
