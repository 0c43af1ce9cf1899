"""Chapter 1, counting: how fast a histogram learns.

Definition. With cells of width n^(−1/(d+2)), variance and squared bias of a histogram fall alike, and its L² error falls
as n^(−1/(d+2)): the price of d columns. The expectation over samples is closed form, for the counts are binomial, so the
rate is checked without a random number; one Monte-Carlo check ties that form to the library's histograms.
Identities: ``density.consistency``, ``density.consistency.sample``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from mulligan.lab.identities.counting import cells_of, densities
from mulligan.lab.identity import Check, Identity, mean_and_error, monte_carlo, order
from mulligan.targets.counting import Histogram


def cell_masses(cells: int, dim: int) -> np.ndarray:
    """P(cell) of the law Π_j (1 + 0.8 cos πx_j) on the unit cube cut into cells^dim equal cells; (cells^dim,).

    >>> float(cell_masses(4, 2).sum())
    1.0
    """
    ends = np.linspace(0.0, 1.0, cells + 1)
    one = np.diff(ends + 0.8 / np.pi * np.sin(np.pi * ends))
    return np.prod(np.meshgrid(*[one] * dim, indexing="ij"), axis=0).reshape(-1)


def mean_square_error(cells: int, n: int, dim: int) -> float:
    """E ∫(p̂ − p)² of the histogram with cells^dim cells of n draws of Π_j (1 + 0.8 cos πx_j), in closed form.

    Counts are binomial, so with cells of volume v it is the variance (1 − Σ P²)/(n v) plus the squared bias
    ∫p² − Σ P²/v, where ∫p² = 1.32^dim. (Scott 1979; Freedman and Diaconis 1981.)

    >>> round(mean_square_error(1, 100, 1), 4)  # one cell: no variance, and the bias is ∫(p − 1)²
    0.32
    """
    volume, square = cells**-dim, float((cell_masses(cells, dim) ** 2).sum())
    return (1 - square) / (n * volume) + 1.32**dim - square / volume


def _bias_forgotten(cells: int, n: int, dim: int) -> float:
    return (1 - float((cell_masses(cells, dim) ** 2).sum())) * cells**dim / n


def _wide(n: int, dim: int) -> int:
    return round(n ** (1 / (dim + 2)))


def _too_wide(n: int, dim: int) -> int:
    return round(n ** (1 / (dim + 3)))


def _consistency(seed: int, *, cells: Callable = _wide, norm: Callable = math.sqrt) -> Check:
    """√E ∫(p̂ − p)² falls as n^(−1/(d+2)) with cells of width n^(−1/(d+2)); d = 1, 2; no randomness, so ±0.02."""
    curves = {}
    for dim, widths in ((1, (16, 32, 64, 128, 256)), (2, (8, 16, 32, 64))):
        sizes = [k ** (dim + 2) for k in widths]
        errors = [norm(mean_square_error(cells(n, dim), n, dim)) for n in sizes]
        curves[f"d = {dim}"] = (sizes, errors, -1 / (dim + 2))
    return order(curves, deviation=0.02)


def _consistency_sample(
    seed: int, *, histogram: Any = Histogram, expected: Callable = mean_square_error, repeats: int = 150
) -> Check:
    """∫(p̂ − p)² of the library's histograms of fresh draws, averaged, against its expectation in closed form."""
    rng, pairs = np.random.default_rng(seed), {}
    fine = np.linspace(0.0, 1.0, 200_001)
    cdf = fine + 0.8 / np.pi * np.sin(np.pi * fine)
    for dim, cells in ((1, 8), (2, 4)):
        n, edges = cells ** (dim + 2), [np.linspace(0.0, 1.0, cells + 1)] * dim
        centres, volumes = cells_of(edges)
        masses, losses = cell_masses(cells, dim), []
        for _ in range(repeats):
            rows = np.interp(rng.uniform(size=(n, dim)), cdf, fine)
            p = densities(histogram.from_rows(rows, edges), centres)
            losses.append(p**2 @ volumes - 2 * p @ masses + 1.32**dim)
        average, error = mean_and_error(losses)
        pairs[f"d = {dim}"] = (average, expected(cells, n, dim), error)
    return monte_carlo(pairs)


IDENTITIES = (
    Identity(
        "density.consistency",
        1,
        "√E ∫(p̂ − p)² falls as n^(−1/(d+2)) with cells of width n^(−1/(d+2))",
        "order",
        _consistency,
        {"width n^(−1/(d+3))": {"cells": _too_wide}, "the squared error": {"norm": float}},
        "Scott 1979; Freedman and Diaconis 1981",
    ),
    Identity(
        "density.consistency.sample",
        1,
        "E ∫(p̂ − p)² = (1 − Σ P²)/(n v) + ∫p² − Σ P²/v",
        "monte-carlo",
        _consistency_sample,
        {"bias forgotten": {"expected": _bias_forgotten}},
        "Scott 1979",
    ),
)
