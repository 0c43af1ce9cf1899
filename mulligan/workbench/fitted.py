"""``Fitted``: a codec with a model and how it was made; what every fit returns and every model folder holds."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mulligan.core import Density, Sampler, capabilities
from mulligan.data.given import AnyCodec, ConditionalCodec, measure_of
from mulligan.data.splits import row_clusters
from mulligan.data.table import Schema, Source, Table
from mulligan.errors import NoDensity, UsageError
from mulligan.measures.likelihood import RowLikelihood, common_error, draw, draw_error, point_score, row_likelihood
from mulligan.quantity import Kind, Quantity, mean_of_rows
from mulligan.workbench.sources import open_given, open_rows

CHUNK = 65_536  # rows encoded at a time: bounded memory for any number of rows


@dataclass
class Fitted:
    """A fitted family: what it can do is what its model can do.

    ``card`` is how it was made and how good it is, as plain values; ``history`` its learning curves; ``calibration`` the
    log p of the select rows, sorted (for p-values of unusual rows); ``checkpoint`` the folder that holds the training of
    this very fit, if there is one.
    """

    family: str
    variant: str | None
    label: str
    codec: AnyCodec
    model: Any
    card: dict[str, Any] = field(default_factory=dict)
    history: dict[str, np.ndarray] = field(default_factory=dict)
    calibration: np.ndarray = field(default_factory=lambda: np.zeros(0))
    checkpoint: Path | None = None

    @property
    def schema(self) -> Schema:
        """The columns, as they came in."""
        return self.codec.schema

    @property
    def capabilities(self) -> tuple[str, ...]:
        """Names of the contracts that the model fulfils."""
        return capabilities(self.model)

    @property
    def log_prob_kind(self) -> Kind:
        """How log p of a row is known; ``none`` for a family without density."""
        if not isinstance(self.model, Density):
            return "none"
        return "lower bound" if self.codec.dequantises else self.model.kind

    @property
    def given(self) -> tuple[str, ...]:
        """The columns that the model takes as given; empty unless it was fitted with ``given=[...]``."""
        return self.codec.given_names if isinstance(self.codec, ConditionalCodec) else ()

    @property
    def measure(self) -> str:
        """In words, what log p of a row is taken with respect to, and what is given."""
        return measure_of(self.codec)

    def sample(self, n: int | None = None, seed: int = 0, given: Any = None) -> Table:
        """n valid rows, with the columns that came in (labels left out). The first rows do not depend on n.

        A model fitted with ``given`` needs their values: a mapping ({"kind": "red"}, the same for all rows; or a list of
        values for each column) or a table with those columns, whose rows are used in turn. n is 1, or the number of
        those rows, unless it is stated. Raises UsageError for values that are not needed or not there, DataError for
        values that no row of that schema has.
        """
        known = self._known(given)
        n = 1 if n is None and known is None else len(known) if n is None else n  # type: ignore[arg-type]
        if isinstance(n, bool) or not isinstance(n, int | np.integer) or n < 1:
            raise UsageError(f"n is {n!r}; expected a whole number from 1")
        if not isinstance(self.model, Sampler):
            raise UsageError(f"{self.family} cannot be drawn from directly")
        if known is None or not isinstance(self.codec, ConditionalCodec):
            return self._template().with_values(self.codec.decode(draw(self.model, int(n), seed)))  # type: ignore[call-arg]
        known = known[np.arange(n) % len(known)]
        points = draw(self.model, int(n), seed, self.codec.encode_given(known))
        return self._template().with_values(self.codec.decode(points, known))

    def log_prob(self, rows: Any) -> np.ndarray:
        """log p of each row in nats and in the user's units, float64 (n,); see ``log_prob_kind`` and ``measure``.

        Raises NoDensity where the family has none, DataError for rows that do not fit the schema.
        """
        if not isinstance(self.model, Density):
            scoring = "mulligan families lists those with log p"
            raise NoDensity(f"{self.family} has no log density, so it cannot score rows", do=scoring)
        return self.row_likelihood(open_rows(rows, self.schema)).log_prob

    @property
    def order(self) -> tuple[str, ...]:
        """The columns in the order of an autoregressive model; UsageError where there is none."""
        from mulligan.workbench.incomplete import order_of

        return order_of(self)

    def leading_log_prob(self, rows: Any) -> np.ndarray:
        """log p of rows whose last columns in ``order`` are empty (or absent): their exact marginal, float64 (n,).

        Raises UsageError for a model without an order, DataError for a row that has a column after an empty one.
        """
        from mulligan.workbench.incomplete import leading_log_prob

        return leading_log_prob(self, rows)

    def row_likelihood(self, table: Table) -> RowLikelihood:
        """log p of the rows of a table under this schema, with the influence of each draw on it."""
        values, model = table.values, self.model
        pieces = [
            row_likelihood(model, self.codec.encode(values[start : start + CHUNK]))
            for start in range(0, len(values), CHUNK)
        ]
        return RowLikelihood(*(np.concatenate(parts) for parts in zip(*pieces)))

    def evaluate(self, rows: Any) -> Quantity:
        """Mean log p of the rows with its error; equal rows count as one draw in the error."""
        table = open_rows(rows, self.schema)
        kind = self.log_prob_kind
        self.log_prob(table.rows(slice(0, 1)))  # says so where there is no density
        terms, clusters = self.row_likelihood(table), row_clusters(table)
        error = float(np.hypot(draw_error(terms.influence, table.values, clusters), common_error(self.model)))
        return mean_of_rows(terms.log_prob, kind, clusters=clusters, note=self.measure, method_stderr=error)

    def score(self, rows: Any) -> np.ndarray:
        """∇ log p of each row with respect to its columns (those not given), in nats per unit, (n, columns).

        Raises UsageError where a column is discrete or capped: a probability has no gradient in its value.
        """
        if not isinstance(self.model, Density):
            raise NoDensity(f"{self.family} has no log density, so log p has no gradient", do="mulligan families")
        discrete = [
            c.name for c in self.schema.modelled if c.discrete or c.low_cap is not None or c.high_cap is not None
        ]
        discrete = [name for name in discrete if name not in self.given]
        if discrete:
            raise UsageError(
                "log p has no gradient in discrete columns", ", ".join(discrete), do="--continuous all, if right"
            )
        values = open_rows(rows, self.schema).values
        slope, bend = self.codec.slopes(values)
        encoded = self.codec.encode(values)
        inner = point_score(self.model, encoded.flat, encoded.flat_given).reshape(slope.shape)
        return inner * slope + bend

    def condition(self, evidence: Any, **how: Any) -> Any:
        """p(other columns | evidence), evidence like ["age>40", "species=Adelie"]: see ``operations.condition``."""
        from mulligan.workbench.operations import condition

        return condition(self, evidence, **how)

    def marginal(self, columns: Any) -> Any:
        """The law of some columns, the others integrated out: see ``workbench.operations.marginal``."""
        from mulligan.workbench.operations import marginal

        return marginal(self, columns)

    def expectation(self, function: Any, given: Any = None, **how: Any) -> Quantity:
        """E f(row), given evidence or not: see ``workbench.operations.expectation``."""
        from mulligan.workbench.operations import expectation

        return expectation(self, function, given, **how)

    def anomaly(self, rows: Any, **how: Any) -> Any:
        """Unusual rows with conformal p-values, and why: see ``mulligan.workbench.anomaly.anomaly``."""
        from mulligan.workbench.anomaly import anomaly

        return anomaly(self, rows, **how)

    def impute(self, rows: Any, **how: Any) -> Any:
        """Empty cells filled from p(hidden | shown): see ``mulligan.workbench.imputation.impute``."""
        from mulligan.workbench.imputation import impute

        return impute(self, rows, **how)

    def predict(self, rows: Any, column: str, **how: Any) -> Any:
        """p(column | the other columns) of each row: see ``mulligan.workbench.prediction.predict``."""
        from mulligan.workbench.prediction import predict

        return predict(self, rows, column, **how)

    def save(self, path: str | Path, overwrite: bool = False) -> Path:
        """Write a model folder; see ``mulligan.workbench.artifact``."""
        from mulligan.workbench.artifact import save

        return save(self, path, overwrite=overwrite)

    def _known(self, given: Any) -> np.ndarray | None:
        """The given columns' values (rows, columns), or None for a model that takes none."""
        if not self.given:
            if given is not None:
                what = f"{self.label} takes no given columns"
                raise UsageError(what, why="It models all of them", do="mulligan fit FILE --given COL, and sample that")
            return None
        if given is None:
            values = ",".join(f"{name}=VALUE" for name in self.given)
            what = f"{self.label} has p(other columns | {', '.join(self.given)}): it needs their values"
            raise UsageError(what, do=f"--given {shlex.quote(values)}, or --given FILE with these columns")
        return open_given(given, self.schema, self.given).values

    def _template(self) -> Table:
        return Table(self.schema, np.zeros((0, len(self.schema.modelled))), Source(f"samples of {self.label}"))

    def __repr__(self) -> str:
        quality = self.card.get("row", {}).get("log_prob")
        said = f", test log p {Quantity.from_json(quality)}" if quality else ""
        return f"Fitted({self.label}{said})"
