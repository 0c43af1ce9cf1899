"""Chapter 9, score and denoising: score, noise, datum, velocity or energy, it is all the same denoiser.

Definition. Of x_t = α x_0 + σ ε a model may predict x_0, ε, the score −ε/σ, v = α ε − σ x_0, or an energy whose slope is the
score. Each is an affine function of x̂_0 at a fixed x_t, so |ε − ε̂|² = (α²/σ²)|x_0 − x̂_0|² = σ²|s − ŝ|²,
|v − v̂|² = ((α² + σ²)²/σ²)|x_0 − x̂_0|², and the best prediction of each comes from E[x_0|x_t]. On a grid for any prediction,
and with the library's denoisers and losses.
Identities: ``diffusion.parametrizations``, ``diffusion.parametrizations.network``.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from mulligan.lab.identities.denoising import joint_mass, wrong_scores
from mulligan.lab.identities.noising import FEW, LINE, TIMES, seen
from mulligan.lab.identities.schedules import BOTH, numbers, schedules
from mulligan.lab.identity import Check, Identity, rounding
from mulligan.loop import compile_small
from mulligan.models.denoiser import OUTPUTS, Denoiser
from mulligan.objectives.denoising import Denoising
from mulligan.targets.noising import Schedule

DIM = 2


def _parametrizations(seed: int, *, weight: float = 1.0, v_sign: float = -1.0, of_v: float = 2.0) -> Check:
    """Whatever is predicted, the loss is the same up to a weight, and the best prediction is the same denoiser.

    With α² + σ² = n the loss of v = α ε − σ x_0 is n²/σ² times that of x_0: 1/σ² if variance is preserved.
    """
    pairs: dict[str, tuple[Any, Any]] = {}
    for name in BOTH:
        at, found = numbers(TIMES)[name], seen(seed, 0, name)
        for i in range(FEW):
            a, s, mass, x = at.alpha[i], at.sigma[i], joint_mass(seed, name, i), LINE[:, None]
            noise = (x - a * LINE) / s
            targets = {"x_0": LINE[None], "ε": noise, "score": -noise / s, "v": a * noise + v_sign * s * LINE}
            total = a**2 + s**2 if name == "walk" else 1.0
            weights = {"x_0": 1.0, "ε": weight * a**2 / s**2, "score": a**2 / s**4, "v": (total / s) ** of_v}
            denoised = {"best": found.denoised[i]} | dict(enumerate((LINE + s**2 * wrong_scores(seed)) / a))
            for kind, target in targets.items():
                for label, guess in denoised.items():
                    e = (LINE - a * guess) / s
                    guessed = {"x_0": guess, "ε": e, "score": -e / s, "v": a * e - s * guess}[kind]
                    loss = np.sum(mass * (target - guessed[:, None]) ** 2)
                    base = np.sum(mass * (LINE - guess[:, None]) ** 2)
                    pairs[f"{kind}, {label}, t = {TIMES[i]}, {name}"] = (loss, weights[kind] * base)
                    if label == "best":  # E[target − prediction | x_t] = 0: no change of the prediction helps
                        left = np.sum(mass * (target - guessed[:, None]), axis=1)
                        pairs[f"{kind}, the best one, t = {TIMES[i]}, {name}"] = (left, 0.0)
    return rounding(pairs)


# --- the library's networks --------------------------------------------------------------------------------------------


class Wavy(eqx.Module):
    """F(u, c) = amplitude · sin(turn u + phase c), or its sum, where a network gives one number.

    >>> Wavy(*(jnp.ones(1) for _ in range(3)), True)(jnp.zeros(1), jnp.zeros(())).tolist()
    [0.0]
    """

    amplitude: Any
    turn: Any
    phase: Any
    single: bool = eqx.field(static=True)

    def __call__(self, u: Any, level: Any) -> Any:
        found = self.amplitude * jnp.sin(self.turn * u + self.phase * level)
        return jnp.sum(found, keepdims=True) if self.single else found


class Predicted(NamedTuple):
    """Of one output and n rows (n, d): F, what the model makes of it, errors by weighting (n,), and −∇ energy if it has one.

    >>> Predicted._fields[:2]
    ('network', 'denoised')
    """

    network: Any
    denoised: Any
    noise: Any
    score: Any
    errors: Any
    slope: Any


@compile_small
def _predicted(parts: Any, schedule: Schedule, x: Any, e: Any, t: Any) -> Any:
    def of(output: Any) -> Any:
        network, data = (
            Wavy(parts[0], parts[1], parts[2], output == "energy"),
            {"mean": jnp.zeros(DIM), "axes": jnp.eye(DIM)},
        )
        model = Denoiser(network=network, schedule=schedule, variances=jnp.ones(DIM), output=output, **data)

        def one(x: Any, e: Any, t: Any) -> Any:
            x_t = schedule.alpha(t) * x + schedule.sigma(t) * e
            scales = model.scales(t)
            inner = model.network(x_t / scales.total, scales.level)
            kinds: Any = ("v", "noise", "data") if output == "v" else ()  # the weights do not depend on the output
            errors = {kind: jnp.sum(Denoising(kind).errors(model, x, e, t)) for kind in kinds}
            slope = -jax.grad(model.energy)(x_t, t) if output == "energy" else None
            found = model.denoise(x_t, t), model.noise(x_t, t), model.score(x_t, t)
            return Predicted(inner, *found, errors, slope)

        return jax.vmap(one)(x, e, t)

    return {output: of(output) for output in OUTPUTS}


def _parametrizations_network(seed: int, *, of_v: float = 2.0, swapped: bool = False, total: float = 1.0) -> Check:
    """What the library's denoisers make of a network's output is that output; its weighted losses are those of ε, v and x_0.

    Variance preserving and data of unit variance: with τ² = α² + σ² = 1 its v is α ε − σ x_0.
    """
    rng, schedule = np.random.default_rng([seed, 104]), schedules()["general"]
    x, e = rng.normal(size=(2, 12, DIM))
    t = np.sort(rng.uniform(0.05, 0.9, 12))
    parts = [jnp.asarray(a) for a in rng.normal(size=(3, DIM))]
    every = _predicted(parts, schedule, *(jnp.asarray(a) for a in (x, e, t)))
    at = numbers(t)["general"]
    a, s = at.alpha[:, None], at.sigma[:, None]
    pairs: dict[str, tuple[Any, Any]] = {}
    for output, found in every.items():
        inner, denoised, noise, score, errors, slope = jax.tree.map(np.asarray, found)
        v = a * noise - s * denoised
        if output == "energy":
            pairs["energy: the score is its slope"] = (score, total * slope)
        else:
            given = {"v": v, "noise": noise, "data": denoised, "score": score}
            pairs[f"what a network of {output} gives"] = (
                given["noise" if swapped and output == "v" else output],
                inner,
            )
        v_error = (a * e - s * x) - v
        losses = {"v": v_error**2 * s ** (of_v - 2), "noise": (e - noise) ** 2, "data": (x - denoised) ** 2}
        for kind, found_error in errors.items():
            pairs[f"weight of {kind}"] = (found_error, losses[kind].sum(axis=1))
    return rounding(pairs)


IDENTITIES = (
    Identity(
        "diffusion.parametrizations",
        9,
        "|ε − ε̂|² = (α²/σ²)|x_0 − x̂_0|² = σ²|s − ŝ|²; |v − v̂|² = |x_0 − x̂_0|²/σ² if α² + σ² = 1; same minimiser",
        "rounding",
        _parametrizations,
        {"weight of ε doubled": {"weight": 2.0}, "v = αε + σx_0": {"v_sign": 1.0}, "v's weight 1/σ": {"of_v": 1.0}},
        "Ho, Jain and Abbeel 2020; Salimans and Ho 2022",
    ),
    Identity(
        "diffusion.parametrizations.network",
        9,
        "D = αx − σF, (x − σF)/α, F, (x + σ²F)/α for F = v, ε, x_0, score; −∇ energy is the score; α² + σ² = 1",
        "rounding",
        _parametrizations_network,
        {"v's weight 1/σ": {"of_v": 1.0}, "ε for v": {"swapped": True}, "sign of the energy": {"total": -1.0}},
        "Salimans and Ho 2022; Karras et al. 2022",
    ),
)
