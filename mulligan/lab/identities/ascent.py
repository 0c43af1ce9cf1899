"""Chapter 4: with exact E and M steps the likelihood never falls.

Definition. The EM surrogate lies below the log-likelihood L and touches it at θ_t (``em.above`` with its sign turned), so
the θ that maximises the surrogate has L(θ) ≥ L(θ_t). It is checked on the learners themselves: ``MixtureEM`` with each of
its four covariances and ``FactorEM`` as factor analysis and as probabilistic PCA, from a poor start and from one near
the optimum, where an inexact step must lose. L is that of the library's laws, not the kernel's own count of it.
Identity: ``em.monotone`` (Dempster, Laird and Rubin 1977).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mulligan.core import Kernel
from mulligan.lab.identity import Check, Identity, excess, rounding
from mulligan.learners.expectation_maximisation import COVARIANCES, FactorEM, FactorState, MixtureState, mixture_em
from mulligan.loop import compile_small
from mulligan.models.factor import FactorModel, ppca_closed_form
from mulligan.targets.mixture import GaussianMixture

STEPS = 240
SETTLED = 200


def _mean_log_prob(state: Any, rows: Any) -> Any:
    if isinstance(state, MixtureState):
        law: Any = GaussianMixture(jnp.log(state.weights), state.means, state.choleskys)
    else:
        law = FactorModel(rows.mean(axis=0), state.loadings, state.noise)
    return jax.vmap(law.log_prob)(rows).mean()


def _step(kernel: Kernel, state: Any, stride: Any, forgetful: Any) -> tuple[Any, Any]:
    """The kernel's step and its own L. The planted mistakes are numbers, so that all are one program:

    ``stride`` 3 moves the means (the loadings) three times as far as the M step says; ``forgetful`` 1 is an E step as if
    all parts weighed the same.
    """
    told = state
    if isinstance(state, MixtureState):
        even = jnp.full_like(state.weights, 1 / state.weights.size)
        told = state._replace(weights=jnp.where(forgetful > 0, even, state.weights))
    new, info = kernel.move(told, None, None)
    if isinstance(state, MixtureState):
        new = new._replace(means=state.means + stride * (new.means - state.means))
    else:
        new = new._replace(loadings=state.loadings + stride * (new.loadings - state.loadings))
    return new, info.log_likelihood


@compile_small
def _climb(kernel: Kernel, start: Any, rows: Any, stride: Any, forgetful: Any) -> tuple[Any, Any]:
    """L before each step by the library's laws, and by the kernel: (2, STEPS) twice.

    The first walk takes the mistakes from its second step on, the other after ``SETTLED`` exact steps, where there is
    nothing left to win. The first step is exact: it enters the family (tied, diagonal, one ψ) from outside.
    """

    def walk(begin: Any) -> Any:
        def one(state: Any, i: Any) -> Any:
            planted = i >= begin
            after, told = _step(kernel, state, jnp.where(planted, stride, 1.0), jnp.where(planted, forgetful, 0.0))
            return after, (_mean_log_prob(state, rows), told)

        return jax.lax.scan(one, start, jnp.arange(STEPS))[1]

    return jax.lax.map(walk, jnp.array([1, SETTLED]))


def _mixture_problem(seed: int) -> tuple[np.ndarray, MixtureState]:
    """Three overlapping clusters of unequal size, (400, 2), and a start that knows none of them."""
    rng = np.random.default_rng(seed)
    label = rng.choice(3, 400, p=[0.6, 0.3, 0.1])
    centres = np.array([[0.0, 0.0], [2.5, 1.0], [-1.0, 3.0]])
    rows = centres[label] + rng.normal(size=(400, 2)) @ np.array([[1.0, 0.3], [0.0, 0.6]])
    start = MixtureState(jnp.full(3, 1 / 3), jnp.asarray(rows[:3]), jnp.broadcast_to(2.0 * jnp.eye(2), (3, 2, 2)))
    return rows, start


def _factor_problem(seed: int) -> tuple[np.ndarray, FactorState]:
    """Two factors behind five columns of unequal noise, (200, 5), and random loadings."""
    rng = np.random.default_rng(seed)
    loadings = np.linalg.qr(rng.normal(size=(5, 2)))[0] * [4.0, 2.5]
    rows = rng.normal(size=(200, 2)) @ loadings.T + rng.normal(size=(200, 5)) * [0.5, 0.7, 0.9, 1.1, 0.6]
    return rows, FactorState(jnp.asarray(rng.normal(size=(5, 2))), jnp.ones(5))


def _ppca_optimum(rows: np.ndarray) -> float:
    loadings, variance = ppca_closed_form(np.cov(rows.T, bias=True), 2)
    noise = jnp.full(rows.shape[1], variance)
    return float(_mean_log_prob(FactorState(jnp.asarray(loadings), noise), jnp.asarray(rows)))


def _monotone(
    seed: int,
    *,
    stride: float = 1.0,
    forgetful: float = 0.0,
    mixture: Callable = mixture_em,
    factor: Callable = FactorEM,
) -> Check:
    """L(θ_{t+1}) ≥ L(θ_t) at every step; the kernel's own L is that of the law; PPCA arrives at its closed form."""
    planted = jnp.asarray(stride), jnp.asarray(forgetful)
    rows, start = _mixture_problem(seed)
    climbs = {
        f"{name} mixture": _climb(mixture(rows, name, 0.0), start, jnp.asarray(rows), *planted) for name in COVARIANCES
    }
    rows, loaded = _factor_problem(seed)
    covariance = jnp.asarray(np.cov(rows.T, bias=True))
    for name, isotropic in (("factor analysis", False), ("PPCA", True)):
        climbs[name] = _climb(factor(covariance, jnp.zeros(()), isotropic), loaded, jnp.asarray(rows), *planted)
    pairs: dict[str, tuple[Any, Any]] = {}
    for name, (law, told) in climbs.items():
        law, told = np.asarray(law)[:, 1:], np.asarray(told)[:, 1:]
        pairs[f"{name}: falls"] = (excess(law[:, :-1], law[:, 1:]), 0.0)
        pairs[f"{name}: climbs"] = (float(law[0, -1] > law[0, 0] + 1e-3), 1.0)
        pairs[f"{name}: L of the kernel"] = (told, law)
    pairs["PPCA: the closed form"] = (np.asarray(climbs["PPCA"][0])[1, -1], _ppca_optimum(rows))
    return rounding(pairs)


IDENTITIES = (
    Identity(
        "em.monotone",
        4,
        "L(θ_{t+1}) ≥ L(θ_t) with exact E and M steps: mixtures of all four covariances, PPCA, factor analysis",
        "rounding",
        _monotone,
        {
            "weights forgotten in the E step": {"forgetful": 1.0},
            "M step three times as far": {"stride": 3.0},
            "M step that forgets the means": {"stride": 0.0},
        },
        "Dempster, Laird and Rubin 1977; Rubin and Thayer 1982; Tipping and Bishop 1999",
    ),
)
