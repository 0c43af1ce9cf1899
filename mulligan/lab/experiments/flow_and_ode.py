"""The probability-flow ODE as an invertible map, followed along two schedules: flow matching's straight one, and another.

Definition. Under x_t = α x_0 + σ e the ODE dx/dt = f x − ½ g² ∇ log p_t carries p_1 to p_0 and back. Cut into pieces it is
a flow x = g₁(g₂(…(z))): log|det| of the pieces add up, and to ∫ div v dt. (α, σ) = (1 − t, t) is flow matching's; a
variance-preserving schedule draws other paths to the same end. Euler's step x + Δt v(x) is undone by x ← y − Δt v(x) while
Δt·Lipschitz < 1, and folds the plane beyond. Serves ``relation.flow``.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from mulligan.lab.experiment import Range, experiment
from mulligan.lab.experiments.halves import the_target
from mulligan.lab.identity import Check, excess, mean_and_error, rounding
from mulligan.lab.recording import Curve, Field, Panel, Paths, Points, Recording, Role, Scale
from mulligan.loop import compile_small
from mulligan.quantity import Quantity
from mulligan.samplers.ode import solve, solve_with_divergence
from mulligan.targets.mixture import GaussianMixture
from mulligan.targets.noised import NoisedMixture
from mulligan.targets.noising import Cosine, Straight, VariancePreserving

PIECES, EARLIEST, EULER_TIME, UNDOING = 14, 0.01, 0.25, 80
SHARES = np.linspace(0.15, 1.65, 16)  # Δt L
LINES, ALONG, REACH = 7, 21, 2.1
OTHERS = {"variance-preserving": VariancePreserving, "cosine": Cosine}


@compile_small
def _carried(law: NoisedMixture, x: Any, times: Any) -> Any:
    """x (n, 2) at the end of each piece (pieces, substeps + 1): points, ∫ div v, log|det| of each piece and of the whole."""

    def piece(at: Any, within: Any) -> Any:
        return solve_with_divergence(law.velocity, at, within, "rk4")

    def one(at: Any) -> Any:
        def step(carry: Any, within: Any) -> Any:
            at, jacobian = carry
            (landed, poured), slope = piece(at, within), jax.jacfwd(lambda y: piece(y, within)[0])(at)
            jacobian = slope @ jacobian
            sizes = jnp.linalg.slogdet(slope)[1], jnp.linalg.slogdet(jacobian)[1]
            return (landed, jacobian), (landed, poured, *sizes)

        return jax.lax.scan(step, (at, jnp.eye(2)), times)[1]

    return jax.vmap(one)(x)


@compile_small
def _ways_of(law: NoisedMixture, x: Any, times: Any) -> Any:
    """x (n, 2) at the end of each piece, (n, pieces, 2)."""

    def step(at: Any, within: Any) -> Any:
        landed = solve(law.velocity, at, within, "rk4")
        return landed, landed

    return jax.vmap(lambda at: jax.lax.scan(step, at, times)[1])(x)


@compile_small
def _undone(law: NoisedMixture, x: Any, time: Any, steps: Any) -> Any:
    """Of each step: the error of x after ``UNDOING`` turns of x ← y − Δt v(x), and the least det(1 + Δt ∂v/∂x)."""
    v = jax.vmap(lambda at: law.velocity(at, time))
    slopes = jax.vmap(jax.jacfwd(lambda at: law.velocity(at, time)))(x)

    def one(step: Any) -> Any:
        y = x + step * v(x)
        back = jax.lax.fori_loop(0, UNDOING, lambda _, guess: y - step * v(guess), y)
        return jnp.abs(back - x).max(), jnp.linalg.det(jnp.eye(2) + step * slopes).min()

    return jax.lax.map(one, steps)


@compile_small
def _slopes(law: NoisedMixture, x: Any, time: Any) -> Any:
    return jax.vmap(lambda at: jnp.linalg.eigvalsh(jax.jacfwd(lambda y: law.velocity(y, time))(at)))(x)


@experiment(10, "A diffusion's ODE is a flow: an invertible map")
def flow_and_ode(
    *,
    other: Literal["variance-preserving", "cosine"] = "variance-preserving",
    substeps: Annotated[int, Range(2, 64)] = 16,
    paths: Annotated[int, Range(20, 300)] = 100,
    seed: int = 0,
) -> Recording:
    """A grid of z carried to x and back; log-determinants; two schedules' paths from the same z; Euler's step undone.

    log p_0(x) = log p_1(z) − Σ log|det|. Parameters: ``other``, the schedule beside flow matching's; ``substeps`` of the
    fourth-order method in each of 14 pieces of time; ``paths`` to compare. Raises UsageError for a value that is refused.

    >>> from mulligan.lab.experiments.flow_and_ode import flow_and_ode
    >>> flow_and_ode(substeps=8, paths=20, seed=1).holds
    True

    Source: Song et al. (2021); Lipman et al. (2023); Behrmann et al. (2019), for the inverse of x + Δt v(x).
    """
    target = the_target()
    straight, bent = NoisedMixture(target, Straight()), NoisedMixture(target, OTHERS[other]())
    drawn = np.random.default_rng([seed, 102]).normal(size=(paths, 2))
    z = np.concatenate([_grid(), drawn])
    knots = np.linspace(1.0, EARLIEST ** (1 / 2), PIECES + 1) ** 2  # shorter pieces near the data, where v turns fast
    times = np.stack([np.linspace(a, b, substeps + 1) for a, b in pairwise(knots)])
    away = _carry(straight, z, times)
    back = _carry(straight, away[0][:, -1], times[::-1, ::-1])
    turned = np.asarray(_ways_of(bent, jnp.asarray(drawn), jnp.asarray(_clocked(bent, times))))
    nodes = np.stack(np.meshgrid(*[np.linspace(-3, 3, 31)] * 2), axis=-1).reshape(-1, 2)
    euler = _euler(straight, nodes)
    lines = LINES * ALONG * 2
    moved = np.concatenate([z[None], np.moveaxis(away[0], 1, 0), np.moveaxis(back[0], 1, 0)])
    ways = {
        "flow matching's": np.concatenate([drawn[:, None], away[0][lines:]], axis=1),
        other: np.concatenate([drawn[:, None], turned], axis=1),
    }
    return _recording(target, straight, moved, away, ways, euler)


def _grid() -> np.ndarray:
    """Points on lines of a square grid of z: first those along z₁, then those along z₂."""
    line, along = np.linspace(-REACH, REACH, LINES), np.linspace(-REACH, REACH, ALONG)
    across = np.stack(np.meshgrid(along, line), axis=-1).reshape(-1, 2)
    return np.concatenate([across, across[:, ::-1]])


def _carry(law: NoisedMixture, x: np.ndarray, times: np.ndarray) -> tuple[np.ndarray, ...]:
    return tuple(np.asarray(each) for each in _carried(law, jnp.asarray(x), jnp.asarray(times)))


def _clocked(bent: NoisedMixture, times: np.ndarray) -> np.ndarray:
    """The times at which the other schedule has the same ratio σ/α, so that both stop at the same noise."""
    ratio = times / np.maximum(1 - times, 1e-12)
    latest = float(bent.schedule.t_max)
    return np.minimum(np.asarray(bent.schedule.at_noise(jnp.asarray(ratio))), latest)


def _euler(law: NoisedMixture, nodes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(error after undoing, least determinant) for each Δt L of ``SHARES``; Δt points to where v is steepest."""
    x, time = jnp.asarray(nodes), jnp.asarray(EULER_TIME)
    slopes = np.asarray(_slopes(law, x, time)).ravel()
    steepest = slopes[np.abs(slopes).argmax()]
    error, least = _undone(law, x, time, jnp.asarray(-SHARES / steepest))
    return np.asarray(error), np.asarray(least)


def _recording(
    target: GaussianMixture,
    law: NoisedMixture,
    moved: np.ndarray,
    away: tuple[np.ndarray, ...],
    ways: dict[str, np.ndarray],
    euler: tuple[np.ndarray, np.ndarray],
) -> Recording:
    """moved (2 pieces + 1, n, 2): the grid's and the other points, there and back; away: what ``_carried`` returns."""
    landed, poured, parts, whole = away
    z, x, trip = moved[0], landed[:, -1], np.abs(moved[-1] - moved[0]).max(axis=-1)
    start = np.asarray(_log_prob(GaussianMixture.from_covariances([1.0], [[0.0, 0.0]], [np.eye(2)]), jnp.asarray(z)))
    end = np.asarray(_log_prob(law.at(jnp.asarray(EARLIEST)), jnp.asarray(x)))
    summed = parts.sum(axis=1)
    lengths = {name: mean_and_error(detour(path)) for name, path in ways.items()}
    first, second = ways.values()
    apart = np.abs(first[:, -1] - second[:, -1]).max()
    checks = {
        "the way back undoes the way there: z returns": rounding({"round trip": (trip, 0.0)}, tolerance=1e-3),
        "log-determinants of the pieces add up to that of the whole": rounding({"sum": (summed, whole[:, -1])}, 1e-8),
        "and to the integral of the divergence": rounding({"sum and ∫ div": (summed, poured.sum(axis=1))}, 1e-2),
        "log p(x) = log p(z) − log|det|": rounding({"log p": (start - summed, end)}, 1e-2),
        "both schedules end at the same x": rounding({"largest distance": (apart, 0.0)}, 0.1),
        "neither ODE's paths are straight lines": rounding(
            {name: (excess(1.01, length), 0.0) for name, (length, _) in lengths.items()}
        ),
        "Euler's step is undone while Δt L < 1": rounding({"error": (euler[0][SHARES < 0.8], 0.0)}, 1e-7),
        "beyond Δt L = 1 it folds the plane": rounding({"folds": (euler[1] < 0, (SHARES > 1).astype(float))}),
    }
    so_far = np.stack([np.cumsum(parts, axis=1), whole], axis=1)  # (n, 2, pieces)
    logs = np.concatenate([np.zeros((1, 2, len(z))), so_far.transpose(2, 1, 0)])
    return _pictures(target, moved, ways, lengths, logs, euler, trip, checks)


@compile_small
def _log_prob(law: GaussianMixture, x: Any) -> Any:
    return jax.vmap(law.log_prob)(x)


def detour(path: np.ndarray) -> np.ndarray:
    """Length over distance of each path (n, m, 2): 1 where it is straight.

    >>> detour(np.array([[[0.0, 0.0], [3.0, 0.0], [3.0, 4.0]]])).tolist()
    [1.4]
    """
    length = np.linalg.norm(np.diff(path, axis=1), axis=-1).sum(axis=1)
    return length / np.linalg.norm(path[:, -1] - path[:, 0], axis=-1)


def _pictures(
    target: GaussianMixture,
    moved: np.ndarray,
    ways: dict[str, np.ndarray],
    lengths: dict[str, Any],
    logs: np.ndarray,
    euler: tuple[np.ndarray, np.ndarray],
    trip: np.ndarray,
    checks: dict[str, Check],
) -> Recording:
    """logs (pieces + 1, 2, n): sum over the pieces so far and log|det| of the whole so far."""
    half = LINES * ALONG
    frames = len(moved)
    there = np.minimum(np.arange(frames), 2 * PIECES - np.arange(frames))  # pieces of time covered in each frame
    gap = np.abs(logs[:, 0] - logs[:, 1]).max(axis=1)
    stretch = [mean_and_error(each) for each in logs[:, 0]]
    captions = []
    for frame, k in enumerate(there):
        way = "carried towards the data" if frame <= PIECES else "carried back"
        size = f"on average log|det| is {stretch[k][0]:.2f}, and the pieces add up to the whole"
        captions.append(f"{way}, piece {k} of {PIECES}: no line crosses another; {size}.")
    captions[0] = "z: a square grid under N(0, I), before the first piece."
    captions[-1] = f"Back at z: the grid is as it was, within {trip.max():.0e}."
    return Recording(
        panels=(_plane(target, moved[:, : 2 * half], half), _logs(logs[there]), _ways(ways, there), _steps(euler)),
        captions=tuple(captions),
        see="The ODE bends the grid without tearing it, and undoes it; an Euler step can be undone only while Δt L < 1.",
        numbers={
            "mean log|det| so far": tuple(_of(*stretch[k]) for k in there),
            "largest |sum − whole|": tuple(Quantity(float(gap[k]), "numeric") for k in there),
            **{f"length/distance, {name}": (_of(*found),) for name, found in lengths.items()},
        },
        checks=checks,
        rate=4.0,
    )


def _of(value: Any, error: Any) -> Quantity:
    value, error = float(value), float(error)
    return Quantity(value, "estimate", value - 1.96 * error, value + 1.96 * error, stderr=error)


def _plane(target: GaussianMixture, grid: np.ndarray, half: int) -> Panel:
    axis = np.linspace(-3.6, 3.6, 41)
    nodes = jnp.asarray(np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2))
    density = np.exp(np.asarray(_log_prob(target, nodes))).reshape(1, 41, 41)
    back = Field("density of the data", axis, axis, density, high=2.5 * float(density.max()))
    lines = (
        Points("lines along z₁", grid[:, :half], role="mark", size=2.6),
        Points("along z₂", grid[:, half:], size=2.6),
    )
    x, y = Scale("first coordinate (units of x)", -3.6, 3.6), Scale("second coordinate (units of x)", -3.6, 3.6)
    return Panel("A grid of z on its way to x and back", x, y, (back, *lines), square=True, legend=False)


def _logs(logs: np.ndarray) -> Panel:
    low, high = float(logs.min()) - 0.3, float(logs.max()) + 0.3
    drawn = np.moveaxis(logs[:, :, :: max(1, logs.shape[2] // 100)], 1, 2)
    line = Curve("equal", np.array([low, high]), np.array([[low, high]]), role="data", dashed=True)
    x, y = Scale("sum of log|det| of the pieces (nats)", low, high), Scale("log|det| of the whole (nats)", low, high)
    return Panel("Log-determinants add up", x, y, (line, Points("one z", drawn, size=3.5)), square=True, legend=False)


def _ways(ways: dict[str, np.ndarray], there: np.ndarray) -> Panel:
    roles: tuple[Role, Role] = ("mark", "second")
    layers = [
        Paths(f"{name} schedule", path[:12], there + 1.0, role=role, width=1.4)
        for (name, path), role in zip(ways.items(), roles)
    ]
    x, y = Scale("first coordinate (units of x)", -3.6, 3.6), Scale("second coordinate (units of x)", -3.6, 5.2)
    return Panel("Same z, same x, two ways", x, y, tuple(layers))


def _steps(euler: tuple[np.ndarray, np.ndarray]) -> Panel:
    error = np.maximum(euler[0], 1e-16)[None]
    edge = Curve("Δt L = 1", np.array([1.0, 1.0]), np.array([[1e-17, 1e2]]), role="data", dashed=True)
    curve = Curve(f"error after {UNDOING} turns", SHARES, error, dots=True)
    return Panel(
        "An Euler step undone",
        Scale("Δt · Lipschitz"),
        Scale("largest error of x", 1e-17, 1e4, log=True),
        (curve, edge),
    )
