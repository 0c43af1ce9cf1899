"""Rows whose last columns in the order are empty: the exact marginal of an autoregressive model, and its exact draws.

Definition. log p(x_1 … x_k) = Σ_{j ≤ k} log p(x_j | x_1 … x_{j−1}) for the first k columns in the model's order: the
columns behind integrate to 1, so nothing is imputed and nothing approximated (identity ``relation.autoregressive``). Drawn
one after the other, the columns behind follow their law given the first k. Members of an ensemble weigh p_m(x_1 … x_k).
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from mulligan.data.given import ConditionalCodec
from mulligan.data.inspection import conform
from mulligan.data.native import NativeCodec
from mulligan.data.table import Frame
from mulligan.data.treatment import is_empty
from mulligan.errors import DataError, UsageError
from mulligan.loop import compile_small
from mulligan.measures.likelihood import in_blocks
from mulligan.workbench.sources import raw_frame

if TYPE_CHECKING:
    from mulligan.workbench.fitted import Fitted


def order_of(fitted: Fitted) -> tuple[str, ...]:
    """The columns in the model's order.

    Raises UsageError for a model without one: another family, or an ensemble whose members each have their own.
    """
    positions = getattr(fitted.model, "positions", None)
    native = _native(fitted)
    if positions is None or native is None:
        raise UsageError(f"{fitted.family} has no order of columns", do="--family autoregressive has one")
    every = _orders(fitted)
    names = [column.name for column in native.schema.modelled]
    if (every != every[0]).any():
        what = f"the {len(every)} members of {fitted.label} have an order of the columns each"
        raise UsageError(
            what, do=f"--set order={','.join(names)} (or another order) gives them one, --set members=1 too"
        )
    return tuple(names[j] for j in np.argsort(every[0]))


def leading_log_prob(fitted: Fitted, rows: Any) -> np.ndarray:
    """log p of the columns that each row has, in nats and the user's units, float64 (n,).

    Empty cells must come last in the order: raises DataError for a row that has a column after an empty one.
    """
    order = order_of(fitted)
    frame = raw_frame(rows)
    missing = np.stack([_empty(frame, name) for name in order], axis=1)
    known = np.where(missing.any(1), missing.argmax(1), len(order))
    wrong = np.flatnonzero((~missing & (np.arange(len(order)) > known[:, None])).any(1))
    if len(wrong):
        first = wrong[0]
        later = next(name for j, name in enumerate(order) if j > known[first] and not missing[first, j])
        raise DataError(
            f"row {first + 1} lacks '{order[known[first]]}' but has '{later}', which comes later in the order",
            f"{len(wrong):,} such rows",
            "Only the first columns of the order have their marginal in closed form",
            f"--set order=... with '{order[known[first]]}' last, or leave these rows out",
        )
    return leading_terms(fitted, conform(_filled(fitted, frame), fitted.schema).values, known)


def leading_terms(fitted: Fitted, values: np.ndarray, known: np.ndarray) -> np.ndarray:
    """log p of the first ``known`` (n,) columns in the order of rows (n, columns), whatever valid values the others hold."""
    encoded = fitted.codec.encode(values)
    terms = in_blocks(
        lambda x, k, given: _leading_block(fitted.model, x, k, given),
        encoded.flat,
        known.astype(np.int32),
        encoded.flat_given,
    )
    native = _native(fitted)
    own = values if not isinstance(fitted.codec, ConditionalCodec) else fitted.codec.modelled_part(values)
    # of an ensemble whose members differ in their order the same columns come first in all, so the sum is the same
    places = _orders(fitted)[0]
    jacobian = native.log_jacobians(own)  # type: ignore[union-attr]
    return terms + np.where(places < known[:, None], jacobian, 0.0).sum(1)


def leading(fitted: Fitted, unknown: np.ndarray) -> np.ndarray:
    """How many columns each row of ``unknown`` (n, columns) shows if they are the first of the order, else −1, int (n,).

    −1 for all rows of a model without an order. Members of an ensemble may differ in the order of what is shown.
    """
    if _native(fitted) is None or getattr(fitted.model, "positions", None) is None:
        return np.full(len(unknown), -1)
    shown = (~unknown).sum(axis=1)
    farthest = np.where(unknown[:, None, :], -1, _orders(fitted)[None]).max(axis=2)
    return np.where((farthest < shown[:, None]).all(axis=1), shown, -1)


def continued(fitted: Fitted, values: np.ndarray, known: np.ndarray, draws: int, seed: int) -> np.ndarray:
    """Exact draws (n, draws, columns) of the columns behind the first ``known`` (n,) of rows (n, columns), which stay."""
    n, columns = values.shape
    points = np.repeat(fitted.codec.encode(with_some(fitted, values)).flat, draws, axis=0)
    key = jax.random.key(seed)
    drawn = in_blocks(
        lambda x, k, i: _continued_block(fitted.model, key, x, k, i),
        points.astype(np.float32),
        np.repeat(known, draws).astype(np.int32),
        np.arange(n * draws, dtype=np.int32),
    )
    decoded = fitted.codec.decode(drawn).reshape(n, draws, columns)  # type: ignore[call-arg]
    return np.where(np.isnan(values)[:, None], decoded, values[:, None])


def with_some(fitted: Fitted, values: np.ndarray) -> np.ndarray:
    """The rows (n, columns) with some valid value in cells that are NaN."""
    some = fitted.codec.decode(np.zeros((1, fitted.codec.dim)))[0]  # type: ignore[call-arg]
    return np.where(np.isnan(values), some, values)


def _orders(fitted: Fitted) -> np.ndarray:
    """Each column's place in the order of each member (members, columns)."""
    return np.atleast_2d(np.asarray(getattr(fitted.model, "members", fitted.model).positions))


@compile_small
def _continued_block(model: Any, key: Any, points: Any, known: Any, index: Any) -> Any:
    def one(i: Any, x: Any, k: Any) -> Any:
        return model.continued(jax.random.fold_in(key, i), x, k)

    return jax.vmap(one)(jnp.asarray(index), jnp.asarray(points), jnp.asarray(known))


@compile_small
def _leading_block(model: Any, points: Any, known: Any, given: Any) -> Any:
    return jax.vmap(model.leading_log_prob)(jnp.asarray(points), jnp.asarray(known), given)


def _native(fitted: Fitted) -> NativeCodec | None:
    codec = fitted.codec.inner if isinstance(fitted.codec, ConditionalCodec) else fitted.codec
    return codec if isinstance(codec, NativeCodec) else None


def _empty(frame: Frame, name: str) -> np.ndarray:
    return is_empty(frame.columns[name]) if name in frame.columns else np.ones(len(frame), bool)


def _filled(fitted: Fitted, frame: Frame) -> Frame:
    """The rows with any valid value in their empty cells: what is there does not enter the leading terms."""
    codec = fitted.codec.inner if isinstance(fitted.codec, ConditionalCodec) else fitted.codec
    columns, origin = dict(frame.columns), dict(frame.origin)
    some = codec.decode(np.zeros((1, codec.dim)))[0]
    for column, value in zip(codec.schema.modelled, some):
        if column.name not in columns or is_empty(columns[column.name]).all():
            columns[column.name] = np.full(len(frame), None if column.output == "text" else np.nan)
            origin[column.name] = column.output
        cells = columns[column.name].copy()
        level = column.levels[int(value)] if column.levels else None
        if cells.dtype == object:
            fill: Any = str(value) if level is None else level
        elif level is None:
            fill = value
        else:
            fill = float(level == "True") if origin[column.name] == "boolean" else float(level)
        cells[is_empty(cells)] = fill
        columns[column.name] = cells
    return replace(frame, columns=columns, origin=origin)
