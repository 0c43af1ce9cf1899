"""Going on after a kill: whose checkpoints those in a folder are, and whether they may be used.

A checkpoint continues bit for bit only under the same data, split, settings and versions, so all of these are its
identity; the first difference is named.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from mulligan.checkpoints import Checkpoints
from mulligan.errors import UsageError
from mulligan.workbench.preparation import Prepared


def open_checkpoints(
    folder: str | Path, settings: Mapping[str, Any], options: Mapping[str, Any], prepared: Prepared, resume: bool
) -> Checkpoints:
    """The checkpoints in ``folder``: those that are there if ``resume``, else none (old ones are removed).

    Raises UsageError where there is nothing to resume.
    """
    folder = Path(folder)
    identity = {
        **settings,
        "options": dict(options),
        "data": prepared.table.source.sha256,
        "split": prepared.split.digest,
        "columns": list(prepared.table.names),
        "given": list(prepared.given),
        "versions": {name: version(name) for name in ("mulligan", "jax", "jaxlib", "optax", "numpy")},
    }
    if resume and not any(folder.glob("*.safetensors")):
        raise UsageError(f"nothing to resume in {folder}", do="the same command without --resume")
    if not resume:
        shutil.rmtree(folder, ignore_errors=True)
    return Checkpoints(folder, identity)
