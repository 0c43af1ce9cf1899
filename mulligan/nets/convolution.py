"""Convolutions of one picture (height, width, channels), and small networks of them: encoder, decoder, critic.

Definition. y[i, j] = Σ_{a, b} x[i + a − k//2, j + b − k//2] W[a, b] + bias, zeros outside: the size stays. Sizes change by
``fold`` (2 x 2 pixels become channels) and ``unfold``, with a matrix product beside: no strides, so no dilated gradients.
Gradients are products of matrices whose rows are the windows of all pixels (Chellapilla, Puri and Simard 2006): XLA's own
are as fast by themselves, but inside a loop, where all training happens, they were seen to run as plain nested loops.
Weights are drawn with NumPy, variance 1/fan-in, and can start at zero.
"""

from __future__ import annotations

from collections.abc import Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

EPSILON = 1e-5


@jax.custom_jvp
def convolve(x: Float[Array, "h w c"], weights: Float[Array, "k k c o"]) -> Float[Array, "h w o"]:
    """The convolution (as networks say: correlation) of a picture with zeros around it, of the same height and width; k is
    odd.

    >>> convolve(jnp.ones((4, 4, 1)), jnp.ones((3, 3, 1, 1)))[:2, :2, 0].tolist()
    [[4.0, 6.0], [6.0, 9.0]]
    """
    order = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(x[None], weights, (1, 1), "SAME", dimension_numbers=order)[0]


@convolve.defjvp
def _convolve_change(primals: tuple[Array, Array], tangents: tuple[Array, Array]) -> tuple[Array, Array]:
    (x, weights), (x_change, weights_change) = primals, tangents
    k, outputs = weights.shape[0], weights.shape[3]
    change = _windows(x_change, k) @ weights.reshape(-1, outputs)
    return convolve(x, weights), change + _windows(x, k) @ weights_change.reshape(-1, outputs)


def _windows(x: Float[Array, "h w c"], k: int) -> Float[Array, "h w k*k*c"]:
    """The k x k pixels around each."""
    height, width, half = x.shape[0], x.shape[1], k // 2
    padded = jnp.pad(x, ((half, half), (half, half), (0, 0)))
    return jnp.concatenate([padded[a : a + height, b : b + width] for a in range(k) for b in range(k)], axis=2)


def fold(x: Float[Array, "h w c"], by: int = 2) -> Array:
    """Blocks of by x by pixels as channels: (h, w, c) to (⌈h/by⌉, ⌈w/by⌉, by² c), with zeros where a side does not divide.

    >>> fold(jnp.zeros((7, 4, 3))).shape
    (4, 2, 12)
    """
    height, width, channels = x.shape
    x = jnp.pad(x, ((0, -height % by), (0, -width % by), (0, 0)))
    rows, columns = x.shape[0] // by, x.shape[1] // by
    return x.reshape(rows, by, columns, by, channels).transpose(0, 2, 1, 3, 4).reshape(rows, columns, -1)


def unfold(x: Array, height: int, width: int, by: int = 2) -> Array:
    """The inverse of ``fold``, cut to this height and width.

    >>> x = jnp.arange(84.0).reshape(7, 4, 3)
    >>> bool((unfold(fold(x), 7, 4) == x).all())
    True
    """
    rows, columns, channels = x.shape
    x = x.reshape(rows, columns, by, by, channels // by**2).transpose(0, 2, 1, 3, 4)
    return x.reshape(rows * by, columns * by, -1)[:height, :width]


class Convolution(eqx.Module):
    """``convolve`` with a bias: ``weights`` (k, k, in, out), ``biases`` (out,). k = 1 is one matrix product."""

    weights: Float[Array, "k k i o"]
    biases: Float[Array, " o"]

    def __call__(self, x: Float[Array, "h w i"]) -> Float[Array, "h w o"]:
        if self.weights.shape[0] == 1:
            return x @ self.weights[0, 0] + self.biases
        return convolve(x, self.weights) + self.biases


class Norm(eqx.Module):
    """Group normalisation (Wu and He 2018): each group of channels to mean 0 and variance 1 over the picture, then a scale
    and a shift for each channel."""

    scales: Float[Array, " c"]
    shifts: Float[Array, " c"]
    groups: int = eqx.field(static=True)

    def __call__(self, x: Float[Array, "h w c"]) -> Float[Array, "h w c"]:
        parts = x.reshape(-1, self.groups, x.shape[2] // self.groups)
        mean = jnp.mean(parts, axis=(0, 2), keepdims=True)
        variance = jnp.mean((parts - mean) ** 2, axis=(0, 2), keepdims=True)
        parts = (parts - mean) * jax.lax.rsqrt(variance + EPSILON)
        return parts.reshape(x.shape) * self.scales + self.shifts


def make_convolution(
    k: int, inputs: int, outputs: int, generator: np.random.Generator, zero: bool = False
) -> Convolution:
    """A convolution with a k x k window, drawn from a NumPy generator; float32."""
    reach = 0.0 if zero else np.sqrt(3 / (k * k * inputs))
    weights = generator.uniform(-1, 1, (k, k, inputs, outputs)) * reach
    return Convolution(jnp.asarray(weights.astype(np.float32)), jnp.asarray(np.zeros(outputs, np.float32)))


def make_norm(channels: int, groups: int = 8) -> Norm:
    """Group normalisation of so many channels, in at most ``groups`` groups of equal size."""
    groups = next(g for g in range(min(groups, channels), 0, -1) if channels % g == 0)
    return Norm(jnp.asarray(np.ones(channels, np.float32)), jnp.asarray(np.zeros(channels, np.float32)), groups)


class Encoder(eqx.Module):
    """A picture, flat, to a vector: ``MLP``'s surface, so that it stands where one does (a critic, an energy, an encoder).

    Convolution and silu, then folded to half the size, twice or more; the last picture goes through one matrix product.
    ``shape`` is (height, width, channels). No normalisation: a critic's gradient penalty is about each picture alone.

    >>> net = make_encoder((8, 8, 1), 3, np.random.default_rng(0))
    >>> net(jnp.zeros(64)).shape
    (3,)
    """

    convolutions: tuple[Convolution, ...]
    shrinks: tuple[Convolution, ...]
    weights: Float[Array, "o i"]
    biases: Float[Array, " o"]
    shape: tuple[int, int, int] = eqx.field(static=True)

    def __call__(self, x: Float[Array, " i"]) -> Float[Array, " o"]:
        x = x.reshape(self.shape)
        for convolution, shrink in zip(self.convolutions, self.shrinks):
            x = shrink(fold(jax.nn.silu(convolution(x))))
        return jax.nn.silu(x).reshape(-1) @ self.weights.T + self.biases


class Decoder(eqx.Module):
    """A vector to a picture, flat: one matrix product to the smallest size, then unfolded to twice the size again and again.

    >>> net = make_decoder(3, (7, 6, 1), np.random.default_rng(0))
    >>> net(jnp.zeros(3)).shape
    (42,)
    """

    weights: Float[Array, "o i"]
    biases: Float[Array, " o"]
    grows: tuple[Convolution, ...]
    convolutions: tuple[Convolution, ...]
    sizes: tuple[tuple[int, int], ...] = eqx.field(static=True)

    def __call__(self, z: Float[Array, " i"]) -> Float[Array, " o"]:
        height, width = self.sizes[0]
        x = (z @ self.weights.T + self.biases).reshape(height, width, -1)
        for (height, width), grow, convolution in zip(self.sizes[1:], self.grows, self.convolutions):
            x = convolution(jax.nn.silu(unfold(grow(jax.nn.silu(x)), height, width)))
        return x.reshape(-1)


def halved(height: int, width: int, times: int) -> list[tuple[int, int]]:
    """The sizes that folding so many times goes through, the first included.

    >>> halved(28, 28, 2)
    [(28, 28), (14, 14), (7, 7)]
    """
    sizes = [(height, width)]
    for _ in range(times):
        sizes.append((-(-sizes[-1][0] // 2), -(-sizes[-1][1] // 2)))
    return sizes


def make_encoder(
    shape: tuple[int, int, int],
    outputs: int,
    generator: np.random.Generator,
    channels: Sequence[int] = (32, 64),
    zero_last: bool = False,
) -> Encoder:
    """An encoder with these numbers of channels, one for each size; float32."""
    height, width, last = shape
    convolutions, shrinks = [], []
    for now, following in zip(channels, [*channels[1:], channels[-1]]):
        convolutions.append(make_convolution(3, last, now, generator))
        shrinks.append(make_convolution(1, 4 * now, following, generator))
        last = following
    smallest = halved(height, width, len(channels))[-1]
    fan_in = smallest[0] * smallest[1] * last
    weights = generator.uniform(-1, 1, (outputs, fan_in)) * (0.0 if zero_last else np.sqrt(3 / fan_in))
    biases = np.zeros(outputs, np.float32)
    dense = jnp.asarray(weights.astype(np.float32))
    return Encoder(tuple(convolutions), tuple(shrinks), dense, jnp.asarray(biases), shape)


def make_decoder(
    inputs: int,
    shape: tuple[int, int, int],
    generator: np.random.Generator,
    channels: Sequence[int] = (64, 32),
    zero_last: bool = False,
) -> Decoder:
    """A decoder with these numbers of channels, from the smallest size up; float32."""
    height, width, outputs = shape
    sizes = halved(height, width, len(channels))[::-1]
    first = sizes[0][0] * sizes[0][1] * channels[0]
    weights = generator.uniform(-1, 1, (first, inputs)) * np.sqrt(3 / inputs)
    grows, convolutions = [], []
    for place, (now, following) in enumerate(zip(channels, [*channels[1:], outputs])):
        last = place == len(channels) - 1
        grows.append(make_convolution(1, now, 4 * now, generator))
        convolutions.append(make_convolution(3, now, following, generator, zero=last and zero_last))
    dense, biases = jnp.asarray(weights.astype(np.float32)), jnp.asarray(np.zeros(first, np.float32))
    return Decoder(dense, biases, tuple(grows), tuple(convolutions), tuple(sizes))
