"""EM never lets the likelihood fall; its Monte-Carlo relatives do.

Definition. Rows from ½N(−δ, 1) + ½N(δ, 1), a model of that form with both means unknown. The E step finds r_i =
p(z_i = 1|x_i); the Monte-Carlo one draws z_i m times and takes their mean. The M step is the weighted mean of the rows.
With exact r the mean log-likelihood never falls (Dempster, Laird and Rubin 1977); with drawn ones it wanders about the
optimum by 1/√m in θ, so by 1/m in log-likelihood.
Serves the phenomenon of ``em.monotone``: Monte-Carlo relatives are not monotone.
"""

from __future__ import annotations

from typing import Annotated

import numpy as np
from scipy.special import expit

from mulligan.lab.experiment import Range, experiment
from mulligan.lab.identity import excess, mean_and_error, rounding
from mulligan.lab.recording import Bars, Curve, Panel, Recording, Role, Scale
from mulligan.quantity import Quantity

DRAWS = (1, 4, 16, 64)
RUNS = 40
START = np.array([-0.3, 0.1])


def log_likelihood(means: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Mean log-likelihood in nats a row, means (…, 2).

    >>> round(float(log_likelihood(np.zeros(2), np.zeros(3))), 4)
    -0.9189
    """
    f = -0.5 * (rows - means[..., None]) ** 2  # (…, 2, n)
    return (np.logaddexp(f[..., 0, :], f[..., 1, :]) - np.log(2)).mean(axis=-1) - 0.5 * np.log(2 * np.pi)


def climb(rows: np.ndarray, steps: int, draws: int, rng: np.random.Generator, runs: int) -> np.ndarray:
    """Mean log-likelihood at each step, (runs, steps + 1); ``draws`` = 0 for the exact E step.

    >>> curve = climb(np.array([-1.0, 1.0, 1.5]), 5, 0, np.random.default_rng(0), 1)[0]
    >>> bool((np.diff(curve) >= 0).all())
    True
    """
    means = np.tile(START, (runs, 1))
    found = [log_likelihood(means, rows)]
    for _ in range(steps):
        f = -0.5 * (rows - means[..., None]) ** 2
        r = expit(f[:, 1] - f[:, 0])
        if draws:
            r = rng.binomial(draws, r) / draws
        one, all_ = r.sum(axis=1), rows.size
        means = np.stack([((1 - r) @ rows) / np.maximum(all_ - one, 1e-9), (r @ rows) / np.maximum(one, 1e-9)], axis=1)
        found.append(log_likelihood(means, rows))
    return np.stack(found, axis=1)


@experiment(4, "EM climbs; Monte-Carlo EM wanders")
def monte_carlo_em(
    *,
    rows: Annotated[int, Range(20, 2000)] = 150,
    apart: Annotated[float, Range(0.5, 4.0)] = 1.2,
    steps: Annotated[int, Range(5, 100)] = 40,
    seed: int = 0,
) -> Recording:
    """Exact EM and Monte-Carlo EM with 1, 4, 16 and 64 draws of each z, from one start; ``apart`` is δ.

    Raises UsageError for a value out of its range. Wei and Tanner (1990).

    >>> from mulligan.lab.experiments.monte_carlo_em import monte_carlo_em
    >>> monte_carlo_em(steps=10, seed=1).holds
    True
    """
    rng = np.random.default_rng([seed, 41])
    x = apart * rng.choice([-1.0, 1.0], rows) + rng.normal(size=rows)
    exact = climb(x, steps, 0, rng, 1)[0]
    best = climb(x, 2000, 0, rng, 1)[0, -1]
    drawn = {m: climb(x, steps, m, rng, RUNS) for m in DRAWS}
    falls = {m: np.maximum(-np.diff(curve, axis=1), 0).max(axis=1) for m, curve in drawn.items()}
    worst, error = np.array([mean_and_error(each) for each in falls.values()]).T
    rose = float(np.maximum(-np.diff(exact), 0).max())
    at_best = np.abs(exact[-1] - best)
    return Recording(
        panels=(_curves(best, exact, drawn, steps), _falls(rose, worst, error)),
        captions=tuple(_caption(k, exact, drawn[1][0]) for k in range(steps + 1)),
        see="With exact averages the likelihood never falls. With drawn ones it does, the less the more draws.",
        numbers={
            "exact EM, below the optimum": tuple(Quantity(float(best - v), "exact", unit="nats/row") for v in exact),
            **{f"largest fall of a run, {m} draws": (_mean(falls[m]),) for m in DRAWS},
        },
        checks={
            "exact EM never falls": rounding({"largest fall": (rose, 0.0)}),
            "each run with one draw does": rounding({"runs that do not": (float((falls[1] <= 1e-9).sum()), 0.0)}),
            "the falls shrink with the draws": rounding(
                {
                    "means, 3 standard errors apart": (
                        excess(worst[1:] + 3 * np.hypot(error[1:], error[:-1]), worst[:-1]),
                        0.0,
                    )
                }
            ),
            "exact EM climbs towards its optimum": rounding({"left": (excess(at_best, best - exact[0]), 0.0)}),
        },
        rate=6.0,
    )


def _mean(values: np.ndarray) -> Quantity:
    mean, error = (float(v) for v in mean_and_error(values))
    return Quantity(
        mean, "estimate", mean - 1.96 * error, mean + 1.96 * error, stderr=error, n=len(values), unit="nats/row"
    )


def _curves(best: float, exact: np.ndarray, drawn: dict[int, np.ndarray], steps: int) -> Panel:
    """Below the optimum, up to each frame; later steps are held at the frame's own value."""
    k = np.arange(steps + 1)
    until = np.minimum(k[None], k[:, None])  # (frame, step)
    roles: dict[int, Role] = {1: "mark", 4: "third", 16: "second"}
    layers = [Curve("optimum", k, np.zeros((1, steps + 1)), role="data", dashed=True)]
    layers += [
        Curve(f"{m} draws", np.minimum(k, steps), (drawn[m][0] - best)[until], role=role) for m, role in roles.items()
    ]
    layers.append(Curve("exact", k, (exact - best)[until], role="ink"))
    low = 1.1 * float(exact[0] - best)
    return Panel(
        "one run of each", Scale("step"), Scale("log-likelihood − optimum, nats/row", low, -0.7 * low), tuple(layers)
    )


def _falls(exact: float, worst: np.ndarray, error: np.ndarray) -> Panel:
    heights, errors = np.concatenate([worst, [exact]])[None], np.concatenate([error, [0.0]])[None]
    bars = Bars("largest fall in a step", np.arange(5.0), heights, error=errors)
    names = (*map(str, DRAWS), "exact")
    return Panel(
        f"largest fall, mean of {RUNS} runs", Scale("draws of each z", names=names), Scale("nats/row", 0.0), (bars,)
    )


def _caption(k: int, exact: np.ndarray, one: np.ndarray) -> str:
    if k == 0:
        return "All start from the same two means, nearly on top of each other."
    way = "fell" if one[k] < one[k - 1] else "rose"
    by = abs(one[k] - one[k - 1])
    return f"Step {k}: exact EM rose by {exact[k] - exact[k - 1]:.5f} nats a row; with one draw it {way} by {by:.5f}."
