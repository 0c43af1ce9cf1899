"""``resample``: draws training rows again. What perfect-looking samples without a model score; it has no log p."""

from __future__ import annotations

import jax.numpy as jnp

from mulligan.catalog import Effort
from mulligan.families.recipe import Fitting, Outcome, Recipe
from mulligan.models.empirical import Empirical


def make(variant: str | None, effort: Effort) -> Recipe:
    """The recipe; there is nothing to choose."""
    return fit


def fit(fitting: Fitting) -> Outcome:
    """Keep the first draw of each training row."""
    return Outcome(Empirical(jnp.asarray(fitting.train.points[:, 0], jnp.float32)), "resample", parameters=0)
