"""Spline flows side by side with flowjax and zuko, in one run: a training step, and 4 096 samples.

The flows have the same size: d = 8, 6 layers, two hidden layers of 64, 8 bins, batches of 512 rows. A training step is
the likelihood's gradient, gradient clipping where it is the library's habit, and Adam. Ours runs its steps as the library
does (one compiled loop, with clipping, averaged weights and the health check); flowjax runs its own ``step`` in a Python
loop as its ``fit_to_data`` does; zuko runs the loop of its documentation. Rounds are interleaved.

    python -m benchmarks.flows [--rounds 7] [-o benchmarks/results/flows.md]
"""

from __future__ import annotations

import argparse
import os
import platform
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import torch  # before JAX: the other way round its threads crash  # isort: skip
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax

DIM, LAYERS, WIDTH, DEPTH, BINS, BATCH, ROWS = 8, 6, 64, 2, 8, 512, 8192
STEPS, SAMPLES, RATE = 50, 4096, 1e-3


def rows() -> np.ndarray:
    """A banana in every pair of coordinates: something to learn."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(ROWS, DIM))
    x[:, 1::2] += x[:, ::2] ** 2 - 1
    return x.astype(np.float32)


def ours_steps(autoregressive: bool) -> tuple[Callable[[], None], Callable[[], None], int]:
    """Train and sample with this library."""
    from mulligan.families.training import count_parameters
    from mulligan.learners.gradient import CAPACITY, Plan, gradient_descent
    from mulligan.loop import run
    from mulligan.measures.likelihood import _sample_block
    from mulligan.models.flow import make_flow
    from mulligan.objectives.likelihood import Rows, negative_log_likelihood

    flow = make_flow(
        DIM,
        np.random.default_rng(0),
        layers=LAYERS,
        width=WIDTH,
        depth=1 if autoregressive else DEPTH,  # a residual block is two layers
        bins=BINS,
        autoregressive=autoregressive,
    )
    kernel = gradient_descent(negative_log_likelihood, flow, Rows(jnp.asarray(rows())))
    key = jax.random.key(0)
    state = kernel.init(key, flow)
    inputs = Plan(STEPS, BATCH, RATE).inputs(ROWS, 0)

    def train() -> None:
        run(kernel, key, state, STEPS, inputs=inputs, capacity=CAPACITY)

    def sample() -> None:
        for i in range(SAMPLES // 1024):
            jax.block_until_ready(_sample_block(flow, jax.random.fold_in(key, i), None))

    return train, sample, count_parameters(flow)


def flowjax_steps() -> tuple[Callable[[], None], Callable[[], None], int]:
    """Train and sample with flowjax's coupling flow and its own training step."""
    import paramax
    from flowjax.bijections import RationalQuadraticSpline
    from flowjax.distributions import Normal
    from flowjax.flows import coupling_flow
    from flowjax.train.losses import MaximumLikelihoodLoss
    from flowjax.train.train_utils import step

    flow = coupling_flow(
        jax.random.key(0),
        base_dist=Normal(jnp.zeros(DIM)),
        transformer=RationalQuadraticSpline(knots=BINS, interval=5),
        flow_layers=LAYERS,
        nn_width=WIDTH,
        nn_depth=DEPTH,
    )
    data = jnp.asarray(rows())
    params, static = eqx.partition(
        flow, eqx.is_inexact_array, is_leaf=lambda leaf: isinstance(leaf, paramax.NonTrainable)
    )
    optimizer = optax.adam(RATE)
    opt_state, loss, key = optimizer.init(params), MaximumLikelihoodLoss(), jax.random.key(0)
    order = np.random.default_rng(0).permutation(ROWS)

    def train() -> None:
        p, s = params, opt_state
        value = None
        for i in range(STEPS):
            place = (i * BATCH) % ROWS
            batch = data[order[place : place + BATCH]]
            p, s, value = step(p, static, batch, None, optimizer=optimizer, opt_state=s, loss_fn=loss, key=key)
        jax.block_until_ready((p, value))

    draw = eqx.filter_jit(lambda f, k: f.sample(k, (SAMPLES,)))

    def sample() -> None:
        jax.block_until_ready(draw(flow, key))

    return train, sample, sum(leaf.size for leaf in jax.tree.leaves(params))


def zuko_steps() -> tuple[Callable[[], None], Callable[[], None], int]:
    """Train and sample with zuko's autoregressive spline flow."""
    import zuko

    torch.manual_seed(0)
    flow = zuko.flows.NSF(DIM, transforms=LAYERS, bins=BINS, hidden_features=(WIDTH,) * DEPTH)
    data = torch.from_numpy(rows())
    order = torch.from_numpy(np.random.default_rng(0).permutation(ROWS))

    def train() -> None:
        optimizer = torch.optim.Adam(flow.parameters(), lr=RATE)
        for i in range(STEPS):
            place = (i * BATCH) % ROWS
            loss = -flow().log_prob(data[order[place : place + BATCH]]).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    def sample() -> None:
        with torch.no_grad():
            flow().sample((SAMPLES,))

    return train, sample, sum(p.numel() for p in flow.parameters())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("-o", type=Path, default=Path(__file__).parent / "results" / "flows.md")
    options = parser.parse_args()
    sides = {
        "mulligan flow": ours_steps(False),
        "mulligan flow:autoregressive": ours_steps(True),
        "flowjax coupling": flowjax_steps(),
        "zuko autoregressive": zuko_steps(),
    }
    seconds: dict[tuple[str, int], list[float]] = {(name, task): [] for name in sides for task in (0, 1)}
    for side in sides.values():  # compile and warm up
        for task in (0, 1):
            side[task]()
    for _ in range(options.rounds):
        for task in (0, 1):
            for name, side in sides.items():
                clock = time.perf_counter()
                side[task]()
                seconds[name, task].append(time.perf_counter() - clock)
    lines = [
        "# Spline flows beside peers",
        "",
        f"d = {DIM}, {LAYERS} layers, {DEPTH} hidden layers of {WIDTH}, {BINS} bins, batches of {BATCH}; median of "
        f"{options.rounds} interleaved rounds, {os.cpu_count()} cores, {platform.machine()}; "
        + ", ".join(f"{name} {version(name)}" for name in ("mulligan", "jax", "flowjax", "torch", "zuko"))
        + ". Ratio = time / that of `flow`; in brackets the least and the greatest of any round.",
        "",
        f"| library | parameters | training step, ms | ratio | {SAMPLES:,} samples, ms | ratio |",
        "|---|---|---|---|---|---|",
    ]
    for name, side in sides.items():
        cells = []
        for task, scale in ((0, 1e3 / STEPS), (1, 1e3)):
            mine, theirs = np.array(seconds["mulligan flow", task]), np.array(seconds[name, task])
            ratios = theirs / mine
            middle = float(np.median(theirs) / np.median(mine))
            cells.append(f"{scale * np.median(theirs):.2f} | {middle:.2f} ({ratios.min():.2f} to {ratios.max():.2f})")
        lines.append(f"| {name} | {side[2]:,} | {cells[0]} | {cells[1]} |")
    options.o.parent.mkdir(parents=True, exist_ok=True)
    options.o.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
