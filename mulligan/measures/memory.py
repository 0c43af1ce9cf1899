"""Memorisation: do samples lie nearer to the rows that were trained on than to rows that were not?

Definition. Let N training rows and n test rows be pooled, and let T be the share of samples whose nearest pooled row is a
training row. A sampler that knows of the training rows no more than their law cannot tell them from the test rows: given
the pooled rows and the samples every labelling was as likely, E T = ρ = N/(N+n), however wrong its law is, and the rank
of T among relabellings is an exact p-value. (Comparing distances from samples and from test rows to the training rows, as
Meehan, Chaudhuri and Dasgupta 2020 do, also raises the alarm for a law that is too narrow.) Of a sampler that copies a
training row with probability π, E T = ρ + π(1 − ρ); so

    copied share = (T − ρ)/(1 − ρ):  0 for no memory, 1 where every sample is nearest to a training row.

Its variance has two parts: of the samples, T(1−T)/m, and of the rows, ρ(1−ρ) Σ_i (p_i − 1/(N+n))² for the samples that
are no copies, p_i being the share of samples nearest to row i, without the bias that m samples give its square. Student's
quantile at 1/Σ p_i² rows stands in Wilson's interval: where few rows attract most samples, they are what was drawn.

``nearness`` states the plain distances beside it: of samples, and of test rows, to the nearest training row. It does ask
what Meehan et al. ask: a law that is too narrow lies nearer, too, and the copied share says which of the two it is.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from scipy.special import stdtrit

from mulligan.measures.distances import delong
from mulligan.quantity import LEVEL, Quantity, none, wilson

LEAST_ROWS = 20
MOST_ROWS = 10_000  # training rows, and test rows
MOST_SAMPLES = 5000
MOST_PRODUCTS, MOST_PAIRS = 1e9, 2.5e7  # in a search through all pairs: a tenth of a second
MOST_TREE_DIM = 5  # beyond it a tree looks at too many rows
RELABELLINGS = 9999
CHUNK = 250
_Z975 = 1.959963984540054


class Memory(NamedTuple):
    """``copied`` is the share of samples beyond chance that lie nearest to a training row, ``p_value`` its chance."""

    copied: Quantity
    p_value: Quantity


def memory(train: np.ndarray, test: np.ndarray, generated: np.ndarray, seed: int) -> Memory:
    """The copied share of generated points (m, q), given training points (N, q) and test points (n, q).

    Equal rows on both sides and rows of one group must be left out by the caller (one row a cluster). At most 10 000 rows
    and 5 000 samples are used, fewer where there are many columns. Kind ``estimate``; ``none`` below 20 points of a kind, or
    where one is not finite.

    >>> rng = np.random.default_rng(0)
    >>> train, test = rng.normal(size=(300, 2)), rng.normal(size=(300, 2))
    >>> found = memory(train, test, train[:100] + 1e-3, seed=0)
    >>> found.copied.value, found.p_value.value
    (1.0, 0.0001)
    """
    fewest = min(len(train), len(test), len(generated))
    if fewest < LEAST_ROWS:
        return _refused(f"{fewest} rows are too few to see memorisation")
    if not all(np.isfinite(part).all() for part in (train, test, generated)):
        return _refused("some samples are not finite")
    rng = np.random.default_rng([seed, 229])
    train, test = (part[rng.permutation(len(part))[:MOST_ROWS]] for part in (train, test))
    rows = len(train) + len(test)
    # In random order, so that a sample at equal distance from two rows does not prefer a label.
    order = rng.permutation(rows)
    pooled, trained = np.concatenate([train, test])[order], order < len(train)
    generated = generated[rng.permutation(len(generated))[: _samples(*pooled.shape)]]
    near = nearest(pooled, generated)
    share, chance, m = float(trained[near].mean()), len(train) / rows, len(generated)
    value = (share - chance) / (1 - chance)
    weights = np.bincount(near, minlength=rows).astype(float)
    uneven = max(0.0, float(weights @ (weights - 1)) / (m * (m - 1)) - 1 / rows)
    variance = share * (1 - share) / m + chance * (1 - chance) * min(1.0, 1 - value) ** 2 * uneven
    few = (stdtrit(max(2.0, 1 / (uneven + 1 / rows) - 1), 0.5 + LEVEL / 2) / _Z975) ** 2
    low, high = wilson(share, share * (1 - share) / variance / few if 0 < share < 1 else m)
    low, high = ((end - chance) / (1 - chance) for end in (low, high))
    note = f"{m:,} samples, {len(train):,} training and {len(test):,} test rows; 0 is chance"
    error = math.sqrt(variance) / (1 - chance)
    return Memory(Quantity(value, "estimate", low, high, error, m, "share", note), _p_value(trained, near, rng))


class Nearness(NamedTuple):
    """Median distances to the nearest training row, and how often a sample lies nearer than a test row."""

    nearest_sample: Quantity
    nearest_test: Quantity
    nearer: Quantity


def nearness(train: np.ndarray, test: np.ndarray, generated: np.ndarray, seed: int) -> Nearness:
    """Distances to the nearest training point (N, q): of generated points (m, q), and of test points (n, q).

    With D the distance of a sample and D' that of a test row, ``nearer`` is P(D < D') + P(D = D')/2: .5 for the law of the
    data, 1 for copies, 0 for samples that all lie farther off than any test row. Its error is DeLong's, over samples and
    test rows, given the training rows. The medians have the interval of their order statistics. Rows as for ``memory``.

    >>> rng = np.random.default_rng(0)
    >>> train, test = rng.normal(size=(300, 2)), rng.normal(size=(300, 2))
    >>> nearness(train, test, train[:100] + 1e-3, seed=0).nearer.value > 0.99
    True
    """
    fewest = min(len(train), len(test), len(generated))
    finite = all(np.isfinite(part).all() for part in (train, test, generated))
    if fewest < LEAST_ROWS or not finite:
        why = "some samples are not finite" if not finite else f"{fewest} rows are too few for distances"
        return Nearness(none(why, "spreads"), none(why, "spreads"), none(why, "share"))
    rng = np.random.default_rng([seed, 233])
    train, test = (part[rng.permutation(len(part))[:MOST_ROWS]] for part in (train, test))
    most = _samples(*train.shape)
    generated, test = (part[rng.permutation(len(part))[:most]] for part in (generated, test))
    near, far = (np.linalg.norm(part - train[nearest(train, part)], axis=1) for part in (generated, test))
    value, parts = delong(-near, -far)
    error = math.sqrt(sum(float(part @ part) for part in parts))
    m, n = len(near), len(far)
    # Under equal laws DeLong's variance is (m + n + 1)/12mn, that of a share among 3mn/(m + n + 1): no error is smaller.
    independent = 3 * m * n / (m + n + 1)
    effective = min(independent, value * (1 - value) / error**2) if error > 0 else independent
    note = f"{m:,} samples and {n:,} test rows against {len(train):,} training rows; .5: as near as test rows"
    share = Quantity(value, "estimate", *wilson(value, effective), error, m + n, "share", note)
    return Nearness(_median(near), _median(far), share)


def _median(distances: np.ndarray) -> Quantity:
    ordered, n = np.sort(distances), len(distances)
    reach = _Z975 * math.sqrt(n) / 2
    low, high = ordered[max(0, math.floor(n / 2 - reach))], ordered[min(n - 1, math.ceil(n / 2 + reach))]
    error = float(high - low) / (2 * _Z975)
    value = float(np.median(ordered))
    return Quantity(
        value, "estimate", float(low), float(high), error, n, "spreads", "median distance to a training row"
    )


def _samples(rows: int, dim: int) -> int:
    """How many samples are looked up among so many rows."""
    if dim <= MOST_TREE_DIM:
        return MOST_SAMPLES
    return max(LEAST_ROWS, min(MOST_SAMPLES, int(MOST_PAIRS / rows), int(MOST_PRODUCTS / (rows * dim))))


def nearest(rows: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Place of the nearest row (n, q) of each point (m, q), by Euclidean distance.

    >>> nearest(np.array([[0.0], [1.0], [5.0]]), np.array([[0.9]]))
    array([1])
    """
    if rows.shape[1] <= MOST_TREE_DIM:
        from scipy.spatial import cKDTree

        return np.asarray(cKDTree(rows).query(points)[1])
    centre = rows.mean(axis=0)
    rows, points = (rows - centre).astype(np.float32), (points - centre).astype(np.float32)
    half = np.einsum("nq,nq->n", rows, rows) / 2
    starts = range(0, len(points), CHUNK)
    return np.concatenate([(points[start : start + CHUNK] @ rows.T - half).argmax(axis=1) for start in starts])


def _p_value(trained: np.ndarray, near: np.ndarray, rng: np.random.Generator) -> Quantity:
    """Share of labellings with as many samples nearest to a training row: rows with equal counts are interchangeable."""
    counts = np.bincount(near, minlength=len(trained))
    reached = int(counts[trained].sum())
    values, rows = np.unique(counts, return_counts=True)
    drawn = rng.multivariate_hypergeometric(rows, int(trained.sum()), size=RELABELLINGS, method="marginals")
    as_large = 1 + int((drawn @ values >= reached).sum())
    share = as_large / (1 + RELABELLINGS)
    low, high = wilson(share, 1 + RELABELLINGS)
    note = f"{RELABELLINGS:,} relabellings; the interval is of their number"
    return Quantity(share, "estimate", low, high, None, RELABELLINGS, "p", note)


def _refused(why: str) -> Memory:
    return Memory(none(why, "share"), none(why, "p"))
