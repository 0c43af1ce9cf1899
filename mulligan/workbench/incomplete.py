"""log p of rows whose last columns in the order are empty: the exact marginal of an autoregressive model.

Definition. log p(x_1 … x_k) = Σ_{j ≤ k} log p(x_j | x_1 … x_{j−1}) for the first k columns in the model's order: the
columns behind integrate to 1, so nothing is imputed and nothing approximated (identity ``relation.autoregressive``).
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
    every = np.atleast_2d(np.asarray(getattr(fitted.model, "members", fitted.model).positions))
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
    values = conform(_filled(fitted, frame), fitted.schema).values
    encoded = fitted.codec.encode(values)
    terms = in_blocks(
        lambda x, k, given: _leading_block(fitted.model, x, k, given),
        encoded.flat,
        known.astype(np.int32),
        encoded.flat_given,
    )
    native = _native(fitted)
    own = values if not isinstance(fitted.codec, ConditionalCodec) else fitted.codec.modelled_part(values)
    names = [column.name for column in native.schema.modelled]  # type: ignore[union-attr]
    places = np.array([order.index(name) for name in names])
    jacobian = native.log_jacobians(own)  # type: ignore[union-attr]
    return terms + np.where(places < known[:, None], jacobian, 0.0).sum(1)


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
