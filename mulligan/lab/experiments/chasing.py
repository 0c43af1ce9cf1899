"""When does a Gaussian chase a mode? The best fit to ½N(−a, 1) + ½N(a, 1) as the two modes are pulled apart.

Definition. The global minimiser N(m, s²) of KL(p_θ‖p_data) leaves the middle at a ≈ 2.80, that of the Jensen-Shannon
divergence at a ≈ 4.24, and that of KL(p_data‖p_θ), maximum likelihood, never. There is no randomness. Serves
``mle.chasing``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Annotated, Any

import numpy as np

from mulligan.lab.experiment import Range, experiment
from mulligan.lab.identities.phenomena import (
    best_gaussian,
    forward_kl,
    jensen_shannon,
    reverse_kl,
    threshold,
)
from mulligan.lab.identity import rounding
from mulligan.lab.recording import Curve, Panel, Points, Recording, Role, Scale
from mulligan.quantity import Quantity

_DIVERGENCES: tuple[tuple[str, Callable, Role, bool], ...] = (
    ("KL(p_data‖p_θ)", forward_kl, "model", False),
    ("KL(p_θ‖p_data)", reverse_kl, "mark", False),
    ("Jensen-Shannon", jensen_shannon, "second", True),
)
_SHOWN = np.linspace(-9.0, 9.0, 181)
THRESHOLDS = (2.80, 4.24)


def _normal(mean: float, sd: float) -> np.ndarray:
    return np.exp(-0.5 * ((_SHOWN - mean) / sd) ** 2) / (sd * math.sqrt(2 * math.pi))


def best_fit(divergence: Callable, a: float) -> tuple[float, float]:
    """m ≥ 0 and s of the Gaussian nearest to ½N(±a, 1): the better of the best in the middle and the best off it.

    >>> [round(number, 3) for number in best_fit(forward_kl, 2.0)]  # m = 0 and s² = 1 + a²
    [0.0, 2.236]
    """
    wide = 0.5 * math.log1p(a * a)
    middle = min((best_gaussian(divergence, a, (0.0, start)) for start in (0.0, wide)), key=lambda fit: fit[0])
    off = best_gaussian(divergence, a, (max(a, 0.1), 0.0))
    _, m, s = off if off[0] < middle[0] - 1e-9 else middle
    return abs(m), s


@experiment(2, "How far apart two modes must be to be chased")
def chasing_threshold(
    *,
    farthest: Annotated[float, Range(3.0, 6.0)] = 5.6,
    frames: Annotated[int, Range(6, 48)] = 29,
    seed: int = 0,
) -> Recording:
    """The best single Gaussian for ½N(−a, 1) + ½N(a, 1), a from 0 to ``farthest``, by three divergences.

    m*(a) = 0 below a threshold and ≈ a above it: 2.80 for KL(p_θ‖p_data), 4.24 for Jensen-Shannon, none for KL(p_data‖p_θ).
    Parameters: ``farthest`` a; ``frames``; ``seed`` changes nothing, for nothing is random. Raises UsageError for a value
    out of its range. Source: Minka (2005).

    >>> from mulligan.lab.experiments.chasing import chasing_threshold
    >>> chasing_threshold(farthest=3.0, frames=6).length
    6
    """
    apart = np.linspace(0.0, farthest, frames)
    fits = np.array([[best_fit(each[1], a) for a in apart] for each in _DIVERGENCES])  # (3, frames, 2)
    found = threshold(reverse_kl, 2.4, 4.0), threshold(jensen_shannon, 3.2, 5.0)
    data = np.stack([0.5 * (_normal(a, 1.0) + _normal(-a, 1.0)) for a in apart])
    return Recording(
        panels=(_laws(data, fits), _means(apart, fits)),
        captions=tuple(_caption(a, fits[:, t, 0]) for t, a in enumerate(apart)),
        see="Modes a little apart are covered by all three; KL(p_θ‖p_data) jumps to one first, KL(p_data‖p_θ) never does.",
        numbers={
            "KL(p_θ‖p_data) leaves the middle at a": (_numeric(found[0]),),
            "Jensen-Shannon leaves it at a": (_numeric(found[1]),),
        },
        checks={
            "KL(p_θ‖p_data) jumps at 2.80, Jensen-Shannon at 4.24": rounding({"thresholds": (found, THRESHOLDS)}, 0.01),
            "KL(p_data‖p_θ) stays in the middle with s² = 1 + a²": rounding(
                {"m": (fits[0, :, 0], 0.0), "s²": (fits[0, :, 1] ** 2, 1 + apart**2)}, 0.01
            ),
        },
        rate=5.0,
    )


def _numeric(value: float) -> Quantity:
    return Quantity(value, "numeric", value - 0.005, value + 0.005)


def _laws(data: np.ndarray, fits: np.ndarray) -> Panel:
    layers: list[Any] = [Curve("p_data", _SHOWN, data, role="data")]
    for (name, _, role, dashed), fit in zip(_DIVERGENCES, fits):
        curves = np.stack([_normal(m, s) for m, s in fit])
        layers.append(Curve(f"best by {name}", _SHOWN, curves, role=role, dashed=dashed))
    return Panel("the best Gaussian", Scale("x (sd of a mode)", -9.0, 9.0), Scale("density", 0.0, 0.62), tuple(layers))


def _means(apart: np.ndarray, fits: np.ndarray) -> Panel:
    layers: list[Any] = []
    for (name, _, role, dashed), fit in zip(_DIVERGENCES, fits):
        path = np.stack([apart, fit[:, 0]], axis=-1)
        layers.append(Curve(f"m*: {name}", apart, fit[None, :, 0], role=role, dashed=dashed))
        layers.append(Points(f"now: {name}", path[:, None], role=role, size=8.0))
    x = Scale("a: half the distance of the modes (sd of a mode)", 0.0, float(apart[-1]) * 1.02)
    y = Scale("best mean m* (sd of a mode)", -0.3, float(apart[-1]) * 1.1)
    return Panel("m* leaves 0 in a jump", x, y, tuple(layers), legend=False)


def _caption(a: float, means: np.ndarray) -> str:
    where = [name for (name, *_), m in zip(_DIVERGENCES, means) if m > 0.05]
    if not where:
        return f"Modes at ±{a:.2f}: by all three divergences the best Gaussian sits in the middle."
    rest = "KL(p_data‖p_θ) covers both" if len(where) > 1 else "the other two cover both modes"
    return f"Modes at ±{a:.2f}: {' and '.join(where)} would rather have one mode; {rest}."
