"""The kernel Stein discrepancy against its definition, its zero mean under the target, and the level of its test."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import kstest

from mulligan.errors import DataError
from mulligan.loop import compile_small
from mulligan.measures import stein
from mulligan.measures.stein import kernel_stein, stein_kernel


def test_the_kernel_is_its_definition(seed):
    rng = np.random.default_rng(seed)
    x, c = rng.normal(size=(6, 3)), 1.3
    with jax.enable_x64(True):
        log_p = lambda x: jnp.sum(jnp.sin(x)) - jnp.sum(x**4)  # noqa: E731
        k = lambda x, y: (c**2 + jnp.sum((x - y) ** 2)) ** -0.5  # noqa: E731
        score = jax.grad(log_p)

        def u(x, y):
            a, b = score(x), score(y)
            mixed = jnp.trace(jax.jacfwd(jax.grad(k, 0), 1)(x, y))
            return a @ b * k(x, y) + a @ jax.grad(k, 1)(x, y) + b @ jax.grad(k, 0)(x, y) + mixed

        every = compile_small(lambda x: (jax.vmap(lambda a: jax.vmap(lambda b: u(a, b))(x))(x), jax.vmap(score)(x)))
        expected, scores = every(jnp.asarray(x))
    np.testing.assert_allclose(stein_kernel(x, np.asarray(scores), c), expected, atol=1e-9)


def test_it_has_mean_zero_under_the_target_and_not_otherwise():
    grid = np.linspace(-12, 12, 2001)[:, None]
    p = np.exp(-0.5 * grid[:, 0] ** 2) / np.sqrt(2 * np.pi) * 0.012
    u = stein_kernel(grid, -grid, 1.0)
    assert np.abs(u @ p)[700:1300].max() < 1e-9
    assert p @ u @ p < 1e-9
    moved = np.exp(-0.5 * (grid[:, 0] - 0.3) ** 2) / np.sqrt(2 * np.pi) * 0.012
    flipped = stein_kernel(grid, grid, 1.0)  # sign of the score flipped
    assert moved @ u @ moved > 0.01 and p @ flipped @ p > 0.1


def test_the_level_is_right_and_shifts_are_found(seed):
    rng = np.random.default_rng(seed)
    p_values = [kernel_stein(x, -x, seed=i).p_value for i, x in enumerate(rng.normal(size=(150, 80, 2)))]
    assert kstest(p_values, "uniform").statistic < 2.63 / np.sqrt(150)
    x = rng.normal(size=(400, 2))
    for wrong in (x + 0.4, 1.3 * x, np.zeros_like(x) + x[0]):
        assert kernel_stein(wrong, -wrong).p_value < 0.005
    found = kernel_stein(1.3 * x, -1.3 * x).discrepancy
    assert found.low > 0 and found.kind == "estimate"


def test_a_chains_order_is_respected(seed):
    """Draws of a slow chain look like a wrong law to independent signs, and not to signs that change as slowly."""
    rng = np.random.default_rng(seed)
    slow, fair = [], []
    for i in range(40):
        x = np.zeros((400, 1))
        x[0] = rng.normal()
        noise = np.sqrt(1 - 0.9**2) * rng.normal(size=400)
        for t in range(1, 400):
            x[t] = 0.9 * x[t - 1] + noise[t]
        slow.append(kernel_stein(x, -x, seed=i).p_value)
        fair.append(kernel_stein(x, -x, seed=i, flip=0.02).p_value)
    assert np.mean(np.less(slow, 0.05)) > 0.4 > 0.35 > np.mean(np.less(fair, 0.05))


def test_bad_input_is_refused_and_many_draws_are_thinned(monkeypatch):
    monkeypatch.setattr(stein, "MOST_DRAWS", 300)
    x = np.random.default_rng(0).normal(size=(350, 1))
    found = kernel_stein(x, -x)
    assert "300 of 350" in found.discrepancy.note and found.discrepancy.n == 300
    for points, scores in ((x[:5], x[:5]), (x, x[:10]), (x[:20], np.full((20, 1), np.nan)), (x[:, 0], x[:, 0])):
        with pytest.raises(DataError, match="finite rows"):
            kernel_stein(points, scores)
