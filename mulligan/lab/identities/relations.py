"""Chapter 10, how the families relate: the chain rule, and the change of variables.

Definition. Any law is autoregressive in any order of its coordinates, and a diffusion over time. A flow x = g₁(g₂(…(z)))
adds up log-determinants; the probability-flow ODE is one, and its Euler steps are invertible while Δt·Lipschitz < 1. Flow
matching's best velocity is E[ẋ|x] = E[e − x_0 | x], which is the ODE of (α, σ) = (1 − t, t), which is the walk's after
x ← (1 − t) x, σ√τ = t/(1 − t).
Identities: ``relation.autoregressive``, ``relation.flow``; for the others ``latent.py`` and ``strokes.py``.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import permutations
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from mulligan.lab.identities.denoising import INNER, posterior
from mulligan.lab.identities.noising import FEW, LINE, TIMES, line_laws, seen, seen_at
from mulligan.lab.identities.pathwise import Affine, marginal, path_law, some_law, step_back
from mulligan.lab.identities.schedules import RATE, Tangent, moments, numbers, schedules
from mulligan.lab.identity import Check, Identity, excess, rounding
from mulligan.loop import compile_small
from mulligan.models.flow import Mixing
from mulligan.targets.counting import Histogram
from mulligan.targets.noised import NoisedMixture

# --- autoregressive ----------------------------------------------------------------------------------------------------


@compile_small
def _chain(law: Histogram, x: Any) -> Any:
    return jax.vmap(law.factorization)(x), jax.vmap(law.log_prob)(x)


def _in_order(x: np.ndarray, order: tuple[int, ...]) -> np.ndarray:
    return x[:, order]


def _as_they_come(x: np.ndarray, order: tuple[int, ...]) -> np.ndarray:
    """A planted mistake: the coordinates are not put into the order of the chain."""
    return x


def _autoregressive(seed: int, *, arrange: Callable = _in_order, terms: int = 3, exact: bool = True) -> Check:
    """A 3³ table in all six orders; a path of five times, forward and backward, with a Gaussian's exact steps back."""
    rng, pairs = np.random.default_rng([seed, 101]), {}
    counts = rng.integers(1, 30, (3, 3, 3))
    cells = np.stack(np.meshgrid(*[np.arange(3) + 0.5] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    edges = [np.arange(4.0)] * 3
    truth = np.log(counts.ravel() / counts.sum())
    for axes in permutations(range(3)):
        law = Histogram(edges, counts.transpose(axes).astype(np.int32))
        factors, log_p = map(np.asarray, _chain(law, jnp.asarray(arrange(cells, axes))))
        pairs[f"chain rule in the order {axes}"] = (factors[:, :terms].sum(axis=1), truth)
        pairs[f"the table in the order {axes}"] = (log_p, truth)
    data = some_law(rng)
    for name in ("walk", "general"):
        at = numbers([0.0, 0.1, 0.22, 0.4, 0.55])[name]
        n, unit, zero = len(at.alpha) - 1, np.eye(2), np.zeros(2)
        forward = [Affine(at.scale[i] * unit, zero, at.variance[i] * unit) for i in range(n)]
        x = rng.multivariate_normal(*path_law(data, forward), size=20).reshape(20, n + 1, 2)
        start, end = log_gaussian(x[:, 0], *data), log_gaussian(x[:, n], *marginal(data, at.alpha[n], at.sigma[n]))
        for i in range(n):
            back = step_back(data, at, i, exact)
            start = start + log_gaussian(x[:, i + 1], at.scale[i] * x[:, i], at.variance[i] * unit)
            end = end + log_gaussian(x[:, i], x[:, i + 1] @ back.matrix.T + back.shift, back.spread)
        pairs[f"over time, {name}"] = (start, end)
    return rounding(pairs)


def log_gaussian(x: np.ndarray, mean: np.ndarray, covariance: np.ndarray) -> np.ndarray:
    """log N(x; mean, covariance) of rows (n, d).

    >>> log_gaussian(np.zeros((1, 2)), np.zeros(2), np.eye(2)).round(4).tolist()
    [-1.8379]
    """
    z = np.linalg.solve(np.linalg.cholesky(covariance), (x - mean).T)
    return -0.5 * ((z**2).sum(axis=0) + np.linalg.slogdet(2 * np.pi * covariance)[1])


# --- flow --------------------------------------------------------------------------------------------------------------


@compile_small
def _layers(layers: Mixing, x: Any) -> Any:
    """Of x ↦ arcsinh(P L U x + b), layer after layer: Σ log |det|, log |det| of the whole, and x again."""

    def forward(at: Any) -> Any:
        def one(carry: Any, layer: Any) -> Any:
            z, added = layer.forward(carry[0])
            return (jnp.arcsinh(z), carry[1] + added - 0.5 * jnp.sum(jnp.log1p(z**2))), None

        return jax.lax.scan(one, (at, jnp.zeros(())), layers)[0]

    def back(z: Any) -> Any:
        return jax.lax.scan(lambda at, layer: (layer.inverse(jnp.sinh(at))[0], None), z, layers, reverse=True)[0]

    def one(at: Any) -> Any:
        z, added = forward(at)
        return added, jnp.linalg.slogdet(jax.jacfwd(lambda y: forward(y)[0])(at))[1], back(z)

    return jax.vmap(one)(x)


@compile_small
def _undone(law: NoisedMixture, now: Any, step: Any, x: Any) -> Any:
    """x ↦ y = x + Δt v(x), and then 80 times x ← y − Δt v(x) from x = y; y and what is found, (n, 1)."""
    zero = jnp.zeros(())
    here = eqx.tree_at(lambda noised: noised.schedule, law, Tangent(t_min=zero, t_max=zero, at=now))
    move = lambda at: step * (now[2] * at - 0.5 * now[3] * here.score(at, zero))  # noqa: E731

    def one(at: Any) -> Any:
        y = at + move(at)
        return y, jax.lax.fori_loop(0, 80, lambda _, guess: y - move(guess), y)

    return jax.vmap(one)(x)


def _flow(seed: int, *, factor: float = 1.0, sign: float = -1.0, limit: float = 1.0, clock: float = 1.0) -> Check:
    """Log-determinants add; Euler's steps invert up to Δt L = 1; E[e − x_0|x] is the straight ODE, and the walk's."""
    rng = np.random.default_rng([seed, 102])
    order = np.stack([rng.permutation(3) for _ in range(4)])
    layers = Mixing(
        *(jnp.asarray(a) for a in (0.4 * rng.normal(size=(4, 3, 3)), *0.2 * rng.normal(size=(2, 4, 3)), order))
    )
    x = 0.4 * rng.normal(size=(12, 3))
    added, whole, returned = map(np.asarray, _layers(layers, jnp.asarray(x)))
    pairs: dict[str, tuple[Any, Any]] = {"log-determinants": (factor * added, whole), "inverse": (returned, x)}

    law, found = line_laws(seed)[0], seen(seed, 0, "walk")
    now = moments("walk", TIMES)[0]
    slope = -0.5 * now[3] * found.curvature[0]
    steepest = slope[np.abs(slope).argmax()]
    noised = NoisedMixture(law, schedules()["walk"])

    def undone(share: float) -> tuple[np.ndarray, np.ndarray]:
        """Euler's step with Δt L = share, towards where its slope is smallest, at every x; and the step undone."""
        step = -share / steepest
        y, back = _undone(noised, *(jnp.asarray(a) for a in (now, step, LINE[:, None])))
        return np.asarray(y)[:, 0], np.asarray(back)[:, 0]

    pairs["Euler's step, Δt L = 0.5, undone"] = (undone(0.5 * limit)[1][INNER], LINE[INNER])
    pairs["Euler's step, Δt L = 0.99, is increasing"] = (excess(0.0, np.diff(undone(0.99 * limit)[0])), 0.0)
    pairs["Euler's step, Δt L = 1.5, folds"] = (float((np.diff(undone(1.5)[0]) < 0).any()), 1.0)

    straight, at = seen(seed, 0, "straight"), numbers(TIMES)["straight"]
    for i in range(FEW):
        t, p = TIMES[i], posterior(seed, "straight", i)
        velocity = np.sum(p * ((LINE[:, None] - (1 - t) * LINE) / t + sign * LINE), axis=1)
        ode = at.drift[i] * LINE - 0.5 * at.diffusion[i] * straight.score[i]
        tau = (t / (1 - t) / RATE) ** 2  # σ√τ = t/(1 − t)
        walk = numbers([tau])["walk"]
        wide = LINE / (1 - t)
        score = seen_at(law, np.broadcast_to(moments("walk", [tau]), (TIMES.size, 6)), wide).score[0]
        pace = 2 * t / ((1 - t) ** 3 * RATE**2)  # dτ/dt
        of_walk = -wide + (1 - t) * clock * pace * -0.5 * walk.diffusion[0] * score
        near = np.abs(LINE) <= 5  # (1 − t) x_0 must stay inside the grid
        pairs[f"E[ẋ|x] is the ODE's, t = {t}"] = (velocity[near], ode[near])
        pairs[f"the walk's ODE, t = {t}"] = (of_walk[near], ode[near])
    return rounding(pairs)


IDENTITIES = (
    Identity(
        "relation.autoregressive",
        10,
        "p(x) = Π p(x_j|those before) in every order; p_0 Π q(x_t|x_s) = p_T Π q(x_s|x_t) over time",
        "rounding",
        _autoregressive,
        {
            "coordinates as they come": {"arrange": _as_they_come},
            "the last term left out": {"terms": 2},
            "variance a of a step back": {"exact": False},
        },
        "Wu's tutorial, relations; Sohl-Dickstein et al. 2015",
    ),
    Identity(
        "relation.flow",
        10,
        "log-determinants add; Euler's steps invert iff Δt L < 1; E[e − x_0|x] is the ODE of (1 − t, t), and the walk's",
        "rounding",
        _flow,
        {
            "half of each log-determinant": {"factor": 0.5},
            "ẋ = e + x_0": {"sign": 1.0},
            "a longer step": {"limit": 1.5},
            "the walk's clock off by ½": {"clock": 0.5},
        },
        "Rezende and Mohamed 2015; Song et al. 2021; Lipman et al. 2023",
    ),
)
