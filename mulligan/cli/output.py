"""What goes to stdout and to files: text, JSON, tables; and the check, before any work, that a place can be written."""

from __future__ import annotations

import json
import math
import os
import shutil
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

from mulligan.errors import SetupError, UsageError

TABLE_SUFFIXES = (".csv", ".parquet", ".npy")


def say(*lines: str) -> None:
    """The result, as lines on stdout."""
    sys.stdout.write("".join(f"{line}\n" for line in lines))
    sys.stdout.flush()


def tell(*lines: str, quiet: bool = False) -> None:
    """Talk to a person, as lines on stderr."""
    if not quiet:
        sys.stdout.flush()
        sys.stderr.write("".join(f"{line}\n" for line in lines))
        sys.stderr.flush()


def say_json(item: Any) -> None:
    """The result as JSON on stdout."""
    say(json.dumps(plain(item), indent=1, ensure_ascii=False, allow_nan=False))


def plain(item: Any) -> Any:
    """The same data as JSON knows it; every non-finite number is None.

    >>> plain({"a": (1.0, float("nan")), 2: {"b"}})
    {'a': [1.0, None], '2': ['b']}
    """
    if is_dataclass(item) and not isinstance(item, type):
        return plain(asdict(item))
    if hasattr(item, "tolist"):
        return plain(item.tolist())
    if isinstance(item, Mapping):
        return {str(key): plain(value) for key, value in item.items()}
    if isinstance(item, list | tuple | set | frozenset):
        return [plain(value) for value in item]
    if isinstance(item, float):
        return item if math.isfinite(item) else None
    if item is None or isinstance(item, str | bool | int):
        return item
    return str(item)


def stdout_width() -> int:
    """Cells of a line on stdout: the terminal's, or as many as there are where there is no terminal."""
    return shutil.get_terminal_size((100, 24)).columns if sys.stdout.isatty() else 200


def colorful(stream: Any) -> bool:
    """Whether escape codes are welcome: a terminal, and neither NO_COLOR nor TERM=dumb."""
    return bool(stream.isatty()) and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def aligned(heads: Iterable[str], rows: Iterable[Iterable[str]], width: int, wrapped: int = 0) -> list[str]:
    """A table as lines; the last ``wrapped`` columns share what the others leave of ``width`` and are wrapped.

    >>> aligned(["a", "b"], [["1", "one two"]], 6, wrapped=1)
    ['a  b', '1  one', '   two']
    """
    import textwrap

    table = [list(heads), *(list(row) for row in rows)]
    sizes = [max(len(row[i]) for row in table) for i in range(len(table[0]))]
    excess = sum(sizes) + 2 * (len(sizes) - 1) - width
    if wrapped and excess > 0:
        room = max(sum(sizes[-wrapped:]) - excess, 3 * wrapped)
        for i in range(len(sizes) - wrapped, len(sizes)):
            sizes[i] = min(sizes[i], max(room // (len(sizes) - i), room - sum(sizes[i + 1 :])))
            room -= sizes[i]
    lines = []
    for row in table:
        cells = [textwrap.wrap(cell, size) or [""] for cell, size in zip(row, sizes)]
        for k in range(max(map(len, cells))):
            parts = [(cell[k] if k < len(cell) else "").ljust(size) for cell, size in zip(cells, sizes)]
            lines.append("  ".join(parts).rstrip())
    return lines


def check_folder(folder: Path, *, overwrite: bool, ours: Callable[[Path], bool] = lambda _: False) -> None:
    """Before any work: the folder can be written, and nothing of somebody else's is in it.

    An existing folder passes if it is empty, if ``ours`` says so, or with ``overwrite``. Raises SetupError where
    nothing can be written, UsageError where something is in the way.
    """
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder} is a file", do="another -o FOLDER")
    if folder.is_dir() and any(folder.iterdir()) and not overwrite and not ours(folder):
        raise UsageError(f"{folder} exists", do="--overwrite, or another -o FOLDER")
    _check_place(folder, folder if folder.is_dir() else folder.parent)


def check_file(path: Path | None, *, overwrite: bool, suffixes: tuple[str, ...] = TABLE_SUFFIXES) -> None:
    """Before any work: a file with one of these extensions can be written. Raises UsageError and SetupError."""
    if path is None:
        return
    if path.suffix.lower() not in suffixes:
        listed = f"{', '.join(suffixes[:-1])} or {suffixes[-1]}"
        raise UsageError(f"-o is {path}", "the extension says the format", do=f"-o {path.stem}{listed}")
    if path.is_dir():
        raise UsageError(f"{path} is a folder", do=f"-o {path}/new.csv")
    if path.exists() and not overwrite:
        raise UsageError(f"{path} exists", do="--overwrite, or another -o FILE")
    _check_place(path, path.parent)


def _check_place(path: Path, nearest: Path) -> None:
    """The nearest existing folder above ``path`` takes new files."""
    from mulligan.cache import why_not_writable

    while not nearest.exists() and nearest != nearest.parent:
        nearest = nearest.parent
    reason = why_not_writable(nearest) if nearest.is_dir() else "not a folder"
    if reason:
        raise SetupError(f"cannot write {path}", f"{nearest}: {reason}", do=f"-o elsewhere/{path.name}")


def write_table(columns: Mapping[str, Any], array: Any = None, path: Path | None = None) -> None:
    """Columns as CSV on stdout, or as a file whose extension says the format (csv, parquet; npy holds ``array``).

    A file is written beside its place and then renamed, so a reader never sees half of one.
    """
    import polars

    frame = polars.DataFrame(dict(columns))
    if path is None:
        sys.stdout.write(_as_text(frame).write_csv())
        sys.stdout.flush()
        return

    def fill(file: Any) -> None:
        if path.suffix.lower() == ".npy":
            import numpy as np

            np.save(file, array, allow_pickle=False)
        elif path.suffix.lower() == ".parquet":
            frame.write_parquet(file)
        else:
            _as_text(frame).write_csv(file)

    write_whole(path, fill)


def write_whole(path: Path, fill: Callable[[Any], Any]) -> None:
    """A file that ``fill`` writes, beside its place and then renamed. Raises SetupError where it cannot be written."""
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with beside.open("wb") as file:
            fill(file)
        beside.replace(path)
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise SetupError(f"cannot write {path}", error.strerror or "", do="another -o FILE") from error


def _as_text(frame: Any) -> Any:
    """Booleans as True and False, which is how a CSV is read back as booleans here."""
    import polars

    booleans = [name for name, dtype in frame.schema.items() if dtype == polars.Boolean]
    said = polars.Series(["False", "True"])
    return frame.with_columns(
        polars.Series(name, said.gather(frame[name].cast(polars.UInt32)), strict=False) for name in booleans
    )
