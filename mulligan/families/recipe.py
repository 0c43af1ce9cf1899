"""What a family is given to fit, and what it gives back.

A recipe is a function from ``Fitting`` to ``Outcome``. It sees encoded training and select rows, never the test part; all
its choices are made on select and listed in ``Outcome.choices``, so that a reader can see what was tried.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from mulligan.checkpoints import Checkpoints
from mulligan.compilations import Compilations
from mulligan.core import Density
from mulligan.data.codec import Encoded
from mulligan.data.given import AnyCodec
from mulligan.data.table import Table
from mulligan.learners.watches import Callback
from mulligan.loop import Run
from mulligan.measures.likelihood import row_log_prob


@dataclass(frozen=True)
class Fitting:
    """Everything a recipe may look at.

    ``train`` and ``select`` are encoded rows; ``rows`` is the number of real training rows (draws do not count);
    ``steps`` caps the steps of every run (None: the effort decides) and ``budget`` the seconds of the whole fit;
    ``pulse(phase, step, steps, latest)`` hears of progress; ``interrupted()`` says that the user pressed Ctrl-C: return
    the best so far. ``compiled`` grows with the seconds of compilation, which no budget counts. ``train_rows`` and
    ``select_rows`` are the rows before encoding, for a family with a codec of its own; ``checkpoints`` is where a long
    training keeps what it needs to go on after a kill, or None. ``watch`` are the user's callbacks, which a training by
    gradient calls with (step, model with averaged weights, learning curves). ``weights`` and ``select_weights`` say how
    often each row counts, (rows,), or None: once each; only families whose entry says ``weighted`` may be handed any.
    """

    train: Encoded
    select: Encoded
    codec: AnyCodec
    train_rows: Table
    select_rows: Table
    seed: int
    budget: float | None
    steps: int | None
    pulse: Callable[[str, int, int, dict[str, float]], None]
    interrupted: Callable[[], bool] = lambda: False
    compiled: Compilations = field(default_factory=Compilations)
    checkpoints: Checkpoints | None = None
    watch: tuple[Callback, ...] = ()
    weights: np.ndarray | None = None
    select_weights: np.ndarray | None = None

    @property
    def rows(self) -> int:
        return len(self.train.points)

    @property
    def dim(self) -> int:
        return self.train.points.shape[2]

    @property
    def incomplete(self) -> bool:
        """Whether training rows have empty cells: NaN in the points."""
        return self.train.missing is not None

    @property
    def given(self) -> int:
        """g, the number of coordinates that the model is conditioned on; 0 where it is not."""
        return 0 if self.train.given is None else self.train.given.shape[1]

    @property
    def point_weights(self) -> np.ndarray | None:
        """How much each draw of each training row counts, (rows·m,), or None: all the same."""
        return None if self.weights is None else np.repeat(self.weights, self.train.points.shape[1])

    def select_score(self, density: Density) -> float:
        """Mean log p of the select rows, in the user's units: what every choice is made by."""
        return float(np.average(row_log_prob(density, self.select), weights=self.select_weights))


@dataclass
class Outcome:
    """A fitted model and how it came about.

    ``label`` names the choice for a reader ("mixture (k=8, full)"); ``choices`` lists what was tried with its mean log p
    on select (and BIC where there is one); ``history`` holds learning curves; ``steps`` the steps of the run that made
    the model; ``table`` its parameters in the user's units; ``stopped`` a sentence if something ended it early.
    ``codec`` is the family's own, None for the one that all share. ``twin`` is the number of steps with which ``steps``
    repeats this fit where it is not the number taken (a schedule that ended early). ``failed`` says why the training came
    to a bad end: ``model`` is then its last healthy state, to be kept but not to be ranked.
    """

    model: Any
    label: str
    parameters: int
    choices: list[dict[str, Any]] = field(default_factory=list)
    history: dict[str, np.ndarray] = field(default_factory=dict)
    steps: int = 0
    health: list[str] = field(default_factory=list)
    table: dict[str, Any] | None = None
    stopped: str | None = None
    interrupted: bool = False
    codec: AnyCodec | None = None
    twin: int | None = None
    failed: str | None = None


class Recipe(Protocol):
    """How one family is fitted."""

    def __call__(self, fitting: Fitting) -> Outcome: ...


def weighted_moments(points: np.ndarray, weights: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Mean (d,) and maximum-likelihood covariance (d, d), float64; ``weights`` (n,) says how often each point counts."""
    share = np.full(len(points), 1 / len(points)) if weights is None else weights / weights.sum()
    mean = share @ points
    centred = points - mean
    return mean, (centred.T * share) @ centred


def all_points(encoded: Encoded) -> np.ndarray:
    """Every draw of every row as rows of one float64 matrix."""
    return encoded.points.reshape(-1, encoded.points.shape[2])


class Allowance:
    """What a fit may still use: seconds and steps, over all runs that a recipe makes, in a fixed order.

    A budget of seconds that binds ends the search after some total number of steps; the same search with that number
    as ``steps`` ends in the same place, whatever the clock does then. That total is the ``--steps`` twin of a budget.
    """

    def __init__(self, seconds: float | None, steps: int | None, compiled: Compilations):
        self._end = None if seconds is None else time.perf_counter() + seconds
        self._steps, self._compiled = steps, compiled
        self.used = 0

    def seconds_left(self) -> float | None:
        """Seconds left, never less than 0; None without a budget. Compilation is not counted."""
        if self._end is None:
            return None
        return max(0.0, self._end + self._compiled.seconds - time.perf_counter())

    def steps_left(self, wanted: int) -> int:
        """How many of the wanted steps the next run may take."""
        return wanted if self._steps is None else max(0, min(wanted, self._steps - self.used))

    def spend(self, finished: Run) -> None:
        """Count a run's steps."""
        self.used += finished.step

    @property
    def over(self) -> bool:
        """Whether nothing is left."""
        return self.seconds_left() == 0.0 or self.steps_left(1) == 0
