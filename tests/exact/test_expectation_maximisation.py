"""EM in float64: one step against brute force, a likelihood that never falls, fixed points where the gradient is 0."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from saboteurs.maximisations import (
    DividedByOtherCounts,
    MomentWithoutCovariance,
    ShiftForgotten,
    ShiftSubtractedTwice,
    StepTooFar,
    WeightsForgotten,
)
from scipy.special import logsumexp
from scipy.stats import multivariate_normal

from mulligan.learners.expectation_maximisation import (
    BLOCK,
    COVARIANCES,
    FactorEM,
    FactorState,
    MixtureEM,
    MixtureState,
    mixture_em,
)
from mulligan.learners.seeding import seeded_state
from mulligan.loop import compile_small, repeat
from mulligan.models.factor import ppca_closed_form
from mulligan.targets.mixture import GaussianMixture

KEY = jax.random.key(0)  # EM draws nothing
climb = compile_small(repeat)


@pytest.fixture(autouse=True)
def x64():
    with jax.enable_x64(True):
        yield


def rows(n=300):
    rng = np.random.default_rng(0)
    means, spreads = np.array([[-2.0, 0.0], [1.5, 1.0], [0.5, -2.0]]), np.array([0.4, 0.8, 0.3])
    part = rng.choice(3, n, p=[0.3, 0.5, 0.2])
    x = means[part] + spreads[part, None] * rng.normal(size=(n, 2))
    return x @ np.array([[1.0, 0.4], [0.0, 0.7]])


def start(covariance, parts=3, padded=3, x=None):
    """A start inside the family, float64."""
    x = rows() if x is None else x
    state = seeded_state(x, parts, padded, np.random.default_rng(1))
    state = MixtureState(*(jnp.asarray(leaf, jnp.float64) for leaf in state))
    state = state._replace(weights=state.weights / state.weights.sum())
    return mixture_em(x, covariance, 0.0).init(KEY, state)


def covariances_of(state):
    return np.asarray(state.choleskys @ jnp.swapaxes(state.choleskys, 1, 2))


def brute_step(x, state, covariance, regularisation=0.0, weights=None):
    """(log-likelihood, weights, means, covariances) of one step, by the textbook (Bishop 2006, 9.23 to 9.26)."""
    n, d = x.shape
    row_weights = np.full(n, 1 / n) if weights is None else weights / weights.sum()
    pairs = zip(np.asarray(state.weights), np.asarray(state.means), covariances_of(state))
    joint = np.array([np.log(w) + multivariate_normal(m, c).logpdf(x) for w, m, c in pairs])
    log_p = logsumexp(joint, axis=0)
    r = np.exp(joint - log_p) * row_weights
    counts = r.sum(1)
    means = r @ x / counts[:, None]
    spread = np.array([(r[k, :, None] * (x - means[k])).T @ (x - means[k]) / counts[k] for k in range(len(counts))])
    if covariance == "tied":
        spread = np.broadcast_to(np.einsum("k,kij->ij", counts, spread), spread.shape)
    elif covariance == "diagonal":
        spread = spread * np.eye(d)
    elif covariance == "spherical":
        spread = np.trace(spread, axis1=1, axis2=2)[:, None, None] / d * np.eye(d)
    return row_weights @ log_p, counts, means, spread + regularisation * np.eye(d)


def step_error(kernel, state, expected):
    """Largest difference of one step from the brute force."""
    new, info = kernel.move(state, None, None)
    found = (info.log_likelihood, new.weights, new.means, covariances_of(new))
    return max(float(np.abs(np.asarray(a) - b).max()) for a, b in zip(found, expected))


# --- one step ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("regularisation", [0.0, 1e-2])
@pytest.mark.parametrize("covariance", COVARIANCES)
def test_one_step_is_the_textbooks(covariance, regularisation):
    x, state = rows(), start(covariance)
    expected = brute_step(x, state, covariance, regularisation)
    assert step_error(mixture_em(x, covariance, regularisation), state, expected) < 1e-11


@pytest.mark.parametrize("covariance", COVARIANCES)
def test_weights_are_repetitions(covariance):
    x, state = rows(100), start(covariance, x=rows(100))
    times = np.random.default_rng(2).integers(0, 4, size=100)
    weighted, _ = mixture_em(x, covariance, 0.0, times).move(state, None, None)
    repeated, _ = mixture_em(np.repeat(x, times, axis=0), covariance, 0.0).move(state, None, None)
    for a, b in zip(weighted, repeated):
        np.testing.assert_allclose(a, b, atol=1e-12)
    assert step_error(mixture_em(x, covariance, 0.0, times), state, brute_step(x, state, covariance, 0, times)) < 1e-11


@pytest.mark.parametrize(
    "broken", [ShiftForgotten, ShiftSubtractedTwice, StepTooFar, WeightsForgotten, DividedByOtherCounts]
)
def test_a_wrong_step_is_seen(broken):
    x, state = rows(), start("full")
    right = mixture_em(x, "full", 0.0)
    twin = broken(right.blocks, right.weights, right.shape, right.regularisation)
    assert step_error(twin, state, brute_step(x, state, "full")) > 1e-4


def test_padding_changes_nothing():
    x = rows(2 * BLOCK + 100)
    for k in (2 * BLOCK, 2 * BLOCK + 1, 2 * BLOCK + 100):  # full blocks, one row over, many over
        state = start("full", x=x[:k])
        assert step_error(mixture_em(x[:k], "full", 0.0), state, brute_step(x[:k], state, "full")) < 1e-11


def test_empty_parts_change_nothing():
    x, plain, padded = rows(), start("full", 3, 3), start("full", 3, 8)
    a, info_a = climb(mixture_em(x, "full", 1e-6), KEY, plain, 30)
    b, info_b = climb(mixture_em(x, "full", 1e-6), KEY, padded, 30)
    np.testing.assert_allclose(info_a.log_likelihood, info_b.log_likelihood, atol=1e-12)
    for name in MixtureState._fields:
        np.testing.assert_allclose(getattr(a, name), getattr(b, name)[:3], atol=1e-12)
    assert (b.weights[3:] == 0).all()


def test_an_outlier_does_not_bring_an_empty_part_to_life():
    """Rows at 0, where empty parts wait, far from a narrow part that is all there is."""
    x = np.concatenate([np.full((5, 2), 0.0), 8 + 1e-3 * np.random.default_rng(0).normal(size=(200, 2))])
    for dtype in (np.float64, np.float32):
        far = MixtureState(
            jnp.array([1.0, 0.0], dtype),
            jnp.array([[8.0, 8.0], [0.0, 0.0]], dtype),
            jnp.asarray(np.stack([1e-3 * np.eye(2), np.eye(2)]), dtype),
        )
        new, info = mixture_em(x.astype(dtype), "full", 1e-6).move(far, None, None)
        assert float(new.weights[1]) == 0.0 and np.isfinite(info.log_likelihood)


def test_a_dying_part_keeps_its_place():
    x, state = rows(), start("full")
    far = state._replace(means=state.means.at[2].set(1e4))
    new, info = mixture_em(x, "full", 0.0).move(far, None, None)
    assert float(new.weights[2]) < 1e-12 and np.isfinite(info.log_likelihood)
    np.testing.assert_array_equal(new.means[2], far.means[2])
    np.testing.assert_array_equal(new.choleskys[2], far.choleskys[2])
    assert all(np.isfinite(leaf).all() for leaf in new)


# --- many steps -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("covariance", COVARIANCES)
def test_the_likelihood_never_falls(covariance):
    state, info = climb(mixture_em(rows(), covariance, 0.0), KEY, start(covariance), 400)
    falls = -np.diff(info.log_likelihood)
    assert falls.max() < 1e-13, f"fell by {falls.max():.1e}"
    assert info.log_likelihood[-1] - info.log_likelihood[0] > 1e-3
    law = GaussianMixture(jnp.log(state.weights), state.means, state.choleskys)
    after = float(jax.vmap(law.log_prob)(jnp.asarray(rows())).mean())
    assert after == pytest.approx(float(info.log_likelihood[-1]), abs=1e-6) and after >= info.log_likelihood[-1] - 1e-13


def test_a_likelihood_that_falls_is_seen():
    right = mixture_em(rows(), "full", 0.0)
    twin = StepTooFar(right.blocks, right.weights, right.shape, right.regularisation)
    _, info = climb(twin, KEY, start("full"), 5)
    assert (-np.diff(info.log_likelihood)).max() > 1e-6


def gradient_norm(state):
    """Largest entry of the likelihood's gradient in (log weights, means, Cholesky factors), by autodiff."""
    x = jnp.asarray(rows())
    law = GaussianMixture(jnp.log(state.weights), state.means, state.choleskys)
    gradient = jax.grad(lambda law: jax.vmap(law.log_prob)(x).mean())(law)
    return max(
        float(jnp.abs(leaf).max()) for leaf in (gradient.log_weights, gradient.means, jnp.tril(gradient.choleskys))
    )


def test_the_fixed_point_is_stationary():
    kernel = mixture_em(rows(), "full", 0.0)
    state, _ = climb(kernel, KEY, start("full"), 1000)
    again, _ = kernel.move(state, None, None)
    for a, b in zip(state, again):
        np.testing.assert_allclose(a, b, atol=1e-12)
    assert gradient_norm(state) < 1e-9
    assert gradient_norm(start("full")) > 1e-3


def test_another_fixed_point_is_seen():
    right = mixture_em(rows(), "full", 0.0)
    twin = DividedByOtherCounts(right.blocks, right.weights, right.shape, right.regularisation)
    state, _ = climb(twin, KEY, start("full"), 1000)
    assert gradient_norm(state) > 1e-3


@pytest.mark.parametrize("covariance", COVARIANCES)
def test_structure_is_exact(covariance):
    """Zeros are 0 and equal parts are equal, from a start that is outside the family."""
    kernel = mixture_em(rows(), covariance, 1e-6)
    outside = seeded_state(rows(), 3, 4, np.random.default_rng(1))
    state, _ = climb(kernel, KEY, kernel.init(KEY, outside), 20)
    factors = np.asarray(state.choleskys)[:3]
    covariances = covariances_of(state)[:3]
    assert (np.triu(factors, 1) == 0).all() and (np.diagonal(factors, axis1=1, axis2=2) > 0).all()
    if covariance == "tied":
        assert np.array_equal(factors[0], factors[1]) and np.array_equal(factors[0], factors[2])
    if covariance in ("diagonal", "spherical"):
        assert (covariances[:, 0, 1] == 0).all()
    if covariance == "spherical":
        np.testing.assert_allclose(covariances[:, 0, 0], covariances[:, 1, 1], rtol=1e-14)
    if covariance == "full":
        assert np.abs(covariances[:, 0, 1]).min() > 1e-3 and not np.array_equal(factors[0], factors[1])


def test_families_are_nested():
    """At convergence from one start: full ≥ tied, and full ≥ diagonal ≥ spherical, up to other local optima."""
    best = {}
    for covariance in COVARIANCES:
        _, info = climb(mixture_em(rows(), covariance, 0.0), KEY, start(covariance), 400)
        best[covariance] = float(info.log_likelihood[-1])
    assert best["full"] > best["tied"] and best["full"] > best["diagonal"] > best["spherical"]


def test_kernel_refuses_unknown_covariances():
    with pytest.raises(ValueError, match="expected one of full, tied, diagonal, spherical"):
        mixture_em(rows(), "round", 0.0)
    with pytest.raises(ValueError, match="at least as many rows"):
        seeded_state(rows(3), 4, 8, np.random.default_rng(0))


def test_a_start_is_a_mixture_of_the_rows():
    x = rows(5000)  # more than are used for seeding
    state = seeded_state(x, 3, 8, np.random.default_rng(0))
    again = seeded_state(x, 3, 8, np.random.default_rng(0))
    assert all(np.array_equal(a, b) for a, b in zip(state, again))
    assert state.weights[:3].sum() == pytest.approx(1, abs=1e-6) and (state.weights[3:] == 0).all()
    nearest = np.linalg.norm(state.means[:3, None] - x, axis=2).min(1)
    assert nearest.max() < 0.5 and all(np.isfinite(leaf).all() for leaf in state)


def test_rows_that_are_all_equal_start_finite():
    state = seeded_state(np.ones((10, 2)), 3, 8, np.random.default_rng(0))
    assert all(np.isfinite(leaf).all() for leaf in state)


# --- factors ----------------------------------------------------------------------------------------------------------


def factor_covariance(isotropic):
    rng = np.random.default_rng(3)
    w = rng.normal(size=(6, 2)) * np.array([2.0, 1.0])
    psi = np.full(6, 0.3) if isotropic else rng.uniform(0.2, 0.8, 6)
    return w @ w.T + np.diag(psi)


def sample_covariance():
    x = np.random.default_rng(4).normal(size=(500, 6)) @ np.linalg.cholesky(factor_covariance(False)).T
    return np.cov(x.T, bias=True)


def factor_log_likelihood(s, loadings, noise):
    c = loadings @ loadings.T + jnp.diag(noise)
    d = len(s)
    return -0.5 * (d * jnp.log(2 * jnp.pi) + jnp.linalg.slogdet(c)[1] + jnp.trace(jnp.linalg.solve(c, s)))


def factor_start(q=2):
    rng = np.random.default_rng(5)
    return FactorState(jnp.asarray(rng.normal(size=(6, q))), jnp.full(6, 1.0))


def factor_kernel(s, isotropic, kind=FactorEM):
    return kind(jnp.asarray(s), jnp.asarray(0.0), isotropic)


def ppca_excess(kind):
    s = sample_covariance()
    state, _ = climb(factor_kernel(s, True, kind), KEY, factor_start(), 1000)
    w, variance = ppca_closed_form(s, 2)
    best = factor_log_likelihood(s, jnp.asarray(w), jnp.full(6, variance))
    return float(best - factor_log_likelihood(s, *state))


def test_ppca_by_em_reaches_the_closed_form():
    assert -1e-12 < ppca_excess(FactorEM) < 1e-8


def test_ppca_closed_form_beats_its_neighbours():
    s = sample_covariance()
    w, variance = ppca_closed_form(s, 2)
    best = factor_log_likelihood(s, jnp.asarray(w), jnp.full(6, variance))
    for seed in range(20):
        rng = np.random.default_rng(seed)
        near = jnp.asarray(w + 1e-3 * rng.normal(size=w.shape)), jnp.full(6, variance * np.exp(1e-3 * rng.normal()))
        assert factor_log_likelihood(s, *near) < best
    with pytest.raises(ValueError, match="expected 0 to 5"):
        ppca_closed_form(s, 6)


@pytest.mark.parametrize("isotropic", [True, False])
def test_factor_likelihood_never_falls_and_is_the_stated_one(isotropic):
    s, begin = sample_covariance(), factor_start()
    _, info = climb(factor_kernel(s, isotropic), KEY, begin, 500)
    assert (-np.diff(info.log_likelihood)).max() < 1e-12
    assert float(info.log_likelihood[0]) == pytest.approx(float(factor_log_likelihood(s, *begin)), abs=1e-10)


def factor_gradient(kind):
    s = sample_covariance()
    state, _ = climb(factor_kernel(s, False, kind), KEY, factor_start(), 4000)
    gradient = jax.grad(lambda w, log_psi: factor_log_likelihood(s, w, jnp.exp(log_psi)), argnums=(0, 1))
    return max(float(jnp.abs(leaf).max()) for leaf in gradient(state.loadings, jnp.log(state.noise)))


def test_factor_analysis_ends_where_the_gradient_is_zero():
    assert factor_gradient(FactorEM) < 1e-7


def test_factor_analysis_recovers_its_own_covariance():
    s = factor_covariance(False)
    state, _ = climb(factor_kernel(s, False), KEY, factor_start(), 4000)
    np.testing.assert_allclose(state.loadings @ state.loadings.T + jnp.diag(state.noise), s, atol=1e-6)


def test_wrong_factor_steps_are_seen():
    assert not abs(ppca_excess(MomentWithoutCovariance)) < 1e-8
    assert not factor_gradient(MomentWithoutCovariance) < 1e-7


def test_noise_stays_above_its_floor():
    s = np.diag([1.0, 1.0, 1.0]) + 0.999  # nearly one factor without noise
    s[0, 0] = 1.0
    kernel = FactorEM(jnp.asarray(s), jnp.asarray(1e-3), False)
    state, _ = climb(kernel, KEY, FactorState(jnp.ones((3, 1)), jnp.ones(3)), 200)
    assert float(state.noise.min()) >= 1e-3


def test_all_four_shapes_are_one_program():
    from mulligan.compilations import compilations

    kernels = [mixture_em(rows(), covariance, 0.0) for covariance in COVARIANCES]
    assert all(isinstance(kernel, MixtureEM) for kernel in kernels)
    state = start("full")
    climb(kernels[0], KEY, state, 5)
    with compilations() as seen:
        for kernel in kernels[1:]:
            climb(kernel, KEY, state, 5)
    assert seen.count == 0
