"""The laws by name, and tables drawn from them.

The names are those of ``mulligan.catalog.LAWS`` (a test holds the two together). A table drawn from a law is the same
for the same ``data_seed``, and a longer one begins with the rows of a shorter one.
"""

from __future__ import annotations

from collections.abc import Callable
from difflib import get_close_matches

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from mulligan.data.table import Column, ColumnKind, Schema, Source, Table
from mulligan.errors import UsageError
from mulligan.loop import SOUND_PROGRAM
from mulligan.targets.curves import NoisyCurve, Rings
from mulligan.targets.discrete import Enumerated, Ising, Potts, RestrictedBoltzmann
from mulligan.targets.known import KnownLaw
from mulligan.targets.shapes import Checkerboard, Funnel, GaussianHoles, Pinwheel, Sheared
from mulligan.targets.wells import DoubleWell

# Rows are drawn in blocks of one size, so that a law is compiled once whatever the number of rows.
_BLOCK = 10_000


def _boltzmann_6x4() -> RestrictedBoltzmann:
    # PCG64 with a fixed seed: the same weights on every machine and version of JAX.
    rng = np.random.Generator(np.random.PCG64(64))
    return RestrictedBoltzmann(rng.normal(size=(6, 4)), 0.5 * rng.normal(size=6), 0.5 * rng.normal(size=4))


_LAWS: dict[str, Callable[[], KnownLaw]] = {
    "eight-gaussians": lambda: GaussianHoles.ring(8, radius=2.0, sd=0.2),
    "grid-gaussians": lambda: GaussianHoles.grid(5, spacing=2.0, sd=0.05),
    "moons": NoisyCurve.moons,
    "circles": lambda: Rings(jnp.array([3.0, 1.5]), jnp.array(0.24)),
    "rings": lambda: Rings(jnp.array([3.0, 2.25, 1.5, 0.75]), jnp.array(0.08)),
    "checkerboard": Checkerboard,
    "spirals": NoisyCurve.spirals,
    "pinwheel": Pinwheel,
    "banana": Sheared.banana,
    "funnel": Funnel,
    "double-well": DoubleWell,
    "rosenbrock": Sheared.rosenbrock,
    "ising-3x3": lambda: Ising((3, 3), beta=0.44),
    "potts-2x3": lambda: Potts((2, 3), q=3, beta=0.5),
    "rbm-6x4": _boltzmann_6x4,
}


def law_names() -> tuple[str, ...]:
    """The names that ``law`` knows."""
    return tuple(_LAWS)


def law(name: str) -> KnownLaw:
    """The law of that name.

    Raises UsageError for an unknown one, with the nearest.

    >>> law("banana").dim
    2
    """
    if name not in _LAWS:
        near = get_close_matches(name, _LAWS, n=1)
        raise UsageError(f"there is no law {name!r}", "", f"known: {', '.join(_LAWS)}", near[0] if near else "moons")
    return _LAWS[name]()


def draw_rows(name: str, rows: int, data_seed: int = 0) -> np.ndarray:
    """Rows (rows, d) drawn from the law in float32 and returned as float64; row i depends on (data_seed, i) only."""
    if rows < 1:
        raise UsageError(f"rows = {rows}", "", "a table has at least one row", "--rows 10000")
    with jax.enable_x64(False):
        source, key = law(name), jax.random.key(data_seed)
        blocks = [
            np.asarray(_draw(source, key, jnp.arange(start, start + _BLOCK, dtype=jnp.uint32)), np.float64)
            for start in range(0, rows, _BLOCK)
        ]
    return np.concatenate(blocks)[:rows]


def _sample_rows(source: KnownLaw, key: Array, index: Array) -> Array:
    return jax.vmap(lambda i: source.sample(jax.random.fold_in(key, i)))(index)


_draw = eqx.filter_jit(_sample_rows, compiler_options=SOUND_PROGRAM)  # type: ignore[call-overload]


def draw_table(name: str, rows: int = 10_000, data_seed: int = 0) -> Table:
    """A table of independent draws from a named law.

    Columns are x1 … xd (continuous) for laws with a density, s1 … sn (binary or categorical) for lattices.
    ``treated_as_iid`` is True: equal rows are chance. Raises UsageError for an unknown name or rows < 1.

    >>> draw_table("ising-3x3", rows=5).names[:2]
    ('s1', 's2')
    """
    values, source = draw_rows(name, rows, data_seed), law(name)
    if isinstance(source, Enumerated):
        columns = tuple(_category(f"s{i + 1}", source.levels) for i in range(source.dim))
    else:
        columns = tuple(_number(f"x{i + 1}", values[:, i]) for i in range(source.dim))
    note = f"{rows:,} independent draws from the law {name!r} with data seed {data_seed}"
    return Table(Schema(columns), values, Source(name, law=name), notes=(note,), treated_as_iid=True)


def _category(name: str, levels: int) -> Column:
    kind: ColumnKind = "binary" if levels == 2 else "categorical"
    names = tuple(str(level) for level in range(levels))
    return Column(name, kind, output="integer", minimum=0.0, maximum=float(levels - 1), levels=names)


def _number(name: str, values: np.ndarray) -> Column:
    return Column(name, "continuous", minimum=float(values.min()), maximum=float(values.max()))
