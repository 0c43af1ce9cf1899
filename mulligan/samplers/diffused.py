"""A fitted diffusion model: a denoiser with the sampler that draws from it and the equation that scores rows.

Definition. A draw starts at the Gaussian fit of the data under the noise of t_max and is carried back by any of the samplers
of ``reverse.py``; these are parts that can be exchanged without training anew (``with_sampler``). log p is that of the
probability-flow ODE: with x(t_min) = x and dx/dt = v(x, t),

    log p(x) = log p_T(x(t_max)) + ∫ div v(x(t), t) dt

(Song et al. 2021; identity ``diffusion.ode_likelihood``). ``elbo`` is the variational bound, of the law that ancestral steps
have, whose expectation is below the data's log p just as that of any law is; the two laws agree where the score is true.
With the solver ``bound`` it is log p's place that this bound takes, at noise hashed from x: for networks on pictures, whose
ODE would take days.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal, get_args

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from mulligan.core import Bound, Density, NoisedScore, Sampler
from mulligan.errors import UsageError
from mulligan.models.denoiser import Conditioned, Denoiser
from mulligan.objectives.denoising import continuous_bound
from mulligan.samplers.ode import hashed_key, signs_of, solve_adaptive, solve_with_divergence
from mulligan.samplers.reverse import evaluations, reverse_kernel, run_reverse
from mulligan.targets.noising import Time

Solver = Literal["heun", "rk4", "adaptive", "bound"]
SOLVERS: tuple[str, ...] = get_args(Solver)
TOLERANCE = 1e-5  # of adaptive steps, about what float32 can hold
RHO = 7.0  # times of the ODE are equally spaced in (σ/α)^{1/ρ} (Karras et al. 2022)
BOUND_TIMES = 32  # noise levels of one draw of the bound
TOGETHER = 2**16  # numbers of the rows that are drawn or scored at a time: those of a few pictures stay in the cache


class Diffusion(Sampler, Density, NoisedScore, Bound):
    """``denoiser`` with a sampler and an ODE; x is a vector (d,), ``given`` None or (g,). Made by ``diffused``.

    ``sampler`` names one of ``reverse.KERNELS``, ``times`` (n+1,) are its falling times. log p takes one step of ``solver``
    between neighbours of the rising ``path`` (m+1,), or adaptive steps between its ends. ``probes`` is 0 for the exact
    divergence, or the number of random sign vectors, hashed from x, that estimate it; ``kind`` is ``numeric`` or
    ``estimate`` accordingly. With the solver ``bound`` log p is the variational bound at m noise levels, one in each m-th of
    their range, with noise hashed from x; ``kind`` is then ``lower bound``.

    >>> import numpy as np
    >>> from mulligan.models.denoiser import make_denoiser
    >>> from mulligan.targets.noising import EDM
    >>> model = diffused(make_denoiser(2, EDM(), np.random.default_rng(0), width=8))
    >>> round(float(model.log_prob(jnp.zeros(2))), 1)  # untrained: N(0, I)
    -1.8
    >>> with_sampler(model, "ancestral", 10).sample(jax.random.key(0)).shape
    (2,)
    """

    kind: Literal["exact", "numeric", "estimate", "lower bound"] = eqx.field(static=True)  # type: ignore[misc]
    denoiser: Denoiser
    times: Float[Array, " n+1"]
    path: Float[Array, " m+1"]
    sampler: str = eqx.field(static=True)
    solver: Solver = eqx.field(static=True)
    probes: int = eqx.field(static=True)

    @property
    def schedule(self) -> Any:
        """The denoiser's."""
        return self.denoiser.schedule

    @property
    def strokes(self) -> float:
        """Evaluations of the network a draw: those of the steps, and the last jump's."""
        return float((len(self.times) - 1) * evaluations(reverse_kernel(self.sampler, self.denoiser)) + 1)

    @property
    def log_z_stderr(self) -> float:
        """0: the law is normalised, and what is estimated is estimated for each row by itself."""
        return 0.0

    def denoise(self, x: Float[Array, " d"], t: Time, given: Array | None = None) -> Float[Array, " d"]:
        """E[x_0 | x_t = x]."""
        return self.denoiser.denoise(x, t, given)

    def score(self, x: Float[Array, " d"], t: Time, given: Array | None = None) -> Float[Array, " d"]:
        """∇ log p_t(x)."""
        return self.denoiser.score(x, t, given)

    def sample(self, key: PRNGKeyArray, given: Array | None = None) -> Float[Array, " d"]:
        """One draw (d,)."""
        of_start, of_path = jax.random.split(key)
        noise = jax.random.normal(of_start, (self.denoiser.dim,), self.denoiser.mean.dtype)
        kernel = reverse_kernel(self.sampler, Conditioned(self.denoiser, given))
        return run_reverse(kernel, of_path, self.denoiser.from_prior(noise, self.times[0]), self.times)

    @property
    def random_log_prob(self) -> bool:
        """Whether log p is right on average only, over what is hashed from x: never to be averaged by its exp."""
        return self.solver == "bound" or self.probes > 0

    @property
    def block(self) -> int:
        """How many rows are drawn, or scored, at a time."""
        return max(1, min(1024, TOGETHER // self.denoiser.dim))

    def log_prob(self, x: Float[Array, " d"], given: Array | None = None) -> Float[Array, ""]:
        """log p(x) in nats by the probability-flow ODE, or its bound; NaN where adaptive steps did not reach the end."""
        return jnp.mean(self.each_log_prob(x, given))

    def each_log_prob(self, x: Float[Array, " d"], given: Array | None = None) -> Float[Array, " k"]:
        """log p(x) by each of the k probes, whose spread tells the error of their mean; (1,) with the exact divergence.

        The bound at each of the k noise levels where it is the bound: their mean is one number of it.
        """
        if self.solver == "bound":
            return self.each_bound(hashed_key(x), x, len(self.path) - 1, given)
        probes = signs_of(x, self.probes) if self.probes else None
        # The path begins at the least noise, where the law is that of α x_0 + σ e: its x/α is scored.
        alpha = self.schedule.alpha(self.path[0])
        x = alpha * x

        def velocity(y: Array, t: Array) -> Array:
            return self.denoiser.velocity(y, t, given)

        if self.solver == "adaptive":
            ends = self.path[0], self.path[-1]
            found = solve_adaptive(velocity, x, *ends, divergence=True, probes=probes, tolerance=TOLERANCE)
            end, change = found.x, jnp.asarray(found.divergence)
        else:
            end, change = solve_with_divergence(velocity, x, self.path, self.solver, probes)
        scaled = x.shape[0] * jnp.log(alpha)
        return jnp.atleast_1d(self.denoiser.prior_log_prob(end, self.path[-1]) + change + scaled)

    def elbo(self, key: PRNGKeyArray, x: Float[Array, " d"], given: Array | None = None) -> Float[Array, ""]:
        """The variational bound at ``BOUND_TIMES`` random noise levels: at most log p(x) of the ancestral law on average."""
        return jnp.mean(self.each_bound(key, x, BOUND_TIMES, given))

    def each_bound(
        self, key: PRNGKeyArray, x: Float[Array, " d"], k: int, given: Array | None = None
    ) -> Float[Array, " k"]:
        """k numbers whose mean is the bound: each at one noise level, in its own k-th of the range of log σ/α."""
        of_noise, of_places = jax.random.split(key)
        offset = jax.random.uniform(of_places, (), x.dtype)

        def one(i: Array) -> Array:  # one level at a time: a network's activations at all of them would not fit
            noise = jax.random.normal(jax.random.fold_in(of_noise, i), (1, *x.shape), x.dtype)
            place = (i.astype(x.dtype) + offset) / k
            return continuous_bound(self.denoiser, x, noise, place[None], given)

        return jax.lax.map(one, jnp.arange(k))


def diffused(
    denoiser: Denoiser,
    *,
    sampler: str = "heun",
    steps: int = 32,
    solver: Solver = "heun",
    solver_steps: int = 64,
    probes: int = 0,
) -> Diffusion:
    """A denoiser as a law. Raises UsageError for an unknown sampler or solver."""
    if solver not in SOLVERS:
        raise UsageError(f"there is no solver {solver!r}", do=f"known: {', '.join(SOLVERS)}")
    kind: Literal["numeric", "estimate", "lower bound"] = "estimate" if probes else "numeric"
    kind = "lower bound" if solver == "bound" else kind
    times = jnp.zeros(2)
    model = Diffusion(kind, denoiser, times, _path(denoiser, solver_steps), sampler, solver, int(probes))
    return with_sampler(model, sampler, steps)


def with_sampler(model: Diffusion, sampler: str, steps: int | None = None) -> Diffusion:
    """The same trained model drawn from in another way; ``steps`` None keeps their number.

    Raises UsageError for an unknown sampler or steps below 1.
    """
    steps = len(model.times) - 1 if steps is None else steps
    if steps < 1:
        raise UsageError(f"steps is {steps!r}; expected a whole number from 1")
    reverse_kernel(sampler, model.denoiser)
    return replace(model, sampler=sampler, times=model.schedule.grid(int(steps)))


def with_path(model: Diffusion, solver_steps: int) -> Diffusion:
    """The same trained model with log p by another number of steps."""
    return replace(model, path=_path(model.denoiser, solver_steps))


def _path(denoiser: Denoiser, steps: int) -> Array:
    """Rising times, equally spaced in a power of σ/α like those of Karras et al. (2022): dense where data are resolved."""
    schedule = denoiser.schedule
    low, high = (jnp.exp(-schedule.log_ratio(t) / RHO) for t in (schedule.t_min, schedule.t_max))
    times = schedule.at_noise(jnp.linspace(low, high, steps + 1) ** RHO)
    return times.at[0].set(schedule.t_min).at[-1].set(schedule.t_max)
