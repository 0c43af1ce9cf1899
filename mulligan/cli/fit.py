"""``mulligan fit``: one family, fitted and saved."""

from __future__ import annotations

import re
import shlex
from contextlib import chdir
from pathlib import Path
from typing import Annotated, Any

import typer

from mulligan.cli.flags import Common, Output, Overwrite, Reading, Training, listed, takes_flags
from mulligan.cli.output import say, say_json, tell
from mulligan.cli.tables import SourceArgument, announce, open_model, open_source, open_test, short_name
from mulligan.errors import FitError, UsageError

HELP = """\
Writes the model folder DIR (config.json, weights.safetensors, schema.json, history.csv, card.md); DIR is NAME-FAMILY
unless -o says otherwise. --set OPTION=VALUE is enough here, for there is one family. A training that was stopped goes on
with the same command and --resume, or with mulligan fit --resume DIR."""
FamilyName = Annotated[
    str | None, typer.Option("--family", metavar="NAME[:VARIANT]", help="The family (mulligan families lists them).")
]
Steps = Annotated[
    int | None, typer.Option("--steps", metavar="N", min=1, help="Greatest number of steps, in place of the effort's.")
]
Resume = Annotated[
    bool, typer.Option("--resume", help="Go on with a training that was stopped; DIR may stand in place of FILE.")
]
Given = Annotated[
    list[str] | None,
    typer.Option("--given", metavar="COL,COL", help="Columns to be given: the model is p(other columns | these)."),
]


@takes_flags
def verb(
    *,
    source: SourceArgument,
    family: FamilyName = None,
    output: Output = None,
    overwrite: Overwrite = False,
    resume: Resume = False,
    given: Given = None,
    steps: Steps = None,
    training: Training,
    reading: Reading,
    common: Common,
) -> int:
    from mulligan.cache import use_cache
    from mulligan.catalog import find_family
    from mulligan.cli.talk import talking
    from mulligan.workbench.folders import RESUME, check_writable
    from mulligan.workbench.settings import check_able
    from mulligan.workbench.talk import parse_budget

    if family is None:
        return _again(source, resume, common)
    found, _ = find_family(family)
    check_able(found, listed(given), resume)
    settings = own_settings(training.settings, family)
    budget = parse_budget(training.budget)
    folder = output or Path(f"{short_name(source)}-{found.name}")
    if resume and _is_whole(folder):
        return _nothing_left(folder, common, common.command)
    check_writable(folder, overwrite, resume)
    with talking("fit", source, quiet=common.quiet) as talk:
        table = open_source(source, reading, training.seed, training.data_seed)
        test = open_test(training.test, table, reading, training)
        announce(table, talk)
        use_cache()
        from mulligan.workbench.fitting import fit
        from mulligan.workbench.resuming import drop_if_empty

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
                given=listed(given),
                force=training.force,
                talk=talk,
                command=common.command,
                checkpoint=folder / RESUME if found.by_gradient else None,
                resume=resume,
            )
            fitted.save(folder, overwrite=overwrite or resume)
        except FitError as error:
            if error.fitted is None:
                drop_if_empty(folder / RESUME)
                raise
            error.fitted.save(folder, overwrite=overwrite or resume)
            where = f"its last healthy state is kept in {folder}"
            raise FitError(error.what, error.where, where, error.do) from None
        except BaseException as error:
            kept = not drop_if_empty(folder / RESUME)
            if isinstance(error, KeyboardInterrupt):
                raise KeyboardInterrupt(_stopped(folder, kept)) from None
            raise
    return _finish(fitted, folder, common)


def _again(source: str, resume: bool, common: Common) -> int:
    """``mulligan fit --resume DIR``: the command that is kept in DIR, typed again where it was typed."""
    from mulligan.cli import run_verb
    from mulligan.workbench.folders import RESUME

    folder = Path(source)
    if not resume:
        do = f"mulligan fit {shlex.quote(source)} --family NAME (mulligan families lists them)"
        raise UsageError("fit lacks --family", do=do)
    if _is_whole(folder):
        return _nothing_left(folder, common)
    from mulligan.workbench.resuming import read_command

    arguments, place = read_command(folder / RESUME)
    place = place if place.is_dir() else Path.cwd()
    if place != Path.cwd():
        folder = folder.resolve()
    flags = [flag for flag, on in (("--json", common.json), ("--quiet", common.quiet)) if on]
    with chdir(place):
        again = [*arguments, *flags, "--resume", "--output", str(folder)]  # the last of two --output holds
        return run_verb("fit", again, shlex.join(["mulligan", *arguments]))


def _is_whole(folder: Path) -> bool:
    from mulligan.workbench.folders import holds_training, is_model_folder

    return is_model_folder(folder) and not holds_training(folder)


def _nothing_left(folder: Path, common: Common, command: str | None = None) -> int:
    """The answer to ``--resume`` where the fit is finished: its card. UsageError where it is that of another command."""
    from mulligan.workbench.resuming import without_resume

    fitted = open_model(folder)
    made = fitted.card.get("reproduce", {}).get("command")
    if command is not None and made != without_resume(command):
        what = f"{folder} holds another fit, which is finished"
        raise UsageError(what, f"by {made}", do="--overwrite or another -o")
    tell(f"{folder} is finished: nothing to resume", quiet=common.quiet)
    return _finish(fitted, folder, common)


def _stopped(folder: Path, kept: bool) -> str:
    if not kept:
        return "stopped before there was a state to save; nothing was written"
    return f"stopped; the training is kept in {folder} ({_resume_command(folder)})"


def _resume_command(folder: Path) -> str:
    return f"resume: mulligan fit --resume {shlex.quote(str(folder))}"


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
    from mulligan.workbench.folders import holds_training

    if common.json:
        say_json({**fitted.card, "saved": str(folder)})
    else:
        say(*card_lines(fitted))
    tell(f"saved  {folder}", quiet=common.quiet)
    if fitted.card.get("interrupted"):
        after = f" ({_resume_command(folder)})" if holds_training(folder) else ""
        raise KeyboardInterrupt(f"{_where(fitted.card)}; best state saved to {folder}{after}")
    tell(f"Next:  {next_command(fitted, str(folder))}", quiet=common.quiet)
    return 0


def _where(card: dict[str, Any]) -> str:
    """``stopped at step 1,240``: of the run that Ctrl-C ended, or of the whole search where an earlier run was best."""
    found = re.fullmatch(r"interrupted at step (\d+)", str(card.get("stopped")))
    step = int(found[1]) if found else card.get("row", {}).get("steps")
    return "stopped" if step is None else f"stopped at step {step:,}"
