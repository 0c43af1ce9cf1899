"""log Z where it is known exactly, by annealed importance sampling in both directions; and a law of 25 holes.

Ising 8x8 (periodic; log Z and the reverse runs' starts by transfer matrix), and a restricted Boltzmann machine of 20x10
units trained by exact gradient on the middle 5x4 pixels of binarised digits (log Z and starts by enumeration). Twenty
seeds each. Then ``grid-gaussians`` by parallel tempering and by Langevin, twenty seeds each.

python -m benchmarks.log_z [--seeds 20] [--smoke] [-o benchmarks/results/log_z.md]
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from functools import partial
from pathlib import Path as File
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from mulligan.loop import compile_small
from mulligan.measures.partition import anneal, bennett, bracket, forward_log_z, reverse_log_z
from mulligan.quantity import Quantity
from mulligan.samplers.annealing import reference_of
from mulligan.samplers.gibbs import BlockGibbs, BoltzmannPath, Gibbs, colouring
from mulligan.samplers.ladder import climb, tune_ladder
from mulligan.samplers.langevin import Langevin, MetropolisLangevin
from mulligan.samplers.many import Many, Thinned
from mulligan.samplers.path import Path, Ratio, StandardNormal
from mulligan.samplers.reference import EvenStates
from mulligan.targets.discrete import RestrictedBoltzmann, states
from mulligan.targets.named import law
from mulligan.targets.transfer import Lattice, TransferMatrix

BETAS = (0.2, 0.4406868, 0.6)
# Below the transition stripes of the wrong phase cross the torus and dissolve slowly: the coldest takes the most.
RUNGS = {0.2: 1000, 0.4406868: 3000, 0.6: 4000}
WIDTH, SECONDS = 0.1, 60.0
CHAINS = 1024
SMOKE_SEEDS = 2


class Problem(NamedTuple):
    """What is to be found: a kernel on a path from q, the exact log Z, and exact draws (n, seed) of its end."""

    name: str
    kernel: Any
    exact: float
    draw: Any
    rungs: int


def ising(beta: float) -> Problem:
    lattice = Lattice((8, 8), beta, periodic=True)
    even = EvenStates(2, 64)
    path = Path(Ratio(lattice, even), even)
    matrix = TransferMatrix(lattice)
    kernel = Gibbs(path, 2, colours=colouring(lattice.edges, 64), affine=True)
    return Problem(f"Ising 8x8, β = {beta:g}", kernel, matrix.log_z, matrix.draw, RUNGS[beta])


def digits() -> np.ndarray:
    """The middle 5 rows and 4 columns of scikit-learn's 8x8 digits, 1 where a pixel is above 7 of 16; (1797, 20)."""
    from sklearn.datasets import load_digits

    images = load_digits().images
    return (images[:, 1:6, 2:6] > 7).reshape(len(images), -1).astype(np.float32)


def hidden_log_weights(w: Any, b: Any, c: Any, h: Any, softplus: Any) -> Any:
    """log Σ_v exp(vᵀWh + bᵀv + cᵀh) of every h, (2^m,)."""
    return h @ c + softplus(b + h @ w.T).sum(axis=1)


def machine(rows: np.ndarray, units: int = 10, steps: int = 1500) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """W, b, c by Adam on the exact mean log p of the rows: log Z is a sum over the 2^10 hidden states."""
    rng = np.random.default_rng(0)
    pixels = rows.shape[1]
    rate = rows.mean(axis=0) * 0.98 + 0.01
    start = (0.1 * rng.normal(size=(pixels, units)), np.log(rate / (1 - rate)), np.zeros(units))
    h = jnp.asarray(states(0, 2**units, 2, units), jnp.float32)
    data, optimiser = jnp.asarray(rows), optax.adam(0.01)

    def loss(theta: Any) -> Any:
        w, b, c = theta
        free = data @ b + jax.nn.softplus(c + data @ w).sum(axis=1)
        log_z = jax.nn.logsumexp(hidden_log_weights(w, b, c, h, jax.nn.softplus))
        return log_z - free.mean()

    @compile_small
    def train(theta: Any) -> Any:
        def one(carry: Any, _: Any) -> Any:
            theta, state = carry
            value, gradient = jax.value_and_grad(loss)(theta)
            update, state = optimiser.update(gradient, state)
            return (optax.apply_updates(theta, update), state), value

        return jax.lax.scan(one, (theta, optimiser.init(theta)), None, length=steps)

    (theta, _), losses = train(tuple(jnp.asarray(leaf, jnp.float32) for leaf in start))
    say(f"RBM: mean log p of its {len(rows)} rows {-float(losses[0]):.3f} -> {-float(losses[-1]):.3f} nats")
    return tuple(np.asarray(leaf, np.float64) for leaf in theta)  # type: ignore[return-value]


def boltzmann() -> Problem:
    rows = digits()
    w, b, c = machine(rows)
    h = states(0, 1024, 2, 10).astype(float)
    log_h = hidden_log_weights(w, b, c, h, partial(np.logaddexp, 0.0))
    peak = log_h.max()
    exact = peak + math.log(np.exp(log_h - peak).sum())
    over_v = float(RestrictedBoltzmann(w, b, c).log_z)  # 2^20 visible states, in float64 (stored in float32)
    assert abs(exact - over_v) < 1e-4, (exact, over_v)

    def draw(n: int, seed: int) -> np.ndarray:
        rng = np.random.default_rng(seed)
        chosen = h[rng.choice(len(h), n, p=np.exp(log_h - exact) / np.exp(log_h - exact).sum())]
        return (rng.uniform(size=(n, 20)) < 1 / (1 + np.exp(-(b + chosen @ w.T)))).astype(float)

    rate = rows.mean(axis=0) * 0.98 + 0.01
    path = BoltzmannPath(*(jnp.asarray(leaf, jnp.float32) for leaf in (w, b, c, np.log(rate / (1 - rate)))))
    return Problem("RBM 20x10 on digits", BlockGibbs(path), exact, draw, 1000)


def estimate(problem: Problem, seed: int, rungs: int) -> tuple[dict[str, Quantity], float]:
    """Both bounds, the bracket and Bennett's estimate, and the seconds that they took."""
    clock = time.perf_counter()
    key = jax.random.key(seed)
    betas = np.linspace(0.0, 1.0, rungs + 1)
    starts = _starts(problem.kernel.log_density, jax.random.fold_in(key, 0), CHAINS)
    forward = anneal(problem.kernel, jax.random.fold_in(key, 1), starts, betas).log_weights
    ends = jnp.asarray(problem.draw(CHAINS, seed), starts.dtype)
    reverse = anneal(problem.kernel, jax.random.fold_in(key, 2), ends, betas, reverse=True).log_weights
    found = {"forward": forward_log_z(forward), "reverse": reverse_log_z(reverse), "bennett": bennett(forward, reverse)}
    found["bracket"] = bracket(found["forward"], found["reverse"], found["bennett"])
    return found, time.perf_counter() - clock


@compile_small
def _starts(path: Any, key: Any, chains: int) -> Any:
    return jax.vmap(reference_of(path))(jax.random.split(key, chains))  # type: ignore[arg-type]


def report(problem: Problem, seeds: int) -> str:
    """A row of the table: in how many seeds each interval holds the exact value, how wide, how long."""
    rungs = problem.rungs if seeds > SMOKE_SEEDS else 200
    found, seconds = zip(*(estimate(problem, seed, rungs) for seed in range(seeds)))
    held = {name: sum(one[name].contains(problem.exact) for one in found) for name in found[0]}
    widths = [one["bracket"].high - one["bracket"].low for one in found]
    off = [one["bennett"].value - problem.exact for one in found]
    crossed = sum("cross" in one["bracket"].note for one in found)
    row = (
        f"| {problem.name} | {rungs:,} | {problem.exact:.4f} | {held['forward']} | {held['reverse']} | "
        f"{held['bracket']} of {seeds} | "
        f"{np.mean(widths):.4f} (largest {max(widths):.4f}) | {held['bennett']} of {seeds} | "
        f"{np.sqrt(np.mean(np.square(off))):.4f} | {max(seconds):.1f} |"
    )
    say(row)
    assert crossed == 0
    if seeds > SMOKE_SEEDS:
        assert held["bracket"] == seeds and max(widths) <= WIDTH and max(seconds) <= SECONDS, row
    return row


# --- a law of 25 holes ------------------------------------------------------------------------------------------------

SETS, STEPS, EVERY = 16, 4000, 2


def holes_found(draws: np.ndarray) -> np.ndarray:
    """Which holes of grid-gaussians hold a draw, of draws (steps, chains, 2): (chains, 25)."""
    holes = law("grid-gaussians").holes
    near = np.linalg.norm(draws[:, :, None] - holes.centres, axis=-1) < holes.radius
    return near.any(axis=0)


@compile_small
def _positions(kernel: Any, key: Any, starts: Any, steps: int) -> Any:
    def one(state: Any, i: Any) -> Any:
        state, _ = kernel.step(jax.random.fold_in(key, i), state)
        return state, state.position

    return jax.lax.scan(one, kernel.init(jax.random.fold_in(key, steps), starts), jnp.arange(steps))[1]


def grid(seeds: int) -> list[str]:
    """Parallel tempering and Langevin with as many gradients, all chains begun at the origin."""
    target, q = law("grid-gaussians"), StandardNormal(2, 3.0)
    path = Path(Ratio(target.log_prob, q), q)
    origin = jnp.zeros((SETS, 2))
    inner = MetropolisLangevin(path, 0.1)
    _, ladder = tune_ladder(inner, jax.random.key(99), origin, every=EVERY, acceptance=0.574)
    tempering = Many(climb(inner, ladder, EVERY))
    rungs = len(ladder.betas)
    steps = STEPS * EVERY * rungs
    # the same number of moves on one chain, at the step size that MALA has on the target itself
    langevin = Many(Thinned(Langevin(target.log_prob, jnp.asarray(ladder.step_sizes[-1], jnp.float32)), EVERY * rungs))
    lines = []
    for name, kernel in (("parallel tempering", tempering), ("Langevin, unadjusted", langevin)):
        clock = time.perf_counter()
        each = [
            holes_found(np.asarray(_positions(kernel, jax.random.key(seed), origin, STEPS))) for seed in range(seeds)
        ]
        seconds = (time.perf_counter() - clock) / seeds
        together = [int(found.any(axis=0).sum()) for found in each]
        alone = [int(count) for found in each for count in found.sum(axis=1)]
        lines.append(f"| {name} | {min(together)}-{max(together)} | {min(alone)}-{max(alone)} | {seconds:.1f} |")
        say(lines[-1])
        if kernel is tempering:
            assert min(together) == 25, lines[-1]
        else:
            assert max(together) < 25, lines[-1]
    return [
        "## grid-gaussians",
        "",
        f"{SETS} chains, all begun at the origin; {STEPS:,} draws each, {steps:,} gradients a chain; a hole counts as found "
        f"when a draw is within its radius of {law('grid-gaussians').holes.radius:.2f} (3 sd). Tempering: {rungs} rungs, "
        f"MALA, {EVERY} moves between exchanges, barrier Λ = {ladder.barrier:.2f}, rejections "
        f"{ladder.rejection.min():.2f} to {ladder.rejection.max():.2f}. Langevin: the step size of MALA's coldest rung. "
        f"{seeds} runs each, fewest-most.",
        "",
        "| sampler | holes found by a run, of 25 | by one of its chains | s a run |",
        "|---|---|---|---|",
        *lines,
    ]


PARTS: dict[str, Any] = {f"ising-{beta:g}": partial(ising, beta) for beta in BETAS}
PARTS |= {"rbm": boltzmann, "grid": None}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--smoke", action="store_true", help="two seeds, fewer rungs: does it run?")
    parser.add_argument(
        "--only", nargs="+", default=list(PARTS), choices=list(PARTS), help="the rest is kept as it was"
    )
    parser.add_argument("-o", type=File, default=File(__file__).parent / "results" / "log_z.md")
    options = parser.parse_args()
    seeds = SMOKE_SEEDS if options.smoke else options.seeds
    kept = options.o.with_suffix(".json")
    found = json.loads(kept.read_text(encoding="utf-8")) if kept.is_file() else {}
    for part in options.only:
        found[part] = grid(seeds) if part == "grid" else [report(PARTS[part](), seeds)]
        kept.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    lines = [
        "# log Z where it is known",
        "",
        f"`python -m benchmarks.log_z`: annealed importance sampling, {CHAINS} runs in each direction, β "
        "evenly spaced, one sweep a rung (Ising: checkerboard Gibbs; RBM: block Gibbs), reverse runs from exact draws; "
        f"{seeds} seeds. Numbers of seeds in which the 95 % interval holds the exact value; the bracket is [forward's low, "
        "reverse's high]. "
        "Seconds of both directions, compilation included in the first seed, the slowest seed.",
        "",
        "| law | rungs | log Z | forward holds | reverse holds | bracket holds | width | Bennett holds | rms error | s |",
        "|---|---|---|---|---|---|---|---|---|---|",
        *(row for part in PARTS if part != "grid" for row in found.get(part, [])),
        "",
        f"Must hold: the bracket in every seed, width at most {WIDTH:g} nats, at most {SECONDS:g} s: **holds**. Bennett's "
        "interval has 95 % and no more, so a miss in twenty is expected.",
        "",
        *found.get("grid", []),
        "",
    ]
    options.o.parent.mkdir(parents=True, exist_ok=True)
    options.o.write_text("\n".join(lines), encoding="utf-8")
    print("\n".join(lines))


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
