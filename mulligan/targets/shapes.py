"""Laws of the plane made from Gaussians by volume-preserving maps, and the checkerboard. All exact.

Definition. If y ~ p_Y and x = T(y) with |det ∂T/∂y| = 1, then log p_X(x) = log p_Y(T⁻¹(x)), and the entropy does not
change. A shear x₂ = y₂ + g(x₁) and a rotation by an angle that depends on |y| only are such maps (banana, Rosenbrock,
pinwheel). Identity: ``mle.kl`` (the entropy is the best mean −log p).
"""

from __future__ import annotations

import math
from typing import ClassVar, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from mulligan.quantity import Quantity
from mulligan.targets.gaussian import _floats
from mulligan.targets.known import Holes, KnownLaw, disc_shares, exact_entropy, plane_entropy
from mulligan.targets.mixture import GaussianMixture

_LOG_2PI = math.log(2 * math.pi)


def _normal_log_prob(x: Array, mean: Array, sd: Array) -> Array:
    return -0.5 * ((x - mean) / sd) ** 2 - jnp.log(sd) - 0.5 * _LOG_2PI


class GaussianHoles(KnownLaw):
    """k Gaussians with one sd, apart from each other: p(x) = (1/k) Σ N(x; μ_k, sd² I).

    Arguments: ``means`` (k, 2), ``sd``. Its holes are the discs of three standard deviations around the means (the
    convention of VEEGAN, Srivastava et al. 2017).

    >>> GaussianHoles.ring(8, radius=2.0, sd=0.2).holes.shares.round(4)[:2]
    array([0.1236, 0.1236])
    """

    kind: ClassVar[Literal["exact", "numeric"]] = "exact"
    mixture: GaussianMixture
    sd: Float[Array, ""] = eqx.field(converter=_floats)

    def __init__(self, means: object, sd: float):
        means, self.sd = _floats(means), _floats(sd)
        k, d = means.shape
        factors = jnp.broadcast_to(self.sd * jnp.eye(d, dtype=means.dtype), (k, d, d))
        self.mixture = GaussianMixture(jnp.full(k, -math.log(k), means.dtype), means, factors)

    @classmethod
    def ring(cls, k: int, radius: float, sd: float) -> GaussianHoles:
        """k means at equal angles on a circle, the first at (radius, 0)."""
        angle = 2 * np.pi * np.arange(k) / k
        return cls(radius * np.stack([np.cos(angle), np.sin(angle)], axis=-1), sd)

    @classmethod
    def grid(cls, side: int, spacing: float, sd: float) -> GaussianHoles:
        """side² means on a square grid around 0."""
        axis = spacing * (np.arange(side) - (side - 1) / 2)
        return cls(np.stack(np.meshgrid(axis, axis, indexing="ij"), axis=-1).reshape(-1, 2), sd)

    @property
    def dim(self) -> int:
        """2."""
        return self.mixture.dim

    def log_prob(self, x: Array, given: Array | None = None) -> Float[Array, ""]:
        """log p(x) in nats, exact; x (2,)."""
        return self.mixture.log_prob(x)

    def sample(self, key: PRNGKeyArray, given: Array | None = None) -> Float[Array, 2]:
        """One draw, shape (2,)."""
        return self.mixture.sample(key)

    @property
    def holes(self) -> Holes:
        """One disc of radius 3 sd a mean; its share counts its neighbours' mass too (noncentral χ², exact)."""
        from scipy.special import chndtr

        centres, sd = np.asarray(self.mixture.means, np.float64), float(self.sd)
        distance2 = ((centres[:, None] - centres[None]) ** 2).sum(-1)
        shares = chndtr(9.0, 2.0, distance2 / sd**2).mean(axis=1)
        return Holes(centres, 3 * sd, shares)

    def entropy(self) -> Quantity:
        """−E log p, by quadrature over the plane."""
        means, sd = np.asarray(self.mixture.means, np.float64), float(self.sd)
        low, high = means.min(axis=0) - 9 * sd, means.max(axis=0) + 9 * sd
        return plane_entropy(self, tuple(low), tuple(high), sd / 3)


class Checkerboard(KnownLaw):
    """Uniform on eight of the sixteen cells of side 2 of [−4, 4]²: log p = −log 32 there, −∞ elsewhere.

    The cell with integer corner (2i, 2j) is filled where i + j is even.

    >>> float(Checkerboard().log_prob(jnp.array([1.0, -1.0])))
    -inf
    """

    kind: ClassVar[Literal["exact", "numeric"]] = "exact"

    @property
    def dim(self) -> int:
        """2."""
        return 2

    def log_prob(self, x: Array, given: Array | None = None) -> Float[Array, ""]:
        """−log 32 on the support, −∞ off it; x (2,)."""
        cell = jnp.floor(x / 2)
        inside = jnp.all((cell >= -2) & (cell < 2)) & (jnp.mod(jnp.sum(cell), 2) == 0)
        log_p = jnp.where(inside, -math.log(32.0), -jnp.inf).astype(x.dtype)
        return jnp.where(jnp.isnan(x).any(), jnp.nan, log_p)

    def sample(self, key: PRNGKeyArray, given: Array | None = None) -> Float[Array, 2]:
        """A filled cell, then a point in it; shape (2,)."""
        key_cell, key_point = jax.random.split(key)
        corner = jnp.asarray(_FILLED, float)[jax.random.randint(key_cell, (), 0, len(_FILLED))]
        return corner + 2 * jax.random.uniform(key_point, (2,), corner.dtype)

    @property
    def holes(self) -> Holes:
        """The discs inscribed in the cells: radius 1, mass π/32 each."""
        return Holes(_FILLED + 1.0, 1.0, np.full(len(_FILLED), math.pi / 32))

    def entropy(self) -> Quantity:
        """log 32, exact."""
        return exact_entropy(math.log(32.0))


_FILLED = np.array([(2.0 * i, 2.0 * j) for i in range(-2, 2) for j in range(-2, 2) if (i + j) % 2 == 0])


class Pinwheel(KnownLaw):
    """Gaussian arms along five rays, twisted: x = R(twist·|y|²) y, y ~ (1/5) Σ N(R_k (2, 0), R_k diag(.6², .2²) R_kᵀ).

    The angle depends on |y| = |x| only, so the map keeps areas and log p(x) = log p_Y(R(−twist·|x|²) x), exact. (The
    pinwheel of Johnson et al. 2016 rotates by a function of the first coordinate and has no such density.) Its holes
    are the discs of radius 1 around the twisted means.

    Arguments: ``twist`` in radians per squared unit.

    >>> bool(Pinwheel().entropy().kind == "numeric")
    True
    """

    kind: ClassVar[Literal["exact", "numeric"]] = "exact"
    arms: GaussianMixture
    twist: Float[Array, ""] = eqx.field(converter=_floats)

    def __init__(self, twist: float = 0.12):
        self.twist = _floats(twist)
        angle = 2 * np.pi * np.arange(5) / 5
        rotation = np.stack(
            [np.stack([np.cos(angle), -np.sin(angle)], -1), np.stack([np.sin(angle), np.cos(angle)], -1)], -2
        )
        covariances = rotation @ np.diag([0.36, 0.04]) @ rotation.transpose(0, 2, 1)
        self.arms = GaussianMixture.from_covariances(np.full(5, 0.2), rotation @ np.array([2.0, 0.0]), covariances)

    @property
    def dim(self) -> int:
        """2."""
        return 2

    def log_prob(self, x: Array, given: Array | None = None) -> Float[Array, ""]:
        """log p(x) in nats, exact; x (2,)."""
        return self.arms.log_prob(rotated(x, -self.twist * jnp.sum(x**2)))

    def sample(self, key: PRNGKeyArray, given: Array | None = None) -> Float[Array, 2]:
        """A draw from the straight arms, twisted; shape (2,)."""
        y = self.arms.sample(key)
        return rotated(y, self.twist * jnp.sum(y**2))

    @property
    def holes(self) -> Holes:
        """Five discs of radius 1 around the twisted means, with the mass inside them by quadrature."""
        means, twist = np.asarray(self.arms.means, np.float64), float(self.twist)
        angle = twist * (means**2).sum(axis=1)
        cos, sin = np.cos(angle), np.sin(angle)
        centres = np.stack([cos * means[:, 0] - sin * means[:, 1], sin * means[:, 0] + cos * means[:, 1]], axis=-1)
        return Holes(centres, 1.0, disc_shares(self, centres, 1.0))

    def entropy(self) -> Quantity:
        """−E log p: that of the straight arms, by quadrature."""
        return plane_entropy(self.arms, (-8.0, -8.0), (8.0, 8.0), 0.06)


def rotated(x: Float[Array, 2], angle: Array) -> Float[Array, 2]:
    """x turned counter-clockwise by ``angle`` radians."""
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    return jnp.stack([cos * x[0] - sin * x[1], sin * x[0] + cos * x[1]])


class Sheared(KnownLaw):
    """x₁ ~ N(m, s₁²), x₂ | x₁ ~ N(bend (x₁² − offset), s₂²): the banana, and Rosenbrock's valley. Exact, one mode.

    H = log(2πe s₁ s₂). Arguments: ``centre`` m, ``spread`` s₁, ``width`` s₂, ``bend``, ``offset``.

    >>> print(Sheared.banana().entropy())
    2.838 nats, exact
    """

    kind: ClassVar[Literal["exact", "numeric"]] = "exact"
    centre: Float[Array, ""] = eqx.field(converter=_floats)
    spread: Float[Array, ""] = eqx.field(converter=_floats)
    width: Float[Array, ""] = eqx.field(converter=_floats)
    bend: Float[Array, ""] = eqx.field(converter=_floats)
    offset: Float[Array, ""] = eqx.field(converter=_floats)

    @classmethod
    def banana(cls) -> Sheared:
        """x₁ ~ N(0, 2²), x₂ | x₁ ~ N(¼(x₁² − 4), ½²): both coordinates have mean 0 (after Haario et al. 1999)."""
        return cls(*map(jnp.asarray, (0.0, 2.0, 0.5, 0.25, 4.0)))

    @classmethod
    def rosenbrock(cls) -> Sheared:
        """p ∝ exp(−(x₁ − 1)²/20 − 5 (x₂ − x₁²)²), the 2-D hybrid Rosenbrock law (Pagani, Wiegand, Nadarajah 2022)."""
        return cls(*map(jnp.asarray, (1.0, math.sqrt(10.0), math.sqrt(0.1), 1.0, 0.0)))

    @property
    def dim(self) -> int:
        """2."""
        return 2

    def _valley(self, x1: Array) -> Array:
        return self.bend * (x1**2 - self.offset)

    def log_prob(self, x: Array, given: Array | None = None) -> Float[Array, ""]:
        """log p(x₁) + log p(x₂ | x₁) in nats, exact; x (2,)."""
        first = _normal_log_prob(x[0], self.centre, self.spread)
        return first + _normal_log_prob(x[1], self._valley(x[0]), self.width)

    def sample(self, key: PRNGKeyArray, given: Array | None = None) -> Float[Array, 2]:
        """x₁, then x₂ given x₁; shape (2,)."""
        e = jax.random.normal(key, (2,), self.spread.dtype)
        x1 = self.centre + self.spread * e[0]
        return jnp.stack([x1, self._valley(x1) + self.width * e[1]])

    @property
    def holes(self) -> None:
        """None: one mode."""
        return None

    def entropy(self) -> Quantity:
        """log(2πe s₁ s₂), exact."""
        return exact_entropy(_LOG_2PI + 1 + math.log(float(self.spread)) + math.log(float(self.width)))


class Funnel(KnownLaw):
    """x₁ ~ N(0, 3²), x_j | x₁ ~ N(0, e^{x₁}) for j > 1 (Neal 2003, Slice sampling, section 8). Exact, one mode.

    H = (d/2) log 2πe + log 3, as E x₁ = 0. Argument: ``dimensions`` d ≥ 2.

    >>> Funnel().dim
    2
    """

    kind: ClassVar[Literal["exact", "numeric"]] = "exact"
    dimensions: int = eqx.field(static=True, default=2)

    @property
    def dim(self) -> int:
        """d."""
        return self.dimensions

    def log_prob(self, x: Array, given: Array | None = None) -> Float[Array, ""]:
        """log p(x₁) + Σ log p(x_j | x₁) in nats, exact; x (d,)."""
        v, rest = x[0], x[1:]
        z = rest * jnp.exp(-v / 2)
        first = _normal_log_prob(v, jnp.zeros_like(v), jnp.full_like(v, 3.0))
        return first - 0.5 * jnp.sum(z**2) - 0.5 * (self.dimensions - 1) * (v + _LOG_2PI)

    def sample(self, key: PRNGKeyArray, given: Array | None = None) -> Float[Array, " d"]:
        """x₁, then the others given x₁; shape (d,)."""
        e = jax.random.normal(key, (self.dimensions,))
        v = 3 * e[0]
        return jnp.concatenate([v[None], jnp.exp(v / 2) * e[1:]])

    @property
    def holes(self) -> None:
        """None: one mode."""
        return None

    def entropy(self) -> Quantity:
        """(d/2) log 2πe + log 3, exact."""
        return exact_entropy(0.5 * self.dimensions * (_LOG_2PI + 1) + math.log(3.0))
