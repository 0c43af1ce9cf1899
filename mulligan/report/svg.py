"""Small drawings as inline SVG: axes with round ticks, marks, texts, and an alternative text each.

Written by hand because a page of a hundred small panels is then made in milliseconds, stays sharp, prints in the page's
own type, and every text passes through one place that escapes it (ElementTree).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from xml.etree import ElementTree

import numpy as np

from mulligan.report.formatting import one_line

# Okabe and Ito (2008): told apart with every common colour blindness. Data are always grey, a model always blue.
INK, QUIET, RULE, DATA = "#1b1f24", "#565d66", "#d5d8dc", "#bcc1c8"
MODEL, MARK = "#0072b2", "#d55e00"


@dataclass(frozen=True)
class Axis:
    """A linear map of [low, high] onto pixels [start, end]."""

    low: float
    high: float
    start: float
    end: float

    def at(self, value: float) -> float:
        """The pixel of a value; a value beyond the axis lands beyond its end."""
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)

    def many(self, values: np.ndarray) -> np.ndarray:
        """``at`` for an array."""
        return self.start + (np.asarray(values) - self.low) / (self.high - self.low) * (self.end - self.start)

    def holds(self, value: float) -> bool:
        return self.low <= value <= self.high


def axis(low: float, high: float, start: float, end: float, *, margin: float = 0.0) -> Axis:
    """An axis over a range that may be a point, widened by a share of itself at both ends."""
    spread = high - low
    if not spread > 1e-12 * max(abs(low), abs(high)):
        spread = abs(low) * 0.2 or 1.0
        low, high = low - spread / 2, high + spread / 2
    return Axis(low - margin * spread, high + margin * spread, start, end)


def ticks(scale: Axis, most: int) -> list[float]:
    """At most ``most`` round numbers (1, 2, 2.5 or 5 times a power of ten) on the axis.

    >>> ticks(Axis(0.0, 1.0, 0.0, 100.0), 5)
    [0.0, 0.25, 0.5, 0.75, 1.0]
    """
    span = scale.high - scale.low
    power = 10.0 ** math.floor(math.log10(span / most))
    for step in (power * factor for factor in (1, 2, 2.5, 5, 10, 20, 25, 50, 100)):
        first, last = math.ceil(scale.low / step - 1e-9), math.floor(scale.high / step + 1e-9)
        if last - first + 1 <= most:
            return [float(f"{step * i:.12g}") for i in range(first, last + 1)]
    return []


def tick_texts(values: Sequence[float]) -> list[str]:
    """Texts of ticks with equally many decimals, short where the numbers are long.

    >>> tick_texts([0.0, 0.25, 0.5]), tick_texts([0.0, 2e6])
    (['0.00', '0.25', '0.50'], ['0', '2e6'])
    """
    largest = max((abs(value) for value in values), default=0.0)
    if largest >= 1e6 or 0 < largest < 1e-3:
        return [
            f"{v:.4g}".replace("e+0", "e").replace("e+", "e").replace("e-0", "e-").replace("-", "−") for v in values
        ]
    places = max((len(f"{value:.10f}".rstrip("0").partition(".")[2]) for value in values), default=0)
    comma = "," if largest >= 10_000 else ""  # below that it is a year as often as a quantity
    return [f"{value:{comma}.{min(places, 6)}f}".replace("-", "−") for value in values]


def _fitting_ticks(scale: Axis, most: int, size: float) -> list[float]:
    """Ticks few enough that their texts stay apart."""
    for number in range(most, 1, -1):
        values = ticks(scale, number)
        if sum(len(text) * size * 0.58 + size * 0.7 for text in tick_texts(values)) <= abs(scale.end - scale.start):
            break
    return values


def short(text: object, letters: int) -> str:
    """A text cut to so many letters, with an ellipsis where it was cut."""
    line = one_line(text)
    return line if len(line) <= letters else f"{line[: max(1, letters - 1)]}…"


class Drawing:
    """An SVG element of a natural size in CSS pixels, with its alternative text."""

    def __init__(self, width: float, height: float, alt: str):
        self.width, self.height = width, height
        self.root = ElementTree.Element(
            "svg",
            {
                "viewBox": f"0 0 {width:g} {height:g}",
                "width": f"{width:g}",
                "height": f"{height:g}",
                "role": "img",
                "aria-label": one_line(alt),
            },
        )

    def line(
        self, x1: float, y1: float, x2: float, y2: float, color: str = RULE, width: float = 1, dash: str = ""
    ) -> None:
        extra = {"stroke_dasharray": dash} if dash else {}
        self._add("path", d=f"M{x1:.1f} {y1:.1f}L{x2:.1f} {y2:.1f}", stroke=color, stroke_width=f"{width:g}", **extra)

    def rect(self, x: float, y: float, width: float, height: float, fill: str) -> None:
        self._add("path", d=f"M{x:.1f} {y:.1f}h{width:.1f}v{height:.1f}h{-width:.1f}z", fill=fill)

    def path(
        self, points: Iterable[tuple[float, float]], color: str, width: float = 1.5, dash: str = "", *, role: str = ""
    ) -> None:
        """A line through points; a point that is not finite breaks it. ``role`` becomes the class of the element."""
        steps, pen = [], "M"
        for x, y in points:
            if not (math.isfinite(x) and math.isfinite(y)):
                pen = "M"
                continue
            steps.append(f"{pen}{x:.1f} {y:.1f}")
            pen = "L"
        extra = {"stroke_dasharray": dash} if dash else {}
        extra |= {"class": role} if role else {}
        joined = {"fill": "none", "stroke": color, "stroke_width": f"{width:g}", "stroke_linejoin": "round"}
        self._add("path", d="".join(steps), **joined, **extra)

    def shape(self, points: Iterable[tuple[float, float]], fill: str) -> None:
        """A filled polygon."""
        self._add("path", d="M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points) + "z", fill=fill)

    def dot(self, x: float, y: float, color: str = MODEL, radius: float = 3.6, hollow: bool = False) -> None:
        look = {"fill": "#fff", "stroke": color, "stroke_width": "1.6"} if hollow else {"fill": color}
        self._add("circle", cx=f"{x:.1f}", cy=f"{y:.1f}", r=f"{radius:g}", **look)

    def cloud(self, xs: np.ndarray, ys: np.ndarray, color: str, size: float = 2.2) -> None:
        """Many points as one path of round strokes: a dozen characters a point."""
        steps = "".join(f"M{x:.1f} {y:.1f}h0" for x, y in zip(xs.tolist(), ys.tolist()))
        look = {"stroke": color, "stroke_width": f"{size:g}", "stroke_linecap": "round", "stroke_opacity": ".7"}
        self._add("path", d=steps, **look)

    def text(
        self,
        x: float,
        y: float,
        text: str,
        *,
        anchor: str = "start",
        size: float = 11,
        color: str = QUIET,
        bold: bool = False,
    ) -> None:
        look = {"font_weight": "600"} if bold else {}
        element = self._add(
            "text", x=f"{x:.1f}", y=f"{y:.1f}", text_anchor=anchor, font_size=f"{size:g}", fill=color, **look
        )
        element.text = one_line(text)

    def horizontal(
        self, scale: Axis, y: float, most: int, *, title: str = "", size: float = 11, grid_to: float | None = None
    ) -> None:
        """Ticks, their texts and the axis' title under a plot; grid lines up to ``grid_to``."""
        values = _fitting_ticks(scale, most, size)
        if grid_to is None:
            self.line(scale.start, y, scale.end, y, RULE)
        for value, text in zip(values, tick_texts(values)):
            x = scale.at(value)
            self.line(x, y, x, grid_to if grid_to is not None else y + 3)
            half = len(text) * size * 0.29
            anchor = "start" if x - half < 0 else "end" if x + half > self.width else "middle"
            at = {"start": max(0.0, x - half), "end": min(self.width, x + half), "middle": x}[anchor]
            self.text(at, y + size + 3, text, anchor=anchor, size=size)
        if title:
            self.text((scale.start + scale.end) / 2, y + 2 * size + 7, title, anchor="middle", size=size, color=INK)

    def vertical(self, scale: Axis, x: float, most: int, *, size: float = 11, grid_to: float | None = None) -> None:
        """Ticks and their texts left of a plot; grid lines up to ``grid_to``."""
        values = ticks(scale, most)
        for value, text in zip(values, tick_texts(values)):
            y = scale.at(value)
            self.line(x - (0 if grid_to else 3), y, x if grid_to is None else grid_to, y)
            self.text(x - 5, y + size * 0.35, text, anchor="end", size=size)

    def markup(self) -> str:
        """The element as text, ready to stand inside a page."""
        return ElementTree.tostring(self.root, encoding="unicode")

    def _add(self, tag: str, **attributes: str) -> ElementTree.Element:
        return ElementTree.SubElement(
            self.root, tag, {key.replace("_", "-"): value for key, value in attributes.items()}
        )
