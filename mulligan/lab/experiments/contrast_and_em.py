"""Contrastive divergence from below, EM from above: two surrogates of KL(p_data‖p_θ) that touch it at θ_t.

Definition. One model with a hidden z is an energy-based model of x as well: p_θ(x, z) = exp(f_θ(x, z))/Z(θ) with
f_θ(x, z) = −(x − (2z − 1) θ)²/2 for z in {0, 1}, on a fine grid of x, so every sum is exact. C(θ) = KL(p_data‖p_θ) −
KL(p_θt‖p_θ) needs no Z and lies below; Q(θ) = KL(p_data(x) p_θt(z|x) ‖ p_θ(x, z)) lies above; at θ_t all three are equal and
have one tangent. The next θ of EM is the minimum of Q, so KL falls; C may have no minimum at all.
Serves ``cd.gradient``, ``cd.below``, ``em.above``, ``cd.overshoot`` and the notes' pictures of both.
"""

from __future__ import annotations

from typing import Annotated

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import logsumexp, xlogy

from mulligan.lab.experiment import Range, experiment
from mulligan.lab.identity import excess, rounding
from mulligan.lab.recording import Curve, Panel, Points, Recording, Scale
from mulligan.quantity import Quantity

X = np.linspace(-9.0, 9.0, 361)
THETA = np.linspace(0.0, 4.0, 161)
SIGNS = np.array([-1.0, 1.0])


def data_law() -> np.ndarray:
    """p_data on the grid: two hills, unequal, of other widths than the model's.

    >>> round(float(data_law().sum()), 12)
    1.0
    """
    p = 0.55 * np.exp(-0.5 * ((X + 0.8) / 1.15) ** 2) / 1.15 + 0.45 * np.exp(-0.5 * ((X - 1.1) / 0.95) ** 2) / 0.95
    return p / p.sum()


def log_joint(theta: float | np.ndarray) -> np.ndarray:
    """log p_θ(x, z), (…, x, 2), normalised over the grid.

    >>> bool(abs(np.exp(log_joint(1.0)).sum() - 1) < 1e-12)
    True
    """
    theta = np.asarray(theta, np.float64)[..., None, None]
    f = -0.5 * (X[:, None] - SIGNS * theta) ** 2
    return f - logsumexp(f, axis=(-2, -1), keepdims=True)


def kl(theta: float | np.ndarray, p: np.ndarray) -> np.ndarray:
    """KL(p‖p_θ) for each θ.

    >>> float(kl(1.0, np.exp(log_joint(1.0)).sum(axis=1))) < 1e-12
    True
    """
    return xlogy(p, p).sum() - logsumexp(log_joint(theta), axis=-1) @ p


def contrast(theta: np.ndarray, current: float, data: np.ndarray) -> np.ndarray:
    """C(θ) = KL(p_data‖p_θ) − KL(p_θt‖p_θ).

    >>> bool(abs(contrast(np.array(1.0), 1.0, data_law()) - kl(1.0, data_law())) < 1e-12)
    True
    """
    return kl(theta, data) - kl(theta, np.exp(logsumexp(log_joint(current), axis=-1)))


def expected(theta: np.ndarray, current: float, data: np.ndarray) -> np.ndarray:
    """Q(θ) = KL(p_data(x) p_θt(z|x) ‖ p_θ(x, z)).

    >>> bool(expected(np.array(2.0), 1.0, data_law()) >= kl(2.0, data_law()))
    True
    """
    now = log_joint(current)
    r = data[:, None] * np.exp(now - logsumexp(now, axis=-1, keepdims=True))
    return xlogy(r, r).sum() - (log_joint(theta) * r).sum(axis=(-2, -1))


def em_step(current: float, data: np.ndarray) -> float:
    """The minimum of Q on [0, 4]."""
    found = minimize_scalar(
        lambda t: float(expected(t, current, data)), bounds=(0.0, 4.0), method="bounded", options={"xatol": 1e-9}
    )
    return float(found.x)


@experiment(4, "Contrastive divergence below, EM above, one tangent")
def contrast_and_em(
    *,
    start: Annotated[float, Range(0.05, 4.0)] = 0.25,
    stride: Annotated[float, Range(0.05, 20.0)] = 4.0,
    steps: Annotated[int, Range(2, 40)] = 11,
    seed: int = 0,
) -> Recording:
    """EM from θ = ``start``, and beside it steps down the slope of C that are ``stride`` long. Nothing here is random.

    Raises UsageError for a value out of its range. Dempster, Laird and Rubin (1977); Hinton (2002).

    >>> from mulligan.lab.experiments.contrast_and_em import contrast_and_em
    >>> contrast_and_em(steps=4).holds
    True
    """
    data = data_law()
    em, cd = [start], [start]
    for _ in range(steps):
        em.append(em_step(em[-1], data))
        cd.append(float(np.clip(cd[-1] - stride * slope(lambda t: contrast(t, cd[-1], data), cd[-1]), 0.0, 4.0)))
    below = np.stack([contrast(THETA, t, data) for t in em])
    above = np.stack([expected(THETA, t, data) for t in em])
    true = kl(THETA, data)
    at = np.array([float(kl(t, data)) for t in em])
    by_cd = np.array([float(kl(t, data)) for t in cd])
    slopes = np.array(
        [[slope(of, t) for of in _three(t, data)] for t in em]  # of KL, C and Q at θ_t
    )
    touch = np.array([[float(of(np.asarray(t))) for of in _three(t, data)] for t in em])
    return Recording(
        panels=(
            _curves(true, below, above, np.array(em), at, slopes[:, 0]),
            _falls(at, by_cd),
            _along(data, start, true),
        ),
        captions=tuple(_caption(k, t, v) for k, (t, v) in enumerate(zip(em, at))),
        see="C lies below KL and EM's surrogate above; all touch at θ_t. EM cannot rise; C can lead past the optimum.",
        numbers={
            "θ_t of EM": tuple(Quantity(t, "numeric") for t in em),
            "KL at θ_t, EM": tuple(Quantity(v, "numeric", unit="nats") for v in at.tolist()),
            "KL, long steps down C": tuple(Quantity(v, "numeric", unit="nats") for v in by_cd.tolist()),
        },
        checks={
            "C ≤ KL ≤ Q at every θ": rounding(
                {"below": (excess(below, true), 0.0), "above": (excess(true, above), 0.0)}
            ),
            "all three are equal at θ_t": rounding({"values": (touch, at[:, None])}),
            "and have one tangent there": rounding({"slopes": (slopes, slopes[:, :1])}, 1e-6),
            "EM never raises KL": rounding({"rise": (excess(np.diff(at), 0.0), 0.0)}),
            "long steps down C do": rounding({"largest rise above 0.01": (excess(0.01, np.diff(by_cd).max()), 0.0)}),
        },
        rate=2.0,
    )


def slope(of, at: float, width: float = 1e-5) -> float:
    """The derivative by a central difference of fourth order.

    >>> round(slope(lambda t: t**3, 1.0), 6)
    3.0
    """
    far, near = (float(of(np.asarray(at + k * width))) - float(of(np.asarray(at - k * width))) for k in (2, 1))
    return (8 * near - far) / (12 * width)


def _three(t: float, data: np.ndarray):
    return (lambda x: kl(x, data)), (lambda x: contrast(x, t, data)), (lambda x: expected(x, t, data))


def _curves(
    true: np.ndarray, below: np.ndarray, above: np.ndarray, em: np.ndarray, at: np.ndarray, slopes: np.ndarray
) -> Panel:
    low, high = -0.6, 2.2
    tangent = at[:, None] + slopes[:, None] * (THETA - em[:, None])
    layers = (
        Curve("EM's surrogate Q", THETA, np.clip(above, low - 1, high + 1), role="second"),
        Curve("KL(p_data‖p_θ)", THETA, true[None], role="ink"),
        Curve("C", THETA, np.clip(below, low - 1, high + 1), role="mark"),
        Curve("common tangent", THETA, np.clip(tangent, low - 1, high + 1), role="data", dashed=True),
        Points("θ_t", np.stack([em, at], axis=1)[:, None], role="ink", size=8.0, opacity=1.0),
    )
    return Panel("two surrogates at θ_t", Scale("θ", 0.0, 5.6), Scale("nats", low, high), layers)


def _falls(em: np.ndarray, cd: np.ndarray) -> Panel:
    steps = np.arange(len(em), dtype=float)
    now = np.stack([np.stack([steps, values], axis=1) for values in (em, cd)], axis=1)
    layers = (
        Curve("EM: minimum of Q", steps, em[None], role="second", dots=True),
        Curve("long steps down C", steps, cd[None], role="mark", dots=True),
        Points("now", now, role="ink", size=6.0),
    )
    return Panel(
        "KL at each step",
        Scale("step"),
        Scale("KL(p_data‖p_θ), nats", 0.0, 1.4 * float(max(em.max(), cd.max()))),
        layers,
    )


def _along(data: np.ndarray, start: float, true: np.ndarray) -> Panel:
    """Where C itself leads from a fixed θ_t: down without end, while KL turns."""
    fixed = contrast(THETA, start, data)
    layers = (
        Curve("KL(p_data‖p_θ)", THETA, true[None], role="ink"),
        Curve(f"C of θ_t = {start:g}", THETA, fixed[None], role="mark"),
    )
    return Panel(
        "C falls on past the optimum", Scale("θ", 0.0, 5.6), Scale("nats", float(fixed.min()) - 0.2, 1.5), layers
    )


def _caption(k: int, theta: float, value: float) -> str:
    if k == 0:
        return (
            f"θ_t = {theta:.2f}: C below, EM's surrogate above, one tangent. The upper curve's minimum is the next θ_t."
        )
    return (
        f"EM step {k}: θ_t = {theta:.3f}, KL = {value:.4f} nats. Long steps down C jump to and fro across the optimum."
    )
