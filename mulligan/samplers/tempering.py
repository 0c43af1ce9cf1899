"""Parallel tempering: chains at every β at once, which exchange their positions.

Definition. On the product law Π_k π_{β_k}, chains i and j exchange positions with probability
min(1, exp((β_i − β_j)(f_j − f_i))), q cancels, and the product law stays (Geyer 1991). Even pairs (0,1), (2,3) … and odd
pairs (1,2), (3,4) … take turns, which carries replicas through the ladder in order K steps and not K² (Okabe et al.
2001; Syed et al. 2022). A round trip is a replica's way from β_0 to β_K and back. Theory: ``tempering.swap``,
``tempering.slow``.
"""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from mulligan.core import Kernel, Law, Noise
from mulligan.errors import UsageError
from mulligan.samplers.annealing import inner_moves, reference_of
from mulligan.samplers.path import Path, at

Numbers = Float[Array, " K"]


class Replicas(NamedTuple):
    """``positions`` (K, d), hottest rung first; ``replicas`` (K,) that are there; ``odd``, whether odd pairs are next.

    ``heading`` (K,) of each replica: 1 if it was last at the cold end, 0 if at the hot one, −1 before that; ``trips``
    (K,): how many ends it reached in turn, from the hot one on.
    """

    positions: Float[Array, "K d"]
    replicas: Int[Array, " K"]
    heading: Int[Array, " K"]
    trips: Int[Array, " K"]
    odd: Int[Array, ""]

    @property
    def position(self) -> Float[Array, " d"]:
        """x (d,) of the coldest rung: the draw of the target; (sets, d) of many sets."""
        return self.positions[..., -1, :]

    @property
    def round_trips(self) -> Int[Array, ""]:
        """Ways from the hot end to the cold one and back, of all replicas."""
        return jnp.sum(jnp.maximum(self.trips - 1, 0) // 2, axis=-1)


class TemperingMove(NamedTuple):
    """Of the coldest rung ``acceptance``, ``log_density``; ``divergent`` (share of all inner moves); ``rung_acceptance``
    (K,) of the inner moves; ``swap_acceptance`` (K − 1,), the probability of each exchange, tried in this step or not;
    ``round_trips`` so far."""

    acceptance: Float[Array, ""]
    log_density: Float[Array, ""]
    divergent: Float[Array, ""]
    rung_acceptance: Numbers
    swap_acceptance: Float[Array, " K-1"]
    round_trips: Float[Array, ""]


class ParallelTempering(Kernel):
    """``every`` moves of the kernel on each rung, then one round of exchanges. Keeps Π_k π_{β_k} exactly.

    Exactly if the kernel keeps its π_β; else the law that the kernel declares is what holds.

    Arguments: ``kernel``, whose ``log_density`` is a ``Path`` (or has its ``at``); ``betas`` (K,) rising from 0 (the
    reference, hottest) to 1 (the target, coldest); ``step_sizes`` (K,) of the rungs (None: the kernel's own). A start is
    x (d,) for all rungs or (K, d). ``redraw``: where the path knows how to draw its q (``reference_of``), the rung at
    β = 0 is drawn anew each time, which is the fastest kernel there is. ``Many`` runs independent sets of replicas.
    ``mulligan.samplers.ladder.tune_ladder`` finds betas and step sizes.

    >>> from mulligan.samplers.gibbs import Gibbs
    >>> path = Path(lambda x: 2.0 * jnp.sum(x), lambda x: -jnp.log(2.0) * x.size)
    >>> kernel = ParallelTempering(Gibbs(path, 2), jnp.array([0.0, 1.0]))
    >>> state = kernel.init(jax.random.key(0), jnp.zeros(3))
    >>> state, info = kernel.step(jax.random.key(1), state)
    >>> state.positions.shape, info.swap_acceptance.shape
    ((2, 3), (1,))
    """

    law: ClassVar[Law] = Law("exact")
    kernel: Kernel
    betas: Numbers = eqx.field(converter=jnp.asarray)
    step_sizes: Numbers | None = eqx.field(converter=lambda s: None if s is None else jnp.asarray(s), default=None)
    every: int = eqx.field(static=True, default=1)
    redraw: bool = eqx.field(static=True, default=True)

    def __check_init__(self) -> None:
        if getattr(self.betas, "ndim", 1) != 1 or getattr(self.betas, "size", 2) < 2:
            raise UsageError("a ladder has at least two rungs", "ParallelTempering", do="betas=jnp.linspace(0, 1, 8)")

    def init(self, key: PRNGKeyArray, x: Array) -> Replicas:
        """All rungs at x (d,), or each at its own (K, d)."""
        rungs = self.betas.size
        positions = jnp.broadcast_to(x, (rungs, *x.shape)) if x.ndim == 1 else x
        ids = jnp.arange(rungs, dtype=jnp.int32)
        zeros = jnp.zeros(rungs, jnp.int32)
        # the replica that starts at the hot end has been there; the others count from when they first come
        return Replicas(positions, ids, (zeros - 1).at[0].set(0), zeros.at[0].set(1), jnp.zeros((), jnp.int32))

    def noise(self, key: PRNGKeyArray, state: Replicas) -> tuple[PRNGKeyArray, Noise, Array, Array | None]:
        """Keys of the inner states (K,), noise of the moves (K, every, …), a uniform for each pair (K − 1,), a draw of q."""
        key_init, key_moves, key_swaps, key_fresh = jax.random.split(key, 4)
        rungs = self.betas.size
        draw = reference_of(self.kernel.log_density) if self.redraw else None  # type: ignore[attr-defined]
        fresh = None if draw is None else jnp.asarray(draw(key_fresh), state.positions.dtype)

        def one(key: Array, x: Array) -> Noise:
            inner = self.kernel.init(key, x)
            return jax.vmap(self.kernel.noise, (0, None))(jax.random.split(key, self.every), inner)

        inner = jax.vmap(one)(jax.random.split(key_moves, rungs), state.positions)
        uniforms = jax.random.uniform(key_swaps, (rungs - 1,), state.positions.dtype)
        return jax.random.split(key_init, rungs), inner, uniforms, fresh

    def move(self, state: Replicas, noise: Any, input: Any) -> tuple[Replicas, TemperingMove]:
        """Moves on every rung, then exchanges."""
        keys, inner, uniforms, fresh = noise

        def rung(beta: Array, step_size: Array | None, x: Array, key: Array, noise: Noise) -> tuple[Any, Any]:
            return inner_moves(at(self.kernel, beta, step_size), x, key, noise)

        steps = None if self.step_sizes is None else 0
        lifted = jax.vmap(rung, in_axes=(0, steps, 0, 0, 0))
        positions, info = lifted(self.betas, self.step_sizes, state.positions, keys, inner)
        if fresh is not None:
            positions = positions.at[0].set(jnp.where(self.betas[0] == 0, fresh, positions[0]))
        probability = swap_probability(self.kernel.log_density, self.betas, positions)  # type: ignore[attr-defined]
        state = exchange(state._replace(positions=positions), probability, uniforms)
        told = TemperingMove(
            info.acceptance[-1],
            info.log_density[-1],
            jnp.mean(info.divergent),
            info.acceptance,
            probability,
            state.round_trips.astype(positions.dtype),
        )
        return state, told


def swap_probability(path: Any, betas: Array, positions: Array) -> Float[Array, " K-1"]:
    """min(1, exp((β_i − β_j)(f_j − f_i))) for every pair of neighbours j = i + 1; what is not a number is no exchange.

    A path that is not a ``Path`` is asked for its densities: γ_i(x_j) γ_j(x_i)/(γ_i(x_i) γ_j(x_j)).

    >>> path = Path(lambda x: jnp.sum(x), lambda x: 0.0 * jnp.sum(x))
    >>> swap_probability(path, jnp.array([0.0, 1.0]), jnp.log(jnp.array([[2.0], [4.0]]))).tolist()
    [0.5]
    """
    hot, cold = positions[:-1], positions[1:]
    if isinstance(path, Path):
        f = jax.vmap(path.f)(positions)
        log_ratio = (betas[:-1] - betas[1:]).astype(f.dtype) * (f[1:] - f[:-1])
    else:
        value = jax.vmap(lambda beta, x: path.at(beta)(x))
        crossed = value(betas[:-1], cold) + value(betas[1:], hot)
        log_ratio = crossed - value(betas[:-1], hot) - value(betas[1:], cold)
    return jnp.where(jnp.isnan(log_ratio), 0.0, jnp.exp(jnp.minimum(log_ratio, 0.0)))


def exchange(state: Replicas, probability: Array, uniforms: Array) -> Replicas:
    """Neighbours of the parity whose turn it is exchange with these probabilities (K − 1,); trips are counted."""
    rungs = state.replicas.size
    pairs = jnp.arange(rungs - 1)
    swaps = (uniforms < probability) & (pairs % 2 == state.odd)
    # rung k takes from k + 1 if pair k exchanges, from k − 1 if pair k − 1 does; pairs of one parity never overlap
    false = jnp.zeros(1, bool)
    up, down = jnp.concatenate([swaps, false]), jnp.concatenate([false, swaps])
    source = jnp.arange(rungs) + up.astype(jnp.int32) - down.astype(jnp.int32)
    replicas = state.replicas[source]
    heading, trips = state.heading, state.trips
    for end, here in ((0, replicas[0]), (1, replicas[-1])):
        # a trip begins at the hot end, so a first arrival at the cold one does not count
        arrived = (heading[here] != end) & ((trips[here] > 0) | (end == 0))
        trips = trips.at[here].add(arrived.astype(trips.dtype))
        heading = heading.at[here].set(jnp.where(trips[here] > 0, end, heading[here]))
    return Replicas(state.positions[source], replicas, heading, trips, 1 - state.odd)


def retempered(kernel: ParallelTempering, betas: Any, step_sizes: Any = None) -> ParallelTempering:
    """The same tempering with another ladder of as many rungs: no new compilation."""
    return dataclasses.replace(kernel, betas=betas, step_sizes=step_sizes)
