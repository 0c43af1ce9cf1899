"""``mulligan lab``: the experiments of the tutorial, listed, run, and saved as pages, animations and arrays."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from mulligan.cli.flags import Common, takes_flags
from mulligan.cli.output import aligned, plain, say, say_json, stdout_width, tell
from mulligan.errors import UsageError

HELP = """\
mulligan lab list names the experiments; mulligan lab NAME runs one and prints its numbers, its checks and their verdicts. -o
takes NAME.html (plays offline), .gif, .png (a strip of frames) or .npz (the arrays). Exit code 1 if a check fails."""

Texts = list[str] | None


@takes_flags
def verb(
    *,
    name: Annotated[str, typer.Argument(metavar="[list|NAME]", help="The experiment, or list (the default).")] = "list",
    out: Annotated[
        Texts, typer.Option("-o", "--out", metavar="FILE", help="Where the recording goes (repeatable).")
    ] = None,
    settings: Annotated[
        Texts, typer.Option("--set", metavar="KEY=VALUE", help="A parameter of the experiment (repeatable).")
    ] = None,
    seed: Annotated[int | None, typer.Option("--seed", min=0, help="The seed (0).")] = None,
    again: Annotated[bool, typer.Option("--again", help="Train anew what ships with the package trained.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace existing files.")] = False,
    common: Common,
) -> int:
    from mulligan.lab.experiments import EXPERIMENTS, find_experiment

    if name == "list":
        return _list(EXPERIMENTS, common)
    places = _places(out or [], overwrite)
    given = _given(settings or [], seed)
    found = find_experiment(name)(**given, again=again)
    for place in places:
        found.save(place)
    if common.json:
        say_json(_as_json(found, places))
    else:
        _say(found)
        files = [f"saved {place}" for place in places] or [f"Next:  mulligan lab {name} -o {name}.html      (plays it)"]
        tell(*files, quiet=common.quiet)
    return 0 if found.holds else 1


def _list(experiments: Any, common: Common) -> int:
    """All experiments, in the order of the tutorial."""
    rows = [(name, str(chapter), line) for name, (_, chapter, line) in experiments.items()]
    if common.json:
        say_json([{"name": name, "chapter": int(chapter), "title": line} for name, chapter, line in rows])
        return 0
    say(*aligned(("name", "chapter", "what is seen"), rows, stdout_width(), wrapped=1))
    tell("", f"Next:  mulligan lab {rows[0][0]} -o {rows[0][0]}.html", quiet=common.quiet)
    return 0


def _places(out: list[str], overwrite: bool) -> list[Path]:
    """The files to write, each checked before anything runs."""
    from mulligan.lab.recording import SUFFIXES

    for text in out:
        if Path(text).suffix not in SUFFIXES:
            raise UsageError(
                f"a recording cannot be written as '{text}'", "", f"known: {', '.join(SUFFIXES)}", "-o NAME.html"
            )
        if not Path(text).parent.is_dir():
            raise UsageError(f"no folder '{Path(text).parent}' here", "", "", f"mkdir -p {Path(text).parent}")
        if Path(text).exists() and not overwrite:
            raise UsageError(f"{text} exists", "", "", "--overwrite or another -o")
    return [Path(text) for text in out]


def _given(settings: list[str], seed: int | None) -> dict[str, Any]:
    """Parameters as they were typed; the experiment reads and checks them."""
    found: dict[str, Any] = {} if seed is None else {"seed": seed}
    for text in settings:
        key, sign, value = text.partition("=")
        if not sign:
            raise UsageError(f"--set {text} has no value", "", "", "--set KEY=VALUE")
        found[key] = value
    return found


def _say(found: Any) -> None:
    """The last frame in words: what to see, the numbers, the checks."""
    from mulligan.lab.player import check_text

    say(f"{found.title}   (chapter {found.chapter}, {found.length} frames)", found.see, "")
    say(
        *aligned(
            ("at the end", ""), [(key, str(each[-1])) for key, each in found.numbers.items()], stdout_width(), wrapped=1
        )
    )
    checks = [(each.verdict, check_text(each), sentence) for sentence, each in found.checks.items()]
    if checks:
        say("", *aligned(("verdict", "found", "check"), checks, stdout_width(), wrapped=1))
    say("", found.code)


def _as_json(found: Any, places: list[Path]) -> dict[str, Any]:
    return {
        "name": found.name,
        "chapter": found.chapter,
        "title": found.title,
        "see": found.see,
        "parameters": plain(dict(found.parameters)),
        "code": found.code,
        "captions": list(found.captions),
        "numbers": {key: [each.to_json() for each in values] for key, values in found.numbers.items()},
        "checks": {sentence: plain(check) for sentence, check in found.checks.items()},
        "saved": [str(place) for place in places],
    }
