"""At identical parameters our numbers are scikit-learn's and scipy's, in float64; one EM step is scikit-learn's step."""

from __future__ import annotations

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import logsumexp
from scipy.stats import multivariate_normal
from sklearn.decomposition import PCA, FactorAnalysis
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture as SklearnMixture
from sklearn.neighbors import KernelDensity as SklearnKernelDensity

from mulligan.learners.expectation_maximisation import FactorEM, FactorState, MixtureState, mixture_em
from mulligan.loop import compile_small, repeat
from mulligan.models.factor import FactorModel, ppca_closed_form
from mulligan.models.kernel_density import KernelDensity
from mulligan.targets.mixture import GaussianMixture

TYPES = {"full": "full", "tied": "tied", "diagonal": "diag", "spherical": "spherical"}
KEY = jax.random.key(0)


@pytest.fixture(autouse=True)
def x64():
    with jax.enable_x64(True):
        yield


def rows(n=400, d=3):
    rng = np.random.default_rng(0)
    part = rng.integers(3, size=n)
    return 2 * rng.normal(size=(3, d))[part] + rng.normal(size=(n, d)) @ rng.normal(size=(d, d))


def factor_rows():
    rng = np.random.default_rng(1)
    loadings, noise = rng.normal(size=(6, 2)) * [2.0, 1.0], rng.uniform(0.3, 0.9, 6)
    return 3 + rng.normal(size=(400, 2)) @ loadings.T + rng.normal(size=(400, 6)) * np.sqrt(noise)


def sklearn_step(x, covariance, state, regularisation):
    """Weights, means and covariances (k, d, d) after one of scikit-learn's iterations from this state."""
    whole = np.asarray(state.choleskys @ jnp.swapaxes(state.choleskys, 1, 2))
    precisions = {
        "full": lambda: np.linalg.inv(whole),
        "tied": lambda: np.linalg.inv(whole[0]),
        "diag": lambda: 1 / np.diagonal(whole, axis1=1, axis2=2),
        "spherical": lambda: 1 / whole[:, 0, 0],
    }[TYPES[covariance]]()
    model = SklearnMixture(
        3,
        covariance_type=TYPES[covariance],
        reg_covar=regularisation,
        max_iter=1,
        weights_init=np.asarray(state.weights),
        means_init=np.asarray(state.means),
        precisions_init=precisions,
        random_state=0,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(x)
    d = x.shape[1]
    shaped = {
        "full": lambda c: c,
        "tied": lambda c: np.broadcast_to(c, (3, d, d)),
        "diag": lambda c: np.array([np.diag(row) for row in c]),
        "spherical": lambda c: c[:, None, None] * np.eye(d),
    }[TYPES[covariance]]
    return model, model.weights_, model.means_, shaped(model.covariances_)


def start(x, covariance):
    state = MixtureState(
        jnp.array([0.2, 0.3, 0.5]),
        jnp.asarray(x[:3]),
        jnp.linalg.cholesky(jnp.asarray([np.cov(x.T) * s for s in (0.5, 1.0, 0.7)])),
    )
    return mixture_em(x, covariance, 0.0).init(KEY, state)


@pytest.mark.parametrize("regularisation", [1e-6, 1e-2])
@pytest.mark.parametrize("covariance", TYPES)
def test_one_em_step_is_theirs(covariance, regularisation):
    x = rows()
    state = start(x, covariance)
    _, weights, means, covariances = sklearn_step(x, covariance, state, regularisation)
    new, _ = mixture_em(x, covariance, regularisation).move(state, None, None)
    np.testing.assert_allclose(new.weights, weights, rtol=1e-6)
    np.testing.assert_allclose(new.means, means, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(new.choleskys @ jnp.swapaxes(new.choleskys, 1, 2), covariances, rtol=1e-6, atol=1e-9)
    assert np.abs(np.asarray(state.means) - means).max() > 0.01  # the step went somewhere


@pytest.mark.parametrize("covariance", TYPES)
def test_mixture_log_prob_is_theirs(covariance):
    x = rows()
    model, weights, means, covariances = sklearn_step(x, covariance, start(x, covariance), 1e-6)
    ours = GaussianMixture.from_covariances(weights, means, covariances)
    log_p = jax.vmap(ours.log_prob)(jnp.asarray(x))
    np.testing.assert_allclose(log_p, model.score_samples(x), rtol=1e-6)
    scipys = logsumexp(
        [np.log(w) + multivariate_normal(m, c).logpdf(x) for w, m, c in zip(weights, means, covariances)], axis=0
    )
    np.testing.assert_allclose(log_p, scipys, rtol=1e-6)
    np.testing.assert_allclose(jax.vmap(ours.responsibilities)(jnp.asarray(x)), model.predict_proba(x), atol=1e-9)


@pytest.mark.parametrize("bandwidth", [0.1, 0.7])
def test_kernel_density_is_theirs(bandwidth):
    x = rows()
    # One leaf: with several, the tree's running bounds cost scikit-learn's log p up to 20 nats in the tails.
    theirs = SklearnKernelDensity(bandwidth=bandwidth, kernel="gaussian", leaf_size=1000).fit(x[:300])
    ours = KernelDensity(jnp.asarray(x[:300]), jnp.eye(3), jnp.asarray(bandwidth))
    log_p = jax.vmap(ours.log_prob)(jnp.asarray(x[300:]))
    np.testing.assert_allclose(log_p, theirs.score_samples(x[300:]), rtol=1e-6)


@pytest.mark.parametrize("factors", [1, 2, 4])
def test_ppca_is_theirs(factors):
    x = rows(d=6)
    theirs = PCA(factors, svd_solver="full").fit(x)
    w, variance = ppca_closed_form(np.cov(x.T), factors)  # scikit-learn divides by n − 1
    assert variance == pytest.approx(theirs.noise_variance_, rel=1e-9)
    ours = FactorModel(jnp.asarray(x.mean(0)), jnp.asarray(w), jnp.full(6, variance))
    np.testing.assert_allclose(jax.vmap(ours.log_prob)(jnp.asarray(x)), theirs.score_samples(x), rtol=1e-6)


def test_factor_analysis_is_theirs():
    x = factor_rows()
    theirs = FactorAnalysis(2, svd_method="lapack", tol=1e-9, max_iter=5000).fit(x)
    ours = FactorModel(
        jnp.asarray(theirs.mean_), jnp.asarray(theirs.components_.T), jnp.asarray(theirs.noise_variance_)
    )
    log_p = jax.vmap(ours.log_prob)(jnp.asarray(x))
    np.testing.assert_allclose(log_p, theirs.score_samples(x), rtol=1e-6)
    np.testing.assert_allclose(
        jax.vmap(lambda row: ours.posterior(row)[0])(jnp.asarray(x)), theirs.transform(x), rtol=1e-6, atol=1e-9
    )


def test_our_factor_analysis_reaches_their_optimum():
    x = factor_rows()
    theirs = FactorAnalysis(2, svd_method="lapack", tol=1e-9, max_iter=5000).fit(x)
    covariance = np.cov(x.T, bias=True)
    loadings, variance = ppca_closed_form(covariance, 2)
    kernel = FactorEM(jnp.asarray(covariance), jnp.asarray(1e-9), False)
    begin = FactorState(jnp.asarray(loadings), jnp.full(6, variance))
    state, info = compile_small(repeat)(kernel, KEY, begin, 5000)
    ours = FactorModel(jnp.asarray(x.mean(0)), *state)
    mean_log_p = float(jax.vmap(ours.log_prob)(jnp.asarray(x)).mean())
    assert mean_log_p == pytest.approx(float(info.log_likelihood[-1]), abs=1e-6)
    assert mean_log_p == pytest.approx(theirs.score(x), rel=1e-6)
