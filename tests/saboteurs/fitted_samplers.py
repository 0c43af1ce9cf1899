"""Broken twins of fitted models' samplers, which tests/laws/test_families_law.py must reject."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp

from mulligan.core import Sampler
from mulligan.samplers.diffused import with_sampler


class BandwidthForgotten(Sampler):
    """A kernel density that draws its centres only."""

    of: eqx.Module

    def sample(self, key, given=None):
        return self.of.cholesky @ self.of.whitened[jax.random.randint(key, (), 0, self.of.whitened.shape[0])]


class SwappedNoise(Sampler):
    """A factor model whose columns take each other's noise."""

    of: eqx.Module

    def sample(self, key, given=None):
        d, q = self.of.loadings.shape
        draws = jax.random.normal(key, (d + q,))
        return self.of.mean + self.of.loadings @ draws[:q] + jnp.sqrt(self.of.noise[::-1]) * draws[q:]


class VarianceForDeviation(Sampler):
    """A mixture that multiplies noise by covariances."""

    of: eqx.Module

    def sample(self, key, given=None):
        key_part, key_noise = jax.random.split(key)
        k = jax.random.categorical(key_part, self.of.log_weights)
        factor = self.of.choleskys[k]
        return self.of.means[k] + factor @ factor.T @ jax.random.normal(key_noise, (factor.shape[0],))


class EvenParts(Sampler):
    """A mixture that draws all parts alike."""

    of: eqx.Module

    def sample(self, key, given=None):
        return type(self.of)(jnp.zeros_like(self.of.log_weights), self.of.means, self.of.choleskys).sample(key)


class Transposed(Sampler):
    """A Gaussian that multiplies noise by Lᵀ."""

    of: eqx.Module

    def sample(self, key, given=None):
        return self.of.mean + self.of.cholesky.T @ jax.random.normal(key, self.of.mean.shape)


class AxesSwapped(Sampler):
    """A histogram that draws the columns in each other's place."""

    of: eqx.Module

    def sample(self, key, given=None):
        return self.of.sample(key)[::-1]


class LayerForgotten(Sampler):
    """A flow that leaves out its first layer when it samples."""

    of: eqx.Module

    def sample(self, key, given=None):
        layers = jax.tree.map(lambda leaf: leaf[1:], self.of.layers)
        return type(self.of)(layers, self.of.bound, self.of.bins).sample(key)


class FirstColumnUnseen(Sampler):
    """An autoregressive model whose later columns are drawn beside another draw of the first."""

    of: eqx.Module

    def sample(self, key, given=None):
        one, other = (self.of.sample(k) for k in jax.random.split(key))
        return one.at[0].set(other[0])


class WiderParts(Sampler):
    """A mixture of logistics whose draws are stretched by a fifth."""

    of: eqx.Module

    def sample(self, key, given=None):
        return 1.2 * self.of.sample(key)


class Constant(Sampler):
    """Draws 0."""

    of: eqx.Module

    def sample(self, key, given=None):
        return 0 * self.of.sample(key)


class ReferenceOnly(Sampler):
    """An energy-based model whose chains do not move."""

    of: eqx.Module

    def sample(self, key, given=None):
        return self.of.model.reference.sample(key)


class ReferenceTwice(Sampler):
    """An energy-based model whose jumps are weighted by f + log q, as if candidates came from a flat law."""

    of: eqx.Module

    def sample(self, key, given=None):
        pool = jax.vmap(self.of.model.reference.sample)(jax.random.split(key, 256))
        return pool[jax.random.categorical(key, jax.vmap(self.of.model.unnormalised)(pool))]


class HalfWay(Sampler):
    """An energy-based model drawn at β = 1/2."""

    of: eqx.Module

    def sample(self, key, given=None):
        pool = jax.vmap(self.of.model.reference.sample)(jax.random.split(key, 256))
        return pool[jax.random.categorical(key, 0.5 * jax.vmap(self.of.model.f)(pool))]


class StoppedEarly(Sampler):
    """A continuous flow whose paths stop on the way from noise to data."""

    of: eqx.Module

    def sample(self, key, given=None):
        times = self.of.times
        return type(self.of).sample(eqx.tree_at(lambda flow: flow.times, self.of, times + 0.4 * (1 - times)), key)


class FewStrokes(Sampler):
    """A diffusion model that goes from noise to data in two steps."""

    of: eqx.Module

    def sample(self, key, given=None):
        return with_sampler(self.of, "ddim", 2).sample(key)


TWINS = [
    ("continuous-flow", StoppedEarly),
    ("diffusion:score", FewStrokes),
    ("diffusion:ddpm", FewStrokes),
    ("diffusion:energy", FewStrokes),
    ("energy:nce", ReferenceOnly),
    ("energy:mle", ReferenceTwice),
    ("energy:score-matching", HalfWay),
    ("gaussian", Transposed),
    ("kde", BandwidthForgotten),
    ("mixture", VarianceForDeviation),
    ("mixture", EvenParts),
    ("factor:analysis", SwappedNoise),
    ("histogram", AxesSwapped),
    ("factor:ppca", Constant),
    ("flow:coupling", LayerForgotten),
    ("flow:autoregressive", FirstColumnUnseen),
    ("autoregressive", FirstColumnUnseen),
    ("logistic-mixture", WiderParts),
]
