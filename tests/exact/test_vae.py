"""The variational autoencoder against closed forms and quadrature in float64; each check refuses broken twins.

A linear model with the exact encoder has weights that are all p(x), whatever the noise; with another encoder the ELBO falls
short of log p(x) by KL(q(z|x)‖p(z|x)), which Gauss-Hermite nodes give exactly (``relation.vae``). What is random is held to
its exact law at |z| < 4.75 (level 2e-6).
"""

from __future__ import annotations

import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from saboteurs import vae as twins
from scipy.stats import kstest, multivariate_normal, norm

from mulligan.core import capabilities
from mulligan.data.codec import Part
from mulligan.data.native import NativeCodec, fit_native_codec
from mulligan.data.table import Column, Schema, Source, Table
from mulligan.loop import compile_small
from mulligan.measures.latent import active_units, aggregated_mismatch, annealed_log_prob, simulated_log_prob
from mulligan.models import heads, vae
from mulligan.models.columns import columns_of
from mulligan.models.vae import VAE, cell_key, make_vae
from mulligan.nets.mlp import MLP
from mulligan.objectives.evidence import Evidence
from mulligan.objectives.likelihood import Rows

TIGHT, Z = 1e-9, 4.75
MEAN, SIGMA = np.array([0.3, -0.2, 0.1]), 0.6
LOADINGS = np.linalg.qr(np.random.default_rng(5).normal(size=(3, 3)))[0][:, :2] * [1.5, 0.7]  # orthogonal columns
COVARIANCE = LOADINGS @ LOADINGS.T + SIGMA**2 * np.eye(3)
POSTERIOR_VARIANCE = SIGMA**2 / (SIGMA**2 + np.sum(LOADINGS**2, axis=0))
POSTERIOR_MAP = LOADINGS.T * POSTERIOR_VARIANCE[:, None] / SIGMA**2  # z given x is N(this (x − MEAN), diag of that)
POINTS = MEAN + np.random.default_rng(6).normal(size=(5, 3)) @ np.linalg.cholesky(COVARIANCE).T
LOG_P = multivariate_normal(MEAN, COVARIANCE).logpdf(POINTS)


@pytest.fixture(autouse=True)
def x64():
    with jax.enable_x64(True):
        yield


def continuous(d):
    columns = tuple(Column(f"x{j}", "continuous") for j in range(d))
    return columns_of(NativeCodec(Schema(columns), tuple(Part(j, 1) for j in range(d))))


def linear(shift=0.0, stretch=1.0, draws=50) -> VAE:
    """The linear model; its encoder is exact, or has its mean and its deviation disturbed."""
    log_sd = 0.5 * np.log(POSTERIOR_VARIANCE) + np.log(stretch)
    encoder = np.concatenate([POSTERIOR_MAP, np.zeros((2, 3))]), np.concatenate([shift - POSTERIOR_MAP @ MEAN, log_sd])
    networks = [MLP((jnp.asarray(w),), (jnp.asarray(b),)) for w, b in (encoder, (LOADINGS, MEAN))]
    raw = np.log(np.expm1(np.full(1, SIGMA - 1e-3)))
    return VAE(continuous(3), *networks, jnp.asarray(raw), 2, draws)


EXACT, DISTURBED = {}, {"shift": 0.3, "stretch": 1.4}


def hermite(nodes, q):
    """Nodes (m, q) and log weights of E over N(0, I_q)."""
    x, w = np.polynomial.hermite_e.hermegauss(nodes)
    grid = np.array(list(itertools.product(x, repeat=q)))
    weights = np.array([np.prod(pick) for pick in itertools.product(w / w.sum(), repeat=q)])
    return grid, weights


# --- bounds -----------------------------------------------------------------------------------------------------------


def elbo_error():
    """The worst error of the ELBO with another encoder, and of what β weighs in it."""
    nodes, weights = hermite(3, 2)

    @compile_small
    def found(model, points, noise):
        def row(x, beta):
            return jax.vmap(lambda e: model.evidence(e, x, None, beta))(noise)

        return jax.vmap(lambda x: jax.vmap(lambda beta: row(x, beta))(jnp.array([1.0, 2.0])))(points)

    elbo, doubled = np.moveaxis(np.asarray(found(linear(**DISTURBED), jnp.asarray(POINTS), jnp.asarray(nodes))), 1, 0)
    shift, stretch = DISTURBED["shift"], DISTURBED["stretch"]
    gap = np.sum(0.5 * (shift**2 / POSTERIOR_VARIANCE + stretch**2 - 1) - np.log(stretch))
    mean = (POINTS - MEAN) @ POSTERIOR_MAP.T + shift
    variance = POSTERIOR_VARIANCE * stretch**2
    divergence = 0.5 * np.sum(mean**2 + variance - 1 - np.log(variance), axis=1)
    errors = elbo @ weights - (LOG_P - gap), (elbo - doubled) @ weights - divergence
    return max(np.abs(error).max() for error in errors)


def weight_error():
    """The worst error of the weights with the exact encoder, which are p(x)."""
    found = compile_small(lambda model, points, noise: jax.vmap(lambda x: model.log_weights(noise, x))(points))
    log_w = np.asarray(found(linear(), jnp.asarray(POINTS), jnp.asarray(hermite(3, 2)[0])))
    return np.abs(log_w - LOG_P[:, None]).max()


def mean_error():
    """The worst error of IWAE-50, whose last chunk of draws is cut."""
    found = compile_small(lambda model, points, key: jax.vmap(lambda x: model.importance_bound(key, x, 50))(points))
    return np.abs(np.asarray(found(linear(), jnp.asarray(POINTS), jax.random.key(0))) - LOG_P).max()


CHECKS = {elbo_error: twins.ELBOS, weight_error: twins.WEIGHTS, mean_error: twins.MEANS}


@pytest.mark.parametrize("check", CHECKS)
def test_a_linear_model_has_its_bounds_in_closed_form(check):
    assert check() < TIGHT


@pytest.mark.parametrize("check, name", [(check, name) for check, names in CHECKS.items() for name in names])
def test_broken_bounds_are_refused(check, name, monkeypatch):
    CHECKS[check][name](monkeypatch)
    assert check() > 1e-3


def a_table() -> NativeCodec:
    """All kinds of column: a number, a count with a cap, three levels, two levels."""
    columns = (
        Column("number", "continuous"),
        Column("count", "integer", "integer", step=1.0, low_cap=0.0, high_cap=3.0),
        Column("three", "categorical", "text", levels=("a", "b", "c")),
        Column("two", "binary", "text", levels=("no", "yes")),
    )
    rng = np.random.default_rng(0)
    drawn = [rng.normal(size=40), rng.integers(0, 4, 40), rng.integers(0, 3, 40), rng.integers(0, 2, 40)]
    return fit_native_codec(Table(Schema(columns), np.stack(drawn, 1).astype(float), Source("rows")))


@pytest.mark.parametrize("noise", ["column", "latent"])
def test_rows_of_every_kind_of_column_have_mass_one_given_z_and_bounds_rise(noise):
    codec = a_table()
    model = make_vae(columns_of(codec), np.random.default_rng(1), latent=1, width=6, depth=1, draws=3, noise=noise)
    model = jax.tree.map(lambda leaf: leaf.astype(float) if eqx.is_inexact_array(leaf) else leaf, model)
    wide = jnp.array([0.0, 0.4])  # an encoder wider than the posterior: its weights are smooth at the nodes
    model = eqx.tree_at(
        lambda m: (m.encoder.weights[-1], m.encoder.biases[-1]), model, replace_fn=lambda leaf: 0.2 * leaf
    )
    model = eqx.tree_at(lambda m: m.encoder.biases[-1], model, wide)
    legendre, area = np.polynomial.legendre.leggauss(240)
    cells = np.array(list(itertools.product(range(4), range(3), range(2))), float)
    numbers = np.repeat(8.0 * legendre, len(cells))
    values = np.column_stack([numbers, np.tile(cells, (240, 1))])
    points = codec.encode(values).points[:, 0]
    points[:, 0] = numbers  # the number itself, in standardised units
    row, codes = jnp.asarray(points[120 * len(cells) + 3]), jnp.asarray(np.linspace(-9.0, 9.0, 1201))
    nodes = np.linspace(-9.0, 9.0, 181)  # evenly spaced: any smooth law is integrated to rounding
    weights = norm.pdf(nodes) / norm.pdf(nodes).sum()

    @compile_small
    def found(model, points, z, codes, row, pairs):
        given_z = jax.vmap(lambda x: model.log_likelihood(z, x))(points)
        of_codes = jax.vmap(lambda code: model.log_likelihood(code[None], row))(codes)
        log_w = jax.vmap(lambda noise: model.log_weights(noise, row))(pairs)
        mean, log_sd = model.posterior(row)
        z = mean + jnp.exp(log_sd) * pairs[:, 0]
        return given_z, of_codes, log_w, jax.vmap(lambda z: model.log_likelihood(z, row))(z), z[:, 0], mean, log_sd

    pairs = np.stack(np.meshgrid(nodes, nodes, indexing="ij"), -1)[..., None].reshape(-1, 2, 1)
    made = found(model, jnp.asarray(points), jnp.array([0.7]), codes, row, jnp.asarray(pairs))
    given_z, of_codes, log_w, of_z, z, mean, log_sd = map(np.asarray, made)
    assert abs(np.exp(given_z) @ np.repeat(8.0 * area, len(cells)) - 1) < 1e-7
    codes = np.asarray(codes)
    log_p = np.log(np.trapezoid(np.exp(of_codes) * norm.pdf(codes), codes))
    formula = of_z + norm.logpdf(z) - norm.logpdf(z, mean[0], np.exp(log_sd[0]))
    np.testing.assert_allclose(log_w[:, 0], formula, atol=TIGHT, rtol=TIGHT)
    both = np.outer(weights, weights).reshape(-1)
    expected_weight = np.exp(log_w[:, 0]) @ both
    one, two = log_w[:, 0] @ both, (np.logaddexp(*log_w.T) - np.log(2)) @ both
    assert abs(np.log(expected_weight) - log_p) < 1e-6 and one < two < log_p


def test_what_it_can_do_and_what_is_not_a_number():
    model = linear(draws=3)
    assert capabilities(model) == ("Sampler", "Density", "Bound") and model.kind == "lower bound"

    @compile_small
    def found(model, points):
        return jax.vmap(model.log_prob)(points), jax.vmap(jax.grad(model.log_prob))(points)

    points = POINTS.copy()
    points[0, 1] = np.nan
    log_p, score = (np.asarray(leaf) for leaf in found(model, jnp.asarray(points)))
    assert np.isnan(log_p[0]) and np.isfinite(log_p[1:]).all()
    np.testing.assert_allclose(score[1:], -(POINTS[1:] - MEAN) @ np.linalg.inv(COVARIANCE), atol=TIGHT)


# --- hashed draws -----------------------------------------------------------------------------------------------------


def key_faults(function):
    """What is wrong with a function that hashes keys; empty if nothing."""
    rng = np.random.default_rng(3)
    corners = rng.permutation(np.array(list(itertools.product(range(-60, 60), repeat=2))))[:8000]
    inside = (corners + rng.uniform(0.01, 0.99, corners.shape)) * vae.CELL
    words = compile_small(lambda points: jax.vmap(lambda x: jax.random.key_data(function(x)))(points))
    one, again = (np.asarray(words(jnp.asarray(p))) for p in (inside, (corners + 0.5) * vae.CELL))
    faults = []
    if not np.array_equal(one, again):
        faults.append("two points of a cell have different keys")
    if len(np.unique(one, axis=0)) < len(one):
        faults.append("cells share a key")
    bits = (one.reshape(-1)[:, None] >> np.arange(32)) & 1
    if np.abs(bits.mean(0) - 0.5).max() > Z * 0.5 / np.sqrt(len(bits)):
        faults.append("bits are not even")
    return faults


def test_keys_are_of_cells_and_all_different():
    assert not key_faults(cell_key)
    words = compile_small(lambda x: jax.random.key_data(cell_key(x)))
    zeros = [np.asarray(words(jnp.asarray([zero, 1.0]))) for zero in (0.0, -0.0)]
    assert np.array_equal(*zeros)  # −0 is in the cell of 0


@pytest.mark.parametrize("name", twins.KEYS)
def test_broken_keys_are_refused(name):
    assert key_faults(twins.KEYS[name])


def test_hashed_weights_are_unbiased_and_fall_short_in_the_mean(seed):
    """E exp(bound) = p(x) with draws of its own for each row, and the mean of the bound is below log p."""
    points = np.random.default_rng(seed).uniform(-3, 3, (20_000, 3))
    log_p = multivariate_normal(MEAN, COVARIANCE).logpdf(points)
    score = compile_small(lambda model, points: jax.vmap(model.log_prob)(points))
    ratio = np.asarray(score(linear(shift=0.2, stretch=1.3, draws=4), jnp.asarray(points))) - log_p
    error = (np.exp(ratio).mean() - 1) / (np.exp(ratio).std() / np.sqrt(len(ratio)))
    assert abs(error) < Z, f"E w / p(x) = {np.exp(ratio).mean():.4f}, z = {error:.1f}, seed {seed}"
    assert ratio.mean() < -Z * ratio.std() / np.sqrt(len(ratio))
    assert np.exp(ratio).std() > 0.05  # draws with one sided weights would be no test


# --- draws ------------------------------------------------------------------------------------------------------------


def sampling_error(draw, seed):
    """The greatest |z| of first and second moments of the whitened pair (z, x), and of a Kolmogorov test of a projection."""
    n = 25_000
    both = np.block([[np.eye(2), LOADINGS.T], [LOADINGS, COVARIANCE]])
    keys = jax.random.split(jax.random.key(seed), n)
    z, x = (
        np.asarray(leaf)
        for leaf in compile_small(lambda model, keys: jax.vmap(lambda k: draw(model, k))(keys))(linear(), keys)
    )
    white = np.linalg.solve(np.linalg.cholesky(both), np.column_stack([z, x - MEAN]).T)
    second = (white @ white.T / n - np.eye(5)) / np.where(np.eye(5) > 0, np.sqrt(2), 1.0) * np.sqrt(n)
    projection = np.array([1.0, -1.0, 1.0, 1.0, -1.0]) / np.sqrt(5) @ white
    distance = kstest(projection, "norm").statistic * np.sqrt(n) / 2.63 * Z
    return max(np.abs(white.mean(1) * np.sqrt(n)).max(), np.abs(second).max(), distance)


def test_draws_follow_the_model_and_their_codes_its_posterior(seed):
    assert sampling_error(lambda model, key: model.sample_both(key), seed) < Z


@pytest.mark.parametrize("name", twins.SAMPLES)
def test_broken_samplers_are_refused(name, seed):
    assert sampling_error(twins.SAMPLES[name], seed) > Z


# --- the objective ----------------------------------------------------------------------------------------------------


def objective_error(objective, evidence):
    """Against the bounds of the model with the same noise, written out."""
    model, key, rows = linear(**DISTURBED), jax.random.key(1), Rows(jnp.asarray(POINTS))

    @compile_small
    def found(model, key, rows):
        noise = jax.random.normal(key, (len(POINTS), evidence.draws, 2), float)
        elbo = jax.vmap(lambda e, x: model.evidence(e[0], x, None, evidence.beta))(noise, rows.points)
        weights = jnp.exp(jax.vmap(model.log_weights)(noise, rows.points))
        bound = elbo if evidence.draws == 1 else jnp.log(jnp.mean(weights, axis=1))
        return objective(model, key, rows, evidence), -jnp.mean(bound)

    (loss, info), expected = found(model, key, rows)
    return float(abs(loss - expected) + abs(info["train"] + expected))


CASES = {"elbo": Evidence(1, 2.5), "iwae": Evidence(4)}


@pytest.mark.parametrize("case", CASES)
def test_the_objective_is_the_bound_with_its_sign_turned(case):
    assert objective_error(lambda model, key, batch, evidence: evidence(model, key, batch), CASES[case]) < TIGHT


@pytest.mark.parametrize("name, case", [("sign", "elbo"), ("β forgotten", "elbo"), ("mean of logarithms", "iwae")])
def test_broken_objectives_are_refused(name, case):
    assert objective_error(twins.OBJECTIVES[name], CASES[case]) > 1e-3


# --- what is measured of it -------------------------------------------------------------------------------------------


def mismatch_holds(measure):
    """Whether the bracket holds KL(q(z)‖N(0, I)) of Gaussian codes: matched, shifted and wide ones, and sharp ones of few
    rows, where the mutual information is near log n."""
    rng = np.random.default_rng(4)
    held = []
    for n, spread, sd, centre in ((1000, 0.8, 0.6, 0.0), (1000, 1.2, 0.5, 0.4), (60, 1.0, 0.02, 0.0)):
        means = centre + spread * rng.normal(size=(n, 2))
        variance = spread**2 + sd**2
        truth = 2 * 0.5 * (variance + centre**2 - 1 - np.log(variance))
        found = measure(means, np.full((n, 2), np.log(sd)))
        held.append(found.kind == "bracket" and found.contains(truth))
    return held


def test_the_aggregated_posterior_is_measured_between_bounds():
    assert all(mismatch_holds(aggregated_mismatch))
    rng = np.random.default_rng(8)
    found = aggregated_mismatch(1.2 * rng.normal(size=(2000, 1)) + 0.4, np.full((2000, 1), np.log(0.5)))
    assert found.low > 0.1 and found.high - found.low < 0.1  # far from 0, and close
    assert active_units(np.random.default_rng(0).normal(size=(500, 3)) * [1.0, 0.05, 0.5]) == 2
    with pytest.raises(ValueError, match="two at least"):
        aggregated_mismatch(np.zeros((1, 2)), np.zeros((1, 2)))


@pytest.mark.parametrize("name", twins.MISMATCHES)
def test_broken_mismatches_are_refused(name):
    assert not all(mismatch_holds(twins.MISMATCHES[name]))


def annealing_error(seed, chains=8):
    """The greatest error of annealed values of log p, and the mean acceptance of the moves."""
    model = linear(shift=0.3, stretch=1.2)
    points = np.resize(POINTS, (48, 3))  # as many as are simulated below, for one program
    values, acceptance = annealed_log_prob(model, points, chains=chains, rungs=20, seed=seed)
    return np.abs(values - np.resize(LOG_P, 48)).max(), acceptance


def test_annealing_from_the_encoder_is_near_and_brackets_the_truth(seed):
    error, acceptance = annealing_error(seed)
    assert error < 0.4 and acceptance > 0.8
    truth = -multivariate_normal(MEAN, COVARIANCE).entropy()
    found = simulated_log_prob(linear(shift=0.3, stretch=1.2), 48, chains=8, rungs=20, seed=seed)
    outside = max(found.low - truth, truth - found.high, 0.0) / found.stderr
    assert found.kind == "bracket" and outside < Z - 1.64 and found.method_high - found.method_low < 0.1


@pytest.mark.slow
@pytest.mark.parametrize("name", twins.ANNEALINGS)
def test_broken_annealing_is_refused(name, monkeypatch, seed):
    twins.ANNEALINGS[name](monkeypatch)
    chains = 9 + list(twins.ANNEALINGS).index(name)  # a shape of its own, so that it is traced anew
    assert annealing_error(seed, chains)[0] > 0.6


def test_categories_of_two_levels_go_a_shorter_way():
    rng = np.random.default_rng(0)
    free, codes = jnp.asarray(rng.normal(size=4)), jnp.array([0.0, 1.0, 1.0, 2.0])
    for levels, size in (((2, 2, 2, 2), 4), ((3, 3), 2), ((2, 3), 2)):
        logits = heads.spread_logits(levels, free[: sum(levels) - len(levels)])
        gathered = jnp.concatenate([jnp.array([0.0, -jnp.inf]), free])[heads._logit_places(levels)]
        assert np.array_equal(logits, gathered)
        short, long = (f(logits, codes[:size]) for f in (heads.category_log_prob, heads.softmax_log_prob))
        np.testing.assert_allclose(short, long, atol=TIGHT)
