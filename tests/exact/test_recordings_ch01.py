"""The recordings of chapters 1 to 3, as statistics of their arrays; and every check refuses a planted mistake."""

from __future__ import annotations

import numpy as np
import pytest

from mulligan.lab.experiments import chasing, counting, covering, curse, energy, projection
from mulligan.lab.identities.phenomena import forward_kl, occupied_share

SMALL = {
    counting.counting: {"n": 500},
    curse.curse: {"n": 300, "bins": 2},
    covering.covering_and_chasing: {},
    chasing.chasing_threshold: {"frames": 6},
    projection.projection: {},
    energy.energy_learning: {},
}
EACH = pytest.mark.parametrize("run", SMALL, ids=lambda run: run.__name__)


@EACH
@pytest.mark.parametrize("seed", [0, 11, 12])
def test_its_checks_hold(run, seed):
    recording = run(**SMALL[run], seed=seed)
    assert recording.holds, {k: v for k, v in recording.checks.items() if v.verdict != "holds"}
    assert len(recording.panels) <= 4 and all(len(caption) < 200 for caption in recording.captions)


def failing(recording):
    """Which sentences fail, by number."""
    return {k for k, check in enumerate(recording.checks.values()) if check.verdict != "holds"}


# --- counting ---------------------------------------------------------------------------------------------------------


def test_counts_integrate_to_one_and_the_column_is_normalised():
    recording = counting.counting(n=500)
    area = (2 * counting.REACH / counting.PIXELS) ** 2
    joint = recording.layer("p̂(x, y) (1/cm²)").z
    assert np.allclose(joint.sum(axis=(1, 2)) * area, 1)
    margin = recording.layer("p̂(x) from n(x)").y[:, ::2]
    assert np.allclose(joint.sum(axis=1) * 2 * counting.REACH / counting.PIXELS, margin)
    inside = recording.layer("p̂(y | x) in the column").y[:, ::2]
    assert np.allclose(inside.sum(axis=1) * 2 * counting.REACH / counting.PIXELS, 1)
    empty = [q.value for q in recording.numbers["share of empty cells"]]
    assert empty[0] == 0 and empty[-1] > 0.9


def test_the_best_width_moves_with_the_number_of_points():
    best = [counting.counting(n=n).layer("measured, 20 samples").y[0].argmin() for n in (100, 5000)]
    assert 0 < best[0] < best[1] < len(counting.CELLS) - 1


@pytest.mark.parametrize("planted", ["p(y) in place of p(y|x)", "the bias is forgotten"])
def test_counting_refuses(planted, monkeypatch):
    if planted == "the bias is forgotten":
        monkeypatch.setattr(counting, "expected_square_error", lambda n, k, m, s: (k / 8) ** 2 / n)
        assert 1 in failing(counting.counting(n=500))
    else:
        right = counting._counted
        wrong = lambda law, column: (*right(law, column)[:3], right(law, column)[2])  # noqa: E731
        monkeypatch.setattr(counting, "_counted", wrong)
        assert 0 in failing(counting.counting(n=500))


def test_cells_that_cannot_be_too_narrow_have_no_best_width(monkeypatch):
    """With cells that are all wide, the narrowest is the best, and the sentence fails."""
    monkeypatch.setattr(counting, "CELLS", (1, 2, 3, 4, 5, 6))
    monkeypatch.setattr(counting, "_LEVELS", [np.full(6, level) for level in np.linspace(-4, 4, 41)])
    assert failing(counting.counting(n=500)) == {2}


def test_an_empty_column_is_said_and_not_drawn():
    recording = counting.counting(n=50, column=-3.0)
    assert "n(x) = 0 of 50" in recording.captions[-1] and not recording.layer("p̂(y | x) in the column").y[-1].any()
    assert 0 not in failing(recording)


# --- the curse --------------------------------------------------------------------------------------------------------


def test_cells_go_empty_while_shells_fill():
    recording = curse.curse(n=300, bins=2)
    cells, shells = (recording.layer(f"counted: {name}") for name in ("cells with at least one point", _SHELL))
    assert cells.height[-1, 0] == 1 and cells.height[-1, -1] < 0.1
    assert (np.diff(shells.height[-1]) > -4 * shells.error[-1, 1:]).all()
    truth = np.array([occupied_share(2**d, 300) for d in range(1, 13)])
    assert np.abs(cells.height[-1] - truth).max() < 0.01
    assert not np.triu(cells.height, 1).any(), "dimensions to come are not shown"


_SHELL = "points within 0.05 of the surface"


@pytest.mark.parametrize(
    "name, planted", [("occupied_share", lambda cells, n: min(n / cells, 1)), ("shell_share", lambda d, e: 2 * d * e)]
)
def test_the_curse_refuses(name, planted, monkeypatch):
    monkeypatch.setattr(curse, name, planted)
    assert failing(curse.curse(n=300, bins=2)) == {["occupied_share", "shell_share"].index(name)}


# --- covering and chasing ---------------------------------------------------------------------------------------------


def _mean_and_sd(curve):
    x, p = curve.x, curve.y[-1] / curve.y[-1].sum()
    return x @ p, np.sqrt((x - x @ p) ** 2 @ p)


def test_one_gaussian_covers_or_chases_and_three_do_both():
    recording = covering.covering_and_chasing()
    wide, narrow = (recording.layer(f"1 Gaussian, {way}") for way in ("KL(p_data‖p_θ)", "KL(p_θ‖p_data)"))
    assert _mean_and_sd(wide)[1] > 2 and _mean_and_sd(narrow)[1] < 0.6
    for way in ("KL(p_data‖p_θ)", "KL(p_θ‖p_data)"):
        data = recording.layer(f"p_data, {way}").y[0]
        assert np.abs(recording.layer(f"3 Gaussians, {way}").y[-1] - data).max() < 1e-3
        for name in ("1 Gaussian", "2 Gaussians", "3 Gaussians"):
            kl = recording.layer(f"{name}: {way}").y[0]
            assert kl[-1] < 0.7 * kl[0] and kl.min() > -1e-9


@pytest.mark.parametrize(
    "planted, wanted",
    [(lambda leaf: leaf[::-1], {0, 1}), (lambda leaf: 0 * leaf + leaf[:, :1], {0, 1, 3})],
    ids=["directions exchanged", "never a step"],
)
def test_covering_refuses(planted, wanted, monkeypatch):
    right = covering._descend
    monkeypatch.setattr(covering, "_descend", lambda *given: [planted(np.asarray(leaf)) for leaf in right(*given)])
    assert wanted <= failing(covering.covering_and_chasing())


# --- the threshold ----------------------------------------------------------------------------------------------------


def test_the_mean_leaves_the_middle_in_a_jump():
    recording = chasing.chasing_threshold(frames=8, farthest=5.6)  # a = 0, 0.8, … 5.6
    apart = recording.layer("m*: KL(p_θ‖p_data)").x
    reverse, between, forward = (
        recording.layer(f"m*: {name}").y[0] for name in ("KL(p_θ‖p_data)", "Jensen-Shannon", "KL(p_data‖p_θ)")
    )
    assert np.allclose(reverse, np.where(apart > 2.8, apart, 0), atol=0.1)
    assert np.allclose(between, np.where(apart > 4.24, apart, 0), atol=0.1) and not forward.any()


def test_the_threshold_refuses_the_directions_exchanged(monkeypatch):
    monkeypatch.setattr(chasing, "reverse_kl", forward_kl)
    assert 0 in failing(chasing.chasing_threshold(frames=6))


# --- projection -------------------------------------------------------------------------------------------------------


def test_the_legs_add_up_and_the_foot_is_the_nearest():
    recording = projection.projection(seed=3)
    whole = recording.layer("KL(p_data‖p)").height[:, 0]
    assert np.allclose(whole, recording.layer("KL(p_data‖p*) + KL(p*‖p)").height[:, 1])
    miss = recording.layer("KL(p_data‖p*): cannot be reached").height[:, 2]
    assert (whole >= miss - 1e-12).all() and whole.min() < miss[0] + 0.01
    data, nearest = (recording.layer(name).xy[0, 0] for name in ("p_data", "p*: the maximum of the likelihood"))
    assert np.isclose(data[0], nearest[0]), "the same average number of alleles"


def test_projection_refuses_a_curve_that_is_no_exponential_family(monkeypatch):
    bent = lambda f: np.stack([(1 - f) ** 2, 2 * f * (1 - f) ** 2, f**2 * (3 - 2 * f)], axis=-1)  # noqa: E731
    right = projection.mating_law
    monkeypatch.setattr(
        projection, "mating_law", lambda f: bent(np.asarray(f)) / bent(np.asarray(f)).sum(-1)[..., None]
    )
    assert np.allclose(right(0.3).sum(), 1) and {0, 2} <= failing(projection.projection())


# --- energy -----------------------------------------------------------------------------------------------------------


def test_the_averages_meet_and_the_short_learners_density_is_off():
    recording = energy.energy_learning()
    data, model = recording.layer("E_data[∂f]"), recording.layer("E_chains[∂f]")
    apart = np.abs(model.height - data.height) / np.hypot(model.error, data.error)
    assert apart[0].max() > 8 and apart[-1].max() < 4.75
    kl, off = recording.layer("density, persistent").y[0], recording.layer("density, short chains").y[0]
    ends = recording.layer("law of the short chains at the end").y[0, 0]
    assert kl[-1] < 0.02 < 0.1 * kl[0] + 0.02 and off[-1] > 5 * ends and off[-1] > 10 * kl[-1]
    curve = recording.layer("exp(f) q / Z (persistent)")
    assert np.isclose(curve.y[-1].sum() * (curve.x[1] - curve.x[0]), 1, atol=0.01)


def test_energy_refuses_a_density_from_right_to_left(monkeypatch):
    monkeypatch.setattr(energy, "normalised", lambda log_p, right=energy.normalised: right(log_p[..., ::-1]))
    assert {0, 1} <= failing(energy.energy_learning())


@pytest.mark.slow
def test_long_chains_from_q_learn_a_density():
    """With enough steps the chains that start anew reach p_θ, and the sentence about short ones fails."""
    assert 2 in failing(energy.energy_learning(steps=30, step_size=0.6, updates=200, rate=0.1))
