"""Chapter 8, tempering: a barrier slows local moves exponentially, and exchange along a ladder of β takes it away.

Definition. π_β ∝ exp(β f) q. Chains at β_i and β_j exchange positions with probability min(1, exp((β_i − β_j)(f_j − f_i))):
q cancels, particles swap and the product law stays. The spectral gap 1 − λ₂ of a reversible chain is its rate; for
Langevin in a double well it falls as e^(−barrier) (Kramers). The kernels are the library's; their transition matrices
are found from ``move`` on finite sets and on grids.
Identity: ``tempering.swap``; experiment: ``tempering.slow``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from mulligan.core import Kernel
from mulligan.lab.identity import Check, Identity, order, rounding
from mulligan.loop import compile_small
from mulligan.samplers.gibbs import Gibbs
from mulligan.samplers.langevin import MetropolisLangevin
from mulligan.samplers.metropolis import Decision
from mulligan.samplers.path import Path, Ratio, StandardNormal, at
from mulligan.samplers.tempering import ParallelTempering, exchange, swap_probability
from mulligan.targets.wells import DoubleWell

STATES = 40


class Lookup(eqx.Module):
    """x (1,) with values 0 … n − 1 to ``values`` (n,).

    >>> float(Lookup(jnp.asarray([0.5, 2.0]))(jnp.asarray([1.0])))
    2.0
    """

    values: Any

    def __call__(self, x: Any) -> Any:
        return self.values[x[0].astype(int)]


def chain_path(seed: int) -> Path:
    """A path on 40 states with rugged f and q.

    >>> float(chain_path(0).at(0.0)(jnp.zeros(1))) < 0
    True
    """
    rng = np.random.default_rng([seed, 1])
    q = rng.dirichlet(np.full(STATES, 3.0))
    return Path(Lookup(jnp.asarray(3 * rng.normal(size=STATES))), Lookup(jnp.asarray(np.log(q))), jnp.ones(()))


def _laws(path: Any, betas: np.ndarray) -> np.ndarray:
    """π_β of every state, (K, 40)."""
    f, log_q = np.asarray(path.f.values), np.asarray(path.log_q.values)
    weight = np.exp(betas[:, None] * f + log_q)
    return weight / weight.sum(axis=1, keepdims=True)


def _stated(path: Path, betas: Any, positions: Any) -> Any:
    return swap_probability(path, betas, positions)


def _upside_down(path: Path, betas: Any, positions: Any) -> Any:
    """A planted mistake: β_i and β_j exchanged."""
    return swap_probability(path, betas[::-1], positions)


def _always(path: Path, betas: Any, positions: Any) -> Any:
    """A planted mistake: every exchange is accepted."""
    return jnp.ones(betas.size - 1)


def _with_q(path: Path, betas: Any, positions: Any) -> Any:
    """A planted mistake: q does not cancel, as if β tempered the whole density."""
    return swap_probability(Path(lambda x: path.f(x) + path.log_q(x), path.log_q, path.beta), betas, positions)


@compile_small
def _swapped(path: Path, betas: Any, pairs: Any, probability: Callable, swap: Callable) -> Any:
    """Of each pair of positions (n, 2, 1): the probability of exchange, and where u just below and above it leads."""

    def one(positions: Any) -> Any:
        p = probability(path, betas, positions)
        state = ParallelTempering(Gibbs(path, STATES), betas).init(jax.random.key(0), positions)
        after = [swap(state, p, p + shift) for shift in (-1e-12, 1e-12)]
        return p[0], after[0].positions, after[1].positions

    return jax.vmap(one)(pairs)


@compile_small
def _moved(kernel: ParallelTempering, start: Any, inner: Any, uniforms: Any) -> Any:
    """Where one whole step leads, for each noise: u of the two Gibbs moves (n, 2), u of the exchange (n,)."""
    state = kernel.init(jax.random.key(0), start)
    keys = jax.random.split(jax.random.key(0), 2)

    def one(local: Any, u: Any) -> Any:
        after, info = kernel.move(state, (keys, local[:, None, None], u[None], None), None)
        return after.positions, info.swap_acceptance[0]

    return jax.vmap(one)(inner, uniforms)


def _swap(seed: int, *, probability: Callable = _stated, swap: Callable = exchange) -> Check:
    """Two chains of 40 states: the exchange balances on all 1600 pairs; after a whole step the law is the product law.

    The whole step is ``ParallelTempering`` with one Gibbs move a rung, from one start: its law is summed over the
    intervals of its uniforms, and Gibbs on one site forgets the start.
    """
    path, ladder, rng = chain_path(seed), np.array([0.3, 1.0]), np.random.default_rng([seed, 2])
    laws = _laws(path, ladder)
    product = np.outer(*laws)
    grid = np.stack(np.meshgrid(np.arange(STATES), np.arange(STATES), indexing="ij"), axis=-1).reshape(-1, 2)
    pairs = grid[:, :, None].astype(float)
    found = _swapped(path, jnp.asarray(ladder), jnp.asarray(pairs), probability, swap)
    alpha, below, above = map(np.asarray, found)
    balance = product * alpha.reshape(STATES, STATES)
    after = product - balance + balance.T  # πP: what stays, and what comes

    edges = [np.concatenate([[0.0], np.cumsum(law)]) for law in laws]
    middles, widths = [0.5 * (e[1:] + e[:-1]) for e in edges], [np.diff(e) for e in edges]
    inner = np.stack([middles[0][grid[:, 0]], middles[1][grid[:, 1]]], axis=1)
    weight = widths[0][grid[:, 0]] * widths[1][grid[:, 1]]
    kernel = ParallelTempering(Gibbs(path, STATES), jnp.asarray(ladder), redraw=False)
    start = jnp.asarray(rng.integers(STATES, size=(2, 1)).astype(float))
    whole = np.zeros_like(product)
    told = np.asarray(_moved(kernel, start, jnp.asarray(inner), jnp.full(len(grid), 0.5))[1])
    for u, share in ((told * (1 - 1e-9), told), (np.minimum(told * (1 + 1e-9), 1.0), 1 - told)):
        landed = np.asarray(_moved(kernel, start, jnp.asarray(inner), jnp.asarray(u))[0])[:, :, 0].astype(int)
        np.add.at(whole, (landed[:, 0], landed[:, 1]), weight * share)
    return rounding(
        {
            "balance": (balance, balance.T),
            "πP = π": (after, product),
            "particles swap": (below, pairs[:, ::-1]),
            "or stay": (above, np.where(alpha[:, None, None] < 1, pairs, above)),
            "after a whole step": (whole, product),
        }
    )


# --- the motive --------------------------------------------------------------------------------------------------------


class _FirstAxis(eqx.Module):
    """x (1,) to log p(x, 0)."""

    log_density: Callable

    def __call__(self, x: Any) -> Any:
        return self.log_density(jnp.concatenate([x, jnp.zeros(1)]))


@compile_small
def _proposed(kernel: Kernel, x: Any, noise: Any) -> Any:
    """Forced positions (n, m), and the probability of acceptance, for each x (n,) and noise (n, m)."""

    def one(x: Any, e: Any) -> Any:
        state, info = kernel.move(kernel.init(jax.random.key(0), x[None]), Decision(e[None], jnp.zeros(())), None)
        return state.position[0], info.acceptance

    return jax.vmap(lambda x, row: jax.vmap(lambda e: one(x, e))(row))(x, noise)


def grid_chain(kernel: Kernel, x: np.ndarray) -> np.ndarray:
    """The transition matrix (n, n) of an adjusted kernel between points of an even grid: proposal times acceptance.

    >>> kernel = MetropolisLangevin(StandardNormal(1, 1.0), 0.5)
    >>> bool(np.allclose(grid_chain(kernel, np.linspace(-4, 4, 9)).sum(axis=1), 1))
    True
    """
    step, zeros = x[1] - x[0], np.zeros((x.size, x.size))
    centre, away = (np.asarray(_proposed(kernel, jnp.asarray(x), jnp.asarray(zeros + e))[0]) for e in (0.0, 1e-3))
    width = (away - centre) / 1e-3
    noise = (x - centre) / width
    alpha = np.asarray(_proposed(kernel, jnp.asarray(x), jnp.asarray(noise))[1])
    chain = step * np.exp(-0.5 * noise**2) / (np.sqrt(2 * np.pi) * width) * alpha
    np.fill_diagonal(chain, 0.0)
    np.fill_diagonal(chain, 1 - chain.sum(axis=1))
    return chain


def _symmetric(chain: np.ndarray) -> np.ndarray:
    """√(P_ij P_ji), which has the eigenvalues of the reversible P."""
    return np.sqrt(chain * chain.T)


def _gap_alone(chain: np.ndarray) -> float:
    return float(1 - np.linalg.eigvalsh(_symmetric(chain))[-2])


def _gap_exchanging(hot: np.ndarray, cold: np.ndarray, alpha: np.ndarray) -> float:
    """Gap of ½ (both chains move) + ½ (exchange), on the pairs of states, by Lanczos' method."""
    from scipy.sparse.linalg import LinearOperator, eigsh

    n, (first, second) = len(hot), (_symmetric(hot), _symmetric(cold))
    moved, stayed = np.sqrt(alpha * alpha.T), 1 - alpha

    def apply(flat: np.ndarray) -> np.ndarray:
        law = flat.reshape(n, n)
        return (0.5 * (first @ law @ second.T) + 0.5 * (moved * law.T + stayed * law)).ravel()

    values = eigsh(LinearOperator((n * n, n * n), apply, dtype=float), k=2, which="LA", v0=np.ones(n * n))[0]
    return float(1 - values.min())


class Gaps(NamedTuple):
    """``alone`` and ``exchanging``, spectral gaps; ``factor``, Kramers' b, by which the first falls as e^(−barrier).

    >>> Gaps._fields
    ('alone', 'exchanging', 'factor')
    """

    alone: float
    exchanging: float
    factor: float


def gaps(height: float, hot: float = 0.0, points: int = 48) -> Gaps:
    """Gaps of MALA in x⁴/4 − bx²/2 with b = 2√height, alone and exchanging with a chain at β = ``hot``, on a grid.

    >>> found = gaps(6.0)
    >>> found.alone < 0.01 * found.exchanging
    True
    """
    x = np.linspace(-4.4, 4.4, points)
    pairs = jnp.asarray(np.stack(np.meshgrid(x, x, indexing="ij"), axis=-1).reshape(-1, 2)[:, :, None])
    b = 2 * np.sqrt(height)
    well = DoubleWell(
        1.0, b, 0.0
    )  # its tables for drawing differ in length from well to well: one program without them
    well = eqx.tree_at(lambda at: (at.cdf, at.quantile), well, (jnp.zeros(1), jnp.zeros(1)))
    q = StandardNormal(1, jnp.asarray(2.0))
    path = Path(Ratio(_FirstAxis(well.log_prob), q), q, jnp.ones(()))
    kernel = MetropolisLangevin(path, jnp.asarray(0.08))
    cold, other = grid_chain(kernel, x), grid_chain(at(kernel, hot, 1.0 if hot == 0 else 0.08), x)
    alpha = np.asarray(_pair_swaps(path, jnp.asarray([hot, 1.0]), pairs)).reshape(x.size, x.size)
    return Gaps(_gap_alone(cold), _gap_exchanging(other, cold, alpha), b)


def _slow(seed: int, *, hot: float = 0.0, barriers: tuple[float, ...] = (5.0, 7.0, 9.0, 11.0)) -> Check:
    """Gap of MALA in x⁴/4 − bx²/2, over Kramers' factor b: e^(−barrier). With a chain at β = 0 beside it, no such fall.

    No randomness; a seed moves the barriers a little.
    """
    shift = np.random.default_rng([seed, 3]).uniform(-0.2, 0.2)
    heights, alone, exchanging = np.array(barriers) + shift, [], []
    for height in heights:
        found = gaps(float(height), hot)
        alone.append(found.alone / found.factor)
        exchanging.append(found.exchanging)
    return order(
        {
            "alone": (np.exp(heights), alone, -1.0),
            "exchanging": (np.exp(heights), exchanging, 0.0),
        }
    )


@compile_small
def _pair_swaps(path: Path, betas: Any, pairs: Any) -> Any:
    return jax.vmap(lambda positions: swap_probability(path, betas, positions)[0])(pairs)


IDENTITIES = (
    Identity(
        "tempering.swap",
        8,
        "exchange with probability min(1, exp((β_i − β_j)(f_j − f_i))) leaves Π_k π_{β_k} as it is",
        "rounding",
        _swap,
        {
            "β_i and β_j exchanged": {"probability": _upside_down},
            "always accepted": {"probability": _always},
            "q does not cancel": {"probability": _with_q},
        },
        "Swendsen and Wang 1986; Geyer 1991",
    ),
)

PHENOMENA = (
    Identity(
        "tempering.slow",
        8,
        "the gap of Langevin in a double well falls as e^(−barrier); with exchange only as a power of the barrier",
        "order",
        _slow,
        {"a second chain at β = 1": {"hot": 1.0}},
        "Kramers 1940; Woodard, Schmidler and Huber 2009",
    ),
)
