"""What is done to a frame before its columns are judged: options checked, columns renamed and dropped, rows chosen.

Nothing here is silent: each change is a sentence in the notes, each refusal names the command that mends it.
"""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from mulligan.data.cells import is_number
from mulligan.data.table import Frame, ReadOptions
from mulligan.errors import DataError, UsageError

PARTS = ("train", "select", "test")
TRANSFORMS = ("none", "log", "logit", "auto")
HUGE = 1e15
_SHOWN = 3


@dataclass(frozen=True)
class Roles:
    """A frame without the columns that are not data, and what those columns said."""

    frame: Frame
    groups: np.ndarray | None
    parts: np.ndarray | None


def check_options(frame: Frame, options: ReadOptions) -> None:
    """Every option names columns that exist and values that are allowed; else UsageError with the nearest name."""
    names = tuple(frame.columns)
    if options.missing not in ("refuse", "drop", "model"):
        raise UsageError(f"--missing is {options.missing!r}", do="--missing refuse, --missing drop or --missing model")
    if options.rows is not None and options.rows < 1:
        raise UsageError(f"--rows is {options.rows}", do="--rows with a whole number of at least 2")
    for flag, named in (
        ("keep", options.keep),
        ("drop", options.drop),
        ("continuous", [name for name in options.continuous if name != "all"]),
        ("categorical", options.categorical),
        ("resolution", options.resolution),
        ("transform", options.transform),
        ("group", [options.group] if options.group else []),
        ("split", [options.split] if options.split else []),
    ):
        for name in named:
            require_column(name, names, f"--{flag}")
    for name, step in options.resolution.items():
        if not (np.isfinite(step) and step > 0):
            raise UsageError(f"--resolution {name}={step:g}", why="A step is positive", do=f"--resolution {name}=0.1")
    for name, transform in options.transform.items():
        if transform not in TRANSFORMS:
            near = difflib.get_close_matches(transform, TRANSFORMS, n=1)
            do = f"--transform {name}={near[0] if near else 'log'}"
            raise UsageError(f"no transform {transform!r}", f"known: {', '.join(TRANSFORMS)}", do=do)


def require_column(name: str, names: Sequence[str], flag: str) -> None:
    """UsageError with the nearest name if there is no such column."""
    if name in names:
        return
    near = difflib.get_close_matches(name, names, n=1) or [n for n in names if n.lower() == name.lower()]
    columns = f"Columns: {', '.join(names[:12])}{', ...' if len(names) > 12 else ''}"
    raise UsageError(f"no column {name!r}", flag, columns, f"{flag} {near[0]}" if near else "")


def rename(frame: Frame, names: dict[str, str]) -> Frame:
    """Columns under their new names; UsageError if an old one does not exist or a new one is taken."""
    if not names:
        return frame
    for old in names:
        require_column(old, tuple(frame.columns), "--rename")
    new = [names.get(title, title) for title in frame.columns]
    twice = sorted({title for title in new if new.count(title) > 1})
    if twice:
        raise UsageError(f"--rename makes two columns called {twice[0]!r}", do="choose another name")
    return replace(
        frame,
        columns={names.get(title, title): cells for title, cells in frame.columns.items()},
        origin={names.get(title, title): origin for title, origin in frame.origin.items()},
        decimals={names.get(title, title): decimals for title, decimals in frame.decimals.items()},
    )


def without(frame: Frame, names: Iterable[str]) -> Frame:
    """The frame without these columns."""
    left_out = set(names)
    return replace(frame, columns={title: c for title, c in frame.columns.items() if title not in left_out})


def take_roles(frame: Frame, options: ReadOptions) -> Roles:
    """Drop the columns that the user drops; take the group and the split column out of the data."""
    groups = parts = None
    for flag, name in (("--group", options.group), ("--split", options.split)):
        if name is not None and is_empty(frame.columns[name]).any():
            rows = places(np.flatnonzero(is_empty(frame.columns[name])), frame)
            raise DataError(f"{flag} column {name!r} has empty cells", rows, do="fill them")
    if options.group is not None:
        groups = np.unique(as_texts(frame.columns[options.group]), return_inverse=True)[1].astype(np.int64)
    if options.split is not None:
        parts = as_texts(frame.columns[options.split]).astype(str)
        foreign = sorted(set(parts.tolist()) - set(PARTS))
        if foreign:
            raise DataError(
                f"--split column {options.split!r} holds {', '.join(map(repr, foreign[:_SHOWN]))}",
                "allowed: train, select, test",
                do=f"rename the values of {options.split!r}",
            )
    notes = list(frame.notes)
    if options.drop:
        notes.append(f"left out as asked (--drop): {', '.join(options.drop)}")
    for flag, name, meaning in (
        ("--group", options.group, "says which rows belong together"),
        ("--split", options.split, "says which part each row is in"),
    ):
        if name is not None:
            notes.append(f"{name!r} {meaning} ({flag}): not modelled")
    used = [*options.drop, *(name for name in (options.group, options.split) if name is not None)]
    return Roles(replace(without(frame, used), notes=tuple(notes)), groups, parts)


def take_rows(roles: Roles, index: np.ndarray, *notes: str) -> Roles:
    """The same with these rows only; notes are added."""
    frame = roles.frame
    frame = replace(
        frame,
        columns={title: cells[index] for title, cells in frame.columns.items()},
        lines=None if frame.lines is None else frame.lines[index],
        notes=(*frame.notes, *notes),
    )
    return Roles(
        frame,
        None if roles.groups is None else roles.groups[index],
        None if roles.parts is None else roles.parts[index],
    )


def settle_texts(frame: Frame, texts_meant: Sequence[str] = ()) -> Frame:
    """Text columns that are numbers spoilt by a few texts are refused; those that are all numbers are read as such.

    ``texts_meant`` are the columns whose numbers are names (``--categorical``): they stay as they are.
    """
    columns, origin, decimals, notes = dict(frame.columns), dict(frame.origin), dict(frame.decimals), list(frame.notes)
    for name, cells in frame.columns.items():
        if cells.dtype != object or name in texts_meant:
            continue
        tally = Counter(cell for cell in cells.tolist() if cell is not None)
        distinct = [text for text, _ in tally.most_common() if not is_number(text)]
        texts = sum(tally[text] for text in distinct)
        count = tally.total() - texts
        if count and not texts:
            columns[name] = np.array([np.nan if cell is None else float(cell) for cell in cells])
            origin[name], decimals[name] = "float", None
            notes.append(
                f"{name!r} is text, but all of it numbers: read as numbers (--categorical {name} if they are names)"
            )
        elif count >= texts > 0:
            quoted = ", ".join(repr(text) for text in distinct[:_SHOWN]) + (", ..." if len(distinct) > _SHOWN else "")
            raise DataError(
                f"{name!r} has {count:,} numbers and {texts:,} {'text' if texts == 1 else 'texts'} ({quoted})",
                why="A column is numbers or texts",
                do=f"--na {','.join(distinct[:_SHOWN])}"
                if len(distinct) <= _SHOWN
                else f"mend them, --drop {name}, or --categorical {name}",
            )
    return replace(frame, columns=columns, origin=origin, decimals=decimals, notes=tuple(notes))


def drop_incomplete(roles: Roles, options: ReadOptions, ignore: Sequence[str] = (), every_row: bool = False) -> Roles:
    """Refuse empty cells and infinities, or (``--missing drop``) leave those rows out and say how many.

    ``--missing model`` keeps rows with empty cells (infinities are refused, and rows that show nothing are left out, unless
    ``every_row`` is to stay: rows for a model that exists, to be completed).
    ``ignore`` are columns that are not modelled anyway.
    """
    frame = roles.frame
    used = {name: cells for name, cells in frame.columns.items() if name not in ignore}
    empty = {name: is_empty(cells) for name, cells in used.items()}
    infinite = {name: np.isinf(cells) for name, cells in used.items() if cells.dtype != object}
    incomplete = np.any([*empty.values()], axis=0) if empty else np.zeros(len(frame), bool)
    endless = np.any([*infinite.values()], axis=0) if infinite else np.zeros(len(frame), bool)
    n, kept = len(frame), int((~incomplete & ~endless).sum())
    counts = {name: int(mask.sum()) for name, mask in empty.items() if mask.any()}
    shown = ", ".join(f"{name} {count:,}" for name, count in sorted(counts.items(), key=lambda item: -item[1]))
    if options.missing != "drop":
        if counts and options.missing == "refuse":
            cells = f"{sum(counts.values()):,} empty {'cell' if sum(counts.values()) == 1 else 'cells'}"
            hollow = [name for name, count in counts.items() if count == n]
            do = f"--missing drop (keeps {kept:,} of {n:,})" if kept else "--drop the columns that are mostly empty"
            do += ", or --missing model"
            raise DataError(
                f"{cells} in {len(counts)} of {len(used)} columns ({shown})",
                why="Densities need complete rows",
                do=f"--drop {','.join(hollow)}" if hollow else do,
            )
        for name, mask in infinite.items():
            if mask.any():
                row = int(np.flatnonzero(mask)[0])
                more = f", one of {int(mask.sum()):,} such cells" if mask.sum() > 1 else ""
                raise DataError(
                    f"{place(row, frame)}, {name!r} is {frame.columns[name][row]}{more}", do="fix it or --missing drop"
                )
        keep = options.missing == "refuse" or every_row
        return roles if keep else _keep_incomplete(roles, empty, shown)
    notes = []
    if counts:
        gone = int(incomplete.sum())
        notes.append(f"dropped {gone:,} of {n:,} rows with empty cells ({shown}): --missing drop")
    if (endless & ~incomplete).any():
        notes.append(
            f"dropped {int((endless & ~incomplete).sum()):,} of {n:,} rows with infinite values: --missing drop"
        )
    if not kept:
        raise DataError(
            f"every row has an empty or infinite cell ({shown})", do="--drop the columns that are mostly empty"
        )
    return take_rows(roles, np.flatnonzero(~incomplete & ~endless), *notes) if notes else roles


def _keep_incomplete(roles: Roles, empty: dict[str, np.ndarray], shown: str) -> Roles:
    """Rows with empty cells stay, those that show nothing do not; both are said."""
    n = len(roles.frame)
    cells = np.stack([*empty.values()]) if empty else np.zeros((1, n), bool)
    hollow = cells.all(axis=0)
    columns = [name for name, mask in empty.items() if mask.all()]
    if columns and n:
        raise DataError(f"{columns[0]!r} has no cell that is not empty", do=f"--drop {','.join(columns)}")
    incomplete = int((cells.any(axis=0) & ~hollow).sum())
    if not incomplete and not hollow.any():
        return roles
    notes = [f"{incomplete:,} of {n:,} rows have empty cells ({shown}): kept as unknown (--missing model)"]
    if hollow.any():
        notes.append(f"left out {int(hollow.sum()):,} rows without any cell")
    return take_rows(roles, np.flatnonzero(~hollow), *notes)


def draw_rows(roles: Roles, options: ReadOptions) -> Roles:
    """At most ``options.rows`` rows, drawn without replacement with the stated seed, in their old order."""
    n = len(roles.frame)
    if options.rows is None or options.rows >= n:
        return roles
    generator = np.random.Generator(np.random.PCG64(options.seed))
    index = np.sort(generator.choice(n, options.rows, replace=False))
    return take_rows(roles, index, f"{options.rows:,} of {n:,} rows, drawn at random (seed {options.seed})")


def refuse_huge(frame: Frame) -> None:
    """DataError for a number beyond 1e15, where float64 no longer resolves units."""
    for name, cells in frame.columns.items():
        if cells.dtype == object:
            continue
        huge = np.abs(cells) > HUGE
        if huge.any():
            row = int(np.flatnonzero(huge)[0])
            raise DataError(
                f"{name!r} is {cells[row]:g} in {place(row, frame)}",
                f"{int(huge.sum()):,} values beyond 1e15",
                "Squares and digits of such numbers are lost",
                f"divide {name!r} by a unit, --categorical {name} if it is a name, or --drop {name}",
            )


def is_empty(cells: np.ndarray) -> np.ndarray:
    """True where a cell is empty; bool, shape (rows,)."""
    if cells.dtype == object:
        return np.array([cell is None for cell in cells], bool)
    return np.isnan(cells)


def as_texts(cells: np.ndarray, boolean: bool = False) -> np.ndarray:
    """Cells as the names of levels: 3.0 is "3", True is "True", texts are themselves."""
    if cells.dtype == object:
        return cells
    if boolean:
        return np.array([str(bool(value)) for value in cells], object)
    distinct, inverse = np.unique(cells, return_inverse=True)
    written = [str(int(v)) if float(v).is_integer() else repr(float(v)) for v in distinct]
    return np.array(written, object)[inverse]


def place(row: int, frame: Frame) -> str:
    """ "row 40 (line 41)": rows are counted from 1 without the header, lines as an editor does."""
    return f"row {row + 1}" if frame.lines is None else f"row {row + 1} (line {frame.lines[row]})"


def places(rows: np.ndarray, frame: Frame) -> str:
    """The first three of these rows, and how many there are."""
    word = "row" if len(rows) == 1 else "rows"
    shown = ", ".join(str(row + 1) for row in rows[:_SHOWN]) + (", ..." if len(rows) > _SHOWN else "")
    line = "" if frame.lines is None or not len(rows) else f"; the first is line {frame.lines[rows[0]]}"
    return f"{len(rows):,} {word}: {shown}{line}"
