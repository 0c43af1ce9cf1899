"""Chapter 5, a trained Wasserstein critic on the line, beside the W₁ that it estimates.

Definition. For every f with Lipschitz constant L, (E_p f − E_q f)/L ≤ W₁(p, q): a certificate, whatever was learned. A
penalty γ E(|f′| − 1)² presses the slope towards 1 and does not bound it, so E_p f − E_q f itself certifies nothing. On the
line W₁ = ∫|F − G|, and L on the samples is known: the steepest slope between their ends.
Phenomena: ``game.wasserstein.critic``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mulligan.lab.identity import Check, Identity, excess, rounding
from mulligan.loop import compile_small
from mulligan.nets.mlp import make_mlp
from mulligan.objectives.adversarial import WASSERSTEIN, Duel

GRID = 401
RATE, BETA1, BETA2 = 0.003, 0.0, 0.9  # Adam's, as Gulrajani et al. (2017) set β for this game


class Watched(NamedTuple):
    """After each watched step (t,): the raw value E_p f − E_q f, the steepest slope L; f and |f′| on ``grid`` (t, g)."""

    raw: np.ndarray
    steepest: np.ndarray
    f: np.ndarray
    slope: np.ndarray
    grid: np.ndarray

    @property
    def certified(self) -> np.ndarray:
        """The raw value over L: never above W₁."""
        return self.raw / self.steepest


def two_samples(seed: int, n: int, shift: float) -> tuple[np.ndarray, np.ndarray]:
    """n points each, sorted: of two hills at −1.5 and 1.2, and of N(shift, 1).

    >>> [len(sample) for sample in two_samples(0, 10, 0.5)]
    [10, 10]
    """
    rng = np.random.default_rng([seed, 5])
    left = rng.uniform(size=n) < 0.5
    hills = np.where(left, -1.5 + 0.4 * rng.normal(size=n), 1.2 + 0.5 * rng.normal(size=n))
    return np.sort(hills), np.sort(shift + rng.normal(size=n))


def between(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """All points in order (m,), and G − F on the m − 1 intervals between them, for samples x of F and y of G.

    >>> [part.tolist() for part in between(np.zeros(1), np.ones(1))]
    [[0.0, 1.0], [-1.0]]
    """
    points = np.sort(np.concatenate([x, y]))
    shares = [np.searchsorted(np.sort(sample), points[:-1], "right") / len(sample) for sample in (y, x)]
    return points, shares[0] - shares[1]


def distance_on_the_line(x: np.ndarray, y: np.ndarray) -> float:
    """W₁ = ∫|F − G| of two samples.

    >>> distance_on_the_line(np.zeros(3), np.full(2, 2.5))
    2.5
    """
    points, difference = between(x, y)
    return float(np.diff(points) @ np.abs(difference))


@compile_small
def _trained(critic: Any, x: Any, y: Any, grid: Any, penalty: Any, keys: Any) -> tuple[Any, Any, Any]:
    """(f at all points (t, n), f on the grid, f′ on the grid) after each of t groups of steps; ``keys`` (t, steps)."""

    def loss(at: Any, key: Any) -> Any:
        judge = lambda one, given: at(one)[0]  # noqa: E731
        scores = [jax.vmap(lambda one: judge(one, None))(part[:, None]) for part in (x, y)]
        return WASSERSTEIN.critic(*scores) + penalty * WASSERSTEIN.penalty(judge, Duel(x[:, None], y[:, None]), key)

    def step(state: tuple, key: Any) -> tuple[tuple, None]:
        at, first, second, k = state
        slope = jax.grad(loss)(at, key)
        first = jax.tree.map(lambda m, g: BETA1 * m + (1 - BETA1) * g, first, slope)
        second = jax.tree.map(lambda v, g: BETA2 * v + (1 - BETA2) * g**2, second, slope)
        move = lambda w, m, v: w - RATE * m / (jnp.sqrt(v / (1 - BETA2**k)) + 1e-8)  # noqa: E731
        return (jax.tree.map(move, at, first, second), first, second, k + 1), None

    def group(state: tuple, keys: Any) -> tuple[tuple, Any]:
        state, _ = jax.lax.scan(step, state, keys)
        f = lambda z: state[0](z[None])[0]  # noqa: E731
        every = jnp.concatenate([x, y])
        return state, (jax.vmap(f)(every), jax.vmap(f)(grid), jax.vmap(jax.grad(f))(grid))

    zeros = jax.tree.map(jnp.zeros_like, critic)
    return jax.lax.scan(group, (critic, zeros, zeros, 1.0), keys)[1]


def watched_critic(
    seed: int, x: np.ndarray, y: np.ndarray, *, penalty: float, frames: int, steps: int, width: int = 32
) -> Watched:
    """A network with two hidden layers, trained by Adam on both samples whole, watched ``frames`` times.

    >>> x, y = two_samples(0, 20, 0.5)
    >>> with jax.enable_x64(True):
    ...     watched_critic(0, x, y, penalty=10.0, frames=2, steps=3, width=4).raw.shape
    (2,)
    """
    grid = np.linspace(min(x[0], y[0]), max(x[-1], y[-1]), GRID)
    critic = jax.tree.map(
        lambda leaf: jnp.asarray(leaf, jnp.float64) if hasattr(leaf, "dtype") else leaf,
        make_mlp([1, width, width, 1], np.random.default_rng([seed, 6]), zero_last=True),
    )
    keys = jax.random.split(jax.random.key(seed), (frames, steps))
    parts = (jnp.asarray(x), jnp.asarray(y), jnp.asarray(grid), jnp.asarray(np.float64(penalty)))
    at, f, slope = map(np.asarray, _trained(critic, *parts, keys))
    raw = at[:, : len(x)].mean(axis=1) - at[:, len(x) :].mean(axis=1)
    order = np.argsort(np.concatenate([x, y]))
    gaps = np.diff(np.concatenate([x, y])[order])
    # the slope between neighbours bounds every difference of f on the samples; those on the grid show the curve
    chords = np.abs(np.diff(at[:, order], axis=1)) / np.maximum(gaps, 1e-300)
    steepest = np.maximum(chords.max(axis=1), np.abs(slope).max(axis=1))
    return Watched(raw, steepest, f, np.abs(slope), grid)


def _certified(watched: Watched) -> np.ndarray:
    return watched.certified


def _raw(watched: Watched) -> np.ndarray:
    """A planted mistake: the value that a penalty alone is trusted to keep honest."""
    return watched.raw


def _critic(seed: int, *, estimate: Callable = _certified, penalty: float = 1.0) -> Check:
    """The value over L is at most W₁ after every step; the raw value, penalised, passes W₁."""
    x, y = two_samples(seed, 100, 0.5)
    watched = watched_critic(seed, x, y, penalty=penalty, frames=20, steps=20)
    distance = distance_on_the_line(x, y)
    return rounding(
        {
            "value / L ≤ W₁": (excess(estimate(watched), distance), 0.0),
            "the raw value passes W₁": (float(watched.raw.max() > distance), 1.0),
        }
    )


PHENOMENA = (
    Identity(
        "game.wasserstein.critic",
        5,
        "(E_p f − E_q f)/L ≤ W₁ after every step of a trained critic; E_p f − E_q f with a penalty of slope passes W₁",
        "rounding",
        _critic,
        {"the raw value": {"estimate": _raw}},
        "Arjovsky, Chintala and Bottou 2017; Gulrajani et al. 2017",
    ),
)
