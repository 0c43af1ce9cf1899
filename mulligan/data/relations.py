"""Columns that say the same: y = a·x + b exactly.

A continuous column that is a function of another has an infinite conditional density, so log p grows without limit;
two discrete columns with the same information only cost time.
"""

from __future__ import annotations

import numpy as np

from mulligan.data.table import Schema
from mulligan.errors import DataError

_CORRELATED = 1 - 1e-9
_RELATION_TOLERANCE = 1e-9
_RELATION_ROWS = 3


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


def _relation(left: str, right: str, slope: float, x: np.ndarray, y: np.ndarray) -> str:
    """'temp_F' = 1.8 x 'temp_C' + 32"""
    intercept = float(np.mean(y - slope * x))
    if abs(intercept) <= 1e-9 * max(np.abs(y).max(), 1e-300):
        intercept = 0.0
    factor = "" if abs(slope - 1) < 1e-12 else f"{slope:.6g} x "
    shift = "" if intercept == 0 else f" {'+' if intercept > 0 else '-'} {abs(intercept):.6g}"
    return f"{right!r} = {factor}{left!r}{shift}"
