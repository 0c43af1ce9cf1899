"""How good a fitted family is: its row of the report. The test part is read here, once a family, and nowhere else."""

from __future__ import annotations

import time
from typing import Any, NamedTuple

import numpy as np

from mulligan.catalog import FAMILIES
from mulligan.core import Density, Sampler
from mulligan.data.codec import SCORING_DRAWS
from mulligan.data.grid import has_cells
from mulligan.data.table import Table
from mulligan.families.recipe import Outcome
from mulligan.measures.coverage import holes_found
from mulligan.measures.distances import two_sample_auc
from mulligan.measures.likelihood import RowLikelihood, common_error, draw_error, row_likelihood
from mulligan.measures.normalisation import MOST_COORDINATES, complaints, integral_of_model
from mulligan.quantity import Quantity, bits_per_dimension, difference_kind, mean_of_rows, none
from mulligan.workbench.anomaly import keep_scores, p_value_check
from mulligan.workbench.anomaly import told as told_of_p_values
from mulligan.workbench.fitted import Fitted
from mulligan.workbench.fitting import Timing
from mulligan.workbench.likeness import likeness, use_of_samples
from mulligan.workbench.preparation import Prepared

DRAWS = 10_000
PICTURES = 2000  # draws where a row is a picture
PICTURED = 2000
FRESH = 100_000
FRESH_SEED = 1_000_003  # far from any data seed that people choose, so that fresh draws are fresh
MOST_OUTSIDE = 0.01
HEAVY_SHARE = 0.5


class Evidence(NamedTuple):
    """What a comparison keeps of a family beside its row: test log p (or None) and some of its draws."""

    test: RowLikelihood | None
    samples: np.ndarray
    select_score: float | None


def assess(
    fitted: Fitted, outcome: Outcome, timing: Timing, prepared: Prepared, seed: int
) -> tuple[dict[str, Any], Evidence]:
    """The family's row of ``report.json`` (without the difference to the best), and what it rests on."""
    test = prepared.read_test(fitted.family if fitted.variant is None else f"{fitted.family}:{fitted.variant}")
    draws, sample_seconds = _drawn(fitted, test, seed)
    entry = FAMILIES.get(fitted.family)  # a user's own model has none
    density = isinstance(fitted.model, Density)
    terms = fitted.row_likelihood(test) if density else None
    select_score = float(fitted.calibration.mean()) if density else None
    log_prob = None if terms is None else terms.log_prob
    keep_scores(fitted, test, seed, log_prob)
    row: dict[str, Any] = {
        "family": fitted.family if fitted.variant is None else f"{fitted.family}:{fitted.variant}",
        "label": fitted.label,
        "log_prob": _log_prob(fitted, terms, test, prepared).to_json(),
        "delta_to_best": None,
        "truth_gap": None,
        "two_sample_auc": None,
        "samples": None,
        "use": None,
        "anomaly": p_value_check(fitted, prepared.rows_of("select"), test, prepared.test_clusters, seed, log_prob),
        "holes": None,
        "strokes": _strokes(entry.strokes, fitted) if entry else None,
        "chains": int(entry.balls) if entry and entry.balls.isdigit() else None,
        "parameters": outcome.parameters,
        "fit_seconds": timing.fit_seconds,
        "compile_seconds": timing.compile_seconds,
        "steps": outcome.steps,
        "sample_seconds_per_1000": sample_seconds,
        "health": [*outcome.health, *_heavy(terms), *_not_normalised(fitted, draws is not None, seed)],
        "status": "ok",
        "reason": None,
        "select_log_prob": select_score,
        "choices": outcome.choices,
        "table": outcome.table if prepared.table.schema.image is None else None,  # a number a pixel is no reading
    }
    row["health"] += told_of_p_values(row["anomaly"])
    if draws is not None:
        # samples are whole rows: they are compared with the test rows that are whole, too
        whole = np.flatnonzero(~np.isnan(test.values).any(axis=1))
        test, clusters = test.rows(whole), prepared.test_clusters[whole]
        judged = test.values, draws.values[: len(test)], fitted.schema, seed, clusters
        row["two_sample_auc"] = two_sample_auc(*judged).to_json()
        row["holes"] = _holes(prepared.table, draws)
        row["samples"], told = likeness(fitted, prepared, test, draws, seed, clusters)
        row["use"] = use_of_samples(fitted, prepared, test, draws, seed, clusters)
        row["health"] += [*_outside(prepared.table, draws), *told]
    if prepared.table.schema.image is not None:
        bits = bits_per_dimension(Quantity.from_json(row["log_prob"]), prepared.table.schema.image.pixels)
        row["bits_per_dim"] = bits.to_json()
    if density and prepared.table.source.law is not None and not fitted.given:
        row["truth_gap"] = truth_gap(fitted, prepared.table.source.law).to_json()
    pictured = np.zeros((0, test.values.shape[1])) if draws is None else draws.values[:PICTURED]
    return row, Evidence(terms, pictured, select_score)


def _drawn(fitted: Fitted, test: Table, seed: int) -> tuple[Table | None, float | None]:
    """Samples to judge, and the seconds that 1,000 take; None for a model that is no sampler (a user's own)."""
    if not isinstance(fitted.model, Sampler):
        return None, None
    given = test if fitted.given else None  # a conditional model draws beside the test rows' given columns
    fitted.sample(1, seed, given)  # compiles, so that the next line measures drawing
    # A picture may take hundreds of strokes: as many draws as a classifier two-sample test can use.
    wanted = max(DRAWS, len(test)) if test.schema.image is None else PICTURES
    began = time.perf_counter()
    draws = fitted.sample(wanted, seed, given)
    return draws, 1000 * (time.perf_counter() - began) / wanted


def _strokes(declared: str, fitted: Fitted) -> float | None:
    """Network evaluations a sample: the catalog's number, one for each column, or what the model itself says."""
    if declared == "model":
        return float(fitted.model.strokes)
    if declared == "columns":
        return float(fitted.codec.dim)
    return float(declared) if declared.isdigit() else None


def failed_row(family: str, reason: str) -> dict[str, Any]:
    """The row of a family that could not be fitted."""
    empty = dict.fromkeys(
        ("delta_to_best", "truth_gap", "two_sample_auc", "holes", "strokes", "chains", "parameters", "fit_seconds")
    )
    more = dict.fromkeys(("compile_seconds", "steps", "sample_seconds_per_1000", "select_log_prob", "table"))
    log_prob = none("the fit failed", "nats/row").to_json()
    state = {"status": "failed", "reason": reason, "health": [], "choices": []}
    return {"family": family, "label": family, "log_prob": log_prob, **empty, **more, **state}


def truth_gap(fitted: Fitted, law_name: str, rows: int = FRESH, seed: int = FRESH_SEED) -> Quantity:
    """E[log p_true(x) − log p_model(x)], x fresh from the law: the divergence KL(p_true‖p_model) in nats a row.

    The mean of the paired differences over ``rows`` draws that no fit has seen, with its standard error.
    """
    from mulligan.targets.named import draw_table, law

    known = law(law_name)
    fresh = draw_table(law_name, rows, seed)
    values, inverse = np.unique(fresh.values, axis=0, return_inverse=True)  # a discrete law has few distinct rows
    codec = fitted.codec
    draws = min(1024, max(SCORING_DRAWS, 200_000 // len(values)))  # few distinct rows: their shared noise matters
    terms = row_likelihood(fitted.model, codec.encode(values, draws))
    truth = _true_log_prob(known, values)
    inverse = inverse.reshape(-1)
    counts = np.bincount(inverse)
    m = terms.influence.shape[1]
    variance = np.sum(terms.influence**2, axis=1) / max(m * (m - 1), 1)
    error = float(np.sqrt(np.sum((counts**2 - counts) * variance))) / rows  # as draw_error, from counts
    error = float(np.hypot(error, common_error(fitted.model)))
    kind, note = difference_kind(known.kind, fitted.log_prob_kind)
    note = "; ".join(part for part in (f"{rows:,} fresh draws of {law_name}", note) if part)
    return mean_of_rows((truth - terms.log_prob)[inverse], kind, note=note, method_stderr=error)


def _true_log_prob(known: Density, values: np.ndarray) -> np.ndarray:
    from mulligan.measures.likelihood import point_log_prob

    return point_log_prob(known, values.astype(np.float32))


def _log_prob(fitted: Fitted, terms: RowLikelihood | None, test: Table, prepared: Prepared) -> Quantity:
    if terms is None:
        return none(f"{fitted.family} has no density", "nats/row")
    clusters = prepared.test_clusters
    error = float(np.hypot(draw_error(terms.influence, test.values, clusters), common_error(fitted.model)))
    return mean_of_rows(terms.log_prob, fitted.log_prob_kind, clusters=clusters, method_stderr=error)


def _heavy(terms: RowLikelihood | None) -> list[str]:
    """A sentence where one test row carries most of the variance: no interval from so few rows can be trusted then."""
    if terms is None or len(terms.log_prob) < 3:
        return []
    square = (terms.log_prob - terms.log_prob.mean()) ** 2
    share = float(square.max() / max(float(square.sum()), 1e-300))
    if not share > HEAVY_SHARE:
        return []
    worst = float(terms.log_prob[int(square.argmax())])
    return [
        f"one test row (log p {worst:.1f}) makes {100 * share:.0f} % of the variance: the interval may claim too much"
    ]


def _not_normalised(fitted: Fitted, sampler: bool, seed: int) -> list[str]:
    """A sentence where a density of few continuous columns does not integrate to 1 (a bound: to more)."""
    model, codec = fitted.model, fitted.codec
    if not isinstance(model, Density) or not sampler or fitted.given or codec.dim > MOST_COORDINATES:
        return []
    if any(has_cells(column) for column in codec.schema.modelled):
        return []  # log p of a row is then no density of R^d
    bound = fitted.log_prob_kind == "lower bound"
    return complaints(integral_of_model(model, seed), bound)


def _holes(table: Table, draws: Table) -> dict[str, Any] | None:
    if table.source.law is None:
        return None
    from mulligan.targets.named import law

    holes = law(table.source.law).holes
    if holes is None:
        return None
    return holes_found(draws.values[:DRAWS], holes.centres, holes.radius, holes.shares)


def _outside(table: Table, draws: Table) -> list[str]:
    """Sentences on samples outside the observed range: the mass that a transform would have to keep in."""
    sentences: list[str] = []
    if table.schema.image is not None:  # decoded to one of its levels
        return sentences
    for j, column in enumerate(table.schema.modelled):
        if column.kind in ("binary", "categorical"):
            continue
        low, high = np.nanmin(table.values[:, j]), np.nanmax(table.values[:, j])
        below, above = float((draws.values[:, j] < low).mean()), float((draws.values[:, j] > high).mean())
        negative = float((draws.values[:, j] < 0).mean())
        if low >= 0 and negative > MOST_OUTSIDE:
            sentences.append(
                f"{100 * negative:.1f} % of samples have {column.name} below 0, and no row does "
                f"(--transform {column.name}=log, if it must be positive)"
            )
        elif below + above > MOST_OUTSIDE:
            sentences.append(f"{100 * (below + above):.1f} % of samples have {column.name} outside [{low:g}, {high:g}]")
    return sentences
