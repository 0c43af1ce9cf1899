"""California housing (mixed columns, caps, one category): our families beside scikit-learn's mixture on the same codec.

The mixture and the flow of ours, and scikit-learn's mixture, live on the same encoded points: log p of a row is the same
lower bound for each, with the same 16 draws. ``autoregressive`` has its own codec and exact probabilities on the same base
measure, so its difference to a bound is an upper bound of the true difference. More draws on fewer rows say by how much.
"""

from __future__ import annotations

from typing import Any

import numpy as np

import mulligan as mg
from benchmarks.common import SHARED, Peer, as_rows, best_peer, claim, fit_family, say, shown
from mulligan.catalog import Effort
from mulligan.measures.likelihood import row_log_prob
from mulligan.quantity import mean_of_rows, paired_difference
from mulligan.workbench.fitted import Fitted
from mulligan.workbench.preparation import Prepared, prepare

FAMILIES = ("mixture", "flow", "autoregressive")
PARTS = (1, 2, 5, 10, 20, 40, 80, 160)
REGULARISATIONS = (1e-6, 1e-3, 1e-2)
LEAST = 0.2
DRAWS = (16, 64, 256)
SUBSET = 1000


def california(effort: Effort, smoke: bool = False) -> list[str]:
    """The page of results; ``smoke`` is fewer rows, parts and draws."""
    path = str(SHARED / "california_housing.csv")
    prepared = prepare(mg.read(path, missing="drop", **({"rows": 2000} if smoke else {})), seed=0)
    say(f"california: {len(prepared.split.train)} training rows, {prepared.codec.dim} encoded columns")
    fits: dict[str, Fitted] = {}
    scores, log_p = {}, {}
    for family in FAMILIES:
        fits[family], scores[family] = fit_family(prepared, family, effort)
        log_p[family] = fits[family].log_prob(prepared.read_test(family))
    peer = best_peer(prepared, PARTS[:4] if smoke else PARTS, ("full",), REGULARISATIONS)
    theirs = as_rows(peer.model, prepared.codec.encode(prepared.test_rows))
    edge = "; the most parts on offer" if peer.at_edge else ""
    lines = ["# California housing", "", *(f"- {note}" for note in prepared.notes), ""]
    lines += ["Test log p, nats/row; a bound has 16 draws a row. Errors are clustered as the split is.", ""]
    lines += ["| model | chosen | select | test | minus scikit-learn's mixture, paired |", "|---|---|---|---|---|"]
    clusters = prepared.test_clusters
    differences = {}
    for family, fitted in fits.items():
        kind = fitted.log_prob_kind
        differences[family] = paired_difference(log_p[family], theirs, kind, "lower bound", clusters=clusters)
        mean = mean_of_rows(log_p[family], kind, clusters=clusters)
        gain = f"{shown(differences[family])}, {differences[family].kind}"
        lines.append(f"| {family} | {fitted.label} | {scores[family]:.3f} | {mean} | {gain} |")
    mean = mean_of_rows(theirs, "lower bound", clusters=clusters)
    lines += [f"| scikit-learn's mixture | {peer.label}{edge} | {peer.select:.3f} | {mean} | |", ""]
    bounded = [family for family in FAMILIES if fits[family].log_prob_kind == "lower bound"]
    best, first = max(bounded, key=scores.__getitem__), max(scores, key=scores.__getitem__)
    lines += [
        f"Of the families on the same codec select chose {best}: {shown(differences[best])} nats/row over scikit-learn's "
        f"mixture, bound against bound. {claim(differences[best], LEAST)}",
        "",
        f"Of all families select chose {first}. scikit-learn's mixture was chosen on the same select rows from parts in "
        f"{list(PARTS)}, full covariances, reg_covar in {list(REGULARISATIONS)}.",
        "",
        *_slack(prepared, fits, peer, 100 if smoke else SUBSET, DRAWS[:2] if smoke else DRAWS),
        *_prices(fits[first], prepared),
    ]
    return lines


def _slack(prepared: Prepared, fits: dict[str, Fitted], peer: Peer, subset: int, draws: tuple[int, ...]) -> list[str]:
    """The bounds with more draws on some test rows: how much of a difference to an exact number is the bound's slack."""
    most = len(prepared.test_rows)
    chosen = np.sort(np.random.default_rng(0).choice(most, min(subset, most), replace=False))
    rows, clusters = prepared.test_rows[chosen], prepared.test_clusters[chosen]
    bounds: dict[str, dict[int, np.ndarray]] = {name: {} for name in ("scikit-learn's mixture", *fits)}
    for m in draws:
        encoded = prepared.codec.encode(rows, m)
        bounds["scikit-learn's mixture"][m] = as_rows(peer.model, encoded)
        for name, fitted in fits.items():
            own = encoded if fitted.codec.dequantises else fitted.codec.encode(rows)
            bounds[name][m] = row_log_prob(fitted.model, own)
    theirs = bounds["scikit-learn's mixture"]
    lines = [f"## The slack of the bound, {len(rows):,} test rows", ""]
    lines += [
        f"| model | {' | '.join(f'{m} draws' for m in draws)} | minus scikit-learn's mixture, {draws[-1]} draws |"
    ]
    lines += ["|---" * (len(draws) + 2) + "|"]
    for name, found in bounds.items():
        means = " | ".join(f"{values.mean():.3f}" for values in found.values())
        gain = ""
        if name in fits:
            kind = fits[name].log_prob_kind
            gap = paired_difference(found[draws[-1]], theirs[draws[-1]], kind, "lower bound", clusters=clusters)
            gain = f"{shown(gap)}, {gap.kind}"
        lines.append(f"| {name} | {means} | {gain} |")
    rise = paired_difference(theirs[draws[-1]], theirs[draws[0]], "estimate", "estimate", clusters=clusters)
    last = float((theirs[draws[-1]] - theirs[draws[-2]]).mean())
    lines += [
        "",
        f"From {draws[0]} to {draws[-1]} draws scikit-learn's mixture gains {shown(rise)} nats/row, {last:.3f} of it from "
        f"{draws[-2]} on: so much of an exact number's lead over the bound with {draws[0]} draws is the bound's slack.",
        "",
    ]
    return lines


def _prices(fitted: Fitted, prepared: Prepared) -> list[str]:
    """Samples are valid rows: prices in hundreds, and at the cap as often as in the data."""
    draws: Any = fitted.sample(10_000, seed=0)
    price, data = draws["median_house_value"], prepared.table["median_house_value"]
    on_grid = (price % 100 == 0) | np.isin(price, (500_001, 14_999))
    at_cap = [100 * float((prices == 500_001).mean()) for prices in (price, data)]
    return [
        f"Samples of {fitted.family}: {100 * on_grid.mean():.2f} % of the prices are in hundreds or at a cap; "
        f"{at_cap[0]:.1f} % at the upper cap (data {at_cap[1]:.1f} %)."
    ]
