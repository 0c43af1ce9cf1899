"""How far samples are from data: the classifier two-sample test.

Definition (Friedman 2003; Lopez-Paz and Oquab 2017). Train a classifier to tell real rows from generated ones; its area
under the ROC curve on rows that it has not seen is P(score of a real row > score of a generated row): .5 where the two
laws cannot be told apart, 1 where every row gives itself away.
"""

from __future__ import annotations

import numpy as np

from mulligan.data.table import Schema
from mulligan.quantity import Quantity, none

FOLDS = 5
LEAST_ROWS = 20
MOST_ROWS = 5000
_Z95 = 1.959963984540054


def two_sample_auc(real: np.ndarray, generated: np.ndarray, schema: Schema, seed: int) -> Quantity:
    """AUC of a gradient-boosted classifier between real (n, p) and generated (n, p) rows, 5-fold, with 95 % interval.

    Both come as values in the user's units, rounded to the columns' resolution, in equal numbers (the first n of the
    longer one; at most 5 000 of each, said in the note). Equal rows share a fold, so a twin is never recognised. The
    interval is DeLong's (DeLong, DeLong and Clarke-Pearson 1988) within each fold, averaged. Kind ``estimate``; ``none``
    below 20 rows.
    """
    n = min(len(real), len(generated), MOST_ROWS)
    if n < LEAST_ROWS:
        return none(f"{n} test rows are too few for a classifier two-sample test", "AUC")
    generator = np.random.default_rng([seed, 101])
    rows = np.concatenate([_some(real, n, generator), _some(generated, n, generator)])
    labels = np.repeat([1, 0], n)
    folds = _folds(rows, generator)
    tried = [_fold_auc(rows, labels, folds == fold, schema, seed) for fold in range(FOLDS)]
    parts = [part for part in tried if part is not None]
    if not parts:
        return none("no fold holds both real and generated rows", "AUC")
    auc = float(np.mean([value for value, _ in parts]))
    stderr = float(np.sqrt(np.sum([variance for _, variance in parts]))) / len(parts)
    note = "5-fold gradient boosting, real test rows against generated"
    if n < min(len(real), len(generated)):
        note += f", {n:,} of each drawn"
    low, high = max(0.0, auc - _Z95 * stderr), min(1.0, auc + _Z95 * stderr)
    return Quantity(auc, "estimate", low, high, stderr, 2 * n, "AUC", note)


def _some(rows: np.ndarray, n: int, generator: np.random.Generator) -> np.ndarray:
    return rows if len(rows) == n else rows[generator.choice(len(rows), n, replace=False)]


def _folds(rows: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """A fold for every row, the same for equal rows."""
    _, inverse = np.unique(rows, axis=0, return_inverse=True)
    inverse = inverse.reshape(-1)
    order = generator.permutation(int(inverse.max()) + 1)
    return order[inverse] % FOLDS


def _fold_auc(
    rows: np.ndarray, labels: np.ndarray, held: np.ndarray, schema: Schema, seed: int
) -> tuple[float, float] | None:
    from sklearn.ensemble import HistGradientBoostingClassifier
    from threadpoolctl import threadpool_limits

    if min(np.bincount(labels[held], minlength=2)) < 2 or min(np.bincount(labels[~held], minlength=2)) < 2:
        return None
    names = [column.kind == "categorical" for column in schema.modelled]
    classifier = HistGradientBoostingClassifier(
        random_state=seed, early_stopping=False, categorical_features=names if any(names) else None
    )
    # One thread: on a busy machine OpenMP's waiting threads made these small fits a hundred times slower.
    with threadpool_limits(1, user_api="openmp"):
        classifier.fit(rows[~held], labels[~held])
        scores = classifier.decision_function(rows[held])
    return delong(scores[labels[held] == 1], scores[labels[held] == 0])


def delong(positive: np.ndarray, negative: np.ndarray) -> tuple[float, float]:
    """AUC of two sets of scores and its variance, ties counting a half.

    AUC = mean of V10 = mean of V01, with V10_i = P(score_i > a negative score), V01_j likewise; variance =
    var(V10)/m + var(V01)/n.

    >>> delong(np.array([3.0, 4.0]), np.array([1.0, 2.0]))
    (1.0, 0.0)
    """
    ordered = np.sort(negative)
    below = (np.searchsorted(ordered, positive, "left") + np.searchsorted(ordered, positive, "right")) / 2
    v10 = below / len(negative)
    ordered = np.sort(positive)
    above = (np.searchsorted(ordered, negative, "left") + np.searchsorted(ordered, negative, "right")) / 2
    v01 = 1 - above / len(positive)
    variance = np.var(v10, ddof=1) / len(positive) + np.var(v01, ddof=1) / len(negative)
    return float(v10.mean()), float(variance)
