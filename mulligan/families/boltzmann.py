"""``boltzmann``: a restricted Boltzmann machine for binary columns; log p is a probability.

Trained by persistent chains (``pcd``), chains that start at the rows (``cd``), tempered chains (``tempered``), or, where the
smaller layer is enumerable, by the exact gradient (``exact``, the default there). log Z is exact up to 20 units of the
smaller layer. Elsewhere it is found by annealing from independent columns to the machine, and back from draws that the
annealing made: Bennett's estimate of both, with what their ends leave open as an error that all rows share. Early stopping
is on the select rows' log p, where annealing has the same random numbers at every look.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np

from mulligan.catalog import Effort
from mulligan.core import Density
from mulligan.data.given import fit_any_codec
from mulligan.data.native import NativeCodec
from mulligan.errors import DataError, UsageError
from mulligan.families.recipe import Fitting, Outcome, Recipe
from mulligan.families.training import SMALL, Candidate, Learning, learn
from mulligan.learners.boltzmann import (
    BoltzmannHealth,
    base_logits,
    boltzmann_descent,
    exact_loss,
    fresh_machine,
)
from mulligan.learners.gradient import Learner, Plan, plain_descent
from mulligan.loop import compile_small
from mulligan.measures.likelihood import row_log_prob
from mulligan.measures.partition import anneal, bennett, bracket, forward_log_z, log_mean, reverse_log_z
from mulligan.models.boltzmann import (
    EXACT_UNITS,
    CentredMachine,
    EstimatedBoltzmannMachine,
    Parameters,
    enumerated,
    log_partition,
)
from mulligan.objectives.contrastive import contrastive_loss
from mulligan.objectives.likelihood import Rows
from mulligan.quantity import Quantity
from mulligan.samplers.gibbs import BlockGibbs, BoltzmannPath

HIDDEN: dict[Effort, int] = {"quick": 32, "standard": 128, "thorough": 256}
MOST_HIDDEN = 2  # times the number of columns: more units than that have little left to say
# On large tables, and on small ones.
PLANS: dict[Effort, tuple[Plan, Plan]] = {
    "quick": (Plan(600, rate=2e-2), Plan(600, rate=2e-2, batch=256)),
    "standard": (Plan(3000, rate=1e-2, patience=20), Plan(3000, rate=1e-2, batch=256)),
    "thorough": (Plan(20_000, rate=5e-3, patience=20), Plan(10_000, rate=5e-3, batch=256)),
}
LARGE, FEW = (0.0, 0.1), (0.03, 0.3)  # decays of the weights
CHAINS: dict[Effort, int] = {"quick": 128, "standard": 256, "thorough": 1024}
SWEEPS: dict[Effort, int] = {"quick": 1, "standard": 3, "thorough": 10}
RUNGS = 8  # of tempered chains; fewer sets of them, so that a step costs about twice one of pcd
LEARNT_EXACTLY = 12  # units of the smaller layer up to which the exact gradient costs no more than chains
MOST_EXACTLY = 16
LOOK, FINAL = (128, 500), (1024, 1000)  # runs of annealing, and their temperatures


@dataclass(frozen=True)
class Design:
    """The options of the family; None leaves it to the effort, the table, or select."""

    variant: str | None
    effort: Effort
    hidden: int | None
    sampler_steps: int | None
    chains: int | None
    decay: float | None
    rate: float | None
    batch: int | None


def make(variant: str | None, effort: Effort, **options: Any) -> Recipe:
    """The recipe; what is None is the effort's and the table's, ``decay`` None is searched on select."""
    return partial(fit, design=Design(variant, effort, **options))


def fit(fitting: Fitting, design: Design) -> Outcome:
    """Train, keep the best on select, find log Z."""
    codec = cast(NativeCodec, fit_any_codec(fitting.train_rows, (), native=True))
    require_binary(codec)
    points = codec.encode(fitting.train_rows.values).flat
    hidden = design.hidden or min(HIDDEN[design.effort], max(4, MOST_HIDDEN * codec.dim))
    variant = design.variant or ("exact" if min(codec.dim, hidden) <= LEARNT_EXACTLY else "pcd")
    if variant == "exact" and min(codec.dim, hidden) > MOST_EXACTLY:
        raise UsageError(
            f"boltzmann:exact with {codec.dim} columns and {hidden} hidden units",
            why=f"the gradient sums over 2^{min(codec.dim, hidden)} states at every step",
            do=f"--set boltzmann.hidden={LEARNT_EXACTLY}, or boltzmann:pcd",
        )
    small = fitting.rows < SMALL
    plan = PLANS[design.effort][small]
    plan = replace(plan, batch=design.batch or plan.batch, rate=design.rate or plan.rate)
    decays = (FEW if small else LARGE)[: 1 if design.effort == "quick" else None]
    base, rows = base_logits(points), Rows(jnp.asarray(points, jnp.float32))
    learning = Learning(
        "boltzmann",
        [
            Candidate(f"decay={decay:g}", partial(_fresh, points, hidden), replace(plan, decay=decay))
            for decay in (decays if design.decay is None else (design.decay,))
        ],
        exact_loss if variant == "exact" else contrastive_loss,
        rows,
        codec.encode(fitting.select_rows.values),
        codec,
        normalise=lambda machine, careful: normalised(machine, base, fitting.seed),
        learner=None if variant == "exact" else partial(_learner, design=design, variant=variant, rows=rows, base=base),
        health=lambda plan: [] if variant == "exact" else [BoltzmannHealth(codec.dim, plan.every)],
    )
    outcome = learn(fitting, learning, f"boltzmann ({hidden} hidden units, {variant})")
    return _finished(outcome, learning, fitting.seed)


def require_binary(codec: NativeCodec) -> None:
    """Raises DataError, naming the columns, where one is not binary."""
    others = [column for column in codec.schema.modelled if column.kind != "binary"]
    if not others:
        return
    listed = ", ".join(f"'{column.name}' ({column.kind})" for column in others[:5])
    more = f" and {len(others) - 5} more" if len(others) > 5 else ""
    names = ",".join(column.name for column in others)
    raise DataError(
        f"boltzmann models binary columns, and {len(others)} of {codec.dim} are not",
        listed + more,
        "Its units are on or off",
        "another family, such as autoregressive"
        + ("" if len(others) == codec.dim else f"; or --drop {shlex.quote(names)}"),
    )


def normalised(machine: CentredMachine, base: np.ndarray, seed: int) -> EstimatedBoltzmannMachine:
    """The machine with log Z for looks and choices: summed in float32, or annealed; fast, and without tables for draws."""
    parameters = _plain(machine)
    if min(machine.weights.shape) <= EXACT_UNITS:
        log_z = _exact(parameters)
    else:
        path, starts = _path(parameters, base, LOOK[0], seed)
        runs = anneal(BlockGibbs(path), jax.random.key(seed), starts, np.linspace(0, 1, LOOK[1] + 1))
        log_z = jnp.asarray(log_mean(runs.log_weights), jnp.float32)
    return EstimatedBoltzmannMachine(*parameters, jnp.asarray(base, jnp.float32), log_z, jnp.zeros((), jnp.float32))


def find_log_z(parameters: Parameters, base: np.ndarray, seed: int) -> Quantity:
    """log Z by annealing forward, and back from draws that the forward runs' weights choose: Bennett's estimate of both.

    Its interval reaches from the forward runs' lower to the backward runs' upper end.
    """
    path, starts = _path(parameters, base, FINAL[0], seed)
    kernel, betas, key = BlockGibbs(path), np.linspace(0, 1, FINAL[1] + 1), jax.random.key(seed)
    forward = anneal(kernel, key, starts, betas)
    chosen = _resampled(forward.log_weights, np.random.default_rng([seed, 2]))
    back = anneal(kernel, jax.random.fold_in(key, 1), forward.positions[chosen], betas, reverse=True)
    lower, upper = forward_log_z(forward.log_weights), reverse_log_z(back.log_weights)
    return bracket(lower, upper, bennett(forward.log_weights, back.log_weights), exact_start=False)


def _finished(outcome: Outcome, learning: Learning, seed: int) -> Outcome:
    """The outcome with the careful log Z, whose random numbers no choice has seen; its select score is stated anew."""
    model: EstimatedBoltzmannMachine = outcome.model
    before = _score(model, learning)
    chosen = min(outcome.choices, key=lambda choice: abs(np.nan_to_num(choice["select"], nan=np.inf) - before))
    parameters = Parameters(model.weights, model.b, model.c)
    if min(model.weights.shape) <= EXACT_UNITS:
        outcome.model = enumerated(parameters)
    else:
        found = find_log_z(parameters, np.asarray(model.base, np.float64), seed + 7)
        if found.value is None or found.low is None or found.high is None:
            outcome.failed = outcome.failed or f"log Z was not found: {found.note}"
            return outcome
        value, stderr = (jnp.asarray(number, jnp.float32) for number in (found.value, (found.high - found.low) / 3.92))
        outcome.model = replace(model, log_z=value, log_z_stderr=stderr)
        said = f"log Z {found.value:.3f} (95 %: {found.low:.3f} to {found.high:.3f}), annealed"
        outcome.health.append(f"{said}; {found.note}")
    chosen["select"] = _score(outcome.model, learning)
    return outcome


def _score(model: Density, learning: Learning) -> float:
    return float(np.mean(row_log_prob(model, learning.select)))


def _fresh(points: np.ndarray, hidden: int, generator: np.random.Generator) -> CentredMachine:
    return fresh_machine(points, hidden, generator)


def _learner(
    machine: CentredMachine, plan: Plan, *, design: Design, variant: str, rows: Rows, base: np.ndarray
) -> Learner:
    descent = plain_descent(contrastive_loss, machine, rows, plan)
    chains = design.chains or CHAINS[design.effort] // (RUNGS // 2 if variant == "tempered" else 1)
    betas = np.linspace(0, 1, RUNGS) if variant == "tempered" else None
    sweeps = design.sampler_steps or SWEEPS[design.effort]
    return boltzmann_descent(descent, base, betas=betas, sweeps=sweeps, chains=0 if variant == "cd" else chains)


def _path(parameters: Parameters, base: np.ndarray, runs: int, seed: int) -> tuple[BoltzmannPath, Any]:
    """The path from independent columns to the machine, and draws of where it begins."""
    on = np.random.default_rng([seed, 1]).random((runs, len(base))) < 1 / (1 + np.exp(-base))
    return BoltzmannPath(*parameters, jnp.asarray(base, jnp.float32)), on.astype(np.float32)


def _resampled(log_weights: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Places of runs drawn with their weights, systematically: each about as often as its weight says (Kitagawa 1996)."""
    weights = np.exp(log_weights - log_weights.max())
    ends = np.cumsum(weights) / weights.sum()
    places = np.searchsorted(ends, (np.arange(len(ends)) + generator.random()) / len(ends))
    return np.minimum(places, len(ends) - 1)


@compile_small
def _exact(parameters: Parameters) -> Any:
    return log_partition(parameters)


@compile_small
def _plain(machine: CentredMachine) -> Parameters:
    return machine.parameters()
