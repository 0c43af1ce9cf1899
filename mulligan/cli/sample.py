"""``mulligan sample``: new rows from a fitted model."""

from __future__ import annotations

import shlex
from typing import Annotated, Any

import typer

from mulligan.cli.flags import Common, Output, Overwrite, Seed, takes_flags
from mulligan.cli.output import check_file, say_json, tell, write_table
from mulligan.cli.tables import ModelArgument, open_model
from mulligan.errors import UsageError

HELP = """\
The same columns as came in, as valid rows. CSV on stdout unless -o names a file; its extension says the format (.csv,
.parquet, or .npy for an array)."""
Number = Annotated[int, typer.Option("-n", "--number", metavar="N", min=1, help="How many rows (1000).")]


@takes_flags
def verb(
    *,
    model: ModelArgument,
    n: Number = 1000,
    seed: Seed = 0,
    output: Output = None,
    overwrite: Overwrite = False,
    common: Common,
) -> int:
    from mulligan.cache import use_cache

    check_file(output, overwrite=overwrite)
    fitted = open_model(model)
    as_array = output is not None and output.suffix.lower() == ".npy"
    if as_array:
        _require_numbers(fitted.schema)
    use_cache()
    rows = fitted.sample(n, seed=seed)
    columns = rows.to_dict()
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


def _require_numbers(schema: Any) -> None:
    """Raises UsageError, before any sampling, where a column is text: an array holds numbers."""
    text = next((column.name for column in schema.columns if column.output == "text" and column.kind != "label"), None)
    if text is not None:
        raise UsageError(f"{text!r} is text", "an npy file holds numbers", do="-o new.csv or -o new.parquet")


def _array(columns: dict[str, Any]) -> Any:
    """The columns side by side, float64 (rows, columns)."""
    import numpy as np

    return np.column_stack([np.asarray(column, np.float64) for column in columns.values()])
