"""Which values a number column allows, and on which scale it is modelled: grids, caps and transforms. NumPy, float64.

A grid is offset + k·step with a few atoms off it; a cap is the value beyond which the data were censored. A transform T is
shifted by half a step on a grid, so that the lowest cell stays inside its support (``data.support``).
"""

from __future__ import annotations

import numpy as np

from mulligan.data.support import outside_support
from mulligan.data.table import Column


def has_cells(column: Column) -> bool:
    """Whether some value of the column has a probability: it is discrete, or capped."""
    return column.discrete or column.low_cap is not None or column.high_cap is not None


def neighbours(column: Column, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The next allowed values below and above, on the grid or atoms; both the value itself where there is no grid."""
    if not column.step:
        return values, values
    atoms = np.array([-np.inf, *sorted(column.atoms), np.inf])
    place = (values - column.offset) / column.step
    is_atom = np.isin(values, column.atoms)
    below = column.offset + np.where(is_atom, np.floor(place), np.rint(place) - 1) * column.step
    above = column.offset + np.where(is_atom, np.ceil(place), np.rint(place) + 1) * column.step
    below = np.maximum(below, atoms[np.searchsorted(atoms, values, "left") - 1])
    return below, np.minimum(above, atoms[np.searchsorted(atoms, values, "right")])


def snap(column: Column, raw: np.ndarray) -> np.ndarray:
    """The value whose cell holds ``raw``: the nearest one, or the cap."""
    if not has_cells(column):
        return raw
    values = raw
    if column.step:
        place = np.rint((raw - column.offset) / column.step)
        place += outside_support(column, column.offset + place * column.step) * np.where(raw < 0.5, 1, -1)
        values = _tidy(column, column.offset + place * column.step)
    for atom in column.atoms:
        values = np.where(np.abs(raw - atom) < np.abs(raw - values), atom, values)
    for cap, side, beyond in ((column.high_cap, 0, np.greater_equal), (column.low_cap, 1, np.less)):
        if cap is not None:
            edge = (cap + neighbours(column, np.array([cap]))[side][0]) / 2
            values = np.where(beyond(raw, edge), cap, values)
    return values


def _tidy(column: Column, values: np.ndarray) -> np.ndarray:
    """offset + k·step without the last digit's noise."""
    return np.round(values, 12 if column.decimals is None else max(column.decimals, 0)) + 0.0


def transform(column: Column, v: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """T(v) and log |dT/dv|; grids are shifted by half a step so that their lowest cell stays inside the support."""
    shift = (column.step or 0.0) / 2
    with np.errstate(invalid="ignore", divide="ignore"):
        if column.transform == "log":
            log = np.log(v + shift)
            return log, -log
        if column.transform == "logit":
            p = (v + shift) / (1 + 2 * shift)
            return np.log(p) - np.log1p(-p), -np.log(p) - np.log1p(-p) - np.log(1 + 2 * shift)
    return v, np.zeros_like(v)


def untransform(column: Column, t: np.ndarray) -> np.ndarray:
    """The v with T(v) = t."""
    shift = (column.step or 0.0) / 2
    if column.transform == "log":
        return np.exp(np.minimum(t, 700.0)) - shift
    if column.transform == "logit":
        return (1 + 2 * shift) / (1 + np.exp(-np.clip(t, -700.0, 700.0))) - shift
    return t
