"""Parallel tempering keeps the product of its laws: 12 000 independent sets of replicas begin at exact draws of every
π_β, go ten steps, and are tested rung by rung (|z| > 4.75, level 2e-6). The broken exchanges must be rejected.

Between Gaussians the path is Gaussian: π_β has precision (1 − β)/σ_q² + β/σ² and a mean in closed form.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from saboteurs import discrete as twins
from scipy.special import ndtr

from mulligan.loop import compile_small, repeat
from mulligan.measures.partition import anneal, bennett, bracket, forward_log_z, reverse_log_z
from mulligan.samplers import tempering
from mulligan.samplers.gibbs import Gibbs, colouring
from mulligan.samplers.ladder import climb, tune_ladder
from mulligan.samplers.langevin import Langevin, MetropolisLangevin
from mulligan.samplers.many import Many, Thinned
from mulligan.samplers.path import Path, Ratio, StandardNormal
from mulligan.samplers.reference import EvenStates
from mulligan.samplers.tempering import ParallelTempering
from mulligan.targets.named import law
from mulligan.targets.transfer import Lattice, TransferMatrix

N, Z, STEPS = 12_000, 4.75, 10
KS = 2.63 / np.sqrt(N)
WIDE, MEAN, SD = 3.0, 1.0, 0.7
BETAS = np.array([0.0, 0.1, 0.4, 1.0], np.float32)
PRECISION = 1 / WIDE**2 + BETAS / SD**2
RUNG_MEAN, RUNG_SD = BETAS * MEAN / SD**2 / PRECISION, PRECISION**-0.5


def f(x):
    return -0.5 * jnp.sum(((x - MEAN) / SD) ** 2)


def tempered(redraw=False):
    path = Path(f, StandardNormal(1, WIDE))
    return ParallelTempering(MetropolisLangevin(path, 1.0), BETAS, 0.5 / PRECISION, redraw=redraw)


def after(sets, key, positions):
    begin = sets.init(key, positions)
    state, info = repeat(sets, key, begin, STEPS)
    return state, jax.tree.map(lambda leaf: jnp.mean(leaf, axis=(0, 1)), info)


def ends(kernel, seed):
    start = RUNG_MEAN[:, None] + RUNG_SD[:, None] * np.random.default_rng(seed).normal(size=(N, 4, 1))
    run = compile_small(lambda *arguments: after(*arguments))  # anew, for a twin is traced into it
    state, info = run(Many(kernel), jax.random.key(seed), jnp.asarray(start, jnp.float32))
    return start[..., 0], np.asarray(state.positions)[..., 0], state, info


def worst(x):
    """Largest |z| of the means and variances and largest KS distance in units of its bound × 4.75, over the rungs."""
    z = (x - RUNG_MEAN) / RUNG_SD
    of_mean = np.abs(z.mean(axis=0)) * np.sqrt(N)
    of_variance = np.abs((z**2).mean(axis=0) - 1) * np.sqrt(N / 2)
    u = np.sort(ndtr(z), axis=0)
    grid = np.arange(1, N + 1)[:, None] / N
    distance = np.maximum(grid - u, u - grid + 1 / N).max(axis=0)
    crossed = np.abs((z[:, 1:] * z[:, :-1]).mean(axis=0)) * np.sqrt(N)  # neighbours stay independent
    return max(of_mean.max(), of_variance.max(), crossed.max(), (distance / KS).max() * Z)


@pytest.mark.parametrize("redraw", [False, True])
def test_the_product_law_stays_and_replicas_move(redraw, seed, request):
    start, x, state, info = ends(tempered(redraw), seed)
    found = worst(x)
    assert found < Z, f"{found:.2f} > {Z}, n {N}, seed {seed}; pytest '{request.node.nodeid}'"
    assert np.all(np.abs([np.corrcoef(start[:, k], x[:, k])[0, 1] for k in range(4)]) < 0.3)
    away = (np.asarray(state.replicas) != np.arange(4)).mean()
    assert away > 0.5, "replicas change rungs"
    assert np.all(info.swap_acceptance > 0.3) and np.all(info.rung_acceptance > 0.5)
    assert float(np.mean(np.asarray(state.round_trips))) > 0.1 and float(info.divergent) == 0


@pytest.mark.parametrize("twin", twins.SWAPS[:2], ids=lambda twin: twin.__name__)
def test_broken_exchanges_are_seen(twin, seed, monkeypatch):
    monkeypatch.setattr(tempering, "swap_probability", twin)
    assert worst(ends(tempered(), seed)[1]) > Z


def test_the_ladder_rejects_equally_and_its_barrier_is_the_paths(seed):
    """Between two Gaussians Λ is that of the path, not of the number of rungs."""
    path = Path(f, StandardNormal(1, 30.0))
    starts = jnp.zeros((64, 1))
    barriers = []
    for number, rungs in enumerate((5, 8)):
        kernel, ladder = tune_ladder(
            MetropolisLangevin(path, 1.0), jax.random.key(seed + number), starts, rungs=rungs, acceptance=0.7
        )
        assert np.ptp(ladder.rejection) < 0.1, ladder.rejection
        assert np.all(np.abs(ladder.acceptance - 0.7) < 0.1), ladder.acceptance
        assert ladder.betas[0] == 0 and ladder.betas[-1] == 1 and np.all(np.diff(ladder.betas) > 0)
        barriers.append(ladder.barrier)
        again = climb(MetropolisLangevin(path, 1.0), ladder)
        assert all(np.array_equal(a, b) for a, b in zip(jax.tree.leaves(kernel), jax.tree.leaves(again)))
    assert abs(barriers[0] - barriers[1]) < 0.25, barriers


# --- modes ------------------------------------------------------------------------------------------------------------


def test_tempering_finds_all_holes_from_the_origin_and_langevin_does_not(seed):
    """25 holes of radius 3 sd; 16 chains begun at the origin; 2 000 draws each, as many gradients a chain for both."""
    target, q = law("grid-gaussians"), StandardNormal(2, 3.0)
    path = Path(Ratio(target.log_prob, q), q)
    # what tune_ladder found for MALA here (benchmarks/log_z.py): equal rejections of .25
    betas = np.array([0, 0.003, 0.009, 0.017, 0.03, 0.05, 0.084, 0.14, 0.233, 0.39, 0.64, 1.0], np.float32)
    steps = np.array([21, 2.8, 0.62, 0.35, 0.2, 0.12, 0.072, 0.044, 0.026, 0.016, 0.0093, 0.006], np.float32)
    chains = Many(ParallelTempering(MetropolisLangevin(path, 0.1), betas, steps, 2))
    plain = Many(Thinned(Langevin(target.log_prob, 0.006), 24))

    @compile_small
    def draws(sets, key):
        def one(state, i):
            state, _ = sets.step(jax.random.fold_in(key, i), state)
            return state, state.position

        return jax.lax.scan(one, sets.init(key, jnp.zeros((16, 2))), jnp.arange(2000))[1]

    holes = target.holes
    found = []
    for sets in (chains, plain):
        x = np.asarray(draws(sets, jax.random.key(seed)))
        near = np.linalg.norm(x[:, :, None] - holes.centres, axis=-1) < holes.radius
        found.append(near.any(axis=(0, 1)).sum())
    assert found[0] == 25 and found[1] < 25, found


# --- log Z of a lattice -----------------------------------------------------------------------------------------------


def test_log_z_of_a_lattice_is_inside_the_bracket(seed):
    lattice, even = Lattice((6, 6), 0.4406868, periodic=True), EvenStates(2, 36)
    exact = TransferMatrix(lattice)
    kernel = Gibbs(Path(Ratio(lattice, even), even), 2, colours=colouring(lattice.edges, 36), affine=True)
    key, betas = jax.random.key(seed), np.linspace(0, 1, 401)
    starts = compile_small(lambda key: jax.vmap(even.sample)(jax.random.split(key, 512)))(key)
    forward = anneal(kernel, jax.random.fold_in(key, 1), starts, betas).log_weights
    ends = jnp.asarray(exact.draw(512, seed), jnp.float32)
    reverse = anneal(kernel, jax.random.fold_in(key, 2), ends, betas, reverse=True).log_weights
    found = bennett(forward, reverse)
    both = bracket(forward_log_z(forward), reverse_log_z(reverse), found)
    assert both.contains(exact.log_z) and both.high - both.low < 0.3, both
    assert abs(found.value - exact.log_z) < Z * found.stderr
