"""Broken twins of the bound that stands for log p of pictures: tests/exact/test_unet_diffusion.py must refuse each."""

from __future__ import annotations

from dataclasses import fields

import jax
import jax.numpy as jnp

from mulligan.objectives.denoising import continuous_bound
from mulligan.samplers.diffused import Diffusion


class OneLevel(Diffusion):
    """All levels in the middle of the range in place of one in each part."""

    def each_bound(self, key, x, k, given=None):
        noise = jax.random.normal(key, (k, 1, x.size), x.dtype)
        middle = jnp.full((1,), 0.5, x.dtype)
        return jax.lax.map(lambda e: continuous_bound(self.denoiser, x, e, middle, given), noise)


class Upper(Diffusion):
    """Levels from the upper half alone: an offset that is not divided by their number."""

    def each_bound(self, key, x, k, given=None):
        noise = jax.random.normal(key, (k, 1, x.size), x.dtype)
        places = 0.5 + 0.5 * jnp.arange(k, dtype=x.dtype)[:, None] / k
        return jax.lax.map(lambda pair: continuous_bound(self.denoiser, x, *pair, given), (noise, places))


class Summed(Diffusion):
    """The terms of the levels are added where they should be averaged."""

    def each_bound(self, key, x, k, given=None):
        return super().each_bound(key, x, k, given) * k


BOUNDS = {
    cls.__doc__.split(":")[0]: lambda law, cls=cls: cls(**{f.name: getattr(law, f.name) for f in fields(law)})
    for cls in (OneLevel, Upper, Summed)
}
