"""log p of rows under a model that lives on encoded points.

Definition. With m points a row, log p(row) = log (1/m Σ_k exp(log p(z_k) + log J_k)): exact where m = 1 and nothing was
dequantised, a lower bound in expectation otherwise (Burda, Grosse and Salakhutdinov 2016). A model whose log_prob is itself
random, and right or a bound only on average, says so (``random_log_prob``): exp would turn its spread into a log p that is
too high, so the mean of the logs is taken, which is a bound, too. Models run in float32, the sum over draws and the
Jacobians in float64. Rows are scored in blocks padded to one size, so there is one program a model.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice, repeat
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mulligan.catalog import FAMILIES
from mulligan.core import Density, Sampler, score_of
from mulligan.data.codec import Encoded
from mulligan.errors import DataError
from mulligan.loop import compile_small
from mulligan.models.incomplete import marginal_log_prob, mixture_form

BLOCK = 1024
SHARED_FROM = 8  # blocks from which threads share them
MOST_THREADS = 4  # a few large cores' worth: above that, blocks wait for memory


class RowLikelihood(NamedTuple):
    """``log_prob`` (n,) of rows, and ``influence`` (n, m): what each draw added to it, w_k/w̄ − 1, which sums to 0.

    (Of a mean of logs: log w_k less that mean.) To first order log w̄ moves by the mean of the influences, so
    Σ_k influence²/(m(m−1)) is the variance of a row's log p over its draws (the delta method), and differences of
    influences give that of a difference of models.
    """

    log_prob: np.ndarray
    influence: np.ndarray


def row_log_prob(density: Density, encoded: Encoded) -> np.ndarray:
    """log p of each row in nats, float64 (n,); deterministic. NaN rows stay NaN, −inf stays −inf."""
    return row_likelihood(density, encoded).log_prob


def row_likelihood(density: Density, encoded: Encoded) -> RowLikelihood:
    """log p of each row, with the influence of its draws (all 0 where a row is one point).

    Of a row with empty cells it is log p of the cells that are there. Raises DataError where a model cannot say that.
    """
    n, m, _ = encoded.points.shape
    log_p = (
        point_log_prob(density, encoded.flat, encoded.flat_given)
        if encoded.missing is None
        else _marginal_log_prob(density, encoded)
    )
    log_w = log_p.reshape(n, m) + encoded.log_jacobian
    if m == 1:
        return RowLikelihood(log_w[:, 0], np.zeros((n, 1)))
    if getattr(density, "random_log_prob", False):
        mean = log_w.mean(axis=1)
        with np.errstate(invalid="ignore"):
            influence = log_w - mean[:, None]
        return RowLikelihood(mean, np.where(np.isfinite(influence), influence, 0.0))
    log_mean = log_mean_exp(log_w)
    with np.errstate(invalid="ignore", over="ignore"):
        influence = np.exp(log_w - log_mean[:, None]) - 1
    return RowLikelihood(log_mean, np.where(np.isfinite(influence), influence, 0.0))


def _marginal_log_prob(density: Density, encoded: Encoded) -> np.ndarray:
    """log p of the coordinates that each point shows, where the model has its marginals in closed form; else DataError."""
    form = mixture_form(density)
    if form is None or encoded.missing is None:
        able = ", ".join(name for name, family in FAMILIES.items() if family.incomplete)
        raise DataError(
            f"rows with empty cells cannot be scored by {type(density).__name__}",
            why="Their log p is a marginal, which it does not have in closed form",
            do=f"--missing drop, or a family that has: {able}",
        )
    n, m, d = encoded.points.shape
    missing = np.repeat(encoded.missing, m, axis=0)
    return marginal_log_prob(form, encoded.points.reshape(n * m, d), missing)


def draw_error(influence: np.ndarray, rows: np.ndarray, clusters: np.ndarray | None = None) -> float:
    """Standard error of the mean over rows (n, columns) that comes from draws which equal rows share.

    A row's draws are hashed from its values, so equal rows have the same draws and their noise does not average out.
    What the error over rows misses is Σ_v (c_v² − Σ_g c_vg²) σ_v²/n², for c_v rows of value v, c_vg of them in cluster g
    (rows of one cluster are counted as one draw already), and σ_v² the variance over the draws.
    """
    n, m = influence.shape
    if m == 1:
        return 0.0
    _, first, value = np.unique(rows, axis=0, return_index=True, return_inverse=True)
    value = value.reshape(-1)
    variance = np.sum(influence[first] ** 2, axis=1) / (m * (m - 1))
    together = np.bincount(value).astype(float) ** 2
    labels = np.arange(n) if clusters is None else np.asarray(clusters)
    pairs, counts = np.unique(np.stack([value, labels]), axis=1, return_counts=True)
    np.subtract.at(together, pairs[0].astype(int), counts.astype(float) ** 2)
    return float(np.sqrt(max(0.0, float(together @ variance)))) / n


def common_error(*models: Any) -> float:
    """Standard error that all rows share because log Z of these (independent) models is an estimate; 0 where it is known."""
    return float(np.hypot.reduce([0.0, *(float(getattr(model, "log_z_stderr", 0.0)) for model in models)]))


def point_log_prob(density: Density, points: np.ndarray, given: np.ndarray | None = None) -> np.ndarray:
    """log p(z) of each point (n, d), float64 (n,); ``given`` (n, g) is what each is conditioned on."""
    size = int(getattr(density, "block", BLOCK))
    return in_blocks(lambda block, known: _log_prob_block(density, block, known), points, given, size=size)


def point_score(model: Any, points: np.ndarray, given: np.ndarray | None = None) -> np.ndarray:
    """∇ log p(z) of each point (n, d); ``given`` (n, g) is what each is conditioned on."""
    score = score_of(model)
    return in_blocks(lambda block, known: _score_block(score, block, known), points, given)


def draw(sampler: Sampler, n: int, seed: int, given: np.ndarray | None = None) -> np.ndarray:
    """n draws (n, d), made in blocks of one size: the first 500 of 1000 are those of a draw of 500.

    ``given`` (n, g) is what each draw is conditioned on. The size of a block is 1024, or the sampler's own (``block``).
    """
    key, size = jax.random.key(seed), int(getattr(sampler, "block", BLOCK))
    keys = [jax.random.fold_in(key, i) for i in range(-(-n // size))]
    if given is None:
        blocks = [np.asarray(_sample_block(sampler, key, None, size)) for key in keys]
    else:
        known = [block for block, _ in _blocks(given.astype(np.float32), size)]
        blocks = [np.asarray(_sample_block(sampler, key, block, size)) for key, block in zip(keys, known)]
    return np.concatenate(blocks)[:n]


def log_mean_exp(log_values: np.ndarray) -> np.ndarray:
    """log of the mean of exp over the last axis; −inf where all are −inf, NaN where any is NaN."""
    top = np.max(log_values, axis=-1, keepdims=True)
    anchor = np.where(np.isfinite(top), top, 0.0)
    with np.errstate(divide="ignore", over="ignore"):
        return np.log(np.mean(np.exp(log_values - anchor), axis=-1)) + anchor[..., 0]


def in_blocks(
    function: Callable[..., Any], points: np.ndarray, *others: np.ndarray | None, size: int = BLOCK
) -> np.ndarray:
    """Apply a compiled function of (size, d) to any number of rows; the last block is padded with its own last row.

    ``others`` are further arrays with a leading axis of rows, cut in the same way; None is handed on. Many blocks are
    shared by threads; the result does not depend on how many.
    """
    cut = [_blocks(other, size) if other is not None else repeat((None, 0)) for other in others]

    def one(parts: tuple[tuple[Any, int], ...]) -> np.ndarray:
        (block, kept), *rest = parts
        return np.asarray(function(block, *(other for other, _ in rest)))[:kept]

    blocks = zip(_blocks(points, size), *cut)
    pieces = [one(parts) for parts in islice(blocks, 1)]  # compiles, once
    if len(points) < SHARED_FROM * size:
        pieces += map(one, blocks)
    else:  # a program of one block keeps one core busy; XLA lets Python's lock go
        with ThreadPoolExecutor(min(MOST_THREADS, os.cpu_count() or 1)) as pool:
            pieces += pool.map(one, blocks)
    return np.concatenate(pieces).astype(np.float64) if pieces else np.zeros(0)


def _blocks(points: np.ndarray, most: int = BLOCK) -> Iterator[tuple[np.ndarray, int]]:
    for start in range(0, len(points), most):
        block = points[start : start + most]
        size = len(block)
        yield (
            (block if size == most else np.pad(block, [(0, most - size)] + [(0, 0)] * (block.ndim - 1), mode="edge")),
            size,
        )


@compile_small
def _log_prob_block(density: Density, block: Any, given: Any) -> Any:
    return jax.vmap(density.log_prob)(jnp.asarray(block), given)


@compile_small
def _score_block(score: Any, block: Any, given: Any) -> Any:
    if given is None:
        return jax.vmap(score.score)(jnp.asarray(block))
    return jax.vmap(score.score)(jnp.asarray(block), given)


@compile_small
def _sample_block(sampler: Sampler, key: Any, given: Any, size: int = BLOCK) -> Any:
    return jax.vmap(sampler.sample)(jax.random.split(key, size), given)
