"""Noise-contrastive estimation: tell the data from draws of a known law, and the log odds are the log density.

Definition. n data x and νn draws y of a noise law r: the log odds of "data" are u(x) = log p̃(x) − log r(x) − log ν, with p̃
unnormalised and its constant learned as part of f. Loss = E_data softplus(−u) + ν E_r softplus(u) (Gutmann and Hyvärinen
2012); at the optimum p̃ is the data's density, normalised. Identities ``nce.posterior``, ``nce.log_z``, ``nce.efficiency``.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray


class NoiseContrast(NamedTuple):
    """A batch: ``points`` (n, d), ``noise`` (ν n, d), and for each the ``offset`` log q − log r, 0 where the noise is q."""

    points: Array
    noise: Array
    points_offset: Array
    noise_offset: Array


def noise_contrastive_loss(
    model: Any, key: PRNGKeyArray, batch: NoiseContrast
) -> tuple[Float[Array, ""], dict[str, Any]]:
    """E softplus(−u(x)) + ν E softplus(u(y)) with u = f + offset − log ν, a sum over 1 + ν examples a datum.

    The metric ``train`` is minus the loss: from −(log(1 + ν) + ν log((1 + ν)/ν)), where nothing is told apart, to 0.

    >>> from mulligan.models.energy import make_energy
    >>> from mulligan.targets.gaussian import Gaussian
    >>> model = make_energy(Gaussian(jnp.zeros(1), jnp.eye(1)), 1, np.random.default_rng(0), width=4)
    >>> zeros = jnp.zeros((2, 1))
    >>> loss, _ = noise_contrastive_loss(model, jax.random.key(0), NoiseContrast(zeros, zeros, jnp.zeros(2), jnp.zeros(2)))
    >>> round(float(loss), 4)
    1.3863
    """
    ratio = batch.noise.shape[0] / batch.points.shape[0]
    data = jax.vmap(model.f)(batch.points) + batch.points_offset - np.log(ratio)
    noise = jax.vmap(model.f)(batch.noise) + batch.noise_offset - np.log(ratio)
    loss = jnp.mean(jax.nn.softplus(-data)) + ratio * jnp.mean(jax.nn.softplus(noise))
    right = (jnp.mean(data > 0) + ratio * jnp.mean(noise < 0)) / (1 + ratio)
    return loss, {"train": -loss, "told_apart": right}


class Chase(NamedTuple):
    """A batch of the noise law's own learning: ``points`` (n, d), ``latents`` (ν n, d) and the ``model`` it chases."""

    points: Array
    latents: Array
    model: Any


def chasing_loss(noise: Any, key: PRNGKeyArray, batch: Chase) -> tuple[Float[Array, ""], dict[str, Any]]:
    """Minus the loss of noise contrast, as a function of a noise law that maps latents to draws (a flow).

    The noise becomes harder to tell from the data: at the optimum it descends the Jensen-Shannon divergence to them
    (flow contrastive estimation; Gao et al. 2020). Its draws are differentiated through ``noise.from_latent``.

    >>> from mulligan.models.energy import make_energy
    >>> from mulligan.models.flow import make_flow
    >>> from mulligan.targets.gaussian import Gaussian
    >>> generator = np.random.default_rng(0)
    >>> model = make_energy(Gaussian(jnp.zeros(2), jnp.eye(2)), 2, generator, width=4)
    >>> flow = make_flow(2, generator, layers=1, width=4)
    >>> loss, _ = chasing_loss(flow, jax.random.key(0), Chase(jnp.zeros((2, 2)), jnp.zeros((2, 2)), model))
    >>> loss.shape
    ()
    """
    ratio = batch.latents.shape[0] / batch.points.shape[0]
    drawn = jax.vmap(lambda z: noise.from_latent(z)[0])(batch.latents)

    def odds(x: Array) -> Array:
        return batch.model.unnormalised(x) - noise.log_prob(x) - np.log(ratio)

    loss = jnp.mean(jax.nn.softplus(-jax.vmap(odds)(batch.points)))
    loss += ratio * jnp.mean(jax.nn.softplus(jax.vmap(odds)(drawn)))
    return -loss, {"train": loss}
