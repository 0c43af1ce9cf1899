"""How far samples are from data: the classifier two-sample test.

Definition (Friedman 2003; Lopez-Paz and Oquab 2017). Train a classifier to tell real rows from generated ones; its area
under the ROC curve on rows that it has not seen is P(score of a real row > score of a generated row): .5 where the two
laws cannot be told apart, 1 where every row gives itself away.
"""

from __future__ import annotations

import numpy as np

from mulligan.data.table import Schema
from mulligan.quantity import Quantity, none, wilson

FOLDS = 5
LEAST_ROWS = 40  # of each: with fewer, the training folds hold no split of 20 rows to either side
MOST_ROWS = 5000
MOST_LEVELS = 255  # of scikit-learn's categories; a column with more is passed as its codes, in order of frequency
TWICE_JUDGED = 2**0.5


def two_sample_auc(
    real: np.ndarray, generated: np.ndarray, schema: Schema, seed: int, clusters: np.ndarray | None = None
) -> Quantity:
    """AUC of a gradient-boosted classifier between real (n, p) and generated (n, p) rows, 5-fold, with 95 % interval.

    Both come as values in the user's units, rounded to the columns' resolution, in equal numbers (drawn from the longer
    one; at most 5 000 of each, said in the note). Real rows of one cluster (``clusters``: duplicates, groups) share a
    fold, so a twin is never recognised, and count once in the error. The error is DeLong's (DeLong, DeLong and
    Clarke-Pearson 1988) times √2: where the laws are close, the rows of two folds judge each other twice, once from either
    side, and such pairs are not independent (compare Nadeau and Bengio 2003); far from .5 that makes the interval too wide
    rather than too narrow. The interval is Wilson's at the number of rows that would give this error. Kind ``estimate``;
    ``none`` below 40 rows, and where no tree finds a split.
    """
    n = min(len(real), len(generated), MOST_ROWS)
    if n < LEAST_ROWS:
        return none(f"{n} test rows are too few for a classifier two-sample test", "AUC")
    generator = np.random.default_rng([seed, 101])
    chosen = np.arange(n) if len(real) == n else generator.choice(len(real), n, replace=False)
    rows = np.concatenate([real[chosen], _some(generated, n, generator)])
    labels = np.repeat([1, 0], n)
    named = np.arange(n) if clusters is None else np.unique(np.asarray(clusters)[chosen], return_inverse=True)[1]
    units = np.concatenate([named, n + np.arange(n)])
    folds = (generator.permutation(2 * n) % FOLDS)[units]
    aucs, influence = [], np.zeros(2 * n)
    for fold in range(FOLDS):
        held = folds == fold
        if min(np.bincount(labels[held], minlength=2)) < 2 or min(np.bincount(labels[~held], minlength=2)) < 2:
            continue
        scores = _scores(rows, labels, held, schema, seed)
        if np.ptp(scores) == 0:
            continue
        auc, parts = delong(scores[labels[held] == 1], scores[labels[held] == 0])
        aucs.append(auc)
        influence[np.flatnonzero(held & (labels == 1))] = parts[0]
        influence[np.flatnonzero(held & (labels == 0))] = parts[1]
    if not aucs:
        return none("the classifier found no split in any fold", "AUC")
    auc = float(np.mean(aucs))
    together = np.bincount(units, weights=influence) / len(aucs)
    stderr = TWICE_JUDGED * float(np.sqrt(together @ together))
    note = "5-fold gradient boosting, real test rows against generated"
    if n < min(len(real), len(generated)):
        note += f", {n:,} of each drawn"
    # Under equal laws DeLong's variance of n against n is 1/6n, that of a share among 1.5 n: no error can be smaller
    most = 1.5 * len(np.unique(named)) / TWICE_JUDGED**2
    effective = most if stderr == 0 else min(most, auc * (1 - auc) / stderr**2)
    low, high = wilson(auc, effective)
    return Quantity(auc, "estimate", low, high, stderr, 2 * n, "AUC", note)


def _some(rows: np.ndarray, n: int, generator: np.random.Generator) -> np.ndarray:
    return rows if len(rows) == n else rows[generator.choice(len(rows), n, replace=False)]


def _scores(rows: np.ndarray, labels: np.ndarray, held: np.ndarray, schema: Schema, seed: int) -> np.ndarray:
    """What a classifier trained on the other folds says of the held rows."""
    from sklearn.ensemble import HistGradientBoostingClassifier
    from threadpoolctl import threadpool_limits

    names = [c.kind == "categorical" and len(c.levels) <= MOST_LEVELS for c in schema.modelled]
    classifier = HistGradientBoostingClassifier(
        random_state=seed, early_stopping=False, categorical_features=names if any(names) else None
    )
    # One thread: on a busy machine OpenMP's waiting threads made these small fits a hundred times slower.
    with threadpool_limits(1, user_api="openmp"):
        classifier.fit(rows[~held], labels[~held])
        return classifier.decision_function(rows[held])


def delong(positive: np.ndarray, negative: np.ndarray) -> tuple[float, tuple[np.ndarray, np.ndarray]]:
    """AUC of two sets of scores (m,), (n,), ties counting a half, and what each score adds to its error.

    AUC = mean of V10 = mean of V01, with V10_i = P(score_i > a negative score) and V01_j likewise; the influences are
    (V10 − AUC)/√(m(m−1)) and (V01 − AUC)/√(n(n−1)), whose squares sum to DeLong's variance.

    >>> delong(np.array([3.0, 4.0]), np.array([1.0, 2.0]))[0]
    1.0
    """
    m, n = len(positive), len(negative)
    ordered = np.sort(negative)
    v10 = (np.searchsorted(ordered, positive, "left") + np.searchsorted(ordered, positive, "right")) / (2 * n)
    ordered = np.sort(positive)
    v01 = 1 - (np.searchsorted(ordered, negative, "left") + np.searchsorted(ordered, negative, "right")) / (2 * m)
    auc = float(v10.mean())
    return auc, ((v10 - auc) / np.sqrt(m * (m - 1)), (v01 - auc) / np.sqrt(n * (n - 1)))
