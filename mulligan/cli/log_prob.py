"""``mulligan log-prob``: log p of rows under a fitted model."""

from __future__ import annotations

from typing import Any

from mulligan.cli.flags import Common, DataSeed, FileFlags, Output, Overwrite, takes_flags
from mulligan.cli.output import check_file, say_json, tell, write_table
from mulligan.cli.tables import ModelArgument, SourceArgument, open_model, open_rows_of

HELP = """\
Adds the column log_prob: nats, in the units of the table the model was fitted to; high is usual, low is unusual. CSV on
stdout unless -o names a file (.csv, .parquet, or .npy for the numbers alone)."""
COLUMN = "log_prob"


@takes_flags
def verb(
    *,
    model: ModelArgument,
    source: SourceArgument,
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
    rows = open_rows_of(source, fitted, reading, data_seed)
    use_cache()
    values = fitted.log_prob(rows)
    mean = _mean(rows, values, fitted.log_prob_kind)
    if common.json:
        say_json({"model": str(model), "family": fitted.label, "kind": fitted.log_prob_kind, "unit": "nats",
                  "measure": rows.schema.measure, "mean": mean, COLUMN: values})  # fmt: skip
    if output is not None or not common.json:
        write_table(_with_column(rows, values), values, output)
    for note in rows.notes:
        tell(f"note   {note}", quiet=common.quiet)
    place = output if output is not None else "stdout"
    tell(f"{place} adds {COLUMN}   mean of {len(rows):,} rows: {mean}", quiet=common.quiet)
    tell(f"log p of a row: {rows.schema.measure}", quiet=common.quiet)
    return 0


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


def _with_column(rows: Any, values: Any) -> dict[str, Any]:
    """The rows' columns and log_prob; a column that has that name already keeps it, with an underscore less."""
    from mulligan.errors import DataError

    columns = rows.to_dict()
    if COLUMN in columns:
        raise DataError(f"the rows have a column {COLUMN!r} already", do=f"--rename {COLUMN}=old_{COLUMN}")
    return {**columns, COLUMN: values}
