"""Where a column's transform is defined: one answer for inspection, for other rows, for the codec and for ``auto``.

``log`` of a continuous value needs v > 0, ``logit`` 0 < v < 1. A grid value stands for the half step on either side, so
the transforms of a gridded column are shifted by half a step: log(v + step/2) needs v > −step/2, and the logit of
(v + step/2)/(1 + step) needs −step/2 < v < 1 + step/2. Counts may be 0, and shares on a grid may be 0 and 1.
"""

from __future__ import annotations

import numpy as np

from mulligan.data.table import Column

_ROUNDING = 1e-9  # of half a step: a value this near to the end of the support is taken to be on it


def support(column: Column) -> tuple[float, float]:
    """The open interval in which the column's transform is defined; infinite ends where it has none.

    >>> support(Column("v", "gridded", step=0.5, transform="logit"))
    (-0.25, 1.25)
    """
    half = (column.step or 0.0) / 2
    if column.transform == "none":
        return -np.inf, np.inf
    return (-half + 0.0, np.inf) if column.transform == "log" else (-half + 0.0, 1 + half)


def outside_support(column: Column, values: np.ndarray) -> np.ndarray:
    """True where the column's transform is not defined; bool, same shape as ``values``."""
    least, greatest = support(column)
    slack = _ROUNDING * (column.step or 0.0) / 2
    return np.asarray((values <= least + slack) | (values >= greatest - slack))


def support_words(column: Column) -> str:
    """The support in words, for messages."""
    least, greatest = support(column)
    if column.transform == "logit":
        bounds = (
            "0 and 1, neither included" if column.step is None else f"{least:g} and {greatest:g} (half a step more)"
        )
        return f"between {bounds}"
    return "above 0" if column.step is None else f"above {least:g} (half a step below 0)"
