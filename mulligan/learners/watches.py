"""What looks at a training run beside the early stopping: the user's callbacks, and checkpoints, which come last.

A callback is called with the step, the model with the averaged weights, and copies of the learning curves, so it can change
nothing. What it says to stop a run is kept with the checkpoint of that step: a run that was killed after that goes
on as one that was stopped.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mulligan.checkpoints import Checkpoints
from mulligan.core import State
from mulligan.errors import UsageError
from mulligan.loop import EarlyStopping, Watch

Callback = Callable[[int, Any, dict[str, np.ndarray]], str | None]


@dataclass
class Halt:
    """The sentence with which a callback stopped the run, or None."""

    sentence: str | None = None


@dataclass
class Resumed:
    """Writes checkpoints as a watch of the run, after all others have looked, and brings back the last one."""

    checkpoints: Checkpoints
    name: str
    stopping: EarlyStopping
    halt: Halt
    every: int
    start: int = 0
    earlier: dict[str, np.ndarray] = field(default_factory=dict)

    def __call__(self, step: int, state: State, history: dict[str, np.ndarray]) -> str | None:
        if self.checkpoints.due(self.name):
            self.keep(step, state, self.whole(history))
        return None

    def whole(self, history: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """What was learned before the run was stopped, and since."""
        return {
            entry: np.concatenate([curve[entry] for curve in (self.earlier, history) if entry in curve])
            for entry in {**self.earlier, **history}
        }

    def keep(self, step: int, state: State, history: dict[str, np.ndarray]) -> None:
        """Write the checkpoint of this step."""
        stopping = self.stopping
        notes = {
            "best_score": stopping.best_score,
            "best_step": stopping.best_step,
            "waited": stopping.waited,
            "scores": stopping.scores,
            "halted": self.halt.sentence,
        }
        self.checkpoints.keep(self.name, (state, stopping.best_state), step, history, notes)

    def restore(self, state: State) -> State:
        """The state to start from, the fresh one where there is no checkpoint."""
        saved = self.checkpoints.restore(self.name, (state, state))
        if saved is None:
            return state
        state, best = saved.state
        self.start, self.earlier, stopping = saved.step, saved.curves, self.stopping
        stopping.best_state, stopping.best_score = best, saved.notes["best_score"]
        stopping.best_step, stopping.waited = saved.notes["best_step"], saved.notes["waited"]
        stopping.scores = [(int(step), float(score)) for step, score in saved.notes["scores"]]
        self.halt.sentence = saved.notes["halted"]
        return state


@dataclass
class Watched:
    """A user's callback as a watch of the run; ``model`` takes a state to the model with its averaged weights."""

    callback: Callback
    every: int
    model: Callable[[State], Any]
    stopping: EarlyStopping
    halt: Halt
    resumed: Resumed | None = None

    def __call__(self, step: int, state: State, history: dict[str, np.ndarray]) -> str | None:
        history = history if self.resumed is None else self.resumed.whole(history)
        said = self.callback(step, self.model(state), copied(with_select(history, step, self.stopping)))
        if said is not None and not isinstance(said, str):
            what = f"a callback of watch returned {said!r} at step {step}"
            raise UsageError(what, do="None to go on, or a sentence, which stops the run")
        self.halt.sentence = self.halt.sentence or said or None
        return said


@dataclass
class Sickness:
    """A watch of the learner's health, which looks before the select rows are: a sick state is never scored or kept."""

    watch: Watch
    every: int
    stopping: EarlyStopping
    sentence: str | None = None

    def __call__(self, step: int, state: State, history: dict[str, np.ndarray]) -> str | None:
        self.sentence = self.watch(step, state, history)
        if self.sentence and self.stopping.best_step:
            self.sentence += f"; the best state, of step {self.stopping.best_step}, is kept"
        elif self.sentence:
            self.sentence += "; the state before training is kept"
        return self.sentence


def copied(history: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Learning curves that a callback may write into."""
    return {name: curve.copy() for name, curve in history.items()}


def with_select(history: dict[str, np.ndarray], steps: int, stopping: EarlyStopping) -> dict[str, np.ndarray]:
    """The learning curves with ``select``, the scores of the select rows: NaN between looks."""
    history = {**history, "select": np.full(steps, np.nan)}
    for step, value in stopping.scores:
        history["select"][step - 1] = value
    return history
