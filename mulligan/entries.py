"""What an entry of the catalog is: a family with its options, and how their values are read. Standard library only."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from mulligan.errors import UsageError

Effort = Literal["quick", "standard", "thorough"]
EFFORTS: tuple[Effort, ...] = ("quick", "standard", "thorough")


@dataclass(frozen=True)
class Option:
    """One option of a family: its type, range, default and help, declared once.

    ``kind`` is ``integer``, ``float``, ``choice``, or ``integers`` or ``names`` (comma-separated lists). A default of
    None means "chosen on the select rows".
    """

    name: str
    kind: Literal["integer", "float", "choice", "integers", "names"]
    default: Any
    help: str
    low: float | None = None
    high: float | None = None
    choices: tuple[str, ...] = ()

    def parse(self, value: Any, where: str) -> Any:
        """The value, checked; a string (from the command line) is read. Raises UsageError with the expected range."""
        if value is None or value == "auto":
            return self.default
        try:
            parsed = self._read(value)
        except (TypeError, ValueError):
            raise self._refusal(value, where) from None
        items = parsed if isinstance(parsed, tuple) else (parsed,)
        if not items or not all(self._inside(item) for item in items):
            raise self._refusal(value, where)
        return parsed

    def _read(self, value: Any) -> Any:
        if self.kind == "choice":
            return str(value)
        if self.kind == "names":
            return tuple(item.strip() for item in (value.split(",") if isinstance(value, str) else map(str, value)))
        if self.kind == "integers":
            items = value.split(",") if isinstance(value, str) else ([value] if isinstance(value, int) else value)
            return tuple(_whole(item) for item in items)
        return _whole(value) if self.kind == "integer" else float(value)

    def _inside(self, item: Any) -> bool:
        if self.kind == "choice":
            return item in self.choices
        if self.kind == "names":
            return bool(item)
        return (self.low is None or item >= self.low) and (self.high is None or item <= self.high)

    def _refusal(self, value: Any, where: str) -> UsageError:
        return UsageError(f"{self.name} is {value!r}; expected {self.expected}", where, do=self.help)

    @property
    def expected(self) -> str:
        """In words, what may be given."""
        if self.kind == "choice":
            return f"one of {', '.join(self.choices)}"
        noun = {"integer": "a whole number", "float": "a number", "integers": "whole numbers separated by commas"}
        noun["names"] = "names of columns separated by commas"
        low = "" if self.low is None else f" from {self.low:g}"
        high = "" if self.high is None else f" to {self.high:g}"
        return noun[self.kind] + low + high


@dataclass(frozen=True)
class Family:
    """One family of models, as every surface describes it.

    ``capabilities`` are the contracts of ``mulligan.core`` that its fitted model fulfils; ``log_p`` says in words how
    log p is known; ``strokes`` is network evaluations a sample and ``balls`` the chains (the golf columns). ``make`` is
    the function that makes its recipe, or names it ("module:function"); ``classes`` are the modules that its model is
    made of ("module:Class"): a model folder may name these and no others. ``in_compare`` puts it into a comparison
    without being asked; ``most_columns`` is the greatest number of encoded columns that it can take; ``conditional`` says
    that it can model some columns given others, ``holds_rows`` that its model contains the training rows,
    ``binary_only`` that every column must be binary, ``incomplete`` that it fits rows with empty cells as they are,
    ``weighted`` that rows may count more or less than once.
    """

    name: str
    aliases: tuple[str, ...]
    variants: tuple[str, ...]
    capabilities: tuple[str, ...]
    log_p: str
    strokes: str
    balls: str
    good_at: str
    watch_for: str
    make: str | Callable[..., Any]
    options: tuple[Option, ...] = ()
    baseline: bool = False
    in_compare: bool = True
    most_columns: int | None = None
    conditional: bool = False
    holds_rows: bool = False
    binary_only: bool = False
    incomplete: bool = False
    weighted: bool = False
    classes: tuple[str, ...] = ()

    @property
    def by_gradient(self) -> bool:
        """Whether it is trained by gradient: such a fit keeps checkpoints and can be resumed."""
        return all(option in self.options for option in DESCENT)

    def recipe(self, variant: str | None, options: Mapping[str, Any], effort: Effort) -> Any:
        """The object that fits this family (imports its module)."""
        maker = named_object(self.make) if isinstance(self.make, str) else self.make
        return maker(variant=variant, effort=effort, **options)

    def parse_options(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """All options with their values; raises UsageError for an unknown name or a value out of its range."""
        known = {option.name: option for option in self.options}
        for name in given:
            if name not in known:
                listed = ", ".join(known) or "none"
                raise UsageError(f"{self.name} has no option '{name}'{near(name, known)}", do=f"options: {listed}")
        return {name: option.parse(given.get(name), f"{self.name}.{name}") for name, option in known.items()}


class Brought(Protocol):
    """What a caller may bring in place of a family's name: it has an entry of its own (``mulligan.Own``)."""

    @property
    def entry(self) -> Family: ...


# The options of every family that is trained by gradient, and of those that have weight matrices.
DESCENT = (
    Option("rate", "float", None, "peak learning rate", 1e-6, 1.0),
    Option("batch", "integer", None, "rows of a step", 1, 1_000_000),
)
TRAINING = (Option("decay", "float", None, "decay of the weight matrices", 0.0, 10.0), *DESCENT)


def named_object(place: str) -> Any:
    """The function or class that "module:name" means (imports the module).

    >>> named_object("math:isqrt")(10)
    3
    """
    module, name = place.split(":")
    return getattr(importlib.import_module(module), name)


def near(name: str, known: Iterable[str]) -> str:
    """``. Did you mean x?``, or nothing where no known name is close."""
    close = difflib.get_close_matches(str(name), list(known), n=1, cutoff=0.6)
    return f". Did you mean {close[0]}?" if close else ""


def _whole(value: Any) -> int:
    number = int(value)
    if isinstance(value, float) and number != value:
        raise ValueError(value)
    return number
