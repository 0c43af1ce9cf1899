"""Flow matching: learn the velocity of straight paths between data and noise by regression.

Definition. L(θ) = E |v_θ(x_t, t) − (e − x_0)|², x_t = (1 − t) x_0 + t e: its minimiser is v(x, t) = E[e − x_0 | x_t = x],
whose flow carries the law of x_0 to N(0, I), for any joint law of (x_0, e) with these two marginals (Lipman et al. 2023;
identity ``relation.flow``). Two couplings: ``independent``, and ``optimal``, where the rows of a batch and as many draws of
noise are paired so that Σ |x_0 − e|² is small (Tong et al. 2024; Pooladian et al. 2023): paths then hardly cross.

With independent coupling the score's error is the velocity's times (1 − t)/t, so the bound of ``diffusion.robust`` (at
λ = 1) on KL(p_data‖p_θ) weighs the loss by (1 − t)/t: small times count. An ODE has no such bound, and errors at large
times move mass between clouds. Times are drawn half evenly and half evenly in log t, density ½ + ½/(t log 1/ε) on [ε, 1]
with ε = ``EARLIEST``, so that neither is neglected. A batch of n rows uses F⁻¹((i + U)/n), i = 0 … n−1, with one U.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from mulligan.models.continuous_flow import Velocity
from mulligan.objectives.likelihood import Rows

Coupling = Literal["independent", "optimal"]
EARLIEST = 1e-3  # in standard deviations of the data: what is sharper is learned as if blurred by that much
_TABLE = 2048
ROUNDS = 2  # of exchanges between all pairs of a batch


@dataclass(frozen=True)
class FlowMatching:
    """s |v(x_t, t) − (e − x_0)|²/d over rows, s = (1 − t)² + t²: 1 where v is that of a Gaussian fit, less below it.

    With independent coupling each row is used with e and with −e: what e adds to the gradient cancels to first order in
    t, so sharp laws are learned, too.

    >>> from mulligan.models.continuous_flow import make_velocity
    >>> rows = Rows(jnp.asarray(np.random.default_rng(1).normal(size=(1000, 2)), jnp.float32))
    >>> loss, _ = FlowMatching()(make_velocity(2, np.random.default_rng(0), width=4), jax.random.key(0), rows)
    >>> bool(0.9 < loss < 1.1)
    True
    """

    coupling: Coupling = "independent"

    def __call__(
        self, model: Velocity, key: PRNGKeyArray, batch: Rows
    ) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
        """The loss, and minus it as the metric ``train``."""
        of_noise, of_times = jax.random.split(key)
        white, _ = jax.vmap(model.whiten)(batch.points)
        noise = jax.random.normal(of_noise, white.shape, white.dtype)
        times = draw_times(of_times, len(white)).astype(white.dtype)
        if self.coupling == "optimal":
            loss = squared_error(model, white, paired(white, noise), times, batch.given)
        else:
            ahead = squared_error(model, white, noise, times, batch.given)
            loss = 0.5 * (ahead + squared_error(model, white, -noise, times, batch.given))
        return loss, {"train": -loss}


def squared_error(model: Velocity, white: Array, noise: Array, times: Array, given: Any = None) -> Float[Array, ""]:
    """Mean of s |v(x_t, t) − (e − x_0)|²/d over whitened rows x_0 (n, d), noise e (n, d) and times t (n,)."""

    def one(x: Array, e: Array, t: Array, known: Array | None) -> Array:
        spread = (1 - t) ** 2 + t**2
        return spread * jnp.mean((model((1 - t) * x + t * e, t, known) - (e - x)) ** 2)

    return jnp.mean(jax.vmap(one)(white, noise, times, given))


def draw_times(key: PRNGKeyArray, n: int) -> Float[Array, " n"]:
    """n rising times in [EARLIEST, 1], half even and half even in log t: one in each n-th of that density's mass.

    >>> bool((jnp.diff(draw_times(jax.random.key(0), 100)) > 0).all())
    True
    """
    grid = np.exp(np.linspace(np.log(EARLIEST), 0.0, _TABLE))
    mass = 0.5 * (grid - EARLIEST) / (1 - EARLIEST) + 0.5 * (1 - np.log(grid) / np.log(EARLIEST))
    places = (jnp.arange(n, dtype=jnp.float32) + jax.random.uniform(key, (), jnp.float32)) / n
    return jnp.interp(places, jnp.asarray(mass, jnp.float32), jnp.asarray(grid, jnp.float32))


def paired(x: Float[Array, "n d"], e: Float[Array, "n d"], rounds: int = ROUNDS) -> Float[Array, "n d"]:
    """The rows of e in another order, in which no exchange of two makes Σ |x_i − e_i|² much smaller.

    In turn c = 0 … n−1 of a round every i meets c − i (mod n), so each pair meets once; two exchange their e where that
    shortens the sum, (x_i − x_j)·(e_i − e_j) < 0. After few rounds almost no exchange is left that does: the order is
    that of optimal transport up to longer cycles, at n²·d operations a round in place of n³.

    >>> paired(jnp.asarray([[0.0], [1.0], [2.0]]), jnp.asarray([[5.0], [3.0], [4.0]]))[:, 0].tolist()
    [3.0, 4.0, 5.0]
    """
    n = len(x)

    def turn(c: Array, e: Array) -> Array:
        other_x, other_e = (jnp.roll(rows[::-1], c % n + 1, axis=0) for rows in (x, e))
        shorter = jnp.sum((x - other_x) * (e - other_e), axis=1, keepdims=True) < 0
        return jnp.where(shorter, other_e, e)

    return jax.lax.fori_loop(0, rounds * n, turn, e)
