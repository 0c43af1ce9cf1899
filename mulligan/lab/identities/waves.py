"""Eight test functions h = sin(a·x + φ) of the plane, whose averages over mixtures and Gaussian noise are formulas.

They show by how much a step fails to carry one law to another: E h(x') against E h over the law that it should be.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from mulligan.targets.mixture import GaussianMixture


def waves(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Directions (8, 2) and phases (8,) of test functions h = sin(a·x + φ), whose average over any mixture is a formula.

    >>> waves(0)[0].shape
    (8, 2)
    """
    rng = np.random.default_rng([seed, 93])
    return rng.normal(size=(8, 2)), rng.uniform(0, 2 * np.pi, 8)


def wave_averages(seed: int, law: GaussianMixture, alpha: Any, sigma: Any) -> np.ndarray:
    """E h(α x_0 + σ e) of the eight waves for each of n pairs (α, σ), (n, 8): the truth.

    >>> from mulligan.lab.identities.halves import plane_laws
    >>> wave_averages(0, plane_laws(0)[0], np.ones(3), np.zeros(3)).shape
    (3, 8)
    """
    a, phase = waves(seed)
    weights, means = np.asarray(law.weights), np.asarray(law.means)
    spread = (np.einsum("kij,mi->kmj", np.asarray(law.choleskys), a) ** 2).sum(axis=-1)
    alpha, sigma = (np.asarray(v)[:, None, None] for v in (alpha, sigma))
    damped = np.exp(-0.5 * (alpha**2 * spread + sigma**2 * (a**2).sum(axis=-1)))
    return np.einsum("k,nkm->nm", weights, np.sin(alpha * (means @ a.T) + phase) * damped)


def averages_after(seed: int, centre: np.ndarray, spread: Any, p: np.ndarray) -> np.ndarray:
    """E h over x' = c(x) + B e, x ~ ``p`` (n,) at nodes: c (t, n, 2), B (t, n, 2, 2) or standard deviations (t,).

    >>> averages_after(0, np.zeros((1, 3, 2)), np.zeros(1), np.ones(3) / 3).shape
    (1, 8)
    """
    a, phase = waves(seed)
    spread = np.asarray(spread)
    if spread.ndim == 1:
        damped = np.exp(-0.5 * spread[:, None, None] ** 2 * (a**2).sum(axis=-1))
    else:
        damped = np.exp(-0.5 * (np.einsum("tnij,mi->tnmj", spread, a) ** 2).sum(axis=-1))
    return np.einsum("n,tnm->tm", p, np.sin(centre @ a.T + phase) * damped)


def size_of(errors: np.ndarray) -> np.ndarray:
    """The root mean square over the waves.

    >>> size_of(np.array([[3.0, -3.0]])).tolist()
    [3.0]
    """
    return np.sqrt(np.mean(errors**2, axis=1))
