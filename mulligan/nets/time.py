"""Networks that depend on time: sines and cosines of it modulate every hidden layer of a perceptron.

Definition. A level c (a logarithm of the noise, say) becomes the pairs sin ω_k c, cos ω_k c with ω_k = ¼ · 2^{k/2}: slow
ones tell the large from the small, fast ones neighbours apart (Vaswani et al. 2017). With e the pairs, layer l adds to
the layer before it: h_l = h_{l−1} + (W_l silu(h_{l−1}) + b_l)(1 + S_l e) + T_l e (Perez et al. 2018).
Theory: chapter 9, networks.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

LOWEST = 0.25  # angular frequency of the first pair: half a turn over the levels that occur
RATIO = np.sqrt(2.0)


def time_features(c: Float[Array, ""], pairs: int) -> Float[Array, " 2*pairs"]:
    """sin ω_k c for every k, then cos ω_k c.

    >>> [round(float(v), 4) for v in time_features(jnp.asarray(2.0), 2)]
    [0.4794, 0.6496, 0.8776, 0.7602]
    """
    angle = c * jnp.asarray(LOWEST * RATIO ** np.arange(pairs), c.dtype)
    return jnp.concatenate([jnp.sin(angle), jnp.cos(angle)])


class TimedNet(eqx.Module):
    """F(u, c) from u (d,) and a level c to (outputs,); made by ``make_timed_net``.

    ``waves`` (m, d) are fixed frequencies: sin Ωu and cos Ωu are inputs beside u, with which a smooth network makes sharp
    edges (Tancik et al. 2020). ``given`` (g,) is an input too, with a mark ``shown`` of 1; where it is not given, or not
    shown, its place and the mark are 0.

    >>> net = make_timed_net(2, 2, np.random.default_rng(0), width=8)
    >>> net(jnp.ones(2), jnp.asarray(0.0)).tolist()  # the last layer starts at 0
    [0.0, 0.0]
    """

    waves: Float[Array, "m d"]
    weights: tuple[Float[Array, "out in"], ...]
    biases: tuple[Float[Array, " out"], ...]
    time_weights: Float[Array, "layers 2 width 2*pairs"]
    given: int = eqx.field(static=True, default=0)

    def __call__(
        self, u: Float[Array, " d"], c: Float[Array, ""], given: Array | None = None, shown: Array | float = 1.0
    ) -> Array:
        time = time_features(c, self.time_weights.shape[-1] // 2)
        change = self.time_weights @ time
        inputs = [u]
        if self.waves.shape[0]:
            angle = u @ jax.lax.stop_gradient(self.waves).T
            inputs += [jnp.sin(angle), jnp.cos(angle)]
        if self.given:
            mark = jnp.zeros((), u.dtype) if given is None else jnp.asarray(shown, u.dtype)
            inputs += [jnp.zeros(self.given, u.dtype) if given is None else mark * given, mark[None]]
        h = jnp.concatenate(inputs)
        carried = jnp.zeros((), u.dtype)
        for layer, (weight, bias) in enumerate(zip(self.weights[:-1], self.biases[:-1])):
            shift, scale = change[layer]
            # x Wᵀ in this order: a batch under vmap is not transposed.
            carried = carried + (h @ weight.T + bias) * (1 + scale) + shift
            h = jax.nn.silu(carried)
        return h @ self.weights[-1].T + self.biases[-1]


class Average(eqx.Module):
    """The mean of several networks of one shape, (1/M) Σ_m F_m(u, c): what they over-fitted apart from each other shrinks.

    ``members`` is one ``TimedNet`` whose arrays have a leading axis of members, each trained on its own loss. A denoiser is
    linear in its network, so this is the mean of M denoisers, and of the scores that they stand for.

    >>> from mulligan.nets.time import make_average
    >>> net = make_average(2, 2, np.random.default_rng(0), members=3, width=8)
    >>> net(jnp.ones(2), jnp.asarray(0.0)).tolist()
    [0.0, 0.0]
    """

    members: TimedNet

    def __call__(self, u: Float[Array, " d"], c: Float[Array, ""], *known: Array | None) -> Array:
        return jnp.mean(eqx.filter_vmap(lambda member: member(u, c, *known))(self.members), axis=0)

    @property
    def count(self) -> int:
        """M."""
        return self.members.biases[0].shape[0]


def make_average(
    inputs: int, outputs: int, generator: np.random.Generator, *, members: int, **settings: Any
) -> Average:
    """``members`` networks of ``make_timed_net``, each drawn afresh."""
    nets = [make_timed_net(inputs, outputs, generator, **settings) for _ in range(members)]
    return Average(jax.tree.map(lambda *leaves: jnp.asarray(np.stack(leaves)), *nets))


def make_timed_net(
    inputs: int,
    outputs: int,
    generator: np.random.Generator,
    *,
    width: int = 128,
    depth: int = 3,
    pairs: int = 8,
    waves: int = 0,
    bandwidth: float = 2.0,
    given: int = 0,
) -> TimedNet:
    """A network drawn from a NumPy generator, float32: ``depth`` hidden layers of ``width``; the last layer starts at 0.

    ``waves`` frequencies of u are N(0, ``bandwidth``²); ``pairs`` are those of time.
    """
    fan_in = inputs + 2 * waves + (given + 1 if given else 0)
    sizes = [fan_in, *[width] * depth]
    weights = [_uniform(generator, (out, into), into) for into, out in pairwise(sizes)]
    weights = [weight * (1.0 if layer == 0 else 0.5) for layer, weight in enumerate(weights)]
    weights.append(np.zeros((outputs, width)))
    biases = [np.zeros(len(weight)) for weight in weights]
    time_weights = 0.3 * _uniform(generator, (depth, 2, width, 2 * pairs), 2 * pairs)
    frequencies = bandwidth * generator.standard_normal((waves, inputs))
    return TimedNet(
        _float32(frequencies),
        tuple(map(_float32, weights)),
        tuple(map(_float32, biases)),
        _float32(time_weights),
        int(given),
    )


def _uniform(generator: np.random.Generator, shape: tuple[int, ...], fan_in: int) -> np.ndarray:
    reach = np.sqrt(3 / max(fan_in, 1))
    return generator.uniform(-reach, reach, shape)


def _float32(values: np.ndarray) -> Array:
    return jnp.asarray(np.asarray(values, np.float32))
