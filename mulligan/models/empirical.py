"""The empirical law: draws training rows. No model, and the baseline that samples are held against.

Definition. p̂ = (1/n) Σ_i δ_{x_i}. It has no density, so it is a ``Sampler`` and nothing else.
"""

from __future__ import annotations

import jax
from jaxtyping import Array, Float, PRNGKeyArray

from mulligan.core import Sampler


class Empirical(Sampler):
    """Draws one of ``rows`` (n, d), each with probability 1/n (Efron 1979's bootstrap).

    >>> import jax, jax.numpy as jnp
    >>> float(Empirical(jnp.full((3, 1), 7.0)).sample(jax.random.key(0))[0])
    7.0
    """

    rows: Float[Array, "n d"]

    def sample(self, key: PRNGKeyArray, given: Array | None = None) -> Float[Array, " d"]:
        return self.rows[jax.random.randint(key, (), 0, self.rows.shape[0])]
