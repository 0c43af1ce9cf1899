"""Experiments: pure functions of typed parameters and a seed that return a ``Recording``.

Definition. An experiment has keyword parameters only, each with a default and a type: ``int``, ``float``, ``bool``, or a
``Literal`` of texts; a number may have a range, ``Annotated[int, Range(1, 100)]``. Its last parameter is ``seed``. The
wrapper reads and checks the parameters (also texts of the command line), runs in float64, and signs the recording. A
``trained`` experiment takes minutes: at its defaults the wrapper returns the recording that ships with the package, unless
it is asked to run ``again``.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from difflib import get_close_matches
from functools import wraps
from importlib.resources import files
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

from mulligan.errors import UsageError
from mulligan.lab.recording import Recording


@dataclass(frozen=True)
class Range:
    """The values that a number may have, ends included.

    >>> Range(1, 5).holds(5), Range(1, 5).holds(6)
    (True, False)
    """

    low: float
    high: float

    def holds(self, value: float) -> bool:
        return self.low <= value <= self.high


def experiment(chapter: int, title: str, *, trained: bool = False) -> Callable[[Callable[..., Recording]], Any]:
    """The decorator of an experiment; see the module. The function gets ``chapter``, ``title``, ``trained``.

    Raises UsageError, when it is called, for an unknown parameter or a value that is out of range or of another type.
    """

    def wrap(function: Callable[..., Recording]) -> Any:
        @wraps(function)
        def run(*, again: bool = False, **given: Any) -> Recording:
            import jax

            chosen = read_parameters(run, given)
            if trained and not again and chosen == defaults(run):
                return shipped(function.__name__)
            with jax.enable_x64(True):
                found = function(**chosen)
            return replace(found, name=function.__name__, chapter=chapter, title=title, parameters=chosen)

        run.chapter, run.title, run.trained = chapter, title, trained  # type: ignore[attr-defined]
        return run

    return wrap


def defaults(function: Callable[..., Any]) -> dict[str, Any]:
    """Parameter → default, in order."""
    return {name: each.default for name, each in inspect.signature(function).parameters.items()}


def read_parameters(function: Callable[..., Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """All parameters of an experiment, the given ones read and checked, the others at their defaults. Raises UsageError."""
    known, hints = defaults(function), get_type_hints(function, include_extras=True)
    name = getattr(function, "__name__", "it")
    for key in given:
        if key not in known:
            near = get_close_matches(key, known, n=1, cutoff=0.6)
            which = f". Did you mean {near[0]}?" if near else ""
            has = "; ".join(f"{each}: {expected(hints[each])}" for each in known)
            raise UsageError(f"'{name}' has no parameter '{key}'{which}", "", f"It has {has}", "--set KEY=VALUE")
    return {key: _read(key, given[key], hints[key]) if key in given else value for key, value in known.items()}


def expected(hint: Any) -> str:
    """What values a parameter takes, in words.

    >>> expected(Annotated[int, Range(1, 9)]), expected(Literal["ode", "sde"])
    ('integer from 1 to 9', 'ode or sde')
    """
    kind, limits = _parts(hint)
    if get_origin(kind) is Literal:
        return " or ".join(map(str, get_args(kind)))
    word = {int: "integer", float: "number", bool: "true or false"}[kind]
    return word if limits is None else f"{word} from {limits.low:g} to {limits.high:g}"


def _parts(hint: Any) -> tuple[Any, Range | None]:
    if get_origin(hint) is Annotated:
        kind, *rest = get_args(hint)
        return kind, next((each for each in rest if isinstance(each, Range)), None)
    return hint, None


def _read(key: str, value: Any, hint: Any) -> Any:
    """One value of the type that the hint names."""
    kind, limits = _parts(hint)
    refusal = UsageError(f"{key}={value} is refused", "", f"expected {expected(hint)}", f"--set {key}=VALUE")
    if get_origin(kind) is Literal:
        if value not in get_args(kind):
            raise refusal
        return value
    if kind is bool:
        known = {"true": True, "false": False, "1": True, "0": False}
        found = value if isinstance(value, bool) else known.get(str(value).lower())
        if found is None:
            raise refusal
        return found
    try:
        found = kind(value) if isinstance(value, str) or kind is float else value.__index__()
    except (TypeError, ValueError, AttributeError):
        raise refusal from None
    if isinstance(value, bool) or (limits is not None and not limits.holds(found)):
        raise refusal
    return found


def shipped(name: str) -> Recording:
    """The recording at default parameters that comes with the package (made by ``make recordings``).

    Raises UsageError if none ships.
    """
    from mulligan.lab.storage import load_recording

    place = files("mulligan.lab") / "recordings" / f"{name}.npz"
    if not re.fullmatch(r"\w+", name) or not place.is_file():
        raise UsageError(f"no recording of '{name}' ships with this package", "", "", f"mulligan lab {name} --again")
    return load_recording(str(place))
