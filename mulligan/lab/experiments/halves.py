"""Langevin's two halves: the gradient half squeezes, the noise half diffuses; at equilibrium they cancel.

Definition. x + (Δt/2) ∇ log π(x) changes E[h] by (Δt/2) E_p[∇h·∇ log π], and + √Δt e by (Δt/2) E_p[h″]; here h(x) = x². At
p = π the first is −(Δt/2) E_π[h″], so the sum is 0 within its error; from another p it is not, and p moves towards π.
Serves ``langevin.squeeze``, ``langevin.diffuse`` and the notes' picture of the two halves.
"""

from __future__ import annotations

from typing import Annotated

import jax
import jax.numpy as jnp
import numpy as np

from mulligan.lab.experiment import Range, experiment
from mulligan.lab.experiments.estimates import estimates, halves_of
from mulligan.lab.identity import excess, mean_and_error, monte_carlo, rounding
from mulligan.lab.recording import Bars, Field, Panel, Paths, Points, Recording, Scale
from mulligan.loop import compile_small
from mulligan.targets.mixture import GaussianMixture

DRAWN = 200  # of the particles
START = 0.3  # standard deviation of p


def the_target() -> GaussianMixture:
    """π: two hills of the plane, unequal.

    >>> the_target().dim
    2
    """
    covariances = [[[0.5, 0.1], [0.1, 0.4]], [[0.6, -0.2], [-0.2, 0.5]]]
    return GaussianMixture.from_covariances([0.6, 0.4], [[-1.2, -0.5], [1.3, 0.7]], covariances)


@compile_small
def _walk(target: GaussianMixture, start: jax.Array, noise: jax.Array, dt: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Positions after each half (steps, 2, n, d), and |∇ log π|² where each step starts (steps, n)."""
    score = jax.vmap(jax.grad(target.log_prob))

    def step(x: jax.Array, e: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
        pull = score(x)
        squeezed = x + 0.5 * dt * pull
        return squeezed + jnp.sqrt(dt) * e, (
            jnp.stack([squeezed, squeezed + jnp.sqrt(dt) * e]),
            jnp.sum(pull**2, axis=-1),
        )

    return jax.lax.scan(step, start, noise)[1]


@experiment(7, "Langevin's two halves: squeeze and diffuse")
def langevin_halves(
    *,
    particles: Annotated[int, Range(100, 50_000)] = 5000,
    steps: Annotated[int, Range(2, 100)] = 18,
    dt: Annotated[float, Range(0.001, 0.5)] = 0.1,
    seed: int = 0,
) -> Recording:
    """Particles under the gradient half and the noise half in turn, from p = N(0, 0.3² I) and from π itself.

    h(x) = |x|²: the gradient half changes E[h] by Δt E[x·∇ log π] + (Δt²/4) E|∇ log π|², the noise half by Δt d. Parameters:
    ``particles`` n, ``steps``, ``dt`` = Δt. Raises UsageError for a value out of its range. Fokker 1914; Planck 1917.

    >>> from mulligan.lab.experiments.halves import langevin_halves
    >>> langevin_halves(particles=500, steps=3, seed=1).holds
    True
    """
    target, rng = the_target(), np.random.default_rng(seed)
    at_rest = np.asarray(jax.vmap(target.sample)(jax.random.split(jax.random.key(seed), particles)))
    starts = {"away": START * rng.normal(size=(particles, 2)), "home": at_rest}
    found = {}
    for name, start in starts.items():
        noise = jnp.asarray(rng.normal(size=(steps, particles, 2)))
        walked, pull = _walk(target, jnp.asarray(start), noise, jnp.asarray(dt))
        path = np.concatenate([start[None], np.asarray(walked).reshape(2 * steps, particles, 2)])
        found[name] = (path, np.diff((path**2).sum(axis=-1), axis=0), np.asarray(pull))
    home, change, size = found["home"]
    average, error = mean_and_error(change[0] + change[1] - 0.25 * dt**2 * size[0])
    away, away_error = mean_and_error(found["away"][1][0] + found["away"][1][1])
    panels = [_particles(name, found[name][0], target) for name in found]
    panels += [_changes(name, found[name][1], 3.2 * dt) for name in found]
    return Recording(
        panels=tuple(panels),
        captions=_captions(steps),
        see="At equilibrium the halves of each step undo each other; elsewhere they do not, and the law moves to π.",
        numbers={
            "E|x|² from p": estimates((found["away"][0] ** 2).sum(axis=-1)),
            "E|x|² from π": estimates((home**2).sum(axis=-1)),
        },
        checks={
            "the halves of the first step from π cancel up to (Δt²/4) E|∇ log π|²": monte_carlo(
                {"sum of both halves": (average, 0.0, error)}
            ),
            "from p they do not: E|x|² grows": rounding(
                {"5 standard errors above 0": (excess(5 * away_error, away), 0.0)}
            ),
        },
        rate=3.0,
    )


_FROM = {"away": "from p", "home": "from π"}
_TITLES = {"away": "from p (95 % of it in the circle); blue: π", "home": "from π itself (blue): equilibrium"}


def _particles(name: str, path: np.ndarray, target: GaussianMixture) -> Panel:
    """The particles over π, and where they start."""
    axis = np.linspace(-3.6, 3.6, 49)
    grid = jnp.asarray(np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2))
    density = np.exp(np.asarray(jax.vmap(target.log_prob)(grid))).reshape(1, 49, 49)
    x, y = Scale("x₁", -3.6, 3.6), Scale("x₂", -3.6, 3.6)
    layers = [Field("π", axis, axis, density), Points(f"particles {_FROM[name]}", path[:, :DRAWN], "mark", 3.0)]
    if name == "away":
        turn = np.linspace(0, 2 * np.pi, 49)
        circle = START * np.sqrt(-2 * np.log(0.05)) * np.stack([np.cos(turn), np.sin(turn)], axis=-1)
        layers.append(Paths("p: 95 % of it", circle[None], np.array([49.0]), role="ink"))
    return Panel(_TITLES[name], x, y, tuple(layers), square=True, legend=False)


def _changes(name: str, change: np.ndarray, most: float) -> Panel:
    """The change of E|x|² by each half of the latest step, with 95 % intervals."""
    means, errors = halves_of(change)
    bars = tuple(
        Bars(f"{half}, {_FROM[name]}", np.array([float(k)]), means[:, k : k + 1], role, errors[:, k : k + 1])  # type: ignore[arg-type]
        for k, (half, role) in enumerate({"gradient half": "model", "noise half": "mark", "sum": "ink"}.items())
    )
    names = ("gradient half", "noise half", "sum so far")
    axes = Scale("part of the latest step", -0.6, 2.6, names=names), Scale("change of E|x|²", -most, most)
    return Panel(f"what the latest step did, {_FROM[name]}", *axes, bars, legend=False)


def _captions(steps: int) -> tuple[str, ...]:
    halves = (
        "gradient half, x + (Δt/2) ∇ log π(x): both clouds are squeezed towards the tops",
        "noise half, + √Δt e: both spread again. On the right it gives back what the squeeze took",
    )
    return ("before the first step", *(f"step {k // 2 + 1}, {halves[k % 2]}" for k in range(2 * steps)))
