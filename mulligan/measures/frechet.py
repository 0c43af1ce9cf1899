"""Fréchet distance between two samples on given features: how far the Gaussians with their moments lie apart.

Definition (Dowson and Landau 1982; used on features of an image classifier by Heusel et al. 2017). For means μ, ν and
covariances Σ, Γ of the features,

    F = ‖μ − ν‖² + tr(Σ + Γ − 2 (Σ^½ Γ Σ^½)^½),

the squared Wasserstein distance of order 2 between N(μ, Σ) and N(ν, Γ). It sees two moments of the features and nothing
else. The number belongs to the features: it is no "FID" unless they are Inception's, and must be named after them.

The value from n rows is too large by about c/n (Chong and Forsyth 2020); here c/n is measured by halving both samples and
taken off. √F is a distance of laws, so |√F̂ − √F| is at most the sum of the distances of either sample from its law, whose
95 % quantile a bootstrap gives: the interval holds F also where the laws are equal.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from mulligan.quantity import LEVEL, Quantity, none

HALVINGS = 8
RESAMPLINGS = 79


class Moments(NamedTuple):
    """Mean (q,) and covariance (q, q)."""

    mean: np.ndarray
    covariance: np.ndarray


def moments(features: np.ndarray) -> Moments:
    """Mean and covariance (with n − 1) of features (n, q)."""
    return Moments(features.mean(axis=0), np.atleast_2d(np.cov(features, rowvar=False)))


def frechet(one: Moments, other: Moments) -> float:
    """F of two pairs of moments.

    >>> unit = Moments(np.zeros(1), np.eye(1))
    >>> frechet(unit, Moments(np.full(1, 3.0), 4 * np.eye(1)))  # 3² + (1 − 2)²
    10.0
    """
    root = _root(one.covariance)
    shared = np.sqrt(np.maximum(np.linalg.eigvalsh(root @ other.covariance @ root), 0)).sum()
    apart = one.mean - other.mean
    found = apart @ apart + np.trace(one.covariance) + np.trace(other.covariance) - 2 * shared
    return max(0.0, float(found))


def frechet_distance(real: np.ndarray, generated: np.ndarray, seed: int, features: str) -> Quantity:
    """F between real (n, q) and generated (m, q) features, kind ``estimate``; ``features`` names them in the note.

    ``none`` with fewer than 2q + 2 rows of either (no covariance that could be trusted), or where one is not finite.

    >>> rng = np.random.default_rng(0)
    >>> found = frechet_distance(rng.normal(size=(400, 2)), rng.normal(size=(400, 2)), 0, "the coordinates")
    >>> found.contains(0.0)
    True
    """
    least, fewest = 2 * real.shape[1] + 2, min(len(real), len(generated))
    if fewest < least:
        return none(f"{fewest} rows are too few for a Fréchet distance on {real.shape[1]} features: {least} are needed")
    if not (np.isfinite(real).all() and np.isfinite(generated).all()):
        return none("some features are not finite")
    rng = np.random.default_rng([seed, 233])
    sides = [np.asarray(real, np.float64), np.asarray(generated, np.float64)]
    whole = [moments(side) for side in sides]
    plain = frechet(*whole)
    halves = []
    for _ in range(HALVINGS):
        orders = [rng.permutation(len(side)) for side in sides]
        for part in (0, 1):
            halves.append(frechet(*(moments(side[order[part::2]]) for side, order in zip(sides, orders))))
    value = max(0.0, 2 * plain - float(np.mean(halves)))
    reaches = []
    for _ in range(RESAMPLINGS):
        drawn = [moments(side[rng.integers(len(side), size=len(side))]) for side in sides]
        reaches.append(sum(np.sqrt(frechet(again, first)) for again, first in zip(drawn, whole)))
    reach = float(np.sort(reaches)[int(np.ceil(LEVEL * (RESAMPLINGS + 1))) - 1])
    low, high = max(0.0, np.sqrt(plain) - reach) ** 2, (np.sqrt(plain) + reach) ** 2
    note = f"Fréchet distance on {features} ({real.shape[1]} features), without its bias of sample size"
    return Quantity(value, "estimate", float(low), float(high), None, len(real) + len(generated), "", note)


def _root(covariance: np.ndarray) -> np.ndarray:
    values, vectors = np.linalg.eigh(covariance)
    return np.asarray((vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T)
