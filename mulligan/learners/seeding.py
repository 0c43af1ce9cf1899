"""Where EM starts: k-means++ centres, a few of Lloyd's steps, and the moments of the clusters.

Arthur and Vassilvitskii 2007 (greedy variant: the best of several candidates at each draw), Lloyd 1982. NumPy: it runs
once a start, on at most ``MOST_ROWS`` rows drawn with the given generator (EM itself sees all rows).
"""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np

from mulligan.learners.expectation_maximisation import MixtureState

MOST_ROWS = 4000
LLOYD_STEPS = 10


def seeded_state(rows: np.ndarray, parts: int, padded: int, generator: np.random.Generator) -> MixtureState:
    """Weights, means and Cholesky factors of ``parts`` clusters, with empty parts up to ``padded``.

    A cluster's covariance is shrunk towards the data's by as many pseudo-rows as there are columns, so that small
    clusters start round. ``rows`` is (n, d); raises ValueError if there are fewer rows than parts.
    """
    if len(rows) < parts:
        raise ValueError(f"{parts} parts need at least as many rows; there are {len(rows)}")
    if len(rows) > MOST_ROWS:
        rows = rows[generator.choice(len(rows), MOST_ROWS, replace=False)]
    rows = np.asarray(rows, np.float64)
    n, d = rows.shape
    centres = _plus_plus(rows, parts, generator)
    labels = np.zeros(n, int)
    for _ in range(LLOYD_STEPS):
        labels = _square_distances(rows, centres).argmin(1)
        counts = np.bincount(labels, minlength=parts)
        sums = np.zeros((parts, d))
        np.add.at(sums, labels, rows)
        centres = np.where(counts[:, None] > 0, sums / np.maximum(counts, 1)[:, None], centres)
    whole = np.cov(rows.T, bias=True).reshape(d, d) + 1e-6 * np.eye(d)
    weights, means = np.zeros(padded), np.zeros((padded, d))
    factors = np.broadcast_to(np.eye(d), (padded, d, d)).copy()
    volume = parts ** (-2 / d)  # k clusters that tile the data have this much smaller squared scale
    for k in range(parts):
        inside = rows[labels == k] - centres[k]
        covariance = (inside.T @ inside + d * volume * whole) / (len(inside) + d)
        weights[k] = (len(inside) + 1) / (n + parts)
        means[k] = centres[k]
        factors[k] = np.linalg.cholesky(covariance + 1e-8 * np.eye(d))
    return MixtureState(*(jnp.asarray(array, jnp.float32) for array in (weights, means, factors)))


def _plus_plus(rows: np.ndarray, parts: int, generator: np.random.Generator) -> np.ndarray:
    """Centres drawn with probability proportional to the squared distance from those already drawn."""
    tries = 2 + int(np.log(parts))
    centres = [rows[generator.integers(len(rows))]]
    nearest = _square_distances(rows, centres[0][None])[:, 0]
    for _ in range(1, parts):
        total = nearest.sum()
        chance = nearest / total if total > 0 else np.full(len(rows), 1 / len(rows))
        candidates = generator.choice(len(rows), tries, p=chance)
        distances = np.minimum(nearest[:, None], _square_distances(rows, rows[candidates]))
        best = int(distances.sum(0).argmin())
        centres.append(rows[candidates[best]])
        nearest = distances[:, best]
    return np.array(centres)


def _square_distances(rows: np.ndarray, centres: np.ndarray) -> np.ndarray:
    square = (rows**2).sum(1)[:, None] - 2 * rows @ centres.T + (centres**2).sum(1)
    return np.maximum(square, 0.0)
