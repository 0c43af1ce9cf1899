"""From the cells of one column to numbers or texts: nothing is guessed but whether all of them are numbers."""

from __future__ import annotations

import datetime
import numbers
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np

from mulligan.data.table import Output
from mulligan.errors import DataError

Cells = tuple[np.ndarray, Output, int | None]


def parse_texts(texts: Sequence[str], na: Collection[str] = (), decimal: str = ".") -> Cells:
    """Array, origin and number of decimals of one column of a text file.

    Empty cells, ``nan`` and the texts in ``na`` become NaN (or None among texts). ``True`` and ``False`` make a boolean
    column. One cell that is no number makes the column text: ``inspection`` then says which cells those are.

    >>> parse_texts(["1.25", "", "7.5"])
    (array([1.25,  nan, 7.5 ]), 'float', 2)
    """
    empty = {"", *na}
    cells = [text.strip() for text in texts]
    if decimal == ",":
        cells = [cell.replace(",", ".") if "." not in cell else cell for cell in cells]
        empty |= {token.replace(",", ".") for token in na}
    filled = [cell for cell in cells if cell not in empty]
    if filled and all(cell in ("True", "False") for cell in filled):
        return np.array([np.nan if c in empty else float(c == "True") for c in cells]), "boolean", None
    try:
        if any("_" in cell for cell in filled):  # float("1_000") is Python's habit, not a file's
            raise ValueError
        values = np.array([np.nan if cell in empty else float(cell) for cell in cells], np.float64)
    except ValueError:
        return np.array([None if c in empty else t.strip() for c, t in zip(cells, texts)], object), "text", None
    decimals = max(map(_decimals, filled), default=0)
    whole = decimals == 0 and not any("." in cell or "e" in cell.lower() or "n" in cell.lower() for cell in filled)
    return without_na(values, na), "integer" if whole else "float", decimals if decimals <= 15 else None


def parse_objects(name: str, values: Sequence[Any], na: Collection[str] = ()) -> Cells:
    """The same for Python objects: numbers, bools, texts, and None or NaN for empty cells.

    Raises DataError for dates, complex numbers and anything else that is not one number or one text.
    """
    cells = [None if _is_empty(value, na) else value for value in values]
    filled = [cell for cell in cells if cell is not None]
    for cell in filled:
        _refuse_foreign(name, cell)
    if filled and all(isinstance(cell, bool | np.bool_) for cell in filled):
        return np.array([np.nan if c is None else float(c) for c in cells]), "boolean", None
    if all(not isinstance(cell, str) for cell in filled):
        whole = bool(filled) and all(isinstance(cell, numbers.Integral) for cell in filled)
        floats = np.array([np.nan if c is None else float(c) for c in cells], np.float64)
        return without_na(floats, na), "integer" if whole else "float", 0 if whole else None
    return np.array([None if c is None else str(c).strip() for c in cells], object), "text", None


def without_na(values: np.ndarray, na: Collection[str]) -> np.ndarray:
    """Numbers with NaN for those that ``na`` names: ``--na -999`` means -999.0, too."""
    tokens = [float(token) for token in na if is_number(token)]
    return np.where(np.isin(values, tokens), np.nan, values) if tokens else values


def is_number(text: str) -> bool:
    """Whether a text reads as a number.

    >>> [is_number(text) for text in ("7.5", "-1e3", "n/a", "1_000")]
    [True, True, False, False]
    """
    try:
        float(text)
    except ValueError:
        return False
    return "_" not in text


def refuse_dates(name: str, kind: str) -> DataError:
    """The error for a column of dates or times."""
    return DataError(
        f"{name!r} holds dates or times ({kind})",
        why="Which origin and unit they should have is your choice",
        do=f"convert {name!r} to a number (days since a date, hour of the day), or --drop {name}",
    )


def refuse_complex(name: str) -> DataError:
    """The error for complex numbers."""
    return DataError(
        f"{name!r} holds complex numbers",
        why="Columns are real",
        do="pass real and imaginary parts (or modulus and angle) as two columns",
    )


def _is_empty(value: Any, na: Collection[str]) -> bool:
    if value is None or type(value).__name__ in ("NAType", "NaTType"):
        return True
    if isinstance(value, str):
        return value.strip() == "" or value.strip() in na
    return isinstance(value, float | np.floating) and bool(np.isnan(value))


def _refuse_foreign(name: str, cell: Any) -> None:
    if isinstance(cell, str | bool | np.bool_ | numbers.Real) or type(cell).__name__ == "Decimal":
        return
    if isinstance(cell, datetime.date | datetime.time | datetime.timedelta | np.datetime64 | np.timedelta64):
        raise refuse_dates(name, type(cell).__name__)
    if isinstance(cell, numbers.Complex):
        raise refuse_complex(name)
    raise DataError(
        f"{name!r} holds objects of type {type(cell).__name__}",
        why="A cell is one number or one text",
        do=f"convert {name!r}, or --drop {name}",
    )


def _decimals(cell: str) -> int:
    mantissa, _, exponent = cell.lower().partition("e") if "e" in cell or "E" in cell else (cell, "", "")
    point = mantissa.rfind(".")
    shown = len(mantissa) - point - 1 if point >= 0 else 0
    return max(0, shown - int(exponent)) if exponent else shown
