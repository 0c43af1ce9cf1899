"""The library's stated 95 % intervals hold the truth 95 % of the time.

Level. A set of intervals is rejected where the cluster-robust interval of its share, at 1 − 5e-5, misses [.93, .97]
(for bounds: ends below .93). So whatever the true coverage in [.93, .97], a false alarm comes less than once in 10 000
runs; ``test_false_alarms`` adds the binomial terms. A standard error that is too small by a factor √2 covers .83, and
one halved covers .67: far outside. Every saboteur must be rejected.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import binom

sys.path.insert(0, str(Path(__file__).parents[2]))  # the harness is a benchmark, which is not installed
from benchmarks import calibration as harness
from benchmarks.calibration import (
    SETTINGS,
    Setting,
    claims_of_split,
    expectation,
    fit_some,
    log_prob_rows,
    rows_of,
    table_of,
    true_log_prob_rows,
)
from mulligan.catalog import FAMILIES
from mulligan.measures.calibration import Coverage, coverage, overlaps
from mulligan.measures.distances import two_sample_auc
from mulligan.quantity import Quantity, mean_of_rows
from mulligan.workbench.fitting import fit_prepared
from mulligan.workbench.preparation import prepare
from mulligan.workbench.talk import Talk

LEVEL = 1 - 5e-5  # two-sided; the skew of a share near 1 takes the rest of the 1e-4
SPLITS = 150
CHEAP = (
    Setting("eight-gaussians", "eight-gaussians", 1000, ("gaussian", "mixture", "histogram"), grid=140),
    Setting("moons", "moons", 1000, ("gaussian", "mixture", "histogram"), grid=140),
    Setting("gaussian in 5-D", None, 500, ("gaussian", "factor", "mixture")),
)
REPEATED = Setting("moons, each row 4 times", "moons", 1600, ("gaussian",), copies=4)
ISING = next(setting for setting in SETTINGS if setting.law == "ising-3x3")


@pytest.fixture(scope="module", autouse=True)
def coarser_truths():
    """A truth that is good to an eighth of the stated error is good enough for this many splits."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(harness, "TRUTH_ROWS", 100_000)
        harness.truth_of.cache_clear()
        yield
    harness.truth_of.cache_clear()


@pytest.fixture(scope="module")
def claims():
    """Quantities of real splits, fitted through the workbench, with their truths."""
    return [claim for i in range(SPLITS) for claim in claims_of_split(CHEAP[i % 3], 10_000 + i, auc=False)]


def judged(quantities, claims):
    return Coverage.of(quantities, [c.truth for c in claims], [c.split for c in claims], LEVEL)


def said(found):
    return f"{found.two_sided}, {found.two_sided.low:.3f} to {found.two_sided.high:.3f}, level {LEVEL}"


def narrowed(quantity, factor):
    low, high = (quantity.value + factor * (end - quantity.value) for end in (quantity.low, quantity.high))
    return replace(quantity, low=low, high=high)


def test_intervals_of_real_splits_are_true(claims):
    assert len(claims) >= 500
    assert max(claim.truth_error for claim in claims) < 1 / 8  # adds less than 1 % to the error that is judged
    found = judged([claim.quantity for claim in claims], claims)
    assert found.holds, said(found)


def test_saboteur_standard_error_halved(claims):
    found = judged([narrowed(claim.quantity, 0.5) for claim in claims], claims)
    assert not found.holds, said(found)


@pytest.fixture(scope="module")
def repeated():
    """Tables of which each row is there 4 times: (log p of the test rows, clusters, truth) for each split."""
    entry, found = FAMILIES["gaussian"], []
    for split in range(20_000, 20_120):
        prepared = prepare(table_of(REPEATED, split), split)
        given = {"seed": split, "effort": "quick", "budget": None, "steps": None, "talk": Talk()}
        fitted = fit_prepared(prepared, entry, None, {}, **given)[0]
        truth, _ = expectation(REPEATED, fitted, log_prob_rows)
        found.append((fitted.log_prob(prepared.read_test("gaussian")), prepared.test_clusters, truth))
    return found


def repeated_coverage(repeated, ignore):
    quantities = [mean_of_rows(v, "exact", clusters=None if ignore else c) for v, c, _ in repeated]
    return Coverage.of(quantities, [truth for _, _, truth in repeated], range(len(repeated)), LEVEL)


def test_repeated_rows_count_once(repeated):
    found = repeated_coverage(repeated, ignore=False)
    assert found.holds, said(found)


def test_saboteur_clusters_ignored(repeated):
    found = repeated_coverage(repeated, ignore=True)
    assert not found.holds, said(found)


def method_quantities(seed, ignore):
    """Rows whose common log Z is off by as much as the stated tolerance allows: ± 2 standard errors."""
    rng = np.random.default_rng(seed)
    quantities = []
    for _ in range(400):
        tolerance = 2 / np.sqrt(200)
        rows = rng.normal(size=200) + tolerance * rng.choice([-1, 1])
        mean = rows.mean()
        ends = {} if ignore else {"method_low": mean - tolerance, "method_high": mean + tolerance}
        quantities.append(mean_of_rows(rows, "numeric", **ends))
    return Coverage.of(quantities, np.zeros(400), range(400), LEVEL)


def test_method_error_is_in_the_interval(seed):
    found = method_quantities(seed, ignore=False)
    # A tolerance is a worst case, so the interval may only be too wide: at least .93.
    assert overlaps(found.two_sided, 0.93, 1.0), said(found)


def test_saboteur_method_error_ignored(seed):
    found = method_quantities(seed, ignore=True)
    assert not overlaps(found.two_sided, 0.93, 1.0), said(found)


@pytest.mark.slow
def test_auc_of_the_law_itself():
    quantities = []
    schema = fit_some(CHEAP[0], 0)[0].table.schema
    for split in range(200):
        real, drawn = rows_of(CHEAP[0], 100, 30_000 + split), rows_of(CHEAP[0], 100, 40_000 + split)
        quantities.append(two_sample_auc(real, drawn, schema, split))
    found = Coverage.of(quantities, [0.5] * 200, range(200), 0.99)
    assert found.holds, said(found)


@pytest.mark.slow
def test_bound_of_a_table_with_few_distinct_rows():
    quantities, truths = [], []
    for split in range(8):
        prepared, fits = fit_some(ISING, split)
        quantities.append(fits[0].evaluate(prepared.read_test("ising")))
        truths.append(expectation(ISING, fits[0], true_log_prob_rows)[0])
    found = Coverage.of(quantities, truths, range(8), 0.99)
    assert found.holds, f"{found.one_sided}"


# --- the statistic itself, without fits ---------------------------------------------------------------------------------


@pytest.mark.parametrize("true", [0.93, 0.95, 0.97])
def test_false_alarms(true):
    """Exactly, for independent intervals: the probability that true coverage in [.93, .97] is rejected."""
    n = 500
    rejected = [
        not overlaps(coverage(np.arange(n) < hits, level=LEVEL))  # the first ``hits`` of n intervals hit
        for hits in range(n + 1)
    ]
    assert binom.pmf(np.arange(n + 1), n, true)[rejected].sum() < 1e-4


def test_halved_error_is_found_with_certainty():
    n, true = 500, 0.673  # P(|t| < 0.98)
    rejected = [not overlaps(coverage(np.arange(n) < hits, level=LEVEL)) for hits in range(n + 1)]
    assert binom.pmf(np.arange(n + 1), n, true)[rejected].sum() > 0.999999


def clustered_intervals(seed, clusters):
    """How often the interval of a share holds the true share, where the 5 hits of a cluster are mostly one hit."""
    rng, hold, trials = np.random.default_rng(seed), 0, 2000
    labels = np.repeat(np.arange(100), 5)
    for _ in range(trials):
        common, own = rng.uniform(size=100) < 0.9, rng.uniform(size=500) < 0.9
        hits = np.where(rng.uniform(size=500) < 0.8, np.repeat(common, 5), own)
        hold += coverage(hits, labels if clusters else None).contains(0.9)
    return hold / trials


def test_interval_of_a_share_of_clustered_hits(seed):
    assert abs(clustered_intervals(seed, clusters=True) - 0.95) < 0.03  # 2000 trials: 6 standard errors


def test_saboteur_share_without_clusters(seed):
    assert clustered_intervals(seed, clusters=False) < 0.85


def test_what_claims_nothing_is_refused():
    with pytest.raises(ValueError, match="claims nothing"):
        Coverage.of([Quantity(np.nan, "exact")], [0.0], [0])
    with pytest.raises(ValueError, match="each 0 or 1"):
        coverage(np.array([0.5, 1.0]))
    with pytest.raises(ValueError, match="two clusters"):
        coverage(np.ones(3), np.zeros(3))
    with pytest.raises(ValueError, match="at least one interval"):
        Coverage.of([], [], [])


@pytest.mark.parametrize("kind", ["exact", "lower bound"])
@pytest.mark.parametrize("truth", [0.0, 100.0, -100.0])
def test_intervals_of_one_split_neither_hold_nor_fail(kind, truth):
    one = Quantity(0.0, kind, -1.0, 1.0 if kind == "exact" else None)
    with pytest.raises(ValueError, match=r"5 .*-sided intervals of one cluster"):
        Coverage.of([one] * 5, [truth] * 5, [0] * 5)
    with pytest.raises(ValueError, match="one cluster"):  # the other form being there changes nothing
        other = Quantity(0.0, "lower bound" if kind == "exact" else "exact", -1.0, 1.0)
        Coverage.of([other] * 5 + [one], [0.0] * 5 + [truth], [0, 1, 2, 3, 4, 0])
    assert Coverage.of([one] * 5, [0.0] * 5, range(5)).holds
    assert not Coverage.of([one] * 50, [-100.0] * 50, range(50)).holds


def test_a_kind_of_one_split_is_listed_without_a_share():
    quantities = [Quantity(0.0, "exact", -1.0, 1.0)] * 4 + [Quantity(0.0, "numeric", -1.0, 1.0)] * 2
    found = Coverage.of(quantities, [0.0] * 6, [0, 1, 2, 3, 0, 0])
    assert found.by_kind["exact"].value == 1.0 and found.two_sided.n == 6
    assert found.by_kind["numeric"].kind == "none" and "2 intervals of one cluster" in found.by_kind["numeric"].note


def test_all_hits_are_as_many_as_clusters():
    every = coverage(np.ones(500), np.repeat(np.arange(100), 5))
    assert every.value == 1.0 and every.high == 1.0
    assert every.low == pytest.approx(coverage(np.ones(100)).low)


# --- what a fitted law answers, and divergences ---------------------------------------------------------------------------

NORMAL = next(setting for setting in SETTINGS if setting.form == "normal")


@pytest.fixture(scope="module")
def normal_claims():
    """KL both ways, chi-square, imputed cells and flagged rows of Gaussians fitted to Gaussian rows."""
    return [claim for i in range(100) for claim in claims_of_split(NORMAL, 50_000 + i)]


@pytest.mark.slow
def test_divergences_imputation_and_flags_are_true(normal_claims):
    assert len(normal_claims) >= 450 and len({claim.what for claim in normal_claims}) == 5
    found = judged([claim.quantity for claim in normal_claims], normal_claims)
    assert found.holds, said(found)


@pytest.mark.slow
def test_saboteur_the_other_divergence(normal_claims):
    """KL(law, model) judged by KL(model, law), and so on: the quantities of a split change places."""
    by_split = [[c for c in normal_claims if c.split == split][:3] for split in range(50_000, 50_100)]
    turned = [(a.quantity, b.truth, a.split) for claims in by_split for a, b in zip(claims, claims[1:] + claims[:1])]
    found = Coverage.of(*map(list, zip(*turned)), LEVEL)
    assert not found.holds, said(found)
