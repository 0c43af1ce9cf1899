"""Samplers that walk from a reference to the law: parallel tempering and annealed importance sampling, and log Z of both.

log Z comes from annealed runs along the tuned ladder, made finer: forward from draws of the reference, and back from draws
of the law. Exact draws (a law by name) make it a bracket; a chain's draws make it an estimate, and it says so.
"""

from __future__ import annotations

import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PRNGKeyArray

from mulligan.core import Law
from mulligan.errors import FitError, MulliganError
from mulligan.loop import compile_small
from mulligan.measures.partition import anneal, bennett, bracket, effective_share, forward_log_z, reverse_log_z
from mulligan.quantity import Quantity, none
from mulligan.samplers.ladder import Ladder, climb, tune_ladder
from mulligan.samplers.many import Many, Thinned
from mulligan.samplers.path import Path, Ratio
from mulligan.workbench.drawing import METHODS, Drawn, Recorded, Settings, WarmUp, begin, enough, record
from mulligan.workbench.talk import Talk
from mulligan.workbench.target import Target

ACCEPTANCE = {"hmc": 0.8, "mala": 0.574, "random-walk": 0.3}  # between .44 of one dimension and .234 of many
RUNS = 2048  # annealed runs each way behind a log Z
LEAST_BETWEEN = 96  # rungs of an annealed run
FINER = 6  # of them to one of the ladder
MOST_ANNEALED = 4096  # weighted draws
ROUNDS = 5


@compile_small
def draws_of(law: Any, keys: PRNGKeyArray) -> Array:
    """One draw of ``law.sample`` for each key, (n, d)."""
    return jax.vmap(law.sample)(keys)


def draw_by_ladder(
    name: str,
    target: Target,
    reference: Any,
    starts: np.ndarray,
    settings: Settings,
    key: PRNGKeyArray,
    again: WarmUp | None = None,
    talk: Talk | None = None,
) -> Drawn:
    """Draws by ``tempering`` or ``annealed`` between ``reference`` and the target, with log Z.

    ``again`` is an earlier warm-up, whose ladder is used as it is. Raises FitError where the ladder could not be tuned.
    """
    kernel: Any = METHODS[name].make(Path(Ratio(target.flat, reference), reference), settings)
    key_tune, key_run, key_z = jax.random.split(key, 3)
    clock = time.perf_counter()
    if again is None:
        adapted = settings.step_size is None and not target.discrete
        ladder = tune_ladder(
            kernel,
            key_tune,
            jnp.asarray(starts),
            rungs=settings.rungs,
            rounds=ROUNDS,
            steps=max(4, settings.warm_up // (2**ROUNDS - 1)),
            acceptance=(settings.acceptance or ACCEPTANCE[settings.inside]) if adapted else None,
        )[1]
    else:
        ladder = again.ladder
    warm = WarmUp(name, ladder.positions[:, -1], ladder=ladder, seconds=time.perf_counter() - clock)
    if name == "annealed":
        return _annealed(kernel, target, reference, ladder, settings, key_run, warm)
    return _tempered(kernel, target, reference, ladder, settings, (key_run, key_z), warm, talk)


def _tempered(
    kernel: Any,
    target: Target,
    reference: Any,
    ladder: Ladder,
    settings: Settings,
    keys: tuple[PRNGKeyArray, PRNGKeyArray],
    warm: WarmUp,
    talk: Talk | None,
) -> Drawn:
    tempered = climb(kernel, ladder)
    lifted = Many(Recorded(Thinned(tempered, settings.thin) if settings.thin > 1 else tempered))
    key_init, key_run = jax.random.split(keys[0])
    state = begin(lifted, key_init, jnp.asarray(enough(ladder.positions, settings.chains)))
    recorded = record(lifted, key_run, state, settings.draws, "tempering", talk)
    swaps = recorded.others.get("swap_acceptance")
    trips = recorded.statistics.pop("round_trips", None)
    divergent = recorded.statistics.pop("divergent", None)  # of all rungs: the hot ones may, and harm nothing
    remarks = {
        "betas": ladder.betas.tolist(),
        "barrier": ladder.barrier,
        "divergent_share": None if divergent is None else float(divergent.mean()),
        "swap_acceptance": None if swaps is None else float(swaps.mean()),
        "least_swap_acceptance": None if swaps is None else float(swaps.mean(axis=(0, 1)).min()),
        "round_trips": None if trips is None else float(trips[:, -1].sum()),
    }
    pooled = recorded.z.reshape(-1, target.dim)
    some = pooled[np.linspace(0, len(pooled) - 1, RUNS).round().astype(int)]
    log_z = _log_z(kernel, target, reference, ladder, some, keys[1])
    strokes = float(len(ladder.betas) * settings.thin * _inner_strokes(settings))
    return Drawn(
        recorded.z,
        recorded.statistics,
        tempered.law,
        strokes,
        warm,
        recorded.stopped,
        recorded.seconds,
        log_z,
        remarks=remarks,
    )


def _annealed(
    kernel: Any, target: Target, reference: Any, ladder: Ladder, settings: Settings, key: PRNGKeyArray, warm: WarmUp
) -> Drawn:
    """Weighted draws, made equal by systematic resampling (Kitagawa 1996) and put into rows as if of chains."""
    clock = time.perf_counter()
    each = max(1, min(settings.draws, MOST_ANNEALED // settings.chains))
    n = max(2 * RUNS // 8, settings.chains * each)
    key_start, key_run, key_pick, key_z = jax.random.split(key, 4)
    betas, sizes = finer(ladder)
    runs = anneal(kernel, key_run, draws_of(reference, jax.random.split(key_start, n)), betas, sizes)
    log_w = np.where(np.isnan(runs.log_weights), -np.inf, runs.log_weights)
    if not np.isfinite(log_w).any():
        do = "a wider reference=, or start= where the law is"
        raise FitError(
            "no annealed run ended where the law has mass", f"{n} runs", "The reference does not reach it", do
        )
    picked = resampled(log_w, int(jax.random.randint(key_pick, (), 0, 2**31 - 1)))[: settings.chains * each]
    z = np.asarray(runs.positions)[picked].reshape(settings.chains, each, target.dim)
    log_z = _log_z(kernel, target, reference, ladder, z.reshape(-1, target.dim)[:RUNS], key_z, log_w)
    strokes = float((len(betas) - 1) * _inner_strokes(settings))
    remarks = {"betas": ladder.betas.tolist(), "barrier": ladder.barrier, "acceptance": float(runs.acceptance.mean())}
    worth = n * effective_share(log_w)
    seconds = time.perf_counter() - clock
    return Drawn(z, {}, Law("none"), strokes, warm, None, seconds, log_z, worth, remarks)


def resampled(log_weights: np.ndarray, seed: int) -> np.ndarray:
    """As many indices as weights, each drawn in proportion to its weight, systematically and then shuffled.

    >>> sorted(resampled(np.log(np.array([0.5, 0.5, 1.0, 2.0])), 0).tolist())[-2:]
    [3, 3]
    """
    rng = np.random.default_rng(seed)
    w = np.exp(log_weights - log_weights.max())
    ends = np.cumsum(w) / w.sum()
    places = (np.arange(len(w)) + rng.uniform()) / len(w)
    return rng.permutation(np.minimum(np.searchsorted(ends, places, side="right"), len(w) - 1))


def finer(ladder: Ladder) -> tuple[np.ndarray, np.ndarray | None]:
    """Betas and step sizes of annealed runs: the ladder's, with rungs between its rungs."""
    last = len(ladder.betas) - 1
    places = np.linspace(0, last, max(LEAST_BETWEEN, FINER * last) + 1)
    index = np.arange(last + 1)
    betas = np.interp(places, index, ladder.betas)
    sizes = None if ladder.step_sizes is None else np.exp(np.interp(places, index, np.log(ladder.step_sizes)))
    return betas, sizes


def _log_z(
    kernel: Any,
    target: Target,
    reference: Any,
    ladder: Ladder,
    draws: np.ndarray,
    key: PRNGKeyArray,
    forward: np.ndarray | None = None,
) -> Quantity:
    """log ∫ exp(log density): both bounds and Bennett's estimator between them; ``forward`` are weights already there."""
    betas, sizes = finer(ladder)
    key_start, key_forward, key_law, key_reverse = jax.random.split(key, 4)
    try:
        if forward is None:
            starts = draws_of(reference, jax.random.split(key_start, RUNS))
            forward = anneal(kernel, key_forward, starts, betas, sizes).log_weights
        exact = target.law is not None
        back = draws_of(target.law, jax.random.split(key_law, RUNS)) if exact else jnp.asarray(draws)
        reverse = anneal(kernel, key_reverse, back, betas, sizes, reverse=True).log_weights
        both = forward_log_z(forward), reverse_log_z(reverse)
        return bracket(*both, bennett(forward, reverse), exact_start=exact)
    except MulliganError as error:  # a draw of log density −∞ on the way, too few runs
        return none(f"log Z: {error.what}", "nats")


def _inner_strokes(settings: Settings) -> int:
    if settings.levels:
        return settings.dim * settings.levels
    return settings.leapfrogs if settings.inside == "hmc" else 1
