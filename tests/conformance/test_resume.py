"""A training that is killed at any moment goes on and ends in the same bits; what stands in the way is said."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from shared_fits import fitted

from mulligan.checkpoints import Checkpoints, checkpoints_in
from mulligan.cli import main
from mulligan.errors import FormatError, SetupError, UsageError
from mulligan.workbench import artifact, resuming
from mulligan.workbench.artifact import load
from mulligan.workbench.fitting import fit

FIT = ["fit", "wine.csv", "--family", "flow", "--effort", "quick", "--steps", "300", "--seed", "3", "-o", "model"]
FIT += ["--set", "layers=1", "--set", "width=8", "--set", "bins=4", "--set", "batch=32", "--quiet"]
RESULTS = ("weights.safetensors", "history.csv", "schema.json", "calibration.npy")

# Runs the command line and kills its own process (SIGKILL: nothing is tidied) at the n-th event of one sort.
DRIVER = '''
import builtins, os, signal, sys
import mulligan.checkpoints as checkpoints
from mulligan.cli import main, talk

checkpoints.SECONDS = 0.0  # a checkpoint at every look
sort, left, arguments = sys.argv[1], int(sys.argv[2]), sys.argv[3:]
place = os.path.realpath("model")

def event(of):
    global left
    if of == sort:
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

class Halting:
    """A file whose bytes come in two halves."""
    def __init__(self, file):
        self.file = file
    def __enter__(self):
        return self
    def __exit__(self, *_):
        self.file.close()
    def write(self, payload):
        self.file.write(payload[: len(payload) // 2])
        self.file.flush()
        event("write")
        self.file.write(payload[len(payload) // 2 :])
    def flush(self):
        self.file.flush()
        event("write")
    def fileno(self):
        return self.file.fileno()

saving = False

def hook(name, details):
    global saving
    if name in ("os.mkdir", "os.rename", "os.remove", "os.rmdir", "open") and details:
        path = str(details[0]) if not isinstance(details[0], int) else ""
        if path.startswith(place) or os.path.realpath(path).startswith(place):
            saving = saving or ".saving" in path
            event("save" if saving else "write")

checkpoints.open = lambda *call: Halting(builtins.open(*call))
talk.QuietTalk.pulse = lambda self, *_: event("train")
sys.addaudithook(hook)
sys.exit(main(arguments))
'''


def write_wine(path: Path, n: int = 150) -> None:
    rng = np.random.default_rng(0)
    rows = "".join(f"{a:.6f},{a * a + b:.6f},{c}\n" for a, b, c in zip(*rng.normal(size=(2, n)), rng.integers(0, 3, n)))
    path.write_text("pH,alcohol,quality\n" + rows)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A folder with wine.csv, the driver and a cache of compiled programs, and a fit that was never stopped (``whole``)."""
    folder = tmp_path_factory.mktemp("resume")
    write_wine(folder / "wine.csv")
    (folder / "driver.py").write_text(DRIVER)
    done = call([sys.executable, "-m", "mulligan", *FIT], folder)
    assert done.returncode == 0, done.stderr
    (folder / "model").rename(folder / "whole")
    return folder


def call(command, folder, seconds=None):
    """A process in the folder; killed after so many seconds if they are stated."""
    environment = {**os.environ, "MULLIGAN_CACHE": str(folder / "cache")}
    process = subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        out, err = process.communicate(timeout=seconds or 120)
    except subprocess.TimeoutExpired:
        process.kill()
        out, err = process.communicate()
    return subprocess.CompletedProcess(command, process.returncode, out, err)


def bits(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in RESULTS}


def check_after_a_kill(model: Path) -> None:
    """Nothing, a training that can go on, or (killed while it tidied up) the whole model."""
    if (model / "config.json").exists():
        load(model)
    elif model.exists():
        assert (model / "resume").is_dir()
        with pytest.raises(FormatError, match=r"training was not finished.*(fit --resume|resume=True)"):
            load(model)


@pytest.mark.parametrize("kills", [8, pytest.param(20, marks=pytest.mark.slow)])
def test_killed_again_and_again_it_ends_in_the_same_bits(home, seed, kills):
    """Random moments of start-up, training, writing of checkpoints and the final save; chained, so that each kill meets
    what the kills before it left."""
    rng = np.random.default_rng(seed)
    sorts = [str(sort) for sort in rng.permutation(["time"] * 5 + ["train"] * 6 + ["write"] * 5 + ["save"] * 4)]
    model, killed, finished, began = home / "model", [], 0, time.monotonic()
    while len(killed) < kills:
        sort = sorts[len(killed)]
        most = {"time": 1, "train": 8, "write": 12, "save": 26}[sort]
        seconds = float(rng.uniform(0.05, 2.5)) if sort == "time" else None
        short = (model / "resume" / "command.json").exists() and rng.random() < 0.5
        arguments = ["fit", "--resume", "model"] if short else [*FIT, "--resume"]
        count = str(rng.integers(1, most + 1))
        done = call([sys.executable, "driver.py", sort, count, *arguments], home, seconds)
        if done.returncode == -signal.SIGKILL:
            killed.append((sort, seconds or int(count)))
            check_after_a_kill(model)
            continue
        assert done.returncode == 0, (done.stderr, killed)
        assert bits(model) == bits(home / "whole"), killed
        finished += 1
        assert finished < kills
        shutil.rmtree(model)
    done = call([sys.executable, "-m", "mulligan", *FIT, "--resume"], home)
    assert done.returncode == 0, (done.stderr, killed)
    assert bits(model) == bits(home / "whole"), killed
    assert sorted(path.name for path in model.iterdir()) == sorted(path.name for path in (home / "whole").iterdir())
    left = {path.name for path in home.iterdir()} - {"wine.csv", "driver.py", "cache", "whole", "model"}
    assert not {name for name in left if not name.startswith(".mulligan-")}, left
    print(f"{kills} kills, {finished + 1} finished fits, {time.monotonic() - began:.0f} s: {killed}")
    shutil.rmtree(model)


# --- Ctrl-C -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def run(capsys):
    """Call the command line in this process: (exit code, stdout, stderr)."""

    def go(*arguments):
        code = main([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        assert "Traceback" not in out + err
        return code, out, err

    return go


@pytest.fixture
def here(home, tmp_path, monkeypatch):
    """An own folder with wine.csv and the compiled programs of ``home``."""
    shutil.copy(home / "wine.csv", tmp_path / "wine.csv")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MULLIGAN_CACHE", str(home / "cache"))
    return tmp_path


def press_control_c(monkeypatch, at):
    """Ctrl-C at the pulse of that number."""
    pulses = []

    def pulse(self, phase, step, steps, latest):
        pulses.append(step)
        if len(pulses) == at:
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr("mulligan.cli.talk.QuietTalk.pulse", pulse)
    return pulses


@pytest.mark.parametrize("at", [1, 5])  # before the first look at the select rows, and after
def test_after_control_c_it_can_be_used_and_goes_on_from_anywhere(run, here, home, monkeypatch, at):
    pulses = press_control_c(monkeypatch, at)
    code, _, err = run(*FIT)
    stopped = pulses[-1]
    assert code == 130 and (stopped < 25) == (at == 1)
    said = f"mulligan: stopped at step {stopped:,}; best state saved to model (resume: mulligan fit --resume model)"
    assert err.splitlines()[-1] == said
    assert len(load("model").sample(3)) == 3 and load("model").card["interrupted"]
    assert "can go on: mulligan fit --resume model" in run("show", "model")[2]
    code, _, err = run(*FIT)
    assert code == 2 and "mulligan: model exists. DO: --resume, --overwrite or another -o" in err
    (here / "elsewhere").mkdir()
    monkeypatch.chdir(here / "elsewhere")
    before = len(pulses)
    assert run("fit", "--resume", "../model")[0] == 0
    assert pulses[before] > stopped  # it went on, and did not begin again
    monkeypatch.chdir(here)
    assert bits(Path("model")) == bits(home / "whole") and not Path("model/resume").exists()
    card = load("model").card
    assert card["reproduce"]["command"] == shlex.join(["mulligan", *FIT]) and not card["interrupted"]
    assert any("resumed" in line for line in card["row"]["health"])
    code, _, err = run(*FIT[:-1], "--resume")
    assert code == 2 and "model holds another fit, which is finished" in err and "--overwrite or another -o" in err
    for again in ([*FIT, "--resume"], ["fit", "--resume", "model"]):
        code, out, _ = run(*again)
        assert code == 0 and "made by" in out and bits(Path("model")) == bits(home / "whole")


def test_control_c_before_any_state_leaves_nothing(run, here, monkeypatch):
    def pressed(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("mulligan.workbench.fitting.fit_prepared", pressed)
    code, _, err = run(*FIT)
    assert code == 130 and "nothing was written" in err and not Path("model").exists()
    prepared_checkpoint("model", {"a": 1})
    monkeypatch.setattr("mulligan.workbench.resuming.Checkpoints.check", lambda self: {})
    code, _, err = run(*FIT, "--resume")
    assert code == 130 and "the training is kept in model (resume: mulligan fit --resume model)" in err
    assert checkpoints_in("model/resume")


# --- what stands in the way -------------------------------------------------------------------------------------------


def prepared_checkpoint(model, identity, command=None):
    """A model folder with nothing but a checkpoint."""
    folder = Path(model) / "resume"
    Checkpoints(folder, identity).keep("flow-0", (np.zeros(2),), 25, {}, {})
    if command is not None:
        (folder / "command.json").write_text(json.dumps({"arguments": command, "folder": os.getcwd()}))
    return folder


def test_a_folder_with_a_training_only_is_no_model(run, here):
    prepared_checkpoint("model", {})
    code, _, err = run(*FIT)
    said = "model holds a training that was not finished. DO: --resume, --overwrite or another -o"
    assert (code, err) == (2, f"mulligan: {said}\n")
    code, _, err = run("show", "model")
    assert code == 5 and "model: training was not finished" in err and "resume=True" in err
    prepared_checkpoint("model", {}, FIT)
    for verb in (["show", "model"], ["sample", "model"], ["log-prob", "model", "wine.csv"]):
        code, _, err = run(*verb)
        assert (code, err) == (5, "mulligan: model: training was not finished. DO: mulligan fit --resume model\n")
    Path("model/thesis.tex").write_text("years of work")
    assert "mulligan: model exists. DO: --overwrite or another -o" in run(*FIT)[2]
    assert (
        "is not a model folder" in run(*FIT, "--overwrite")[2] and "is not a model folder" in run(*FIT, "--resume")[2]
    )
    assert Path("model/thesis.tex").exists() and checkpoints_in("model/resume")


def test_resume_where_there_is_nothing(run, here):
    code, _, err = run("fit", "wine.csv", "--family", "gaussian", "-o", "g", "--resume")
    assert code == 2 and "gaussian keeps no checkpoints" in err and "DO: leave --resume out" in err
    for source in ("nowhere", "wine.csv"):
        code, _, err = run("fit", "--resume", source)
        assert code == 2 and f"nothing to resume in {source}" in err
    code, _, err = run("fit", "wine.csv")
    assert code == 2 and "fit lacks --family" in err


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"arguments": [], "folder": "."}', '{"arguments": ["fit", 3], "folder": "."}']
)
def test_a_broken_command_is_refused(run, here, text):
    prepared_checkpoint("model", {})
    Path("model/resume/command.json").write_text(text)
    code, _, err = run("fit", "--resume", "model")
    assert code == 5 and "command.json" in err and "the whole command of the fit" in err
    Path("model/resume/command.json").write_text('{"arguments": ["compare", "wine.csv"], "folder": "."}')
    assert run("fit", "--resume", "model")[0] == 5


def test_a_folder_that_a_kill_left_empty_is_filled(run, here, monkeypatch):
    def trains(*_, checkpoints=None, **__):
        raise UsageError("training begins")

    monkeypatch.setattr("mulligan.workbench.fitting.fit_prepared", trains)
    for flags in ([], ["--resume"]):
        Path("model").mkdir()
        code, _, err = run(*FIT, *flags)
        assert code == 2 and err == "mulligan: training begins.\n" and not Path("model").exists()
    Path("model/resume").mkdir(parents=True)
    assert run(*FIT, "--resume")[2] == "mulligan: training begins.\n"


class Begun(Exception):
    """Training would begin now."""


@pytest.fixture
def begins(here, monkeypatch):
    """``begins(**changes)`` calls fit; True if training would go on from a checkpoint."""
    seen = []

    def trains(*_, checkpoints=None, **__):
        seen.append(checkpoints)
        raise Begun

    monkeypatch.setattr("mulligan.workbench.fitting.fit_prepared", trains)

    def call(source="wine.csv", family="flow", resume=True, **changes):
        settings = {"seed": 3, "effort": "quick", "steps": 300, "budget": 60, "layers": 1} | changes
        with pytest.raises(Begun):
            fit(source, family, checkpoint="kept", resume=resume, **settings)
        return bool(seen[-1].paths)

    assert not call(resume=False)
    seen[-1].keep("flow-0", (np.zeros(2),), 25, {}, {})
    return call


def changed_cell():
    lines = Path("wine.csv").read_text().splitlines()
    return lines[0] + "\n" + "\n".join([lines[1].replace(lines[1].split(",")[0], "0.125"), *lines[2:]]) + "\n"


OTHERS = {
    "seed": ({"seed": 4}, "seed was 3 and is 4"),
    "effort": ({"effort": "standard"}, "effort was quick and is standard"),
    "steps": ({"steps": None}, "steps was 300 and is none"),
    "budget": ({"budget": "2m"}, "budget was 60.0 and is 120.0"),
    "option": ({"layers": 2}, "option layers was 1 and is 2"),
    "given": ({"given": ["quality"]}, "given was [] and is ['quality']"),
}


@pytest.mark.parametrize("case", OTHERS)
def test_other_settings_are_refused_before_training(begins, case):
    changes, said = OTHERS[case]
    with pytest.raises(UsageError) as raised:
        begins(**changes)
    assert f"kept belongs to another fit: {said}" in str(raised.value)
    assert begins()


def test_other_data_columns_and_versions_are_refused_before_training(begins, monkeypatch):
    from mulligan.workbench.sources import read

    Path("other.csv").write_text(changed_cell())
    Path("fewer.csv").write_text("".join(Path("wine.csv").read_text().splitlines(keepends=True)[:-1]))
    for source, said in (
        ("other.csv", "sha256 of the rows was "),
        ("fewer.csv", "sha256 of the rows was "),
        (read("wine.csv", drop=["quality"]), "columns was "),
        (read("wine.csv", continuous=["quality"]), "column quality was kind=integer"),
        (read("wine.csv", rename={"pH": "acid"}), "columns was "),
    ):
        with pytest.raises(UsageError) as raised:
            begins(source)
        assert f"kept belongs to another fit: {said}" in str(raised.value)
    right = resuming.version
    monkeypatch.setattr(resuming, "version", lambda name: "0.0.1" if name == "jax" else right(name))
    with pytest.raises(UsageError, match=r"jax was [\d.]+ and is 0\.0\.1"):
        begins()


def test_what_does_not_matter_is_not_asked(begins):
    import polars

    Path("deep").mkdir()
    shutil.move("wine.csv", "deep/renamed.txt")
    assert begins("deep/renamed.txt")
    assert begins("deep/renamed.txt", budget="1m", force=True)
    assert begins("deep/renamed.txt", "normalizing-flow", options={"layers": "1"}, layers=1)
    Path("crlf.csv").write_bytes(Path("deep/renamed.txt").read_bytes().replace(b"\n", b"\r\n"))
    assert begins("crlf.csv")
    polars.read_csv("deep/renamed.txt").write_parquet("wine.parquet")
    with pytest.raises(UsageError, match="column pH was"):  # decimals of a text are part of how samples look
        begins("wine.parquet")
    assert not begins("deep/renamed.txt", resume=False)  # asked to begin again: the old ones are removed
    assert not begins("deep/renamed.txt")  # nothing there: it begins


def test_where_it_goes_on_is_said(begins):
    from mulligan.workbench.talk import Talk

    class Listening(Talk):
        def note(self, text):
            said.append(text)

    said = []
    begins(talk=Listening())
    shutil.rmtree("kept")
    begins(talk=Listening())
    assert said == ["going on: flow-0 at step 25", "nothing to resume in kept: training starts from the beginning"]


def test_a_folder_with_other_things_is_no_place_for_checkpoints(here):
    Path("home").mkdir()
    Path("home/thesis.tex").write_text("years of work")
    for resume in (False, True):
        with pytest.raises(UsageError, match=r"home holds other things than checkpoints \(thesis\.tex\)"):
            fit("wine.csv", "flow", checkpoint="home", resume=resume)
    with pytest.raises(UsageError, match=r"wine\.csv is a file"):
        fit("wine.csv", "flow", checkpoint="wine.csv")
    with pytest.raises(UsageError, match="mixture keeps no checkpoints"):
        fit("wine.csv", "mixture", checkpoint="kept")
    with pytest.raises(UsageError, match="without a folder"):
        fit("wine.csv", "flow", resume=True)
    assert Path("home/thesis.tex").exists() and not Path("kept").exists()


def test_a_budget_is_measured_once(tmp_path):
    """The steps that a budget buys are those of the first start, whatever the clock says later."""
    from types import SimpleNamespace

    from mulligan.families.training import _remembered

    for steps in (123, 77):
        fitting = SimpleNamespace(checkpoints=Checkpoints(tmp_path, {}), interrupted=lambda: False)
        assert _remembered(fitting, lambda n=steps: n) == 123


# --- a full disk ------------------------------------------------------------------------------------------------------


@pytest.fixture
def trained(tmp_path):
    """A fit whose training is in ``model/resume``."""
    place = tmp_path / "model"
    prepared_checkpoint(place, {}, FIT)
    return replace(fitted("gaussian", "plane"), checkpoint=place / "resume"), place


def test_a_full_disk_at_the_end_leaves_the_training(trained):
    import resource

    made, place = trained
    before = {path.name: path.read_bytes() for path in (place / "resume").iterdir()}
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (300, hard))  # no file can grow beyond: the system's own refusal
    try:
        with pytest.raises(SetupError) as raised:
            made.save(place)
        kept = Checkpoints(place / "resume", {})
        kept.keep("flow-0", (np.ones(999),), 50, {}, {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert f"cannot write {place}" in str(raised.value)
    assert f"DO: make room, then mulligan fit --resume {place}" in str(raised.value)
    assert kept.failure == "a checkpoint could not be written: File too large"
    assert {path.name: path.read_bytes() for path in (place / "resume").iterdir()} == before
    assert [path.name for path in place.iterdir()] == ["resume"]
    made.save(place)
    assert load(place).family == "gaussian" and not (place / "resume").exists()


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize("at", range(1, 13))
def test_a_save_that_fails_at_any_move_changes_nothing(trained, monkeypatch, at, old):
    made, place = trained
    if old:
        artifact.save(
            replace(fitted("mixture", "plane"), card={"interrupted": True}, checkpoint=made.checkpoint), place
        )
    right, calls = os.replace, []

    def fails(source, target):
        calls.append(source)
        if len(calls) == at:
            raise OSError(5, "Input/output error")
        right(source, target)

    monkeypatch.setattr(os, "replace", fails)
    moves = 12 if old else 6
    if at > moves:
        return made.save(place, overwrite=old) and None
    with pytest.raises(SetupError):
        made.save(place, overwrite=old)
    monkeypatch.undo()
    assert sorted(path.name for path in (place / "resume").iterdir()) == ["command.json", "flow-0.safetensors"]
    if old:
        assert load(place).family == "mixture"
    else:
        assert [path.name for path in place.iterdir()] == ["resume"]
    made.save(place, overwrite=old)
    assert load(place).family == "gaussian" and not (place / "resume").exists()


def test_config_is_away_while_files_are_moved(trained, monkeypatch):
    """Never two halves of two models: between the first move and the last nothing can be loaded."""
    made, place = trained
    artifact.save(replace(fitted("mixture", "plane"), card={"interrupted": True}, checkpoint=made.checkpoint), place)
    right, states = os.replace, []

    def watched(source, target):
        right(source, target)
        states.append((place / "config.json").exists())

    monkeypatch.setattr(os, "replace", watched)
    made.save(place, overwrite=True)
    assert states == [False] * 11 + [True]


def test_anothers_training_is_not_removed_unasked(trained):
    made, place = trained
    stranger = replace(made, checkpoint=None)
    with pytest.raises(UsageError, match="holds a training that was not finished"):
        stranger.save(place)
    assert checkpoints_in(place / "resume")
    stranger.save(place, overwrite=True)
    assert load(place).family == "gaussian" and not (place / "resume").exists()
