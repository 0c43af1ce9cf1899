"""Kernel density: the average of one Gaussian around each training point.

Definition (Rosenblatt 1956; Parzen 1962). p(x) = Σ_i s_i N(x; c_i, h² S), with shares s_i = 1/n
unless rows weigh, and S = I (``spherical`` kernel, in
standardised columns) or S = the data's covariance (``full``). The model *is* its training rows.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from mulligan.core import Density, Sampler


class KernelDensity(Sampler, Density):
    """p(x) = Σ_i s_i N(x; c_i, h² L Lᵀ).

    ``whitened`` are the centres in the kernel's coordinates, L⁻¹c_i (n, d); ``cholesky`` is L (d, d); ``bandwidth`` is h
    and scalar. ``log_shares`` is log s (n,), or None: every centre has the share 1/n.

    >>> import jax.numpy as jnp
    >>> one = KernelDensity(jnp.zeros((1, 2)), jnp.eye(2), jnp.asarray(1.0))
    >>> bool(jnp.allclose(one.log_prob(jnp.zeros(2)), -jnp.log(2 * jnp.pi)))
    True
    """

    kind: ClassVar[Literal["exact", "numeric"]] = "exact"
    whitened: Float[Array, "n d"]
    cholesky: Float[Array, "d d"]
    bandwidth: Float[Array, ""]
    log_shares: Float[Array, " n"] | None = None

    def log_prob(self, x: Float[Array, " d"], given: Array | None = None) -> Float[Array, ""]:
        d = self.whitened.shape[1]
        inverse = jax.scipy.linalg.solve_triangular(self.cholesky, jnp.eye(d, dtype=x.dtype), lower=True)
        # The barrier keeps XLA from fusing this product into the sum below: on CPU (jaxlib 0.10.2) that fusion gives wrong
        # numbers, nats off, once n·d exceeds 24 576. Our own programs switch such fusions off (loop.SOUND_PROGRAM); the
        # barrier is for those who compile this function themselves. tests/exact/test_large_batches.py watches it.
        u = jax.lax.optimization_barrier(inverse @ x)
        log_norm = jnp.sum(jnp.log(jnp.diag(self.cholesky))) + d * jnp.log(self.bandwidth) + 0.5 * d * np.log(2 * np.pi)
        return mean_kernel(self.whitened, u, self.bandwidth, self.log_shares) - log_norm

    def sample(self, key: PRNGKeyArray, given: Array | None = None) -> Float[Array, " d"]:
        pick, noise = jax.random.split(key)
        n, d = self.whitened.shape
        if self.log_shares is None:
            place = jax.random.randint(pick, (), 0, n)
        else:
            place = jax.random.categorical(pick, self.log_shares)
        centre = self.whitened[place]
        return self.cholesky @ (centre + self.bandwidth * jax.random.normal(noise, (d,), self.whitened.dtype))


def mean_kernel(
    centres: Float[Array, "n d"],
    u: Float[Array, " d"],
    bandwidth: Float[Array, ""],
    log_shares: Float[Array, " n"] | None = None,
) -> Float[Array, ""]:
    """log Σ_i s_i exp(−|u − c_i|²/2h²), with s_i = 1/n where there are no ``log_shares``.

    By differences, not by |u|² − 2u·c + |c|²: for a row 75 standard deviations out (a heavy tail) float32 leaves the
    expanded square an error of 1e-3, which is more than h². Axis after axis, (d, n), so that a batch of u is as fast.
    """
    square = jnp.sum((centres.T - u[:, None]) ** 2, axis=0)
    if log_shares is not None:
        return jax.nn.logsumexp(log_shares - 0.5 * square / bandwidth**2)
    return jax.nn.logsumexp(-0.5 * square / bandwidth**2) - np.log(centres.shape[0])
