"""The energy-based family on laws known exactly, and against the reference that it starts from on real tables.

Laws: 10 000 rows, standard effort, three seeds; at most 60 s of training for noise contrast and 120 s for maximum likelihood
with persistent chains (a budget is turned into steps before training, from the measured time of one). truth_gap is over
100 000 fresh draws. Tables: red wine's eleven inputs (Cortez et al. 2009, UCI, CC BY 4.0) and the four measurements of
penguins; the gain is log p of the model minus that of its reference, paired by test row, with the error of log Z in it.

python -m benchmarks.energy [--part laws tables] [--variants energy:nce energy:mle] [-o benchmarks/results/energy.md]
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

import mulligan as mg
from benchmarks.common import SHARED
from mulligan.catalog import find_family
from mulligan.quantity import Quantity
from mulligan.workbench.assessment import truth_gap
from mulligan.workbench.comparison import difference_on_test
from mulligan.workbench.fitting import fit_prepared
from mulligan.workbench.preparation import Prepared, prepare
from mulligan.workbench.talk import Talk

SEEDS = 3
BARS = {
    "energy:nce": ("60s", {"eight-gaussians": 0.03, "moons": 0.03, "rings": 0.03, "checkerboard": 0.08}),
    "energy:mle": ("120s", {"eight-gaussians": 0.05, "moons": 0.05, "rings": 0.05}),
}
INPUTS = [*range(10), 11]


def fitted_to(prepared: Prepared, label: str, budget: str | None, seed: int):
    """The fit with its outcome and seconds; the test rows are not read."""
    family, variant = find_family(label)
    options = family.parse_options({})
    return fit_prepared(
        prepared, family, variant, options, seed=seed, effort="standard", budget=budget, steps=None, talk=Talk()
    )


LAWS_HEAD = [
    "| law | variant | " + " | ".join(f"seed {s}" for s in range(SEEDS)) + " | bar | training, s | steps |",
    "|---|---|" + "---|" * (SEEDS + 3),
]
TABLES_HEAD = [
    "| table | seed | model | gain over its reference, nats a row | test log p | standard error of log Z |",
    "|---|---|---|---|---|---|",
]


def laws(labels: list[str]) -> dict[str, str]:
    """A row for each law and variant: gaps of the seeds beside the bar."""
    lines = {}
    for label in labels:
        budget, bars = BARS[label]
        for law, bar in bars.items():
            gaps, seconds, steps = [], [], []
            for seed in range(SEEDS):
                prepared = prepare(mg.read(law, data_seed=seed), seed=seed)
                fitted, outcome, timing = fitted_to(prepared, label, budget, seed)
                gaps.append(truth_gap(fitted, law))
                seconds.append(timing.fit_seconds)
                steps.append(outcome.steps)
            cells = " | ".join(f"{gap.value:.4f} ± {gap.stderr:.4f}" for gap in gaps)
            kept = "met" if all(gap.value <= bar for gap in gaps) else "MISSED"
            row = f"| {law} | {label} | {cells} | {bar} {kept} | {max(seconds):.0f} | {min(steps)} |"
            lines[f"{label} {law}"] = row
            print(row, file=sys.stderr, flush=True)
    return lines


def gain(prepared: Prepared, label: str, seed: int) -> tuple[Quantity, Quantity, float, str]:
    """Model minus reference on the test rows, the model's log p, the standard error of log Z, and the label."""
    fitted, _, _ = fitted_to(prepared, label, None, seed)
    before = replace(fitted, model=fitted.model.model.reference)
    test = prepared.read_test(label)
    one, other = fitted.row_likelihood(test), before.row_likelihood(test)
    error = float(fitted.model.log_z_stderr)
    kinds = fitted.log_prob_kind, before.log_prob_kind
    difference = difference_on_test(one, other, kinds, prepared.test_rows, prepared.test_clusters, error)
    return difference, fitted.evaluate(test), error, fitted.label


def tables(labels: list[str]) -> dict[str, str]:
    """A row for each table, variant and seed."""
    wine = np.loadtxt(SHARED / "wine_red_centred.csv", delimiter=",")[:, INPUTS]
    penguins = mg.read("penguins").to_dict()
    measured = ("bill_length_mm", "bill_depth_mm", "flipper_length_mm", "body_mass_g")
    sources = {"red wine": wine, "penguins' measurements": {name: penguins[name] for name in measured}}
    lines = {}
    for name, source in sources.items():
        for label in labels:
            for seed in range(SEEDS):
                found, log_p, error, said = gain(prepare(mg.read(source), seed), label, seed)
                kept = "" if found.value + 2 * found.stderr >= 0 and 3.92 * error <= 0.1 else " MISSED"
                gained = f"{found.value:+.3f} ± {found.stderr:.3f}{kept}"
                row = f"| {name} | {seed} | {said} | {gained} | {log_p} | {error:.4f} |"
                lines[f"{label} {name} {seed}"] = row
                print(row, file=sys.stderr, flush=True)
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--part", nargs="+", default=["laws", "tables"], choices=["laws", "tables"])
    parser.add_argument("--variants", nargs="+", default=list(BARS), choices=list(BARS))
    parser.add_argument("-o", type=Path, default=Path(__file__).parent / "results" / "energy.md")
    options = parser.parse_args()
    kept = options.o.with_suffix(".json")
    found = json.loads(kept.read_text(encoding="utf-8")) if kept.is_file() else {}
    for part in options.part:
        rows = laws(options.variants) if part == "laws" else tables(options.variants)
        found[part] = {**found.get(part, {}), **rows}  # rows of other variants stay
        kept.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    text = ["# The energy-based family", "", *(__doc__ or "").strip().split("\n")[2:-2]]
    for part, head in (("laws", LAWS_HEAD), ("tables", TABLES_HEAD)):
        text += ["", f"## {part.capitalize()}", "", *head, *found.get(part, {}).values()]
    options.o.write_text("\n".join(text) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
