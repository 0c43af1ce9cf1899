"""``mulligan look``: what a table holds and how it will be treated."""

from __future__ import annotations

import shlex

from mulligan.cli.flags import Common, DataSeed, Reading, Seed, as_typed, takes_flags
from mulligan.cli.output import say, say_json, tell
from mulligan.cli.tables import SourceArgument, open_source

HELP = "FILE is a CSV, Parquet, npy or npz file, or the name of a built-in law or table (an existing file wins)."


@takes_flags
def verb(
    *,
    source: SourceArgument,
    seed: Seed = 0,
    data_seed: DataSeed = 0,
    reading: Reading,
    common: Common,
) -> int:
    from mulligan.data.describe import describe, describe_json
    from mulligan.data.splits import make_split
    from mulligan.errors import DataError

    table = open_source(source, reading, seed, data_seed)
    try:
        split = make_split(table, seed)
    except DataError as error:  # looking never fails because training would
        split = None
        tell(f"mulligan: warning: {error}")
    if common.json:
        say_json(describe_json(table, split))
        return 0
    say(*describe(table, split))
    tell(f"Next:  mulligan compare {shlex.quote(source)}{as_typed(reading)}", quiet=common.quiet)
    return 0
