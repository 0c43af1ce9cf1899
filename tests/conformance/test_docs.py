"""The pages of docs/: every Python block that is marked to run does, and every family that has a page is in the catalog.

A block opens with three backquotes and ``python run``. The blocks of one page run in order in one namespace, in an empty
folder, at the sizes that the page states.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

from mulligan.catalog import FAMILIES

DOCS = Path(__file__).parents[2] / "docs"
PAGES = sorted(page for folder in (".", "families", "chapters") for page in (DOCS / folder).glob("*.md"))
BLOCK = re.compile(r"^```python run\n(.*?)^```$", re.MULTILINE | re.DOTALL)
RUNNING = [page for page in PAGES if BLOCK.search(page.read_text(encoding="utf-8"))]


def run_blocks(text: str, name: str) -> None:
    """Runs all marked blocks of a page in one module; line numbers of errors are those of the page."""
    module = sys.modules["page"] = ModuleType("page")  # classes look their module up by its name
    try:
        for block in BLOCK.finditer(text):
            above = text[: block.start(1)].count("\n")
            exec(compile("\n" * above + block[1], name, "exec", dont_inherit=True), vars(module))
    finally:
        del sys.modules["page"]


@pytest.mark.parametrize("page", RUNNING, ids=[str(page.relative_to(DOCS)) for page in RUNNING])
def test_the_examples_of_a_page_run(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run_blocks(page.read_text(encoding="utf-8"), str(page))


def test_a_wrong_example_is_seen_with_its_line():
    with pytest.raises(ZeroDivisionError) as raised:
        run_blocks(
            "Text.\n\n```python run\nx = 1\n```\n\n```python\n2 / 0\n```\n\n```python run\nx / 0\n```\n", "page.md"
        )
    assert raised.traceback[-1].lineno == 11


@pytest.mark.parametrize("page", sorted(DOCS.glob("families/*.md")), ids=lambda page: page.stem)
def test_the_page_of_a_family_names_all_its_options(page):
    text = page.read_text(encoding="utf-8")
    assert page.stem in FAMILIES and BLOCK.search(text)
    assert all(f"`{option.name}`" in text for option in FAMILIES[page.stem].options)


# --- CONTRIBUTING -----------------------------------------------------------------------------------------------------

FILES = [
    "mulligan/models/logistic_mixture.py",
    "mulligan/families/logistic_mixture.py",
    "mulligan/catalog/trained.py",
    "tests/recovery/test_logistic_mixture.py",
]


def not_in_the_code(text: str) -> list[str]:
    """Lines of the Python blocks of a text that are in none of the files which it walks through."""
    lines = {line.strip() for file in FILES for line in (DOCS.parent / file).read_text(encoding="utf-8").splitlines()}
    blocks = re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [line for block in blocks for line in block.splitlines() if line.strip() not in lines]


def test_contributing_shows_the_real_code():
    text = (DOCS.parent / "CONTRIBUTING.md").read_text(encoding="utf-8")
    assert "LogisticMixture(Sampler, Density)" in text and not not_in_the_code(text)
    assert not_in_the_code(text.replace("log1p", "log"))
    counted = sum(
        len((DOCS.parent / f).read_text(encoding="utf-8").splitlines()) for f in (FILES[0], FILES[1], FILES[3])
    )
    counted += len((DOCS / "families" / "logistic-mixture.md").read_text(encoding="utf-8").splitlines())
    assert f"{counted} lines in four new files" in text
