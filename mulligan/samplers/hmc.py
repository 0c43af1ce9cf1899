"""Hamiltonian Monte Carlo: leapfrog trajectories of fixed or jittered length.

Definition. With momentum p ~ N(0, I), H(x, p) = −log π(x) + ½|p|². The leapfrog p += (ε/2) s ∇ log π; x += ε s p;
p += (ε/2) s ∇ log π is reversible and keeps volume, so the end of L steps is accepted with min(1, exp(−ΔH)) and π is kept
exactly. Theory: chapter 7, ``hmc.reversible``, ``hmc.smooth``. Duane et al. (1987); Neal (2011).
"""

from __future__ import annotations

from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from mulligan.core import Kernel, Law
from mulligan.samplers.chance import chance
from mulligan.samplers.metropolis import StepInfo, decide, like
from mulligan.samplers.path import LogDensity
from mulligan.samplers.point import Point, point_at


def leapfrog(
    log_density: LogDensity, point: Point, momentum: Array, step_size: Array, steps: int
) -> tuple[Point, Float[Array, " d"]]:
    """``steps`` leapfrog steps; ``step_size`` is ε s, a number or (d,). Volume is kept; with −p it runs back.

    >>> f = lambda x: -0.5 * jnp.sum(x**2)
    >>> there, p = leapfrog(f, point_at(f, jnp.ones(1)), jnp.zeros(1), jnp.asarray(0.1), 10)
    >>> back, _ = leapfrog(f, there, -p, jnp.asarray(0.1), 10)
    >>> round(float(there.position[0]), 3), round(float(back.position[0]), 5)
    (0.54, 1.0)
    """
    score = jax.grad(log_density)

    def one(_: Any, carry: tuple[Array, Array]) -> tuple[Array, Array]:
        x, momentum = carry
        x = x + step_size * momentum
        return x, momentum + step_size * score(x)

    momentum = momentum + 0.5 * step_size * point.score
    x, momentum = jax.lax.fori_loop(0, steps - 1, one, (point.position, momentum))
    end = point_at(log_density, x + step_size * momentum)  # the only step whose log density is asked for
    return end, momentum + 0.5 * step_size * end.score


class Shot(NamedTuple):
    """The randomness of a trajectory: ``momentum`` (d,) ~ N(0, I), ``uniform`` to decide, ``length`` to jitter; both on
    [0, 1)."""

    momentum: Float[Array, " d"]
    uniform: Float[Array, ""]
    length: Float[Array, ""]


class HamiltonianMonteCarlo(Kernel):
    """Hamiltonian Monte Carlo: L leapfrog steps of ε from a fresh momentum, accepted with min(1, exp(−ΔH)).

    ``jitter`` j makes the length random: ε (1 + j (2u − 1)) with one uniform u a trajectory; 0 fixes it. A fixed length
    can be a whole orbit, on a Gaussian 2πσ, and then the chain stays where it is. The step is jittered, not the number of
    steps: chains of one program wait for the longest of them, and so all take the same number of gradients.

    Arguments: ``log_density`` from x (d,) to a scalar; ``step_size`` ε (one step is MALA's with Δt = ε²); ``steps`` L ≥ 1;
    ``scale`` s, a number or (d,), that is mass 1/s²; ``jitter`` in [0, 1). State: ``Point``.
    Beskos et al. (2013): accept .651 in many dimensions.

    >>> kernel = HamiltonianMonteCarlo(lambda x: -0.5 * jnp.sum(x**2), 0.1, 10, jitter=0.0)
    >>> state = kernel.init(jax.random.key(0), jnp.ones(1))
    >>> state, info = kernel.move(state, Shot(jnp.zeros(1), jnp.asarray(0.5), jnp.asarray(0.5)), None)
    >>> round(float(state.position[0]), 3), round(float(info.acceptance), 3)
    (0.54, 1.0)
    """

    law: ClassVar[Law] = Law("exact")
    log_density: LogDensity
    step_size: Float[Array, ""] = eqx.field(converter=jnp.asarray)
    steps: int = eqx.field(static=True, default=10)
    scale: Float[Array, " *d"] = eqx.field(converter=jnp.asarray, default=1.0)
    jitter: Float[Array, ""] = eqx.field(converter=jnp.asarray, default=0.2)

    def init(self, key: PRNGKeyArray, x: Float[Array, " d"]) -> Point:
        """At x; the key is not used."""
        return point_at(self.log_density, x)

    def noise(self, key: PRNGKeyArray, state: Point) -> Shot:
        """d normals and two uniforms."""
        normal, uniform = chance(key, state.position.size, 2, state.position.dtype)
        return Shot(normal, uniform[0], uniform[1])

    def move(self, state: Point, noise: Shot, input: Any) -> tuple[Point, StepInfo]:
        """Shoot and decide."""
        step_size, scale, jitter = like(state.position, self.step_size, self.scale, self.jitter)
        step = step_size * scale * (1 + jitter * (2 * noise.length - 1))
        new, momentum = leapfrog(self.log_density, state, noise.momentum, step, self.steps)
        # p² − q² as (p − q)(p + q): the difference of two large sums would lose its digits in many dimensions
        kinetic = 0.5 * jnp.sum((noise.momentum - momentum) * (noise.momentum + momentum))
        return decide(state, new, new.log_density - state.log_density + kinetic, noise.uniform)
