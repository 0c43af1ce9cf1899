"""The contracts: what a model can do, and the one shape of everything iterative.

A capability is an abstract Equinox module without fields, so ``isinstance`` and a type checker both see what a model can
do; there is no method that raises "not implemented": what cannot be done is not there. A concrete model is final.
Everything is written for **one** example x of shape (d,); batches come from ``jax.vmap``.

Two conventions hold everywhere. ``given`` is None, or the vector of columns that a conditional model was fitted to take.
NaN in gives NaN out; −inf outside the support is legal.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

State = Any
Noise = Any
Info = Any


class Sampler(eqx.Module):
    """Can be drawn from."""

    @abstractmethod
    def sample(self, key: PRNGKeyArray, given: Array | None = None) -> Array:
        """One draw x, shape (d,)."""


class Density(eqx.Module):
    """Has a log density that is promised to be normalised; ``kind`` says how it is known.

    ``kind`` is a class variable, or a static field where it depends on the model. A model of kind ``estimate`` knows log Z
    to a standard error, ``log_z_stderr``, which all its rows share. For one of kind ``lower bound`` log_prob is a number
    below log p in expectation over draws that are hashed from x: deterministic, and independent from row to row.
    """

    if TYPE_CHECKING:  # a type checker takes an AbstractVar for a field of every density
        kind: ClassVar[Literal["exact", "numeric", "estimate", "lower bound"]]
    else:
        kind: eqx.AbstractVar[Literal["exact", "numeric", "estimate", "lower bound"]]

    @abstractmethod
    def log_prob(self, x: Array, given: Array | None = None) -> Float[Array, ""]:
        """log p(x) in nats, a scalar."""


class Energy(eqx.Module):
    """Has an energy: log p(x) = −energy(x) − log Z with Z unknown."""

    @abstractmethod
    def energy(self, x: Array) -> Float[Array, ""]:
        """−log p(x) up to an additive constant, a scalar."""


class Score(eqx.Module):
    """Has the score ∇ₓ log p(x); always a gradient of a log density, never a mean of one."""

    @abstractmethod
    def score(self, x: Array) -> Array:
        """∇ₓ log p(x), like x."""


class NoisedScore(eqx.Module):
    """Has the score of the data law under noise, ∇ log p_t(x)."""

    @abstractmethod
    def score(self, x: Array, t: Float[Array, ""]) -> Array:
        """∇ₓ log p_t(x), like x."""


class Bound(eqx.Module):
    """Has a lower bound of log p(x)."""

    @abstractmethod
    def elbo(self, key: PRNGKeyArray, x: Array) -> Float[Array, ""]:
        """A random number whose expectation is at most log p(x)."""


class Law(NamedTuple):
    """What a kernel claims to leave invariant.

    ``invariant`` is ``exact`` (the stated law, at any step size), ``order`` (a law within O(step_size^order) of it) or
    ``none`` (an optimiser: it has a fixed point, not a law).
    """

    invariant: Literal["exact", "order", "none"]
    order: int | None = None


class Kernel(eqx.Module):
    """One step of anything iterative: a sampler, a reverse diffusion, a training step, EM.

    ``move`` is pure and takes its noise as an argument, so an exact test can set it; ``step`` only joins ``noise`` and
    ``move``. The state keeps structure, shapes and dtypes; every float of ``info`` is finite in a healthy run.
    Numbers of a kernel are arrays (a Python float would be static and recompile), functions are module-level.
    """

    law: eqx.AbstractClassVar[Law]

    @abstractmethod
    def init(self, key: PRNGKeyArray, x: Any) -> State:
        """The state from which stepping starts."""

    @abstractmethod
    def noise(self, key: PRNGKeyArray, state: State) -> Noise:
        """All randomness of one step (None for a deterministic kernel)."""

    @abstractmethod
    def move(self, state: State, noise: Noise, input: Any) -> tuple[State, Info]:
        """The next state, and what a person wants to see of the step."""

    def step(self, key: PRNGKeyArray, state: State, input: Any = None) -> tuple[State, Info]:
        """``move`` with fresh noise."""
        return self.move(state, self.noise(key, state), input)


class _ScoreOf(Score):
    of: Density | Energy

    def score(self, x: Array, given: Array | None = None) -> Array:
        model = self.of
        if isinstance(model, Density):
            return jax.grad(lambda y: model.log_prob(y, given))(x)
        return -jax.grad(model.energy)(x)


class _AtTime(Score):
    noised: NoisedScore
    t: Float[Array, ""]

    def score(self, x: Array) -> Array:
        return self.noised.score(x, self.t)


def score_of(model: Any) -> Score:
    """The score of a density or an energy by automatic differentiation; a ``Score`` is returned as it is.

    Raises TypeError for a model with none of the three.
    """
    if isinstance(model, Score):
        return model
    if isinstance(model, Density | Energy):
        return _ScoreOf(model)
    raise TypeError(f"{type(model).__name__} has neither score, log_prob nor energy")


def at_time(noised: NoisedScore, t: float) -> Score:
    """The score at one noise level, as a ``Score``."""
    return _AtTime(noised, jnp.asarray(t, float))


def capabilities(model: Any) -> tuple[str, ...]:
    """Names of the contracts that a model fulfils, in the order of this file."""
    contracts = (Sampler, Density, Energy, Score, NoisedScore, Bound)
    return tuple(contract.__name__ for contract in contracts if isinstance(model, contract))
