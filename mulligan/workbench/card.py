"""``card.md``: what a model folder says of itself to a reader without mulligan."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from mulligan.catalog import FAMILIES
from mulligan.quantity import Quantity

if TYPE_CHECKING:
    from mulligan.workbench.fitted import Fitted

MOST_NAMED = 6  # columns in p(a, b, c | d)


def conditional_words(columns: Sequence[str], given: Sequence[str]) -> str:
    """What a conditional model is the law of, in words; empty where nothing is given.

    >>> conditional_words(["age", "income", "city"], ["city"])
    'city; the model is p(age, income | city): the law of the other 2 columns where city is known'
    """
    if not given:
        return ""
    others = [name for name in columns if name not in given]
    shown = ", ".join(others) if len(others) <= MOST_NAMED else "others"
    names, count = ", ".join(given), f"{len(others)} columns" if len(others) > 1 else "column"
    verb = "is" if len(given) == 1 else "are"
    return f"{names}; the model is p({shown} | {names}): the law of the other {count} where {names} {verb} known"


def card_text(fitted: Fitted) -> str:
    """The model card: what it is, what it was fitted to, how good it is, how it was made."""
    card = fitted.card
    row, data, split = card.get("row", {}), card.get("data", {}), card.get("split", {})
    lines = [f"# {fitted.label}", "", f"A {fitted.family} model made by mulligan. log p: {fitted.log_prob_kind}."]
    if card.get("failed"):
        lines += [
            "",
            f"**Its training failed**: {card['failed']}. This is its last healthy state, not scored on test rows.",
        ]
    if row:
        lines += ["", f"- Test: {Quantity.from_json(row['log_prob'])}"]
        auc = row.get("two_sample_auc")
        lines += [f"- Two-sample AUC: {Quantity.from_json(auc)}"] if auc else []
        lines += [f"- Health: {line}" for line in row["health"]]
    known = conditional_words(fitted.schema.names, fitted.given)
    lines += (
        ["", f"Given: {known}. To sample it needs their values; log p of a row is that of the others given them."]
        if known
        else []
    )
    if data:
        lines += ["", "## Data", "", f"- {data['name']}, {data['rows']:,} rows, sha256 {data['sha256']}"]
        lines += [f"- log p is a {data['measure']}, in nats", *(f"- {note}" for note in data["notes"])]
        lines += [
            f"- Split: train {split['train']}, select {split['select']}, test {split['test']} (seed {split['seed']})"
        ]
    entry = FAMILIES.get(fitted.family)
    if entry is not None and entry.holds_rows:
        lines += ["", "**This folder contains the training rows**: do not share it where they may not be shared."]
    made = card.get("reproduce", {}).get("command")
    lines += ["", "## Made by", "", f"    {made}"] if made else []
    return "\n".join(lines) + "\n"
