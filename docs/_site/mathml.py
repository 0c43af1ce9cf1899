"""Equations as MathML, made when the site is built: no script, no font, no request. Every current browser draws MathML.

latex2mathml passes a command that it does not know on as text; here that is an error, so that no page shows a backslash.
"""

from __future__ import annotations

from typing import Any

from latex2mathml.converter import convert
from sphinx.errors import ExtensionError


def mathml(latex: str, block: bool) -> str:
    """The equation as a <math> element. Raises ExtensionError for LaTeX that is not understood."""
    try:
        found = convert(latex, display="block" if block else "inline")
    except Exception as error:
        raise ExtensionError(f"cannot read the equation {latex!r}: {error}") from error
    if "\\" in found.replace("\\\\", ""):
        raise ExtensionError(f"unknown command in the equation {latex!r}")
    return found


def inline(self: Any, node: Any) -> None:
    self.body.append(mathml(node.astext(), block=False))
    raise _skip()


def block(self: Any, node: Any) -> None:
    self.body.append(f'<div class="math">{mathml(node.astext(), block=True)}</div>\n')
    raise _skip()


def _skip() -> Exception:
    from docutils.nodes import SkipNode

    return SkipNode()


def setup(app: Any) -> dict[str, bool]:
    app.add_html_math_renderer("mathml", inline_renderers=(inline, None), block_renderers=(block, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
