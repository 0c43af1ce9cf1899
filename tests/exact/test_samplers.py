"""Continuous samplers without random numbers: detailed balance, leapfrog, energy error, affine propagation, orders of
bias by quadrature, what a bad number does, warm-up, and positions with bounds."""

from __future__ import annotations

import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from saboteurs.samplers import Adjusted, Kinetic, Orbit, Unadjusted

from mulligan.core import Law
from mulligan.errors import FitError, UsageError
from mulligan.loop import compile_small, run
from mulligan.samplers.adaptation import retune, schedule, warm_up
from mulligan.samplers.chance import chance, threefry
from mulligan.samplers.hmc import HamiltonianMonteCarlo, Shot, leapfrog
from mulligan.samplers.langevin import (
    Langevin,
    MetropolisLangevin,
    Minibatch,
    StochasticLangevin,
    UnderdampedLangevin,
)
from mulligan.samplers.many import Many
from mulligan.samplers.metropolis import Decision, RandomWalk
from mulligan.samplers.path import Path, StandardNormal, at
from mulligan.samplers.point import point_at
from mulligan.samplers.positions import space

SIGMA = 1.7


@pytest.fixture
def x64():
    with jax.enable_x64(True):
        yield


def normal(x):
    """N(0, SIGMA²)."""
    return -0.5 * jnp.sum((x / SIGMA) ** 2)


def skewed(x):
    """Skewed to the left, smooth, coordinates coupled."""
    return jnp.sum(2 * x - jnp.exp(x)) - 0.3 * jnp.sum(x[:-1] * x[1:])


def log_gamma(x):
    return 2 * x[0] - jnp.exp(x[0])


def boxed(x):
    """exp on [0, 1]², nothing outside."""
    return jnp.where(jnp.all((x > 0) & (x < 1)), -jnp.sum(x), -jnp.inf)


@compile_small
def moved(kernel, state, noise, input=None):
    return jax.vmap(kernel.move, in_axes=(0, 0, None))(state, noise, input)


@compile_small
def begun(kernel, x):
    return jax.vmap(kernel.init, in_axes=(None, 0))(jax.random.key(0), x)


# --- unadjusted kernels -----------------------------------------------------------------------------------------------


def langevin_variance(kernel):
    """Stationary variance of an affine step x' = a x + b e + c."""
    x, e = jnp.asarray([[0.0], [1.0], [0.0]]), jnp.asarray([[0.0], [0.0], [1.0]])
    zero, one, jump = np.asarray(moved(kernel, begun(kernel, x), e)[0].position)[:, 0]
    assert zero == 0
    return (jump - zero) ** 2 / (1 - (one - zero) ** 2)


@pytest.mark.parametrize("scale", [1.0, 0.6])
def test_langevin_stationary_variance(x64, scale):
    for step in (0.01, 0.5, 3.0):
        exact = SIGMA**2 / (1 - scale**2 * step / (4 * SIGMA**2))
        assert langevin_variance(Langevin(normal, step, scale)) == pytest.approx(exact, rel=1e-12)
    edge = 4 * SIGMA**2 / scale**2  # |a| = 1: stable below, not above
    assert langevin_variance(Langevin(normal, 0.999 * edge, scale)) > 0
    assert langevin_variance(Langevin(normal, 1.001 * edge, scale)) < 0


@pytest.mark.parametrize("mistake", ["half forgotten", "score flipped", "root forgotten", "half the noise"])
def test_a_mistaken_langevin_has_another_variance(x64, mistake):
    for step in (0.1, 0.5):
        found = langevin_variance(Unadjusted(normal, step, mistake))
        assert abs(found / (SIGMA**2 / (1 - step / (4 * SIGMA**2))) - 1) > 0.01


def kinetic_covariance(kernel):
    """Stationary covariance of (x, p) of an affine step, by the discrete Lyapunov equation."""
    state = begun(kernel, jnp.zeros((4, 1)))
    x, p, e = (jnp.asarray(v)[:, None] for v in ([0.0, 1, 0, 0], [0.0, 0, 1, 0], [0.0, 0, 0, 1]))
    points = jax.vmap(lambda y: point_at(normal, y))(x)
    state = state._replace(position=x, momentum=p, log_density=points.log_density, score=points.score)
    new = moved(kernel, state, e)[0]
    out = np.stack([np.asarray(new.position)[:, 0], np.asarray(new.momentum)[:, 0]])
    a, b = out[:, 1:3] - out[:, :1], out[:, 3:] - out[:, :1]
    return np.linalg.solve(np.eye(4) - np.kron(a, a), (b @ b.T).ravel()).reshape(2, 2)


def test_baoab_is_exact_for_the_position_of_a_gaussian(x64):
    for step, friction, scale in ((0.1, 1.0, 1.0), (1.5, 0.3, 1.0), (2.0, 4.0, 1.6)):
        found = kinetic_covariance(UnderdampedLangevin(normal, step, friction, scale))
        ratio = step * scale / SIGMA
        assert found == pytest.approx(np.diag([SIGMA**2, 1 - ratio**2 / 4]), abs=1e-9)


@pytest.mark.parametrize("mistake", ["root of one minus e", "root forgotten"])
def test_a_mistaken_baoab_is_not(x64, mistake):
    found = kinetic_covariance(Kinetic(UnderdampedLangevin(normal, 0.5, 1.0), mistake))
    assert abs(found[0, 0] / SIGMA**2 - 1) > 0.1


def grid(*sizes):
    """Nodes and weights for a smooth skewed law in x and standard normals besides."""
    nodes = [(np.linspace(-18, 4.5, sizes[0]), np.full(sizes[0], 22.5 / (sizes[0] - 1)))]
    weight = nodes[0][1] * np.exp(2 * nodes[0][0] - np.exp(nodes[0][0]))
    axes, weights = [nodes[0][0]], [weight / weight.sum()]
    for size in sizes[1:]:
        e, w = np.polynomial.hermite_e.hermegauss(size)
        axes.append(e)
        weights.append(w / w.sum())
    mesh = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, len(sizes))
    total = weights[0]
    for w in weights[1:]:
        total = np.multiply.outer(total, w)
    return mesh, total.ravel()


def functions(x):
    return np.stack([x**2, np.sin(x), np.tanh(x) ** 2])


def slopes(steps, errors):
    return np.diff(np.log(np.abs(errors)), axis=0) / np.diff(np.log(steps))[:, None]


def test_langevin_has_order_one(x64):
    """One step from π moves E h by O(Δt²), so the stationary law is off by O(Δt)."""
    mesh, weight = grid(2001, 24)
    x, e = jnp.asarray(mesh[:, :1]), jnp.asarray(mesh[:, 1:])
    steps = np.array([0.01, 0.005, 0.0025])
    errors = []
    for step in steps:
        kernel = Langevin(log_gamma, jnp.asarray(step))
        y = np.asarray(moved(kernel, begun(kernel, x), e)[0].position)[:, 0]
        errors.append((functions(y) - functions(mesh[:, 0])) @ weight)
    assert Langevin.law == Law("order", 1)
    assert slopes(steps, errors) == pytest.approx(2.0, abs=0.1)


def test_baoab_has_order_two(x64):
    """One step from π(x) N(p) moves E h by O(ε³), so the stationary law is off by O(ε²)."""
    mesh, weight = grid(601, 16, 12)
    x, p, e = (jnp.asarray(mesh[:, i : i + 1]) for i in range(3))
    steps = np.array([0.05, 0.025, 0.0125])
    errors = []
    for step in steps:
        kernel = UnderdampedLangevin(log_gamma, jnp.asarray(step), 0.7)
        new = moved(kernel, begun(kernel, x)._replace(momentum=p), e)[0]
        y, q = np.asarray(new.position)[:, 0], np.asarray(new.momentum)[:, 0]
        both = [y * q, np.sin(y) * q, np.tanh(y) * q]  # E h(x) p = 0
        errors.append(np.stack(both) @ weight)
    assert UnderdampedLangevin.law == Law("order", 2)
    assert np.all(slopes(steps, errors) > 2.9)


def test_stochastic_langevin_is_langevin_on_the_full_batch_and_unbiased(x64):
    rows = jnp.asarray(np.random.default_rng(0).normal(size=(6, 2)))
    target = Minibatch(normal, lambda x, row: -0.5 * jnp.sum((row - x) ** 2), rows)
    every = jnp.arange(6)
    x, e = jnp.asarray([[0.3, -1.0]]), jnp.asarray([[0.5, 0.2]])
    kernel = StochasticLangevin(target, 0.1, 0.7)
    full = Langevin(lambda y: target(y, every), 0.1, 0.7)
    one = moved(kernel, begun(kernel, x), e, every)
    other = moved(full, begun(full, x), e)
    assert one[0].position == pytest.approx(np.asarray(other[0].position), abs=1e-12)
    pairs = jnp.asarray([(i, j) for i in range(6) for j in range(6)])
    scores = compile_small(lambda f, y, batches: jax.vmap(jax.grad(f), in_axes=(None, 0))(y, batches))
    mean, whole = np.mean(scores(target, x[0], pairs), axis=0), np.asarray(scores(target, x[0], every[None])[0])
    assert mean == pytest.approx(whole, abs=1e-12)


# --- adjusted kernels -------------------------------------------------------------------------------------------------


def mala_balance(kernel, rng):
    """The largest |log π(x) q(x'|x) α(x'|x) − the same backward| over random pairs."""
    step, scale = float(kernel.step_size), np.asarray(kernel.scale)
    x, e = rng.normal(size=(200, 3)), rng.normal(size=(200, 3))
    width = np.sqrt(step) * scale
    start = begun(kernel, jnp.asarray(x))
    there, info = moved(kernel, start, Decision(jnp.asarray(e), jnp.full(200, -1.0)))
    drift = np.asarray(there.position) + 0.5 * width**2 * np.asarray(there.score)
    back = (x - drift) / width
    returned, info_back = moved(kernel, there, Decision(jnp.asarray(back), jnp.full(200, -1.0)))
    apart = np.abs(np.asarray(returned.position) - x).max()
    with np.errstate(divide="ignore"):  # a mistaken ratio can be 0 in one direction
        accepted, accepted_back = np.log(info.acceptance), np.log(info_back.acceptance)
    forward = np.asarray(start.log_density) - 0.5 * (e**2).sum(-1) + accepted
    backward = np.asarray(there.log_density) - 0.5 * (back**2).sum(-1) + accepted_back
    return max(np.abs(forward - backward).max(), apart)


def test_mala_detailed_balance_pointwise(x64, seed):
    scale = jnp.asarray([0.5, 1.0, 2.0])
    assert mala_balance(MetropolisLangevin(skewed, 0.3, scale), np.random.default_rng(seed)) < 1e-9


@pytest.mark.parametrize("mistake", [2, 3, 4, 5, 6])
def test_a_mistaken_mala_is_unbalanced(x64, seed, mistake):
    kernel = Adjusted(skewed, 0.3, jnp.asarray([0.5, 1.0, 2.0]), mistake)
    assert mala_balance(kernel, np.random.default_rng(seed)) > 1e-3


def test_random_walk_acceptance(x64, seed):
    rng = np.random.default_rng(seed)
    x, e = jnp.asarray(rng.normal(size=(200, 3))), jnp.asarray(rng.normal(size=(200, 3)))
    scale = jnp.asarray([0.5, 1.0, 2.0])
    kernel = RandomWalk(skewed, 0.25, scale)
    y = x + 0.5 * scale * e
    ratio = np.exp(np.minimum(0, np.asarray(jax.vmap(skewed)(y) - jax.vmap(skewed)(x))))
    for uniform in (0.0, 0.5, 0.999):
        state, info = moved(kernel, begun(kernel, x), Decision(e, jnp.full(200, uniform)))
        assert info.acceptance == pytest.approx(ratio, abs=1e-12)
        assert np.array_equal(state.position, np.where((uniform < ratio)[:, None], y, x))


def flown(x, p, step, steps):
    end, momentum = leapfrog(skewed, point_at(skewed, x), p, step, steps)
    return end.position, momentum


def test_leapfrog_returns_and_keeps_volume(x64, seed):
    rng = np.random.default_rng(seed)
    x, p = jnp.asarray(rng.normal(size=3)), jnp.asarray(rng.normal(size=3))
    step = 0.2 * jnp.asarray([0.5, 1.0, 2.0])
    fly = compile_small(flown)
    there, momentum = fly(x, p, step, 7)
    back, reversed_momentum = fly(there, -momentum, step, 7)
    assert back == pytest.approx(np.asarray(x), abs=1e-9) and -reversed_momentum == pytest.approx(
        np.asarray(p), abs=1e-9
    )
    joint = compile_small(jax.jacfwd(lambda z: jnp.concatenate(flown(z[:3], z[3:], step, 7))))(jnp.concatenate([x, p]))
    assert np.linalg.det(np.asarray(joint)) == pytest.approx(1.0, abs=1e-9)


@compile_small
def energy_errors(kernel, x, p):
    state = jax.vmap(lambda y: point_at(kernel.log_density, y))(x)
    shot = Shot(p, jnp.full(len(x), -1.0), jnp.full(len(x), 0.5))
    new, info = jax.vmap(kernel.move, in_axes=(0, 0, None))(state, shot, None)
    return new.position, info.acceptance


@pytest.mark.parametrize("jitter", [0.0, 0.9])
def test_energy_error_has_order_two(x64, seed, jitter):
    """log acceptance is −ΔH where the energy grew: it falls as ε² at fixed length; a length uniform of ½ is no jitter."""
    rng = np.random.default_rng(seed)
    x, p = jnp.asarray(rng.normal(size=(300, 2))), jnp.asarray(rng.normal(size=(300, 2)))
    mean = []
    for steps in (16, 32, 64):
        _, acceptance = energy_errors(HamiltonianMonteCarlo(skewed, 1.6 / steps, steps, 1.0, jitter), x, p)
        mean.append(-np.log(np.asarray(acceptance)).mean())
    assert np.log2(np.divide(mean[:-1], mean[1:])) == pytest.approx(2.0, abs=0.1)


def test_a_forgotten_half_kick_has_order_one_at_best(x64, seed):
    rng = np.random.default_rng(seed)
    x, p = jnp.asarray(rng.normal(size=(300, 2))), jnp.asarray(rng.normal(size=(300, 2)))
    mean = [-np.log(np.asarray(energy_errors(Orbit(skewed, 1.6 / n, n, 4), x, p)[1])).mean() for n in (16, 32)]
    assert np.log2(mean[0] / mean[1]) < 1.5


def test_mean_of_exp_energy_error_is_one(x64):
    """∫ π(x) N(p) exp(−ΔH) = 1, by the volume that the leapfrog keeps: quadrature, no accept step."""
    mesh, weight = grid(1501, 40)
    x, p = jnp.asarray(mesh[:, :1]), jnp.asarray(mesh[:, 1:])

    def ratio(y, momentum):
        start = point_at(log_gamma, y)
        end, out = leapfrog(log_gamma, start, momentum, jnp.asarray(0.15), 4)
        return jnp.exp(end.log_density - start.log_density + 0.5 * jnp.sum(momentum**2 - out**2))

    assert np.asarray(compile_small(jax.vmap(ratio))(x, p)) @ weight == pytest.approx(1.0, abs=1e-6)


def test_one_leapfrog_step_is_mala(x64, seed):
    rng = np.random.default_rng(seed)
    x, e, u = (jnp.asarray(v) for v in (rng.normal(size=(50, 3)), rng.normal(size=(50, 3)), rng.uniform(size=50)))
    scale = jnp.asarray([0.5, 1.0, 2.0])
    mala, hmc = MetropolisLangevin(skewed, 0.09, scale), HamiltonianMonteCarlo(skewed, 0.3, 1, scale, 0.0)
    one, info = moved(mala, begun(mala, x), Decision(e, u))
    other, info_other = moved(hmc, begun(hmc, x), Shot(e, u, u))
    assert one.position == pytest.approx(np.asarray(other.position), abs=1e-10)
    assert info.acceptance == pytest.approx(np.asarray(info_other.acceptance), abs=1e-9)


def test_jitter_spreads_the_step(x64):
    flat = HamiltonianMonteCarlo(lambda x: 0.0 * jnp.sum(x), 0.1, 5, 2.0, 0.5)  # without a force it flies straight
    shot = Shot(jnp.ones((3, 1)), jnp.zeros(3), jnp.asarray([0.0, 0.5, 1.0]))
    end = np.asarray(moved(flat, begun(flat, jnp.zeros((3, 1))), shot)[0].position)[:, 0]
    assert end == pytest.approx([0.5, 1.0, 1.5], abs=1e-12)


# --- what a bad number does -------------------------------------------------------------------------------------------


def edgy(x):
    """−∞ beyond 2, NaN beyond 3, +∞ beyond 4; N(0, 1) else."""
    y = x[0]
    beyond = jnp.where(y > 4, jnp.inf, jnp.where(y > 3, jnp.nan, -jnp.inf))
    return jnp.where(y > 2, beyond, -0.5 * y**2)


def test_what_is_no_density_is_rejected():
    x = jnp.zeros((4, 1))
    jumps = jnp.asarray([[1.0], [2.5], [3.5], [4.5]])
    for kernel, shot in (
        (RandomWalk(edgy, 1.0), Decision(jumps, jnp.zeros(4))),
        (MetropolisLangevin(edgy, 1.0), Decision(jumps, jnp.zeros(4))),
        (HamiltonianMonteCarlo(edgy, 1.0, 1, 1.0, 0.0), Shot(jumps, jnp.zeros(4), jnp.zeros(4))),
    ):
        state, info = moved(kernel, begun(kernel, x), shot)
        assert np.asarray(state.position)[:, 0].tolist() == [1.0, 0.0, 0.0, 0.0]
        assert info.divergent.tolist() == [0.0, 0.0, 1.0, 1.0]
        assert info.acceptance.tolist()[1:] == [0.0, 0.0, 0.0]
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((state, info)))


def test_a_large_energy_error_is_a_divergence():
    steep = HamiltonianMonteCarlo(lambda x: -50.0 * jnp.sum(x**2), 1.0, 3, 1.0, 0.0)
    x = jnp.ones((1, 2))
    state, info = moved(steep, begun(steep, x), Shot(x, jnp.zeros(1), jnp.zeros(1)))
    assert info.divergent.tolist() == [1.0] and info.acceptance.tolist() == [0.0] and np.array_equal(state.position, x)


def test_an_unstable_langevin_stops_the_run(key):
    many = Many(Langevin(lambda x: -0.25 * jnp.sum(x**4), 1.0))
    finished = run(many, key, many.init(key, 3 * jnp.ones((4, 2))), 100)
    assert not finished.healthy and "non-finite" in finished.stopped and np.isfinite(finished.state.position).all()


@compile_small
def stepped(many, key, x):
    state = many.init(key, x)
    noise = many.noise(key, state)
    return state, noise, *many.move(state, noise, None)


PATH = Path(normal, StandardNormal(2), 0.5)
EVERY = [
    RandomWalk(PATH, 0.3),
    Langevin(PATH, 0.1),
    MetropolisLangevin(PATH, 0.3),
    UnderdampedLangevin(PATH, 0.3),
    HamiltonianMonteCarlo(PATH, 0.3, 3),
]


@pytest.mark.parametrize("kernel", EVERY, ids=lambda kernel: type(kernel).__name__)
def test_the_contract_of_every_kernel(kernel, key):
    x = jax.random.normal(key, (3, 2))
    state, noise, new, info = stepped(Many(kernel), key, x)
    assert {"acceptance", "log_density", "divergent"} <= set(info._fields)
    assert jax.tree.map(lambda a: (a.shape, a.dtype), new) == jax.tree.map(lambda a: (a.shape, a.dtype), state)
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves((new, info)))
    alone = moved(kernel, *jax.tree.map(lambda leaf: leaf[1:2], (state, noise)))[0]
    assert alone.position[0] == pytest.approx(np.asarray(new.position)[1], abs=1e-5)
    warmer = at(kernel, 1.0, 0.05)
    assert float(warmer.log_density.beta) == 1.0 and float(warmer.step_size) == pytest.approx(0.05)


# --- random numbers ---------------------------------------------------------------------------------------------------


def test_threefry_is_that_of_jax(key):
    from jax.extend.random import threefry_2x32

    data, counter = jax.random.key_data(key), jnp.arange(5, dtype=jnp.uint32)
    theirs = threefry_2x32(data, jnp.concatenate([counter, jnp.zeros(5, jnp.uint32)]))
    assert np.array_equal(np.concatenate(threefry(data, counter)), theirs)


def test_chance_is_normal_and_uniform(key):
    from scipy.stats import kstest

    n = 25_000
    draw = compile_small(jax.vmap(lambda k: chance(k, 2, 2)))
    normals, uniforms = (np.asarray(v, float) for v in draw(jax.random.split(key, n)))
    both = np.concatenate([normals, np.sqrt(12) * (uniforms - 0.5)], axis=1)
    for i in range(2):
        assert kstest(normals[:, i], "norm").statistic < 2.63 / math.sqrt(n)
        assert kstest(uniforms[:, i], "uniform").statistic < 2.63 / math.sqrt(n)
    assert np.abs(np.corrcoef(both.T) - np.eye(4)).max() * math.sqrt(n) < 4.75
    assert uniforms.min() >= 0 and uniforms.max() < 1
    assert chance(key, 3)[1].shape == (0,)


def test_chance_in_double_precision(x64, key):
    values, uniform = chance(key, 3, 1, jnp.float64)
    assert values.dtype == uniform.dtype == jnp.float64


# --- warm-up ----------------------------------------------------------------------------------------------------------

WIDTHS = np.array([0.01, 1.0, 30.0], np.float32)


def uneven(x):
    return -0.5 * jnp.sum((x / WIDTHS) ** 2)


@pytest.mark.parametrize("kernel", [RandomWalk(uneven, 1.0), HamiltonianMonteCarlo(uneven, 5.0)])
def test_warm_up_finds_scale_and_acceptance(kernel, key):
    x = jax.random.normal(key, (64, 3))
    tuned_kernel, tuned = warm_up(kernel, key, x, 600)
    assert tuned.scale == pytest.approx(WIDTHS, rel=0.25)
    assert tuned.acceptance == pytest.approx(tuned.target, abs=0.05)
    assert tuned.positions.shape == (64, 3) and tuned.steps == 600
    _, same = warm_up(kernel, key, x, 600)
    assert np.array_equal(tuned.step_size, same.step_size) and np.array_equal(tuned.positions, same.positions)
    fresh = retune(type(kernel)(uneven, 123.0), tuned)
    assert float(fresh.step_size) == float(tuned_kernel.step_size) == float(tuned.step_size)
    assert np.array_equal(fresh.scale, tuned.scale)
    with pytest.raises(UsageError, match="does not fit Langevin"):
        retune(Langevin(uneven, 1.0), tuned)


def test_warm_up_of_unadjusted_kernels(key):
    """They take MALA's step at acceptance .95; in units of the law's width the bias of the variance is small."""
    x = jax.random.normal(key, (64, 3))
    langevin, found = warm_up(Langevin(uneven, 1.0), key, x, 600)
    kinetic, other = warm_up(UnderdampedLangevin(uneven, 1.0), key, x, 600)
    assert found.target == other.target == 0.95
    assert float(kinetic.step_size) == pytest.approx(math.sqrt(float(langevin.step_size)), rel=0.05)
    assert 0.1 < float(langevin.step_size) < 1.0  # bias of the variance Δt/4 in units of the scale


def test_the_schedule():
    for steps in (1, 5, 19, 20, 100, 149, 150, 151, 400, 1000, 2000):
        plan = schedule(steps)
        assert plan.shape == (steps, 2) and plan[plan[:, 1], 0].sum() == plan[:, 1].sum()
        sizes = np.diff(np.flatnonzero(np.concatenate([[True], plan[plan[:, 0].argmax() :, 1]])))
        assert steps < 20 or (plan[:, 1].any() and not plan[-1].any() and np.all(sizes[1:] >= 2 * sizes[:-1]))


def test_warm_up_refuses(key):
    with pytest.raises(UsageError, match="-inf at the start of 1 of 2 chains"):
        warm_up(RandomWalk(boxed, 0.1), key, jnp.asarray([[0.5, 0.5], [2.0, 0.5]]), 50)
    with pytest.raises(UsageError, match="no acceptance"):
        warm_up(StochasticLangevin(lambda x, _: -jnp.sum(x**2), 0.1), key, jnp.zeros((2, 2)), 50)
    kernel, tuned = warm_up(RandomWalk(boxed, 1.0), key, jnp.full((8, 2), 0.5), 0)
    assert float(kernel.step_size) == 1.0 and tuned.steps == 0 and math.isnan(tuned.acceptance)


def broken_score(x):
    """A log density that is finite where its score is not."""
    return -jnp.sum(jnp.sqrt(jnp.abs(x)))


def test_warm_up_that_breaks_down(key):
    with pytest.raises(FitError, match="broke down"):
        warm_up(HamiltonianMonteCarlo(broken_score, 0.1, 2), key, jnp.zeros((2, 1)), 20)


# --- positions --------------------------------------------------------------------------------------------------------

EXAMPLE = {"mu": 0.0, "share": np.zeros((2, 2)), "tau": 1.0, "theta": np.zeros(3), "top": 0.0}
BOUNDS = {"tau": (0, None), "share": (np.array([[-1.0, 0.0], [0.0, 0.0]]), 2.0), "top": (None, 5)}
SHARES = ("share[0,0]", "share[0,1]", "share[1,0]", "share[1,1]")
NAMES = ("mu", *SHARES, "tau", "theta[0]", "theta[1]", "theta[2]", "top")  # the order of JAX's pytrees


@compile_small
def carried(there, z):
    tree = there.constrain(z)
    jacobian = jax.jacfwd(there.coordinates)(z)
    return tree, there.unconstrain(tree), there.coordinates(z), jacobian, there.log_jacobian(z)


def test_positions_there_and_back(x64, seed):
    there = space(EXAMPLE, BOUNDS)
    assert there.names == NAMES and there.dim == 10
    z = jnp.asarray(2 * np.random.default_rng(seed).normal(size=10))
    tree, back, x, jacobian, log_jacobian = carried(there, z)
    assert tree["tau"] > 0 and tree["top"] < 5 and np.all((tree["share"] > -1) & (tree["share"] < 2))
    assert np.all(tree["share"].ravel()[1:] > 0) and tree["mu"] == z[0]
    assert back == pytest.approx(np.asarray(z), abs=1e-9)
    assert np.array_equal(jacobian, np.diag(np.diag(jacobian)))
    assert np.log(np.abs(np.diag(jacobian))).sum() == pytest.approx(float(log_jacobian), abs=1e-12)
    assert there.tree(np.tile(x, (7, 1)))["share"].shape == (7, 2, 2)


def test_far_out_gradients_are_finite(x64):
    there = space(EXAMPLE, BOUNDS)
    for far in (-800.0, 800.0):  # e^800 overflows, in the branches that do not count
        z = jnp.where(jnp.asarray([name in ("tau", "top") for name in NAMES]), -1.0, far)
        assert (
            np.isfinite(jax.grad(there.log_jacobian)(z)).all() and np.isfinite(jax.jacfwd(there.coordinates)(z)).all()
        )


@pytest.mark.parametrize("bounds", [(0, None), (None, 0.5), (-1, 2)])
def test_a_lifted_density_keeps_its_mass(x64, bounds):
    there = space(np.zeros(1), bounds)
    low, high = (-np.inf if bounds[0] is None else bounds[0]), (np.inf if bounds[1] is None else bounds[1])
    lifted = there.lift(lambda x: -0.5 * jnp.sum((x - 0.3) ** 2) - 0.5 * jnp.log(2 * jnp.pi))
    z = np.linspace(-40, 40, 20001)
    mass = np.exp(np.asarray(jax.vmap(lifted)(jnp.asarray(z)[:, None]))).sum() * (z[1] - z[0])
    phi = [0.5 * (1 + math.erf((edge - 0.3) / math.sqrt(2))) for edge in (low, high)]
    assert mass == pytest.approx(phi[1] - phi[0], abs=1e-9)
    forgotten = np.exp(
        np.asarray(jax.vmap(lambda v: lifted.log_density(there.constrain(v)))(jnp.asarray(z)[:, None]))
    ).sum() * (z[1] - z[0])
    assert abs(forgotten - (phi[1] - phi[0])) > 0.1  # without the Jacobian: seen


def test_positions_refuse():
    with pytest.raises(UsageError, match="no numbers"):
        space({})
    with pytest.raises(UsageError, match="no 'tua' to bound"):
        space({"tau": 1.0}, {"tua": (0, None)})
    with pytest.raises(UsageError, match="leave no room"):
        space(np.zeros(2), (1, 1))
    with pytest.raises(UsageError, match="has shapes"):
        space(np.zeros(2)).unconstrain(np.zeros(3))
    assert space(0.0).names == ("x",) and space([0.0, np.zeros(1)]).names == ("0", "1[0]")


def test_a_space_is_a_static_part_of_a_program():
    lifted = space({"a": 1.0}, (0, None)).lift(lambda x: -x["a"])
    assert hash(jax.tree.structure(eqx.filter(lifted, eqx.is_array))) is not None
    assert float(compile_small(lambda f, z: f(z))(lifted, jnp.zeros(1))) == -1.0
