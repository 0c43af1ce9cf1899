"""Whether a fit is asked for what there is: efforts, steps, and what its family can do. Standard library only."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from mulligan.catalog import EFFORTS, FAMILIES, Family, near
from mulligan.errors import DataError, UsageError


def check_settings(effort: str, steps: int | None) -> None:
    """Raises UsageError for an effort or a number of steps that does not exist."""
    if effort not in EFFORTS:
        raise UsageError(f"effort is '{effort}'{near(effort, EFFORTS)}", do=f"one of {', '.join(EFFORTS)}")
    if steps is not None and steps < 1:
        raise UsageError(f"steps is {steps}; expected a whole number from 1")


def check_watch(watch: Callable[..., Any] | Sequence[Callable[..., Any]]) -> tuple[Callable[..., Any], ...]:
    """The callbacks, also where one comes without a list. Raises UsageError for what cannot be called, or a bad ``every``.

    >>> check_watch(max)
    (<built-in function max>,)
    """
    callbacks = tuple(watch) if isinstance(watch, Sequence) else (watch,)
    for callback in callbacks:
        every = getattr(callback, "every", 1)
        if not callable(callback):
            raise UsageError(f"watch holds {callback!r}", do="watch=[f] with f(step, model, history)")
        if isinstance(every, bool) or not isinstance(every, int) or every < 1:
            raise UsageError(f"every of a callback is {every!r}; expected a whole number of steps from 1")
    return callbacks


def check_incomplete(family: Family, rows: int) -> None:
    """Raises DataError where ``rows`` rows have empty cells and the family cannot be fitted to such rows."""
    if rows and not family.incomplete:
        able = ", ".join(name for name, other in FAMILIES.items() if other.incomplete)
        raise DataError(
            f"{family.name} cannot be fitted to rows with empty cells",
            f"{rows:,} such rows",
            "It needs every cell of a row",
            f"--missing drop, or a family that can: {able}",
        )


def check_able(family: Family, given: Sequence[str], checkpoints: bool, watch: bool = False) -> None:
    """Raises UsageError where a family is asked for p(others | given), checkpoints or callbacks, and has none.

    >>> from mulligan.catalog import find_family
    >>> check_able(find_family("flow")[0], ["kind"], checkpoints=True)
    """
    if given and not family.conditional:
        able = ", ".join(name for name, other in FAMILIES.items() if other.conditional)
        raise UsageError(
            f"{family.name} cannot be given columns: it models all of them", do=f"families that can: {able}"
        )
    if watch and not family.by_gradient:
        able = ", ".join(name for name, other in FAMILIES.items() if other.by_gradient)
        what = f"{family.name} is not trained by gradient: it has no steps for watch to look at"
        raise UsageError(what, do=f"families that have: {able}")
    if checkpoints and not family.by_gradient:
        able = ", ".join(name for name, other in FAMILIES.items() if other.by_gradient)
        what = f"{family.name} keeps no checkpoints: a fit of it that was stopped starts again"
        raise UsageError(what, f"families that can be resumed: {able}", do="leave --resume out")
