"""The bandwidth search of ``kde``: training rows are scored without their own kernel, and without those of equal rows."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.special import logsumexp

from mulligan.data.codec import Encoded
from mulligan.data.table import Column, Schema, Source, Table
from mulligan.families import kde
from mulligan.families.kde import _both, _left_out, _scores
from mulligan.families.recipe import Fitting

FACTOR = np.array([[1.0, 0.0], [0.4, 0.8]])
WIDTHS = [0.2, 0.5]


def encoded(points):
    return Encoded(points[:, None, :], np.full((len(points), 1), 0.3))


@pytest.fixture
def fitting():
    rng = np.random.default_rng(0)
    rows, select = rng.normal(size=(40, 2)), rng.normal(size=(15, 2))
    rows[7] = rows[3]  # one row twice
    table = Table(Schema((Column("a", "continuous"), Column("b", "continuous"))), rows, Source("rows"))
    return Fitting(encoded(rows), encoded(select), None, table, table, 0, None, None, lambda *_: None)


def brute(fitting, own=False):
    """Pooled mean log p, row by row, in float64."""
    points, select = fitting.train.points[:, 0], fitting.select.points[:, 0]
    weights = np.ones(len(points)) if fitting.weights is None else fitting.weights
    inverse = np.linalg.inv(FACTOR)

    def log_p(x, centres, shares, h):
        square = (((x - centres) @ inverse.T) ** 2).sum(1)
        constant = np.linalg.slogdet(FACTOR)[1] + np.log(2 * np.pi * h**2)
        return logsumexp(-0.5 * square / h**2, b=shares / shares.sum()) - constant + 0.3

    pooled = []
    for h in WIDTHS:
        total = sum(log_p(x, points, weights, h) for x in select)
        for x, weight in zip(points, weights):
            others = np.ones(len(points), bool) if own else (points != x).any(1)
            total += weight * log_p(x, points[others], weights[others], h)
        pooled.append(total / (len(select) + weights.sum()))
    return pooled


def searched(fitting):
    weights = fitting.weights
    shares = None if weights is None else np.log(weights / weights.sum()).astype(np.float32)
    whitened = np.linalg.solve(FACTOR, fitting.train.points[:, 0].T).T.astype(np.float32)

    def on_select(widths):
        return _scores(fitting.select, whitened, FACTOR, shares, None, widths)

    return [pooled for pooled, _ in _both(on_select, _left_out(fitting), whitened, FACTOR, shares, fitting, WIDTHS)]


@pytest.mark.parametrize("weighted", [False, True])
def test_left_out_scores_against_brute_force(fitting, weighted):
    if weighted:
        fitting = replace(fitting, weights=np.random.default_rng(1).uniform(0.5, 2, 40))
    assert searched(fitting) == pytest.approx(brute(fitting), abs=2e-5)


def test_saboteur_own_kernel_kept(fitting):
    assert np.all(np.array(brute(fitting, own=True)) - searched(fitting) > 0.05)


def test_where_rows_are_not_held_out(fitting):
    grouped = replace(fitting, train_rows=replace(fitting.train_rows, groups=np.arange(40) // 2))
    drawn = replace(fitting, train=Encoded(np.repeat(fitting.train.points, 2, axis=1), np.zeros((40, 2))))
    equal = replace(fitting, train=encoded(np.ones((40, 2))))
    assert _left_out(grouped) is _left_out(drawn) is _left_out(equal) is None
    assert len(_left_out(fitting)) == 40


def test_large_tables_are_thinned(fitting, monkeypatch):
    monkeypatch.setattr(kde, "LEFT_OUT", 10)
    assert _left_out(fitting).tolist() == [0, 4, 8, 13, 17, 21, 26, 30, 34, 39]
