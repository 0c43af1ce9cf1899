"""``gaussian``: the maximum-likelihood normal law, in closed form (mean and covariance of the training rows)."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np

from mulligan.catalog import Effort
from mulligan.families.recipe import Fitting, Outcome, Recipe, all_points, weighted_moments
from mulligan.targets.gaussian import Gaussian

RIDGE = 1e-6  # of the variance of standardised columns: keeps a degenerate direction finite


def make(variant: str | None, effort: Effort) -> Recipe:
    """The recipe; there is nothing to choose."""
    return fit


def fit(fitting: Fitting) -> Outcome:
    """μ = mean, Σ = covariance + 1e-6·I."""
    mean, covariance = weighted_moments(all_points(fitting.train))
    d = fitting.dim
    factor = np.linalg.cholesky(covariance + RIDGE * np.eye(d))
    model = Gaussian(jnp.asarray(mean, jnp.float32), jnp.asarray(factor, jnp.float32))
    return Outcome(model, "gaussian", parameters=d + d * (d + 1) // 2)
