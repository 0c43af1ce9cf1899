"""Reverse samplers with the true score: orders by exact affine propagation, exact steps, log-likelihood by the ODE.

For Gaussian data a step is affine in the state and its noise, so its values at 0 and at the unit vectors give the mean and
the variance of the whole output without a random number. Orders are measured down to σ_min; the last jump is apart.
"""

from __future__ import annotations

from functools import cache

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from saboteurs.noising import NOISY, STILL, Drifting, Memory, Noisy, Still, WrongNoised, late
from scipy.special import i0e

from mulligan.core import Law
from mulligan.errors import UsageError
from mulligan.loop import compile_small
from mulligan.samplers.ode import solve_with_divergence
from mulligan.samplers.reverse import (
    DDIM,
    KERNELS,
    Ancestral,
    EulerODE,
    HeunODE,
    Multistep,
    PredictorCorrector,
    ReverseSDE,
    evaluations,
    reverse_kernel,
    run_reverse,
)
from mulligan.targets.curves import NoisyCurve, Rings
from mulligan.targets.mixture import GaussianMixture
from mulligan.targets.named import law
from mulligan.targets.noised import NoisedMixture, noised
from mulligan.targets.noising import EDM, Cosine, Straight, VariancePreserving, Walk
from mulligan.targets.shapes import GaussianHoles

MEAN, SPREAD = 0.7, 0.5
SIZES = (256, 512, 1024)
SCHEDULES = {
    "edm": lambda: EDM(t_min=0.01, t_max=20.0),
    "vp": VariancePreserving,
    "walk": lambda: Walk(t_min=1e-4),
    "straight": Straight,
}
SAMPLERS = {
    "ancestral": Ancestral,
    "ddim": DDIM,
    "ddim, eta 0.5": lambda model: DDIM(model, 0.5),
    "ddim, eta 1": lambda model: DDIM(model, 1.0),
    "euler": EulerODE,
    "heun": HeunODE,
    "multistep": Multistep,
    "sde": ReverseSDE,
    "sde, strength 0.5": lambda model: ReverseSDE(model, 0.5),
    "sde, strength 0": lambda model: ReverseSDE(model, 0.0),
    "corrected": lambda model: PredictorCorrector(HeunODE(model)),
}


@pytest.fixture
def x64():
    with jax.enable_x64(True):
        yield


def gaussian(schedule):
    return NoisedMixture(GaussianMixture([0.0], [[MEAN]], [[[SPREAD]]]), schedule)


@compile_small
def affine(kernel, pairs, inverses):
    """c and J of (x_s, D) = c + J (x_t, D₋, noise), for each pair (t, s). D₋ is what a multistep solver remembers."""

    def one(pair, inverse):
        state = kernel.init(jax.random.key(0), jnp.zeros(1))
        noise, unravel = ravel_pytree(kernel.noise(jax.random.key(0), state))
        remembers = hasattr(state, "denoised")

        def step(v):
            start = state._replace(position=v[:1])
            start = start._replace(denoised=v[1:2], inverse=inverse) if remembers else start
            new, _ = kernel.move(start, unravel(v[2:]), (pair[0], pair[1]))
            return jnp.concatenate([new.position, new.denoised if remembers else jnp.zeros(1)])

        at = jnp.concatenate([jnp.zeros((1, 2 + noise.size)), jnp.eye(2 + noise.size)])
        values = jax.vmap(step)(at)
        return values[0], (values[1:] - values[0]).T

    return jax.vmap(one)(pairs, inverses)


@compile_small
def grids(schedule):
    """Times and λ of the grids of SIZES, and α, σ at the two ends."""
    times = [schedule.grid(size) for size in SIZES]
    ends = jnp.stack([schedule.t_max, schedule.t_min])
    return times, [jax.vmap(schedule.log_ratio)(t) for t in times], schedule.alpha(ends), schedule.sigma(ends)


class Course:
    """The grids of a schedule, joined, and the exact law (mean, variance) at their two ends."""

    def __init__(self, schedule):
        times, ratios, alpha, sigma = jax.tree.map(np.asarray, grids(schedule))
        self.pairs = np.concatenate([np.stack([t[:-1], t[1:]], -1) for t in times])
        self.inverses = np.concatenate([np.concatenate([[0.0], 1 / np.diff(ratio)[:-1]]) for ratio in ratios])
        self.start, self.end = zip(alpha * MEAN, alpha**2 * SPREAD**2 + sigma**2)


@cache
def course(name):
    return Course(SCHEDULES[name]())


def steps_of(kernel, name):
    there = course(name)
    return [np.asarray(a) for a in affine(kernel, jnp.asarray(there.pairs), jnp.asarray(there.inverses))]


def ends(kernel, name, start=None):
    """Mean and variance at t_min for each of the grids, from the exact law (or another) at t_max."""
    there, found, at = course(name), [], 0
    offsets, jacobians = steps_of(kernel, name)
    for size in SIZES:
        mean, variance = start or there.start
        mean, covariance = np.array([mean, 0.0]), np.diag([variance, 0.0])
        with np.errstate(over="ignore", invalid="ignore"):  # mistakes diverge
            for c, j in zip(offsets[at : at + size], jacobians[at : at + size]):
                mean, covariance = c + j[:, :2] @ mean, j[:, :2] @ covariance @ j[:, :2].T + j[:, 2:] @ j[:, 2:].T
        found.append((mean[0], covariance[0, 0]))
        at += size
    return np.array(found)


def order(kernel, name):
    """The slope of the error of the variance over the two finest grids, and that error in units of the variance."""
    error = np.abs(ends(kernel, name)[:, 1] / course(name).end[1] - 1)
    with np.errstate(invalid="ignore"):
        return float(np.log2(error[-2] / error[-1])), float(error[-1])


def has_order(kernel, name, expected):
    slope, error = order(kernel, name)
    return abs(slope - expected) <= 0.1 and error < (0.03 if expected == 1 else 3e-3)


@pytest.mark.parametrize(
    ("sampler", "name"),
    [
        *((sampler, "edm") for sampler in SAMPLERS if sampler not in ("corrected", "sde, strength 0")),
        *((sampler, "vp") for sampler in ("ancestral", "euler", "heun")),
        *((sampler, "walk") for sampler in ("sde", "heun")),
        *((sampler, "straight") for sampler in ("ancestral", "heun")),
    ],
)
def test_orders(x64, sampler, name):
    kernel = SAMPLERS[sampler](gaussian(SCHEDULES[name]()))
    expected = 2 if sampler in ("heun", "multistep") else 1
    assert kernel.law == Law("order", expected)
    assert has_order(kernel, name, expected), order(kernel, name)
    assert abs(ends(kernel, name)[-1, 0] - course(name).end[0]) < 1e-3  # and the mean


def test_mistakes_have_another_order(x64):
    model = gaussian(SCHEDULES["edm"]())
    assert has_order(Noisy(model, 0), "edm", 1) and has_order(Still(model, 0), "edm", 2)
    for number, mistake in enumerate(NOISY[1:], 1):
        assert not has_order(Noisy(model, number), "edm", 1), mistake
    for number, mistake in enumerate(STILL[1:], 1):
        assert not has_order(Still(model, number), "edm", 2), mistake
    for weight in (1.0, 2.0, 0.0):  # the right one, ½ forgotten, history forgotten
        assert has_order(Memory(Multistep(model), weight), "edm", 2) == (weight == 1.0)


def test_an_ancestral_step_is_the_posterior_at_any_length(x64):
    """Its variance lacks exactly the part that is the spread of x_0 given x_t: of_x_0² Cov(x_0|x_t)."""
    model, there = gaussian(SCHEDULES["edm"]()), course("edm")
    t, s = there.pairs.T

    def gap(kernel):
        offset, jacobian = steps_of(kernel, "edm")
        before, after = SPREAD**2 + t**2, SPREAD**2 + s**2
        spread = (1 - s**2 / t**2) ** 2 * SPREAD**2 * t**2 / before
        mean = offset[:, 0] + jacobian[:, 0, 0] * MEAN - MEAN
        found = jacobian[:, 0, 0] ** 2 * before + (jacobian[:, 0, 2:] ** 2).sum(-1) + spread
        return max(np.abs(mean).max(), np.abs(found / after - 1).max())

    assert gap(Ancestral(model)) < 1e-10
    assert all(gap(Noisy(model, number)) > 1e-2 for number in range(1, 5))


def test_how_the_samplers_are_related(x64):
    def steps(sampler, name="edm"):
        return steps_of(SAMPLERS[sampler](gaussian(SCHEDULES[name]())), name)

    same = (("ddim, eta 1", "ancestral", "edm"), ("ddim", "euler", "edm"), ("sde, strength 0", "euler", "edm"))
    for one, other, name in same:
        (c, j), (other_c, other_j) = steps(one, name), steps(other, name)
        assert c == pytest.approx(other_c, abs=1e-10) and j[:, :, :2] == pytest.approx(other_j[:, :, :2], abs=1e-10)
        noise = [(jacobian[:, :, 2:] ** 2).sum(-1) for jacobian in (j, other_j)]  # an ODE takes none
        assert noise[0] == pytest.approx(noise[1], abs=1e-10), (one, other)
    firsts = np.flatnonzero(course("edm").inverses == 0)  # without a step before, the multistep solver is DDIM
    (c, j), (other_c, other_j) = steps("multistep"), steps("ddim")
    assert c[firsts, 0] == pytest.approx(other_c[firsts, 0]) and j[firsts, 0, 0] == pytest.approx(other_j[firsts, 0, 0])
    assert np.abs(steps("ddim, eta 0.5")[1] - steps("ddim")[1]).max() > 0.05


def test_the_corrector_is_a_langevin_step(x64):
    """After the predictor's (m, v): mean m + (δ/2) s(m) and variance (1 − δ/2V)² v + δ, V that of p_s, δ = (2 r σ_s)²."""
    model, s = gaussian(SCHEDULES["edm"]()), course("edm").pairs[:, 1]
    width, after = (2 * 0.16 * s) ** 2, SPREAD**2 + s**2
    c, j = steps_of(HeunODE(model), "edm")
    kept = 1 - width / (2 * after)

    def gap(kernel):
        offset, jacobian = steps_of(kernel, "edm")
        mean = offset[:, 0] - (kept * c[:, 0] + (1 - kept) * MEAN)
        slope = jacobian[:, 0, 0] - kept * j[:, 0, 0]
        noise = (jacobian[:, 0, 2:] ** 2).sum(-1) / width - 1
        return np.abs(np.stack([mean, slope, noise])).max()

    assert gap(SAMPLERS["corrected"](model)) < 1e-10
    assert gap(Drifting(HeunODE(model), 0.16, 1.0)) > 1e-2


def test_the_ode_keeps_a_wrong_start_and_the_corrector_forgets_it(x64):
    """``diffusion.robust``: started two standard deviations off, the ODE ends two off; the corrected sampler does not."""
    model, there = gaussian(SCHEDULES["edm"]()), course("edm")
    (mean, variance), (aim, spread) = there.start, there.end
    start = (mean + 2 * np.sqrt(variance), variance)
    off = (ends(HeunODE(model), "edm", start)[-1, 0] - aim) / np.sqrt(spread)
    corrected = (ends(SAMPLERS["corrected"](model), "edm", start)[-1, 0] - aim) / np.sqrt(spread)
    assert off == pytest.approx(2, abs=1e-3) and abs(corrected) < 1e-3


# --- whole runs -------------------------------------------------------------------------------------------------------


@compile_small
def ran(kernel, keys, x, times):
    return jax.vmap(lambda key, x: run_reverse(kernel, key, x, times))(keys, x)


@compile_small
def log_probs(shape, x):
    return jax.vmap(shape.log_prob)(x)


def test_a_run_ends_at_the_posterior_mean(x64):
    """The ODE's solution for Gaussian data is x_t = αμ + τ_t z; then the jump. A grid off by one is seen."""
    schedule = EDM(t_min=0.5, t_max=20.0)
    model, x = gaussian(schedule), jnp.asarray([[30.0], [-3.0]])
    z = (np.asarray(x) - MEAN) / np.sqrt(SPREAD**2 + 400.0)
    last = np.sqrt(SPREAD**2 + 0.25) * z
    truth = MEAN + SPREAD**2 / (SPREAD**2 + 0.25) * last
    keys, times = jax.random.split(jax.random.key(0), 2), schedule.grid(800)
    assert np.asarray(ran(HeunODE(model), keys, x, times)) == pytest.approx(truth, abs=1e-5)
    assert np.abs(np.asarray(ran(HeunODE(model), keys, x, late(times))) - truth).max() > 5e-4


@pytest.mark.parametrize("name", ["multistep", "predictor-corrector"])
def test_samples_have_the_entropy_of_the_law(name, key):
    """Eight Gaussians, 4096 draws in 200 steps of the true score: E log p = −H, and every hole has its share."""
    eight = law("eight-gaussians")
    schedule = EDM(t_max=40.0)
    kernel = reverse_kernel(name, noised(eight, schedule))
    keys = jax.random.split(key, 4097)
    x = 40.0 * jax.random.normal(keys[0], (4096, 2))
    x = ran(kernel, keys[1:], x, schedule.grid(200))
    log_p = np.asarray(log_probs(eight, x))
    entropy = np.log(8 * 2 * np.pi * np.e * 0.2**2)  # its holes are 7.6 standard deviations apart
    assert log_p.mean() == pytest.approx(-entropy, abs=4.75 * float(log_p.std()) / 64 + 0.02)  # .02: bias of 200 steps
    holes = eight.holes
    inside = (np.linalg.norm(np.asarray(x)[:, None] - holes.centres, axis=-1) < holes.radius).mean(0)
    assert np.abs(inside - holes.shares).max() < 4.75 * np.sqrt(0.125 * 0.875 / 4096)


def test_samplers_by_name():
    assert {name: evaluations(reverse_kernel(name, None)) for name in KERNELS} == {
        **dict.fromkeys(KERNELS, 1),
        "heun": 2,
        "predictor-corrector": 2,
    }
    with pytest.raises(UsageError, match=r"there is no sampler 'hein'.*DO: heun"):
        reverse_kernel("hein", None)


# --- log-likelihood by the ODE ----------------------------------------------------------------------------------------


@compile_small
def by_ode(model, rows, times):
    """log p by the probability-flow ODE with the true score and the true law at its end, and the truth at t_min."""

    def one(x):
        end, change = solve_with_divergence(model.velocity, x, times, "heun")
        return model.log_prob(end, times[-1]) + change, model.log_prob(x, times[0])

    return jax.vmap(one)(rows)


def draws(shape, number=48, wider=1.0):
    """Rows of a law, its noise made wider, by NumPy: the law's own sampler would be one more program."""
    rng = np.random.default_rng(7)
    e, u = wider * rng.normal(size=(number, 2)), rng.uniform(size=(number, 2))
    if isinstance(shape, GaussianHoles):
        return (
            np.asarray(shape.mixture.means)[rng.integers(shape.mixture.components, size=number)] + float(shape.sd) * e
        )
    if isinstance(shape, NoisyCurve):
        return np.asarray(shape.points)[rng.integers(len(shape.points), size=number)] + float(shape.noise) * e
    if isinstance(shape, Rings):
        radius = np.asarray(shape.radii)[rng.integers(len(shape.radii), size=number)]
        angle = 2 * np.pi * u[:, 0]
        return radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], -1) + float(shape.noise) * e
    return np.asarray(shape.holes.centres)[rng.integers(8, size=number)] + 2 * u - 1  # the checkerboard's cells


def truth_of(shape, rows):
    """log p by NumPy and SciPy."""
    if isinstance(shape, Rings):
        radius, radii, noise = np.linalg.norm(rows, axis=1)[:, None], np.asarray(shape.radii), float(shape.noise)
        terms = np.exp(-0.5 * (radius - radii) ** 2 / noise**2) * i0e(radii * radius / noise**2)
        return np.log(terms.mean(1) / (2 * np.pi * noise**2))
    if isinstance(shape, GaussianHoles):
        centres, weights, noise = (
            shape.mixture.means,
            np.full(shape.mixture.components, 1 / shape.mixture.components),
            shape.sd,
        )
    elif isinstance(shape, NoisyCurve):
        centres, weights, noise = shape.points, np.exp(shape.log_weights), shape.noise
    else:
        return np.full(len(rows), -np.log(32))
    square = ((rows[:, None] - np.asarray(centres)) ** 2).sum(-1)
    return np.log(np.exp(-0.5 * square / float(noise) ** 2) @ np.asarray(weights) / (2 * np.pi * float(noise) ** 2))


def filled_up(model, components=384):
    """A mixture with components of no weight, so that mixtures of all sizes are one program."""
    if not isinstance(model, NoisedMixture) or len(model.means) >= components:
        return model
    more = components - len(model.means)
    widths = ((0, more), (0, 0))
    law = eqx.tree_at(
        lambda m: (m.log_weights, m.means, m.axes, m.centres, m.variances),
        model,
        (
            jnp.pad(model.log_weights, (0, more), constant_values=-jnp.inf),
            jnp.pad(model.means, widths),
            jnp.pad(model.axes, ((0, 0), *widths)),
            jnp.pad(model.centres, widths[::-1]),
            jnp.pad(model.variances, widths[::-1], constant_values=1.0),
        ),
    )
    return law


def levels(steps, least=5e-4):
    """Of the noise, as EDM spaces them."""
    return np.linspace(least ** (1 / 7), 20.0 ** (1 / 7), steps + 1) ** 7


LEVELS = levels(400)


def gaps(name, schedule, wrong=None, noises=LEVELS):
    shape = law(name)
    rows = np.concatenate([draws(shape), draws(shape, 16, 1.6)])  # the latter unlikely
    times = schedule.at_noise(jnp.asarray(noises))
    model = filled_up(noised(shape, schedule))
    model = model if wrong is None else WrongNoised(model, wrong)
    found, near = (np.asarray(a) for a in by_ode(model, jnp.asarray(rows), times))
    return rows, np.abs(found - near), np.abs(found - truth_of(shape, rows))


@pytest.mark.parametrize(
    "name",
    [
        "eight-gaussians",
        "grid-gaussians",
        "moons",
        "rings",
        pytest.param("spirals", marks=pytest.mark.slow),
        pytest.param("circles", marks=pytest.mark.slow),
    ],
)
def test_log_likelihood_by_the_ode(x64, name):
    _, near, gap = gaps(name, EDM())
    assert gap.max() < 1e-2 and near.max() < 1e-2


def test_log_likelihood_by_the_ode_of_the_checkerboard(x64):
    """p_t → p_0 only off the edges: a row nearer to one than five σ_min is compared with p_t."""
    rows, near, gap = gaps("checkerboard", EDM())
    edge = np.abs(rows - 2 * np.round(rows / 2)).min(axis=1)
    assert near.max() < 1e-2 and gap[edge > 5 * LEVELS[0]].max() < 1e-2


@pytest.mark.parametrize(
    "schedule",
    [
        VariancePreserving,
        Straight,
        pytest.param(Walk, marks=pytest.mark.slow),
        pytest.param(Cosine, marks=pytest.mark.slow),
    ],
)
def test_log_likelihood_does_not_depend_on_the_schedule(x64, schedule):
    # Where α = 1 − σ, p_t is p_0 shrunk by σ: only less noise at the end makes that small.
    _, _, gap = gaps("eight-gaussians", schedule(), noises=levels(800, 2e-5))
    assert gap.max() < 1e-2


def test_a_wrong_likelihood_is_seen(x64):
    assert gaps("eight-gaussians", EDM(), wrong=0)[2].max() < 1e-2
    assert gaps("eight-gaussians", EDM(), wrong=6)[2].max() > 0.1  # the ½ of the ODE forgotten
