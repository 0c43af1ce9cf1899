"""``mulligan families``: the catalog as a table."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

import typer

from mulligan.catalog import EFFORTS, FAMILIES, Family, Option, find_family
from mulligan.cli.flags import Common, listed, takes_flags
from mulligan.cli.output import aligned, say, say_json, stdout_width, tell

HELP = """\
strokes: network evaluations a sample; balls: chains or particles; log p(x): how it is known. Families marked * are
baselines: yardsticks for the others. A variant is asked for by family:variant."""


@takes_flags
def verb(
    *,
    names: Annotated[list[str] | None, typer.Argument(metavar="[FAMILY]...", help="Only these (all).")] = None,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="The options of each family, too.")] = False,
    common: Common,
) -> int:
    chosen = [find_family(name)[0] for name in listed(names)] or list(FAMILIES.values())
    if common.json:
        say_json([_as_json(family) for family in chosen])
        return 0
    heads = ("family", "log p(x)", "strokes/sample", "balls", "good at", "watch for")
    rows = [(f.name + "*" * f.baseline, f.log_p, f.strokes, f.balls, f.good_at, f.watch_for) for f in chosen]
    say(*aligned(heads, rows, stdout_width(), wrapped=2))
    if verbose or names:
        for family in chosen:
            say("", *_details(family))
    else:
        variants = [f"{f.name}:{v}" for f in chosen for v in f.variants]
        say("", "* baseline: a yardstick for the others", *([f"variants: {', '.join(variants)}"] if variants else []))
        tell("Next:  mulligan families --verbose      (options)      mulligan compare FILE", quiet=common.quiet)
    return 0


def _details(family: Family) -> list[str]:
    also = f"   also called {', '.join(family.aliases)}" if family.aliases else ""
    lines = [f"{family.name}{also}"]
    if family.variants:
        lines.append(f"  variants  {', '.join(f'{family.name}:{variant}' for variant in family.variants)}")
    if family.most_columns:
        lines.append(f"  takes at most {family.most_columns} columns once encoded")
    rows = [(f"  {family.name}.{o.name}={_default(o)}", o.expected, o.help) for o in family.options]
    if not rows:
        return [*lines, "  no options"]
    return [*lines, *aligned(("  --set", "expects", "what it is"), rows, stdout_width(), wrapped=1)]


def _default(option: Option) -> str:
    """The default as it would be typed; auto where it is chosen on the select rows or set by the effort."""
    if option.default is None:
        return "auto"
    return ",".join(map(str, option.default)) if isinstance(option.default, tuple) else f"{option.default}"


def _as_json(family: Family) -> dict[str, Any]:
    fields = asdict(family)
    del fields["make"]
    for option, declared in zip(fields["options"], family.options):
        option["expected"] = declared.expected
    return {**fields, "efforts": EFFORTS}
