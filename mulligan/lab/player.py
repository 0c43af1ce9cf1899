"""Recordings as pages: plays, pauses, steps, goes back and scrubs, with nothing but what the page itself holds.

The charts are plotly.js's (MIT, the cartesian bundle in page/), the player is page/player.js: it only draws. Arrays travel
as base64 of float32; ranges, colours and all texts are made here, so page and picture (drawing.py) show the same.
"""

from __future__ import annotations

import base64
import html
import json
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from mulligan.lab.drawing import columns_of, field_range, table_cells
from mulligan.lab.identity import Check
from mulligan.lab.recording import Field, Panel, Recording, Table, layers_of
from mulligan.lab.scales import COLOURS, PALETTES, panel_range
from mulligan.lab.storage import described
from mulligan.report.writing import write_whole

PARTS = ("plotly-cartesian.min.js", "player.js", "player.css")


def payload(recording: Recording) -> dict[str, Any]:
    """What player.js needs, as JSON knows it.

    >>> from mulligan.lab.recording import Scale
    >>> payload(Recording((Panel("p", Scale("x"), Scale("y")),), ("the only frame",), "nothing"))["columns"]
    1
    """
    return {
        "title": recording.title,
        "see": recording.see,
        "code": recording.code,
        "rate": recording.rate,
        "captions": list(recording.captions),
        "columns": columns_of(len(recording.panels)),
        "numbers": [[name, [str(each) for each in values]] for name, values in recording.numbers.items()],
        "checks": {name: {"verdict": c.verdict, "text": check_text(c)} for name, c in recording.checks.items()},
        "panels": [_panel(panel, recording.length) for panel in recording.panels],
    }


def check_text(check: Check) -> str:
    """The numbers of a check in one phrase.

    >>> check_text(Check(1.0, 0.5, 0.5, 0.25, "holds", "monte-carlo"))
    'difference 0.5, standard error 0.25'
    """
    error = {"rounding": "tolerance", "order": "allowed deviation of the slope", "monte-carlo": "standard error"}
    return f"difference {check.difference:.3g}, {error[check.level]} {check.error:.3g}"


def _base64(array: np.ndarray) -> dict[str, Any]:
    data = np.ascontiguousarray(array, "<f4").tobytes()
    return {"shape": list(array.shape), "base64": base64.b64encode(data).decode("ascii")}


def _panel(panel: Panel | Table, length: int) -> dict[str, Any]:
    if isinstance(panel, Table):
        frames = range(len(panel.values))
        cells = [table_cells(panel, frame) for frame in frames]
        return {"kind": "Table", "label": panel.label, "heads": panel.heads, "names": panel.names, "cells": cells}
    found = described(panel, _base64)
    for way in "xy":
        found[way]["range"] = list(panel_range(panel, way))
    for layer, entry in zip(layers_of(panel), found["layers"]):
        if isinstance(layer, Field):
            entry |= {"colours": PALETTES[layer.palette], "range": list(field_range(layer))}
        else:
            entry["colour"] = COLOURS[layer.role]  # type: ignore[attr-defined]
    return found


def embedded(recording: Recording, identifier: str, *, autoplay: bool = False) -> str:
    """The recording as a piece of HTML: its data, and the place where player.js plays it.

    ``identifier`` is unique in the page. Texts are escaped, so nothing in a recording can end the script early.
    """
    data = json.dumps(payload(recording), ensure_ascii=False, allow_nan=False).replace("<", "\\u003c")
    start = ' data-autoplay="yes"' if autoplay else ""
    place = f'<div class="mulligan-recording" data-recording="{html.escape(identifier)}"{start}></div>'
    return f'<script type="application/json" id="{html.escape(identifier)}">{data}</script>\n{place}'


@cache
def part(name: str) -> str:
    """One of ``PARTS``, the files that a page with recordings needs.

    >>> "Plotly.react" in part("player.js")
    True
    """
    return (files("mulligan.lab") / "page" / name).read_text(encoding="utf-8")


def page(recording: Recording) -> str:
    """A whole HTML page that plays the recording: no request, no other file."""
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(loader=PackageLoader("mulligan.lab", "page"), autoescape=True, undefined=StrictUndefined)
    library, script, style = (Markup(part(name).replace("</script", "<\\/script")) for name in PARTS)
    return environment.get_template("player.html.jinja").render(
        title=recording.title,
        see=recording.see,
        style=style,
        library=library,
        script=script,
        player=Markup(embedded(recording, "recording", autoplay=True)),
    )


def write_page(recording: Recording, path: str | Path) -> None:
    """Write ``page``, all at once. Raises SetupError where the file cannot be written."""
    write_whole(page(recording), path)


def notebook_frame(recording: Recording) -> str:
    """The page in an inline frame: what a notebook shows. Its script cannot reach the notebook."""
    rows = -(-len(recording.panels) // columns_of(len(recording.panels)))
    source = html.escape(page(recording), quote=True)
    return (
        f'<iframe sandbox="allow-scripts" style="width:100%;height:{340 * rows + 330}px;border:0" '
        f'title="{html.escape(recording.title)}" srcdoc="{source}"></iframe>'
    )
