"""``mulligan sample``: new rows from a fitted model."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated, Any

import typer

from mulligan.cli.flags import Common, FileFlags, Output, Overwrite, Seed, pairs, takes_flags
from mulligan.cli.output import check_file, say_json, tell, write_table
from mulligan.cli.tables import ModelArgument, open_model
from mulligan.errors import UsageError

HELP = """\
The same columns as came in, as valid rows. CSV on stdout unless -o names a file; its extension says the format (.csv,
.parquet, or .npy for an array)."""
Number = Annotated[
    int | None,
    typer.Option("-n", "--number", metavar="N", min=1, help="How many rows (1000, or those of --given FILE)."),
]
Given = Annotated[
    list[str] | None,
    typer.Option(
        "--given",
        metavar="COL=VALUE,...|FILE",
        help="Values of the columns that a model of p(others | given) takes, or a file with them, used row by row.",
    ),
]
ROWS = 1000


@takes_flags
def verb(
    *,
    model: ModelArgument,
    n: Number = None,
    given: Given = None,
    seed: Seed = 0,
    output: Output = None,
    overwrite: Overwrite = False,
    reading: FileFlags,
    common: Common,
) -> int:
    from mulligan.cache import use_cache
    from mulligan.data.table import Table

    check_file(output, overwrite=overwrite)
    fitted = open_model(model)
    as_array = output is not None and output.suffix.lower() == ".npy"
    if as_array:
        _require_numbers(fitted.schema)
    known = None if given is None else _known(given, fitted, reading)
    use_cache()
    rows = fitted.sample(ROWS if n is None and not isinstance(known, Table) else n, seed=seed, given=known)
    for note in known.notes if isinstance(known, Table) else ():
        tell(f"note   {note}", quiet=common.quiet)
    n, columns = len(rows), rows.to_dict()
    if output is not None:
        write_table(columns, _array(columns) if as_array else None, output)
        name = shlex.quote(str(output))
        tell(f"{output}   {n:,} rows x {len(columns)} columns, seed {seed}", quiet=common.quiet)
        tell(f"Next:  mulligan look {name}", quiet=common.quiet)
    if common.json:
        saved = {"output": str(output)} if output is not None else {"columns": columns}
        say_json({"model": str(model), "family": fitted.label, "rows": n, "seed": seed, **saved})
    elif output is None:
        write_table(columns)
    return 0


def _known(texts: list[str], fitted: Any, reading: FileFlags) -> Any:
    """``--given`` as a table (of a file) or a mapping of one value each; UsageError where it suits no given column."""
    from mulligan.workbench.sources import open_given

    if not fitted.given:
        fitted.sample(1, given={})  # says that nothing can be given
    if len(texts) == 1 and ("=" not in texts[0] or Path(texts[0]).exists()):
        return open_given(texts[0], fitted.schema, fitted.given, reading.options())
    known: dict[str, Any] = {}
    for name, text in pairs(texts, "--given", "VALUE").items():
        column = next((column for column in fitted.schema.modelled if column.name == name), None)
        known[name] = text if column is None or column.levels else _number(name, text)
    return known


def _number(name: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise UsageError(f"--given {name}={text}: {name!r} is a number", do=f"--given {name}=0.5") from None


def _require_numbers(schema: Any) -> None:
    """Raises UsageError, before any sampling, where a column is text: an array holds numbers."""
    text = next((column.name for column in schema.columns if column.output == "text" and column.kind != "label"), None)
    if text is not None:
        raise UsageError(f"{text!r} is text", "an npy file holds numbers", do="-o new.csv or -o new.parquet")


def _array(columns: dict[str, Any]) -> Any:
    """The columns side by side, float64 (rows, columns)."""
    import numpy as np

    return np.column_stack([np.asarray(column, np.float64) for column in columns.values()])
