"""``histogram``: counting, on one to three columns; cells and pseudo-count chosen on select.

Two tail cells on each axis, with exponential densities, keep log p finite everywhere, so a row just outside the training
range costs much but not everything.
"""

from __future__ import annotations

from functools import partial

import numpy as np

from mulligan.catalog import Effort
from mulligan.errors import FitError, UsageError
from mulligan.families.recipe import Allowance, Fitting, Outcome, Recipe, all_points
from mulligan.targets.counting import Histogram

BINS = {"quick": (4, 8, 16, 32), "standard": (4, 6, 8, 12, 16, 24, 32, 48, 64), "thorough": tuple(range(4, 97, 4))}
PSEUDO_COUNTS = (1e-3, 1e-2, 1e-1, 1.0)
MOST_CELLS = 300_000


def make(variant: str | None, effort: Effort, bins: tuple[int, ...] | None, pseudo_count: float | None) -> Recipe:
    """The recipe; ``None`` means chosen on select."""
    pseudo = PSEUDO_COUNTS if pseudo_count is None else (pseudo_count,)
    return partial(fit, bins=bins or BINS[effort], pseudo_counts=pseudo, forced=bins is not None)


def fit(fitting: Fitting, bins: tuple[int, ...], pseudo_counts: tuple[float, ...], forced: bool) -> Outcome:
    """Count for each number of cells, keep the best on select."""
    points = all_points(fitting.train)
    weight = fitting.train.points.shape[1]  # m draws a row: each counts 1/m
    best: tuple[float, Histogram, str] | None = None
    choices = []
    allowance = Allowance(fitting.budget, None, fitting.compiled)
    fitting_bins = [count for count in bins if (count + 2) ** fitting.dim <= MOST_CELLS]
    if forced and len(fitting_bins) < len(bins):
        most = int(MOST_CELLS ** (1 / fitting.dim)) - 2
        raise UsageError(f"bins is {max(bins)}; expected at most {most} on {fitting.dim} columns", "histogram.bins")
    for count in fitting_bins:
        edges = tuple(_edges(points[:, j], count) for j in range(fitting.dim))
        for pseudo in pseudo_counts:
            model = Histogram.from_rows(points, edges, pseudo=pseudo * weight, tails=True)
            score = fitting.select_score(model)
            option = f"bins={count} pseudo-count={pseudo:g}"
            choices.append({"option": option, "select": score, "bic": None})
            if not np.isnan(score) and (best is None or score > best[0]):
                best = (score, model, f"histogram ({count} cells a column, pseudo-count {pseudo:g})")
        fitting.pulse(f"histogram {count} bins", count, max(bins), {"select": score})
        if fitting.interrupted() or allowance.over:
            break
    if best is None:
        raise FitError("histogram: log p of the select rows is NaN for every number of cells")
    _, model, label = best
    return Outcome(model, label, parameters=int(np.prod(model.counts.shape)) - 1, choices=choices)


def _edges(column: np.ndarray, count: int) -> np.ndarray:
    low, high = float(column.min()), float(column.max())
    margin = 1e-6 * max(high - low, 1e-6)
    return np.linspace(low - margin, high + margin, count + 1).astype(np.float32)
