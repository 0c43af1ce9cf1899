"""From whatever a person names to a table: a path, a law, a shipped table, a DataFrame, an array."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

from mulligan.catalog import LAWS, TABLES, near
from mulligan.data.frames import from_object
from mulligan.data.inspection import conform, inspect
from mulligan.data.table import Frame, ReadOptions, Schema, Table
from mulligan.errors import DataError, UsageError

LAW_ROWS = 10_000


def open_table(source: Any, options: ReadOptions | None = None, *, data_seed: int = 0) -> Table:
    """The table that ``source`` means.

    A path to an existing file wins over a name; a name is one of ``catalog.LAWS`` (10 000 rows unless ``options.rows``,
    drawn with ``data_seed``) or ``catalog.TABLES``; anything else is taken as a DataFrame, an array or a dictionary of
    columns. A ``Table`` comes back as it is. Raises DataError with the nearest name where nothing fits.
    """
    options = options or ReadOptions()
    if isinstance(source, Table):
        return source
    if not isinstance(source, str | Path):
        return inspect(from_object(source, options), options)
    if Path(source).exists():
        from mulligan.data.reading import read_file

        return inspect(read_file(source, options, known=[*LAWS, *TABLES]), options)
    name = str(source)
    if name in LAWS:
        from mulligan.targets.named import draw_table

        return draw_table(name, LAW_ROWS if options.rows is None else options.rows, data_seed)
    if name in TABLES:
        from mulligan.data.builtin import read_table

        return read_table(name, options)
    raise _nothing(name)


def open_rows(source: Any, schema: Schema, options: ReadOptions | None = None, *, data_seed: int = 0) -> Table:
    """Other rows put under a fitted schema; see ``data.inspection.conform`` for what is refused."""
    options = options or ReadOptions()
    if isinstance(source, Table) and source.schema == schema:
        return source
    return conform(_frame(source, options, data_seed), schema, options)


def _frame(source: Any, options: ReadOptions, data_seed: int) -> Frame:
    if isinstance(source, Table):
        return from_object(source.to_dict(), options, source.source.name)
    if not isinstance(source, str | Path):
        return from_object(source, options)
    if Path(source).exists():
        from mulligan.data.reading import read_file

        return read_file(source, options, known=[*LAWS, *TABLES])
    name = str(source)
    if name in LAWS:
        from mulligan.targets.named import draw_table

        drawn = draw_table(name, LAW_ROWS if options.rows is None else options.rows, data_seed)
        return from_object(drawn.to_dict(), options, name)
    if name in TABLES:
        from mulligan.data.builtin import read_table

        return from_object(read_table(name, options).to_dict(), options, name)
    raise _nothing(name)


def _nothing(name: str) -> DataError:
    path = Path(name)
    folder = path.parent if path.parent.is_dir() else Path()
    files = [str(path.parent / entry.name) for entry in folder.iterdir() if entry.is_file()]
    hint = near(name, [*files, *LAWS, *TABLES]).removeprefix(". Did you mean ").removesuffix("?")
    what = f"no file '{name}' here" + (f". Near: {hint}" if hint else "")
    return DataError(what, do=f"give a file, or one of the names {', '.join([*TABLES, *LAWS])}")


def read(source: Any, *, data_seed: int = 0, **options: Any) -> Table:
    """The table that ``source`` means; keywords are the fields of ``ReadOptions``.

    >>> read("moons", rows=100).values.shape
    (100, 2)

    Raises UsageError for an unknown keyword, DataError for rows that cannot be modelled.
    """
    known = {field.name for field in fields(ReadOptions)}
    for name in options:
        if name not in known:
            listed = ", ".join(sorted(known))
            raise UsageError(f"read has no option '{name}'{near(name, known)}", do=f"options: {listed}")
    return open_table(source, ReadOptions(**options), data_seed=data_seed)
