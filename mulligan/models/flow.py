"""Normalising flow: an invertible map to a standard normal, made of rational-quadratic splines and learned linear mixing.

Definition. z = g_L(… g_1(x)), z ~ N(0, I), so log p(x) = log N(z; 0, I) + Σ_l log |det ∂g_l| (Rezende and Mohamed 2015;
identity ``relation.flow``). A layer first mixes, x ← P L U x + b with a fixed permutation P, L unit lower and U upper
triangular with a positive diagonal (log-determinant Σ log U_ii; Kingma and Dhariwal 2018), then keeps the first half of
the coordinates and sends each of the others through its own spline, whose knots a network computes from the kept half
(and from ``given``): Durkan, Bekasov, Murray and Papamakarios 2019. In the autoregressive form (``AutoregressiveLayer``)
nothing is kept: the spline of coordinate j is made from coordinates 1 … j−1 by a masked network (Papamakarios, Pavlakou
and Murray 2017), which scores in one pass and samples in d.

The layers have one structure, so they are stacked and scanned: compile time does not grow with depth.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from mulligan.core import Density, Sampler
from mulligan.nets.masked import MaskedNet, make_masked_net
from mulligan.nets.mlp import make_mlp
from mulligan.nets.spline import inverse_spline, parameter_count, spline

Network = Callable[[Array], Array]  # a module whose arrays are its parameters, from one vector to one vector
MakeNetwork = Callable[[int, int, np.random.Generator], Network]  # of (inputs, outputs, generator)


class Mixing(eqx.Module):
    """x to P L U x + b, with log-determinant Σ log U_ii.

    ``triangles`` (d, d) holds L below and U above the diagonal, ``log_diagonal`` (d,) is log U_ii, ``shift`` (d,) is b and
    ``order`` (d,) the permutation, which is not learned. In a flow every array has a leading axis of layers.
    """

    triangles: Float[Array, "*l d d"]
    log_diagonal: Float[Array, "*l d"]
    shift: Float[Array, "*l d"]
    order: Int[Array, "*l d"]

    def forward(self, x: Float[Array, " d"]) -> tuple[Array, Array]:
        """P L U x + b and the log-determinant."""
        matrix = (self._lower() @ self._upper())[self.order]  # one product for a whole batch
        return x @ matrix.T + self.shift, jnp.sum(self.log_diagonal)

    def inverse(self, z: Float[Array, " d"]) -> tuple[Array, Array]:
        """The x that is mapped to z, and the log-determinant of this direction."""
        x = jnp.zeros_like(z).at[self.order].set(z - self.shift)
        x = jax.scipy.linalg.solve_triangular(self._lower(), x, lower=True, unit_diagonal=True)
        x = jax.scipy.linalg.solve_triangular(self._upper(), x, lower=False)
        return x, -jnp.sum(self.log_diagonal)

    def _lower(self) -> Array:
        return jnp.tril(self.triangles, -1) + jnp.eye(self.triangles.shape[-1], dtype=self.triangles.dtype)

    def _upper(self) -> Array:
        return jnp.triu(self.triangles, 1) + jnp.diag(jnp.exp(self.log_diagonal))


class CouplingLayer(eqx.Module):
    """Mix, keep the first half, move the second by splines whose knots come from the kept half."""

    mixing: Mixing
    conditioner: Network

    def forward(self, x: Array, given: Array | None, bound: float, bins: int) -> tuple[Array, Array]:
        """x to z, with the log-determinant."""
        x, log_det = self.mixing.forward(x)
        kept = x[: x.shape[0] // 2]
        moved, log_slopes = self._move(spline, kept, x[x.shape[0] // 2 :], given, bound, bins)
        return jnp.concatenate([kept, moved]), log_det + jnp.sum(log_slopes)

    def inverse(self, z: Array, given: Array | None, bound: float, bins: int) -> tuple[Array, Array]:
        """z to x, with the log-determinant of this direction."""
        kept = z[: z.shape[0] // 2]
        moved, log_slopes = self._move(inverse_spline, kept, z[z.shape[0] // 2 :], given, bound, bins)
        x, log_det = self.mixing.inverse(jnp.concatenate([kept, moved]))
        return x, log_det + jnp.sum(log_slopes)

    def _move(
        self,
        function: Callable[..., Any],
        kept: Array,
        moved: Array,
        given: Array | None,
        bound: float,
        bins: int,
    ) -> tuple[Array, Array]:
        known = kept if given is None else jnp.concatenate([kept, given])
        free = self.conditioner(known).reshape(parameter_count(bins), moved.shape[0])
        return function(free, moved, bound)


class AutoregressiveLayer(eqx.Module):
    """Mix, then move every coordinate by a spline whose knots come from the coordinates before it, by a masked network."""

    mixing: Mixing
    conditioner: MaskedNet

    def forward(self, x: Array, given: Array | None, bound: float, bins: int) -> tuple[Array, Array]:
        """x to z in one pass, with the log-determinant (the Jacobian is triangular)."""
        x, log_det = self.mixing.forward(x)
        z, log_slopes = spline(self._free(x, given, bins), x, bound)
        return z, log_det + jnp.sum(log_slopes)

    def inverse(self, z: Array, given: Array | None, bound: float, bins: int) -> tuple[Array, Array]:
        """z to x, one coordinate a pass: pass j sees the j coordinates before it as they will be."""

        def one(_: Array, carry: tuple[Array, Array]) -> tuple[Array, Array]:
            x, log_slopes = inverse_spline(self._free(carry[0], given, bins), z, bound)
            return x, log_slopes

        # After pass j the first j + 1 coordinates no longer change, so after all of them none does.
        x, log_slopes = jax.lax.fori_loop(0, z.shape[0], one, (jnp.zeros_like(z), jnp.zeros_like(z)))
        x, log_det = self.mixing.inverse(x)
        return x, log_det + jnp.sum(log_slopes)

    def _free(self, x: Array, given: Array | None, bins: int) -> Array:
        return self.conditioner(x, given).reshape(x.shape[0], parameter_count(bins)).T


class Flow(Sampler, Density):
    """log p(x) = log N(z(x); 0, I) + log |det ∂z/∂x|, exact; x is a vector (d,), ``given`` None or (g,).

    ``layers`` is one layer whose arrays are stacked over layers; splines act on [−``bound``, ``bound``] with ``bins``
    bins. Made by ``make_flow``.

    >>> import numpy as np
    >>> flow = make_flow(2, np.random.default_rng(0), layers=2, width=8)
    >>> flow.log_prob(jnp.zeros(2)).shape
    ()
    """

    kind: ClassVar[Literal["exact", "numeric"]] = "exact"
    layers: CouplingLayer | AutoregressiveLayer
    bound: float = eqx.field(static=True)
    bins: int = eqx.field(static=True)

    def to_latent(self, x: Float[Array, " d"], given: Array | None = None) -> tuple[Array, Array]:
        """z and log |det ∂z/∂x|."""

        arrays, fixed = eqx.partition(self.layers, eqx.is_array)  # a network of one's own may hold a function, too

        def one(carry: tuple[Array, Array], layer: Any) -> tuple[tuple[Array, Array], None]:
            z, log_det = eqx.combine(layer, fixed).forward(carry[0], given, self.bound, self.bins)
            return (z, carry[1] + log_det), None

        (z, total), _ = jax.lax.scan(one, (x, jnp.zeros((), x.dtype)), arrays)
        return z, total

    def from_latent(self, z: Float[Array, " d"], given: Array | None = None) -> tuple[Array, Array]:
        """x and log |det ∂x/∂z|."""

        arrays, fixed = eqx.partition(self.layers, eqx.is_array)

        def one(carry: tuple[Array, Array], layer: Any) -> tuple[tuple[Array, Array], None]:
            x, log_det = eqx.combine(layer, fixed).inverse(carry[0], given, self.bound, self.bins)
            return (x, carry[1] + log_det), None

        (x, total), _ = jax.lax.scan(one, (z, jnp.zeros((), z.dtype)), arrays, reverse=True)
        return x, total

    def log_prob(self, x: Float[Array, " d"], given: Array | None = None) -> Float[Array, ""]:
        z, log_det = self.to_latent(x, given)
        return -0.5 * (z @ z) - 0.5 * z.shape[0] * np.log(2 * np.pi) + log_det

    def sample(self, key: PRNGKeyArray, given: Array | None = None) -> Float[Array, " d"]:
        shift = self.layers.mixing.shift
        return self.from_latent(jax.random.normal(key, shift.shape[-1:], shift.dtype), given)[0]


def make_flow(
    dim: int,
    generator: np.random.Generator,
    *,
    layers: int = 6,
    width: int = 64,
    depth: int = 2,
    bins: int = 8,
    bound: float = 5.0,
    given: int = 0,
    autoregressive: bool = False,
    network: MakeNetwork | None = None,
) -> Flow:
    """A flow on R^dim that starts as a permutation: every spline is (nearly) the identity, every L and U the unit matrix.

    ``width`` and ``depth`` are of the conditioning networks (hidden layers; residual blocks if ``autoregressive``),
    ``given`` is the number of coordinates conditioned on. ``network(inputs, outputs, generator)`` makes a conditioning
    network in place of the library's: a module that maps a vector (inputs,) to a vector (outputs,), of one structure
    for all layers; where its outputs are near 0 the flow still starts near a permutation. Raises ValueError for
    dim < 1, for a network that makes another shape, and for a network in an autoregressive flow, which needs masks.

    >>> flow = make_flow(2, np.random.default_rng(0), network=lambda i, o, generator: make_mlp([i, 5, o], generator))
    >>> flow.layers.conditioner.weights[0].shape
    (6, 5, 1)
    """
    if dim < 1:
        raise ValueError(f"dim is {dim}; expected at least 1")
    if network is not None and autoregressive:
        raise ValueError("network is given with autoregressive=True: the mask of that form is its own; leave one out")
    kept, moved = dim // 2, dim - dim // 2
    sizes = [kept + given, *[width] * depth, moved * parameter_count(bins)]
    made: list[Any] = []
    for _ in range(layers):
        mixing = _mixing(dim, generator)
        if autoregressive:
            outputs = np.repeat(np.arange(dim), parameter_count(bins)).tolist()
            net = make_masked_net(range(dim), outputs, generator, width=width, depth=depth, given=given)
            made.append(AutoregressiveLayer(mixing, net))
        else:
            own = None if network is None else _checked(network(sizes[0], sizes[-1], generator), sizes[0], sizes[-1])
            made.append(CouplingLayer(mixing, own or make_mlp(sizes, generator, zero_last=True)))
    return Flow(stack(made), float(bound), int(bins))


def stack(layers: list[Any]) -> Any:
    """Modules of one structure as one module whose arrays have a leading axis; what is no array is the first one's."""
    return jax.tree.map(
        lambda *leaves: jnp.asarray(np.stack(leaves)) if hasattr(leaves[0], "shape") else leaves[0], *layers
    )


def _checked(network: Network, inputs: int, outputs: int) -> Network:
    shape = jax.eval_shape(network, jax.ShapeDtypeStruct((inputs,), jnp.zeros(0).dtype)).shape
    if shape != (outputs,):
        raise ValueError(f"network({inputs}, {outputs}, generator) made one whose output has shape {shape}")
    return network


def _mixing(dim: int, generator: np.random.Generator) -> Mixing:
    # Two or three coordinates: the halves must change places every time. More: a random order mixes faster.
    order = np.arange(dim)[::-1] if dim <= 3 else generator.permutation(dim)
    zeros = np.zeros((dim, dim), np.float32)
    return Mixing(*map(jnp.asarray, (zeros, zeros[0], zeros[0], order.astype(np.int32))))
