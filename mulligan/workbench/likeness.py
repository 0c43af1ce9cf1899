"""How like the data a fitted family's samples are, and of what use: the ``samples`` and ``use`` parts of its row."""

from __future__ import annotations

from typing import Any

import numpy as np

from mulligan.data.splits import row_clusters
from mulligan.data.table import Table
from mulligan.measures.manifold import expected_coverage
from mulligan.measures.memory import MOST_ROWS
from mulligan.measures.samples import as_json, one_of_each, sample_quality
from mulligan.measures.synthetic_use import MOST_TRAIN, SETS, synthetic_use
from mulligan.quantity import Quantity
from mulligan.workbench.fitted import Fitted
from mulligan.workbench.preparation import Prepared

ALARM = 0.001  # of a p-value: with a dozen families, a false alarm comes in one comparison of eighty


def likeness(
    fitted: Fitted, prepared: Prepared, test: Table, draws: Table, seed: int, clusters: np.ndarray
) -> tuple[dict[str, Any], list[str]]:
    """Distances between draws and test rows and the copied share as plain dictionaries, and sentences for ``health``.

    Equal rows that the split kept together, and rows of one group (``clusters`` of the test rows), count once: the p-values
    need independent rows. Rows with empty cells are left out.
    """
    generator = np.random.default_rng([seed, 241])
    kept = one_of_each(clusters, seed)
    paired = bool(fitted.given)
    generated = draws.values[kept] if paired else draws.values
    rows = prepared.rows_of("train")
    rows = rows.rows(~np.isnan(rows.values).any(axis=1))
    train = _independent(rows, "duplicates grouped" in prepared.split.notes, generator)
    is_image = prepared.table.schema.image is not None
    found = sample_quality(train, test.values[kept], generated, fitted.schema, seed, paired=paired, one_unit=is_image)
    counted = {"rows": len(kept), "expected_coverage": expected_coverage(len(kept), len(kept))}
    return {**as_json(found), **counted}, _told(found)


def use_of_samples(
    fitted: Fitted, prepared: Prepared, test: Table, draws: Table, seed: int, clusters: np.ndarray
) -> dict[str, Any] | None:
    """What a predictor learns from draws beside what it learns from as many training rows; None for pictures.

    ``test`` are whole rows with their ``clusters``. Of a model of p(other | given) the draws are made anew, beside the
    given columns of the training rows: beside those of the test rows they would be of no use but there.
    """
    if prepared.table.schema.image is not None or len(fitted.schema.modelled) < 2:
        return None
    rows = prepared.rows_of("train")
    whole = np.flatnonzero(~np.isnan(rows.values).any(axis=1))
    rows, train_clusters = rows.rows(whole), row_clusters(rows)[whole]
    names = tuple(name for name in fitted.schema.names if name not in fitted.given) if fitted.given else ()
    if fitted.given:
        draws = fitted.sample(min(SETS * len(rows), SETS * MOST_TRAIN), seed, rows)
    found = synthetic_use(
        rows.values,
        test.values,
        draws.values,
        fitted.schema,
        seed,
        clusters=clusters,
        train_clusters=train_clusters,
        columns=names,
    )
    return found.to_json()


def _independent(train: Table, grouped: bool, generator: np.random.Generator) -> np.ndarray:
    """At most MOST_ROWS training rows that are independent draws, as the split saw them."""
    order = generator.permutation(len(train))
    if train.groups is not None:
        order = order[np.unique(train.groups[order], return_index=True)[1]]
    order = order[:MOST_ROWS]
    if grouped:
        # Equal rows have equal projections, and to compare numbers is much faster than to compare rows.
        marks = train.values[order] @ generator.normal(size=train.values.shape[1])
        order = order[np.unique(marks, return_index=True)[1]]
    return train.values[order]


def _told(found: dict[str, Quantity]) -> list[str]:
    copied, chance = found.get("copied"), found.get("copied_p")
    if copied is None or chance is None or copied.value is None or chance.value is None:
        return []
    if chance.value > ALARM:
        return []
    return [
        f"samples lie nearer to training rows than to test rows, beyond chance (p {_p(chance.value)}): as if "
        f"{100 * min(copied.value, 1.0):.0f} % of them were copies of training rows"
    ]


def _p(value: float) -> str:
    return "< .001" if value < 0.001 else f"= {value:.3f}".replace("0.", ".", 1)
