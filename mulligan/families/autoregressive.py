"""``autoregressive``: the chain rule over columns with one masked network; exact log p for every kind of column.

The family has a codec of its own (one coordinate a column, nothing dequantised). Trained by maximum likelihood; the decay
of the weights is searched on select (``families.training``).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import cast

import jax.numpy as jnp

from mulligan.catalog import Effort, near
from mulligan.data.given import ConditionalCodec, fit_any_codec
from mulligan.data.native import NativeCodec
from mulligan.errors import UsageError
from mulligan.families.recipe import Fitting, Outcome, Recipe
from mulligan.families.training import Learning, learn
from mulligan.learners.gradient import Plan
from mulligan.models.autoregressive import make_autoregressive
from mulligan.models.columns import columns_of
from mulligan.objectives.likelihood import Rows, negative_log_likelihood

PLANS: dict[Effort, Plan] = {
    "quick": Plan(600, rate=5e-3),
    "standard": Plan(4000, rate=3e-3),
    "thorough": Plan(20_000, rate=2e-3),
}
DECAYS: dict[Effort, tuple[float, ...]] = {
    "quick": (0.01,),
    "standard": (0.01, 0.1, 0.3, 1.0),
    "thorough": (0.0, 0.01, 0.03, 0.1, 0.3, 1.0),
}


def make(
    variant: str | None,
    effort: Effort,
    order: tuple[str, ...] | None,
    width: int,
    depth: int,
    parts: int,
    decay: float | None,
    rate: float | None,
    batch: int,
) -> Recipe:
    """The recipe; ``decay`` None searches it on select, ``rate`` None leaves it to the effort."""
    plan = PLANS[effort]
    plan = Plan(plan.steps, batch, rate or plan.rate)
    build = partial(make_autoregressive, width=width, depth=depth, parts=parts)
    return partial(fit, build=build, order=order, plan=plan, decays=DECAYS[effort] if decay is None else (decay,))


def fit(
    fitting: Fitting, build: partial, order: tuple[str, ...] | None, plan: Plan, decays: tuple[float, ...]
) -> Outcome:
    """Train, and keep the best on select."""
    given = fitting.codec.given_names if isinstance(fitting.codec, ConditionalCodec) else ()
    codec = fit_any_codec(fitting.train_rows, given, native=True)
    native = cast(NativeCodec, codec.inner if isinstance(codec, ConditionalCodec) else codec)
    names = [column.name for column in native.schema.modelled]
    places = ordered(names, order)
    train = codec.encode(fitting.train_rows.values)
    learning = Learning(
        "autoregressive",
        lambda generator: build(columns_of(native), generator, order=places, given=codec.given_dim),
        negative_log_likelihood,
        Rows(jnp.asarray(train.flat), None if train.flat_given is None else jnp.asarray(train.flat_given)),
        codec.encode(fitting.select_rows.values),
        plan,
        decays,
        codec,
    )
    settings = build.keywords
    return learn(fitting, learning, f"autoregressive ({settings['depth']} blocks of {settings['width']})")


def ordered(names: Sequence[str], first: Sequence[str] | None) -> list[int]:
    """Places of the columns in the order: those named ``first``, then the others as they are.

    >>> ordered(["a", "b", "c"], ["c"])
    [2, 0, 1]

    Raises UsageError for a name that is no column, or is named twice.
    """
    first = list(first or ())
    for name in first:
        if name not in names:
            raise UsageError(f"order: no column '{name}'{near(name, names)}", do=f"columns: {', '.join(names)}")
        if first.count(name) > 1:
            raise UsageError(f"order: '{name}' is named twice", do="each column at most once")
    return [names.index(name) for name in [*first, *(name for name in names if name not in first)]]
