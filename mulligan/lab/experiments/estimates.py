"""Averages over independent particles as Quantities: what the numbers and the bars of a recording state.

Definition. The mean of n independent rows, its standard error sd/√n, and the interval of 1.96 of these to either side.
"""

from __future__ import annotations

import numpy as np

from mulligan.lab.identity import mean_and_error
from mulligan.quantity import Quantity

Z95 = 1.96


def estimate(mean: float, error: float, n: int, unit: str = "") -> Quantity:
    """A mean with its standard error.

    >>> print(estimate(0.5, 0.01, 2500))
    0.500 ± 0.010, estimate
    """
    value, error = float(mean), float(error)
    return Quantity(value, "estimate", value - Z95 * error, value + Z95 * error, stderr=error, n=n, unit=unit)


def estimates(values: np.ndarray, unit: str = "") -> tuple[Quantity, ...]:
    """For each frame of values (frames, n): the mean over n.

    >>> [q.value for q in estimates(np.array([[0.0, 2.0], [1.0, 1.0]]))]
    [1.0, 1.0]
    """
    mean, error = mean_and_error(np.moveaxis(np.asarray(values, float), 1, 0))
    return tuple(estimate(m, s, np.shape(values)[1], unit) for m, s in zip(mean, error))


def halves_of(change: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What each half of the latest step, and the step so far, changed: (2 steps + 1, 3) means and standard errors.

    ``change`` (2 steps, n): of each half and each particle. Columns: first half, second half, the step so far.

    >>> halves_of(np.array([[1.0, 3.0], [-1.0, -3.0]]))[0].tolist()
    [[0.0, 0.0, 0.0], [2.0, 0.0, 2.0], [2.0, -2.0, 0.0]]
    """
    means, errors = np.zeros((len(change) + 1, 3)), np.zeros((len(change) + 1, 3))
    for k, latest in enumerate(change):
        parts = {0: latest, 2: latest} if k % 2 == 0 else {0: change[k - 1], 1: latest, 2: change[k - 1] + latest}
        for column, rows in parts.items():
            means[k + 1, column], errors[k + 1, column] = mean_and_error(rows)
    return means, errors
