"""Rows given evidence through a latent vector agree with the closed form, where decoder and generator are linear."""

from __future__ import annotations

from functools import lru_cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from saboteurs import latents as wrong
from scipy.stats import multivariate_normal, norm

from mulligan.data.codec import Codec, Part
from mulligan.data.native import NativeCodec
from mulligan.data.table import Column, Schema
from mulligan.loop import compile_small
from mulligan.models.columns import columns_of
from mulligan.models.gan import make_gan
from mulligan.models.vae import make_vae
from mulligan.workbench import latents
from mulligan.workbench.completion import OBSERVATION_NOISE
from mulligan.workbench.fitted import Fitted
from mulligan.workbench.operations import condition

N = 2000
KS = 2.63  # level 2e-6
SCALE, SHIFT = 1.7, 0.4  # of every column: a forgotten Jacobian or shift shows
NAMES = ("x1", "x2", "x3")
SCHEMA = Schema(tuple(Column(name, "continuous") for name in NAMES))
PARTS = tuple(Part(j, 1, SHIFT, SCALE) for j in range(3))
KNOWN = np.array([2.5, -1.0])  # of x1 and x3: less usual than most, so that the prior has to be left


@compile_small
def laws_of(model, z):
    return jax.vmap(model.laws)(z).densities


@lru_cache(maxsize=1)
def linear_vae() -> tuple[Fitted, np.ndarray, np.ndarray]:
    """x = W z + b + noise, with the mean and the covariance of its rows in table units."""
    model = make_vae(columns_of(NativeCodec(SCHEMA, PARTS)), np.random.default_rng(3), latent=2, depth=0)
    raw = np.asarray(laws_of(model, jnp.concatenate([jnp.zeros((1, 2)), jnp.eye(2)])), np.float64)[..., 0]
    mean, scale = raw[0, :, 1], np.log1p(np.exp(raw[0, :, 2])) + 1e-3
    w = (raw[1:, :, 1] - mean).T
    model = Fitted("vae", None, "linear", NativeCodec(SCHEMA, PARTS), model)
    return model, SHIFT + SCALE * mean, SCALE**2 * (w @ w.T + np.diag(scale**2))


def linear_gan() -> tuple[Fitted, np.ndarray, np.ndarray]:
    """G(z) = m + F z: not trained yet."""
    rows = np.random.default_rng(1).normal(size=(4000, 3)) @ np.array([[1.0, 0.8, 0], [0, 0.5, 0.4], [0, 0, 0.7]])
    model = make_gan(rows, np.random.default_rng(0), latent=3, width=4)
    mean, factor = np.asarray(model.mean, np.float64), np.asarray(model.factor, np.float64)
    return (
        Fitted("gan", None, "linear", Codec(SCHEMA, PARTS), model),
        SHIFT + SCALE * mean,
        SCALE**2 * factor @ factor.T,
    )


def conditional(mean: np.ndarray, covariance: np.ndarray, noise: float = 0.0) -> tuple[float, float, float]:
    """Mean and standard deviation of x2 given x1 and x3, seen with a noise, and log p of these."""
    o = [0, 2]
    seen = covariance[np.ix_(o, o)] + noise**2 * np.eye(2)
    gain = np.linalg.solve(seen, covariance[o, 1])
    return (
        mean[1] + gain @ (KNOWN - mean[o]),
        np.sqrt(covariance[1, 1] - gain @ covariance[o, 1]),
        multivariate_normal(mean[o], seen).logpdf(KNOWN),
    )


def violation(made: tuple[Fitted, np.ndarray, np.ndarray], noise: float = 0.0) -> float:
    """KS distance of x2 given x1 and x3 over its bar, or the error of log p(evidence) over 5 standard errors."""
    fitted, mean, covariance = made
    centre, sd, log_evidence = conditional(mean, covariance, noise)
    given = condition(fitted, dict(zip(("x1", "x3"), KNOWN)), seed=2)
    drawn = np.sort(given.sample(N, seed=3)["x2"])
    worth = min(N, given.diagnostics["effective_draws"])
    off = np.abs(norm.cdf(drawn, centre, sd) - (np.arange(N) + 0.5) / N).max() / (KS * np.sqrt(1 / N + 1 / worth))
    if given.log_evidence.value is None:
        return off
    return max(off, abs(given.log_evidence.value - log_evidence) / (1e-3 + 5 * given.log_evidence.stderr))


def test_a_linear_vae_has_the_conditional_law_of_a_gaussian():
    made = linear_vae()
    assert violation(made) < 1
    given = condition(made[0], {"x1": KNOWN[0]}, seed=2)
    assert given.method == latents.METHOD and given.diagnostics["rhat"] < 1.05


def test_intervals_of_a_linear_vae():
    fitted, mean, covariance = linear_vae()
    low, high = 1.0, 2.5
    given = condition(fitted, {"x1": (low, high)}, seed=2)
    a, b = (np.array([low, high]) - mean[0]) / np.sqrt(covariance[0, 0])
    assert abs(given.log_evidence.value - np.log(norm.cdf(b) - norm.cdf(a))) < 5 * given.log_evidence.stderr
    drawn = given.sample(N, seed=3)
    grid = np.linspace(low, high, 2001)
    worth = 1 / N + 1 / min(N, given.diagnostics["effective_draws"])
    for name, values, cdf in (
        ("x1", grid, (norm.cdf(grid, mean[0], np.sqrt(covariance[0, 0])) - norm.cdf(a)) / (norm.cdf(b) - norm.cdf(a))),
        ("x2", *given_interval(mean, covariance, grid)),
    ):
        x = np.sort(drawn[name])
        assert np.abs(np.interp(x, values, cdf) - (np.arange(N) + 0.5) / N).max() < KS * np.sqrt(worth)


def given_interval(mean: np.ndarray, covariance: np.ndarray, x1: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Values of x2 and their cdf given that x1 lies between the ends of a grid."""
    weight = norm.pdf(x1, mean[0], np.sqrt(covariance[0, 0]))
    centre = mean[1] + covariance[0, 1] / covariance[0, 0] * (x1 - mean[0])
    sd = np.sqrt(covariance[1, 1] - covariance[0, 1] ** 2 / covariance[0, 0])
    x2 = np.linspace(-15, 15, 1001)
    return x2, weight @ norm.cdf(x2, centre[:, None], sd) / weight.sum()


def test_a_linear_gan_has_the_posterior_of_its_observation_noise(monkeypatch):
    monkeypatch.setattr("mulligan.workbench.completion.ENOUGH", 10**6)  # whatever the pool is worth
    assert violation(linear_gan(), OBSERVATION_NOISE * SCALE) < 1


def test_pool_and_latent_vectors_agree_where_the_pool_is_worth_enough():
    fitted, mean, covariance = linear_gan()
    given = condition(fitted, {"x1": mean[0]}, seed=2)
    assert given.method == "draws weighed by an observation noise"
    centre, spread = (
        mean[1],
        covariance[1, 1] - covariance[0, 1] ** 2 / (covariance[0, 0] + (OBSERVATION_NOISE * SCALE) ** 2),
    )
    drawn = np.sort(given.sample(N, seed=3)["x2"])
    off = np.abs(norm.cdf(drawn, centre, np.sqrt(spread)) - (np.arange(N) + 0.5) / N).max()
    assert off < KS * np.sqrt(1 / N + 1 / given.diagnostics["effective_draws"])


@pytest.mark.parametrize("name", ["EvidenceIgnored", "Squared"])
def test_saboteurs_of_the_likelihood(monkeypatch, name):
    monkeypatch.setattr(latents, "Decoded", getattr(wrong, name))
    assert violation(linear_vae()) > 1


def test_saboteur_everything_is_taken(monkeypatch):
    monkeypatch.setattr(latents, "Decoded", wrong.Renamed)  # another program
    monkeypatch.setattr("mulligan.samplers.particles.accept", wrong.everything_taken)
    assert violation(linear_vae()) > 1


def test_groups_that_disagree_are_said():
    x = np.random.default_rng(0).normal(size=(1, 4, 64, 2))
    assert "warning" not in latents.agreement(x, np.zeros((1, 4)))
    x[:, 0] += 1.0
    assert "groups of draws disagree" in latents.agreement(x, np.zeros((1, 4)))["warning"]
