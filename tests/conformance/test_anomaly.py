"""``mulligan anomaly``: what it writes, and what it says where nothing can be flagged."""

from __future__ import annotations

import csv
import io
import json

import numpy as np
import pytest

import mulligan
from mulligan.cli import main


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("anomaly")
    rng = np.random.default_rng(0)
    rows = {"a": rng.normal(size=400), "b": rng.normal(size=400)}
    mulligan.fit(rows, "gaussian").save(place / "m")
    (place / "rows.csv").write_text("a,b\n0.123456,0.2\n0.5,12.0\n-0.3,0.7\n")
    return place


def test_the_table_names_the_row_and_its_column(folder, capsys):
    assert main(["anomaly", str(folder / "m"), str(folder / "rows.csv"), "--level", ".1"]) == 0
    out, err = capsys.readouterr()
    rows = list(csv.DictReader(io.StringIO(out)))
    assert [row["flagged"].lower() for row in rows] == ["false", "true", "false"]
    assert rows[1]["why"].startswith("b +") and float(rows[1]["p"]) == pytest.approx(1 / 61)
    assert "1 of 3 rows flagged" in err and "no part in it" in err


def test_too_few_calibration_rows_are_said(folder, capsys):
    command = ["anomaly", str(folder / "m"), str(folder / "rows.csv")]
    assert main(command) == 0
    assert "no p is below 1/(m + 1)" in capsys.readouterr()[1]
    assert main([*command, "--json"]) == 0
    found = json.loads(capsys.readouterr()[0])
    assert len(found["p"]) == 3 and found["calibration_rows"] == 60
    assert main([*command, "--level", "2"]) == 2
