"""Mixture of logistic laws: clouds with heavier tails than a Gaussian's, whose distribution functions are elementary.

Definition. p(x) = Σ_k w_k Π_j f((x_j − μ_kj)/s_kj)/s_kj with the logistic density f(u) = e^{−u}/(1 + e^{−u})² (Balakrishnan
1992, chapter 1). Its variance is π²s²/3 and its distribution function 1/(1 + e^{−u}), which is why mixtures of logistics
model rounded values in closed form (Salimans, Karpathy, Chen and Kingma 2017). Within a part the coordinates are
independent; the dependence between them comes from the parts.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from mulligan.core import Density, Sampler


class LogisticMixture(Sampler, Density):
    """log p(x) = logsumexp_k (log w_k + Σ_j log f((x_j − μ_kj)/s_kj) − log s_kj), exact.

    ``logits`` (k,) are log w up to an additive constant, ``means`` μ (k, d), ``log_scales`` log s (k, d).

    >>> law = LogisticMixture(jnp.zeros(1), jnp.zeros((1, 1)), jnp.zeros((1, 1)))
    >>> round(float(law.log_prob(jnp.zeros(1))), 4)  # log f(0) = log ¼
    -1.3863
    """

    kind: ClassVar[Literal["exact", "numeric"]] = "exact"
    logits: Float[Array, " k"]
    means: Float[Array, "k d"]
    log_scales: Float[Array, "k d"]

    def log_prob(self, x: Float[Array, " d"], given: Array | None = None) -> Float[Array, ""]:
        size = jnp.abs(x - self.means) * jnp.exp(-self.log_scales)  # f is even: e^{−|u|} cannot overflow
        parts = jnp.sum(-size - 2 * jnp.log1p(jnp.exp(-size)) - self.log_scales, axis=1)
        return jax.nn.logsumexp(jax.nn.log_softmax(self.logits) + parts)

    def sample(self, key: PRNGKeyArray, given: Array | None = None) -> Float[Array, " d"]:
        of_part, of_noise = jax.random.split(key)
        part = jax.random.categorical(of_part, self.logits)
        noise = jax.random.logistic(of_noise, self.means.shape[1:], self.means.dtype)
        return self.means[part] + jnp.exp(self.log_scales[part]) * noise
