"""``mulligan sample``: new rows from a fitted model."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated, Any

import typer

from mulligan.cli.flags import Common, FileFlags, Output, Overwrite, Seed, pairs, takes_flags
from mulligan.cli.output import TABLE_SUFFIXES, check_file, say_json, tell, write_table, write_whole
from mulligan.cli.tables import ModelArgument, open_model
from mulligan.errors import UsageError

HELP = """\
The same columns as came in, as valid rows. CSV on stdout unless -o names a file; its extension says the format (.csv,
.parquet, or .npy for an array). A model of pictures also writes .png, many pictures on one sheet."""
Number = Annotated[
    int | None,
    typer.Option(
        "-n",
        "--number",
        metavar="N",
        min=1,
        help="How many rows (1000; 64 on a sheet; or those of --given FILE).",
    ),
]
Given = Annotated[
    list[str] | None,
    typer.Option(
        "--given",
        metavar="COL=VALUE,...|FILE",
        help="What is known: age>40,kind=red. For a model of p(others | given) values of those columns, or a file of them.",
    ),
]
ROWS, ON_A_SHEET = 1000, 64


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

    check_file(output, overwrite=overwrite, suffixes=(*TABLE_SUFFIXES, ".png"))
    fitted = open_model(model)
    as_array, as_sheet = (output is not None and output.suffix.lower() == end for end in (".npy", ".png"))
    if as_array:
        _require_numbers(fitted.schema)
    if as_sheet and fitted.schema.image is None:
        raise UsageError(f"-o is {output}", f"{fitted.label} is no model of pictures", do="-o new.csv")
    conditioned = given is not None and not fitted.given
    known = None if given is None or conditioned else _known(given, fitted, reading)
    use_cache()
    some = ON_A_SHEET if as_sheet else ROWS
    if conditioned:
        law = fitted.condition(given, seed=seed)
        rows = law.sample(n or some, seed=seed)
        _say_law(law, common.quiet)
    else:
        rows = fitted.sample(some if n is None and not isinstance(known, Table) else n, seed=seed, given=known)
    for note in known.notes if isinstance(known, Table) else ():
        tell(f"note   {note}", quiet=common.quiet)
    n = len(rows)
    columns = {} if as_sheet else rows.to_dict()
    if output is not None:
        if as_sheet:
            _write_sheet(rows, output)
        else:
            array = (_array(columns) if rows.schema.image is None else _pictures(rows)) if as_array else None
            write_table(columns, array, output)
        tell(f"{output}   {rows.size_words}, seed {seed}", quiet=common.quiet)
        name = shlex.quote(str(model if as_sheet else output))
        tell(f"Next:  mulligan {'show' if as_sheet else 'look'} {name}", quiet=common.quiet)
    if common.json:
        saved = {"output": str(output)} if output is not None else {"columns": columns}
        say_json({"model": str(model), "family": fitted.label, "rows": n, "seed": seed, **saved})
    elif output is None:
        write_table(columns)
    return 0


def _say_law(law: Any, quiet: bool) -> None:
    """How the rows were made, and what the evidence's probability is."""
    told = ", ".join(
        f"{key.replace('_', ' ')} {v if isinstance(v, str) else f'{v:.3g}'}" for key, v in law.diagnostics.items()
    )
    tell(f"method {law.method}" + (f"   {told}" if told else ""), quiet=quiet)
    tell(f"log p(evidence): {law.log_evidence}", quiet=quiet)


def _known(texts: list[str], fitted: Any, reading: FileFlags) -> Any:
    """``--given`` as a table (of a file) or a mapping of one value each; UsageError where it suits no given column."""
    from mulligan.workbench.sources import open_given

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


def _write_sheet(rows: Any, output: Path) -> None:
    """All pictures side by side as one PNG file."""
    from mulligan.report.png import png_bytes, sheet

    data = png_bytes(sheet(rows.pictures, rows.schema.image.levels))
    write_whole(output, lambda file: file.write(data))


def _pictures(rows: Any) -> Any:
    """uint8 (rows, height, width), with channels as a last axis where there are several."""
    pictures = rows.pictures
    return pictures[..., 0] if pictures.shape[3] == 1 else pictures


def _array(columns: dict[str, Any]) -> Any:
    """The columns side by side, float64 (rows, columns)."""
    import numpy as np

    return np.column_stack([np.asarray(column, np.float64) for column in columns.values()])
