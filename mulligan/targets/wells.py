"""The double well: two modes of unequal weight with a barrier between them, the simplest law on which local moves fail.

Definition. p(x₁, x₂) = exp(−(a x₁⁴/4 − b x₁²/2 + c x₁))/Z · N(x₂; 0, 1) (after Noé et al. 2019, with a smaller barrier
and tilt). Z by Gauss-Legendre quadrature in float64. Experiment: ``tempering.slow``.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from mulligan.errors import UsageError
from mulligan.quantity import Quantity
from mulligan.targets.gaussian import _floats
from mulligan.targets.known import Holes, KnownLaw, disc_shares, gauss_legendre, numeric_entropy

_LOG_2PI = math.log(2 * math.pi)


class DoubleWell(KnownLaw):
    """A tilted double well in x₁ times a standard Gaussian in x₂. Numeric: its log Z is good to 1e-12.

    Arguments: ``a`` > 0, ``b`` > 0, ``c``: the energy in x₁ is a x₁⁴/4 − b x₁²/2 + c x₁; the barrier is about b²/(4a).
    A draw of x₁ is by inverse CDF on 8192 cells of equal width with linear interpolation: the law of the draws is
    within 1e-6 of the stated one in Kolmogorov distance (below the resolution of a float32 uniform over 10 000 000
    draws).

    >>> DoubleWell().holes.shares.round(2)
    array([0.71, 0.24])
    """

    kind: ClassVar[Literal["exact", "numeric"]] = "numeric"
    a: Float[Array, ""] = eqx.field(converter=_floats)
    b: Float[Array, ""] = eqx.field(converter=_floats)
    c: Float[Array, ""] = eqx.field(converter=_floats)
    log_z: Float[Array, ""] = eqx.field(converter=_floats)
    cdf: Float[Array, " n"] = eqx.field(converter=_floats)
    quantile: Float[Array, " n"] = eqx.field(converter=_floats)

    def __init__(self, a: float = 1.0, b: float = 5.0, c: float = 0.25):
        if not (a > 0 and b > 0):
            raise UsageError(
                f"a = {a}, b = {b}", "DoubleWell", "two wells need a > 0 and b > 0", "DoubleWell(1.0, 5.0)"
            )
        self.a, self.b, self.c = _floats(a), _floats(b), _floats(c)
        reach = _reach(a, b, c)
        nodes, weights = gauss_legendre(400, -reach, reach)
        log_z = float(np.log(weights @ np.exp(-_energy(nodes, a, b, c))))
        self.log_z = _floats(log_z)
        edges = np.linspace(-reach, reach, 8193)
        unit, unit_weights = gauss_legendre(5, 0.0, 1.0)
        width = edges[1] - edges[0]
        mass = np.exp(-_energy(edges[:-1, None] + width * unit, a, b, c) - log_z) @ unit_weights * width
        cdf = np.concatenate([[0.0], np.cumsum(mass)])
        # Equal neighbours would divide by zero in the interpolation; beyond them no uniform number can fall.
        cdf, first = np.unique((cdf / cdf[-1]).astype(self.log_z.dtype), return_index=True)
        self.cdf, self.quantile = _floats(cdf), _floats(edges[first])

    @property
    def dim(self) -> int:
        """2."""
        return 2

    def log_prob(self, x: Array, given: Array | None = None) -> Float[Array, ""]:
        """log p(x) in nats; x (2,)."""
        return -_energy(x[0], self.a, self.b, self.c) - self.log_z - 0.5 * x[1] ** 2 - 0.5 * _LOG_2PI

    def sample(self, key: PRNGKeyArray, given: Array | None = None) -> Float[Array, 2]:
        """x₁ by inverse CDF, x₂ normal; shape (2,)."""
        key_well, key_normal = jax.random.split(key)
        u = jax.random.uniform(key_well, (), self.cdf.dtype)
        x1 = jnp.interp(u, self.cdf, self.quantile)
        return jnp.stack([x1, jax.random.normal(key_normal, (), self.cdf.dtype)])

    @property
    def holes(self) -> Holes:
        """Discs of radius 2 around the two minima, with the mass inside them by quadrature."""
        a, b, c = (float(v) for v in (self.a, self.b, self.c))
        roots = np.roots([a, 0.0, -b, c])
        minima = np.sort(roots[np.isreal(roots)].real)[[0, -1]]
        centres = np.stack([minima, np.zeros(2)], axis=-1)
        return Holes(centres, 2.0, disc_shares(self, centres, 2.0))

    def entropy(self) -> Quantity:
        """E[energy] + log Z + ½ log 2πe, the expectation by quadrature."""
        a, b, c = (float(v) for v in (self.a, self.b, self.c))
        values = []
        for n in (200, 400):
            nodes, weights = gauss_legendre(n, -_reach(a, b, c), _reach(a, b, c))
            energy = _energy(nodes, a, b, c)
            mass = weights * np.exp(-energy)
            values.append(float(mass @ energy / mass.sum() + np.log(mass.sum())))
        return numeric_entropy(values[1] + 0.5 * (_LOG_2PI + 1), abs(values[1] - values[0]) + 1e-12)


def _energy(x: Any, a: Any, b: Any, c: Any) -> Any:
    return a * x**4 / 4 - b * x**2 / 2 + c * x


def _reach(a: float, b: float, c: float) -> float:
    """Where the energy is at least 60 above its minimum, so that less than e⁻⁵⁰ of the mass lies beyond."""
    grid = np.linspace(0, 4 * math.sqrt(b / a) + 40 / a**0.25, 4001)
    both = np.minimum(_energy(grid, a, b, c), _energy(-grid, a, b, c))
    low = np.flatnonzero(both < both.min() + 60)
    return float(grid[low[-1] + 1])
