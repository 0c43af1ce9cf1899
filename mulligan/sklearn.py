"""Any family as a scikit-learn estimator: ``GenerativeModel(family="mixture")`` in pipelines, grid searches and clones.

Definition. The joint density p(x) of the columns of X, with log p(x) as ``score_samples``, its mean as ``score`` (so that a
grid search picks the highest held-out likelihood) and draws as ``sample``. Columns are numbers, and each has a density, as
in scikit-learn's own KernelDensity and GaussianMixture; ``mulligan.fit`` is for tables with categories and grids.

All rows handed to ``fit`` are fitted: there is no test part and no report. What a family must choose (parts, bandwidth,
the step at which training stops) is chosen on a share of the rows, ``validation_fraction``, as scikit-learn's networks do;
families whose rows may weigh (``weighted`` in the catalog) are then fitted once more to all of them with that choice made.
"""

from __future__ import annotations

import re
from functools import partial
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, DensityMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data

from mulligan.catalog import Brought, Family, find_family
from mulligan.core import Density
from mulligan.data.codec import Codec, Encoded, Part
from mulligan.data.splits import row_numbers
from mulligan.data.table import Column, Schema, Source, Table
from mulligan.errors import FitError, NoDensity, UsageError
from mulligan.families.recipe import Fitting, Outcome
from mulligan.measures.likelihood import draw, row_log_prob
from mulligan.workbench.fitted import CHUNK, Fitted
from mulligan.workbench.settings import check_settings

LEAST_ROWS = 10  # distinct rows; with fewer, choices are made on the rows that are fitted


class GenerativeModel(DensityMixin, BaseEstimator):
    """One family of generative models: p(x) fitted to the rows of X (n_samples, n_features).

    ``family`` is a name of ``mulligan families`` ("mixture", "kde", "flow", "factor:ppca") or an ``Own`` model; ``options``
    are its options by name ({"parts": 4}), ``effort`` one of quick, standard, thorough; ``steps`` caps the steps of
    training; ``validation_fraction`` is the share of rows on which choices are made. After ``fit``: ``fitted_`` (the
    ``Fitted`` model, which can be saved), ``label_`` (what was chosen), ``choices_`` (what was tried),
    ``n_features_in_`` and, from a DataFrame, ``feature_names_in_``.

    >>> X = np.random.default_rng(0).normal(size=(200, 2))
    >>> model = GenerativeModel("gaussian").fit(X)
    >>> model.score_samples(X).shape, model.sample(3, random_state=0).shape
    ((200,), (3, 2))
    """

    def __init__(
        self,
        family: str | Brought = "mixture",
        *,
        options: dict[str, Any] | None = None,
        effort: str = "standard",
        steps: int | None = None,
        validation_fraction: float = 0.15,
        random_state: Any = None,
    ):
        self.family = family
        self.options = options
        self.effort = effort
        self.steps = steps
        self.validation_fraction = validation_fraction
        self.random_state = random_state

    def fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> GenerativeModel:
        """Fit to the rows of X (n_samples, n_features); y is ignored.

        ``sample_weight`` (n_samples,) says how often each row counts; rows of weight 0 are left out. Raises ValueError for
        an X that scikit-learn refuses, UsageError for options out of range and for weights that differ where the family
        cannot weigh rows, FitError where fitting failed.
        """
        entry, variant = find_family(self.family)
        check_settings(self.effort, self.steps)
        if not 0 < self.validation_fraction < 1:
            raise UsageError(f"validation_fraction is {self.validation_fraction!r}; expected a share between 0 and 1")
        X = validate_data(self, X, dtype=np.float64, ensure_min_samples=2)
        weights = None
        if sample_weight is not None:
            weights = _check_sample_weight(sample_weight, X, dtype=np.float64, ensure_non_negative=True)
            X, weights = X[weights > 0], _weights(weights[weights > 0], entry)
        seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        chosen = entry.parse_options(self.options or {})
        columns = [str(name) for name in getattr(self, "feature_names_in_", [f"x{j + 1}" for j in range(X.shape[1])])]
        codec = _codec(columns, X, weights)
        train, select = _parts(X, self.validation_fraction, seed)
        fitting = partial(_fitting, codec, X, weights, seed=seed, steps=self.steps)
        outcome = _fit(entry, variant, chosen, self.effort, fitting(train, select))
        self.choices_ = outcome.choices
        if entry.weighted and len(train) < len(X):
            every = np.arange(len(X))
            outcome = _fit(entry, variant, {**chosen, **_choice(outcome)}, self.effort, fitting(every, every))
        codec = outcome.codec or codec  # type: ignore[assignment]
        self.fitted_ = Fitted(entry.name, variant, outcome.label, codec, outcome.model, history=outcome.history)
        self.label_, self._seed = outcome.label, seed
        return self

    def score_samples(self, X: Any) -> np.ndarray:
        """log p(x) of each row in nats, float64 (n_samples,); ``fitted_.log_prob_kind`` says how it is known.

        Raises NoDensity for a family without density.
        """
        check_is_fitted(self)
        X = validate_data(self, X, dtype=np.float64, reset=False)
        fitted = self.fitted_
        if not isinstance(fitted.model, Density):
            do = "mulligan families lists those with log p"
            raise NoDensity(f"{fitted.family} has no log density, so it cannot score rows", do=do)
        starts = range(0, len(X), CHUNK)
        return np.concatenate([row_log_prob(fitted.model, fitted.codec.encode(X[i : i + CHUNK])) for i in starts])

    def score(self, X: Any, y: Any = None, sample_weight: Any = None) -> float:
        """Mean log p(x) of the rows of X, in nats a row: higher is better, whatever the number of rows."""
        return float(np.average(self.score_samples(X), weights=sample_weight))

    def sample(self, n_samples: int = 1, random_state: Any = None) -> np.ndarray:
        """``n_samples`` draws (n_samples, n_features); equal ones for equal ``random_state`` (None: the estimator's)."""
        check_is_fitted(self)
        if isinstance(n_samples, bool) or not isinstance(n_samples, int | np.integer) or n_samples < 1:
            raise UsageError(f"n_samples is {n_samples!r}; expected a whole number from 1")
        own = random_state is None
        seed = self._seed if own else int(check_random_state(random_state).randint(2**31 - 1))
        return self.fitted_.codec.decode(draw(self.fitted_.model, int(n_samples), seed))  # type: ignore[call-arg]


def _weights(weights: np.ndarray, entry: Family) -> np.ndarray | None:
    """Weights of a family that can weigh rows; None where all are equal. Raises UsageError, or ValueError for one row."""
    if len(weights) < 2:
        raise ValueError(f"{len(weights)} sample has a weight above 0: n_samples=1 is too few to fit a density")
    if np.ptp(weights) == 0:
        return None
    if not entry.weighted:
        from mulligan.catalog import FAMILIES

        able = ", ".join(name for name, other in FAMILIES.items() if other.weighted)
        raise UsageError(f"{entry.name} cannot weigh rows", "sample_weight", do=f"a family that can: {able}")
    return weights


def _codec(names: list[str], X: np.ndarray, weights: np.ndarray | None) -> Codec:
    """Continuous columns, standardised by their (weighted) moments."""
    mean = np.average(X, axis=0, weights=weights)
    scale = np.sqrt(np.average((X - mean) ** 2, axis=0, weights=weights))
    scale = np.where(scale > 1e-12 * (1 + np.abs(mean)), scale, 1.0)
    ends = zip(X.min(0).tolist(), X.max(0).tolist())
    columns = tuple(Column(name, "continuous", minimum=low, maximum=high) for name, (low, high) in zip(names, ends))
    parts = tuple(Part(j, 1, float(m), float(s)) for j, (m, s) in enumerate(zip(mean, scale)))
    return Codec(Schema(columns), parts)


def _parts(X: np.ndarray, share: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Row numbers to train on and to choose on; equal rows stay together, for a twin across would reward memory."""
    cluster = row_numbers(X)
    many = int(cluster.max()) + 1
    if many < LEAST_ROWS:
        return np.arange(len(X)), np.arange(len(X))
    held = np.zeros(many, bool)
    held[np.random.default_rng([seed, 7]).permutation(many)[: max(1, round(share * many))]] = True
    return np.flatnonzero(~held[cluster]), np.flatnonzero(held[cluster])


def _fitting(
    codec: Codec,
    X: np.ndarray,
    weights: np.ndarray | None,
    train: np.ndarray,
    select: np.ndarray,
    *,
    seed: int,
    steps: int | None,
) -> Fitting:
    def table(rows: np.ndarray) -> Table:
        return Table(codec.schema, X[rows], Source("X"))

    def encoded(rows: np.ndarray) -> Encoded:
        return codec.encode(X[rows])

    return Fitting(
        encoded(train),
        encoded(select),
        codec,
        table(train),
        table(select),
        seed,
        None,
        steps,
        lambda phase, step, total, latest: None,
        weights=None if weights is None else weights[train],
        select_weights=None if weights is None else weights[select],
    )


def _fit(entry: Family, variant: str | None, options: dict[str, Any], effort: Any, fitting: Fitting) -> Outcome:
    if entry.most_columns is not None and fitting.dim > entry.most_columns:
        raise UsageError(f"{entry.name} takes at most {entry.most_columns} columns; X has {fitting.dim}")
    try:
        outcome = entry.recipe(variant, options, effort)(fitting)
    except (np.linalg.LinAlgError, FloatingPointError) as error:
        raise FitError(f"{entry.name}: {error}", why="the rows are close to degenerate") from error
    if outcome.failed:
        raise FitError(f"{entry.name}: {outcome.failed}", do="a smaller rate")
    return outcome


def _choice(outcome: Outcome) -> dict[str, Any]:
    """The options that an outcome's best choice stands for: "parts=3 full", "bandwidth=0.21 spherical"."""
    if not outcome.choices:
        return {}
    option = max(outcome.choices, key=lambda choice: choice["select"])["option"]
    if found := re.fullmatch(r"parts=(\d+) (\w+)", option):
        return {"parts": (int(found[1]),), "covariance": found[2]}
    if found := re.fullmatch(r"bandwidth=(\S+) (\w+)", option):
        return {"bandwidth": float(found[1]), "kernel": found[2]}
    return {}
