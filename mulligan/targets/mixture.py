"""The mixture of Gaussians: the richest law that keeps marginals, conditionals and responsibilities in closed form.

Definition. p(x) = Σ_k w_k N(x; μ_k, L_k L_kᵀ). A marginal is the mixture of the marginals with the same weights; given
x_o, each component is conditioned and the weights become w_k N(x_o; k), normalised. The weights are stored as
logarithms, normalised where they are used, and a weight of exactly 0 (log weight −∞) is legal and has finite gradients.
Identities: ``density.marginal``, ``density.conditional``, ``mle.covering``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.linalg import solve_triangular
from jaxtyping import Array, Float, PRNGKeyArray

from mulligan.core import Density, Sampler
from mulligan.targets.gaussian import (
    Gaussian,
    _floats,
    conditioned_values,
    inverse_lower,
    log_diagonal,
    lower_factor_of,
    observed_and_free,
    triangular,
)


class GaussianMixture(Sampler, Density):
    """Σ_k w_k N(μ_k, L_k L_kᵀ): log p(x) = logsumexp_k (log w_k + log N(x; μ_k, L_k L_kᵀ)). Exact.

    Arguments: ``log_weights`` (k,), up to an additive constant, −∞ allowed but not for all; ``means`` (k, d);
    ``choleskys`` (k, d, d) lower triangular with positive diagonals.

    >>> law = GaussianMixture.from_covariances([0.5, 0.5], [[-1.0], [1.0]], [[[1.0]], [[1.0]]])
    >>> round(float(law.log_prob(jnp.zeros(1))), 4)
    -1.4189
    """

    kind: ClassVar[Literal["exact", "numeric"]] = "exact"
    log_weights: Float[Array, " k"] = eqx.field(converter=_floats)
    means: Float[Array, "k d"] = eqx.field(converter=_floats)
    choleskys: Float[Array, "k d d"] = eqx.field(converter=_floats)

    @classmethod
    def from_covariances(cls, weights: object, means: object, covariances: object) -> GaussianMixture:
        """The mixture of these weights (k,), means (k, d) and covariances (k, d, d); DataError if one is singular."""
        return cls(jnp.log(_floats(weights)), _floats(means), lower_factor_of(covariances))

    @property
    def dim(self) -> int:
        """d."""
        return self.means.shape[-1]

    @property
    def components(self) -> int:
        """k."""
        return self.log_weights.shape[-1]

    @property
    def weights(self) -> Float[Array, " k"]:
        """w, which add up to 1."""
        return jax.nn.softmax(self.log_weights)

    def component(self, k: int) -> Gaussian:
        """The k-th Gaussian."""
        return Gaussian(self.means[k], self.choleskys[k])

    def joint_log_prob(self, x: Array) -> Float[Array, " k"]:
        """log w_k + log N(x; μ_k, L_k L_kᵀ) for each k: the log joint density of x and its component."""
        # L⁻¹ and L⁻¹μ do not depend on x: under vmap they are computed once, and all rows go through one matrix product
        # instead of a batched one. Centring keeps float32's digits for data far from 0.
        centre = jax.lax.stop_gradient(jnp.mean(self.means, axis=0))
        inverses = jax.vmap(inverse_lower)(self.choleskys)
        offsets = jnp.einsum("kij,kj->ki", inverses, self.means - centre)
        z = (inverses.reshape(-1, self.dim) @ (x - centre)).reshape(offsets.shape) - offsets
        constant = log_diagonal(self.choleskys) + 0.5 * self.dim * math.log(2 * math.pi)
        return jax.nn.log_softmax(self.log_weights) - 0.5 * jnp.sum(z**2, axis=-1) - constant

    def log_prob(self, x: Array, given: Array | None = None) -> Float[Array, ""]:
        """log p(x) in nats, exact; x (d,)."""
        return jax.nn.logsumexp(self.joint_log_prob(x))

    def responsibilities(self, x: Array) -> Float[Array, " k"]:
        """p(k | x), which add up to 1; exact."""
        return jax.nn.softmax(self.joint_log_prob(x))

    def sample(self, key: PRNGKeyArray, given: Array | None = None) -> Float[Array, " d"]:
        """A component by its weight, then a draw from it; shape (d,)."""
        key_component, key_noise = jax.random.split(key)
        k = jax.random.categorical(key_component, self.log_weights)
        noise = jax.random.normal(key_noise, (self.dim,), self.means.dtype)
        return self.means[k] + self.choleskys[k] @ noise

    @property
    def mean(self) -> Float[Array, " d"]:
        """E x = Σ w_k μ_k."""
        return self.weights @ self.means

    @property
    def covariance(self) -> Float[Array, "d d"]:
        """Cov x = Σ w_k (L_k L_kᵀ + (μ_k − μ)(μ_k − μ)ᵀ)."""
        centred = self.means - self.mean
        within = jnp.einsum("k,kij,klj->il", self.weights, self.choleskys, self.choleskys)
        return within + jnp.einsum("k,ki,kj->ij", self.weights, centred, centred)

    def marginal(self, index: Sequence[int]) -> GaussianMixture:
        """The law of x[index], in the order of ``index``; exact. UsageError if an index is out of range or repeated."""
        kept, _ = observed_and_free(index, self.dim)
        return GaussianMixture(self.log_weights, self.means[:, kept], jax.vmap(triangular)(self.choleskys[:, kept]))

    def condition(self, index: Sequence[int], values: object) -> GaussianMixture:
        """The law of the other coordinates (in their order) given x[index] = values; exact.

        ``values`` (len(index),) may be traced. UsageError if an index is out of range or repeated, if values are not as
        many, or if no coordinate is left free.
        """
        observed, free = observed_and_free(index, self.dim)
        values = conditioned_values(values, observed, free)
        order, m = np.concatenate([observed, free]), len(observed)
        whole = jax.vmap(triangular)(self.choleskys[:, order])
        solve = jax.vmap(lambda factor, b: solve_triangular(factor, b, lower=True))
        z = solve(whole[:, :m, :m], values - self.means[:, observed])
        log_weights = self.log_weights - 0.5 * jnp.sum(z**2, axis=-1) - log_diagonal(whole[:, :m, :m])
        means = self.means[:, free] + jnp.einsum("kij,kj->ki", whole[:, m:, :m], z)
        return GaussianMixture(jax.nn.log_softmax(log_weights), means, whole[:, m:, m:])
