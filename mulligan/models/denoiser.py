"""Denoiser: what a diffusion model learns, the mean of the data that a noised point may have come from.

Definition. Under a schedule x_t = α x_0 + σ e the model gives D(x, t) ≈ E[x_0 | x_t = x], and with it the score
∇ log p_t = (α D − x)/σ², the noise ê = (x − α D)/σ and the velocity of the probability-flow ODE. For data N(m, A diag(λ) Aᵀ)
all of these are linear: with z = Aᵀ(x − α m) and τ² = α² λ + σ², coordinate by coordinate,

    E[x_0 | x_t] = m + A (α λ/τ²) z,    spread of x_0 around it σ √λ/τ.

The network F sees u = z/τ, which has variance 1 at every time, and c = log σ/(α √λ̄). What it gives is one of

    v       D = m + A ((α λ/τ²) z − (σ √λ/τ) F)    the v-prediction; with one λ, the preconditioning of Karras et al. (2022)
    noise   D = m + A (z − σ F)/α                  DDPM's ε
    data    D = m + A √λ F                         x_0
    score   D = m + A (z + σ² F/τ)/α               the score, scaled
    energy  F scalar, log p_t = −½|u|² + (α √λ̄/σ) F(u, c) + a constant of t: its score has no curl

With F = 0, where training starts, v and energy are the Gaussian fit of the data.
Theory: chapter 9, ``diffusion.parametrizations``, ``diffusion.tweedie``; chapter 10, ``relation.ebm``.
(Song et al. 2021; Salimans and Ho 2022; Karras et al. 2022.)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, Literal, NamedTuple, get_args

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from mulligan.core import NoisedScore
from mulligan.nets.time import make_average, make_timed_net
from mulligan.targets.noising import Schedule, Time

Output = Literal["v", "noise", "data", "score", "energy"]
OUTPUTS: tuple[str, ...] = get_args(Output)
MakeNetwork = Callable[[int, int, np.random.Generator], Any]  # of (inputs, outputs, generator)
LEAST_VARIANCE = 1e-8  # of the data's widest direction, added in every direction
_FARTHEST = 16.0  # of c: beyond it there is nothing but data, or nothing but noise


class Scales(NamedTuple):
    """At a time: α, σ, τ (d,), and the level c."""

    alpha: Float[Array, ""]
    sigma: Float[Array, ""]
    total: Float[Array, " d"]
    level: Float[Array, ""]


class Denoiser(NoisedScore):
    """E[x_0 | x_t = x] by a network, for x (d,) and t a scalar; ``given`` None or (g,). ``make_denoiser`` makes it.

    Fields: ``network`` F(u, c, given); ``schedule``; ``mean`` m (d,), ``axes`` A (d, d) and ``variances`` λ (d,) of the
    data, which are not learned; ``output`` says what F gives. ``axes`` None is A = I: a picture stays one for the network.

    >>> from mulligan.targets.noising import EDM
    >>> model = make_denoiser(2, EDM(), np.random.default_rng(0), width=8)
    >>> [round(float(v), 4) for v in model.denoise(jnp.asarray([1.0, -5.0]), jnp.asarray(2.0))]  # N(0, I): x/(1 + 4)
    [0.2, -1.0]
    """

    fixed: ClassVar[tuple[str, ...]] = ("schedule", "mean", "axes", "variances")
    network: Any
    schedule: Schedule
    mean: Float[Array, " d"]
    axes: Float[Array, "d d"] | None
    variances: Float[Array, " d"]
    output: Output = eqx.field(static=True, default="v")

    @property
    def dim(self) -> int:
        """d."""
        return self.mean.shape[0]

    def scales(self, t: Time) -> Scales:
        """α, σ, τ and c at a time."""
        alpha, sigma = self.schedule.alpha(t), self.schedule.sigma(t)
        total = jnp.sqrt(alpha**2 * self.variances + sigma**2)
        level = jnp.log(sigma) - jnp.log(alpha) - 0.5 * jnp.mean(jnp.log(self.variances))
        return Scales(alpha, sigma, total, jnp.clip(level, -_FARTHEST, _FARTHEST))

    def inward(self, x: Float[Array, " d"], scale: Any = 1.0) -> Float[Array, " d"]:
        """Aᵀ(x − scale · m): the coordinates in which the data are uncorrelated."""
        centred = x - scale * self.mean
        return centred if self.axes is None else centred @ self.axes

    def outward(self, z: Float[Array, " d"]) -> Float[Array, " d"]:
        """A z, the way back."""
        return z if self.axes is None else self.axes @ z

    def denoise(self, x: Float[Array, " d"], t: Time, given: Array | None = None) -> Float[Array, " d"]:
        """E[x_0 | x_t = x]."""
        scales = self.scales(t)
        return self.mean + self.outward(self.denoised(self.inward(x, scales.alpha), scales, given))

    def denoised(
        self, z: Float[Array, " d"], scales: Scales, given: Array | None = None, shown: Array | None = None
    ) -> Float[Array, " d"]:
        """Aᵀ(D − m) from z: what ``denoise`` is in uncorrelated coordinates. ``shown`` 0 hides what is given."""
        alpha, sigma, total, level = scales
        u, spread = z / total, jnp.sqrt(self.variances)
        known = () if given is None else (given,) if shown is None else (given, shown)
        if self.output == "energy":
            out = -jax.grad(lambda y: self.network(y, level, *known)[0])(u)
        else:
            out = self.network(u, level, *known)
        if self.output == "noise":
            return (z - sigma * out) / alpha
        if self.output == "data":
            return spread * out
        if self.output == "score":
            return (z + sigma**2 / total * out) / alpha
        wide = spread if self.output == "v" else self._common
        return alpha * self.variances / total * u - sigma * wide / total * out

    @property
    def _common(self) -> Float[Array, ""]:
        return jnp.exp(0.5 * jnp.mean(jnp.log(self.variances)))

    def score(self, x: Float[Array, " d"], t: Time, given: Array | None = None) -> Float[Array, " d"]:
        """∇ log p_t(x) = (α D − x)/σ²."""
        return self.schedule.score(x, t, self.denoise(x, t, given))

    def noise(self, x: Float[Array, " d"], t: Time, given: Array | None = None) -> Float[Array, " d"]:
        """E[e | x_t = x] = (x − α D)/σ."""
        return (x - self.schedule.alpha(t) * self.denoise(x, t, given)) / self.schedule.sigma(t)

    def velocity(self, x: Float[Array, " d"], t: Time, given: Array | None = None) -> Float[Array, " d"]:
        """dx/dt of the probability-flow ODE, f x − ½ g² ∇ log p_t(x); for t > 0."""
        return self.schedule.velocity(x, t, self.denoise(x, t, given))

    def energy(self, x: Float[Array, " d"], t: Time, given: Array | None = None) -> Float[Array, ""]:
        """−log p_t(x) up to a number that depends on t (and on what is given). Only where ``output`` is ``energy``.

        Raises ValueError elsewhere: a network of another output need not have a score that is a gradient.
        """
        if self.output != "energy":
            raise ValueError(f"a denoiser whose network gives {self.output} has no energy")
        alpha, sigma, total, level = self.scales(t)
        u = self.inward(x, alpha) / total
        return (
            0.5 * jnp.sum(u**2)
            - alpha * self._common / sigma * self.network(u, level, *(() if given is None else (given,)))[0]
        )

    def prior_log_prob(self, x: Float[Array, " d"], t: Time) -> Float[Array, ""]:
        """log N(x; α m, α² C + σ² I), the Gaussian fit under noise: what p_t is at the end of the schedule."""
        scales = self.scales(t)
        u = self.inward(x, scales.alpha) / scales.total
        return -0.5 * jnp.sum(u**2) - jnp.sum(jnp.log(scales.total)) - 0.5 * self.dim * np.log(2 * np.pi)

    def from_prior(self, noise: Float[Array, " d"], t: Time) -> Float[Array, " d"]:
        """A draw of that Gaussian from d standard normals."""
        scales = self.scales(t)
        return scales.alpha * self.mean + self.outward(scales.total * noise)


class Conditioned(NoisedScore):
    """A denoiser with what is given filled in: the form that samplers take. ``given`` None is the unconditional model."""

    model: Denoiser
    given: Float[Array, " g"] | None = None

    @property
    def schedule(self) -> Schedule:
        """The denoiser's."""
        return self.model.schedule

    def denoise(self, x: Float[Array, " d"], t: Time) -> Float[Array, " d"]:
        """E[x_0 | x_t = x, given]."""
        return self.model.denoise(x, t, self.given)

    def score(self, x: Float[Array, " d"], t: Time) -> Float[Array, " d"]:
        """∇ log p_t(x | given)."""
        return self.model.score(x, t, self.given)


def make_denoiser(
    dim: int,
    schedule: Schedule,
    generator: np.random.Generator,
    *,
    output: Output = "v",
    width: int = 128,
    depth: int = 3,
    waves: int = 0,
    bandwidth: float = 2.0,
    given: int = 0,
    members: int = 1,
    points: np.ndarray | None = None,
    whole: bool = False,
    network: MakeNetwork | None = None,
) -> Denoiser:
    """A denoiser of data in R^dim. ``points`` (n, dim) give m, A and λ (None: 0, I and 1). F is the mean of ``members``.

    ``whole`` keeps the coordinates as they are (A = I) and gives them one λ: what a network on pictures needs. ``network``
    makes F from (inputs, outputs, generator) in place of the library's. Raises ValueError for an unknown ``output``.
    """
    if output not in OUTPUTS:
        raise ValueError(f"output is {output!r}; expected one of {', '.join(OUTPUTS)}")
    outputs = 1 if output == "energy" else dim
    if network is not None:
        net = network(dim, outputs, generator)
    else:
        shape: dict[str, Any] = {"width": width, "depth": depth, "waves": waves, "bandwidth": bandwidth, "given": given}
        if members > 1:
            net = make_average(dim, outputs, generator, members=members, **shape)
        else:
            net = make_timed_net(dim, outputs, generator, **shape)
    mean, variances = np.zeros(dim), np.ones(dim)
    axes = None if whole else np.eye(dim)
    if points is not None:
        mean = points.mean(0, dtype=float)
        if whole:
            variances = np.full(dim, max(float(points.var(0, dtype=float).mean()), 1e-30))
        else:
            centred = points - mean
            variances, axes = np.linalg.eigh(centred.T @ centred / len(points))
            variances = np.maximum(variances, 0.0) + LEAST_VARIANCE * max(variances[-1], 1e-30)
    centre, spreads = (jnp.asarray(np.asarray(array, np.float32)) for array in (mean, variances))
    turned = None if axes is None else jnp.asarray(np.asarray(axes, np.float32))
    return Denoiser(net, schedule, centre, turned, spreads, output)
