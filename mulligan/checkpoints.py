"""Checkpoints: what a run needs to go on as if it had never stopped, written so that a half-written one cannot be read.

A checkpoint is one safetensors file: the arrays of the state in order, notes as JSON in its header. It is written under a
temporary name, flushed to the disk and renamed over the one before, so a kill at any moment leaves the old one or
the new one. Step i uses fold_in(key, i), so the step number is all the randomness that has to be kept.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from mulligan.errors import FormatError, UsageError

SECONDS = 5.0  # between two checkpoints at least; the next is written when the run is looked at anyway
FORMAT = 1
SHOWN = 8  # characters of a digest in a message
_MEND = "the same fit as before, or --overwrite (in Python resume=False), which starts again"


class Saved(NamedTuple):
    """What came back: the state, its step, arrays by name (learning curves), and plain notes."""

    state: Any
    step: int
    curves: dict[str, np.ndarray]
    notes: dict[str, Any]


class Checkpoints:
    """A folder of checkpoints, one a run. ``identity`` says whose they are: data, settings and versions as plain values.

    ``failure`` is None, or the sentence of the last checkpoint that could not be written (a full disk): training goes
    on, and the checkpoint before it stays; ``warn`` hears of the first such failure. ``resumed`` is True once a
    checkpoint was brought back. ``seconds`` (None: ``SECONDS``) is the least time between two of one name.

    >>> import tempfile
    >>> kept = Checkpoints(tempfile.mkdtemp(), {"seed": 0})
    >>> kept.keep("run", {"x": np.arange(3.0)}, 7, {}, {"best": -1.5})
    >>> back = Checkpoints(kept.folder, {"seed": 0}).restore("run", {"x": np.zeros(3)})
    >>> back.step, back.state["x"], back.notes
    (7, array([0., 1., 2.]), {'best': -1.5})
    """

    def __init__(
        self,
        folder: str | Path,
        identity: dict[str, Any],
        seconds: float | None = None,
        warn: Callable[[str], None] = lambda text: None,
    ):
        self.folder, self.identity, self.warn = Path(folder), json.loads(json.dumps(identity)), warn
        self.seconds = SECONDS if seconds is None else seconds
        self.failure: str | None = None
        self.resumed = False
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
        try:
            write_durably(self._path(name), payload)
            self.failure = None
        except OSError as error:
            before, self.failure = self.failure, f"a checkpoint could not be written: {error.strerror or error}"
            if before is None:
                self.warn(f"{self.failure} ({self.folder}); training goes on, the checkpoint before stays")

    def restore(self, name: str, like: Any) -> Saved | None:
        """The checkpoint ``name`` in the structure of ``like``; None where there is none.

        Raises UsageError where it belongs to another fit, FormatError where it is broken.
        """
        path = self._path(name)
        if not path.is_file():
            return None
        head, arrays = _read(path)
        self._refuse_others(head["identity"])
        leaves, structure = jax.tree.flatten(like)
        found = [arrays.get(f"state.{i}") for i in range(len(leaves))]
        for leaf, array in zip(leaves, found):
            if array is None or array.shape != np.shape(leaf) or array.dtype != np.asarray(leaf).dtype:
                raise FormatError(f"{path} does not hold the state of this run", do="--overwrite, which starts again")
        curves = {key.partition(".")[2]: value for key, value in arrays.items() if key.startswith("curve.")}
        self._written[name] = time.monotonic()
        self.resumed = True
        return Saved(jax.tree.unflatten(structure, found), int(head["step"]), curves, head["notes"])

    @property
    def paths(self) -> list[Path]:
        """The checkpoints that are in the folder."""
        return checkpoints_in(self.folder)

    def check(self) -> dict[str, int]:
        """The step that each checkpoint is at.

        Raises UsageError, before any work, where one belongs to another fit, FormatError where one is broken.
        """
        steps = {}
        for path in self.paths:
            head, _ = _read(path, arrays=False)
            self._refuse_others(head["identity"])
            steps[path.stem] = int(head["step"])
        return steps

    def clear(self) -> None:
        """Remove the checkpoints in the folder, and what was left of half-written ones; nothing else is touched."""
        for path in self.paths:
            path.unlink(missing_ok=True)
        self.tidy()

    def tidy(self) -> None:
        """Remove what a kill left of half-written checkpoints."""
        for path in self.folder.glob(".*.tmp"):
            path.unlink(missing_ok=True)

    def _refuse_others(self, found: dict[str, Any]) -> None:
        """Names the first entry of the identity that differs, and says how many more do."""
        entries = [key for key in {**self.identity, **found} if found.get(key) != self.identity.get(key)]
        if not entries:
            return
        first, more = entries[0], len(entries) - 1
        what = f"{first} was {_short(found.get(first))} and is {_short(self.identity.get(first))}"
        also = f" (and {more} more {'difference' if more == 1 else 'differences'})" if more else ""
        raise UsageError(f"{self.folder} belongs to another fit: {what}{also}", do=_MEND)

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}.safetensors"


def checkpoints_in(folder: str | Path) -> list[Path]:
    """Paths of the whole checkpoints in a folder; empty where there is no such folder."""
    return sorted(Path(folder).glob("*.safetensors"))


def is_checkpoint(path: Path) -> bool:
    """Whether a file is a checkpoint, be it a broken one; other people's safetensors are none."""
    from safetensors import SafetensorError, safe_open

    if path.suffix != ".safetensors" or not path.is_file():
        return False
    try:
        with safe_open(path, framework="numpy") as file:
            return "mulligan" in (file.metadata() or {})
    except (SafetensorError, OSError):
        return True


def write_durably(path: Path, payload: bytes) -> None:
    """The file whole and on the disk, or the one before; OSError where it cannot be written."""
    temporary = path.parent / f".{path.name}.{os.getpid()}.tmp"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "wb") as file:
            file.write(payload)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        with suppress(OSError):  # after the rename there is none
            temporary.unlink(missing_ok=True)


def _short(value: Any) -> str:
    if isinstance(value, str) and len(value) == 64 and " " not in value:
        return value[:SHOWN]
    return "none" if value is None else str(value)


def _read(path: Path, arrays: bool = True) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            head = json.loads((file.metadata() or {})["mulligan"])
            names = file.keys() if arrays else ()
            found = {name: file.get_tensor(name) for name in names}
        if head["format"] != FORMAT:
            raise FormatError(f"{path} has format {head['format']}; this version reads {FORMAT}")
        return {key: head[key] for key in ("identity", "step", "notes")}, found
    except (SafetensorError, KeyError, TypeError, ValueError, OSError) as error:
        raise FormatError(f"{path} is broken", str(error), do="--overwrite, which starts again") from error
