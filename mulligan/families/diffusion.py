"""``diffusion``: a denoiser at all levels of noise, drawn from by going back from noise step by step.

``diffusion:score`` learns with the noise and the scaling of Karras et al. (2022), ``diffusion:ddpm`` predicts the noise on
DDPM's schedule (Ho et al. 2020), ``diffusion:energy`` has a scalar network whose gradient is the score. At a look at the
select rows the variational bound of their log p is what counts: it costs far fewer evaluations than the ODE,
which decides between trainings. The number of steps of that ODE is doubled until log p no longer moves.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mulligan.catalog import Effort
from mulligan.data.codec import Encoded
from mulligan.families.recipe import Fitting, Outcome, Recipe
from mulligan.families.training import LOOKED_AT, SMALL, Candidate, Learning, count_parameters, learn
from mulligan.learners.gradient import Plan
from mulligan.loop import compile_small
from mulligan.measures.likelihood import point_log_prob, row_log_prob
from mulligan.models.denoiser import Denoiser, Output, make_denoiser
from mulligan.objectives.denoising import Denoising, continuous_bound
from mulligan.objectives.likelihood import Rows
from mulligan.samplers.diffused import Diffusion, Solver, diffused, with_path
from mulligan.targets.noising import EDM, Cosine, Schedule, Straight, VariancePreserving, Walk

# Width and depth of the network on large tables, and on small ones.
SIZES: dict[Effort, tuple[tuple[int, int], tuple[int, int]]] = {
    "quick": ((64, 2), (64, 2)),
    "standard": ((128, 3), (64, 3)),
    "thorough": ((256, 4), (128, 3)),
}
PLANS: dict[Effort, tuple[Plan, Plan]] = {
    "quick": (Plan(800, rate=1e-2), Plan(400, rate=1e-2)),
    "standard": (Plan(8000, batch=1024, rate=3e-3, patience=30), Plan(1500, rate=3e-3)),
    "thorough": (Plan(40_000, batch=1024, rate=2e-3, patience=30), Plan(5000, rate=2e-3)),
}
SCHEDULES: dict[str, Callable[[float, float], Schedule]] = {  # of the least and the greatest σ/α
    "edm": lambda low, high: EDM(t_min=jnp.asarray(low), t_max=jnp.asarray(high)),
    "walk": lambda low, high: Walk(t_min=jnp.asarray(low**2), t_max=jnp.asarray(high**2)),
    "linear": lambda low, high: VariancePreserving(t_min=VariancePreserving().at_noise(jnp.asarray(low))),
    "cosine": lambda low, high: Cosine(t_min=Cosine().at_noise(jnp.asarray(low))),
    "straight": lambda low, high: Straight(t_min=Straight().at_noise(jnp.asarray(low))),
}
OBJECTIVES = {"score": Denoising("v"), "ddpm": Denoising("noise", spread=None), "energy": Denoising("v")}
NAMES = {"score": ("edm", "v", "heun"), "ddpm": ("linear", "noise", "ancestral"), "energy": ("edm", "energy", "heun")}
STROKES: dict[str, dict[Effort, int]] = {  # steps of a draw
    "heun": {"quick": 16, "standard": 32, "thorough": 64},
    "multistep": {"quick": 24, "standard": 48, "thorough": 96},
}
MANY: dict[Effort, int] = {"quick": 64, "standard": 256, "thorough": 1000}  # of a sampler of order 1
SOLVER_STEPS: dict[str, int] = {"heun": 32, "rk4": 16, "adaptive": 1}
MOST_STEPS = 256
LEAST_NOISE = 0.003  # of t_min, in standard deviations of the data's narrowest direction, where that is below 1
MOST_NOISE = 30.0  # of t_max, in standard deviations of the widest
LARGE_DECAYS = (0.1, 10.0, 1.0)
SMALL_DECAYS = (1.0, 10.0, 0.1)
WAVES = 16  # sines and cosines of x beside x, up to ``FEW`` coordinates: in more they no longer cover the space
FEW = 3
MOST_EXACT = 16  # coordinates up to which the divergence is exact
PROBES = 8  # random signs a row beyond that
LOOK_PAIRS = 8192  # of a select row, noise and a time, the same at every look
STANDING = 1e-2  # nats that log p of 99 % of rows may move when the steps are doubled
CHECKED = 512  # rows


@dataclass(frozen=True)
class Design:
    """The options of the family; None is what the variant, the effort or the table chooses."""

    variant: str
    effort: Effort
    schedule: str | None
    output: Output | None
    width: int | None
    depth: int | None
    frequencies: int | None
    sampler: str | None
    sampler_steps: int | None
    solver: Solver | None
    solver_steps: int | None
    probes: int | None
    decay: float | None
    rate: float | None
    batch: int | None


def make(variant: str | None, effort: Effort, **options: Any) -> Recipe:
    """The recipe; sizes and ``rate`` of None are the effort's, ``decay`` None is searched on select."""
    return partial(fit, design=Design(variant or "score", effort, **options))


def fit(fitting: Fitting, design: Design) -> Outcome:
    """Train, keep the best on select, and find how many steps log p needs."""
    small = fitting.rows < SMALL
    sizes, waves = SIZES[design.effort][small], design.frequencies
    schedule, output, _ = NAMES[design.variant]
    points = fitting.train.flat.astype(float)
    settings = {
        "output": design.output or output,
        "width": design.width or sizes[0],
        "depth": sizes[1] if design.depth is None else design.depth,
        "waves": (WAVES if fitting.dim <= FEW else 0) if waves is None else waves,
        "given": fitting.given,
        "points": points,
    }
    noising = SCHEDULES[design.schedule or schedule](*noise_range(points))
    build = partial(_build, fitting.dim, noising, settings)
    plan = PLANS[design.effort][small]
    plan = replace(plan, batch=design.batch or plan.batch, rate=design.rate or plan.rate)
    decays = (SMALL_DECAYS if small else LARGE_DECAYS) if design.decay is None else (design.decay,)
    given = None if fitting.train.flat_given is None else jnp.asarray(fitting.train.flat_given)
    learning = Learning(
        "diffusion",
        [
            Candidate(f"decay={decay:g}", build, replace(plan, decay=decay))
            for decay in decays[: 1 if design.effort == "quick" else None]
        ],
        OBJECTIVES[design.variant],
        Rows(jnp.asarray(fitting.train.flat), given),
        fitting.select,
        normalise=lambda model, careful: diffused(model, **_parts(design, fitting.dim)) if careful else model,
        judge=_judge(fitting.select, fitting.seed),
        criterion="the variational bound of the select rows",
    )
    name = "" if design.variant == "score" else f"{design.variant}, "
    label = f"diffusion ({name}{settings['depth']} layers of {settings['width']})"
    return finished(learn(fitting, learning, label), fitting, design)


def finished(outcome: Outcome, fitting: Fitting, design: Design) -> Outcome:
    """The outcome whose model takes as many steps as log p needs, with a sentence on what these leave."""
    model: Diffusion = outcome.model
    outcome.parameters = count_parameters(model.denoiser)
    if model.solver == "adaptive":
        return outcome
    rows = fitting.select.thinned(CHECKED)
    points, given = rows.flat[:CHECKED], None if rows.flat_given is None else rows.flat_given[:CHECKED]
    steps, before = len(model.path) - 1, point_log_prob(model, points, given)
    while True:
        finer = with_path(model, 2 * steps)
        after = point_log_prob(finer, points, given)
        moved = float(np.quantile(np.abs(after - before), 0.99))
        if moved <= STANDING or design.solver_steps is not None or 2 * steps > MOST_STEPS:
            break
        model, steps, before = finer, 2 * steps, after
    outcome.model = model
    outcome.health.append(
        f"log p by {steps} steps of {model.solver}: twice as many move 99 % of rows by less than {moved:.1g} nats"
    )
    return outcome


def noise_range(points: np.ndarray) -> tuple[float, float]:
    """The least and the greatest σ/α for data (n, d): below the first they are as good as bare, above the second drowned.

    >>> low, high = noise_range(np.random.default_rng(0).normal(size=(1000, 2)))
    >>> round(low, 3), 25 < high < 35
    (0.003, True)
    """
    spreads = np.sqrt(np.linalg.eigvalsh(np.atleast_2d(np.cov(points.T))))
    least = LEAST_NOISE * float(np.clip(np.nan_to_num(spreads[0]), 0.1, 1.0))
    return least, MOST_NOISE * float(max(np.nan_to_num(spreads[-1]), 1e-3))


def _build(dim: int, schedule: Schedule, settings: dict[str, Any], generator: np.random.Generator) -> Denoiser:
    return make_denoiser(dim, schedule, generator, **settings)


def _parts(design: Design, dim: int) -> dict[str, Any]:
    """How the trained denoiser is drawn from and scored."""
    sampler = design.sampler or NAMES[design.variant][2]
    solver = design.solver or ("adaptive" if design.effort == "thorough" else "rk4")
    probes = design.probes
    if probes is None:
        probes = 0 if dim <= MOST_EXACT else PROBES
    return {
        "sampler": sampler,
        "steps": design.sampler_steps or STROKES.get(sampler, MANY)[design.effort],
        "solver": solver,
        "solver_steps": design.solver_steps or SOLVER_STEPS[solver],
        "probes": probes,
    }


def _judge(select: Encoded, seed: int) -> Callable[[Any, bool], float]:
    """The bound of select rows with the same noise at every look; for a choice, mean log p of the select rows."""
    rng = np.random.default_rng([seed, 7])
    n = len(select.flat)
    rows = np.resize(rng.permutation(n), min(n, LOOK_PAIRS))
    each = max(1, LOOK_PAIRS // len(rows))
    noise = rng.standard_normal((len(rows), each, select.flat.shape[1])).astype(np.float32)
    # One place in each part of [0, 1], and the parts of a row spread over all of it.
    places = rng.permutation((np.arange(len(rows) * each) + 0.5) / (len(rows) * each))
    places = places.reshape(len(rows), each).astype(np.float32)
    known = None if select.flat_given is None else jnp.asarray(select.flat_given[rows])
    pairs = jnp.asarray(select.flat[rows].astype(np.float32)), jnp.asarray(noise), jnp.asarray(places), known
    chosen = select.thinned(LOOKED_AT)

    def judged(model: Any, careful: bool) -> float:
        return float(np.mean(row_log_prob(model, chosen))) if careful else float(_bound(model, *pairs))

    return judged


@compile_small
def _bound(model: Denoiser, x: Any, noise: Any, places: Any, given: Any) -> Any:
    return jnp.mean(jax.vmap(partial(continuous_bound, model))(x, noise, places, given))
