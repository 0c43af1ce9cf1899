"""Small tables and the families fitted to them, made once a process: fitting is what tests of families cost."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import pytest

from mulligan.catalog import FAMILIES, find_family
from mulligan.data.table import ReadOptions, Table
from mulligan.families.recipe import Outcome
from mulligan.workbench.fitted import Fitted
from mulligan.workbench.fitting import fit_prepared
from mulligan.workbench.preparation import prepare
from mulligan.workbench.sources import open_table
from mulligan.workbench.talk import Talk

LABELS = [f"{name}:{variant}" for name, family in FAMILIES.items() for variant in family.variants or ("",)]
LABELS = [label.rstrip(":") for label in LABELS]
ON_PLANE = [label for label in LABELS if not FAMILIES[label.split(":")[0]].binary_only]
WITH_DENSITY = [label for label in LABELS if "Density" in FAMILIES[label.split(":")[0]].capabilities]

# Compiling is what these tests cost. Of a family trained by gradient every run takes its first variant through all of
# them; the others go through one short test, and through all in `make test-slow`.
OTHERS = [
    label
    for label in LABELS
    if ":" in label
    and FAMILIES[label.split(":")[0]].by_gradient
    and label.split(":")[1] != FAMILIES[label.split(":")[0]].variants[0]
]


def in_turn(cases: list) -> list:
    """Labels, or tuples that begin with one; the other variants are marked slow."""
    labelled = [(case, case if isinstance(case, tuple) else (case,)) for case in cases]
    return [pytest.param(*parts, marks=pytest.mark.slow) if parts[0] in OTHERS else case for case, parts in labelled]


@lru_cache(maxsize=32)
def table(name: str, seed: int = 0) -> Table:
    """``plane``: a curved law of the plane. ``mixed``: all five kinds of column. ``narrow``: mixed, three coordinates.
    ``discrete``: two categorical columns. ``binary``: five binary ones that go together."""
    rng = np.random.default_rng([11, seed])
    n = 400
    if name == "plane":
        return open_table("banana", ReadOptions(rows=600), data_seed=seed)
    kind = rng.choice(["red", "green", "blue"], n, p=[0.5, 0.4, 0.1])
    shift = 2.0 * (kind == "red")
    if name == "binary":
        on = (rng.random((n, 5)) < 0.2) | (rng.random((n, 1)) < 0.4) & (rng.random((n, 5)) < 0.8)
        return open_table({f"b{j}": np.where(on[:, j], "yes", "no") for j in range(5)})
    if name == "discrete":
        code = np.where(rng.random(n) < 0.7, kind == "red", rng.random(n) < 0.5)
        return open_table({"kind": kind, "flag": np.where(code, "yes", "no")})
    columns = {
        "length": rng.normal(shift, 1.0),
        "count": rng.poisson(3 + shift),
        "price": np.round(rng.gamma(3.0, 1.5, n), 1),
        "kind": kind,
        "sold": rng.random(n) < 0.3 + 0.2 * shift,
    }
    if name == "narrow":
        columns = {key: columns[key] for key in ("length", "count", "sold")}
    return open_table(columns)


@lru_cache(maxsize=256)
def fitted(
    label: str, table_name: str, seed: int = 0, options: tuple = (), data_seed: int = 0, steps: int | None = None
) -> Fitted:
    """``fit_small``, kept."""
    return fit_small(label, table_name, seed, options, data_seed, steps)[0]


def fit_small(
    label: str, table_name: str, seed: int = 0, options: tuple = (), data_seed: int = 0, steps: int | None = None
) -> tuple[Fitted, Outcome]:
    """The family (``name`` or ``name:variant``) fitted at quick effort; options as ((name, value), …).

    A family trained by gradient takes 60 steps unless told: what is tested on it holds for any weights.
    """
    family, variant = find_family(label)
    steps = 60 if steps is None and family.by_gradient else steps
    made, outcome, _ = fit_prepared(
        prepare(table(table_name, data_seed), seed),
        family,
        variant,
        family.parse_options(dict(options)),
        seed=seed,
        effort="quick",
        budget=None,
        steps=steps,
        talk=Talk(),
    )
    return made, outcome


def mixed_for(label: str) -> str:
    """The table of discrete columns that the family can take."""
    family = FAMILIES[label.split(":")[0]]
    return "binary" if family.binary_only else "mixed" if family.most_columns is None else "narrow"


def home(label: str) -> str:
    """The plane, or the table of a family that cannot take it."""
    return "binary" if FAMILIES[label.split(":")[0]].binary_only else "plane"
