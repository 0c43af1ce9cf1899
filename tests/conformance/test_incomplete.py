"""Rows whose last columns in the order are empty: their exact marginal, whatever kind the columns are of."""

from __future__ import annotations

import numpy as np
import pytest

import mulligan as mg
from mulligan.errors import DataError, UsageError

SMALL = {"members": 2, "width": 16, "depth": 1, "parts": 3}


@pytest.fixture(scope="module")
def fitted():
    rng = np.random.default_rng(0)
    kind = rng.choice(["red", "green"], 300)
    columns = {"length": rng.normal(2.0 * (kind == "red")), "kind": kind, "sold": rng.random(300) < 0.4}
    return mg.fit(columns, "autoregressive", effort="quick", steps=20, options={**SMALL, "order": ("length",)})


def rows(**columns):
    return {"length": [0.3, -1.0, 2.5], **columns}


def test_the_last_columns_are_summed_out(fitted):
    assert fitted.order == ("length", "kind", "sold")
    whole = [
        fitted.log_prob(rows(kind=[kind] * 3, sold=[sold] * 3)) for kind in ("red", "green") for sold in (True, False)
    ]
    marginal = np.log(np.sum(np.exp(whole), axis=0))
    for absent in (rows(), rows(kind=[None] * 3, sold=[None] * 3)):
        np.testing.assert_allclose(fitted.leading_log_prob(absent), marginal, atol=2e-6)
    both = np.log(np.exp(whole[0]) + np.exp(whole[1]))
    np.testing.assert_allclose(fitted.leading_log_prob(rows(kind=["red"] * 3)), both, atol=2e-6)
    assert np.abs(marginal - both).min() > 1e-3  # what is left out matters


def test_whole_rows_have_their_log_prob_and_each_row_its_own_length(fitted):
    whole = rows(kind=["red"] * 3, sold=[True] * 3)
    np.testing.assert_allclose(fitted.leading_log_prob(whole), fitted.log_prob(whole), atol=2e-6)
    mixed = fitted.leading_log_prob(rows(kind=["red", None, "red"], sold=[True, None, None]))
    alone = [
        fitted.log_prob(whole)[0],
        fitted.leading_log_prob(rows())[1],
        fitted.leading_log_prob(rows(kind=["red"] * 3))[2],
    ]
    np.testing.assert_allclose(mixed, alone, atol=2e-6)


def test_a_hole_in_the_middle_is_refused(fitted):
    with pytest.raises(DataError, match="row 2 lacks 'kind' but has 'sold'"):
        fitted.leading_log_prob(rows(kind=["red", None, "red"], sold=[True, True, True]))


def test_a_family_without_an_order_says_so(fitted):
    gaussian = mg.fit(np.random.default_rng(0).normal(size=(200, 2)), "gaussian")
    with pytest.raises(UsageError, match="gaussian has no order"):
        gaussian.leading_log_prob(np.zeros((2, 2)))
    each = mg.fit(rows_of_numbers(), "autoregressive", effort="quick", steps=1, options=SMALL)
    with pytest.raises(UsageError, match="have an order of the columns each"):
        each.leading_log_prob(rows_of_numbers())


def rows_of_numbers():
    rng = np.random.default_rng(1)
    return {name: rng.normal(size=200) for name in "abcdef"}
