"""What the joint law answers: conditional laws, marginals, expectations, and the factors of the chain rule.

Definition. p(free | evidence) = p(row)/P(evidence) for rows of the evidence, where P(evidence) is a density in known
continuous values and a probability in all else. A marginal is evidence about its columns alone, and log p of a row's first
j + 1 columns less that of the first j is a factor of the chain rule. ``workbench.completion`` says how
P(evidence) is known.
Identities: ``density.marginal``, ``density.conditional``, ``density.factorization``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from mulligan.core import Density
from mulligan.data.evidence import Evidence, parse_evidence
from mulligan.data.regions import Region, region_of
from mulligan.data.table import ReadOptions, Source, Table
from mulligan.errors import NoDensity, UsageError
from mulligan.measures.likelihood import common_error, log_mean_exp
from mulligan.measures.partition import pareto_k
from mulligan.models.counted import CountedForm
from mulligan.models.vae import VAE
from mulligan.quantity import Kind, Quantity, none
from mulligan.workbench.completion import CANDIDATES, MOVES, Weighted, answer, effective, weigh
from mulligan.workbench.decoded import within_ranges
from mulligan.workbench.direct import directly, has_own_way
from mulligan.workbench.sources import open_rows
from mulligan.workbench.spaces import Space, closed_form, refuse_conditional, space_of

if TYPE_CHECKING:
    from mulligan.workbench.fitted import Fitted

MOST = 4096  # candidates for one conditional law
ROW_CANDIDATES = 1024  # for log p of each row's known cells
HEAVY = 0.7  # Pareto k above which the error of a mean weight is not known (Vehtari et al. 2024)


@dataclass(frozen=True)
class Conditioned:
    """p(free columns | evidence) of a fitted model; made by ``condition``.

    ``log_evidence`` is log P(evidence) with its kind and error, ``method`` how draws are made, ``diagnostics`` what that
    says of itself. ``region`` is the evidence as a box; None for a family that has a way of its own.
    """

    fitted: Fitted
    evidence: Evidence
    log_evidence: Quantity
    method: str
    diagnostics: dict[str, Any] = field(default_factory=dict)
    region: Region | None = None

    def sample(self, n: int = 1, seed: int = 0) -> Table:
        """n whole rows, the evidence's columns at their values. UsageError for an n that is no whole number from 1."""
        if isinstance(n, bool) or not isinstance(n, int | np.integer) or n < 1:
            raise UsageError(f"n is {n!r}; expected a whole number from 1")
        schema, known = self.fitted.schema, self.evidence.values(self.fitted.schema)
        if self.region is None:
            values = directly(self.fitted, known, self.evidence.ranges, int(n), seed).values[0]
        else:
            space = space_of(self.fitted)
            points, *_ = answer(space, self.region, int(n), max(MOST, 2 * int(n)), MOVES, seed, judge=False)
            values = within_ranges(schema, space.codec.decode(points[0]), self.evidence.ranges)
            values = np.where(np.isnan(known), values, known)
        return Table(schema, values, Source(f"samples of {self.fitted.label} given evidence"))

    def log_prob(self, rows: Any) -> np.ndarray:
        """log p(free columns | evidence) of whole rows, float64 (n,); −inf for rows outside the evidence."""
        table = open_rows(rows, self.fitted.schema)
        if self.log_evidence.value is None:
            raise NoDensity(f"{self.fitted.label} has no log density, so it cannot score rows")
        log_p = row_terms(self.fitted, table.values)[0]
        inside = self.evidence.holds(table.values, self.fitted.schema)
        return np.where(inside, log_p - self.log_evidence.value, -np.inf)

    @property
    def log_prob_kind(self) -> Kind:
        """How ``log_prob`` is known: exact where both log p(row) and log P(evidence) are."""
        kinds = {self.log_evidence.kind, _joint_kind(self.fitted)}
        return next(kind for kind in ("none", "estimate", "lower bound", "numeric", "exact") if kind in kinds)


def condition(
    fitted: Fitted, evidence: Sequence[str] | Mapping[str, Any] | Evidence, *, draws: int = MOST, seed: int = 0
) -> Conditioned:
    """The law of the other columns given values and ranges of some, said as for ``data.evidence.parse_evidence``.

    ``draws`` is how many weighted points estimate log P(evidence) where it is not in closed form. Raises UsageError for
    unknown columns and models that cannot be conditioned, DataError for values that no row has and empty ranges.

    >>> import mulligan as mg
    >>> rows = {"a": np.linspace(-1, 1, 200) ** 3, "b": np.linspace(-1, 1, 200)}
    >>> given = condition(mg.fit(rows, "gaussian"), ["a>0.5"])
    >>> bool((given.sample(50)["a"] >= 0.5).all()), given.method, given.log_evidence.kind
    (True, 'exact', 'exact')
    """
    found = parse_evidence(evidence, fitted.schema)
    if not found.columns:
        raise UsageError("no evidence is given", do='"age>40", "species=Adelie" or "1<=x<2"')
    refuse_conditional(fitted)
    values = found.values(fitted.schema)
    if has_own_way(fitted, np.isnan(values), found.ranges).all():
        return _condition_directly(fitted, found, draws, seed)
    space = space_of(fitted, seed)
    region = region_of(space.codec, values, found.ranges)
    _, weighted, method, told = answer(space, region, 1, draws, MOVES, seed)
    quantity = _log_mean(fitted, space, weighted)
    if not space.closed and space.pool is None:
        told["pareto_k"] = float(pareto_k(weighted.log_weights[0]))
        if told["pareto_k"] > HEAVY:
            heavy = f"heavy weights: Pareto k {told['pareto_k']:.2f} > {HEAVY}: errors are not known"
            told["warning"] = "; ".join([heavy, *([told["warning"]] if "warning" in told else [])])
    return Conditioned(fitted, found, quantity, method, told, region)


def _condition_directly(fitted: Fitted, evidence: Evidence, draws: int, seed: int) -> Conditioned:
    """By the family's own way."""
    many = draws if isinstance(fitted.model, VAE) else 0
    found = directly(fitted, evidence.values(fitted.schema), evidence.ranges, many, seed)
    value, stderr = float(found.log_evidence[0]), float(found.stderr[0])
    if found.method == "exact":
        kind: Kind = fitted.log_prob_kind
        quantity = Quantity(value, kind, value, value, stderr=0.0, n=None, unit="nats")
    else:
        ends = value - 1.96 * stderr, value + 1.96 * stderr
        quantity = Quantity(value, "estimate", *ends, stderr, unit="nats", note=found.method)
    return Conditioned(fitted, evidence, quantity, found.method, found.diagnostics)


def _log_mean(fitted: Fitted, space: Space, weighted: Weighted) -> Quantity:
    """log of the mean weight of one row, with the error of that mean."""
    if space.pool is not None:
        return none(f"{fitted.label} has no log density")
    log_w = weighted.log_weights[:1]
    value = float(log_mean_exp(log_w)[0])
    if space.closed and weighted.exact:
        return Quantity(value, "exact", value, value, stderr=0.0, n=None, unit="nats")
    ess, draws = float(effective(log_w)[0]), log_w.shape[1]
    stderr = float(np.hypot(np.sqrt(max(1 / max(ess, 1e-9) - 1 / draws, 0.0)), common_error(fitted.model)))
    note = f"importance sampling, worth {ess:.0f} of {draws} draws"
    return Quantity(value, "estimate", value - 1.96 * stderr, value + 1.96 * stderr, stderr, unit="nats", note=note)


def row_terms(fitted: Fitted, values: np.ndarray, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """log p of what each row (n, columns; NaN in unknown cells) shows, and its standard error, float64 (n,) each.

    Raises NoDensity for a family without.
    """
    unknown = np.isnan(values)
    refuse_conditional(fitted)
    if not isinstance(fitted.model, Density):
        raise NoDensity(f"{fitted.label} has no log density, so it cannot score rows", do="mulligan families")
    if not unknown.any() and closed_form(fitted) is None:
        return fitted.row_likelihood(Table(fitted.schema, values, Source("rows"))).log_prob, np.zeros(len(values))
    log_p, error = np.empty(len(values)), np.zeros(len(values))
    own = has_own_way(fitted, unknown)
    if own.any():
        rest = np.flatnonzero(~own)
        drawn = directly(fitted, values[own], None, 0, seed)
        log_p[own], error[own] = drawn.log_evidence, drawn.stderr
        if len(rest):
            log_p[rest], error[rest] = row_terms(fitted, values[rest], seed)
        return log_p, error
    space = space_of(fitted, seed)
    draws = 1 if space.counted else CANDIDATES if space.closed else ROW_CANDIDATES
    for at in np.array_split(np.arange(len(values)), max(1, -(-len(values) * draws // 200_000))):
        if not len(at):
            continue
        region = region_of(space.codec, values[at])
        weighted = weigh(space, region, draws, np.random.default_rng([seed, 607]))
        log_p[at] = log_mean_exp(weighted.log_weights)
        if not (space.closed and weighted.exact):
            error[at] = np.sqrt(np.maximum(1 / np.maximum(effective(weighted.log_weights), 1e-9) - 1 / draws, 0.0))
    return log_p, np.where(error < 1e-7, 0.0, error)


def _joint_kind(fitted: Fitted) -> Kind:
    form = closed_form(fitted)
    if form is None:
        return fitted.log_prob_kind
    return "exact" if isinstance(form, CountedForm) or not fitted.codec.dequantises else "estimate"


@dataclass(frozen=True)
class Marginal:
    """The law of some columns of a fitted model, the others integrated out; made by ``marginal``."""

    fitted: Fitted
    columns: tuple[str, ...]

    def log_prob(self, rows: Any, seed: int = 0) -> np.ndarray:
        """log p of these columns of each row, float64 (n,). Other columns need not be there."""
        return self.estimate(rows, seed)[0]

    def estimate(self, rows: Any, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
        """log p of these columns of each row, and its standard error (0 where exact), float64 (n,) each."""
        return row_terms(self.fitted, self._values(rows), seed)

    def sample(self, n: int = 1, seed: int = 0) -> dict[str, np.ndarray]:
        """n draws of these columns, as columns of a table: exact draws of the model, the others left out."""
        drawn = self.fitted.sample(n, seed=seed).to_dict()
        return {name: drawn[name] for name in self.columns}

    def _values(self, rows: Any) -> np.ndarray:
        return known_values(self.fitted, rows, self.columns)


def known_values(fitted: Fitted, rows: Any, columns: Sequence[str]) -> np.ndarray:
    """The rows (n, columns of the model) with NaN in all but ``columns``, which other columns need not stand beside."""
    from dataclasses import replace

    schema = fitted.schema
    part = replace(schema, columns=tuple(c for c in schema.columns if c.name in columns), image=None)
    others = tuple(c.name for c in schema.columns if c.name not in columns)
    source = rows.to_dict() if isinstance(rows, Table) else rows
    if isinstance(source, np.ndarray) and source.ndim == 2 and source.shape[1] == len(schema.names) != len(columns):
        source = dict(zip(schema.names, source.T))
    table = open_rows(source, part, ReadOptions(drop=others))
    values = np.full((len(table), len(schema.names)), np.nan)
    for j, name in enumerate(part.names):
        values[:, schema.names.index(name)] = table.values[:, j]
    return values


def marginal(fitted: Fitted, columns: Sequence[str] | str) -> Marginal:
    """The law of ``columns``; UsageError for names that the model does not have, or none.

    >>> import mulligan as mg
    >>> fitted = mg.fit(np.random.default_rng(0).normal(size=(300, 2)), "gaussian")
    >>> marginal(fitted, "x1").log_prob({"x1": [0.0]}).shape
    (1,)
    """
    names = (columns,) if isinstance(columns, str) else tuple(columns)
    wrong = [name for name in names if name not in fitted.schema.names]
    if wrong or not names or len(set(names)) < len(names):
        what = f"no column {wrong[0]!r} in this model" if wrong else "columns are repeated, or none is named"
        raise UsageError(what, do=f"columns: {', '.join(fitted.schema.names)}")
    return Marginal(fitted, names)


def expectation(
    fitted: Fitted, function: Callable[[Table], Any], given: Any = None, *, draws: int = 10_000, seed: int = 0
) -> Quantity:
    """E f(row), or E (f(row) | evidence), over draws of the model; its error is that of so many draws.

    ``function`` maps a table to one number a row. Where draws are resampled by weight, so many as they are worth count.

    >>> import mulligan as mg
    >>> fitted = mg.fit(np.random.default_rng(0).normal(size=(300, 2)), "gaussian")
    >>> expectation(fitted, lambda rows: rows["x1"] > 0, draws=2000).contains(0.5)
    True
    """
    if given is None:
        table, worth, said = fitted.sample(draws, seed=seed), float(draws), "draws"
    else:
        law = condition(fitted, given, seed=seed)
        table, said = law.sample(draws, seed=seed), law.method
        # resampled from max(MOST, 2 draws) candidates, of which the share that counts is that of the diagnosis
        share = law.diagnostics.get("effective_draws", MOST) / law.diagnostics.get("candidates", MOST)
        exact = law.method == "exact"
        worth = float(draws) if exact else min(float(draws), share * max(MOST, 2 * draws))
        if "particles" in law.diagnostics:  # as many as there are draws, each worth the same share
            worth = min(float(draws), law.diagnostics["effective_draws"] / law.diagnostics["particles"] * draws)
    f = np.asarray(function(table), np.float64)
    if f.shape != (len(table),):
        raise UsageError(f"the function gives the shape {f.shape}; expected one number for each of {len(table)} rows")
    value, stderr = float(f.mean()), float(f.std(ddof=1) / np.sqrt(max(worth, 1.0)))
    return Quantity(value, "estimate", value - 1.96 * stderr, value + 1.96 * stderr, stderr, len(f), note=said)


def factor(fitted: Fitted, rows: Any, order: Sequence[str] | None = None, seed: int = 0) -> np.ndarray:
    """log p(x_j | columns before j in the order) of each row, float64 (n, columns), in the order (or the table's).

    The terms of a row sum to log p of the row. Raises UsageError for an order that is not one of all columns.
    """
    order = tuple(order or fitted.schema.names)
    if sorted(order) != sorted(fitted.schema.names):
        raise UsageError(f"the order is {', '.join(order)}", do=f"all of: {', '.join(fitted.schema.names)}")
    values = open_rows(rows, fitted.schema).values
    places = [fitted.schema.names.index(name) for name in order]
    so_far = [np.zeros(len(values))]
    for j in range(1, len(places) + 1):
        known = np.full(values.shape, np.nan)
        known[:, places[:j]] = values[:, places[:j]]
        so_far.append(row_terms(fitted, known, seed)[0])
    return np.diff(np.stack(so_far, axis=1), axis=1)
