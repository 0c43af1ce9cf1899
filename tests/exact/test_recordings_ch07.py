"""The recordings of chapters 7, 8 and the first of 9, as statistics: read from their arrays, apart from their own checks."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np
import pytest

from mulligan import lab
from mulligan.lab.experiments import annealing, barrier, estimates, forward, momentum, step_size, tempering, three_walks
from mulligan.lab.identities.langevin import whole_gradient
from mulligan.lab.recording import Recording

SMALL = {
    "langevin_halves": {"particles": 2000, "steps": 6},
    "step_size": {"chains": 1000, "steps": 100},
    "momentum": {"chains": 500, "leaps": 12},
    "tempering_swaps": {"sets": 500, "steps": 12},
    "tempering_gap": {"frames": 8},
    "annealing_bracket": {"runs": 500, "moves": 1},
    "forward_halves": {"particles": 3000, "steps": 4},
    "three_walks": {"particles": 3000, "steps": 4},
}
_MADE: dict[tuple[str, int], Recording] = {}


def made(name: str, seed: int = 0) -> Recording:
    if (name, seed) not in _MADE:
        _MADE[name, seed] = getattr(lab, name)(seed=seed, **SMALL[name])
    return _MADE[name, seed]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", SMALL)
def test_the_recordings_of_sampling_hold_on_three_seeds(name, seed):
    recording = made(name, seed)
    assert recording.holds, {key: check for key, check in recording.checks.items() if check.verdict == "fails"}
    assert all(len(text) < 200 for text in recording.captions) and len(recording.title) < 60


def test_langevins_halves_oppose_at_equilibrium_only():
    recording = made("langevin_halves")
    for start in ("from p", "from π"):
        bars = {half: recording.layer(f"{half}, {start}") for half in ("gradient half", "noise half", "sum")}
        ends = slice(2, None, 2)  # after whole steps
        mean, error = (
            {half: getattr(bar, part)[ends, 0] for half, bar in bars.items()} for part in ("height", "error")
        )
        assert (
            start == "from p" or (mean["gradient half"] < 0).all()
        )  # p lies between the hills: first it is pulled apart
        assert (mean["noise half"] > 0).all()
        assert mean["sum"] == pytest.approx(mean["gradient half"] + mean["noise half"])
        share = np.abs(mean["sum"]) / error["sum"]
        assert (share < 4.75).all() if start == "from π" else (share > 4.75).all()


def test_long_steps_keep_a_wider_law_and_the_decision_mends_it():
    recording = made("step_size")
    plain, adjusted = (recording.layer(f"variance, {name}") for name in ("Langevin", "adjusted"))
    stated = 1 / (1 - plain.x / 4)
    width = lambda layer: (layer.high - layer.low)[0] / (2 * 1.96)  # noqa: E731
    assert (np.abs(plain.y[0] - stated) < 4.75 * width(plain)).all()
    assert (np.abs(adjusted.y[0] - 1) < 4.75 * width(adjusted)).all()
    own, pi = recording.layer("Langevin's own law"), recording.layer("π, two hills")
    off = np.abs(own.y - pi.y).sum(axis=1)
    assert (np.diff(off) > 0).all() and off[-1] > 8 * off[0]


def test_momentum_is_farther_at_equal_gradients_and_keeps_its_energy():
    recording = made("momentum")
    far, near = (recording.layer(f"E|x − x₀|², {name}") for name in ("momentum", "Langevin"))
    assert (far.low[0, 12:] > near.high[0, 12:]).all()
    first = np.polyfit(np.log(far.x[2:9]), np.log(far.y[0, 2:9]), 1)[0]
    walk = np.polyfit(np.log(near.x[2:30]), np.log(near.y[0, 2:30]), 1)[0]
    assert first > 1.3 and walk < 1.1
    size = recording.layer("± root mean square, all chains").y
    assert size.max() < 0.3 and (size[:, 0] == 0).all()


def test_the_law_stays_while_balls_exchange_holes():
    recording = made("tempering_swaps")
    right = recording.layer("in the right hole, exchange").y[0]
    assert (np.abs(right - 0.3) < 4.75 * np.sqrt(0.21 / 500)).all()
    same, alone = (recording.layer(f"same side as at the start, {name}").y[0] for name in ("exchange", "alone"))
    assert same[0] == 1 and same[-1] < 0.7 and (alone == 1).all()
    bars = recording.layer("balls at β = 1")
    assert bars.height.sum(axis=1) * bars.width == pytest.approx(1, abs=0.01)
    ball, lone = recording.layer("a ball with exchange").xy[0], recording.layer("a ball alone").xy[0]
    assert (ball[:, 1] > 2).any() and (ball[:, 1] < -2).any() and (lone[:, 1] < 0).all()


def test_colours_of_balls_follow_the_balls():
    balls = recording_of_balls()
    place = np.argsort(balls.ball, axis=2)
    assert (np.take_along_axis(balls.ball, place, axis=2) == np.arange(balls.ball.shape[2])).all()
    blue = made("tempering_swaps").layer("started on the left").xy
    assert (blue[0, :, 0] <= 0).all() and (blue[-1, :, 0] > 0).any()


def recording_of_balls() -> tempering.Balls:
    rng = np.random.default_rng(0)
    ball = np.stack([rng.permutation(4) for _ in range(15)]).reshape(5, 3, 4)
    return tempering.Balls(rng.normal(size=(5, 3, 4)), ball, np.zeros(3), np.zeros(3))


def test_the_gap_falls_by_e_a_nat_alone_and_hardly_with_exchange():
    recording = made("tempering_gap")
    alone, both = (recording.layer(f"gap, {name}") for name in ("alone", "exchanging"))
    falls = np.diff(np.log(alone.y[0]))[-3:] / np.diff(alone.x)[-3:]
    assert falls == pytest.approx([-0.9] * 3, abs=0.1)  # e^(−barrier) times Kramers' b, which grows as its root
    assert (both.y[0] > alone.y[0]).all() and both.y[0, -1] > 1000 * alone.y[0, -1]


def test_the_bracket_of_annealing_closes_on_log_z():
    recording = made("annealing_bracket")
    low, high, middle = (recording.layer(label) for label in ("E log w, forward", "E log w, reverse", "Bennett"))
    assert (low.low[0] < 0).all() and (high.high[0] > 0).all() and (np.diff(low.y[0][:5]) > 0).all()
    assert high.y[0, -1] - low.y[0, -1] < 0.1 * (high.y[0, 0] - low.y[0, 0])
    error = (middle.high - middle.low)[0] / (2 * 1.96)
    assert (np.abs(middle.y[0]) < 4.75 * error).all()
    forward, reverse = (recording.layer(f"{name} runs").height[3] for name in ("forward", "reverse"))
    centres = recording.layer("forward runs").at
    below, above = (centres < -1), (centres > 0.5)
    assert forward[below].sum() > reverse[below].sum() and forward[above].sum() < reverse[above].sum()  # Crooks


def test_forward_halves_add_the_same_and_the_law_is_that_of_twice_the_time():
    recording = made("forward_halves")
    random, still = (recording.layer(f"{half} half") for half in ("random", "deterministic"))
    assert (np.abs(random.height[2::2] - 0.04) < 4.75 * random.error[2::2]).all()
    assert (np.abs(still.height[2::2] - 0.04) < 4.75 * still.error[2::2] + 0.04**2 / 4 * 5).all()
    bars, exact = recording.layer("particles"), recording.layer("exact p_t")
    assert exact.y.shape[0] == recording.length and (exact.y.max(axis=1)[:-1] > exact.y.max(axis=1)[1:]).all()
    line = recording.layer("exact, ± the error of the particles")
    assert line.x[-1] - line.x[0] == pytest.approx(2 * 4 * 0.04) and bars.xy.shape[1] == recording.length


def test_three_walks_go_two_back_one_forward_or_stay():
    recording = made("three_walks")
    score, noise = recording.layer("score half"), recording.layer("noise half")
    assert (np.abs(noise.height[2::2] - 0.08) < 4.75 * noise.error[2::2]).all()
    assert score.height[2::2].mean(axis=0) == pytest.approx([-0.08, 0.08, -0.16], abs=0.01)
    total = recording.layer("sum so far").height[2::2].mean(axis=0)
    assert total[0] == pytest.approx(0, abs=0.02) and total[1] > 0.12 and total[2] < -0.05


def test_halves_of_a_step_are_told_apart():
    means, errors = estimates.halves_of(np.array([[1.0, 2.0, 3.0], [0.0, 1.0, -1.0], [5.0, 5.0, 5.0]]))
    assert means[1:].tolist() == [[2.0, 0.0, 2.0], [2.0, 0.0, 2.0], [5.0, 0.0, 5.0]] and errors[3].tolist() == [0, 0, 0]


# --- the checks refuse what is wrong ----------------------------------------------------------------------------------


def fails(recording: Recording, part: str) -> bool:
    found = [check.verdict for key, check in recording.checks.items() if part in key]
    assert len(found) == 1
    return found == ["fails"]


def test_a_whole_gradient_is_refused_by_the_halves(monkeypatch):
    from mulligan.lab.experiments import halves

    walk = halves._walk

    def doubled(target, start, noise, dt):
        walked, pull = walk(target, start, noise, 2 * dt)
        return walked, 4 * pull  # the gradient twice, the noise √2 times: more than second order can explain

    monkeypatch.setattr(halves, "_walk", lambda t, s, e, dt: doubled(t, s, e / np.sqrt(2), dt))
    assert fails(lab.langevin_halves(**SMALL["langevin_halves"]), "cancel")


def test_a_sampler_without_its_decision_is_refused(monkeypatch):
    monkeypatch.setattr(step_size, "MetropolisLangevin", step_size.Langevin)
    assert fails(lab.step_size(**SMALL["step_size"]), "with the decision")


def test_the_missing_half_of_the_gradient_is_refused(monkeypatch):
    monkeypatch.setattr(step_size, "Langevin", lambda law, dt: whole_gradient(law, dt))
    assert fails(lab.step_size(**SMALL["step_size"], most=0.4), "Langevin's variance")


def test_momentum_drawn_anew_at_every_leap_is_refused(monkeypatch):
    shoot = momentum._shoot

    def broken(kernel, start, key):
        run = shoot(kernel, start, key)
        return run._replace(path=start + 0.1 * (run.path - start))

    monkeypatch.setattr(momentum, "_shoot", broken)
    assert fails(lab.momentum(**SMALL["momentum"]), "farther")


def test_swaps_that_are_always_accepted_are_refused(monkeypatch):
    from mulligan.samplers import tempering as library

    monkeypatch.setattr(library, "swap_probability", lambda path, betas, x: jax.numpy.ones(betas.size - 1))
    small = SMALL["tempering_swaps"] | {"sets": 501}  # another shape: another program
    assert fails(lab.tempering_swaps(**small), "width")


def test_a_ladder_of_cold_chains_is_refused(monkeypatch):
    cold = barrier.gaps
    monkeypatch.setattr(barrier, "gaps", lambda height: cold(height, 1.0))
    assert fails(lab.tempering_gap(**SMALL["tempering_gap"]), "with exchange")


def test_reverse_runs_that_do_not_start_at_the_target_are_refused(monkeypatch):
    drawn = annealing.draws
    near = lambda path, betas, n, rng: 0.6 * drawn(path, betas, n, rng)  # noqa: E731
    monkeypatch.setattr(annealing, "draws", near)
    assert fails(lab.annealing_bracket(**SMALL["annealing_bracket"]), "Bennett")


def test_one_step_of_time_for_both_halves_is_refused(monkeypatch):
    walk = forward._forward
    monkeypatch.setattr(forward, "_forward", lambda law, x, e, times: walk(law, x, 0 * e, times))
    recording = lab.forward_halves(**SMALL["forward_halves"])
    assert fails(recording, "each half")


def test_reverse_without_its_second_step_back_is_refused(monkeypatch):
    walk = three_walks._walk
    half = lambda law, x, e, share, t, a: walk(law, x, e, np.minimum(share, 0.5), t, a)  # noqa: E731
    monkeypatch.setattr(three_walks, "_walk", half)
    assert fails(lab.three_walks(**SMALL["three_walks"]), "first step")


def test_a_recording_with_changed_arrays_is_seen():
    layer = made("tempering_swaps").layer("in the right hole, exchange")
    twin = dataclasses.replace(layer, y=layer.y + 0.2)
    assert not (np.abs(twin.y - 0.3) < 4.75 * np.sqrt(0.21 / 500)).all()
