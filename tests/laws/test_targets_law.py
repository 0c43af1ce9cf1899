"""Draws of the laws known exactly follow their log_prob: 25 000 independent draws, level 2e-6 a comparison (|z| >
4.75).

Cell counts against exact cell masses by chi-square (quadrature of exp log_prob, cells of expected count below 50
merged), and the mean of −log p against the entropy by a z-test. Every broken twin in tests/saboteurs/laws.py must be
rejected by one of them.
"""

from __future__ import annotations

from functools import lru_cache

import equinox as eqx
import jax
import numpy as np
import pytest
from saboteurs.laws import twins
from scipy.special import chdtrc, ndtri
from scipy.stats import kstest

from mulligan.core import Sampler
from mulligan.targets.counting import Histogram
from mulligan.targets.discrete import Enumerated, states
from mulligan.targets.gaussian import Gaussian
from mulligan.targets.known import gauss_legendre, log_prob_float64
from mulligan.targets.mixture import GaussianMixture
from mulligan.targets.named import law, law_names

N, Z, ALPHA = 25_000, 4.75, 2e-6
KS = 2.63 / np.sqrt(N)

# (low, high, cells, nodes a cell) for each axis of the coordinates of ``straight``.
CELLS = {
    "eight-gaussians": [(-3, 3, 30, 8)] * 2,
    "grid-gaussians": [(-4.2, 4.2, 84, 8)] * 2,
    "moons": [(-1.4, 2.4, 38, 6), (-1, 1.5, 25, 6)],
    "circles": [(-4, 4, 32, 8)] * 2,
    "rings": [(-3.4, 3.4, 40, 8)] * 2,
    "checkerboard": [(-4, 4, 16, 1)] * 2,
    "spirals": [(-3.6, 3.6, 36, 6)] * 2,
    "pinwheel": [(-4, 4, 32, 8)] * 2,
    "banana": [(-6, 6, 24, 6), (-1.5, 1.5, 12, 6)],
    "funnel": [(-9, 9, 24, 6), (-3, 3, 12, 6)],
    "double-well": [(-4, 4, 32, 6), (-3, 3, 12, 6)],
    "rosenbrock": [(-8.5, 10.5, 24, 6), (-0.95, 0.95, 12, 6)],
    "mixture": [(-4, 4, 24, 8)] * 2,
}


def straight(name, x):
    """Coordinates in which the law fits a grid, and log |dx/dy|."""
    if name == "funnel":
        return np.stack([x[:, 0], x[:, 1] * np.exp(-x[:, 0] / 2)], -1)
    if name == "banana":
        return np.stack([x[:, 0], x[:, 1] - 0.25 * (x[:, 0] ** 2 - 4)], -1)
    if name == "rosenbrock":
        return np.stack([x[:, 0], x[:, 1] - x[:, 0] ** 2], -1)
    return x


def bent(name, y):
    """The inverse of ``straight`` and its log Jacobian."""
    if name == "funnel":
        return np.stack([y[:, 0], y[:, 1] * np.exp(y[:, 0] / 2)], -1), y[:, 0] / 2
    if name == "banana":
        return np.stack([y[:, 0], y[:, 1] + 0.25 * (y[:, 0] ** 2 - 4)], -1), 0
    if name == "rosenbrock":
        return np.stack([y[:, 0], y[:, 1] + y[:, 0] ** 2], -1), 0
    return y, 0


def a_mixture():
    return GaussianMixture.from_covariances(
        [0.2, 0.8, 0.0], [[-1.0, 1.0], [1.0, 0.0], [0.0, 0.0]], [[[0.5, 0.3], [0.3, 0.5]], np.eye(2), np.eye(2)]
    )


@lru_cache(maxsize=32)
def cell_masses(name):
    """The edges of the grid, and the law's mass in each cell, by quadrature of its density."""
    model = a_mixture() if name == "mixture" else law(name)
    axes, edges = [], []
    for low, high, cells, nodes in CELLS[name]:
        edge = np.linspace(low, high, cells + 1)
        unit, weight = gauss_legendre(nodes, 0.0, 1.0)
        axes.append(((edge[:-1, None] + np.diff(edge)[:, None] * unit).reshape(-1), weight * (edge[1] - edge[0])))
        edges.append(edge)
    y = np.stack(np.meshgrid(*(a for a, _ in axes), indexing="ij"), -1).reshape(-1, 2)
    x, log_jacobian = bent(name, y)
    p = np.exp(log_prob_float64(model, x) + log_jacobian)
    (_, _, rows, m), (_, _, columns, n) = CELLS[name]
    return edges, np.einsum("imjn,m,n->ij", p.reshape(rows, m, columns, n), axes[0][1], axes[1][1])


def chi_square(observed, probability):
    """p-value of the counts, with all cells of expected count below 50 (and what lies outside) in one."""
    observed, expected = np.asarray(observed, float).reshape(-1), N * np.asarray(probability).reshape(-1)
    large = expected >= 50
    observed, expected = observed[large], expected[large]
    rest = N - expected.sum()
    statistic = ((observed - expected) ** 2 / expected).sum()
    if rest >= 50:
        statistic += (N - observed.sum() - rest) ** 2 / rest
    freedom = large.sum() - (rest < 50)
    return chdtrc(freedom, statistic), f"chi-square {statistic:.1f} on {freedom} degrees of freedom"


def checks(name, x):
    """(p-value, sentence) of every comparison of draws x (n, d) with the law of that name."""
    if name != "mixture" and isinstance(law(name), Enumerated):
        model = law(name)
        every = states(0, model.levels**model.dim, model.levels, model.dim)
        code = (x @ model.levels ** np.arange(model.dim - 1, -1, -1)).astype(int)
        found = chi_square(
            np.bincount(code, minlength=len(every)), np.exp(log_prob_float64(model, every.astype(float)))
        )
    else:
        model, (edges, mass) = (a_mixture() if name == "mixture" else law(name)), cell_masses(name)
        found = chi_square(np.histogram2d(*straight(name, x).T, bins=edges)[0], mass)
    if name in ("checkerboard", "mixture"):
        return [found]
    surprise = -log_prob_float64(model, x)
    entropy = model.entropy().value
    z = (surprise.mean() - entropy) / max(surprise.std() / np.sqrt(N), 1e-12)
    return [
        found,
        (0.0 if abs(z) > Z else 1.0, f"mean of -log p is {surprise.mean():.4f}, entropy {entropy:.4f}: z {z:.2f}"),
    ]


@eqx.filter_jit
def draws(model, key):
    return jax.vmap(model.sample)(jax.random.split(key, N))


def drawn(sampler, key, seed):
    if isinstance(sampler, Sampler):
        return np.asarray(draws(sampler, key), float)
    return sampler(np.random.default_rng(seed), N)


@pytest.mark.parametrize("name", [*law_names(), "mixture"])
def test_draws_follow_log_prob(name, key, seed, request):
    model = a_mixture() if name == "mixture" else law(name)
    for p, sentence in checks(name, drawn(model, key, seed)):
        assert p > ALPHA, f"{sentence}; p {p:.1e}, alpha {ALPHA}, n {N}, seed {seed}; pytest '{request.node.nodeid}'"


@pytest.mark.parametrize("number", range(21))
def test_broken_twin_is_rejected(number, key, seed):
    listed = twins()
    assert len(listed) == 21
    name, wrong, sampler = listed[number]
    found = checks(name, drawn(sampler, key, seed))
    assert min(p for p, _ in found) < ALPHA, f"{name}, {wrong}: not seen by {[s for _, s in found]}"


def test_every_law_has_a_twin():
    assert {name for name, _, _ in twins()} == set(law_names())


def test_gaussian_draws(key):
    model = Gaussian.from_covariance([1.0, -1.0], [[2.0, 0.9], [0.9, 0.6]])
    x = np.asarray(draws(model, key), float)
    z = np.linalg.solve(np.asarray(model.cholesky, float), (x - np.asarray(model.mean, float)).T)
    for column in (z[0], z[1], (z[0] + z[1]) / np.sqrt(2), (z[0] - z[1]) / np.sqrt(2)):
        assert kstest(column, "norm").statistic < KS
    swapped = np.linalg.solve(np.asarray(model.cholesky, float).T, (x - np.asarray(model.mean, float)).T)
    assert kstest(swapped[1], "norm").statistic > KS


@pytest.mark.parametrize("tails", [False, True])
def test_histogram_draws(key, tails):
    rng = np.random.default_rng(0)
    rows = rng.beta(2, 3, size=(300, 2)) + (rng.normal(size=(300, 2)) if tails else 0)
    edges = np.array([0.0, 0.2, 0.35, 0.7, 1.0])
    model = Histogram.from_rows(rows, [edges, edges], 0.5, tails)
    x = np.asarray(draws(model, key), float)
    wide = np.concatenate([[-np.inf], edges, [np.inf]]) if tails else edges
    counts = np.histogram2d(*x.T, bins=[wide, wide])[0]
    p, sentence = chi_square(counts, np.asarray(model.joint, float))
    assert p > ALPHA, sentence
    assert chi_square(counts.T, np.asarray(model.joint, float))[0] < ALPHA  # the axes swapped: seen
    if tails:
        beyond = x[x[:, 0] > 1, 0] - 1
        assert kstest(beyond, "expon", args=(0, 0.3)).statistic < 2.63 / np.sqrt(beyond.size)
        assert kstest(beyond, "expon", args=(0, 0.35)).statistic > 2.63 / np.sqrt(beyond.size)


def test_the_threshold_is_what_it_says():
    assert ndtri(1 - ALPHA / 2) == pytest.approx(Z, abs=0.01)
