"""The recordings of chapters 5 and 6, as statistics of their arrays; and every check refuses a planted mistake."""

from __future__ import annotations

import numpy as np
import pytest

from mulligan.errors import FitError
from mulligan.lab.experiments import adversaries, noise, wasserstein
from mulligan.lab.identities import critic

SMALL = {
    adversaries.actor_and_critic: {"rounds": 700},
    wasserstein.wasserstein_critic: {"n": 60, "steps": 300},
    noise.noise_contrastive: {"n": 1000},
}
EACH = pytest.mark.parametrize("run", SMALL, ids=lambda run: run.__name__)


@EACH
@pytest.mark.parametrize("seed", [0, 11, 12])
def test_its_checks_hold(run, seed):
    recording = run(**SMALL[run], seed=seed)
    assert recording.holds, {k: v for k, v in recording.checks.items() if v.verdict != "holds"}
    assert len(recording.panels) <= 4 and 12 <= recording.length <= 48
    assert all(len(caption) < 200 for caption in recording.captions)


def failing(recording):
    """Which sentences fail, by number."""
    return {k for k, check in enumerate(recording.checks.values()) if check.verdict != "holds"}


# --- noise-contrastive estimation -------------------------------------------------------------------------------------


def test_the_guesser_ends_in_the_band_of_the_true_log_density():
    recording = noise.noise_contrastive(n=2000, nu=2, seed=3)
    said, true = recording.layer("log odds + log νr"), recording.layer("log p, 95 % of fits in the band")
    error = (true.high[0] - true.y[0]) / 1.96
    assert np.all(np.abs(said.y[-1] - true.y[0]) < 4.75 * error)
    assert np.abs(said.y[0] - true.y[0]).max() > 20 * error.min()
    step = said.x[1] - said.x[0]
    assert abs(step * np.exp(said.y[-1]).sum() - 1) < 0.1  # the normalising constant was learned
    posterior, d = recording.layer("Bayes' posterior").y[0], recording.layer("D(x), the guesser").y
    assert np.abs(d[-1] - posterior).max() < 0.05 < np.abs(d[0] - posterior).max()


def test_the_share_of_data_in_a_cell_is_the_guess():
    recording = noise.noise_contrastive(n=20_000, seed=4)
    data, other = (recording.layer(label).height[0] for label in ("data", "noise"))
    d = recording.layer("D(x), the guesser")
    cells = np.interp(0.5 * (noise.CELLS[1:] + noise.CELLS[:-1]), d.x, d.y[-1])
    many = data + other > 0.1
    assert np.abs(data / (data + other) - cells)[many].max() < 0.08


def test_far_noise_and_little_noise_cost():
    recording = noise.noise_contrastive(n=1000)
    error = recording.layer("by the formula").y[0]  # of the last panel: the variance against ν
    assert abs(error[0] - 2.995) < 1e-3 and np.all(np.diff(error) < 0) and 2 < error[-1] < 2.02
    truth = noise.the_truth()
    near, far = (noise.error_of(truth, place, 1.0, 1, 1000)[3, 3] for place in (0.0, 6.0))
    assert far > 1e4 * near


def test_noise_that_is_told_apart_is_refused(monkeypatch):
    monkeypatch.setattr(noise, "log_normal", lambda x, mean, sd: -0.5 * ((x - mean) / sd) ** 2 - np.log(sd) - 0.92)
    with pytest.raises(FitError, match="does not settle"):
        noise.noise_contrastive(n=200, place=-6.0, width=1.0)


def test_noise_contrast_refuses_its_mistakes(monkeypatch):
    right = noise.log_normal
    with monkeypatch.context() as planted:  # noise of another width than the one it is told
        planted.setattr(noise, "log_normal", lambda x, m, s: right(x, m, 1.4 * s if s == 2.5 else s))
        assert {0, 1} <= failing(noise.noise_contrastive(n=10_000))
    with monkeypatch.context() as planted:  # stopped early
        planted.setattr(noise, "SHARES", np.full(14, 0.2))
        with pytest.raises(FitError, match="does not settle"):
            noise.noise_contrastive(n=1000)
    with monkeypatch.context() as planted:  # ν left out of P
        planted.setattr(noise, "information", lambda g, p, r, w, nu, right=noise.information: right(g, p, r, w, 1.0))
        assert {4, 5} <= failing(noise.noise_contrastive(n=1000))
    with monkeypatch.context() as planted:  # a cost of distance that is forgotten
        planted.setattr(noise, "error_of", lambda *a, at=noise.error_of: at(a[0], 0.0, *a[2:]))
        assert failing(noise.noise_contrastive(n=1000)) == {3}
    with monkeypatch.context() as planted:  # a loss that forgets ν
        loss = noise.noise_contrastive_loss
        shifted = lambda model, key, batch: loss(  # noqa: E731
            model, key, batch._replace(points_offset=batch.points_offset + 0.3, noise_offset=batch.noise_offset + 0.3)
        )
        planted.setattr(noise, "noise_contrastive_loss", shifted)
        with pytest.raises(FitError, match="does not settle"):
            noise.noise_contrastive(n=1001)


# --- the Wasserstein critic -------------------------------------------------------------------------------------------


def test_the_distance_is_that_of_sorted_points_and_of_shifted_ones():
    x, y = critic.two_samples(3, 50, 0.5)
    assert np.isclose(critic.distance_on_the_line(x, y), np.abs(x - y).mean())  # equal numbers: sorted pairs
    assert np.isclose(critic.distance_on_the_line(x, x + 0.7), 0.7)
    assert np.isclose(critic.distance_on_the_line(x, np.repeat(y, 2)), critic.distance_on_the_line(x, y))


def test_what_is_certified_stays_below_and_the_raw_value_does_not():
    recording = wasserstein.wasserstein_critic(n=60, steps=300, seed=2)
    distance = recording.numbers["W₁ of the samples"][0].value
    area = recording.layer("F of the blue sample").x
    gap = np.abs(recording.layer("F of the blue sample").y[0] - recording.layer("G of the green sample").y[0])
    assert abs((area[1] - area[0]) * gap.sum() - distance) < 0.03
    raw, certified = (recording.layer(label).xy[0, :, 1] for label in ("E_p f − E_q f, raw", "divided by L"))
    assert np.all(certified <= distance) and raw.max() > distance and certified.max() > 0.5 * distance
    assert recording.layer("|f′(x)|").y[-1].max() > 1.05  # the penalty is a pressure and not a bound


def test_a_strong_penalty_and_a_blind_one():
    free, pressed = (wasserstein.wasserstein_critic(n=60, steps=300, penalty=w, seed=1) for w in (0.1, 10.0))
    steepest = [run.layer("|f′(x)|").y[-1].max() for run in (free, pressed)]
    assert steepest[0] > 2 * steepest[1]


def test_the_critic_refuses_its_mistakes(monkeypatch):
    small = {"n": 60, "steps": 300}
    with monkeypatch.context() as planted:
        planted.setattr(critic.Watched, "certified", property(lambda self: self.raw))
        assert failing(wasserstein.wasserstein_critic(**small)) == {0}
    with monkeypatch.context() as planted:  # a slope of half the truth
        right = wasserstein.watched_critic
        half = lambda *a, **k: (w := right(*a, **k))._replace(steepest=0.4 * w.steepest)  # noqa: E731
        planted.setattr(wasserstein, "watched_critic", half)
        assert 0 in failing(wasserstein.wasserstein_critic(**small))
    with monkeypatch.context() as planted:  # a bound in place of a penalty
        right = wasserstein.watched_critic
        bound = lambda *a, **k: (w := right(*a, **k))._replace(raw=w.certified, steepest=np.ones_like(w.raw))  # noqa: E731
        planted.setattr(wasserstein, "watched_critic", bound)
        assert 1 in failing(wasserstein.wasserstein_critic(**small))
    with monkeypatch.context() as planted:  # ∫|F − G| with one law twice as far
        planted.setattr(wasserstein, "distance_on_the_line", lambda x, y: 2 * critic.distance_on_the_line(x, y))
        assert 2 in failing(wasserstein.wasserstein_critic(**small))


# --- actor and critic -------------------------------------------------------------------------------------------------


def test_balls_are_counted_in_their_holes_and_hops_over_the_gap():
    centres = np.asarray(adversaries.eight_holes().means)
    nowhere = np.zeros(2)
    balls = np.stack([centres[[0, 1, 2]], [nowhere, centres[1], nowhere], [centres[3], centres[1], centres[2]]])
    count = adversaries.counted(balls)
    assert count.inside.sum(axis=1).tolist() == [3, 1, 3]
    assert count.hopped.tolist() == [0, 0, 1]  # the first, by way of nowhere; the third came home
    assert np.all(count.surely <= count.found) and np.all(count.found <= count.perhaps)


def test_the_balls_climb_the_critic_and_find_the_holes():
    recording = adversaries.actor_and_critic(rounds=700, seed=1)
    balls, data = recording.layer("balls").xy, recording.layer("data").xy[0]
    nearest = lambda points: np.linalg.norm(points[:, None] - data, axis=-1).min(axis=1).mean()  # noqa: E731
    assert nearest(balls[0]) > 1.5 and nearest(balls[-1]) < 0.3
    assert recording.layer("holes found").y[-1, 0] == 0 and recording.layer("holes found").y[-1].max() == 8
    share = recording.layer("balls in the hole, 95 %").height
    assert share[0].sum() < 0.02 and 0.3 < share[-1].sum() < 0.95
    assert np.all(
        recording.layer("in a hole").y[5, 5:] == recording.layer("in a hole").y[5, 5]
    )  # nothing of the future


def test_actor_and_critic_refuses_its_mistakes(monkeypatch):
    small = {"rounds": 700}
    right = adversaries._played

    def sabotaged(change):
        with monkeypatch.context() as planted:
            planted.setattr(adversaries, "_played", lambda *a: change(right(*a)))
            return failing(adversaries.actor_and_critic(**small))

    rng = np.random.default_rng(0)
    data = np.asarray(adversaries.eight_holes().means)[np.arange(2000) % 8] + 0.15 * rng.normal(size=(2000, 2))
    still = lambda seen: seen._replace(balls=np.repeat(np.asarray(seen.balls)[:1], 24, axis=0))  # noqa: E731
    perfect = lambda seen: seen._replace(balls=np.repeat(data[None], 24, axis=0))  # noqa: E731
    collapsed = lambda seen: seen._replace(balls=np.asarray(seen.balls) * 0 + [2.0, 0.0])  # noqa: E731
    assert sabotaged(still) == {0, 1, 2}  # the actor never moves
    assert sabotaged(perfect) == {0, 1, 3}  # the actor is the data
    assert {1, 2} <= sabotaged(collapsed)  # all in one hole
