"""Maximum likelihood: L(θ) = E_data[log p_θ(x)] (or log p_θ(x | given)), minimised as −L (identity ``mle.kl``)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
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


@dataclass(frozen=True)
class Redrawn:
    """An objective of binary rows that are drawn anew at each step: each x_j is 1 with probability ``points``_j.

    E over the draws of the mean of ``objective``, so a law of the pictures and not of one drawing of them is learned
    (Burda, Grosse and Salakhutdinov 2016 train so on MNIST). The draw is a function of the step's key.

    >>> chances = Rows(jnp.array([[0.0, 1.0]]))
    >>> def seen(model, key, batch):
    ...     return batch.points.sum(), {"points": batch.points}
    >>> Redrawn(seen)(None, jax.random.key(0), chances)[1]["points"].tolist()
    [[0.0, 1.0]]
    """

    objective: Callable[[Any, PRNGKeyArray, Rows], tuple[Array, dict[str, Any]]]

    def __call__(self, model: Any, key: PRNGKeyArray, batch: Rows) -> tuple[Float[Array, ""], dict[str, Any]]:
        of_rows, rest = jax.random.split(key)
        drawn = jax.random.uniform(of_rows, batch.points.shape, batch.points.dtype) < batch.points
        return self.objective(model, rest, batch._replace(points=drawn.astype(batch.points.dtype)))
