"""``autoregressive``: the chain rule over columns with one masked network; exact log p for every kind of column.

The family has a codec of its own (one coordinate a column, nothing dequantised). Trained by maximum likelihood; the decay
of the weights is searched on select (``families.training``). Small tables get an ensemble, each member with an order of
the columns of its own; where ``order`` is set, all members follow it, and rows whose last columns are empty can be scored.
Large tables of many columns (pictures) get a wider network and longer plans.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple, cast

import numpy as np

from mulligan.catalog import Effort, near
from mulligan.data.given import ConditionalCodec, fit_any_codec
from mulligan.data.native import NativeCodec
from mulligan.errors import UsageError
from mulligan.families.recipe import Fitting, Outcome, Recipe
from mulligan.families.training import SMALL, WIDE, Candidate, Learning, learn, training_rows
from mulligan.learners.gradient import Objective, Plan
from mulligan.models.autoregressive import Autoregressive, make_autoregressive
from mulligan.models.columns import Columns, columns_of
from mulligan.models.ensemble import Ensemble
from mulligan.models.flow import stack
from mulligan.objectives.likelihood import (
    members_negative_log_likelihood,
    negative_log_likelihood,
)

WIDTHS: dict[Effort, int] = {"quick": 128, "standard": 128, "thorough": 256}
# Of tables with many columns and rows: one residual block, and plans for steps that take a tenth of a second.
WIDE_WIDTHS: dict[Effort, int] = {"quick": 256, "standard": 512, "thorough": 1024}
WIDE_PLANS: dict[Effort, Plan] = {
    "quick": Plan(500, batch=128, rate=3e-3),
    "standard": Plan(4000, batch=128, rate=3e-3, patience=30),
    "thorough": Plan(40_000, batch=128, rate=2e-3, patience=30),
}
WIDE_DECAYS = (0.1, 1.0)
# On large tables, and on small ones.
PLANS: dict[Effort, tuple[Plan, Plan]] = {
    "quick": (Plan(500, rate=1e-2), Plan(200, rate=1e-2, batch=256)),
    "standard": (Plan(2000, rate=1e-2, patience=30), Plan(300, rate=1e-2, batch=256)),
    "thorough": (Plan(20_000, rate=3e-3), Plan(3000, rate=5e-3, batch=256)),
}
MEMBERS: dict[Effort, int] = {"quick": 4, "standard": 8, "thorough": 16}  # on small tables; one on large ones
DEPTHS = (2, 1)
PARTS = (32, 16)
WAVES = (1.0, 2.0, 4.0)  # frequencies at which the network sees a number; they bend laws sharply, and over-fit few rows
LARGE = ((WAVES, 1.0), ((), 1.0), ((), 0.3))  # frequencies and decay
FEW = (((), 1.0), ((), 0.3))


class Settings(NamedTuple):
    """What the catalog's options ask for; None leaves it to the effort, the number of rows, or select."""

    order: tuple[str, ...] | None
    members: int | None
    width: int | None
    depth: int | None
    parts: int | None
    decay: float | None


def make(
    variant: str | None,
    effort: Effort,
    order: tuple[str, ...] | None,
    members: int | None,
    width: int | None,
    depth: int | None,
    parts: int | None,
    decay: float | None,
    rate: float | None,
    batch: int | None,
) -> Recipe:
    """The recipe; what is None is the effort's and the table's, ``decay`` None is searched on select."""
    settings = Settings(order, members, width, depth, parts, decay)
    plans = tuple(replace(p, batch=batch or p.batch, rate=rate or p.rate) for p in (*PLANS[effort], WIDE_PLANS[effort]))
    return partial(fit, settings=settings, effort=effort, plans=plans)


def fit(fitting: Fitting, settings: Settings, effort: Effort, plans: tuple[Plan, ...]) -> Outcome:
    """Train, and keep the best on select."""
    given = fitting.codec.given_names if isinstance(fitting.codec, ConditionalCodec) else ()
    codec = fit_any_codec(fitting.train_rows, given, native=True)
    native = cast(NativeCodec, codec.inner if isinstance(codec, ConditionalCodec) else codec)
    names = [column.name for column in native.schema.modelled]
    small = fitting.rows < SMALL
    wide = not small and len(names) >= WIDE
    members = settings.members or (MEMBERS[effort] if small else 1)
    build = partial(
        _fresh,
        columns=columns_of(native),
        order=None if settings.order is None else ordered(names, settings.order),
        members=members,
        width=settings.width or (WIDE_WIDTHS if wide else WIDTHS)[effort],
        depth=(1 if wide else DEPTHS[small]) if settings.depth is None else settings.depth,
        parts=settings.parts or PARTS[small],
        given=codec.given_dim,
    )
    tried = tuple(((), decay) for decay in WIDE_DECAYS) if wide else FEW if small else LARGE
    pairs = [(waves, decay if settings.decay is None else settings.decay) for waves, decay in tried]
    plan = plans[2 if wide else small]
    candidates = [
        Candidate(
            f"decay={decay:g}{' waves' if waves else ''}",
            partial(build, frequencies=waves),
            replace(plan, decay=decay),
        )
        for waves, decay in list(dict.fromkeys(pairs))[: 1 if effort == "quick" else None]
    ]
    likelihood: Objective = negative_log_likelihood if members == 1 else members_negative_log_likelihood
    rows, objective = training_rows(fitting, codec, likelihood)
    learning = Learning(
        "autoregressive",
        candidates,
        objective,
        rows,
        codec.encode(fitting.select_rows.values),
        codec,
    )
    size = f"{build.keywords['depth']} blocks of {build.keywords['width']}".replace("1 blocks", "1 block")
    return learn(fitting, learning, f"autoregressive ({'' if members == 1 else f'{members} times '}{size})")


def _fresh(
    generator: np.random.Generator, columns: Columns, order: list[int] | None, members: int, **sizes: Any
) -> Autoregressive | Ensemble:
    """One model, or several; members have an order of the columns each, unless one was asked for."""
    if members == 1:
        return make_autoregressive(columns, generator, order=order, **sizes)
    orders = [generator.permutation(columns.dim).tolist() if order is None else order for _ in range(members)]
    return Ensemble(stack([make_autoregressive(columns, generator, order=each, **sizes) for each in orders]))


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
