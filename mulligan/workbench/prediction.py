"""p(y | x) of one column from any fitted model of all of them: a distribution for each row, not a point.

Definition. p(y | x) = p(x, y)/p(x), and every model of the joint law has it. Of a category the denominator is a sum,
p(c | x) = p(x, c)/Σ_c' p(x, c'): Bayes' rule, for any model with a density. Under a Gaussian mixture y | x is again a
mixture of normals, Σ_k w_k(x) N(m_k(x), s_k²) with w_k(x) ∝ w_k N(x; k). Otherwise it is the law of draws of ``completed``.
Identities: ``density.conditional``, ``density.bayes``.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from mulligan.core import Density
from mulligan.data.codec import Codec
from mulligan.data.inspection import conform
from mulligan.data.native import is_category
from mulligan.data.table import Frame, ReadOptions, Schema, Table, present
from mulligan.data.treatment import require_column
from mulligan.errors import UsageError
from mulligan.models.incomplete import mixture_form
from mulligan.quantity import Quantity, mean_of_rows, wilson
from mulligan.workbench.imputation import DRAWS, completed
from mulligan.workbench.predictive import Draws, NormalMixtures, normal_mixtures
from mulligan.workbench.sources import raw_frame

if TYPE_CHECKING:
    from mulligan.workbench.fitted import Fitted


@dataclass(frozen=True)
class Prediction:
    """p(y | x) of one ``column`` for each of n rows.

    ``method`` says how it was found, ``truth`` (n,) is y where the rows have it (NaN elsewhere; codes of a category).
    ``probabilities`` (n, K) belong to the ``levels`` of a category and are None for a number, whose ``law`` answers instead.
    """

    column: str
    method: str
    truth: np.ndarray
    schema: Schema
    probabilities: np.ndarray | None = None
    law: NormalMixtures | Draws | None = None

    @property
    def levels(self) -> tuple[str, ...]:
        """The levels of a category, in the order of ``probabilities``; none for a number."""
        return self.schema.column(self.column).levels

    @property
    def mode(self) -> np.ndarray:
        """The most probable level of each row, as the table writes it. Raises UsageError for a number."""
        column = self.schema.column(self.column)
        return present(column, self._shares().argmax(axis=1).astype(float))

    @property
    def mean(self) -> np.ndarray:
        """E(y | x), (n,), in the user's units: the guess of least squared error. Raises UsageError for a category."""
        return self._number().moments()[0]

    @property
    def sd(self) -> np.ndarray:
        """The standard deviation of y given x, (n,). Raises UsageError for a category."""
        return self._number().moments()[1]

    def quantile(self, p: float) -> np.ndarray:
        """The y below which y | x lies with probability ``p``, (n,); .5 is the guess of least absolute error."""
        if not 0 < p < 1:
            raise UsageError(f"p is {p!r}; expected a share between 0 and 1")
        return self._number().quantile(p)

    def interval(self, level: float = 0.9) -> tuple[np.ndarray, np.ndarray]:
        """The ends (n,) of the central interval that holds y with probability ``level`` under the model."""
        return self.quantile((1 - level) / 2), self.quantile((1 + level) / 2)

    def log_prob(self) -> np.ndarray:
        """log p(y | x) of the rows' own y (n,), in nats, NaN where y is not there: a density for a continuous value, a
        probability for one that has a cell. Raises UsageError where only draws are known."""
        if self.probabilities is None:
            return self._number().log_prob(self.truth)
        with np.errstate(divide="ignore"):
            logs = np.log(self.probabilities)
        codes = np.where(np.isnan(self.truth), 0, self.truth).astype(int)
        return np.where(np.isnan(self.truth), np.nan, logs[np.arange(len(codes)), codes])

    def pit(self) -> np.ndarray:
        """P(Y ≤ y | x) of the rows' own y (n,): uniform where the model is right; of a value with a cell, its middle.

        Raises UsageError for a category (Dawid 1984)."""
        return self._number().pit(self.truth)

    def to_dict(self, level: float = 0.9) -> dict[str, np.ndarray]:
        """The prediction as columns: mean, sd and interval of a number; mode and probabilities of a category."""
        name = self.column
        if self.probabilities is not None:
            shares = {f"p({name}={lv})": self.probabilities[:, k] for k, lv in enumerate(self.levels)}
            return {f"{name} predicted": self.mode, **shares}
        low, high = self.interval(level)
        mean, sd = self._number().moments()
        median = self.quantile(0.5)
        return {
            f"{name} mean": mean,
            f"{name} sd": sd,
            f"{name} median": median,
            f"{name} low": low,
            f"{name} high": high,
        }

    def judged(self, level: float = 0.9) -> dict[str, Quantity]:
        """How good it is where y is there: error, share inside the interval, or accuracy, and mean log p(y | x)."""
        there = np.flatnonzero(~np.isnan(self.truth))
        n = len(there)
        if not n:
            return {}
        found = {}
        if self.probabilities is not None:
            right = float((self.probabilities.argmax(axis=1) == self.truth)[there].mean())
            found["accuracy"] = Quantity(right, "estimate", *wilson(right, n), (right * (1 - right) / n) ** 0.5, n)
        else:
            truth, (low, high) = self.truth[there], self.interval(level)
            found["absolute error of the median"] = mean_of_rows(np.abs(self.quantile(0.5)[there] - truth), "estimate")
            held = float(((low[there] <= truth) & (truth <= high[there])).mean())
            spread = (held * (1 - held) / n) ** 0.5
            found[f"share inside the {100 * level:g} % interval"] = Quantity(
                held, "estimate", *wilson(held, n), spread, n
            )
        if not isinstance(self.law, Draws):
            found["log p(y | x)"] = mean_of_rows(self.log_prob()[there], "estimate", unit="nats/row")
        return found

    def _shares(self) -> np.ndarray:
        if self.probabilities is None:
            raise UsageError(f"{self.column!r} is a number", why="It has no levels", do=".mean, .quantile, .interval")
        return self.probabilities

    def _number(self) -> NormalMixtures | Draws:
        if self.law is None:
            do = ".probabilities, .mode, .log_prob()"
            raise UsageError(f"{self.column!r} is a category", why="Its levels have no order", do=do)
        return self.law

    def __len__(self) -> int:
        return len(self.truth)


def predict(fitted: Fitted, rows: Any, column: str, *, draws: int = DRAWS, seed: int = 0) -> Prediction:
    """p(y | the other columns) for each row; ``rows`` are all that ``fit`` takes, with ``column`` or without.

    Other cells may be empty, too: they are integrated out. ``draws`` and ``seed`` serve models that have no closed form.
    Raises UsageError for a column that is not modelled, DataError for rows that do not fit the schema.

    >>> import mulligan as mg
    >>> rng = np.random.default_rng(0)
    >>> x = rng.normal(size=(500, 1)) + 0.5 * rng.normal(size=(500, 2))
    >>> fitted = mg.fit({"a": x[:, 0], "b": x[:, 1]}, "gaussian")
    >>> found = predict(fitted, {"a": [0.0, 1.0]}, "b")
    >>> found.method, bool(np.all(np.abs(found.mean - [0.0, 0.8]) < 0.15)), bool(np.all(np.abs(found.sd - 0.67) < 0.1))
    ('exact', True, True)
    """
    names = fitted.schema.names
    require_column(column, names, "column")
    if column in fitted.given:
        raise UsageError(f"{column!r} is given to {fitted.label}, which does not model it", do=f"not {column}")
    table = rows_without(rows, fitted.schema, column)
    j = names.index(column)
    truth = table.values[:, j].copy()
    known = table.values.copy()
    known[:, j] = np.nan
    form = mixture_form(fitted.model) if isinstance(fitted.codec, Codec) else None
    others_known = not np.isnan(np.delete(known, j, axis=1)).any()
    made = partial(Prediction, column=column, truth=truth, schema=fitted.schema)
    if is_category(fitted.schema.column(column)):
        if isinstance(fitted.model, Density) and (form is not None or others_known):
            kind = "Bayes' rule on bounds of log p" if fitted.codec.dequantises else "Bayes' rule"
            return made(method=kind, probabilities=class_probabilities(fitted, table, j))
        values, method, _ = completed(fitted, known, draws, seed)
        shares = (values[:, :, j, None] == np.arange(len(fitted.schema.column(column).levels))).mean(axis=0)
        return made(method=method, probabilities=shares)
    if form is not None:
        return made(method="exact", law=normal_mixtures(fitted.codec, form, known, j))  # type: ignore[arg-type]
    values, method, _ = completed(fitted, known, draws, seed)
    return made(method=method, law=Draws(np.sort(values[:, :, j], axis=0)))


def class_probabilities(fitted: Fitted, table: Table, j: int) -> np.ndarray:
    """p(c | x) = p(x, c)/Σ_c' p(x, c') of the j-th column's levels, (n, K): every row is scored with every level."""
    levels = len(fitted.schema.modelled[j].levels)
    joint = np.empty((len(table), levels))
    for code in range(levels):
        values = table.values.copy()
        values[:, j] = code
        joint[:, code] = fitted.row_likelihood(table.with_values(values)).log_prob
    joint -= joint.max(axis=1, keepdims=True)
    shares = np.exp(joint)
    return shares / shares.sum(axis=1, keepdims=True)


def rows_without(rows: Any, schema: Schema, column: str, options: ReadOptions | None = None) -> Table:
    """Rows under a schema whose ``column`` may be absent, and whose other cells may be empty (NaN in both cases)."""
    if isinstance(rows, Table) and rows.schema == schema:
        return rows
    options = options or ReadOptions(missing="model")
    frame = raw_frame(rows)
    if column not in frame.columns and column not in options.rename.values():
        kind = schema.column(column)
        cells = np.full(
            len(frame), None if kind.output == "text" else np.nan, object if kind.output == "text" else float
        )
        frame = _with(frame, column, cells, kind.output)
    return conform(frame, schema, options)


def _with(frame: Frame, name: str, cells: np.ndarray, origin: Any) -> Frame:
    columns, origins = {**frame.columns, name: cells}, {**frame.origin, name: origin}
    return replace(frame, columns=columns, origin=origins, decimals={**frame.decimals, name: None})
