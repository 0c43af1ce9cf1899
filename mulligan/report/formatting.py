"""How the scorecard writes numbers: as many digits as the error allows, and never a number that is not there."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

NOTHING = "–"
UNSEEN = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def one_line(text: object) -> str:
    """Text from outside (a column's name, a reason) as one harmless line.

    Control characters could move the cursor of a terminal, direction marks could reorder a line, and half a surrogate
    pair cannot be written to a file: each becomes a visible replacement character; line breaks become spaces.

    >>> one_line("a\\x1b[31mb")
    'a\ufffd[31mb'
    """
    return UNSEEN.sub("\ufffd", re.sub(r"[\t\n\v\f\r\u2028\u2029]+", " ", str(text)))


def decimals(error: float | None) -> int:
    """Decimals that show the error with one digit, or two where the first is 1.

    >>> decimals(0.094), decimals(0.0123), decimals(3.2), decimals(45.0)
    (2, 3, 1, 0)
    """
    if error is None or not math.isfinite(error) or error <= 0:
        return 3
    if error >= 1:
        return 1 if error < 10 else 0
    place = -math.floor(math.log10(error))
    return min(8, max(2, place + (error * 10**place < 2)))


def fixed(value: float | None, digits: int) -> str:
    """A number with so many decimals; a null (not finite) says so.

    >>> fixed(-0.001, 2), fixed(None, 2)
    ('0.00', 'not finite')
    """
    if value is None or not math.isfinite(value):
        return "not finite"
    text = f"{value:,.{digits}f}"
    return text.removeprefix("-") if not text.strip("-0.,") else text


def plus_minus(quantity: Mapping[str, Any], *, signed: bool = False) -> str:
    """Value ± standard error with the sign of a bound in front; the reason's place is elsewhere.

    >>> plus_minus({"value": -3.744, "kind": "lower bound", "stderr": 0.1})
    '≥ -3.74 ± 0.10'
    """
    if quantity["kind"] == "none":
        return NOTHING
    value, error = quantity["value"], quantity.get("stderr")
    if value is None or not math.isfinite(value):
        return "not finite"
    digits = decimals(error)
    text = fixed(value, digits)
    if signed and value > 0 and text.strip("0.,"):
        text = f"+{text}"
    bound = {"lower bound": "≥ ", "upper bound": "≤ "}.get(quantity["kind"], "")
    return f"{bound}{text}" + ("" if error is None else f" ± {fixed(error, digits)}")


def interval(quantity: Mapping[str, Any]) -> str:
    """The 95 % interval in words; the open side of a bound is not invented.

    >>> interval({"value": -0.27, "kind": "exact", "stderr": 0.06, "low": -0.39, "high": -0.15})
    '-0.39 to -0.15'
    >>> interval({"value": -0.27, "kind": "lower bound", "stderr": 0.06, "low": -0.37, "high": None})
    'at least -0.37'
    """
    low, high, digits = quantity.get("low"), quantity.get("high"), decimals(quantity.get("stderr"))
    if low is not None and high is not None:
        return f"{fixed(low, digits)} to {fixed(high, digits)}"
    if low is not None:
        return f"at least {fixed(low, digits)}"
    return "no interval" if high is None else f"at most {fixed(high, digits)}"


def share(value: float | None) -> str:
    """A number between 0 and 1, as in the tables of statistics.

    >>> share(0.551), share(1.0)
    ('.55', '1.00')
    """
    return fixed(value, 2).removeprefix("0") if value is not None else "not finite"


def auc(quantity: Mapping[str, Any] | None) -> str:
    """AUC ± standard error."""
    if quantity is None or quantity["kind"] == "none":
        return NOTHING
    error = quantity.get("stderr")
    return share(quantity["value"]) + ("" if error is None else f" ± {share(error)}")


def seconds(value: float | None) -> str:
    """A duration with its unit.

    >>> seconds(0.003), seconds(0.62), seconds(34.2), seconds(131)
    ('< 0.01 s', '0.62 s', '34 s', '2 min 11 s')
    """
    if value is None or not math.isfinite(value):
        return NOTHING
    if value < 0.01:
        return "0 s" if value == 0 else "< 0.01 s"
    if value < 10:
        return f"{value:.2f} s"
    if value < 120:
        return f"{value:.0f} s"
    return f"{int(value) // 60:,} min {int(value) % 60} s"


def count(value: float | None) -> str:
    """A whole number with thousands separated.

    >>> count(34816), count(None)
    ('34,816', '–')
    """
    if value is None or not math.isfinite(value):
        return NOTHING
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:,.1f}"


def listed(items: list[str]) -> str:
    """Words joined as in a sentence.

    >>> listed(["a", "b", "c"])
    'a, b and c'
    """
    if len(items) < 2:
        return "".join(items)
    return f"{', '.join(items[:-1])} and {items[-1]}"
