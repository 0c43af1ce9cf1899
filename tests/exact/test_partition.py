"""log Z, exactly where it can be: short annealing paths enumerated with their probabilities, transfer matrices against
enumeration; and the coverage of the intervals on weights whose law is known (levels 2e-6 a comparison).

Every broken twin in tests/saboteurs/discrete.py must be rejected.
"""

from __future__ import annotations

import functools
import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from saboteurs import discrete as twins
from scipy.special import chdtrc, chdtri

from mulligan.core import NoisedScore
from mulligan.errors import UsageError
from mulligan.loop import compile_small, repeat
from mulligan.measures import partition
from mulligan.measures.partition import (
    anneal,
    annealed_importance,
    bennett,
    bracket,
    effective_share,
    forward_log_z,
    importance_log_z,
    log_mean,
    pareto_k,
    reverse_log_z,
    weight_note,
)
from mulligan.quantity import Quantity
from mulligan.samplers.annealing import (
    AnnealedImportance,
    AnnealedLangevin,
    SimulatedAnnealing,
    geometric,
    noise_schedule,
    reference_of,
)
from mulligan.samplers.gibbs import Gibbs
from mulligan.samplers.langevin import MetropolisLangevin
from mulligan.samplers.many import Many
from mulligan.samplers.path import Path, Ratio, StandardNormal
from mulligan.samplers.reference import EvenStates
from mulligan.targets.discrete import Ising, states
from mulligan.targets.gaussian import Gaussian
from mulligan.targets.transfer import Lattice, TransferMatrix

TOLERANCE = 1e-9
BETAS = np.array([0.0, 0.3, 0.7, 1.0])
EVERY = states(0, 4, 2, 2).astype(float)


class Table(eqx.Module):
    values: jax.Array

    def __call__(self, x):
        return self.values[(2 * x[0] + x[1]).astype(int)]


F = np.array([0.3, -1.0, 2.0, 0.6])


def table_path():
    return Path(Table(jnp.asarray(F)), EvenStates(2, 2))


def law_at(beta):
    p = np.exp(beta * F)
    return p / p.sum()


# --- enumerated paths -------------------------------------------------------------------------------------------------


def first_is_one(x, site, beta):
    """P(x_site = 1 | the other) at β."""
    rest = x.copy()
    rest[..., site] = 0
    zero = (rest @ [2, 1]).astype(int)
    return 1 / (1 + np.exp(beta * (F[zero] - F[zero + (2 if site == 0 else 1)])))


def outcomes(x, beta, order):
    """The four results of a sweep at β from each x (n, 2): states, a uniform that gives each, their probabilities."""
    made = []
    for wanted in itertools.product((0, 1), repeat=2):
        y, u, p = x.copy(), np.zeros_like(x), np.ones(len(x))
        for site in order:
            threshold = 1 - first_is_one(y, site, beta)  # 0 below it, 1 from it on
            one = wanted[site] == 1
            u[:, site] = threshold + 1e-12 if one else threshold - 1e-12  # another threshold gives itself away
            p *= 1 - threshold if one else threshold
            y[:, site] = wanted[site]
        made.append((y, u, p))
    return made


def enumerate_paths(reverse, move=None):
    """All paths of states (n, K + 1), upward in β, with their probability and log weight under the library's kernel."""
    kernel = AnnealedImportance(Gibbs(table_path(), 2), reverse)
    right = move is None

    @compile_small
    def step(x, log_weight, u, before, after):
        def one(x, log_weight, u):
            state = kernel.init(None, x)._replace(log_weight=log_weight)
            noise, input = (jax.random.key(0), u[None]), (before, after, None)
            state, _ = kernel.move(state, noise, input) if right else move(kernel, state, noise, input)
            return state.position, state.log_weight

        return jax.vmap(one)(x, log_weight, u)

    x = EVERY.copy()
    p = law_at(1.0 if reverse else 0.0)
    paths, log_w = [x], np.zeros(4)
    rungs = range(1, len(BETAS))
    for k in reversed(rungs) if reverse else rungs:
        order = (1, 0) if reverse else (0, 1)
        every = outcomes(x, BETAS[k], order)
        u = np.concatenate([u for _, u, _ in every])
        copies = lambda a: np.concatenate([a] * 4)  # noqa: E731
        x, log_w = (np.asarray(a) for a in step(copies(x), copies(log_w), u, BETAS[k - 1], BETAS[k]))
        if right:
            np.testing.assert_array_equal(x, np.concatenate([y for y, _, _ in every]))
        p = copies(p) * np.concatenate([q for _, _, q in every])
        paths = [copies(a) for a in paths] + [x]
    codes = np.stack([a @ [2, 1] for a in paths], axis=1).astype(int)
    return (codes[:, ::-1] if reverse else codes), p, log_w


@pytest.fixture
def double():
    with jax.enable_x64(True):
        yield


@functools.lru_cache(maxsize=2)
def paths_of(reverse):
    with jax.enable_x64(True):
        return enumerate_paths(reverse)


LOG_Z = float(np.log(np.exp(F).mean()))  # q is even and normalised


def sorted_by_path(paths):
    codes, p, log_w = paths
    order = np.lexsort(codes.T)
    return codes[order], p[order], log_w[order]


def test_weights_average_to_the_ratio_in_both_directions():
    (_, p, log_w), (_, p_back, log_w_back) = paths_of(False), paths_of(True)
    assert len(p) == 4**4 and abs(p.sum() - 1) < TOLERANCE and abs(p_back.sum() - 1) < TOLERANCE
    assert abs(np.log(p @ np.exp(log_w)) - LOG_Z) < TOLERANCE
    assert abs(np.log(p_back @ np.exp(-log_w_back)) + LOG_Z) < TOLERANCE
    assert p @ log_w < LOG_Z - 0.01 < LOG_Z + 0.01 < p_back @ log_w_back
    for b in (0.1, 0.5, 1.0):
        assert p[log_w > LOG_Z + b].sum() <= np.exp(-b)
        assert p_back[log_w_back < LOG_Z - b].sum() <= np.exp(-b)


def test_crooks_holds_for_every_path():
    """p_F(path)/p_R(path) = w Z_0/Z_1, which needs the sweep to be reversed in time."""
    codes, p, log_w = sorted_by_path(paths_of(False))
    back_codes, p_back, log_w_back = sorted_by_path(paths_of(True))
    np.testing.assert_array_equal(codes, back_codes)
    np.testing.assert_allclose(log_w, log_w_back, atol=TOLERANCE)
    np.testing.assert_allclose(np.log(p_back / p), log_w - LOG_Z, atol=TOLERANCE)


def test_a_reverse_run_that_sweeps_forward_is_seen(double, monkeypatch):
    expected, _, _ = paths_of(True)
    monkeypatch.setattr(Gibbs, "backwards", lambda self: self)
    codes, _, _ = enumerate_paths(True, move=AnnealedImportance.move)
    assert not np.array_equal(codes, expected)


@pytest.mark.parametrize("twin", twins.ANNEALINGS, ids=lambda twin: twin.__name__)
def test_broken_annealing_is_seen(double, twin):
    codes, p, log_w = enumerate_paths(False, move=twin)
    fault = abs(np.log(p @ np.exp(log_w)) - LOG_Z) > 1e-3
    assert fault or not np.array_equal(codes, paths_of(False)[0])


def test_bennett_is_inside_the_bracket_and_its_error_is_right(seed):
    (_, p, log_w), (_, p_back, log_w_back) = paths_of(False), paths_of(True)
    rng = np.random.default_rng(seed)
    n, m, runs = 400, 200, 500
    off, errors = [], []
    for _ in range(runs):
        forward, reverse = rng.choice(log_w, n, p=p), rng.choice(log_w_back, m, p=p_back)
        found = bennett(forward, reverse)
        off.append(found.value - LOG_Z)
        errors.append(found.stderr)
    off, stderr = np.asarray(off), float(np.mean(errors))
    assert abs(off.mean()) < 4.75 * off.std() / np.sqrt(runs) + 5e-4  # its bias is of order 1/n
    assert abs(off.std() / stderr - 1) < 4.75 / np.sqrt(2 * runs)
    both = bracket(forward_log_z(forward), reverse_log_z(reverse), found)
    assert both.kind == "bracket" and both.low < found.value < both.high and both.value == found.value


# --- intervals --------------------------------------------------------------------------------------------------------


def fewest(n, share):
    """Misses beyond which a true share has less than 2e-6, by the normal approximation."""
    return n * share + 4.75 * np.sqrt(n * share * (1 - share))


@pytest.mark.parametrize("spread", [0.05, 0.5, 1.5, 3.0])
def test_ends_hold_as_often_as_they_say(spread, seed):
    """Log-normal weights: log w ~ N(∓σ²/2, σ²) in the two directions are a Crooks pair with log Z = 0."""
    rng = np.random.default_rng([seed, int(10 * spread)])
    runs, n = 400, 256
    below = above = 0
    for _ in range(runs):
        forward = forward_log_z(rng.normal(-(spread**2) / 2, spread, n))
        reverse = reverse_log_z(rng.normal(spread**2 / 2, spread, n))
        below += forward.low > 0
        above += reverse.high < 0
    assert max(below, above) <= fewest(runs, 0.025), (below, above)


def test_light_weights_make_a_narrow_bracket(seed):
    rng = np.random.default_rng(seed)
    s, n = 0.25, 1024
    forward, reverse = rng.normal(-s * s / 2, s, n), rng.normal(s * s / 2, s, n)
    both = bracket(forward_log_z(forward), reverse_log_z(reverse), bennett(forward, reverse))
    assert both.contains(0.0) and both.high - both.low < 0.09


@pytest.mark.parametrize("spread", [0.5, 1.2])
def test_importance_sampling_states_two_sides_only_where_it_may(spread, seed):
    rng = np.random.default_rng([seed, int(10 * spread)])
    runs, missed = 300, 0
    for _ in range(runs):
        found = importance_log_z(rng.normal(-(spread**2) / 2, spread, 512))
        missed += found.kind == "estimate" and not found.contains(0.0)
    assert missed <= fewest(runs, 0.08)
    heavy = importance_log_z(rng.normal(-4.5, 3.0, 512))
    assert heavy.kind == "lower bound" and "heavy weights" in heavy.note and heavy.contains(0.0)


def test_notes_and_refusals():
    assert weight_note(np.zeros(100)) == ""
    assert "effective" in weight_note(np.r_[np.zeros(99), 50.0])
    assert effective_share(np.zeros(10)) == 1.0
    crossed = bracket(Quantity(1.0, "lower bound", 0.9, None), Quantity(0.0, "upper bound", None, 0.1))
    assert "cross" in crossed.note and crossed.low == 0.1 and crossed.high == 0.9
    inexact = bracket(
        Quantity(0.0, "lower bound", -0.1, None), Quantity(0.0, "upper bound", None, 0.1), exact_start=False
    )
    assert inexact.kind == "estimate" and "no bound" in inexact.note
    nothing = forward_log_z(np.full(40, -np.inf))
    assert nothing.value == -np.inf and nothing.low is None
    assert bracket(nothing, Quantity(0.0, "upper bound", None, 0.1)).kind == "none"
    assert bennett(np.full(40, -np.inf), np.zeros(40)).kind == "none"
    some = forward_log_z(np.r_[np.full(10, -np.inf), np.zeros(200)])  # runs of weight 0 are runs
    assert abs(some.value - np.log(200 / 210)) < 1e-12 and some.low < np.log(200 / 210)
    clumped = forward_log_z(np.r_[np.full(100, -np.inf), np.zeros(100)])
    assert np.log(0.4) < clumped.low < np.log(0.5)
    assert "hardly overlap" in bennett(np.full(40, -30.0), np.full(40, 30.0)).note
    for bad in (np.zeros(31), np.r_[np.zeros(40), np.nan], np.r_[np.zeros(40), np.inf]):
        with pytest.raises(UsageError, match="log weights"):
            forward_log_z(bad)
    kernel = Gibbs(table_path(), 2)
    for betas in ([0.0, 0.5], [0.1, 1.0], [0.0, 0.5, 0.5, 1.0], [1.0]):
        with pytest.raises(UsageError, match="rise from 0 to 1"):
            anneal(kernel, jax.random.key(0), jnp.zeros((4, 2)), betas)


@pytest.mark.parametrize("k", [0.2, 0.5, 0.9])
def test_the_pareto_shape_is_recovered(k, seed):
    rng = np.random.default_rng([seed, int(10 * k)])
    fits = np.array([pareto_k(k * rng.exponential(size=2000)) for _ in range(60)])
    # a weak prior at ½ with 10 of 134 tail weights
    expected = (134 * k + 5) / 144
    assert abs(fits.mean() - expected) < 4.75 * fits.std() / np.sqrt(60) + 0.02


# --- transfer matrices ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("periodic", [False, True])
def test_transfer_matrices_agree_with_enumeration(periodic, seed, double):
    for shape in ((2, 2), (3, 3), (4, 3), (3, 4), (1, 3), (3, 1), (2, 4)):
        law = Ising(shape, 0.37, periodic)
        matrix = TransferMatrix(Lattice(shape, 0.37, periodic))
        assert abs(matrix.log_z - float(law.log_z)) < TOLERANCE
        sites = shape[0] * shape[1]
        every = states(0, 2**sites, 2, sites)
        spin = 2 * every - 1
        f = 0.37 * sum(spin[:, i] * spin[:, j] for i, j in matrix.lattice.edges)
        expected = 20_000 * np.exp(f - matrix.log_z)
        codes = matrix.draw(20_000, seed) @ 2 ** np.arange(sites - 1, -1, -1)
        counts = np.bincount(codes.astype(int), minlength=2**sites)
        large = expected >= 20
        statistic = ((counts - expected)[large] ** 2 / expected[large]).sum()
        rest = expected[~large].sum()
        if rest >= 20:
            statistic += (counts[~large].sum() - rest) ** 2 / rest
        freedom = large.sum() - (rest < 20)
        assert statistic < chdtri(freedom, 2e-6), (shape, statistic, freedom, chdtrc(freedom, statistic))


def test_the_lattice_is_the_law_on_small_lattices(double):
    x = jnp.asarray(np.random.default_rng(0).integers(0, 2, (40, 12)).astype(float))
    both = compile_small(lambda f, g, x: (jax.vmap(f)(x), jax.vmap(g)(x)))
    for periodic in (False, True):
        law = Ising((3, 4), 0.37, periodic)
        ours, theirs = both(Lattice((3, 4), 0.37, periodic), law.unnormalised, x)
        np.testing.assert_allclose(ours, theirs, atol=1e-12)
    with pytest.raises(UsageError, match="11 columns"):
        TransferMatrix(Lattice((2, 11), 0.1))
    with pytest.raises(UsageError, match="rows and columns"):
        Lattice((3,), 0.1)


def test_onsager_8x8():
    """log Z of the 8x8 torus by Kaufman's closed form (1949): four products over fermion momenta."""
    n = m = 8
    beta = 0.4406868
    k = np.arange(2 * n)
    c = np.cosh(2 * beta) ** 2 / np.sinh(2 * beta) - np.cos(np.pi * k / n)
    gamma = np.arccosh(np.maximum(c, 1.0))
    gamma[0] = 2 * beta + np.log(np.tanh(beta))  # its sign matters
    odd, even = m / 2 * gamma[1::2], m / 2 * gamma[0::2]
    terms = [
        np.prod(2 * np.cosh(odd)),
        np.prod(2 * np.sinh(odd)),
        np.prod(2 * np.cosh(even)),
        np.prod(2 * np.sinh(even)),
    ]
    closed = n * m / 2 * np.log(2 * np.sinh(2 * beta)) + np.log(sum(terms) / 2)
    assert abs(TransferMatrix(Lattice((8, 8), beta, True)).log_z - closed) < 1e-6


# --- whole runs -------------------------------------------------------------------------------------------------------


def test_both_directions_bracket_a_known_constant(key):
    """MALA between Gaussians, both normalised: log Z_1/Z_0 = 0."""
    target = Gaussian(jnp.asarray([1.0, -0.5]), jnp.asarray([[0.6, 0.0], [0.3, 0.5]]))
    q = StandardNormal(2, 2.0)
    path = Path(Ratio(target.log_prob, q), q)
    keys = jax.random.split(key, 4)
    draw = compile_small(lambda f, key: jax.vmap(f)(jax.random.split(key, 500)))
    starts, ends = draw(reference_of(path), keys[0]), draw(target.sample, keys[1])
    kernel, betas = MetropolisLangevin(path, 1.0), np.linspace(0, 1, 101)
    steps = 4 / (1 / 4 + betas * 3) * 0.3
    forward = anneal(kernel, keys[2], starts, betas, steps)
    reverse = annealed_importance(kernel, keys[3], ends, betas, steps, reverse=True)
    assert forward.positions.shape == (500, 2) and forward.acceptance.shape == (100,)
    assert forward.acceptance.min() > 0.5
    found = bennett(forward.log_weights, reverse)
    both = bracket(forward_log_z(forward.log_weights), reverse_log_z(reverse), found)
    assert both.contains(0.0) and abs(found.value) < 4.75 * found.stderr and both.high - both.low < 0.5


def test_runs_without_weight_stay_without_weight(key):
    """f is −∞ on half of the plane: half of the runs die at the first rung, and log Z is log ½."""
    path = Path(_half_plane, StandardNormal(1, 1.0))
    starts = compile_small(lambda key: jax.vmap(path.log_q.sample)(jax.random.split(key, 2000)))(key)
    log_w = annealed_importance(MetropolisLangevin(path, 0.5), key, starts, [0.0, 0.5, 1.0])
    assert not np.isnan(log_w).any() and abs(log_mean(log_w) - np.log(0.5)) < 4.75 / np.sqrt(2000)
    assert set(np.unique(log_w)) == {-np.inf, 0.0}


def _half_plane(x):
    return jnp.where(x[0] > 0, 0.0, -jnp.inf)


def test_simulated_annealing_finds_the_highest_state_and_keeps_it(key):
    best = np.random.default_rng(0).integers(0, 2, 12).astype(np.float32)
    kernel = Many(SimulatedAnnealing(Gibbs(Path(_Near(jnp.asarray(best)), EvenStates(2, 12)), 2)))
    betas = jnp.asarray(geometric(0.1, 20.0, 60))
    run = compile_small(lambda key: repeat(kernel, key, kernel.init(key, jnp.zeros((100, 12))), 60, betas))
    state, info = run(key)
    found = np.asarray(state.best_value) == 12
    assert found.mean() > 0.75 and (np.asarray(state.best)[found] == best).all()
    last = each(kernel.kernel.kernel.log_density.f, state.position)
    assert (np.asarray(state.best_value) >= np.asarray(last)).all()
    assert np.isfinite(np.asarray(info.log_density)).all()


@compile_small
def each(function, x):
    return jax.vmap(function)(x)


class _Near(eqx.Module):
    """Highest at one state, with a false peak at its opposite."""

    best: jax.Array

    def __call__(self, x):
        same = jnp.sum((x == self.best).astype(x.dtype))
        return jnp.maximum(same, 8.0 - same)


class _NoisedNormal(NoisedScore):
    """The score of N(1, 0.5² + t²)."""

    def score(self, x, t):
        return (1 - x) / (0.25 + t**2)


def test_annealed_langevin_is_affine_and_ends_near_the_law(double):
    """On a Gaussian each step is affine in (x, noise): its law is propagated without drawing."""
    kernel = AnnealedLangevin(_NoisedNormal())
    sigmas = np.geomspace(5.0, 0.1, 10)
    times, sizes = noise_schedule(sigmas, sigmas, 100, 0.02)
    assert sizes[0] > sizes[-1] and np.allclose(np.asarray(sizes) / np.asarray(times) ** 2, 2.0)

    @compile_small
    def propagate():
        def one(carry, input):
            move = lambda x, e: kernel.move(kernel.init(None, x), e, input)[0].position[0]  # noqa: E731
            base = move(jnp.zeros(1), jnp.zeros(1))
            slope = move(jnp.ones(1), jnp.zeros(1)) - base
            spread = move(jnp.zeros(1), jnp.ones(1)) - base
            mean, variance = carry
            return (slope * mean + base, slope**2 * variance + spread**2), (slope, spread)

        return jax.lax.scan(one, (jnp.asarray(-4.0), jnp.asarray(25.0)), (times, sizes))

    (mean, variance), (slope, spread) = propagate()
    np.testing.assert_allclose(slope, 1 - 0.5 * sizes / (0.25 + times**2), atol=1e-12)
    np.testing.assert_allclose(spread, np.sqrt(sizes), atol=1e-12)
    assert abs(mean - 1) < 0.05 and abs(variance - 0.25) < 0.05


def test_the_module_states_the_bounds_it_uses():
    assert partition.LEAST_SHARE == 0.1 and partition.HEAVIEST == 0.7 and partition.LEAST_GROUPS == 16
