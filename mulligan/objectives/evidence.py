"""Bounds of log p for models with latent variables: the ELBO with its KL in closed form, β, and IWAE-k.

Definition. With w_i = p(x, z_i)/q(z_i|x): L_1 = E_q log p(x|z) − β KL(q(z|x)‖p(z)) (a bound of log p(x) for β ≥ 1; Kingma
and Welling 2014; Higgins et al. 2017), and L_k = E log (1/k Σ_i w_i), which rises to log p(x) with k (Burda, Grosse and
Salakhutdinov 2016). Theory: ``relation.vae``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from mulligan.models.vae import VAE
from mulligan.objectives.likelihood import Rows


@dataclass(frozen=True)
class Evidence:
    """−(1/n) Σ L(x_i) with fresh draws, in nats of the encoded rows; ``train`` is the same with its sign turned.

    ``draws`` is k: 1 is the ELBO with its KL in closed form and times ``beta``, more is IWAE-k (which has no β). Equal
    ones are equal, so they share a program.
    """

    draws: int = 1
    beta: float = 1.0

    def __call__(self, model: VAE, key: PRNGKeyArray, batch: Rows) -> tuple[Float[Array, ""], dict[str, Any]]:
        n, dtype = len(batch.points), batch.points.dtype
        noise = jax.random.normal(key, (n, self.draws, model.latent), dtype)
        if self.draws == 1:
            rows = jax.vmap(lambda e, x, given: model.evidence(e[0], x, given, self.beta))
            bound = rows(noise, batch.points, batch.given)
        else:
            log_w = jax.vmap(model.log_weights)(noise, batch.points, batch.given)
            bound = jax.nn.logsumexp(log_w, axis=1) - np.log(self.draws).astype(dtype)
        mean = jnp.mean(bound)
        return -mean, {"train": mean}
