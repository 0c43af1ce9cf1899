"""Samples of the law itself are never told from real rows more often than stated; twins that fail in one way are.

A set of intervals is refused where the interval of its share, at 1 − 5e-5, lies below .93. All saboteurs are seen.
"""

from __future__ import annotations

import numpy as np
import pytest
from saboteurs import uses

from mulligan.data.table import Column, Schema
from mulligan.measures.anomaly import uniformity
from mulligan.measures.calibration import coverage, overlaps
from mulligan.measures.memory import memory, nearness
from mulligan.measures.synthetic_use import NEIGHBOURS, SETS, synthetic_use

LEVEL = 1 - 5e-5
Z = 4.75
RUNS = 150
PAIR = Schema((Column("x", "continuous"), Column("y", "continuous")))
MIXED = Schema((Column("x", "continuous"), Column("k", "categorical", levels=("a", "b", "c"))))


def generators(seed, runs=RUNS):
    return [np.random.default_rng([seed % 2**31, run]) for run in range(runs)]


def holds(hits):
    return overlaps(coverage(np.asarray(hits, float), level=LEVEL), 0.93, 1.0)


def curve(n, rng):
    x = rng.standard_t(3, size=n)
    return np.column_stack([x, np.tanh(x) + 0.4 * rng.normal(size=n)])


def species(n, rng):
    kind = rng.choice(3, n, p=[0.5, 0.3, 0.2])
    return np.column_stack([1.2 * kind + rng.normal(size=n), kind])


LAWS = {"curve": (PAIR, curve), "species": (MIXED, species)}


def under_the_law(name, seed, n=60, m=60):
    schema, law = LAWS[name]
    return [
        synthetic_use(law(n, rng), law(m, rng), law(SETS * n, rng), schema, run)
        for run, rng in enumerate(generators(seed))
    ]


@pytest.mark.parametrize("n,m", [(60, 60), (40, 300), (150, 40)])
@pytest.mark.parametrize("name", LAWS)
def test_intervals_hold_under_the_law_itself(name, n, m, seed):
    found = under_the_law(name, seed, n, m)
    assert holds([one.difference.contains(0.0) for one in found])
    for part in ("samples", "real"):
        shares = [getattr(one, part) for one in found]
        truth = np.mean([q.value for q in shares])  # its error is a twelfth of the stated one
        assert holds([q.contains(truth) for q in shares]), part


def test_saboteur_learning_rows_taken_as_given(seed):
    with uses.learning_rows_taken_as_given():
        assert not holds([one.difference.contains(0.0) for one in under_the_law("curve", seed, 40, 300)])


@pytest.mark.parametrize("name", LAWS)
def test_a_twin_without_the_relation_is_told(name, seed):
    schema, law = LAWS[name]
    told = [
        synthetic_use(law(200, rng), law(200, rng), uses.relation_lost(law(1600, rng), rng), schema, run).difference
        for run, rng in enumerate(generators(seed, 20))
    ]
    assert all(difference.high < 0 for difference in told)


def of_independent_columns(seed, n=60, m=60):
    found = []
    for run, rng in enumerate(generators(seed)):
        train, test = rng.normal(size=(n, 2)), rng.normal(size=(m, 2))
        found.append(synthetic_use(train, test, rng.normal(size=(2 * n, 2)), PAIR, run).real.value)
    # A test row and k others are drawn without replacement from N = n + m ranks.
    k, together = NEIGHBOURS, n + m
    expected = -(together - k) / (together - 1) / k - 2 / (together - 1)
    return abs(np.mean(found) - expected) / (np.std(found) / np.sqrt(RUNS))


def test_independent_columns_explain_what_a_mean_of_ten_does(seed):
    assert of_independent_columns(seed) < Z
    with uses.column_among_its_predictors():
        assert of_independent_columns(seed) > Z


def in_clusters(seed, said):
    """Test and training rows that are there three times each: the share after real rows, with its error from clusters."""
    found = []
    for run, rng in enumerate(generators(seed)):
        test, train = np.repeat(np.arange(30), 3), np.repeat(np.arange(40), 3)
        given = {"clusters": test, "train_clusters": train} if said else {}
        rows, drawn = curve(40, rng)[train], curve(120 * SETS, rng)
        found.append(synthetic_use(rows, curve(30, rng)[test], drawn, PAIR, run, **given).real)
    truth = np.mean([q.value for q in found])
    return [q.contains(truth) for q in found]


def test_clusters_count_once(seed):
    assert holds(in_clusters(seed, True))
    assert not holds(in_clusters(seed, False))


# --- nearness -----------------------------------------------------------------------------------------------------------


def near(seed, scale=1.0, copied=False, runs=RUNS):
    found = []
    for run, rng in enumerate(generators(seed, runs)):
        train, test, drawn = rng.normal(size=(100, 2)), rng.normal(size=(60, 2)), scale * rng.normal(size=(400, 2))
        drawn = train[rng.integers(100, size=400)] + 1e-3 * drawn if copied else drawn
        copies = memory(train, test, drawn, run).copied if runs < RUNS else None  # 9 999 relabellings each
        found.append((nearness(train, test, drawn, run).nearer, copies))
    return found


def test_samples_of_the_law_are_as_near_as_test_rows(seed):
    assert holds([nearer.contains(0.5) for nearer, _ in near(seed)])
    with uses.samples_counted_only():
        assert not holds([nearer.contains(0.5) for nearer, _ in near(seed)])


def test_copies_and_narrow_laws_are_told_and_told_apart(seed):
    copies, narrow = near(seed, copied=True, runs=20), near(seed, scale=0.5, runs=20)
    assert all(nearer.low > 0.5 and copied.low > 0 for nearer, copied in copies)
    assert sum(nearer.low > 0.5 for nearer, _ in narrow) >= 15
    assert sum(copied.low > 0 for _, copied in narrow) <= 5
    assert sum(nearer.high < 0.5 for nearer, _ in near(seed, scale=3.0, runs=20)) >= 15


# --- uniformity ---------------------------------------------------------------------------------------------------------


def uniform(seed, independent, shift=0.0):
    """Calibration scores that are there three times each."""
    found = []
    for run, rng in enumerate(generators(seed)):
        held, fresh = np.repeat(rng.normal(size=60), 3), rng.normal(size=80) - shift
        found.append(uniformity(held, fresh, run, independent).ks)
    return found


def test_the_bar_is_passed_by_one_in_twenty(seed):
    assert holds([ks.low == 0.0 for ks in uniform(seed, 60)])
    assert not holds([ks.low == 0.0 for ks in uniform(seed, None)])
    assert not holds([ks.low == 0.0 for ks in uniform(seed, 60, shift=1.0)])
    # true distance of N(0, 1) from N(−1, 1): 2Φ(½) − 1
    assert holds([ks.contains(0.38292) for ks in uniform(seed, 60, shift=1.0)])
