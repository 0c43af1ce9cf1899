"""Guidance: wrappers that are denoisers themselves, so that no sampler has to know of them.

Definition. By Tweedie E[x_0|x_t] = (x_t + σ² ∇ log p_t)/α, so adding to the score adds σ²/α times as much to the denoised
point. Classifier-free guidance has the score ∇ log p_t(x) + w ∇ log p_t(c|x) = (1 − w) ∇ log p_t(x) + w ∇ log p_t(x|c)
(Ho & Salimans 2021). Conditioning on an observation y of x_0 has ∇ log p_t(x) + ∇ log p_t(y|x). Theory: chapter 9,
``diffusion.tweedie``, second order; chapter 10, ``relation.guided``.
"""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from mulligan.core import NoisedScore
from mulligan.models.denoiser import Conditioned
from mulligan.samplers.reverse import Denoiser
from mulligan.targets.noising import Schedule, Time


class Guided(NoisedScore):
    """D = D_away + w (D_towards − D_away): w = 1 is ``towards``, w = 0 is ``away``, w > 1 goes further. Two evaluations.

    For w other than 0 and 1 these are in general not the scores of one law under noise, so the samples are not from
    p(x) p(c|x)^w / Z: guidance buys agreement with c at the cost of variety.

    Arguments: ``towards`` and ``away``, denoisers of one schedule: the conditional and the unconditional model
    (``classifier_free``), or a model and a worse one (Karras et al. 2024); ``weight`` w; guidance acts where the noise
    σ/α is within ``low`` to ``high``, elsewhere w = 1 (Kynkäänniemi et al. 2024).

    >>> from mulligan.targets.noised import GaussianMixture, NoisedMixture
    >>> from mulligan.targets.noising import EDM
    >>> near, far = (NoisedMixture(GaussianMixture([0.0], [[m]], [[[1.0]]]), EDM()) for m in (1.0, 0.0))
    >>> round(float(Guided(near, far, 3.0).denoise(jnp.zeros(1), jnp.asarray(1.0))[0]), 4)  # 0 + 3 · ½
    1.5
    """

    towards: Denoiser
    away: Denoiser
    weight: Float[Array, ""] = eqx.field(converter=jnp.asarray, default=1.0)
    low: Float[Array, ""] = eqx.field(converter=jnp.asarray, default=0.0)
    high: Float[Array, ""] = eqx.field(converter=jnp.asarray, default=jnp.inf)

    @property
    def schedule(self) -> Schedule:
        """That of both."""
        return self.towards.schedule

    def denoise(self, x: Float[Array, " d"], t: Time) -> Float[Array, " d"]:
        """Away from the one, past the other."""
        ratio = self.schedule.sigma(t) / self.schedule.alpha(t)
        inside = (ratio >= self.low) & (ratio <= self.high)
        weight = jnp.where(inside, jnp.asarray(self.weight, x.dtype), 1.0)
        away = self.away.denoise(x, t)
        return away + weight * (self.towards.denoise(x, t) - away)

    def score(self, x: Float[Array, " d"], t: Time) -> Float[Array, " d"]:
        """(1 − w) ∇ log p_t(x) + w ∇ log p_t(x|c)."""
        return self.schedule.score(x, t, self.denoise(x, t))


def classifier_free(model: Any, given: Array, weight: Any, low: Any = 0.0, high: Any = jnp.inf) -> Guided:
    """Classifier-free guidance of a model whose ``denoise(x, t, given)`` also takes None: w = 1 is conditional sampling.

    (Ho & Salimans write 1 + w for this w.) Arguments: ``given`` (g,); ``weight`` w; ``low``, ``high`` of ``Guided``.
    """
    return Guided(Conditioned(model, given), Conditioned(model, None), weight, low, high)


class Observed(NoisedScore):
    """A denoiser given some coordinates of x_0: y = H x_0 + s e for the coordinates H named by ``index``.

    With C = Cov(x_0|x_t) = (σ²/α) ∂D/∂x (Tweedie) and p(x_0|x_t) taken as N(D, C), the posterior mean is that of Kalman,
    D + C Hᵀ (H C Hᵀ + s² I)⁻¹ (y − H D). Exact for Gaussian data; for others C differs between the modes that x_t may have
    come from, and the samples are approximate (Boys et al. 2023). As many reverse passes through the model as coordinates.
    Not at a time where α = 0.

    Arguments: ``model``; ``index`` (m,); ``values`` y (m,); ``noise`` s ≥ 0.

    >>> from mulligan.targets.noised import GaussianMixture, NoisedMixture
    >>> from mulligan.targets.noising import EDM
    >>> law = NoisedMixture(GaussianMixture.from_covariances([1.0], [[0.0, 0.0]], [[[1.0, 0.5], [0.5, 1.0]]]), EDM())
    >>> seen = Observed(law, jnp.asarray([0]), jnp.asarray([2.0]))
    >>> [round(float(v), 2) for v in seen.denoise(jnp.asarray([0.0, 0.0]), jnp.asarray(80.0))]
    [2.0, 1.0]
    """

    model: Denoiser
    index: Int[Array, " m"] = eqx.field(converter=jnp.asarray)
    values: Float[Array, " m"] = eqx.field(converter=jnp.asarray)
    noise: Float[Array, ""] = eqx.field(converter=jnp.asarray, default=0.0)

    @property
    def schedule(self) -> Schedule:
        """The model's."""
        return self.model.schedule

    def denoise(self, x: Float[Array, " d"], t: Time) -> Float[Array, " d"]:
        """E[x_0 | x_t = x, y] for a Gaussian posterior."""
        denoised, pull = jax.vjp(lambda y: self.model.denoise(y, t), x)
        picks = jax.nn.one_hot(self.index, x.size, dtype=x.dtype)
        rows = self.schedule.sigma(t) ** 2 / self.schedule.alpha(t) * jax.vmap(pull)(picks)[0]  # H C
        inner = rows[:, self.index]
        # A trained Jacobian need not be symmetric; and with s = 0 a datum that is certain has C = 0.
        inner = 0.5 * (inner + inner.T) + jnp.asarray(self.noise, x.dtype) ** 2 * jnp.eye(
            len(self.index), dtype=x.dtype
        )
        inner = inner + jnp.finfo(x.dtype).eps * jnp.trace(inner) * jnp.eye(len(self.index), dtype=x.dtype)
        return denoised + rows.T @ jnp.linalg.solve(inner, self.values - denoised[self.index])

    def score(self, x: Float[Array, " d"], t: Time) -> Float[Array, " d"]:
        """∇ log p_t(x|y) for a Gaussian posterior."""
        return self.schedule.score(x, t, self.denoise(x, t))
