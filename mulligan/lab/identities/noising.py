"""Chapter 9, diffusion: noise is added in steps that compose, and what it does to the distance of two laws.

Definition. x_t = α_t x_0 + σ_t e, the law of dx = f x dt + g dB with f = d log α/dt, g² = dσ²/dt − 2 f σ². One jump from s
to t is x_t = α_{t|s} x_s + σ_{t|s} e; p_t obeys ∂p/∂t = −f div(x p) + ½ g² Δp; two laws under the same noise approach
each other at the rate −½ g² E_p|∇ log p_t/q_t|². The notes' walk is α = 1, σ_t = σ√t; every statement is checked for it
and for a schedule that shrinks the datum. The objects are the library's ``Schedule`` and ``NoisedMixture``.
Identities: ``diffusion.jump``, ``diffusion.jump.law``, ``diffusion.fisher``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from mulligan.lab.identities.langevin import line_law
from mulligan.lab.identities.schedules import BOTH, Tangent, kept, moments, numbers, schedules
from mulligan.lab.identity import Check, Identity, rounding
from mulligan.loop import compile_small
from mulligan.targets.mixture import GaussianMixture
from mulligan.targets.noised import NoisedMixture

LINE = np.linspace(-12.0, 12.0, 241)
STEP = LINE[1] - LINE[0]
NODES, SHARES = np.polynomial.legendre.leggauss(16)
LOW, HIGH = 0.05, 0.55
TIMES = np.concatenate(
    [[0.15, 0.3, HIGH, LOW], LOW + 0.5 * (HIGH - LOW) * (NODES + 1)]
)  # and nodes between two of them
FEW = 3  # the first of them


# --- laws --------------------------------------------------------------------------------------------------------------


@kept
def line_laws(seed: int) -> tuple[GaussianMixture, GaussianMixture]:
    """p and q, two unlike mixtures of two on the line; the seed moves them.

    >>> [law.components for law in line_laws(0)]
    [2, 2]
    """
    means = np.array([[-0.6], [1.5]]) + 0.2 * np.random.default_rng([seed, 91]).normal(size=(2, 1))
    return line_law(seed), GaussianMixture.from_covariances([0.7, 0.3], means, [[[1.0]], [[0.4]]])


def normal(x: Any, mean: Any, variance: Any) -> np.ndarray:
    """log N(x; mean, variance) on the line.

    >>> round(float(normal(0.0, 0.0, 1.0)), 4)
    -0.9189
    """
    return -0.5 * ((x - mean) ** 2 / variance + np.log(2 * np.pi * variance))


def clean_density(law: GaussianMixture) -> np.ndarray:
    """p_0 at every point of ``LINE``, in NumPy: what noise has to be folded with.

    >>> round(float(STEP * clean_density(line_law(0)).sum()), 6)
    1.0
    """
    weights, means, roots = (np.asarray(a) for a in (law.weights, law.means[:, 0], law.choleskys[:, 0, 0]))
    return np.exp(normal(LINE[:, None], means, roots**2)) @ weights


class Seen(NamedTuple):
    """A noised law at ``TIMES`` and ``LINE``, (t, x): log p, its slopes in x, x twice and t; E and Var of x_0 given x_t.

    >>> Seen._fields[:2]
    ('log_p', 'score')
    """

    log_p: Any
    score: Any
    curvature: Any
    rate: Any
    denoised: Any
    variance: Any


@compile_small
def _seen(law: NoisedMixture, at: Any, x: Any) -> Any:
    def one(now: Any, point: Any) -> Any:
        zero = jnp.zeros(())
        here = eqx.tree_at(lambda noised: noised.schedule, law, Tangent(t_min=zero, t_max=zero, at=now))
        score, curvature = jax.jvp(lambda y: here.score(y, zero), (point,), (jnp.ones(1),))
        log_p, rate = jax.jvp(lambda t: here.log_prob(point, t), (zero,), (jnp.ones(()),))
        return Seen(
            log_p, score[0], curvature[0], rate, here.denoise(point, zero)[0], here.covariance(point, zero)[0, 0]
        )

    return jax.vmap(lambda now: jax.vmap(lambda point: one(now, point))(x))(at)


@kept
def seen(seed: int, which: int, name: str, noised: Callable = NoisedMixture) -> Seen:
    """The library's noised law, of the ``which``-th of ``line_laws`` under the named schedule. Kept for the mutants.

    >>> seen(0, 0, "walk").score.shape
    (20, 241)
    """
    return seen_at(line_laws(seed)[which], moments(name, TIMES), LINE, noised)


def seen_at(law: GaussianMixture, at: np.ndarray, x: np.ndarray, noised: Callable = NoisedMixture) -> Seen:
    """The same at other ``moments`` (20, 6) and points (241,): of these sizes it is the same program.

    >>> seen_at(line_laws(0)[0], moments("EDM", TIMES), LINE).rate.shape
    (20, 241)
    """
    model = noised(law, schedules()["walk"])
    return Seen(*(np.asarray(a) for a in _seen(model, jnp.asarray(at), jnp.asarray(x[:, None]))))


# --- jumps -------------------------------------------------------------------------------------------------------------


def variances_add(variance: float, scale: float, added: float) -> float:
    """The variance after a jump.

    >>> variances_add(1.0, 0.5, 1.0)
    1.25
    """
    return scale**2 * variance + added


def _deviations_add(variance: float, scale: float, added: float) -> float:
    """A planted mistake: √Δt for Δt."""
    return (scale * np.sqrt(variance) + np.sqrt(added)) ** 2


def _nothing_shrinks(variance: float, scale: float, added: float) -> float:
    """A planted mistake: what the earlier noise loses by α_{t|s} is forgotten."""
    return variance + added


def _jump(seed: int, *, add: Callable = variances_add, twice: float = 2.0, gain: float = 1.0) -> Check:
    """Twelve unequal jumps are one; f and g² are the slopes of α and σ²; the bridge is Bayes' rule. Five schedules."""
    rng = np.random.default_rng([seed, 92])
    times = np.sort(np.append(rng.uniform(0.03, 0.9, 12), 0.02))
    pairs: dict[str, tuple[Any, Any]] = {}
    for name, n in numbers(times).items():
        scale, variance = n.alpha[0], n.sigma[0] ** 2
        for shrink, added in zip(n.scale, n.variance):
            scale, variance = scale * shrink, add(variance, shrink, added)
        pairs[f"α, {name}"] = (scale, n.alpha[-1])
        pairs[f"σ², {name}"] = (variance, n.sigma[-1] ** 2)
        pairs[f"f, {name}"] = (n.drift * n.alpha, n.alpha_rate)
        pairs[f"g², {name}"] = (n.diffusion, n.variance_rate - twice * n.drift * n.sigma**2)
        e_s, e_t, x_0 = rng.normal(size=(3, 12))
        x_s = n.alpha[:-1] * x_0 + n.sigma[:-1] * e_s
        x_t = n.scale * x_s + np.sqrt(n.variance) * e_t
        bayes = normal(x_s, n.alpha[:-1] * x_0, n.sigma[:-1] ** 2) + normal(x_t, n.scale * x_s, n.variance)
        bridge = normal(x_s, n.of_x_t * x_t + gain * n.of_x_0 * x_0, n.bridge)
        pairs[f"bridge, {name}"] = (bridge, bayes - normal(x_t, n.alpha[1:] * x_0, n.sigma[1:] ** 2))
    return rounding(pairs)


def _jump_law(seed: int, *, half: float = 0.5, root: float = 1.0) -> Check:
    """p_t by one jump, and by four with kernels on a grid, is the library's; it solves the Fokker-Planck equation."""
    pairs: dict[str, tuple[Any, Any]] = {}
    for name in BOTH:
        found, clean = seen(seed, 0, name), clean_density(line_laws(seed)[0])
        at = numbers(TIMES)[name]
        for i, t in enumerate(TIMES[:FEW]):
            pieces = numbers(np.linspace(0.0, t, 5))[name]
            sizes = {"one": ([at.alpha[i]], [at.sigma[i] ** 2]), "small": (pieces.scale, root * pieces.variance)}
            for size, (scales, variances) in sizes.items():
                law = clean
                for scale, variance in zip(scales, variances):
                    law = STEP * np.exp(normal(LINE[:, None], scale * LINE, variance)) @ law
                pairs[f"{size} jumps to {t}, {name}"] = (law, np.exp(found.log_p[i]))
        f, g2 = at.drift[:, None], at.diffusion[:, None]
        right = -f * (1 + LINE * found.score) + half * g2 * (found.curvature + found.score**2)
        p_t = np.exp(found.log_p)
        pairs[f"Fokker-Planck, {name}"] = (p_t * found.rate, p_t * right)
    return rounding(pairs)


def _fisher(seed: int, *, half: float = 0.5, power: float = 1.0, exchanged: bool = False) -> Check:
    """dKL(p_t‖q_t)/dt = −½ g² E_p|∇ log p_t/q_t|² at each time, and integrated between two of them by Gauss-Legendre."""
    pairs = {}
    for name in BOTH:
        p, q = seen(seed, 0, name), seen(seed, 1, name)
        mass, log_ratio = STEP * np.exp(p.log_p), p.log_p - q.log_p
        kl = np.sum(mass * log_ratio, axis=1)
        slope = np.sum(mass * (p.rate * log_ratio + p.rate - q.rate), axis=1)
        weight = STEP * np.exp(q.log_p) if exchanged else mass
        rate = half * numbers(TIMES)[name].diffusion ** power * np.sum(weight * (p.score - q.score) ** 2, axis=1)
        pairs[f"dKL/dt, {name}"] = (slope, -rate)
        pairs[f"KL lost, {name}"] = (kl[3] - kl[2], 0.5 * (HIGH - LOW) * SHARES @ rate[4:])
    return rounding(pairs)


IDENTITIES = (
    Identity(
        "diffusion.jump",
        9,
        "x_t = α_{t|s} x_s + σ_{t|s} e composes: n jumps are one; g² = dσ²/dt − 2fσ²; the bridge is Bayes' rule",
        "rounding",
        _jump,
        {
            "√Δt for Δt: deviations add": {"add": _deviations_add},
            "the shrinking of noise forgotten": {"add": _nothing_shrinks},
            "g² = dσ²/dt − fσ²": {"twice": 1.0},
            "the bridge's mean too near x_t": {"gain": 0.9},
        },
        "Wu's tutorial, diffusion; Sohl-Dickstein et al. 2015; Song et al. 2021",
    ),
    Identity(
        "diffusion.jump.law",
        9,
        "p_t by one jump is p_t by many small ones; ∂p/∂t = −f div(x p) + ½ g² Δp, for the walk (σ²/2) Δp",
        "rounding",
        _jump_law,
        {"½ missing": {"half": 1.0}, "the small steps' variance halved": {"root": 0.5}},
        "Fokker 1914; Planck 1917; Song et al. 2021",
    ),
    Identity(
        "diffusion.fisher",
        9,
        "dKL(p_t‖q_t)/dt = −½ g² E_{p_t}|∇ log p_t/q_t|²: score matching integrated over noise is likelihood",
        "rounding",
        _fisher,
        {"½ missing": {"half": 1.0}, "g for g²": {"power": 0.5}, "E over q_t": {"exchanged": True}},
        "Lyu 2009; Song, Durkan, Murray and Ermon 2021",
    ),
)
