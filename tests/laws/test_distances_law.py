"""p-values of sample distances are uniform under equal laws, and their intervals hold the truth.

Level. A set of p-values is refused where its Kolmogorov distance from uniform is beyond 2.63/√n (2e-6); where statistics
tie, p-values may only be too large (the one-sided distance). A set of intervals is refused where the interval of its share,
at 1 − 5e-5, lies below .93: these intervals may hold more often than stated, see docs/distances.md. All saboteurs are seen.
"""

from __future__ import annotations

import numpy as np
import pytest
from saboteurs import distances as saboteurs
from scipy.stats import norm

from mulligan.measures import discrepancy, frechet
from mulligan.measures import memory as memory_module
from mulligan.measures.calibration import coverage, overlaps
from mulligan.measures.discrepancy import BANDWIDTHS, PERMUTATIONS, WIDEST, mmd, sliced_wasserstein
from mulligan.measures.manifold import expected_coverage, manifold
from mulligan.measures.memory import memory
from mulligan.measures.samples import one_of_each

LEVEL = 1 - 5e-5
KS = 2.63
Z = 4.75
RUNS = 200


@pytest.fixture(scope="module", autouse=True)
def fewer():
    """Fewer directions, relabellings and bootstrap samples: the same statements for a quarter of the time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(discrepancy, "DIRECTIONS", 8)
        patch.setattr(memory_module, "RELABELLINGS", 999)
        patch.setattr(frechet, "RESAMPLINGS", 39)
        patch.setattr(frechet, "HALVINGS", 4)
        yield


def generators(seed, runs=RUNS):
    return [np.random.default_rng([seed % 2**31, run]) for run in range(runs)]


def kolmogorov(p, one_sided=False):
    """Distance of the p-values' distribution from uniform; one-sided: only where small ones are too frequent."""
    p, n = np.sort(p), len(p)
    above = (np.arange(1, n + 1) / n - p).max()
    return above if one_sided else max(above, (p - np.arange(n) / n).max())


def smooth(p_values, rng):
    """p = rank/(B + 1) takes B + 1 values; uniform within each, it is uniform altogether."""
    return np.array(p_values) - rng.random(len(p_values)) / (PERMUTATIONS + 1)


def holds(hits):
    return overlaps(coverage(np.asarray(hits, float), level=LEVEL), 0.93, 1.0)


# --- p-values under equal laws ------------------------------------------------------------------------------------------


def p_values(distance, seed, paired=False):
    found = []
    for run, rng in enumerate(generators(seed)):
        if paired:  # both sides share a column, as samples of a conditional model do
            known = 3 * rng.normal(size=(30, 1))
            real, drawn = (np.hstack([known, rng.exponential(size=(30, 1))]) for _ in range(2))
        else:
            real, drawn = rng.standard_t(2, size=(35, 2)), rng.standard_t(2, size=(25, 2))
        found.append(distance(real, drawn, run, paired=paired).p_value.value)
    return smooth(found, np.random.default_rng(seed))


@pytest.mark.parametrize("paired", [False, True], ids=["apart", "paired"])
@pytest.mark.parametrize("distance", [mmd, sliced_wasserstein])
def test_p_values_are_uniform_under_equal_laws(distance, paired, seed):
    apart = kolmogorov(p_values(distance, seed, paired))
    assert apart < KS / np.sqrt(RUNS), f"distance {apart:.3f} of {RUNS} p-values, seed {seed}"


@pytest.mark.parametrize("distance", [mmd, sliced_wasserstein])
def test_saboteurs_of_p_values(distance, seed):
    with saboteurs.relabelled_with_replacement():
        assert kolmogorov(p_values(distance, seed)) > KS / np.sqrt(RUNS)
    with saboteurs.pairs_ignored():
        assert kolmogorov(p_values(distance, seed, paired=True)) > KS / np.sqrt(RUNS)


def duplicated_p_values(seed, thinned):
    """Real rows that are there three times each, against independent ones."""
    found = []
    for run, rng in enumerate(generators(seed)):
        clusters = np.repeat(np.arange(30), 3)
        real, drawn = rng.normal(size=(30, 2))[clusters], rng.normal(size=(90, 2))
        kept = one_of_each(clusters, run) if thinned else np.arange(90)
        found.append(mmd(real[kept], drawn[: len(kept)], run).p_value.value)
    return smooth(found, np.random.default_rng(seed))


def test_one_row_a_cluster_keeps_p_values_uniform(seed):
    assert kolmogorov(duplicated_p_values(seed, thinned=True)) < KS / np.sqrt(RUNS)
    assert kolmogorov(duplicated_p_values(seed, thinned=False)) > KS / np.sqrt(RUNS)


def test_another_law_is_seen(seed):
    """Power: a variance of 1.6 for 1, and a mixture with the same two moments, in samples of 300."""
    rng = np.random.default_rng(seed)
    real = rng.normal(size=(300, 2))
    wide = rng.normal(size=(300, 2)) * 1.6
    moons = 0.95 * rng.choice([-1, 1], size=(300, 2)) + np.sqrt(1 - 0.95**2) * rng.normal(size=(300, 2))
    for drawn in (wide, moons):
        assert mmd(real, drawn, seed).p_value.value == 1 / (PERMUTATIONS + 1)
    assert sliced_wasserstein(real, wide, seed).p_value.value == 1 / (PERMUTATIONS + 1)


# --- intervals ----------------------------------------------------------------------------------------------------------


def mmd_of_shift(shift, length):
    """MMD of N(0, 1) and N(shift, 1) in closed form: E k(x, y) = h/√(h² + 2) exp(−shift²/2(h² + 2))."""
    widths = [length * WIDEST / 2**k for k in range(BANDWIDTHS)]
    alike = [h / np.sqrt(h * h + 2) * (1 - np.exp(-(shift**2) / (2 * (h * h + 2)))) for h in widths]
    return np.sqrt(2 * np.mean(alike))


def hits(shift, seed, runs=200):
    of_mmd, of_sliced = [], []
    for run, rng in enumerate(generators(seed, runs)):
        real, drawn = rng.normal(size=(60, 1)), rng.normal(size=(60, 1)) + shift
        of_mmd.append(mmd(real, drawn, run, length=1.0).value.contains(mmd_of_shift(shift, 1.0)))
        of_sliced.append(sliced_wasserstein(real, drawn, run).value.contains(shift))
    return of_mmd, of_sliced


@pytest.mark.parametrize("shift", [0.0, 0.3, 2.0])
def test_intervals_of_distances_hold_the_truth(shift, seed):
    for found in hits(shift, seed):
        assert holds(found), f"{np.mean(found)} of {len(found)}, seed {seed}"


def test_saboteur_half_the_noise(seed):
    with saboteurs.half_the_noise():
        for found in hits(0.0, seed):
            assert not holds(found), np.mean(found)


# --- precision, recall, density, coverage -------------------------------------------------------------------------------


def manifolds(seed, scale, n=80, m=60, runs=200):
    found = []
    for run, rng in enumerate(generators(seed, runs)):
        found.append(manifold(rng.normal(size=(n, 2)), scale * rng.normal(size=(m, 2)), run))
    return found


def off_expectation(found, n=80, m=60):
    """z of the mean density from 1 and of the mean coverage from its expectation, under equal laws."""
    density, covered = ([getattr(one, name).value for one in found] for name in ("density", "coverage"))
    expected = (1.0, expected_coverage(n, m))
    return [abs(np.mean(v) - e) / (np.std(v) / np.sqrt(len(v))) for v, e in zip((density, covered), expected)]


def test_density_and_coverage_have_their_expectations_under_equal_laws(seed):
    assert max(off_expectation(manifolds(seed, 1.0))) < Z


def test_saboteur_itself_a_neighbour(seed):
    with saboteurs.itself_a_neighbour():
        assert max(off_expectation(manifolds(seed, 1.0))) > Z


@pytest.mark.parametrize("scale", [1.0, 0.5])
def test_intervals_of_manifold_numbers_hold_their_expectation(scale, seed):
    found = manifolds(seed, scale)
    for name in found[0]._fields:
        quantities = [getattr(one, name) for one in found]
        truth = np.mean([q.value for q in quantities])  # its error is a fourteenth of the stated one
        assert holds([q.contains(truth) for q in quantities]), name


# --- memorisation -------------------------------------------------------------------------------------------------------


def memories(seed, copied=0.0, scale=1.0, runs=200, judge=memory):
    found = []
    for run, rng in enumerate(generators(seed, runs)):
        train, test, drawn = rng.normal(size=(140, 2)), rng.normal(size=(100, 2)), scale * rng.normal(size=(400, 2))
        copies = rng.random(400) < copied
        drawn[copies] = train[rng.integers(140, size=copies.sum())]
        found.append(judge(train, test, drawn, run))
    return found


@pytest.mark.parametrize("scale", [1.0, 0.3, 2.0], ids=["right law", "narrow law", "wide law"])
def test_no_alarm_where_nothing_was_copied(scale, seed):
    found = memories(seed, scale=scale)
    p = np.array([one.p_value.value for one in found])
    assert kolmogorov(p, one_sided=True) < KS / np.sqrt(len(p)), f"seed {seed}"
    assert holds([one.copied.contains(0.0) for one in found])


def test_saboteur_a_narrow_law_counts_as_memory(seed):
    def judge(train, test, drawn, run):
        return saboteurs.nearness_to_training_rows(train, test, drawn)

    p = np.array(memories(seed, scale=0.3, runs=100, judge=judge))
    assert kolmogorov(p, one_sided=True) > KS / np.sqrt(len(p))


def test_the_copied_share_is_found(seed):
    found = memories(seed, copied=0.3)
    values = np.array([one.copied.value for one in found])
    assert abs(values.mean() - 0.3) < Z * values.std() / np.sqrt(len(values))
    assert holds([one.copied.contains(0.3) for one in found])


def tied(seed, runs=200):
    """p-values where samples lie on rows of either kind: few values in many columns."""
    p = []
    for run, rng in enumerate(generators(seed, runs)):
        train, test, drawn = (rng.integers(2, size=(n, 6)).astype(float) for n in (70, 70, 200))
        p.append(memory(train, test, drawn, run).p_value.value)
    return np.array(p)


def test_ties_favour_no_label(seed):
    assert kolmogorov(tied(seed), one_sided=True) < KS / np.sqrt(200)
    with saboteurs.rows_in_order():
        values = []
        for run in range(20):
            rng = np.random.Generator(np.random.PCG64([seed % 2**31, run]))
            train, test, drawn = (rng.integers(2, size=(n, 6)).astype(float) for n in (70, 70, 200))
            values.append(memory(train, test, drawn, run).p_value.value)
    assert np.median(values) < 0.01


# --- Fréchet ------------------------------------------------------------------------------------------------------------


def frechets(seed, shift, runs=60):
    found = []
    for run, rng in enumerate(generators(seed, runs)):
        real, drawn = rng.normal(size=(80, 8)), rng.normal(size=(80, 8)) + shift
        found.append(frechet.frechet_distance(real, drawn, run, "the coordinates"))
    return found


def biased(found, truth):
    values = np.array([one.value for one in found])
    return abs(values.mean() - truth) > max(norm.isf(1e-6) * values.std() / np.sqrt(len(values)), 0.02)


@pytest.mark.parametrize("shift", [0.0, 0.5])
def test_frechet_intervals_hold_the_truth(shift, seed):
    found = frechets(seed, shift)
    assert holds([one.contains(8 * shift**2) for one in found])
    assert shift == 0.0 or not biased(found, 8 * shift**2)


def test_saboteur_bias_kept(seed):
    with saboteurs.bias_kept():
        assert biased(frechets(seed, 0.5), 2.0)
