"""Modes: found by climbing from the draws and merged where no valley lies between, or given; and who visits which.

Definition. Two tops belong to one mode if a path between them never sinks more than one nat below the lower of the two;
the paths tried are straight lines between neighbours, joined into chains, so that a ridge (a ring, a banana) is one mode.
One nat is no barrier to any sampler, and hides the small bumps of a learned energy. A climb is gradient ascent with a
step of its own for each point, grown by a half after a gain and halved after a loss. A draw belongs to the mode of the
nearest draw that was climbed from. Given modes (the holes of a known law) are discs: outside all of them a draw belongs
to none. Theory: chapters 7 and 8 (a ball alone stays in its hole).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from mulligan.loop import compile_small

VALLEY = 1.0  # nats
CLIMBERS = 512
CLIMB_STEPS = 256
NEIGHBOURS = 8
MOST_PAIRED = 96  # groups whose tops are joined with one another, after neighbours
BETWEEN = 9  # points looked at between two tops
LEAST_SHARE = 0.005  # of all draws: below it, a top is a bump and no mode
NOWHERE = -1


@dataclass(frozen=True)
class Modes:
    """The modes and each draw's own: ``centres`` (m, d), ``labels`` (chains, draws) with −1 for none, ``given``.

    >>> modes = Modes(np.zeros((2, 1)), np.array([[0, 0, -1], [1, 0, 1]]))
    >>> modes.visits.tolist(), modes.visited, modes.visited_by_chain.tolist()
    ([[2, 0], [1, 2]], 2, [1, 2])
    """

    centres: np.ndarray
    labels: np.ndarray
    given: bool = False

    @property
    def number(self) -> int:
        """How many modes there are."""
        return len(self.centres)

    @property
    def visits(self) -> np.ndarray:
        """Draws of each chain in each mode, (chains, m)."""
        return np.stack([np.bincount(row[row >= 0], minlength=self.number) for row in self.labels])

    @property
    def visited(self) -> int:
        """Modes that any chain visits."""
        return int((self.visits.sum(axis=0) > 0).sum())

    @property
    def visited_by_chain(self) -> np.ndarray:
        """Modes that each chain visits, (chains,)."""
        return (self.visits > 0).sum(axis=1)

    @property
    def shares(self) -> np.ndarray:
        """Share of all draws in each mode, (m,)."""
        return self.visits.sum(axis=0) / self.labels.size


def given_modes(draws: np.ndarray, centres: np.ndarray, radius: float) -> Modes:
    """Draws (chains, draws, d) by the nearest of the given ``centres`` (m, d), within ``radius`` of it.

    >>> given_modes(np.array([[[0.1], [5.0]]]), np.array([[0.0], [4.0]]), 0.5).labels.tolist()
    [[0, -1]]
    """
    from scipy.spatial import cKDTree

    distance, label = cKDTree(centres).query(draws.reshape(-1, draws.shape[2]))
    labels = np.where(distance <= radius, label, NOWHERE)
    return Modes(np.asarray(centres, np.float64), labels.reshape(draws.shape[:2]), given=True)


def find_modes(log_density: Callable[[Array], Array], draws: np.ndarray, climbers: int = CLIMBERS) -> Modes:
    """The modes that draws (chains, draws, d) of a differentiable ``log_density`` (of one x (d,)) lie in.

    Climbs from about ``climbers`` draws, evenly from all chains; modes below half a per cent of the draws are left out
    (their draws have label −1). A mode that no chain has visited cannot be found.

    >>> draws = np.array([[[-2.9], [-3.1], [-3.2], [-2.8]], [[2.9], [3.1], [3.2], [2.8]]])
    >>> find_modes(lambda x: -0.5 * (jnp.abs(x[0]) - 3.0) ** 2, draws).centres.round(2).ravel().tolist()
    [-3.0, 3.0]
    """
    from scipy.spatial import cKDTree

    pooled = draws.reshape(-1, draws.shape[2])
    spread = pooled.std(axis=0)
    scale = np.where(spread > 0, spread, 1.0)
    starts = _thinned(draws, climbers)
    padded = np.concatenate([starts, np.repeat(starts[-1:], climbers - len(starts), axis=0)])  # one shape, one program
    tops, heights = (np.asarray(a, np.float64) for a in _climb(log_density, jnp.asarray(padded), jnp.asarray(scale)))
    tops, heights = tops[: len(starts)], heights[: len(starts)]
    group = _merged(log_density, tops, heights, scale)
    labels = group[cKDTree(starts / scale).query(pooled / scale)[1]]
    shares = np.bincount(labels, minlength=group.max() + 1) / len(labels)
    kept = np.flatnonzero(shares >= min(LEAST_SHARE, shares.max()))
    highest = np.array([np.flatnonzero(group == g)[heights[group == g].argmax()] for g in kept])
    order = np.lexsort(np.round(tops[highest] / scale, 3).T[::-1])
    renamed = np.full(group.max() + 1, NOWHERE)
    renamed[kept[order]] = np.arange(len(kept))
    return Modes(tops[highest][order], renamed[labels].reshape(draws.shape[:2]))


def _thinned(draws: np.ndarray, most: int) -> np.ndarray:
    """At most ``most`` of the draws (n, d): every k-th chain, and of each equally many, evenly along it."""
    chains = draws[:: -(-len(draws) // most)]
    each = max(1, most // len(chains))
    picked = np.unique(np.linspace(0, draws.shape[1] - 1, each).round().astype(int))
    return chains[:, picked].reshape(-1, draws.shape[2])


@compile_small
def _climb(log_density: Callable[[Array], Array], starts: Array, scale: Array) -> tuple[Array, Array]:
    """Ascent from each start in coordinates divided by ``scale``; a step that is not a gain is not taken."""
    rise = jax.value_and_grad(lambda u: log_density(u * scale))

    def one(x: Array) -> tuple[Array, Array]:
        value, slope = rise(x)

        def step(carry: tuple, _: None) -> tuple[tuple, None]:
            x, value, slope, size = carry
            length = jnp.sqrt(jnp.sum(slope**2))
            # never farther than a tenth of a spread at once: a climb must not jump over a valley
            move = slope * jnp.minimum(size, 0.1 / jnp.maximum(length, 1e-30))
            new = x + move
            new_value, new_slope = rise(new)
            better = (new_value > value) & jnp.all(jnp.isfinite(new_slope))
            size = jnp.clip(jnp.where(better, 1.5 * size, 0.5 * size), 1e-12, 1e6)
            kept = jax.tree.map(lambda a, b: jnp.where(better, a, b), (new, new_value, new_slope), (x, value, slope))
            return (*kept, size), None

        slope = jnp.where(jnp.isfinite(slope), slope, 0.0)
        last, _ = jax.lax.scan(step, (x, value, slope, jnp.asarray(1e-3, x.dtype)), None, length=CLIMB_STEPS)
        return last[0], last[1]

    tops, heights = jax.lax.map(one, starts / scale, batch_size=256)
    return tops * scale, heights


@compile_small
def _heights(log_density: Callable[[Array], Array], points: Array) -> Array:
    return jax.lax.map(log_density, points, batch_size=1024)


def _merged(log_density: Callable, tops: np.ndarray, heights: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """The group of each top (n,), numbered from 0: neighbours with no valley between are one; then groups are."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components
    from scipy.spatial import cKDTree

    def joined(first: np.ndarray, second: np.ndarray) -> np.ndarray:
        same = _no_valley(log_density, tops, heights, first, second)
        links = np.concatenate([first[same], np.arange(n)]), np.concatenate([second[same], group])
        return connected_components(coo_matrix((np.ones(len(links[0])), links), (n, n)), directed=False)[1]

    n, group = len(tops), np.arange(len(tops))
    near = cKDTree(tops / scale).query(tops / scale, k=min(NEIGHBOURS + 1, n))[1].reshape(n, -1)
    found = joined(np.repeat(np.arange(n), near.shape[1]), near.ravel())
    best = np.array([np.flatnonzero(found == g)[heights[found == g].argmax()] for g in range(found.max() + 1)])
    group, largest = best[found], best[np.argsort(-np.bincount(found), kind="stable")][:MOST_PAIRED]
    pairs = np.stack(np.triu_indices(len(largest), 1))
    return joined(*largest[pairs]) if pairs.size else found


def _no_valley(
    log_density: Callable, tops: np.ndarray, heights: np.ndarray, first: np.ndarray, second: np.ndarray
) -> np.ndarray:
    """Whether the straight line between two tops stays above the lower of them, less a nat; one bool a pair."""
    share = np.linspace(0, 1, BETWEEN + 2)[1:-1, None]
    lines = tops[first][:, None] * (1 - share) + tops[second][:, None] * share
    points = lines.reshape(-1, tops.shape[1])
    size = max(4096, 1 << (len(points) - 1).bit_length())  # a power of two: few shapes, few programs
    padded = np.concatenate([points, np.repeat(points[-1:], size - len(points), axis=0)])
    values = np.asarray(_heights(log_density, jnp.asarray(padded)), np.float64)[: len(points)]
    lowest = np.nan_to_num(values.reshape(len(first), -1), nan=-np.inf).min(axis=1)
    with np.errstate(invalid="ignore"):
        return lowest >= np.minimum(heights[first], heights[second]) - VALLEY
