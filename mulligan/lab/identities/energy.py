"""Chapter 3, energy-based models: what the unknown constant Z does to the likelihood, its gradient and its bounds.

Definition. p_θ(x) = exp(f_θ(x)) q(x)/Z(θ), q a reference density: here flat on a box, N(0, 4) or a mixture. f_θ is a small
network on the line, or a restricted Boltzmann machine that can be listed. Integrals are Gauss-Legendre sums; the two
sides of an equation use two rules, so that a rule which is too coarse would show.
Identities: ``ebm.log_z``, ``ebm.gradient``, ``ebm.gibbs``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from mulligan.core import Density
from mulligan.lab.identities.contrastive import every_state, lattice_law, machine_of
from mulligan.lab.identities.surrogates import flat
from mulligan.lab.identity import Check, Identity, rounding
from mulligan.loop import compile_small
from mulligan.models.energy import Box, EnergyModel, Tilt
from mulligan.nets.mlp import MLP, make_mlp
from mulligan.targets.discrete import RestrictedBoltzmann
from mulligan.targets.gaussian import Gaussian
from mulligan.targets.known import gauss_legendre
from mulligan.targets.mixture import GaussianMixture

TOLERANCE = 1e-8
NODES = 160  # of each of the two panels of a rule
HALF_BOX = 3.0
# Weights of the five-point rule for a slope, which is off by h⁴f⁗‴/30: 1e-12 here.
_STENCIL = ((-2, 1 / 12), (-1, -2 / 3), (1, 2 / 3), (2, -1 / 12))
_H = 2.0**-9


def network_of(seed: int, hidden: int = 4) -> Tilt:
    """f_θ on the line with one hidden layer, in float64, bent well within the reach of the references.

    >>> network_of(0).network.weights[0].shape
    (4, 1)
    """
    rng = np.random.default_rng([seed, 3])
    net = make_mlp([1, hidden, 1], rng)
    steeper = jax.tree.map(lambda leaf: jnp.asarray(1.5 * np.asarray(leaf), float), net)
    biases = (jnp.asarray(rng.normal(size=hidden)), jnp.asarray(rng.normal(size=1)))
    return Tilt(jnp.zeros((0, 1)), MLP(steeper.weights, biases))


def references() -> tuple[Density, ...]:
    """Three references q: flat on [−3, 3], N(0, 4) and a mixture.

    >>> [type(q).__name__ for q in references()]
    ['Box', 'Gaussian', 'GaussianMixture']
    """
    box = Box(jnp.full(1, -HALF_BOX), jnp.full(1, HALF_BOX))
    mixture = GaussianMixture.from_covariances([0.4, 0.6], [[-1.5], [1.0]], [[[0.6]], [[1.2]]])
    return box, Gaussian(jnp.zeros(1), jnp.full((1, 1), 2.0)), mixture


def model_of(tilt: Any, reference: Density) -> EnergyModel:
    """exp(f) q, its log Z not looked for.

    >>> float(model_of(network_of(0), references()[0]).log_z)
    0.0
    """
    zero = jnp.zeros(())
    return EnergyModel(kind="numeric", tilt=tilt, reference=reference, log_z=zero, log_z_stderr=zero)


def rules(break_at: float) -> tuple[tuple[np.ndarray, np.ndarray], ...]:
    """Points (n, 1) and weights (n,) for each reference: two Gauss-Legendre panels that meet at ``break_at``.

    >>> round(float(rules(0.0)[0][1].sum()), 9)
    6.0
    """
    found = []
    for reach in (HALF_BOX, 20.0, 12.0):
        parts = [gauss_legendre(NODES, *ends) for ends in ((-reach, break_at), (break_at, reach))]
        x, w = (np.concatenate(side) for side in zip(*parts))
        found.append((x[:, None], w))
    return tuple(found)


class Slopes(NamedTuple):
    """By reference: log Z, its slope and the likelihood's (r, p), and averages of ∂f under model, data and reference."""

    log_z: Any
    log_z_slope: Any
    likelihood_slope: Any
    model: Any
    data: Any
    reference: Any


@compile_small
def slopes_of(network: Tilt, reference: Any, data: Any, left: Any, right: Any, model: Callable = model_of) -> Slopes:
    """Slopes by reverse-mode differentiation of sums over ``left``; averages of forward-mode slopes over ``right``.

    ``data`` is a pair of points (n, 1) and weights (n,) that add up to 1. Its example is ``ebm.gradient``.
    """
    theta, unravel = ravel_pytree(network)
    jacobian = jax.jacfwd(lambda at, x: jax.vmap(unravel(at))(x))
    found = []
    for q, (x, w), (y, v) in zip(reference, left, right):

        def values(at: Any, q: Any = q, x: Any = x, w: Any = w) -> Any:
            f = jax.vmap(model(unravel(at), q).unnormalised)
            log_z = jax.nn.logsumexp(f(x), b=w)
            return jnp.stack([log_z, data[1] @ f(data[0]) - log_z])

        log_p = jax.vmap(model(network, q).unnormalised)(y)
        p = v * jnp.exp(log_p - jax.nn.logsumexp(log_p, b=v))
        there = jacobian(theta, y)
        start = v * jnp.exp(jax.vmap(q.log_prob)(y))
        slopes = jax.jacrev(values)(theta)
        averages = p @ there, data[1] @ jacobian(theta, data[0]), start @ there
        found.append(Slopes(values(theta)[0], slopes[0], slopes[1], *averages))
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *found)


def table_of(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows inside the box, (n, 1), of equal weight 1/n; as many as a rule has nodes, for laws on nodes share programs.

    >>> table_of(0)[0].shape
    (320, 1)
    """
    x = np.random.default_rng([seed, 4]).beta(0.7, 1.2, size=(2 * NODES, 1)) * 5.6 - 2.8
    return x, np.full(len(x), 1 / len(x))


def _on_the_line(seed: int, model: Callable = model_of) -> Slopes:
    found = slopes_of(network_of(seed), references(), table_of(seed), rules(0.0), rules(0.7), model)
    return Slopes(*map(np.asarray, found))


# --- the slope of log Z, and of the likelihood ------------------------------------------------------------------------


def _under_the_model(found: Slopes) -> Any:
    return found.model


def _under_the_reference(found: Slopes) -> Any:
    """A planted mistake: negative examples from q, never moved."""
    return found.reference


def _under_the_data(found: Slopes) -> Any:
    return found.data


def machine_slopes(machine: RestrictedBoltzmann) -> tuple[np.ndarray, np.ndarray]:
    """P of every state (s,), and ∂f/∂θ there (s, p), θ = (W, b, c).

    >>> [part.shape for part in machine_slopes(machine_of(0))]
    [(32,), (32, 23)]
    """
    p, there = _machine_slopes(machine, every_state())
    return np.asarray(p), np.asarray(there)


@compile_small
def _machine_slopes(machine: RestrictedBoltzmann, every: Any) -> Any:
    theta, unravel = ravel_pytree((machine.W, machine.b, machine.c))

    def f(at: Any) -> Any:
        moved = eqx.tree_at(lambda law: (law.W, law.b, law.c), machine, unravel(at))
        return jax.vmap(moved.unnormalised)(every)

    return jnp.exp(jax.vmap(machine.log_prob)(every)), jax.jacfwd(f)(theta)


def moved(machine: RestrictedBoltzmann, theta: np.ndarray) -> RestrictedBoltzmann:
    """The machine with θ = (W, b, c), its log Z summed anew.

    >>> machine = machine_of(0)
    >>> bool(moved(machine, flat(machine)).log_z == machine.log_z)
    True
    """
    n, m = machine.W.shape
    return RestrictedBoltzmann(theta[: n * m].reshape(n, m), theta[n * m : n * m + n], theta[n * m + n :])


def _log_z(
    seed: int, *, under: Callable = _under_the_model, weighted: bool = True, model: Callable = model_of
) -> Check:
    """∂ log Z/∂θ = E_pθ[∂f/∂θ] for a network on three references; for a machine, along five directions of θ."""
    found = _on_the_line(seed, model)
    machine = machine_of(seed, 0.7)
    p, there = machine_slopes(machine)
    p = p if weighted else np.full_like(p, 1 / p.size)
    directions = np.random.default_rng([seed, 5]).normal(size=(5, there.shape[1])) / 4
    along = [
        sum(c * float(moved(machine, flat(machine) + k * _H * u).log_z) for k, c in _STENCIL) / _H for u in directions
    ]
    return rounding(
        {"a network": (found.log_z_slope, under(found)), "a machine": (along, directions @ (p @ there))}, TOLERANCE
    )


def _gradient(
    seed: int, *, negative: Callable = _under_the_model, sign: float = -1.0, model: Callable = model_of
) -> Check:
    """L′(θ) = E_data[∂f] − E_pθ[∂f], with data off the model, on three references."""
    found = _on_the_line(seed, model)
    return rounding({"a network": (found.likelihood_slope, found.data + sign * negative(found))}, TOLERANCE)


# --- the variational bound of log Z -----------------------------------------------------------------------------------


def log_densities(functions: Any, points: Any) -> list[np.ndarray]:
    """Values (n,) of each log density at its points (n, d).

    >>> [values.shape for values in log_densities([network_of(0)], [rules(0.0)[0][0]])]
    [(320,)]
    """
    return [np.asarray(values) for values in _values(tuple(functions), tuple(points))]


@compile_small
def _values(functions: Any, points: Any) -> Any:
    return [jax.vmap(one)(at) for one, at in zip(functions, points)]


def node_law(log_p: np.ndarray, w: np.ndarray) -> np.ndarray:
    """The probability of each node of a rule, for an unnormalised log density.

    >>> node_law(np.zeros(2), np.ones(2)).tolist()
    [0.5, 0.5]
    """
    p = w * np.exp(log_p - log_p.max())
    return p / p.sum()


def node_kl(p: np.ndarray, log_q: np.ndarray | float, w: np.ndarray | float) -> np.ndarray:
    """KL of node probabilities p (…, n) from the density q.

    >>> float(node_kl(np.full(4, 0.25), np.zeros(4), 0.25))
    0.0
    """
    return np.sum(np.where(p > 0, p * (np.log(np.where(p > 0, p, 1.0) / w) - log_q), 0.0), axis=-1)


def _bound(average: np.ndarray, divergence: np.ndarray) -> np.ndarray:
    return average - divergence


def _without_entropy(average: np.ndarray, divergence: np.ndarray) -> np.ndarray:
    """A planted mistake: E_r f alone, the critic's game without the entropy of its actor."""
    return average


def _gibbs(seed: int, *, bound: Callable = _bound, reverse: bool = False, model: Callable = model_of) -> Check:
    """log Z − (E_r f − KL(r‖q)) = KL(r‖p): r from another network, or the law of a chain of spins."""
    network, other, right = network_of(seed), network_of(seed + 1), rules(0.7)
    q = [law.log_prob for law in references()]
    log_z = _on_the_line(seed, model).log_z
    points, pairs = [x for x, _ in right], {}
    f, g, log_q = (log_densities(each, points) for each in ([network] * 3, [other] * 3, q))
    for i, name in enumerate(("flat", "a Gaussian", "a mixture")):
        w = right[i][1]
        r = node_law(0.5 * g[i] + log_q[i], w)
        p = node_law(f[i] + log_q[i], w)  # normalised by its own sum: with log Z in it both sides would be one formula
        gap = node_kl(p, np.log(r / w), w) if reverse else node_kl(r, np.log(p / w), w)
        pairs[name] = (log_z[i] - bound(r @ f[i], node_kl(r, log_q[i], w)), gap)

    machine, r = machine_of(seed), np.asarray(lattice_law())
    of_states = log_densities([machine.unnormalised], [every_state()])[0]
    uniform = np.full_like(r, -np.log(r.size))  # log q of every state; the tilt is f − log q
    p = node_law(of_states, np.ones_like(r))
    gap = p @ np.log(p / r) if reverse else r @ np.log(r / p)
    above = bound(r @ (of_states - uniform), r @ (np.log(r) - uniform))
    pairs["a machine"] = (float(machine.log_z) - above, gap)
    return rounding(pairs)


IDENTITIES = (
    Identity(
        "ebm.log_z",
        3,
        "∂ log Z/∂θ = E_pθ[∂f_θ/∂θ]",
        "rounding",
        _log_z,
        {
            "averaged over the reference": {"under": _under_the_reference},
            "averaged over the data": {"under": _under_the_data},
            "states of a machine not weighted": {"weighted": False},
        },
        "Ackley, Hinton and Sejnowski 1985",
    ),
    Identity(
        "ebm.gradient",
        3,
        "L′(θ) = E_data[∂f_θ/∂θ] − E_pθ[∂f_θ/∂θ]",
        "rounding",
        _gradient,
        {
            "negative phase missing": {"sign": 0.0},
            "sign of the negative phase": {"sign": 1.0},
            "negative phase under q": {"negative": _under_the_reference},
        },
        "Ackley, Hinton and Sejnowski 1985; Younes 1989",
    ),
    Identity(
        "ebm.gibbs",
        3,
        "log Z − (E_r f − KL(r‖q)) = KL(r‖p) for every r",
        "rounding",
        _gibbs,
        {"entropy left out": {"bound": _without_entropy}, "KL(p‖r) for KL(r‖p)": {"reverse": True}},
        "Donsker and Varadhan 1975",
    ),
)
