"""Broken twins of conditioning through a latent vector; tests/laws/test_latent_conditioning_law.py must refuse each."""

from __future__ import annotations

import jax.numpy as jnp

from mulligan.workbench.latents import Decoded


class Renamed(Decoded):
    """The right one, in a program of its own."""


class EvidenceIgnored(Decoded):
    """Nothing is known."""

    def __call__(self, z):
        return jnp.zeros((), z.dtype)


class Squared(Decoded):
    """The likelihood counts twice."""

    def __call__(self, z):
        return 2 * super().__call__(z)


def everything_taken(log_ratio, uniform):
    return jnp.isfinite(log_ratio)
