"""A training step of the VAE beside an eager PyTorch twin, in one run.

Equal: 2 columns, 2 latent units, an encoder and a decoder of SiLU layers, Gaussian columns with learned scales, batches of
256 rows, the ELBO with its KL in closed form or IWAE-8, Adam. Ours runs as the family ``vae`` does: one compiled loop with
clipped gradients, decay and averaged weights, which the twin leaves out. PyTorch is eager, its loop the usual one. Rounds
are interleaved.

    env -u OPENBLAS_CORETYPE -u OPENBLAS_L2_SIZE python -m benchmarks.vae [--rounds 7] [-o FILE]
"""

from __future__ import annotations

import argparse
import os
import platform
import time
from collections.abc import Callable
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path

import torch  # before JAX: the other way round its threads crash  # isort: skip
import jax
import jax.numpy as jnp
import numpy as np

ROWS, BATCH, STEPS, RATE, LATENT = 8192, 256, 100, 1e-3, 2
SIZES = ((64, 3), (128, 2), (256, 2))  # width and hidden layers
DRAWS = (1, 8)
LEAST = 2.0  # times faster, that is claimed


def points() -> np.ndarray:
    """Eight clouds on a circle."""
    rng = np.random.default_rng(0)
    angle = rng.integers(0, 8, ROWS) * np.pi / 4
    return (np.stack([np.cos(angle), np.sin(angle)], axis=1) + 0.1 * rng.normal(size=(ROWS, 2))).astype(np.float32)


def ours(width: int, depth: int, draws: int) -> Callable[[], None]:
    """Steps of the family ``vae``."""
    from mulligan.data.codec import Part
    from mulligan.data.native import NativeCodec
    from mulligan.data.table import Column, Schema
    from mulligan.learners.gradient import CAPACITY, Plan, plain_descent
    from mulligan.loop import run
    from mulligan.models.columns import columns_of
    from mulligan.models.vae import make_vae
    from mulligan.objectives.evidence import Evidence
    from mulligan.objectives.likelihood import Rows

    schema = Schema(tuple(Column(name, "continuous") for name in "xy"))
    columns = columns_of(NativeCodec(schema, (Part(0, 1), Part(1, 1))))
    model = make_vae(columns, np.random.default_rng(0), latent=LATENT, width=width, depth=depth)
    plan = Plan(STEPS, BATCH, RATE)
    kernel = plain_descent(Evidence(draws), model, Rows(jnp.asarray(points())), plan)
    key = jax.random.key(0)
    state, inputs = kernel.init(key, model), plan.inputs(ROWS, 0)

    def train() -> None:
        done = run(kernel, key, state, STEPS, inputs=inputs, capacity=CAPACITY)
        assert done.step == STEPS and done.healthy

    return train


def theirs(width: int, depth: int, draws: int) -> Callable[[], None]:
    """The same in eager PyTorch."""

    def network(sizes: list[int]) -> torch.nn.Module:
        layers = [[torch.nn.Linear(a, b), torch.nn.SiLU()] for a, b in pairwise(sizes)]
        return torch.nn.Sequential(*[layer for pair in layers for layer in pair][:-1])

    torch.manual_seed(0)
    encoder = network([2, *[width] * depth, 2 * LATENT])
    decoder = network([LATENT, *[width] * depth, 2])
    raw_scales = torch.nn.Parameter(torch.zeros(2))
    optimizer = torch.optim.Adam([*encoder.parameters(), *decoder.parameters(), raw_scales], lr=RATE)
    rows = torch.from_numpy(points())
    order = torch.from_numpy(np.random.default_rng(0).permutation(ROWS))

    def bound(x: torch.Tensor) -> torch.Tensor:
        mean, log_sd = encoder(x).chunk(2, dim=1)
        log_sd = log_sd.clamp(-7, 3)
        noise = torch.randn(draws, *mean.shape)
        z = mean + log_sd.exp() * noise
        scale = torch.nn.functional.softplus(raw_scales) + 1e-3
        log_p = torch.distributions.Normal(decoder(z), scale).log_prob(x).sum(-1)
        if draws == 1:
            return log_p[0] - 0.5 * (mean**2 + (2 * log_sd).exp() - 1 - 2 * log_sd).sum(1)
        log_w = log_p + 0.5 * (noise**2 - z**2).sum(-1) + log_sd.sum(1)
        return torch.logsumexp(log_w, dim=0) - np.log(draws)

    def train() -> None:
        for i in range(STEPS):
            place = (i * BATCH) % ROWS
            loss = -bound(rows[order[place : place + BATCH]]).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    return train


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("-o", type=Path, default=Path(__file__).parent / "results" / "vae.md")
    options = parser.parse_args()
    cases = {
        f"{'ELBO' if draws == 1 else f'IWAE-{draws}'}, {depth} layers of {width}": (width, depth, draws)
        for draws in DRAWS
        for width, depth in SIZES
    }
    sides = {name: (ours(*case), theirs(*case)) for name, case in cases.items()}
    for pair in sides.values():  # compile and warm up
        for side in pair:
            side()
    seconds = {name: np.zeros((2, options.rounds)) for name in sides}
    for i in range(options.rounds):
        for name, pair in sides.items():
            for place, side in enumerate(pair):
                clock = time.perf_counter()
                side()
                seconds[name][place, i] = time.perf_counter() - clock
    lines = [
        "# A training step of the VAE beside eager PyTorch",
        "",
        f"Batches of {BATCH} rows; median of {options.rounds} interleaved rounds of {STEPS} steps, {os.cpu_count()} cores, "
        f"{platform.machine()}; "
        + ", ".join(f"{name} {version(name)}" for name in ("mulligan", "jax", "torch"))
        + ". Ratio = PyTorch's median / ours; in brackets the least and the greatest of any round. What is equal, and what "
        "is not, stands at the head of `benchmarks/vae.py`.",
        "",
        "| step | ours, ms | PyTorch, ms | ratio |",
        "|---|---|---|---|",
    ]
    slowest = np.inf
    for name, (mine, other) in seconds.items():
        a, b = (1e3 / STEPS * np.median(side) for side in (mine, other))
        ratios = other / mine
        slowest = min(slowest, b / a)
        lines.append(f"| {name} | {a:.2f} | {b:.2f} | {b / a:.1f} ({ratios.min():.1f} to {ratios.max():.1f}) |")
    verdict = "holds" if slowest >= LEAST else "does not hold"
    lines += ["", f"At least {LEAST:g} times as fast in every row: **{verdict}** (least: {slowest:.1f})."]
    options.o.parent.mkdir(parents=True, exist_ok=True)
    options.o.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
