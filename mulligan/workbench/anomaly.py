"""Unusual rows of a table under a fitted model: conformal p-values, flags at a level, and the columns that made them so.

Definition. The score of a row is log p (as ``Fitted.log_prob`` has it); of a family without density minus the log of the
distance, in encoded coordinates, to its 5th nearest of 2 000 of the model's own draws. p-values are conformal (see
``measures.anomaly``), against rows that had no part in the fit:

- the ``calibration`` rows that the caller brings, or else the test rows of the fit: both were used for no choice, so p is
  valid;
- or else the select rows, on which the family's choices were made: their log p is a little too high and p a little too
  small, and ``note`` says so.

Why: for each column j the surprise −log p(x_j | x_−j) = log p(x_−j) − log p(x). log p(x_−j) is closed form for a Gaussian
mixture (gaussian, mixture, factor, kde), else the sum or one-dimensional quadrature of p over the values of column j. As
units of columns differ, surprises are compared by their excess over the mean surprise among the model's own draws.
Identity: ``density.conditional``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mulligan.core import Density, Sampler
from mulligan.data.given import ConditionalCodec
from mulligan.data.splits import row_clusters
from mulligan.data.table import Source, Table
from mulligan.errors import DataError, FormatError, UsageError
from mulligan.measures.anomaly import benjamini_hochberg, conformal_p, uniformity
from mulligan.measures.likelihood import log_mean_exp
from mulligan.measures.samples import one_of_each
from mulligan.models.incomplete import mixture_form
from mulligan.workbench.sources import open_rows

if TYPE_CHECKING:
    from mulligan.workbench.fitted import Fitted

HELD_OUT = "held_out_scores"  # in the card: scores of rows that had no part in the fit
MOST_KEPT = 5000
DRAWS, NEAREST = 2000, 5
COARSE, FINE = 128, 64  # nodes of a quadrature: over the column's range, and around its highest point
REFERENCE = 64  # draws of the model that say how surprising a column usually is
EXPLAINED = 25
ALARM = 1.435  # bars: Kolmogorov's 99.9 % quantile, 1.949, over the 95 % one


@dataclass(frozen=True)
class Anomalies:
    """What is unusual in n rows.

    ``scores`` (n,), ``p`` (n,) conformal and conservative, ``flagged`` (n,) by Benjamini and Hochberg at ``level``,
    ``explained`` the positions of the rows that were asked why (the most unusual ones, first), ``surprise`` and ``excess``
    (explained, columns) in nats, ``columns`` their names. ``score``, ``method`` and ``note`` say in words how the score,
    the surprises and the calibration came about; ``calibration_rows`` is m.
    """

    scores: np.ndarray
    p: np.ndarray
    flagged: np.ndarray
    level: float
    explained: np.ndarray
    surprise: np.ndarray
    excess: np.ndarray
    columns: tuple[str, ...]
    score: str
    method: str
    note: str
    calibration_rows: int

    def why(self, place: int, most: int = 3) -> list[tuple[str, float]]:
        """The columns of an explained row with the most excess surprise, in nats, greatest first.

        Raises UsageError for a row that was not explained.
        """
        found = np.flatnonzero(self.explained == place)
        if not found.size:
            raise UsageError(f"row {place} was not explained", do="explain=... with more rows")
        excess = self.excess[found[0]]
        return [(self.columns[j], float(excess[j])) for j in np.argsort(-excess)[:most] if excess[j] > 0]


def anomaly(
    fitted: Fitted,
    rows: Any,
    *,
    level: float = 0.01,
    calibration: Any = None,
    explain: int = EXPLAINED,
    seed: int = 0,
) -> Anomalies:
    """Which rows are unusual under the model, how much, and why; see the head of this module.

    ``level`` is the share of false flags that is accepted among the flagged rows; ``explain`` how many of the most
    unusual rows are asked for their columns (all flagged ones up to that number, and at least one).

    Raises UsageError for a level outside (0, 1) or a model of p(other | given), DataError for rows that do not fit.

    >>> from mulligan import fit
    >>> rows = np.random.default_rng(0).normal(size=(300, 2))
    >>> found = anomaly(fit(rows, "gaussian"), np.array([[0.0, 0.1], [0.2, 9.0]]), level=0.05)
    >>> bool(found.p[1] < 0.03), found.why(1)[0][0]
    (True, 'x2')
    """
    if not 0 < level < 1:
        raise UsageError(f"level is {level!r}; expected a share between 0 and 1", do="level=0.01")
    if explain < 1:
        raise UsageError(f"explain is {explain}; expected a number of rows from 1")
    if isinstance(fitted.codec, ConditionalCodec):
        raise UsageError(f"{fitted.label} models some columns given others", do="a fit without given")
    table = open_rows(rows, fitted.schema)
    held, note = _calibration(fitted, calibration)
    scores = score_rows(fitted, table)
    if np.isnan(scores).any():
        raise DataError(f"the score of {int(np.isnan(scores).sum())} rows is NaN", "their numbers are too large")
    p = conformal_p(held, scores)
    flagged = benjamini_hochberg(p, level)
    wanted = min(len(p), explain, max(1, int(flagged.sum())))
    explained = np.argsort(scores, kind="stable")[:wanted]
    surprise, usual, method = _surprises(fitted, table.values[explained], seed)
    names = tuple(column.name for column in fitted.schema.modelled)
    density = isinstance(fitted.model, Density)
    score = "log p" if density else f"−log distance to the {NEAREST}th nearest of {DRAWS:,} draws (no log p)"
    found = (scores, p, flagged, level, explained, surprise, surprise - usual, names, score, method, note, len(held))
    return Anomalies(*found)


def score_rows(fitted: Fitted, table: Table) -> np.ndarray:
    """The score of each row, high for usual ones: log p, or what stands for it without a density."""
    if isinstance(fitted.model, Density):
        return fitted.row_likelihood(table).log_prob
    return -np.log(_nearest(fitted, table.values)[0] + 1e-12)


def keep_scores(fitted: Fitted, table: Table, seed: int = 0, log_prob: np.ndarray | None = None) -> None:
    """Write the scores of rows that had no part in the fit into its card, at most 5 000 of them drawn at random.

    Rows with empty cells are left out; ``log_prob`` (n,) saves scoring the rows again.
    """
    if isinstance(fitted.codec, ConditionalCodec) or not (log_prob is not None or isinstance(fitted.model, Sampler)):
        return
    whole = ~np.isnan(table.values).any(axis=1)
    scores = score_rows(fitted, table.rows(np.flatnonzero(whole))) if log_prob is None else log_prob[whole]
    kept = np.random.default_rng([seed, 17]).permutation(len(scores))[:MOST_KEPT]
    fitted.card[HELD_OUT] = np.sort(scores[kept]).tolist()


def p_value_check(
    fitted: Fitted, select: Table, test: Table, clusters: np.ndarray, seed: int, log_prob: np.ndarray | None = None
) -> dict[str, Any] | None:
    """p-values of the test rows against the select rows: the ``anomaly`` part of a family's row in ``report.json``.

    They are uniform where the select rows, on which choices were made, are scored like fresh ones. Test rows of one
    cluster count once. ``log_prob`` (n,) saves scoring the test rows again. None for a family that scores no rows.
    """
    if len(clusters) == 0 or (log_prob is None and isinstance(fitted.codec, ConditionalCodec)):
        return None
    if log_prob is not None:
        held = fitted.calibration
    elif isinstance(fitted.model, Sampler):
        whole = [np.flatnonzero(~np.isnan(table.values).any(axis=1)) for table in (select, test)]
        select, test, clusters = select.rows(whole[0]), test.rows(whole[1]), clusters[whole[1]]
        held, log_prob = score_rows(fitted, select), score_rows(fitted, test)
    else:
        return None
    found = uniformity(held, log_prob[one_of_each(clusters, seed)], seed, len(np.unique(row_clusters(select))))
    numbers = {"ks": found.ks.to_json(), "bar": found.bar, "shares": list(found.shares)}
    return {**numbers, "calibration_rows": found.calibration_rows}


def told(found: dict[str, Any] | None) -> list[str]:
    """A sentence for ``health`` where p-values of test rows are farther from uniform than one comparison in 1 000 is."""
    if found is None or found["ks"]["value"] is None or not found["ks"]["value"] > ALARM * found["bar"]:
        return []
    size = f"KS {found['ks']['value']:.2f}, 95 % of valid ones are below {found['bar']:.2f}"
    why = "the test rows are of another population, or choices favoured the select rows"
    return [f"p-values of test rows against select rows are not uniform ({size}): {why}"]


def _calibration(fitted: Fitted, rows: Any) -> tuple[np.ndarray, str]:
    if rows is not None:
        return score_rows(fitted, open_rows(rows, fitted.schema)), "calibrated on the rows that were brought"
    held = fitted.card.get(HELD_OUT)
    if held:
        try:
            scores = np.array([-np.inf if score is None else score for score in held], float)
        except (TypeError, ValueError) as error:
            raise FormatError(f"{HELD_OUT} in the card are not numbers", str(error), do="calibration=ROWS") from error
        return scores, "calibrated on the test rows of the fit, which had no part in it: p is valid"
    if fitted.calibration.size:
        note = "calibrated on the select rows, on which choices were made, too: p may be a little too small"
        return fitted.calibration, note
    what = f"{fitted.label} came without rows to calibrate on"
    raise UsageError(what, do="calibration=ROWS that the model was not fitted to")


def _nearest(fitted: Fitted, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distance to the 5th nearest draw (n,), and the squared difference to the nearest by coordinate (n, d)."""
    from scipy.spatial import cKDTree

    draws = fitted.sample(DRAWS, seed=0).values
    cloud = fitted.codec.encode(draws, 1).points[:, 0]
    points = fitted.codec.encode(values, 1).points[:, 0]
    distance, place = cKDTree(cloud).query(points, NEAREST)
    return distance[:, -1], (points - cloud[place[:, 0]]) ** 2


def _surprises(fitted: Fitted, values: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray, str]:
    """Surprise (n, columns), its usual value (columns,), and how it was found."""
    parts = fitted.codec.parts
    if not isinstance(fitted.model, Density):
        square = _nearest(fitted, values)[1]
        share = np.stack([square[:, part.start : part.start + part.width].sum(1) for part in parts], axis=1)
        return share, np.zeros(len(parts)), "squared distance to the nearest draw, by column (no log p)"
    reference = fitted.sample(DRAWS, seed=seed).values
    closed = mixture_form(fitted.model) is not None
    surprise = _closed if closed else _integrated
    usual = surprise(fitted, reference[:REFERENCE], reference).mean(0)
    method = "log p(x without the column) in closed form" if closed else "one-dimensional sums and quadrature of p"
    return surprise(fitted, values, reference), usual, method


def _closed(fitted: Fitted, values: np.ndarray, reference: np.ndarray) -> np.ndarray:
    n, columns = values.shape
    hollow = np.repeat(values[:, None, :], columns, axis=1)
    hollow[:, np.arange(columns), np.arange(columns)] = np.nan
    whole = _log_p(fitted, values)
    if columns == 1:
        return -whole[:, None]
    return _log_p(fitted, hollow.reshape(n * columns, columns)).reshape(n, columns) - whole[:, None]


def _integrated(fitted: Fitted, values: np.ndarray, reference: np.ndarray) -> np.ndarray:
    whole = _log_p(fitted, values)
    columns = [_log_marginal(fitted, values, reference, j) for j in range(values.shape[1])]
    return np.stack(columns, axis=1) - whole[:, None]


def _log_marginal(fitted: Fitted, values: np.ndarray, reference: np.ndarray, j: int) -> np.ndarray:
    """log Σ_v or ∫ p(x with v in column j) dv, (n,)."""
    column = fitted.schema.modelled[j]
    drawn = np.unique(np.concatenate([reference[:, j], values[:, j]]))
    if column.discrete:
        if len(drawn) > COARSE:  # a fine grid: thinned, each value standing for those around it
            kept = drawn[np.linspace(0, len(drawn) - 1, COARSE).astype(int)]
            stands = np.searchsorted((kept[1:] + kept[:-1]) / 2, drawn)
            shares = np.log(np.bincount(stands, minlength=len(kept)))
        else:
            kept, shares = drawn, np.zeros(len(drawn))
        log_p = _replaced(fitted, values, j, np.repeat(kept[None], len(values), axis=0))
        own = _log_p(fitted, values)  # the sum has at least the row's own value
        return np.maximum(np.logaddexp.reduce(log_p + shares, axis=1), own)
    # half where draws are dense, half evenly as far as the values go: an unusual value leaves a wide gap behind it
    share = np.linspace(0, 1, COARSE // 2)
    spread = np.concatenate([np.quantile(drawn, share), drawn[0] + share * (drawn[-1] - drawn[0])])
    coarse = np.sort(np.concatenate([np.repeat(spread[None], len(values), axis=0), values[:, [j]]], axis=1))
    log_p = _replaced(fitted, values, j, coarse)
    best = np.clip(log_p.argmax(1), 1, coarse.shape[1] - 2)
    at = np.arange(len(values))
    share = np.linspace(0, 1, FINE)
    fine = coarse[at, best - 1][:, None] + share * (coarse[at, best + 1] - coarse[at, best - 1])[:, None]
    nodes = np.concatenate([coarse, fine], axis=1)
    log_p = np.concatenate([log_p, _replaced(fitted, values, j, fine)], axis=1)
    order = np.argsort(nodes, axis=1)
    nodes, log_p = np.take_along_axis(nodes, order, 1), np.take_along_axis(log_p, order, 1)
    gaps = np.diff(nodes, axis=1)
    weight = np.zeros(nodes.shape)
    weight[:, :-1] += gaps / 2
    weight[:, 1:] += gaps / 2
    with np.errstate(divide="ignore"):
        return log_mean_exp(log_p + np.log(weight)) + np.log(nodes.shape[1])


def _replaced(fitted: Fitted, values: np.ndarray, j: int, nodes: np.ndarray) -> np.ndarray:
    """log p (n, k) of the rows with their column j replaced by each of its nodes (n, k)."""
    n, k = nodes.shape
    rows = np.repeat(values, k, axis=0)
    rows[:, j] = nodes.reshape(-1)
    return _log_p(fitted, rows).reshape(n, k)


def _log_p(fitted: Fitted, values: np.ndarray) -> np.ndarray:
    return fitted.row_likelihood(Table(fitted.schema, values, Source(fitted.label))).log_prob
