"""Samplers beside torchebm and BlackJAX, in one run, as ratios: equal work on both sides, 1 024 chains in 128 dimensions.

Rounds are interleaved (ours, theirs, ours, …), so that a busy moment of the machine hits both. A fast wrong answer does not
count: both sides must end at the same mean energy. Energies are ½ Σ x² (torchebm's HarmonicModel) and its double well
2 Σ (x² − 1)²; torchebm's GaussianModel multiplies by a dense precision matrix, so the harmonic one is its fair form.
torchebm's Langevin steps by η where ours steps by Δt = 2η. BlackJAX's NUTS is called directly in a loop over the same keys,
and must give the same draws up to the rounding of another program.

    python -m benchmarks.samplers [--rounds 7] [-o benchmarks/results/samplers.md]
"""

from __future__ import annotations

import argparse
import os
import platform
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch  # before jax: the other way round its threads are set up too late

import jax  # isort: skip
import jax.numpy as jnp  # isort: skip

from mulligan.loop import compile_small  # isort: skip
from mulligan.samplers.hmc import HamiltonianMonteCarlo  # isort: skip
from mulligan.samplers.langevin import Langevin  # isort: skip
from mulligan.samplers.many import Many  # isort: skip
from mulligan.samplers.nuts import NoUTurn  # isort: skip

CHAINS, DIM, LEAPFROGS = 1024, 128, 10
GOALS = {"Langevin": 1.5, "HMC": 6.0, "NUTS": 0.9}


def harmonic(x: jax.Array) -> jax.Array:
    """log density of the standard normal."""
    return -0.5 * jnp.sum(x**2)


def wells(x: jax.Array) -> jax.Array:
    """log density of torchebm's double well with its barrier of 2."""
    return -2.0 * jnp.sum((x**2 - 1) ** 2)


@compile_small
def advance(kernel: Any, key: jax.Array, x: jax.Array, steps: jax.Array) -> jax.Array:
    """Positions after so many steps, a traced number: one program for all lengths."""
    many = Many(kernel)

    def one(i: jax.Array, state: Any) -> Any:
        return many.step(jax.random.fold_in(key, i), state)[0]

    return jax.lax.fori_loop(0, steps, one, many.init(key, x)).position


def langevin(name: str, log_density: Any, model: Any, rounds: int) -> dict[str, Any]:
    """200 steps of unadjusted Langevin."""
    from torchebm.samplers import LangevinDynamics

    steps, step = 200, 0.01
    theirs = LangevinDynamics(model, step_size=step / 2)
    return beside_torchebm(f"Langevin, {name}", Langevin(log_density, step), theirs, log_density, steps, rounds)


def hmc(name: str, log_density: Any, model: Any, rounds: int) -> dict[str, Any]:
    """50 steps of HMC of 10 leapfrogs."""
    from torchebm.samplers import HamiltonianMonteCarlo as Theirs

    steps, step = 50, 0.05
    theirs = Theirs(model, step_size=step, n_leapfrog_steps=LEAPFROGS)
    kernel = HamiltonianMonteCarlo(log_density, step, LEAPFROGS, 1.0, 0.0)
    return beside_torchebm(f"HMC of {LEAPFROGS} leapfrogs, {name}", kernel, theirs, log_density, steps, rounds)


def beside_torchebm(name: str, kernel: Any, sampler: Any, log_density: Any, steps: int, rounds: int) -> dict[str, Any]:
    """Both from the same points, so many steps; the answer is the mean energy at the end."""
    start = np.random.default_rng(0).normal(size=(CHAINS, DIM)).astype(np.float32)
    x, tensor, key = jnp.asarray(start), torch.from_numpy(start), jax.random.key(0)
    energy = compile_small(lambda y: -jnp.mean(jax.vmap(log_density)(y)))

    def ours() -> Any:
        return jax.block_until_ready(advance(kernel, key, x, jnp.int32(steps)))

    def theirs() -> Any:
        return sampler.sample(x=tensor.clone(), n_steps=steps)

    found = interleave(name, ours, theirs, rounds, steps)
    answers = [float(energy(jnp.asarray(np.asarray(found.pop(side))))) for side in ("ours_end", "theirs_end")]
    return found | {"difference": abs(answers[0] / answers[1] - 1), "peer": "torchebm"}


def nuts(rounds: int) -> dict[str, Any]:
    """20 steps of NUTS of 64 chains, and of BlackJAX called directly on the same keys."""
    import blackjax

    chains, steps = 64, 20
    start = jnp.asarray(np.random.default_rng(0).normal(size=(chains, DIM)).astype(np.float32))
    scale, key = jnp.asarray(np.linspace(0.5, 2.0, DIM, dtype=np.float32)), jax.random.key(0)
    kernel = NoUTurn(harmonic, 0.3, scale)
    direct = blackjax.nuts(harmonic, jnp.asarray(0.3), scale)
    compiled = compile_small(
        lambda key, x: (
            jax.lax.fori_loop(
                0,
                steps,
                lambda i, s: jax.vmap(direct.step)(jax.random.split(jax.random.fold_in(key, i), chains), s)[0],
                jax.vmap(direct.init)(x),
            ).position
        )
    )

    def ours() -> Any:
        return jax.block_until_ready(advance(kernel, key, start, jnp.int32(steps)))

    def theirs() -> Any:
        return jax.block_until_ready(compiled(key, start))

    found = interleave(f"NUTS, {chains} chains, normal", ours, theirs, rounds, steps)
    apart = float(jnp.abs(found.pop("ours_end") - found.pop("theirs_end")).max())
    return found | {"difference": apart, "peer": "BlackJAX"}


def interleave(name: str, ours: Callable, theirs: Callable, rounds: int, per: int) -> dict[str, Any]:
    """Seconds a step of both, round by round, after one round that compiles and does not count."""
    seconds: dict[str, list[float]] = {"ours": [], "theirs": []}
    ends = {}
    for i in range(rounds + 1):
        for side, function in (("ours", ours), ("theirs", theirs)):
            clock = time.perf_counter()
            ends[f"{side}_end"] = function()
            if i:
                seconds[side].append((time.perf_counter() - clock) / per)
    a, b = np.array(seconds["ours"]), np.array(seconds["theirs"])
    numbers = {"ours": float(np.median(a)), "theirs": float(np.median(b)), "ratio": float(np.median(b) / np.median(a))}
    print(name, numbers, flush=True)
    return {"name": name, "spread": (float((b / a).min()), float((b / a).max()))} | numbers | ends


def by_chains(rounds: int) -> list[tuple[int, float]]:
    """Microseconds a step and chain of HMC, for 1 000 to 16 000 chains."""
    key, found, steps = jax.random.key(0), [], 20
    kernel = HamiltonianMonteCarlo(wells, 0.05, LEAPFROGS, 1.0, 0.0)
    for chains in (1000, 2000, 4000, 8000, 16000):
        x = jnp.asarray(np.random.default_rng(0).normal(size=(chains, DIM)).astype(np.float32))
        times = []
        for _ in range(rounds + 1):
            clock = time.perf_counter()
            jax.block_until_ready(advance(kernel, key, x, jnp.int32(steps)))
            times.append(time.perf_counter() - clock)
        found.append((chains, float(np.median(times[1:])) / steps / chains * 1e6))
        print(found[-1], flush=True)
    return found


def report(results: list[dict[str, Any]], chains: list[tuple[int, float]], rounds: int) -> str:
    """The page of results."""
    packages = ("mulligan", "jax", "torch", "torchebm", "blackjax")
    versions = ", ".join(f"{name} {version(name)}" for name in packages)
    lines = [
        "# Samplers beside peers",
        "",
        f"{CHAINS} chains in {DIM} dimensions where nothing else is said, float32; median of {rounds} interleaved rounds, "
        f"{os.cpu_count()} cores, {platform.machine()}, {torch.get_num_threads()} threads of torch; {versions}. Ratio = "
        "their time / ours; in brackets the least and the greatest ratio of any round.",
        "",
        "| what | peer | ours, ms a step | theirs, ms a step | ratio | goal | holds |",
        "|---|---|---|---|---|---|---|",
    ]
    for r in results:
        goal = GOALS[r["name"].split(",")[0].split(" ")[0]]
        low, high = r["spread"]
        lines.append(
            f"| {r['name']} | {r['peer']} | {1e3 * r['ours']:.3f} | {1e3 * r['theirs']:.3f} | "
            f"{r['ratio']:.2f} ({low:.2f} to {high:.2f}) | {goal} | {'yes' if r['ratio'] >= goal else 'NO'} |"
        )
    lines += ["", "The answers: " + "; ".join(f"{r['name']}: {r['difference']:.1e}" for r in results) + "."]
    lines += [
        "(Relative difference of the mean energy at the end; of NUTS the greatest difference of any coordinate.)",
        "",
    ]
    lines += ["HMC on the double well, microseconds a step and chain (linear in chains where it does not grow):", ""]
    lines += ["| chains | µs |", "|---|---|", *(f"| {n} | {micro:.3f} |" for n, micro in chains)]
    return "\n".join(lines) + "\n"


def main() -> None:
    from torchebm.core import DoubleWellModel, HarmonicModel

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("-o", type=Path, default=Path(__file__).parent / "results" / "samplers.md")
    options = parser.parse_args()
    handicaps = [name for name in ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE") if name in os.environ]
    if handicaps:
        print(f"unset {' and '.join(handicaps)} for a fair comparison: they slow the peers' matrix products")
        raise SystemExit(2)
    results = []
    for name, log_density, model in (
        ("normal", harmonic, HarmonicModel()),
        ("double well", wells, DoubleWellModel()),
    ):
        x = torch.linspace(-1.5, 1.5, 5)[None]
        ours = -np.asarray(jax.vmap(log_density)(jnp.asarray(x.numpy())))
        assert np.allclose(ours, model(x).detach().numpy(), rtol=1e-5), (name, ours, model(x))
        results += [langevin(name, log_density, model, options.rounds), hmc(name, log_density, model, options.rounds)]
    results.append(nuts(options.rounds))
    page = report(results, by_chains(options.rounds), options.rounds)
    options.o.parent.mkdir(parents=True, exist_ok=True)
    options.o.write_text(page, encoding="utf-8")
    print(page)


if __name__ == "__main__":
    main()
