"""Laws of one coordinate whose parameters a network gives: mixtures of Gaussians, mixtures of logistics, softmax.

Definitions. A density is Σ_k π_k N(x; μ_k, s_k²) (Bishop 1994). A value with a cell [x − below, x + above] has the
probability Σ_k π_k (S(b_k) − S(a_k)), S the logistic function, a_k = (x − below − μ_k)/s_k and b_k = (x + above − μ_k)/s_k
(Salimans et al. 2017), for which

    log(S(b) − S(a)) = log S(b) + log S(−a) + log(1 − exp(−(b − a))),

stable for any width, as b − a = (below + above)/s is computed from the widths. A category with K levels has K − 1 logits
beside a first one of 0, so a binary column has one.

Parameters of a number are ``raw`` (…, 3, parts): logits of π, means, and scales before s = softplus + least.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from mulligan.models.columns import Cells

_LEAST_WIDTH = 1e-30  # of a cell in scales; keeps the gradient of its log finite
_LEAST_SCALE = 1e-3  # of a density's parts, in standard deviations of the column


def gaussian_log_prob(raw: Float[Array, "c 3 parts"], x: Float[Array, " c"]) -> Float[Array, " c"]:
    """log Σ_k π_k N(x; μ_k, s_k²) of each coordinate.

    >>> raw = jnp.zeros((1, 3, 1)).at[0, 2, 0].set(jnp.log(jnp.expm1(0.999)))  # s = 1
    >>> round(float(gaussian_log_prob(raw, jnp.zeros(1))[0]), 4)
    -0.9189
    """
    log_weight, mean, scale = _mixture(raw, _LEAST_SCALE)
    y = (x[..., None] - mean) / scale
    return jax.nn.logsumexp(log_weight - 0.5 * y**2 - jnp.log(scale), axis=-1) - 0.5 * np.log(2 * np.pi)


def gaussian_log_mass(raw: Float[Array, "c 3 parts"], low: Float[Array, " c"], high: Float[Array, " c"]) -> Array:
    """log P(low ≤ x_j ≤ high) of each coordinate (c,) under its density; ends may be infinite.

    >>> raw = jnp.zeros((1, 3, 1)).at[0, 2, 0].set(jnp.log(jnp.expm1(0.999)))  # s = 1
    >>> round(float(jnp.exp(gaussian_log_mass(raw, jnp.array([0.0]), jnp.array([jnp.inf])))[0]), 4)
    0.5
    """
    log_weight, mean, scale = _mixture(raw, _LEAST_SCALE)
    a, b = (low[..., None] - mean) / scale, (high[..., None] - mean) / scale
    # on the side of the mean where no digits are lost
    left, right = jnp.where(a > 0, -b, a), jnp.where(a > 0, -a, b)
    upper, lower = jax.scipy.special.log_ndtr(right), jax.scipy.special.log_ndtr(left)
    gap = jnp.where(jnp.isneginf(lower), -jnp.inf, lower - upper)
    return jax.nn.logsumexp(log_weight + upper + jnp.log(-jnp.expm1(jnp.minimum(gap, -_LEAST_WIDTH))), axis=-1)


def gaussian_sample(raw: Float[Array, "c 3 parts"], uniform: Float[Array, "c 2"]) -> Float[Array, " c"]:
    """A draw for each coordinate from two uniform numbers in (0, 1): which part, and where in it."""
    mean, scale = _picked(raw, uniform[..., 0], _LEAST_SCALE)
    return mean + scale * np.sqrt(2) * jax.lax.erf_inv(2 * uniform[..., 1] - 1)


def logistic_log_prob(
    raw: Float[Array, "c 3 parts"], cells: Cells, least: Float[Array, " c"] | float = _LEAST_SCALE
) -> Float[Array, " c"]:
    """log P of each coordinate's cell, or the log density where the value has none.

    >>> everything = Cells(*(jnp.array([v]) for v in (0.0, 1e6, 1e6)), jnp.array([True]))
    >>> float(logistic_log_prob(jnp.zeros((1, 3, 2)), everything)[0])
    0.0
    """
    log_weight, mean, scale = _mixture(raw, least)
    y = (cells.value[..., None] - mean) / scale
    inside = cells.inside[..., None]
    width = jnp.where(inside, (cells.below + cells.above)[..., None] / scale, 1.0)
    log_width = jnp.log(-jnp.expm1(-jnp.maximum(width, _LEAST_WIDTH)))
    # Without a cell a = b = y, and log S(y) + log S(−y) − log s is the logistic density.
    ends = jnp.stack([y + cells.above[..., None] / scale, cells.below[..., None] / scale - y])
    part = jnp.sum(-_softplus(-ends), axis=0) + jnp.where(inside, log_width, -jnp.log(scale))
    return jax.nn.logsumexp(log_weight + part, axis=-1)


def logistic_sample(
    raw: Float[Array, "c 3 parts"], uniform: Float[Array, "c 2"], least: Float[Array, " c"] | float = _LEAST_SCALE
) -> Float[Array, " c"]:
    """A draw for each coordinate, not yet snapped to a value that has a cell."""
    mean, scale = _picked(raw, uniform[..., 0], least)
    u = uniform[..., 1]
    return mean + scale * (jnp.log(u) - jnp.log1p(-u))


def softmax_log_prob(logits: Float[Array, "c levels"], codes: Float[Array, " c"]) -> Float[Array, " c"]:
    """log P of the code of each coordinate; −inf for a code that is none. Levels that a column lacks have logit −inf."""
    log_p = jax.nn.log_softmax(logits, axis=-1)
    chosen = jnp.rint(codes)[..., None] == jnp.arange(logits.shape[-1])
    return jnp.max(jnp.where(chosen, log_p, -jnp.inf), axis=-1)


def softmax_sample(logits: Float[Array, "c levels"], uniform: Float[Array, "c 2"]) -> Float[Array, " c"]:
    """A code for each coordinate, as a float."""
    last = jnp.sum(jnp.isfinite(logits), axis=-1) - 1
    return jnp.minimum(_pick(jax.nn.softmax(logits, axis=-1), uniform[..., 0]), last).astype(uniform.dtype)


def category_log_prob(logits: Float[Array, "c levels"], codes: Float[Array, " c"]) -> Float[Array, " c"]:
    """``softmax_log_prob``, in fewer steps where all categories have two levels."""
    if logits.shape[-1] != 2:
        return softmax_log_prob(logits, codes)
    second, codes = logits[:, 1], jnp.rint(codes)
    log_p = jnp.where(codes == 1, second, 0.0) - jax.nn.softplus(second)
    return jnp.where((codes == 0) | (codes == 1), log_p, -jnp.inf)


def spread_logits(levels: Sequence[int], free: Float[Array, " free"]) -> Float[Array, "c levels"]:
    """Logits of every category with a first one of 0, from those that are free; −inf for levels that a column lacks.

    >>> spread_logits((2, 3), jnp.array([1.0, 2.0, 3.0])).tolist()
    [[0.0, 1.0, -inf], [0.0, 2.0, 3.0]]
    """
    if len(set(levels)) == 1:  # no gather, whose gradient is slow
        free = free.reshape(len(levels), -1)
        return jnp.concatenate([jnp.zeros_like(free[:, :1]), free], axis=1)
    return jnp.concatenate([jnp.array([0.0, -jnp.inf], free.dtype), free])[_logit_places(levels)]


def starting_raw(parts: int) -> np.ndarray:
    """Parameters (3, parts) of a sensible start: equal shares, means spread over [−2, 2], scales near a half."""
    means = np.linspace(-2, 2, parts) if parts > 1 else np.zeros(1)
    scales = np.full(parts, 0.5 if parts > 1 else 1.0)
    return np.stack([np.zeros(parts), means, np.log(np.expm1(scales))])


def number_laws(raw: Float[Array, "c 3 1"], least: Float[Array, " c"] | float = _LEAST_SCALE) -> tuple[Array, Array]:
    """Means and scales (c,) of laws with one part each."""
    _, mean, scale = _mixture(raw, least)
    return mean[..., 0], scale[..., 0]


def _softplus(x: Array) -> Array:
    """log(1 + exp(x)); jax.nn.softplus is the same with more cases, which take longer to compile."""
    return jnp.maximum(x, 0) + jnp.log1p(jnp.exp(-jnp.abs(x)))


def _mixture(raw: Array, least: Array | float) -> tuple[Array, Array, Array]:
    least = jnp.asarray(least, raw.dtype)[..., None]
    return jax.nn.log_softmax(raw[..., 0, :], axis=-1), raw[..., 1, :], _softplus(raw[..., 2, :]) + least


def _picked(raw: Array, uniform: Array, least: Array | float) -> tuple[Array, Array]:
    """Mean and scale of the part that a uniform number picks."""
    log_weight, mean, scale = _mixture(raw, least)
    chosen = _pick(jnp.exp(log_weight), uniform)[..., None] == jnp.arange(raw.shape[-1])
    return jnp.sum(jnp.where(chosen, mean, 0.0), axis=-1), jnp.sum(jnp.where(chosen, scale, 0.0), axis=-1)


def _pick(weights: Array, uniform: Array) -> Array:
    """How many cumulative sums a uniform number exceeds, among all but the last."""
    cumulative = jnp.cumsum(weights, axis=-1)
    return jnp.sum(uniform[..., None] * cumulative[..., -1:] >= cumulative[..., :-1], axis=-1)


def _logit_places(levels: Sequence[int]) -> np.ndarray:
    """Where each logit is found behind (0, −inf): a first level's is 0, a level that the column lacks has −inf."""
    places = np.ones((len(levels), max(levels, default=1)), np.int32)
    start = 2
    for i, k in enumerate(levels):
        places[i, 0] = 0
        places[i, 1:k] = np.arange(start, start + k - 1)
        start += k - 1
    return places
