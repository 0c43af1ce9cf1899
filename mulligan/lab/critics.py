"""Chapter 5, an experiment [E]: what a trained critic says of Wasserstein's distance, and what a gradient penalty does not.

Definition. For any f with finite Lipschitz constant L, (E_p f − E_q f)/L ≤ W₁(p, q): the dual side of ``game.wasserstein``.
For two finite point sets only the slopes between their points count, L = max |f(z) − f(z′)|/|z − z′|, so L can be computed
and the bound certified. A penalty E(|∇f| − 1)² certifies nothing: at its optimum slopes exceed 1 and the value W₁.
Experiment: ``game.wasserstein.critic``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mulligan.lab.game import PointSets, distance, transport
from mulligan.lab.identity import Check, Identity, excess, rounding
from mulligan.learners.gradient import GradientDescent, GradientState, Minibatch, gradient_descent
from mulligan.loop import compile_small, repeat
from mulligan.nets.mlp import MLP, make_mlp
from mulligan.objectives.adversarial import WASSERSTEIN, Duel

POINTS, STEPS, RATE = 64, 400, 1e-2
NEAR = 0.5  # of W₁: a critic that learned something certifies at least this share


def penalised(critic: MLP, key: Any, batch: Duel) -> tuple[Any, dict[str, Any]]:
    """The critic's loss of the Wasserstein game, with its penalty at weight 1; the metric is E_p f − E_q f.

    >>> critic = make_mlp([1, 4, 1], np.random.default_rng(0), zero_last=True)
    >>> loss, _ = penalised(critic, jax.random.key(0), Duel(jnp.zeros((2, 1)), jnp.ones((2, 1))))
    >>> round(float(loss), 4)  # slope 0 everywhere
    1.0
    """

    def judge(x: Any, given: Any = None) -> Any:
        return critic(x)[0]

    value = WASSERSTEIN.critic(jax.vmap(judge)(batch.points), jax.vmap(judge)(batch.draws))
    return value + WASSERSTEIN.penalty(judge, batch, key), {"train": -value}


@compile_small
def _trained(kernel: GradientDescent, key: Any, state: GradientState, inputs: Minibatch) -> Any:
    """Values of the critic at all points after as many steps as there are inputs."""
    state, _ = repeat(kernel, key, state, inputs.rate.shape[0], inputs)
    critic = kernel.learning(state)
    return jax.vmap(critic)(jnp.concatenate([kernel.rows.points, kernel.rows.draws]))[:, 0]


def lipschitz(values: np.ndarray, points: np.ndarray) -> float:
    """max |f(z) − f(z′)|/|z − z′| over pairs of different points (n, d) with values (n,).

    >>> lipschitz(np.array([0.0, 6.0]), np.array([[0.0, 0.0], [3.0, 4.0]]))
    1.2
    """
    apart = distance(points, points)
    apart[np.diag_indices_from(apart)] = np.inf
    return float((np.abs(values[:, None] - values) / apart).max())


def _penalty_alone(values: np.ndarray, points: np.ndarray) -> float:
    """A planted mistake: taking the penalty for a bound of the slope."""
    return 1.0


def _mean_slope(values: np.ndarray, points: np.ndarray) -> float:
    """A planted mistake: the mean slope between points in place of the greatest."""
    apart = distance(points, points)
    apart[np.diag_indices_from(apart)] = np.inf
    return float((np.abs(values[:, None] - values) / apart).mean())


def _critic(seed: int, *, constant: Callable = lipschitz, steps: int = STEPS) -> Check:
    """Two clouds of 64 points of the plane: a critic with gradient penalty, its value over L against W₁."""
    rng = np.random.default_rng([seed, 5])
    x = rng.normal(size=(POINTS, 2)).astype(np.float32)
    y = (np.array([1.5, 0.0]) + rng.normal(size=(POINTS, 2)) * [0.5, 1.5]).astype(np.float32)
    critic = make_mlp([2, 32, 32, 1], rng)
    kernel = gradient_descent(penalised, critic, Duel(jnp.asarray(x), jnp.asarray(y)))
    # steps that are not taken have rate 0, so that one program serves all
    rate = np.where(np.arange(STEPS) < steps, RATE, 0.0).astype(np.float32)
    inputs = Minibatch(np.broadcast_to(np.arange(POINTS, dtype=np.int32), (STEPS, POINTS)), rate)
    key = jax.random.key(seed)
    state = jax.tree.map(jnp.asarray, kernel.init(key, critic))
    values = np.asarray(_trained(kernel, key, state, jax.tree.map(jnp.asarray, inputs)), np.float64)
    x, y = x.astype(np.float64), y.astype(np.float64)
    even = np.full(POINTS, 1 / POINTS)
    w1, _ = transport(PointSets(x, even, y, even), distance(x, y))
    raw, every = values[:POINTS].mean() - values[POINTS:].mean(), np.concatenate([x, y])
    certified = raw / constant(values, every)
    return rounding(
        {
            "divided by its Lipschitz constant it stays below W₁": (excess(certified, w1), 0.0),
            "and is no idle critic": (excess(NEAR * w1, certified), 0.0),
            "as it is, it exceeds W₁": (excess(w1, raw), 0.0),
            "for its slope exceeds 1": (excess(1.0, lipschitz(values, every)), 0.0),
        }
    )


EXPERIMENTS = (
    Identity(
        "game.wasserstein.critic",
        5,
        "a critic trained with a gradient penalty exceeds W₁; divided by its Lipschitz constant it stays below",
        "rounding",
        _critic,
        {
            "the penalty taken for a bound": {"constant": _penalty_alone},
            "the mean slope": {"constant": _mean_slope},
            "a critic that was not trained": {"steps": 0},
        },
        "Gulrajani et al. 2017; Petzka, Fischer and Lukovnikov 2018",
    ),
)
