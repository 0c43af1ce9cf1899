"""The unknown cells of rows, drawn given the known ones: for every family, any pattern of cells, with the method named.

Definition. Evidence is a box B of R^d (``data.regions``). A Gaussian mixture q, cut to B (``models.boxes``), proposes points
z with weights w, whose mean is without bias for ∫_B q; a model with density p multiplies them by p(z)/q(z). The mean weight
is then without bias for P(evidence), points resampled by weight follow p(· | B) as their number grows (Rubin 1987), and
Metropolis moves on the free coordinates, which keep that law, part the copies. Where the model is a Gaussian mixture p = q:
if all weights are equal, too, the draws are exact. Else q is a mixture fitted by EM to the model's own draws, with a wide
part that bounds p/q.

A model without density (a GAN) is known by its draws alone. Its answer is the posterior under an observation noise that is
stated: draws weighed by N(z_o; known value, σ²) in standardised coordinates. Identity: ``density.conditional``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from mulligan.data.regions import Region, region_of
from mulligan.errors import UsageError
from mulligan.measures.chains import summarise
from mulligan.workbench.direct import directly, has_own_way
from mulligan.workbench.latents import MOST_RHAT, generator_rows
from mulligan.workbench.spaces import Space, space_of

if TYPE_CHECKING:
    from mulligan.workbench.fitted import Fitted

ENOUGH = 200  # draws of the pool, that a row's weights are worth; below, a gan goes through its latent vectors
GROUPS, GROUP, JUDGED = 4, 64, 4  # groups of draws that are compared, their size, and in how many rows
LEAST_GROUP = 16  # candidates of a group, below which none are compared
CANDIDATES = 256  # a row, where many rows are completed; more if more draws are asked for
MOVES = 8
OBSERVATION_NOISE = 0.1  # σ of that model's known cells, in standard deviations of the column
_EXACT, _BOXED = "exact", "exact law, by weighted draws in the intervals"
_IMPORTANCE = "importance resampling from a Gaussian mixture, then Metropolis moves"
_NEIGHBOURS = "draws weighed by an observation noise"


class Completed(NamedTuple):
    """``values`` (draws, n, columns) with nothing unknown, the ``method``, and what it says of itself."""

    values: np.ndarray
    method: str
    diagnostics: dict[str, Any]


class Weighted(NamedTuple):
    """Candidates of rows: ``points`` (n, S, d) of the codec, ``log_weights`` (n, S) whose mean of exp is p(evidence) in the
    table's units; ``exact`` says that no weight is random."""

    points: np.ndarray
    log_weights: np.ndarray
    exact: bool


def weigh(space: Space, region: Region, draws: int, generator: np.random.Generator) -> Weighted:
    """``draws`` weighted points in the box of each row."""
    if space.pool is not None:
        return _neighbours(space.pool, region)
    found = space.candidates(region.low, region.high, draws, generator)
    log_w = found.log_weights + region.log_jacobian[:, None]
    if space.closed:
        return Weighted(found.points, log_w, bool(found.even.all()))
    flat = found.points.reshape(-1, found.points.shape[2])
    ratio = (space.log_density(flat) - space.log_proposal(flat)).reshape(log_w.shape)
    return Weighted(found.points, log_w + ratio, bool((region.low == region.high).all()))


def _neighbours(pool: np.ndarray, region: Region) -> Weighted:
    known = region.low == region.high
    log_w = np.empty((len(region.low), len(pool)))
    for i, (low, high, fixed) in enumerate(zip(region.low, region.high, known)):
        inside = ((pool >= low) & (pool <= high) | fixed).all(axis=1)
        square = ((pool[:, fixed] - low[fixed]) ** 2).sum(axis=1) / OBSERVATION_NOISE**2
        log_w[i] = np.where(inside, -0.5 * square, -np.inf)
    return Weighted(np.broadcast_to(pool, (len(known), *pool.shape)), log_w, False)


def effective(log_weights: np.ndarray) -> np.ndarray:
    """(Σw)²/Σw² of each row of weights (n, S): so many independent draws they are worth; 0 where all are 0."""
    top = log_weights.max(axis=1, keepdims=True)
    w = np.exp(log_weights - np.where(np.isfinite(top), top, 0.0))
    return w.sum(axis=1) ** 2 / np.maximum((w**2).sum(axis=1), 1e-300)


def resampled(weighted: Weighted, draws: int, generator: np.random.Generator) -> np.ndarray:
    """Points (n, draws, d) drawn by weight: one uniform number for each row's comb, its teeth in random order."""
    n, _, d = weighted.points.shape
    top = weighted.log_weights.max(axis=1, keepdims=True)
    cumulated = np.cumsum(np.exp(weighted.log_weights - top), axis=1)
    out = np.empty((n, draws, d))
    for i in range(n):
        teeth = (generator.permutation(draws) + generator.random()) / draws * cumulated[i, -1]
        chosen = np.searchsorted(cumulated[i], teeth, side="right")
        out[i] = weighted.points[i, np.minimum(chosen, len(cumulated[i]) - 1)]
    return out


def accept(log_ratio: np.ndarray, uniform: np.ndarray) -> np.ndarray:
    """Metropolis's rule (Metropolis and others 1953), bool."""
    return np.log(uniform) < log_ratio


def moved(
    space: Space, region: Region, points: np.ndarray, weighted: Weighted, moves: int, generator: np.random.Generator
) -> tuple[np.ndarray, float]:
    """Metropolis moves of points (n, m, d) inside each row's box, on the coordinates that are not known; the share accepted.

    Steps are normal with the standard deviations of the row's weighted candidates, times 2.4/√free, halved again and again:
    they do not depend on where a chain stands, so each move leaves p(· | evidence) as it is.
    """
    n, m, d = points.shape
    free = region.low < region.high
    top = weighted.log_weights.max(axis=1, keepdims=True)
    w = np.exp(weighted.log_weights - top)
    w /= w.sum(axis=1, keepdims=True)
    mean = np.einsum("ns,nsd->nd", w, weighted.points)
    spread = np.sqrt(np.maximum(np.einsum("ns,nsd->nd", w, (weighted.points - mean[:, None]) ** 2), 1e-8))
    scale = np.where(free, 2.4 * spread / np.sqrt(np.maximum(free.sum(axis=1, keepdims=True), 1)), 0.0)
    log_p = space.log_density(points.reshape(-1, d)).reshape(n, m)
    taken = 0.0
    for step in range(moves):
        new = points + 0.5 ** (step % 4) * scale[:, None] * generator.standard_normal(points.shape)
        inside = ((new >= region.low[:, None]) & (new <= region.high[:, None])).all(axis=2)
        log_new = np.where(inside, space.log_density(new.reshape(-1, d)).reshape(n, m), -np.inf)
        yes = accept(log_new - log_p, generator.random((n, m)))
        points, log_p = np.where(yes[..., None], new, points), np.where(yes, log_new, log_p)
        taken += float(yes.mean()) / moves
    return points, taken


def answer(
    space: Space, region: Region, draws: int, candidates: int, moves: int, seed: int, judge: bool = True
) -> tuple[np.ndarray, Weighted, str, dict[str, Any]]:
    """Points (n, draws, d) of p(· | evidence), the weights they come from, the method's name and its diagnostics, R-hat of
    groups of moved draws among them if ``judge``.

    Raises UsageError where a row's evidence has no weight at all.
    """
    generator = np.random.default_rng([seed, 601])
    weighted = weigh(space, region, candidates, generator)
    if not np.isfinite(weighted.log_weights.max(axis=1)).all():
        row = int(np.flatnonzero(~np.isfinite(weighted.log_weights.max(axis=1)))[0])
        why = (
            f"None of {weighted.log_weights.shape[1]:,} proposals has a probability above 0 under {space.fitted.label}"
        )
        raise UsageError("the evidence has no weight", f"row {row + 1}", why, "a wider range, or fewer columns")
    if weighted.exact and space.closed:
        points = weighted.points[:, :draws] if draws <= candidates else resampled(weighted, draws, generator)
        return points, weighted, _EXACT, {}
    ess = effective(weighted.log_weights)
    told: dict[str, Any] = {"effective_draws": float(ess.min()), "candidates": weighted.log_weights.shape[1]}
    points = resampled(weighted, draws, generator)
    if space.pool is not None:
        note = f"known cells with a normal noise of {OBSERVATION_NOISE:g} standard deviations of their column"
        poor = np.flatnonzero(ess < ENOUGH)
        if space.latents is None or not len(poor):
            return points, weighted, _NEIGHBOURS, {**told, "note": note}
        drawn = generator_rows(
            space.fitted.model,
            region.low[poor],
            region.high[poor],
            (space.latents, space.pool),
            OBSERVATION_NOISE,
            draws,
            max(draws, candidates),
            seed,
        )
        points[poor] = drawn.values
        return points, weighted, f"{drawn.method}, by an observation noise", {**told, **drawn.diagnostics, "note": note}
    if moves:
        points, told["acceptance"] = moved(space, region, points, weighted, moves, generator)
        told |= judged(space, region, weighted, moves, generator) if judge else {}
    return points, weighted, _BOXED if space.closed else _IMPORTANCE, told


def judged(
    space: Space, region: Region, weighted: Weighted, moves: int, generator: np.random.Generator
) -> dict[str, Any]:
    """R-hat of four groups of moved draws, each from a quarter of the candidates of its own: the largest of a few rows.

    Draws that the moves carry to one law from four starts agree; where a start still shows, they do not.
    """
    if weighted.log_weights.shape[1] < GROUPS * LEAST_GROUP:
        return {}
    rows = np.linspace(0, len(region.low) - 1, min(JUDGED, len(region.low))).astype(int)
    part = Region(*(leaf[rows] for leaf in region))
    groups = []
    for quarter in np.array_split(np.arange(weighted.log_weights.shape[1]), GROUPS):
        some = Weighted(weighted.points[rows][:, quarter], weighted.log_weights[rows][:, quarter], False)
        if not np.isfinite(some.log_weights.max(axis=1)).all():
            return {"warning": "a quarter of the candidates has no weight: the groups of draws cannot be compared"}
        groups.append(
            moved(space, part, resampled(some, GROUP, generator), weighted_of(weighted, rows), moves, generator)[0]
        )
    worst = 1.0
    for row in np.stack(groups, axis=1):
        free = np.ptp(row, axis=(0, 1)) > 0
        if free.any():
            worst = max(worst, float(summarise(row[..., free], discrete=True).rhat.max()))
    said = {"warning": f"groups of draws disagree: R-hat {worst:.2f}, above {MOST_RHAT}"} if worst >= MOST_RHAT else {}
    return {"rhat": worst, **said}


def weighted_of(weighted: Weighted, rows: np.ndarray) -> Weighted:
    """The candidates of some rows."""
    return Weighted(weighted.points[rows], weighted.log_weights[rows], weighted.exact)


def complete(
    fitted: Fitted,
    values: np.ndarray,
    draws: int = 1,
    seed: int = 0,
    ranges: dict[str, tuple[float, float]] | None = None,
) -> Completed:
    """Draws of the unknown cells (NaN) of rows ``values`` (n, columns) given the known ones of each row.

    ``ranges`` hold for unknown cells of all rows. Known cells stay as they are. Raises UsageError as ``space_of``, and
    where the evidence of a row has no weight.

    >>> import mulligan as mg
    >>> x = np.random.default_rng(0).normal(size=(300, 1)) * [1.0, 1.0]
    >>> fitted = mg.fit(x + 0.1 * np.random.default_rng(1).normal(size=(300, 2)), "gaussian")
    >>> found = complete(fitted, np.array([[1.0, np.nan]]), draws=3)
    >>> found.values.shape, found.method, found.values[:, 0, 0].tolist()
    ((3, 1, 2), 'exact', [1.0, 1.0, 1.0])
    """
    values = np.asarray(values, np.float64)
    unknown = np.isnan(values)
    whole = np.repeat(values[None], draws, axis=0)
    rows = np.flatnonzero(unknown.any(axis=1))
    if not len(rows):
        return Completed(whole, _EXACT, {})
    own = has_own_way(fitted, unknown[rows], ranges)
    pieces, told, method = [], [], _EXACT
    if own.any():
        drawn = directly(fitted, values[rows[own]], ranges, draws, seed)
        whole[:, rows[own]] = drawn.values.transpose(1, 0, 2)
        rows, told, method = rows[~own], [drawn.diagnostics], drawn.method
        if not len(rows):
            return Completed(whole, method, drawn.diagnostics)
    space = space_of(fitted, seed)
    region = region_of(space.codec, values[rows], ranges)
    candidates = draws if space.closed else max(CANDIDATES, draws)
    size = max(1, 200_000 // max(candidates, len(space.pool) if space.pool is not None else 1))
    for at in np.array_split(np.arange(len(rows)), -(-len(rows) // size)):
        part = Region(*(leaf[at] for leaf in region))
        if space.closed and not weigh(space, part, 2, np.random.default_rng(seed)).exact:
            candidates = max(CANDIDATES, draws)
        points, _, method_here, said = answer(space, part, draws, candidates, MOVES, seed + int(at[0]))
        method = method_here if method_here != _EXACT else method
        pieces.append(points)
        told.append(said)
    points = np.concatenate(pieces).transpose(1, 0, 2)
    decoded = np.stack([space.codec.decode(block) for block in points])
    whole[:, rows] = np.where(unknown[rows], decoded, values[rows])
    return Completed(whole, method, _worst([said for said in told if said]))


def _worst(told: list[dict[str, Any]]) -> dict[str, Any]:
    """The worst of every number over the pieces: of R-hat the greatest, of all else the least."""
    keys = {key for said in told for key in said}
    found: dict[str, Any] = {}
    for key in sorted(keys):
        entries = [said[key] for said in told if key in said]
        found[key] = entries[0] if isinstance(entries[0], str) else max(entries) if key == "rhat" else min(entries)
    return found
