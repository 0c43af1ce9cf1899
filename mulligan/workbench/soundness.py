"""Whether what a model folder holds fits together: nothing in it is believed before it was checked.

The codec must tile R^d; arrays must have the shapes that the class declares ("k d": one k and one d for all its fields),
finite numbers (a log weight may be −∞), and log_prob and sample must take and give vectors of the codec's dimension.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable, Sequence
from typing import Any, get_args

import numpy as np

from mulligan.core import Density, Sampler
from mulligan.data.codec import Part
from mulligan.data.given import AnyCodec, ConditionalCodec
from mulligan.data.native import NativeCodec, is_category
from mulligan.data.table import Column, ColumnKind, Transform
from mulligan.errors import FormatError
from mulligan.workbench.modules import is_ours


def check_codec(codec: AnyCodec) -> None:
    """Raises FormatError where columns and parts do not belong together, or hold what no table has."""
    for column in codec.schema.columns:
        if column.kind not in get_args(ColumnKind) or column.transform not in get_args(Transform):
            raise FormatError(f"schema.json: column {column.name!r} is {column.kind!r}, transform {column.transform!r}")
    columns = codec.schema.modelled
    if isinstance(codec, ConditionalCodec):
        check_codec(codec.inner)
        given = tuple(column for column in columns if column.name in codec.given_names)
        if codec.inner.schema.modelled != tuple(column for column in columns if column not in given):
            raise FormatError("schema.json: the modelled columns are not those that are not given")
        _check_parts(given, codec.conditions, lambda column: len(column.levels) or 1)
    elif isinstance(codec, NativeCodec):
        _check_parts(columns, codec.parts, lambda column: 1)
    else:
        _check_parts(columns, codec.parts, lambda column: max(1, len(column.levels) - 1))
        for column, part in zip(columns, codec.parts):
            if is_category(column) and not (len(part.shares) == len(column.levels) and min(part.shares) > 0):
                raise FormatError(f"schema.json: the shares of column {column.name!r} do not fit its levels")


def _check_parts(columns: Sequence[Column], parts: Sequence[Part], width: Callable[[Column], int]) -> None:
    if not columns or len(columns) != len(parts):
        raise FormatError(f"schema.json has {len(columns)} columns and {len(parts)} parts for them")
    start = 0
    for column, part in zip(columns, parts):
        if not _sound(column, part) or part.start != start or part.width != width(column):
            raise FormatError(f"schema.json: the numbers of column {column.name!r} do not fit together")
        start += part.width


def _sound(column: Column, part: Part) -> bool:
    numbers = (part.mean, part.scale, part.low_width, part.high_width, *part.shares, *column.atoms)
    optional = (column.step, column.offset, column.low_cap, column.high_cap)
    if not all(_finite(number) for number in (*numbers, *(number for number in optional if number is not None))):
        return False
    if part.scale <= 0 or part.low_width < 0 or part.high_width < 0 or (column.step is not None and column.step <= 0):
        return False
    if is_category(column):
        return len(column.levels) >= 2
    return column.step is not None or column.kind == "continuous"


def _finite(number: Any) -> bool:
    return isinstance(number, int | float) and not isinstance(number, bool) and math.isfinite(number)


def check_model(model: Any, codec: AnyCodec) -> None:
    """Raises FormatError where shapes or numbers are not those of a model of the codec's columns. Nothing is computed."""
    import jax

    _check_fields(model, "")
    dim, given_dim = codec.dim, codec.given_dim
    point = jax.ShapeDtypeStruct((dim,), np.float32)
    given = jax.ShapeDtypeStruct((given_dim,), np.float32) if given_dim else None
    try:
        scored = [jax.eval_shape(model.log_prob, point, given).shape] if isinstance(model, Density) else []
        drawn = [jax.eval_shape(model.sample, jax.random.key(0), given).shape] if isinstance(model, Sampler) else []
    except (TypeError, ValueError, IndexError) as error:
        raise FormatError(
            f"the weights do not make a {type(model).__name__} of {dim} columns", str(error)[:200]
        ) from error
    if any(shape != () for shape in scored) or any(shape != (dim,) for shape in drawn):
        raise FormatError(f"the {type(model).__name__} has other columns than the {dim} that schema.json encodes")


def _check_fields(module: Any, prefix: str) -> None:
    """Numbers and declared shapes of a module's arrays, and of the modules inside it."""
    sizes: dict[str, int] = {}
    for field in dataclasses.fields(module):
        name, value = prefix + field.name, getattr(module, field.name)
        for item in value if isinstance(value, tuple) else (value,):
            if dataclasses.is_dataclass(item):  # asked first: a module may have a field of the name ``shape``
                _check_fields(item, f"{name}.")
            elif hasattr(item, "shape"):
                _check_array(name, np.asarray(item))
        # Only our own annotations are known to be of the shapes that are kept: a user's layer may be stacked in a flow.
        declared = is_ours(module) and re.fullmatch(r'\w+\[Array, "([^".*]*)"\]', str(field.type))
        if declared:
            _check_shape(name, declared[1].split(), np.shape(value), sizes)


def _check_array(name: str, array: np.ndarray) -> None:
    if np.isnan(array).any() or np.isposinf(array).any():
        raise FormatError(f"weights.safetensors: {name!r} holds NaN or infinity")


def _check_shape(name: str, axes: list[str], shape: tuple[int, ...], sizes: dict[str, int]) -> None:
    fits = len(axes) == len(shape) and all(sizes.setdefault(axis, size) == size for axis, size in zip(axes, shape))
    if not fits:
        raise FormatError(f"weights.safetensors: {name!r} has shape {shape}; expected ({', '.join(axes)}) with {sizes}")
