"""Chapter 2, maximum likelihood: the projection of the data's law onto the model, in the direction KL(p_data‖p_θ).

Definition. KL(p‖q) = E_p log p/q = −H(p) − L with L = E_p log q, so that the largest likelihood is the least KL. The
checks run on the laws of ``targets`` and the EM kernel; expectations are sums over all states, or the trapezoid rule.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mulligan.lab.identity import Check, Identity, excess, mean_and_error, monte_carlo, rounding
from mulligan.learners.expectation_maximisation import MixtureState, mixture_em
from mulligan.loop import compile_small
from mulligan.targets.discrete import Ising, RestrictedBoltzmann, states
from mulligan.targets.gaussian import Gaussian
from mulligan.targets.mixture import GaussianMixture

DRAWS = 25_000


def _trapezoid() -> tuple[np.ndarray, float]:
    """Points (n, 2) of a grid on [−26, 26]², and the area that each stands for: nine standard deviations, steps of 0.2."""
    axis = np.linspace(-26.0, 26.0, 261)
    return np.stack(np.meshgrid(axis, axis, indexing="ij"), axis=-1).reshape(-1, 2), float(axis[1] - axis[0]) ** 2


@compile_small
def _log_probs(law: Any, points: Any) -> Any:
    return jax.vmap(law.log_prob)(points)


def _log(law: Any, points: np.ndarray) -> np.ndarray:
    return np.asarray(_log_probs(law, jnp.asarray(points)))


def _modes(seed: int) -> GaussianMixture:
    """Three separated parts in the plane; the seed moves them a little."""
    shift = 0.2 * np.random.default_rng(seed).normal(size=(3, 2))
    means = np.array([[-3.0, 0.0], [2.0, 2.5], [1.5, -3.0]]) + shift
    covariances = [[[1.0, 0.3], [0.3, 0.7]], [[0.6, -0.2], [-0.2, 0.9]], [[0.8, 0.0], [0.0, 1.1]]]
    return GaussianMixture.from_covariances([0.5, 0.2, 0.3], means, covariances)


def _gaussians(seed: int, dim: int = 2) -> tuple[Gaussian, Gaussian]:
    """Two Gaussians with eigenvalues between 0.6 and about 3."""
    rng = np.random.default_rng(seed)
    roots = rng.normal(size=(2, dim, dim))
    covariances = 0.6 * np.eye(dim) + roots @ roots.transpose(0, 2, 1) / 4
    means = rng.normal(size=(2, dim))
    return Gaussian.from_covariance(means[0], covariances[0]), Gaussian.from_covariance(means[1], covariances[1])


def _kl_gaussians(p: Gaussian, q: Gaussian) -> float:
    """½(tr Σ_q⁻¹Σ_p + (μ_q − μ_p)ᵀΣ_q⁻¹(μ_q − μ_p) − d + log det Σ_q/det Σ_p)."""
    at_p, at_q = np.asarray(p.covariance), np.asarray(q.covariance)
    gap = np.asarray(q.mean - p.mean)
    fit = np.trace(np.linalg.solve(at_q, at_p)) + gap @ np.linalg.solve(at_q, gap)
    return float(0.5 * (fit - len(gap) + np.linalg.slogdet(at_q)[1] - np.linalg.slogdet(at_p)[1]))


# --- the two ways to write KL -----------------------------------------------------------------------------------------


def _minus_both(entropy: Any, likelihood: Any) -> Any:
    return -entropy - likelihood


def _kl(seed: int, *, gaussian_kl: Callable = _kl_gaussians, join: Callable = _minus_both) -> Check:
    """KL(p‖q) = −H(p) − E_p log q: two Gaussians, a mixture against a Gaussian, a lattice against a Boltzmann machine."""
    points, volume = _trapezoid()
    p, q = _gaussians(seed)
    likelihood = volume * (np.exp(_log(p, points)) @ _log(q, points))
    pairs = {"two Gaussians": (gaussian_kl(p, q), join(p.entropy().value, likelihood))}

    law, model = _modes(seed), q
    log_p, log_q = _log(law, points), _log(model, points)
    density = np.exp(log_p)
    # ∫(p log p/q − p + q): non-negative point by point, and KL only if both laws are normalised
    bregman = volume * np.sum(density * (log_p - log_q) - density + np.exp(log_q))
    pairs["a mixture, a Gaussian"] = (bregman, join(-volume * (density @ log_p), volume * (density @ log_q)))

    rng = np.random.default_rng(seed)
    lattice = Ising((2, 3), 0.4)
    machine = RestrictedBoltzmann(rng.normal(size=(6, 3)), rng.normal(size=6), rng.normal(size=3))
    every = states(0, 2**6, 2, 6).astype(float)
    log_p, log_q = _log(lattice, every), _log(machine, every)
    total = np.exp(log_p) @ (log_p - log_q)
    pairs["a lattice, a machine"] = (total, join(lattice.entropy().value, np.exp(log_p) @ log_q))
    return rounding(pairs)


@compile_small
def _draws(law: Any, key: Any) -> Any:
    return jax.vmap(law.sample)(jax.random.split(key, DRAWS))


def _of_the_data(p: Any, q: Any) -> Any:
    return p


def _of_the_model(p: Any, q: Any) -> Any:
    """A planted mistake: draws of the model, which average to −KL(q‖p), the other direction."""
    return q


def _kl_sample(seed: int, *, drawn: Callable = _of_the_data) -> Check:
    """The mean of log p/q over 25 000 rows of the data against −H(p) − L."""
    p, q = _gaussians(seed)
    points, volume = _trapezoid()
    likelihood = volume * (np.exp(_log(p, points)) @ _log(q, points))
    rows = np.asarray(_draws(drawn(p, q), jax.random.key(seed)))
    average, error = mean_and_error(_log(p, rows) - _log(q, rows))
    return monte_carlo({"two Gaussians": (average, _minus_both(p.entropy().value, likelihood), error)})


# --- generalisation ---------------------------------------------------------------------------------------------------


@compile_small
def _optimism(law: Gaussian, key: Any, repeats: int, n: int, fresh: bool) -> Any:
    """Train minus test mean log-likelihood of N(x̄, Σ), Σ known: (repeats,) studies of n rows each."""
    keys = jax.random.split(key, repeats * 2 * n)
    rows = jax.vmap(law.sample)(keys).reshape(repeats, 2, n, law.dim)

    def study(pair: Any) -> Any:
        model = Gaussian(pair[0].mean(axis=0), law.cholesky)
        train, test = (jax.vmap(model.log_prob)(part).mean() for part in (pair[0], pair[1 if fresh else 0]))
        return train - test

    return jax.vmap(study)(rows)


def _parameters_over_rows(dim: int, n: int) -> float:
    return dim / n


def _half_of_it(dim: int, n: int) -> float:
    return dim / (2 * n)


def _generalization(seed: int, *, expected: Callable = _parameters_over_rows, fresh: bool = True) -> Check:
    """E[train − test mean log-likelihood] = d/n for the d means of a Gaussian, exactly, at every n."""
    law, n = _gaussians(seed, 3)[0], 8
    average, error = mean_and_error(_optimism(law, jax.random.key(seed), 4000, n, fresh))
    return monte_carlo({"three means, 8 rows": (average, expected(3, n), error)})


# --- covering ---------------------------------------------------------------------------------------------------------


@compile_small
def _slope_of_likelihood(mean: Any, cholesky: Any, points: Any, weights: Any) -> Any:
    def likelihood(parameters: Any) -> Any:
        return weights @ jax.vmap(Gaussian(*parameters).log_prob)(points)

    return jax.value_and_grad(likelihood)((mean, jnp.tril(cholesky)))


@compile_small
def _one_step(kernel: Any, state: MixtureState) -> MixtureState:
    return kernel.move(state, None, None)[0]


def _moments(law: GaussianMixture) -> tuple[Any, Any]:
    return law.mean, law.covariance


def _moments_of_the_heaviest(law: GaussianMixture) -> tuple[Any, Any]:
    """A planted mistake: one mode is chased."""
    part = law.component(int(jnp.argmax(law.log_weights)))
    return part.mean, part.covariance


def _covariance(rows: np.ndarray) -> np.ndarray:
    return np.cov(rows.T, bias=True)


def _unbiased_covariance(rows: np.ndarray) -> np.ndarray:
    return np.cov(rows.T)


def _covering(
    seed: int, *, moments: Callable = _moments, covariance: Callable = _covariance, em: Callable = mixture_em
) -> Check:
    """The Gaussian nearest in KL(p_data‖·) has the data's mean and variance, however many modes the data has.

    The slope of L in (μ, L) is zero there and L is lower nearby; and one EM step with one part, from anywhere, is that
    Gaussian for a table of rows.
    """
    law, rng = _modes(seed), np.random.default_rng(seed)
    points, volume = _trapezoid()
    weights = jnp.asarray(volume * np.exp(_log(law, points)))
    mean, spread = (np.asarray(part) for part in moments(law))
    factor = np.linalg.cholesky(spread)
    best, slopes = _slope_of_likelihood(jnp.asarray(mean), jnp.asarray(factor), jnp.asarray(points), weights)
    others = []
    for step in 0.1 * rng.normal(size=(8, 6)):
        near = jnp.asarray(mean + step[:2]), jnp.asarray(factor * np.exp(step[2:].reshape(2, 2)))
        others.append(float(_slope_of_likelihood(*near, jnp.asarray(points), weights)[0]))
    rows = rng.normal(size=(300, 2)) @ rng.normal(size=(2, 2)) + rng.choice([-4.0, 4.0], (300, 1))
    far = MixtureState(jnp.ones(1), jnp.full((1, 2), 5.0), 3.0 * jnp.eye(2)[None])
    fitted = _one_step(em(rows, "full", 0.0), far)
    return rounding(
        {
            "slope in the mean": (slopes[0], 0.0),
            "slope in the factor": (slopes[1], 0.0),
            "no better Gaussian nearby": (excess(others, best), 0.0),
            "EM: mean": (fitted.means[0], rows.mean(axis=0)),
            "EM: covariance": (fitted.choleskys[0] @ fitted.choleskys[0].T, covariance(rows)),
        }
    )


# --- projection -------------------------------------------------------------------------------------------------------


def _moment_matched(law: GaussianMixture) -> Gaussian:
    """p*: the projection onto all Gaussians, which are a full exponential family."""
    return Gaussian.from_covariance(law.mean, law.covariance)


def _reverse_projection(law: GaussianMixture) -> Gaussian:
    """A planted mistake: near one mode, where KL(p‖p_data) is low."""
    return law.component(int(jnp.argmax(law.log_weights)))


def _curved_projection(law: GaussianMixture) -> Gaussian:
    """A planted mistake: the MLE of the curved family N((m, m), m²I); it is a projection, but not a straight one."""
    total, square = float(law.mean.sum()), float(jnp.trace(law.covariance) + law.mean @ law.mean)
    m = (-total + np.sqrt(total**2 + 8 * square)) / 4  # the root of 2m² + m Σ E x_j − E|x|² = 0
    return Gaussian(jnp.array([m, m]), m * jnp.eye(2))


def _projection(seed: int, *, project: Callable = _moment_matched) -> Check:
    """KL(p_data‖p) = KL(p_data‖p*) + KL(p*‖p) for every p of the family: Gaussians, and independent binary columns."""
    law, points = _modes(seed), _trapezoid()
    pairs = {}
    log_data = _log(law, points[0])
    nearest = project(law)
    log_nearest = _log(nearest, points[0])
    for name, p in (("a Gaussian", _gaussians(seed)[0]), ("N((2, 2), 4I)", Gaussian(jnp.full(2, 2.0), 2 * jnp.eye(2)))):
        log_p = _log(p, points[0])
        whole = points[1] * np.exp(log_data) @ (log_data - log_p)
        legs = points[1] * (np.exp(log_data) @ (log_data - log_nearest) + np.exp(log_nearest) @ (log_nearest - log_p))
        pairs[name] = (whole, legs)

    rng, every = np.random.default_rng(seed), states(0, 2**5, 2, 5).astype(float)
    lattice = RestrictedBoltzmann(rng.normal(size=(5, 3)), rng.normal(size=5), rng.normal(size=3))
    on = np.asarray(lattice.marginals)[:, 1]
    independent = lambda b: RestrictedBoltzmann(np.zeros((5, 3)), b, np.zeros(3))  # noqa: E731
    log_data, log_nearest, log_p = (
        _log(one, every) for one in (lattice, independent(np.log(on / (1 - on))), independent(rng.normal(size=5)))
    )
    legs = np.exp(log_data) @ (log_data - log_nearest) + np.exp(log_nearest) @ (log_nearest - log_p)
    pairs["independent columns"] = (np.exp(log_data) @ (log_data - log_p), legs)
    return rounding(pairs)


# --- planted mistakes -------------------------------------------------------------------------------------------------


def _plus_entropy(entropy: Any, likelihood: Any) -> Any:
    return entropy - likelihood


def _halved_never(p: Gaussian, q: Gaussian) -> float:
    return 2 * _kl_gaussians(p, q)


IDENTITIES = (
    Identity(
        "mle.kl",
        2,
        "KL(p_data‖p_θ) = −H(p_data) − L(θ)",
        "rounding",
        _kl,
        {
            "sign of the entropy": {"join": _plus_entropy},
            "½ missing in the closed form": {"gaussian_kl": _halved_never},
        },
        "Kullback and Leibler 1951",
    ),
    Identity(
        "mle.kl.sample",
        2,
        "(1/n) Σ log p_data(x_i)/p_θ(x_i) → −H(p_data) − L(θ)",
        "monte-carlo",
        _kl_sample,
        {"averaged over the model": {"drawn": _of_the_model}},
        "Kullback and Leibler 1951",
    ),
    Identity(
        "mle.generalization",
        2,
        "E[train − test mean log-likelihood] = d/n for the d means of a Gaussian",
        "monte-carlo",
        _generalization,
        {"d/2n": {"expected": _half_of_it}, "tested on the training rows": {"fresh": False}},
        "Akaike 1973",
    ),
    Identity(
        "mle.covering",
        2,
        "argmin KL(p_data‖N(μ, Σ)) = (mean, covariance of p_data), however many modes",
        "rounding",
        _covering,
        {
            "one mode is chased": {"moments": _moments_of_the_heaviest},
            "n − 1 in place of n": {"covariance": _unbiased_covariance},
        },
        "Minka 2005",
    ),
    Identity(
        "mle.projection",
        2,
        "KL(p_data‖p) = KL(p_data‖p*) + KL(p*‖p) for every p of a full exponential family",
        "rounding",
        _projection,
        {
            "the reverse projection": {"project": _reverse_projection},
            "a curved family": {"project": _curved_projection},
        },
        "Csiszár 1975",
    ),
)
