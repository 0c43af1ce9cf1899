"""Schedules: annealed importance sampling, simulated annealing, annealed Langevin. Three different things.

Definition. Along β_0 = 0 < … < β_K = 1, annealed importance sampling draws x_0 ~ q and x_k ~ T_k(x_{k−1}), T_k keeping
π_{β_k}; its weight w = Π γ_{β_k}(x_{k−1})/γ_{β_{k−1}}(x_{k−1}) has E w = Z_1/Z_0 (Neal 2001). Simulated annealing raises β
beyond 1 to find a maximum and keeps no law (Kirkpatrick et al. 1983). Annealed Langevin follows the scores of ever less
noised data (Song and Ermon 2019). Theory: ``annealing.ais``, ``annealing.crooks``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from mulligan.core import Kernel, Law, Noise, NoisedScore
from mulligan.samplers.path import Path, at


class Annealed(NamedTuple):
    """``position`` x (d,) and ``log_weight``, the log of the weight so far."""

    position: Any
    log_weight: Float[Array, ""]


class AnnealingMove(NamedTuple):
    """Mean ``acceptance`` of the inner moves, ``log_density`` at the new β, ``divergent`` (share of the inner moves)."""

    acceptance: Float[Array, ""]
    log_density: Float[Array, ""]
    divergent: Float[Array, ""]


def log_increment(path: Any, before: Array, after: Array, x: Array) -> Float[Array, ""]:
    """log γ_after(x) − log γ_before(x); of a ``Path`` (after − before) f(x), which loses no digits to q.

    Where f is −∞ it is −∞ from β = 0 on, and 0 where both laws give nothing (such an x has weight 0 already).

    >>> path = Path(lambda x: -2.0 * x, lambda x: 0.0 * x)
    >>> float(log_increment(path, jnp.asarray(0.25), jnp.asarray(0.75), jnp.asarray(3.0)))
    -3.0
    """
    if isinstance(path, Path):
        f = path.f(x)
        rise = jnp.asarray(after, f.dtype) - jnp.asarray(before, f.dtype)
        out = jnp.isneginf(f)
        value = rise * jnp.where(out, 0.0, f)
        return jnp.where(out & (before == 0) & (after > 0), -jnp.inf, value)
    old, new = path.at(before)(x), path.at(after)(x)
    return jnp.where(jnp.isneginf(old) & jnp.isneginf(new), 0.0, new - old)


def reference_of(path: Any) -> Callable[[PRNGKeyArray], Array] | None:
    """How to draw from the path's beginning, key to x (d,): its own ``sample``, or that of its ``log_q``; else None.

    >>> from mulligan.samplers.path import StandardNormal
    >>> reference_of(Path(lambda x: x, StandardNormal(2)))(jax.random.key(0)).shape
    (2,)
    """
    if not isinstance(path, Path):
        return getattr(path, "sample", None)
    # a bound method speaks for its model only if it is that model's log density
    model = getattr(path.log_q, "__self__", None)
    if model is not None and getattr(path.log_q, "__name__", "") == "log_prob":
        return getattr(model, "sample", None)
    return getattr(path.log_q, "sample", None)


def backwards(kernel: Any) -> Any:
    """The time reversal of a kernel under its law: its own ``backwards``, or itself (a reversible kernel has none)."""
    turn = getattr(kernel, "backwards", None)
    return kernel if turn is None else turn()


class AnnealedImportance(Kernel):
    """One rung of annealed importance sampling, by any kernel that keeps its law; the weight is part of the state.

    Forward: log w += log γ_β(x) − log γ_β'(x), then ``moves`` moves at β. Reverse, from a draw of π_1 downward: the
    moves at β, reversed in time, then the same term; so w is the weight that the forward run would give to this path, and
    E_reverse[1/w] = Z_0/Z_1.

    Arguments: ``kernel``, whose ``log_density`` is a ``Path`` (or has its ``at``); ``reverse``; ``moves`` a rung. The input
    of a step is (β', β, step size or None), β' < β in either direction; ``schedule`` makes it.

    >>> from mulligan.samplers.gibbs import BlockGibbs, BoltzmannPath
    >>> machine = BoltzmannPath(jnp.eye(2), jnp.zeros(2), jnp.zeros(2))
    >>> kernel = AnnealedImportance(BlockGibbs(machine))
    >>> state = kernel.init(jax.random.key(0), jnp.ones(2))
    >>> after, info = kernel.step(jax.random.key(1), state, (jnp.asarray(0.0), jnp.asarray(1.0), None))
    >>> round(float(after.log_weight), 4)  # log γ_1(v) + 2 log 2
    4.0128
    """

    law: ClassVar[Law] = Law("none")
    kernel: Kernel
    reverse: bool = eqx.field(static=True, default=False)
    moves: int = eqx.field(static=True, default=1)

    def init(self, key: PRNGKeyArray, x: Any) -> Annealed:
        """Weight 1 at x: a draw of q, or of π_1 if ``reverse``."""
        return Annealed(x, jnp.zeros((), jax.tree.leaves(x)[0].dtype))

    def noise(self, key: PRNGKeyArray, state: Annealed) -> tuple[PRNGKeyArray, Noise]:
        """A key for the inner state, and the noise of the inner moves, stacked."""
        key_init, key_moves = jax.random.split(key)
        inner = self.kernel.init(key_init, state.position)
        return key_init, jax.vmap(self.kernel.noise, (0, None))(jax.random.split(key_moves, self.moves), inner)

    def move(self, state: Annealed, noise: tuple[PRNGKeyArray, Noise], input: Any) -> tuple[Annealed, AnnealingMove]:
        """One rung on (or back)."""
        before, after, step_size = input
        path: Any = self.kernel.log_density  # type: ignore[attr-defined]
        kernel = at(backwards(self.kernel) if self.reverse else self.kernel, after, step_size)
        weight = state.log_weight
        if not self.reverse:
            weight = weight + log_increment(path, before, after, state.position)
        position, info = inner_moves(kernel, state.position, *noise)
        if self.reverse:
            weight = weight + log_increment(path, before, after, position)
        return Annealed(position, weight), info


def inner_moves(kernel: Any, x: Any, key: PRNGKeyArray, noise: Noise) -> tuple[Any, AnnealingMove]:
    """The position after the moves whose noise is stacked, from a fresh state at x; acceptance is their mean."""

    def one(state: Any, noise: Noise) -> tuple[Any, Any]:
        state, info = kernel.move(state, noise, None)
        return state, (info.acceptance, info.log_density, info.divergent)

    state, (acceptance, log_density, divergent) = jax.lax.scan(one, kernel.init(key, x), noise)
    return state.position, AnnealingMove(jnp.mean(acceptance), log_density[-1], jnp.mean(divergent))


def schedule(betas: Any, step_sizes: Any = None, reverse: bool = False) -> tuple[Array, Array, Array | None]:
    """Inputs of ``AnnealedImportance`` for β_0 < … < β_K: (β_{k−1}, β_k, Δt_k), each (K,), downward if ``reverse``.

    ``step_sizes`` is one number, or (K,) or (K + 1,) numbers that go with β_1 … β_K (or β_0 … β_K); None leaves the
    kernel's own.

    >>> [a.tolist() for a in schedule([0.0, 0.5, 1.0], 0.1)]
    [[0.0, 0.5], [0.5, 1.0], [0.10000000149011612, 0.10000000149011612]]
    """
    betas = np.asarray(betas, float)
    turn = slice(None, None, -1 if reverse else 1)
    lower, upper = jnp.asarray(betas[:-1][turn]), jnp.asarray(betas[1:][turn])
    if step_sizes is None:
        return lower, upper, None
    sizes = np.asarray(step_sizes, float)
    sizes = np.full(len(betas) - 1, sizes) if sizes.ndim == 0 else sizes[len(sizes) - len(betas) + 1 :]
    return lower, upper, jnp.asarray(sizes[turn])


class Best(NamedTuple):
    """``position`` x (d,), and the ``best`` position so far with its negative energy ``best_value``."""

    position: Any
    best: Any
    best_value: Float[Array, ""]


class SimulatedAnnealing(Kernel):
    """Moves at the β of the input, and keeps the state of the highest f seen. An optimiser: no law is kept.

    π_β ∝ exp(β f) q; as β grows beyond 1 the mass gathers where f is largest. For the maximum of a density γ take
    ``Path(log γ, flat)``. Arguments: ``kernel``, whose ``log_density`` is a ``Path``. The input of a step is β, or (β, step
    size). ``geometric`` makes a schedule (Kirkpatrick, Gelatt and Vecchi 1983).

    >>> from mulligan.samplers.gibbs import Gibbs
    >>> kernel = SimulatedAnnealing(Gibbs(Path(lambda x: jnp.sum(x), flat), 2))
    >>> state = kernel.init(jax.random.key(0), jnp.zeros(3))
    >>> state, info = kernel.step(jax.random.key(1), state, jnp.asarray(50.0))
    >>> state.best.tolist(), float(state.best_value)
    ([1.0, 1.0, 1.0], 3.0)
    """

    law: ClassVar[Law] = Law("none")
    kernel: Kernel

    def init(self, key: PRNGKeyArray, x: Any) -> Best:
        """x is the best so far."""
        return Best(x, x, self.kernel.log_density.f(x))  # type: ignore[attr-defined]

    def noise(self, key: PRNGKeyArray, state: Best) -> tuple[PRNGKeyArray, Noise]:
        """A key for the inner state, and the noise of its move."""
        key_init, key_move = jax.random.split(key)
        inner = self.kernel.init(key_init, state.position)
        return key_init, jax.tree.map(lambda leaf: leaf[None], self.kernel.noise(key_move, inner))

    def move(self, state: Best, noise: tuple[PRNGKeyArray, Noise], input: Any) -> tuple[Best, AnnealingMove]:
        """One move at the input's β."""
        beta, step_size = input if isinstance(input, tuple) else (input, None)
        position, info = inner_moves(at(self.kernel, beta, step_size), state.position, *noise)
        value = self.kernel.log_density.f(position)  # type: ignore[attr-defined]
        better = value > state.best_value  # False for NaN
        best = jax.tree.map(lambda a, b: jnp.where(better, a, b), position, state.best)
        return Best(position, best, jnp.where(better, value, state.best_value)), info


def flat(x: Array) -> Float[Array, ""]:
    """0, the log density of no preference: the q of a search for a maximum.

    >>> float(flat(jnp.ones(3)))
    0.0
    """
    return jnp.zeros((), x.dtype)


def geometric(first: float, last: float, steps: int) -> np.ndarray:
    """β from ``first`` to ``last`` by equal factors, (steps,).

    >>> geometric(1.0, 100.0, 3).tolist()
    [1.0, 10.0, 100.0]
    """
    return np.geomspace(first, last, steps)


class Noised(NamedTuple):
    """``position`` x (d,)."""

    position: Float[Array, " d"]


class NoisedMove(NamedTuple):
    """``acceptance`` is 1 (nothing is rejected), ``log_density`` 0 (not known), ``divergent`` 0; ``score_norm`` is |s|."""

    acceptance: Float[Array, ""]
    log_density: Float[Array, ""]
    divergent: Float[Array, ""]
    score_norm: Float[Array, ""]


class AnnealedLangevin(Kernel):
    """x' = x + (Δt/2) s(x, t) + √Δt e, with (t, Δt) of the input: Langevin over falling noise levels (Song and Ermon 2019).

    Arguments: ``noised``, a ``NoisedScore``. ``noise_schedule`` makes the inputs. No law is claimed: at each level the
    chain only nears p_t.

    >>> class Normal(NoisedScore):
    ...     def score(self, x, t): return -x / (1 + t**2)
    >>> kernel = AnnealedLangevin(Normal())
    >>> state = kernel.init(None, jnp.ones(1))
    >>> kernel.move(state, jnp.zeros(1), (jnp.asarray(1.0), jnp.asarray(0.4)))[0].position.round(4).tolist()
    [0.8999999761581421]
    """

    law: ClassVar[Law] = Law("none")
    noised: NoisedScore

    def init(self, key: PRNGKeyArray | None, x: Array) -> Noised:
        """The state at x."""
        return Noised(x)

    def noise(self, key: PRNGKeyArray, state: Noised) -> Array:
        """Standard normals (d,)."""
        return jax.random.normal(key, state.position.shape, state.position.dtype)

    def move(self, state: Noised, noise: Array, input: tuple[Array, Array]) -> tuple[Noised, NoisedMove]:
        """One step at the input's noise level."""
        t, step_size = (jnp.asarray(item, noise.dtype) for item in input)
        score = self.noised.score(state.position, t)
        x = state.position + 0.5 * step_size * score + jnp.sqrt(step_size) * noise
        zero = jnp.zeros((), x.dtype)
        return Noised(x), NoisedMove(zero + 1, zero, zero, jnp.linalg.norm(score))


def noise_schedule(times: Any, sigmas: Any, steps: int, step_size: float) -> tuple[Array, Array]:
    """Inputs of ``AnnealedLangevin``: ``steps`` at each level, Δt = step_size σ²/σ_last², so each level moves alike.

    ``times`` (L,) are what the score takes, ``sigmas`` (L,) the noise there, falling.

    >>> [a.tolist() for a in noise_schedule([2.0, 1.0], [2.0, 1.0], 1, 0.5)]
    [[2.0, 1.0], [2.0, 0.5]]
    """
    times, sigmas = np.asarray(times, float), np.asarray(sigmas, float)
    sizes = step_size * (sigmas / sigmas[-1]) ** 2
    return jnp.asarray(np.repeat(times, steps)), jnp.asarray(np.repeat(sizes, steps))
