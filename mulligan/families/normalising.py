"""log Z of an energy-based model, and chains that draw from it, found after training.

In one or two dimensions by quadrature: the trapezoid rule on a box that is widened until its rim holds no mass. Elsewhere
by importance sampling from the reference, with the effective number of its weights; where these are too few, by annealing
from the reference and back from the model's own draws, joined by Bennett's estimator (``measures.partition``).
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mulligan.loop import compile_small
from mulligan.measures.likelihood import in_blocks, log_mean_exp
from mulligan.measures.partition import anneal, bennett, effective_share, importance_log_z, pareto_k
from mulligan.models.energy import EnergyModel, with_log_z
from mulligan.quantity import Quantity
from mulligan.samplers.langevin import MetropolisLangevin
from mulligan.samplers.path import Path
from mulligan.samplers.sampled import SampledEnergy, remodelled, sampled

GRID = {1: 4096, 2: 512}  # intervals of an axis
RIM = 1e-7  # share of the mass on the rim of the grid below which the box is wide enough
WIDENINGS = 8
LOOK_DRAWS, DRAWS = 1 << 14, 1 << 17
LEAST_EFFECTIVE = 50.0  # weights at a look: below, the look says nothing
LARGEST_ERROR = 0.025  # of log Z by importance sampling: above, the reference is annealed to the model
HEAVY = 0.7  # Pareto k
RUNGS, RUNS = 200, 1024
PILOT = 512
LEFT = 1e-3  # of a chain's start after all its rounds


class Pool(NamedTuple):
    """Draws of a reference (n, d) that all looks share, so that their errors move together."""

    points: np.ndarray


def pool_of(reference: Any, dim: int, seed: int) -> Pool:
    """The draws of a training's looks."""
    return Pool(draws_of(reference, LOOK_DRAWS, seed))


def quick_log_z(model: EnergyModel, pool: Pool) -> EnergyModel:
    """log Z from the pool, for a look; NaN where too few of its weights count."""
    log_w = values_of(model, pool.points)
    effective = effective_share(log_w) * len(log_w) if np.isfinite(log_w).all() else 0.0
    value = float(log_mean_exp(log_w)) if effective >= LEAST_EFFECTIVE else math.nan
    return with_log_z(model, value, 0.0, "estimate")


def find_log_z(chains: SampledEnergy, dim: int, seed: int) -> tuple[SampledEnergy, Quantity]:
    """The model with log Z, and log Z as a quantity that says how it was found."""
    model = chains.model
    if dim in GRID:
        value, tolerance = _quadrature(model, dim, seed)
        low, high = value - tolerance, value + tolerance
        note = f"trapezoid rule with {GRID[dim]} intervals an axis"
        found = Quantity(value, "numeric", low, high, unit="nats", note=note, method_low=low, method_high=high)
        return remodelled(chains, with_log_z(model, value, tolerance / 2, "numeric")), found
    log_w = values_of(model, draws_of(model.reference, DRAWS, seed))
    found = importance_log_z(log_w, "importance sampling from the reference")
    if not (found.stderr is not None and found.stderr <= LARGEST_ERROR and pareto_k(log_w) <= HEAVY):
        found = _annealed(chains, seed)
    return remodelled(chains, with_log_z(model, float(found.value or 0.0), _stderr(found), "estimate")), found


def with_chains(model: EnergyModel, seed: int) -> tuple[SampledEnergy, list[str]]:
    """The model with chains tuned to it, and sentences on what they do, and on what is not to be trusted without a look.

    The step size halves or grows until adjusted Langevin accepts about .57; the number of rounds is such that what is left
    of the start is below 1e-3, if that is affordable.
    """
    step, annealing = 0.05, 1
    jumps = acceptance = 0.0
    for attempt in range(12):
        jumps, acceptance = _pilot(sampled(model, step, rounds=4), seed + attempt)
        if 0.45 < acceptance < 0.75:
            break
        step = float(np.clip(step * math.exp(3.0 * (acceptance - 0.574)), 1e-5, 1.0))
    notes = []
    needed = math.log(LEFT) / math.log(max(1e-9, 1 - min(jumps, 0.999)))
    rounds = next((size for size in (4, 8, 16, 32) if size >= needed), 32)
    notes.append(
        f"draws: {rounds} rounds, of which {jumps:.0%} jump to a fresh draw of the reference; "
        f"adjusted Langevin accepts {acceptance:.0%}"
    )
    if needed > rounds:
        annealing = RUNGS
        left = (1 - jumps) ** rounds
        notes.append(
            f"sampling: {100 * jumps:.2g} % of jumps between modes are accepted, so the weights of far-apart modes rest "
            f"on the annealing ({100 * left:.0f} % of a start is left after {rounds} rounds)"
        )
    if acceptance < 0.2:
        notes.append(f"sampling: adjusted Langevin accepts {acceptance:.0%} at the smallest step: the density is rough")
    return sampled(model, step, annealing=annealing, rounds=rounds), notes


def draws_of(reference: Any, n: int, seed: int) -> np.ndarray:
    """n draws of a reference (n, d), float32."""
    from mulligan.measures.likelihood import draw

    return draw(reference, n, seed).astype(np.float32)


def values_of(model: EnergyModel, points: np.ndarray) -> np.ndarray:
    """f of points (n, d), float64 (n,)."""
    return in_blocks(partial(_f_block, model), points)


@compile_small
def _f_block(model: EnergyModel, block: Any) -> Any:
    return jax.vmap(model.f)(jnp.asarray(block))


@compile_small
def _unnormalised_block(model: EnergyModel, block: Any) -> Any:
    return jax.lax.map(model.unnormalised, jnp.asarray(block), batch_size=1024)


def _quadrature(model: EnergyModel, dim: int, seed: int) -> tuple[float, float]:
    """log ∫ exp(f) q, and what it may be off: the difference to every second node, the rim, float32."""
    draws = draws_of(model.reference, 4096, seed)
    low, high = draws.min(axis=0).astype(float), draws.max(axis=0).astype(float)
    value = coarse = rim = math.nan
    for _ in range(WIDENINGS):
        axes = [np.linspace(a, b, GRID[dim] + 1) for a, b in zip(low, high)]
        points = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, dim).astype(np.float32)
        log_p = np.asarray(_unnormalised_block(model, points), np.float64).reshape([GRID[dim] + 1] * dim)
        area = math.prod(float(axis[1] - axis[0]) for axis in axes)
        top = float(log_p.max())
        p = np.exp(log_p - top)
        inner = p[(slice(1, -1),) * dim]
        rim = float((p.sum() - inner.sum()) / p.sum())
        value = top + math.log(float(p.sum()) * area)
        coarse = top + math.log(float(p[(slice(None, None, 2),) * dim].sum()) * area * 2**dim)
        if rim < RIM:
            break
        reach = 0.25 * (high - low)
        low, high = low - reach, high + reach
    return value, abs(value - coarse) + 10 * rim + 2e-6 * (1 + abs(top))


def _annealed(chains: SampledEnergy, seed: int) -> Quantity:
    """From the reference to the model and back from its own draws (which are not exact): Bennett's estimate of both."""
    model = chains.model
    kernel = MetropolisLangevin(Path(model.f, model.log_q), chains.step_size)
    betas = np.linspace(0.0, 1.0, RUNGS + 1)
    key = jax.random.key(seed)
    forward = anneal(kernel, key, draws_of(model.reference, RUNS, seed + 1), betas)
    back = anneal(kernel, jax.random.fold_in(key, 1), draws_of(chains, RUNS, seed + 2), betas, reverse=True)
    return bennett(forward.log_weights, back.log_weights)


def _pilot(chains: SampledEnergy, seed: int) -> tuple[float, float]:
    jumps, acceptance = _traced(chains, jax.random.split(jax.random.key(seed), PILOT))
    return float(jumps), float(acceptance)


@compile_small
def _traced(chains: SampledEnergy, keys: Any) -> tuple[Any, Any]:
    _, info = jax.vmap(chains.traced)(keys)
    return jnp.mean(info["jumps"]), jnp.mean(info["acceptance"])


def _stderr(found: Quantity) -> float:
    if found.stderr is not None:
        return float(found.stderr)
    return (float(found.high or 0.0) - float(found.low or 0.0)) / 3.92
