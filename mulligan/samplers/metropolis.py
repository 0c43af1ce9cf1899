"""Random-walk Metropolis, and the accept step that all adjusted kernels share.

Definition. Propose x' from q(x'|x), accept with probability min(1, π(x') q(x|x') / (π(x) q(x'|x))), else stay: π is
kept exactly, whatever q. The random walk x' = x + √Δt s e has a symmetric q, so the ratio is π(x')/π(x). Theory:
chapter 7, ``mala.exact``. Metropolis et al. (1953); Hastings (1970).
"""

from __future__ import annotations

from typing import Any, ClassVar, NamedTuple, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from mulligan.core import Kernel, Law
from mulligan.samplers.chance import chance
from mulligan.samplers.path import LogDensity
from mulligan.samplers.point import accept

LARGEST_ENERGY_ERROR = 1000.0  # beyond it the integrator has left its stable region (Stan's and BlackJAX's bound)

State = TypeVar("State")


class StepInfo(NamedTuple):
    """What a step of a continuous kernel tells, all floats and finite in a healthy run.

    ``acceptance`` is the probability with which the proposal was accepted (1 for unadjusted kernels), ``log_density``
    that of the state after the step, ``divergent`` 1 where the proposal was not a number or its energy error was beyond
    1000 (a proposal outside the support, log density −∞, is rejected and no divergence).
    """

    acceptance: Float[Array, ""]
    log_density: Float[Array, ""]
    divergent: Float[Array, ""]


class Decision(NamedTuple):
    """The uniforms of a step that proposes with ``normal`` (d,) and decides with ``uniform`` on [0, 1)."""

    normal: Float[Array, " d"]
    uniform: Float[Array, ""]


class Place(NamedTuple):
    """``position`` x (d,) and ``log_density`` log π(x): the state of a kernel that needs no score."""

    position: Float[Array, " d"]
    log_density: Float[Array, ""]


def decide(
    old: State, new: State, log_ratio: Array, uniform: Array, bounded_error: bool = True
) -> tuple[State, StepInfo]:
    """The accept step: ``new`` if uniform < min(1, exp(log_ratio)), else ``old``; both with a field ``log_density``.

    ``bounded_error`` counts |log_ratio| > 1000 as a divergence: for kernels that follow the score. Where ``new`` is
    outside the support the ratio is 0, also if the score there made ``log_ratio`` NaN.

    >>> old, new = Place(jnp.zeros(1), jnp.asarray(0.0)), Place(jnp.ones(1), jnp.asarray(-0.5))
    >>> state, info = decide(old, new, jnp.asarray(-0.5), jnp.asarray(0.6))
    >>> state.position.tolist(), round(float(info.acceptance), 4)
    ([1.0], 0.6065)
    """
    outside = jnp.isneginf(new.log_density)  # type: ignore[attr-defined]
    log_ratio = jnp.where(outside, -jnp.inf, log_ratio)
    probability, divergent = accept(log_ratio)
    if bounded_error:
        divergent |= (jnp.abs(log_ratio) > LARGEST_ENERGY_ERROR) & ~outside
    taken = uniform < probability
    state = jax.tree.map(lambda a, b: jnp.where(taken, a, b), new, old)
    return state, StepInfo(probability, state.log_density, divergent.astype(probability.dtype))


def like(x: Array, *numbers: Any) -> tuple[Array, ...]:
    """Numbers of a kernel in the precision of the position: a state must keep its dtype.

    >>> like(jnp.zeros(2), 0.5)[0].dtype.name
    'float32'
    """
    return tuple(jnp.asarray(number, x.dtype) for number in numbers)


class RandomWalk(Kernel):
    """Random-walk Metropolis: x' = x + √Δt s e, accepted with probability min(1, π(x')/π(x)).

    Arguments: ``log_density`` from x (d,) to a scalar, needs no gradient; ``step_size`` Δt, the variance of a proposal;
    ``scale`` s, a number or (d,). State: ``Place``. Roberts, Gelman & Gilks (1997): accept .234 in many dimensions.

    >>> kernel = RandomWalk(lambda x: -0.5 * jnp.sum(x**2), 1.0)
    >>> state = kernel.init(jax.random.key(0), jnp.zeros(2))
    >>> state, info = kernel.move(state, Decision(jnp.asarray([1.0, 0.0]), jnp.asarray(0.5)), None)
    >>> state.position.tolist(), round(float(info.acceptance), 4)
    ([1.0, 0.0], 0.6065)
    """

    law: ClassVar[Law] = Law("exact")
    log_density: LogDensity
    step_size: Float[Array, ""] = eqx.field(converter=jnp.asarray)
    scale: Float[Array, " *d"] = eqx.field(converter=jnp.asarray, default=1.0)

    def init(self, key: PRNGKeyArray, x: Float[Array, " d"]) -> Place:
        """At x; the key is not used."""
        return Place(x, self.log_density(x))

    def noise(self, key: PRNGKeyArray, state: Place) -> Decision:
        """d normals and one uniform."""
        normal, uniform = chance(key, state.position.size, 1, state.position.dtype)
        return Decision(normal, uniform[0])

    def move(self, state: Place, noise: Decision, input: Any) -> tuple[Place, StepInfo]:
        """Propose and decide."""
        step_size, scale = like(state.position, self.step_size, self.scale)
        x = state.position + jnp.sqrt(step_size) * scale * noise.normal
        new = Place(x, self.log_density(x))
        return decide(state, new, new.log_density - state.log_density, noise.uniform, bounded_error=False)
