"""Known laws under noise, in closed form: the scores that a diffusion model would have if it were perfect.

Definition. p_t is the law of x_t = α x_0 + σ e (``noising.py``). For a mixture Σ w_k N(μ_k, Σ_k) it is again a mixture,
Σ w_k N(α μ_k, α² Σ_k + σ² I), and so is the posterior of x_0. Rings become blurred rings (Bessel functions), squares
products of differences of Φ. Everywhere E[x_0|x_t] = (x_t + σ² ∇ log p_t)/α and Cov(x_0|x_t) = (σ² I + σ⁴ Hess log p_t)/α²
(Tweedie; Robbins 1956, Efron 2011). All of them answer to the methods of a trained denoiser, so every sampler runs on them.
Theory: chapter 9, ``diffusion.vincent``, ``diffusion.tweedie``, ``diffusion.ode_likelihood``.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import TYPE_CHECKING, Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import log_ndtr
from jaxtyping import Array, Float

from mulligan.core import NoisedScore
from mulligan.errors import UsageError
from mulligan.targets.curves import NoisyCurve, Rings
from mulligan.targets.gaussian import Gaussian, _floats
from mulligan.targets.mixture import GaussianMixture
from mulligan.targets.noising import Schedule, Time
from mulligan.targets.shapes import Checkerboard, GaussianHoles


class NoisedLaw(NoisedScore):
    """A known law under a ``schedule``: log p_t, its score, the posterior mean and covariance of x_0; x (d,), t a scalar."""

    if TYPE_CHECKING:  # a type checker takes an AbstractVar for a field of every law
        schedule: Schedule
    else:
        schedule: eqx.AbstractVar[Schedule]

    @abstractmethod
    def log_prob(self, x: Array, t: Time) -> Float[Array, ""]:
        """log p_t(x) in nats."""

    @abstractmethod
    def denoise(self, x: Array, t: Time) -> Float[Array, " d"]:
        """E[x_0 | x_t = x]."""

    @abstractmethod
    def covariance(self, x: Array, t: Time) -> Float[Array, "d d"]:
        """Cov(x_0 | x_t = x)."""

    def noise(self, x: Array, t: Time) -> Float[Array, " d"]:
        """E[e | x_t = x] = (x − α E[x_0|x_t])/σ."""
        return (x - self.schedule.alpha(t) * self.denoise(x, t)) / self.schedule.sigma(t)

    def velocity(self, x: Array, t: Time) -> Float[Array, " d"]:
        """dx/dt of the probability-flow ODE, f x − ½ g² ∇ log p_t(x); for t > 0."""
        return self.schedule.velocity(x, t, self.denoise(x, t))


class NoisedMixture(NoisedLaw):
    """A mixture of Gaussians under noise. Exact.

    With Σ_k = Σ_i λ_ik u_ik u_ikᵀ and v_ik = α² λ_ik + σ², everything is elementwise in z_ik = u_ik·(x − α μ_k): no
    factorisation depends on t. r_k are the responsibilities of p_t.

    Arguments: ``mixture``, known and not traced; ``schedule``.

    >>> from mulligan.targets.noising import EDM
    >>> law = NoisedMixture(GaussianMixture([0.0], [[1.0]], [[[2.0]]]), EDM())
    >>> round(float(law.denoise(jnp.asarray([6.0]), jnp.asarray(1.0))[0]), 4)  # 1 + (6 − 1) 4/5
    5.0
    """

    schedule: Schedule
    log_weights: Float[Array, " k"]
    means: Float[Array, "k d"]
    axes: Float[Array, "d k d"]  # u_ik; the short axis comes first: sums over a last axis of length 2 are slow
    centres: Float[Array, "d k"]  # u_ik·μ_k
    variances: Float[Array, "d k"]  # λ_ik

    def __init__(self, mixture: GaussianMixture, schedule: Schedule):
        factors = np.asarray(mixture.choleskys, np.float64)
        variances, vectors = np.linalg.eigh(factors @ factors.transpose(0, 2, 1))
        axes = vectors.transpose(2, 0, 1)
        self.schedule = schedule
        self.log_weights = jax.nn.log_softmax(mixture.log_weights)
        self.means = mixture.means
        self.axes = _floats(axes)
        self.centres = _floats(np.einsum("ikd,kd->ik", axes, np.asarray(mixture.means, np.float64)))
        self.variances = _floats(np.maximum(variances, 0.0).T)

    @property
    def dim(self) -> int:
        """d."""
        return self.means.shape[-1]

    def at(self, t: Time) -> GaussianMixture:
        """The law of x_t."""
        alpha, sigma = self.schedule.alpha(t), self.schedule.sigma(t)
        covariances = jnp.einsum("ikd,ik,ike->kde", self.axes, alpha**2 * self.variances + sigma**2, self.axes)
        return GaussianMixture(self.log_weights, alpha * self.means, jnp.linalg.cholesky(covariances))

    def _parts(self, x: Array, t: Time) -> tuple[Array, Array, Array, Array, Array]:
        """α, σ², z (d, k), v (d, k) and the joint log density of x and its component (k,)."""
        alpha, square = self.schedule.alpha(t), self.schedule.sigma(t) ** 2
        z = (self.axes.reshape(-1, self.dim) @ x).reshape(self.centres.shape) - alpha * self.centres
        v = alpha**2 * self.variances + square
        joint = self.log_weights - 0.5 * jnp.sum(z**2 / v + jnp.log(v), axis=0) - 0.5 * self.dim * math.log(2 * math.pi)
        return alpha, square, z, v, joint

    def log_prob(self, x: Array, t: Time) -> Float[Array, ""]:
        """log p_t(x) in nats, exact."""
        return jax.nn.logsumexp(self._parts(x, t)[-1])

    def responsibilities(self, x: Array, t: Time) -> Float[Array, " k"]:
        """p(component | x_t = x), exact."""
        return jax.nn.softmax(self._parts(x, t)[-1])

    def score(self, x: Array, t: Time) -> Float[Array, " d"]:
        """∇ log p_t(x) = −Σ_ik r_k z_ik/v_ik u_ik, exact."""
        *_, z, v, joint = self._parts(x, t)
        return -(jax.nn.softmax(joint) * z / v).ravel() @ self.axes.reshape(-1, self.dim)

    def denoise(self, x: Array, t: Time) -> Float[Array, " d"]:
        """E[x_0 | x_t = x] = Σ_k r_k μ_k + Σ_ik r_k α λ_ik z_ik/v_ik u_ik, exact."""
        alpha, _, z, v, joint = self._parts(x, t)
        along = self.centres + alpha * self.variances * z / v
        return (jax.nn.softmax(joint) * along).ravel() @ self.axes.reshape(-1, self.dim)

    def covariance(self, x: Array, t: Time) -> Float[Array, "d d"]:
        """Cov(x_0 | x_t = x), within the components and between them; exact."""
        alpha, square, z, v, joint = self._parts(x, t)
        r = jax.nn.softmax(joint)
        within = jnp.einsum("k,ik,ikd,ike->de", r, self.variances * square / v, self.axes, self.axes)
        means = jnp.einsum("ik,ikd->kd", self.centres + alpha * self.variances * z / v, self.axes)
        apart = means - r @ means
        return within + jnp.einsum("k,kd,ke->de", r, apart, apart)


class NoisedShape(NoisedLaw):
    """Rings, or the checkerboard, under noise: log p_t is a formula, and the rest follows from it by Tweedie. Exact.

    Rings of radius r_k and noise s: those of radius α r_k and noise √(α² s² + σ²). Checkerboard: with w = x/α and
    s = σ/α, p_t(x) = α⁻²/32 Σ_{filled i, j} F_i(w₁) F_j(w₂), F_i(u) = Φ((2i + 2 − u)/s) − Φ((2i − u)/s).

    Arguments: ``law``, ``schedule``.

    >>> from mulligan.targets.noising import EDM
    >>> law = NoisedShape(Checkerboard(), EDM())
    >>> round(float(jnp.exp(law.log_prob(jnp.asarray([1.0, 1.0]), jnp.asarray(0.01)))), 5)  # 1/32
    0.03125
    """

    schedule: Schedule
    law: Rings | Checkerboard

    def __init__(self, law: Rings | Checkerboard, schedule: Schedule):
        self.law, self.schedule = law, schedule

    def log_prob(self, x: Array, t: Time) -> Float[Array, ""]:
        """log p_t(x) in nats, exact."""
        alpha, sigma = self.schedule.alpha(t), self.schedule.sigma(t)
        if isinstance(self.law, Rings):
            return Rings(alpha * self.law.radii, jnp.sqrt((alpha * self.law.noise) ** 2 + sigma**2)).log_prob(x)
        return _blurred_board(x / alpha, sigma / alpha) - 2 * jnp.log(alpha)

    def score(self, x: Array, t: Time) -> Float[Array, " d"]:
        """∇ log p_t(x) by automatic differentiation."""
        return jax.grad(self.log_prob)(x, t)

    def denoise(self, x: Array, t: Time) -> Float[Array, " d"]:
        """E[x_0 | x_t = x] = (x + σ² ∇ log p_t)/α; not at α = 0."""
        return (x + self.schedule.sigma(t) ** 2 * self.score(x, t)) / self.schedule.alpha(t)

    def covariance(self, x: Array, t: Time) -> Float[Array, "d d"]:
        """Cov(x_0 | x_t = x) = (σ² I + σ⁴ Hess log p_t)/α²."""
        square = self.schedule.sigma(t) ** 2
        hessian = jax.hessian(self.log_prob)(x, t)
        return (square * jnp.eye(x.size, dtype=x.dtype) + square**2 * hessian) / self.schedule.alpha(t) ** 2


_EDGES = np.array([-4.0, -2.0, 0.0, 2.0, 4.0])  # of the columns and of the rows of the checkerboard


def _blurred_board(x: Array, sigma: Time) -> Float[Array, ""]:
    """log density of a uniform point of the checkerboard plus N(0, σ² I): even columns with even rows, odd with odd."""
    z = (jnp.asarray(_EDGES, x.dtype) - x[:, None]) / sigma
    low, high = z[:, :-1], z[:, 1:]
    # Φ(b) − Φ(a) = Φ(−a) − Φ(−b): on the side where both are small, so that their logarithms tell them apart.
    flip = low + high > 0
    low, high = jnp.where(flip, -high, low), jnp.where(flip, -low, high)
    larger = log_ndtr(high)
    share = larger + jnp.log(-jnp.expm1(log_ndtr(low) - larger))
    columns = [jax.nn.logsumexp(share[:, parity::2], axis=1).sum() for parity in (0, 1)]
    return jnp.logaddexp(*columns) - math.log(32.0)


def noised(law: Any, schedule: Schedule) -> NoisedLaw:
    """The law under the schedule, for laws whose noised score is a formula.

    These are ``Gaussian``, ``GaussianMixture``, ``GaussianHoles``, ``NoisyCurve`` (the sum of its quadrature is a mixture),
    ``Rings`` and ``Checkerboard``. Raises UsageError for any other.

    >>> from mulligan.targets.named import law
    >>> from mulligan.targets.noising import Walk
    >>> noised(law("moons"), Walk()).score(jnp.zeros(2), jnp.asarray(1.0)).shape
    (2,)
    """
    if isinstance(law, Rings | Checkerboard):
        return NoisedShape(law, schedule)
    if isinstance(law, Gaussian):
        return NoisedMixture(GaussianMixture(jnp.zeros(1), law.mean[None], law.cholesky[None]), schedule)
    if isinstance(law, GaussianMixture):
        return NoisedMixture(law, schedule)
    if isinstance(law, GaussianHoles):
        return NoisedMixture(law.mixture, schedule)
    if isinstance(law, NoisyCurve):
        factors = np.broadcast_to(np.asarray(law.noise) * np.eye(2), (len(law.points), 2, 2))
        return NoisedMixture(GaussianMixture(law.log_weights, law.points, _floats(factors)), schedule)
    raise UsageError(
        f"{type(law).__name__} has no noised score in closed form",
        "",
        "it is known for Gaussians, their mixtures, blurred curves and rings, and the checkerboard",
        "noised(law('eight-gaussians'), schedule)",
    )
