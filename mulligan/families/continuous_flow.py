"""``continuous-flow``: a velocity that carries noise to data, learned by flow matching.

Trained on straight paths between rows and noise, without solving an equation; log p and samples follow the learned velocity
afterwards (``samplers.transported``). At a look at the select rows the loss is what counts: it costs far fewer evaluations.
Choices between trainings are by log p. The number of steps of the solver is doubled until log p no longer moves.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mulligan.catalog import Effort
from mulligan.data.codec import Encoded
from mulligan.errors import UsageError
from mulligan.families.recipe import Fitting, Outcome, Recipe
from mulligan.families.training import LOOKED_AT, SMALL, Candidate, Learning, count_parameters, learn
from mulligan.learners.gradient import Plan
from mulligan.loop import compile_small
from mulligan.measures.likelihood import point_log_prob, row_log_prob
from mulligan.models.continuous_flow import Velocity, make_velocity
from mulligan.objectives.flow_matching import Coupling, FlowMatching
from mulligan.objectives.likelihood import Rows
from mulligan.samplers.transported import ContinuousFlow, Solver, transported

# Width and depth of the network on large tables, and on small ones.
SIZES: dict[Effort, tuple[tuple[int, int], tuple[int, int]]] = {
    "quick": ((64, 2), (64, 2)),
    "standard": ((96, 3), (64, 3)),
    "thorough": ((256, 4), (128, 3)),
}
PLANS: dict[Effort, tuple[Plan, Plan]] = {
    "quick": (Plan(800, rate=1e-2), Plan(400, rate=1e-2)),
    "standard": (Plan(4000, batch=1024, rate=5e-3, patience=30), Plan(1200, rate=3e-3)),
    "thorough": (Plan(20_000, batch=1024, rate=3e-3, patience=30), Plan(4000, rate=2e-3)),
}
SOLVERS: dict[Effort, Solver] = {"quick": "rk4", "standard": "rk4", "thorough": "adaptive"}
STEPS: dict[str, int] = {"heun": 16, "rk4": 12, "adaptive": 1}
MOST_STEPS = 192
LARGE_DECAYS = (0.0, 0.01)  # much of it leaves clouds joined: decay 1 costs .2 nats on eight-gaussians
SMALL_DECAYS = (0.1, 0.0, 1.0)
WAVES = 32  # sines and cosines of x beside x, up to ``FEW`` coordinates: in more they no longer cover the space
FEW = 3
MOST_EXACT = 16  # coordinates up to which the divergence is exact
PROBES = 8  # random signs a row beyond that
LOOK_PAIRS = 4096  # of a select row, noise and a time, the same at every look
STANDING = 1e-2  # nats that log p of a row may move when the steps are doubled
CHECKED = 1024  # rows


@dataclass(frozen=True)
class Design:
    """The options of the family; None is what the effort or the table chooses."""

    effort: Effort
    coupling: Coupling
    width: int | None
    depth: int | None
    frequencies: int | None
    solver: Solver | None
    solver_steps: int | None
    probes: int | None
    decay: float | None
    rate: float | None
    batch: int | None


def make(variant: str | None, effort: Effort, **options: Any) -> Recipe:
    """The recipe; sizes and ``rate`` of None are the effort's, ``decay`` None is searched on select."""
    return partial(fit, design=Design(effort, **options))


def fit(fitting: Fitting, design: Design) -> Outcome:
    """Train, keep the best on select, and find how many steps log p needs."""
    if design.coupling == "optimal" and fitting.given:
        raise UsageError(
            "continuous-flow with coupling=optimal and columns given",
            why="noise that is paired with rows would no longer be independent of what is given",
            do="coupling=independent",
        )
    small = fitting.rows < SMALL
    sizes = SIZES[design.effort][small]
    waves = design.frequencies
    settings = {
        "width": design.width or sizes[0],
        "depth": sizes[1] if design.depth is None else design.depth,
        "frequencies": (WAVES if fitting.dim <= FEW else 0) if waves is None else waves,
        "straight": design.coupling == "optimal",
        "given": fitting.given,
    }
    points = fitting.train.flat.astype(float)
    build = partial(_build, fitting.dim, points, settings)
    plan = PLANS[design.effort][small]
    plan = replace(plan, batch=design.batch or plan.batch, rate=design.rate or plan.rate)
    decays = (SMALL_DECAYS if small else LARGE_DECAYS) if design.decay is None else (design.decay,)
    given = None if fitting.train.flat_given is None else jnp.asarray(fitting.train.flat_given)
    finish = partial(_transported, design, fitting.dim)
    learning = Learning(
        "continuous-flow",
        [
            Candidate(f"decay={decay:g}", build, replace(plan, decay=decay))
            for decay in decays[: 1 if design.effort == "quick" else None]
        ],
        FlowMatching(design.coupling),
        Rows(jnp.asarray(fitting.train.flat), given),
        fitting.select,
        normalise=lambda model, careful: finish(model) if careful else model,
        judge=_judge(fitting.select, FlowMatching(design.coupling), fitting.seed),
        criterion="the loss of the select rows",
    )
    label = f"continuous-flow ({design.coupling}, {settings['depth']} layers of {settings['width']})"
    return finished(learn(fitting, learning, label), fitting, design)


def finished(outcome: Outcome, fitting: Fitting, design: Design) -> Outcome:
    """The outcome whose model takes as many steps as log p needs, with a sentence on what these leave."""
    model: ContinuousFlow = outcome.model
    outcome.parameters = count_parameters(model.velocity)
    rows = fitting.select.thinned(CHECKED)
    points, given = rows.flat[:CHECKED], None if rows.flat_given is None else rows.flat_given[:CHECKED]
    if model.solver == "adaptive":
        outcome.model = replace(model, spent=_mean_evaluations(model, given, fitting.seed))
        return outcome
    steps, before = len(model.times) - 1, point_log_prob(model, points, given)
    while True:
        finer = transported(model.velocity, steps=2 * steps, solver=model.solver, probes=model.probes)
        after = point_log_prob(finer, points, given)
        moved = float(np.quantile(np.abs(after - before), 0.99))
        if moved <= STANDING or design.solver_steps is not None or steps >= MOST_STEPS:
            break
        model, steps, before = finer, 2 * steps, after
    outcome.model = model
    said = f"log p by {steps} steps of {model.solver}: twice as many move 99 % of rows by less than {moved:.1g} nats"
    outcome.health.append(said)
    return outcome


def _build(dim: int, points: np.ndarray, settings: dict[str, Any], generator: np.random.Generator) -> Velocity:
    return make_velocity(dim, generator, points=points, **settings)


def _transported(design: Design, dim: int, velocity: Velocity) -> ContinuousFlow:
    solver = design.solver or SOLVERS[design.effort]
    probes = design.probes
    if probes is None:
        probes = 0 if dim <= MOST_EXACT else PROBES
    return transported(velocity, solver=solver, steps=design.solver_steps or STEPS[solver], probes=probes)


def _judge(select: Encoded, objective: FlowMatching, seed: int) -> Any:
    """Minus the loss of select rows with the same noise at every look; for a choice, mean log p of the select rows."""
    order = np.random.default_rng([seed, 7]).permutation(len(select.flat))
    places = np.resize(order, LOOK_PAIRS)
    known = None if select.flat_given is None else jnp.asarray(select.flat_given[places])
    rows, key, chosen = Rows(jnp.asarray(select.flat[places]), known), jax.random.key(seed), select.thinned(LOOKED_AT)

    def judged(model: Any, careful: bool) -> float:
        if careful:
            return float(np.mean(row_log_prob(model, chosen)))
        return float(_minus_loss(objective, model, key, rows))

    return judged


@compile_small
def _minus_loss(objective: FlowMatching, model: Velocity, key: Any, rows: Rows) -> Any:
    return objective(model, key, rows)[1]["train"]


def _mean_evaluations(model: ContinuousFlow, given: np.ndarray | None, seed: int) -> Any:
    rng = np.random.default_rng([seed, 8])
    noise = rng.normal(size=(256, model.velocity.mean.shape[0])).astype(np.float32)
    known = None if given is None else jnp.asarray(np.resize(given, (256, given.shape[1])).astype(np.float32))
    return _evaluations(model, noise, known)


@compile_small
def _evaluations(model: ContinuousFlow, noise: Any, given: Any) -> Any:
    return jnp.mean(jax.vmap(model.from_noise)(jnp.asarray(noise), given)[1].astype(jnp.float32))
