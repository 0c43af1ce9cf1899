"""The autoregressive model: probabilities sum to 1, columns see earlier ones only, cells are those of the codec.

Mostly float64 and 1e-9, without random draws; every check is seen to fail on a broken twin. Draws are held to the exact law
by a chi-square test at alpha 2e-6.
"""

from __future__ import annotations

import itertools
import json
from dataclasses import replace

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from saboteurs import autoregressive as twins
from scipy.stats import chi2

from mulligan.compilations import compilations
from mulligan.core import capabilities
from mulligan.data import codec as codec_module
from mulligan.data.codec import fit_codec, standardise
from mulligan.data.native import NativeCodec, fit_native_codec
from mulligan.data.support import outside_support, support
from mulligan.data.table import Column, Schema, Source, Table
from mulligan.loop import compile_small
from mulligan.models import heads
from mulligan.models.autoregressive import make_autoregressive
from mulligan.models.columns import BEYOND, columns_of
from mulligan.nets.masked import make_masked_net

TIGHT = 1e-9
ALPHA = 2e-6


@pytest.fixture
def x64():
    with jax.enable_x64(True):
        yield


class Programs:
    """What is compiled of a model, over rows; one for all tests but those of broken twins, which compile their own."""

    def __init__(self):
        def over(function, arguments=2):
            return jax.jit(jax.vmap(function, in_axes=(None, 0, None)[:arguments]))

        self.cells = over(lambda columns, z: columns.cells_of(z))
        self.probability = over(lambda raw, cells: jnp.exp(heads.logistic_log_prob(raw, cells, 0.0)[0]))
        self.density = over(lambda raw, z: jnp.exp(heads.gaussian_log_prob(raw, z[None])[0]))
        self.log_prob = over(lambda model, x, given: model.log_prob(x, given), 3)
        self.conditionals = over(lambda model, x, given: model.conditionals(x, given), 3)
        self.leading = over(lambda model, x, known: model.leading_log_prob(x, known), 3)
        self.sample = over(lambda model, key: model.sample(key))

    def cells_at(self, columns, z):
        """The cells of many values of the one column; padded, for one program."""
        padded = np.resize(z, (4400, 1))
        return jax.tree.map(lambda leaf: np.asarray(leaf)[: len(z), 0], self.cells(columns, jnp.asarray(padded)))


SHARED = Programs()


def fails(check, *arguments):
    """The check rejects what it is given."""
    with pytest.raises(AssertionError):
        check(*arguments, Programs())


def table(columns, values):
    return Table(Schema(tuple(columns)), np.asarray(values, np.float64), Source("rows"))


def categorical(name, levels, kind="categorical"):
    return Column(name, kind, "text", levels=tuple(f"level {i}" for i in range(levels)))


# --- one column with cells: (column, training values, every value that may be met) ---------------------------------------

rng = np.random.default_rng(0)
COUNTS = rng.poisson(4, 300).astype(float)
CELLS = {
    "integer": (Column("i", "integer", "integer", step=1.0), COUNTS, np.arange(-60.0, 80)),
    "years": (Column("y", "integer", "integer", step=1.0), 1950 + COUNTS, np.arange(1900.0, 2020)),
    "gridded": (
        Column("g", "gridded", decimals=2, step=0.1, offset=0.05),
        np.round(0.1 * COUNTS, 1) + 0.05,
        np.round(0.05 + 0.1 * np.arange(-60, 80), 10),
    ),
    "atoms": (
        Column("a", "gridded", decimals=2, step=0.1, atoms=(0.33, 1.25)),
        np.concatenate([np.round(0.1 * COUNTS, 1), [0.33, 0.33, 1.25]]),
        np.sort(np.concatenate([np.round(0.1 * np.arange(-60, 80), 10), [0.33, 1.25]])),
    ),
    "two atoms in one gap": (
        Column("b", "integer", "integer", step=1.0, atoms=(2.25, 2.5)),
        np.concatenate([COUNTS, [2.25, 2.5]]),
        np.sort(np.concatenate([np.arange(-60.0, 80), [2.25, 2.5]])),
    ),
    "capped on the grid": (
        Column("k", "integer", "integer", step=1.0, low_cap=0.0, high_cap=8.0),
        np.clip(COUNTS, 0, 8),
        np.arange(0.0, 9),
    ),
    "capped off the grid": (
        Column("o", "gridded", step=100.0, atoms=(901.0,), high_cap=901.0),
        np.where(100 * COUNTS > 901, 901, 100 * COUNTS),
        np.append(100.0 * np.arange(-60, 10), 901.0),
    ),
    "log": (Column("l", "integer", "integer", step=1.0, transform="log"), COUNTS, np.arange(0.0, 3000)),
    "log, grid beside 0": (
        Column("m", "gridded", decimals=1, step=0.5, offset=0.4, transform="log"),
        0.5 * COUNTS + 0.4,
        0.5 * np.arange(-1, 3000) + 0.4,
    ),
    "log, cap and atom": (
        Column("n", "integer", "integer", step=1.0, transform="log", atoms=(2.5,), high_cap=9.0),
        np.append(np.minimum(COUNTS, 9), 2.5),
        np.array([0, 1, 2, 2.5, 3, 4, 5, 6, 7, 8, 9]),
    ),
    "logit": (
        Column("p", "gridded", decimals=1, step=0.1, transform="logit"),
        np.round(rng.beta(2, 3, 300), 1),
        np.round(0.1 * np.arange(0, 11), 10),
    ),
    "logit, cap": (
        Column("q", "gridded", decimals=2, step=0.01, transform="logit", low_cap=0.05),
        np.maximum(np.round(rng.beta(2, 3, 300), 2), 0.05),
        np.round(0.01 * np.arange(5, 101), 10),
    ),
    "single values": (Column("s", "gridded", step=0.25), np.full(5, 1.25), 0.25 * np.arange(-300, 300)),
}
CAPPED = {
    "high": (Column("c", "continuous", high_cap=1.5), np.minimum(rng.normal(size=300), 1.5)),
    "both": (Column("c", "continuous", low_cap=-1.0, high_cap=1.5), np.clip(rng.normal(size=300), -1.0, 1.5)),
    "log": (Column("c", "continuous", high_cap=4.0, transform="log"), np.minimum(np.exp(rng.normal(size=300)), 4.0)),
}


def native(column, train):
    """The codec and the columns of one column."""
    codec = fit_native_codec(table([column], np.reshape(train, (-1, 1))))
    return codec, columns_of(codec)


def some_raw(parts=4, seed=1):
    """Parameters (1, 3, parts) of a mixture within ±1.5, narrow enough for the values above to reach its tails."""
    generator = np.random.default_rng(seed)
    scale = generator.uniform(0.05, 0.25, parts)
    raw = np.stack([generator.normal(size=parts), generator.uniform(-1.5, 1.5, parts), np.log(np.expm1(scale))])
    return jnp.asarray(raw)[None]


def check_edges(column, train, values, run=SHARED):
    """Cells are the codec's, in z; what lies beyond a cap or the support is infinite."""
    codec, columns = native(column, train)
    part, z = codec.parts[0], codec.encode(values[:, None]).points[:, 0, 0]
    found = run.cells_at(columns, z)
    low, high = codec_module._cells(column, part, values)
    with np.errstate(divide="ignore", invalid="ignore"):
        edges = [standardise(column, part, edge)[0] for edge in (low, high)]
    least, greatest = support(column)
    below = np.where((values == column.low_cap) | (low == least), BEYOND, z - edges[0])
    above = np.where((values == column.high_cap) | (high == greatest), BEYOND, edges[1] - z)
    np.testing.assert_allclose(found.below, below, rtol=TIGHT, atol=TIGHT)
    np.testing.assert_allclose(found.above, above, rtol=TIGHT, atol=TIGHT)
    np.testing.assert_allclose(found.value, z, rtol=TIGHT, atol=TIGHT)
    assert np.all(found.inside)


def check_snap(column, train, values, run=SHARED):
    """``snap`` finds the value that ``decode`` finds."""
    codec, columns = native(column, train)
    z = np.random.default_rng(3).uniform(-6, 6, 2000)
    z = np.concatenate([z, 0.05 * z, codec.encode(values[:200, None]).points[:, 0, 0]])
    valid = codec.encode(codec.decode(z[:, None])).points[:, 0, 0]
    np.testing.assert_allclose(run.cells_at(columns, z).value, valid, atol=TIGHT, rtol=TIGHT)


def check_cells_sum(column, train, values, run=SHARED):
    """Σ_v P(v) = 1."""
    codec, columns = native(column, train)
    found = run.cells_at(columns, codec.encode(values[:, None]).points[:, 0, 0])
    raw = some_raw()
    if column.name == "s":  # an unstandardised column: its cells are a quarter wide
        raw = raw.at[:, 1].multiply(5.0)
    padded = jax.tree.map(lambda leaf: np.resize(leaf, (4400, 1)), found)
    assert abs(float(np.asarray(run.probability(raw, padded))[: len(values)].sum()) - 1) < TIGHT


@pytest.mark.parametrize("name", CELLS)
def test_cells_are_those_of_the_codec(x64, name):
    check_edges(*CELLS[name])
    check_snap(*CELLS[name])


@pytest.mark.parametrize("name", CELLS)
def test_probabilities_of_all_cells_sum_to_one(x64, name):
    check_cells_sum(*CELLS[name])


@pytest.mark.parametrize(
    ("check", "twin", "name"),
    [
        (check_edges, twins.whole_gaps, "integer"),
        (check_edges, twins.whole_gaps, "logit"),
        (check_edges, twins.atoms_forgotten, "atoms"),
        (check_edges, twins.caps_end, "capped on the grid"),
        (check_snap, twins.rounds_down, "log"),
        (check_snap, twins.atoms_forgotten, "two atoms in one gap"),
        (check_cells_sum, twins.width_forgotten, "years"),
        (check_cells_sum, twins.whole_gaps, "gridded"),
        (check_cells_sum, twins.caps_end, "capped on the grid"),
        (check_cells_sum, twins.caps_end, "log"),
    ],
)
def test_a_wrong_cell_is_seen(x64, monkeypatch, check, twin, name):
    twin(monkeypatch)
    fails(check, *CELLS[name])


def random_column(generator):
    """A column with cells as reading may find it, and values of it."""
    step = float(generator.choice([1.0, 0.1, 0.25, 0.01, 100.0]))
    transform = str(generator.choice(["none", "log", "logit" if step < 1 else "log"]))
    offset = step * float(generator.choice([0.0, 0.0, 0.5, 0.25]))
    k = np.arange(-40 if transform == "none" else 0, 41)
    values = offset + step * k
    column = Column("r", "gridded", step=step, offset=offset, transform=transform)
    values = values[~outside_support(column, values)]
    atoms = values[3] + step * generator.choice([0.3, 0.45, 0.61], size=int(generator.integers(0, 3)), replace=False)
    low_cap = float(values[2]) if generator.random() < 0.4 else None
    high_cap = float(values[-3]) if generator.random() < 0.4 else None
    if generator.random() < 0.2:
        high_cap = float(values[-3] + 0.3 * step)
        atoms = np.append(atoms, high_cap)
    column = replace(column, atoms=tuple(atoms.tolist()), low_cap=low_cap, high_cap=high_cap)
    values = np.sort(np.concatenate([values, atoms]))
    keep = (values >= (-np.inf if low_cap is None else low_cap)) & (
        values <= (np.inf if high_cap is None else high_cap)
    )
    return column, values[keep], values[keep]


def test_cells_of_random_columns(x64):
    generator = np.random.default_rng(11)
    for _ in range(60):
        case = random_column(generator)
        check_edges(*case)
        check_snap(*case)


def integral(function, low, high, pieces=400):
    """By Gauss and Legendre, ten nodes a piece."""
    nodes, weights = np.polynomial.legendre.leggauss(10)
    edges = np.linspace(low, high, pieces + 1)
    x = edges[:-1, None] + np.diff(edges)[:, None] * (nodes + 1) / 2
    half = np.diff(edges)[:, None] / 2
    return float(np.sum(np.asarray(function(x.reshape(-1))).reshape(x.shape) * weights * half))


def check_density(raw, run=SHARED):
    assert abs(integral(lambda z: run.density(raw, z), -12, 12) - 1) < TIGHT


def test_densities_integrate_to_one(x64, monkeypatch):
    check_density(some_raw())
    twins.scale_forgotten(monkeypatch)
    fails(check_density, some_raw())


def check_capped(column, train, run=SHARED):
    """The density between the caps and the probabilities of the caps are 1 together."""
    codec, columns = native(column, train)
    caps = [cap for cap in (column.low_cap, column.high_cap) if cap is not None]
    z = codec.encode(np.reshape(caps, (-1, 1))).points[:, 0, 0]
    raw = some_raw()
    at = lambda x: run.cells_at(columns, x)  # noqa: E731
    p = lambda x: run.probability(raw, jax.tree.map(lambda leaf: np.resize(leaf, (4400, 1)), at(x)))[: len(x)]  # noqa: E731
    low, high = (-12.0 if column.low_cap is None else z[0]), z[-1]
    assert np.all(at(z).inside) and not at(z[-1:] - 1e-6).inside[0]
    assert abs(integral(p, low, high) + float(p(z).sum()) - 1) < TIGHT
    assert float(at(z[-1:] + 0.5).value[0]) == pytest.approx(z[-1], abs=TIGHT)


@pytest.mark.parametrize("name", CAPPED)
def test_a_capped_density_is_whole(x64, monkeypatch, name):
    check_capped(*CAPPED[name])
    twins.caps_end(monkeypatch)
    fails(check_capped, *CAPPED[name])


# --- whole rows ---------------------------------------------------------------------------------------------------------

DISCRETE = [
    categorical("two", 2, "binary"),
    Column("k", "integer", "integer", step=1.0, low_cap=0.0, high_cap=3.0),
    categorical("three", 3),
    Column("p", "gridded", decimals=1, step=0.5, transform="logit"),
]


def discrete(order, given=0, dtype=None):
    """A model of four discrete columns with a network far from its start, its codec, and every row as z (72, 4)."""
    values = np.array(list(itertools.product(range(2), range(4), range(3), (0.0, 0.5, 1.0))), float)
    codec = fit_native_codec(table(DISCRETE, values))
    model = make_autoregressive(
        columns_of(codec), np.random.default_rng(5), order=order, width=12, depth=1, parts=3, given=given
    )
    return stirred(model), codec, jnp.asarray(codec.encode(values).points[:, 0])


def stirred(model, seed=6, size=0.5):
    """The model with noise on all its weights."""
    generator = np.random.default_rng(seed)
    weights, rest = eqx.partition(model, eqx.is_inexact_array)
    move = lambda leaf: leaf + size * jnp.asarray(generator.normal(size=leaf.shape), leaf.dtype)  # noqa: E731
    return eqx.combine(jax.tree.map(move, weights), rest)


def check_rows_sum(order, given=None, run=SHARED):
    model, _, rows = discrete(order, 0 if given is None else len(given))
    assert abs(float(np.exp(run.log_prob(model, rows, given)).sum()) - 1) < TIGHT


ORDERS = [(0, 1, 2, 3), (3, 1, 0, 2)]


@pytest.mark.parametrize("order", ORDERS)
def test_probabilities_of_all_rows_sum_to_one(x64, order):
    check_rows_sum(order)


def test_probabilities_given_a_vector_sum_to_one(x64):
    check_rows_sum(ORDERS[1], jnp.array([0.3, -2.0]))
    model, _, rows = discrete(ORDERS[1], 2)
    first = [SHARED.conditionals(model, rows, jnp.array([0.3, g]))[0, 3] for g in (0.0, 1.0)]
    assert abs(float(first[0] - first[1])) > 1e-3  # the first column is conditioned, too


@pytest.mark.parametrize("twin", [twins.sees_itself, twins.width_forgotten, twins.caps_end])
def test_a_law_of_rows_that_is_none_is_seen(x64, monkeypatch, twin):
    twin(monkeypatch)
    fails(check_rows_sum, ORDERS[1], None)


def mixed(order=(2, 0, 1)):
    """A model of a continuous, a gridded and a binary column, and its codec."""
    generator = np.random.default_rng(2)
    columns = [Column("x", "continuous"), Column("g", "integer", "integer", step=1.0), categorical("c", 2, "binary")]
    values = np.stack([generator.normal(size=200), generator.poisson(3, 200), generator.integers(0, 2, 200)], 1)
    codec = fit_native_codec(table(columns, values))
    return stirred(
        make_autoregressive(columns_of(codec), generator, order=order, width=12, depth=1, parts=3), size=0.1
    ), codec


def check_mixed_sum(order, run=SHARED):
    model, codec = mixed(order)
    counts = codec.encode(np.array([[0.0, k, 0.0] for k in range(-60, 70)])).points[:, 0, 1]
    nodes, weights = np.polynomial.legendre.leggauss(10)
    edges = np.linspace(-14, 14, 121)
    x = (edges[:-1, None] + np.diff(edges)[:, None] * (nodes + 1) / 2).reshape(-1)
    weights = np.tile(weights, 120) * np.repeat(np.diff(edges) / 2, 10)
    grid = np.stack(np.meshgrid(x, counts, [0.0, 1.0], indexing="ij"), -1)
    log_p = np.asarray(run.log_prob(model, jnp.asarray(grid.reshape(-1, 3)), None)).reshape(grid.shape[:-1])
    assert abs(float(np.einsum("xkc,x->", np.exp(log_p), weights)) - 1) < TIGHT


@pytest.mark.parametrize("order", [(2, 0, 1), (1, 2, 0)])
def test_a_mixed_row_integrates_to_one(x64, order):
    check_mixed_sum(order)


def test_a_mixed_row_that_does_not_is_seen(x64, monkeypatch):
    twins.sees_itself(monkeypatch)
    fails(check_mixed_sum, (2, 0, 1))


# --- the network ---------------------------------------------------------------------------------------------------------


def check_jacobian(order, given, _=None):
    generator = np.random.default_rng(3)
    positions = np.argsort(order)
    inputs, outputs = np.repeat(positions, 2), np.repeat(positions, 3)
    net = stirred(make_masked_net(inputs, outputs, generator, width=20, depth=2, given=given))
    context = jnp.ones(given) if given else None
    jacobian = jax.jit(jax.jacobian(lambda x: net(x, context)))(jnp.asarray(generator.normal(size=len(inputs))))
    np.testing.assert_array_equal(np.asarray(jacobian) != 0, outputs[:, None] > inputs)  # exactly 0, and nowhere else


@pytest.mark.parametrize("given", [0, 2])
@pytest.mark.parametrize("order", [(0, 1, 2, 3), (3, 1, 0, 2), (2, 3, 1, 0), (0,)])
def test_outputs_depend_on_earlier_columns_only(x64, order, given):
    check_jacobian(order, given)


def test_an_output_that_sees_itself_is_seen(x64, monkeypatch):
    twins.sees_itself(monkeypatch)
    fails(check_jacobian, (3, 1, 0, 2), 0)


def test_few_hidden_units_see_columns_of_the_whole_order():
    net = make_masked_net(range(300), range(300), np.random.default_rng(0), width=10, depth=0)
    assert np.asarray(net.hidden).tolist() == [1 + 299 * i // 10 for i in range(10)]


def bits(order, given, depth, width):
    """A model of bits, far from its start."""
    columns = columns_of(
        fit_native_codec(table([categorical(f"b{j}", 2, "binary") for j in order], [[0] * len(order)]))
    )
    sizes = {"order": order, "given": given, "depth": depth, "width": width}
    return stirred(make_autoregressive(columns, np.random.default_rng(5), **sizes))


def check_bits(order, given, depth, width, _=None):
    """Drawn unit by unit, rows are those that are drawn with all of the network at each column."""
    model, known = bits(order, given, depth, width), jnp.ones(given) if given else None
    uniform = jnp.asarray(np.random.default_rng(7).random((400, len(order))))
    drawn = np.asarray(jax.jit(jax.vmap(lambda u: model._sample_bits(u, known)))(uniform))
    logits = np.asarray(jax.jit(jax.vmap(lambda x: model._laws(x, known)[2][:, 1]))(jnp.asarray(drawn)))
    np.testing.assert_array_equal(drawn, uniform >= 1 / (1 + np.exp(logits)))  # P(0) of each, given the bits before it
    assert len(np.unique(drawn, axis=0)) > 10


BITS = [((3, 1, 0, 2, 4), 0, 1, 9), ((1, 2, 4, 3, 0), 2, 2, 3), ((0, 1, 2, 3, 4), 0, 0, 4)]


@pytest.mark.parametrize("case", BITS)
def test_bits_are_drawn_unit_by_unit(x64, case):
    check_bits(*case)


@pytest.mark.parametrize("twin", [twins.units_late, twins.units_lost])
def test_bits_of_broken_units_are_refused(x64, monkeypatch, twin):
    twin(monkeypatch)
    fails(check_bits, *BITS[0])


# --- marginals, missing values --------------------------------------------------------------------------------------------


def check_leading(model, rows, order, run=SHARED):
    """The log p of the first columns is the sum over all the others, which may be NaN."""
    log_p = np.asarray(run.log_prob(model, rows, None))
    for known in range(5):
        kept = np.asarray(rows)[:, list(order[:known])]
        brute = [np.log(np.exp(log_p[(kept == row).all(1)]).sum()) for row in kept]
        unknown = rows.at[:, np.asarray(order[known:], int)].set(jnp.nan)
        found = run.leading(model, unknown, jnp.asarray(known))
        np.testing.assert_allclose(found, brute, atol=TIGHT)


@pytest.mark.parametrize("order", ORDERS)
def test_leading_columns_have_their_marginal(x64, order):
    model, _, rows = discrete(order)
    check_leading(model, rows, order)


def test_a_wrong_marginal_is_seen(x64, monkeypatch):
    model, _, rows = discrete(ORDERS[1])
    fails(check_leading, twins.drawn_in_another_order(model), rows, ORDERS[1])
    twins.sees_itself(monkeypatch)
    fails(check_leading, model, rows, ORDERS[1])


def check_missing(model, rows, order, run=SHARED):
    """A NaN makes log p NaN, alone and in a batch, and no earlier conditional."""
    holes = np.stack([np.where(np.arange(4) == j, np.nan, rows[0]) for j in order]).astype(rows.dtype)
    batch = np.stack([rows[0], *holes])
    assert np.isnan(run.log_prob(model, batch, None)).tolist() == [False, *[True] * 4]
    assert np.isnan(run.log_prob(model, holes[:1], None)).all()
    whole, *found = np.asarray(run.conditionals(model, batch, None))
    for place, conditionals in enumerate(found):
        assert np.isnan(conditionals[list(order[place:])]).all()
        np.testing.assert_allclose(conditionals[list(order[:place])], whole[list(order[:place])], rtol=1e-5)


def test_nan_in_nan_out(monkeypatch):
    model, _, rows = discrete(ORDERS[1])
    check_missing(model, rows, ORDERS[1])
    twins.hides_missing(monkeypatch)
    fails(check_missing, model, rows, ORDERS[1])


def test_conditionals_sum_to_log_prob(x64):
    model, _, rows = discrete(ORDERS[0])
    whole, parts = SHARED.log_prob(model, rows, None), SHARED.conditionals(model, rows, None)
    np.testing.assert_allclose(parts.sum(1), whole, atol=1e-12)
    assert not np.any(SHARED.leading(model, rows, jnp.asarray(0)))


def test_any_number_counts_as_the_value_whose_cell_holds_it(x64):
    model, codec = mixed()
    z = np.random.default_rng(0).uniform([-3, -3, 0], [3, 3, 1], size=(50, 3))
    valid = codec.encode(codec.decode(z)).points[:, 0]
    found = [SHARED.log_prob(model, jnp.asarray(points), None) for points in (z, valid)]
    np.testing.assert_allclose(*found, atol=TIGHT)


def test_what_no_row_can_hold_has_no_probability(x64):
    """A code beyond the levels, and a density at infinity."""
    model, _ = mixed()
    rows = jnp.array([[0.0, 0.0, 2.0], [np.inf, 0.0, 1.0], [0.0, 0.0, 1.0]])
    assert np.isneginf(SHARED.log_prob(model, jnp.resize(rows, (50, 3)), None))[:3].tolist() == [True, True, False]


# --- draws ---------------------------------------------------------------------------------------------------------------


def check_draws(model, sampler, rows, key, run=SHARED, n=25_000):
    """Draws are valid rows, as often as their probability says."""
    draws = np.asarray(run.sample(sampler, jax.random.split(key, n)))
    p = np.exp(np.asarray(run.log_prob(model, rows, None), float))
    distance = np.abs(draws[:, None] - np.asarray(rows)).max(2)
    assert distance.min(1).max() < 1e-5, "a draw is no valid row"
    counts = np.bincount(distance.argmin(1), minlength=len(rows))
    common = n * p >= 50
    seen = np.append(counts[common], counts[~common].sum())
    expected = np.append(n * p[common], n * p[~common].sum())
    keep = expected > 1
    statistic = np.sum((seen[keep] - expected[keep]) ** 2 / expected[keep])
    assert common.sum() > 10 and chi2.sf(statistic, keep.sum() - 1) > ALPHA, statistic


@pytest.mark.parametrize("order", ORDERS)
def test_draws_follow_the_law(key, order):
    model, _, rows = discrete(order)
    check_draws(model, model, rows, key)


@pytest.mark.parametrize("twin", [twins.does_not_snap, twins.first_part_only])
def test_draws_from_a_wrong_law_are_seen(monkeypatch, key, twin):
    model, _, rows = discrete(ORDERS[1])
    twin(monkeypatch)
    fails(check_draws, model, model, rows, key)


def test_draws_in_a_wrong_order_are_seen(key):
    model, _, rows = discrete(ORDERS[1])
    fails(check_draws, model, twins.drawn_in_another_order(model), rows, key)


def check_quantiles(sample, variance, _=None):
    """The two uniform numbers are a mixture's part and quantile: their grid has the mixture's mean and variance."""
    raw = some_raw()
    weights = np.asarray(jax.nn.softmax(raw[0, 0]))
    mean, scale = np.asarray(raw[0, 1]), np.log1p(np.exp(np.asarray(raw[0, 2]))) + 1e-3
    nodes = (np.arange(500) + 0.5) / 500
    grid = jnp.asarray(np.stack(np.meshgrid(nodes, nodes, indexing="ij"), -1).reshape(-1, 1, 2))
    draws = np.asarray(jax.jit(jax.vmap(lambda raw, u: sample(raw, u), in_axes=(None, 0)))(raw, grid))
    centre = weights @ mean
    assert draws.mean() == pytest.approx(centre, abs=5e-3)
    assert draws.var() == pytest.approx(weights @ (variance * scale**2 + mean**2) - centre**2, rel=1e-2)


@pytest.mark.parametrize(("sample", "variance"), [(heads.gaussian_sample, 1.0), (heads.logistic_sample, np.pi**2 / 3)])
def test_draws_of_a_density_follow_its_distribution(x64, monkeypatch, sample, variance):
    check_quantiles(sample, variance)
    for twin in (twins.variance_for_sd, twins.first_part_only):
        with monkeypatch.context() as patched:
            twin(patched)
            fails(check_quantiles, sample, variance)


# --- numerics ------------------------------------------------------------------------------------------------------------


def fine_columns():
    """Steps of 1e-5 of a scale, under every transform, and a cap far out; values and their table."""
    generator = np.random.default_rng(4)
    values = np.stack(
        [
            np.round(generator.normal(size=300), 5),
            np.round(np.exp(generator.normal(0, 0.5, 300)), 5),
            np.round(generator.beta(2, 2, 300), 5),
            np.minimum(generator.normal(size=300), 2.0),
            2e6 + np.round(3 * generator.normal(size=300)),
        ],
        1,
    )
    columns = [
        Column("a", "gridded", decimals=5, step=1e-5),
        Column("b", "gridded", decimals=5, step=1e-5, transform="log"),
        Column("c", "gridded", decimals=5, step=1e-5, transform="logit"),
        Column("d", "continuous", high_cap=2.0),
        Column("e", "integer", "integer", step=1.0),
    ]
    return table(columns, values)


def fine_model(rows):
    codec = fit_native_codec(rows)
    return make_autoregressive(columns_of(codec), np.random.default_rng(1), width=16, depth=1), codec


def check_single_precision(run=SHARED):
    """float32 agrees with a float64 twin that has the same weights."""
    rows = fine_columns()
    model, codec = fine_model(rows)
    points = codec.encode(rows.values).points[:, 0]
    found = np.asarray(run.conditionals(model, jnp.asarray(points, jnp.float32), None))
    assert found.dtype == np.float32
    weights = jax.tree.map(np.asarray, eqx.filter(model, eqx.is_inexact_array))
    with jax.enable_x64(True):
        twin, _ = fine_model(rows)
        wide = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), weights)
        twin = eqx.combine(wide, eqx.filter(twin, eqx.is_inexact_array, inverse=True))
        truth = np.asarray(run.conditionals(twin, jnp.asarray(points), None))
    np.testing.assert_allclose(found, truth, atol=1e-4)


def test_single_precision_is_enough(monkeypatch):
    check_single_precision()
    twins.by_difference(monkeypatch)
    fails(check_single_precision)


def check_gradients(_=None):
    """Finite everywhere: at caps, in cells of 1e-12 of a scale, a thousand standard deviations out."""
    rows = fine_columns()
    narrow = replace(rows.schema.columns[0], step=1e-12, decimals=None)
    rows = replace(rows, schema=Schema((narrow, *rows.schema.columns[1:])))
    model, codec = fine_model(rows)
    points = codec.encode(rows.values[:20]).points[:, 0].astype(np.float32)
    points = np.concatenate([points, np.full((1, 5), 1e3, np.float32), np.full((1, 5), -1e3, np.float32)])
    log_p, (by_model, by_row) = jax.jit(
        jax.vmap(lambda x: eqx.filter_value_and_grad(lambda both: both[0].log_prob(both[1]))((model, x)))
    )(jnp.asarray(points))
    assert np.isfinite(log_p).all()
    for leaf in jax.tree.leaves((eqx.filter(by_model, eqx.is_inexact_array), by_row)):
        assert np.isfinite(leaf).all()


def test_gradients_are_finite(monkeypatch):
    check_gradients()
    twins.by_difference(monkeypatch)
    fails(check_gradients)


def test_columns_of_another_scale_share_one_program():
    def log_prob(model, rows):
        return jax.vmap(model.log_prob)(rows)

    compiled = compile_small(log_prob)
    models = []
    for scale in (1.0, 7.0):
        rows = fine_columns()
        values = rows.values.copy()
        values[:, 4] = np.round(scale * values[:, 4])
        models.append(fine_model(replace(rows, values=values))[0])
    compiled(models[0], jnp.zeros((4, 5)))
    with compilations() as seen:
        compiled(models[1], jnp.zeros((4, 5)))
    assert seen.count == 0


def test_no_constant_of_the_data_is_learned():
    model, _ = mixed()
    for leaf in jax.tree.leaves(eqx.filter(model.columns, eqx.is_array)):
        assert jnp.issubdtype(leaf.dtype, jnp.integer)


def test_the_contract():
    model, _ = mixed()
    assert capabilities(model) == ("Sampler", "Density") and model.kind == "exact"
    again = type(model)(
        **{name: getattr(model, name) for name in ("columns", "net", "positions", "parts", "frequencies")}
    )
    assert eqx.tree_equal(model, again)
    with pytest.raises(ValueError, match="order"):
        make_autoregressive(model.columns, np.random.default_rng(0), order=[0, 0, 1])


# --- the codec -----------------------------------------------------------------------------------------------------------


def check_native(column, train, _=None):
    """Rows come back, JSON comes back, and log |dz/dv| is added to densities only."""
    codec, _ = native(column, train)
    encoded = codec.encode(np.reshape(train, (-1, 1)))
    assert encoded.points.shape == (len(train), 1, 1) and not codec.dequantises and codec.dim == 1
    np.testing.assert_allclose(codec.decode(encoded.points[:, 0])[:, 0], train, rtol=1e-12)
    assert NativeCodec.from_json(json.loads(json.dumps(codec.to_json()))) == codec
    is_probability = column.discrete | np.isin(train, [c for c in (column.low_cap, column.high_cap) if c is not None])
    slope = codec.slopes(np.reshape(np.where(is_probability, 0.5, train), (-1, 1)))[0][:, 0]
    expected = np.where(is_probability, 0.0, np.log(slope))
    np.testing.assert_allclose(encoded.log_jacobian[:, 0], expected, atol=1e-12)


@pytest.mark.parametrize("name", [*CELLS, *CAPPED])
def test_native_rows_come_back(name):
    check_native(*(CELLS | CAPPED)[name][:2])


@pytest.mark.parametrize("name", ["gridded", "log", "high"])
def test_slopes_of_cells_are_seen(monkeypatch, name):
    twins.slopes_of_cells(monkeypatch)
    fails(check_native, *(CELLS | CAPPED)[name][:2])


def test_native_densities_are_those_of_the_codec():
    rows = table([Column("x", "continuous", transform="log")], np.exp(rng.normal(size=(50, 1))))
    one, other = fit_native_codec(rows).encode(rows.values), fit_codec(rows).encode(rows.values)
    np.testing.assert_allclose(one.points, other.points, rtol=1e-12)
    np.testing.assert_allclose(one.log_jacobian, other.log_jacobian, rtol=1e-12)


def test_native_codes():
    values = np.array([[0.0], [2.0], [1.0]])
    codec = fit_native_codec(table([categorical("c", 3)], values))
    np.testing.assert_array_equal(codec.encode(values).points[:, 0], values)
    np.testing.assert_array_equal(codec.decode(np.array([[-1.0], [1.4], [7.0]]))[:, 0], [0, 1, 2])
