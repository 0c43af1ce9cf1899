"""A linear VAE learns probabilistic PCA: its log-likelihood is that of the closed form, to 1e-2 nats.

The ELBO of a linear-Gaussian model has no maximum below that of the likelihood, and there the posterior of some rotation of
the factors is diagonal, so the bound is tight (Lucas, Tucker, Grosse and Norouzi 2019). What the weights came to is
computed, not sampled.
"""

from __future__ import annotations

import numpy as np
from scipy.stats import multivariate_normal
from shared_fits import FAMILIES

from mulligan.measures.likelihood import row_log_prob
from mulligan.models.factor import ppca_closed_form
from mulligan.workbench.fitting import fit_prepared
from mulligan.workbench.preparation import prepare
from mulligan.workbench.sources import open_table
from mulligan.workbench.talk import Talk

ROWS, FACTORS, MOST = 2400, 2, 1e-2
OPTIONS = {"latent": FACTORS, "depth": 0, "noise": "shared", "importance": 1, "decay": 0.0, "draws": 20, "batch": 512}


def linear_vae(**changes):
    """(model, encoded training rows) of a linear VAE trained on rows with two factors."""
    rng = np.random.default_rng(3)
    loadings = rng.normal(size=(5, FACTORS)) * [2.0, 1.0]
    rows = rng.normal(size=(ROWS, FACTORS)) @ loadings.T + 0.7 * rng.normal(size=(ROWS, 5)) + np.arange(5.0)
    prepared, entry = prepare(open_table(rows), 0), FAMILIES["vae"]
    how = {"seed": 0, "effort": "standard", "budget": None, "steps": None, "talk": Talk()}
    fitted, _, _ = fit_prepared(prepared, entry, None, entry.parse_options({**OPTIONS, **changes}), **how)
    return fitted.model, prepared.train


def shortfalls(model, train):
    """How far log p of the training rows, and their bound, are below the maximum of probabilistic PCA."""
    points = train.points[:, 0]
    mean, covariance = points.mean(0), np.cov(points.T, bias=True)
    closed, variance = ppca_closed_form(covariance, FACTORS)
    best = multivariate_normal(mean, closed @ closed.T + variance * np.eye(5)).logpdf(points).mean()
    weights, bias = (np.asarray(leaf[0], float) for leaf in (model.decoder.weights, model.decoder.biases))
    noise = np.logaddexp(0, float(model.raw_scales[0])) + 1e-3
    learned = multivariate_normal(bias, weights @ weights.T + noise**2 * np.eye(5)).logpdf(points).mean()
    bound = np.mean(row_log_prob(model, train) - train.log_jacobian[:, 0])
    return best - learned, best - bound


def test_a_linear_vae_is_probabilistic_pca():
    learned, bound = shortfalls(*linear_vae())
    assert -1e-4 < learned < MOST and -1e-4 < bound < MOST, (learned, bound)


def test_another_weight_of_the_divergence_is_refused():
    learned, bound = shortfalls(*linear_vae(beta=2.0))
    assert learned > 2 * MOST and bound > 2 * MOST
