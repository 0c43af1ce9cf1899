"""log p of rows under a model that lives on encoded points.

Definition. With m points a row, log p(row) = log (1/m Σ_k exp(log p(z_k) + log J_k)): exact where m = 1 and nothing was
dequantised, a lower bound in expectation otherwise (Burda, Grosse and Salakhutdinov 2016). Models run in float32, the sum
over draws and the Jacobians in float64. Rows are scored in blocks padded to one size, so there is one program a model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mulligan.core import Density, Sampler, score_of
from mulligan.data.codec import Encoded
from mulligan.loop import compile_small

BLOCK = 1024


def row_log_prob(density: Density, encoded: Encoded) -> np.ndarray:
    """log p of each row in nats, float64 (n,); deterministic. NaN rows stay NaN, −inf stays −inf."""
    n, m, _ = encoded.points.shape
    log_p = point_log_prob(density, encoded.flat).reshape(n, m) + encoded.log_jacobian
    return log_p[:, 0] if m == 1 else log_mean_exp(log_p)


def point_log_prob(density: Density, points: np.ndarray) -> np.ndarray:
    """log p(z) of each point (n, d), float64 (n,)."""
    return in_blocks(lambda block: _log_prob_block(density, block), points)


def point_score(model: Any, points: np.ndarray) -> np.ndarray:
    """∇ log p(z) of each point (n, d)."""
    score = score_of(model)
    return in_blocks(lambda block: _score_block(score, block), points)


def draw(sampler: Sampler, n: int, seed: int) -> np.ndarray:
    """n draws (n, d), made in blocks of one size: the first 500 of 1000 are those of a draw of 500."""
    key = jax.random.key(seed)
    blocks = [np.asarray(_sample_block(sampler, jax.random.fold_in(key, i))) for i in range(-(-n // BLOCK))]
    return np.concatenate(blocks)[:n]


def log_mean_exp(log_values: np.ndarray) -> np.ndarray:
    """log of the mean of exp over the last axis; −inf where all are −inf, NaN where any is NaN."""
    top = np.max(log_values, axis=-1, keepdims=True)
    anchor = np.where(np.isfinite(top), top, 0.0)
    with np.errstate(divide="ignore", over="ignore"):
        return np.log(np.mean(np.exp(log_values - anchor), axis=-1)) + anchor[..., 0]


def in_blocks(function: Callable[[Any], Any], points: np.ndarray) -> np.ndarray:
    """Apply a compiled function of (1024, d) to any number of rows; the last block is padded with its own last row."""
    pieces = [np.asarray(function(block))[:size] for block, size in _blocks(points)]
    return np.concatenate(pieces).astype(np.float64) if pieces else np.zeros(0)


def _blocks(points: np.ndarray) -> Iterator[tuple[np.ndarray, int]]:
    for start in range(0, len(points), BLOCK):
        block = points[start : start + BLOCK]
        size = len(block)
        yield (block if size == BLOCK else np.pad(block, ((0, BLOCK - size), (0, 0)), mode="edge")), size


@compile_small
def _log_prob_block(density: Density, block: Any) -> Any:
    return jax.vmap(lambda x: density.log_prob(x))(jnp.asarray(block))


@compile_small
def _score_block(score: Any, block: Any) -> Any:
    return jax.vmap(score.score)(jnp.asarray(block))


@compile_small
def _sample_block(sampler: Sampler, key: Any) -> Any:
    return jax.vmap(lambda k: sampler.sample(k))(jax.random.split(key, BLOCK))
