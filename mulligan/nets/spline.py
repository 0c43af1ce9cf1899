"""Rational-quadratic splines with linear tails: monotone, once smooth, inverted in closed form.

Definition (Durkan, Bekasov, Murray and Papamakarios 2019; Gregory and Delbourgo 1982). On [−B, B] the map goes through
K + 1 knots (x_k, y_k) with slopes δ_k; inside bin k, with ξ = (x − x_k)/(x_{k+1} − x_k) and s = Δy/Δx,

    y = y_k + Δy (s ξ² + δ_k ξ(1−ξ)) / (s + (δ_{k+1} + δ_k − 2s) ξ(1−ξ)).

Outside it is the identity, and the outermost slopes are 1, so the map and its slope are continuous everywhere. The
inverse solves a quadratic. Identity ``relation.flow`` rests on it.

Every function takes many splines at once, one a column: knots are (K + 1, m) and values (m,). A batch under ``vmap`` then
runs over contiguous memory, and a bin is picked by a product with 0 and 1 where a gather would not vectorise.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

LEAST_BIN = 1e-3  # share of [−B, B] that every bin keeps, and the least slope: bounds the log-determinant
LEAST_SLOPE = 1e-3
UNIT_SLOPE = 0.5403  # softplus(0.5403) + LEAST_SLOPE = 1: parameters of 0 are the identity


class Knots(NamedTuple):
    """Knots of m splines: positions ``x`` and ``y``, and ``slopes``, each (K + 1, m)."""

    x: Float[Array, "k m"]
    y: Float[Array, "k m"]
    slopes: Float[Array, "k m"]


def parameter_count(bins: int) -> int:
    """Free numbers of one spline: K widths, K heights, K − 1 inner slopes."""
    return 3 * bins - 1


def make_knots(parameters: Float[Array, "p m"], bound: float) -> Knots:
    """Knots from 3K − 1 free numbers for each of m splines; zeros give the identity."""
    bins = (parameters.shape[0] + 1) // 3
    one = jnp.ones((1, parameters.shape[1]), parameters.dtype)
    inner = LEAST_SLOPE + jax.nn.softplus(parameters[2 * bins :] + UNIT_SLOPE)
    slopes = jnp.concatenate([one, inner, one])
    return Knots(_positions(parameters[:bins], bound), _positions(parameters[bins : 2 * bins], bound), slopes)


def spline(knots: Knots, x: Float[Array, " m"], bound: float) -> tuple[Float[Array, " m"], Float[Array, " m"]]:
    """y(x) and log dy/dx.

    >>> y, log_slope = spline(make_knots(jnp.zeros((8, 1)), 5.0), jnp.asarray([0.3]), 5.0)
    >>> bool(jnp.allclose(y, 0.3, atol=1e-4)), bool(jnp.allclose(log_slope, 0.0, atol=1e-4))
    (True, True)
    """
    inside = jnp.abs(x) < bound
    safe = jnp.where(inside, x, 0.0)  # both branches are computed: keep the unused one finite for its gradient
    x0, width, y0, height, d0, d1 = _bin(knots, knots.x, safe)
    xi = (safe - x0) / width
    s = height / width
    mixed = xi * (1 - xi)
    below = s + (d1 + d0 - 2 * s) * mixed
    y = y0 + height * (s * xi**2 + d0 * mixed) / below
    return jnp.where(inside, y, x), jnp.where(inside, _log_slope(s, d0, d1, xi, below), x - x)


def inverse_spline(knots: Knots, y: Float[Array, " m"], bound: float) -> tuple[Float[Array, " m"], Float[Array, " m"]]:
    """x(y) and log dx/dy."""
    inside = jnp.abs(y) < bound
    safe = jnp.where(inside, y, 0.0)
    x0, width, y0, height, d0, d1 = _bin(knots, knots.y, safe)
    s = height / width
    rise, bend = safe - y0, d1 + d0 - 2 * s
    a = height * (s - d0) + rise * bend
    b = height * d0 - rise * bend
    c = -s * rise
    xi = 2 * c / (-b - jnp.sqrt(jnp.maximum(b * b - 4 * a * c, 0.0)))  # the form without cancellation
    below = s + bend * xi * (1 - xi)
    return jnp.where(inside, x0 + xi * width, y), jnp.where(inside, -_log_slope(s, d0, d1, xi, below), y - y)


def _log_slope(s: Array, d0: Array, d1: Array, xi: Array, below: Array) -> Array:
    top = d1 * xi**2 + 2 * s * xi * (1 - xi) + d0 * (1 - xi) ** 2
    return jnp.log(s * s * top / (below * below))


def _positions(free: Array, bound: float) -> Array:
    bins = free.shape[0]
    shares = LEAST_BIN + (1 - LEAST_BIN * bins) * jax.nn.softmax(free, axis=0)
    inner = -bound + 2 * bound * jnp.cumsum(shares, axis=0)[:-1]
    edge = jnp.full_like(free[:1], bound)
    return jnp.concatenate([-edge, inner, edge])  # the last knot is the bound itself, not a rounded sum


def _bin(knots: Knots, edges: Array, v: Array) -> tuple[Array, ...]:
    """Start and size of the bin that holds v in x and y, and the slopes at its ends."""
    reached = (v >= edges[1:-1]).astype(v.dtype)  # 1 for every inner knot at or below v: a staircase
    one = jnp.ones_like(v)[None]
    chosen = jnp.concatenate([one, reached]) - jnp.concatenate([reached, 0 * one])

    def pick(values: Array) -> Array:
        return jnp.sum(chosen * values, axis=0)

    x0, y0 = pick(knots.x[:-1]), pick(knots.y[:-1])
    width, height = pick(knots.x[1:] - knots.x[:-1]), pick(knots.y[1:] - knots.y[:-1])
    return x0, width, y0, height, pick(knots.slopes[:-1]), pick(knots.slopes[1:])
