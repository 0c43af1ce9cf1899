"""The variational view: a walk back of many easy Gaussians in place of one hard one, and what each step costs.

Definition. x_t = x_0 + √t e for a mixture p_0 on the line. The step back from x_t is N(x_t + a ∇ log p_t(x_t), a), a the
decrease of t; its cost is KL(q(x_{t−a}|x_t) ‖ N), the exact posterior against it, averaged over p_t. The costs add up to the
KL of the path laws, which bounds that of the ends: KL(p_0‖model) ≤ Σ cost. For small a a cost is (a²/4) E (∂² log p_t)²
(``diffusion.posterior_gaussian``), so with T steps the sum falls as 1/T.
Serves ``diffusion.kl_chain``, ``diffusion.two_views``, ``diffusion.posterior_gaussian``.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated

import numpy as np
from scipy.special import logsumexp

from mulligan.lab.experiment import Range, experiment
from mulligan.lab.identity import excess, order, rounding
from mulligan.lab.recording import Bars, Curve, Panel, Points, Recording, Scale
from mulligan.quantity import Quantity

WEIGHTS, MEANS, WIDTHS = np.array([0.6, 0.4]), np.array([-1.5, 1.5]), np.array([0.45, 0.35])
COUNTS = (1, 2, 4, 8, 16, 32, 64, 128)
MIDDLES = 8  # bars: costs are added up in this many parts of the way
GRID = np.linspace(-14.0, 14.0, 561)


def log_p(x: np.ndarray, t: float) -> np.ndarray:
    """log p_t(x).

    >>> bool(abs(np.exp(log_p(GRID, 1.0)).sum() * (GRID[1] - GRID[0]) - 1) < 1e-9)
    True
    """
    v = WIDTHS**2 + t
    parts = np.log(WEIGHTS / np.sqrt(2 * np.pi * v)) - 0.5 * (np.asarray(x)[..., None] - MEANS) ** 2 / v
    return logsumexp(parts, axis=-1)


def score(x: np.ndarray, t: float) -> np.ndarray:
    """∂ log p_t(x).

    >>> bool(abs(score(np.array(0.3), 1.0) - (log_p(0.3 + 1e-6, 1.0) - log_p(0.3 - 1e-6, 1.0)) / 2e-6) < 1e-6)
    True
    """
    v = WIDTHS**2 + t
    parts = np.log(WEIGHTS / np.sqrt(v)) - 0.5 * (np.asarray(x)[..., None] - MEANS) ** 2 / v
    r = np.exp(parts - logsumexp(parts, axis=-1, keepdims=True))
    return (r * (MEANS - np.asarray(x)[..., None]) / v).sum(axis=-1)


def step_cost(s: float, t: float) -> float:
    """E KL(q(x_s|x_t) ‖ N(x_t + a ∇ log p_t(x_t), a)), a = t − s, on a grid in units of the step's own Gaussian.

    >>> 0 < step_cost(0.9, 1.0) < 2e-3
    True
    """
    a, nodes, grid = t - s, np.linspace(-8.0, 8.0, 97), GRID[::2]
    x = (grid + a * score(grid, t))[:, None] + np.sqrt(a) * nodes  # (x_t, x_s)
    log_q = log_p(x, s) - 0.5 * (grid[:, None] - x) ** 2 / a - 0.5 * np.log(2 * np.pi * a) - log_p(grid, t)[:, None]
    log_n = -0.5 * nodes**2 - 0.5 * np.log(2 * np.pi * a)
    inside = (np.exp(log_q) * (log_q - log_n)).sum(axis=1) * np.sqrt(a) * (nodes[1] - nodes[0])
    return float((np.exp(log_p(grid, t)) * inside).sum() * (grid[1] - grid[0]))


def end_law(times: np.ndarray) -> np.ndarray:
    """The density on ``GRID`` of the model that starts at the exact p_T and takes the Gaussian steps, propagated exactly.

    >>> bool(abs(end_law(np.array([4.0, 2.0, 0.01])).sum() * (GRID[1] - GRID[0]) - 1) < 1e-3)
    True
    """
    h, law = GRID[1] - GRID[0], np.exp(log_p(GRID, times[0]))
    for t, s in pairwise(times):
        a = t - s
        mean = GRID + a * score(GRID, t)
        kernel = np.exp(-0.5 * (GRID[:, None] - mean) ** 2 / a) / np.sqrt(2 * np.pi * a)
        law = kernel @ law * h
    return law


@experiment(9, "Many easy Gaussians instead of one hard one")
def steps_as_bars(
    *, first: Annotated[float, Range(0.5, 20.0)] = 4.0, last: Annotated[float, Range(0.01, 0.4)] = 0.05, seed: int = 0
) -> Recording:
    """The walk from t = ``first`` to ``last`` in 1, 2, 4, … 128 steps: costs, their sum, and the law at the end.

    Equal steps of the mean noise √t. Nothing here is random. Raises UsageError for a value out of its range.
    Sohl-Dickstein et al. (2015); Ho, Jain and Abbeel (2020).

    >>> from mulligan.lab.experiments.steps_as_bars import steps_as_bars
    >>> steps_as_bars().holds
    True
    """
    grids = [np.linspace(np.sqrt(first), np.sqrt(last), n + 1) ** 2 for n in COUNTS]
    costs = [np.array([step_cost(s, t) for t, s in pairwise(times)]) for times in grids]
    sums = np.array([cost.sum() for cost in costs])
    laws = np.stack([end_law(times) for times in grids])
    truth = np.exp(log_p(GRID, last))
    h = GRID[1] - GRID[0]
    ends = np.array([float((truth * (np.log(truth) - np.log(np.maximum(law, 1e-300)))).sum() * h) for law in laws])
    return Recording(
        panels=(_bars(grids, costs, first, last), _sums(sums, ends), _laws(laws, truth, last)),
        captions=tuple(_caption(n, s) for n, s in zip(COUNTS, sums)),
        see="One Gaussian cannot go from noise to two hills. Many can: the cost falls as one over their number.",
        numbers={
            "sum of the costs": tuple(Quantity(float(v), "numeric", unit="nats") for v in sums),
            "KL of the ends": tuple(Quantity(float(v), "numeric", unit="nats") for v in ends),
            "largest cost of a step": tuple(Quantity(float(c.max()), "numeric", unit="nats") for c in costs),
        },
        checks={
            "no cost is negative": rounding({"least": (excess(0.0, min(c.min() for c in costs)), 0.0)}),
            "the sum falls with the number of steps": rounding({"rise": (excess(np.diff(sums), 0.0), 0.0)}),
            "in the end as 1/steps": order({"32, 64, 128": (1 / np.array(COUNTS[-3:]), sums[-3:], 1.0)}, 0.15),
            "KL of the ends is at most the sum": rounding({"KL": (excess(ends, sums), 0.0)}, 1e-6),
        },
        rate=1.5,
    )


def _bars(grids: list[np.ndarray], costs: list[np.ndarray], first: float, last: float) -> Panel:
    """Costs, added up over equal parts of the way in √t, so that every number of steps fits one picture."""
    edges = np.linspace(np.sqrt(first), np.sqrt(last), MIDDLES + 1)[::-1]
    heights = []
    for times, cost in zip(grids, costs):
        parts = np.zeros(MIDDLES)
        for t, s, c in zip(np.sqrt(times[:-1]), np.sqrt(times[1:]), cost):
            shared = np.clip(np.minimum(t, edges[1:]) - np.maximum(s, edges[:-1]), 0, None)
            parts += c * shared / (t - s)
        heights.append(parts)
    middle, width = 0.5 * (edges[1:] + edges[:-1]), edges[1] - edges[0]
    bars = Bars("cost of this part of the way", middle, np.stack(heights), width=0.92 * width)
    return Panel(
        "where on the way back it costs", Scale("noise √t (the walk back goes left)"), Scale("nats", 0.0), (bars,)
    )


def _sums(sums: np.ndarray, ends: np.ndarray) -> Panel:
    n = np.array(COUNTS, float)
    now = np.stack([n, sums], axis=1)[:, None]
    layers = (
        Curve("sum of the costs", n, sums[None], role="model", dots=True),
        Curve("KL of the ends", n, ends[None], role="second", dots=True),
        Curve("1/steps", n, (sums[-1] * n[-1] / n)[None], role="data", dashed=True),
        Points("now", now, role="mark", size=8.0),
    )
    return Panel("what the walk costs in all", Scale("steps", log=True), Scale("nats", log=True), layers)


def _laws(laws: np.ndarray, truth: np.ndarray, last: float) -> Panel:
    near = np.abs(GRID) <= 4.5
    layers = (
        Curve(f"p_t at t = {last:g}", GRID[near], truth[near][None], role="ink", dashed=True),
        Curve("the model's law", GRID[near], laws[:, near], role="model"),
    )
    return Panel("where the walk ends", Scale("x"), Scale("density"), layers)


def _caption(n: int, total: float) -> str:
    word = "one Gaussian step" if n == 1 else f"{n} Gaussian steps"
    return f"{word[0].upper()}{word[1:]} from noise to data: they cost {total:.3g} nats in all."
