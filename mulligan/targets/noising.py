"""Noising: how a law is mixed with Gaussian noise as time goes on.

Definition. x_t = α(t) x_0 + σ(t) e with e ~ N(0, I). It is the law at time t of dx = f x dt + g dB with drift
f = d log α/dt and g² = dσ²/dt − 2 f σ². For s < t let α_{t|s} = α_t/α_s and σ²_{t|s} = σ_t² − α²_{t|s} σ_s²; then
x_t | x_s ~ N(α_{t|s} x_s, σ²_{t|s} I), and the bridge q(x_s | x_t, x_0) is the Gaussian with mean
(α_{t|s} σ_s²/σ_t²) x_t + (α_s σ²_{t|s}/σ_t²) x_0 and variance σ²_{t|s} σ_s²/σ_t².
Theory: chapter 9, ``diffusion.jump``, ``diffusion.kl_chain``; chapter 10, ``relation.flow``.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import TYPE_CHECKING, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mulligan.targets.gaussian import _floats

Time = Float[Array, ""]
OFFSET = 0.008  # of the cosine schedule (Nichol & Dhariwal 2021): keeps its first steps from being too small


class Jump(NamedTuple):
    """x_t | x_s ~ N(scale x_s, variance I)."""

    scale: Float[Array, ""]
    variance: Float[Array, ""]


class Bridge(NamedTuple):
    """x_s | x_t, x_0 ~ N(of_x_t x_t + of_x_0 x_0, variance I)."""

    of_x_t: Float[Array, ""]
    of_x_0: Float[Array, ""]
    variance: Float[Array, ""]


class Schedule(eqx.Module):
    """x_t = α(t) x_0 + σ(t) e for t from ``t_min`` to ``t_max``; t is a float array, a scalar, and may be traced.

    ``t_min`` is where samplers and likelihoods stop: σ(t_min) is small beside the data, and 0 itself may be singular.
    Fields are given by name: ``Walk(rate=2.0, t_max=100.0)``.
    """

    if TYPE_CHECKING:  # a type checker takes an AbstractVar for a field of every schedule
        t_min: Float[Array, ""]
        t_max: Float[Array, ""]
    else:
        t_min: eqx.AbstractVar[Float[Array, ""]]
        t_max: eqx.AbstractVar[Float[Array, ""]]

    @abstractmethod
    def alpha(self, t: Time) -> Time:
        """α(t), the factor of the datum; α(0) = 1."""

    @abstractmethod
    def sigma(self, t: Time) -> Time:
        """σ(t), the standard deviation of the noise; σ(0) = 0."""

    @abstractmethod
    def drift(self, t: Time) -> Time:
        """f(t) = d log α/dt."""

    @abstractmethod
    def diffusion(self, t: Time) -> Time:
        """g²(t) = dσ²/dt − 2 f σ²."""

    @abstractmethod
    def at_noise(self, ratio: Time) -> Time:
        """The time at which σ(t)/α(t) is ``ratio``."""

    @abstractmethod
    def grid(self, steps: int) -> Float[Array, " n+1"]:
        """The usual times of this schedule, ``steps`` + 1 of them, from t_max down to t_min."""

    def log_ratio(self, t: Time) -> Time:
        """λ(t) = log α/σ, half the log of the signal-to-noise ratio: falls from ∞ at 0."""
        return jnp.log(self.alpha(t)) - jnp.log(self.sigma(t))

    def flow(self, t: Time) -> tuple[Time, Time]:
        """Coefficients (a, b) of the probability-flow ODE in terms of the denoiser: dx/dt = a x + b E[x_0|x_t = x].

        a = σ'/σ and b = α' − α σ'/σ; the same as f x − ½ g² ∇ log p_t, but finite where α = 0. For t > 0.
        """
        alpha, alpha_rate = jax.jvp(self.alpha, (t,), (jnp.ones_like(t),))
        sigma, sigma_rate = jax.jvp(self.sigma, (t,), (jnp.ones_like(t),))
        growth = sigma_rate / sigma
        return growth, alpha_rate - alpha * growth

    def score(self, x: Array, t: Time, denoised: Array) -> Array:
        """∇ log p_t(x) = (α E[x_0|x_t = x] − x)/σ², from the denoised x (Tweedie).

        >>> float(EDM().score(jnp.asarray(3.0), jnp.asarray(2.0), jnp.asarray(1.0)))
        -0.5
        """
        return (self.alpha(t) * denoised - x) / self.sigma(t) ** 2

    def velocity(self, x: Array, t: Time, denoised: Array) -> Array:
        """dx/dt = f x − ½ g² ∇ log p_t(x) of the probability-flow ODE, from the denoised x; for t > 0."""
        of_x, of_denoised = self.flow(t)
        return of_x * x + of_denoised * denoised

    def jump(self, s: Time, t: Time) -> Jump:
        """The law of x_t given x_s, s ≤ t: scale α_{t|s} = α_t/α_s and variance σ²_{t|s} = σ_t² − α²_{t|s} σ_s²."""
        scale = self.alpha(t) / self.alpha(s)
        return Jump(scale, self.sigma(t) ** 2 - (scale * self.sigma(s)) ** 2)

    def bridge(self, s: Time, t: Time) -> Bridge:
        """The law of x_s given x_t and x_0, s ≤ t: at s = 0 it is x_0 itself.

        >>> schedule = Walk()
        >>> [round(float(v), 4) for v in schedule.bridge(jnp.asarray(1.0), jnp.asarray(4.0))]
        [0.25, 0.75, 0.75]
        """
        scale, variance = self.jump(s, t)
        kept, gained = (self.sigma(s) / self.sigma(t)) ** 2, variance / self.sigma(t) ** 2
        return Bridge(scale * kept, self.alpha(s) * gained, variance * kept)


class Walk(Schedule):
    """The notes' random walk, variance exploding: x_t = x_0 + σ√t e, so f = 0 and g² = σ².

    Arguments: ``rate`` σ; ``t_min``, ``t_max`` (noise of .002 to 20 by default, for data of unit scale). Its usual times
    are geometric (Song et al. 2021); the notes' equal steps are ``jnp.linspace(t_max, t_min, n + 1)``.

    >>> float(Walk(rate=2.0).sigma(jnp.asarray(9.0)))
    6.0
    """

    rate: Float[Array, ""] = eqx.field(converter=_floats, default=1.0)
    t_min: Float[Array, ""] = eqx.field(converter=_floats, default=4e-6)
    t_max: Float[Array, ""] = eqx.field(converter=_floats, default=400.0)

    def alpha(self, t: Time) -> Time:
        """1."""
        return jnp.ones_like(t)

    def sigma(self, t: Time) -> Time:
        """σ√t."""
        return self.rate * jnp.sqrt(t)

    def drift(self, t: Time) -> Time:
        """0."""
        return jnp.zeros_like(t)

    def diffusion(self, t: Time) -> Time:
        """σ²."""
        return self.rate**2 * jnp.ones_like(t)

    def at_noise(self, ratio: Time) -> Time:
        """(ratio/σ)²."""
        return (ratio / self.rate) ** 2

    def grid(self, steps: int) -> Float[Array, " n+1"]:
        """Geometric."""
        return _between(jnp.exp(jnp.linspace(jnp.log(self.t_max), jnp.log(self.t_min), steps + 1)), self)


class VariancePreserving(Schedule):
    """DDPM's linear β in continuous time: β(t) = β₀ + t (β₁ − β₀), log α = −½ ∫₀ᵗ β, σ² = 1 − α²; f = −½β, g² = β.

    Arguments: ``beta_min`` β₀, ``beta_max`` β₁ (per unit of time: a thousand times those of a thousand steps), ``t_min``,
    ``t_max``. Equal steps. Ho et al. (2020), Song et al. (2021).

    >>> schedule, t = VariancePreserving(), jnp.asarray(0.5)
    >>> round(float(schedule.alpha(t) ** 2 + schedule.sigma(t) ** 2), 6)
    1.0
    """

    beta_min: Float[Array, ""] = eqx.field(converter=_floats, default=0.1)
    beta_max: Float[Array, ""] = eqx.field(converter=_floats, default=20.0)
    t_min: Float[Array, ""] = eqx.field(converter=_floats, default=1e-3)
    t_max: Float[Array, ""] = eqx.field(converter=_floats, default=1.0)

    def _log_alpha(self, t: Time) -> Time:
        return -0.5 * t * (self.beta_min + 0.5 * t * (self.beta_max - self.beta_min))

    def alpha(self, t: Time) -> Time:
        """exp(−½ ∫₀ᵗ β)."""
        return jnp.exp(self._log_alpha(t))

    def sigma(self, t: Time) -> Time:
        """√(1 − α²), to full precision for small t."""
        return jnp.sqrt(-jnp.expm1(2 * self._log_alpha(t)))

    def drift(self, t: Time) -> Time:
        """−½ β."""
        return -0.5 * self.diffusion(t)

    def diffusion(self, t: Time) -> Time:
        """β."""
        return self.beta_min + t * (self.beta_max - self.beta_min)

    def at_noise(self, ratio: Time) -> Time:
        """The root of ∫₀ᵗ β = log(1 + ratio²), in the form without cancellation."""
        total, slope = jnp.log1p(ratio**2), self.beta_max - self.beta_min
        return 2 * total / (self.beta_min + jnp.sqrt(self.beta_min**2 + 2 * slope * total))

    def grid(self, steps: int) -> Float[Array, " n+1"]:
        """Equal steps."""
        return jnp.linspace(self.t_max, self.t_min, steps + 1)


class Cosine(Schedule):
    """The cosine schedule: α = cos φ(t)/cos φ(0) with φ(t) = (π/2)(t + .008)/1.008, σ² = 1 − α²; f = −φ' tan φ, g² = −2f.

    Variance preserving. At t = 1 its drift is infinite, so ``t_max`` is a little less. Equal steps. Nichol & Dhariwal
    (2021).

    >>> round(float(Cosine().alpha(jnp.asarray(0.5))), 4)
    0.7027
    """

    t_min: Float[Array, ""] = eqx.field(converter=_floats, default=1e-4)
    t_max: Float[Array, ""] = eqx.field(converter=_floats, default=0.999)

    def _angle(self, t: Time) -> Time:
        return 0.5 * math.pi * (t + OFFSET) / (1 + OFFSET)

    def alpha(self, t: Time) -> Time:
        """cos φ(t)/cos φ(0)."""
        return jnp.cos(self._angle(t)) / jnp.cos(self._angle(jnp.zeros_like(t)))

    def sigma(self, t: Time) -> Time:
        """√(cos² φ(0) − cos² φ(t))/cos φ(0), by the product of sines: to full precision for small t."""
        low, turned = self._angle(jnp.zeros_like(t)), 0.5 * math.pi * t / (1 + OFFSET)
        return jnp.sqrt(jnp.sin(2 * low + turned) * jnp.sin(turned)) / jnp.cos(low)

    def drift(self, t: Time) -> Time:
        """−φ' tan φ."""
        return -0.5 * math.pi / (1 + OFFSET) * jnp.tan(self._angle(t))

    def diffusion(self, t: Time) -> Time:
        """−2 f."""
        return -2 * self.drift(t)

    def at_noise(self, ratio: Time) -> Time:
        """From cos φ(t) = cos φ(0)/√(1 + ratio²)."""
        angle = jnp.arccos(jnp.cos(self._angle(jnp.zeros_like(ratio))) / jnp.sqrt(1 + ratio**2))
        return angle * 2 * (1 + OFFSET) / math.pi - OFFSET

    def grid(self, steps: int) -> Float[Array, " n+1"]:
        """Equal steps."""
        return jnp.linspace(self.t_max, self.t_min, steps + 1)


class EDM(Schedule):
    """Time is noise: α = 1, σ(t) = t, so f = 0 and g² = 2t; t_i = (t_max^{1/ρ} + (i/n)(t_min^{1/ρ} − t_max^{1/ρ}))^ρ.

    Arguments: ``t_min``, ``t_max``, ``rho`` ρ = 7 (for data of unit scale 80 is far: 20 is enough). Karras et al. (2022).

    >>> [round(float(t), 4) for t in EDM(t_min=0.1, t_max=10.0).grid(2)]
    [10.0, 1.4507, 0.1]
    """

    t_min: Float[Array, ""] = eqx.field(converter=_floats, default=0.002)
    t_max: Float[Array, ""] = eqx.field(converter=_floats, default=80.0)
    rho: Float[Array, ""] = eqx.field(converter=_floats, default=7.0)

    def alpha(self, t: Time) -> Time:
        """1."""
        return jnp.ones_like(t)

    def sigma(self, t: Time) -> Time:
        """t."""
        return t

    def drift(self, t: Time) -> Time:
        """0."""
        return jnp.zeros_like(t)

    def diffusion(self, t: Time) -> Time:
        """2t."""
        return 2 * t

    def at_noise(self, ratio: Time) -> Time:
        """The ratio itself."""
        return ratio

    def grid(self, steps: int) -> Float[Array, " n+1"]:
        """Equal steps of t^{1/ρ}."""
        low, high = self.t_min ** (1 / self.rho), self.t_max ** (1 / self.rho)
        return _between(jnp.linspace(high, low, steps + 1) ** self.rho, self)


class Straight(Schedule):
    """Straight lines from datum to noise: x_t = (1 − t) x_0 + t e; f = −1/(1 − t), g² = 2t/(1 − t). Flow matching.

    At t = 1 the law is N(0, I). There f and g² are infinite but ``flow``, ``jump`` and ``bridge`` are not, so every sampler
    but the reverse SDE may start at 1. Equal steps. Lipman et al. (2023), Liu et al. (2023).

    >>> [float(v) for v in Straight().flow(jnp.asarray(0.5))]
    [2.0, -2.0]
    """

    t_min: Float[Array, ""] = eqx.field(converter=_floats, default=1e-3)
    t_max: Float[Array, ""] = eqx.field(converter=_floats, default=1.0)

    def alpha(self, t: Time) -> Time:
        """1 − t."""
        return 1 - t

    def sigma(self, t: Time) -> Time:
        """t."""
        return t

    def drift(self, t: Time) -> Time:
        """−1/(1 − t)."""
        return -1 / (1 - t)

    def diffusion(self, t: Time) -> Time:
        """2t/(1 − t)."""
        return 2 * t / (1 - t)

    def at_noise(self, ratio: Time) -> Time:
        """ratio/(1 + ratio)."""
        return ratio / (1 + ratio)

    def grid(self, steps: int) -> Float[Array, " n+1"]:
        """Equal steps."""
        return jnp.linspace(self.t_max, self.t_min, steps + 1)


def _between(times: Float[Array, " n+1"], schedule: Schedule) -> Float[Array, " n+1"]:
    # A power or an exponential rounds the two ends.
    return times.at[0].set(schedule.t_max).at[-1].set(schedule.t_min)
