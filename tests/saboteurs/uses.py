"""Broken twins of the use of samples, of nearness and of bounds in pictures, and samplers that fail in one way only."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest

from mulligan.measures import memory, synthetic_use
from mulligan.report import marks


@contextlib.contextmanager
def patched(owner, name, value):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(owner, name, value)
        yield


def relation_lost(rows, rng):
    """Every column right, none knows of another."""
    return np.column_stack([rng.permutation(column) for column in rows.T])


def learning_rows_taken_as_given():
    """The error of the test rows only: as if other training rows and other samples taught the very same."""
    return patched(synthetic_use, "_of_learning_rows", lambda losses, units: 0.0)


def rest_counted_twice(losses, units):
    """The variance of the means of sets, with what the test rows' own error holds, too."""
    return float(losses.mean(axis=1).var(ddof=1))


def column_among_its_predictors():
    """A column is predicted from the others and from itself."""
    return patched(synthetic_use, "_predictors", lambda width, place: np.ones(width, bool))


def unlike_sizes():
    """Learns from all samples, not from as many as there are training rows."""

    def judge(train, test, generated, schema, seed, **more):
        few = synthetic_use.synthetic_use(train, test, generated, schema, seed, **more)
        many = synthetic_use.synthetic_use(generated, test, generated, schema, seed, **more)
        value = many.samples.value - few.real.value
        return few._replace(difference=type(few.difference)(value, "estimate", value - 0.01, value + 0.01))

    return judge


def samples_counted_only():
    """The interval of nearness as if its error came from the samples alone: as many as one likes."""
    original = memory.wilson
    return patched(memory, "wilson", lambda share, n: original(share, memory.MOST_SAMPLES))


def arrows_reversed():
    """Bounds point to where the truth cannot be."""
    original = marks.open_side
    return patched(marks, "open_side", lambda quantity: -original(quantity))
