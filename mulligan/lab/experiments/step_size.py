"""Langevin with a step that is not small: it keeps a law of its own, which is not π; Metropolis' decision mends it.

Definition. On N(0, s²) the step x + (Δt/2) ∇ log π + √Δt e is affine, so its own law is normal, with variance
s²/(1 − Δt/(4s²)); at Δt = 4s² it is infinite. On other laws the own law is the left eigenvector of the transition, here on a
grid. Serves ``langevin.stationary``, ``langevin.stationary.bias`` and ``mala.exact``.
"""

from __future__ import annotations

from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np

from mulligan.core import Kernel
from mulligan.lab.experiment import Range, experiment
from mulligan.lab.experiments.estimates import Z95, estimates
from mulligan.lab.identities.langevin import langevin, log_and_score, transition
from mulligan.lab.identity import Check, mean_and_error, monte_carlo
from mulligan.lab.recording import Bars, Curve, Panel, Points, Recording, Scale
from mulligan.loop import compile_small
from mulligan.samplers.langevin import Langevin, MetropolisLangevin
from mulligan.samplers.many import Many
from mulligan.targets.gaussian import Gaussian
from mulligan.targets.mixture import GaussianMixture

FRAMES = 14
LINE = np.linspace(-6.0, 6.0, 241)
EDGES = np.linspace(-5.0, 5.0, 31)


@compile_small
def _end(kernel: Kernel, start: Any, key: Any, steps: Any) -> tuple[Any, Any]:
    """Where independent chains (n, 1) end, and how often their last proposal would be accepted."""
    chains = Many(kernel)
    one = lambda i, carry: (lambda new: (new[0], new[1].acceptance))(  # noqa: E731
        chains.step(jax.random.fold_in(key, i), carry[0])
    )
    state, accepted = jax.lax.fori_loop(0, steps, one, (chains.init(key, start), jnp.zeros(start.shape[0])))
    return state.position[:, 0], accepted


def two_hills() -> GaussianMixture:
    """π of the fourth panel: a tall narrow hill and a broad one.

    >>> two_hills().components
    2
    """
    return GaussianMixture.from_covariances([0.5, 0.5], [[-1.5], [1.3]], [[[0.25]], [[0.8]]])


def own_law(law: GaussianMixture, dt: float) -> np.ndarray:
    """The density on ``LINE`` that Langevin's chain with this Δt keeps.

    >>> round(float(own_law(two_hills(), 0.1).sum() * (LINE[1] - LINE[0])), 6)
    1.0
    """
    moved = transition(langevin(law.log_prob, dt), LINE)
    moved /= moved.sum(axis=1, keepdims=True)
    equations = np.vstack([(moved.T - np.eye(LINE.size))[1:], np.ones(LINE.size)])
    return np.linalg.solve(equations, np.append(np.zeros(LINE.size - 1), 1.0)) / (LINE[1] - LINE[0])


@experiment(7, "Langevin with steps that are not small")
def step_size(
    *,
    scale: Annotated[float, Range(0.3, 1.5)] = 1.0,
    most: Annotated[float, Range(0.1, 0.95)] = 0.9,
    chains: Annotated[int, Range(200, 20_000)] = 4000,
    steps: Annotated[int, Range(50, 1000)] = 120,
    seed: int = 0,
) -> Recording:
    """The law that Langevin's chain keeps on N(0, s²), s²/(1 − Δt/(4s²)) for its variance, from small Δt to large.

    Parameters: ``scale`` s; ``most``, the largest Δt as a share of 4s²; ``chains``, independent, each of ``steps`` steps
    from N(0, s²/4). Raises UsageError for a value out of its range. Roberts and Tweedie 1996.

    >>> from mulligan.lab.experiments.step_size import step_size
    >>> step_size(chains=300, steps=60, most=0.5).holds
    True
    """
    law = Gaussian.from_covariance([0.0], [[scale**2]])
    shares = np.linspace(0.05, most, FRAMES)
    times = 4 * scale**2 * shares
    rng = np.random.default_rng(seed)
    start = jnp.asarray(0.5 * scale * rng.normal(size=(chains, 1)))
    found: dict[str, list[Any]] = {"plain": [], "adjusted": []}
    for k, dt in enumerate(times):
        key = jax.random.fold_in(jax.random.key(seed), k)
        for name, kernel in (("plain", Langevin), ("adjusted", MetropolisLangevin)):
            found[name].append(_end(kernel(law.log_prob, jnp.asarray(dt)), start, key, jnp.asarray(steps)))
    plain, adjusted = (np.stack([np.asarray(x) for x, _ in found[name]]) for name in found)
    accepted = np.stack([np.asarray(a) for _, a in found["adjusted"]])
    stated = scale**2 / (1 - shares)
    return Recording(
        panels=(
            _histogram("Langevin", plain, scale),
            _histogram("adjusted", adjusted, scale),
            _variances(times, stated, plain, adjusted, scale),
            _hills(shares),
        ),
        captions=tuple(_caption(dt, share, v) for dt, share, v in zip(times, shares, stated / scale**2)),
        see="Langevin's chain keeps a law that is too wide, the more so the longer its step; a decision mends it.",
        numbers={
            "variance, Langevin": estimates(plain**2),
            "variance, adjusted": estimates(adjusted**2),
            "accepted": estimates(accepted),
        },
        checks=_checks(plain, adjusted, stated, scale),
        rate=2.0,
    )


def _checks(plain: np.ndarray, adjusted: np.ndarray, stated: np.ndarray, scale: float) -> dict[str, Check]:
    wide, wide_error = mean_and_error(plain.T**2)
    right, right_error = mean_and_error(adjusted.T**2)
    short = np.maximum(0.0, scale**2 + 5 * wide_error[-1] - wide[-1])
    return {
        "Langevin's variance is s²/(1 − Δt/(4s²))": monte_carlo({"every Δt": (wide, stated, wide_error)}),
        "with the decision it is s² at every Δt": monte_carlo({"every Δt": (right, scale**2, right_error)}),
        "Langevin's is not s² at the largest Δt": monte_carlo(
            {"5 standard errors above": (short, 0.0, wide_error[-1])}
        ),
    }


def _caption(dt: float, share: float, wider: float) -> str:
    return (
        f"Δt = {dt:.2f}, {share:.0%} of 4s²: Langevin's variance is {wider:.2f} s², "
        f"the adjusted one s². Two hills: Δt = {0.9 * share:.2f}."
    )


def _histogram(name: str, x: np.ndarray, scale: float) -> Panel:
    """Densities of the chains' ends with their errors, against π."""
    edges = EDGES * scale
    width = edges[1] - edges[0]
    share = np.stack([np.histogram(row, edges)[0] for row in x]) / x.shape[1]
    error = np.sqrt(share * (1 - share) / x.shape[1]) / width
    line = np.linspace(edges[0], edges[-1], 121)
    pi = np.exp(-0.5 * (line / scale) ** 2) / (scale * np.sqrt(2 * np.pi))
    role, title = {
        "Langevin": ("mark", "Langevin: its own law"),
        "adjusted": ("model", "Metropolis-adjusted Langevin"),
    }[name]
    layers = (
        Bars(f"chains, {name}", 0.5 * (edges[1:] + edges[:-1]), share / width, role, error, width),  # type: ignore[arg-type]
        Curve(f"π = N(0, s²), {name}", line, pi[None], "ink"),
    )
    return Panel(title, Scale("x", edges[0], edges[-1]), Scale("density", 0.0, 0.62 / scale), layers)


def _variances(times: np.ndarray, stated: np.ndarray, plain: np.ndarray, adjusted: np.ndarray, scale: float) -> Panel:
    """Variance against Δt: what is stated, what is measured with 95 % bands, and where this frame is."""
    layers: list[Any] = [Curve("s²/(1 − Δt/4s²)", times, stated[None], "ink", dashed=True)]
    for name, x, role in (("Langevin", plain, "mark"), ("adjusted", adjusted, "model")):
        mean, error = mean_and_error(x.T**2)
        band = {"low": (mean - Z95 * error)[None], "high": (mean + Z95 * error)[None]}
        layers.append(Curve(f"variance, {name}", times, mean[None], role, dots=True, **band))  # type: ignore[arg-type]
        layers.append(Points(f"now, {name}", np.stack([times, mean], axis=-1)[:, None], role, 9.0, 0.5))  # type: ignore[arg-type]
    y = Scale("variance of the chain", 0.6 * scale**2, 150 * scale**2, log=True)
    return Panel("variance against the step", Scale("step Δt"), y, tuple(layers))


def _hills(shares: np.ndarray) -> Panel:
    """The same on two hills: the law that Langevin's chain keeps, from its transition on a grid."""
    law = two_hills()
    pi = np.exp(log_and_score(law, LINE[:, None])[0])
    own = np.stack([own_law(law, 0.9 * share) for share in shares])[:, ::2]
    layers = (
        Curve("π, two hills", LINE[::2], pi[None, ::2], "ink"),
        Curve("Langevin's own law", LINE[::2], own, "mark"),
    )
    title = "two hills: the law kept, computed on a grid"
    return Panel(title, Scale("x", -5.0, 5.0), Scale("density", 0.0, 0.55), layers)
