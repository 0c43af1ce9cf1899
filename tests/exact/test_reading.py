"""Files and objects become frames; every refusal says what, where, and what to do."""

import datetime
import gzip
import hashlib
import io
import pickle
import zipfile
from pathlib import Path

import narwhals as nw
import numpy as np
import pandas
import polars
import pyarrow
import pytest

from mulligan.data.builtin import load, read_table, table_names
from mulligan.data.cells import parse_texts
from mulligan.data.frames import from_object
from mulligan.data.inspection import inspect
from mulligan.data.reading import read_file
from mulligan.data.table import ReadOptions
from mulligan.errors import DataError, SetupError, UsageError
from mulligan.workbench.sources import read


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Write a file into an empty working folder and return its name."""
    monkeypatch.chdir(tmp_path)

    def make(name: str, content: str | bytes) -> Path:
        path = Path(name)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return make


def message(call, kind=DataError) -> str:
    with pytest.raises(kind) as caught:
        call()
    return str(caught.value)


def test_cells_origins_decimals_lines_and_hash(write):
    text = "a,b,c,d,e\n1,2.50,u,True,1e-3\n\n,4.1,,False,2\n"
    frame = read_file(write("t.csv", text))
    np.testing.assert_array_equal(frame.columns["a"], [1, np.nan])
    assert frame.columns["c"].tolist() == ["u", None]
    assert frame.origin == {"a": "integer", "b": "float", "c": "text", "d": "boolean", "e": "float"}
    assert frame.decimals == {"a": 0, "b": 2, "c": None, "d": None, "e": 3}
    assert frame.lines.tolist() == [2, 4]
    assert frame.notes == ("1 blank line skipped",)
    assert frame.source.sha256 == hashlib.sha256(text.encode()).hexdigest()


def test_byte_order_mark_quotes_and_lines_inside_quotes(write):
    frame = read_file(write("t.csv", b"\xef\xbb\xbf" + b'a,b\n"x, ""y""\nz",1\nw,2\n'))
    assert frame.columns["a"].tolist() == ['x, "y"\nz', "w"]
    assert frame.lines.tolist() == [2, 4]


@pytest.mark.parametrize("sep", ["\t", ";", "|", ","])
def test_separator_is_guessed(write, sep):
    frame = read_file(write("t.csv", f"a{sep}b\n1{sep}2.5\n3{sep}4.5\n"))
    assert list(frame.columns) == ["a", "b"]
    assert frame.columns["b"].tolist() == [2.5, 4.5]
    assert bool(frame.notes) == (sep != ",")


def test_semicolons_and_decimal_commas_are_said(write):
    frame = read_file(write("w.csv", "fixed acidity;quality\n7,4;5\n7,8;6\n"))
    assert frame.notes == (
        "read with ';' and ',' decimals (guessed from 3 rows): fixed acidity = 7.4. Not so? --sep, --decimal",
    )
    assert frame.decimals["fixed acidity"] == 1


def test_stated_dialect_is_not_noted_and_checked(write):
    path = write("w.csv", "a;b\n7,4;5\n")
    assert read_file(path, ReadOptions(sep=";", decimal=",")).notes == ()
    assert "--sep is ';;'" in message(lambda: read_file(path, ReadOptions(sep=";;")), UsageError)
    assert "cannot be both" in message(lambda: read_file(path, ReadOptions(sep=",", decimal=",")), UsageError)


def test_header_is_guessed_and_said(write):
    path = write("t.csv", "1,2.5\n3,4.5\n")
    frame = read_file(path)
    assert list(frame.columns) == ["x1", "x2"] and len(frame) == 2
    assert frame.notes == ("no header found (the first row is all numbers): columns are called x1 to x2",)
    assert list(read_file(path, ReadOptions(header=True)).columns) == ["1", "2.5"]
    assert list(read_file(write("u.csv", "u,v\nw,x\n"), ReadOptions(header=False)).columns) == ["x1", "x2"]


def test_column_without_name(write):
    frame = read_file(write("t.csv", ",b\n1,2\n"))
    assert list(frame.columns) == ["x1", "b"]
    assert frame.notes == ("columns without a name are called x1",)


def test_missing_file_names_near_ones(write):
    write("wine.csv", "a\n1\n")
    assert message(lambda: read_file("wnie.csv")) == "no file 'wnie.csv' here. Near: wine.csv."
    assert message(lambda: read_file("pengiuns", known=["penguins"])).endswith("Near: penguins.")
    assert "There is no such folder" in message(lambda: read_file("nowhere/zzz.csv"))


def test_folder_and_unreadable(write, tmp_path, monkeypatch):
    write("wine.csv", "a\n1\n")
    assert "is a folder. Tables inside: wine.csv" in message(lambda: read_file(tmp_path), UsageError)

    def refuse(self):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", refuse)
    assert "cannot read wine.csv (Permission denied)" in message(lambda: read_file("wine.csv"), SetupError)


def test_empty_and_header_only(write):
    assert message(lambda: read_file(write("e.csv", ""))).startswith("e.csv is empty. There is nothing to fit. DO: ")
    assert message(lambda: read_file(write("e.csv", "\n \n"))).startswith("e.csv is empty.")
    assert message(lambda: read_file(write("wine.csv", "a,b\n"))).startswith("wine.csv has a header and 0 rows. ")


def _zip(*names: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in names:
            archive.writestr(name, "x")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (_zip("xl/workbook.xml"), "d.csv is an Excel workbook. DO: save the sheet as CSV, or --format parquet"),
        (_zip("a.csv"), "d.csv is a zip archive. DO: unzip it"),
        (b"PK\x03\x04broken", "d.csv is a broken zip archive"),
        (gzip.compress(b"a,b\n1,2\n"), "d.csv is compressed with gzip. DO: gunzip it first"),
        (pickle.dumps([1, 2]), "d.csv is a Python pickle. Reading one runs code"),
        (b"%PDF-1.7\n", "d.csv is a PDF document"),
        (b"\x89PNG\r\n\x1a\n", "d.csv is a PNG picture"),
        ("a,b\n1,2\n".encode("utf-16"), "d.csv is UTF-16 text. DO: save it as UTF-8"),
        ("a,b\n1,2\n".encode("utf-16-le"), "d.csv is UTF-16 text without its mark"),
        (b"abc\x01\x02\x00\x05", "d.csv is a binary file (byte 5 is NUL)"),
        ("a,b\n1,2\né,3\n".encode("latin1"), "d.csv is not UTF-8 (byte 0xe9 in line 3)"),
        (b'a,b\n1,2\n"open,3\n', "d.csv cannot be split into cells (from line 3"),
    ],
)
def test_not_a_csv_is_named(write, content, words):
    assert message(lambda: read_file(write("d.csv", content))).startswith(words)


def test_format_is_checked_against_the_bytes(write):
    path = write("d.csv", "a\n1\n")
    assert "is text by its first bytes, not parquet" in message(lambda: read_file(path, ReadOptions(format="parquet")))
    assert "no format 'xls'" in message(lambda: read_file(path, ReadOptions(format="xls")), UsageError)


def test_ragged_rows(write):
    rows = ["1,2"] * 10
    rows[3], rows[5], rows[8] = "1,2,3", "1", "1,2,3,4"
    assert message(lambda: read_file(write("r.csv", "a,b\n" + "\n".join(rows)))) == (
        "line 5 has 3 fields, the header 2 (the first of 3 such lines: 5, 7, 10, in r.csv). "
        "A comma inside a text needs quotes."
    )
    assert "the only such line" in message(lambda: read_file(write("r.csv", "a,b\n1,2\n1\n")))


def test_duplicate_names(write):
    assert message(lambda: read_file(write("r.csv", "x,x\n1,2\n"))).startswith("two columns are called 'x' (r.csv)")


def test_numbers_that_only_python_reads_stay_text():
    assert parse_texts(["1_000", "2"])[1] == "text"
    assert parse_texts(["1,5", "2.5"], decimal=",")[0].tolist() == [1.5, 2.5]


def test_na_means_the_number_too(write):
    options = ReadOptions(na=("-999", "n/a"))
    frame = read_file(write("t.csv", "a,b\n-999.0,1\n2.5,n/a\n"), options)
    np.testing.assert_array_equal(frame.columns["a"], [np.nan, 2.5])
    np.testing.assert_array_equal(frame.columns["b"], [1, np.nan])
    for obj in (np.array([-999, 3]), {"x1": [-999, 3]}, pandas.DataFrame({"x1": [-999, 3]})):
        np.testing.assert_array_equal(from_object(obj, options).columns["x1"], [np.nan, 3])


def test_parquet_npy_npz(write):
    polars.DataFrame({"a": [1, None], "b": ["u", "v"]}).write_parquet("x.parquet")
    frame = read_file("x.parquet")
    assert frame.origin == {"a": "integer", "b": "text"} and frame.source.sha256
    np.testing.assert_array_equal(frame.columns["a"], [1, np.nan])
    assert "broken Parquet" in message(lambda: read_file(write("y.parquet", b"PAR1 and nothing")))

    np.save("x.npy", np.arange(6.0).reshape(3, 2))
    assert read_file("x.npy").columns["x2"].tolist() == [1, 3, 5]
    np.savez("x.npz", a=np.arange(3), b=np.ones(3))
    assert list(read_file("x.npz").columns) == ["a", "b"]
    np.savez("one.npz", data=np.ones((3, 2)))
    assert list(read_file("one.npz").columns) == ["x1", "x2"]
    np.savez("odd.npz", a=np.arange(3), b=np.ones(4))
    assert "2 arrays of different shapes" in message(lambda: read_file("odd.npz"))
    np.save("o.npy", np.array([{}], dtype=object), allow_pickle=True)
    assert "holds Python objects (a pickle inside)" in message(lambda: read_file("o.npy"))


@pytest.mark.parametrize("make", [pandas.DataFrame, polars.DataFrame, pyarrow.table, dict])
def test_frames_of_every_library_agree(make):
    columns = {"i": [1, 2, 3], "f": [1.5, None, 2.5], "t": ["u", None, "v"], "b": [True, False, True]}
    frame = from_object(make(columns))
    assert frame.origin == {"i": "integer", "f": "float", "t": "text", "b": "boolean"}
    np.testing.assert_array_equal(frame.columns["f"], [1.5, np.nan, 2.5])
    assert frame.columns["t"].tolist() == ["u", None, "v"]
    assert frame.columns["b"].tolist() == [1, 0, 1]


def test_pandas_specialities():
    table = pandas.DataFrame({"n": pandas.array([1, None], "Int64"), "c": pandas.Categorical(["u", "v"])})
    table.index = pandas.Index([7, 8], name="day")
    frame = from_object(table)
    np.testing.assert_array_equal(frame.columns["n"], [1, np.nan])
    assert frame.columns["c"].tolist() == ["u", "v"] and "the index 'day'" in frame.notes[0]
    assert from_object(pandas.Series([1.0, 2.0], name="s")).columns["s"].tolist() == [1, 2]
    assert list(from_object(pandas.DataFrame({0: [1], 1: [2]})).columns) == ["0", "1"]
    assert "same name" in message(lambda: from_object(pandas.DataFrame([[1, 2]], columns=["a", "a"])))
    assert from_object(nw.from_native(table)).origin["n"] == "integer"


def test_arrays():
    assert from_object(np.arange(3)).columns["x1"].tolist() == [0, 1, 2]
    assert from_object([[1.0, 2.0], [3.0, 4.0]]).columns["x2"].tolist() == [2, 4]
    mixed = from_object(np.array([[1, "a"], [None, "b"]], object))
    assert mixed.origin == {"x1": "integer", "x2": "text"}


@pytest.mark.parametrize(
    ("obj", "words"),
    [
        (np.zeros((2, 2, 2)), "an array of shape (2, 2, 2). A table has rows and columns"),
        (np.zeros(2, [("a", float)]), "a structured array (fields a)"),
        (np.zeros(2, complex), "'x1' holds complex numbers"),
        ({"z": [1j, 2j]}, "'z' holds complex numbers"),
        (np.zeros(2, "M8[D]"), "'x1' holds dates or times (datetime64[D])"),
        (pandas.DataFrame({"when": pandas.to_datetime(["2020-01-01"])}), "'when' holds dates or times"),
        (polars.DataFrame({"when": [datetime.date(2020, 1, 1)]}), "'when' holds dates or times"),
        ({"when": [datetime.date(2020, 1, 1)]}, "'when' holds dates or times (date)"),
        ({"a": [[1], [2]]}, "'a' holds objects of type list"),
        ({"a": [1, 2], "b": [1]}, "columns have unequal lengths (a 2, b 1)"),
        ({"a": np.zeros((2, 2))}, "'a' has shape (2, 2)"),
        ({"a": 3}, "'a' is int, not a column"),
        ({}, "memory has 0 columns and 0 rows"),
        ([[1], [2, 3]], "the rows of the list have unequal lengths"),
        (np.ma.masked_array([1, 2], [0, 1]), "a masked array"),
        (np.array([b"a"]), "'x1' holds bytes"),
    ],
)
def test_refused_objects(obj, words):
    assert message(lambda: from_object(obj)).startswith(words)


def test_objects_that_are_no_tables():
    assert message(lambda: from_object(3), UsageError).startswith("a int is not a table")
    assert "lazy frame" in message(lambda: from_object(polars.LazyFrame({"a": [1]})), UsageError)


def test_named_tables():
    raw = load("penguins")
    assert len(raw) == 344 and np.isnan(raw.columns["bill_length_mm"]).sum() == 2
    table = read_table("penguins")
    assert len(table) == 333 and any("dropped 11 of 344 rows" in note for note in table.notes)
    assert table.schema.column("sex").levels == ("male", "female")
    assert {name: len(load(name)) for name in table_names()} == {
        "penguins": 344, "iris": 150, "wine": 178, "breast_cancer": 569, "diabetes": 442, "digits": 1797,
    }  # fmt: skip
    assert list(load("digits").columns)[:9] == ["p00", "p01", "p02", "p03", "p04", "p05", "p06", "p07", "p10"]
    assert (
        message(lambda: load("irsi"), UsageError)
        == "no table 'irsi' (tables: " + ", ".join(table_names()) + "). DO: iris"
    )


def test_a_long_file_is_read_whole(write):
    values = np.random.default_rng(0).normal(size=(20_640, 10))
    body = "\n".join(",".join(f"{v:.4f}" for v in row) for row in values)
    path = write("big.csv", ",".join(f"c{j}" for j in range(10)) + "\n" + body)
    assert np.abs(inspect(read_file(path)).values - values).max() < 5.1e-5


def test_a_law_takes_no_options_but_rows():
    words = message(lambda: read("moons", drop=["x2"], transform={"x1": "log"}), UsageError)
    assert (
        words.startswith("'moons' is a law, which takes no drop, transform.")
        and "DO: leave drop, transform out" in words
    )
    assert read("moons", rows=20, seed=3, drop=[], na=()).values.shape == (20, 2)
