"""A Wasserstein critic in training, beside the exact W₁: divided by its steepest slope it never says too much.

Definition. W₁(p, q) = max E_p f − E_q f over f of slope ≤ 1, and = ∫|F − G| on the line. A critic with the steepest slope L
certifies (E_p f − E_q f)/L ≤ W₁. The gradient penalty γ E(|f′| − 1)² presses the slope towards 1 and does not bound it.
Serves ``game.wasserstein`` and its experiment ``game.wasserstein.critic``.
"""

from __future__ import annotations

from typing import Annotated

import numpy as np

from mulligan.lab.experiment import Range, experiment
from mulligan.lab.identities.critic import Watched, between, distance_on_the_line, two_samples, watched_critic
from mulligan.lab.identity import excess, rounding
from mulligan.lab.recording import Curve, Panel, Paths, Recording, Scale
from mulligan.quantity import Quantity

FRAMES = 30


@experiment(5, "A Wasserstein critic: what it says and what it can certify")
def wasserstein_critic(
    *,
    n: Annotated[int, Range(20, 1000)] = 100,
    shift: Annotated[float, Range(-3.0, 3.0)] = 0.5,
    penalty: Annotated[float, Range(0.01, 100.0)] = 1.0,
    steps: Annotated[int, Range(30, 3000)] = 150,
    seed: int = 0,
) -> Recording:
    """Two samples of n points on the line; a network f maximises E_p f − E_q f − γ E(|f′| − 1)².

    Parameters: ``n``; ``shift``, the centre of q; ``penalty`` γ; ``steps`` of Adam. Raises UsageError for a value out of its
    range. Arjovsky, Chintala and Bottou, "Wasserstein GAN", 2017; Gulrajani et al., 2017.

    >>> from mulligan.lab.experiments.wasserstein import wasserstein_critic
    >>> wasserstein_critic(n=30, steps=60, seed=1).length
    30
    """
    x, y = two_samples(seed, n, shift)
    each = steps // FRAMES
    watched = watched_critic(seed, x, y, penalty=penalty, frames=FRAMES, steps=each)
    distance, best = distance_on_the_line(x, y), _best_critic(x, y, watched.grid)
    at = each * np.arange(1.0, FRAMES + 1)
    points, difference = between(x, y)
    gaps = np.diff(points)
    return Recording(
        panels=(_shares(x, y, distance), _critics(watched, best), _values(watched, at, distance), _slopes(watched)),
        captions=tuple(
            f"step {step:.0f}: the critic says {raw:.3f}; its steepest slope is {steepest:.2f}, so it certifies "
            f"{sure:.3f} of W₁ = {distance:.3f}"
            for step, raw, steepest, sure in zip(at, watched.raw, watched.steepest, watched.certified)
        ),
        see="Divided by its steepest slope a critic never exceeds W₁; what it says itself may.",
        numbers={
            "W₁ of the samples": (_exact(distance),),
            "raw value": tuple(map(_exact, watched.raw)),
            "steepest slope L": tuple(map(_exact, watched.steepest)),
            "raw value / L": tuple(map(_exact, watched.certified)),
        },
        checks={
            "the value divided by the steepest slope is at most W₁, after every step watched": rounding(
                {"value / L ≤ W₁": (excess(watched.certified, distance), 0.0)}
            ),
            "with a penalty alone the raw value passes W₁": rounding(
                {"passes": (excess(distance, watched.raw.max()), 0.0)}
            ),
            "∫|F − G| is the value of the critic whose slope is the sign of G − F": rounding(
                {
                    "W₁": (_value_of(points, np.sign(difference) * gaps, x, y), distance),
                    "its slope": (np.abs(np.diff(best) / np.diff(watched.grid)).max(), 1.0),
                }
            ),
        },
        rate=5.0,
    )


def _best_critic(x: np.ndarray, y: np.ndarray, at: np.ndarray) -> np.ndarray:
    """The function of slope sign(G − F), 0 at the mean of the points, at some places."""
    points, difference = between(x, y)
    values = np.concatenate([[0.0], np.cumsum(np.sign(difference) * np.diff(points))])
    return np.interp(at, points, values - values.mean())


def _value_of(points: np.ndarray, rises: np.ndarray, x: np.ndarray, y: np.ndarray) -> float:
    """E_p f − E_q f of the function that rises by ``rises`` between neighbours."""
    f = np.concatenate([[0.0], np.cumsum(rises)])
    return float(np.interp(x, points, f).mean() - np.interp(y, points, f).mean())


def _exact(value: float) -> Quantity:
    return Quantity(float(value), "exact", float(value), float(value))


def _shares(x: np.ndarray, y: np.ndarray, distance: float) -> Panel:
    at = np.linspace(min(x[0], y[0]) - 0.2, max(x[-1], y[-1]) + 0.2, 301)
    f, g = (np.searchsorted(sample, at, "right")[None] / len(sample) for sample in (x, y))
    return Panel(
        f"the area between F and G is W₁ = {distance:.3f}",
        Scale("x"),
        Scale("share of the points up to x", 0.0, 1.45),
        (
            Curve("|F − G| in the band", at, g, "data", np.minimum(f, g), np.maximum(f, g)),
            Curve("F of the blue sample", at, f, role="model"),
            Curve("G of the green sample", at, g, role="second"),
        ),
    )


def _critics(watched: Watched, best: np.ndarray) -> Panel:
    """f with its free constant taken away, over L, beside the best critic."""
    divided = watched.f / watched.steepest[:, None]
    divided = divided - divided.mean(axis=1, keepdims=True) + best.mean()
    reach = 1.6 * np.abs(best).max()
    return Panel(
        "critics of slope at most 1",
        Scale("x"),
        Scale("f(x) / L", -reach, reach),
        (
            Curve("the best: slope sign(G − F)", watched.grid, best[None], role="ink", dashed=True),
            Curve("the network, divided by L", watched.grid, divided, role="mark"),
        ),
    )


def _values(watched: Watched, at: np.ndarray, distance: float) -> Panel:
    shown = np.arange(1.0, len(at) + 1)
    low = min(0.0, float(watched.raw.min()))
    return Panel(
        "what the critic says and what it certifies",
        Scale("steps of the critic", 0.0, float(at[-1])),
        Scale("E_p f − E_q f", low, 1.5 * max(distance, float(watched.raw.max()))),
        (
            Curve("W₁", np.array([0.0, at[-1]]), np.full((1, 2), distance), role="ink", dashed=True),
            Paths("E_p f − E_q f, raw", np.stack([at, watched.raw], axis=-1)[None], shown, "mark", 2.0, 1.0),
            Paths("divided by L", np.stack([at, watched.certified], axis=-1)[None], shown, "model", 2.0, 1.0),
        ),
    )


def _slopes(watched: Watched) -> Panel:
    return Panel(
        "the penalty is a pressure, not a bound",
        Scale("x"),
        Scale("steepness |f′(x)|", 0.0, 1.35 * float(watched.slope[len(watched.slope) // 4 :].max())),
        (
            Curve("|f′(x)|", watched.grid, watched.slope, role="mark"),
            Curve("1, the bound", watched.grid[[0, -1]], np.ones((1, 2)), role="ink", dashed=True),
        ),
    )
