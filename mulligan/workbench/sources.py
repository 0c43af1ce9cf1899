"""From whatever a person names to a table: a path, a law, a shipped table, a DataFrame, an array."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from mulligan.catalog import LAWS, TABLES, near
from mulligan.data.frames import from_object
from mulligan.data.images import are_pictures, read_pictures, refuse_picture_options
from mulligan.data.inspection import conform, inspect
from mulligan.data.pixels import conform_pictures, picture_table
from mulligan.data.table import Frame, ReadOptions, Schema, Table
from mulligan.errors import DataError, UsageError

LAW_ROWS = 10_000
LONGEST_NAME = 255  # letters of a name that an error repeats


def open_table(source: Any, options: ReadOptions | None = None, *, data_seed: int = 0) -> Table:
    """The table that ``source`` means.

    A path to an existing file wins over a name; a name is one of ``catalog.LAWS`` (10 000 rows unless ``options.rows``,
    drawn with ``data_seed``) or ``catalog.TABLES``; anything else is taken as a DataFrame, an array or a dictionary of
    columns. A ``Table`` comes back as it is. Raises DataError with the nearest name where nothing fits, and UsageError for
    options that a law, which is drawn and not read, cannot follow.
    """
    options = options or ReadOptions()
    if isinstance(source, Table):
        return source
    if are_pictures(source):
        return picture_table(read_pictures(source, options))
    refuse_picture_options(source, options)
    if not isinstance(source, str | Path):
        return inspect(from_object(source, options), options)
    if _is_there(source):
        from mulligan.data.reading import read_file

        return inspect(read_file(source, options, known=[*LAWS, *TABLES]), options)
    name = str(source)
    if name in LAWS:
        _refuse_idle_options(name, options)
    return _named(name, options, data_seed)


def _is_there(source: str | Path) -> bool:
    """Whether there is such a file; a name that no file can have (too long, a zero byte) is none."""
    try:
        return Path(source).exists()
    except (OSError, ValueError):
        return False


def _named(name: str, options: ReadOptions, data_seed: int) -> Table:
    if name in LAWS:
        from mulligan.targets.named import draw_table

        return draw_table(name, LAW_ROWS if options.rows is None else options.rows, data_seed)
    if name in TABLES:
        from mulligan.data.builtin import read_table

        return read_table(name, options)
    raise _nothing(name)


def _refuse_idle_options(name: str, options: ReadOptions) -> None:
    """A law is drawn as it is: any option but ``rows`` (and ``seed``, which every command sets) would be ignored."""
    plain = ReadOptions()
    idle = [
        field.name
        for field in fields(ReadOptions)
        if field.name not in ("rows", "seed")
        and getattr(options, field.name) != getattr(plain, field.name)
        and not (getattr(options, field.name) in ((), []) or getattr(options, field.name) == {})
    ]
    if idle:
        raise UsageError(
            f"'{name}' is a law, which takes no {', '.join(idle)}",
            why="Its rows are drawn as they are; of the options for reading only rows applies",
            do=f"leave {', '.join(idle)} out, or write the draws to a file and read that",
        )


def open_rows(source: Any, schema: Schema, options: ReadOptions | None = None, *, data_seed: int = 0) -> Table:
    """Other rows put under a fitted schema; see ``data.inspection.conform`` for what is refused.

    Groups come from the column ``options.group``, or from ``source`` where it is a table that has them.
    """
    options = options or ReadOptions()
    if are_pictures(source):
        return conform_pictures(read_pictures(source, _for_schema(options, schema)), schema)
    if isinstance(source, str | Path) and not _is_there(source):
        source = _named(str(source), options, data_seed)
        options = replace(options, rename={})  # they were renamed when they were read
    if not isinstance(source, Table):
        return conform(_frame(source, options), schema, options)
    if source.schema == schema:
        return source
    if options.group is not None and options.group not in source.names:
        options = replace(options, group=None)
    table = conform(from_object(source.to_dict(), options, source.source.name), schema, options)
    carried = source.groups is not None and options.group is None and len(table) == len(source)
    return replace(table, groups=source.groups) if carried else table


def _for_schema(options: ReadOptions, schema: Schema) -> ReadOptions:
    """Pixels as they are, where the model knows grey: a few that happen to be 0 or 255 are not two levels."""
    if schema.image is None or schema.image.levels == 2 or options.binarise is not None:
        return options
    return replace(options, levels=256)


def open_given(source: Any, schema: Schema, names: Sequence[str], options: ReadOptions | None = None) -> Table:
    """The ``names`` columns of ``source``: a mapping of one value each (or of a list of values each), or a table with
    those columns; others beside them are ignored.

    Raises UsageError for a name in a mapping that is not given, DataError for a missing column, an empty cell, and a
    value that the schema does not know.
    """
    columns = Schema(tuple(column for column in schema.modelled if column.name in names))
    if isinstance(source, Mapping):
        source = from_object(_as_columns(source, names), options, "given")
    others = tuple(column.name for column in schema.columns if column.name not in names)
    options = replace(options or ReadOptions(), drop=others)  # known, and so not to be told as unknown
    return open_rows(source, columns, options)


def _as_columns(source: Mapping[str, Any], names: Sequence[str]) -> dict[str, list]:
    """One column for each name, of one length; UsageError for a name that is not given, or one that lacks its value."""
    for name in source:
        if name not in names:
            hint = near(str(name), names)
            raise UsageError(f"'{name}' is not a given column{hint}", do=f"given columns: {', '.join(names)}")
    lacking = [name for name in names if name not in source]
    if lacking:
        said = ",".join(f"{name}={source.get(name, 'VALUE')}" for name in names)
        raise UsageError(f"no value is given for {', '.join(map(repr, lacking))}", do=f"--given {shlex.quote(said)}")
    columns = {
        name: [item] if isinstance(item, str) or not isinstance(item, Iterable) else list(item)
        for name, item in source.items()
    }
    longest = max(map(len, columns.values()))
    return {name: items * longest if len(items) == 1 else items for name, items in columns.items()}


def raw_frame(source: Any) -> Frame:
    """The cells of a table, a file, a DataFrame or an array, as they are: empty ones are not refused."""
    return _frame(source.to_dict() if isinstance(source, Table) else source, ReadOptions())


def _frame(source: Any, options: ReadOptions) -> Frame:
    if not isinstance(source, str | Path):
        return from_object(source, options)
    from mulligan.data.reading import read_file

    return read_file(source, options, known=[*LAWS, *TABLES])


def _nothing(name: str) -> DataError:
    path = Path(name)
    folder = path.parent if _is_there(path.parent) and path.parent.is_dir() else Path()
    files = [str(path.parent / entry.name) for entry in folder.iterdir() if entry.is_file()]
    hint = near(name, [*files, *LAWS, *TABLES]).removeprefix(". Did you mean ").removesuffix("?")
    shown = name if len(name) <= LONGEST_NAME else f"{name[:LONGEST_NAME]}…"
    what = f"no file {shown!r} here" + (f". Near: {hint}" if hint else "")
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
