"""Recordings as plain data: a dictionary with the arrays taken out, and the npz file that holds both. No pickles.

Definition. ``described`` replaces every array by what ``keep`` returns for it; ``restored`` is its inverse. In a file the
dictionary is JSON in the entry ``recording``, and the arrays are float32 entries of their own, rounded to 15 bits (3e-5 of a
value): they are drawn, and the numbers and checks, which are not rounded, say what was found.
"""

from __future__ import annotations

import io
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from mulligan.errors import FormatError
from mulligan.lab.identity import Check
from mulligan.lab.recording import Arrows, Bars, Curve, Field, Panel, Paths, Points, Recording, Scale, Table
from mulligan.quantity import Quantity
from mulligan.report.writing import write_whole

FORMAT = 1
_KINDS: dict[str, type] = {
    kind.__name__: kind
    for kind in (Recording, Panel, Scale, Points, Curve, Paths, Bars, Arrows, Field, Table, Quantity, Check)
}


def described(item: Any, keep: Callable[[np.ndarray], Any]) -> Any:
    """A recording, or a part of one, as JSON knows it; ``keep`` gets each array and returns what stands for it.

    >>> described(Scale("x", 0.0), list)["label"]
    'x'
    """
    if is_dataclass(item) and not isinstance(item, type):
        parts = {each.name: described(getattr(item, each.name), keep) for each in fields(item)}
        return {"kind": type(item).__name__, **({"is": parts} if isinstance(item, Quantity) else parts)}
    if isinstance(item, np.ndarray):
        return keep(item)
    if isinstance(item, Mapping):
        return {"kind": "mapping", "items": [[key, described(value, keep)] for key, value in item.items()]}
    if isinstance(item, list | tuple):
        return [described(value, keep) for value in item]
    if isinstance(item, np.generic):
        item = item.item()
    return {"kind": "float", "text": repr(item)} if isinstance(item, float) and not math.isfinite(item) else item


def restored(item: Any, find: Callable[[Mapping[str, Any]], np.ndarray]) -> Any:
    """The inverse of ``described``; ``find`` gets what ``keep`` returned (a mapping without ``kind``).

    >>> restored(described(Scale("x", 0.0), list), np.asarray) == Scale("x", 0.0)
    True
    """
    if isinstance(item, list):
        return tuple(restored(value, find) for value in item)
    if not isinstance(item, Mapping):
        return item
    kind = item.get("kind")
    if kind is None:
        return find(item)
    if kind == "mapping":
        return {key: restored(value, find) for key, value in item["items"]}
    if kind == "float":
        return float(item["text"])
    parts = item["is"] if kind == "Quantity" else {key: value for key, value in item.items() if key != "kind"}
    return _KINDS[kind](**{key: restored(value, find) for key, value in parts.items()})


def write_recording(recording: Recording, path: str | Path) -> None:
    """Write ``.npz``, all at once. Raises SetupError where the file cannot be written."""
    arrays: dict[str, np.ndarray] = {}

    def keep(array: np.ndarray) -> dict[str, str]:
        arrays[name := f"array_{len(arrays)}"] = _rounded(array)
        return {"array": name}

    head = {"format": FORMAT, "recording": described(recording, keep)}
    buffer = io.BytesIO()
    np.savez_compressed(buffer, recording=np.array(json.dumps(head, ensure_ascii=False)), **arrays)  # type: ignore[arg-type]
    write_whole(buffer.getvalue(), path)


def _rounded(array: np.ndarray) -> np.ndarray:
    """Float32 with the last 9 bits rounded away: half the file."""
    bits = np.ascontiguousarray(array, np.float32).view(np.uint32)
    return ((bits + np.uint32(0x100)) & np.uint32(0xFFFFFE00)).view(np.float32)


def load_recording(path: str | Path) -> Recording:
    """The recording of an ``.npz`` file that ``Recording.save`` wrote; its arrays come back to 3e-5 of each value.

    Raises FormatError for a file that is none, or is of a later format.
    """
    try:
        with np.load(io.BytesIO(Path(path).read_bytes()), allow_pickle=False) as file:
            head = json.loads(str(file["recording"]))
            arrays = {name: file[name] for name in file.files if name != "recording"}
    except (OSError, ValueError, KeyError, EOFError, BadZipFile) as error:
        reason = getattr(error, "strerror", None) or "not an npz file with a recording"
        raise FormatError(f"{path} cannot be read", reason, "", "mulligan lab NAME -o recording.npz") from error
    if head.get("format") != FORMAT:
        found = f"format {head.get('format')}"
        raise FormatError(f"{path} is a recording of another version", found, f"This one reads format {FORMAT}")
    return restored(head["recording"], lambda entry: arrays[entry["array"]])
