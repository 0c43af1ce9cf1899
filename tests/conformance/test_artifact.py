"""Model folders: broken, doctored and foreign ones are refused with FormatError; saving is whole or not at all."""

from __future__ import annotations

import json
import os
import pickle
import shutil

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from shared_fits import LABELS, fitted, home, in_turn, table

from mulligan.catalog import FAMILIES
from mulligan.errors import FormatError, MulliganError, SetupError, UsageError
from mulligan.workbench import artifact
from mulligan.workbench.artifact import load, save


@pytest.fixture
def folder(tmp_path):
    return save(fitted("mixture", "plane"), tmp_path / "model")


def change_json(path, change):
    fields = json.loads(path.read_text())
    change(fields)
    path.write_text(json.dumps(fields))


def change_weights(folder, change):
    arrays = load_file(folder / "weights.safetensors")
    change(arrays)
    save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, folder / "weights.safetensors")


# --- what is written --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("label", in_turn(LABELS))
def test_a_folder_holds_text_and_safetensors_only(label, tmp_path):
    path = save(fitted(label, home(label)), tmp_path / "deep" / "model")
    names = sorted(entry.name for entry in path.iterdir())
    assert names == ["calibration.npy", "card.md", "config.json", "history.csv", "schema.json", "weights.safetensors"]
    config = json.loads((path / "config.json").read_text(), parse_constant=pytest.fail)
    assert config["format"] == artifact.FORMAT and config["family"] == label.split(":")[0]
    for entry in path.iterdir():
        assert entry.read_bytes()[:2] not in (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05", b"PK")
    says = "contains the training rows" in (path / "card.md").read_text()
    assert says == FAMILIES[config["family"]].holds_rows
    assert [entry.name for entry in path.parent.iterdir()] == ["model"]  # no temporary folder is left


def test_what_was_saved_twice_is_the_same(tmp_path):
    one, two = (save(fitted("mixture", "plane"), tmp_path / name) for name in ("one", "two"))
    for entry in one.iterdir():
        assert entry.read_bytes() == (two / entry.name).read_bytes(), entry.name


# --- what is refused --------------------------------------------------------------------------------------------------


def refuse(path, *words):
    with pytest.raises(FormatError) as raised:
        load(path)
    text = str(raised.value)
    assert all(word in text for word in words), text
    return text


def test_nothing_there(tmp_path):
    refuse(tmp_path / "nowhere", "no model folder", "mulligan fit")


@pytest.mark.parametrize("name", ["config.json", "weights.safetensors", "schema.json"])
def test_a_missing_file_is_named(folder, name):
    (folder / name).unlink()
    refuse(folder, "not a model folder", name)


@pytest.mark.parametrize("name", ["config.json", "weights.safetensors", "schema.json", "calibration.npy"])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.97])
def test_a_truncated_file_is_refused(folder, name, share):
    whole = (folder / name).read_bytes()
    (folder / name).write_bytes(whole[: int(len(whole) * share)])
    refuse(folder)


def test_a_pickle_is_never_opened(folder, tmp_path):
    class Bomb:
        def __reduce__(self):
            return (pytest.fail, ("a pickle was opened",))

    bomb = pickle.dumps(Bomb())
    (tmp_path / "model.pkl").write_bytes(bomb)
    refuse(tmp_path / "model.pkl", "pickle")
    (folder / "weights.safetensors").write_bytes(bomb)
    refuse(folder, "pickle")


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_pickles_of_every_protocol_are_told(folder, protocol):
    (folder / "weights.safetensors").write_bytes(pickle.dumps({"means": 1}, protocol))
    refuse(folder, "pickle")


def test_a_pickled_calibration_is_refused(folder):
    np.save(folder / "calibration.npy", np.array([{"a": 1}], object), allow_pickle=True)
    refuse(folder, "calibration.npy")


def test_a_newer_format_is_refused_with_the_command(folder):
    change_json(folder / "config.json", lambda config: config.update(format=artifact.FORMAT + 1))
    refuse(folder, "newer mulligan", "pip install -U mulligan")


@pytest.mark.parametrize("number", ["1", None, True, 1.5, [], 0, -3])
def test_no_format_number_is_refused(folder, number):
    change_json(folder / "config.json", lambda config: config.update(format=number))
    refuse(folder, "format")


def test_foreign_json_is_refused(folder):
    for text in ("[]", "3", "null", '{"format": 1}', "{", "\x00", "[" * 100_000):
        (folder / "config.json").write_text(text)
        refuse(folder)
    (folder / "config.json").write_bytes(b"\xff\xfe\x00")
    refuse(folder, "not JSON")


CONFIGS = {
    "an unknown class": lambda config: config["model"].update({"class": "Popen"}),
    "a class with a path": lambda config: config["model"].update({"class": "os.system"}),
    "another class": lambda config: config["model"].update({"class": "Gaussian"}),
    "an extra field": lambda config: config["model"]["fields"].update(colour={"value": 1}),
    "a field less": lambda config: config["model"]["fields"].pop("means"),
    "a field as a value": lambda config: config["model"]["fields"].update(means={"value": "nothing"}),
    "no model": lambda config: config.pop("model"),
    "no family": lambda config: config.pop("family"),
    "an unknown family": lambda config: config.update(family="oracle"),
    "a card that is none": lambda config: config.update(card=3),
    "fields that are a list": lambda config: config["model"].update(fields=["means"]),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_a_doctored_config_is_refused(folder, name):
    change_json(folder / "config.json", CONFIGS[name])
    refuse(folder)


def stretch(name):
    return lambda arrays: arrays.update({name: np.concatenate([arrays[name], arrays[name]])})


def widen(arrays):
    arrays["means"] = np.pad(arrays["means"], ((0, 0), (0, 1)))
    arrays["choleskys"] = np.pad(arrays["choleskys"], ((0, 0), (0, 1), (0, 1)), constant_values=1)


WEIGHTS = {
    "a missing array": lambda arrays: arrays.pop("means"),
    "an extra array": lambda arrays: arrays.update(colour=np.zeros(3)),
    "NaN": lambda arrays: arrays["means"].__setitem__((0, 0), np.nan),
    "infinite means": lambda arrays: arrays["means"].__setitem__((0, 0), np.inf),
    "too many parts": stretch("means"),
    "too many weights": stretch("log_weights"),
    "a shape turned": lambda arrays: arrays.update(means=arrays["means"].T.copy()),
    "another number of columns": widen,
    "bytes for numbers": lambda arrays: arrays.update(means=np.zeros(arrays["means"].shape, np.uint8)),
}


@pytest.mark.parametrize("name", WEIGHTS)
def test_doctored_weights_are_refused(folder, name):
    change_weights(folder, WEIGHTS[name])
    refuse(folder)


SCHEMAS = {
    "a column less": lambda fields: fields["columns"].pop(),
    "a part less": lambda fields: fields["parts"].pop(),
    "a scale of 0": lambda fields: fields["parts"][0].update(scale=0.0),
    "a scale that is text": lambda fields: fields["parts"][0].update(scale="wide"),
    "an unknown kind": lambda fields: fields["columns"][0].update(kind="spectral"),
    "an unknown transform": lambda fields: fields["columns"][0].update(transform="exec"),
    "an unknown entry": lambda fields: fields["columns"][0].update(colour=1),
    "a part out of place": lambda fields: fields["parts"][0].update(start=7),
    "nothing": lambda fields: fields.clear(),
    "NaN for a mean": lambda fields: fields["parts"][0].update(mean=float("nan")),
}


@pytest.mark.parametrize("name", SCHEMAS)
def test_a_doctored_schema_is_refused(folder, name):
    change_json(folder / "schema.json", SCHEMAS[name])
    refuse(folder)


def test_a_good_folder_still_loads(folder):
    """The twin of all refusals: doctoring nothing is no reason to refuse."""
    change_json(folder / "config.json", lambda config: None)
    change_json(folder / "schema.json", lambda fields: None)
    change_weights(folder, lambda arrays: None)
    assert np.array_equal(load(folder).log_prob(table("plane")), fitted("mixture", "plane").log_prob(table("plane")))


def test_what_is_beside_the_model_may_be_missing(folder):
    for name in ("calibration.npy", "history.csv", "card.md"):
        (folder / name).unlink()
    again = load(folder)
    assert len(again.calibration) == 0 and again.history == {}


def test_a_broken_history_is_refused(folder):
    (folder / "history.csv").write_text("step,train\n1,2\n2,three\n")
    refuse(folder, "history.csv")


# --- saving -----------------------------------------------------------------------------------------------------------


def test_an_existing_folder_is_kept(folder):
    before = {entry.name: entry.read_bytes() for entry in folder.iterdir()}
    with pytest.raises(UsageError, match=r"exists.*--overwrite"):
        save(fitted("gaussian", "plane"), folder)
    assert {entry.name: entry.read_bytes() for entry in folder.iterdir()} == before
    save(fitted("gaussian", "plane"), folder, overwrite=True)
    assert load(folder).family == "gaussian"
    assert [entry.name for entry in folder.parent.iterdir()] == [folder.name]


def test_overwriting_replaces_model_folders_only(tmp_path):
    home = tmp_path / "home"
    home.mkdir()
    (home / "diary.txt").write_text("dear")
    with pytest.raises(UsageError, match="not a model folder"):
        save(fitted("gaussian", "plane"), home, overwrite=True)
    assert (home / "diary.txt").read_text() == "dear"


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), ValueError("boom"), KeyboardInterrupt()])
@pytest.mark.parametrize("overwrite", [False, True])
def test_nothing_is_left_when_saving_fails_midway(tmp_path, monkeypatch, error, overwrite):
    place = tmp_path / "model"
    if overwrite:
        save(fitted("mixture", "plane"), place)

    def fails(fitted):
        raise error

    monkeypatch.setattr(artifact, "card_text", fails)  # the last file: all others are there by then
    with pytest.raises(SetupError if isinstance(error, OSError) else type(error)):
        save(fitted("gaussian", "plane"), place, overwrite=overwrite)
    assert [entry.name for entry in tmp_path.iterdir()] == (["model"] if overwrite else [])
    if overwrite:
        assert load(place).family == "mixture"


def test_the_old_model_survives_a_failing_rename(tmp_path, monkeypatch):
    place = save(fitted("mixture", "plane"), tmp_path / "model")
    real, calls = os.replace, []

    def fails_to_bring_the_new(source, target):
        calls.append(source)
        if len(calls) == 2:
            raise OSError(5, "Input/output error")
        real(source, target)

    monkeypatch.setattr(os, "replace", fails_to_bring_the_new)
    with pytest.raises(SetupError):
        save(fitted("gaussian", "plane"), place, overwrite=True)
    monkeypatch.undo()
    assert load(place).family == "mixture" and [entry.name for entry in tmp_path.iterdir()] == ["model"]


def test_a_model_that_cannot_be_saved_says_so_and_leaves_nothing(tmp_path):
    from dataclasses import replace

    with pytest.raises(MulliganError, match="cannot be saved"):
        save(replace(fitted("gaussian", "plane"), model=object()), tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_is_a_file(tmp_path):
    (tmp_path / "file").write_text("here")
    with pytest.raises(SetupError, match="cannot write"):
        save(fitted("gaussian", "plane"), tmp_path / "file" / "model")


def test_a_copied_folder_loads(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "copy")
    shutil.rmtree(folder)
    assert load(tmp_path / "copy").family == "mixture"


@pytest.mark.parametrize("first", [b"\x80\x02", b"\x80\x03", b"\x80\x04", b"PK"])
def test_a_header_as_long_as_a_pickle_begins_is_no_pickle(folder, first):
    """The length of a safetensors header stands in its first bytes: 640 is written as a pickle's first two."""
    wanted, weights = int.from_bytes(first, "little"), folder / "weights.safetensors"
    arrays = load_file(weights)
    save_file(arrays, weights, metadata={"pad": ""})
    short = int.from_bytes(weights.read_bytes()[:8], "little")
    save_file(arrays, weights, metadata={"pad": "x" * (wanted - short)})
    assert weights.read_bytes()[:8] == first + bytes(6)
    assert load(folder).label == fitted("mixture", "plane").label
