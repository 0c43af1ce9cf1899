"""The recordings of chapters 5 and 6, as statistics of their arrays; and every check refuses a planted mistake."""

from __future__ import annotations

import numpy as np
import pytest

from mulligan.errors import FitError
from mulligan.lab.experiments import noise

SMALL = {noise.noise_contrastive: {"n": 1000}}
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
    assert np.abs(data / (data + other) - cells)[many].max() < 0.05


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
        planted.setattr(noise, "log_normal", lambda x, m, s: right(x, m, 1.2 * s if s == 2.5 else s))
        assert {0, 1} <= failing(noise.noise_contrastive(n=1000))
    with monkeypatch.context() as planted:  # stopped early
        planted.setattr(noise, "SHARES", np.full(14, 0.2))
        with pytest.raises(FitError, match="does not settle"):
            noise.noise_contrastive(n=1000)
    with monkeypatch.context() as planted:  # P of the data in place of that of the noise
        planted.setattr(noise, "information", lambda g, p, r, w, nu: (g.T * (w * p * p / (p + nu * r))) @ g)
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
