"""Autoregressive models of rows: the chain rule with one network, exact for every kind of column.

Definition. In an order of the columns, log p(x) = Σ_j log p(x_j | earlier columns, given): a product of one-dimensional
laws (``mulligan.models.heads``) whose parameters are outputs of one masked network (Germain et al. 2015; for densities,
RNADE of Uria, Murray and Larochelle 2013). Continuous columns have densities, cells and categories exact probabilities:
nothing is bounded and nothing dequantised. The columns that come first have their marginal in closed form, too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from mulligan.core import Density, Sampler
from mulligan.models.columns import Cells, Columns
from mulligan.models.heads import (
    category_log_prob,
    gaussian_log_prob,
    gaussian_sample,
    logistic_log_prob,
    logistic_sample,
    softmax_sample,
    spread_logits,
    starting_raw,
)
from mulligan.nets.masked import MaskedNet, make_masked_net

_FARTHEST = 8.0  # a number's features are those of ±8 standard deviations beyond them
FREQUENCIES = (1.0, 2.0, 4.0)
MANY_BITS = 64  # columns of two levels: from here on each is one input, and rows are drawn unit by unit


def _floats(numbers: Sequence[float]) -> tuple[float, ...]:
    return tuple(float(number) for number in numbers)


class Autoregressive(Sampler, Density):
    """log p(x) = Σ_j log p(x_j | x before j in the order); ``make_autoregressive`` makes it.

    ``columns`` says what each coordinate is, ``net`` gives the parameters of all conditional laws, ``positions`` (c,) is
    each column's place in the order, ``parts`` and ``frequencies`` those of ``make_autoregressive``. A number that is no
    valid value counts as the value whose cell holds it.
    """

    kind: ClassVar[Literal["exact", "numeric"]] = "exact"
    columns: Columns
    net: MaskedNet
    positions: Int[Array, "*m c"]
    parts: int = eqx.field(static=True)
    frequencies: tuple[float, ...] = eqx.field(static=True, converter=_floats)

    def log_prob(self, x: Float[Array, " c"], given: Array | None = None) -> Float[Array, ""]:
        return jnp.sum(self.conditionals(x, given))

    def conditionals(self, x: Float[Array, " c"], given: Array | None = None) -> Float[Array, " c"]:
        """log p(x_j | earlier columns) of every column j, in the columns' own places.

        A NaN makes its own column and all later ones NaN, no earlier one.
        """
        missing = jnp.isnan(x)
        x, cells = self._valid(jnp.where(missing, 0.0, x))
        densities, probabilities, logits = self._laws(x, given)
        columns = self.columns
        found = [
            gaussian_log_prob(densities, x[_places(columns.continuous)]),
            logistic_log_prob(probabilities, cells, columns.least_scale(x.dtype)),
            category_log_prob(logits, x[_places(columns.categories)]),
        ]
        first = jnp.min(jnp.where(missing, self.positions, columns.dim))
        return jnp.where(self.positions >= first, jnp.nan, self._in_place(found))

    def leading_log_prob(
        self, x: Float[Array, " c"], known: int | Int[Array, ""], given: Array | None = None
    ) -> Float[Array, ""]:
        """The exact log p of the first ``known`` columns in the order, whatever (even NaN) the others hold."""
        return jnp.sum(jnp.where(self.positions < known, self.conditionals(x, given), 0.0))

    def sample(self, key: PRNGKeyArray, given: Array | None = None) -> Float[Array, " c"]:
        """One draw, column after column; each number is a valid value before later columns see it."""
        return self.continued(key, jnp.zeros(self.columns.dim, self.net.biases[0].dtype), 0, given)

    def continued(
        self, key: PRNGKeyArray, x: Float[Array, " c"], known: int | Int[Array, ""], given: Array | None = None
    ) -> Float[Array, " c"]:
        """A draw of the other columns given the first ``known`` in the order, whatever (even NaN) the others hold: exact."""
        dtype = self.net.biases[0].dtype
        columns = self.columns
        uniform = jax.random.uniform(key, (columns.dim, 2), dtype)
        start = jnp.where(self.positions < known, self._valid(jnp.where(jnp.isnan(x), 0.0, x))[0], 0.0)
        if _many_bits(columns):
            return self._sample_bits(uniform[:, 0], given, start, known)
        # Never 0 or 1: their quantiles are infinite.
        uniform = jnp.clip(uniform, jnp.finfo(dtype).eps / 4, 1 - jnp.finfo(dtype).eps / 2)
        least = columns.least_scale(dtype)

        def step(x: Array, position: Array) -> tuple[Array, None]:
            densities, probabilities, logits = self._laws(x, given)
            drawn = [
                gaussian_sample(densities, uniform[_places(columns.continuous)]),
                columns.snap(logistic_sample(probabilities, uniform[_places(columns.cells)], least)),
                softmax_sample(logits, uniform[_places(columns.categories)]),
            ]
            here = (self.positions == position) & (position >= known)
            return jnp.where(here, self._in_place(drawn), x), None

        order = jnp.arange(columns.dim, dtype=self.positions.dtype)
        return jax.lax.scan(step, start, order)[0]

    def _sample_bits(
        self, uniform: Array, given: Array | None = None, start: Array | None = None, leading: int | Array = 0
    ) -> Array:
        """One draw of a row of bits, in the ``leading`` columns those of ``start``. Each unit of the network is computed
        once, not at each column."""
        net, start = self.net, jnp.zeros_like(uniform) if start is None else start
        column, sizes = jnp.argsort(self.positions), (-(-len(net.hidden) // (self.columns.dim - 1)), 1)

        def step(carry: tuple[Array, tuple[Array, ...]], position: Array) -> tuple[Any, None]:
            x, known = carry
            known, _, logit = net.advanced(known, _features(self.columns, x, self.frequencies), position, sizes, given)
            j = column[position]
            bit = (uniform[j] >= jax.nn.sigmoid(-logit[0])).astype(x.dtype)
            return (x.at[j].set(jnp.where(position < leading, start[j], bit)), known), None

        order = jnp.arange(self.columns.dim, dtype=self.positions.dtype)
        return jax.lax.scan(step, (jnp.zeros_like(uniform), net.opened()), order)[0][0]

    def _valid(self, x: Array) -> tuple[Array, Cells]:
        """The row of valid values, and the cells of those that have one."""
        places = _places(self.columns.cells)
        cells = self.columns.cells_of(x[places])
        return x.at[places].set(cells.value), cells

    def _laws(self, x: Array, given: Array | None) -> tuple[Array, Array, Array]:
        """Parameters of all densities (·, 3, parts), of all laws with cells (·, 3, parts), and logits (·, levels)."""
        columns, parts = self.columns, self.parts
        out = self.net(_features(columns, x, self.frequencies), given)
        sizes = [3 * parts * len(columns.continuous), 3 * parts * len(columns.cells)]
        densities, probabilities, free = jnp.split(out, np.cumsum(sizes))
        return (
            densities.reshape(-1, 3, parts),
            probabilities.reshape(-1, 3, parts),
            spread_logits(columns.levels, free),
        )

    def _in_place(self, groups: Sequence[Array]) -> Array:
        """Values of continuous, cell and category columns, as one row."""
        columns = self.columns
        where = np.argsort([*columns.continuous, *columns.cells, *columns.categories])
        return jnp.concatenate(groups)[where]


def make_autoregressive(
    columns: Columns,
    generator: np.random.Generator,
    *,
    order: Sequence[int] | None = None,
    width: int = 128,
    depth: int = 2,
    parts: int = 16,
    frequencies: Sequence[float] = FREQUENCIES,
    given: int = 0,
) -> Autoregressive:
    """An untrained model of these columns, drawn from a NumPy generator.

    ``order`` lists the columns, first to last (as they are if None); ``width`` and ``depth`` are hidden units and residual
    blocks of the network, ``parts`` the parts of each mixture, ``given`` the size of the vector that the model is
    conditioned on. Of a number z the network sees z, and sin kz and cos kz for each k in ``frequencies``: with them laws
    with gaps and edges are learned better, without them few rows go further.

    Raises ValueError unless the order names each column once.

    >>> from mulligan.data.native import NativeCodec
    >>> from mulligan.data.codec import Part
    >>> from mulligan.data.table import Column, Schema
    >>> from mulligan.models.columns import columns_of
    >>> coin = Column("c", "binary", "text", levels=("heads", "tails"))
    >>> codec = NativeCodec(Schema((coin,)), (Part(0, 1),))
    >>> model = make_autoregressive(columns_of(codec), np.random.default_rng(0), width=4, depth=1)
    >>> round(float(jnp.exp(model.log_prob(jnp.zeros(1)))), 6)
    0.5
    """
    order = list(range(columns.dim)) if order is None else list(order)
    if sorted(order) != list(range(columns.dim)):
        raise ValueError(f"order is {order}; expected each of 0 to {columns.dim - 1} once")
    positions = np.argsort(order)
    numbers = [*columns.continuous, *columns.cells]
    outputs = [positions[j] for j in numbers for _ in range(3 * parts)]
    outputs += [positions[j] for j, k in zip(columns.categories, columns.levels) for _ in range(k - 1)]
    inputs = [positions[j] for j in _feature_columns(columns, len(frequencies))]
    net = make_masked_net(inputs, outputs, generator, width=width, depth=depth, given=given)
    start = np.zeros(len(outputs))
    start[: 3 * parts * len(numbers)] = np.tile(starting_raw(parts).reshape(-1), len(numbers))
    biases = (*net.biases[:-1], jnp.asarray(start, net.biases[-1].dtype))
    net = eqx.tree_at(lambda n: n.biases, net, biases)
    return Autoregressive(columns, net, jnp.asarray(positions, jnp.int32), parts, _floats(frequencies))


def _features(columns: Columns, x: Array, frequencies: Sequence[float]) -> Array:
    """What the network sees of a row: of a number itself and its sines and cosines, of a category which one it is."""
    z = jnp.clip(x[_places((*columns.continuous, *columns.cells))], -_FARTHEST, _FARTHEST)
    phases = (np.asarray(frequencies, x.dtype)[:, None] * z).reshape(-1)
    codes = jnp.rint(x[_places(columns.categories)])
    if _many_bits(columns):
        return codes
    which = [codes[i] == jnp.arange(k) for i, k in enumerate(columns.levels)]
    return jnp.concatenate([z, jnp.sin(phases), jnp.cos(phases), *(hot.astype(x.dtype) for hot in which)])


def _feature_columns(columns: Columns, frequencies: int) -> list[int]:
    """The column of each feature."""
    if _many_bits(columns):
        return list(columns.categories)
    numbers = [*columns.continuous, *columns.cells]
    return numbers * (1 + 2 * frequencies) + [j for j, k in zip(columns.categories, columns.levels) for _ in range(k)]


def _many_bits(columns: Columns) -> bool:
    """Whether a row is many bits: then the network sees its codes, which are half as many inputs."""
    return len(columns.categories) == columns.dim >= MANY_BITS and set(columns.levels) == {2}


def _places(columns: Sequence[int]) -> np.ndarray:
    return np.asarray(columns, np.int32)
