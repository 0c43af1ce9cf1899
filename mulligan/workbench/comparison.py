"""``compare`` families on equal terms, and the ``Scorecard`` that comes out.

Differences are taken against the family that was best on *select*: chosen without the test rows, so that their interval
is not narrowed by having picked the winner on the same rows (see docs/architecture.md).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mulligan.catalog import Brought, Effort, Family, find_family
from mulligan.core import Density
from mulligan.errors import FitError, MulliganError, UsageError
from mulligan.families.recipe import Outcome
from mulligan.measures.likelihood import RowLikelihood, common_error, draw_error
from mulligan.quantity import Kind, Quantity, paired_difference
from mulligan.report.html import write_html
from mulligan.report.reading import reading
from mulligan.report.writing import to_markdown, write_json, write_whole
from mulligan.workbench.assessment import Evidence, assess, failed_row
from mulligan.workbench.choosing import canonical, families_for
from mulligan.workbench.fitted import Fitted
from mulligan.workbench.fitting import Timing, fit_prepared, reproduction, unhealthy
from mulligan.workbench.preparation import Prepared, data_entry, prepare, split_entry
from mulligan.workbench.sources import open_rows, open_table
from mulligan.workbench.talk import Talk

FLOAT32_SHARE = 1e-6  # of log p: what ten or so operations in single precision may add


@dataclass
class Scorecard:
    """``report`` is ``report.json`` as a dictionary, ``pictures`` the arrays that its figures are drawn from.

    ``interrupted`` is True if Ctrl-C ended the comparison; what was finished stays.
    """

    report: dict[str, Any]
    pictures: dict[str, Any] = field(repr=False, default_factory=dict)
    interrupted: bool = False

    @property
    def table(self) -> Any:
        """One row a family, as a polars DataFrame: values with the ends of their intervals."""
        import polars

        rows = []
        for family in self.report["families"]:
            row: dict[str, Any] = {"family": family["family"], "label": family["label"], "status": family["status"]}
            use = (family.get("use") or {}).get("difference")
            for name in ("log_prob", "delta_to_best", "truth_gap", "two_sample_auc", "use_difference"):
                quantity = (use if name == "use_difference" else family[name]) or {}
                row |= {
                    name: quantity.get("value"),
                    f"{name}_low": quantity.get("low"),
                    f"{name}_high": quantity.get("high"),
                }
                row[f"{name}_kind"] = quantity.get("kind")
            samples = family.get("samples") or {}
            for name in ("mmd_p", "sliced_wasserstein", "precision", "coverage", "copied", "nearer"):
                row[name] = (samples.get(name) or {}).get("value")
            rows.append(row)
        return polars.DataFrame(rows, infer_schema_length=None)

    def to_html(self, path: str | Path) -> Path:
        """One self-contained page."""
        write_html(self.report, self.pictures, path)
        return Path(path)

    def to_json(self, path: str | Path) -> Path:
        """``report.json``, format 1."""
        write_json(self.report, path)
        return Path(path)

    def to_markdown(self, path: str | Path) -> Path:
        """The table, the reading and the treatment of the data."""
        write_whole(to_markdown(self.report), path)
        return Path(path)

    def __repr__(self) -> str:
        ranked = [f["label"] for f in self.report["families"]]
        return f"Scorecard({self.report['data']['name']}: {', '.join(ranked)})"


def compare(
    table: Any,
    families: Sequence[str | Brought] | None = None,
    *,
    seed: int = 0,
    effort: Effort = "standard",
    budget: str | float | None = None,
    seeds: int = 1,
    options: Mapping[str, Mapping[str, Any]] | None = None,
    test: Any = None,
    out: str | Path | None = None,
    force: bool = False,
    talk: Talk | None = None,
    command: str | None = None,
) -> Scorecard:
    """Fit several families to one table and say which describes it, with errors.

    ``families`` are names, with a variant after a colon, or models of your own (``Own(build)``); None takes all that suit
    the table. ``budget`` is for each family; ``seeds`` trains each so often and keeps the best on select; ``options``
    maps a family to its options. With ``out``, ``report.json`` is written after each family, and ``index.html`` and
    ``report.md`` at the end. A family that fails is a row with its reason. Raises DataError for the data, UsageError for
    the call, FitError if all fail.

    >>> import numpy as np
    >>> card = compare(np.random.default_rng(0).normal(size=(300, 2)), ["gaussian"], effort="quick")
    >>> card.report["families"][0]["status"]
    'ok'
    """
    talk = talk or Talk()
    if seeds < 1:
        raise UsageError(f"seeds is {seeds}; expected a whole number from 1")
    named = canonical(families) if families is not None else None
    known = {entry.name: entry for entry, _ in (named or {}).values()}
    parsed = {known.get(name) or find_family(name)[0]: dict(given) for name, given in (options or {}).items()}
    for entry, given in parsed.items():
        entry.parse_options(given)
    opened = open_table(table)
    prepared = prepare(opened, seed, None if test is None else open_rows(test, opened.schema))
    chosen, notes = families_for(prepared, named, force)
    for text in notes:
        talk.warn(text)
    prepared.notes = (*prepared.notes, *notes)
    reproduce = reproduction(command or "mulligan.compare(...)", seed)
    twin = budget is not None and seeds == 1  # with more seeds the best one's is not the split's, and no fit repeats it
    comparison = _Comparison(prepared, seed, reproduce, f"--effort {effort} --seed {seed}" if twin else None)
    interrupted = False
    for index, (name, (entry, variant)) in enumerate(chosen.items()):
        talk.family_begins(name, index + 1, len(chosen))
        given = entry.parse_options(parsed.get(entry, {}))
        try:
            best = _best_of_seeds(prepared, entry, variant, given, seed, seeds, effort, budget, talk)
            row, evidence = assess(best.fitted, best.outcome, best.timing, prepared, seed)
            row["health"] += best.notes
            comparison.add(row, evidence, best.fitted)
            comparison.twins[row["family"]] = best.outcome.twin or best.outcome.steps
            interrupted = best.outcome.interrupted
        except MulliganError as error:
            comparison.add(failed_row(name, str(error)))
        except Exception as error:  # one family's failure, of whatever kind, is never the end of the run
            comparison.add(failed_row(name, f"{type(error).__name__}: {error}"))
        talk.family_ends(comparison.rows[-1])
        report = comparison.report()
        if out is not None:
            Path(out).mkdir(parents=True, exist_ok=True)
            write_json(report, Path(out) / "report.json")
        if interrupted:
            break
    card = Scorecard(comparison.report(), comparison.pictures(), interrupted)
    if out is not None:
        card.to_html(Path(out) / "index.html")
        card.to_markdown(Path(out) / "report.md")
    if all(row["status"] == "failed" for row in comparison.rows):
        raise FitError(
            "no family could be fitted", why="; ".join(f"{r['family']}: {r['reason']}" for r in comparison.rows)
        )
    return card


@dataclass
class _Best:
    fitted: Fitted
    outcome: Outcome
    timing: Timing
    notes: list[str]


def _best_of_seeds(
    prepared: Prepared,
    entry: Family,
    variant: str | None,
    options: Mapping[str, Any],
    seed: int,
    seeds: int,
    effort: Effort,
    budget: str | float | None,
    talk: Talk,
) -> _Best:
    """Train with each seed, keep the best on select; the spread goes into the notes."""
    results: list[_Best] = []
    for offset in range(seeds):
        fitted, outcome, timing = fit_prepared(
            prepared, entry, variant, options, seed=seed + offset, effort=effort, budget=budget, steps=None, talk=talk
        )
        if outcome.failed is not None:
            raise unhealthy(fitted, outcome)
        results.append(_Best(fitted, outcome, timing, []))
        if outcome.interrupted:
            break

    def score(result: _Best) -> float:
        if result.fitted.calibration.size:
            return float(result.fitted.calibration.mean())
        return max((choice["select"] for choice in result.outcome.choices), default=0.0)  # of a family without density

    best = max(results, key=score)
    if len(results) > 1 and best.fitted.calibration.size:
        scores = sorted(score(result) for result in results)
        best.notes.append(f"{len(results)} seeds: mean log p on select from {scores[0]:.3f} to {scores[-1]:.3f}")
    return best


def difference_on_test(
    one: RowLikelihood,
    other: RowLikelihood,
    kinds: tuple[Kind, Kind],
    rows: np.ndarray,
    clusters: np.ndarray,
    common: float = 0.0,
) -> Quantity:
    """Mean of one − other over the same rows (n, columns), with the errors of rows, of shared draws and of float32.

    ``common`` is the standard error of what all rows share: estimates of log Z.
    """
    rounding = FLOAT32_SHARE * float(np.mean(np.abs(one.log_prob) + np.abs(other.log_prob)))
    error = float(np.hypot(draw_error(one.influence - other.influence, rows, clusters), common))
    return paired_difference(
        one.log_prob, other.log_prob, *kinds, clusters=clusters, rounding=rounding, method_stderr=error
    )


class _Comparison:
    """Rows as they come, with what the paired differences and the pictures need."""

    def __init__(self, prepared: Prepared, seed: int, reproduce: dict[str, Any], budgeted: str | None):
        self.prepared, self.seed, self.reproduce, self.budgeted = prepared, seed, reproduce, budgeted
        self.rows: list[dict[str, Any]] = []
        self.evidence: dict[str, Evidence] = {}
        self.fitted: dict[str, Fitted] = {}
        self.twins: dict[str, int] = {}  # the steps with which --steps repeats a fit

    def add(self, row: dict[str, Any], evidence: Evidence | None = None, fitted: Fitted | None = None) -> None:
        self.rows.append(row)
        if evidence is not None and fitted is not None:
            self.evidence[row["family"]] = evidence
            self.fitted[row["family"]] = fitted

    def reference(self) -> str | None:
        """The family with the highest mean log p on the select rows."""
        scores = {name: e.select_score for name, e in self.evidence.items() if e.select_score is not None}
        return max(scores, key=lambda name: scores[name]) if scores else None

    def report(self) -> dict[str, Any]:
        reference = self.reference()
        for row in self.rows:
            row["delta_to_best"] = self._difference(row["family"], reference)
        if self.budgeted is not None:
            self.reproduce["steps_command"] = self._steps_twin()
        selected = len(self.prepared.split.select)
        against = f"; differences are taken against {reference}, the best on select" if reference else ""
        read = ", ".join(self.prepared.test_reads)
        report = {
            "format": 1,
            "data": data_entry(self.prepared),
            "split": split_entry(self.prepared),
            "families": self.rows,
            "reference": reference,
            "reading": [],
            "reproduce": self.reproduce,
            "selection_note": f"All choices on {selected:,} select rows, by mean log p where there is one{against}. "
            f"The test part was read once for each of: {read}.",
        }
        report["reading"] = reading(report)
        return report

    def _steps_twin(self) -> str:
        """Fits that repeat a run with a budget whatever the clock does: the steps taken in place of the seconds."""
        stepped = [(family, steps) for family, steps in self.twins.items() if steps]
        fits = [f"--family {family} {self.budgeted} --steps {steps}" for family, steps in stepped]
        if not fits:
            return "no family took steps: the budget did not matter"
        return "mulligan fit with the same data and flags, and in place of --budget: " + "; or ".join(fits)

    def _difference(self, family: str, reference: str | None) -> dict[str, Any] | None:
        if reference is None or family == reference or family not in self.evidence:
            return None
        one, other = self.evidence[family].test, self.evidence[reference].test
        if one is None or other is None:
            return None
        kinds = self.fitted[family].log_prob_kind, self.fitted[reference].log_prob_kind
        common = common_error(self.fitted[family].model, self.fitted[reference].model)
        rows, clusters = self.prepared.test_rows, self.prepared.test_clusters
        return difference_on_test(one, other, kinds, rows, clusters, common).to_json()

    def pictures(self) -> dict[str, Any]:
        """Arrays for the figures: test rows, samples, learning curves."""
        columns = self.prepared.table.schema.modelled
        curves = {}
        for name, fitted in self.fitted.items():
            if "train" in fitted.history:
                train = fitted.history["train"]
                unit = "nats/row, standardised columns" if isinstance(fitted.model, Density) else "loss of the critic"
                curves[name] = {"step": np.arange(len(train)), "train": train, "select": None, "unit": unit}
        image = self.prepared.table.schema.image
        return {
            "image": None if image is None else asdict(image),
            "names": [column.name for column in columns],
            "discrete": [column.kind != "continuous" for column in columns],
            "levels": {column.name: list(column.levels) for column in columns if column.levels},
            "real": self.prepared.test_rows,
            "samples": {name: evidence.samples for name, evidence in self.evidence.items() if len(evidence.samples)},
            "curves": curves,
        }
