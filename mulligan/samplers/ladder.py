"""The ladder of parallel tempering: betas with equal rejection of exchanges, and a step size for each rung.

Definition. With r_k the mean rejection of exchanges between rungs k and k + 1, Λ(β_k) = r_0 + … + r_{k−1} estimates the
communication barrier, which belongs to the path and not to the ladder; rungs at equal steps of Λ reject equally and carry
replicas fastest, and 2Λ + 1 of them are best for a given total of work (Syed, Bouchard-Côté, Deligiannidis and Doucet
2022). A ladder that is being tuned keeps no law: what was drawn here is thrown away. Theory: ``tempering.slow``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from mulligan.core import Kernel, Law
from mulligan.errors import FitError
from mulligan.loop import compile_small, run
from mulligan.samplers.many import Many
from mulligan.samplers.tempering import ParallelTempering, Replicas, TemperingMove, retempered

FIRST_RUNGS, MOST_RUNGS = 12, 128
HIGHEST_REJECTION = 0.75  # between any two rungs of a ladder whose number of rungs is ours to choose
LEAST_BETA = 1e-4  # second rung of the first ladder: references are much wider than their targets


@dataclass(frozen=True)
class Ladder:
    """What a tuning found: give it to ``climb`` to sample again without one.

    ``betas`` (K,), ``step_sizes`` (K,) or None, ``rejection`` (K − 1,) of exchanges and inner ``acceptance`` (K,) in the
    last round, ``barrier`` Λ, ``positions`` (sets, K, d) where the replicas ended, ``steps`` taken in all.
    """

    betas: np.ndarray
    step_sizes: np.ndarray | None
    rejection: np.ndarray
    acceptance: np.ndarray
    barrier: float
    positions: np.ndarray
    steps: int


def tune_ladder(
    kernel: Any,
    key: PRNGKeyArray,
    positions: Float[Array, "sets d"],
    *,
    rungs: int | None = None,
    rounds: int = 6,
    steps: int = 32,
    every: int = 1,
    acceptance: float | None = None,
) -> tuple[ParallelTempering, Ladder]:
    """The tempering of a kernel with its ladder tuned, pooled over independent sets of replicas, and what was found.

    ``steps``, 2 ``steps``, … in ``rounds`` rounds; after each, rungs move to equal steps of Λ. With ``acceptance`` the step
    size of each rung follows its inner acceptance to that number; None leaves the kernel's own. ``rungs=None``: 2Λ + 2 of
    them. The kernel's ``log_density`` is a ``Path``.

    Raises FitError where a chain became non-finite.

    >>> from mulligan.samplers.path import Path, StandardNormal
    >>> from mulligan.samplers.metropolis import RandomWalk
    >>> path = Path(lambda x: -50.0 * jnp.sum(x**2), StandardNormal(1, 1.0))
    >>> starts = jnp.zeros((8, 1))
    >>> tempered, ladder = tune_ladder(RandomWalk(path, 1.0), jax.random.key(0), starts, rungs=4, acceptance=0.44)
    >>> tempered.betas.shape, bool(np.all(np.diff(ladder.step_sizes) < 0))
    ((4,), True)
    """
    count = FIRST_RUNGS if rungs is None else rungs
    betas: Any = np.concatenate([[0.0], np.geomspace(LEAST_BETA, 1.0, count - 1)])
    sizes: Any = None if acceptance is None else np.full(count, float(kernel.step_size))
    taken, places = 0, np.asarray(positions)
    tuning = _tuning(kernel, betas, sizes, every, acceptance)
    for attempt in range(4):
        tuning, ladder = _rounds(tuning, jax.random.fold_in(key, attempt), places, rounds, steps)
        taken += ladder.steps
        wanted = min(MOST_RUNGS, math.ceil(2 * ladder.barrier) + 2)
        worst = float(ladder.rejection.max())
        if rungs is not None or (worst <= HIGHEST_REJECTION and 0.7 * wanted <= count <= 1.5 * wanted):
            break
        if attempt == 3 or (count >= wanted and worst <= HIGHEST_REJECTION):
            break
        # where hardly any exchange is accepted Λ is cut off at one a pair, so the next ladder is generous
        count = min(MOST_RUNGS, max(wanted, 2 * count if worst > HIGHEST_REJECTION else wanted))
        betas, sizes = _moved(ladder.betas, ladder.step_sizes, ladder.rejection, count)
        places = _resettled(ladder.positions, count)
        tuning = _tuning(kernel, betas, sizes, every, acceptance)
    ladder = Ladder(**{**ladder.__dict__, "steps": taken})
    return climb(kernel, ladder, every), ladder


def climb(kernel: Any, ladder: Ladder, every: int = 1) -> ParallelTempering:
    """The tempering of a kernel on a ladder that was tuned before."""
    betas, sizes = jnp.asarray(ladder.betas), None if ladder.step_sizes is None else jnp.asarray(ladder.step_sizes)
    return ParallelTempering(kernel, betas, sizes, every)


class _Tuned(NamedTuple):
    replicas: Replicas
    log_steps: Float[Array, " K"]
    taken: Float[Array, ""]


class _Tuning(Kernel):
    """A step of all sets of replicas, then one of Robbins and Monro for the logarithm of each rung's step size."""

    law: ClassVar[Law] = Law("none")
    sets: Many
    target: Float[Array, ""] | None = eqx.field(converter=lambda t: None if t is None else jnp.asarray(t))

    def init(self, key: PRNGKeyArray, x: Array) -> _Tuned:
        tempered = self.sets.kernel
        sizes = tempered.step_sizes  # type: ignore[attr-defined]
        logs = jnp.zeros(tempered.betas.size) if sizes is None else jnp.log(sizes)  # type: ignore[attr-defined]
        return _Tuned(self.sets.init(key, x), logs.astype(x.dtype), jnp.zeros((), x.dtype))

    def noise(self, key: PRNGKeyArray, state: _Tuned) -> PRNGKeyArray:
        return key

    def move(self, state: _Tuned, noise: PRNGKeyArray, input: Any) -> tuple[_Tuned, TemperingMove]:
        tempered: Any = self.sets.kernel
        if self.target is not None:
            tempered = retempered(tempered, tempered.betas, jnp.exp(state.log_steps))
        replicas, info = Many(tempered).step(noise, state.replicas)
        told = jax.tree.map(lambda leaf: jnp.mean(leaf, axis=0), info)
        logs, taken = state.log_steps, state.taken + 1
        if self.target is not None:
            logs = logs + 2 * (told.rung_acceptance - self.target) / jnp.sqrt(taken)
        return _Tuned(replicas, logs, taken), told


def _tuning(kernel: Any, betas: Any, sizes: Any, every: int, acceptance: Any) -> _Tuning:
    return _Tuning(Many(ParallelTempering(kernel, betas, sizes, every)), acceptance)


@compile_small
def _start(tuning: _Tuning, key: PRNGKeyArray, positions: Array) -> _Tuned:
    return tuning.init(key, positions)


def _rounds(tuning: Any, key: PRNGKeyArray, positions: np.ndarray, rounds: int, steps: int) -> tuple[Any, Ladder]:
    taken = 0
    for number in range(rounds):
        key_init, key_run = jax.random.split(jax.random.fold_in(key, number))
        state = _start(tuning, key_init, jnp.asarray(positions))
        finished = run(tuning, key_run, state, steps << number)
        if not finished.healthy:
            raise FitError("the tuning of the ladder broke down", str(finished.stopped), "A chain is not finite")
        taken += finished.step
        late = slice(finished.step // 2, None)
        rejection = 1 - finished.history["swap_acceptance"][late].mean(axis=0)
        acceptance = finished.history["rung_acceptance"][late].mean(axis=0)
        tempered = tuning.sets.kernel
        betas = np.asarray(tempered.betas, float)
        sizes = None if tuning.target is None else np.exp(np.asarray(finished.state.log_steps, float))
        positions = np.asarray(finished.state.replicas.positions)
        found = Ladder(betas, sizes, rejection, acceptance, float(rejection.sum()), positions, taken)
        if number < rounds - 1:
            betas, sizes = _moved(betas, sizes, rejection, len(betas))
            tuning = _Tuning(Many(retempered(tempered, betas, sizes)), tuning.target)
    return tuning, found


def _moved(
    betas: np.ndarray, sizes: np.ndarray | None, rejection: np.ndarray, count: int
) -> tuple[np.ndarray, np.ndarray | None]:
    """``count`` rungs at equal steps of Λ, with the step sizes that go there; both by interpolation along Λ."""
    barrier = np.concatenate([[0.0], np.cumsum(np.maximum(rejection, 1e-3))])
    places = np.linspace(0.0, barrier[-1], count)
    new = np.interp(places, barrier, betas)
    new[0], new[-1] = 0.0, 1.0
    return new, None if sizes is None else np.exp(np.interp(places, barrier, np.log(sizes)))


def _resettled(positions: np.ndarray, count: int) -> np.ndarray:
    """A start for another number of rungs: each from the old rung at its place."""
    return positions[:, np.round(np.linspace(0, positions.shape[1] - 1, count)).astype(int)]
