"""Generative adversarial networks: a law that can be drawn from and has no density.

Definition (Goodfellow et al. 2014). x = G(z, given), z ~ N(0, I_k), for a network G; the law of x is where G carries the
normal law, and its density, where there is one at all, is an integral over {z: G(z) = x} that nobody does. So the model is
a ``Sampler`` and nothing else. Beside G lives the critic D(x, given), a real number that is high where the data are
denser than the draws; it is kept, for what it says of a draw. Theory: chapter 5 (``game.value``, ``game.wasserstein``,
``game.jensen_shannon``).

G(z) = m + F z + network(z) with the last layer of the network at 0: at the start the draws have the mean and the covariance
of the rows (their first k principal axes), so the generator starts *over* all clouds of the data and narrows down to
them, rather than running to one of them first.
"""

from __future__ import annotations

from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from mulligan.core import Sampler
from mulligan.nets.mlp import MLP, make_mlp


class GAN(Sampler):
    """G(z) = m + F z + network([z, given]) and the critic D(x) = critic([x, given]) that it was trained against.

    ``mean`` m (d,) and ``factor`` F (d, k) are not learned. There is no density: ``isinstance(gan, Density)`` is False.
    Made by ``make_gan``.

    >>> from mulligan.core import capabilities
    >>> gan = make_gan(np.random.default_rng(0).normal(size=(100, 2)), np.random.default_rng(0), width=4)
    >>> capabilities(gan), gan.sample(jax.random.key(0)).shape, gan.judged(jnp.zeros(2)).shape
    (('Sampler',), (2,), ())
    """

    fixed: ClassVar[tuple[str, ...]] = ("mean", "factor")
    mean: Float[Array, " d"]
    factor: Float[Array, "d k"]
    network: MLP
    critic: MLP

    @property
    def latent(self) -> int:
        """k, the number of latent coordinates."""
        return self.factor.shape[1]

    def generated(self, z: Float[Array, " k"], given: Float[Array, " g"] | None = None) -> Float[Array, " d"]:
        """G(z)."""
        return self.mean + z @ self.factor.T + self.network(_beside(z, given))

    def judged(self, x: Float[Array, " d"], given: Float[Array, " g"] | None = None) -> Float[Array, ""]:
        """D(x)."""
        return self.critic(_beside(x, given))[0]

    def sample(self, key: PRNGKeyArray, given: Float[Array, " g"] | None = None) -> Float[Array, " d"]:
        """One draw (d,), in one evaluation of the network."""
        return self.generated(jax.random.normal(key, (self.latent,), self.mean.dtype), given)


def make_gan(
    rows: np.ndarray,
    generator: np.random.Generator,
    *,
    latent: int | None = None,
    width: int = 64,
    depth: int = 3,
    given: int = 0,
) -> GAN:
    """A GAN whose draws have the moments of ``rows`` (n, d); ``latent`` k is max(8, d) unless told, ``given`` g numbers are
    known of each row.

    >>> rows = np.random.default_rng(0).normal(size=(500, 2)) * [1.0, 3.0]
    >>> gan = make_gan(rows, np.random.default_rng(1), width=4)
    >>> covariance = gan.factor @ gan.factor.T
    >>> bool(np.allclose(covariance, np.cov(rows.T, bias=True), rtol=1e-4))
    True
    """
    rows = np.asarray(rows, np.float64)
    d = rows.shape[1]
    k = max(8, d) if latent is None else latent
    mean = rows.mean(axis=0)
    centred = rows - mean
    variances, axes = np.linalg.eigh(centred.T @ centred / len(rows))
    factor = np.zeros((d, k))
    most = min(d, k)
    factor[:, :most] = (axes * np.sqrt(np.maximum(variances, 0)))[:, ::-1][:, :most]
    hidden = [width] * depth
    network = make_mlp([k + given, *hidden, d], generator, zero_last=True)
    critic = make_mlp([d + given, *hidden, 1], generator)
    return GAN(jnp.asarray(mean, jnp.float32), jnp.asarray(factor, jnp.float32), network, critic)


def _beside(x: Array, given: Array | None) -> Array:
    return x if given is None else jnp.concatenate([x, given])
