"""Tables that have a name: penguins ships with the package, five others come from scikit-learn.

``penguins``: 344 penguins of three species, measured at Palmer Station, Antarctica. Data by Dr. Kristen Gorman and the
Palmer Station LTER; CC0. Horst AM, Hill AP, Gorman KB (2020), palmerpenguins: Palmer Archipelago (Antarctica) penguin
data, doi:10.5281/zenodo.3960218; Gorman, Williams, Fraser (2014), PLoS ONE 9(3): e90081. Empty cells read ``NA``.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from mulligan.data.frames import from_object
from mulligan.data.inspection import inspect
from mulligan.data.reading import read_file
from mulligan.data.table import Frame, ReadOptions, Source, Table
from mulligan.errors import UsageError

_PENGUINS = Path(__file__).with_name("penguins.csv")


def table_names() -> tuple[str, ...]:
    """Names of all tables, in the order in which help lists them.

    >>> table_names()
    ('penguins', 'iris', 'wine', 'breast_cancer', 'diabetes', 'digits')
    """
    return tuple(TABLES)


def load(name: str) -> Frame:
    """The raw cells of a named table; UsageError with the nearest name if there is none."""
    if name not in TABLES:
        near = difflib.get_close_matches(name, TABLES, n=1)
        raise UsageError(f"no table {name!r}", f"tables: {', '.join(TABLES)}", do=near[0] if near else "")
    return TABLES[name]()


def read_table(name: str, options: ReadOptions | None = None) -> Table:
    """A named table, inspected; ``penguins`` with ``missing="drop"``, for the table is ours (its note says so), ``digits``
    as pictures."""
    options = options or ReadOptions()
    if name == "digits":
        from mulligan.data.images import read_pictures
        from mulligan.data.pixels import picture_table

        return picture_table(read_pictures(_digit_pictures(), replace(options, levels=17), "digits"))
    frame = load(name)
    if name == "penguins" and options.missing == "refuse":
        note = (
            "penguins that were not measured in full are left out, since this table is ours (a file would be refused)"
        )
        frame, options = replace(frame, notes=(*frame.notes, note)), replace(options, missing="drop")
    return inspect(frame, options)


def _penguins() -> Frame:
    frame = read_file(_PENGUINS, ReadOptions(sep=",", decimal=".", na=("NA",)))
    return replace(frame, source=Source("penguins", frame.source.sha256))


def _iris() -> Frame:
    return _sklearn("iris", {"species": True})


def _wine() -> Frame:
    return _sklearn("wine", {"class": True})


def _breast_cancer() -> Frame:
    return _sklearn("breast_cancer", {"diagnosis": True})


def _diabetes() -> Frame:
    return _sklearn("diabetes", {"progression": False})


def _digits() -> Frame:
    pixels = _digit_pictures().reshape(-1, 64).astype(np.int64)
    names = [f"p{row}{column}" for row in range(8) for column in range(8)]
    return from_object(dict(zip(names, pixels.T)), name="digits")


def _digit_pictures() -> np.ndarray:
    """1 797 pictures of 8 x 8 pixels with 17 grey levels: counts of dark pixels in blocks of 4 x 4 (Alpaydin and Kaynak
    1998)."""
    from sklearn.datasets import load_digits

    return load_digits().images.astype(np.uint8)


def _sklearn(name: str, target: dict[str, bool]) -> Frame:
    """A scikit-learn table; its target joins as the last column, written out where it is a class."""
    from sklearn import datasets

    bunch: Any = getattr(datasets, f"load_{name}")()
    columns: dict[str, Any] = dict(zip((str(title) for title in bunch.feature_names), bunch.data.T))
    for title, is_class in target.items():
        columns[title] = bunch.target_names[bunch.target].astype(object) if is_class else bunch.target
    return from_object(columns, name=name)


TABLES: dict[str, Callable[[], Frame]] = {
    "penguins": _penguins,
    "iris": _iris,
    "wine": _wine,
    "breast_cancer": _breast_cancer,
    "diabetes": _diabetes,
    "digits": _digits,
}
