"""Maximum likelihood: L(θ) = E_data[log p_θ(x)] (or log p_θ(x | given)), minimised as −L (identity ``mle.kl``)."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from mulligan.core import Density
from mulligan.models.ensemble import Ensemble


class Rows(NamedTuple):
    """Points (n, d), and what each is conditioned on (n, g) or None."""

    points: Array
    given: Array | None = None


def negative_log_likelihood(model: Density, key: PRNGKeyArray, batch: Rows) -> tuple[Float[Array, ""], dict[str, Any]]:
    """−(1/n) Σ log p(x_i) in nats of the encoded points, and the same with its sign turned as the metric ``train``.

    >>> from mulligan.targets.gaussian import Gaussian
    >>> loss, _ = negative_log_likelihood(Gaussian(jnp.zeros(1), jnp.eye(1)), jax.random.key(0), Rows(jnp.zeros((4, 1))))
    >>> round(float(loss), 4)
    0.9189
    """
    log_p = jax.vmap(model.log_prob)(batch.points, batch.given)
    mean = jnp.mean(log_p)
    return -mean, {"train": mean}


def members_negative_log_likelihood(
    model: Ensemble, key: PRNGKeyArray, batch: Rows
) -> tuple[Float[Array, ""], dict[str, Any]]:
    """−(1/n) Σ_i (1/M) Σ_m log p_m(x_i): every member of an ensemble learns as if it were alone, all in one program.

    The metric ``train`` is the mean of the members' log p, which that of the ensemble is never below.
    """
    mean = jnp.mean(jax.vmap(model.each_log_prob)(batch.points, batch.given))
    return -mean, {"train": mean}
