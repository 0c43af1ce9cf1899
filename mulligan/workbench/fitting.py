"""``fit`` one family to a table: open, prepare, train, read the test rows, write down how it was made."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from mulligan.catalog import FAMILIES, Brought, Effort, Family, find_family
from mulligan.checkpoints import Checkpoints
from mulligan.compilations import compilations
from mulligan.core import Density
from mulligan.errors import DataError, FitError, UsageError
from mulligan.families.recipe import Fitting, Outcome
from mulligan.loop import interruptible
from mulligan.measures.likelihood import row_log_prob
from mulligan.workbench.fitted import Fitted
from mulligan.workbench.preparation import Prepared, data_entry, prepare, split_entry
from mulligan.workbench.resuming import open_checkpoints, without_resume
from mulligan.workbench.settings import check_able, check_incomplete, check_settings, check_watch
from mulligan.workbench.sources import open_rows, open_table
from mulligan.workbench.talk import Talk, parse_budget


def fit(
    table: Any,
    family: str | Brought = "mixture",
    *,
    seed: int = 0,
    effort: Effort = "standard",
    budget: str | float | None = None,
    steps: int | None = None,
    options: Mapping[str, Any] | None = None,
    test: Any = None,
    given: Sequence[str] = (),
    force: bool = False,
    talk: Talk | None = None,
    command: str | None = None,
    checkpoint: str | Path | None = None,
    resume: bool = False,
    watch: Callable[..., Any] | Sequence[Callable[..., Any]] = (),
    **named: Any,
) -> Fitted:
    """Fit one family to a table (a path, a name, a DataFrame, an array, a Table).

    ``family`` may carry a variant ("factor:ppca"), or be a model of your own, ``Own(build)``; options of the catalog come
    by name (``parts=8``) or in ``options``; ``effort`` fixes sizes and the greatest number of steps, ``budget`` ("60s")
    can only shorten, ``steps`` caps the steps over the whole search.
    ``given`` names columns that the model takes as given: it then has p(other columns | given), where the family can.

    ``checkpoint`` is a folder in which a family trained by gradient keeps, every few seconds, what it needs to go on
    after a kill: the same call with ``resume=True`` ends in the same weights, bit for bit, as one that was never stopped
    (and starts from the beginning where there is no checkpoint yet). Without ``resume`` checkpoints of before are
    removed. With ``checkpoint="model/resume"`` and ``save("model")`` they are those of ``mulligan fit -o model``: removed
    by ``save``, unless Ctrl-C ended the fit.

    ``watch`` are callbacks f(step, model, history) for a family trained by gradient: ``model`` has the averaged weights,
    ``history`` the learning curves (``train``, ``select``, ``gradient_norm``). Each is called at the multiples of its
    attribute ``every`` (without one: at each look at the select rows). A sentence that it returns ends the fit, with the
    best weights so far; otherwise the result is the one without it. Where several candidates are trained, the steps begin
    anew with each.

    Raises UsageError (also for checkpoints of another fit, naming the first difference), DataError or FitError with the
    corrected call.

    >>> import numpy as np
    >>> fitted = fit(np.random.default_rng(0).normal(size=(200, 2)), "gaussian")
    >>> fitted.sample(3).values.shape, fitted.log_prob_kind
    ((3, 2), 'exact')
    """
    from mulligan.workbench.assessment import assess

    talk = talk or Talk()
    entry, variant = find_family(family)
    chosen = entry.parse_options({**(options or {}), **named})
    check_settings(effort, steps)
    given = (given,) if isinstance(given, str) else tuple(given)
    callbacks = check_watch(watch)
    check_able(entry, given, checkpoint is not None or resume, bool(callbacks))
    if resume and checkpoint is None:
        raise UsageError("resume=True without a folder of checkpoints", do="checkpoint='FOLDER', resume=True")
    opened = open_table(table)
    prepared = prepare(opened, seed, None if test is None else open_rows(test, opened.schema), given)
    if prepared.few_rows and not (entry.baseline or force):
        raise DataError(
            prepared.few_rows, why=f"{entry.name} is not fitted to so few", do="--force fits it all the same"
        )
    command = without_resume(command) if command else None
    checkpoints = None
    if checkpoint is not None:
        asked = {"family": entry.name, "variant": variant, "effort": effort, "budget": parse_budget(budget)}
        asked |= {"steps": steps, "seed": seed, **{f"option {name}": value for name, value in chosen.items()}}
        checkpoints = open_checkpoints(checkpoint, asked, prepared, resume=resume, command=command, talk=talk)
    talk.family_begins(entry.name if variant is None else f"{entry.name}:{variant}", 1, 1)
    how = {"seed": seed, "effort": effort, "budget": budget, "steps": steps, "talk": talk}
    made = fit_prepared(prepared, entry, variant, chosen, **how, checkpoints=checkpoints, watch=callbacks)  # type: ignore[arg-type]
    fitted, outcome, timing = made
    row = None if outcome.failed else assess(fitted, outcome, timing, prepared, seed)[0]
    fitted.card.update(
        **({} if row is None else {"row": row}),
        data=data_entry(prepared),
        split=split_entry(prepared),
        test_reads=prepared.test_reads,
        reproduce=reproduction(
            command or _call(family, given, seed, effort),
            seed,
            None if budget is None else _twin(outcome),
        ),
    )
    if row is None:
        raise unhealthy(fitted, outcome)
    talk.family_ends(row)
    return fitted


@dataclass(frozen=True)
class Timing:
    """Seconds of a fit, compilation apart."""

    fit_seconds: float
    compile_seconds: float


def fit_prepared(
    prepared: Prepared,
    entry: Family,
    variant: str | None,
    options: Mapping[str, Any],
    *,
    seed: int,
    effort: Effort,
    budget: str | float | None,
    steps: int | None,
    talk: Talk,
    checkpoints: Checkpoints | None = None,
    watch: tuple[Callable[..., Any], ...] = (),
) -> tuple[Fitted, Outcome, Timing]:
    """Run one family's recipe on prepared rows; the test part is not touched."""
    check_settings(effort, steps)
    check_incomplete(entry, prepared.incomplete_rows)
    dim = prepared.codec.dim
    if entry.most_columns is not None and dim > entry.most_columns:
        raise DataError(
            f"{entry.name} takes at most {entry.most_columns} encoded columns; here are {dim}", do="--drop some"
        )
    recipe = entry.recipe(variant, options, effort)
    began = time.perf_counter()
    with compilations() as compiled, interruptible() as event:
        fitting = Fitting(
            prepared.train,
            prepared.select,
            prepared.codec,
            prepared.rows_of("train"),
            prepared.rows_of("select"),
            seed,
            parse_budget(budget),
            steps,
            partial(_pulse, talk),
            event.is_set,
            compiled,
            checkpoints,
            watch,
        )
        try:
            outcome = recipe(fitting)
            outcome.interrupted = event.is_set()
        except (np.linalg.LinAlgError, FloatingPointError) as error:
            raise FitError(f"{entry.name}: {error}", why="the training rows are close to degenerate") from error
    elapsed = time.perf_counter() - began
    timing = Timing(max(0.0, elapsed - compiled.seconds), compiled.seconds)
    codec, calibration = outcome.codec or prepared.codec, np.zeros(0)
    if isinstance(outcome.model, Density):
        select = prepared.select if outcome.codec is None else codec.encode(prepared.rows_of("select").values)
        calibration = np.sort(row_log_prob(outcome.model, select))
        if np.isnan(calibration).any():
            raise FitError(f"{entry.name}: log p of {int(np.isnan(calibration).sum())} select rows is NaN")
    if checkpoints is not None and checkpoints.resumed:
        outcome.health.append("resumed after a stop: the seconds are those since then")
    settings = {"family": entry.name, "variant": variant, "options": dict(options), "effort": effort, "seed": seed}
    card = {"settings": {**settings, "budget": parse_budget(budget), "steps": steps}, "stopped": outcome.stopped}
    card["interrupted"] = outcome.interrupted
    card["settings"]["given"] = list(prepared.given)
    folder = None if checkpoints is None else checkpoints.folder.resolve()
    made = (entry.name, variant, outcome.label, codec, outcome.model, card, outcome.history, calibration, folder)
    fitted = Fitted(*made)
    return fitted, outcome, timing


def unhealthy(fitted: Fitted, outcome: Outcome) -> FitError:
    """The error of a training that came to a bad end, with its last healthy state as ``fitted``; test rows were not read."""
    fitted.card["failed"] = outcome.failed
    name = fitted.family if fitted.variant is None else f"{fitted.family}:{fitted.variant}"
    of_chains = any(option.name == "sampler_steps" for option in FAMILIES[fitted.family].options)
    remedy = "a smaller rate, more sampler_steps, or step_size left to adapt" if of_chains else "a smaller rate"
    error = FitError(f"{name}: {outcome.failed}", do=remedy)
    error.fitted = fitted
    return error


def _twin(outcome: Outcome) -> str:
    """The fit that repeats one with a budget, whatever the clock does."""
    if outcome.stopped is not None and outcome.stopped.startswith("budget") and outcome.twin is not None:
        return "none: the machine became slower than planned, and the run was cut in the middle of its schedule"
    if outcome.twin is None and not outcome.steps:
        return "the same without --budget: it did not bind"
    return f"the same with --steps {outcome.twin or outcome.steps} in place of --budget"


def _call(family: str | Brought, given: Sequence[str], seed: int, effort: str) -> str:
    """The call in Python, in short."""
    conditional = f", given={list(given)}" if given else ""
    return f"mulligan.fit(..., {family!r}{conditional}, seed={seed}, effort={effort!r})"


def _pulse(talk: Talk, phase: str, step: int, steps: int, latest: dict[str, float]) -> None:
    talk.pulse(phase, step, steps, latest)


def reproduction(command: str, seed: int, steps_command: str | None = None) -> dict[str, Any]:
    """The ``reproduce`` part of a report: one command, the seed, and the versions that matter."""
    names = ("mulligan", "jax", "jaxlib", "equinox", "numpy", "scikit-learn")
    versions = {name: version(name) for name in names}
    versions["python"] = platform.python_version()
    return {"command": command, "seed": seed, "versions": versions, "steps_command": steps_command}
