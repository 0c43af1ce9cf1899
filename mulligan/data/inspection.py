"""From raw cells to a table: the kind of every column, with every finding said, and every obstacle refused by name.

``inspect`` decides the schema of a table that is to be fitted; ``conform`` puts other rows under a schema that exists.
Rows in messages are counted from 1 without the header; where there is a file, its line stands beside.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from mulligan.data.classification import classify, is_label
from mulligan.data.relations import affine_relations, linear_relations
from mulligan.data.resolution import off_grid, written
from mulligan.data.support import outside_support, support_words
from mulligan.data.table import Column, Frame, ReadOptions, Schema, Table
from mulligan.data.treatment import (
    Roles,
    as_texts,
    check_options,
    draw_rows,
    drop_incomplete,
    is_empty,
    place,
    places,
    refuse_huge,
    rename,
    settle_texts,
    take_roles,
    without,
)
from mulligan.errors import DataError, UsageError

_SHOWN = 12


def inspect(frame: Frame, options: ReadOptions | None = None) -> Table:
    """The table that a frame makes: schema, values of shape (rows, modelled columns), and notes.

    Raises UsageError for options that name no column or do not suit theirs; DataError for empty cells, infinities,
    numbers mixed with texts, too many categories, values too large, columns that are a function of another, fewer than
    two rows, and tables of which no column is left.

    >>> from mulligan.data.frames import from_object
    >>> table = inspect(from_object({"pH": [3.1, 3.2, 3.2, 3.4], "site": [3, 3, 3, 3]}))
    >>> [(column.name, column.kind) for column in table.schema.columns]
    [('pH', 'gridded'), ('site', 'constant')]
    """
    options = options or ReadOptions()
    frame = rename(frame, options.rename)
    check_options(frame, options)
    roles = take_roles(frame, options)
    roles = replace(roles, frame=settle_texts(roles.frame, options.categorical))
    labels = _labels(roles.frame, options)
    roles = draw_rows(drop_incomplete(roles, options, ignore=labels), options)
    frame = roles.frame
    if len(frame) < 2:
        raise DataError(
            f"{frame.source.name} has {len(frame)} row{'s' if len(frame) != 1 else ''}", do="bring at least 2 rows"
        )
    columns, values, notes = _classified(frame, options, labels)
    _refuse_idle_transforms(columns, options)
    schema = Schema(tuple(columns))
    if not schema.modelled:
        left = "; ".join(f"{column.name!r} is a {column.kind}" for column in columns) or "all were dropped"
        raise DataError(f"{frame.source.name} has no column to model", left, do=_mend_nothing(columns))
    matrix = np.stack(values, axis=1)
    complete = matrix[~np.isnan(matrix).any(axis=1)]
    notes += [*affine_relations(schema, complete), *linear_relations(schema, complete)]
    duplicates = len(matrix) - len(np.unique(matrix, axis=0))
    if duplicates:
        word, share = "row" if duplicates == 1 else "rows", 100 * duplicates / len(matrix)
        notes.append(f"{duplicates:,} duplicate {word} ({share:.0f} %): kept")
    automatic = tuple(name for name, transform in options.transform.items() if transform == "auto")
    return Table(
        schema=schema,
        values=matrix,
        source=frame.source,
        notes=(*frame.notes, *notes),
        groups=roles.groups,
        parts=roles.parts,
        treated_as_iid=frame.source.law is not None,
        extras={"transform_auto": automatic} if automatic else {},
    )


def _labels(frame: Frame, options: ReadOptions) -> list[str]:
    """Columns that only name their row; decided on all rows, before any is left out."""
    asked = {*options.keep, *options.categorical, *options.continuous, *options.resolution, *options.transform}
    return [name for name, cells in frame.columns.items() if name not in asked and is_label(cells, frame.origin[name])]


def _classified(
    frame: Frame, options: ReadOptions, labels: Sequence[str]
) -> tuple[list[Column], list[np.ndarray], list[str]]:
    refuse_huge(replace(frame, columns={n: c for n, c in frame.columns.items() if n not in options.categorical}))
    columns, values, notes = [], [], []
    for name in frame.columns:
        if name in labels:
            columns.append(Column(name, "label", frame.origin[name], frame.decimals[name]))
            notes.append(f"{name!r} is different in every row: looks like a label. Excluded; --keep {name} to use it")
            continue
        column, cells, findings = classify(name, frame, options)
        if column.modelled:
            column = _transformed(column, cells, frame, options)
            values.append(cells)
        columns.append(column)
        notes += findings
    return columns, values, notes


def _transformed(column: Column, cells: np.ndarray, frame: Frame, options: ReadOptions) -> Column:
    transform: Any = options.transform.get(column.name, "none")
    if transform in ("none", "auto"):
        return column
    column = replace(column, transform=transform)
    outside = outside_support(column, cells)
    if outside.any():
        row = int(np.flatnonzero(outside)[0])
        raise DataError(
            f"{column.name!r} is {cells[row]:.10g} in {place(row, frame)}",
            f"{int(outside.sum()):,} such values",
            f"{transform} needs values {support_words(column)}",
            f"--transform {column.name}=none",
        )
    return column


def _refuse_idle_transforms(columns: Sequence[Column], options: ReadOptions) -> None:
    """A transform, automatic or stated, of a column that is not modelled as a number would change nothing."""
    kinds = {column.name: column.kind for column in columns}
    for name, transform in options.transform.items():
        kind = kinds.get(name)
        if transform == "none" or kind in ("continuous", "gridded", "integer"):
            continue
        found = f"which is {kind}" if kind else "which is not modelled (--drop, --group or --split)"
        raise UsageError(
            f"--transform {name}={transform} for {name!r}, {found}",
            why="Only numbers that are modelled have a transform",
            do=f"leave --transform {name}={transform} out",
        )


def _mend_nothing(columns: Sequence[Column]) -> str:
    label = next((column.name for column in columns if column.kind == "label"), None)
    return f"--keep {label}" if label else "bring a column that varies"


def conform(frame: Frame, schema: Schema, options: ReadOptions | None = None, name: str | None = None) -> Table:
    """Other rows under the schema of a fitted table: same columns, same levels, same grids.

    Columns may come in any order; extra ones are ignored and listed in the notes. ``options.group`` names the column
    that says which rows belong together: it becomes the table's ``groups``. A gridded column of 32-bit numbers is read
    as the decimals they were written with, as ``inspect`` does. ``name`` is how messages call the rows. Raises DataError
    for a missing column, a category that the schema lacks, a value off its column's grid, beyond its cap or outside its
    transform's support, a constant that differs, and for empty or infinite cells.

    >>> from mulligan.data.frames import from_object
    >>> schema = inspect(from_object({"pH": [3.1, 3.2, 3.2, 3.4]})).schema
    >>> conform(from_object({"day": [1, 2], "pH": [3.3, 3.1]}), schema).notes
    ("columns that the model does not know, ignored: 'day'",)
    """
    options = options or ReadOptions()
    frame = rename(frame, options.rename)
    name = name or frame.source.name
    _refuse_missing_columns(frame, schema, name)
    known = {column.name for column in schema.columns if column.kind != "label"}
    extra = [title for title in frame.columns if title not in known]
    named = {column.name for column in schema.columns} | {options.group, *options.drop}
    unknown = [title for title in extra if title not in named]
    notes = [f"columns that the model does not know, ignored: {', '.join(map(repr, unknown))}"] if unknown else []
    levelled = [column.name for column in schema.modelled if column.levels]
    texts = [column.name for column in schema.columns if column.output == "text"]
    groups, said = _groups(frame, options, name)
    frame = settle_texts(without(frame, extra), [*levelled, *texts])
    frame = replace(frame, notes=(*frame.notes, *notes, *said))
    roles = drop_incomplete(Roles(frame, groups, None), options, every_row=True)
    frame = roles.frame
    if not len(frame):
        raise DataError(f"{name} has 0 rows", do="bring at least one")
    values = [_conformed_cells(column, frame, name) for column in schema.modelled]
    for column in schema.columns:
        if column.kind == "constant" and column.name in frame.columns:
            _refuse_other_constant(column, frame, name)
    return Table(
        schema=schema,
        values=np.stack(values, axis=1),
        source=frame.source,
        notes=frame.notes,
        groups=roles.groups,
        treated_as_iid=frame.source.law is not None,
    )


def _groups(frame: Frame, options: ReadOptions, name: str) -> tuple[np.ndarray | None, list[str]]:
    """Which of these rows belong together, and what is to be said of it."""
    if options.group is None:
        return None, []
    if options.group not in frame.columns:
        return None, [f"{name} lacks {options.group!r} (--group): its rows are taken to be independent"]
    roles = take_roles(replace(frame, notes=()), ReadOptions(group=options.group))
    return roles.groups, list(roles.frame.notes)


def _refuse_missing_columns(frame: Frame, schema: Schema, name: str) -> None:
    lacking = [column.name for column in schema.modelled if column.name not in frame.columns]
    if not lacking:
        return
    first = lacking[0]
    spare = [title for title in frame.columns if title not in schema.names]
    near = [title for title in spare if title.lower().strip() == first.lower()]
    near = near or difflib.get_close_matches(first, spare, n=1, cutoff=0.7)
    has = f"; has {near[0]!r}" if near else ""
    names = ", ".join(schema.names[:_SHOWN]) + (", ..." if len(schema.names) > _SHOWN else "")
    raise DataError(
        f"{name} lacks {', '.join(map(repr, lacking[:_SHOWN]))}{has}",
        why=f"Model columns: {names}",
        do=f"--rename {near[0]}={first}" if near else "add the column",
    )


def _conformed_cells(column: Column, frame: Frame, name: str) -> np.ndarray:
    """The column's values, NaN for the empty cells that ``--missing model`` lets pass."""
    empty = is_empty(frame.columns[column.name])
    if not empty.any():
        return _conformed(column, frame, name)
    values = np.full(len(frame), np.nan)
    if not empty.all():
        lines = np.arange(len(frame)) + 1 if frame.lines is None else frame.lines
        there = replace(frame, columns={column.name: frame.columns[column.name][~empty]}, lines=lines[~empty])
        values[~empty] = _conformed(column, there, name)
    return values


def _conformed(column: Column, frame: Frame, name: str) -> np.ndarray:
    cells = frame.columns[column.name]
    if column.levels:
        return _codes(column, frame, name)
    if cells.dtype == object:
        row = next(i for i, cell in enumerate(cells) if cell is not None)
        raise DataError(
            f"{column.name!r} is text in {name}",
            f"{place(row, frame)} is {cells[row]!r}",
            "The model takes numbers there",
        )
    refuse_huge(replace(frame, columns={column.name: cells}))
    values = written(column, cells + 0.0)
    if column.discrete:
        grid = f"{column.offset:g} + k x {column.step:g}" if column.offset else f"multiples of {column.step:g}"
        why = "whole numbers" if column.kind == "integer" else f"the grid {grid}"
        _refuse(off_grid(column, values), values, column, frame, name, f"its values are {why}", "round it")
    for cap, beyond, word in ((column.low_cap, np.less, "below"), (column.high_cap, np.greater, "above")):
        if cap is not None:
            mend = f"write {cap:.10g} for all that is beyond, as the fitted rows do"
            _refuse(beyond(values, cap), values, column, frame, name, f"it is {word} the cap {cap:.10g}", mend)
    support = f"{column.transform} needs values {support_words(column)}" if column.transform != "none" else ""
    _refuse(outside_support(column, values), values, column, frame, name, support, "leave these rows out")
    return values


def _refuse(wrong: np.ndarray, values: np.ndarray, column: Column, frame: Frame, name: str, why: str, do: str) -> None:
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        raise DataError(
            f"{column.name!r} is {values[row]:.10g} in {place(row, frame)} of {name}, and {why}",
            places(np.flatnonzero(wrong), frame),
            do=do,
        )


def _codes(column: Column, frame: Frame, name: str) -> np.ndarray:
    texts = as_texts(frame.columns[column.name], boolean=frame.origin[column.name] == "boolean").astype(str)
    codes = np.full(len(texts), -1)
    for code, level in enumerate(column.levels):
        codes[texts == level] = code
    unseen = np.flatnonzero(codes < 0)
    if len(unseen):
        first = str(texts[unseen[0]])
        rows = np.flatnonzero(texts == first)
        levels = ", ".join(column.levels[:_SHOWN]) + (", ..." if len(column.levels) > _SHOWN else "")
        others = len(set(texts[unseen].tolist())) - 1
        more = f", and {others} more such values" if others else ""
        raise DataError(
            f"{column.name!r} is {first!r} in {name}{more}",
            places(rows, frame),
            f"The model knows {levels}",
            "leave these rows out, or fit again with them",
        )
    return codes.astype(np.float64)


def _refuse_other_constant(column: Column, frame: Frame, name: str) -> None:
    cells = frame.columns[column.name]
    if cells.dtype == object or column.output in ("text", "boolean"):
        texts = as_texts(cells, boolean=frame.origin[column.name] == "boolean").astype(str)
        wrong = texts != str(column.constant)
    else:
        wrong = cells != float(column.constant)
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        raise DataError(
            f"{column.name!r} is {cells[row]} in {place(row, frame)} of {name}, always {column.constant} when fitted",
            places(np.flatnonzero(wrong), frame),
            "Such a row has probability 0 under the model",
            "leave these rows out, or fit again with them",
        )
