"""The JSON Schema of ``report.json``, as shipped in the package."""

from __future__ import annotations

import json
from importlib.resources import files
from typing import Any


def load_schema() -> dict[str, Any]:
    """The JSON Schema (2020-12) that every ``report.json`` of format 1 follows.

    >>> load_schema()["properties"]["format"]
    {'const': 1}
    """
    text = files("mulligan.report").joinpath("schema", "report.schema.json").read_text(encoding="utf-8")
    schema: dict[str, Any] = json.loads(text)
    return schema
