"""Score matching: fit ∇ log p_θ to the data's, so that log Z never appears.

Definition. Exact (Hyvärinen 2005): E[½|s(x)|² + div s(x)], s = ∇ log p_θ. Sliced (Song et al. 2019): the divergence by one
random direction, E[½|s|² + vᵀ∂s v]. Denoising (Vincent 2011): E|σ s(x + σe) + e|²/2, whose minimum is the score of
p_data * N(0, σ²I). All are nearly blind to the weights of well-separated modes: between them there is no data, and the
score inside a mode does not know how much of the mass lies there. On a box they lack a boundary term and are refused.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from mulligan.objectives.likelihood import Rows

Loss = tuple[Float[Array, ""], dict[str, Any]]


def _score(model: Any, x: Array) -> Array:
    return jax.grad(model.unnormalised)(x)


def exact_score_matching(model: Any, key: PRNGKeyArray, batch: Rows) -> Loss:
    """Mean of ½|s|² + trace ∂s; d second derivatives a row.

    >>> from mulligan.models.energy import make_energy
    >>> from mulligan.targets.gaussian import Gaussian
    >>> import numpy as np
    >>> model = make_energy(Gaussian(jnp.zeros(2), jnp.eye(2)), 2, np.random.default_rng(0), width=4)
    >>> float(exact_score_matching(model, jax.random.key(0), Rows(jnp.zeros((3, 2))))[0])
    -2.0
    """

    def one(x: Array) -> Array:
        score = _score(model, x)
        return 0.5 * jnp.sum(score**2) + jnp.trace(jax.jacfwd(lambda y: _score(model, y))(x))

    loss = jnp.mean(jax.vmap(one)(batch.points))
    return loss, {"train": -loss}


def sliced_score_matching(model: Any, key: PRNGKeyArray, batch: Rows) -> Loss:
    """Mean of ½|s|² + vᵀ∂s v with v of ±1 (its expectation over v is the exact loss).

    >>> from mulligan.models.energy import make_energy
    >>> from mulligan.targets.gaussian import Gaussian
    >>> import numpy as np
    >>> model = make_energy(Gaussian(jnp.zeros(2), jnp.eye(2)), 2, np.random.default_rng(0), width=4)
    >>> float(sliced_score_matching(model, jax.random.key(0), Rows(jnp.zeros((3, 2))))[0])
    -2.0
    """
    directions = jax.random.rademacher(key, batch.points.shape, batch.points.dtype)

    def one(x: Array, v: Array) -> Array:
        score, slope = jax.jvp(lambda y: _score(model, y), (x,), (v,))
        return 0.5 * jnp.sum(score**2) + v @ slope

    loss = jnp.mean(jax.vmap(one)(batch.points, directions))
    return loss, {"train": -loss}


@dataclass(frozen=True)
class DenoisingScoreMatching:
    """Mean of ½|σ s(x + σe) + e|², over e and −e: their errors cancel to first order, so small σ learns, too.

    ``sigma`` is σ in the units of the points. An objective is static, so each σ is a program of its own.

    >>> from mulligan.models.energy import make_energy
    >>> from mulligan.targets.gaussian import Gaussian
    >>> import numpy as np
    >>> model = make_energy(Gaussian(jnp.zeros(2), jnp.eye(2)), 2, np.random.default_rng(0), width=4)
    >>> loss, _ = DenoisingScoreMatching(0.1)(model, jax.random.key(0), Rows(jnp.zeros((3, 2))))
    >>> bool(loss > 0)
    True
    """

    sigma: float

    def __call__(self, model: Any, key: PRNGKeyArray, batch: Rows) -> Loss:
        """The loss, and minus it as the metric ``train``."""
        noise = jax.random.normal(key, batch.points.shape, batch.points.dtype)

        def one(x: Array, e: Array) -> Array:
            return 0.5 * jnp.sum((self.sigma * _score(model, x + self.sigma * e) + e) ** 2)

        losses = jax.vmap(one)(batch.points, noise) + jax.vmap(one)(batch.points, -noise)
        loss = 0.5 * jnp.mean(losses)
        return loss, {"train": -loss}
