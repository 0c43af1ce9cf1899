"""Samples against data: one row a column (or a pair of columns), one panel a family, on the same axes along the row.

Data are grey, a model is blue. Shares are of all rows, also those beyond the axis: what lies beyond is said in words.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

from mulligan.report.formatting import one_line
from mulligan.report.svg import DATA, INK, MODEL, QUIET, RULE, Axis, Drawing, axis, short

MOST_COLUMNS = 12
MOST_PAIR_COLUMNS = 4
MOST_LEVELS = 12
MOST_POINTS = 300
MOST_LETTERS = 60
BINS = 26
WIDTH, HEIGHT, TOP, FLOOR = 136.0, 84.0, 18.0, 66.0
HEADROOM = 1.35  # heights are drawn up to this many times the data's highest bar
GOLDEN = 0.6180339887498949


@dataclass(frozen=True)
class Row:
    """A row of panels: the column's name, a line about it, and one drawing a family."""

    name: str
    about: str
    panels: tuple[str, ...]


@dataclass(frozen=True)
class Column:
    """One column of the pictures, with the cells in which its values are counted."""

    name: str
    real: np.ndarray
    edges: np.ndarray
    levels: tuple[str, ...]
    bars: bool


def marginal_rows(pictures: Mapping[str, Any], families: Sequence[str]) -> list[Row]:
    """Marginals of the first MOST_COLUMNS columns: data as grey area, samples as a blue line or blue dots."""
    rows = []
    for index in range(min(len(pictures["names"]), MOST_COLUMNS)):
        column = column_of(pictures, index)
        heights = _shares(column.real, column.edges)[0]
        panels = []
        for family in families:
            samples = np.asarray(pictures["samples"][family], float)[:, index]
            panels.append(_marginal(column, heights, samples, family))
        rows.append(Row(short(column.name, MOST_LETTERS), _about(column), tuple(panels)))
    return rows


def column_of(pictures: Mapping[str, Any], index: int) -> Column:
    """The counting cells of one column: one a level or whole step where it is discrete, else BINS equal ones."""
    name = pictures["names"][index]
    real = np.asarray(pictures["real"], float)[:, index]
    real = real[np.isfinite(real)]
    levels = tuple(pictures.get("levels", {}).get(name) or ())
    if levels:
        return Column(name, real, np.arange(len(levels) + 1) - 0.5, levels, True)
    if real.size == 0:
        return Column(name, real, np.linspace(0.0, 1.0, BINS + 1), (), False)
    low, high = float(real.min()), float(real.max())
    if pictures["discrete"][index] and np.unique(real).size > 1:
        step = float(np.diff(np.unique(real)).min())
        # Cells of whole steps, else a histogram of gridded values shows teeth that are not in the data.
        each = max(1, int(np.ceil((high - low) / step / BINS)))
        number = int(np.floor((high - low) / (step * each))) + 1
        return Column(
            name, real, low - step / 2 + step * each * np.arange(number + 1), (), number <= BINS and each == 1
        )
    span = axis(low, high, 0, 1, margin=0.08)
    return Column(name, real, np.linspace(span.low, span.high, BINS + 1), (), False)


def _shares(values: np.ndarray, edges: np.ndarray) -> tuple[np.ndarray, float]:
    """Share of all values in each cell, and the share outside (beyond the axis, or not finite)."""
    total = max(values.size, 1)
    counts = np.histogram(values[np.isfinite(values)], edges)[0]
    return counts / total, 1.0 - counts.sum() / total


def _marginal(column: Column, heights: np.ndarray, samples: np.ndarray, family: str) -> str:
    model, outside = _shares(samples, column.edges)
    across = Axis(float(column.edges[0]), float(column.edges[-1]), 3, WIDTH - 3)
    top = HEADROOM * max(float(heights.max(initial=0.0)), 1e-9)
    up = Axis(0.0, top, FLOOR, TOP)
    apart = 0.5 * float(np.abs(model - heights).sum() + outside)
    alt = f"{column.name}: samples of {family} against data; the histograms differ in {apart:.0%} of the mass."
    drawing = Drawing(WIDTH, HEIGHT, alt)
    lefts = across.many(column.edges)
    shown = np.minimum(model, top)
    if column.bars:
        for left, right, height in zip(lefts[:-1], lefts[1:], heights):
            pad = min(3.0, 0.18 * (right - left))
            drawing.rect(left + pad, up.at(height), right - left - 2 * pad, FLOOR - up.at(height), DATA)
        for left, right, height in zip(lefts[:-1], lefts[1:], shown):
            drawing.line((left + right) / 2, FLOOR, (left + right) / 2, up.at(height), MODEL, 1.6)
            drawing.dot((left + right) / 2, up.at(height), radius=2.4)
    else:
        corners = [(x, up.at(h)) for l, r, h in zip(lefts[:-1], lefts[1:], heights) for x in (l, r)]
        drawing.shape([(lefts[0], FLOOR), *corners, (lefts[-1], FLOOR)], DATA)
        outline = [(x, up.at(h)) for l, r, h in zip(lefts[:-1], lefts[1:], shown) for x in (l, r)]
        drawing.path([(lefts[0], FLOOR), *outline, (lefts[-1], FLOOR)], MODEL, 1.4)
    for left, right, height in zip(lefts[:-1], lefts[1:], model):
        if height > top:
            middle = (left + right) / 2
            drawing.shape([(middle - 3.5, TOP), (middle + 3.5, TOP), (middle, TOP - 5.5)], MODEL)
    if outside >= 0.005:
        drawing.text(WIDTH - 2, 10, f"{outside:.0%} outside", anchor="end", size=10, color=INK)
    _floor(drawing, column, across)
    return drawing.markup()


def _floor(drawing: Drawing, column: Column, across: Axis) -> None:
    """The horizontal axis: names of levels where they fit, their numbers where they do not, else round values."""
    drawing.line(across.start, FLOOR, across.end, FLOOR, QUIET)
    if not column.levels:
        drawing.horizontal(across, FLOOR, 4, size=10)
        return
    texts = _level_texts(column)
    every = max(1, -(-len(texts) * 16 // int(WIDTH)))
    for number, text in enumerate(texts):
        if number % every == 0:
            drawing.text(across.at(number), FLOOR + 13, text, anchor="middle", size=10)


def _level_texts(column: Column) -> list[str]:
    room = (WIDTH - 6) / max(1, len(column.levels)) / 5.8
    if all(len(one_line(level)) <= room for level in column.levels):
        return [one_line(level) for level in column.levels]
    return [str(number + 1) for number in range(len(column.levels))]


def _about(column: Column) -> str:
    """What the numbers under the bars stand for, where names did not fit."""
    if not column.levels or _level_texts(column)[0] != "1" or one_line(column.levels[0]) == "1":
        return ""
    named = [f"{number + 1}\u00a0{short(level, 14)}" for number, level in enumerate(column.levels[:MOST_LEVELS])]
    more = len(column.levels) - MOST_LEVELS
    return ", ".join(named) + (f", and {more} more" if more > 0 else "")


def pair_rows(pictures: Mapping[str, Any], families: Sequence[str]) -> list[Row]:
    """Scatter panels of the pairs among at most MOST_PAIR_COLUMNS columns: the real rows first, then each family.

    Equally many points in every panel, so that thick and thin mean the same. Values of discrete columns are spread
    within their cell (by a fixed sequence), else equal points would hide one another.
    """
    columns = [column_of(pictures, index) for index in chosen_columns(pictures)]
    if len(columns) < 2:
        return []
    real = np.asarray(pictures["real"], float)
    clouds = {"real rows": real, **{family: np.asarray(pictures["samples"][family], float) for family in families}}
    alone = len(columns) == 2  # one pair only: room for a large panel
    most = min(MOST_POINTS * (3 if alone else 1), *(len(cloud) for cloud in clouds.values()))
    where = {column.name: index for index, column in zip(chosen_columns(pictures), columns)}
    rows = []
    for x, y in combinations(columns, 2):
        panels = []
        for name, cloud in clouds.items():
            points = cloud[:most][:, [where[x.name], where[y.name]]]
            panels.append(_scatter(x, y, points, name, 160.0 if alone else 104.0))
        rows.append(Row(f"{short(y.name, 28)} (up) by {short(x.name, 28)} (across)", "", tuple(panels)))
    return rows


def chosen_columns(pictures: Mapping[str, Any]) -> list[int]:
    """The columns whose rank correlations with others are strongest; categories without order are left out."""
    names, real = pictures["names"], np.asarray(pictures["real"], float)
    numeric = [i for i, name in enumerate(names) if not pictures.get("levels", {}).get(name)]
    numeric = [i for i in numeric if np.unique(real[:, i]).size > 1]
    if len(numeric) <= MOST_PAIR_COLUMNS or len(real) < 3:
        return numeric[:MOST_PAIR_COLUMNS]
    ranks = np.argsort(np.argsort(real[:, numeric], axis=0, kind="stable"), axis=0, kind="stable")
    strength = np.abs(np.corrcoef(ranks.T)) - np.eye(len(numeric))
    best = np.argsort(-np.sort(strength, axis=1)[:, -3:].sum(axis=1), kind="stable")[:MOST_PAIR_COLUMNS]
    return sorted(numeric[i] for i in best)


def _scatter(x: Column, y: Column, points: np.ndarray, name: str, side: float) -> str:
    left, top = 36.0, 15.0
    across = Axis(float(x.edges[0]), float(x.edges[-1]), left, left + side)
    up = Axis(float(y.edges[0]), float(y.edges[-1]), top + side, top)
    points = np.column_stack([_spread(x, points[:, 0], 0), _spread(y, points[:, 1], 1)])
    inside = (points[:, 0] >= across.low) & (points[:, 0] <= across.high)
    inside &= (points[:, 1] >= up.low) & (points[:, 1] <= up.high)
    drawing = Drawing(left + side + 12, top + side + 18, f"{y.name} against {x.name}, {name}: {len(points)} points.")
    drawing.vertical(up, left, 4, size=10, grid_to=left + side)
    drawing.horizontal(across, top + side, 4, size=10)
    color = QUIET if name == "real rows" else MODEL
    drawing.cloud(across.many(points[inside, 0]), up.many(points[inside, 1]), color)
    drawing.line(left, top, left, top + side, RULE)
    beyond = 1.0 - inside.mean() if inside.size else 0.0
    if beyond >= 0.005:
        drawing.text(left + side, 10, f"{beyond:.0%} outside", anchor="end", size=10, color=INK)
    return drawing.markup()


def _spread(column: Column, values: np.ndarray, phase: int) -> np.ndarray:
    if not column.bars:
        return values
    cell = float(column.edges[1] - column.edges[0])
    sequence = (np.arange(values.size) * (GOLDEN if phase == 0 else GOLDEN**2 * 0.77) + 0.31 * phase) % 1.0
    return values + 0.7 * cell * (sequence - 0.5)
