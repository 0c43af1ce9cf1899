"""What each step of the walk back costs: costs that add up, fall with the number of steps, and bound the end."""

from __future__ import annotations

import numpy as np
import pytest

from mulligan.lab.experiments import steps_as_bars as bars


@pytest.fixture(scope="module")
def walked():
    return bars.steps_as_bars()


def test_the_bars_add_up_to_the_sum_and_the_sum_falls_as_one_over_the_steps(walked):
    heights = walked.layer("cost of this part of the way").height
    total = walked.layer("sum of the costs").y[0]
    assert np.allclose(heights.sum(axis=1), total, rtol=1e-9) and (heights >= 0).all()
    assert (np.diff(total) < 0).all()
    slope = np.polyfit(np.log(bars.COUNTS[-3:]), np.log(total[-3:]), 1)[0]
    assert slope == pytest.approx(-1.0, abs=0.1)
    assert not np.allclose(heights[:, 1:].sum(axis=1), total, rtol=1e-3)  # a part left out is seen


def test_the_sum_bounds_the_divergence_of_the_ends(walked):
    total, ends = walked.layer("sum of the costs").y[0], walked.layer("KL of the ends").y[0]
    assert (ends <= total).all() and not (2 * ends <= total).all()


def test_the_model_ends_nearer_to_the_data_with_more_steps(walked):
    laws, truth = walked.layer("the model's law").y, walked.panels[2].layers[0].y[0]
    apart = np.abs(laws - truth).sum(axis=1)
    assert (np.diff(apart) < 0).all() and apart[-1] < 0.05 * apart[0]


def test_a_small_step_costs_a_quarter_of_a_squared_times_the_curvature():
    t, a = 1.0, 0.01
    h = bars.GRID[1] - bars.GRID[0]
    curve = np.gradient(bars.score(bars.GRID, t), h)
    expected = 0.25 * a**2 * float((np.exp(bars.log_p(bars.GRID, t)) * curve**2).sum() * h)
    assert bars.step_cost(t - a, t) == pytest.approx(expected, rel=0.05)
    assert bars.step_cost(t - a, t) != pytest.approx(2 * expected, rel=0.05)  # ½ in place of ¼


def test_a_step_without_its_gradient_is_refused(monkeypatch):
    monkeypatch.setattr(bars, "score", lambda x, t: 0.0 * x)
    assert not bars.steps_as_bars().holds


# --- the walk with pictures, as shipped ----------------------------------------------------------------------------------


def test_the_network_of_the_pictures_is_better_than_linear_and_its_walks_part():
    from mulligan.lab.experiment import shipped

    found = shipped("walk_with_pictures")
    net, linear = found.layer("the U-Net"), found.layer("best linear denoiser")
    assert (net.high[0, 1:4] < linear.low[0, 1:4]).all()  # 95 % bands apart
    ode, sde = found.layer("by the ODE (Heun)").z, found.layer("by the SDE, from the same noise").z
    assert np.array_equal(ode[0], sde[0]) and np.abs(ode[-1] - sde[-1]).mean() > 0.1
    thought = found.layer("E[x₀|x_t]: what the network thinks, ODE").z
    rough = [np.abs(np.diff(frame, axis=1)).mean() for frame in (thought[0], thought[-1])]
    assert rough[0] < rough[1]  # blurred at first
    assert not np.array_equal(ode[0], ode[-1])
