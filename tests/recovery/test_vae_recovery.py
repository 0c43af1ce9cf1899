"""A linear VAE learns probabilistic PCA: its log-likelihood is that of the closed form, to 1e-2 nats.

The ELBO of a linear-Gaussian model has no maximum below that of the likelihood, and there the posterior of some rotation of
the factors is diagonal, so the bound is tight (Lucas, Tucker, Grosse and Norouzi 2019). What the weights came to is
computed, not sampled; the weights kept are those after the last step.
"""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from scipy.stats import multivariate_normal

from mulligan.data.codec import Part
from mulligan.data.native import NativeCodec
from mulligan.data.table import Column, Schema
from mulligan.learners.gradient import Plan, train
from mulligan.measures.likelihood import point_log_prob
from mulligan.models.columns import columns_of
from mulligan.models.factor import ppca_closed_form
from mulligan.models.vae import make_vae
from mulligan.objectives.evidence import Evidence
from mulligan.objectives.likelihood import Rows

ROWS, DIM, FACTORS, MOST = 2000, 5, 2, 1e-2


def rows():
    """Rows with two factors, standardised."""
    rng = np.random.default_rng(3)
    loadings = rng.normal(size=(DIM, FACTORS)) * [2.0, 1.0]
    made = rng.normal(size=(ROWS, FACTORS)) @ loadings.T + 0.7 * rng.normal(size=(ROWS, DIM))
    return ((made - made.mean(0)) / made.std(0)).astype(np.float32)


def shortfalls(beta):
    """How far log p of the rows, and their bound IWAE-20, are below the maximum of probabilistic PCA."""
    points = rows()
    schema = Schema(tuple(Column(f"x{j}", "continuous") for j in range(DIM)))
    columns = columns_of(NativeCodec(schema, tuple(Part(j, 1) for j in range(DIM))))
    fresh = make_vae(columns, np.random.default_rng(0), latent=FACTORS, depth=0, noise="shared", draws=20)
    looks = iter(range(1000))  # each look is the best: no rows decide when to stop
    plan = Plan(3000, batch=500, rate=3e-2)
    model = train(Evidence(1, beta), fresh, Rows(jnp.asarray(points)), lambda model: next(looks), plan, 0).model
    closed, variance = ppca_closed_form(np.cov(points.T, bias=True), FACTORS)
    best = multivariate_normal(points.mean(0), closed @ closed.T + variance * np.eye(DIM)).logpdf(points).mean()
    weights, bias = (np.asarray(leaf[0], float) for leaf in (model.decoder.weights, model.decoder.biases))
    noise = np.logaddexp(0, float(model.raw_scales[0])) + 1e-3
    learned = multivariate_normal(bias, weights @ weights.T + noise**2 * np.eye(DIM)).logpdf(points).mean()
    return best - learned, best - point_log_prob(model, points).mean()


def test_a_linear_vae_is_probabilistic_pca():
    learned, bound = shortfalls(1.0)
    assert -1e-4 < learned < MOST and -1e-4 < bound < MOST, (learned, bound)


def test_another_weight_of_the_divergence_is_refused():
    learned, bound = shortfalls(2.0)
    assert learned > 2 * MOST and bound > 2 * MOST, (learned, bound)
