"""Which families take part in a comparison, and sentences on those that do not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mulligan.catalog import FAMILIES, Brought, Family, find_family
from mulligan.errors import UsageError
from mulligan.workbench.preparation import Prepared


def canonical(names: Sequence[str | Brought]) -> dict[str, tuple[Family, str | None]]:
    """Families by their own names (an alias is the same family); UsageError where one is named twice."""
    found: dict[str, tuple[Family, str | None]] = {}
    for name in names:
        family, variant = find_family(name)
        label = family.name if variant is None else f"{family.name}:{variant}"
        if label in found:
            raise UsageError(f"{label} is named twice ({name})", why="The test rows are read once a family")
        found[label] = (family, variant)
    return found


def families_for(
    prepared: Prepared, named: Mapping[str, tuple[Family, str | None]] | None, force: bool
) -> tuple[dict[str, tuple[Family, str | None]], list[str]]:
    """Which families run, and sentences on those that do not."""
    notes, left_out = [], []  # the second: what nobody would expect here is noted, not warned of
    dim = prepared.codec.dim
    if named is not None:
        chosen = dict(named)
    else:
        chosen = {}
        for family in FAMILIES.values():
            if family.most_columns is not None and dim > family.most_columns:
                notes.append(
                    f"{family.name} was left out: it takes {family.most_columns} encoded columns, here are {dim}"
                )
            elif family.binary_only and any(c.kind != "binary" for c in prepared.table.schema.modelled):
                left_out.append(family.name)
            elif family.in_compare:
                chosen[family.name] = (family, None)
    few = prepared.few_rows
    if few and not force:
        kept = {name: pair for name, pair in chosen.items() if pair[0].baseline}
        left = ", ".join(name for name in chosen if name not in kept)
        if left:
            notes.append(f"{few}; only {', '.join(kept) or 'nothing'} fitted, --force fits the rest ({left})")
        chosen = kept
    if left_out:
        prepared.notes = (*prepared.notes, f"{', '.join(left_out)} left out: of binary columns only")
    if not chosen:
        raise UsageError("no family is left to compare", do="--force")
    return chosen, notes
