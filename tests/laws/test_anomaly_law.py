"""Conformal p-values of fresh rows are uniform for every family and for a wrong model; twins that are not are seen."""

from __future__ import annotations

from dataclasses import replace

import jax.numpy as jnp
import numpy as np
import pytest
from saboteurs import anomalies
from shared_fits import LABELS, fitted, home, in_turn, table

from mulligan.errors import UsageError
from mulligan.measures.anomaly import benjamini_hochberg, conformal_p, ks_to_uniform
from mulligan.models.kernel_density import KernelDensity
from mulligan.targets.gaussian import Gaussian
from mulligan.workbench.anomaly import HELD_OUT, anomaly, keep_scores, score_rows
from mulligan.workbench.sources import open_rows


def bar(m, n):
    return 2.63 * np.sqrt((n + m) / (n * m))


def scored(made, name, data_seed=1):
    """Scores of rows that had no part in a fit, in two halves: to calibrate with, and fresh."""
    rows = open_rows(table(name, data_seed), made.schema)
    scores = score_rows(made, rows)
    order = np.random.default_rng(3).permutation(len(scores))
    return scores[order[::2]], scores[order[1::2]]


def distance(held, fresh):
    return ks_to_uniform(conformal_p(held, fresh, np.random.default_rng(0)))


@pytest.mark.parametrize("label", in_turn(LABELS))
def test_fresh_rows_have_uniform_p_values(label):
    held, fresh = scored(fitted(label, home(label)), home(label))
    assert distance(held, fresh) < bar(len(held), len(fresh))


def wrong():
    """A round law, far off and far too narrow, in place of the banana's."""
    made = fitted("gaussian", "plane")
    return replace(made, model=Gaussian(jnp.array([1.0, -2.0]), 0.3 * jnp.eye(2)))


def test_a_wrong_model_has_valid_p_values():
    made = wrong()
    held, fresh = scored(made, "plane")
    assert distance(held, fresh) < bar(len(held), len(fresh))
    rows = open_rows(table("plane", 2), made.schema)
    away = score_rows(made, rows.with_values(rows.values + 2 * rows.values.std(axis=0)))  # rows of another law
    assert distance(held, away) > bar(len(held), len(away))


def test_rows_that_were_fitted_to_do_not_calibrate():
    """A kernel density as narrow as it goes: its training rows are far more usual than fresh ones."""
    made = fitted("kde", "plane")
    centres = made.codec.encode(table("plane").values).points[:, 0]
    memory = replace(made, model=KernelDensity(jnp.asarray(centres, jnp.float32), jnp.eye(2), jnp.asarray(1e-3)))
    on_train = score_rows(memory, table("plane"))
    held, fresh = scored(memory, "plane")
    assert distance(held, fresh) < bar(len(held), len(fresh))
    assert distance(on_train, fresh) > bar(len(on_train), len(fresh))


@pytest.mark.parametrize("twin", [anomalies.wrong_side, anomalies.under_a_normal_law, anomalies.without_the_row_itself])
def test_other_p_values_are_not_valid(twin):
    """P(p ≤ 1/(m+1)) ≤ 1/(m+1) over many small calibrations, to four standard errors."""
    rng = np.random.default_rng(2)
    trials, m = 4000, 9
    scores = -(rng.exponential(size=(trials, m + 1)) ** 2)

    def excess(p_value):
        p = np.array([p_value(row[:m], row[m:])[0] for row in scores])
        share = np.array([(p <= level).mean() - level for level in (0.05, 0.1, 0.5)])
        return (share / np.sqrt(np.array([0.05, 0.1, 0.5]) * np.array([0.95, 0.9, 0.5]) / trials)).max()

    assert excess(conformal_p) < 4
    if twin is anomalies.wrong_side:  # uniform, too, but an unusual row has a large p
        assert twin(scores[0], np.array([-1e3]))[0] == 1.0 > 0.2 > conformal_p(scores[0], np.array([-1e3]))[0]
    else:
        assert excess(twin) > 4


def test_atoms_are_conservative_and_randomised_p_is_uniform():
    rng = np.random.default_rng(4)
    held, fresh = rng.integers(0, 3, 600).astype(float), rng.integers(0, 3, 600).astype(float)
    plain, smooth = conformal_p(held, fresh), conformal_p(held, fresh, rng)
    assert ks_to_uniform(smooth) < bar(600, 600) < ks_to_uniform(plain)
    for level in (0.2, 0.34, 0.67):
        assert (plain <= level).mean() <= level + 0.08


def test_false_flags_are_bounded():
    """200 usual rows and 40 far ones: the share of false flags stays below the level on average."""
    rng = np.random.default_rng(6)
    shares, found = [], []
    for _ in range(200):
        held = rng.normal(size=1000)
        scores = np.concatenate([rng.normal(size=200), rng.normal(-6, 1, size=40)])
        flags = benjamini_hochberg(conformal_p(held, scores), 0.1)
        shares.append(flags[:200].sum() / max(1, flags.sum()))
        found.append(flags[200:].mean())
    assert np.mean(shares) < 0.1 and np.mean(found) > 0.9


def test_the_column_that_made_a_row_unusual_is_named():
    from mulligan.workbench.fitting import fit

    rng = np.random.default_rng(0)
    x = rng.normal(size=(600, 3))
    x[:, 1] = x[:, 0] + 0.1 * rng.normal(size=600)  # b repeats a, c is on its own
    made = fit({"a": x[:, 0], "b": x[:, 1], "c": x[:, 2]}, "gaussian")
    rows = {"a": [0.0, 1.0], "b": [0.1, 1.0], "c": [9.0, 0.0]}
    found = anomaly(made, rows, level=0.2)
    assert "no part in it" in found.note and len(made.card[HELD_OUT]) == found.calibration_rows
    assert found.why(0)[0][0] == "c" and found.p[0] < 0.02 < found.p[1] and found.flagged[0]
    # closed form against the conditional law of the data's own covariance, and against quadrature
    from mulligan.workbench import anomaly as module

    values = np.array([[0.0, 0.1, 9.0], [1.0, 1.0, 0.0], [0.5, -0.5, 0.3]])
    reference = made.sample(2000, seed=1).values
    closed, summed = module._closed(made, values, reference), module._integrated(made, values, reference)
    assert np.allclose(closed, summed, atol=0.05)


def test_discrete_columns_are_summed():
    from mulligan.workbench import anomaly as module

    made = fitted("histogram", "discrete")
    values = open_rows(table("discrete"), made.schema).values[:4]
    surprise = module._integrated(made, values, made.sample(500, seed=0).values)
    both = np.array([[values[i, 0], flag] for i in range(4) for flag in (0.0, 1.0)])
    whole = module._log_p(made, both).reshape(4, 2)
    exact = np.logaddexp.reduce(whole, axis=1) - module._log_p(made, values)
    assert np.allclose(surprise[:, 1], exact, atol=1e-6)


def test_kept_scores_and_refusals():
    made = fitted("gan", "plane")
    keep_scores(made, open_rows(table("plane", 1), made.schema))
    found = anomaly(
        made,
        {"x": [0.0, 90.0], "y": [0.0, 90.0]} if made.schema.names == ("x", "y") else np.array([[0.0, 0], [90, 90]]),
    )
    assert found.p[1] < 0.01 and "no log p" in found.score
    with pytest.raises(UsageError, match="level"):
        anomaly(made, table("plane"), level=0.0)
    with pytest.raises(UsageError, match="calibrate"):
        anomaly(replace(made, card={}), table("plane"))
