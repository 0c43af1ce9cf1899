"""Annealed importance sampling: log w from below, reverse log w from above, and log Z between them.

Definition. From x_0 ~ q, rung by rung up a ladder of β, log w adds up (β_k − β_{k−1}) f(x_{k−1}); a reverse run starts at a
draw of π and goes down. E_F log w ≤ log Z_1/Z_0 ≤ E_R log w, and p_F(log w) = p_R(log w) exp(log Z − log w): the two
histograms cross at log Z (Crooks), where Bennett's estimator finds it. Here both ends are normalised: log Z = 0. Serves
``annealing.ais`` and ``annealing.crooks``.
"""

from __future__ import annotations

from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np

from mulligan.lab.experiment import Range, experiment
from mulligan.lab.experiments.estimates import Z95, estimates
from mulligan.lab.experiments.tempering import draws, two_holes
from mulligan.lab.identity import mean_and_error, monte_carlo, rounding
from mulligan.lab.recording import Bars, Curve, Panel, Points, Recording, Scale
from mulligan.loop import compile_small
from mulligan.measures.partition import bennett
from mulligan.samplers.annealing import AnnealedImportance
from mulligan.samplers.langevin import MetropolisLangevin
from mulligan.samplers.many import Many

RUNGS = np.array([1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128])
EDGES = np.linspace(-8.0, 5.0, 53)


@compile_small
def _weights(chains: Many, start: Any, key: Any, rungs: Any) -> Any:
    """log w (n,) of runs along β = (k/K)², k = 0 … K; K is traced, so all lengths are one program."""
    reverse = chains.kernel.reverse  # type: ignore[attr-defined]

    def step(i: Any, state: Any) -> Any:
        k = rungs - 1 - i if reverse else i
        before, after = (k / rungs) ** 2, ((k + 1) / rungs) ** 2
        size = 0.4 * jnp.minimum(1 / jnp.maximum(after, 0.05), 8.0)
        return chains.step(jax.random.fold_in(key, i), state, (before, after, size))[0]

    return jax.lax.fori_loop(0, rungs, step, chains.init(key, start)).log_weight


@experiment(8, "Annealing brackets log Z from both sides")
def annealing_bracket(
    *,
    runs: Annotated[int, Range(200, 20_000)] = 3000,
    moves: Annotated[int, Range(1, 20)] = 2,
    seed: int = 0,
) -> Recording:
    """E log w of forward runs ≤ log Z ≤ that of reverse runs, for ladders of 1 to 128 rungs between q and two narrow hills.

    Parameters: ``runs``, in each direction, from exact draws; ``moves`` of adjusted Langevin a rung. Raises UsageError for
    a value out of its range. Jarzynski 1997; Neal 2001; Crooks 1999; Bennett 1976.

    >>> from mulligan.lab.experiments.annealing import annealing_bracket
    >>> annealing_bracket(runs=300, moves=1).holds
    True
    """
    path, rng = two_holes(), np.random.default_rng(seed)
    local = MetropolisLangevin(path, jnp.asarray(0.4))
    found: dict[str, np.ndarray] = {}
    for name, beta in (("forward", 0.0), ("reverse", 1.0)):
        chains = Many(AnnealedImportance(local, name == "reverse", moves))
        rows = []
        for k, rungs in enumerate(RUNGS):
            start = jnp.asarray(draws(path, np.array([beta]), runs, rng))
            key = jax.random.fold_in(jax.random.key(seed), 2 * k + (name == "reverse"))
            rows.append(np.asarray(_weights(chains, start, key, jnp.asarray(float(rungs)).astype(int))))
        found[name] = np.stack(rows)
    middle = [bennett(*pair) for pair in zip(found["forward"], found["reverse"])]
    low, low_error = mean_and_error(found["forward"].T)
    high, high_error = mean_and_error(found["reverse"].T)
    return Recording(
        panels=(_histograms(found), _bracket(found, middle)),
        captions=tuple(
            f"number of rungs: {rungs}. The bracket is {width:.2f} nats wide; the histograms cross at log Z"
            for rungs, width in zip(RUNGS, high - low)
        ),
        see="More rungs bring both averages of log w to log Z, one from below, one from above.",
        numbers={
            "forward E log w": estimates(found["forward"], "nats"),
            "Bennett": tuple(middle),
            "reverse E log w": estimates(found["reverse"], "nats"),
        },
        checks={
            "forward E log w ≤ log Z ≤ reverse E log w": monte_carlo(
                {
                    "forward": (np.maximum(low, 0.0), 0.0, low_error),
                    "reverse": (np.minimum(high, 0.0), 0.0, high_error),
                }
            ),
            "Bennett's estimate is log Z": monte_carlo(
                {"every ladder": ([m.value for m in middle], 0.0, [m.stderr for m in middle])}
            ),
            "the bracket of the longest ladder is a tenth of the first, or less": rounding(
                {"width": (max(0.0, (high - low)[-1] - 0.1 * (high - low)[0]), 0.0)}
            ),
        },
        rate=2.0,
    )


def _histograms(found: dict[str, np.ndarray]) -> Panel:
    """Densities of log w in both directions; what lies beyond the axis counts in its end bars."""
    width = EDGES[1] - EDGES[0]
    layers: list[Any] = []
    for name, role, shift in (("forward", "model", -0.23), ("reverse", "mark", 0.23)):
        inside = np.clip(found[name], EDGES[0], EDGES[-1] - 1e-9)
        share = np.stack([np.histogram(row, EDGES)[0] for row in inside]) / found[name].shape[1]
        error = np.sqrt(share * (1 - share) / found[name].shape[1])
        at = 0.5 * (EDGES[1:] + EDGES[:-1]) + shift * width
        layers.append(Bars(f"{name} runs", at, share, role, error, 0.46 * width))  # type: ignore[arg-type]
    layers.append(Curve("log Z = 0", np.array([-1e-3, 1e-3]), np.array([[0.0, 0.3]]), "ink", dashed=True))
    title = f"weights of the runs (left end: all below {EDGES[0]:.0f})"
    return Panel(
        title, Scale("log w (nats)", EDGES[0], EDGES[-1]), Scale("share of the runs", 0.0, 0.42), tuple(layers)
    )


def _bracket(found: dict[str, np.ndarray], middle: list[Any]) -> Panel:
    """Both means with 95 % bands and Bennett's estimate, against the number of rungs."""
    x = RUNGS.astype(float)
    layers: list[Any] = [Curve("log Z", x[[0, -1]], np.zeros((1, 2)), "ink", dashed=True)]
    means = {name: mean_and_error(rows.T) for name, rows in found.items()}
    means["Bennett"] = np.array([m.value for m in middle]), np.array([m.stderr for m in middle])
    for (name, (mean, error)), role in zip(means.items(), ("model", "mark", "second")):
        band = {"low": (mean - Z95 * error)[None], "high": (mean + Z95 * error)[None]}
        label = name if name == "Bennett" else f"E log w, {name}"
        layers.append(Curve(label, x, mean[None], role, dots=True, **band))  # type: ignore[arg-type]
    now = np.stack([np.stack([x, mean], axis=-1) for mean, _ in means.values()], axis=1)
    layers.append(Points("now", now, "ink", 7.0, 0.4))
    axes = (
        Scale("rungs", 0.9, 140.0, log=True),
        Scale("nats", 1.15 * float(means["forward"][0][0]), 6.5),
    )
    return Panel("the bracket closes", *axes, tuple(layers))
