"""``{recording} name``: the recording of an experiment at its default parameters, playing in the page.

The package ships the recordings, so building the site computes none. A page that shows one loads the player and plotly.js
from _static, beside it on the disk.
"""

from __future__ import annotations

from typing import Any

from docutils import nodes
from sphinx.util.docutils import SphinxDirective

FILES = ("plotly-cartesian.min.js", "player.js")


class RecordingDirective(SphinxDirective):
    """One argument: the name of the experiment."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        from mulligan.lab.experiment import shipped
        from mulligan.lab.player import embedded

        name = self.arguments[0].strip().replace("-", "_")
        recording = shipped(name)
        still = f"<noscript><p>{recording.title}. {recording.see}</p></noscript>"
        self.env.metadata[self.env.docname]["recordings"] = "yes"
        return [nodes.raw("", embedded(recording, f"recording-{name}") + still, format="html")]


def load_player(app: Any, page: str, template: str, context: dict[str, Any], doctree: Any) -> None:
    """Only pages with recordings load the player: plotly.js has 1.5 MB."""
    if app.env.metadata.get(page, {}).get("recordings"):
        app.add_css_file("player.css")
        for file in FILES:
            app.add_js_file(file)


def setup(app: Any) -> dict[str, bool]:
    app.add_directive("recording", RecordingDirective)
    app.connect("html-page-context", load_player)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
