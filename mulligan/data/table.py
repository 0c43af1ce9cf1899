"""A table: its columns' kinds, its rows as float64 numbers, and what was done on the way there.

Five kinds of column are modelled. ``continuous`` has a density in its own unit. ``gridded`` (all values on a grid: one
decimal, hundreds), ``integer``, ``binary`` and ``categorical`` have probabilities. Two kinds are not modelled:
``constant`` (kept, and put back into samples) and ``label`` (different in every row; excluded and named).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np

ColumnKind = Literal["continuous", "gridded", "integer", "binary", "categorical", "constant", "label"]
MODELLED: tuple[ColumnKind, ...] = ("continuous", "gridded", "integer", "binary", "categorical")
Transform = Literal["none", "log", "logit"]
Output = Literal["float", "integer", "text", "boolean"]


@dataclass(frozen=True)
class Column:
    """One column: what it holds, and how a valid value looks.

    ``step`` and ``offset`` give the grid {offset + k·step} of gridded and integer columns; ``atoms`` are allowed values
    off that grid. ``low_cap`` / ``high_cap`` are values at which the data were censored: the cap owns all mass beyond
    it. ``levels`` are the categories (also the two values of a binary column), codes being their positions;
    ``decimals`` is how many the file shows; ``minimum`` and ``maximum`` are the observed range.
    """

    name: str
    kind: ColumnKind
    output: Output = "float"
    decimals: int | None = None
    step: float | None = None
    offset: float = 0.0
    atoms: tuple[float, ...] = ()
    low_cap: float | None = None
    high_cap: float | None = None
    minimum: float | None = None
    maximum: float | None = None
    levels: tuple[str, ...] = ()
    constant: Any = None
    transform: Transform = "none"

    @property
    def modelled(self) -> bool:
        return self.kind in MODELLED

    @property
    def discrete(self) -> bool:
        """Whether the column contributes a probability (True) or a density (False) to log p of a row."""
        return self.kind in ("gridded", "integer", "binary", "categorical")


@dataclass(frozen=True)
class ImageShape:
    """What a row is whose columns are the pixels of one picture: height x width x channels, row by row (HWC).

    ``levels`` is the number of values of a pixel, 0 … levels − 1, evenly spaced from black to white.
    """

    height: int
    width: int
    channels: int
    levels: int

    @property
    def pixels(self) -> int:
        """The number of columns, height x width x channels."""
        return self.height * self.width * self.channels

    @property
    def words(self) -> str:
        """The shape in words.

        >>> ImageShape(8, 8, 1, 17).words
        '8 x 8 pixels, 17 grey levels'
        """
        kind = {1: "grey levels", 3: "levels of red, green and blue"}
        return f"{self.height} x {self.width} pixels, {self.levels} " + kind.get(
            self.channels, f"levels of {self.channels} channels"
        )


@dataclass(frozen=True)
class Schema:
    """The columns in the order in which they came; ``image`` where they are all the pixels of one picture."""

    columns: tuple[Column, ...]
    image: ImageShape | None = None

    @property
    def modelled(self) -> tuple[Column, ...]:
        return tuple(column for column in self.columns if column.modelled)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the modelled columns, in the order of ``Table.values``."""
        return tuple(column.name for column in self.modelled)

    def column(self, name: str) -> Column:
        """The column of that name; KeyError if there is none."""
        for column in self.columns:
            if column.name == name:
                return column
        raise KeyError(name)

    @property
    def measure(self) -> str:
        """In words, what log p of a row is taken with respect to."""
        if self.image is not None:
            return f"probability of a picture of {self.image.words}"
        density = [c.name for c in self.modelled if not c.discrete]
        probability = [c.name for c in self.modelled if c.discrete]
        capped = [c.name for c in self.modelled if not c.discrete and (c.low_cap is not None or c.high_cap is not None)]
        parts = []
        if density:
            parts.append(f"density per unit of {', '.join(density)}")
        if probability:
            parts.append(f"probability of the stated value of {', '.join(probability)}")
        if capped:
            parts.append(f"probability of the cap itself for {', '.join(capped)}")
        return " x ".join(parts) or "nothing is modelled"


@dataclass(frozen=True)
class Source:
    """Where rows came from: a file (with its SHA-256), a law known exactly (``law``), or memory."""

    name: str
    sha256: str | None = None
    path: str | None = None
    law: str | None = None


@dataclass(frozen=True)
class Table:
    """Rows ready to be modelled.

    ``values`` is float64 of shape (rows, modelled columns): numbers in the user's own units; for binary and categorical
    columns the code, a position in ``levels``; NaN for an empty cell, where such cells are to be modelled. ``notes``
    are the sentences that say what was done and found. ``groups`` (int, one a row) must not straddle a split; ``parts``
    ("train", "select", "test" a row) is a split that the user brought. ``treated_as_iid`` is True for draws from a law,
    where equal rows are chance, not duplicates. ``chances`` (float32, like ``values``) are what binary ``values`` were
    drawn with once: the probability of a 1, for a family that draws its training rows anew at each step.
    """

    schema: Schema
    values: np.ndarray
    source: Source
    notes: tuple[str, ...] = ()
    groups: np.ndarray | None = None
    parts: np.ndarray | None = None
    treated_as_iid: bool = False
    chances: np.ndarray | None = None
    extras: dict[str, Any] = field(default_factory=dict, compare=False)

    def __len__(self) -> int:
        return len(self.values)

    @property
    def names(self) -> tuple[str, ...]:
        return self.schema.names

    def rows(self, index: np.ndarray | slice) -> Table:
        """The same table with these rows only."""
        pick = lambda a: None if a is None else a[index]  # noqa: E731 - two uses, one line
        groups, parts, chances = pick(self.groups), pick(self.parts), pick(self.chances)
        return replace(self, values=self.values[index], groups=groups, parts=parts, chances=chances)

    def with_values(self, values: np.ndarray) -> Table:
        """New rows (samples) under the same schema; groups and parts do not carry over."""
        return replace(self, values=np.asarray(values, np.float64), groups=None, parts=None, chances=None, notes=())

    def __getitem__(self, name: str) -> np.ndarray:
        """One column as a person wrote it: float, int, bool or str; constants are repeated. KeyError if unknown."""
        column = self.schema.column(name)
        if column.kind == "constant":
            return np.full(len(self), column.constant)
        if column.kind == "label":
            raise KeyError(f"{name!r} was excluded as a label")
        return present(column, self.values[:, self.names.index(name)])

    def to_dict(self) -> dict[str, np.ndarray]:
        """Column name to values, labels left out, constants put back, in the order in which the columns came."""
        return {column.name: self[column.name] for column in self.schema.columns if column.kind != "label"}

    def to_polars(self) -> Any:
        """A ``polars.DataFrame``."""
        import polars

        return polars.DataFrame(self.to_dict())

    def to_pandas(self) -> Any:
        """A ``pandas.DataFrame`` (pandas must be installed)."""
        import pandas

        return pandas.DataFrame(self.to_dict())

    @property
    def pictures(self) -> np.ndarray:
        """The rows as pictures, uint8 (rows, height, width, channels); values are levels, 0 … levels − 1.

        Raises KeyError where the rows are no pictures.
        """
        shape = self.schema.image
        if shape is None:
            raise KeyError(f"the rows of {self.source.name} are no pictures")
        return self.values.reshape(-1, shape.height, shape.width, shape.channels).astype(np.uint8)

    @property
    def size_words(self) -> str:
        """How large the table is, in words."""
        if self.schema.image is not None:
            return f"{len(self):,} pictures of {self.schema.image.words}"
        return f"{len(self):,} rows x {len(self.schema.columns)} columns"

    def __repr__(self) -> str:
        if self.schema.image is not None:
            return f"Table({self.source.name}: {self.size_words})"
        return f"Table({self.source.name}: {len(self):,} rows x {len(self.names)} modelled columns)"


def present(column: Column, values: np.ndarray) -> np.ndarray:
    """Numbers and codes as the user writes them: levels for codes, integers as integers, decimals as in the file.

    Where cells are empty (NaN), texts have None there, and numbers are floats with NaN.
    """
    empty = np.isnan(values)
    if empty.any():
        as_text = column.levels and column.output == "text"
        shown = np.full(len(values), None if as_text else np.nan, object if as_text else float)
        shown[~empty] = present(column, values[~empty])
        return shown
    if column.kind in ("binary", "categorical"):
        if column.output == "text":
            return np.asarray(column.levels, dtype=object)[values.astype(int)].astype(str)
        numbers = np.asarray([_number(level) for level in column.levels])[values.astype(int)]
        return numbers.astype({"boolean": bool, "integer": np.int64, "float": np.float64}[column.output])
    if column.output == "integer":
        return np.rint(values).astype(np.int64)
    return values if column.decimals is None else np.round(values, column.decimals)


def _number(level: str) -> float:
    if level in ("True", "False"):
        return float(level == "True")
    return float(level)


@dataclass(frozen=True)
class ReadOptions:
    """How to read and treat a table; each is a command-line flag and an argument of ``mulligan.read``.

    ``sep`` and ``decimal`` of a CSV (guessed and said when None), ``format`` (``csv``, ``parquet``, ``npy``, ``npz``; by
    first bytes when None), ``header`` (None: guessed and said), ``na`` (texts that mean an empty cell), ``missing``
    (``refuse``, ``drop``, or ``model``: empty cells stay, as NaN), ``keep`` (labels to model all the same), ``drop``
    (columns to leave out), ``continuous``
    (columns, or ``("all",)``, not to be treated as gridded), ``categorical`` (numeric columns that are names),
    ``resolution`` (column to grid step), ``transform`` (column to ``none``, ``log``, ``logit``, ``auto``), ``rename``
    (old to new name), ``rows`` (at most that many, by a stated draw with ``seed``), ``group`` and ``split`` (names of
    columns that say which rows belong together, and which part each row is in). For pictures: ``resize`` (pixels of the
    shorter side, then cropped to a square), ``grey`` (colour read as grey), ``binarise`` (``half``: white from half of the
    levels on; ``draw``: white with the pixel's brightness as probability, drawn once with ``seed``; ``redraw``:
    the same, and training rows anew at each step in families that can), ``levels`` (values of a pixel, where 256 is not
    right).
    """

    sep: str | None = None
    decimal: str | None = None
    format: str | None = None
    header: bool | None = None
    na: Sequence[str] = ()
    missing: Literal["refuse", "drop", "model"] = "refuse"
    keep: Sequence[str] = ()
    drop: Sequence[str] = ()
    continuous: Sequence[str] = ()
    categorical: Sequence[str] = ()
    resolution: dict[str, float] = field(default_factory=dict)
    transform: dict[str, str] = field(default_factory=dict)
    rename: dict[str, str] = field(default_factory=dict)
    rows: int | None = None
    seed: int = 0
    group: str | None = None
    split: str | None = None
    resize: int | None = None
    grey: bool = False
    binarise: Literal["half", "draw", "redraw"] | None = None
    levels: int | None = None


@dataclass(frozen=True)
class Frame:
    """Raw cells, before anything was decided: what ``reading`` and ``frames`` make, and ``inspection`` takes.

    ``columns`` maps a name to a float64 array (numbers; NaN for an empty cell; infinities kept) or an object array of
    str and None (texts). ``decimals`` is the number of decimals shown in a text file, ``origin`` the type that the column
    had (``float``, ``integer``, ``text``, ``boolean``), ``lines`` the file's line of each row where there are lines.
    """

    columns: dict[str, np.ndarray]
    origin: dict[str, Output]
    decimals: dict[str, int | None]
    source: Source
    notes: tuple[str, ...] = ()
    lines: np.ndarray | None = None

    def __len__(self) -> int:
        return len(next(iter(self.columns.values()))) if self.columns else 0
