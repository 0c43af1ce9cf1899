"""The adversarial family: how many seeds find every hole of a law, what penalty and pairs change, and seconds of training.

10 000 rows, standard effort, at most 60 s of training (a budget is turned into steps before training, from the measured
time of one). A hole is found if the share of 10 000 draws in its disc is at least a third of the true one. The row
``gaussian`` is the law that the generator starts from: what it finds is found before any training.

python -m benchmarks.gan [--part holes controls] [-o benchmarks/results/gan.md]
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

import mulligan as mg

ROWS, SEEDS, BAR, BUDGET = 10_000, 20, 18, "60s"
HOLES = (("eight-gaussians", "gan:non-saturating"), ("eight-gaussians", "gan:wasserstein"))
CONTROLS: tuple[tuple[str, str, dict[str, Any], int], ...] = (
    ("eight-gaussians", "gaussian", {}, 1),
    ("eight-gaussians", "gan:non-saturating", {"penalty": 0.0}, 3),
    ("eight-gaussians", "gan:wasserstein", {"penalty": 0.0}, 3),
    ("eight-gaussians", "gan:non-saturating", {"pairing": "pairs"}, 3),
    ("grid-gaussians", "gan:non-saturating", {}, 3),
    ("grid-gaussians", "gan:non-saturating", {"pairing": "pairs"}, 3),
    ("grid-gaussians", "gan:wasserstein", {}, 3),
)
HEAD = [
    "| law | family | seeds | with all holes | least found | AUC, median (largest) | training, s | steps |",
    "|---|---|---|---|---|---|---|---|",
]


def measured(law: str, label: str, options: dict[str, Any], seed: int, budget: str | None) -> dict[str, Any]:
    """What one fit comes to."""
    fitting = {"budget": budget} if budget and label != "gaussian" else {}
    try:
        row = mg.fit(mg.read(law, rows=ROWS), label, seed=seed, **fitting, **options).card["row"]
    except mg.FitError as error:  # a game that ended badly finds nothing
        return {"found": 0, "of": 0, "auc": 1.0, "seconds": float("nan"), "steps": 0, "failed": str(error)}
    holes, auc = row["holes"], row["two_sample_auc"]["value"]
    return {**holes, "auc": auc, "seconds": row["fit_seconds"], "steps": row["steps"]}


def line(law: str, label: str, options: dict[str, Any], runs: list[dict[str, Any]]) -> str:
    """A row of the table."""
    whole = sum(run["found"] == run["of"] > 0 for run in runs)
    named = label + "".join(f", {name} {value}" for name, value in options.items())
    auc, steps = [run["auc"] for run in runs], [run["steps"] for run in runs]
    least, of = min(run["found"] for run in runs), max(run["of"] for run in runs)
    spread = f"{np.median(auc):.3f} ({max(auc):.3f})"
    seconds = float(np.nanmedian([run["seconds"] for run in runs]))
    return f"| {law} | {named} | {len(runs)} | {whole} | {least} of {of} | {spread} | {seconds:.0f} | {min(steps)} |"


def main() -> int:
    """Write the tables; what was measured before is kept beside them, run by run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", nargs="*", default=["holes", "controls"], choices=["holes", "controls"])
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("-o", "--output", type=Path, default=Path("benchmarks/results/gan.md"))
    asked = parser.parse_args()
    store = asked.output.with_suffix(".json")
    kept: dict[str, dict[str, Any]] = json.loads(store.read_text(encoding="utf-8")) if store.exists() else {}
    plan: list[tuple[str, str, dict[str, Any], int]] = []
    if "holes" in asked.part:
        plan += [(law, label, {}, asked.seeds) for law, label in HOLES]
    if "controls" in asked.part:
        plan += CONTROLS
    lines = []
    for law, label, options, seeds in plan:
        runs = []
        for seed in range(seeds):
            name = f"{law} {label} {json.dumps(options)} {seed}"
            if name not in kept:
                kept[name] = measured(law, label, options, seed, BUDGET)
                store.write_text(json.dumps(kept, indent=1), encoding="utf-8")
                sys.stdout.write(f"{name}: {kept[name]}\n")
                sys.stdout.flush()
            runs.append(kept[name])
        lines.append(line(law, label, options, runs))
    text = [
        "# The adversarial family",
        "",
        *__doc__.strip().split("\n\n")[1].splitlines(),
        f"The bar: all 8 holes of eight-gaussians in at least {BAR} of {SEEDS} seeds.",
        "",
        *HEAD,
        *lines,
    ]
    asked.output.write_text("\n".join(text) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
