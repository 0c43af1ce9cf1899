"""``mulligan verify``: the identities of the tutorial, run and judged at one level."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from mulligan.cli.flags import Common, takes_flags
from mulligan.cli.output import aligned, say, say_json, stdout_width, tell

HELP = """\
Each identity states left = right, by rounding, by the order of an error, or by Monte-Carlo; all Monte-Carlo comparisons
together err with probability at most 1e-3. Exit code 1 if one fails, or with --sabotage if a planted mistake passes."""


@takes_flags
def verb(
    *,
    what: Annotated[str | None, typer.Argument(metavar="[CHAPTER|ID]", help="Only this chapter or id (all).")] = None,
    sabotage: Annotated[bool, typer.Option("--sabotage", help="Run each planted mistake, too.")] = False,
    listing: Annotated[bool, typer.Option("--list", help="Only the ids and what they state.")] = False,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Draws the data (0).")] = 0,
    common: Common,
) -> int:
    from mulligan.lab.identity import difference_of, find_identity, identities, to_json
    from mulligan.lab.verification import verify

    chosen = identities() if what is None else identities(int(what)) if what.isdigit() else (find_identity(what),)
    if listing:
        listed = [(each.id, each.level, each.statement) for each in chosen]
        if common.json:
            say_json([dict(zip(("id", "level", "statement"), row)) for row in listed])
        else:
            say(*aligned(("id", "level", "statement"), listed, stdout_width(), wrapped=1))
        return 0
    found = verify(chosen, seed)
    mutants = _mutants(chosen, seed) if sabotage else []
    accepted = sum(not mutant["refused"] for mutant in mutants)
    if common.json:
        checks = [
            {
                **to_json(check),
                "quantity": difference_of(check).to_json(),
                "statement": each.statement,
                "place": check.place,
                "compared": check.compared,
            }
            for each, check in zip(chosen, found.checks)
        ]
        stated = {"level": found.level, "comparisons": found.comparisons, "threshold": found.threshold}
        say_json({"identities": checks, "family": stated, **({"mutants": mutants} if sabotage else {})})
    else:
        heads = ("id", "verdict", "left", "right", "difference", "error", "level", "statement")
        rows = [(c.id, c.verdict, *_numbers(c), c.level, each.statement) for each, c in zip(chosen, found.checks)]
        say(*aligned(heads, rows, stdout_width(), wrapped=1))
        if mutants:
            planted = [(m["id"], "refused" if m["refused"] else "ACCEPTED", m["mutant"]) for m in mutants]
            say("", *aligned(("id", "verdict", "planted mistake"), planted, stdout_width(), wrapped=1))
    failed = sum(check.verdict == "fails" for check in found.checks)
    tell(
        f"{len(found.checks) - failed} of {len(found.checks)} hold; {found.comparisons} Monte-Carlo comparisons, each "
        f"allowed {found.threshold:.2f} standard errors (Bonferroni, all together {found.level:g})",
        *([f"{len(mutants) - accepted} of {len(mutants)} planted mistakes refused"] if sabotage else []),
        quiet=common.quiet,
    )
    return 1 if failed or accepted else 0


def _numbers(check: Any) -> tuple[str, ...]:
    return tuple(f"{number:.6g}" for number in (check.left, check.right, check.difference, check.error))


def _mutants(chosen: Any, seed: int) -> list[dict[str, Any]]:
    """Judged at 4.75 standard errors, the widest allowance of any run: what is refused here is refused in all of them."""
    from mulligan.lab.identity import run_identity

    return [
        {"id": each.id, "mutant": name, "refused": run_identity(each, seed, name).verdict == "fails"}
        for each in chosen
        for name in each.mutants
    ]
