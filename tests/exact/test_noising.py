"""Schedules and noised laws without random numbers: derivatives, jumps, bridges, Tweedie, and p_t by quadrature."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from saboteurs.noising import LAWS, SCHEDULES, WrongNoised, WrongSchedule

from mulligan.errors import UsageError
from mulligan.loop import compile_small
from mulligan.targets.mixture import GaussianMixture
from mulligan.targets.named import law
from mulligan.targets.noised import NoisedMixture, noised
from mulligan.targets.noising import EDM, Cosine, Straight, VariancePreserving, Walk

KINDS = {
    "walk": lambda: Walk(rate=1.3),
    "variance preserving": VariancePreserving,
    "cosine": Cosine,
    "edm": EDM,
    "straight": Straight,
}


@pytest.fixture
def x64():
    with jax.enable_x64(True):
        yield


# --- schedules --------------------------------------------------------------------------------------------------------


@compile_small
def facts(schedule, s, t):
    """Everything that a schedule says of pairs s < t."""

    def one(s, t):
        def squares(u):
            return jnp.stack([schedule.alpha(u), schedule.sigma(u), schedule.sigma(u) ** 2])

        values, rates = jax.jvp(squares, (t,), (jnp.ones_like(t),))
        back = schedule.at_noise(values[1] / values[0])
        return {
            "at t": values,
            "rates": rates,
            "at s": squares(s),
            "drift": schedule.drift(t),
            "diffusion": schedule.diffusion(t),
            "flow": jnp.stack(schedule.flow(t)),
            "jump": jnp.stack(schedule.jump(s, t)),
            "bridge": jnp.stack(schedule.bridge(s, t)),
            "back": back,
        }

    return jax.vmap(one)(s, t)


def pairs(schedule):
    """s < t over the whole range, neighbours and far ones. t = 1 of the straight lines has no drift."""
    times = np.asarray(schedule.grid(40), np.float64)[1:]
    index = np.array([(i + gap, i) for gap in (1, 7, 30) for i in range(40 - gap)])
    return times[index[:, 0]], times[index[:, 1]]


def faults(schedule):
    """Relative errors of all that a schedule must satisfy."""
    s, t = pairs(schedule.of if isinstance(schedule, WrongSchedule) else schedule)
    found = {name: np.asarray(value) for name, value in facts(schedule, jnp.asarray(s), jnp.asarray(t)).items()}
    (a, sd, var), (da, dsd, dvar) = found["at t"].T, found["rates"].T
    a_s, _, var_s = found["at s"].T
    scale, gained = found["jump"].T
    of_x, of_datum = found["flow"].T
    precision = 1 / var_s + scale**2 / gained  # of x_s: prior N(α_s x_0, σ_s²), then seen through the jump
    mean = np.stack([scale / gained, a_s / var_s]) / precision
    of_x_t, of_x_0, left = found["bridge"].T
    checks = {
        "drift": (found["drift"], da / a),
        "diffusion": (found["diffusion"], dvar - 2 * da / a * var),
        "flow of x": (of_x, dsd / sd),
        "flow of the datum": (of_datum, da - a * dsd / sd),
        "flow is drift and diffusion": (of_x * a + of_datum, da),
        "jump scales": (scale * a_s, a),
        "jump adds noise": (scale**2 * var_s + gained, var),
        "bridge of x_t": (of_x_t, mean[0]),
        "bridge of x_0": (of_x_0, mean[1]),
        "bridge's variance": (left, 1 / precision),
        "time of a noise level": (found["back"], t),
    }
    return {
        name: np.max(np.abs(left - right) / (np.abs(right) + 1e-12 * np.abs(right).max() + 1e-300))
        for name, (left, right) in checks.items()
    }


@pytest.mark.parametrize("kind", KINDS)
def test_a_schedule_is_one_law(x64, kind):
    schedule = KINDS[kind]()
    found = faults(schedule)
    assert max(found.values()) < 1e-8, found
    grid = np.asarray(schedule.grid(17))
    assert len(grid) == 18 and np.all(np.diff(grid) < 0)
    assert grid[0] == schedule.t_max and grid[-1] == schedule.t_min  # to the last bit
    zero = jnp.zeros(())
    assert schedule.alpha(zero) == 1 and schedule.sigma(zero) == 0
    at_zero = schedule.bridge(zero, schedule.t_max)
    assert [float(v) for v in at_zero] == pytest.approx([0.0, 1.0, 0.0], abs=1e-12)  # x_0 itself


def test_a_wrong_schedule_is_seen(x64):
    schedule = VariancePreserving()
    assert max(faults(WrongSchedule(schedule, 0)).values()) < 1e-8
    for number, mistake in enumerate(SCHEDULES[1:], 1):
        assert max(faults(WrongSchedule(schedule, number)).values()) > 0.1, mistake


@pytest.mark.parametrize("kind", ["variance preserving", "cosine"])
def test_a_thousand_steps_in_single_precision(kind):
    """The variance of a short step is a small difference: it must keep three digits."""
    low = KINDS[kind]().grid(1000)
    single = facts(KINDS[kind](), low[1:], low[:-1])
    with jax.enable_x64(True):
        times = jnp.asarray(np.asarray(low), jnp.float64)
        double = facts(KINDS[kind](), times[1:], times[:-1])
    for name in ("at t", "bridge"):
        assert np.asarray(single[name]) == pytest.approx(np.asarray(double[name]), rel=2e-3)
    assert np.all(np.asarray(single["bridge"]) > 0)


def test_the_straight_line_begins_at_pure_noise(x64):
    schedule, one = Straight(), jnp.ones(())
    assert [float(v) for v in schedule.flow(one)] == [1.0, -1.0]  # e − x_0
    assert [float(v) for v in schedule.bridge(jnp.asarray(0.25), one)] == [0.0, 0.75, 0.0625]


# --- laws under noise -------------------------------------------------------------------------------------------------


@compile_small
def seen(model, x, t):
    """All that a noised law says of points and times, and what automatic differentiation says of its log density."""

    def one(x, t):
        schedule = model.schedule
        alpha, square = schedule.alpha(t), schedule.sigma(t) ** 2
        score, hessian = jax.grad(model.log_prob)(x, t), jax.hessian(model.log_prob)(x, t)
        tweedie = (x + square * score) / alpha
        spread = (square * jnp.eye(x.size) + square**2 * hessian) / alpha**2
        flow = schedule.drift(t) * x - 0.5 * schedule.diffusion(t) * score
        other = model.at(t).log_prob(x) if hasattr(model, "at") else model.log_prob(x, t)
        return {
            "log_prob": (model.log_prob(x, t), other),
            "score": (model.score(x, t), score),
            "denoise": (model.denoise(x, t), tweedie),
            "covariance": (model.covariance(x, t), spread),
            "noise": (model.noise(x, t), -jnp.sqrt(square) * score),
            "velocity": (model.velocity(x, t), flow),
        }

    return jax.vmap(one)(x, t)


def example(schedule):
    """Three components in R³, two of them flat in a direction of their own; one has no weight."""
    rng = np.random.default_rng(3)
    factors = np.tril(rng.normal(size=(4, 3, 3)), -1) + np.array([1.0, 0.2, 0.6]) * np.eye(3)
    return NoisedMixture(GaussianMixture([0.0, -1.0, 0.5, -np.inf], rng.normal(size=(4, 3)) * 2, factors), schedule)


def cloud(dim, number=40):
    rng = np.random.default_rng(5)
    times = np.geomspace(0.05, 0.9, number)
    return jnp.asarray(rng.normal(size=(number, dim)) * 2), jnp.asarray(times)


def disagreement(model):
    dim = model.dim if hasattr(model, "dim") else 3
    x, t = cloud(dim if not hasattr(model, "law") else 2)
    return {
        name: float(np.max(np.abs(np.asarray(a) - np.asarray(b)) / (1 + np.abs(np.asarray(b)))))
        for name, (a, b) in seen(model, x, t).items()
    }


@pytest.mark.parametrize("kind", ["variance preserving", "straight"])
def test_a_noised_mixture_is_one_law(x64, kind):
    found = disagreement(example(KINDS[kind]()))
    assert max(found.values()) < 1e-9, found


def test_a_wrong_noised_mixture_is_seen(x64):
    right = example(VariancePreserving())
    assert max(disagreement(WrongNoised(right, 0)).values()) < 1e-9
    for number, mistake in enumerate(LAWS[1:], 1):
        assert max(disagreement(WrongNoised(right, number)).values()) > 1e-2, mistake


@pytest.mark.parametrize("name", ["rings", "checkerboard"])
def test_a_noised_shape_is_one_law(x64, name):
    found = disagreement(noised(law(name), VariancePreserving()))
    assert max(found.values()) < 1e-9, found


@compile_small
def told(model, x, t):
    return jax.vmap(model.log_prob)(x, t), jax.vmap(model.score)(x, t)


def normal(x, centres, variance):
    square = ((x[:, None] - centres) ** 2).sum(-1)
    return np.exp(-0.5 * square / variance) / (2 * np.pi * variance)


def by_quadrature(name, shape, x, alpha, sigma):
    """p_t at points (n, 2), summed over where x_0 may have been."""
    if name == "checkerboard":
        nodes, weights = np.polynomial.legendre.leggauss(40)
        corners = [(2 * i, 2 * j) for i in range(-2, 2) for j in range(-2, 2) if (i + j) % 2 == 0]
        square = np.stack(np.meshgrid(nodes + 1, nodes + 1, indexing="ij"), -1).reshape(-1, 2)
        weight = np.outer(weights, weights).ravel() / 32
        return sum(normal(x, alpha * (square + corner), sigma**2) @ weight for corner in corners)
    if name == "rings":
        angle = 2 * np.pi * np.arange(2000) / 2000
        circle = np.stack([np.cos(angle), np.sin(angle)], -1)
        blur = (alpha * float(shape.noise)) ** 2 + sigma**2
        return np.mean([normal(x, alpha * radius * circle, blur).mean(1) for radius in np.asarray(shape.radii)], 0)
    u = (np.arange(40_000) + 0.5) / 40_000  # moons: an independent rule, the midpoint in the angle
    arcs = np.asarray(jax.vmap(shape.curve)(jnp.asarray(u))).reshape(-1, 2)
    return normal(x, alpha * arcs, (alpha * float(shape.noise)) ** 2 + sigma**2).mean(1)


@pytest.mark.parametrize(("name", "tolerance"), [("rings", 1e-10), ("checkerboard", 1e-10), ("moons", 1e-6)])
def test_the_law_under_noise_by_quadrature(x64, name, tolerance):
    shape, schedule = law(name), VariancePreserving()
    model = noised(shape, schedule)
    x, _ = cloud(2)
    times = np.repeat([0.1, 0.25, 0.5, 0.8], 10)
    found = np.asarray(told(model, x, jnp.asarray(times))[0])
    for t in np.unique(times):
        alpha, sigma = float(schedule.alpha(jnp.asarray(t))), float(schedule.sigma(jnp.asarray(t)))
        truth = np.log(by_quadrature(name, shape, np.asarray(x)[times == t], alpha, sigma))
        assert found[times == t] == pytest.approx(truth, abs=tolerance)
        if t == 0.1:  # a σ for its square, or an α forgotten, would be seen
            for wrong in ((alpha, np.sqrt(sigma)), (1.0, sigma)):
                other = np.log(by_quadrature(name, shape, np.asarray(x)[times == t], *wrong))
                assert np.abs(found[times == t] - other).max() > 1e-2


def test_far_from_the_board_numbers_are_finite(x64):
    model = noised(law("checkerboard"), EDM())
    x = jnp.asarray([[30.0, 3.0], [-30.0, 40.0], [1.0, 1.0], [0.0, 0.0]])
    for t in (0.01, 5.0):
        value, score = (np.asarray(a) for a in told(model, x, jnp.full(4, t)))
        assert np.isfinite(value).all() and np.isfinite(score).all()
        # far out the score points to the board
        assert [score[0, 0], *score[1]] == pytest.approx(np.array([-26.0, 26.0, -36.0]) / t**2, rel=0.3)


def test_laws_without_a_formula_are_refused():
    with pytest.raises(UsageError, match="Funnel has no noised score in closed form"):
        noised(law("funnel"), EDM())
