"""Chapter 4: two surrogates of KL(p_data‖p_θ), one below it and one above, both touching it at θ_t with one slope.

Definition. Below: C(θ) = KL(p_data‖p_θ) − KL(p_θt‖p_θ), in which log Z cancels. (The tutorial calls it contrastive
divergence; Hinton's CD-k has p_k = T^k p_data where this has p_θt, and another gradient.) Above: the EM surrogate
KL(p_data(x) p_θt(z|x) ‖ p_θ(x, z)). The gaps are KL(p_θt‖p_θ) = ½ δᵀI δ + … with the Fisher information, and
E KL(p_θt(z|x)‖p_θ(z|x)) = ½ δᵀI_missing δ + …, δ = θ − θ_t. The energy model is an enumerated ``RestrictedBoltzmann``,
curved in its parameters (were f linear in θ, C would be the tangent itself); the latent one a ``GaussianMixture``.
Identities: ``cd.gradient``, ``cd.below``, ``cd.below.fisher``, ``em.above``, ``em.above.fisher``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from mulligan.lab.contrastive import every_state, gibbs_sweep, lattice_law, machine_of
from mulligan.lab.identity import Check, Identity, excess, order, rounding
from mulligan.loop import compile_small
from mulligan.targets.discrete import RestrictedBoltzmann
from mulligan.targets.mixture import GaussianMixture

TOLERANCE = 1e-8
STEPS = 2.0 ** -np.arange(4, 10)


class _Surrogate(NamedTuple):
    """Values at several θ, (t,), and the two slopes at θ_t, (p,)."""

    surrogate: Any
    kl: Any
    gap: Any
    surrogate_slope: Any
    kl_slope: Any


def _several(seed: int, current: np.ndarray, count: int = 6) -> np.ndarray:
    """θ_t itself, and points around it."""
    away = np.random.default_rng(seed + 1).normal(size=(count, current.size)) * 0.7
    return np.concatenate([current[None], current + away])


# --- contrastive divergence: below ------------------------------------------------------------------------------------


def _negative_energy(machine: RestrictedBoltzmann, theta: Any, every: Any) -> Any:
    """f_θ of every state, θ flat, by the library's own free energy."""
    _, unravel = ravel_pytree((machine.W, machine.b, machine.c))
    moved = eqx.tree_at(lambda law: (law.W, law.b, law.c), machine, unravel(theta))
    return jax.vmap(moved.unnormalised)(every)


def _flat(machine: RestrictedBoltzmann) -> np.ndarray:
    return np.asarray(ravel_pytree((machine.W, machine.b, machine.c))[0])


@compile_small
def _contrast(machine: RestrictedBoltzmann, thetas: Any, data: Any, negative: Any, every: Any) -> _Surrogate:
    """C without log Z, KL(p_data‖p_θ), KL(p_θt‖p_θ); ``negative`` is the law that C takes for p_θt."""
    current = jnp.exp(jax.vmap(machine.log_prob)(every))

    def kl_from(law: Any, theta: Any) -> Any:
        return law @ (jnp.log(law) - jax.nn.log_softmax(_negative_energy(machine, theta, every)))

    def surrogate(theta: Any) -> Any:
        f = _negative_energy(machine, theta, every)
        return data @ (jnp.log(data) - f) - negative @ (jnp.log(negative) - f)

    kl = lambda theta: kl_from(data, theta)  # noqa: E731
    gap = lambda theta: kl_from(current, theta)  # noqa: E731
    at = [jax.vmap(function)(thetas) for function in (surrogate, kl, gap)]
    return _Surrogate(*at, jax.grad(surrogate)(thetas[0]), jax.grad(kl)(thetas[0]))


def _current_law(machine: RestrictedBoltzmann, data: Any) -> Any:
    """p_θt: the model's own law, known exactly."""
    return jnp.exp(jax.vmap(machine.log_prob)(every_state()))


def _hinton_law(machine: RestrictedBoltzmann, data: Any) -> Any:
    """A planted mistake: p_1 = T p_data, Hinton's CD-1, in the surrogate that is defined with p_θt."""
    return data @ gibbs_sweep(machine)


def _contrasted(seed: int, negative: Callable) -> _Surrogate:
    machine, data = machine_of(seed), lattice_law()
    thetas = jnp.asarray(_several(seed, _flat(machine)))
    return _Surrogate(*map(np.asarray, _contrast(machine, thetas, data, negative(machine, data), every_state())))


def _cd_gradient(seed: int, *, negative: Callable = _current_law, sign: float = -1.0) -> Check:
    """log Z cancels, and ∇C(θ_t) = −L′(θ_t); L′ is the slope of −KL(p_data‖p_θ)."""
    found = _contrasted(seed, negative)
    return rounding(
        {
            "log Z cancels": (found.surrogate, found.kl - found.gap),
            "∇C, −L′": (found.surrogate_slope, sign * -found.kl_slope),
        },
        TOLERANCE,
    )


def _cd_below(seed: int, *, negative: Callable = _current_law, gap_sign: float = 1.0) -> Check:
    """C ≤ KL(p_data‖p_θ), equal at θ_t with the same slope; the gap is KL(p_θt‖p_θ)."""
    found = _contrasted(seed, negative)
    return rounding(
        {
            "C below KL": (excess(found.surrogate, found.kl), 0.0),
            "the gap": (found.kl - found.surrogate, gap_sign * found.gap),
            "equal at θ_t": (found.kl[0], found.surrogate[0]),
            "one tangent": (found.kl_slope, found.surrogate_slope),
        },
        TOLERANCE,
    )


@compile_small
def _fisher(machine: RestrictedBoltzmann, theta: Any, every: Any, centred: bool) -> Any:
    """I = Cov_pθ(∂f/∂θ), (p, p)."""
    p = jnp.exp(jax.vmap(machine.log_prob)(every))
    slopes = jax.jacfwd(lambda at: _negative_energy(machine, at, every))(theta)
    slopes = slopes - p @ slopes if centred else slopes
    return slopes.T @ (p[:, None] * slopes)


def _remainders(gap: Callable, current: np.ndarray, information: np.ndarray, half: float, seed: int) -> np.ndarray:
    """Root mean square over 8 directions of gap − half·δᵀIδ, one for each of ``STEPS``."""
    directions = np.random.default_rng(seed + 2).normal(size=(8, current.size))
    delta = STEPS[:, None, None] * directions
    values = np.asarray(gap(jnp.asarray((current + delta).reshape(-1, current.size)))).reshape(STEPS.size, 8)
    quadratic = half * np.einsum("sdi,ij,sdj->sd", delta, np.asarray(information), delta)
    return np.sqrt(np.mean((values - quadratic) ** 2, axis=1))


def _cd_below_fisher(seed: int, *, half: float = 0.5, centred: bool = True) -> Check:
    """KL(p_θt‖p_θ) − ½ δᵀI δ falls as |δ|³."""
    machine, data = machine_of(seed), lattice_law()
    current, p = _flat(machine), _current_law(machine, data)
    gap = lambda thetas: _contrast(machine, thetas, data, p, every_state()).gap  # noqa: E731
    information = _fisher(machine, jnp.asarray(current), every_state(), centred)
    return order({"remainder": (STEPS, _remainders(gap, current, information, half, seed), 3.0)})


# --- expectation-maximisation: above ----------------------------------------------------------------------------------


def _mixture_of(theta: Any) -> GaussianMixture:
    """Three parts on the line from log-weights, means and log standard deviations, (9,)."""
    return GaussianMixture(theta[:3], theta[3:6, None], jnp.exp(theta[6:])[:, None, None])


def _latent_problem(seed: int) -> tuple[np.ndarray, Any, Any, Any]:
    """θ_t, a grid, and the data's law on it (log density, weights): four parts, so no θ is the truth."""
    rng = np.random.default_rng(seed)
    current = np.concatenate([0.3 * rng.normal(size=3), [-2.0, 0.0, 1.5] + 0.3 * rng.normal(size=3), rng.uniform(-0.5, 0.5, 3)])
    data = GaussianMixture.from_covariances(
        [0.2, 0.3, 0.1, 0.4], [[-2.5], [-1.0], [0.5], [2.0]], [[[0.4]], [[0.8]], [[0.5]], [[0.6]]]
    )
    x = jnp.linspace(-10.0, 10.0, 401)[:, None]
    log_data = jax.vmap(data.log_prob)(x)
    return current, x, log_data, jnp.exp(log_data) * (x[1, 0] - x[0, 0])


@compile_small
def _expected(thetas: Any, x: Any, log_data: Any, weights: Any, e_step: Callable, entropy: float) -> _Surrogate:
    """KL(p_data p_θt(z|x)‖p_θ(x, z)), KL(p_data‖p_θ) and E KL(p_θt(z|x)‖p_θ(z|x))."""
    law = _mixture_of(thetas[0])
    r, posterior = e_step(law, x), jax.vmap(law.responsibilities)(x)

    def surrogate(theta: Any) -> Any:
        joint = jax.vmap(_mixture_of(theta).joint_log_prob)(x)
        return weights @ (log_data + jnp.sum(r * (entropy * jnp.log(r) - joint), axis=-1))

    def kl(theta: Any) -> Any:
        return weights @ (log_data - jax.vmap(_mixture_of(theta).log_prob)(x))

    def gap(theta: Any) -> Any:
        other = jax.vmap(_mixture_of(theta).responsibilities)(x)
        return weights @ jnp.sum(posterior * (jnp.log(posterior) - jnp.log(other)), axis=-1)

    at = [jax.vmap(function)(thetas) for function in (surrogate, kl, gap)]
    return _Surrogate(*at, jax.grad(surrogate)(thetas[0]), jax.grad(kl)(thetas[0]))


def _posterior(law: GaussianMixture, x: Any) -> Any:
    return jax.vmap(law.responsibilities)(x)


def _swapped_posterior(law: GaussianMixture, x: Any) -> Any:
    """A planted mistake: each part is given the neighbour's responsibilities."""
    return jnp.roll(jax.vmap(law.responsibilities)(x), 1, axis=-1)


def _em_above(seed: int, *, e_step: Callable = _posterior, entropy: float = 1.0) -> Check:
    """The EM surrogate ≥ KL(p_data‖p_θ), equal at θ_t with the same slope; the gap is E KL(p_θt(z|x)‖p_θ(z|x))."""
    current, x, log_data, weights = _latent_problem(seed)
    thetas = jnp.asarray(_several(seed, current))
    found = _Surrogate(*map(np.asarray, _expected(thetas, x, log_data, weights, e_step, entropy)))
    return rounding(
        {
            "above KL": (excess(found.kl, found.surrogate), 0.0),
            "the gap": (found.surrogate - found.kl, found.gap),
            "equal at θ_t": (found.surrogate[0], found.kl[0]),
            "one tangent": (found.surrogate_slope, found.kl_slope),
        }
    )


@compile_small
def _missing_information(theta: Any, x: Any, weights: Any, complete: bool) -> Any:
    """E_data Cov(∂ log p(x, z)/∂θ | x), (p, p): what not seeing z costs; ``complete`` forgets to centre at x."""

    def log_joint(at: Any) -> Any:
        joint = jax.vmap(_mixture_of(at).joint_log_prob)(x)
        return joint if complete else jax.nn.log_softmax(joint)

    r = jax.vmap(_mixture_of(theta).responsibilities)(x)
    slopes = jax.jacfwd(log_joint)(theta)
    return jnp.einsum("n,nz,nzi,nzj->ij", weights, r, slopes, slopes)


def _em_above_fisher(seed: int, *, half: float = 0.5, complete: bool = False) -> Check:
    """E KL(p_θt(z|x)‖p_θ(z|x)) − ½ δᵀI_missing δ falls as |δ|³."""
    current, x, log_data, weights = _latent_problem(seed)

    def gap(thetas: Any) -> Any:
        both = jnp.concatenate([jnp.asarray(current)[None], thetas])
        return _expected(both, x, log_data, weights, _posterior, 1.0).gap[1:]

    information = _missing_information(jnp.asarray(current), x, weights, complete)
    return order({"remainder": (STEPS, _remainders(gap, current, information, half, seed), 3.0)})


IDENTITIES = (
    Identity(
        "cd.gradient",
        4,
        "log Z cancels in C(θ) = KL(p_data‖p_θ) − KL(p_θt‖p_θ), and ∇C(θ_t) = −L′(θ_t)",
        "rounding",
        _cd_gradient,
        {"∇C = +L′, the notes' slip": {"sign": 1.0}, "Hinton's law T p_data for p_θt": {"negative": _hinton_law}},
        "Hinton 2002",
    ),
    Identity(
        "cd.below",
        4,
        "C ≤ KL(p_data‖p_θ), equal at θ_t with one tangent; the gap is KL(p_θt‖p_θ)",
        "rounding",
        _cd_below,
        {"sign of the gap": {"gap_sign": -1.0}, "Hinton's law T p_data for p_θt": {"negative": _hinton_law}},
        "Hinton 2002",
    ),
    Identity(
        "cd.below.fisher",
        4,
        "KL(p_θt‖p_θ) = ½ δᵀI(θ_t)δ + O(|δ|³)",
        "order",
        _cd_below_fisher,
        {"½ missing": {"half": 1.0}, "second moment for covariance": {"centred": False}},
        "Kullback 1959",
    ),
    Identity(
        "em.above",
        4,
        "KL(p_data p_θt(z|x)‖p_θ(x, z)) = KL(p_data‖p_θ) + E KL(p_θt(z|x)‖p_θ(z|x)), one tangent at θ_t",
        "rounding",
        _em_above,
        {"swapped responsibilities": {"e_step": _swapped_posterior}, "entropy of z forgotten": {"entropy": 0.0}},
        "Dempster, Laird and Rubin 1977; Neal and Hinton 1998",
    ),
    Identity(
        "em.above.fisher",
        4,
        "E KL(p_θt(z|x)‖p_θ(z|x)) = ½ δᵀI_missing δ + O(|δ|³)",
        "order",
        _em_above_fisher,
        {"½ missing": {"half": 1.0}, "complete for missing information": {"complete": True}},
        "Louis 1982",
    ),
)
