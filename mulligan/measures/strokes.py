"""Quality against strokes: what a model's samples are worth with fewer or more evaluations of its network.

Definition. For each number of strokes, samples are drawn with it and their sliced Wasserstein distance and coverage against
the same real rows are stated, with the seconds that the drawing took. The curve is read together with its last point: more
strokes help as long as the intervals still fall (THEORY ``relation.one_stroke``, ``relation.golf``).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from mulligan.measures.discrepancy import Distance, mmd, sliced_wasserstein
from mulligan.measures.manifold import manifold
from mulligan.measures.space import Space
from mulligan.quantity import Quantity


class StrokeQuality(NamedTuple):
    """One point of the curve: ``strokes`` a sample, the distances, and ``seconds`` for all samples of it."""

    strokes: int
    sliced_wasserstein: Distance
    mmd: Distance
    coverage: Quantity
    seconds: float


def quality_by_strokes(
    draw: Callable[[int], np.ndarray], strokes: Sequence[int], real: np.ndarray, space: Space, seed: int = 0
) -> tuple[StrokeQuality, ...]:
    """The curve of a model: ``draw(k)`` gives values (m, columns) drawn with k strokes each; ``real`` is (n, columns).

    The seconds contain compilation where ``draw`` compiles; call it before to leave that out.

    >>> from mulligan.data.table import Column, Schema
    >>> from mulligan.measures.space import space_of
    >>> rng = np.random.default_rng(0)
    >>> real = rng.normal(size=(200, 1))
    >>> space = space_of(Schema((Column("x", "continuous"),)), real)
    >>> curve = quality_by_strokes(lambda k: rng.normal(size=(200, 1)) * (1 - 0.5**k), [1, 8], real, space)
    >>> curve[0].sliced_wasserstein.value.value > curve[1].sliced_wasserstein.value.value
    True
    """
    found, known = [], space(np.asarray(real, np.float64))
    for count in strokes:
        began = time.perf_counter()
        drawn = np.asarray(draw(int(count)), np.float64)
        seconds = time.perf_counter() - began
        points = space(drawn)
        distance = sliced_wasserstein(known, points, seed)
        discrepancy = mmd(known, points, seed, length=space.length)
        found.append(StrokeQuality(int(count), distance, discrepancy, manifold(known, points, seed).coverage, seconds))
    return tuple(found)
