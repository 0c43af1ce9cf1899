"""``mulligan fit``: one family, fitted and saved."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from mulligan.cli.flags import Common, Output, Overwrite, Reading, Training, takes_flags
from mulligan.cli.output import say, say_json, tell
from mulligan.cli.tables import SourceArgument, announce, open_source, open_test, short_name
from mulligan.errors import UsageError

HELP = """\
Writes the model folder DIR (config.json, weights.safetensors, schema.json, history.csv, card.md); DIR is NAME-FAMILY
unless -o says otherwise. --set OPTION=VALUE is enough here, for there is one family."""
FamilyName = Annotated[
    str, typer.Option("--family", metavar="NAME[:VARIANT]", help="The family (mulligan families lists them).")
]
Steps = Annotated[
    int | None, typer.Option("--steps", metavar="N", min=1, help="Greatest number of steps, in place of the effort's.")
]


@takes_flags
def verb(
    *,
    source: SourceArgument,
    family: FamilyName,
    output: Output = None,
    overwrite: Overwrite = False,
    steps: Steps = None,
    training: Training,
    reading: Reading,
    common: Common,
) -> int:
    from mulligan.cache import use_cache
    from mulligan.catalog import find_family
    from mulligan.cli.talk import talking
    from mulligan.workbench.artifact import check_writable
    from mulligan.workbench.talk import parse_budget

    found, _ = find_family(family)
    settings = own_settings(training.settings, family)
    budget = parse_budget(training.budget)
    folder = check_writable(output or Path(f"{short_name(source)}-{found.name}"), overwrite)
    with talking("fit", source, quiet=common.quiet) as talk:
        table = open_source(source, reading, training.seed, training.data_seed)
        test = open_test(training.test, table, reading, training)
        announce(table, talk)
        use_cache()
        from mulligan.workbench.fitting import fit

        try:
            fitted = fit(
                table,
                family,
                seed=training.seed,
                effort=training.effort,
                budget=budget,
                steps=steps,
                options=settings,
                test=test,
                force=training.force,
                talk=talk,
                command=common.command,
            )
        except KeyboardInterrupt:
            raise KeyboardInterrupt("stopped before there was a state to save; nothing was written") from None
        fitted.save(folder, overwrite=overwrite)
    return _finish(fitted, folder, common)


def own_settings(texts: list[str] | None, name: str) -> dict[str, str]:
    """``--set option=value`` or ``family.option=value`` as the family's options, checked; UsageError for another's."""
    from mulligan.catalog import find_family, parse_settings

    family, _ = find_family(name)
    own: dict[str, str] = {}
    for text in texts or ():
        path, equals, _ = text.partition("=")
        if not equals:
            raise UsageError(f"--set is '{text}'", do="--set OPTION=VALUE")
        whole = text if "." in path else f"{family.name}.{text}"
        for other, options in parse_settings([whole]).items():
            if other != family.name:
                raise UsageError(f"--set {text} is for {other}, but {family.name} is fitted", do=f"--family {other}")
            own.update(options)
    family.parse_options(own)
    return own


def _finish(fitted: Any, folder: Path, common: Common) -> int:
    """The card on stdout, and where it was saved; 130 after Ctrl-C, with the best state kept."""
    from mulligan.cli.show import card_lines, next_command

    if common.json:
        say_json({**fitted.card, "saved": str(folder)})
    else:
        say(*card_lines(fitted))
    tell(f"saved  {folder}", quiet=common.quiet)
    if fitted.card.get("interrupted"):
        stopped = str(fitted.card.get("stopped") or "").replace("interrupted", "stopped", 1)
        raise KeyboardInterrupt(f"{stopped or 'stopped'}; best state saved to {folder}")
    tell(f"Next:  {next_command(fitted, str(folder))}", quiet=common.quiet)
    return 0
