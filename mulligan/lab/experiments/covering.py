"""Mode covering and mode chasing: the same Gaussians fitted to a curve with three modes by KL in both directions.

Definition. KL(p_data‖p_θ) = E_data log p_data/p_θ punishes a missed mode, so its minimiser spreads; KL(p_θ‖p_data) punishes
mass where the data has none, so its minimiser picks. A model that contains the data's law makes both 0. Both are integrals
over a grid, descended by Adam without noise. Serves ``mle.covering`` and the notes' picture of mode covering.
"""

from __future__ import annotations

from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mulligan.lab.experiment import Range, experiment
from mulligan.lab.identity import excess, rounding
from mulligan.lab.recording import Curve, Panel, Points, Recording, Role, Scale
from mulligan.learners.gradient import gradient_descent
from mulligan.loop import compile_small
from mulligan.quantity import Quantity
from mulligan.targets.mixture import GaussianMixture

FRAMES = 24
_LINE = np.linspace(-12.0, 12.0, 481)
_WIDTH = float(_LINE[1] - _LINE[0])
_SHOWN = slice(120, 361, 2)  # −6 to 6
_ROLES: tuple[Role, ...] = ("model", "second", "third")


class Grid(NamedTuple):
    """``points`` (n, 1), log p_data there (n,), and ``forward``: 1 for KL(p_data‖p_θ), 0 for KL(p_θ‖p_data)."""

    points: Any
    log_p: Any
    forward: Any


def three_modes() -> GaussianMixture:
    """p_data: three modes of unequal weight on the line.

    >>> three_modes().components
    3
    """
    return GaussianMixture.from_covariances([0.3, 0.45, 0.25], [[-3.6], [0.0], [3.4]], [[[0.14]], [[0.18]], [[0.12]]])


def both_divergences(log_q: Any, log_p: Any, width: Any) -> tuple[Any, Any]:
    """KL(p‖q) and KL(q‖p) of two log densities on a grid of steps ``width``.

    >>> [float(kl) for kl in both_divergences(jnp.zeros(2), jnp.ones(2), 0.5)]
    [2.7182817459106445, -1.0]
    """
    gap = log_p - log_q
    return width * jnp.sum(jnp.exp(log_p) * gap), -width * jnp.sum(jnp.exp(log_q) * gap)


def divergence_loss(model: GaussianMixture, key: Any, batch: Grid) -> tuple[Any, dict[str, Any]]:
    """The divergence that is descended, with both as metrics.

    >>> law = three_modes()
    >>> log_p = jax.vmap(law.log_prob)(jnp.asarray(_LINE[:, None]))
    >>> abs(float(divergence_loss(law, None, Grid(jnp.asarray(_LINE[:, None]), log_p, 1.0))[0])) < 1e-9
    True
    """
    forward, reverse = both_divergences(jax.vmap(model.log_prob)(batch.points), batch.log_p, _WIDTH)
    return jnp.where(batch.forward > 0, forward, reverse), {"forward": forward, "reverse": reverse}


@compile_small
def _descend(starts: GaussianMixture, log_p: Any, points: Any, rates: Any, every: Any) -> Any:
    """Both directions at once: log p_θ (2, frames, n), both divergences there (2, frames), and mean and variance."""

    def one(start: GaussianMixture, forward: Any) -> Any:
        batch = Grid(points, log_p, forward)
        kernel = gradient_descent(divergence_loss, start, jnp.zeros(1), averaging=0.0)

        def step(state: Any, rate: Any) -> tuple[Any, Any]:
            law = kernel.learning(state)
            log_q = jax.vmap(law.log_prob)(points)
            seen = (log_q, *both_divergences(log_q, log_p, _WIDTH), law.mean[0], law.covariance[0, 0])
            return kernel.update(state, jax.random.key(0), batch, rate)[0], seen

        return jax.lax.scan(step, kernel.init(jax.random.key(0), start), rates)[1]

    found = jax.vmap(one, in_axes=(None, 0))(starts, jnp.array([1.0, 0.0]))
    return jax.tree.map(lambda leaf: leaf[:, every], found)


@experiment(2, "Mode covering and mode chasing: both directions of KL")
def covering_and_chasing(
    *,
    steps: Annotated[int, Range(50, 3000)] = 800,
    rate: Annotated[float, Range(0.005, 0.1)] = 0.04,
    jitter: Annotated[float, Range(0.0, 1.0)] = 0.3,
    seed: int = 0,
) -> Recording:
    """One, two and three Gaussians descend KL(p_data‖p_θ) and KL(p_θ‖p_data) from the same starts.

    Parameters: ``steps`` of Adam, its ``rate`` (falling along a cosine to 0), ``jitter``: how far the seed moves the
    starting means, which are spread over [−2.5, 2.5]. Raises UsageError for a value out of range. Source: Minka (2005).

    >>> from mulligan.lab.experiments.covering import covering_and_chasing
    >>> covering_and_chasing(seed=1).holds
    True
    """
    law, rng = three_modes(), np.random.default_rng(seed)
    points = jnp.asarray(_LINE[:, None])
    log_p = np.asarray(_log_p(law, points))
    every = np.unique(np.round((steps - 1) * np.linspace(0, 1, FRAMES) ** 2).astype(int))
    rates = 0.5 * rate * (1 + np.cos(np.pi * np.arange(steps) / steps))
    found = []
    for k in (1, 2, 3):
        means = np.linspace(-2.5, 2.5, k) if k > 1 else np.zeros(1)
        moved = (means + jitter * rng.normal(size=k))[:, None]
        start = GaussianMixture(*map(jnp.asarray, (np.zeros(k), moved, np.full((k, 1, 1), 1.2))))
        found.append(
            [np.asarray(part) for part in _descend(start, jnp.asarray(log_p), points, rates, jnp.asarray(every))]
        )
    return _recording(np.exp(log_p), every, found, (float(law.mean[0]), float(law.covariance[0, 0])))


@compile_small
def _log_p(law: Any, points: Any) -> Any:
    return jax.vmap(law.log_prob)(points)


def _recording(p: np.ndarray, every: np.ndarray, found: list[Any], moments: tuple[float, float]) -> Recording:
    forward = np.stack([each[1][0] for each in found])  # (3, frames): KL(p_data‖p_θ) where it is descended
    reverse = np.stack([each[2][1] for each in found])
    names = ("1 Gaussian", "2 Gaussians", "3 Gaussians")
    quantities: dict[str, tuple[Quantity, ...]] = {}
    for way, values in (("KL(p_data‖p_θ)", forward), ("KL(p_θ‖p_data)", reverse)):
        quantities |= {f"{way}, {k + 1}": _numbers(values[k]) for k in range(3)}
    return Recording(
        panels=(
            _densities("KL(p_data‖p_θ): covers", p, [np.exp(each[0][0]) for each in found], names),
            _densities("KL(p_θ‖p_data): chases", p, [np.exp(each[0][1]) for each in found], names),
            _divergences("KL(p_data‖p_θ), descended on the left", every, forward, names),
            _divergences("KL(p_θ‖p_data), descended on the right", every, reverse, names),
        ),
        captions=tuple(_caption(t, every, found) for t in range(len(every))),
        see="One Gaussian spreads over all modes or sits on one, as the direction says; three Gaussians fit either way.",
        numbers=quantities,
        checks=_checks(p, found, forward, reverse, moments),
        rate=5.0,
    )


def _densities(title: str, p: np.ndarray, laws: list[np.ndarray], names: tuple[str, ...]) -> Panel:
    layers = [Curve(f"p_data, {title[:14]}", _LINE[_SHOWN], p[None, _SHOWN], role="data")]
    layers += [
        Curve(f"{name}, {title[:14]}", _LINE[_SHOWN], q[:, _SHOWN], role=role, dashed=role == "third")
        for name, q, role in zip(names, laws, _ROLES)
    ]
    return Panel(title, Scale("x (cm)", -6.0, 6.0), Scale("density (1/cm)", 0.0, 1.5), tuple(layers))


def _divergences(title: str, every: np.ndarray, values: np.ndarray, names: tuple[str, ...]) -> Panel:
    """The curves of the whole run, and where the frame is on each."""
    kind = title[:14]
    layers: list[Any] = []
    for name, value, role in zip(names, values, _ROLES):
        layers.append(Curve(f"{name}: {kind}", every.astype(float), value[None], role=role))
        layers.append(Points(f"now, {name}: {kind}", np.stack([every, value], axis=-1)[:, None], role=role, size=8.0))
    return Panel(
        title, Scale("steps of descent"), Scale("nats", 0.0, 1.1 * float(values.max())), tuple(layers), legend=False
    )


def _caption(t: int, every: np.ndarray, found: list[Any]) -> str:
    spread = [float(np.sqrt(found[0][4][way][t])) for way in (0, 1)]
    left, right = (max(float(found[2][1 + way][way][t]), 0.0) for way in (0, 1))  # −1e-16 would be said as −0.000
    said = f"Step {every[t]}: one Gaussian (blue) has standard deviation {spread[0]:.2f} cm on the left and "
    return said + f"{spread[1]:.2f} cm on the right; three Gaussians (dashed) have KL {left:.3f} and {right:.3f} nats."


def _numbers(values: np.ndarray) -> tuple[Quantity, ...]:
    return tuple(Quantity(max(float(v), 0.0), "numeric", float(v) - 1e-6, float(v) + 1e-6, unit="nats") for v in values)


def _checks(
    p: np.ndarray, found: list[Any], forward: np.ndarray, reverse: np.ndarray, moments: tuple[float, float]
) -> dict[str, Any]:
    """Covering has the data's moments; chasing lies in one mode; three Gaussians make both divergences 0."""
    one = np.exp(found[0][0][1][-1])
    basin = np.digitize(_LINE, [-1.8, 1.7])  # of the left, the middle and the right mode
    share = max(_WIDTH * one[basin == k].sum() for k in range(3))
    return {
        "covering: one Gaussian gets the data's mean and variance": rounding(
            {"mean": (found[0][3][0][-1], moments[0]), "variance": (found[0][4][0][-1], moments[1])}, tolerance=1e-3
        ),
        "chasing: one Gaussian lies in one mode": rounding({"95 % of its mass": (excess(0.95, share), 0.0)}),
        "the divergence that is descended falls": rounding(
            {
                "last below first": (
                    excess(np.r_[forward[:, -1], reverse[:, -1]], np.r_[forward[:, 0], reverse[:, 0]]),
                    0.0,
                )
            }
        ),
        "three Gaussians: both directions reach 0": rounding(
            {"forward": (forward[2, -1], 0.0), "reverse": (reverse[2, -1], 0.0)}, tolerance=1e-3
        ),
    }
