"""Broken twins of denoisers, losses and bounds: tests/exact/test_diffusion.py must refuse each."""

from __future__ import annotations

import equinox as eqx
import jax.numpy as jnp

from mulligan.models.denoiser import Denoiser, Scales
from mulligan.objectives.denoising import Denoising, gaussian_divergences, variational_bound


class Swapped(Denoiser):
    """σ in the place of α and the other way round."""

    def scales(self, t):
        alpha, sigma, _, level = super().scales(t)
        return Scales(sigma, alpha, jnp.sqrt(sigma**2 * self.variances + alpha**2), level)


class Backwards(Denoiser):
    """The sign of the network's part is wrong."""

    def denoised(self, z, scales, given=None, shown=None):
        linear = scales.alpha * self.variances / scales.total**2 * z
        return 2 * linear - super().denoised(z, scales, given, shown)


class Unrotated(Denoiser):
    """The way back to x forgets the axes."""

    def denoise(self, x, t, given=None):
        scales = self.scales(t)
        return self.mean + self.denoised(self.inward(x, scales.alpha), scales, given)


class LevelOfSigma(Denoiser):
    """The level that the network is told forgets α."""

    def scales(self, t):
        scales = super().scales(t)
        return scales._replace(level=scales.level + jnp.log(scales.alpha))


DENOISERS = {
    "σ and α swapped": Swapped,
    "wrong sign": Backwards,
    "axes forgotten": Unrotated,
    "level without α": LevelOfSigma,
}


class VarianceForDeviation(Denoising):
    """Weights with σ where σ² belongs."""

    def weight(self, model, scales):
        return super().weight(model, scales) * scales.sigma


class LossOfTheMean(Denoising):
    """The mean of the members has the loss: each makes up for the others' errors, and is of no use against over-fitting."""

    def __call__(self, model, key, batch):
        members = model.network
        whole = eqx.tree_at(lambda model: model.network, model, lambda *inputs: members(*inputs))
        return super().__call__(whole, key, batch)


class NoiseTwice(Denoising):
    """The noise is scaled by σ²."""

    def errors(self, model, x, e, t, given=None, shown=None):
        return super().errors(model, x, model.schedule.sigma(t) * e, t, given, shown)


OBJECTIVES = {"σ for σ²": VarianceForDeviation, "noise times σ²": NoiseTwice}


def kl_without_half(model, x, noise, times):
    middle = jnp.sum(gaussian_divergences(model, x, noise[1:], times))
    return variational_bound(model, x, noise, times) - middle


def off_by_one(model, x, noise, times):
    """Each KL has the weight of the step after it."""
    schedule = model.schedule

    def snr(t):
        return (schedule.alpha(t) / schedule.sigma(t)) ** 2

    terms = gaussian_divergences(model, x, noise[1:], times)
    own = snr(times[1:]) - snr(times[:-1])
    return variational_bound(model, x, noise, times) + jnp.sum(terms) - jnp.sum(terms[:-1] * own[1:] / own[:-1])


def entropy_forgotten(model, x, noise, times):
    """log p(x_0|x_{t_min}) without its normaliser's 2π."""
    return variational_bound(model, x, noise, times) + 0.5 * model.dim * jnp.log(2 * jnp.pi)


BOUNDS = {"KL without ½": kl_without_half, "off-by-one step": off_by_one, "2π forgotten": entropy_forgotten}
