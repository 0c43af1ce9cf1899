"""Binarised MNIST: nats a test picture of ``autoregressive`` (exact) and ``vae`` (IWAE-500), by the commands of the docs.

The protocol is that of Burda, Grosse and Salakhutdinov (2016): training pictures are drawn from their grey levels anew at
each step, test pictures (the 10 000 of the test file) once. 15 % of the training file are the select rows.

    python -m benchmarks.mnist FOLDER [--models DIR] [-o FILE]

FOLDER holds the idx files; a model folder that is already in DIR (made by the command) is read and not trained again.
"""

from __future__ import annotations

import argparse
import os
import platform
import shlex
from pathlib import Path
from typing import Any

from benchmarks.common import say
from mulligan.cli import main as mulligan
from mulligan.workbench.artifact import load

TRAIN, TEST = "train-images-idx3-ubyte", "t10k-images-idx3-ubyte"
BARS = {"autoregressive": 90.0, "vae": 98.0}
ENTROPY = 45.5  # nats of the binarisation itself: less is a fault
PIXELS = 205.82  # nats of independent pixels


def found(folder: Path, name: str) -> str:
    """The file, compressed or not."""
    for path in (folder / f"{name}.gz", folder / name):
        if path.is_file():
            return str(path)
    raise SystemExit(f"no {name}(.gz) in {folder}")


def command(family: str, train: str, test: str, model: str) -> list[str]:
    """The command of the docs."""
    flags = ["--effort", "thorough", "--budget", "30m", "--binarise", "redraw"]
    return ["fit", train, "--family", family, *flags, "--test", test, "-o", model]


def cells(family: str, card: dict[str, Any]) -> str:
    """The row of the table."""
    row = card["row"]
    log_prob = row["log_prob"]
    nats = -log_prob["value"]
    test = f"{nats:.2f} ± {log_prob['stderr']:.2f}"
    test = f"≤ {test} (upper bound)" if log_prob["kind"] == "lower bound" else f"{test} ({log_prob['kind']})"
    verdict = f"{BARS[family]:g}: **{'holds' if ENTROPY < nats <= BARS[family] else 'does not hold'}**"
    seconds = f"{row['fit_seconds']:.0f} + {row['compile_seconds']:.0f}"
    entries = (family, row["label"], f"{row['parameters']:,}", f"{row['steps']:,}", seconds, test, verdict)
    return f"| {' | '.join(entries)} | {row['sample_seconds_per_1000']:.1f} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--models", type=Path, default=Path())
    parser.add_argument("--cores", default=f"{os.cpu_count()} cores", help="what is said of the machine")
    parser.add_argument("-o", type=Path, default=Path(__file__).parent / "results" / "mnist.md")
    options = parser.parse_args()
    files = [found(options.folder, name) for name in (TRAIN, TEST)]
    rows, cards = [], {}
    for family in BARS:
        model = options.models / f"mnist-{family}"
        if not (model / "config.json").is_file() and mulligan(command(family, *files, str(model))):
            raise SystemExit(f"{family} was not fitted")
        cards[family] = load(model).card
        rows.append(cells(family, cards[family]))
        say(rows[-1])
    split, versions = (cards["vae"][part] for part in ("split", "reproduce"))
    sizes = ", ".join(f"{split[part]:,} {part}" for part in ("train", "select", "test"))
    shown = [shlex.join(["mulligan", *command(f, f"{TRAIN}.gz", f"{TEST}.gz", f"mnist-{f}")]) for f in BARS]
    lines = [
        "# Binarised MNIST",
        "",
        f"{sizes} pictures; the test file is the test part. A pixel "
        "is white as often as it is bright, training pictures drawn anew at each step, select and test once. Budget: 30 "
        f"minutes of training on {options.cores} ({platform.machine()}), effort thorough, no other option. Nats a picture, "
        f"lower is better; independent pixels have {PIXELS}, and less than {ENTROPY} would be a fault.",
        "",
        "| family | model | parameters | steps | seconds + compiling | test, nats | at most | seconds a 1,000 samples |",
        "|---|---|---|---|---|---|---|---|",
        *rows,
        "",
        *(f"- {family}: {line}" for family, card in cards.items() for line in card["row"]["health"]),
        "",
        "```",
        *shown,
        "```",
        "",
        "mulligan, jax: " + ", ".join(versions["versions"][name] for name in ("mulligan", "jax")) + ". Written by "
        "`python -m benchmarks.mnist FOLDER`, which reads the models if they are there.",
    ]
    options.o.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
