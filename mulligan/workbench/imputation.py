"""Empty cells filled by a fitted model: several completed tables, a best guess and an interval for each cell.

Definition. A row shows x_o and hides x_u. Each completed table draws x_u from p(x_u | x_o) of the model, all hidden cells of
a row together, so that what is computed from the tables keeps their relations (Rubin 1987). The guess that makes the mean
absolute error smallest is the median of p(x_j | x_o), the mean makes the squared error smallest, and of a category the most
probable level is most often right.

Intervals. Of M draws and the true value, all exchangeable where the model is right, the t-th least and the t-th greatest
draw have the truth between them with probability 1 − 2t/(M + 1): with M = 199 and t = 10 that is 90 %. ``calibrate``
corrects for a model that is wrong: rows that took no part in fitting have cells hidden on purpose, and each column's t is
the one that would have covered them (nested conformal sets: Gupta, Kuchibhotla and Ramdas 2022; Romano, Patterson and
Candès 2019).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mulligan.data.codec import Codec
from mulligan.data.native import is_category
from mulligan.data.table import ReadOptions, Schema, Table
from mulligan.errors import DataError, UsageError
from mulligan.measures.multiple_imputation import Pooled, pool
from mulligan.models.incomplete import candidates_for, draw_unknown, mixture_form
from mulligan.quantity import Quantity
from mulligan.workbench.sources import open_rows

if TYPE_CHECKING:
    from mulligan.workbench.fitted import Fitted

DRAWS = 199  # with 199 draws the 10th from either end leave 5 % outside
LEAST_CALIBRATION = 20  # hidden cells of a column below which its interval is left as the model has it
MOST_CALIBRATION = 300  # rows hidden for each column
FILLS = ("median", "mean", "draw")


@dataclass(frozen=True)
class Imputed:
    """What ``impute`` found.

    ``table`` is what came in, ``tables`` are the completed ones; ``cells`` (c, 2) the rows and columns of the empty cells,
    in reading order; ``draws`` (M, c) their draws, numbers in the user's units or codes; ``low`` and ``high`` (c,) the
    interval at ``level`` (NaN for categories), ``method`` how the draws were made, ``interval_method`` where the intervals
    come from, ``diagnostics`` what the method says of itself.
    """

    table: Table
    tables: tuple[Table, ...]
    cells: np.ndarray
    draws: np.ndarray
    low: np.ndarray
    high: np.ndarray
    level: float
    method: str
    interval_method: str
    diagnostics: dict[str, Any]

    def fill(self, how: str = "median") -> Table:
        """One table with a guess in each empty cell: ``median`` (least absolute error), ``mean`` (least squared error; on a
        column's grid the nearest value), or ``draw`` (the first completed table). Categories get their most probable level.

        A table filled with guesses is for looking up cells: it is smoother than the data, and errors computed from it are
        too small. Raises UsageError for another word.
        """
        if how not in FILLS:
            raise UsageError(f"fill is {how!r}", do=f"one of {', '.join(FILLS)}")
        if how == "draw":
            return self.tables[0]
        values, guesses = self.table.values.copy(), np.empty(len(self.cells))
        for j, column in enumerate(self.table.schema.modelled):
            here = self.cells[:, 1] == j
            if here.any():
                guesses[here] = _guess(column, self.draws[:, here], how)
        values[self.cells[:, 0], self.cells[:, 1]] = guesses
        return self.table.with_values(values)

    def report(self) -> dict[str, list[Any]]:
        """The empty cells as columns of a table: row (from 1), column, median, low, high; levels for categories."""
        filled = self.fill().to_dict()
        names = [self.table.schema.names[j] for _, j in self.cells]
        values = [filled[name][i] for (i, _), name in zip(self.cells, names)]
        return {
            "row": (self.cells[:, 0] + 1).tolist(),
            "column": names,
            "value": [str(value) for value in values],
            "low": [None if np.isnan(v) else float(v) for v in self.low],
            "high": [None if np.isnan(v) else float(v) for v in self.high],
        }

    def probabilities(self, column: str) -> tuple[np.ndarray, np.ndarray]:
        """Rows (c,) with an empty cell in a category, and the probability of each of its levels there (c, K): the shares of
        the draws. Raises UsageError for a column that is no category.
        """
        names = self.table.schema.names
        if column not in names or not is_category(self.table.schema.column(column)):
            raise UsageError(f"{column!r} is no category of this table")
        here = self.cells[:, 1] == names.index(column)
        levels = np.arange(len(self.table.schema.column(column).levels))
        return self.cells[here, 0], (self.draws[:, here, None] == levels).mean(axis=0)

    def pool(self, statistic: Callable[[Table], Any], complete_degrees: float | None = None) -> Pooled:
        """What a statistic is, over all completed tables, by Rubin's rules; ``complete_degrees`` as in ``measures.pool``.

        ``statistic`` maps a table to (estimate, squared standard error) or to a Quantity with its error. One fitted model is
        taken as known here: what its parameters do not know is not in the variance between tables. Raises UsageError for
        a statistic without an error, or fewer than two completed tables.
        """
        if len(self.tables) < 2:
            raise UsageError("one completed table has no variance between tables", do="impute(..., times=5)")
        found = [_estimate(statistic(table)) for table in self.tables]
        return pool([q for q, _ in found], [u for _, u in found], complete_degrees)


def impute(
    fitted: Fitted,
    table: Any,
    *,
    times: int = 5,
    seed: int = 0,
    level: float = 0.9,
    calibrate: Any = None,
    draws: int = DRAWS,
) -> Imputed:
    """Fill the empty cells of ``table`` by p(hidden | shown) of a fitted model, ``times`` times over.

    ``table`` is all that ``fit`` takes, with empty cells (NaN, None). ``calibrate`` are complete rows that took no part in
    fitting: their intervals then set the width of those stated. ``draws`` are made for each cell, the first ``times`` of
    them are the completed tables. Raises UsageError for numbers out of range, DataError for rows that do not fit.

    >>> import mulligan as mg
    >>> rng = np.random.default_rng(0)
    >>> x = rng.normal(size=(400, 1)) + 0.1 * rng.normal(size=(400, 2))
    >>> fitted = mg.fit(x, "gaussian")
    >>> found = impute(fitted, np.array([[1.0, np.nan], [0.0, 0.5]]))
    >>> bool(found.low[0] < 1 < found.high[0]), len(found.tables), found.method
    (True, 5, 'exact')
    """
    _check(times, level, draws)
    table = incomplete_table(table, fitted.schema)
    empty = np.isnan(table.values)
    values, method, diagnostics = completed(fitted, table.values, draws, seed)
    cells = np.argwhere(empty)
    drawn = values[:, cells[:, 0], cells[:, 1]]
    thresholds = np.full(empty.shape[1], -float(_depth(draws, level)))
    said = f"draws {int(-thresholds[0])} from either end of {draws}" if len(thresholds) else ""
    if calibrate is not None:
        held = open_rows(calibrate, fitted.schema)
        thresholds, said = _calibrated(fitted, held, empty, thresholds, level, draws, seed)
    low, high = _intervals(table.schema, drawn, cells[:, 1], thresholds)
    tables = tuple(table.with_values(values[i]) for i in range(times))
    return Imputed(table, tables, cells, drawn, low, high, level, method, said, diagnostics)


def incomplete_table(rows: Any, schema: Schema) -> Table:
    """Rows under a schema, with NaN in their empty cells; DataError for rows that do not fit."""
    return open_rows(rows, schema, ReadOptions(missing="model"))


def completed(fitted: Fitted, values: np.ndarray, draws: int, seed: int) -> tuple[np.ndarray, str, dict[str, Any]]:
    """Draws (draws, n, columns) of rows (n, columns) with NaN in unknown cells, the method's name, and its diagnostics."""
    incomplete = np.isnan(values).any(axis=1)
    whole = np.repeat(values[None], draws, axis=0)
    if not incomplete.any():
        return whole, "exact", {}
    form = mixture_form(fitted.model) if isinstance(fitted.codec, Codec) else None
    if form is None:
        from mulligan.workbench.completion import complete

        found = complete(fitted, values[incomplete], draws=draws, seed=seed)
        whole[:, incomplete] = found.values
        return whole, found.method, dict(found.diagnostics)
    encoded = fitted.codec.encode(values[incomplete], candidates_for(len(form.means)))
    generator = np.random.default_rng([seed, 307])
    weights = encoded.log_jacobian - encoded.log_jacobian.max(axis=1, keepdims=True)
    points = draw_unknown(form, encoded.points, encoded.missing, draws, generator, weights)  # type: ignore[arg-type]
    decoded = np.stack([fitted.codec.decode(block) for block in points])  # type: ignore[call-arg]
    whole[:, incomplete] = np.where(np.isnan(values[incomplete]), decoded, values[incomplete])
    many = encoded.points.shape[1]
    said = f"known cells that are discrete or capped stand for {many} points each, weighted" if many > 1 else ""
    return whole, "exact", {"note": said} if said else {}


# --- intervals ---------------------------------------------------------------------------------------------------------


def _depth(draws: int, level: float) -> int:
    """t: so many draws from either end leave 1 − level outside."""
    return max(1, int((draws + 1) * (1 - level) / 2 + 1e-9))


def nested_score(draws: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """How far out of M sorted draws (M, c) each truth (c,) lies: −t if it is between the t-th from either end but not the
    (t + 1)-th, and what it is beyond the outermost draws, in units of their distance. Smaller is deeper inside."""
    least, greatest = draws[0], draws[-1]
    below, above = (draws <= truth).sum(0), (draws >= truth).sum(0)
    depth = np.minimum(below, above)
    beyond = np.maximum(least - truth, truth - greatest) / np.maximum(greatest - least, 1e-300)
    return np.where(depth >= 1, -depth.astype(float), beyond)


def nested_interval(draws: np.ndarray, threshold: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The set {score ≤ threshold} (c,) of sorted draws (M, c): its ends."""
    many = len(draws)
    inner = np.clip(np.ceil(-threshold), 1, (many + 1) // 2).astype(int)
    at = np.arange(draws.shape[1])
    widening = np.maximum(threshold, 0.0) * (draws[-1] - draws[0])
    return draws[inner - 1, at] - widening, draws[many - inner, at] + widening


def conformal_threshold(scores: np.ndarray, level: float) -> float:
    """The ⌈(n + 1) level⌉-th least of n scores: a fresh score is at most that with probability of at least ``level``."""
    rank = int(np.ceil((len(scores) + 1) * level - 1e-9))
    return float(np.sort(scores)[min(rank, len(scores)) - 1])


def _intervals(
    schema: Schema, drawn: np.ndarray, columns: np.ndarray, thresholds: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    low, high = np.full(len(columns), np.nan), np.full(len(columns), np.nan)
    for j, column in enumerate(schema.modelled):
        here = columns == j
        if here.any() and not is_category(column):
            ordered = np.sort(drawn[:, here], axis=0)
            low[here], high[here] = nested_interval(ordered, np.full(int(here.sum()), thresholds[j]))
    return low, high


def _calibrated(
    fitted: Fitted, held: Table, empty: np.ndarray, thresholds: np.ndarray, level: float, draws: int, seed: int
) -> tuple[np.ndarray, str]:
    """Each column's threshold from cells of complete rows that are hidden as often, beside it, as cells here are empty."""
    if np.isnan(held.values).any():
        raise DataError("rows to calibrate by have empty cells", do="complete rows that took no part in fitting")
    generator = np.random.default_rng([seed, 311])
    chosen = generator.permutation(len(held))[:MOST_CALIBRATION]
    truth, found = held.values[chosen], thresholds.copy()
    shares, told = empty.mean(axis=0), []
    for j, column in enumerate(fitted.schema.modelled):
        if is_category(column) or not empty[:, j].any():
            continue
        if len(truth) < LEAST_CALIBRATION:
            continue
        hidden = generator.random(truth.shape) < shares
        hidden[:, j] = True
        values, _, _ = completed(fitted, np.where(hidden, np.nan, truth), draws, seed + 1 + j)
        scores = nested_score(np.sort(values[:, :, j], axis=0), truth[:, j])
        found[j] = conformal_threshold(scores, level)
        told.append(column.name)
    if not told:
        few = f"{len(truth)} rows are too few to calibrate by: intervals are the model's own"
        return thresholds, few
    return found, f"nested conformal sets, calibrated on {len(truth):,} rows for {len(told)} columns"


def _guess(column: Any, draws: np.ndarray, how: str) -> np.ndarray:
    """The guess for each cell from its draws (M, c)."""
    if is_category(column):
        levels = np.arange(len(column.levels))
        return (draws[:, :, None] == levels).mean(axis=0).argmax(axis=1).astype(float)
    if how == "median":
        return np.sort(draws, axis=0)[len(draws) // 2] if len(draws) % 2 else np.median(draws, axis=0)
    mean = draws.mean(axis=0)
    if not column.discrete:
        return mean
    # a grid has the mean's nearest valid value among those drawn
    return np.take_along_axis(draws, np.abs(draws - mean).argmin(axis=0)[None], axis=0)[0]


def _estimate(found: Any) -> tuple[float, float]:
    """(estimate, squared standard error) of what a statistic returned."""
    if isinstance(found, Quantity):
        if found.value is None or found.stderr is None:
            raise UsageError(
                f"the statistic is {found}, without an error", do="return (estimate, squared standard error)"
            )
        return found.value, found.stderr**2
    try:
        estimate, variance = found
        return float(estimate), float(variance)
    except (TypeError, ValueError):
        raise UsageError(
            f"the statistic returned {found!r}", do="(estimate, squared standard error), or a Quantity"
        ) from None


def _check(times: int, level: float, draws: int) -> None:
    if isinstance(times, bool) or not isinstance(times, int | np.integer) or not 1 <= times <= draws:
        raise UsageError(f"times is {times!r}; expected a whole number from 1 to {draws}, the number of draws")
    if not 0 < level < 1:
        raise UsageError(f"level is {level!r}; expected a share between 0 and 1", do="level=0.9")
