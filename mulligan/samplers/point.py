"""A position with what its kernel knows of it: log density and score, computed once."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mulligan.samplers.path import LogDensity


class Point(NamedTuple):
    """``position`` x (d,), ``log_density`` log π(x) up to a constant, ``score`` ∇ log π(x) (d,)."""

    position: Float[Array, " d"]
    log_density: Float[Array, ""]
    score: Float[Array, " d"]


def point_at(log_density: LogDensity, x: Array) -> Point:
    """The point at x.

    >>> point_at(lambda x: -0.5 * jnp.sum(x**2), jnp.ones(2)).score.tolist()
    [-1.0, -1.0]
    """
    value, score = jax.value_and_grad(log_density)(x)
    return Point(x, value, score)


def accept(log_ratio: Array) -> tuple[Array, Array]:
    """min(1, exp(log_ratio)) and whether the ratio is a number; what is not a number is not accepted and is a divergence.

    >>> probability, divergent = accept(jnp.asarray(jnp.nan))
    >>> float(probability), bool(divergent)
    (0.0, True)
    """
    divergent = jnp.isnan(log_ratio) | jnp.isposinf(log_ratio)
    return jnp.where(divergent, 0.0, jnp.exp(jnp.minimum(log_ratio, 0.0))), divergent
