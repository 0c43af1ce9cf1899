"""``mulligan impute``: the empty cells of a table, filled by a fitted model."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from mulligan.cli.flags import Common, FileFlags, Output, Overwrite, Seed, takes_flags
from mulligan.cli.output import check_file, say_json, tell, write_table
from mulligan.cli.tables import ModelArgument, open_model

HELP = """\
Fills each empty cell with the median of its distribution given the cells of its row that are there (a category with its
most probable level). CSV on stdout unless -o names a file. With --times 5 also five completed tables, out-1.csv to
out-5.csv, whose empty cells are draws: compute from each of them and pool (Rubin's rules). out-cells.csv lists every
filled cell with its interval."""
SUFFIXES = (".csv", ".parquet")
Rows = Annotated[str, typer.Argument(metavar="FILE", help="A table with empty cells.")]
Times = Annotated[
    int, typer.Option("--times", metavar="M", min=0, max=199, help="Completed tables beside the best guess.")
]
Fill = Annotated[Literal["median", "mean"], typer.Option("--fill", help="Best guess: least absolute or squared error.")]
Level = Annotated[float, typer.Option("--level", metavar="SHARE", help="Of the intervals in out-cells.csv.")]
Calibrate = Annotated[
    str | None,
    typer.Option("--calibrate", metavar="FILE", help="Complete rows, not fitted to, that set the intervals' width."),
]


@takes_flags
def verb(
    *,
    model: ModelArgument,
    source: Rows,
    times: Times = 0,
    fill: Fill = "median",
    level: Level = 0.9,
    calibrate: Calibrate = None,
    seed: Seed = 0,
    output: Output = None,
    overwrite: Overwrite = False,
    reading: FileFlags,
    common: Common,
) -> int:
    from dataclasses import replace

    from mulligan.cache import use_cache
    from mulligan.errors import UsageError
    from mulligan.workbench.imputation import impute
    from mulligan.workbench.sources import open_rows

    if times and output is None:
        raise UsageError(f"--times {times} writes {times} tables", do="-o out.csv")
    files = [] if output is None else _files(output, times)
    for file in files:
        check_file(file, overwrite=overwrite, suffixes=SUFFIXES)
    fitted = open_model(model)
    options = replace(reading.options(), missing="model")
    rows = open_rows(source, fitted.schema, options)
    held = None if calibrate is None else open_rows(calibrate, fitted.schema, reading.options())
    use_cache()
    found = impute(fitted, rows, times=max(times, 1), seed=seed, level=level, calibrate=held)
    filled = found.fill(fill)
    if common.json:
        say_json(_facts(found, fitted, model, fill))
    elif output is None:
        write_table(filled.to_dict())
    if output is not None:
        tables = [filled, *found.tables[:times]]
        for file, table in zip(files, tables):
            write_table(table.to_dict(), None, file)
        write_table(found.report(), None, files[-1])
    _talk(found, rows, fill, files, common)
    return 0


def _files(output: Path, times: int) -> list[Path]:
    """The best guess, the completed tables, and the list of cells."""
    ends = ["", *(f"-{i + 1}" for i in range(times)), "-cells"]
    return [output.with_name(f"{output.stem}{end}{output.suffix}") for end in ends]


def _facts(found: Any, fitted: Any, model: Path, fill: str) -> dict[str, Any]:
    return {
        "family": fitted.family,
        "label": fitted.label,
        "model": str(model),
        "method": found.method,
        "fill": fill,
        "level": found.level,
        "intervals": found.interval_method,
        "diagnostics": found.diagnostics,
        "cells": found.report(),
    }


def _talk(found: Any, rows: Any, fill: str, files: list[Path], common: Common) -> None:
    quiet = common.quiet
    for note in rows.notes:
        tell(f"note   {note}", quiet=quiet)
    place = files[0] if files else "stdout"
    many = len(found.cells)
    cells = f"{many:,} empty cell{'' if many == 1 else 's'}"
    tell(
        f"{place}   {cells} of {len(rows):,} rows filled with the {fill} given their rows ({found.method})", quiet=quiet
    )
    tell(f"intervals   {100 * found.level:g} %: {found.interval_method}", quiet=quiet)
    if len(files) > 2:
        tell(f"{files[1]} to {files[-2].name}   completed by draws: compute from each, then pool", quiet=quiet)
    if files:
        tell(f"{files[-1]}   every filled cell with its interval", quiet=quiet)
        tell(f"Next:  mulligan look {shlex.quote(str(files[0]))}", quiet=quiet)
