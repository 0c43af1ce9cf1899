"""mulligan: every family of generative models behind one small contract, and numbers that say what they are.

Reading order: ``catalog`` (what exists), ``quantity`` (what a number is), ``data`` (tables, codec, splits), ``core`` (what
a model can do), ``loop`` (how anything iterative runs), ``targets`` (laws known exactly), ``models``, ``objectives``,
``samplers``, ``measures``, ``learners``, ``families``, ``workbench`` (fit, compare, sample, save), ``report`` (the
scorecard), ``lab`` (identities).

Importing this package loads neither JAX nor NumPy: names are looked up when they are first used.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_HOME = {
    "read": "mulligan.workbench.sources",
    "fit": "mulligan.workbench.fitting",
    "Fitted": "mulligan.workbench.fitted",
    "Own": "mulligan.families.own",
    "compare": "mulligan.workbench.comparison",
    "Scorecard": "mulligan.workbench.comparison",
    "load": "mulligan.workbench.artifact",
    "law": "mulligan.targets.named",
    "verify": "mulligan.lab.verification",
    "sample_density": "mulligan.workbench.density",
    "DensitySamples": "mulligan.workbench.verdicts",
    "Quantity": "mulligan.quantity",
    "Table": "mulligan.data.table",
    "ReadOptions": "mulligan.data.table",
    "use_cache": "mulligan.cache",
    "MulliganError": "mulligan.errors",
    "UsageError": "mulligan.errors",
    "DataError": "mulligan.errors",
    "FitError": "mulligan.errors",
    "FormatError": "mulligan.errors",
    "SetupError": "mulligan.errors",
    "NoDensity": "mulligan.errors",
}
__all__ = ["__version__", *_HOME]


def __getattr__(name: str) -> Any:
    if name == "lab":  # the one folder that people reach as an attribute: mulligan.lab.NAME(seed=3)
        return importlib.import_module("mulligan.lab")
    if name in _HOME:
        return getattr(importlib.import_module(_HOME[name]), name)
    raise AttributeError(f"module 'mulligan' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
