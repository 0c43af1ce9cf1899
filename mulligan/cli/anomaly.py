"""``mulligan anomaly``: unusual rows under a fitted model."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from mulligan.cli.flags import Common, DataSeed, FileFlags, Output, Overwrite, Seed, takes_flags
from mulligan.cli.output import check_file, say_json, tell, write_table
from mulligan.cli.tables import ModelArgument, SourceArgument, open_model

HELP = """\
Adds to each row its score, its conformal p-value (valid whatever the model: P(p <= a) <= a for a row of the table's own
law), whether it is flagged, and for the most unusual rows the columns that made them so given the others, in nats. Of the
flagged rows at most the share --level is expected to be flagged wrongly (Benjamini and Hochberg). CSV on stdout unless -o
names a file."""
Level = Annotated[float, typer.Option("--level", metavar="SHARE", help="Accepted share of false flags.")]
Explain = Annotated[int, typer.Option("--explain", metavar="N", min=1, help="Most unusual rows that are explained.")]
Calibrate = Annotated[
    str | None, typer.Option("--calibrate", metavar="FILE", help="Usual rows, not fitted to, to compare with.")
]
ADDED = ("score", "p", "flagged", "why")


@takes_flags
def verb(
    *,
    model: ModelArgument,
    source: SourceArgument,
    level: Level = 0.01,
    explain: Explain = 25,
    calibrate: Calibrate = None,
    seed: Seed = 0,
    output: Output = None,
    overwrite: Overwrite = False,
    data_seed: DataSeed = 0,
    reading: FileFlags,
    common: Common,
) -> int:
    from mulligan.cache import use_cache
    from mulligan.errors import UsageError
    from mulligan.workbench.anomaly import anomaly
    from mulligan.workbench.sources import open_rows

    if not 0 < level < 1:
        raise UsageError(f"--level is {level:g}", why="It is a share between 0 and 1", do="--level 0.01")
    check_file(output, overwrite=overwrite, suffixes=(".csv", ".parquet"))
    fitted = open_model(model)
    if clash := [name for name in ADDED if name in fitted.schema.names]:
        raise UsageError(f"the model has a column {clash[0]!r} of its own", do="--json")
    rows = open_rows(source, fitted.schema, reading.options(), data_seed=data_seed)
    held = None if calibrate is None else open_rows(calibrate, fitted.schema, reading.options())
    use_cache()
    found = anomaly(fitted, rows, level=level, calibration=held, explain=explain, seed=seed)
    why = [""] * len(rows)
    for place in found.explained.tolist():
        why[place] = ", ".join(f"{name} +{excess:.1f}" for name, excess in found.why(place))
    added = {"score": found.scores, "p": found.p, "flagged": found.flagged, "why": why}
    if common.json:
        say_json({**_facts(fitted, found), **added})
    if output is not None or not common.json:
        write_table({**rows.to_dict(), **added}, None, output)
    for note in rows.notes:
        tell(f"note   {note}", quiet=common.quiet)
    for line in _said(found, len(rows)):
        tell(line, quiet=common.quiet)
    return 0


def _said(found: Any, rows: int) -> list[str]:
    """What the numbers allow one to say."""
    least = 1 / (found.calibration_rows + 1)
    usual = int((found.p <= found.level).sum())
    lines = [
        f"{int(found.flagged.sum()):,} of {rows:,} rows flagged; of these at most {found.level:g} are false on average",
        f"{usual:,} rows have p <= {found.level:g}; {found.level * rows:.1f} would by chance",
        f"{found.note} ({found.calibration_rows:,} rows)",
        f"score: {found.score}; why: {found.method}",
    ]
    if least > found.level / max(rows, 1):
        needed = int(least * rows / found.level) + 1
        lines.append(
            f"no p is below 1/(m + 1) = {least:.2g}: among {rows:,} rows it takes {needed:,} such rows to flag any; "
            "--calibrate FILE with more rows"
        )
    return lines


def _facts(fitted: Any, found: Any) -> dict[str, Any]:
    facts = {"family": fitted.family, "label": fitted.label, "level": found.level, "score_is": found.score}
    return {**facts, "method": found.method, "note": found.note, "calibration_rows": found.calibration_rows}
