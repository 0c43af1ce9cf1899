"""Recordings of chapter 4 as statistics: C ≤ KL ≤ Q on the whole grid, one tangent, EM that climbs, one that does not."""

from __future__ import annotations

import numpy as np
import pytest

from mulligan.lab.experiments import contrast_and_em as surrogates
from mulligan.lab.experiments import monte_carlo_em as relatives


@pytest.fixture(scope="module")
def both():
    return surrogates.contrast_and_em(steps=6)


def between(below, middle, above):
    """Whether below ≤ middle ≤ above wherever none is cut off by the picture."""
    seen = (below > -1.5) & (above < 3.0)
    return bool(seen.any() and (below <= middle + 1e-9)[seen].all() and (middle <= above + 1e-9)[seen].all())


def test_the_surrogates_stand_on_either_side_on_the_whole_grid(both):
    below, middle, above = (both.layer(name).y for name in ("C", "KL(p_data‖p_θ)", "EM's surrogate Q"))
    middle = surrogates.kl(surrogates.THETA, surrogates.data_law())[None]
    assert between(below, middle, above)
    assert not between(above, middle, below)
    assert not between(below, middle - 1e-3, above)


def test_all_three_touch_with_one_tangent(both):
    data, h = surrogates.data_law(), 1e-4
    for theta in both.layer("θ_t").xy[:, 0, 0]:
        curves = (
            lambda t: surrogates.kl(t, data),
            lambda t: surrogates.contrast(t, theta, data),  # noqa: B023
            lambda t: surrogates.expected(t, theta, data),  # noqa: B023
        )
        values = [float(of(theta)) for of in curves]
        slopes = [float(of(theta + h) - of(theta - h)) / (2 * h) for of in curves]
        assert np.ptp(values) < 1e-9 and np.ptp(slopes) < 1e-5
    moved = surrogates.contrast(np.array(theta), theta + 0.1, data)
    assert abs(float(moved) - values[0]) > 1e-4  # C of another θ_t does not touch here


def test_the_gaps_are_the_divergences_that_the_theory_names():
    data, now, theta = surrogates.data_law(), 0.8, 1.7
    law = np.exp(surrogates.log_joint(now)).sum(axis=1)
    gap = float(surrogates.kl(theta, data) - surrogates.contrast(np.array(theta), now, data))
    assert gap == pytest.approx(float(surrogates.kl(theta, law)), abs=1e-12)
    posterior = [
        np.exp(j - np.logaddexp.reduce(j, axis=1, keepdims=True)) for j in map(surrogates.log_joint, (now, theta))
    ]
    missing = float((data[:, None] * posterior[0] * np.log(posterior[0] / posterior[1])).sum())
    assert float(surrogates.expected(np.array(theta), now, data) - surrogates.kl(theta, data)) == pytest.approx(
        missing, abs=1e-9
    )


def test_em_never_rises_and_long_steps_down_c_do(both):
    em = both.layer("EM: minimum of Q").y[0]
    cd = both.layer("long steps down C").y[0]
    assert (np.diff(em) <= 1e-12).all() and em[-1] < 0.05 * em[0]
    assert (np.diff(cd) > 0.01).any()


def test_the_harness_refuses_a_surrogate_on_the_wrong_side(monkeypatch):
    expected = surrogates.expected

    def swapped(theta, current, data):
        return 2 * surrogates.kl(theta, data) - expected(theta, current, data)

    monkeypatch.setattr(surrogates, "contrast", lambda t, c, d: 1.01 * surrogates.kl(t, d) + 0 * c)
    assert not surrogates.contrast_and_em(steps=2).holds
    monkeypatch.undo()
    monkeypatch.setattr(surrogates, "expected", swapped)
    assert not surrogates.contrast_and_em(steps=2).holds


# --- Monte-Carlo EM ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=[0, 1, 2])
def climbing(request):
    return relatives.monte_carlo_em(seed=request.param)


def test_exact_em_climbs_and_its_relatives_fall(climbing):
    exact, one = climbing.layer("exact").y[-1], climbing.layer("1 draws").y[-1]
    assert (np.diff(exact) >= -1e-12).all() and exact[-1] > -1e-3
    assert (np.diff(one) < -1e-4).any()
    assert climbing.holds


def test_falls_go_down_as_one_over_the_draws(climbing):
    heights = climbing.layer("largest fall in a step").height[0]
    slope = np.polyfit(np.log(relatives.DRAWS), np.log(heights[:-1]), 1)[0]
    assert slope == pytest.approx(-1.0, abs=0.25) and heights[-1] < 1e-12


def test_an_e_step_that_draws_is_not_taken_for_an_exact_one(monkeypatch):
    climb = relatives.climb
    monkeypatch.setattr(relatives, "climb", lambda x, steps, m, rng, runs: climb(x, steps, m or 4, rng, runs))
    assert not relatives.monte_carlo_em().holds
