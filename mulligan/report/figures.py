"""Figures of the comparison: log p, paired differences and AUC with their 95 % intervals, and the learning curves.

How a number is drawn says ``marks``; what the samples are good for, p-values and cost are drawn by ``evidence``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mulligan.report.cells import label, ordered, unit
from mulligan.report.formatting import fixed
from mulligan.report.marks import ARROW, ends_of, mark, open_side
from mulligan.report.svg import INK, MARK, MODEL, QUIET, Drawing, axis, short

WIDTH, ROW = 350.0, 24.0
RIGHT_MARGIN = 14.0
MOST_POINTS = 300
GAP_TITLE = "Gap to the true law"


@dataclass(frozen=True)
class Figure:
    """A drawing with its heading and the caption that explains it."""

    title: str
    caption: str
    markup: str


def comparison_figures(report: Mapping[str, Any]) -> list[Figure]:
    """Forest plots of log p, difference, AUC and gap to the truth: each where a family has the number."""
    families = [family for family in ordered(report) if family["status"] == "ok"]
    measure = unit(report)
    best = next((label(f) for f in families if f["family"] == report.get("reference")), "the reference")
    plots: list[tuple[str, str, str, Callable[[Mapping[str, Any]], Any], float | None]] = [
        (
            "log p of the test rows",
            f"mean log p, {measure}",
            "Higher is better. All families see the same rows, so these intervals move together: compare families "
            "by the paired differences, not by overlap here.",
            lambda f: f["log_prob"],
            None,
        ),
        (
            "Paired differences",
            f"log p minus that of {short(best, 18)}, {measure}",
            f"Row by row against {best}, the best on select. An interval that holds 0 (dashed) does not tell the two "
            "apart. Each interval holds at 95 % by itself, not all of them together.",
            lambda f: f.get("delta_to_best"),
            0.0,
        ),
        (
            "Samples told from real rows",
            "two-sample AUC (.5: it cannot, 1: always)",
            "A classifier learns to tell generated rows from test rows: .5 (dashed) is chance, 1 perfect separation.",
            lambda f: f.get("two_sample_auc"),
            0.5,
        ),
        (
            GAP_TITLE,
            f"E log p of the law minus log p, {measure}",
            "Over fresh draws of the known law: the Kullback–Leibler divergence from the law to the model. 0 (dashed) "
            "is a model that is the law.",
            lambda f: f.get("truth_gap"),
            0.0,
        ),
    ]
    figures = []
    for title, axis_title, caption, pick, origin in plots:
        drawn = [(family, pick(family)) for family in families]
        drawn = [(f, q) for f, q in drawn if q and q["kind"] != "none" and q["value"] is not None]
        if drawn:
            figures.append(Figure(title, caption, forest(drawn, title, axis_title, origin, title == GAP_TITLE)))
    return figures


def forest(
    rows: Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]],
    title: str,
    axis_title: str,
    origin: float | None,
    high_is_bad: bool = False,
) -> str:
    """One row a family: its value and 95 % interval; ``origin`` is a dashed line of comparison.

    One family far below all others would press the rest into a corner: the axis then ends before it, and its row says
    its value at the edge.
    """
    low, high = window([quantity for _, quantity in rows], origin, high_is_bad)
    names = [short(family["family"], 17) for family, _ in rows]
    left = 14 + 6.6 * max(map(len, names))
    # Arrows of bounds may pass the ends of the axis: room for them is kept beside it.
    sides = {open_side(quantity) for _, quantity in rows}
    start, end = left + ARROW * (-1 in sides), WIDTH - RIGHT_MARGIN - ARROW * (1 in sides)
    scale = axis(low, high, start, end, margin=0.04)
    bottom = 8 + ROW * len(rows)
    said = "; ".join(f"{label(family)} {_spoken(quantity)}" for family, quantity in rows)
    drawing = Drawing(WIDTH, bottom + 38, f"{title}. {said}.")
    drawing.horizontal(scale, bottom, 5, title=axis_title, grid_to=4)
    if origin is not None and scale.holds(origin):
        drawing.line(scale.at(origin), 4, scale.at(origin), bottom, MARK, 1.4, "4 3")
    for number, (_, quantity) in enumerate(rows):
        y = 8 + ROW * (number + 0.5)
        drawing.text(left - 8, y + 4, names[number], anchor="end", size=12, color=INK)
        mark(drawing, scale, y, quantity)
    return drawing.markup()


def _spoken(quantity: Mapping[str, Any]) -> str:
    low, high = quantity.get("low"), quantity.get("high")
    value = fixed(quantity["value"], 2)
    if open_side(quantity):
        return f"{value} ({quantity['kind']})"
    if quantity["kind"] == "bracket" and quantity.get("method_low") is not None:
        low, high = quantity["method_low"], quantity["method_high"]
        return f"between {fixed(low, 2)} and {fixed(high, 2)} (bracket)"
    return value if low is None or high is None else f"{value} ({fixed(low, 2)} to {fixed(high, 2)})"


def window(quantities: Sequence[Mapping[str, Any]], origin: float | None, high_is_bad: bool) -> tuple[float, float]:
    """The range to draw: everything, unless a few values lie many times farther out than the typical one."""
    values = np.array([quantity["value"] for quantity in quantities], float)
    ends = [end for quantity in quantities for end in ends_of(quantity)]
    if origin is not None:
        ends.append(origin)
    loss = values if high_is_bad else -values
    gaps = loss - loss.min()
    reach = 6 * max(float(np.median(gaps)), 1e-9)
    if gaps.max() <= reach or len(values) < 3:
        return min(ends), max(ends)
    near = [end for end in ends if (end if high_is_bad else -end) <= loss.min() + reach]
    return min(near), max(near)


def curve_figures(curves: Mapping[str, Mapping[str, Any]], families: Sequence[Mapping[str, Any]]) -> list[Figure]:
    """Training history of each family that has one: train (grey) and select (blue) by step."""
    figures = []
    for family in families:
        curve = curves.get(family["family"])
        if curve is not None and np.size(curve["step"]) > 1:
            figures.append(Figure(label(family), "", _curve(label(family), curve)))
    return figures


def _curve(name: str, curve: Mapping[str, Any]) -> str:
    steps = np.asarray(curve["step"], float)
    # Few enough points to be light, always with the first and the last.
    pick = np.unique(np.linspace(0, steps.size - 1, min(steps.size, MOST_POINTS)).round().astype(int))
    lines = [("train", np.asarray(curve["train"], float)[pick], QUIET, "")]
    if curve.get("select") is not None:
        lines.append(("select", np.asarray(curve["select"], float)[pick], MODEL, ""))
    steps = steps[pick]
    # The first steps often start far away; the axis follows the rest, and the line enters from outside.
    settled = [values[steps >= steps[0] + 0.2 * (steps[-1] - steps[0])] for _, values, _, _ in lines]
    finite = np.concatenate(settled)
    finite = finite[np.isfinite(finite)]
    if not finite.size:
        finite = np.zeros(1)
    drawing = Drawing(WIDTH, 190, _curve_alt(name, lines, steps, curve["unit"]))
    across = axis(float(steps[0]), float(steps[-1]), 52, WIDTH - 52)
    up = axis(float(finite.min()), float(finite.max()), 146, 20, margin=0.06)
    drawing.vertical(up, 52, 5, grid_to=across.end)
    drawing.horizontal(across, 146, 5, title="step")
    drawing.text(0, 10, curve["unit"], color=INK)
    ends = []
    for word, values, color, dash in lines:
        inside = np.where((values >= up.low) & (values <= up.high), values, np.nan)
        drawing.path(zip(across.many(steps), up.many(inside)), color, 1.6, dash)
        last = values[np.isfinite(inside)]
        ends.append((word, up.at(float(last[-1])) if last.size else 20.0, color))
    ends.sort(key=lambda end: end[1])
    for number, (word, y, color) in enumerate(ends):
        below = y if number == 0 else max(y, ends[number - 1][1] + 13)
        drawing.text(across.end + 5, below + 4, word, color=color, bold=True)
    return drawing.markup()


def _curve_alt(name: str, lines: Sequence[tuple[str, np.ndarray, str, str]], steps: np.ndarray, measure: str) -> str:
    parts = []
    for word, values, _, _ in lines:
        finite = values[np.isfinite(values)]
        if finite.size:
            parts.append(f"{word} from {fixed(float(finite[0]), 2)} to {fixed(float(finite[-1]), 2)}")
    last = f"{steps[-1]:,.0f}" if math.isfinite(steps[-1]) else "the last"
    return f"Learning curve of {name} over {last} steps, {measure}: {', '.join(parts) or 'no finite value'}."
