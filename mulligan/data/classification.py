"""Which kind a column is, and what there is to say about it."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np

from mulligan.data.resolution import Grid, as_written, find_caps, find_grid, grid_of_step
from mulligan.data.table import Column, Frame, Output, ReadOptions
from mulligan.data.treatment import as_texts, is_empty
from mulligan.errors import DataError, UsageError

MAX_LEVELS = 50
MAX_LEVEL_SHARE = 0.2
SPIKE_SHARE = 0.01
MIN_LABEL_ROWS = 5


def is_label(cells: np.ndarray, origin: Output) -> bool:
    """Whether the cells differ in every row and are texts or consecutive integers: a name of the row, not a measure."""
    if len(cells) < MIN_LABEL_ROWS:
        return False
    if cells.dtype == object:
        return None not in cells and len(set(cells)) == len(cells)
    if origin == "boolean" or not np.isfinite(cells).all() or (cells != np.rint(cells)).any():
        return False
    ordered = np.sort(cells)
    return bool((np.diff(ordered) == 1).all())


def classify(name: str, frame: Frame, options: ReadOptions) -> tuple[Column, np.ndarray, list[str]]:
    """The column, its values as float64 (codes for levels; NaN for empty cells), shape (rows,), and the notes.

    Raises DataError for a category with too many levels or a stated step that does not fit, UsageError for an option
    that does not suit the column.
    """
    empty = is_empty(frame.columns[name])
    if empty.any():  # the column is judged by the cells that are there; the others stay empty
        lines = None if frame.lines is None else frame.lines[~empty]
        there = replace(frame, columns={name: frame.columns[name][~empty]}, lines=lines)
        column, shown, notes = classify(name, there, options)
        values = np.full(len(empty) if column.modelled else 0, np.nan)
        values[~empty if column.modelled else slice(0)] = shown
        return column, values, notes
    cells, origin, decimals = frame.columns[name], frame.origin[name], frame.decimals[name]
    distinct, counts = np.unique(cells.astype(str) if cells.dtype == object else cells + 0.0, return_counts=True)
    if len(distinct) == 1:
        return _constant(name, distinct[0], origin, decimals)
    asked_numeric = name in options.continuous or name in options.resolution
    if cells.dtype == object and asked_numeric:
        raise UsageError(
            f"{name!r} is text", why="--continuous and --resolution are for numbers", do="leave it out there"
        )
    if cells.dtype == object or name in options.categorical or (len(distinct) == 2 and not asked_numeric):
        return _levelled(name, cells, frame, options)
    return _numeric(name, cells + 0.0, distinct, counts, frame, options)


def _constant(name: str, value: object, origin: Output, decimals: int | None) -> tuple[Column, np.ndarray, list[str]]:
    constant: object = str(value)
    if origin != "text":
        number = float(value)  # type: ignore[arg-type]
        constant = {"boolean": bool, "integer": int, "float": float}[origin](number)
    column = Column(name, "constant", origin, decimals, constant=constant)
    shown = repr(constant) if origin == "text" else f"{constant:g}" if origin == "float" else str(constant)
    note = f"{name!r} is always {shown}: its density is infinite. Excluded, and kept as a constant in samples"
    return column, np.empty(0), [note]


def _levelled(name: str, cells: np.ndarray, frame: Frame, options: ReadOptions) -> tuple[Column, np.ndarray, list[str]]:
    """Binary and categorical columns: most frequent level first, two numbers in ascending order."""
    origin = frame.origin[name]
    texts = as_texts(cells, boolean=origin == "boolean").astype(str)
    levels, codes, counts = np.unique(texts, return_inverse=True, return_counts=True)
    if cells.dtype != object and len(levels) == 2:
        order = np.argsort([np.min(cells[codes == 0]), np.min(cells[codes == 1])])
    else:
        order = np.lexsort((levels, -counts))
    if len(levels) > MAX_LEVELS and len(levels) > MAX_LEVEL_SHARE * len(cells):
        raise DataError(
            f"{name!r} has {len(levels):,} different values in {len(cells):,} rows",
            why="Too many categories to learn a probability of each",
            do=f"--drop {name}",
        )
    kind: Literal["binary", "categorical"] = "binary" if len(levels) == 2 else "categorical"
    for flag, named in (("--transform", options.transform), ("--resolution", options.resolution)):
        if name in named and not (flag == "--transform" and options.transform[name] == "none"):
            raise UsageError(
                f"{flag} for {name!r}, which is {kind}", why="Only numbers have one", do=f"leave {flag} out"
            )
    rank = np.empty(len(levels), np.int64)
    rank[order] = np.arange(len(levels))
    column = Column(name, kind, origin, frame.decimals[name], levels=tuple(levels[order].tolist()))
    rare = int((counts == 1).sum())
    notes = [f"{name!r}: {rare} of its {len(levels)} levels occur once"] if kind == "categorical" and rare else []
    return column, rank[codes].astype(np.float64), notes


def _numeric(
    name: str, values: np.ndarray, distinct: np.ndarray, counts: np.ndarray, frame: Frame, options: ReadOptions
) -> tuple[Column, np.ndarray, list[str]]:
    decimals, origin, said = frame.decimals[name], frame.origin[name], []
    smooth = name in options.continuous or "all" in options.continuous
    if name in options.resolution and smooth:
        raise UsageError(f"{name!r} is in --resolution and in --continuous", do="choose one of the two")
    step = options.resolution.get(name)
    single = None if smooth else as_written(distinct, counts, step)
    if single is not None:
        k = int(np.flatnonzero(single != distinct)[0])
        said = [f"{name!r} holds 32-bit numbers: read as written, {single[k]:.10g} and not {distinct[k]:.12g}"]
        values, distinct = single[np.searchsorted(distinct, values)], single
    if step is not None:
        grid: Grid | None = grid_of_step(distinct, counts, step)
        _refuse_coarse(name, grid, step)
    else:
        grid = None if smooth else find_grid(distinct, counts)
    low_cap, high_cap = find_caps(distinct, counts)
    low, high = float(distinct[0]), float(distinct[-1])
    off = grid.off if grid is not None else ()
    # one row off the grid at the end is a slip of the pen, two are a rule
    low_cap = low if low in off and counts[0] > 1 else low_cap
    high_cap = high if high in off and counts[-1] > 1 else high_cap
    kind: Literal["continuous", "gridded", "integer"] = "continuous"
    if grid is not None:
        kind = "integer" if grid.step == 1 and grid.offset == 0 else "gridded"
        if step is not None and kind == "gridded" and decimals is not None:
            # a stated grid may be finer than what the file shows: 10.25 of step 0.25 beside 10.2 and 10.5, or 10
            decimals = max(decimals, grid.decimals)
            origin = "float" if decimals > 0 else origin
        decimals = grid.decimals if decimals is None and origin == "float" else decimals
    column = Column(
        name, kind, origin, decimals,
        step=grid.step if grid else None, offset=grid.offset if grid else 0.0, atoms=off,
        low_cap=low_cap, high_cap=high_cap, minimum=low, maximum=high,
    )  # fmt: skip
    return column, values, [*said, *_findings(column, distinct, counts)]


def _refuse_coarse(name: str, grid: Grid | None, step: float) -> None:
    if grid is not None and len(grid.off) > 5:
        raise DataError(
            f"{name!r} has {len(grid.off):,} distinct values off the grid of step {step:g}",
            f"such as {', '.join(f'{value:g}' for value in grid.off[:3])}",
            do=f"a finer --resolution {name}=..., or --continuous {name}",
        )


def _findings(column: Column, distinct: np.ndarray, counts: np.ndarray) -> list[str]:
    """Caps, atoms and spikes, each in a sentence."""
    n, notes = int(counts.sum()), []
    for cap, which in ((column.low_cap, "least"), (column.high_cap, "greatest")):
        if cap is not None:
            hits = int(counts[distinct == cap].sum())
            rows = f"{hits:,} row{'s' if hits > 1 else ''} ({100 * hits / n:.1f} %)"
            notes.append(
                f"{column.name!r} is {cap:.10g}, its {which} value, in {rows}: a cap, which stands for all beyond it"
            )
    atoms = [value for value in column.atoms if value not in (column.low_cap, column.high_cap)]
    if atoms:
        shown = ", ".join(f"{value:.10g}" for value in atoms)
        single = "a single value" if len(atoms) == 1 else "single values"
        notes.append(f"{column.name!r}: {shown} off the grid of step {column.step:g}, kept as {single}")
    capped = np.isin(distinct, [c for c in (column.low_cap, column.high_cap) if c is not None])
    free = np.where(capped, 0, counts)
    top = int(np.argmax(free))
    if column.kind == "continuous" and free[top] > SPIKE_SHARE * n and free[top] > 1:
        notes.append(
            f"{column.name!r} is {distinct[top]:.10g} in {free[top]:,} rows ({100 * free[top] / n:.1f} %): a spike in "
            f"a continuous column, where a density can grow without limit (--resolution {column.name}=STEP)"
        )
    if column.kind == "gridded" and column.step is not None:
        points = (distinct[-1] - distinct[0]) / column.step
        if 10 * len(distinct) < n and points > 100 * len(distinct):
            notes.append(
                f"{column.name!r} has {len(distinct):,} distinct values in {n:,} rows, few for its step "
                f"{column.step:g}: perhaps rounded before it was shifted or rescaled; a fit can put spikes on them"
            )
    return notes
