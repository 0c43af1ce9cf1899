"""Every identity on twenty seeds in one process, and every planted mistake: `python -m benchmarks.verify`.

Writes benchmarks/results/verify.md and verify.json (what the chapters' tables of identities show). Each seed is one run of
`mulligan verify`, judged at its family-wise level; the worst comparison of a random identity over all seeds is shown, too.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from pathlib import Path

import jax
import numpy as np

import mulligan
from mulligan.lab.identity import CHAPTERS, Identity, identities, run_identity, to_json
from mulligan.lab.verification import LEVEL, Verification, verify

RESULTS = Path(__file__).parent / "results"


def row(identity: Identity, checks: list, refused: dict[str, bool]) -> dict:
    """One identity: its check on the first seed, its largest |difference|/error over all seeds, its mutants."""
    ratios = [abs(check.difference) / check.error if check.error else float(check.difference != 0) for check in checks]
    return {
        **to_json(checks[0]),
        "chapter": identity.chapter,
        "statement": identity.statement,
        "source": identity.source,
        "place": checks[0].place,
        "compared": checks[0].compared,
        "held": sum(check.verdict == "holds" for check in checks),
        "worst": max(ratios),
        "mutants": refused,
    }


def page(found: dict) -> str:
    """The figures as Markdown."""
    rows, seeds = found["identities"], found["seeds"]
    mutants = [refused for each in rows for refused in each["mutants"].values()]
    lines = [
        "# The identities of the tutorial, on twenty seeds",
        "",
        f"`python -m benchmarks.verify`: {len(rows)} identities on {seeds} seeds in one process, "
        f"mulligan {found['version']}, jax {found['jax']}, {found['machine']}. The first seed took {found['first']:.0f} s "
        f"(compiling included), a later one {found['later']:.1f} s. Of each seed, {found['comparisons']} Monte-Carlo "
        f"comparisons are judged together at {LEVEL:g}: {found['threshold']:.2f} standard errors each.",
        "",
        f"Runs in which everything holds: **{found['whole']} of {seeds}**. Planted mistakes refused (at 4.75 standard "
        f"errors, the widest allowance of any run): **{sum(mutants)} of {len(mutants)}**.",
        "",
        "Worst: the largest |difference| over all seeds, in units of its error (tolerance, allowed deviation of a slope, "
        "standard error).",
        "",
        "| id | level | holds | worst | mistakes refused | statement |",
        "|---|---|---|---|---|---|",
    ]
    for each in rows:
        refused = f"{sum(each['mutants'].values())} of {len(each['mutants'])}"
        statement = each["statement"].replace("|", "\\|")
        held = f"{each['held']} of {seeds} | {each['worst']:.2g}"
        lines.append(f"| `{each['id']}` | {each['level']} | {held} | {refused} | {statement} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=20)
    options = parser.parse_args()
    every, runs, seconds = identities(), [], []
    for seed in range(options.seeds):
        clock = time.perf_counter()
        runs.append(verify(every, seed))
        seconds.append(time.perf_counter() - clock)
        print(f"seed {seed}: {'holds' if runs[-1].holds else 'FAILS'} in {seconds[-1]:.1f} s", flush=True)
    first: Verification = runs[0]
    refused = [{name: run_identity(each, 0, name).verdict == "fails" for name in each.mutants} for each in every]
    rows = [row(each, [run.checks[k] for run in runs], refused[k]) for k, each in enumerate(every)]
    found = {
        "seeds": options.seeds,
        "version": mulligan.__version__,
        "jax": jax.__version__,
        "machine": f"{platform.machine()}, CPU",
        "first": seconds[0],
        "later": float(np.median(seconds[1:])) if seconds[1:] else seconds[0],
        "level": LEVEL,
        "comparisons": first.comparisons,
        "threshold": first.threshold,
        "whole": sum(run.holds for run in runs),
        "chapters": sorted(CHAPTERS),
        "identities": rows,
    }
    (RESULTS / "verify.json").write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    (RESULTS / "verify.md").write_text(page(found), encoding="utf-8")


if __name__ == "__main__":
    main()
