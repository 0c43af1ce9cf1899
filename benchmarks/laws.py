"""Gaps to laws known exactly: E[log p_true − log p_model] over 100 000 fresh draws, three seeds. The records to beat.

python -m benchmarks.laws [--effort standard] [--seeds 3] [-o benchmarks/results/laws.md]
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import mulligan as mg
from mulligan.catalog import find_family
from mulligan.workbench.assessment import truth_gap
from mulligan.workbench.fitting import fit_prepared
from mulligan.workbench.preparation import prepare
from mulligan.workbench.talk import Talk

LAWS = ("eight-gaussians", "moons", "rings", "checkerboard")
FAMILIES = ("mixture", "kde", "histogram", "gaussian", "autoregressive", "flow")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--effort", default="standard")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--families", nargs="+", default=FAMILIES)
    parser.add_argument("-o", type=Path, default=Path(__file__).parent / "results" / "laws.md")
    options = parser.parse_args()
    lines = [
        "# Gaps to laws known exactly",
        "",
        f"10 000 rows of each law (its own draw for each seed), {options.effort} effort, 100 000 fresh draws; nats a row ± "
        "standard error over the fresh draws. Lower is better, 0 is the law itself.",
        "",
        "| law | family | " + " | ".join(f"seed {s}" for s in range(options.seeds)) + " | chosen (seed 0) | fit, s |",
        "|---|---|" + "---|" * (options.seeds + 2),
    ]
    for law in LAWS:
        prepared = [prepare(mg.read(law, data_seed=seed), seed=seed) for seed in range(options.seeds)]
        for family in options.families:
            entry, variant = find_family(family)
            gaps, labels, seconds = [], [], []
            for seed in range(options.seeds):
                clock = time.perf_counter()
                fitted, _, _ = fit_prepared(
                    prepared[seed],
                    entry,
                    variant,
                    entry.parse_options({}),
                    seed=seed,
                    effort=options.effort,
                    budget=None,
                    steps=None,
                    talk=Talk(),
                )
                seconds.append(time.perf_counter() - clock)
                gaps.append(truth_gap(fitted, law))
                labels.append(fitted.label)
            cells = " | ".join(f"{gap.value:.4f} ± {gap.stderr:.4f}" for gap in gaps)
            lines.append(f"| {law} | {family} | {cells} | {labels[0]} | {max(seconds):.1f} |")
            print(lines[-1], file=sys.stderr)
    options.o.parent.mkdir(parents=True, exist_ok=True)
    options.o.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
