"""Columns that say the same: y = a·x + b, or y = a₁·x₁ + ... + a_k·x_k + b, exactly.

A continuous column that is a function of another has an infinite conditional density, so log p grows without limit;
two discrete columns with the same information only cost time.
"""

from __future__ import annotations

import numpy as np

from mulligan.data.table import Column, Schema
from mulligan.errors import DataError

_CORRELATED = 1 - 1e-9
_RELATION_TOLERANCE = 1e-9
_RELATION_ROWS = 3
_SCREENED_ROWS = 20_000
_NEGLIGIBLE = 1e-7  # of the column's spread: a coefficient that adds less is rounding
_SHOWN = 8


def affine_relations(schema: Schema, values: np.ndarray) -> list[str]:
    """Refuse a continuous column that is an exact affine function of another; note discrete ones that are."""
    numeric = [j for j, column in enumerate(schema.modelled) if column.kind in ("continuous", "gridded", "integer")]
    if len(numeric) < 2 or len(values) < _RELATION_ROWS:
        return []
    centred = values[:, numeric] - values[:, numeric].mean(0)
    scaled = centred / np.abs(centred).max(0)  # so that no square under- or overflows
    unit = scaled / np.sqrt((scaled**2).sum(0))
    correlation = unit.T @ unit
    notes = []
    for a, b in zip(*np.nonzero(np.triu(np.abs(correlation) > _CORRELATED, 1))):
        left, right = schema.modelled[numeric[a]], schema.modelled[numeric[b]]
        slope = float(scaled[:, a] @ centred[:, b] / (scaled[:, a] @ scaled[:, a]) / np.abs(centred[:, a]).max())
        residual = np.abs(centred[:, b] - slope * centred[:, a]).max()
        if residual > _RELATION_TOLERANCE * np.abs(values[:, numeric[b]]).max():
            continue
        relation = _relation(left.name, right.name, slope, values[:, numeric[a]], values[:, numeric[b]])
        if left.discrete and right.discrete:
            notes.append(f"{relation}: the two columns say the same (--drop {right.name} if unwanted)")
        else:
            raise DataError(relation, why="Log density would grow without limit", do=f"--drop {right.name}")
    return notes


def linear_relations(schema: Schema, values: np.ndarray) -> list[str]:
    """Refuse a continuous column that is an exact sum of multiples of others; note such sums with gridded columns.

    A column counts as such if what least squares on the columns before it leaves is below 1e-9 of its spread, that is,
    if the standardised columns have a singular value of that size. Columns with cells (gridded, integer, capped) are
    spread over their cells by the codec, so that a sum of them has no infinite density: a note. Relations of two
    columns are left to ``affine_relations``.
    """
    numeric = [j for j, column in enumerate(schema.modelled) if column.kind in ("continuous", "gridded", "integer")]
    smooth = [j for j in numeric if not _has_cells(schema.modelled[j])]
    for relation, name in _dependent(schema, values, smooth):
        raise DataError(relation, why="Log density would grow without limit", do=f"--drop {name}")
    found = _dependent(schema, values, [*smooth, *(j for j in numeric if j not in smooth)])
    return [f"{relation}: the columns say the same (--drop {name} if unwanted)" for relation, name in found]


def _has_cells(column: Column) -> bool:
    return column.discrete or column.low_cap is not None or column.high_cap is not None


def _dependent(schema: Schema, values: np.ndarray, chosen: list[int]) -> list[tuple[str, str]]:
    """(relation, name) of every chosen column that is a sum of multiples of at least two chosen ones before it."""
    if len(chosen) < 3 or len(values) < len(chosen) + 2:  # with so few rows any column is a sum of the others
        return []
    screened = _standardised(values[:: max(1, len(values) // _SCREENED_ROWS)][:, chosen])
    # |R_jj| is what the columns before j leave of column j: a first look, on some rows, confirmed on all below
    left = np.abs(np.diagonal(np.linalg.qr(screened, mode="r")))
    found: list[tuple[str, str]] = []
    kept: list[int] = []
    for place, j in enumerate(chosen):
        slopes = _slopes(values[:, kept], values[:, j]) if left[place] < 1e-6 and kept else None
        if slopes is None:
            kept.append(j)
        elif np.count_nonzero(slopes) > 1:
            names = [schema.modelled[k].name for k in kept]
            name = schema.modelled[j].name
            found.append((_sum_words(name, names, slopes, values[:, kept], values[:, j]), name))
    return found


def _standardised(x: np.ndarray) -> np.ndarray:
    """Columns of mean 0 and length 1; a constant one stays 0."""
    centred = x - x.mean(0)
    largest = np.abs(centred).max(0)
    scaled = centred / np.where(largest > 0, largest, 1.0)  # so that no square under- or overflows
    length = np.sqrt((scaled**2).sum(0))
    return scaled / np.where(length > 0, length, 1.0)


def _slopes(x: np.ndarray, y: np.ndarray) -> np.ndarray | None:
    """a in y = x a + b (k,), 0 where negligible; None unless the relation is exact to 1e-9 and to rounding."""
    unit, target = _standardised(x), _standardised(y[:, None])[:, 0]
    share = np.linalg.lstsq(unit, target, rcond=None)[0]
    share[np.abs(share) < _NEGLIGIBLE] = 0.0
    if not share.any():
        return None
    again = share != 0  # once more without the columns that take no part, so that their rounding stays out
    share[again] = np.linalg.lstsq(unit[:, again], target, rcond=None)[0]
    spread, spreads = np.ptp(y), np.ptp(x, axis=0)
    slopes = share * (spread / np.ptp(target)) / (spreads / np.ptp(unit, axis=0))
    residual = (y - y.mean()) - (x - x.mean(0)) @ slopes
    # the numbers themselves are rounded: with an offset far beyond the spread no relation can be exact to 1e-9
    rounding = 4 * np.finfo(np.float64).eps * (np.abs(y).max() + np.abs(x).max(0) @ np.abs(slopes))
    return slopes if np.abs(residual).max() <= _RELATION_TOLERANCE * spread + rounding else None


def _sum_words(name: str, names: list[str], slopes: np.ndarray, x: np.ndarray, y: np.ndarray) -> str:
    """'total' = 'left' + 2 x 'right' - 3"""
    text = ""
    taking_part = np.flatnonzero(slopes)
    for k in taking_part[:_SHOWN]:
        size = abs(float(slopes[k]))
        sign = (" - " if slopes[k] < 0 else " + ") if text else ("-" if slopes[k] < 0 else "")
        text += sign + ("" if abs(size - 1) < 1e-6 else f"{size:.6g} x ") + repr(names[k])
    if len(taking_part) > _SHOWN:
        return f"{name!r} = {text} + {len(taking_part) - _SHOWN} more columns"
    intercept = float(np.mean(y - x @ slopes))
    if abs(intercept) <= 1e-9 * max(float(np.abs(y).max()), 1e-300):
        return f"{name!r} = {text}"
    return f"{name!r} = {text} {'+' if intercept > 0 else '-'} {abs(intercept):.6g}"


def _relation(left: str, right: str, slope: float, x: np.ndarray, y: np.ndarray) -> str:
    """'temp_F' = 1.8 x 'temp_C' + 32"""
    intercept = float(np.mean(y - slope * x))
    if abs(intercept) <= 1e-9 * max(np.abs(y).max(), 1e-300):
        intercept = 0.0
    factor = "" if abs(slope - 1) < 1e-12 else f"{slope:.6g} x "
    shift = "" if intercept == 0 else f" {'+' if intercept > 0 else '-'} {abs(intercept):.6g}"
    return f"{right!r} = {factor}{left!r}{shift}"
