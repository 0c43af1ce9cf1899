"""The Ising model on lattices too large to enumerate: log Z and exact draws by transfer matrices.

Definition. f(x) = β Σ_{i~j} s_i s_j with s = 2x − 1 on a lattice of R rows and C columns, C ≤ 10. With rows as states,
T(a, b) = exp(½ h(a) + v(a, b) + ½ h(b)), h the bonds within a row and v those between rows, Z is the trace of T^R if
rows are periodic, or a sum over free ends (Kramers and Wannier 1941; Onsager 1944). Draws go row by row:
P(next | this, first) ∝ T(this, next) T^{rows left}(next, first). All in float64. Theory: ``ebm.log_z``, ``annealing.ais``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from mulligan.errors import UsageError
from mulligan.targets.discrete import neighbours, states
from mulligan.targets.gaussian import _floats

WIDEST = 10


class Lattice(eqx.Module):
    """f(x) = β Σ_{i~j} s_i s_j, s = 2x − 1, of x (R·C,) in {0, 1}, row after row: an Ising model's unnormalised log density.

    Neighbours are those of ``mulligan.targets.discrete.neighbours``: a pair counts once, also on a periodic side of 2.
    f is affine in each x_i when the others are fixed.

    >>> float(Lattice((2, 2), 0.5, periodic=True)(jnp.ones(4)))
    2.0
    """

    beta: Float[Array, ""]
    shape: tuple[int, int] = eqx.field(static=True)
    periodic: bool = eqx.field(static=True)

    def __init__(self, shape: Sequence[int], beta: float, periodic: bool = False):
        if len(shape) != 2 or min(shape) < 1:
            raise UsageError(f"shape is {tuple(shape)}", "Lattice", "a lattice has rows and columns", "shape=(8, 8)")
        self.shape, self.beta, self.periodic = (int(shape[0]), int(shape[1])), _floats(beta), periodic

    def __call__(self, x: Float[Array, " n"]) -> Float[Array, ""]:
        spin = (2 * x - 1).reshape(self.shape)
        total = jnp.sum(spin[1:] * spin[:-1]) + jnp.sum(spin[:, 1:] * spin[:, :-1])
        # shifts and no gathers: many chains of these are what log Z costs
        if self.periodic and self.shape[0] > 2:
            total += jnp.sum(spin[0] * spin[-1])
        if self.periodic and self.shape[1] > 2:
            total += jnp.sum(spin[:, 0] * spin[:, -1])
        return jnp.asarray(self.beta, x.dtype) * total

    @property
    def edges(self) -> tuple[tuple[int, int], ...]:
        """Pairs of neighbours (i, j), i < j."""
        return neighbours(self.shape, self.periodic)


class TransferMatrix:
    """log Z and independent exact draws of a ``Lattice`` at most 10 wide, in float64 NumPy.

    Memory and time grow as R·4^C: 10 by 10 takes 80 MB and seconds. Raises UsageError for a wider lattice.

    >>> exact = TransferMatrix(Lattice((2, 3), 0.3))
    >>> every = jnp.asarray(states(0, 64, 2, 6), float)
    >>> abs(exact.log_z - math.log(sum(math.exp(exact.lattice(x)) for x in every))) < 1e-5
    True
    >>> exact.draw(5, seed=0).shape
    (5, 6)
    """

    def __init__(self, lattice: Lattice):
        rows, columns = lattice.shape
        if columns > WIDEST:
            raise UsageError(
                f"{columns} columns", "TransferMatrix", f"2^{columns} states of a row are too many", f"at most {WIDEST}"
            )
        beta = float(lattice.beta)
        self.lattice = lattice
        self._row = states(0, 2**columns, 2, columns)
        spin = 2.0 * self._row - 1
        within = (spin[:, 1:] * spin[:, :-1]).sum(axis=1)
        if lattice.periodic and columns > 2:
            within += spin[:, 0] * spin[:, -1]
        half = 0.5 * beta * within
        self._half = half
        log_t = half[:, None] + beta * spin @ spin.T + half
        self._top = float(log_t.max())
        self._wraps = lattice.periodic and rows > 2
        one = np.exp(log_t - self._top)
        # what the rows still to come weigh, from a row to the last (to the first again if periodic), for 0 … R rows left
        ahead, logs = [np.eye(len(one)) if self._wraps else np.exp(half)[:, None]], [0.0]
        for _ in range(rows if self._wraps else rows - 1):
            product = one @ ahead[-1]
            size = float(product.max())
            ahead.append(product / size)
            logs.append(logs[-1] + math.log(size) + self._top)
        self._one, self._ahead = one, ahead
        first = np.diagonal(ahead[-1]) if self._wraps else np.exp(half) * ahead[-1][:, 0]
        self._first = first / first.sum()
        self.log_z = math.log(first.sum()) + logs[-1]

    def draw(self, n: int, seed: int) -> np.ndarray:
        """n independent draws (n, R·C) of values 0 and 1, float64."""
        rng = np.random.default_rng(seed)
        rows, size = self.lattice.shape[0], len(self._first)
        first = rng.choice(size, n, p=self._first)
        drawn, uniform = [first], rng.uniform(size=(rows, n))
        for number in range(1, rows):
            left = self._ahead[rows - number if self._wraps else rows - 1 - number]
            weight = self._one[drawn[-1]] * (left[:, first].T if self._wraps else left[:, 0])
            cdf = np.cumsum(weight, axis=1)
            drawn.append((uniform[number][:, None] * cdf[:, -1:] >= cdf).sum(axis=1))
        return self._row[np.stack(drawn, axis=1)].reshape(n, -1).astype(float)
