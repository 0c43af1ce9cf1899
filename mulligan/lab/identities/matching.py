"""Chapter 3, energy-based models: averages that a fitted model shares with its data, and one that every law has.

Definition. For f_θ = θ·s, the maximum of the likelihood is where E_pθ[s] = E_data[s]; of all laws with these averages,
p_θ = exp(f_θ) q/Z has the least KL to q (Jaynes 1957; Csiszár 1975). Stein: E_π[div φ + φ·∇ log π] = 0 for smooth φ
that π outweighs at infinity, whatever Z; on a box φ has to vanish across the boundary.
Identities: ``ebm.matching``, ``ebm.stein``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from mulligan.lab.identities.energy import (
    HALF_BOX,
    log_densities,
    model_of,
    network_of,
    node_kl,
    node_law,
    references,
    rules,
    slopes_of,
    table_of,
)
from mulligan.lab.identity import Check, Identity, excess, rounding
from mulligan.loop import compile_small
from mulligan.models.energy import Tilt
from mulligan.nets.mlp import MLP, make_mlp
from mulligan.samplers.point import point_at
from mulligan.targets.mixture import GaussianMixture

# --- matching ---------------------------------------------------------------------------------------------------------


def _statistics(x: np.ndarray) -> np.ndarray:
    return np.stack([x, x**2, np.cos(2 * x)], axis=-1)


def _fitted(s: np.ndarray, average: np.ndarray, log_q: np.ndarray, w: np.ndarray) -> np.ndarray:
    """θ of exp(θ·s) q with E[s] = average, by Newton's method; steps are halved until the likelihood rises."""
    likelihood = lambda at: at @ average - np.log(w @ np.exp(s @ at + log_q))  # noqa: E731
    theta = np.zeros(s.shape[1])
    for _ in range(30):
        p = node_law(s @ theta + log_q, w)
        slope = average - p @ s
        step = np.linalg.solve((s - p @ s).T @ (p[:, None] * (s - p @ s)), slope)
        while not likelihood(theta + step) >= likelihood(theta) - 1e-13:
            step = step / 2
        theta = theta + step
    return theta


def _fitted_short(s: np.ndarray, average: np.ndarray, log_q: np.ndarray, w: np.ndarray) -> np.ndarray:
    """A planted mistake: the last statistic has no parameter."""
    return np.append(_fitted(s[:, :-1], average[:-1], log_q, w), 0.0)


def _others(p: np.ndarray, held: np.ndarray, tilts: np.ndarray) -> np.ndarray:
    """Laws r = p(1 + εh), h ⟂ (1, held) in L²(p), which keep all averages of ``held``: (k, n) for tilts (k, n)."""
    basis = np.column_stack([np.ones_like(p), held])
    h = tilts
    for _ in range(2):  # twice is enough: the second removes what rounding left
        coefficients = np.linalg.lstsq(np.sqrt(p)[:, None] * basis, (np.sqrt(p) * h).T, rcond=None)[0]
        h = h - (basis @ coefficients).T
    return p * (1 + 0.9 * h / np.abs(h).max(axis=1, keepdims=True))


def _matching(seed: int, *, held: int = 3, newton: Callable = _fitted, flat_reference: bool = False) -> Check:
    """For f = θ·s the averages agree at the optimum, and KL(r‖q) − KL(p‖q) = KL(r‖p) for each r with these averages.

    On a box q is flat, and that is maximum entropy. A network whose L′ is zero agrees with the data in the averages of
    ∂f/∂θ only: the data's law is built from p_θ so that these agree, and then E cos 9x does not.
    """
    rng, right = np.random.default_rng([seed, 6]), rules(0.7)
    rows, share = table_of(seed)
    average = share @ _statistics(rows[:, 0])
    pairs = {}
    values = log_densities([q.log_prob for q in references()], [x for x, _ in right])
    for name, (x, w), log_q in zip(("flat", "a Gaussian", "a mixture"), right, values):
        s = _statistics(x[:, 0])
        log_p = s @ newton(s, average, log_q, w) + log_q
        log_p = log_p - np.log(w @ np.exp(log_p))
        p = node_law(log_p, w)
        r = _others(p, s[:, :held], np.cos(rng.uniform(0.5, 4.0, (6, 1)) * x[:, 0] + rng.uniform(0, 6, (6, 1))))
        measured = 0 * log_q if flat_reference else log_q
        pairs[f"averages, {name}"] = (p @ s, average)
        pairs[f"least KL, {name}"] = (node_kl(r, measured, w) - node_kl(p, measured, w), node_kl(r, log_p, w))
        if name == "flat":
            entropy = lambda law, w=w: -node_kl(law, 0.0, w)  # noqa: E731
            pairs["most entropy"] = (excess(entropy(r), entropy(p)), 0.0)
    pairs |= _stationary_network(seed, *right[0])
    return rounding(pairs)


def _stationary_network(seed: int, x: np.ndarray, w: np.ndarray) -> dict[str, tuple[Any, Any]]:
    network, q = network_of(seed), references()
    there = np.asarray(_network_slopes(network, x))
    log_p = log_densities([model_of(network, q[0]).unnormalised], [x])[0]
    p, other = node_law(log_p, w), np.cos(9 * x[:, 0])
    data = _others(p, there, other[None])[0]
    found = slopes_of(network, q, (x, data), rules(0.0), rules(0.7))
    return {
        "a network: L′ = 0": (found.likelihood_slope[0], 0.0),
        "a network: another average": (float(abs((data - p) @ other) > 1e-3), 1.0),
    }


@compile_small
def _network_slopes(network: Tilt, x: Any) -> Any:
    theta, unravel = ravel_pytree(network)
    return jax.jacfwd(lambda at: jax.vmap(unravel(at))(x))(theta)


# --- Stein ------------------------------------------------------------------------------------------------------------


class _Widened(eqx.Module):
    """x ↦ power · log π(x − shift): another law than π unless power is 1 and shift 0."""

    log_density: Callable
    power: Any
    shift: Any

    def __call__(self, x: Any) -> Any:
        return self.power * self.log_density(x - self.shift)


@compile_small
def _stein_averages(law: Any, other: Any, fields: Any, points: Any, area: Any, half: Any, walls: Any) -> Any:
    """Σ π (half div φ + φ·∇ log other) over points (n, d), for each field of a stacked pytree."""

    def one(field: Any, x: Any) -> Any:
        phi = lambda y: jnp.where(walls, HALF_BOX**2 - y**2, 1.0) * field(y)  # noqa: E731
        divergence = jnp.trace(jax.jacfwd(phi)(x))
        return half * divergence + phi(x) @ point_at(other, x).score

    log_p = jax.vmap(law)(points)
    weights = area * jnp.exp(log_p)
    weights = weights / weights.sum()
    return jax.vmap(lambda field: weights @ jax.vmap(lambda x: one(field, x))(points))(fields)


def _fields(seed: int, dim: int) -> MLP:
    """Five smooth vector fields as one stacked network."""
    rng = np.random.default_rng([seed, 7])
    nets = [make_mlp([dim, 5, dim], rng) for _ in range(5)]
    nets = [MLP(net.weights, tuple(jnp.asarray(rng.normal(size=b.shape)) for b in net.biases)) for net in nets]
    return jax.tree.map(lambda *leaves: jnp.stack([jnp.asarray(np.asarray(leaf), float) for leaf in leaves]), *nets)


def _three_parts(seed: int) -> GaussianMixture:
    """Three overlapping parts in the plane; the seed moves them."""
    means = np.array([[-2.0, 0.0], [1.5, 2.0], [1.0, -2.0]]) + 0.3 * np.random.default_rng([seed, 8]).normal(
        size=(3, 2)
    )
    covariances = [[[1.0, 0.3], [0.3, 0.7]], [[0.6, -0.2], [-0.2, 0.9]], [[0.8, 0.0], [0.0, 1.1]]]
    return GaussianMixture.from_covariances([0.5, 0.2, 0.3], means, covariances)


def _stein(seed: int, *, power: float = 1.0, shift: float = 0.0, half: float = 1.0, walls: bool = True) -> Check:
    """E_π[div φ + φ·∇ log π] = 0 for five networks φ: a mixture in the plane, and an energy on a box."""
    axis = np.linspace(-10.0, 10.0, 161)
    plane = np.stack(np.meshgrid(axis, axis, indexing="ij"), axis=-1).reshape(-1, 2)
    x, w = rules(0.7)[0]
    box = model_of(network_of(seed), references()[0]).unnormalised
    laws = {
        "a mixture": (_three_parts(seed).log_prob, plane, np.full(len(plane), (axis[1] - axis[0]) ** 2), False),
        "an energy on a box": (box, x, w, walls),
    }
    pairs = {}
    for name, (law, points, area, inside) in laws.items():
        other = _Widened(law, jnp.asarray(power), jnp.asarray(shift))
        fields = _fields(seed, points.shape[1])
        found = _stein_averages(law, other, fields, points, area, jnp.asarray(half), jnp.asarray(inside))
        pairs[name] = (found, 0.0)
    return rounding(pairs)


IDENTITIES = (
    Identity(
        "ebm.matching",
        3,
        "f = θ·s: E_data[s] = E_pθ[s] at the optimum, and KL(r‖q) − KL(p‖q) = KL(r‖p) ≥ 0 for every r with these averages",
        "rounding",
        _matching,
        {
            "the last average not held": {"held": 2},
            "the last statistic not fitted": {"newton": _fitted_short},
            "entropy for KL to q": {"flat_reference": True},
        },
        "Jaynes 1957; Csiszár 1975",
    ),
    Identity(
        "ebm.stein",
        3,
        "E_π[div φ + φ·∇ log π] = 0 for smooth φ, zero across the walls of a box",
        "rounding",
        _stein,
        {
            "the score of π^0.99": {"power": 0.99},
            "the score of π moved by 0.01": {"shift": 0.01},
            "½ div φ": {"half": 0.5},
            "no weight at the walls": {"walls": False},
        },
        "Stein 1972; Gorham and Mackey 2015",
    ),
)
