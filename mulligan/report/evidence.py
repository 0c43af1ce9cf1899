"""Figures of the second edition: use of samples, memory, p-values of unusual rows, and quality against cost.

Each is left out where no family has its numbers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from mulligan.report.cells import label, ordered, unit
from mulligan.report.figures import WIDTH, Figure, forest, window
from mulligan.report.formatting import count, fixed, listed, seconds, share
from mulligan.report.marks import ARROW, ends_of, mark, open_side
from mulligan.report.svg import INK, MARK, MODEL, QUIET, RULE, Axis, Drawing, axis, short

Family = Mapping[str, Any]
PANEL, SIDE = 168.0, 124.0
SECONDS = {0.001: "1 ms", 0.01: "10 ms", 0.1: "0.1 s", 1.0: "1 s", 10.0: "10 s", 60.0: "1 min", 600.0: "10 min"}
SECONDS |= {3600.0: "1 h", 36_000.0: "10 h"}
STROKES = {0.0: "0", **{10.0**k: f"{10**k:,}" for k in range(6)}}
LETTER, LINE = 5.9, 12.0  # pixels that a letter and a line of 11 px text take


def use_figures(report: Mapping[str, Any]) -> list[Figure]:
    """Forest of the differences of explained shares, samples minus real rows."""
    caption = (
        "Left of 0 (dashed): the samples teach the predictor less than as many real training rows do. An interval that "
        "holds 0 does not tell the two apart."
    )
    rows = _having(report, lambda f: (f.get("use") or {}).get("difference"))
    title, axis_title = "Samples in place of real rows", "explained share, samples minus real rows"
    return [Figure(title, caption, forest(rows, title, axis_title, 0.0))] if rows else []


def memory_figures(report: Mapping[str, Any]) -> list[Figure]:
    """Forests of the copied share, and of how often a sample is nearer to a training row than a test row is."""
    plots = [
        (
            "Copied share",
            "copied",
            "share of samples, beyond chance",
            0.0,
            "Samples that lie nearest to a training row, beyond what training and test rows make likely: 0 (dashed) for a "
            "model that remembers none, 1 where all are copies.",
        ),
        (
            "Nearer than a test row",
            "nearer",
            "chance (.5: as near, 1: always nearer)",
            0.5,
            "Is a sample nearer to its nearest training row than a test row is to its own? .5 (dashed) for the law of the "
            "data. Above it: copies, or a law that is too narrow; only the first have a copied share.",
        ),
    ]
    figures = []
    for title, name, axis_title, origin, caption in plots:
        rows = _having(report, lambda f, name=name: (f.get("samples") or {}).get(name))  # type: ignore[misc]
        if rows:
            figures.append(Figure(title, caption, forest(rows, title, axis_title, origin, high_is_bad=True)))
    return figures


def _having(report: Mapping[str, Any], pick: Callable[[Family], Any]) -> list[tuple[Family, Any]]:
    """Families that have a finite number, with it."""
    found = [(family, pick(family)) for family in ordered(report) if family["status"] == "ok"]
    return [(f, q) for f, q in found if q and q["kind"] != "none" and q["value"] is not None]


def p_value_figures(report: Mapping[str, Any]) -> list[Figure]:
    """For each family the share of test rows with p ≤ a, against a: on the diagonal where p-values are valid."""
    rows = _having(report, lambda f: (f.get("anomaly") or {}).get("ks"))
    # Names without their settings: headings of one line keep the panels of a row at one height.
    named = [(short(f["family"], 18), f) for f, _ in rows]
    return [Figure(name, _p_value_words(f["anomaly"]), _p_values(label(f), f["anomaly"])) for name, f in named]


def _p_value_words(found: Mapping[str, Any]) -> str:
    beyond = found["ks"]["value"] > found["bar"]
    size = f"KS {share(found['ks']['value'])}, bar {share(found['bar'])}"
    return f"{size}: {'beyond chance' if beyond else 'as valid ones'}"


def _p_values(name: str, found: Mapping[str, Any]) -> str:
    left, top = 30.0, 22.0
    bar, ks = float(found["bar"]), found["ks"]["value"]
    alt = (
        f"Share of test rows with p up to a, against a, {name}: {fixed(ks, 2)} from the diagonal, bar {fixed(bar, 2)}."
    )
    drawing = Drawing(PANEL, top + SIDE + 40, alt)
    across, up = Axis(0.0, 1.0, left, left + SIDE), Axis(0.0, 1.0, top + SIDE, top)
    near = min(bar, 1.0)
    band = [(0.0, 0.0), (0.0, near), (1 - near, 1.0), (1.0, 1.0), (1.0, 1 - near), (near, 0.0)]
    drawing.shape([(across.at(x), up.at(y)) for x, y in band], "#e7e9ec")
    drawing.text(0, 10, "share with p ≤ a", size=10, color=INK)
    drawing.vertical(up, left, 3, size=10)
    drawing.horizontal(across, top + SIDE, 3, title="p-value a", size=10)
    drawing.line(left, top, left, top + SIDE, RULE)
    drawing.line(across.at(0), up.at(0), across.at(1), up.at(1), MARK, 1.2, "4 3")
    shares = np.asarray(found["shares"], float)
    levels = np.linspace(0.0, 1.0, max(shares.size, 2))[: shares.size]
    drawing.path(zip(across.many(levels), up.many(shares)), MODEL, 1.8)
    return drawing.markup()


def cost_figures(report: Mapping[str, Any]) -> list[Figure]:
    """Quality against the seconds of the fit and against the strokes of a sample: one mark a family."""
    gaps = bool(_having(report, lambda f: f.get("truth_gap")))
    measure = unit(report)
    quality = f"gap to the truth, {measure}" if gaps else f"log p, {measure}"
    rows = _having(report, (lambda f: f.get("truth_gap")) if gaps else (lambda f: f["log_prob"]))
    without = [label(f) for f in ordered(report) if f["status"] == "ok" and f["log_prob"]["kind"] == "none"]
    missing = f" Without log p, so not here: {listed(without)}." if without else ""
    better = "Lower is better." if gaps else "Higher is better."
    apart = " 0 stands apart from the logarithmic axis."
    plots = [
        Plot("Quality against fit time", quality, rows, "fit_seconds", gaps, better + missing),
        Plot("Quality against strokes", quality, rows, "strokes", gaps, better + apart + missing),
        Plot(
            "Samples against strokes",
            "two-sample AUC (.5: samples not told apart)",
            _having(report, lambda f: f.get("two_sample_auc")),
            "strokes",
            True,
            "Lower is better." + apart,
        ),
    ]
    figures = []
    for plot in plots:
        priced = [(f, q) for f, q in plot.rows if f.get(plot.cost) is not None]
        if len(priced) > 1:
            caption = f"{plot.caption} Families of equal cost stand side by side."
            figures.append(Figure(plot.title, caption, _scatter(plot._replace(rows=priced))))
    return figures


class Plot(NamedTuple):
    """One picture of quality against cost: ``quality`` names the upright axis, ``cost`` the field of a family."""

    title: str
    quality: str
    rows: Sequence[tuple[Family, Mapping[str, Any]]]
    cost: str
    high_is_bad: bool
    caption: str


def _scatter(plot: Plot) -> str:
    timed = plot.cost == "fit_seconds"
    stops, said = (SECONDS, seconds) if timed else (STROKES, count)
    quantities = [quantity for _, quantity in plot.rows]
    alt = "; ".join(f"{label(f)} {fixed(q['value'], 2)} at {said(f[plot.cost])}" for f, q in plot.rows)
    bottom, left, top, right = 250.0, 48.0, 20.0, WIDTH - 12
    drawing = Drawing(WIDTH, bottom + 42, f"{plot.title}, {plot.quality}: {alt}.")
    sides = {open_side(quantity) for quantity in quantities}
    low, high = window(quantities, None, plot.high_is_bad)
    up = axis(low, high, bottom - 8 - ARROW * (-1 in sides), top + 4 + ARROW * (1 in sides), margin=0.05)
    drawing.vertical(up, left, 6, grid_to=right)
    drawing.text(0, 10, plot.quality, color=INK)
    places = [_logarithm(family[plot.cost], stops) for family, _ in plot.rows]
    across = _cost_axis(drawing, places, stops, (left, right, bottom))
    title = "fit time (logarithmic)" if timed else "evaluations of the network for one sample"
    drawing.text((left + right) / 2, bottom + 33, title, anchor="middle", color=INK)
    xs = _side_by_side([across.at(place) for place in places])
    names = [short(family["family"], 17) for family, _ in plot.rows]
    spots, marks = [], []
    for x, quantity in zip(xs, quantities):
        mark(drawing, up, x, quantity, upright=True)
        ys = [min(max(up.at(value), up.end), up.start) for value in ends_of(quantity)]
        ys.append(ys[0] - ARROW * open_side(quantity))
        spots.append((x, ys[0]))
        marks.append((x - 5, min(ys) - 4, x + 5, max(ys) + 4))
    for name, (x, y, anchor) in zip(names, labelled(spots, names, (left, right, top, bottom), marks)):
        drawing.text(x, y, name, anchor=anchor, color=INK)
    return drawing.markup()


def _cost_axis(
    drawing: Drawing, places: Sequence[float], stops: Mapping[float, str], frame: tuple[float, float, float]
) -> Axis:
    """A logarithmic axis from one stop to another, so that there are at least two numbers on it."""
    left, right, bottom = frame
    marks = [(text, _logarithm(stop, stops)) for stop, text in stops.items()]
    first = max((place for _, place in marks if place <= min(places)), default=marks[0][1])
    last = min((place for _, place in marks if place >= max(places)), default=marks[-1][1])
    across = Axis(min(first, min(places)) - 0.15, max(last, max(places)) + 0.15, left, right)
    drawing.line(left, bottom, right, bottom, QUIET)
    taken = -math.inf
    for text, place in marks:
        if across.holds(place):
            x, half = across.at(place), len(text) * LETTER / 2
            drawing.line(x, bottom, x, bottom + 4, QUIET)
            if x - half > taken:
                drawing.text(min(x, WIDTH - half), bottom + 16, text, anchor="middle")
                taken = x + half + 5
    return across


def _side_by_side(xs: Sequence[float], apart: float = 10.0) -> list[float]:
    """Pixels moved as little as keeps neighbours this far apart; a chain of close ones is spread around its mean."""
    order = sorted(range(len(xs)), key=lambda i: xs[i])
    groups: list[list[int]] = []
    centre: list[float] = []
    for i in order:
        groups.append([i])
        centre.append(xs[i])
        while len(groups) > 1 and centre[-1] - centre[-2] < apart * (len(groups[-1]) + len(groups[-2])) / 2:
            merged = groups[-2] + groups[-1]
            groups[-2:], centre[-2:] = [merged], [sum(xs[j] for j in merged) / len(merged)]
    out = list(xs)
    for group, middle in zip(groups, centre):
        for number, i in enumerate(group):
            out[i] = middle + apart * (number - (len(group) - 1) / 2)
    return out


def _logarithm(value: float, stops: Mapping[float, str]) -> float:
    """Where a cost stands on the axis: log₁₀, not below the first stop; 0 has a place of its own where it is a stop."""
    first = min(stop for stop in stops if stop > 0)
    if value < first:
        return math.log10(first) - (0.7 if 0.0 in stops else 0.0)
    return math.log10(value)


def labelled(
    spots: Sequence[tuple[float, float]],
    names: Sequence[str],
    frame: tuple[float, float, float, float],
    marks: Sequence[tuple[float, float, float, float]] = (),
) -> list[tuple[float, float, str]]:
    """Where the name of each spot is written: beside it, above or below, wherever it hides least of the others.

    ``frame`` is left, right, top and bottom; ``marks`` are boxes (left, top, right, bottom) that are taken; a place is (x,
    y of the base line, anchor).

    >>> labelled([(50.0, 50.0)], ["a"], (0.0, 100.0, 0.0, 100.0))
    [(57.0, 54.0, 'start')]
    """
    left, right, top, bottom = frame
    boxes = [(x - 5, y - 7, x + 5, y + 7) for x, y in spots] + list(marks)
    placed = []
    for (x, y), name in zip(spots, names):
        size = len(name) * LETTER
        choices = [(x + 7, y + 4, "start"), (x - 7, y + 4, "end")]
        for step in (6.0, 12.0, 18.0, 25.0, 32.0):
            choices += [(x + 7, y - step, "start"), (x + 7, y + step + 8, "start")]
            choices += [(x - 7, y - step, "end"), (x - 7, y + step + 8, "end")]
            choices += [(x, y - step - 4, "middle"), (x, y + step + 11, "middle")]
        found = []
        for rank, (at, base, anchor) in enumerate(choices):
            start = at - {"start": 0.0, "middle": size / 2, "end": size}[anchor]
            box = (start, base - LINE + 3, start + size, base + 2)
            hidden = sum(_common(box, other) for other in boxes)
            inside = left <= box[0] and box[2] <= right + 10 and top <= box[1] and box[3] <= bottom
            found.append((hidden + (0.0 if inside else 1e4) + 0.1 * rank, (at, base, anchor), box))
        _, place, box = min(found, key=lambda one: one[0])
        boxes.append(box)
        placed.append(place)
    return placed


def _common(one: tuple[float, ...], other: tuple[float, ...]) -> float:
    """Area that two boxes share."""
    wide = min(one[2], other[2]) - max(one[0], other[0])
    high = min(one[3], other[3]) - max(one[1], other[1])
    return max(0.0, wide) * max(0.0, high)
