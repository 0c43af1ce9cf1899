"""``fit`` a family to a table, and what comes out: ``Fitted``, a codec with a model and how it was made."""

from __future__ import annotations

import platform
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from mulligan.catalog import EFFORTS, FAMILIES, Effort, Family, find_family, near
from mulligan.checkpoints import Checkpoints
from mulligan.compilations import compilations
from mulligan.core import Density, Sampler, capabilities
from mulligan.data.given import AnyCodec, ConditionalCodec
from mulligan.data.splits import row_clusters
from mulligan.data.table import Schema, Source, Table
from mulligan.errors import DataError, FitError, NoDensity, UsageError
from mulligan.families.recipe import Fitting, Outcome
from mulligan.loop import interruptible
from mulligan.measures.likelihood import RowLikelihood, draw, draw_error, point_score, row_likelihood, row_log_prob
from mulligan.quantity import Kind, Quantity, mean_of_rows
from mulligan.workbench.preparation import Prepared, data_entry, prepare, split_entry
from mulligan.workbench.resuming import open_checkpoints
from mulligan.workbench.sources import given_values, open_rows
from mulligan.workbench.talk import Talk, parse_budget

CHUNK = 65_536  # rows encoded at a time: bounded memory for any number of rows


@dataclass
class Fitted:
    """A fitted family: what it can do is what its model can do.

    ``card`` is how it was made and how good it is, as plain values; ``history`` its learning curves; ``calibration`` the
    log p of the select rows, sorted (for p-values of unusual rows).
    """

    family: str
    variant: str | None
    label: str
    codec: AnyCodec
    model: Any
    card: dict[str, Any] = field(default_factory=dict)
    history: dict[str, np.ndarray] = field(default_factory=dict)
    calibration: np.ndarray = field(default_factory=lambda: np.zeros(0))

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

    def sample(self, n: int | None = None, seed: int = 0, given: Any = None) -> Table:
        """n valid rows, with the columns that came in (labels left out). The first rows do not depend on n.

        A model fitted with ``given`` needs their values: a mapping ({"kind": "red"}, the same for all rows) or a table
        with those columns, one row of which is used for each draw (in turn, if n is more).
        """
        known = self._known(n, given)
        n = len(known) if n is None and known is not None else 1 if n is None else n
        if not isinstance(n, int | np.integer) or n < 1:
            raise UsageError(f"n is {n!r}; expected a whole number from 1")
        if not isinstance(self.model, Sampler):
            raise UsageError(f"{self.family} cannot be drawn from directly")
        if known is None or not isinstance(self.codec, ConditionalCodec):
            return self._template().with_values(self.codec.decode(draw(self.model, int(n), seed)))  # type: ignore[call-arg]
        known = known[np.arange(n) % len(known)]
        points = draw(self.model, int(n), seed, self.codec.encode_given(known))
        return self._template().with_values(self.codec.decode(points, known))

    def log_prob(self, rows: Any) -> np.ndarray:
        """log p of each row in nats and in the user's units, float64 (n,); see ``log_prob_kind`` and ``schema.measure``.

        Raises NoDensity where the family has none, DataError for rows that do not fit the schema.
        """
        if not isinstance(self.model, Density):
            scoring = "mulligan families lists those with log p"
            raise NoDensity(f"{self.family} has no log density, so it cannot score rows", do=scoring)
        return self.row_likelihood(open_rows(rows, self.schema)).log_prob

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
        error = draw_error(terms.influence, table.values, clusters)
        return mean_of_rows(terms.log_prob, kind, clusters=clusters, note=self.schema.measure, method_stderr=error)

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

    def save(self, path: str | Path, overwrite: bool = False) -> Path:
        """Write a model folder; see ``mulligan.workbench.artifact``."""
        from mulligan.workbench.artifact import save

        return save(self, path, overwrite=overwrite)

    def _known(self, n: int | None, given: Any) -> np.ndarray | None:
        """The given columns' values (rows, columns), or None for a model that takes none."""
        if not self.given:
            if given is not None:
                raise UsageError(f"{self.label} was not fitted with given columns", do="mulligan.fit(..., given=[...])")
            return None
        if given is None:
            names = ", ".join(self.given)
            raise UsageError(f"{self.label} needs the values of {names}", do=f"--given {self.given[0]}=VALUE")
        return given_values(given, self.schema, self.given)

    def _template(self) -> Table:
        return Table(self.schema, np.zeros((0, len(self.schema.modelled))), Source(f"samples of {self.label}"))

    def __repr__(self) -> str:
        quality = self.card.get("row", {}).get("log_prob")
        said = f", test log p {Quantity.from_json(quality)}" if quality else ""
        return f"Fitted({self.label}{said})"


def fit(
    table: Any,
    family: str = "mixture",
    *,
    seed: int = 0,
    effort: Effort = "standard",
    budget: str | float | None = None,
    steps: int | None = None,
    options: Mapping[str, Any] | None = None,
    test: Any = None,
    given: Sequence[str] = (),
    force: bool = False,
    talk: Talk | None = None,
    command: str | None = None,
    checkpoint: str | Path | None = None,
    resume: bool = False,
    **named: Any,
) -> Fitted:
    """Fit one family to a table (a path, a name, a DataFrame, an array, a Table).

    ``family`` may carry a variant ("factor:ppca"); options of the catalog come by name (``parts=8``) or in ``options``;
    ``effort`` fixes sizes and the
    greatest number of steps, ``budget`` ("60s") can only shorten, ``steps`` caps the steps over the whole search.
    ``given`` names columns that the model takes as given: it then has p(other columns | given), where the family can.
    ``checkpoint`` is a folder where a family trained by gradient keeps what it needs to go on after a kill; with
    ``resume`` the fit goes on from there and ends in the same weights, bit for bit.
    Raises UsageError, DataError or FitError with the corrected call.

    >>> import numpy as np
    >>> fitted = fit(np.random.default_rng(0).normal(size=(200, 2)), "gaussian")
    >>> fitted.sample(3).values.shape, fitted.log_prob_kind
    ((3, 2), 'exact')
    """
    from mulligan.workbench.assessment import assess
    from mulligan.workbench.sources import open_table

    talk = talk or Talk()
    entry, variant = find_family(family)
    chosen = entry.parse_options({**(options or {}), **named})
    opened = open_table(table)
    if given and not entry.conditional:
        able = ", ".join(name for name, family in FAMILIES.items() if family.conditional)
        raise UsageError(f"{entry.name} cannot be given columns", do=f"families that can: {able}")
    prepared = prepare(opened, seed, None if test is None else open_rows(test, opened.schema), given)
    checkpoints = None
    if checkpoint is not None:
        asked = {"family": entry.name, "variant": variant, "effort": effort, "budget": parse_budget(budget)}
        checkpoints = open_checkpoints(checkpoint, {**asked, "steps": steps, "seed": seed}, chosen, prepared, resume)
    if prepared.few_rows and not (entry.baseline or force):
        raise DataError(
            prepared.few_rows, why=f"{entry.name} is not fitted to so few", do="--force fits it all the same"
        )
    talk.family_begins(family, 1, 1)
    fitted, outcome, timing = fit_prepared(
        prepared,
        entry,
        variant,
        chosen,
        seed=seed,
        effort=effort,
        budget=budget,
        steps=steps,
        talk=talk,
        checkpoints=checkpoints,
    )
    row, _ = assess(fitted, outcome, timing, prepared, seed)
    fitted.card.update(
        row=row,
        data=data_entry(prepared),
        split=split_entry(prepared),
        test_reads=prepared.test_reads,
        reproduce=reproduction(
            command or f"mulligan.fit(..., {family!r}, seed={seed}, effort={effort!r})",
            seed,
            None if budget is None else _twin(outcome),
        ),
    )
    talk.family_ends(row)
    return fitted


@dataclass(frozen=True)
class Timing:
    """Seconds of a fit, compilation apart."""

    fit_seconds: float
    compile_seconds: float


def fit_prepared(
    prepared: Prepared,
    entry: Family,
    variant: str | None,
    options: Mapping[str, Any],
    *,
    seed: int,
    effort: Effort,
    budget: str | float | None,
    steps: int | None,
    talk: Talk,
    checkpoints: Checkpoints | None = None,
) -> tuple[Fitted, Outcome, Timing]:
    """Run one family's recipe on prepared rows; the test part is not touched."""
    if effort not in EFFORTS:
        raise UsageError(f"effort is '{effort}'{near(effort, EFFORTS)}", do=f"one of {', '.join(EFFORTS)}")
    if steps is not None and steps < 1:
        raise UsageError(f"steps is {steps}; expected a whole number from 1")
    dim = prepared.codec.dim
    if entry.most_columns is not None and dim > entry.most_columns:
        raise DataError(
            f"{entry.name} takes at most {entry.most_columns} encoded columns; here are {dim}", do="--drop some"
        )
    recipe = entry.recipe(variant, options, effort)
    began = time.perf_counter()
    with compilations() as compiled, interruptible() as event:
        fitting = Fitting(
            prepared.train,
            prepared.select,
            prepared.codec,
            seed,
            parse_budget(budget),
            steps,
            partial(_pulse, talk),
            event.is_set,
            compiled,
            prepared.rows_of("train"),
            prepared.rows_of("select"),
            checkpoints,
        )
        try:
            outcome = recipe(fitting)
            outcome.interrupted = event.is_set()
        except (np.linalg.LinAlgError, FloatingPointError) as error:
            raise FitError(f"{entry.name}: {error}", why="the training rows are close to degenerate") from error
    elapsed = time.perf_counter() - began
    timing = Timing(max(0.0, elapsed - compiled.seconds), compiled.seconds)
    codec, calibration = outcome.codec or prepared.codec, np.zeros(0)
    if isinstance(outcome.model, Density):
        select = prepared.select if outcome.codec is None else codec.encode(prepared.rows_of("select").values)
        calibration = np.sort(row_log_prob(outcome.model, select))
        if np.isnan(calibration).any():
            raise FitError(f"{entry.name}: log p of {int(np.isnan(calibration).sum())} select rows is NaN")
    settings = {"family": entry.name, "variant": variant, "options": dict(options), "effort": effort, "seed": seed}
    card = {"settings": {**settings, "budget": parse_budget(budget), "steps": steps}, "stopped": outcome.stopped}
    card["interrupted"] = outcome.interrupted
    fitted = Fitted(entry.name, variant, outcome.label, codec, outcome.model, card, outcome.history, calibration)
    return fitted, outcome, timing


def _twin(outcome: Outcome) -> str:
    """The fit that repeats one with a budget, whatever the clock does."""
    if outcome.stopped is not None and outcome.stopped.startswith("budget") and outcome.twin is not None:
        return "none: the machine became slower than planned, and the run was cut in the middle of its schedule"
    if outcome.twin is None and not outcome.steps:
        return "the same without --budget: it did not bind"
    return f"the same with --steps {outcome.twin or outcome.steps} in place of --budget"


def _pulse(talk: Talk, phase: str, step: int, steps: int, latest: dict[str, float]) -> None:
    talk.pulse(phase, step, steps, latest)


def reproduction(command: str, seed: int, steps_command: str | None = None) -> dict[str, Any]:
    """The ``reproduce`` part of a report: one command, the seed, and the versions that matter."""
    names = ("mulligan", "jax", "jaxlib", "equinox", "numpy", "scikit-learn")
    versions = {name: version(name) for name in names}
    versions["python"] = platform.python_version()
    return {"command": command, "seed": seed, "versions": versions, "steps_command": steps_command}
