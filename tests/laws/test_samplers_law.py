"""Continuous samplers keep the law that they claim: 25 000 independent chains started at exact draws, 10 steps,
tests of the ends at level 2e-6 a comparison (|z| > 4.75, KS > 2.63/√n), on a skewed law in
one dimension and a skewed correlated one in two.

A chain that never moves keeps every law, so each kernel also has a movement test: the correlation of start and end is
below a stated bound, and acceptance within a stated band. Every broken twin of tests/saboteurs/samplers.py is
rejected by one of them. Kernels that are not exact have their order tested in tests/exact/test_samplers.py.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from saboteurs.samplers import Tempered, twins
from scipy.special import gammainc, ndtri
from scipy.stats import kstest

from mulligan.loop import compile_small, repeat
from mulligan.samplers.hmc import HamiltonianMonteCarlo
from mulligan.samplers.langevin import MetropolisLangevin
from mulligan.samplers.many import Many, Thinned, law_of
from mulligan.samplers.metropolis import RandomWalk
from mulligan.samplers.nuts import NoUTurn

N, STEPS, Z = 25_000, 10, 4.75
KS = 2.63 / np.sqrt(N)
SHAPE, SLOPE, WIDTH = 2.0, 0.8, 0.5


def skewed(x):
    """x = log g, g ~ Gamma(2): skewed to the left."""
    return SHAPE * x[0] - jnp.exp(x[0])


def correlated(x):
    """x₀ as above, x₁ | x₀ ~ N(0.8 x₀, 0.5²)."""
    return SHAPE * x[0] - jnp.exp(x[0]) - 0.5 * ((x[1] - SLOPE * x[0]) / WIDTH) ** 2


def draws(dim, seed):
    rng = np.random.default_rng(seed)
    first = np.log(rng.gamma(SHAPE, size=N))
    both = np.stack([first, SLOPE * first + WIDTH * rng.normal(size=N)], -1)
    return both[:, :dim].astype(np.float32)


def normal_scores(x):
    """Independent N(0, 1) coordinates, if x follows the law."""
    x = np.clip(np.nan_to_num(np.asarray(x, float), nan=1e6), -1e6, [20.0, 1e6][: x.shape[1]])  # a twin may run away
    scores = [ndtri(np.clip(gammainc(SHAPE, np.exp(x[:, 0])), 1e-12, 1 - 1e-12))]
    if x.shape[1] == 2:
        scores.append((x[:, 1] - SLOPE * x[:, 0]) / WIDTH)
    return scores


def law_checks(x):
    """(how far beyond its threshold, sentence) of each comparison of the ends with the law."""
    scores = normal_scores(x)
    root = np.sqrt(N)
    found = []
    for i, s in enumerate(scores):
        found += [
            (abs(s.mean()) * root / Z, f"mean of coordinate {i}: z {s.mean() * root:.1f}"),
            (abs(s.var() - 1) * root / np.sqrt(2) / Z, f"variance of {i}: z {(s.var() - 1) * root / np.sqrt(2):.1f}"),
            (abs((s**3 - 3 * s).mean()) * root / np.sqrt(6) / Z, f"third Hermite moment of {i}"),
            (kstest(s, "norm").statistic / KS, f"KS of {i}: {kstest(s, 'norm').statistic:.4f}"),
        ]
    if len(scores) == 2:
        product = scores[0] * scores[1]
        mixed = (scores[0] + scores[1]) / np.sqrt(2)
        found.append((abs(product.mean()) * root / Z, f"correlation: z {product.mean() * root:.1f}"))
        found.append((kstest(mixed, "norm").statistic / KS, "KS of a projection"))
    return found


def movement_checks(start, end, acceptance, correlation=0.8, band=(0.2, 0.99)):
    """As ``law_checks``: correlation of start and end against its bound, acceptance against its band."""
    found = []
    for i, (a, b) in enumerate(zip(normal_scores(start), normal_scores(end))):
        r = np.corrcoef(a, b)[0, 1]
        found.append((max(r, 0) / correlation, f"correlation of start and end in {i}: {r:.3f}"))
    outside = acceptance < band[0] or acceptance > band[1]
    return [*found, (2.0 if outside else 0.0, f"acceptance {acceptance:.3f}, band {band}")]


@compile_small
def ends(kernel, key, x):
    many = Many(kernel)
    state, info = repeat(many, key, many.init(jax.random.fold_in(key, STEPS), x), STEPS)
    return state.position, jnp.mean(info.acceptance), jnp.sum(info.divergent)


def ran(kernel, dim, key, seed):
    start = draws(dim, seed)
    end, acceptance, divergent = ends(kernel, key, jnp.asarray(start))
    return start, np.asarray(end), float(acceptance), float(divergent)


# kernel, dimension, bound of the correlation, band of acceptance (a mean over 250 000 steps, known to about .001)
KERNELS = {
    "random walk": (RandomWalk(skewed, 2.0), 1, 0.3, (0.47, 0.57)),
    "random walk, correlated": (RandomWalk(correlated, 0.5, jnp.asarray([1.0, 0.8])), 2, 0.6, (0.43, 0.53)),
    "MALA": (MetropolisLangevin(skewed, 0.8), 1, 0.3, (0.78, 0.88)),
    "MALA, correlated": (MetropolisLangevin(correlated, 0.6, jnp.asarray([0.6, 1.2])), 2, 0.6, (0.44, 0.54)),
    "HMC, fixed": (HamiltonianMonteCarlo(skewed, 0.45, 3, 1.0, 0.0), 1, 0.3, (0.92, 0.99)),
    "HMC, jittered": (HamiltonianMonteCarlo(skewed, 0.45, 3, 1.0, 0.5), 1, 0.3, (0.92, 0.99)),
    "HMC, correlated": (HamiltonianMonteCarlo(correlated, 0.5, 3, jnp.asarray([0.7, 1.0])), 2, 0.3, (0.85, 0.95)),
    "NUTS, correlated": (NoUTurn(Tempered(correlated, 1.0), 0.5, jnp.asarray([0.5, 0.4]), 3), 2, 0.3, (0.89, 0.98)),
}


@pytest.mark.parametrize("name", KERNELS)
def test_kept_law(name, key, seed, request):
    kernel, dim, correlation, band = KERNELS[name]
    assert law_of(kernel).invariant == "exact"
    start, end, acceptance, divergent = ran(kernel, dim, key, seed)
    assert divergent < 1e-4 * N * STEPS  # far out in the right tail, where the force eˣ explodes
    for excess, sentence in law_checks(end) + movement_checks(start, end, acceptance, correlation, band):
        assert excess < 1, f"{sentence}; alpha 2e-6, n {N}, seed {seed}; pytest '{request.node.nodeid}'"


def test_thinned_chains_keep_the_law(key, seed):
    start, end, acceptance, _ = ran(Thinned(RandomWalk(skewed, 2.0), 3), 1, key, seed)
    for excess, sentence in law_checks(end) + movement_checks(start, end, acceptance, 0.2):
        assert excess < 1, sentence


@pytest.mark.parametrize("number", range(24))
def test_broken_twin_is_rejected(number, key, seed):
    listed = twins(skewed, correlated)
    assert len(listed) == 24
    mistake, dim, kernel = listed[number]
    start, end, acceptance, _ = ran(kernel, dim, key, seed)
    found = law_checks(end) + movement_checks(start, end, acceptance)
    assert max(excess for excess, _ in found) > 1, f"{mistake}: not seen by {[s for _, s in found]}"


def test_nuts_says_where_it_diverges(key, seed):
    kernel = NoUTurn(Tempered(correlated, 1.0), 50.0, jnp.asarray([0.5, 0.4]), 3)
    _, end, acceptance, divergent = ran(kernel, 2, key, seed)
    assert divergent > N and acceptance < 0.2 and np.isfinite(end).all()


def test_draws_are_exact(seed):
    for dim in (1, 2):
        assert max(excess for excess, _ in law_checks(draws(dim, seed))) < 1
