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

from mulligan.lab.identities.contrastive import every_state, gibbs_sweep, lattice_law, machine_of
from mulligan.lab.identity import Check, Identity, excess, order, rounding
from mulligan.loop import compile_small
from mulligan.targets.discrete import RestrictedBoltzmann
from mulligan.targets.mixture import GaussianMixture

TOLERANCE = 1e-8
STEPS = 2.0 ** -np.arange(6, 11)


class Surrogate(NamedTuple):
    """Values of the surrogate, of KL(p_data‖p_θ) and of what lies between them at several θ, (t,); the slopes at θ_t, (p,).

    >>> Surrogate._fields[:3]
    ('surrogate', 'kl', 'gap')
    """

    surrogate: Any
    kl: Any
    gap: Any
    surrogate_slope: Any
    kl_slope: Any


# Every call has this many θ, and so one program serves all identities.
THETAS = 1 + 8 * STEPS.size


def several(seed: int, current: np.ndarray) -> np.ndarray:
    """θ_t (p,) itself and 40 points around it, (41, p).

    >>> several(0, np.zeros(3)).shape
    (41, 3)
    """
    away = np.random.default_rng(seed + 1).normal(size=(THETAS - 1, current.size)) * 0.7
    return np.concatenate([current[None], current + away])


# --- contrastive divergence: below ------------------------------------------------------------------------------------


def _negative_energy(machine: RestrictedBoltzmann, theta: Any, every: Any) -> Any:
    """f_θ of every state, θ flat, by the library's own free energy."""
    _, unravel = ravel_pytree((machine.W, machine.b, machine.c))
    moved = eqx.tree_at(lambda law: (law.W, law.b, law.c), machine, unravel(theta))
    return jax.vmap(moved.unnormalised)(every)


def flat(machine: RestrictedBoltzmann) -> np.ndarray:
    """θ = (W, b, c) in one vector, (n m + n + m,).

    >>> flat(machine_of(0)).shape
    (23,)
    """
    return np.asarray(ravel_pytree((machine.W, machine.b, machine.c))[0])


@compile_small
def contrast(machine: RestrictedBoltzmann, thetas: Any, data: Any, negative: Any, every: Any) -> Surrogate:
    """C without log Z, KL(p_data‖p_θ) and KL(p_θt‖p_θ) at ``thetas`` (t, p), of which the first is θ_t of ``machine``.

    ``data`` and ``negative`` are laws of ``every`` state; ``negative`` is the one that C takes for p_θt.

    >>> from mulligan.lab.identity import run_identity
    >>> run_identity("cd.gradient").verdict
    'holds'
    """
    current = jnp.exp(jax.vmap(machine.log_prob)(every))

    def kl_from(law: Any, theta: Any) -> Any:
        return law @ (jnp.log(law) - jax.nn.log_softmax(_negative_energy(machine, theta, every)))

    def surrogate(theta: Any) -> Any:
        f = _negative_energy(machine, theta, every)
        return data @ (jnp.log(data) - f) - negative @ (jnp.log(negative) - f)

    kl = lambda theta: kl_from(data, theta)  # noqa: E731
    gap = lambda theta: kl_from(current, theta)  # noqa: E731
    below, whole, between = (jax.vmap(function)(thetas) for function in (surrogate, kl, gap))
    return Surrogate(below, whole, between, jax.grad(surrogate)(thetas[0]), jax.grad(kl)(thetas[0]))


def current_law(machine: RestrictedBoltzmann, data: Any) -> Any:
    """p_θt: the model's own law, known exactly, (32,).

    >>> round(float(current_law(machine_of(0), None).sum()), 4)
    1.0
    """
    return jnp.exp(jax.vmap(machine.log_prob)(every_state()))


def _hinton_law(machine: RestrictedBoltzmann, data: Any) -> Any:
    """A planted mistake: p_1 = T p_data, Hinton's CD-1, in the surrogate that is defined with p_θt."""
    return data @ gibbs_sweep(machine)


def _contrasted(seed: int, negative: Callable) -> Surrogate:
    machine, data = machine_of(seed), lattice_law()
    thetas = jnp.asarray(several(seed, flat(machine)))
    return Surrogate(*map(np.asarray, contrast(machine, thetas, data, negative(machine, data), every_state())))


def _cd_gradient(seed: int, *, negative: Callable = current_law, sign: float = -1.0) -> Check:
    """log Z cancels, and ∇C(θ_t) = −L′(θ_t); L′ is the slope of −KL(p_data‖p_θ)."""
    found = _contrasted(seed, negative)
    return rounding(
        {
            "log Z cancels": (found.surrogate, found.kl - found.gap),
            "∇C, −L′": (found.surrogate_slope, sign * -found.kl_slope),
        },
        TOLERANCE,
    )


def _cd_below(seed: int, *, negative: Callable = current_law, gap_sign: float = 1.0) -> Check:
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
    """Root mean square over 8 directions of gap − half·δᵀIδ, one for each of ``STEPS``; ``gap`` is asked θ_t first."""
    directions = np.random.default_rng(seed + 2).normal(size=(8, current.size))
    delta = STEPS[:, None, None] * directions
    thetas = np.concatenate([current[None], (current + delta).reshape(-1, current.size)])
    values = np.asarray(gap(jnp.asarray(thetas)))[1:].reshape(STEPS.size, 8)
    quadratic = half * np.einsum("sdi,ij,sdj->sd", delta, np.asarray(information), delta)
    return np.sqrt(np.mean((values - quadratic) ** 2, axis=1))


def _cd_below_fisher(seed: int, *, half: float = 0.5, centred: bool = True) -> Check:
    """KL(p_θt‖p_θ) − ½ δᵀI δ falls as |δ|³."""
    machine, data = machine_of(seed), lattice_law()
    current, p = flat(machine), current_law(machine, data)
    gap = lambda thetas: contrast(machine, thetas, data, p, every_state()).gap  # noqa: E731
    information = _fisher(machine, jnp.asarray(current), every_state(), centred)
    return order({"remainder": (STEPS, _remainders(gap, current, information, half, seed), 3.0)})


# --- expectation-maximisation: above ----------------------------------------------------------------------------------


def _mixture_of(theta: Any) -> GaussianMixture:
    """Three parts on the line from log-weights, means and log standard deviations, (9,)."""
    return GaussianMixture(theta[:3], theta[3:6, None], jnp.exp(theta[6:])[:, None, None])


def _latent_problem(seed: int) -> tuple[np.ndarray, Any, Any, Any]:
    """θ_t, a grid, and the data's law on it (log density, weights): four parts, so no θ is the truth."""
    rng = np.random.default_rng(seed)
    means = np.array([-2.0, 0.0, 1.5]) + 0.3 * rng.normal(size=3)
    current = np.concatenate([0.3 * rng.normal(size=3), means, rng.uniform(-0.5, 0.5, 3)])
    data = GaussianMixture.from_covariances(
        [0.2, 0.3, 0.1, 0.4], [[-2.5], [-1.0], [0.5], [2.0]], [[[0.4]], [[0.8]], [[0.5]], [[0.6]]]
    )
    x = jnp.linspace(-10.0, 10.0, 401)[:, None]
    log_data = jax.vmap(data.log_prob)(x)
    return current, x, log_data, jnp.exp(log_data) * (x[1, 0] - x[0, 0])


@compile_small
def _expected(thetas: Any, x: Any, log_data: Any, weights: Any, r: Any, entropy: Any) -> Surrogate:
    """KL(p_data r(z|x)‖p_θ(x, z)) with the E step's r, KL(p_data‖p_θ) and E KL(p_θt(z|x)‖p_θ(z|x))."""
    log_posterior = jax.nn.log_softmax(jax.vmap(_mixture_of(thetas[0]).joint_log_prob)(x))

    def surrogate(theta: Any) -> Any:
        joint = jax.vmap(_mixture_of(theta).joint_log_prob)(x)
        return weights @ (log_data + jnp.sum(r * (entropy * jnp.log(r) - joint), axis=-1))

    def kl(theta: Any) -> Any:
        return weights @ (log_data - jax.vmap(_mixture_of(theta).log_prob)(x))

    def gap(theta: Any) -> Any:
        other = jax.nn.log_softmax(jax.vmap(_mixture_of(theta).joint_log_prob)(x))
        return weights @ jnp.sum(jnp.exp(log_posterior) * (log_posterior - other), axis=-1)

    above, whole, between = (jax.vmap(function)(thetas) for function in (surrogate, kl, gap))
    return Surrogate(above, whole, between, jax.grad(surrogate)(thetas[0]), jax.grad(kl)(thetas[0]))


@compile_small
def _posterior(law: GaussianMixture, x: Any) -> Any:
    return jax.vmap(law.responsibilities)(x)


def _swapped_posterior(law: GaussianMixture, x: Any) -> Any:
    """A planted mistake: each part is given the neighbour's responsibilities."""
    return jnp.roll(_posterior(law, x), 1, axis=-1)


def _em_above(seed: int, *, e_step: Callable = _posterior, entropy: float = 1.0) -> Check:
    """The EM surrogate ≥ KL(p_data‖p_θ), equal at θ_t with the same slope; the gap is E KL(p_θt(z|x)‖p_θ(z|x))."""
    current, x, log_data, weights = _latent_problem(seed)
    thetas = jnp.asarray(several(seed, current))
    r = e_step(_mixture_of(thetas[0]), x)
    found = Surrogate(*map(np.asarray, _expected(thetas, x, log_data, weights, r, jnp.asarray(entropy))))
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
    r = _posterior(_mixture_of(jnp.asarray(current)), x)

    gap = lambda thetas: _expected(thetas, x, log_data, weights, r, jnp.ones(())).gap  # noqa: E731
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
