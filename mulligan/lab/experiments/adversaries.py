"""A generator chasing a critic that chases the data: the balls of a GAN, eight holes, and the critic's slope between them.

Definition. The critic f climbs E_data − E_balls of its game's loss; each ball G(z) is moved along ∇f. A ball is in a hole
within three of its standard deviations, and a hole is found if it has a third of its true share of the balls. A ball, which
has a fixed latent z, hops when it enters another hole than the one that it was in before.
Serves the notes' picture of a generator that chases an energy model that chases the data (``game.value``).
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from mulligan.lab.experiment import Range, experiment
from mulligan.lab.identities.strokes import COUNT, SPREAD, eight_holes
from mulligan.lab.identity import excess, rounding
from mulligan.lab.recording import Arrows, Bars, Curve, Field, Panel, Points, Recording, Scale
from mulligan.learners.adversarial import adversarial_descent
from mulligan.learners.gradient import Minibatch
from mulligan.loop import compile_small
from mulligan.models.gan import make_gan
from mulligan.objectives.adversarial import NON_SATURATING, PAIRED, WASSERSTEIN
from mulligan.objectives.likelihood import Rows
from mulligan.quantity import Quantity, proportion

FRAMES, BALLS, DRAWN, ARROWS = 24, 2000, 250, 60
BATCH, RATE, WIDTH, DEPTH = 128, 2e-3, 48, 2
CLUMP = 0.1  # of the spread of the data
AXIS = np.linspace(-3.2, 3.2, 29)
GAMES = {"non-saturating": (NON_SATURATING, 1), "paired": (PAIRED, 1), "wasserstein": (WASSERSTEIN, 3)}
SHARE = (1 - np.exp(-4.5)) / COUNT  # of the data, in one hole


class Seen(NamedTuple):
    """At each frame: the balls (t, n, 2), the critic on the grid (t, g) and at the balls, and its slope at some balls."""

    balls: Any
    field: Any
    score: Any
    slope: Any
    of_data: Any


@compile_small
def _played(kernel: Any, state: Any, keys: Any, indices: Any, z: Any, grid: Any, rows: Any) -> Seen:
    """The game in ``keys`` (t, rounds), seen before its first round and after each group of rounds."""

    def see(state: Any) -> Seen:
        model = kernel.learning(state)
        balls = jax.vmap(model.generated)(z)
        judge = jax.vmap(model.judged)
        return Seen(balls, judge(grid), judge(balls), jax.vmap(jax.grad(model.judged))(balls), judge(rows))

    def one(state: Any, item: Any) -> tuple[Any, None]:
        return kernel.step(item[0], state, Minibatch(item[1], jnp.asarray(np.float32(RATE))))[0], None

    def group(state: Any, items: Any) -> tuple[Any, Seen]:
        before = see(state)
        return jax.lax.scan(one, state, items)[0], before

    return jax.lax.scan(group, state, (keys, indices))[1]


def hole_of(balls: np.ndarray) -> np.ndarray:
    """The hole (0 to 7) that each ball (…, 2) is in, −1 for none.

    >>> hole_of(np.array([[2.0, 0.1], [0.0, 0.0]])).tolist()
    [0, -1]
    """
    square = ((balls[..., None, :] - np.asarray(eight_holes().means)) ** 2).sum(axis=-1)
    return np.where(square.min(axis=-1) < (3 * SPREAD) ** 2, square.argmin(axis=-1), -1)


class Counted(NamedTuple):
    """Balls in each hole (t, 8), balls that hopped since the frame before (t,), and holes found with both ends (t,)."""

    inside: np.ndarray
    hopped: np.ndarray
    found: np.ndarray
    surely: np.ndarray
    perhaps: np.ndarray


def counted(balls: np.ndarray) -> Counted:
    """What became of the balls (t, n, 2); the ends count holes whose 95 % interval is above, or reaches, the threshold.

    >>> counted(np.zeros((2, 5, 2))).found.tolist()
    [0, 0]
    """
    holes = hole_of(balls)
    inside = (holes[..., None] == np.arange(COUNT)).sum(axis=1)
    latest = holes.copy()  # the hole that a ball was in most lately; a ball may need several frames from hole to hole
    for k in range(1, len(holes)):
        latest[k] = np.where(holes[k] >= 0, holes[k], latest[k - 1])
    hops = (latest[1:] != latest[:-1]) & (latest[:-1] >= 0)
    shares = [[proportion(int(k), balls.shape[1]) for k in row] for row in inside]
    ends = np.array([[(share.low, share.high) for share in row] for row in shares])
    enough = SHARE / 3
    return Counted(
        inside,
        np.concatenate([[0], hops.sum(axis=1)]),
        (inside / balls.shape[1] >= enough).sum(axis=1),
        (ends[..., 0] >= enough).sum(axis=1),
        (ends[..., 1] >= enough).sum(axis=1),
    )


@experiment(5, "A generator chases a critic that chases the data")
def actor_and_critic(
    *,
    game: Literal["non-saturating", "paired", "wasserstein"] = "non-saturating",
    penalty: Annotated[float, Range(0.0, 100.0)] = 0.02,
    rounds: Annotated[int, Range(24, 5000)] = 1200,
    seed: int = 0,
) -> Recording:
    """A GAN of the library on eight holes of the plane, with the same balls z watched throughout.

    Parameters: ``game``, the loss; ``penalty`` γ of the critic's slope; ``rounds`` of the game. Raises UsageError for a
    value out of its range. Goodfellow et al., "Generative adversarial nets", 2014; Mescheder, Geiger and Nowozin, 2018.

    >>> from mulligan.lab.experiments.adversaries import actor_and_critic
    >>> actor_and_critic(rounds=24).length
    24
    """
    rng = np.random.default_rng([seed, 7])
    drawn = rng.integers(COUNT, size=BALLS)
    rows = (np.asarray(eight_holes().means)[drawn] + SPREAD * rng.normal(size=(BALLS, 2))).astype(np.float32)
    rules, critic_steps = GAMES[game]
    model = make_gan(rows, rng, latent=4, width=WIDTH, depth=DEPTH)
    # the library starts from the moments of the data, among all holes; here the balls start as a clump and have to find them
    model = eqx.tree_at(lambda gan: gan.factor, model, CLUMP * model.factor)
    kernel = adversarial_descent(
        rules, model, Rows(jnp.asarray(rows)), penalty=penalty, critic_steps=critic_steps, momentum=0.0
    )
    each = rounds // (FRAMES - 1)
    keys = jax.random.split(jax.random.key(seed), (FRAMES, max(1, each)))
    indices = rng.integers(BALLS, size=(FRAMES, max(1, each), BATCH * critic_steps))
    z = rng.normal(size=(BALLS, 4)).astype(np.float32)
    grid = np.stack(np.meshgrid(AXIS, AXIS), axis=-1).reshape(-1, 2).astype(np.float32)
    numbers = (jnp.asarray(part) for part in (indices, z, grid, rows))
    seen = Seen(
        *(
            np.asarray(part, np.float64)
            for part in _played(kernel, kernel.init(jax.random.key(seed), model), keys, *numbers)
        )
    )
    count, at = counted(seen.balls), max(1, each) * np.arange(float(FRAMES))
    inside = count.inside.sum(axis=1)
    return Recording(
        panels=(_field(seen, rows), _holes(count), _found(count, at), _shares(count, at)),
        captions=tuple(
            f"round {k:.0f}: {m / BALLS:.0%} of the balls are in a hole, {f} of 8 holes found; {h} balls hopped"
            for k, m, f, h in zip(at, inside, count.found, count.hopped)
        ),
        see="The balls follow the critic's slope into the holes, hop between them, and share them unevenly.",
        numbers={
            "balls in a hole": tuple(proportion(int(m), BALLS) for m in inside),
            "balls that hopped": tuple(proportion(int(m), BALLS) for m in count.hopped),
            "holes found": tuple(
                Quantity(float(f), "estimate", float(low), float(high)) for f, low, high in zip(*count[2:])
            ),
        },
        checks=_checks(seen, count),
        rate=4.0,
    )


def _checks(seen: Seen, count: Counted) -> dict:
    share = count.inside.sum(axis=1) / BALLS
    noise = np.sqrt((share[0] * (1 - share[0]) + share[-1] * (1 - share[-1]) + 1 / BALLS) / BALLS)
    wrong = np.abs(count.inside[-1] / BALLS - SHARE) / np.sqrt(SHARE * (1 - SHARE) / BALLS)
    return {
        "balls are chased into holes: more are in one at the end than at the start, by 5 standard errors": rounding(
            {"5 standard errors": (excess(5 * noise, share[-1] - share[0]), 0.0)}
        ),
        "they hop: 1 % or more enter another hole than the one before, at some frame": rounding(
            {"1 %": (excess(0.01, count.hopped.max() / BALLS), 0.0)}
        ),
        "all eight holes are found at some frame": rounding({"holes": (float(count.found.max()), float(COUNT))}),
        "the end is not the data: a hole more than 5 standard errors off its share, and balls between the holes": rounding(
            {
                "5 standard errors": (excess(5.0, wrong.max()), 0.0),
                "5 standard errors, in any hole": (excess(share[-1] + 5 * noise, COUNT * SHARE), 0.0),
            }
        ),
    }


def _field(seen: Seen, rows: np.ndarray) -> Panel:
    """The critic, its slope at some balls (each frame to one scale), the balls and the data."""
    values = seen.field - seen.field.mean(axis=1, keepdims=True)
    values = values / np.maximum(np.abs(values).max(axis=1, keepdims=True), 1e-9)
    slope = seen.slope[:, :ARROWS]
    longest = np.quantile(np.linalg.norm(slope, axis=-1), 0.9, axis=1)[:, None, None]
    slope = 0.5 * slope / np.maximum(longest, 1e-9)
    slope = slope / np.maximum(1.0, np.linalg.norm(slope, axis=-1, keepdims=True) / 0.7)
    x, y = Scale("x₁", -3.2, 3.2), Scale("x₂", -3.2, 3.2)
    field = Field("critic, to one scale", AXIS, AXIS, values.reshape(-1, AXIS.size, AXIS.size), "signed", -1.0, 1.0)
    layers = (
        field,
        Points("data", rows[None, :DRAWN], role="data", size=3.0),
        Points("balls", seen.balls[:, :DRAWN], role="model", size=3.0),
        Arrows("the critic's slope at some balls", seen.balls[:, :ARROWS], slope),
    )
    return Panel("critic (colour), data, balls and their pull", x, y, layers, square=True, legend=False)


def _holes(count: Counted) -> Panel:
    share = count.inside / BALLS
    error = np.sqrt(share * (1 - share) / BALLS)
    ends = np.array([-0.5, COUNT - 0.5])
    return Panel(
        "who is in which hole",
        Scale("hole, anticlockwise from the right", names=tuple(str(k + 1) for k in range(COUNT))),
        Scale("share of the balls", 0.0, 1.4 * float(share.max())),
        (
            Bars("balls in the hole, 95 %", np.arange(float(COUNT)), share, error=error),
            Curve("true share", ends, np.full((1, 2), SHARE), role="ink", dashed=True),
            Curve("found above this", ends, np.full((1, 2), SHARE / 3), role="mark", dashed=True),
        ),
    )


def _now(array: np.ndarray) -> np.ndarray:
    """(t, t): the curve as it is known at each frame, its latest value carried on."""
    frames = np.arange(len(array))
    return array[np.minimum(frames[None], frames[:, None])]


def _found(count: Counted, at: np.ndarray) -> Panel:
    band = (_now(part.astype(float)) for part in (count.found, count.surely, count.perhaps))
    y, low, high = band
    return Panel(
        "holes found",
        Scale("rounds of the game", 0.0, float(at[-1])),
        Scale("holes, with 95 % limits", 0.0, 11.0),
        (Curve("holes found", at, y, "model", low, high),),
    )


def _shares(count: Counted, at: np.ndarray) -> Panel:
    layers = []
    for name, number, role in (("in a hole", count.inside.sum(axis=1), "model"), ("hopped", count.hopped, "mark")):
        limits = [proportion(int(k), BALLS) for k in number]
        low, high = np.array([q.low for q in limits]), np.array([q.high for q in limits])
        layers.append(Curve(name, at, _now(number / BALLS), role, _now(low), _now(high)))  # type: ignore[arg-type]
    return Panel(
        "balls in a hole, and balls that hopped",
        Scale("rounds of the game", 0.0, float(at[-1])),
        Scale("share of the balls", 0.0, 1.4),
        tuple(layers),
    )
