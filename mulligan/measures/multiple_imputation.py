"""One estimate from several completed tables: Rubin's rules.

Definition (Rubin 1987, chapter 3). Each of m completed tables gives an estimate Q_i and its squared standard error U_i. The
pooled one is Q̄ = mean Q_i with variance T = Ū + (1 + 1/m) B, where Ū = mean U_i is the variance *within* and
B = Σ(Q_i − Q̄)²/(m − 1) the variance *between* completed tables: what the empty cells leave open. (Q̄ − Q)/√T is Student's t
with ν = (m − 1)/λ² degrees of freedom, λ = (1 + 1/m)B/T; where the complete table would have had ν_c of them,
1/ν = 1/ν_m + 1/ν_o with ν_o = (ν_c + 1)/(ν_c + 3) · ν_c (1 − λ) (Barnard and Rubin 1999).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mulligan.quantity import LEVEL, Quantity


@dataclass(frozen=True)
class Pooled:
    """One pooled number: ``estimate`` Q̄, ``within`` Ū, ``between`` B, ``total`` T, ``degrees_of_freedom`` ν, ``tables`` m.

    ``missing_information`` is the share γ of the information about Q that the empty cells took:
    (r + 2/(ν + 3))/(r + 1), r = (1 + 1/m)B/Ū.
    """

    estimate: float
    within: float
    between: float
    total: float
    degrees_of_freedom: float
    missing_information: float
    tables: int

    @property
    def quantity(self) -> Quantity:
        """Q̄ with √T and the 95 % interval of Student's t; kind ``estimate``."""
        reach = float(_student(self.degrees_of_freedom)) * math.sqrt(self.total)
        note = (
            f"pooled over {self.tables} completed tables (Rubin 1987): variance within {self.within:.3g}, between "
            f"{self.between:.3g}; {self.degrees_of_freedom:.3g} degrees of freedom"
        )
        low, high = self.estimate - reach, self.estimate + reach
        return Quantity(self.estimate, "estimate", low, high, math.sqrt(self.total), note=note)


def pool(estimates: Sequence[float], variances: Sequence[float], complete_degrees: float | None = None) -> Pooled:
    """Rubin's rules for m ≥ 2 estimates with their squared standard errors.

    ``complete_degrees`` ν_c are the degrees of freedom that the complete table would have given (n − 1 for a mean); None
    takes them as endless. Raises ValueError for fewer than two estimates, or as many variances, or a negative one.

    >>> found = pool([1.0, 3.0], [1.0, 1.0])
    >>> found.estimate, found.within, found.between, found.total, round(found.degrees_of_freedom, 3)
    (2.0, 1.0, 2.0, 4.0, 1.778)
    """
    q, u = np.asarray(estimates, np.float64), np.asarray(variances, np.float64)
    if q.ndim != 1 or q.shape != u.shape or len(q) < 2 or (u < 0).any():
        raise ValueError(f"{len(q)} estimates and {len(u)} variances; expected two or more, with a variance each")
    pooled = pool_arrays(q[:, None], u[:, None], complete_degrees)
    estimate, within, between, total, degrees = (float(v[0]) for v in pooled)
    r = (1 + 1 / len(q)) * between / within if within > 0 else math.inf
    missing = (r + 2 / (degrees + 3)) / (r + 1) if math.isfinite(r) else 1.0
    missing = 0.0 if between == 0 else missing
    return Pooled(estimate, within, between, total, degrees, missing, len(q))


def pool_arrays(q: np.ndarray, u: np.ndarray, complete_degrees: float | None = None) -> tuple[np.ndarray, ...]:
    """Q̄, Ū, B, T and ν of many estimands at once, (…,) each, from estimates and variances (m, …)."""
    m = len(q)
    estimate, within, between = q.mean(0), u.mean(0), q.var(0, ddof=1)
    total = within + (1 + 1 / m) * between
    with np.errstate(divide="ignore", invalid="ignore"):
        share = np.where(total > 0, (1 + 1 / m) * between / total, 0.0)
        degrees = np.where(share > 0, (m - 1) / share**2, np.inf)
        if complete_degrees is not None:
            c = complete_degrees
            shown = (c + 1) / (c + 3) * c * (1 - share)
            degrees = 1 / (1 / degrees + 1 / shown)
    return estimate, within, between, total, degrees


def _student(degrees: float) -> float:
    """The quantile of Student's t that leaves 2.5 % above it."""
    from scipy.special import ndtri, stdtrit

    p = 1 - (1 - LEVEL) / 2
    return float(stdtrit(degrees, p)) if math.isfinite(degrees) else float(ndtri(p))
