"""No number leaves the library alone: a value with its kind, its error and the interval that both make.

Definition. For rows x_1 … x_n scored by a frozen model, the estimand is E log p(x) over the law that the rows come from.
``value`` is the mean over rows, ``stderr`` its standard error over rows (over clusters, where rows come in groups),
``method_low`` and ``method_high`` bound what the computation of each row adds (tolerance of an ODE, AIS, Hutchinson), and
``low``, ``high`` are the 95 % interval of both together. A bound has one honest side only: for a ``lower bound`` the
claim is "the truth is at least ``low``", and ``high`` is None.

Kinds: ``exact`` (closed form), ``numeric`` (deterministic, to a stated tolerance), ``lower bound``, ``upper bound``,
``bracket`` (both bounds), ``estimate`` (random computation), ``none`` (there is no such number; the reason is in ``note``).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

import numpy as np

from mulligan.intervals import reaches

Kind = Literal["exact", "numeric", "lower bound", "upper bound", "bracket", "estimate", "none"]
KINDS: tuple[str, ...] = get_args(Kind)
LEVEL = 0.95
_Z95, _Z975 = 1.6448536269514722, 1.959963984540054


@dataclass(frozen=True)
class Quantity:
    """A number as the library states it.

    Arguments: ``value`` (None only for kind ``none``), ``kind``, ``low`` and ``high`` (95 % interval; None on the open
    side of a bound), ``stderr`` (over rows), ``n`` (rows), ``unit``, ``note``, ``method_low`` and ``method_high`` (what
    the computation adds). A non-finite value is allowed and printed as such; JSON has null in its place.

    >>> print(Quantity(-3.214, "exact", -3.40, -3.03, stderr=0.094, n=240, unit="nats/row"))
    -3.214 ± 0.094 nats/row, exact
    """

    value: float | None
    kind: Kind
    low: float | None = None
    high: float | None = None
    stderr: float | None = None
    n: int | None = None
    unit: str = ""
    note: str = ""
    method_low: float | None = None
    method_high: float | None = None

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"kind is {self.kind!r}; expected one of {', '.join(KINDS)}")
        if (self.value is None) != (self.kind == "none"):
            raise ValueError("a Quantity without value is of kind 'none', and only that one")
        if self.kind == "none" and not self.note:
            raise ValueError("kind 'none' needs its reason in note")

    @property
    def two_sided(self) -> bool:
        """Whether ``[low, high]`` claims to hold the truth (a bound claims one side only)."""
        return self.kind in ("exact", "numeric", "estimate", "bracket")

    def contains(self, truth: float) -> bool:
        """Whether the stated interval is true of ``truth``: one-sided for bounds."""
        above = self.low is None or truth >= self.low
        below = self.high is None or truth <= self.high
        return above and below

    def to_json(self) -> dict[str, Any]:
        """A plain dictionary; every non-finite number is None."""
        return {key: _finite_or_none(item) for key, item in asdict(self).items()}

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Quantity:
        """The inverse of ``to_json``; a nulled non-finite value comes back as NaN."""
        fields = dict(fields)
        if fields["value"] is None and fields["kind"] != "none":
            fields["value"] = math.nan
        return cls(**fields)

    def __str__(self) -> str:
        if self.value is None:
            return f"no value: {self.note}"
        digits = _digits(self.stderr)
        sign = {"lower bound": "≥ ", "upper bound": "≤ "}.get(self.kind, "")
        error = "" if self.stderr is None else f" ± {self.stderr:.{digits}f}"
        unit = f" {self.unit}" if self.unit else ""
        return f"{sign}{self.value:.{digits}f}{error}{unit}, {self.kind}"


def none(note: str, unit: str = "") -> Quantity:
    """The absence of a number, with its reason.

    >>> none("a GAN has no density").value is None
    True
    """
    return Quantity(None, "none", unit=unit, note=note)


def bits_per_dimension(log_prob: Quantity, dim: int) -> Quantity:
    """Mean log p of pictures of ``dim`` numbers as bits per dimension, −log₂ p/dim: lower is better.

    A lower bound of log p is an upper bound of it; the ends of the intervals change places.

    >>> print(bits_per_dimension(Quantity(-64.0, "exact", -65.0, -63.0, stderr=0.5, n=9), 64))
    1.443 ± 0.011 bits/dim, exact
    """
    if log_prob.value is None:
        return none(log_prob.note, "bits/dim")
    by = -1.0 / (dim * math.log(2.0))

    def turned(number: float | None) -> float | None:
        return None if number is None else number * by

    kinds: dict[Kind, Kind] = {"lower bound": "upper bound", "upper bound": "lower bound"}
    return Quantity(
        log_prob.value * by,
        kinds.get(log_prob.kind, log_prob.kind),
        turned(log_prob.high),
        turned(log_prob.low),
        None if log_prob.stderr is None else log_prob.stderr * -by,
        log_prob.n,
        "bits/dim",
        log_prob.note,
        turned(log_prob.method_high),
        turned(log_prob.method_low),
    )


def mean_of_rows(
    values: np.ndarray,
    kind: Kind,
    *,
    clusters: np.ndarray | None = None,
    unit: str = "nats/row",
    note: str = "",
    method_low: float | None = None,
    method_high: float | None = None,
    method_stderr: float = 0.0,
) -> Quantity:
    """Mean of one number a row, its standard error and its 95 % interval.

    value = (1/n) Σ v_i and stderr = √(G/(G−1) · Σ_g (Σ_{i∈g} (v_i − v̄))²)/n over the G clusters (rows that are equal,
    or share a group, are one draw; without ``clusters`` each row is its own and this is sd/√n). The interval is Student's
    t_{G−1}(.975)·stderr to either side (for a bound t_{G−1}(.95) to one), from 10 clusters on with Hall's correction for
    skewness (Hall 1992): log p has a long lower tail, and a symmetric interval would miss the truth below too often. Where
    that tail is heavy a generalised Pareto model of it may move the end farther (``intervals``).

    What the computation adds is stated apart: ``method_low`` and ``method_high`` are ends that it cannot pass (they move
    the interval's ends), ``method_stderr`` is a standard error of the mean due to randomness shared by rows (it adds in
    quadrature, and is shown as method_low, method_high = v̄ ± 1.96·method_stderr).

    Raises ValueError on an empty array. A non-finite row makes the value non-finite and the interval open: it is never
    dropped.

    >>> q = mean_of_rows(np.array([-1.0, -2.0, -3.0]), "exact")
    >>> q.value, round(q.stderr, 4)
    (-2.0, 0.5774)
    """
    values = np.asarray(values, np.float64)
    n = values.size
    if n == 0:
        raise ValueError("mean_of_rows needs at least one row")
    mean = float(values.mean())
    if not math.isfinite(mean):
        bad = int(n - np.isfinite(values).sum())
        say = f"{bad} of {n} rows are not finite"
        return Quantity(mean, kind, n=n, unit=unit, note=f"{note}; {say}" if note else say)
    residuals: np.ndarray = values - mean
    if clusters is not None:
        _, inverse = np.unique(clusters, return_inverse=True)
        residuals = np.bincount(inverse, weights=residuals)
    groups = residuals.size
    if groups < 2:
        return Quantity(mean, kind, n=n, unit=unit, note=note or "one independent row: no standard error")
    stderr = math.sqrt(groups / (groups - 1) * float(residuals @ residuals)) / n
    start, end = (mean if method_low is None else method_low), (mean if method_high is None else method_high)
    if method_stderr:
        method_low, method_high = mean - _Z975 * method_stderr, mean + _Z975 * method_stderr
    one_sided = kind in ("lower bound", "upper bound")
    level = LEVEL if one_sided else 0.5 + LEVEL / 2
    down, up = reaches(residuals, level)
    noise = (_Z95 if one_sided else _Z975) * method_stderr
    low = None if kind == "upper bound" else start - math.hypot(down * stderr, noise)
    high = None if kind == "lower bound" else end + math.hypot(up * stderr, noise)
    return Quantity(mean, kind, low, high, stderr, n, unit, note, method_low, method_high)


def paired_difference(
    left: np.ndarray,
    right: np.ndarray,
    left_kind: Kind,
    right_kind: Kind,
    *,
    clusters: np.ndarray | None = None,
    unit: str = "nats/row",
    rounding: float = 0.0,
    method_stderr: float = 0.0,
) -> Quantity:
    """Mean of left − right over the same rows, with the standard error of the paired differences.

    Of two numbers that are no bounds, the result has the less certain kind (exact, numeric, estimate, bracket). lower −
    exact is a lower bound of the difference, exact − lower an upper bound. Two lower bounds on the same base measure may
    be compared *as bounds*: the result is an estimate of the bounds' difference and says so. ``rounding`` (nats) is what
    the arithmetic may add to either side; it widens the interval, so that two forms of one model are not ranked by their
    last digits.
    ``method_stderr`` is as in ``mean_of_rows``.
    """
    kind, note = difference_kind(left_kind, right_kind)
    difference = np.asarray(left, np.float64) - np.asarray(right, np.float64)
    mean = float(difference.mean()) if difference.size else 0.0
    ends = {"method_low": mean - rounding, "method_high": mean + rounding} if rounding else {}
    return mean_of_rows(difference, kind, clusters=clusters, unit=unit, note=note, method_stderr=method_stderr, **ends)


def difference_kind(left: Kind, right: Kind) -> tuple[Kind, str]:
    """Kind of left − right, and the note that it needs."""
    if "none" in (left, right):
        raise ValueError("a difference with a number that does not exist")
    bounds = {"lower bound", "upper bound"}
    if left in bounds and right in bounds:
        if left != right:
            return ("lower bound" if left == "lower bound" else "upper bound"), "difference of opposite bounds"
        return "estimate", f"difference of two {left}s on the same base measure"
    if left in bounds:
        return left, ""
    if right in bounds:
        return ("upper bound" if right == "lower bound" else "lower bound"), ""
    order: Sequence[Kind] = ("exact", "numeric", "estimate", "bracket")
    return max(left, right, key=order.index), ""


def verdict(difference: Quantity) -> Literal["higher", "lower", "undecided"]:
    """What a paired difference allows one to say of its left side, at 95 %.

    >>> verdict(Quantity(-0.3, "exact", -0.4, -0.2))
    'lower'
    >>> verdict(Quantity(-0.3, "lower bound", -0.4, None))
    'undecided'
    """
    if difference.low is not None and difference.low > 0:
        return "higher"
    if difference.high is not None and difference.high < 0:
        return "lower"
    return "undecided"


def proportion(successes: int, n: int, *, unit: str = "", note: str = "") -> Quantity:
    """A share with Wilson's 95 % interval (Wilson 1927), which stays inside [0, 1] and is right for few successes."""
    if n <= 0:
        raise ValueError("a share needs n > 0")
    share = successes / n
    low, high = wilson(share, n)
    return Quantity(share, "estimate", low, high, math.sqrt(share * (1 - share) / n), n, unit, note)


def wilson(share: float, n: float) -> tuple[float, float]:
    """Ends of Wilson's 95 % interval of a share among n independent ones; n may be an effective number.

    >>> low, high = wilson(1.0, 10)
    >>> round(low, 3), round(high, 3)
    (0.722, 1.0)
    """
    z = _Z975
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return max(0.0, centre - half), min(1.0, centre + half)


def _digits(stderr: float | None) -> int:
    """Decimals that show one or two digits of the error."""
    if stderr is None or not math.isfinite(stderr) or stderr <= 0:
        return 3
    return int(min(8, max(0, 1 - math.floor(math.log10(stderr * 1.05 + 1e-300)))))


def _finite_or_none(item: Any) -> Any:
    if isinstance(item, float | np.floating) and not math.isfinite(item):
        return None
    return item
