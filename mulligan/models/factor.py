"""Factor models: x = μ + W z + e with a few latent factors z.

Definition. z ~ N(0, I_q), e ~ N(0, diag ψ), so x ~ N(μ, WWᵀ + diag ψ). Probabilistic PCA has one ψ for all columns
(Tipping and Bishop 1999), factor analysis one for each (Spearman 1904; Rubin and Thayer 1982).
"""

from __future__ import annotations

from typing import ClassVar, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from mulligan.core import Density, Sampler


class FactorModel(Sampler, Density):
    """x ~ N(μ, WWᵀ + diag ψ); ``mean`` μ (d,), ``loadings`` W (d, q), ``noise`` ψ (d,), variances.

    >>> import jax.numpy as jnp
    >>> white = FactorModel(jnp.zeros(2), jnp.zeros((2, 1)), jnp.ones(2))
    >>> bool(jnp.allclose(white.log_prob(jnp.zeros(2)), -jnp.log(2 * jnp.pi)))
    True
    """

    kind: ClassVar[Literal["exact", "numeric"]] = "exact"
    mean: Float[Array, " d"]
    loadings: Float[Array, "d q"]
    noise: Float[Array, " d"]

    def log_prob(self, x: Float[Array, " d"], given: Array | None = None) -> Float[Array, ""]:
        """By the Cholesky factor of WWᵀ + diag ψ.

        Woodbury's identity would cost O(dq) a row in place of O(d²), but subtracts two numbers of the size |x|²/ψ: in
        float32 that loses all digits where a column is nearly noiseless.
        """
        d = self.mean.shape[0]
        factor = jnp.linalg.cholesky(self.loadings @ self.loadings.T + jnp.diag(self.noise))
        inverse = jax.scipy.linalg.solve_triangular(factor, jnp.eye(d, dtype=x.dtype), lower=True)
        y = inverse @ (x - self.mean)
        return -0.5 * (y @ y + d * np.log(2 * np.pi)) - jnp.sum(jnp.log(jnp.diag(factor)))

    def sample(self, key: PRNGKeyArray, given: Array | None = None) -> Float[Array, " d"]:
        d, q = self.loadings.shape
        draws = jax.random.normal(key, (d + q,), self.mean.dtype)
        return self.mean + self.loadings @ draws[:q] + jnp.sqrt(self.noise) * draws[q:]

    def posterior(self, x: Float[Array, " d"]) -> tuple[Float[Array, " q"], Float[Array, "q q"]]:
        """Mean and covariance of z given x: N(M⁻¹Wᵀψ⁻¹(x − μ), M⁻¹)."""
        q = self.loadings.shape[1]
        scaled = self.loadings / self.noise[:, None]
        covariance = jnp.linalg.inv(jnp.eye(q, dtype=x.dtype) + self.loadings.T @ scaled)
        return covariance @ scaled.T @ (x - self.mean), covariance


def ppca_closed_form(covariance: np.ndarray, factors: int) -> tuple[np.ndarray, float]:
    """The maximum-likelihood W (d, q) and σ² of probabilistic PCA (Tipping and Bishop 1999, equations 7 and 8).

    W = U_q (Λ_q − σ²I)^{1/2}, σ² = the mean of the d − q smallest eigenvalues. Raises ValueError unless 0 ≤ q < d.

    >>> import numpy as np
    >>> w, s2 = ppca_closed_form(np.diag([4.0, 1.0, 1.0]), 1)
    >>> round(float(s2), 6), round(float(abs(w[0, 0])), 6)
    (1.0, 1.732051)
    """
    d = len(covariance)
    if not 0 <= factors < d:
        raise ValueError(f"factors is {factors}; expected 0 to {d - 1}")
    values, vectors = np.linalg.eigh(covariance)
    values, vectors = values[::-1], vectors[:, ::-1]
    variance = float(np.mean(values[factors:]))
    scale = np.sqrt(np.maximum(values[:factors] - variance, 0.0))
    return vectors[:, :factors] * scale, variance
