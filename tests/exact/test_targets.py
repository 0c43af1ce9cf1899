"""Laws known exactly, in float64: normalisation, scores, marginals, conditionals, entropies, enumerations."""

from __future__ import annotations

import itertools
import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.scipy.special import logsumexp

from mulligan.catalog import LAWS
from mulligan.core import Density, Sampler, capabilities, score_of
from mulligan.errors import DataError, UsageError
from mulligan.targets.counting import Histogram
from mulligan.targets.curves import NoisyCurve, Rings, two_spirals, upper_and_lower_moon
from mulligan.targets.discrete import Enumerated, Ising, Potts, RestrictedBoltzmann
from mulligan.targets.gaussian import Gaussian
from mulligan.targets.known import disc_shares, gauss_legendre, log_prob_float64
from mulligan.targets.mixture import GaussianMixture
from mulligan.targets.named import draw_rows, draw_table, law, law_names
from mulligan.targets.shapes import GaussianHoles

PLANE = [name for name in LAWS if name not in ("ising-3x3", "potts-2x3", "rbm-6x4")]
LATTICE = ["ising-3x3", "potts-2x3", "rbm-6x4"]


@pytest.fixture
def x64():
    with jax.enable_x64(True):
        yield


def a_gaussian() -> Gaussian:
    return Gaussian.from_covariance([0.3, -0.2, 1.0], [[1.0, 0.4, -0.3], [0.4, 0.8, 0.2], [-0.3, 0.2, 1.5]])


def a_mixture() -> GaussianMixture:
    covariances = np.array([[[1.0, 0.4], [0.4, 0.5]], [[0.3, -0.1], [-0.1, 0.9]], [[1.0, 0.0], [0.0, 1.0]]])
    return GaussianMixture.from_covariances([0.25, 0.75, 0.0], [[-1.0, 0.5], [1.0, -0.3], [0.0, 0.0]], covariances)


def on_grid(log_p, axes):
    """exp log_p summed over a tensor grid of (nodes, weights) per axis."""
    points = np.stack(np.meshgrid(*(nodes for nodes, _ in axes), indexing="ij"), axis=-1).reshape(-1, len(axes))
    weights = np.ones(1)
    for _, w in axes:
        weights = np.multiply.outer(weights, w)
    return float(weights.reshape(-1) @ np.exp(np.asarray(log_p(jnp.asarray(points)))))


def trapezoid(low, high, n):
    nodes = np.linspace(low, high, n)
    return nodes, np.full(n, nodes[1] - nodes[0])


# --- Gaussian and mixture ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [lambda: a_gaussian().marginal([2, 0]), a_mixture], ids=["gaussian", "mixture"])
def test_integrates_to_one(x64, make):
    model = make()
    assert on_grid(jax.vmap(model.log_prob), [trapezoid(-12, 12, 241)] * 2) == pytest.approx(1, abs=1e-10)
    twin = lambda x: jax.vmap(model.log_prob)(x) + 0.01  # noqa: E731 - a density off by one per cent is seen
    assert abs(on_grid(twin, [trapezoid(-12, 12, 241)] * 2) - 1) > 1e-3


@pytest.mark.parametrize("make", [a_gaussian, a_mixture], ids=["gaussian", "mixture"])
def test_marginal_is_the_integral_over_the_rest(x64, make):
    model = make()
    nodes, weights = trapezoid(-12, 12, 481)
    joint = model if model.dim == 2 else model.marginal([0, 2])
    for at in (-0.7, 1.3):
        direct = logsumexp(jax.vmap(lambda y, at=at: joint.log_prob(jnp.stack([at, y])))(jnp.asarray(nodes)), b=weights)
        assert float(joint.marginal([0]).log_prob(jnp.array([at]))) == pytest.approx(float(direct), abs=1e-10)
        flipped = joint.marginal([-1, 0]).log_prob(jnp.array([0.2, at]))
        assert float(flipped) == pytest.approx(float(joint.log_prob(jnp.array([at, 0.2]))), abs=1e-12)


@pytest.mark.parametrize("make", [a_gaussian, a_mixture], ids=["gaussian", "mixture"])
@pytest.mark.parametrize("index", [[0], [1], [-1]])
def test_condition_is_joint_over_marginal(x64, make, index):
    model, at = make(), jnp.array([0.4])
    observed = index[0] % model.dim
    free = [j for j in range(model.dim) if j != observed]
    conditional = model.condition(index, at)
    for y in np.random.default_rng(0).normal(size=(5, len(free))):
        x = jnp.zeros(model.dim).at[observed].set(at[0]).at[jnp.array(free)].set(y)
        expected = model.log_prob(x) - model.marginal(index).log_prob(at)
        assert float(conditional.log_prob(jnp.asarray(y))) == pytest.approx(float(expected), abs=1e-11)


def test_gaussian_marginal_against_covariance(x64):
    model = a_gaussian()
    np.testing.assert_allclose(model.marginal([2, 0]).covariance, model.covariance[jnp.ix_(*[jnp.array([2, 0])] * 2)])
    C, m = np.asarray(model.covariance), np.asarray(model.mean)
    given = model.condition([1, 2], [0.5, -1.0])
    solve = C[:1, 1:] @ np.linalg.inv(C[1:, 1:])
    np.testing.assert_allclose(given.mean, m[:1] + solve @ (np.array([0.5, -1.0]) - m[1:]), atol=1e-12)
    np.testing.assert_allclose(given.covariance, C[:1, :1] - solve @ C[1:, :1], atol=1e-12)
    _, logdet = np.linalg.slogdet(2 * np.pi * np.e * C)
    assert model.entropy().value == pytest.approx(0.5 * logdet, abs=1e-12)


def test_mixture_weight_of_zero_is_legal_everywhere(x64):
    model, x = a_mixture(), jnp.array([0.3, -2.0])
    without = GaussianMixture(model.log_weights[:2], model.means[:2], model.choleskys[:2])
    assert float(model.log_prob(x)) == pytest.approx(float(without.log_prob(x)), abs=1e-13)
    assert model.responsibilities(x)[2] == 0
    assert float(model.responsibilities(x).sum()) == pytest.approx(1, abs=1e-14)
    assert np.isfinite(model.condition([0], [0.1]).log_prob(x[1:]))
    gradient = jax.grad(lambda m: m.log_prob(x))(model)
    assert all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(gradient))
    assert bool(jnp.isfinite(jax.grad(model.log_prob)(x)).all())


def test_mixture_moments(x64):
    model = a_mixture()
    nodes, weights = trapezoid(-12, 12, 241)
    x = np.stack(np.meshgrid(nodes, nodes, indexing="ij"), -1).reshape(-1, 2)
    p = np.exp(np.asarray(jax.vmap(model.log_prob)(jnp.asarray(x)))) * weights[0] ** 2
    np.testing.assert_allclose(model.mean, p @ x, atol=1e-10)
    np.testing.assert_allclose(model.covariance, (x * p[:, None]).T @ x - np.outer(p @ x, p @ x), atol=1e-10)


def test_mixture_log_weights_may_be_unnormalised(x64):
    model, x = a_mixture(), jnp.zeros(2)
    shifted = GaussianMixture(model.log_weights + 3.0, model.means, model.choleskys)
    assert float(shifted.log_prob(x)) == pytest.approx(float(model.log_prob(x)), abs=1e-13)


def test_mixture_solves_no_triangular_system_per_row():
    model = a_mixture()
    text = str(jax.make_jaxpr(jax.vmap(model.log_prob))(jnp.zeros((777, 2))))
    solves = [line for line in text.splitlines() if "triangular_solve" in line]
    assert solves and not any("777" in line for line in solves)


def test_mixture_float32_keeps_its_digits_far_from_zero():
    shift = 2000.0
    model = GaussianMixture.from_covariances([0.5, 0.5], [[shift], [shift + 1]], [[[1e-2]], [[1e-2]]])
    near = GaussianMixture.from_covariances([0.5, 0.5], [[0.0], [1.0]], [[[1e-2]], [[1e-2]]])
    x = jnp.array([0.25])
    assert float(model.log_prob(x + shift)) == pytest.approx(float(near.log_prob(x)), abs=1e-4)


@pytest.mark.parametrize("bad", [[], [3], [0, 0], [-4], [0.5]], ids=str)
def test_bad_index_is_a_usage_error(bad):
    with pytest.raises(UsageError):
        a_gaussian().marginal(bad)


def test_bad_condition_is_an_error():
    with pytest.raises(UsageError, match="2 values for 1"):
        a_gaussian().condition([0], [1.0, 2.0])
    with pytest.raises(UsageError, match="every coordinate"):
        a_gaussian().condition([0, 1, 2], [1.0, 2.0, 3.0])
    with pytest.raises(DataError, match="positive definite"):
        Gaussian.from_covariance([0.0, 0.0], [[1.0, 2.0], [2.0, 1.0]])


# --- The named laws of the plane --------------------------------------------------------------------------------------

ENTROPIES = {  # NUMBERS.md, 2-D laws
    "eight-gaussians": (1.69806, 6e-6),
    "grid-gaussians": (0.06529, 6e-6),
    "checkerboard": (3.46574, 6e-6),
    "circles": (3.26814, 6e-6),
    "rings": (2.62318, 6e-6),
    "moons": (1.009, 5e-3),
}


@pytest.mark.parametrize("name", sorted(ENTROPIES))
def test_entropy_of_the_numbers_page(name):
    number, tolerance = ENTROPIES[name]
    assert law(name).entropy().value == pytest.approx(number, abs=tolerance)


def test_entropy_of_other_rings_of_gaussians():
    assert GaussianHoles.ring(8, 4 / 1.414, 0.5 / 1.414).entropy().value == pytest.approx(2.83188, abs=6e-6)
    assert GaussianHoles.ring(8, 1.0, 0.15).entropy().value == pytest.approx(1.09323, abs=6e-6)
    assert NoisyCurve.moons(0.05).entropy().value == pytest.approx(0.292, abs=5e-3)


def test_entropy_of_separated_modes_is_closed():
    q = law("grid-gaussians").entropy()
    assert q.contains(math.log(25) + math.log(2 * math.pi * math.e * 0.05**2)) and q.high - q.low < 1e-5


def warped(name, x):
    """Coordinates in which the law is smooth on a box, as x(y) and log |dx/dy|."""
    if name == "funnel":
        return np.stack([x[:, 0], x[:, 1] * np.exp(x[:, 0] / 2)], -1), x[:, 0] / 2
    if name == "banana":
        return np.stack([x[:, 0], x[:, 1] + 0.25 * (x[:, 0] ** 2 - 4)], -1), 0 * x[:, 0]
    if name == "rosenbrock":
        return np.stack([x[:, 0], x[:, 1] + x[:, 0] ** 2], -1), 0 * x[:, 0]
    return x, 0 * x[:, 0]


BOXES = {  # name: (low, high, points) for each axis
    "eight-gaussians": [(-4, 4, 161)] * 2,
    "grid-gaussians": [(-4.5, 4.5, 541)] * 2,
    "moons": [(-2, 3, 151), (-1.5, 2, 106)],
    "circles": [(-6, 6, 241)] * 2,
    "rings": [(-4, 4, 401)] * 2,
    "spirals": [(-4, 4, 241)] * 2,
    "pinwheel": [(-7, 7, 561)] * 2,
    "banana": [(-20, 20, 101), (-5, 5, 101)],
    "funnel": [(-28, 28, 101), (-9, 9, 91)],
    "double-well": [(-6, 6, 241), (-9, 9, 91)],
    "rosenbrock": [(-30, 32, 101), (-3, 3, 101)],
}


@pytest.mark.parametrize("name", [name for name in PLANE if name != "checkerboard"])
def test_named_law_integrates_to_one(name):
    axes = [trapezoid(*box) for box in BOXES[name]]
    y = np.stack(np.meshgrid(*(a for a, _ in axes), indexing="ij"), -1).reshape(-1, 2)
    x, log_jacobian = warped(name, y)
    p = np.exp(log_prob_float64(law(name), x) + log_jacobian)
    area = axes[0][1][0] * axes[1][1][0]
    # A law made in float32 has a weight, an sd and a log Z that are off by 1e-7.
    assert p.sum() * area == pytest.approx(1, abs=1e-6)
    q = law(name).entropy()
    entropy = -(p * np.where(p > 0, np.log(np.where(p > 0, p, 1)) - log_jacobian, 0)).sum() * area
    assert q.value == pytest.approx(entropy, abs=2e-6)
    assert q.unit == "nats" and q.kind in ("exact", "numeric")


def test_checkerboard_is_uniform_on_half_of_the_square():
    axis = np.arange(-4.75, 5, 0.5)
    x = np.stack(np.meshgrid(axis, axis), -1).reshape(-1, 2)
    p = np.exp(log_prob_float64(law("checkerboard"), x))
    assert p.sum() * 0.25 == pytest.approx(1, abs=1e-14)
    assert set(np.unique(p)) == {0.0, p.max()}
    assert p[(np.abs(x) > 4).any(axis=1)].max() == 0


@pytest.mark.parametrize("name", PLANE)
def test_score_is_the_slope_of_log_prob(x64, name):
    model, step = law(name), 1e-6
    x = np.concatenate([draw_rows(name, 16, data_seed=3), np.zeros((1, 2))])
    score = np.asarray(eqx.filter_jit(lambda y: jax.vmap(score_of(model).score)(y))(jnp.asarray(x)))
    assert np.isfinite(score).all()
    log_p = lambda offset: log_prob_float64(model, x[:-1] + step * offset)  # noqa: E731
    slope = [(log_p(e) - log_p(-e)) / (2 * step) for e in np.eye(2)]
    np.testing.assert_allclose(score[:-1], np.stack(slope, -1), rtol=2e-6, atol=2e-6)


@pytest.mark.parametrize("name", law_names())
def test_contract_of_a_law(name):
    model = law(name)
    assert capabilities(model) == ("Sampler", "Density") and isinstance(model, Sampler) and isinstance(model, Density)
    with jax.numpy_dtype_promotion("strict"):
        sample, log_prob = eqx.filter_jit(model.sample), eqx.filter_jit(model.log_prob)
        x = sample(jax.random.key(1))
        value = log_prob(x)
    assert x.shape == (model.dim,) and value.shape == () and x.dtype == value.dtype == jnp.float32
    assert float(value) == pytest.approx(log_prob_float64(model, np.asarray(x)[None])[0], rel=1e-4, abs=1e-4)
    assert np.isfinite(value)
    for j in range(model.dim):
        assert np.isnan(log_prob(x.at[j].set(jnp.nan)))
    np.testing.assert_array_equal(x, sample(jax.random.key(1)))


@pytest.mark.parametrize(
    ("curve", "power", "nodes", "reach"), [(upper_and_lower_moon, 1, 192, 4.0), (two_spirals, 2, 640, 6.3)]
)
def test_nodes_of_a_curve_are_enough(x64, curve, power, nodes, reach):
    x = np.random.default_rng(0).uniform(-reach, reach, size=(400, 2))
    log_p = lambda n: log_prob_float64(NoisyCurve(curve, 0.1, power, n), x)  # noqa: E731
    fine = log_p(2 * nodes)
    # The values reach −2000, so that 1e-9 is twelve digits.
    np.testing.assert_allclose(log_p(nodes), fine, rtol=1e-11, atol=1e-8)
    assert np.abs(log_p(nodes // 6) - fine).max() > 1e-3


def test_moons_are_those_of_scikit_learn():
    from sklearn.datasets import make_moons

    points, _ = make_moons(200, shuffle=False)
    ours = np.asarray(jax.vmap(upper_and_lower_moon)(jnp.linspace(0, 1, 100)))
    np.testing.assert_allclose(np.concatenate([ours[:, 0], ours[:, 1]]), points, atol=1e-6)


def test_rings_are_the_integral_over_the_angle(x64):
    model = Rings(jnp.array([3.0, 0.75]), jnp.array(0.24))
    angle = 2 * np.pi * np.arange(2000) / 2000
    circle = np.stack([np.cos(angle), np.sin(angle)], -1)
    for x in ([0.0, 0.0], [0.5, -0.4], [2.0, 2.5], [-4.0, 1.0]):
        square = ((np.array(x) - np.array([3.0, 0.75])[:, None, None] * circle) ** 2).sum(-1)
        direct = np.log(np.mean(np.exp(-square / (2 * 0.24**2))) / (2 * np.pi * 0.24**2))
        assert float(model.log_prob(jnp.array(x))) == pytest.approx(direct, abs=1e-11)


# --- Holes ------------------------------------------------------------------------------------------------------------

HOLES = {"eight-gaussians": 8, "grid-gaussians": 25, "checkerboard": 8, "pinwheel": 5, "double-well": 2}


@pytest.mark.parametrize("name", law_names())
def test_holes_are_disjoint_discs_of_true_mass(name):
    holes = law(name).holes
    if name not in HOLES:
        assert holes is None
        return
    assert holes.centres.shape == (HOLES[name], 2) and holes.shares.shape == (HOLES[name],)
    gap = np.linalg.norm(holes.centres[:, None] - holes.centres, axis=-1) + 1e9 * np.eye(HOLES[name])
    assert gap.min() >= 2 * holes.radius - 1e-6
    assert 0.5 < holes.shares.sum() < 1
    # An independent count: midpoints of a fine grid that fall into the first disc.
    offset = (np.arange(-400, 400) + 0.5) / 400 * holes.radius
    disc = np.stack(np.meshgrid(offset, offset), -1).reshape(-1, 2)
    inside = disc[(disc**2).sum(-1) < holes.radius**2]
    mass = np.exp(log_prob_float64(law(name), holes.centres[0] + inside)).sum() * (holes.radius / 400) ** 2
    assert holes.shares[0] == pytest.approx(mass, rel=1e-3)


def test_shares_in_closed_form_equal_quadrature():
    model = GaussianHoles.ring(8, 1.0, 0.15)
    np.testing.assert_allclose(
        model.holes.shares, disc_shares(model, model.holes.centres, model.holes.radius), atol=1e-7
    )
    assert model.holes.shares.sum() > 1 - math.exp(-4.5)  # neighbours reach in: not 1/k of each


# --- Lattices ---------------------------------------------------------------------------------------------------------


def brute(name, model):
    """Every state with exp f, straight from the definition."""
    states = np.array(list(itertools.product(range(model.levels), repeat=model.dim)), float)
    if name == "rbm-6x4":
        hidden = np.array(list(itertools.product((0, 1), repeat=4)), float)
        W, b, c = (np.asarray(a, float) for a in (model.W, model.b, model.c))
        return states, np.exp(states @ W @ hidden.T + (states @ b)[:, None] + hidden @ c).sum(axis=1)
    side, beta = ((3, 3), 0.44) if name == "ising-3x3" else ((2, 3), 0.5)
    f = []
    for state in states:
        grid = (2 * state - 1 if name == "ising-3x3" else state).reshape(side)
        pairs = [(grid[1:], grid[:-1]), (grid[:, 1:], grid[:, :-1])]
        agree = sum((a * b).sum() if name == "ising-3x3" else (a == b).sum() for a, b in pairs)
        f.append(beta * agree)
    return states, np.exp(np.array(f))


@pytest.mark.parametrize("name", LATTICE)
def test_enumeration_against_brute_force(x64, name):
    model = law(name)
    states, weight = brute(name, model)
    p = weight / weight.sum()
    ours = np.asarray(jax.vmap(model.log_prob)(jnp.asarray(states)))
    np.testing.assert_allclose(ours, np.log(p), atol=1e-10)
    assert np.exp(ours).sum() == pytest.approx(1, abs=1e-12)
    assert float(model.log_z) == pytest.approx(math.log(weight.sum()), abs=1e-11)
    assert model.entropy().value == pytest.approx(-(p * np.log(p)).sum(), abs=1e-11)
    for v in range(model.levels):
        np.testing.assert_allclose(model.marginals[:, v], p @ (states == v), atol=1e-12)
    assert float(model.log_prob(jnp.full(model.dim, 0.5))) == -np.inf
    assert float(model.log_prob(jnp.full(model.dim, float(model.levels)))) == -np.inf


def test_periodic_ising_counts_each_pair_once(x64):
    model = Ising((3,), 0.3, periodic=True)
    assert float(model.log_z) == pytest.approx(
        math.log((2 * math.cosh(0.3)) ** 3 + (2 * math.sinh(0.3)) ** 3), abs=1e-12
    )
    assert len(Ising((3, 3), 0.3, periodic=True).edges) == 18 and len(Ising((2, 2), 0.3, periodic=True).edges) == 4


def test_ising_chain_and_potts_in_closed_form(x64):
    assert float(Ising((10,), 0.7).log_z) == pytest.approx(math.log(2 * (2 * math.cosh(0.7)) ** 9), abs=1e-11)
    assert float(Potts((6,), 3, 0.7).log_z) == pytest.approx(math.log(3 * (math.exp(0.7) + 2) ** 5), abs=1e-11)


def test_too_many_states_is_a_usage_error():
    with pytest.raises(UsageError, match="1,048,576"):
        Ising((5, 5), 0.4)
    with pytest.raises(UsageError, match="1,048,576"):
        RestrictedBoltzmann(np.zeros((21, 2)), np.zeros(21), np.zeros(2))


# --- Histogram --------------------------------------------------------------------------------------------------------


def counted(d, tails, pseudo):
    rng = np.random.default_rng(d)
    rows = rng.uniform(0, 1, size=(200, d)) ** 2
    edges = [np.sort(np.concatenate([[0.0, 1.0], rng.uniform(0.05, 0.95, size=3)])) for _ in range(d)]
    return rows, Histogram.from_rows(rows, edges, pseudo, tails)


@pytest.mark.parametrize("d", [1, 2, 3, 4])
@pytest.mark.parametrize(("tails", "pseudo"), [(False, 0.0), (True, 0.5)])
def test_histogram_identities(x64, d, tails, pseudo):
    rows, model = counted(d, tails, pseudo)
    assert int(model.counts.sum()) == 200
    assert float(model.joint.sum()) == pytest.approx(1, abs=1e-12)
    assert model.expectation(lambda x: jnp.ones(()), nodes=2).value == pytest.approx(1, abs=1e-12)
    for j in range(d):  # equality of integers
        column = Histogram.from_rows(rows[:, [j]], [model.edges[j]], pseudo, tails)
        np.testing.assert_array_equal(model.marginal([j]).counts, column.counts)
    for x in jnp.asarray(rows[:2]):
        assert float(model.factorization(x).sum()) == pytest.approx(float(model.log_prob(x)), abs=1e-12)
        if d > 1:
            marginal, conditional = model.marginal([d - 1]), model.conditional([d - 1], x[d - 1 :])
            product = marginal.log_prob(x[d - 1 :]) + conditional.log_prob(x[: d - 1])
            assert float(product) == pytest.approx(float(model.log_prob(x)), abs=1e-12)
    mean = model.expectation(lambda x: x[0], nodes=3)
    assert mean.value == pytest.approx(model.marginal([0]).expectation(lambda x: x[0], nodes=3).value, abs=1e-12)


def test_histogram_against_numpy(x64):
    rows, model = counted(2, False, 0.0)
    density, *_ = np.histogram2d(rows[:, 0], rows[:, 1], bins=[np.asarray(e) for e in model.edges], density=True)
    centres = [np.asarray((e[1:] + e[:-1]) / 2) for e in model.edges]
    x = jnp.asarray(np.stack(np.meshgrid(*centres, indexing="ij"), -1).reshape(-1, 2))
    np.testing.assert_allclose(np.exp(jax.vmap(model.log_prob)(x)), density.reshape(-1), atol=1e-12)


def test_histogram_tower_rule(x64):
    _, model = counted(2, True, 0.5)
    h = lambda x: x[0] * x[1] ** 2  # noqa: E731
    edges = np.asarray(model.edges[0])
    width = np.diff(edges)
    middles = np.concatenate([[edges[0] - width[0]], (edges[1:] + edges[:-1]) / 2, [edges[-1] + width[-1]]])
    outer = np.asarray(model.marginal([0]).joint)
    # h is linear in x₀, whose mean in each cell is its middle (in a tail, one scale beyond the edge).
    inner = [model.conditional([0], [m]).expectation(lambda y, m=m: h(jnp.stack([m, y[0]]))).value for m in middles]
    assert float(outer @ np.array(inner)) == pytest.approx(model.expectation(h).value, abs=1e-12)


def test_histogram_with_tails_integrates_to_one(x64):
    model = Histogram.from_rows([[0.2], [0.6], [-1.0], [4.0], [5.0]], [[0.0, 0.5, 2.0]], 0.25, tails=True)
    assert model.counts.tolist() == [1, 1, 1, 2]
    pieces = [gauss_legendre(60, *ends) for ends in ((-20.0, 0.0), (0.0, 0.5), (0.5, 2.0), (2.0, 70.0))]
    total = sum(w @ np.exp(np.asarray(jax.vmap(model.log_prob)(jnp.asarray(x)[:, None]))) for x, w in pieces)
    assert total == pytest.approx(1, abs=1e-10)
    mass = (np.array([1, 1, 1, 2]) + 0.25) / 6
    assert model.expectation(lambda x: x[0]).value == pytest.approx(mass @ [-0.5, 0.25, 1.25, 3.5], abs=1e-12)
    assert np.isfinite(model.log_prob(jnp.array([1e6])))


def test_histogram_tolerance_is_rounding_for_polynomials(x64):
    _, model = counted(2, True, 0.5)
    found = model.expectation(lambda x: x[0] ** 3 * x[1] ** 2 - x[1])
    assert found.high - found.low < 1e-9 * (1 + abs(found.value))


@pytest.mark.parametrize("tails", [False, True])
def test_histogram_tolerance_holds_for_a_step(x64, tails):
    """E 1[x > t] is known for each t. The tolerance that compares 6 nodes with 4 covers 69 % of steps in one cell."""
    model = Histogram([[0.0, 1.0, 3.0]], [1, 5, 2, 4] if tails else [5, 2], 0.0, tails)
    mass, edges = np.asarray(model.joint), np.array([0.0, 1.0, 3.0])
    if tails:
        above = lambda t: mass[1] * np.clip(1 - t, 0, 1) + mass[2] * np.clip((3 - t) / 2, 0, 1)  # noqa: E731
        truth = lambda t: mass[0] * (1 - np.exp(min(t, 0.0))) + above(t) + mass[3] * np.exp(-max(t - 3, 0) / 2)  # noqa: E731
        steps = np.linspace(-3.0, 8.0, 60)
    else:
        truth = lambda t: mass[0] * np.clip(1 - t, 0, 1) + mass[1] * np.clip((3 - t) / 2, 0, 1)  # noqa: E731
        steps = np.linspace(0.005, 2.99, 60)
    steps = steps[np.abs(steps[:, None] - edges).min(1) > 0.008]  # nearer to an edge no node sees it
    for t in steps:
        found = model.expectation(lambda x, t=t: (x[0] > t) * 1.0)
        assert found.contains(truth(t)), (t, found)
        assert found.high - found.low < 1


def test_histogram_tolerance_of_a_jump_in_the_middle():
    """Both symmetric rules say exactly .5, and agreed on a tolerance of 2e-7."""
    found = Histogram([[0, 1]], [5]).expectation(lambda x: (x[0] > 0.47) * 1.0)
    assert found.contains(0.53) and found.high - found.value > 0.03
    assert found.value == pytest.approx(0.5, abs=1e-6)


def test_histogram_edges_and_outside():
    model = Histogram.from_rows([[0.0], [0.5], [1.0]], [[0.0, 0.5, 1.0]])
    assert model.counts.tolist() == [1, 2]
    assert float(model.log_prob(jnp.array([1.0]))) == pytest.approx(math.log(4 / 3), abs=1e-6)
    assert float(model.log_prob(jnp.array([1.01]))) == -np.inf and float(model.log_prob(jnp.array([-0.01]))) == -np.inf
    assert np.isnan(model.log_prob(jnp.array([jnp.nan])))
    # 0.3 and 0.1·3 differ in float64 and agree in float32: counting and log_prob take the same side.
    grid = Histogram.from_rows([[0.1 * 3]] * 4, [[0.0, 0.3, 1.0]])
    assert float(grid.log_prob(jnp.array([0.1 * 3]))) > -np.inf


def test_histogram_refuses_what_it_cannot_count():
    with pytest.raises(DataError, match="2 rows lie outside"):
        Histogram.from_rows([[0.5], [2.0], [-1.0]], [[0.0, 1.0]])
    with pytest.raises(DataError, match="not finite"):
        Histogram.from_rows([[0.5], [np.nan]], [[0.0, 1.0]])
    with pytest.raises(UsageError, match="counts of shape"):
        Histogram([[0.0, 1.0]], [1, 2])
    empty = Histogram.from_rows([[0.2, 0.2]], [[0.0, 0.5, 1.0]] * 2)
    with pytest.raises(DataError, match="nothing to count"):
        empty.conditional([0], [0.7])
    with pytest.raises(DataError, match="nothing to count"):
        empty.conditional([0], [7.0])
    with pytest.raises(UsageError):
        empty.conditional([0, 1], [0.2, 0.2])


# --- Names and tables -------------------------------------------------------------------------------------------------


def test_names_are_those_of_the_catalog():
    assert law_names() == LAWS


def test_unknown_name_suggests_the_nearest():
    with pytest.raises(UsageError, match=r"DO: .*moons"):
        law("moon")
    with pytest.raises(UsageError, match="at least one row"):
        draw_table("moons", rows=0)


@pytest.mark.parametrize("name", ["moons", "ising-3x3", "potts-2x3"])
def test_table_of_a_law(name):
    table = draw_table(name, rows=50, data_seed=4)
    longer = draw_table(name, rows=80, data_seed=4)
    np.testing.assert_array_equal(longer.values[:50], table.values)
    assert not np.array_equal(draw_table(name, rows=50, data_seed=5).values, table.values)
    assert table.source.law == name and table.treated_as_iid and table.values.dtype == np.float64
    np.testing.assert_array_equal(table.values, table.values.astype(np.float32))
    kinds = {column.kind for column in table.schema.columns}
    assert kinds == {"moons": {"continuous"}, "ising-3x3": {"binary"}, "potts-2x3": {"categorical"}}[name]
    if isinstance(law(name), Enumerated):
        assert set(np.unique(table["s1"])) == set(range(law(name).levels))
    with jax.enable_x64(True):
        np.testing.assert_array_equal(draw_table(name, rows=50, data_seed=4).values, table.values)
