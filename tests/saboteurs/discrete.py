"""Broken twins of the discrete kernels, of the exchange and of annealed importance sampling.

tests/exact/test_discrete_samplers.py and tests/exact/test_partition.py must reject each of them.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from mulligan.samplers.annealing import AnnealingMove, inner_moves, log_increment
from mulligan.samplers.gibbs import SiteMove, Sites, inverse_cdf
from mulligan.samplers.path import at
from mulligan.samplers.tempering import swap_probability


def visit_of(choose):
    """A Gibbs visit of one site, with the fault in ``choose``(log_density, x, site, levels, u)."""

    def move(kernel, state, noise):
        x = choose(kernel.log_density, state.position, kernel.sites[0], kernel.levels, noise[kernel.sites[0]])
        zero = jnp.zeros((), x.dtype)
        return Sites(x, kernel.log_density(x)), SiteMove(zero + 1, zero, zero, zero)

    return move


def _logits(log_density, x, site, levels):
    return jax.vmap(lambda v: log_density(x.at[site].set(v)))(jnp.arange(levels, dtype=x.dtype))


def wrong_site(log_density, x, site, levels, u):
    other = (site + 1) % x.size
    return x.at[site].set(inverse_cdf(_logits(log_density, x, other, levels), u).astype(x.dtype))


def half_as_cold(log_density, x, site, levels, u):
    return x.at[site].set(inverse_cdf(0.5 * _logits(log_density, x, site, levels), u).astype(x.dtype))


def sign_flipped(log_density, x, site, levels, u):
    return x.at[site].set(inverse_cdf(-_logits(log_density, x, site, levels), u).astype(x.dtype))


def never_stays(log_density, x, site, levels, u):
    """Draws among the other values only, and accepts."""
    logits = _logits(log_density, x, site, levels)
    mine = jnp.arange(levels) == x[site].astype(int)
    return x.at[site].set(inverse_cdf(jnp.where(mine, -1e30, logits), u).astype(x.dtype))


def frozen(log_density, x, site, levels, u):
    return x


VISITS = [wrong_site, half_as_cold, sign_flipped, never_stays, frozen]


def informed(fault):
    """Gibbs with gradients with a fault: no accept step, or a forgotten proposal ratio, or the ratio upside down."""

    def move(kernel, state, noise):
        propose, decide = noise
        x = state.position
        chosen = inverse_cdf(kernel._proposal(state), propose)
        site, value = chosen // kernel.levels, (chosen % kernel.levels).astype(x.dtype)
        other = kernel.init(None, x.at[site].set(value))
        there = jax.nn.log_softmax(kernel._proposal(state))[chosen]
        back = jax.nn.log_softmax(kernel._proposal(other))[site * kernel.levels + x[site].astype(int)]
        change = other.log_density - state.log_density
        log_ratio = {
            "no accept step": 0 * change,
            "ratio forgotten": change,
            "ratio upside down": change + there - back,
        }
        accepted = decide < jnp.exp(jnp.minimum(log_ratio[fault], 0.0))
        return jax.tree.map(lambda a, b: jnp.where(accepted, a, b), other, state), None

    return move


INFORMED = ["no accept step", "ratio forgotten", "ratio upside down"]


def always(path, betas, positions):
    return jnp.ones(len(betas) - 1)


def betas_swapped(path, betas, positions):
    return swap_probability(path, betas[::-1], positions)


def first_beta_forgotten(path, betas, positions):
    return swap_probability(path, jnp.asarray(betas).at[:-1].set(0.0), positions)


def never(path, betas, positions):
    return jnp.zeros(len(betas) - 1)


SWAPS = [always, betas_swapped, first_beta_forgotten, never]


def weight_after_move(self, state, noise, input):
    """Forward: the increment at the state to which the move went."""
    before, after, step_size = input
    position, info = inner_moves(at(self.kernel, after, step_size), state.position, *noise)
    return state._replace(
        position=position, log_weight=state.log_weight + log_increment(self.kernel.log_density, before, after, position)
    ), info


def move_at_old_beta(self, state, noise, input):
    """The kernel of the rung before."""
    before, after, step_size = input
    weight = state.log_weight + log_increment(self.kernel.log_density, before, after, state.position)
    position, info = inner_moves(at(self.kernel, before, step_size), state.position, *noise)
    return state._replace(position=position, log_weight=weight), info


def weight_upside_down(self, state, noise, input):
    before, after, step_size = input
    weight = state.log_weight - log_increment(self.kernel.log_density, before, after, state.position)
    position, info = inner_moves(at(self.kernel, after, step_size), state.position, *noise)
    return state._replace(position=position, log_weight=weight), info


def nothing_moves(self, state, noise, input):
    before, after, _ = input
    weight = state.log_weight + log_increment(self.kernel.log_density, before, after, state.position)
    zero = jnp.zeros(())
    return state._replace(log_weight=weight), AnnealingMove(zero, zero, zero)


ANNEALINGS = [weight_after_move, move_at_old_beta, weight_upside_down]
