"""Recordings as objects: frames that agree, files that come back, pages and pictures that show what the arrays hold."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import Annotated, Literal

import numpy as np
import pytest

import mulligan as mg
from mulligan.cli import main
from mulligan.errors import FitError, FormatError, UsageError
from mulligan.lab.drawing import columns_of, table_cells
from mulligan.lab.experiment import Range, experiment, shipped
from mulligan.lab.experiments import EXPERIMENTS, find_experiment
from mulligan.lab.identity import monte_carlo, rounding
from mulligan.lab.player import embedded, page, payload
from mulligan.lab.recording import (
    Arrows,
    Bars,
    Curve,
    Field,
    Panel,
    Paths,
    Points,
    Recording,
    Scale,
    Table,
)
from mulligan.lab.scales import panel_range
from mulligan.lab.storage import load_recording
from mulligan.quantity import Quantity, none


def every_layer(frames=3):
    rng = np.random.default_rng(0)
    x = np.linspace(0.5, 2.0, 5)
    plane = Panel(
        "the plane </script><b>",
        Scale("x (cm)"),
        Scale("y (cm)", -4.0, 4.0),
        (
            Field("a field", x, x, rng.normal(size=(1, 5, 5)), palette="signed"),
            Points("particles", rng.normal(size=(frames, 7, 2))),
            Arrows("arrows", rng.normal(size=(1, 2, 2)), rng.normal(size=(frames, 2, 2))),
            Paths("paths", rng.normal(size=(2, 6, 2)), np.arange(1.0, frames + 1)),
        ),
        square=True,
    )
    curves = Panel(
        "curves",
        Scale("x", log=True),
        Scale("density (1/cm)"),
        (
            Curve("a curve", x, y := rng.normal(size=(frames, 5)), low=y - 0.5, high=y + 0.5, dots=True),
            Bars("bars", np.arange(1.0, 4.0), rng.uniform(size=(1, 3)), error=np.full((1, 3), 0.1), role="data"),
        ),
    )
    table = Table("a table", ("mean", "n"), ("first",), np.ones((frames, 1, 2)), np.array([[[0.25, 0.0]]]))
    return Recording(
        (plane, curves, table),
        tuple(f"frame {t}: ‖x‖² < 3 & more" for t in range(frames)),
        "nothing in particular",
        {
            "a number": tuple(Quantity(float(t), "estimate", t - 1.0, t + 1.0, stderr=0.5) for t in range(frames)),
            "n": (none("x"),),
        },
        {"a check": monte_carlo({"a": (1.0, 0.5, 0.4)}), "fails": rounding({"b": (1.0, float("nan"))})},
        name="example",
        chapter=3,
        title="An <example>",
        parameters={"seed": 0, "rate": 0.5},
    )


def same(a, b):
    """Equality of two recordings, arrays to 3e-5 of each value."""
    assert (a.captions, a.numbers, a.parameters, a.title) == (b.captions, b.numbers, b.parameters, b.title)
    assert repr(a.checks) == repr(b.checks)  # NaN is itself here
    assert a.frames.keys() == b.frames.keys()
    assert all(np.allclose(a.frames[key], b.frames[key], rtol=4e-5, atol=0) for key in a.frames)


def test_a_recording_comes_back_from_its_file(tmp_path):
    written = every_layer()
    same(written, load_recording(written.save(tmp_path / "r.npz")))
    changed = replace(
        written, panels=(replace(written.panels[0], layers=written.panels[0].layers[:2]), *written.panels[1:])
    )
    with pytest.raises(AssertionError):
        same(written, load_recording(changed.save(tmp_path / "s.npz")))


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"text"])
def test_a_file_that_is_no_recording_is_refused(tmp_path, content):
    (tmp_path / "x.npz").write_bytes(content)
    with pytest.raises(FormatError, match="cannot be read"):
        load_recording(tmp_path / "x.npz")


def test_other_files_are_refused_too(tmp_path):
    np.savez(tmp_path / "later.npz", recording=np.array(json.dumps({"format": 99})))
    np.savez(tmp_path / "other.npz", x=np.ones(3))
    with pytest.raises(FormatError, match="another version"):
        load_recording(tmp_path / "later.npz")
    with pytest.raises(FormatError, match="cannot be read"):
        load_recording(tmp_path / "other.npz")
    with pytest.raises(UsageError, match="cannot be written"):
        every_layer().save(tmp_path / "film.mp4")


def test_frames_agree_and_arrays_are_finite():
    with pytest.raises(ValueError, match="3 captions"):
        replace(every_layer(), panels=(Panel("p", Scale("x"), Scale("y"), (Points("two", np.zeros((2, 1, 2))),)),))
    with pytest.raises(ValueError, match="axes"):
        Points("flat", np.zeros((4, 2)))
    xy = np.zeros((1, 3, 2))
    xy[0, 2, 1] = np.nan
    with pytest.raises(FitError, match=r"'lost' is not finite \(xy\[0, 2, 1\]\)"):
        Points("lost", xy)


def test_axes_hold_every_frame():
    low, high = panel_range(every_layer().panels[0], "x")
    layers = every_layer().panels[0].layers
    ends = np.concatenate([np.ravel(layer.xy[..., 0]) for layer in layers[1:]])
    assert low <= ends.min() and high >= ends.max()
    assert panel_range(every_layer().panels[0], "y") == (-4.0, 4.0)
    assert panel_range(every_layer().panels[1], "x")[0] > 0  # log


def test_the_page_holds_everything_and_nothing_ends_it_early():
    text = page(every_layer())
    assert len(re.findall(r"</script>", text)) == 3  # the data, plotly.js, the player: none of the texts'
    assert not re.search(r"<(?:script|link|img|iframe)[^>]+(?:src|href)=\"(?!data:)", text)
    data = json.loads(re.search(r'<script type="application/json" id="recording">(.*?)</script>', text, re.DOTALL)[1])
    assert data == json.loads(json.dumps(payload(every_layer())))
    assert data["panels"][0]["title"] == "the plane </script><b>" and data["checks"]["fails"]["verdict"] == "fails"
    assert 'data-autoplay="yes"' in text and "data-autoplay" not in embedded(every_layer(), "x")


def test_arrays_of_the_page_are_those_of_the_recording():
    import base64

    entry = payload(every_layer())["panels"][0]["layers"][1]["xy"]
    values = np.frombuffer(base64.b64decode(entry["base64"]), "<f4").reshape(entry["shape"])
    assert np.allclose(values, every_layer().layer("particles").xy, rtol=1e-6)


def test_a_notebook_shows_the_page_in_a_frame_of_its_own():
    shown = every_layer()._repr_html_()
    assert shown.startswith("<iframe sandbox=") and "<script" not in shown.split("srcdoc=")[1]


def test_gif_and_strip(tmp_path):
    from PIL import Image

    with Image.open(every_layer().save(tmp_path / "a.gif")) as film:
        assert film.n_frames == 3
        pixels = [np.asarray(film.convert("RGB")) for film.n in range(3) if film.seek(film.n) is None]
    assert (pixels[0] != pixels[2]).any()
    with Image.open(every_layer(frames=9).save(tmp_path / "a.png")) as strip:
        assert strip.height == 4 * pixels[0].shape[0] and strip.width == pixels[0].shape[1]
    assert [columns_of(n) for n in (1, 3, 4)] == [1, 3, 2]


def test_numbers_of_a_table_have_the_digits_of_their_error():
    table = Table("t", ("a", "b"), ("r",), np.array([[[1.23456, 7.0]]]), np.array([[[0.021, 0.0]]]))
    assert table_cells(table, 0) == [["1.235 ± 0.021", "7"]]


# --- experiments ------------------------------------------------------------------------------------------------------


@experiment(3, "a title")
def toy(
    *,
    n: Annotated[int, Range(1, 9)] = 2,
    rate: float = 0.5,
    kind: Literal["ode", "sde"] = "ode",
    on: bool = True,
    seed: int = 0,
):
    """A recording of n frames."""
    return replace(every_layer(n), checks={}) if on else every_layer(n)


def test_parameters_are_read_checked_and_signed():
    found = toy(n="3", rate="0.25", on="false")
    assert found.length == 3 and not found.holds
    assert found.code == "mg.lab.toy(n=3, rate=0.25, kind='ode', on=False, seed=0)"
    assert (found.name, found.chapter, found.title) == ("toy", 3, "a title")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"n": 10}, "integer from 1 to 9"),
        ({"n": 2.5}, "integer"),
        ({"n": True}, "integer"),
        ({"n": "two"}, "integer"),
        ({"rate": "fast"}, "number"),
        ({"kind": "both"}, "ode or sde"),
        ({"on": "perhaps"}, "true or false"),
        ({"m": 3}, "Did you mean"),
        ({"sead": 3}, "Did you mean seed"),
    ],
)
def test_wrong_parameters_are_refused_with_what_is_expected(given, said):
    with pytest.raises(UsageError) as raised:
        toy(**given)
    assert said in str(raised.value) or (given == {"m": 3} and "integer from 1 to 9" in str(raised.value))


def test_what_is_not_trained_again_is_what_ships():
    with pytest.raises(UsageError, match="ships"):
        shipped("nothing")
    with pytest.raises(UsageError, match="ships"):
        shipped("../recording")


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_an_experiment_ships_with_its_recording_at_default_parameters(name):
    run, found = find_experiment(name), shipped(name)
    from mulligan.lab.experiment import defaults

    assert dict(found.parameters) == defaults(run) and list(defaults(run))[-1] == "seed"
    assert found.name == name and found.holds and found.checks
    assert (found.chapter, found.title) == (run.chapter, run.title) and run.chapter == EXPERIMENTS[name][1]
    assert getattr(mg.lab, name) is run
    assert len(found.title) <= 60 and all(
        panel.x.label or panel.x.names or panel.bare for panel in found.panels if isinstance(panel, Panel)
    )


# --- command line -----------------------------------------------------------------------------------------------------


def test_the_list_and_a_wrong_name(capsys):
    assert main(["lab", "--json"]) == 0
    assert [each["name"] for each in json.loads(capsys.readouterr().out)] == list(EXPERIMENTS)
    assert main(["lab", "langevin-halve"]) == 2
    assert "Did you mean langevin_halves" in capsys.readouterr().err


def test_an_experiment_from_the_command_line(tmp_path, capsys, monkeypatch):
    import mulligan.lab.experiments as listed

    monkeypatch.setattr(listed, "find_experiment", lambda name: toy)
    out = [str(tmp_path / f"a{suffix}") for suffix in (".html", ".npz")]
    assert main(["lab", "toy", "--set", "n=4", "-o", out[0], "-o", out[1], "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["parameters"]["n"] == 4 and found["saved"] == out and len(found["numbers"]["a number"]) == 4
    assert load_recording(out[1]).length == 4
    assert main(["lab", "toy", "-o", out[0]]) == 2 and "exists" in capsys.readouterr().err
    assert main(["lab", "toy", "--set", "on=false"]) == 1  # a check fails
    assert "fails" in capsys.readouterr().out
    for wrong in (["-o", "x.mp4"], ["-o", "nowhere/x.html"], ["--set", "n"]):
        assert main(["lab", "toy", *wrong]) == 2
