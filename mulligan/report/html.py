"""The scorecard as one HTML page that needs nothing else: no script, no request, pictures inside."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from mulligan.report.cells import cells, label, memory_cells, ordered, sample_cells, use_cells
from mulligan.report.evidence import cost_figures, memory_figures, p_value_figures, use_figures
from mulligan.report.figures import comparison_figures, curve_figures
from mulligan.report.formatting import NOTHING, count, fixed, one_line, seconds
from mulligan.report.panels import MOST_COLUMNS, MOST_PAIR_COLUMNS, chosen_columns, marginal_rows, pair_rows
from mulligan.report.png import data_uri, sheet
from mulligan.report.writing import write_whole

TEXT_HEADS = {"family", "kind"}
ON_A_SHEET = 49  # pictures


def write_html(report: Mapping[str, Any], pictures: Mapping[str, Any] | None, path: str | os.PathLike[str]) -> None:
    """Write the page (see ``to_html``) all at once. Raises SetupError where the file cannot be written."""
    write_whole(to_html(report, pictures), path)


def to_html(report: Mapping[str, Any], pictures: Mapping[str, Any] | None = None) -> str:
    """The page as text.

    ``pictures`` holds the arrays that the JSON does not: ``names`` (p), ``discrete`` (p), ``levels`` (name to
    categories), ``image`` (height, width, channels, levels of pictures, or None), ``real`` (n, p) test rows,
    ``samples`` (family to (m, p)), ``curves`` (family to step, train, select, unit). Without it the sections of samples and
    curves are left out. Every text of the report is escaped.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=PackageLoader("mulligan.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(drawing=Markup, minus=_minus, line=one_line, count=count, seconds=seconds)
    page = environment.get_template("scorecard.html.jinja")
    families = ordered(report)
    return page.render(
        report=report,
        families=families,
        label=label,
        table=_table(report),
        distances=sample_cells(report),
        use=use_cells(report),
        predicted=_predicted(report),
        use_figures=use_figures(report),
        memory=memory_cells(report),
        memory_figures=memory_figures(report),
        p_values=p_value_figures(report),
        cost_figures=cost_figures(report),
        figures=comparison_figures(report),
        columns=[_column(column) for column in report["data"]["columns"]],
        choices=[(family, _choices(family)) for family in families if family.get("choices")],
        curves=curve_figures((pictures or {}).get("curves") or {}, families),
        samples=_samples(report, pictures),
        sheets=_sheets(report, pictures),
        image=report["data"].get("image"),
        number=_number,
    )


def _table(report: Mapping[str, Any]) -> dict[str, Any]:
    """The cells of the scorecard, with what the page needs to set them: which are numbers, which row is marked."""
    table = cells(report)
    rows = []
    for family, texts in zip(table.families, table.rows):
        look = "failed" if family["status"] == "failed" else ""
        look = "reference" if family["family"] == report.get("reference") else look
        rows.append({"look": look, "texts": texts, "note": one_line(family["log_prob"].get("note") or "")})
    heads = [head.replace("± SE", "±\u00a0SE") for head in table.heads]
    return {"heads": heads, "numeric": [head not in TEXT_HEADS for head in table.heads], "rows": rows}


def _predicted(report: Mapping[str, Any]) -> Mapping[str, Any]:
    """What the use of samples was asked with: the predictor, the columns and the rows (the same for all families)."""
    return next((f["use"] for f in report["families"] if f.get("use") and f["use"]["columns"]), {})


def _samples(report: Mapping[str, Any], pictures: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Panels of samples against data, for the families that have samples."""
    if not pictures or not len(pictures.get("names", ())) or not pictures.get("samples") or pictures.get("image"):
        return None
    shown = [family["family"] for family in ordered(report) if family["family"] in pictures["samples"]]
    if not shown or not len(pictures["real"]):
        return None
    columns = len(pictures["names"])
    chosen = [one_line(pictures["names"][index]) for index in chosen_columns(pictures)]
    return {
        "families": shown,
        "marginals": marginal_rows(pictures, shown),
        "left_out": max(0, columns - MOST_COLUMNS),
        "most": MOST_COLUMNS,
        "pairs": pair_rows(pictures, shown),
        "pair_columns": chosen,
        "pairs_were_chosen": columns > MOST_PAIR_COLUMNS,
        "rows": len(pictures["real"]),
    }


def _sheets(report: Mapping[str, Any], pictures: Mapping[str, Any] | None) -> list[tuple[str, str]]:
    """Where rows are pictures: a heading and a sheet of them, for the test rows and for each family that has samples."""
    if not pictures or not pictures.get("image") or not len(pictures["real"]):
        return []
    image = pictures["image"]
    shape = (-1, image["height"], image["width"], image["channels"])
    names = [family["family"] for family in ordered(report) if family["family"] in pictures["samples"]]
    rows = [("test rows", pictures["real"]), *((name, pictures["samples"][name]) for name in names)]
    return [
        (name, data_uri(sheet(np.asarray(values[:ON_A_SHEET]).reshape(shape), image["levels"])))
        for name, values in rows
    ]


def _column(column: Mapping[str, Any]) -> tuple[str, str, str, str]:
    """Name, kind, range and treatment of one column of the data, in words."""
    low, high = column.get("minimum"), column.get("maximum")
    levels = [one_line(level) for level in column.get("levels") or ()]
    if levels:
        extent = f"{len(levels)} values: {', '.join(levels[:8])}" + (", …" if len(levels) > 8 else "")
    elif column.get("constant") is not None:
        extent = f"always {one_line(column['constant'])}"
    else:
        extent = NOTHING if low is None or high is None else f"{_number(low)} to {_number(high)}"
    treatment = []
    if column.get("step") is not None:
        treatment.append(f"grid of step {_number(column['step'])}")
    if column.get("atoms"):
        treatment.append(f"also allowed: {', '.join(_number(atom) for atom in column['atoms'])}")
    for side, word in (("low_cap", "from below"), ("high_cap", "from above")):
        if column.get(side) is not None:
            treatment.append(f"capped {word} at {_number(column[side])}")
    if column.get("transform", "none") != "none":
        treatment.append(f"modelled on the {column['transform']} scale")
    if column["kind"] == "label":
        treatment.append("excluded: different in every row")
    if column["kind"] == "constant":
        treatment.append("kept as a constant")
    return one_line(column["name"]), column["kind"], extent, "; ".join(treatment) or NOTHING


def _choices(family: Mapping[str, Any]) -> dict[str, Any]:
    """What was tried, as a table; the best on select is marked, or on all held-out rows where they are more."""
    tried = family["choices"]
    heads = list(dict.fromkeys(key for choice in tried for key in choice if key != "option"))
    by = "held out" if "held out" in heads else "select"
    known = [choice[by] for choice in tried if choice.get(by) is not None]
    best = max(known, default=None)
    rows = []
    for choice in tried:
        texts = [one_line(choice["option"]), *(_tried(choice.get(head)) for head in heads)]
        rows.append((texts, best is not None and choice.get(by) == best))
    return {"heads": ["option", *map(one_line, heads)], "rows": rows}


def _tried(value: float | None) -> str:
    """A number of a choice: three decimals, or one where it is large (an information criterion)."""
    return NOTHING if value is None else fixed(value, 3 if abs(value) < 100 else 1)


def _number(value: Any) -> str:
    """A cell of a table: a number with its own digits (at most six significant), a text as it is."""
    if value is None:
        return NOTHING
    if isinstance(value, bool) or not isinstance(value, int | float):
        return one_line(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:.6g}"


def _minus(text: str) -> str:
    """Hyphens of negative numbers as the minus sign; hyphens of words stay."""
    return re.sub(r"(?<![\w-])-(?=[\d.])", "−", str(text))
