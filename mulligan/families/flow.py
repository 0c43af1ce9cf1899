"""``flow``: a normalising flow of rational-quadratic splines (``flow:coupling``; ``flow:autoregressive``), by gradient.

Trained by maximum likelihood on the encoded points; the decay of the weights is searched on select (``training``).
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import jax.numpy as jnp
import numpy as np

from mulligan.catalog import Effort
from mulligan.families.recipe import Fitting, Outcome, Recipe
from mulligan.families.training import SMALL, Candidate, Learning, learn
from mulligan.learners.gradient import Plan
from mulligan.models.flow import Flow, make_flow
from mulligan.objectives.likelihood import Rows, negative_log_likelihood

# Layers, width and bins; steps and peak rate. Each on large tables, and on small ones.
SIZES: dict[Effort, tuple[tuple[int, int, int], tuple[int, int, int]]] = {
    "quick": ((4, 64, 16), (4, 64, 8)),
    "standard": ((4, 128, 32), (6, 64, 8)),
    "thorough": ((8, 256, 32), (8, 64, 8)),
}
PLANS: dict[Effort, tuple[Plan, Plan]] = {
    "quick": (Plan(600, rate=1e-2), Plan(200, rate=1e-2)),
    "standard": (Plan(3000, rate=5e-3, patience=30), Plan(600, rate=5e-3)),
    "thorough": (Plan(20_000, rate=3e-3), Plan(2000, rate=3e-3)),
}
LARGE_DECAYS = (0.1, 10.0, 1.0)  # few rows want much
SMALL_DECAYS = (1.0, 10.0, 3.0, 0.1)


def make(
    variant: str | None,
    effort: Effort,
    layers: int | None,
    width: int | None,
    depth: int,
    bins: int | None,
    bound: float,
    decay: float | None,
    rate: float | None,
    batch: int | None,
) -> Recipe:
    """The recipe; sizes and ``rate`` of None are the effort's, ``decay`` None is searched on select."""
    builds = tuple(
        partial(
            make_flow,
            layers=layers or sizes[0],
            width=width or sizes[1],
            depth=depth,
            bins=bins or sizes[2],
            bound=bound,
            autoregressive=variant == "autoregressive",
        )
        for sizes in SIZES[effort]
    )
    plans = tuple(replace(plan, batch=batch or plan.batch, rate=rate or plan.rate) for plan in PLANS[effort])
    return partial(fit, builds=builds, plans=plans, decay=decay, tried=1 if effort == "quick" else None)


def fit(
    fitting: Fitting, builds: tuple[partial, ...], plans: tuple[Plan, ...], decay: float | None, tried: int | None
) -> Outcome:
    """Train, and keep the best on select; ``tried`` is the number of decays to try (None: all)."""
    train, small = fitting.train, fitting.rows < SMALL
    decays = ((decay,) if decay is not None else SMALL_DECAYS if small else LARGE_DECAYS)[:tried]
    build, plan = builds[small], plans[small]
    given = None if train.flat_given is None else jnp.asarray(train.flat_given)
    candidates = [
        Candidate(f"decay={strength:g}", partial(_fresh, build, fitting), replace(plan, decay=strength))
        for strength in decays
    ]
    rows = Rows(jnp.asarray(train.flat), given)
    learning = Learning("flow", candidates, negative_log_likelihood, rows, fitting.select)
    settings = build.keywords
    kind = "autoregressive" if settings["autoregressive"] else "coupling"
    return learn(fitting, learning, f"flow ({kind}, {settings['layers']} layers of {settings['width']})")


def _fresh(build: partial, fitting: Fitting, generator: np.random.Generator) -> Flow:
    return build(fitting.dim, generator, given=fitting.given)
