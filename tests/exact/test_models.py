"""Fitted models in float64: they integrate to 1, equal a brute force, let NaN through; posteriors by joint Gaussians."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import multivariate_normal

from mulligan.core import capabilities
from mulligan.models.empirical import Empirical
from mulligan.models.factor import FactorModel
from mulligan.models.kernel_density import KernelDensity


@pytest.fixture
def x64():
    with jax.enable_x64(True):
        yield


def kernel_density(dtype=float):
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(40, 2))
    cholesky = np.array([[0.9, 0.0], [0.4, 0.6]])
    whitened = np.linalg.solve(cholesky, centres.T).T
    model = KernelDensity(*(jnp.asarray(a, dtype) for a in (whitened, cholesky, 0.35)))
    parts = [multivariate_normal(c, 0.35**2 * cholesky @ cholesky.T) for c in centres]
    return model, lambda x: np.log(np.mean([part.pdf(x) for part in parts], axis=0))


def factor_model(dtype=float):
    rng = np.random.default_rng(1)
    mean, loadings, noise = rng.normal(size=3), rng.normal(size=(3, 2)), rng.uniform(0.2, 0.9, 3)
    model = FactorModel(*(jnp.asarray(a, dtype) for a in (mean, loadings, noise)))
    return model, multivariate_normal(mean, loadings @ loadings.T + np.diag(noise)).logpdf


def plane_integral(log_prob):
    axis = np.linspace(-15, 15, 601)
    points = np.stack(np.meshgrid(axis, axis, indexing="ij"), -1).reshape(-1, 2)
    return float(np.exp(np.asarray(log_prob(jnp.asarray(points)))).sum() * (axis[1] - axis[0]) ** 2)


def test_kernel_density_integrates_to_one(x64):
    model, _ = kernel_density()
    assert plane_integral(jax.vmap(model.log_prob)) == pytest.approx(1, abs=1e-9)
    wider = KernelDensity(model.whitened, model.cholesky, model.bandwidth * 1.001)
    without_norm = lambda x: jax.vmap(wider.log_prob)(x) + 2 * jnp.log(1.001)  # noqa: E731 - bandwidth not in the norm
    assert plane_integral(without_norm) > 1.001


def test_factor_model_integrates_to_one(x64):
    model, _ = factor_model()
    plane = FactorModel(model.mean[:2], model.loadings[:2], model.noise[:2])
    assert plane_integral(jax.vmap(plane.log_prob)) == pytest.approx(1, abs=1e-9)


@pytest.mark.parametrize("make", [kernel_density, factor_model])
def test_log_prob_equals_brute_force(x64, make):
    model, brute = make()
    x = 2 * np.random.default_rng(2).normal(size=(50, 2 if make is kernel_density else 3))
    np.testing.assert_allclose(jax.vmap(model.log_prob)(jnp.asarray(x)), brute(x), rtol=1e-11)


@pytest.mark.parametrize("make", [kernel_density, factor_model])
def test_float32_stays_close(make):
    model, brute = make(jnp.float32)
    x = 2 * np.random.default_rng(2).normal(size=(50, 2 if make is kernel_density else 3))
    np.testing.assert_allclose(jax.vmap(model.log_prob)(jnp.asarray(x, jnp.float32)), brute(x), rtol=2e-5, atol=2e-5)


def test_a_row_far_out_keeps_its_own_kernel():
    """float32: the centre at 60 standard deviations sees itself at distance 0 and its twin at a bandwidth."""
    h = 0.02
    centres = np.array([[0.0, 0.0], [60.0, 45.0]], np.float32)
    model = KernelDensity(jnp.asarray(centres), jnp.eye(2), jnp.float32(h))
    at = -np.log(2) - np.log(2 * np.pi * h**2)
    for offset in (0.0, h, 3 * h):
        x = centres[1] + np.array([offset, 0.0], np.float32)
        expected = at - 0.5 * ((float(x[0]) - 60.0) / h) ** 2
        assert float(model.log_prob(jnp.asarray(x))) == pytest.approx(expected, abs=2e-2)


@pytest.mark.parametrize("make", [kernel_density, factor_model])
def test_nan_in_nan_out(make):
    model, _ = make(jnp.float32)
    d = 2 if make is kernel_density else 3
    for j in range(d):
        x = jnp.zeros(d).at[j].set(jnp.nan)
        assert jnp.isnan(model.log_prob(x)) and jnp.isnan(jax.vmap(model.log_prob)(x[None]))[0]


def test_factor_posterior_is_the_joint_gaussians_conditional(x64):
    model, _ = factor_model()
    w, psi = np.asarray(model.loadings), np.diag(model.noise)
    x = np.array([0.3, -1.0, 2.0])
    gain = w.T @ np.linalg.inv(w @ w.T + psi)
    mean, covariance = model.posterior(jnp.asarray(x))
    np.testing.assert_allclose(mean, gain @ (x - np.asarray(model.mean)), atol=1e-12)
    np.testing.assert_allclose(covariance, np.eye(2) - gain @ w, atol=1e-12)
    # Bayes: log p(z) + log p(x | z) − log p(z | x) is log p(x), whatever z is.
    for z in np.random.default_rng(0).normal(size=(3, 2)):
        prior = multivariate_normal(np.zeros(2), np.eye(2)).logpdf(z)
        given = multivariate_normal(np.asarray(model.mean) + w @ z, psi).logpdf(x)
        posterior = multivariate_normal(np.asarray(mean), np.asarray(covariance)).logpdf(z)
        assert prior + given - posterior == pytest.approx(float(model.log_prob(jnp.asarray(x))), abs=1e-10)


def test_no_factors_is_independent_columns(x64):
    model = FactorModel(jnp.zeros(2), jnp.zeros((2, 0)), jnp.array([0.5, 2.0]))
    x = jnp.array([0.3, -1.0])
    expected = multivariate_normal(np.zeros(2), np.diag([0.5, 2.0])).logpdf(np.asarray(x))
    assert float(model.log_prob(x)) == pytest.approx(expected, abs=1e-12)
    assert model.sample(jax.random.key(0)).shape == (2,)


def test_capabilities_are_what_they_can_do():
    assert capabilities(kernel_density(jnp.float32)[0]) == ("Sampler", "Density")
    assert capabilities(factor_model(jnp.float32)[0]) == ("Sampler", "Density")
    assert capabilities(Empirical(jnp.zeros((3, 2)))) == ("Sampler",)


def test_empirical_draws_each_row_alike(key):
    model = Empirical(jnp.arange(5.0)[:, None])
    draws = np.asarray(jax.vmap(model.sample)(jax.random.split(key, 25_000)))[:, 0]
    counts = np.bincount(draws.astype(int), minlength=5)
    assert counts.sum() == 25_000 and np.abs(counts - 5000).max() < 4.75 * np.sqrt(5000 * 0.8)
