"""``logistic-mixture``: a mixture of products of logistic laws, by gradient from the clusters of k-means++."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import jax.numpy as jnp
import numpy as np

from mulligan.catalog import Effort
from mulligan.families.recipe import Fitting, Outcome, Recipe
from mulligan.families.training import Candidate, Learning, learn
from mulligan.learners.gradient import Plan
from mulligan.learners.seeding import seeded_state
from mulligan.models.logistic_mixture import LogisticMixture
from mulligan.objectives.likelihood import Rows, negative_log_likelihood

PLANS: dict[Effort, Plan] = {
    "quick": Plan(600, rate=2e-2),
    "standard": Plan(3000, rate=1e-2),
    "thorough": Plan(10_000, rate=1e-2),
}


def make(variant: str | None, effort: Effort, parts: int, rate: float | None, batch: int | None) -> Recipe:
    """The recipe; ``rate`` and ``batch`` of None are the effort's."""
    plan = PLANS[effort]
    plan = replace(plan, batch=batch or plan.batch, rate=rate or plan.rate)
    return partial(fit, parts=parts, plan=plan)


def fit(fitting: Fitting, parts: int, plan: Plan) -> Outcome:
    """Train, and keep the best on select."""
    points = fitting.train.flat
    parts = min(parts, len(points))
    candidate = Candidate(f"parts={parts}", partial(seeded, points, parts), plan)
    learning = Learning(
        "logistic-mixture", [candidate], negative_log_likelihood, Rows(jnp.asarray(points)), fitting.select
    )
    return learn(fitting, learning, f"logistic-mixture (k={parts})")


def seeded(points: np.ndarray, parts: int, generator: np.random.Generator) -> LogisticMixture:
    """One part a cluster, with its weight, its mean and its variances: s² = 3 var/π².

    >>> seeded(np.array([[0.0], [0.1], [9.0], [9.1]]), 2, np.random.default_rng(0)).means.shape
    (2, 1)
    """
    state = seeded_state(points, parts, parts, generator)
    weights, means, factors = (np.asarray(array, np.float64) for array in state)
    variances = np.sum(factors**2, axis=2)
    numbers = (np.log(weights), means, 0.5 * np.log(3 * variances / np.pi**2))
    return LogisticMixture(*(jnp.asarray(array, jnp.float32) for array in numbers))
