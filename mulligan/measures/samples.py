"""What a set of samples is worth beside data, all numbers at once: the part of a report's row that needs no density."""

from __future__ import annotations

from typing import Any

import numpy as np

from mulligan.data.table import Schema
from mulligan.measures.discrepancy import mmd, sliced_wasserstein
from mulligan.measures.manifold import manifold
from mulligan.measures.memory import memory, nearness
from mulligan.measures.space import space_of
from mulligan.quantity import Quantity


def sample_quality(
    train: np.ndarray,
    test: np.ndarray,
    generated: np.ndarray,
    schema: Schema,
    seed: int,
    *,
    paired: bool = False,
    one_unit: bool = False,
) -> dict[str, Quantity]:
    """Distances between generated and test rows, and memorisation of the train rows; values (rows, columns) each.

    Rows must be one a cluster (see ``one_of_each``). As many generated rows as test rows are compared; memorisation takes
    all. ``paired`` says that generated row i was drawn given the columns of test row i: memorisation is then not asked, for
    such rows lie near their test rows by construction. Keys: ``mmd``, ``mmd_p``, ``sliced_wasserstein``, ``precision``,
    ``recall``, ``density``, ``coverage``, and ``copied``, ``copied_p``, ``nearest_sample``, ``nearest_test``,
    ``nearer`` (see ``memory.nearness``) where they are asked.

    >>> from mulligan.data.table import Column
    >>> rng = np.random.default_rng(0)
    >>> rows = rng.normal(size=(400, 1))
    >>> found = sample_quality(rows[:300], rows[300:], rng.normal(size=(400, 1)), Schema((Column("x", "continuous"),)), 0)
    >>> sorted(found)[:4]
    ['copied', 'copied_p', 'coverage', 'density']
    """
    space = space_of(schema, train, one_unit)
    real, drawn = space(test), space(generated)
    as_many = drawn[: len(real)]
    discrepancy = mmd(real, as_many, seed, length=space.length, paired=paired)
    found = {
        "mmd": discrepancy.value,
        "mmd_p": discrepancy.p_value,
        "sliced_wasserstein": sliced_wasserstein(real, as_many, seed, paired=paired).value,
        **manifold(real, as_many, seed)._asdict(),
    }
    if not paired:
        # The labels of train and test rows are what is permuted here, so the space must not know them.
        both = space_of(schema, np.concatenate([train, test]), one_unit)
        asked = memory(both(train), both(test), both(generated), seed)
        found |= {"copied": asked.copied, "copied_p": asked.p_value}
        found |= nearness(space(train), real, drawn, seed)._asdict()
    return found


def one_of_each(clusters: np.ndarray, seed: int) -> np.ndarray:
    """Places of one row, at random, of each cluster: rows that are independent draws.

    >>> len(one_of_each(np.array([4, 4, 7, 4]), seed=0))
    2
    """
    order = np.random.default_rng([seed, 239]).permutation(len(clusters))
    first = np.unique(np.asarray(clusters)[order], return_index=True)[1]
    return np.sort(order[first])


def as_json(found: dict[str, Quantity]) -> dict[str, Any]:
    """The numbers as plain dictionaries."""
    return {name: quantity.to_json() for name, quantity in found.items()}
