"""The No-U-Turn sampler: BlackJAX's, behind this library's contract.

Definition. A leapfrog trajectory is doubled, forward or backward at random, until its ends turn towards each other; the next
state is drawn from it by multinomial weights exp(−H), biased to the newer half. π is kept exactly. Theory: chapter 7,
``hmc.reversible``. Hoffman & Gelman (2014); Betancourt (2017); iterative as in Phan et al. (2019).
"""

from __future__ import annotations

from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from mulligan.core import Kernel, Law
from mulligan.samplers.metropolis import like
from mulligan.samplers.path import LogDensity
from mulligan.samplers.point import Point, point_at


class TrajectoryInfo(NamedTuple):
    """As ``StepInfo``, and of the trajectory: ``leapfrogs`` (gradients taken), ``energy`` H at the new state.

    ``acceptance`` is the mean of min(1, exp(−ΔH)) over the trajectory; ``divergent`` if any of it was off by 1000.
    """

    acceptance: Float[Array, ""]
    log_density: Float[Array, ""]
    divergent: Float[Array, ""]
    leapfrogs: Float[Array, ""]
    energy: Float[Array, ""]


class NoUTurn(Kernel):
    """The No-U-Turn sampler: Hamiltonian Monte Carlo that finds the length of each trajectory itself.

    Arguments: ``log_density`` from x (d,) to a scalar; ``step_size`` ε of the leapfrog; ``inverse_mass_matrix``, roughly
    the variances (d,) of π or its covariance (d, d); ``doublings``, the most that a trajectory may take.
    State: ``Point``. The noise is a key: how many numbers a trajectory needs is not known before.

    >>> import jax
    >>> kernel = NoUTurn(lambda x: -0.5 * jnp.sum(x**2), 0.5, jnp.ones(2))
    >>> state, info = kernel.step(jax.random.key(1), kernel.init(jax.random.key(0), jnp.ones(2)))
    >>> state.position.shape, float(info.divergent)
    ((2,), 0.0)
    """

    law: ClassVar[Law] = Law("exact")
    log_density: LogDensity
    step_size: Float[Array, ""] = eqx.field(converter=jnp.asarray)
    inverse_mass_matrix: Float[Array, " *d"] = eqx.field(converter=jnp.asarray)
    doublings: int = eqx.field(static=True, default=10)

    def init(self, key: PRNGKeyArray, x: Float[Array, " d"]) -> Point:
        """At x; the key is not used."""
        return point_at(self.log_density, x)

    def noise(self, key: PRNGKeyArray, state: Point) -> PRNGKeyArray:
        """The key of the trajectory."""
        return key

    def move(self, state: Point, noise: PRNGKeyArray, input: Any) -> tuple[Point, TrajectoryInfo]:
        """One trajectory."""
        import blackjax  # not at the top: a second of imports, and a top-level package "docs"

        step_size, inverse = like(state.position, self.step_size, self.inverse_mass_matrix)
        inverse = jnp.broadcast_to(inverse, state.position.shape) if inverse.ndim < 2 else inverse
        kernel = blackjax.nuts.build_kernel()
        old = blackjax.mcmc.hmc.HMCState(*state)
        new, info = kernel(noise, old, self.log_density, step_size, inverse, self.doublings)
        numbers = (info.acceptance_rate, new.logdensity, info.is_divergent, info.num_integration_steps, info.energy)
        return Point(*new), TrajectoryInfo(*like(state.position, *numbers))
