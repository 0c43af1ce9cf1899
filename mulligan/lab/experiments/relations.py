"""The map of the families: each edge is a statement, and each frame checks one on the library's own objects.

Definition. A node is a family; an edge is an identity that turns one into the other or writes both as one. A frame runs
it (``run_identity``) and shows the two sides where they disagree most, their difference and the error that is allowed: a
tolerance, a deviation of a fitted order, or 4.75 standard errors. Serves every ``relation.*`` and the notes' map.
"""

from __future__ import annotations

from typing import Annotated, NamedTuple

import numpy as np

from mulligan.lab.experiment import Range, experiment
from mulligan.lab.identity import STANDARD_ERRORS, Check, run_identity
from mulligan.lab.recording import Curve, Panel, Points, Recording, Scale, Table
from mulligan.quantity import Quantity

NODES = ("counting", "AR", "flow", "diffusion", "score", "EBM", "NCE", "GAN", "EM", "VAE")


class Edge(NamedTuple):
    """Two families, the identity between them, and what it says in plain words."""

    first: str
    second: str
    id: str
    words: str


EDGES = (
    Edge("counting", "AR", "relation.autoregressive", "any table is a product of conditionals, in every order"),
    Edge("AR", "diffusion", "relation.autoregressive", "a diffusion is that product over time instead of columns"),
    Edge("flow", "diffusion", "relation.flow", "the ODE of a diffusion is a flow; flow matching learns the same kind"),
    Edge("diffusion", "score", "diffusion.tweedie", "the best denoiser and the score are one function"),
    Edge(
        "score", "EBM", "relation.ebm.step", "the score is an energy's slope; an SDE step is an ODE and a Langevin step"
    ),
    Edge("diffusion", "EBM", "relation.ebm", "one step back and one forward are a Langevin step, which keeps p_t"),
    Edge("EBM", "NCE", "nce.log_z", "a classifier of data against noise learns an energy, and its log Z"),
    Edge("EBM", "GAN", "game.value", "an energy is a critic; its model's samples are the actor"),
    Edge(
        "NCE",
        "GAN",
        "game.jensen_shannon",
        "the best discriminator is a log ratio, as in NCE: the generator is the noise",
    ),
    Edge("EBM", "EM", "cd.below", "contrastive divergence touches KL from below, as EM's bound does from above"),
    Edge("EM", "VAE", "relation.vae", "a VAE minimises a KL of joint laws, as EM does; a linear one is PPCA"),
    Edge("VAE", "diffusion", "relation.one_stroke", "a diffusion of one stroke is blurred, as a VAE is"),
)


@experiment(10, "How the families relate: one edge at a time")
def relations(*, seed: Annotated[int, Range(0, 1_000_000)] = 0) -> Recording:
    """Twelve edges of the map, checked one after the other.

    |left − right| ≤ the allowed error. Parameters: ``seed`` draws the data of the checks. Raises UsageError below 0.

    >>> from mulligan.lab.experiments.relations import EDGES
    >>> len(EDGES)
    12

    Source: Wu's tutorial, the map of relations.
    """
    run = {id: run_identity(id, seed) for id in dict.fromkeys(edge.id for edge in EDGES)}
    return picture([run[edge.id] for edge in EDGES])


def allowed(check: Check) -> float:
    """How far the two sides of a check may be apart.

    >>> round(allowed(Check(0.0, 0.0, 0.0, 0.1, "holds", "monte-carlo")), 3)
    0.475
    """
    return check.error * (STANDARD_ERRORS if check.level == "monte-carlo" else 1.0)


def picture(found: list[Check]) -> Recording:
    """The recording of one check for each edge, in order."""
    frames = len(EDGES) + 1
    values = np.zeros((frames, 5, 1))
    for t, check in enumerate(found):
        numbers = (check.left, check.right, abs(check.difference), allowed(check), check.compared)
        values[t + 1, :, 0] = np.nan_to_num(np.array(numbers, float), posinf=1e300, neginf=-1e300)
    shown = np.ones_like(values)
    shown[0] = 0.0
    names = ("left side", "right side", "|left − right|", "allowed", "pairs compared")
    table = Table("Where this edge's sides disagree most", ("number",), names, values, digits=5, shown=shown)
    captions = ["The families in a row, with all edges that this library checks; none is checked yet."]
    captions += [_caption(edge, check) for edge, check in zip(EDGES, found)]
    holding = np.cumsum([0, *(check.verdict == "holds" for check in found)])
    return Recording(
        panels=(_map(frames), table),
        captions=tuple(captions),
        see="Families that look apart are one thing seen from two sides, and each such statement is a check that runs.",
        numbers={"edges that hold so far": tuple(Quantity(float(k), "exact") for k in holding)},
        checks={f"{edge.first} – {edge.second}: {edge.words}": check for edge, check in zip(EDGES, found)},
        rate=0.6,
    )


def _caption(edge: Edge, check: Check) -> str:
    of = {"rounding": "to rounding", "order": "to the stated order", "monte-carlo": "within the Monte-Carlo error"}
    return (
        f"{edge.first} – {edge.second}: {edge.words}. It {check.verdict} {of[check.level]} ({edge.id}: {check.place})."
    )


def arc(edge: Edge) -> np.ndarray:
    """The edge as half an ellipse over the row of nodes, (40, 2).

    >>> arc(EDGES[0]).shape
    (40, 2)
    """
    a, b = NODES.index(edge.first), NODES.index(edge.second)
    angle = np.linspace(np.pi, 0, 40)
    return np.stack([(a + b) / 2 + abs(b - a) / 2 * np.cos(angle), 0.5 * abs(b - a) * np.sin(angle)], axis=-1)


def _map(frames: int) -> Panel:
    """All arcs in grey, those that are checked in blue, this one in orange."""
    arcs = [arc(edge) for edge in EDGES]
    every = np.concatenate(arcs)[None]
    nobody = np.repeat(np.array([[0.0, -0.6]]), len(arcs[0]), axis=0)  # below the axis: not seen
    done = np.stack([np.concatenate([arcs[k] if k < t else nobody for k in range(len(arcs))]) for t in range(frames)])
    now = np.stack([arcs[t - 1] if t else nobody for t in range(frames)])
    row = Curve(
        "the row of families", np.arange(len(NODES), dtype=float), np.zeros((1, len(NODES))), role="ink", dots=True
    )
    layers = (
        Points("not yet checked", every, role="data", size=1.5),
        Points("checked", done, size=2.0),
        Points("this edge", now, role="mark", size=4.0, opacity=1.0),
        row,
    )
    names = tuple(name if k % 2 == 0 else f"\n{name}" for k, name in enumerate(NODES))
    x = Scale("families", -0.5, len(NODES) - 0.5, names=names)
    return Panel(
        "Edges: grey all, blue checked, orange now", x, Scale("", -0.3, 3.3, names=("",)), layers, legend=False
    )
