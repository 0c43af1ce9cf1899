"""Chapter 5: energy-based learning, Wasserstein and saturating GANs as games between a critic and an actor.

Definition. The actor is the law that negative examples come from, the critic the function f that tells them from data.
V(θ) = E_data f_θ − E_{p_θt} f_θ has the slope of the likelihood at θ_t; with the actor's entropy, min_r E_data f − E_r f +
E_r log r is the likelihood itself. Without it, and with the critic's slope at most 1, the value of the game is Wasserstein's
W₁ = max_f E_p f − E_q f = min E|x − y| over couplings = ∫|F − G| on the line. With a logistic loss it is 2 JS − 2 log 2.
Identities: ``game.value``, ``game.wasserstein``, ``game.jensen_shannon``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from mulligan.lab.identities.contrastive import every_state, lattice_law, machine_of
from mulligan.lab.identities.energy import machine_slopes, moved
from mulligan.lab.identities.surrogates import contrast, current_law, flat, several
from mulligan.lab.identity import Check, Identity, excess, rounding
from mulligan.loop import compile_small
from mulligan.targets.discrete import RestrictedBoltzmann
from mulligan.targets.gaussian import Gaussian
from mulligan.targets.mixture import GaussianMixture

# --- the value ---------------------------------------------------------------------------------------------------------


@compile_small
def _value_slope(machine: RestrictedBoltzmann, data: Any, actor: Any, every: Any) -> Any:
    """∂/∂θ (E_data f_θ − E_actor f_θ), θ = (W, b, c), and f of every state."""
    theta, unravel = ravel_pytree((machine.W, machine.b, machine.c))

    def f(at: Any) -> Any:
        other = eqx.tree_at(lambda law: (law.W, law.b, law.c), machine, unravel(at))
        return jax.vmap(other.unnormalised)(every)

    return jax.grad(lambda at: (data - actor) @ f(at))(theta), f(theta)


def _actor(machine: RestrictedBoltzmann, data: Any) -> Any:
    return current_law(machine, data)


def _lagging_actor(machine: RestrictedBoltzmann, data: Any) -> Any:
    """A planted mistake: negative examples of an older θ."""
    return current_law(moved(machine, 0.9 * flat(machine)), data)


def _value(seed: int, *, actor: Callable = _actor, entropy: float = 1.0, frozen: bool = True) -> Check:
    """∇V(θ_t) = L′(θ_t); away from θ_t the frozen actor is missed by E_pθ ∂f − E_pθt ∂f; its entropy makes V into L."""
    machine, data = machine_of(seed), lattice_law()
    there = moved(machine, flat(machine) + 0.3 * np.random.default_rng([seed, 1]).normal(size=flat(machine).size))
    at_once = [actor(machine, data), current_law(machine, data) if frozen else current_law(there, data)]
    slopes, pairs = [], {}
    for law, negative in zip((machine, there), at_once):
        thetas = jnp.asarray(several(seed, flat(law)))
        likelihood = -np.asarray(contrast(law, thetas, data, current_law(law, data), every_state()).kl_slope)
        slope, f = (np.asarray(part) for part in _value_slope(law, data, negative, every_state()))
        slopes.append((slope, likelihood))
    p, derivative = machine_slopes(there)
    pairs["∇V, L′ at θ_t"] = slopes[0]
    missed = p @ derivative - machine_slopes(machine)[0] @ derivative
    pairs["∇V − L′ elsewhere"] = (slopes[1][0] - slopes[1][1], missed)

    data = np.asarray(data)
    replies = np.random.default_rng([seed, 2]).dirichlet(np.ones(p.size), 5)
    game = lambda r: data @ f - r @ f + entropy * np.sum(r * np.log(r), axis=-1)  # noqa: E731
    likelihood = data @ np.log(p)
    pairs["the best reply"] = (game(p), likelihood)
    pairs["every other reply"] = (game(replies) - likelihood, np.sum(replies * np.log(replies / p), axis=1))
    return rounding(pairs, 1e-8)


# --- Wasserstein -------------------------------------------------------------------------------------------------------


class PointSets(NamedTuple):
    """Two finite laws: points x (n, d) with weights a (n,), points y (m, d) with weights b (m,)."""

    x: np.ndarray
    a: np.ndarray
    y: np.ndarray
    b: np.ndarray


def point_sets(seed: int, n: int, m: int, dim: int) -> PointSets:
    """Two clouds of n and m points with unequal weights.

    >>> point_sets(0, 3, 4, 2).y.shape
    (4, 2)
    """
    rng = np.random.default_rng([seed, dim])
    x, y = rng.normal(size=(n, dim)), 0.3 + rng.normal(size=(m, dim)) * np.linspace(0.5, 1.5, dim)
    return PointSets(x, rng.dirichlet(np.full(n, 2.0)), y, rng.dirichlet(np.full(m, 2.0)))


def distance(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """|x_i − y_j|, (n, m).

    >>> distance(np.zeros((1, 2)), np.array([[3.0, 4.0]])).tolist()
    [[5.0]]
    """
    return np.sqrt(((x[:, None] - y[None]) ** 2).sum(axis=-1))


def _squared(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """A planted mistake: the cost of W₂², to which no critic of slope 1 is dual."""
    return distance(x, y) ** 2


def transport(sets: PointSets, cost: np.ndarray) -> tuple[float, np.ndarray]:
    """min Σ P_ij cost_ij over couplings P of a and b, by linear programming, and the prices (m,) of the points y.

    >>> sets = point_sets(0, 2, 3, 1)
    >>> 0 < transport(sets, distance(sets.x, sets.y))[0] < 3
    True
    """
    from scipy.optimize import linprog
    from scipy.sparse import eye_array, kron, vstack

    n, m = cost.shape
    rows = kron(eye_array(n), np.ones((1, m)))
    columns = kron(np.ones((1, n)), eye_array(m))
    found = linprog(cost.ravel(), A_eq=vstack([rows, columns]).tocsc(), b_eq=np.concatenate([sets.a, sets.b]))
    return float(found.fun), np.asarray(found.eqlin.marginals)[n:]


def _area(sets: PointSets) -> tuple[float, float]:
    """∫|F − G| on the line, and the value of the critic whose slope is the sign of G − F."""
    points = np.concatenate([sets.x[:, 0], sets.y[:, 0]])
    order, mass = np.argsort(points), np.concatenate([sets.a, -sets.b])
    gaps, difference = np.diff(points[order]), np.cumsum(mass[order])[:-1]
    critic = np.concatenate([[0.0], np.cumsum(-np.sign(difference) * gaps)])
    return float(gaps @ np.abs(difference)), float(critic @ mass[order])


def _slope_one(critic: np.ndarray) -> np.ndarray:
    return critic


def _slope_more(critic: np.ndarray) -> np.ndarray:
    """A planted mistake: a critic that a penalty let off with a slope of 1.05."""
    return 1.05 * critic


def _wasserstein(seed: int, *, cost: Callable = distance, critic: Callable = _slope_one, even: bool = False) -> Check:
    """∫|F − G| = primal = dual on the line (30 and 50 points), primal = dual in the plane (80 and 120 points).

    The dual side is the value of a critic that has slope at most 1 everywhere by construction, u(z) = min_j |z − y_j| −
    price_j; so it is below the primal side whatever the solver did, and where both agree both are right.
    """
    pairs = {}
    for dim, n, m in ((1, 30, 50), (2, 80, 120)):
        sets = point_sets(seed, n, m, dim)
        planned = sets._replace(b=np.full(m, 1 / m)) if even else sets
        primal, prices = transport(planned, cost(sets.x, sets.y))
        u = lambda z, y=sets.y, prices=prices: critic((distance(z, y) - prices).min(axis=1))  # noqa: E731
        dual = sets.a @ u(sets.x) - sets.b @ u(sets.y)
        every = np.concatenate([sets.x, sets.y])
        steepness = np.abs(u(every)[:, None] - u(every)) - distance(every, every)
        pairs[f"dual = primal, d = {dim}"] = (dual, primal)
        pairs[f"slope of the critic, d = {dim}"] = (excess(steepness, 0.0).max(), 0.0)
        if dim == 1:
            area, by_sign = _area(sets)
            pairs["∫|F − G| = primal"] = (area, primal)
            pairs["the critic sign(G − F)"] = (by_sign, area)
    return rounding(pairs)


# --- Jensen-Shannon ----------------------------------------------------------------------------------------------------


class Saturating(NamedTuple):
    """The saturating game on a grid: its value and slope at c*, at other critics, 2 JS, and the generator's slopes."""

    value: Any
    slope: Any
    others: Any
    jensen_shannon: Any
    non_saturating: Any
    expected: Any
    saturating: Any
    twice_js: Any


@compile_small
def _saturating(law: GaussianMixture, theta: Any, others: Any, scale: Any, x: Any, z: Any, weight: Any) -> Saturating:
    """θ = (m, log s) of the generator m + s z; ``scale`` c* is the critic used, ``others`` (k, n) are added to it."""
    generator = lambda at: Gaussian(at[:1], jnp.exp(at[1:])[:, None])  # noqa: E731
    step = x[1, 0] - x[0, 0]
    log_p = jax.vmap(law.log_prob)(x)
    log_g = lambda at: jax.vmap(generator(at).log_prob)(x)  # noqa: E731
    p, g = jnp.exp(log_p), jnp.exp(log_g(theta))
    best = scale * (log_p - log_g(theta))

    def value(critic: Any) -> Any:
        return step * (p @ jax.nn.log_sigmoid(critic) + g @ jax.nn.log_sigmoid(-critic))

    def twice_js(at: Any) -> Any:
        log_m = jnp.logaddexp(log_p, log_g(at)) - jnp.log(2.0)
        return step * (p @ (log_p - log_m) + jnp.exp(log_g(at)) @ (log_g(at) - log_m))

    def reverse_kl(at: Any) -> Any:
        return step * (jnp.exp(log_g(at)) @ (log_g(at) - log_p))

    def critic_at(drawn: Any) -> Any:  # frozen at θ: the slope of the generator's loss goes through its draws only
        return scale * (law.log_prob(drawn) - generator(theta).log_prob(drawn))

    def loss(at: Any, loss_of: Callable) -> Any:
        drawn = at[0] + jnp.exp(at[1]) * z
        return weight @ jax.vmap(lambda one: loss_of(critic_at(one)))(drawn)

    return Saturating(
        value(best),
        jax.grad(value)(best) / step,
        jax.vmap(lambda away: value(best + away))(others),
        twice_js(theta),
        jax.grad(loss)(theta, lambda c: -jax.nn.log_sigmoid(c)),
        jax.grad(reverse_kl)(theta),
        jax.grad(loss)(theta, lambda c: jax.nn.log_sigmoid(-c)),
        jax.grad(twice_js)(theta),
    )


def _jensen_shannon(seed: int, *, scale: float = 1.0, constant: float = 2.0, js: float = -1.0) -> Check:
    """c* = log p/p_g is the best critic, with value 2 JS − 2 log 2; at it the generator's slopes are as stated."""
    rng = np.random.default_rng([seed, 3])
    law = GaussianMixture.from_covariances(
        [0.3, 0.7], np.array([[-1.5], [1.0]]) + 0.3 * rng.normal(size=(2, 1)), [[[0.5]], [[0.8]]]
    )
    theta = np.array([0.3, 0.2]) + 0.2 * rng.normal(size=2)
    x, z = np.linspace(-22.0, 22.0, 881)[:, None], np.linspace(-10.0, 10.0, 401)[:, None]
    weight = np.exp(-0.5 * z[:, 0] ** 2) / np.sqrt(2 * np.pi) * (z[1, 0] - z[0, 0])
    others = rng.normal(size=(6, 1)) * np.sin(rng.uniform(0.3, 2.0, (6, 1)) * x[:, 0])
    numbers = (theta, others, np.asarray(scale), x, z, weight)
    found = Saturating(*map(np.asarray, _saturating(law, *map(jnp.asarray, numbers))))
    return rounding(
        {
            "the best value": (found.value, found.jensen_shannon - constant * np.log(2)),
            "no slope at c*": (found.slope, 0.0),
            "no other critic is better": (excess(found.others, found.value), 0.0),
            "non-saturating generator": (found.non_saturating, found.expected + js * found.twice_js),
            "saturating generator": (found.saturating, found.twice_js),
        }
    )


IDENTITIES = (
    Identity(
        "game.value",
        5,
        "V(θ) = E_data f_θ − E_{p_θt} f_θ: ∇V(θ_t) = L′(θ_t); min_r E_data f − E_r f + E_r log r = L",
        "rounding",
        _value,
        {
            "an actor that lags": {"actor": _lagging_actor},
            "the actor's entropy left out": {"entropy": 0.0},
            "an actor that follows": {"frozen": False},
        },
        "Kim and Bengio 2016; Dai et al. 2017",
    ),
    Identity(
        "game.wasserstein",
        5,
        "max over critics of slope ≤ 1 of E_p f − E_q f = min E|x − y| over couplings; on the line = ∫|F − G|",
        "rounding",
        _wasserstein,
        {
            "squared distance": {"cost": _squared},
            "a critic of slope 1.05": {"critic": _slope_more},
            "weights forgotten": {"even": True},
        },
        "Kantorovich 1942; Kantorovich and Rubinstein 1958; Arjovsky, Chintala and Bottou 2017",
    ),
    Identity(
        "game.jensen_shannon",
        5,
        "max_c E_data log σ(c) + E_g log σ(−c) = 2 JS − 2 log 2, c* = log p/p_g; ∇_g(−E_g log σ(c*)) = ∇(KL(p_g‖p) − 2 JS)",
        "rounding",
        _jensen_shannon,
        {
            "the critic halved": {"scale": 0.5},
            "log 2 for 2 log 2": {"constant": 1.0},
            "KL alone": {"js": 0.0},
            "sign of JS": {"js": 1.0},
        },
        "Goodfellow et al. 2014; Arjovsky and Bottou 2017",
    ),
)
