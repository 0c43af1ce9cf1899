"""How fast, and in how much memory, a million rows in memory are scored: ``python -m benchmarks.scoring``.

1 000 000 rows x 10 continuous columns under a mixture of 16 Gaussians and a flow of 6 layers of 64. Each family in a fresh
process: the peak of resident memory above what is there before scoring (data, library, model) is what scoring itself takes.
Best of three goes after one small one that compiles; the machine's load is written beside the numbers.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np

ROWS, COLUMNS, GOES = 1_000_000, 10, 3
ASKED_ROWS, ASKED_MEMORY = 100_000, 2.0  # a second; GB above the data
FITS = {
    "mixture (k = 16)": ("mixture", {"parts": 16, "covariance": "full", "restarts": 1}, 30),
    "flow (6 layers of 64)": ("flow", {"layers": 6, "width": 64}, 50),
}
RESULT = Path(__file__).parent / "results" / "scoring.md"


def resident() -> float:
    """GB of this process in memory now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e9


def measure(name: str) -> dict[str, float]:
    """Rows a second, and GB above the data, of one family in this process."""
    import mulligan
    from mulligan.data.table import Source, Table

    family, options, steps = FITS[name]
    rng = np.random.default_rng(0)
    mixing = rng.normal(size=(COLUMNS, COLUMNS))
    small = rng.normal(size=(3000, COLUMNS)) @ mixing
    fitted = mulligan.fit(small, family, effort="quick", steps=steps, options=options)
    rows = Table(fitted.schema, rng.normal(size=(ROWS, COLUMNS)) @ mixing, Source("rows"))
    fitted.log_prob(rows.rows(slice(0, 70_000)))
    before, peak, done = resident(), [0.0], threading.Event()

    def watch() -> None:
        while not done.wait(0.01):
            peak[0] = max(peak[0], resident())

    watcher = threading.Thread(target=watch)
    watcher.start()
    seconds = []
    for _ in range(GOES):
        began = time.perf_counter()
        log_p = fitted.log_prob(rows)
        seconds.append(time.perf_counter() - began)
    done.set()
    watcher.join()
    if log_p.shape != (ROWS,) or not np.isfinite(log_p).all():
        raise SystemExit(f"{name}: log p is not finite")
    return {"rows_per_second": ROWS / min(seconds), "slowest": ROWS / max(seconds), "memory": peak[0] - before}


def main() -> None:
    """Every family in its own process, then the table."""
    if len(sys.argv) > 1:
        print(json.dumps(measure(sys.argv[1])))
        return
    lines = [
        "# Scoring a million rows\n",
        f"`python -m benchmarks.scoring`: {ROWS:,} rows x {COLUMNS} continuous columns in memory, {os.cpu_count()} cores.",
        f"Best (slowest) of {GOES} goes; memory is the peak above data, library and model. Asked: at least",
        f"{ASKED_ROWS:,} rows a second, less than {ASKED_MEMORY:g} GB.\n",
        "| family | rows a second | memory, GB | load of the machine |",
        "|---|---:|---:|---:|",
    ]
    for name in FITS:
        out = subprocess.run(
            [sys.executable, "-m", "benchmarks.scoring", name], capture_output=True, text=True, check=True
        )
        found = json.loads(out.stdout.splitlines()[-1])
        speed = f"{found['rows_per_second']:,.0f} ({found['slowest']:,.0f})"
        lines.append(f"| {name} | {speed} | {found['memory']:.2f} | {os.getloadavg()[0]:.1f} |")
    RESULT.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
