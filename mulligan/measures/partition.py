"""log Z: annealed importance sampling forward and in reverse, Bennett's estimator, importance sampling.

Definition. Of independent weights w_i with E w = Z_1/Z_0: E log mean w ≤ log Z_1/Z_0, and for weights of reverse runs
that began at exact draws of π_1, E[−log mean 1/w] ≥ log Z_1/Z_0; both in together are a bracket. Weights of the same
path obey p_F(w)/p_R(w) = exp(log Z_1/Z_0 − log w) (Crooks 1999), so the log odds that a path was run forward is
log Z_1/Z_0 − log w + log(n_F/n_R): Bennett's estimator is the fit of that one intercept (Bennett 1976; Shirts et al. 2003).

The intervals: an end of a bound comes from groups of m weights. a = log mean of a group has E a ≤ log Z whatever the law
of w, and there are n/m independent ones, so Student's t of their mean gives an end that heavy weights make wide but not
wrong. m is the smallest power of two for which the groups' log means fall short of that of all weights by at most two
standard errors: light weights stay in small groups, whose shortfall then guards the end, at no more than half of its
width. Theory: ``annealing.ais``, ``annealing.crooks``, ``ebm.log_z``.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PRNGKeyArray

from mulligan.core import Kernel
from mulligan.errors import UsageError
from mulligan.loop import compile_small, repeat
from mulligan.quantity import Quantity, mean_of_rows, none
from mulligan.samplers.annealing import AnnealedImportance, schedule
from mulligan.samplers.many import Many

LEAST_GROUPS = 16  # Student's t of fewer is wide, and skewness cannot be seen
LEAST_SHARE = 0.1  # of effective weights: below, few weights decide
HEAVIEST = 0.7  # Pareto k above which the mean's error is not known, however many weights (Vehtari et al. 2024)


class Annealing(NamedTuple):
    """Of n runs: ``log_weights`` (n,), the ``positions`` (n, d) where they ended, mean ``acceptance`` of each rung (K,)."""

    log_weights: np.ndarray
    positions: np.ndarray
    acceptance: np.ndarray


def anneal(
    kernel: Kernel,
    key: PRNGKeyArray,
    positions: Any,
    betas: Any,
    step_sizes: Any = None,
    *,
    reverse: bool = False,
    moves: int = 1,
) -> Annealing:
    """Annealed importance sampling from these positions (n, d), n independent runs in one compiled program.

    Arguments: ``kernel``, any that keeps its law, with a ``Path`` as ``log_density``; ``positions``, independent draws of q,
    or of the target if ``reverse``; ``betas`` rising from 0 to 1, (K + 1,); ``step_sizes`` as for ``schedule``; ``moves`` a
    rung. Raises UsageError for betas that do not rise from 0 to 1.

    >>> from mulligan.samplers.gibbs import BlockGibbs, BoltzmannPath
    >>> machine = BoltzmannPath(jnp.eye(2), jnp.zeros(2), jnp.zeros(2))
    >>> starts = jax.vmap(machine.sample)(jax.random.split(jax.random.key(0), 50))
    >>> runs = anneal(BlockGibbs(machine), jax.random.key(1), starts, np.linspace(0, 1, 11))
    >>> exact = 2 * math.log(3 + math.e)
    >>> abs(forward_log_z(runs.log_weights).value - exact) < 0.2
    True
    """
    betas = np.asarray(betas, float)
    if betas.ndim != 1 or len(betas) < 2 or betas[0] != 0 or betas[-1] != 1 or np.any(np.diff(betas) <= 0):
        raise UsageError(
            "betas do not rise from 0 to 1", "anneal", "weights would be of other laws", "linspace(0, 1, 101)"
        )
    chains = Many(AnnealedImportance(kernel, reverse, moves))
    inputs = schedule(betas, step_sizes, reverse)
    log_weights, ends, acceptance = _anneal(chains, key, jnp.asarray(positions), inputs, len(betas) - 1)
    turn = -1 if reverse else 1
    return Annealing(np.asarray(log_weights, np.float64), np.asarray(ends), np.asarray(acceptance)[::turn])


@compile_small
def _anneal(chains: Many, key: Any, positions: Any, inputs: Any, rungs: int) -> tuple[Any, Any, Any]:
    key_init, key_run = jax.random.split(key)
    state, info = repeat(chains, key_run, chains.init(key_init, positions), rungs, inputs)
    return state.log_weight, state.position, jnp.mean(info.acceptance, axis=1)


def annealed_importance(
    kernel: Kernel,
    key: PRNGKeyArray,
    positions: Any,
    betas: Any,
    step_sizes: Any = None,
    *,
    reverse: bool = False,
    moves: int = 1,
) -> np.ndarray:
    """The log weights (n,) of ``anneal``, in float64."""
    return anneal(kernel, key, positions, betas, step_sizes, reverse=reverse, moves=moves).log_weights


def forward_log_z(log_weights: Any, note: str = "") -> Quantity:
    """log Z_1/Z_0 from forward weights (n,): log mean w, a ``lower bound`` in expectation.

    ``low`` holds with at least 97.5 % (two such ends make a 95 % bracket); see this module for how. The note says how
    many weights are effective, and when few decide. Raises UsageError for fewer than 32 weights or NaN among them.

    >>> q = forward_log_z(np.random.default_rng(0).normal(-0.02, 0.2, 400))
    >>> q.kind, q.low < 0.0 < q.low + 0.06
    ('lower bound', True)
    """
    log_w = _checked(log_weights)
    value = log_mean(log_w)
    if not math.isfinite(value):
        return Quantity(value, "lower bound", n=log_w.size, unit="nats", note=_joined(note, "no run has weight"))
    groups = _groups(log_w)
    mean = mean_of_rows(groups, "estimate") if np.isfinite(groups).all() else _log_of_mean(log_w, value)
    notes = (note, weight_note(log_w), f"{len(groups)} groups of {log_w.size // len(groups)}")
    return Quantity(value, "lower bound", mean.low, None, mean.stderr, log_w.size, "nats", _joined(*notes))


def reverse_log_z(log_weights: Any, note: str = "") -> Quantity:
    """log Z_1/Z_0 from reverse weights (n,): −log mean 1/w, an ``upper bound`` in expectation if the starts are exact.

    ``log_weights`` are those of ``anneal(…, reverse=True)``: the log weights that forward runs would give to these paths.
    ``high`` holds with at least 97.5 %.

    >>> q = reverse_log_z(np.random.default_rng(0).normal(0.02, 0.2, 400))
    >>> q.kind, q.high - 0.06 < 0.0 < q.high
    ('upper bound', True)
    """
    mirror = forward_log_z(-_checked(log_weights), note)
    value, high = -(mirror.value or 0.0), None if mirror.low is None else -mirror.low
    return Quantity(value, "upper bound", None, high, mirror.stderr, mirror.n, "nats", mirror.note)


def bracket(forward: Quantity, reverse: Quantity, best: Quantity | None = None, exact_start: bool = True) -> Quantity:
    """Both bounds as one: [forward's low, reverse's high] holds log Z with 95 %. Kind ``bracket``.

    ``value`` is ``best``'s (Bennett's), or the middle. Where reverse runs began elsewhere than at exact draws of the target
    (``exact_start=False``) the upper end is no bound, and the kind is ``estimate``. Ends that cross say in the note that
    something is wrong.

    >>> bracket(Quantity(-0.1, "lower bound", -0.2, None), Quantity(0.1, "upper bound", None, 0.2)).value
    0.0
    """
    if forward.low is None or reverse.high is None or forward.value is None or reverse.value is None:
        return none("log Z has no bracket: " + (forward.note if forward.low is None else reverse.note), "nats")
    value = 0.5 * (forward.value + reverse.value) if best is None or best.value is None else best.value
    notes = [f"forward: {forward.note}", f"reverse: {reverse.note}"] if forward.note or reverse.note else []
    low, high = forward.low, reverse.high
    if low > high:
        notes.append(f"the ends cross ({low:.3f} > {high:.3f}): a start or a kernel did not have its law")
        low, high = high, low
    if not exact_start:
        notes.append("reverse runs began at a chain's draws, not at exact ones: the upper end is no bound")
    stderr = best.stderr if best is not None else None
    n = (forward.n or 0) + (reverse.n or 0)
    value = min(max(value, low), high)
    return Quantity(value, "bracket" if exact_start else "estimate", low, high, stderr, n, "nats", _joined(*notes))


def bennett(forward: Any, reverse: Any) -> Quantity:
    """Bennett's estimator of log Z_1/Z_0 from forward (n_F,) and reverse (n_R,) log weights. Kind ``estimate``.

    L solves Σ_F σ(log w − L − M) = Σ_R σ(L + M − log w) with M = log(n_F/n_R): logistic regression of the direction with
    only an intercept. Its variance is 1/Σ σ(1 − σ) − 1/n_F − 1/n_R (Shirts et al. 2003), the interval 1.96 of its root.

    >>> rng = np.random.default_rng(0)
    >>> q = bennett(rng.normal(-0.5, 1.0, 2000), rng.normal(0.5, 1.0, 2000))
    >>> q.low < 0.0 < q.high
    True
    """
    from scipy.optimize import brentq
    from scipy.special import expit

    forward, reverse = _checked(forward), _checked(reverse)
    if not (np.isfinite(forward).any() and np.isfinite(reverse).all()):
        return none("no forward run has weight, or a reverse run has none", "nats")
    m = math.log(forward.size / reverse.size)

    def excess(level: float) -> float:
        return float(expit(forward - level - m).sum() - expit(level + m - reverse).sum())

    finite = np.concatenate([forward[np.isfinite(forward)], reverse])
    value = float(brentq(excess, finite.min() - abs(m) - 1e2, finite.max() + abs(m) + 1e2, xtol=1e-12))
    odds = expit(value + m - np.concatenate([forward, reverse]))
    information = float((odds * (1 - odds)).sum())
    variance = max(0.0, 1 / max(information, 1e-300) - 1 / forward.size - 1 / reverse.size)
    stderr = math.sqrt(variance)
    overlap = information / (forward.size * reverse.size / (forward.size + reverse.size))
    note = "" if overlap > LEAST_SHARE else f"forward and reverse weights hardly overlap ({overlap:.1%})"
    reach = 1.959963984540054 * stderr
    return Quantity(value, "estimate", value - reach, value + reach, stderr, finite.size, "nats", note)


def importance_log_z(log_weights: Any, note: str = "") -> Quantity:
    """log Z from importance weights log γ(x) − log q(x), x ~ q independent: log mean w, with a two-sided interval.

    The interval of E w is Student's t with Hall's correction for skewness, and its ends' logarithms are stated. Kind
    ``estimate`` while the weights allow it (``weight_note``); else ``lower bound``, which log mean w always is.

    >>> importance_log_z(np.zeros(100)).value
    0.0
    """
    log_w = _checked(log_weights)
    value = log_mean(log_w)
    heavy = weight_note(log_w)
    if heavy or not math.isfinite(value):
        return forward_log_z(log_w, note)
    found = _log_of_mean(log_w, value)
    if found.low is None or found.high is None:
        return forward_log_z(log_w, note)
    share = effective_share(log_w)
    said = _joined(note, f"effective weights {share:.0%} of {log_w.size}")
    return Quantity(value, "estimate", found.low, found.high, found.stderr, log_w.size, "nats", said)


def log_mean(log_weights: np.ndarray) -> float:
    """log of the mean of weights, −∞ if all are 0.

    >>> round(log_mean(np.log(np.array([1.0, 3.0]))), 4)
    0.6931
    """
    peak = float(np.max(log_weights))
    return peak + math.log(float(np.mean(np.exp(log_weights - peak)))) if math.isfinite(peak) else peak


def effective_share(log_weights: np.ndarray) -> float:
    """(Σ w)²/(n Σ w²): the effective share of n weights (Kong 1992), 1 for equal ones.

    >>> effective_share(np.array([0.0, 0.0, -np.inf, -np.inf]))
    0.5
    """
    w = np.exp(log_weights - np.max(log_weights))
    return float(w.sum() ** 2 / (w @ w) / w.size)


def pareto_k(log_weights: np.ndarray) -> float:
    """Shape k of a generalised Pareto law fitted to the largest weights (Zhang and Stephens 2009; Vehtari et al. 2024).

    The largest min(n/5, 3√n) weights; moments of order 1/k and above do not exist. Weights that are all equal give −∞.

    >>> 0.4 < pareto_k(0.5 * np.random.default_rng(0).exponential(size=40000)) < 0.6  # the truth is 0.5
    True
    """
    ordered = np.sort(log_weights)
    tail = int(min(len(ordered) / 5, 3 * math.sqrt(len(ordered))))
    w = np.exp(ordered[-tail - 1 :] - ordered[-1])
    x = w[1:] - w[0]
    if tail < 5 or x[-1] <= 0 or x[tail // 4] <= 0:
        return -math.inf
    count = 30 + int(math.sqrt(tail))
    grid = 1 / x[-1] + (1 - np.sqrt(count / (np.arange(1, count + 1) - 0.5))) / (3 * x[tail // 4])
    k = np.mean(np.log1p(-grid[:, None] * x), axis=1)
    level = tail * (np.log(-grid / k) - k - 1)
    with np.errstate(over="ignore"):  # where another k fits incomparably better, the share is 0
        share = 1 / np.exp(level - level[:, None]).sum(axis=1)
    best = float(np.sum(grid * share))
    found = float(np.mean(np.log1p(-best * x)))
    return (found * tail + 5) / (tail + 10)  # a weak prior at ½, as in PSIS


def weight_note(log_weights: np.ndarray) -> str:
    """Why these weights are too heavy for a two-sided interval; empty if they are not."""
    share, k = effective_share(log_weights), pareto_k(log_weights)
    if share < LEAST_SHARE:
        return f"heavy weights: only {share:.1%} of {log_weights.size} effective"
    most = min(HEAVIEST, 1 - 1 / math.log10(log_weights.size))
    return f"heavy weights: Pareto k {k:.2f} > {most:.2f}" if k > most else ""


def _groups(log_w: np.ndarray) -> np.ndarray:
    """log means of groups of m weights; m as this module says. Weights come in no order, so neighbours are a group."""
    whole, m = log_mean(log_w), 1
    while True:
        count = log_w.size // m
        groups = _row_means(log_w[: count * m].reshape(count, m))
        stderr = float(np.std(groups, ddof=1)) / math.sqrt(count) if np.isfinite(groups).all() else math.inf
        short = whole - float(np.mean(groups))
        if (math.isfinite(stderr) and short <= 2 * stderr) or count // 2 < LEAST_GROUPS:
            return groups
        m *= 2


def _log_of_mean(log_w: np.ndarray, value: float) -> Quantity:
    """log E w with the ends of Student's interval of E w, corrected for skewness; an end at 0 or below is open."""
    mean = mean_of_rows(np.exp(log_w - value), "estimate")
    low, high = (None if end is None or end <= 0 else value + math.log(end) for end in (mean.low, mean.high))
    return Quantity(value, "estimate", low, high, mean.stderr, log_w.size, "nats")


def _row_means(log_w: np.ndarray) -> np.ndarray:
    """log mean of each row; −∞ where a row has no weight."""
    peak = np.max(log_w, axis=1, keepdims=True)
    peak = np.where(np.isfinite(peak), peak, 0.0)
    with np.errstate(divide="ignore"):
        return peak[:, 0] + np.log(np.mean(np.exp(log_w - peak), axis=1))


def _checked(log_weights: Any) -> np.ndarray:
    log_w = np.asarray(log_weights, np.float64).reshape(-1)
    if log_w.size < 2 * LEAST_GROUPS or np.isnan(log_w).any() or np.isposinf(log_w).any():
        raise UsageError(
            f"{log_w.size} log weights, {int(np.isnan(log_w).sum())} of them NaN",
            "log Z",
            f"an interval needs {2 * LEAST_GROUPS} independent weights that are numbers",
            "more runs, or a look at the log density",
        )
    return log_w


def _joined(*notes: str) -> str:
    return "; ".join(note for note in notes if note)
