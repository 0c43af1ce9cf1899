"""Discriminative guidance: draws of a blurred model, moved by a critic. A little brings them into the holes, more collapses.

Definition. The best critic of data against model is log p_data(x)/p_model(x). Climbing it, x + δ ∇ log p_data/p_model, moves
draws to where data are likelier than the model says; it has no noise, so it ends at the tops. Langevin's step for the law
p_model · e^critic = p_data, x + δ ∇ log p_data + √(2δ) e, ends at the data. The model is one Gaussian with the mean and the
covariance of the course: what a linear VAE makes of it. Serves ``relation.guided``.
"""

from __future__ import annotations

from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np

from mulligan.lab.experiment import Range, experiment
from mulligan.lab.experiments.more_strokes import rims
from mulligan.lab.identities.strokes import COUNT, RADIUS, SPREAD, eight_holes, in_holes
from mulligan.lab.identity import STANDARD_ERRORS, Check, excess, mean_and_error, monte_carlo, rounding
from mulligan.lab.recording import Curve, Panel, Points, Recording, Role, Scale
from mulligan.loop import compile_small
from mulligan.measures.energy_distance import energy_distance, mean_distance
from mulligan.quantity import Quantity
from mulligan.targets.mixture import GaussianMixture

DRAWN, BATCHES, EVERY = 150, 10, 2
WAYS = {"climbing": "critic alone", "langevin": "critic, model and noise"}


@compile_small
def _moved(data: GaussianMixture, model: GaussianMixture, x: Any, key: Any, step: Any, count: Any) -> Any:
    """Where ``count`` (m, steps apart) steps of both ways lead from draws x (n, 2) of the model, (m, 2, n, 2)."""
    critic = jax.vmap(jax.grad(lambda at: data.log_prob(at) - model.log_prob(at)))
    own = jax.vmap(jax.grad(model.log_prob))

    def one(i: Any, at: Any) -> Any:
        climbed, walked = at
        e = jax.random.normal(jax.random.fold_in(key, i), x.shape, x.dtype)
        pull = critic(walked) + own(walked)
        return climbed + step * critic(climbed), walked + step * pull + jnp.sqrt(2 * step) * e

    def block(at: Any, i: Any) -> Any:
        at = jax.lax.fori_loop(i * EVERY, (i + 1) * EVERY, one, at)
        return at, jnp.stack(at)

    return jax.lax.scan(block, (x, x), count)[1]


@experiment(10, "A critic's help: a little guides, too much collapses")
def guided(
    *,
    samples: Annotated[int, Range(500, 10_000)] = 4000,
    steps: Annotated[int, Range(20, 90)] = 60,
    pull: Annotated[float, Range(0.01, 0.3)] = 0.08,
    seed: int = 0,
) -> Recording:
    """Draws of one broad Gaussian, moved by the best critic towards eight holes, without noise and with it.

    x + δ ∇ log p_data/p_model; δ = ``pull`` · (sd of a hole)². Parameters: ``samples``, ``steps`` (every second is a frame),
    ``pull``. Raises UsageError for a value out of its range.

    >>> from mulligan.lab.experiments.guided import guided
    >>> guided(samples=1000, seed=1).holds
    True

    Source: Che et al. (2020), a generator's samples moved by its discriminator; Azadi et al. (2019).
    """
    data, rng = eight_holes(), np.random.default_rng([seed, 106])
    model = GaussianMixture.from_covariances([1.0], np.asarray(data.mean)[None], np.asarray(data.covariance)[None])
    start = np.asarray(data.mean) + rng.normal(size=(samples, 2)) @ np.asarray(model.choleskys[0]).T
    numbers = jnp.asarray(start), jax.random.key(seed), jnp.asarray(pull * SPREAD**2), jnp.arange(steps // EVERY)
    path = np.asarray(_moved(data, model, *numbers))
    path = np.concatenate([np.stack([start, start])[None], path])
    fresh = np.asarray(data.means)[rng.integers(0, COUNT, samples)] + SPREAD * rng.normal(size=(samples, 2))
    return _recording(path, fresh, steps)


def _measured(path: np.ndarray, fresh: np.ndarray) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """(frames, ways) of each measure and its standard error: share in holes, spread inside, distance."""
    share = in_holes(path).sum(axis=-1) / path.shape[2]
    share_error = np.sqrt(np.maximum(share * (1 - share), 1 / path.shape[2]) / path.shape[2])
    spreads = np.empty((*path.shape[:2], 2))
    distances = np.empty((*path.shape[:2], BATCHES))
    batches = np.array_split(fresh, BATCHES)
    within = [mean_distance(batch) for batch in batches]
    for at in np.ndindex(*path.shape[:2]):
        spreads[at] = spread_inside(path[at])
        pairs = zip(batches, np.array_split(path[at], BATCHES), within)
        distances[at] = [energy_distance(real, moved, known) for real, moved, known in pairs]
    batched = np.moveaxis(distances, 2, 0)
    rise = mean_and_error(batched[:, -1, 0] - batched[:, batched.mean(axis=0)[:, 0].argmin(), 0])
    return {
        "share": (share, share_error),
        "spread": (spreads[..., 0], spreads[..., 1]),
        "distance": mean_and_error(batched),
        "rise": rise,  # from its least to the end, batch by batch: the fresh rows of a batch are the same
    }


def spread_inside(x: np.ndarray) -> np.ndarray:
    """Mean square distance to the centre of the hole, of the samples x (n, 2) that are in one, over the true one; its error.

    >>> spread_inside(np.asarray(eight_holes().means)).tolist()
    [0.0, 0.0]
    """
    squares = ((x[:, None] - np.asarray(eight_holes().means)) ** 2).sum(axis=-1).min(axis=1) / SPREAD**2
    true = 2 - 9 * np.exp(-4.5) / (1 - np.exp(-4.5))  # E[χ²₂ | χ²₂ < 9]
    average, error = mean_and_error(squares[squares < 9] / true)
    return np.array([average, error])


def own_share() -> float:
    """The blurred model's mass in the holes: a noncentral χ² of two degrees.

    >>> 0.1 < own_share() < 0.2
    True
    """
    from scipy.special import chndtr

    variance = RADIUS**2 / 2 + SPREAD**2
    return float(COUNT * chndtr((3 * SPREAD) ** 2 / variance, 2, RADIUS**2 / variance))


def _recording(path: np.ndarray, fresh: np.ndarray, steps: int) -> Recording:
    found = _measured(path, fresh)
    share, share_error = found["share"]
    spread, spread_error = found["spread"]
    apart, apart_error = found["distance"]
    best = int(apart[:, 0].argmin())
    x = EVERY * np.arange(len(path), dtype=float)

    checks = {
        "before any step the share in holes is that of the blurred model": monte_carlo(
            {"share": (share[0, 0], own_share(), np.sqrt(own_share() * (1 - own_share()) / path.shape[2]))}
        ),
        "a little guidance: three times as many in holes where the distance is least": surely_less(
            3 * share[0, 0], share[best, 0], 3 * share_error[0, 0], share_error[best, 0]
        ),
        "too much collapses: in the end the spread inside a hole is below a tenth of the true one": surely_less(
            spread[-1, 0], 0.1, spread_error[-1, 0]
        ),
        "too much: the distance has risen again from its least": surely_less(
            0.0, float(found["rise"][0]), float(found["rise"][1])
        ),
        "with the model's own slope and noise the spread stays above four fifths": surely_less(
            0.8, spread[-1, 1], spread_error[-1, 1]
        ),
    }
    scales = {"share": Scale("share of samples", 0.0, 1.35), "spread": Scale("mean square / true", 0.0, 2.6)}
    titles = {"share": "Share of samples in some hole", "spread": "Spread inside a hole, over the true one"}
    panels = [_plane(path), *(_curves(titles[name], x, *found[name], scales[name]) for name in titles)]
    panels.append(
        _curves("Energy distance to fresh rows", x, apart, apart_error, Scale("energy distance (units of x)"))
    )
    return Recording(
        panels=tuple(panels),
        captions=tuple(
            _caption(int(k), *rest) for k, *rest in zip(x, share[:, 0], spread[:, 0], np.arange(len(x)) - best)
        ),
        see="A few steps up the critic bring draws into the holes; more steps shrink each hole to a point.",
        numbers={
            "in some hole": tuple(_of(v, e) for v, e in zip(share[:, 0], share_error[:, 0])),
            "spread inside": tuple(_of(v, e) for v, e in zip(spread[:, 0], spread_error[:, 0])),
            "energy distance": tuple(_of(v, e) for v, e in zip(apart[:, 0], apart_error[:, 0])),
        },
        checks=checks,
        rate=4.0,
    )


def surely_less(low: float, high: float, *errors: float) -> Check:
    """Whether low < high by more than 4.75 standard errors of their difference; left is what is lacking.

    >>> surely_less(0.0, 1.0, 0.1).verdict, surely_less(0.0, 1.0, 0.3).verdict
    ('holds', 'fails')
    """
    margin = STANDARD_ERRORS * float(np.sqrt(np.square(errors).sum()))
    return rounding({f"{low:.4g} + 4.75 standard errors < {high:.4g}": (excess(low + margin, high), 0.0)})


def _of(value: float, error: float) -> Quantity:
    value, error = float(value), float(error)
    return Quantity(value, "estimate", value - 1.96 * error, value + 1.96 * error, stderr=error)


def _plane(path: np.ndarray) -> Panel:
    most = RADIUS + 1.4
    edge = Points("holes", rims(np.asarray(eight_holes().means), 3 * SPREAD), role="data", size=1.2)
    shown = np.clip(path[:, :, :DRAWN], -most, most)
    roles: tuple[Role, Role] = ("mark", "model")
    ways = [
        Points(f"draws, {name}", shown[:, i], role=role, size=3.5)
        for i, (name, role) in enumerate(zip(WAYS.values(), roles))
    ]
    x, y = Scale("x₁ (units of the data)", -most, most), Scale("x₂ (units of the data)", -most, most)
    return Panel("Orange: critic alone. Blue: with noise", x, y, (edge, *reversed(ways)), square=True, legend=False)


def _curves(title: str, x: np.ndarray, value: np.ndarray, error: np.ndarray, scale: Scale) -> Panel:
    """Both ways with 95 % bands, and a dot for this frame."""
    layers = []
    for i, (name, role) in enumerate(zip(WAYS.values(), ("mark", "model"))):
        low, high = (value + k * 1.96 * error for k in (-1, 1))
        band = {"low": low[None, :, i], "high": high[None, :, i]}
        layers.append(Curve(f"{title}: {name}", x, value[None, :, i], role=role, **band))  # type: ignore[arg-type]
    now = Points(f"{title}: now", np.stack([x, value[:, 0]], axis=-1)[:, None], role="mark", size=8.0, opacity=1.0)
    return Panel(title, Scale("steps"), scale, (*layers, now), legend=False)


def _caption(steps: int, share: float, spread: float, past: int) -> str:
    if steps == 0:
        return f"Draws of the blurred model: {100 * share:.0f} % are in a hole, by chance."
    word = "step" if steps == 1 else "steps"
    stage = "the distance still falls" if past < 0 else "here the distance is least" if past == 0 else "holes shrink on"
    inside = f"{100 * share:.0f} % in a hole, with {spread:.2f} of the true spread inside"
    return f"{steps} {word} up the critic: {inside}; {stage}."
