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
    "counting": ("counting", 1, "points in cells become a density; the best width of a cell"),
    "curse": ("curse", 1, "empty cells and crowded shells as dimensions are added"),
    "covering_and_chasing": ("covering", 2, "one, two and three Gaussians fitted by KL in both directions"),
    "chasing_threshold": ("chasing", 2, "how far apart two modes must be to be chased"),
    "projection": ("projection", 2, "the data's law projected onto a curve of models"),
    "energy_learning": ("energy", 3, "an energy-based model learns until two averages agree"),
    "contrast_and_em": (
        "contrast_and_em",
        4,
        "contrastive divergence below, EM above: two surrogates with one tangent",
    ),
    "monte_carlo_em": ("monte_carlo_em", 4, "EM climbs at every step; with drawn averages it wanders"),
    "actor_and_critic": ("adversaries", 5, "a generator that chases a critic that chases the data, and eight holes"),
    "wasserstein_critic": ("wasserstein", 5, "a critic's value over its steepest slope, beside the exact W₁"),
    "noise_contrastive": ("noise", 6, "a classifier of data and noise that becomes a density"),
    "langevin_halves": ("halves", 7, "Langevin's two halves, at equilibrium and away from it"),
    "step_size": ("step_size", 7, "Langevin with large steps keeps a law of its own; Metropolis mends it"),
    "momentum": ("momentum", 7, "Hamiltonian Monte Carlo against Langevin at equal gradients"),
    "tempering_swaps": ("tempering", 8, "balls exchange modes along a ladder of temperatures; the law stays"),
    "tempering_gap": ("barrier", 8, "a barrier slows Langevin exponentially; exchange takes it away"),
    "annealing_bracket": ("annealing", 8, "E log w from below and from above closes in on log Z"),
    "forward_halves": ("forward", 9, "both halves of the forward step flatten; together they go twice as far"),
    "three_walks": ("three_walks", 9, "equilibrium, forward and reverse: which way each half goes"),
    "reverse_walks": ("reverse", 9, "the same draws walked back by the ODE and by the SDE"),
    "steps_as_bars": ("steps_as_bars", 9, "what each Gaussian step of the walk back costs, for 1 to 128 steps"),
    "wrong_score": ("wrong_score", 9, "errors of the start and of the score: what the ODE keeps and the SDE forgets"),
    "pull_to_the_mean": ("pull", 9, "the score as an arrow to the mean of where x_t came from, and its regression"),
    "walk_with_pictures": ("digits_walk", 9, "a U-Net carries noise to digits; what it thinks on the way"),
    "golf": ("golf", 10, "all families on one course: holes, strokes, balls and gaps, measured"),
    "more_strokes": ("more_strokes", 10, "holes found against the number of strokes, with the true score"),
    "guided": ("guided", 10, "a blurred model's draws moved by a critic: a little helps, too much collapses"),
    "flow_and_ode": ("flow_and_ode", 10, "the probability-flow ODE as an invertible map, along two kinds of path"),
    "relations": ("relations", 10, "the map of the families: one edge after another is checked"),
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
