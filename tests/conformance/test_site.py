"""The site's own extensions: equations, API pages, notebooks, and the check that a page asks nothing of any host."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest

import mulligan
from mulligan.lab.experiments import EXPERIMENTS
from mulligan.lab.identity import identities

DOCS = Path(__file__).parents[2] / "docs"
CHAPTERS = sorted((DOCS / "chapters").glob("*.md"))
pytest.importorskip("sphinx")
pytest.importorskip("latex2mathml")
sys.path.insert(0, str(DOCS / "_site"))
import api  # noqa: E402
import check  # noqa: E402
import mathml  # noqa: E402
import notebooks  # noqa: E402


def test_equations_are_mathml_and_an_unknown_command_is_refused():
    from sphinx.errors import ExtensionError

    assert mathml.mathml(r"\frac{1}{2} \nabla \log p(x \mid z)", block=True).startswith("<math")
    with pytest.raises(ExtensionError, match="unknown command"):
        mathml.mathml(r"\nosuchcommand{x}", block=False)


def test_every_public_file_has_a_page_and_every_public_name_is_on_one():
    names = api.modules()
    files = {p for p in Path(mulligan.__file__).parent.rglob("*.py") if not re.search(r"/_(?!_init__)", str(p))}
    assert len(names) == len({*names}) == len(files)
    for name in mulligan.__all__:
        if name not in ("__version__", "lab"):
            item = getattr(mulligan, name)
            assert name in dict(api.public(sys.modules[item.__module__])), name


def test_a_docstring_is_shown_as_plain_text():
    shown = api.markdown("p(x|z) is *not* a table | ``f(x)``.\n\na.py   first\nb.py   second\n\n>>> 1 + 1\n2\n")
    assert r"p\(x\|z\) is \*not\*" in shown and "``f(x)``" in shown
    assert "`````text\na.py   first\nb.py   second\n`````" in shown and "`````pycon\n>>> 1 + 1\n2\n`````" in shown


def test_what_a_page_loads_from_elsewhere_is_seen(tmp_path):
    (tmp_path / "a.css").write_text("x { background: url(https://example.org/a.png) }")
    (tmp_path / "good.html").write_text(
        '<a href="https://example.org">a link</a><link rel="stylesheet" href="a.css?v=1">'
    )
    page = tmp_path / "bad.html"
    page.write_text('<script src="//example.org/x.js"></script><img src="gone.png">')
    assert len(check.faults_of(tmp_path / "a.css")) == 1
    assert not check.faults_of(tmp_path / "good.html")
    assert len(check.faults_of(page)) == 2
    page.write_text(r"<p>so $$\frac{1}{2}</p><pre>r'\frac'</pre><p>fine</p>")
    assert len(check.faults_of(page)) == 1


def test_tables_of_identities_are_of_this_code():
    found = json.loads((DOCS.parent / "benchmarks" / "results" / "verify.json").read_text(encoding="utf-8"))
    shown = {each["id"]: (each["statement"], sorted(each["mutants"])) for each in found["identities"]}
    assert shown == {each.id: (each.statement, sorted(each.mutants)) for each in identities()}
    assert found["whole"] == found["seeds"] >= 20
    assert all(refused for each in found["identities"] for refused in each["mutants"].values())


def test_every_experiment_is_shown_in_a_chapter_and_every_chapter_has_its_identities():
    texts = {path.name: path.read_text(encoding="utf-8") for path in CHAPTERS}
    shown = {
        name.replace("-", "_") for text in texts.values() for name in re.findall(r"^```\{recording\} (\S+)", text, re.M)
    }
    assert shown == set(EXPERIMENTS)
    tables = {int(found) for text in texts.values() for found in re.findall(r"^```\{identities\} (\d+)", text, re.M)}
    assert tables == {each.chapter for each in identities()}


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_a_chapter_as_a_notebook(path):
    text = path.read_text(encoding="utf-8")
    cells = notebooks.notebook(text)["cells"]
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    assert sum(each.startswith("mg.lab.") for each in code) == len(re.findall(r"^```\{recording\}", text, re.M))
    for each in code:
        compile(each, path.name, "exec")
    blocks = len(re.findall(r"^```python run$", text, re.M))
    tables = len(re.findall(r"^```\{identities\}", text, re.M))
    assert len(code) == 1 + blocks + tables + sum(each.startswith("mg.lab.") for each in code)
    assert not any("{recording}" in "".join(cell["source"]) for cell in cells)
