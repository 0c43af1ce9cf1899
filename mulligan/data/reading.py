"""Files become frames: CSV and TSV, Parquet, npy and npz. Whatever is guessed is said; nothing is repaired in silence.

The file is recognised by its first bytes, not by its name. Text is UTF-8 (with or without byte-order mark). The dialect
of a CSV is guessed on its first 50 rows, and said wherever it is not comma and point.
"""

from __future__ import annotations

import contextlib
import csv
import difflib
import hashlib
import io
import re
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from mulligan.data.cells import is_number, parse_texts
from mulligan.data.signatures import format_of
from mulligan.data.table import Frame, ReadOptions, Source
from mulligan.errors import DataError, SetupError, UsageError

SNIFFED_ROWS = 50
_SEPARATORS = ("\t", ";", "|", ",")
_COMMA_NUMBER = re.compile(r"[+-]?\d*,\d+([eE][+-]?\d+)?")


def read_file(path: str | Path, options: ReadOptions | None = None, known: Iterable[str] = ()) -> Frame:
    """The raw cells of a file.

    ``known`` are names of built-in laws and tables, offered when there is no such file. Raises DataError for a file
    that is missing, empty, of another format, ragged or with a column name twice; UsageError for a folder or an option
    that does not exist; SetupError for a file that may not be read.

    >>> import pathlib, tempfile
    >>> file = pathlib.Path(tempfile.mkdtemp()) / "a.csv"
    >>> _ = file.write_text("x,y\\n1,2.5\\n3,4.5\\n")
    >>> read_file(file).columns["y"]
    array([2.5, 4.5])
    """
    options, path = options or ReadOptions(), Path(path)
    data = _bytes_of(path, known)
    source = Source(path.name, hashlib.sha256(data).hexdigest(), str(path))
    kind = format_of(path, data, options.format)
    if kind == "csv":
        return _read_csv(path.name, data, options, source)
    frame = (
        _read_parquet(path.name, data, options) if kind == "parquet" else _read_numpy(path.name, data, options, kind)
    )
    return replace(frame, source=source)


def _bytes_of(path: Path, known: Iterable[str]) -> bytes:
    if path.is_dir():
        tables = sorted(
            p.name for p in path.iterdir() if p.suffix.lower() in (".csv", ".tsv", ".parquet", ".npy", ".npz")
        )
        inside = f"Tables inside: {', '.join(tables[:5])}" if tables else "There is no table inside"
        do = f"pass the file, such as {path / tables[0]}" if tables else "pass a file"
        raise UsageError(f"{str(path)!r} is a folder", why=inside, do=do)
    try:
        return path.read_bytes()
    except FileNotFoundError:
        folder = path.parent
        names = [p.name for p in folder.iterdir() if p.is_file()] if folder.is_dir() else []
        near = difflib.get_close_matches(path.name, [*names, *known], n=3, cutoff=0.6)
        place = "here" if folder == Path(".") else f"in {folder}"
        lost = "" if folder.is_dir() else "There is no such folder"
        raise DataError(f"no file {path.name!r} {place}", why=f"Near: {', '.join(near)}" if near else lost) from None
    except OSError as error:
        raise SetupError(f"cannot read {path}", error.strerror or "", do=f"chmod u+r {path}") from None


@dataclass(frozen=True)
class _Dialect:
    sep: str
    decimal: str
    guessed: bool
    sniffed: int


def _read_csv(name: str, data: bytes, options: ReadOptions, source: Source) -> Frame:
    text = _decode(name, data)
    if not text.strip():
        raise DataError(f"{name} is empty", why="There is nothing to fit", do="a file with a line of names and rows")
    dialect = _sniff(text, options)
    rows, lines, blanks = _records(name, text, dialect.sep)
    first = [cell.strip() for cell in rows[0]]
    header = options.header
    if header is None:
        decimal_point = [cell.replace(",", ".") if dialect.decimal == "," else cell for cell in first]
        header = not all(is_number(cell) for cell in decimal_point)
    notes = []
    names = (
        [title or f"x{i}" for i, title in enumerate(first, 1)] if header else [f"x{i + 1}" for i in range(len(first))]
    )
    if not header and options.header is None:
        notes.append(f"no header found (the first row is all numbers): columns are called x1 to x{len(names)}")
    if header and "" in first:
        unnamed = [f"x{i}" for i, title in enumerate(first, 1) if not title]
        notes.append(f"columns without a name are called {', '.join(unnamed)}")
    _refuse_twice(name, names)
    rows, lines = (rows[1:], lines[1:]) if header else (rows, lines)
    if not rows:
        raise DataError(f"{name} has a header and 0 rows", why="There is nothing to fit", do="a file with rows")
    _refuse_ragged(name, rows, lines, len(names), header)
    if blanks:
        notes.append(f"{blanks} blank {'line' if blanks == 1 else 'lines'} skipped")
    return _frame(names, rows, lines, dialect, options, source, notes)


def _frame(
    names: list[str],
    rows: list[list[str]],
    lines: list[int],
    dialect: _Dialect,
    options: ReadOptions,
    source: Source,
    notes: list[str],
) -> Frame:
    import numpy as np

    parsed = {title: parse_texts(cells, options.na, dialect.decimal) for title, cells in zip(names, zip(*rows))}
    usual = dialect.sep == "," or (dialect.sep == "\t" and source.name.endswith(".tsv"))
    if dialect.guessed and not (usual and dialect.decimal == "."):
        title = next((t for t in names if parsed[t][1] == "float"), names[0])
        value = parsed[title][0][0]
        separator = "tab" if dialect.sep == "\t" else repr(dialect.sep)
        notes.insert(
            0,
            f"read with {separator} and {dialect.decimal!r} decimals (guessed from {dialect.sniffed} rows): "
            f"{title} = {value}. Not so? --sep, --decimal",
        )
    return Frame(
        columns={title: cells[0] for title, cells in parsed.items()},
        origin={title: cells[1] for title, cells in parsed.items()},
        decimals={title: cells[2] for title, cells in parsed.items()},
        source=source,
        notes=tuple(notes),
        lines=np.asarray(lines),
    )


def _decode(name: str, data: bytes) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise DataError(
            f"{name} is not UTF-8",
            f"byte 0x{data[error.start]:02x} in line {line}",
            do="save it as UTF-8 (for instance iconv -f LATIN1 -t UTF-8)",
        ) from None


def _sniff(text: str, options: ReadOptions) -> _Dialect:
    """Separator that splits the first rows most evenly; decimal comma where cells read 7,4 and none reads 7.4."""
    for flag, value, allowed in (("--sep", options.sep, None), ("--decimal", options.decimal, (".", ","))):
        if value is not None and (len(value) != 1 or (allowed and value not in allowed)):
            raise UsageError(
                f"{flag} is {value!r}", do=f"{flag} '{',' if flag == '--decimal' else ';'}' (one character)"
            )
    sep = options.sep or _separator(text)
    if sep == options.decimal:
        raise UsageError(f"{sep!r} cannot be both separator and decimal sign", do="--sep ';' --decimal ','")
    rows = _first_rows(text, sep)
    decimal = options.decimal
    if decimal is None:
        cells = [cell.strip() for row in rows for cell in row]
        commas = sum(bool(_COMMA_NUMBER.fullmatch(cell)) for cell in cells)
        points = sum("." in cell and is_number(cell) for cell in cells)
        decimal = "," if commas and not points and sep != "," else "."
    return _Dialect(sep, decimal, options.sep is None or options.decimal is None, len(rows))


def _separator(text: str) -> str:
    def evenness(sep: str) -> float:
        widths = Counter(len(row) for row in _first_rows(text, sep))
        width, hits = widths.most_common(1)[0] if widths else (1, 0)
        return hits / sum(widths.values()) if width > 1 else 0.0

    best = max(_SEPARATORS, key=evenness)  # the first of equals: a comma file rarely holds ';' as evenly as ','
    return best if evenness(best) > 0 else ","


def _first_rows(text: str, sep: str) -> list[list[str]]:
    rows = []
    reader = csv.reader(io.StringIO(text[: 1 << 20], newline=""), delimiter=sep, skipinitialspace=True)
    with contextlib.suppress(csv.Error):  # a wrong separator makes endless fields; the right one is checked later
        for row in reader:
            if row:
                rows.append(row)
            if len(rows) == SNIFFED_ROWS:
                break
    return rows


def _records(name: str, text: str, sep: str) -> tuple[list[list[str]], list[int], int]:
    """Rows, the line at which each starts, and the number of blank lines left out."""
    rows, lines, line = [], [], 1
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=sep, skipinitialspace=True, strict=True)
    try:
        for row in reader:
            rows.append(row)
            lines.append(line)
            line = reader.line_num + 1
    except csv.Error as error:
        raise DataError(
            f"{name} cannot be split into cells", f"from line {line}: {error}", do="check the quotes"
        ) from None
    while rows and not rows[-1]:
        rows.pop()
        lines.pop()
    if rows and max(map(len, rows)) == 1:  # in a single column a blank line is an empty cell
        return [row or [""] for row in rows], lines, 0
    filled = [i for i, row in enumerate(rows) if row]
    return [rows[i] for i in filled], [lines[i] for i in filled], len(rows) - len(filled)


def _refuse_ragged(name: str, rows: list[list[str]], lines: list[int], width: int, header: bool) -> None:
    ragged = [(line, len(row)) for line, row in zip(lines, rows) if len(row) != width]
    if not ragged:
        return
    line, found = ragged[0]
    places = ", ".join(str(place) for place, _ in ragged[:3])
    expected = f"the header {width}" if header else f"the first row {width}"
    which = f"the first of {len(ragged)} such lines: {places}" if len(ragged) > 1 else "the only such line"
    raise DataError(
        f"line {line} has {found} fields, {expected}",
        f"{which}, in {name}",
        "A comma inside a text needs quotes",
    )


def _refuse_twice(name: str, names: Sequence[str]) -> None:
    twice = [title for title, count in Counter(names).items() if count > 1]
    if twice:
        count = Counter(names)[twice[0]]
        word = {2: "two", 3: "three"}.get(count, str(count))
        raise DataError(
            f"{word} columns are called {twice[0]!r}",
            name,
            "Names are how columns are told apart",
            "rename them in the first line of the file, or --no-header if that line is a row",
        )


def _read_parquet(name: str, data: bytes, options: ReadOptions) -> Frame:
    import polars

    from mulligan.data.frames import from_object

    try:
        frame = polars.read_parquet(io.BytesIO(data))
    except (polars.exceptions.PolarsError, OSError) as error:
        raise DataError(f"{name} is a broken Parquet file", str(error).splitlines()[0], do="write it again") from None
    return from_object(frame, options, name)


def _read_numpy(name: str, data: bytes, options: ReadOptions, kind: str) -> Frame:
    import numpy as np

    from mulligan.data.frames import from_object

    try:
        loaded = np.load(io.BytesIO(data), allow_pickle=False)
        arrays = dict(loaded.items()) if kind == "npz" else {"x": loaded}
    except ValueError as error:
        pickled = "allow_pickle" in str(error)
        what = "holds Python objects (a pickle inside)" if pickled else "is broken"
        why = "Reading them runs code of whoever wrote it" if pickled else str(error)
        raise DataError(f"{name} {what}", why=why, do="save numbers only, or a CSV") from None
    except (EOFError, OSError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(f"{name} is broken", str(error), do="write it again") from None
    if kind == "npy" or (len(arrays) == 1 and next(iter(arrays.values())).ndim == 2):
        return from_object(next(iter(arrays.values())), options, name)
    if all(array.ndim == 1 for array in arrays.values()) and len({len(array) for array in arrays.values()}) == 1:
        return from_object(arrays, options, name)
    shapes = ", ".join(f"{key} {array.shape}" for key, array in arrays.items())
    raise DataError(
        f"{name} holds {len(arrays)} arrays of different shapes", shapes, do="save one array of shape (rows, columns)"
    )
