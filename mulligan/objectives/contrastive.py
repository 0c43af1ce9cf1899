"""Maximum likelihood of an energy-based model by contrast: raise f on data, lower it on draws of the model.

Definition. L′(θ) = E_data[∂f_θ] − E_{p_θ}[∂f_θ] (identity ``ebm.gradient``). With negatives y from the model the loss
−(mean f(x) − mean f(y)) has the gradient −L′; its value is no likelihood, only the gap f(data) − f(model), which hovers
around 0 while the chains keep up. What the negatives are says what is estimated: draws of p_θ (maximum likelihood), k steps
from the data (contrastive divergence, Hinton 2002, which drops a term), K steps from noise (short-run, Nijkamp et al. 2019).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray


class Contrast(NamedTuple):
    """A batch: ``points`` (n, d) of the data and ``negatives`` (m, d) of the model."""

    points: Array
    negatives: Array


def contrastive_loss(model: Any, key: PRNGKeyArray, batch: Contrast) -> tuple[Float[Array, ""], dict[str, Any]]:
    """mean f(negatives) − mean f(points); the metric ``train`` is f(points) − f(negatives), the energy gap.

    >>> from mulligan.models.energy import make_energy
    >>> from mulligan.targets.gaussian import Gaussian
    >>> import numpy as np
    >>> model = make_energy(Gaussian(jnp.zeros(1), jnp.eye(1)), 1, np.random.default_rng(0), width=4)
    >>> loss, _ = contrastive_loss(model, jax.random.key(0), Contrast(jnp.zeros((2, 1)), jnp.ones((2, 1))))
    >>> abs(float(loss))
    0.0
    """
    gap = jnp.mean(jax.vmap(model.f)(batch.points)) - jnp.mean(jax.vmap(model.f)(batch.negatives))
    return -gap, {"train": gap}
