"""Broken twins of checkpoints, as patches, which tests/exact/test_checkpoints.py must reject."""

from __future__ import annotations

import os

import jax
import numpy as np

from mulligan import checkpoints
from mulligan.checkpoints import Checkpoints
from mulligan.learners import watches


def moments_forgotten(monkeypatch):
    """Adam starts again with moments of 0 (and its count with them)."""
    right = watches.Resumed.restore

    def broken(self, state):
        return right(self, state)._replace(moments=state.moments)

    monkeypatch.setattr(watches.Resumed, "restore", broken)


def average_forgotten(monkeypatch):
    """The averaged weights start again at the weights."""
    right = watches.Resumed.restore

    def broken(self, state):
        back = right(self, state)
        return back._replace(averaged=back.weights)

    monkeypatch.setattr(watches.Resumed, "restore", broken)


def early_stopping_forgotten(monkeypatch):
    """What was best, and how long nothing was gained, is not brought back."""
    right = watches.Resumed.restore

    def broken(self, state):
        stopping = self.stopping
        before = vars(stopping).copy()
        back = right(self, state)
        vars(stopping).update(before)
        return back

    monkeypatch.setattr(watches.Resumed, "restore", broken)


def steps_counted_anew(monkeypatch):
    """The step number is lost: keys, minibatches and learning rates start again."""
    right = watches.Resumed.restore

    def broken(self, state):
        back = right(self, state)
        self.start, self.earlier = 0, {}
        return back

    monkeypatch.setattr(watches.Resumed, "restore", broken)


def half_the_digits(monkeypatch):
    """Weights are kept in half precision."""
    right = Checkpoints.keep

    def broken(self, name, state, step, curves, notes):
        rounded = jax.tree.map(lambda leaf: np.asarray(leaf).astype(np.float16).astype(np.asarray(leaf).dtype), state)
        right(self, name, rounded, step, curves, notes)

    monkeypatch.setattr(Checkpoints, "keep", broken)


FORGETFUL = (moments_forgotten, average_forgotten, early_stopping_forgotten, steps_counted_anew, half_the_digits)


def in_place(monkeypatch):
    """Written over the one before, without a rename."""

    def broken(path, payload):
        path.parent.mkdir(parents=True, exist_ok=True)
        with checkpoints.open(path, "wb") as file:
            file.write(payload)
            file.flush()
            os.fsync(file.fileno())

    monkeypatch.setattr(checkpoints, "write_durably", broken)


def renamed_first(monkeypatch):
    """Renamed before it was written."""

    def broken(path, payload):
        temporary = path.with_suffix(".tmp")
        temporary.touch()
        os.replace(temporary, path)
        with checkpoints.open(path, "wb") as file:
            file.write(payload)

    monkeypatch.setattr(checkpoints, "write_durably", broken)


CARELESS = (in_place, renamed_first)
