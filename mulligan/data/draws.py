"""Draws of a row: a Kronecker sequence with a shift that is hashed from the row, so that scoring is deterministic.

Definition. u_k = frac(shift + k·α) with α_j = φ_d^{−j}, φ_d the root of x^{d+1} = x + 1 (Roberts 2018, the generalised
golden ratio): each u_k is uniform as the shift is, and m of them cover the cube evenly.
"""

from __future__ import annotations

import numpy as np

_EDGE = 1e-9  # keeps a draw strictly inside its cell


def row_uniforms(values: np.ndarray, m: int, d: int, salt: int | np.ndarray) -> np.ndarray:
    """Numbers in (0, 1), shape (n, m, d), for rows (n, columns): frac(shift + k·α), k = 0 … m−1.

    The shift is hashed from the row's values and its ``salt`` (one integer, or one a row), α is the generalised
    ratio's.

    >>> once, again = row_uniforms(np.ones((2, 1)), 4, 1, 0)
    >>> bool((once == again).all()), once.shape
    (True, (4, 1))
    """
    bits = np.ascontiguousarray(values + 0.0).view(np.uint64)
    salts = np.broadcast_to(np.asarray(salt).astype(np.uint64), len(values))
    state = salts ^ np.uint64(0x9E3779B97F4A7C15)
    for column in bits.T:
        state = _mix(state ^ column)
    coordinates = np.arange(1, d + 1, dtype=np.uint64) * np.uint64(0xBF58476D1CE4E5B9)
    shift = (_mix(state[:, None] ^ coordinates) >> np.uint64(11)).astype(np.float64) / 2.0**53
    golden = 2.0
    for _ in range(64):
        golden = (1 + golden) ** (1 / (d + 1))
    alpha = golden ** -np.arange(1, d + 1)
    u = (shift[:, None, :] + np.arange(m)[:, None] * alpha) % 1.0
    return np.clip(u, _EDGE, 1 - _EDGE)


def _mix(state: np.ndarray) -> np.ndarray:
    """splitmix64 (Steele, Lea and Flood 2014), vectorised; the multiplications wrap on purpose."""
    with np.errstate(over="ignore"):
        state = state + np.uint64(0x9E3779B97F4A7C15)
        state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return state ^ (state >> np.uint64(31))
