"""Does a density integrate to 1? An importance estimate of ∫p, whatever the family says of itself.

Definition. With z_i ~ q independent, (1/n) Σ p(z_i)/q(z_i) has mean ∫p where q > 0 wherever p is. The proposal q comes from
the model's own draws and knows nothing of its log p: a kernel density around 400 of them, and a wide part (Student's t with
3 degrees of freedom around their mean) that bounds the weights where p has no heavier tails (defensive: Hesterberg 1995).
Where draws and log p belong to each other the effective number is high; a mode that has density and no draws is missed by
both, so 1 here says that log p is normalised over what the model draws. Only for densities on R^d with few coordinates.
Identity: ``ebm.log_z``.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
from scipy.special import gammaln, logsumexp

from mulligan.measures.divergences import integral
from mulligan.measures.likelihood import common_error, draw, point_log_prob
from mulligan.quantity import Quantity, none

MOST_COORDINATES = 4  # more: a kernel density is no proposal
CENTRES, POINTS = 400, 2048
WIDE, FREEDOM = 0.2, 3.0  # share of the wide part, and its degrees of freedom
ALARM = 4.0  # standard errors from 1: one false alarm in 15 000 checks


def integral_of_model(model: Any, seed: int = 0, points: int = POINTS) -> Quantity:
    """∫p of a model with ``log_prob`` and ``sample``, kind ``estimate``; below 1 is right for a bound, above never.

    The standard error of the model's own log Z, if it has one, is part of the interval. Kind ``none`` for more than 4
    coordinates, or where too few weights count.

    >>> import jax.numpy as jnp
    >>> from mulligan.targets.gaussian import Gaussian
    >>> found = integral_of_model(Gaussian(jnp.zeros(2), jnp.eye(2)))
    >>> complaints(found), found.stderr < 0.03
    ([], True)
    """
    drawn = draw(model, CENTRES, seed + 104_729)
    if drawn.shape[1] > MOST_COORDINATES:
        return none(f"{drawn.shape[1]} coordinates: ∫p is estimated for at most {MOST_COORDINATES}")
    if not np.isfinite(drawn).all():
        return none("draws of the model are not finite")
    proposed, log_q = _proposal(drawn.astype(np.float64), points, np.random.default_rng([seed, 104_729]))
    # the model sees float32: weigh the points that it saw
    found = integral(point_log_prob(model, proposed.astype(np.float32)), log_q(proposed.astype(np.float32)))
    own = common_error(model)
    if not own or found.value is None or found.stderr is None or found.low is None or found.high is None:
        return found
    more = 1.96 * own * found.value
    low = found.value - math.hypot(found.value - found.low, more)
    high = found.value + math.hypot(found.high - found.value, more)
    return replace(found, low=low, high=high, stderr=math.hypot(found.stderr, own * found.value))


def complaints(found: Quantity, bound: bool = False) -> list[str]:
    """A sentence where ∫p is not 1 within 4 of its standard errors (for a ``bound``: where it is above).

    >>> complaints(Quantity(1.2, "estimate", 1.16, 1.24, stderr=0.02))
    ['the density integrates to 1.200 ± 0.020, not to 1: its log p is not normalised']
    >>> complaints(Quantity(0.8, "estimate", 0.76, 0.84, stderr=0.02), bound=True)
    []
    """
    if found.value is None or found.stderr is None:
        return []
    away = found.value - 1 if bound else abs(found.value - 1)
    if not away > ALARM * found.stderr + 1e-3:  # and what float32 adds
        return []
    said = f"{found.value:.3f} ± {found.stderr:.3f}"
    return [f"the density integrates to {said}, not to 1: its log p is not normalised"]


def _proposal(centres: np.ndarray, n: int, rng: np.random.Generator) -> tuple[np.ndarray, Any]:
    """n points of the proposal, and its log density."""
    m, d = centres.shape
    mean = centres.mean(axis=0)
    root = np.linalg.cholesky(np.atleast_2d(np.cov(centres.T)) + 1e-6 * np.eye(d))
    narrow = root * _width(np.linalg.solve(root, centres.T).T)
    noise = rng.normal(size=(n, d))
    wide = rng.random(n) < WIDE
    grown = 2 * noise / np.sqrt(rng.chisquare(FREEDOM, size=(n, 1)) / FREEDOM)
    points = np.where(wide[:, None], mean + grown @ root.T, centres[rng.integers(0, m, n)] + noise @ narrow.T)

    def log_density(x: np.ndarray) -> np.ndarray:
        x = x.astype(np.float64)
        square = _squares(np.linalg.solve(narrow, x.T).T, np.linalg.solve(narrow, centres.T).T)
        near = logsumexp(-0.5 * square, axis=1) - math.log(m) - 0.5 * d * math.log(2 * math.pi)
        near -= np.log(np.diag(narrow)).sum()
        far = np.linalg.solve(2 * root, (x - mean).T).T
        constant = gammaln((FREEDOM + d) / 2) - gammaln(FREEDOM / 2) - 0.5 * d * math.log(FREEDOM * math.pi)
        tail = constant - np.log(np.diag(2 * root)).sum()
        tail = tail - 0.5 * (FREEDOM + d) * np.log1p((far**2).sum(1) / FREEDOM)
        return np.asarray(np.logaddexp(math.log1p(-WIDE) + near, math.log(WIDE) + tail))

    return points, log_density


def _width(whitened: np.ndarray) -> float:
    """The kernel's width in whitened coordinates: Silverman's over 1, 2, 4 … 16, by leave-one-out likelihood."""
    m, d = whitened.shape
    square = _squares(whitened, whitened)
    np.fill_diagonal(square, np.inf)
    tried = (4 / (d + 2) / m) ** (1 / (d + 4)) / 2.0 ** np.arange(5)
    scores = [np.mean(np.maximum(logsumexp(-0.5 * square / h**2, axis=1), -30.0)) - d * math.log(h) for h in tried]
    return float(tried[int(np.argmax(scores))])


def _squares(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.asarray((x**2).sum(1)[:, None] - 2 * x @ y.T + (y**2).sum(1))
