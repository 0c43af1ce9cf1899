"""The scorecard as aligned lines of text for a terminal."""

from __future__ import annotations

import textwrap
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

from mulligan.report.cells import cells, label
from mulligan.report.formatting import count, one_line

BOLD, DIM, RED, PLAIN = "\x1b[1m", "\x1b[2m", "\x1b[31m", "\x1b[0m"
GAP = "  "
# In a narrow terminal the columns that go first; what goes is named below the table.
LEAST_NEEDED = (
    "fit",
    "1,000 samples",
    "strokes",
    "coverage",
    "holes found",
    "two-sample AUC",
    "gap to the truth",
    "kind",
)


def scorecard_lines(report: Mapping[str, Any], width: int, color: bool) -> list[str]:
    """The comparison as lines of at most ``width`` cells wherever that is possible; escape codes only with ``color``.

    A bound is written with ≥ or ≤. Columns that do not fit are left out from the right of importance, and named.

    >>> scorecard_lines({"families": [], "split": {"test": 0}, "reference": None}, 80, False)
    ['no family has been fitted']
    """
    if not report["families"]:
        return ["no family has been fitted"]
    table = cells(report)
    heads = [_head(head, [row[i] for row in table.rows]) for i, head in enumerate(table.heads)]
    sizes = [max(map(cell_width, (*head, *(row[i] for row in table.rows)))) for i, head in enumerate(heads)]
    shown, hidden = _fitting(table.heads, sizes, width)
    lines = []
    tallest = max(len(heads[i]) for i in shown)
    for level in range(tallest):
        parts = [_pad(([""] * (tallest - len(heads[i])) + heads[i])[level], sizes[i]) for i in shown]
        lines.append(_paint(GAP.join(parts).rstrip(), DIM, color))
    for family, row in zip(table.families, table.rows):
        line = GAP.join(_pad(row[i], sizes[i]) for i in shown).rstrip()
        lines.append(_paint(line, _style(family, report), color))
    for family in table.families:
        if family["status"] == "failed":
            text = f"{label(family)} failed: {one_line(family['reason'] or 'no reason was given')}"
            lines += [_paint(line, RED, color) for line in _wrapped(text, width)]
    notes = [_legend(report)]
    if hidden:
        notes.append(f"not shown at this width: {', '.join(table.heads[i] for i in hidden)}")
    for note in notes:
        lines += [_paint(line, DIM, color) for line in _wrapped(note, width)]
    return lines


def reading_lines(report: Mapping[str, Any], width: int) -> list[str]:
    """The plain reading, wrapped and hanging under its head."""
    head = "Reading: "
    lines: list[str] = []
    for paragraph in report["reading"]:
        start = " " * len(head) if lines else head
        wrapped = textwrap.wrap(one_line(paragraph), max(width, 40) - len(head), break_on_hyphens=False) or [""]
        lines += [f"{start}{wrapped[0]}", *(" " * len(head) + line for line in wrapped[1:])]
    return lines


def cell_width(text: str) -> int:
    """How many cells of a terminal a text takes: wide East Asian characters two, combining marks none."""
    return sum(0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def _legend(report: Mapping[str, Any]) -> str:
    best = next((label(f) for f in report["families"] if f["family"] == report.get("reference")), None)
    rows = report["split"].get("test")
    against = f"Δ: paired difference to {best}, the best on select" if best else "Δ: no reference, so no differences"
    return f"{against}; {count(rows)} test rows; SE: standard error over rows; ≥ is a lower bound"


def _head(head: str, texts: Sequence[str]) -> list[str]:
    """A head over as many lines as keep its column no wider than its texts need."""
    widest = max(map(cell_width, (*texts, *head.split())))
    return textwrap.wrap(head, widest, break_on_hyphens=False)


def _fitting(heads: Sequence[str], sizes: Sequence[int], width: int) -> tuple[list[int], list[int]]:
    """Indices of the columns that fit, and of those that do not."""
    shown = list(range(len(heads)))
    for head in LEAST_NEEDED:
        if sum(sizes[i] for i in shown) + len(GAP) * (len(shown) - 1) <= width:
            break
        shown = [i for i in shown if not heads[i].startswith(head)]
    return shown, [i for i in range(len(heads)) if i not in shown]


def _style(family: Mapping[str, Any], report: Mapping[str, Any]) -> str:
    if family["status"] == "failed":
        return RED
    return BOLD if family["family"] == report.get("reference") else ""


def _pad(text: str, size: int) -> str:
    return text + " " * (size - cell_width(text))


def _paint(text: str, style: str, color: bool) -> str:
    return f"{style}{text}{PLAIN}" if color and style and text else text


def _wrapped(text: str, width: int) -> list[str]:
    return textwrap.wrap(text, max(width, 40), subsequent_indent="  ", break_on_hyphens=False)
