"""The scorecard: its format, its sentences, and what hostile or missing input does to it. No random numbers decide."""

from __future__ import annotations

import itertools
import json
import math
import re
from html.parser import HTMLParser

import jsonschema
import numpy as np
import pytest
from report_example import example, pictures, quantity, second_edition, share
from saboteurs import uses

from mulligan.errors import SetupError
from mulligan.quantity import Quantity
from mulligan.report.cells import cells, memory_cells, memory_words, sample_cells, use_cells, use_words
from mulligan.report.evidence import _side_by_side, cost_figures, labelled, memory_figures, p_value_figures, use_figures
from mulligan.report.figures import comparison_figures
from mulligan.report.formatting import one_line
from mulligan.report.html import to_html, write_html
from mulligan.report.marks import BAR, mark
from mulligan.report.panels import column_of
from mulligan.report.reading import reading
from mulligan.report.schema import load_schema
from mulligan.report.svg import MODEL, Axis, Drawing, axis, ticks
from mulligan.report.terminal import cell_width, reading_lines, scorecard_lines
from mulligan.report.writing import to_markdown, write_json

HOSTILE = '<script>alert("1")</script>'
VOID = {"meta", "br", "link", "img", "input", "hr"}


def whole() -> dict:
    report = example()
    report["reading"] = reading(report)
    return report


def find(report: dict, name: str) -> dict:
    return next(family for family in report["families"] if family["family"] == name)


def validate(report: dict) -> None:
    schema = load_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.Draft202012Validator(schema).validate(report)


class Page(HTMLParser):
    """Collects tags and text, and refuses tags that do not nest."""

    def __init__(self, text: str):
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(text)
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open and self.open[-1] == tag, f"</{tag}> closes {self.open[-3:]}"
        self.open.pop()

    def handle_data(self, data):
        self.text += data


# -- the format ---------------------------------------------------------------------------------------------------


def test_the_example_follows_the_schema(tmp_path):
    write_json(whole(), tmp_path / "report.json")
    validate(json.loads((tmp_path / "report.json").read_text()))


def drop_kind(report):
    del find(report, "flow")["log_prob"]["kind"]


def unknown_status(report):
    find(report, "flow")["status"] = "fine"


def unknown_key(report):
    find(report, "flow")["log_density"] = -3.0


def value_without_a_number(report):
    find(report, "gan")["log_prob"]["value"] = -1.0


def two_sided_bound(report):
    find(report, "vae")["log_prob"]["high"] = -3.0


def failure_without_reason(report):
    find(report, "continuous-flow")["reason"] = None


def other_format(report):
    report["format"] = 2


def nan_as_text(report):
    find(report, "flow")["log_prob"]["value"] = "NaN"


SPOILERS = [
    drop_kind,
    unknown_status,
    unknown_key,
    value_without_a_number,
    two_sided_bound,
    failure_without_reason,
    other_format,
    nan_as_text,
]


@pytest.mark.parametrize("spoil", SPOILERS)
def test_a_sabotaged_report_is_refused(spoil):
    report = whole()
    spoil(report)
    with pytest.raises(jsonschema.ValidationError):
        validate(report)


def strict_loads(text: str) -> dict:
    def refuse(name):
        raise ValueError(f"{name} is no JSON")

    return json.loads(text, parse_constant=refuse)


def test_json_has_null_for_what_is_not_finite_and_keeps_every_digit(tmp_path):
    report = whole()
    flow = find(report, "flow")
    flow["log_prob"] |= {"value": -math.inf, "low": math.nan, "high": None}
    flow["fit_seconds"] = np.float64(0.1 + 0.2)
    flow["steps"] = np.int64(12)
    flow["truth_gap"] = Quantity(math.nan, "estimate")
    path = tmp_path / "report.json"
    write_json(report, path)
    text = path.read_text()
    assert text.endswith("}\n") and not text.endswith("\n\n")
    back = find(strict_loads(text), "flow")
    assert back["log_prob"]["value"] is None and back["log_prob"]["low"] is None
    assert back["fit_seconds"] == 0.1 + 0.2 and back["steps"] == 12
    assert back["truth_gap"]["value"] is None
    assert [item.name for item in tmp_path.iterdir()] == ["report.json"]


def test_the_strict_reader_refuses_the_literal_nan():
    with pytest.raises(ValueError, match="NaN"):
        strict_loads('{"value": NaN}')


def test_a_report_that_cannot_be_written_says_so_and_leaves_nothing(tmp_path):
    with pytest.raises(SetupError, match="DO:"):
        write_json(whole(), tmp_path / "no" / "report.json")
    (tmp_path / "taken").mkdir()
    with pytest.raises(SetupError):
        write_json(whole(), tmp_path / "taken")
    assert [item.name for item in tmp_path.iterdir()] == ["taken"]


def test_an_object_that_is_no_plain_data_is_refused_before_the_old_report_is_touched(tmp_path):
    path = tmp_path / "report.json"
    path.write_text("old")
    with pytest.raises(TypeError, match="plain data"):
        write_json({**whole(), "reading": [object()]}, path)
    assert path.read_text() == "old"


# -- the reading --------------------------------------------------------------------------------------------------


def joined(report: dict) -> str:
    return " ".join(reading(report))


def test_the_reading_is_short_and_names_every_family_with_its_finding():
    sentences = reading(example())
    assert 3 <= len(sentences) <= 6
    text = " ".join(sentences)
    assert "diffusion cannot be told apart from it at 95 % on these 240 test rows" in text
    assert "gaussian by 1.81 (1.59 to 2.03)" in text
    assert "The bound of vae does not show that it is worse" in text
    assert "gan (a GAN has no density)" in text
    assert "energy 1 of 5 and gan 2 of 5" in text
    assert "continuous-flow (loss became NaN at step 412; the last healthy state is kept)" in text
    assert "resample, which is no model and only repeats training rows, gets .50 ± .03" in text
    assert "Each 95 % interval holds by itself, not all of them jointly." in text
    close = example()
    find(close, "mixture")["delta_to_best"] = quantity(-0.17, 0.06)
    assert "mixture (k=7, full) has the fewest parameters (545 against 34,816)" in joined(close)


def test_told_apart_or_not_follows_the_interval():
    report = example()
    delta = find(report, "diffusion")["delta_to_best"]
    assert "cannot be told apart" in joined(report)
    delta |= {"low": -0.09, "high": -0.03}
    text = joined(report)
    assert "cannot be told apart" not in text and "diffusion by 0.06 (0.03 to 0.09)" in text
    delta |= {"value": 0.06, "low": 0.03, "high": 0.09}
    assert "Better on the test rows: diffusion by 0.06 (0.03 to 0.09)" in joined(report)
    delta |= {"low": None, "high": None}
    text = joined(report)
    assert "cannot be told apart" not in text and "diffusion by" not in text


def test_a_lower_bound_speaks_for_its_one_side():
    report = example()
    delta = find(report, "vae")["delta_to_best"]
    delta |= {"value": 0.2, "low": 0.1, "high": None}
    text = joined(report)
    assert "vae by at least 0.10" in text and "The bound of vae" not in text


def test_the_reference_being_a_bound_is_said():
    report = example()
    note = "difference of two lower bounds on the same base measure"
    find(report, "diffusion")["delta_to_best"]["note"] = note
    assert "Compared as bounds, not as log p: diffusion" in joined(report)
    assert "Compared as bounds" not in joined(example())


def test_no_reference_ranks_nothing():
    report = example() | {"reference": None}
    text = joined(report)
    assert "rank nothing" in text and "Worse" not in text and "told apart from it" not in text


def test_simplicity_ends_where_the_interval_passes_three_tenths():
    report = example()
    delta = find(report, "mixture")["delta_to_best"]
    # The value decides nothing: −0.25 is within three tenths in both, and shown to be so in the first only.
    delta |= {"value": -0.25, "low": -0.29, "high": -0.21}
    assert "mixture (k=7, full) has the fewest parameters" in joined(report)
    delta |= {"value": -0.25, "low": -0.31, "high": -0.19}
    assert "fewest parameters" not in joined(report)
    delta |= {"kind": "lower bound", "low": -0.29, "high": None}
    assert "mixture (k=7, full) has the fewest parameters" in joined(report)
    delta |= {"kind": "upper bound", "low": None, "high": -0.1}
    assert "fewest parameters" not in joined(report)


def test_the_smallest_gap_is_of_all_whose_intervals_overlap():
    report = example()
    find(report, "flow")["truth_gap"] = quantity(0.020, 0.002, "estimate", 100_000)
    find(report, "mixture")["truth_gap"] = quantity(0.027, 0.002, "estimate", 100_000)
    find(report, "gaussian")["truth_gap"] = quantity(0.9, 0.002, "estimate", 100_000)
    may = (
        "the smallest gap may be of flow, 0.020 (0.016 to 0.024); mixture (k=7, full), 0.027 (0.023 to 0.031) nats/row."
    )
    assert may in joined(report)
    find(report, "mixture")["truth_gap"] = quantity(0.029, 0.002, "estimate", 100_000)
    text = joined(report)
    assert "smallest gap to it is that of flow, 0.020 (0.016 to 0.024) nats/row." in text and "may be of" not in text


def test_the_classifier_sentence_follows_the_interval_of_the_auc():
    report = example()
    told = r"above \.5\):[^.]*mixture"
    assert re.search(told, joined(report).replace("± .", "± ").replace("(.", "("))
    find(report, "mixture")["two_sample_auc"]["low"] = 0.49
    assert not re.search(told, joined(report).replace("± .", "± ").replace("(.", "("))
    find(report, "resample")["two_sample_auc"] |= {"value": 0.6, "low": 0.55, "high": 0.65}
    assert "even real training rows are told apart" in joined(report)
    for family in report["families"]:
        if family["two_sample_auc"]:
            family["two_sample_auc"]["low"] = 0.45
    assert "does not show equality" in joined(report)


def test_few_rows_are_said_with_the_difference_they_cannot_show():
    report = example()
    for family in report["families"]:
        for quantity_ in (family["log_prob"], family["delta_to_best"]):
            if quantity_:
                quantity_["n"] = 50
    # The standard errors are .05 .06 .09 .07 .11: twice their median is .14.
    text = joined(report)
    assert "On 50 test rows differences smaller than about 0.14 nats/row cannot be seen. That is few" in text
    assert "That is few" not in joined(example())


def test_a_value_that_is_not_finite_is_said_and_ranks_nothing():
    report = example()
    gaussian = find(report, "gaussian")
    gaussian["log_prob"] |= {"value": None, "low": None, "high": None, "note": "2 of 240 rows are not finite"}
    gaussian["delta_to_best"] |= {"value": None, "low": None, "high": None}
    text = joined(report)
    assert "not finite, which ranks nothing: gaussian (2 of 240 rows are not finite)" in text
    assert "gaussian by" not in text
    assert ("gaussian", "not finite") in [row[:2] for row in cells(report).rows]
    to_html(report, pictures(report))


# -- terminal and Markdown ----------------------------------------------------------------------------------------


def test_terminal_columns_are_aligned_and_color_is_only_paint():
    report = whole()
    plain = scorecard_lines(report, 200, False)
    assert not any("\x1b" in line for line in plain)
    head = next(line for line in plain if "kind" in line)
    rows = [line for line in plain if line.startswith(("flow ", "vae ", "gan "))]
    starts = [row.index(word) for row, word in zip(rows, ("exact", "lower bound", "no log p"))]
    assert starts == [head.index("kind")] * 3
    painted = scorecard_lines(report, 200, True)
    assert [re.sub(r"\x1b\[\d+m", "", line) for line in painted] == plain
    assert any("\x1b[1m" in line for line in painted)
    assert "≥ -3.74" in rows[1]


@pytest.mark.parametrize("width", [78, 100, 130])
def test_a_narrow_terminal_names_what_it_leaves_out(width):
    lines = scorecard_lines(whole(), width, False)
    assert max(map(cell_width, lines)) <= width
    said = " ".join(lines)
    assert ("not shown at this width" in said) == ("1,000" not in said.partition("not shown")[0])
    assert "lower bound" in said


def test_the_gap_to_the_truth_is_shown_where_the_law_is_known():
    report = whole()
    assert not any("gap" in head for head in cells(report).heads)
    find(report, "flow")["truth_gap"] = quantity(0.021, 0.002, "estimate", 100_000)
    assert "0.021 ± 0.002" in "\n".join(scorecard_lines(report, 250, False))
    assert "0.021 ± 0.002" in to_html(report) and "Gap to the true law" in to_html(report)
    assert "smallest gap to it is that of flow, 0.021 (0.017 to 0.025) nats/row" in joined(report)


def test_texts_from_outside_cannot_move_the_cursor():
    report = whole()
    find(report, "continuous-flow")["reason"] = "column 'a\x1b[2Jb\u202e' is bad\nsecond line"
    text = "\n".join(scorecard_lines(report, 200, False) + reading_lines(report, 80))
    assert "\x1b" not in text and "\u202e" not in text
    assert one_line("a\tb\ud800") == "a b\ufffd"


def test_markdown_holds_every_family_and_no_markup_from_outside():
    report = whole()
    report["data"]["notes"].append(f"column {HOSTILE} | has a *star*")
    text = to_markdown(report)
    for family in report["families"]:
        assert family["label"] in text
    assert "<script>" not in text and "\\<script\\>" in text and "\\| has" in text
    assert report["reproduce"]["command"] in text
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    assert len({len(re.findall(r"(?<!\\)\|", row)) for row in rows}) == 1
    assert len(rows) == 2 + len(report["families"])


# -- the page -----------------------------------------------------------------------------------------------------


def test_the_page_is_whole_by_itself(tmp_path):
    report = whole()
    path = tmp_path / "scorecard.html"
    write_html(report, pictures(report), path)
    text = path.read_text(encoding="utf-8")
    page = Page(text)
    assert not re.search(r"https?:|//[a-z]", text)
    assert not {"script", "link", "img", "iframe"} & {tag for tag, _ in page.tags}
    links = [value for _, attrs in page.tags for key, value in attrs.items() if key in ("src", "href", "xlink:href")]
    assert all(link.startswith("#") for link in links)
    assert "url(" not in text and "@import" not in text
    assert len(text.encode()) < 1_500_000
    assert dict(page.tags)["html"]["lang"] == "en"
    levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch(r"h\d", tag)]
    assert levels[0] == 1 and all(after <= before + 1 for before, after in itertools.pairwise(levels))
    drawings = [attrs for tag, attrs in page.tags if tag == "svg"]
    assert len(drawings) > 60 and all(attrs["role"] == "img" and attrs["aria-label"] for attrs in drawings)
    for family in report["families"]:
        assert family["label"] in page.text


def test_hostile_names_are_only_text():
    report = whole()
    arrays = pictures(report)
    arrays["names"] = [HOSTILE, "列" * 200, "x" * 500, *arrays["names"][3:]]
    report["data"]["name"] = HOSTILE
    report["data"]["columns"] = [{"name": name, "kind": "continuous"} for name in arrays["names"]]
    report["data"]["notes"] = report["reading"] = [HOSTILE]
    find(report, "flow")["label"] = HOSTILE
    find(report, "flow")["health"] = ["</style></svg>" + HOSTILE + "\x00\ud800"]
    find(report, "mixture")["choices"][0][HOSTILE] = 1.0
    find(report, "mixture")["table"]["rows"][0][0] = HOSTILE
    report["reproduce"]["command"] = HOSTILE
    arrays["levels"]["colour"] = [HOSTILE, "b", "c"]
    arrays["curves"]["flow"]["unit"] = "nats\x1b[2J"
    text = to_html(report, arrays)
    page = Page(text)
    assert "script" not in {tag for tag, _ in page.tags}
    assert HOSTILE in page.text and "<script" not in text
    text.encode()
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e]", text)


def test_missing_parts_leave_a_page():
    report = whole()
    bare = Page(to_html(report, None))
    assert "Samples against data" not in bare.text and "The table" in bare.text
    empty = report | {"families": [], "reference": None}
    empty["reading"] = reading(empty)
    text = Page(to_html(empty, None)).text
    assert "No family has been fitted" in text
    assert scorecard_lines(empty, 80, False) == ["no family has been fitted"]
    assert "Families" in to_markdown(empty)
    validate(json.loads(json.dumps(empty)))


def test_sixty_four_columns_show_twelve_and_say_so():
    report = whole()
    values = np.linspace(0.0, 1.0, 64 * 30).reshape(30, 64) % 0.37
    names = [f"pixel {i}" for i in range(64)]
    arrays = {"names": names, "discrete": [False] * 64, "levels": {}, "real": values, "samples": {"flow": values}}
    page = Page(to_html(report, arrays | {"curves": {}}))
    assert "52 more are not" in page.text
    marginals = [a for tag, a in page.tags if tag == "svg" and "samples of flow against data" in a["aria-label"]]
    assert len(marginals) == 12


def test_samples_beyond_the_axis_or_not_finite_are_said():
    report = whole()
    real = np.linspace(0.0, 1.0, 100)[:, None]
    bad = np.concatenate([real[:50], np.full((25, 1), 1e9), np.full((25, 1), np.nan)])
    arrays = {"names": ["x"], "discrete": [False], "levels": {}, "real": real, "curves": {}}
    assert "50% outside" in Page(to_html(report, arrays | {"samples": {"flow": bad}})).text
    assert "% outside" not in Page(to_html(report, arrays | {"samples": {"flow": real}})).text


def test_cells_of_a_gridded_column_are_whole_steps():
    values = np.arange(0.0, 300.0, 3.0)
    arrays = {"names": ["x"], "discrete": [True], "levels": {}, "real": values[:, None]}
    counts = np.histogram(values, column_of(arrays, 0).edges)[0]
    assert counts.sum() == values.size
    assert set(counts[:-1]) == {counts[0]}, "unequal cells would show teeth that are not in the data"


def test_one_hopeless_family_does_not_hide_the_others():
    report = whole()
    near = comparison_figures(report)[0].markup
    find(report, "gaussian")["log_prob"] = quantity(-4000.0, 30.0)
    far = comparison_figures(report)[0].markup
    assert "−4,000.0" in far and "−4,000.0" not in near
    for number, family in enumerate(report["families"][:5]):
        family["truth_gap"] = quantity(900.0 if number == 4 else 0.01 * number, 0.001, "estimate")
    assert "900.0" in comparison_figures(report)[3].markup
    dots = [float(x) for x in re.findall(r'<circle cx="([\d.]+)"', far)]
    assert len(dots) == 5 and max(dots) - min(dots) > 40


@pytest.mark.parametrize("low,high", [(0.0, 1.0), (-3.7, -3.1), (5.0, 5.0), (0.0, 0.0), (1e-7, 3e-7), (-4e6, 9e6)])
@pytest.mark.parametrize("most", [3, 4, 5])
def test_ticks_are_few_inside_and_evenly_spaced(low, high, most):
    scale = axis(low, high, 0.0, 100.0, margin=0.04)
    values = ticks(scale, most)
    assert 1 <= len(values) <= most
    assert all(scale.low <= value <= scale.high for value in values)
    steps = np.diff(values)
    assert np.allclose(steps, steps[:1], rtol=1e-9)


# -- the second edition -------------------------------------------------------------------------------------------


def edition() -> dict:
    report = second_edition()
    report["reading"] = reading(report)
    return report


def test_the_second_edition_follows_the_schema_and_is_shown(tmp_path):
    report = edition()
    write_json(report, tmp_path / "report.json")
    validate(json.loads((tmp_path / "report.json").read_text()))
    text = to_html(report, pictures(report))
    page = Page(text)
    for title in ("Use of samples", "Memory of training rows", "p-values of unusual rows", "Quality against strokes"):
        assert title in page.text and title not in Page(to_html(example())).text.replace("Quality against strokes", "")
    assert "1,000 samples and once from 1,000 real training rows" in page.text
    assert not re.search(r"https?:|//[a-z]", text) and len(text.encode()) < 1_500_000
    levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch(r"h\d", tag)]
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))
    assert "## Use of samples" in to_markdown(report) and "## Memory" not in to_markdown(example())


@pytest.mark.parametrize("part", ["use", "anomaly"])
def test_an_unknown_number_of_the_second_edition_is_refused(part):
    report = edition()
    find(report, "flow")[part]["accuracy"] = 1.0
    with pytest.raises(jsonschema.ValidationError):
        validate(report)


def drawn(quantities: list[dict], upright: bool = False) -> dict:
    """What is drawn on an axis from 0 to 10 (200 pixels): dots by value, arrow tips, bars; all as values of the axis."""
    drawing, scale = (
        Drawing(400.0, 400.0, ""),
        Axis(0.0, 10.0, 300.0, 100.0) if upright else Axis(0.0, 10.0, 100.0, 300.0),
    )
    for number, one in enumerate(quantities):
        mark(drawing, scale, 20.0 * number + 20, one, upright=upright)
    place = 1 if upright else 0

    def value(pixel: float) -> float:
        return (pixel - scale.start) / (scale.end - scale.start) * 10

    found: dict = {"dots": [], "tips": [], "bars": [], "lines": []}
    for element in drawing.root:
        points = [tuple(map(float, pair.split())) for pair in re.findall(r"[-\d.]+ [-\d.]+", element.get("d", ""))]
        if element.tag == "circle":
            found["dots"].append((value(float(element.get("cy" if upright else "cx"))), element.get("fill") == MODEL))
        elif element.get("class") == "open":
            found["tips"].append(value(points[1][place]))
        elif element.get("fill") == BAR:
            found["bars"].append(sorted({round(value(point[place]), 2) for point in points}))
        elif element.get("stroke-width") == "2":
            found["lines"].append([round(value(point[place]), 2) for point in points])
    return found


def quantity_at_5(kind: str, **method: float) -> dict:
    return quantity(5.0, 1 / 1.97, kind, **method)


def arrows_point_to_the_open_side(upright: bool) -> bool:
    lower, upper = (drawn([quantity_at_5(kind)], upright)["tips"] for kind in ("lower bound", "upper bound"))
    return len(lower) == len(upper) == 1 and lower[0] > 6.0 and upper[0] < 4.0


@pytest.mark.parametrize("upright", [False, True])
def test_the_arrow_of_a_bound_points_to_where_the_truth_may_be(upright):
    assert arrows_point_to_the_open_side(upright)
    with uses.arrows_reversed():
        assert not arrows_point_to_the_open_side(upright)
    closed = drawn([quantity_at_5("lower bound"), quantity_at_5("upper bound"), quantity_at_5("exact")], upright)
    assert closed["lines"] == [[4.0, 5.0], [5.0, 6.0], [4.0, 6.0]]  # the interval of a bound is on one side only


@pytest.mark.parametrize("upright", [False, True])
def test_a_bracket_is_a_bar_between_its_bounds_and_only_a_bracket(upright):
    kinds = ("exact", "numeric", "estimate", "bracket")
    found = drawn([quantity_at_5(kind, method_low=4.5, method_high=5.25) for kind in kinds], upright)
    assert found["bars"] == [[4.5, 5.25]] and not found["tips"]
    assert found["dots"] == [
        (5.0, True),
        (5.0, True),
        (5.0, False),
        (5.0, False),
    ]  # hollow: not a value computed exactly


def test_a_value_beyond_the_axis_is_said_at_its_edge():
    drawing = Drawing(400.0, 400.0, "")
    for upright in (False, True):
        mark(drawing, Axis(0.0, 1.0, 100.0, 300.0), 50.0, quantity(-7.5, 0.1), upright=upright)
    assert drawing.markup().count("−7.5") == 2 and "circle" not in drawing.markup()


def test_the_pictures_of_a_bound_point_up_in_log_p_and_down_in_the_gap():
    report = edition()
    only = ("flow", "vae")
    report["families"] = [f for f in report["families"] if f["family"] in only]
    vae = find(report, "vae")
    up = cost_figures(report)[0].markup
    vae["truth_gap"], find(report, "flow")["truth_gap"] = quantity(0.9, 0.02, "upper bound"), quantity(0.1, 0.02)
    down = cost_figures(report)[0].markup
    tips = [float(re.search(r'L[-\d.]+ ([-\d.]+)L[-\d.]+ [-\d.]+" [^>]*class="open"', m)[1]) for m in (up, down)]
    dots = [[float(y) for y in re.findall(r'cy="([-\d.]+)"', m)] for m in (up, down)]
    assert tips[0] < max(dots[0]) - 20 and tips[1] > min(dots[1]) + 20


def test_cost_is_on_a_logarithmic_axis_with_units_and_0_apart():
    report = edition()
    seconds_, strokes, samples = cost_figures(report)
    assert [f.title for f in (seconds_, strokes, samples)][2] == "Samples against strokes"
    assert "gan and resample" in seconds_.caption and "1 min" in seconds_.markup and "10 ms" in seconds_.markup
    assert ">0<" in strokes.markup and ">1,000<" in strokes.markup and "0 stands apart" in strokes.caption
    assert "gan" in samples.markup and "gan" not in strokes.markup
    xs = [float(x) for x in re.findall(r'<circle cx="([\d.]+)"', seconds_.markup)]
    flow, mixture, gaussian = xs[0], xs[2], xs[5]  # 60 s, 0.4 s and 3 ms
    assert (flow - mixture) / (mixture - gaussian) == pytest.approx(math.log(150) / math.log(400 / 3), rel=0.02)
    for family in report["families"]:
        family["fit_seconds"] = None
    assert [f.title for f in cost_figures(report)] == ["Quality against strokes", "Samples against strokes"]


def test_marks_of_equal_cost_stand_side_by_side_and_names_hide_nothing():
    places = _side_by_side([50.0, 50.0, 52.0, 90.0, 50.0])
    assert all(after - before >= 9.999 for before, after in itertools.pairwise(sorted(places)))
    assert places[3] == 90.0 and np.mean([places[i] for i in (0, 1, 2, 4)]) == pytest.approx(50.5)
    spots = [(100.0 + 10 * i, 100.0 + 3 * i) for i in range(8)]
    names = [f"family {i}" for i in range(8)]
    placed = labelled(spots, names, (0.0, 350.0, 0.0, 250.0))
    boxes = []
    for (x, y, anchor), name in zip(placed, names):
        start = x - {"start": 0.0, "middle": 0.5, "end": 1.0}[anchor] * 5.9 * len(name)
        boxes.append((start, y - 9, start + 5.9 * len(name), y + 2))
    assert not any(
        one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]
        for one, other in itertools.combinations(boxes, 2)
    )


def test_p_values_are_drawn_as_they_are_and_judged_by_their_bar():
    report = edition()
    found = {figure.title: figure for figure in p_value_figures(report)}
    assert found["gan"].caption == "KS .14, bar .12: beyond chance"
    assert found["flow"].caption == "KS .05, bar .12: as valid ones"
    shares = find(report, "gan")["anomaly"]["shares"]
    line = re.findall(r'd="(M[^"]*)" fill="none"', found["gan"].markup)[-1]
    ys = [float(y) for _, y in re.findall(r"([-\d.]+) ([-\d.]+)", line)]
    assert np.allclose((ys[0] - np.array(ys)) / (ys[0] - ys[-1]), shares, atol=2e-3)
    for family in report["families"]:
        family["anomaly"] = None
    assert not p_value_figures(report) and "p-values of unusual rows" not in to_html(report)


def test_use_and_memory_are_said_in_words():
    report = edition()
    words = {row[0]: row[1] for row in use_cells(report).rows}
    assert words["flow"] == words["resample"] == "not told from real rows"
    assert words["gan"].startswith("less than real rows, most of all for age (")
    flow = find(report, "flow")
    flow["use"]["difference"] |= {"low": 0.01, "high": 0.2}
    assert use_words(flow) == "more than as many real rows"
    flow["use"]["difference"] |= {"low": -0.2, "high": -0.1}
    flow["use"]["columns"] = []
    assert use_words(flow) == "less than real rows"
    remembered = {row[0]: row[1] for row in memory_cells(report).rows}
    assert remembered["resample"] == "nearer to training than to test rows, as if 100 % were copies"
    assert remembered["vae"] == "nearer than test rows, but not by copies: too narrow a law"
    assert remembered["energy"] == "farther off than test rows: samples beside the data"
    assert remembered["flow"] == "as near as test rows: no sign of copies"
    flow["samples"]["nearer"] = None
    assert memory_words(flow) == "no sign of copies"
    assert "copied share ± SE" not in sample_cells(report).heads
    text = joined(report)
    assert (
        "A predictor learns less from these samples than from as many real rows (share explained): gan (-0.40, " in text
    )
    for family in report["families"]:
        if family.get("use"):
            family["use"]["difference"] = share(0.0, 0.1, -1.0)
    assert "No family's samples are shown to teach a predictor less" in joined(report)
    assert len(use_figures(report)) == 1 and len(memory_figures(report)) == 2


def test_numbers_that_could_not_be_asked_leave_the_page():
    report = edition()
    for family in report["families"]:
        if family.get("use"):
            nothing = Quantity(None, "none", note="too few rows").to_json()
            family["use"] |= {"samples": nothing, "real": nothing, "difference": nothing, "columns": []}
            family["samples"] |= {"copied": nothing, "copied_p": nothing, "nearer": nothing}
            family["anomaly"]["ks"] = nothing
    validate(report)
    page = Page(to_html(report, None))
    assert "Use of samples" not in page.text and "p-values of unusual rows" not in page.text
    assert not memory_figures(report) and not use_figures(report)
    assert "learns less" not in joined(report)


def test_hostile_columns_of_the_second_edition_are_only_text():
    report = edition()
    for family in report["families"]:
        if family.get("use"):
            family["use"]["columns"][0]["name"] = HOSTILE
            family["use"]["columns"][0]["samples"] = -9.0
            family["use"]["predictor"] = HOSTILE
    page = Page(to_html(report, None))
    assert "script" not in {tag for tag, _ in page.tags} and HOSTILE in page.text
    assert "<script>" not in to_markdown(report)
