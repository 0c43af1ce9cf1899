"""What a table is found to be, and every refusal of rows that cannot be modelled, word by word."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mulligan.data.builtin import load, read_table
from mulligan.data.describe import describe, describe_json
from mulligan.data.frames import from_object
from mulligan.data.inspection import conform, inspect
from mulligan.data.reading import read_file
from mulligan.data.resolution import find_caps, find_grid
from mulligan.data.splits import make_split
from mulligan.data.table import ReadOptions, Schema, Table
from mulligan.errors import DataError, UsageError
from mulligan.workbench.preparation import prepare
from mulligan.workbench.sources import open_rows

SHARED = Path(__file__).parents[3] / "shared" / "data"  # real files beside the repository, not part of it
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="no folder shared/data beside the repository")
RNG = np.random.default_rng(0)
SMOOTH = RNG.normal(size=200)


def table(columns, **options) -> Table:
    return inspect(from_object(columns), ReadOptions(**options))


def column(values, **options):
    return table({"v": values}, **options).schema.columns[0]


def message(call, kind=DataError) -> str:
    with pytest.raises(kind) as caught:
        call()
    return str(caught.value)


def values_of(array):
    return np.unique(np.asarray(array, float), return_counts=True)


# Kinds


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (SMOOTH, "continuous"),
        (np.round(SMOOTH, 1), "gridded"),
        (RNG.integers(0, 50, 200), "integer"),
        (RNG.integers(0, 2, 200), "binary"),
        (RNG.integers(0, 2, 200) == 1, "binary"),
        (np.array(["u", "v", "w", "u"] * 9), "categorical"),
        (np.array(["u", "v", "u"] * 9), "binary"),
    ],
)
def test_kinds(values, kind):
    assert column(values).kind == kind


@pytest.mark.parametrize(
    ("values", "step", "offset"),
    [
        ([0.1, 0.2, 0.2, 0.3, 0.7], 0.1, 0.0),
        ([100, 300, 200, 700, 500], 100, 0),
        ([0.5, 1.5, 1.5, 2.5, 4.5], 1, 0.5),
        ([2700, 2725, 2750, 2800, 2800], 25, 0),
        ([1, 10, 100], 1, 0),
        ([-0.3, -0.1, -0.1, 0.2], 0.1, 0),
    ],
)
def test_grid(values, step, offset):
    grid = find_grid(*values_of(values))
    assert grid is not None
    assert (grid.step, grid.offset, grid.off) == (pytest.approx(step), pytest.approx(offset), ())


def test_grid_needs_ties_unless_integers():
    rounded = np.arange(100) * 0.37 + 0.01
    assert find_grid(*values_of(rounded)) is None
    assert find_grid(*values_of(np.arange(100) * 37)) is not None
    assert column(np.r_[rounded, rounded], continuous=["v"]).kind == "continuous"
    assert column(np.r_[rounded, rounded], continuous=["all"]).kind == "continuous"


def test_tiny_values_are_not_taken_for_zeros():
    assert column(SMOOTH * 1e-10).kind == "continuous"
    assert find_grid(*values_of(np.tile(np.arange(-1, 1, 0.1), 3))).off == ()  # 1e-16 in place of 0


def test_float_noise_does_not_hide_a_grid():
    noisy = np.tile(np.cumsum(np.full(50, 0.1)), 3)
    assert find_grid(*values_of(noisy)).step == pytest.approx(0.1)


def test_atoms_are_few_values_off_the_grid():
    found = column(np.r_[np.tile(np.arange(20.0), 30), 7.25])
    assert (found.kind, found.step, found.atoms, found.low_cap) == ("integer", 1, (7.25,), None)
    assert "'v': 7.25 off the grid of step 1" in table({"v": np.r_[np.tile(np.arange(20.0), 30), 7.25]}).notes[0]


def test_odd_leftovers_do_not_make_a_step_of_two():
    """Three odd values among even ones: the step is 1; a rule without the power of ten would say 2 and three atoms."""
    values = np.r_[np.tile(np.arange(20, 2000, 10), 10), [3, 5, 6, 8, 12, 14]]
    assert find_grid(*values_of(values)).step == 1


def test_caps():
    bulk = RNG.integers(1, 400, 4000)
    assert find_caps(*values_of(np.r_[bulk, np.full(300, 400)])) == (None, 400)
    assert find_caps(*values_of(np.r_[bulk, np.full(300, 0)])) == (0, None)
    assert find_caps(*values_of(bulk)) == (None, None)
    assert find_caps(*values_of(np.r_[np.arange(10), np.full(99, 11)])) == (None, 11)
    assert find_caps(*values_of(np.r_[np.arange(9), np.full(99, 11)])) == (None, None)  # ten values are no tail


def test_resolution_option():
    found = column(SMOOTH.round(1) + 0.05, resolution={"v": 0.1})
    assert (found.kind, found.step, found.offset) == ("gridded", 0.1, pytest.approx(0.05))
    words = message(lambda: column(SMOOTH, resolution={"v": 0.1}))
    assert "distinct values off the grid of step 0.1" in words and "DO: a finer --resolution v=" in words
    assert "--resolution v=0" in message(lambda: column(SMOOTH, resolution={"v": 0.0}), UsageError)
    both = {"resolution": {"v": 0.1}, "continuous": ["v"]}
    assert "--resolution and in --continuous" in message(lambda: column(SMOOTH, **both), UsageError)


def test_levels_most_frequent_first_but_numbers_in_order():
    assert column(["b", "a", "c", "a", "c", "c"] * 2).levels == ("c", "a", "b")
    assert column([1, 1, 1, 0]).levels == ("0", "1")
    assert column([True, True, False]).levels == ("False", "True")
    assert column([30, 4, 4, 4]).levels == ("4", "30")
    assert column(["no", "yes", "yes"] * 3).levels == ("yes", "no")


def test_rows_come_back_as_they_were():
    columns = {
        "t": np.array(["u", "v", "w", "u"]),
        "b": np.array([True, False, True, True]),
        "i": np.array([5, 9, 7, 8]),
        "k": np.array([3, 3, 3, 3]),
        "f": np.array([0.5, 0.25, 0.125, 0.75]),
        "z": np.array([10, 20, 30, 20]),
    }
    back = table(columns, categorical=["z"]).to_dict()
    for name, cells in columns.items():
        np.testing.assert_array_equal(back[name], cells)
        assert back[name].dtype.kind == cells.dtype.kind


def test_two_numbers_are_numbers_if_asked():
    assert column([1.5, 2.5, 2.5], continuous=["v"]).kind == "continuous"
    assert column([1.5, 2.5, 2.5], resolution={"v": 0.5}).kind == "gridded"
    assert "'v' is text" in message(lambda: column(["a", "b", "a"], continuous=["v"]), UsageError)


def test_numeric_categories():
    found = column([10, 20, 30, 20, 20] * 3, categorical=["v"])
    assert (found.kind, found.levels, found.output) == ("categorical", ("20", "10", "30"), "integer")


def test_text_that_is_all_numbers_is_read_as_numbers_and_said():
    found = table({"v": np.array(["1.5", "2.5", "4"], object)})
    assert found.values[:, 0].tolist() == [1.5, 2.5, 4] and "'v' is text, but all of it numbers" in found.notes[0]


# Refusals and findings


def test_empty_cells():
    columns = {"age": [1.5, None, None, 3.5], "income": [1.5, 2.5, None, 7.25], "t": ["u", "v", "u", "u"]}
    assert message(lambda: table(columns)) == (
        "3 empty cells in 2 of 3 columns (age 2, income 1). Densities need complete rows. "
        "DO: --missing drop (keeps 2 of 4), or --missing model"
    )
    dropped = table(columns | {"more": [1.25, 2.5, 3.5, 9.75]}, missing="drop")
    assert len(dropped) == 2
    assert "dropped 2 of 4 rows with empty cells (age 2, income 1): --missing drop" in dropped.notes
    hollow = {"a": [None, None, None], "b": [1.5, 2.5, 9]}
    assert message(lambda: table(hollow)).endswith("DO: --drop a")
    assert "every row has an empty" in message(lambda: table(hollow, missing="drop"))
    assert len(table(hollow, drop=["a"])) == 3


def test_infinite_cells():
    columns = {"ratio": [1.5, 2.5, np.inf, -np.inf, 7.5], "b": [1, 2, 3, 4, 9]}
    assert message(lambda: table(columns)) == (
        "row 3, 'ratio' is inf, one of 2 such cells. DO: fix it or --missing drop"
    )
    dropped = table(columns, missing="drop")
    assert len(dropped) == 3 and "dropped 2 of 5 rows with infinite values: --missing drop" in dropped.notes


def test_numbers_spoilt_by_texts(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("income,b\n" + "\n".join(f"{v},{v % 7}" for v in range(30)) + "\nn/a,1\n-,2\nn/a,3\n")
    assert message(lambda: inspect(read_file(path))) == (
        "'income' has 30 numbers and 3 texts ('n/a', '-'). A column is numbers or texts. DO: --na n/a,-"
    )
    mended = ReadOptions(na=("n/a", "-"), missing="drop", keep=["income"])
    assert len(inspect(read_file(path, mended), mended)) == 30


def test_labels():
    columns = {"user": [f"u{i}" for i in range(9)], "row": np.arange(9)[::-1] + 4, "v": SMOOTH[:9]}
    found = table(columns)
    assert found.names == ("v",)
    assert "'user' is different in every row: looks like a label. Excluded; --keep user to use it" in found.notes
    assert [c.kind for c in found.schema.columns] == ["label", "label", "continuous"]
    assert table(columns, keep=["row"]).names == ("row", "v")
    with_gap = columns | {"row": np.r_[np.arange(8), 9]}
    assert "row" in table(with_gap).names
    assert "row" not in table(columns | {"v": [None, *SMOOTH[:8]]}, missing="drop").names  # decided before rows go


def test_constants():
    found = table({"site": [3, 3, 3], "v": [1, 2, 9], "t": ["u", "u", "u"]})
    assert found.notes[:2] == (
        "'site' is always 3: its density is infinite. Excluded, and kept as a constant in samples",
        "'t' is always 'u': its density is infinite. Excluded, and kept as a constant in samples",
    )
    assert found["site"].tolist() == [3, 3, 3] and found["t"].tolist() == ["u", "u", "u"]


def test_affine_columns():
    celsius = SMOOTH * 10
    words = message(lambda: table({"temp_C": celsius, "temp_F": 1.8 * celsius + 32}))
    assert words == "'temp_F' = 1.8 x 'temp_C' + 32. Log density would grow without limit. DO: --drop temp_F"
    assert message(lambda: table({"a": celsius, "b": celsius})).startswith("'b' = 'a'.")
    assert message(lambda: table({"a": celsius, "b": -celsius})).startswith("'b' = -1 x 'a'.")
    counts = RNG.integers(0, 50, 200)
    same = table({"a": counts, "b": counts + 3})
    assert "'b' = 'a' + 3: the two columns say the same (--drop b if unwanted)" in same.notes
    assert not any("say the same" in note for note in table({"a": counts, "b": counts[::-1]}).notes)
    almost = 1.8 * celsius + 32 + 1e-4 * RNG.normal(size=200)
    assert len(table({"a": celsius, "b": almost}).names) == 2
    assert message(lambda: table({"a": celsius * 1e-200, "b": celsius * 1e-200 + 2e-200})).startswith("'b' = 'a'")


def test_huge_values():
    words = message(lambda: table({"v": [1.5, 2.5, 3e15]}))
    assert words.startswith("'v' is 3e+15 in row 3 (1 values beyond 1e15)")
    assert column([10**16, 3, 10**16, 5], categorical=["v"]).kind == "categorical"


def test_spikes_and_sparse_grids_are_noted():
    spiked = table({"v": np.r_[SMOOTH, np.full(5, 0.123456789)]})
    assert "'v' is 0.123456789 in 5 rows (2.4 %): a spike in a continuous column" in spiked.notes[0]
    assert table({"v": SMOOTH}).notes == ()
    shifted = np.tile(np.round(RNG.normal(size=20), 6), 20)
    assert any("few for its step" in note for note in table({"v": shifted}).notes)


def test_too_many_levels():
    texts = np.array([f"t{i // 2}" for i in range(200)])
    assert message(lambda: table({"v": texts})) == (
        "'v' has 100 different values in 200 rows. Too many categories to learn a probability of each. DO: --drop v"
    )
    assert column(np.tile(texts[:100], 20)).kind == "categorical"  # 50 levels are allowed


def test_transforms():
    assert column(np.exp(SMOOTH), transform={"v": "log"}).transform == "log"
    assert message(lambda: column(SMOOTH, transform={"v": "log"})).endswith(
        "log needs values above 0. DO: --transform v=none"
    )
    counts = [0, 1, 2, 2, 5]
    assert column(counts, transform={"v": "log"}).transform == "log"  # log of v + 1/2
    assert "above -0.5 (half a step below 0)" in message(lambda: column([-1, *counts], transform={"v": "log"}))
    assert "between 0 and 1" in message(lambda: column(np.r_[0.0, SMOOTH**2 / 99], transform={"v": "logit"}))
    shares = np.tile([0.0, 0.25, 0.5, 1.0], 9)
    assert column(shares, transform={"v": "logit"}).transform == "logit"  # half a step on either side
    assert "between -0.125 and 1.125" in message(lambda: column(np.r_[shares, 1.25], transform={"v": "logit"}))
    assert table({"v": SMOOTH}, transform={"v": "auto"}).extras == {"transform_auto": ("v",)}
    assert "no transform 'lgo'" in message(lambda: column(SMOOTH, transform={"v": "lgo"}), UsageError)
    assert "which is binary" in message(lambda: column([0, 1, 1], transform={"v": "log"}), UsageError)


@pytest.mark.parametrize(
    "options",
    [{"drop": ["ph"]}, {"keep": ["ph"]}, {"continuous": ["ph"]}, {"categorical": ["ph"]}, {"group": "ph"},
     {"split": "ph"}, {"resolution": {"ph": 1.0}}, {"transform": {"ph": "log"}}, {"rename": {"ph": "x"}}],
)  # fmt: skip
def test_unknown_columns_name_the_nearest(options):
    words = message(lambda: table({"pH": SMOOTH}, **options), UsageError)
    flag = next(iter(options))
    assert words.startswith(f"no column 'ph' (--{flag}). Columns: pH. DO: --{flag} pH")


def test_rows_are_drawn_with_the_seed():
    some = table({"v": SMOOTH}, rows=50, seed=3)
    assert len(some) == 50 and "50 of 200 rows, drawn at random (seed 3)" in some.notes
    np.testing.assert_array_equal(some.values, table({"v": SMOOTH}, rows=50, seed=3).values)
    assert not np.array_equal(some.values, table({"v": SMOOTH}, rows=50, seed=4).values)
    assert table({"v": SMOOTH}, rows=500).notes == ()
    assert "--rows is 0" in message(lambda: table({"v": SMOOTH}, rows=0), UsageError)


def test_group_and_split_columns():
    columns = {"who": ["a", "b"] * 100, "part": ["train", "select", "test", "train"] * 50, "v": SMOOTH}
    found = table(columns, group="who", split="part")
    assert found.names == ("v",) and found.groups.tolist() == [0, 1] * 100 and found.parts[2] == "test"
    words = message(lambda: table(columns, split="who"))
    assert words.startswith("--split column 'who' holds 'a', 'b' (allowed: train, select, test)")
    hole = columns | {"who": [None, *["b"] * 199]}
    assert message(lambda: table(hole, group="who")).startswith("--group column 'who' has empty cells (1 row: 1)")


def test_nothing_left():
    assert "has 1 row" in message(lambda: table({"v": [1.5]}))
    assert message(lambda: table({"v": [3, 3]})).startswith("memory has no column to model ('v' is a constant)")
    assert message(lambda: table({"v": list("abcdefgh")})).endswith("DO: --keep v")


def test_rename_and_duplicates():
    found = table({"a": [1, 2, 2, 9]}, rename={"a": "b"})
    assert found.names == ("b",) and "1 duplicate row (25 %): kept" in found.notes
    assert "two columns called 'b'" in message(lambda: table({"a": [1, 2], "b": [1, 2]}, rename={"a": "b"}), UsageError)


# Other rows under a schema


@pytest.fixture
def schema() -> Schema:
    columns = {
        "pH": np.tile([3.1, 3.2, 3.4, 3.5], 30),
        "kind": np.array(["red", "white", "rose", "red"] * 30),
        "n": np.r_[np.arange(100), np.full(20, 150)],
        "x": RNG.normal(size=120),
        "site": np.full(120, 3),
        "id": np.arange(120),
    }
    return table(columns, keep=["n"]).schema


GOOD = {"pH": [3.3, 3.1], "kind": ["red", "rose"], "n": [4, 150], "x": [0.5, 99.0], "site": [3, 3]}


def test_conform_takes_any_order_and_ignores_the_rest(schema):
    found = conform(from_object(dict(reversed((GOOD | {"day": [1, 2], "id": [7, 8]}).items()))), schema)
    assert found.schema is schema
    assert found.values.tolist() == [[3.3, 0, 4, 0.5], [3.1, 1, 150, 99]]
    assert found.notes == ("columns that the model does not know, ignored: 'day'",)
    assert len(conform(from_object({k: v for k, v in GOOD.items() if k != "site"}), schema)) == 2


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"kind": ["red", "blue"]}, "'kind' is 'blue' in m.csv (1 row: 2). The model knows red, rose, white."),
        (
            {"pH": [3.3, 3.15]},
            "'pH' is 3.15 in row 2 of m.csv, and its values are the grid multiples of 0.1 (1 row: 2)",
        ),
        ({"n": [4.5, 3]}, "'n' is 4.5 in row 1 of m.csv, and its values are whole numbers"),
        ({"n": [4, 160]}, "'n' is 160 in row 2 of m.csv, and it is above the cap 150"),
        ({"site": [3, 4]}, "'site' is 4.0 in row 2 of m.csv, always 3 when fitted"),
        ({"x": [None, 1.5]}, "1 empty cell in 1 of 5 columns (x 1)"),
        ({"x": [np.inf, 1.5]}, "row 1, 'x' is inf"),
        ({"x": ["u", "v"]}, "'x' is text in m.csv (row 1 is 'u')"),
        ({"x": [1e16, 1.0]}, "'x' is 1e+16 in row 1"),
    ],
)
def test_conform_refuses(schema, change, words):
    assert message(lambda: conform(from_object(GOOD | change), schema, name="m.csv")).startswith(words)


def test_conform_names_missing_columns(schema):
    frame = from_object({{"pH": "ph"}.get(k, k): v for k, v in GOOD.items()})
    words = message(lambda: conform(frame, schema, name="more.csv"))
    assert words == "more.csv lacks 'pH'; has 'ph'. Model columns: pH, kind, n, x. DO: --rename ph=pH"
    assert len(conform(frame, schema, ReadOptions(rename={"ph": "pH"}))) == 2


def test_conform_drops_only_when_told(schema):
    found = conform(from_object(GOOD | {"x": [None, 1.5]}), schema, ReadOptions(missing="drop"))
    assert len(found) == 1 and "dropped 1 of 2 rows" in found.notes[-1]


def test_conform_of_the_same_rows_is_the_same_table():
    for name in ("penguins", "iris", "wine", "digits"):
        first = read_table(name)
        again = conform(load(name), first.schema, ReadOptions(missing="drop"))
        np.testing.assert_array_equal(again.values, first.values)


def test_conform_reads_numeric_levels_from_any_type():
    schema = table({"z": ["1", "2", "unknown", "1", "none", "none", "none"] * 3, "v": SMOOTH[:21]}).schema
    assert conform(from_object({"z": [1.0, 2.0], "v": [0.5, 0.6]}), schema).values[:, 0].tolist() == [1, 2]


def test_conform_checks_support():
    schema = table({"v": np.exp(SMOOTH)}, transform={"v": "log"}).schema
    assert "log needs values above 0" in message(lambda: conform(from_object({"v": [0.0]}), schema))


def test_auto_takes_no_transform_that_refuses_a_row():
    """Shares on a grid with 0 and 1 in it: what ``auto`` takes, the fitted schema takes."""
    shares = np.r_[RNG.beta(0.5, 0.5, 900).round(2), 0.0, 1.0]
    fitted = prepare(table({"v": shares}, transform={"v": "auto"}), 0).codec.schema
    assert fitted.columns[0].transform == "logit"
    assert len(conform(from_object({"v": shares}), fitted)) == 902
    positive = table({"v": np.exp(3 * SMOOTH)}, transform={"v": "auto"})
    assert prepare(positive, 0).codec.schema.columns[0].transform == "log"
    test_row = make_split(positive, 0).test[0]
    values = positive.values.copy()
    values[test_row] = -1e-9
    assert prepare(replace(positive, values=values), 0).codec.schema.columns[0].transform == "none"


@pytest.mark.parametrize(
    ("cells", "words"),
    [
        (np.ones(200), "--transform c=auto for 'c', which is constant. Only numbers"),
        (["u", "v", "w", "w"] * 50, "--transform for 'c', which is categorical"),
        ([0, 1] * 100, "--transform for 'c', which is binary"),
    ],
)
def test_auto_is_for_numbers(cells, words):
    said = message(lambda: table({"v": SMOOTH, "c": cells}, transform={"c": "auto"}), UsageError)
    assert said.startswith(words) and "DO: leave --transform" in said


def test_a_transform_of_a_column_left_out_is_refused():
    columns = {"v": SMOOTH, "c": SMOOTH[::-1]}
    assert "'c', which is not modelled" in message(
        lambda: table(columns, drop=["c"], transform={"c": "log"}), UsageError
    )


def test_groups_of_other_rows_are_kept():
    columns = {"who": ["a", "b"] * 100, "v": SMOOTH}
    options = ReadOptions(group="who")
    fitted = inspect(from_object(columns), options)
    frame = from_object({"who": ["x", "y", "x"], "v": [0.5, None, 1.5]})
    found = conform(frame, fitted.schema, replace(options, missing="drop"))
    assert found.groups.tolist() == [0, 0] and not any("does not know" in note for note in found.notes)
    assert open_rows(columns, fitted.schema, options).groups.tolist() == [0, 1] * 100
    other = inspect(from_object({"who": ["a", "b"] * 50, "v": SMOOTH[:100]}), options)
    assert open_rows(other, fitted.schema).groups.tolist() == [0, 1] * 50
    lacking = conform(from_object({"v": [0.5]}), fitted.schema, options)
    assert lacking.groups is None and "lacks 'who' (--group)" in lacking.notes[0]


def test_sums_of_columns():
    a, b, d = np.random.default_rng(1).normal(size=(3, 500))
    words = message(lambda: table({"a": a, "b": b, "d": d, "c": a + 2 * b - 3}))
    assert words == "'c' = 'a' + 2 x 'b' - 3. Log density would grow without limit. DO: --drop c"
    assert "'c' = -'a' + 'b' + 1e+06" in message(lambda: table({"a": a, "b": b, "c": b - a + 1e6}))
    almost = table({"a": a, "b": b, "c": a + b + 1e-6 * d})
    assert almost.names == ("a", "b", "c") and almost.notes == ()
    left, right = np.random.default_rng(2).integers(0, 50, (2, 500))
    counts = table({"left": left, "right": right, "all": left + right})
    assert "'all' = 'left' + 'right': the columns say the same (--drop all if unwanted)" in counts.notes
    assert len(table({f"x{i}": row for i, row in enumerate(np.random.default_rng(3).normal(size=(9, 5)))}).names) == 9


def test_grids_in_32_bit_numbers():
    values = np.random.default_rng(4).normal(100, 3, 500).round(1)
    found = table({"v": values.astype(np.float32)})
    assert (found.schema.columns[0].kind, found.schema.columns[0].step) == ("gridded", 0.1)
    np.testing.assert_array_equal(found.values[:, 0], values)
    assert found.notes[0].startswith("'v' holds 32-bit numbers: read as written, 9")
    assert column(values.astype(np.float32), resolution={"v": 0.1}).atoms == ()
    assert column(SMOOTH.astype(np.float32)).kind == "continuous"
    assert column(np.tile(SMOOTH.astype(np.float32) * 1000, 2)).kind == "continuous"  # digits of float32 are no grid
    eighths = np.tile(np.arange(20) / 8, 5)
    assert table({"v": eighths}).notes == table({"v": eighths.astype(np.float32)}).notes
    schema = table({"v": values}).schema
    np.testing.assert_array_equal(conform(from_object({"v": values.astype(np.float32)}), schema).values[:, 0], values)


def test_a_stated_step_finer_than_the_file_keeps_its_decimals(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("v\n" + "10.5\n11.0\n10.0\n11.5\n" * 5)
    options = ReadOptions(resolution={"v": 0.25})
    found = inspect(read_file(path, options), options)
    assert found.schema.columns[0].decimals == 2
    assert found.with_values([[10.25]])["v"].tolist() == [10.25]
    path.write_text("v\n" + "10\n11\n13\n12\n" * 5)
    assert inspect(read_file(path, options), options).with_values([[10.25]])["v"].tolist() == [10.25]


# Real files


@needs_shared
def test_california_housing():
    options = ReadOptions(missing="drop")
    found = inspect(read_file(SHARED / "california_housing.csv"), options)
    value, income = found.schema.column("median_house_value"), found.schema.column("median_income")
    assert (value.kind, value.step, value.low_cap, value.high_cap) == ("gridded", 100, 14999, 500001)
    assert (income.decimals, income.high_cap) == (4, 15.0001)
    assert found.schema.column("ocean_proximity").kind == "categorical"
    assert len(found) == 20_433
    assert "(total_bedrooms 207)" in message(lambda: inspect(read_file(SHARED / "california_housing.csv")))


@needs_shared
def test_age_of_houses_is_capped():
    """52 years are in 1,265 rows, more than five times as many as the fullest of the five values before."""
    age = inspect(read_file(SHARED / "california_housing.csv"), ReadOptions(missing="drop")).schema.column(
        "housing_median_age"
    )
    assert (age.kind, age.high_cap) == ("integer", 52.0)


@needs_shared
def test_wine_without_header():
    found = inspect(read_file(SHARED / "wine_red_centred.csv"))
    assert found.values.shape == (1599, 12)
    assert found.notes[0].startswith("no header found") and "240 duplicate rows (15 %): kept" in found.notes


def test_breast_cancer_has_powers_of_ten_as_steps():
    steps = [c.step for c in read_table("breast_cancer").schema.modelled if c.step]
    assert all(np.isclose(np.log10(step), np.rint(np.log10(step))) for step in steps)


def test_description():
    found = read_table("penguins")
    split = make_split(found, 0)
    lines = describe(found, split)
    assert lines[0].startswith("penguins   333 rows x 8 columns   sha256 ")
    assert any(line.startswith("  3 gridded ") and "body_mass_g (step 25, 2700 to 6300)" in line for line in lines)
    assert lines[-1].startswith("  split  train 233 - select 50 - test 50   (seed 0")
    plain = describe_json(found, split)
    assert plain["rows"] == 333 and plain["split"]["digest"] == split.digest
    assert plain["columns"][0]["levels"] == ["Adelie", "Gentoo", "Chinstrap"]
