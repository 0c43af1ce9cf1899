"""Positions as pytrees with bounds: a space of flat, unbounded z that samplers walk in, and the way back.

Definition. Each coordinate x of a pytree is a smooth increasing or decreasing function of z in R: x = z; x = low + eᶻ;
x = high − eᶻ; x = low + (high − low)/(1 + e⁻ᶻ). A density p(x) becomes p(x(z)) |dx/dz|, whose draws, carried back, follow p.
Theory: chapter 10, ``relation.flow`` (change of variables). Stan Development Team (2024), chapter 10.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from mulligan.errors import UsageError

Bound = Any  # a number, an array that broadcasts to the leaf, or None for no bound
Bounds = tuple[Bound, Bound] | Mapping[str, tuple[Bound, Bound]] | None


class Space(eqx.Module):
    """Pytrees of numbers with bounds ↔ z (d,) in R^d. Made by ``space``.

    ``low`` and ``high`` (d,) are the bounds, infinite where there is none; ``names`` of the coordinates in the order of z.

    >>> there = space({"mu": 0.0, "tau": 1.0, "theta": np.zeros(2)}, {"tau": (0, None)})
    >>> there.dim, there.names
    (4, ('mu', 'tau', 'theta[0]', 'theta[1]'))
    >>> {name: value.tolist() for name, value in there.constrain(jnp.zeros(4)).items()}
    {'mu': 0.0, 'tau': 1.0, 'theta': [0.0, 0.0]}
    """

    low: Float[Array, " d"]
    high: Float[Array, " d"]
    names: tuple[str, ...] = eqx.field(static=True)
    shapes: tuple[tuple[int, ...], ...] = eqx.field(static=True)
    structure: Any = eqx.field(static=True)

    @property
    def dim(self) -> int:
        """d, the number of coordinates."""
        return len(self.names)

    def constrain(self, z: Float[Array, " d"]) -> Any:
        """The pytree at z. Far out (z > 17 in float32) a coordinate rounds to its bound."""
        return self.tree(self.coordinates(z))

    def coordinates(self, z: Float[Array, " d"]) -> Float[Array, " d"]:
        """The numbers of the pytree at z, flat, in the order of ``names``."""
        below, above, low, high = self._sides(z.dtype)
        # z is taken out of the branches that are not its own: their overflow would make the gradient NaN
        grown = jnp.exp(jnp.where(below ^ above, z, 0.0))
        within = low + (high - low) * jax.nn.sigmoid(jnp.where(below & above, z, 0.0))
        one_side = jnp.where(below, low + grown, high - grown)
        return jnp.where(below & above, within, jnp.where(below | above, one_side, z))

    def unconstrain(self, tree: Any) -> Float[Array, " d"]:
        """The z of a pytree; NaN or infinite on the bounds and beyond. Raises UsageError for another structure."""
        leaves, structure = jax.tree.flatten(tree)
        shapes = tuple(np.shape(leaf) for leaf in leaves)
        if structure != self.structure or shapes != self.shapes:
            raise UsageError(
                f"this position has shapes {shapes} in {structure}",
                why=f"The space was made for {self.shapes} in {self.structure}",
                do="give positions like the example",
            )
        x = jnp.concatenate([jnp.ravel(jnp.asarray(leaf, float)) for leaf in leaves])
        below, above, low, high = self._sides(x.dtype)
        over, under = jnp.log(x - low), jnp.log(high - x)
        return jnp.where(below & above, over - under, jnp.where(below, over, jnp.where(above, under, x)))

    def log_jacobian(self, z: Float[Array, " d"]) -> Float[Array, ""]:
        """log |det dx/dz|, a sum over coordinates."""
        below, above, low, high = self._sides(z.dtype)
        inside = jnp.log(high - low) + jax.nn.log_sigmoid(z) + jax.nn.log_sigmoid(-z)
        return jnp.sum(jnp.where(below & above, inside, jnp.where(below | above, z, 0.0)))

    def lift(self, log_density: Callable[[Any], Array]) -> Lifted:
        """The log density of z that belongs to a log density of the pytree."""
        return Lifted(self, log_density)

    def tree(self, x: Float[Array, " d"]) -> Any:
        """Flat coordinates x (d,), or (…, d) for many, as the pytree."""
        ends = np.cumsum([math.prod(shape) for shape in self.shapes])[:-1]
        pieces = jnp.split(x, ends, axis=-1)
        leaves = [piece.reshape(*x.shape[:-1], *shape) for piece, shape in zip(pieces, self.shapes)]
        return jax.tree.unflatten(self.structure, leaves)

    def _sides(self, dtype: Any) -> tuple[Array, Array, Array, Array]:
        """Whether there is a bound below, above; and the bounds, 0 and 1 in place of infinite ones."""
        below, above = jnp.isfinite(self.low), jnp.isfinite(self.high)
        low, high = jnp.where(below, self.low, 0.0), jnp.where(above, self.high, 1.0)
        return below, above, low.astype(dtype), jnp.where(above, high, low + 1).astype(dtype)


class Lifted(eqx.Module):
    """z ↦ log p(x(z)) + log |det dx/dz|.

    >>> f = space({"tau": 1.0}, {"tau": (0, None)}).lift(lambda x: -x["tau"])
    >>> float(f(jnp.zeros(1)))
    -1.0
    """

    space: Space
    log_density: Callable[[Any], Array]

    def __call__(self, z: Float[Array, " d"]) -> Float[Array, ""]:
        return self.log_density(self.space.constrain(z)) + self.space.log_jacobian(z)


def space(example: Any, bounds: Bounds = None) -> Space:
    """The space of positions like ``example`` (a number, an array, or a pytree of them: only its shapes count).

    ``bounds`` is (low, high) for all leaves, or a mapping from a leaf's name (as in ``names``, without the index) to its
    (low, high); numbers or arrays like the leaf, None for no bound. Leaves that are not named are unbounded.

    Raises UsageError for an empty example, a name that is not there, and bounds that leave no room.

    >>> space(np.zeros(2), (0, 1)).names
    ('x[0]', 'x[1]')
    """
    paths, structure = jax.tree_util.tree_flatten_with_path(example)
    labels = [jax.tree_util.keystr(path, simple=True, separator=".") or "x" for path, _ in paths]
    shapes = [np.shape(leaf) for _, leaf in paths]
    if not sum(math.prod(shape) for shape in shapes):
        raise UsageError("the example has no numbers", do="give an array or a pytree of arrays, such as np.zeros(2)")
    given = bounds if isinstance(bounds, Mapping) else dict.fromkeys(labels, bounds or (None, None))
    unknown = sorted(set(given) - set(labels))
    if unknown:
        raise UsageError(f"there is no {unknown[0]!r} to bound", f"names: {', '.join(labels)}", do="correct the name")
    names, sides = [], []
    for label, shape in zip(labels, shapes):
        low, high = given.get(label, (None, None))
        low, high = (-np.inf if low is None else low), (np.inf if high is None else high)
        pair = [np.broadcast_to(np.asarray(side, float), shape).ravel() for side in (low, high)]
        if not np.all(pair[0] < pair[1]):
            raise UsageError(f"the bounds of {label!r} leave no room", f"low {low}, high {high}", do="low < high")
        sides.append(np.stack(pair))
        names += [label + "".join(f"[{','.join(map(str, i))}]" for i in [index] if i) for index in np.ndindex(shape)]
    low, high = np.concatenate(sides, axis=1)
    return Space(jnp.asarray(low), jnp.asarray(high), tuple(names), tuple(shapes), structure)
