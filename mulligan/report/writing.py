"""The report as files: ``report.json`` for programs, Markdown for people and repositories."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mulligan.errors import SetupError
from mulligan.quantity import Quantity
from mulligan.report.cells import Cells, cells, label, memory_cells, ordered, sample_cells, use_cells
from mulligan.report.formatting import count, one_line


def write_json(report: Mapping[str, Any], path: str | os.PathLike[str]) -> None:
    """Write ``report.json``: every non-finite number as null, full precision, one newline at the end.

    The text goes to a temporary file in the same folder, which then takes the name: a reader sees the old report or the
    new one, never half of one. Raises SetupError where the folder cannot be written, TypeError for a value that is no
    plain data.
    """
    text = json.dumps(_plain(report), indent=1, ensure_ascii=False, allow_nan=False)
    write_whole(text + "\n", path)


def write_whole(content: str | bytes, path: str | os.PathLike[str]) -> None:
    """Write a file all at once: a temporary file beside it, then a rename. Raises SetupError."""
    path = Path(path)
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        # Half a surrogate pair is no UTF-8; as \udc80 it is valid inside a JSON string and visible in a page.
        beside.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8", "backslashreplace"))
        os.replace(beside, path)
    except OSError as error:
        beside.unlink(missing_ok=True)
        where = error.strerror or type(error).__name__
        raise SetupError(
            f"cannot write {path}", where, "What was made would be lost", "choose another -o DIR"
        ) from error


def _plain(item: Any) -> Any:
    """The same data as JSON knows it."""
    if isinstance(item, Quantity):
        return _plain(item.to_json())
    if isinstance(item, np.ndarray | np.generic):
        return _plain(item.tolist())
    if isinstance(item, Mapping):
        return {str(key): _plain(value) for key, value in item.items()}
    if isinstance(item, list | tuple):
        return [_plain(value) for value in item]
    if isinstance(item, float):
        return item if math.isfinite(item) else None
    if item is None or isinstance(item, str | bool | int):
        return item
    raise TypeError(f"a report holds plain data only, not {type(item).__name__}")


def to_markdown(report: Mapping[str, Any]) -> str:
    """The report as GitHub Markdown: reading, table, what was done to the data, health, how to reproduce."""
    data, split, reproduce = report["data"], report["split"], report["reproduce"]
    table = cells(report)
    lines = [f"# Scorecard: {_safe(data['name'])}", "", "## Reading", ""]
    lines += [f"- {_safe(sentence)}" for sentence in report["reading"]] or ["- (none)"]
    lines += ["", "## Families", "", _row(table.heads), _row(["---"] * len(table.heads))]
    lines += [_row(row) for row in table.rows]
    lines += ["", _safe(_terms(report))]
    lines += [f"- {_safe(label(f))} failed: {_safe(f['reason'])}" for f in table.families if f["status"] == "failed"]
    lines += _titled("Distances of samples from data", sample_cells(report))
    lines += _titled("Use of samples", use_cells(report))
    lines += _titled("Memory of training rows", memory_cells(report))
    sha = f", sha256 `{one_line(data['sha256'])}`" if data["sha256"] else ""
    lines += ["", "## Data and what was done to it", ""]
    lines.append(f"- {_safe(data['name'])}: {count(data['rows'])} rows x {len(data['columns'])} columns{sha}")
    lines.append(f"- log p of a row: {_safe(data['measure'])}")
    lines.append(
        f"- split: train {count(split['train'])}, select {count(split['select'])}, test {count(split['test'])} "
        f"(seed {split['seed']}, digest `{one_line(split['digest'])}`)"
    )
    lines += [f"- {_safe(note)}" for note in data["notes"]]
    health = [(family, note) for family in ordered(report) for note in family["health"]]
    if health:
        lines += ["", "## Health", ""]
        lines += [f"- {_safe(label(family))}: {_safe(note)}" for family, note in health]
    lines += ["", "## How to reproduce", "", "```", one_line(reproduce["command"])]
    if reproduce.get("steps_command"):
        lines += ["# the same without a clock:", one_line(reproduce["steps_command"])]
    versions = ", ".join(f"{name} {version}" for name, version in reproduce["versions"].items())
    lines += ["```", "", f"Seed {reproduce['seed']}; {_safe(versions)}", ""]
    return "\n".join(lines)


def _titled(title: str, table: Cells) -> list[str]:
    """A heading with its table; nothing where the table is empty."""
    if not table.rows:
        return []
    return ["", f"## {title}", "", _row(table.heads), _row(["---"] * len(table.heads)), *map(_row, table.rows)]


def _terms(report: Mapping[str, Any]) -> str:
    best = next((label(f) for f in report["families"] if f["family"] == report.get("reference")), None)
    against = f"Δ is the paired difference to {best}, the best on select. " if best else ""
    return f"{against}SE: standard error over rows; ≥ marks a lower bound. {report['selection_note']}".strip()


def _safe(text: object) -> str:
    """Text from outside, so that no character of it is Markdown or HTML."""
    return re.sub(r"([\\`*_\[\]<>|#~$])", r"\\\1", one_line(text))


def _row(texts: Any) -> str:
    return f"| {' | '.join(text if text == '---' else _safe(text) for text in texts)} |"
