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
from mulligan.lab.identity import mean_and_error, monte_carlo
from mulligan.lab.recording import Bars, Field, Panel, Points, Recording, Scale
from mulligan.loop import compile_small
from mulligan.quantity import Quantity
from mulligan.targets.mixture import GaussianMixture

DRAWN = 300  # of the particles


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
    steps: Annotated[int, Range(2, 100)] = 24,
    dt: Annotated[float, Range(0.001, 0.5)] = 0.08,
    seed: int = 0,
) -> Recording:
    """Particles under the gradient half and the noise half in turn, from p = N(0, 0.3² I) and from π itself.

    h(x) = |x|²: the gradient half changes E[h] by Δt E[x·∇ log π] + (Δt²/4) E|∇ log π|², the noise half by Δt d. Parameters:
    ``particles`` n, ``steps``, ``dt`` = Δt. Raises UsageError for a value out of its range.

    >>> from mulligan.lab.experiments.halves import langevin_halves
    >>> langevin_halves(particles=500, steps=3, seed=1).holds
    True
    """
    target, rng = the_target(), np.random.default_rng(seed)
    at_rest = np.asarray(jax.vmap(target.sample)(jax.random.split(jax.random.key(seed), particles)))
    starts = {"away": 0.3 * rng.normal(size=(particles, 2)), "home": at_rest}
    found = {}
    for name, start in starts.items():
        noise = jnp.asarray(rng.normal(size=(steps, particles, 2)))
        walked, pull = _walk(target, jnp.asarray(start), noise, jnp.asarray(dt))
        path = np.concatenate([start[None], np.asarray(walked).reshape(2 * steps, particles, 2)])
        found[name] = (path, np.diff((path**2).sum(axis=-1), axis=0), np.asarray(pull))
    panels = [_particles(title, found[name][0], target) for name, title in _TITLES.items()]
    panels += [_changes(title, found[name][1], dt) for name, title in _TITLES.items()]
    home, change, size = found["home"]
    both = change[::2] + change[1::2]
    remains = 0.25 * dt**2 * size
    average, error = mean_and_error(both[0] - remains[0])
    away, away_error = mean_and_error(found["away"][1][0] + found["away"][1][1])
    return Recording(
        panels=tuple(panels),
        captions=_captions(steps),
        see="At equilibrium the halves of each step undo each other; elsewhere they do not, and the law moves to π.",
        numbers={
            "E|x|² from p": _averages(found["away"][0]),
            "E|x|² from π": _averages(home),
        },
        checks={
            "the halves of the first step from π cancel up to (Δt²/4) E|∇ log π|²": monte_carlo(
                {"sum of both halves": (average, 0.0, error)}
            ),
            "from p they do not: E|x|² grows": monte_carlo(
                {"5 standard errors above 0": (max(0.0, 5 * float(away_error) - float(away)), 0.0, away_error)}
            ),
        },
        rate=3.0,
    )


_TITLES = {"away": "from p = N(0, 0.3² I)", "home": "from π: equilibrium"}


def _particles(title: str, path: np.ndarray, target: GaussianMixture) -> Panel:
    axis = np.linspace(-3.6, 3.6, 49)
    grid = jnp.asarray(np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2))
    density = np.exp(np.asarray(jax.vmap(target.log_prob)(grid))).reshape(1, 49, 49)
    x, y = Scale("x₁", -3.6, 3.6), Scale("x₂", -3.6, 3.6)
    drawn = Points(f"particles {title}", path[:, :DRAWN], role="mark", size=3.0)
    return Panel(title, x, y, (Field("π", axis, axis, density), drawn), square=True, legend=False)


def _changes(title: str, change: np.ndarray, dt: float) -> Panel:
    """The change of E|x|² by each half so far: bars of the latest step, their 95 % intervals."""
    average, error = mean_and_error(np.moveaxis(change, 1, 0))
    both, both_error = mean_and_error(np.moveaxis(change[::2] + change[1::2], 1, 0))
    rows, errors = np.zeros((len(change) + 1, 3)), np.zeros((len(change) + 1, 3))
    for k in range(len(change)):
        rows[k + 1], errors[k + 1] = rows[k], errors[k]
        rows[k + 1, k % 2], errors[k + 1, k % 2] = average[k], error[k]
        if k % 2:
            rows[k + 1, 2], errors[k + 1, 2] = both[k // 2], both_error[k // 2]
    names = ("gradient half", "noise half", "both")
    bars = Bars(f"change of E|x|², {title}", np.arange(3.0), rows, error=errors)
    most = 3.2 * dt
    return Panel(
        f"change of E|x|² in a step, {title}", Scale("", names=names), Scale("change of E|x|²", -most, most), (bars,)
    )


def _averages(path: np.ndarray) -> tuple[Quantity, ...]:
    average, error = mean_and_error(np.moveaxis((path**2).sum(axis=-1), 1, 0))
    return tuple(
        Quantity(float(m), "estimate", float(m - 1.96 * s), float(m + 1.96 * s), stderr=float(s), n=path.shape[1])
        for m, s in zip(average, error)
    )


def _captions(steps: int) -> tuple[str, ...]:
    halves = ("gradient half: x + (Δt/2) ∇ log π(x) squeezes", "noise half: + √Δt e diffuses")
    return ("before the first step", *(f"step {k // 2 + 1}, {halves[k % 2]}" for k in range(2 * steps)))
