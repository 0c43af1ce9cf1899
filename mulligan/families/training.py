"""What families trained by gradient share: candidates, the plan under a budget, checkpoints, the outcome.

A family brings candidates (a model, a plan, a decay of the weights) in the order of its hopes. The first is trained. Where
it over-fitted (its best weights on select came in the first half of its plan), and on small tables in any case, the others
are trained too, over plans as short as over-fitting makes useful. So a table with rows enough is trained once, and a small
one several times, each in a few seconds.

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
import jax.numpy as jnp
import numpy as np

from mulligan.data.codec import Encoded
from mulligan.data.given import AnyCodec, ConditionalCodec
from mulligan.errors import FitError
from mulligan.families.recipe import Allowance, Fitting, Outcome
from mulligan.learners.gradient import Learner, Objective, Plan, Trained, seconds_per_step, train, trainable
from mulligan.loop import Watch
from mulligan.measures.likelihood import row_log_prob
from mulligan.objectives.likelihood import Redrawn, Rows

WIDE = 256  # columns: from here on networks are wider, steps take longer, and a look is at fewer rows
ROWS_LOOKED_AT = 2048  # of wide tables
LOOKED_AT = 4096  # points of the select rows that early stopping scores at each look; choices use all of them
OVERFITTED = 0.5  # of a plan: a run whose best weights came before this share of it over-fitted
SMALL = 3000  # rows: below this every network over-fits, and all candidates are tried
LONGER = 3  # times the steps after which the first candidate was best: the plan of the others
LEAST_STEPS = 200
SAFETY = 0.9  # of a budget that is planned for
OVERRUN = 1.5  # times the budget, after which a run is cut although its schedule has not ended


@dataclass(frozen=True)
class Candidate:
    """A model to train: ``build(generator)`` makes it fresh, ``option`` names what is special about it.

    ``objective`` is in place of the one that all share.
    """

    option: str
    build: Callable[[np.random.Generator], Any]
    plan: Plan
    objective: Objective | None = None


@dataclass(frozen=True)
class Learning:
    """What a family trains and how.

    ``candidates`` in the order of its hopes; ``rows`` are the objective's rows, ``select`` the encoded select rows;
    ``codec`` is the family's own, or None.

    A family whose log p needs more than its weights has ``normalise(model, careful) -> model``, which is asked before rows
    are scored (careful: for a choice, not at a look). One that is no plain gradient descent has ``learner(model, plan)``,
    and ``health(plan)`` are the watches of it. ``judge(model, careful)``, higher is better, is in place of mean log p of the
    select rows where that costs too much at each look (not careful), or does not exist; ``criterion`` names it. With
    ``last_too`` the weights at the end of a training are judged carefully beside those that looked best: what is cheap
    enough for a look may over-rate early ones.
    """

    name: str
    candidates: Sequence[Candidate]
    objective: Objective
    rows: Any
    select: Encoded
    codec: AnyCodec | None = None
    normalise: Callable[[Any, bool], Any] = lambda model, careful: model
    learner: Callable[[Any, Plan], Learner] | None = None
    health: Callable[[Plan], Sequence[Watch]] = lambda plan: ()
    judge: Callable[[Any, bool], float] | None = None
    criterion: str = "log p of the select rows"
    last_too: bool = False

    def judged(self, model: Any, rows: Encoded, careful: bool) -> float:
        """How good a (normalised) model is on select rows."""
        if self.judge is not None:
            return self.judge(model, careful)
        return float(np.mean(row_log_prob(model, rows)))

    def learner_of(self, model: Any, plan: Plan) -> Learner | None:
        """The kernel that trains a model, None for plain gradient descent."""
        return None if self.learner is None else self.learner(model, plan)


def learn(fitting: Fitting, learning: Learning, label: str) -> Outcome:
    """Train the candidates, as far as it makes sense, and keep the best on select."""
    looked_at = _looked_at(learning.select)

    def look(model: Any) -> float:
        return learning.judged(learning.normalise(model, False), looked_at, False)

    cap = _affordable_steps(fitting, learning, look)
    seconds = None if fitting.budget is None else OVERRUN * fitting.budget
    allowance = Allowance(seconds, cap, fitting.compiled)
    tried: list[tuple[bool, float, Any, Trained]] = []
    choices, health, longest = [], [], cap or sum(candidate.plan.steps for candidate in learning.candidates)
    for place, candidate in enumerate(learning.candidates):
        plan = replace(candidate.plan, steps=min(candidate.plan.steps, longest))
        fresh = candidate.build(np.random.default_rng([fitting.seed, 1]))
        trained = train(
            candidate.objective or learning.objective,
            fresh,
            learning.rows,
            look,
            plan,
            fitting.seed,
            name=f"{learning.name}-{place}",
            stop_after=allowance.steps_left(plan.steps),
            budget=allowance.seconds_left(),
            listener=lambda step, steps, latest: fitting.pulse(learning.name, step, steps, latest),
            checkpoints=fitting.checkpoints,
            watch=fitting.watch,
            learner=learning.learner_of(fresh, plan),
            health=learning.health(plan),
        )
        allowance.spend(trained.run)
        model, score, best_step = _chosen(learning, trained)
        choices.append({"option": candidate.option, "select": score, "bic": None})
        health += _health(trained, candidate.option, learning.criterion)
        if not np.isnan(score):
            tried.append((trained.failed is None, score, model, trained))
        overfitted = best_step <= OVERFITTED * plan.steps
        over = trained.halted or fitting.interrupted() or allowance.over
        if over or not (overfitted or fitting.rows < SMALL):
            break
        if overfitted and place == 0:
            longest = min(longest, max(LEAST_STEPS, LONGER * best_step))
    if not tried:
        raise FitError(f"{learning.name}: {learning.criterion} is NaN", why="; ".join(health[:3]))
    if fitting.checkpoints is not None and fitting.checkpoints.failure:
        health.append(fitting.checkpoints.failure)
    _, _, model, best = max(tried, key=lambda found: found[:2])
    return Outcome(
        model,
        label,
        count_parameters(model),
        choices,
        best.history,
        allowance.used,
        health,
        stopped=best.run.stopped,
        codec=learning.codec,
        twin=cap,
        failed=best.failed,
    )


def _chosen(learning: Learning, trained: Trained) -> tuple[Any, float, int]:
    """The model of a training with its careful score, and the step that it comes from."""

    def judged(model: Any, step: int) -> tuple[Any, float, int]:
        model = learning.normalise(model, True)
        return model, learning.judged(model, learning.select, True), step

    looked_best = judged(trained.model, trained.best_step)
    if not learning.last_too or trained.last is None or trained.best_step == trained.step:
        return looked_best
    ending = judged(trained.last, trained.step)
    return max(looked_best, ending, key=lambda found: -np.inf if np.isnan(found[1]) else found[1])


def training_rows(fitting: Fitting, codec: AnyCodec, objective: Objective) -> tuple[Rows, Objective]:
    """The training rows under a family's codec, and the objective: of rows drawn anew at each step, where the table has
    ``chances`` to draw them with."""
    train = codec.encode(fitting.train_rows.values)
    rows = Rows(jnp.asarray(train.flat), None if train.flat_given is None else jnp.asarray(train.flat_given))
    chances = fitting.train_rows.chances
    if chances is None:
        return rows, objective
    modelled = codec.modelled_part(chances) if isinstance(codec, ConditionalCodec) else chances
    return rows._replace(points=jnp.asarray(modelled, jnp.float32)), Redrawn(objective)


def _looked_at(select: Encoded) -> Encoded:
    """What early stopping scores at each look: some draws of every select row, or of a wide table some rows."""
    some = select.thinned(LOOKED_AT)
    n, _, d = some.points.shape
    if d < WIDE or n <= ROWS_LOOKED_AT:
        return some
    rows = np.linspace(0, n - 1, ROWS_LOOKED_AT).round().astype(int)
    given = None if some.given is None else some.given[rows]
    return Encoded(some.points[rows], some.log_jacobian[rows], given)


def count_parameters(model: Any) -> int:
    """Trained numbers of a model."""
    return sum(leaf.size for leaf in jax.tree.leaves(trainable(model)[0]))


def _affordable_steps(fitting: Fitting, learning: Learning, look: Callable[[Any], float]) -> int | None:
    """The greatest number of steps over all candidates: those asked for, or what the budget buys; None for no limit."""
    if fitting.budget is None:
        return fitting.steps
    budget, first = fitting.budget, learning.candidates[0]

    def measure() -> int:
        """Looks at the select rows included; at least 1."""
        compiled, began = fitting.compiled.seconds, time.perf_counter()
        fresh = first.build(np.random.default_rng([fitting.seed, 1]))
        learner = learning.learner_of(fresh, first.plan)
        objective = first.objective or learning.objective
        step = seconds_per_step(objective, fresh, learning.rows, first.plan, fitting.seed, learner=learner)
        look(fresh)
        tick = time.perf_counter()
        look(fresh)
        each = step + (time.perf_counter() - tick) / first.plan.every
        spent = time.perf_counter() - began - (fitting.compiled.seconds - compiled)
        return max(1, int((SAFETY * budget - spent) / each))

    steps = _remembered(fitting, measure)
    return None if steps >= sum(candidate.plan.steps for candidate in learning.candidates) else steps


def _remembered(fitting: Fitting, measure: Callable[[], int]) -> int:
    """The number of steps of a fit that is resumed is that of the fit it goes on with, whatever the clock says now."""
    if fitting.checkpoints is None:
        return measure()
    saved = fitting.checkpoints.restore("plan", ())
    if saved is not None:
        return saved.step
    steps = measure()
    if not fitting.interrupted():  # a measurement that Ctrl-C cut short says nothing of the speed
        fitting.checkpoints.keep("plan", (), steps, {}, {})
    return steps


def _health(trained: Trained, option: str, criterion: str) -> list[str]:
    """Sentences on a run that did not end well."""
    lines = []
    if trained.failed is not None:
        lines.append(f"{option}: {trained.failed}")
    elif not trained.run.healthy:
        lines.append(f"{option}: {trained.run.stopped}")
    elif trained.run.stopped and trained.run.stopped.startswith("budget"):
        lines.append(f"{trained.run.stopped}: the machine became slower, and the fit with --steps will differ")
    if trained.best_step == 0:
        lines.append(f"{option}: no step improved {criterion}")
    return lines
