"""Conditional models: some columns are modelled, the others are given. One codec with the surface of ``Codec`` for both.

Definition. A row is (v, w); the model has p(v | w), so log p of a row is that of v given w, in the units of v. v is encoded
by an inner codec. w becomes a vector without any draw: numbers standardised under their transform, categories as 0 and 1 for
each level.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from mulligan.data.codec import Codec, Encoded, Part, fit_codec, fit_part, standardise
from mulligan.data.native import NativeCodec, fit_native_codec, is_category
from mulligan.data.table import Column, Schema, Table
from mulligan.errors import UsageError


@dataclass(frozen=True)
class ConditionalCodec:
    """An ``inner`` codec for the columns that are modelled, beside ``conditions``, the parts of those that are given.

    ``schema`` is that of whole rows, ``given_names`` names the given columns in their order there.
    """

    schema: Schema
    inner: Codec | NativeCodec
    given_names: tuple[str, ...]
    conditions: tuple[Part, ...]

    @property
    def parts(self) -> tuple[Part, ...]:
        """The parts of the modelled columns."""
        return self.inner.parts

    @property
    def dim(self) -> int:
        """d, the number of modelled coordinates."""
        return self.inner.dim

    @property
    def given_dim(self) -> int:
        """g, the number of coordinates that are given."""
        return sum(part.width for part in self.conditions)

    @property
    def dequantises(self) -> bool:
        """Whether log p of a row is a lower bound."""
        return self.inner.dequantises

    def encode(self, values: np.ndarray, draws: int | None = None, salt: int | np.ndarray = 0) -> Encoded:
        """Points and log-Jacobians of the modelled columns of whole rows, with what they are conditioned on."""
        values = np.asarray(values, np.float64)
        encoded = self.inner.encode(values[:, self._places(False)], draws, salt)
        return encoded._replace(given=self.encode_given(values[:, self._places(True)]))

    def encode_given(self, values: np.ndarray) -> np.ndarray:
        """The vector (n, g) of given columns (n, columns), float64."""
        pieces = []
        for j, (column, part) in enumerate(zip(self._given_columns(), self.conditions)):
            if is_category(column):
                pieces.append((values[:, j, None] == np.arange(part.width)).astype(float))
            else:
                pieces.append(standardise(column, part, values[:, j])[0][:, None])
        return np.concatenate(pieces, axis=1)

    def decode(self, points: np.ndarray, given: np.ndarray) -> np.ndarray:
        """Whole rows (n, columns) from points (n, d) and the given columns' values."""
        rows = np.empty((len(points), len(self.schema.modelled)))
        rows[:, self._places(False)] = self.inner.decode(points)
        rows[:, self._places(True)] = given
        return rows

    def modelled_part(self, values: np.ndarray) -> np.ndarray:
        """The modelled columns of whole rows."""
        return values[:, self._places(False)]

    def given_part(self, values: np.ndarray) -> np.ndarray:
        """The given columns of whole rows."""
        return values[:, self._places(True)]

    def slopes(self, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """dz/dv and d log|dz/dv|/dv of the modelled columns of whole rows."""
        return self.inner.slopes(values[:, self._places(False)])

    def to_json(self) -> dict[str, Any]:
        """Everything as plain numbers and strings, for ``schema.json``."""
        columns = [asdict(column) for column in self.schema.columns]
        conditions = [asdict(part) for part in self.conditions]
        inner = codec_to_json(self.inner)
        image = {} if self.schema.image is None else {"image": asdict(self.schema.image)}
        return {"columns": columns, "given": list(self.given_names), "conditions": conditions, "inner": inner, **image}

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> ConditionalCodec:
        """The inverse of ``to_json``; KeyError or TypeError where the fields are not ours."""
        image = {"image": fields["image"]} if "image" in fields else {}
        whole = Codec.from_json({"columns": fields["columns"], "parts": fields["conditions"], **image})
        inner = codec_from_json(fields["inner"])
        if isinstance(inner, ConditionalCodec):
            raise TypeError("a conditional codec inside another")
        return cls(whole.schema, inner, tuple(map(str, fields["given"])), whole.parts)

    def _places(self, given: bool) -> list[int]:
        columns = self.schema.modelled
        return [j for j, column in enumerate(columns) if (column.name in self.given_names) is given]

    def _given_columns(self) -> list[Column]:
        return [column for column in self.schema.modelled if column.name in self.given_names]


AnyCodec = Codec | NativeCodec | ConditionalCodec


def fit_any_codec(train: Table, given: Sequence[str] = (), native: bool = False) -> AnyCodec:
    """The codec of a table, standardised by these (training) rows; conditional if columns are ``given``.

    ``native`` gives one coordinate a column, for models that know which columns are discrete. Raises UsageError for given
    columns that are not modelled, or where none is left.
    """
    make = fit_native_codec if native else fit_codec
    if not given:
        return make(train)
    names = [column.name for column in train.schema.modelled]
    refuse_given(train.schema, given)
    kept = [j for j, name in enumerate(names) if name not in given]
    fixed = tuple(column for column in train.schema.modelled if column.name in given)
    columns = tuple(train.schema.modelled[j] for j in kept)
    inner = make(replace(train, schema=Schema(columns), values=train.values[:, kept]))
    conditions: list[Part] = []
    for column in fixed:
        start = sum(part.width for part in conditions)
        if is_category(column):
            conditions.append(Part(start, len(column.levels)))
        else:
            part = fit_part(column, train.values[:, names.index(column.name)], start)
            conditions.append(replace(part, width=1))
    return ConditionalCodec(train.schema, inner, tuple(column.name for column in fixed), tuple(conditions))


def refuse_given(schema: Schema, given: Sequence[str]) -> None:
    """Raises UsageError for given columns that are not modelled, or where none is left to model."""
    names = [column.name for column in schema.modelled]
    for name in given:
        if name in names:
            continue
        kinds = {column.name: column.kind for column in schema.columns}
        if name in kinds:
            what = f"'{name}' is a {kinds[name]}: it cannot be given"
            raise UsageError(what, "--given", do=f"columns that can: {', '.join(names)}")
        near = difflib.get_close_matches(name, names, n=1)
        do = f"--given {near[0]}" if near else f"columns: {', '.join(names)}"
        raise UsageError(f"no column '{name}'", "--given", do=do)
    if set(given) == set(names):
        raise UsageError("every column is given: nothing is left to model", do="--given with fewer columns")


def measure_of(codec: AnyCodec) -> str:
    """In words, what log p of a row is taken with respect to; for a conditional model also what is given."""
    if not isinstance(codec, ConditionalCodec):
        return codec.schema.measure
    return f"{codec.inner.schema.measure}, given {', '.join(codec.given_names)}"


def codec_to_json(codec: AnyCodec) -> dict[str, Any]:
    """A codec as plain values; its kind is ``codec``."""
    kinds: dict[type, str] = {Codec: "dequantised", NativeCodec: "native", ConditionalCodec: "conditional"}
    return {"codec": kinds[type(codec)], **codec.to_json()}


def codec_from_json(fields: dict[str, Any]) -> AnyCodec:
    """The inverse of ``codec_to_json``; KeyError or TypeError where the fields are not ours."""
    kinds: dict[str, Any] = {"dequantised": Codec, "native": NativeCodec, "conditional": ConditionalCodec}
    return kinds[fields["codec"]].from_json(fields)
