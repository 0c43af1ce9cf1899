"""``mulligan sample-density``: draws of any log density, by several samplers side by side, each with its verdict."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated, Any

import typer

from mulligan.cli.flags import Common, Listed, Output, Overwrite, Seed, listed, takes_flags
from mulligan.cli.output import aligned, check_folder, say, say_json, stdout_width, tell
from mulligan.errors import FitError

HELP = """\
WHAT is file.py:function, a function of one x (a JAX array of shape (D,)) that returns the logarithm of a density up to a
constant, or the name of a built-in law. The file is run. Samplers: nuts, hmc, mala, langevin, underdamped, random-walk,
tempering (many modes, log Z), annealed (log Z); gibbs and gibbs-with-gradients for laws with discrete states. With
-o DIR: index.html (open it from disk), report.json, and the draws of each sampler (.npz). Exit code 4 if no sampler's
draws can be used."""
What = Annotated[str, typer.Argument(metavar="WHAT", help="file.py:function, or the name of a built-in law.")]
Dim = Annotated[int | None, typer.Option("--dim", metavar="D", help="Length of x (a law knows its own).")]
Samplers = Annotated[Listed, typer.Option("--samplers", "--sampler", metavar="A,B", help="Samplers (nuts).")]
ChainsFlag = Annotated[int, typer.Option("--chains", metavar="N", help="Chains of each sampler.", show_default=True)]
Draws = Annotated[int, typer.Option("--draws", metavar="N", help="Draws kept of each chain.", show_default=True)]
WarmUpFlag = Annotated[int, typer.Option("--warm-up", metavar="N", help="Steps before them.", show_default=True)]
Thin = Annotated[int, typer.Option("--thin", metavar="N", help="Keep every N-th step.", show_default=True)]
Reference = Annotated[
    float | None, typer.Option("--reference", metavar="SD", help="Chains start, and ladders begin, at N(0, SD² I) (3).")
]
StepSize = Annotated[float | None, typer.Option("--step-size", metavar="X", help="In place of the adapted one.")]
Acceptance = Annotated[
    float | None, typer.Option("--acceptance", metavar="P", help="To which the step size adapts (the textbook's).")
]
Leapfrogs = Annotated[int, typer.Option("--leapfrogs", metavar="N", help="Of an HMC trajectory.", show_default=True)]
Rungs = Annotated[
    int | None, typer.Option("--rungs", metavar="N", help="Of a ladder (as many as the barrier asks for).")
]
Inside = Annotated[
    str,
    typer.Option("--inside", metavar="NAME", help="Kernel on the rungs: hmc, mala or random-walk.", show_default=True),
]


@takes_flags
def verb(
    *,
    what: What,
    dim: Dim = None,
    samplers: Samplers = None,
    chains: ChainsFlag = 16,
    draws: Draws = 1000,
    warm_up: WarmUpFlag = 500,
    thin: Thin = 1,
    reference: Reference = None,
    step_size: StepSize = None,
    acceptance: Acceptance = None,
    leapfrogs: Leapfrogs = 10,
    rungs: Rungs = None,
    inside: Inside = "hmc",
    seed: Seed = 0,
    output: Output = None,
    overwrite: Overwrite = False,
    common: Common,
) -> int:
    from mulligan.cache import use_cache
    from mulligan.cli.talk import talking

    if output is not None:
        check_folder(output, overwrite=overwrite)
    names = listed(samplers)
    with talking("sample-density", what, quiet=common.quiet) as talk:
        use_cache()
        from mulligan.workbench.density import sample_density
        from mulligan.workbench.target import make_target

        found = sample_density(
            what,
            dim,
            sampler=list(names) if names else [_default(make_target(what, dim))],
            chains=chains,
            draws=draws,
            warm_up=warm_up,
            thin=thin,
            reference=reference,
            step_size=step_size,
            acceptance=acceptance,
            leapfrogs=leapfrogs,
            rungs=rungs,
            inside=inside,
            seed=seed,
            talk=talk,
        )
        report = found.report(command=common.command, seed=seed)
    if output is not None:
        found.save(output, report)
    _show(report, common, output)
    for row in report["samplers"]:
        _explain(row, quiet=common.quiet and row["verdict"] in ("ok", "too few draws"))
    if output is not None:
        tell(f"report   {output / 'index.html'}   (open it from disk; no server needed)", quiet=common.quiet)
    elif not common.json:
        flags = f" --samplers {','.join(names)}" if names else ""
        again = f"mulligan sample-density {shlex.quote(what)}{f' --dim {dim}' if dim else ''}{flags} -o DIR"
        tell(f"Next:  {again}   (pictures and draws)", quiet=common.quiet)
    if not found.usable:
        kept = f"What there is was written to {output}" if output is not None else ""
        raise FitError("no sampler's draws can be used", _verdicts(report), kept, _advice(report))
    return 0


def _default(target: Any) -> str:
    return "gibbs" if target.discrete else "nuts"


def _show(report: dict[str, Any], common: Common, output: Path | None) -> None:
    """The table on stdout, or all of it as JSON."""
    from mulligan.report.density_page import HEADS, density_cells

    if common.json:
        say_json({**report, **({"output": str(output)} if output is not None else {})})
        return
    say(*aligned(HEADS, [density_cells(row) for row in report["samplers"]], stdout_width(), wrapped=1))


def _explain(row: dict[str, Any], quiet: bool) -> None:
    """A sampler's sentences on stderr."""
    if row["status"] == "failed":
        tell(f"{row['sampler']} failed: {row['reason']}", quiet=quiet)
        return
    said = row["diagnosis"]
    do = f" DO: {said['advice']}" if said["advice"] else ""
    tell(f"{row['sampler']}: {' '.join(said['sentences'])}{do}", quiet=quiet)
    z = row["log_z"]
    if z["kind"] == "none" and not z["note"].startswith("a chain at"):
        tell(f"{row['sampler']}: {z['note']}", quiet=quiet)


def _verdicts(report: dict[str, Any]) -> str:
    return "; ".join(f"{row['sampler']}: {row['verdict']}" for row in report["samplers"])


def _advice(report: dict[str, Any]) -> str:
    """What the first sampler lacked."""
    said = [row["diagnosis"]["advice"] if row["status"] == "ok" else row["advice"] for row in report["samplers"]]
    return next((advice for advice in said if advice), "--samplers tempering, or another --reference")
