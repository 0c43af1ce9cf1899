"""Can these chains be believed: R-hat, effective sample sizes, standard errors, and chains that never moved.

Definition. R-hat is the rank-normalised split R-hat, the larger of the bulk's and the folded one's; the bulk ESS is that
of the rank-normalised draws, the tail ESS the smaller of those of the indicators x ≤ Q(.05) and x ≤ Q(.95); the MCSE of
a mean is sd/√ESS (Vehtari, Gelman, Simpson, Carpenter and Bürkner 2021, Bayesian Analysis 16). A chain is stuck if it
stood still for a quarter of its draws, or spreads over less than a hundredth of what the middle chain does in every
coordinate. Both are computed here: for constant chains the usual estimators give R-hat = nan beside ESS = n, which reads
like success. Theory: chapters 7 and 8.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from mulligan.core import Law
from mulligan.errors import SetupError

STILL_SHARE = (
    0.25  # of a chain's draws, in one stretch: at an acceptance of .05 a stretch of 250 has chance 3e-6 a start
)
LEAST_STILL = 10
NARROW = 0.01
EXACT = Law("exact")
TAILS = (0.05, 0.95)
MOST_FOR_RANKS = 4_000_000  # draws of one coordinate that are ranked; beyond that every k-th is taken
ARVIZ_NAMES = {  # our words to those of ArviZ's schema of sample statistics
    "acceptance": "acceptance_rate",
    "divergent": "diverging",
    "log_density": "lp",
    "steps": "n_steps",
    "depth": "tree_depth",
}


@dataclass(frozen=True)
class Summary:
    """One number a coordinate, each (d,): ``mean``, ``sd``, ``mcse`` (of the mean), ``rhat``, ``ess_bulk``, ``ess_tail``.

    A coordinate that is the same in every draw of every chain has R-hat ∞ and ESS 0 (R-hat 1 and ESS n in discrete
    chains, where a site may have one value only), one that is constant in each chain but differs between them as well.
    """

    mean: np.ndarray
    sd: np.ndarray
    mcse: np.ndarray
    rhat: np.ndarray
    ess_bulk: np.ndarray
    ess_tail: np.ndarray


@dataclass(frozen=True)
class Chains:
    """Draws of several chains, ready to be judged.

    Arguments: ``draws`` (chains, draws, d), finite; ``names`` of the d coordinates; ``statistics``, each (chains,
    draws), with ``acceptance``, ``divergent`` (0 or 1) and ``log_density`` where there are such; ``law``, what the
    kernel claims to keep; ``strokes``, evaluations of the log density or its score behind one draw; ``discrete``.

    Raises ValueError for draws of another shape, or that are not finite.

    >>> chains = Chains(np.random.default_rng(0).normal(size=(4, 500, 1)))
    >>> chains.names, bool(chains.summary.rhat[0] < 1.01), chains.stuck
    (('x1',), True, ())
    """

    draws: np.ndarray
    names: tuple[str, ...] = ()
    statistics: Mapping[str, np.ndarray] = field(default_factory=dict)
    law: Law = EXACT
    strokes: float = 1.0
    discrete: bool = False

    def __post_init__(self) -> None:
        draws = np.asarray(self.draws, np.float64)
        if draws.ndim != 3 or 0 in draws.shape:
            raise ValueError(f"draws have the shape {draws.shape}; expected (chains, draws, d), none of them 0")
        if not np.isfinite(draws).all():
            raise ValueError("draws are not finite")
        names = tuple(self.names) or tuple(f"x{i + 1}" for i in range(draws.shape[2]))
        if len(names) != draws.shape[2]:
            raise ValueError(f"{len(names)} names for {draws.shape[2]} coordinates")
        for name, values in self.statistics.items():
            if np.shape(values) != draws.shape[:2]:
                raise ValueError(f"{name} has the shape {np.shape(values)}; expected {draws.shape[:2]}")
        object.__setattr__(self, "draws", draws)
        object.__setattr__(self, "names", names)

    @property
    def chains(self) -> int:
        """Number of chains."""
        return self.draws.shape[0]

    @property
    def length(self) -> int:
        """Draws of a chain."""
        return self.draws.shape[1]

    @property
    def dim(self) -> int:
        """d."""
        return self.draws.shape[2]

    @property
    def pooled(self) -> np.ndarray:
        """All draws, (chains · draws, d)."""
        return self.draws.reshape(-1, self.dim)

    @cached_property
    def summary(self) -> Summary:
        """R-hat, ESS and standard errors of every coordinate."""
        return summarise(self.draws, self.discrete)

    @cached_property
    def log_density_rhat(self) -> float | None:
        """R-hat of the log density, or None without it: chains at different levels agree in no coordinate's stead."""
        values = self.statistics.get("log_density")
        if values is None or not np.isfinite(values).all() or np.ptp(values) == 0:
            return None
        return float(summarise(np.asarray(values, np.float64)[..., None]).rhat[0])

    @property
    def acceptance(self) -> float | None:
        """Mean acceptance probability, or None where nothing is accepted or rejected."""
        if self.law.invariant == "order" or "acceptance" not in self.statistics:
            return None
        return float(np.mean(self.statistics["acceptance"]))

    @property
    def divergences(self) -> int:
        """Draws whose proposal was not finite, or whose energy error passed 1000."""
        return int(np.sum(self.statistics.get("divergent", 0.0)))

    @cached_property
    def stuck(self) -> tuple[int, ...]:
        """The chains that stood still for a quarter of their draws, or spread over nearly nothing."""
        still = np.array([_longest_rest(chain) for chain in self.draws])
        stuck = still >= max(LEAST_STILL, STILL_SHARE * self.length)
        spreads = self.draws.std(axis=1)
        typical = np.median(spreads, axis=0)
        if self.length > 1 and not self.discrete and np.any(typical > 0):
            counted = typical > 0
            stuck |= np.all(spreads[:, counted] < NARROW * typical[counted], axis=1)
        return tuple(int(i) for i in np.flatnonzero(stuck))

    @property
    def ess(self) -> float:
        """The smallest bulk ESS of a coordinate."""
        return float(np.min(self.summary.ess_bulk))

    @property
    def ess_per_1000_strokes(self) -> float:
        """Smallest bulk ESS for 1000 evaluations of the log density or its score."""
        return 1000 * self.ess / (self.strokes * self.chains * self.length)


def summarise(draws: np.ndarray, discrete: bool = False) -> Summary:
    """The summary of draws (chains, draws, d). Long runs are thinned to 4e6 draws for the ranks.

    Raises SetupError where arviz-stats is missing.

    >>> s = summarise(np.random.default_rng(0).normal(size=(4, 400, 2)))
    >>> s.ess_bulk.shape, bool((s.rhat < 1.02).all())
    ((2,), True)
    """
    stats = _array_stats()
    every = -(-draws.shape[0] * draws.shape[1] // MOST_FOR_RANKS)
    columns = np.moveaxis(draws[:, ::every], 2, 0)
    mean, sd = draws.mean(axis=(0, 1)), draws.std(axis=(0, 1))
    axes = {"chain_axis": 0, "draw_axis": 1}
    rows = []
    for column in columns:
        alone = np.ptp(column, axis=1) == 0
        total = column.size
        if np.ptp(column) == 0:
            rows.append((1.0, total, total) if discrete else (np.inf, 0.0, 0.0))
        elif alone.all() or column.shape[1] < 4:
            rows.append((np.inf, 0.0, 0.0))
        else:
            with warnings.catch_warnings(), np.errstate(all="ignore"):
                warnings.simplefilter("ignore")
                rhat = float(stats.rhat(column, **axes))
                bulk = float(stats.ess(column, method="bulk", **axes))
                # a coordinate with few values has empty tails: its quantiles are its ends, and nan comes back
                tail = float(stats.ess(column, method="tail", prob=TAILS, **axes))
            rows.append((_or(rhat, np.inf), _or(bulk, 0.0), _or(tail, bulk if discrete else 0.0)))
    rhats, bulks, tails = (np.array(values, np.float64) for values in zip(*rows))
    mcse = np.where(bulks > 0, sd / np.sqrt(np.maximum(bulks, 1e-300)), np.inf)
    return Summary(mean, sd, mcse, rhats, bulks, tails)


def inference_data(
    positions: Mapping[str, np.ndarray], statistics: Mapping[str, np.ndarray], attributes: Mapping[str, Any]
) -> Any:
    """The draws as ArviZ wants them: a ``DataTree`` with ``posterior`` and ``sample_stats`` by ArviZ's own names.

    ``positions`` maps names to (chains, draws, …), ``statistics`` to (chains, draws). Raises SetupError without
    arviz-base.
    """
    try:
        from arviz_base import from_dict
    except ImportError as error:
        why = "ArviZ's format is made by its own package"
        raise SetupError("arviz-base is not installed", "to_arviz", why, "pip install 'arviz-base>=0.8'") from error
    renamed = {ARVIZ_NAMES.get(name, name): np.asarray(values) for name, values in statistics.items()}
    if "diverging" in renamed:
        renamed["diverging"] = renamed["diverging"] > 0
    groups: dict[str, Any] = {"posterior": {name: np.asarray(values) for name, values in positions.items()}}
    if renamed:
        groups["sample_stats"] = renamed
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # "more chains than draws": meant, where thousands of chains run
        return from_dict(groups, attrs={"/": dict(attributes)})


def _array_stats() -> Any:
    try:
        from arviz_stats.base import array_stats  # type: ignore[attr-defined]  # a second of imports: only when chains are judged
    except ImportError as error:
        raise SetupError("arviz-stats is not installed", do="pip install arviz-stats") from error
    return array_stats


def _longest_rest(chain: np.ndarray) -> int:
    """Length of the longest stretch of equal draws of one chain (draws, d); 1 where every draw is another."""
    moved = np.flatnonzero(np.any(np.diff(chain, axis=0) != 0, axis=1))
    return int(np.diff(np.concatenate([[-1], moved, [len(chain) - 1]])).max())


def _or(value: float, otherwise: float) -> float:
    return value if np.isfinite(value) else otherwise
