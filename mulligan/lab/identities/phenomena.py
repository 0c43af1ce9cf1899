"""Phenomena, marked [E] in the theory: measured with their error. They are not equations, so ``verify`` omits them.

They are kept in the form of an identity (a left and a right side, an error, a verdict, planted mistakes), so that
``run_identity`` runs them and the tests see each of them fail.
Phenomena: ``density.curse``, ``mle.chasing``, ``cd.overshoot``; that of chapter 5 is ``game.wasserstein.critic``, those of
chapters 7 to 10 are ``hmc.smooth``, ``tempering.slow``, ``diffusion.robust.ode``, ``relation.one_stroke.holes``,
``relation.guided``.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import jax.numpy as jnp
import numpy as np

from mulligan.lab.identities import critic, hamiltonian, robust, strokes, tempering
from mulligan.lab.identities.contrastive import every_state, lattice_law, machine_of
from mulligan.lab.identities.surrogates import THETAS, contrast, current_law, flat, several
from mulligan.lab.identity import Check, Identity, excess, mean_and_error, monte_carlo, rounding
from mulligan.targets.counting import Histogram


def occupied_share(cells: int, n: int) -> float:
    """1 − (1 − 1/cells)^n: the expected share of equally probable cells that n points occupy.

    >>> round(occupied_share(10**6, 1000), 6)  # ten bins a side in six dimensions
    0.001
    """
    return -math.expm1(n * math.log1p(-1 / cells))


def shell_share(dim: int, depth: float) -> float:
    """1 − (1 − 2 depth)^dim: the share of a unit cube that lies within ``depth`` of its surface.

    >>> round(shell_share(20, 0.05), 4)
    0.8784
    """
    return 1 - (1 - 2 * depth) ** dim


def _n_cells(cells: int, n: int) -> float:
    """A planted mistake: as if no two points shared a cell."""
    return n / cells


def _curse(seed: int, *, share: Callable = occupied_share, repeats: int = 60) -> Check:
    """30 points in a cube of 5 bins a side: the share of cells that are occupied, and of points near the surface."""
    rng, pairs = np.random.default_rng(seed), {}
    for dim in (2, 3, 4):  # on a line 30 points hit all five bins
        rows = rng.uniform(size=(repeats, 30, dim))
        laws = [Histogram.from_rows(part, [np.linspace(0.0, 1.0, 6)] * dim) for part in rows]
        average, error = mean_and_error([np.mean(np.asarray(law.counts) > 0) for law in laws])
        pairs[f"occupied cells, d = {dim}"] = (average, share(5**dim, 30), error)
        near = np.minimum(rows, 1 - rows).min(axis=-1) < 0.05
        average, error = mean_and_error(near.reshape(-1))
        pairs[f"shell, d = {dim}"] = (average, shell_share(dim, 0.05), error)
    return monte_carlo(pairs)


# --- mode chasing -----------------------------------------------------------------------------------------------------

_LINE = np.linspace(-30.0, 30.0, 1501)


def _log_normal(mean: float, log_scale: float) -> np.ndarray:
    return -0.5 * ((_LINE - mean) / math.exp(log_scale)) ** 2 - log_scale - 0.5 * math.log(2 * math.pi)


def _two_modes(a: float) -> np.ndarray:
    return np.logaddexp(_log_normal(a, 0.0), _log_normal(-a, 0.0)) - math.log(2)


def reverse_kl(log_q: np.ndarray, log_p: np.ndarray) -> float:
    """KL(q‖p) of two log densities on the line [−30, 30].

    >>> abs(reverse_kl(_two_modes(1.0), _two_modes(1.0))) < 1e-12
    True
    """
    return float((_LINE[1] - _LINE[0]) * (np.exp(log_q) @ (log_q - log_p)))


def jensen_shannon(log_q: np.ndarray, log_p: np.ndarray) -> float:
    """½KL(p‖m) + ½KL(q‖m) with m = (p + q)/2.

    >>> round(jensen_shannon(_two_modes(0.0), _two_modes(0.0)), 12)
    0.0
    """
    log_m = np.logaddexp(log_p, log_q) - math.log(2)
    return 0.5 * (reverse_kl(log_p, log_m) + reverse_kl(log_q, log_m))


def forward_kl(log_q: np.ndarray, log_p: np.ndarray) -> float:
    """KL(p‖q): maximum likelihood, which never leaves the middle.

    >>> forward_kl(_two_modes(2.0), _two_modes(0.0)) > 0
    True
    """
    return reverse_kl(log_p, log_q)


def best_gaussian(divergence: Callable, a: float, start: tuple[float, float]) -> tuple[float, float, float]:
    """The least divergence of N(m, s²) from ½N(±a, 1), and its m and s, from one start; m = 0 is kept if it starts so.

    >>> best_gaussian(forward_kl, 2.0, (0.0, 0.5))[1]
    0.0
    """
    from scipy.optimize import minimize

    log_p = _two_modes(a)
    options = {"xatol": 1e-6, "fatol": 1e-13}
    if start[0] == 0:
        found = minimize(
            lambda t: divergence(_log_normal(0.0, t[0]), log_p), start[1:], method="Nelder-Mead", options=options
        )
        return float(found.fun), 0.0, math.exp(found.x[0])
    found = minimize(lambda t: divergence(_log_normal(*t), log_p), start, method="Nelder-Mead", options=options)
    return float(found.fun), float(found.x[0]), math.exp(found.x[1])


def threshold(divergence: Callable, low: float, high: float) -> float:
    """The a at which a mode and the middle are equally good fits, by bisection.

    >>> round(threshold(reverse_kl, 2.7, 2.9), 1)
    2.8
    """
    for _ in range(12):
        a = 0.5 * (low + high)
        middle = min(best_gaussian(divergence, a, (0.0, start))[0] for start in (0.0, 0.5 * math.log1p(a * a)))
        low, high = (low, a) if best_gaussian(divergence, a, (a, 0.0))[0] < middle else (a, high)
    return 0.5 * (low + high)


def _chasing(seed: int, *, chaser: Callable = reverse_kl) -> Check:
    """½N(±a, 1) by one Gaussian: KL(q‖p) leaves the middle at a = 2.80, Jensen-Shannon at 4.24, KL(p‖q) never does.

    At a = 2, where all three stay, the spread that Jensen-Shannon fits lies between the other two; at a = 0 the family
    contains the law and all three agree. No randomness: the error is the second decimal of the two thresholds.
    """
    spread = {f: best_gaussian(f, 2.0, (0.0, 0.5 * math.log(5.0)))[2] for f in (chaser, jensen_shannon, forward_kl)}
    alone = [best_gaussian(f, 0.0, (0.5, 0.5)) for f in (chaser, jensen_shannon, forward_kl)]
    return rounding(
        {
            "KL(q‖p) leaves the middle": (threshold(chaser, 2.4, 4.0), 2.80),
            "Jensen-Shannon leaves the middle": (threshold(jensen_shannon, 3.2, 5.0), 4.24),
            "KL(p‖q) covers": (spread[forward_kl], math.sqrt(5.0)),
            "spreads in order": (excess([spread[chaser], spread[jensen_shannon]], list(spread.values())[1:]), 0.0),
            "the family contains the law": ([fit[1:] for fit in alone], [[0.0, 1.0]]),
        },
        tolerance=0.01,
    )


# --- overshooting -----------------------------------------------------------------------------------------------------


def _overshoot(seed: int, *, reach: float = 40.0) -> Check:
    """Down the slope of C at a fixed θ_t: C falls at every point; KL(p_data‖p_θ) falls, turns, and passes its start."""
    machine, data = machine_of(seed, 0.5), lattice_law()
    negative, start = current_law(machine, data), flat(machine)
    around = jnp.asarray(several(seed, start))
    slope = np.asarray(contrast(machine, around, data, negative, every_state()).surrogate_slope)
    line = jnp.asarray(start - np.linspace(0.0, reach, THETAS)[:, None] * slope)
    found = contrast(machine, line, data, negative, every_state())
    c, kl = np.asarray(found.surrogate), np.asarray(found.kl)
    return rounding(
        {
            "C falls all the way": (excess(c[1:], c[:-1]), 0.0),
            "KL falls at first": (float(kl.min() < kl[0] - 1e-3), 1.0),
            "KL ends above its start": (float(kl[-1] > kl[0]), 1.0),
        }
    )


PHENOMENA = (
    Identity(
        "density.curse",
        1,
        "share of occupied cells 1 − (1 − K^−d)^n; share of a cube's shell 1 − (1 − 2ε)^d",
        "monte-carlo",
        _curse,
        {"no two points share a cell": {"share": _n_cells}},
        "Bellman 1961",
    ),
    Identity(
        "mle.chasing",
        2,
        "½N(±a, 1): the minimiser of KL(p_θ‖p_data) leaves the middle at a ≈ 2.80, of Jensen-Shannon at a ≈ 4.24",
        "rounding",
        _chasing,
        {"the directions exchanged": {"chaser": forward_kl}},
        "Minka 2005",
    ),
    Identity(
        "cd.overshoot",
        4,
        "following C from a fixed θ_t passes the optimum: C falls on, KL(p_data‖p_θ) rises above its start",
        "rounding",
        _overshoot,
        {"a step that is short enough": {"reach": 0.5}},
        "Hinton 2002",
    ),
    *critic.PHENOMENA,
    *hamiltonian.PHENOMENA,
    *tempering.PHENOMENA,
    *robust.PHENOMENA,
    *strokes.PHENOMENA,
)
