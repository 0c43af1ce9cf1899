"""The experiments of the tutorial: every [E] of the theory and every picture of the notes, computed.

``EXPERIMENTS`` is the list: name → (file, chapter, one line). Each is a function of its file that returns a ``Recording``;
``find_experiment`` looks one up, and so does the attribute of that name of ``mulligan.lab``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mulligan.errors import UsageError

# name -> (its file, chapter of the theory, what is seen), in the order of the tutorial
EXPERIMENTS: dict[str, tuple[str, int, str]] = {
    "actor_and_critic": ("adversaries", 5, "a generator that chases a critic that chases the data, and eight holes"),
    "wasserstein_critic": ("wasserstein", 5, "a critic's value over its steepest slope, beside the exact W₁"),
    "noise_contrastive": ("noise", 6, "a classifier of data and noise that becomes a density"),
    "langevin_halves": ("halves", 7, "Langevin's two halves, at equilibrium and away from it"),
    "reverse_walks": ("reverse", 9, "the same draws walked back by the ODE and by the SDE"),
}


def find_experiment(name: str) -> Callable[..., Any]:
    """The experiment of that name; hyphens may stand for underscores. Raises UsageError, with the nearest.

    >>> find_experiment("langevin-halves").chapter
    7
    """
    from difflib import get_close_matches
    from importlib import import_module

    found = name.replace("-", "_")
    if found not in EXPERIMENTS:
        near = get_close_matches(found, EXPERIMENTS, n=3, cutoff=0.4)
        hint = f". Did you mean {' or '.join(near)}?" if near else ""
        raise UsageError(f"no experiment '{name}'{hint}", "", "", "mulligan lab list")
    return getattr(import_module(f"mulligan.lab.experiments.{EXPERIMENTS[found][0]}"), found)
