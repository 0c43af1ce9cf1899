"""A histogram of which some coordinates are known, some lie in intervals, and the others are free: all by counting.

Definition. With P(c) the mass of cell c and f_j(c_j) what axis j says of it (the density at a known value, the share of the
cell that lies in an interval, 1 where the axis is free), P(evidence) = Σ_c P(c) Π_j f_j(c_j), cells given the evidence have
the terms of that sum as their weights, and a point of a cell is uniform on what the intervals leave of it (exponential in
the tails, cut to the interval). Nothing is estimated. NumPy, float64. Identities: ``density.marginal``,
``density.conditional``.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from mulligan.models.boxes import Candidates
from mulligan.targets.counting import Histogram


class CountedForm(NamedTuple):
    """``edges`` of d axes, ``mass`` of each cell (adds up to 1), and whether the outermost cells of each axis are tails."""

    edges: tuple[np.ndarray, ...]
    mass: np.ndarray
    tails: bool


def counted_form(model: Any) -> CountedForm | None:
    """A histogram's cells in float64; None for any other model.

    >>> counted_form(Histogram([[0.0, 0.5, 1.0]], [1, 3])).mass.tolist()
    [0.25, 0.75]
    """
    if not isinstance(model, Histogram):
        return None
    mass = np.asarray(model.counts, np.float64) + float(model.pseudo)
    return CountedForm(tuple(np.asarray(axis) for axis in model.edges), mass / mass.sum(), model.tails)


def counted_candidates(
    form: CountedForm, low: np.ndarray, high: np.ndarray, draws: int, generator: np.random.Generator
) -> Candidates:
    """Exact draws a row with equal weights, as ``boxes.box_candidates``: a coordinate is known where low = high (n, d).

    >>> form = CountedForm((np.array([0.0, 0.5, 1.0]),), np.array([0.25, 0.75]), False)
    >>> found = counted_candidates(form, np.array([[0.25]]), np.array([[np.inf]]), 2, np.random.default_rng(0))
    >>> bool((found.points > 0.25).all()), np.exp(found.log_weights).round(6).tolist()
    (True, [[0.875, 0.875]])
    """
    n, d = low.shape
    said = [axis_log_shares(edges, form.tails, low[:, j], high[:, j]) for j, edges in enumerate(form.edges)]
    points, log_weights = np.empty((n, draws, d)), np.empty((n, draws))
    for i in range(n):
        top = [shares[i].max() for shares in said]
        # of a known axis one cell is left, so that what is added up is small
        kept = [np.flatnonzero(shares[i] > -np.inf) for shares in said]
        if not all(len(cells) for cells in kept):
            points[i], log_weights[i] = 0.0, -np.inf
            continue
        terms = form.mass[np.ix_(*kept)]
        for j, cells in enumerate(kept):
            terms = terms * np.exp(said[j][i, cells] - top[j]).reshape([-1 if a == j else 1 for a in range(d)])
        cumulated = np.cumsum(terms.reshape(-1))
        with np.errstate(divide="ignore"):
            log_weights[i] = np.log(cumulated[-1]) + sum(top)
        chosen = np.searchsorted(cumulated, generator.random(draws) * cumulated[-1], side="right")
        where = np.unravel_index(np.minimum(chosen, len(cumulated) - 1), terms.shape)
        for j, edges in enumerate(form.edges):
            cell = kept[j][where[j]] - form.tails
            points[i, :, j] = _within(edges, cell, low[i, j], high[i, j], generator.random(draws))
    return Candidates(points, log_weights)


def counted_log_prob(form: CountedForm, points: np.ndarray) -> np.ndarray:
    """log p of points (n, d), float64 (n,); −inf where nothing was counted.

    >>> form = CountedForm((np.array([0.0, 0.5, 1.0]),), np.array([0.25, 0.75]), False)
    >>> np.exp(counted_log_prob(form, np.array([[0.2], [0.7]]))).round(6).tolist()
    [0.5, 1.5]
    """
    generator = np.random.default_rng(0)  # nothing is free, so nothing is drawn
    return counted_candidates(form, points, points, 1, generator).log_weights[:, 0]


def axis_log_shares(edges: np.ndarray, tails: bool, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """log f (n, cells) of one axis: the log density of a cell's law at low = high, or the log of its mass between them."""
    known = low == high
    bins, (a, b) = len(edges) - 1, np.asarray(edges, np.float64)[[0, -1]]
    width = np.diff(np.asarray(edges, np.float64))
    first, last = width[0], width[-1]
    out = np.full((len(low), bins + 2), -np.inf)
    with np.errstate(divide="ignore", invalid="ignore"):
        inside = np.minimum(high[:, None], edges[1:]) - np.maximum(low[:, None], edges[:-1])
        out[:, 1:-1] = np.log(np.maximum(inside, 0.0) / width)
        for cell, near, far, scale in (
            (0, a - np.minimum(high, a), a - low, first),
            (bins + 1, np.maximum(low, b) - b, high - b, last),
        ):
            cut = np.log(-np.expm1(-np.maximum(far - near, 0.0) / scale))
            out[:, cell] = np.where(far > near, -near / scale + cut, -np.inf)
    if known.any():
        at = np.flatnonzero(known)
        # the float type in use decides in which cell a value is, as it does in ``log_prob`` of the model
        x = np.asarray(low[at], edges.dtype)
        place = np.searchsorted(edges, x, side="right") - 1
        place = np.where(x == edges[-1], bins - 1, place)
        beyond = np.maximum(a - low[at], 0.0) + np.maximum(low[at] - b, 0.0)
        out[at] = -np.inf
        nearest = np.clip(place, 0, bins - 1)
        out[at, place + 1] = -np.log(width[nearest]) - np.where(place == nearest, 0.0, beyond / width[nearest])
    return out if tails else out[:, 1:-1]


def _within(edges: np.ndarray, cell: np.ndarray, low: float, high: float, uniform: np.ndarray) -> np.ndarray:
    """A point in the cell (draws,) between low and high; −1 is the lower tail, the number of bins the upper one."""
    if low == high:
        return np.full(len(cell), low)
    edges = np.asarray(edges, np.float64)
    bins = len(edges) - 1
    nearest = np.clip(cell, 0, bins - 1)
    start, end = np.maximum(edges[nearest], low), np.minimum(edges[nearest + 1], high)
    x = start + uniform * (end - start)
    width = edges[nearest + 1] - edges[nearest]
    for side, sign, edge, near, far in (
        (cell < 0, -1.0, edges[0], edges[0] - min(high, edges[0]), edges[0] - low),
        (cell >= bins, 1.0, edges[-1], max(low, edges[-1]) - edges[-1], high - edges[-1]),
    ):
        reach = near - width * np.log1p(uniform * np.expm1(-max(far - near, 0.0) / width))
        x = np.where(side, edge + sign * reach, x)
    return np.clip(x, low, high)
