"""The site: ``make docs``. Strict (a warning is an error), and offline: nothing in a page points off the machine.

Pages are Markdown (MyST). Our own extensions are in _site/: equations as MathML, recordings that play, tables of identities,
and an API page for every public file of the package. Folders api/ and results/ are written at each build.
"""

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE / "_site"), str(HERE.parent)]

project = "mulligan"
author = "the mulligan authors"
copyright = "2026, the mulligan authors, Apache-2.0"
extensions = ["myst_parser", "mathml", "recordings", "identities", "notebooks", "api"]
exclude_patterns = ["_build", "_site"]
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3
html_theme = "furo"
html_title = "mulligan"
html_math_renderer = "mathml"
html_static_path = ["../mulligan/lab/page", "_site/static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sphinx = False
highlight_language = "text"
nitpicky = True
