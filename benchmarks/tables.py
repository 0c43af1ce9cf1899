"""Real tables: red wine in ten folds, California housing, digits in black and white and in grey; each beside peers.

    python -m benchmarks.tables [--only wine california digits digits_grey] [--effort standard] [--smoke] [-o FOLDER]

Each writes its page (``wine.md``, ``california.md``, ``digits.md``, ``digits_grey.md``) as soon as it is done, into
``benchmarks/results`` unless told where. ``--smoke`` is a small run that says whether the code works: it prints, and writes
nothing unless told where.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.california import california
from benchmarks.common import made_by
from benchmarks.digits import digits
from benchmarks.digits_grey import digits_grey
from benchmarks.wine import wine
from mulligan.catalog import EFFORTS

BENCHMARKS: dict[str, Callable[..., list[str]]] = {
    "wine": wine,
    "california": california,
    "digits": digits,
    "digits_grey": digits_grey,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=BENCHMARKS, default=list(BENCHMARKS), help="default: all")
    parser.add_argument("--effort", choices=list(EFFORTS), default="standard", help="of our families")
    parser.add_argument("--smoke", action="store_true", help="one fold, few parts, few rows: no result")
    parser.add_argument("--folds", type=int, default=10, help="of the wine table, from the first")
    parser.add_argument("-o", type=Path, default=None, help="folder of the pages")
    options = parser.parse_args()
    folder = options.o or (None if options.smoke else Path(__file__).parent / "results")
    for name in options.only:
        began = time.perf_counter()
        further = {"wine": (options.folds,), "digits_grey": (folder,)}.get(name, ())
        lines = BENCHMARKS[name](options.effort, options.smoke, *further)
        lines = [*lines, "", made_by(name, options.effort, options.smoke, time.perf_counter() - began)]
        print("\n".join(lines), flush=True)
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{name}.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
