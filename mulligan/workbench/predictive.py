"""Predictive laws of one number for many rows: mixtures of normals behind a codec, or draws.

Definition. With z the column's coordinate, p(z | x) = Σ_c w_c N(z; m_c, s_c²) over components c, which are the parts of a
mixture under each of the row's candidates. A value v without a cell has the density p(z)|dz/dv|, one with a cell (on a
grid, at a cap) the probability ∫_cell p(z) dz; a cap's cell reaches to infinity.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import log_ndtr, ndtr

from mulligan.data.codec import Codec, Part, decode_number, standardise
from mulligan.data.grid import neighbours, untransform
from mulligan.data.native import is_cell
from mulligan.data.support import support
from mulligan.data.table import Column
from mulligan.errors import UsageError
from mulligan.models.incomplete import MixtureForm, candidates_for, chunks, log_joint, pattern_law, patterns_of

_NODES = 32  # of Gauss and Hermite, for the moments of a column that is not plainly linear in its coordinate
_BISECTIONS = 60
_HALF_LOG_2PI = 0.9189385332046727


@dataclass(frozen=True)
class NormalMixtures:
    """A mixture of normals for each row, in the coordinate of ``column``: ``log_weights``, ``means``, ``sds`` (n, C)."""

    column: Column
    part: Part
    log_weights: np.ndarray
    means: np.ndarray
    sds: np.ndarray

    def cdf_at(self, z: np.ndarray) -> np.ndarray:
        """P(Z ≤ z) of each row, (n,)."""
        with np.errstate(invalid="ignore"):
            return (np.exp(self.log_weights) * ndtr((z[:, None] - self.means) / self.sds)).sum(axis=1)

    def moments(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation of the value, (n,) each: exact where it is linear in z, else by Gauss and Hermite."""
        weights = np.exp(self.log_weights)
        plain = self.column.transform == "none" and self.column.low_cap is None and self.column.high_cap is None
        if plain:
            mean = (weights * self.means).sum(axis=1)
            variance = (weights * (self.sds**2 + (self.means - mean[:, None]) ** 2)).sum(axis=1)
            return mean * self.part.scale + self.part.mean, np.sqrt(variance) * self.part.scale
        nodes, shares = np.polynomial.hermite_e.hermegauss(_NODES)
        shares = shares / shares.sum()
        first, second = np.zeros(len(weights)), np.zeros(len(weights))
        centre = self._value(np.sum(weights * self.means, axis=1))
        for node, share in zip(nodes, shares):
            v = self._value(self.means + node * self.sds) - centre[:, None]
            first += share * (weights * v).sum(axis=1)
            second += share * (weights * v**2).sum(axis=1)
        return centre + first, np.sqrt(np.maximum(second - first**2, 0.0))

    def quantile(self, p: float) -> np.ndarray:
        """The valid value at the p-quantile, (n,), by bisection."""
        low = (self.means - 12 * self.sds).min(axis=1)
        high = (self.means + 12 * self.sds).max(axis=1)
        for _ in range(_BISECTIONS):
            middle = 0.5 * (low + high)
            below = self.cdf_at(middle) < p
            low, high = np.where(below, middle, low), np.where(below, high, middle)
        return decode_number(self.column, self.part, 0.5 * (low + high))

    def log_prob(self, truth: np.ndarray) -> np.ndarray:
        """log p of each row's value (n,), NaN where it is NaN: a density, or the probability of its cell."""
        there = np.flatnonzero(~np.isnan(truth))
        found = np.full(len(truth), np.nan)
        rows, v = self.rows(there), truth[there]
        z, log_slope = standardise(self.column, self.part, v)
        scaled = (z[:, None] - rows.means) / rows.sds
        density = np.logaddexp.reduce(rows.log_weights - 0.5 * scaled**2 - np.log(rows.sds) - _HALF_LOG_2PI, axis=1)
        low, high = rows._edges(v)
        cell = rows._log_probability(low, high)
        found[there] = np.where(is_cell(self.column, v), cell, density + log_slope)
        return found

    def pit(self, truth: np.ndarray) -> np.ndarray:
        """P(Z ≤ z) at each value, at the middle of the probability of its cell where it has one, (n,)."""
        there = np.flatnonzero(~np.isnan(truth))
        found = np.full(len(truth), np.nan)
        rows, v = self.rows(there), truth[there]
        low, high = rows._edges(v)
        found[there] = 0.5 * (rows.cdf_at(low) + rows.cdf_at(high))
        return found

    def rows(self, index: np.ndarray) -> NormalMixtures:
        """The same for these rows only."""
        leaves = (self.log_weights[index], self.means[index], self.sds[index])
        return NormalMixtures(self.column, self.part, *leaves)

    def _value(self, z: np.ndarray) -> np.ndarray:
        """The value at z, not rounded to the grid, but never beyond a cap."""
        v = untransform(self.column, z * self.part.scale + self.part.mean)
        return np.clip(v, self.column.low_cap, self.column.high_cap) if self._capped else v

    @property
    def _capped(self) -> bool:
        return self.column.low_cap is not None or self.column.high_cap is not None

    def _edges(self, v: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Ends of each value's cell in z: infinite beyond caps and the support; the value itself where it has none."""
        below, above = neighbours(self.column, v)
        ends, least_greatest = [(below + v) / 2, (v + above) / 2], support(self.column)
        out = []
        for side, (end, bound) in enumerate(zip(ends, least_greatest)):
            cap = (self.column.low_cap, self.column.high_cap)[side]
            inside = np.clip(end, *np.nextafter(least_greatest, least_greatest[::-1]))
            z = standardise(self.column, self.part, np.where(np.isfinite(end), inside, v))[0]
            beyond = (end <= bound) if side == 0 else (end >= bound)
            beyond = beyond & np.isfinite(bound) | ~np.isfinite(end)
            beyond = beyond | (False if cap is None else v == cap)
            out.append(np.where(beyond, (-np.inf, np.inf)[side], z))
        return out[0], out[1]

    def _log_probability(self, low: np.ndarray, high: np.ndarray) -> np.ndarray:
        """log P(low < Z ≤ high) without cancellation: taken on the side of the mean where both tails are small."""
        a, b = (low[:, None] - self.means) / self.sds, (high[:, None] - self.means) / self.sds
        flip = a > 0
        a, b = np.where(flip, -b, a), np.where(flip, -a, b)
        with np.errstate(divide="ignore", invalid="ignore"):
            upper, lower = log_ndtr(b), log_ndtr(a)
            log_mass = upper + np.log1p(-np.exp(np.minimum(lower - upper, 0.0)))
            return np.logaddexp.reduce(self.log_weights + np.where(np.isnan(log_mass), -np.inf, log_mass), axis=1)


@dataclass(frozen=True)
class Draws:
    """Sorted draws (M, n) of each row's value."""

    draws: np.ndarray

    def moments(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation, (n,) each."""
        return self.draws.mean(axis=0), self.draws.std(axis=0, ddof=1)

    def quantile(self, p: float) -> np.ndarray:
        """The draw of rank ⌈p (M + 1)⌉, (n,): a fresh value of the same law lies below it with that probability."""
        many = len(self.draws)
        return self.draws[int(np.clip(np.rint(p * (many + 1)), 1, many)) - 1]

    def log_prob(self, truth: np.ndarray) -> np.ndarray:
        """Raises UsageError: draws have no density."""
        raise UsageError(
            "log p(y | x) is not known", why="This model's predictions are draws", do="a family with density"
        )

    def pit(self, truth: np.ndarray) -> np.ndarray:
        """The middle of a value's ranks among the draws, as a share, (n,); NaN where it is NaN."""
        ranks = ((self.draws < truth).sum(axis=0) + 0.5 * (self.draws == truth).sum(axis=0) + 0.5) / (
            len(self.draws) + 1
        )
        return np.where(np.isnan(truth), np.nan, ranks)


def normal_mixtures(codec: Codec, form: MixtureForm, known: np.ndarray, j: int) -> NormalMixtures:
    """The law of the j-th column given what each row of ``known`` (n, columns; NaN where unknown, as in column j) shows.

    Discrete known cells are candidates u_m in them: p(z | x) = Σ_m ω_m p(z | u_m), ω_m ∝ p(u_m)/q(u_m).
    """
    place, parts = codec.parts[j].start, len(form.means)
    encoded = codec.encode(known, candidates_for(parts))
    n, m, _ = encoded.points.shape
    shape = (n, m * parts)
    log_weights, means, sds = np.empty(shape), np.empty(shape), np.empty(shape)
    missing = encoded.missing if encoded.missing is not None else np.zeros((n, codec.dim), bool)
    for pattern in patterns_of(missing):
        law = pattern_law(form, pattern.observed, pattern.unknown)
        at = int(np.flatnonzero(pattern.unknown == place)[0])
        spread = np.sqrt((law.factor[:, at] ** 2).sum(axis=1))
        for rows in chunks(pattern.rows, form, m):
            x = encoded.points[np.ix_(rows, np.arange(m), pattern.observed)].reshape(len(rows) * m, -1)
            joint = log_joint(law, x).reshape(len(rows), m, parts) + encoded.log_jacobian[rows][:, :, None]
            flat = joint.reshape(len(rows), -1)
            log_weights[rows] = flat - np.logaddexp.reduce(flat, axis=1)[:, None]
            slopes = np.einsum("ko,koi->ki", law.gain[:, at], law.whiten)
            start = law.unknown_means[:, at] - (law.gain[:, at] * law.centres).sum(axis=1)
            centre = x @ slopes.T + start
            means[rows] = centre.reshape(len(rows), m * parts)
            sds[rows] = np.broadcast_to(spread, (len(rows), m, parts)).reshape(len(rows), -1)
    return NormalMixtures(codec.schema.modelled[j], codec.parts[j], log_weights, means, sds)
