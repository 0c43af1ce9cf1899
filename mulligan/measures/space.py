"""The space in which samples and rows are measured: columns of any kind as coordinates of comparable size.

Definition. A numeric column is divided by its spread over the reference rows, the smaller of the standard deviation and
the interquartile range over 1.349 (Silverman 1986; the two agree for a normal column, and a few far rows move only the
first). A column of K categories becomes K indicators over √2, so that two different categories lie 1 apart. Columns that
share one unit (the pixels of an image) share one spread: the root mean square of theirs.

The reference rows are training rows, so the space depends neither on the test rows nor on the samples: a permutation of
those two leaves it alone, and every family is measured in the same units.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.spatial.distance import pdist

from mulligan.data.table import Schema

MOST_INDICATORS = 64  # categories beyond the most frequent 63 share one indicator
MOST_FOR_LENGTH = 500
NORMAL_QUARTILES = 1.349  # interquartile range of a standard normal law


@dataclass(frozen=True)
class Space:
    """``spreads`` (columns,) divide numeric columns; ``ranks`` hold, for a column of categories, the place of each code.

    ``length`` is the median distance between two reference rows. Made by ``space_of``.
    """

    spreads: tuple[float, ...]
    ranks: tuple[tuple[int, ...] | None, ...]
    length: float = 1.0

    def __call__(self, values: np.ndarray) -> np.ndarray:
        """Values (n, columns) as coordinates (n, q), float64."""
        parts = []
        for j, (spread, ranks) in enumerate(zip(self.spreads, self.ranks)):
            if ranks is None:
                parts.append(values[:, j : j + 1] / spread)
                continue
            place = np.asarray(ranks)[np.clip(np.nan_to_num(values[:, j]), 0, len(ranks) - 1).astype(int)]
            parts.append(np.eye(max(ranks) + 1)[place] / np.sqrt(2))
        return np.concatenate(parts, axis=1) if parts else np.zeros((len(values), 0))


def space_of(schema: Schema, reference: np.ndarray, one_unit: bool = False) -> Space:
    """The space that ``reference`` rows (n, columns) set for a table; ``one_unit`` is for columns that share a unit.

    >>> from mulligan.data.table import Column
    >>> rows = np.array([[0.0, 0.0], [10.0, 1.0], [20.0, 0.0], [30.0, 2.0]])
    >>> space = space_of(Schema((Column("x", "continuous"), Column("k", "categorical", levels=("a", "b", "c")))), rows)
    >>> space(rows).shape
    (4, 4)
    """
    spreads: list[float] = []
    ranks: list[tuple[int, ...] | None] = []
    columns = schema.modelled
    if one_unit and all(column.kind != "categorical" for column in columns):
        common = float(np.sqrt(np.mean(reference.std(axis=0) ** 2))) or 1.0
        spreads, ranks, columns = [common] * len(columns), [None] * len(columns), ()
    for j, column in enumerate(columns):
        if column.kind == "categorical":
            counts = np.bincount(reference[:, j].astype(int), minlength=max(len(column.levels), 1))
            order = np.argsort(np.argsort(-counts, kind="stable"))
            ranks.append(tuple(np.minimum(order, MOST_INDICATORS - 1).tolist()))
            spreads.append(1.0)
        else:
            ranks.append(None)
            spreads.append(_spread(reference[:, j]))
    space = Space(tuple(spreads), tuple(ranks))
    return Space(space.spreads, space.ranks, median_distance(space(_thinned(reference))))


def median_distance(points: np.ndarray) -> float:
    """Median distance between two of the points (n, q); 1 where more than half of the pairs are equal.

    >>> median_distance(np.array([[0.0], [1.0], [3.0]]))
    2.0
    """
    if len(points) < 2:
        return 1.0
    return float(np.median(pdist(points))) or 1.0


def _spread(values: np.ndarray) -> float:
    deviation = float(values.std())
    quartiles = float(np.subtract(*np.percentile(values, [75, 25]))) / NORMAL_QUARTILES
    return min(deviation, quartiles) if quartiles > 0 else deviation or 1.0


def _thinned(rows: np.ndarray) -> np.ndarray:
    return rows[np.linspace(0, len(rows) - 1, min(len(rows), MOST_FOR_LENGTH)).round().astype(int)]
