"""An energy-based model learns: E_data[∂f] and E_chains[∂f] meet. Chains that are too short learn a sampler, not a density.

Definition. p_θ = exp(f_θ) q/Z with f_θ(x) = θ·(x, sin kωx, cos kωx), so that ∂f/∂θ are fixed functions of x. The weights
move up E_data[∂f] − E_chains[∂f], the slope of the likelihood if the chains are draws of p_θ. Two learners differ in one
thing: the chains of one persist from update to update, those of the other start anew from q. Serves ``ebm.gradient``,
``ebm.matching``.
"""

from __future__ import annotations

from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mulligan.lab.experiment import Range, experiment
from mulligan.lab.identity import excess, mean_and_error, monte_carlo, rounding
from mulligan.lab.recording import Bars, Curve, Panel, Points, Recording, Role, Scale
from mulligan.learners.contrastive import ContrastiveDescent
from mulligan.learners.gradient import Minibatch, gradient_descent
from mulligan.loop import compile_small, repeat
from mulligan.models.energy import EnergyModel, Tilt
from mulligan.nets.mlp import MLP
from mulligan.objectives.contrastive import contrastive_loss
from mulligan.objectives.likelihood import Rows
from mulligan.quantity import Quantity
from mulligan.samplers.langevin import MetropolisLangevin
from mulligan.samplers.many import Many
from mulligan.targets.counting import Histogram
from mulligan.targets.gaussian import Gaussian
from mulligan.targets.mixture import GaussianMixture

FRAMES, CHAINS, ROWS, JUDGED, DRAWN, WAVES = 24, 400, 2000, 20_000, 60, 4
_LINE = np.linspace(-15.0, 15.0, 1201)
_WIDTH = float(_LINE[1] - _LINE[0])
_SHOWN = slice(280, 921, 4)  # −8 to 8
_EDGES = np.linspace(-4.0, 4.0, 33)
_NAMES = ("x", *(f"{wave} {k}" for wave in ("sin", "cos") for k in range(1, WAVES + 1)))


class Seen(NamedTuple):
    """After each update that is kept: θ (p,), the chains (n,), their acceptance, and log p_θ + log Z on the line."""

    theta: Any
    chains: Any
    acceptance: Any
    log_p: Any


def the_data() -> GaussianMixture:
    """p_data: two hills of unequal height on the line.

    >>> the_data().dim
    1
    """
    return GaussianMixture.from_covariances([0.65, 0.35], [[-1.1], [1.4]], [[[0.45]], [[0.25]]])


def waves_model() -> EnergyModel:
    """f_θ(x) = θ·(x, sin kωx, cos kωx), k = 1 … 4, ω = π/4.5, on q = N(0, 1.8²); it starts at f = 0.

    >>> float(waves_model().f(jnp.ones(1)))
    0.0
    """
    frequencies = jnp.asarray(np.pi / 4.5 * np.arange(1.0, WAVES + 1)[:, None])
    network = MLP((jnp.zeros((1, 1 + 2 * WAVES)),), (jnp.zeros(1),))
    reference = Gaussian(jnp.zeros(1), jnp.full((1, 1), 1.8))
    zero = jnp.zeros(())
    return EnergyModel(
        kind="numeric", tilt=Tilt(frequencies, network), reference=reference, log_z=zero, log_z_stderr=zero
    )


def slopes_at(x: np.ndarray) -> np.ndarray:
    """∂f/∂θ (n, 9) at x (n,): x, sin kωx, cos kωx.

    >>> slopes_at(np.zeros(1)).tolist()
    [[0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 1.0, 1.0, 1.0]]
    """
    angle = np.pi / 4.5 * x[..., None] * np.arange(1, WAVES + 1)
    return np.concatenate([x[..., None], np.sin(angle), np.cos(angle)], axis=-1)


@compile_small
def _learn(kernel: ContrastiveDescent, key: Any, start: EnergyModel, batches: Minibatch, every: Any, line: Any) -> Any:
    """Learning with chains that persist, or that start anew: what is seen after each update, and the last state."""

    def step(state: Any, scanned: Any) -> tuple[Any, Seen]:
        i, input = scanned
        state, told = kernel.step(jax.random.fold_in(key, i), state, input)
        model = kernel.descent.learning(state.descent)
        return state, Seen(model.tilt.network.weights[0][0], state.chains[:, 0, 0], told["acceptance"], 0.0)

    last, seen = jax.lax.scan(step, kernel.init(key, start), (jnp.arange(batches.rate.shape[0]), batches))
    kept = jax.tree.map(lambda leaf: leaf[every], seen._replace(log_p=jnp.zeros_like(seen.acceptance)))

    def on_the_line(theta: Any) -> Any:
        model = kernel.descent.learning(last.descent)
        log_q = jax.vmap(model.log_q)(line)
        angle = line @ model.tilt.frequencies.T
        return jnp.concatenate([line, jnp.sin(angle), jnp.cos(angle)], axis=1) @ theta + log_q

    return kept._replace(log_p=jax.vmap(on_the_line)(kept.theta)), kernel.descent.learning(last.descent)


@compile_small
def _short_runs(model: EnergyModel, key: Any, step_size: Any, steps: int, n: int) -> Any:
    """Ends (n,) of fresh short chains from q: the law that short-run learning has learned."""
    of_start, of_chains = jax.random.split(key)
    start = jax.vmap(model.reference.sample)(jax.random.split(of_start, n))
    kernel = Many(MetropolisLangevin(model.unnormalised, step_size))
    return repeat(kernel, of_chains, kernel.init(of_chains, start), steps)[0].position[:, 0]


def kernel_of(rows: np.ndarray, restart: float, steps: int, step_size: float) -> ContrastiveDescent:
    """The library's learner: 400 chains, of which at each update the share ``restart`` starts anew: 0 persists.

    >>> kernel_of(np.zeros((4, 1)), 0.0, 1, 0.1).chains
    400
    """
    descent = gradient_descent(contrastive_loss, waves_model(), Rows(jnp.asarray(rows)), averaging=0.0)
    numbers = jnp.asarray(step_size, float), jnp.asarray(restart, float)
    return ContrastiveDescent(descent, jnp.ones(1), *numbers, "replay", steps, CHAINS, adapted=False)


@experiment(3, "Learning an energy: two averages meet")
def energy_learning(
    *,
    updates: Annotated[int, Range(50, 2000)] = 400,
    rate: Annotated[float, Range(0.005, 0.2)] = 0.05,
    steps: Annotated[int, Range(1, 30)] = 5,
    step_size: Annotated[float, Range(0.01, 1.0)] = 0.15,
    seed: int = 0,
) -> Recording:
    """Two learners of one energy: chains that persist, and chains that start anew from q at every update.

    L′(θ) = E_data[∂f] − E_pθ[∂f]. Parameters: ``updates`` and ``rate`` of Adam; ``steps`` of
    adjusted Langevin at each update, and their size Δt = ``step_size``. Raises UsageError for a value out of its range.
    Sources: Tieleman (2008); Nijkamp et al. (2019).

    >>> from mulligan.lab.experiments.energy import energy_learning
    >>> energy_learning(seed=1).holds
    True
    """
    law, rng = the_data(), np.random.default_rng(seed)
    rows = np.asarray(_draws(law, jax.random.key(seed), ROWS))
    every = np.unique(np.round((updates - 1) * np.linspace(0, 1, FRAMES) ** 1.7).astype(int))
    picked = rng.integers(0, ROWS, size=(updates, CHAINS))
    rates = rate * np.minimum(1.0, 1.5 * (1 - np.arange(updates) / updates)) ** 2  # the last two thirds fall to 0
    batches = Minibatch(jnp.asarray(picked), jnp.asarray(rates))
    line, key = jnp.asarray(_LINE[:, None]), jax.random.key(seed + 1)
    learners = [kernel_of(rows, restart, steps, step_size) for restart in (0.0, 1.0)]
    found = [_learn(each, key, waves_model(), batches, jnp.asarray(every), line) for each in learners]
    ends = np.asarray(_short_runs(found[1][1], jax.random.key(seed + 2), jnp.asarray(step_size), steps, JUDGED))
    log_p = np.asarray(_log_p(law, line))
    seen = [jax.tree.map(np.asarray, each[0]) for each in found]
    return _recording(rows[:, 0], np.exp(log_p), every, seen, ends)


@compile_small
def _draws(law: Any, key: Any, n: int) -> Any:
    return jax.vmap(law.sample)(jax.random.split(key, n))


@compile_small
def _log_p(law: Any, points: Any) -> Any:
    return jax.vmap(law.log_prob)(points)


def normalised(log_p: np.ndarray) -> np.ndarray:
    """Densities (…, 1201) on the line from log densities up to a constant.

    >>> float((normalised(np.zeros(1201)).sum() * _WIDTH).round(9))
    1.0
    """
    p = np.exp(log_p - log_p.max(axis=-1, keepdims=True))
    return p / (_WIDTH * p.sum(axis=-1, keepdims=True))


def kl_on_the_line(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """KL(p‖q) of densities on the line; p (1201,), q (…, 1201).

    >>> float(kl_on_the_line(normalised(np.zeros(1201)), normalised(np.zeros(1201))))
    0.0
    """
    tiny = 1e-300
    return _WIDTH * np.sum(p * (np.log(np.maximum(p, tiny)) - np.log(np.maximum(q, tiny))), axis=-1)


def kl_of_draws(p: np.ndarray, draws: np.ndarray) -> tuple[float, float]:
    """KL in 34 cells of p from the law of draws (n,), half a count added to each cell, with its standard error.

    The error is √((Σ P²/Q − 1)/n), by the delta method.

    >>> kl_of_draws(normalised(-0.5 * _LINE**2), np.random.default_rng(0).normal(size=4000))[0] < 0.02
    True
    """
    masses = np.bincount(np.digitize(_LINE, _EDGES), p * _WIDTH, minlength=len(_EDGES) + 1)
    # cells beyond the edges are the tails of the table
    q = np.asarray(Histogram.from_rows(draws[:, None], [_EDGES], pseudo=0.5, tails=True).joint)
    kept = masses > 0
    value = float(np.sum(masses[kept] * np.log(masses[kept] / q[kept])))
    return value, float(np.sqrt(max(np.sum(masses**2 / q) - 1, 0.0) / len(draws)))


def _recording(x: np.ndarray, p: np.ndarray, every: np.ndarray, seen: list[Seen], ends: np.ndarray) -> Recording:
    densities = [normalised(each.log_p) for each in seen]
    kl = np.stack([kl_on_the_line(p, each) for each in densities])
    data, data_error = mean_and_error(slopes_at(x))
    model, model_error = (np.stack(part) for part in zip(*(mean_and_error(slopes_at(each)) for each in seen[0].chains)))
    of_ends, ends_error = kl_of_draws(p, ends)
    gap = np.abs(data - model).max(axis=1)
    return Recording(
        panels=(
            _learned("persistent chains", p, densities[0], seen[0].chains, "model"),
            _averages(data, data_error, model, model_error),
            _learned("short chains, anew from q", p, densities[1], seen[1].chains, "third", ends),
            _divergences(every, kl, of_ends),
        ),
        captions=tuple(
            f"Update {k + 1}: the two averages differ by at most {g:.2f}; KL from the data is {a:.3f} nats with persistent "
            f"chains and {b:.3f} with short ones."
            for k, g, a, b in zip(every, gap, *kl)
        ),
        see="Learning rests when the averages agree; short chains land on the data although their density is wrong.",
        numbers={
            "KL, persistent": tuple(_numeric(v) for v in kl[0]),
            "KL of the density, short": tuple(_numeric(v) for v in kl[1]),
            "KL of the law of short chains": (
                Quantity(
                    of_ends,
                    "estimate",
                    of_ends - 1.96 * ends_error,
                    of_ends + 1.96 * ends_error,
                    stderr=ends_error,
                    n=JUDGED,
                    unit="nats",
                ),
            ),
        },
        checks=_checks(densities, kl, data, np.hypot(data_error, model_error[-1]), of_ends, ends_error),
        rate=4.0,
    )


def _numeric(value: float) -> Quantity:
    return Quantity(float(value), "numeric", float(value) - 1e-6, float(value) + 1e-6, unit="nats")


def _learned(
    title: str, p: np.ndarray, density: np.ndarray, chains: np.ndarray, role: Any, ends: np.ndarray | None = None
) -> Panel:
    """The data's law, the normalised density exp(f) q/Z, and the chains as points below; the law of the last chains."""
    short = ends is not None
    name = "short" if short else "persistent"
    below = np.stack([chains[:, :DRAWN], np.full_like(chains[:, :DRAWN], -0.05)], axis=-1)
    layers: list[Any] = [
        Curve(f"p_data ({name})", _LINE[_SHOWN], p[None, _SHOWN], role="data"),
        Curve(f"exp(f) q / Z ({name})", _LINE[_SHOWN], density[:, _SHOWN], role=role),
        Points(f"chains ({name})", below, role="mark", size=3.5),
    ]
    if ends is not None:
        bins = np.linspace(-8.0, 8.0, 65)
        height = np.histogram(ends, bins)[0] / (len(ends) * np.diff(bins))
        at, all_frames = 0.5 * (bins[1:] + bins[:-1]), np.zeros((len(chains), len(bins) - 1))
        all_frames[-1] = height
        layers.insert(0, Bars("law of the short chains (last frame)", at, all_frames, role="mark", width=0.25))
    y = Scale("density (1/cm)", -0.1, 1.3)
    return Panel(title, Scale("x (cm)", -8.0, 8.0), y, tuple(layers))


def _averages(data: np.ndarray, data_error: np.ndarray, model: np.ndarray, model_error: np.ndarray) -> Panel:
    at = np.arange(float(len(_NAMES)))
    layers = (
        Bars("E_data[∂f]", at - 0.2, data[None], role="data", error=data_error[None], width=0.36),
        Bars("E_chains[∂f]", at + 0.2, model, role="model", error=model_error, width=0.36),
    )
    return Panel(
        "persistent: both averages of ∂f/∂θ",
        Scale("∂f/∂θ: x, sin kωx, cos kωx", names=_NAMES),
        Scale("average", -0.75, 0.95),
        layers,
    )


def _divergences(every: np.ndarray, kl: np.ndarray, of_ends: float) -> Panel:
    steps = every.astype(float) + 1
    layers: list[Any] = []
    learners: tuple[tuple[str, np.ndarray, Role], ...] = (
        ("persistent", kl[0], "model"),
        ("short chains", kl[1], "third"),
    )
    for name, values, role in learners:
        layers.append(Curve(f"density, {name}", steps, values[None], role=role))
        layers.append(Points(f"now, {name}", np.stack([steps, values], axis=-1)[:, None], role=role, size=8.0))
    layers.append(
        Curve("law of the short chains at the end", steps, np.full((1, len(steps)), of_ends), role="mark", dashed=True)
    )
    y = Scale("KL from p_data (nats)", 0.0, 1.6 * float(kl.max()))
    return Panel("how far from the data's law", Scale("updates of θ"), y, tuple(layers))


def _checks(
    densities: list[np.ndarray],
    kl: np.ndarray,
    data: np.ndarray,
    error: np.ndarray,
    of_ends: float,
    ends_error: float,
) -> dict[str, Any]:
    """At the end the model's own averages (not its chains') are the data's; the short learner's density is far off."""
    own = _WIDTH * densities[0][-1] @ slopes_at(_LINE)
    return {
        "persistent: E_pθ[∂f] of the learned density is the data's": monte_carlo({"each": (own, data, error)}),
        "persistent: KL from the data falls below 0.02 nats": rounding({"KL": (excess(kl[0, -1], 0.02), 0.0)}),
        "short: the chains' law is 5 times nearer to the data than the density": rounding(
            {"by 5 standard errors": (excess(5 * (of_ends + 5 * ends_error), kl[1, -1]), 0.0)}
        ),
    }
