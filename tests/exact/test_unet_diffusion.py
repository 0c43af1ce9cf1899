"""A U-Net on pictures by diffusion: its bound stays below log p, its fit goes on after a kill, and it is saved whole."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from saboteurs.pictures import BOUNDS

import mulligan as mg
from mulligan import checkpoints
from mulligan.data.table import ImageShape
from mulligan.errors import UsageError
from mulligan.families.diffusion import picture_range
from mulligan.loop import compile_small
from mulligan.models.denoiser import make_denoiser
from mulligan.nets.unet import make_unet
from mulligan.samplers.diffused import diffused
from mulligan.targets.noising import EDM

SIDE, LEVELS, ROWS = 8, 8, 160
STEPS, KILLED = 100, 75  # the first checkpoint is that of the second look
Z = 4.75  # a false alarm in a million
OPTIONS = {"network": "unet", "channels": (4, 6), "batch": 8, "sampler_steps": 2, "solver_steps": 2}


def drawn(seed):
    """Each of one brightness, with a little noise: what a network that sees its neighbours learns at once."""
    rng = np.random.default_rng(seed)
    bright = rng.integers(1, LEVELS - 1, (ROWS, 1, 1)) + rng.integers(-1, 2, (ROWS, SIDE, SIDE))
    return bright.astype(np.uint8)


@pytest.fixture(scope="module")
def pictures():
    return mg.read(drawn(7), levels=LEVELS)


def trained(pictures, steps=STEPS, **more):
    return mg.fit(pictures, "diffusion", effort="quick", steps=steps, force=True, seed=3, **OPTIONS, **more)


@pytest.fixture(scope="module")
def model(pictures):
    return trained(pictures)


def leaves(model):
    return [np.asarray(leaf) for leaf in jax.tree.leaves(model.model)]


@pytest.mark.slow  # a U-Net takes a minute to compile
def test_a_fit_is_what_it_says(model, pictures):
    assert model.label == "diffusion (U-Net of 4, 6 channels)" and model.log_prob_kind == "lower bound"
    assert model.model.kind == "lower bound" and model.model.denoiser.axes is None
    assert "log p is the variational bound, at 2 noise levels a row" in model.card["row"]["health"]
    five = model.sample(5, seed=1)
    assert five.schema.image == ImageShape(SIDE, SIDE, 1, LEVELS) and five.pictures.shape == (5, SIDE, SIDE, 1)
    assert set(np.unique(five.values)) <= set(range(LEVELS))
    np.testing.assert_array_equal(model.sample(3, seed=1).values, five.values[:3])
    some = pictures.rows(slice(0, 4))
    np.testing.assert_array_equal(model.log_prob(some), model.log_prob(some))


@pytest.mark.slow  # a U-Net takes a minute to compile
def test_training_raises_the_bound_of_fresh_pictures(model, pictures):
    fresh, begun = drawn(8), trained(pictures, steps=1)

    def gain(later, sooner):
        gap = later.log_prob(fresh) - sooner.log_prob(fresh)  # the same noise in both
        return gap.mean() / _error(gap)

    assert gain(model, begun) > Z
    assert gain(trained(pictures, steps=2, rate=1e-6), begun) < Z  # its twin hardly learned


@pytest.mark.slow  # a U-Net takes a minute to compile
def test_a_killed_fit_goes_on_and_ends_in_the_same_bits(model, pictures, tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoints, "SECONDS", 0.0)

    class Killed(Exception):
        pass

    def kill(step, model, history):
        raise Killed

    kill.every = KILLED
    with pytest.raises(Killed):
        trained(pictures, checkpoint=tmp_path / "kept", watch=kill)
    again = trained(pictures, checkpoint=tmp_path / "kept", resume=True)
    assert any("resumed" in line for line in again.card["row"]["health"])
    assert all(np.array_equal(one, other) for one, other in zip(leaves(again), leaves(model), strict=True))
    np.testing.assert_array_equal(again.calibration, model.calibration)


@pytest.mark.slow  # a U-Net takes a minute to compile
def test_a_saved_model_is_the_same_model(model, pictures, tmp_path):
    model.save(tmp_path / "kept")
    back = mg.load(tmp_path / "kept")
    assert all(np.array_equal(one, other) for one, other in zip(leaves(back), leaves(model), strict=True))
    some = pictures.rows(slice(0, 4))
    np.testing.assert_array_equal(back.log_prob(some), model.log_prob(some))
    np.testing.assert_array_equal(back.sample(3).values, model.sample(3).values)


@pytest.mark.parametrize(
    "options, said",
    [
        ({"network": "unet", "output": "energy"}, "no scalar"),
        ({"network": "unet", "width": 8}, "width with network=unet"),
        ({"channels": (4, 4)}, "channels with network=mlp"),  # 8 x 8: a perceptron unless asked
        ({"network": "convolutional"}, "expected one of unet, mlp"),
        ({"channels": (0,)}, "from 1 to 1024"),
    ],
)
def test_what_cannot_be_is_refused(options, said, pictures):
    with pytest.raises(UsageError, match=said):
        mg.fit(pictures, "diffusion", effort="quick", steps=1, force=True, **options)


def test_a_table_that_is_no_picture_gets_no_unet():
    with pytest.raises(UsageError, match="whole pictures"):
        mg.fit(np.random.default_rng(0).normal(size=(60, 3)), "diffusion", effort="quick", network="unet")


# --- the bound --------------------------------------------------------------------------------------------------------


def _denoiser(generator, schedule, points):
    """Of pixels N(m_j, λ): before training its network is 0, and it is the true denoiser of that law."""

    def network(inputs, outputs, generator):
        return make_unet((SIDE, SIDE, 1), generator, channels=OPTIONS["channels"])

    return make_denoiser(SIDE**2, schedule, generator, whole=True, points=points, network=network)


@pytest.fixture(scope="module")
def gaps():
    """Bounds less log p of draws of that law, by name; what is true, and what is not."""
    rng = np.random.default_rng(11)
    points = 0.6 * rng.normal(size=(1500, SIDE**2)) + np.linspace(-1, 1, SIDE**2)
    true = _denoiser(rng, EDM(t_min=jnp.asarray(0.01), t_max=jnp.asarray(20.0)), points)
    mean, spread = np.asarray(true.mean, float), np.sqrt(np.asarray(true.variances, float))
    x = mean + spread * rng.normal(size=(256, SIDE**2))
    log_p = -0.5 * np.sum(((x - mean) / spread) ** 2 + np.log(2 * np.pi * spread**2), axis=1)
    network = true.network
    wrong = type(network)(
        **{**vars(network), "outward": jax.tree.map(lambda leaf: leaf + 0.02 * np.float32(1), network.outward)}
    )
    worse = type(true)(wrong, true.schedule, true.mean, true.axes, true.variances, true.output)

    def bounds(law, x, wrong):
        models = {"true": law, "wrong": diffused(wrong, solver="bound", solver_steps=16)}
        models |= {name: twin(law) for name, twin in BOUNDS.items()}
        return {name: jax.vmap(model.log_prob)(x) for name, model in models.items()}

    law = diffused(true, solver="bound", solver_steps=16)
    found = compile_small(bounds)(law, jnp.asarray(x, jnp.float32), worse)
    return {name: np.asarray(values, float) - log_p for name, values in found.items()}


def _error(gap):
    return gap.std(ddof=1) / np.sqrt(len(gap))


def test_the_bound_of_the_true_denoiser_is_log_p(gaps):
    gap = gaps["true"]
    assert gap.mean() < Z * _error(gap)
    # What it leaves: the datum at the least noise, whose posterior is narrower than that noise by half its square.
    assert gap.mean() > -Z * _error(gap) - SIDE**2 * 0.5 * (0.01 / 0.6) ** 2 - 0.01


def test_the_bound_of_another_denoiser_is_below(gaps):
    assert gaps["wrong"].mean() < -Z * _error(gaps["wrong"])


@pytest.mark.parametrize("name", BOUNDS)
def test_a_broken_bound_is_refused(gaps, name):
    gap = gaps[name]
    assert abs(gap.mean()) > Z * _error(gap) + 0.1


def test_the_range_of_noise_is_that_of_the_grey_levels():
    rng = np.random.default_rng(0)
    alike = rng.normal(size=(300, 1)) + 0.1 * rng.normal(size=(300, 64))  # one direction of standard deviation 8
    low, high = picture_range(alike.astype(np.float32), 0.02)
    assert low == 0.005 and 30 < high < 50
    assert picture_range(alike, None)[0] == 0.003
