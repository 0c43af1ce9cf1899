"""Fitting finds a known law: the excess loss over the law's own is what d free parameters cost, and no more.

For a regular model with d free parameters and n rows, 2n KL(truth ‖ fitted) is asymptotically chi-square with d degrees
of freedom (Wilks 1938): its mean is d/2n. The band is the chi-square's 2e-6 and 1 − 2e-6 quantiles over 2n, with 5 % of
slack for the asymptotics: below it a model has seen the truth, above it the optimum was missed. KL is computed, not
sampled: in closed form for Gaussians, by quadrature for the mixture in the plane.
"""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import chdtri
from shared_fits import FAMILIES

from mulligan.families.mixture import free_parameters
from mulligan.workbench.fitting import fit_prepared
from mulligan.workbench.preparation import prepare
from mulligan.workbench.sources import open_table
from mulligan.workbench.talk import Talk

ALPHA, ROWS, SLACK = 2e-6, 6000, 1.05


def band(parameters, n):
    """The KL divergences that are to be expected of d free parameters and n rows."""
    return chdtri(parameters, 1 - ALPHA) / (2 * n) / SLACK, chdtri(parameters, ALPHA) / (2 * n) * SLACK


def fitted_to(rows, family, **options):
    """(fitted, number of training rows)."""
    prepared = prepare(open_table(rows), 0)
    entry = FAMILIES[family]
    chosen = entry.parse_options(options)
    made, _, _ = fit_prepared(
        prepared, entry, None, chosen, seed=0, effort="standard", budget=None, steps=None, talk=Talk()
    )
    return made, len(prepared.split.train)


def gaussian_divergence(mean, covariance, other_mean, other_covariance):
    """KL(N(mean, covariance) ‖ N(other ...)) in closed form."""
    solved = np.linalg.solve(other_covariance, covariance)
    shift = other_mean - mean
    log_det = np.linalg.slogdet(solved)[1]
    return 0.5 * (np.trace(solved) - len(mean) - log_det + shift @ np.linalg.solve(other_covariance, shift))


def in_units(fitted, mean, covariance):
    """Moments of the latent law in the user's units."""
    scale = np.array([part.scale for part in fitted.codec.parts])
    return np.asarray(mean, float) * scale + [p.mean for p in fitted.codec.parts], np.asarray(covariance) * np.outer(
        scale, scale
    )


def factor_truth():
    rng = np.random.default_rng(3)
    loadings, noise = rng.normal(size=(5, 2)) * [2.0, 1.0], rng.uniform(0.3, 0.9, 5)
    return np.arange(5.0), loadings @ loadings.T + np.diag(noise)


def gaussian_case(seed):
    mean, covariance = factor_truth()
    rows = np.random.default_rng(seed).multivariate_normal(mean, covariance, ROWS)
    fitted, n = fitted_to(rows, "gaussian")
    inner = fitted.model
    moments = in_units(fitted, inner.mean, np.asarray(inner.covariance))
    return (mean, covariance), moments, 5 + 15, n


def factor_case(seed):
    mean, covariance = factor_truth()
    rows = np.random.default_rng(seed).multivariate_normal(mean, covariance, ROWS)
    fitted, n = fitted_to(rows, "factor", factors="2")
    inner = fitted.model
    loadings = np.asarray(inner.loadings, float)
    moments = in_units(fitted, inner.mean, loadings @ loadings.T + np.diag(np.asarray(inner.noise, float)))
    return (mean, covariance), moments, 5 + 5 * 2 + 5 - 1, n  # two loadings may be rotated: one angle is not free


@pytest.mark.parametrize("case", [gaussian_case, factor_case])
def test_excess_loss_is_what_the_parameters_cost(case, seed, request):
    truth, found, parameters, n = case(seed)
    low, high = band(parameters, n)
    excess = gaussian_divergence(*truth, *found)
    assert low < excess < high, (
        f"excess {excess:.2e} nats, expected {parameters / 2 / n:.2e} within [{low:.1e}, {high:.1e}], n {n}, seed {seed}; "
        f"pytest '{request.node.nodeid}'"
    )


@pytest.mark.parametrize("case", [gaussian_case, factor_case])
def test_small_faults_are_outside_the_band(case, seed):
    truth, (mean, covariance), parameters, n = case(seed)
    _, high = band(parameters, n)
    unbiased_forgotten = np.sqrt(np.diag(covariance))
    correlation = covariance / np.outer(unbiased_forgotten, unbiased_forgotten)
    faults = {
        "scale forgotten to be squared": np.outer(unbiased_forgotten, unbiased_forgotten) ** 0.9 * correlation,
        "variances too large by 12 per cent": 1.12 * covariance,
        "correlations forgotten": np.diag(np.diag(covariance)),
    }
    for name, wrong in faults.items():
        assert gaussian_divergence(*truth, mean, wrong) > high, name
    assert gaussian_divergence(*truth, mean + 0.1 * np.sqrt(np.diag(covariance)), covariance) > high


# --- mixture ----------------------------------------------------------------------------------------------------------

WEIGHTS = np.array([0.6, 0.4])
MEANS = np.array([[-2.0, 0.0], [1.5, 1.0]])
COVARIANCES = np.array([[[0.6, 0.2], [0.2, 0.4]], [[0.5, -0.2], [-0.2, 0.7]]])


def mixture_rows(seed):
    rng = np.random.default_rng(seed)
    part = rng.choice(2, ROWS, p=WEIGHTS)
    noise = np.einsum("nij,nj->ni", np.linalg.cholesky(COVARIANCES)[part], rng.normal(size=(ROWS, 2)))
    return MEANS[part] + noise


def mixture_log_prob(x):
    from scipy.special import logsumexp
    from scipy.stats import multivariate_normal

    terms = [np.log(w) + multivariate_normal(m, c).logpdf(x) for w, m, c in zip(WEIGHTS, MEANS, COVARIANCES)]
    return logsumexp(terms, axis=0)


def mixture_excess(log_prob):
    """KL(truth ‖ model) by the trapezoid rule, which is exact here to 1e-9."""
    axes = np.linspace(-7, 7, 141), np.linspace(-6, 7, 131)
    points = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 2)
    truth = mixture_log_prob(points)
    return float(np.sum(np.exp(truth) * (truth - log_prob(points)))) * 0.1**2


def test_mixture_excess_is_what_the_parameters_cost(seed, request):
    fitted, n = fitted_to(mixture_rows(seed), "mixture", parts="2", covariance="full")
    parameters = free_parameters(2, 2, "full")
    assert parameters == 1 + 4 + 6
    low, high = band(parameters, n)
    excess = mixture_excess(fitted.log_prob)
    assert low < excess < high, (
        f"excess {excess:.2e} nats, expected {parameters / 2 / n:.2e} within [{low:.1e}, {high:.1e}], n {n}, seed {seed}; "
        f"pytest '{request.node.nodeid}'"
    )
    found = np.sort(np.asarray(fitted.model.weights, float))
    np.testing.assert_allclose(found, np.sort(WEIGHTS), atol=1.1 * 4.75 * np.sqrt(0.24 / n))


@pytest.mark.parametrize("options", [{"parts": "1"}, {"parts": "2", "covariance": "spherical"}], ids=str)
def test_a_poorer_mixture_is_outside_the_band(options, seed):
    fitted, n = fitted_to(mixture_rows(seed), "mixture", **options)
    assert mixture_excess(fitted.log_prob) > band(11, n)[1]


def test_the_search_finds_the_number_of_parts(seed):
    """Left to itself the choice on select costs no more than one useless part would."""
    fitted, n = fitted_to(mixture_rows(seed), "mixture", covariance="full")
    assert mixture_excess(fitted.log_prob) < band(free_parameters(4, 2, "full"), n)[1]
