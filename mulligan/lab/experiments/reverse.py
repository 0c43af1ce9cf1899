"""The walk back: the reverse ODE, whose paths never cross, and the reverse SDE, whose paths do, from the same start.

Definition. x_t = x_0 + √t e for a mixture p_0 on the line, so p_t and its score are exact. Backwards, with a = Δt,
the ODE steps x + (a/2) ∇ log p_t(x) (Heun's corrected step here) and the SDE steps x + a ∇ log p_t(x) + √a e. Both carry p_t
to p_{t−Δt}: one by one flow, x ↦ F_t⁻¹(F_T(x)), which keeps the order of the points, the other by many small draws.
Serves ``diffusion.reverse_ode``, ``diffusion.reverse_sde`` and the notes' pictures of both.
"""

from __future__ import annotations

from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy.special import ndtr

from mulligan.lab.experiment import Range, experiment
from mulligan.lab.identity import excess, rounding
from mulligan.lab.recording import Bars, Curve, Field, Panel, Paths, Recording, Scale
from mulligan.loop import compile_small
from mulligan.quantity import Quantity
from mulligan.samplers.reverse import HeunODE, ReverseSDE
from mulligan.targets.mixture import GaussianMixture
from mulligan.targets.noised import NoisedMixture
from mulligan.targets.noising import Walk

WEIGHTS, MEANS, WIDTHS = np.array([0.5, 0.2, 0.3]), np.array([-1.6, 0.2, 1.7]), np.array([0.25, 0.2, 0.35])
FIRST, LAST = 9.0, 4e-4  # times: noise of 3 down to .02
LINE = np.linspace(-6.0, 6.0, 121)
CELLS = np.linspace(-6.0, 6.0, 49)
DRAWN = 24  # paths
BAR = 3.2905  # standard errors: false alarm 1e-3


def noised() -> NoisedMixture:
    """p_0 under the walk with σ = 1.

    >>> noised().dim
    1
    """
    covariances = (WIDTHS**2)[:, None, None]
    return NoisedMixture(GaussianMixture.from_covariances(WEIGHTS, MEANS[:, None], covariances), Walk())


def distribution(x: Any, t: float) -> np.ndarray:
    """F_t(x) = Σ_k w_k Φ((x − μ_k)/√(s_k² + t)), the distribution function of x_t.

    >>> round(float(distribution(100.0, 1.0)), 6)
    1.0
    """
    x = np.asarray(x, np.float64)[..., None]
    return ndtr((x - MEANS) / np.sqrt(WIDTHS**2 + t)) @ WEIGHTS


def quantile(p: np.ndarray, t: float) -> np.ndarray:
    """F_t⁻¹(p), by bisection to 1e-12.

    >>> bool(abs(distribution(quantile(np.array([0.3]), 1.0), 1.0) - 0.3) < 1e-9)
    True
    """
    low, high = np.full_like(p, -60.0), np.full_like(p, 60.0)
    for _ in range(60):
        middle = 0.5 * (low + high)
        above = distribution(middle, t) > p
        low, high = np.where(above, low, middle), np.where(above, middle, high)
    return 0.5 * (low + high)


@compile_small
def _paths(kernel: Any, key: jax.Array, x: jax.Array, times: jax.Array) -> jax.Array:
    """Positions (n, steps + 1) of n chains on their way from times[0] to times[-1]."""

    def one(key: jax.Array, x: jax.Array) -> jax.Array:
        def step(state: Any, given: Any) -> tuple[Any, jax.Array]:
            key, pair = given
            state, _ = kernel.step(key, state, pair)
            return state, state.position[0]

        keys = jax.random.split(key, times.size - 1)
        path = jax.lax.scan(step, kernel.init(key, x[None]), (keys, (times[:-1], times[1:])))[1]
        return jnp.concatenate([x[None], path])

    return jax.vmap(one)(jax.random.split(key, x.size), x)


def crossings(paths: np.ndarray) -> np.ndarray:
    """How many neighbours have changed places by each step: paths (n, m), in the order of their starts → (m,).

    >>> crossings(np.array([[0.0, 1.0], [1.0, 0.0]])).tolist()
    [0, 1]
    """
    ordered = paths[np.argsort(paths[:, 0])]
    return (np.diff(ordered, axis=0) < 0).sum(axis=0)


@experiment(9, "The walk back: ODE paths keep their order, SDE paths mix")
def reverse_walks(
    *,
    particles: Annotated[int, Range(100, 20_000)] = 2000,
    steps: Annotated[int, Range(8, 256)] = 40,
    seed: int = 0,
) -> Recording:
    """The same draws of p_T walked back to p_0 by the ODE and by the SDE, with the exact score.

    ``particles`` n, ``steps`` between noise 3 and .02 (geometric). The distance is the Kolmogorov-Smirnov statistic
    sup|F_n − F_t| of the n positions from the exact law at that time; for n draws of it, 1.36/√n is passed once in twenty.
    Raises UsageError for a value out of its range. Song et al. (2021).

    >>> from mulligan.lab.experiments.reverse import reverse_walks
    >>> reverse_walks(particles=200, steps=16).holds
    True
    """
    rng, law = np.random.default_rng(seed), noised()
    times = np.geomspace(FIRST, LAST, steps + 1)
    start = np.sort(quantile(rng.uniform(size=particles), FIRST))
    key, x, at = jax.random.key(seed), jnp.asarray(start), jnp.asarray(times)
    ode, sde = (np.asarray(_paths(kernel, key, x, at)) for kernel in (HeunODE(law), ReverseSDE(law, jnp.asarray(1.0))))
    exact = quantile(distribution(start, FIRST), LAST)
    apart = {name: distances(paths, times) for name, paths in (("ODE", ode), ("SDE", sde))}
    crossed = {"ODE": crossings(ode), "SDE": crossings(sde)}
    allowed = 1.95 / np.sqrt(particles)  # passed once in a thousand by draws of the law itself
    drift = np.abs(apart["ODE"] - apart["ODE"][0]).max()
    chosen = np.linspace(0, particles - 1, DRAWN).astype(int)
    return Recording(
        panels=(
            _walks("ODE: x + (a/2) ∇ log p", ode[chosen], times),
            _walks("SDE: x + a ∇ log p + √a e", sde[chosen], times),
            _ends(ode, sde, times),
        ),
        captions=tuple(_caption(k, steps, times[k], crossed["SDE"][k]) for k in range(steps + 1)),
        see="Both end at p₀. The ODE moves all points in order, on lines of their own; the SDE forgets where one came from.",
        numbers={
            "share of neighbours out of order, ODE": _shares(crossed["ODE"], particles),
            "share of neighbours out of order, SDE": _shares(crossed["SDE"], particles),
            "KS distance to p_t, ODE": tuple(_distance(d, particles) for d in apart["ODE"]),
            "KS distance to p_t, SDE": tuple(_distance(d, particles) for d in apart["SDE"]),
        },
        checks={
            "ODE paths do not cross": rounding({"pairs out of order": (float(crossed["ODE"].max()), 0.0)}),
            "SDE paths do": rounding({"a tenth of the neighbours": (excess(0.1 * particles, crossed["SDE"][-1]), 0.0)}),
            "the ODE is the map F₀⁻¹ F_T, to 40/steps²": rounding(
                {"error": (rms(ode[:, -1] - exact), 0.0)}, 40 / steps**2
            ),
            "the ODE keeps the distance of its start": rounding({"KS distance": (drift, 0.0)}, 0.02 + 4.0 / steps**2),
            "the SDE ends at p_0": rounding({"KS distance": (excess(apart["SDE"][-1], allowed + 0.6 / steps), 0.0)}),
        },
        rate=6.0,
    )


def rms(errors: np.ndarray) -> float:
    """√ of the mean square.

    >>> rms(np.array([3.0, -3.0]))
    3.0
    """
    return float(np.sqrt(np.mean(errors**2)))


def distances(paths: np.ndarray, times: np.ndarray) -> np.ndarray:
    """sup|F_n − F_t| at each time: paths (n, m) → (m,)."""
    n = len(paths)
    steps = np.arange(n + 1) / n
    found = []
    for k, t in enumerate(times):
        f = distribution(np.sort(paths[:, k]), t)
        found.append(max(np.max(steps[1:] - f), np.max(f - steps[:-1])))
    return np.array(found)


def _shares(counts: np.ndarray, n: int) -> tuple[Quantity, ...]:
    return tuple(Quantity(float(count) / (n - 1), "exact", n=n) for count in counts)


def _distance(value: float, n: int) -> Quantity:
    """A KS distance, with what draws of the law itself would have: up to 1.36/√n."""
    return Quantity(float(value), "estimate", max(0.0, value - 1.36 / n**0.5), value + 1.36 / n**0.5, n=n)


def _walks(title: str, paths: np.ndarray, times: np.ndarray) -> Panel:
    """Paths over the densities that they cross, step by step; each column is drawn on its own scale."""
    steps = np.arange(len(times), dtype=float)
    density = np.stack([(distribution(LINE + 0.05, t) - distribution(LINE - 0.05, t)) / 0.1 for t in times], axis=1)
    field = Field(f"p_t, {title[:3]}", steps, LINE, (density / density.max(axis=0))[None], low=0.0, high=1.6)
    xy = np.stack([np.broadcast_to(steps, paths.shape), paths], axis=-1)
    walks = Paths(f"paths, {title[:3]}", xy, steps + 1, role="mark", width=0.9, opacity=0.7)
    x = Scale(f"step (noise {times[0] ** 0.5:.2g} to {times[-1] ** 0.5:.2g})")
    return Panel(title, x, Scale("x", -6.0, 6.0), (field, walks), legend=False)


def _ends(ode: np.ndarray, sde: np.ndarray, times: np.ndarray) -> Panel:
    """Histograms of all positions at each step, and the exact law of that time."""
    width = CELLS[1] - CELLS[0]
    count = lambda paths: np.stack([np.histogram(x, CELLS)[0] / (len(x) * width) for x in paths.T])  # noqa: E731
    exact = np.stack([np.diff(distribution(CELLS, t)) / width for t in times])
    middle = 0.5 * (CELLS[1:] + CELLS[:-1])
    layers = (
        Bars("ODE, all particles", middle - width / 4, count(ode), role="second", width=width / 2),
        Bars("SDE, all particles", middle + width / 4, count(sde), role="third", width=width / 2),
        Curve("p_t, exact", middle, exact, role="ink"),
    )
    return Panel("where they are now", Scale("x", -6.0, 6.0), Scale("density"), layers)


def _caption(k: int, steps: int, t: float, crossed: int) -> str:
    if k == 0:
        return "Both start from the same draws of p_T, nearly one wide Gaussian."
    if k == steps:
        return f"At p₀. On the left no two paths have crossed; on the right {crossed} neighbours have changed places."
    return f"Step {k} of {steps}, noise {t**0.5:.3g}: on the right {crossed} neighbours have changed places."
