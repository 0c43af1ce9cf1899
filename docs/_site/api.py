"""The API pages: one for every public file of the package, from its docstrings; and the measured results as pages.

Docstrings are plain text with ``code`` and examples, not Markdown: everything else is escaped, and a paragraph that is laid
out by hand (a table, a list of files) is shown as it is.
"""

from __future__ import annotations

import importlib
import inspect
import re
import shutil
from pathlib import Path
from types import ModuleType
from typing import Any

import mulligan

ROOT, DOCS = Path(mulligan.__file__).parent, Path(__file__).parents[1]
RESULTS = DOCS.parent / "benchmarks" / "results"
SPECIAL = re.compile(r"([\\`*_{}\[\]<>()#+.!|$~^&-])")


def modules() -> list[str]:
    """All public modules, by name."""
    found = []
    for path in sorted(ROOT.rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        if not any(part.startswith("_") and part != "__init__" for part in parts):
            found.append(".".join(("mulligan", *parts)).removesuffix(".__init__"))
    return found


def public(module: ModuleType) -> list[tuple[str, Any]]:
    """Classes and functions that a module defines itself, in its order."""
    own = [
        (name, item)
        for name, item in vars(module).items()
        if not name.startswith("_")
        and (inspect.isclass(item) or callable(item))
        and getattr(item, "__module__", None) == module.__name__
        and getattr(item, "__name__", name) == name
    ]
    return own


def signature(name: str, item: Any) -> str:
    """``name(arguments)``, without annotations: shapes and units are in the text."""
    try:
        found = inspect.signature(item)
    except (ValueError, TypeError):
        return name
    bare = [p.replace(annotation=inspect.Parameter.empty) for p in found.parameters.values()]
    bare = [
        p
        if p.default is p.empty or (len(repr(p.default)) < 40 and "<" not in repr(p.default))
        else p.replace(default=...)
        for p in bare
    ]
    kind = "class " if inspect.isclass(item) else ""
    return f"{kind}{name}{found.replace(parameters=bare, return_annotation=inspect.Signature.empty)}"


def markdown(text: str) -> str:
    """A docstring as Markdown: examples fenced, laid-out paragraphs as they are, the rest escaped but for ``code``."""
    blocks = []
    for paragraph in re.split(r"\n\s*\n", inspect.cleandoc(text)):
        lines = paragraph.splitlines() or [""]
        if lines[0].lstrip().startswith(">>>"):
            blocks.append(fenced(paragraph, "pycon"))
        elif any(line.startswith(" ") or re.search(r"\S {2,}\S", line) for line in lines):
            blocks.append(fenced(paragraph, "text"))
        else:
            blocks.append(escaped(" ".join(lines)))
    return "\n\n".join(blocks)


def fenced(text: str, language: str) -> str:
    """A block of code, fenced by more backquotes than it holds."""
    return f"`````{language}\n{text}\n`````"


def escaped(text: str) -> str:
    """Plain text with ``code`` spans as Markdown."""
    parts = re.split(r"(``.+?``)", text)
    return "".join(part if part.startswith("``") else SPECIAL.sub(r"\\\1", part) for part in parts)


def page(name: str) -> str:
    """The page of a module."""
    if name == "mulligan.__main__":  # importing it runs the command line
        return f"# {name}\n\n``python -m mulligan``\n"
    module = importlib.import_module(name)
    parts = [f"# {escaped(name)}", markdown(module.__doc__ or "")]
    for label, item in public(module):
        parts += [
            f"## {escaped(label)}",
            fenced(signature(label, item), "python"),
            markdown(inspect.getdoc(item) or ""),
        ]
        if inspect.isclass(item):
            methods = [
                (key, each) for key, each in vars(item).items() if not key.startswith("_") and inspect.isfunction(each)
            ]
            for key, each in methods:
                parts += [f"**{escaped(key)}**", fenced(signature(key, each), "python"), markdown(each.__doc__ or "")]
    return "\n\n".join(part for part in parts if part) + "\n"


def write(path: Path, text: str) -> None:
    """Write a page if it changed: Sphinx reads only those again."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        path.write_text(text, encoding="utf-8")


def generate(app: Any) -> None:
    """All pages of api/ and results/, and their lists."""
    names = modules()
    for name in names:
        write(DOCS / "api" / f"{name}.md", page(name))
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(name.split(".")[1] if "." in name else "mulligan", []).append(name)
    lists = [
        f"## {group}\n\n```{{toctree}}\n:maxdepth: 1\n\n" + "\n".join(found) + "\n```"
        for group, found in groups.items()
    ]
    write(DOCS / "api" / "index.md", "# Every public file\n\n" + "\n\n".join(lists) + "\n")
    shutil.rmtree(DOCS / "results", ignore_errors=True)
    results = sorted(path.stem for path in RESULTS.glob("*.md"))
    for stem in results:
        write(DOCS / "results" / f"{stem}.md", (RESULTS / f"{stem}.md").read_text(encoding="utf-8"))
    listed = "```{toctree}\n:maxdepth: 1\n\n" + "\n".join(results) + "\n```\n"
    write(
        DOCS / "results" / "index.md",
        "# Measured results\n\nEach page is written by the command that it names.\n\n" + listed,
    )


def linked(app: Any, page: str, source: list[str]) -> None:
    """In the repository a link leads to benchmarks/results/; in the site to the page of it."""
    source[0] = (
        source[0]
        .replace("](../benchmarks/results/", "](/results/")
        .replace("](../../benchmarks/results/", "](/results/")
    )


def setup(app: Any) -> dict[str, bool]:
    app.connect("builder-inited", generate)
    app.connect("source-read", linked)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
