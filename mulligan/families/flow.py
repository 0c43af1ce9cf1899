"""``flow``: a normalising flow of rational-quadratic splines (``flow:coupling``; ``flow:autoregressive``), by gradient.

Trained by maximum likelihood on the encoded points; the decay of the weights is searched on select (``families.training``).
"""

from __future__ import annotations

from functools import partial

import jax.numpy as jnp

from mulligan.catalog import Effort
from mulligan.families.recipe import Fitting, Outcome, Recipe
from mulligan.families.training import Learning, learn
from mulligan.learners.gradient import Plan
from mulligan.models.flow import make_flow
from mulligan.objectives.likelihood import Rows, negative_log_likelihood

PLANS: dict[Effort, Plan] = {
    "quick": Plan(600, rate=5e-3),
    "standard": Plan(3000, rate=5e-3),
    "thorough": Plan(20_000, rate=3e-3),
}
DECAYS: dict[Effort, tuple[float, ...]] = {
    "quick": (0.01,),
    "standard": (0.01, 0.1, 0.3),
    "thorough": (0.0, 0.01, 0.03, 0.1, 0.3, 1.0),
}


def make(
    variant: str | None,
    effort: Effort,
    layers: int,
    width: int,
    depth: int,
    bins: int,
    bound: float,
    decay: float | None,
    rate: float | None,
    batch: int,
) -> Recipe:
    """The recipe; ``decay`` None searches it on select, ``rate`` None leaves it to the effort."""
    plan = PLANS[effort]
    plan = Plan(plan.steps, batch, rate or plan.rate)
    build = partial(
        make_flow,
        layers=layers,
        width=width,
        depth=depth,
        bins=bins,
        bound=bound,
        autoregressive=variant == "autoregressive",
    )
    return partial(fit, build=build, plan=plan, decays=DECAYS[effort] if decay is None else (decay,))


def fit(fitting: Fitting, build: partial, plan: Plan, decays: tuple[float, ...]) -> Outcome:
    """Train, and keep the best on select."""
    train = fitting.train
    given = None if train.flat_given is None else jnp.asarray(train.flat_given)
    learning = Learning(
        "flow",
        lambda generator: build(fitting.dim, generator, given=fitting.given),
        negative_log_likelihood,
        Rows(jnp.asarray(train.flat), given),
        fitting.select,
        plan,
        decays,
    )
    settings = build.keywords
    kind = "autoregressive" if settings["autoregressive"] else "coupling"
    label = f"flow ({kind}, {settings['layers']} layers of {settings['width']})"
    return learn(fitting, learning, label)
