"""Fidelity and diversity of samples: precision, recall, density and coverage.

Definition. B(x) is the ball around a real point that reaches its k-th nearest other real point, B(y) that of a generated
point among the generated ones (k = 5). With n real points x and m generated points y,

- precision = share of the y in some B(x), and recall = share of the x in some B(y) (Kynkäänniemi et al. 2019);
- density = (1/km) Σ_y number of balls B(x) that hold y, and coverage = share of the balls B(x) that hold some y (Naeem
  et al. 2020, who show how one far point spoils the first two and not these).

Under equal continuous laws the pooled points are exchangeable, so E density = 1 and E coverage = 1 − Π_{t<k}
(n−1−t)/(n−1+m−t) (.97 for n = m, k = 5), whatever the law; precision and recall have no such value.

Each number belongs to the sizes n, m and k: its expectation over two samples of these sizes is what its interval is for.
The standard error is the jackknife's over both samples, each point left out once and the balls that lose it grown to
their next neighbour: Σ_i (T₍ᵢ₎ − T₍·₎)², on average not too small (Efron and Stein 1981).
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from mulligan.quantity import Quantity, none, wilson

NEIGHBOURS = 5
LEAST_ROWS = 20
MOST_ROWS = 750  # of each: a tenth of a second
_Z975 = 1.959963984540054


class Manifold(NamedTuple):
    """Precision, recall, density and coverage of one sample against another; see the module."""

    precision: Quantity
    recall: Quantity
    density: Quantity
    coverage: Quantity


class _Statistic(NamedTuple):
    value: float
    variance: float


def manifold(real: np.ndarray, generated: np.ndarray, seed: int, neighbours: int = NEIGHBOURS) -> Manifold:
    """The four numbers for real (n, q) and generated (m, q) points, at most 750 of each; kind ``estimate``.

    Shares have Wilson's interval at the number of independent points that would give their error. ``none`` below 20 points,
    or where one is not finite.

    >>> rng = np.random.default_rng(0)
    >>> half = np.abs(rng.normal(size=(200, 1)))  # a model that knows one side only
    >>> found = manifold(rng.normal(size=(200, 1)), half, seed=0)
    >>> found.precision.value > 0.95, found.coverage.high < 0.7
    (True, True)
    """
    fewest = min(len(real), len(generated))
    if fewest < max(LEAST_ROWS, neighbours + 2):
        return Manifold(*[none(f"{fewest} rows are too few for neighbourhoods", "share")] * 4)
    if not (np.isfinite(real).all() and np.isfinite(generated).all()):
        return Manifold(*[none("some samples are not finite", "share")] * 4)
    rng = np.random.default_rng([seed, 227])
    real = real[rng.permutation(len(real))[:MOST_ROWS]]
    generated = generated[rng.permutation(len(generated))[:MOST_ROWS]]
    across = distances(real, generated)
    precision, density, coverage = _against(distances(real, real), across, neighbours)
    recall = _against(distances(generated, generated), across.T, neighbours)[0]
    n, m = across.shape
    sizes = f"{neighbours} nearest of {n} real and {m} generated"
    expected = expected_coverage(n, m, neighbours)
    return Manifold(
        _share(precision, m, neighbours, n + m, sizes),
        _share(recall, n, neighbours, n + m, sizes),
        _stated(density, n + m, f"{sizes}; equal laws give 1"),
        _share(coverage, n, neighbours, n + m, f"{sizes}; equal laws give {expected:.2f}"),
    )


def expected_coverage(n: int, m: int, neighbours: int = NEIGHBOURS) -> float:
    """E coverage under equal continuous laws: 1 − P(the k nearest of n − 1 + m other points are all real).

    >>> round(expected_coverage(1000, 1000), 3)
    0.969
    """
    if n <= neighbours:  # no ball has so many real neighbours
        return 1.0
    return 1.0 - math.prod((n - 1 - t) / (n - 1 + m - t) for t in range(neighbours))


def distances(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Euclidean distances (n, m) between points (n, q) and (m, q), float64; equal points are 0 apart."""
    centre = one.mean(axis=0)
    one, other = one - centre, other - centre
    norms = np.einsum("nq,nq->n", one, one)[:, None] + np.einsum("mq,mq->m", other, other)[None, :]
    squares = norms - 2 * (one @ other.T)
    # What cancels to less than the digits of the norms is no distance: equal points must not come apart.
    squares[squares < 1e-12 * norms] = 0.0
    return np.asarray(np.sqrt(squares))


def _against(among: np.ndarray, across: np.ndarray, k: int) -> tuple[_Statistic, _Statistic, _Statistic]:
    """Share of other points in some ball, mean number of balls that hold one (over k), share of balls that hold one.

    ``among`` (a, a) are distances between the centres, ``across`` (a, b) those to the other points.
    """
    a, b = across.shape
    np.fill_diagonal(among, np.inf)
    nearest = np.argpartition(among, k, axis=1)[:, : k + 1]
    reach = np.take_along_axis(among, nearest, axis=1)
    order = np.argsort(reach, axis=1)
    nearest, reach = np.take_along_axis(nearest, order, axis=1)[:, :k], np.take_along_axis(reach, order, axis=1)
    inside = across <= reach[:, k - 1 : k]
    grown = (across <= reach[:, k : k + 1]) & ~inside  # what a ball would hold more if a neighbour of it left
    held, holding = inside.sum(axis=0), inside.sum(axis=1)
    losers = _sparse(nearest, a).T @ grown.astype(np.float32)  # (a, b): balls that would come to hold j if i left
    without = held[None, :] - inside + losers
    some = held > 0
    share_of_points = _statistic(float(some.mean()), (without > 0.5).mean(axis=1), (some.sum() - some) / max(b - 1, 1))
    total = float(held.sum())
    mean_held = _statistic(total / (k * b), without.sum(axis=1) / (k * b), (total - held) / (k * max(b - 1, 1)))
    covered, saved = holding > 0, (holding == 0) & grown.any(axis=1)
    gained = _sparse(nearest, a).T @ saved.astype(np.float64)
    left_out = (covered.sum() - covered + gained) / (a - 1)
    alone = inside[holding == 1].sum(axis=0)
    share_of_balls = _statistic(float(covered.mean()), left_out, (covered.sum() - alone) / a)
    return share_of_points, mean_held, share_of_balls


def _sparse(nearest: np.ndarray, a: int) -> Any:
    """Matrix (a, a) with 1 at (l, i) where i is among the nearest of l."""
    from scipy.sparse import csr_array

    rows, k = nearest.shape
    return csr_array((np.ones(rows * k, np.float32), nearest.ravel(), np.arange(0, rows * k + 1, k)), shape=(rows, a))


def _statistic(value: float, *left_out: np.ndarray) -> _Statistic:
    return _Statistic(value, float(sum(np.sum((each - each.mean()) ** 2) for each in left_out)))


def _share(found: _Statistic, points: int, neighbours: int, n: int, note: str) -> Quantity:
    """A share with Wilson's interval. Where no leaving-out changes it, neighbours in space count as one point."""
    spread = found.value * (1 - found.value)
    effective = min(points, spread / found.variance) if spread > 0 and found.variance > 0 else points / neighbours
    low, high = wilson(found.value, effective)
    return Quantity(found.value, "estimate", low, high, math.sqrt(found.variance), n, "share", note)


def _stated(found: _Statistic, n: int, note: str) -> Quantity:
    error = math.sqrt(found.variance)
    low, high = max(0.0, found.value - _Z975 * error), found.value + _Z975 * error
    return Quantity(found.value, "estimate", low, high, error, n, "", note)
