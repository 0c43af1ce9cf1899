"""The pull to the mean: the score at x_t points to the average of the places where x_t may have come from.

Definition. x_t = x_0 + √t e. ∇ log p_t(x_t) = (E[x_0|x_t] − x_t)/t (Vincent 2011), E[x_0|x_t] = Σ_k r_k m_k: the components'
posterior means weighed by their responsibilities (Tweedie). The regression of x_0 on x_t has that mean as its least-squares
answer: E|x_0 − D(x_t)|² = E trace Cov(x_0|x_t) + E|D(x_t) − E[x_0|x_t]|², an irreducible part and what is left to learn.
Serves ``diffusion.vincent``, ``diffusion.tweedie``, ``diffusion.denoising``.
"""

from __future__ import annotations

from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np

from mulligan.lab.experiment import Range, experiment
from mulligan.lab.identity import mean_and_error, monte_carlo, rounding
from mulligan.lab.recording import Arrows, Bars, Curve, Field, Panel, Points, Recording, Scale
from mulligan.loop import compile_small
from mulligan.quantity import Quantity
from mulligan.targets.mixture import GaussianMixture
from mulligan.targets.noised import NoisedMixture
from mulligan.targets.noising import Walk

WIDTH, RADIUS, HOLES = 0.12, 1.5, 7
NOISE = np.geomspace(3.0, 0.1, 13)  # √t, from the most to the least
AXIS = np.linspace(-3.5, 3.5, 57)


def noised() -> NoisedMixture:
    """Seven unequal holes on a ring, under the walk with σ = 1.

    >>> noised().dim
    2
    """
    angle = 2 * np.pi * np.arange(HOLES) / HOLES
    weights = np.array([3.0, 1.0, 2.0, 1.0, 2.0, 1.0, 2.0])
    means = RADIUS * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    covariances = np.broadcast_to(WIDTH**2 * np.eye(2), (HOLES, 2, 2))
    return NoisedMixture(GaussianMixture.from_covariances(weights, means, covariances), Walk())


@compile_small
def _known(law: NoisedMixture, x: Any, t: Any) -> Any:
    """log p_t, score, E[x_0|x_t], responsibilities and trace Cov at n points x (n, 2)."""
    trace = lambda x: jnp.trace(law.covariance(x, t))  # noqa: E731
    parts = (lambda x: law.log_prob(x, t), lambda x: law.score(x, t), lambda x: law.denoise(x, t))
    every = (*parts, lambda x: law.responsibilities(x, t), trace)
    return tuple(jax.vmap(of)(x) for of in every)


@experiment(9, "The score pulls to the mean of where x_t came from")
def pull_to_the_mean(
    *,
    x1: Annotated[float, Range(-3.0, 3.0)] = 0.55,
    x2: Annotated[float, Range(-3.0, 3.0)] = 1.0,
    pairs: Annotated[int, Range(500, 20_000)] = 3000,
    seed: int = 0,
) -> Recording:
    """One x_t = (``x1``, ``x2``) at falling noise: who may have made it, their mean, the arrow; a regression learns it.

    The regression is ridge on random cosine features of x_t, fitted on ``pairs`` drawn (x_0, x_t) at each noise level and
    judged on as many fresh ones. Raises UsageError for a value out of its range. Vincent (2011); Efron (2011).

    >>> from mulligan.lab.experiments.pull import pull_to_the_mean
    >>> pull_to_the_mean(pairs=500).holds
    True
    """
    law, rng = noised(), np.random.default_rng(seed)
    grid = np.stack(np.meshgrid(AXIS, AXIS), axis=-1).reshape(-1, 2)
    here = np.array([[x1, x2]])
    fields, weights, means, apart, losses = [], [], [], [], []
    for noise in NOISE:
        x0, xt, features = _drawn(law, rng, pairs, noise)
        asked = np.concatenate([here, xt[pairs:], grid])
        log_p, score, mean, r, trace = (
            np.asarray(part) for part in _known(law, jnp.asarray(asked), jnp.asarray(noise**2))
        )
        fields.append(np.exp(log_p[1 + pairs :]).reshape(len(AXIS), -1))
        weights.append(r[0])
        means.append(mean[0])
        apart.append(np.abs(score * noise**2 + asked - mean).max())
        losses.append(_losses(x0, features, mean[1 : 1 + pairs], trace[1 : 1 + pairs], pairs))
    total, left, excess_, residue = (np.array([[loss[k] for loss in losses]]).reshape(-1, 2) for k in range(4))
    fields = [field / field.max() for field in fields]
    pull = np.stack(means)[:, None] - here
    return Recording(
        panels=(
            _plane(np.stack(fields), here, np.stack(means), pull),
            _weights(np.stack(weights)),
            _regression(total, left),
        ),
        captions=tuple(_caption(noise, w) for noise, w in zip(NOISE, weights)),
        see="The score is an arrow to an average: with much noise to the middle of all, with little to the nearest hole.",
        numbers={
            "pull |E[x₀|x_t] − x_t|": tuple(Quantity(float(np.hypot(*p[0])), "exact") for p in pull),
            "loss of the regression": _quantities(total, pairs),
            "irreducible part, E trace Cov": _quantities(left, pairs),
            "left to learn": _quantities(excess_, pairs),
        },
        checks={
            "t ∇ log p_t(x_t) = E[x₀|x_t] − x_t everywhere": rounding({"largest difference": (max(apart), 0.0)}),
            "loss = irreducible part + what is left to learn": monte_carlo(
                {f"noise {n:.2g}": (m, 0.0, s) for n, (m, s) in zip(NOISE, residue)}
            ),
        },
        rate=2.0,
    )


def _drawn(
    law: NoisedMixture, rng: np.random.Generator, pairs: int, noise: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """2 × ``pairs`` draws of (x_0, x_t), and features of x_t: 1, x_t, and 200 cosines of the scale of the noise."""
    which = rng.choice(HOLES, size=2 * pairs, p=np.exp(np.asarray(law.log_weights)))
    x0 = np.asarray(law.means)[which] + WIDTH * rng.normal(size=(2 * pairs, 2))
    xt = x0 + noise * rng.normal(size=(2 * pairs, 2))
    waves = rng.normal(size=(2, 200)) / np.clip(noise, 0.3, 1.0)
    features = np.cos(xt @ waves + rng.uniform(0, 2 * np.pi, 200))
    return x0, xt, np.concatenate([np.ones((2 * pairs, 1)), xt, features], axis=1)


def _losses(
    x0: np.ndarray, features: np.ndarray, mean: np.ndarray, trace: np.ndarray, pairs: int
) -> list[tuple[float, float]]:
    """Means with standard errors on the fresh pairs: loss, irreducible part, excess, and loss − the other two."""
    first = features[:pairs]
    gram = first.T @ first + 1e-2 * pairs**0.5 * np.eye(first.shape[1])
    learned = features[pairs:] @ np.linalg.solve(gram, first.T @ x0[:pairs])
    loss = ((x0[pairs:] - learned) ** 2).sum(axis=1)
    over = ((learned - mean) ** 2).sum(axis=1)
    found = (mean_and_error(part) for part in (loss, trace, over, loss - trace - over))
    return [(float(mean), float(error)) for mean, error in found]


def _quantities(found: np.ndarray, n: int) -> tuple[Quantity, ...]:
    return tuple(Quantity(m, "estimate", m - 1.96 * s, m + 1.96 * s, stderr=s, n=n) for m, s in found.tolist())


def _plane(fields: np.ndarray, here: np.ndarray, means: np.ndarray, pull: np.ndarray) -> Panel:
    frames = len(fields)
    layers = (
        Field("p_t", AXIS, AXIS, fields, low=0.0, high=1.4),
        Points("holes", np.asarray(noised().means)[None], role="data", size=7.0),
        Arrows("t ∇ log p_t(x_t)", np.broadcast_to(here, (frames, 1, 2)), pull),
        Points("E[x₀|x_t]", means[:, None], role="second", size=7.0, opacity=1.0),
        Points("x_t", here[None], role="ink", size=7.0, opacity=1.0),
    )
    return Panel("where x_t may have come from", Scale("x₁", -3.5, 3.5), Scale("x₂", -3.5, 3.5), layers, square=True)


def _weights(weights: np.ndarray) -> Panel:
    names = tuple(f"{360 * k / HOLES:.0f}°" for k in range(HOLES))
    bars = Bars("p(hole | x_t)", np.arange(float(HOLES)), weights)
    return Panel(
        "the weight of each hole", Scale("hole, by its angle", names=names), Scale("p(hole | x_t)", 0.0, 1.0), (bars,)
    )


def _regression(total: np.ndarray, left: np.ndarray) -> Panel:
    """Losses at all noise levels, and the level of each frame."""
    order = np.argsort(NOISE)
    layers: list[Any] = []
    for label, (mean, error), role in (
        ("regression, fresh pairs", total.T, "model"),
        ("E trace Cov(x₀|x_t)", left.T, "ink"),
    ):
        low, high = (mean[order] - 1.96 * error[order])[None], (mean[order] + 1.96 * error[order])[None]
        drawn = {"low": low, "high": high, "dashed": role == "ink", "dots": role == "model"}
        layers.append(Curve(label, NOISE[order], mean[order][None], role=role, **drawn))  # type: ignore[arg-type]
    now = np.stack([NOISE, total[:, 0]], axis=1)[:, None]
    layers.append(Points("this noise", now, role="mark", size=8.0, opacity=1.0))
    y = Scale("mean squared error", 0.0, 1.35 * float(total.max()))
    return Panel("a regression learns the mean", Scale("noise √t", log=True), y, tuple(layers))


def _caption(noise: float, weights: np.ndarray) -> str:
    able = int((weights > 0.05).sum())
    who = "one hole only" if able == 1 else f"{able} holes"
    return f"Noise {noise:.2g}: {who} may have made this x_t (weight above .05); the arrow leads to the weighted mean."
