"""What families trained by gradient share: the plan under a budget, the search of the decay, checkpoints, the outcome.

The search of the decay is a ladder. The first run has the least decay. Only where it over-fitted (its best weights on
select came in the first half of its plan) is the next stronger decay tried, and so on while that gains: a table with
rows enough is trained once, a small one, whose runs are short, several times.

A budget of seconds is turned into a number of steps before training, from the measured time of a step, and the learning
rate falls to 0 over those: a run that a clock cut in the middle would end at a high rate. The number is stated, and the
same fit with it in place of the budget repeats the result.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import numpy as np

from mulligan.data.codec import Encoded
from mulligan.data.given import AnyCodec
from mulligan.errors import FitError
from mulligan.families.recipe import Allowance, Fitting, Outcome
from mulligan.learners.gradient import Objective, Plan, Trained, seconds_per_step, train, trainable
from mulligan.measures.likelihood import row_log_prob

LOOKED_AT = 4096  # points of the select rows that early stopping scores at each look; choices use all of them
OVERFITTED = 0.5  # of a plan: a run whose best weights came before this share of it over-fitted
SAFETY = 0.9  # of a budget that is planned for
OVERRUN = 1.5  # times the budget, after which a run is cut although its schedule has not ended


@dataclass(frozen=True)
class Learning:
    """What a family trains and how.

    ``build(generator)`` makes a fresh model, ``rows`` are the objective's rows, ``select`` the encoded select rows;
    ``decays`` is the ladder, ``codec`` the family's own, or None.
    """

    name: str
    build: Callable[[np.random.Generator], Any]
    objective: Objective
    rows: Any
    select: Encoded
    plan: Plan
    decays: Sequence[float]
    codec: AnyCodec | None = None


def learn(fitting: Fitting, learning: Learning, label: str) -> Outcome:
    """Train along the ladder of decays and keep the best on select."""
    fresh = learning.build(np.random.default_rng([fitting.seed, 1]))
    looked_at = learning.select.thinned(LOOKED_AT)

    def look(model: Any) -> float:
        return float(np.mean(row_log_prob(model, looked_at)))

    plan, cap = _planned(fitting, learning, fresh, look)
    seconds = None if fitting.budget is None else OVERRUN * fitting.budget
    allowance = Allowance(seconds, cap, fitting.compiled)
    tried: list[tuple[float, float, Trained]] = []
    choices, health = [], []
    for rung, decay in enumerate(learning.decays):
        trained = train(
            learning.objective,
            fresh,
            learning.rows,
            look,
            replace(plan, decay=decay),
            fitting.seed,
            name=f"{learning.name}-{rung}",
            stop_after=allowance.steps_left(plan.steps),
            budget=allowance.seconds_left(),
            listener=lambda step, steps, latest: fitting.pulse(learning.name, step, steps, latest),
            checkpoints=fitting.checkpoints,
        )
        allowance.spend(trained.run)
        score = float(np.mean(row_log_prob(trained.model, learning.select)))
        choices.append({"option": f"decay={decay:g}", "select": score, "bic": None})
        health += _health(trained, decay)
        if not np.isnan(score):
            tried.append((score, decay, trained))
        worse = len(tried) > 1 and tried[-1][0] < tried[-2][0]
        if worse or trained.best_step > OVERFITTED * plan.steps or fitting.interrupted() or allowance.over:
            break
    if not tried:
        raise FitError(f"{learning.name}: log p of the select rows is NaN", why="; ".join(health[:3]))
    if fitting.checkpoints is not None and fitting.checkpoints.failure:
        health.append(fitting.checkpoints.failure)
    _, decay, best = max(tried, key=lambda found: found[0])
    return Outcome(
        best.model,
        label,
        count_parameters(best.model),
        choices,
        best.history,
        allowance.used,
        health,
        stopped=best.run.stopped,
        codec=learning.codec,
        twin=cap,
    )


def count_parameters(model: Any) -> int:
    """Trained numbers of a model."""
    return sum(leaf.size for leaf in jax.tree.leaves(trainable(model)[0]))


def _planned(fitting: Fitting, learning: Learning, fresh: Any, look: Callable[[Any], float]) -> tuple[Plan, int | None]:
    """The plan within the steps or the budget, and the greatest number of steps over the whole ladder (None: no limit)."""
    plan, cap = learning.plan, fitting.steps
    if fitting.budget is not None:
        cap = _remembered(fitting, lambda: _affordable(fitting.budget or 0.0, fitting, learning, fresh, look))
        if cap >= plan.steps * len(learning.decays):
            return plan, None
    return (plan if cap is None else replace(plan, steps=min(plan.steps, cap))), cap


def _affordable(budget: float, fitting: Fitting, learning: Learning, fresh: Any, look: Callable[[Any], float]) -> int:
    """How many steps the budget buys, looks at the select rows included; at least 1."""
    compiled = fitting.compiled.seconds
    began = time.perf_counter()
    step = seconds_per_step(learning.objective, fresh, learning.rows, learning.plan, fitting.seed)
    look(fresh)
    tick = time.perf_counter()
    look(fresh)
    each = step + (time.perf_counter() - tick) / learning.plan.every
    spent = time.perf_counter() - began - (fitting.compiled.seconds - compiled)
    return max(1, int((SAFETY * budget - spent) / each))


def _remembered(fitting: Fitting, measure: Callable[[], int]) -> int:
    """The number of steps of a fit that is resumed is that of the fit it goes on with, whatever the clock says now."""
    if fitting.checkpoints is None:
        return measure()
    saved = fitting.checkpoints.restore("plan", ())
    if saved is not None:
        return saved.step
    steps = measure()
    fitting.checkpoints.keep("plan", (), steps, {}, {})
    return steps


def _health(trained: Trained, decay: float) -> list[str]:
    """Sentences on a run that did not end well."""
    lines = []
    if not trained.run.healthy:
        lines.append(f"decay={decay:g}: {trained.run.stopped}")
    elif trained.run.stopped and trained.run.stopped.startswith("budget"):
        lines.append(f"{trained.run.stopped}: the machine became slower, and the fit with --steps will differ")
    if trained.best_step == 0:
        lines.append(f"decay={decay:g}: no step improved log p of the select rows")
    return lines
