"""The table of the scorecard, said once: which columns, in which units, in which order of rows.

The terminal, the Markdown file and the HTML page all show these cells, so they cannot disagree.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mulligan.report.formatting import NOTHING, auc, count, decimals, fixed, one_line, plus_minus, seconds, share

COPYING = 0.001  # p-value below which samples are said to be copies


@dataclass(frozen=True)
class Cells:
    """Heads, and one row of texts a family; ``families`` are the families' dictionaries in the order of the rows."""

    heads: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    families: tuple[Mapping[str, Any], ...]


def label(family: Mapping[str, Any]) -> str:
    """How a family is called in the table: its label, or its name."""
    return one_line(family.get("label") or family["family"])


def ordered(report: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Families by log p, those without one after them, failures last.

    A bound stands where its own value puts it: the order of rows claims nothing, the column of kinds does.
    """

    def rank(family: Mapping[str, Any]) -> tuple[int, float]:
        value = family["log_prob"]["value"]
        if family["status"] == "failed":
            return (3, 0.0)
        if family["log_prob"]["kind"] == "none":
            return (2, 0.0)
        return (0, -value) if value is not None and math.isfinite(value) else (1, 0.0)

    return sorted(report["families"], key=rank)


def unit(report: Mapping[str, Any]) -> str:
    """Unit of log p: that of the first family which has one."""
    return next((f["log_prob"]["unit"] for f in report["families"] if f["log_prob"].get("unit")), "nats/row")


def kind(family: Mapping[str, Any]) -> str:
    """The kind of the log p, with the interval that its computation adds where there is one."""
    quantity = family["log_prob"]
    if family["status"] == "failed":
        return "failed"
    if quantity["kind"] == "none":
        return "no log p"
    low, high = quantity.get("method_low"), quantity.get("method_high")
    if quantity["kind"] in ("estimate", "bracket") and low is not None and high is not None:
        digits = max(decimals(quantity.get("stderr")), decimals((high - low) / 2 or None))
        return f"{quantity['kind']} [{fixed(low, digits)}, {fixed(high, digits)}]"
    return str(quantity["kind"])


def difference(family: Mapping[str, Any], report: Mapping[str, Any]) -> str:
    """Paired difference to the reference, or why there is none."""
    if family["family"] == report.get("reference"):
        return "reference"
    delta = family.get("delta_to_best")
    if delta is None or delta["kind"] == "none":
        return NOTHING if family["log_prob"]["kind"] == "none" else "not rankable"
    return plus_minus(delta, signed=True)


def holes(family: Mapping[str, Any]) -> str:
    """Modes found of those known, with the 95 % interval where it is wider than the count.

    >>> holes({"holes": {"found": 3, "of": 5, "low": 2, "high": 4}})
    '3/5 (2 to 4)'
    """
    found = family.get("holes")
    if not found:
        return NOTHING
    text = f"{count(found['found'])}/{count(found['of'])}"
    low, high = found.get("low"), found.get("high")
    if low is None or high is None or low == high:
        return text
    return f"{text} ({count(low)} to {count(high)})"


def _gap(family: Mapping[str, Any]) -> str:
    gap = family.get("truth_gap")
    return plus_minus(gap) if gap else NOTHING


def _bits(family: Mapping[str, Any]) -> str:
    bits = family.get("bits_per_dim")
    return plus_minus(bits) if bits and bits["kind"] != "none" else NOTHING


def _sampled(family: Mapping[str, Any], name: str) -> Mapping[str, Any] | None:
    return (family.get("samples") or {}).get(name)


def p_value(quantity: Mapping[str, Any] | None) -> str:
    """A p-value with three decimals, never rounded to 0.

    >>> p_value({"value": 0.0001, "kind": "estimate"}), p_value({"value": 0.035, "kind": "estimate"})
    ('< .001', '.035')
    """
    if quantity is None or quantity["kind"] == "none" or quantity["value"] is None:
        return NOTHING
    return "< .001" if quantity["value"] < 0.001 else fixed(quantity["value"], 3).removeprefix("0")


def sample_cells(report: Mapping[str, Any]) -> Cells:
    """The table of samples against test rows, without rows where no family has been judged so."""

    def number(name: str) -> Any:
        return lambda f: plus_minus(_sampled(f, name) or {"kind": "none"})

    columns: list[tuple[str, Any]] = [
        ("family", label),
        ("two-sample AUC ± SE", lambda f: auc(f.get("two_sample_auc"))),
        ("MMD p", lambda f: p_value(_sampled(f, "mmd_p"))),
        ("sliced W₁, spreads ± SE", number("sliced_wasserstein")),
        ("precision ± SE", lambda f: auc(_sampled(f, "precision"))),
        ("recall ± SE", lambda f: auc(_sampled(f, "recall"))),
        ("density ± SE", number("density")),
        ("coverage ± SE", lambda f: auc(_sampled(f, "coverage"))),
    ]
    return _made(columns, [family for family in ordered(report) if family.get("samples")])


def memory_cells(report: Mapping[str, Any]) -> Cells:
    """The table of memorisation, without rows where it was asked of no family."""

    def median(name: str) -> Any:
        return lambda f: plus_minus(_sampled(f, name) or {"kind": "none"})

    columns: list[tuple[str, Any]] = [
        ("family", label),
        ("in words", memory_words),
        ("distance of samples ± SE", median("nearest_sample")),
        ("of test rows ± SE", median("nearest_test")),
        ("nearer than a test row ± SE", lambda f: auc(_sampled(f, "nearer"))),
        ("copied share ± SE", median("copied")),
        ("copied p", lambda f: p_value(_sampled(f, "copied_p"))),
    ]
    return _made(columns, [family for family in ordered(report) if _sampled(family, "copied")])


def memory_words(family: Mapping[str, Any]) -> str:
    """What the distances of samples to training rows and to test rows say together.

    >>> half = {"value": 0.5, "kind": "estimate", "low": 0.4, "high": 0.6}
    >>> memory_words({"samples": {"nearer": half, "copied_p": {"value": 0.4, "kind": "estimate"}}})
    'as near as test rows: no sign of copies'
    """
    nearer, chance = _sampled(family, "nearer") or {}, (_sampled(family, "copied_p") or {}).get("value")
    if chance is None:
        return NOTHING
    if chance <= COPYING:
        copied = (_sampled(family, "copied") or {}).get("value")
        size = "" if copied is None else f", as if {100 * min(copied, 1.0):.0f} % were copies"
        return f"nearer to training than to test rows{size}"
    if nearer.get("low") is None or nearer.get("high") is None:
        return "no sign of copies"
    if nearer["low"] > 0.5:
        return "nearer than test rows, but not by copies: too narrow a law"
    if nearer["high"] < 0.5:
        return "farther off than test rows: samples beside the data"
    return "as near as test rows: no sign of copies"


def use_cells(report: Mapping[str, Any]) -> Cells:
    """The table of what a predictor learns from samples and from real rows, without rows where none was asked."""

    def used(name: str) -> Any:
        return lambda f: _with_interval(f["use"][name])

    columns: list[tuple[str, Any]] = [
        ("family", label),
        ("in words", use_words),
        ("explained after samples", used("samples")),
        ("after real rows", used("real")),
        ("difference", used("difference")),
    ]
    judged = [f for f in ordered(report) if f.get("use") and f["use"]["difference"]["kind"] != "none"]
    return _made(columns, judged)


def use_words(family: Mapping[str, Any]) -> str:
    """Whether samples teach as much as real rows, and the column that loses most where they do not.

    >>> half = {"value": -0.3, "kind": "estimate", "low": -0.4, "high": -0.2}
    >>> use_words({"use": {"difference": half, "columns": [{"name": "age", "samples": 0.1, "real": 0.4}]}})
    'less than real rows, most of all for age (.10, not .40)'
    """
    use = family["use"]
    low, high = use["difference"].get("low"), use["difference"].get("high")
    if low is None or high is None:
        return NOTHING
    if low <= 0 <= high:
        return "not told from real rows"
    if low > 0:
        return "more than as many real rows"
    columns = [c for c in use["columns"] if c["samples"] is not None and c["real"] is not None]
    worst = max(columns, key=lambda c: c["real"] - c["samples"], default=None)
    if worst is None:
        return "less than real rows"
    said = f"{_explained(worst['samples'])}, not {_explained(worst['real'])}"
    return f"less than real rows, most of all for {one_line(worst['name'])} ({said})"


def _with_interval(quantity: Mapping[str, Any]) -> str:
    """Value and ends of the 95 % interval: where the error over rows is only a part of it."""
    low, high = quantity.get("low"), quantity.get("high")
    if quantity["value"] is None or low is None or high is None:
        return NOTHING
    return f"{fixed(quantity['value'], 2)} [{fixed(low, 2)}, {fixed(high, 2)}]"


def _explained(value: float) -> str:
    """A share that may be negative: worse than the mean."""
    return f"-{share(-value)}" if value < 0 else share(value)


def _made(columns: list[tuple[str, Any]], families: list[Mapping[str, Any]]) -> Cells:
    rows = tuple(tuple(text(family) for _, text in columns) for family in families)
    return Cells(tuple(head for head, _ in columns), rows, tuple(families))


def cells(report: Mapping[str, Any]) -> Cells:
    """The whole table; the column of truth gaps only where the law of the data is known, that of holes likewise."""
    families = ordered(report)
    known_law = any(family.get("truth_gap") for family in families)
    known_holes = any(family.get("holes") for family in families)
    measure = unit(report)
    columns: list[tuple[str, Any]] = [
        ("family", label),
        (f"log p, {measure} ± SE", lambda f: plus_minus(f["log_prob"])),
        (f"Δ to best, {measure} ± SE", lambda f: difference(f, report)),
        ("kind", kind),
    ]
    if any(family.get("bits_per_dim") for family in families):
        columns.append(("bits/dim ± SE", _bits))
    if known_law:
        columns.append((f"gap to the truth, {measure} ± SE", _gap))
    columns.append(("two-sample AUC ± SE", lambda f: auc(f.get("two_sample_auc"))))
    if any(family.get("samples") for family in families):
        columns.append(("coverage ± SE", lambda f: auc(_sampled(f, "coverage"))))
    if known_holes:
        columns.append(("holes found", holes))
    columns += [
        ("strokes", lambda f: count(f.get("strokes"))),
        ("1,000 samples", lambda f: seconds(f.get("sample_seconds_per_1000"))),
        ("fit", lambda f: seconds(f.get("fit_seconds"))),
    ]
    return _made(columns, families)
