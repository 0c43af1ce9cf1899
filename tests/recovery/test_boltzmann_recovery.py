"""The Boltzmann family finds a known machine: by every learning rule, no further from it than 63 free numbers cost.

A law on 2⁶ states has 63 free probabilities, and a machine has fewer: with n rows 2n KL(truth ‖ fitted) is at most about
chi-square with 63 degrees of freedom (Wilks 1938). KL is summed over all states.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import chdtri
from shared_fits import FAMILIES

from mulligan.errors import DataError, UsageError
from mulligan.learners.boltzmann import base_logits
from mulligan.loop import compile_small
from mulligan.models.boltzmann import Parameters, enumerated, log_partition
from mulligan.targets.discrete import states
from mulligan.targets.named import law
from mulligan.workbench.fitting import fit_prepared
from mulligan.workbench.preparation import prepare
from mulligan.workbench.sources import open_table
from mulligan.workbench.talk import Talk

ALPHA, SLACK = 2e-6, 1.05
SPACE = states(0, 64, 2, 6).astype(float)


def made(table, variant, steps=None, **options):
    prepared = prepare(open_table(table), 0)
    entry = FAMILIES["boltzmann"]
    fitted, outcome, _ = fit_prepared(
        prepared,
        entry,
        variant,
        entry.parse_options(options),
        seed=0,
        effort="standard",
        budget=None,
        steps=steps,
        talk=Talk(),
    )
    return fitted, outcome, prepared


def divergence(log_q):
    """KL(rbm-6x4 ‖ q) from log q of all states."""
    log_p = np.asarray(jax.vmap(law("rbm-6x4").log_prob)(jnp.asarray(SPACE)), float)
    return float(np.exp(log_p) @ (log_p - log_q))


@pytest.mark.parametrize("variant", [None, "pcd", "tempered", "cd"])
def test_a_known_machine_is_found(variant):
    fitted, outcome, prepared = made("rbm-6x4", variant, steps=1000)
    n = len(prepared.split.train)
    bound = SLACK * chdtri(63, ALPHA) / (2 * n)
    log_q = fitted.log_prob({f"s{i + 1}": SPACE[:, i].astype(int) for i in range(6)})
    assert fitted.log_prob_kind == "exact" and abs(np.exp(log_q).sum() - 1) < 1e-5
    gap = divergence(log_q)
    assert 0 < gap < bound, f"KL {gap:.2e}, bound {bound:.2e}, n {n}"
    assert outcome.failed is None and (variant or "exact") in outcome.label
    base = base_logits(prepared.rows_of("train").values)
    alone = enumerated(Parameters(np.zeros((6, 1)), base, np.zeros(1)))
    independent = np.asarray(jax.vmap(alone.log_prob)(jnp.asarray(SPACE)), float)
    assert divergence(independent) > 2.5 * bound  # the law is not far from independence: .027 nats


def test_columns_that_are_not_binary_are_named_with_the_call_that_drops_them():
    rng = np.random.default_rng(0)
    table = {"on": rng.random(300) < 0.5, "off": rng.random(300) < 0.2, "size": rng.normal(size=300)}
    with pytest.raises(DataError, match=r"1 of 3 are not \('size' \(continuous\)\).*--drop size"):
        made(table, None)


def test_the_exact_gradient_of_a_large_machine_is_refused():
    rng = np.random.default_rng(0)
    table = {f"c{i}": rng.random(300) < 0.5 for i in range(18)}
    with pytest.raises(UsageError, match=r"2\^18 states.*boltzmann\.hidden=12, or boltzmann:pcd"):
        made(table, "exact", hidden=30)


def copies():
    """24 columns that are noisy copies of three."""
    rng = np.random.default_rng(1)
    cause = rng.random((600, 3)) < 0.5
    return {f"c{i}": cause[:, i % 3] ^ (rng.random(600) < 0.1) for i in range(24)}


def test_a_diverging_training_keeps_its_last_healthy_state_and_says_why():
    _, outcome, _ = made(copies(), "pcd", steps=150, hidden=21, decay=0.0, rate=1.0)
    assert outcome.failed is not None and ("diverged" in outcome.failed or "frozen" in outcome.failed), outcome.failed
    assert "is kept" in outcome.failed and outcome.steps < 150
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(outcome.model))


def test_a_machine_too_large_to_enumerate_states_its_error():
    """2²¹ states: one unit more than the library sums over, and few enough for the test to do so."""
    fitted, outcome, prepared = made(copies(), "pcd", steps=150, hidden=21, decay=0.03)
    model = fitted.model
    assert fitted.log_prob_kind == "estimate" and 0 < float(model.log_z_stderr) < 0.1
    assert outcome.failed is None and any(line.startswith("log Z") for line in outcome.health)
    exact = float(compile_small(log_partition)(Parameters(model.weights, model.b, model.c)))
    assert abs(float(model.log_z) - exact) < 5 * float(model.log_z_stderr) + 1e-3
    score = fitted.log_prob(prepared.rows_of("select")).mean()
    assert score == pytest.approx(max(choice["select"] for choice in outcome.choices), abs=1e-5)
