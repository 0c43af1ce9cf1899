"""The flags that several verbs share, each declared once, and the decorator that gives them to a verb.

A group of flags is a frozen dataclass whose fields are Typer options. ``takes_flags`` replaces each parameter of a verb
that is annotated with such a class by the class's flags, and hands the verb the filled object.
"""

from __future__ import annotations

import csv
import inspect
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_type_hints

import typer

from mulligan.errors import UsageError

if TYPE_CHECKING:
    from mulligan.data.table import ReadOptions

Missing = Literal["refuse", "drop", "model"]
Binarise = Literal["half", "draw", "redraw"]
Listed = list[str] | None


def _option(*names: str, metavar: str | None = None, **settings: Any) -> Any:
    return typer.Option(*names, metavar=metavar, show_default=settings.pop("show_default", False), **settings)


@dataclass(frozen=True)
class Common:
    """Flags of every verb; ``command`` is the whole command line as it was typed."""

    json: Annotated[bool, _option("--json", help="The result as JSON on stdout (a non-finite number is null).")] = False
    quiet: Annotated[bool, _option("--quiet", "-q", help="No talk on stderr but warnings and errors.")] = False
    debug: Annotated[bool, _option("--debug", help="Show the traceback of an error.")] = False
    command: str = "mulligan"


@dataclass(frozen=True)
class FileFlags:
    """How to read a file: the flags of ``mulligan.data.table.ReadOptions`` that hold for rows of any schema."""

    missing: Annotated[
        Missing, _option("--missing", help="Empty cells: refuse (default), drop those rows, or model.")
    ] = "refuse"
    na: Annotated[Listed, _option("--na", metavar="A,B", help="Texts that mean an empty cell, such as n/a,-.")] = None
    rename: Annotated[Listed, _option("--rename", metavar="OLD=NEW", help="Other names for columns.")] = None
    sep: Annotated[str | None, _option("--sep", metavar="CHAR", help="Separator of a CSV (guessed and said).")] = None
    decimal: Annotated[
        str | None, _option("--decimal", metavar="CHAR", help="Decimal sign of a CSV (guessed and said).")
    ] = None
    header: Annotated[
        bool | None, _option("--header/--no-header", help="Whether the first row holds names (guessed and said).")
    ] = None
    format: Annotated[
        str | None, _option("--format", metavar="FORMAT", help="csv, parquet, npy or npz (told by the first bytes).")
    ] = None
    resize: Annotated[
        int | None, _option("--resize", metavar="N", min=1, help="Pictures: the middle square, as N x N pixels.")
    ] = None
    grey: Annotated[bool, _option("--grey", help="Pictures: colour read as grey.")] = False
    binarise: Annotated[
        Binarise | None,
        _option(
            "--binarise", help="Pictures: two levels, white from half on, or drawn with the brightness (once; anew)."
        ),
    ] = None
    levels: Annotated[
        int | None, _option("--levels", metavar="N", min=2, max=256, help="Pictures: levels of a pixel, if not 256.")
    ] = None

    def options(self, seed: int = 0) -> ReadOptions:
        """The ``ReadOptions`` that these flags mean; ``seed`` draws the rows of ``--rows``."""
        from mulligan.data.table import ReadOptions

        return ReadOptions(
            sep="\t" if self.sep in ("\\t", "tab") else self.sep,
            decimal=self.decimal,
            format=self.format,
            header=self.header,
            na=listed(self.na),
            missing=self.missing,
            rename=pairs(self.rename, "--rename", "NEW"),
            seed=seed,
            resize=self.resize,
            grey=self.grey,
            binarise=self.binarise,
            levels=self.levels,
        )


@dataclass(frozen=True)
class Reading(FileFlags):
    """How to read a table that is to be fitted, and how to treat its columns: all of ``ReadOptions``."""

    rows: Annotated[
        int | None,
        _option("--rows", metavar="N", min=1, help="At most N rows of a file, by a stated draw; N draws of a law."),
    ] = None
    drop: Annotated[Listed, _option("--drop", metavar="COL,COL", help="Columns to leave out.")] = None
    keep: Annotated[
        Listed, _option("--keep", metavar="COL,COL", help="Columns to model although they look like labels.")
    ] = None
    continuous: Annotated[
        Listed, _option("--continuous", metavar="COL,COL", help="Columns to treat as continuous; or all.")
    ] = None
    categorical: Annotated[
        Listed, _option("--categorical", metavar="COL,COL", help="Columns whose numbers are names.")
    ] = None
    resolution: Annotated[
        Listed, _option("--resolution", metavar="COL=STEP", help="Step of the grid on which a column's values lie.")
    ] = None
    transform: Annotated[
        Listed, _option("--transform", metavar="COL=log", help="none, log, logit or auto (chosen on select).")
    ] = None
    group: Annotated[str | None, _option("--group", metavar="COL", help="Rows of one value stay together.")] = None
    split: Annotated[
        str | None, _option("--split", metavar="COL", help="Column that says train, select or test for each row.")
    ] = None

    def options(self, seed: int = 0) -> ReadOptions:
        """The ``ReadOptions`` that these flags mean; ``seed`` draws the rows of ``--rows``."""
        return replace(
            super().options(seed),
            rows=self.rows,
            drop=listed(self.drop),
            keep=listed(self.keep),
            continuous=listed(self.continuous),
            categorical=listed(self.categorical),
            resolution=_steps(self.resolution),
            transform=pairs(self.transform, "--transform", "log"),
            group=self.group,
            split=self.split,
        )


DataSeed = Annotated[int, _option("--data-seed", metavar="N", min=0, help="Seed of the draws of a built-in law (0).")]
Seed = Annotated[int, _option("--seed", metavar="N", min=0, help="Seed of everything random (0).")]
Output = Annotated[Path | None, _option("--output", "-o", metavar="PATH", help="Where to write.")]
Overwrite = Annotated[bool, _option("--overwrite", help="Replace what is there.")]
Effort = Annotated[
    Literal["quick", "standard", "thorough"],
    _option("--effort", help="Sizes and greatest number of steps: quick, standard or thorough.", show_default=True),
]
Budget = Annotated[
    str | None,
    _option("--budget", metavar="TIME", help="Longest training of a family: 60s, 5m, 1.5h (without compiling)."),
]
TestFile = Annotated[
    str | None, _option("--test", metavar="FILE", help="Your own test rows, in place of a drawn part.")
]
Settings = Annotated[
    Listed,
    _option(
        "--set", metavar="FAMILY.OPTION=VALUE", help="An option of a family (see mulligan families -v); repeatable."
    ),
]
Force = Annotated[bool, _option("--force", help="Fit families although there are too few rows for them.")]


@dataclass(frozen=True)
class Training:
    """Flags of the verbs that train."""

    effort: Effort = "standard"
    budget: Budget = None
    settings: Settings = None
    test: TestFile = None
    force: Force = False
    seed: Seed = 0
    data_seed: DataSeed = 0


def takes_flags(verb: Callable[..., int]) -> Callable[..., int]:
    """``verb`` with each dataclass parameter spread into its flags, as Typer wants to see it."""
    signature = inspect.signature(verb, eval_str=True)
    spread: list[inspect.Parameter] = []
    groups: dict[str, Any] = {}
    for name, parameter in signature.parameters.items():
        group: Any = parameter.annotation
        if is_dataclass(group):
            groups[name] = group
            spread += _flags_of(group)
        else:
            spread.append(parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY))

    def run(**given: Any) -> int:
        context: typer.Context = given.pop("context")
        for name, group in groups.items():
            values = {flag.name: given.pop(flag.name) for flag in _flags_of(group)}
            if "command" in {entry.name for entry in fields(group)}:
                values["command"] = context.obj
            given[name] = group(**values)
        return verb(**given)

    context = inspect.Parameter("context", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context)
    run.__signature__ = signature.replace(parameters=[context, *spread])  # type: ignore[attr-defined]
    run.__annotations__ = {}
    run.__name__ = verb.__name__
    return run


def _flags_of(group: Any) -> list[inspect.Parameter]:
    hints, kind = get_type_hints(group, include_extras=True), inspect.Parameter.KEYWORD_ONLY
    return [
        inspect.Parameter(entry.name, kind, default=entry.default, annotation=hints[entry.name])
        for entry in fields(group)
        if hasattr(hints[entry.name], "__metadata__")
    ]


def as_typed(*groups: Any, leave_out: Sequence[str] = ()) -> str:
    """The flags of filled groups that differ from their defaults, ready to be typed again after a command.

    >>> as_typed(Reading(missing="drop", rename=["old name=new"]))
    " --missing drop --rename 'old name=new'"
    """
    words: list[str] = []
    for group in groups:
        hints = get_type_hints(type(group), include_extras=True)
        for entry in fields(group):
            value = getattr(group, entry.name)
            if value == entry.default or entry.name in leave_out or not hasattr(hints[entry.name], "__metadata__"):
                continue
            (option,) = hints[entry.name].__metadata__
            on, _, off = next(
                name for name in (option.default, *(option.param_decls or ())) if name[:2] == "--"
            ).partition("/")
            if isinstance(value, bool):
                words.append(on if value else off)
            else:
                words += [word for item in (value if isinstance(value, list) else [value]) for word in (on, str(item))]
    return "".join(f" {shlex.quote(word)}" for word in words)


def listed(texts: Sequence[str] | None) -> tuple[str, ...]:
    """Items of a comma-separated (and repeatable) flag; a name that holds a comma stands in double quotes.

    >>> listed(['a, b', '"c,d"'])
    ('a', 'b', 'c,d')
    """
    rows = csv.reader(texts or (), skipinitialspace=True)
    return tuple(item.strip() for row in rows for item in row if item.strip())


def pairs(texts: Sequence[str] | None, flag: str, example: str) -> dict[str, str]:
    """``col=value`` items of a comma-separated (and repeatable) flag; UsageError for an item without ``=``.

    >>> pairs(["a=log,b=none"], "--transform", "log")
    {'a': 'log', 'b': 'none'}
    """
    found: dict[str, str] = {}
    for text in texts or ():
        items = listed([text])
        # a column called "Sepal, length" needs no quotes where it is the only one
        for item in items if all("=" in item for item in items) else [text]:
            name, equals, value = item.rpartition("=")
            if not (equals and name and value):
                raise UsageError(f"{flag} is '{item}'", do=f"{flag} COL={example}")
            found[name.strip()] = value.strip()
    return found


def _number(text: str, name: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise UsageError(
            f"--resolution {name}={text}", why="A step is a number", do=f"--resolution {name}=0.1"
        ) from None


def _steps(texts: Sequence[str] | None) -> dict[str, float]:
    steps = {}
    for name, text in pairs(texts, "--resolution", "0.1").items():
        try:
            steps[name] = float(text)
        except ValueError:
            do = f"--resolution {name}=0.1"
            raise UsageError(f"--resolution {name}={text}", why="A step is a number", do=do) from None
    return steps
