"""Splines and flows in float64: inverse, log-determinant, total mass, tails; each check refuses broken twins."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from saboteurs.flows import FLOWS, SPLINES

from mulligan.compilations import compilations
from mulligan.loop import compile_small
from mulligan.measures.likelihood import draw, point_log_prob
from mulligan.models.flow import Flow, make_flow
from mulligan.nets.mlp import make_mlp
from mulligan.nets.spline import inverse_spline, parameter_count, plain_spline, spline

BOUND = 4.0
KINDS = pytest.mark.parametrize("autoregressive", [False, True], ids=["coupling", "autoregressive"])


@pytest.fixture
def x64():
    with jax.enable_x64(True):
        yield


def disturbed(flow: Flow, size: float, seed: int = 0) -> Flow:
    """Every trained number moved at random, in float64: no layer is the identity, no mixing is orthogonal."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(
        lambda leaf: (
            jnp.asarray(leaf + size * rng.normal(size=leaf.shape)) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf
        ),
        flow,
    )


def a_flow(dim: int, autoregressive: bool = False, given: int = 0, layers: int = 2, size: float = 0.15) -> Flow:
    made = make_flow(
        dim,
        np.random.default_rng(1),
        layers=layers,
        width=8,
        depth=1,
        bins=4,
        bound=BOUND,
        given=given,
        autoregressive=autoregressive,
    )
    return disturbed(made, size)


# --- splines ----------------------------------------------------------------------------------------------------------


def spline_error(forward, inverse) -> float:
    """The worst of: inverse, both log-slopes against differentiation, values and slopes at the ends of the tails."""
    rng = np.random.default_rng(0)
    bins, m = 5, 400
    parameters = jnp.asarray(rng.normal(size=(parameter_count(bins), m)))
    x = jnp.asarray(rng.uniform(-1.4 * BOUND, 1.4 * BOUND, m))

    @compile_small
    def errors(parameters, x, ends):
        y, log_slope = forward(parameters, x, BOUND)
        back, log_back = inverse(parameters, y, BOUND)
        slope = jax.grad(lambda v: forward(parameters, v, BOUND)[0].sum())(x)
        y_ends, log_ends = jax.vmap(lambda end: forward(parameters, jnp.full(m, end), BOUND))(ends)
        return jnp.stack(
            [back - x, log_back + log_slope, jnp.exp(log_slope) - slope, *(jnp.abs(y_ends) - BOUND), *log_ends]
        )

    return float(np.abs(errors(parameters, x, jnp.asarray([-1.0, 1.0]) * BOUND * (1 - 1e-14))).max())


def test_a_spline_has_its_inverse_its_slope_and_smooth_tails(x64):
    assert spline_error(plain_spline, inverse_spline) < 1e-8
    assert spline_error(spline, inverse_spline) < 1e-8


@pytest.mark.parametrize("name", SPLINES)
def test_broken_splines_are_refused(x64, name):
    assert spline_error(*SPLINES[name]) > 1e-4


def test_the_gradient_by_hand_is_the_gradient(x64):
    rng = np.random.default_rng(2)
    parameters, x = jnp.asarray(rng.normal(size=(20, 300))), jnp.asarray(rng.uniform(-6, 6, 300))

    def loss(function):
        def value(p, v):
            y, log_slope = function(p, v, BOUND)
            return jnp.sum(jnp.sin(3 * y) + jnp.cos(v) * log_slope)

        return compile_small(jax.grad(value, (0, 1)))(parameters, x)

    for by_hand, automatic in zip(loss(spline), loss(plain_spline)):
        np.testing.assert_allclose(by_hand, automatic, atol=1e-11)


def test_parameters_of_zero_are_the_identity(x64):
    x = jnp.linspace(-6, 6, 101)
    y, log_slope = compile_small(lambda p: spline(p, x, BOUND))(jnp.zeros((parameter_count(7), 101)))
    np.testing.assert_allclose(y, x, atol=1e-12)
    np.testing.assert_allclose(log_slope, 0, atol=1e-12)


# --- flows ------------------------------------------------------------------------------------------------------------


def flow_error(flow) -> float:
    """The worst of inverse, log-determinants of both directions against the whole Jacobian, over a few points."""

    @jax.jit
    def errors(x):
        z, log_det = flow.to_latent(x)
        back, log_back = flow.from_latent(z)
        jacobian = jax.jacrev(lambda v: flow.to_latent(v)[0])(x)
        return jnp.concatenate([back - x, jnp.stack([log_det + log_back, log_det - jnp.linalg.slogdet(jacobian)[1]])])

    points = np.random.default_rng(3).normal(size=(5, flow.layers.mixing.shift.shape[-1]))
    return float(jnp.max(jnp.abs(jax.vmap(errors)(jnp.asarray(points)))))


# Two columns: in the plane below, and in `make test-slow`; five: there.
@KINDS
@pytest.mark.parametrize(
    "dim", [1, pytest.param(2, marks=pytest.mark.slow), 3, pytest.param(5, marks=pytest.mark.slow)]
)
def test_a_flow_inverts_and_its_log_determinant_is_that_of_its_jacobian(x64, dim, autoregressive):
    assert flow_error(a_flow(dim, autoregressive)) < 1e-8


@pytest.mark.parametrize("name", FLOWS)
def test_broken_flows_are_refused(x64, name):
    assert flow_error(FLOWS[name](a_flow(3, autoregressive="mask" in name))) > 1e-3


@KINDS
def test_the_autoregressive_layer_is_triangular(x64, autoregressive):
    layer = jax.tree.map(lambda leaf: leaf[0], a_flow(4, autoregressive).layers)

    def splines_only(x):
        return layer.forward(layer.mixing.inverse(x)[0], None, BOUND, 4)[0]

    jacobian = np.asarray(jax.jit(jax.jacrev(splines_only))(jnp.asarray([0.3, -0.5, 0.7, 0.1])))
    # Coupling: the first half is kept, and a moved coordinate does not see the other moved one.
    forbidden = np.triu_indices(4, 1) if autoregressive else ([0, 0, 0, 1, 1, 1, 2, 3], [1, 2, 3, 0, 2, 3, 3, 2])
    # Mixing there and back leaves rounding; what a mask forbids would be far larger.
    assert np.abs(jacobian[forbidden]).max() < 1e-12 < np.abs(np.tril(jacobian, -1)).max()


@KINDS
def test_a_flow_of_the_plane_integrates_to_one(x64, autoregressive):
    flow = a_flow(2, autoregressive)
    axis = np.linspace(-12, 12, 961)
    points = np.stack(np.meshgrid(axis, axis, indexing="ij"), -1)
    score = jax.jit(jax.vmap(flow.log_prob))
    density = np.stack([np.exp(score(block)) for block in points])  # jnp.split would be a program of 961 outputs
    mass = density.sum() * (axis[1] - axis[0]) ** 2
    assert mass == pytest.approx(1, abs=2e-5)  # once smooth at its knots: the trapezoid rule is of second order there


@KINDS
def test_nan_in_nan_out(autoregressive):
    flow = a_flow(3, autoregressive)
    assert np.isnan(flow.log_prob(jnp.asarray([0.0, np.nan, 1.0])))


@KINDS
def test_what_is_given_matters_and_is_needed_to_invert(x64, autoregressive):
    flow = a_flow(2, autoregressive, given=2)
    x, one, other = jnp.asarray([0.4, -0.2]), jnp.asarray([1.0, 0.0]), jnp.asarray([0.0, 1.0])
    assert abs(float(flow.log_prob(x, one) - flow.log_prob(x, other))) > 1e-3
    z, _ = flow.to_latent(x, one)
    np.testing.assert_allclose(flow.from_latent(z, one)[0], x, atol=1e-9)
    assert np.abs(np.asarray(flow.from_latent(z, other)[0]) - np.asarray(x)).max() > 1e-3


@KINDS
def test_draws_follow_the_density(key, autoregressive):
    """z of a draw is standard normal in every coordinate: Kolmogorov-Smirnov at the level of tests/laws."""
    from scipy.stats import kstest, norm

    flow = jax.tree.map(
        lambda leaf: leaf.astype(jnp.float32) if leaf.dtype == np.float64 else leaf, a_flow(2, autoregressive)
    )
    x = draw(flow, 25_000, int(jax.random.randint(key, (), 0, 2**30)))
    z = np.asarray(jax.jit(jax.vmap(lambda v: flow.to_latent(v)[0]))(jnp.asarray(x)), np.float64)
    for column in (*z.T, (z[:, 0] + z[:, 1]) / np.sqrt(2)):
        assert kstest(column, norm.cdf).statistic < 2.63 / np.sqrt(len(z))
    assert kstest(x[:, 0], norm.cdf).statistic > 2.63 / np.sqrt(len(x))  # of a flow that is not the identity


def test_depth_does_not_change_the_number_of_programs():
    points = np.zeros((10, 3), np.float32)
    for layers in (1, 2):
        point_log_prob(make_flow(3, np.random.default_rng(0), layers=layers, width=4), points)
    with compilations() as counted:
        point_log_prob(make_flow(3, np.random.default_rng(5), layers=2, width=4), points)
    assert counted.count == 0


def test_dim_is_checked():
    with pytest.raises(ValueError, match="dim is 0"):
        make_flow(0, np.random.default_rng(0))


def test_an_mlp_is_its_formula(x64):
    net = make_mlp([3, 5, 2], np.random.default_rng(0))
    net = jax.tree.map(lambda leaf: jnp.asarray(np.asarray(leaf, float) + 0.1), net)
    x = np.array([0.5, -1.0, 2.0])
    (w1, w2), (b1, b2) = (tuple(map(np.asarray, leaves)) for leaves in (net.weights, net.biases))
    h = w1 @ x + b1
    np.testing.assert_allclose(net(jnp.asarray(x)), w2 @ (h / (1 + np.exp(-h))) + b2, atol=1e-12)
