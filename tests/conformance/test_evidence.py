"""Use of samples, memory and p-values in the report of a comparison: closed-form families only, nothing is trained."""

from __future__ import annotations

import jsonschema
import numpy as np
import pytest
from saboteurs import uses

import mulligan as mg
from mulligan.data.table import ReadOptions
from mulligan.measures.synthetic_use import synthetic_use
from mulligan.report.cells import memory_cells, use_cells
from mulligan.report.schema import load_schema
from mulligan.workbench import likeness
from mulligan.workbench.preparation import prepare
from mulligan.workbench.sources import open_table


def rows(n=700, seed=0):
    """A curve, a category that goes with it, and counts: a Gaussian knows the line only."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=n)
    kind = np.where(x + 0.3 * rng.normal(size=n) > 0, "red", "green")
    return {"x": x, "y": x**2 + 0.2 * rng.normal(size=n), "kind": kind, "n": rng.poisson(np.exp(x / 2))}


@pytest.fixture(scope="module")
def card(tmp_path_factory):
    return mg.compare(rows(), ["gaussian", "resample"], effort="quick", out=tmp_path_factory.mktemp("report"))


def row_of(card, family):
    return next(row for row in card.report["families"] if row["family"] == family)


def test_the_report_holds_them_and_follows_the_schema(card):
    jsonschema.Draft202012Validator(load_schema()).validate(card.report)
    for row in card.report["families"]:
        use, anomaly = row["use"], row["anomaly"]
        assert [column["name"] for column in use["columns"]] == ["x", "y", "kind", "n"]
        assert use["rows"] == card.report["split"]["train"] and use["predictor"] == "the mean of the 10 nearest rows"
        assert use["difference"]["n"] == card.report["split"]["test"] and use["real"] != use["samples"]
        assert anomaly["ks"]["n"] == anomaly["calibration_rows"] == card.report["split"]["select"]
        assert anomaly["ks"]["low"] == 0.0  # p-values are valid whatever the model is
    gaussian, resample = row_of(card, "gaussian"), row_of(card, "resample")
    assert gaussian["use"]["difference"]["high"] < 0 < resample["use"]["samples"]["low"]
    y = {column["name"]: column for column in gaussian["use"]["columns"]}["y"]
    assert y["samples"] < 0.3 < 0.6 < y["real"]
    assert resample["samples"]["nearer"]["value"] == 1.0 and resample["samples"]["nearest_sample"]["value"] < 1e-6
    assert gaussian["samples"]["nearer"]["value"] < 0.7


def test_the_table_in_python_holds_them(card):
    table = card.table
    use = row_of(card, "gaussian")["use"]["difference"]
    assert table["use_difference"][0] == use["value"] and table["use_difference_high"][0] == use["high"]
    assert table["nearer"][1] == 1.0


def test_the_words_say_so(card):
    words = {row[0]: row[1] for row in use_cells(card.report).rows}
    assert words["gaussian"].startswith("less than real rows, most of all for y")
    remembered = {row[0]: row[1] for row in memory_cells(card.report).rows}
    assert remembered["resample"].endswith("as if 100 % were copies")
    assert remembered["gaussian"] == "farther off than test rows: samples beside the data"


def test_a_model_of_some_columns_is_asked_for_those_beside_the_training_rows(monkeypatch):
    asked = {}

    def kept(train, test, generated, schema, seed, **more):
        asked.update(train=train, generated=generated, columns=more["columns"])
        return synthetic_use(train, test, generated, schema, seed, **more)

    class Conditional:
        """Draws y, kind and n anew beside the x that it is given."""

        given = ("x",)

        def sample(self, n, seed, given):
            values = given.values[np.arange(n) % len(given)].copy()
            values[:, 1:] = uses.relation_lost(values[:, 1:], np.random.default_rng(seed))
            return given.with_values(values)

    monkeypatch.setattr(likeness, "synthetic_use", kept)
    prepared, model = prepare(open_table(rows()), 0), Conditional()
    model.schema, test = prepared.table.schema, prepared.read_test("stub")
    found = likeness.use_of_samples(model, prepared, test, test, 0, prepared.test_clusters)
    assert [column["name"] for column in found["columns"]] == ["y", "kind", "n"] == list(asked["columns"])
    n = len(asked["train"])
    assert (asked["generated"][:n, 0] == asked["train"][:, 0]).all() and len(asked["generated"]) == 8 * n
    assert not np.isin(asked["generated"][:, 0], test.values[:, 0]).any()


def test_a_twin_that_loses_the_relation_is_told_from_the_family(card, monkeypatch):
    original = likeness.synthetic_use

    def without(train, test, generated, *rest, **more):
        return original(train, test, uses.relation_lost(generated, np.random.default_rng(0)), *rest, **more)

    monkeypatch.setattr(likeness, "synthetic_use", without)
    twin = mg.compare(rows(), ["resample"], effort="quick").report["families"][0]["use"]
    assert twin["difference"]["high"] < row_of(card, "resample")["use"]["difference"]["low"]
    assert twin["samples"]["value"] < 0.1 < 0.5 < twin["real"]["value"]


def test_one_column_has_no_use_and_few_rows_say_why():
    one = mg.compare({"x": rows()["x"]}, ["gaussian"], effort="quick").report["families"][0]
    assert one["use"] is None and one["anomaly"]["ks"]["value"] is not None
    few = mg.compare(rows(60), ["gaussian"], effort="quick")
    use = few.report["families"][0]["use"]
    assert use["difference"]["kind"] == "none" and "too few" in use["difference"]["note"]
    assert not use_cells(few.report).rows
    jsonschema.Draft202012Validator(load_schema()).validate(few.report)


def test_rows_with_empty_cells_are_left_out():
    table = rows()
    table["y"] = [None if i % 7 == 0 else value for i, value in enumerate(table["y"])]
    made = mg.fit(open_table(table, ReadOptions(missing="model")), "gaussian", effort="quick")
    assert made.card["row"]["use"]["difference"]["n"] < made.card["split"]["test"]
    assert made.card["row"]["anomaly"]["ks"]["n"] == made.card["split"]["test"]


def test_test_rows_of_another_population_are_said():
    elsewhere = {name: column[:200] for name, column in rows(seed=1).items()}
    usual = mg.compare(rows(), ["gaussian"], effort="quick", test=elsewhere).report["families"][0]
    assert not [note for note in usual["health"] if "not uniform" in note]
    elsewhere["x"] = elsewhere["x"] + 3.0
    other = mg.compare(rows(), ["gaussian"], effort="quick", test=elsewhere).report["families"][0]
    assert [note for note in other["health"] if "another population" in note]
    assert other["anomaly"]["ks"]["low"] > 0.0
