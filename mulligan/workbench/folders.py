"""The place of a model folder on the disk: whether it may be written, and how it is written whole or not at all.

A folder without a training inside is written beside its place under a temporary name and swapped in by renames. One with
``resume/`` inside (see ``workbench.resuming``) is filled file by file with ``config.json``, without which nothing is
loaded, taken away first and put back last: so a kill at any moment leaves the old model, the new one, or a training that
can be resumed.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from mulligan.cache import why_not_writable
from mulligan.errors import SetupError, UsageError

FILES = ("config.json", "weights.safetensors", "schema.json")
BESIDE = ("history.csv", "card.md", "calibration.npy")
RESUME = "resume"
COMMAND = "command.json"  # inside resume/: how to call the fit again
SAVING = ".saving"  # inside resume/: a model on its way to its place


def is_model_folder(path: Path) -> bool:
    """Whether everything that a model needs is there."""
    return path.is_dir() and all((path / name).is_file() for name in FILES)


def holds_training(path: Path) -> bool:
    """Whether the folder holds what a training needs to go on."""
    return (path / RESUME).is_dir()


def is_unfinished(path: Path) -> bool:
    """Whether it holds a training that was not finished, and nothing that is not ours."""
    if not holds_training(path) or is_model_folder(path):
        return False
    return {entry.name for entry in path.iterdir()} <= {RESUME, *FILES, *BESIDE}


def is_empty(path: Path) -> bool:
    """Whether it is a folder with nothing in it: that of a fit which was killed before it could write."""
    return path.is_dir() and not any(path.iterdir())


def check_writable(path: str | Path, overwrite: bool = False, resume: bool = False) -> Path:
    """The path, if a model folder can be written there; call it before training.

    ``resume`` says that the training inside is to go on. Raises UsageError where something is there already,
    SetupError where the place cannot be written.
    """
    path = Path(path)
    if path.exists() and not is_empty(path):
        ours = is_model_folder(path) or is_unfinished(path)
        if not (overwrite or (resume and holds_training(path))):
            raise _in_the_way(path, resume and ours)
        if not ours:
            raise UsageError(f"{path} exists and is not a model folder", why="it will not be replaced", do="another -o")
    for place in (path.resolve().parent, *([path / RESUME] if holds_training(path) else [])):
        reason = why_not_writable(place)
        if reason:
            raise SetupError(f"cannot write {path}", reason, do="-o elsewhere")
    return path


def _in_the_way(path: Path, finished: bool) -> UsageError:
    if finished:
        return UsageError(f"{path} is finished: there is nothing to resume", do="--overwrite or another -o")
    if is_unfinished(path):
        what = f"{path} holds a training that was not finished"
        return UsageError(what, do="--resume, --overwrite or another -o")
    resumable = holds_training(path) and is_model_folder(path)
    return UsageError(f"{path} exists", do=f"{'--resume, ' if resumable else ''}--overwrite or another -o")


def write_swapped(path: Path, write: Callable[[Path], None]) -> None:
    """Let ``write`` fill a folder beside ``path``, then swap it in; what was there stays if anything fails."""
    room = Path(tempfile.mkdtemp(dir=path.resolve().parent, prefix=".mulligan-"))
    work, retired = room / "new", room / "old"
    try:
        work.mkdir(mode=0o755)
        write(work)
        if path.exists():
            os.replace(path, retired)
        try:
            os.replace(work, path)
        except BaseException:
            if retired.exists():
                os.replace(retired, path)
            raise
    finally:
        shutil.rmtree(room, ignore_errors=True)


def write_into(path: Path, write: Callable[[Path], None], keep_training: bool) -> None:
    """Let ``write`` fill a folder inside ``path/resume``, then move the files in, ``config.json`` last.

    What was there stays if anything fails. The training is removed at the end unless ``keep_training``.
    """
    room = path / RESUME / SAVING
    shutil.rmtree(room, ignore_errors=True)
    work, retired = room / "new", room / "old"
    moved: list[tuple[Path, Path]] = []

    def move(source: Path, target: Path) -> None:
        os.replace(source, target)
        moved.append((source, target))

    try:
        work.mkdir(parents=True)
        retired.mkdir()
        write(work)
        try:
            for name in (*FILES, *BESIDE):  # config.json is the first of FILES: from here on nothing can be loaded
                if (path / name).exists():
                    move(path / name, retired / name)
            for name in (*BESIDE, *reversed(FILES)):
                if (work / name).exists():
                    move(work / name, path / name)
        except BaseException:
            for source, target in reversed(moved):
                os.replace(target, source)
            raise
    finally:
        shutil.rmtree(room, ignore_errors=True)
    if not keep_training:
        shutil.rmtree(path / RESUME, ignore_errors=True)
