"""``gaussian``: the maximum-likelihood normal law, in closed form (mean and covariance of the training rows)."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np

from mulligan.catalog import Effort
from mulligan.families.incomplete import IncompleteFit
from mulligan.families.recipe import Fitting, Outcome, Recipe, all_points, weighted_moments
from mulligan.targets.gaussian import Gaussian

RIDGE = 1e-6  # of the variance of standardised columns: keeps a degenerate direction finite


def make(variant: str | None, effort: Effort) -> Recipe:
    """The recipe; there is nothing to choose."""
    return fit


def fit(fitting: Fitting) -> Outcome:
    """μ = mean, Σ = covariance + 1e-6·I; where cells are empty, the maximum-likelihood estimates by EM."""
    if fitting.incomplete:
        return _fit_incomplete(fitting)
    mean, covariance = weighted_moments(all_points(fitting.train), fitting.point_weights)
    d = fitting.dim
    factor = np.linalg.cholesky(covariance + RIDGE * np.eye(d))
    model = Gaussian(jnp.asarray(mean, jnp.float32), jnp.asarray(factor, jnp.float32))
    return Outcome(model, "gaussian", parameters=d + d * (d + 1) // 2)


def _fit_incomplete(fitting: Fitting) -> Outcome:
    found, d = IncompleteFit(fitting, RIDGE), fitting.dim
    model = Gaussian(jnp.asarray(found.mean, jnp.float32), jnp.asarray(found.factor, jnp.float32))
    run = found.normal
    health = [] if run.stopped else [f"EM for the empty cells has not settled after {run.step} steps"]
    history = {"train": run.history["log_likelihood"]}
    return Outcome(model, "gaussian", d + d * (d + 1) // 2, history=history, steps=run.step, health=health)
