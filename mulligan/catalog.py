"""The one list of what exists: families with their options, laws, tables, efforts. Standard library only.

Everything that names a family reads it here: Python arguments, command-line flags, help texts, messages, the table of
``mulligan families`` and the docs. A new family adds one entry to ``FAMILIES``; a test compares every entry with what
``isinstance`` says of the models it makes.
"""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

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
    log p is known; ``strokes`` is network evaluations a sample and ``balls`` the chains (the golf columns). ``make``
    names the function that makes its recipe; ``in_compare`` puts it into a comparison without being asked;
    ``most_columns`` is the greatest number of encoded columns that it can take; ``conditional`` says that it can model
    some columns given others.
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
    make: str
    options: tuple[Option, ...] = ()
    baseline: bool = False
    in_compare: bool = True
    most_columns: int | None = None
    conditional: bool = False

    @property
    def by_gradient(self) -> bool:
        """Whether it is trained by gradient: such a fit keeps checkpoints and can be resumed."""
        return all(option in self.options for option in _TRAINING)

    def recipe(self, variant: str | None, options: Mapping[str, Any], effort: Effort) -> Any:
        """The object that fits this family (imports its module)."""
        module, function = self.make.split(":")
        maker: Callable[..., Any] = getattr(importlib.import_module(module), function)
        return maker(variant=variant, effort=effort, **options)

    def parse_options(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """All options with their values; raises UsageError for an unknown name or a value out of its range."""
        known = {option.name: option for option in self.options}
        for name in given:
            if name not in known:
                listed = ", ".join(known) or "none"
                raise UsageError(f"{self.name} has no option '{name}'{near(name, known)}", do=f"options: {listed}")
        return {name: option.parse(given.get(name), f"{self.name}.{name}") for name, option in known.items()}


_REGULARISATION = Option(
    "regularisation", "float", 1e-6, "added to every variance, in units of the standardised columns", 0.0, 1.0
)

_TRAINING = (
    Option("decay", "float", None, "decay of the weight matrices", 0.0, 10.0),
    Option("rate", "float", None, "peak learning rate", 1e-6, 1.0),
    Option("batch", "integer", 512, "rows of a step", 1, 1_000_000),
)

_FAMILIES = (
    Family(
        "gaussian",
        ("normal", "mvn"),
        (),
        ("Density", "Sampler"),
        log_p="exact",
        strokes="0",
        balls="1",
        good_at="one cloud; a baseline that takes no time",
        watch_for="covers all modes with one",
        make="mulligan.families.gaussian:make",
        baseline=True,
    ),
    Family(
        "mixture",
        ("gmm", "gaussian-mixture", "em"),
        (),
        ("Density", "Sampler"),
        log_p="exact",
        strokes="0",
        balls="1",
        good_at="several clouds, small tables, a table of parameters",
        watch_for="thin curved supports need many parts",
        make="mulligan.families.mixture:make",
        options=(
            Option("parts", "integers", None, "number of Gaussians; several are compared on select", 1, 512),
            Option(
                "covariance", "choice", None, "shape of the parts", choices=("full", "tied", "diagonal", "spherical")
            ),
            Option("restarts", "integer", None, "starts of EM for each choice", 1, 100),
            _REGULARISATION,
        ),
    ),
    Family(
        "kde",
        ("kernel", "kernel-density", "parzen"),
        (),
        ("Density", "Sampler"),
        log_p="exact",
        strokes="0",
        balls="1",
        good_at="any shape in one to three columns",
        watch_for="many columns; the model is the training rows",
        make="mulligan.families.kde:make",
        options=(
            Option("bandwidth", "float", None, "kernel width in units of the standardised columns", 1e-4, 100.0),
            Option("kernel", "choice", None, "shape of the kernel", choices=("spherical", "full")),
        ),
        baseline=True,
    ),
    Family(
        "factor",
        ("ppca", "factor-analysis", "fa"),
        ("analysis", "ppca"),
        ("Density", "Sampler"),
        log_p="exact",
        strokes="0",
        balls="1",
        good_at="many correlated columns, latent variables",
        watch_for="one cloud only",
        make="mulligan.families.factor:make",
        options=(
            Option("factors", "integers", None, "number of latent factors; several are compared on select", 0, 512),
        ),
    ),
    Family(
        "histogram",
        ("counting", "bins"),
        (),
        ("Density", "Sampler"),
        log_p="exact",
        strokes="0",
        balls="1",
        good_at="one to three columns, counting",
        watch_for="empty cells grow with every column",
        make="mulligan.families.histogram:make",
        options=(
            Option("bins", "integers", None, "cells on each axis; several are compared on select", 2, 1000),
            Option("pseudo_count", "float", None, "added to the count of every cell", 1e-6, 100.0),
        ),
        most_columns=3,
    ),
    Family(
        "autoregressive",
        ("ar", "made", "rnade"),
        (),
        ("Density", "Sampler"),
        log_p="exact",
        strokes="columns",
        balls="1",
        good_at="tables of mixed columns: exact log p of counts, categories and capped values",
        watch_for="draws one column at a time; the order of the columns matters a little",
        make="mulligan.families.autoregressive:make",
        options=(
            Option("order", "names", None, "columns to begin with, in this order; the others follow as they are"),
            Option("width", "integer", 128, "hidden units of each layer of the masked network", 1, 4096),
            Option("depth", "integer", 2, "residual blocks of the masked network", 0, 16),
            Option("parts", "integer", 16, "parts of the mixture that each number's conditional law is", 1, 256),
            *_TRAINING,
        ),
        conditional=True,
    ),
    Family(
        "flow",
        ("normalizing-flow", "normalising-flow", "nsf"),
        ("coupling", "autoregressive"),
        ("Density", "Sampler"),
        log_p="exact",
        strokes="1",
        balls="1",
        good_at="curved and correlated columns, rows by the thousand; log p and samples in one pass",
        watch_for="separate clouds are joined by thin bridges; few rows over-fit",
        make="mulligan.families.flow:make",
        options=(
            Option("layers", "integer", 6, "layers, each a mixing and a spline", 1, 64),
            Option("width", "integer", 64, "units of each hidden layer of the conditioning networks", 1, 4096),
            Option("depth", "integer", 2, "hidden layers of the conditioning networks", 0, 16),
            Option("bins", "integer", 16, "bins of each spline", 2, 128),
            Option("bound", "float", 5.0, "splines act on [-bound, bound] of the standardised columns", 1.0, 100.0),
            *_TRAINING,
        ),
        conditional=True,
    ),
    Family(
        "resample",
        ("bootstrap",),
        (),
        ("Sampler",),
        log_p="none",
        strokes="0",
        balls="1",
        good_at="what perfect-looking samples without a model score",
        watch_for="repeats training rows; no log p",
        make="mulligan.families.resample:make",
        baseline=True,
    ),
)
FAMILIES: Mapping[str, Family] = MappingProxyType({family.name: family for family in _FAMILIES})

# Names that mean a file wherever a file is asked for; an existing file wins.
LAWS: tuple[str, ...] = (
    "eight-gaussians",
    "grid-gaussians",
    "moons",
    "circles",
    "rings",
    "checkerboard",
    "spirals",
    "pinwheel",
    "banana",
    "funnel",
    "double-well",
    "rosenbrock",
    "ising-3x3",
    "potts-2x3",
    "rbm-6x4",
)
TABLES: tuple[str, ...] = ("penguins", "digits", "iris", "wine", "breast_cancer", "diabetes")


def find_family(name: str) -> tuple[Family, str | None]:
    """The family and variant that ``name`` or ``name:variant`` means; aliases are understood.

    >>> find_family("gmm")[0].name, find_family("factor:ppca")[1]
    ('mixture', 'ppca')

    Raises UsageError for an unknown family or variant, with the nearest name.
    """
    stem, _, variant = name.partition(":")
    stem = stem.strip().lower()
    aliases = {alias: family for family in FAMILIES.values() for alias in family.aliases}
    family = FAMILIES.get(stem) or aliases.get(stem)
    if family is None:
        hint = near(stem, [*FAMILIES, *aliases])
        raise UsageError(f"no family '{stem}'{hint}", do=f"families: {', '.join(FAMILIES)}")
    if stem in family.variants and not variant:
        variant = stem
    if variant and variant not in family.variants:
        listed = ", ".join(family.variants) or "none"
        raise UsageError(
            f"{family.name} has no variant '{variant}'{near(variant, family.variants)}", do=f"variants: {listed}"
        )
    return family, variant or None


def near(name: str, known: Iterable[str]) -> str:
    """``. Did you mean x?``, or nothing where no known name is close."""
    close = difflib.get_close_matches(str(name), list(known), n=1, cutoff=0.6)
    return f". Did you mean {close[0]}?" if close else ""


def parse_settings(settings: Iterable[str]) -> dict[str, dict[str, str]]:
    """``["mixture.parts=8"]`` to ``{"mixture": {"parts": "8"}}``; raises UsageError for another form."""
    parsed: dict[str, dict[str, str]] = {}
    for setting in settings:
        path, equals, value = setting.partition("=")
        family_name, dot, option = path.partition(".")
        if not (equals and dot and option):
            raise UsageError(f"--set is '{setting}'", do="--set FAMILY.OPTION=VALUE, for example --set mixture.parts=8")
        family, _ = find_family(family_name)
        parsed.setdefault(family.name, {})[option.replace("-", "_")] = value
    return parsed


def _whole(value: Any) -> int:
    number = int(value)
    if isinstance(value, float) and number != value:
        raise ValueError(value)
    return number
