"""Explained shares, their jackknife, nearness and uniformity against direct computation."""

from __future__ import annotations

import numpy as np
import pytest
from saboteurs import uses

from mulligan.data.table import Column, Schema
from mulligan.measures.anomaly import KOLMOGOROV, uniformity
from mulligan.measures.memory import nearness
from mulligan.measures.synthetic_use import (
    JITTER,
    MOST_COLUMNS,
    NEIGHBOURS,
    _losses,
    _of_learning_rows,
    synthetic_use,
)

K = NEIGHBOURS


def schema(*kinds):
    levels = ("a", "b", "c")
    return Schema(tuple(Column(f"x{i}", k, levels=levels if k == "categorical" else ()) for i, k in enumerate(kinds)))


PAIR = schema("continuous", "continuous")


def related(n, rng, noise=0.3):
    x = rng.normal(size=n)
    return np.column_stack([x, np.sin(2 * x) + noise * rng.normal(size=n)])


def test_losses_are_those_of_the_ten_nearest_rows():
    rng = np.random.default_rng(0)
    rows, test = rng.normal(size=(45, 4)), rng.normal(size=(12, 4))
    predicted = [(slice(0, 1), 1.3), (slice(1, 3), 2.2), (slice(3, 4), 0.7)]
    jitter = JITTER * rng.random((12, 45))
    found = _losses(rows, test, predicted, jitter)
    for j, (place, variance) in enumerate(predicted):
        others = np.delete(np.arange(4), np.arange(4)[place])
        for i, point in enumerate(test):
            near = np.argsort(((rows[:, others] - point[others]) ** 2).sum(axis=1) + jitter[i])[:K]
            miss = rows[near][:, place].mean(axis=0) - point[place]
            assert found[i, j] == pytest.approx((miss**2).sum() / variance, rel=1e-12)


def test_what_learning_rows_add_is_taken_apart_from_the_rest():
    """Losses with an effect of the test row, of the set (variance 1), and a rest that makes as much in the mean."""
    rng = np.random.default_rng(1)
    sets, m = 4000, 25
    losses = 9 * rng.normal(size=m) + rng.normal(size=(sets, 1)) + 5 * rng.normal(size=(sets, m))
    assert _of_learning_rows(losses, np.arange(m)) == pytest.approx(1.0, rel=0.2)
    assert uses.rest_counted_twice(losses, np.arange(m)) == pytest.approx(2.0, rel=0.2)
    thrice = np.repeat(losses, 3, axis=1)  # rows that are there three times add nothing
    of_clusters = _of_learning_rows(thrice, np.repeat(np.arange(m), 3))
    assert of_clusters == pytest.approx(_of_learning_rows(losses, np.arange(m)), rel=1e-9)
    assert _of_learning_rows(thrice, np.arange(3 * m)) > 1.5
    assert _of_learning_rows(losses[:8], np.arange(m)) > 0 == _of_learning_rows(losses[:1].repeat(8, 0), np.arange(m))


def test_a_category_gets_briers_skill_score():
    """With three shares known beforehand: rows of one x are so many that all neighbours have it."""
    rng = np.random.default_rng(1)
    codes = rng.integers(3, size=(600, 1)).astype(float)
    rows = np.hstack([codes, codes])  # the second column is the first
    found = synthetic_use(rows[:300], rows[300:], np.tile(rows[:300], (8, 1)), schema("categorical", "categorical"), 0)
    assert found.real.value == 1.0 and found.difference.value == 0.0
    two = schema("categorical", "categorical")
    lost = [
        synthetic_use(rows[:300], rows[300:], uses.relation_lost(np.tile(rows, (4, 1)), rng), two, run)
        for run in range(5)
    ]
    # shares that are known from ten rows miss by a tenth of the variation more than shares known exactly
    assert np.mean([one.samples.value for one in lost]) == pytest.approx(-1 / K, abs=0.07)
    assert all(one.difference.high < -0.7 for one in lost)


def test_units_and_far_values_decide_nothing():
    rng = np.random.default_rng(2)
    train, test, drawn = (related(n, rng) for n in (300, 200, 2400))

    def bent(rows):
        return np.column_stack([np.exp(5 * rows[:, 0]), -1e9 * rows[:, 1]])

    one = synthetic_use(train, test, drawn, PAIR, 3)
    other = synthetic_use(bent(train), bent(test), bent(drawn), PAIR, 3)
    assert one.difference.value == pytest.approx(other.difference.value, abs=1e-9)
    drawn[0] = 1e12
    assert synthetic_use(train, test, drawn, PAIR, 3).samples.value > 0.3


def test_equally_many_rows_are_learnt_from():
    rng = np.random.default_rng(3)
    train, test, drawn = (related(n, rng) for n in (60, 400, 5000))
    found = synthetic_use(train, test, drawn, PAIR, 0)
    assert found.rows == 60 and "60 rows to learn from, 400 test rows" in found.difference.note
    assert found.difference.contains(0.0)
    assert not uses.unlike_sizes()(train, test, drawn, PAIR, 0).difference.contains(0.0)


def test_of_many_columns_the_explained_ones_are_predicted():
    rng = np.random.default_rng(4)
    base = rng.normal(size=(500, 3))
    rows = np.hstack([rng.normal(size=(500, 8)), base, base + 0.1 * rng.normal(size=(500, 3))])
    kinds = schema(*["continuous"] * 14)
    found = synthetic_use(rows[:300], rows[300:], np.tile(rows[:300], (8, 1)), kinds, 0)
    assert [c.name for c in found.columns] == [f"x{i}" for i in range(8, 14)] and len(found.columns) == MOST_COLUMNS
    asked = synthetic_use(rows[:300], rows[300:], np.tile(rows[:300], (8, 1)), kinds, 0, columns=("x2", "x9"))
    assert [c.name for c in asked.columns] == ["x2", "x9"] and asked.columns[1].real > 0.5 > asked.columns[0].real
    rows[:, 13] = 7.0
    assert "x13" not in [
        c.name for c in synthetic_use(rows[:300], rows[300:], np.tile(rows[:300], (8, 1)), kinds, 0).columns
    ]


@pytest.mark.parametrize(
    "train,test,drawn,kinds,said",
    [
        (np.zeros((99, 1)), np.zeros((99, 1)), np.zeros((99, 1)), schema("continuous"), "one column"),
        (np.zeros((39, 2)), np.zeros((99, 2)), np.zeros((99, 2)), PAIR, "39 rows to learn from"),
        (np.zeros((99, 2)), np.zeros((99, 2)), np.full((99, 2), np.inf), PAIR, "not finite"),
    ],
)
def test_what_cannot_be_asked_is_said(train, test, drawn, kinds, said):
    found = synthetic_use(train, test, drawn, kinds, 0)
    assert found.difference.kind == "none" and said in found.difference.note
    assert found.to_json()["columns"] == [] and found.to_json()["difference"]["value"] is None


def test_a_table_that_never_varies_has_a_number():
    found = synthetic_use(np.ones((90, 2)), np.ones((90, 2)), np.ones((90, 2)), PAIR, 0)
    assert found.difference.value == 0.0 and np.isfinite(found.samples.value)


# --- nearness and uniformity --------------------------------------------------------------------------------------------


def test_nearness_counts_pairs():
    rng = np.random.default_rng(5)
    train, test, drawn = (rng.integers(9, size=(n, 2)).astype(float) for n in (40, 25, 30))
    found = nearness(train, test, drawn, 0)

    def far(points):
        return np.sqrt(((points[:, None] - train) ** 2).sum(axis=2)).min(axis=1)

    near, tested = far(drawn)[:, None], far(test)[None]
    assert found.nearer.value == pytest.approx(((near < tested) + 0.5 * (near == tested)).mean())
    assert found.nearest_sample.value == np.median(near) and found.nearest_test.value == np.median(tested)
    assert nearness(train, test, np.full((30, 2), np.nan), 0).nearer.kind == "none"
    assert nearness(train, test[:19], drawn, 0).nearer.kind == "none"


def test_uniformity_states_the_distance_and_the_shares():
    scores = np.arange(100.0)
    found = uniformity(scores, np.full(50, -1.0))
    assert found.ks.value > 0.97 and found.ks.low > 0.5 and found.shares[-1] == 1.0 and found.shares[1] == 1.0
    assert found.bar == pytest.approx(KOLMOGOROV * np.sqrt(150 / 5000))
    assert uniformity(scores, scores[:50], independent=25).bar == pytest.approx(KOLMOGOROV * np.sqrt(75 / 1250))
    assert uniformity(scores[:19], scores).ks.kind == "none"
    assert uniformity(scores, np.full(50, np.nan)).ks.kind == "none"
    assert uniformity(np.append(scores, -np.inf), scores).ks.value < 0.1
