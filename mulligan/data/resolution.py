"""At which resolution a numeric column was written down: its grid, and the caps at which it was cut off.

A column has resolution s if its values lie on {offset + k·s}. A density fitted to such values can grow without limit by
putting a spike on every grid point, so the grid is found, stated, and the column modelled as the discrete thing it is.
A cap is a value that stands for everything beyond it ("500 001 dollars or more"); it carries a probability, too.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from mulligan.data.table import Column

MAX_DECIMALS = 6
MAX_ATOMS = 5
ON_GRID_SHARE = 0.99
TIED_SHARE = 0.05
CAP_ROWS = 10
CAP_RATIO = 5
CAP_NEIGHBOURS = 5
CAP_DISTINCT = 10  # a column with fewer values is a short scale, and its fullest end says nothing
_SAMPLE = 200
_FLOAT_PRECISION = 1e12  # beyond this many steps from zero a float64 cannot tell grid points apart safely


@dataclass(frozen=True)
class Grid:
    """{offset + k·step}; ``off`` are the observed values that are not on it, ``decimals`` what writing it takes."""

    step: float
    offset: float
    off: tuple[float, ...]
    decimals: int


def find_grid(distinct: np.ndarray, counts: np.ndarray) -> Grid | None:
    """The coarsest grid that holds the values, or None for a continuous column.

    ``distinct`` are the sorted distinct values and ``counts`` how many rows have each. At least 99 % of the rows must
    be on the grid (the extreme values aside, which may be caps), at most 5 distinct values off it, and values must be
    all integers, or at least 5 % of the rows must share their value with another row.

    >>> find_grid(np.array([0.1, 0.2, 0.4]), np.array([5, 9, 2]))
    Grid(step=0.1, offset=0.0, off=(), decimals=1)
    """
    decimals = _decimals_of(distinct, counts)
    if decimals is None:
        return None
    scaled = distinct * 10.0**decimals
    on = _whole(scaled)
    units = np.rint(scaled[on]).astype(np.int64)
    tied = counts[counts > 1].sum() / counts.sum()
    if decimals > 0 and tied < TIED_SHARE:
        return None
    step, residue = _coarsest(units, on, counts)
    off = ~on
    off[on] = units % step != residue
    scale = 10**decimals
    return Grid(step / scale, residue / scale, tuple(distinct[off].tolist()), decimals)


def grid_of_step(distinct: np.ndarray, counts: np.ndarray, step: float) -> Grid:
    """The grid with the step that the user stated, through the most frequent value."""
    base = float(distinct[np.argmax(counts)])
    multiples = (distinct - base) / step
    off = np.abs(multiples - np.rint(multiples)) > 1e-6
    decimals = next((d for d in range(13) if abs(step * 10**d - round(step * 10**d)) < 1e-9 * 10**d * step), 12)
    shown = max(decimals, next((d for d in range(13) if math.isclose(round(base, d), base, rel_tol=1e-12)), 12))
    offset = round(base - math.floor(base / step + 1e-9) * step, 12)
    return Grid(step, offset, tuple(distinct[off].tolist()), shown)


def as_written(distinct: np.ndarray, counts: np.ndarray, step: float | None = None) -> np.ndarray | None:
    """Sorted distinct 32-bit numbers as the shortest decimals that mean them, or None where that reveals no grid.

    In a float32 column 0.1 is 0.10000000149011612, on no grid. Where every value equals its float32 rounding, none of
    this is needed to find a grid (of ``step``, if stated), and the decimals have one, coarser than float32 can tell
    apart, the decimals are what was written down: the table holds them in place of the 32-bit numbers.

    >>> as_written(np.array([0.1, 0.2, 0.4], np.float32).astype(float), np.array([5, 9, 2])).tolist()
    [0.1, 0.2, 0.4]
    """
    sample = shortest_decimals(distinct[:: max(1, len(distinct) // _SAMPLE)])
    if sample is None or (step is None and (~_whole(sample * 10.0**MAX_DECIMALS)).sum() > MAX_ATOMS):
        return None
    decimals = shortest_decimals(distinct)
    if decimals is None:
        return None
    if step is not None:
        worse = len(grid_of_step(decimals, counts, step).off) >= len(grid_of_step(distinct, counts, step).off)
        return None if worse else decimals
    grid = find_grid(decimals, counts)
    resolved = 4 * float(np.spacing(np.float32(np.abs(distinct).max())))
    if grid is None or grid.step < resolved or find_grid(distinct, counts) is not None:
        return None
    return decimals


def shortest_decimals(values: np.ndarray) -> np.ndarray | None:
    """32-bit numbers as the shortest decimals that round to them; None where a value is no 32-bit number."""
    with np.errstate(over="ignore"):
        single = values.astype(np.float32)
    if not np.array_equal(single.astype(np.float64), values):
        return None
    return single.astype("U32").astype(np.float64)


def written(column: Column, values: np.ndarray) -> np.ndarray:
    """Other rows of a gridded column, read as their shortest decimals where they are 32-bit numbers; else as they are."""
    if column.step is None or column.kind == "integer":
        return values
    distinct, inverse = np.unique(values, return_inverse=True)
    decimals = shortest_decimals(distinct)
    if decimals is None or off_grid(column, decimals).sum() > off_grid(column, distinct).sum():
        return values
    return decimals[inverse.reshape(-1)]


def find_caps(distinct: np.ndarray, counts: np.ndarray) -> tuple[float | None, float | None]:
    """Low and high cap: extremes that occur at least 10 times and 5 times as often as any of their 5 neighbours."""
    if len(distinct) <= CAP_DISTINCT:
        return None, None

    def is_cap(extreme: int, neighbours: np.ndarray) -> bool:
        return bool(extreme >= CAP_ROWS and extreme >= CAP_RATIO * neighbours.max())

    low = float(distinct[0]) if is_cap(counts[0], counts[1 : CAP_NEIGHBOURS + 1]) else None
    high = float(distinct[-1]) if is_cap(counts[-1], counts[-CAP_NEIGHBOURS - 1 : -1]) else None
    return low, high


def off_grid(column: Column, values: np.ndarray) -> np.ndarray:
    """True where a value is neither on the column's grid nor one of its atoms or caps; bool, shape (rows,)."""
    if column.step is None:
        return np.zeros(len(values), bool)
    multiples = (values - column.offset) / column.step
    tolerance = np.clip(1e-9 * np.abs(multiples), 1e-6, 1e-3)
    off = np.abs(multiples - np.rint(multiples)) > tolerance
    allowed = [a for a in (*column.atoms, column.low_cap, column.high_cap) if a is not None]
    return off & ~np.isin(values, allowed)


def _whole(scaled: np.ndarray) -> np.ndarray:
    size = np.abs(scaled)
    near = np.abs(scaled - np.rint(scaled)) <= np.clip(1e-9 * size, 1e-9, 1e-3)
    # a concentration of 1e-10 is no zero of a coarse grid, but 1e-16 among ones is rounding
    tiny = (size < 0.5) & (size > 1e-12 * size.max())
    return near & ~tiny & (size < _FLOAT_PRECISION)


def _acceptable(off: np.ndarray, counts: np.ndarray) -> bool:
    """Whether these distinct values may stay off the grid; the two extremes count no rows: they may be caps."""
    if not off.any():
        return True
    if off.sum() > MAX_ATOMS or (~off).sum() < 2 * MAX_ATOMS:
        return False
    inner = off.copy()
    inner[[0, -1]] = False
    return bool(counts[inner].sum() <= (1 - ON_GRID_SHARE) * counts.sum())


def _decimals_of(distinct: np.ndarray, counts: np.ndarray) -> int | None:
    sample = distinct[:: max(1, len(distinct) // _SAMPLE)]
    for decimals in range(MAX_DECIMALS + 1):
        if (~_whole(sample * 10.0**decimals)).sum() > MAX_ATOMS:
            continue
        if _acceptable(~_whole(distinct * 10.0**decimals), counts):
            return decimals
    return None


def _coarsest(units: np.ndarray, on: np.ndarray, counts: np.ndarray) -> tuple[int, int]:
    """Largest step (in units of the last decimal) that is acceptable, and the residue of its grid."""
    sample = units[:: max(1, len(units) // _SAMPLE)]
    for step in _candidates(units):
        residue, hits = _mode(sample % step)
        if hits < len(sample) - MAX_ATOMS:
            continue
        residue, _ = _mode(units % step)
        off = ~on
        off[on] = units % step != residue
        # 2 or 5 of the last decimal with values left over is chance: half of any few numbers are even
        if off[1:-1].any() and 10 ** round(math.log10(step)) != step:
            continue
        if _acceptable(off, counts) and _plausible(units[units % step == residue], step):
            return step, residue
    return 1, 0


def _candidates(units: np.ndarray) -> list[int]:
    """Steps people round to (1, 2, 2.5, 5 times powers of ten), and the greatest common divisors, coarsest first."""
    span = int(units[-1] - units[0])
    round_steps = {m * 10**k for m in (1, 2, 5, 25) for k in range(13) if 2 * m * 10**k <= span}
    divisors = {int(np.gcd.reduce(np.diff(part))) for part in (units, units[1:-1]) if len(part) > 2}
    return sorted((round_steps | divisors) - {0, 1}, reverse=True)


def _plausible(on_grid: np.ndarray, step: int) -> bool:
    """A divisor common to few values is an accident unless they fill their grid: 1, 10, 100 has no step of 9."""
    points = (int(on_grid[-1]) - int(on_grid[0])) // step + 1
    return len(on_grid) >= 2 * MAX_ATOMS or 2 * len(on_grid) >= points


def _mode(values: np.ndarray) -> tuple[int, int]:
    distinct, counts = np.unique(values, return_counts=True)
    best = int(np.argmax(counts))
    return int(distinct[best]), int(counts[best])
