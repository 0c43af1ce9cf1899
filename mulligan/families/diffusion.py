"""``diffusion``: a denoiser at all levels of noise, drawn from by going back from noise step by step.

``diffusion:score`` learns with the noise and the scaling of Karras et al. (2022), ``diffusion:ddpm`` predicts the noise on
DDPM's schedule (Ho et al. 2020), ``diffusion:energy`` has a scalar network whose gradient is the score. At a look at the
select rows the variational bound of their log p is what counts: it costs far fewer evaluations than the ODE,
which decides between trainings. The number of steps of that ODE is doubled until log p no longer moves.

Pictures of at least 16 pixels a side get a U-Net, whose log p is the bound at every place: an ODE with the divergence of a
few thousand pictures would take longer than their training.
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
from mulligan.data.table import ImageShape
from mulligan.errors import UsageError
from mulligan.families.recipe import Fitting, Outcome, Recipe
from mulligan.families.training import LOOKED_AT, SMALL, Candidate, Learning, count_parameters, learn
from mulligan.learners.gradient import Plan
from mulligan.loop import compile_small
from mulligan.measures.likelihood import point_log_prob, row_log_prob
from mulligan.models.denoiser import Denoiser, MakeNetwork, Output, make_denoiser
from mulligan.nets.unet import UNet, make_unet
from mulligan.objectives.denoising import Denoising, continuous_bound
from mulligan.objectives.likelihood import Rows
from mulligan.samplers.diffused import Diffusion, Solver, diffused, with_path
from mulligan.targets.noising import EDM, Cosine, Schedule, Straight, VariancePreserving, Walk

# Width and depth of the network on large tables, and on small ones.
SIZES: dict[Effort, tuple[tuple[int, int], tuple[int, int]]] = {
    "quick": ((64, 2), (64, 2)),
    "standard": ((64, 3), (64, 3)),
    "thorough": ((256, 4), (128, 3)),
}
PLANS: dict[Effort, tuple[Plan, Plan]] = {
    "quick": (Plan(800, rate=1e-2), Plan(400, rate=1e-2)),
    "standard": (Plan(4000, batch=1024, rate=5e-3, patience=60), Plan(1500, rate=3e-3)),
    "thorough": (Plan(40_000, batch=1024, rate=2e-3, patience=60), Plan(5000, rate=2e-3)),
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
SOLVER_STEPS: dict[str, int] = {"heun": 32, "rk4": 16, "adaptive": 1, "bound": 4}  # noise levels of the bound
MOST_STEPS = 256
LEAST_NOISE = 0.003  # of t_min, in standard deviations of the data's narrowest direction, where that is below 1
MOST_NOISE = 30.0  # of t_max, in standard deviations of the widest
LARGE_DECAYS = (0.0,)  # .5 cost .025 nats on rings
SMALL_DECAYS = (1.0, 10.0, 0.1)
MEMBERS: dict[Effort, int] = {"quick": 1, "standard": 2, "thorough": 2}  # networks, of which the mean is taken
WAVES = 32  # sines and cosines of x beside x, up to ``FEW`` coordinates: in more they no longer cover the space
FEW = 3
MOST_EXACT = 16  # coordinates up to which the divergence is exact
PROBES = 8  # random signs a row beyond that
LOOK_PAIRS = 8192  # of a select row, noise and a time, the same at every look
STANDING = 1e-2  # nats that log p of 99 % of rows may move when the steps are doubled
CHECKED = 512  # rows

# Pictures. Channels of the U-Net at each size, and how it is trained.
LEAST_SIDE = 16  # pixels, from which a U-Net is taken
CHANNELS: dict[Effort, tuple[int, ...]] = {"quick": (32, 48), "standard": (32, 64, 96), "thorough": (64, 96, 128)}
PICTURE_PLANS: dict[Effort, Plan] = {
    "quick": Plan(800, batch=32, rate=3e-3, decay=1e-2, patience=60, clip=1.0),
    "standard": Plan(10_000, batch=32, rate=2.5e-3, decay=1e-2, patience=60, clip=1.0),
    "thorough": Plan(40_000, batch=64, rate=1e-3, decay=1e-2, patience=60, clip=1.0),
}
PICTURE_OBJECTIVES = {"score": Denoising("v", centre=-0.8, spread=1.5), "ddpm": OBJECTIVES["ddpm"]}
PICTURE_STROKES: dict[Effort, int] = {"quick": 16, "standard": 20, "thorough": 32}  # of Heun's method
PICTURE_PAIRS = 512  # in place of LOOK_PAIRS; and select rows whose bound decides
PICTURE_BLOCK = 64  # of which so many are evaluated at a time
LEAST_OF_CELL = 0.25  # of t_min, in widths of a grey level
MOST_OF_PICTURE = 5.0  # of t_max, in standard deviations of the widest direction
RANGED = 1024  # pictures that tell it


@dataclass(frozen=True)
class Design:
    """The options of the family; None is what the variant, the effort or the table chooses."""

    variant: str
    effort: Effort
    schedule: str | None
    output: Output | None
    network: str | None
    channels: tuple[int, ...] | None
    width: int | None
    depth: int | None
    frequencies: int | None
    members: int | None
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
    image = pictured(fitting, design)
    given = None if fitting.train.flat_given is None else jnp.asarray(fitting.train.flat_given)
    rows = Rows(jnp.asarray(fitting.train.flat), given)
    small = fitting.rows < SMALL
    if image is None:
        settings, shape = perceptron(fitting, design)
        noising = noise_range(settings["points"])
        objective, pairs, together = OBJECTIVES[design.variant], LOOK_PAIRS, None
        plan, decays = PLANS[design.effort][small], SMALL_DECAYS if small else LARGE_DECAYS
    else:
        settings, shape = convolutional(fitting, design, image)
        noising = picture_range(settings["points"], None if image.levels == 2 else 1 / fitting.codec.parts[0].scale)
        objective, pairs, together = PICTURE_OBJECTIVES[design.variant], PICTURE_PAIRS, PICTURE_BLOCK
        plan = PICTURE_PLANS[design.effort]
        decays = (plan.decay,)
    build = partial(_build, fitting.dim, SCHEDULES[design.schedule or NAMES[design.variant][0]](*noising), settings)
    plan = replace(plan, batch=design.batch or plan.batch, rate=design.rate or plan.rate)
    decays = decays if design.decay is None else (design.decay,)
    parts = _parts(design, fitting.dim, image is not None)
    learning = Learning(
        "diffusion",
        [
            Candidate(f"decay={decay:g}", build, replace(plan, decay=decay))
            for decay in decays[: 1 if design.effort == "quick" else None]
        ],
        objective,
        rows,
        fitting.select,
        normalise=lambda model, careful: diffused(model, **parts) if careful else model,
        judge=_judge(fitting.select, fitting.seed, pairs, together),
        criterion="the variational bound of the select rows",
        last_too=image is None,  # the bound counts errors at the least noise, which hardly move log p of the ODE
    )
    name = "" if design.variant == "score" else f"{design.variant}, "
    return finished(learn(fitting, learning, f"diffusion ({name}{shape})"), fitting, design)


def pictured(fitting: Fitting, design: Design) -> ImageShape | None:
    """The shape of the pictures where a U-Net is to be trained on them, else None.

    Raises UsageError for a U-Net that was asked for and cannot be, and for options of the network that is not taken.
    """
    image = fitting.codec.schema.image
    whole = image is not None and not fitting.given and image.pixels == fitting.dim
    network = design.network
    if network is None:
        large = image is not None and min(image.height, image.width) >= LEAST_SIDE
        network = "unet" if whole and large and design.variant != "energy" and design.output != "energy" else "mlp"
    if network == "unet" and not whole:
        raise UsageError("network=unet", why="a U-Net needs whole pictures, all of whose pixels are modelled")
    if network == "unet" and (design.variant == "energy" or design.output == "energy"):
        raise UsageError("network=unet with an energy", why="a U-Net gives a picture and no scalar", do="network=mlp")
    others = ("width", "depth", "frequencies", "members") if network == "unet" else ("channels",)
    stray = [name for name in others if getattr(design, name) is not None]
    if stray:
        raise UsageError(f"{', '.join(stray)} with network={network}", why="it has no such thing")
    return image if network == "unet" else None


def perceptron(fitting: Fitting, design: Design) -> tuple[dict[str, Any], str]:
    """What ``make_denoiser`` takes for a multilayer perceptron, and the network in words."""
    (width, depth), waves = SIZES[design.effort][fitting.rows < SMALL], design.frequencies
    members = design.members or MEMBERS[design.effort]
    settings = {
        "output": design.output or NAMES[design.variant][1],
        "width": design.width or width,
        "depth": depth if design.depth is None else design.depth,
        "waves": (WAVES if fitting.dim <= FEW else 0) if waves is None else waves,
        "given": fitting.given,
        "members": members,
        "points": fitting.train.flat.astype(float),
    }
    times = f"{members} times " if members > 1 else ""
    return settings, f"{times}{settings['depth']} layers of {settings['width']}"


def convolutional(fitting: Fitting, design: Design, image: ImageShape) -> tuple[dict[str, Any], str]:
    """What ``make_denoiser`` takes for a U-Net, and the network in words."""
    channels = design.channels or CHANNELS[design.effort]
    shape = image.height, image.width, image.channels

    def network(inputs: int, outputs: int, generator: np.random.Generator) -> UNet:
        return make_unet(shape, generator, channels=channels)

    made: MakeNetwork = network
    output = design.output or NAMES[design.variant][1]
    settings = {"output": output, "network": made, "whole": True, "points": fitting.train.flat}
    return settings, f"U-Net of {', '.join(map(str, channels))} channels"


def finished(outcome: Outcome, fitting: Fitting, design: Design) -> Outcome:
    """The outcome whose model takes as many steps as log p needs, with a sentence on what these leave."""
    model: Diffusion = outcome.model
    outcome.parameters = count_parameters(model.denoiser)
    if model.solver == "bound":
        outcome.health.append(f"log p is the variational bound, at {len(model.path) - 1} noise levels a row")
    if model.solver in ("adaptive", "bound"):
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


def picture_range(points: np.ndarray, cell: float | None) -> tuple[float, float]:
    """The least and the greatest σ/α for pictures (n, d) whose grey levels are ``cell`` apart (None: they have two).

    The least is inside a grey level, for below it there is nothing but dequantisation; the greatest drowns the widest
    direction, found from the products of some pictures with each other.

    >>> low, high = picture_range(np.random.default_rng(0).normal(size=(1000, 2)), 0.01)
    >>> low, 4 < high < 6
    (0.0025, True)
    """
    some = points[:RANGED] - points[:RANGED].mean(0, dtype=float)
    widest = float(np.sqrt(np.linalg.eigvalsh(some @ some.T / len(some))[-1]))
    return (LEAST_NOISE if cell is None else LEAST_OF_CELL * cell), MOST_OF_PICTURE * max(widest, 1e-3)


def _build(dim: int, schedule: Schedule, settings: dict[str, Any], generator: np.random.Generator) -> Denoiser:
    return make_denoiser(dim, schedule, generator, **settings)


def _parts(design: Design, dim: int, pictures: bool) -> dict[str, Any]:
    """How the trained denoiser is drawn from and scored."""
    sampler = design.sampler or NAMES[design.variant][2]
    solver = design.solver or ("bound" if pictures else "adaptive" if design.effort == "thorough" else "rk4")
    probes = design.probes
    if probes is None:
        probes = 0 if dim <= MOST_EXACT else PROBES
    steps = STROKES.get(sampler, MANY) if sampler != "heun" or not pictures else PICTURE_STROKES
    return {
        "sampler": sampler,
        "steps": design.sampler_steps or steps[design.effort],
        "solver": solver,
        "solver_steps": design.solver_steps or SOLVER_STEPS[solver],
        "probes": probes,
    }


def _judge(
    select: Encoded, seed: int, most: int = LOOK_PAIRS, together: int | None = None
) -> Callable[[Any, bool], float]:
    """The bound of select rows with the same noise at every look; for a choice, mean log p of the select rows.

    With ``together``, of networks on pictures: so many pairs are evaluated at a time, and ``most`` rows decide a choice.
    """
    rng = np.random.default_rng([seed, 7])
    n = len(select.flat)
    rows = np.resize(rng.permutation(n), min(n, most))
    each = max(1, most // len(rows))
    noise = rng.standard_normal((len(rows), each, select.flat.shape[1])).astype(np.float32)
    # One place in each part of [0, 1], and the parts of a row spread over all of it.
    places = rng.permutation((np.arange(len(rows) * each) + 0.5) / (len(rows) * each))
    places = places.reshape(len(rows), each).astype(np.float32)
    known = None if select.flat_given is None else jnp.asarray(select.flat_given[rows])
    pairs = jnp.asarray(select.flat[rows].astype(np.float32)), jnp.asarray(noise), jnp.asarray(places), known
    chosen = select.thinned(LOOKED_AT)
    if together is not None:
        some = slice(0, most)
        chosen = Encoded(
            chosen.points[some], chosen.log_jacobian[some], None if chosen.given is None else chosen.given[some]
        )

    def judged(model: Any, careful: bool) -> float:
        return float(np.mean(row_log_prob(model, chosen))) if careful else float(_bound(model, *pairs, together))

    return judged


@compile_small
def _bound(model: Denoiser, x: Any, noise: Any, places: Any, given: Any, together: int | None) -> Any:
    if together is None:
        return jnp.mean(jax.vmap(partial(continuous_bound, model))(x, noise, places, given))
    return jnp.mean(jax.lax.map(lambda row: continuous_bound(model, *row), (x, noise, places), batch_size=together))
