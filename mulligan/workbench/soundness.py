"""Whether what a model folder holds fits together: nothing in it is believed before it was checked.

The codec must tile R^d; arrays must have the shapes that the class declares ("k d": one k and one d for all its fields),
finite numbers (a log weight may be −∞), and log_prob and sample must take and give vectors of the codec's dimension.
"""

from __future__ import annotations

import dataclasses
import math
import re
from typing import Any, get_args

import numpy as np

from mulligan.core import Density, Sampler
from mulligan.data.codec import Codec, Part
from mulligan.data.table import Column, ColumnKind, Transform
from mulligan.errors import FormatError


def check_codec(codec: Codec) -> None:
    """Raises FormatError where columns and parts do not belong together, or hold what no table has."""
    modelled = codec.schema.modelled
    if not modelled or len(modelled) != len(codec.parts):
        raise FormatError(f"schema.json has {len(modelled)} modelled columns and {len(codec.parts)} parts")
    for column in codec.schema.columns:
        if column.kind not in get_args(ColumnKind) or column.transform not in get_args(Transform):
            raise FormatError(f"schema.json: column {column.name!r} is {column.kind!r}, transform {column.transform!r}")
    start = 0
    for column, part in zip(modelled, codec.parts):
        if not _sound(column, part) or part.start != start:
            raise FormatError(f"schema.json: the numbers of column {column.name!r} do not fit together")
        start += part.width


def _sound(column: Column, part: Part) -> bool:
    numbers = (part.mean, part.scale, part.low_width, part.high_width, *part.shares, *column.atoms)
    optional = (column.step, column.offset, column.low_cap, column.high_cap)
    if not all(_finite(number) for number in (*numbers, *(number for number in optional if number is not None))):
        return False
    if part.scale <= 0 or part.low_width < 0 or part.high_width < 0 or (column.step is not None and column.step <= 0):
        return False
    if column.kind in ("binary", "categorical"):
        positive = min(part.shares, default=0.0) > 0
        return len(part.shares) == len(column.levels) == part.width + 1 and positive
    return part.width == 1 and (column.step is not None or column.kind == "continuous")


def _finite(number: Any) -> bool:
    return isinstance(number, int | float) and not isinstance(number, bool) and math.isfinite(number)


def check_model(model: Any, dim: int) -> None:
    """Raises FormatError where shapes or numbers are not those of a model of ``dim`` columns. Nothing is computed."""
    import jax

    sizes: dict[str, int] = {}
    for field in dataclasses.fields(model):
        name, value = field.name, getattr(model, field.name)
        for array in value if isinstance(value, tuple) else (value,):
            if hasattr(array, "shape"):
                _check_array(name, np.asarray(array))
        declared = re.fullmatch(r'\w+\[Array, "([^".]*)"\]', str(field.type))
        if declared:
            _check_shape(name, declared[1].split(), np.shape(value), sizes)
    point = jax.ShapeDtypeStruct((dim,), np.float32)
    try:
        given = [jax.eval_shape(model.log_prob, point).shape] if isinstance(model, Density) else []
        drawn = [jax.eval_shape(model.sample, jax.random.key(0)).shape] if isinstance(model, Sampler) else []
    except (TypeError, ValueError, IndexError) as error:
        raise FormatError(
            f"the weights do not make a {type(model).__name__} of {dim} columns", str(error)[:200]
        ) from error
    if any(shape != () for shape in given) or any(shape != (dim,) for shape in drawn):
        raise FormatError(f"the {type(model).__name__} has other columns than the {dim} that schema.json encodes")


def _check_array(name: str, array: np.ndarray) -> None:
    if np.isnan(array).any() or np.isposinf(array).any():
        raise FormatError(f"weights.safetensors: {name!r} holds NaN or infinity")


def _check_shape(name: str, axes: list[str], shape: tuple[int, ...], sizes: dict[str, int]) -> None:
    fits = len(axes) == len(shape) and all(sizes.setdefault(axis, size) == size for axis, size in zip(axes, shape))
    if not fits:
        raise FormatError(f"weights.safetensors: {name!r} has shape {shape}; expected ({', '.join(axes)}) with {sizes}")
