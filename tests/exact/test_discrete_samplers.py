"""Discrete kernels, exactly: transition matrices found from ``move`` itself, by bisection for the places where its
result changes with a uniform. Detailed balance entry by entry, πP = π for what is composed; 1e-9 in float64.

Every broken twin in tests/saboteurs/discrete.py must be rejected.
"""

from __future__ import annotations

import functools
import itertools
from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from saboteurs import discrete as twins

from mulligan.core import Law
from mulligan.errors import UsageError
from mulligan.loop import compile_small, repeat
from mulligan.samplers.gibbs import BlockGibbs, BoltzmannPath, Gibbs, GibbsWithGradients, colouring, inverse_cdf
from mulligan.samplers.many import Many, law_of
from mulligan.samplers.path import Path, at
from mulligan.samplers.reference import EvenStates
from mulligan.samplers.tempering import ParallelTempering, Replicas, exchange, swap_probability
from mulligan.targets.discrete import neighbours, states
from mulligan.targets.transfer import Lattice

TOLERANCE = 1e-9
LAST = np.nextafter(1.0, 0.0)


@pytest.fixture(autouse=True)
def double():
    with jax.enable_x64(True):
        yield


class Table(eqx.Module):
    """Any log density on q^n states: a table. Not affine in anything."""

    values: jax.Array
    levels: int = eqx.field(static=True)
    sites: int = eqx.field(static=True)

    def __call__(self, x):
        powers = self.levels ** jnp.arange(self.sites - 1, -1, -1)
        return self.values[jnp.sum(x.astype(int) * powers)]


class Pairs(eqx.Module):
    """Σ θ_iv o_iv + Σ_i o_i J_i o_{i+1} of one-hot states (n, q): a chain, affine in each site."""

    theta: jax.Array
    coupling: jax.Array

    def __call__(self, o):
        return jnp.sum(self.theta * o) + jnp.einsum("iu,iuv,iv->", o[:-1], self.coupling, o[1:])


class Chain(eqx.Module):
    """The same in float coding, binary."""

    field: jax.Array
    coupling: jax.Array

    def __call__(self, x):
        return x @ self.field + jnp.sum(self.coupling * x[:-1] * x[1:])


class Smooth(eqx.Module):
    """Nothing is affine: Σ sin(a x) + softplus(x·w), differentiable in the float coding of any q."""

    w: jax.Array

    def __call__(self, x):
        return jnp.sum(jnp.sin(self.w * x)) + jax.nn.softplus(2 * x @ self.w) + 0.3 * x[0] * x[-1]


@compile_small
def each(function, x):
    """A function of one state, of all of them."""
    return jax.vmap(function)(x)


def numbers(*shape, seed=0):
    return jnp.asarray(np.random.default_rng([seed, *shape]).normal(size=shape))


def every(levels, sites):
    return states(0, levels**sites, levels, sites).astype(float)


def code(x, levels):
    return (np.asarray(x) @ levels ** np.arange(np.shape(x)[-1] - 1, -1, -1)).astype(int)


def breakpoints(reached, shape, falling=False):
    """Smallest u in [0, 1) from which ``reached(u)`` is true (false, if ``falling``), elementwise; 1 if it never is."""
    low, high = np.full(shape, -1e-18), np.ones(shape)
    for _ in range(60):
        middle = 0.5 * (low + high)
        yes = np.asarray(reached(np.clip(middle, 0.0, LAST))) != falling
        low, high = np.where(yes, low, middle), np.where(yes, middle, high)
    return high


def law_of_states(log_p):
    p = np.exp(np.asarray(log_p) - np.max(log_p))
    return p / p.sum()


def imbalance(pi, transition):
    flow = pi[:, None] * transition
    return np.abs(flow - flow.T).max()


def drift(pi, transition):
    return np.abs(pi @ transition - pi).max()


def rows_add_up(transition):
    return np.abs(transition.sum(axis=1) - 1).max()


# --- Gibbs: one visit -------------------------------------------------------------------------------------------------

MODELS = {
    "table, binary": lambda: (Gibbs(Table(numbers(8), 2, 3), 2), 3),
    "table, three values": lambda: (Gibbs(Table(numbers(9), 3, 2), 3), 2),
    "path at β": lambda: (Gibbs(Path(Table(2 * numbers(8, seed=1), 2, 3), Table(numbers(8), 2, 3), 0.3), 2), 3),
    "one-hot": lambda: (Gibbs(Pairs(numbers(2, 3), numbers(1, 3, 3)), 3, one_hot=True), 2),
}


def value_of(kernel):
    return np.asarray(each(kernel._value, jnp.asarray(every(kernel.levels, SITES_OF[id(kernel)]))))


SITES_OF: dict[int, int] = {}


@functools.lru_cache(maxsize=16)
def model(name):
    kernel, sites = MODELS[name]()
    SITES_OF[id(kernel)] = sites
    return kernel, sites


def visit_matrix(kernel, sites, site, move=None):
    """P (S, S) of a visit to one site, from the places where the result changes with its uniform."""
    move = move or (lambda kernel, state, noise: kernel.move(state, noise, None))
    alone = eqx.tree_at(lambda k: k.sites, kernel, jnp.asarray([site]), is_leaf=lambda leaf: leaf is None)
    levels, x = kernel.levels, every(kernel.levels, sites)

    @compile_small
    def after(x, u):
        one = lambda x, u: move(alone, alone.init(None, x), jnp.full(sites, 0.5).at[site].set(u))[0].position  # noqa: E731
        return jax.vmap(lambda x, u: jax.vmap(lambda u: one(x, u))(u))(x, u)

    wanted = np.arange(1, levels)
    found = breakpoints(lambda u: np.asarray(after(x, u))[:, :, site] >= wanted, (len(x), levels - 1))
    edges = np.concatenate([np.zeros((len(x), 1)), found, np.ones((len(x), 1))], axis=1)
    transition = np.zeros((len(x), len(x)))
    for v, p in enumerate(np.diff(edges, axis=1).T):
        middle = np.clip(0.5 * (edges[:, v] + edges[:, v + 1]), 0.0, LAST)
        went = code(np.asarray(after(x, middle[:, None]))[:, 0], levels)
        np.add.at(transition, (np.arange(len(x)), went), p)
    return transition


@functools.lru_cache(maxsize=16)
def visits(name):
    kernel, sites = model(name)
    return [visit_matrix(kernel, sites, site) for site in range(sites)]


@pytest.mark.parametrize("name", MODELS)
def test_visits_are_in_detailed_balance_and_sweeps_keep_the_law(name):
    kernel, _ = model(name)
    pi = law_of_states(value_of(kernel))
    alone = visits(name)
    for p in alone:
        assert rows_add_up(p) < TOLERANCE
        assert imbalance(pi, p) < TOLERANCE
        assert np.abs(np.diagonal(p) - 1).max() > 0.05, "it moves"
    sweep = functools.reduce(np.matmul, alone)
    assert drift(pi, sweep) < TOLERANCE and imbalance(pi, sweep) > 1e-4  # a sweep in order is not reversible …
    back = functools.reduce(np.matmul, alone[::-1])
    assert np.abs(pi[:, None] * sweep - (pi[:, None] * back).T).max() < TOLERANCE  # … its reverse is its time reversal
    assert np.linalg.matrix_power(sweep, 200).min() > 0, "every state is reached"


@pytest.mark.parametrize("name", MODELS)
def test_a_sweep_is_its_visits_in_order(name, seed):
    kernel, sites = model(name)
    x = jnp.asarray(every(kernel.levels, sites))
    u = jnp.asarray(np.random.default_rng(seed).uniform(size=(len(x), sites)))

    visit = jax.jit(
        lambda state, sites, u: Gibbs(kernel.log_density, kernel.levels, sites, one_hot=kernel.one_hot).move(
            state, u, None
        )[0]
    )

    @compile_small
    def both(x, u):
        def one(x, u):
            forward = kernel.move(kernel.init(None, x), u, None)[0]
            backward = kernel.backwards().move(kernel.init(None, x), u, None)[0]
            ends = []
            for order in (range(sites), reversed(range(sites))):
                state = kernel.init(None, x)
                for site in order:
                    state = visit(state, jnp.asarray([site]), u)
                ends.append(state)
            return (forward, backward), tuple(ends)

        return jax.vmap(one)(x, u)

    ours, apart = both(x, u)
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(apart)):
        np.testing.assert_allclose(a, b, atol=1e-12)


@pytest.mark.parametrize("twin", twins.VISITS, ids=lambda twin: twin.__name__)
def test_broken_visits_are_seen(twin):
    kernel, sites = model("table, three values")
    p = visit_matrix(kernel, sites, 0, twins.visit_of(twin))
    pi = law_of_states(value_of(kernel))
    assert imbalance(pi, p) > 1e-3 or np.abs(np.diagonal(p) - 1).max() < 0.05


# --- Gibbs: colours ---------------------------------------------------------------------------------------------------

COLOURED = {
    "affine": lambda: Gibbs(Chain(numbers(3), numbers(2)), 2, colours=(0, 1, 0), affine=True),
    "by evaluation": lambda: Gibbs(Chain(numbers(3), numbers(2)), 2, colours=(0, 1, 0)),
    "affine, one-hot": lambda: Gibbs(
        Pairs(numbers(3, 3), numbers(2, 3, 3)), 3, colours=(0, 1, 0), affine=True, one_hot=True
    ),
}


@pytest.mark.parametrize("name", COLOURED)
def test_colours_are_the_visits_of_their_sites(name, seed):
    kernel = COLOURED[name]()
    x = jnp.asarray(every(kernel.levels, 3))
    u = jnp.asarray(np.random.default_rng(seed).uniform(size=(len(x), 3)))
    in_order = Gibbs(kernel.log_density, kernel.levels, jnp.asarray([0, 2, 1]), one_hot=kernel.one_hot)

    @compile_small
    def both(x, u):
        move = lambda k: jax.vmap(lambda x, u: k.move(k.init(None, x), u, None))(x, u)  # noqa: E731
        return move(kernel), move(in_order), move(kernel.backwards()), move(in_order.backwards())

    together, apart, back, back_apart = both(x, u)
    for a, b in zip(jax.tree.leaves((together, back)), jax.tree.leaves((apart, back_apart))):
        np.testing.assert_allclose(a, b, atol=1e-12)


def test_a_lattice_is_affine_and_even_sides_have_two_colours():
    lattice = Lattice((4, 4), 0.4, periodic=True)
    colours = colouring(lattice.edges, 16)
    assert max(colours) == 1 and all(colours[i] != colours[j] for i, j in lattice.edges)
    odd = colouring(neighbours((3, 3), True), 9)
    assert all(odd[i] != odd[j] for i, j in neighbours((3, 3), True))
    x = jnp.asarray(np.random.default_rng(0).integers(0, 2, (50, 16)).astype(float))
    kernel = Gibbs(lattice, 2, colours=colours, affine=True)
    slow = Gibbs(lattice, 2, colours=colours)
    quick, evaluated = (np.diff(each(k._conditionals, x), axis=2) for k in (kernel, slow))
    np.testing.assert_allclose(quick, evaluated, atol=1e-12)


def test_impossible_values_are_never_drawn_and_nan_stays():
    logits = jnp.log(jnp.asarray([0.0, 0.3, 0.7, 0.0]))
    pick = compile_small(jax.vmap(lambda u: inverse_cdf(logits, u)))
    assert pick(jnp.asarray([0.0, 0.29, 0.31, LAST])).tolist() == [1, 1, 2, 2]
    one = compile_small(jax.vmap(lambda u: inverse_cdf(jnp.asarray([0.0, -jnp.inf]), u)))
    assert one(jnp.asarray([0.0, LAST])).tolist() == [0, 0]
    kernel = Gibbs(Table(jnp.asarray([0.0, 0.0, jnp.nan, 0.0]), 2, 2), 2)  # state (1, 0) has no log density
    state, info = kernel.move(kernel.init(None, jnp.zeros(2)), jnp.asarray([0.9, 0.9]), None)
    assert float(info.divergent) == 1.0 and state.position.tolist() == [0.0, 1.0]
    with pytest.raises(UsageError, match="affine without colours"):
        Gibbs(Table(numbers(4), 2, 2), 2, affine=True)


# --- Gibbs with gradients ---------------------------------------------------------------------------------------------

GRADIENTS = {
    "binary": lambda: (GibbsWithGradients(Smooth(numbers(3)), 2), 3),
    "three values": lambda: (GibbsWithGradients(Smooth(numbers(2)), 3), 2),
    "one-hot": lambda: (GibbsWithGradients(Pairs(numbers(2, 3), numbers(1, 3, 3)), 3, one_hot=True), 2),
    "no gradient": lambda: (GibbsWithGradients(Table(numbers(8), 2, 3), 2), 3),
    "path at β": lambda: (GibbsWithGradients(Path(Smooth(numbers(3)), EvenStates(2, 3), 0.4), 2), 3),
}


def informed_matrix(kernel, sites, move):
    """P of one proposed change: the proposal's breakpoints with the decision at 0, then the decision's own."""
    levels, x = kernel.levels, every(kernel.levels, sites)
    count, width = len(x), sites * levels

    @compile_small
    def after(x, u, v):
        def one(x, u, v):
            state = kernel.init(None, x)
            return move(kernel, state, (u, v))[0].position

        return jax.vmap(lambda x, u, v: jax.vmap(lambda u, v: one(x, u, v))(u, v))(x, u, v)

    def chosen(ends):
        """(site, value) as one number, from where the move went; nothing accepted at decision 0 counts as the first."""
        changed = np.asarray(ends) != x[:, None]
        site = changed.argmax(axis=2)
        value = np.take_along_axis(np.asarray(ends), site[:, :, None], 2)[:, :, 0]
        return np.where(changed.any(axis=2), site * levels + value, 0)

    wanted = np.arange(1, width)
    zeros = np.zeros((count, width - 1))
    found = breakpoints(lambda u: chosen(after(x, u, zeros)) >= wanted, (count, width - 1))
    edges = np.concatenate([np.zeros((count, 1)), found, np.ones((count, 1))], axis=1)
    middles = np.clip(0.5 * (edges[:, :-1] + edges[:, 1:]), 0.0, LAST)
    share = np.diff(edges, axis=1)
    stays = lambda v: (np.asarray(after(x, middles, v)) == x[:, None]).all(axis=2)  # noqa: E731
    accepted = breakpoints(stays, (count, width))
    ends = code(np.asarray(after(x, middles, np.zeros((count, width)))), levels)
    transition = np.zeros((count, count))
    rows = np.repeat(np.arange(count), width).reshape(count, width)
    np.add.at(transition, (rows, ends), share * accepted)
    np.add.at(transition, (rows, rows), share * (1 - accepted))
    return transition


@pytest.mark.parametrize("name", GRADIENTS)
def test_gibbs_with_gradients_is_in_detailed_balance(name):
    kernel, sites = GRADIENTS[name]()
    x = every(kernel.levels, sites)
    coded = (x[:, :, None] == np.arange(kernel.levels)).astype(float) if kernel.one_hot else x
    pi = law_of_states(each(kernel.log_density, jnp.asarray(coded)))
    p = informed_matrix(kernel, sites, lambda kernel, state, noise: kernel.move(state, noise, None))
    assert rows_add_up(p) < TOLERANCE and imbalance(pi, p) < TOLERANCE
    assert np.linalg.matrix_power(p, 500).min() > 0 and np.diagonal(p).max() < 0.99


@pytest.mark.parametrize("fault", twins.INFORMED)
def test_broken_gradient_moves_are_seen(fault):
    kernel, sites = GRADIENTS["three values"]()
    pi = law_of_states(each(kernel.log_density, jnp.asarray(every(3, 2))))
    assert imbalance(pi, informed_matrix(kernel, sites, twins.informed(fault))) > 1e-3


def test_gradient_proposals_follow_the_first_order_change():
    kernel, sites = GRADIENTS["one-hot"]()
    x = jnp.asarray([1.0, 2.0])
    changed = jnp.stack([x.at[i].set(v) for i in range(sites) for v in range(3)])
    states_at = each(partial(kernel.init, None), jnp.concatenate([changed, x[None]]))
    f = states_at.log_density
    # this model is affine in each site, so first order is all there is
    np.testing.assert_allclose(states_at.score[-1], (f[:-1] - f[-1]).reshape(sites, 3), atol=1e-12)


# --- block Gibbs ------------------------------------------------------------------------------------------------------


def machine(beta, base=True):
    return BoltzmannPath(numbers(3, 2), numbers(3), numbers(2), numbers(3, seed=1) if base else 0.0, beta)


def block_matrix(path):
    """P(v, v') = Σ_h P(h | v) P(v' | h) from the log odds that ``move`` compares its uniforms with."""
    v, h = every(2, 3), every(2, 2)
    up, down = (np.asarray(each(f, jnp.asarray(x))) for f, x in ((path.hidden, v), (path.visible, h)))
    bernoulli = lambda odds, x: np.exp(-(np.logaddexp(0.0, np.where(x[None] > 0, -1, 1) * odds[:, None])).sum(-1))  # noqa: E731
    return bernoulli(up, h) @ bernoulli(down, v)


@pytest.mark.parametrize("beta", [0.0, 0.3, 1.0])
def test_block_gibbs_is_in_detailed_balance_with_the_free_energy(beta):
    path = machine(beta)
    log_p = np.asarray(each(path, jnp.asarray(every(2, 3))))
    p = block_matrix(path)
    assert rows_add_up(p) < TOLERANCE and imbalance(law_of_states(log_p), p) < TOLERANCE
    if beta == 0:
        assert abs(np.log(np.exp(log_p).sum())) < TOLERANCE
    forgotten = BoltzmannPath(path.W, path.b, path.c, path.base, 0.5)
    if beta == 0.3:
        assert imbalance(law_of_states(log_p), block_matrix(forgotten)) > 1e-3


def test_the_boltzmann_path_is_the_joint_law_summed(key):
    w, b, c = (np.asarray(a) for a in (numbers(3, 2), numbers(3), numbers(2)))
    for beta in (0.0, 0.3, 1.0):
        path = machine(beta)
        ours = each(path, jnp.asarray(every(2, 3)))
        for v, found in zip(every(2, 3), ours):
            log_q = v @ np.asarray(path.base) - np.logaddexp(0, np.asarray(path.base)).sum() - 2 * np.log(2)
            joint = [beta * (v @ w @ h + b @ v + c @ h) + (1 - beta) * log_q for h in every(2, 2)]
            np.testing.assert_allclose(found, np.logaddexp.reduce(joint), atol=1e-12)
    # the draws of its reference are those of q
    draws = np.asarray(each(machine(1.0).sample, jax.random.split(key, 25_000)))
    p = 1 / (1 + np.exp(-np.asarray(path.base)))
    assert np.all(np.abs(draws.mean(0) - p) < 4.75 * np.sqrt(p * (1 - p) / 25_000))


@pytest.mark.parametrize("beta", [0.4, 1.0])
def test_block_gibbs_compares_its_uniforms_with_those_log_odds(beta):
    kernel = BlockGibbs(machine(beta))
    path, v = kernel.log_density, every(2, 3)

    @compile_small
    def after(v, u_h, u_v):
        return jax.vmap(lambda v, a, b: kernel.move(kernel.init(None, v), (a, b), None)[0].position)(v, u_h, u_v)

    logistic = lambda odds: 1 / (1 + np.exp(-np.asarray(odds)))  # noqa: E731
    odds_v = each(path.visible, jnp.asarray([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]]))
    ends = logistic(odds_v)
    off = np.ones((8, 2)) * LAST
    for i in range(3):  # all hidden units off: the threshold of v_i
        found = breakpoints(partial(_visible_on, after, v, off, i), (8,), falling=True)
        np.testing.assert_allclose(found, ends[0, i], atol=TOLERANCE)
    for j in range(2):  # u_v between the thresholds of h_j on and off: v_0 shows h_j
        between = np.full((8, 3), 0.5 * (ends[0, 0] + ends[1 + j, 0]))
        found = breakpoints(partial(_shows, after, v, off, between, j), (8,))
        np.testing.assert_allclose(found, logistic(each(path.hidden, jnp.asarray(v)))[:, j], atol=TOLERANCE)


def _visible_on(after, v, off, i, u):
    uniforms = np.full((8, 3), 0.5)
    uniforms[:, i] = u
    return np.asarray(after(v, off, uniforms))[:, i] == 1


def _shows(after, v, off, between, j, u):
    """Whether v_0 is what it is with all hidden units off, so h_j is off."""
    uniforms = off.copy()
    uniforms[:, j] = u
    return np.asarray(after(v, uniforms, between))[:, 0] == np.asarray(after(v, off, between))[:, 0]


# --- tempering --------------------------------------------------------------------------------------------------------

LADDER = np.array([0.0, 0.4, 1.0])


def tempered_path(kind):
    if kind == "boltzmann":
        return BoltzmannPath(numbers(2, 2), numbers(2), numbers(2), numbers(2, seed=1))
    return Path(Table(2 * numbers(4, seed=1), 2, 2), Table(numbers(4), 2, 2))


def product_law(path):
    x = jnp.asarray(every(2, 2))
    rungs = [law_of_states(each(path.at(beta), x)) for beta in LADDER]
    return np.einsum("i,j,k->ijk", *rungs).reshape(-1)


def swap_matrix(path, odd, probability):
    """P on 4³ product states of the pairs of one parity, from where ``exchange`` begins to leave the positions."""
    x = every(2, 2)
    all_states = np.array(list(itertools.product(range(4), repeat=3)))
    positions = x[all_states]
    count = len(all_states)

    @compile_small
    def after(positions, u):
        def one(positions, u):
            ids = jnp.arange(3, dtype=jnp.int32)
            state = Replicas(positions, ids, 0 * ids, 0 * ids, jnp.asarray(odd, jnp.int32))
            done = exchange(state, probability(path, LADDER, positions), u)
            return done.positions, done.replicas

        return jax.vmap(one)(positions, u)

    pair = odd  # with three rungs each parity is one pair
    u_of = lambda x: np.insert(np.full((count, 1), 0.5), pair, x, axis=1)  # noqa: E731
    stays = lambda x: np.asarray(after(positions, u_of(x))[1])[:, pair] == pair  # noqa: E731
    found = breakpoints(stays, (count,))
    swapped = np.asarray(after(positions, u_of(np.zeros(count)))[0])
    index = code(swapped, 2) @ np.array([16, 4, 1])
    transition = np.zeros((count, count))
    np.add.at(transition, (np.arange(count), index), found)
    np.add.at(transition, (np.arange(count), np.arange(count)), 1 - found)
    return transition


@pytest.mark.parametrize("kind", ["linear", "boltzmann"])
def test_exchanges_are_in_detailed_balance_and_tempering_keeps_the_product(kind):
    path = tempered_path(kind)
    pi = product_law(path)
    even, odd = (swap_matrix(path, parity, swap_probability) for parity in (0, 1))
    for p in (even, odd):
        assert rows_add_up(p) < TOLERANCE and imbalance(pi, p) < TOLERANCE
        assert np.diagonal(p).min() < 0.2, "it exchanges"
    inner = np.eye(1)
    for beta in LADDER:  # moves at each rung, side by side
        if kind == "boltzmann":
            rung = block_of(path.at(beta))
        else:
            kernel = Gibbs(path.at(beta), 2)
            rung = visit_matrix(kernel, 2, 0) @ visit_matrix(kernel, 2, 1)
        inner = np.kron(inner, rung)
    whole = inner @ even @ inner @ odd
    assert drift(pi, whole) < TOLERANCE
    assert np.linalg.matrix_power(whole, 300).min() > 0


def block_of(path):
    v, h = every(2, 2), every(2, 2)
    up, down = (np.asarray(each(f, jnp.asarray(x))) for f, x in ((path.hidden, v), (path.visible, h)))
    bernoulli = lambda odds, x: np.exp(-(np.logaddexp(0.0, np.where(x[None] > 0, -1, 1) * odds[:, None])).sum(-1))  # noqa: E731
    return bernoulli(up, h) @ bernoulli(down, v)


@pytest.mark.parametrize("twin", twins.SWAPS, ids=lambda twin: twin.__name__)
def test_broken_exchanges_are_seen(twin):
    path = tempered_path("linear")
    pi = product_law(path)
    even, odd = (swap_matrix(path, parity, twin) for parity in (0, 1))
    wrong = max(imbalance(pi, even), imbalance(pi, odd))
    assert wrong > 1e-3 or np.diagonal(even).min() > 0.2


def test_a_step_of_tempering_is_moves_then_exchange(key):
    path = tempered_path("linear")
    kernel = ParallelTempering(Gibbs(path, 2), LADDER, every=2)
    positions = jnp.asarray([[0.0, 1.0], [1.0, 1.0], [1.0, 0.0]])

    @compile_small
    def both(key):
        state = kernel.init(key, positions)
        keys, inner, u, fresh = kernel.noise(key, state)
        assert fresh is None
        after, info = kernel.move(state, (keys, inner, u, fresh), None)
        ends = []
        for rung in range(3):
            alone = at(kernel.kernel, LADDER[rung])
            one = alone.init(None, positions[rung])
            for i in range(2):
                one = alone.move(one, inner[rung, i], None)[0]
            ends.append(one.position)
        ends = jnp.stack(ends)
        probability = swap_probability(path, LADDER, ends)
        return after, info, exchange(state._replace(positions=ends), probability, u), probability

    for i in range(8):
        after, info, apart, probability = both(jax.random.fold_in(key, i))
        for a, b in zip(jax.tree.leaves(after), jax.tree.leaves(apart)):
            np.testing.assert_allclose(a, b, atol=1e-12)
        np.testing.assert_allclose(info.swap_acceptance, probability, atol=1e-12)


def test_the_rung_at_zero_is_drawn_anew(key):
    path = BoltzmannPath(numbers(2, 2), numbers(2), numbers(2), numbers(2, seed=1))
    kernel = ParallelTempering(BlockGibbs(path), LADDER)
    hot = ParallelTempering(BlockGibbs(path), np.array([0.1, 0.4, 1.0]))  # not the reference: nothing is redrawn

    @compile_small
    def hottest(kernel, fresh):
        state = kernel.init(key, jnp.zeros(2))
        noise = kernel.noise(key, state)
        still = (*noise[:2], jnp.ones(2), fresh)  # uniforms of 1: no exchange
        return kernel.move(state, still, None)[0].positions[0], noise[3]

    for drawn in ([1.0, 0.0], [0.0, 1.0], [1.0, 1.0]):
        assert hottest(kernel, jnp.asarray(drawn))[0].tolist() == drawn
    assert len({tuple(hottest(hot, jnp.asarray(drawn))[0].tolist()) for drawn in ([1.0, 0.0], [0.0, 1.0])}) == 1
    assert hottest(kernel, jnp.zeros(2))[1].shape == (2,)
    shapes = jax.eval_shape(
        lambda: ParallelTempering(BlockGibbs(path), LADDER, redraw=False).noise(key, start_of(path))
    )
    assert shapes[3] is None


def start_of(path):
    return ParallelTempering(BlockGibbs(path), LADDER).init(None, jnp.zeros(2))


def test_round_trips_are_counted_by_hand():
    kernel = ParallelTempering(Gibbs(tempered_path("linear"), 2), LADDER)
    state = kernel.init(None, jnp.zeros(2))
    swap = compile_small(lambda state, on: exchange(state, jnp.full(2, on), jnp.full(2, 0.5)))
    trips, where = [], []
    for _ in range(12):  # every exchange accepted: replica 0 goes 0 → 1 → 2 → 2 → 1 → 0 → 0 …
        state = swap(state, 1.0)
        trips.append(int(state.round_trips))
        where.append(state.replicas.tolist().index(0))
    assert where[:7] == [1, 2, 2, 1, 0, 0, 1]
    # replica 0 is back after 5 steps; 1 (hot after 1 step) after 7; 2 (hot after 3) after 9; 0 again after 11
    assert trips == [0, 0, 0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    for _ in range(5):
        state = swap(state, 0.0)
    assert int(state.round_trips) == 4


def test_laws_are_declared_and_states_have_positions(key):
    kernel = ParallelTempering(Gibbs(tempered_path("linear"), 2), LADDER)
    assert law_of(Many(kernel)) == Law("exact") == law_of(BlockGibbs(machine(1.0)))
    many = Many(kernel)
    run = compile_small(lambda key: repeat(many, key, many.init(key, jnp.zeros((5, 2))), 4))
    state, info = run(key)
    assert state.position.shape == (5, 2) and state.round_trips.shape == (5,)
    assert all(np.isfinite(np.asarray(leaf)).all() for leaf in jax.tree.leaves(info))
    assert info.swap_acceptance.shape == (4, 5, 2) and info.acceptance.shape == (4, 5)
    with pytest.raises(UsageError, match="two rungs"):
        ParallelTempering(Gibbs(tempered_path("linear"), 2), jnp.ones(1))
