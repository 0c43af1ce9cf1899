"""What is known of some columns of a row: values, and ranges of numbers, in the units of the table.

Definition. Evidence is a set of rows: column c equals v_c for every stated value, and lies in [l_c, h_c] for every
range. A range of a column that has a grid runs from its least to its greatest valid value inside, so that a strict
bound on a grid ("age>40" of whole numbers) is the next valid value ("age≥41"). Identity: ``density.conditional``.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mulligan.data.grid import neighbours, snap
from mulligan.data.native import is_category
from mulligan.data.resolution import off_grid
from mulligan.data.support import outside_support
from mulligan.data.table import Column, Schema
from mulligan.errors import DataError, UsageError

_BETWEEN = re.compile(r"^\s*([^<>=]+?)\s*(<=|<)\s*([^<>=]+?)\s*(<=|<)\s*([^<>=]+?)\s*$")
_ONE_SIDE = re.compile(r"^\s*([^<>=]+?)\s*(<=|>=|<|>|==|=)\s*(.*?)\s*$")


@dataclass(frozen=True)
class Evidence:
    """``exact``: column → its number, or the code of its level; ``ranges``: column → (low, high), both included, infinite
    where open. Made by ``parse_evidence``.

    >>> schema = Schema((Column("age", "integer", step=1.0), Column("x", "continuous")))
    >>> parse_evidence(["age>40", "x=1.5"], schema)
    Evidence(exact={'x': 1.5}, ranges={'age': (41.0, inf)})
    """

    exact: dict[str, float]
    ranges: dict[str, tuple[float, float]]

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of which something is known."""
        return (*self.exact, *self.ranges)

    def values(self, schema: Schema) -> np.ndarray:
        """The known values as one row (1, columns), NaN in the others."""
        return np.array([[self.exact.get(name, np.nan) for name in schema.names]])

    def holds(self, values: np.ndarray, schema: Schema) -> np.ndarray:
        """True for each row (n, columns) that has the values and lies in the ranges, bool (n,)."""
        true = np.ones(len(values), bool)
        for j, name in enumerate(schema.names):
            if name in self.exact:
                true &= np.isclose(values[:, j], self.exact[name], rtol=1e-12, atol=0)
            low, high = self.ranges.get(name, (-np.inf, np.inf))
            true &= (values[:, j] >= low) & (values[:, j] <= high)
        return true


def parse_evidence(known: Sequence[str] | Mapping[str, Any] | Evidence | None, schema: Schema) -> Evidence:
    """Evidence from phrases ("age>40", "species=Adelie", "1<=x<2"; commas part several) or from a mapping, in which a pair
    (low, high) is a range, both included, open where None.

    Raises UsageError for unknown columns, ranges of categories and what is no phrase; DataError for values that no row
    has and for empty ranges.

    >>> schema = Schema((Column("kind", "binary", levels=("a", "b")), Column("x", "continuous")))
    >>> parse_evidence({"kind": "b", "x": (None, 2)}, schema)
    Evidence(exact={'kind': 1.0}, ranges={'x': (-inf, 2.0)})
    """
    if isinstance(known, Evidence):
        return known
    exact: dict[str, float] = {}
    bounds: dict[str, tuple[float, float]] = {}
    stated = _from_mapping(known) if isinstance(known, Mapping) else _from_phrases(known or ())
    for name, sign, value in stated:
        column = _column(name, schema)
        if sign == "=":
            exact[name] = _one_value(column, value, exact.get(name))
            continue
        if is_category(column):
            raise UsageError(f"{name!r} is a category: it has no order", do=f"{name}={column.levels[0]}")
        low, high = bounds.get(name, (-np.inf, np.inf))
        new_low, new_high = _side(column, sign, _number(name, value))
        bounds[name] = max(low, new_low), min(high, new_high)
    for name, (low, high) in list(bounds.items()):
        if name in exact:
            if not low <= exact[name] <= high:
                raise DataError(f"{name!r} is said to be {exact[name]:g} and outside it: no row is both")
            del bounds[name]
        elif low > high or (low == high and not column_has_cells(schema.column(name))):
            why = f"No value of {name!r} lies in the range from {low:g} to {high:g}"
            raise DataError(f"the range of {name!r} is empty", why=why, do=f"{name}=VALUE, or a wider range")
    return Evidence(exact, bounds)


def column_has_cells(column: Column) -> bool:
    """Whether some value of the column has a probability of its own."""
    return column.discrete or column.low_cap is not None or column.high_cap is not None


def _from_phrases(phrases: Sequence[str]) -> list[tuple[str, str, Any]]:
    if isinstance(phrases, str):
        phrases = [phrases]
    found: list[tuple[str, str, Any]] = []
    for phrase in (part for text in phrases for part in text.split(",") if part.strip()):
        if between := _BETWEEN.match(phrase):
            low, first, name, second, high = between.groups()
            found += [(name, {"<": ">", "<=": ">="}[first], low), (name, second, high)]
        elif one := _ONE_SIDE.match(phrase):
            name, sign, value = one.groups()
            found.append((name, "=" if sign == "==" else sign, value))
        else:
            raise UsageError(f"{phrase!r} says nothing of a column", do='"age>40", "species=Adelie" or "1<=x<2"')
    return found


def _from_mapping(known: Mapping[str, Any]) -> list[tuple[str, str, Any]]:
    found: list[tuple[str, str, Any]] = []
    for name, value in known.items():
        if not isinstance(value, tuple | list):
            found.append((str(name), "=", value))
            continue
        if len(value) != 2 or (value[0] is None and value[1] is None):
            raise UsageError(f"{name!r} is given as {value!r}", do="(low, high), None where it is open")
        found += [(str(name), sign, v) for sign, v in zip((">=", "<="), value) if v is not None]
    return found


def _column(name: str, schema: Schema) -> Column:
    if name in schema.names:
        return schema.column(name)
    close = difflib.get_close_matches(name, schema.names, 1)
    hint = f". Did you mean {close[0]}?" if close else ""
    raise UsageError(f"no column {name!r} in this model{hint}", do=f"columns: {', '.join(schema.names)}")


def _number(name: str, value: Any) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise UsageError(f"{name!r} is a number, not {value!r}", do=f"{name}=0.5") from None
    if math.isnan(number):
        raise UsageError(f"{name!r} is NaN: nothing is known of it then", do=f"leave {name} out")
    return number


def _one_value(column: Column, value: Any, before: float | None) -> float:
    """The number of a stated value, or its code; DataError where no row of the schema has it."""
    if column.levels:
        text = str(value)
        names = {level: float(code) for code, level in enumerate(column.levels)}
        if text not in names:
            same = [c for level, c in names.items() if _equal_numbers(level, text)]
            if not same:
                listed = ", ".join(column.levels[:8])
                raise DataError(f"{column.name!r} has no level {text!r}", do=f"levels: {listed}")
            names[text] = same[0]
        number = names[text]
    else:
        number = _number(column.name, value)
        here = np.array([number])
        allowed = math.isfinite(number) and not outside_support(column, here)[0] and not off_grid(column, here)[0]
        beyond = (column.low_cap is not None and number < column.low_cap) or (
            column.high_cap is not None and number > column.high_cap
        )
        if not allowed or beyond:
            why = "It is beyond the cap" if beyond else "It is outside the support or off the column's grid"
            raise DataError(f"no row has {column.name}={number:g}", why=why, do=f"a range: {column.name}>={number:g}")
        number = float(snap(column, here)[0]) if column.step else number
    if before is not None and before != number:
        raise DataError(f"{column.name!r} is given two values: no row has both")
    return number


def _equal_numbers(level: str, text: str) -> bool:
    try:
        return float(level) == float(text)
    except ValueError:
        return False


def _side(column: Column, sign: str, bound: float) -> tuple[float, float]:
    """The range that one bound leaves, both ends valid values where the column has a grid."""
    upward, strict = sign[0] == ">", len(sign) == 1
    if not math.isfinite(bound):
        return (bound, np.inf) if upward else (-np.inf, bound)
    end = np.nextafter(bound, np.inf if upward else -np.inf) if strict else bound
    if column.step:
        end = _next_valid(column, bound, upward, strict)
    return (float(end), np.inf) if upward else (-np.inf, float(end))


def _next_valid(column: Column, bound: float, upward: bool, strict: bool) -> float:
    """The valid value nearest to ``bound`` on the side that is asked for."""
    value = snap(column, np.array([bound]))
    for _ in range(3):
        v, slack = float(value[0]), 1e-9 * (column.step or 1.0)
        past = v > bound - slack if upward else v < bound + slack
        if past and not (strict and abs(v - bound) <= slack):
            return v
        value = neighbours(column, value)[1 if upward else 0]
    return float(value[0])
