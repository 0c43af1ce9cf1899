"""Continuous flow: the law that a standard normal becomes when every point follows a velocity field.

Definition. With dx/dt = v(x, t) and x(1) ~ N(0, I) at t = 1, log p(x) = log N(x(1); 0, I) + ∫₀¹ div v(x(t), t) dt along
the path that starts at x (Chen, Rubanova, Bettencourt and Duvenaud 2018; identity ``relation.flow``); a sample follows a
path from noise back to t = 0. The number is as good as the path: ``kind`` is ``numeric`` with the exact divergence and
``estimate`` with random signs in its place (Hutchinson 1989; Grathwohl et al. 2019).
"""

from __future__ import annotations

from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from mulligan.core import Density, Sampler
from mulligan.models.continuous_flow import Velocity
from mulligan.samplers.ode import (
    evaluations,
    signs_of,
    solve,
    solve_adaptive,
    solve_with_divergence,
)

Solver = Literal["heun", "rk4", "adaptive"]
EARLY = 2.0  # times are (i/n)^EARLY: dense near the data, where paths bend most
TOLERANCE = 1e-5  # of adaptive steps, about what float32 can hold


class ContinuousFlow(Sampler, Density):
    """log p(x) = log N(z; 0, I) + ∫ div v dt + log |det W|, z the end at t = 1 of the path that starts at W (x − m).

    ``velocity`` is v with its whitening. The path is found by ``solver`` with one step between neighbouring ``times``
    (n+1,) from 0 to 1, or by adaptive steps from the first time to the last. ``spent`` is the evaluations of v that a
    sample takes. ``probes`` is 0 for the exact divergence (d directional derivatives for each evaluation), or the number
    k of random sign vectors that estimate it: these are hashed from x, so log p is a function of x, and the errors of
    different rows are independent (a mean over rows has them in its standard error). Made by ``transported``.

    >>> from mulligan.models.continuous_flow import make_velocity
    >>> flow = transported(make_velocity(2, np.random.default_rng(0), width=8), steps=20)
    >>> round(float(flow.log_prob(jnp.zeros(2))), 2)  # untrained: N(0, I)
    -1.84
    """

    kind: Literal["exact", "numeric", "estimate"] = eqx.field(static=True)  # type: ignore[misc]
    velocity: Velocity
    times: Float[Array, " n"]
    spent: Float[Array, ""]
    solver: Solver = eqx.field(static=True)
    probes: int = eqx.field(static=True)

    @property
    def random_log_prob(self) -> bool:
        """Whether log p is right on average only, over the signs hashed from x."""
        return self.probes > 0

    @property
    def strokes(self) -> float:
        """Evaluations of the network a sample; of adaptive steps, their mean."""
        return float(self.spent)

    @property
    def log_z_stderr(self) -> float:
        """0: the law is normalised, and what is estimated is estimated for each row by itself."""
        return 0.0

    def log_prob(self, x: Float[Array, " d"], given: Array | None = None) -> Float[Array, ""]:
        """log p(x) in nats; NaN where adaptive steps did not reach the end."""
        return jnp.mean(self.each_log_prob(x, given))

    def each_log_prob(self, x: Float[Array, " d"], given: Array | None = None) -> Float[Array, " k"]:
        """log p(x) by each of the k probes, whose spread tells the error of their mean; (1,) with the exact divergence."""
        start, log_det = self.velocity.whiten(x)
        probes = signs_of(x, self.probes) if self.probes else None
        end, change = self._to_noise(start, given, probes)
        return jnp.atleast_1d(-0.5 * (end @ end) - 0.5 * end.shape[0] * np.log(2 * np.pi) + change + log_det)

    def sample(self, key: PRNGKeyArray, given: Array | None = None) -> Float[Array, " d"]:
        """One draw (d,): noise, carried back to t = 0."""
        noise = jax.random.normal(key, self.velocity.mean.shape, self.velocity.mean.dtype)
        return self.from_noise(noise, given)[0]

    def from_noise(self, noise: Float[Array, " d"], given: Array | None = None) -> tuple[Array, Array]:
        """The point that noise at t = 1 comes from, and the evaluations of the network that finding it took."""
        if self.solver == "adaptive":
            found = solve_adaptive(self._at(given), noise, self.times[-1], self.times[0], tolerance=TOLERANCE)
            return self.velocity.colour(found.x), found.evaluations
        end = solve(self._at(given), noise, self.times[::-1], self.solver)
        return self.velocity.colour(end), jnp.asarray(self.spent)

    def to_noise(self, x: Float[Array, " d"], given: Array | None = None) -> Float[Array, " d"]:
        """Where the path that starts at x ends: standard normal if x is of the model's law."""
        start, _ = self.velocity.whiten(x)
        if self.solver == "adaptive":
            return solve_adaptive(self._at(given), start, self.times[0], self.times[-1], tolerance=TOLERANCE).x
        return solve(self._at(given), start, self.times, self.solver)

    def _to_noise(self, start: Array, given: Array | None, probes: Array | None) -> tuple[Array, Any]:
        if self.solver == "adaptive":
            ends = self.times[0], self.times[-1]
            found = solve_adaptive(self._at(given), start, *ends, divergence=True, probes=probes, tolerance=TOLERANCE)
            return found.x, found.divergence
        return solve_with_divergence(self._at(given), start, self.times, self.solver, probes)

    def _at(self, given: Array | None) -> Any:
        return lambda x, t: self.velocity(x, t, given)


def transported(
    velocity: Velocity, *, steps: int = 16, solver: Solver = "rk4", probes: int = 0, spent: float | None = None
) -> ContinuousFlow:
    """The law of a velocity field. ``spent`` is measured by the caller for adaptive steps, and counted otherwise."""
    if spent is None:
        spent = 0.0 if solver == "adaptive" else float(steps * evaluations(solver))
    times = (np.arange(steps + 1) / steps) ** EARLY
    return ContinuousFlow(
        kind="estimate" if probes else "numeric",
        velocity=velocity,
        times=jnp.asarray(times.astype(np.float32)),
        spent=jnp.asarray(np.float32(spent)),
        solver=solver,
        probes=int(probes),
    )
