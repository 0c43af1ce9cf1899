"""The Gaussian law, and the three verbs that it answers in closed form.

Definition. x = μ + L e with e ~ N(0, I) and L lower triangular, so that the covariance is Σ = L Lᵀ. All that is
asked of it is linear algebra on L: with the rows of L in the order (observed, free), a QR factorisation gives
[[L_oo, 0], [L_fo, L_ff]] and then x_f | x_o ~ N(μ_f + L_fo L_oo⁻¹ (x_o − μ_o), L_ff L_ffᵀ), without ever forming Σ⁻¹.
Identities: ``density.marginal``, ``density.conditional``, ``density.factorization``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.linalg import solve_triangular
from jaxtyping import Array, Float, PRNGKeyArray

from mulligan.core import Density, Sampler
from mulligan.errors import DataError, UsageError
from mulligan.quantity import Quantity


def _floats(values: object) -> Array:
    """Values as an array of the current float type."""
    return jnp.asarray(values, float)


class Gaussian(Sampler, Density):
    """N(μ, L Lᵀ): log p(x) = −½|L⁻¹(x − μ)|² − Σ log L_ii − (d/2) log 2π. Exact.

    Arguments: ``mean`` μ (d,), ``cholesky`` L (d, d) lower triangular with a positive diagonal.

    >>> law = Gaussian.from_covariance([0.0, 1.0], [[1.0, 0.5], [0.5, 1.0]])
    >>> round(float(law.condition([0], [2.0]).mean[0]), 4)
    2.0
    """

    kind: ClassVar[Literal["exact", "numeric"]] = "exact"
    mean: Float[Array, " d"] = eqx.field(converter=_floats)
    cholesky: Float[Array, "d d"] = eqx.field(converter=_floats)

    @classmethod
    def from_covariance(cls, mean: object, covariance: object) -> Gaussian:
        """The Gaussian of this mean (d,) and covariance (d, d).

        Raises DataError where the covariance is known (not traced) and not positive definite.
        """
        return cls(_floats(mean), lower_factor_of(covariance))

    @property
    def dim(self) -> int:
        """d."""
        return self.mean.shape[-1]

    @property
    def covariance(self) -> Float[Array, "d d"]:
        """Σ = L Lᵀ."""
        return self.cholesky @ self.cholesky.T

    def log_prob(self, x: Array, given: Array | None = None) -> Float[Array, ""]:
        """log p(x) in nats, exact; x (d,)."""
        # The inverse does not depend on x: vmap computes it once, and each row is one product.
        inverse = inverse_lower(self.cholesky)
        z = inverse @ (x - self.mean)
        return -0.5 * jnp.sum(z**2) - log_diagonal(self.cholesky) - 0.5 * self.dim * math.log(2 * math.pi)

    def sample(self, key: PRNGKeyArray, given: Array | None = None) -> Float[Array, " d"]:
        """μ + L e, shape (d,)."""
        return self.mean + self.cholesky @ jax.random.normal(key, (self.dim,), self.mean.dtype)

    def entropy(self) -> Quantity:
        """−E log p = (d/2) log 2πe + Σ log L_ii in nats, exact.

        >>> print(Gaussian([0.0], [[1.0]]).entropy())
        1.419 nats, exact
        """
        diagonal = np.diagonal(np.asarray(self.cholesky, np.float64))
        value = float(0.5 * self.dim * math.log(2 * math.pi * math.e) + np.log(diagonal).sum())
        return Quantity(value, "exact", value, value, unit="nats")

    def marginal(self, index: Sequence[int]) -> Gaussian:
        """The law of x[index], in the order of ``index``; exact. UsageError if an index is out of range or repeated."""
        kept, _ = observed_and_free(index, self.dim)
        return Gaussian(self.mean[kept], triangular(self.cholesky[kept]))

    def condition(self, index: Sequence[int], values: object) -> Gaussian:
        """The law of the other coordinates (in their order) given x[index] = values; exact.

        ``values`` (len(index),) may be traced. UsageError if an index is out of range or repeated, if values are not as
        many, or if no coordinate is left free.
        """
        observed, free = observed_and_free(index, self.dim)
        values = conditioned_values(values, observed, free)
        whole, m = triangular(self.cholesky[np.concatenate([observed, free])]), len(observed)
        z = solve_triangular(whole[:m, :m], values - self.mean[observed], lower=True)
        return Gaussian(self.mean[free] + whole[m:, :m] @ z, whole[m:, m:])


def lower_factor_of(covariance: object) -> Float[Array, "*k d d"]:
    """The lower Cholesky factor(s) of covariance matrices (…, d, d).

    Raises DataError if a matrix is known (not traced) and not positive definite; under tracing the factor is then NaN.
    """
    factor = jnp.linalg.cholesky(_floats(covariance))
    if not isinstance(factor, jax.core.Tracer) and not bool(jnp.isfinite(factor).all()):
        raise DataError(
            "the covariance is not positive definite",
            f"shape {factor.shape}",
            "its Cholesky factor does not exist in this precision",
            "remove columns that are linear combinations of others, or add a small multiple of the identity",
        )
    return factor


def triangular(rows: Float[Array, "m d"]) -> Float[Array, "m m"]:
    """The lower triangular L (m, m) with a positive diagonal and L Lᵀ = A Aᵀ, for A (m, d) with m ≤ d.

    By QR of Aᵀ, which keeps twice the digits that forming A Aᵀ would.
    """
    upper = jnp.linalg.qr(rows.T, mode="r")
    sign = jnp.where(jnp.diagonal(upper) < 0, -1.0, 1.0).astype(upper.dtype)
    return (upper * sign[:, None]).T


def inverse_lower(cholesky: Float[Array, "d d"]) -> Float[Array, "d d"]:
    """L⁻¹."""
    return solve_triangular(cholesky, jnp.eye(cholesky.shape[-1], dtype=cholesky.dtype), lower=True)


def log_diagonal(cholesky: Float[Array, "*k d d"]) -> Float[Array, "*k"]:
    """½ log det Σ = Σ log L_ii."""
    return jnp.sum(jnp.log(jnp.diagonal(cholesky, axis1=-2, axis2=-1)), axis=-1)


def observed_and_free(index: Sequence[int], dim: int) -> tuple[np.ndarray, np.ndarray]:
    """The positions of ``index`` (negative ones counted from the end), and all the others in their order.

    Raises UsageError for an empty index, a repeated one, or one out of range.
    """
    asked = np.atleast_1d(np.asarray(index))
    if asked.size == 0 or not np.issubdtype(asked.dtype, np.integer):
        raise UsageError(f"index is {index!r}", "", "coordinates are named by their integer positions", "index=[0]")
    observed = np.where(asked < 0, asked + dim, asked)
    if observed.min() < 0 or observed.max() >= dim or len(set(observed.tolist())) < observed.size:
        raise UsageError(
            f"index {asked.tolist()} does not name different coordinates of a law with {dim}",
            "",
            f"positions run from 0 to {dim - 1} and may not repeat",
            f"index={list(range(min(dim, observed.size)))}",
        )
    return observed, np.setdiff1d(np.arange(dim), observed)


def conditioned_values(values: object, observed: np.ndarray, free: np.ndarray) -> Array:
    """``values`` as a vector, checked against the observed coordinates. UsageError where they do not fit."""
    vector = jnp.atleast_1d(_floats(values))
    if vector.shape != observed.shape:
        raise UsageError(
            f"{vector.size} values for {observed.size} coordinates",
            f"index {observed.tolist()}",
            "each coordinate that is given needs its value",
            "law.condition(index, values) with as many values as indices",
        )
    if free.size == 0:
        raise UsageError(
            "every coordinate is given",
            f"index {observed.tolist()}",
            "nothing is left to have a law",
            "law.log_prob(x)",
        )
    return vector
