"""What the chains say, in words: one verdict, the sentences behind it, and what to do.

Definition. The verdict is the first of these that holds: ``stopped`` (a value was not finite), ``runs away`` (the draws
keep growing: no law has been reached, perhaps there is none), ``stuck`` (a chain stands still), ``chains do not mix``
(R-hat > 1.05, of a coordinate, the log density or a mode's indicator: the chains disagree about the law), ``divergent``
(more than one draw in two hundred came from a divergent move), ``misses holes`` (a known law has modes that the draws do
not reach), ``biased`` (an unadjusted kernel whose draws visibly break Stein's identity), ``too few draws`` (R-hat > 1.01
or an ESS below 400), ``ok``. R-hat 1.01 and ESS 400 are those of Vehtari et al. 2021; above 1.05 more draws rarely mend
it; any divergence is reported (Betancourt 2017), one in two hundred is our line between a note and a verdict.
Stein's identity: E[x_i ∂_i log π] = −1 for draws of π, whatever Z is (THEORY chapter 7); N(0, 1) by Langevin with step
Δt has −1/(1 − Δt/4) in its place.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mulligan.measures.chains import Chains, summarise
from mulligan.measures.modes import Modes

MOST_RHAT = 1.01
LEAST_ESS = 400
APART_RHAT = 1.05
MOST_DIVERGENT = 5e-3
FAR, GROWTH = 1e6, 1.25  # of the start's size; from the first to the last quarter of the run
STEIN_OFF, STEIN_Z = 0.1, 4.75
SHORTEST = 4  # draws of a chain, halved by the split R-hat
COMMON_MODE = 0.05  # share of the draws from which on a mode's indicator is judged
LOW_ACCEPTANCE = 0.05
VERDICTS = (
    "stopped",
    "runs away",
    "stuck",
    "chains do not mix",
    "divergent",
    "misses holes",
    "biased",
    "too few draws",
    "ok",
)
_ADVICE = {
    "stopped": "a smaller step size, or sample with a Metropolis test (mala, hmc, nuts, tempering)",
    "runs away": "check that exp(log density) can be integrated; if it can, a start and a reference of the right size",
    "stuck": "a smaller step size (leave it out: warm-up finds one), or another start",
    "chains do not mix": "sample with tempering",
    "divergent": "a higher acceptance (.95), bounds for scales, or another parametrisation",
    "misses holes": "sample with tempering, or more chains",
    "biased": "a smaller step size, or sample with mala",
    "too few draws": "more draws",
}


@dataclass(frozen=True)
class Diagnosis:
    """The verdict, all that was found (the same words, worst first), sentences for people, numbers for programs.

    ``ok`` is True for the verdict ``ok`` alone, ``usable`` also for ``too few draws``: nothing is wrong but their number.

    >>> print(Diagnosis("ok", ("ok",), ("R-hat 1.00.",)))
    ok: R-hat 1.00.
    """

    verdict: str
    found: tuple[str, ...]
    sentences: tuple[str, ...]
    numbers: dict[str, Any] = field(default_factory=dict)
    advice: str = ""

    @property
    def ok(self) -> bool:
        """Whether nothing speaks against the draws."""
        return self.verdict == "ok"

    @property
    def usable(self) -> bool:
        """Whether the draws follow the law as far as can be seen, be they few."""
        return self.verdict in ("ok", "too few draws")

    def __str__(self) -> str:
        do = f" DO: {self.advice}" if self.advice else ""
        return f"{self.verdict}: {' '.join(self.sentences)}{do}"

    def to_json(self) -> dict[str, Any]:
        """A plain dictionary."""
        return {
            "verdict": self.verdict,
            "found": list(self.found),
            "sentences": list(self.sentences),
            "advice": self.advice,
            "numbers": dict(self.numbers),
        }


def diagnose(
    chains: Chains,
    modes: Modes | None = None,
    *,
    holes: dict[str, Any] | None = None,
    scores: np.ndarray | None = None,
    start_size: float | None = None,
    stopped: str | None = None,
    weights_ess: float | None = None,
) -> Diagnosis:
    """Judge the draws; the definition is at the head of this file.

    Arguments: ``modes`` of these draws; ``holes``, what ``measures.coverage.holes_found`` says of a known law;
    ``scores`` ∇ log π at the draws (chains, draws, d), used for unadjusted kernels; ``start_size``, the typical |x| from
    which the chains set out; ``stopped``, the sentence of a run that ended early; ``weights_ess`` of weighted draws
    (their chains are independent, so R-hat says nothing).

    >>> rng = np.random.default_rng(0)
    >>> diagnose(Chains(rng.normal(size=(4, 1000, 1)))).verdict
    'ok'
    >>> diagnose(Chains(rng.normal(size=(4, 1000, 1)) + 5.0 * np.arange(4)[:, None, None])).verdict
    'chains do not mix'
    """
    findings: list[tuple[str, str]] = []
    if stopped:
        findings.append(("stopped", f"the run stopped: {stopped}."))
    worst = _worst(chains, modes)
    if weights_ess is None and chains.length >= SHORTEST:
        findings += _growth(chains, worst[0], start_size)
        findings += _standstill(chains)
        findings += _mixing(chains, modes, worst)
    if weights_ess is None and chains.length < SHORTEST and not stopped:
        short = f"{chains.length} draw{'s' if chains.length > 1 else ''} a chain cannot show whether the chains mix."
        findings.append(("chains do not mix", short))
    findings += _divergence(chains)
    findings += _missing(holes)
    findings += _bias(chains, scores)
    findings += _amount(chains, worst, weights_ess)
    ranked = sorted(findings, key=lambda finding: VERDICTS.index(finding[0]))
    found = tuple(dict.fromkeys(word for word, _ in ranked)) or ("ok",)
    said = [sentence for _, sentence in ranked]
    headline, remarks = _headline(chains, worst, weights_ess), _remarks(chains, modes, holes, found, weights_ess)
    return Diagnosis(
        found[0],
        found,
        tuple(text[:1].upper() + text[1:] for text in [*said, headline, *remarks]),
        _numbers(chains, modes, holes, worst, weights_ess),
        _ADVICE.get(found[0], ""),
    )


def _worst(chains: Chains, modes: Modes | None) -> tuple[float, str]:
    """The largest R-hat and what it is of: a coordinate, the log density, or the indicator of a common mode."""
    rhat = chains.summary.rhat
    candidates = [(float(rhat.max()), chains.names[int(rhat.argmax())])]
    if chains.log_density_rhat is not None:
        candidates.append((chains.log_density_rhat, "the log density"))
    if modes is not None and modes.number > 1:
        common = np.flatnonzero((modes.shares >= COMMON_MODE) & (modes.shares <= 1 - COMMON_MODE))
        if common.size:
            inside = (modes.labels[..., None] == common).astype(np.float64)
            each = summarise(inside).rhat
            candidates.append((float(each.max()), f"being in mode {int(common[each.argmax()]) + 1}"))
    return max(candidates)


def _growth(chains: Chains, rhat: float, start_size: float | None) -> list[tuple[str, str]]:
    """Runs away: farther than 1e6 times the start, or rising in every quarter, while the chains disagree."""
    size = np.abs(chains.draws).max(axis=2)
    largest = float(size.max())
    typical = np.array([np.median(quarter) for quarter in np.array_split(size, min(4, chains.length), axis=1)])
    start = start_size if start_size else max(float(typical[0]), 1e-30)
    rising = len(typical) == 4 and bool(np.all(np.diff(typical) > 0)) and typical[-1] > GROWTH * typical[0]
    if rhat > APART_RHAT and (typical[-1] > FAR * start or (rising and typical[-1] > 30 * start)):
        grew = f"|x| grew to {largest:.0e} from a start of about {start:.2g}; is exp(log density) integrable?"
        return [("runs away", grew.replace("e+0", "e").replace("e+", "e"))]
    return []


def _standstill(chains: Chains) -> list[tuple[str, str]]:
    stuck = chains.stuck
    if not stuck:
        return []
    which = f"chain {stuck[0] + 1} of {chains.chains}" if len(stuck) == 1 else f"{len(stuck)} of {chains.chains} chains"
    accepted = ""
    if "acceptance" in chains.statistics and chains.law.invariant == "exact":
        mean = float(np.mean(np.asarray(chains.statistics["acceptance"])[list(stuck)]))
        accepted = f" (acceptance {mean:.2g})"
    stands = "stands" if len(stuck) == 1 else "stand"
    return [("stuck", f"{which} {stands} still{accepted}.")]


def _mixing(chains: Chains, modes: Modes | None, worst: tuple[float, str]) -> list[tuple[str, str]]:
    rhat, of = worst
    if not rhat > APART_RHAT:
        return []
    said = f"R-hat of {of} is {_shown(rhat)}: do not trust these draws"
    if modes is not None and modes.number > 1:
        each = float(modes.visited_by_chain.mean())
        if each < 0.9 * modes.visited:
            chains_visit = f"the {chains.chains} chains visit {each:.1f} of {modes.number} modes on average"
            return [("chains do not mix", f"{chains_visit}, all together {modes.visited}; {said}.")]
    return [("chains do not mix", f"{said}.")]


def _divergence(chains: Chains) -> list[tuple[str, str]]:
    number, total = chains.divergences, chains.chains * chains.length
    if number <= MOST_DIVERGENT * total:
        return []
    return [("divergent", f"{number:,} of {total:,} draws came from divergent moves: part of the law is out of reach.")]


def _missing(holes: dict[str, Any] | None) -> list[tuple[str, str]]:
    if holes is None or holes["found"] >= holes["of"]:
        return []
    return [("misses holes", f"{holes['found']} of {holes['of']} holes hold at least a third of their true share.")]


def _bias(chains: Chains, scores: np.ndarray | None) -> list[tuple[str, str]]:
    """Stein's identity, one number a coordinate, against its own Monte Carlo error."""
    if chains.law.invariant != "order" or scores is None or not np.isfinite(scores).all():
        return []
    terms = (chains.draws - chains.pooled.mean(axis=0)) * scores + 1
    summary = summarise(terms)
    off = np.abs(summary.mean)
    seen = (off > STEIN_OFF) & (off > STEIN_Z * summary.mcse)
    if not seen.any():
        return []
    i = int(np.where(seen, off, 0).argmax())
    value = f"{summary.mean[i] - 1:.2f} ± {summary.mcse[i]:.2g}"
    say = f"the mean of x ∂ log π of {chains.names[i]} is {value} where −1 is due: the step size biases the draws."
    return [("biased", say.replace("is -", "is −"))]


def _amount(chains: Chains, worst: tuple[float, str], weights_ess: float | None) -> list[tuple[str, str]]:
    if weights_ess is not None:
        if weights_ess >= LEAST_ESS:
            return []
        n = chains.chains * chains.length
        return [("too few draws", f"{n:,} weighted draws are worth {weights_ess:.0f}; {LEAST_ESS} are needed.")]
    findings: list[str] = []
    if chains.length < SHORTEST:
        return []
    if MOST_RHAT < worst[0] <= APART_RHAT:
        findings.append(f"R-hat of {worst[1]} is {worst[0]:.3f}, above {MOST_RHAT}.")
    least = min(chains.summary.ess_bulk.min(), chains.summary.ess_tail.min())
    if least < LEAST_ESS:
        findings.append(f"the smallest ESS is {least:.0f}; {LEAST_ESS} are needed.")
    return [("too few draws", sentence) for sentence in findings]


def _headline(chains: Chains, worst: tuple[float, str], weights_ess: float | None) -> str:
    if weights_ess is not None:
        return f"{chains.chains * chains.length:,} weighted draws, worth {weights_ess:,.0f}."
    each = f"{chains.chains} chains of {chains.length} draw{'s' if chains.length > 1 else ''}"
    if chains.length < SHORTEST:
        return f"{each}."
    s = chains.summary
    ess = f"ESS {s.ess_bulk.min():,.0f} (tails {s.ess_tail.min():,.0f})"
    accepted = "" if chains.acceptance is None else f", acceptance {chains.acceptance:.2f}"
    return f"{each}: R-hat {_shown(worst[0])}, {ess}{accepted}."


def _remarks(
    chains: Chains,
    modes: Modes | None,
    holes: dict[str, Any] | None,
    found: Sequence[str],
    weights_ess: float | None,
) -> list[str]:
    """What is worth saying beside the verdict."""
    remarks = []
    each = "" if modes is None or weights_ess is not None else f"{modes.visited_by_chain.mean():.1f}"
    if holes is not None and "misses holes" not in found:
        visited = f", {each} by a chain on average" if each else ""
        remarks.append(f"{holes['found']} of {holes['of']} holes found{visited}.")
    elif holes is None and modes is not None and modes.visited > 1 and "chains do not mix" not in found:
        remarks.append(f"{modes.visited} modes{f', {each} visited by a chain on average' if each else ''}.")
    if chains.divergences and "divergent" not in found:
        remarks.append(f"{chains.divergences} divergent moves.")
    accepted = chains.acceptance
    if accepted is not None and accepted < LOW_ACCEPTANCE:
        remarks.append(f"acceptance is {accepted:.2g}: the step size is too large.")
    if chains.law.invariant == "order" and "biased" not in found:
        remarks.append("unadjusted: the draws follow the law up to a bias that shrinks with the step size.")
    return remarks


def _numbers(
    chains: Chains,
    modes: Modes | None,
    holes: dict[str, Any] | None,
    worst: tuple[float, str],
    weights_ess: float | None,
) -> dict[str, Any]:
    s = chains.summary
    return {
        "chains": chains.chains,
        "draws": chains.length,
        "rhat": worst[0],
        "rhat_of": worst[1],
        "ess_bulk": float(s.ess_bulk.min()),
        "ess_tail": float(s.ess_tail.min()),
        "weights_ess": weights_ess,
        "ess_per_1000_strokes": chains.ess_per_1000_strokes,
        "acceptance": chains.acceptance,
        "divergences": chains.divergences,
        "stuck_chains": list(chains.stuck),
        "modes": None if modes is None else modes.number,
        "modes_visited": None if modes is None else modes.visited,
        "modes_by_chain": None if modes is None else float(modes.visited_by_chain.mean()),
        "holes": holes,
    }


def _shown(rhat: float) -> str:
    return (f"{rhat:.3f}" if rhat < 1.1 else f"{rhat:.2f}") if np.isfinite(rhat) else "infinite"
