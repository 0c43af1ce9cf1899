"""Warm-up: step size and diagonal scale from all chains together, kept apart from sampling and reusable.

Definition. The step size follows dual averaging of its logarithm until the mean acceptance over the chains is the
textbook's (Hoffman & Gelman 2014, section 3.2); the scale is the standard deviation of each coordinate over chains and draws
of a window, in windows that double, as Stan's (15 % to find the typical set, windows of 25, 50, …, 10 % at the end for the
step size alone). A kernel that adapts keeps no law: what was drawn here is thrown away. Theory: chapter 7.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from mulligan.core import Kernel, Law
from mulligan.errors import FitError, UsageError
from mulligan.loop import compile_small, run
from mulligan.samplers.hmc import HamiltonianMonteCarlo
from mulligan.samplers.langevin import Langevin, MetropolisLangevin, UnderdampedLangevin
from mulligan.samplers.many import Many
from mulligan.samplers.metropolis import RandomWalk
from mulligan.samplers.nuts import NoUTurn

FIRST, LAST, WINDOW = 75, 50, 25  # Stan's numbers of steps: before the windows, after them, and of the first window
PSEUDO_DRAWS = 5  # a window's variances lean on their geometric mean over coordinates as if that were so many draws
GAMMA, T0, KAPPA = 0.05, 10.0, 0.75  # dual averaging, of the paper


@dataclass(frozen=True)
class Tuned:
    """What a warm-up found: give it to ``retune`` to sample again without one.

    ``kernel`` names the kernel's class. ``step_size`` in the kernel's own unit, ``scale`` (d,), ``positions`` (chains, d)
    where the chains ended, ``acceptance`` and ``divergent`` (means over the steps after the last window), ``target`` the
    acceptance that was aimed at, ``steps`` taken.
    """

    kernel: str
    step_size: np.ndarray
    scale: np.ndarray
    positions: np.ndarray
    acceptance: float
    divergent: float
    target: float
    steps: int


def warm_up(
    kernel: Kernel, key: PRNGKeyArray, positions: Float[Array, "chains d"], steps: int, target: float | None = None
) -> tuple[Any, Tuned]:
    """The kernel with its step size and scale adapted from chains started at ``positions``, and what was found.

    ``target`` is the acceptance to aim at; None takes the textbook's: random walk .234 (.44 in one dimension), MALA .574,
    HMC .8, NUTS .8. For HMC .651 is best as d → ∞ with trajectories of fixed length; .8 costs little there and diverges
    less on uneven densities, hence Stan's choice. Kernels without an accept step take the step size of MALA at .95,
    where the energy errors, and so their bias, are small. One compiled program for any number of steps.

    Raises UsageError for a kernel that cannot be adapted or a start outside the support, FitError where it broke down.

    >>> kernel = MetropolisLangevin(lambda x: -0.5 * jnp.sum((x / 3.0) ** 2), 1.0)
    >>> kernel, tuned = warm_up(kernel, jax.random.key(0), jax.random.normal(jax.random.key(1), (64, 2)), 150)
    >>> abs(tuned.acceptance - 0.574) < 0.1, tuned.scale.shape
    (True, (2,))
    """
    positions = jnp.asarray(positions)
    twin, power, textbook = _adaptable(kernel, positions.shape[-1])
    target = textbook if target is None else target
    pooled = _start(twin, jax.random.fold_in(key, 0), positions, power)
    _check_start(np.asarray(pooled.state.log_density))
    plan = schedule(steps)
    adapting = _WarmUp(twin, jnp.asarray(target, positions.dtype), power)
    finished = run(adapting, jax.random.fold_in(key, 1), pooled, steps, inputs=_Plan(plan))
    if not finished.healthy:
        raise FitError(
            f"the warm-up of {type(kernel).__name__} broke down",
            str(finished.stopped),
            "The log density or its gradient is not finite where a chain went",
            "check the log density there, or start with a smaller step_size",
        )
    end = finished.state
    step_size = np.exp(power * np.asarray(end.log_average))
    if isinstance(kernel, UnderdampedLangevin):
        step_size = np.sqrt(step_size)  # its leapfrog step is the root of MALA's Δt
    ends = np.flatnonzero(plan[:, 1])
    last = finished.history.get("acceptance", np.zeros(0))[ends[-1] + 1 if ends.size else 0 :]
    divergent = finished.history.get("divergent", last)[-max(len(last), 1) :]
    tuned = Tuned(
        type(kernel).__name__,
        np.asarray(step_size),
        np.asarray(end.scale),
        np.asarray(end.state.position),
        float(last.mean()) if last.size else math.nan,
        float(divergent.mean()) if last.size else math.nan,
        float(target),
        finished.step,
    )
    return retune(kernel, tuned), tuned


def retune(kernel: Kernel, tuned: Tuned) -> Any:
    """The kernel with the step size and scale of an earlier warm-up. Raises UsageError if that was of another kernel.

    >>> tuned = Tuned("RandomWalk", np.float32(0.5), np.ones(2, np.float32), np.zeros((1, 2)), 0.44, 0.0, 0.44, 100)
    >>> float(retune(RandomWalk(lambda x: -jnp.sum(x**2), 1.0), tuned).step_size)
    0.5
    """
    if type(kernel).__name__ != tuned.kernel:
        raise UsageError(
            f"a warm-up of {tuned.kernel} does not fit {type(kernel).__name__}",
            why="Step sizes of different kernels have different units",
            do=f"warm_up({type(kernel).__name__}(...), ...)",
        )
    return _put(kernel, jnp.asarray(tuned.step_size), jnp.asarray(tuned.scale))


def schedule(steps: int) -> np.ndarray:
    """For each step whether its draws count towards the window's variances, and whether the window ends: bool (steps, 2).

    >>> schedule(150)[:, 1].nonzero()[0].tolist(), schedule(1000)[:, 1].nonzero()[0].tolist()
    ([99], [99, 149, 249, 449, 949])
    """
    plan = np.zeros((steps, 2), bool)
    first, last, size = (FIRST, LAST, WINDOW)
    if steps < FIRST + LAST + WINDOW:
        first, last = int(0.15 * steps), int(0.1 * steps)
        size = steps - first - last
    start, stop = first, steps - last
    while start < stop and steps >= 20:  # in fewer steps only the step size is adapted
        if start + 3 * size > stop:  # the next window, twice as long, would not fit
            size = stop - start
        plan[start : start + size, 0] = True
        plan[start + size - 1, 1] = True
        start, size = start + size, 2 * size
    return plan


class _Plan:
    """Rows of the schedule as inputs of the steps, padded to the size that the loop asks for."""

    def __init__(self, plan: np.ndarray):
        self.plan = plan

    def __call__(self, start: int, size: int) -> np.ndarray:
        rows = self.plan[start : start + size]
        return np.concatenate([rows, np.zeros((size - len(rows), 2), bool)])


class _Pooled(NamedTuple):
    """The chains, dual averaging of u = log ε (step size = ε^power), and the moments of the window."""

    state: Any
    log_step: Float[Array, ""]
    log_average: Float[Array, ""]
    shrink: Float[Array, ""]  # what dual averaging shrinks towards, log(10 ε) at its start
    error: Float[Array, ""]
    updates: Float[Array, ""]
    scale: Float[Array, " d"]
    draws: Float[Array, ""]
    mean: Float[Array, " d"]
    squares: Float[Array, " d"]


class _WarmInfo(NamedTuple):
    acceptance: Float[Array, ""]
    divergent: Float[Array, ""]
    step_size: Float[Array, ""]


class _WarmUp(Kernel):
    """A step of all chains, then one of dual averaging; at the end of a window the scale."""

    law: ClassVar[Law] = Law("none")
    kernel: Any
    target: Float[Array, ""]
    power: int = eqx.field(static=True)

    def init(self, key: PRNGKeyArray, x: Float[Array, "chains d"]) -> _Pooled:
        step_size, scale = (jnp.asarray(leaf, x.dtype) for leaf in _taken(self.kernel))
        log_step = jnp.log(step_size) / self.power
        zero = jnp.zeros((), x.dtype)
        scale = jnp.broadcast_to(scale, x.shape[1:])
        averaging = (log_step, log_step, log_step + math.log(10), zero, zero)
        return _Pooled(Many(self.kernel).init(key, x), *averaging, scale, zero, zero * scale, zero * scale)

    def noise(self, key: PRNGKeyArray, state: _Pooled) -> PRNGKeyArray:
        return key

    def move(self, state: _Pooled, noise: PRNGKeyArray, input: Any) -> tuple[_Pooled, _WarmInfo]:
        counts, ends = input[0], input[1]
        step_size = jnp.exp(self.power * state.log_step)
        chains, info = Many(_put(self.kernel, step_size, state.scale)).step(noise, state.state)
        acceptance = jnp.mean(info.acceptance)
        state = _averaged(state._replace(state=chains), self.target - acceptance)
        gathered = _gathered(state, chains.position)
        state = jax.tree.map(lambda a, b: jnp.where(counts, a, b), gathered, state)
        state = jax.tree.map(lambda a, b: jnp.where(ends, a, b), _rescaled(state), state)
        return state, _WarmInfo(acceptance, jnp.mean(info.divergent), step_size)


def _averaged(state: _Pooled, error: Array) -> _Pooled:
    """One step of dual averaging: u = shrink − (√t/γ) mean error; the average of u with weights t^−κ."""
    updates = state.updates + 1
    rate = 1 / (updates + T0)
    mean = (1 - rate) * state.error + rate * error
    log_step = state.shrink - jnp.sqrt(updates) / GAMMA * mean
    weight = updates**-KAPPA
    average = weight * log_step + (1 - weight) * state.log_average
    return state._replace(log_step=log_step, log_average=average, error=mean, updates=updates)


def _gathered(state: _Pooled, x: Array) -> _Pooled:
    """The window's moments with one more draw of every chain (Chan, Golub & LeVeque 1983)."""
    chains, centre = x.shape[0], jnp.mean(x, axis=0)
    draws = state.draws + chains
    away = centre - state.mean
    squares = state.squares + jnp.sum((x - centre) ** 2, axis=0) + away**2 * state.draws * chains / draws
    return state._replace(draws=draws, mean=state.mean + away * chains / draws, squares=squares)


def _rescaled(state: _Pooled) -> _Pooled:
    """The scale of the window, moments and dual averaging begun anew.

    The step shrinks by the largest growth of the scale, so that the stiffest coordinate stays as stable as it was.
    """
    variance = state.squares / jnp.maximum(state.draws - 1, 1)
    usable = jnp.isfinite(variance) & (variance > 0)
    variance = jnp.where(usable, variance, state.scale**2)  # a coordinate in which no chain moved
    # In logarithms: an added constant, as Stan's, would drown a coordinate a thousand times narrower than the others
    each = jnp.log(variance)
    log_variance = (state.draws * each + PSEUDO_DRAWS * jnp.mean(each)) / (state.draws + PSEUDO_DRAWS)
    scale = jnp.exp(0.5 * log_variance)
    log_step = state.log_average - jnp.log(jnp.max(scale / state.scale))
    zero = jnp.zeros_like(state.updates)
    averaging = (log_step, log_step, log_step + math.log(10), zero, zero)
    return _Pooled(state.state, *averaging, scale, zero, zero * scale, zero * scale)


@compile_small
def _start(kernel: Any, key: PRNGKeyArray, positions: Array, power: int) -> _Pooled:
    return _WarmUp(kernel, jnp.zeros(()), power).init(key, positions)


def _check_start(log_density: np.ndarray) -> None:
    bad = np.flatnonzero(~np.isfinite(log_density))
    if bad.size:
        raise UsageError(
            f"the log density is {log_density[bad[0]]} at the start of {bad.size} of {log_density.size} chains",
            f"first: chain {bad[0]}",
            "A chain cannot leave a place without density",
            "start the chains where the log density is finite",
        )


def _adaptable(kernel: Kernel, dim: int) -> tuple[Any, int, float]:
    """The kernel whose acceptance is adapted, the power of ε that its step size is, and the textbook's acceptance."""
    if isinstance(kernel, RandomWalk):
        return kernel, 2, 0.44 if dim == 1 else 0.234
    if isinstance(kernel, MetropolisLangevin):
        return kernel, 2, 0.574
    if isinstance(kernel, Langevin):
        return MetropolisLangevin(kernel.log_density, kernel.step_size, kernel.scale), 2, 0.95
    if isinstance(kernel, UnderdampedLangevin):
        return MetropolisLangevin(kernel.log_density, kernel.step_size**2, kernel.scale), 2, 0.95
    if isinstance(kernel, HamiltonianMonteCarlo | NoUTurn):
        return kernel, 1, 0.8
    raise UsageError(
        f"{type(kernel).__name__} has no acceptance to adapt a step size to",
        do="choose step_size yourself, or warm up RandomWalk, MetropolisLangevin, HamiltonianMonteCarlo or NoUTurn",
    )


def _taken(kernel: Any) -> tuple[Array, Array]:
    """Step size and scale of a kernel."""
    if isinstance(kernel, NoUTurn):
        inverse = kernel.inverse_mass_matrix
        return kernel.step_size, jnp.sqrt(jnp.diagonal(inverse) if inverse.ndim == 2 else inverse)
    return kernel.step_size, kernel.scale


def _put(kernel: Any, step_size: Array, scale: Array) -> Any:
    """The kernel with this step size and scale."""
    if isinstance(kernel, NoUTurn):
        return dataclasses.replace(kernel, step_size=step_size, inverse_mass_matrix=scale**2)
    return dataclasses.replace(kernel, step_size=step_size, scale=scale)
