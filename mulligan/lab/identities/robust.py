"""Chapter 9, diffusion: what a wrong start and a wrong score do to the law at the end.

Definition. Backwards in time, dx = (½(1 + λ²) g² s_t − f x) dt + λ g dB carries p_t to p_0 for every λ if s_t = ∇ log p_t:
λ = 0 is the ODE, λ = 1 the SDE. A second law q_t is driven with s_t + ε_t. Going back,
dKL(p_t‖q_t) = −(λ²/2) g² E_p|∇ log p_t/q_t|² − ½(1 + λ²) g² E_p[∇ log(p_t/q_t)·ε_t]  ≤  ((λ + 1/λ)²/8) g² E_p|ε_t|².
So with the true score the ODE keeps KL and the SDE lowers it; with any error the SDE has the least bound, and the ODE has
none: for a Gaussian of variance V_t and ε_t = c/√V_t, a run from V_T to V_0 ends at KL = ½y², y = ½ c L with L =
log V_T/V_0 for the ODE, above the SDE's bound ½ c² L as soon as L > 4; for λ > 0, y = c (1 + 1/λ²)(1 − e^{−λ²L/2}).
Identities: ``diffusion.robust``, ``diffusion.robust.run``. Experiment: ``diffusion.robust.ode``.
"""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from mulligan.lab.identities.noising import FEW, LINE, STEP, TIMES, seen
from mulligan.lab.identities.schedules import BOTH, kept, numbers
from mulligan.lab.identity import Check, Identity, excess, order, rounding
from mulligan.loop import compile_small
from mulligan.samplers.reverse import HeunODE, ReverseSDE
from mulligan.targets.mixture import GaussianMixture
from mulligan.targets.noised import NoisedMixture
from mulligan.targets.noising import Schedule, Walk

STRENGTHS = (0.0, 0.5, 1.0, 2.0)


def bound(strength: Any, power: float = 2.0) -> Any:
    """(λ + 1/λ)²/8: what an error of the score can cost at most, per unit of σ² ∫ E|ε|² dt.

    >>> bound(1.0)
    0.5
    """
    return (strength + 1 / strength) ** power / 8


def _robust(seed: int, *, half: float = 0.5, climb: float = 1.0, power: float = 2.0) -> Check:
    """Every λ keeps p_t; the slope of KL(p_t‖q_t) going back, by both Fokker-Planck equations, and its bound."""
    pairs: dict[str, tuple[Any, Any]] = {}
    for name in BOTH:
        at, p, q = numbers(TIMES)[name], seen(seed, 0, name), seen(seed, 1, name)
        rng = np.random.default_rng([seed, 95])
        size, pace, phase = rng.normal(size=(3, FEW, 1))
        error = size * np.sin(pace * LINE + phase)
        error_slope = size * pace * np.cos(pace * LINE + phase)
        drift, g2 = at.drift[:FEW, None], at.diffusion[:FEW, None]
        log_p, p_score, p_curve, p_rate = (a[:FEW] for a in p[:4])
        log_q, q_score, q_curve = (a[:FEW] for a in q[:3])
        mass, apart = STEP * np.exp(log_p), p_score - q_score
        for strength in STRENGTHS:
            share, spread = 0.5 * (climb + strength**2) * g2, 0.5 * strength**2 * g2

            def rate(score: Any, curve: Any, wrong: Any = 0.0, slope: Any = 0.0) -> Any:
                """∂ log q going back: −div(q b)/q + (λ²/2) g² (Δq)/q with b = share (s + ε) − f x."""
                b, b_slope = share * (p_score + wrong) - drift * LINE, share * (p_curve + slope) - drift  # noqa: B023
                return -b_slope - b * score + spread * (curve + score**2)  # noqa: B023

            pairs[f"p_t is kept, λ = {strength}, {name}"] = (
                np.exp(log_p) * rate(p_score, p_curve),
                -np.exp(log_p) * p_rate,
            )
            for kind, amount in (("true score", 0.0), ("wrong score", 1.0)):
                of_q = rate(q_score, q_curve, amount * error, amount * error_slope)
                slope = np.sum(mass * (rate(p_score, p_curve) * (log_p - log_q) - of_q), axis=1)
                fisher = half * strength**2 * g2[:, 0] * np.sum(mass * apart**2, axis=1)
                pushed = amount * 0.5 * (1 + strength**2) * g2[:, 0] * np.sum(mass * apart * error, axis=1)
                pairs[f"{kind}, λ = {strength}, {name}"] = (slope, -fisher - pushed)
                if strength:
                    most = bound(strength, power) * g2[:, 0] * amount * np.sum(mass * error**2, axis=1)
                    pairs[f"bound, {kind}, λ = {strength}, {name}"] = (excess(slope, most), 0.0)
    pairs["the bound is attained"] = _attained(power)
    pairs["least at λ = 1"] = (excess(bound(1.0), bound(np.linspace(0.2, 3.0, 15))), 0.0)
    lengths = np.array([0.5, 2.0, 4.5, 8.0])
    for strength in STRENGTHS[1:]:
        cost = 0.5 * ending(strength, 1.0, lengths) ** 2
        pairs[f"runs, λ = {strength}"] = (excess(cost, bound(strength, power) * lengths), 0.0)
    broken = 0.5 * ending(0.0, 1.0, lengths) ** 2 > bound(1.0) * lengths
    pairs["the ODE breaks the SDE's bound iff L > 4"] = (broken.astype(float), (lengths > 4).astype(float))
    return rounding(pairs)


def _attained(power: float) -> tuple[Any, Any]:
    """−(λ²/2) u² − ½(1 + λ²) u ε at its greatest, u = −(1 + λ²) ε/(2λ²), is the bound: it cannot be sharper."""
    strengths = np.array(STRENGTHS[1:])
    u = -(1 + strengths**2) / (2 * strengths**2)
    return -0.5 * strengths**2 * u**2 - 0.5 * (1 + strengths**2) * u, bound(strengths, power)


# --- whole runs --------------------------------------------------------------------------------------------------------


def ending(strength: float, size: float, length: Any) -> Any:
    """y, the mean's error over √V_0, after a run of length L = log V_T/V_0 with the error ε_t = size/√V_t of the score.

    >>> ending(0.0, 1.0, 4.0)
    2.0
    """
    if strength == 0:
        return 0.5 * size * length
    return size * (1 + 1 / strength**2) * -np.expm1(-0.5 * strength**2 * length)


class Erring(eqx.Module):
    """A noised law whose score is wrong by size/√(1 + σ_t²/α_t²)/α_t at times from ``first`` to ``last``.

    >>> law = NoisedMixture(GaussianMixture([0.0], [[0.0]], [[[1.0]]]), Walk())
    >>> numbers = (jnp.asarray(v) for v in (1.0, 0.0, 9.0))
    >>> round(float(Erring(law, *numbers).denoise(jnp.zeros(1), jnp.asarray(3.0))[0]), 4)
    1.5
    """

    law: NoisedMixture
    size: Any
    first: Any
    last: Any

    @property
    def schedule(self) -> Schedule:
        """The law's."""
        return self.law.schedule

    def denoise(self, x: Any, t: Any) -> Any:
        """E[x_0|x_t = x] + σ² ε_t/α."""
        alpha, square = self.schedule.alpha(t), self.schedule.sigma(t) ** 2
        error = jnp.where((t >= self.first) & (t <= self.last), self.size, 0.0) / jnp.sqrt(alpha**2 + square)
        return self.law.denoise(x, t) + square / alpha * error


@compile_small
def _runs(law: NoisedMixture, strengths: Any, error: Any, times: Any) -> Any:
    """Mean and variance at the last of the times of N(0, 1) carried back: ReverseSDE of each strength, then Heun's ODE.

    Every step is affine in x and its noise, so three evaluations tell it.
    """
    model = Erring(law, *error)
    zero, unit = jnp.zeros(1), jnp.ones(1)

    def carry(kernel: Any) -> Any:
        def one(state: Any, step: Any) -> Any:
            at = lambda x, e: kernel.move(kernel.init(jax.random.key(0), x), e, step)[0].position[0]  # noqa: E731
            shift = at(zero, zero)
            slope, spread = at(unit, zero) - shift, at(zero, unit) - shift
            return (slope * state[0] + shift, slope**2 * state[1] + spread**2), None

        start = jnp.zeros(()), 1 + law.schedule.sigma(times[0]) ** 2
        return jnp.stack(jax.lax.scan(one, start, (times[:-1], times[1:]))[0])

    return jax.vmap(lambda strength: carry(ReverseSDE(model, strength)))(strengths), carry(HeunODE(model))


STEPS = (64, 128, 256, 512)


@kept
def gaussian_runs(size: float, first: float, last: float, low: float, high: float, steps: int) -> np.ndarray:
    """Mean error y and variance over V_0 at the end of a run of the walk on N(0, 1), (kernels, 2), from V = high to low.

    The kernels are ReverseSDE of each of ``STRENGTHS`` and HeunODE; the steps are equal in log V; the score is wrong by
    size/√V while ``first`` ≤ V ≤ ``last``.
    """
    law = NoisedMixture(GaussianMixture.from_covariances([1.0], [[0.0]], [[[1.0]]]), Walk())
    times = np.exp(np.linspace(np.log(high), np.log(low), steps + 1)) - 1  # V_t = 1 + t
    error = jnp.asarray([size, first - 1, last - 1])
    sde, heun = map(np.asarray, _runs(law, jnp.asarray(STRENGTHS), error, jnp.asarray(times)))
    found = np.concatenate([sde, heun[None]])
    return np.stack([found[:, 0] / np.sqrt(low), found[:, 1] / low], axis=1)


def gaussian_kl(run: np.ndarray) -> np.ndarray:
    """KL(N(0, 1) ‖ N(y, v)) for each row (y, v).

    >>> gaussian_kl(np.array([[1.0, 1.0]])).tolist()
    [0.5]
    """
    return 0.5 * (np.log(run[:, 1]) + (1 + run[:, 0] ** 2) / run[:, 1] - 1)


def _robust_run(seed: int, *, size: float = 1.0, stated: float = 1.0) -> Check:
    """The library's steps end where the formula says, up to the step: the mean for each λ, and the ODE's KL."""
    low, high = 1.05, 60.0
    length, wrong = np.log(high / low), 0.3 + 0.4 * np.random.default_rng([seed, 96]).random()
    runs = np.stack([gaussian_runs(size * wrong, 0.0, 1e9, low, high, steps) for steps in STEPS])
    ends = [ending(strength, stated * wrong, length) for strength in STRENGTHS]
    curves = {
        f"y, λ = {strength}": (1 / np.array(STEPS), np.abs(runs[:, i, 0] - ends[i]), 1.0)
        for i, strength in enumerate(STRENGTHS)
    }
    curves["y, Heun"] = (1 / np.array(STEPS), np.abs(runs[:, -1, 0] - ends[0]), 2.0)
    return order(curves)


def _robust_ode(seed: int, *, early: bool = False, few: int = 10) -> Check:
    """With an error of the score only near t = 0 the ODE ends nearer than the SDE, and with a true score and few steps, too.

    Early errors are forgotten by the SDE, and kept by the ODE. KL(p_0‖q_0) exactly, by affine steps.
    """
    low, high = 1.05, 60.0
    size = 0.5 + np.random.default_rng([seed, 97]).random()
    edge = low * (high / low) ** 0.15
    first, last = (high**0.85, high) if early else (low, edge)
    late = gaussian_kl(gaussian_runs(size, first, last, low, high, 512))
    soon = gaussian_kl(gaussian_runs(size, high / edge * low, high, low, high, 512))
    short = gaussian_kl(gaussian_runs(0.0, 0.0, 1.0, low, high, few))
    return rounding(
        {
            "late errors: the ODE is better": (excess(late[4], 0.5 * late[2]), 0.0),
            "early errors: the SDE is better": (excess(soon[2], 0.5 * soon[4]), 0.0),
            f"{few} steps of Heun's ODE": (excess(short[4], 0.5 * short[2]), 0.0),
        }
    )


IDENTITIES = (
    Identity(
        "diffusion.robust",
        9,
        "score wrong by ε: dKL going back ≤ ((λ + 1/λ)²/8) g² E|ε|², least at λ = 1; ε = 0: −(λ²/2) g² E|∇ log p/q|²",
        "rounding",
        _robust,
        {
            "½ missing": {"half": 1.0},
            "the score's share of the SDE alone": {"climb": 0.0},
            "λ + 1/λ for its square": {"power": 1.0},
        },
        "Song, Durkan, Murray and Ermon 2021; Albergo, Boffi and Vanden-Eijnden 2023",
    ),
    Identity(
        "diffusion.robust.run",
        9,
        "N(0, V_t), ε_t = c/√V_t: the mean's error ends at ½cL√V_0 (λ = 0), c(1 + 1/λ²)(1 − e^{−λ²L/2})√V_0 (λ > 0)",
        "order",
        _robust_run,
        {"error doubled": {"size": 2.0}, "√2 too much": {"stated": np.sqrt(2.0)}},
        "Albergo, Boffi and Vanden-Eijnden 2023",
    ),
)

PHENOMENA = (
    Identity(
        "diffusion.robust.ode",
        9,
        "the ODE ends nearer than the SDE if the score errs only near t = 0, and with few steps; else the SDE does",
        "rounding",
        _robust_ode,
        {"an early error": {"early": True}},
        "Karras et al. 2022; Albergo, Boffi and Vanden-Eijnden 2023",
    ),
)
