"""Binarised digits (scikit-learn's 1 797 digits of 8 by 8, a pixel is on from 8 of 16): exact log p of test rows.

``autoregressive`` beside independent pixels and a mixture of products of Bernoulli laws, fitted by EM here:
p(x) = Σ_k w_k Π_j p_kj^x_j (1 − p_kj)^(1−x_j). Pixels that are constant in the table are no columns for either side.
"""

from __future__ import annotations

import itertools
from typing import NamedTuple

import numpy as np
from scipy.special import logsumexp
from threadpoolctl import threadpool_limits

import mulligan as mg
from benchmarks.common import claim, fit_family, say, shown
from mulligan.catalog import Effort
from mulligan.quantity import mean_of_rows, paired_difference
from mulligan.workbench.preparation import prepare

THRESHOLD = 8
PARTS = (1, 5, 10, 20, 40, 80)
COUNTS = (0.1, 0.3, 1.0)  # added to each pixel's on and off in every part; chosen on select
STARTS = 5
STEPS, TOLERANCE = 500, 1e-6


class Bernoullis(NamedTuple):
    """``weights`` (k,) and ``shares`` (k, pixels): the probability that a pixel is on, in each part."""

    weights: np.ndarray
    shares: np.ndarray

    def joint(self, rows: np.ndarray) -> np.ndarray:
        """log w_k + log p(x | k), (n, k)."""
        off = np.log1p(-self.shares)
        return rows @ (np.log(self.shares) - off).T + off.sum(axis=1) + np.log(self.weights)

    def log_prob(self, rows: np.ndarray) -> np.ndarray:
        """log p of each row, exact."""
        return logsumexp(self.joint(rows), axis=1)


def fit_bernoullis(rows: np.ndarray, parts: int, count: float, seed: int) -> Bernoullis:
    """EM from ``parts`` random rows, with ``count`` added to every count; one part is add-``count`` frequencies at once."""
    start = np.random.default_rng(seed).choice(len(rows), parts, replace=False)
    model = Bernoullis(np.full(parts, 1 / parts), 0.25 + 0.5 * rows[start])
    before = -np.inf
    for _ in range(STEPS):
        joint = model.joint(rows)
        log_p = logsumexp(joint, axis=1)
        share = np.exp(joint - log_p[:, None])
        total = share.sum(axis=0)
        shares = (share.T @ rows + count) / (total + 2 * count)[:, None]
        model = Bernoullis((total + count) / (total + count).sum(), shares)
        if abs(log_p.mean() - before) < TOLERANCE:
            break
        before = log_p.mean()
    return model


def digits(effort: Effort, smoke: bool = False) -> list[str]:
    """The page of results; ``smoke`` is few parts and one start."""
    from sklearn.datasets import load_digits

    on = load_digits().data >= THRESHOLD
    table = mg.read({f"row{i // 8}col{i % 8}": on[:, i] for i in range(on.shape[1])})
    prepared = prepare(table, seed=0)
    train, select = prepared.rows_of("train").values, prepared.rows_of("select").values
    pixels = train.shape[1]
    say(f"digits: {pixels} pixels, {len(train)} training rows")
    fitted, score = fit_family(prepared, "autoregressive", effort)
    ours = fitted.log_prob(prepared.read_test("autoregressive"))
    grid = itertools.product(PARTS[:3] if smoke else PARTS, COUNTS, range(1 if smoke else STARTS))
    with threadpool_limits(1):  # as in benchmarks.common
        tried = {setting: fit_bernoullis(train, *setting) for setting in grid}
    scores = {setting: float(model.log_prob(select).mean()) for setting, model in tried.items()}
    best = max(scores, key=scores.__getitem__)
    parts, count, _ = best
    flat = fit_bernoullis(train, 1, 1.0, 0)
    test, clusters = prepared.test_rows, prepared.test_clusters
    peers = {
        "independent pixels": ("add-one counts", float(flat.log_prob(select).mean()), flat.log_prob(test)),
        "mixture of Bernoulli products": (f"k={parts}, {count:g} added", scores[best], tried[best].log_prob(test)),
    }
    mean = mean_of_rows(ours, fitted.log_prob_kind, clusters=clusters)
    lines = [
        "# Binarised digits",
        "",
        *(f"- {note}" for note in prepared.notes if "always" not in note),
        "",
        f"{len(train)} training, {len(select)} select and {len(test)} test rows; {pixels} pixels that vary. Every log p is "
        "exact. Errors are clustered as the split is.",
        "",
        "| model | chosen | select | test, nats/row | autoregressive minus it, paired |",
        "|---|---|---|---|---|",
        f"| autoregressive | {fitted.label} | {score:.3f} | {mean.value:.3f} ± {mean.stderr:.3f} | |",
    ]
    verdicts = []
    for name, (label, on_select, theirs) in peers.items():
        other = mean_of_rows(theirs, "exact", clusters=clusters)
        gain = paired_difference(ours, theirs, fitted.log_prob_kind, "exact", clusters=clusters)
        lines.append(f"| {name} | {label} | {on_select:.3f} | {other.value:.3f} ± {other.stderr:.3f} | {shown(gain)} |")
        verdicts.append(f"Over {name}. {claim(gain, 0.0)}")
    lines += [
        "",
        *verdicts,
        "",
        f"The mixture was chosen on select from parts in {list(PARTS)}, counts in {list(COUNTS)} and {STARTS} starts each.",
    ]
    return lines
