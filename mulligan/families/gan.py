"""``gan``: a generator trained against a critic (``gan:non-saturating``, ``gan:wasserstein``); it has no density.

The critic tells rows from draws, the generator makes that hard (``objectives.adversarial``, ``learners.adversarial``). As
no log p exists, weights are kept, candidates chosen and training stopped by the energy distance between the select rows and
draws with one set of latents, in encoded units. On small tables several penalties are tried, for a critic that learns the
rows by heart teaches the generator nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax.numpy as jnp
import numpy as np

from mulligan.catalog import Effort
from mulligan.data.codec import Encoded
from mulligan.errors import UsageError
from mulligan.families.recipe import Fitting, Outcome, Recipe
from mulligan.families.training import SMALL, Candidate, Learning, learn
from mulligan.learners.adversarial import AdversarialDescent, GameHealth, adversarial_descent
from mulligan.learners.gradient import Plan
from mulligan.loop import Watch
from mulligan.measures.energy_distance import energy_distance, mean_distance
from mulligan.measures.likelihood import draw
from mulligan.models.gan import GAN, make_gan
from mulligan.objectives.adversarial import NON_SATURATING, PAIRED, WASSERSTEIN, Game
from mulligan.objectives.likelihood import Rows, negative_log_likelihood


@dataclass(frozen=True)
class Round(Plan):
    """A plan of a game: with the penalty γ of the critic."""

    penalty: float = 0.0


# Width and depth of both networks on large tables, and on small ones.
SIZES: dict[Effort, tuple[tuple[int, int], tuple[int, int]]] = {
    "quick": ((64, 2), (32, 2)),
    "standard": ((64, 3), (64, 2)),
    "thorough": ((128, 3), (64, 3)),
}
NEVER = 10**6  # looks: a game has no climb whose end could be seen, and its rate falls to 0 anyway
PLANS: dict[Effort, tuple[Round, Round]] = {
    "quick": (Round(600, batch=256, rate=5e-3), Round(300, batch=256, rate=5e-3)),
    "standard": (Round(4000, batch=256, rate=5e-3), Round(1500, batch=256, rate=3e-3)),
    "thorough": (Round(30_000, batch=512, rate=3e-3), Round(5000, batch=256, rate=3e-3)),
}
PENALTIES = {"non-saturating": 0.02, "wasserstein": 0.05}
SMALL_PENALTIES = {"non-saturating": (0.1, 1.0, 0.02), "wasserstein": (0.2, 1.0, 0.05)}
CRITIC_STEPS = {"non-saturating": 1, "wasserstein": 2}
PACES = {"non-saturating": 1.0, "wasserstein": 2.0}  # critic's rate over the generator's
LOOKED, CHOSEN = 2048, 4096  # points that are compared at a look, and for a choice
AVERAGED = 1 / 20  # of the steps of a plan, in the average of the weights


@dataclass(frozen=True)
class Design:
    """The options of the family; None leaves it to the effort and the table, or to select."""

    variant: str
    effort: Effort
    latent: int | None
    width: int | None
    depth: int | None
    pairing: str
    penalty: float | None
    critic_steps: int | None
    rate: float | None
    batch: int | None

    @property
    def game(self) -> Game:
        """The losses."""
        if self.variant == "wasserstein":
            return WASSERSTEIN
        return PAIRED if self.pairing == "pairs" else NON_SATURATING


def make(variant: str | None, effort: Effort, **options: Any) -> Recipe:
    """The recipe; what is None is the effort's and the table's, ``penalty`` None is searched on select on small tables."""
    return partial(fit, design=Design(variant or "non-saturating", effort, **options))


def fit(fitting: Fitting, design: Design) -> Outcome:
    """Train, and keep what is nearest to the select rows."""
    if design.variant == "wasserstein" and design.pairing == "pairs":
        raise UsageError(
            "gan:wasserstein with pairing pairs",
            why="its loss is linear, so pairs change nothing",
            do="pairing=rows, or gan:non-saturating",
        )
    small = fitting.rows < SMALL
    sizes, plan = SIZES[design.effort][small], PLANS[design.effort][small]
    width, depth = design.width or sizes[0], sizes[1] if design.depth is None else design.depth
    plan = replace(plan, batch=design.batch or plan.batch, rate=design.rate or plan.rate, patience=NEVER)
    train = fitting.train
    build = partial(_fresh, train.flat, design.latent, width, depth, fitting.given)
    rows = Rows(jnp.asarray(train.flat), None if train.flat_given is None else jnp.asarray(train.flat_given))
    learning = Learning(
        "gan",
        [
            Candidate(f"penalty={penalty:g}", build, replace(plan, penalty=penalty))
            for penalty in _penalties(design, small)
        ],
        negative_log_likelihood,  # never called: the learner has the losses
        rows,
        fitting.select,
        learner=partial(_learner, design=design, rows=rows),
        health=_watched,
        judge=Nearness(fitting.select, fitting.seed),
        criterion="minus the energy distance of draws to the select rows",
    )
    kind = "paired" if design.game is PAIRED else design.variant
    best = learn(fitting, learning, f"gan ({kind}, {depth} layers of {width})")
    distance = -learning.judged(best.model, fitting.select, True)
    best.health.append(f"no log p: chosen by the energy distance of draws to the select rows, {distance:.4f}")
    return best


class Nearness:
    """Minus the energy distance between draws and select rows (beside what they are given): 0 is perfect.

    All models are drawn from with the same latents and compared with the same points, so that most of the chance in the
    statistic is common to those that are compared. ``careful``: with twice the points.
    """

    def __init__(self, select: Encoded, seed: int):
        order = np.random.default_rng([seed, 17]).permutation(len(select.flat))
        points, given = select.flat[order], select.flat_given
        self.seed, self.given = seed + 29, None if given is None else given[order]
        self.points = _joined(points, self.given)
        self.within = {most: mean_distance(self.points[:most]) for most in (LOOKED, CHOSEN)}

    def __call__(self, model: GAN, careful: bool) -> float:
        """Higher is better; NaN for draws that are not finite."""
        most = CHOSEN if careful else LOOKED
        points, given = self.points[:most], None if self.given is None else self.given[:most]
        n = (
            most if given is None else len(points)
        )  # few select rows are compared with many draws, unless they stand beside
        drawn = _joined(draw(model, n, self.seed, given), given)
        return -energy_distance(points, drawn, self.within[most])


def _joined(points: np.ndarray, given: np.ndarray | None) -> np.ndarray:
    return points if given is None else np.concatenate([points, given], axis=1)


def _penalties(design: Design, small: bool) -> tuple[float, ...]:
    if design.penalty is not None:
        return (design.penalty,)
    if small:
        return SMALL_PENALTIES[design.variant][: 1 if design.effort == "quick" else None]
    return (PENALTIES[design.variant],)


def _learner(model: GAN, plan: Plan, design: Design, rows: Rows) -> AdversarialDescent:
    return adversarial_descent(
        design.game,
        model,
        rows,
        penalty=plan.penalty if isinstance(plan, Round) else PENALTIES[design.variant],
        critic_steps=design.critic_steps or CRITIC_STEPS[design.variant],
        pace=PACES[design.variant],
        averaging=min(0.999, max(0.5, 1 - 1 / max(AVERAGED * plan.steps, 1))),
    )


def _watched(plan: Plan) -> tuple[Watch, ...]:
    return (GameHealth(plan.every),)


def _fresh(rows: np.ndarray, latent: int | None, width: int, depth: int, given: int, generator: Any) -> GAN:
    return make_gan(rows, generator, latent=latent, width=width, depth=depth, given=given)
