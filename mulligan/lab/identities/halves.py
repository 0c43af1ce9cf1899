"""Chapter 7, Langevin dynamics: the gradient half of a step squeezes a law, the noise half diffuses it.

Definition. Started from any p, x + (Δt/2) ∇ log π changes E[h] by (Δt/2) E_p[∇h·∇ log π] + O(Δt²), and x + √Δt e by
(Δt/2) E_p[trace Hess h] + O(Δt²); both together by (Δt/2) E_p[∇h·∇ log(π/p)]. At p = π the first is
−(Δt/2) E_π[trace Hess h], so the two cancel: equilibrium. Elsewhere they do not. In the plane: p on a grid, the noise on
Gauss-Hermite nodes, eight waves h; the size of an error is its root mean square over these.
Identities: ``langevin.squeeze``, ``langevin.diffuse``.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mulligan.core import Kernel
from mulligan.lab.identities.langevin import Step, langevin, log_and_score, noise_of_dt, uphill, whole_gradient
from mulligan.lab.identity import Check, Identity, order
from mulligan.loop import compile_small
from mulligan.samplers.annealing import flat
from mulligan.targets.mixture import GaussianMixture

TIMES = 2.0 ** -np.arange(6, 11)


def _waves(seed: int) -> Any:
    """Directions (k, 2) and phases (k,) of eight test functions h = sin(a·x + φ)."""
    rng = np.random.default_rng([seed, 4])
    return jnp.asarray(rng.normal(size=(8, 2))), jnp.asarray(rng.uniform(0, 2 * np.pi, 8))


def _h(waves: Any, x: Any) -> Any:
    return jnp.sin(waves[0] @ x + waves[1])


@compile_small
def _change(kernel: Kernel, waves: Any, x: Any, p: Any, noise: Any, share: Any) -> Any:
    """E[h(x′)] − E[h(x)] (k,), x from p on a grid (n, 2), the noise on nodes (m, 2)."""

    def one(at: Any) -> Any:
        state = kernel.init(jax.random.key(0), at)
        moved = jax.vmap(lambda e: _h(waves, kernel.move(state, e, None)[0].position))(noise)
        return share @ moved - _h(waves, at)

    return p @ jax.vmap(one)(x)


@compile_small
def _first_order(waves: Any, x: Any, p: Any, score: Any, target_score: Any) -> Any:
    """E_p of ∇h·∇ log π, trace Hess h and ∇h·∇ log(π/p), (3, k)."""
    slopes = jax.vmap(jax.jacfwd(lambda at: _h(waves, at)))(x)
    curvature = jax.vmap(lambda at: jnp.trace(jax.hessian(lambda y: _h(waves, y))(at), axis1=1, axis2=2))(x)
    along = lambda field: p @ jnp.einsum("nkd,nd->nk", slopes, field)  # noqa: E731
    return jnp.stack([along(target_score), p @ curvature, along(target_score - score)])


class Change(NamedTuple):
    """Of E[h] for eight h and each Δt of ``TIMES``, from one law p: by a half or the whole step; and its first order.

    >>> Change._fields[0]
    'gradient'
    """

    gradient: np.ndarray  # (t, k)
    noise: np.ndarray
    whole: np.ndarray
    first_order: np.ndarray  # (3, k): E_p of ∇h·∇ log π, trace Hess h, ∇h·∇ log(π/p)


def plane_laws(seed: int) -> tuple[GaussianMixture, GaussianMixture]:
    """p and π: two unlike mixtures of the plane; the seed moves them.

    >>> [law.components for law in plane_laws(0)]
    [2, 2]
    """
    rng = np.random.default_rng([seed, 5])
    first = np.array([[-0.8, 0.3], [1.0, -0.4]]) + 0.2 * rng.normal(size=(2, 2))
    second = np.array([[0.7, 0.9], [-1.1, -0.6]]) + 0.2 * rng.normal(size=(2, 2))
    wide, tilted = [[0.9, 0.2], [0.2, 0.8]], [[0.8, -0.3], [-0.3, 1.1]]
    p = GaussianMixture.from_covariances([0.6, 0.4], first, [wide, tilted])
    return p, GaussianMixture.from_covariances([0.3, 0.7], second, [tilted, wide])


@lru_cache(maxsize=8)
def changes(seed: int, home: bool, step: Step) -> Change:
    """What half steps and whole steps towards π do to averages over p, or over π itself (``home``). Kept for the mutants.

    >>> changes(0, True, langevin).whole.shape
    (5, 8)
    """
    away, target = plane_laws(seed)
    start = target if home else away
    axis = np.linspace(-7.2, 7.2, 37)
    x = np.stack(np.meshgrid(axis, axis, indexing="ij"), axis=-1).reshape(-1, 2)
    nodes, share = np.polynomial.hermite_e.hermegauss(6)
    noise = np.stack(np.meshgrid(nodes, nodes, indexing="ij"), axis=-1).reshape(-1, 2)
    share = np.outer(share, share).ravel() / share.sum() ** 2
    log_p, score = log_and_score(start, x)
    p, waves = np.exp(log_p) * (axis[1] - axis[0]) ** 2, _waves(seed)
    still, alone = np.zeros_like(noise), np.eye(len(noise))[0]  # the same shapes: one program serves both
    one = lambda log_density, dt, e, w: np.asarray(_change(step(log_density, dt), waves, x, p, e, w))  # noqa: E731
    return Change(
        np.stack([one(target.log_prob, dt, still, alone) for dt in TIMES]),
        np.stack([one(flat, dt, noise, share) for dt in TIMES]),
        np.stack([one(target.log_prob, dt, noise, share) for dt in TIMES]),
        np.asarray(_first_order(waves, x, p, score, log_and_score(target, x)[1])),
    )


def _size(errors: np.ndarray) -> np.ndarray:
    return np.sqrt(np.mean(errors**2, axis=1))


def _squeeze(seed: int, *, step: Step = langevin, half: float = 0.5, sign: float = -1.0) -> Check:
    """The gradient half, from p and from π: the first order is right if what remains falls as Δt²."""
    away, home = (changes(seed, at_home, step) for at_home in (False, True))
    dt = TIMES[:, None]
    return order(
        {
            "from p": (TIMES, _size(away.gradient - half * dt * away.first_order[0]), 2.0),
            "from π: −(Δt/2) E trace Hess h": (
                TIMES,
                _size(home.gradient - sign * half * dt * home.first_order[1]),
                2.0,
            ),
        }
    )


def _diffuse(seed: int, *, step: Step = langevin, half: float = 0.5, score_of_p: bool = True) -> Check:
    """The noise half and the whole step: what remains after the first order falls as Δt²; at p = π all of it does.

    From another law the whole change falls as Δt only: there the halves do not cancel.
    """
    away, home = (changes(seed, at_home, step) for at_home in (False, True))
    dt, both = TIMES[:, None], 2 if score_of_p else 0
    return order(
        {
            "the noise half": (TIMES, _size(away.noise - half * dt * away.first_order[1]), 2.0),
            "both, from p": (TIMES, _size(away.whole - half * dt * away.first_order[both]), 2.0),
            "both, at p = π": (TIMES, _size(home.whole), 2.0),
            "the halves cancel at p = π": (TIMES, _size(home.gradient + home.noise), 2.0),
            "they do not elsewhere": (TIMES, _size(away.gradient + away.noise), 1.0),
        }
    )


IDENTITIES = (
    Identity(
        "langevin.squeeze",
        7,
        "the gradient half changes E[h] by (Δt/2) E_p[∇h·∇ log π] + O(Δt²); at p = π that is −(Δt/2) E_π[trace Hess h]",
        "order",
        _squeeze,
        {
            "½ missing": {"half": 1.0},
            "+E_π[trace Hess h]": {"sign": 1.0},
            "∇ log π for ½ ∇ log π": {"step": whole_gradient},
            "sign of the score": {"step": uphill},
        },
        "Wu's tutorial, Langevin dynamics; Stein 1972",
    ),
    Identity(
        "langevin.diffuse",
        7,
        "the noise half changes E[h] by (Δt/2) E_p[trace Hess h] + O(Δt²), both halves by (Δt/2) E_p[∇h·∇ log(π/p)]",
        "order",
        _diffuse,
        {
            "½ missing": {"half": 1.0},
            "Δt e for √Δt e": {"step": noise_of_dt},
            "∇ log π for ∇ log(π/p)": {"score_of_p": False},
            "sign of the score": {"step": uphill},
        },
        "Wu's tutorial, Langevin dynamics; Fokker 1914; Planck 1917",
    ),
)
