"""Chapter 9, score and denoising: the score is what the best denoiser knows.

Definition. Of x_t = α x_0 + σ e: ∇ log p_t(x_t) = E[−(x_t − α x_0)/σ² | x_t] (Vincent), so E[x_0|x_t] =
(x_t + σ² ∇ log p_t)/α and Cov(x_0|x_t) = (σ² I + σ⁴ Hess log p_t)/α² (Tweedie), and a denoiser's loss is the score's plus
what no denoiser can remove. x_s given x_t has mean (x_t + σ²_{t|s} ∇ log p_t)/α_{t|s} and covariance
(σ²_{t|s} I + σ⁴_{t|s} Hess log p_t)/α²_{t|s} exactly, and is nearly Gaussian for short steps. For the notes' walk α = 1,
σ² = v = σ²t, σ²_{t|s} = a = σ²Δt. The conditional laws are found by Bayes' rule on a grid, the rest is the library's.
Identities: ``diffusion.vincent``, ``diffusion.tweedie``, ``diffusion.denoising``, ``diffusion.posterior_gaussian``,
``diffusion.posterior_gaussian.kl``; for other targets than x_0 and the score ``parametrizations.py``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from mulligan.lab.identities.diffusion import NOW, PLANE, on_plane
from mulligan.lab.identities.halves import plane_laws
from mulligan.lab.identities.noising import FEW, LINE, STEP, TIMES, clean_density, line_laws, normal, seen
from mulligan.lab.identities.schedules import BOTH, kept, numbers
from mulligan.lab.identity import Check, Identity, excess, order, rounding
from mulligan.targets.mixture import GaussianMixture
from mulligan.targets.noised import NoisedMixture

INNER = np.abs(LINE) <= 8  # where x_t is compared: a law given an x_t beyond reaches the ends of ``LINE``


@kept
def posterior(seed: int, name: str, i: int) -> np.ndarray:
    """p(x_0 | x_t) for every x_t and x_0 of ``LINE`` at the i-th of ``TIMES``, by Bayes' rule; rows add up to 1.

    >>> posterior(0, "walk", 0).sum(axis=1)[120].round(12).tolist()
    1.0
    """
    at, clean = numbers(TIMES)[name], np.log(clean_density(line_laws(seed)[0]))
    weight = clean + normal(LINE[:, None], at.alpha[i] * LINE, at.sigma[i] ** 2)
    weight = np.exp(weight - weight.max(axis=1, keepdims=True))
    return weight / weight.sum(axis=1, keepdims=True)


def _vincent(
    seed: int, *, sign: float = -1.0, power: float = 2.0, alpha: float = 1.0, noised: Callable = NoisedMixture
) -> Check:
    """The score of the library's noised law is the mean of −(x_t − α x_0)/σ² over the posterior of x_0."""
    pairs = {}
    for name in BOTH:
        at = numbers(TIMES)[name]
        for i in range(FEW):
            apart = sign * (LINE[:, None] - at.alpha[i] ** alpha * LINE) / at.sigma[i] ** power
            mean = np.sum(posterior(seed, name, i) * apart, axis=1)
            pairs[f"t = {TIMES[i]}, {name}"] = (seen(seed, 0, name, noised).score[i][INNER], mean[INNER])
    return rounding(pairs)


def _tweedie(
    seed: int, *, power: float = 2.0, sign: float = 1.0, second: float = 1.0, noised: Callable = NoisedMixture
) -> Check:
    """Mean and covariance of x_0 given x_t: by Bayes' rule, from the score and its slope, and the library's own."""
    pairs: dict[str, tuple[Any, Any]] = {}
    for name in BOTH:
        at, found = numbers(TIMES)[name], seen(seed, 0, name, noised)
        for i in range(FEW):
            p, (a, s) = posterior(seed, name, i), (at.alpha[i], at.sigma[i])
            mean = p @ LINE
            variance = np.sum(p * (LINE - mean[:, None]) ** 2, axis=1)
            first = (LINE + sign * s**power * found.score[i]) / a
            spread = (s**2 + second * s**4 * found.curvature[i]) / a**2
            for label, left, right in (
                ("mean", mean, first),
                ("the library's mean", mean, found.denoised[i]),
                ("variance", variance, spread),
                ("the library's variance", variance, found.variance[i]),
            ):
                pairs[f"{label}, t = {TIMES[i]}, {name}"] = (left[INNER], right[INNER])
        pairs |= _tweedie_plane(seed, name, power, sign, second)
    return rounding(pairs)


def _tweedie_plane(seed: int, name: str, power: float, sign: float, second: float) -> dict[str, tuple[Any, Any]]:
    """The same in the plane, at a few points, where the covariance is a matrix."""
    at, found, law = numbers([NOW])[name], on_plane(seed, name), plane_laws(seed)[0]
    a, s = at.alpha[0], at.sigma[0]
    chosen = np.flatnonzero(np.abs(PLANE).max(axis=1) < 2.5)[::17]
    weight = _plane_density(law) * np.exp(-0.5 * ((PLANE[chosen, None] - a * PLANE) ** 2).sum(axis=-1) / s**2)
    weight /= weight.sum(axis=1, keepdims=True)
    mean = weight @ PLANE
    covariance = np.einsum("nk,ki,kj->nij", weight, PLANE, PLANE) - np.einsum("ni,nj->nij", mean, mean)
    first = (PLANE + sign * s**power * found.score) / a
    spread = (s**2 * np.eye(2) + second * s**4 * found.hessian) / a**2
    return {
        f"mean, plane, {name}": (mean, first[chosen]),
        f"the library's mean, plane, {name}": (mean, found.denoised[chosen]),
        f"covariance, plane, {name}": (covariance, spread[chosen]),
        f"the library's covariance, plane, {name}": (covariance, found.covariance[chosen]),
    }


def _plane_density(law: GaussianMixture) -> np.ndarray:
    """p_0 at every point of ``PLANE``, in NumPy."""
    total = np.zeros(len(PLANE))
    for weight, mean, root in zip(*(np.asarray(a) for a in (law.weights, law.means, law.choleskys))):
        z = np.linalg.solve(root, (PLANE - mean).T)
        total += weight * np.exp(-0.5 * (z**2).sum(axis=0)) / (2 * np.pi * np.linalg.det(root))
    return total


# --- losses ------------------------------------------------------------------------------------------------------------


def wrong_scores(seed: int) -> np.ndarray:
    """Five functions on ``LINE`` that are not the score of anything in particular, (5, x).

    >>> wrong_scores(0).shape
    (5, 241)
    """
    a, b, c, d = np.random.default_rng([seed, 94]).normal(size=(4, 5, 1))
    return 2 * a * np.tanh(b * LINE + c) - 0.5 * d**2 * LINE


def joint_mass(seed: int, name: str, i: int) -> np.ndarray:
    """The mass of every pair (x_t, x_0) of ``LINE`` at the i-th of ``TIMES``.

    >>> round(float(joint_mass(0, "walk", 0).sum()), 6)
    1.0
    """
    at = numbers(TIMES)[name]
    clean = clean_density(line_laws(seed)[0])
    return STEP**2 * clean * np.exp(normal(LINE[:, None], at.alpha[i] * LINE, at.sigma[i] ** 2))


def _denoising(seed: int, *, power: float = 2.0, constant: float = 1.0, share: float = 1.0) -> Check:
    """Denoising loss = explicit loss + E trace Cov(x_0|x_t) α²/σ⁴ for any s; so the score attains the minimum."""
    pairs: dict[str, tuple[Any, Any]] = {}
    for name in BOTH:
        at, found = numbers(TIMES)[name], seen(seed, 0, name)
        for i in range(FEW):
            a, s, mass = at.alpha[i], at.sigma[i], joint_mass(seed, name, i)
            p_t = STEP * np.exp(found.log_p[i])
            irreducible = p_t @ found.variance[i]
            tried = np.concatenate([wrong_scores(seed), found.score[i][None]])
            denoised = (LINE + s**power * tried) / a
            loss = np.array([np.sum(mass * (LINE - guess[:, None]) ** 2) for guess in denoised])
            explicit = share * (tried - found.score[i]) ** 2 @ p_t
            label = f"t = {TIMES[i]}, {name}"
            pairs[f"x_0 loss, {label}"] = (loss, s**4 / a**2 * explicit + constant * irreducible)
            target = -(LINE[:, None] - a * LINE) / s**2
            matched = np.array([np.sum(mass * (score[:, None] - target) ** 2) for score in tried])
            pairs[f"score loss, {label}"] = (matched - explicit, constant * a**2 / s**4 * irreducible)
            pairs[f"least, {label}"] = (excess(loss[-1], loss), 0.0)
    return rounding(pairs)


# --- the law of a step back ---------------------------------------------------------------------------------------------


def _posterior_gaussian(seed: int, *, power: float = 1.0, sign: float = 1.0, second: float = 1.0) -> Check:
    """Mean and variance of x_s given x_t at large steps: by Bayes' rule, from the score, and of the ancestral step."""
    pairs: dict[str, tuple[Any, Any]] = {}
    for name in BOTH:
        found = seen(seed, 0, name)
        for i, j in ((0, 1), (0, 2), (1, 2)):
            step = numbers(TIMES[[i, j]])[name]
            scale, v = step.scale[0], step.variance[0]
            weight = found.log_p[i] + normal(LINE[:, None], scale * LINE, v)
            p = np.exp(weight - weight.max(axis=1, keepdims=True))
            p /= p.sum(axis=1, keepdims=True)
            mean = p @ LINE
            variance = np.sum(p * (LINE - mean[:, None]) ** 2, axis=1)
            formula = (LINE + sign * v**power * found.score[j]) / scale
            spread = (v + second * v**2 * found.curvature[j]) / scale**2
            ancestral = step.of_x_t[0] * LINE + step.of_x_0[0] * found.denoised[j]
            label = f"from {TIMES[j]} to {TIMES[i]}, {name}"
            pairs[f"mean, {label}"] = (mean[INNER], formula[INNER])
            pairs[f"the ancestral mean, {label}"] = (mean[INNER], ancestral[INNER])
            pairs[f"variance, {label}"] = (variance[INNER], spread[INNER])
    return rounding(pairs)


BRIEF = 2.0 ** -np.arange(6, 11)


def _posterior_kl(seed: int, *, share: float = 0.25, power: float = 1.0) -> Check:
    """E KL(p(x_s|x_t) ‖ N(its mean, (σ²_{t|s}/α²_{t|s}) I)) falls as Δt²; less ¼ σ⁴_{t|s} E|Hess log p_t|², as Δt³."""
    u = np.linspace(-8.0, 8.0, 101)
    shape = np.exp(normal(u, 0.0, 1.0)) * (u[1] - u[0])
    law, curves = line_laws(seed)[0], {}
    weights, means, roots = (np.asarray(a) for a in (law.weights, law.means[:, 0], law.choleskys[:, 0, 0]))
    for name in BOTH:
        found = seen(seed, 0, name)
        p_t = STEP * np.exp(found.log_p[1])
        hessian = p_t @ found.curvature[1] ** 2
        divergences, added = [], []
        for dt in BRIEF:
            step = numbers([TIMES[1] - dt, TIMES[1]])[name]
            scale, v = step.scale[0], step.variance[0]
            wide = np.sqrt(v) ** power / scale
            y = ((LINE + v * found.score[1]) / scale)[:, None] + wide * u
            spread = (step.alpha[0] * roots) ** 2 + step.sigma[0] ** 2
            earlier = np.log(np.exp(normal(y[..., None], step.alpha[0] * means, spread)) @ weights)
            log_ratio = earlier + normal(LINE[:, None], scale * y, v) - found.log_p[1][:, None]
            log_ratio -= normal(u, 0.0, 1.0) - np.log(wide)
            divergences.append(p_t @ (np.exp(log_ratio) * log_ratio @ shape))
            added.append(v)
        rest = np.abs(divergences - share * np.array(added) ** 2 * hessian)
        curves[f"KL, {name}"] = (BRIEF, divergences, 2.0)
        curves[f"beyond the first term, {name}"] = (BRIEF, rest, 3.0)
    return order(curves)


IDENTITIES = (
    Identity(
        "diffusion.vincent",
        9,
        "∇ log p_t(x_t) = E[−(x_t − α x_0)/σ² | x_t]",
        "rounding",
        _vincent,
        {"sign": {"sign": 1.0}, "σ for σ²": {"power": 1.0}, "α left out": {"alpha": 0.0}},
        "Vincent 2011",
    ),
    Identity(
        "diffusion.tweedie",
        9,
        "E[x_0|x_t] = (x_t + σ² ∇ log p_t)/α; Cov(x_0|x_t) = (σ² I + σ⁴ Hess log p_t)/α²",
        "rounding",
        _tweedie,
        {"σ for σ²": {"power": 1.0}, "sign of the score": {"sign": -1.0}, "sign of the Hessian": {"second": -1.0}},
        "Robbins 1956; Efron 2011",
    ),
    Identity(
        "diffusion.denoising",
        9,
        "E|s + (x_t − α x_0)/σ²|² = E|s − ∇ log p_t|² + (α²/σ⁴) E trace Cov(x_0|x_t) for every s",
        "rounding",
        _denoising,
        {
            "σ for σ²": {"power": 1.0},
            "the irreducible loss left out": {"constant": 0.0},
            "½ of the explicit loss": {"share": 0.5},
        },
        "Hyvärinen 2005; Vincent 2011",
    ),
    Identity(
        "diffusion.posterior_gaussian",
        9,
        "x_s|x_t has mean (x_t + σ²_{t|s} ∇ log p_t)/α_{t|s}, covariance (σ²_{t|s} I + σ⁴_{t|s} Hess log p_t)/α²_{t|s}",
        "rounding",
        _posterior_gaussian,
        {"√Δt for Δt": {"power": 0.5}, "sign of the score": {"sign": -1.0}, "variance a alone": {"second": 0.0}},
        "Wu's tutorial, diffusion; Efron 2011",
    ),
    Identity(
        "diffusion.posterior_gaussian.kl",
        9,
        "E KL(p(x_{t−Δt}|x_t) ‖ N(mean, aI)) = (a²/4) E|Hess log p_t|² + O(a³)",
        "order",
        _posterior_kl,
        {"½ for ¼": {"share": 0.5}, "√Δt for Δt in the variance": {"power": 0.5}},
        "Wu's tutorial, diffusion; Sohl-Dickstein et al. 2015",
    ),
)
