"""Which coordinates of a row have densities, which have cells, which are categories; and where the cells end.

Definition. A discrete value v owns a cell C_v of the real line, cells tile the line, and a law with distribution
function F gives it P(v) = F(upper edge) − F(lower edge), so Σ_v P(v) = 1 exactly. The edges are those of
``mulligan.data.codec``: half-way to the neighbours on the grid or among the atoms, the outermost value owns all as far as
the end of the transform's support, and a cap owns everything beyond it (the data were censored there; Tobin 1958).

Everything is counted in grid units u = (v − offset)/step from a grid point near the mean, so that float32 tells neighbours
apart, and the distances from a value to its edges come from log1p(±½/w), never from a difference of two large numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from mulligan.data.codec import Part, standardise
from mulligan.data.grid import has_cells, neighbours
from mulligan.data.native import NativeCodec, is_category
from mulligan.data.support import outside_support, support
from mulligan.data.table import Column

BEYOND = 1e6  # the distance to an edge at infinity, in units of z: finite, so that gradients are
_TRANSFORMS = ("none", "log", "logit")
_LARGEST_LOG = 80.0  # exp of it is still finite in float32


class Cells(NamedTuple):
    """Of each coordinate with cells: the valid z (c,), its distances to the lower and the upper edge of its cell (c,),
    and whether it has a cell (c,) bool (a continuous column has one at its caps only; elsewhere it has a density)."""

    value: Array
    below: Array
    above: Array
    inside: Array


class _Constants(NamedTuple):
    """Of each coordinate with cells (c,): t = scale·z + mean is w, log w or logit(w/ends) by ``transform`` (0, 1, 2), and
    u = w − shift. ``lowest`` and ``highest`` are the outermost grid points in the support; a cap is what is beyond its
    edge; ``atoms`` (c, A) are padded with inf. A continuous column with a cap is not ``gridded``, and its u is z.
    """

    gridded: Any
    transform: Any
    scale: Any
    mean: Any
    shift: Any
    ends: Any
    lowest: Any
    highest: Any
    low_cap: Any
    low_edge: Any
    high_cap: Any
    high_edge: Any
    least: Any
    atoms: Any


def _integers(numbers: Sequence[int]) -> tuple[int, ...]:
    """Also from the lists of a JSON file: static fields must be hashable."""
    return tuple(int(number) for number in numbers)


class Columns(eqx.Module):
    """The kinds of a row's coordinates and the cells of those that have cells; made by ``columns_of``.

    ``continuous``, ``cells`` and ``categories`` are the places of the coordinates of each kind, ``levels`` the number of
    levels of each category. ``bits`` (numbers, cells) and ``atom_bits`` (cells, atoms) are the constants of the cells: bit
    patterns of floats in integer arrays, so that no learner takes them for weights, and that columns of another scale
    share one compiled program.
    """

    continuous: tuple[int, ...] = eqx.field(static=True, converter=_integers)
    cells: tuple[int, ...] = eqx.field(static=True, converter=_integers)
    categories: tuple[int, ...] = eqx.field(static=True, converter=_integers)
    levels: tuple[int, ...] = eqx.field(static=True, converter=_integers)
    bits: Int[Array, "*m numbers cells"]
    atom_bits: Int[Array, "*m cells atoms"]

    @property
    def dim(self) -> int:
        """The number of columns."""
        return len(self.continuous) + len(self.cells) + len(self.categories)

    def cells_of(self, z: Float[Array, " cells"]) -> Cells:
        """The cells that hold z, one for each coordinate with cells. Constant in z almost everywhere: no gradient."""
        c = self._constants(z)
        # A value that is no number is put at 0 here; whoever asked for its log p must give NaN.
        u = self._snapped(c, jnp.clip(jax.lax.stop_gradient(jnp.where(jnp.isnan(z), 0.0, z)), -BEYOND, BEYOND))
        gridded = c.gridded > 0
        is_atom = jnp.any(u[:, None] == c.atoms, axis=1)
        low = jnp.where(is_atom, jnp.floor(u), u - 1)
        high = jnp.where(is_atom, jnp.ceil(u), u + 1)
        low = jnp.maximum(low, jnp.max(jnp.where(c.atoms < u[:, None], c.atoms, -jnp.inf), axis=1, initial=-jnp.inf))
        high = jnp.minimum(high, jnp.min(jnp.where(c.atoms > u[:, None], c.atoms, jnp.inf), axis=1, initial=jnp.inf))
        below, above = self._distances(c, u, (u - low) / 2, (high - u) / 2)
        low_cap, high_cap = u <= c.low_cap, u >= c.high_cap
        below = jnp.where(gridded, below, 0.0)
        above = jnp.where(gridded, above, 0.0)
        below = jnp.where(low_cap | (gridded & (low <= c.lowest - 1)), BEYOND, below)
        above = jnp.where(high_cap | (gridded & (high >= c.highest + 1)), BEYOND, above)
        inside = gridded | low_cap | high_cap
        # A density is taken at z itself; a cell's probability at the value whose cell it is.
        return Cells(jnp.where(inside, self._latent(c, u), z), below, above, inside)

    def interval(self, low: Float[Array, " cells"], high: Float[Array, " cells"]) -> Cells:
        """All cells of the values from ``low`` to ``high`` as one, ends at infinity included; a density where low = high
        has one. Distances are taken from an end that is finite."""
        first, last = self.cells_of(low), self.cells_of(high)
        down, up = jnp.isneginf(low), jnp.isposinf(high)
        value = jnp.where(down, last.value, first.value)
        length = jnp.where(down | up, 0.0, last.value - first.value)
        below, above = jnp.where(down, BEYOND, first.below), jnp.where(up, BEYOND, last.above + length)
        return Cells(value, below, above, jnp.where(low == high, first.inside, True))

    def snap(self, z: Float[Array, " cells"]) -> Float[Array, " cells"]:
        """The z of the value whose cell holds z; z itself where a column is continuous and z not beyond a cap."""
        return self.cells_of(z).value

    def least_scale(self, dtype: Any) -> Float[Array, " cells"]:
        """The least scale that a law on each coordinate needs: a small part of a cell, at most 1e-3."""
        return _floats(self.bits, dtype)[_Constants._fields.index("least")]

    def _constants(self, z: Array) -> _Constants:
        return _Constants(*(*_floats(self.bits, z.dtype), _floats(self.atom_bits, z.dtype)))

    def _snapped(self, c: _Constants, z: Array) -> Array:
        """u of the valid value."""
        t = z * c.scale + c.mean
        # Each transform sees its own columns only: exp of another one's t might overflow.
        w = jnp.where(c.transform == 1, jnp.exp(jnp.where(c.transform == 1, jnp.minimum(t, _LARGEST_LOG), 0.0)), t)
        w = jnp.where(c.transform == 2, c.ends * jax.nn.sigmoid(jnp.where(c.transform == 2, t, 0.0)), w)
        raw = w - c.shift
        u = jnp.clip(jnp.rint(raw), c.lowest, c.highest)
        u = jnp.where(c.gridded > 0, u, raw)
        for k in range(c.atoms.shape[1]):
            u = jnp.where(jnp.abs(raw - c.atoms[:, k]) < jnp.abs(raw - u), c.atoms[:, k], u)
        slack = 4 * jnp.finfo(z.dtype).eps  # a row at a cap may have been rounded to the precision of z
        u = jnp.where(raw >= c.high_edge - slack * jnp.maximum(jnp.abs(c.high_edge), 1), c.high_cap, u)
        return jnp.where(raw <= c.low_edge + slack * jnp.maximum(jnp.abs(c.low_edge), 1), c.low_cap, u)

    def _latent(self, c: _Constants, u: Array) -> Array:
        """z of a valid u."""
        w = u + c.shift
        log_w = jnp.log(jnp.where(c.transform > 0, w, 1.0))
        rest = jnp.log(jnp.where(c.transform == 2, c.ends - w, 1.0))
        t = jnp.where(c.transform > 0, log_w - rest, w)
        return (t - c.mean) / c.scale

    def _distances(self, c: _Constants, u: Array, low: Array, high: Array) -> tuple[Array, Array]:
        """From half gaps ``low`` and ``high`` in u to distances in z."""
        w = jnp.where(c.transform > 0, u + c.shift, 1e3)
        rest = jnp.where(c.transform == 2, c.ends - w, jnp.inf)

        def moved(by: Array) -> Array:
            """log(w + by) − log(w), and for logit − log(rest − by) + log(rest)."""
            inner = jnp.maximum(by / w, -0.999)
            return jnp.log1p(inner) - jnp.log1p(jnp.maximum(-by / rest, -0.999))

        below = jnp.where(c.transform > 0, -moved(-low), low)
        above = jnp.where(c.transform > 0, moved(high), high)
        return below / c.scale, above / c.scale


def columns_of(codec: NativeCodec) -> Columns:
    """The kinds and cells of a codec's coordinates.

    >>> from mulligan.data.table import Schema
    >>> counts = Column("i", "integer", "integer", step=1.0)
    >>> columns = columns_of(NativeCodec(Schema((counts,)), (Part(0, 1, mean=2.0, scale=0.5),)))
    >>> columns.snap(jnp.array([2.2])).tolist(), columns.cells_of(jnp.array([2.0])).above.tolist()
    ([2.0], [1.0])
    """
    entries = list(zip(codec.schema.modelled, codec.parts))
    categories = tuple(j for j, (column, _) in enumerate(entries) if is_category(column))
    cells = tuple(j for j, (column, _) in enumerate(entries) if j not in categories and has_cells(column))
    continuous = tuple(j for j in range(len(entries)) if j not in categories and j not in cells)
    levels = tuple(len(entries[j][0].levels) for j in categories)
    found = [_constants_of(*entries[j]) for j in cells]
    most = max((len(c.atoms) for c in found), default=0)
    atoms = [[*c.atoms, *[np.inf] * (most - len(c.atoms))] for c in found]
    numbers = np.array([c[:-1] for c in found], np.float64).reshape(len(cells), len(_Constants._fields) - 1).T
    return Columns(
        continuous, cells, categories, levels, _bits(numbers), _bits(np.array(atoms).reshape(len(cells), most))
    )


def _constants_of(column: Column, part: Part) -> _Constants:
    """The constants of one column, by float64 arithmetic."""
    caps = (column.low_cap, column.high_cap)
    if not column.step:
        low, high = (None if cap is None else float(_transformed(column, part, cap)) for cap in caps)
        low, high = -np.inf if low is None else low, np.inf if high is None else high
        return _Constants(0, 0, 1, 0, 0, 1, -np.inf, np.inf, low, low, high, high, 1e-3, ())
    step, transform = column.step, _TRANSFORMS.index(column.transform)
    offset, lowest, highest = column.offset, -np.inf, np.inf
    if transform:
        scale, mean = part.scale, part.mean - (np.log(step) if transform == 1 else 0.0)
        offset -= np.floor(offset / step + 1e-9) * step
        lowest, highest = _outermost(column, offset)
        shift, ends = offset / step + 0.5, 1 / step + 1
        spread = np.exp(-part.mean) * step if transform == 1 else 4 * step
    else:
        centre = (part.mean - column.offset) / step
        offset += np.rint(centre) * step
        scale, mean = part.scale / step, centre - np.rint(centre)
        shift, ends, spread = 0.0, 1.0, step

    def place(v: float) -> float:
        u = (v - offset) / step
        return float(np.rint(u)) if abs(u - np.rint(u)) < 1e-6 else float(u)

    def cap_and_edge(cap: float | None, side: int, none: float) -> tuple[float, float]:
        if cap is None:
            return none, none
        return place(cap), (cap + float(neighbours(column, np.array([cap]))[side][0]) - 2 * offset) / (2 * step)

    low_cap, low_edge = cap_and_edge(column.low_cap, 1, -np.inf)
    high_cap, high_edge = cap_and_edge(column.high_cap, 0, np.inf)
    least = float(np.clip(0.1 * spread / part.scale, 1e-5, 1e-3))
    atoms = tuple(sorted(place(atom) for atom in column.atoms))
    return _Constants(
        1, transform, scale, mean, shift, ends, lowest, highest, low_cap, low_edge, high_cap, high_edge, least, atoms
    )


def _outermost(column: Column, offset: float) -> tuple[float, float]:
    """The first and the last grid point inside the support, in steps from ``offset``."""
    step = column.step or 1.0
    found = []
    for end, towards in zip(support(column), (1, -1)):
        near = np.rint((end - offset) / step) + towards * np.arange(-2, 4) if np.isfinite(end) else np.zeros(0)
        allowed = near[~outside_support(column, offset + near * step)]
        found.append(float(allowed[0]) if len(allowed) else -towards * np.inf)
    return found[0], found[1]


def _transformed(column: Column, part: Part, value: float) -> np.ndarray:
    return standardise(column, part, np.array([value]))[0][0]


def _bits(numbers: np.ndarray) -> Array:
    """Floats of JAX's default precision as integers with the same bits."""
    floats = np.ascontiguousarray(numbers, jnp.zeros(0).dtype)
    return jnp.asarray(floats.view({4: np.int32, 8: np.int64}[floats.itemsize]))


def _floats(bits: Array, dtype: Any) -> Array:
    return jax.lax.bitcast_convert_type(bits, {4: jnp.float32, 8: jnp.float64}[bits.dtype.itemsize]).astype(dtype)
