"""log p of many rows at once, against a second computation in float64 that knows nothing of XLA.

XLA's CPU compiler (JAX 0.10.2) gave wrong numbers, nats off, for a matrix product fused into a sum over the leading axis,
and only under ``jit(vmap)`` of a large model: tests of single rows and of small models saw nothing. So every density that
scores rows is held here to NumPy, at the sizes and through the function that the library uses.
"""

from __future__ import annotations

import math
import time

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.linalg import solve_triangular
from scipy.special import expit, logsumexp

from mulligan.data.codec import Encoded
from mulligan.data.native import fit_native_codec
from mulligan.data.table import Column, Schema, Source, Table
from mulligan.families.kde import _scores
from mulligan.measures import likelihood
from mulligan.measures.likelihood import point_log_prob
from mulligan.models.autoregressive import make_autoregressive
from mulligan.models.columns import columns_of
from mulligan.models.factor import FactorModel
from mulligan.models.kernel_density import KernelDensity
from mulligan.targets.counting import Histogram
from mulligan.targets.discrete import Enumerated, states
from mulligan.targets.gaussian import Gaussian
from mulligan.targets.known import log_prob_float64
from mulligan.targets.mixture import GaussianMixture
from mulligan.targets.named import draw_rows, law, law_names
from mulligan.workbench.fitting import fit
from mulligan.workbench.sources import open_table

ROWS = 2048
KERNEL_SIZES = [(1000, 2), (20_000, 2), (5600, 6), (20_000, 6)]  # XLA failed from n·d = 24 576 on
PLANE = [name for name in law_names() if not isinstance(law(name), Enumerated)]
LATTICES = [name for name in law_names() if name not in PLANE]


def float32(*arrays):
    """The arrays as the model holds them, so that its rounding of parameters is not counted as an error."""
    return [np.asarray(array, np.float32) for array in arrays]


def factors(rng, k, d):
    """Lower triangular (k, d, d), well conditioned for every d."""
    return np.tril(0.4 / math.sqrt(d) * rng.normal(size=(k, d, d)), -1) + np.eye(d) * rng.uniform(0.4, 1.2, (k, 1, d))


def log_normal(x, mean, factor):
    """log N(x; mean, factor·factorᵀ) of rows (n, d), by SciPy in float64."""
    factor = np.asarray(factor, np.float64)
    z = solve_triangular(factor, (np.asarray(x, np.float64) - mean).T, lower=True)
    return -0.5 * (z**2).sum(0) - np.log(np.diag(factor)).sum() - 0.5 * len(factor) * math.log(2 * math.pi)


def error(model, x, truth):
    """The largest |difference| in nats over rows; rows of density 0 must have density 0 on both sides."""
    found = point_log_prob(model, x)
    assert found.shape == truth.shape and np.isfinite(truth).any()
    np.testing.assert_array_equal(np.isneginf(found), np.isneginf(truth))
    with np.errstate(invalid="ignore"):
        return np.nanmax(np.where(np.isneginf(truth), 0.0, np.abs(found - truth)))


@pytest.mark.parametrize("d", [1, 2, 6, 64])
def test_gaussian(d):
    rng = np.random.default_rng(d)
    mean, factor = float32(rng.normal(size=d), factors(rng, 1, d)[0])
    x = (mean + rng.normal(size=(ROWS, d)) @ factor.T).astype(np.float32)
    assert error(Gaussian(mean, factor), x, log_normal(x, mean, factor)) < 2e-4


@pytest.mark.parametrize(("k", "d"), [(1, 2), (8, 6), (64, 2), (64, 16), (64, 64)])
def test_mixture(k, d):
    rng = np.random.default_rng(k + d)
    weights, means, cholesky = float32(rng.normal(size=k), 3 * rng.normal(size=(k, d)), factors(rng, k, d))
    part = rng.integers(k, size=ROWS)
    x = (means[part] + np.einsum("nij,nj->ni", cholesky[part], rng.normal(size=(ROWS, d)))).astype(np.float32)
    parts = np.stack([log_normal(x, mean, factor) for mean, factor in zip(means, cholesky)])
    truth = logsumexp(parts + (weights - logsumexp(np.float64(weights)))[:, None], axis=0)
    assert error(GaussianMixture(weights, means, cholesky), x, truth) < 2e-4


@pytest.mark.parametrize(("d", "q"), [(2, 1), (6, 3), (64, 20)])
def test_factor_model(d, q):
    rng = np.random.default_rng(d)
    mean, loadings, noise = float32(rng.normal(size=d), rng.normal(size=(d, q)), rng.uniform(0.2, 1.5, d))
    x = mean + rng.normal(size=(ROWS, q)) @ loadings.T + rng.normal(size=(ROWS, d)) * np.sqrt(noise)
    x = x.astype(np.float32)
    wide = loadings.astype(np.float64)
    truth = log_normal(x, mean, np.linalg.cholesky(wide @ wide.T + np.diag(noise.astype(np.float64))))
    assert error(FactorModel(*map(jnp.asarray, (mean, loadings, noise))), x, truth) < 5e-4


def kernel_setting(n, d):
    """A kernel density of n centres with a skewed L, and rows from it: (model, rows, log p in float64)."""
    rng = np.random.default_rng(n + d)
    bandwidth = np.float32(n ** (-1 / (d + 4)))
    centres, factor = float32(rng.normal(size=(n, d)), factors(rng, 1, d)[0])
    u = centres[rng.integers(n, size=ROWS)] + bandwidth * rng.normal(size=(ROWS, d))
    x = (u @ factor.T).astype(np.float32)
    return KernelDensity(*map(jnp.asarray, (centres, factor, bandwidth))), x, kernel_twin(centres, factor, bandwidth, x)


def kernel_twin(centres, factor, bandwidth, x):
    """log p of rows x by the expanded square, which float64 can afford."""
    n, d = centres.shape
    c, factor, h = (np.asarray(array, np.float64) for array in (centres, factor, bandwidth))
    u = solve_triangular(factor, x.astype(np.float64).T, lower=True).T
    constant = d * np.log(h) + np.log(np.diag(factor)).sum() + 0.5 * d * math.log(2 * math.pi) + math.log(n)
    found = np.empty(len(x))
    for i in range(0, len(x), 256):
        block = u[i : i + 256]
        exponent = block @ (c.T / h**2)
        exponent -= 0.5 * (block**2).sum(1)[:, None] / h**2
        exponent -= 0.5 * (c**2).sum(1) / h**2
        top = exponent.max(1)
        exponent -= top[:, None]
        found[i : i + 256] = np.log(np.exp(exponent, out=exponent).sum(1)) + top
    return found - constant


@pytest.mark.parametrize(("n", "d"), KERNEL_SIZES)
def test_kernel_density(n, d):
    model, x, truth = kernel_setting(n, d)
    assert error(model, x, truth) < 5e-5


def test_scores_of_the_bandwidth_search():
    """The search scores eight bandwidths in a program of its own; each must be the log p of the model with that width."""
    model, x, truth = kernel_setting(20_000, 2)
    x, truth = x[:512], truth[:512]
    select = Encoded(x[:, None, :].astype(np.float64), np.zeros((512, 1)))
    widths = [0.5 * float(model.bandwidth), float(model.bandwidth)]
    centres, factor = np.asarray(model.whitened), np.asarray(model.cholesky, np.float64)
    found = _scores(select, centres, factor, None, None, widths)
    narrow = kernel_twin(centres, factor, widths[0], x)
    np.testing.assert_allclose(found, [narrow.mean(), truth.mean()], atol=1e-4)


def test_the_search_and_the_fitted_model_state_one_score():
    """One bandwidth is tried, for time: the search scores it in its program of eight all the same."""
    rows = np.random.default_rng(0).normal(size=(30_000, 2))
    fitted = fit(open_table(rows), "kde", effort="quick", options={"kernel": "full", "bandwidth": "0.15"})
    best = max(choice["select"] for choice in fitted.card["row"]["choices"])
    assert fitted.card["row"]["select_log_prob"] == pytest.approx(best, abs=1e-3)
    # A normal's entropy: 21 000 centres come near.
    assert best == pytest.approx(-math.log(2 * math.pi * math.e), abs=0.05)


@pytest.mark.parametrize("tails", [False, True])
@pytest.mark.parametrize(("bins", "d"), [(30, 1), (200, 2), (60, 3)])
def test_histogram(bins, d, tails):
    rng = np.random.default_rng(bins)
    rows = rng.normal(size=(50_000, d)).astype(np.float32)
    edges = np.sort(rng.uniform(-4, 4, (d, bins + 1)), axis=1).astype(np.float32)
    edges[:, 0], edges[:, -1] = (-3, 3) if tails else (-6, 6)
    edges.sort(axis=1)
    edges = np.stack([np.unique(axis) for axis in edges])
    pseudo = 0.25 if tails else 0.0
    model = Histogram.from_rows(rows, list(edges), pseudo, tails)
    x = np.concatenate([rows[: ROWS // 2], rng.uniform(-5, 5, (ROWS // 2, d)).astype(np.float32)])
    assert error(model, x, histogram_twin(rows, edges.astype(np.float64), pseudo, tails, x)) < 1e-4


def histogram_twin(rows, edges, pseudo, tails, x):
    """By NumPy's own counting; with tails the outermost cells are open and exponential, as wide as their neighbour."""
    reach = [np.concatenate([[-np.inf], axis, [np.inf]]) if tails else axis for axis in edges]
    counts = np.histogramdd(rows.astype(np.float64), reach)[0] + pseudo
    log_p, place = np.zeros(len(x)), []
    for value, axis, full in zip(x.T.astype(np.float64), edges, reach):
        place.append(np.searchsorted(full, value, side="right") - 1)
        inner = np.searchsorted(axis, value, side="right").clip(1, len(axis) - 1)
        width = axis[inner] - axis[inner - 1]
        outside = np.maximum(axis[0] - value, 0) + np.maximum(value - axis[-1], 0)
        log_p -= np.log(width) + outside / width
    with np.errstate(divide="ignore"):
        return log_p + np.log(counts[tuple(place)]) - math.log(counts.sum())


@pytest.mark.parametrize("name", LATTICES)
def test_enumerated_law(name):
    """log P = f − log Σ exp f over all states, f in NumPy."""
    source = law(name)
    x = draw_rows(name, ROWS, 3).astype(np.float32)
    every = states(0, source.levels**source.dim, source.levels, source.dim)
    truth = lattice_twin(name, source, x) - logsumexp(lattice_twin(name, source, every))
    assert error(source, x, truth) < 5e-6


def lattice_twin(name, source, x):
    x = np.asarray(x, np.float64)
    if name == "rbm-6x4":
        w, b, c = (np.asarray(array, np.float64) for array in (source.W, source.b, source.c))
        return x @ b + np.logaddexp(0, c + x @ w).sum(1)
    shape, beta = ((3, 3), 0.44) if name == "ising-3x3" else ((2, 3), 0.5)
    grid = x.reshape(-1, *shape)
    match = (lambda a, b: (2 * a - 1) * (2 * b - 1)) if name == "ising-3x3" else (lambda a, b: a == b)
    down = match(grid[:, 1:], grid[:, :-1]).sum((1, 2))
    across = match(grid[:, :, 1:], grid[:, :, :-1]).sum((1, 2))
    return beta * (down + across)


@pytest.mark.parametrize("name", PLANE)
def test_named_law(name):
    source = law(name)
    rng = np.random.default_rng(0)
    x = draw_rows(name, ROWS, 3)
    x[::4] += rng.normal(0, 0.1, x[::4].shape)  # some rows beside the law's ridge
    x = x.astype(np.float32)
    assert error(source, x, log_prob_float64(source, x)) < 5e-4


@pytest.mark.parametrize(("repeats", "width", "depth"), [(1, 64, 1), (4, 256, 3)])
def test_autoregressive(repeats, width, depth):
    model, rows, codec = autoregressive_setting(repeats, width, depth)
    points = codec.encode(rows).points[:, 0].astype(np.float32)
    assert error(model, points, autoregressive_twin(model, rows, codec)) < 1e-3


def autoregressive_setting(repeats, width, depth):
    """A model of continuous, integer and category columns, each repeated, far from its start: (model, rows, codec)."""
    rng = np.random.default_rng(width)
    levels = ("a", "b", "c")
    columns, values = [], []
    for i in range(repeats):
        columns.append(Column(f"x{i}", "continuous"))
        columns.append(Column(f"k{i}", "integer", "integer", step=1.0))
        columns.append(Column(f"c{i}", "categorical", "text", levels=levels))
        values += [rng.normal(size=ROWS), rng.poisson(4, ROWS), rng.integers(0, 3, ROWS)]
    rows = np.stack(values, 1).astype(float)
    codec = fit_native_codec(Table(Schema(tuple(columns)), rows, Source("rows")))
    order = rng.permutation(len(columns))
    model = make_autoregressive(columns_of(codec), rng, order=order, width=width, depth=depth)
    noise = rng.normal(size=model.net.weights[-2].shape) / math.sqrt(width)
    return eqx.tree_at(lambda m: m.net.weights[-2], model, jnp.asarray(noise, jnp.float32)), rows, codec


def autoregressive_twin(model, rows, codec):
    """By masked matrices and distribution functions in float64, column after column, edges in the user's units."""
    net = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), model.net)
    silu = lambda a: a * expit(a)  # noqa: E731
    z = codec.encode(rows).points[:, 0]
    numbers = [j for j in range(z.shape[1]) if j % 3 == 0] + [j for j in range(z.shape[1]) if j % 3 == 1]
    waves = [wave(k * z[:, numbers]) for wave in (np.sin, np.cos) for k in model.frequencies]
    which = [rows[:, [j]] == np.arange(3) for j in range(2, z.shape[1], 3)]
    x = np.concatenate([z[:, numbers], *waves, *which], 1)
    masked = [weight.copy() for weight in net.weights]
    for weight, to, source in zip(
        masked,
        [net.hidden] * (len(masked) - 2) + [net.outputs + 0.5, net.outputs],
        [net.inputs + 0.5] + [net.hidden] * (len(masked) - 2) + [net.inputs + 0.5],
    ):
        weight[to[:, None] < source] = 0
    h = x @ masked[0].T + net.biases[0]
    for i in range(1, len(masked) - 2, 2):
        h = h + silu(silu(h) @ masked[i].T + net.biases[i]) @ masked[i + 1].T + net.biases[i + 1]
    out = silu(h) @ masked[-2].T + net.biases[-1] + x @ masked[-1].T
    log_p, start = np.zeros(len(rows)), 0
    for place, j in enumerate(numbers):
        logits, mean, raw = np.moveaxis(out[:, start : start + 48].reshape(-1, 3, 16), 1, 0)
        start += 48
        part, weight = codec.parts[j], logits - logsumexp(logits, axis=1, keepdims=True)
        if place < len(numbers) // 2:
            scale = np.logaddexp(0, raw) + 1e-3
            y = (z[:, [j]] - mean) / scale
            log_p += logsumexp(weight - 0.5 * y**2 - np.log(scale * math.sqrt(2 * math.pi)), axis=1)
        else:
            scale = np.logaddexp(0, raw) + min(1e-3, 0.1 / part.scale)
            edges = [((rows[:, [j]] + side - part.mean) / part.scale - mean) / scale for side in (-0.5, 0.5)]
            flip = -np.sign(edges[0] + edges[1])  # the lower tail is the one without cancellation
            inside = np.abs(expit(flip * edges[1]) - expit(flip * edges[0]))
            log_p += np.log((np.exp(weight) * inside).sum(1))
    for j in range(2, z.shape[1], 3):
        logits = np.concatenate([np.zeros((len(rows), 1)), out[:, start : start + 2]], 1)
        start += 2
        log_p += np.take_along_axis(logits, rows[:, [j]].astype(int), 1)[:, 0] - logsumexp(logits, axis=1)
    return log_p


def test_a_model_that_is_a_little_off_is_seen():
    rng = np.random.default_rng(0)
    mean, factor, x = float32(rng.normal(size=2), factors(rng, 1, 2)[0], rng.normal(size=(ROWS, 2)))
    assert error(Gaussian(mean, 1.001 * factor), x, log_normal(x, mean, factor)) > 5e-4


@pytest.mark.parametrize("threads", [1, 3])
def test_blocks_shared_by_threads_come_back_in_order(threads, monkeypatch):
    monkeypatch.setattr(likelihood, "MOST_THREADS", threads)
    points, weights = np.arange(190.0).reshape(95, 2), np.arange(95.0)

    def slow_first(block, weight):
        time.sleep(0.02 if block[0, 0] == 20 else 0.0)  # the second block, the first that threads take
        return block.sum(1) * weight

    found = likelihood.in_blocks(slow_first, points, weights, size=10)
    np.testing.assert_array_equal(found, points.sum(1) * weights)
    assert len(points) >= likelihood.SHARED_FROM * 10
