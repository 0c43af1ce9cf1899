"""``factor``: factor analysis (``factor:analysis``, by EM) or probabilistic PCA (``factor:ppca``, in closed form).

The number of factors is chosen on select. Probabilistic PCA has its optimum in closed form; EM reaches the same point
(a test holds both to it), so the closed form is what is used.
"""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from mulligan.catalog import Effort
from mulligan.errors import FitError, UsageError
from mulligan.families.incomplete import IncompleteFit
from mulligan.families.recipe import Allowance, Fitting, Outcome, Recipe, all_points, weighted_moments
from mulligan.learners.expectation_maximisation import FactorEM, FactorState
from mulligan.loop import Run, Settled, run
from mulligan.models.factor import FactorModel, ppca_closed_form

FLOOR = 1e-5  # least noise variance of a standardised column (Heywood cases end here, and health says so)
STEPS = {"quick": 200, "standard": 2000, "thorough": 10_000}
TOLERANCE = 1e-6


def make(variant: str | None, effort: Effort, factors: tuple[int, ...] | None) -> Recipe:
    """The recipe; ``factors`` None compares a few numbers on select."""
    return partial(fit, ppca=variant == "ppca", effort=effort, factors=factors)


def fit(fitting: Fitting, ppca: bool, effort: Effort, factors: tuple[int, ...] | None) -> Outcome:
    """Fit each number of factors, keep the best on select."""
    hollow = IncompleteFit(fitting, 1e-6) if fitting.incomplete else None
    mean, covariance = weighted_moments(all_points(fitting.train))  # NaN where cells are empty, and then not used
    covariance = covariance + 1e-6 * np.eye(fitting.dim)
    best: tuple[float, FactorModel, int, Run | None] | None = None
    choices = []
    health: list[str] = []
    allowance = Allowance(fitting.budget, fitting.steps, fitting.compiled)
    counts = _counts(fitting.dim, effort) if factors is None else factors
    for index, count in enumerate(counts):
        if count >= fitting.dim:
            raise UsageError(
                f"factors is {count}; expected less than the {fitting.dim} encoded columns", "factor.factors"
            )
        finished: Run | None
        if hollow is None:
            state, finished = _fit_one(fitting, covariance, count, ppca, effort, allowance)
        else:
            mean, state, finished = hollow.factors(count, ppca, FLOOR, STEPS[effort], TOLERANCE, allowance)
            allowance.spend(finished)
        if finished is not None and not finished.healthy:
            health.append(f"factor q={count}: {finished.stopped}")
        model = FactorModel(jnp.asarray(mean, jnp.float32), state.loadings, state.noise)
        score = fitting.select_score(model)
        choices.append({"option": f"factors={count}", "select": score, "bic": None})
        fitting.pulse(f"factor q={count}", index + 1, len(counts), {"select": score})
        if np.isnan(score):
            health.append(f"factor q={count}: log p of the select rows is NaN")
        elif best is None or score > best[0]:
            best = (score, model, count, finished)
        if fitting.interrupted() or allowance.over:
            break
    if best is None:
        raise FitError("no number of factors could be fitted")
    _, model, count, finished = best
    name = "ppca" if ppca else "factor analysis"
    history = {} if finished is None else {"train": finished.history["log_likelihood"]}
    floored = int(np.sum(np.asarray(model.noise) <= FLOOR * 1.001))
    if floored:
        health.append(f"{floored} of {fitting.dim} noise variances are at their floor {FLOOR:g} (a Heywood case)")
    free = fitting.dim * (count + 1) + (1 if ppca else fitting.dim) - count * (count - 1) // 2
    stopped = None if finished is None else finished.stopped
    return Outcome(model, f"{name} (q={count})", free, choices, history, allowance.used, health, stopped=stopped)


def _fit_one(
    fitting: Fitting, covariance: np.ndarray, count: int, ppca: bool, effort: Effort, allowance: Allowance
) -> tuple[FactorState, Run | None]:
    loadings, variance = ppca_closed_form(covariance, count)
    noise = np.full(fitting.dim, max(variance, FLOOR))
    state = FactorState(jnp.asarray(loadings, jnp.float32), jnp.asarray(noise, jnp.float32))
    if ppca:
        return state, None
    if count == 0:
        return FactorState(state.loadings, jnp.asarray(np.diag(covariance), jnp.float32)), None
    kernel = FactorEM(jnp.asarray(covariance, jnp.float32), jnp.asarray(FLOOR, jnp.float32), isotropic=False)
    finished = run(
        kernel,
        jax.random.key(fitting.seed),
        state,
        allowance.steps_left(STEPS[effort]),
        watch=[Settled("log_likelihood", 20, TOLERANCE)],
        budget=allowance.seconds_left(),
    )
    allowance.spend(finished)
    return finished.state, finished


def _counts(dim: int, effort: Effort) -> tuple[int, ...]:
    """Numbers of factors to compare: all small ones, then in growing steps."""
    ladder = {"quick": (1, 2, 4, 8), "standard": (1, 2, 3, 4, 6, 8, 12, 16, 24, 32)}.get(
        effort, (1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 24, 32, 48, 64)
    )
    return tuple(q for q in ladder if q < dim) or (0,)
