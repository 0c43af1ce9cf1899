"""Objects in memory become frames: pandas, Polars, Arrow (through Narwhals), dictionaries of columns, NumPy arrays."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from mulligan.data.cells import Cells, parse_objects, refuse_complex, refuse_dates, without_na
from mulligan.data.table import Frame, ReadOptions, Source
from mulligan.errors import DataError, UsageError

_ACCEPTED = "pass a DataFrame (pandas, Polars, Arrow), a dict of columns, or an array of shape (rows, columns)"


def from_object(obj: Any, options: ReadOptions | None = None, name: str = "memory") -> Frame:
    """The raw cells of a DataFrame, a dict of columns, or an array of shape (rows,) or (rows, columns).

    The columns of an array are called x1 to xd. Raises DataError for dates, complex numbers, structured arrays, unequal
    lengths and more than two dimensions; UsageError for an object that is no table.

    >>> from_object({"a": [1, 2], "b": ["u", None]}).columns["b"]
    array(['u', None], dtype=object)
    """
    options = options or ReadOptions()
    if isinstance(obj, Frame):
        return obj
    if isinstance(obj, np.ndarray):
        return _from_array(obj, options, name)
    if isinstance(obj, Mapping):
        return _from_mapping(obj, options, name)
    if isinstance(obj, list | tuple):
        try:
            return _from_array(np.asarray(obj), options, name)
        except ValueError:
            raise DataError("the rows of the list have unequal lengths", do=_ACCEPTED) from None
    return _from_dataframe(obj, options, name)


def _assemble(parsed: dict[str, Cells], name: str, notes: tuple[str, ...] = ()) -> Frame:
    if not parsed or not len(next(iter(parsed.values()))[0]):
        raise DataError(f"{name} has {len(parsed)} columns and 0 rows", why="There is nothing to fit", do=_ACCEPTED)
    return Frame(
        columns={title: cells[0] for title, cells in parsed.items()},
        origin={title: cells[1] for title, cells in parsed.items()},
        decimals={title: cells[2] for title, cells in parsed.items()},
        source=Source(name),
        notes=notes,
    )


def _from_array(array: np.ndarray, options: ReadOptions, name: str) -> Frame:
    if isinstance(array, np.ma.MaskedArray):
        raise DataError("a masked array", why="Masked cells are empty cells", do="array.filled(numpy.nan)")
    if array.dtype.names:
        fields = ", ".join(array.dtype.names)
        raise DataError(
            "a structured array", f"fields {fields}", do="pass a dict of its fields: {n: a[n] for n in a.dtype.names}"
        )
    if array.ndim not in (1, 2):
        raise DataError(f"an array of shape {array.shape}", why="A table has rows and columns", do=_ACCEPTED)
    if not array.size:
        raise DataError(f"an array of shape {array.shape}", why="There is nothing to fit", do=_ACCEPTED)
    columns = array.reshape(len(array), -1)
    notes = (f"an array has no names: columns are called x1 to x{columns.shape[1]}",)
    parsed = {f"x{j + 1}": _parse(f"x{j + 1}", columns[:, j], options) for j in range(columns.shape[1])}
    return _assemble(parsed, name, notes)


def _from_mapping(columns: Mapping[Any, Any], options: ReadOptions, name: str) -> Frame:
    arrays = {str(title): _one_dimensional(str(title), cells) for title, cells in columns.items()}
    if len(arrays) < len(columns):
        raise DataError("two columns have the same name once written as text", do="rename one of them")
    lengths = {title: len(cells) for title, cells in arrays.items()}
    if len(set(lengths.values())) > 1:
        stated = ", ".join(f"{title} {length}" for title, length in lengths.items())
        raise DataError("columns have unequal lengths", stated, do="pass columns of one length")
    return _assemble({title: _parse(title, cells, options) for title, cells in arrays.items()}, name)


def _one_dimensional(title: str, cells: Any) -> np.ndarray:
    array = cells if isinstance(cells, np.ndarray) else None
    if array is None:
        listed = cells.to_list() if hasattr(cells, "to_list") else cells
        if isinstance(listed, str) or not hasattr(listed, "__len__"):
            raise DataError(f"{title!r} is {type(cells).__name__}, not a column", do=_ACCEPTED)
        array = np.asarray(listed) if all(type(c) in (int, float) for c in listed) else None
        if array is None:
            array = np.empty(len(listed), object)
            array[:] = list(listed)
    if array.ndim != 1:
        raise DataError(f"{title!r} has shape {array.shape}", why="A column has one dimension", do=_ACCEPTED)
    return array


def _parse(title: str, column: np.ndarray, options: ReadOptions) -> Cells:
    kind = column.dtype.kind
    if kind in "fiu":
        numbers = without_na(column.astype(np.float64), options.na)
        return (numbers, "float", None) if kind == "f" else (numbers, "integer", 0)
    if kind == "b":
        return column.astype(np.float64), "boolean", None
    if kind == "c":
        raise refuse_complex(title)
    if kind in "mM":
        raise refuse_dates(title, str(column.dtype))
    if kind == "S":
        raise DataError(f"{title!r} holds bytes", why="Texts are str", do=f"numpy.char.decode(column) for {title!r}")
    return parse_objects(title, column.tolist(), options.na)


def _from_dataframe(obj: Any, options: ReadOptions, name: str) -> Frame:
    import narwhals as nw
    from narwhals.exceptions import DuplicateError

    try:
        frame = nw.from_native(obj, allow_series=True)
        if isinstance(frame, nw.LazyFrame):
            raise UsageError("a lazy frame has no rows yet", do="frame.collect()")
        if isinstance(frame, nw.Series):
            frame = frame.alias(str(frame.name) if frame.name else "x1").to_frame()
        titles = [str(title) for title in frame.columns]
        series = [frame[:, j] for j in range(len(titles))]
    except DuplicateError as error:
        raise DataError("two columns have the same name", str(error).splitlines()[0], do="rename one of them") from None
    except TypeError:
        raise UsageError(f"a {type(obj).__name__} is not a table", do=_ACCEPTED) from None
    if len(set(titles)) < len(titles):
        raise DataError("two columns have the same name once written as text", do="rename one of them")
    index = getattr(obj, "index", None)
    title = getattr(index, "name", None)
    notes = () if title is None else (f"the index {title!r} is not a column: left out (reset_index() makes it one)",)
    return _assemble(
        {title: _parse_series(title, column, options) for title, column in zip(titles, series)}, name, notes
    )


def _parse_series(title: str, series: Any, options: ReadOptions) -> Cells:
    dtype = series.dtype
    if dtype.is_temporal():
        raise refuse_dates(title, str(dtype))
    if str(dtype).startswith(("Decimal", "Int128", "UInt128")) or not dtype.is_numeric():
        return parse_objects(title, series.to_list(), options.na)
    empty = series.is_null().to_numpy()
    values = np.full(len(series), np.nan)
    values[~empty] = series.drop_nulls().to_numpy().astype(np.float64)
    return without_na(values, options.na), "float" if dtype.is_float() else "integer", None if dtype.is_float() else 0
