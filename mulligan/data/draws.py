"""Draws of a row: a Latin hypercube that is hashed from the row, so that scoring is deterministic.

Definition (McKay, Beckman and Conover 1979). u_kj = (π_j(k) + v_kj)/m for k = 0 … m−1, with π_j a permutation of
0 … m−1 and v_kj uniform on (0, 1), both hashed from the row for each coordinate j on its own. Each u_k is uniform on the
cube, and in every coordinate, however many there are, the m draws hit each of the m strata once. Only single
coordinates are covered so: in the plane of two of them the draws lie as independent ones do. What the mean of a
function loses in variance is the part that is additive over coordinates (Stein 1987).
"""

from __future__ import annotations

import numpy as np

_EDGE = 1e-9  # keeps a draw strictly inside its cell
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_BLOCK = 1 << 16  # numbers hashed at once: they stay in the cache, and memory is that of the answer


def row_uniforms(values: np.ndarray, m: int, d: int, salt: int | np.ndarray) -> np.ndarray:
    """Numbers in (0, 1), shape (n, m, d), for rows (n, columns): (π_j(k) + v_kj)/m, k = 0 … m−1.

    Permutations and v are hashed from the row's values and its ``salt`` (one integer, or one a row): equal rows with equal
    salts get equal draws, wherever they stand.

    >>> once, again = row_uniforms(np.ones((2, 1)), 4, 3, 0)
    >>> bool((once == again).all()), once.shape
    (True, (4, 3))
    >>> np.sort(np.floor(4 * once), axis=0)[:, 2].tolist()  # one draw in each quarter
    [0.0, 1.0, 2.0, 3.0]
    """
    bits = np.ascontiguousarray(values + 0.0).view(np.uint64)
    salts = np.broadcast_to(np.asarray(salt).astype(np.uint64), len(values))
    state = salts ^ _GOLDEN
    for column in bits.T:
        state = _mix(state ^ column)
    coordinates = np.arange(1, d + 1, dtype=np.uint64) * np.uint64(0xBF58476D1CE4E5B9)
    out = np.empty((len(values), m, d))
    step = max(1, _BLOCK // max(1, m * d))
    for start in range(0, len(values), step):
        seeds = _mix(state[start : start + step, None] ^ coordinates)
        out[start : start + step] = _latin(seeds, m).transpose(0, 2, 1)
    return np.clip(out, _EDGE, 1 - _EDGE, out=out)


def _latin(seeds: np.ndarray, m: int) -> np.ndarray:
    """(π(k) + v_k)/m for seeds (n, d), shape (n, d, m): 2m numbers of splitmix64's stream a seed."""
    index = np.arange(m, dtype=np.uint64)
    low = np.uint64((1 << m.bit_length()) - 1)
    # The order of hashed numbers is the permutation. Each carries its index in its lowest bits, so that a plain sort,
    # which is several times as fast as an argsort, brings the indices along.
    keys = np.sort((_mix(seeds[..., None] + index * _GOLDEN) & ~low) | index, axis=-1)
    # 32 bits and a half: v is never 0 or 1, and π + v is exact, so no draw is rounded into the next stratum.
    jitter = ((_mix(seeds[..., None] + (index + np.uint64(m)) * _GOLDEN) >> np.uint64(32)) + 0.5) / 2.0**32
    return ((keys & low) + jitter) / m


def _mix(state: np.ndarray) -> np.ndarray:
    """splitmix64 (Steele, Lea and Flood 2014), vectorised; the multiplications wrap on purpose."""
    with np.errstate(over="ignore"):
        state = state + _GOLDEN
        state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return state ^ (state >> np.uint64(31))
