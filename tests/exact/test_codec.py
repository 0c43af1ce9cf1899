"""The codec: round trips, Jacobians, and that no scheme's bound can exceed the probability that it bounds.

Where a column is one coordinate, expectations over the random shift are integrals over u in (0, 1), taken by quadrature:
``at_uniforms`` sets the draws. Cells are found from ``decode`` (by bisection), so encode and decode are held to each
other. Elsewhere the mean over many salts is compared with the exact value at |z| < 4.75 (alpha 2e-6).
"""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from saboteurs import encodings
from scipy.special import logsumexp, ndtr
from scipy.stats import kstest

from mulligan.data import codec as codec_module
from mulligan.data.codec import Codec, fit_codec
from mulligan.data.support import outside_support
from mulligan.data.table import Column, Schema, Source, Table
from mulligan.measures.likelihood import log_mean_exp

Z = 4.75
SALTS = 2000


def made(column, values):
    """The codec of one column, fitted to these values."""
    values = np.asarray(values, np.float64).reshape(-1, 1)
    return fit_codec(Table(Schema((column,)), values, Source("rows")))


def repeated(counts):
    """Values from {value: count}."""
    return np.repeat(np.fromiter(counts, float), list(counts.values()))


def levels(shares, kind="categorical"):
    names = tuple(f"level {i}" for i in range(len(shares)))
    return made(Column("c", kind, "text", levels=names), np.repeat(np.arange(len(shares)), shares))


GRID = np.arange(-40, 80)
NUMBERS = {
    "integer": (Column("i", "integer", "integer", step=1.0), np.random.default_rng(0).poisson(4, 300), GRID),
    "gridded": (
        Column("g", "gridded", decimals=2, step=0.1, offset=0.05),
        np.round(np.random.default_rng(1).normal(2, 0.3, 300), 1) + 0.05,
        np.round(0.05 + 0.1 * np.arange(-20, 60), 10),
    ),
    "hundreds": (
        Column("h", "gridded", step=100.0),
        100 * np.random.default_rng(2).poisson(20, 300),
        100.0 * np.arange(-30, 90),
    ),
    "log integer": (
        Column("l", "integer", "integer", step=1.0, transform="log"),
        np.random.default_rng(3).poisson(3, 300),
        np.arange(0, 150),
    ),
    "logit grid": (
        Column("p", "gridded", decimals=1, step=0.1, transform="logit"),
        np.round(np.random.default_rng(4).beta(2, 3, 300), 1),
        np.round(0.1 * np.arange(0, 11), 10),
    ),
    "atoms": (
        Column("a", "gridded", decimals=2, step=0.1, atoms=(0.33, 1.25)),
        np.concatenate([np.round(np.random.default_rng(5).normal(0.6, 0.3, 300), 1), [0.33, 0.33, 1.25]]),
        np.sort(np.concatenate([np.round(0.1 * np.arange(-40, 60), 10), [0.33, 1.25]])),
    ),
    "two atoms in one gap": (
        Column("b", "integer", "integer", step=1.0, atoms=(2.25, 2.5)),
        np.concatenate([np.random.default_rng(6).poisson(3, 300), [2.25, 2.5]]),
        np.sort(np.concatenate([GRID, [2.25, 2.5]])),
    ),
    "grid capped on it": (
        Column("k", "integer", "integer", step=1.0, low_cap=0.0, high_cap=8.0),
        np.clip(np.random.default_rng(7).poisson(4, 300), 0, 8),
        np.arange(0, 9),
    ),
    "grid capped off it": (
        Column("o", "gridded", step=100.0, atoms=(2501.0,), high_cap=2501.0),
        np.where((v := 100 * np.random.default_rng(8).poisson(20, 300)) > 2501, 2501, v),
        np.append(100.0 * np.arange(-30, 26), 2501.0),
    ),
}


def mixture(x):
    """log p of an arbitrary latent density: three Gaussians, one of them narrow."""
    w, m, s = np.array([0.5, 0.3, 0.2]), np.array([-0.7, 1.1, 0.2]), np.array([0.8, 0.5, 0.05])
    z = (x[..., None] - m) / s
    return logsumexp(np.log(w / (s * np.sqrt(2 * np.pi))) - 0.5 * z**2, axis=-1)


def mixture_cdf(x):
    w, m, s = np.array([0.5, 0.3, 0.2]), np.array([-0.7, 1.1, 0.2]), np.array([0.8, 0.5, 0.05])
    return np.sum(w * ndtr((np.asarray(x)[..., None] - m) / s), -1)


def cell_probabilities(codec, values, sign=1):
    """P(decode(z) = v) under the mixture for each value, in the order in which z meets them; edges by bisection."""
    edges = [-np.inf]
    for below in values[:-1]:
        low, high = -60.0, 60.0
        for _ in range(80):
            middle = (low + high) / 2
            is_below = sign * codec.decode([[middle]])[0, 0] <= sign * below
            low, high = (middle, high) if is_below else (low, middle)
        edges.append(low)
    return np.diff(mixture_cdf(np.array([*edges, np.inf])))


def at_uniforms(monkeypatch, u):
    """Make the draws of every row u (n or 1, m)."""
    shape = np.atleast_2d(u)[:, :, None]
    monkeypatch.setattr(
        codec_module, "row_uniforms", lambda v, m, d, salt: np.broadcast_to(shape, (len(v), shape.shape[1], d))
    )


def mean_weights(codec, values, monkeypatch):
    """E exp(log p(z) + log J) over one uniform draw in the cell of each value, by Gauss-Legendre on 100 pieces."""
    nodes, weights = np.polynomial.legendre.leggauss(10)
    pieces = np.arange(100)[:, None]
    u = ((pieces + (nodes + 1) / 2) / 100).reshape(-1)
    with monkeypatch.context() as patched:
        at_uniforms(patched, u)
        points, log_jacobian, *_ = codec.encode(np.asarray(values, float)[:, None], len(u))
    return np.exp(mixture(points[:, :, 0]) + log_jacobian) @ np.tile(weights / 200, 100)


# --- round trips ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NUMBERS)
def test_numbers_come_back(name):
    column, train, _ = NUMBERS[name]
    codec = made(column, train)
    values = np.unique(train)
    for salt in range(20):
        points = codec.encode(values[:, None], salt=salt).points
        for k in range(points.shape[1]):
            np.testing.assert_allclose(codec.decode(points[:, k])[:, 0], values, rtol=0, atol=1e-12)


@pytest.mark.parametrize("transform", ["none", "log", "logit"])
def test_continuous_values_come_back(transform):
    values = np.random.default_rng(0).beta(2, 3, size=200)
    codec = made(Column("x", "continuous", transform=transform), values)
    encoded = codec.encode(values[:, None])
    assert encoded.points.shape == (200, 1, 1) and not codec.dequantises
    np.testing.assert_allclose(codec.decode(encoded.points[:, 0])[:, 0], values, rtol=1e-12)
    assert encoded.points.mean() == pytest.approx(0, abs=1e-12) and encoded.points.std() == pytest.approx(1)


def test_capped_continuous_values_come_back():
    values = np.clip(np.random.default_rng(0).normal(size=300), -1.0, 1.2)
    codec = made(Column("x", "continuous", low_cap=-1.0, high_cap=1.2), values)
    assert codec.dequantises
    encoded = codec.encode(values[:, None])
    for k in range(encoded.points.shape[1]):
        np.testing.assert_allclose(codec.decode(encoded.points[:, k])[:, 0], values, rtol=0, atol=1e-12)
    assert set(np.unique(codec.decode([[-99.0], [99.0]]))) == {-1.0, 1.2}
    inner = np.flatnonzero(np.abs(values) < 0.9)
    assert np.ptp(encoded.log_jacobian[inner]) == 0  # a density: no cell


@pytest.mark.parametrize("shares", [[30, 70], [97, 2, 1], [1, 1, 5, 200], list(range(1, 13)), [5000, *[1] * 11]])
def test_categories_come_back(shares):
    codec = levels(shares)
    values = np.arange(len(shares), dtype=float)[:, None]
    assert codec.dim == len(shares) - 1
    for salt in range(50):
        points = codec.encode(values, salt=salt).points
        assert np.isfinite(points).all()
        for k in range(points.shape[1]):
            np.testing.assert_array_equal(codec.decode(points[:, k]), values)


def test_a_level_without_training_rows_has_a_cell():
    codec = made(Column("c", "categorical", "text", levels=("a", "b", "c")), np.repeat([0, 1], 50))
    points = codec.encode(np.array([[2.0]])).points[0]
    np.testing.assert_array_equal(codec.decode(points), 2.0)


def mixed():
    rng = np.random.default_rng(0)
    columns = (
        Column("x", "continuous"),
        Column("n", "integer", "integer", step=1.0),
        Column("c", "categorical", "text", levels=("a", "b", "c", "d")),
        Column("b", "binary", "boolean", levels=("False", "True")),
        Column("y", "continuous", transform="log", high_cap=3.0),
    )
    n = 400
    values = np.stack(
        [
            rng.normal(5, 20, n),
            rng.poisson(3, n),
            rng.choice(4, n, p=[0.6, 0.3, 0.09, 0.01]),
            rng.integers(2, size=n),
            np.minimum(rng.gamma(2, 1, n), 3.0),
        ],
        1,
    )
    return columns, values


def test_a_mixed_table_comes_back_and_survives_json():
    columns, values = mixed()
    codec = fit_codec(Table(Schema(columns), values, Source("rows")))
    assert codec.dim == 1 + 1 + 3 + 1 + 1
    again = Codec.from_json(json.loads(json.dumps(codec.to_json())))
    assert again == codec
    encoded, repeat = codec.encode(values), again.encode(values)
    assert np.array_equal(encoded.points, repeat.points) and np.array_equal(encoded.log_jacobian, repeat.log_jacobian)
    for k in range(16):
        np.testing.assert_allclose(codec.decode(encoded.points[:, k]), values, rtol=1e-12, atol=1e-12)


# --- Jacobians --------------------------------------------------------------------------------------------------------


def jacobian_error(transform):
    """Largest difference of log J from log of the numerical derivative of encode, over rows."""
    values = np.linspace(0.02, 0.98, 50)
    codec = made(Column("x", "continuous", transform=transform), np.random.default_rng(0).beta(2, 3, size=200))
    step = 1e-5 * values * (1 - values)
    ahead, behind = (codec.encode((values + s * step)[:, None]).points[:, 0, 0] for s in (1, -1))
    numerical = np.log((ahead - behind) / (2 * step))
    return np.abs(codec.encode(values[:, None]).log_jacobian[:, 0] - numerical).max()


@pytest.mark.parametrize("transform", ["none", "log", "logit"])
def test_jacobian_is_the_derivative_of_encode(transform):
    assert jacobian_error(transform) < 1e-8


@pytest.mark.parametrize("broken", [encodings.slope_forgotten, encodings.scale_upside_down])
def test_a_wrong_jacobian_is_seen(broken, monkeypatch):
    broken(monkeypatch)
    assert jacobian_error("log") > 1e-2


@pytest.mark.parametrize("transform", ["none", "log", "logit"])
def test_slopes_are_the_derivatives(transform):
    values = np.linspace(0.02, 0.98, 50)
    codec = made(Column("x", "continuous", transform=transform), np.random.default_rng(0).beta(2, 3, size=200))
    slope, bend = codec.slopes(values[:, None])
    np.testing.assert_allclose(
        np.log(slope[:, 0]), codec.encode(values[:, None]).log_jacobian[:, 0], rtol=1e-10, atol=1e-12
    )
    step = 1e-5 * values * (1 - values)
    ahead, behind = (codec.encode((values + s * step)[:, None]).log_jacobian[:, 0] for s in (1, -1))
    np.testing.assert_allclose(bend[:, 0], (ahead - behind) / (2 * step), rtol=1e-6, atol=1e-6)


# --- validity by quadrature (one coordinate) --------------------------------------------------------------------------


def worst_excess(codec, values, monkeypatch, sign=1):
    """max of E exp(bound) − P(cell), and Σ of E exp(bound); with several draws E exp(bound) is the same number."""
    expected = mean_weights(codec, values, monkeypatch)
    return expected - cell_probabilities(codec, values, sign), expected.sum()


UNCAPPED = [name for name, (column, _, _) in NUMBERS.items() if column.low_cap is column.high_cap is None]


@pytest.mark.parametrize("name", UNCAPPED)
def test_grid_cells_tile_the_line(name, monkeypatch):
    column, train, every = NUMBERS[name]
    excess, total = worst_excess(made(column, train), every, monkeypatch)
    # The end values of `every` stand for all beyond them.
    np.testing.assert_allclose(excess[1:-1], 0, atol=1e-9)
    assert total == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("name", [name for name in NUMBERS if name not in UNCAPPED])
def test_caps_own_no_more_than_what_lies_beyond(name, monkeypatch):
    column, train, every = NUMBERS[name]
    excess, total = worst_excess(made(column, train), every, monkeypatch)
    capped = np.isin(every, [cap for cap in (column.low_cap, column.high_cap) if cap is not None])
    np.testing.assert_allclose(excess[~capped][1:], 0, atol=1e-9)
    assert (excess[capped] < 0).all() and total < 1


def test_a_capped_continuous_column_integrates_to_at_most_one(monkeypatch):
    train = np.clip(np.random.default_rng(0).normal(size=300), -1.0, 1.2)
    codec = made(Column("x", "continuous", low_cap=-1.0, high_cap=1.2), train)
    nodes, weights = np.polynomial.legendre.leggauss(400)
    inside = 0.1 + 1.1 * nodes
    density = mean_weights(codec, inside, monkeypatch) @ weights * 1.1
    caps = mean_weights(codec, np.array([-1.0, 1.2]), monkeypatch)
    edges = codec.encode(np.array([[-1.0 + 1e-12], [1.2 - 1e-12]])).points[:, 0, 0]
    below, above = mixture_cdf(edges)
    assert density == pytest.approx(above - below, abs=1e-6)
    assert caps[0] <= below and caps[1] <= 1 - above and caps.min() > 0.01


@pytest.mark.parametrize("kind", ["binary", "categorical"])
def test_two_levels_tile_the_line(kind, monkeypatch):
    codec = levels([30, 70], kind)
    # Level 0 owns the upper side of the threshold. Nodes cluster nowhere, and Φ⁻¹ is steep at its ends: hence 1e-5.
    excess, total = worst_excess(codec, np.array([1.0, 0.0]), monkeypatch, sign=-1)
    np.testing.assert_allclose(excess, 0, atol=1e-5)
    assert total == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize(
    "broken, name",
    [
        (encodings.width_forgotten, "gridded"),
        (encodings.overlapping_cells, "gridded"),
        (encodings.overlapping_cells, "grid capped on it"),
        (encodings.scale_upside_down, "integer"),
        (encodings.slope_forgotten, "log integer"),
        (encodings.mass_forgotten, "binary"),
    ],
)
def test_an_invalid_scheme_is_seen(broken, name, monkeypatch):
    broken(monkeypatch)
    if name == "binary":
        excess, _ = worst_excess(levels([30, 70]), np.array([1.0, 0.0]), monkeypatch, sign=-1)
    else:
        column, train, every = NUMBERS[name]
        excess, _ = worst_excess(made(column, train), every, monkeypatch)
    assert excess.max() > 1e-3


@pytest.mark.parametrize("name", ["integer", "gridded", "grid capped on it"])
def test_the_mean_bound_is_below_log_p(name, monkeypatch):
    """E over the shift of log (1/16 Σ ...) ≤ log P(cell), strictly, and 1 draw is below 16."""
    column, train, every = NUMBERS[name]
    codec = made(column, train)
    values = np.unique(train)
    log_p = np.log(cell_probabilities(codec, every)[np.searchsorted(every, values)])
    shifts = (np.arange(2000) + 0.5) / 2000
    bounds = {}
    for draws in (1, 16):
        real = codec_module.row_uniforms(values[:1, None], draws, 1, 0)
        # On the grid of shifts, so that every draw passes the same 2000 midpoints: their mean is P(cell) to 1e-9.
        steps = np.round((real[0, :, 0] - real[0, 0, 0]) * 2000) / 2000
        at_uniforms(monkeypatch, (shifts[:, None] + steps) % 1.0)
        rows = np.repeat(values, len(shifts)).reshape(-1, len(shifts))
        per_value = []
        for value in rows:
            points, log_jacobian, *_ = codec.encode(value[:, None], draws)
            per_value.append(log_mean_exp(mixture(points[:, :, 0]) + log_jacobian).mean())
        bounds[draws] = np.array(per_value)
        monkeypatch.undo()
    assert (bounds[16] <= log_p + 1e-9).all()
    assert (bounds[1] <= bounds[16] + 1e-9).all() and (bounds[1] < bounds[16] - 1e-6).any()


# --- validity over many coordinates, by salts -------------------------------------------------------------------------


def independent_normals(dim):
    rng = np.random.default_rng(dim)
    return rng.normal(0, 0.5, dim), rng.uniform(0.6, 0.9, dim)


def stick_probabilities(codec, mean, scale):
    """P(category) when y_j ~ N(mean_j, scale_j²) independently."""
    thresholds, _ = codec_module._sticks(codec.parts[0])
    below = ndtr((thresholds - mean) / scale)
    before = np.concatenate([[1.0], np.cumprod(below)])
    return before * np.append(1 - below, 1.0)


def category_means(shares):
    """(mean over salts of exp bound, its standard error, the exact probability) for each category."""
    codec = levels(shares)
    mean, scale = independent_normals(codec.dim)
    values = np.arange(len(shares), dtype=float)[:, None]
    found = []
    for salt in range(SALTS):
        points, log_jacobian, *_ = codec.encode(values, salt=salt)
        log_p = (-0.5 * ((points - mean) / scale) ** 2 - np.log(scale) - 0.5 * np.log(2 * np.pi)).sum(-1)
        found.append(np.exp(log_mean_exp(log_p + log_jacobian)))
    found = np.array(found)
    return found, stick_probabilities(codec, mean, scale)


def z_of(found, truth):
    return (found.mean(0) - truth) / (found.std(0, ddof=1) / np.sqrt(len(found)))


@pytest.mark.parametrize("shares", [[50, 30, 20], [97, 2, 1], list(range(1, 13))], ids=len)
def test_the_bounds_of_all_categories_add_up_to_one(shares):
    found, truth = category_means(shares)
    assert truth.sum() == pytest.approx(1, abs=1e-12)
    assert np.abs(z_of(found, truth)).max() < Z
    assert abs(z_of(found.sum(1), 1.0)) < Z
    assert (np.log(found).mean(0) < np.log(truth)).all()  # Jensen: the stated bound itself


@pytest.mark.parametrize("broken", [encodings.mass_forgotten])
def test_invalid_bounds_of_categories_are_seen(broken, monkeypatch):
    broken(monkeypatch)
    found, _ = category_means([50, 30, 20])
    assert z_of(found.sum(1), 1.0) > Z and found.sum(1).mean() > 1


def test_a_mixed_row_is_a_product(monkeypatch):
    """Σ over integers and categories of ∫ dx of E exp(bound) = 1 for a joint latent density."""
    columns = (
        Column("n", "integer", "integer", step=1.0),
        Column("c", "categorical", "text", levels=("a", "b", "c")),
    )
    rng = np.random.default_rng(0)
    train = np.stack([rng.poisson(2, 200), rng.integers(3, size=200)], 1).astype(float)
    codec = fit_codec(Table(Schema(columns), train, Source("rows")))
    rows = np.array([(n, c) for n in range(-6, 13) for c in range(3)], float)
    factor = np.linalg.cholesky([[0.8, 0.3, -0.2], [0.3, 0.7, 0.1], [-0.2, 0.1, 0.6]])
    sums = []
    for salt in range(SALTS):
        points, log_jacobian, *_ = codec.encode(rows, salt=salt)
        y = np.linalg.solve(factor, points.reshape(-1, 3).T).reshape(3, *points.shape[:2])
        log_p = -0.5 * (y**2).sum(0) - np.log(np.diag(factor)).sum() - 1.5 * np.log(2 * np.pi)
        sums.append(np.exp(log_mean_exp(log_p + log_jacobian)).sum())
    assert abs(z_of(np.array(sums), 1.0)) < Z


# --- draws ------------------------------------------------------------------------------------------------------------


def test_scoring_is_deterministic_and_a_row_is_its_own():
    columns, values = mixed()
    codec = fit_codec(Table(Schema(columns), values, Source("rows")))
    first, again = codec.encode(values), codec.encode(values)
    assert np.array_equal(first.points, again.points) and np.array_equal(first.log_jacobian, again.log_jacobian)
    order = np.random.default_rng(1).permutation(len(values))
    assert np.array_equal(codec.encode(values[order]).points, first.points[order])
    assert np.array_equal(codec.encode(values[5:6]).points, first.points[5:6])
    assert not np.array_equal(codec.encode(values, salt=1).points, first.points)
    minus_zero = np.where(values == 0, -0.0, values)
    assert np.array_equal(codec.encode(minus_zero).points, first.points)


def test_every_draw_is_uniform_over_rows_and_over_salts():
    values = np.arange(25_000.0)[:, None]
    limit = 2.63 / np.sqrt(25_000)
    over_rows = codec_module.row_uniforms(values, 16, 3, 0)
    over_salts = np.concatenate([codec_module.row_uniforms(values[:1], 1, 1, salt) for salt in range(5000)])
    for k, j in [(0, 0), (1, 1), (7, 2), (15, 0)]:
        assert kstest(over_rows[:, k, j], "uniform").statistic < limit
    assert kstest(over_salts.reshape(-1), "uniform").statistic < 2.63 / np.sqrt(5000)
    for a, b in [(0, 1), (1, 2)]:  # coordinates of one draw are independent
        assert abs(np.corrcoef(over_rows[:, 0, a], over_rows[:, 0, b])[0, 1]) < Z / np.sqrt(25_000)
    gaps = np.sort((over_rows[:, :, 0] - over_rows[:, :1, 0]) % 1.0, axis=1)
    assert np.diff(gaps, axis=1).max() < 0.2  # 16 draws hit each sixteenth: 16 independent ones would not


@pytest.mark.parametrize(("m", "d"), [(1, 3), (3, 2), (16, 64), (100, 5), (1024, 2)])
def test_draws_hit_every_stratum_of_every_coordinate_once(m, d):
    u = codec_module.row_uniforms(np.arange(50.0)[:, None], m, d, 0)
    assert u.shape == (50, m, d) and u.min() > 0 and u.max() < 1
    strata = np.sort(np.floor(m * u), axis=1)
    assert (strata == np.arange(m)[None, :, None]).all()  # a Kronecker sequence leaves gaps of .84 where d = 64


def test_coordinates_and_their_parts_are_uncorrelated():
    n, m = 20_000, 16
    u = codec_module.row_uniforms(np.arange(float(n))[:, None], m, 3, 0)
    for a, b in [(0, 1), (0, 2), (1, 2)]:
        assert abs(np.corrcoef(u[..., a].reshape(-1), u[..., b].reshape(-1))[0, 1]) < Z / np.sqrt(n * m)
    # Also within a row, where equal permutations would show, and stratum against place in the stratum.
    within = [np.corrcoef(row[:, 0], row[:, 1])[0, 1] for row in u[:2000]]
    assert abs(np.mean(within)) < Z / np.sqrt(2000 * (m - 1))
    assert np.std(within) == pytest.approx(1 / np.sqrt(m - 1), rel=0.1)
    stratum, place = np.divmod(m * u[..., 0].reshape(-1), 1.0)
    assert abs(np.corrcoef(stratum, place)[0, 1]) < Z / np.sqrt(n * m)
    # A permutation, of which each position holds each stratum equally often: χ² with 15 degrees of freedom.
    counts = np.bincount(np.floor(m * u[:, 7, 2]).astype(int), minlength=m)
    assert ((counts - n / m) ** 2 / (n / m)).sum() < 60


def latent_coordinates(shares, n=25_000):
    """Encoded coordinates of a categorical column beside a continuous one that makes all rows different."""
    rng = np.random.default_rng(0)
    names = tuple(f"level {i}" for i in range(len(shares)))
    columns = (Column("x", "continuous"), Column("c", "categorical", "text", levels=names))
    probability = np.asarray(shares, float) / sum(shares)
    values = np.stack([rng.normal(size=n), rng.choice(len(shares), n, p=probability)], 1)
    codec = fit_codec(Table(Schema(columns), values, Source("rows")))
    return codec.encode(values, 1).points[:, 0, 1:]


@pytest.mark.parametrize("shares", [[3, 7], [60, 30, 9, 1], [1] * 12], ids=len)
def test_encoded_categories_are_standard_normal(shares):
    for y in latent_coordinates(shares).T:
        assert kstest(y, "norm").statistic < 2.63 / np.sqrt(len(y))


def test_wrong_thresholds_are_seen(monkeypatch):
    encodings.equal_shares(monkeypatch)
    y = latent_coordinates([60, 30, 9, 1])
    assert max(kstest(column, "norm").statistic for column in y.T) > 2.63 / np.sqrt(len(y))


def test_draws_of_equal_training_rows_can_differ():
    """A table of few distinct rows would else be trained on few distinct points."""
    codec = levels([30, 70])
    values = np.repeat([0.0, 1.0], 50)[:, None]
    points = codec.encode(values, 1, salt=7 + np.arange(100)).points
    assert len(np.unique(points)) == 100
    np.testing.assert_array_equal(codec.decode(points[:, 0]), values)
    assert np.array_equal(points[3:4], codec.encode(values[3:4], 1, salt=10).points)


def test_a_schema_that_only_lost_its_caps_decodes_without_them():
    column, train, _ = NUMBERS["grid capped on it"]
    assert made(replace(column, low_cap=None, high_cap=None), train).decode([[9.0]])[0, 0] > 8


# --- cells and supports -----------------------------------------------------------------------------------------------

SUPPORTS = {
    "low cap of a count": (
        Column("n", "integer", "integer", step=1.0, low_cap=0.0, transform="log"),
        np.maximum(np.random.default_rng(0).poisson(20, 500) - 18, 0),
    ),
    "low cap": (
        Column("x", "continuous", low_cap=0.5, transform="log"),
        np.maximum(np.random.default_rng(1).lognormal(size=500), 0.5),
    ),
    "both caps": (
        Column("p", "continuous", low_cap=0.05, high_cap=0.95, transform="logit"),
        np.clip(np.random.default_rng(2).beta(0.4, 0.4, 500), 0.05, 0.95),
    ),
    "a grid beside 0": (
        Column("g", "gridded", step=1.0, offset=0.75, decimals=2, transform="log"),
        np.random.default_rng(3).poisson(1, 500) - 0.25,
    ),
    "a grid whose point is the end": (
        Column("g", "gridded", step=1.0, offset=0.5, decimals=1, transform="log"),
        np.random.default_rng(4).poisson(1, 500) + 0.5,
    ),
    "a grid that misses 1": (
        Column("g", "gridded", step=0.3, decimals=1, transform="logit"),
        (0.3 * np.random.default_rng(5).integers(0, 4, 500)).round(1),
    ),
}


@pytest.mark.parametrize("name", SUPPORTS)
def test_cells_stay_inside_the_support(name):
    column, train = SUPPORTS[name]
    codec = made(column, train)
    encoded = codec.encode(train[:, None])
    assert np.isfinite(encoded.points).all() and np.isfinite(encoded.log_jacobian).all()
    for k in range(encoded.points.shape[1]):
        np.testing.assert_allclose(codec.decode(encoded.points[:, k])[:, 0], train, rtol=0, atol=1e-12)
    ends = codec.decode([[-50.0], [50.0]])[:, 0]
    assert not outside_support(column, ends).any()
