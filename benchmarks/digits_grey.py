"""Grey digits (scikit-learn's 1 797 digits of 8 by 8, 17 levels): bits per dimension of every family, beside our mixture.

All families that a comparison would take are fitted ``SEEDS`` times to one split, with their own choices on select. Of a row
the mean of its log p over the trainings is taken, so its error is that of rows; the spread of trainings stands beside it.
Models on R^d have a lower bound of log p (16 draws of the dequantisation), so a difference to them is an upper bound of the
true one where the other side is exact. How loose the bound is, the mixture says with more draws on the same rows.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import mulligan as mg
from benchmarks.common import say
from mulligan.catalog import Effort, Family, find_family
from mulligan.core import Density, Sampler
from mulligan.errors import MulliganError
from mulligan.measures.likelihood import row_log_prob
from mulligan.quantity import Kind, Quantity, bits_per_dimension, mean_of_rows, paired_difference
from mulligan.report.png import png_bytes, sheet
from mulligan.workbench.choosing import families_for
from mulligan.workbench.fitted import Fitted
from mulligan.workbench.fitting import fit_prepared
from mulligan.workbench.likeness import likeness
from mulligan.workbench.preparation import Prepared, prepare
from mulligan.workbench.talk import Talk

REFERENCE = "mixture"
MORE = ("flow:autoregressive",)  # beside those of ``mulligan compare digits``
SEEDS = 3
DRAWN, SHOWN = 2000, 16
TIGHTER = 256  # draws of the mixture's tighter bound
GOAL = 3


class Row(NamedTuple):
    """One family: of each test row the mean log p over the trainings, (n,), or None; each training's mean; draws; words."""

    name: str
    label: str
    kind: Kind = "none"
    log_prob: np.ndarray | None = None
    trainings: tuple[float, ...] = ()
    select: float | None = None
    draws: np.ndarray | None = None
    copied: str = ""
    seconds: float = 0.0
    reason: str = ""


def digits_grey(effort: Effort, smoke: bool = False, folder: Path | None = None) -> list[str]:
    """The page of results, and the sheet of samples in ``folder``; ``smoke`` is two families, trained once."""
    prepared = prepare(mg.read("digits"), seed=0)
    chosen, notes = families_for(prepared, None, False)
    chosen |= {name: find_family(name) for name in MORE}
    if smoke:
        chosen = {name: chosen[name] for name in ("gaussian", REFERENCE)}
    rows: list[Row] = []
    mixture: Fitted | None = None
    for name, (entry, variant) in chosen.items():
        row, fitted = judged(prepared, name, entry, variant, effort, 1 if smoke else SEEDS)
        rows.append(row)
        mixture = fitted if name == REFERENCE else mixture
        say(f"  {row.label}: {np.round(row.trainings, 2).tolist()} nats a row, {row.seconds:.0f} s {row.reason}")
    reference = next(row for row in rows if row.name == REFERENCE)
    if mixture is None or reference.log_prob is None:
        raise SystemExit(f"the mixture failed: {reference.reason}")
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "digits_grey.png").write_bytes(pictured(prepared, rows))
    return page(prepared, rows, reference, mixture, [*prepared.notes, *notes], effort)


def judged(
    prepared: Prepared, name: str, entry: Family, variant: str | None, effort: Effort, seeds: int
) -> tuple[Row, Fitted | None]:
    """All trainings of a family, and the best of them on select; a failing one is a row with its reason."""
    began = time.perf_counter()
    found: list[Fitted] = []
    options = entry.parse_options({})
    try:
        for seed in range(seeds):
            fitted, outcome, _ = fit_prepared(
                prepared, entry, variant, options, seed=seed, effort=effort, budget=None, steps=None, talk=Talk()
            )
            if outcome.failed is not None:
                raise mg.FitError(outcome.failed)
            found.append(fitted)
    except Exception as error:  # of whatever kind: one family's failure is not the end of the page
        reason = f"{'' if isinstance(error, MulliganError) else type(error).__name__ + ': '}{error}".splitlines()[0]
        return Row(name, name, seconds=time.perf_counter() - began, reason=reason), None
    seconds = (time.perf_counter() - began) / len(found)
    best, test = max(found, key=chosen_by), prepared.read_test(name)
    draws, copied = None, ""
    if isinstance(best.model, Sampler):
        drawn = best.sample(DRAWN, seed=0)
        draws = drawn.values
        quality, _ = likeness(best, prepared, test, drawn, 0)
        share, chance = (quality.get(key, {}) for key in ("copied", "copied_p"))
        if share.get("value") is not None:
            copied = f"{100 * share['value']:.0f} % ± {100 * share['stderr']:.0f} (p = {chance['value']:.4f})"
    if not isinstance(best.model, Density):
        return Row(name, best.label, draws=draws, copied=copied, seconds=seconds, reason="no log p"), best
    scores = np.stack([one.log_prob(test) for one in found])
    select = float(np.mean([one.calibration.mean() for one in found]))
    means = tuple(scores.mean(axis=1).tolist())
    kind = best.log_prob_kind
    return Row(name, best.label, kind, scores.mean(axis=0), means, select, draws, copied, seconds), best


def chosen_by(fitted: Fitted) -> float:
    """Mean log p of the select rows; 0 without a density."""
    return float(fitted.calibration.mean()) if fitted.calibration.size else 0.0


def page(
    prepared: Prepared, rows: list[Row], reference: Row, mixture: Fitted, notes: list[str], effort: Effort
) -> list[str]:
    """Rows from the best on test to the worst, and the verdict."""
    pixels = len(prepared.table.schema.modelled)
    clusters = prepared.test_clusters
    ordered = sorted(rows, key=lambda row: -np.inf if row.log_prob is None else -float(row.log_prob.mean()))
    ordered = [row for row in ordered if row.log_prob is not None] + [row for row in ordered if row.log_prob is None]
    train, select = (len(prepared.rows_of(part)) for part in ("train", "select"))  # type: ignore[arg-type]
    lines = [
        "# Grey digits",
        "",
        *(f"- {note}" for note in notes),
        "",
        f"{train} training, {select} select and {len(clusters)} test rows of {pixels} pixels. Lower is better. "
        f"{len(reference.trainings)} trainings of each family at {effort} effort; ± is the error of rows, clustered as the "
        "split is; trainings are from the best to the worst. The difference is the mixture's minus the family's.",
        "",
        "| family | model | test, bits/dim | kind | trainings | mixture minus it, paired | copies | seconds a training |",
        "|---|---|---|---|---|---|---|---|",
    ]
    better = []
    for row in ordered:
        if row.log_prob is None:
            lines.append(f"| {row.name} | {row.label} | | {row.reason} | | | {row.copied} | {row.seconds:.0f} |")
            continue
        bits = bits_per_dimension(mean_of_rows(row.log_prob, row.kind, clusters=clusters), pixels)
        ends = sorted(-score / pixels / np.log(2) for score in row.trainings)
        gain = None if row.name == REFERENCE else gained(row, reference, clusters, pixels)
        better += [row.name] if gain is not None and gain[1] > 0 else []
        lines.append(
            f"| {row.name} | {row.label} | {bits.value:.3f} ± {bits.stderr:.3f} | {bits.kind} | "
            f"{ends[0]:.3f} to {ends[-1]:.3f} | {'' if gain is None else gain[0]} | {row.copied} | {row.seconds:.0f} |"
        )
    tighter = row_log_prob(mixture.model, mixture.codec.encode(prepared.test_rows, TIGHTER))
    usual = row_log_prob(mixture.model, mixture.codec.encode(prepared.test_rows))
    slack = float((tighter - usual).mean()) / pixels / np.log(2)
    verdict = "holds" if len(better) >= GOAL else "does not hold"
    lines += [
        "",
        f"At least {GOAL} families beat our mixture, by the lower end of the interval: **{verdict}** "
        f"({len(better)}: {', '.join(better)}). With {TIGHTER} draws a row in place of 16 the mixture's bound is "
        f"{slack:.3f} bits/dim better.",
        "",
        "![Samples: the first ones drawn](digits_grey.png)",
        "",
        f"From above: test rows, then {', '.join(row.name for row in ordered if row.draws is not None)}. Copies: the share "
        f"of {DRAWN:,} samples beyond chance whose nearest row is a training row and not a test row.",
    ]
    return lines


def gained(row: Row, reference: Row, clusters: np.ndarray, pixels: int) -> tuple[str, float]:
    """How many bits per dimension fewer than the mixture: in words, and the lower end of the 95 % interval."""
    difference: Quantity = paired_difference(
        row.log_prob,
        reference.log_prob,
        row.kind,
        reference.kind,
        clusters=clusters,  # type: ignore[arg-type]
    )
    by = pixels * np.log(2)
    # Of an upper bound the interval has one end; the differences themselves have two.
    low = difference.value - 1.96 * difference.stderr if difference.low is None else difference.low  # type: ignore[operator]
    words = f"{difference.value / by:.3f} ± {difference.stderr / by:.3f}"  # type: ignore[operator]
    return words, float(low / by)


def pictured(prepared: Prepared, rows: list[Row]) -> bytes:
    """One line of the first samples of each family, below one of the first test rows."""
    image: Any = prepared.table.schema.image
    ordered = sorted((row for row in rows if row.log_prob is not None), key=lambda row: -float(row.log_prob.mean()))  # type: ignore[union-attr]
    ordered += [row for row in rows if row.log_prob is None]
    lines = [prepared.test_rows[:SHOWN], *(row.draws[:SHOWN] for row in ordered if row.draws is not None)]
    pictures = np.concatenate(lines).reshape(-1, image.height, image.width, image.channels)
    return png_bytes(sheet(pictures, image.levels, SHOWN))
