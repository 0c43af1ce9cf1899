"""The energy-based family: its gradients, its chains, log Z and its failures, against closed forms.

The model used is p(x) ∝ exp(−½ a x² + b x) N(x; 0, 1): Gaussian with precision 1 + a, so everything is known.
"""

from __future__ import annotations

import json
import math
from dataclasses import fields, replace

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from saboteurs.contrasts import CONTRASTS, NOISES
from scipy.stats import norm

import mulligan as mg
from mulligan.checkpoints import Checkpoints
from mulligan.cli import main
from mulligan.data.table import Table
from mulligan.errors import FitError
from mulligan.families.normalising import find_log_z, pool_of, quick_log_z, with_chains
from mulligan.learners.contrastive import ChainHealth, ContrastiveDescent, NoiseDescent
from mulligan.learners.gradient import Minibatch, gradient_descent, trainable
from mulligan.loop import compile_small, run
from mulligan.models.energy import Box, EnergyModel, box_around, make_energy
from mulligan.objectives.contrastive import Contrast, contrastive_loss
from mulligan.objectives.likelihood import Rows
from mulligan.objectives.noise_contrastive import NoiseContrast, noise_contrastive_loss
from mulligan.objectives.score_matching import (
    DenoisingScoreMatching,
    exact_score_matching,
    sliced_score_matching,
)
from mulligan.samplers.sampled import sampled
from mulligan.targets.gaussian import Gaussian

Z, N = 4.75, 25_000


class Quadratic(eqx.Module):
    """f(x) = Σ −½ a x² + b x."""

    a: jax.Array
    b: jax.Array

    def __call__(self, x):
        return jnp.sum(-0.5 * self.a * x**2 + self.b * x)


def model_of(a, b, dim, dtype=np.float32):
    tilt = Quadratic(jnp.asarray(a, dtype), jnp.asarray(b, dtype))
    reference = Gaussian(jnp.zeros(dim, dtype), jnp.eye(dim, dtype=dtype))
    zero = jnp.zeros((), dtype)
    return EnergyModel(kind="estimate", tilt=tilt, reference=reference, log_z=zero, log_z_stderr=zero)


def true_log_z(a, b, dim):
    """E exp f under N(0, I): (1 + a)^(−d/2) exp(½ d b²/(1 + a))."""
    return dim * (-0.5 * math.log1p(a) + 0.5 * b * b / (1 + a))


# --- the model --------------------------------------------------------------------------------------------------------


def test_the_model_starts_as_its_reference_and_only_the_tilt_is_learned():
    reference = Gaussian(jnp.ones(2), 2 * jnp.eye(2))
    model = make_energy(reference, 2, np.random.default_rng(0), width=8, frequencies=3)
    x = jnp.array([0.3, -1.0])
    assert float(model.log_prob(x)) == float(reference.log_prob(x)) == -float(model.energy(x))
    learned = [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(trainable(model)[0])]
    assert learned and all(path.startswith(".tilt") for path in learned)
    assert eqx.combine(*trainable(model)).log_prob(x) == model.log_prob(x)
    assert bool(jnp.isnan(model.log_prob(jnp.array([jnp.nan, 0.0]))))


def test_a_box_is_flat_inside_and_zero_outside():
    box = box_around(np.array([[0.0, 1.0], [2.0, 5.0]]), margin=0.5)
    assert box.low.tolist() == [-1.0, -1.0] and box.high.tolist() == [3.0, 7.0]
    model = replace(model_of(0.0, 0.0, 2), reference=box)
    assert float(model.log_prob(jnp.array([0.0, 0.0]))) == pytest.approx(-math.log(32), rel=1e-6)
    assert float(model.log_prob(jnp.array([-1.5, 0.0]))) == -math.inf
    assert bool(jnp.isnan(Box(box.low, box.high).log_prob(jnp.array([jnp.nan, 0.0]))))


# --- objectives -------------------------------------------------------------------------------------------------------

QUANTILES = norm.ppf((np.arange(40_001) + 0.5) / 40_001)  # equal weights: means of squares to 1e-3


def gaussian_points(mean, sd):
    return (mean + sd * QUANTILES)[:, None]


def gradients(loss, model, batch):
    """∂loss/∂a and ∂loss/∂b in float64."""

    def value(tilt):
        return loss(eqx.tree_at(lambda m: m.tilt, model, tilt), jax.random.key(0), batch)[0]

    tilt = jax.jit(jax.grad(value), compiler_options={"xla_cpu_experimental_ynn_fusion_type": ""})(model.tilt)
    return np.array([float(tilt.a), float(tilt.b)])


def contrast_gradient(loss):
    """The data are N(.5, .7²), the model N(b/(1+a), 1/(1+a)) with a = 1, b = −.4, and the negatives are draws of it."""
    with jax.enable_x64(True):
        model = model_of(1.0, -0.4, 1, np.float64)
        batch = Contrast(jnp.asarray(gaussian_points(0.5, 0.7)), jnp.asarray(gaussian_points(-0.2, math.sqrt(0.5))))
        return gradients(loss, model, batch)


# −L′: E_model[∂f] − E_data[∂f] with ∂f = (−½x², x).
EXPECTED = np.array([-0.5 * (0.5 + 0.04) + 0.5 * (0.49 + 0.25), -0.2 - 0.5])


def test_the_contrastive_gradient_is_that_of_the_likelihood():
    np.testing.assert_allclose(contrast_gradient(contrastive_loss), EXPECTED, atol=1e-3)


@pytest.mark.parametrize("broken", CONTRASTS)
def test_broken_contrasts_are_seen(broken):
    assert np.abs(contrast_gradient(broken) - EXPECTED).max() > 0.05


def noise_gradient(loss, ratio=3):
    """At the truth: data N(0, ½), noise N(.3, 1.5²), f and its constant such that exp(f) q is the data's density."""
    with jax.enable_x64(True):
        model = model_of(1.0, 0.0, 1, np.float64)
        points = jnp.asarray(gaussian_points(0.0, math.sqrt(0.5)))
        noise = jnp.asarray(np.repeat(gaussian_points(0.3, 1.5), ratio, axis=0))
        law = Gaussian(jnp.full(1, 0.3), jnp.full((1, 1), 1.5))

        def offset(x):  # log q − log r − log Z
            return jax.vmap(lambda y: model.log_q(y) - law.log_prob(y))(x) - true_log_z(1.0, 0.0, 1)

        return gradients(loss, model, NoiseContrast(points, noise, offset(points), offset(noise)))


def test_nce_stands_still_at_the_truth():
    np.testing.assert_allclose(noise_gradient(noise_contrastive_loss), 0.0, atol=2e-3)


@pytest.mark.parametrize("broken", NOISES)
def test_broken_nce_moves_away_from_the_truth(broken):
    assert np.abs(noise_gradient(broken)).max() > 0.02


def test_score_matching_has_its_closed_form(key):
    """Model N(m, s²), rows x: exact = ½(x−m)²/s⁴ − 1/s² each; sliced the same in one dimension; denoising by moments."""
    model, points = model_of(1.0, 0.5, 1), np.linspace(-1, 2, 7)[:, None].astype(np.float32)
    precision, mean = 2.0, 0.25
    expected = np.mean(0.5 * precision**2 * (points - mean) ** 2 - precision)
    rows = Rows(jnp.asarray(points))
    exact = float(compile_small(exact_score_matching)(model, key, rows)[0])
    assert exact == pytest.approx(expected, rel=1e-5)
    assert float(compile_small(sliced_score_matching)(model, key, rows)[0]) == pytest.approx(expected, rel=1e-5)
    sigma, many = 0.3, np.repeat(points, 20_000, axis=0)
    found = float(compile_small(DenoisingScoreMatching(sigma))(model, key, Rows(jnp.asarray(many)))[0])
    # E ½ (σ s(x + σe) + e)² = ½ (σ² s(x)² + (1 − precision σ²)²)
    wanted = 0.5 * np.mean((sigma * precision * (mean - points)) ** 2) + 0.5 * (1 - precision * sigma**2) ** 2
    assert found == pytest.approx(wanted, abs=Z * 0.6 / math.sqrt(many.size))


def test_sliced_and_exact_agree_in_the_mean_over_directions():
    model = make_energy(Gaussian(jnp.zeros(2), jnp.eye(2)), 2, np.random.default_rng(0), width=8)
    weights = model.tilt.network.weights[-1] + 0.5
    model = eqx.tree_at(lambda m: m.tilt.network.weights[-1], model, weights)
    rows = Rows(jnp.asarray(np.random.default_rng(1).normal(size=(5, 2)), jnp.float32))
    exact = float(compile_small(exact_score_matching)(model, jax.random.key(0), rows)[0])
    losses = compile_small(lambda model, keys, rows: jax.vmap(lambda k: sliced_score_matching(model, k, rows)[0])(keys))
    values = np.asarray(losses(model, jax.random.split(jax.random.key(1), 4000), rows))
    assert abs(values.mean() - exact) < Z * values.std() / math.sqrt(len(values))


# --- learning ---------------------------------------------------------------------------------------------------------


def contrastive(model, start="persistent", betas=(1.0,), candidates=1, chains=N, rate=0.0):
    descent = gradient_descent(contrastive_loss, model, Rows(jnp.zeros((4, 1))))
    numbers = jnp.asarray(betas, jnp.float32), jnp.asarray(0.03), jnp.asarray(0.1)
    return ContrastiveDescent(descent, *numbers, start, 5, chains, False, candidates)


def still(start, size):
    """Inputs of steps that learn nothing."""
    return Minibatch(np.zeros((size, 4), np.int32), np.zeros(size, np.float32))


@pytest.mark.parametrize(
    "start, betas, candidates, kept",
    [
        pytest.param("persistent", (1.0,), 1, True, marks=pytest.mark.slow),
        ("persistent", (1.0,), 4, True),
        ("persistent", (0.25, 0.5, 1.0), 1, True),
        ("data", (1.0,), 1, False),
        pytest.param("noise", (1.0,), 1, False, marks=pytest.mark.slow),
    ],
)
def test_persistent_chains_keep_the_model(start, betas, candidates, kept, key):
    """From exact draws, ten steps of learning at rate 0: N(b/(1+a), 1/(1+a)) for each rung βa, βb."""
    model = model_of(3.0, 2.0, 1)
    kernel = contrastive(model, start, betas, candidates)
    precision = 1 + 3.0 * np.asarray(betas)
    mean, sd = 2.0 * np.asarray(betas) / precision, precision**-0.5
    draws = np.random.default_rng(7).normal(mean, sd, (N, len(betas)))[..., None]
    state = kernel.init(key, model)._replace(chains=jnp.asarray(draws, jnp.float32))
    ended = run(kernel, key, state, 10, inputs=still, capacity=16)
    chains = np.asarray(ended.state.chains)[..., 0].astype(float)
    z_mean = (chains.mean(0) - mean) / sd * math.sqrt(N)
    z_variance = (chains.var(0) / sd**2 - 1) * math.sqrt(N / 2)
    assert (max(np.abs(z_mean).max(), np.abs(z_variance).max()) < Z) == kept, (z_mean, z_variance)
    moved = np.corrcoef(chains[:, -1], draws[:, -1, 0])[0, 1]
    assert moved < 0.9
    assert all(np.isfinite(entry).all() for entry in ended.history.values())


class Swapped(ContrastiveDescent, strict=False):
    """A planted mistake: the rungs are exchanged as if their β stood in reverse order."""

    def move(self, state, noise, input):
        turned = state._replace(chains=state.chains[:, ::-1])
        new, info = ContrastiveDescent.move(self, turned, noise, input)
        return new._replace(chains=new.chains[:, ::-1]), info


def test_exchange_with_swapped_betas_is_seen(key):
    model = model_of(3.0, 2.0, 1)
    kernel = contrastive(model, betas=(0.25, 0.5, 1.0))
    kernel = Swapped(*(getattr(kernel, field.name) for field in fields(ContrastiveDescent)))
    precision = 1 + 3.0 * np.array([0.25, 0.5, 1.0])
    mean, sd = 2.0 * np.array([0.25, 0.5, 1.0]) / precision, precision**-0.5
    draws = np.random.default_rng(7).normal(mean, sd, (N, 3))[..., None]
    state = kernel.init(key, model)._replace(chains=jnp.asarray(draws, jnp.float32))
    chains = np.asarray(run(kernel, key, state, 10, inputs=still, capacity=16).state.chains)[..., 0]
    assert np.abs((chains.mean(0) - mean) / sd * math.sqrt(N)).max() > Z


def test_noise_of_the_reference_needs_no_offset_and_another_noise_does(key):
    model, rows = model_of(1.0, 0.0, 1), Rows(jnp.asarray(np.linspace(-1, 1, 8)[:, None], jnp.float32))
    seen = {}

    def loss(model, key, batch):
        return jnp.mean(batch.points_offset) ** 2 + 0 * model.tilt.a, {
            "points": batch.points_offset,
            "noise": batch.noise_offset,
            "drawn": batch.noise,
        }

    for own, law in ((True, model.reference), (False, Gaussian(jnp.ones(1), 2 * jnp.eye(1)))):
        kernel = NoiseDescent(gradient_descent(loss, model, rows), law, 3, own)
        input = Minibatch(jnp.arange(8), jnp.asarray(0.0))
        seen[own] = compile_small(lambda k, s, i, key: k.step(key, s, i))(kernel, kernel.init(key, model), input, key)[
            1
        ]
    assert not np.any(seen[True]["points"]) and seen[True]["noise"].shape == (24,)
    drawn = np.asarray(seen[False]["drawn"])[:, 0]
    np.testing.assert_allclose(seen[False]["noise"], norm.logpdf(drawn) - norm.logpdf(drawn, 1, 2), atol=1e-4)
    np.testing.assert_allclose(
        seen[False]["points"], norm.logpdf(rows.points[:, 0]) - norm.logpdf(rows.points[:, 0], 1, 2), atol=1e-4
    )


def test_health_says_what_is_wrong():
    good = {"train": np.zeros(50), "acceptance": np.full(50, 0.5), "spread": np.ones(50)}
    health = ChainHealth(25)
    assert health(50, None, good) is None
    assert "energy gap is 80" in health(50, None, good | {"train": np.full(50, 80.0)})
    assert "stand still" in health(50, None, good | {"acceptance": np.full(50, 0.01)})
    assert "run away" in health(50, None, good | {"spread": np.full(50, 1e4)})
    assert health(50, None, good | {"train": np.r_[np.full(25, 80.0), np.zeros(25)]}) is None  # it recovered


# --- log Z and draws --------------------------------------------------------------------------------------------------


SLOWER = [pytest.param(*case, marks=pytest.mark.slow) for case in ((3.0, 1.0, 1), (1.0, 0.5, 3))]


@pytest.mark.parametrize("a, b, dim", [(3.0, 1.0, 2), (8.0, 2.5, 6), *SLOWER])
def test_log_z_is_found_within_its_error(a, b, dim, seed):
    """By quadrature in one and two dimensions, by importance sampling in three, by annealing where weights are few."""
    model = model_of(a, b, dim)
    chains, _ = with_chains(model, seed)
    chains, found = find_log_z(chains, dim, seed)
    truth = true_log_z(a, b, dim)
    error = max(float(chains.log_z_stderr), 1e-6)
    assert abs(found.value - truth) < Z * error + 1e-5, (found, truth)
    assert chains.kind == ("numeric" if dim < 3 else "estimate") and error < (2e-5 if dim < 3 else 0.05)
    assert float(chains.model.log_z) == pytest.approx(found.value, rel=1e-5)
    if dim == 6:
        assert not found.note.startswith("importance")


def test_a_look_is_nan_where_too_few_draws_of_the_reference_count():
    reference = Gaussian(jnp.zeros(2), jnp.eye(2))
    pool = pool_of(reference, 2, 0)
    good, bad = (quick_log_z(model_of(a, b, 2), pool) for a, b in ((1.0, 0.5), (500.0, 2000.0)))
    assert float(good.log_z) == pytest.approx(true_log_z(1.0, 0.5, 2), abs=0.05)
    assert math.isnan(float(bad.log_z))


def test_draws_are_of_the_model_and_the_chains_move(seed):
    model = model_of(3.0, 2.0, 2)
    chains = sampled(model, 0.3, rounds=4)
    draw = compile_small(lambda chains, keys: jax.vmap(chains.traced)(keys))
    x, info = draw(chains, jax.random.split(jax.random.key(seed), N))
    x = np.asarray(x, float)
    assert np.abs((x.mean(0) - 0.5) / 0.5 * math.sqrt(N)).max() < Z
    assert np.abs((x.var(0) / 0.25 - 1) * math.sqrt(N / 2)).max() < Z
    assert 0.3 < float(info["jumps"].mean()) < 1 and 0.3 < float(info["acceptance"].mean()) < 1
    assert chains.strokes == 1 + 4 * (16 + 4)


# --- failures ---------------------------------------------------------------------------------------------------------

BAD = ("--set", "step_size=20", "--set", "sampler_steps=1", "--set", "width=16", "--set", "chains=32")


def test_a_bad_configuration_ends_with_a_verdict_and_its_last_healthy_state(tmp_path, monkeypatch, capsys):
    """Step size a hundred times too long, one Langevin step: exit code 4, the state before on disk, nothing non-finite."""
    monkeypatch.chdir(tmp_path)
    words = (
        "fit",
        "eight-gaussians",
        "--rows",
        "600",
        "--family",
        "energy:mle",
        "--effort",
        "quick",
        "-o",
        "bad",
        *BAD,
    )
    code = main(list(words))
    err = capsys.readouterr().err
    assert code == 4
    assert "the chains stand still" in err and "kept in bad" in err and "DO:" in err
    model = mg.load("bad")
    assert "stand still" in model.card["failed"] and "row" not in model.card
    assert np.isfinite(model.log_prob(mg.read("eight-gaussians").rows(slice(0, 50)))).all()
    assert isinstance(model.sample(10), Table)
    config = json.loads((tmp_path / "bad" / "config.json").read_text())
    assert "NaN" not in json.dumps(config) and "Infinity" not in json.dumps(config)
    assert "training failed" in (tmp_path / "bad" / "card.md").read_text()
    assert main(["show", "bad"]) == 0
    assert "stand still" in capsys.readouterr().out


def test_a_failed_training_is_a_row_of_a_comparison_and_an_error_with_its_model(tmp_path):
    options = {"energy": {"step_size": 20.0, "sampler_steps": 1, "width": 16, "chains": 32}}
    table = mg.read("eight-gaussians").rows(slice(0, 600))
    card = mg.compare(table, ["gaussian", "energy:mle"], effort="quick", options=options)
    row = card.report["families"][1]
    assert row["status"] == "failed" and "stand still" in row["reason"]
    with pytest.raises(FitError, match="stand still") as raised:
        mg.fit(table, "energy:mle", effort="quick", **options["energy"])
    assert np.isfinite(raised.value.fitted.log_prob(table)).all()


class Killed(Exception):
    """As if the process had ended."""


@pytest.mark.parametrize("family", [pytest.param("energy:mle", marks=pytest.mark.slow), "boltzmann:pcd"])
def test_a_training_with_chains_goes_on_bit_for_bit(family, tmp_path, monkeypatch):
    """The chains are part of what a checkpoint holds: killed at a look, the fit ends in the bits of one that was not."""
    monkeypatch.setattr(Checkpoints, "due", lambda self, name: True)
    table = mg.read("rbm-6x4" if family.startswith("boltzmann") else "moons").rows(slice(0, 500))
    options = {"effort": "quick", "steps": 100, "chains": 16, "seed": 3}

    def kill(step, model, history):
        if step >= 75:
            raise Killed

    kill.every = 25
    with pytest.raises(Killed):
        mg.fit(table, family, checkpoint=tmp_path / "resume", watch=kill, **options)
    resumed = mg.fit(table, family, checkpoint=tmp_path / "resume", resume=True, **options)
    whole = mg.fit(table, family, **options)
    assert any("resumed" in line for line in resumed.card["row"]["health"])
    assert np.array_equal(resumed.log_prob(table), whole.log_prob(table))
    assert np.array_equal(resumed.history["train"], whole.history["train"])
