"""How far apart the laws of two samples are: maximum mean discrepancy and sliced Wasserstein distance.

Definition. Both are norms ‖P − Q‖ of the difference of two laws. With a bounded kernel k, MMD² = ∬ k d(P−Q) d(P−Q)
(Gretton et al. 2012); the sliced Wasserstein distance is the mean over directions θ of ∫ |F_P(t) − F_Q(t)| dt, F being
the distribution functions of θ·x (Rabin et al. 2012; Bonneel et al. 2015). Two samples are the signed measure
ν̂ = Σ_i w_i δ(z_i), with w = 1/n at the n real points and −1/m at the m generated ones, so one function w ↦ ‖ν̂‖ says all:

- *p-value*: under equal laws every relabelling of the pooled points was as likely, so the rank of ‖ν̂‖ among relabelled
  ones is uniform, whatever the law (exact, not asymptotic; ties make it larger, never smaller).
- *interval*: a norm moves no further than its argument, | ‖ν̂‖ − ‖ν‖ | ≤ ‖ν̂ − ν‖, and the law of the right side is that
  of ‖ν* − ν̂‖ over bootstrap samples. Such an interval holds ‖ν‖ where the laws are equal, too, where a normal
  approximation fails. Far from 0 it is wider than need be.

THEORY ``game.wasserstein``: on one line the distance is ∫ |F − G|.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from mulligan.measures.space import median_distance
from mulligan.quantity import LEVEL, Quantity, none, wilson

LEAST_ROWS = 20  # of each: with fewer, hardly any difference could be seen
MOST_ROWS = 500  # of each: a sixth of a second
PERMUTATIONS = 199
RESAMPLINGS = 99
DIRECTIONS = 32
WIDEST = 4.0  # bandwidth in median distances; each further one is half as wide, so that its kernel is a fourth power
BANDWIDTHS = 5
ROUNDING = 1e-4  # of a statistic, by float32 sums: a relabelling that gives the same samples must count as a tie
LEAST_SQUARE = 5e-7  # an MMD² that float32 sums of this size cannot tell from 0


class Distance(NamedTuple):
    """``value`` is the distance with its 95 % interval, ``p_value`` the chance of one as large under equal laws.

    ``equal`` is the median distance of two samples of these sizes under equal laws: what a perfect model would show.
    """

    value: Quantity
    p_value: Quantity
    equal: float | None


class _Weights(NamedTuple):
    """Columns of signed weights over the pooled points: the sample (N, 1), relabelled (N, B), resampled (N, R)."""

    sample: np.ndarray
    relabelled: np.ndarray
    resampled: np.ndarray


def mmd(
    real: np.ndarray, generated: np.ndarray, seed: int, *, length: float | None = None, paired: bool = False
) -> Distance:
    """Maximum mean discrepancy of real (n, q) and generated (m, q) points, with interval and permutation p-value.

    The kernel is the mean of five Gaussian ones with bandwidths ¼, ½, 1, 2 and 4 times ``length`` (the median distance
    of all points; give that of training rows to compare several models). ``value`` is the root of the unbiased estimate
    of MMD² (0 where that is negative), between 0 and √2. The p-value is of the largest of the five single ones, each
    studentised over the relabellings (as in aggregated tests: Schrab et al. 2023), so no bandwidth has to be guessed.
    ``paired`` says that generated point i was drawn beside real point i (same given columns): labels are then swapped
    within pairs only. At most 500 of each are used. Kind ``estimate``; ``none`` below 20 points or where one is not
    finite.

    >>> rng = np.random.default_rng(0)
    >>> found = mmd(rng.normal(size=(200, 2)), rng.normal(size=(200, 2)) + 1.0, seed=0)
    >>> found.p_value.value, found.value.low > 0
    (0.005, True)
    """
    refused = _refused(real, generated)
    if refused:
        return Distance(none(refused, "MMD"), none(refused, "p"), None)
    rng = np.random.default_rng([seed, 211])
    real, generated = _some(real, generated, paired, rng)
    n, points = len(real), np.concatenate([real, generated])
    weights = _weights(n, len(generated), paired, rng)
    squares = _squares(points) / np.float32(2 * (length or median_distance(points)) ** 2)
    apart = np.concatenate([weights.sample, weights.relabelled], axis=1)
    kernel = np.exp(squares * np.float32(-1 / WIDEST**2))
    total, forms = kernel.copy(), [_quadratic(kernel, apart)]
    for _ in range(BANDWIDTHS - 1):
        np.square(np.square(kernel, out=kernel), out=kernel)
        forms.append(_quadratic(kernel, apart))
        total += kernel
    total /= BANDWIDTHS
    noise = np.sqrt(_quadratic(total, weights.resampled))
    squared = np.mean(forms, axis=0)
    plain = float(np.sqrt(squared[0]))
    value = float(np.sqrt(max(_unbiased(total, n, paired), 0.0)))
    studentised = np.array([_studentised(form) for form in forms]).max(axis=0)
    equal = float(np.sqrt(np.median(squared[1:])))
    note = f"Gaussian kernels, {n} real and {len(generated)} generated"
    stated = _stated(value, plain, noise, 2**0.5, len(points), "MMD", note)
    return Distance(stated, _p_value(studentised), equal)


def sliced_wasserstein(real: np.ndarray, generated: np.ndarray, seed: int, *, paired: bool = False) -> Distance:
    """Sliced Wasserstein distance of order 1 between real (n, q) and generated (m, q) points, in their unit.

    The mean of ∫ |F − G| over 32 fixed directions (evenly spaced in the plane), the same for every model, so that values
    of several models compare. ``value`` is that of the two samples, which is positive under equal laws, too: about
    ``equal``. The interval is of the distance of the laws along these directions. ``paired``, sizes and kinds are as in
    ``mmd``.

    >>> x = np.linspace(0.0, 1.0, 50)[:, None]
    >>> round(sliced_wasserstein(x, x + 2.0, seed=0).value.value, 4)
    2.0
    """
    refused = _refused(real, generated)
    if refused:
        return Distance(none(refused, "spreads"), none(refused, "p"), None)
    rng = np.random.default_rng([seed, 223])
    real, generated = _some(real, generated, paired, rng)
    weights = _weights(len(real), len(generated), paired, rng)
    points = np.concatenate([real, generated]) @ directions(real.shape[1]).T
    columns = np.concatenate(weights, axis=1)
    found = np.zeros(columns.shape[1])
    for along in points.T:
        order = np.argsort(along, kind="stable")
        gaps = np.diff(along[order]).astype(np.float32)
        found += gaps @ np.abs(np.cumsum(columns[order[:-1]], axis=0, dtype=np.float32))
    found /= points.shape[1]
    relabelled, noise = found[: 1 + PERMUTATIONS], found[1 + PERMUTATIONS :]
    plain, equal = float(found[0]), float(np.median(relabelled[1:]))
    note = f"{points.shape[1]} directions; equal laws give about {equal:.2g}"
    stated = _stated(plain, plain, noise, np.inf, len(points), "spreads", note)
    return Distance(stated, _p_value(relabelled), equal)


def directions(dim: int) -> np.ndarray:
    """The fixed unit vectors (k, dim) along which sliced distances are taken.

    >>> directions(1), directions(2).shape
    (array([[1.]]), (32, 2))
    """
    if dim == 1:
        return np.ones((1, 1))
    if dim == 2:
        angles = (np.arange(DIRECTIONS) + 0.5) * np.pi / DIRECTIONS
        return np.column_stack([np.cos(angles), np.sin(angles)])
    drawn = np.random.default_rng(dim).normal(size=(DIRECTIONS, dim))
    return np.asarray(drawn / np.linalg.norm(drawn, axis=1, keepdims=True))


def _refused(real: np.ndarray, generated: np.ndarray) -> str:
    fewest = min(len(real), len(generated))
    if fewest < LEAST_ROWS:
        return f"{fewest} rows are too few for a distance between samples"
    if not (np.isfinite(real).all() and np.isfinite(generated).all()):
        return "some samples are not finite"
    return ""


def _some(
    real: np.ndarray, generated: np.ndarray, paired: bool, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """At most MOST_ROWS of each, whole pairs together."""
    if paired:
        chosen = rng.permutation(min(len(real), len(generated)))[:MOST_ROWS]
        return real[chosen], generated[chosen]
    return real[rng.permutation(len(real))[:MOST_ROWS]], generated[rng.permutation(len(generated))[:MOST_ROWS]]


def _weights(n: int, m: int, paired: bool, rng: np.random.Generator) -> _Weights:
    sample = np.repeat([1.0 / n, -1.0 / m], [n, m])[:, None]
    if paired:
        signs = rng.choice([-1.0, 1.0], size=(n, PERMUTATIONS)) / n
        relabelled = np.concatenate([signs, -signs])
        counts = (rng.multinomial(n, np.full(n, 1 / n), RESAMPLINGS).T - 1) / n
        resampled = np.concatenate([counts, -counts])
    else:
        relabelled = rng.permuted(np.repeat(sample, PERMUTATIONS, axis=1), axis=0)
        of_real = (rng.multinomial(n, np.full(n, 1 / n), RESAMPLINGS).T - 1) / n
        of_generated = (rng.multinomial(m, np.full(m, 1 / m), RESAMPLINGS).T - 1) / m
        resampled = np.concatenate([of_real, -of_generated])
    return _Weights(*(part.astype(np.float32) for part in (sample, relabelled, resampled)))


def _squares(points: np.ndarray) -> np.ndarray:
    """Squared distances (N, N), float32; centred in float64 first, so that far-off data keep their digits."""
    centred = (points - points.mean(axis=0)).astype(np.float32)
    norms = np.einsum("nq,nq->n", centred, centred)
    squares = norms[:, None] + norms[None, :] - 2 * (centred @ centred.T)
    np.maximum(squares, 0, out=squares)
    np.fill_diagonal(squares, 0)
    return np.asarray(squares)


def _quadratic(kernel: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """wᵀ K w of each column w."""
    forms = np.einsum("nb,nb->b", columns, kernel @ columns, dtype=np.float64)
    return np.where(forms < LEAST_SQUARE, 0.0, forms)


def _unbiased(kernel: np.ndarray, n: int, paired: bool) -> float:
    """The unbiased estimate of MMD²: no point is compared with itself, nor with its pair."""
    m = len(kernel) - n
    real, generated, cross = kernel[:n, :n], kernel[n:, n:], kernel[:n, n:]
    within = (real.sum(dtype=np.float64) - n) / (n * (n - 1)) + (generated.sum(dtype=np.float64) - m) / (m * (m - 1))
    if paired:
        between = (cross.sum(dtype=np.float64) - np.trace(cross)) / (n * (n - 1))
    else:
        between = cross.sum(dtype=np.float64) / (n * m)
    return float(within - 2 * between)


def _studentised(form: np.ndarray) -> np.ndarray:
    """Statistics of all labellings, the sample's own among them, so that none is treated apart."""
    spread = float(form.std())
    return (form - form.mean()) / spread if spread > 0 else np.zeros_like(form)


def _p_value(statistics: np.ndarray) -> Quantity:
    """Rank of the first statistic among all: (1 + number of relabelled ones as large)/(1 + B)."""
    first = statistics[0]
    reached = int((statistics >= first - ROUNDING * (abs(first) + statistics.std())).sum())
    share = reached / len(statistics)
    low, high = wilson(share, len(statistics))
    note = f"{len(statistics) - 1} relabellings; the interval is of their number"
    return Quantity(share, "estimate", low, high, None, len(statistics) - 1, "p", note)


def _stated(value: float, plain: float, noise: np.ndarray, most: float, n: int, unit: str, note: str) -> Quantity:
    reach = float(np.sort(noise)[int(np.ceil(LEVEL * (len(noise) + 1))) - 1])
    low, high = max(0.0, plain - reach), min(most, plain + reach)
    return Quantity(value, "estimate", low, high, float(np.sqrt(np.mean(noise**2))), n, unit, note)
