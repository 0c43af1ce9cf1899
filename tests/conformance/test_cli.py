"""The command line: exit codes, one-line messages, clean JSON, and a start without heavy imports."""

from __future__ import annotations

import gzip
import json
import os
import re
import signal
import subprocess
import sys
import zipfile
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest

from mulligan.catalog import FAMILIES
from mulligan.cli import VERBS, command_of, main

HEAVY = ("jax", "equinox", "polars", "sklearn", "matplotlib", "scipy", "pandas", "rich", "numpy")


@pytest.fixture(autouse=True)
def _away_from_home(tmp_path, monkeypatch):
    """Each test in its own folder."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def run(capsys):
    """Call the command line in this process: (exit code, stdout, stderr); a traceback is never right."""

    def call(*arguments: str) -> tuple[int, str, str]:
        code = main([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        assert "Traceback" not in out + err
        return code, out, err

    return call


def message_of(err: str) -> str:
    """The error: exactly one line that starts with ``mulligan: ``, and the last one."""
    lines = [line for line in err.splitlines() if line.startswith("mulligan: ") and ": warning:" not in line]
    assert len(lines) == 1, err
    assert err.splitlines()[-1] == lines[0]
    return lines[0]


def wine(n: int = 60) -> str:
    rng = np.random.default_rng(0)
    rows = "".join(f"{a:.6f},{b:.6f}\n" for a, b in rng.normal(size=(n, 2)))
    return "pH,alcohol\n" + rows


# --- tables that cannot be modelled as they are (UX.md, part 6) --------------------------------------------------------


def _xlsx(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("xl/workbook.xml", "<workbook/>")


def _pickle(path: Path) -> None:
    path.write_bytes(b"\x80\x04\x95\x05\x00\x00\x00\x00\x00\x00\x00]\x94.")


def _text(text: str):
    return lambda path: path.write_text(text, encoding="utf-8")


def _ids(n: int = 40) -> str:
    return "user,x\n" + "".join(f"u{i},{i % 7 + 0.123 * i}\n" for i in range(n))


REFUSED = {
    "empty": (_text(""), ["is empty"]),
    "header only": (_text("a,b\n"), ["has a header and 0 rows"]),
    "workbook": (_xlsx, ["Excel workbook", "DO: save the sheet as CSV"]),
    "gzip": (lambda path: path.write_bytes(gzip.compress(b"a,b\n1,2\n")), ["gzip", "DO: gunzip"]),
    "binary": (lambda path: path.write_bytes(b"\x01\x02\x00\x04" * 9), ["binary"]),
    "utf-16": (lambda path: path.write_bytes("a,b\n1,2\n".encode("utf-16")), ["UTF-16", "UTF-8"]),
    "pickle": (_pickle, ["pickle", "runs code"]),
    "ragged": (_text("a,b\n1,2\n3,4,5\n6,7\n"), ["line 3 has 3 fields, the header 2", "needs quotes"]),
    "two of a name": (_text("x,x\n1,2\n3,4\n"), ["two columns are called 'x'", "DO: rename"]),
    "empty cells": (_text("a,b\n1,2.5\n,3.5\n4,\n5,1.25\n"), ["2 empty cells in 2 of 2 columns", "--missing drop"]),
    "infinite": (_text("a,ratio\n1.5,2\n2.5,inf\n3.5,1\n"), ["'ratio' is inf", "line 3"]),
    "numbers as text": (
        _text("income,x\n" + "".join(f"{i}.5,{i * i}\n" for i in range(30)) + "n/a,3\n-,4\n"),
        ["'income' has 30 numbers and 2 texts", "--na n/a,-"],
    ),
    "one column a function of another": (
        _text(
            "temp_C,temp_F\n"
            + "".join(f"{c},{1.8 * c + 32:.6f}\n" for c in np.round(np.linspace(1, 9.7, 40) ** 1.5, 5))
        ),
        ["'temp_F' = 1.8 x 'temp_C' + 32", "DO: --drop temp_F"],
    ),
    "only labels": (_text("id\n" + "".join(f"u{i}\n" for i in range(30))), ["no column to model", "--keep id"]),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_table_that_cannot_be_modelled_is_refused_with_its_reason(case, run, tmp_path):
    write, said = REFUSED[case]
    write(tmp_path / "data.csv")
    code, out, err = run("look", "data.csv")
    assert (code, out) == (3, "")
    for part in said:
        assert part in message_of(err)


NOTED = {
    "semicolons": ("a;b\n1,5;2\n2,25;3\n3,5;9\n", ["read with ';' and ',' decimals", "Not so? --sep, --decimal"]),
    "no header": ("1.5,2.5\n2.5,1\n3.25,7\n", ["no header found", "x1"]),
    "label": (_ids(), ["'user' is different in every row", "--keep user"]),
    "constant": ("site,x\n" + "".join(f"3,{i * 0.37 % 1:.4f}\n" for i in range(20)), ["'site' is always 3"]),
    "categorical": (
        "c,x\n" + "".join(f"{'abc'[i % 3]},{i * 0.37 % 1:.4f}\n" for i in range(30)),
        ["categorical", "3 values"],
    ),
    "integers": ("q,x\n" + "".join(f"{i % 6},{i * 0.37 % 1:.4f}\n" for i in range(30)), ["integer", "dequantised"]),
}


@pytest.mark.parametrize("case", NOTED)
def test_what_is_done_to_a_table_is_said(case, run, tmp_path):
    text, said = NOTED[case]
    (tmp_path / "data.csv").write_text(text)
    code, out, err = run("look", "data.csv")
    assert code == 0
    for part in said:
        assert part in out
    assert "Next:  mulligan compare data.csv" in err


def test_dropping_empty_cells_says_how_many_and_the_next_command_does_it_too(run, tmp_path):
    (tmp_path / "data.csv").write_text("a,b\n" + "".join(f"{i},{i * 0.37 % 1:.4f}\n" for i in range(30)) + ",1\n")
    code, out, err = run("look", "data.csv", "--missing", "drop")
    assert code == 0
    assert "dropped 1 of 31 rows" in out
    assert "mulligan compare data.csv --missing drop" in err


def test_a_missing_file_names_the_near_one(run, tmp_path):
    (tmp_path / "wine.csv").write_text(wine())
    code, _, err = run("look", "wnie.csv")
    assert code == 3
    assert "no file 'wnie.csv' here" in message_of(err) and "Near: wine.csv" in message_of(err)


def test_too_few_rows_are_refused_before_training(run, tmp_path):
    (tmp_path / "few.csv").write_text(wine(12))
    code, _, err = run("fit", "few.csv", "--family", next(n for n, f in FAMILIES.items() if not f.baseline), "-o", "m")
    assert code == 3
    assert "12 rows" in message_of(err) and "--force" in message_of(err)
    assert not Path("m").exists()


def test_too_little_memory_is_said_before_training(run, tmp_path, monkeypatch):
    (tmp_path / "wine.csv").write_text(wine())
    ask = os.sysconf
    monkeypatch.setattr(os, "sysconf", lambda name: 0 if name == "SC_AVPHYS_PAGES" else ask(name))
    code, _, err = run("fit", "wine.csv", "--family", "gaussian", "-o", "m")
    assert code == 6
    assert "needed" in message_of(err) and "--rows" in message_of(err)


# --- calls that are wrong -----------------------------------------------------------------------------------------------

WRONG_CALLS = {
    "verb": (["lok", "a.csv"], "no verb 'lok'. Did you mean look?"),
    "verb of another name": (["score", "m"], "Did you mean log-prob?"),
    "flag": (["look", "moons", "--mising", "drop"], "look has no flag '--mising'. Did you mean --missing?"),
    "flag before the verb": (["--json", "look"], "'--json' stands before the verb"),
    "no file": (["look"], "missing argument 'FILE'"),
    "two files": (["look", "a", "b"], "unexpected extra argument"),
    "choice": (["compare", "moons", "--effort", "fast"], "'fast' is not one of 'quick', 'standard', 'thorough'"),
    "number": (["sample", "m", "-n", "many"], "'-n'"),
    "rows": (["look", "moons", "--rows", "0"], "'--rows'"),
    "family": (["fit", "moons", "--family", "mixtur"], "no family 'mixtur'. Did you mean mixture?"),
    "no family": (["fit", "moons"], "--family"),
    "families": (
        ["compare", "moons", "--families", "gaussian,hystogram"],
        "no family 'hystogram'. Did you mean histogram?",
    ),
    "variant": (["families", "factor:pca"], "no variant 'pca'. Did you mean ppca?"),
    "option": (["compare", "moons", "--set", "mixture.part=3"], "mixture has no option 'part'. Did you mean parts?"),
    "option's value": (["compare", "moons", "--set", "mixture.parts=lots"], "expected whole numbers"),
    "option's form": (["compare", "moons", "--set", "parts"], "--set is 'parts'"),
    "option of another": (
        ["fit", "moons", "--family", "kde", "--set", "mixture.parts=3"],
        "--set mixture.parts=3 is for",
    ),
    "pair": (["look", "moons", "--rename", "x1"], "--rename is 'x1'"),
    "step": (["look", "moons", "--resolution", "x1=wide"], "A step is a number"),
    "budget": (["fit", "moons", "--family", "kde", "--budget", "soon"], "budget is 'soon'"),
    "column": (["look", "penguins", "--drop", "yeer"], "no column 'yeer'"),
    "flag of fit": (["log-prob", "m", "moons", "--drop", "x1"], "log-prob has no flag '--drop'"),
    "extension": (["sample", "m", "-o", "new.xlsx"], "the extension says the format"),
}


@pytest.mark.parametrize("case", WRONG_CALLS)
def test_a_wrong_call_ends_with_2_and_the_near_name(case, run):
    arguments, said = WRONG_CALLS[case]
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert said in message_of(err)


def test_every_flag_that_a_message_names_exists():
    """A ``DO:`` that cannot be typed is worse than none."""
    known = {name for verb in VERBS for p in command_of(verb).params for name in (*p.opts, *p.secondary_opts)}
    known |= {"--help", "--version"}
    package = Path(__import__("mulligan").__file__).parent
    named = {}
    for folder in ("data", "workbench", "cli", "report"):
        for path in (package / folder).glob("*.py"):
            for flag in re.findall(r"(?<![\w-])--[a-z][a-z-]*[a-z]", path.read_text(encoding="utf-8")):
                named.setdefault(flag, path.name)
    # flags of other programs, named in a message: pip's
    assert {flag: file for flag, file in named.items() if flag not in known} == {"--force-reinstall": "doctor.py"}


def test_the_flags_of_reading_are_the_options_of_reading():
    from mulligan.cli.flags import Reading
    from mulligan.data.table import ReadOptions

    assert {f.name for f in fields(Reading)} == {f.name for f in fields(ReadOptions)} - {"seed"}
    given = Reading(na=["n/a,-"], drop=["a", "b"], resolution=["x=0.5"], transform=["a=log,b=none"], header=False)
    options = given.options(seed=3)
    assert options.na == ("n/a", "-") and options.drop == ("a", "b") and options.resolution == {"x": 0.5}
    assert options.transform == {"a": "log", "b": "none"} and options.header is False and options.seed == 3


# --- start, help, JSON --------------------------------------------------------------------------------------------------


def test_start_and_help_import_nothing_heavy():
    """In a fresh process: the module itself, the overview, the catalog and the help of every verb."""
    code = (
        "import sys\nfrom mulligan.cli import VERBS, main\n"
        "assert main([]) == 0 and main(['--help']) == 0 and main(['--version']) == 0 and main(['families']) == 0\n"
        "assert all(main([verb, '--help']) == 0 for verb in VERBS)\n"
        f"sys.exit(','.join(m for m in {HEAVY!r} if m in sys.modules) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_looking_at_a_file_does_not_load_jax(tmp_path):
    (tmp_path / "wine.csv").write_text(wine())
    code = "import sys\nfrom mulligan.cli import main\nmain(['look', 'wine.csv'])\nsys.exit('jax' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, timeout=60)
    assert done.returncode == 0, done.stderr


def test_the_module_is_the_command_and_leaves_with_its_code(tmp_path):
    for arguments, expected in ((["--version"], 0), (["lok"], 2), (["look", "nothing.csv"], 3)):
        done = subprocess.run(
            [sys.executable, "-m", "mulligan", *arguments], capture_output=True, text=True, cwd=tmp_path, timeout=60
        )
        assert done.returncode == expected
        assert "Traceback" not in done.stderr


def test_nothing_typed_prints_four_lines(run):
    code, out, _ = run()
    assert code == 0
    assert len(out.splitlines()) == 4


def test_a_closed_pipe_is_no_error(tmp_path):
    (tmp_path / "wine.csv").write_text(wine())
    command = f"'{sys.executable}' -m mulligan look wine.csv --json | true; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, cwd=tmp_path, timeout=60)
    assert done.returncode == 0
    assert "Error" not in done.stderr


def test_families_lists_the_whole_catalog_and_its_options(run):
    code, out, _ = run("families", "--verbose")
    assert code == 0
    for name, family in FAMILIES.items():
        assert re.search(rf"^{name}\*?\s", out, re.MULTILINE)
        assert all(f"{name}.{option.name}=" in out for option in family.options)
    code, out, _ = run("families", "--json")
    assert [family["name"] for family in json.loads(out)] == list(FAMILIES)


def test_no_family_is_known_by_name_to_the_command_line():
    folder = Path(sys.modules["mulligan.cli"].__file__).parent
    names = [name for family in FAMILIES.values() for name in (family.name, *family.aliases)]
    for path in folder.glob("*.py"):
        text = path.read_text(encoding="utf-8")
        assert [name for name in names if re.search(rf"[\"'`]{name}[\"'`:]", text)] == [], path.name


def test_an_internal_error_is_one_line_and_a_traceback_only_with_debug(capsys, monkeypatch):
    def broken(*_, **__):
        raise ZeroDivisionError("1/0\nsecond line")

    monkeypatch.setattr("mulligan.workbench.sources.open_table", broken)
    assert main(["look", "moons"]) == 1
    err = capsys.readouterr().err
    assert "internal error (ZeroDivisionError: 1/0 second line)" in message_of(err)
    assert "--debug" in err and "Traceback" not in err
    assert main(["look", "moons", "--debug"]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_doctor_tells_and_fails_where_jax_does(run, monkeypatch):
    code, out, _ = run("doctor", "--json")
    found = json.loads(out)
    assert code == 0 and found["jax works"] is True and found["packages"]["jax"] != "missing"
    monkeypatch.setattr("jax.jit", lambda *_: (_ for _ in ()).throw(RuntimeError("no AVX")))
    code, out, err = run("doctor")
    assert code == 6
    assert "RuntimeError: no AVX" in message_of(err)


# --- fit, show, sample, log-prob, compare --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    """A folder with wine.csv, a model with a density, and one without."""
    folder = tmp_path_factory.mktemp("models")
    (folder / "wine.csv").write_text(wine(200))
    for family, name in (("gaussian", "model"), ("resample", "rows")):
        arguments = ["fit", str(folder / "wine.csv"), "--family", family, "-o", str(folder / name), "--quiet"]
        assert main(arguments) == 0
    return folder


def test_fit_tells_the_model_and_the_next_command(run, fitted):
    code, out, err = run("fit", fitted / "wine.csv", "--family", "gaussian", "-o", "m")
    assert code == 0
    assert "nats/row, exact" in out and "made by" in out
    assert "mulligan sample m" in err and "mulligan log-prob m" in err
    assert (Path("m") / "weights.safetensors").exists()


def test_fit_prints_pure_json(run, fitted):
    code, out, err = run("fit", fitted / "wine.csv", "--family", "gaussian", "-o", "m", "--json")
    card = json.loads(out, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert code == 0 and card["row"]["log_prob"]["kind"] == "exact" and card["saved"] == "m"
    assert "saved  m" in err


@pytest.mark.parametrize("arguments", [["look"], ["compare", "--families", "gaussian", "-o", "r"]])
def test_json_is_pure_on_stdout(arguments, run, fitted):
    verb, *flags = arguments
    code, out, _ = run(verb, fitted / "wine.csv", *flags, "--json")
    assert code == 0
    assert json.loads(out, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))


def test_quiet_leaves_stderr_empty(run, fitted):
    code, out, err = run("sample", fitted / "model", "-n", "3", "--quiet")
    assert (code, err) == (0, "")
    assert len(out.splitlines()) == 4


def test_sample_writes_what_its_extension_says_and_repeats_with_its_seed(run, fitted):
    code, text, _ = run("sample", fitted / "model", "-n", "5", "--seed", "1")
    assert code == 0 and text.splitlines()[0] == "pH,alcohol"
    for name in ("new.csv", "new.parquet", "new.npy"):
        code, out, err = run("sample", fitted / "model", "-n", "5", "--seed", "1", "-o", name)
        assert (code, out) == (0, "")
        assert "5 rows" in err
    assert Path("new.csv").read_text() == text
    rows = np.array([[float(cell) for cell in line.split(",")] for line in text.splitlines()[1:]])
    assert np.array_equal(np.load("new.npy"), rows)
    import polars

    assert polars.read_parquet("new.parquet").columns == ["pH", "alcohol"]
    assert run("sample", fitted / "model", "-n", "5", "--seed", "2")[1] != text


def test_a_table_with_texts_is_no_array(run):
    (Path("t.csv")).write_text("c,x\n" + "".join(f"{'abc'[i % 3]},{i * 0.37 % 1:.4f}\n" for i in range(60)))
    assert run("fit", "t.csv", "--family", "gaussian", "-o", "m", "--force")[0] == 0
    code, _, err = run("sample", "m", "-o", "new.npy")
    assert code == 2 and "'c' is text" in message_of(err)
    code, out, _ = run("sample", "m", "-n", "40")
    assert code == 0 and {line.split(",")[0] for line in out.splitlines()[1:]} <= set("abc")


def test_an_existing_file_is_not_overwritten_unasked(run, fitted):
    Path("new.csv").write_text("mine")
    code, _, err = run("sample", fitted / "model", "-o", "new.csv")
    assert code == 2 and "new.csv exists" in message_of(err) and Path("new.csv").read_text() == "mine"
    assert run("sample", fitted / "model", "-o", "new.csv", "--overwrite")[0] == 0


def test_log_prob_adds_its_column_and_tells_the_mean_with_its_error(run, fitted):
    code, out, err = run("log-prob", fitted / "model", fitted / "wine.csv")
    assert code == 0
    lines = out.splitlines()
    assert lines[0] == "pH,alcohol,log_prob" and len(lines) == 201
    values = np.array([float(line.rsplit(",", 1)[1]) for line in lines[1:]])
    assert re.search(r"mean of 200 rows: -\d\.\d+ ± 0\.\d+ nats/row, exact", err)
    code, out, _ = run("log-prob", fitted / "model", fitted / "wine.csv", "--json")
    found = json.loads(out)
    assert found["log_prob"] == pytest.approx(values.tolist())
    assert found["mean"]["value"] == pytest.approx(values.mean())
    from mulligan.workbench.artifact import load

    pH, alcohol = np.loadtxt(fitted / "wine.csv", delimiter=",", skiprows=1).T
    assert load(fitted / "model").log_prob({"alcohol": alcohol, "pH": pH}) == pytest.approx(values)
    code, out, _ = run("log-prob", fitted / "model", fitted / "wine.csv", "-o", "scores.npy")
    assert np.load("scores.npy") == pytest.approx(values)


def test_log_prob_with_alpha_flags_rows_by_their_p_value(run, fitted):
    code, out, err = run("log-prob", fitted / "model", fitted / "wine.csv", "--alpha", 0.1)
    cells = [line.split(",") for line in out.splitlines()]
    assert code == 0 and cells[0] == ["pH", "alcohol", "log_prob", "p_value", "flagged"]
    p, flagged = np.array([float(row[3]) for row in cells[1:]]), np.array([row[4] == "True" for row in cells[1:]])
    assert np.array_equal(flagged, p <= 0.1) and 0 < flagged.sum() < 50
    assert f"flagged {flagged.sum()} of 200 rows (about 20.0 if nothing is wrong)" in err and "most unusual: row" in err
    assert run("log-prob", fitted / "model", fitted / "wine.csv", "--alpha", 1)[0] == 2
    assert "--alpha beside" in run("log-prob", fitted / "model", "x.csv", "--alpha", 0.1, "--given", "pH>3")[2]


def test_log_prob_of_a_family_without_density_is_refused_before_reading(run, fitted):
    code, out, err = run("log-prob", fitted / "rows", "no-such-file.csv")
    assert (code, out) == (2, "")
    assert "resample has no log density, so it cannot score rows" in message_of(err)


def test_other_columns_at_score_time(run, fitted):
    Path("more.csv").write_text("ph,alcohol\n1,2\n")
    code, _, err = run("log-prob", fitted / "model", "more.csv")
    assert code == 3
    assert "more.csv lacks 'pH'; has 'ph'" in message_of(err) and "--rename ph=pH" in message_of(err)
    Path("more.csv").write_text("day,alcohol,ph\n1,2.5,3.5\n2,2.25,3\n")
    code, out, err = run("log-prob", fitted / "model", "more.csv", "--rename", "ph=pH")
    assert code == 0
    assert [line.split(",")[:3] for line in out.splitlines()] == [  # the file's other columns stay beside their rows
        ["day", "pH", "alcohol"],
        ["1", "3.5", "2.5"],
        ["2", "3.0", "2.25"],
    ]
    assert "'day'" in err


def test_show_tells_how_a_model_was_made(run, fitted):
    code, out, _ = run("show", fitted / "model")
    assert code == 0
    for part in ("gaussian", "200 rows", "train 140", "nats/row, exact", "made by", "mulligan fit"):
        assert part in out


def _newer(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "format": 99}))


def _cut(folder: Path) -> None:
    weights = (folder / "weights.safetensors").read_bytes()
    (folder / "weights.safetensors").write_bytes(weights[: len(weights) // 2])


BROKEN_MODELS = {
    "newer": (_newer, "format 99"),
    "cut off": (_cut, "weights.safetensors is broken"),
    "a pickle": (lambda folder: _pickle(folder / "weights.safetensors"), "pickle"),
    "half": (lambda folder: (folder / "schema.json").unlink(), "schema.json"),
    "no JSON": (lambda folder: (folder / "config.json").write_text("{"), "is not JSON"),
}


@pytest.mark.parametrize("case", BROKEN_MODELS)
@pytest.mark.parametrize("verb", ["show", "sample"])
def test_a_broken_model_folder_ends_with_5(case, verb, run, fitted):
    import shutil

    breaking, said = BROKEN_MODELS[case]
    shutil.copytree(fitted / "model", "broken")
    breaking(Path("broken"))
    code, out, err = run(verb, "broken")
    assert (code, out) == (5, "")
    assert said in message_of(err)


def test_no_model_folder_ends_with_5(run):
    code, _, err = run("show", "nothing-here")
    assert code == 5 and "nothing-here" in message_of(err)


@pytest.mark.parametrize("verb", [["fit", "--family", "gaussian"], ["compare", "--families", "gaussian"]])
def test_the_place_to_write_is_checked_before_training(verb, run, fitted, monkeypatch):
    def trained(*_, **__):
        pytest.fail("training began")

    monkeypatch.setattr("mulligan.workbench.fitting.fit_prepared", trained)
    monkeypatch.setattr("mulligan.workbench.comparison.fit_prepared", trained)
    name, *flags = verb
    Path("taken").mkdir()
    (Path("taken") / "thesis.tex").write_text("years of work")
    code, _, err = run(name, fitted / "wine.csv", *flags, "-o", "taken")
    assert code == 2 and "taken exists" in message_of(err) and "DO: --overwrite" in message_of(err)
    Path("file").write_text("")
    code, _, err = run(name, fitted / "wine.csv", *flags, "-o", "file/inside")
    assert code == 6 and "cannot write file/inside" in message_of(err)
    assert (Path("taken") / "thesis.tex").read_text() == "years of work"


def test_compare_ends_with_the_table_the_reading_and_the_page(run, fitted):
    call = ("compare", fitted / "wine.csv", "--families", "gaussian,kde", "--effort", "quick", "-o", "r")
    code, out, err = run(*call)
    assert code == 0
    assert "gaussian" in out and "kde" in out and "Reading: " in out
    assert "r/index.html" in err and "Next:  mulligan fit" in err
    assert {"report.json", "index.html", "report.md"} <= {path.name for path in Path("r").iterdir()}
    report = json.loads(Path("r/report.json").read_text())
    assert [family["family"] for family in report["families"]] == ["gaussian", "kde"]
    assert report["reproduce"]["command"].startswith("mulligan compare")
    assert run(*call)[0] == 0  # its own report may be written anew


def _interrupt_once(monkeypatch) -> None:
    """Ctrl-C, from the first pulse of training on."""
    sent = []

    def pulse(self, phase, step, steps, latest):
        if not sent:
            sent.append(phase)
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr("mulligan.cli.talk.QuietTalk.pulse", pulse)


def test_ctrl_c_during_fit_saves_the_best_state_and_ends_with_130(run, monkeypatch):
    _interrupt_once(monkeypatch)
    code, _, err = run(
        "fit", "moons", "--rows", "600", "--family", "mixture", "--effort", "quick", "-o", "m", "--quiet"
    )
    assert code == 130
    assert re.search(r"stopped at step \d+; best state saved to m$", message_of(err))
    assert run("sample", "m", "-n", "2")[0] == 0


def test_ctrl_c_during_compare_keeps_what_was_done_and_ends_with_130(run, monkeypatch):
    _interrupt_once(monkeypatch)
    call = ("compare", "moons", "--rows", "600", "--families", "gaussian,mixture,kde", "--effort", "quick", "-o", "r")
    code, _, err = run(*call, "--quiet")
    assert code == 130
    assert "in r" in message_of(err)
    done = [family["family"] for family in json.loads(Path("r/report.json").read_text())["families"]]
    assert done[0] == "gaussian" and "kde" not in done


def test_ctrl_c_between_two_families_leaves_a_whole_report(run, monkeypatch):
    def begins(self, label, index, of):
        if index == stop_at:
            raise KeyboardInterrupt

    monkeypatch.setattr("mulligan.cli.talk.QuietTalk.family_begins", begins)
    call = (
        "compare",
        "moons",
        "--rows",
        "600",
        "--families",
        "gaussian,resample",
        "--effort",
        "quick",
        "-o",
        "r",
        "-q",
    )
    stop_at = 2
    code, _, err = run(*call)
    assert code == 130 and "the families that were done are in r" in message_of(err)
    assert "gaussian" in Path("r/index.html").read_text() and "gaussian" in Path("r/report.md").read_text()
    stop_at = 1  # now r holds the report of an earlier run: that one must not be claimed
    os.utime("r/report.json", (0, 0))
    code, _, err = run(*call)
    assert code == 130 and "nothing was written" in message_of(err)


# --- progress and cache ---------------------------------------------------------------------------------------------------


def test_off_a_terminal_progress_is_one_line_for_every_tenth(capsys, monkeypatch):
    from mulligan.cli import talk

    clock = iter(range(0, 10_000, 2))
    monkeypatch.setattr(talk.time, "monotonic", lambda: float(next(clock)))
    lines = talk.LineTalk("fit")
    lines.family_begins("mixture", 1, 1)
    for step in range(1, 301):
        lines.pulse("mixture", step, 300, {"log_likelihood": -3.31})
    err = capsys.readouterr().err.splitlines()
    assert len(err) == 10
    assert re.fullmatch(r"fit mixture 120/300 log_likelihood=-3\.31 elapsed=\d+s", err[3])


def test_the_cache_is_where_the_environment_says(monkeypatch, tmp_path):
    from mulligan.cache import cache_folder

    monkeypatch.delenv("MULLIGAN_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "mulligan" / "xla"
    monkeypatch.setenv("MULLIGAN_CACHE", str(tmp_path / "other"))
    assert cache_folder() == tmp_path / "other"
    monkeypatch.setenv("MULLIGAN_CACHE", "off")
    assert cache_folder() is None


def test_compiled_programs_are_kept_and_a_folder_that_cannot_be_written_is_a_warning(tmp_path):
    import jax
    import jax.numpy as jnp

    from mulligan.cache import use_cache

    assert use_cache(tmp_path / "xla") == tmp_path / "xla"
    jax.jit(lambda x: jnp.sin(x) * 3.25 + 0.125)(jnp.ones(7)).block_until_ready()
    assert list((tmp_path / "xla").iterdir())
    (tmp_path / "file").write_text("")
    with pytest.warns(UserWarning, match="cannot be kept"):
        assert use_cache(tmp_path / "file" / "xla") is None
    assert use_cache(tmp_path / "file" / "xla") is None  # said once
