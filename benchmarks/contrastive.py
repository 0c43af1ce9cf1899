"""Contrastive divergence side by side with torchebm, in one run: a training step, equal work on both sides.

Network: f of two variables, a multilayer perceptron of SiLU layers; batches of 256 rows; as many chains, each moved by ten
Langevin steps from the rows (CD) or from where they were (PCD); Adam. torchebm runs its ``ContrastiveDivergence`` with its
``LangevinDynamics`` in the loop of its documentation, without energy regularisation. Ours runs as the family ``energy:mle``
does: one compiled loop with clipping, averaged weights and health, and Langevin steps that are adjusted (each is accepted
or not, so a chain has one gradient more) under a Gaussian reference. Machine: a restricted Boltzmann machine, 54 by 108,
CD-1 and PCD-1 by block Gibbs sampling, which torchebm lacks: it is handed a sampler of four lines. Rounds are interleaved.

    env -u OPENBLAS_CORETYPE -u OPENBLAS_L2_SIZE python -m benchmarks.contrastive [--rounds 7] [-o FILE]
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

ROWS, BATCH, STEPS, RATE = 8192, 256, 30, 1e-3
SAMPLER_STEPS, STEP_SIZE = 10, 0.01
SIZES = ((64, 2), (128, 3))  # width and hidden layers
VISIBLE, HIDDEN = 54, 108
LEAST = 3.0  # times faster, that is claimed


def points() -> np.ndarray:
    """Eight clouds on a circle."""
    rng = np.random.default_rng(0)
    angle = rng.integers(0, 8, ROWS) * np.pi / 4
    return (np.stack([np.cos(angle), np.sin(angle)], axis=1) + 0.1 * rng.normal(size=(ROWS, 2))).astype(np.float32)


def switches() -> np.ndarray:
    """Binary rows with common causes."""
    rng = np.random.default_rng(0)
    causes = rng.random((ROWS, 8)) < 0.5
    copied = causes[:, rng.integers(0, 8, VISIBLE)]
    return (copied ^ (rng.random((ROWS, VISIBLE)) < 0.1)).astype(np.float32)


def ours_network(width: int, depth: int, persistent: bool) -> Callable[[], None]:
    """Steps of ``energy:mle``."""
    from mulligan.learners.contrastive import ContrastiveDescent
    from mulligan.learners.gradient import CAPACITY, Plan, plain_descent
    from mulligan.loop import run
    from mulligan.models.energy import make_energy
    from mulligan.objectives.contrastive import contrastive_loss
    from mulligan.objectives.likelihood import Rows
    from mulligan.targets.gaussian import Gaussian

    reference = Gaussian(jnp.zeros(2), jnp.eye(2))
    model = make_energy(reference, 2, np.random.default_rng(0), width=width, depth=depth)
    plan = Plan(STEPS, BATCH, RATE)
    kernel = ContrastiveDescent(
        plain_descent(contrastive_loss, model, Rows(jnp.asarray(points())), plan),
        jnp.ones(1),
        jnp.asarray(STEP_SIZE),
        jnp.asarray(0.05),
        "persistent" if persistent else "data",
        SAMPLER_STEPS,
        BATCH,
        False,
    )
    key = jax.random.key(0)
    state, inputs = kernel.init(key, model), plan.inputs(ROWS, 0)
    return lambda: checked(run(kernel, key, state, STEPS, inputs=inputs, capacity=CAPACITY))


def ours_machine(persistent: bool) -> Callable[[], None]:
    """Steps of ``boltzmann``."""
    from mulligan.learners.boltzmann import base_logits, boltzmann_descent, fresh_machine
    from mulligan.learners.gradient import CAPACITY, Plan, plain_descent
    from mulligan.loop import run
    from mulligan.objectives.contrastive import contrastive_loss
    from mulligan.objectives.likelihood import Rows

    rows = switches()
    machine, plan = fresh_machine(rows, HIDDEN, np.random.default_rng(0)), Plan(STEPS, BATCH, RATE)
    descent = plain_descent(contrastive_loss, machine, Rows(jnp.asarray(rows)), plan)
    kernel = boltzmann_descent(descent, base_logits(rows), chains=BATCH if persistent else 0)
    key = jax.random.key(0)
    state, inputs = kernel.init(key, machine), plan.inputs(ROWS, 0)
    return lambda: checked(run(kernel, key, state, STEPS, inputs=inputs, capacity=CAPACITY))


def checked(run) -> None:
    """All steps were taken."""
    assert run.step == STEPS and run.healthy


def torchebm_steps(model, sampler, data: np.ndarray, k: int, persistent: bool) -> Callable[[], None]:
    """Steps of torchebm's contrastive divergence."""
    from torchebm.losses import ContrastiveDivergence

    loss_of = ContrastiveDivergence(
        model,
        sampler,
        k_steps=k,
        persistent=persistent,
        buffer_size=BATCH,
        init_steps=0,
        new_sample_ratio=0.0,
        energy_reg_weight=0.0,
    )
    optimizer = torch.optim.Adam(model.parameters(), lr=RATE)
    rows = torch.from_numpy(data)
    order = torch.from_numpy(np.random.default_rng(0).permutation(ROWS))

    def train() -> None:
        for i in range(STEPS):
            place = (i * BATCH) % ROWS
            loss, _ = loss_of(rows[order[place : place + BATCH]])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    return train


def torchebm_network(width: int, depth: int, persistent: bool) -> Callable[[], None]:
    """The same network and Langevin steps."""
    from torchebm.core import BaseModel
    from torchebm.samplers import LangevinDynamics

    class Network(BaseModel):
        def __init__(self):
            super().__init__()
            sizes = [2] + [width] * depth
            layers = [[torch.nn.Linear(a, b), torch.nn.SiLU()] for a, b in pairwise(sizes)]
            self.net = torch.nn.Sequential(*[layer for pair in layers for layer in pair], torch.nn.Linear(width, 1))

        def forward(self, x):
            return self.net(x).squeeze(-1)

    torch.manual_seed(0)
    model = Network()
    sampler = LangevinDynamics(model, step_size=STEP_SIZE / 2)
    return torchebm_steps(model, sampler, points(), SAMPLER_STEPS, persistent)


def torchebm_machine(persistent: bool) -> Callable[[], None]:
    """The same machine, with block Gibbs sampling handed over."""
    from torchebm.core import BaseModel, BaseSampler

    class Machine(BaseModel):
        def __init__(self):
            super().__init__()
            self.W = torch.nn.Parameter(0.05 * torch.randn(VISIBLE, HIDDEN))
            self.b, self.c = torch.nn.Parameter(torch.zeros(VISIBLE)), torch.nn.Parameter(torch.zeros(HIDDEN))

        def forward(self, x):
            return -(x @ self.b) - torch.nn.functional.softplus(self.c + x @ self.W).sum(-1)

    class BlockGibbs(BaseSampler):
        @torch.no_grad()
        def sample(self, x, n_steps=1, **ignored):
            for _ in range(n_steps):
                h = torch.bernoulli(torch.sigmoid(self.model.c + x @ self.model.W))
                x = torch.bernoulli(torch.sigmoid(self.model.b + h @ self.model.W.T))
            return x

    torch.manual_seed(0)
    model = Machine()
    return torchebm_steps(model, BlockGibbs(model), switches(), 1, persistent)


def cases() -> dict[str, tuple[Callable[[], None], Callable[[], None]]]:
    """Ours and torchebm's, by name."""
    found = {}
    for persistent in (False, True):
        name = "PCD" if persistent else "CD"
        for width, depth in SIZES:
            label = f"{name}-{SAMPLER_STEPS}, network of {depth} layers of {width}"
            found[label] = (ours_network(width, depth, persistent), torchebm_network(width, depth, persistent))
        label = f"{name}-1, machine of {VISIBLE} by {HIDDEN}"
        found[label] = (ours_machine(persistent), torchebm_machine(persistent))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("-o", type=Path, default=Path(__file__).parent / "results" / "contrastive.md")
    options = parser.parse_args()
    sides = cases()
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
        "# A training step by contrastive divergence beside torchebm",
        "",
        f"Batches of {BATCH} rows and as many chains; median of {options.rounds} interleaved rounds of {STEPS} steps, "
        f"{os.cpu_count()} cores, {platform.machine()}; "
        + ", ".join(f"{name} {version(name)}" for name in ("mulligan", "jax", "torchebm", "torch"))
        + ". Ratio = torchebm's median / ours; in brackets the least and the greatest of any round. What is equal, and what "
        "is not, stands at the head of `benchmarks/contrastive.py`.",
        "",
        "| step | ours, ms | torchebm, ms | ratio |",
        "|---|---|---|---|",
    ]
    slowest = np.inf
    for name, (mine, theirs) in seconds.items():
        a, b = (1e3 / STEPS * np.median(side) for side in (mine, theirs))
        ratios = theirs / mine
        slowest = min(slowest, b / a)
        lines.append(f"| {name} | {a:.2f} | {b:.2f} | {b / a:.1f} ({ratios.min():.1f} to {ratios.max():.1f}) |")
    verdict = "holds" if slowest >= LEAST else "does not hold"
    lines += ["", f"At least {LEAST:g} times as fast in every row: **{verdict}** (least: {slowest:.1f})."]
    options.o.parent.mkdir(parents=True, exist_ok=True)
    options.o.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
