"""Use of samples: does a predictor that learns from samples do as well on real rows as one that learns from real rows?

Definition ("train on synthetic, test on real", Esteban, Hyland and Rätsch 2017). Column j of a row is predicted from the
others, f_j(x_−j), by the mean of the column over the k = 10 nearest rows of a training set: n samples in turn, and n real
training rows. Over m test rows that neither saw, the explained share is

    R² = 1 − (1/m) Σ_i |f_j(x_i,−j) − x_ij|² / V_j,   V_j = the column's variance over real rows,

averaged over the predicted columns. A numeric column is taken as its rank among the real rows, so neither its
unit nor a few far values decide; a category as its indicators, for which the formula is Brier's skill score (1950). The
difference R²(samples) − R²(real) is paired over test rows (over clusters of them).

Its variance over test rows and over both sets of learning rows is taken apart as in a two-way layout (Searle, Casella and
McCulloch 1992): the losses L_bi of B = 8 sets of samples and m test rows give V = max(0, S² − I/m), what another set of n
rows changes (S² the variance of the set means, I the residual mean square), for the mean of B sets V/B, and V for the real
rows, of which there is one set; the paired differences of the test rows hold the rest. So samples of the law itself are
not told from real rows more often than stated. Rows in G clusters teach as G do: V n/G.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from scipy.special import stdtrit

from mulligan.data.table import Schema
from mulligan.measures.space import Space, space_of
from mulligan.quantity import LEVEL, Quantity, mean_of_rows, none

NEIGHBOURS = 10
SETS = 8  # of samples
LEAST_TRAIN, LEAST_TEST = 40, 20
MOST_TRAIN, MOST_TEST = 500, 1000
MOST_COLUMNS = 6  # predicted; all others are predictors still
RIDGE = 1e-3
JITTER = 1e-9  # of squared distances: rows at equal distance are taken at random, for each test row anew
PREDICTOR = f"the mean of the {NEIGHBOURS} nearest rows"
UNIT = "of the variation"


class Column(NamedTuple):
    """One predicted column: the explained shares after learning from samples, and from real rows."""

    name: str
    samples: float
    real: float


class Use(NamedTuple):
    """Explained shares after learning from ``samples`` and from ``real`` rows, and samples − real as ``difference``.

    ``columns`` are those that were predicted; ``rows`` is n, the size of either training set.
    """

    samples: Quantity
    real: Quantity
    difference: Quantity
    columns: tuple[Column, ...] = ()
    rows: int = 0

    def to_json(self) -> dict[str, Any]:
        """The ``use`` part of a family's row in ``report.json``."""
        numbers = {name: getattr(self, name).to_json() for name in ("samples", "real", "difference")}
        return {**numbers, "predictor": PREDICTOR, "columns": [c._asdict() for c in self.columns], "rows": self.rows}


def synthetic_use(
    train: np.ndarray,
    test: np.ndarray,
    generated: np.ndarray,
    schema: Schema,
    seed: int,
    *,
    clusters: np.ndarray | None = None,
    train_clusters: np.ndarray | None = None,
    columns: tuple[str, ...] = (),
) -> Use:
    """Explained shares of test rows (m, p) after learning from generated rows (M, p) and from training rows (N, p).

    Values are in the user's units, without empty cells. n is N, at most 500 and at most M/8 (M/2 where that is less than
    40); at most 1 000 test rows are predicted. Rows of one cluster (``clusters`` of the test, ``train_clusters`` of the
    training rows) count as one draw in the errors. ``columns`` names the columns to predict; else it is all, or the six
    that the others explain best linearly (on training rows). Kind ``estimate``; ``none`` with one column or too few rows.

    >>> from mulligan.data.table import Column as Of
    >>> rng = np.random.default_rng(0)
    >>> x = rng.normal(size=(900, 1))
    >>> rows = np.hstack([x, x + 0.1 * rng.normal(size=(900, 1))])
    >>> apart = np.column_stack([rows[:, 0], rng.permutation(rows[:, 1])])  # each column right, the relation lost
    >>> found = synthetic_use(rows[:400], rows[400:], apart, Schema((Of("x", "continuous"), Of("y", "continuous"))), 0)
    >>> found.real.value > 0.9, found.difference.high < -0.5
    (True, True)
    """
    sets = max(2, min(SETS, len(generated) // LEAST_TRAIN))
    n = min(len(train), len(generated) // sets, MOST_TRAIN)
    refused = _why_not(n, len(test), schema, generated)
    if refused:
        nothing = none(refused, UNIT)
        return Use(nothing, nothing, nothing)
    rng = np.random.default_rng([seed, 251])
    kept, drawn = rng.permutation(len(train))[:n], rng.permutation(len(generated))[: sets * n].reshape(sets, n)
    tested = rng.permutation(len(test))[:MOST_TEST]
    # Ranks among all real rows: those among few training rows would be a scale that changes with them.
    scale = np.concatenate([train, test])
    ranks = [None if c.kind == "categorical" else np.sort(scale[:, j]) for j, c in enumerate(schema.modelled)]
    space = space_of(schema, _ranked(scale, ranks))
    of_all = space(_ranked(scale, ranks))
    of_train, of_test = of_all[: len(train)], of_all[len(train) :][tested]
    places = _chosen(of_train, _places(space), schema, columns)
    predicted = [(place, max(float(of_all[:, place].var(axis=0).sum()), 1e-12)) for _, place in places]
    jitter = JITTER * rng.random((len(tested), n))
    real = _losses(of_train[kept], of_test, predicted, jitter)
    drawn_losses = np.stack(
        [_losses(space(_ranked(generated[one], ranks)), of_test, predicted, jitter) for one in drawn]
    )
    synthetic = drawn_losses.mean(axis=0)
    units = (
        np.arange(len(tested)) if clusters is None else np.unique(np.asarray(clusters)[tested], return_inverse=True)[1]
    )
    learning = _of_learning_rows(drawn_losses.mean(axis=2), units)
    taught = n if train_clusters is None else len(np.unique(np.asarray(train_clusters)[kept]))
    errors = math.sqrt(learning / sets), math.sqrt(learning * n / taught)
    note = f"{PREDICTOR}; {n:,} rows to learn from, {len(tested):,} test rows, {len(places)} columns in turn"

    def mean(values: np.ndarray, error: float) -> Quantity:
        return mean_of_rows(values, "estimate", clusters=units, unit=UNIT, note=note, method_stderr=error)

    missed = synthetic.mean(axis=1), real.mean(axis=1)
    by_column = 1 - synthetic.mean(axis=0), 1 - real.mean(axis=0)
    return Use(
        mean(1 - missed[0], errors[0]),
        mean(1 - missed[1], errors[1]),
        mean(missed[1] - missed[0], math.hypot(*errors)),
        tuple(Column(name, float(s), float(r)) for (name, _), s, r in zip(places, *by_column)),
        n,
    )


def _of_learning_rows(losses: np.ndarray, units: np.ndarray) -> float:
    """Variance of the mean loss that another set of n learning rows makes, from losses (sets, m).

    Few sets know it badly: it is widened by the square of Student's quantile over the normal one.
    """
    (sets, m), groups = losses.shape, int(units.max()) + 1
    by_set = losses.mean(axis=1)
    rest = losses - losses.mean(axis=0) - by_set[:, None] + losses.mean()
    together = np.stack([np.bincount(units, weights=row) for row in rest])
    shared = float((together**2).sum()) / (sets - 1) * groups / max(groups - 1, 1) / m**2
    widened = (stdtrit(sets - 1, 0.5 + LEVEL / 2) / stdtrit(np.inf, 0.5 + LEVEL / 2)) ** 2
    return max(0.0, float(by_set.var(ddof=1)) - shared) * float(widened)


def _why_not(n: int, tests: int, schema: Schema, generated: np.ndarray) -> str:
    if len(schema.modelled) < 2:
        return "one column has no others to be predicted from"
    if n < LEAST_TRAIN or tests < LEAST_TEST:
        return f"{n} rows to learn from and {tests} test rows are too few"
    return "" if np.isfinite(generated).all() else "some samples are not finite"


def _ranked(values: np.ndarray, ranks: list[np.ndarray | None]) -> np.ndarray:
    """Numeric columns as their place (0 to 1, ties in the middle) among sorted real values."""
    out = np.asarray(values, float).copy()
    for j, ordered in enumerate(ranks):
        if ordered is not None:
            below, upto = (np.searchsorted(ordered, values[:, j], side) for side in ("left", "right"))
            out[:, j] = (below + upto) / (2 * len(ordered))
    return out


def _places(space: Space) -> list[slice]:
    """Where the coordinates of each column are."""
    widths = [1 if ranks is None else max(ranks) + 1 for ranks in space.ranks]
    ends = np.cumsum(widths).tolist()
    return [slice(end - width, end) for end, width in zip(ends, widths)]


def _chosen(
    points: np.ndarray, places: list[slice], schema: Schema, columns: tuple[str, ...]
) -> list[tuple[str, slice]]:
    """The columns to predict, constant ones left out."""
    varies = [bool(np.ptp(points[:, place], axis=0).any()) for place in places]
    found = [(name, place) for name, place, vary in zip(schema.names, places, varies) if vary]
    if columns:
        found = [pair for pair in found if pair[0] in columns]
    if len(found) <= MOST_COLUMNS:
        first = schema.names.index(columns[0]) if columns else 0
        return found or [(schema.names[first], places[first])]
    # 1 − R² of coordinate c by a linear law is 1/(C_cc (C⁻¹)_cc) with C the covariance, made invertible by a ridge.
    covariance = np.cov(points, rowvar=False)
    covariance += RIDGE * np.eye(len(covariance)) * max(float(np.mean(np.diag(covariance))), 1e-12)
    rest = 1 / np.diag(np.linalg.inv(covariance))
    unexplained = [float(rest[place].sum() / np.diag(covariance)[place].sum()) for _, place in found]
    best = np.sort(np.argsort(unexplained, kind="stable")[:MOST_COLUMNS])
    return [found[i] for i in best]


def _predictors(width: int, place: slice) -> np.ndarray:
    """The coordinates without those of the column, bool (width,).

    The distance is built without the column, not by taking its part off: what rounding leaves of the column would decide
    between rows at equal distance.
    """
    others = np.ones(width, bool)
    others[place] = False
    return others


def _losses(rows: np.ndarray, test: np.ndarray, predicted: list[tuple[slice, float]], jitter: np.ndarray) -> np.ndarray:
    """Squared errors over variances (m, columns) of the columns of test rows, predicted from the nearest of the rows."""
    k = NEIGHBOURS
    losses = np.empty((len(test), len(predicted)))
    for j, (place, variance) in enumerate(predicted):
        others = _predictors(rows.shape[1], place)
        left, right = rows[:, others], test[:, others]
        distance = np.einsum("nq,nq->n", left, left) - 2 * right @ left.T + jitter
        near = np.argpartition(distance, k - 1, axis=1)[:, :k]
        miss = rows[:, place][near].mean(axis=1) - test[:, place]
        losses[:, j] = (miss**2).sum(axis=1) / variance
    return losses
