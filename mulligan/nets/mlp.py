"""Multilayer perceptrons, initialised with NumPy: a compiled random draw for each layer's shape would cost a fifth of a
second of compilation apiece.

Definition. h_0 = x, h_{l+1} = silu(W_l h_l + b_l), and the last layer is linear. Weights are uniform within ±√(3/fan-in)
(variance 1/fan-in), biases 0; the last layer can start at zero, so that what it parametrises starts at the identity.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float


class MLP(eqx.Module):
    """x (sizes[0],) to (sizes[-1],); ``weights`` (out, in) and ``biases`` (out,) of every layer.

    >>> import numpy as np
    >>> make_mlp([2, 8, 3], np.random.default_rng(0))(jnp.zeros(2)).shape
    (3,)
    """

    weights: tuple[Float[Array, "out in"], ...]
    biases: tuple[Float[Array, " out"], ...]

    def __call__(self, x: Float[Array, " in"]) -> Float[Array, " out"]:
        for weight, bias in zip(self.weights[:-1], self.biases[:-1]):
            x = jax.nn.silu(x @ weight.T + bias)  # in this order a batch under vmap is not transposed
        return x @ self.weights[-1].T + self.biases[-1]


def make_mlp(sizes: Sequence[int], generator: np.random.Generator, zero_last: bool = False) -> MLP:
    """An MLP with layers of these sizes, drawn from a NumPy generator; float32."""
    weights, biases = [], []
    for fan_in, fan_out in pairwise(sizes):
        reach = np.sqrt(3 / max(fan_in, 1))
        weights.append(generator.uniform(-reach, reach, (fan_out, fan_in)).astype(np.float32))
        biases.append(np.zeros(fan_out, np.float32))
    if zero_last:
        weights[-1] = np.zeros_like(weights[-1])
    return MLP(tuple(map(jnp.asarray, weights)), tuple(map(jnp.asarray, biases)))
