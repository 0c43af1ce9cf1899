"""U-Net: a network from a noised picture and its noise level to a picture, for diffusion and flow matching.

Definition (Ronneberger, Fischer and Brox 2015; Ho, Jain and Abbeel 2020). Down: a residual block, then folding to half the
size, and again; up: unfolding, joined with what the way down had at that size, and a residual block. A block with time is

    h = x' + conv(silu((1 + S e) ⊙ norm(conv(silu(norm(x)))) + T e)),    e = W silu(V f(c)),

f(c) the sines and cosines of the level c (``nets.time``), x' = x or a matrix product of it; the last convolution starts
at 0. Pictures of more than 16 pixels are first folded into patches of 2 x 2: the full size costs most and gives least.
Pictures come and go flat, so it stands where a perceptron with time does. Theory: chapter 9, networks.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from mulligan.nets.convolution import Convolution, Norm, fold, halved, make_convolution, make_norm, unfold
from mulligan.nets.time import time_features

PAIRS = 8
LARGE = 16  # pixels of the shorter side, beyond which pictures are folded into patches


class Block(eqx.Module):
    """A residual block: (h, w, in) and e (g,) to (h, w, out)."""

    first_norm: Norm
    first: Convolution
    weights: Float[Array, "2 o g"]
    second_norm: Norm
    second: Convolution
    skip: Convolution | None

    def __call__(self, x: Float[Array, "h w i"], e: Float[Array, " g"]) -> Float[Array, "h w o"]:
        scale, shift = self.weights @ e
        h = self.first(jax.nn.silu(self.first_norm(x)))
        h = self.second(jax.nn.silu(self.second_norm(h) * (1 + scale) + shift))
        return h + (x if self.skip is None else self.skip(x))


class UNet(eqx.Module):
    """F(u, c) from a picture u, flat (h w channels,), and a level c to one of the same size; made by ``make_unet``.

    ``given`` (g,) is an input beside the level, with a mark ``shown`` of 1; where it is not given, or not shown, its place
    and the mark are 0. ``shape`` is (height, width, channels).

    >>> net = make_unet((8, 8, 1), np.random.default_rng(0), channels=(8, 8))
    >>> bool((net(jnp.ones(64), jnp.asarray(0.0)) == 0).all())  # the last layer starts at 0
    True
    """

    inward: Convolution
    down: tuple[Block, ...]
    shrinks: tuple[Convolution, ...]
    middle: Block
    grows: tuple[Convolution, ...]
    up: tuple[Block, ...]
    last_norm: Norm
    outward: Convolution
    weights: tuple[Float[Array, "o i"], Float[Array, "o i"]]
    biases: Float[Array, " o"]
    shape: tuple[int, int, int] = eqx.field(static=True)
    patch: int = eqx.field(static=True)
    given: int = eqx.field(static=True, default=0)

    def __call__(
        self, u: Float[Array, " d"], c: Float[Array, ""], given: Array | None = None, shown: Array | float = 1.0
    ) -> Float[Array, " d"]:
        e = self._embedded(c, given, shown)
        height, width, _ = self.shape
        x = self.inward(fold(u.reshape(self.shape), self.patch))
        sizes = halved(x.shape[0], x.shape[1], len(self.shrinks))
        kept = []
        for block, shrink in zip(self.down, self.shrinks):
            x = block(x, e)
            kept.append(x)
            x = shrink(fold(x))
        x = self.middle(x, e)
        for block, grow, (rows, columns) in zip(self.up, self.grows, reversed(sizes[:-1])):
            x = block(jnp.concatenate([unfold(grow(x), rows, columns), kept.pop()], axis=2), e)
        x = self.outward(jax.nn.silu(self.last_norm(x)))
        return unfold(x, height, width, self.patch).reshape(-1)

    def _embedded(self, c: Float[Array, ""], given: Array | None, shown: Array | float) -> Float[Array, " g"]:
        inputs = [time_features(c, PAIRS)]
        if self.given:
            mark = jnp.zeros((), c.dtype) if given is None else jnp.asarray(shown, c.dtype)
            inputs += [jnp.zeros(self.given, c.dtype) if given is None else mark * given, mark[None]]
        first, second = self.weights
        return jax.nn.silu(jax.nn.silu(jnp.concatenate(inputs) @ first.T + self.biases) @ second.T)


def make_unet(
    shape: tuple[int, int, int],
    generator: np.random.Generator,
    *,
    channels: Sequence[int] = (64, 96),
    given: int = 0,
    patch: int | None = None,
) -> UNet:
    """A U-Net with these numbers of channels, one for each size from the largest down; drawn with NumPy, float32.

    ``patch`` None is 2 for pictures of more than 16 pixels, else 1.

    >>> net = make_unet((28, 28, 1), np.random.default_rng(0))
    >>> sum(leaf.size for leaf in jax.tree.leaves(net))
    490148
    """
    height, width, colours = shape
    patch = (2 if min(height, width) > LARGE else 1) if patch is None else patch
    pixel, wide = colours * patch**2, 2 * channels[0]
    down, shrinks, grows, up = [], [], [], []
    for now, following in pairwise(channels):
        down.append(make_block(now, now, wide, generator))
        shrinks.append(make_convolution(1, 4 * now, following, generator))
        grows.append(make_convolution(1, following, 4 * now, generator))
        up.append(make_block(2 * now, now, wide, generator))
    features = 2 * PAIRS + (given + 1 if given else 0)
    return UNet(
        make_convolution(3, pixel, channels[0], generator),
        tuple(down),
        tuple(shrinks),
        make_block(channels[-1], channels[-1], wide, generator),
        tuple(grows[::-1]),
        tuple(up[::-1]),
        make_norm(channels[0]),
        make_convolution(3, channels[0], pixel, generator, zero=True),
        (_dense(wide, features, generator), _dense(wide, wide, generator)),
        jnp.asarray(np.zeros(wide, np.float32)),
        (int(height), int(width), int(colours)),
        int(patch),
        int(given),
    )


def make_block(inputs: int, outputs: int, features: int, generator: np.random.Generator) -> Block:
    """A residual block whose second convolution starts at 0, so that the block starts as its skip."""
    return Block(
        make_norm(inputs),
        make_convolution(3, inputs, outputs, generator),
        _dense(2 * outputs, features, generator, 0.3).reshape(2, outputs, features),
        make_norm(outputs),
        make_convolution(3, outputs, outputs, generator, zero=True),
        None if inputs == outputs else make_convolution(1, inputs, outputs, generator),
    )


def _dense(outputs: int, inputs: int, generator: np.random.Generator, scale: float = 1.0) -> Array:
    reach = scale * np.sqrt(3 / inputs)
    return jnp.asarray(generator.uniform(-reach, reach, (outputs, inputs)).astype(np.float32))
