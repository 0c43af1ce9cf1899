"""Broken twins of ``quantity.mean_of_rows``: their intervals must be seen not to cover."""

from __future__ import annotations

import math
from dataclasses import replace
from unittest.mock import patch

from mulligan.quantity import mean_of_rows


def clusters_forgotten(values, kind, clusters=None):
    return mean_of_rows(values, kind)


def normal_for_student(values, kind, clusters=None):
    right = mean_of_rows(values, kind, clusters=clusters)
    return replace(right, low=right.value - 1.96 * right.stderr, high=right.value + 1.96 * right.stderr)


def deviation_for_error(values, kind, clusters=None):
    right = mean_of_rows(values, kind, clusters=clusters)
    reach = right.n**0.5
    return replace(
        right,
        low=right.value - reach * (right.value - right.low),
        high=right.value + reach * (right.high - right.value),
    )


def two_sided_for_one(values, kind, clusters=None):
    """The lower end of a two-sided interval where a bound's one-sided one is claimed: covers too often."""
    return replace(mean_of_rows(values, "exact", clusters=clusters), high=None)


def tail_forgotten(values, kind="exact"):
    """Hall's correction alone, whatever the tail: ``mean_of_rows`` as it was."""
    with patch("mulligan.intervals.HEAVY", math.inf):
        return mean_of_rows(values, kind)


def twins():
    """(scenario of tests/exact/test_quantity.py, broken function)."""
    return [
        ("clustered", clusters_forgotten),
        ("few rows", normal_for_student),
        ("few rows", deviation_for_error),
        ("bound", two_sided_for_one),
    ]
