"""Models of p(others | given): normalised for each value of what is given, drawn beside it, saved, and told in words."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from mulligan.catalog import FAMILIES
from mulligan.cli import main
from mulligan.data.given import ConditionalCodec, codec_from_json, codec_to_json, fit_any_codec
from mulligan.errors import DataError, FormatError, UsageError
from mulligan.workbench.artifact import load
from mulligan.workbench.fitting import fit
from mulligan.workbench.sources import open_table

ABLE = [name for name, family in FAMILIES.items() if family.conditional]
SCORED = [name for name in ABLE if "Density" in FAMILIES[name].capabilities]
OPTIONS = {
    "flow": {"layers": 2, "width": 16},
    "autoregressive": {"width": 16, "depth": 1, "parts": 4},
    "vae": {"noise": "latent"},
}
MEANS, SCALES = {"blue": 0.0, "red": 4.0}, {"blue": 1.0, "red": 0.5}


def rows(n=900, seed=0):
    """x given kind and t is N(mean of the kind + t, scale of the kind); the given columns stand first and last."""
    rng = np.random.default_rng(seed)
    kind = rng.choice(["blue", "red"], n)
    t = np.round(rng.uniform(-1, 1, n), 6) + 1e-7 * np.sqrt(2)
    scale = np.where(kind == "red", SCALES["red"], SCALES["blue"])
    x = np.where(kind == "red", MEANS["red"], MEANS["blue"]) + t + scale * rng.normal(size=n)
    return {"kind": kind, "x": x, "t": t}


@pytest.fixture(scope="module")
def models():
    """The families that can be conditional, fitted to x given kind and t."""
    made = {}

    def get(name):
        if name not in made:
            options = OPTIONS.get(name, {})
            made[name] = fit(rows(), name, given=["t", "kind"], effort="quick", options=options, seed=1)
        return made[name]

    return get


def beside(x, kind, t):
    return {"x": x, "kind": np.full(len(x), kind), "t": np.full(len(x), t)}


# --- the law ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SCORED)
@pytest.mark.parametrize("kind, t", [("blue", -0.5), ("red", -0.5), ("red", 0.75)])
def test_it_is_normalised_and_close_to_the_truth_for_each_value(models, name, kind, t):
    model = models(name)
    x, dx = np.linspace(-12, 16, 5601, retstep=True)
    p = np.exp(model.log_prob(beside(x, kind, t)))
    mean, scale = MEANS[kind] + t, SCALES[kind]
    truth = np.exp(-0.5 * ((x - mean) / scale) ** 2) / scale / np.sqrt(2 * np.pi)
    total = np.trapezoid(p, x)
    if model.log_prob_kind == "lower bound":
        assert 0.9 < total < 1.02  # in expectation below 1: the draws of a cell are its own
    else:
        assert total == pytest.approx(1, abs=2e-3)
    found = np.trapezoid(x * p, x) / total
    assert found == pytest.approx(mean, abs=0.25 * scale)
    assert 0.5 * np.sum(np.abs(p - truth)) * dx < 0.25  # distance in total variation
    other = np.exp(model.log_prob(beside(x, "blue" if kind == "red" else "red", t)))
    assert 0.5 * np.sum(np.abs(other - truth)) * dx > 0.8  # a model that is deaf to what is given would fail here


@pytest.mark.parametrize("name", SCORED)
def test_draws_follow_log_prob_and_stand_beside_what_was_given(models, name):
    drawn = models(name).sample(4000, seed=2, given={"kind": "red", "t": 0.25})
    assert list(drawn.to_dict()) == ["kind", "x", "t"] and set(drawn["kind"]) == {"red"} and set(drawn["t"]) == {0.25}
    x, dx = np.linspace(-12, 16, 5601, retstep=True)
    law = np.cumsum(np.exp(models(name).log_prob(beside(x, "red", 0.25)))) * dx
    distance = np.max(np.abs(np.interp(np.sort(drawn["x"]), x, law) - (np.arange(4000) + 0.5) / 4000))
    assert distance < 2.63 / np.sqrt(4000)  # Kolmogorov-Smirnov at a level of 2e-6


@pytest.mark.parametrize("name", SCORED)
def test_the_score_is_the_slope_of_log_prob(models, name):
    at = {"x": np.array([0.1, 3.7]), "kind": ["blue", "red"], "t": [0.5, -0.25]}
    slope = models(name).score(at)
    low, high = (models(name).log_prob({**at, "x": at["x"] + step}) for step in (-0.01, 0.01))
    assert slope.shape == (2, 1)
    np.testing.assert_allclose(slope[:, 0], (high - low) / 0.02, rtol=0.05, atol=0.05)


@pytest.mark.parametrize("name", SCORED)
def test_a_probability_sums_to_one_for_each_value(name):
    """A count given a category: exactly where log p is exact, on average over its draws where it is a bound."""
    rng = np.random.default_rng(0)
    size = rng.choice(["s", "m", "l"], 400)
    count = rng.poisson(np.where(size == "l", 4.0, 1.0))
    options = {**OPTIONS.get(name, {}), "width": 8}
    model = fit({"size": size, "count": count}, name, given="size", effort="quick", steps=100, options=options)
    assert model.given == ("size",) and model.measure == "probability of the stated value of count, given size"
    for level in ("s", "m", "l"):
        every = np.arange(-40, 80)
        total = np.exp(model.log_prob({"size": np.full(120, level), "count": every})).sum()
        assert total == pytest.approx(1, abs=1e-3 if model.log_prob_kind == "exact" else 0.1)


# --- draws and what is given ------------------------------------------------------------------------------------------


def test_use_of_samples_is_asked_of_the_modelled_column(models):
    use = models(SCORED[0]).card["row"]["use"]
    assert [column["name"] for column in use["columns"]] == ["x"] and use["difference"]["n"] == 135
    assert use["real"]["low"] > 0.5  # x is known from kind and t but for its noise


def test_the_first_draws_do_not_depend_on_n_and_rows_are_used_in_turn(models):
    model = models(ABLE[0])
    table = {"kind": ["red", "blue", "red"], "t": [0.5, -0.5, 0.0]}
    once = model.sample(given=table, seed=3)
    assert len(once) == 3 and list(once["kind"]) == table["kind"] and list(once["t"]) == table["t"]
    more = model.sample(1500, given=table, seed=3)
    assert np.array_equal(more.values[:3], once.values) and list(more["kind"][3:6]) == table["kind"]
    assert np.array_equal(model.sample(2, given=table, seed=3).values, once.values[:2])
    assert len(model.sample(given={"kind": "red", "t": 0.5})) == 1
    assert list(model.sample(given={"kind": "red", "t": [0.5, 0.25]})["kind"]) == ["red", "red"]
    whole = open_table(rows(20, seed=5))
    drawn = model.sample(given=whole)
    assert all(list(drawn[name]) == list(whole[name]) for name in ("kind", "t")) and not set(drawn["x"]) & set(
        whole["x"]
    )
    import pandas

    frame = pandas.DataFrame({"t": [0.5], "kind": ["blue"], "note": ["ignored"]})
    assert list(model.sample(given=frame)["kind"]) == ["blue"]


@pytest.mark.parametrize(
    "given, error, said",
    [
        (None, UsageError, "has p(other columns | kind, t): it needs their values. DO: --given kind=VALUE,t=VALUE"),
        ({}, UsageError, "no value is given for 'kind', 't'"),
        ({"kind": "red"}, UsageError, "no value is given for 't'. DO: --given kind=red,t=VALUE"),
        ({"kind": "red", "t": 0.0, "x": 1.0}, UsageError, "'x' is not a given column"),
        (
            {"kin": "red", "t": 0.0},
            UsageError,
            "'kin' is not a given column. Did you mean kind? DO: given columns: kind, t",
        ),
        ({"kind": "green", "t": 0.0}, DataError, "'kind' is 'green' in given"),
        ({"kind": "red", "t": "soon"}, DataError, "'t' is text in given"),
        ({"kind": "red", "t": np.nan}, DataError, "1 empty cell in 1 of 2 columns (t 1)"),
        ({"kind": ["red", None], "t": [0.0, 1.0]}, DataError, "1 empty cell in 1 of 2 columns (kind 1)"),
        ({"kind": "red", "t": np.inf}, DataError, "'t' is inf"),
        ({"kind": ["red"] * 2, "t": [0.0] * 3}, DataError, "unequal lengths"),
    ],
)
def test_wrong_values_are_refused(models, given, error, said):
    with pytest.raises(error) as raised:
        models(ABLE[0]).sample(3, given=given)
    assert said in str(raised.value)


@pytest.mark.parametrize("n", [0, -1, 1.5, True])
def test_n_is_a_whole_number(models, n):
    with pytest.raises(UsageError, match="expected a whole number from 1"):
        models(ABLE[0]).sample(n, given={"kind": "red", "t": 0.0})


@pytest.mark.parametrize(
    "given, said",
    [
        (["kin"], "no column 'kin' (--given). DO: --given kind"),
        (["nothing"], "no column 'nothing' (--given). DO: columns: kind, x, t"),
        (["site"], "'site' is a constant: it cannot be given"),
        (["user"], "'user' is a label: it cannot be given"),
        (["kind", "x", "t"], "every column is given: nothing is left to model"),
    ],
)
def test_wrong_columns_are_refused_before_training(monkeypatch, given, said):
    monkeypatch.setattr("mulligan.workbench.fitting.fit_prepared", lambda *_, **__: pytest.fail("training began"))
    data = {**rows(60), "site": np.full(60, 3), "user": [f"u{i}" for i in range(60)]}
    with pytest.raises(UsageError) as raised:
        fit(data, ABLE[0], given=given)
    assert said in str(raised.value)
    unable = next(name for name in FAMILIES if name not in ABLE)
    with pytest.raises(UsageError) as raised:
        fit(data, unable, given=["kind"])
    assert f"{unable} cannot be given columns: it models all of them. DO: families that can: " in str(raised.value)


# --- the codec --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("native", [False, True])
def test_the_codec_takes_rows_apart_and_puts_them_together(native):
    table = open_table({**rows(200), "count": np.random.default_rng(1).poisson(3.0, 200)})
    codec = fit_any_codec(table, ["t", "kind"], native=native)
    assert isinstance(codec, ConditionalCodec) and codec.given_names == ("kind", "t") and codec.given_dim == 3
    encoded = codec.encode(table.values, 2)
    alone = fit_any_codec(open_table({name: table[name] for name in ("x", "count")}), native=native)
    np.testing.assert_array_equal(encoded.points, alone.encode(table.values[:, [1, 3]], 2).points)
    known = codec.encode_given(codec.given_part(table.values))
    np.testing.assert_array_equal(encoded.given, known)
    assert np.array_equal(known[:, :2].argmax(1), table.values[:, 0]) and np.all(known[:, :2].sum(1) == 1)
    assert abs(known[:, 2].mean()) < 1e-9 and known[:, 2].std() == pytest.approx(1, rel=0.01)
    back = codec.decode(encoded.points[:, 0], codec.given_part(table.values))
    np.testing.assert_allclose(back, table.values, atol=1e-9)
    again = codec_from_json(json.loads(json.dumps(codec_to_json(codec))))
    assert again == codec


# --- folders ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ABLE)
def test_saved_and_loaded_it_is_the_same(models, name, tmp_path):
    model = models(name)
    folder = model.save(tmp_path / "model")
    again, table = load(folder), open_table(rows(50, seed=9))
    assert again.given == ("kind", "t") and again.measure == model.measure == "density per unit of x, given kind, t"
    if name in SCORED:
        assert np.array_equal(again.log_prob(table), model.log_prob(table))
    drawn = {"kind": "blue", "t": 0.125}
    assert np.array_equal(again.sample(5, given=drawn).values, model.sample(5, given=drawn).values)
    assert again.card["settings"]["given"] == ["kind", "t"]
    text = (folder / "card.md").read_text()
    assert "p(x | kind, t): the law of the other column where kind, t are known" in text
    assert "log p is a density per unit of x, given kind, t" in text


@pytest.mark.parametrize(
    "change",
    [
        lambda fields: fields.update(given=["kind"]),
        lambda fields: fields.update(given=["kind", "t", "x"]),
        lambda fields: fields.update(given=[]),
        lambda fields: fields["conditions"].pop(),
        lambda fields: fields["conditions"][1].update(scale=0.0),
        lambda fields: fields["inner"]["columns"].pop(),
        lambda fields: fields.update(inner=dict(fields)),
        lambda fields: fields.update(codec="native"),
    ],
)
def test_a_doctored_schema_is_refused(models, tmp_path, change):
    folder = models(ABLE[0]).save(tmp_path / "model")
    fields = json.loads((folder / "schema.json").read_text())
    change(fields)
    (folder / "schema.json").write_text(json.dumps(fields))
    with pytest.raises(FormatError):
        load(folder)


# --- the command line -------------------------------------------------------------------------------------------------


@pytest.fixture
def run(capsys, tmp_path, monkeypatch):
    """Call the command line in an own folder: (exit code, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)

    def go(*arguments):
        code = main([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        assert "Traceback" not in out + err
        return code, out, err

    return go


def write_csv(path, columns):
    lines = [",".join(columns), *(",".join(map(str, row)) for row in zip(*columns.values()))]
    Path(path).write_text("\n".join(lines) + "\n")


def test_fitted_on_the_command_line_it_says_what_it_is(run):
    write_csv("rows.csv", rows(300))
    options = [f"--set={key}={value}" for key, value in OPTIONS.get("flow", {}).items()]
    fitting = ["fit", "rows.csv", "--family", "flow", "--given", "kind,t", "--effort", "quick", "-o", "m", *options]
    code, out, err = run(*fitting)
    assert code == 0
    assert "p(x | kind, t): the law of the other column where kind, t are known" in out
    assert "density per unit of x, given kind, t" in out
    assert "Next:  mulligan sample m --given kind=red,t=-" in err
    assert json.loads(Path("m/config.json").read_text())["card"]["reproduce"]["command"].startswith(
        "mulligan fit rows.csv"
    )
    code, out, err = run("log-prob", "m", "rows.csv")
    assert (
        code == 0
        and out.splitlines()[0] == "kind,x,t,log_prob"
        and "log p of a row: density per unit of x, given" in err
    )
    code, out, _ = run("log-prob", "m", "rows.csv", "--json")
    assert json.loads(out)["given"] == ["kind", "t"]


@pytest.fixture
def folder(models, run):
    return models(ABLE[0]).save("m")


def test_sample_takes_values_or_a_file(run, folder, models):
    code, out, _ = run("sample", "m", "-n", "3", "--given", "kind=red,t=0.5")
    lines = [line.split(",") for line in out.splitlines()]
    assert code == 0 and lines[0] == ["kind", "x", "t"] and [line[::2] for line in lines[1:]] == [["red", "0.5"]] * 3
    assert [float(line[1]) for line in lines[1:]] == list(
        models(ABLE[0]).sample(3, given={"kind": "red", "t": 0.5})["x"]
    )
    assert run("sample", "m", "-n", "3", "--given", "kind=red", "--given", "t=0.5")[1] == out
    write_csv("some.csv", {"T": [0.5, -0.5], "note": [1, 2], "kind": ["red", "blue"]})
    code, out, err = run("sample", "m", "--given", "some.csv", "--rename", "T=t")
    assert code == 0 and [line.split(",")[0] for line in out.splitlines()] == ["kind", "red", "blue"]
    assert "ignored: 'note'" in err
    assert len(run("sample", "m", "--given", "some.csv", "--rename", "T=t", "-n", "5", "-q")[1].splitlines()) == 6
    write_csv("gaps.csv", {"t": [0.5, ""], "kind": ["red", "blue"]})
    code, _, err = run("sample", "m", "--given", "gaps.csv")
    assert code == 3 and "1 empty cell" in err and "--missing drop" in err
    code, out, err = run("sample", "m", "--given", "gaps.csv", "--missing", "drop")
    assert code == 0 and len(out.splitlines()) == 2 and "dropped 1 of 2 rows" in err


@pytest.mark.parametrize(
    "flags, code, said",
    [
        ([], 2, "it needs their values. DO: --given kind=VALUE,t=VALUE, or --given FILE with these columns"),
        (["--given", "kind=red"], 2, "no value is given for 't'. DO: --given kind=red,t=VALUE"),
        (["--given", "kind=red,t=soon"], 2, "--given t=soon: 't' is a number. DO: --given t=0.5"),
        (["--given", "knd=red,t=1"], 2, "'knd' is not a given column. Did you mean kind?"),
        (["--given", "kind=green,t=1"], 3, "'kind' is 'green' in given"),
        (["--given", "nothing.csv"], 3, "no file 'nothing.csv' here"),
        (["--given", "kind=red,"], 3, "no value is given for 't'"),
    ],
)
def test_sample_says_what_is_wrong(run, folder, flags, code, said):
    found, out, err = run("sample", "m", *flags)
    assert (found, out) == (2 if said.startswith("no value") else code, "") and said in err and err.count("\n") == 1


def test_what_cannot_be_given_is_said(run):
    write_csv("rows.csv", rows(60))
    unable = next(name for name in FAMILIES if name not in ABLE)
    code, _, err = run("fit", "rows.csv", "--family", unable, "--given", "kind", "-o", "m")
    assert code == 2 and f"{unable} cannot be given columns" in err and not Path("m").exists()
    code, _, err = run("fit", "rows.csv", "--family", ABLE[0], "--given", "kin", "-o", "m", "-q")
    assert code == 2 and err == "mulligan: no column 'kin' (--given). DO: --given kind\n" and not Path("m").exists()
    assert run("fit", "rows.csv", "--family", "gaussian", "-o", "g", "-q")[0] == 0
    code, out, err = run("sample", "g", "--given", "kind=red,t>0", "-n", "7")  # the law of all columns is conditioned
    drawn = list(csv.DictReader(out.splitlines()))
    assert code == 0 and "method" in err and {row["kind"] for row in drawn} == {"red"} and len(drawn) == 7
    assert all(float(row["t"]) > 0 for row in drawn)
    code, _, err = run("sample", "g", "--given", "kin=red")
    assert code == 2 and "no column 'kin' in this model. Did you mean kind?" in err
    code, out, err = run("log-prob", "g", "rows.csv", "--columns", "x")
    assert code == 0 and next(csv.DictReader(out.splitlines())).keys() == {"x", "log_prob", "log_prob_stderr"}
    code, out, err = run("log-prob", "g", "rows.csv", "--given", "kind=red")
    assert code == 0 and "log p(evidence)" in err
    assert all(
        (row["kind"] == "red") == np.isfinite(float(row["log_prob"])) for row in csv.DictReader(out.splitlines())
    )
