"""Going on after a kill: whose checkpoints those in a folder are, whether they may be used, and by which command.

A checkpoint continues bit for bit only under the same rows, columns, split, settings and versions, so all of these are its
identity, and the first difference is named. Where a file lies and what it is called is no part of it.
"""

from __future__ import annotations

import hashlib
import json
import os
import shlex
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import fields
from importlib.metadata import version
from pathlib import Path
from typing import Any

from mulligan.checkpoints import Checkpoints, checkpoints_in, is_checkpoint, write_durably
from mulligan.data.table import Column
from mulligan.errors import FormatError, UsageError
from mulligan.workbench.folders import COMMAND, SAVING
from mulligan.workbench.preparation import Prepared
from mulligan.workbench.talk import Talk

PLAN = "plan"  # a checkpoint that holds no state: the steps that a budget bought
VERSIONS = ("mulligan", "jax", "jaxlib", "equinox", "optax", "numpy")


def open_checkpoints(
    folder: str | Path,
    settings: Mapping[str, Any],
    prepared: Prepared,
    *,
    resume: bool,
    command: str | None,
    talk: Talk,
) -> Checkpoints:
    """The checkpoints in ``folder``: those that are there if ``resume``, else none (old ones are removed).

    ``command`` is kept beside them, so that ``mulligan fit --resume`` knows it. Raises UsageError where they belong to
    another fit, or where the folder holds something else; FormatError where one is broken.
    """
    checkpoints = Checkpoints(folder, identity_of(settings, prepared), warn=talk.warn)
    _refuse_foreign(checkpoints.folder)
    if resume:
        checkpoints.tidy()
        steps = {name: step for name, step in checkpoints.check().items() if name != PLAN}
        at = ", ".join(f"{name} at step {step:,}" for name, step in steps.items())
        talk.note(f"going on: {at}" if at else f"nothing to resume in {folder}: training starts from the beginning")
    else:
        checkpoints.clear()
    if command is not None:
        try:
            _keep_command(checkpoints.folder, command)
        except OSError as error:
            talk.warn(f"{folder} cannot be written ({error.strerror or error}): a kill would lose this training")
    return checkpoints


def identity_of(settings: Mapping[str, Any], prepared: Prepared) -> dict[str, Any]:
    """Everything on which the weights depend, as plain values, in the order in which differences are told."""
    import jax

    table = prepared.table
    columns = {f"column {column.name}": _treatment(column) for column in table.schema.modelled}
    return {
        **settings,
        "given": list(prepared.given),
        "columns": list(table.schema.names),
        **columns,
        "sha256 of the rows": hashlib.sha256(table.values.astype("<f8").tobytes()).hexdigest(),
        "rows are drawn anew": table.chances is not None,
        "split": prepared.split.digest,
        **{name: version(name) for name in VERSIONS},
        "device": jax.default_backend(),
    }


def _treatment(column: Column) -> str:
    """What is known of a column beyond its name, where it is not the default."""
    told = [f"{f.name}={getattr(column, f.name)}" for f in fields(Column) if getattr(column, f.name) != f.default]
    return ", ".join(entry for entry in told if not entry.startswith("name="))


def read_command(folder: Path) -> tuple[list[str], Path]:
    """The arguments of the fit whose checkpoints are in ``folder``, and the folder in which it was typed.

    Raises UsageError where there is none, FormatError where it is not one that mulligan wrote.
    """
    path = folder / COMMAND
    if not path.is_file():
        raise UsageError(f"nothing to resume in {folder.parent}", do="the whole command of the fit, with --resume")
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
        arguments, place = list(kept["arguments"]), Path(kept["folder"])
        sound = arguments[0] == "fit" and all(isinstance(argument, str) for argument in arguments)
    except (ValueError, KeyError, TypeError, IndexError, OSError) as error:
        raise FormatError(f"{path} is broken", str(error), do="the whole command of the fit, with --resume") from error
    if not sound:
        raise FormatError(f"{path} is no fit of mulligan", do="the whole command of the fit, with --resume")
    return arguments, place


def without_resume(command: str) -> str:
    """A command line without ``--resume``: the fit that gives the same weights in one go.

    >>> without_resume("mulligan fit a.csv --family flow --resume -o 'my model'")
    "mulligan fit a.csv --family flow -o 'my model'"
    """
    return shlex.join(word for word in shlex.split(command) if word != "--resume")


def drop_if_empty(folder: Path) -> bool:
    """Remove ``folder`` (and the one around it, if that is empty then) where it holds no checkpoint; whether it did."""
    if checkpoints_in(folder):
        return False
    with suppress(OSError):
        (folder / COMMAND).unlink(missing_ok=True)
        folder.rmdir()
        folder.parent.rmdir()
    return True


def _keep_command(folder: Path, command: str) -> None:
    """The argument list as JSON, written whole."""
    kept = {"arguments": shlex.split(command)[1:], "folder": os.getcwd()}
    write_durably(folder / COMMAND, json.dumps(kept, ensure_ascii=False, indent=1).encode())


def _refuse_foreign(folder: Path) -> None:
    """Old checkpoints are removed: so a folder with anything else in it was named by mistake."""
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder} is a file", do="a folder for the checkpoints")
    foreign = [
        path.name
        for path in (folder.iterdir() if folder.is_dir() else ())
        if not (path.name in (COMMAND, SAVING) or path.suffix == ".tmp" or is_checkpoint(path))
    ]
    if foreign:
        raise UsageError(f"{folder} holds other things than checkpoints", min(foreign), do="another folder")
