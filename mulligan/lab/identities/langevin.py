"""Chapter 7, Langevin dynamics: what one step does to a law, and where many of them end.

Definition. x' = x + (Δt/2) ∇ log π(x) + √Δt e; as Δt → 0, dx = ½ ∇ log π dt + dB, whose law p_t obeys the Fokker-Planck
equation ∂p/∂t = −½ div(p ∇ log π) + ½ Δp and the H-theorem dKL(p_t‖π)/dt = −½ E|∇ log p_t/π|². The gradient half squeezes,
the noise half diffuses (``mulligan.lab.identities.halves``). The kernels are the library's ``Langevin``; its laws are
propagated on grids, or exactly where a step is affine, so nothing here is random.
Identities: ``langevin.limit``, ``langevin.limit.step``, ``langevin.stationary``, ``langevin.stationary.bias``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from mulligan.core import Kernel
from mulligan.lab.identity import Check, Identity, excess, order, rounding
from mulligan.loop import compile_small
from mulligan.samplers.langevin import Langevin
from mulligan.samplers.point import point_at
from mulligan.targets.gaussian import Gaussian
from mulligan.targets.mixture import GaussianMixture

Step = Callable[[Any, Any], Kernel]  # (log density, Δt) to a kernel whose noise is d normals


def langevin(log_density: Any, step_size: float) -> Kernel:
    """The library's kernel.

    >>> float(langevin(jnp.sum, 0.25).step_size)
    0.25
    """
    return _sharpened(log_density, 1.0, step_size)


def _sharpened(log_density: Any, power: float, step_size: float) -> Kernel:
    """The kernel for π^power: with the power a number of the program, planted mistakes need no program of their own."""
    return Langevin(Sharpened(log_density, jnp.asarray(power, float)), jnp.asarray(step_size, float))


class Sharpened(eqx.Module):
    """x ↦ power · log π(x), for planted mistakes.

    >>> float(Sharpened(jnp.sum, jnp.asarray(2.0))(jnp.ones(3)))
    6.0
    """

    log_density: Callable
    power: Any

    def __call__(self, x: Any) -> Any:
        return self.power * self.log_density(x)


def whole_gradient(log_density: Any, step_size: float) -> Kernel:
    """A planted mistake: the ½ before the gradient is missing."""
    return _sharpened(log_density, 2.0, step_size)


def noise_of_dt(log_density: Any, step_size: float) -> Kernel:
    """A planted mistake: Δt e for √Δt e."""
    return _sharpened(log_density, 1 / step_size, step_size**2)


def uphill(log_density: Any, step_size: float) -> Kernel:
    """A planted mistake: the score's sign."""
    return _sharpened(log_density, -1.0, step_size)


@compile_small
def _positions(kernel: Kernel, x: Any, noise: Any) -> Any:
    return jax.vmap(lambda x, e: kernel.move(kernel.init(jax.random.key(0), x), e, None)[0].position)(x, noise)


def positions_after(kernel: Kernel, x: np.ndarray, noise: np.ndarray) -> np.ndarray:
    """Where one step with this noise leads from each x, (n, d).

    >>> positions_after(langevin(jnp.sum, 0.25), np.zeros((1, 1)), np.ones((1, 1))).tolist()
    [[0.625]]
    """
    return np.asarray(_positions(kernel, jnp.asarray(x), jnp.asarray(noise)))


def transition(kernel: Kernel, x: np.ndarray) -> np.ndarray:
    """The density of a step from x_i to x_j on a grid of the line (n,), for a kernel that is affine in its noise: (n, n).

    >>> transition(langevin(jnp.sum, 1.0), np.zeros(1)).round(4).tolist()
    [[0.3521]]
    """
    centre = positions_after(kernel, x[:, None], np.zeros((x.size, 1)))
    width = positions_after(kernel, x[:, None], np.ones((x.size, 1))) - centre
    return np.exp(-0.5 * ((x - centre) / width) ** 2) / (np.sqrt(2 * np.pi) * width)


def line_law(seed: int) -> GaussianMixture:
    """Two unequal overlapping parts on the line; the seed moves them.

    >>> line_law(0).dim
    1
    """
    means = np.array([[-1.2], [1.0]]) + 0.2 * np.random.default_rng([seed, 1]).normal(size=(2, 1))
    return GaussianMixture.from_covariances([0.35, 0.65], means, [[[0.5]], [[0.8]]])


@compile_small
def _logs_and_scores(law: Any, x: Any) -> Any:
    found = jax.vmap(lambda at: point_at(law.log_prob, at))(x)
    return found.log_density, found.score


def log_and_score(law: Any, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """log p (n,) and its score (n, d)."""
    log_p, score = _logs_and_scores(law, jnp.asarray(x))
    return np.asarray(log_p), np.asarray(score)


# --- the limit ---------------------------------------------------------------------------------------------------------


def _relaxing(start: GaussianMixture, target: Gaussian, t: Any, rate: Any) -> GaussianMixture:
    """p_t of dx = ½ ∇ log π dt + dB on N(0, s²): means shrink by e^(−t/2s²), variances relax at twice that rate."""
    variance = target.covariance[0, 0]
    kept = jnp.exp(-rate * t / variance)
    spread = variance + (start.choleskys[:, 0, 0] ** 2 - variance) * kept**2
    return GaussianMixture(start.log_weights, start.means * kept, jnp.sqrt(spread)[:, None, None])


@compile_small
def _h_theorem(start: GaussianMixture, target: Gaussian, times: Any, rate: Any, x: Any) -> Any:
    """KL(p_t‖π), its slope in t, E|∇ log p_t/π|², and both sides of Fokker-Planck over p at points inside, by time."""
    step = x[1, 0] - x[0, 0]
    log_p = lambda t, at: _relaxing(start, target, t, rate).log_prob(at[None])  # noqa: E731
    log_pi = lambda at: target.log_prob(at[None])  # noqa: E731
    line, inner = x[:, 0], x[x.shape[0] // 3 : -(x.shape[0] // 3) : 4, 0]

    def divergence(t: Any) -> Any:
        values = jax.vmap(lambda at: log_p(t, at))(line)
        return step * (jnp.exp(values) @ (values - jax.vmap(log_pi)(line)))

    def fisher(t: Any) -> Any:
        apart = jax.vmap(jax.grad(lambda at: log_p(t, at) - log_pi(at)))(line)
        return step * (jnp.exp(jax.vmap(lambda at: log_p(t, at))(line)) @ apart**2)

    def fokker_planck(t: Any, at: Any) -> Any:
        score, target_score = jax.grad(log_p, 1), jax.grad(log_pi)
        squeezed = -0.5 * (jax.grad(target_score)(at) + score(t, at) * target_score(at))
        return jax.grad(log_p)(t, at), squeezed + 0.5 * (jax.grad(score, 1)(t, at) + score(t, at) ** 2)

    kl, slope = jax.vmap(jax.value_and_grad(divergence))(times)
    return (
        kl,
        slope,
        jax.vmap(fisher)(times),
        jax.vmap(lambda t: jax.vmap(lambda at: fokker_planck(t, at))(inner))(times),
    )


def _limit(seed: int, *, half: float = 0.5, rate: float = 0.5) -> Check:
    """p_t in closed form on N(0, s²): it solves Fokker-Planck, dKL/dt = −½ E|∇ log p_t/π|², and KL falls to 0."""
    s = np.random.default_rng([seed, 2]).uniform(0.8, 1.4)
    times = np.array([0.1, 0.3, 1.0, 2.0, 5.0, 60.0])
    x = jnp.linspace(-12.0, 12.0, 481)[:, None]
    target = Gaussian(jnp.zeros(1), jnp.asarray([[s]]))
    numbers = jnp.asarray(times), jnp.asarray(rate)
    kl, slope, fisher, (left, right) = _h_theorem(line_law(seed), target, *numbers, x)
    return rounding(
        {
            "Fokker-Planck": (left, right),
            "H-theorem": (slope, -half * np.asarray(fisher)),
            "KL falls": (excess(kl[1:], kl[:-1]), 0.0),
            "p_t → π": (kl[-1], 0.0),
        }
    )


TIMES = 2.0 ** -np.arange(5, 10)


def _limit_step(seed: int, *, step: Step = langevin, half: float = 0.5) -> Check:
    """One step on a mixture from another law: its fall of KL(p‖π), over Δt, is ½ E|∇ log p/π|² but for O(Δt)."""
    x = np.linspace(-8.0, 8.0, 501)
    gap = x[1] - x[0]
    start = Gaussian(jnp.asarray([0.6]), jnp.asarray([[1.1]]))
    target = line_law(seed)
    (log_p, score), (log_pi, target_score) = (log_and_score(law, x[:, None]) for law in (start, target))
    p = np.exp(log_p)
    rate = -half * gap * (p @ (score - target_score)[:, 0] ** 2)
    kl = lambda law: gap * np.sum(law * (np.log(np.maximum(law, 1e-300)) - log_pi))  # noqa: E731
    after = [gap * p @ transition(step(target.log_prob, dt), x) for dt in TIMES]
    return order(
        {
            "what is left of the rate": (
                TIMES,
                [abs((kl(law) - kl(p)) / dt - rate) for law, dt in zip(after, TIMES)],
                1.0,
            )
        }
    )


# --- the stationary law ------------------------------------------------------------------------------------------------


def _shrunk(variance: np.ndarray, step_size: float) -> np.ndarray:
    """Σ (I − Δt Σ⁻¹/4)⁻¹."""
    return variance @ np.linalg.inv(np.eye(len(variance)) - step_size / 4 * np.linalg.inv(variance))


def _exact_law(variance: np.ndarray, step_size: float) -> np.ndarray:
    """A planted mistake: as if the unadjusted chain kept π."""
    return variance


def _affine(kernel: Kernel, dim: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A, B, c of x' = A x + B e + c, found by stepping from 0 and from each unit vector."""
    unit, zero = np.eye(dim), np.zeros((dim, dim))
    x, e = np.concatenate([zero[:1], unit, zero]), np.concatenate([zero[:1], zero, unit])
    found = positions_after(kernel, x, e)
    return (found[1 : dim + 1] - found[0]).T, (found[dim + 1 :] - found[0]).T, found[0]


def _stationary(seed: int, *, step: Step = langevin, stated: Callable = _shrunk, bound: float = 4.0) -> Check:
    """On N(m, Σ) the chain's own covariance is Σ(I − Δt Σ⁻¹/4)⁻¹, its mean m; it is stable iff Δt < 4 times the least."""
    rng = np.random.default_rng([seed, 3])
    pairs: dict[str, tuple[Any, Any]] = {}
    for dim in (1, 2):
        root = rng.normal(size=(dim, dim))
        variance = 0.5 * np.eye(dim) + root @ root.T / 2
        mean, least = rng.normal(size=dim), np.linalg.eigvalsh(variance)[0]
        law = Gaussian.from_covariance(mean, variance)
        stable = []
        for share in (0.02, 0.3, 0.9, 0.999, 1.001, 1.5):
            dt = 4 * least * share
            a, b, c = _affine(step(law.log_prob, dt), dim)
            stable.append(float(np.abs(np.linalg.eigvals(a)).max() < 1) - float(dt < bound * least))
            if share < 0.99:
                lifted = np.eye(dim**2) - np.kron(a, a)
                own = np.linalg.solve(lifted, (b @ b.T).ravel()).reshape(dim, dim)
                pairs[f"variance, d = {dim}, Δt = {share} of 4s²"] = (own, stated(variance, dt))
                pairs[f"mean, d = {dim}, Δt = {share} of 4s²"] = (np.linalg.solve(np.eye(dim) - a, c), mean)
        pairs[f"stable, d = {dim}"] = (np.asarray(stable), np.zeros(len(stable)))
    return rounding(pairs)


def _stationary_bias(seed: int, *, step: Step = langevin) -> Check:
    """On a mixture the chain's own law is off by O(Δt), found as the left eigenvector of its transition on a grid."""
    x, law = np.linspace(-7.0, 7.0, 351), line_law(seed)
    statistics = np.stack([x, x**2, np.cos(2 * x)], axis=-1)
    pi = np.exp(log_and_score(law, x[:, None])[0])
    truth = pi @ statistics / pi.sum()
    bias = []
    for dt in TIMES:
        moved = transition(step(law.log_prob, dt), x)
        moved /= moved.sum(axis=1, keepdims=True)
        equations = np.vstack([(moved.T - np.eye(x.size))[1:], np.ones(x.size)])
        own = np.linalg.solve(equations, np.append(np.zeros(x.size - 1), 1.0))
        bias.append(own @ statistics - truth)
    return order({"bias": (TIMES, np.linalg.norm(bias, axis=1), 1.0)})


IDENTITIES = (
    Identity(
        "langevin.limit",
        7,
        "dx = ½ ∇ log π dt + dB: ∂p/∂t = −½ div(p ∇ log π) + ½ Δp; dKL(p_t‖π)/dt = −½ E_{p_t}|∇ log p_t/π|²; p_t → π",
        "rounding",
        _limit,
        {"½ missing": {"half": 1.0}, "∇ log π for ½ ∇ log π": {"rate": 1.0}},
        "Fokker 1914; Planck 1917; Jordan, Kinderlehrer and Otto 1998",
    ),
    Identity(
        "langevin.limit.step",
        7,
        "(KL(p after one step‖π) − KL(p‖π))/Δt + ½ E_p|∇ log p/π|² = O(Δt)",
        "order",
        _limit_step,
        {
            "½ missing": {"half": 1.0},
            "∇ log π for ½ ∇ log π": {"step": whole_gradient},
            "Δt e for √Δt e": {"step": noise_of_dt},
        },
        "Jordan, Kinderlehrer and Otto 1998",
    ),
    Identity(
        "langevin.stationary",
        7,
        "on N(m, Σ) the chain's own covariance is Σ(I − Δt Σ⁻¹/4)⁻¹, stable iff Δt < 4s²",
        "rounding",
        _stationary,
        {
            "as if π were kept": {"stated": _exact_law},
            "stable iff Δt < 2s²": {"bound": 2.0},
            "∇ log π for ½ ∇ log π": {"step": whole_gradient},
            "Δt e for √Δt e": {"step": noise_of_dt},
        },
        "Roberts and Tweedie 1996",
    ),
    Identity(
        "langevin.stationary.bias",
        7,
        "on a mixture E_own[h] − E_π[h] = O(Δt)",
        "order",
        _stationary_bias,
        {"∇ log π for ½ ∇ log π": {"step": whole_gradient}, "Δt e for √Δt e": {"step": noise_of_dt}},
        "Talay and Tubaro 1990",
    ),
)
