"""Broken twins of the variational autoencoder, its objective and what is measured of it: tests/exact/test_vae.py must
refuse each."""

from __future__ import annotations

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np

from mulligan.measures import latent
from mulligan.models import vae
from mulligan.models.vae import VAE
from mulligan.objectives.evidence import Evidence


def divergence_without_half(monkeypatch):
    right = vae.prior_divergence
    monkeypatch.setattr(vae, "prior_divergence", lambda posterior: 2 * right(posterior))


def divergence_without_entropy(monkeypatch):
    """½ Σ (m² + s² − 1): the encoder may become a point."""
    right = vae.prior_divergence
    monkeypatch.setattr(vae, "prior_divergence", lambda posterior: right(posterior) + jnp.sum(posterior.log_sd))


def divergence_reversed(monkeypatch):
    """KL(N(0, I)‖q) in place of KL(q‖N(0, I))."""

    def broken(posterior):
        mean, log_sd = posterior
        return 0.5 * jnp.sum((1 + mean**2) * jnp.exp(-2 * log_sd) - 1 + 2 * log_sd)

    monkeypatch.setattr(vae, "prior_divergence", broken)


def divergence_added(monkeypatch):
    right = VAE.evidence
    monkeypatch.setattr(
        VAE, "evidence", lambda self, noise, x, given=None, beta=1.0: right(self, noise, x, given, -beta)
    )


def weight_without_scale(monkeypatch):
    """The density of q(z|x) without its 1/s."""
    right = VAE._log_weight

    def broken(self, noise, posterior, valid, given):
        return right(self, noise, posterior, valid, given) - jnp.sum(posterior.log_sd)

    monkeypatch.setattr(VAE, "_log_weight", broken)


def weight_without_prior(monkeypatch):
    right = VAE._log_weight

    def broken(self, noise, posterior, valid, given):
        z = posterior.mean + jnp.exp(posterior.log_sd) * noise
        return right(self, noise, posterior, valid, given) + 0.5 * jnp.sum(z**2)

    monkeypatch.setattr(VAE, "_log_weight", broken)


def variance_for_deviation(monkeypatch):
    """z = m + s² e."""
    right = VAE._log_weight

    def broken(self, noise, posterior, valid, given):
        there = jnp.exp(posterior.log_sd) * noise
        return right(self, there, posterior, valid, given) + 0.5 * jnp.sum(noise**2 - there**2)

    monkeypatch.setattr(VAE, "_log_weight", broken)


def sum_of_weights(monkeypatch):
    """log Σ w in place of log (1/k Σ w)."""
    right = VAE.importance_bound
    monkeypatch.setattr(
        VAE, "importance_bound", lambda self, key, x, k, given=None: right(self, key, x, k, given) + np.log(k)
    )


def whole_chunks(monkeypatch):
    """Draws beyond k are counted, too."""
    right = VAE.importance_bound

    def broken(self, key, x, k, given=None):
        more = -(-k // vae.CHUNK) * vae.CHUNK
        return right(self, key, x, more, given) + np.log(more / k)

    monkeypatch.setattr(VAE, "importance_bound", broken)


ELBOS = {
    "KL without ½": divergence_without_half,
    "KL without entropy": divergence_without_entropy,
    "KL reversed": divergence_reversed,
    "KL added": divergence_added,
}
WEIGHTS = {
    "weight without 1/s": weight_without_scale,
    "weight without prior": weight_without_prior,
    "variance for deviation": variance_for_deviation,
}
MEANS = {"sum of weights": sum_of_weights, "whole chunks": whole_chunks}


def one_key(x):
    return jax.random.key(0)


def placeless_key(x):
    """Coordinates are mixed without their places."""
    bits = jax.lax.bitcast_convert_type(jnp.floor(x.astype(jnp.float32) / vae.CELL) + 0.0, jnp.uint32)
    return jax.random.wrap_key_data(
        jnp.stack([jnp.sum(vae._mixed(bits + jnp.uint32(i)), dtype=jnp.uint32) for i in (0, 1)])
    )


def key_of_the_point(x):
    """No cell: log p jumps between any two points."""
    return vae.cell_key(x * 1e4)


def key_of_the_first(x):
    return vae.cell_key(x[:1])


KEYS = {
    "one key for all": one_key,
    "places forgotten": placeless_key,
    "no cells": key_of_the_point,
    "first coordinate only": key_of_the_first,
}


def sample_without_noise(self, key, given=None):
    """The mean of p(x|z)."""
    of_z, _ = jax.random.split(key)
    z = jax.random.normal(of_z, (self.latent,), self.raw_scales.dtype)
    return z, self.laws(z).densities[:, 1, 0]


def sample_beside(self, key, given=None):
    """x of another z than the one that is returned."""
    right = self.laws
    of_z, of_row = jax.random.split(key)
    z, other = (jax.random.normal(k, (self.latent,), self.raw_scales.dtype) for k in (of_z, of_row))
    raw = right(other).densities
    noise = jax.random.normal(jax.random.fold_in(of_row, 1), raw.shape[:1], raw.dtype)
    return z, raw[:, 1, 0] + (jax.nn.softplus(raw[:, 2, 0]) + 1e-3) * noise


def sample_from_half_a_prior(self, key, given=None):
    z, x = VAE.sample_both(self, key)
    return 0.9 * z, x


SAMPLES = {
    "no observation noise": sample_without_noise,
    "another z": sample_beside,
    "narrow prior": sample_from_half_a_prior,
}


def wrong_sign(model, key, batch, evidence):
    loss, info = evidence(model, key, batch)
    return -loss, info


def beta_forgotten(model, key, batch, evidence):
    return Evidence(evidence.draws, 1.0)(model, key, batch)


def elbo_for_iwae(model, key, batch, evidence):
    """The mean of the logarithms."""
    noise = jax.random.normal(key, (len(batch.points), evidence.draws, model.latent), batch.points.dtype)
    bound = jnp.mean(jax.vmap(model.log_weights)(noise, batch.points, batch.given))
    return -bound, {"train": bound}


OBJECTIVES = {"sign": wrong_sign, "β forgotten": beta_forgotten, "mean of logarithms": elbo_for_iwae}


def own_posterior_kept(means, log_sds, seed=0):
    """The lower end with each row's own posterior in the mixture, which makes it an upper one."""
    found = latent.aggregated_mismatch(means, log_sds, seed)
    return replace(found, low=found.method_high - 0.05)


def mean_divergence(means, log_sds, seed=0):
    """E KL(q(z|x)‖p(z)), without taking off the mutual information."""
    found = latent.aggregated_mismatch(means, log_sds, seed)
    value = float(np.mean(0.5 * np.sum(means**2 + np.exp(2 * log_sds) - 1 - 2 * log_sds, axis=1)))
    return replace(found, value=value, low=value - 0.01, high=value + 0.01)


MISMATCHES = {"own posterior kept": own_posterior_kept, "mean divergence": mean_divergence}


def anneals_without_prior(monkeypatch):
    monkeypatch.setattr(latent._LogWeight, "__call__", lambda self, z: _without_prior(self, z))


def _without_prior(self, z):
    return self.model.log_likelihood(z, self.x, self.given) - self.encoded(z)


def anneals_unnormalised(monkeypatch):
    """log q(z|x) without log s: the weights are off by it."""
    right = latent._Encoded.__call__
    monkeypatch.setattr(latent._Encoded, "__call__", lambda self, z: right(self, z) + jnp.sum(self.posterior.log_sd))


ANNEALINGS = {"no prior": anneals_without_prior, "encoder not normalised": anneals_unnormalised}
