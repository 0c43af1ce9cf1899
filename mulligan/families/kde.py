"""``kde``: a kernel density whose bandwidth and kernel are those with the highest held-out likelihood.

The bandwidth has the highest mean log p of held-out rows: those of select, and up to 2 000 training rows each under the
kernels of all others (leave-one-out likelihood: Habbema, Hermans and van den Broek 1974). Select alone is too few in a small
table: the rare row that no kernel is near decides E log p, and without one the chosen kernels are too narrow. The search
is first on a grid from a twentieth of the normal-reference width (Silverman 1986) to twice it, then by golden section
around the best. Equal rows are left out together. Select stands alone where rows are dequantised or come in groups: draws
of one cell, and rows of one group, are near each other for another reason than the density.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from mulligan.catalog import Effort
from mulligan.data.codec import Encoded
from mulligan.errors import FitError
from mulligan.families.recipe import Allowance, Fitting, Outcome, Recipe, all_points, weighted_moments
from mulligan.loop import compile_small
from mulligan.measures.likelihood import in_blocks, log_mean_exp
from mulligan.models.kernel_density import KernelDensity, mean_kernel

GRID = 16
SEARCHED_POINTS = 8000
LEFT_OUT = 2000  # training rows scored without their own kernel
WIDTHS = 8  # bandwidths scored at once: one program for the grid and for the refinement


def make(variant: str | None, effort: Effort, bandwidth: float | None, kernel: str | None) -> Recipe:
    """The recipe; ``None`` means chosen on select."""
    return partial(fit, bandwidth=bandwidth, kernels=(kernel,) if kernel else ("spherical", "full"))


def fit(fitting: Fitting, bandwidth: float | None, kernels: tuple[str, ...]) -> Outcome:
    """Search the bandwidth for each kernel, keep the best."""
    points = all_points(fitting.train)
    # The model that the search ends in is scored with all draws; the search itself stays cheap.
    select = fitting.select.thinned(SEARCHED_POINTS)
    allowance = Allowance(fitting.budget, None, fitting.compiled)
    _, covariance = weighted_moments(points, fitting.point_weights)
    weights = fitting.point_weights
    log_shares = None if weights is None else jnp.asarray(np.log(weights / weights.sum()), jnp.float32)
    choices, candidates = [], []
    for kernel in kernels:
        factor = np.eye(fitting.dim) if kernel == "spherical" else _safe_cholesky(covariance)
        whitened = np.linalg.solve(factor, points.T).T.astype(np.float32)
        of_select = partial(_scores, select, whitened, factor, log_shares, fitting.select_weights)
        left_out = _left_out(fitting) if bandwidth is None else None
        score = partial(_both, of_select, left_out, whitened, factor, log_shares, fitting)
        if bandwidth is None:
            tried = _search(score, fitting.rows, fitting.dim, allowance)
        else:
            tried = [(bandwidth, score([bandwidth])[0])]
        tried = [(width, value) for width, value in tried if not np.isnan(value[0])]
        if not tried:
            raise FitError(f"kde: log p of the select rows is NaN at every bandwidth of the {kernel} kernel")
        choices += [
            {"option": f"bandwidth={h:.4g} {kernel}", "select": on_select, "bic": None}
            | ({} if left_out is None else {"held out": pooled})
            for h, (pooled, on_select) in sorted(tried)
        ]
        best_width, best_score = max(tried, key=lambda pair: pair[1][0])
        candidates.append((best_score[0], best_width, kernel, whitened, factor))
        fitting.pulse(f"kde {kernel}", 1, 1, {"select": best_score[1]})
        if fitting.interrupted() or allowance.over:
            break
    _, width, kernel, whitened, factor = max(candidates, key=lambda candidate: candidate[0])
    arrays = (jnp.asarray(whitened), jnp.asarray(factor, jnp.float32), jnp.asarray(width, jnp.float32))
    model = KernelDensity(*arrays, log_shares)
    label = f"kde (h={width:.3g}, {kernel})"
    return Outcome(model, label, parameters=points.size, choices=choices)


Scores = tuple[float, float]  # of one bandwidth: mean log p over all held-out rows, and over select


def _search(
    score: Callable[[list[float]], list[Scores]], rows: int, dim: int, allowance: Allowance
) -> list[tuple[float, Scores]]:
    reference = (4 / (dim + 2)) ** (1 / (dim + 4)) * rows ** (-1 / (dim + 4))
    grid = reference * np.geomspace(0.05, 2.0, GRID)
    tried: list[tuple[float, Scores]] = []
    for i in range(0, GRID, WIDTHS):
        tried += zip(grid[i : i + WIDTHS].tolist(), score(grid[i : i + WIDTHS].tolist()))
    if allowance.over:
        return tried
    best = int(np.nanargmax([value if np.isfinite(value) else -np.inf for _, (value, _) in tried]))
    low, high = grid[max(best - 1, 0)], grid[min(best + 1, GRID - 1)]
    fine = np.geomspace(low, high, WIDTHS + 2)[1:-1].tolist()
    return tried + list(zip(fine, score(fine)))


def _left_out(fitting: Fitting) -> np.ndarray | None:
    """Which training rows are scored without their own kernel; None where that would not be held out."""
    several = fitting.train.points.shape[1] > 1 or fitting.train_rows.groups is not None or fitting.incomplete
    points = all_points(fitting.train)
    if several or len(points) < 2 or np.all(points == points[0]):
        return None
    return np.unique(np.linspace(0, len(points) - 1, LEFT_OUT).astype(int))


def _both(
    on_select: Callable[[list[float]], list[float]],
    left_out: np.ndarray | None,
    whitened: np.ndarray,
    factor: np.ndarray,
    log_shares: jax.Array | None,
    fitting: Fitting,
    widths: list[float],
) -> list[Scores]:
    """Mean log p over select and the rows left out together, and over select, at each bandwidth."""
    select = on_select(widths)
    if left_out is None:
        return [(value, value) for value in select]
    padded = jnp.asarray([*widths, *[widths[-1]] * (WIDTHS - len(widths))], jnp.float32)
    kernels = in_blocks(
        lambda block: _left_out_block(jnp.asarray(whitened), log_shares, padded, block), whitened[left_out]
    )
    log_p = kernels[:, : len(widths)] - _log_norm(factor, np.asarray(widths))
    log_p += fitting.train.log_jacobian[left_out]
    every = np.ones(len(left_out)) if fitting.weights is None else fitting.weights[left_out]
    others = len(fitting.select.points) if fitting.select_weights is None else float(fitting.select_weights.sum())
    pooled = (others * np.asarray(select) + every @ log_p) / (others + every.sum())
    return list(zip(pooled.tolist(), select))


def _log_norm(factor: np.ndarray, widths: np.ndarray) -> np.ndarray:
    """log of the normalising constant of a kernel at each bandwidth."""
    d = len(factor)
    return np.asarray(np.log(np.diag(factor)).sum() + 0.5 * d * np.log(2 * np.pi) + d * np.log(widths))


def _scores(
    select: Encoded,
    whitened: np.ndarray,
    factor: np.ndarray,
    log_shares: jax.Array | None,
    weights: np.ndarray | None,
    widths: list[float],
) -> list[float]:
    """Mean log p of the select rows at each bandwidth."""
    n, m, d = select.points.shape
    padded = jnp.asarray([*widths, *[widths[-1]] * (WIDTHS - len(widths))], jnp.float32)
    points = np.linalg.solve(factor, select.points.reshape(-1, d).T).T.astype(np.float32)
    kernels = in_blocks(lambda block: _kernel_block(jnp.asarray(whitened), log_shares, padded, block), points)
    log_p = kernels - _log_norm(factor, np.asarray(padded, np.float64))
    rows = log_mean_exp(log_p.reshape(n, m, WIDTHS).transpose(2, 0, 1) + select.log_jacobian)
    return np.average(rows, axis=1, weights=weights)[: len(widths)].tolist()


@compile_small
def _kernel_block(centres: jax.Array, log_shares: jax.Array | None, widths: jax.Array, block: jax.Array) -> jax.Array:
    one = jax.vmap(lambda h, u: mean_kernel(centres, u, h, log_shares), in_axes=(0, None))
    return jax.vmap(lambda u: one(widths, u))(block)


@compile_small
def _left_out_block(centres: jax.Array, log_shares: jax.Array | None, widths: jax.Array, block: jax.Array) -> jax.Array:
    """As ``_kernel_block``, without the centres that equal the point."""

    def one(h: jax.Array, u: jax.Array) -> jax.Array:
        square = jnp.sum((centres.T - u[:, None]) ** 2, axis=0)
        shares = jnp.zeros(len(centres)) if log_shares is None else log_shares
        shares = jnp.where(square == 0, -jnp.inf, shares)
        return jax.nn.logsumexp(shares - 0.5 * square / h**2) - jax.nn.logsumexp(shares)

    return jax.vmap(lambda u: jax.vmap(one, in_axes=(0, None))(widths, u))(block)


def _safe_cholesky(covariance: np.ndarray) -> np.ndarray:
    return np.linalg.cholesky(covariance + 1e-6 * np.eye(len(covariance)))
