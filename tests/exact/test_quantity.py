"""Quantities: standard errors and intervals against hand-computed cases, and a simulation that the intervals are true."""

from __future__ import annotations

import itertools
import json
import math

import numpy as np
import pytest
from saboteurs.intervals import tail_forgotten, twins
from scipy.stats import binomtest, t

from mulligan.intervals import tail_reach
from mulligan.measures.calibration import coverage, overlaps
from mulligan.quantity import (
    KINDS,
    Quantity,
    difference_kind,
    mean_of_rows,
    none,
    paired_difference,
    proportion,
    verdict,
)

ALPHA = 2e-6
REPETITIONS = 4000


# --- by hand ----------------------------------------------------------------------------------------------------------


def test_interval_by_hand():
    q = mean_of_rows(np.array([-1.0, -2.0, -3.0, -6.0]), "exact")
    stderr = math.sqrt(14 / 3) / 2  # residuals 2, 1, 0, -3
    assert (q.value, q.n, q.kind, q.unit) == (-3.0, 4, "exact", "nats/row")
    assert q.stderr == pytest.approx(stderr, rel=1e-14)
    assert q.low == pytest.approx(-3 - 3.182446305284263 * stderr, rel=1e-12)  # t with 3 degrees of freedom
    assert q.high == pytest.approx(-3 + 3.182446305284263 * stderr, rel=1e-12)


def test_clustered_error_by_hand():
    # Residuals from the mean 2 are -1, 1, 1, -1; clusters {0, 1}, {2}, {3} sum to 0, 1, -1.
    q = mean_of_rows(np.array([1.0, 3.0, 3.0, 1.0]), "exact", clusters=np.array([7, 7, 2, 5]))
    assert q.stderr == pytest.approx(math.sqrt(3 / 2 * 2) / 4, rel=1e-14)
    assert q.high - q.value == pytest.approx(t.ppf(0.975, 2) * q.stderr, rel=1e-10)
    assert mean_of_rows(np.array([1.0, 3.0, 3.0, 1.0]), "exact").stderr != pytest.approx(q.stderr, rel=1e-3)


def test_doubled_rows_leave_the_error_of_the_distinct_ones():
    v = np.random.default_rng(0).normal(size=20)
    once = mean_of_rows(v, "exact")
    twice = mean_of_rows(np.repeat(v, 2), "exact", clusters=np.repeat(np.arange(20), 2))
    assert (twice.low, twice.high) == pytest.approx((once.low, once.high), rel=1e-12)
    assert twice.n == 40


@pytest.mark.parametrize("kind", ["lower bound", "upper bound"])
def test_bounds_claim_one_side(kind):
    q = mean_of_rows(np.array([-1.0, -2.0, -3.0]), kind)
    closed, opened, side = (q.low, q.high, -1) if kind == "lower bound" else (q.high, q.low, 1)
    assert opened is None and not q.two_sided
    assert closed == pytest.approx(-2 + side * t.ppf(0.95, 2) * q.stderr, rel=1e-10)
    assert q.contains(-2 - side * 1e9) and not q.contains(closed + side * 1e-9)


def test_method_error_widens_the_interval():
    v = np.array([-1.0, -2.0, -3.0])
    plain, wide = mean_of_rows(v, "bracket"), mean_of_rows(v, "bracket", method_low=-2.5, method_high=-1.0)
    assert wide.low == pytest.approx(plain.low - 0.5) and wide.high == pytest.approx(plain.high + 1.0)
    assert (wide.method_low, wide.method_high) == (-2.5, -1.0)
    one_sided = mean_of_rows(v, "lower bound", method_low=-2.5)
    assert one_sided.low == pytest.approx(mean_of_rows(v, "lower bound").low - 0.5)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_non_finite_row_is_never_dropped(bad):
    q = mean_of_rows(np.array([1.0, bad, 2.0]), "exact")
    assert not math.isfinite(q.value) and q.low is q.high is q.stderr is None
    assert "1 of 3 rows are not finite" in q.note


def test_one_cluster_has_no_error():
    for q in (mean_of_rows(np.array([1.0]), "exact"), mean_of_rows(np.ones(5), "exact", clusters=np.zeros(5))):
        assert q.stderr is None and q.low is None and "no standard error" in q.note
    with pytest.raises(ValueError, match="at least one row"):
        mean_of_rows(np.zeros(0), "exact")


# --- kinds ------------------------------------------------------------------------------------------------------------


def test_kinds_are_the_seven_of_the_design():
    assert KINDS == ("exact", "numeric", "lower bound", "upper bound", "bracket", "estimate", "none")
    with pytest.raises(ValueError, match="expected one of exact"):
        Quantity(1.0, "guess")
    with pytest.raises(ValueError, match="kind 'none'"):
        Quantity(None, "exact")
    with pytest.raises(ValueError, match="kind 'none'"):
        Quantity(1.0, "none", note="why")
    with pytest.raises(ValueError, match="reason in note"):
        Quantity(None, "none")


@pytest.mark.parametrize(
    "left, right, kind",
    [
        ("exact", "exact", "exact"),
        ("exact", "numeric", "numeric"),
        ("numeric", "estimate", "estimate"),
        ("lower bound", "exact", "lower bound"),
        ("exact", "lower bound", "upper bound"),
        ("upper bound", "numeric", "upper bound"),
        ("numeric", "upper bound", "lower bound"),
        ("lower bound", "upper bound", "lower bound"),
        ("upper bound", "lower bound", "upper bound"),
        ("lower bound", "lower bound", "estimate"),
    ],
)
def test_difference_kinds(left, right, kind):
    assert difference_kind(left, right)[0] == kind
    assert paired_difference(np.array([1.0, 2.0]), np.array([0.0, 0.5]), left, right).kind == kind


def test_difference_of_bounds_holds_for_every_truth_they_allow():
    """lower − upper is a lower bound etc., checked by trying truths on the side that each bound allows."""
    slack = {"exact": (0.0,), "lower bound": (0.0, 1.0, 5.0), "upper bound": (0.0, -1.0, -5.0)}
    for left, right in itertools.product(slack, repeat=2):
        kind, _ = difference_kind(left, right)
        gaps = [a - b for a in slack[left] for b in slack[right]]  # truth minus stated difference
        if kind == "lower bound":
            assert min(gaps) >= 0
        elif kind == "upper bound":
            assert max(gaps) <= 0
        elif kind == "exact":
            assert set(gaps) == {0.0}
    with pytest.raises(ValueError, match="does not exist"):
        difference_kind("none", "exact")


def test_two_bounds_compared_say_so():
    q = paired_difference(np.array([1.0, 2.0]), np.array([0.0, 0.5]), "lower bound", "lower bound")
    assert "two lower bounds on the same base measure" in q.note


def test_paired_difference_is_paired():
    rows = np.random.default_rng(0).normal(size=100) * 50
    q = paired_difference(rows + 1 + 0.01 * np.arange(100) % 0.02, rows, "exact", "exact")
    assert q.stderr < 0.01 and verdict(q) == "higher"


@pytest.mark.parametrize(
    "low, high, kind, said",
    [
        (0.1, 0.3, "exact", "higher"),
        (-0.3, -0.1, "exact", "lower"),
        (-0.1, 0.1, "exact", "undecided"),
        (0.1, None, "lower bound", "higher"),
        (-0.1, None, "lower bound", "undecided"),
        (None, -0.1, "upper bound", "lower"),
        (None, 0.1, "upper bound", "undecided"),
        (None, None, "estimate", "undecided"),
    ],
)
def test_verdicts(low, high, kind, said):
    assert verdict(Quantity(0.0, kind, low, high)) == said


# --- JSON and text ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "q",
    [
        mean_of_rows(np.array([-1.0, -2.0, -3.0]), "exact", note="a note"),
        mean_of_rows(np.array([-1.0, -2.0]), "lower bound", method_low=-2.0),
        none("a GAN has no density", "nats/row"),
        proportion(3, 10),
    ],
)
def test_json_round_trip(q):
    assert Quantity.from_json(json.loads(json.dumps(q.to_json(), allow_nan=False))) == q


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_json_of_a_non_finite_number_is_null(bad):
    fields = Quantity(float(bad), "exact", float(bad), float(bad), stderr=float(bad), n=3, method_low=bad).to_json()
    assert json.loads(json.dumps(fields, allow_nan=False))["value"] is None
    assert {fields[name] for name in ("low", "high", "stderr", "method_low")} == {None}
    back = Quantity.from_json(fields)
    assert math.isnan(back.value) and back.kind == "exact" and back.n == 3


def test_text_says_the_kind_and_the_side():
    assert str(mean_of_rows(np.array([-1.0, -2.0, -3.0]), "lower bound")) == "≥ -2.00 ± 0.58 nats/row, lower bound"
    assert str(none("a GAN has no density")) == "no value: a GAN has no density"


def test_proportion_is_wilsons():
    # Newcombe 1998, table I: 15 of 148 gives .0624 to .1605; 0 of 20 gives 0 to .1611.
    q, zero = proportion(15, 148), proportion(0, 20)
    assert (round(q.low, 4), round(q.high, 4)) == (0.0624, 0.1605)
    assert (zero.low, round(zero.high, 4)) == (0.0, 0.1611)
    with pytest.raises(ValueError, match="n > 0"):
        proportion(0, 0)


# --- the intervals are true -------------------------------------------------------------------------------------------


def drawn(scenario, rng):
    """Rows of mean 0, their clusters, and the kind that is claimed."""
    if scenario == "clustered":  # four equal rows a draw
        return np.repeat(rng.normal(size=12), 4), np.repeat(np.arange(12), 4), "exact"
    if scenario == "bound":
        return rng.normal(size=6), None, "lower bound"
    return rng.normal(size=6), None, "exact"


def covered(scenario, function, seed):
    rng = np.random.default_rng(seed)
    count = 0
    for _ in range(REPETITIONS):
        values, clusters, kind = drawn(scenario, rng)
        count += function(values, kind, clusters=clusters).contains(0.0)
    return count, binomtest(count, REPETITIONS, 0.95).pvalue


@pytest.mark.parametrize("scenario", ["few rows", "clustered", "bound"])
def test_intervals_cover(scenario, seed, request):
    count, p = covered(scenario, mean_of_rows, seed)
    assert p > ALPHA, (
        f"{count} of {REPETITIONS} intervals hold the truth; p {p:.1e}, alpha {ALPHA}, seed {seed}; "
        f"pytest '{request.node.nodeid}'"
    )


@pytest.mark.parametrize("scenario, broken", twins(), ids=[function.__name__ for _, function in twins()])
def test_broken_intervals_are_seen(scenario, broken, seed):
    count, p = covered(scenario, broken, seed)
    assert p < ALPHA, f"{broken.__name__}: {count} of {REPETITIONS} cover, p {p:.1e}"


# --- skewed rows ------------------------------------------------------------------------------------------------------


def skewed_coverage(interval, seed):
    """How often the interval of 50 values of log N(x; 0, 1) + const, whose skewness is −2.8, holds their mean −1/2."""
    generator = np.random.default_rng(seed)
    held = 0
    for _ in range(REPETITIONS):
        low, high = interval(-0.5 * generator.normal(size=50) ** 2)
        held += low <= -0.5 <= high
    return binomtest(held, REPETITIONS, 0.95).pvalue


def test_intervals_of_skewed_rows_are_true(seed):
    def stated(values):
        q = mean_of_rows(values, "exact")
        return q.low, q.high

    assert skewed_coverage(stated, seed) > ALPHA


def test_saboteur_symmetric_interval_of_skewed_rows(seed):
    def symmetric(values):
        q = mean_of_rows(values, "exact")
        reach = t.ppf(0.975, 49) * q.stderr
        return q.value - reach, q.value + reach

    assert skewed_coverage(symmetric, seed) < ALPHA


def test_one_row_that_decides_does_not_blow_the_interval_up():
    q = mean_of_rows(np.array([0.0] * 49 + [-100.0]), "exact")
    assert (q.value - q.low) / q.stderr < 4 and (q.high - q.value) / q.stderr > 1


# --- rows with a heavy tail -------------------------------------------------------------------------------------------


def heavy_coverage(interval, seed):
    """Coverage of the mean −1/0.8 of 100 rows −Pareto(1.8), which have no variance, and its 1 − 1e-4 interval."""
    generator = np.random.default_rng(seed)
    return coverage(
        np.array([interval(-generator.pareto(1.8, 100), "exact").contains(-1.25) for _ in range(1200)]), level=1 - 1e-4
    )


def test_intervals_of_heavy_tailed_rows_are_true(seed):
    found = heavy_coverage(mean_of_rows, seed)
    assert overlaps(found), f"{found}, {found.low:.3f} to {found.high:.3f}"


def test_saboteur_tail_forgotten(seed):
    found = heavy_coverage(tail_forgotten, seed)
    assert not overlaps(found), f"{found}, {found.low:.3f} to {found.high:.3f}"


def test_the_tail_moves_one_end_and_only_where_it_is_heavy():
    generator = np.random.default_rng(0)
    heavy, light = generator.pareto(1.8, 100), generator.normal(size=100)
    right, plain = mean_of_rows(heavy, "exact"), tail_forgotten(heavy)
    assert right.low == plain.low and right.high > plain.high
    mirror = mean_of_rows(-heavy, "exact")
    assert (mirror.low, mirror.high) == pytest.approx((-right.high, -right.low), rel=1e-9)
    assert mean_of_rows(light, "exact") == tail_forgotten(light)
    assert mean_of_rows(heavy, "lower bound").low == tail_forgotten(heavy, "lower bound").low


def test_what_has_no_continuous_tail_gets_none():
    few, ties = np.arange(20.0), np.repeat([0.0, 5.0], [90, 10])
    assert tail_reach(few - few.mean(), 0.975) == tail_reach(ties - ties.mean(), 0.975) == 0.0
