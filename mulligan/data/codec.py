"""Rows to vectors and back, with the log-Jacobian of every row: NumPy, float64.

Definition. A model lives on R^d. A continuous value v becomes z = (T(v) − m)/s, so log p(v) = log p(z) + log |dz/dv|. A
discrete value owns a cell C_v of R (or of R^{K−1} for K categories), cells tile the space, and P(v) = ∫_{C_v} p(z) dz is
bounded from below by draws u_k ~ q(·|v) inside the cell: E log (1/M Σ_k p(u_k)/q(u_k|v)) ≤ log P(v) (Burda et al. 2016;
Hoogeboom et al. 2021 for categories). As the cells tile the space, Σ_v P(v) = 1 and no scheme of ours can exceed it.

The draws of a row are a Latin hypercube that is hashed from the row, so scoring is deterministic, each draw is uniform,
and in every coordinate 16 of them hit each sixteenth of the cell once (McKay, Beckman and Conover 1979).

Cells. A grid value owns the interval half-way to its neighbours. A cap owns everything beyond it (the data were
censored there), and is dequantised over a width that gives it the column's average density. No cell leaves the support
of the column's transform: the outermost grid value inside owns all as far as the support's end. A category with share s_k is
found by sticks: y_1 ≥ t_1 is the first, otherwise y_2 ≥ t_2 the second, and so on, with thresholds that make each y_j
standard normal over the training rows; the coordinates that a category does not need are pure noise.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np

from mulligan.data.draws import row_uniforms
from mulligan.data.grid import has_cells, neighbours, snap, transform, untransform
from mulligan.data.support import outside_support, support
from mulligan.data.table import Column, ImageShape, Schema, Table

SCORING_DRAWS = 16
MOST_DRAWN = 1024  # numbers that are drawn to score one picture
_HALF_LOG_2PI = 0.9189385332046727
_EDGE = 1e-9  # keeps a draw strictly inside its cell
_CAP_MARGIN = 1e-3  # of a continuous cap's cell, left free at the end of the support, where a transform has no bound


class Encoded(NamedTuple):
    """``points`` (n, m, d) float64: m draws for each row. ``log_jacobian`` (n, m): add it to log p(z). ``given`` (n, g)
    is what each row is conditioned on, or None. ``missing`` (n, d) marks the coordinates of empty cells, which are NaN."""

    points: np.ndarray
    log_jacobian: np.ndarray
    given: np.ndarray | None = None
    missing: np.ndarray | None = None

    @property
    def flat(self) -> np.ndarray:
        """All draws as rows of one float32 matrix (n·m, d), each row's draws together."""
        n, m, d = self.points.shape
        return self.points.reshape(n * m, d).astype(np.float32)

    @property
    def flat_given(self) -> np.ndarray | None:
        """What each row of ``flat`` is conditioned on, float32 (n·m, g), or None."""
        if self.given is None:
            return None
        return np.repeat(self.given, self.points.shape[1], axis=0).astype(np.float32)

    def thinned(self, most: int) -> Encoded:
        """So many of each row's draws, from the first, that there are about ``most`` points; every row is kept."""
        n, m, _ = self.points.shape
        kept = max(1, min(m, most // max(n, 1)))
        return self._replace(points=self.points[:, :kept], log_jacobian=self.log_jacobian[:, :kept])


@dataclass(frozen=True)
class Part:
    """What one column needs beyond its schema, learned on the training rows.

    ``start`` and ``width`` place it in R^d; ``mean`` and ``scale`` standardise it; ``low_width`` and ``high_width`` are
    the widths over which caps are dequantised; ``shares`` the categories' training shares (with one row added to each).
    """

    start: int
    width: int
    mean: float = 0.0
    scale: float = 1.0
    low_width: float = 0.0
    high_width: float = 0.0
    shares: tuple[float, ...] = ()


@dataclass(frozen=True)
class Codec:
    """Maps rows of a schema to R^d and back; made by ``fit_codec``, saved as JSON.

    ``encode`` gives points and log-Jacobians, ``decode`` gives valid rows: on the grid, categories among the levels,
    values beyond a cap at the cap.
    """

    schema: Schema
    parts: tuple[Part, ...]

    @property
    def dim(self) -> int:
        """d, the number of coordinates."""
        return sum(part.width for part in self.parts)

    @property
    def given_dim(self) -> int:
        """0: nothing is given."""
        return 0

    @property
    def dequantises(self) -> bool:
        """Whether any column has a probability or a cap, so that log p of a row is a lower bound."""
        return any(has_cells(column) for column in self.schema.modelled)

    def encode(self, values: np.ndarray, draws: int | None = None, salt: int | np.ndarray = 0) -> Encoded:
        """Points (n, m, d) and log-Jacobians (n, m) of rows (n, columns).

        m is ``draws`` (16 unless told; fewer for pictures of more than 64 pixels) where anything is dequantised, else 1.
        The draws depend on the row's values and on ``salt`` only, which is one integer or one a row (n,): training gives
        equal rows different draws. An empty cell (NaN) has NaN in its coordinates and adds no Jacobian.
        """
        values = np.asarray(values, np.float64)
        empty = np.isnan(values)
        if hollow := bool(empty.any()):
            values = np.where(empty, self.decode(np.zeros((1, self.dim))), values)  # any valid value, taken out below
        m = (draws or self._scoring_draws) if self.dequantises else 1
        uniforms = row_uniforms(values, m, self.dim, salt) if self.dequantises else None
        if uniforms is not None and self.schema.image is not None and self.schema.image.levels > 2:
            return self._encode_pixels(values, uniforms)
        points = np.empty((len(values), m, self.dim))
        log_jacobian = np.zeros((len(values), m))
        for j, (column, part) in enumerate(zip(self.schema.modelled, self.parts)):
            place = slice(part.start, part.start + part.width)
            u = None if uniforms is None else uniforms[:, :, place]
            if column.kind in ("binary", "categorical"):
                points[:, :, place], extra = _encode_levels(part, values[:, j].astype(int), u)
            else:
                points[:, :, part.start], extra = _encode_number(column, part, values[:, j], u, m)
            log_jacobian += np.where(empty[:, j, None], 0.0, extra) if hollow else extra
        if not hollow:
            return Encoded(points, log_jacobian)
        missing = np.repeat(empty, [part.width for part in self.parts], axis=1)
        return Encoded(np.where(missing[:, None, :], np.nan, points), log_jacobian, missing=missing)

    @property
    def _scoring_draws(self) -> int:
        """16; fewer for large pictures, where further draws cost much and tighten the bound by little."""
        return SCORING_DRAWS if self.schema.image is None else max(1, min(SCORING_DRAWS, MOST_DRAWN // self.dim))

    def _encode_pixels(self, values: np.ndarray, uniforms: np.ndarray) -> Encoded:
        """All columns at once, for those of a picture: each level owns an interval of width 1. Overwrites ``uniforms``."""
        mean, scale = np.array([(part.mean, part.scale) for part in self.parts]).T
        uniforms += (values - 0.5 - mean)[:, None, :]
        uniforms /= scale
        return Encoded(uniforms, np.full(uniforms.shape[:2], -np.log(scale).sum()))

    def decode(self, points: np.ndarray) -> np.ndarray:
        """Valid rows (n, columns) from points (n, d)."""
        points = np.asarray(points, np.float64)
        if self.schema.image is not None and self.schema.image.levels > 2:
            mean, scale = np.array([(part.mean, part.scale) for part in self.parts]).T
            return np.clip(np.rint(points * scale + mean), 0.0, self.schema.image.levels - 1.0) + 0.0
        rows = np.empty((len(points), len(self.parts)))
        for j, (column, part) in enumerate(zip(self.schema.modelled, self.parts)):
            place = points[:, part.start : part.start + part.width]
            is_level = column.kind in ("binary", "categorical")
            rows[:, j] = _decode_levels(part, place) if is_level else decode_number(column, part, place[:, 0])
        return rows

    def slopes(self, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """dz/dv and d log|dz/dv|/dv of every entry (n, columns), for columns that have a density."""
        slope, bend = np.ones(values.shape), np.zeros(values.shape)
        for j, (column, part) in enumerate(zip(self.schema.modelled, self.parts)):
            v = values[:, j]
            if column.transform == "log":
                slope[:, j], bend[:, j] = 1 / v, -1 / v
            elif column.transform == "logit":
                slope[:, j], bend[:, j] = 1 / v + 1 / (1 - v), -1 / v + 1 / (1 - v)
            slope[:, j] /= part.scale
        return slope, bend

    def to_json(self) -> dict[str, Any]:
        """Everything as plain numbers and strings, for ``schema.json``."""
        columns = [asdict(column) for column in self.schema.columns]
        image = {} if self.schema.image is None else {"image": asdict(self.schema.image)}
        return {"columns": columns, "parts": [asdict(part) for part in self.parts], **image}

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> Codec:
        """The inverse of ``to_json``; KeyError or TypeError where the fields are not ours."""

        def column(entry: dict[str, Any]) -> Column:
            return Column(**{**entry, "atoms": tuple(entry["atoms"]), "levels": tuple(entry["levels"])})

        image = ImageShape(**fields["image"]) if "image" in fields else None
        schema = Schema(tuple(column(entry) for entry in fields["columns"]), image)
        parts = tuple(Part(**{**entry, "shares": tuple(entry["shares"])}) for entry in fields["parts"])
        return cls(schema, parts)


def fit_codec(train: Table) -> Codec:
    """The codec of a table's schema, standardised by these (training) rows."""
    if train.schema.image is not None and train.schema.image.levels > 2:
        return Codec(train.schema, _pixel_parts(train.values))
    parts: list[Part] = []
    start = 0
    for j, column in enumerate(train.schema.modelled):
        part = fit_part(column, train.values[:, j], start)
        parts.append(part)
        start += part.width
    return Codec(train.schema, tuple(parts))


def _pixel_parts(values: np.ndarray) -> tuple[Part, ...]:
    """One mean and one scale for all pixels of a picture: a convolution means the same everywhere only then.

    1/12 is the variance of the dequantisation.
    """
    mean, scale = float(values.mean()), float(np.sqrt(values.var() + 1 / 12))
    return tuple(Part(j, 1, mean, scale, 1.0, 1.0) for j in range(values.shape[1]))


def fit_part(column: Column, values: np.ndarray, start: int) -> Part:
    """What is learned of one column from its training values (empty ones aside); ``start`` is its first coordinate."""
    values = values[~np.isnan(values)]
    if column.kind in ("binary", "categorical"):
        counts = np.bincount(values.astype(int), minlength=len(column.levels)) + 1.0
        return Part(start, len(column.levels) - 1, shares=tuple(counts / counts.sum()))
    inner = np.ones(len(values), bool)
    for cap in (column.low_cap, column.high_cap):
        if cap is not None:
            inner &= values != cap
    spread = np.ptp(values[inner]) if inner.any() else 1.0
    floor = column.step or max(1e-6 * spread, 1e-300)

    def cap_width(cap: float | None) -> float:
        return 0.0 if cap is None else max(floor, float((values == cap).mean()) * spread)

    part = Part(start, 1, low_width=cap_width(column.low_cap), high_width=cap_width(column.high_cap))
    n = len(values)
    spaced = ((np.arange(n) * 0.6180339887498949) % 1.0)[:, None, None]  # evenly spread draws, for the moments only
    latent, _ = _encode_number(column, part, values, spaced, 1)
    mean, scale = float(latent.mean()), float(latent.std())
    return Part(start, 1, mean, scale if scale > 0 else 1.0, part.low_width, part.high_width)


# --- numbers -----------------------------------------------------------------------------------------------------------


def standardise(column: Column, part: Part, raw: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """z = (T(v) − mean)/scale of numbers v, and log |dz/dv|; same shape."""
    latent, log_slope = transform(column, raw)
    return (latent - part.mean) / part.scale, log_slope - np.log(part.scale)


def decode_number(column: Column, part: Part, latent: np.ndarray) -> np.ndarray:
    """The valid value whose cell holds z."""
    return snap(column, untransform(column, latent * part.scale + part.mean))


def _encode_number(
    column: Column, part: Part, values: np.ndarray, u: np.ndarray | None, m: int
) -> tuple[np.ndarray, np.ndarray]:
    """z (n, m) and log of (cell width · |dz/dv|) (n, m)."""
    if u is None or not has_cells(column):
        raw = np.repeat(values[:, None], m, axis=1)
        log_width = np.zeros_like(raw)
    else:
        low, high = _cells(column, part, values)
        inside = np.clip(u[:, :, 0], _EDGE, 1 - _EDGE)
        width = (high - low)[:, None]
        raw = low[:, None] + width * inside
        # A value without a cell (continuous, not at a cap) has width 0: it is a density, and adds nothing.
        log_width = np.where(width > 0, np.log(np.where(width > 0, width, 1.0)), 0.0) + np.zeros_like(raw)
    latent, log_slope = standardise(column, part, raw)
    return latent, log_width + log_slope


def _cells(column: Column, part: Part, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Lower and upper edge of each value's cell; both the value itself where it has none."""
    below, above = neighbours(column, values)
    low, high = (below + values) / 2, (values + above) / 2
    least, greatest = support(column)
    if column.step:
        low = np.where(outside_support(column, below), least, low)
        high = np.where(outside_support(column, above), greatest, high)
    margin = 0.0 if column.step else _CAP_MARGIN
    if column.high_cap is not None:
        bound = greatest - margin * (greatest - low) if np.isfinite(greatest) else greatest
        high = np.where(values == column.high_cap, np.minimum(low + part.high_width, bound), high)
    if column.low_cap is not None:
        bound = least + margin * (high - least) if np.isfinite(least) else least
        low = np.where(values == column.low_cap, np.maximum(high - part.low_width, bound), low)
    return low, high


# --- categories --------------------------------------------------------------------------------------------------------


def _sticks(part: Part) -> tuple[np.ndarray, np.ndarray]:
    """Thresholds t_j and the mass m_j = P(y_j ≥ t_j): the share of category j among those not yet taken."""
    from scipy.special import ndtri

    shares = np.asarray(part.shares)
    left = 1.0 - np.concatenate([[0.0], np.cumsum(shares[:-2])])
    mass = np.clip(shares[:-1] / np.maximum(left, 1e-300), 1e-12, 1 - 1e-12)
    return ndtri(1 - mass), mass


def _encode_levels(part: Part, codes: np.ndarray, u: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """y (n, m, K−1) in the category's cell, and −log q(y | category) (n, m)."""
    from scipy.special import ndtri

    if u is None:
        raise ValueError("categories need uniform draws")
    _, mass = _sticks(part)
    j = np.arange(part.width)
    before = (j < codes[:, None])[:, None, :]
    at = (j == codes[:, None])[:, None, :]
    # y = Φ⁻¹(p) with p uniform on (0, 1 − m_j) before the category's own stick, on (1 − m_j, 1) at it, on (0, 1) after
    p = np.where(before, u * (1 - mass), np.where(at, 1 - mass + u * mass, u))
    y = ndtri(np.clip(p, 1e-12, 1 - 1e-12))
    log_mass = np.where(before, np.log1p(-mass), np.where(at, np.log(mass), 0.0))
    log_q = -0.5 * y**2 - _HALF_LOG_2PI - log_mass
    return y, -log_q.sum(2)


def _decode_levels(part: Part, y: np.ndarray) -> np.ndarray:
    """The first stick that y reaches, or the last category."""
    thresholds, _ = _sticks(part)
    reached = y >= thresholds
    return np.where(reached.any(1), reached.argmax(1), part.width)
