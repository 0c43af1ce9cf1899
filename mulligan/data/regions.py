"""Which points of R^d belong to evidence: a box in the coordinates of ``Codec``, and what a density there adds.

Definition. A continuous value is one point z, and adds log |dz/dv|. A value that has a cell (on a grid, at a cap), and a
range, are intervals of their coordinate. The k-th category is the box y_1 < t_1, …, y_{k−1} < t_{k−1}, y_k ≥ t_k of its
sticks. Whatever is known of a row's columns is therefore a box of R^d, and P(evidence) an integral over it.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from mulligan.data.codec import _HALF_LOG_2PI, Codec, _cells, _sticks, standardise
from mulligan.data.grid import has_cells, neighbours
from mulligan.data.native import is_category, is_cell
from mulligan.data.support import support
from mulligan.data.table import Column


class Region(NamedTuple):
    """``low`` and ``high`` (n, d), equal where a coordinate is known; ``log_jacobian`` (n,) of the known values."""

    low: np.ndarray
    high: np.ndarray
    log_jacobian: np.ndarray


def region_of(codec: Codec, values: np.ndarray, ranges: dict[str, tuple[float, float]] | None = None) -> Region:
    """The box of rows (n, columns) with NaN in unknown cells, and of ``ranges`` that hold for all rows.

    >>> from mulligan.data.codec import Part
    >>> from mulligan.data.table import Schema
    >>> codec = Codec(Schema((Column("i", "integer", step=1.0),)), (Part(0, 1, mean=1.0, scale=2.0),))
    >>> region_of(codec, np.array([[3.0]]))[:2]
    (array([[0.75]]), array([[1.25]]))
    """
    values = np.asarray(values, np.float64)
    n = len(values)
    low, high = np.full((n, codec.dim), -np.inf), np.full((n, codec.dim), np.inf)
    log_jacobian = np.zeros(n)
    for j, (column, part) in enumerate(zip(codec.schema.modelled, codec.parts)):
        rows = np.flatnonzero(~np.isnan(values[:, j]))
        v = values[rows, j]
        if is_category(column):
            thresholds, _ = _sticks(part)
            for i in range(part.width):
                low[rows, part.start + i] = np.where(v == i, thresholds[i], -np.inf)
                high[rows, part.start + i] = np.where(i < v, thresholds[i], np.inf)
            continue
        if column.name in (ranges or {}):
            ends = np.array(ranges[column.name])[:, None]  # type: ignore[index]
            low[:, part.start] = cell_edges(codec, j, ends[0])[0]
            high[:, part.start] = cell_edges(codec, j, ends[1])[1]
        if len(rows):
            low[rows, part.start], high[rows, part.start] = cell_edges(codec, j, v)
            slope = standardise(column, part, v)[1]
            log_jacobian[rows] += np.where(is_cell(column, v), 0.0, slope)
    return Region(low, high, log_jacobian)


def cell_edges(codec: Codec, j: int, v: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Ends of the cell of each value (n,) of the j-th column, in its coordinate: infinite beyond caps and at the ends of the
    support, both the value itself where it has no cell."""
    column, part = codec.schema.modelled[j], codec.parts[j]
    v = np.asarray(v, np.float64)
    finite = np.where(np.isfinite(v), v, column.minimum if column.minimum is not None else 0.5)
    least, greatest = support(column)
    finite = np.clip(finite, np.nextafter(least, np.inf), np.nextafter(greatest, -np.inf))
    below, above = neighbours(column, finite)
    out = []
    for end, cap, bound, sign in (
        ((below + finite) / 2, column.low_cap, least, -1.0),
        ((finite + above) / 2, column.high_cap, greatest, 1.0),
    ):
        open_end = ~np.isfinite(end) | ((sign * end >= sign * bound) if np.isfinite(bound) else False)
        open_end |= (v == sign * np.inf) | ((sign * v >= sign * bound) if np.isfinite(bound) else False)
        if cap is not None:
            open_end |= sign * v >= sign * cap
        inside = np.clip(
            np.where(np.isfinite(end), end, finite), np.nextafter(least, np.inf), np.nextafter(greatest, -np.inf)
        )
        out.append(np.where(open_end, sign * np.inf, standardise(column, part, inside)[0]))
    return out[0], out[1]


def dequantisation(codec: Codec, points: np.ndarray, values: np.ndarray) -> np.ndarray:
    """log q(z | v) − log |dz/dv|-like terms as ``Codec.encode`` has them, negated: log p(row) = log p(z) + this, (n,).

    A law P of rows becomes the density P(v(z)) exp(−this) of points, which has P as its law of cells.
    """
    added = np.zeros(len(points))
    for j, (column, part) in enumerate(zip(codec.schema.modelled, codec.parts)):
        z = points[:, part.start : part.start + part.width]
        v = values[:, j]
        if is_category(column):
            added -= _log_stick_density(part, z, v)
            continue
        raw = _raw(column, part, z[:, 0])
        added += standardise(column, part, raw)[1]
        if has_cells(column):
            low, high = _cells(column, part, v)
            # a cap's cell has no end: its draws are within the width over which the cap is dequantised
            outside = (high > low) & ((raw < low) | (raw > high))
            width = np.where(high > low, high - low, 1.0)
            added += np.where(outside, np.inf, np.log(width))
    return added


def _raw(column: Column, part: object, z: np.ndarray) -> np.ndarray:
    from mulligan.data.grid import untransform

    return untransform(column, z * part.scale + part.mean)  # type: ignore[attr-defined]


def _log_stick_density(part: object, y: np.ndarray, code: np.ndarray) -> np.ndarray:
    """log q(y | category): normal numbers cut to the category's box."""
    _, mass = _sticks(part)  # type: ignore[arg-type]
    i = np.arange(y.shape[1])
    log_mass = np.where(i < code[:, None], np.log1p(-mass), np.where(i == code[:, None], np.log(mass), 0.0))
    return (-0.5 * y**2 - _HALF_LOG_2PI - log_mass).sum(axis=1)
