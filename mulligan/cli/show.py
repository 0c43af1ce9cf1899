"""``mulligan show``: what a model folder holds and how it was made."""

from __future__ import annotations

import shlex
from collections import Counter
from typing import Any

from mulligan.cli.flags import Common, takes_flags
from mulligan.cli.output import aligned, say, say_json, stdout_width, tell
from mulligan.cli.tables import ModelArgument, open_model

HELP = "MODEL is a folder that mulligan fit wrote; nothing in it is executed."


@takes_flags
def verb(*, model: ModelArgument, common: Common) -> int:
    from mulligan.workbench.folders import holds_training

    fitted = open_model(model)
    if common.json:
        say_json(fitted.card)
        return 0
    say(*card_lines(fitted))
    if holds_training(model):
        tell(f"{model} holds a training that can go on: mulligan fit --resume {shlex.quote(str(model))}")
    tell(f"Next:  {next_command(fitted, str(model))}", quiet=common.quiet)
    return 0


def card_lines(fitted: Any) -> list[str]:
    """A fitted model in a few lines: what it is, its data, its test numbers, its health, how it was made."""
    from mulligan.workbench.card import conditional_words

    card = fitted.card
    row, data, split = card.get("row", {}), card.get("data", {}), card.get("split", {})
    made = card.get("reproduce", {})
    rows = [("model", _model(fitted, row, made)), ("data", _data(data)), ("split", _split(split))]
    rows.append(("given", conditional_words(fitted.schema.names, fitted.given)))
    rows.append(("log p", str(data.get("measure", fitted.measure))))
    rows += _quality(row)
    rows += [("failed", f"{card['failed']}: the last healthy state")] if card.get("failed") else []
    rows += [("stopped", str(card["stopped"]))] if card.get("stopped") else []
    rows += [
        ("health" if i == 0 else "", str(note)) for i, note in enumerate(row.get("health") or ["nothing to remark"])
    ]
    rows.append(("made by", str(made.get("command", "unknown"))))
    shown = [(head, text) for head, text in rows if text]
    lines = aligned(shown[0], shown[1:], stdout_width(), wrapped=1)
    return [*lines, *_parameters(row.get("table"))]


def next_command(fitted: Any, folder: str) -> str:
    """What one does with a fitted model."""
    name = shlex.quote(folder) + _example(fitted)
    scores = "" if fitted.log_prob_kind == "none" else f"     mulligan log-prob {shlex.quote(folder)} more.csv"
    if fitted.schema.image is not None:
        return f"mulligan sample {name} -n 64 -o new.png{scores.replace('more.csv', 'MORE')}"
    return f"mulligan sample {name} -n 1000 -o new.csv{scores}"


def _example(fitted: Any) -> str:
    """Values of the given columns that can be typed as they stand."""
    if not fitted.given:
        return ""
    known = [column for column in fitted.schema.modelled if column.name in fitted.given]
    values = [f"{column.name}={column.levels[0] if column.levels else f'{column.minimum:g}'}" for column in known]
    return f" --given {shlex.quote(','.join(values))}"


def _model(fitted: Any, row: dict[str, Any], made: dict[str, Any]) -> str:
    from mulligan.report.formatting import count, seconds

    parts = [str(fitted.label)]
    if row.get("parameters") is not None:
        parts.append(f"{count(row['parameters'])} parameters")
    if row.get("fit_seconds") is not None:
        parts.append(f"fitted in {seconds(row['fit_seconds'])} + {seconds(row.get('compile_seconds'))} compiling")
    versions = made.get("versions", {})
    parts += [f"{name} {versions[name]}" for name in ("mulligan", "jax") if name in versions]
    return ", ".join(parts)


def _data(data: dict[str, Any]) -> str:
    if not data:
        return ""
    sha = data.get("sha256")
    kinds = Counter(column["kind"] for column in data["columns"])
    held = " + ".join(f"{number} {kind}" for kind, number in kinds.items())
    if data.get("image"):
        from mulligan.data.table import ImageShape

        held = ImageShape(**data["image"]).words
    return f"{data['name']}{f' sha256 {sha[:4]}..{sha[-2:]}' if sha else ''}, {data['rows']:,} rows, {held}"


def _split(split: dict[str, Any]) -> str:
    if not split:
        return ""
    return f"train {split['train']:,} - select {split['select']:,} - test {split['test']:,} (seed {split['seed']})"


def _quality(row: dict[str, Any]) -> list[tuple[str, str]]:
    from mulligan.quantity import Quantity

    found = []
    for key, head in (
        ("log_prob", "test"),
        ("bits_per_dim", ""),
        ("truth_gap", "truth gap"),
        ("two_sample_auc", "AUC"),
    ):
        if row.get(key):
            found.append((head, str(Quantity.from_json(row[key]))))
    if row.get("holes"):
        found.append(("holes", f"{row['holes']['found']:g} of {row['holes']['of']}"))
    return found


def _parameters(table: dict[str, Any] | None, most: int = 20) -> list[str]:
    """The fitted parameters where a person can read them; what does not fit is counted, and --json has all."""
    if not table:
        return []
    rows = [[_cell(cell) for cell in row] for row in table["rows"][:most]]
    columns, width = len(table["columns"]), stdout_width()
    lines = aligned(table["columns"], rows, width)
    while columns > 1 and max(map(len, lines)) > width:
        columns -= 1
        lines = aligned(table["columns"][:columns], [row[:columns] for row in rows], width)
    left = [(len(table["rows"]) - len(rows), "rows"), (len(table["columns"]) - columns, "columns")]
    more = [f"{number} more {what}" for number, what in left if number > 0]
    return ["", *lines, *([f"and {', '.join(more)} (--json has all)"] if more else [])]


def _cell(cell: Any) -> str:
    if cell is None:
        return "-"
    return f"{cell:.4g}" if isinstance(cell, float) else str(cell)
