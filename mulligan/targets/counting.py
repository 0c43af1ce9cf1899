"""Counting: the joint density of a table of cells, from which marginals, conditionals and expectations follow.

Definition. p(x) = (n(cell) + pseudo)/(n + pseudo · cells)/volume(cell). A marginal adds integer counts over the other
axes, a conditional counts inside the bin only, and p(x, y) = p(x) p(y | x). With ``tails`` each axis has one more cell
at either end, an exponential as wide as the outermost bin, so that no point has density 0 for lying outside.
Identities: ``density.joint``, ``density.marginal``, ``density.conditional``, ``density.factorization``,
``density.expectation``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, ClassVar, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from mulligan.core import Density, Sampler
from mulligan.errors import DataError, UsageError
from mulligan.quantity import Quantity
from mulligan.targets.gaussian import _floats, observed_and_free
from mulligan.targets.known import gauss_legendre

# Pieces of a cell for the rules that a tolerance compares: unequal, so that no two rules share a symmetry, and small at
# the ends, where a jump would else be missed. Steps at 4 000 places of a cell are all inside the tolerance, except those
# within 0.3 % of its edges.
_WHOLE, _TWO, _FOUR = (0.0, 1.0), (0.0, 0.37, 1.0), (0.0, 0.04, 0.45, 0.97, 1.0)
_MOST = 1 << 24


class Histogram(Sampler, Density):
    """A density that is constant in each cell of a grid (with exponential tails, if asked for). Exact.

    Arguments: ``edges``, d increasing arrays (b_j + 1,); ``counts``, integers (b_1, …, b_d), or (b_1 + 2, …, b_d + 2)
    with ``tails``; ``pseudo`` ≥ 0, added to every count. d is 1 to 4 in practice: the cells multiply.

    >>> law = Histogram.from_rows(np.array([[0.2], [0.7], [0.8], [0.9]]), [[0.0, 0.5, 1.0]])
    >>> law.counts.tolist(), round(float(jnp.exp(law.log_prob(jnp.array([0.6])))), 4)
    ([1, 3], 1.5)
    """

    kind: ClassVar[Literal["exact", "numeric"]] = "exact"
    edges: tuple[Float[Array, " b"], ...]
    counts: Int[Array, ...]
    pseudo: Float[Array, ""] = eqx.field(converter=_floats)
    tails: bool = eqx.field(static=True)

    def __init__(self, edges: Sequence[Any], counts: Any, pseudo: Any = 0.0, tails: bool = False):
        self.edges = tuple(_floats(axis) for axis in edges)
        self.counts, self.pseudo, self.tails = jnp.asarray(counts), _floats(pseudo), tails
        cells = tuple(axis.size - 1 + 2 * tails for axis in self.edges)
        if self.counts.shape != cells:
            raise UsageError(
                f"counts of shape {self.counts.shape} on a grid of {cells} cells",
                "Histogram",
                "an axis with b bins has b + 1 edges, and b + 2 cells with tails",
                "Histogram.from_rows(rows, edges)",
            )

    @classmethod
    def from_rows(cls, rows: Any, edges: Sequence[Any], pseudo: float = 0.0, tails: bool = False) -> Histogram:
        """Count rows (n, d) in the cells. A bin holds its left edge, the last one both.

        Rows and edges are first rounded to the float type in use, so that counting and ``log_prob`` agree on every row.
        Raises DataError for a row that is not finite, or that lies outside where there are no tails: none is dropped.
        """
        dtype = jax.dtypes.canonicalize_dtype(float)
        grid = [np.asarray(axis, dtype) for axis in edges]
        values = np.asarray(rows, dtype).reshape(-1, len(grid))
        if not np.isfinite(values).all():
            raise DataError(f"{(~np.isfinite(values).all(axis=1)).sum()} rows are not finite", "", "they have no cell")
        cells = [_cells(values[:, j], axis, np) for j, axis in enumerate(grid)]
        shape = tuple(axis.size - 1 for axis in grid)
        outside = sum(((c < 0) | (c >= b)) for c, b in zip(cells, shape)).astype(bool)
        if outside.any() and not tails:
            raise DataError(
                f"{outside.sum()} rows lie outside the edges",
                f"first at row {int(np.flatnonzero(outside)[0])}",
                "they would have no cell and the density would not be theirs",
                "wider edges, or tails=True",
            )
        shape = tuple(b + 2 * tails for b in shape)
        flat = np.ravel_multi_index([c + tails for c in cells], shape)
        return cls(grid, np.bincount(flat, minlength=math.prod(shape)).reshape(shape).astype(np.int32), pseudo, tails)

    @property
    def dim(self) -> int:
        """d."""
        return len(self.edges)

    @property
    def joint(self) -> Float[Array, ...]:
        """Probability of each cell, shaped like ``counts``; adds up to 1 (NaN without rows and pseudo-count)."""
        weight = self._weight
        return weight / weight.sum()

    @property
    def _weight(self) -> Float[Array, ...]:
        return self.counts.astype(self.pseudo.dtype) + self.pseudo

    def _place(self, x: Array) -> tuple[tuple[Array, ...], Array, Array]:
        """The cell of x, log(1/volume) there (distance into the tails included), and whether x is on the grid."""
        index, log_density, inside = [], jnp.zeros((), self.pseudo.dtype), jnp.asarray(True)
        for j, edges in enumerate(self.edges):
            bins = edges.size - 1
            cell = _cells(x[j], edges, jnp)
            nearest = jnp.clip(cell, 0, bins - 1)
            width = edges[nearest + 1] - edges[nearest]
            beyond = jnp.maximum(edges[0] - x[j], 0) + jnp.maximum(x[j] - edges[-1], 0)
            log_density = log_density - jnp.log(width) - (beyond / width if self.tails else 0.0)
            inside = inside & (self.tails | (cell == nearest))
            index.append(cell + 1 if self.tails else nearest)
        return tuple(index), log_density, inside

    def log_prob(self, x: Array, given: Array | None = None) -> Float[Array, ""]:
        """log p(x) in nats, exact; x (d,). −∞ in an empty cell and, without tails, outside the edges."""
        index, log_density, inside = self._place(x)
        log_p = jnp.log(self.joint[index]) + log_density
        return jnp.where(jnp.isnan(x).any(), jnp.nan, jnp.where(inside, log_p, -jnp.inf))

    def factorization(self, x: Array) -> Float[Array, " d"]:
        """log p(x_j | x_1 … x_{j−1}) for each j, by counting inside the earlier axes' bins; adds up to log p(x)."""
        index, _, inside = self._place(x)
        weight, terms = self._weight, []
        for j in range(self.dim):
            row = weight.sum(axis=tuple(range(1, weight.ndim)))
            one = self.marginal([j])._place(x[j : j + 1])[1]
            terms.append(jnp.log(row[index[j]] / row.sum()) + one)
            weight = weight[index[j]]
        log_p = jnp.where(inside, jnp.stack(terms), -jnp.inf)
        return jnp.where(jnp.isnan(x).any(), jnp.nan, log_p)

    def sample(self, key: PRNGKeyArray, given: Array | None = None) -> Float[Array, " d"]:
        """One draw (d,): axis after axis, a cell by inverse CDF among those left, then a point in it."""
        weight, keys, x = self._weight, jax.random.split(key, 2 * self.dim), []
        for j, edges in enumerate(self.edges):
            # One axis at a time, so that float32 resolves each cell's share of its row rather than of the whole table.
            cdf = jnp.cumsum(weight.sum(axis=tuple(range(1, weight.ndim))))
            u = jax.random.uniform(keys[2 * j], (), cdf.dtype) * cdf[-1]
            cell = jnp.minimum(jnp.searchsorted(cdf, u, side="right"), cdf.size - 1)
            weight = weight[cell]
            x.append(self._within(keys[2 * j + 1], edges, cell - self.tails))
        return jnp.stack(x)

    def _within(self, key: PRNGKeyArray, edges: Array, cell: Array) -> Array:
        bins = edges.size - 1
        nearest = jnp.clip(cell, 0, bins - 1)
        low, width = edges[nearest], edges[nearest + 1] - edges[nearest]
        u = jax.random.uniform(key, (), edges.dtype)
        if not self.tails:
            return low + width * u
        reach = -width * jnp.log1p(-u)
        return jnp.where(cell < 0, edges[0] - reach, jnp.where(cell >= bins, edges[-1] + reach, low + width * u))

    def marginal(self, axes: Sequence[int]) -> Histogram:
        """The law of x[axes], in that order: counts add as integers, and so do the pseudo-counts. Exact.

        UsageError if an axis is out of range or repeated.
        """
        kept, dropped = observed_and_free(axes, self.dim)
        counts = jnp.transpose(self.counts, (*kept, *dropped))
        merged = math.prod(counts.shape[len(kept) :])
        counts = counts.sum(axis=tuple(range(len(kept), self.dim)), dtype=self.counts.dtype)
        return Histogram([self.edges[j] for j in kept], counts, self.pseudo * merged, self.tails)

    def conditional(self, axes: Sequence[int], values: Any) -> Histogram:
        """The other axes given that x[axes] lies in the bins of ``values``: counting inside the bin only. Exact.

        Raises UsageError for axes that do not exist, DataError where the bin does not exist or holds nothing. Under
        tracing neither can be seen, and the densities are NaN.
        """
        observed, free = observed_and_free(axes, self.dim)
        point = _floats(values).reshape(-1)
        if point.size != observed.size or free.size == 0:
            raise UsageError(
                f"{point.size} values for axes {observed.tolist()} of {self.dim}",
                "Histogram.conditional",
                "each given axis needs its value, and one axis must be left",
                "law.conditional([0], [value])",
            )
        index, _, inside = self.marginal(observed.tolist())._place(point)
        counts = jnp.transpose(self.counts, (*observed, *free))[index]
        # An empty bin has no conditional law: 0/0, said as NaN.
        weight = counts.sum().astype(self.pseudo.dtype) + self.pseudo
        pseudo = jnp.where(inside & (weight > 0), self.pseudo, jnp.nan)
        if not isinstance(pseudo, jax.core.Tracer) and not bool(jnp.isfinite(pseudo)):
            raise DataError(
                f"no rows with x{observed.tolist()} = {np.asarray(point).tolist()}",
                "",
                "there is nothing to count inside that bin",
                "wider bins, or pseudo > 0 and tails=True",
            )
        return Histogram([self.edges[j] for j in free], counts, pseudo, self.tails)

    def expectation(self, h: Callable[[Array], Array], nodes: int = 6) -> Quantity:
        """E h(x) for h from (d,) to a scalar: Gauss-Legendre in every cell, Gauss-Laguerre in the tails.

        Exact to rounding for polynomials of degree < 2·(nodes − 2) in each coordinate. The tolerance is twice the spread of
        four rules, plus rounding: ``nodes`` and nodes − 2 of them in a cell (both are symmetric, and agree on a jump in
        the middle), and rules on two and on four unequal pieces of each cell. What no rule can see stays unsaid: a jump
        nearer to an edge than their first node (0.3 % of the cell with 6 nodes), or a spike between all nodes. A rule on
        pieces that would need more than 2²⁴ points is left out.

        >>> law = Histogram([[0.0, 1.0]], [5])
        >>> round(law.expectation(lambda x: x[0] ** 2).value, 4)
        0.3333
        >>> law.expectation(lambda x: 1.0 * (x[0] > 0.47)).contains(0.53)
        True
        """
        coarse = max(1, nodes - 2)
        size, value = _cell_integral(self, h, nodes, _WHOLE)
        rules = [(coarse, _WHOLE), (max(1, nodes - 1), _TWO), (coarse, _FOUR)]
        cells = float(self.counts.size)
        allowed = [
            (n, cuts) for n, cuts in rules if cells * (n * (len(cuts) - 1)) ** self.dim <= _MOST or cuts is _WHOLE
        ]
        values = [value, *(_cell_integral(self, h, n, cuts)[1] for n, cuts in allowed)]
        tolerance = 2 * (max(values) - min(values)) + 4 * float(jnp.finfo(self.pseudo.dtype).eps) * size
        low, high = value - tolerance, value + tolerance
        return Quantity(value, "numeric", low, high, note="over the histogram", method_low=low, method_high=high)


def _cells(x: Any, edges: Any, xp: Any) -> Any:
    """The bin of x: −1 below the first edge, b above the last, which itself belongs to the last bin."""
    cell = xp.searchsorted(edges, x, side="right") - 1
    return xp.where(x == edges[-1], edges.size - 2, cell)


def _cell_integral(
    law: Histogram, h: Callable[[Array], Array], nodes: int, cuts: tuple[float, ...]
) -> tuple[float, float]:
    """E|h| and E h as Σ over cells of P(cell) times the mean in the cell, on a tensor grid of nodes in each piece."""
    unit, unit_weight = _pieces(nodes, cuts, tail=False)
    far, far_weight = _pieces(nodes, cuts, tail=True)
    points, weights = [], []
    for edges in law.edges:
        axis = np.asarray(edges, np.float64)
        point = list(axis[:-1, None] + np.diff(axis)[:, None] * unit)
        weight = [unit_weight] * len(point)
        if law.tails:
            point = [axis[0] - (axis[1] - axis[0]) * far, *point, axis[-1] + (axis[-1] - axis[-2]) * far]
            weight = [far_weight, *weight, far_weight]
        points.append(np.stack(point))
        weights.append(np.stack(weight))
    size = [p.size for p in points]
    joint = np.asarray(law.joint, np.float64)
    for j, p in enumerate(points):
        shape = [-1 if i == j else 1 for i in range(law.dim)]
        joint = np.repeat(joint, p.shape[1], axis=j) * weights[j].reshape(shape)
    index = jnp.arange(math.prod(size))
    axes = [_floats(p.reshape(-1)) for p in points]
    at = lambda i: h(jnp.stack([a[k] for a, k in zip(axes, jnp.unravel_index(i, tuple(size)))]))  # noqa: E731
    values = np.asarray(jax.lax.map(at, index, batch_size=1 << 15), np.float64)
    return float(joint.reshape(-1) @ np.abs(values)), float(joint.reshape(-1) @ values)


def _pieces(nodes: int, cuts: tuple[float, ...], tail: bool) -> tuple[np.ndarray, np.ndarray]:
    """Points and weights of Gauss-Legendre on each piece of [0, 1]; for e^{−t} on [0, ∞) the last piece has no end."""
    parts = [gauss_legendre(nodes, low, high) for low, high in pairwise(cuts)]
    if tail:
        t, weight = np.polynomial.laguerre.laggauss(nodes)
        parts = [(x, w * np.exp(-x)) for x, w in parts[:-1]] + [(cuts[-2] + t, math.exp(-cuts[-2]) * weight)]
    return np.concatenate([x for x, _ in parts]), np.concatenate([w for _, w in parts])
