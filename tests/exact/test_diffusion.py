"""Denoisers, their losses and bounds, and log p by the ODE, in float64 and closed form; each check refuses broken twins."""

from __future__ import annotations

import itertools
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from saboteurs import diffusion as broken

from mulligan.core import Density, capabilities
from mulligan.data.codec import Encoded
from mulligan.errors import UsageError
from mulligan.families.diffusion import noise_range
from mulligan.loop import compile_small
from mulligan.measures.likelihood import row_likelihood
from mulligan.models.denoiser import OUTPUTS, Conditioned, Denoiser, make_denoiser
from mulligan.nets.time import make_timed_net, time_features
from mulligan.objectives.denoising import Denoising, continuous_bound, variational_bound
from mulligan.objectives.likelihood import Rows
from mulligan.samplers.diffused import diffused, with_sampler
from mulligan.samplers.ode import hashed_key
from mulligan.samplers.reverse import KERNELS, reverse_kernel, run_reverse
from mulligan.targets.mixture import GaussianMixture
from mulligan.targets.noised import NoisedMixture
from mulligan.targets.noising import EDM, Cosine, Straight, VariancePreserving, Walk

SCHEDULES = {
    "walk": Walk,
    "linear": VariancePreserving,
    "cosine": Cosine,
    "edm": EDM,
    "straight": lambda: Straight(t_max=0.98),
}


@pytest.fixture(autouse=True)
def x64():
    with jax.enable_x64(True):
        yield


def double(model):
    return jax.tree.map(lambda leaf: leaf.astype(float) if eqx.is_inexact_array(leaf) else leaf, model)


def a_mixture() -> GaussianMixture:
    covariances = [[[0.30, 0.10], [0.10, 0.20]], [[0.05, -0.02], [-0.02, 0.10]]]
    return GaussianMixture.from_covariances(np.array([0.3, 0.7]), np.array([[-1.0, 0.4], [0.8, -0.3]]), covariances)


def moments(mixture) -> tuple[np.ndarray, np.ndarray]:
    w = np.exp(np.asarray(mixture.log_weights))
    means, factors = np.asarray(mixture.means), np.asarray(mixture.choleskys)
    mean = w @ means
    second = np.einsum("k,kde->de", w, factors @ factors.transpose(0, 2, 1) + means[:, :, None] * means[:, None])
    return mean, second - np.outer(mean, mean)


class Perfect(eqx.Module):
    """The network whose denoiser is a known law's: what each output must give, from its definition."""

    law: NoisedMixture
    mean: jax.Array
    axes: jax.Array
    variances: jax.Array
    output: str = eqx.field(static=True)

    def __call__(self, u, level):
        schedule = self.law.schedule
        t = schedule.at_noise(jnp.exp(level + 0.5 * jnp.mean(jnp.log(self.variances))))
        alpha, sigma = schedule.alpha(t), schedule.sigma(t)
        total = jnp.sqrt(alpha**2 * self.variances + sigma**2)
        x = alpha * self.mean + self.axes @ (total * u)
        noise = self.axes.T @ self.law.noise(x, t)
        datum = self.axes.T @ (self.law.denoise(x, t) - self.mean)
        spread = jnp.sqrt(self.variances)
        if self.output == "energy":
            common = jnp.prod(spread) ** (1 / spread.size)
            return (self.law.log_prob(x, t) + 0.5 * u @ u)[None] * sigma / (alpha * common)
        return {
            "v": (alpha * spread * noise - sigma * datum / spread) / total,
            "noise": noise,
            "data": datum / spread,
            "score": self.axes.T @ self.law.score(x, t) * total,
        }[self.output]


def perfect(output: str, schedule, twin=Denoiser) -> Denoiser:
    mixture = a_mixture()
    mean, covariance = map(jnp.asarray, moments(mixture))
    variances, axes = jnp.linalg.eigh(covariance)
    net = Perfect(NoisedMixture(mixture, schedule), mean, axes, variances, output)
    return twin(net, schedule, mean, axes, variances, output)


def gaussian(schedule) -> Denoiser:
    """F = 0: the denoiser of N(m, C)."""
    mean, covariance = moments(a_mixture())
    variances, axes = np.linalg.eigh(covariance)
    net = double(make_denoiser(2, schedule, np.random.default_rng(0), width=4, depth=1)).network
    return Denoiser(net, schedule, *map(jnp.asarray, (mean, axes, variances)))


# --- what the network may give ----------------------------------------------------------------------------------------


RATIOS = (0.02, 0.3, 1.0, 5.0)  # σ/α
CASES = {f"{output} on linear": (output, "linear", Denoiser) for output in OUTPUTS}
CASES |= {f"v on {name}": ("v", name, Denoiser) for name in SCHEDULES}
CASES |= {name: ("v", "linear", twin) for name, twin in broken.DENOISERS.items()}


@pytest.fixture(scope="module")
def errors():
    """By case, the greatest error of D, ê, the score and the velocity at points and times; one program for all."""
    with jax.enable_x64(True):
        models = {name: perfect(output, SCHEDULES[kind](), twin) for name, (output, kind, twin) in CASES.items()}
        x = jnp.asarray(np.random.default_rng(3).normal(size=(4, 5, 2)))

        def worst(model, x):
            law, schedule = model.network.law, model.schedule

            def one(x, ratio):
                t = schedule.at_noise(ratio)
                pairs = [(model.denoise(x, t), law.denoise(x, t))]
                if model.output == "v":
                    pairs += [(model.noise(x, t), law.noise(x, t)), (model.score(x, t), law.score(x, t))]
                    pairs += [(model.velocity(x, t), law.velocity(x, t))]
                return jnp.max(jnp.stack([jnp.max(jnp.abs(a - b) / (1 + jnp.abs(b))) for a, b in pairs]))

            return jnp.max(jax.vmap(jax.vmap(one, (0, None)))(x, jnp.asarray(RATIOS)))

        found = compile_small(lambda models, x: jnp.stack([worst(model, x) for model in models]))(
            list(models.values()), x
        )
        return dict(zip(models, np.asarray(found)))


@pytest.mark.parametrize("name", [name for name in CASES if name not in broken.DENOISERS])
def test_every_output_means_what_it_says_on_every_schedule(errors, name):
    assert errors[name] < 1e-9


@pytest.mark.parametrize("name", broken.DENOISERS)
def test_a_broken_denoiser_is_refused(errors, name):
    assert not errors[name] < 1e-3


def test_the_energy_is_that_of_the_law():
    model = perfect("energy", EDM())
    x, t = jnp.asarray(np.random.default_rng(0).normal(size=(6, 2))), jnp.asarray(0.4)
    found = jax.vmap(lambda x: model.energy(x, t) + model.network.law.log_prob(x, t))(x)
    assert np.ptp(np.asarray(found)) < 1e-10
    with pytest.raises(ValueError, match="no energy"):
        perfect("v", EDM()).energy(x[0], t)


def test_before_training_it_is_the_gaussian_fit():
    mean, covariance = moments(a_mixture())
    x = jnp.asarray([0.3, -2.0])
    fit = GaussianMixture.from_covariances(np.ones(1), mean[None], covariance[None])

    def pairs(models):
        for model in models:
            law = NoisedMixture(fit, model.schedule)
            for ratio in RATIOS:
                t = model.schedule.at_noise(jnp.asarray(ratio))
                yield model.denoise(x, t) - law.denoise(x, t), model.prior_log_prob(x, t) - law.log_prob(x, t)

    models = [gaussian(make()) for make in SCHEDULES.values()]
    found = compile_small(lambda models: [jnp.max(jnp.abs(jnp.append(*pair))) for pair in pairs(models)])(models)
    assert max(map(float, found)) < 1e-9


# --- losses -----------------------------------------------------------------------------------------------------------


def worst_weight(objective=Denoising) -> float:
    """Each loss beside the square of its own target's error, of a wrong denoiser."""
    schedule = VariancePreserving()
    model, rng = gaussian(schedule), np.random.default_rng(1)
    worst = 0.0
    for ratio in (0.1, 1.0, 3.0):
        t = schedule.at_noise(jnp.asarray(ratio))
        x, e = jnp.asarray(rng.normal(size=2)), jnp.asarray(rng.normal(size=2))
        alpha, sigma, total, _ = model.scales(t)
        z, spread = model.inward(x), jnp.sqrt(model.variances)
        x_t = alpha * x + sigma * (model.axes @ e)
        guess = model.inward(model.denoise(x_t, t))
        guessed_noise = model.axes.T @ model.noise(x_t, t)
        v, guessed_v = ((alpha * spread * n - sigma * d / spread) / total for n, d in ((e, z), (guessed_noise, guess)))
        expected = {"noise": (e - guessed_noise) ** 2, "v": (v - guessed_v) ** 2, "data": (z - guess) ** 2}
        for weighting, errors in expected.items():
            # ``inward`` of the row and not of the noise, whose law does not see a rotation.
            found = objective(weighting).errors(model, x, e, t)
            worst = max(worst, float(jnp.max(jnp.abs(found - errors))))
    return worst


def test_each_weighting_is_the_error_of_its_target():
    assert worst_weight() < 1e-9


@pytest.mark.parametrize("twin", broken.OBJECTIVES.values(), ids=broken.OBJECTIVES)
def test_a_broken_weight_is_refused(twin):
    assert worst_weight(twin) > 1e-3


def test_times_are_one_in_each_part_of_their_law(key):
    model = gaussian(EDM(t_min=1e-6, t_max=1e6))
    shift = 0.5 * float(jnp.mean(jnp.log(model.variances)))
    levels = np.log(np.asarray(Denoising(centre=-1.0, spread=0.5).times(model, key, 4000))) - shift
    assert levels.mean() == pytest.approx(-1.0, abs=2e-3) and levels.std() == pytest.approx(0.5, rel=2e-2)
    linear = gaussian(VariancePreserving())
    even = np.asarray(Denoising("noise", spread=None).times(linear, key, 100))
    assert np.diff(even) == pytest.approx((1 - 1e-3) / 100, rel=1e-9)


# --- bounds -----------------------------------------------------------------------------------------------------------


EDGES = (1e-3, 50.0)
TIMES = np.geomspace(*EDGES[::-1], 41)


def corners(model, count: int):
    """Rows x (16, d) and noise (16, count, d): of what is quadratic in both, their mean is the expectation, exactly."""
    signs = np.array(list(itertools.product((-1.0, 1.0), repeat=4)))
    axes = np.asarray(model.axes)
    x = np.asarray(model.mean) + (signs[:, :2] * np.sqrt(np.asarray(model.variances))) @ axes.T
    return jnp.asarray(x), jnp.asarray(np.repeat((signs[:, 2:] @ axes.T)[:, None], count, axis=1))


@pytest.fixture(scope="module")
def gaps():
    """E[log p(x) − bound] of Gaussian data, by bound: sound and broken chains of 40 steps, and the continuous bound."""
    with jax.enable_x64(True):
        edm = gaussian(EDM(t_min=EDGES[0], t_max=EDGES[1]))
        linear = gaussian(VariancePreserving(t_min=1e-6))
        chains = {"sound": variational_bound} | broken.BOUNDS
        places = jnp.asarray((np.arange(2000) + 0.5) / 2000)

        @compile_small
        def all_gaps(models, chain_rows, continuous_rows):
            edm, linear = models

            def mean(bound, model, rows, spot):
                truth = jax.vmap(lambda x: model.prior_log_prob(x, jnp.asarray(1e-9)))(rows[0])
                return jnp.mean(truth - jax.vmap(lambda x, e: bound(model, x, e, spot))(*rows))

            found = [mean(chain, edm, chain_rows, jnp.asarray(TIMES)) for chain in chains.values()]
            return found + [mean(continuous_bound, model, continuous_rows, places) for model in (edm, linear)]

        found = all_gaps((edm, linear), corners(edm, 41), corners(edm, 2000))
        return dict(zip([*chains, "edm", "linear"], map(float, found)))


def exact_gap() -> float:
    """KL of the path laws: with the true D each step has the true mean, and the variance of the bridge in the place of
    that plus what is unknown of x_0; the same holds of the last jump. (Theory: ``diffusion.kl_chain``.)"""
    variances = np.linalg.eigvalsh(moments(a_mixture())[1])
    t, s = TIMES[:-1, None], TIMES[1:, None]
    unknown = variances * t**2 / (variances + t**2)
    ratios = [
        1 + (1 - s**2 / t**2) ** 2 * unknown / (s**2 * (1 - s**2 / t**2)),
        variances / (variances + TIMES[-1] ** 2),
    ]
    return float(sum(np.sum(0.5 * (ratio - 1 - np.log(ratio))) for ratio in ratios))


def test_the_chain_of_kls_is_below_log_p_by_the_kl_of_the_paths(gaps):
    assert gaps["sound"] == pytest.approx(exact_gap(), rel=1e-7)


@pytest.mark.parametrize("name", broken.BOUNDS)
def test_a_broken_chain_is_refused(gaps, name):
    assert abs(gaps[name] - exact_gap()) > 1e-3


@pytest.mark.parametrize("name", ["linear", "edm"])
def test_the_continuous_bound_is_tight_for_a_gaussian(gaps, name):
    assert abs(gaps[name]) < 2e-4  # what the blur of t_min leaves


# --- log p and draws --------------------------------------------------------------------------------------------------


@pytest.fixture
def true_model():
    return diffused(perfect("v", EDM(t_min=1e-3)), solver="rk4", solver_steps=128)


@compile_small
def _log_prob(model, x):
    return jax.vmap(model.each_log_prob)(x)


def test_the_ode_gives_log_p_of_a_perfect_denoiser(true_model):
    x = jnp.asarray(np.random.default_rng(0).normal(size=(40, 2)))
    truth = np.asarray(jax.vmap(a_mixture().log_prob)(x))
    assert np.abs(np.asarray(_log_prob(true_model, x))[:, 0] - truth).max() < 2e-3
    wrong = diffused(perfect("v", EDM(t_min=1e-3), broken.Backwards), solver="rk4", solver_steps=64)
    assert not np.abs(np.asarray(_log_prob(wrong, x))[:, 0] - truth).max() < 0.1


def test_random_signs_estimate_it_without_bias(true_model):
    x = jnp.asarray(np.tile([[0.5, -0.4]], (40, 1)))
    exact = float(_log_prob(true_model, x)[0, 0])
    model = diffused(true_model.denoiser, solver="rk4", solver_steps=64, probes=64)
    each = np.asarray(_log_prob(model, x))[0]
    assert model.kind == "estimate" and true_model.kind == "numeric" and len(each) == 64
    assert abs(each.mean() - exact) < 5 * each.std(ddof=1) / 8 + 1e-9
    assert np.array_equal(each, np.asarray(_log_prob(model, x))[0])


def test_samplers_are_swapped_and_the_rest_stays(key):
    model = diffused(gaussian(EDM()), steps=4)
    strokes = {name: with_sampler(model, name).strokes for name in KERNELS}
    assert strokes["heun"] == 9 and strokes["ancestral"] == 5 and strokes["predictor-corrector"] == 9
    swapped = with_sampler(model, "ddim", 7)
    assert swapped.denoiser is model.denoiser and len(swapped.times) == 8 and swapped.sampler == "ddim"
    for wrong in (lambda: with_sampler(model, "huen"), lambda: with_sampler(model, "heun", 0)):
        with pytest.raises(UsageError):
            wrong()
    with pytest.raises(UsageError, match="solver"):
        diffused(model.denoiser, solver="eulr")
    assert capabilities(model) == ("Sampler", "Density", "NoisedScore", "Bound")


def test_draws_of_the_gaussian_fit_have_its_moments(key):
    """The ODE of a Gaussian is linear: the map from noise to draws has a Jacobian J with J Jᵀ = C."""
    model = diffused(gaussian(EDM(t_min=1e-3)), steps=128)

    @compile_small
    def ends(noise):
        kernel = reverse_kernel("heun", Conditioned(model.denoiser))
        return jax.vmap(lambda e: run_reverse(kernel, key, model.denoiser.from_prior(e, model.times[0]), model.times))(
            noise
        )

    at = np.asarray(ends(jnp.asarray([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])))
    mean, covariance = moments(a_mixture())
    assert at[0] == pytest.approx(mean, abs=1e-6)
    jacobian = (at[1:] - at[0]).T
    assert jacobian @ jacobian.T == pytest.approx(covariance, rel=4e-3)


# --- the network ------------------------------------------------------------------------------------------------------


def member_gradients(objective) -> tuple[float, float, float]:
    """With the second of two members changed: how far the first one's gradient moves; how far the mean of the denoisers is
    from the denoiser; and how far the metric is from the mean of the losses of two models alone."""
    points = np.random.default_rng(3).normal(size=(64, 2)) * [1.0, 3.0]
    schedule, rows = EDM(), Rows(jnp.asarray(points))
    pair = double(make_denoiser(2, schedule, np.random.default_rng(4), width=4, depth=1, members=2, points=points))
    drawn = np.random.default_rng(5)
    members = jax.tree.map(lambda leaf: jnp.asarray(drawn.normal(size=leaf.shape)), pair.network.members)
    other = jax.tree.map(lambda leaf: leaf.at[1].multiply(1.5), members)

    def with_members(members):
        return eqx.tree_at(lambda model: model.network.members, pair, members)

    def alone(members, m):
        return eqx.tree_at(lambda model: model.network, pair, jax.tree.map(lambda leaf: leaf[m], members))

    @compile_small
    def found(members, other, x, t):
        key = jax.random.key(0)
        slope = jax.grad(lambda members: objective(with_members(members), key, rows)[0])
        first, second = slope(members), slope(other)
        moved = sum(jnp.sum(jnp.abs(a[0] - b[0])) for a, b in zip(jax.tree.leaves(first), jax.tree.leaves(second)))
        mean = (alone(members, 0).denoise(x, t) + alone(members, 1).denoise(x, t)) / 2
        apart = jnp.max(jnp.abs(with_members(members).denoise(x, t) - mean))
        same = jax.tree.map(lambda leaf: jnp.stack([leaf[0], leaf[0]]), members)
        turned = objective(with_members(same), key, rows)[1]["train"]
        single = objective(alone(members, 0), key, rows)[1]["train"]
        return moved, apart, turned - single

    return tuple(map(float, found(members, other, jnp.asarray([0.4, -2.0]), jnp.asarray(0.7))))


def test_members_learn_apart_and_answer_together():
    moved, apart, metric = member_gradients(Denoising())
    assert moved < 1e-9
    assert apart < 1e-12
    # One member sees the noise of the other's rows: equal members have another loss than one alone, of like size.
    assert 1e-9 < abs(metric) < 1.0


def test_one_loss_of_the_mean_is_refused():
    assert member_gradients(broken.LossOfTheMean())[0] > 1e-3


class NoisyGaussian(Density):
    """N(0, 1) whose log p is known up to noise of mean 0 and standard deviation 3, hashed from x."""

    kind: ClassVar[str] = "numeric"
    random_log_prob: bool = eqx.field(static=True)

    def log_prob(self, x, given=None):
        noise = 3 * jax.random.normal(hashed_key(x))
        return -0.5 * jnp.sum(x**2) - 0.5 * jnp.log(2 * jnp.pi) + noise


def test_a_random_log_p_of_dequantised_rows_is_a_mean_of_logs():
    rows, draws = 4000, 6
    points = np.random.default_rng(6).uniform(size=(rows, draws, 1)).astype(np.float32)  # cells [0, 1] of width 1
    encoded = Encoded(points, np.zeros((rows, draws)))
    truth = np.log(0.3413447460685429)  # of the cell
    bound = -0.5 * np.log(2 * np.pi) - 1 / 6  # E log p in it

    def gaps(model, against):
        found = row_likelihood(model, encoded)
        error = found.log_prob.std() / np.sqrt(rows)
        spread = np.sqrt(np.mean(np.sum(found.influence**2, 1) / (draws * (draws - 1))))
        return (found.log_prob.mean() - against) / error, spread / found.log_prob.std()

    off, spread = gaps(NoisyGaussian(True), bound)
    assert abs(off) < 4.75 and bound < truth
    assert spread == pytest.approx(1, abs=0.05)  # what the influences say is the spread that there is
    assert gaps(NoisyGaussian(False), truth)[0] > 20  # the log of the mean is above log p by far


def test_what_is_not_shown_is_as_if_not_given():
    net = make_timed_net(2, 2, np.random.default_rng(0), width=6, depth=2, waves=3, given=2)
    net = double(eqx.tree_at(lambda n: n.weights[-1], net, jnp.ones((2, 6))))
    u, c, given = jnp.asarray([0.3, -0.2]), jnp.asarray(0.5), jnp.asarray([1.0, 2.0])
    assert np.array_equal(net(u, c, given, 0.0), net(u, c))
    assert not np.array_equal(net(u, c, given), net(u, c))
    assert not np.array_equal(net(u, c, given), net(u, c, 2 * given))
    assert time_features(c, 4).shape == (8,)


def test_the_range_of_noise_follows_the_data():
    points = np.random.default_rng(0).normal(size=(4000, 3)) * np.array([1.0, 0.2, 5.0])
    low, high = noise_range(points)
    assert low == pytest.approx(0.003 * 0.2, rel=0.1) and high == pytest.approx(150, rel=0.1)
