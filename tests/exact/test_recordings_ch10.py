"""The recordings of chapter 10, as statistics of their arrays; and their checks refuse what was tampered with."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from mulligan.errors import FitError
from mulligan.lab.drawing import table_cells
from mulligan.lab.experiments import flow_and_ode as flows
from mulligan.lab.experiments import golf as course
from mulligan.lab.experiments import guided as guidance
from mulligan.lab.experiments import more_strokes as strokes
from mulligan.lab.experiments import relations as edges
from mulligan.lab.identities.strokes import SPREAD, eight_holes
from mulligan.lab.identity import Check
from mulligan.lab.recording import Recording, Table
from mulligan.quantity import proportion

TABLE = "Holes found of 8 (95 %: least, most), strokes, balls"
CENTRES = np.asarray(eight_holes().means)


def near(points: np.ndarray) -> np.ndarray:
    """Distance of points (…, 2) to the nearest of the eight centres."""
    return np.linalg.norm(points[..., None, :] - CENTRES, axis=-1).min(axis=-1)


def fails(recording: Recording, words: str) -> bool:
    return [check.verdict for name, check in recording.checks.items() if words in name] == ["fails"]


@pytest.fixture(scope="module")
def stroked():
    return strokes.more_strokes(samples=600)


@pytest.fixture(scope="module")
def helped():
    return guidance.guided(samples=1500)


@pytest.fixture(scope="module")
def flowed():
    return flows.flow_and_ode(substeps=8, paths=30)


@pytest.fixture(scope="module")
def mapped():
    return edges.relations()


# --- strokes -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
def test_strokes_hold(seed):
    recording = strokes.more_strokes(samples=600, seed=seed)
    assert recording.holds, recording.checks


def test_one_stroke_is_near_the_middle_and_many_are_in_the_holes(stroked):
    drawn = stroked.layer("samples").xy
    assert near(drawn[0]).min() > 3 * SPREAD  # not one sample in a hole
    inside = (near(drawn[-1]) < 3 * SPREAD).mean()
    assert abs(inside - (1 - np.exp(-4.5))) < 4 * np.sqrt(0.011 / drawn.shape[1]) + 1e-2
    assert np.linalg.norm(drawn[0], axis=-1).mean() < 0.5 * np.linalg.norm(drawn[-1], axis=-1).mean()


def test_the_curve_of_holes_rises_from_none_to_eight(stroked):
    found = stroked.layer("found, with 95 % interval")
    assert found.y[0, 0] == 0 and found.y[0, -1] == 8
    assert (found.low <= found.y).all() and (found.y <= found.high).all()
    assert [q.value for q in stroked.numbers["holes found"]] == found.y[0].tolist()


def test_a_blur_that_is_not_the_posterior_mean_is_refused(stroked):
    drawn = np.repeat(stroked.layer("samples").xy, 4, axis=1)
    lost = np.full(drawn.shape[1], 0.0)  # as if nothing were lost
    assert fails(strokes._recording(drawn, lost, 4.045), "blurred by")
    assert fails(strokes._recording(drawn[::-1], lost, 4.045), "one stroke finds no hole")
    assert fails(strokes._recording(drawn[::-1], lost, 4.045), "256 strokes")
    assert fails(strokes._recording(drawn[::-1], lost, 4.045), "never fewer")


# --- guidance ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(1, 3))
def test_guidance_holds(seed):
    recording = guidance.guided(samples=1500, seed=seed)
    assert recording.holds, recording.checks


def test_guidance_fills_the_holes_and_then_empties_them_of_their_width(helped):
    assert helped.holds, helped.checks
    draws = helped.layer("draws, critic alone").xy
    inside = near(draws) < 3 * SPREAD
    assert inside[0].mean() < 0.3 and inside[-1].mean() > 0.95
    assert np.median(near(draws[-1])) < 0.2 * SPREAD
    walked = helped.layer("draws, critic, model and noise").xy[-1]
    assert 0.7 < (near(walked) ** 2).mean() / (2 * SPREAD**2) < 1.5  # E χ²₂ = 2


def test_the_distance_has_its_least_in_between(helped):
    distance = helped.layer("Energy distance to fresh rows: critic alone").y[0]
    assert 0 < distance.argmin() < len(distance) - 1


def test_a_critic_with_the_wrong_sign_is_refused(helped):
    path = np.stack([helped.layer(f"draws, {name}").xy for name in guidance.WAYS.values()], axis=1)
    path = np.tile(path, (1, 1, 8, 1))
    fresh = CENTRES[np.arange(800) % 8] + SPREAD * np.random.default_rng(0).normal(size=(800, 2))
    pushed = guidance._recording(path[:1] * np.linspace(1, 3, len(path))[:, None, None, None], fresh, 60)
    assert fails(pushed, "a little guidance") and fails(pushed, "too much collapses")
    assert fails(guidance._recording(path[:, ::-1], fresh, 60), "four fifths")


# --- the ODE as a flow -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(1, 3))
def test_flow_holds(seed):
    recording = flows.flow_and_ode(substeps=8, paths=30, seed=seed)
    assert recording.holds, recording.checks


def test_the_grid_returns_and_does_not_fold_on_its_way(flowed):
    assert flowed.holds, flowed.checks
    grid = flowed.layer("lines along z₁").xy
    assert np.abs(grid[0] - grid[-1]).max() < 1e-3 < np.abs(grid[0] - grid[flows.PIECES]).max()
    lines = grid.reshape(len(grid), flows.LINES, flows.ALONG, 2)
    right, up = np.diff(lines, axis=2)[:, :-1], np.diff(lines, axis=1)[:, :, :-1]
    assert (right[..., 0] * up[..., 1] - right[..., 1] * up[..., 0] > 0).all()  # every cell keeps its orientation


def test_log_determinants_are_on_the_diagonal(flowed):
    points = flowed.layer("one z").xy
    assert np.abs(points[..., 0] - points[..., 1]).max() < 1e-8 and np.abs(points[flows.PIECES]).max() > 0.5


def test_the_two_schedules_share_their_ends_and_not_their_ways(flowed):
    first, second = (flowed.layer(f"{name} schedule").xy for name in ("flow matching's", "variance-preserving"))
    assert np.abs(first[:, 0] - second[:, 0]).max() == 0 and np.abs(first[:, -1] - second[:, -1]).max() < 0.1
    assert np.abs(first[:, 7] - second[:, 7]).max() > 0.3
    assert flows.detour(first).mean() > 1.05


def test_a_step_is_undone_up_to_one(flowed):
    curve = flowed.layer(f"error after {flows.UNDOING} turns")
    assert (curve.y[0][curve.x < 0.8] < 1e-7).all() and (curve.y[0][curve.x > 1.1] > 1e-3).all()


# --- the map -----------------------------------------------------------------------------------------------------------


def test_every_edge_of_the_map_holds_and_is_shown_once(mapped):
    assert mapped.holds and len(mapped.checks) == len(edges.EDGES) == mapped.length - 1
    assert [q.value for q in mapped.numbers["edges that hold so far"]] == list(range(mapped.length))
    table = mapped.layer("Where this edge's sides disagree most")
    assert (table.values[1:, 2] <= table.values[1:, 3]).all()
    assert table_cells(table, 0) == [["–"]] * 5


def test_arcs_join_their_families():
    for edge in edges.EDGES:
        ends = edges.arc(edge)[[0, -1]]
        wanted = sorted(edges.NODES.index(name) for name in (edge.first, edge.second))
        assert np.allclose(ends, [[wanted[0], 0], [wanted[1], 0]])


def test_an_edge_that_fails_is_shown_as_failing(mapped):
    checks = list(mapped.checks.values())
    checks[3] = replace(checks[3], verdict="fails")
    shown = edges.picture(checks)
    assert not shown.holds and shown.numbers["edges that hold so far"][-1].value == len(checks) - 1
    assert "fails" in shown.captions[4]


# --- golf --------------------------------------------------------------------------------------------------------------


def test_the_shipped_golf_agrees_with_its_own_table():
    recording = course.golf()
    assert recording.holds and recording.parameters["seed"] == 0
    assert recording.length == 1 + len(course.PLAYERS) + len(course.NOTES)
    drawn = recording.layer("samples").xy
    holes, radius = 2.0 * CENTRES / np.linalg.norm(CENTRES, axis=1, keepdims=True), 0.6
    inside = (np.linalg.norm(drawn[:, :, None] - holes, axis=-1).min(axis=-1) <= radius).mean(axis=1)
    for frame, share in enumerate(inside):  # the 300 drawn samples, beside the 4000 that were counted
        stated = recording.numbers["in some hole"][frame]
        error = np.hypot(stated.stderr, np.sqrt(stated.value * (1 - stated.value) / drawn.shape[1]))
        assert abs(share - stated.value) < 4.5 * error, recording.captions[frame]
    found = recording.layer(TABLE)
    assert (found.values[0, :, 1] <= found.values[0, :, 0]).all() and (found.values[0, :, 2] <= 8).all()


def test_the_table_of_golf_grows_a_family_a_frame():
    table = course.golf().layer(TABLE)
    filled = table.shown[:, :, 0].sum(axis=1)
    assert filled.tolist() == [*range(len(course.PLAYERS) + 1), *[len(course.PLAYERS)] * len(course.NOTES)]


def row(found: int, gap: float | None) -> dict:
    stated = None if gap is None else {"value": gap, "kind": "exact", "stderr": 0.01, "n": 9}
    holes = {"found": found, "of": 8, "low": found, "high": found}
    return {"label": "x", "holes": holes, "truth_gap": stated, "strokes": 1.0, "chains": 1, "parameters": 5}


def players(**changed: tuple[int, float | None, int]) -> dict[str, course.Played]:
    """Nine families as the checks expect them, some changed: (holes found, gap, samples of 4000 in a hole)."""
    usual: dict[str, tuple[int, float | None, int]] = dict.fromkeys(course.PLAYERS, (8, 0.5, 3900))
    usual |= {"resample": (8, None, 3900), "mixture": (8, 0.01, 3900), "vae": (8, None, 3000), "gan": (8, None, 3000)}
    usual |= {name.replace("_", "-"): value for name, value in changed.items()}
    drawn = np.zeros((3, 2))
    return {f: course.Played(f, row(n, gap), drawn, proportion(k, 4000)) for f, (n, gap, k) in usual.items()}


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"resample": (7, None, 3900)}, "yardstick"),
        ({"diffusion": (7, 0.5, 3900)}, "many strokes"),
        ({"gan": (8, None, 3880)}, "a VAE and a GAN"),
        ({"flow": (8, -0.1, 3900)}, "no gap is below 0"),
        ({"flow": (8, 0.02, 3900)}, "smallest gap"),
    ],
)
def test_golf_refuses_a_course_that_went_otherwise(changed, words):
    assert all(check.verdict == "holds" for check in course._checks(players(), 8, "eight-gaussians").values())
    checks = course._checks(players(**changed), 8, "eight-gaussians")
    assert [name for name, check in checks.items() if check.verdict == "fails" and words in name]


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 3))
def test_golf_holds_on_other_seeds(seed):
    assert course.golf(seed=seed).holds


# --- a table that leaves a number out -----------------------------------------------------------------------------------


def test_a_table_draws_a_dash_where_nothing_is_shown():
    table = Table("t", ("a", "b"), ("row",), np.ones((1, 1, 2)), shown=np.array([[[1.0, 0.0]]]))
    assert table_cells(table, 0) == [["1", "–"]]
    with pytest.raises(FitError):
        Table("t", ("a",), ("row",), np.full((1, 1, 1), np.nan))


def test_what_is_allowed_is_the_rule_of_the_level():
    assert edges.allowed(Check(0.0, 0.0, 0.0, 0.1, "holds", "rounding")) == 0.1
