"""How one number is drawn on an axis, so that its kind is seen: a value, an estimate, a bracket, or a bound.

A dot is a value (hollow: an estimate) with its 95 % interval as a line. A bracket is a bar between its two bounds, the line
being what the rows add. A bound has its interval on one side only; on the other a dashed line ends in an open arrow, which
points to where the truth may be. A value beyond the axis is a triangle at its edge, with the number.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mulligan.report.formatting import fixed
from mulligan.report.svg import INK, MODEL, Axis, Drawing

ARROW = 26.0  # pixels from a bound's value to the tip of its arrow
BAR = "#a9cbe6"


def ends_of(quantity: Mapping[str, Any]) -> list[float]:
    """All numbers of a quantity that its mark shows: value, interval, and the bounds of a bracket.

    >>> ends_of({"value": 1.0, "kind": "lower bound", "low": 0.5, "high": None})
    [1.0, 0.5]
    """
    names = ("value", "low", "high", *(("method_low", "method_high") if quantity["kind"] == "bracket" else ()))
    return [quantity[name] for name in names if quantity.get(name) is not None]


def open_side(quantity: Mapping[str, Any]) -> int:
    """The direction in which a bound leaves the truth open: 1 to higher values, −1 to lower ones, 0 for other kinds.

    >>> open_side({"kind": "lower bound"}), open_side({"kind": "upper bound"}), open_side({"kind": "bracket"})
    (1, -1, 0)
    """
    return {"lower bound": 1, "upper bound": -1}.get(quantity["kind"], 0)


def mark(drawing: Drawing, scale: Axis, across: float, quantity: Mapping[str, Any], *, upright: bool = False) -> None:
    """Draw a quantity on ``scale`` at the pixel ``across`` the axis: on a horizontal one, or an ``upright`` one."""

    def at(along: float, aside: float = 0.0) -> tuple[float, float]:
        return (across + aside, along) if upright else (along, across + aside)

    def line(start: float, end: float, width: float, dash: str = "") -> None:
        drawing.line(*at(start), *at(end), MODEL, width, dash)

    value, low, high = quantity["value"], quantity.get("low"), quantity.get("high")
    if not scale.holds(value):
        _beyond(drawing, scale, across, value, upright)
        return
    middle = scale.at(value)
    start = middle if low is None else scale.at(max(scale.low, low))
    end = middle if high is None else scale.at(min(scale.high, high))
    line(start, end, 2)
    least, most = quantity.get("method_low"), quantity.get("method_high")
    if quantity["kind"] == "bracket" and least is not None and most is not None:
        first, last = scale.at(max(scale.low, least)), scale.at(min(scale.high, most))
        drawing.shape([at(first, -4.5), at(last, -4.5), at(last, 4.5), at(first, 4.5)], BAR)
        for edge in (first, last):
            drawing.line(*at(edge, -5.5), *at(edge, 5.5), MODEL, 1.8)
    side = open_side(quantity)
    if side:
        # The pixels of an axis may run against its values, as those of an upright one do.
        step = side * (1 if scale.end > scale.start else -1)
        tip = middle + ARROW * step
        line(middle, tip - 2 * step, 1.6, "3 2.4")
        drawing.path([at(tip - 6 * step, -4.5), at(tip), at(tip - 6 * step, 4.5)], MODEL, 1.8, role="open")
    drawing.dot(*at(middle), hollow=quantity["kind"] in ("estimate", "bracket"))


def _beyond(drawing: Drawing, scale: Axis, across: float, value: float, upright: bool) -> None:
    """A triangle at the edge of the axis that points outwards, with the value beside it."""
    below = value < scale.low
    edge = scale.start if below else scale.end
    inward = (1 if scale.end > scale.start else -1) * (1 if below else -1)
    corners = [(edge, 0.0), (edge + 7 * inward, -4.0), (edge + 7 * inward, 4.0)]
    drawing.shape([(across + b, a) if upright else (a, across + b) for a, b in corners], MODEL)
    text = fixed(value, 1).replace("-", "−")
    if upright:
        drawing.text(across + 8, edge + 8 * inward + 4, text, color=INK)
    else:
        drawing.text(edge + 11 * inward, across + 4, text, anchor="start" if inward > 0 else "end", color=INK)
