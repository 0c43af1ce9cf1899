"""Forward diffusion by halves: the random half flattens, the deterministic half flattens as much, both go twice as far.

Definition. With a = σ²Δt the random half x + √a e carries p_t to p_{t+Δt} exactly, the deterministic half
x − (a/2) ∇ log p_t(x) does so up to O(a²); one after the other lands at t + 2Δt. Each adds a to E x², where Langevin's two
have opposite signs. p_t is the library's noised mixture. Serves ``diffusion.halves``.
"""

from __future__ import annotations

from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np

from mulligan.lab.experiment import Range, experiment
from mulligan.lab.experiments.estimates import Z95, estimates, halves_of
from mulligan.lab.identity import mean_and_error, monte_carlo
from mulligan.lab.recording import Bars, Curve, Panel, Paths, Points, Recording, Scale
from mulligan.loop import compile_small
from mulligan.targets.mixture import GaussianMixture
from mulligan.targets.noised import NoisedMixture
from mulligan.targets.noising import Walk

FIRST = 0.1  # the time at which the recording starts
EDGES = np.linspace(-5.0, 5.0, 41)
LINE = np.linspace(-5.0, 5.0, 201)


def the_data() -> GaussianMixture:
    """p_0: two sharp hills on the line.

    >>> the_data().dim
    1
    """
    return GaussianMixture.from_covariances([0.6, 0.4], [[-1.3], [1.2]], [[[0.1]], [[0.15]]])


@compile_small
def _forward(law: NoisedMixture, start: Any, noise: Any, times: Any) -> Any:
    """Positions (steps, 2, n, 1) after the random and after the deterministic half, and the score of the latter's start."""
    schedule = law.schedule

    def step(x: Any, given: Any) -> Any:
        e, (t, middle, end) = given
        jump = schedule.jump(t, middle)
        noised = jump.scale * x + jnp.sqrt(jump.variance) * e
        score = jax.vmap(lambda at: law.score(at, middle))(noised)
        moved = noised + (end - middle) * (schedule.drift(middle) * noised - 0.5 * schedule.diffusion(middle) * score)
        return moved, (jnp.stack([noised, moved]), score)

    return jax.lax.scan(step, start, (noise, times))[1]


@compile_small
def _densities(law: NoisedMixture, x: Any, times: Any) -> Any:
    return jnp.exp(jax.vmap(lambda t: jax.vmap(lambda at: law.log_prob(at, t))(x))(times))


@experiment(9, "Forward: both halves flatten")
def forward_halves(
    *,
    particles: Annotated[int, Range(500, 50_000)] = 20_000,
    steps: Annotated[int, Range(2, 23)] = 12,
    dt: Annotated[float, Range(0.005, 0.06)] = 0.04,
    seed: int = 0,
) -> Recording:
    """Particles of p_0.1 under x + √a e and x − (a/2) ∇ log p_t(x) in turn, over the exact p_t; each half adds a to E x².

    The walk has σ = 1, so a = Δt. Parameters: ``particles``; ``steps``, of two halves each; ``dt`` = Δt. Raises UsageError
    for a value out of its range. Song et al. 2021; Wu's tutorial, chapter 9.

    >>> from mulligan.lab.experiments.forward import forward_halves
    >>> forward_halves(particles=1000, steps=4).holds
    True
    """
    mixture, rng = the_data(), np.random.default_rng(seed)
    law = NoisedMixture(mixture, Walk())
    clean = np.asarray(jax.vmap(mixture.sample)(jax.random.split(jax.random.key(seed), particles)))
    start = clean + np.sqrt(FIRST) * rng.normal(size=clean.shape)
    times = FIRST + dt * np.arange(2 * steps + 1)
    triples = tuple(jnp.asarray(times[k : k + 2 * steps : 2] if k < 2 else times[2::2]) for k in range(3))
    noise = jnp.asarray(rng.normal(size=(steps, *start.shape)))
    walked, score = _forward(law, jnp.asarray(start), noise, triples)
    path = np.concatenate([start[None], np.asarray(walked).reshape(2 * steps, particles, 1)])[:, :, 0]
    density = np.asarray(_densities(law, jnp.asarray(LINE[:, None]), jnp.asarray(times)))
    change = np.diff(path**2, axis=0)
    second = 0.25 * dt**2 * np.asarray(score)[:, :, 0] ** 2  # what the deterministic half adds beyond a
    exact = float(mixture.covariance[0, 0] + mixture.mean[0] ** 2) + times
    end, end_error = mean_and_error(path[-1] ** 2 - second.sum(axis=0))
    means, errors = zip(*(mean_and_error(change[k] - (second[k // 2] if k % 2 else 0.0)) for k in range(2)))
    return Recording(
        panels=(_histogram(path, density), _changes(change, dt), _moment(path, times, exact)),
        captions=_captions(times),
        see="Random or deterministic, each half carries p_t one Δt onward: both flatten, and together go twice as far.",
        numbers={"E x²": estimates(path**2)},
        checks={
            "each half adds a to E x² (the second up to (a²/4) E|∇ log p|²)": monte_carlo(
                {"random": (means[0], dt, errors[0]), "deterministic": (means[1], dt, errors[1])}
            ),
            "after all steps E x² is that of p at twice the time": monte_carlo(
                {"t + 2 Δt a step": (end, exact[-1], end_error)}
            ),
        },
        rate=3.0,
    )


def _captions(times: np.ndarray) -> tuple[str, ...]:
    halves = ("random half, x + √a e", "deterministic half, x − (a/2) ∇ log p(x)")
    return (
        f"t = {times[0]:.2f}: particles of p_t (bars) and p_t itself (line)",
        *(
            f"{halves[k % 2]}: now t = {t:.2f}, and the bars follow p of that time, lower and wider"
            for k, t in enumerate(times[1:])
        ),
    )


def _histogram(path: np.ndarray, density: np.ndarray) -> Panel:
    """The particles against the exact p_t of the time that they should have reached."""
    width = EDGES[1] - EDGES[0]
    share = np.stack([np.histogram(row, EDGES)[0] for row in path]) / path.shape[1]
    error = np.sqrt(share * (1 - share) / path.shape[1]) / width
    layers = (
        Curve("p where it started", LINE, density[:1], "data", dashed=True),
        Bars("particles", 0.5 * (EDGES[1:] + EDGES[:-1]), share / width, "model", error, width),
        Curve("exact p_t", LINE, density, "ink"),
    )
    return Panel("the law", Scale("x", -5.0, 5.0), Scale("density", 0.0, 0.72), layers)


def _changes(change: np.ndarray, dt: float) -> Panel:
    """The change of E x² by each half of the latest step, with 95 % intervals, and what is stated."""
    means, errors = halves_of(change)
    bars = tuple(
        Bars(half, np.array([float(k)]), means[:, k : k + 1], role, errors[:, k : k + 1])  # type: ignore[arg-type]
        for k, (half, role) in enumerate({"random half": "mark", "deterministic half": "model", "sum": "ink"}.items())
    )
    stated = Curve("stated: +a", np.array([-0.5, 1.5]), np.full((1, 2), dt), "data", dashed=True)
    both = Curve("stated: +2a", np.array([1.5, 2.5]), np.full((1, 2), 2 * dt), "data", dashed=True)
    axes = (
        Scale("part of the latest step", -0.6, 2.6, names=("random", "deterministic", "sum so far")),
        Scale("change of E x²", -dt, 3.4 * dt),
    )
    return Panel("both add; dashed: +a, +a, +2a", *axes, (*bars, stated, both), legend=False)


def _moment(path: np.ndarray, times: np.ndarray, exact: np.ndarray) -> Panel:
    """E x² as it goes on, against that of p_t."""
    mean, error = mean_and_error(path.T**2)
    now = np.stack([times, mean], axis=-1)
    band = {"low": (exact - Z95 * error)[None], "high": (exact + Z95 * error)[None]}
    layers = (
        Curve("exact, ± the error of the particles", times, exact[None], "ink", **band),  # type: ignore[arg-type]
        Paths("particles", now[None], np.arange(1.0, len(times) + 1), "mark", 1.6, 0.9),
        Points("now", now[:, None], "mark", 8.0, 0.7),
    )
    low, high = float(exact[0]), float(exact[-1])
    return Panel(
        "E x² grows by a with each half", Scale("t"), Scale("E x²", low - 0.2, high + 0.6 * (high - low)), layers
    )
