"""Equal terms: one split, one codec, one encoding of the rows, shared by every family that is fitted to a table."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

import numpy as np

from mulligan.data.codec import Encoded, fit_codec
from mulligan.data.given import AnyCodec, ConditionalCodec, fit_any_codec, measure_of
from mulligan.data.splits import Split, make_split, row_clusters, split_with_test
from mulligan.data.support import outside_support
from mulligan.data.table import Schema, Table
from mulligan.errors import DataError, SetupError, UsageError

POINTS_WANTED = 8000  # with fewer rows each is dequantised several times, up to 16, so that its noise averages out
MOST_DRAWS = 16
BEARABLE_BITS = 0.01  # the same for pictures, in bits per dimension
BEARABLE_ERROR = 0.5  # nats: a test standard error beyond this cannot tell families apart


@dataclass
class Prepared:
    """A table ready for any family.

    ``train`` and ``select`` are encoded; the test rows are reached by ``read_test`` only, once a family.
    ``test_clusters`` says which test rows are one draw (equal rows, groups), as the split saw them.
    """

    table: Table
    split: Split
    codec: AnyCodec
    train: Encoded
    select: Encoded
    notes: tuple[str, ...]
    _test: Table
    test_clusters: np.ndarray
    test_reads: list[str] = field(default_factory=list)

    def read_test(self, family: str) -> Table:
        """The test rows, for a family whose choices are frozen; RuntimeError on a second reading, which is a bug."""
        if family in self.test_reads:
            raise RuntimeError(f"the test rows were read before for {family}")
        self.test_reads.append(family)
        return self._test

    def rows_of(self, part: Literal["train", "select"]) -> Table:
        """The rows that were encoded, as they came."""
        return self.table.rows(self.split.train if part == "train" else self.split.select)

    @property
    def given(self) -> tuple[str, ...]:
        """The columns that models are given; empty where all are modelled."""
        return self.codec.given_names if isinstance(self.codec, ConditionalCodec) else ()

    @property
    def incomplete_rows(self) -> int:
        """How many rows of the table have empty cells (``--missing model``)."""
        return int(np.isnan(self.table.values).any(axis=1).sum())

    @property
    def test_rows(self) -> np.ndarray:
        """The test rows as numbers, for pictures and for errors of what was read already."""
        return self._test.values

    @property
    def few_rows(self) -> str | None:
        """A sentence where there are too few rows to tell families apart, else None."""
        n, d = len(self.table), self.codec.dim
        error = float(np.sqrt(d / 2 / max(len(self._test), 1)))  # of a Gaussian: the variance of log p is d/2
        bearable = BEARABLE_ERROR
        if self.table.schema.image is not None:  # families differ there by bits of each pixel
            bearable = max(bearable, BEARABLE_BITS * d * float(np.log(2)))
        if error <= bearable and n >= 30:
            return None
        return f"{n} rows for {len(self.table.names)} columns: the test standard error would be about {error:.1f} nats"


def prepare(table: Table, seed: int, test: Table | None = None, given: Sequence[str] = ()) -> Prepared:
    """Split, choose automatic transforms on select, fit the codec on train, encode train and select.

    ``given`` names columns that a conditional model is to be given.

    Raises DataError where a part would be empty and SetupError where the encoded rows would not fit into memory.
    """
    if seed < 0:
        raise UsageError(f"seed is {seed}; expected a whole number from 0")
    if test is None:
        split = make_split(table, seed)
        test_table, test_clusters = table.rows(split.test), row_clusters(table)[split.test]
    else:
        split = split_with_test(table, len(test), seed)
        test_table, test_clusters = test, row_clusters(test)
    notes = [*table.notes, *split.notes]
    schema, chosen = _automatic_transforms(table, split)
    notes += chosen
    table = replace(table, schema=schema)
    test_table = replace(test_table, schema=schema)
    train, select = table.rows(split.train), table.rows(split.select)
    codec = fit_any_codec(train, given)
    draws = _draws(len(train))
    _check_memory(len(table), draws if codec.dequantises else 1, codec.dim)
    # Equal training rows get different draws: a table of few distinct rows would else be few distinct points.
    encoded_train = codec.encode(train.values, draws, salt=1 + seed + (np.arange(len(train)) << 32))
    # As many draws as the test rows get: with fewer the bound is looser, and choices would be made by another number.
    encoded_select = codec.encode(select.values)
    for part, encoded in (
        ("train", encoded_train),
        ("select", encoded_select),
        ("test", codec.encode(test_table.values, 1)),
    ):
        _refuse_non_finite(encoded, codec, part)
    return Prepared(table, split, codec, encoded_train, encoded_select, tuple(notes), test_table, test_clusters)


def _refuse_non_finite(encoded: Encoded, codec: AnyCodec, part: str) -> None:
    """Every coordinate of every row must be finite: outside a transform's support it is not."""
    if encoded.given is not None and not np.isfinite(encoded.given).all():
        raise DataError(f"a given column leaves the finite numbers in {part} rows", do="--transform NAME=none")
    bad = ~np.isfinite(encoded.points).all(axis=1)
    if encoded.missing is not None:
        bad &= ~encoded.missing
    if not bad.any():
        return
    columns = codec.inner.schema.modelled if isinstance(codec, ConditionalCodec) else codec.schema.modelled
    for column, place in zip(columns, codec.parts):
        rows = np.flatnonzero(bad[:, place.start : place.start + place.width].any(axis=1))
        if len(rows):
            why = (
                f"it is {column.transform}-transformed"
                if column.transform != "none"
                else "its values are too far apart"
            )
            what = f"'{column.name}' leaves the finite numbers in {len(rows)} {part} rows"
            raise DataError(what, f"first: row {rows[0] + 1} of that part", why, f"--transform {column.name}=none")


def data_entry(prepared: Prepared) -> dict[str, Any]:
    """The ``data`` part of a report: what came in, and what was done to it."""
    source, image = prepared.table.source, prepared.table.schema.image
    return {
        "name": source.name,
        "sha256": source.sha256,
        "rows": len(prepared.table),
        "columns": [] if image else [_plain_column(asdict(column)) for column in prepared.table.schema.columns],
        **({"image": asdict(image)} if image else {}),
        "measure": measure_of(prepared.codec),
        "notes": list(prepared.notes),
    }


def split_entry(prepared: Prepared) -> dict[str, Any]:
    """The ``split`` part of a report."""
    split = prepared.split
    sizes = {"train": len(split.train), "select": len(split.select), "test": len(split.test)}
    return {**sizes, "seed": split.seed, "digest": split.digest}


def _plain_column(column: dict[str, Any]) -> dict[str, Any]:
    plain = {key: list(item) if isinstance(item, tuple) else item for key, item in column.items()}
    return {key: item.item() if isinstance(item, np.generic) else item for key, item in plain.items()}


def _draws(rows: int) -> int:
    return max(1, min(MOST_DRAWS, POINTS_WANTED // max(rows, 1)))


def _check_memory(rows: int, draws: int, dim: int) -> None:
    needed = 6.0 * rows * draws * dim * 8  # encoded float64, its float32 copy, and what encoding needs on the way
    try:
        free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError, AttributeError):
        return  # not every system says
    if needed > free:
        fits = int(rows * free / needed * 0.9)
        what = f"{needed / 2**30:.0f} GiB needed, {free / 2**30:.0f} free"
        raise SetupError(what, f"{rows:,} rows", do=f"--rows {fits}")


def _automatic_transforms(table: Table, split: Split) -> tuple[Schema, list[str]]:
    """For columns asked to be ``auto``: the transform under which a normal law, fitted on train, scores select best."""
    automatic = table.extras.get("transform_auto", ())
    notes = []
    columns = list(table.schema.columns)
    for name in automatic:
        place = [column.name for column in columns].index(name)
        scores = {}
        for transform in ("none", "log", "logit"):
            candidate = replace(columns[place], transform=transform)
            score = _normal_score(table, split, candidate)
            if score is not None:
                scores[transform] = score
        best = max(scores, key=lambda transform: scores[transform], default="none")
        columns[place] = replace(columns[place], transform=best)  # type: ignore[arg-type]
        tried = ", ".join(f"{transform} {score:.3f}" for transform, score in scores.items())
        notes.append(f"'{name}': transform {best} (mean log p of a normal law on select: {tried})")
    return replace(table.schema, columns=tuple(columns)), notes


def _normal_score(table: Table, split: Split, column: Any) -> float | None:
    """Mean log p of select under a normal law fitted on train; None where the transform cannot be chosen."""
    values = table.values[:, [table.names.index(column.name)]]
    # The score reads train and select only. Whether the transform is defined is asked of every row, test rows included:
    # a model that cannot take one of the table's own rows is of no use, and the answer is a yes or no, not a choice.
    if outside_support(column, values).any():
        return None
    one = replace(table, schema=Schema((column,)), values=values, groups=None, parts=None)
    there = ~np.isnan(values[:, 0])
    split = replace(split, train=split.train[there[split.train]], select=split.select[there[split.select]])
    codec = fit_codec(one.rows(split.train))
    encoded = codec.encode(one.rows(split.select).values, 4)
    log_p = -0.5 * (encoded.points[:, :, 0] ** 2 + np.log(2 * np.pi)) + encoded.log_jacobian
    return float(np.mean(log_p)) if np.isfinite(log_p).all() else None
