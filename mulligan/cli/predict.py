"""``mulligan predict``: the distribution of one column given the others."""

from __future__ import annotations

import shlex
from typing import Annotated, Any

import typer

from mulligan.cli.flags import Common, FileFlags, Output, Overwrite, Seed, takes_flags
from mulligan.cli.output import check_file, say_json, tell, write_table
from mulligan.cli.tables import ModelArgument, open_model

HELP = """\
For a number its mean, standard deviation, median and interval given the other columns of the row; for a category the
probability of each level. FILE may lack the column, and other cells may be empty. Where the column is there, how good the
predictions are is said, too. CSV on stdout unless -o names a file."""
Rows = Annotated[str, typer.Argument(metavar="FILE", help="A file, or the name of a built-in table.")]
Column = Annotated[str, typer.Option("--column", metavar="COL", help="The column to predict.")]
Level = Annotated[float, typer.Option("--level", metavar="SHARE", help="Of the interval of a number.")]


@takes_flags
def verb(
    *,
    model: ModelArgument,
    source: Rows,
    column: Column,
    level: Level = 0.9,
    seed: Seed = 0,
    output: Output = None,
    overwrite: Overwrite = False,
    reading: FileFlags,
    common: Common,
) -> int:
    from dataclasses import replace

    from mulligan.cache import use_cache
    from mulligan.data.reading import read_file
    from mulligan.data.treatment import require_column
    from mulligan.errors import UsageError
    from mulligan.workbench.prediction import predict, rows_without

    if not 0 < level < 1:
        raise UsageError(f"--level is {level:g}", why="It is a share between 0 and 1", do="--level 0.9")
    check_file(output, overwrite=overwrite, suffixes=(".csv", ".parquet"))
    fitted = open_model(model)
    require_column(column, fitted.schema.names, "--column")
    options = replace(reading.options(), missing="model")
    rows = rows_without(_frame(source, options, read_file), fitted.schema, column, options)
    use_cache()
    found = predict(fitted, rows, column, seed=seed)
    predicted, judged = found.to_dict(level), found.judged(level)
    if common.json:
        say_json({**_facts(fitted, found, level), "judged": judged, "predictions": predicted})
    if output is not None or not common.json:
        write_table({**rows.to_dict(), **predicted}, None, output)
    for note in rows.notes:
        tell(f"note   {note}", quiet=common.quiet)
    place = output if output is not None else "stdout"
    tell(f"{place} adds p({column} | the other columns) of {len(rows):,} rows   {found.method}", quiet=common.quiet)
    for name, quantity in judged.items():
        tell(f"{name}   {quantity}", quiet=common.quiet)
    if output is not None:
        tell(f"Next:  mulligan look {shlex.quote(str(output))}", quiet=common.quiet)
    return 0


def _frame(source: str, options: Any, read_file: Any) -> Any:
    """The file's cells, or a built-in table."""
    from pathlib import Path

    from mulligan.workbench.sources import open_table

    return read_file(source, options) if Path(source).exists() else open_table(source, options)


def _facts(fitted: Any, found: Any, level: float) -> dict[str, Any]:
    facts = {"family": fitted.family, "label": fitted.label, "column": found.column, "method": found.method}
    return {**facts, "level": level, "levels": list(found.levels)}
