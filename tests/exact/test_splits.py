"""Rows that belong together stay together; parts have their sizes; the digest names the split."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mulligan.data.builtin import read_table
from mulligan.data.frames import from_object
from mulligan.data.inspection import inspect
from mulligan.data.reading import read_file
from mulligan.data.splits import Split, make_split, row_clusters, split_with_test, ties_by_chance
from mulligan.data.table import ReadOptions, Table
from mulligan.errors import DataError

SEEDS = range(8)
SHARED = Path(__file__).parents[3] / "shared" / "data"  # real files beside the repository, not part of it


def smooth(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, 2))


def table(array, groups=None, **options) -> Table:
    return replace(inspect(from_object(array), ReadOptions(**options)), groups=groups)


def with_duplicates(seed: int) -> Table:
    rng = np.random.default_rng(seed)
    rows = smooth(300, seed)
    return table(rows[rng.integers(0, 300, 500)], continuous=["all"])


def grouped(seed: int) -> Table:
    return replace(with_duplicates(seed), groups=np.random.default_rng(seed).integers(0, 300, 500))


def parts_of(split: Split, n: int) -> np.ndarray:
    part = np.full(n, -1)
    for number, rows in enumerate((split.train, split.select, split.test)):
        part[rows] = number
    return part


def straddling(table: Table, split: Split) -> int:
    """Pairs of rows that are equal or of one group, and in different parts (by brute force)."""
    part, equal = parts_of(split, len(table)), (table.values[:, None] == table.values[None]).all(-1)
    if table.groups is not None:
        equal |= table.groups[:, None] == table.groups[None]
    return int((equal & (part[:, None] != part[None])).sum())


def careless_split(table: Table, seed: int) -> Split:
    """The sabotaged twin: each row drawn by itself."""
    order = np.random.default_rng(seed).permutation(len(table))
    a, b = int(0.7 * len(table)), int(0.85 * len(table))
    return Split(np.sort(order[:a]), np.sort(order[a:b]), np.sort(order[b:]), seed, "")


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("make", [with_duplicates, grouped])
def test_no_cluster_straddles(make, seed):
    rows = make(seed)
    assert straddling(rows, make_split(rows, seed)) == 0
    assert straddling(rows, careless_split(rows, seed)) > 0


@pytest.mark.parametrize("seed", SEEDS)
def test_every_row_is_in_one_part(seed):
    rows = with_duplicates(seed)
    split = make_split(rows, seed)
    assert np.array_equal(np.sort(np.r_[split.train, split.select, split.test]), np.arange(len(rows)))
    assert all((np.diff(part) > 0).all() for part in (split.train, split.select, split.test))


def test_clusters_are_connected_components():
    """Rows 0-1 are equal, 1-2 of one group, 2-3 equal, 3-4 of one group; 5 is alone."""
    values = np.array([1.5, 1.5, 2.25, 2.25, 7.125, 9.3])
    rows = table(values, np.array([0, 1, 1, 2, 2, 3]), continuous=["all"])
    assert row_clusters(rows).tolist() == [0, 0, 0, 0, 0, 1]
    assert row_clusters(replace(rows, groups=None)).tolist() == [0, 0, 1, 1, 2, 3]


def test_long_chains_are_one_cluster():
    values = np.repeat(np.arange(40) + 0.123456789, 2)
    chain = table(values, np.r_[0, np.repeat(np.arange(1, 40), 2), 40], continuous=["all"])
    assert set(row_clusters(chain)) == {0}


def test_sizes_of_rows_without_ties():
    split = make_split(table(smooth(1000)), 0)
    assert (len(split.train), len(split.select), len(split.test)) == (700, 150, 150)


@pytest.mark.parametrize("seed", SEEDS)
def test_sizes_with_one_large_cluster(seed):
    """40 % of the rows are one group, 10 % another, the rest pairs."""
    groups = np.r_[np.zeros(400, int), np.ones(100, int), 2 + np.arange(500) // 2]
    split = make_split(table(smooth(1000), groups), seed)
    assert abs(len(split.train) - 700) <= 4 and abs(len(split.select) - 150) <= 4
    assert {0, 1} <= set(groups[split.train])


@pytest.mark.parametrize("seed", SEEDS)
def test_sizes_with_middling_clusters(seed):
    """Clusters of 4 % each: no part is off by more than one of them."""
    groups = np.arange(1000) // 40
    split = make_split(table(smooth(1000), groups), seed)
    assert max(abs(len(split.train) - 700), abs(len(split.select) - 150), abs(len(split.test) - 150)) <= 40


def test_membership_is_random():
    """Over 400 seeds row 0 is in train 70 % of the time: within 4.75 standard errors (two-sided 2e-6)."""
    rows = table(smooth(40))
    share = np.mean([0 in make_split(rows, seed).train for seed in range(400)])
    assert abs(share - 0.7) < 4.75 * np.sqrt(0.7 * 0.3 / 400)


def test_deterministic_and_digest_names_the_split():
    rows = with_duplicates(0)
    first, again, other = make_split(rows, 1), make_split(rows, 1), make_split(rows, 2)
    np.testing.assert_array_equal(first.test, again.test)
    assert first.digest == again.digest != other.digest and len(first.digest) == 64
    # a split that a report names by seed must be the same in every version
    assert make_split(table(smooth(20)), 0).train.tolist() == [0, 2, 3, 4, 5, 6, 7, 8, 10, 11, 12, 13, 16, 19]


def test_chance_ties_are_not_duplicates():
    coins = table(np.random.default_rng(0).integers(0, 2, (500, 3)))
    assert ties_by_chance(coins) and len(set(row_clusters(coins))) == 500
    assert "expected by chance" in make_split(coins, 0).notes[0]
    wide = np.random.default_rng(0).integers(0, 50, (300, 12))
    copied = table(np.r_[wide, wide])
    assert not ties_by_chance(copied) and len(set(row_clusters(copied))) == 300
    assert make_split(copied, 0).notes == ("duplicates grouped",)


def test_groups_hold_even_where_ties_are_chance():
    groups = np.arange(500) // 2
    coins = table(np.random.default_rng(0).integers(0, 2, (500, 3)), groups)
    assert np.unique(row_clusters(coins)).size == 250
    assert "250 groups kept together" in make_split(coins, 0).notes


def test_draws_of_a_law_are_not_grouped():
    law = replace(with_duplicates(0), treated_as_iid=True)
    assert len(set(row_clusters(law))) == len(law)
    assert make_split(law, 0).notes == ("equal rows are independent draws of a law: not grouped",)


@pytest.mark.skipif(not SHARED.is_dir(), reason="no folder shared/data beside the repository")
def test_wine_duplicates_are_grouped():
    wine = inspect(read_file(SHARED / "wine_red_centred.csv"))
    split = make_split(wine, 0)
    assert len(set(row_clusters(wine))) == 1599 - 240 and split.notes == ("duplicates grouped",)
    assert abs(len(split.test) - 240) <= 4


def test_the_users_own_split():
    parts = np.array(["train"] * 60 + ["select"] * 20 + ["test"] * 20)
    brought = replace(table(smooth(100)), parts=parts)
    split = make_split(brought, 0)
    assert split.test.tolist() == list(range(80, 100)) and split.notes == ("split as the table's own column says",)
    twice = replace(table(np.tile(smooth(50), (2, 1)), continuous=["all"]), parts=parts)
    assert make_split(twice, 0).notes[1].startswith("40 sets of equal or grouped rows are in more than one part")
    with pytest.raises(DataError, match="the split column has no row 'test'"):
        make_split(replace(brought, parts=np.where(parts == "test", "train", parts)), 0)


def test_the_users_own_test_file():
    split = split_with_test(table(smooth(1000)), 77, 0)
    assert (len(split.train), len(split.select)) == (850, 150) and split.test.tolist() == list(range(77))
    with pytest.raises(DataError, match="no row is left for 'test'"):
        split_with_test(table(smooth(1000)), 0, 0)


def test_too_few_rows():
    with pytest.raises(DataError, match=r"no row is left for '\w+' \(3 rows\)"):
        make_split(table(smooth(3)), 0)
    with pytest.raises(DataError, match=r"100 rows, which form 2 clusters"):
        make_split(table(smooth(100), np.arange(100) // 50), 0)


def test_named_tables_split():
    for name in ("penguins", "iris", "digits"):
        rows = read_table(name)
        split = make_split(rows, 0)
        assert abs(len(split.train) / len(rows) - 0.7) < 0.01
