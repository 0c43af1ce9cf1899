"""Momentum: at the same number of gradients Hamiltonian Monte Carlo travels along a hill, where Langevin diffuses.

Definition. A leapfrog step of ε and a Langevin step of Δt = ε² cost one gradient each, and both must be small against the
narrow way across the hill. L leapfrog steps go a distance of order Lε along it, L Langevin steps of order √L ε. Serves
``hmc.smooth`` and ``hmc.reversible``.
"""

from __future__ import annotations

from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mulligan.lab.experiment import Range, experiment
from mulligan.lab.experiments.estimates import Z95, estimates
from mulligan.lab.identity import Check, mean_and_error, monte_carlo
from mulligan.lab.recording import Curve, Field, Panel, Paths, Points, Recording, Scale
from mulligan.loop import compile_small
from mulligan.samplers.chance import chance
from mulligan.samplers.hmc import HamiltonianMonteCarlo, Shot, leapfrog
from mulligan.samplers.langevin import MetropolisLangevin
from mulligan.samplers.point import point_at
from mulligan.targets.gaussian import Gaussian

TRAJECTORIES = 6
NARROW = 0.4  # standard deviation across the hill
TILT = 0.5  # radians
SHOWN = 3  # of the chains
REACH = 16.0


class Run(NamedTuple):
    """``path`` (gradients + 1, n, 2) of all chains; ``energy`` (trajectories, leaps + 1, n), H − H at the start;
    ``accepted`` (trajectories or steps, n), probabilities.

    >>> Run._fields
    ('path', 'energy', 'accepted')
    """

    path: Any
    energy: Any
    accepted: Any


@compile_small
def _shoot(kernel: HamiltonianMonteCarlo, start: Any, key: Any) -> Run:
    """Trajectories of the library's kernel, with every leap on the way."""
    law, leaps = kernel.log_density, kernel.steps

    def trajectory(x: Any, key: Any) -> Any:
        normal, uniform = chance(key, x.size, 1, x.dtype)
        shot = Shot(normal, uniform[0], jnp.full((), 0.5))

        def leap(carry: Any, _: Any) -> Any:
            point, momentum = leapfrog(law, carry[0], carry[1], kernel.step_size, 1)
            return (point, momentum), (point.position, 0.5 * momentum @ momentum - point.log_density)

        at = point_at(law, x)
        _, (way, energy) = jax.lax.scan(leap, (at, normal), None, leaps)
        end, info = kernel.move(at, shot, None)
        before = 0.5 * normal @ normal - at.log_density
        way = way.at[-1].set(end.position)  # where the decision leaves the chain
        return end.position, (way, jnp.concatenate([jnp.zeros(1), energy - before]), info.acceptance)

    def one(x: Any, key: Any) -> Any:
        _, (way, energy, accepted) = jax.lax.scan(trajectory, x, jax.random.split(key, TRAJECTORIES))
        return jnp.concatenate([x[None], way.reshape(-1, x.size)]), energy, accepted

    path, energy, accepted = jax.vmap(one)(start, jax.random.split(key, start.shape[0]))
    return Run(path.swapaxes(0, 1), jnp.moveaxis(energy, 0, -1), accepted.T)


@compile_small
def _diffuse(kernel: MetropolisLangevin, start: Any, key: Any, gradients: int) -> Run:
    """As many steps of adjusted Langevin."""

    def step(state: Any, key: Any) -> Any:
        state, info = kernel.step(key, state)
        return state, (state.position, info.acceptance)

    def one(x: Any, key: Any) -> Any:
        _, (way, accepted) = jax.lax.scan(step, kernel.init(key, x), jax.random.split(key, gradients))
        return jnp.concatenate([x[None], way]), accepted

    path, accepted = jax.vmap(one)(start, jax.random.split(key, start.shape[0]))
    return Run(path.swapaxes(0, 1), None, accepted.T)


@experiment(7, "Momentum against Langevin, gradient by gradient")
def momentum(
    *,
    length: Annotated[float, Range(1.0, 6.0)] = 6.0,
    step: Annotated[float, Range(0.05, 0.75)] = 0.3,
    leaps: Annotated[int, Range(4, 60)] = 20,
    chains: Annotated[int, Range(100, 10_000)] = 2000,
    seed: int = 0,
) -> Recording:
    """E|x − x_0|² from exact draws of a long narrow hill, by the number of gradients: momentum against Langevin.

    H = −log π + ½|p|²; the leapfrog's error in H decides what is accepted. Parameters: ``length``, standard deviation
    along the hill (across it 0.4); ``step`` ε, and Δt = ε²; ``leaps`` L of a trajectory, of which there are 6; ``chains``.
    Raises UsageError for a value out of its range. Duane et al. 1987; Neal 2011.

    >>> from mulligan.lab.experiments.momentum import momentum
    >>> momentum(chains=300, leaps=10, seed=1).holds
    True
    """
    turn = np.array([[np.cos(TILT), -np.sin(TILT)], [np.sin(TILT), np.cos(TILT)]])
    variances = np.array([length, NARROW]) ** 2
    law = Gaussian.from_covariance(np.zeros(2), turn @ np.diag(variances) @ turn.T)
    start = jnp.asarray(np.random.default_rng(seed).normal(size=(chains, 2)) * np.sqrt(variances) @ turn.T)
    start = start.at[:SHOWN].set((np.array([[-1.2, 0], [0, 0], [1.1, 0.0]]) * length) @ turn.T)  # drawn, not counted
    keys = jax.random.split(jax.random.key(seed))
    kernel = HamiltonianMonteCarlo(law.log_prob, jnp.asarray(step), leaps, jitter=jnp.zeros(()))
    shot = Run(*map(np.asarray, _shoot(kernel, start, keys[0])))
    walk = _diffuse(MetropolisLangevin(law.log_prob, jnp.asarray(step**2)), start, keys[1], TRAJECTORIES * leaps)
    paths = {"momentum": shot.path, "Langevin": np.asarray(walk.path)}
    gradients = TRAJECTORIES * leaps
    shown = np.unique(np.linspace(0, gradients, 31).round().astype(int))
    squares = {name: ((path - path[0]) ** 2).sum(axis=-1)[:, SHOWN:] for name, path in paths.items()}
    return Recording(
        panels=(
            _hill("momentum", paths["momentum"], law, shown),
            _hill("Langevin", paths["Langevin"], law, shown),
            _distance(squares, shown, 2 * float(variances.sum())),
            _energies(shot.energy[:, :, SHOWN:], shown, leaps),
        ),
        captions=tuple(_caption(int(n), leaps) for n in shown),
        see="For the same number of gradients momentum crosses the hill again and again; Langevin stays near its start.",
        numbers={
            "E|x − x₀|², momentum": estimates(squares["momentum"][shown]),
            "E|x − x₀|², Langevin": estimates(squares["Langevin"][shown]),
            "accepted, momentum": estimates(shot.accepted[:, SHOWN:].mean(axis=0)[None]),
            "accepted, Langevin": estimates(np.asarray(walk.accepted)[:, SHOWN:].mean(axis=0)[None]),
        },
        checks=_checks(squares, shot, paths, turn[:, 0] / length, leaps),
        rate=4.0,
    )


def _checks(
    squares: dict[str, np.ndarray], shot: Run, paths: dict[str, np.ndarray], along: np.ndarray, leaps: int
) -> dict[str, Check]:
    ahead, error = mean_and_error((squares["momentum"] - squares["Langevin"])[leaps])
    kept = {name: mean_and_error((path[-1, SHOWN:] @ along) ** 2) for name, path in paths.items()}
    volume, volume_error = mean_and_error(np.exp(-shot.energy[0, -1, SHOWN:]))
    return {
        "after one trajectory's gradients momentum is farther": monte_carlo(
            {"5 standard errors": (max(0.0, 5 * float(error) - float(ahead)), 0.0, error)}
        ),
        "both keep the variance along the hill": monte_carlo({name: (m, 1.0, e) for name, (m, e) in kept.items()}),
        "E exp(−ΔH) = 1": monte_carlo({"first trajectory": (volume, 1.0, volume_error)}),
    }


def _caption(n: int, leaps: int) -> str:
    if n == 0:
        return "both start at the same three places; each leap and each Langevin step will cost one gradient"
    return f"{n} gradients: {n // leaps} whole trajectories with momentum, or {n} Langevin steps"


def _hill(name: str, path: np.ndarray, law: Gaussian, shown: np.ndarray) -> Panel:
    """The paths of three chains over the hill."""
    axis = np.linspace(-REACH, REACH, 97)
    grid = jnp.asarray(np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2))
    density = np.sqrt(np.exp(np.asarray(jax.vmap(law.log_prob)(grid)))).reshape(1, 97, 97)  # the root shows the tails
    x, y = Scale("x₁", -REACH, REACH), Scale("x₂", -10.0, 10.0)
    way = Paths(f"three chains, {name}", path[:, :SHOWN].swapaxes(0, 1), shown + 1.0, "mark", 1.3, 0.9)
    title = {"momentum": "momentum (HMC)", "Langevin": "Langevin, adjusted"}[name]
    return Panel(f"{title}: three chains", x, y, (Field("√π", axis, axis, density), way), legend=False)


def _distance(squares: dict[str, np.ndarray], shown: np.ndarray, rest: float) -> Panel:
    """E|x − x₀|² against gradients with 95 % bands, and where this frame is."""
    n = np.arange(len(squares["momentum"]), dtype=float)
    layers: list[Any] = [Curve("independent draws", n[[0, -1]], np.full((1, 2), rest), "ink", dashed=True)]
    for name, role in (("momentum", "model"), ("Langevin", "mark")):
        mean, error = mean_and_error(squares[name].T)
        band = {"low": (mean - Z95 * error)[None], "high": (mean + Z95 * error)[None]}
        layers.append(Curve(f"E|x − x₀|², {name}", n, mean[None], role, **band))  # type: ignore[arg-type]
        layers.append(Points(f"now, {name}", np.stack([n, mean], axis=-1)[shown][:, None], role, 9.0, 0.6))  # type: ignore[arg-type]
    y = Scale("E|x − x₀|² (units of x²)", 0.0, 1.9 * rest)
    return Panel("how far from the start", Scale("gradients"), y, tuple(layers))


def _energies(energy: np.ndarray, shown: np.ndarray, leaps: int) -> Panel:
    """H along the trajectory of this frame: the root mean square of its error over all chains, and one chain's."""
    latest = np.minimum(np.maximum(shown - 1, 0) // leaps, len(energy) - 1)
    size = np.sqrt((energy**2).mean(axis=-1))[latest]
    leap = np.arange(leaps + 1.0)
    layers = (
        Curve("one chain", leap, energy[latest, :, 0], "model", dots=True),
        Curve("± root mean square, all chains", leap, size, "data", low=-size, high=size),
    )
    most = 6 * float(size.max())
    title = "error of the energy along this trajectory"
    return Panel(title, Scale("leap"), Scale("H − H at its start (nats)", -most, most), layers)
