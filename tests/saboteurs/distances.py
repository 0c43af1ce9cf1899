"""Broken twins of the distances between samples: their p-values, values or intervals must be seen to be wrong."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest
from scipy.spatial import cKDTree
from scipy.special import ndtr

from mulligan.measures import discrepancy, frechet, manifold


@contextlib.contextmanager
def patched(owner, name, value):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(owner, name, value)
        yield


def relabelled_with_replacement():
    """Weights drawn with replacement in place of a permutation: the number of either label varies."""
    original = discrepancy._weights

    def weights(n, m, paired, rng):
        right = original(n, m, paired, rng)
        return right._replace(relabelled=right.sample[rng.integers(n + m, size=right.relabelled.shape), 0])

    return patched(discrepancy, "_weights", weights)


def pairs_ignored():
    """Labels of pairs exchanged as if the points were independent."""
    original = discrepancy._weights
    return patched(discrepancy, "_weights", lambda n, m, paired, rng: original(n, m, False, rng))


def half_the_noise():
    """An interval of half its width."""
    original = discrepancy._weights

    def weights(n, m, paired, rng):
        right = original(n, m, paired, rng)
        return right._replace(resampled=right.resampled / 2)

    return patched(discrepancy, "_weights", weights)


def itself_a_neighbour():
    """The distance of a centre to itself counted among its k nearest."""
    original = manifold._against
    return patched(manifold, "_against", lambda among, across, k: original(among, across, k - 1))


def bias_kept():
    """The Fréchet distance of the two samples themselves, as if their moments were those of the laws."""

    def distance(real, generated, seed, features):
        right = original(real, generated, seed, features)
        found = frechet.frechet(frechet.moments(real), frechet.moments(generated))
        return type(right)(found, right.kind, right.low, right.high, note=right.note)

    original = frechet.frechet_distance
    return patched(frechet, "frechet_distance", distance)


def rows_in_order():
    """Training rows first, so that a sample as near to a test row as to a training row counts as near to the latter."""

    class Ordered:
        def __init__(self, rng):
            self.multivariate_hypergeometric = rng.multivariate_hypergeometric

        def permutation(self, n):
            return np.arange(n)

    made = np.random.default_rng
    return patched(np.random, "default_rng", lambda seed=None: Ordered(made(seed)))


def nearness_to_training_rows(train, test, generated):
    """p-value of the rank-sum test of distances to the nearest training row, samples against test rows.

    It asks whether samples are nearer to training rows than test rows are, and a law that is too narrow is, too.
    """
    tree = cKDTree(train)
    near, far = np.sort(tree.query(generated)[0]), tree.query(test)[0]
    auc = 1 - np.searchsorted(near, far).mean() / len(near)  # P(sample is farther than test row)
    spread = np.sqrt((len(near) + len(far) + 1) / (12 * len(near) * len(far)))
    return float(ndtr((auc - 0.5) / spread))
