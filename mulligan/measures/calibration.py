"""Are the stated intervals true: the share of them that holds the truth, with an error of its own.

Definition. Interval i of cluster g (one table and its split; the quantities of one split share rows, so their hits are
dependent) has hit h_i = 1 if it holds the truth, else 0. Coverage is c = (1/n) Σ h_i, its variance over G clusters is
v = G/(G−1) · Σ_g (Σ_{i∈g} (h_i − c))²/n². A share near 1 is skewed, so the interval is Wilson's with the effective number
m = min(n, c(1−c)/v) of independent intervals in place of n and Student's t_{G−1} in place of z (Wilson 1927; for
clusters Kott and Carr 1997, Dean and Pagano 2015). Where all hit, or none, v says nothing and m = G.

A share of 95 % is the claim for two-sided quantities; of a bound the claim is at least 95 %.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mulligan.quantity import LEVEL, Quantity, none

RIGHT = (0.93, 0.97)  # coverage that deserves the name 95 %: what a t interval of a skewed mean loses stays inside


def coverage(hits: np.ndarray, clusters: np.ndarray | None = None, level: float = LEVEL) -> Quantity:
    """Share of intervals that hold the truth, with the cluster-robust interval above; kind ``estimate``.

    ``hits`` (n,) are 0 or 1, ``clusters`` (n,) any labels (None: each interval is its own). ``level`` is that of the
    interval of the share, not of the intervals judged. Raises ValueError without hits, for other values than 0 and 1,
    and for fewer than two clusters.

    >>> print(coverage(np.array([1, 1, 1, 1, 1, 1, 1, 1, 1, 0])))
    0.90 ± 0.10 share, estimate
    >>> once = coverage(np.array([1, 0, 1, 1]))
    >>> twice = coverage(np.array([1, 0, 1, 1] * 2), np.array([0, 1, 2, 3] * 2))
    >>> once.low == twice.low  # the same splits read twice say nothing new
    True
    """
    hits = np.asarray(hits, np.float64).reshape(-1)
    if not hits.size or not np.isin(hits, (0.0, 1.0)).all():
        raise ValueError("coverage needs hits, each 0 or 1")
    n, share = hits.size, float(hits.mean())
    _, inverse = np.unique(np.arange(n) if clusters is None else np.asarray(clusters), return_inverse=True)
    if len(inverse) != n:
        raise ValueError(f"{n} hits and {len(inverse)} cluster labels")
    sums = np.bincount(inverse.reshape(-1), weights=hits - share)
    groups = sums.size
    if groups < 2:
        raise ValueError("coverage needs at least two clusters: one split has no error")
    variance = groups / (groups - 1) * float(sums @ sums) / n**2
    spread = share * (1 - share)
    # Misses that happen to avoid each other must not make an interval narrower than that of independent ones.
    effective = min(float(n), spread / variance) if spread > 0 and variance > 0 else float(groups)
    low, high = _wilson(share, effective, _student_quantile(0.5 + level / 2, groups - 1))
    stderr = math.sqrt(max(variance, spread / n))
    return Quantity(share, "estimate", low, high, stderr, n, "share", f"{n:,} intervals over {groups:,} splits")


@dataclass(frozen=True)
class Coverage:
    """What a set of intervals was worth, where the truth is known.

    ``two_sided`` and ``one_sided`` are shares over all intervals of that form (None where there is none), ``by_kind``
    over each kind; a kind that is there in one cluster only has no share, and its entry says so. ``below`` and ``above``
    count the two-sided misses with the truth below ``low`` and above ``high``: with symmetric errors they are alike.
    """

    two_sided: Quantity | None
    one_sided: Quantity | None
    by_kind: dict[str, Quantity]
    below: int
    above: int

    @classmethod
    def of(
        cls, quantities: Sequence[Quantity], truths: Sequence[float], clusters: Sequence[int], level: float = LEVEL
    ) -> Coverage:
        """Compare each stated interval with its truth; one share for each kind, and for each form.

        A quantity without interval (kind ``none``, or a non-finite value) claims nothing: ValueError, for leaving it out
        in silence would flatter. ValueError also without any interval, and for intervals of a form (two-sided, one-sided)
        in fewer than two clusters: one split has no error, so nothing it shows can hold or fail.

        >>> stated = [Quantity(0.0, "exact", -2.0, 2.0), Quantity(0.0, "lower bound", -1.6)]
        >>> Coverage.of(stated * 2, [1.0, 5.0, 3.0, -2.0], [0, 0, 1, 1]).below
        0
        """
        for quantity in quantities:
            if quantity.low is None and quantity.high is None:
                raise ValueError(f"a quantity without an interval claims nothing: {quantity}")
        hits = np.array([q.contains(truth) for q, truth in zip(quantities, truths, strict=True)], np.float64)
        labels = np.asarray(clusters)
        two = np.array([q.two_sided for q in quantities], bool)
        kinds = np.array([q.kind for q in quantities])

        if not len(two):
            raise ValueError("coverage needs at least one interval")

        def form(chosen: np.ndarray, name: str) -> Quantity | None:
            if not chosen.any():
                return None
            if len(np.unique(labels[chosen])) < 2:
                raise ValueError(f"{int(chosen.sum())} {name} intervals of one cluster: one split has no error")
            return coverage(hits[chosen], labels[chosen], level)

        def share(chosen: np.ndarray) -> Quantity:
            if len(np.unique(labels[chosen])) < 2:
                return none(f"{int(chosen.sum())} intervals of one cluster: one split has no error", "share")
            return coverage(hits[chosen], labels[chosen], level)

        by_kind = {str(kind): share(kinds == kind) for kind in np.unique(kinds)}
        below = sum(q.two_sided and q.low is not None and truth < q.low for q, truth in zip(quantities, truths))
        above = sum(q.two_sided and q.high is not None and truth > q.high for q, truth in zip(quantities, truths))
        return cls(form(two, "two-sided"), form(~two, "one-sided"), by_kind, int(below), int(above))

    @property
    def holds(self) -> bool:
        """Whether the data allow the claim: two-sided shares may be in [.93, .97], one-sided ones at least .93."""
        two = self.two_sided is None or overlaps(self.two_sided, *RIGHT)
        one = self.one_sided is None or overlaps(self.one_sided, RIGHT[0], 1.0)
        return two and one


def overlaps(share: Quantity, low: float = RIGHT[0], high: float = RIGHT[1]) -> bool:
    """Whether the interval of a share meets [low, high]: at least one share in there is compatible with the hits.

    >>> overlaps(Quantity(0.91, "estimate", 0.88, 0.94)), overlaps(Quantity(0.91, "estimate", 0.90, 0.92))
    (True, False)
    """
    return share.low is not None and share.high is not None and share.low <= high and share.high >= low


def _wilson(share: float, n: float, z: float) -> tuple[float, float]:
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return max(0.0, centre - half), min(1.0, centre + half)


def _student_quantile(level: float, freedom: int) -> float:
    from scipy.special import stdtrit

    return float(stdtrit(freedom, level))
