"""Recordings: what an experiment returns. Frames of arrays with axes, captions and numbers; players only draw them.

Definition. A recording has T frames. Each frame has a caption, and each panel has layers whose arrays have a leading axis of
length T, or of length 1 where nothing moves: points (n, 2), curves, bars, paths, arrows, fields, tables. ``numbers`` are
Quantities, one for each frame or one for all; ``checks`` are verdicts of what the recording is to show, in the form of
``mulligan.lab.identity``. The same object plays in a page (player.py), is drawn as GIF and PNG (drawing.py), is saved as
arrays (``save``, ``load_recording``), and is what the tests assert on. An array that is not finite stops the run.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np

from mulligan.errors import FitError, UsageError
from mulligan.lab.identity import Check
from mulligan.quantity import Quantity

# data are grey, the model is blue, what to look at is orange; two more for a second and a third model
Role = Literal["data", "model", "mark", "second", "third", "ink"]
SUFFIXES = (".gif", ".png", ".npz", ".html")


@dataclass(frozen=True)
class Scale:
    """An axis: its ``label`` with the unit, its range (None: what the arrays need), ``log``, and names in place of ticks.

    >>> Scale("x (cm)", 0.0, 1.0).log
    False
    """

    label: str
    low: float | None = None
    high: float | None = None
    log: bool = False
    names: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Layer:
    """What all layers share. ``MOVING`` names the arrays with a leading axis of frames, and their number of axes."""

    label: str
    MOVING: ClassVar[Mapping[str, int]] = {}

    def __post_init__(self) -> None:
        for item in fields(self):
            value = getattr(self, item.name)
            if isinstance(value, np.ndarray) or (item.name in self.MOVING and value is not None):
                value = np.asarray(value, np.float64)
                if not np.isfinite(value).all():
                    place = tuple(int(i) for i in np.argwhere(~np.isfinite(value))[0])
                    raise FitError(f"'{self.label}' is not finite", f"{item.name}{list(place)}", "It cannot be drawn")
                wanted = self.MOVING.get(item.name)
                if wanted is not None and value.ndim != wanted:
                    raise ValueError(
                        f"'{self.label}': {item.name} has {value.ndim} axes, expected {wanted} (frames first)"
                    )
                object.__setattr__(self, item.name, value)


@dataclass(frozen=True, eq=False)
class Points(Layer):
    """Particles: ``xy`` (T or 1, n, 2); ``size`` in pixels.

    >>> Points("a particle", np.zeros((1, 1, 2))).xy.shape
    (1, 1, 2)
    """

    xy: np.ndarray
    role: Role = "model"
    size: float = 4.0
    opacity: float = 0.7
    MOVING: ClassVar[Mapping[str, int]] = {"xy": 3}


@dataclass(frozen=True, eq=False)
class Curve(Layer):
    """A function: ``x`` (n,), ``y`` (T or 1, n), and a band from ``low`` to ``high`` (T or 1, n): the error of y.

    >>> Curve("a line", np.arange(2.0), np.zeros((1, 2))).dashed
    False
    """

    x: np.ndarray
    y: np.ndarray
    role: Role = "model"
    low: np.ndarray | None = None
    high: np.ndarray | None = None
    dashed: bool = False
    dots: bool = False  # mark each value
    MOVING: ClassVar[Mapping[str, int]] = {"y": 2, "low": 2, "high": 2}


@dataclass(frozen=True, eq=False)
class Paths(Layer):
    """Trajectories: ``xy`` (k, m, 2), of which frame t shows the first ``shown[t]`` points (``shown`` has T or 1 entries).

    >>> Paths("a path", np.zeros((1, 5, 2)), np.array([5.0])).shown.tolist()
    [5.0]
    """

    xy: np.ndarray
    shown: np.ndarray
    role: Role = "model"
    width: float = 1.0
    opacity: float = 0.6
    MOVING: ClassVar[Mapping[str, int]] = {"shown": 1}


@dataclass(frozen=True, eq=False)
class Bars(Layer):
    """Bars at ``at`` (b,): ``height`` (T or 1, b) with its standard ``error`` (T or 1, b), drawn as the 95 % interval.

    >>> Bars("one bar", np.zeros(1), np.ones((1, 1))).error is None
    True
    """

    at: np.ndarray
    height: np.ndarray
    role: Role = "model"
    error: np.ndarray | None = None
    width: float = 0.8
    MOVING: ClassVar[Mapping[str, int]] = {"height": 2, "error": 2}


@dataclass(frozen=True, eq=False)
class Arrows(Layer):
    """Vectors ``along`` (T or 1, n, 2) from ``xy`` (T or 1, n, 2), in the units of the axes.

    >>> Arrows("one arrow", np.zeros((1, 1, 2)), np.ones((1, 1, 2))).role
    'mark'
    """

    xy: np.ndarray
    along: np.ndarray
    role: Role = "mark"
    MOVING: ClassVar[Mapping[str, int]] = {"xy": 3, "along": 3}


@dataclass(frozen=True, eq=False)
class Field(Layer):
    """Values ``z`` (T or 1, h, w) on a grid of centres ``x`` (w,) and ``y`` (h,); ``low`` and ``high`` of the colours.

    ``palette``: ``blue`` (a density), ``grey`` (a picture), ``signed`` (around 0).

    >>> Field("flat", np.arange(2.0), np.arange(2.0), np.zeros((1, 2, 2))).palette
    'blue'
    """

    x: np.ndarray
    y: np.ndarray
    z: np.ndarray
    palette: Literal["blue", "grey", "signed"] = "blue"
    low: float | None = None
    high: float | None = None
    scale_bar: bool = False
    MOVING: ClassVar[Mapping[str, int]] = {"z": 3}


@dataclass(frozen=True)
class Panel:
    """One set of axes with its layers; ``square`` gives both axes one scale, ``note`` stands below it.

    >>> Panel("nothing", Scale("x"), Scale("y")).layers
    ()
    """

    title: str
    x: Scale
    y: Scale
    layers: tuple[Layer, ...] = ()
    square: bool = False
    bare: bool = False  # no ticks: pictures
    legend: bool = True


@dataclass(frozen=True, eq=False)
class Table(Layer):
    """Numbers in place of axes: ``values`` (T or 1, rows, columns) with standard ``errors`` of that shape or None.

    ``shown`` of that shape is 0 where there is no number (yet): a dash is drawn.

    >>> Table("one number", ("n",), ("row",), np.ones((1, 1, 1))).digits
    3
    """

    heads: tuple[str, ...]
    names: tuple[str, ...]
    values: np.ndarray
    errors: np.ndarray | None = None
    digits: int = 3
    shown: np.ndarray | None = None
    MOVING: ClassVar[Mapping[str, int]] = {"values": 3, "errors": 3, "shown": 3}


@dataclass(frozen=True)
class Recording:
    """Frames of one experiment, with everything that is needed to play, check and make it again.

    ``panels``: Panel or Table, left to right; ``captions`` (T): what is seen in each frame; ``see``: one sentence, what the
    whole shows; ``numbers``: name → Quantity for each frame (or one); ``checks``: sentence → Check. The experiment's wrapper
    fills ``name``, ``chapter``, ``title``, ``parameters`` (with the seed). ``rate``: frames a second.
    Raises ValueError where the frames do not agree, FitError where an array is not finite.

    >>> Recording((Panel("p", Scale("x"), Scale("y")),), ("the only frame",), "nothing").length
    1
    """

    panels: tuple[Panel | Table, ...]
    captions: tuple[str, ...]
    see: str
    numbers: Mapping[str, tuple[Quantity, ...]] = field(default_factory=dict)
    checks: Mapping[str, Check] = field(default_factory=dict)
    name: str = ""
    chapter: int = 0
    title: str = ""
    parameters: Mapping[str, Any] = field(default_factory=dict)
    rate: float = 6.0

    def __post_init__(self) -> None:
        lengths = {label: len(array) for label, array in self._moving()}
        lengths |= {name: len(values) for name, values in self.numbers.items()}
        wrong = {name: length for name, length in lengths.items() if length not in (1, self.length)}
        if wrong or not self.captions:
            raise ValueError(f"{self.length} captions, but frames: {wrong}")

    def _moving(self) -> list[tuple[str, np.ndarray]]:
        layers = [layer for panel in self.panels for layer in layers_of(panel)]
        arrays = [(f"{layer.label}: {name}", getattr(layer, name)) for layer in layers for name in layer.MOVING]
        return [(label, array) for label, array in arrays if array is not None]

    @property
    def length(self) -> int:
        """The number T of frames."""
        return len(self.captions)

    @property
    def holds(self) -> bool:
        """Whether every check of the recording holds."""
        return all(check.verdict == "holds" for check in self.checks.values())

    @property
    def code(self) -> str:
        """The one line of Python (after ``import mulligan as mg``) that makes this recording."""
        given = ", ".join(f"{key}={value!r}" for key, value in self.parameters.items())
        return f"mg.lab.{self.name}({given})"

    @property
    def frames(self) -> dict[str, np.ndarray]:
        """The arrays that are drawn, "label: array" → (T or 1, …)."""
        return dict(self._moving())

    def layer(self, label: str) -> Any:
        """The layer of that label; raises KeyError if there is none."""
        return {layer.label: layer for panel in self.panels for layer in layers_of(panel)}[label]

    def save(self, path: str | Path) -> Path:
        """Write ``.html`` (plays offline), ``.gif``, ``.png`` (a strip of frames) or ``.npz`` (the arrays; no pickles).

        Raises UsageError for another suffix, SetupError where a file cannot be written or (GIF, PNG) Matplotlib is missing.
        """
        path = Path(path)
        if path.suffix not in SUFFIXES:
            raise UsageError(f"a recording cannot be written as '{path.name}'", "", "", f"-o NAME{'|'.join(SUFFIXES)}")
        if path.suffix == ".npz":
            from mulligan.lab.storage import write_recording

            write_recording(self, path)
        elif path.suffix == ".html":
            from mulligan.lab.player import write_page

            write_page(self, path)
        else:
            from mulligan.lab.drawing import write_gif, write_strip

            (write_gif if path.suffix == ".gif" else write_strip)(self, path)
        return path

    def _repr_html_(self) -> str:
        """What a notebook shows: the player, in a frame of its own, with everything inside."""
        from mulligan.lab.player import notebook_frame

        return notebook_frame(self)


def layers_of(panel: Panel | Table) -> tuple[Layer, ...]:
    """The layers of a panel; a table is its own."""
    return panel.layers if isinstance(panel, Panel) else (panel,)


def at_frame(array: np.ndarray | None, frame: int) -> Any:
    """The part of a layer's array that frame shows: its only one if nothing moves.

    >>> at_frame(np.arange(3)[:, None], 2).tolist(), at_frame(np.arange(1)[:, None], 2).tolist()
    ([2], [0])
    """
    return None if array is None else array[frame if len(array) > 1 else 0]
