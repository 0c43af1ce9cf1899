"""Each chapter as a notebook: its text, its recordings as calls, its exercises' answers as cells that run.

Written beside the site as notebooks/NAME.ipynb (nbformat 4.5), from the same Markdown, so that the two never differ.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

PIECE = re.compile(
    r"^```(?:\{recording\} (?P<name>[\w-]+)\n|\{identities\} (?P<chapter>\d+)\n|python run\n(?P<code>.*?))```$",
    re.M | re.S,
)
CHECKS = """\
from mulligan.lab.identity import identities

for check in mg.verify(identities({})).checks:
    print(check.id, check.verdict, check.difference)"""


def cell(kind: str, text: str, number: int) -> dict[str, Any]:
    """One cell of a notebook."""
    common = {
        "cell_type": kind,
        "id": f"cell-{number}",
        "metadata": {},
        "source": text.strip().splitlines(keepends=True),
    }
    return common if kind == "markdown" else {**common, "execution_count": None, "outputs": []}


def notebook(text: str) -> dict[str, Any]:
    """A chapter's Markdown as a notebook."""
    pieces: list[tuple[str, str]] = [("code", "import mulligan as mg")]
    end = 0
    for found in PIECE.finditer(text):
        pieces.append(("markdown", text[end : found.start()]))
        if found["name"]:
            pieces.append(("code", f"mg.lab.{found['name'].replace('-', '_')}()"))
        elif found["chapter"]:
            pieces.append(("code", CHECKS.format(found["chapter"])))
        else:
            pieces.append(("code", found["code"]))
        end = found.end()
    pieces.append(("markdown", text[end:]))
    cells = [cell(kind, part, i) for i, (kind, part) in enumerate(pieces) if part.strip()]
    kernel = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}
    return {"cells": cells, "metadata": kernel, "nbformat": 4, "nbformat_minor": 5}


def generate(app: Any) -> None:
    """One notebook a chapter, in the folder of the built site."""
    source, target = Path(app.srcdir) / "chapters", Path(app.outdir) / "notebooks"
    target.mkdir(parents=True, exist_ok=True)
    for path in sorted(source.glob("*.md")):
        made = notebook(path.read_text(encoding="utf-8"))
        (target / f"{path.stem}.ipynb").write_text(
            json.dumps(made, indent=1, ensure_ascii=False) + "\n", encoding="utf-8"
        )


def setup(app: Any) -> dict[str, bool]:
    app.connect("builder-inited", generate)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
