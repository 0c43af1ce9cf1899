"""Recordings of chapter 9 as statistics: paths that do not cross, KL that falls, an arrow that is the mean's."""

from __future__ import annotations

import numpy as np
import pytest

from mulligan.lab.experiments import pull, reverse, wrong_score

# --- the walk back ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=[0, 1, 2])
def walks(request):
    return reverse.reverse_walks(particles=1000, steps=40, seed=request.param)


def cross(paths):
    """Whether any two of the paths change places: (k, m, 2) with the position last."""
    x = paths[np.argsort(paths[:, 0, 1]), :, 1]
    return bool((np.diff(x, axis=0) <= 0).any())


def test_paths_of_the_ode_do_not_cross_and_those_of_the_sde_do(walks):
    ode, sde = walks.layer("paths, ODE").xy, walks.layer("paths, SDE").xy
    assert np.array_equal(ode[:, 0], sde[:, 0])  # the same start
    assert not cross(ode) and cross(sde)
    swapped = ode.copy()
    swapped[3, 20:], swapped[4, 20:] = ode[4, 20:], ode[3, 20:]
    assert cross(swapped)


def chi_square(density, exact, n):
    """Pearson's statistic of a histogram beside a law, over the cells of at least five expected draws, per degree."""
    width = reverse.CELLS[1] - reverse.CELLS[0]
    found, expected = density * n * width, exact * n * width
    used = expected >= 5
    return float(((found - expected)[used] ** 2 / expected[used]).sum() / (used.sum() - 1))


@pytest.mark.parametrize("label", ["ODE, all particles", "SDE, all particles"])
def test_both_end_at_the_law_of_the_data(walks, label):
    density, exact = walks.layer(label).height[-1], walks.layer("p_t, exact").y[-1]
    assert chi_square(density, exact, 1000) < 3.0  # 20 degrees: passed less than once in 10 000
    assert chi_square(np.roll(density, 1), exact, 1000) > 3.0


def test_the_ode_is_the_quantile_map_to_second_order():
    errors = []
    for steps in (40, 80, 160):
        found = reverse.reverse_walks(particles=200, steps=steps).layer("paths, ODE").xy[..., 1]
        exact = reverse.quantile(reverse.distribution(found[:, 0], reverse.FIRST), reverse.LAST)
        errors.append(reverse.rms(found[:, -1] - exact))
    slope = np.polyfit(np.log([1 / 40, 1 / 80, 1 / 160]), np.log(errors), 1)[0]
    assert slope == pytest.approx(2.0, abs=0.35)


# --- a wrong score ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def wrong():
    return wrong_score.wrong_score(sizes=5)


def falls(curve):
    """Whether KL falls all the way back: the curve runs from V_T down to V_0."""
    return bool((np.diff(curve) < 1e-9).all() and curve[-1] < 0.01 * curve[0])


def test_a_wrong_start_is_kept_by_the_ode_and_forgotten_by_the_sde(wrong):
    ode, sde = wrong.panels[0].layers
    assert falls(sde.y[0]) and not falls(ode.y[0])
    assert np.ptp(ode.y) < 1e-3 * ode.y[0, 0] and ode.y[0, 0] == pytest.approx(0.5 * wrong_score.START**2, rel=1e-3)
    assert not falls(sde.y[0][::-1])


def test_no_strength_passes_its_bound_but_the_ode_passes_the_least(wrong):
    runs, bound, ode = wrong.layer("SDE of strength λ").y, wrong.layer("bound").y, wrong.layer("ODE (λ = 0)").y
    assert (runs <= bound + 0.01).all()
    assert ode[-1, 0] > bound[-1].min() and bound[-1].argmin() == list(wrong_score.STRENGTHS).index(1.0)
    assert not (4 * runs <= bound + 0.01).all()


def test_where_the_error_is_decides_who_is_better(wrong):
    layers = wrong.panels[2].layers
    ode, sde = layers[0].height[-1], layers[1].height[-1]
    assert (ode > sde).tolist() == [True, True, False, False]


def test_an_error_twice_as_large_is_a_mean_twice_as_far():
    one, two = (wrong_score.tracked(size, "all times")[2][-1] for size in (0.5, 1.0))
    assert two == pytest.approx(4 * one, rel=1e-2)


# --- the pull ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=[0, 1, 2])
def pulled(request):
    return pull.pull_to_the_mean(pairs=3000, seed=request.param)


def is_bayes(means, weights, here):
    """The arrow's end by hand: holes' posterior means, weighed by Bayes' rule with the holes as Gaussians."""
    holes, t = np.asarray(pull.noised().means), pull.NOISE[:, None] ** 2
    prior = np.exp(np.asarray(pull.noised().log_weights))
    spread = pull.WIDTH**2 + t
    joint = prior * np.exp(-((here - holes) ** 2).sum(axis=1) / (2 * spread))
    r = joint / joint.sum(axis=1, keepdims=True)
    towards = holes + (pull.WIDTH**2 / spread)[..., None] * (here - holes)
    return np.allclose(r, weights, atol=1e-9) and np.allclose((r[..., None] * towards).sum(axis=1), means, atol=1e-9)


def test_the_arrow_leads_to_the_weighted_mean(pulled):
    here = pulled.layer("x_t").xy[0, 0]
    means, weights = pulled.layer("E[x₀|x_t]").xy[:, 0], pulled.layer("p(hole | x_t)").height
    along = pulled.layer("t ∇ log p_t(x_t)").along[:, 0]
    assert np.allclose(here + along, means) and is_bayes(means, weights, here)
    assert not is_bayes(means, weights[:, ::-1], here)
    assert weights.max(axis=1)[-1] > 0.99 > 0.5 > weights.max(axis=1)[0]  # one hole at last, all of them at first


def test_a_regression_never_beats_the_irreducible_part(pulled):
    loss, least = pulled.numbers["loss of the regression"], pulled.numbers["irreducible part, E trace Cov"]
    assert all(a.value > b.value - 4 * (a.stderr + b.stderr) for a, b in zip(loss, least))
    assert all(a.value < 1.2 * b.value for a, b in zip(loss[3:9], least[3:9]))  # and comes near it
    assert not all(0.5 * a.value > b.value - 4 * (0.5 * a.stderr + b.stderr) for a, b in zip(loss, least))
