"""Who hears of progress. The library says things here; the command line shows them; by default nobody listens."""

from __future__ import annotations

from typing import Any

from mulligan.errors import UsageError


class Talk:
    """Hears and does nothing; the command line overrides what it wants to show."""

    def note(self, text: str) -> None:
        """Something worth knowing."""

    def warn(self, text: str) -> None:
        """Something that may spoil the result."""

    def family_begins(self, label: str, index: int, of: int) -> None:
        """Family number ``index`` of ``of`` is about to be fitted."""

    def pulse(self, phase: str, step: int, steps: int, latest: dict[str, float]) -> None:
        """A run is at ``step`` of ``steps``; ``latest`` are its last numbers."""

    def family_ends(self, row: dict[str, Any]) -> None:
        """A family's row of the report is final."""


def parse_budget(text: str | float | None) -> float | None:
    """Seconds of "60s", "5m", "1.5h" or a number; None stays None. Raises UsageError otherwise.

    >>> parse_budget("1.5m")
    90.0
    """
    if text is None:
        return None
    units = {"s": 1.0, "m": 60.0, "h": 3600.0}
    stripped = str(text).strip().lower()
    scale = units.get(stripped[-1:], 1.0)
    number = stripped[:-1] if stripped[-1:] in units else stripped
    try:
        seconds = float(number) * scale
    except ValueError:
        seconds = -1.0
    if not 0 < seconds < float("inf"):
        raise UsageError(f"budget is '{text}'; expected a time above 0", do="--budget 60s, 5m or 1.5h")
    return seconds
