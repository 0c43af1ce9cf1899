"""``{identities} 7``: the identities of a chapter, with both sides, error and verdict as ``benchmarks.verify`` found."""

from __future__ import annotations

import json
from html import escape
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.util.docutils import SphinxDirective

FOUND = Path(__file__).parents[2] / "benchmarks" / "results" / "verify.json"
HEADS = ("identity", "left", "right", "difference", "error", "verdict", "seeds", "mistakes refused")


class IdentitiesDirective(SphinxDirective):
    """One argument: the number of the chapter."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        found = json.loads(FOUND.read_text(encoding="utf-8"))
        rows = [each for each in found["identities"] if each["chapter"] == int(self.arguments[0])]
        if not rows:
            raise self.error(f"no identities of chapter {self.arguments[0]}")
        self.env.note_dependency(str(FOUND))
        return [nodes.raw("", table(rows, found), format="html")]


def table(rows: list[dict[str, Any]], found: dict[str, Any]) -> str:
    """The table and the sentence below it."""
    head = "".join(f"<th>{each}</th>" for each in HEADS)
    body = "".join(f"<tr>{line(row, found['seeds'])}</tr>" for row in rows)
    said = (
        f"Seed 0 of {found['seeds']}; the comparison that comes nearest to failing. Error: tolerance (rounding), "
        f"allowed deviation of a slope (order), standard error (monte-carlo). All {found['comparisons']} random "
        f"comparisons of a run are judged together at {found['level']:g}, {found['threshold']:.2f} standard errors each. "
        f"Run them: mulligan verify {rows[0]['chapter']} --sabotage"
    )
    whole = f'<table class="docutils identities"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'
    return f'<div class="table-wrapper">{whole}</div><p><small>{said}</small></p>'


def line(row: dict[str, Any], seeds: int) -> str:
    """The cells of one identity."""
    refused = f"{sum(row['mutants'].values())} of {len(row['mutants'])}"
    numbers = [f"{row[key]:.4g}" if row[key] is not None else "–" for key in ("left", "right", "difference", "error")]
    first = f"<code>{escape(row['id'])}</code> ({row['level']})<br><small>{escape(row['statement'])}</small>"
    cells = [first, *numbers, row["verdict"], f"{row['held']} of {seeds}", refused]
    return "".join(f"<td>{cell}</td>" for cell in cells)


def setup(app: Any) -> dict[str, bool]:
    app.add_directive("identities", IdentitiesDirective)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
