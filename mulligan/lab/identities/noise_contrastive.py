"""Chapter 6, noise-contrastive estimation: to learn a density with its constant by telling data from noise.

Definition. A datum has label 1, each of ν draws of a known law r label 0. With p_θ = exp(f_θ) q/Z the log odds of label 1
are u = f + log q − log r − log Z − log ν (the notes have r = q and ν = 1), and D = σ(u) is Bayes' posterior. Fitting θ and
c = −log Z to max E_data log D + ν E_r log(1 − D) is logistic regression with offset log q − log r − log ν.
Identities: ``nce.posterior``, ``nce.log_z``, ``nce.log_z.sample``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from mulligan.lab.identities.energy import log_densities, network_of, references, rules
from mulligan.lab.identity import Check, Identity, monte_carlo, rounding
from mulligan.loop import compile_small
from mulligan.objectives.noise_contrastive import NoiseContrast, noise_contrastive_loss
from mulligan.targets.gaussian import Gaussian
from mulligan.targets.mixture import GaussianMixture


class Terms(NamedTuple):
    """What the log odds are made of: f, log q, log r (n,), log Z and ν.

    >>> Terms._fields[-1]
    'nu'
    """

    f: Any
    log_q: Any
    log_r: Any
    log_z: Any
    nu: Any


def log_odds(terms: Terms) -> Any:
    """u = f + log q − log r − log Z − log ν.

    >>> float(log_odds(Terms(1.0, 0.0, 0.0, 1.0, 1.0)))
    0.0
    """
    return terms.f + terms.log_q - terms.log_r - terms.log_z - np.log(terms.nu)


def _without_nu(terms: Terms) -> Any:
    """A planted mistake: log ν left out."""
    return log_odds(terms._replace(nu=1.0))


def _noise_is_reference(terms: Terms) -> Any:
    """A planted mistake, the notes' case taken for every case: r = q."""
    return log_odds(terms._replace(log_r=terms.log_q))


def _z_upside_down(terms: Terms) -> Any:
    """A planted mistake: + log Z."""
    return log_odds(terms._replace(log_z=-terms.log_z))


class _Values(eqx.Module):
    """f by the number of a row: a model whose parameters are its values."""

    values: Any

    def f(self, x: Any) -> Any:
        return self.values[x[0].astype(int)]


@compile_small
def _said(loss: Callable, f: Any, offset: Any, nu: int) -> tuple[Any, Any]:
    """D at each point, by the slopes of a loss in f: −(1 − D)/n as a datum, νD/n as noise."""
    n = f.size
    row = jnp.arange(2.0 * n)[:, None]
    batch = NoiseContrast(row[:n], jnp.tile(row[n:], (nu, 1)), offset, jnp.tile(offset, nu))
    slope = jax.grad(lambda values: loss(_Values(values), jax.random.key(0), batch)[0])(jnp.concatenate([f, f]))
    return 1 + n * slope[:n], n * slope[n:] / nu


def _posterior(seed: int, *, odds: Callable = log_odds, loss: Callable = noise_contrastive_loss) -> Check:
    """p(1|x) by Bayes' rule is σ(u), ν ∈ {1, 7}: for a network on N(0, 4), and by a mixture of model and noise.

    The library's loss believes the same: its slope in f is −(1 − D) at a datum and νD at noise.
    """
    (x, w), network = rules(0.0)[1], network_of(seed)
    noise = GaussianMixture.from_covariances([0.5, 0.5], [[-2.0], [2.5]], [[[2.0]], [[3.0]]])
    f, at_q, at_r = log_densities([network, references()[1].log_prob, noise.log_prob], [x] * 3)
    log_z = np.log(w @ np.exp(f + at_q))
    a, b = np.random.default_rng([seed, 1]).uniform(0.2, 1.5, 2)  # f = bx − ax²/2 on N(0, 4): a Gaussian again
    precision = a + 0.25
    model, apart = (b / precision, 1 / precision), (1.0, 4.0)
    quadratic = b * x[:, 0] - 0.5 * a * x[:, 0] ** 2
    log_z_known = 0.5 * b**2 / precision - 0.5 * np.log(4 * precision)
    pairs = {}
    for nu in (1.0, 7.0):
        p, r = np.exp(f + at_q - log_z), np.exp(at_r)
        bayes = p * (1 / (1 + nu)) / (p * (1 / (1 + nu)) + r * (nu / (1 + nu)))
        sigmoid = 1 / (1 + np.exp(-odds(Terms(f, at_q, at_r, log_z, nu))))
        pairs[f"a network, ν = {nu:.0f}"] = (sigmoid, bayes)
        said = _said(loss, jnp.asarray(f - log_z), jnp.asarray(at_q - at_r), int(nu))
        pairs[f"the library's loss, ν = {nu:.0f}"] = (said, bayes)

        both = GaussianMixture.from_covariances([1.0, nu], [[model[0]], [apart[0]]], [[[model[1]]], [[apart[1]]]])
        joint, at_noise = _two_parts(both, x)
        u = odds(Terms(quadratic, at_q, np.asarray(at_noise), log_z_known, nu))
        pairs[f"parts of a mixture, ν = {nu:.0f}"] = (1 / (1 + np.exp(-u)), np.asarray(joint)[:, 0])
    return rounding(pairs)


@compile_small
def _two_parts(both: GaussianMixture, x: Any) -> Any:
    return jax.vmap(both.responsibilities)(x), jax.vmap(both.component(1).log_prob)(x)


# --- fitting -----------------------------------------------------------------------------------------------------------


def _contrast(beta: Any, features: Any, offset: Any, data: Any, noise: Any) -> Any:
    """Σ data log D + Σ noise log(1 − D), D = σ(features β + offset)."""
    u = features @ beta + offset
    return data @ jax.nn.log_sigmoid(u) + noise @ jax.nn.log_sigmoid(-u)


def newton(
    start: Any, features: Any, offset: Any, data: Any, noise: Any, steps: int, parts: Any = (1.0, 0.5, 0.25, 0.1)
) -> Any:
    """The maximum β (k,) by Newton's method, which takes the best of these parts of each step.

    >>> newton(jnp.zeros(1), jnp.ones((2, 1)), jnp.zeros(2), jnp.ones(2), jnp.ones(2), 1).tolist()
    [0.0]
    """

    def one(_: Any, beta: Any) -> Any:
        u = features @ beta + offset
        d = jax.nn.sigmoid(u)
        slope = (data * (1 - d) - noise * d) @ features
        curvature = (features.T * ((data + noise) * d * (1 - d))) @ features
        step = jnp.linalg.solve(curvature, slope)
        tried = beta + jnp.asarray(parts, beta.dtype)[:, None] * step
        values = jax.vmap(lambda at: _contrast(at, features, offset, data, noise))(tried)
        # near the maximum all agree to rounding: the whole step is then the best
        return tried[jnp.where(values[0] >= values.max() - 1e-12 * jnp.abs(values[0]), 0, jnp.argmax(values))]

    return jax.lax.fori_loop(0, steps, one, start)


@compile_small
def fitted(features: Any, offset: Any, data: Any, noise: Any, steps: int = 40) -> Any:
    """β of logistic regression on features (n, k) with weights ``data`` and ``noise`` (n,); then E[1 − D], ν E_r[D].

    >>> beta, missed, taken = fitted(jnp.ones((2, 1)), jnp.zeros(2), jnp.asarray([1.0, 0.0]), jnp.asarray([0.0, 3.0]))
    >>> round(float(beta[0]), 4)  # log 1/3
    -1.0986
    """
    beta = newton(jnp.zeros(features.shape[1]), features, offset, data, noise, steps)
    d = jax.nn.sigmoid(features @ beta + offset)
    return beta, data @ (1 - d), noise @ d


def _features(x: Any) -> Any:
    """(x, x², cos 2x, 1): the statistics of f, which has no constant of its own, and the intercept c."""
    return np.stack([x, x**2, np.cos(2 * x), np.ones_like(x)], axis=-1)


def _log_z(seed: int, *, offset: bool = True, inside: bool = True) -> Check:
    """On a grid: with the law in the model c = −log Z, θ is found, and E_data[1 − D] = ν E_r[D] whatever the data."""
    (x, w), rng = rules(0.0)[1], np.random.default_rng([seed, 2])
    log_q, log_r = log_densities(
        [references()[1].log_prob, Gaussian(jnp.asarray([0.5]), jnp.asarray([[3.0]])).log_prob], [x] * 2
    )
    features, pairs = _features(x[:, 0]), {}
    theta = rng.normal(size=3) * [0.5, 0.05, 0.5]
    log_p = features[:, :3] @ theta + log_q
    log_z = np.log(w @ np.exp(log_p))
    far = GaussianMixture.from_covariances([0.4, 0.6], [[-2.0], [1.5]], [[[0.3]], [[0.2]]])
    other = np.exp(log_densities([far.log_prob], [x])[0])
    for nu in (1.0, 7.0):
        shift = log_q - log_r - (np.log(nu) if offset else 0.0)
        p = np.exp(log_p - log_z) if inside else other
        beta, missed, taken = map(np.asarray, fitted(features, shift, w * p, nu * w * np.exp(log_r)))
        pairs[f"c, −log Z, ν = {nu:.0f}"] = (beta[3], -log_z)
        pairs[f"θ, ν = {nu:.0f}"] = (beta[:3], theta)
        pairs[f"E[1 − D], ν E_r[D], ν = {nu:.0f}"] = (missed, taken)
        beta, missed, taken = map(np.asarray, fitted(features, shift, w * other, nu * w * np.exp(log_r)))
        pairs[f"… off the model, ν = {nu:.0f}"] = (missed, taken)
        its_own = np.log(w @ np.exp(features[:, :3] @ beta[:3] + log_q))
        pairs[f"c is not −log Z off the model, ν = {nu:.0f}"] = (float(abs(beta[3] + its_own) > 1e-3), 1.0)
    return rounding(pairs)


def information(features: np.ndarray, p: np.ndarray, r: np.ndarray, w: np.ndarray, nu: float) -> np.ndarray:
    """I = E_data[P g gᵀ], P = νr/(p + νr), g = ∂ log p in θ and c (n, k); p, r (n,) on nodes with weights w.

    >>> information(np.ones((1, 1)), np.ones(1), np.ones(1), np.ones(1), 3.0).tolist()
    [[0.75]]
    """
    share = nu * r / (p + nu * r)
    return (features.T * (w * p * share)) @ features


N, NU = 20_000, 3


class _Quadratic(eqx.Module):
    """f(x) = β·(x, −x²/2, 1)."""

    beta: Any

    def f(self, x: Any) -> Any:
        return self.beta[0] * x[0] - 0.5 * self.beta[1] * x[0] ** 2 + self.beta[2]


@compile_small
def _loss_slope(loss: Callable, beta: Any, batch: NoiseContrast) -> Any:
    return jax.grad(lambda at: loss(_Quadratic(at), jax.random.key(0), batch)[0])(beta)


@compile_small
def _draws(law: Gaussian, noise: Gaussian, key: Any) -> Any:
    drawn = jax.vmap(lambda one, of: of.sample(one), (0, None))
    key_data, key_noise = jax.random.split(key)
    return drawn(jax.random.split(key_data, N), law), drawn(jax.random.split(key_noise, N * NU), noise)


def _log_z_sample(seed: int, *, nu: float = NU, model: tuple[float, float] = (0.8, 1.0)) -> Check:
    """20 000 rows and ν = 3 draws of noise for each: c against −log Z, θ against the truth, within the errors of theory.

    f = bx − ax²/2 on N(0, 4). The variance of c is ([I⁻¹]_cc − 1 − 1/ν)/n, of θ [I⁻¹]_θθ/n.
    """
    a, b = 0.75, 0.8  # so that the law is N(.8, 1) with log Z = .32 − ½ log 4
    law, noise = (
        Gaussian(jnp.asarray([model[0]]), jnp.asarray([[model[1]]])),
        Gaussian(jnp.zeros(1), jnp.full((1, 1), 2.5)),
    )
    rows, drawn = (np.asarray(part)[:, 0] for part in _draws(law, noise, jax.random.key(seed)))
    x = np.concatenate([rows, drawn])
    features = lambda x: np.stack([x, -0.5 * x**2, np.ones_like(x)], axis=-1)  # noqa: E731
    log_normal = lambda x, m, s: -0.5 * ((x - m) / s) ** 2 - np.log(s) - 0.5 * np.log(2 * np.pi)  # noqa: E731
    label = np.arange(x.size) < N
    shift = log_normal(x, 0.0, 2.0) - log_normal(x, 0.0, 2.5) - np.log(nu)
    beta, missed, taken = map(np.asarray, fitted(features(x), shift, 1.0 * label, 1.0 * ~label, 10))
    base = shift + np.log(nu)
    batch = NoiseContrast(*map(jnp.asarray, (rows[:, None], drawn[:, None], base[:N], base[N:])))
    slope = _loss_slope(noise_contrastive_loss, jnp.asarray(beta), batch)
    grid, w = rules(0.0)[1]
    p, r = np.exp(log_normal(grid[:, 0], 0.8, 1.0)), np.exp(log_normal(grid[:, 0], 0.0, 2.5))
    inverse = np.linalg.inv(information(features(grid[:, 0]), p, r, w, NU))
    error = np.sqrt((np.diag(inverse) - [0.0, 0.0, 1 + 1 / NU]) / N)
    return monte_carlo(
        {
            "c, −log Z": (beta[2], 0.5 * np.log(4.0) - 0.32, error[2]),
            "θ": (beta[:2], [b, a], error[:2]),
            "E[1 − D], ν E_r[D]": (missed / N, taken / N, 1e-12),
            "the library's loss has no slope": (slope, 0.0, 1e-11),
        }
    )


IDENTITIES = (
    Identity(
        "nce.posterior",
        6,
        "p(1|x) = σ(f + log q − log r − log Z − log ν)",
        "rounding",
        _posterior,
        {
            "log ν left out": {"odds": _without_nu},
            "r = q": {"odds": _noise_is_reference},
            "sign of log Z": {"odds": _z_upside_down},
        },
        "Gutmann and Hyvärinen 2012",
    ),
    Identity(
        "nce.log_z",
        6,
        "the fitted intercept is −log Z for a law in the model; E_data[1 − D] = ν E_r[D] for every law",
        "rounding",
        _log_z,
        {"offset without log ν": {"offset": False}, "a law off the model": {"inside": False}},
        "Gutmann and Hyvärinen 2012",
    ),
    Identity(
        "nce.log_z.sample",
        6,
        "the intercept fitted to n rows is −log Z ± √(([I⁻¹]_cc − 1 − 1/ν)/n)",
        "monte-carlo",
        _log_z_sample,
        {"ν = 1 in the offset": {"nu": 1.0}, "rows off the model": {"model": (0.8, 0.7)}},
        "Gutmann and Hyvärinen 2012",
    ),
)
