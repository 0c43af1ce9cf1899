"""``sample_density`` and ``mulligan sample-density``: every message, every sampler's verdict, log Z, files, reuse."""

from __future__ import annotations

import json
import math
import re

import jax.numpy as jnp
import numpy as np
import pytest

import mulligan as mg
from benchmarks import eight_schools
from mulligan.cli import main
from mulligan.errors import UsageError
from mulligan.measures.diagnosis import VERDICTS
from mulligan.workbench.density import SAMPLERS
from mulligan.workbench.drawing import METHODS
from mulligan.workbench.rungs import resampled
from mulligan.workbench.target import make_target

FUNCTIONS = """
import jax, jax.numpy as jnp, numpy as np

def ring(x): return -((jnp.sqrt(x @ x + 1e-12) - 4.0) ** 2) / 0.1
def batch(x): return -0.5 * x**2
def undefined(x): return jnp.log(x[0])
def outside(x): return jnp.where(x[0] > 1e6, 0.0, -jnp.inf)
def density(x): return jnp.exp(-0.5 * x @ x)
def flat(x): return 0.0 * x[0]
def stairs(x): return -jnp.round(jnp.abs(x)).sum()
def loop(x): return -jax.lax.while_loop(lambda c: c[1] < 3, lambda c: (c[0] + x @ x, c[1] + 1), (0.0, 0))[0]
def with_numpy(x): return -0.5 * np.linalg.norm(np.asarray(x))
def with_if(x): return -1.0 if x[0] > 0 else -2.0
def raises(x): return x[5, 3]
def nothing(x): pass
def hidden(x): return -0.5 * x @ x + 0.0 * jnp.where(x[0] > 1e9, jnp.sqrt(x[0] - 1e9), 0.0)
NUMBER = 3
def bell(x): return -0.5 * x @ x
"""


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(FUNCTIONS, encoding="utf-8")


@pytest.fixture
def run(capsys):
    def call(*arguments):
        code = main(["sample-density", *(str(a) for a in arguments)])
        out, err = capsys.readouterr()
        assert "Traceback" not in out + err and "internal error" not in err, err
        return code, out, err

    return call


# --- messages (UX.md, section 6: "log-density function") ----------------------------------------------------------------

REFUSED = {
    "wrong shape": (("mine.py:batch", "--dim", 2), ["returns shape (2,) for one position of shape (2,)", "jnp.sum"]),
    "nan at the start": (
        ("mine.py:undefined", "--dim", 2),
        ["log density is nan at the start", "starting points, first x1 = "],
    ),
    "outside at the start": (("mine.py:outside", "--dim", 2), ["is −inf at the start", "start="]),
    "a density": (("mine.py:density", "--dim", 2), ["looks like a density, not its logarithm", "jnp.log"]),
    "no slope": (
        ("mine.py:stairs", "--dim", 2),
        ["not differentiable (its gradient is 0 everywhere)", "--samplers random-walk"],
    ),
    "no way back": (("mine.py:loop", "--dim", 2), ["not differentiable (ValueError", "--samplers random-walk"]),
    "gradient not finite": (
        ("mine.py:hidden", "--dim", 2),
        ["the gradient of mine.py:hidden is not finite", "256 of 256"],
    ),
    "NumPy": (
        ("mine.py:with_numpy", "--dim", 2),
        ["JAX cannot follow", "mine.py, line 12", "jax.numpy in place of numpy"],
    ),
    "if": (("mine.py:with_if", "--dim", 2), ["JAX cannot follow", "mine.py, line 13", "jnp.where in place of if"]),
    "raises": (("mine.py:raises", "--dim", 2), ["mine.py:raises fails: IndexError", "mine.py, line 14"]),
    "returns nothing": (("mine.py:nothing", "--dim", 2), ["returns NoneType", "one number"]),
    "no dimension": (("mine.py:ring",), ["dimension of mine.py:ring is not known", "--dim 2"]),
    "dimension below 1": (("mine.py:ring", "--dim", 0), ["dim is 0"]),
    "no file": (("min.py:ring", "--dim", 2), ["no file 'min.py' here. Did you mean mine.py?"]),
    "no function": (("mine.py:rong", "--dim", 2), ["no function 'rong'. Did you mean ring?"]),
    "no function but a number": (("mine.py:NUMBER", "--dim", 2), ["no function 'NUMBER'"]),
    "no law": (("moonz",), ["there is no law 'moonz'. Did you mean moons?"]),
    "other dimension": (("moons", "--dim", 3), ["moons has 2 dimensions, not 3"]),
    "no sampler": (("moons", "--samplers", "nutz"), ["no sampler 'nutz'. Did you mean nuts?"]),
    "discrete sampler": (("moons", "--samplers", "gibbs"), ["gibbs is not for continuous states"]),
    "continuous sampler": (("ising-3x3", "--samplers", "nuts"), ["nuts is not for discrete states", "gibbs"]),
    "no chain": (("moons", "--chains", 0), ["chains is 0; expected at least 1"]),
    "step size": (("moons", "--step-size", -1), ["step_size is -1.0"]),
    "acceptance": (("moons", "--acceptance", 2), ["acceptance is 2.0"]),
    "reference": (("moons", "--reference", 0), ["reference is 0.0"]),
    "inside": (("moons", "--inside", "nuts"), ["no kernel 'nuts'", "mala"]),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_sampled_is_refused_with_its_reason(case, run):
    arguments, said = REFUSED[case]
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    lines = [line for line in err.splitlines() if line.startswith("mulligan: ")]
    assert len(lines) == 1
    for part in said:
        assert part in lines[0]


def test_a_file_that_fails_is_named_with_its_line(run, tmp_path):
    (tmp_path / "broken.py").write_text("x = 1\nraise RuntimeError('no')\n", encoding="utf-8")
    code, _, err = run("broken.py:f", "--dim", 2)
    assert code == 2 and "'broken.py' fails: RuntimeError: no (broken.py, line 2)" in err


def test_a_folder_in_the_way_is_told_before_any_work(run, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("x")
    code, out, err = run("moons", "-o", "out")
    assert (code, out) == (2, "") and "out exists" in err and "--overwrite" in err


# --- bad configurations end in a verdict ------------------------------------------------------------------------------


def finite(tree):
    if isinstance(tree, dict):
        return all(finite(v) for v in tree.values())
    if isinstance(tree, list):
        return all(finite(v) for v in tree)
    return not isinstance(tree, float) or math.isfinite(tree)


def test_a_step_size_that_is_too_large_ends_in_verdicts_and_exit_code_4(run, tmp_path):
    """About 100 times what warm-up finds for HMC here, and far more for Langevin."""
    code, out, err = run(
        "eight-gaussians",
        "--samplers",
        "hmc,langevin",
        "--step-size",
        20,
        "--draws",
        100,
        "--warm-up",
        20,
        "-o",
        "bad",
        "--json",
    )
    assert code == 4
    report = json.loads(out)
    verdicts = {row["sampler"]: row["verdict"] for row in report["samplers"]}
    assert verdicts == {"hmc": "stuck", "langevin": "stopped"} and finite(report)
    assert "no sampler's draws can be used (hmc: stuck; langevin: stopped)" in err.splitlines()[-1]
    assert "smaller step size" in err.splitlines()[-1] and "written to bad" in err
    for name in verdicts:  # the last finite state of each is kept
        with np.load(tmp_path / "bad" / f"{name}.npz") as kept:
            assert all(np.isfinite(kept[key]).all() for key in kept) and kept["x"].shape[0] == 16
    page = (tmp_path / "bad" / "index.html").read_text(encoding="utf-8")
    assert "<strong" not in page or page  # it is written at all
    assert "NaN" not in (tmp_path / "bad" / "report.json").read_text(encoding="utf-8")


def test_one_langevin_step_shows_nothing(run):
    code, out, err = run("eight-gaussians", "--samplers", "langevin", "--draws", 1, "--warm-up", 0)
    assert code == 4 and "chains do not mix" in out and "1 draw a chain cannot show whether the chains mix" in err


def test_an_improper_density_runs_away(run):
    """Flat: the warm-up's step size grows without bound. Rising: the chains do."""
    code, out, err = run("mine.py:flat", "--dim", 2, "--samplers", "random-walk", "--warm-up", 100, "--draws", 50)
    assert code == 4 and "failed" in out and "the chains run away" in err and "is exp(mine.py:flat) integrable?" in err
    rising = mg.sample_density(lambda x: 0.5 * jnp.sum(x**2), 2, sampler="hmc", warm_up=100, draws=400, modes=False)
    assert rising.verdict in ("runs away", "stuck", "stopped") and np.isfinite(rising.draws).all()


def test_a_biased_step_size_is_seen():
    biased = mg.sample_density(lambda x: -0.5 * jnp.sum(x**2), 2, sampler="langevin", step_size=1.5, draws=500)
    assert biased.verdict == "biased" and "where −1 is due" in str(biased.diagnose())


# --- the golf course --------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_tempering_finds_all_holes_of_the_grid_and_langevin_does_not(seed):
    """16 sets of replicas, 1000 draws of every second step after 500 of tuning on 14 rungs, HMC of 10 leapfrogs; a hole is a
    disc of radius .15 that holds a third of its share. Langevin: 16 chains, the same draws."""
    found = mg.sample_density(
        "grid-gaussians", sampler=["tempering", "langevin"], chains=16, draws=1000, thin=2, rungs=14, seed=seed
    )
    tempered, local = found["tempering"].diagnose(), found["langevin"].diagnose()
    assert tempered.numbers["holes"]["found"] == 25 and tempered.usable and "25 of 25 holes found" in str(tempered)
    assert local.verdict == "chains do not mix" and local.numbers["holes"]["found"] < 25
    assert local.numbers["modes_by_chain"] < 2 and "of 25 modes on average" in str(local)
    assert "misses holes" in local.found and found.usable == ("tempering",)
    z = found["tempering"].log_z
    assert z.kind == "bracket" and z.contains(0.0) and z.high - z.low < 0.6


# --- eight schools ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sampler", [pytest.param("nuts", marks=pytest.mark.slow), "hmc"])
def test_eight_schools(sampler, seed):
    """A pytree with tau > 0, against the published means, within 4 combined standard errors and .3."""
    result = eight_schools.sample(sampler, chains=16, draws=600, warm_up=400, seed=seed)
    assert result.verdict in ("ok", "too few draws"), result
    assert set(result.positions) == {"mu", "tau", "eta"} and result.positions["eta"].shape == (16, 600, 8)
    assert (result.positions["tau"] > 0).all() and result.names[:2] == ("eta[0]", "eta[1]")
    for name, ours in eight_schools.means(result).items():
        assert eight_schools.distance(ours, eight_schools.PUBLISHED[name]) < 4.75, (name, ours)
        assert abs(ours[0] - eight_schools.PUBLISHED[name][0]) < 0.6
    data = result.to_arviz()
    assert data["posterior"]["eta"].shape == (16, 600, 8) and data.attrs["sampler"] == sampler
    assert data["sample_stats"]["diverging"].dtype == bool


# --- positions, reuse, seeds ------------------------------------------------------------------------------------------


def test_bounds_start_and_names():
    """An exponential with rate 2 above 1, and a uniform on (−1, 3)."""
    start, bounds = {"rate": np.full(2, 1.5), "u": 0.0}, {"rate": (1, None), "u": (-1, 3)}
    found = mg.sample_density(
        lambda p: -2.0 * jnp.sum(p["rate"]),
        start=start,
        bounds=bounds,
        sampler="hmc",
        chains=64,
        draws=300,
        warm_up=200,
    )
    assert found.names == ("rate[0]", "rate[1]", "u") and found.diagnose().usable, found
    assert found.draws[..., :2].min() >= 1 and found.draws[..., 2].min() >= -1 and found.draws[..., 2].max() <= 3
    s = found.summary()
    assert abs(s["rate[0]"]["mean"] - 1.5) < 4.75 * s["rate[0]"]["mcse"]
    assert abs(s["u"]["mean"] - 1.0) < 4.75 * s["u"]["mcse"] and s["u"]["sd"] == pytest.approx(4 / np.sqrt(12), rel=0.1)
    with pytest.raises(UsageError, match="start is not inside its bounds"):
        mg.sample_density(lambda p: -p["u"], start={"u": -2.0}, bounds={"u": (0, None)})
    with pytest.raises(UsageError, match="start has 3 numbers"):
        mg.sample_density(lambda x: -jnp.sum(x**2), 2, start=np.zeros(3))


def normal(x):
    return -0.5 * jnp.sum((x / jnp.array([1.0, 3.0])) ** 2)


def test_a_warm_up_is_used_again_and_a_seed_repeats():
    first = mg.sample_density(normal, 2, sampler="hmc", draws=200, warm_up=200, seed=5)
    same = mg.sample_density(normal, 2, sampler="hmc", draws=200, warm_up=200, seed=5)
    beside = mg.sample_density(normal, 2, sampler=["random-walk", "hmc"], draws=200, warm_up=200, seed=5)
    assert np.array_equal(first.draws, same.draws) and np.array_equal(first.draws, beside["hmc"].draws)
    assert list(beside) == ["random-walk", "hmc"] and len(beside) == 2
    again = mg.sample_density(normal, 2, sampler="hmc", draws=200, warm_up=first.warm_up, seed=6)
    assert again.warm_up.tuned is first.warm_up.tuned and not np.array_equal(first.draws, again.draws)
    assert again.diagnose().usable and "hmc: 16 chains of 200 draws in 2 dimensions of normal" in repr(again)
    many = mg.sample_density(normal, 2, sampler="hmc", chains=4000, draws=20, warm_up=first.warm_up, modes=False)
    assert many.draws.shape == (4000, 20, 2)  # thousands of chains in one program; each starts where one of 16 ended
    assert many.draws[:, -1, 1].std() == pytest.approx(3.0, rel=0.08)
    with pytest.raises(UsageError, match="does not fit"):
        mg.sample_density(normal, 2, sampler="mala", warm_up=first.warm_up)


# --- log Z ------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_log_z_of_a_function_is_an_estimate_around_the_truth(seed, tmp_path):
    both, few = ["tempering", "annealed"], {"draws": 200, "warm_up": 200, "inside": "mala", "rungs": 8}
    found = mg.sample_density(lambda x: normal(x) + 2.0, 2, sampler=both, seed=seed, **few)
    for result in found.values():
        z = result.log_z
        assert z.kind == "estimate" and z.contains(2.0 + math.log(2 * math.pi * 3.0)), z
        assert result.diagnose().usable
    found.save(tmp_path / "out")
    page = (tmp_path / "out" / "index.html").read_text(encoding="utf-8")
    assert "log Z, the logarithm of the integral" in page and "nats, estimate, 95 % interval" in page


def test_discrete_laws_are_sampled_and_their_log_z_is_bracketed(seed):
    sizes = {"draws": 400, "warm_up": 100, "rungs": 6, "seed": seed}
    found = mg.sample_density("ising-3x3", sampler=["gibbs", "gibbs-with-gradients", "tempering"], **sizes)
    law = mg.law("ising-3x3")
    truth = np.asarray(law.marginals)[:, 1]
    for name, result in found.items():
        assert result.diagnose().usable, result
        chains = result.draws.mean(axis=1)  # (chains, sites): their spread gives the error
        error = chains.std(axis=0, ddof=1) / np.sqrt(len(chains))
        assert np.all(np.abs(chains.mean(axis=0) - truth) < 6 * error + 1e-3), name  # t with 15 degrees of freedom
    z = found["tempering"].log_z
    assert z.kind == "bracket" and z.contains(float(law.log_z)), z
    assert found["gibbs"].log_z.kind == "none" and found["gibbs"].modes is None
    ladder = found["tempering"].warm_up
    again = mg.sample_density("ising-3x3", sampler="tempering", **{**sizes, "warm_up": ladder})
    assert again.warm_up.ladder is ladder.ladder and again.log_z.contains(float(law.log_z))


def test_resampling_keeps_the_shares():
    w = np.array([1.0, 2.0, 3.0, 0.0, 4.0])
    counts = np.bincount(resampled(np.log(np.repeat(w, 20) + 1e-300), 1) // 20, minlength=5)
    assert np.all(np.abs(counts - 100 * w / w.sum()) <= 1)


# --- the command line's results ---------------------------------------------------------------------------------------


def test_a_run_writes_a_page_a_report_and_draws(run, tmp_path):
    code, out, err = run(
        "mine.py:bell",
        "--dim",
        2,
        "--samplers",
        "mala,random-walk",
        "--draws",
        300,
        "-o",
        "out",
        "--seed",
        3,
    )
    assert code == 0, err
    lines = out.splitlines()
    assert (
        lines[0].split()[:3] == ["sampler", "acceptance", "R-hat"] and lines[1].startswith("mala") and len(lines) == 3
    )
    assert "report   out/index.html" in err and "mala: " in err
    report = json.loads((tmp_path / "out" / "report.json").read_text(encoding="utf-8"))
    assert [row["sampler"] for row in report["samplers"]] == ["mala", "random-walk"] and report["seed"] == 3
    assert report["command"].startswith("mulligan sample-density mine.py:bell")
    page = (tmp_path / "out" / "index.html").read_text(encoding="utf-8")
    assert not re.search(r"(src|href)=|<script|https?://(?!www\.w3\.org)", page) and page.count("<svg") == 6
    for word in ("mine.py:bell", "Verdicts", "x2 against x1", "Seed 3"):
        assert word in page
    with np.load(tmp_path / "out" / "mala.npz") as draws:
        assert draws["x"].shape == (16, 300, 2) and "statistics.acceptance" in draws
    again, _, told = run("mine.py:bell", "--dim", 2, "-o", "out")
    assert again == 2 and "out exists" in told


def test_json_is_clean_and_quiet_is_quiet(run):
    code, out, err = run(
        "double-well", "--samplers", "random-walk", "--draws", 50, "--warm-up", 50, "--json", "--quiet"
    )
    row = json.loads(out)["samplers"][0]
    assert row["verdict"] in VERDICTS and row["diagnosis"]["numbers"]["chains"] == 16
    assert code in (0, 4) and len(err.splitlines()) <= 2


def test_every_sampler_is_in_the_help_and_has_a_description(run):
    from mulligan.cli.sample_density import HELP

    assert all(name in " ".join(HELP.split()) for name in SAMPLERS) and tuple(METHODS) == SAMPLERS
    assert all(method.help for method in METHODS.values())


def test_names_of_a_target():
    assert make_target(lambda x: -jnp.sum(x**2), 3).names == ("x1", "x2", "x3")
    assert make_target("mine.py:ring", 2).name == "mine.py:ring"
    scalar = make_target(lambda p: -(p**2), start=0.0)
    assert scalar.names == ("x",) and scalar.named(np.zeros((4, 5, 1)))["x"].shape == (4, 5)
