"""A barrier slows local moves exponentially; exchange along a ladder of β takes that away.

Definition. The spectral gap 1 − λ₂ of a chain is the rate at which it forgets its start: what is left after n steps is
λ₂ⁿ. For Langevin in a double well it falls as b e^(−barrier) (Kramers); beside a chain at β = 0, with exchange, it does not.
Transition matrices of the library's kernels on a grid. Serves ``tempering.slow``.
"""

from __future__ import annotations

from typing import Annotated

import numpy as np

from mulligan.lab.experiment import Range, experiment
from mulligan.lab.identities.tempering import gaps
from mulligan.lab.identity import excess, order, rounding
from mulligan.lab.recording import Curve, Panel, Points, Recording, Scale
from mulligan.quantity import Quantity

LINE = np.linspace(-4.0, 4.0, 161)
STEPS = np.logspace(0, 7, 71)


@experiment(8, "A barrier slows Langevin; exchange takes it away")
def tempering_gap(
    *,
    lowest: Annotated[float, Range(0.5, 5.0)] = 1.0,
    highest: Annotated[float, Range(7.0, 12.0)] = 11.0,
    frames: Annotated[int, Range(8, 30)] = 16,
    seed: int = 0,
) -> Recording:
    """The gap 1 − λ₂ of Langevin in x⁴/4 − bx²/2, barrier b²/4, alone and with exchange, as the barrier grows.

    Parameters: ``lowest`` and ``highest`` barrier in nats; ``frames``; nothing is random, and ``seed`` moves the barriers
    by at most 0.1. Raises UsageError for a value out of its range. Kramers 1940; Woodard, Schmidler and Huber 2009.

    >>> from mulligan.lab.experiments.barrier import tempering_gap
    >>> tempering_gap(frames=8).holds
    True
    """
    shift = np.random.default_rng(seed).uniform(-0.1, 0.1)
    heights = np.linspace(lowest, highest, frames) + shift
    found = [gaps(float(height)) for height in heights]
    alone, exchanging, factor = (np.array(each) for each in zip(*found))
    high = heights >= min(5.0, heights[-3])
    kramers = alone[-1] * factor / factor[-1] * np.exp(heights[-1] - heights)
    curves = {"alone": alone, "exchanging": exchanging}
    layers = [Curve("b exp(−barrier), through the last", heights, kramers[None], "ink", dashed=True)]
    layers += [
        Curve(f"gap, {name}", heights, gap[None], role, dots=True)  # type: ignore[arg-type]
        for (name, gap), role in zip(curves.items(), ("mark", "model"))
    ]
    now = np.stack([np.stack([heights, gap], axis=-1) for gap in curves.values()], axis=1)
    left = [
        Curve(f"λ₂ⁿ, {name}", STEPS, np.exp(STEPS * np.log1p(-gap)[:, None]), role)  # type: ignore[arg-type]
        for (name, gap), role in zip(curves.items(), ("mark", "model"))
    ]
    energy = LINE**4 / 4 - factor[:, None] * LINE**2 / 2 + heights[:, None]
    return Recording(
        panels=(
            Panel(
                "the well",
                Scale("x", -4.0, 4.0),
                Scale("energy above the minima (nats)", 0.0, 16.0),
                (Curve("energy", LINE, np.minimum(energy, 40.0)),),
            ),
            Panel(
                "rate of forgetting",
                Scale("barrier (nats)"),
                Scale("spectral gap (per step)", 1e-7, 50.0, log=True),
                (*layers, Points("now", now, "ink", 7.0, 0.5)),
            ),
            Panel(
                "what is left of the start",
                Scale("steps n", 1.0, 1e7, log=True),
                Scale("share left, λ₂ⁿ", 0.0, 1.35),
                tuple(left),
            ),
        ),
        captions=tuple(
            f"barrier {height:.1f} nats: forgotten in about {1 / a:,.0f} steps alone, in {1 / e:,.0f} with exchange"
            for height, a, e in zip(heights, alone, exchanging)
        ),
        see="Each nat of barrier costs Langevin a factor e; with exchange the rate hardly changes.",
        numbers={
            f"1/gap, {name}": tuple(Quantity(float(1 / value), "numeric", unit="steps") for value in gap)
            for name, gap in curves.items()
        },
        checks={
            "alone the gap falls as b exp(−barrier)": order(
                {"from 5 nats on": (np.exp(heights[high]), (alone / factor)[high], -1.0)}
            ),
            "with exchange it falls by less than 4 from 5 nats on": rounding(
                {"ratio": (excess(exchanging[high].max() / exchanging[high].min(), 4.0), 0.0)}
            ),
        },
        rate=3.0,
    )
