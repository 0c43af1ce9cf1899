"""Counting: from points in cells to the joint, its margins, a conditional, and the best width of a cell.

Definition. p(x, y) = (n(x, y)/n)/(area of the cell), p(x) = (n(x)/n)/width, p(y|x) = (n(x, y)/n(x))/width. Frames go from
one cell to 60 a side: wide cells blur, narrow ones stand empty, and √∫(p̂ − p)² is least in between. Serves
``density.joint``, ``density.marginal``, ``density.conditional``, ``density.factorization``, ``density.consistency``.
"""

from __future__ import annotations

from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np

from mulligan.lab.experiment import Range, experiment
from mulligan.lab.identity import mean_and_error, monte_carlo, rounding
from mulligan.lab.recording import Curve, Field, Panel, Points, Recording, Scale
from mulligan.loop import compile_small
from mulligan.quantity import Quantity
from mulligan.targets.counting import Histogram
from mulligan.targets.mixture import GaussianMixture

CELLS = (1, 2, 3, 4, 5, 6, 10, 12, 15, 20, 30, 60)  # a side: divisors of the 60 pixels of the picture
PIXELS, REACH, SAMPLES, DRAWN = 60, 4.0, 20, 300
T = 2.09  # Student, 19 degrees of freedom
_CENTRES = (np.arange(PIXELS) + 0.5) * 2 * REACH / PIXELS - REACH


def plane_law() -> GaussianMixture:
    """The law of the points: two hills of the plane, inside [−4, 4]² but for 2 points in a million.

    >>> plane_law().dim
    2
    """
    covariances = [[[0.55, 0.35], [0.35, 0.5]], [[0.4, -0.15], [-0.15, 0.5]]]
    return GaussianMixture.from_covariances([0.6, 0.4], [[-0.7, -0.6], [0.9, 0.8]], covariances)


@compile_small
def _draw(law: GaussianMixture, key: Any, n: int) -> Any:
    return jax.vmap(law.sample)(jax.random.split(key, n))


@compile_small
def _truth(law: GaussianMixture, grid: Any, axis: Any, column: Any) -> Any:
    """p on the grid, p(x), p(y) and p(y | column)."""
    margins = [jnp.exp(jax.vmap(law.marginal([j]).log_prob)(axis)) for j in (0, 1)]
    inside = law.condition([0], column)
    return jnp.exp(jax.vmap(law.log_prob)(grid)), *margins, jnp.exp(jax.vmap(inside.log_prob)(axis))


@compile_small
def _shares(law: Histogram, column: Any) -> Any:
    """Probabilities of the cells: of the joint, of both margins, and inside the column (NaN where it holds nothing)."""
    return law.joint, law.marginal([0]).joint, law.marginal([1]).joint, law.conditional([0], column).joint


def _counted(law: Histogram, column: Any) -> tuple[np.ndarray, ...]:
    """The densities p̂(y, x), p̂(x), p̂(y) and p̂(y | column) at the pixels: shares over the area or width of a cell."""
    joint, *others = (np.asarray(part) for part in _shares(law, column))
    k = PIXELS // len(joint)
    width = 2 * REACH / len(joint)
    return np.kron(joint.T / width**2, np.ones((k, k))), *(np.repeat(part / width, k) for part in others)


def edges_of(cells: int) -> list[np.ndarray]:
    """The edges of both axes.

    >>> edges_of(2)[0].tolist()
    [-4.0, 0.0, 4.0]
    """
    return [np.linspace(-REACH, REACH, cells + 1)] * 2


def masses_of(law: GaussianMixture) -> tuple[np.ndarray, float]:
    """P of each of the 60 x 60 finest cells (Gauss-Legendre, four nodes a side), and ∫ p².

    >>> bool(abs(masses_of(plane_law())[0].sum() - 1) < 1e-5)
    True
    """
    node, weight = np.polynomial.legendre.leggauss(4)
    half = REACH / PIXELS
    axis = (_CENTRES[:, None] + half * node).reshape(-1)
    grid = np.stack(np.meshgrid(axis, axis, indexing="ij"), axis=-1).reshape(-1, 2)
    p = np.exp(np.asarray(_log_p(law, jnp.asarray(grid)))).reshape(PIXELS, 4, PIXELS, 4)
    return half**2 * np.einsum("iajb,a,b->ij", p, weight, weight), float(
        half**2 * np.einsum("iajb,a,b->", p**2, weight, weight)
    )


@compile_small
def _log_p(law: Any, points: Any) -> Any:
    return jax.vmap(law.log_prob)(points)


def merged(table: np.ndarray, cells: int) -> np.ndarray:
    """A 60 x 60 table summed to ``cells`` a side.

    >>> merged(np.ones((60, 60)), 2).tolist()
    [[900.0, 900.0], [900.0, 900.0]]
    """
    k = PIXELS // cells
    return table.reshape(cells, k, cells, k).sum(axis=(1, 3))


def square_errors(
    samples: np.ndarray, cells: int, masses: np.ndarray, square: float, histogram: Any = Histogram
) -> np.ndarray:
    """∫(p̂ − p)² of the histogram of each sample (samples, n, 2): Σ p̂² v − 2 Σ p̂ P + ∫p².

    >>> law = plane_law()
    >>> float(square_errors(np.zeros((1, 5, 2)), 1, *masses_of(law))[0]) < masses_of(law)[1]
    True
    """
    area, here = (2 * REACH / cells) ** 2, merged(masses, cells)
    found = []
    for rows in samples:
        p = np.asarray(histogram.from_rows(rows, edges_of(cells)).counts) / len(rows) / area
        found.append((p**2).sum() * area - 2 * (p * here).sum() + square)
    return np.array(found)


def expected_square_error(n: int, cells: int, masses: np.ndarray, square: float) -> float:
    """E ∫(p̂ − p)² = (1 − ΣP²)/(n v) + ∫p² − ΣP²/v: binomial counts, and squared bias (Scott 1979).

    >>> masses, square = masses_of(plane_law())
    >>> expected_square_error(2000, 60, masses, square) > expected_square_error(2000, 12, masses, square)
    True
    """
    area, total = (2 * REACH / cells) ** 2, float((merged(masses, cells) ** 2).sum())
    return (1 - total) / (n * area) + square - total / area


@experiment(1, "Counting: points in cells become a density")
def counting(
    *,
    n: Annotated[int, Range(50, 50_000)] = 2000,
    column: Annotated[float, Range(-3.0, 3.0)] = 0.7,
    seed: int = 0,
) -> Recording:
    """n points of a plane law counted in cells of 8 down to 0.13 wide: the joint, both margins, p(y|x) in one column.

    p̂ = (n(x, y)/n)/area; its error is √∫(p̂ − p)², over 20 samples of n points. Parameters: ``n``; ``column``, the x
    whose bin is looked into. Raises UsageError for a value out of its range. Source: Scott (1979).

    >>> from mulligan.lab.experiments.counting import counting
    >>> counting(n=200, seed=1).holds
    True
    """
    law = plane_law()
    samples = _samples(law, n, seed)
    grid = np.stack(np.meshgrid(_CENTRES, _CENTRES), axis=-1).reshape(-1, 2)
    places = jnp.asarray(grid), jnp.asarray(_CENTRES[:, None]), jnp.asarray([column])
    tables = [Histogram.from_rows(samples[0], edges_of(k)) for k in CELLS]
    found = [_counted(table, jnp.asarray([column])) for table in tables]
    empty = [not np.isfinite(each[3]).all() for each in found]  # nothing to count inside that bin
    joint, p_x, p_y, inside = (np.nan_to_num(np.stack(parts)) for parts in zip(*found))
    masses, square = masses_of(law)
    losses = np.stack([square_errors(samples, k, masses, square) for k in CELLS], axis=1)  # (samples, widths)
    return Recording(
        panels=(
            *_panels(samples[0], joint, p_x, p_y, inside, _truth(law, *places), column),
            _errors(losses, n, masses, square),
        ),
        captions=tuple(_caption(table, k, column) for table, k in zip(tables, CELLS)),
        see="Wide cells blur the density, narrow cells stand empty; the best width lies between.",
        numbers=_numbers(tables, losses),
        checks=_checks(joint, p_x, inside, losses, n, masses, square, column, empty),
        rate=1.5,
    )


def _samples(law: GaussianMixture, n: int, seed: int) -> np.ndarray:
    """(20, n, 2): draws of the law, of which those outside the picture are drawn again."""
    spare = SAMPLES * n + 100
    rows = np.asarray(_draw(law, jax.random.key(seed), spare))
    return rows[np.abs(rows).max(axis=1) < REACH][: SAMPLES * n].reshape(SAMPLES, n, 2)


def _steps(values: np.ndarray) -> np.ndarray:
    return np.repeat(values, 2, axis=-1)


def _panels(
    rows: np.ndarray, joint: np.ndarray, p_x: np.ndarray, p_y: np.ndarray, inside: np.ndarray, truth: Any, column: float
) -> tuple[Panel, ...]:
    p, true_x, true_y, true_inside = (np.asarray(part)[None] for part in truth)
    ends = np.linspace(-REACH, REACH, PIXELS + 1)
    x = np.repeat(ends, 2)[1:-1]  # both ends of every pixel, so that cells are drawn as steps
    bins = np.array([np.searchsorted(np.linspace(-REACH, REACH, k + 1), column, side="right") - 1 for k in CELLS])
    left = -REACH + bins * 2 * REACH / np.array(CELLS)
    right = left + 2 * REACH / np.array(CELLS)
    bounds = np.stack([np.stack([side, level], axis=-1) for side in (left, right) for level in _LEVELS], axis=1)
    spread = Scale("x (cm)", -REACH, REACH), Scale("y (cm)", -REACH, REACH)
    most = 1.25 * float(p.max())
    plane = (
        Field("p̂(x, y) (1/cm²)", _CENTRES, _CENTRES, joint, low=0.0, high=most, scale_bar=True),
        Points("300 of the points", rows[None, :DRAWN], role="data", size=2.5),
        Points("edges of the column", bounds, role="mark", size=1.6, opacity=1.0),
    )
    margins = (
        Curve("true p(x)", _CENTRES, true_x, role="data", dashed=True),
        Curve("p̂(x) from n(x)", x, _steps(p_x)),
        Curve("true p(y)", _CENTRES, true_y, role="ink", dashed=True),
        Curve("p̂(y) from n(y)", x, _steps(p_y), role="second"),
    )
    one = (
        Curve("true p(y | x)", _CENTRES, true_inside, role="data", dashed=True),
        Curve("p̂(y | x) in the column", x, _steps(inside), role="mark"),
    )
    top = 1.1 * float(max(p_x[-1].max(), p_y[-1].max()))
    high = 2.2 * float(true_inside.max())
    return (
        Panel("joint: n(x, y) / n / area", *spread, plane, square=True, legend=False),
        Panel(
            "margins: projections",
            Scale("x or y (cm)", -REACH, REACH),
            Scale("density (1/cm)", 0.0, top * 1.4),
            margins,
        ),
        Panel("conditional: the orange column only", spread[1], Scale("density (1/cm)", 0.0, high), one),
    )


_LEVELS = [np.full(len(CELLS), level) for level in np.linspace(-REACH, REACH, 41)]


def _errors(losses: np.ndarray, n: int, masses: np.ndarray, square: float) -> Panel:
    """√∫(p̂ − p)² against the number of cells a side, of which frame t marks its own."""
    widths, root = np.array(CELLS, float), np.sqrt(losses)
    average, error = mean_and_error(root)
    theory = np.sqrt([expected_square_error(n, k, masses, square) for k in CELLS])
    measured, most = np.stack([widths, average], axis=-1), 1.5 * float(average.max())
    layers = (
        Curve(
            f"measured, {SAMPLES} samples",
            widths,
            average[None],
            low=(average - 1.96 * error)[None],
            high=(average + 1.96 * error)[None],
            dots=True,
        ),
        Curve("expected, closed form", widths, theory[None], role="ink", dashed=True),
        Points("the cells of this frame", measured[:, None], role="mark", size=9.0),
    )
    return Panel(
        "distance from the true density",
        Scale("cells a side", 0.0, 62.0),
        Scale("√∫(p̂ − p)² (1/cm)", 0.0, most),
        layers,
    )


def _caption(table: Histogram, cells: int, column: float) -> str:
    counts = np.asarray(table.counts)
    k = int(np.searchsorted(np.asarray(table.edges[0]), column, side="right")) - 1
    empty, width = int((counts == 0).sum()), 2 * REACH / cells
    said = f"{cells} × {cells} cells, {width:.2f} cm wide: {empty} of {cells * cells} are empty; "
    return said + f"the orange column holds n(x) = {counts[k].sum()} of {counts.sum()} points."


def _numbers(tables: list[Histogram], losses: np.ndarray) -> dict[str, tuple[Quantity, ...]]:
    average, error = mean_and_error(np.sqrt(losses))
    share = [float((np.asarray(table.counts) == 0).mean()) for table in tables]
    return {
        "√∫(p̂ − p)²": tuple(
            Quantity(float(m), "exact", float(m), float(m), unit="1/cm")  # one cell: every point is in it
            if k == 1
            else Quantity(
                float(m), "estimate", float(m - T * s), float(m + T * s), stderr=float(s), n=SAMPLES, unit="1/cm"
            )
            for m, s, k in zip(average, error, CELLS)
        ),
        "share of empty cells": tuple(Quantity(each, "exact", each, each) for each in share),
    }


def _checks(
    joint: np.ndarray,
    p_x: np.ndarray,
    inside: np.ndarray,
    losses: np.ndarray,
    n: int,
    masses: np.ndarray,
    square: float,
    column: float,
    empty: list[bool],
) -> dict[str, Any]:
    """The product, the error's expectation, and that the best width is neither the widest nor the narrowest."""
    pixel = int(np.clip((column + REACH) / (2 * REACH) * PIXELS, 0, PIXELS - 1))
    both = joint[:, :, pixel]
    kept = ~np.array(empty)
    expected = np.array([expected_square_error(n, k, masses, square) for k in CELLS])
    average, error = mean_and_error(losses)
    best = int(average.argmin())
    gaps = losses[:, [0, -1]] - losses[:, [best]]
    gap, gap_error = mean_and_error(gaps)
    moving = slice(1, None)  # with one cell the error is a constant: every point is in it
    return {
        "p(x, y) = p(x) p(y | x) in every cell of the column": rounding(
            {"product": (both[kept], (p_x[:, pixel, None] * inside)[kept])}
        ),
        "the mean of ∫(p̂ − p)² is variance + squared bias": monte_carlo(
            {"each width": (average[moving], expected[moving], error[moving])}
        ),
        "the best width is neither the widest nor the narrowest": rounding(
            {"5 standard errors better than both": (np.where(gap > 5 * gap_error, 1.0, 0.0), 1.0)}
        ),
    }
