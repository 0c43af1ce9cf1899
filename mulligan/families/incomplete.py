"""How ``gaussian``, ``mixture`` and ``factor`` are fitted to rows with empty cells: EM that leaves unknown what is unknown.

Definition. θ maximises Σ_i log p_θ(x_i,o), the log-likelihood of the cells that are there; see ``learners.incomplete_rows``.
Starts are made where complete rows would make them, on rows whose empty cells are drawn from a normal law fitted by EM.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import jax.numpy as jnp
import numpy as np

from mulligan.families.recipe import Allowance, Fitting, all_points
from mulligan.learners.expectation_maximisation import FactorState, MixtureState
from mulligan.learners.incomplete_rows import (
    FactorRows,
    climb,
    factor_step,
    first_moments,
    incomplete_rows,
    mixture_step,
)
from mulligan.learners.seeding import seeded_state
from mulligan.loop import Run
from mulligan.models.factor import ppca_closed_form
from mulligan.models.incomplete import MixtureForm, draw_unknown

NORMAL_STEPS = 500
SETTLED = 1e-7  # nats a row and step: EM for one part creeps where much is missing


class IncompleteFit:
    """The training rows of a fit with empty cells, sorted by pattern, and the normal law that EM fits to them.

    ``mean`` (d,) and ``covariance`` (d, d) are its maximum-likelihood estimates plus ``ridge``; ``normal`` is the run.
    """

    def __init__(self, fitting: Fitting, ridge: float):
        self.fitting, self.points = fitting, all_points(fitting.train)
        self.rows = incomplete_rows(self.points)
        mean, variance = first_moments(self.points)
        start = MixtureState(np.ones(1), mean[None], np.diag(np.sqrt(np.maximum(variance, 1e-6)))[None])  # type: ignore[arg-type]
        step = partial(mixture_step, rows=self.rows, covariance="full", regularisation=ridge)
        self.normal = climb(step, start, NORMAL_STEPS, SETTLED, interrupted=fitting.interrupted)
        _, means, factors = self.normal.state
        self.mean, self.factor = means[0], factors[0]

    @property
    def covariance(self) -> np.ndarray:
        """Σ of the normal law, (d, d)."""
        return self.factor @ self.factor.T

    def filled(self, generator: np.random.Generator) -> np.ndarray:
        """The points (n, d) with one draw of the normal law in each unknown coordinate."""
        form = MixtureForm(np.zeros(1), self.mean[None], self.factor[None])
        return draw_unknown(form, self.points[:, None, :], np.isnan(self.points), 1, generator)[0]

    def mixture(self, covariance: str, parts: int, restart: int, steps: int, tolerance: float, ridge: float,
                allowance: Allowance) -> Run:  # fmt: skip
        """EM for a mixture from one seed; states are those of ``mixture_em``, without empty parts."""
        generator = np.random.default_rng([self.fitting.seed, parts, restart])
        seeded = seeded_state(self.filled(generator), parts, parts, generator)
        begin = MixtureState(*(np.asarray(leaf, np.float64) for leaf in seeded))  # type: ignore[arg-type]
        begin = begin._replace(choleskys=_of_shape(begin, covariance))  # type: ignore[arg-type]
        finished = climb(
            partial(mixture_step, rows=self.rows, covariance=covariance, regularisation=ridge),
            begin,
            allowance.steps_left(steps),
            tolerance,
            allowance.seconds_left(),
            lambda step, total, latest: self.fitting.pulse(f"mixture {parts} {covariance}", step, total, latest),
            self.fitting.interrupted,
        )
        state = MixtureState(*(jnp.asarray(leaf, jnp.float32) for leaf in finished.state))
        return replace(finished, state=state)

    def factors(self, count: int, ppca: bool, floor: float, steps: int, tolerance: float,
                allowance: Allowance) -> tuple[np.ndarray, FactorState, Run]:  # fmt: skip
        """EM for a factor model from the closed form for the normal law's covariance: mean, (W, ψ), run."""
        loadings, variance = ppca_closed_form(self.covariance, count)
        noise = np.full(len(self.mean), max(variance, floor)) if count else np.diag(self.covariance)
        finished = climb(
            partial(factor_step, rows=self.rows, isotropic=ppca, floor=floor),
            FactorRows(self.mean, loadings, noise),
            allowance.steps_left(steps),
            tolerance,
            allowance.seconds_left(),
            interrupted=self.fitting.interrupted,
        )
        mean, w, psi = finished.state
        return mean, FactorState(jnp.asarray(w, jnp.float32), jnp.asarray(psi, jnp.float32)), finished


def _of_shape(state: MixtureState, covariance: str) -> np.ndarray:
    """The seeds' factors brought into the family, from outside which the first step could lose likelihood."""
    weights, _, factors = (np.asarray(leaf) for leaf in state)
    covariances = factors @ np.swapaxes(factors, 1, 2)
    d = covariances.shape[1]
    if covariance == "tied":
        covariances = np.broadcast_to(np.einsum("k,kij->ij", weights / weights.sum(), covariances), covariances.shape)
    elif covariance == "diagonal":
        covariances = covariances * np.eye(d)
    elif covariance == "spherical":
        covariances = (np.trace(covariances, axis1=1, axis2=2) / d)[:, None, None] * np.eye(d)
    return np.linalg.cholesky(covariances)
