"""What the benchmarks on real tables share: one fit of ours, scikit-learn's mixture on the same codec, and the verdict.

Both sides are fitted to the same encoded training rows, and every choice is made by mean log p on the same select rows.
"""

from __future__ import annotations

import itertools
import sys
import time
import warnings
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mulligan.catalog import Effort, find_family
from mulligan.data.codec import Encoded
from mulligan.measures.likelihood import log_mean_exp
from mulligan.quantity import Quantity
from mulligan.workbench.fitted import Fitted
from mulligan.workbench.fitting import fit_prepared
from mulligan.workbench.preparation import Prepared
from mulligan.workbench.talk import Talk

SHARED = Path(__file__).resolve().parents[1].parent / "shared" / "data"
CHUNK = 65_536  # points scored at a time: bounded memory for any number of draws


class Peer(NamedTuple):
    """scikit-learn's mixture that was best on select, and what was offered."""

    model: Any
    select: float
    label: str
    at_edge: bool  # whether the most parts on offer were taken: more might be better still


def fit_family(prepared: Prepared, family: str, effort: Effort) -> tuple[Fitted, float]:
    """A family with its own search at this effort, and its mean log p on select; the test rows are not read."""
    entry, variant = find_family(family)
    options = entry.parse_options({})
    fitted, _, timing = fit_prepared(
        prepared, entry, variant, options, seed=0, effort=effort, budget=None, steps=None, talk=Talk()
    )
    score = float(fitted.calibration.mean())
    say(f"  {family}: {fitted.label}, select {score:.3f}, {timing.fit_seconds + timing.compile_seconds:.0f} s")
    return fitted, score


def best_peer(
    prepared: Prepared,
    parts: Sequence[int],
    covariances: Sequence[str],
    regularisations: Sequence[float],
    starts: int = 1,
) -> Peer:
    """scikit-learn's mixture: every combination, each from so many k-means starts, the best on select."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.mixture import GaussianMixture
    from threadpoolctl import threadpool_limits

    began = time.perf_counter()
    rows = prepared.train.points.reshape(-1, prepared.codec.dim)
    best = None
    for k, covariance, regularisation, seed in itertools.product(parts, covariances, regularisations, range(starts)):
        model = GaussianMixture(
            k, covariance_type=covariance, reg_covar=regularisation, max_iter=200, tol=1e-4, random_state=seed
        )
        # One thread: matrices this small gain nothing from two, which on a busy machine wait for each other.
        with warnings.catch_warnings(), threadpool_limits(1):
            warnings.simplefilter("ignore", ConvergenceWarning)
            model.fit(rows)
            score = float(as_rows(model, prepared.select).mean())
        if best is None or score > best.select:
            best = Peer(model, score, f"k={k}, {covariance}, reg_covar={regularisation:g}", k == max(parts))
    assert best is not None
    say(f"  scikit-learn: {best.label}, select {best.select:.3f}, {time.perf_counter() - began:.0f} s")
    return best


def as_rows(model: Any, encoded: Encoded) -> np.ndarray:
    """log p of rows under scikit-learn's mixture, through our codec: exact with one draw a row, else our bound."""
    n, m, d = encoded.points.shape
    points = encoded.points.reshape(-1, d)
    pieces = [model.score_samples(points[start : start + CHUNK]) for start in range(0, len(points), CHUNK)]
    return log_mean_exp(np.concatenate(pieces).reshape(n, m) + encoded.log_jacobian)


def shown(difference: Quantity) -> str:
    """A difference with its standard error and its interval; a bound has one end only."""
    low = "-inf" if difference.low is None else f"{difference.low:.3f}"
    high = "inf" if difference.high is None else f"{difference.high:.3f}"
    return f"{difference.value:.3f} ± {difference.stderr:.3f} (95 %: {low} to {high})"


def claim(difference: Quantity, least: float) -> str:
    """Whether a difference is more than so large, by its value and by the lower end of its interval."""
    if difference.value is None or not difference.value > least:
        verdict = "does not hold"
    elif difference.low is not None and difference.low > least:
        verdict = "holds, and so does the lower end of the interval"
    else:
        verdict = "holds for these rows; the interval reaches below"
    return f"More than {least:g} nats: **{verdict}**."


def made_by(name: str, effort: str, smoke: bool, seconds: float) -> str:
    """The command and the versions behind a page of results."""
    flags = f"--only {name} --effort {effort}{' --smoke' if smoke else ''}"
    versions = ", ".join(f"{package} {version(package)}" for package in ("mulligan", "jax", "scikit-learn", "numpy"))
    return f"`python -m benchmarks.tables {flags}`, {seconds / 60:.1f} minutes; {versions}."


def say(line: str) -> None:
    """Progress, apart from the results."""
    print(line, file=sys.stderr, flush=True)
