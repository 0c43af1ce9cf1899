"""The recordings that ship with the package: every experiment at its defaults: `python -m benchmarks.recordings [NAME ...]`.

Writes mulligan/lab/recordings/NAME.npz for each name (all without one), and benchmarks/results/recordings.md: seconds,
frames, size, and how many checks hold on the default seed and on others.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import mulligan
from mulligan.lab.experiments import EXPERIMENTS, find_experiment

SHIPPED = Path(mulligan.__file__).parent / "lab" / "recordings"
RESULTS = Path(__file__).parent / "results"
HEADS = "| experiment | chapter | seconds, cold | drawn as GIF, s | frames | kB | checks | seeds on which all hold |"


def measured(name: str, seeds: int) -> dict:
    """Makes the recording, saves it, draws it, and runs the other seeds (not of a trained one)."""
    run = find_experiment(name)
    clock = time.perf_counter()
    found = run(again=True)
    seconds = time.perf_counter() - clock
    place = found.save(SHIPPED / f"{name}.npz")
    clock = time.perf_counter()
    found.save(drawn := SHIPPED / f"{name}.gif")
    drawing = time.perf_counter() - clock
    drawn.unlink()
    failed = [sentence for sentence, check in found.checks.items() if check.verdict != "holds"]
    others = 0 if run.trained else sum(run(seed=seed).holds for seed in range(1, seeds))
    return {
        "name": name,
        "chapter": found.chapter,
        "seconds": seconds,
        "drawing": drawing,
        "frames": found.length,
        "kb": place.stat().st_size / 1000,
        "checks": len(found.checks),
        "holding": f"{(not failed) + others} of {1 if run.trained else seeds}",
        "failed": failed,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="experiments (all)")
    parser.add_argument("--seeds", type=int, default=10)
    options = parser.parse_args()
    SHIPPED.mkdir(exist_ok=True)
    place = RESULTS / "recordings.json"
    known = json.loads(place.read_text(encoding="utf-8")) if place.exists() else {}
    for name in options.names or EXPERIMENTS:
        known[name] = measured(name, options.seeds)
        print(
            {key: round(item, 1) if isinstance(item, float) else item for key, item in known[name].items()}, flush=True
        )
    kept = {name: known[name] for name in EXPERIMENTS if name in known}
    place.write_text(json.dumps(kept, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    lines = [
        "# The experiments at their defaults",
        "",
        "`python -m benchmarks.recordings` runs each of them, saves the recording that ships, and runs other seeds. Seconds "
        "are those of one run in a process that has run the ones above it; compiling is included, importing JAX is not.",
        "",
        HEADS,
        "|" + "---|" * 8,
        *(
            f"| `{r['name']}` | {r['chapter']} | {r['seconds']:.1f} | {r['drawing']:.1f} | {r['frames']} | {r['kb']:.0f} "
            f"| {r['checks']} | {r['holding']} |"
            for r in kept.values()
        ),
    ]
    (RESULTS / "recordings.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
