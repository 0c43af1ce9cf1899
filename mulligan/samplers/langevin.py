"""Langevin dynamics: unadjusted, Metropolis-adjusted, underdamped, and on minibatches.

Definition. x' = x + (Δt/2) s² ∇ log π(x) + √Δt s e with e ~ N(0, I) and a diagonal scale s; as Δt → 0 it is
dx = ½ s² ∇ log π dt + s dB, which keeps π. Theory: chapter 7, ``langevin.limit``, ``langevin.stationary``,
``langevin.squeeze``, ``langevin.diffuse``, ``mala.exact``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from mulligan.core import Kernel, Law
from mulligan.samplers.chance import chance
from mulligan.samplers.metropolis import Decision, Place, StepInfo, decide, like
from mulligan.samplers.path import LogDensity
from mulligan.samplers.point import Point, point_at


def unadjusted(log_density: Array) -> StepInfo:
    """The info of a step that is always taken.

    >>> float(unadjusted(jnp.asarray(-1.0)).acceptance)
    1.0
    """
    return StepInfo(jnp.ones_like(log_density), log_density, jnp.zeros_like(log_density))


class Langevin(Kernel):
    """Unadjusted Langevin: x' = x + (Δt/2) s² ∇ log π(x) + √Δt s e. Its law is π up to O(Δt).

    On N(0, σ²) the stationary variance is σ²/(1 − s²Δt/(4σ²)), and the chain is stable iff s²Δt < 4σ². There is nothing to
    reject with: a position that is no longer finite ends the run.

    Arguments: ``log_density`` from x (d,) to a scalar; ``step_size`` Δt; ``scale`` s, a number or (d,). State: ``Point``.
    Roberts & Tweedie (1996).

    >>> kernel = Langevin(lambda x: -0.5 * jnp.sum(x**2), 0.04)
    >>> state = kernel.init(jax.random.key(0), jnp.ones(1))
    >>> state, info = kernel.move(state, jnp.ones(1), None)
    >>> round(float(state.position[0]), 4)
    1.18
    """

    law: ClassVar[Law] = Law("order", 1)
    log_density: LogDensity
    step_size: Float[Array, ""] = eqx.field(converter=jnp.asarray)
    scale: Float[Array, " *d"] = eqx.field(converter=jnp.asarray, default=1.0)

    def init(self, key: PRNGKeyArray, x: Float[Array, " d"]) -> Point:
        """At x; the key is not used."""
        return point_at(self.log_density, x)

    def noise(self, key: PRNGKeyArray, state: Point) -> Float[Array, " d"]:
        """d normals."""
        return chance(key, state.position.size, 0, state.position.dtype)[0]

    def move(self, state: Point, noise: Float[Array, " d"], input: Any) -> tuple[Point, StepInfo]:
        """Down the energy, and a jump."""
        step_size, scale = like(state.position, self.step_size, self.scale)
        x = state.position + 0.5 * step_size * scale**2 * state.score + jnp.sqrt(step_size) * scale * noise
        new = point_at(self.log_density, x)
        return new, unadjusted(new.log_density)


class MetropolisLangevin(Kernel):
    """Metropolis-adjusted Langevin (MALA): Langevin's step as a proposal, accepted so that π is kept exactly.

    With a = ½√Δt s (∇ log π(x) + ∇ log π(x')) the way back needs the noise −(e + a), so the log of the ratio is
    log π(x') − log π(x) − ½ a·(2e + a).

    Arguments: ``log_density`` from x (d,) to a scalar; ``step_size`` Δt; ``scale`` s, a number or (d,). State: ``Point``.
    Besag (1994); Roberts & Rosenthal (1998): accept .574 in many dimensions.

    >>> kernel = MetropolisLangevin(lambda x: -0.5 * jnp.sum(x**2), 0.04)
    >>> state = kernel.init(jax.random.key(0), jnp.ones(1))
    >>> state, info = kernel.move(state, Decision(jnp.ones(1), jnp.asarray(0.5)), None)
    >>> round(float(state.position[0]), 4), round(float(info.acceptance), 4)
    (1.18, 0.998)
    """

    law: ClassVar[Law] = Law("exact")
    log_density: LogDensity
    step_size: Float[Array, ""] = eqx.field(converter=jnp.asarray)
    scale: Float[Array, " *d"] = eqx.field(converter=jnp.asarray, default=1.0)

    def init(self, key: PRNGKeyArray, x: Float[Array, " d"]) -> Point:
        """At x; the key is not used."""
        return point_at(self.log_density, x)

    def noise(self, key: PRNGKeyArray, state: Point) -> Decision:
        """d normals and one uniform."""
        normal, uniform = chance(key, state.position.size, 1, state.position.dtype)
        return Decision(normal, uniform[0])

    def move(self, state: Point, noise: Decision, input: Any) -> tuple[Point, StepInfo]:
        """Propose and decide."""
        step_size, scale = like(state.position, self.step_size, self.scale)
        width = jnp.sqrt(step_size) * scale
        new = point_at(self.log_density, state.position + 0.5 * width**2 * state.score + width * noise.normal)
        a = 0.5 * width * (state.score + new.score)
        log_ratio = new.log_density - state.log_density - 0.5 * jnp.sum(a * (2 * noise.normal + a))
        return decide(state, new, log_ratio, noise.uniform)


class Moving(NamedTuple):
    """A point with a ``momentum`` (d,), which is N(0, I) under the law."""

    position: Float[Array, " d"]
    momentum: Float[Array, " d"]
    log_density: Float[Array, ""]
    score: Float[Array, " d"]


class UnderdampedLangevin(Kernel):
    """Underdamped (kinetic) Langevin by the splitting BAOAB: half a kick, half a drift, noise, half a drift, half a kick.

    dx = s p dt, dp = s ∇ log π(x) dt − γ p dt + √(2γ) dB with p ~ N(0, I), in steps of ε: p += (ε/2) s ∇ log π;
    x += (ε/2) s p; p = e^(−γε) p + √(1 − e^(−2γε)) e; and the first two in reverse order. Its law of x is π up to O(ε²),
    exact on a Gaussian; stable iff ε s < 2σ there. One gradient a step.

    Arguments: ``log_density`` from x (d,) to a scalar; ``step_size`` ε (Langevin's Δt is ε² in the same units);
    ``friction`` γ; ``scale`` s, a number or (d,). State: ``Moving``. Leimkuhler & Matthews (2013).

    >>> kernel = UnderdampedLangevin(lambda x: -0.5 * jnp.sum(x**2), 0.2, 1.0)
    >>> state = kernel.init(jax.random.key(0), jnp.ones(3))
    >>> kernel.move(state, jnp.zeros(3), None)[0].position.shape
    (3,)
    """

    law: ClassVar[Law] = Law("order", 2)
    log_density: LogDensity
    step_size: Float[Array, ""] = eqx.field(converter=jnp.asarray)
    friction: Float[Array, ""] = eqx.field(converter=jnp.asarray, default=1.0)
    scale: Float[Array, " *d"] = eqx.field(converter=jnp.asarray, default=1.0)

    def init(self, key: PRNGKeyArray, x: Float[Array, " d"]) -> Moving:
        """At x with a fresh momentum."""
        point = point_at(self.log_density, x)
        return Moving(x, chance(key, x.size, 0, x.dtype)[0], point.log_density, point.score)

    def noise(self, key: PRNGKeyArray, state: Moving) -> Float[Array, " d"]:
        """d normals."""
        return chance(key, state.position.size, 0, state.position.dtype)[0]

    def move(self, state: Moving, noise: Float[Array, " d"], input: Any) -> tuple[Moving, StepInfo]:
        """B, A, O, A, B."""
        step_size, friction, scale = like(state.position, self.step_size, self.friction, self.scale)
        half = 0.5 * step_size * scale
        kept = jnp.exp(-friction * step_size)
        momentum = state.momentum + half * state.score
        x = state.position + half * momentum
        momentum = kept * momentum + jnp.sqrt(-jnp.expm1(-2 * friction * step_size)) * noise
        new = point_at(self.log_density, x + half * momentum)
        momentum = momentum + half * new.score
        return Moving(new.position, momentum, new.log_density, new.score), unadjusted(new.log_density)


class Minibatch(eqx.Module):
    """(x, indices) ↦ log prior(x) + (n/m) Σ log likelihood(x, row) over m of n rows: an unbiased log posterior.

    Arguments: ``log_prior`` from x (d,) to a scalar; ``log_likelihood`` from (x, row) to a scalar; ``rows`` (n, …).

    >>> f = Minibatch(lambda x: 0.0, lambda x, row: -0.5 * jnp.sum((row - x) ** 2), jnp.ones((10, 1)))
    >>> float(f(jnp.zeros(1), jnp.asarray([0, 3])))
    -5.0
    """

    log_prior: Callable[[Array], Array]
    log_likelihood: Callable[[Array, Array], Array]
    rows: Array

    def __call__(self, x: Array, indices: Array) -> Float[Array, ""]:
        each = jax.vmap(self.log_likelihood, in_axes=(None, 0))(x, self.rows[indices])
        return self.log_prior(x) + self.rows.shape[0] / indices.size * jnp.sum(each)


class StochasticLangevin(Kernel):
    """Stochastic-gradient Langevin (SGLD): Langevin's step with the score of a minibatch, the input of the step.

    x' = x + (Δt/2) s² ∇ₓ log π̂(x, input) + √Δt s e, where E ∇ log π̂ = ∇ log π. The minibatch's own noise adds
    (Δt²/4) s⁴ Var ∇ log π̂ to each step: a bias of O(Δt), as that of Langevin, but n times larger for n rows.

    Arguments: ``log_density`` from (x (d,), input) to a scalar, such as ``Minibatch``; ``step_size`` Δt; ``scale`` s.
    State: ``Place`` with the minibatch's log density before the step (0 at first).
    Welling & Teh (2011); Vollmer et al. (2016).

    >>> kernel = StochasticLangevin(lambda x, row: -0.5 * jnp.sum((x - row) ** 2), 0.04)
    >>> state = kernel.init(jax.random.key(0), jnp.ones(1))
    >>> state, info = kernel.move(state, jnp.ones(1), jnp.zeros(1))
    >>> round(float(state.position[0]), 4)
    1.18
    """

    law: ClassVar[Law] = Law("order", 1)
    log_density: Callable[[Array, Any], Array]
    step_size: Float[Array, ""] = eqx.field(converter=jnp.asarray)
    scale: Float[Array, " *d"] = eqx.field(converter=jnp.asarray, default=1.0)

    def init(self, key: PRNGKeyArray, x: Float[Array, " d"]) -> Place:
        """At x; the key is not used."""
        return Place(x, jnp.zeros((), x.dtype))

    def noise(self, key: PRNGKeyArray, state: Place) -> Float[Array, " d"]:
        """d normals."""
        return chance(key, state.position.size, 0, state.position.dtype)[0]

    def move(self, state: Place, noise: Float[Array, " d"], input: Any) -> tuple[Place, StepInfo]:
        """Down the minibatch's energy, and a jump."""
        step_size, scale = like(state.position, self.step_size, self.scale)
        value, score = jax.value_and_grad(self.log_density)(state.position, input)
        x = state.position + 0.5 * step_size * scale**2 * score + jnp.sqrt(step_size) * scale * noise
        return Place(x, value), unadjusted(value)
