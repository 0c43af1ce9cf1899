"""What the page and the pictures of a recording share: colours, and the range of each axis over all frames."""

from __future__ import annotations

import math

import numpy as np

from mulligan.lab.recording import Arrows, Bars, Curve, Field, Layer, Panel, Paths, Points
from mulligan.report.svg import INK, MARK, MODEL

COLOURS: dict[str, str] = {
    "data": "#8b929b",
    "model": MODEL,
    "mark": MARK,
    "second": "#009e73",
    "third": "#cc79a7",
    "ink": INK,
}
PALETTES: dict[str, list[str]] = {
    "blue": ["#ffffff", "#a6cbe6", "#0072b2", "#00324f"],
    "grey": ["#000000", "#ffffff"],
    "signed": ["#d55e00", "#ffffff", "#0072b2"],
}
_MARGIN = 0.04


def panel_range(panel: Panel, way: str) -> tuple[float, float]:
    """(low, high) of an axis of a panel (``way`` is "x" or "y"), fixed over all frames so that nothing jumps.

    An end that the scale names is kept; the other one leaves a margin. Bars start at 0.

    >>> from mulligan.lab.recording import Scale
    >>> panel_range(Panel("p", Scale("x", 0.0, 2.0), Scale("y")), "x")
    (0.0, 2.0)
    """
    scale = panel.x if way == "x" else panel.y
    values = [np.ravel(part) for layer in panel.layers for part in _extent(layer, way)]
    every = np.concatenate(values) if values else np.array([0.0, 1.0])
    every = every[every > 0] if scale.log else every
    every = every if len(every) else np.array([1.0])
    low, high = float(every.min()), float(every.max())
    tight = any(isinstance(layer, Field) for layer in panel.layers)
    if scale.log:
        margin = 0.0 if tight else _MARGIN * max(math.log10(high / low), 0.5)
        ends = low * 10**-margin, high * 10**margin
    else:
        margin = 0.0 if tight else _MARGIN * ((high - low) or abs(low) or 1.0)
        ends = low - margin, high + margin
        if way == "y" and low == 0 and any(isinstance(layer, Bars) for layer in panel.layers):
            ends = 0.0, ends[1]
    return (ends[0] if scale.low is None else scale.low), (ends[1] if scale.high is None else scale.high)


def _extent(layer: Layer, way: str) -> list[np.ndarray]:
    """The values of a layer along one axis."""
    k = "xy".index(way)
    if isinstance(layer, Points | Paths):
        return [layer.xy[..., k]]
    if isinstance(layer, Arrows):
        return [layer.xy[..., k], layer.xy[..., k] + layer.along[..., k]]
    if isinstance(layer, Curve):
        return [layer.x] if way == "x" else [part for part in (layer.y, layer.low, layer.high) if part is not None]
    if isinstance(layer, Bars):
        if way == "x":
            return [layer.at - layer.width / 2, layer.at + layer.width / 2]
        error = 0.0 if layer.error is None else 1.96 * layer.error
        return [np.zeros(1), layer.height - error, layer.height + error]
    if isinstance(layer, Field):
        axis = layer.x if way == "x" else layer.y
        half = 0.5 * (axis[-1] - axis[0]) / max(len(axis) - 1, 1)
        return [np.array([axis[0] - half, axis[-1] + half])]
    return []
