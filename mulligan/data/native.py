"""One coordinate for each column, nothing dequantised: the codec of models that know which columns are discrete.

Definition. A number v becomes z = (T(v) − m)/s, whether or not it stands for a cell; a category becomes its code 0 … K−1 as
a float. A model on these coordinates gives a continuous value a density, so log p(v) = log p(z) + log |dz/dv|, and a value
that has a cell (on a grid, at a cap, a category) its exact probability, to which no Jacobian belongs. ``Codec`` serves
models that know nothing but R^d; its bound is below what this one states exactly.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from mulligan.data.codec import Codec, Encoded, Part, decode_number, fit_part, standardise
from mulligan.data.table import Column, Schema, Table


@dataclass(frozen=True)
class NativeCodec:
    """Maps rows of a schema to one coordinate a column and back; made by ``fit_native_codec``, saved as JSON.

    It has the surface of ``Codec``. ``parts`` hold what each column needs beyond its schema: the j-th has start j and
    width 1.

    >>> column = Column("i", "integer", "integer", step=1.0)
    >>> codec = NativeCodec(Schema((column,)), (Part(0, 1, mean=2.0, scale=0.5),))
    >>> codec.encode(np.array([[3.0]])).points.tolist(), codec.decode(np.array([[2.2]])).tolist()
    ([[[2.0]]], [[3.0]])
    """

    schema: Schema
    parts: tuple[Part, ...]

    @property
    def dim(self) -> int:
        """The number of coordinates, which is that of the modelled columns."""
        return len(self.parts)

    @property
    def given_dim(self) -> int:
        """0: nothing is given."""
        return 0

    @property
    def dequantises(self) -> bool:
        """False: every probability is exact."""
        return False

    def encode(self, values: np.ndarray, draws: int | None = None, salt: int | np.ndarray = 0) -> Encoded:
        """Points (n, 1, d) and log-Jacobians (n, 1) of rows (n, columns), float64; nothing is random.

        ``draws`` and ``salt`` are taken for the sake of ``Codec``'s surface and change nothing.
        """
        values = np.asarray(values, np.float64)
        points = np.empty(values.shape)
        for j, (column, part) in enumerate(zip(self.schema.modelled, self.parts)):
            z = values[:, j] if is_category(column) else standardise(column, part, values[:, j])[0]
            points[:, j] = z
        return Encoded(points[:, None, :], self.log_jacobians(values).sum(1)[:, None])

    def log_jacobians(self, values: np.ndarray) -> np.ndarray:
        """What each column (n, columns) adds: log |dz/dv| where a value has a density, 0 where it has a probability."""
        values = np.asarray(values, np.float64)
        added = np.zeros(values.shape)
        for j, (column, part) in enumerate(zip(self.schema.modelled, self.parts)):
            if not is_category(column):
                log_slope = standardise(column, part, values[:, j])[1]
                added[:, j] = np.where(is_cell(column, values[:, j]), 0.0, log_slope)
        return added

    def decode(self, points: np.ndarray) -> np.ndarray:
        """Valid rows (n, columns) from points (n, d): numbers on their grid or at a cap, codes 0 … K−1."""
        points = np.asarray(points, np.float64)
        rows = np.empty((len(points), self.dim))
        for j, (column, part) in enumerate(zip(self.schema.modelled, self.parts)):
            if is_category(column):
                rows[:, j] = np.clip(np.rint(points[:, j]), 0, len(column.levels) - 1)
            else:
                rows[:, j] = decode_number(column, part, points[:, j])
        return rows

    def slopes(self, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """dz/dv and d log|dz/dv|/dv of every entry (n, columns), for columns that have a density."""
        return Codec(self.schema, self.parts).slopes(values)

    def to_json(self) -> dict[str, Any]:
        """Everything as plain numbers and strings, for ``schema.json``."""
        return Codec(self.schema, self.parts).to_json()

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> NativeCodec:
        """The inverse of ``to_json``; KeyError or TypeError where the fields are not ours."""
        codec = Codec.from_json(fields)
        return cls(codec.schema, codec.parts)


def fit_native_codec(train: Table) -> NativeCodec:
    """The native codec of a table's schema, standardised by these (training) rows.

    >>> from mulligan.data.table import Source
    >>> table = Table(Schema((Column("x", "continuous"),)), np.array([[1.0], [3.0]]), Source("rows"))
    >>> codec = fit_native_codec(table)
    >>> codec.parts[0].mean, codec.parts[0].scale
    (2.0, 1.0)
    """
    columns = train.schema.modelled
    if train.schema.image is not None:  # the ends of a pixel's levels are caps, but none whose mass is far beyond them
        columns = tuple(replace(column, low_cap=None, high_cap=None) for column in columns)
    parts = [fit_part(column, train.values[:, j], j) for j, column in enumerate(columns)]
    return NativeCodec(train.schema, tuple(replace(part, width=1) for part in parts))


def is_category(column: Column) -> bool:
    """Whether the column's coordinate is a code."""
    return column.kind in ("binary", "categorical")


def is_cell(column: Column, values: np.ndarray) -> np.ndarray:
    """True where a value's number is a probability, not a density; bool, same shape as ``values``."""
    if column.discrete:
        return np.ones(np.shape(values), bool)
    caps = [cap for cap in (column.low_cap, column.high_cap) if cap is not None]
    return np.isin(values, caps)
