"""``mixture``: Gaussian mixtures by EM; number of parts, shape of the covariances and starts chosen on select.

The search has two stages, in a fixed order. First every (covariance, parts) once with few steps, each ladder of parts
ending when two rungs in a row lost on select. Then the best few with all restarts and all steps. Parts are padded
to a power of two, so one compiled program serves several rungs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PRNGKeyArray

from mulligan.catalog import Effort
from mulligan.data.given import AnyCodec
from mulligan.errors import FitError, UsageError
from mulligan.families.incomplete import IncompleteFit
from mulligan.families.recipe import Allowance, Fitting, Outcome, Recipe, all_points
from mulligan.learners.expectation_maximisation import MixtureEM, MixtureState, mixture_em
from mulligan.learners.seeding import seeded_state
from mulligan.loop import Run, Settled, compile_small, run
from mulligan.targets.mixture import GaussianMixture


class Plan(NamedTuple):
    """What an effort means here."""

    parts: tuple[int, ...]
    covariances: tuple[str, ...]
    scouting_steps: int
    finalists: int
    restarts: int
    steps: int
    tolerance: float


PLANS: dict[Effort, Plan] = {
    "quick": Plan((1, 2, 3, 4, 6, 8), ("full", "diagonal"), 50, 2, 2, 200, 1e-4),
    "standard": Plan(
        (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64), ("full", "tied", "diagonal", "spherical"), 100, 3, 4, 1000, 1e-5
    ),
    "thorough": Plan(
        (1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 16, 20, 24, 32, 40, 48, 64, 80, 96, 128, 160),
        ("full", "tied", "diagonal", "spherical"),
        200,
        6,
        10,
        5000,
        1e-6,
    ),
}
LEAST_PADDING = 8
CHECK_EVERY = 10


class Fit(NamedTuple):
    """One converged start."""

    score: float
    covariance: str
    parts: int
    state: MixtureState
    run: Run


def make(
    variant: str | None,
    effort: Effort,
    parts: tuple[int, ...] | None,
    covariance: str | None,
    restarts: int | None,
    regularisation: float,
) -> Recipe:
    """The recipe; ``None`` means chosen on select (parts, covariance) or by the effort (restarts)."""
    plan = PLANS[effort]
    plan = plan._replace(
        parts=tuple(sorted(set(parts))) if parts else plan.parts,
        covariances=(covariance,) if covariance else plan.covariances,
        restarts=restarts or plan.restarts,
    )
    return partial(fit, plan=plan, regularisation=regularisation, forced=parts is not None)


def fit(fitting: Fitting, plan: Plan, regularisation: float, forced: bool) -> Outcome:
    """Scout, then refine the finalists; the best on select is the model."""
    search = _Search(fitting, plan, regularisation)
    choices: dict[tuple[str, int], Fit] = {}
    for covariance in plan.covariances:
        for parts in _ladder(plan.parts, fitting, forced):
            found = search.start(covariance, parts, restart=0, steps=plan.scouting_steps)
            if found is None:
                continue
            choices[covariance, parts] = found
            if not forced and _two_losses([f.score for (c, _), f in choices.items() if c == covariance]):
                break
    finalists = sorted(choices.values(), key=lambda f: -f.score)[: plan.finalists]
    for finalist in finalists:
        for restart in range(plan.restarts):
            found = search.start(finalist.covariance, finalist.parts, restart, plan.steps)
            key = (finalist.covariance, finalist.parts)
            if found is not None and found.score > choices[key].score:
                choices[key] = found
    if not choices and fitting.interrupted():
        raise KeyboardInterrupt("stopped before there was a model to keep")
    if not choices:
        raise FitError("EM failed from every start", why="; ".join(search.failures[:3]))
    best = max(choices.values(), key=lambda f: f.score)
    return _outcome(fitting, best, list(choices.values()), search)


class _Search:
    """The starts that EM makes, with what they may use and how they failed."""

    def __init__(self, fitting: Fitting, plan: Plan, regularisation: float):
        self.fitting, self.plan = fitting, plan
        self.allowance = Allowance(fitting.budget, fitting.steps, fitting.compiled)
        self.points = all_points(fitting.train).astype(np.float32)
        self.incomplete = IncompleteFit(fitting, regularisation) if fitting.incomplete else None
        self.kernels: dict[str, MixtureEM] = {}
        self.regularisation = regularisation
        self.failures: list[str] = []

    def start(self, covariance: str, parts: int, restart: int, steps: int) -> Fit | None:
        """EM from one seed; None where nothing is left to spend, or EM broke down at once."""
        if self.allowance.over or self.fitting.interrupted():
            return None
        if self.incomplete is not None:
            tolerance, ridge = self.plan.tolerance, self.regularisation
            finished = self.incomplete.mixture(covariance, parts, restart, steps, tolerance, ridge, self.allowance)
            return self._judged(finished, covariance, parts, restart)
        generator = np.random.default_rng([self.fitting.seed, parts, restart])
        begin = seeded_state(self.points, parts, padded_parts(parts), generator)
        if covariance not in self.kernels:
            self.kernels[covariance] = mixture_em(
                self.points, covariance, self.regularisation, self.fitting.point_weights
            )
        label = f"mixture {parts} {covariance}"
        kernel, key = self.kernels[covariance], jax.random.key(self.fitting.seed)
        finished = run(
            kernel,
            key,
            _begin(kernel, key, begin),
            self.allowance.steps_left(steps),
            watch=[Settled("log_likelihood", CHECK_EVERY, self.plan.tolerance)],
            budget=self.allowance.seconds_left(),
            listener=lambda step, total, latest: self.fitting.pulse(label, step, total, latest),
        )
        return self._judged(finished, covariance, parts, restart)

    def _judged(self, finished: Run, covariance: str, parts: int, restart: int) -> Fit | None:
        self.allowance.spend(finished)
        label = f"mixture {parts} {covariance}"
        if not finished.healthy:
            self.failures.append(f"{label}, start {restart}: {finished.stopped}")
        score = self.fitting.select_score(as_mixture(finished.state))
        if not math.isfinite(score):
            self.failures.append(f"{label}, start {restart}: log p of the select rows is {score}")
            return None
        return Fit(score, covariance, parts, finished.state, finished)


@compile_small
def _begin(kernel: MixtureEM, key: PRNGKeyArray, state: MixtureState) -> MixtureState:
    return kernel.init(key, state)


def as_mixture(state: MixtureState) -> GaussianMixture:
    """The law of a state; empty parts have log weight −inf."""
    with np.errstate(divide="ignore"):
        log_weights = np.log(np.asarray(state.weights))
    return GaussianMixture(jnp.asarray(log_weights), state.means, state.choleskys)


def padded_parts(parts: int) -> int:
    """The next power of two, at least 8: how many parts the compiled program has."""
    return max(LEAST_PADDING, 1 << (parts - 1).bit_length())


def free_parameters(parts: int, dim: int, covariance: str) -> int:
    """Weights, means and covariances that are free: what BIC charges for."""
    one = dim * (dim + 1) // 2
    shape = {"full": parts * one, "tied": one, "diagonal": parts * dim, "spherical": parts}[covariance]
    return parts - 1 + parts * dim + shape


def _ladder(parts: Sequence[int], fitting: Fitting, forced: bool) -> list[int]:
    """Rungs with at least two rows for each coordinate of each mean, unless the user named them."""
    most = fitting.rows // (2 * (fitting.dim + 1))
    allowed = [k for k in parts if k <= max(1, most)]
    if forced and max(parts) > fitting.rows:
        raise UsageError(f"parts is {max(parts)}; expected at most the {fitting.rows} training rows", "mixture.parts")
    return list(parts) if forced else allowed


def _two_losses(scores: list[float]) -> bool:
    return len(scores) >= 3 and max(scores[-2:]) < max(scores[:-2])


def _outcome(fitting: Fitting, best: Fit, tried: list[Fit], search: _Search) -> Outcome:
    kept = np.asarray(best.state.weights) > 0
    state = MixtureState(*(leaf[kept] for leaf in best.state))
    entries = []
    for found in sorted(tried, key=lambda f: (f.covariance, f.parts)):
        log_likelihood = float(found.run.history["log_likelihood"][-1]) if found.run.step else math.nan
        parameters = free_parameters(found.parts, fitting.dim, found.covariance)
        bic = -2 * fitting.rows * log_likelihood + parameters * math.log(fitting.rows)
        entries.append({"option": f"parts={found.parts} {found.covariance}", "select": found.score, "bic": bic})
    stopped = best.run.stopped or f"not settled after {best.run.step} steps"
    health = search.failures[:5]
    if best.run.stopped is None:
        health = [*health, stopped]
    largest_fall = float(-np.diff(best.run.history["log_likelihood"]).min(initial=0.0))
    if largest_fall > 1e-3:
        health.append(
            f"the log-likelihood of EM fell by {largest_fall:.1e} in one step: rounding in a near-singular part"
        )
    return Outcome(
        as_mixture(state),
        f"mixture (k={int(kept.sum())}, {best.covariance})",
        free_parameters(int(kept.sum()), fitting.dim, best.covariance),
        entries,
        {"train": best.run.history["log_likelihood"]},
        search.allowance.used,
        health,
        parameter_table(state, fitting.codec),
        best.run.stopped,
    )


def parameter_table(state: MixtureState, codec: AnyCodec) -> dict[str, Any]:
    """Weight, mean and standard deviation of every part, in the user's units for untransformed numbers.

    A transformed column is shown on its transformed scale, a category by its latent normal scores; both are named so.
    """
    names, places, means, scales = [], [], [], []
    for column, part in zip(codec.schema.modelled, codec.parts):
        for offset in range(part.width):
            wide = part.width > 1 or column.kind in ("binary", "categorical")
            suffix = f" (score of {column.levels[offset]})" if wide else ""
            name = f"{column.transform}({column.name})" if column.transform != "none" else column.name
            names.append(name + suffix)
            places.append(part.start + offset)
            means.append(part.mean)
            scales.append(part.scale)
    order = np.argsort(-np.asarray(state.weights, np.float64))
    factors, centres = np.asarray(state.choleskys, np.float64), np.asarray(state.means, np.float64)
    covariances = np.einsum("kij,kmj->kim", factors, factors)
    rows = []
    for rank, k in enumerate(order):
        row: list[Any] = [rank + 1, round(float(state.weights[k]), 4)]
        for place, mean, scale in zip(places, means, scales):
            row.append(float(f"{centres[k, place] * scale + mean:.5g}"))
            row.append(float(f"{math.sqrt(covariances[k, place, place]) * scale:.3g}"))
        rows.append(row)
    columns = ["part", "weight"] + [label for name in names for label in (f"mean of {name}", f"sd of {name}")]
    return {"columns": columns, "rows": rows}
