"""Continuous flows in float64: the velocity of known laws, the loss and its minimiser, pairing, log p of disturbed fields.

Each check refuses broken twins. What training comes to is in tests/recovery; laws of draws are in tests/laws.
"""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from saboteurs.continuous_flows import FLOWS, PAIRINGS, TARGETS, broken_error, uniform_times
from scipy.optimize import linear_sum_assignment

from mulligan.data.codec import Encoded
from mulligan.errors import UsageError
from mulligan.families.continuous_flow import STANDING, Design, finished
from mulligan.families.recipe import Outcome
from mulligan.loop import compile_small
from mulligan.measures.likelihood import point_log_prob
from mulligan.models.continuous_flow import Velocity, make_velocity
from mulligan.objectives.flow_matching import EARLIEST, FlowMatching, draw_times, paired, squared_error
from mulligan.objectives.likelihood import Rows
from mulligan.samplers.ode import solve
from mulligan.samplers.transported import transported
from mulligan.workbench.fitting import fit

MEAN, FACTOR = np.array([1.0, -2.0]), np.array([[3.0, 0.0], [-0.6, 0.5]])


@pytest.fixture
def x64():
    with jax.enable_x64(True):
        yield


def gaussian_rows(n=400):
    """Rows whose mean and covariance are exactly MEAN and FACTOR FACTORᵀ."""
    z = np.random.default_rng(0).normal(size=(n, 2))
    z = (z - z.mean(0)) @ np.linalg.inv(np.linalg.cholesky(np.cov(z.T, bias=True))).T
    return z @ FACTOR.T + MEAN


def a_field(size=0.0, straight=False, given=0, dim=2, frequencies=3) -> Velocity:
    """A velocity whose trained numbers are moved at random, in float64."""
    points = gaussian_rows() if dim == 2 else None
    made = make_velocity(
        dim,
        np.random.default_rng(1),
        width=8,
        depth=1,
        frequencies=frequencies,
        bandwidth=1.0,
        straight=straight,
        given=given,
        points=points,
    )
    rng = np.random.default_rng(2)
    network = jax.tree.map(lambda leaf: jnp.asarray(leaf + size * rng.normal(size=leaf.shape)), made.network)
    whole = jax.tree.map(lambda leaf: jnp.asarray(np.asarray(leaf), float), replace(made, network=network))
    return replace(whole, whitening=jnp.linalg.inv(whole.colouring))  # inverse to float64, not to float32


# --- known laws -------------------------------------------------------------------------------------------------------


def test_an_untrained_flow_is_the_gaussian_fit(x64):
    """log p, paths and samples in closed form: from x the path ends at x, on the way at x √((1 − t)² + t²)."""
    flow = transported(a_field(), steps=192)

    @compile_small
    def all_of(x):
        half = solve(flow.velocity, x, jnp.linspace(0.0, 0.5, 65), "rk4")
        return flow.log_prob(x), flow.to_noise(x), flow.from_noise(x)[0], half

    x = jnp.asarray([0.7, 1.1])
    log_p, noise, sample, half = all_of(x)
    white = np.linalg.solve(FACTOR, np.asarray(x) - MEAN)
    normal = -0.5 * white @ white - np.log(2 * np.pi * np.linalg.det(FACTOR))
    np.testing.assert_allclose(log_p, normal, rtol=1e-6)  # the whitening is kept in float32
    np.testing.assert_allclose(noise, white, atol=1e-6)
    np.testing.assert_allclose(sample, FACTOR @ np.asarray(x) + MEAN, atol=1e-6)
    np.testing.assert_allclose(half, np.asarray(x) * np.sqrt(0.5), atol=1e-8)


def two_points(x, t, given=None):
    """E[e − x_0 | x_t] where x_0 is ±1 in each coordinate alike: x_0's mean is tanh((1 − t) x/t²)."""
    mean = jnp.tanh((1 - t) * x / t**2)
    return (x - (1 - t) * mean) / t - mean


def excess(error) -> float:
    """How far loss(v + δ) − loss(v) is from E s|δ|²/d at the minimiser v, over a fixed δ, by quadrature over e."""
    nodes = np.linspace(-9, 9, 361)  # the trapezoid rule converges geometrically here
    normal = np.exp(-0.5 * nodes**2) / np.exp(-0.5 * nodes**2).sum()
    times, shares = [0.3, 0.6, 0.9], [0.2, 0.3, 0.5]  # it holds at each time by itself
    grid = [array.reshape(-1) for array in np.meshgrid([-1.0, 1.0], nodes, times, indexing="ij")]
    weight = np.einsum("i,j,k->ijk", [0.5, 0.5], normal, shares).reshape(-1)
    x, e, t = map(jnp.asarray, grid)

    def moved(x, t, given=None):
        return two_points(x, t) + jnp.sin(2 * x + t)

    @compile_small
    def losses():
        def each(model):
            return jax.vmap(lambda a, b, c: error(model, a[None, None], b[None, None], c[None]))(x, e, t)

        at = (1 - t) * x + t * e
        return each(moved) - each(two_points), ((1 - t) ** 2 + t**2) * jnp.sin(2 * at + t) ** 2

    difference, square = losses()
    return float(abs(weight @ (np.asarray(difference) - np.asarray(square))))


def test_the_loss_is_least_at_the_mean_direction(x64):
    assert excess(squared_error) < 1e-9


@pytest.mark.parametrize("fault", TARGETS)
def test_broken_targets_are_refused(x64, fault):
    assert excess(broken_error(TARGETS[fault])) > 1e-2


def test_the_velocity_of_two_points_carries_them_to_a_normal(x64):
    """From quantiles of the law at t = .02, two narrow clouds, the exact field leads to those of N(0, 1)."""
    from scipy.special import ndtr, ndtri

    start = 0.02
    level = np.linspace(0.02, 0.98, 24)
    grid = np.linspace(-1.2, 1.2, 40_001)
    mass = 0.5 * sum(ndtr((grid - side * (1 - start)) / start) for side in (-1, 1))
    x = jnp.asarray(np.interp(level, mass, grid)[:, None])
    times = jnp.asarray(start * (1 / start) ** np.linspace(0, 1, 801))
    end = compile_small(jax.vmap(lambda y: solve(two_points, y, times, "rk4")))(x)
    np.testing.assert_allclose(np.asarray(end)[:, 0], ndtri(level), atol=5e-3)


# --- times and pairs --------------------------------------------------------------------------------------------------


def uneven(times) -> float:
    """How unevenly the mass of density ½ + ½/(t log 1/ε) rises over a batch, relative to its mean rise."""
    rises = np.diff(times / (1 - EARLIEST) - np.log(times) / np.log(EARLIEST))
    return float(np.abs(rises / rises.mean() - 1).max())


def test_times_have_the_stated_density(key):
    times = np.asarray(draw_times(key, 256), float)
    assert uneven(times) < 0.02 and times.min() > EARLIEST and times.max() < 1
    assert uneven(np.asarray(uniform_times(key, 256), float)) > 0.5


def pairing_error(pair, seed) -> float:
    """Cost over the best, less 1; infinite where the noise is no longer the same set."""
    rng = np.random.default_rng(seed)
    x, e = np.sign(rng.normal(size=(200, 2))) + 0.1 * rng.normal(size=(200, 2)), rng.normal(size=(200, 2))
    found = np.asarray(pair(jnp.asarray(x), jnp.asarray(e)))
    if not np.array_equal(np.sort(found, 0), np.sort(e, 0)):
        return np.inf
    cost = ((x[:, None] - e) ** 2).sum(-1)
    return float(((x - found) ** 2).sum() / cost[linear_sum_assignment(cost)].sum() - 1)


def test_pairs_are_those_of_optimal_transport_up_to_a_few_percent(x64, seed):
    assert 0 <= pairing_error(paired, seed) < 0.06


@pytest.mark.parametrize("fault", PAIRINGS)
def test_broken_pairings_are_refused(x64, seed, fault):
    assert pairing_error(PAIRINGS[fault], seed) > 0.2


# --- log p of any field -----------------------------------------------------------------------------------------------

POINTS = np.random.default_rng(3).normal(size=(4, 2)) @ FACTOR.T + MEAN


def density_error(flow, of_map) -> float:
    """log p against log N of the end and the log-determinant of the whole map."""

    @compile_small
    def errors(points):
        def one(x):
            end = of_map.to_noise(x)
            log_det = jnp.linalg.slogdet(jax.jacfwd(of_map.to_noise)(x))[1]
            return flow.log_prob(x) - (-0.5 * end @ end - np.log(2 * np.pi) + log_det)

        return jax.vmap(one)(points)

    return float(jnp.abs(errors(jnp.asarray(POINTS))).max())


@pytest.mark.parametrize("straight", [False, True], ids=["preconditioned", "straight"])
def test_log_p_is_that_of_the_map_and_the_map_inverts(x64, straight):
    flow = transported(a_field(0.3, straight), steps=192)
    assert density_error(flow, flow) < 1e-6

    def there_and_back(x):
        noise = flow.to_noise(x)
        return noise, flow.from_noise(noise)[0]

    noise, back = compile_small(jax.vmap(there_and_back))(jnp.asarray(POINTS))
    np.testing.assert_allclose(back, POINTS, atol=1e-6)
    assert np.abs(np.asarray(noise) - POINTS).max() > 0.1


@pytest.mark.parametrize("fault", FLOWS)
def test_broken_flows_are_refused(x64, fault):
    flow = transported(a_field(0.3), steps=48)
    assert density_error(FLOWS[fault](flow), flow) > 1e-2


def test_a_flow_of_the_plane_integrates_to_one(x64):
    flow = transported(replace(a_field(0.3), whitening=jnp.eye(2), colouring=jnp.eye(2), mean=jnp.zeros(2)), steps=24)
    axis = np.linspace(-9, 9, 181)
    points = jnp.asarray(np.stack(np.meshgrid(axis, axis, indexing="ij"), -1).reshape(-1, 2))
    log_p = np.asarray(compile_small(lambda x: jax.vmap(flow.log_prob)(x))(points))
    assert np.exp(log_p).sum() * (axis[1] - axis[0]) ** 2 == pytest.approx(1, abs=1e-4)


def test_solvers_and_probes_agree(seed):
    """In float32, as models are: adaptive and fixed steps; the mean of many probes, within its own error."""
    field = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), a_field(0.3))
    rk4, heun, adaptive = (
        transported(field, steps=n, solver=s) for n, s in ((48, "rk4"), (192, "heun"), (1, "adaptive"))
    )
    probed = transported(field, steps=48, probes=1024)

    @compile_small
    def all_of(x):
        return [flow.log_prob(x) for flow in (rk4, heun, adaptive)], probed.each_log_prob(x), probed.log_prob(x)

    log_p, each, mean = all_of(jnp.asarray(POINTS[seed % 4], jnp.float32))
    np.testing.assert_allclose(log_p, np.full(3, log_p[0]), atol=1e-3)
    assert rk4.kind == heun.kind == adaptive.kind == "numeric" and probed.kind == "estimate"
    error = np.std(each) / 32
    assert 0 < error < 0.1 and abs(np.mean(each) - log_p[0]) < 4.75 * error and mean == pytest.approx(np.mean(each))
    lost = all_of(jnp.asarray([np.nan, 0.0], jnp.float32))
    assert np.isnan(lost[0]).all() and np.isnan(lost[2])


def test_what_is_given_matters(x64):
    flow = transported(a_field(0.3, given=2), steps=8)
    x, one, other = jnp.asarray([0.4, -0.2]), jnp.asarray([1.0, 0.0]), jnp.asarray([0.0, 1.0])
    scored = compile_small(flow.log_prob)
    assert abs(float(scored(x, one) - scored(x, other))) > 1e-3


# --- the family -------------------------------------------------------------------------------------------------------


def test_steps_are_doubled_until_log_p_stands():
    """A field that turns fast: 4 steps are far off, and what is kept is right to the stated hundredth."""
    field = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), a_field(0.8))
    coarse = transported(field, steps=4)
    rows = gaussian_rows(64)
    fitting = SimpleNamespace(select=Encoded(rows[:, None], np.zeros((64, 1))), seed=0)
    free = Design("quick", "independent", *[None] * 9)
    found = finished(Outcome(coarse, "", 0), fitting, free)
    kept = finished(Outcome(coarse, "", 0), fitting, replace(free, solver_steps=4))
    reference = point_log_prob(transported(field, steps=192), rows)
    off = {
        name: np.quantile(np.abs(point_log_prob(made.model, rows) - reference), 0.99)
        for name, made in (("found", found), ("kept", kept))
    }
    assert off["found"] < 2 * STANDING < 0.05 < off["kept"]
    assert found.model.strokes > 16 == kept.model.strokes and "twice as many move" in found.health[0]
    assert found.parameters == sum(leaf.size for leaf in jax.tree.leaves(field.network))


def test_paired_noise_is_refused_where_columns_are_given():
    rows = {"x": np.random.default_rng(0).normal(size=400), "y": np.random.default_rng(1).normal(size=400)}
    with pytest.raises(UsageError, match="coupling=optimal"):
        fit(rows, "continuous-flow", effort="quick", steps=1, given=["x"], coupling="optimal")


def test_the_optimal_coupling_has_shorter_paths(key):
    """The loss of v = 0 is the mean square of what it is to learn: the length of the paths."""
    field = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), a_field(straight=True))
    rows = Rows(jnp.asarray(gaussian_rows(256), jnp.float32))
    lengths = [
        float(compile_small(lambda c=c: FlowMatching(c)(field, key, rows)[0])()) for c in ("independent", "optimal")
    ]
    assert lengths[1] < 0.1 * lengths[0]


@pytest.mark.slow
@pytest.mark.parametrize(
    "law, bar", [("eight-gaussians", 0.05), ("moons", 0.05), ("rings", 0.08), ("checkerboard", 0.15)]
)
def test_gaps_to_known_laws(law, bar):
    """Standard effort, 10 000 rows: KL(p_true‖p_model) on 100 000 fresh rows."""
    made = fit(law, "continuous-flow", effort="standard")
    assert made.card["row"]["truth_gap"]["value"] <= bar
