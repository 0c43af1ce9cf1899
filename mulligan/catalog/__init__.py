"""The one list of what exists: families with their options, laws, tables, efforts. Standard library only.

Everything that names a family reads it here: Python arguments, command-line flags, help texts, messages, the table of
``mulligan families`` and the docs. A new family adds one entry to ``closed_form.py`` or ``trained.py``; a test compares
every entry with what ``isinstance`` says of the models it makes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType

from mulligan.catalog.closed_form import BASELINE, CLOSED_FORM
from mulligan.catalog.trained import TRAINED
from mulligan.entries import EFFORTS, TRAINING, Brought, Effort, Family, Option, near
from mulligan.errors import UsageError

__all__ = [
    "EFFORTS",
    "FAMILIES",
    "LAWS",
    "TABLES",
    "TRAINING",
    "Brought",
    "Effort",
    "Family",
    "Option",
    "find_family",
    "model_classes",
    "near",
    "parse_settings",
]

FAMILIES: Mapping[str, Family] = MappingProxyType(
    {family.name: family for family in (*CLOSED_FORM, *TRAINED, *BASELINE)}
)

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


def model_classes() -> dict[str, str]:
    """Every class that a model folder may name, as "module:Class" by its name: those of all families."""
    return {place.split(":")[1]: place for family in FAMILIES.values() for place in family.classes}


def find_family(name: str | Brought) -> tuple[Family, str | None]:
    """The family and variant that ``name`` or ``name:variant`` means; aliases are understood.

    A model that the caller brings (``mulligan.Own``) has an entry of its own.

    >>> find_family("gmm")[0].name, find_family("factor:ppca")[1]
    ('mixture', 'ppca')

    Raises UsageError for an unknown family or variant, with the nearest name.
    """
    if not isinstance(name, str):
        entry = getattr(name, "entry", None)
        if not isinstance(entry, Family):
            raise UsageError(f"the family is {name!r}", do="a name, or mulligan.Own(build) for a model of your own")
        return entry, None
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
