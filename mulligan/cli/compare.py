"""``mulligan compare``: several families on equal terms, and the scorecard."""

from __future__ import annotations

import json
import shlex
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from mulligan.cli.flags import Common, Output, Overwrite, Reading, Training, as_typed, listed, takes_flags
from mulligan.cli.output import check_folder, colorful, say, say_json, stdout_width, tell
from mulligan.cli.tables import SourceArgument, announce, open_source, open_test, short_name
from mulligan.errors import UsageError

HELP = """\
Writes DIR/report.json after each family, then DIR/index.html and DIR/report.md. DIR is NAME-report unless -o says
otherwise. All families see the same split and scaling, choose settings on the select part, and read the test part
once."""
Families = Annotated[
    list[str] | None,
    typer.Option("--families", metavar="A,B:VARIANT", help="Only these (mulligan families lists all)."),
]
Seeds = Annotated[
    int, typer.Option("--seeds", metavar="K", min=1, help="Trainings of each family, varying its seed only.")
]


@takes_flags
def verb(
    *,
    source: SourceArgument,
    families: Families = None,
    output: Output = None,
    overwrite: Overwrite = False,
    seeds: Seeds = 1,
    training: Training,
    reading: Reading,
    common: Common,
) -> int:
    from mulligan.cache import use_cache
    from mulligan.cli.talk import talking
    from mulligan.workbench.talk import parse_budget

    chosen = checked_families(families)
    settings = parsed_settings(training.settings)
    budget = parse_budget(training.budget)
    folder = output or Path(f"{short_name(source)}-report")
    check_folder(folder, overwrite=overwrite, ours=_is_report)
    with talking("compare", source, quiet=common.quiet) as talk:
        table = open_source(source, reading, training.seed, training.data_seed)
        test = open_test(training.test, table, reading, training)
        announce(table, talk)
        limit = f"at most {training.budget} of training each" if training.budget else f"effort {training.effort}"
        talk.note(f"equal terms: one split, one scaling, {limit}, settings chosen on select, test read once")
        use_cache()
        from mulligan.workbench.comparison import compare

        began = time.time()
        try:
            scorecard = compare(
                table,
                chosen,
                seed=training.seed,
                effort=training.effort,
                budget=budget,
                seeds=seeds,
                options=settings,
                test=test,
                out=folder,
                force=training.force,
                talk=talk,
                command=common.command,
            )
        except KeyboardInterrupt:
            raise KeyboardInterrupt(_kept(folder, began)) from None
    flags = as_typed(training, reading, leave_out=("budget", "settings"))
    return _finish(scorecard, folder, _next(scorecard.report, source, flags), common)


def checked_families(names: list[str] | None) -> list[str] | None:
    """The names as they came, each of them known; UsageError names the first that is not."""
    from mulligan.catalog import find_family

    if names is None:
        return None
    chosen = list(listed(names))
    for name in chosen:
        find_family(name)
    if not chosen:
        raise UsageError("--families names none", do="leave it out for all, or --families A,B")
    return chosen


def parsed_settings(texts: list[str] | None) -> dict[str, dict[str, str]] | None:
    """``--set`` as options by family, names and values checked before anything is read."""
    from mulligan.catalog import FAMILIES, parse_settings

    settings = parse_settings(texts or ())
    for family, options in settings.items():
        FAMILIES[family].parse_options(options)
    return settings or None


def _finish(scorecard: Any, folder: Path, next_command: str, common: Common) -> int:
    """The scorecard on stdout and where it was written; 130 after Ctrl-C, with what was finished kept."""
    from mulligan.report.terminal import reading_lines, scorecard_lines

    report, width = scorecard.report, stdout_width()
    if common.json:
        say_json(report)
    else:
        say(*scorecard_lines(report, width, colorful(sys.stdout)), *reading_lines(report, min(width, 120)))
    tell(f"report   {folder / 'index.html'}   (open it from disk; no server needed)", quiet=common.quiet)
    if scorecard.interrupted:
        raise KeyboardInterrupt(f"stopped; the families that were done are in {folder}")
    tell(f"Next:  {next_command}", quiet=common.quiet)
    return 0


def _next(report: dict[str, Any], source: str, flags: str) -> str:
    """The fit of the reference, read in the same way."""
    best = report.get("reference") or next(f["family"] for f in report["families"] if f["status"] == "ok")
    folder = f"{short_name(source)}-{best.replace(':', '-')}"
    return shlex.join(["mulligan", "fit", source, "--family", best, "-o", folder]) + flags


def _is_report(folder: Path) -> bool:
    """Whether compare wrote this folder."""
    try:
        report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(report, dict) and "format" in report and "families" in report


def _kept(folder: Path, began: float) -> str:
    """What a Ctrl-C between two runs left; the page is made from the report of the families that were done."""
    from mulligan.report.html import write_html
    from mulligan.report.writing import to_markdown, write_whole

    file = folder / "report.json"
    if not file.exists() or file.stat().st_mtime < began:
        return "stopped before the first family was done; nothing was written"
    report = json.loads(file.read_text(encoding="utf-8"))
    write_html(report, {}, folder / "index.html")  # an older page would contradict the report beside it
    write_whole(to_markdown(report), folder / "report.md")
    return f"stopped; the families that were done are in {folder}"
