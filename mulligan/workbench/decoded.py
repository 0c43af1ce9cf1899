"""What is known of the columns of a vae, in the coordinates of its decoder, and the columns drawn given z and that.

Definition. Given z each column has its own law: normal, logistic over cells, or a category. A column of which nothing is
known is drawn from it, one in an interval from what the interval leaves of it, and a known one is as it is.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy.special import expit, logit

from mulligan.data.codec import standardise
from mulligan.data.grid import has_cells
from mulligan.data.native import NativeCodec, is_category
from mulligan.data.regions import cell_edges
from mulligan.data.support import support
from mulligan.data.table import Schema
from mulligan.loop import compile_small
from mulligan.measures.likelihood import in_blocks
from mulligan.models.boxes import cut, truncated
from mulligan.models.heads import number_laws
from mulligan.models.vae import VAE


class Ends(NamedTuple):
    """Of coordinates of ``NativeCodec`` (n, columns): ``low`` and ``high`` are z of the least and the greatest value that
    the evidence allows, equal where known, infinite where open; ``start`` and ``end`` where their cells end."""

    low: np.ndarray
    high: np.ndarray
    start: np.ndarray
    end: np.ndarray


def native_ends(codec: NativeCodec, values: np.ndarray, ranges: dict[str, tuple[float, float]] | None = None) -> Ends:
    """What rows (n, columns; NaN in unknown cells) and ranges say of each coordinate of a native codec.

    >>> from mulligan.data.codec import Part
    >>> from mulligan.data.table import Column, Schema
    >>> codec = NativeCodec(Schema((Column("i", "integer", step=1.0),)), (Part(0, 1, mean=1.0, scale=2.0),))
    >>> native_ends(codec, np.array([[np.nan]]), {"i": (3.0, np.inf)})[:3]
    (array([[1.]]), array([[inf]]), array([[0.75]]))
    """
    n = len(values)
    low, high = np.full(values.shape, -np.inf), np.full(values.shape, np.inf)
    start, end = low.copy(), high.copy()
    for j, (column, part) in enumerate(zip(codec.schema.modelled, codec.parts)):
        known = ~np.isnan(values[:, j])
        if column.name in (ranges or {}):
            least, greatest = support(column)
            for side, (out, edge) in enumerate(((low, start), (high, end))):
                bound = np.array([ranges[column.name][side]])  # type: ignore[index]
                edge[:, j] = cell_edges(codec, j, bound)[side]  # type: ignore[arg-type]
                if least < bound[0] < greatest:
                    out[:, j] = standardise(column, part, bound)[0] if has_cells(column) else edge[:, j]
        if known.any():
            v = values[known, j]
            low[known, j] = high[known, j] = v if is_category(column) else standardise(column, part, v)[0]
            start[known, j] = end[known, j] = low[known, j]
    return Ends(*(np.broadcast_to(each, (n, values.shape[1])) for each in (low, high, start, end)))


def with_numbers(codec: NativeCodec, values: np.ndarray) -> np.ndarray:
    """The rows (n, columns) with some valid value in cells that are NaN."""
    return np.where(np.isnan(values), codec.decode(np.zeros((1, codec.dim)))[0], values)


def columns_given(
    model: VAE, codec: NativeCodec, z: np.ndarray, ends: Ends, generator: np.random.Generator
) -> np.ndarray:
    """Points (n, m, columns) of p(x | z, evidence) for z (n, m, k): known columns as they are, others inside their ends."""
    n, m, k = z.shape
    laws = in_blocks(lambda block: _laws_block(model, block), z.reshape(n * m, k).astype(np.float32)).reshape(n, m, -1)
    columns = model.columns
    out = np.empty((n, m, columns.dim))
    at = 0
    for places, draw in ((columns.continuous, _normal), (columns.cells, _logistic)):
        c = len(places)
        for i, j in enumerate(places):
            mean, scale = laws[..., at + i], laws[..., at + c + i]
            a, b = (ends.start[:, None, j] - mean) / scale, (ends.end[:, None, j] - mean) / scale
            out[..., j] = mean + scale * draw(a, b, generator.random((n, m)))
        at += 2 * c
    levels = max(columns.levels, default=1)
    for i, j in enumerate(columns.categories):
        logits = laws[..., at + i * levels : at + (i + 1) * levels]
        out[..., j] = np.argmax(logits + generator.gumbel(size=logits.shape), axis=2)
    return np.where((ends.low == ends.high)[:, None], ends.low[:, None], out)


@compile_small
def _laws_block(model: VAE, block: Any) -> Any:
    def one(z: Any) -> Any:
        laws = model.laws(z)
        least = model.columns.least_scale(z.dtype)
        return jnp.concatenate(
            [*number_laws(laws.densities), *number_laws(laws.probabilities, least), laws.logits.reshape(-1)]
        )

    return jax.vmap(one)(jnp.asarray(block))


def _normal(a: np.ndarray, b: np.ndarray, uniform: np.ndarray) -> np.ndarray:
    return truncated(*cut(a, b), uniform)


def _logistic(a: np.ndarray, b: np.ndarray, uniform: np.ndarray) -> np.ndarray:
    """A standard logistic number between a and b, by inversion on the side where no digits are lost."""
    flip = a > 0
    left, right = expit(np.where(flip, -b, a)), expit(np.where(flip, -a, b))
    e = logit(left + uniform * (right - left))
    return np.clip(np.where(flip, -e, e), a, b)


def within_ranges(schema: Schema, rows: np.ndarray, ranges: dict[str, tuple[float, float]] | None) -> np.ndarray:
    """Rows (…, columns) inside the ranges: a point on the edge of a cell may be the next one's."""
    for j, name in enumerate(schema.names):
        if name in (ranges or {}):
            rows[..., j] = np.clip(rows[..., j], *ranges[name])  # type: ignore[index]
    return rows
