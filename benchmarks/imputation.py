"""Imputation: hidden cells of penguins and of California's numeric columns, beside the median and scikit-learn's imputer.

    python -m benchmarks.imputation [--effort quick] [--families gaussian factor mixture kde] [--smoke] [-o FILE]

Twenty random masks hide 10 % of the cells of rows that no model has seen (penguins: three folds, each filled by models of
the others; California: test rows). Errors are absolute, in units of each column's standard deviation in the training
rows. Our guess is the median of p(cell | cells that are there), which makes that error least; intervals are at 90 %, of
the model itself and calibrated on the select rows. scikit-learn's ``IterativeImputer`` is fitted to the train *and* select
rows, once to the columns as they are and once on the scale (logarithms) that ours have.
"""

from __future__ import annotations

import argparse
import time
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import mulligan as mg
from benchmarks.common import SHARED, fit_family, say
from mulligan.catalog import Effort
from mulligan.data.grid import transform, untransform
from mulligan.data.table import Schema, Table
from mulligan.workbench.fitted import Fitted
from mulligan.workbench.imputation import impute
from mulligan.workbench.preparation import Prepared, prepare

MASKS, SHARE, LEVEL = 20, 0.1, 0.9
ROWS = 200  # of California's test rows in each mask
FOLDS = 3
SKEWED = ("total_rooms", "total_bedrooms", "population", "households", "median_income", "median_house_value")
PEERS = ("column median", "IterativeImputer, columns as they are", "IterativeImputer, our scale")


class Errors(NamedTuple):
    """Standardised absolute errors (c,) of hidden cells, and whether each interval held (c,), both kinds."""

    absolute: np.ndarray
    plain: np.ndarray
    calibrated: np.ndarray
    mask: np.ndarray


def numeric(table: Table) -> Table:
    """The numeric columns alone."""
    kept = [j for j, c in enumerate(table.schema.modelled) if c.kind in ("continuous", "gridded", "integer")]
    schema = Schema(tuple(table.schema.modelled[j] for j in kept))
    return replace(table, schema=schema, values=table.values[:, kept])


def penguins(smoke: bool, rows: int | None = None) -> list[tuple[Prepared, Table]]:
    """Each fold as a table whose test part it is."""
    table = numeric(mg.read("penguins"))
    fold = np.random.default_rng(17).permutation(len(table)) % FOLDS
    prepared = []
    for k in range(1 if smoke else FOLDS):
        chance = np.random.default_rng([17, k]).random(len(table))
        parts = np.where(fold == k, "test", np.where(chance < 0.25, "select", "train"))
        prepared.append(prepare(replace(table, parts=parts, treated_as_iid=True), seed=0))
    return [(one, one.read_test("benchmark")) for one in prepared]


def california(smoke: bool, rows: int | None = None) -> list[tuple[Prepared, Table]]:
    """One split of the numeric columns, the skewed ones as logarithms."""
    options: dict[str, Any] = {"rows": 2000} if smoke else {"rows": rows}
    path = str(SHARED / "california_housing.csv")
    table = mg.read(path, missing="drop", transform=dict.fromkeys(SKEWED, "log"), **options)
    prepared = prepare(numeric(table), seed=0)
    return [(prepared, prepared.read_test("benchmark"))]


def masks_of(rows: int, columns: int, most: int, fold: int, masks: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """For each mask the rows it is for, and which of their cells it hides."""
    found = []
    for k in range(masks):
        generator = np.random.default_rng([23, fold, k])
        chosen = np.sort(generator.permutation(rows)[:most])
        found.append((chosen, generator.random((len(chosen), columns)) < SHARE))
    return found


def ours(fitted: Fitted, prepared: Prepared, test: Table, masks: list, scale: np.ndarray) -> list[Errors]:
    """Errors of a family on every mask; all masks are filled in one call."""
    rows = np.concatenate([chosen for chosen, _ in masks])
    hidden = np.concatenate([mask for _, mask in masks])
    which = np.repeat(np.arange(len(masks)), [len(mask) for _, mask in masks])
    truth = test.values[rows]
    table = test.with_values(np.where(hidden, np.nan, truth))
    plain = impute(fitted, table, times=1, seed=3, level=LEVEL)
    calibrated = impute(fitted, table, times=1, seed=3, level=LEVEL, calibrate=prepared.rows_of("select"))
    at = tuple(plain.cells.T)
    error = np.abs(plain.fill("median").values[at] - truth[at]) / scale[at[1]]
    held = [(one.low <= truth[at]) & (truth[at] <= one.high) for one in (plain, calibrated)]
    return [Errors(error, *held, which[at[0]])]


def theirs(prepared: Prepared, test: Table, masks: list, scale: np.ndarray) -> dict[str, list[Errors]]:
    """The same of the column median and of scikit-learn's imputer."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.experimental import enable_iterative_imputer  # noqa: F401 - makes the next import possible
    from sklearn.impute import IterativeImputer

    columns = test.schema.modelled
    known = np.concatenate([prepared.rows_of("train").values, prepared.rows_of("select").values])

    def forward(values: np.ndarray) -> np.ndarray:
        return np.stack([transform(c, v)[0] for c, v in zip(columns, values.T)], axis=1)

    def back(values: np.ndarray) -> np.ndarray:
        return np.stack([untransform(c, v) for c, v in zip(columns, values.T)], axis=1)

    imputers = [IterativeImputer(max_iter=50, random_state=0) for _ in range(2)]
    found: dict[str, list[Errors]] = {name: [] for name in PEERS}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        imputers[0].fit(known)
        imputers[1].fit(forward(known))
        for k, (chosen, hidden) in enumerate(masks):
            truth = test.values[chosen]
            shown = np.where(hidden, np.nan, truth)
            median = np.broadcast_to(np.median(known, axis=0), truth.shape)
            guesses = (median, imputers[0].transform(shown), back(imputers[1].transform(forward(shown))))
            at = np.nonzero(hidden)
            for name, guess in zip(PEERS, guesses):
                error = np.abs(guess[at] - truth[at]) / scale[at[1]]
                nothing = np.zeros(len(error), bool)
                found[name].append(Errors(error, nothing, nothing, np.full(len(error), k)))
    return found


def joined(errors: list[Errors]) -> Errors:
    """One record of several folds."""
    return Errors(*(np.concatenate(parts) for parts in zip(*errors)))


def share(held: np.ndarray, mask: np.ndarray) -> str:
    """A share in per cent with its standard error over masks."""
    each = np.array([held[mask == k].mean() for k in np.unique(mask)])
    return f"{100 * held.mean():.1f} ± {100 * each.std(ddof=1) / np.sqrt(len(each)):.1f} %"


def page(name: str, folds: list[tuple[Prepared, Table]], families: list[str], effort: Effort, smoke: bool) -> list[str]:
    """The table of one data set."""
    errors: dict[str, list[Errors]] = {}
    labels: dict[str, str] = {}
    for fold, (prepared, test) in enumerate(folds):
        scale = prepared.rows_of("train").values.std(axis=0)
        masks = masks_of(len(test), test.values.shape[1], ROWS, fold, 3 if smoke else MASKS)
        for peer, found in theirs(prepared, test, masks, scale).items():
            errors.setdefault(peer, []).extend(found)
        for family in families:
            fitted, _ = fit_family(prepared, family, effort)
            labels.setdefault(family, fitted.label)
            began = time.perf_counter()
            errors.setdefault(family, []).extend(ours(fitted, prepared, test, masks, scale))
            say(f"{name} {family}: imputed in {time.perf_counter() - began:.1f} s")
    whole = {label: joined(found) for label, found in errors.items()}
    cells = len(next(iter(whole.values())).absolute)
    best = min(whole[peer].absolute.mean() for peer in PEERS[1:])
    lines = [f"## {name}: {cells:,} hidden cells in {3 if smoke else MASKS} masks", ""]
    lines += [
        "| method | standardised MAE | minus median | minus the better IterativeImputer | 90 % interval holds | calibrated |"
    ]
    lines += ["|---|---|---|---|---|---|"]
    for label, found in whole.items():
        mean = found.absolute.mean()
        gains = f"{mean - whole[PEERS[0]].absolute.mean():+.4f} | {mean - best:+.4f}"
        row = f"| {labels.get(label, label)} | {mean:.4f} | {gains} |"
        held = ("", "") if label in PEERS else (share(found.plain, found.mask), share(found.calibrated, found.mask))
        lines.append(f"{row} {held[0]} | {held[1]} |")
    ours_ = [label for label in whole if label not in PEERS]
    below = [label for label in ours_ if whole[label].absolute.mean() < best]
    above = [label for label in ours_ if whole[label].absolute.mean() >= whole[PEERS[0]].absolute.mean()]
    outside = [label for label in ours_ if not 0.88 <= whole[label].calibrated.mean() <= 0.92]
    own = [label for label in ours_ if not 0.88 <= whole[label].plain.mean() <= 0.92]
    lines += [
        "",
        f"Not below the column median: {', '.join(above) or 'none'}. Below the better IterativeImputer: "
        f"{', '.join(below) or 'none'}. Intervals outside 88-92 %: calibrated {', '.join(outside) or 'none'}; the models' "
        f"own {', '.join(own) or 'none'}.",
        "",
    ]
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--effort", choices=("quick", "standard", "thorough"), default="quick")
    parser.add_argument("--families", nargs="+", default=["gaussian", "factor", "mixture", "kde"])
    parser.add_argument("--only", nargs="+", choices=("penguins", "california"), default=["penguins", "california"])
    parser.add_argument("--rows", type=int, default=None, help="of California's table; default: all")
    parser.add_argument("--smoke", action="store_true", help="few rows and masks: prints, and writes nothing")
    parser.add_argument("-o", type=Path, default=Path(__file__).parent / "results" / "imputation.md")
    options = parser.parse_args()
    began = time.perf_counter()
    lines = ["# Imputation", "", " ".join((__doc__ or "").split("\n\n")[2].split()), ""]
    for name, make in (("penguins", penguins), ("california", california)):
        if name in options.only:
            lines += page(name, make(options.smoke, options.rows), options.families, options.effort, options.smoke)
    some = f" --rows {options.rows}" if options.rows else ""
    some = f"--effort {options.effort}{some} --families {' '.join(options.families)}"
    lines += [f"`python -m benchmarks.imputation {some}`, "
              f"{(time.perf_counter() - began) / 60:.1f} minutes."]  # fmt: skip
    print("\n".join(lines), flush=True)
    if not options.smoke:
        options.o.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
