"""Broken twins of EM kernels, which tests/exact/test_expectation_maximisation.py must reject."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from mulligan.learners.expectation_maximisation import FactorEM, FactorState, MixtureEM, MixtureState


class ShiftForgotten(MixtureEM):
    """Covariances about the old means: still monotone (a conditional maximisation), but not the M step."""

    def move(self, state, noise, input):
        new, info = MixtureEM.move(self, state, noise, input)
        shift = new.means - state.means
        covariances = new.choleskys @ jnp.swapaxes(new.choleskys, 1, 2) + shift[:, :, None] * shift[:, None, :]
        return new._replace(choleskys=jnp.linalg.cholesky(covariances)), info


class ShiftSubtractedTwice(MixtureEM):
    """Covariances too small by the square of the shift: the likelihood can fall."""

    def move(self, state, noise, input):
        new, info = MixtureEM.move(self, state, noise, input)
        shift = new.means - state.means
        covariances = new.choleskys @ jnp.swapaxes(new.choleskys, 1, 2) - 0.9 * shift[:, :, None] * shift[:, None, :]
        covariances = covariances + 1e-3 * jnp.eye(shift.shape[1])
        return new._replace(choleskys=jnp.linalg.cholesky(covariances)), info


class StepTooFar(MixtureEM):
    """Means moved three times as far as they should: the likelihood falls."""

    def move(self, state, noise, input):
        new, info = MixtureEM.move(self, state, noise, input)
        return new._replace(means=state.means + 3 * (new.means - state.means)), info


class WeightsForgotten(MixtureEM):
    """All rows of a block count the same, the padding too."""

    def move(self, state, noise, input):
        even = jnp.full_like(self.weights, 1 / self.weights.size)
        return MixtureEM.move(MixtureEM(self.blocks, even, self.shape, self.regularisation), state, noise, input)


class DividedByOtherCounts(MixtureEM):
    """Weights replaced by equal ones in the M step: has a fixed point, but not the likelihood's."""

    def move(self, state, noise, input):
        new, info = MixtureEM.move(self, state, noise, input)
        return MixtureState(jnp.full_like(new.weights, 1 / new.weights.size), new.means, new.choleskys), info


class MomentWithoutCovariance(FactorEM):
    """E[zzᵀ] without the posterior covariance I − βW."""

    def move(self, state, noise, input):
        new, info = FactorEM.move(self, state, noise, input)
        w, psi, s = state.loadings, state.noise, self.covariance
        beta = jax.scipy.linalg.solve(w @ w.T + jnp.diag(psi), w).T
        loadings = jnp.linalg.solve(beta @ s @ beta.T, beta @ s).T
        return FactorState(loadings, new.noise), info
