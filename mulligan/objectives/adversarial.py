"""Adversarial losses: what the critic and the generator of a game descend.

Definition. With scores r_i = D(x_i) of rows and s_i = D(G(z_i)) of draws, in equal numbers:

- ``non_saturating`` (Goodfellow et al. 2014): the critic descends mean softplus(−r) + mean softplus(s), the generator mean
  softplus(−s). At the best critic, c* = log p/p_g, the first is 2 log 2 − 2 JS (identity ``game.jensen_shannon``).
- ``paired`` (relativistic: Jolicoeur-Martineau 2018; Huang et al. 2024): row against draw, mean softplus(s − r) and mean
  softplus(r − s). Its landscape has no basins in which clouds are left out (Sun, Fang and Schwing 2020).
- ``wasserstein`` (Arjovsky, Chintala and Bottou 2017): mean s − mean r and −mean s.

Penalties keep the critic's slope: ``zero_slope`` ½ E|∇D|² on rows (R1) and on draws (R2; Mescheder, Geiger and Nowozin
2018), without which the game circles around its solution; ``unit_slope`` E(|∇D| − 1)² at points between a row and a draw
(Gulrajani et al. 2017), a pressure towards slope 1 and no bound of it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

Scores = Float[Array, " n"]
Judge = Callable[[Array, Any], Array]


class Game(NamedTuple):
    """The critic's loss of (rows, draws), the generator's loss of the same, and the penalty of the critic.

    ``idle`` is the critic's loss where it knows nothing (D = 0): ``idle`` − loss is its estimate of the distance.
    """

    critic: Callable[[Scores, Scores], Array]
    generator: Callable[[Scores, Scores], Array]
    penalty: Callable[[Judge, Duel, PRNGKeyArray], Array]
    idle: float


class Duel(NamedTuple):
    """``points`` (n, d) of the data, ``draws`` (n, d) of the generator, and what both are given (n, g) or None."""

    points: Float[Array, "n d"]
    draws: Float[Array, "n d"]
    given: Float[Array, "n g"] | None = None


def tells_apart(rows: Scores, draws: Scores) -> Float[Array, ""]:
    """mean softplus(−r) + mean softplus(s): 2 log 2 for a critic that knows nothing.

    >>> round(float(tells_apart(jnp.zeros(3), jnp.zeros(3))), 4)
    1.3863
    """
    return jnp.mean(jax.nn.softplus(-rows)) + jnp.mean(jax.nn.softplus(draws))


def passes_for_rows(rows: Scores, draws: Scores) -> Float[Array, ""]:
    """mean softplus(−s).

    >>> round(float(passes_for_rows(jnp.zeros(1), jnp.full(1, 9.0))), 4)
    0.0001
    """
    return jnp.mean(jax.nn.softplus(-draws))


def tells_pairs_apart(rows: Scores, draws: Scores) -> Float[Array, ""]:
    """mean softplus(s − r): log 2 for a critic that knows nothing, whatever constant it adds.

    >>> round(float(tells_pairs_apart(jnp.full(3, 5.0), jnp.full(3, 5.0))), 4)
    0.6931
    """
    return jnp.mean(jax.nn.softplus(draws - rows))


def wins_pairs(rows: Scores, draws: Scores) -> Float[Array, ""]:
    """mean softplus(r − s).

    >>> round(float(wins_pairs(jnp.zeros(1), jnp.full(1, 9.0))), 4)
    0.0001
    """
    return jnp.mean(jax.nn.softplus(rows - draws))


def minus_gap(rows: Scores, draws: Scores) -> Float[Array, ""]:
    """mean s − mean r.

    >>> float(minus_gap(jnp.full(2, 3.0), jnp.full(2, 1.0)))
    -2.0
    """
    return jnp.mean(draws) - jnp.mean(rows)


def minus_draws(rows: Scores, draws: Scores) -> Float[Array, ""]:
    """−mean s.

    >>> float(minus_draws(jnp.full(2, 3.0), jnp.full(2, 1.0)))
    -1.0
    """
    return -jnp.mean(draws)


def zero_slope(judge: Judge, duel: Duel, key: PRNGKeyArray) -> Float[Array, ""]:
    """½ E|∇D(x)|² + ½ E|∇D(G(z))|²: R1 and R2.

    >>> float(zero_slope(lambda x, given: 2 * x[0], Duel(jnp.zeros((3, 2)), jnp.ones((3, 2))), jax.random.key(0)))
    4.0
    """
    square = jnp.sum(_slopes(judge, duel.points, duel.given) ** 2 + _slopes(judge, duel.draws, duel.given) ** 2, axis=1)
    return 0.5 * jnp.mean(square)


def unit_slope(judge: Judge, duel: Duel, key: PRNGKeyArray) -> Float[Array, ""]:
    """E(|∇D(u x + (1 − u) G(z))| − 1)², u uniform.

    >>> float(unit_slope(lambda x, given: 3 * x[0], Duel(jnp.zeros((3, 2)), jnp.ones((3, 2))), jax.random.key(0)))
    4.0
    """
    u = jax.random.uniform(key, (duel.points.shape[0], 1), duel.points.dtype)
    slopes = _slopes(judge, u * duel.points + (1 - u) * duel.draws, duel.given)
    # √(· + tiny): the gradient of a length at 0 would be NaN
    return jnp.mean((jnp.sqrt(jnp.sum(slopes**2, axis=1) + 1e-12) - 1) ** 2)


def _slopes(judge: Judge, points: Array, given: Array | None) -> Array:
    return jax.vmap(jax.grad(judge))(points, given)


NON_SATURATING = Game(tells_apart, passes_for_rows, zero_slope, 1.3862943611198906)
PAIRED = Game(tells_pairs_apart, wins_pairs, zero_slope, 0.6931471805599453)
WASSERSTEIN = Game(minus_gap, minus_draws, unit_slope, 0.0)
