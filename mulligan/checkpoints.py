"""Checkpoints: what a run needs to go on as if it had never stopped, written so that a half-written one cannot be read.

A checkpoint is one safetensors file: the arrays of the state in order, notes as JSON in its header. It is written under a
temporary name, flushed to the disk and renamed over the one before, so a kill at any moment leaves the old one or
the new one. Step i uses fold_in(key, i), so the step number is all the randomness that has to be kept.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from mulligan.errors import FormatError, UsageError

SECONDS = 5.0  # between two checkpoints: what a kill can cost
FORMAT = 1


class Saved(NamedTuple):
    """What came back: the state, its step, arrays by name (learning curves), and plain notes."""

    state: Any
    step: int
    curves: dict[str, np.ndarray]
    notes: dict[str, Any]


class Checkpoints:
    """A folder of checkpoints, one a run. ``identity`` says whose they are: data, settings and versions as plain values.

    ``failure`` is None, or the sentence of the last checkpoint that could not be written (a full disk): training goes
    on, and the checkpoint before it stays.
    """

    def __init__(self, folder: str | Path, identity: dict[str, Any], seconds: float = SECONDS):
        self.folder, self.identity, self.seconds = Path(folder), json.loads(json.dumps(identity)), seconds
        self.failure: str | None = None
        self._written: dict[str, float] = {}

    def due(self, name: str) -> bool:
        """Whether the last checkpoint of that name is older than ``seconds``."""
        return time.monotonic() - self._written.setdefault(name, time.monotonic()) >= self.seconds

    def keep(self, name: str, state: Any, step: int, curves: dict[str, np.ndarray], notes: dict[str, Any]) -> None:
        """Write the checkpoint ``name`` whole, or leave the one before as it is."""
        from safetensors.numpy import save

        arrays = {f"state.{i}": np.array(leaf, order="C") for i, leaf in enumerate(jax.tree.leaves(state))}
        arrays |= {f"curve.{entry}": np.array(values, order="C") for entry, values in curves.items()}
        head = {"format": FORMAT, "identity": self.identity, "step": step, "notes": notes}
        payload = save(arrays, metadata={"mulligan": json.dumps(head)})
        self._written[name] = time.monotonic()
        temporary = self.folder / f".{name}.{os.getpid()}.tmp"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with temporary.open("wb") as file:
                file.write(payload)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, self._path(name))
            self.failure = None
        except OSError as error:
            temporary.unlink(missing_ok=True)
            self.failure = f"a checkpoint could not be written: {error.strerror or error}"

    def restore(self, name: str, like: Any) -> Saved | None:
        """The checkpoint ``name`` in the structure of ``like``; None where there is none.

        Raises UsageError where it belongs to another fit, FormatError where it is broken.
        """
        path = self._path(name)
        if not path.is_file():
            return None
        head, arrays = _read(path)
        differing = [
            key for key in {**head["identity"], **self.identity} if head["identity"].get(key) != self.identity.get(key)
        ]
        if differing:
            what = ", ".join(
                f"{key} was {head['identity'].get(key)!r} and is {self.identity.get(key)!r}"
                for key in sorted(differing)
            )
            raise UsageError(
                f"{self.folder} belongs to another fit: {what}", do="the same command as before, or --overwrite"
            )
        leaves, structure = jax.tree.flatten(like)
        found = [arrays.get(f"state.{i}") for i in range(len(leaves))]
        for leaf, array in zip(leaves, found):
            if array is None or array.shape != np.shape(leaf) or array.dtype != np.asarray(leaf).dtype:
                raise FormatError(f"{path} does not hold the state of this run", do="--overwrite starts again")
        curves = {key.partition(".")[2]: value for key, value in arrays.items() if key.startswith("curve.")}
        self._written[name] = time.monotonic()
        return Saved(jax.tree.unflatten(structure, found), int(head["step"]), curves, head["notes"])

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}.safetensors"


def _read(path: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            head = json.loads((file.metadata() or {})["mulligan"])
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (it is no dictionary)
    except (SafetensorError, KeyError, ValueError, OSError) as error:
        raise FormatError(f"{path} is broken", str(error), do="--overwrite starts again") from error
    if head.get("format") != FORMAT:
        raise FormatError(f"{path} has format {head.get('format')}; this version reads {FORMAT}")
    return head, arrays
