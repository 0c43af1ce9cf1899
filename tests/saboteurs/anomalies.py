"""p-values of unusual rows as they are often got wrong."""

from __future__ import annotations

import numpy as np


def without_the_row_itself(calibration, scores):
    """#{c ≤ s}/m: can be 0, and is too small where there are few calibration rows."""
    return (calibration[None] <= scores[:, None]).mean(1)


def wrong_side(calibration, scores):
    """Counts the calibration rows that are less usual from the other side."""
    return (1 + (calibration[None] >= scores[:, None]).sum(1)) / (len(calibration) + 1)


def under_a_normal_law(calibration, scores):
    """Takes log p of usual rows for normally distributed."""
    from scipy.special import ndtr

    return ndtr((scores - np.mean(calibration)) / np.std(calibration))
