"""Chapter 4: what contrastive divergence with k steps gets wrong, on a restricted Boltzmann machine small enough to list.

Definition. CD-k takes E_{p_k} for E_p in the gradient, p_k = p_data T^k with T one sweep of Gibbs sampling (hidden units
given visible, visible given hidden). χ²(p_k‖p) = Σ p_k²/p − 1 never rises with k; |E_{p_k} s − E_p s| ≤ √χ² sd_p(s); and
as T is reversible with eigenvalues 1 > λ_2 ≥ … ≥ 0, χ² = Σ_i c_i² λ_i^{2k} and √χ² falls at the rate λ_2 in the end. The
bias of one statistic need not fall at every step.
Identity: ``cd.bias`` (Carreira-Perpiñán and Hinton 2005; Fischer and Igel 2011).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mulligan.lab.identity import Check, Identity, excess, rounding
from mulligan.loop import compile_small
from mulligan.targets.discrete import Ising, RestrictedBoltzmann, states

SITES, HIDDEN = 5, 3
MOST_SWEEPS = 300
NEAR = 1e-8  # χ² at which sweeping ends: below it, float64 leaves no digits to the ratio of two of them


def every_state() -> Any:
    """All visible states, (2^5, 5), in the order of every law of this chapter.

    >>> every_state().shape
    (32, 5)
    """
    return jnp.asarray(states(0, 2**SITES, 2, SITES), float)


def machine_of(seed: int, scale: float = 1.0) -> RestrictedBoltzmann:
    """A machine with 5 visible and 3 hidden units and normal weights.

    >>> machine_of(0).W.shape
    (5, 3)
    """
    rng = np.random.default_rng(seed)
    weights = scale * rng.normal(size=(SITES, HIDDEN))
    return RestrictedBoltzmann(weights, 0.5 * rng.normal(size=SITES), 0.5 * rng.normal(size=HIDDEN))


def lattice_law() -> Any:
    """The data's law: a chain of 5 spins, which no machine of this chapter is; (32,).

    >>> round(float(lattice_law().sum()), 4)
    1.0
    """
    return jnp.exp(jax.vmap(Ising((1, SITES), 0.6).log_prob)(every_state()))


def gibbs_sweep(machine: RestrictedBoltzmann) -> Any:
    """T(v′|v) = Σ_h p(h|v) p(v′|h), rows v, columns v′, (32, 32).

    >>> bool(jnp.allclose(gibbs_sweep(machine_of(0)).sum(axis=1), 1.0, atol=1e-5))
    True
    """
    return _sweep(machine, machine.c)


@compile_small
def _sweep(machine: RestrictedBoltzmann, hidden_bias: Any) -> Any:
    visible = every_state()
    hidden = jnp.asarray(states(0, 2**HIDDEN, 2, HIDDEN), float)
    independent = lambda units, logits: jnp.exp(  # noqa: E731 - P of each row of units, for each row of logits
        logits @ units.T - jax.nn.softplus(logits).sum(axis=-1, keepdims=True)
    )
    up = independent(hidden, hidden_bias + visible @ machine.W)
    down = independent(visible, machine.b + hidden @ machine.W.T)
    return up @ down


def _without_hidden_bias(machine: RestrictedBoltzmann) -> Any:
    """A planted mistake: Gibbs sampling of another machine."""
    return _sweep(machine, 0 * machine.c)


def _root(chi_square: np.ndarray) -> np.ndarray:
    return np.sqrt(np.maximum(chi_square, 0.0))


def _bias(seed: int, *, sweep: Callable = gibbs_sweep, bound: Callable = _root) -> Check:
    """χ² falls, bounds the bias of every statistic of the gradient, and has the spectrum of T.

    A seed moves the weights; the statistics are those of the gradient, v_i, p(h_j|v) and v_i p(h_j|v). In the last pair
    the rate may be below λ_2 only by what the smaller eigenvalues still add: with their share T of χ², by λ_2 T/2.
    """
    machine, visible = machine_of(seed, 1.5), np.asarray(every_state())
    p = np.exp(np.asarray(jax.vmap(machine.log_prob)(every_state())))
    kernel, law = np.asarray(sweep(machine)), [np.asarray(lattice_law())]
    divergence = lambda p_k: ((p_k - p) ** 2 / p).sum()  # noqa: E731
    while len(law) <= MOST_SWEEPS and divergence(law[-1]) > NEAR:
        law.append(law[-1] @ kernel)
    chi_square = np.array([divergence(p_k) for p_k in law])

    up = 1 / (1 + np.exp(-np.asarray(machine.c) - visible @ np.asarray(machine.W)))
    products = (visible[:, :, None] * up[:, None, :]).reshape(len(visible), -1)
    statistics = np.concatenate([visible, up, products], axis=1)
    spread = np.sqrt(p @ statistics**2 - (p @ statistics) ** 2)
    biases = np.abs(np.stack(law) @ statistics - p @ statistics)

    symmetric = np.sqrt(p)[:, None] * kernel / np.sqrt(p)
    values, vectors = np.linalg.eigh(0.5 * (symmetric + symmetric.T))
    parts = ((law[0] / np.sqrt(p)) @ vectors) ** 2
    series = np.array([parts[:-1] @ values[:-1] ** (2 * k) for k in range(len(law))])
    rates = np.sqrt(chi_square[1:] / chi_square[:-1])
    share = parts[:-2] @ (values[:-2] / values[-2]) ** (2 * (len(law) - 2)) / parts[-2]
    return rounding(
        {
            "T leaves p as it is": (p @ kernel, p),
            "detailed balance": (symmetric, symmetric.T),
            "χ² never rises": (excess(chi_square[1:], chi_square[:-1]), 0.0),
            "bias ≤ √χ² sd": (excess(biases, bound(chi_square)[:, None] * spread), 0.0),
            "χ² by eigenvalues": (chi_square, series),
            "the rate never passes λ₂": (excess(rates, values[-2]), 0.0),
            "the rate nears λ₂": (excess(values[-2] - rates[-1], values[-2] * share / 2), 0.0),
        }
    )


def _unrooted(chi_square: np.ndarray) -> np.ndarray:
    """A planted mistake: χ² for √χ², too small as soon as p_k is near."""
    return chi_square


IDENTITIES = (
    Identity(
        "cd.bias",
        4,
        "χ²(p_k‖p) never rises; |E_{p_k} s − E_p s| ≤ √χ² sd_p(s); √χ² falls at the rate λ₂ in the end",
        "rounding",
        _bias,
        {"Gibbs sampling of another machine": {"sweep": _without_hidden_bias}, "χ² for √χ²": {"bound": _unrooted}},
        "Carreira-Perpiñán and Hinton 2005; Fischer and Igel 2011",
    ),
)
