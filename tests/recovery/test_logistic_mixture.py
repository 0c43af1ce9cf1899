"""The mixture of logistics: its density by quadrature, its draws by its conditional distribution functions, its recovery.

Each check refuses broken twins. The recovery band is that of ``test_families_recovery``: 2n KL(truth ‖ fitted) is about
chi-square with as many degrees of freedom as there are free parameters. Early stopping adds one, of the select rows: it
takes the place on the path of the weights that these prefer.
"""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import chdtri, expit, log_expit, logsumexp

from mulligan.core import Sampler
from mulligan.measures.likelihood import draw, point_log_prob, point_score
from mulligan.models.logistic_mixture import LogisticMixture
from mulligan.workbench.fitting import fit

WEIGHTS = np.array([0.65, 0.35])
MEANS = np.array([[-2.0, 0.5], [2.5, -1.0]])
SCALES = np.array([[0.5, 0.3], [0.4, 0.8]])
ALPHA, DRAWS, ROWS, SLACK = 2e-6, 25_000, 6000, 1.05


def the_law(weights=WEIGHTS, means=MEANS, scales=SCALES):
    return LogisticMixture(*(jnp.asarray(array, jnp.float32) for array in (np.log(weights), means, np.log(scales))))


def parts(x, scales=SCALES, jacobian=True):
    """log w_k + log density of part k, column by column, by SciPy: (n, k, d)."""
    u = (x[:, None] - MEANS) / scales
    return log_expit(u) + log_expit(-u) - jacobian * np.log(scales)


def truth(x, **changes):
    return logsumexp(np.log(WEIGHTS) + parts(x, **changes).sum(2), axis=1)


# --- density ----------------------------------------------------------------------------------------------------------

STEP = 0.05
GRID = np.stack(np.meshgrid(np.arange(-14, 14, STEP), np.arange(-14, 14, STEP), indexing="ij"), -1).reshape(-1, 2)


def total(log_p):
    """Its integral over the plane, by the trapezoid rule."""
    return float(np.sum(np.exp(np.asarray(log_p, float)))) * STEP**2


def test_the_density_is_that_of_the_definition_and_integrates_to_1():
    found = point_log_prob(the_law(), GRID.astype(np.float32))
    np.testing.assert_allclose(found, truth(GRID.astype(np.float32).astype(float)), atol=2e-5, rtol=2e-6)
    assert abs(total(found) - 1) < 2e-5
    assert abs(total(truth(GRID, jacobian=False)) - 1) > 0.1  # the scales' Jacobian forgotten
    assert abs(total(truth(GRID) - np.log(WEIGHTS[0])) - 1) > 0.1  # weights that do not add up to 1


def test_far_away_is_finite_with_finite_gradients():
    far = np.array([[0.0, 0.0], [-2.0, 0.5], [1e4, -1e4], [3e7, 0.0]], np.float32)
    law = the_law()
    assert np.isfinite(point_log_prob(law, far)).all() and np.isfinite(point_score(law, far, None)).all()
    gradient = jax.grad(lambda law: jnp.sum(jax.vmap(law.log_prob)(jnp.asarray(far))))(law)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))
    assert np.isnan(law.log_prob(jnp.array([jnp.nan, 0.0])))


# --- draws ------------------------------------------------------------------------------------------------------------


class PartOfEachColumn(Sampler):
    """Draws a part for each column by itself."""

    of: LogisticMixture

    def sample(self, key, given=None):
        keys = jax.random.split(key)
        return jnp.stack([self.of.sample(keys[j])[j] for j in range(2)])


class ScaleForDeviation(Sampler):
    """Takes the scale for a standard deviation."""

    of: LogisticMixture

    def sample(self, key, given=None):
        narrower = eqx.tree_at(lambda law: law.log_scales, self.of, self.of.log_scales - np.log(np.pi / np.sqrt(3)))
        return narrower.sample(key)


class EvenParts(Sampler):
    """Forgets the weights."""

    of: LogisticMixture

    def sample(self, key, given=None):
        return eqx.tree_at(lambda law: law.logits, self.of, jnp.zeros(2)).sample(key)


def distances(sampler, seed):
    """√n × the Kolmogorov-Smirnov distances to uniform of F(x₁) and F(x₂ | x₁), which for the law's draws are so."""
    x = draw(sampler, DRAWS, seed).astype(float)
    u = expit((x[:, None] - MEANS) / SCALES)  # (n, k, d)
    first = np.log(WEIGHTS) + parts(x)[:, :, 0]
    of_part = np.exp(first - logsumexp(first, axis=1, keepdims=True))
    found = []
    for uniform in (u[:, :, 0] @ WEIGHTS, np.sum(of_part * u[:, :, 1], axis=1)):
        steps = np.arange(DRAWS + 1) / DRAWS
        ordered = np.sort(uniform)
        found.append(np.sqrt(DRAWS) * max(np.max(steps[1:] - ordered), np.max(ordered - steps[:-1])))
    return found


def test_draws_follow_the_law(seed):
    assert max(distances(the_law(), seed)) < 2.63  # false alarm 2e-6 each


@pytest.mark.parametrize("twin", [PartOfEachColumn, ScaleForDeviation, EvenParts])
def test_broken_samplers_are_refused(seed, twin):
    assert max(distances(twin(the_law()), seed)) > 2.63


# --- recovery ---------------------------------------------------------------------------------------------------------


def excess(log_prob):
    """KL(truth ‖ model) in nats."""
    log_p = truth(GRID)
    return float(np.sum(np.exp(log_p) * (log_p - log_prob(GRID)))) * STEP**2


def test_excess_loss_is_what_the_parameters_cost(seed):
    rows = draw(the_law(), ROWS, seed)
    fitted = fit(rows.astype(float), "logistic-mixture", parts=2, effort="quick")
    split, parameters = fitted.card["split"], 1 + 2 * 2 + 2 * 2
    assert fitted.card["row"]["parameters"] == parameters + 1  # one of two logits is not free
    low = chdtri(parameters, 1 - ALPHA) / (2 * split["train"]) / SLACK
    high = (chdtri(parameters, ALPHA) / (2 * split["train"]) + chdtri(1, ALPHA) / (2 * split["select"])) * SLACK
    assert low < excess(fitted.log_prob) < high
    one = fit(rows.astype(float), "logistic-mixture", parts=1, effort="quick")
    twins = {
        "one part less": one.log_prob,
        "scales too large by 15 per cent": lambda x: truth(x, scales=1.15 * SCALES),
        "weights forgotten": lambda x: logsumexp(np.log(0.5) + parts(x).sum(2), axis=1),
    }
    assert all(excess(twin) > high for twin in twins.values()), {name: excess(twin) for name, twin in twins.items()}
