"""One stroke is blurred, many find the holes: the same course, the true score, 1 to 256 evaluations a sample.

Definition. x_T = x_0 + σ e. With n strokes a sample takes n − 1 reverse steps and ends at E[x_0 | x_t] of its last point;
with n = 1 it is E[x_0 | x_T] itself, whose covariance is Cov x_0 − E Cov(x_0 | x_T). A hole is a disc of three standard
deviations, found if it holds at least a third of its true share of the samples. Serves ``relation.one_stroke`` and
``relation.one_stroke.holes``.
"""

from __future__ import annotations

from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np

from mulligan.lab.experiment import Range, experiment
from mulligan.lab.identities.strokes import COUNT, RADIUS, SPREAD, eight_holes, in_holes
from mulligan.lab.identity import mean_and_error, monte_carlo, rounding
from mulligan.lab.recording import Curve, Panel, Points, Recording, Scale
from mulligan.loop import compile_small
from mulligan.measures.coverage import holes_found
from mulligan.quantity import Quantity, proportion
from mulligan.samplers.reverse import DDIM
from mulligan.targets.noised import NoisedMixture
from mulligan.targets.noising import EDM

STROKES = (1, 2, 3, 4, 5, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 256)
DRAWN, EARLIEST = 250, 0.02
INSIDE = 1 - np.exp(-4.5)  # of a Gaussian of the plane, within three standard deviations


@compile_small
def _strokes(law: NoisedMixture, eta: Any, start: Any, noise: Any, times: Any, at: Any) -> Any:
    """Samples (n, 2) after the first ``at`` of the steps between ``times``, and tr Cov(x_0 | x_T) of each start."""
    kernel = DDIM(law, eta)

    def one(x: Any, key: Any) -> Any:
        def step(i: Any, state: Any) -> Any:
            e = jax.random.normal(jax.random.fold_in(key, i), (2,), x.dtype)
            return kernel.move(state, e, (times[i], times[i + 1]))[0]

        last = jax.lax.fori_loop(0, at, step, kernel.init(key, x)).position
        return law.denoise(last, times[at]), jnp.trace(law.covariance(x, times[0]))

    return jax.vmap(one)(start, noise)


@experiment(10, "One stroke is blurred; more strokes find more holes")
def more_strokes(
    *,
    samples: Annotated[int, Range(200, 20_000)] = 2000,
    noise: Annotated[float, Range(2.0, 40.0)] = 8.0,
    eta: Annotated[float, Range(0.0, 1.0)] = 1.0,
    seed: int = 0,
) -> Recording:
    """Eight holes, the true score, and 1 to 256 strokes a sample from x_T = x_0 + σ e.

    tr Cov E[x_0|x_T] = tr Cov x_0 − E tr Cov(x_0|x_T). Parameters: ``samples`` for each number of strokes; ``noise`` = σ of
    x_T; ``eta`` of the sampler: 1 is ancestral, 0 takes no fresh noise. Raises UsageError for a value out of its range.

    >>> from mulligan.lab.experiments.more_strokes import more_strokes
    >>> more_strokes(samples=300, seed=1).holds
    True

    Source: Ho, Jain & Abbeel (2020); Song, Meng & Ermon (2021); Karras et al. (2022), the grid of times.
    """
    law = eight_holes()
    noised = NoisedMixture(law, EDM(t_min=jnp.asarray(EARLIEST), t_max=jnp.asarray(noise)))
    keys = jax.random.split(jax.random.key(seed), samples)
    rng = np.random.default_rng([seed, 10])
    start = _rows(rng, samples) + noise * rng.normal(size=(samples, 2))
    drawn, lost = [], np.zeros(samples)
    for n in STROKES:
        times = np.linspace(noise ** (1 / 7), EARLIEST ** (1 / 7), max(n, 2)) ** 7
        padded = np.pad(times, (0, STROKES[-1] - len(times)), mode="edge")
        steps = jnp.asarray(padded), jnp.asarray(n - 1)
        found = _strokes(noised, jnp.asarray(eta), jnp.asarray(start), keys, *steps)
        drawn.append(np.asarray(found[0]))
        lost = np.asarray(found[1])
    return _recording(np.stack(drawn), lost, float(np.trace(np.asarray(law.covariance))))


def _rows(rng: np.random.Generator, n: int) -> np.ndarray:
    """x_0: rows of the course."""
    return np.asarray(eight_holes().means)[rng.integers(0, COUNT, n)] + SPREAD * rng.normal(size=(n, 2))


def _recording(drawn: np.ndarray, lost: np.ndarray, whole: float) -> Recording:
    """The pictures and the checks of samples (strokes, n, 2)."""
    n = drawn.shape[1]
    law, share = eight_holes(), np.full(COUNT, INSIDE / COUNT)
    holes = [holes_found(x, np.asarray(law.means), 3 * SPREAD, share) for x in drawn]
    count, low, high = (np.array([each[key] for each in holes], float) for key in ("found", "low", "high"))
    inside = [proportion(int(k), n) for k in in_holes(drawn).sum(axis=1)]
    blurred, error = mean_and_error((drawn[0] ** 2).sum(axis=1) + lost)
    spread = [mean_and_error((x**2).sum(axis=1)) for x in drawn]
    return Recording(
        panels=(_course(drawn), _holes(count, low, high), _inside(inside)),
        captions=tuple(_caption(k, int(f), each) for k, f, each in zip(STROKES, count, inside)),
        see="One stroke lands in the middle, on the average of all holes; more strokes find more holes, up to all.",
        numbers={
            "holes found": tuple(
                Quantity(float(f), "estimate", float(a), float(b), n=n) for f, a, b in zip(count, low, high)
            ),
            "in some hole": tuple(inside),
            "E|x|²": tuple(_of(float(m), float(s), n) for m, s in spread),
        },
        checks={
            "one stroke is blurred by E tr Cov(x_0|x_T): with it, E|E[x_0|x_T]|² is that of the course": monte_carlo(
                {"E|E[x_0|x_T]|² + E tr Cov(x_0|x_T)": (blurred, whole, error)}
            ),
            "one stroke finds no hole": rounding({"greatest number in the interval": (high[0], 0.0)}),
            "256 strokes find all eight": rounding({"least number in the interval": (low[-1], float(COUNT))}),
            "more strokes, more holes: never fewer, within the intervals": rounding(
                {"most found so far − upper end": (np.maximum(np.maximum.accumulate(low) - high, 0.0), 0.0)}
            ),
        },
        rate=1.5,
    )


def _of(value: float, error: float, n: int) -> Quantity:
    return Quantity(value, "estimate", value - 1.96 * error, value + 1.96 * error, stderr=error, n=n)


def rims(centres: np.ndarray, radius: float) -> np.ndarray:
    """Points on the rims of discs around ``centres`` (h, 2), (1, 48 h, 2).

    >>> rims(np.zeros((1, 2)), 2.0).shape
    (1, 48, 2)
    """
    angle = 2 * np.pi * np.arange(48) / 48
    return (centres[:, None] + radius * np.stack([np.cos(angle), np.sin(angle)], axis=-1)).reshape(1, -1, 2)


def _course(drawn: np.ndarray) -> Panel:
    most = RADIUS + 1.2
    edge = Points("holes", rims(np.asarray(eight_holes().means), 3 * SPREAD), role="data", size=1.2)
    points = Points("samples", drawn[:, :DRAWN], size=3.0)
    x, y = Scale("x₁ (units of the data)", -most, most), Scale("x₂ (units of the data)", -most, most)
    return Panel(f"{DRAWN} samples; rims of the holes", x, y, (edge, points), square=True, legend=False)


def _holes(count: np.ndarray, low: np.ndarray, high: np.ndarray) -> Panel:
    x = np.array(STROKES, float)
    now = Points("now", np.stack([x, count], axis=-1)[:, None], role="mark", size=8.0, opacity=1.0)
    curve = Curve("found, with 95 % interval", x, count[None], low=low[None], high=high[None], dots=True)
    strokes = Scale("strokes (evaluations a sample)", 0.8, 320.0, log=True)
    return Panel("Holes found of eight", strokes, Scale("holes found", -0.4, 8.6), (curve, now), legend=False)


def _inside(inside: list[Quantity]) -> Panel:
    x = np.array(STROKES, float)
    value, low, high = (np.array([[getattr(q, key) for q in inside]], float) for key in ("value", "low", "high"))
    curve = Curve("samples, with 95 % interval", x, value, low=low, high=high, dots=True)
    truth = Curve("the course itself", x, np.full((1, len(x)), INSIDE), role="data", dashed=True)
    now = Points("this frame", np.stack([x, value[0]], axis=-1)[:, None], role="mark", size=8.0, opacity=1.0)
    strokes = Scale("strokes (evaluations a sample)", 0.8, 320.0, log=True)
    # room above the curves for the legend
    return Panel("Share of samples in some hole", strokes, Scale("share", -0.04, 1.4), (curve, truth, now))


def _caption(strokes: int, found: int, inside: Quantity) -> str:
    many = "1 stroke" if strokes == 1 else f"{strokes} strokes"
    if strokes == 1:
        return f"{many}: every sample is E[x₀|x_T], near the middle of the course; {found} of 8 holes."
    where = "most samples lie between the holes" if float(inside.value or 0) < 0.5 else "most samples lie in holes"
    return f"{many}: {found} of 8 holes; {where} ({100 * float(inside.value or 0):.0f} % are in one)."
