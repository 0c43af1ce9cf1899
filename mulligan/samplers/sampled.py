"""An energy-based model that can be drawn from: each draw is a short chain of its own.

Definition. From x ~ q, first T steps of adjusted Langevin along π_β, β rising to 1 (annealing); then R rounds, each of
(a) iterated sampling-importance-resampling: M − 1 fresh draws of q and x itself, one of which is chosen with probability
proportional to exp f; (b) L steps of adjusted Langevin at β = 1. Both keep p exactly; (a) jumps between modes however far
apart, at the rate at which q finds them (Andrieu, Doucet and Holenstein 2010; Samsonov et al. 2022). The draw is of p up to
what is left of its start after R rounds, about (1 − rate)^R. Draws are independent.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from mulligan.core import Density, Energy, Sampler
from mulligan.loop import repeat
from mulligan.models.energy import EnergyModel
from mulligan.samplers.langevin import MetropolisLangevin
from mulligan.samplers.path import Path


class SampledEnergy(Sampler, Density, Energy):
    """``model`` with chains that draw from it: ``annealing`` T steps, ``step_size`` Δt of Langevin.

    T, at β = 1/T … 1, and ``rounds`` R are arrays, so fits that differ in them share a program; ``candidates`` M and
    ``moves`` L are static. log p and its ``kind`` are the model's. Made by ``sampled``.

    >>> import numpy as np
    >>> from mulligan.models.energy import make_energy
    >>> from mulligan.targets.gaussian import Gaussian
    >>> model = make_energy(Gaussian(jnp.zeros(2), jnp.eye(2)), 2, np.random.default_rng(0), width=4)
    >>> sampled(model, 0.1, rounds=2).sample(jax.random.key(0)).shape
    (2,)
    """

    kind: Literal["exact", "numeric", "estimate"] = eqx.field(static=True)  # type: ignore[misc]
    model: EnergyModel
    annealing: Int[Array, ""]
    step_size: Float[Array, ""]
    rounds: Int[Array, ""]
    candidates: int = eqx.field(static=True, default=16)
    moves: int = eqx.field(static=True, default=4)

    @property
    def log_z_stderr(self) -> Float[Array, ""]:
        """The standard error of log Z."""
        return self.model.log_z_stderr

    @property
    def strokes(self) -> int:
        """Evaluations of the network a draw."""
        return int(self.annealing) + int(self.rounds) * (self.candidates + self.moves)

    def energy(self, x: Float[Array, " d"]) -> Float[Array, ""]:
        """−log p(x) up to log Z."""
        return self.model.energy(x)

    def log_prob(self, x: Float[Array, " d"], given: Array | None = None) -> Float[Array, ""]:
        """log p(x) in nats."""
        return self.model.log_prob(x)

    def sample(self, key: PRNGKeyArray, given: Array | None = None) -> Float[Array, " d"]:
        """One draw (d,)."""
        return self.traced(key)[0]

    def traced(self, key: PRNGKeyArray) -> tuple[Float[Array, " d"], dict[str, Float[Array, ""]]]:
        """A draw, with the share of rounds that jumped to a fresh candidate and the mean acceptance of the last moves."""
        of_start, of_annealing, of_rounds = jax.random.split(key, 3)
        x = self._annealed(self.model.reference.sample(of_start), of_annealing)

        def one(i: Array, carry: tuple) -> tuple:
            x, jumps, acceptance = carry
            of_jump, of_moves = jax.random.split(jax.random.fold_in(of_rounds, i))
            x, jumped = self._jump(x, of_jump)
            kernel = self._langevin(jnp.asarray(1.0, x.dtype))
            state, info = repeat(kernel, of_moves, kernel.init(of_moves, x), self.moves)
            return state.position, jumps + jumped.astype(x.dtype), acceptance + jnp.mean(info.acceptance)

        zero = jnp.zeros((), x.dtype)
        x, jumps, acceptance = jax.lax.fori_loop(0, self.rounds, one, (x, zero, zero))
        rounds = self.rounds.astype(x.dtype)
        return x, {"jumps": jumps / rounds, "acceptance": acceptance / rounds}

    def _langevin(self, beta: Array) -> MetropolisLangevin:
        return MetropolisLangevin(Path(self.model.f, self.model.log_q, beta), self.step_size)

    def _annealed(self, x: Array, key: PRNGKeyArray) -> Array:
        def one(i: Array, x: Array) -> Array:
            kernel = self._langevin((i + 1).astype(x.dtype) / self.annealing.astype(x.dtype))
            each = jax.random.fold_in(key, i)
            return kernel.step(each, kernel.init(each, x))[0].position

        return jax.lax.fori_loop(0, self.annealing, one, x)

    def _jump(self, x: Array, key: PRNGKeyArray) -> tuple[Array, Array]:
        of_draws, of_choice = jax.random.split(key)
        fresh = jax.vmap(self.model.reference.sample)(jax.random.split(of_draws, self.candidates - 1))
        pool = jnp.concatenate([x[None], fresh])
        chosen = jax.random.categorical(of_choice, jax.vmap(self.model.f)(pool))
        return pool[chosen], chosen > 0


def sampled(
    model: EnergyModel, step_size: float, *, annealing: int = 1, rounds: int = 8, candidates: int = 16, moves: int = 4
) -> SampledEnergy:
    """A model with the chains that draw from it."""
    return SampledEnergy(
        kind=model.kind,
        model=model,
        annealing=jnp.asarray(np.int32(annealing)),
        step_size=jnp.asarray(np.float32(step_size)),
        rounds=jnp.asarray(np.int32(rounds)),
        candidates=candidates,
        moves=moves,
    )


def remodelled(chains: SampledEnergy, model: EnergyModel) -> SampledEnergy:
    """The same chains for the model with its log Z found."""
    return replace(chains, model=model, kind=model.kind)
