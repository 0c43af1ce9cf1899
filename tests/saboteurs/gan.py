"""Broken twins of what trains a GAN: tests/exact/test_gan.py must refuse each."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from mulligan.measures.energy_distance import energy_distance, mean_distance
from mulligan.objectives.adversarial import NON_SATURATING, PAIRED, WASSERSTEIN, Duel, unit_slope, zero_slope


def _critics_sign(game):
    return game._replace(critic=lambda rows, draws: game.critic(-rows, -draws))


def _generators_sign(game):
    return game._replace(generator=lambda rows, draws: game.generator(-rows, -draws))


def _no_penalty(game):
    return game._replace(penalty=lambda judge, duel, key: jnp.zeros(()))


def _no_half(game):
    return game._replace(penalty=lambda judge, duel, key: 2 * game.penalty(judge, duel, key))


def _rows_only(game):
    """R1 without R2: half of the damping that is stated."""
    return game._replace(penalty=lambda judge, duel, key: zero_slope(judge, duel._replace(draws=duel.points), key) / 2)


# games whose field around the solution is not the one that is stated
GAMES = {
    f"{name}: {fault.__name__.strip('_').replace('_', ' ')}": (name, fault(game))
    for name, game in {"non-saturating": NON_SATURATING, "paired": PAIRED, "wasserstein": WASSERSTEIN}.items()
    for fault in (
        (_critics_sign, _generators_sign)
        if name == "wasserstein"
        else (_critics_sign, _generators_sign, _no_penalty, _no_half, _rows_only)
    )
}


def halves_forgotten(rows, draws):
    """The mean of both losses in place of their sum: half of 2 JS."""
    return 0.5 * NON_SATURATING.critic(rows, draws)


def critic_swapped(rows, draws):
    return NON_SATURATING.critic(draws, rows)


def hinge(rows, draws):
    """A proper loss of a GAN, whose best critic is the sign of log p/g."""
    return jnp.mean(jax.nn.relu(1 - rows)) + jnp.mean(jax.nn.relu(1 + draws))


CRITICS = (halves_forgotten, critic_swapped, hinge)


def at_the_rows(judge, duel, key):
    return unit_slope(judge, Duel(duel.points, duel.points), key)


def beyond_the_draws(judge, duel, key):
    """x + u (x − y) in place of u x + (1 − u) y."""
    return unit_slope(judge, Duel(2 * duel.points - duel.draws, duel.points), key)


def square_outside(judge, duel, key):
    """(E|∇D| − 1)²: slopes of 0 and 2 pass."""
    one = [unit_slope(judge, Duel(duel.points[i : i + 1], duel.draws[i : i + 1]), key) for i in range(2)]
    return jnp.mean(jnp.stack([jnp.sqrt(term) for term in one])) ** 2


SLOPES = (at_the_rows, beyond_the_draws, square_outside)


def generator_first(kernel, state, key, batch):
    """The generator answers the critic of before the step."""
    after, told = kernel.move(state, key, batch)
    last = _dealt(kernel, batch)[-1]
    stale, _ = kernel._generator_step(
        state, jax.random.fold_in(key, kernel.critic_steps), kernel._dealt(last), batch.rate
    )
    return after._replace(weights=_with_network(after.weights, stale.weights.network)), told


def same_rows_for_every_critic(kernel, state, key, batch):
    return kernel.move(state, key, batch._replace(rows=jnp.tile(_dealt(kernel, batch)[0], kernel.critic_steps)))


def equal_paces(kernel, state, key, batch):
    return _replaced(kernel, pace=jnp.ones(())).move(state, key, batch)


def no_momentum(kernel, state, key, batch):
    return _replaced(kernel, momentum=jnp.zeros(())).move(state, key, batch)


def moments_uncorrected(kernel, state, key, batch):
    """As if a hundred steps had been taken: Adam's bias is not corrected."""
    after, told = kernel.move(state._replace(rounds=state.rounds + 100), key, batch)
    return after._replace(rounds=state.rounds + 1), told


def average_of_the_start(kernel, state, key, batch):
    after, told = kernel.move(state, key, batch)
    return after._replace(averaged=state.averaged), told


MOVES = (
    generator_first,
    same_rows_for_every_critic,
    equal_paces,
    no_momentum,
    moments_uncorrected,
    average_of_the_start,
)


def _dealt(kernel, batch):
    return jnp.resize(batch.rows, (kernel.critic_steps, batch.rows.shape[0] // kernel.critic_steps))


def _replaced(kernel, **parts):
    from dataclasses import replace

    return replace(kernel, **parts)


def _with_network(weights, network):
    from dataclasses import replace

    return replace(weights, network=network)


def cross_once(first, second):
    """E|x − y| in place of twice it."""
    within = mean_distance(first) + mean_distance(second)
    return 0.5 * (energy_distance(first, second) + within) - within


def biased(first, second):
    """Each point compared with itself: above 0 where the laws are equal."""
    n, m = len(first), len(second)
    return energy_distance(first, second) + mean_distance(first) / n + mean_distance(second) / m


def of_the_means(first, second):
    return 2 * float(np.linalg.norm(first.mean(axis=0) - second.mean(axis=0)))


DISTANCES = (cross_once, biased, of_the_means)
