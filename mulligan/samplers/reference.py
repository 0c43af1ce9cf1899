"""References that a path can begin at, beside ``StandardNormal``: states drawn evenly.

Definition. q(x) = q^{−n} on {0 … q − 1}^n. Theory: chapter 8.
"""

from __future__ import annotations

import math

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray


class EvenStates(eqx.Module):
    """All states of n ``sites`` with values 0 … ``levels`` − 1, each as likely: log density −n log q, and draws.

    >>> q = EvenStates(2, 3)
    >>> round(float(q(jnp.zeros(3))), 4), q.sample(jax.random.key(0)).shape
    (-2.0794, (3,))
    """

    levels: int = eqx.field(static=True)
    sites: int = eqx.field(static=True)

    def __call__(self, x: Float[Array, " n"]) -> Float[Array, ""]:
        """−n log q, whatever x."""
        # 0·Σx: the gradient that a kernel takes is of x's shape, and NaN in gives NaN out
        return 0.0 * jnp.sum(x) - self.sites * math.log(self.levels)

    def sample(self, key: PRNGKeyArray) -> Float[Array, " n"]:
        """One draw (sites,), as floats."""
        values = jax.random.randint(key, (self.sites,), 0, self.levels)
        return values.astype(jnp.zeros(()).dtype)
