"""All identities at one family-wise level: what ``mulligan verify`` prints.

Definition. With M Monte-Carlo comparisons among the checks that ran, each is allowed z = Φ⁻¹(1 − level/2M) standard
errors (Bonferroni 1936): if every identity is true, the chance that any of them is refused is at most ``level``, under
normal errors. Checks by rounding and by order have tolerances of their own and keep their verdicts.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from mulligan.lab.identity import Check, Identity, identities, run_identity

LEVEL = 1e-3


@dataclass(frozen=True)
class Verification:
    """Checks with verdicts at one level: ``comparisons`` (Monte-Carlo ones, M), ``threshold`` (standard errors, z).

    >>> verify(identities(1)[:1]).holds
    True
    """

    checks: tuple[Check, ...]
    comparisons: int
    threshold: float
    level: float = LEVEL

    @property
    def holds(self) -> bool:
        """Whether every check holds."""
        return all(check.verdict == "holds" for check in self.checks)


def threshold(comparisons: int, level: float = LEVEL) -> float:
    """Φ⁻¹(1 − level/2M): the standard errors that each of M two-sided comparisons is allowed; M = 0 counts as 1.

    >>> round(threshold(500), 2)
    4.75
    """
    from scipy.special import ndtri

    return -float(ndtri(level / (2 * max(comparisons, 1))))


def verify(chosen: Sequence[Identity] | None = None, seed: int = 0, level: float = LEVEL) -> Verification:
    """Run identities (all of them) and judge the Monte-Carlo ones together at a family-wise ``level``.

    >>> round(verify(identities(1)[:1]).level, 3)
    0.001
    """
    checks = [run_identity(identity, seed) for identity in (identities() if chosen is None else chosen)]
    comparisons = sum(check.compared for check in checks if check.level == "monte-carlo")
    z = threshold(comparisons, level)
    return Verification(tuple(judge(check, z) for check in checks), comparisons, z, level)


def judge(check: Check, z: float) -> Check:
    """The check with its verdict at z standard errors; one by rounding or by order is returned as it is.

    A check reports the comparison that is worst in standard errors, so this one decides for all of them.

    >>> judge(Check(4.8, 0.0, 4.8, 1.0, "fails", "monte-carlo"), 4.9).verdict
    'holds'
    """
    if check.level != "monte-carlo":
        return check
    finite = math.isfinite(check.difference) and math.isfinite(check.error)
    within = finite and abs(check.difference) <= z * check.error
    return replace(check, verdict="holds" if within else "fails")
