"""Tempering: balls exchange modes along a ladder of inverse temperatures, and every rung keeps its law.

Definition. π_β ∝ π^β q^(1−β): rungs at β from 0 (one broad hill q) to 1 (two narrow ones with a wide gap). Neighbours
exchange with probability min(1, exp((β_i − β_j)(f_j − f_i))), f = log π/q. Each ball keeps its colour, that of the hole it
starts in. Serves ``tempering.swap`` and the picture of particles that exchange modes while the law stays π.
"""

from __future__ import annotations

from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mulligan.lab.experiment import Range, experiment
from mulligan.lab.experiments.estimates import Z95, estimates
from mulligan.lab.identity import Check, mean_and_error, monte_carlo, rounding
from mulligan.lab.recording import Bars, Curve, Panel, Paths, Points, Recording, Scale
from mulligan.loop import compile_small
from mulligan.samplers.langevin import MetropolisLangevin
from mulligan.samplers.path import Path, Ratio, StandardNormal
from mulligan.samplers.tempering import ParallelTempering
from mulligan.targets.mixture import GaussianMixture

RIGHT = 0.3  # the share of the right hole
HALF = 3.5  # half the way between the holes
WIDTH = 0.6
LINE = np.linspace(-16.0, 16.0, 3201)
EDGES = np.linspace(-6.0, 6.0, 49)
DRAWN = 30  # sets of balls


def two_holes() -> Path:
    """From q = N(0, 3.5²) to π, two hills 7 apart of width 0.6, the right one with 30 %.

    >>> float(two_holes()(jnp.zeros(1))) < -15
    True
    """
    means, covariances = [[-HALF], [HALF]], [[[WIDTH**2]], [[WIDTH**2]]]
    law = GaussianMixture.from_covariances([1 - RIGHT, RIGHT], means, covariances)
    q = StandardNormal(1, jnp.asarray(HALF))
    return Path(Ratio(law.log_prob, q), q, jnp.ones(()))


class Balls(NamedTuple):
    """``x`` (frames, sets, rungs); ``ball`` (frames, sets, rungs): which ball is there; ``swaps`` (rungs − 1,), accepted;
    ``trips``, whole ones from the hot end to the cold one and back, of a set.

    >>> Balls._fields
    ('x', 'ball', 'swaps', 'trips')
    """

    x: np.ndarray
    ball: np.ndarray
    swaps: np.ndarray
    trips: np.ndarray


@compile_small
def _exchanging(kernel: ParallelTempering, start: Any, key: Any, steps: int) -> Any:
    """Positions and balls after every step, of many sets."""

    def one(x: Any, key: Any) -> Any:
        def step(state: Any, key: Any) -> Any:
            state, info = kernel.step(key, state)
            return state, (state.positions[:, 0], state.replicas, info.swap_acceptance)

        state, told = jax.lax.scan(step, kernel.init(key, x), jax.random.split(key, steps))
        return *told, state.round_trips

    return jax.vmap(one)(start, jax.random.split(key, start.shape[0]))


@compile_small
def _alone(kernel: MetropolisLangevin, start: Any, key: Any, steps: int, every: int) -> Any:
    """Positions of chains at β = 1, as many moves as the exchanging ones make there."""

    def one(x: Any, key: Any) -> Any:
        def step(state: Any, key: Any) -> Any:
            move = lambda i, state: kernel.step(jax.random.fold_in(key, i), state)[0]  # noqa: E731
            state = jax.lax.fori_loop(0, every, move, state)
            return state, state.position[0]

        return jax.lax.scan(step, kernel.init(key, x), jax.random.split(key, steps))[1]

    return jax.vmap(one)(start, jax.random.split(key, start.shape[0]))


@compile_small
def _logs(path: Path, betas: Any, x: Any) -> Any:
    return jax.vmap(lambda beta: jax.vmap(path.at(beta))(x))(betas)


def draws(path: Path, betas: np.ndarray, n: int, rng: np.random.Generator) -> np.ndarray:
    """n exact draws of every π_β by inverse CDF on a grid: (n, rungs).

    >>> draws(two_holes(), np.array([0.0, 1.0]), 3, np.random.default_rng(0)).shape
    (3, 2)
    """
    density = np.exp(np.asarray(_logs(path, jnp.asarray(betas), jnp.asarray(LINE[:, None]))))
    cdf = np.cumsum(density, axis=1) / density.sum(axis=1, keepdims=True)
    half = 0.5 * (LINE[1] - LINE[0])
    return np.stack([np.interp(rng.uniform(size=n), row, LINE + half) for row in cdf], axis=1)


@experiment(8, "Balls exchange modes while the law stays π")
def tempering_swaps(
    *,
    rungs: Annotated[int, Range(2, 9)] = 6,
    steps: Annotated[int, Range(10, 46)] = 40,
    every: Annotated[int, Range(1, 50)] = 5,
    sets: Annotated[int, Range(100, 10_000)] = 2000,
    seed: int = 0,
) -> Recording:
    """Many independent ladders of balls, exchanged with probability min(1, exp((β_i − β_j)(f_j − f_i))), from π_β each.

    Parameters: ``rungs``, β from 0 to 1; ``steps``, each of ``every`` local moves a rung and one round of exchanges;
    ``sets`` of balls. Raises UsageError for a value out of its range. Swendsen and Wang 1986; Geyer 1991.

    >>> from mulligan.lab.experiments.tempering import tempering_swaps
    >>> tempering_swaps(sets=200, steps=12).holds
    True
    """
    path, rng, keys = two_holes(), np.random.default_rng(seed), jax.random.split(jax.random.key(seed))
    betas = np.linspace(0.0, 1.0, rungs) ** 2  # f changes most where β is small
    start = draws(path, betas, sets, rng)
    local = MetropolisLangevin(path, jnp.asarray(0.4))
    widths = 0.4 * np.minimum(1 / np.maximum(betas, 0.05), 8.0)
    kernel = ParallelTempering(local, jnp.asarray(betas), jnp.asarray(widths), every=every, redraw=False)
    x, ball, swaps, trips = map(np.asarray, _exchanging(kernel, jnp.asarray(start[:, :, None]), keys[0], steps))
    frames = lambda first, rest: np.concatenate([first[None], np.moveaxis(rest, 0, 1)])  # noqa: E731
    balls = Balls(
        frames(start, x),
        frames(np.broadcast_to(np.arange(rungs), (sets, rungs)), ball),
        swaps.mean(axis=(0, 1)),
        trips,
    )
    lone = frames(start[:, -1], np.asarray(_alone(local, jnp.asarray(start[:, -1:]), keys[1], steps, every)))
    cold = balls.x[:, :, -1]
    same = {name: (at > 0) == (at[0] > 0) for name, at in (("exchange", cold), ("alone", lone))}
    return Recording(
        panels=(_ladder(balls, betas), _histogram(cold), _shares(cold, same), _travels(balls, lone)),
        captions=tuple(_caption(k, steps, balls) for k in range(steps + 1)),
        see="Colours mix in every hole, so balls have changed sides; the histogram at β = 1 stays where it was.",
        numbers={
            "share in the right hole": estimates(cold > 0),
            "same side as at the start": estimates(same["exchange"]),
            "same side, alone": estimates(same["alone"]),
        },
        checks=_checks(cold, lone, same),
        rate=5.0,
    )


def _checks(cold: np.ndarray, lone: np.ndarray, same: dict[str, np.ndarray]) -> dict[str, Check]:
    share = (cold > 0).mean(axis=1)
    error = np.sqrt(RIGHT * (1 - RIGHT) / cold.shape[1])
    width, width_error = mean_and_error((np.abs(cold.T) - HALF) ** 2)
    moved, moved_error = mean_and_error(same["exchange"][-1])
    return {
        "the right hole keeps its 30 % at every step": monte_carlo({"every step": (share, RIGHT, error)}),
        "so do both holes their width": monte_carlo({"every step": (width, WIDTH**2, width_error)}),
        "with exchange balls change holes": monte_carlo(
            {"5 standard errors": (max(0.0, float(moved + 5 * moved_error) - 1), 0.0, moved_error)}
        ),
        "alone no ball does": rounding({"still in its hole": (same["alone"][-1].mean(), 1.0)}),
    }


def _caption(k: int, steps: int, balls: Balls) -> str:
    if k == 0:
        return "each rung starts at its own law; colour of a ball: the side where it starts, left blue, right orange"
    first = np.take_along_axis(balls.x[0], balls.ball[k], axis=1) > 0
    right = balls.x[k, :, -1] > 0
    return (
        f"step {k}: {np.mean(~first[right, -1]):.0%} of the balls in the right hole at β = 1 "
        "started on the left. The histogram stays."
    )


def _ladder(balls: Balls, betas: np.ndarray) -> Panel:
    """A few sets: x of each ball and the rung that it is on, coloured by its first side."""
    sets, rungs = min(DRAWN, balls.x.shape[1]), betas.size
    place = np.argsort(balls.ball[:, :sets], axis=2)  # of each ball, where it is
    x = np.take_along_axis(balls.x[:, :sets], place, axis=2)
    height = place + np.linspace(-0.3, 0.3, sets)[:, None]
    xy = np.stack([x, height], axis=-1).reshape(len(x), sets * rungs, 2)
    left = (balls.x[0, :sets] <= 0).ravel()
    names = tuple(f"{beta:.2f}" for beta in betas)
    layers = (
        Points("started on the left", xy[:, left], "model", 3.5),
        Points("started on the right", xy[:, ~left], "mark", 3.5),
    )
    axes = Scale("x", -9.0, 9.0), Scale("rung: inverse temperature β", -0.6, rungs - 0.4, names=names)
    return Panel(f"{sets} ladders of {rungs} balls", *axes, layers, legend=False)


def _histogram(cold: np.ndarray) -> Panel:
    """Of all balls that are at β = 1, against π."""
    width = EDGES[1] - EDGES[0]
    share = np.stack([np.histogram(row, EDGES)[0] for row in cold]) / cold.shape[1]
    error = np.sqrt(share * (1 - share) / cold.shape[1]) / width
    line = np.linspace(-6.0, 6.0, 241)
    hills = [np.exp(-0.5 * ((line - m) / WIDTH) ** 2) / (WIDTH * np.sqrt(2 * np.pi)) for m in (-HALF, HALF)]
    layers = (
        Bars("balls at β = 1", 0.5 * (EDGES[1:] + EDGES[:-1]), share / width, "data", error, width),
        Curve("π", line, ((1 - RIGHT) * hills[0] + RIGHT * hills[1])[None], "ink"),
    )
    return Panel(f"all {cold.shape[1]} balls at β = 1", Scale("x", -6.0, 6.0), Scale("density", 0.0, 0.7), layers)


def _shares(cold: np.ndarray, same: dict[str, np.ndarray]) -> Panel:
    """What stays and what changes, with 95 % bands."""
    steps = np.arange(len(cold), dtype=float)
    layers: list[Any] = []
    for name, rows, role in (
        ("same side as at the start, alone", same["alone"], "mark"),
        ("same side as at the start, exchange", same["exchange"], "model"),
        ("in the right hole, exchange", cold > 0, "second"),
    ):
        mean, error = mean_and_error(rows.T)
        band = {"low": (mean - Z95 * error)[None], "high": (mean + Z95 * error)[None]}
        layers.append(Curve(name, steps, mean[None], role, **band))  # type: ignore[arg-type]
    now = np.stack([np.broadcast_to(steps, (3, steps.size)), [layer.y[0] for layer in layers]], axis=-1).swapaxes(0, 1)
    layers.append(Curve("30 %", steps[[0, -1]], np.full((1, 2), RIGHT), "ink", dashed=True))
    layers.append(Points("now", now, "ink", 7.0, 0.5))
    axes = Scale("step"), Scale("share of the sets", 0.0, 1.8)
    return Panel("what stays, what changes at β = 1", *axes, tuple(layers))


def _travels(balls: Balls, lone: np.ndarray) -> Panel:
    """x of one ball over time, wherever it is on the ladder, and of one that is alone at β = 1."""
    way = np.take_along_axis(balls.x, np.argsort(balls.ball, axis=2), axis=2)  # (frames, sets, balls)
    cold_start = way[:, :, -1]
    chosen = int(np.argmax((np.diff(np.sign(cold_start), axis=0) != 0).sum(axis=0) * (cold_start[0] < 0)))
    alone = int(np.argmax(lone[0] < 0))
    steps = np.arange(len(lone), dtype=float)
    shown = steps + 1
    layers = (
        Paths("a ball with exchange", np.stack([steps, cold_start[:, chosen]], axis=-1)[None], shown, "model", 1.3),
        Paths("a ball alone", np.stack([steps, lone[:, alone]], axis=-1)[None], shown, "mark", 1.3),
    )
    return Panel("two balls over time", Scale("step", 0.0, steps[-1]), Scale("x", -9.0, 14.0), layers)
