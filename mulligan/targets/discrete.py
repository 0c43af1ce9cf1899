"""Discrete laws small enough to enumerate: Ising, Potts, the restricted Boltzmann machine.

Definition. p(x) = exp(f(x))/Z with Z = Σ_x exp(f(x)) over all q^n states, summed in float64 at construction. Draws are
by inverse CDF over the enumeration, in two stages (a block of states, then a state of the block), so that float32
resolves states whose probability is far below 1e-7. log p(x) = f(x) − log Z exactly. Theory: ``ebm.log_z``.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Sequence
from itertools import product
from typing import Any, ClassVar, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from mulligan.errors import UsageError
from mulligan.quantity import Quantity
from mulligan.targets.gaussian import _floats
from mulligan.targets.known import KnownLaw, exact_entropy

LIMIT = 2**20


class Enumeration(eqx.Module):
    """All q^n states of n sites with their probabilities, ready for drawing.

    ``log_z`` (); ``block_cdf`` (B,) over blocks of states and ``within_cdf`` (B, S) inside each; ``marginals`` (n, q)
    is P(x_i = v); ``entropy`` in nats.
    """

    levels: int = eqx.field(static=True)
    sites: int = eqx.field(static=True)
    log_z: Float[Array, ""]
    block_cdf: Float[Array, " B"]
    within_cdf: Float[Array, "B S"]
    marginals: Float[Array, "n q"]
    entropy: Float[Array, ""]

    def __init__(self, levels: int, sites: int, f: Callable[[np.ndarray], np.ndarray]):
        if sites * math.log2(levels) > math.log2(LIMIT):
            raise UsageError(
                f"{levels}^{sites} states cannot be enumerated",
                "",
                f"the limit is {LIMIT:,} states",
                "a smaller lattice, or a model of the family 'boltzmann', which estimates log Z",
            )
        self.levels, self.sites = levels, sites
        total = levels**sites
        log_f = np.concatenate([f(states(i, min(i + 65536, total), levels, sites)) for i in range(0, total, 65536)])
        peak = log_f.max()
        p = np.exp(log_f - peak)
        self.log_z = _floats(peak + math.log(p.sum()))
        p /= p.sum()
        self.entropy = _floats(-(p * np.where(p > 0, np.log(np.where(p > 0, p, 1.0)), 0.0)).sum())
        grid = p.reshape((levels,) * sites)
        others = [tuple(k for k in range(sites) if k != site) for site in range(sites)]
        self.marginals = _floats(np.stack([grid.sum(axis=axes) for axes in others]))
        table = p.reshape(levels ** (sites // 2), -1)
        block = table.sum(axis=1)
        self.block_cdf = _floats(np.cumsum(block) / block.sum())
        within = np.cumsum(table, axis=1)
        self.within_cdf = _floats(within / np.maximum(within[:, -1:], np.finfo(float).tiny))

    def sample(self, key: PRNGKeyArray) -> Float[Array, " n"]:
        """One state (n,) with values 0 … q − 1, as floats."""
        u, v = jax.random.uniform(key, (2,), self.block_cdf.dtype)
        block = _inverse(self.block_cdf, u)
        state = block * self.within_cdf.shape[1] + _inverse(self.within_cdf[block], v)
        powers = self.levels ** jnp.arange(self.sites - 1, -1, -1)
        return ((state // powers) % self.levels).astype(self.block_cdf.dtype)


def _inverse(cdf: Array, u: Array) -> Array:
    return jnp.minimum(jnp.searchsorted(cdf, u, side="right"), cdf.size - 1)


def states(start: int, stop: int, levels: int, sites: int) -> np.ndarray:
    """States start … stop − 1 of the enumeration, (stop − start, sites) int64; the first site is the slowest digit.

    >>> states(0, 4, 2, 2).tolist()
    [[0, 0], [0, 1], [1, 0], [1, 1]]
    """
    powers = levels ** np.arange(sites - 1, -1, -1)
    return (np.arange(start, stop)[:, None] // powers) % levels


class Enumerated(KnownLaw):
    """A law on {0 … q−1}^n given by its unnormalised log probability and its enumeration. Exact."""

    kind: ClassVar[Literal["exact", "numeric"]] = "exact"
    table: eqx.AbstractVar[Enumeration]

    @abstractmethod
    def unnormalised(self, x: Float[Array, " n"]) -> Float[Array, ""]:
        """f(x), of which log p(x) = f(x) − log Z."""

    @property
    def dim(self) -> int:
        """n, the number of sites."""
        return self.table.sites

    @property
    def levels(self) -> int:
        """q, the number of values of a site."""
        return self.table.levels

    @property
    def log_z(self) -> Float[Array, ""]:
        """log Σ_x exp f(x), exact."""
        return self.table.log_z

    @property
    def marginals(self) -> Float[Array, "n q"]:
        """P(x_i = v), exact."""
        return self.table.marginals

    def log_prob(self, x: Array, given: Array | None = None) -> Float[Array, ""]:
        """log P(x) in nats, exact; x (n,) with values 0 … q − 1; −∞ for any other value."""
        x = jnp.asarray(x, self.table.log_z.dtype)
        legal = jnp.all((x == jnp.round(x)) & (x >= 0) & (x < self.table.levels))
        log_p = jnp.where(legal, self.unnormalised(x) - self.table.log_z, -jnp.inf)
        return jnp.where(jnp.isnan(x).any(), jnp.nan, log_p)

    def sample(self, key: PRNGKeyArray, given: Array | None = None) -> Float[Array, " n"]:
        """One exact draw (n,) of values 0 … q − 1, as floats."""
        return self.table.sample(key)

    @property
    def holes(self) -> None:
        """None: discs mean nothing on a lattice."""
        return None

    def entropy(self) -> Quantity:
        """−Σ P log P, summed over all states; exact."""
        return exact_entropy(float(self.table.entropy))


class Ising(Enumerated):
    """P(s) ∝ exp(β Σ_{i~j} s_i s_j) with spins s = 2x − 1, x in {0, 1} (Ising 1925). Exact.

    Arguments: ``shape`` of the lattice, ``beta`` β, ``periodic`` (a pair of neighbours counts once, also on a side of
    2).

    >>> law = Ising((1, 2), beta=0.5)
    >>> round(float(jnp.exp(law.log_prob(jnp.array([1.0, 1.0])))), 4)
    0.3655
    """

    table: Enumeration
    beta: Float[Array, ""]
    edges: tuple[tuple[int, int], ...] = eqx.field(static=True)

    def __init__(self, shape: Sequence[int], beta: float, periodic: bool = False):
        self.edges, self.beta = neighbours(shape, periodic), _floats(beta)
        left, right = (list(side) for side in zip(*self.edges)) if self.edges else ([], [])
        spin = lambda x: 2 * x - 1  # noqa: E731
        f = lambda x: beta * (spin(x[:, left]) * spin(x[:, right])).sum(axis=1)  # noqa: E731
        self.table = Enumeration(2, math.prod(shape), f)

    def unnormalised(self, x: Float[Array, " n"]) -> Float[Array, ""]:
        """β Σ s_i s_j over neighbours."""
        spin = 2 * x - 1
        pairs = np.asarray(self.edges, int).reshape(-1, 2)
        return self.beta * jnp.sum(spin[pairs[:, 0]] * spin[pairs[:, 1]])


class Potts(Enumerated):
    """P(x) ∝ exp(β Σ_{i~j} 1[x_i = x_j]), x_i in {0 … q − 1} (Potts 1952). Exact.

    Arguments: ``shape`` of the lattice, ``q`` values a site, ``beta`` β, ``periodic`` as for ``Ising``.

    >>> Potts((2, 3), q=3, beta=0.5).marginals.shape
    (6, 3)
    """

    table: Enumeration
    beta: Float[Array, ""]
    edges: tuple[tuple[int, int], ...] = eqx.field(static=True)

    def __init__(self, shape: Sequence[int], q: int, beta: float, periodic: bool = False):
        self.edges, self.beta = neighbours(shape, periodic), _floats(beta)
        left, right = (list(side) for side in zip(*self.edges)) if self.edges else ([], [])
        self.table = Enumeration(q, math.prod(shape), lambda x: beta * (x[:, left] == x[:, right]).sum(axis=1))

    def unnormalised(self, x: Float[Array, " n"]) -> Float[Array, ""]:
        """β times the number of equal neighbours."""
        pairs = np.asarray(self.edges, int).reshape(-1, 2)
        return self.beta * jnp.sum((x[pairs[:, 0]] == x[pairs[:, 1]]).astype(x.dtype))


class RestrictedBoltzmann(Enumerated):
    """P(v) ∝ Σ_h exp(vᵀWh + bᵀv + cᵀh) = exp(bᵀv + Σ_j softplus(c_j + (Wᵀv)_j)), v in {0, 1}ⁿ (Smolensky 1986). Exact.

    Arguments: ``W`` (n, m), ``b`` (n,), ``c`` (m,).

    >>> round(float(RestrictedBoltzmann(jnp.zeros((2, 3)), jnp.zeros(2), jnp.zeros(3)).log_z), 4)
    3.4657
    """

    table: Enumeration
    W: Float[Array, "n m"]
    b: Float[Array, " n"]
    c: Float[Array, " m"]

    def __init__(self, W: Any, b: Any, c: Any):
        self.W, self.b, self.c = _floats(W), _floats(b), _floats(c)
        w64, b64, c64 = (np.asarray(a, np.float64) for a in (self.W, self.b, self.c))
        self.table = Enumeration(2, len(b64), lambda v: v @ b64 + np.logaddexp(0.0, c64 + v @ w64).sum(axis=1))

    def unnormalised(self, x: Float[Array, " n"]) -> Float[Array, ""]:
        """−F(v), the negative free energy: the hidden units are summed out."""
        return x @ self.b + jnp.sum(jax.nn.softplus(self.c + x @ self.W))


def neighbours(shape: Sequence[int], periodic: bool) -> tuple[tuple[int, int], ...]:
    """Pairs (i, j), i < j, of sites next to each other on a lattice of any dimension; each pair once.

    >>> neighbours((2, 2), periodic=True)
    ((0, 1), (0, 2), (1, 3), (2, 3))
    """
    if not shape or any(side < 1 for side in shape):
        raise UsageError(
            f"shape is {tuple(shape)}", "", "every side of a lattice has at least one site", "shape=(3, 3)"
        )
    index = np.arange(math.prod(shape)).reshape(shape)
    pairs = set()
    for place in product(*(range(side) for side in shape)):
        for axis, side in enumerate(shape):
            step = list(place)
            step[axis] = (place[axis] + 1) % side if periodic else place[axis] + 1
            if step[axis] < side and tuple(step) != place:
                i, j = int(index[place]), int(index[tuple(step)])
                pairs.add((min(i, j), max(i, j)))
    return tuple(sorted(pairs))
