"""Masked autoencoder for distribution estimation: outputs of a column depend on earlier columns only, exactly.

Definition (Germain, Gregor, Murray and Larochelle 2015). Each input and output belongs to a position 0 … c−1 in the order
of columns, and each hidden unit has a degree m: it may see inputs at positions below m and hidden units of degree at most
m, and is seen by outputs at positions from m on. So an output at position p depends on inputs at positions below p.
Weights that this forbids are set to 0: the Jacobian is exactly 0 there. Hidden layers are residual blocks (He et al. 2016)
h + W₂ silu(W₁ silu(h) + b₁) + b₂, and inputs reach the outputs by a masked linear map of their own, too.
"""

from __future__ import annotations

from collections.abc import Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int


class MaskedNet(eqx.Module):
    """Inputs (in,) and what they are given (g,) to outputs (out,); ``make_masked_net`` makes it.

    ``weights`` are the input's (width, in), two of each block (width, width), the output's (out, width) and the
    direct one's (out, in), with a bias for all but the last; ``given_weights`` (width, g) enters the first layer.
    ``inputs`` and ``outputs`` are positions in the order, ``hidden`` the degrees: integers, so that they are not learned.
    """

    weights: tuple[Float[Array, "to from"], ...]
    biases: tuple[Float[Array, " to"], ...]
    given_weights: Float[Array, "*m width g"]
    inputs: Int[Array, "*m in"]
    hidden: Int[Array, "*m width"]
    outputs: Int[Array, "*m out"]

    def __call__(self, x: Float[Array, " in"], given: Float[Array, " g"] | None = None) -> Float[Array, " out"]:
        first = self.hidden[:, None] > self.inputs
        inner = self.hidden[:, None] >= self.hidden
        last = self.outputs[:, None] >= self.hidden
        direct = self.outputs[:, None] > self.inputs
        # Vectors stand before the matrices: in this order a batch under vmap is not transposed.
        h = x @ _masked(self.weights[0], first).T + self.biases[0]
        if given is not None:
            h = h + self.given_weights @ given
        for i in range(1, len(self.weights) - 2, 2):
            step = jax.nn.silu(h) @ _masked(self.weights[i], inner).T + self.biases[i]
            h = h + jax.nn.silu(step) @ _masked(self.weights[i + 1], inner).T + self.biases[i + 1]
        straight = x @ _masked(self.weights[-1], direct).T
        return jax.nn.silu(h) @ _masked(self.weights[-2], last).T + self.biases[-1] + straight

    def opened(self) -> tuple[Array, ...]:
        """Activations of all layers before any input is known: zeros, for ``advanced``."""
        return tuple(jnp.zeros_like(self.biases[0]) for _ in range(len(self.weights) - 2))

    def advanced(
        self,
        known: tuple[Array, ...],
        x: Float[Array, " in"],
        position: Int[Array, ""],
        sizes: tuple[int, int],
        given: Float[Array, " g"] | None = None,
    ) -> tuple[tuple[Array, ...], Int[Array, " size"], Float[Array, " size"]]:
        """One position further: the activations with those of the units of this degree, and the position's outputs.

        ``sizes`` are the greatest numbers of hidden units and of outputs at one position. Outputs come with their places
        (the number of outputs where there are fewer). All positions one after the other cost what one call costs.
        """
        units = jnp.nonzero(self.hidden == position, size=sizes[0], fill_value=len(self.hidden))[0]
        places = jnp.nonzero(self.outputs == position, size=sizes[1], fill_value=len(self.outputs))[0]
        seen = jnp.where(self.inputs < position, x, 0.0)
        layers = list(known)
        h = self.weights[0][units] @ seen + self.biases[0][units]
        if given is not None:
            h = h + self.given_weights[units] @ given
        layers[0] = layers[0].at[units].set(jax.nn.silu(h), mode="drop")
        for i in range(1, len(self.weights) - 2, 2):
            # Units of higher degrees are still 0 in ``layers``, so no mask is needed.
            step = self.weights[i][units] @ layers[i - 1] + self.biases[i][units]
            layers[i] = layers[i].at[units].set(jax.nn.silu(step), mode="drop")
            h = h + self.weights[i + 1][units] @ layers[i] + self.biases[i + 1][units]
            layers[i + 1] = layers[i + 1].at[units].set(jax.nn.silu(h), mode="drop")
        out = self.weights[-2][places] @ layers[-1] + self.biases[-1][places] + self.weights[-1][places] @ seen
        return tuple(layers), places, out


def make_masked_net(
    inputs: Sequence[int],
    outputs: Sequence[int],
    generator: np.random.Generator,
    *,
    width: int,
    depth: int,
    given: int = 0,
) -> MaskedNet:
    """A masked net for inputs and outputs at these positions, drawn from a NumPy generator.

    ``width`` is the number of hidden units, ``depth`` that of residual blocks, ``given`` the size of what the net is
    given. Weights are uniform with variance 1/fan-in of what the mask leaves; the output's start near 0.

    >>> net = make_masked_net([0, 1], [0, 1], np.random.default_rng(0), width=8, depth=1)
    >>> jacobian = jax.jacobian(net)(jnp.ones(2))
    >>> (jacobian == 0).tolist()
    [[True, True], [False, True]]
    """
    seen, made = np.asarray(inputs, np.int32), np.asarray(outputs, np.int32)
    greatest = int(made.max(initial=0))
    # Degree 0 sees nothing but what is given; without that it would be a bias.
    least = 0 if given or greatest == 0 else 1
    degrees = greatest - least + 1
    # Fewer units than degrees are spread over all of them: the first ones alone would see the first columns only.
    hidden = least + (np.arange(width) % degrees if width >= degrees else np.arange(width) * degrees // width)

    def drawn(mask: np.ndarray, size: float = 1.0) -> np.ndarray:
        fan_in = np.maximum(mask.sum(1, keepdims=True), 1)
        return mask * generator.uniform(-1, 1, mask.shape) * size * np.sqrt(3 / fan_in)

    inner = hidden[:, None] >= hidden
    weights = [drawn(hidden[:, None] > seen)]
    for _ in range(depth):
        weights += [drawn(inner, np.sqrt(2)), drawn(inner, 0.5)]
    weights += [drawn(made[:, None] >= hidden, 0.01), np.zeros((len(made), len(seen)))]
    biases = [np.zeros(len(weight)) for weight in weights[:-1]]
    return MaskedNet(
        tuple(map(_array, weights)),
        tuple(map(_array, biases)),
        _array(drawn(np.ones((width, given)))),
        *(jnp.asarray(degrees, jnp.int32) for degrees in (seen, hidden, made)),
    )


def _array(numbers: np.ndarray) -> Array:
    """In JAX's default precision."""
    return jnp.asarray(np.asarray(numbers, jnp.zeros(0).dtype))


def _masked(weight: Array, mask: Array) -> Array:
    return jnp.where(mask, weight, 0.0)
