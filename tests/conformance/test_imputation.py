"""Empty cells from the file to the filled table: which families fit them, and what the command line writes and refuses."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
from shared_fits import fitted

from mulligan.catalog import FAMILIES, find_family
from mulligan.cli import main
from mulligan.data.table import ReadOptions
from mulligan.errors import DataError, UsageError
from mulligan.workbench.fitting import fit_prepared
from mulligan.workbench.imputation import impute
from mulligan.workbench.preparation import prepare
from mulligan.workbench.sources import open_table
from mulligan.workbench.talk import Talk


def holed(rows: int = 240) -> dict[str, list]:
    """Three columns that go together, one cell in ten empty."""
    rng = np.random.default_rng(5)
    x = rng.normal(size=rows)
    columns = {
        "a": np.round(x, 3),
        "b": np.round(2 * x + 0.3 * rng.normal(size=rows), 3),
        "kind": np.where(x > 0, "u", "v"),
    }
    return {
        name: [None if rng.random() < 0.1 else value for value in column.tolist()] for name, column in columns.items()
    }


@pytest.fixture(scope="module")
def prepared():
    return prepare(open_table(holed(), ReadOptions(missing="model")), seed=0)


def fit_to(prepared, name: str):
    family, variant = find_family(name)
    options = family.parse_options({"parts": (2,)} if name == "mixture" else {})
    settings = {"seed": 0, "effort": "quick", "budget": None, "steps": 20, "talk": Talk()}
    return fit_prepared(prepared, family, variant, options, **settings)


@pytest.mark.parametrize("name", ["gaussian", "mixture", "factor", "factor:ppca"])
def test_families_that_fit_empty_cells(name, prepared):
    model, _, _ = fit_to(prepared, name)
    assert FAMILIES[name.split(":")[0]].incomplete and np.isfinite(model.calibration).all()
    rows = prepared.rows_of("select")
    assert np.isfinite(model.log_prob(rows)).all()
    found = impute(model, rows)
    assert len(found.cells) == np.isnan(rows.values).sum() and not np.isnan(found.fill().values).any()
    a, b = found.table.names.index("a"), found.table.names.index("b")
    here = (found.cells[:, 1] == b) & ~np.isnan(rows.values[found.cells[:, 0], a])
    known = rows.values[found.cells[here, 0], a]
    assert np.abs(np.median(found.draws[:, here], axis=0) - 2 * known).max() < 0.6  # b is 2 a, to .3


@pytest.mark.parametrize("name", sorted(name for name, family in FAMILIES.items() if not family.incomplete))
def test_the_others_name_those_that_can(name, prepared):
    with pytest.raises(DataError, match=r"a family that can: .*mixture"):
        fit_to(prepared, name)


def test_imputation_of_mixed_columns_is_valid_and_reproducible():
    model = fitted("gaussian", "mixed")
    rows = model.sample(60, seed=4)
    values = rows.values.copy()
    values[np.random.default_rng(0).random(values.shape) < 0.3] = np.nan
    one, two = (impute(model, rows.with_values(values), times=3, seed=7) for _ in range(2))
    np.testing.assert_array_equal(one.draws, two.draws)
    assert len(one.tables) == 3 and one.method == "exact"
    for table in (*one.tables, one.fill(), one.fill("mean")):
        shown = ~np.isnan(values)
        np.testing.assert_array_equal(table.values[shown], values[shown])
        assert np.isfinite(table.values).all() and (table["count"] == np.rint(table["count"])).all()
    rows_of, shares = one.probabilities("kind")
    assert len(rows_of) == len(shares) and np.allclose(shares.sum(1), 1)
    pooled = one.pool(lambda table: (table["length"].mean(), table["length"].var(ddof=1) / len(table)), len(rows) - 1)
    assert pooled.tables == 3 and pooled.quantity.stderr > 0 and 0 < pooled.missing_information < 1
    held = model.sample(200, seed=5)
    calibrated = impute(model, rows.with_values(values), calibrate=held)
    assert calibrated.interval_method.startswith("nested conformal sets, calibrated on 200 rows")
    for wrong in ({"times": 0}, {"level": 1.0}, {"times": 1000}):
        with pytest.raises(UsageError):
            impute(model, rows, **wrong)


# --- command line ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with the table, its complete rows, and a gaussian fitted to both kinds of rows."""
    place = tmp_path_factory.mktemp("impute")
    columns = holed()
    for name, rows in (
        ("holed", range(240)),
        ("whole", [i for i in range(240) if None not in (columns["a"][i], columns["b"][i], columns["kind"][i])]),
    ):
        with (place / f"{name}.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(columns)
            writer.writerows([["" if columns[c][i] is None else columns[c][i] for c in columns] for i in rows])
    asked = [
        "fit",
        str(place / "holed.csv"),
        "--family",
        "gaussian",
        "--missing",
        "model",
        "-o",
        str(place / "m"),
        "-q",
    ]
    assert main(asked) == 0
    return place


def run(capsys, *arguments) -> tuple[int, str, str]:
    code = main([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    return code, out, err


def test_impute_writes_its_files(folder, capsys):
    flags = ("-o", folder / "out.csv", "--times", "2", "--calibrate", folder / "whole.csv")
    code, _, err = run(capsys, "impute", folder / "m", folder / "holed.csv", *flags)
    assert code == 0, err
    assert "filled with the median given their rows (exact)" in err and "nested conformal sets" in err
    texts = [(folder / f"out{end}.csv").read_text() for end in ("", "-1", "-2", "-cells")]
    tables = [list(csv.DictReader(text.splitlines())) for text in texts]
    assert [len(table) for table in tables[:3]] == [240] * 3 and all(all(row.values()) for row in tables[0])
    empty = sum(value is None for column in holed().values() for value in column)
    assert len(tables[3]) == empty and set(tables[3][0]) == {"row", "column", "value", "low", "high"}
    code, _, err = run(capsys, "impute", folder / "m", folder / "holed.csv", "-o", folder / "out.csv")
    assert code == 2 and "exists" in err
    code, out, _ = run(capsys, "impute", folder / "m", folder / "holed.csv", "--json")
    assert code == 0 and len(json.loads(out)["cells"]["row"]) == empty
    code, _, err = run(capsys, "impute", folder / "m", folder / "holed.csv", "--times", "2")
    assert code == 2 and "DO: -o out.csv" in err


def test_predict_adds_its_columns(folder, capsys):
    code, out, err = run(capsys, "predict", folder / "m", folder / "whole.csv", "--column", "b")
    rows = list(csv.DictReader(out.splitlines()))
    assert code == 0 and {"b mean", "b sd", "b median", "b low", "b high"} <= set(rows[0]), err
    assert abs(np.mean([float(row["b mean"]) - 2 * float(row["a"]) for row in rows])) < 0.1
    assert "share inside the 90 % interval" in err and "log p(y | x)" in err
    code, out, err = run(capsys, "predict", folder / "m", folder / "holed.csv", "--column", "kind", "--json")
    found = json.loads(out)
    assert code == 0 and found["judged"]["accuracy"]["value"] > 0.9 and set(found["levels"]) == {"u", "v"}
    code, _, err = run(capsys, "predict", folder / "m", folder / "whole.csv", "--column", "c")
    assert code == 2 and "no column 'c'" in err


def test_log_prob_of_rows_with_empty_cells_is_their_marginal(folder, capsys):
    code, out, err = run(capsys, "log-prob", folder / "m", folder / "holed.csv", "--missing", "model", "--json")
    assert code == 0 and all(np.isfinite(json.loads(out)["log_prob"])), err
    code, _, err = run(capsys, "log-prob", folder / "m", folder / "holed.csv")
    assert code == 3 and "empty cells" in err
