"""Chapter 7, kernels that keep their law exactly: Metropolis-adjusted Langevin, and Hamiltonian Monte Carlo.

Definition. Detailed balance: π(x) T(x, y) = π(y) T(y, x), for every pair. A trajectory of the leapfrog is reversible,
(x′, −p′) ↦ (x, −p), and keeps volume, so E exp(−ΔH) = 1 and min(1, exp(−ΔH)) balances; ΔH is O(ε²) at a fixed length of
trajectory. The kernels are the library's, asked with the noise that leads from x to y.
Identities: ``mala.exact``, ``hmc.reversible``, ``hmc.reversible.order``; experiment: ``hmc.smooth``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mulligan.core import Kernel
from mulligan.lab.identities.halves import plane_laws
from mulligan.lab.identities.langevin import Sharpened, line_law
from mulligan.lab.identity import Check, Identity, order, rounding
from mulligan.loop import compile_small
from mulligan.samplers.hmc import HamiltonianMonteCarlo, Shot, leapfrog
from mulligan.samplers.langevin import MetropolisLangevin
from mulligan.samplers.many import Many
from mulligan.samplers.metropolis import Decision
from mulligan.samplers.point import point_at
from mulligan.targets.gaussian import Gaussian
from mulligan.targets.wells import DoubleWell

# --- pointwise balance -------------------------------------------------------------------------------------------------


@compile_small
def _decided(kernel: Kernel, x: Any, noise: Any, uniform: Any) -> Any:
    """Positions after one step from each x (n, d) with this noise, and the probability of acceptance (n,)."""

    def one(x: Any, e: Any, u: Any) -> Any:
        state, info = kernel.move(kernel.init(jax.random.key(0), x), Decision(e, u), None)
        return state.position, info.acceptance

    return jax.vmap(one)(x, noise, uniform)


def proposals(kernel: Kernel, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Centre (n, d) and width (d,) of the proposal from each x, found by steps that are forced to be taken (u = 0).

    >>> proposals(MetropolisLangevin(jnp.sum, 0.25), np.zeros((1, 2)))[1].tolist()
    [0.5, 0.5]
    """
    force = jnp.zeros(len(x))
    centre, away = (np.asarray(_decided(kernel, x, jnp.full(x.shape, e), force)[0]) for e in (0.0, 1.0))
    return centre, (away - centre)[0]


def acceptance(kernel: Kernel, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For pairs (n, d): log density of proposing y at x (n,), the probability of accepting it, and the noise (n, d).

    >>> acceptance(MetropolisLangevin(jnp.sum, 1.0), np.zeros((1, 1)), np.ones((1, 1)))[1].tolist()
    [1.0]
    """
    centre, width = proposals(kernel, x)
    noise = (y - centre) / width
    log_q = -0.5 * np.sum(noise**2, axis=1) - np.log(width).sum() - 0.5 * x.shape[1] * np.log(2 * np.pi)
    return log_q, np.asarray(_decided(kernel, x, jnp.asarray(noise), jnp.zeros(len(x)))[1]), noise


def adjusted(log_density: Any, step_size: float) -> Kernel:
    """The library's MALA, with a scale for each of two coordinates.

    >>> adjusted(jnp.sum, 0.25).scale.tolist()
    [1.0, 1.5]
    """
    return _sharpened(log_density, 1.0, step_size)


def _sharpened(log_density: Any, power: float, step_size: float) -> Kernel:
    """The kernel for π^power, the power a number of the program."""
    law = Sharpened(log_density, jnp.asarray(power))
    return MetropolisLangevin(law, jnp.asarray(step_size), jnp.asarray([1.0, 1.5]))


def _other_target(log_density: Any, step_size: float) -> Kernel:
    """A planted mistake: proposed and accepted for π^1.05."""
    return _sharpened(log_density, 1.05, step_size)


def _both_ways(log_ratio: np.ndarray) -> np.ndarray:
    return log_ratio


def _always(log_ratio: np.ndarray) -> np.ndarray:
    """A planted mistake: no accept step."""
    return 0 * log_ratio


@np.errstate(divide="ignore", invalid="ignore")  # a kernel that never moves proposes with width 0: NaN, which fails
def _mala(seed: int, *, kernel: Callable = adjusted, decide: Callable = _both_ways, proposal: float = 1.0) -> Check:
    """log π(x) + log q(y|x) + log α(x, y) is the same from y to x, for 200 pairs; u < α moves there, u > α stays."""
    rng, pairs = np.random.default_rng([seed, 6]), {}
    for name, law, dt in (("a mixture", plane_laws(seed)[1], 0.4), ("a double well", DoubleWell(1.0, 3.0, 0.3), 0.1)):
        one = kernel(law.log_prob, dt)
        x = rng.normal(size=(200, 2))
        centre, width = proposals(one, x)
        y = centre + width * rng.normal(size=x.shape)
        (log_q, alpha, noise), (log_back, alpha_back, _) = acceptance(one, x, y), acceptance(one, y, x)
        log_pi, log_pi_y = (np.asarray(_log_densities(law, at)) for at in (x, y))
        there = log_pi + proposal * log_q + decide(np.log(alpha))
        back = log_pi_y + proposal * log_back + decide(np.log(alpha_back))
        pairs[f"balance, {name}"] = (there, back)
        last = np.nextafter(1.0, 0.0)  # the largest u there is
        around = (np.minimum(alpha * u, last) for u in (1 - 1e-9, 1 + 1e-9))
        taken, stayed = (np.asarray(_decided(one, x, noise, u)[0]) for u in around)
        pairs[f"u < α, {name}"] = (taken, y)
        pairs[f"u ≥ α, {name}"] = (stayed, np.where(alpha[:, None] < 1, x, y))
    return rounding(pairs)


@compile_small
def _log_densities(law: Any, x: Any) -> Any:
    return jax.vmap(law.log_prob)(x)


# --- trajectories ------------------------------------------------------------------------------------------------------


@compile_small
def _trajectories(f: Any, x: Any, p: Any, step_size: Any, steps: Any, turn: Any) -> Any:
    """Of each trajectory: H before and after; where it returns to with turned momentum; its end."""

    def one(x: Any, p: Any) -> Any:
        start = point_at(f, x)
        end, momentum = leapfrog(f, start, p, step_size, steps)
        back, last = leapfrog(f, end, turn * momentum, step_size, steps)
        energies = 0.5 * p @ p - start.log_density, 0.5 * momentum @ momentum - end.log_density
        return energies, (back.position, turn * last), (end.position, momentum)

    return jax.vmap(one)(x, p)


@compile_small
def _log_volume(f: Any, x: Any, p: Any, step_size: Any, steps: int) -> Any:
    """log |det ∂(x′, p′)/∂(x, p)| of each trajectory."""

    def flow(z: Any) -> Any:
        end, momentum = leapfrog(f, point_at(f, z[: x.shape[1]]), z[x.shape[1] :], step_size, steps)
        return jnp.concatenate([end.position, momentum])

    return jax.vmap(lambda x, p: jnp.linalg.slogdet(jax.jacfwd(flow)(jnp.concatenate([x, p])))[1])(x, p)


@compile_small
def _accepted(kernel: Kernel, x: Any, p: Any) -> Any:
    """The library kernel's probability of acceptance from each x with momentum p."""
    half = jnp.full((), 0.5)
    shoot = lambda x, p: kernel.move(kernel.init(jax.random.key(0), x), Shot(p, half, half), None)[1].acceptance  # noqa: E731
    return jax.vmap(shoot)(x, p)


def fixed_length(log_density: Any, step_size: Any, steps: int) -> Kernel:
    """The library's HMC without jitter.

    >>> fixed_length(jnp.sum, 0.1, 5).steps
    5
    """
    return HamiltonianMonteCarlo(log_density, step_size, steps, jitter=jnp.zeros(()))


def _reversible(
    seed: int, *, turn: float = -1.0, kinetic: float = 1.0, times: float = 1.0, kernel: Callable = fixed_length
) -> Check:
    """It returns, keeps volume, E exp(−ΔH) = 1 by a sum over phase space, and its acceptance balances along the way."""
    law, rng = plane_laws(seed)[1], np.random.default_rng([seed, 7])
    x, p = rng.normal(size=(2, 100, 2))
    step = jnp.asarray(0.4)
    before_after, back, (end, momentum) = _trajectories(law.log_prob, x, p, step, jnp.asarray(5), jnp.asarray(turn))
    before, after = map(np.asarray, before_after)
    one = kernel(law.log_prob, step, 5)
    alpha, alpha_back = (np.asarray(_accepted(one, *z)) for z in ((x, p), (end, -momentum)))

    axis = np.linspace(-9.0, 9.0, 241)
    phase = np.stack(np.meshgrid(axis, axis, indexing="ij")).reshape(2, -1, 1)
    (h, moved), _, _ = _trajectories(
        line_law(seed).log_prob, phase[0], phase[1], jnp.asarray(0.3), jnp.asarray(5), jnp.asarray(turn)
    )
    kept = 0.5 * (1 - kinetic) * phase[1, :, 0] ** 2  # the planted mistake leaves p out of H before the trajectory
    density = np.exp(-np.asarray(h)) * (axis[1] - axis[0]) ** 2 / np.sqrt(2 * np.pi)
    return rounding(
        {
            "it returns: x": (back[0], x),
            "it returns: p": (back[1], p),
            "volume": (_log_volume(law.log_prob, x, p, step, 5), np.log(times)),
            "E exp(−ΔH)": (density @ np.exp(h - kept - moved), 1.0),
            "balance": (np.log(alpha) - before, np.log(alpha_back) - after),
        }
    )


def _leapfrog_error(f: Any, x: np.ndarray, p: np.ndarray, steps: int) -> float:
    """Root mean square of ΔH over trajectories of length 1."""
    (before, after), _, _ = _trajectories(f, x, p, jnp.asarray(1 / steps), jnp.asarray(steps), jnp.asarray(-1.0))
    return float(jnp.sqrt(jnp.mean((after - before) ** 2)))


def _euler_error(f: Any, x: np.ndarray, p: np.ndarray, steps: int) -> float:
    """A planted mistake: whole kicks, no half kick at either end: symplectic Euler."""
    step = 1 / steps
    kicked = p - 0.5 * step * np.asarray(_scores(f, x))
    (_, _), _, (end, momentum) = _trajectories(f, x, kicked, jnp.asarray(step), jnp.asarray(steps), jnp.asarray(-1.0))
    momentum = np.asarray(momentum) - 0.5 * step * np.asarray(_scores(f, end))
    energy = lambda x, p: 0.5 * np.sum(p**2, axis=1) - np.asarray(_values(f, x))  # noqa: E731
    return float(np.sqrt(np.mean((energy(end, momentum) - energy(x, p)) ** 2)))


@compile_small
def _scores(f: Any, x: Any) -> Any:
    return jax.vmap(jax.grad(f))(x)


@compile_small
def _values(f: Any, x: Any) -> Any:
    return jax.vmap(f)(x)


def _reversible_order(seed: int, *, error: Callable = _leapfrog_error) -> Check:
    """|ΔH| over trajectories of length 1, in 8 … 128 steps, falls as ε²."""
    law, rng = plane_laws(seed)[1], np.random.default_rng([seed, 8])
    x, p = rng.normal(size=(2, 100, 2))
    steps = np.array([8, 16, 32, 64, 128])
    return order({"ΔH": (1 / steps, [error(law.log_prob, x, p, int(n)) for n in steps], 2.0)})


# --- how far -----------------------------------------------------------------------------------------------------------

GRADIENTS = (2, 6, 16)


def _trajectory(law: Gaussian, gradients: int) -> tuple[Kernel, int]:
    """One trajectory of this many gradients."""
    return fixed_length(law.log_prob, jnp.asarray(0.05), gradients), 1


def _fresh_momentum(law: Gaussian, gradients: int) -> tuple[Kernel, int]:
    """A planted mistake: the momentum drawn anew after every step, which is Langevin again."""
    return fixed_length(law.log_prob, jnp.asarray(0.05), 1), gradients


@compile_small
def _travelled(law: Gaussian, key: Any, kernel: Kernel, steps: Any) -> Any:
    """Root mean square distance from 1000 exact draws after this many steps, which are traced: one program a kernel."""
    key_start, key_run = jax.random.split(key)
    start = jax.vmap(law.sample)(jax.random.split(key_start, 1000))
    chains = Many(kernel)
    step = lambda i, state: chains.step(jax.random.fold_in(key_run, i), state)[0]  # noqa: E731
    state = jax.lax.fori_loop(0, steps, step, chains.init(key_run, start))
    return jnp.sqrt(jnp.mean((state.position - start) ** 2))


def _smooth(seed: int, *, momentum: Callable = _trajectory) -> Check:
    """From draws of N(0, I₅), with ε² = Δt: the distance grows as the number of gradients, or as its root."""
    law, key = Gaussian(jnp.zeros(5), jnp.eye(5)), jax.random.key(seed)
    walk = MetropolisLangevin(law.log_prob, jnp.asarray(0.05**2))
    far = lambda kernel, steps: float(_travelled(law, key, kernel, jnp.asarray(steps)))  # noqa: E731
    return order(
        {
            "momentum": (GRADIENTS, [far(*momentum(law, n)) for n in GRADIENTS], 1.0),
            "Langevin": (GRADIENTS, [far(walk, n) for n in GRADIENTS], 0.5),
        }
    )


IDENTITIES = (
    Identity(
        "mala.exact",
        7,
        "π(x) q(y|x) α(x, y) = π(y) q(x|y) α(y, x) for every pair",
        "rounding",
        _mala,
        {
            "no accept step": {"decide": _always},
            "proposed for π^1.05": {"kernel": _other_target},
            "proposal's density left out": {"proposal": 0.0},
        },
        "Metropolis et al. 1953; Hastings 1970; Besag 1994",
    ),
    Identity(
        "hmc.reversible",
        7,
        "the leapfrog returns when p is turned, |∂(x′, p′)/∂(x, p)| = 1, E exp(−ΔH) = 1",
        "rounding",
        _reversible,
        {
            "p not turned": {"turn": 1.0},
            "p left out of H": {"kinetic": 0.0},
            "volume doubled": {"times": 2.0},
        },
        "Duane et al. 1987; Neal 2011",
    ),
    Identity(
        "hmc.reversible.order",
        7,
        "ΔH = O(ε²) at a fixed length of trajectory",
        "order",
        _reversible_order,
        {"whole kicks only": {"error": _euler_error}},
        "Leimkuhler and Reich 2004",
    ),
)

PHENOMENA = (
    Identity(
        "hmc.smooth",
        7,
        "at equal gradients and ε² = Δt, momentum travels as their number, Langevin as its square root",
        "order",
        _smooth,
        {"momentum drawn anew every step": {"momentum": _fresh_momentum}},
        "Neal 2011",
    ),
)
