"""Kernels for discrete states: Gibbs, Gibbs with gradients, block Gibbs for the restricted Boltzmann machine.

Definition. A Gibbs move draws x_i from π(x_i | x_others) ∝ π(x), all its q values tried; a sweep does so for every site
(Geman and Geman 1984). Gibbs with gradients proposes one change (i, v) with probability ∝ exp(½ d_iv), d_iv the first
order change of log π, and accepts as Metropolis and Hastings do (Grathwohl et al. 2021). States are float vectors (n,)
with values 0 … q − 1, as in ``mulligan.targets.discrete``. Theory: chapters 3 and 7.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from mulligan.core import Kernel, Law
from mulligan.errors import UsageError
from mulligan.samplers.chance import chance
from mulligan.samplers.path import LogDensity
from mulligan.samplers.point import Point, accept


class Sites(NamedTuple):
    """``position`` x (n,) with values 0 … q − 1, and ``log_density`` log π(x) up to a constant."""

    position: Float[Array, " n"]
    log_density: Float[Array, ""]


class SiteMove(NamedTuple):
    """``acceptance`` (1 where nothing is rejected), ``log_density``, ``divergent`` (0 or 1: some log density was not a
    number, and the site stayed), ``moved`` (share of sites that changed)."""

    acceptance: Float[Array, ""]
    log_density: Float[Array, ""]
    divergent: Float[Array, ""]
    moved: Float[Array, ""]


def inverse_cdf(logits: Float[Array, " q"], u: Float[Array, ""]) -> Int[Array, ""]:
    """The value k with u in [P(<k), P(≤k)), for P = softmax(logits); never one of probability 0.

    >>> int(inverse_cdf(jnp.log(jnp.array([0.25, 0.75])), jnp.asarray(0.25)))
    1
    """
    if logits.size == 2:  # the same, in a third of the time
        return (u >= jax.nn.sigmoid(logits[0] - logits[1])).astype(jnp.int32)
    p = jax.nn.softmax(logits)
    last = logits.size - 1 - jnp.argmax((p > 0)[::-1])
    return jnp.minimum(jnp.sum(u >= jnp.cumsum(p)[:-1]), last)


def _legal(logits: Array) -> Array:
    """Whether a conditional law can be made of these: no NaN, no +∞, not all −∞; over the last axis."""
    return jnp.isfinite(jnp.max(logits, axis=-1)) & ~jnp.any(jnp.isnan(logits), axis=-1)


def _one_hot(x: Array, levels: int) -> Array:
    return (x[:, None] == jnp.arange(levels, dtype=x.dtype)).astype(x.dtype)


class Gibbs(Kernel):
    """One sweep of x_i ~ π(x_i | x_others), one uniform a site. Keeps π exactly.

    Arguments: ``log_density`` of x (n,) with values 0 … ``levels`` − 1; ``sites`` (k,) the sites to visit in that order
    (default: all, 0 … n − 1). A visit costs q values of ``log_density``.

    Faster, where it is true: ``colours`` (n ints; ``colouring`` makes them) says that sites of one colour are independent
    given the others; they are drawn together. ``affine`` says that log π is affine in each site's coding when the
    others are fixed (Ising, Boltzmann machine), so its gradient gives every conditional law at the cost of one.
    ``one_hot`` says that ``log_density`` takes x coded as (n, q). ``backward`` visits in the reverse order.

    >>> ising = lambda x: 0.5 * jnp.sum((2 * x[1:] - 1) * (2 * x[:-1] - 1))
    >>> kernel = Gibbs(ising, 2)
    >>> state = kernel.init(jax.random.key(0), jnp.zeros(3))
    >>> after, info = kernel.move(state, jnp.array([0.5, 0.99, 0.1]), None)
    >>> after.position.tolist(), round(float(after.log_density), 3)
    ([0.0, 1.0, 0.0], -1.0)
    """

    law: ClassVar[Law] = Law("exact")
    log_density: LogDensity
    levels: int = eqx.field(static=True)
    sites: Int[Array, " k"] | None = eqx.field(converter=lambda s: None if s is None else jnp.asarray(s), default=None)
    colours: tuple[int, ...] | None = eqx.field(static=True, default=None)
    affine: bool = eqx.field(static=True, default=False)
    one_hot: bool = eqx.field(static=True, default=False)
    backward: bool = eqx.field(static=True, default=False)

    def __check_init__(self) -> None:
        if self.colours is not None and self.sites is not None:
            raise UsageError("both sites and colours are given", "Gibbs", "either names the order of a sweep", "one")
        if self.affine and self.colours is None:
            raise UsageError("affine without colours", "Gibbs", "a gradient serves a whole colour", "colours=(0, 1, …)")

    def backwards(self) -> Gibbs:
        """The sweep in reverse order: its time reversal under π, since each visit is reversible."""
        return dataclasses.replace(self, backward=not self.backward)

    def init(self, key: PRNGKeyArray, x: Array) -> Sites:
        """The state at x (n,)."""
        return Sites(x, self._value(x))

    def noise(self, key: PRNGKeyArray, state: Sites) -> Array:
        """One uniform for each site (n,)."""
        return chance(key, 0, state.position.size, state.position.dtype)[1]

    def move(self, state: Sites, noise: Array, input: Any) -> tuple[Sites, SiteMove]:
        """One sweep."""
        sweep = self._by_site if self.colours is None else self._by_colour
        x, log_density, bad = sweep(state, noise)
        moved = jnp.mean((x != state.position).astype(x.dtype))
        one = jnp.ones((), x.dtype)
        return Sites(x, log_density), SiteMove(one, log_density, bad.astype(x.dtype), moved)

    def _value(self, x: Array) -> Array:
        return self.log_density(_one_hot(x, self.levels) if self.one_hot else x)

    def _by_site(self, state: Sites, uniforms: Array) -> tuple[Array, Array, Array]:
        values = jnp.arange(self.levels, dtype=state.position.dtype)
        order = jnp.arange(state.position.size) if self.sites is None else self.sites

        def visit(carry: tuple[Array, Array, Array], site: Array) -> tuple[tuple[Array, Array, Array], None]:
            x, log_density, bad = carry
            logits = jax.vmap(lambda v: self._value(x.at[site].set(v)))(values)
            legal = _legal(logits)
            k = inverse_cdf(logits, uniforms[site])
            x = x.at[site].set(jnp.where(legal, values[k], x[site]))
            return (x, jnp.where(legal, logits[k], log_density), bad | ~legal), None

        start = (state.position, state.log_density, jnp.asarray(False))
        return jax.lax.scan(visit, start, order[::-1] if self.backward else order)[0]

    def _by_colour(self, state: Sites, uniforms: Array) -> tuple[Array, Array, Array]:
        colour = jnp.asarray(self.colours)
        order = jnp.arange(max(self.colours or ()) + 1)

        def visit(carry: tuple[Array, Array], one: Array) -> tuple[tuple[Array, Array], None]:
            x, bad = carry
            logits = self._conditionals(x)
            legal, mine = _legal(logits), colour == one
            k = jax.vmap(inverse_cdf)(logits, uniforms).astype(x.dtype)
            return (jnp.where(mine & legal, k, x), bad | jnp.any(mine & ~legal)), None

        start = (state.position, jnp.asarray(False))
        (x, bad), _ = jax.lax.scan(visit, start, order[::-1] if self.backward else order)
        return x, self._value(x), bad

    def _conditionals(self, x: Array) -> Float[Array, "n q"]:
        """log π(x_i = v, x_others) up to a constant of i."""
        values = jnp.arange(self.levels, dtype=x.dtype)
        if self.affine:
            return _first_order(self.log_density, x, self.levels, self.one_hot)[1]
        sites = jnp.arange(x.size)
        return jax.vmap(lambda i: jax.vmap(lambda v: self._value(x.at[i].set(v)))(values))(sites)


def _first_order(log_density: LogDensity, x: Array, levels: int, one_hot: bool) -> tuple[Array, Array]:
    """log π(x), and its first-order change (n, q) on setting site i to v."""
    if one_hot:
        coded = _one_hot(x, levels)
        value, gradient = jax.value_and_grad(log_density)(coded)
        return value, gradient - jnp.sum(gradient * coded, axis=1, keepdims=True)
    value, gradient = jax.value_and_grad(log_density)(x)
    return value, (jnp.arange(levels, dtype=x.dtype) - x[:, None]) * gradient[:, None]


def colouring(edges: Iterable[tuple[int, int]], sites: int) -> tuple[int, ...]:
    """A colour for each site such that neighbours differ, greedily in order; two colours on a lattice of even sides.

    >>> colouring([(0, 1), (1, 2), (2, 3), (0, 3)], 4)
    (0, 1, 0, 1)
    """
    near: list[set[int]] = [set() for _ in range(sites)]
    for i, j in edges:
        near[i].add(j)
        near[j].add(i)
    colours: list[int] = []
    for site in range(sites):
        taken = {colours[other] for other in near[site] if other < site}
        colours.append(next(c for c in range(sites) if c not in taken))
    return tuple(colours)


class GibbsWithGradients(Kernel):
    """One change x_i → v, proposed by the gradient and accepted as Metropolis and Hastings do. Keeps π exactly.

    q(i, v | x) ∝ exp(½ d_iv) over v ≠ x_i, with d_iv = (v − x_i) ∂_i log π(x), or ∂_iv − ∂_{i,x_i} where ``log_density``
    takes x coded as (n, q) (``one_hot``); log α = log π(x') − log π(x) + log q(x | x') − log q(x' | x) (Grathwohl et al.
    2021, algorithm 1). One change is a step: use ``Thinned`` for more. Where the gradient says nothing (it is 0) this is
    Metropolis with a uniform proposal: still exact.

    Arguments: ``log_density``, differentiable in its coding; ``levels`` q.

    >>> kernel = GibbsWithGradients(lambda x: jnp.sum(x * jnp.array([1.0, -1.0])), 2)
    >>> state = kernel.init(jax.random.key(0), jnp.zeros(2))
    >>> after, info = kernel.move(state, (jnp.asarray(0.1), jnp.asarray(0.9)), None)
    >>> after.position.tolist(), float(info.acceptance)
    ([1.0, 0.0], 1.0)
    """

    law: ClassVar[Law] = Law("exact")
    log_density: LogDensity
    levels: int = eqx.field(static=True)
    one_hot: bool = eqx.field(static=True, default=False)

    def init(self, key: PRNGKeyArray, x: Array) -> Point:
        """The state at x (n,); its ``score`` is the first-order change (n, q)."""
        return Point(x, *_first_order(self.log_density, x, self.levels, self.one_hot))

    def noise(self, key: PRNGKeyArray, state: Point) -> tuple[Array, Array]:
        """A uniform for the proposal, one for its acceptance."""
        u = jax.random.uniform(key, (2,), state.position.dtype)
        return u[0], u[1]

    def move(self, state: Point, noise: tuple[Array, Array], input: Any) -> tuple[Point, SiteMove]:
        """Propose, accept or stay."""
        propose, decide = noise
        x = state.position
        chosen = inverse_cdf(self._proposal(state), propose)
        site, value = chosen // self.levels, (chosen % self.levels).astype(x.dtype)
        other = self.init(jax.random.key(0), x.at[site].set(value))  # init draws nothing
        there = jax.nn.log_softmax(self._proposal(state))[chosen]
        back = jax.nn.log_softmax(self._proposal(other))[site * self.levels + x[site].astype(chosen.dtype)]
        probability, divergent = accept(other.log_density - state.log_density + back - there)
        accepted = decide < probability
        after = jax.tree.map(lambda a, b: jnp.where(accepted, a, b), other, state)
        moved = accepted.astype(x.dtype) / x.size
        return after, SiteMove(probability, after.log_density, divergent.astype(x.dtype), moved)

    def _proposal(self, state: Point) -> Float[Array, " n*q"]:
        own = _one_hot(state.position, self.levels) > 0
        return jnp.where(own, -jnp.inf, 0.5 * state.score).reshape(-1)


class BoltzmannPath(eqx.Module):
    """v ↦ log γ_β(v) of a restricted Boltzmann machine: the path of its joint law with the hidden units summed out.

    γ_β(v, h) = exp(β (vᵀWh + bᵀv + cᵀh)) (q(v) 2^{−m})^{1−β} with q(v) = Π Bernoulli(σ(base)), hence
    log γ_β(v) = β bᵀv + (1 − β)(log q(v) − m log 2) + Σ_j softplus(β (c + Wᵀv)_j)
    (Salakhutdinov and Murray 2008). Z_0 = 1, and Z_1 = Σ_{v,h} exp(vᵀWh + bᵀv + cᵀh). The path of the joint law, and not
    β times the free energy, is what keeps the units of a layer independent given the other at every β.

    Arguments: ``W`` (n, m), ``b`` (n,), ``c`` (m,), ``base`` (n,) log odds of the reference (default 0: uniform), ``beta``.

    >>> path = BoltzmannPath(jnp.ones((2, 3)), jnp.zeros(2), jnp.zeros(3))
    >>> round(float(path.at(0.0)(jnp.ones(2))), 4), round(float(path(jnp.zeros(2))), 4)
    (-1.3863, 2.0794)
    """

    W: Float[Array, "n m"] = eqx.field(converter=jnp.asarray)
    b: Float[Array, " n"] = eqx.field(converter=jnp.asarray)
    c: Float[Array, " m"] = eqx.field(converter=jnp.asarray)
    base: Float[Array, " n"] = eqx.field(converter=jnp.asarray, default=0.0)
    beta: Float[Array, ""] = eqx.field(converter=jnp.asarray, default=1.0)

    def __call__(self, v: Float[Array, " n"]) -> Float[Array, ""]:
        beta, base = jnp.asarray(self.beta, v.dtype), jnp.broadcast_to(self.base, v.shape)
        log_q = v @ base - jnp.sum(jax.nn.softplus(base)) - self.c.size * jnp.log(2.0).astype(v.dtype)
        return beta * (v @ self.b) + (1 - beta) * log_q + jnp.sum(jax.nn.softplus(beta * (self.c + v @ self.W)))

    def at(self, beta: Any) -> BoltzmannPath:
        """The same path at another inverse temperature."""
        return dataclasses.replace(self, beta=beta)

    def hidden(self, v: Array) -> Float[Array, " m"]:
        """Log odds of each h_j given v."""
        return self.beta * (self.c + v @ self.W)

    def visible(self, h: Array) -> Float[Array, " n"]:
        """Log odds of each v_i given h."""
        return self.beta * (self.b + self.W @ h) + (1 - self.beta) * self.base

    def sample(self, key: PRNGKeyArray) -> Float[Array, " n"]:
        """One draw v (n,) of the reference q, where the path begins."""
        odds = jnp.broadcast_to(self.base, self.b.shape)
        return (jax.random.uniform(key, self.b.shape, self.b.dtype) < jax.nn.sigmoid(odds)).astype(self.b.dtype)


class BlockGibbs(Kernel):
    """h ~ γ_β(h | v), then v ~ γ_β(v | h): one step of v, which is reversible and keeps γ_β(v) exactly.

    Argument: ``log_density``, a ``BoltzmannPath`` (at β = 1, the machine itself). The state is v; h is forgotten.

    >>> machine = BoltzmannPath(jnp.eye(2), jnp.zeros(2), jnp.zeros(2))
    >>> kernel = BlockGibbs(machine)
    >>> state = kernel.init(jax.random.key(0), jnp.ones(2))
    >>> kernel.move(state, (jnp.array([0.7, 0.8]), jnp.array([0.7, 0.6])), None)[0].position.tolist()
    [1.0, 0.0]
    """

    law: ClassVar[Law] = Law("exact")
    log_density: BoltzmannPath

    def init(self, key: PRNGKeyArray, x: Array) -> Sites:
        """The state at v = x (n,)."""
        return Sites(x, self.log_density(x))

    def noise(self, key: PRNGKeyArray, state: Sites) -> tuple[Array, Array]:
        """A uniform for each hidden unit (m,) and for each visible one (n,)."""
        n, m = state.position.size, self.log_density.c.size
        u = chance(key, 0, m + n, state.position.dtype)[1]
        return u[:m], u[m:]

    def move(self, state: Sites, noise: tuple[Array, Array], input: Any) -> tuple[Sites, SiteMove]:
        """Hidden units, then visible ones."""
        v, machine = state.position, self.log_density
        h = (noise[0] < jax.nn.sigmoid(machine.hidden(v))).astype(v.dtype)
        odds = machine.visible(h)
        bad = jnp.any(jnp.isnan(odds)) | jnp.any(jnp.isnan(machine.hidden(v)))
        new = jnp.where(bad, v, (noise[1] < jax.nn.sigmoid(odds)).astype(v.dtype))
        after = self.init(jax.random.key(0), new)  # init draws nothing
        moved = jnp.mean((new != v).astype(v.dtype))
        return after, SiteMove(jnp.ones((), v.dtype), after.log_density, bad.astype(v.dtype), moved)
