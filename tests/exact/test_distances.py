"""Distances between samples against brute force and closed forms, and how a report shows them. No random numbers decide."""

from __future__ import annotations

import jsonschema
import numpy as np
import pytest
from report_example import example, quantity
from scipy.linalg import sqrtm
from scipy.stats import wasserstein_distance

from mulligan.data.table import Column, Schema
from mulligan.measures.discrepancy import PERMUTATIONS, directions, mmd, sliced_wasserstein
from mulligan.measures.frechet import Moments, frechet, frechet_distance, moments
from mulligan.measures.manifold import expected_coverage, manifold
from mulligan.measures.memory import memory, nearest
from mulligan.measures.samples import as_json, one_of_each, sample_quality
from mulligan.measures.space import space_of
from mulligan.measures.strokes import quality_by_strokes
from mulligan.quantity import Quantity
from mulligan.report.cells import cells, memory_cells, sample_cells
from mulligan.report.html import to_html
from mulligan.report.reading import reading
from mulligan.report.schema import load_schema
from mulligan.report.writing import to_markdown

RNG = np.random.default_rng(7)
X, Y = RNG.normal(size=(40, 2)), 1.5 * RNG.normal(size=(35, 2)) + 0.3


# --- maximum mean discrepancy and sliced Wasserstein --------------------------------------------------------------------


def kernels(one, other, length):
    squares = ((one[:, None] - other[None]) ** 2).sum(2)
    return np.mean([np.exp(-squares / (2 * (h * length) ** 2)) for h in (0.25, 0.5, 1, 2, 4)], axis=0)


def off_diagonal_mean(matrix):
    n = len(matrix)
    return (matrix.sum() - np.trace(matrix)) / (n * (n - 1))


@pytest.mark.parametrize("paired", [False, True])
def test_mmd_is_the_root_of_the_unbiased_double_sum(paired):
    x, y = X[:35], Y
    between = kernels(x, y, 1.3)
    between = off_diagonal_mean(between) if paired else between.mean()
    squared = off_diagonal_mean(kernels(x, x, 1.3)) + off_diagonal_mean(kernels(y, y, 1.3)) - 2 * between
    assert squared > 0
    assert mmd(x, y, 0, length=1.3, paired=paired).value.value == pytest.approx(np.sqrt(squared), abs=1e-5)


def test_on_one_line_the_sliced_distance_is_the_wasserstein_distance():
    for one, other in ((X[:, :1], Y[:, :1]), (X[:, :1], 3 * X[:30, :1])):
        expected = wasserstein_distance(one[:, 0], other[:, 0])
        assert sliced_wasserstein(one, other, 0).value.value == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("dim", [2, 5])
def test_a_translation_moves_each_slice_by_its_component(dim):
    along = directions(dim)
    np.testing.assert_allclose(np.linalg.norm(along, axis=1), 1.0, rtol=1e-12)
    shift, points = np.arange(1.0, dim + 1), RNG.normal(size=(60, dim))
    found = sliced_wasserstein(points, points + shift, 0).value.value
    assert found == pytest.approx(np.abs(along @ shift).mean(), rel=1e-4)


@pytest.mark.parametrize("distance", [mmd, sliced_wasserstein])
def test_what_a_distance_must_be(distance):
    found, swapped, shuffled = distance(X, Y, 0), distance(Y, X, 0), distance(X[::-1], Y[::-1], 3)
    assert found.value.value == pytest.approx(swapped.value.value, rel=1e-5)
    assert found.value.value == pytest.approx(shuffled.value.value, rel=1e-5)
    far = distance(X, X[:35] + 40.0, 0)
    assert far.p_value.value == 1 / (PERMUTATIONS + 1) and far.value.low > found.value.low
    assert far.value.low <= far.value.value <= far.value.high and far.value.kind == "estimate"
    same = distance(X, X, 0)
    assert same.value.value == pytest.approx(0, abs=1e-6) and same.p_value.value == 1.0 and same.value.low == 0
    constant = distance(np.zeros((30, 2)), np.zeros((30, 2)), 0)
    assert constant.p_value.value == 1.0 and constant.value.value == 0.0


@pytest.mark.parametrize("distance", [mmd, sliced_wasserstein])
def test_where_there_is_no_distance_the_reason_is_said(distance):
    few, broken = distance(X[:5], Y, 0), distance(X, np.where(np.arange(35)[:, None] == 3, np.nan, Y), 0)
    assert few.value.kind == few.p_value.kind == "none" and "5 rows are too few" in few.value.note
    assert broken.value.kind == "none" and "not finite" in broken.value.note


def test_far_off_data_keep_their_digits():
    near, far = mmd(X, Y, 0, length=1.0).value.value, mmd(X + 1e6, Y + 1e6, 0, length=1.0).value.value
    assert near == pytest.approx(far, rel=1e-4)


# --- precision, recall, density, coverage -------------------------------------------------------------------------------


def plainly(x, y, k=5):
    """The four numbers by their definition."""
    apart = lambda a, b: np.linalg.norm(a[:, None] - b[None], axis=2)  # noqa: E731
    of_x, of_y = np.sort(apart(x, x), axis=1)[:, k], np.sort(apart(y, y), axis=1)[:, k]
    across = apart(x, y)
    inside = across <= of_x[:, None]
    found = (
        inside.any(0).mean(),
        (across <= of_y[None]).any(1).mean(),
        inside.sum() / (k * len(y)),
        inside.any(1).mean(),
    )
    return np.array(found)


def test_manifold_numbers_and_their_jackknife_by_brute_force():
    found = manifold(X, Y, 0)
    np.testing.assert_allclose([q.value for q in found], plainly(X, Y), rtol=1e-12)
    without_x = np.array([plainly(np.delete(X, i, 0), Y) for i in range(len(X))])
    without_y = np.array([plainly(X, np.delete(Y, j, 0)) for j in range(len(Y))])
    variance = sum(((each - each.mean(0)) ** 2).sum(0) for each in (without_x, without_y))
    np.testing.assert_allclose([q.stderr for q in found], np.sqrt(variance), rtol=1e-5)
    assert all(q.low <= q.value <= q.high for q in found)


def test_a_collapsed_sample_is_precise_and_covers_nothing():
    found = manifold(X, np.tile(X[3], (40, 1)), 0)
    assert found.precision.value == 1.0 and found.coverage.high < 0.5 and found.recall.value == 1 / 40
    nothing = manifold(X, X + 100.0, 0)
    assert nothing.precision.value == nothing.coverage.value == nothing.density.value == 0.0
    assert 0 < nothing.coverage.high < 0.5
    assert manifold(X[:6], Y, 0).coverage.kind == "none"


def test_expected_coverage_by_enumeration():
    # n = m = 2, k = 1: of the other real point and two generated ones, the real one comes first in a third of the orders.
    assert expected_coverage(2, 2, 1) == pytest.approx(2 / 3)
    assert expected_coverage(10_000, 10_000) == pytest.approx(1 - 2**-5, abs=1e-3)


# --- memorisation -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dim", [2, 9])
def test_nearest_rows(dim):
    rows, points = RNG.normal(size=(300, dim)) + 50, RNG.normal(size=(260, dim)) + 50
    expected = np.linalg.norm(points[:, None] - rows[None], axis=2).argmin(1)
    assert (nearest(rows, points) == expected).all()


def test_copies_and_anticopies():
    train, test = RNG.normal(size=(120, 3)), RNG.normal(size=(60, 3))
    copies, held = memory(train, test, train, 0), memory(train, test, test, 0)
    assert copies.copied.value == pytest.approx(1.0) and copies.copied.low > 0.8 and copies.p_value.value == 1e-4
    assert held.copied.value == pytest.approx(-2.0) and held.p_value.value > 0.999
    assert memory(train[:3], test, test, 0).copied.kind == "none"


def test_one_row_of_each_cluster():
    clusters = np.array([5, 1, 5, 5, 2, 1])
    kept = one_of_each(clusters, 0)
    assert sorted(clusters[kept]) == [1, 2, 5] and (np.diff(kept) > 0).all()
    assert {tuple(one_of_each(clusters, s)) for s in range(40)} > {tuple(kept)}


# --- Fréchet ------------------------------------------------------------------------------------------------------------


def test_frechet_by_the_square_root_of_the_product():
    one, other = moments(X), moments(Y)
    root = np.trace(sqrtm(one.covariance @ other.covariance)).real
    expected = ((one.mean - other.mean) ** 2).sum() + np.trace(one.covariance + other.covariance) - 2 * root
    assert frechet(one, other) == pytest.approx(expected, rel=1e-8)
    assert frechet(one, one) == pytest.approx(0, abs=1e-12)
    line = Moments(np.zeros(1), np.eye(1)), Moments(np.full(1, 3.0), 4 * np.eye(1))
    assert frechet(*line) == pytest.approx(9 + (1 - 2) ** 2)


def test_the_frechet_distance_is_named_after_its_features():
    found = frechet_distance(X, Y, 0, "logits of a digits classifier")
    assert "on logits of a digits classifier (2 features)" in found.note and found.low <= found.value <= found.high
    assert frechet_distance(X[:5], Y, 0, "anything").kind == "none"


# --- the space ----------------------------------------------------------------------------------------------------------


def test_the_space_of_a_table():
    rows = np.column_stack([np.linspace(0, 100, 41), np.arange(41) % 3, np.r_[np.zeros(40), 1e6], np.full(41, 2.0)])
    names = Schema(
        (
            Column("x", "continuous"),
            Column("k", "categorical", levels=("a", "b", "c")),
            Column("rare", "continuous"),
            Column("flat", "integer", step=1.0),
        )
    )
    space = space_of(names, rows)
    points = space(rows)
    assert points.shape == (41, 6) and np.isfinite(points).all()
    assert points[:, 0].std() == pytest.approx(np.std(rows[:, 0]) / min(np.std(rows[:, 0]), 50 / 1.349))
    kinds = points[:, 1:4]
    assert np.linalg.norm(kinds[0] - kinds[1]) == pytest.approx(1.0) and (kinds[0] == kinds[3]).all()
    pixels = Schema((Column("a", "integer"), Column("b", "integer")))
    assert len(set(space_of(pixels, rows[:, :2], one_unit=True).spreads)) == 1


# --- in a report --------------------------------------------------------------------------------------------------------

LINE = Schema((Column("x", "continuous"), Column("y", "continuous")))


def judged():
    """A report in which the gan's samples lack half of the plane and the vae's are training rows."""
    report, rng = example(), np.random.default_rng(1)
    train, test = rng.normal(size=(300, 2)), rng.normal(size=(150, 2))
    draws = {
        "gan": np.abs(rng.normal(size=(300, 2))),
        "vae": train,
        "flow": rng.normal(size=(300, 2)),
        "resample": train,
    }
    for family in report["families"]:
        if family["family"] in draws:
            found = as_json(sample_quality(train, test, draws[family["family"]], LINE, 0))
            family["samples"] = {**found, "rows": 150, "expected_coverage": expected_coverage(150, 150)}
        if family["family"] == "gan":
            family["holes"] = None
    return report


def test_a_report_shows_the_distances():
    report = judged()
    schema = load_schema()
    jsonschema.Draft202012Validator(schema).validate(report)
    table = sample_cells(report)
    rows = {row[0]: dict(zip(table.heads, row)) for row in table.rows}
    assert set(rows) == {"flow", "vae", "gan", "resample"} and not sample_cells(example()).rows
    remembered = {row[0]: row for row in memory_cells(report).rows}
    assert rows["gan"]["MMD p"] == ".005" and set(remembered) == set(rows)
    assert remembered["vae"][-1] == "< .001" and remembered["vae"][1].endswith("as if 100 % were copies")
    assert remembered["flow"][1] == "as near as test rows: no sign of copies"
    assert "coverage ± SE" in cells(report).heads and "coverage ± SE" not in cells(example()).heads
    text = " ".join(reading(report))
    assert "Samples that leave part of the data unreached (coverage below .97): gan (" in text
    assert "nearer to training rows than to test rows, beyond chance: vae (copied share 1.00)." in text
    assert "Distances of samples from data" in to_markdown(report) and "copied share" in to_html(report)
    assert "Distances of samples" not in to_html(example())


def test_a_report_without_one_of_the_numbers():
    report = judged()
    for family in report["families"]:
        if family.get("samples"):
            family["samples"].pop("copied"), family["samples"].pop("copied_p")
            family["samples"]["coverage"] = Quantity(None, "none", note="too few").to_json()
            family["samples"]["mmd_p"] = quantity(0.02, 0.01, "estimate")
    jsonschema.Draft202012Validator(load_schema()).validate(report)
    assert "copied share" not in " ".join(reading(report)) and sample_cells(report).rows[0][2] == ".020"


def test_an_unknown_distance_is_refused():
    report = judged()
    next(f for f in report["families"] if f["family"] == "gan")["samples"]["fid"] = 3.0
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.Draft202012Validator(load_schema()).validate(report)


def test_pairs_are_not_asked_for_memory():
    found = sample_quality(X, X[:30], Y, LINE, 0, paired=True)
    assert "copied" not in found and found["mmd_p"].value <= 1


def test_quality_by_strokes_takes_each_number_of_strokes():
    asked = []

    def draw(strokes):
        asked.append(strokes)
        return X + 8.0 / strokes

    curve = quality_by_strokes(draw, [1, 4, 64], X, space_of(LINE, X))
    assert asked == [1, 4, 64] == [point.strokes for point in curve]
    values = [point.sliced_wasserstein.value.value for point in curve]
    assert values[0] > values[1] > values[2] and curve[2].coverage.value == 1.0
