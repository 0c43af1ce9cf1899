"""Noise-contrastive estimation on a line: a classifier of data and noise becomes a density, with its constant.

Definition. p = exp(θ·T(x)) q/Z with T = (x, x², cos 2x) and q = N(0, 4); the noise r = N(place, width²). The log odds that a
point is data are u = β·(T, 1) + log q − log r − log ν, and logistic regression finds β = (θ, c) with c = −log Z. With
ĉ left free, u + log r + log ν is a log density, the constant included, within the error of I = E_data[P g gᵀ].
Serves ``nce.posterior``, ``nce.log_z`` and ``nce.efficiency``.
"""

from __future__ import annotations

from typing import Annotated, Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from mulligan.errors import FitError
from mulligan.lab.experiment import Range, experiment
from mulligan.lab.identities.noise_contrastive import information, newton
from mulligan.lab.identity import excess, monte_carlo, rounding
from mulligan.lab.recording import Bars, Curve, Panel, Recording, Scale
from mulligan.loop import compile_small
from mulligan.objectives.noise_contrastive import NoiseContrast, noise_contrastive_loss
from mulligan.quantity import Quantity

THETA = np.array([0.4, -0.25, -1.2])  # two hills, unequal
SHARES = np.append(np.geomspace(0.08, 1.0, 19), np.ones(5))  # of Newton's step: first steps that the eye can follow
NUS = (1, 2, 4, 8)  # at which the variance is measured, beside its formula
FITS, ROWS = 1000, 500
CELLS = np.linspace(-6.0, 6.0, 25)


def log_normal(x: np.ndarray, mean: float, sd: float) -> np.ndarray:
    """log N(x; mean, sd²).

    >>> round(float(log_normal(0.0, 0.0, 1.0)), 4)
    -0.9189
    """
    return -0.5 * ((x - mean) / sd) ** 2 - np.log(sd) - 0.5 * np.log(2 * np.pi)


def statistics(x: Any) -> Any:
    """(x, x², cos 2x, 1): the statistics T, and the 1 that carries c = −log Z.

    >>> statistics(np.zeros(2)).shape
    (2, 4)
    """
    return np.stack([x, x**2, np.cos(2 * x), np.ones_like(x)], axis=-1)


class Truth(NamedTuple):
    """A grid with its weights, log p and log q on it, and −log Z."""

    x: np.ndarray
    w: np.ndarray
    log_p: np.ndarray
    log_q: np.ndarray
    c: float


def the_truth() -> Truth:
    """The law of the data, by quadrature.

    >>> truth = the_truth()
    >>> round(float(truth.w @ np.exp(truth.log_p)), 12)
    1.0
    """
    x = np.linspace(-12.0, 12.0, 6001)
    w = np.full(x.size, x[1] - x[0])
    log_q = log_normal(x, 0.0, 2.0)
    tilted = statistics(x)[:, :3] @ THETA + log_q
    c = -float(np.log(w @ np.exp(tilted)))
    return Truth(x, w, tilted + c, log_q, c)


class _Model(eqx.Module):
    """f(x) = β·(T(x), 1), what the library's loss asks of a model."""

    beta: Any

    def f(self, x: Any) -> Any:
        at = x[0]
        return self.beta @ jnp.stack([at, at**2, jnp.cos(2 * at), jnp.ones_like(at)])


@compile_small
def _learned(t: Any, offset: Any, data: Any, noise: Any, shares: Any, batch: NoiseContrast) -> tuple[Any, Any, Any]:
    """β after each step (steps + 1, 4), the library's loss there, and its slope at the last."""

    def step(beta: Any, share: Any) -> tuple[Any, Any]:
        after = newton(beta, t, offset, data, noise, 1, [share, 0.5 * share, 0.1 * share])
        return after, after

    start = jnp.zeros(t.shape[1])
    walked = jax.lax.scan(step, start, shares)[1]
    betas = jnp.concatenate([start[None], walked])
    loss = lambda beta: noise_contrastive_loss(_Model(beta), jax.random.key(0), batch)[0]  # noqa: E731
    return betas, jax.lax.map(loss, betas), jax.grad(loss)(betas[-1])


def error_of(truth: Truth, place: float, width: float, nu: float, n: int) -> np.ndarray:
    """The covariance (4, 4) of (θ̂, ĉ) from n rows: [I⁻¹ − (1 + 1/ν) e_c e_cᵀ]/n.

    >>> error_of(the_truth(), 0.0, 2.0, 1.0, 100).shape
    (4, 4)
    """
    r = np.exp(log_normal(truth.x, place, width))
    inverse = np.linalg.inv(information(statistics(truth.x), np.exp(truth.log_p), r, truth.w, nu))
    inverse[3, 3] -= 1 + 1 / nu
    return inverse / n


def precision_variance(nu: float) -> float:
    """n Var of the fitted precision of N(0, 1) against N(0, 4): 2.995 at ν = 1, towards 2 (``nce.efficiency``).

    >>> round(precision_variance(1.0), 3)
    2.995
    """
    x = np.linspace(-12.0, 12.0, 2001)
    g, w = np.stack([-0.5 * x**2, np.ones_like(x)], axis=-1), np.full(x.size, x[1] - x[0])
    p, r = np.exp(log_normal(x, 0.0, 1.0)), np.exp(log_normal(x, 0.0, 2.0))
    return float(np.linalg.inv(information(g, p, r, w, nu))[0, 0])


def measured_variance(nu: int, rng: np.random.Generator) -> tuple[float, float]:
    """n Var of ``FITS`` fitted precisions, each from ``ROWS`` rows and ν times as much noise, and its standard error.

    >>> measured_variance(1, np.random.default_rng(0))[0] > 2
    True
    """
    x = np.concatenate([rng.normal(size=(FITS, ROWS)), 2 * rng.normal(size=(FITS, nu * ROWS))], axis=1)
    square, label = -0.5 * x**2, np.arange((1 + nu) * ROWS) < ROWS
    minus = -log_normal(x, 0.0, 2.0) - np.log(nu)
    a, c = np.ones(FITS), np.full(FITS, -0.5 * np.log(2 * np.pi))
    for _ in range(3):  # Newton from the truth
        d = 1 / (1 + np.exp(-(a[:, None] * square + c[:, None] + minus)))
        missed, spread = label - d, d * (1 - d)
        one, two = (missed * square).sum(1), missed.sum(1)
        aa, ac, cc = (spread * square**2).sum(1), (spread * square).sum(1), spread.sum(1)
        a, c = a + (cc * one - ac * two) / (aa * cc - ac**2), c + (aa * two - ac * one) / (aa * cc - ac**2)
    found = ROWS * a.var(ddof=1)
    return float(found), float(found * np.sqrt(2 / (FITS - 1)))


@experiment(6, "Noise-contrastive estimation: a guesser becomes a density")
def noise_contrastive(
    *,
    n: Annotated[int, Range(200, 20_000)] = 3000,
    nu: Annotated[int, Range(1, 20)] = 1,
    place: Annotated[float, Range(-6.0, 6.0)] = 0.0,
    width: Annotated[float, Range(1.0, 6.0)] = 2.5,
    seed: int = 0,
) -> Recording:
    """A logistic classifier of n data and νn draws of N(place, width²), by Newton's method; u + log r + log ν against log p.

    u = θ·(x, x², cos 2x) + c + log q − log r − log ν. Parameters: ``n``, ``nu`` = ν, ``place`` and ``width`` of the noise.
    Raises UsageError for a value out of its range, FitError where data and noise are told apart without a mistake.
    Gutmann and Hyvärinen, "Noise-contrastive estimation of unnormalized statistical models", 2012.

    >>> from mulligan.lab.experiments.noise import noise_contrastive
    >>> noise_contrastive(n=500, seed=1).length
    25
    """
    truth, rng = the_truth(), np.random.default_rng(seed)
    cumulated = np.cumsum(truth.w * np.exp(truth.log_p))
    rows = np.interp(rng.uniform(size=n), cumulated, truth.x + 0.5 * truth.w)
    drawn = place + width * rng.normal(size=n * nu)
    x, label = np.concatenate([rows, drawn]), np.arange(n * (1 + nu)) < n
    base = log_normal(x, 0.0, 2.0) - log_normal(x, place, width)
    parts = (statistics(x), base - np.log(nu), 1.0 * label, 1.0 * ~label)
    batch = NoiseContrast(*map(jnp.asarray, (rows[:, None], drawn[:, None], base[:n], base[n:])))
    t, offset, data, other = (jnp.asarray(part) for part in parts)
    betas, losses, slope = map(np.asarray, _learned(t, offset, data, other, jnp.asarray(SHARES), batch))
    if not np.isfinite(betas).all() or np.abs(slope).max() > 1e-6:
        raise FitError(
            "the classifier does not settle",
            f"noise N({place:g}, {width:g}²)",
            "Data and noise are told apart with hardly a mistake, so the loss is flat",
            "noise that overlaps the data",
        )
    covariance = error_of(truth, place, width, nu, n)
    return Recording(
        panels=(
            _guesser(truth, betas, rows, drawn, (nu, place, width)),
            _density(truth, betas, covariance, (place, width)),
            _far(truth, (nu, place, width), n),
            _variance(measured := {each: measured_variance(each, rng) for each in NUS}),
        ),
        captions=_captions(losses, betas[:, 3]),
        see="Learning to tell data from noise learns the density of the data, with its constant and with an error bar.",
        numbers={
            "ĉ, for −log Z": _constants(betas[:, 3], np.sqrt(covariance[3, 3]), n),
            "−log Z": (Quantity(truth.c, "numeric", truth.c - 1e-9, truth.c + 1e-9),),
            "loss (nats a datum)": tuple(Quantity(float(each), "exact", float(each), float(each)) for each in losses),
        },
        checks=_checks(truth, betas[-1], covariance, parts, slope, measured, (nu, width, n)),
        rate=4.0,
    )


def _checks(
    truth: Truth, beta: Any, covariance: Any, parts: Any, slope: Any, measured: dict, noise: tuple[int, float, int]
) -> dict:
    nu, width, n = noise
    t, shift, data, other = parts
    d = 1 / (1 + np.exp(-(t @ beta + shift)))
    error = np.sqrt(np.diag(covariance))
    density = np.exp(statistics(truth.x) @ beta + truth.log_q)
    centre = (truth.w * np.exp(truth.log_p)) @ statistics(truth.x)
    variances = [precision_variance(each) for each in (*NUS, 1e6)]
    near, far = (np.sqrt(error_of(truth, at, width, nu, n)[3, 3]) for at in (0.0, 5.0 * width))
    return {
        "ĉ is −log Z, and θ̂ is θ, within the error of the formula": monte_carlo(
            {"ĉ": (beta[3], truth.c, error[3]), "θ̂": (beta[:3], THETA, error[:3])}
        ),
        "the guesser is a density: it integrates to 1 within its error": monte_carlo(
            {"log ∫": (np.log(truth.w @ density), 0.0, np.sqrt(centre @ covariance @ centre))}
        ),
        "at the best guesser E_data[1 − D] = ν E_r[D], and the library's loss has no slope": rounding(
            {"balance": (data @ (1 - d) / n, other @ d / n), "slope": (slope, 0.0)}
        ),
        "noise 5 of its widths away makes the error of ĉ more than 3 times as large": rounding(
            {"3 × near ≤ far": (excess(3 * near, far), 0.0)}
        ),
        "n Var θ̂ is 2.995 at ν = 1, falls as ν grows, and tends to the 2 of maximum likelihood": rounding(
            {
                "at ν = 1": (round(variances[0], 3), 2.995),
                "falls": (excess(variances[1:], variances[:-1]), 0.0),
                "limit": (round(variances[-1], 4), 2.0),
            }
        ),
        "the variance of 1000 fits is that of the formula": monte_carlo(
            # with 500 rows the variance is about 2 % above the limit that the formula states
            {f"ν = {at}": (v, precision_variance(at), np.hypot(e, 0.01 * v)) for at, (v, e) in measured.items()}
        ),
    }


def _guesser(
    truth: Truth, betas: np.ndarray, rows: np.ndarray, drawn: np.ndarray, noise: tuple[int, float, float]
) -> Panel:
    """The two samples, D(x) while it learns, and the share of data among the points of each cell."""
    nu, place, width = noise
    x = np.linspace(CELLS[0], CELLS[-1], 121)
    odds = betas @ statistics(x).T + log_normal(x, 0, 2) - log_normal(x, place, width) - np.log(nu)
    counts = [np.histogram(each, CELLS)[0] for each in (rows, drawn)]
    size = CELLS[1] - CELLS[0]
    at = 0.5 * (CELLS[1:] + CELLS[:-1])  # the two samples stand side by side in each cell
    height = [(count / (len(sample) * size))[None] for count, sample in zip(counts, (rows, drawn))]
    posterior = 1 / (1 + nu * np.exp(log_normal(x, place, width) - np.interp(x, truth.x, truth.log_p)))
    layers = (
        Bars("data", at - 0.225 * size, height[0], role="data", width=0.45 * size),
        Bars("noise", at + 0.225 * size, height[1], role="second", width=0.45 * size),
        Curve("Bayes' posterior", x, posterior[None], role="ink", dashed=True),
        Curve("D(x), the guesser", x, 1 / (1 + np.exp(-odds)), role="mark"),
    )
    return Panel(
        "data, noise, and the guess D that x is data",
        Scale("x", CELLS[0], CELLS[-1]),
        Scale("density, or probability D", 0.0, 1.3),
        layers,
    )


def _density(truth: Truth, betas: np.ndarray, covariance: np.ndarray, noise: tuple[float, float]) -> Panel:
    x = np.linspace(CELLS[0], CELLS[-1], 121)
    log_p, t = np.interp(x, truth.x, truth.log_p), statistics(x)
    reach = 1.96 * np.sqrt(np.einsum("ij,jk,ik->i", t, covariance, t))[None]
    return Panel(
        "the guesser as a log density",
        Scale("x", CELLS[0], CELLS[-1]),
        Scale("log density (nats)", -9.0, 2.0),
        (
            Curve("log p, 95 % of fits in the band", x, log_p[None], "ink", log_p - reach, log_p + reach, dashed=True),
            Curve("log noise", x, log_normal(x, *noise)[None], role="second"),
            Curve("log odds + log νr", x, betas @ t.T + log_normal(x, 0, 2), role="mark"),
        ),
    )


def _far(truth: Truth, noise: tuple[int, float, float], n: int) -> Panel:
    """What noise far from the data costs, by the formula."""
    nu, place, width = noise
    at = np.linspace(-5.0 * width, 5.0 * width, 81)
    error = np.array([np.sqrt(error_of(truth, each, width, nu, n)[3, 3]) for each in at])
    here = np.sqrt(error_of(truth, place, width, nu, n)[3, 3])
    return Panel(
        "far noise teaches nothing",
        Scale(f"place of the noise, width {width:g}"),
        Scale("standard error of ĉ (nats)", high=20 * float(error.max()), log=True),
        (
            Curve("by the formula", at, error[None], role="model"),
            Curve("this noise", np.array([place, place]), np.array([[here, here]]), role="mark", dots=True),
        ),
    )


def _variance(measured: dict[int, tuple[float, float]]) -> Panel:
    nus = np.geomspace(1.0, 100.0, 31)
    value, error = (np.array([each[k] for each in measured.values()])[None] for k in (0, 1))
    band = value - 1.96 * error, value + 1.96 * error
    fits = Curve("variance of 1000 fits, 95 %", np.array(NUS, float), value, "mark", *band, dots=True)
    return Panel(
        "more noise, smaller error (precision of N(0, 1))",
        Scale("ν, draws of noise for each datum", log=True),
        Scale("n × variance of the fit", 1.5, 4.0),
        (
            Curve("by the formula", nus, np.array([[precision_variance(nu) for nu in nus]])),
            Curve("maximum likelihood", nus, np.full((1, nus.size), 2.0), role="ink", dashed=True),
            fits,
        ),
    )


def _constants(c: np.ndarray, error: float, n: int) -> tuple[Quantity, ...]:
    """ĉ on its way has no standard error; the fitted one has."""
    way = [Quantity(float(each), "exact", float(each), float(each), note="not yet fitted") for each in c[:-1]]
    last = float(c[-1])
    return (*way, Quantity(last, "estimate", last - 1.96 * error, last + 1.96 * error, stderr=float(error), n=n))


def _captions(losses: np.ndarray, c: np.ndarray) -> tuple[str, ...]:
    told = [f"loss {loss:.3f} nats a datum, ĉ = {at:+.3f}" for loss, at in zip(losses, c)]
    ends = {
        0: "before learning f = 0: the guesser only knows q from the noise",
        len(c) - 1: "fitted: it is the density",
    }
    return tuple(f"step {k}, {text}. {ends.get(k, 'The guess bends towards Bayes')}" for k, text in enumerate(told))
