"""The curse of dimension: cells that stand empty, and points that crowd near the surface.

Definition. n points uniform in a cube of K^d cells occupy the share 1 − (1 − K^−d)^n of them on average, and the share
1 − (1 − 2ε)^d of the points lies within ε of the surface. Serves ``density.curse``.
"""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np

from mulligan.lab.experiment import Range, experiment
from mulligan.lab.identities.phenomena import occupied_share, shell_share
from mulligan.lab.identity import mean_and_error, monte_carlo
from mulligan.lab.recording import Bars, Curve, Panel, Points, Recording, Scale
from mulligan.quantity import Quantity
from mulligan.targets.counting import Histogram

REPEATS, DRAWN, MOST_CELLS, LARGEST = 24, 250, 1 << 20, 12
_AWAY = -9.0  # where points of the other colour are put, outside the axes


@experiment(1, "The curse of dimension: empty cells, crowded shells")
def curse(
    *,
    n: Annotated[int, Range(50, 5000)] = 1000,
    bins: Annotated[int, Range(2, 4)] = 3,
    depth: Annotated[float, Range(0.01, 0.2)] = 0.05,
    seed: int = 0,
) -> Recording:
    """n uniform points in K^d cells, d = 1, 2, …: the share of cells with a point, and of points near the surface.

    Occupied: 1 − (1 − K^−d)^n; within ε of the surface: 1 − (1 − 2ε)^d. Parameters: ``n``; ``bins`` K a side (d ends
    where K^d passes a million, at 12 at most); ``depth`` ε. Raises UsageError for a value out of range. Source: Bellman
    (1961).

    >>> from mulligan.lab.experiments.curse import curse
    >>> curse(n=200, bins=2, seed=1).holds
    True
    """
    rng = np.random.default_rng(seed)
    dims = [d for d in range(1, LARGEST + 1) if bins**d <= MOST_CELLS]
    occupied, near, first = [], [], []
    for d in dims:
        rows = rng.uniform(size=(REPEATS, n, d))
        laws = [Histogram.from_rows(part, [np.linspace(0.0, 1.0, bins + 1)] * d) for part in rows]
        occupied.append(mean_and_error([np.mean(np.asarray(law.counts) > 0) for law in laws]))
        inside = np.minimum(rows, 1 - rows).min(axis=-1) < depth
        near.append(mean_and_error(inside.mean(axis=1)))
        flat = rows[0, :DRAWN] if d > 1 else np.column_stack([rows[0, :DRAWN, 0], np.full(min(n, DRAWN), 0.5)])
        first.append((flat[:, :2], inside[0, :DRAWN]))
    expected = [occupied_share(bins**d, n) for d in dims], [shell_share(d, depth) for d in dims]
    return Recording(
        panels=(
            _first_two(first),
            _shares("cells with at least one point", dims, occupied, expected[0], "share of the cells", "model"),
            _shares(f"points within {depth:g} of the surface", dims, near, expected[1], "share of the points", "mark"),
        ),
        captions=tuple(_caption(d, bins, n, float(o[0]), float(s[0])) for d, o, s in zip(dims, occupied, near)),
        see="The first two coordinates look the same throughout, while almost every cell of the cube goes empty.",
        numbers={"occupied cells": _quantities(occupied), "points near the surface": _quantities(near)},
        checks={
            "occupied cells: 1 − (1 − K^−d)^n": _agree(dims, occupied, expected[0]),
            "points near the surface: 1 − (1 − 2ε)^d": _agree(dims, near, expected[1]),
        },
        rate=1.5,
    )


def _agree(dims: list[int], found: list[Any], expected: list[float]) -> Any:
    """Each share against its formula; where all repeats agree they agree with it up to 1/(repeats) of an event."""
    pairs = {}
    for d, (average, error), truth in zip(dims, found, expected):
        # Where no repeat missed (or hit), the observed spread is 0; the binomial error of the formula is at least this.
        least = np.sqrt(max(truth * (1 - truth), 1e-12) / (REPEATS * 50))
        pairs[f"d = {d}"] = (average, truth, max(float(error), float(least) if error == 0 else 0.0))
    return monte_carlo(pairs)


def _first_two(first: list[tuple[np.ndarray, np.ndarray]]) -> Panel:
    near, far = (
        np.stack([np.where((inside == wanted)[:, None], flat, _AWAY) for flat, inside in first])
        for wanted in (True, False)
    )
    x, y = Scale("x₁ (sides of the cube)", 0.0, 1.0), Scale("x₂ (sides of the cube)", 0.0, 1.0)
    layers = (
        Points("far from the surface", far, role="model", size=4.0),
        Points("near the surface", near, role="mark", size=4.0),
    )
    return Panel("two coordinates; orange: near the surface", x, y, layers, square=True, legend=False)


def _shares(title: str, dims: list[int], found: list[Any], expected: list[float], label: str, role: Any) -> Panel:
    """Bars up to the dimension of the frame, their 95 % intervals, and the formula."""
    average, error = (np.array([float(each[k]) for each in found]) for k in (0, 1))
    shown = np.tril(np.ones((len(dims), len(dims))))
    layers = (
        Bars(f"counted: {title}", np.array(dims, float), shown * average, role=role, error=shown * error),
        Curve(f"formula: {title}", np.array(dims, float), np.array(expected)[None], role="ink", dashed=True, dots=True),
    )
    return Panel(title, Scale("dimension d", 0.3, dims[-1] + 0.7), Scale(label, 0.0, 1.08), layers, legend=False)


def _caption(d: int, bins: int, n: int, occupied: float, near: float) -> str:
    said = f"d = {d}: {bins**d:,} cells for {n:,} points; {occupied:.1%} of the cells hold a point, "
    return said + f"{near:.0%} of the points lie near the surface (bars: counted; dashed: formula)."


def _quantities(found: list[Any]) -> tuple[Quantity, ...]:
    return tuple(
        Quantity(float(m), "estimate", float(m - 2.07 * s), float(m + 2.07 * s), stderr=float(s) or None, n=REPEATS)
        for m, s in found
    )
