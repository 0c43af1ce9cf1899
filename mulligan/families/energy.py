"""``energy``: p(x) = exp(f(x)) q(x)/Z with a network f and a reference q (``energy:nce``, ``mle``, ``score-matching``).

Trained in three ways: by telling data from noise (``nce``), by maximum likelihood with Markov chains (``mle``: persistent,
CD-k, short-run, replayed or tempered negatives), by score matching (denoising, exact, sliced). log Z and the chains that
draw from the model are found afterwards (``normalising``). Early stopping is on select, with log Z from draws of q that all
looks share. A training whose chains stand still, run away or leave the data's level of energy ends as failed, with the
last healthy state.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax.numpy as jnp
import numpy as np

from mulligan.catalog import Effort
from mulligan.errors import UsageError
from mulligan.families import flow, mixture
from mulligan.families.normalising import find_log_z, pool_of, quick_log_z, with_chains
from mulligan.families.recipe import Fitting, Outcome, Recipe, weighted_moments
from mulligan.families.training import SMALL, Candidate, Learning, learn
from mulligan.learners.contrastive import ChainHealth, ChaseDescent, ContrastiveDescent, NoiseDescent, Start
from mulligan.learners.gradient import Learner, Objective, Plan, plain_descent
from mulligan.loop import Watch
from mulligan.measures.likelihood import row_log_prob
from mulligan.models.energy import EnergyModel, box_around, make_energy
from mulligan.objectives.contrastive import contrastive_loss
from mulligan.objectives.likelihood import Rows
from mulligan.objectives.noise_contrastive import chasing_loss, noise_contrastive_loss
from mulligan.objectives.score_matching import (
    DenoisingScoreMatching,
    exact_score_matching,
    sliced_score_matching,
)
from mulligan.targets.gaussian import Gaussian

# Width and depth of the network on large tables, and on small ones.
SIZES: dict[Effort, tuple[tuple[int, int], tuple[int, int]]] = {
    "quick": ((64, 2), (32, 2)),
    "standard": ((128, 3), (64, 2)),
    "thorough": ((256, 3), (128, 2)),
}
PLANS: dict[str, dict[Effort, tuple[Plan, Plan]]] = {
    "nce": {
        "quick": (Plan(800, rate=1e-2), Plan(300, rate=1e-2)),
        "standard": (Plan(5000, batch=1024, rate=3e-3, patience=30), Plan(1000, rate=3e-3)),
        "thorough": (Plan(30_000, batch=1024, rate=3e-3, patience=30), Plan(4000, rate=3e-3)),
    },
    "mle": {
        "quick": (Plan(300, rate=3e-3), Plan(200, rate=3e-3)),
        "standard": (Plan(3000, rate=2e-3, patience=30), Plan(800, rate=2e-3)),
        "thorough": (Plan(20_000, rate=2e-3, patience=30), Plan(3000, rate=2e-3)),
    },
    "score-matching": {
        "quick": (Plan(600, rate=5e-3), Plan(300, rate=5e-3)),
        "standard": (Plan(4000, rate=3e-3, patience=30), Plan(1000, rate=3e-3)),
        "thorough": (Plan(20_000, rate=3e-3, patience=30), Plan(4000, rate=3e-3)),
    },
}
SMALL_DECAYS = (0.1, 3.0, 30.0)
LARGE_DECAYS = {"nce": (0.01,), "mle": (0.1,), "score-matching": (0.1,)}  # more would round the edges of a sharp law
SIGMAS = (0.05, 0.02, 0.1)  # of denoising, in standardised units: the model is blurred by that much
CHAINS: dict[Effort, int] = {"quick": 128, "standard": 512, "thorough": 1024}
NEGATIVES: dict[str, tuple[Start, tuple[float, ...]]] = {
    "persistent": ("persistent", (1.0,)),
    "cd": ("data", (1.0,)),
    "short-run": ("noise", (1.0,)),
    "replay": ("replay", (1.0,)),
    "tempered": ("persistent", (0.1, 0.2, 0.4, 0.7, 1.0)),
}
WIDER = 1.2  # the Gaussian reference's covariance, times the data's: its tails must not be the lighter ones
FIRST_STEP = 0.02
PACE = 0.1  # rate of an adaptive noise law over the model's: the model must stay ahead of it
CANDIDATES = 8  # of a jump of persistent chains; each costs an evaluation of f
RESTARTED = 0.05  # of the chains at each step, where negatives are replayed (Du and Mordatch 2019)


@dataclass(frozen=True)
class Design:
    """The options of the family, with what the effort chooses filled in where it is None."""

    variant: str
    effort: Effort
    reference: str | None
    width: int | None
    depth: int | None
    frequencies: int
    noise: str
    ratio: int
    negatives: str
    sampler_steps: int
    chains: int | None
    step_size: float | None
    objective: str
    sigma: float | None
    decay: float | None
    rate: float | None
    batch: int | None


def make(variant: str | None, effort: Effort, **options: Any) -> Recipe:
    """The recipe; sizes and ``rate`` of None are the effort's, ``decay`` and ``sigma`` of None are searched on select."""
    return partial(fit, design=Design(variant or "nce", effort, **options))


def fit(fitting: Fitting, design: Design) -> Outcome:
    """A reference, a network, log Z, chains; the best on select."""
    small = fitting.rows < SMALL
    reference, name = reference_of(fitting, design)
    if design.variant == "score-matching" and name == "box":
        raise UsageError(
            "energy:score-matching with reference box",
            why="score matching on a box lacks a term at its walls",
            do="another reference, or energy:nce",
        )
    sizes = SIZES[design.effort][small]
    width, depth = design.width or sizes[0], design.depth or sizes[1]
    build = partial(_build, reference, fitting.dim, width, depth, design.frequencies)
    plan = PLANS[design.variant][design.effort][small]
    plan = replace(plan, batch=design.batch or plan.batch, rate=design.rate or plan.rate)
    pool = pool_of(reference, fitting.dim, fitting.seed)
    rows = Rows(jnp.asarray(fitting.train.flat))
    learner, health = _way(fitting, design, rows, reference if name == "flow" else None)
    candidates = [
        Candidate(f"{said}decay={decay:g}", build, replace(plan, decay=decay), objective)
        for decay in _decays(design, small)
        for said, objective in _objectives(design)
    ]
    learning = Learning(
        "energy",
        candidates,
        candidates[0].objective or contrastive_loss,
        rows,
        fitting.select,
        normalise=lambda model, careful: quick_log_z(model, pool),
        learner=learner,
        health=health,
    )
    best = learn(fitting, learning, f"energy ({design.variant}, {depth} layers of {width}, reference {name})")
    before = {"option": f"reference alone ({name})", "select": _reference_score(reference, fitting), "bic": None}
    best.choices.append(before)
    return finished(best, fitting)


def finished(outcome: Outcome, fitting: Fitting) -> Outcome:
    """The outcome whose model has chains and a careful log Z; its select score is stated anew with these."""
    chains, notes = with_chains(outcome.model, fitting.seed)
    chains, log_z = find_log_z(chains, fitting.dim, fitting.seed + 7)
    outcome.model = chains
    outcome.health += [*notes, f"log Z {log_z}" + (f" ({log_z.note})" if log_z.note else "")]
    score = float(np.mean(row_log_prob(chains, fitting.select)))
    learned = [choice for choice in outcome.choices if not choice["option"].startswith("reference")]
    max(learned, key=lambda choice: choice["select"])["select"] = score
    return outcome


def reference_of(fitting: Fitting, design: Design) -> tuple[Any, str]:
    """The reference law and its name: as asked; else the flow that is the noise, a Gaussian in one or two dimensions, a
    learned mixture in more."""
    chased = design.variant == "nce" and design.noise != "reference"
    kind = design.reference or ("flow" if chased else "gaussian" if fitting.dim <= 2 else "mixture")
    points = fitting.train.flat.astype(float)
    if kind == "box":
        return box_around(points), "box"
    if kind == "mixture":
        found = mixture.make(None, "quick", None, None, None, 1e-6)(_quietly(fitting))
        return found.model, found.label
    if kind == "flow":
        return learned_flow(fitting), "flow"
    mean, covariance = weighted_moments(points)
    factor = np.linalg.cholesky(WIDER * covariance + 1e-9 * np.eye(len(mean)))
    return Gaussian(jnp.asarray(mean, jnp.float32), jnp.asarray(factor, jnp.float32)), "gaussian"


def learned_flow(fitting: Fitting) -> Any:
    """A small flow by maximum likelihood, as a reference or as the noise."""
    recipe = flow.make(None, "quick", None, None, 2, None, 5.0, None, None, None)
    return recipe(_quietly(fitting)).model


def _quietly(fitting: Fitting) -> Fitting:
    """The same rows for a preparatory fit: it keeps no checkpoints and calls no callbacks."""
    return replace(fitting, checkpoints=None, watch=(), steps=None, budget=None)


def _way(
    fitting: Fitting, design: Design, rows: Rows, flow_reference: Any
) -> tuple[Callable[[Any, Plan], Learner] | None, Callable[[Plan], tuple[Watch, ...]]]:
    """What draws the negatives of the variant, and what watches it; None where there are no negatives."""
    if design.variant == "score-matching":
        return None, _unwatched
    if design.variant == "nce":
        own = design.noise == "reference" or (design.noise == "flow" and flow_reference is not None)
        noise = None if own else flow_reference or learned_flow(fitting)

        def tells_apart(model: EnergyModel, plan: Plan) -> Learner:
            descent = plain_descent(noise_contrastive_loss, model, rows, plan)
            if design.noise == "adaptive":
                chase = plain_descent(chasing_loss, noise, rows, replace(plan, decay=0.0))
                return ChaseDescent(descent, chase, noise, jnp.asarray(PACE, jnp.float32), design.ratio)
            return NoiseDescent(descent, model.reference if own else noise, design.ratio, own)

        return tells_apart, _unwatched
    start, betas = NEGATIVES[design.negatives]

    def contrasts(model: EnergyModel, plan: Plan) -> Learner:
        return ContrastiveDescent(
            plain_descent(contrastive_loss, model, rows, plan),
            jnp.asarray(betas, jnp.float32),
            jnp.asarray(design.step_size or FIRST_STEP, jnp.float32),
            jnp.asarray(RESTARTED, jnp.float32),
            start,
            design.sampler_steps,
            design.chains or CHAINS[design.effort],
            design.step_size is None,
            CANDIDATES if start in ("persistent", "replay") and len(betas) == 1 else 1,
        )

    return contrasts, _watched


def _watched(plan: Plan) -> tuple[Watch, ...]:
    return (ChainHealth(plan.every),)


def _unwatched(plan: Plan) -> tuple[Watch, ...]:
    return ()


def _objectives(design: Design) -> list[tuple[str, Objective]]:
    """What is minimised, each with the words that tell it from the others."""
    if design.variant != "score-matching":
        return [("", noise_contrastive_loss if design.variant == "nce" else contrastive_loss)]
    if design.objective == "exact":
        return [("", exact_score_matching)]
    if design.objective == "sliced":
        return [("", sliced_score_matching)]
    sigmas = SIGMAS[: 1 if design.effort == "quick" else None] if design.sigma is None else (design.sigma,)
    return [(f"sigma={sigma:g}, ", DenoisingScoreMatching(float(sigma))) for sigma in sigmas]


def _decays(design: Design, small: bool) -> tuple[float, ...]:
    if design.decay is not None:
        return (design.decay,)
    return (SMALL_DECAYS if small else LARGE_DECAYS[design.variant])[: 1 if design.effort == "quick" else None]


def _build(
    reference: Any, dim: int, width: int, depth: int, frequencies: int, generator: np.random.Generator
) -> EnergyModel:
    return make_energy(reference, dim, generator, width=width, depth=depth, frequencies=frequencies)


def _reference_score(reference: Any, fitting: Fitting) -> float:
    return float(np.mean(row_log_prob(reference, fitting.select)))
