"""Checkpoints: a stopped run goes on bit for bit, a write that fails leaves the one before, another fit's is refused."""

from __future__ import annotations

import builtins
import json
import os
from pathlib import Path
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from saboteurs import checkpoints as saboteurs
from safetensors.numpy import save_file

from mulligan import checkpoints as module
from mulligan.checkpoints import Checkpoints, checkpoints_in, is_checkpoint
from mulligan.errors import FormatError, UsageError
from mulligan.learners.gradient import Plan, train


class State(NamedTuple):
    weights: np.ndarray
    count: np.ndarray
    pair: tuple


def state(shift=0.0):
    return State(
        np.arange(6.0, dtype=np.float32).reshape(2, 3) + shift,
        np.int32(3),
        (np.float64(np.pi), np.zeros((0, 2), np.float32)),
    )


def same(left, right):
    leaves = zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True)
    return all(np.asarray(a).tobytes() == np.asarray(b).tobytes() and np.shape(a) == np.shape(b) for a, b in leaves)


# --- what is written comes back ---------------------------------------------------------------------------------------


def test_a_state_comes_back_with_its_bits_shapes_and_notes(tmp_path):
    notes = {"best_score": -np.inf, "scores": [[25, 0.1], [50, float("nan")]], "third": 1 / 3}
    curves = {"train": np.array([1.0, np.nan, -np.inf]), "gradient.norm": np.ones(3, np.float32)}
    Checkpoints(tmp_path, {"seed": 1}).keep("a", state(), 3, curves, notes)
    kept = Checkpoints(tmp_path, {"seed": 1})
    back = kept.restore("a", state(9.0))
    assert isinstance(back.state, State) and same(back.state, state()) and back.step == 3 and kept.resumed
    assert back.notes["best_score"] == -np.inf and back.notes["third"] == 1 / 3 and np.isnan(back.notes["scores"][1][1])
    assert set(back.curves) == set(curves)
    assert all(back.curves[name].tobytes() == curve.tobytes() for name, curve in curves.items())
    assert kept.restore("b", state()) is None
    assert [path.name for path in tmp_path.iterdir()] == ["a.safetensors"]


def test_the_last_of_two_is_kept_and_names_are_apart(tmp_path):
    kept = Checkpoints(tmp_path, {})
    kept.keep("a", state(1.0), 1, {}, {})
    kept.keep("b", (), 7, {}, {})
    kept.keep("a", state(2.0), 2, {}, {})
    assert same(kept.restore("a", state()).state, state(2.0)) and kept.restore("b", ()).step == 7
    kept.clear()
    assert list(tmp_path.iterdir()) == []


def test_due_after_its_seconds_only(tmp_path, monkeypatch):
    clock = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: clock[0])
    kept = Checkpoints(tmp_path, {}, seconds=5.0)
    assert not kept.due("a")  # the clock of a name starts when it is first asked for
    clock[0] = 104.9
    assert not kept.due("a") and not kept.due("b")
    clock[0] = 105.0
    assert kept.due("a")
    kept.keep("a", (), 0, {}, {})
    assert not kept.due("a")
    monkeypatch.setattr(module, "SECONDS", 0.0)
    assert Checkpoints(tmp_path, {}).due("a")


# --- whose they are ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "other, said",
    [
        ({"family": "flow", "seed": 2, "rows": "a" * 64}, "seed was 1 and is 2."),
        ({"family": "vae", "seed": 2, "rows": "a" * 64}, "family was flow and is vae (and 1 more difference)."),
        ({"family": "flow", "seed": 1, "rows": "b" * 64}, "rows was aaaaaaaa and is bbbbbbbb."),
        ({"family": "flow", "seed": 1, "rows": None}, "rows was aaaaaaaa and is none."),
        ({"family": "flow", "rows": "a" * 64}, "seed was 1 and is none."),
    ],
)
def test_another_fits_is_refused_with_the_first_difference(tmp_path, other, said):
    Checkpoints(tmp_path, {"family": "flow", "seed": 1, "rows": "a" * 64}).keep("a", state(), 1, {}, {})
    for call in (lambda kept: kept.restore("a", state()), lambda kept: kept.check()):
        with pytest.raises(UsageError) as raised:
            call(Checkpoints(tmp_path, other))
        assert f"{tmp_path} belongs to another fit: {said}" in str(raised.value) and "--overwrite" in str(raised.value)
    Checkpoints(tmp_path, {"family": "flow", "seed": 1, "rows": "a" * 64}).check()


def test_tuples_and_lists_are_one_identity(tmp_path):
    Checkpoints(tmp_path, {"parts": (1, 2)}).keep("a", (), 0, {}, {})
    Checkpoints(tmp_path, {"parts": [1, 2]}).check()


@pytest.mark.parametrize("share", [0.0, 0.4, 0.98])
def test_a_broken_one_is_refused_and_can_be_cleared(tmp_path, share):
    kept = Checkpoints(tmp_path, {})
    kept.keep("a", state(), 1, {}, {})
    whole = (tmp_path / "a.safetensors").read_bytes()
    (tmp_path / "a.safetensors").write_bytes(whole[: int(share * len(whole))])
    for call in (lambda: kept.restore("a", state()), kept.check):
        with pytest.raises(FormatError, match=r"a\.safetensors is broken.*--overwrite"):
            call()
    assert is_checkpoint(tmp_path / "a.safetensors")
    kept.clear()
    assert checkpoints_in(tmp_path) == []


def test_other_peoples_files_and_other_formats_are_refused(tmp_path, monkeypatch):
    save_file({"x": np.zeros(2)}, tmp_path / "a.safetensors")
    assert not is_checkpoint(tmp_path / "a.safetensors")
    with pytest.raises(FormatError, match="is broken"):
        Checkpoints(tmp_path, {}).check()
    monkeypatch.setattr(module, "FORMAT", 2)
    Checkpoints(tmp_path, {}).keep("a", state(), 1, {}, {})
    monkeypatch.undo()
    with pytest.raises(FormatError, match="has format 2; this version reads 1"):
        Checkpoints(tmp_path, {}).restore("a", state())


@pytest.mark.parametrize(
    "other",
    [
        state()._replace(weights=np.zeros((3, 2), np.float32)),
        state()._replace(weights=np.zeros((2, 3), np.float64)),
        (*state(), np.zeros(1)),
    ],
)
def test_a_state_of_another_shape_is_refused(tmp_path, other):
    kept = Checkpoints(tmp_path, {})
    kept.keep("a", state(), 1, {}, {})
    with pytest.raises(FormatError, match="does not hold the state of this run"):
        kept.restore("a", other)


# --- a write that fails -----------------------------------------------------------------------------------------------

OPERATIONS = ("mkdir", "open", "half", "write", "flush", "fsync", "replace")


class Failing:
    """A file that fails at one operation; ``half`` fails after half the bytes are on the disk."""

    def __init__(self, file, operation, error):
        self.file, self.operation, self.error = file, operation, error

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.file.close()

    def write(self, payload):
        if self.operation == "write":
            raise self.error
        if self.operation == "half":
            self.file.write(payload[: len(payload) // 2])
            self.file.flush()
            raise self.error
        return self.file.write(payload)

    def flush(self):
        if self.operation == "flush":
            raise self.error
        self.file.flush()

    def fileno(self):
        return self.file.fileno()


def fail_at(monkeypatch, operation, error):
    """The next write of a checkpoint meets ``error`` at this operation of the file system."""

    def refuse(*_, **__):
        raise error

    if operation == "mkdir":
        monkeypatch.setattr(Path, "mkdir", refuse)
    elif operation == "open":
        monkeypatch.setattr(module, "open", refuse, raising=False)
    elif operation in ("fsync", "replace"):
        monkeypatch.setattr(os, operation, refuse)
    else:
        right = builtins.open
        monkeypatch.setattr(module, "open", lambda *call: Failing(right(*call), operation, error), raising=False)


def check_a_failed_write_keeps_the_one_before(folder, monkeypatch, operation, error):
    """The one before is whole, nothing half-written is left, and a full disk is a warning and not the end."""
    warnings = []
    kept = Checkpoints(folder, {"seed": 1}, warn=warnings.append)
    monkeypatch.setattr(module, "open", builtins.open, raising=False)
    kept.keep("a", state(1.0), 1, {"train": np.ones(1)}, {})
    with monkeypatch.context() as patch:
        fail_at(patch, operation, error)
        if isinstance(error, OSError):
            kept.keep("a", state(2.0), 2, {}, {})
            kept.keep("a", state(2.0), 2, {}, {})
            assert "No space left on device" in str(kept.failure) and len(warnings) == 1
            assert "training goes on" in warnings[0]
        else:
            with pytest.raises(type(error)):
                kept.keep("a", state(2.0), 2, {}, {})
    back = Checkpoints(folder, {"seed": 1}).restore("a", state())
    assert back.step == 1 and same(back.state, state(1.0)) and back.curves["train"] == [1.0]
    assert [path.name for path in folder.iterdir()] == ["a.safetensors"]
    kept.keep("a", state(3.0), 3, {}, {})
    assert kept.failure is None and kept.restore("a", state()).step == 3


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()], ids=["full", "ctrl-c"])
@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_failed_write_keeps_the_one_before(tmp_path, monkeypatch, operation, error):
    check_a_failed_write_keeps_the_one_before(tmp_path, monkeypatch, operation, error)


@pytest.mark.parametrize("saboteur", saboteurs.CARELESS)
def test_a_careless_write_is_seen(tmp_path, monkeypatch, saboteur):
    saboteur(monkeypatch)
    seen = []
    for operation in OPERATIONS:
        folder = tmp_path / operation
        try:
            check_a_failed_write_keeps_the_one_before(
                folder, monkeypatch, operation, OSError(28, "No space left on device")
            )
        except (AssertionError, FormatError, OSError):
            seen.append(operation)
    assert "half" in seen and "write" in seen


def test_a_file_in_place_of_the_folder_is_a_warning(tmp_path):
    (tmp_path / "file").write_text("")
    kept = Checkpoints(tmp_path / "file", {})
    kept.keep("a", state(), 1, {}, {})
    assert kept.failure.startswith("a checkpoint could not be written: ")
    assert (tmp_path / "file").read_text() == ""


def test_what_a_kill_left_is_removed(tmp_path):
    (tmp_path / ".a.safetensors.17.tmp").write_bytes(b"half")
    kept = Checkpoints(tmp_path, {})
    kept.keep("a", state(), 1, {}, {})
    kept.tidy()
    assert [path.name for path in tmp_path.iterdir()] == ["a.safetensors"]
    assert json.loads(json.dumps(kept.identity)) == {}


# --- a stopped run goes on bit for bit --------------------------------------------------------------------------------


class Slope(eqx.Module):
    """y = weights x + bias."""

    weights: jax.Array
    bias: jax.Array


class Points(NamedTuple):
    x: np.ndarray
    y: np.ndarray


def squares(model, key, batch):
    noise = 0.1 * jax.random.normal(key, batch.y.shape)
    errors = batch.x @ model.weights + model.bias + noise - batch.y
    return jnp.mean(errors**2), {"train": -jnp.mean(errors**2)}


def points(n, seed):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 3)).astype(np.float32)
    return Points(x, (x @ [1.0, -2.0, 0.5] + rng.normal(size=n)).astype(np.float32))


ROWS, SELECT = points(60, 0), points(40, 1)
PLAN = Plan(400, batch=16, rate=0.05, decay=0.01, patience=4)


def learned(checkpoints=None, plan=PLAN):
    model = Slope(jnp.zeros(3), jnp.zeros(()))

    def score(model):
        return -float(np.mean((SELECT.x @ np.asarray(model.weights) + float(model.bias) - SELECT.y) ** 2))

    return train(squares, model, ROWS, score, plan, seed=5, checkpoints=checkpoints)


class Killed(BaseException):
    """The end of a process, as the library sees it: nothing after it runs."""


class Mortal(Checkpoints):
    """Dies right after it wrote its checkpoint number ``life``."""

    life = 1

    def keep(self, *arguments):
        super().keep(*arguments)
        self.life -= 1
        if self.life == 0:
            raise Killed


def check_it_goes_on_bit_for_bit(folder, plan=PLAN):
    """Killed after one, two, three ... checkpoints and called again, it ends as the run that never stopped."""
    whole = learned(plan=plan)
    for lives in ([1], [3], [2, 1, 1], [1] * 12):
        place = folder / "-".join(map(str, lives))
        for life in lives:
            mortal = Mortal(place, {}, seconds=0.0)
            mortal.life = life
            try:
                learned(mortal, plan)
            except Killed:
                continue
        resumed = learned(Checkpoints(place, {}, seconds=0.0), plan)
        assert same(resumed.model, whole.model)
        assert len(resumed.run.history.get("train", ())) < whole.step  # it went on, and did not begin again
        assert (resumed.score, resumed.best_step, resumed.step) == (whole.score, whole.best_step, whole.step)
        assert resumed.run.stopped == whole.run.stopped
        assert list(resumed.history) == list(whole.history)
        for name, curve in whole.history.items():
            assert np.array_equal(resumed.history[name], curve, equal_nan=True), name


@pytest.mark.parametrize("plan", [PLAN, Plan(130, batch=16, rate=0.05, patience=99)], ids=["early stop", "odd end"])
def test_a_killed_training_goes_on_bit_for_bit(tmp_path, plan):
    check_it_goes_on_bit_for_bit(tmp_path, plan)


def test_the_example_stops_early_after_some_looks():
    """Else nothing of the early stopping would be tested."""
    whole = learned()
    assert whole.run.stopped and 0 < whole.best_step < whole.step < PLAN.steps


def test_a_finished_training_is_not_trained_again(tmp_path):
    whole = learned(Checkpoints(tmp_path, {}))
    assert checkpoints_in(tmp_path)  # the end is kept, whatever the seconds
    again = learned(Checkpoints(tmp_path, {}))
    assert same(again.model, whole.model) and again.run.stopped == whole.run.stopped and again.run.seconds < 0.5


@pytest.mark.parametrize("saboteur", saboteurs.FORGETFUL)
def test_a_forgetful_checkpoint_is_seen(tmp_path, monkeypatch, saboteur):
    saboteur(monkeypatch)
    with pytest.raises(AssertionError):
        check_it_goes_on_bit_for_bit(tmp_path)
