"""Curves in the plane blurred by Gaussian noise: x = c(t) + σ e.

Definition. p(x) = ∫ N(x; c(t), σ² I) w(t) dt. For a circle of radius r and a uniform angle the integral is a Bessel
function, p(x) = exp(−(|x|² + r²)/2σ²) I₀(r|x|/σ²)/(2πσ²), exact; for other curves it is a Gauss-Legendre sum, which
converges geometrically once its nodes are closer than the noise. Draws use the curve itself, never the nodes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import ClassVar, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import i0e
from jaxtyping import Array, Float, PRNGKeyArray

from mulligan.quantity import Quantity
from mulligan.targets.gaussian import _floats
from mulligan.targets.known import KnownLaw, gauss_legendre, log_prob_float64, numeric_entropy, plane_entropy


class Rings(KnownLaw):
    """Circles around 0 with equal weights, blurred: p(x) = (1/k) Σ e^{−(|x|−r_k)²/2σ²} I₀ₑ(r_k|x|/σ²)/(2πσ²). Exact.

    I₀ₑ(z) = e^{−z} I₀(z). Arguments: ``radii`` (k,) > 0, ``noise`` σ.

    >>> round(Rings([3.0, 1.5], 0.24).entropy().value, 4)
    3.2681
    """

    kind: ClassVar[Literal["exact", "numeric"]] = "exact"
    radii: Float[Array, " k"] = eqx.field(converter=_floats)
    noise: Float[Array, ""] = eqx.field(converter=_floats)

    @property
    def dim(self) -> int:
        """2."""
        return 2

    def log_prob(self, x: Array, given: Array | None = None) -> Float[Array, ""]:
        """log p(x) in nats, exact; x (2,)."""
        square = jnp.sum(x**2)
        # |x| has no gradient at 0, where the law's own is 0: the inner where keeps NaN out of the chain rule.
        radius = jnp.where(square == 0, 0.0, jnp.sqrt(jnp.where(square == 0, 1.0, square)))
        variance = self.noise**2
        bessel = jnp.log(i0e(self.radii * radius / variance))
        terms = -0.5 * (radius - self.radii) ** 2 / variance + bessel
        return jax.nn.logsumexp(terms) - jnp.log(2 * math.pi * variance * self.radii.size)

    def sample(self, key: PRNGKeyArray, given: Array | None = None) -> Float[Array, 2]:
        """A circle, an angle, the noise; shape (2,)."""
        key_ring, key_angle, key_noise = jax.random.split(key, 3)
        radius = self.radii[jax.random.randint(key_ring, (), 0, self.radii.size)]
        angle = 2 * math.pi * jax.random.uniform(key_angle, (), radius.dtype)
        point = radius * jnp.stack([jnp.cos(angle), jnp.sin(angle)])
        return point + self.noise * jax.random.normal(key_noise, (2,), radius.dtype)

    @property
    def holes(self) -> None:
        """None: a ring has no separated modes."""
        return None

    def entropy(self) -> Quantity:
        """−2π ∫ p(r) log p(r) r dr by the trapezoid rule in the radius."""
        noise, outer = float(self.noise), float(self.radii.max())
        radius = np.linspace(0.0, outer + 10 * noise, 2 * math.ceil((outer / noise + 10) * 32) + 1)
        log_p = log_prob_float64(self, np.stack([radius, 0 * radius], axis=-1))
        values, mass = [], 0.0
        for stride in (2, 1):
            r, lp = radius[::stride], log_p[::stride]
            weight = 2 * np.pi * r * np.exp(lp) * (r[1] - r[0])
            values.append(float(-weight @ np.where(weight > 0, lp, 0.0)))
            mass = float(weight.sum())
        return numeric_entropy(values[1], abs(values[1] - values[0]) + (1 + abs(values[1])) * abs(1 - mass) + 1e-12)


Curve = Callable[[Array], Array]


def upper_and_lower_moon(t: Array) -> Float[Array, "2 2"]:
    """The two arcs of scikit-learn's ``make_moons`` at t in [0, 1]: (cos πt, sin πt) and (1 − cos πt, ½ − sin πt)."""
    cos, sin = jnp.cos(math.pi * t), jnp.sin(math.pi * t)
    return jnp.stack([jnp.stack([cos, sin]), jnp.stack([1 - cos, 0.5 - sin])])


def two_spirals(t: Array) -> Float[Array, "2 2"]:
    """Two Archimedean arms at t in [0, 1], one turned by half a turn: ±πt (−cos 3πt, sin 3πt)."""
    arm = math.pi * t * jnp.stack([-jnp.cos(3 * math.pi * t), jnp.sin(3 * math.pi * t)])
    return jnp.stack([arm, -arm])


class NoisyCurve(KnownLaw):
    """Two curves of equal weight, blurred: p(x) = ½ Σ_j ∫₀¹ N(x; c_j(t(u)), σ² I) du with t(u) = u^{1/power}. Numeric.

    Arguments: ``curve`` (a module-level function from t in [0, 1] to the two points (2, 2)), ``noise`` σ, ``power`` (t
    has the density power·t^{power−1}: 1 is a uniform angle, 2 makes an Archimedean spiral evenly dense), ``nodes`` of
    the quadrature. In float64 and out to twice the extent of the curve, log_prob is within 1e-10 of finer quadrature
    for ``moons`` and within 3e-9 for ``spirals``, whose values reach −2000 there.

    >>> round(NoisyCurve.moons().entropy().value, 3)
    1.008
    """

    kind: ClassVar[Literal["exact", "numeric"]] = "numeric"
    curve: Curve = eqx.field(static=True)
    noise: Float[Array, ""] = eqx.field(converter=_floats)
    power: int = eqx.field(static=True)
    points: Float[Array, "n 2"] = eqx.field(converter=_floats)
    log_weights: Float[Array, " n"] = eqx.field(converter=_floats)

    def __init__(self, curve: Curve, noise: float, power: int = 1, nodes: int = 192):
        self.curve, self.noise, self.power = curve, _floats(noise), power
        t, weight = gauss_legendre(nodes, 0.0, 1.0)
        self.points = jax.vmap(curve, out_axes=1)(_floats(t)).reshape(-1, 2)
        self.log_weights = _floats(np.tile(np.log(0.5 * weight * power * t ** (power - 1)), 2))

    @classmethod
    def moons(cls, noise: float = 0.1) -> NoisyCurve:
        """scikit-learn's two moons with uniform angles."""
        return cls(upper_and_lower_moon, noise)

    @classmethod
    def spirals(cls, noise: float = 0.1) -> NoisyCurve:
        """Two arms of 1.5 turns out to radius π (the geometry of FFJORD's ``2spirals``, Grathwohl et al. 2019)."""
        return cls(two_spirals, noise, power=2, nodes=640)

    @property
    def dim(self) -> int:
        """2."""
        return 2

    def log_prob(self, x: Array, given: Array | None = None) -> Float[Array, ""]:
        """log p(x) in nats by quadrature; x (2,)."""
        # Coordinates apart: a sum over an axis of length 2 is not vectorised and costs five times as much.
        square = (x[0] - self.points[:, 0]) ** 2 + (x[1] - self.points[:, 1]) ** 2
        terms = self.log_weights - 0.5 * square / self.noise**2
        return jax.nn.logsumexp(terms) - jnp.log(2 * math.pi * self.noise**2)

    def sample(self, key: PRNGKeyArray, given: Array | None = None) -> Float[Array, 2]:
        """An arm, a point on it, the noise; shape (2,)."""
        key_arm, key_t, key_noise = jax.random.split(key, 3)
        arm = jax.random.randint(key_arm, (), 0, 2)
        t = jax.random.uniform(key_t, (), self.noise.dtype) ** (1 / self.power)
        return self.curve(t)[arm] + self.noise * jax.random.normal(key_noise, (2,), self.noise.dtype)

    @property
    def holes(self) -> None:
        """None: a curve has no separated modes."""
        return None

    def entropy(self) -> Quantity:
        """−E log p, by quadrature over the plane."""
        points, noise = np.asarray(self.points, np.float64), float(self.noise)
        low, high = points.min(axis=0) - 9 * noise, points.max(axis=0) + 9 * noise
        return plane_entropy(self, tuple(low), tuple(high), noise / 3)
