"""Holes: which modes of a known law the samples reach (the golf picture's holes).

Definition. A hole is found if the share of samples within its basin, a ball of the stated radius, is at least a third of
its true share. Each share has Wilson's interval, which gives the least and the greatest number of holes found.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from mulligan.quantity import proportion

FOUND_SHARE = 1 / 3


def holes_found(samples: np.ndarray, centres: np.ndarray, radius: float, shares: np.ndarray) -> dict[str, Any]:
    """``{"found", "of", "low", "high"}`` for samples (n, d) and holes at ``centres`` (h, d) with true ``shares`` (h,).

    ``low`` counts holes whose 95 % interval lies above a third of the true share, ``high`` those whose interval reaches
    it. A sample belongs to the nearest hole only.

    >>> holes_found(np.zeros((100, 2)), np.array([[0.0, 0.0], [9.0, 0.0]]), 1.0, np.array([0.5, 0.5]))
    {'found': 1, 'of': 2, 'low': 1, 'high': 1}
    """
    distances = np.linalg.norm(samples[:, None, :] - centres[None, :, :], axis=2)
    nearest = distances.argmin(1)
    inside = distances[np.arange(len(samples)), nearest] <= radius
    counts = np.bincount(nearest[inside], minlength=len(centres))
    found = low = high = 0
    for count, share in zip(counts, shares):
        seen, needed = proportion(int(count), len(samples)), FOUND_SHARE * float(share)
        found += int(count / len(samples) >= needed)
        low += int(seen.low is not None and seen.low >= needed)
        high += int(seen.high is not None and seen.high >= needed)
    return {"found": found, "of": len(centres), "low": low, "high": high}
