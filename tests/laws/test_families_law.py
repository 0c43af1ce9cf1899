"""Draws of every fitted family follow its own log_prob, through the codec and in the user's units.

25 000 draws, level 2e-6 a comparison. In the plane: chi-square on a grid of cells whose masses are integrals of
exp(log_prob), cells of expected count below 50 merged with all that lies outside. For categories: the frequencies
against the mean of exp(bound) over many salts, which is P(row).
"""

from __future__ import annotations

from dataclasses import replace

import jax.numpy as jnp
import numpy as np
import pytest
from saboteurs.fitted_samplers import TWINS
from scipy.special import chdtrc
from shared_fits import ON_PLANE, WITH_DENSITY, fitted, in_turn, table

from mulligan.catalog import FAMILIES
from mulligan.measures.likelihood import common_error, row_log_prob
from mulligan.models.factor import FactorModel
from mulligan.samplers.diffused import with_sampler
from mulligan.targets.gaussian import Gaussian
from mulligan.targets.known import gauss_legendre

N, Z, ALPHA = 25_000, 4.75, 2e-6
CELLS, NODES = 20, 5
SALTS = 400
DENSITIES = [
    label
    for label in WITH_DENSITY
    if label in ON_PLANE
    and "bound" not in FAMILIES[label.split(":")[0]].log_p  # a bound is no law; tests/exact/test_vae.py
]  # those of binary columns: tests/exact/test_boltzmann.py


def model_of(label):
    """The family fitted to the plane; correlated, or with noises that differ, where a fault would else be none."""
    model = fitted(label, "plane")
    if label == "gaussian":
        model = replace(model, model=Gaussian(model.model.mean, jnp.array([[1.0, 0.0], [0.7, 0.7]])))
    if label.startswith("diffusion"):  # as many steps as log p is worth
        model = replace(model, model=with_sampler(model.model, "heun", 128))
    if label == "factor:analysis":
        inner = model.model
        model = replace(model, model=FactorModel(inner.mean, inner.loadings, jnp.array([0.3, 0.9])))
    return model


def axes_of(model):
    """Cell edges of both columns, in the user's units; a histogram's own, for its density jumps there."""
    if model.family == "histogram":
        places = zip(model.codec.parts, model.model.edges)
        return [np.asarray(edges, float) * part.scale + part.mean for part, edges in places]
    spans = [(values.min() - np.std(values), values.max() + np.std(values)) for values in table("plane").values.T]
    return [np.linspace(low, high, CELLS + 1) for low, high in spans]


def cell_masses(model):
    """∫ exp(log_prob) over each cell, by Gauss-Legendre nodes."""
    unit, weight = gauss_legendre(NODES, 0.0, 1.0)
    edges = axes_of(model)
    nodes = [(axis[:-1, None] + np.diff(axis)[:, None] * unit).reshape(-1) for axis in edges]
    weights = [(np.diff(axis)[:, None] * weight).reshape(-1) for axis in edges]
    points = np.stack(np.meshgrid(*nodes, indexing="ij"), -1).reshape(-1, 2)
    p = np.exp(model.log_prob(points)).reshape(len(nodes[0]), len(nodes[1])) * np.outer(*weights)
    return edges, p.reshape(len(edges[0]) - 1, NODES, len(edges[1]) - 1, NODES).sum((1, 3))


def check(model, draws):
    """(p-value, sentence) of the draws (n, 2) against the model's own density."""
    edges, mass = cell_masses(model)
    assert 0.5 < mass.sum() < 1 + 1e-3, f"mass on the grid is {mass.sum()}"
    observed, expected = np.histogram2d(*draws.T, bins=edges)[0].reshape(-1), N * mass.reshape(-1)
    large = expected >= 50
    assert large.sum() >= 10
    statistic = ((observed[large] - expected[large]) ** 2 / expected[large]).sum()
    rest = N - expected[large].sum()
    if rest >= 50:
        statistic += (N - observed[large].sum() - rest) ** 2 / rest
    freedom = large.sum() - (rest < 50)
    return chdtrc(freedom, statistic), f"chi-square {statistic:.1f} on {freedom} degrees of freedom"


@pytest.mark.parametrize("label", in_turn(DENSITIES))
def test_draws_follow_log_prob(label, seed, request):
    model = model_of(label)
    p, sentence = check(model, model.sample(N, seed).values)
    assert p > ALPHA, f"{sentence}; p {p:.1e}, alpha {ALPHA}, n {N}, seed {seed}; pytest '{request.node.nodeid}'"


@pytest.mark.parametrize("label, broken", in_turn(TWINS), ids=[f"{label}-{twin.__name__}" for label, twin in TWINS])
def test_broken_samplers_are_seen(label, broken, seed):
    model = model_of(label)
    p, sentence = check(model, replace(model, model=broken(model.model)).sample(N, seed).values)
    assert p < ALPHA, f"{broken.__name__} not seen: {sentence}, p {p:.1e}"


def test_every_family_has_a_twin():
    assert {label for label, _ in TWINS} == set(DENSITIES)


# --- categories -------------------------------------------------------------------------------------------------------


def category_z(label, seed, forget_mass=False):
    """z of the frequency of each of the six rows against P(row) by salts, and z of ΣP against 1."""
    model = fitted(label, "discrete")
    rows = np.array([(a, b) for a in range(3) for b in range(2)], float)
    repeated, salts = np.tile(rows, (SALTS, 1)), np.repeat(np.arange(SALTS), len(rows))
    encoded = model.codec.encode(repeated, salt=salts)
    if forget_mass:
        encoded = encoded._replace(log_jacobian=encoded.log_jacobian + 0.2)
    weights = np.exp(row_log_prob(model.model, encoded)).reshape(SALTS, len(rows))
    p, error = weights.mean(0), weights.std(0, ddof=1) / np.sqrt(SALTS)
    codes = model.sample(N, seed).values @ np.array([2, 1])
    share = np.bincount(codes.astype(int), minlength=6) / N
    total = weights.sum(1)
    # An exact probability has no error but float32's, whatever the salt: a few sums of six rounded numbers.
    spread = max(total.std(ddof=1) / np.sqrt(SALTS), 1e-6)
    log_z_error = common_error(model.model)  # an estimate of log Z moves all probabilities together
    spread, error = np.hypot(spread, log_z_error), np.hypot(error, p * log_z_error)
    z = (share - p) / np.sqrt(error**2 + p * (1 - p) / N)
    return z, (total.mean() - 1) / spread


@pytest.mark.parametrize("label", in_turn(DENSITIES))
def test_categories_are_drawn_with_their_probabilities(label, seed):
    z, z_total = category_z(label, seed)
    assert np.abs(z).max() < Z and abs(z_total) < Z, f"z {z.round(2)}, of the sum {z_total:.2f}, seed {seed}"


def test_a_bound_that_exceeds_one_is_seen(seed):
    z, z_total = category_z("gaussian", seed, forget_mass=True)
    assert np.abs(z).max() > Z and z_total > Z
