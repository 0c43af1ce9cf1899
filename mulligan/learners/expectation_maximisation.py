"""Expectation-maximisation as kernels: one step is one E step and one M step, and the likelihood never falls.

Definition (Dempster, Laird and Rubin 1977). With z hidden, θ' = argmax_θ Σ_i w_i E_{p_θ_t(z|x_i)} log p_θ(x_i, z): the
surrogate touches the log-likelihood at θ_t and lies below it (identities ``em.above``, ``em.monotone``). The info of a
step is the log-likelihood of the state *before* it, so that the E step is used twice.

Gaussian mixtures work in the coordinates of each part: with y = L_k⁻¹(x − μ_k), the new mean is μ_k + L_k E[y] and the
new covariance L_k (E[yyᵀ] − E[y]E[y]ᵀ) L_kᵀ. No difference of large second moments is ever taken, so float32 suffices for
parts far narrower than the data's spread; and y is needed for the E step anyway. Rows are kept as (blocks, d, 512): the
three products over a block are matrix products that stay in cache.
"""

from __future__ import annotations

from typing import ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from mulligan.core import Kernel, Law

BLOCK = 512
COVARIANCES = ("full", "tied", "diagonal", "spherical")


class MixtureState(NamedTuple):
    """Weights (k,), means (k, d) and lower Cholesky factors (k, d, d) of a Gaussian mixture."""

    weights: Float[Array, " k"]
    means: Float[Array, "k d"]
    choleskys: Float[Array, "k d d"]


class LikelihoodInfo(NamedTuple):
    """Weighted mean log-likelihood of the rows under the state before the step."""

    log_likelihood: Float[Array, ""]


class MixtureEM(Kernel):
    """EM for a Gaussian mixture with full, tied, diagonal or spherical covariances.

    E step: r_ik ∝ π_k N(x_i; μ_k, Σ_k). M step: π, μ, Σ are the weighted moments, Σ + ``regularisation``·I as in
    scikit-learn. ``shape`` is the position in ``COVARIANCES`` and traced: all four are one program. Make it with
    ``mixture_em``, which pads the rows. A part whose weight falls to nothing keeps its place and its covariance.
    """

    law: ClassVar[Law] = Law("none")
    blocks: Float[Array, "b d 512"]
    weights: Float[Array, "b 512"]
    shape: Int[Array, ""]
    regularisation: Float[Array, ""]

    def init(self, key: PRNGKeyArray, x: MixtureState) -> MixtureState:
        """``x`` with its covariances brought into the family: from outside it the first step could lose likelihood."""
        weights, means, choleskys = (jnp.asarray(leaf, self.blocks.dtype) for leaf in x)
        covariances = _constrained(choleskys @ jnp.swapaxes(choleskys, 1, 2), weights, self.shape)
        return MixtureState(weights, means, jnp.linalg.cholesky(covariances))

    def noise(self, key: PRNGKeyArray, state: MixtureState) -> None:
        return None

    def move(self, state: MixtureState, noise: None, input: None) -> tuple[MixtureState, LikelihoodInfo]:
        inverses = _inverse_cholesky(state.choleskys)
        log_likelihood, counts, first, second = self._expect(state, inverses)
        safe = jnp.maximum(counts, 1e-10)  # rows weigh 1 in all, so this is far below one row's share
        shift = first / safe[:, None]
        spread = second / safe[:, None, None] - shift[:, :, None] * shift[:, None, :]
        factors = state.choleskys
        means = state.means + jnp.einsum("kij,kj->ki", factors, shift)
        # As the state is inside its family, so is L_k C L_kᵀ for every constrained C: the factor of the product is the
        # product of the factors, and only a matrix close to the identity is ever factorised.
        ridge = self.regularisation * inverses @ jnp.swapaxes(inverses, 1, 2)
        inner = _rounded_cholesky(_constrained(spread, counts, self.shape) + ridge)
        alive = (counts > 1e-9)[:, None]
        means = jnp.where(alive, means, state.means)
        choleskys = jnp.where(alive[..., None], factors @ inner, factors)
        return MixtureState(counts / jnp.sum(counts), means, choleskys), LikelihoodInfo(log_likelihood)

    def _expect(self, state: MixtureState, inverses: Array) -> tuple[Array, Array, Array, Array]:
        """Log-likelihood, and Σ w r, Σ w r y, Σ w r y yᵀ for every part."""
        k, d = state.means.shape
        tall = inverses.reshape(k * d, d)
        offset = jnp.einsum("kij,kj->ki", inverses, state.means).reshape(k * d, 1)
        log_norm = _log_norm(state)

        def block(sums: tuple, rows: tuple) -> tuple[tuple, None]:
            x, w = rows
            y = (tall @ x - offset).reshape(k, d, -1)
            joint = log_norm[:, None] - 0.5 * jnp.sum(y * y, axis=1)
            log_p = jax.nn.logsumexp(joint, axis=0)
            r = jnp.exp(joint - log_p) * w
            ry = y * r[:, None, :]
            second = jax.lax.dot_general(ry, y, (((2,), (2,)), ((0,), (0,))))
            new = (jnp.sum(w * log_p), r.sum(1), ry.sum(2), second)
            return tuple(a + b for a, b in zip(sums, new)), None

        dtype = self.blocks.dtype
        zero = (jnp.zeros((), dtype), jnp.zeros(k, dtype), jnp.zeros((k, d), dtype), jnp.zeros((k, d, d), dtype))
        sums, _ = jax.lax.scan(block, zero, (self.blocks, self.weights))
        return sums


def mixture_em(
    rows: np.ndarray, covariance: str, regularisation: float, weights: np.ndarray | None = None
) -> MixtureEM:
    """The kernel for rows (n, d) with weights (n,), which are normalised to sum to one.

    Raises ValueError for an unknown covariance.
    """
    if covariance not in COVARIANCES:
        raise ValueError(f"covariance is {covariance!r}; expected one of {', '.join(COVARIANCES)}")
    n, d = rows.shape
    weights = np.full(n, 1.0) if weights is None else np.asarray(weights, float)
    count = -(-n // BLOCK)
    padded = np.zeros((count * BLOCK, d), rows.dtype)
    padded[:n] = rows
    padded[n:] = rows.mean(0)  # weight 0; any finite place will do
    share = np.zeros(count * BLOCK, rows.dtype)
    share[:n] = weights / weights.sum()
    return MixtureEM(
        jnp.asarray(padded.reshape(count, BLOCK, d).transpose(0, 2, 1)),
        jnp.asarray(share.reshape(count, BLOCK)),
        jnp.asarray(COVARIANCES.index(covariance)),
        jnp.asarray(regularisation, rows.dtype),
    )


def _constrained(covariances: Array, counts: Array, shape: Array) -> Array:
    """Full covariances, or their closest tied, diagonal or spherical relatives (the M step of those families)."""
    d = covariances.shape[1]
    eye = jnp.eye(d, dtype=covariances.dtype)
    share = counts / jnp.sum(counts)
    tied = jnp.broadcast_to(jnp.einsum("k,kij->ij", share, covariances), covariances.shape)
    diagonal = covariances * eye
    spherical = (jnp.trace(covariances, axis1=1, axis2=2) / d)[:, None, None] * eye
    return jnp.stack([covariances, tied, diagonal, spherical])[shape]


def _rounded_cholesky(matrices: Array) -> Array:
    """Cholesky factors, with rounding's own share of the mean variance on the diagonal.

    A part that has shrunk onto fewer rows than columns is singular beyond what float32 can tell apart from negative.
    """
    d = matrices.shape[-1]
    rounding = 10 * jnp.finfo(matrices.dtype).eps * jnp.trace(matrices, axis1=1, axis2=2) / d
    return jnp.linalg.cholesky(matrices + rounding[:, None, None] * jnp.eye(d, dtype=matrices.dtype))


def _inverse_cholesky(choleskys: Array) -> Array:
    eye = jnp.eye(choleskys.shape[-1], dtype=choleskys.dtype)
    return jax.vmap(lambda factor: jax.scipy.linalg.solve_triangular(factor, eye, lower=True))(choleskys)


def _log_norm(state: MixtureState) -> Array:
    """log π_k − log det L_k − (d/2) log 2π; −inf for a part without weight, or an outlier would bring it to life."""
    d = state.means.shape[1]
    half_log_det = jnp.sum(jnp.log(jnp.diagonal(state.choleskys, axis1=1, axis2=2)), axis=1)
    return jnp.log(state.weights) - half_log_det - 0.5 * d * jnp.log(2 * jnp.pi).astype(state.means.dtype)


class FactorState(NamedTuple):
    """Loadings W (d, q) and noise variances ψ (d,)."""

    loadings: Float[Array, "d q"]
    noise: Float[Array, " d"]


class FactorEM(Kernel):
    """EM for x = μ + W z + e, z ~ N(0, I_q), e ~ N(0, diag ψ): factor analysis, or PPCA where ψ is one number.

    Only the data's covariance S enters (Rubin and Thayer 1982; Tipping and Bishop 1999). With β = Wᵀ(WWᵀ + ψ)⁻¹:
    W' = S βᵀ (I − βW + βSβᵀ)⁻¹ and ψ' = diag(S − W'βS), averaged over the columns where ``isotropic``.
    """

    law: ClassVar[Law] = Law("none")
    covariance: Float[Array, "d d"]
    floor: Float[Array, ""]
    isotropic: bool = eqx.field(static=True)

    def init(self, key: PRNGKeyArray, x: FactorState) -> FactorState:
        return FactorState(*(jnp.asarray(leaf, self.covariance.dtype) for leaf in x))

    def noise(self, key: PRNGKeyArray, state: FactorState) -> None:
        return None

    def move(self, state: FactorState, noise: None, input: None) -> tuple[FactorState, LikelihoodInfo]:
        w, psi, s = state.loadings, state.noise, self.covariance
        d, q = w.shape
        factor = jax.scipy.linalg.cho_factor(w @ w.T + jnp.diag(psi), lower=True)
        log_det = 2 * jnp.sum(jnp.log(jnp.diag(factor[0])))
        fit = jnp.trace(jax.scipy.linalg.cho_solve(factor, s))
        log_likelihood = -0.5 * (d * np.log(2 * np.pi) + log_det + fit)
        beta = jax.scipy.linalg.cho_solve(factor, w).T
        moment = jnp.eye(q, dtype=s.dtype) - beta @ w + beta @ s @ beta.T
        loadings = jnp.linalg.solve(moment, beta @ s).T
        residual = jnp.diag(s - loadings @ beta @ s)
        residual = jnp.full_like(residual, residual.mean()) if self.isotropic else residual
        return FactorState(loadings, jnp.maximum(residual, self.floor)), LikelihoodInfo(log_likelihood)
