"""A wrong score and a wrong start: what the reverse ODE keeps, and what the reverse SDE forgets.

Definition. The walk x_t = x_0 + √t e on p_0 = N(0, 1), so p_t = N(0, V), V = 1 + t. Backwards with strength λ and the score
−x/V + c/√V every step is affine in x: the law stays Gaussian, and KL(p_0‖q_0) is exact. (i) True score, wrong start: λ = 0
keeps KL(p_t‖q_t), λ = 1 lowers it. (ii) KL(p_0‖q_0) ≤ ((λ + 1/λ)²/8) c² L with L = log V_T/V_0, least at λ = 1. (iii) An
error near t = 0 costs the SDE more than the ODE, one near T less; a small number of steps costs it more, too.
Serves ``diffusion.robust`` and the phenomenon ``diffusion.robust.ode``.
"""

from __future__ import annotations

from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np

from mulligan.lab.experiment import Range, experiment
from mulligan.lab.identities.robust import Erring, bound, ending, gaussian_kl
from mulligan.lab.identity import excess, rounding
from mulligan.lab.recording import Bars, Curve, Panel, Recording, Scale
from mulligan.loop import compile_small
from mulligan.quantity import Quantity
from mulligan.samplers.reverse import HeunODE, ReverseSDE
from mulligan.targets.mixture import GaussianMixture
from mulligan.targets.noised import NoisedMixture
from mulligan.targets.noising import Walk

LOW, HIGH = 1.05, 1000.0  # V at the end and at the start
LENGTH = float(np.log(HIGH / LOW))
FINE, COARSE = 512, 10  # steps
STRENGTHS = np.array([0.25, 0.35, 0.5, 0.7, 1.0, 1.4, 2.0, 3.0])
START = 0.5  # the wrong start: its mean over √V_T
PLACES = ("all times", "only t near T", "only t near 0", f"none, {COARSE} steps")


@compile_small
def _track(law: NoisedMixture, error: Any, times: Any, strength: Any, start: Any) -> Any:
    """Mean and variance after every step, (steps + 1, 2), for ReverseSDE of this strength and for Heun's ODE."""
    model = Erring(law, *error)
    zero, unit = jnp.zeros(1), jnp.ones(1)

    def carried(kernel: Any) -> Any:
        def one(state: Any, step: Any) -> Any:
            at = lambda x, e: kernel.move(kernel.init(jax.random.key(0), x), e, step)[0].position[0]  # noqa: E731
            shift = at(zero, zero)
            slope, spread = at(unit, zero) - shift, at(zero, unit) - shift
            state = jnp.stack([slope * state[0] + shift, slope**2 * state[1] + spread**2])
            return state, state

        first = jnp.stack([start, 1 + times[0]])
        return jnp.concatenate([first[None], jax.lax.scan(one, first, (times[:-1], times[1:]))[1]])

    return carried(ReverseSDE(model, strength)), carried(HeunODE(model))


def tracked(
    size: float, place: str, strength: float = 1.0, start: float = 0.0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """V at each time, and KL(p_t‖q_t) along the SDE of that strength and along the ODE.

    ``size`` c of the score's error at the ``place`` (one of ``PLACES``), ``start`` the mean over √V_T of the start's law.

    >>> v, sde, ode = tracked(0.0, "all times", start=1.0)
    >>> round(float(ode[0]), 4), bool(sde[-1] < 0.01)
    (0.5, True)
    """
    law = NoisedMixture(GaussianMixture.from_covariances([1.0], [[0.0]], [[[1.0]]]), Walk())
    steps = COARSE if place == PLACES[3] else FINE
    v = np.exp(np.linspace(np.log(HIGH), np.log(LOW), steps + 1))
    edges = {
        PLACES[0]: (0.0, np.inf),
        PLACES[1]: (LOW * (HIGH / LOW) ** 0.85, np.inf),
        PLACES[2]: (0.0, LOW * (HIGH / LOW) ** 0.15),
        PLACES[3]: (0.0, 0.0),
    }
    first, last = edges[place]
    error = jnp.asarray([size, first - 1, min(last, 1e9) - 1])
    strength_, start_ = jnp.asarray(strength), jnp.asarray(start * np.sqrt(HIGH))
    runs = _track(law, error, jnp.asarray(v - 1), strength_, start_)
    sde, ode = (gaussian_kl(np.stack([r[:, 0] / np.sqrt(v), r[:, 1] / v], axis=1)) for r in map(np.asarray, runs))
    return v, sde, ode


@experiment(9, "A wrong score: what the SDE forgets and the ODE keeps")
def wrong_score(
    *, most: Annotated[float, Range(0.1, 2.0)] = 1.0, sizes: Annotated[int, Range(3, 40)] = 13, seed: int = 0
) -> Recording:
    """KL(p_0‖q_0) as the error c of the score grows from 0 to ``most`` in ``sizes`` frames. Nothing here is random.

    Raises UsageError for a value out of its range. Song, Durkan, Murray and Ermon (2021); Karras et al. (2022).

    >>> from mulligan.lab.experiments.wrong_score import wrong_score
    >>> wrong_score(sizes=3).holds
    True
    """
    c = np.linspace(0.0, most, sizes)
    v, start_sde, start_ode = tracked(0.0, PLACES[0], start=START)
    # Every step is affine, so the mean's error is proportional to c: one run of size 1 tells those of all sizes.
    mean = {(place, s): _parts(place, s) for place in PLACES for s in (1.0,)}
    by_strength = {s: _parts(PLACES[0], s) for s in STRENGTHS}
    kl = lambda parts, i: 0.5 * (np.log(parts[i][1]) + (1 + (c * parts[i][0]) ** 2) / parts[i][1] - 1)  # noqa: E731
    ode = np.stack([kl(mean[place, 1.0], 1) for place in PLACES], axis=1)
    sde = np.stack([kl(mean[place, 1.0], 0) for place in PLACES], axis=1)
    runs = np.stack([kl(by_strength[s], 0) for s in STRENGTHS], axis=1)
    limit = np.outer(c**2, bound(STRENGTHS) * LENGTH)
    top = float(2.0 * most**2 * LENGTH)
    return Recording(
        panels=(_start(v, start_sde, start_ode), _strengths(runs, limit, ode[:, 0], top), _places(sde, ode)),
        captions=tuple(_caption(size, o, s) for size, o, s in zip(c, ode[:, 0], sde[:, 0])),
        see="An SDE forgets errors of the start and of large t; the ODE keeps those, and bears errors near 0 and few steps.",
        numbers={
            "KL(p₀‖q₀), ODE": tuple(Quantity(float(k), "numeric", unit="nats") for k in ode[:, 0]),
            "KL(p₀‖q₀), SDE (λ = 1)": tuple(Quantity(float(k), "numeric", unit="nats") for k in sde[:, 0]),
            "bound at λ = 1": tuple(Quantity(float(0.5 * x**2 * LENGTH), "exact", unit="nats") for x in c),
        },
        checks={
            "wrong start: the ODE keeps KL": rounding({"relative": (np.ptp(start_ode) / start_ode[0], 0.0)}, 2e-3),
            "wrong start: the SDE lowers it at every step": rounding({"rise": (excess(np.diff(start_sde), 0.0), 0.0)}),
            "no λ > 0 passes its bound": rounding({"KL": (excess(runs, limit + 0.01), 0.0)}),
            "the ODE passes the bound of λ = 1": rounding(
                {"c at its most": (excess(limit[-1].min(), ode[-1, 0]), 0.0)}
            ),
            "errors near T: the SDE is better; near 0 and in few steps the ODE": rounding(
                {"KL": (excess([sde[-1, 1], ode[-1, 2], ode[-1, 3]], [ode[-1, 1], sde[-1, 2], sde[-1, 3]]), 0.0)}
            ),
            "the mean ends where the formula says": rounding(
                {"λ = 1": (abs(mean[PLACES[0], 1.0][0][0]), ending(1.0, 1.0, LENGTH))}, 0.02
            ),
        },
        rate=4.0,
    )


def _parts(place: str, strength: float) -> tuple[tuple[float, float], tuple[float, float]]:
    """For SDE and ODE: the mean's error over √V_0 at c = 1, and the variance over V_0, at the end."""
    _, sde, ode = tracked(0.0, place, strength)
    _, sde_wrong, ode_wrong = tracked(1.0, place, strength)
    found = []
    for kl, wrong in ((sde[-1], sde_wrong[-1]), (ode[-1], ode_wrong[-1])):
        ratio = _variance_of(kl)
        found.append((float(np.sqrt(max(2 * ratio * (wrong - kl), 0.0))), ratio))
    return found[0], found[1]


def _variance_of(kl: float) -> float:
    """v ≥ 1 with ½(log v + 1/v − 1) = kl: steps that are not small end too wide."""
    from scipy.optimize import brentq

    if kl < 1e-14:
        return 1.0
    return float(brentq(lambda v: 0.5 * (np.log(v) + 1 / v - 1) - kl, 1.0, 1e6))


def _start(v: np.ndarray, sde: np.ndarray, ode: np.ndarray) -> Panel:
    every = slice(None, None, 8)
    layers = (
        Curve("ODE", v[every], ode[every][None], role="second"),
        Curve("SDE", v[every], sde[every][None], role="third"),
    )
    x = Scale("variance V of p_t (the walk back goes left)", log=True)
    return Panel("(i) true score, wrong start", x, Scale("KL(p_t‖q_t), nats", 0.0, 1.3 * float(ode[0])), layers)


def _strengths(runs: np.ndarray, limit: np.ndarray, ode: np.ndarray, top: float) -> Panel:
    layers = (
        Curve("bound", STRENGTHS, np.minimum(limit, top), role="ink", dashed=True),
        Curve("SDE of strength λ", STRENGTHS, runs, role="third", dots=True),
        Curve("ODE (λ = 0)", STRENGTHS[[0, -1]], np.repeat(ode[:, None], 2, axis=1), role="second"),
    )
    return Panel(
        "(ii) score wrong by c/√V at all times", Scale("λ", 0.0, 3.1), Scale("KL(p₀‖q₀), nats", 0.0, top), layers
    )


def _places(sde: np.ndarray, ode: np.ndarray) -> Panel:
    at = np.arange(len(PLACES), dtype=float)
    layers = (
        Bars("ODE", at - 0.2, ode, role="second", width=0.36),
        Bars("SDE (λ = 1)", at + 0.2, sde, role="third", width=0.36),
    )
    return Panel(
        "(iii) where the error is",
        Scale("", names=("all t", "near T", "near 0", "10 steps")),
        Scale("KL(p₀‖q₀), nats"),
        layers,
    )


def _caption(size: float, ode: float, sde: float) -> str:
    if size == 0:
        return "True score: both end at p₀, but for the step. In ten steps the ODE (Heun) is already nearer."
    return f"Score wrong by c/√V with c = {size:.2f}: KL at the end {ode:.2f} nats by the ODE, {sde:.2f} by the SDE."
