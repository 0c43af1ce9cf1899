"""Chapter 8, annealed importance sampling: every path of a short run is listed, so its laws are sums.

Definition. x_0 ~ q, x_k ~ T_k(x_{k−1}), T_k keeping π_{β_k}; w = Π_k γ_{β_k}(x_{k−1})/γ_{β_{k−1}}(x_{k−1}). The reverse run
starts at π_1 and takes the reversed kernels downward. For the same path p_F/p_R = exp(log Z_1/Z_0 − log w) (Crooks), so
E_F w = Z_1/Z_0, E_F log w ≤ log Z_1/Z_0 ≤ E_R log w, P(log w > log Z_1/Z_0 + b) ≤ e^(−b), and the log odds that a path was
run forward is log Z_1/Z_0 − log w: noise-contrastive estimation of one intercept (Bennett).
The kernels are the library's ``AnnealedImportance`` over Gibbs sweeps of two sites; a sweep is not reversible, so a
reverse run that does not turn it around is found out.
Identities: ``annealing.ais``, ``annealing.crooks``, ``annealing.crooks.bennett``.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from mulligan.lab.identity import Check, Identity, excess, monte_carlo, rounding
from mulligan.loop import compile_small
from mulligan.measures.partition import bennett, forward_log_z, reverse_log_z
from mulligan.samplers.annealing import Annealed, AnnealedImportance
from mulligan.samplers.gibbs import Gibbs
from mulligan.samplers.path import Path
from mulligan.targets.discrete import states

LEVELS, SITES = 3, 2
STATES = LEVELS**SITES
LADDER = np.array([0.0, 0.25, 0.6, 1.0])  # every path of its three rungs: 9⁴ of them
LONG = np.linspace(0.0, 1.0, 33)  # by transfer matrices


class Coupled(eqx.Module):
    """x (2,) with values 0 … 2 to ``values`` (3, 3).

    >>> float(Coupled(jnp.eye(3))(jnp.asarray([1.0, 1.0])))
    1.0
    """

    values: Any

    def __call__(self, x: Any) -> Any:
        return self.values[x[0].astype(int), x[1].astype(int)]


def coupled_path(seed: int) -> Path:
    """Two sites of three values, f strongly coupled; one state is rare under q and holds much of Z_1.

    >>> float(coupled_path(0).at(0.0)(jnp.zeros(2))) < 0
    True
    """
    rng = np.random.default_rng([seed, 1])
    q, f = rng.dirichlet(np.full(STATES, 5.0)).reshape(LEVELS, LEVELS), rng.normal(size=(LEVELS, LEVELS))
    q[0, 0], f[0, 0] = 0.01, 5.0
    return Path(Coupled(jnp.asarray(f)), Coupled(jnp.asarray(np.log(q / q.sum()))), jnp.ones(()))


def _law(path: Any, beta: float) -> tuple[np.ndarray, float]:
    """π_β of every state (9,), and Z_β."""
    weight = np.exp(beta * np.asarray(path.f.values) + np.asarray(path.log_q.values)).ravel()
    return weight / weight.sum(), float(weight.sum())


class Rung(NamedTuple):
    """Of one rung: ``chain`` (9, 9), P(x → y), and ``gain`` (9, 9), what the step adds to log w.

    >>> Rung._fields
    ('chain', 'gain')
    """

    chain: np.ndarray
    gain: np.ndarray


@compile_small
def _steps(kernel: Any, x: Any, noise: Any, before: Any, after: Any) -> Any:
    """Positions and gains of one rung from each x (n, 2) with noise (n, 2)."""
    key, zero = jax.random.key(0), jnp.zeros(())

    def one(x: Any, u: Any) -> Any:
        state, _ = kernel.move(Annealed(x, zero), (key, u[None]), (before, after, None))
        return state.position, state.log_weight

    return jax.vmap(one)(x, noise)


def gibbs_annealing(path: Path, reverse: bool) -> AnnealedImportance:
    """The library's kernel.

    >>> gibbs_annealing(coupled_path(0), True).reverse
    True
    """
    return AnnealedImportance(Gibbs(path, LEVELS), reverse)


def rung_of(path: Path, before: float, after: float, reverse: bool, kernel: Callable = gibbs_annealing) -> Rung:
    """The rung's chain and gains: the library's step at the middle of every interval of its two uniforms.

    >>> bool(np.allclose(rung_of(coupled_path(0), 0.25, 0.6, False).chain.sum(axis=1), 1.0))
    True
    """
    every = states(0, STATES, LEVELS, SITES)
    table = _law(path, after)[0].reshape(LEVELS, LEVELS)
    given_second = table / table.sum(axis=0)  # p(x_0 | x_1), drawn first by a forward sweep
    given_first = table / table.sum(axis=1, keepdims=True)
    x, u, share = [], [], []
    for start in every:
        for value in range(LEVELS):
            for other in range(LEVELS):
                first, second = (value, other) if not reverse else (other, value)
                if reverse:
                    laws = given_second[:, second], given_first[start[0]]
                else:
                    laws = given_second[:, start[1]], given_first[first]
                x.append(start)
                u.append([_middle(laws[0], first), _middle(laws[1], second)])
                share.append(laws[0][first] * laws[1][second])
    numbers = (np.asarray(x, float), np.asarray(u), np.asarray(before), np.asarray(after))
    landed, gained = map(np.asarray, _steps(kernel(path, reverse), *map(jnp.asarray, numbers)))
    rows, columns = (np.asarray(a).astype(int) @ [LEVELS, 1] for a in (x, landed))
    chain, gain = np.zeros((STATES, STATES)), np.zeros((STATES, STATES))
    np.add.at(chain, (rows, columns), share)
    gain[rows, columns] = gained
    return Rung(chain, gain)


def _middle(law: np.ndarray, value: int) -> float:
    return float(law[:value].sum() + 0.5 * law[value])


def _hot_rung(path: Path, before: float, after: float, reverse: bool) -> Rung:
    """A planted mistake: the move is made at the β before."""
    return rung_of(path, before, after, reverse)._replace(chain=rung_of(path, before, before, reverse).chain)


def _late_gain(path: Path, before: float, after: float, reverse: bool) -> Rung:
    """A planted mistake: the weight is taken after the move, at the state that already is of π_β."""
    rung = rung_of(path, before, after, reverse)
    return rung._replace(gain=np.broadcast_to(np.diag(rung.gain), (STATES, STATES)))


def _not_turned(path: Path, before: float, after: float, reverse: bool) -> Rung:
    """A planted mistake: the reverse run sweeps in the same order as the forward one."""
    rung = rung_of(path, before, after, reverse)
    return rung._replace(chain=rung_of(path, before, after, False).chain)


class Paths(NamedTuple):
    """Of all 9⁴ paths (x_0, x_1, x_2, x_3): P when run forward, P when run in reverse, and log w by either run.

    >>> Paths._fields
    ('forward', 'reverse', 'log_w', 'log_w_reverse')
    """

    forward: np.ndarray
    reverse: np.ndarray
    log_w: np.ndarray
    log_w_reverse: np.ndarray


def _every_path(seed: int, rung: Callable = rung_of, turned: Callable = rung_of) -> tuple[Paths, float]:
    """All paths along ``LADDER`` with log Z_1/Z_0, the forward run by ``rung``, the reverse one by ``turned``."""
    path = coupled_path(seed)
    forward, log_w = _law(path, 0.0)[0], np.zeros(STATES)
    reverse, log_w_reverse = _law(path, 1.0)[0], np.zeros(STATES)
    for before, after in pairwise(LADDER):
        one = rung(path, before, after, False)
        forward, log_w = forward[..., None] * one.chain, log_w[..., None] + one.gain
    for before, after in zip(LADDER[-2::-1], LADDER[:0:-1]):
        one = turned(path, before, after, True)
        shape = (STATES, STATES) + (1,) * (reverse.ndim - 1)  # the new, earlier state comes first
        reverse = one.chain.T.reshape(shape) * reverse[None]
        log_w_reverse = one.gain.T.reshape(shape) + log_w_reverse[None]
    found = Paths(*(a.ravel() for a in (forward, reverse, log_w, log_w_reverse)))
    return found, float(np.log(_law(path, 1.0)[1] / _law(path, 0.0)[1]))


def _transferred(seed: int, rung: Callable) -> tuple[float, float]:
    """E w and E log w along 32 rungs by transfer matrices: vectors over states, never paths."""
    path = coupled_path(seed)
    law = _law(path, 0.0)[0]
    weighted, log_w = law, 0.0
    for before, after in pairwise(LONG):
        one = rung(path, before, after, False)
        log_w += law @ (one.chain * one.gain).sum(axis=1)
        law, weighted = law @ one.chain, weighted @ (one.chain * np.exp(one.gain))
    return float(weighted.sum()), float(log_w)


def _markov(b: np.ndarray) -> np.ndarray:
    return np.exp(-b)


def _markov_squared(b: np.ndarray) -> np.ndarray:
    """A planted mistake: e^(−2b), a tail that weights need not have."""
    return np.exp(-2 * b)


def _beyond(p: np.ndarray, b: np.ndarray, tail: Callable) -> np.ndarray:
    """What P(log w ≥ log Z + b) has beyond the bound, at every b > 0 that occurs."""
    order = np.argsort(-b)
    return np.where(b[order] > 0, excess(np.cumsum(p[order]), tail(b[order])), 0.0)


def _ais(seed: int, *, rung: Callable = rung_of, tail: Callable = _markov) -> Check:
    """E w = Z_1/Z_0 over all paths and along 32 rungs; E_F log w below, E_R log w above; the tail bound at every atom."""
    paths, log_z = _every_path(seed, rung, rung)
    many, bound = _transferred(seed, rung)
    upper = paths.reverse @ paths.log_w_reverse
    once = rung(coupled_path(seed), 0.0, 1.0, False)
    runs = {
        "all paths": (paths.forward, paths.log_w - log_z),
        "one rung": ((_law(coupled_path(seed), 0.0)[0][:, None] * once.chain).ravel(), once.gain.ravel() - log_z),
    }
    return rounding(
        {
            "E w, all paths": (paths.forward @ np.exp(paths.log_w), np.exp(log_z)),
            "E 1/w, reverse": (paths.reverse @ np.exp(-paths.log_w_reverse), np.exp(-log_z)),
            "E w, 32 rungs": (many, np.exp(log_z)),
            "E log w below": (excess([paths.forward @ paths.log_w, bound], log_z), 0.0),
            "E log w above, reverse": (excess(log_z, upper), 0.0),
            **{f"P(log w ≥ log Z + b), {name}": (_beyond(*run, tail), 0.0) for name, run in runs.items()},
        }
    )


@np.errstate(divide="ignore", invalid="ignore")  # a broken kernel may never take a path: −∞, which fails
def _crooks(seed: int, *, turned: Callable = rung_of, sign: float = -1.0) -> Check:
    """p_F/p_R = exp(log Z_1/Z_0 − log w) path by path; the intercept of the population's logistic fit is log Z_1/Z_0."""
    from scipy.optimize import brentq
    from scipy.special import expit

    paths, log_z = _every_path(seed, rung_of, turned)
    balance = lambda level: (  # noqa: E731
        paths.forward @ expit(paths.log_w - level) - paths.reverse @ expit(level - paths.log_w_reverse)
    )
    fitted = brentq(balance, -20.0, 20.0, xtol=1e-13)
    low, high = paths.forward @ paths.log_w, paths.reverse @ paths.log_w_reverse
    return rounding(
        {
            "log w of the same path": (paths.log_w, paths.log_w_reverse),
            "Crooks": (np.log(paths.forward) - np.log(paths.reverse), log_z + sign * paths.log_w),
            "Bennett": (fitted, log_z),
            "inside the bracket": (excess([low, fitted], [fitted, high]), 0.0),
        }
    )


def _rows(forward: np.ndarray, reverse: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return forward, reverse


def _labels_exchanged(forward: np.ndarray, reverse: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A planted mistake: forward weights given as reverse ones."""
    return reverse, forward


def _not_of_pi(forward: np.ndarray, reverse: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A planted mistake: reverse runs that did not start at π_1, so that their weights are those of forward runs."""
    return forward, np.random.default_rng(0).permutation(forward)


def _bennett(seed: int, *, given: Callable = _rows) -> Check:
    """The library's Bennett estimator from 4000 forward and 2000 reverse runs, within its stated error, in its bracket."""
    (paths, log_z), rng = _every_path(seed), np.random.default_rng([seed, 2])
    draw = lambda p, log_w, n: log_w[rng.choice(p.size, n, p=p / p.sum())]  # noqa: E731
    forward, reverse = given(draw(paths.forward, paths.log_w, 4000), draw(paths.reverse, paths.log_w_reverse, 2000))
    found: Any = bennett(forward, reverse)
    low: Any = forward_log_z(forward)
    high: Any = reverse_log_z(reverse)
    inside = forward.mean() < found.value < reverse.mean() and low.low < found.value < high.high
    return monte_carlo(
        {"Bennett": (found.value, log_z, found.stderr), "inside both brackets": (float(inside), 1.0, 1e-9)}
    )


IDENTITIES = (
    Identity(
        "annealing.ais",
        8,
        "E w = Z_1/Z_0; E_F log w ≤ log Z_1/Z_0 ≤ E_R log w; P(log w > log Z_1/Z_0 + b) ≤ e^(−b)",
        "rounding",
        _ais,
        {
            "moves at the β before": {"rung": _hot_rung},
            "weight after the move": {"rung": _late_gain},
            "the tail e^(−2b)": {"tail": _markov_squared},
        },
        "Jarzynski 1997; Neal 2001; Grosse, Ancha and Roy 2016",
    ),
    Identity(
        "annealing.crooks",
        8,
        "p_F/p_R = exp(log Z_1/Z_0 − log w) for the same path; Bennett's intercept is log Z_1/Z_0, inside the bracket",
        "rounding",
        _crooks,
        {"sweeps not turned around": {"turned": _not_turned}, "sign of log w": {"sign": 1.0}},
        "Crooks 1999; Bennett 1976; Shirts et al. 2003",
    ),
    Identity(
        "annealing.crooks.bennett",
        8,
        "Bennett's estimate from 4000 forward and 2000 reverse runs is log Z_1/Z_0 within its error, inside the bracket",
        "monte-carlo",
        _bennett,
        {
            "forward and reverse exchanged": {"given": _labels_exchanged},
            "reverse runs not from π_1": {"given": _not_of_pi},
        },
        "Bennett 1976; Shirts et al. 2003",
    ),
)
