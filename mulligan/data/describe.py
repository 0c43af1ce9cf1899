"""What ``mulligan look`` says of a table: kinds, resolutions, caps, labels, constants, findings, and the split."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from mulligan.data.splits import Split
from mulligan.data.table import Column, Table

_ORDER = ("continuous", "gridded", "integer", "binary", "categorical", "constant", "label")
_MEANING = {
    "continuous": "density per unit",
    "gridded": "probability of each value, dequantised",
    "integer": "probability of each value, dequantised",
    "binary": "probability of each value",
    "categorical": "probability of each value",
    "constant": "not modelled, put back into samples",
    "label": "not modelled",
}
_NAMED = 6
_NOTES = 12


def describe(table: Table, split: Split | None = None) -> list[str]:
    """The lines that ``mulligan look`` prints, without colour.

    >>> from mulligan.data.frames import from_object
    >>> from mulligan.data.inspection import inspect
    >>> print(describe(inspect(from_object({"a": [0.5, 1.5, 1.5, 4.5], "b": ["u", "v", "u", "u"]})))[1])
      1 gridded      a (step 1, 0.5 to 4.5)        -> probability of each value, dequantised
    """
    source = table.source
    columns = () if table.schema.image else table.schema.columns
    where = f"   sha256 {source.sha256[:4]}..{source.sha256[-2:]}" if source.sha256 else ""
    lines = [f"{source.name}   {table.size_words}{where}"]
    lines += _picture_lines(table) if table.schema.image else []
    width = len(str(max(sum(c.kind == kind for c in columns) for kind in _ORDER))) + 2
    for kind in _ORDER:
        members = [column for column in columns if column.kind == kind]
        if members:
            shown = ", ".join(_column_text(column) for column in members[:_NAMED])
            more = f", and {len(members) - _NAMED} more" if len(members) > _NAMED else ""
            lines.append(f"{len(members):>{width}} {kind:<12} {shown}{more}        -> {_MEANING[kind]}")
    notes = list(table.notes[:_NOTES])
    if len(table.notes) > _NOTES:
        notes.append(f"and {len(table.notes) - _NOTES} more notes (--json has all)")
    lines += [f"  {'notes ' if i == 0 else '      '} {note}" for i, note in enumerate(notes)]
    lines.append(f"  log p  {_measure(table)}, in nats")
    if split is not None:
        said = "; ".join((f"seed {split.seed}", *split.notes))
        sizes = f"train {len(split.train):,} - select {len(split.select):,} - test {len(split.test):,}"
        lines.append(f"  split  {sizes}   ({said})")
    return lines


def describe_json(table: Table, split: Split | None = None) -> dict[str, Any]:
    """The same as plain values for ``--json``: source, rows, columns, notes, measure, split."""
    image = table.schema.image
    columns = [
        {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(column).items()}
        for column in (() if image else table.schema.columns)
    ]
    drawn = None
    if split is not None:
        drawn = {
            "train": len(split.train),
            "select": len(split.select),
            "test": len(split.test),
            "seed": split.seed,
            "digest": split.digest,
            "notes": list(split.notes),
        }
    return {
        "source": asdict(table.source),
        "rows": len(table),
        "columns": columns,
        **({"image": asdict(image)} if image else {}),
        "notes": list(table.notes),
        "measure": table.schema.measure,
        "split": drawn,
    }


def _picture_lines(table: Table) -> list[str]:
    """What the pixels hold: shares of black and white, brightness, and how they are treated."""
    image = table.schema.image
    if image is None:
        return []
    top = image.levels - 1
    black, white = float((table.values == 0).mean()), float((table.values == top).mean())
    shares = f"{100 * black:.0f} % are 0, {100 * white:.0f} % are {top}, mean {table.values.mean():.4g}"
    treatment = "probability of each value" + ("" if image.levels == 2 else ", dequantised")
    return [
        f"  {image.pixels:,} pixels   0 to {top} ({shares})        -> {treatment}; bits per dimension count them all"
    ]


def _measure(table: Table) -> str:
    """``Schema.measure``, with numbers of columns in place of names where there are many."""
    if len(table.names) <= _NAMED or table.schema.image:
        return table.schema.measure
    discrete = sum(column.discrete for column in table.schema.modelled)
    density = len(table.names) - discrete
    parts = [f"density per unit of {density} columns"] if density else []
    return " x ".join(parts + ([f"probability of the values of {discrete} columns"] if discrete else []))


def _column_text(column: Column) -> str:
    facts = []
    if column.kind == "gridded":
        facts.append(f"step {column.step:g}")
    if column.minimum is not None and column.kind != "continuous":
        facts.append(f"{column.minimum:.10g} to {column.maximum:.10g}")
    if column.low_cap is not None:
        facts.append(f"cap {column.low_cap:.10g} below")
    if column.high_cap is not None:
        facts.append(f"cap {column.high_cap:.10g} above")
    if column.levels:
        shown = ", ".join(column.levels[:3]) + (", ..." if len(column.levels) > 3 else "")
        facts.append(f"{len(column.levels)} values: {shown}")
    if column.kind == "constant":
        facts.append(f"always {column.constant}")
    if column.transform != "none":
        facts.append(column.transform)
    return f"{column.name} ({', '.join(facts)})" if facts else column.name
