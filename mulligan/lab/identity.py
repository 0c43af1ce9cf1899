"""Identities: an equation of the tutorial, checked with the library's own objects, and refused when it is sabotaged.

Definition. An identity states left = right at one of three levels. ``rounding``: |left − right| ≤ 1e-9 in float64, or
the tolerance that it states. ``order``: an error falls as step^s, and the slope fitted in log-log is within ±0.1 of s, or
within the narrower deviation that it states. ``monte-carlo``: |left − right| ≤ 4.75 standard errors, a false alarm in
2e-6. A statement "a ≤ b" is checked as max(0, a − b) = 0. Where an identity compares many pairs, the check reports the
one that comes nearest to failing, or that fails worst.

Each identity carries *mutants*: mistakes (a sign, a missing ½, the wrong margin) by name. A mutant replaces one keyword
argument of the check, so it runs through the same code, and it must fail; an identity without one is refused.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from importlib import import_module
from typing import Any, Literal

import numpy as np

from mulligan.errors import UsageError
from mulligan.quantity import Quantity

Level = Literal["rounding", "order", "monte-carlo"]
Verdict = Literal["holds", "fails"]

ROUNDING = 1e-9
SLOPE = 0.1
Z975 = 1.959963984540054
STANDARD_ERRORS = 4.75  # two-sided false alarm 2e-6: a suite of 500 comparisons errs once in a thousand runs

# chapter of the theory -> the modules that hold its identities as IDENTITIES
CHAPTERS: dict[int, tuple[str, ...]] = {
    1: ("mulligan.lab.identities.counting", "mulligan.lab.identities.consistency", "mulligan.lab.identities.cause"),
    2: ("mulligan.lab.identities.likelihood",),
    3: ("mulligan.lab.identities.energy", "mulligan.lab.identities.matching"),
    4: ("mulligan.lab.identities.surrogates", "mulligan.lab.identities.contrastive", "mulligan.lab.identities.ascent"),
    5: ("mulligan.lab.identities.game",),
    6: ("mulligan.lab.identities.noise_contrastive", "mulligan.lab.identities.efficiency"),
    7: ("mulligan.lab.identities.langevin", "mulligan.lab.identities.halves", "mulligan.lab.identities.hamiltonian"),
    8: ("mulligan.lab.identities.tempering", "mulligan.lab.identities.annealing"),
    9: (
        "mulligan.lab.identities.noising",
        "mulligan.lab.identities.diffusion",
        "mulligan.lab.identities.robust",
        "mulligan.lab.identities.denoising",
        "mulligan.lab.identities.parametrizations",
        "mulligan.lab.identities.pathwise",
    ),
    10: ("mulligan.lab.identities.relations", "mulligan.lab.identities.latent", "mulligan.lab.identities.strokes"),
}


@dataclass(frozen=True)
class Check:
    """What a check found: the two sides where they disagree most, and whether that is within the error.

    ``difference`` is left − right. ``error`` is the tolerance (rounding), the allowed deviation of the slope (order), or
    the standard error (monte-carlo). ``place`` names the pair among ``compared`` numbers. A side that is not finite fails.

    >>> Check(1.0, 1.0, 0.0, 1e-9, "holds", "rounding").verdict
    'holds'
    """

    left: float
    right: float
    difference: float
    error: float
    verdict: Verdict
    level: Level
    id: str = ""
    place: str = ""
    compared: int = 1


@dataclass(frozen=True)
class Identity:
    """A statement of the tutorial that can be checked.

    Arguments: ``id`` as in the theory page; ``chapter``; ``statement``, one line with the equation; ``level``; ``check``,
    a function (seed, **parts) → Check; ``mutants``, name → the parts to replace, each of which must make the check fail;
    ``source``, the paper and its year. Raises ValueError without a mutant: a check that cannot fail says nothing.

    >>> find_identity("density.marginal").level
    'rounding'
    """

    id: str
    chapter: int
    statement: str
    level: Level
    check: Callable[..., Check]
    mutants: Mapping[str, Mapping[str, Any]]
    source: str = ""

    def __post_init__(self) -> None:
        if not self.mutants:
            raise ValueError(f"{self.id} has no mutant; a check that has never been seen to fail says nothing")


def identities(chapter: int | None = None) -> tuple[Identity, ...]:
    """All identities in the order of the theory page, or those of one chapter.

    Raises UsageError for a chapter without identities.

    >>> "density.joint" in [identity.id for identity in identities(1)]
    True
    """
    if chapter is not None and chapter not in CHAPTERS:
        known = ", ".join(map(str, CHAPTERS))
        raise UsageError(
            f"chapter {chapter} has no identities", "", f"chapters with identities: {known}", "mulligan verify"
        )
    names = [name for number, names in CHAPTERS.items() if chapter in (None, number) for name in names]
    return tuple(identity for name in names for identity in import_module(name).IDENTITIES)


def find_identity(id: str) -> Identity:
    """The identity, or the experiment, of that id. Raises UsageError for an unknown one, with the nearest.

    >>> find_identity("density.joint").chapter
    1
    """
    from mulligan.lab.identities.phenomena import PHENOMENA

    known = {identity.id: identity for identity in (*identities(), *PHENOMENA)}
    if id not in known:
        near = get_close_matches(id, known, n=3, cutoff=0.4)
        raise UsageError(f"no identity is called '{id}'", "", f"near: {', '.join(near) or 'none'}", "mulligan verify")
    return known[id]


def run_identity(identity: Identity | str, seed: int = 0, mutant: str | None = None) -> Check:
    """Check an identity in float64, as it is or with one of its planted mistakes.

    ``identity`` is an ``Identity`` or an id; ``seed`` ≥ 0 draws its data; ``mutant`` is a name from ``identity.mutants``,
    and the verdict is then ``fails`` if the identity is worth anything. Raises UsageError for an unknown id or mutant.

    >>> run_identity("density.marginal").verdict
    'holds'
    >>> run_identity("density.marginal", mutant="the neighbouring axes are kept").verdict
    'fails'
    """
    import jax

    identity = find_identity(identity) if isinstance(identity, str) else identity
    if mutant is not None and mutant not in identity.mutants:
        raise UsageError(
            f"'{identity.id}' has no mutant called '{mutant}'",
            "",
            f"it has: {'; '.join(identity.mutants)}",
            "mutant=None",
        )
    parts = {} if mutant is None else identity.mutants[mutant]
    with jax.enable_x64(True):
        return replace(identity.check(seed, **parts), id=identity.id)


def to_json(check: Check) -> dict[str, Any]:
    """A check as ``mulligan verify --json`` prints it; every non-finite number is None.

    >>> to_json(Check(0.5, float("nan"), float("nan"), 1e-9, "fails", "rounding", "mle.kl"))["right"] is None
    True
    """
    keys = ("id", "left", "right", "difference", "error", "verdict", "level")
    return {key: _finite_or_none(getattr(check, key)) for key in keys}


def difference_of(check: Check) -> Quantity:
    """left − right as a number with its kind: ``numeric`` with the tolerance, or ``estimate`` with its standard error.

    >>> print(difference_of(Check(1.25, 1.0, 0.25, 0.1, "holds", "monte-carlo")))
    0.25 ± 0.10, estimate
    """
    low, high = check.difference - check.error, check.difference + check.error
    if check.level != "monte-carlo":
        return Quantity(check.difference, "numeric", low, high, method_low=low, method_high=high, note=check.place)
    reach = Z975 * check.error
    ends = (check.difference - reach, check.difference + reach)
    return Quantity(check.difference, "estimate", *ends, stderr=check.error, note=check.place)


def rounding(pairs: Mapping[str, tuple[Any, Any]], tolerance: float = ROUNDING) -> Check:
    """Equality of two sides within a tolerance: name → (left, right), numbers or arrays that broadcast.

    >>> rounding({"one third": (1 / 3, 0.3333)}).verdict
    'fails'
    """
    return _worst("rounding", {name: (left, right, tolerance) for name, (left, right) in pairs.items()}, 1.0)


def order(curves: Mapping[str, tuple[Any, Any, float]], deviation: float = SLOPE) -> Check:
    """Errors that fall as step^s: name → (steps, errors, s); the slope of log error on log step, by least squares.

    >>> order({"square": ([1, 2, 4], [3, 12, 48], 2.0)}).verdict
    'holds'
    """
    sides = {name: (slope(steps, errors), stated, deviation) for name, (steps, errors, stated) in curves.items()}
    return _worst("order", sides, 1.0)


def monte_carlo(pairs: Mapping[str, tuple[Any, Any, Any]]) -> Check:
    """Equality within 4.75 standard errors: name → (left, right, standard error of left − right).

    >>> monte_carlo({"a mean": (0.1, 0.0, 0.01)}).verdict
    'fails'
    """
    return _worst("monte-carlo", pairs, STANDARD_ERRORS)


def excess(smaller: Any, larger: Any) -> np.ndarray:
    """max(0, smaller − larger): 0 wherever "smaller ≤ larger" is true. NaN stays NaN.

    >>> excess([1.0, 2.0], [3.0, 1.5]).tolist()
    [0.0, 0.5]
    """
    return np.maximum(np.asarray(smaller, np.float64) - np.asarray(larger, np.float64), 0.0)


def slope(steps: Any, errors: Any) -> float:
    """Least-squares slope of log error on log step; NaN where an error is not positive and finite.

    >>> round(slope([1, 2, 4], [1, 8, 64]), 6)
    3.0
    """
    steps, errors = np.asarray(steps, np.float64), np.asarray(errors, np.float64)
    if not (np.isfinite(errors).all() and (errors > 0).all()):
        return math.nan
    return float(np.polyfit(np.log(steps), np.log(errors), 1)[0])


def mean_and_error(values: Sequence[Any] | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean over the first axis and its standard error sd/√n, for independent rows.

    >>> [float(x) for x in mean_and_error([0.0, 2.0])]
    [1.0, 1.0]
    """
    values = np.asarray(values, np.float64)
    return values.mean(axis=0), values.std(axis=0, ddof=1) / math.sqrt(len(values))


def _worst(level: Level, sides: Mapping[str, tuple[Any, Any, Any]], factor: float) -> Check:
    """The comparison with the largest |difference| in units of its error; a number that is not finite beats all."""
    found: tuple[float, tuple[float, float, float], str] | None = None
    compared = 0
    for name, triple in sides.items():
        left, right, error = (np.ravel(a) for a in np.broadcast_arrays(*(np.asarray(a, np.float64) for a in triple)))
        with np.errstate(divide="ignore", invalid="ignore"):  # ∞ − ∞ is NaN, which fails below
            difference, allowed = np.abs(left - right), factor * error
            ratio = np.where(difference == 0, 0.0, difference / allowed)
        ratio = np.where(np.isfinite(difference) & np.isfinite(allowed), ratio, np.inf)
        compared += ratio.size
        at = int(ratio.argmax())
        if found is None or ratio[at] > found[0]:
            found = float(ratio[at]), (float(left[at]), float(right[at]), float(error[at])), name
    if found is None:
        raise ValueError("a check without a comparison")
    ratio_at, (left_at, right_at, error_at), place = found
    verdict: Verdict = "holds" if ratio_at <= 1 else "fails"
    return Check(left_at, right_at, left_at - right_at, error_at, verdict, level, place=place, compared=compared)


def _finite_or_none(item: Any) -> Any:
    return None if isinstance(item, float) and not math.isfinite(item) else item
