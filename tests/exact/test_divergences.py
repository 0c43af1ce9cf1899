"""Divergences against closed forms of normal laws; laws told apart from those that have the wrong side or no tails."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import multivariate_normal

from mulligan.measures.divergences import (
    Normal,
    chi_square,
    integral,
    js,
    kl,
    normal_kl,
    normal_wasserstein,
    wasserstein,
)

P = Normal(np.array([0.3, -0.2]), np.array([[1.0, 0.4], [0.4, 0.8]]))
Q = Normal(np.zeros(2), np.array([[1.5, 0.0], [0.0, 1.2]]))
N = 20_000


def law(normal):
    return multivariate_normal(normal.mean, normal.covariance)


def draws(normal, seed):
    return law(normal).rvs(N, random_state=seed)


def test_kl_both_ways():
    x, y = draws(P, 0), draws(Q, 1)
    forward, backward = kl(law(P).logpdf(x), law(Q).logpdf(x)), kl(law(Q).logpdf(y), law(P).logpdf(y))
    assert abs(forward.value - normal_kl(P, Q).value) < 4 * forward.stderr
    assert abs(backward.value - normal_kl(Q, P).value) < 4 * backward.stderr
    assert abs(forward.value - normal_kl(Q, P).value) > 4 * forward.stderr  # the other way round is seen
    wrong = kl(law(P).logpdf(y), law(Q).logpdf(y))  # averaged over draws of q
    assert abs(wrong.value - normal_kl(P, Q).value) > 4 * wrong.stderr


def test_js_against_quadrature():
    x, y = draws(P, 2), draws(Q, 3)
    found = js(law(P).logpdf(x), law(Q).logpdf(x), law(P).logpdf(y), law(Q).logpdf(y))
    grid = np.linspace(-8, 8, 401)
    points = np.stack(np.meshgrid(grid, grid), -1)
    p, q = law(P).pdf(points), law(Q).pdf(points)
    m = (p + q) / 2
    cell = (grid[1] - grid[0]) ** 2
    exact = 0.5 * cell * (p * np.log(p / m) + q * np.log(q / m)).sum()
    assert abs(found.value - exact) < 4 * found.stderr and 0 < found.value < math.log(2)


def test_chi_square_and_thin_tails():
    y = draws(Q, 4)
    found = chi_square(law(P).logpdf(y), law(Q).logpdf(y))
    grid = np.linspace(-9, 9, 601)
    points = np.stack(np.meshgrid(grid, grid), -1)
    exact = (law(P).pdf(points) ** 2 / law(Q).pdf(points)).sum() * (grid[1] - grid[0]) ** 2 - 1
    assert abs(found.value - exact) < 4 * found.stderr
    thin = Normal(np.zeros(2), 0.1 * np.eye(2))
    z = draws(thin, 5)
    assert chi_square(law(P).logpdf(z), law(thin).logpdf(z)).kind == "none"


@pytest.mark.parametrize("excess", [0.0, 0.05])
def test_the_integral_of_a_density(excess):
    """A log density that is 0.05 nats too high is seen."""
    wide = Normal(np.zeros(2), 2.5 * np.eye(2))
    y = draws(wide, 6)
    found = integral(law(P).logpdf(y) + excess, law(wide).logpdf(y))
    assert (abs(found.value - 1) < 4 * found.stderr) == (excess == 0.0)
    far = Normal(np.full(2, 30.0), np.eye(2))
    z = draws(far, 7)
    assert integral(law(P).logpdf(z), law(far).logpdf(z)).kind == "none"


def test_wasserstein():
    x, y = draws(P, 8)[:500], draws(Q, 9)[:500]
    exact = normal_wasserstein(P, Q).value
    assert exact < wasserstein(x, y).value < exact + 0.35
    assert wasserstein(x, x[::-1]).value == pytest.approx(0, abs=1e-12)
    assert wasserstein(x[:, :1], x[:, :1] + 2).value == pytest.approx(2)
    shifted = Normal(P.mean + np.array([3.0, 4.0]), P.covariance)
    assert normal_wasserstein(P, shifted).value == pytest.approx(5)
