"""Guidance on laws whose conditional is known: classifier-free guidance, and conditioning on some coordinates."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from saboteurs.noising import GUIDES, Certain, WrongGuidance

from mulligan.loop import compile_small
from mulligan.models.denoiser import Conditioned
from mulligan.samplers.guidance import Guided, Observed, classifier_free
from mulligan.samplers.reverse import HeunODE, run_reverse
from mulligan.targets.gaussian import Gaussian
from mulligan.targets.mixture import GaussianMixture
from mulligan.targets.noised import NoisedMixture, noised
from mulligan.targets.noising import EDM, VariancePreserving


@pytest.fixture
def x64():
    with jax.enable_x64(True):
        yield


class Labelled(eqx.Module):
    """A mixture whose components carry labels 0 and 1: ``given`` (1,) is one of them, None is either."""

    law: NoisedMixture
    labels: Any = eqx.field(converter=jnp.asarray)

    @property
    def schedule(self):
        return self.law.schedule

    def of(self, given):
        if given is None:
            return self.law
        log_weights = jnp.where(self.labels == given[0], self.law.log_weights, -jnp.inf)
        return eqx.tree_at(lambda law: law.log_weights, self.law, jax.nn.log_softmax(log_weights))

    def denoise(self, x, t, given=None):
        return self.of(given).denoise(x, t)

    def score(self, x, t, given=None):
        return self.of(given).score(x, t)


def labelled(schedule):
    rng = np.random.default_rng(1)
    factors = 0.4 * np.eye(2) + np.tril(0.2 * rng.normal(size=(4, 2, 2)), -1)
    mixture = GaussianMixture(np.log([0.1, 0.2, 0.3, 0.4]), 1.5 * rng.normal(size=(4, 2)), factors)
    return Labelled(NoisedMixture(mixture, schedule), [0, 1, 1, 0])


POINTS = np.random.default_rng(2).normal(size=(30, 2)) * 2
TIMES = np.geomspace(0.02, 0.95, 30)


@compile_small
def guided_gap(model, labels, x, t):
    """How far the score is from ∇ log p_t(x) + w ∇ log p_t(c|x), with the classifier that the mixture itself is."""

    def log_share(y, t):
        return jnp.log(jnp.sum(jnp.where(labels.labels == 1, labels.law.responsibilities(y, t), 0.0)))

    def one(x, t):
        alpha, square = labels.schedule.alpha(t), labels.schedule.sigma(t) ** 2
        aim = jax.grad(labels.law.log_prob)(x, t) + 1.7 * jax.grad(log_share)(x, t)
        return model.denoise(x, t) - (x + square * aim) / alpha

    return jnp.max(jnp.abs(jax.vmap(one)(x, t)))


def test_guidance_adds_the_classifiers_score(x64):
    labels = labelled(VariancePreserving())
    guided = classifier_free(labels, jnp.ones(1), 1.7)
    x, t = jnp.asarray(POINTS), jnp.asarray(TIMES)
    assert guided_gap(guided, labels, x, t) < 1e-9
    assert guided_gap(WrongGuidance(guided, 0), labels, x, t) < 1e-9
    for number, mistake in enumerate(GUIDES[1:], 1):
        assert guided_gap(WrongGuidance(guided, number), labels, x, t) > 0.1, mistake


@compile_small
def denoised(model, x, t):
    return jax.vmap(model.denoise)(x, t), jax.vmap(model.score)(x, t)


def test_guidance_between_none_and_all(x64):
    """w = 1 is the conditional law, w = 0 the unconditional one, and outside its interval guidance is w = 1."""
    labels, one = labelled(EDM()), jnp.ones(1)
    x, t = jnp.asarray(POINTS), jnp.asarray(TIMES)
    conditional, free = denoised(Conditioned(labels, one), x, t), denoised(Conditioned(labels, None), x, t)
    for weight, expected in ((1.0, conditional), (0.0, free)):
        for found, aim in zip(denoised(classifier_free(labels, one, weight), x, t), expected):
            assert np.asarray(found) == pytest.approx(np.asarray(aim), rel=1e-9, abs=1e-9)
    limited = denoised(Guided(Conditioned(labels, one), Conditioned(labels, None), 3.0, 0.1, 0.5), x, t)[0]
    strong = denoised(classifier_free(labels, one, 3.0), x, t)[0]
    inside = (t >= 0.1) & (t <= 0.5)
    assert np.array_equal(limited[inside], strong[inside])
    assert np.asarray(limited[~inside]) == pytest.approx(np.asarray(conditional[0][~inside]))
    assert np.abs(strong - conditional[0])[~inside].max() > 0.1


COVARIANCE = np.array([[2.0, 0.8, -0.5], [0.8, 1.0, 0.3], [-0.5, 0.3, 1.5]])


@pytest.mark.parametrize("noise", [0.0, 0.5])
def test_an_observed_gaussian_is_the_conditional_law(x64, noise):
    """Exact for Gaussian data, whether coordinates are seen as they are or with noise."""
    schedule, mean = VariancePreserving(), np.array([0.5, -1.0, 0.0])
    seen, values = [2, 0], np.array([1.0, -0.3])
    gain = COVARIANCE[:, seen] @ np.linalg.inv(COVARIANCE[np.ix_(seen, seen)] + noise**2 * np.eye(2))
    after = COVARIANCE - gain @ COVARIANCE[seen]
    root = np.linalg.cholesky(after + 1e-13 * np.eye(3))
    truth = noised(Gaussian(mean + gain @ (values - mean[seen]), root), schedule)
    model = Observed(noised(Gaussian.from_covariance(mean, COVARIANCE), schedule), seen, values, noise)
    x, t = jnp.asarray(np.random.default_rng(4).normal(size=(30, 3))), jnp.asarray(TIMES)
    for found, aim in zip(denoised(model, x, t), denoised(truth, x, t)):
        assert np.asarray(found) == pytest.approx(np.asarray(aim), rel=1e-6, abs=1e-6)
    if noise:
        assert np.abs(denoised(Certain(model), x, t)[0] - denoised(truth, x, t)[0]).max() > 0.1


@compile_small
def filled(model, keys, x):
    return jax.vmap(lambda key, x: run_reverse(HeunODE(model), key, x, model.schedule.grid(100)))(keys, x)


def test_a_sampler_fills_in_what_was_not_seen(key):
    """4096 draws of the free coordinates given one that was seen: mean and covariance of the conditional Gaussian."""
    law, schedule = Gaussian.from_covariance(np.zeros(3), COVARIANCE), EDM()
    model = Observed(noised(law, schedule), [1], [1.5])
    keys = jax.random.split(key, 4097)
    draws = np.asarray(filled(model, keys[1:], 80.0 * jax.random.normal(keys[0], (4096, 3))))
    truth = law.condition([1], [1.5])
    assert draws[:, 1] == pytest.approx(1.5, abs=1e-3)
    deviation = np.sqrt(np.diag(np.asarray(truth.covariance)))
    assert np.abs((draws[:, [0, 2]].mean(0) - truth.mean) / deviation).max() < 4.75 / 64 + 0.01
    found = np.cov(draws[:, [0, 2]].T) / np.outer(deviation, deviation)
    assert found == pytest.approx(
        np.asarray(truth.covariance) / np.outer(deviation, deviation), abs=4.75 * 1.5 / 64 + 0.02
    )
