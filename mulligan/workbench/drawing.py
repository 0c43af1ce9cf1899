"""Samplers by name, and chains drawn with them: warm-up, then thousands of chains in one compiled loop.

Warm-up is kept apart (``WarmUp``): its draws are thrown away, its numbers can be used again. The draws of a run that broke
are those before the break: nothing that leaves is not finite.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from mulligan.core import Kernel, Law
from mulligan.errors import FitError
from mulligan.loop import compile_small, run
from mulligan.samplers.adaptation import Tuned, retune, warm_up
from mulligan.samplers.gibbs import Gibbs, GibbsWithGradients
from mulligan.samplers.hmc import HamiltonianMonteCarlo
from mulligan.samplers.langevin import Langevin, MetropolisLangevin, UnderdampedLangevin
from mulligan.samplers.many import Many, Thinned, law_of
from mulligan.samplers.metropolis import RandomWalk
from mulligan.samplers.nuts import NoUTurn
from mulligan.samplers.path import LogDensity
from mulligan.workbench.talk import Talk
from mulligan.workbench.target import Target

FIRST_STEP = 0.1
ROOM = 50_000_000  # numbers that one chunk of a run may hold
FRICTION = 1.0
DOUBLINGS = 10  # of a NUTS trajectory: BlackJAX's and Stan's bound


@dataclass(frozen=True)
class Method:
    """A sampler as people name it: what it is, what it needs, and how its kernel is made from (log density, settings).

    ``ladder`` says that it walks the path from a reference to the law, which is also what finds log Z.
    """

    help: str
    make: Callable[[LogDensity, Settings], Kernel]
    by_gradient: bool = True
    discrete: bool = False
    ladder: bool = False


@dataclass(frozen=True)
class Settings:
    """Sizes of a run: ``chains``, ``draws`` of each that are kept (every ``thin``-th), ``warm_up`` steps before them.

    ``step_size`` replaces the adapted one, ``acceptance`` the textbook's that it adapts to; ``leapfrogs`` of an HMC
    trajectory; ``rungs`` of a ladder (None: as many as the barrier asks for); ``inside``, the kernel on the rungs;
    ``levels`` of discrete states; ``dim``.
    """

    chains: int = 16
    draws: int = 1000
    warm_up: int = 500
    thin: int = 1
    step_size: float | None = None
    acceptance: float | None = None
    leapfrogs: int = 10
    rungs: int | None = None
    inside: str = "hmc"
    levels: int = 0
    dim: int = 0

    @property
    def first_step(self) -> Array:
        """The step size before any adaptation."""
        return jnp.asarray(FIRST_STEP if self.step_size is None else self.step_size)


@dataclass(frozen=True)
class WarmUp:
    """What a warm-up found: hand it to ``sample_density(warm_up=…)`` to draw on without one.

    ``positions`` where the chains ended, ``tuned`` numbers of a plain sampler, ``ladder`` of one that has rungs.
    """

    sampler: str
    positions: np.ndarray
    tuned: Tuned | None = None
    ladder: Any = None
    seconds: float = 0.0


@dataclass(frozen=True)
class Drawn:
    """What came out: ``z`` (chains, draws, d), ``statistics`` each (chains, draws), and how it was made.

    ``stopped`` is the sentence of a run that broke. ``log_z`` and ``weights_ess`` where the method has such.
    """

    z: np.ndarray
    statistics: dict[str, np.ndarray]
    law: Law
    strokes: float
    warm_up: WarmUp
    stopped: str | None = None
    seconds: float = 0.0
    log_z: Any = None
    weights_ess: float | None = None
    remarks: dict[str, Any] = field(default_factory=dict)


def _nuts(log_density: LogDensity, s: Settings) -> Kernel:
    return NoUTurn(log_density, s.first_step, jnp.ones(s.dim), DOUBLINGS)


def _hmc(log_density: LogDensity, s: Settings) -> Kernel:
    return HamiltonianMonteCarlo(log_density, s.first_step, s.leapfrogs)


def _mala(log_density: LogDensity, s: Settings) -> Kernel:
    return MetropolisLangevin(log_density, s.first_step)


def _langevin(log_density: LogDensity, s: Settings) -> Kernel:
    return Langevin(log_density, s.first_step)


def _underdamped(log_density: LogDensity, s: Settings) -> Kernel:
    return UnderdampedLangevin(log_density, s.first_step, jnp.asarray(FRICTION))


def _random_walk(log_density: LogDensity, s: Settings) -> Kernel:
    return RandomWalk(log_density, s.first_step)


def _gibbs(log_density: LogDensity, s: Settings) -> Kernel:
    return Gibbs(log_density, s.levels)


def _gibbs_with_gradients(log_density: LogDensity, s: Settings) -> Kernel:
    return Thinned(GibbsWithGradients(log_density, s.levels), s.dim)  # one change a site, as a sweep has


INSIDE: dict[str, Callable[[LogDensity, Settings], Kernel]] = {"hmc": _hmc, "mala": _mala, "random-walk": _random_walk}


def _inside(log_density: LogDensity, s: Settings) -> Kernel:
    return _gibbs(log_density, s) if s.levels else INSIDE[s.inside](log_density, s)


METHODS: dict[str, Method] = {
    "nuts": Method("the No-U-Turn sampler: finds the length of its trajectories itself", _nuts),
    "hmc": Method("Hamiltonian Monte Carlo with jittered trajectories", _hmc),
    "mala": Method("Langevin with a Metropolis test", _mala),
    "langevin": Method("unadjusted Langevin: biased by its step size", _langevin),
    "underdamped": Method("kinetic Langevin (BAOAB): biased by its step size, less so", _underdamped),
    "random-walk": Method("random-walk Metropolis: needs no gradient", _random_walk, by_gradient=False),
    "tempering": Method("parallel tempering: many modes, and log Z", _inside, ladder=True),
    "annealed": Method("annealed importance sampling: weighted draws, and log Z", _inside, ladder=True),
    "gibbs": Method("site by site from its conditional law", _gibbs, by_gradient=False, discrete=True),
    "gibbs-with-gradients": Method("sites chosen by the gradient", _gibbs_with_gradients, discrete=True),
}


class Draw(NamedTuple):
    """Info of a step that keeps where the chain is."""

    position: Float[Array, " d"]
    info: Any


class Recorded(Kernel):
    """A kernel whose info holds the position of its new state: so a run's history is its draws.

    >>> kernel = Recorded(RandomWalk(lambda x: -0.5 * jnp.sum(x**2), 1.0))
    >>> state = kernel.init(jax.random.key(0), jnp.zeros(2))
    >>> kernel.step(jax.random.key(1), state)[1].position.shape
    (2,)
    """

    law: ClassVar[Law] = Law("none")
    kernel: Kernel

    def init(self, key: PRNGKeyArray, x: Any) -> Any:
        """The kernel's own."""
        return self.kernel.init(key, x)

    def noise(self, key: PRNGKeyArray, state: Any) -> Any:
        """The kernel's own."""
        return self.kernel.noise(key, state)

    def move(self, state: Any, noise: Any, input: Any) -> tuple[Any, Draw]:
        """The kernel's own, told with its position."""
        state, info = self.kernel.move(state, noise, input)
        return state, Draw(state.position, info)


@compile_small
def begin(kernel: Kernel, key: PRNGKeyArray, positions: Array) -> Any:
    """The state at these positions (chains, …), compiled."""
    return kernel.init(key, positions)


def draw_plain(
    name: str,
    target: Target,
    starts: np.ndarray,
    settings: Settings,
    key: PRNGKeyArray,
    again: WarmUp | None = None,
    talk: Talk | None = None,
) -> Drawn:
    """Chains of one kernel on the law itself, from ``starts`` z (chains, d).

    ``again`` is an earlier warm-up. With a step size given nothing is adapted: the first ``warm_up`` steps are dropped.
    Raises FitError where the warm-up broke down.
    """
    kernel: Any = METHODS[name].make(target.flat, settings)
    clock, dropped, tuned = time.perf_counter(), 0, None
    key_warm, key_init, key_run = jax.random.split(key, 3)
    if again is not None:
        tuned, starts = again.tuned, enough(again.positions, settings.chains)
        kernel = kernel if tuned is None else retune(kernel, tuned)
    elif settings.step_size is None and not target.discrete and settings.warm_up:
        kernel, tuned = _warmed(kernel, key_warm, starts, settings, target)
        starts = tuned.positions
    else:
        dropped = -(-settings.warm_up // settings.thin)
    warmed = time.perf_counter() - clock
    lifted = Many(Recorded(Thinned(kernel, settings.thin) if settings.thin > 1 else kernel))
    state = begin(lifted, key_init, jnp.asarray(starts))
    recorded = record(lifted, key_run, state, dropped + settings.draws, name, talk)
    kept = min(dropped, max(recorded.z.shape[1] - 1, 0))  # of a run that broke in its warm-up, the last draw
    statistics = {name: values[:, kept:] for name, values in recorded.statistics.items()}
    return Drawn(
        recorded.z[:, kept:],
        statistics,
        law_of(kernel),
        settings.thin * _strokes(name, settings, statistics),
        WarmUp(name, recorded.z[:, -1], tuned, seconds=warmed),
        recorded.stopped,
        recorded.seconds,
    )


def _warmed(
    kernel: Any, key: PRNGKeyArray, starts: np.ndarray, settings: Settings, target: Target
) -> tuple[Any, Tuned]:
    """The warm-up; where it breaks down the step size or the chains have outgrown all numbers, and that is said."""
    try:
        return warm_up(kernel, key, jnp.asarray(starts), settings.warm_up, settings.acceptance)
    except FitError as error:
        raise FitError(
            "the chains run away: the step size or |x| outgrew all numbers",
            error.where,
            f"That happens where nothing holds a chain back: is exp({target.name}) integrable?",
            "a log density that falls to −inf on all sides, bounds=, or a step size of your own",
        ) from error


class Recording(NamedTuple):
    """A run's draws ``z`` (chains, draws, d), numbers (chains, draws), and how it ended."""

    z: np.ndarray
    statistics: dict[str, np.ndarray]
    others: dict[str, np.ndarray]  # numbers of another shape, (draws, chains, …)
    stopped: str | None
    seconds: float


def record(kernel: Kernel, key: PRNGKeyArray, state: Any, draws: int, phase: str, talk: Talk | None) -> Recording:
    """Run ``Many(Recorded(…))`` and keep every draw; a run without one gives its start. Ctrl-C raises KeyboardInterrupt."""
    here = np.asarray(jax.vmap(lambda one: one.position)(state))
    capacity = int(np.clip(ROOM // (here.size + 16 * len(here)), 1, 512))

    def listener(step: int, steps: int, latest: dict[str, float]) -> None:
        if talk is not None:
            talk.pulse(phase, step, steps, {"acceptance": latest.get("info.acceptance", 1.0)})

    done = run(kernel, key, state, draws, listener=listener, capacity=capacity)
    if done.interrupted:
        raise KeyboardInterrupt(f"stopped at draw {done.step} of {draws} of {phase}; nothing was written")
    told = {name.removeprefix("info."): values for name, values in done.history.items() if name != "position"}
    if done.step:
        z = np.swapaxes(done.history["position"], 0, 1)
    else:
        z, told = here[:, None], {}
    square = {name: values.T for name, values in told.items() if values.ndim == 2}
    others = {name: values for name, values in told.items() if values.ndim != 2}
    stopped = None if done.healthy else str(done.stopped).replace("info.info.", "").replace("info.position", "position")
    return Recording(z, square, others, stopped, done.seconds)


def enough(positions: np.ndarray, chains: int) -> np.ndarray:
    """Positions (n, …): as many positions as chains, repeated where there are fewer."""
    return positions[np.arange(chains) % len(positions)]


def _strokes(name: str, settings: Settings, statistics: dict[str, np.ndarray]) -> float:
    """Evaluations of the log density or its score behind one step of one chain."""
    if name == "nuts":
        return float(np.mean(statistics["leapfrogs"])) if statistics.get("leapfrogs") is not None else 1.0
    if name == "hmc":
        return float(settings.leapfrogs)
    if name == "gibbs":
        return float(settings.dim * settings.levels)
    return float(2 * settings.dim) if name == "gibbs-with-gradients" else 1.0
