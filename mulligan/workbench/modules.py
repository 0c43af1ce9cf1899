"""A model as plain values with arrays beside them, and back: how a model folder holds a module, without pickle.

A module becomes the name of its class and its fields: arrays by name (``layers.conditioner.weights.0``), modules and tuples
of these, and plain values. Two sorts of class may be named: those of the catalog (``entries.Family.classes``) and the
user's own, which the caller of ``load`` hands in. Nothing is looked up by a path that a folder states.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mulligan.catalog import model_classes
from mulligan.entries import named_object
from mulligan.errors import FormatError, UsageError

DTYPES = ("float32", "float64", "int32", "int64")
_PLAIN = (bool, int, float, str, type(None))


def dismantle(model: Any) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Arrays by name, and the description of the module: its class, with the names and plain values of its fields.

    Raises FormatError, naming the field, for what cannot be read back: a function, a generator, an array of another type.
    """
    arrays: dict[str, np.ndarray] = {}
    return arrays, _describe(model, "", arrays, {})


def rebuild(
    description: Mapping[str, Any], arrays: Mapping[str, np.ndarray], own: Mapping[str, type], path: Path
) -> Any:
    """The module of a description; ``own`` are the caller's classes by name, ``path`` is for messages."""
    lacking = sorted(_own_names(description) - set(own))
    if lacking:
        what = f"{path} holds a model with {', '.join(lacking)}, which mulligan does not have"
        why = "a folder says what a class of your own is called, not where its code is"
        do = f"in Python mulligan.load({str(path)!r}, classes=[{', '.join([*own, *lacking])}])"
        raise FormatError(what, why, do)
    left = dict(arrays)
    model = _assemble(description, "", left, own)
    if left:
        raise FormatError(f"weights.safetensors holds what the model does not have: {', '.join(left)}")
    return model


def own_classes(classes: Sequence[type]) -> dict[str, type]:
    """The caller's classes by name. Raises UsageError for what is no Equinox module, or two of one name."""
    import equinox as eqx

    found: dict[str, type] = {}
    for cls in classes:
        if not (isinstance(cls, type) and issubclass(cls, eqx.Module)):
            raise UsageError(f"classes: {cls!r} is no Equinox module", do="mulligan.load(path, classes=[Mine])")
        if found.setdefault(cls.__name__, cls) is not cls:
            raise UsageError(f"classes: two are called {cls.__name__}", do="rename one")
    return found


def is_ours(module: Any) -> bool:
    """Whether the class of a module is one of the catalog's."""
    cls = type(module)
    return model_classes().get(cls.__name__) == f"{cls.__module__}:{cls.__qualname__}"


def _describe(module: Any, prefix: str, arrays: dict[str, np.ndarray], seen: dict[str, type]) -> dict[str, Any]:
    import equinox as eqx

    cls = type(module)
    if not isinstance(module, eqx.Module):
        raise FormatError(f"a {cls.__name__} cannot be saved", why="a model folder holds Equinox modules")
    ours = is_ours(module)
    if not ours and cls.__module__.startswith("mulligan."):
        what, place = f"a {cls.__name__} cannot be saved", f"{cls.__module__}:{cls.__name__}"
        raise FormatError(what, do=f"classes=({place!r}, ...) in the catalog's entry of its family")
    if seen.setdefault(cls.__name__, cls) is not cls:
        raise FormatError(f"two classes of the model are called {cls.__name__}", do="rename one")

    def how(value: Any, place: str) -> Any:
        if isinstance(value, tuple | list) and any(_holds_more(item) for item in value):
            return {"tuple": [how(item, f"{place}.{i}") for i, item in enumerate(value)]}
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            return {"module": _describe(value, f"{place}.", arrays, seen)}
        if hasattr(value, "shape"):
            arrays[place] = _saved(value, place)
            return "array"
        if not _is_plain(value):
            why = "a folder holds arrays, modules and plain values, and no code"
            what = f"{cls.__name__} cannot be saved: {place} is a {type(value).__name__}"
            raise FormatError(what, why, "write functions into the class, not into a field")
        return {"value": value}

    fields = {entry.name: how(getattr(module, entry.name), prefix + entry.name) for entry in dataclasses.fields(cls)}
    return {"class": cls.__name__, "fields": fields} | ({} if ours else {"own": True})


def _holds_more(value: Any) -> bool:
    return hasattr(value, "shape") or dataclasses.is_dataclass(value)


def _is_plain(value: Any) -> bool:
    if isinstance(value, tuple | list):
        return all(_is_plain(item) for item in value)
    return isinstance(value, (*_PLAIN, np.generic))


def _saved(value: Any, place: str) -> np.ndarray:
    """The array as NumPy's. safetensors wants it contiguous; ``np.ascontiguousarray`` would make a scalar one row."""
    name = getattr(value.dtype, "name", str(value.dtype))
    if name not in DTYPES:
        raise FormatError(
            f"{place} is an array of type {name}, which cannot be saved", do=f"one of {', '.join(DTYPES)}"
        )
    return np.array(value, order="C")


def _assemble(description: Mapping[str, Any], prefix: str, left: dict[str, np.ndarray], own: Mapping[str, type]) -> Any:
    import jax.numpy as jnp

    def value(how: Any, place: str) -> Any:
        if how == "array":
            return jnp.asarray(_take(left, place))
        if "tuple" in how:
            return tuple(value(item, f"{place}.{i}") for i, item in enumerate(how["tuple"]))
        if "module" in how:
            return _assemble(how["module"], f"{place}.", left, own)
        return _hashable(how["value"])

    name = description["class"]
    users = description.get("own") is True
    cls = own[name] if users else _class(name)
    fields = {field: value(how, prefix + field) for field, how in description["fields"].items()}
    return _filled(cls, fields) if users else cls(**fields)


def _class(name: str) -> type:
    known = model_classes()
    if name not in known:
        raise FormatError(f"a model of class {name!r}", why="this version does not know it")
    return named_object(known[name])


def _own_names(described: Any) -> set[str]:
    """Names of the user's classes anywhere in a description."""
    if isinstance(described, list):
        return set().union(*map(_own_names, described))
    if not isinstance(described, dict):
        return set()
    own = {str(described.get("class"))} if described.get("own") is True else set()
    return own.union(*map(_own_names, described.values()))


def _filled(cls: type, fields: Mapping[str, Any]) -> Any:
    """A module of a user's class with these fields. Its ``__init__`` is passed over: it makes new weights."""
    expected = {field.name for field in dataclasses.fields(cls)}
    if set(fields) != expected:
        differing = ", ".join(sorted(set(fields) ^ expected))
        raise FormatError(f"the class {cls.__name__} has other fields than the saved one: {differing}")
    module: Any = object.__new__(cls)
    for name, value in fields.items():
        object.__setattr__(module, name, value)
    return module


def _hashable(value: Any) -> Any:
    """A list of a config is a tuple: static fields of a module must be hashable."""
    return tuple(map(_hashable, value)) if isinstance(value, list) else value


def _take(arrays: dict[str, np.ndarray], name: str) -> np.ndarray:
    if name not in arrays:
        raise FormatError(f"weights.safetensors lacks {name!r}")
    array = arrays.pop(name)
    if array.dtype.name not in DTYPES:
        raise FormatError(
            f"weights.safetensors: {name!r} is of type {array.dtype.name}; expected {' or '.join(DTYPES)}"
        )
    return array
