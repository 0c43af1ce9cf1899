"""Train, select and test: rows that belong together never end up on two sides.

Train fits, select chooses, test is read once. Equal rows and rows of one group form clusters (connected components),
and clusters are what is drawn: a test row whose twin was trained on measures memory. Where equal rows are expected by
chance (a table of few categories, draws from a law) each row is its own cluster, and the notes say so.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mulligan.data.table import Table
from mulligan.data.treatment import PARTS
from mulligan.errors import DataError

FRACTIONS = (0.7, 0.15, 0.15)
BIG_CLUSTER = 0.05
WIDE = 256  # columns
CHANCE_SHARE = 0.01


@dataclass(frozen=True, eq=False)
class Split:
    """Three sorted index arrays (int64) into the rows, the seed that drew them, and a SHA-256 over all of it.

    ``test`` indexes the user's own test table where the split was made by ``split_with_test``.
    """

    train: np.ndarray
    select: np.ndarray
    test: np.ndarray
    seed: int
    digest: str
    notes: tuple[str, ...] = ()


def row_clusters(table: Table) -> np.ndarray:
    """Cluster number of every row, int64 of shape (rows,): equal rows and rows of one group share it.

    Use it for cluster-robust errors, too. Where equal rows are chance (see ``ties_by_chance``), only groups join rows.
    """
    n = len(table)
    classes = []
    if table.groups is not None:
        classes.append(np.unique(table.groups, return_inverse=True)[1])
    if not ties_by_chance(table):
        classes.append(row_numbers(table.values))
    if not classes:
        return np.arange(n)
    label = np.arange(n)
    while True:  # each row takes the least label of its class, until nothing moves: connected components
        before = label
        for members in classes:
            least = np.full(members.max() + 1, n)
            np.minimum.at(least, members, label)
            label = least[members]
        if np.array_equal(label, before):
            return np.unique(label, return_inverse=True)[1].astype(np.int64)


def row_numbers(values: np.ndarray) -> np.ndarray:
    """A number for each distinct row, int64 (n,), from 0: equal rows have the same one.

    Wide rows (pictures) are told apart by a 128-bit hash, for sorting them whole takes minutes.

    >>> row_numbers(np.array([[1.0, 2.0], [0.0, 0.0], [1.0, 2.0]]))
    array([1, 0, 1])
    """
    values = np.where(np.isnan(values), np.inf, values)  # no table holds an infinity; NaN would differ from itself
    if values.shape[1] < WIDE:
        return np.unique(values + 0.0, axis=0, return_inverse=True)[1].reshape(len(values)).astype(np.int64)
    digests = [hashlib.blake2b((row + 0).tobytes(), digest_size=16).digest() for row in values]
    return np.unique(np.array(digests, "V16"), return_inverse=True)[1].reshape(len(values)).astype(np.int64)


def ties_by_chance(table: Table) -> bool:
    """Whether equal rows are expected by chance, and so are no duplicates.

    True for draws from a law; and for an all-discrete table in which independent columns with the same marginals would
    make at least 1 % of the tied pairs observed: n(n−1)/2 · Π_j Σ_v c_jv (c_jv − 1) / (n(n−1)), c_jv being counts.
    """
    if table.treated_as_iid:
        return True
    n = len(table)
    if not all(column.discrete for column in table.schema.modelled):
        return False
    rows = np.bincount(row_numbers(table.values))
    observed = float((rows * (rows - 1) / 2).sum())
    expected = n * (n - 1) / 2
    for cells in table.values.T:
        if expected < CHANCE_SHARE * observed or not observed:
            return False  # each column can only make it less
        counts = np.unique(cells, return_counts=True)[1]
        expected *= float((counts * (counts - 1)).sum()) / (n * (n - 1))
    return observed > 0 and expected >= CHANCE_SHARE * observed


def make_split(table: Table, seed: int, fractions: Sequence[float] = FRACTIONS) -> Split:
    """Rows drawn into train, select and test in these fractions, whole clusters at a time.

    A split that the user brought (``table.parts``) is taken as it is. Raises DataError if a part would be empty.

    >>> from mulligan.data.frames import from_object
    >>> from mulligan.data.inspection import inspect
    >>> split = make_split(inspect(from_object(np.random.default_rng(0).normal(size=(100, 2)))), seed=0)
    >>> len(split.train), len(split.select), len(split.test)
    (70, 15, 15)
    """
    if table.parts is not None:
        return _brought(table, table.parts, seed)
    clusters, notes = row_clusters(table), _said(table)
    parts = _assign(clusters, fractions, seed)
    for part, rows in zip(PARTS, parts):
        if not len(rows):
            many = len(np.unique(clusters))
            made = "" if many == len(table) else f", which form {many:,} clusters"
            raise DataError(
                f"no row is left for {part!r} ({len(table):,} rows{made})", do="bring more rows, or --test FILE"
            )
    return _split(parts, seed, notes)


def split_with_test(table: Table, test_rows: int, seed: int) -> Split:
    """Train and select, 85/15, from ``table``; all ``test_rows`` rows of the test table that the user brought.

    Raises DataError if a part would be empty. Rows that are in both tables are the user's to know: the note says so.
    """
    clusters = row_clusters(table)
    train, select, _ = _assign(clusters, (0.85, 0.15, 0.0), seed)
    test = np.arange(test_rows)
    for part, rows in zip(PARTS, (train, select, test)):
        if not len(rows):
            raise DataError(
                f"no row is left for {part!r}", f"{len(table):,} rows, {test_rows:,} test rows", do="bring more"
            )
    note = "test rows are the file's own: rows equal to training rows are not looked for"
    return _split((train, select, test), seed, (*_said(table), note))


def _said(table: Table) -> tuple[str, ...]:
    notes = []
    if row_numbers(table.values).max(initial=-1) + 1 < len(table):
        if table.treated_as_iid:
            notes.append("equal rows are independent draws of a law: not grouped")
        elif ties_by_chance(table):
            notes.append("equal rows are expected by chance among so few values: not grouped")
        else:
            notes.append("duplicates grouped")
    if table.groups is not None:
        notes.append(f"{len(np.unique(table.groups)):,} groups kept together")
    return tuple(notes)


def _brought(table: Table, brought: np.ndarray, seed: int) -> Split:
    parts = tuple(np.flatnonzero(brought == part) for part in PARTS)
    for part, rows in zip(PARTS, parts):
        if not len(rows):
            raise DataError(
                f"the split column has no row {part!r}", do=f"mark some rows {part!r}, or leave --split out"
            )
    notes = ["split as the table's own column says"]
    clusters, side = row_clusters(table), np.unique(brought, return_inverse=True)[1]
    low, high = np.full(clusters.max() + 1, 3), np.full(clusters.max() + 1, -1)
    np.minimum.at(low, clusters, side)
    np.maximum.at(high, clusters, side)
    straddling = int((low < high).sum())
    if straddling:
        notes.append(
            f"{straddling:,} sets of equal or grouped rows are in more than one part: test numbers may flatter"
        )
    return _split(parts, seed, tuple(notes))


def _assign(clusters: np.ndarray, fractions: Sequence[float], seed: int) -> tuple[np.ndarray, ...]:
    """Clusters in random order, cut where parts are full; those of more than 5 % of the rows go first, one by one."""
    n = len(clusters)
    sizes = np.bincount(clusters)
    wanted = np.asarray(fractions, np.float64) / sum(fractions) * n
    order = np.random.Generator(np.random.PCG64(seed)).permutation(len(sizes))
    part_of = np.empty(len(sizes), np.int64)
    is_big = sizes[order] > max(BIG_CLUSTER * n, 1)
    for cluster in sorted(order[is_big].tolist(), key=lambda c: -sizes[c]):
        part_of[cluster] = np.argmax(wanted)
        wanted[part_of[cluster]] -= sizes[cluster]
    small = order[~is_big]
    if len(small):
        room = np.maximum(wanted, 0)
        room *= sizes[small].sum() / room.sum()
        centres = np.cumsum(sizes[small]) - sizes[small] / 2
        part_of[small] = np.searchsorted(np.cumsum(room)[:-1], centres, side="left")
    rows = part_of[clusters]
    return tuple(np.flatnonzero(rows == part) for part in range(len(fractions)))


def _split(parts: Sequence[np.ndarray], seed: int, notes: tuple[str, ...]) -> Split:
    train, select, test = (np.asarray(part, np.int64) for part in parts)
    digest = hashlib.sha256(str(seed).encode())
    for part in (train, select, test):
        digest.update(f":{len(part)}:".encode())
        digest.update(part.astype("<i8").tobytes())
    return Split(train, select, test, seed, digest.hexdigest(), notes)
