"""Inputs that nothing can be made of: each is refused with a typed error that says what, and where, why or what to do."""

from __future__ import annotations

import io
import json
import pickle
import shutil
import struct
import warnings

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from shared_fits import fitted

import mulligan
from mulligan.errors import DataError, FormatError, MulliganError, SetupError, UsageError
from mulligan.workbench.artifact import load, save

GOOD = "a,b\n" + "".join(f"{i * 0.37 % 1:.4f},{i * 0.61 % 1:.4f}\n" for i in range(60))
ROWS = np.random.default_rng(0).normal(size=(60, 2))


def file(content, name="t.csv", **options):
    """Reads a file of these bytes."""

    def act(tmp_path):
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        mulligan.read(str(path), **options)

    return act


def thing(source, **options):
    """Reads an object."""
    return lambda tmp_path: mulligan.read(source, **options)


def saved(array, name="t.npy", cut=None):
    """Reads what NumPy wrote, cut off after some bytes."""

    def act(tmp_path):
        path = tmp_path / name
        if name.endswith("npz"):
            np.savez(path, arr=array)
        else:
            np.save(path, array)
        path.write_bytes(path.read_bytes()[:cut])
        mulligan.read(str(path))

    return act


def fits(*what, **how):
    return lambda tmp_path: mulligan.fit(ROWS, *what, **how)


def edited(name, change):
    """Loads the good model folder after a change of one of its JSON files."""

    def act(tmp_path):
        folder = copied(tmp_path)
        fields = json.loads((folder / name).read_text())
        fields = change(fields) or fields
        (folder / name).write_text(json.dumps(fields))
        load(folder)

    return act


def weights(change):
    """Loads the good model folder after a change of its arrays."""

    def act(tmp_path):
        folder = copied(tmp_path)
        arrays = load_file(folder / "weights.safetensors")
        change(arrays)
        save_file({key: np.ascontiguousarray(value) for key, value in arrays.items()}, folder / "weights.safetensors")
        load(folder)

    return act


def replaced(name, content):
    """Loads the good model folder with the bytes of one file changed, or the file gone."""

    def act(tmp_path):
        folder = copied(tmp_path)
        old = (folder / name).read_bytes()
        new = content(old)
        (folder / name).unlink()
        if new is not None:
            (folder / name).write_bytes(new)
        load(folder)

    return act


def copied(tmp_path):
    return save(model(), tmp_path / "model")


def model():
    return fitted("gaussian", "mixed")


def scores(**changed):
    """Scores one row of the mixed table with some cells changed; None leaves the column out."""
    row = {"length": [0.3], "count": [3], "price": [4.5], "kind": ["red"], "sold": [True], **changed}
    return lambda tmp_path: model().log_prob({name: cells for name, cells in row.items() if cells is not None})


class Payload:
    """What a pickle would run."""

    def __reduce__(self):
        return (pytest.fail, ("a pickle was opened",))


PICKLE = pickle.dumps(np.zeros(3), protocol=4)
LIVE = np.array([Payload()], dtype=object)


def _npy(array):
    """The bytes of an npy file."""
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def set_in(*keys, value):
    def change(fields):
        for key in keys[:-1]:
            fields = fields[key]
        fields[keys[-1]] = value

    return change


def drop(name):
    return lambda arrays: arrays.pop(name)


def put(name, make):
    return lambda arrays: arrays.update({name: make(arrays[name])})


def header(length):
    """Bytes of a safetensors file whose header claims to be so long."""
    return lambda old: struct.pack("<Q", length) + old[8:]


READING = [
    ("empty file", file(""), DataError, "empty"),
    ("header only", file("a,b\n"), DataError, "row"),
    ("blank lines only", file("\n\n\n"), DataError, ""),
    ("ragged row", file(GOOD + "1,2,3\n"), DataError, "fields"),
    ("short row", file(GOOD + "1\n"), DataError, ""),
    ("two columns of one name", file(GOOD.replace("a,b", "a,a")), DataError, "a"),
    ("quote that is never closed", file(GOOD + '"1,2\n'), DataError, ""),
    ("zero bytes", file(b"a,b\n1,\x00\x00\n"), DataError, ""),
    ("random bytes", file(np.random.default_rng(1).bytes(4000)), DataError, ""),
    ("a picture called csv", file(b"\x89PNG\r\n\x1a\n" + bytes(200)), DataError, ""),
    ("an archive called csv", file(b"PK\x03\x04" + bytes(200)), DataError, ""),
    ("gzip called csv", file(b"\x1f\x8b\x08" + bytes(200)), DataError, ""),
    ("a pickle called csv", file(PICKLE), DataError, ""),
    ("a pickle", file(PICKLE, "t.pkl"), DataError, ""),
    ("JSON", file('{"a": [1, 2, 3]}', "t.json"), DataError, ""),
    ("HTML", file("<html><body>404</body></html>", "t.csv"), DataError, ""),
    ("UTF-16", file(GOOD.encode("utf-16")), DataError, ""),
    ("number beyond float64", file(GOOD + "1e999,0.5\n"), DataError, "inf"),
    ("infinite cell", file(GOOD + "inf,0.5\n"), DataError, "inf"),
    ("empty cell", file(GOOD + ",0.5\n"), DataError, "empty"),
    ("one constant column", file("a\n" + "1\n" * 50), DataError, ""),
    ("no such file", thing("nowhere/at-all.csv"), DataError, "nowhere"),
    ("name with a zero byte", thing("a\x00b.csv"), MulliganError, ""),
    ("name of 5 000 letters", thing("x" * 5000), MulliganError, ""),
    ("empty name", thing(""), MulliganError, ""),
    ("folder without pictures", lambda tmp_path: mulligan.read(str(tmp_path)), UsageError, "folder"),
    ("cut Parquet", file(b"PAR1" + bytes(50), "t.parquet"), DataError, ""),
    ("cut npy", saved(ROWS, cut=200), DataError, ""),
    ("npy of objects", saved(LIVE), DataError, ""),
    ("npy of five axes", saved(np.zeros((2,) * 5)), DataError, ""),
    ("npy of complex numbers", saved(ROWS + 1j), DataError, ""),
    ("npz of objects", saved(LIVE, "t.npz"), DataError, ""),
    ("cut npz", saved(ROWS, "t.npz", cut=300), DataError, ""),
]
OBJECTS = [
    ("nothing", thing(None), MulliganError, ""),
    ("a number", thing(7), MulliganError, ""),
    ("an array without axes", thing(np.array(1.0)), DataError, ""),
    ("an array of five axes", thing(np.zeros((2,) * 5)), DataError, ""),
    ("an array without rows", thing(np.zeros((0, 2))), DataError, ""),
    ("an array without columns", thing(np.zeros((9, 0))), DataError, ""),
    ("complex numbers", thing(ROWS + 1j), DataError, ""),
    ("NaN", thing(np.where(ROWS > 2, np.nan, ROWS)), DataError, "empty"),
    ("infinity", thing(np.where(ROWS > 2, np.inf, ROWS)), DataError, "inf"),
    ("columns of two lengths", thing({"a": [1.0, 2.0], "b": [1.0]}), DataError, ""),
    ("objects in cells", thing({"a": [object()] * 20}), DataError, ""),
    ("unknown option", thing(ROWS, colour=1), UsageError, "colour"),
    ("unknown column to drop", thing(ROWS, drop=["zebra"]), MulliganError, "zebra"),
    ("unknown transform", thing(ROWS, transform={"x1": "cube"}), MulliganError, "cube"),
    ("log of negative numbers", thing(ROWS, transform={"x1": "log"}), DataError, "x1"),
]
FITTING = [
    ("unknown family", fits("mixtrue"), UsageError, "mixture"),
    ("unknown option of a family", fits("mixture", options={"prats": 3}), UsageError, "prats"),
    ("option out of range", fits("mixture", options={"parts": 0}), UsageError, "parts"),
    ("option of another type", fits("mixture", options={"parts": "many"}), UsageError, "parts"),
    ("unknown effort", fits("gaussian", effort="heroic"), UsageError, "heroic"),
    ("negative seed", fits("gaussian", seed=-1), UsageError, "seed"),
    ("budget that is no time", fits("gaussian", budget="soon"), UsageError, "soon"),
    ("no steps", fits("flow", steps=0), UsageError, "steps"),
    ("values too far apart", lambda tmp_path: mulligan.fit(ROWS * 1e300, "gaussian"), MulliganError, ""),
]
SCORING = [
    ("unknown level", scores(kind=["mauve"]), DataError, "mauve"),
    ("missing column", scores(kind=None), DataError, "kind"),
    ("text for a number", scores(length=["long"]), DataError, "length"),
    ("infinite length", scores(length=[np.inf]), DataError, "inf"),
    ("off the grid", scores(count=[3.5]), DataError, "count"),
    ("half a draw", lambda tmp_path: model().sample(1.5), UsageError, "n is"),
    ("no draws", lambda tmp_path: model().sample(0), UsageError, "n is"),
]
FOLDERS = [
    ("no weights", replaced("weights.safetensors", lambda old: None), FormatError, "weights"),
    ("weights cut in half", replaced("weights.safetensors", lambda old: old[: len(old) // 2]), FormatError, "broken"),
    ("one byte cut", replaced("weights.safetensors", lambda old: old[:-1]), FormatError, "broken"),
    ("bytes behind the weights", replaced("weights.safetensors", lambda old: old + b"more"), FormatError, "broken"),
    ("weights that are a pickle", replaced("weights.safetensors", lambda old: PICKLE), FormatError, "pickle"),
    ("empty weights", replaced("weights.safetensors", lambda old: b""), FormatError, "broken"),
    ("header longer than the file", replaced("weights.safetensors", header(1 << 40)), FormatError, "broken"),
    ("header of length 0", replaced("weights.safetensors", header(0)), FormatError, "broken"),
    ("NaN among the weights", weights(put("mean", lambda a: a * np.nan)), FormatError, "NaN"),
    ("weights of another shape", weights(put("mean", lambda a: a[:-1])), FormatError, "shape"),
    ("weights of another type", weights(put("mean", lambda a: a.astype(np.float16))), FormatError, "float16"),
    ("an array is missing", weights(drop("mean")), FormatError, "mean"),
    ("an array too many", weights(lambda arrays: arrays.update(zebra=np.zeros(2))), FormatError, "zebra"),
    ("config cut", replaced("config.json", lambda old: old[:100]), FormatError, "JSON"),
    ("config nested 100 000 deep", replaced("config.json", lambda old: b"[" * 100_000), FormatError, "JSON"),
    ("config of a newer version", edited("config.json", set_in("format", value=99)), FormatError, "newer"),
    ("config that is a list", edited("config.json", lambda fields: [1]), FormatError, "format"),
    (
        "a class from elsewhere",
        edited("config.json", set_in("model", "class", value="os:system")),
        FormatError,
        "os:system",
    ),
    ("unknown family in it", edited("config.json", set_in("family", value="../../etc")), FormatError, "etc"),
    ("a card that is text", edited("config.json", set_in("card", value="good")), FormatError, ""),
    ("schema that is not JSON", replaced("schema.json", lambda old: b"\xff\xfe"), FormatError, "JSON"),
    ("scale of 0", edited("schema.json", set_in("parts", 0, "scale", value=0.0)), FormatError, "length"),
    ("level too few", edited("schema.json", lambda f: f["columns"][3]["levels"].pop() and None), FormatError, "kind"),
    ("column that is gone", edited("schema.json", lambda fields: fields["columns"].pop() and None), FormatError, ""),
    ("column of an unknown kind", edited("schema.json", set_in("columns", 0, "kind", value="odd")), FormatError, "odd"),
    ("calibration that is a pickle", replaced("calibration.npy", lambda old: PICKLE), FormatError, "calibration"),
    (
        "calibration of words",
        replaced("calibration.npy", lambda old: _npy(np.array(["a", "b"]))),
        FormatError,
        "floats",
    ),
    ("calibration with NaN", replaced("calibration.npy", lambda old: _npy(np.array([np.nan]))), FormatError, "NaN"),
    ("calibration of two axes", replaced("calibration.npy", lambda old: _npy(np.zeros((3, 3)))), FormatError, "axis"),
    ("calibration cut", replaced("calibration.npy", lambda old: old[:90]), FormatError, "calibration"),
    ("history of words", replaced("history.csv", lambda old: b"step,train\n1,high\n"), FormatError, "history"),
    ("a file in place of a folder", lambda tmp_path: load(_written(tmp_path / "m.pkl", PICKLE)), FormatError, "pickle"),
    ("no folder", lambda tmp_path: load(tmp_path / "none"), FormatError, "none"),
    ("a folder in a file", lambda tmp_path: save(model(), _written(tmp_path / "f", b"x") / "m"), SetupError, "f"),
]
CASES = [*READING, *OBJECTS, *FITTING, *SCORING, *FOLDERS]


def _written(path, content):
    path.write_bytes(content)
    return path


def test_there_are_fifty_and_no_two_are_one():
    assert len({name for name, *_ in CASES}) == len(CASES) >= 50


@pytest.mark.parametrize(("act", "error", "word"), [pytest.param(*case[1:], id=case[0]) for case in CASES])
def test_it_is_refused_with_a_sentence(act, error, word, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a warning alone is no answer: the error has to come
        with pytest.raises(error) as caught:
            act(tmp_path)
    found = caught.value
    assert found.where or found.why or found.do or "expected" in found.what, str(found)
    assert not isinstance(found, FormatError) or (found.do and (found.where or found.why)), str(found)
    assert word.lower() in str(found).lower() and "\n" not in str(found) and len(str(found)) < 2000


def test_the_model_folder_is_good_without_the_harm(tmp_path):
    folder = copied(tmp_path)
    assert np.isfinite(
        load(folder).log_prob({"length": [0.3], "count": [3], "price": [4.5], "kind": ["red"], "sold": [True]})
    )
    shutil.rmtree(folder)
