"""Tables and models as the verbs name them: a file, a built-in name, a model folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mulligan.cli.flags import Reading, Training

if TYPE_CHECKING:
    from mulligan.data.table import Table

SourceArgument = Annotated[str, typer.Argument(metavar="FILE", help="A file, or the name of a built-in law or table.")]
ModelArgument = Annotated[Path, typer.Argument(metavar="MODEL", help="A model folder, as fit writes it.")]
NOTES = 12


def open_source(source: str, reading: Reading, seed: int, data_seed: int) -> Table:
    """The table that a verb's FILE means; ``--rows`` is the number of draws where FILE is a law."""
    from mulligan.workbench.sources import open_table

    return open_table(source, reading.options(seed), data_seed=data_seed)


def open_model(folder: Path) -> Any:
    """The ``Fitted`` in a model folder."""
    from mulligan.workbench.artifact import load

    return load(folder)


def short_name(source: str) -> str:
    """What a folder made from this source is called after: the file's stem or the built-in name."""
    return Path(source).stem or "table"


def open_test(source: str | None, table: Table, reading: Reading, training: Training) -> Table | None:
    """``--test FILE`` under the schema of the table to fit, read with the same flags."""
    if source is None:
        return None
    from mulligan.workbench.sources import open_rows

    return open_rows(source, table.schema, reading.options(training.seed), data_seed=training.data_seed)


def announce(table: Table, talk: Any) -> None:
    """What came in and what was done to it, before anything is trained."""
    talk.note(f"{table.source.name}   {table.size_words}")
    shown = table.notes[:NOTES]
    for text in shown:
        talk.note(f"note   {text}")
    if len(table.notes) > len(shown):
        talk.note(f"note   and {len(table.notes) - len(shown)} more (mulligan look lists them)")
