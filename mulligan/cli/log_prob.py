"""``mulligan log-prob``: log p of rows under a fitted model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from mulligan.cli.flags import Common, DataSeed, FileFlags, Output, Overwrite, takes_flags
from mulligan.cli.output import check_file, say_json, tell, write_table
from mulligan.cli.tables import ModelArgument, SourceArgument, open_model
from mulligan.errors import UsageError

HELP = """\
Adds the column log_prob: nats, in the units of the table the model was fitted to; high is usual, low is unusual. With
--alpha also p_value, the share of rows that had no part in the fit and are at most as usual, and flagged, p <= alpha. CSV on
stdout unless -o names a file (.csv, .parquet, or .npy for the numbers alone)."""
COLUMN = "log_prob"
FLAGS = ("p_value", "flagged")
Alpha = Annotated[
    float | None, typer.Option("--alpha", metavar="SHARE", help="Flag rows with a p-value of at most this share.")
]
Columns = Annotated[
    str | None,
    typer.Option("--columns", metavar="A,B", help="log p of these columns alone; the others need not be there."),
]
Given = Annotated[
    list[str] | None,
    typer.Option("--given", metavar="COL=VALUE,...", help="log p of the other columns given these: age>40,kind=red."),
]


@takes_flags
def verb(
    *,
    model: ModelArgument,
    source: SourceArgument,
    columns: Columns = None,
    given: Given = None,
    alpha: Alpha = None,
    output: Output = None,
    overwrite: Overwrite = False,
    data_seed: DataSeed = 0,
    reading: FileFlags,
    common: Common,
) -> int:
    from mulligan.cache import use_cache

    check_file(output, overwrite=overwrite)
    fitted = open_model(model)
    require_density(fitted)
    if COLUMN in fitted.schema.names and (output is None or output.suffix != ".npy") and not common.json:
        raise UsageError(f"the model has a column {COLUMN!r} of its own", do="-o scores.npy, or --json")
    if alpha is not None:
        _check_alpha(alpha, fitted, bool(columns or given), common.json)
    if columns is not None and given:
        raise UsageError("--columns and --given together", why="Each asks for another law", do="one of the two")
    if columns is not None:
        use_cache()
        return _of_columns(fitted, model, source, columns.split(","), output, reading, common)
    rows, beside = _read(source, fitted.schema, reading, data_seed)
    use_cache()
    law = fitted.condition(given) if given else None
    values = fitted.log_prob(rows) if law is None else law.log_prob(rows)
    mean = _mean(rows, values, fitted.log_prob_kind if law is None else law.log_prob_kind)
    if law is not None:
        tell(f"log p(evidence): {law.log_evidence}   method {law.method}", quiet=common.quiet)
    added, said = ({}, []) if alpha is None else _flags(fitted, rows, alpha)
    if common.json:
        say_json({**_facts(fitted, rows), "model": str(model), "mean": mean, COLUMN: values, **added})
    if output is not None or not common.json:
        write_table({**beside, **rows.to_dict(), COLUMN: values, **added}, values, output)
    for note in rows.notes:
        tell(f"note   {note}", quiet=common.quiet)
    place = output if output is not None else "stdout"
    tell(f"{place} adds {COLUMN}   mean of {len(rows):,} rows: {mean}", quiet=common.quiet)
    tell(f"log p of a row: {fitted.measure}", quiet=common.quiet)
    for line in said:
        tell(line, quiet=common.quiet)
    return 0


def _check_alpha(alpha: float, fitted: Any, other_law: bool, json: bool) -> None:
    """Raises UsageError where no row can be flagged so."""
    if not 0 < alpha < 1:
        raise UsageError(f"--alpha is {alpha:g}", why="It is a share between 0 and 1", do="--alpha 0.01")
    if other_law:
        why = "The rows to compare with were scored by all columns"
        raise UsageError("--alpha beside --columns or --given", why=why, do="--alpha alone")
    if not json and (clash := [name for name in FLAGS if name in fitted.schema.names]):
        raise UsageError(f"the model has a column {clash[0]!r} of its own", do="--json")


def _flags(fitted: Any, rows: Any, alpha: float) -> tuple[dict[str, Any], list[str]]:
    """Conformal p-values of the rows, which of them are at most alpha, and what that says."""
    from mulligan.workbench.anomaly import anomaly

    found = anomaly(fitted, rows, level=alpha, explain=1)
    flagged = found.p <= alpha
    lines = [
        f"flagged {int(flagged.sum()):,} of {len(rows):,} rows (about {alpha * len(rows):.1f} if nothing is wrong)",
        f"p_value: {found.note} ({found.calibration_rows:,} rows)",
    ]
    if flagged.any():
        place = int(found.explained[0])
        why = ", ".join(f"{name} +{excess:.1f} nats" for name, excess in found.why(place))
        lines.append(f"most unusual: row {place + 1}   p {found.p[place]:.2g}   why: {why}, given the other columns")
    if 1 / (found.calibration_rows + 1) > alpha:
        lines.append(f"no p is below 1/(m + 1) = {1 / (found.calibration_rows + 1):.2g}: no row can be flagged")
    return dict(zip(FLAGS, (found.p, flagged))), lines


def _of_columns(
    fitted: Any, model: Any, source: str, names: list[str], output: Path | None, reading: FileFlags, common: Any
) -> int:
    """log p of some columns of each row, with its standard error where it is an estimate."""
    from dataclasses import replace

    from mulligan.workbench.sources import open_rows

    law = fitted.marginal([name.strip() for name in names])
    schema = replace(
        fitted.schema, columns=tuple(c for c in fitted.schema.columns if c.name in law.columns), image=None
    )
    others = tuple(c.name for c in fitted.schema.columns if c.name not in law.columns)
    rows = open_rows(source, schema, replace(reading.options(), drop=others))
    values, stderr = law.estimate(rows)
    kind = "estimate" if stderr.any() else "exact"
    if common.json:
        say_json({"model": str(model), "columns": list(law.columns), "kind": kind, COLUMN: values, "stderr": stderr})
    if output is not None or not common.json:
        write_table({**rows.to_dict(), COLUMN: values, f"{COLUMN}_stderr": stderr}, values, output)
    where = f"{output if output is not None else 'stdout'} adds {COLUMN} of {', '.join(law.columns)}"
    tell(f"{where}   mean of {len(rows):,} rows: {_mean(rows, values, kind)}", quiet=common.quiet)
    return 0


def _facts(fitted: Any, rows: Any) -> dict[str, Any]:
    return {
        "family": fitted.family,
        "label": fitted.label,
        "kind": fitted.log_prob_kind,
        "unit": "nats/row",
        "measure": fitted.measure,
        "given": list(fitted.given),
    }


def _read(source: str, schema: Any, reading: FileFlags, data_seed: int) -> tuple[Any, dict[str, Any]]:
    """The rows under the model's schema, and the file's other columns (labels, say), to write beside the numbers.

    Where rows were dropped the other columns are left out: they no longer stand beside their rows.
    """
    from mulligan.data.images import are_pictures
    from mulligan.workbench.sources import open_rows

    options = reading.options()
    if not Path(source).exists() or are_pictures(source):
        return open_rows(source, schema, options, data_seed=data_seed), {}
    from mulligan.data.reading import read_file

    frame = read_file(source, options)
    rows = open_rows(frame, schema, options)
    if len(rows) != len(frame):
        return rows, {}
    known = {column.name for column in schema.columns if column.kind != "label"}
    new_names = options.rename
    others = {name: cells for name, cells in frame.columns.items() if new_names.get(name, name) not in known | {COLUMN}}
    return rows, {name: _cells(cells, frame.origin[name]) for name, cells in others.items()}


def _cells(cells: Any, origin: str) -> Any:
    """Cells of a file as they were: whole numbers whole, empty cells empty."""
    import numpy as np

    if origin == "integer" and np.isfinite(cells).all() and np.abs(cells).max(initial=0) < 2**53:
        return cells.astype(np.int64)
    if origin == "boolean" and np.isfinite(cells).all():
        return cells.astype(bool)
    return cells if origin == "text" else [None if np.isnan(cell) else cell for cell in cells.tolist()]


def require_density(fitted: Any) -> None:
    """Raises NoDensity before any row is read where the family has no log p."""
    if fitted.log_prob_kind != "none":
        return
    from mulligan.catalog import FAMILIES
    from mulligan.errors import NoDensity

    scoring = [name for name, family in FAMILIES.items() if "Density" in family.capabilities]
    do = f"mulligan fit FILE --family {'|'.join(scoring)}"
    raise NoDensity(f"{fitted.label} has no log density, so it cannot score rows", do=do)


def _mean(rows: Any, values: Any, kind: Any) -> Any:
    """The mean with its error; equal rows count as one draw, as in a scorecard."""
    from mulligan.data.splits import row_clusters
    from mulligan.quantity import mean_of_rows

    return mean_of_rows(values, kind, clusters=row_clusters(rows))
