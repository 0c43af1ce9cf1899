"""Annealed particles: a whole population goes from a normal prior to a posterior, and its mean weight is the evidence.

Definition. γ_β(z) = N(z; 0, I) L(z)^β. From S draws of the prior each rung raises β as far as leaves weights L^(β'−β) that
are worth S/2 draws, multiplies the evidence by their mean, resamples by them with one comb, and moves every particle by
random-walk Metropolis at β', with the covariance of the population. With rungs fixed in advance E Π mean weight =
∫ N(z) L(z) dz (Del Moral, Doucet and Jasra 2006; Chopin 2002); choosing them by the population adds a bias of order 1/S
(Beskos, Jasra, Kantas and Thiery 2016). Rungs that are left at β = 1 are moves alone. Theory: ``annealing.ais``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from mulligan.core import Kernel, Law

WORTH = 0.5  # of the particles, that the weights of a rung are worth
_HALVINGS = 24  # of the interval in which the next β is looked for
_SCALES = (1.0, 0.3, 1.0, 0.1)  # of the moves, in turn, times 2.38/√k


class Population(NamedTuple):
    """``position`` (S, k), ``log_likelihood`` (S,), the ``beta`` reached and the ``log_evidence`` so far."""

    position: Float[Array, "S k"]
    log_likelihood: Float[Array, " S"]
    beta: Float[Array, ""]
    log_evidence: Float[Array, ""]


class Rung(NamedTuple):
    """``beta`` reached, the share of moves accepted, and what the rung's weights were worth, as a share of S."""

    beta: Float[Array, ""]
    acceptance: Float[Array, ""]
    worth: Float[Array, ""]


class AnnealedParticles(Kernel):
    """One rung. ``log_likelihood`` maps z (k,) to log L, −∞ where nothing is; the input of a step says whether it is the
    last chance to reach β = 1, which then is taken at whatever weights.

    ``init`` takes draws of the prior (S, k), all with log L > −∞ if L has zeros that the prior was cut to.

    >>> kernel = AnnealedParticles(lambda z: -0.5 * jnp.sum((z - 1) ** 2))
    >>> state = kernel.init(jax.random.key(0), jax.random.normal(jax.random.key(1), (64, 1)))
    >>> after, info = kernel.step(jax.random.key(2), state, jnp.asarray(True))
    >>> float(after.beta), bool(jnp.abs(after.log_evidence - (-0.25 - 0.5 * jnp.log(2.0))) < 0.2)
    (1.0, True)
    """

    law: ClassVar[Law] = Law("none")
    log_likelihood: Callable[[Array], Array]
    moves: int = eqx.field(static=True, default=2)

    def init(self, key: PRNGKeyArray, x: Float[Array, "S k"]) -> Population:
        """The population at β = 0."""
        zero = jnp.zeros((), x.dtype)
        return Population(x, jax.vmap(self.log_likelihood)(x), zero, zero)

    def noise(self, key: PRNGKeyArray, state: Population) -> tuple[Array, Array, Array]:
        """One uniform number for the comb; normal numbers (moves, S, k) and uniform ones (moves, S) for the moves."""
        comb, steps, takes = jax.random.split(key, 3)
        size, dtype = state.position.shape, state.position.dtype
        return (
            jax.random.uniform(comb, (), dtype),
            jax.random.normal(steps, (self.moves, *size), dtype),
            jax.random.uniform(takes, (self.moves, size[0]), dtype),
        )

    def move(
        self, state: Population, noise: tuple[Array, Array, Array], input: Bool[Array, ""]
    ) -> tuple[Population, Rung]:
        """Reweigh, resample, move."""
        comb, steps, takes = noise
        particles, k = state.position.shape
        rise = next_rise(state.log_likelihood, 1 - state.beta, input)
        log_w = _powered(state.log_likelihood, rise)
        top = jnp.max(log_w)
        w = jnp.exp(log_w - jnp.where(jnp.isfinite(top), top, 0.0))
        beta = jnp.where(rise >= 1 - state.beta, 1.0, state.beta + rise).astype(state.beta.dtype)
        evidence = state.log_evidence + top + jnp.log(jnp.mean(w))
        worth = jnp.sum(w) ** 2 / jnp.maximum(jnp.sum(w**2), 1e-30) / particles
        chosen = _combed(w, comb)
        z, log_l = state.position[chosen], state.log_likelihood[chosen]
        deviation = z - jnp.mean(z, axis=0)
        covariance = deviation.T @ deviation / particles + 1e-6 * jnp.eye(k, dtype=z.dtype)
        factor = jnp.linalg.cholesky(covariance) * jnp.asarray(2.38 / k**0.5, z.dtype)

        def one(carry: tuple[Array, Array], item: tuple[Array, Array, Array]) -> tuple[tuple[Array, Array], Array]:
            z, log_l = carry
            step, uniform, scale = item
            new = z + scale * step @ factor.T
            log_new = jax.vmap(self.log_likelihood)(new)
            prior = 0.5 * jnp.sum(z**2 - new**2, axis=1)
            yes = accept(prior + _powered(log_new, beta) - _powered(log_l, beta), uniform)
            return (jnp.where(yes[:, None], new, z), jnp.where(yes, log_new, log_l)), jnp.mean(yes)

        scales = jnp.asarray([_SCALES[i % len(_SCALES)] for i in range(self.moves)], z.dtype)
        (z, log_l), taken = jax.lax.scan(one, (z, log_l), (steps, takes, scales))
        return Population(z, log_l, beta, evidence), Rung(beta, jnp.mean(taken), worth)


def accept(log_ratio: Array, uniform: Array) -> Array:
    """Metropolis's rule (Metropolis and others 1953), bool; a ratio that is no number is refused."""
    return jnp.log(uniform) < log_ratio


def next_rise(log_likelihood: Float[Array, " S"], left: Array, last: Array) -> Float[Array, ""]:
    """The greatest rise of β up to ``left`` at which weights L^rise are worth half their number; ``left`` if ``last``.

    >>> float(next_rise(jnp.zeros(4), jnp.asarray(0.5), jnp.asarray(False)))
    0.5
    """

    def enough(rise: Array) -> Array:
        log_w = _powered(log_likelihood, rise)
        w = jnp.exp(log_w - jnp.max(log_w))
        return jnp.sum(w) ** 2 >= WORTH * log_w.shape[0] * jnp.sum(w**2)

    def halve(_: int, ends: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = ends
        # middle of the logarithms: the first rung of a sharp posterior is far below 1
        middle = jnp.sqrt(jnp.maximum(low, 1e-9) * high)
        yes = enough(middle)
        return jnp.where(yes, middle, low), jnp.where(yes, high, middle)

    low, _ = jax.lax.fori_loop(0, _HALVINGS, halve, (jnp.zeros_like(left), left))
    return jnp.where(last | enough(left), left, jnp.maximum(low, 1e-9 * left))


def _powered(log_likelihood: Array, beta: Array) -> Array:
    """β log L, −∞ where L is 0 whatever β."""
    out = jnp.isneginf(log_likelihood)
    return jnp.where(out, -jnp.inf, beta * jnp.where(out, 0.0, log_likelihood))


def _combed(w: Array, uniform: Array) -> Array:
    """Systematic resampling: places (S,) of the particles that S equally spaced teeth hit."""
    size = w.shape[0]
    cumulated = jnp.cumsum(w)
    teeth = (jnp.arange(size) + uniform) / size * cumulated[-1]
    return jnp.minimum(jnp.searchsorted(cumulated, teeth, side="right"), size - 1)
