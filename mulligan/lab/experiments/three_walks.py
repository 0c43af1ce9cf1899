"""Three walks from one law: Langevin's halves oppose, forward diffusion's both flatten, reverse is two back, one forward.

Definition. From the same p, with its score ∇ log p and a step a: Langevin x + (a/2) ∇ log p + √a e stays at p (equilibrium);
forward x − (a/2) ∇ log p + √a e leaves it twice as fast as noise alone; reverse x + a ∇ log p + √a e goes back. The changes
of E|x|² by the two halves are (−ad, +ad), (+ad, +ad), (−2ad, +ad), since E[x·∇ log p] = −d. Serves the picture of
equilibrium against non-equilibrium, ``diffusion.halves`` and ``diffusion.reverse_sde``.
"""

from __future__ import annotations

from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np

from mulligan.lab.experiment import Range, experiment
from mulligan.lab.experiments.estimates import estimates, halves_of
from mulligan.lab.experiments.halves import the_target
from mulligan.lab.identity import Check, mean_and_error, monte_carlo
from mulligan.lab.recording import Bars, Field, Panel, Points, Recording, Scale
from mulligan.loop import compile_small
from mulligan.targets.noised import NoisedMixture
from mulligan.targets.noising import Walk

START = 0.5  # the time of the law that all three start from
DRAWN = 200
GRID = 49
REACH = 4.5
# name -> (the multiple of a before the score, how far t goes in a step, in units of a)
WALKS: dict[str, tuple[float, float]] = {"Langevin": (0.5, 0.0), "forward": (-0.5, 2.0), "reverse": (1.0, -1.0)}
TITLES = {
    "Langevin": "Langevin: one back, one forward; it stays",
    "forward": "forward: both outward",
    "reverse": "reverse: two back, one forward",
}


@compile_small
def _walk(law: NoisedMixture, start: Any, noise: Any, share: Any, times: Any, a: Any) -> Any:
    """Positions after each half (steps, 2, n, d), and |∇ log p|² where each step starts (steps, n)."""

    def step(x: Any, given: Any) -> Any:
        e, t = given
        score = jax.vmap(lambda at: law.score(at, t))(x)
        pulled = x + share * a * score
        moved = pulled + jnp.sqrt(a) * e
        return moved, (jnp.stack([pulled, moved]), jnp.sum(score**2, axis=-1))

    return jax.lax.scan(step, start, (noise, times))[1]


@compile_small
def _densities(law: NoisedMixture, x: Any, times: Any) -> Any:
    return jnp.exp(jax.vmap(lambda t: jax.vmap(lambda at: law.log_prob(at, t))(x))(times))


@experiment(9, "Equilibrium, forward and reverse, side by side")
def three_walks(
    *,
    particles: Annotated[int, Range(500, 50_000)] = 10_000,
    steps: Annotated[int, Range(2, 12)] = 10,
    a: Annotated[float, Range(0.005, 0.04)] = 0.04,
    seed: int = 0,
) -> Recording:
    """The same particles of p_0.5 in the plane under x + c a ∇ log p + √a e, with c = ½, −½ and 1.

    Each frame is a half step: score, then noise. Parameters: ``particles``; ``steps``; ``a`` = σ²Δt with σ = 1. Raises
    UsageError for a value out of its range. Anderson 1982; Song et al. 2021; Wu's tutorial.

    >>> from mulligan.lab.experiments.three_walks import three_walks
    >>> three_walks(particles=1000, steps=3).holds
    True
    """
    mixture, rng = the_target(), np.random.default_rng(seed)
    law = NoisedMixture(mixture, Walk())
    clean = np.asarray(jax.vmap(mixture.sample)(jax.random.split(jax.random.key(seed), particles)))
    start = clean + np.sqrt(START) * rng.normal(size=clean.shape)
    paths, changes, second, clocks = {}, {}, {}, {}
    noise = jnp.asarray(rng.normal(size=(steps, *start.shape)))  # the same for all three
    for name, (share, pace) in WALKS.items():
        clocks[name] = START + pace * a * np.arange(steps + 1)
        given = (noise, jnp.asarray(share), jnp.asarray(clocks[name][:-1]), jnp.asarray(a))
        walked, size = _walk(law, jnp.asarray(start), *given)
        paths[name] = np.concatenate([start[None], np.asarray(walked).reshape(2 * steps, particles, 2)])
        changes[name] = np.diff((paths[name] ** 2).sum(axis=-1), axis=0)
        second[name] = (share * a) ** 2 * np.asarray(size)
    return Recording(
        panels=(*(_plane(name, paths[name], law, clocks[name]) for name in WALKS), _halves(changes, a)),
        captions=_captions(steps, clocks),
        see="The noise half is the same in all three; the size and sign of the score half decide where the law goes.",
        numbers={f"E|x|², {name}": estimates((path**2).sum(axis=-1)) for name, path in paths.items()},
        checks=_checks(changes, second, paths, clocks, a),
        rate=3.0,
    )


def _stated(a: float) -> dict[str, tuple[float, float]]:
    """The changes of E|x|² by the halves, to first order."""
    return {name: (-2 * 2 * share * a, 2 * a) for name, (share, _) in WALKS.items()}


def _checks(
    changes: dict[str, np.ndarray],
    second: dict[str, np.ndarray],
    paths: dict[str, np.ndarray],
    clocks: dict[str, np.ndarray],
    a: float,
) -> dict[str, Check]:
    first: dict[str, tuple[Any, Any, Any]] = {}
    ends: dict[str, tuple[Any, Any, Any]] = {}
    mixture = the_target()
    at_zero = float(jnp.trace(mixture.covariance) + mixture.mean @ mixture.mean)
    for name, stated in _stated(a).items():
        for half, parts in enumerate((changes[name][0] - second[name][0], changes[name][1])):
            mean, error = mean_and_error(parts)
            first[f"{name}, {('score', 'noise')[half]} half"] = (mean, stated[half], error)
        mean, error = mean_and_error((paths[name][-1] ** 2).sum(axis=-1) - second[name].sum(axis=0))
        ends[name] = (mean, at_zero + 2 * clocks[name][-1], error)
    return {
        "the first step's halves change E|x|² by −2cad and +ad (up to c²a² E|∇ log p|²)": monte_carlo(first),
        "E|x|² at the end is that of p at t, t + 2a and t − a a step": monte_carlo(ends),
    }


def _captions(steps: int, clocks: dict[str, np.ndarray]) -> tuple[str, ...]:
    lines = [f"all three start from the same particles of p at t = {START}. Blue: the law where each walk will end"]
    for k in range(steps):
        lines.append(f"step {k + 1}, score half: Langevin and reverse pull inward, forward pushes outward")
        there = ", ".join(f"{name} {clock[k + 1]:.2f}" for name, clock in clocks.items())
        lines.append(f"step {k + 1}, noise half: the same jumps √a e in all three. Now t is: {there}")
    return tuple(lines)


def _plane(name: str, path: np.ndarray, law: NoisedMixture, clock: np.ndarray) -> Panel:
    """The particles over the law where the walk ends, so that one sees where it goes."""
    axis = np.linspace(-REACH, REACH, GRID)
    grid = jnp.asarray(np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2))
    density = np.asarray(_densities(law, grid, jnp.asarray(clock[-1:]))).reshape(1, GRID, GRID)
    x, y = Scale("x₁", -REACH, REACH), Scale("x₂", -REACH, REACH)
    layers = (
        Field(f"p where it ends, {name}", axis, axis, density, low=0.0, high=0.2),
        Points(f"particles, {name}", path[:, :DRAWN], "mark", 3.0),
    )
    return Panel(TITLES[name], x, y, layers, square=True, legend=False)


def _halves(changes: dict[str, np.ndarray], a: float) -> Panel:
    """The change of E|x|² by each half of the latest step, with 95 % intervals, and what is stated."""
    found = {name: halves_of(change) for name, change in changes.items()}
    layers: list[Any] = []
    for k, (half, role) in enumerate({"score half": "model", "noise half": "mark", "sum so far": "ink"}.items()):
        at = np.arange(3.0) + 0.27 * (k - 1)
        means, errors = (np.stack([found[name][i][:, k] for name in changes], axis=1) for i in range(2))
        layers.append(Bars(half, at, means, role, errors, 0.25))  # type: ignore[arg-type]
    at = np.array(
        [[[k + 0.27 * (half - 1), value[half]] for half in range(2)] for k, value in enumerate(_stated(a).values())]
    )
    layers.append(Points("stated", at.reshape(1, -1, 2), "data", 5.0, 1.0))
    axes = Scale("walk", -0.6, 2.6, names=tuple(changes)), Scale("change of E|x|² in the latest step", -5 * a, 8 * a)
    return Panel("what each half did", *axes, tuple(layers))
