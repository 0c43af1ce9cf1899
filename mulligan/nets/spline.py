"""Rational-quadratic splines with linear tails: monotone, once smooth, inverted in closed form.

Definition (Durkan, Bekasov, Murray and Papamakarios 2019; Gregory and Delbourgo 1982). On [−B, B] the map goes through
K + 1 knots (x_k, y_k) with slopes δ_k; inside bin k, with ξ = (x − x_k)/(x_{k+1} − x_k) and s = Δy/Δx,

    y = y_k + Δy (s ξ² + δ_k ξ(1−ξ)) / (s + (δ_{k+1} + δ_k − 2s) ξ(1−ξ)).

Outside it is the identity, and the outermost slopes are 1, so the map and its slope are continuous everywhere. The
inverse solves a quadratic. Identity ``relation.flow`` rests on it.

Every function takes many splines at once, one a column: free parameters are (3K − 1, m), values (m,). Two things make it
fast on a CPU. A bin is picked by products with 0 and 1, where a gather would not vectorise, and slopes are computed at the
two knots that were picked. And the gradient of ``spline`` is written by hand (reverse mode only; a test holds it to that
of ``plain_spline``): the automatic one computes the whole of it anew for every bin, and takes four times as long.
"""

from __future__ import annotations

import math
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

LEAST_BIN = 1e-3  # share of [−B, B] that every bin keeps, and the least slope: bounds the log-determinant
LEAST_SLOPE = 1e-3
UNIT_SLOPE = math.log(
    math.expm1(1 - LEAST_SLOPE)
)  # softplus of it is 1 − LEAST_SLOPE: parameters of 0 are the identity


class Grid(NamedTuple):
    """Sizes of the bins on both axes, (K, m), and the free slopes at the inner knots, (K − 1, m)."""

    widths: Float[Array, "k m"]
    heights: Float[Array, "k m"]
    slopes: Float[Array, "i m"]


class Bin(NamedTuple):
    """The bin of each of m splines that holds a value: where it starts, its size, and the free slopes at its ends."""

    x: Float[Array, " m"]
    width: Float[Array, " m"]
    y: Float[Array, " m"]
    height: Float[Array, " m"]
    left: Float[Array, " m"]
    right: Float[Array, " m"]


def parameter_count(bins: int) -> int:
    """Free numbers of one spline: K widths, K heights, K − 1 inner slopes."""
    return 3 * bins - 1


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def spline(
    parameters: Float[Array, "p m"], x: Float[Array, " m"], bound: float
) -> tuple[Float[Array, " m"], Float[Array, " m"]]:
    """y(x) and log dy/dx.

    >>> y, log_slope = spline(jnp.zeros((8, 1)), jnp.asarray([0.3]), 5.0)
    >>> bool(jnp.allclose(y, 0.3, atol=1e-5)), bool(jnp.allclose(log_slope, 0.0, atol=1e-5))
    (True, True)
    """
    return plain_spline(parameters, x, bound)


def plain_spline(parameters: Array, x: Array, bound: float) -> tuple[Array, Array]:
    """``spline`` with the gradient left to JAX, in both modes."""
    inside = jnp.abs(x) < bound
    safe = jnp.where(inside, x, 0.0)  # both branches are computed: keep the unused one finite for its gradient
    y, log_slope = _rational_quadratic(safe, _pick(_grid(parameters, bound), safe, bound, along_y=False))
    return jnp.where(inside, y, x), jnp.where(inside, log_slope, x - x)


def _forward(parameters: Array, x: Array, bound: float) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
    return plain_spline(parameters, x, bound), (parameters, x)


def _backward(bound: float, kept: tuple[Array, Array], slopes: tuple[Array, Array]) -> tuple[Array, Array]:
    """From ∂/∂y and ∂/∂log-slope to ∂/∂parameters and ∂/∂x: through the six numbers of the bin, then to all bins."""
    parameters, x = kept
    inside = jnp.abs(x) < bound
    safe = jnp.where(inside, x, 0.0)
    grid = _grid(parameters, bound)
    reached, chosen = _stairs(grid.widths, safe, bound)
    _, back = jax.vjp(_rational_quadratic, safe, _pick(grid, safe, bound, along_y=False))
    to_x, to = back((jnp.where(inside, slopes[0], 0.0), jnp.where(inside, slopes[1], 0.0)))

    def through_softmax(sizes: Array, start: Array, size: Array) -> Array:
        """The bin's start and size back to free sizes: 2B(a + (1 − Ka) softmax) has the slope of its softmax part."""
        share = sizes - 2 * bound * LEAST_BIN
        raw = start * reached + size * chosen
        return share * (raw - jnp.sum(raw * share, axis=0) / jnp.sum(share, axis=0))

    free = [
        through_softmax(grid.widths, to.x, to.width),
        through_softmax(grid.heights, to.y, to.height),
        to.left * chosen[1:] + to.right * chosen[:-1],
    ]
    return jnp.concatenate(free), jnp.where(inside, to_x, slopes[0])


spline.defvjp(_forward, _backward)


def inverse_spline(
    parameters: Float[Array, "p m"], y: Float[Array, " m"], bound: float
) -> tuple[Float[Array, " m"], Float[Array, " m"]]:
    """x(y) and log dx/dy."""
    inside = jnp.abs(y) < bound
    safe = jnp.where(inside, y, 0.0)
    found = _pick(_grid(parameters, bound), safe, bound, along_y=True)
    left, right = _slope(found.left), _slope(found.right)
    s = found.height / found.width
    rise, bend = safe - found.y, right + left - 2 * s
    a = found.height * (s - left) + rise * bend
    b = found.height * left - rise * bend
    c = -s * rise
    xi = 2 * c / (-b - jnp.sqrt(jnp.maximum(b * b - 4 * a * c, 0.0)))  # the form without cancellation
    below = s + bend * xi * (1 - xi)
    log_slope = _log_slope(s, left, right, xi, below)
    return jnp.where(inside, found.x + xi * found.width, y), jnp.where(inside, -log_slope, y - y)


def _rational_quadratic(x: Array, found: Bin) -> tuple[Array, Array]:
    """y and log dy/dx of values inside their bins."""
    left, right = _slope(found.left), _slope(found.right)
    xi = (x - found.x) / found.width
    s = found.height / found.width
    mixed = xi * (1 - xi)
    below = s + (right + left - 2 * s) * mixed
    y = found.y + found.height * (s * xi**2 + left * mixed) / below
    return y, _log_slope(s, left, right, xi, below)


def _log_slope(s: Array, left: Array, right: Array, xi: Array, below: Array) -> Array:
    top = right * xi**2 + 2 * s * xi * (1 - xi) + left * (1 - xi) ** 2
    return jnp.log(s * s * top / (below * below))


def _grid(parameters: Array, bound: float) -> Grid:
    bins = (parameters.shape[0] + 1) // 3
    widths, heights = (
        2 * bound * (LEAST_BIN + (1 - LEAST_BIN * bins) * jax.nn.softmax(free, axis=0))
        for free in (parameters[:bins], parameters[bins : 2 * bins])
    )
    return Grid(widths, heights, parameters[2 * bins :])


def _pick(grid: Grid, v: Array, bound: float, along_y: bool) -> Bin:
    """The bin that holds v on the x or the y axis."""
    reached, chosen = _stairs(grid.heights if along_y else grid.widths, v, bound)
    # Inner knot k is the right end of bin k and the left end of bin k + 1; the outermost two have free slope 0.
    return Bin(
        x=jnp.sum(reached * grid.widths, axis=0) - bound,
        width=jnp.sum(chosen * grid.widths, axis=0),
        y=jnp.sum(reached * grid.heights, axis=0) - bound,
        height=jnp.sum(chosen * grid.heights, axis=0),
        left=jnp.sum(chosen[1:] * grid.slopes, axis=0),
        right=jnp.sum(chosen[:-1] * grid.slopes, axis=0),
    )


def _stairs(sizes: Array, v: Array, bound: float) -> tuple[Array, Array]:
    """1 for every bin that ends at or below v, and 1 for the bin that holds v; constant in v but for jumps."""
    ends = jnp.cumsum(jax.lax.stop_gradient(sizes), axis=0)[:-1] - bound
    passed = (v >= ends).astype(v.dtype)
    one = jnp.ones_like(v)[None]
    reached = jnp.concatenate([passed, 0 * one])
    return reached, jnp.concatenate([one, passed]) - reached


def _slope(free: Array) -> Array:
    return LEAST_SLOPE + jax.nn.softplus(free + UNIT_SLOPE)
