"""Diffusion sampling beside diffusers, in one run, as a ratio: 1 024 samples in two dimensions, 300 evaluations of one net.

Both sides have the same weights, start from the same noise and follow DDIM without noise over the same levels of noise, so
they must end at the same points up to rounding; DDPM's ancestral steps are timed, too (their noise differs, so only their
spread is compared). Rounds are interleaved, so that a busy moment of the machine hits both.

    python -m benchmarks.diffusion [--rounds 7] [-o benchmarks/results/diffusion.md]
"""

from __future__ import annotations

import argparse
import os
import platform
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch  # before jax: the other way round its threads are set up too late

import equinox as eqx  # isort: skip
import jax  # isort: skip
import jax.numpy as jnp  # isort: skip

from benchmarks.samplers import interleave  # isort: skip
from mulligan.loop import compile_small  # isort: skip
from mulligan.models.denoiser import Denoiser, make_denoiser  # isort: skip
from mulligan.nets.time import LOWEST, RATIO  # isort: skip
from mulligan.samplers.reverse import reverse_kernel, run_reverse  # isort: skip
from mulligan.targets.noising import VariancePreserving  # isort: skip

SAMPLES, STEPS, DIM, DEPTH = 1024, 300, 2, 3
WIDTHS = (16, 64, 128)  # 64 is the family's own at standard effort
GOAL = 5.0


def a_denoiser(width: int) -> Denoiser:
    """A network with weights that do something: the last layer of a fresh one is 0."""
    model = make_denoiser(DIM, VariancePreserving(), np.random.default_rng(0), output="noise", width=width, depth=DEPTH)
    last = 0.05 * np.random.default_rng(1).standard_normal((DIM, width)).astype(np.float32)
    return eqx.tree_at(lambda m: m.network.weights[-1], model, jnp.asarray(last))


class TheirNetwork(torch.nn.Module):
    """The same function in PyTorch; the features of time are made once a step, for the whole batch."""

    def __init__(self, model: Denoiser):
        super().__init__()
        net = model.network
        pairs = net.time_weights.shape[-1] // 2
        self.omega = torch.tensor(LOWEST * RATIO ** np.arange(pairs), dtype=torch.float32)
        self.time = torch.from_numpy(np.array(net.time_weights))
        self.layers = torch.nn.ModuleList()
        for weight, bias in zip(net.weights, net.biases):
            layer = torch.nn.Linear(weight.shape[1], weight.shape[0])
            layer.weight.data, layer.bias.data = torch.from_numpy(np.array(weight)), torch.from_numpy(np.array(bias))
            self.layers.append(layer)

    def forward(self, x: torch.Tensor, level: torch.Tensor) -> torch.Tensor:
        angle = level * self.omega
        change = self.time @ torch.cat([torch.sin(angle), torch.cos(angle)])
        carried: Any = 0.0
        h = x
        for layer, (shift, scale) in zip(self.layers, change):
            carried = carried + layer(h) * (1 + scale) + shift
            h = torch.nn.functional.silu(carried)
        return self.layers[-1](h)


def theirs_loop(scheduler: Any, network: TheirNetwork, start: torch.Tensor) -> torch.Tensor:
    """diffusers' own loop, as its pipelines write it. The data have unit variance, so u is x itself."""
    ratios = torch.sqrt((1 - scheduler.alphas_cumprod) / scheduler.alphas_cumprod).log()
    x = start.clone()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for t in scheduler.timesteps:
            x = scheduler.step(network(x, ratios[t]), t, x, generator=generator).prev_sample
    return x


@compile_small
def ours_loop(kernel: Any, key: Any, start: Any, times: Any) -> Any:
    keys = jax.random.split(key, len(start))
    return jax.vmap(lambda key, x: run_reverse(kernel, key, x, times))(keys, start)


def floor(width: int, rounds: int) -> float:
    """Seconds of the network's matrix products alone, by torch's: no loop of anybody's can be faster. The least round."""
    layers = [torch.randn(*shape) for shape in ((DIM, width), *[(width, width)] * (DEPTH - 1), (width, DIM))]
    inputs = [torch.randn(SAMPLES, layer.shape[0]) for layer in layers]
    places = [torch.empty(SAMPLES, layer.shape[1]) for layer in layers]
    seconds = []
    for _ in range(rounds):
        clock = time.perf_counter()
        for _ in range(STEPS):
            for layer, given, place in zip(layers, inputs, places):
                torch.mm(given, layer, out=place)
        seconds.append(time.perf_counter() - clock)
    return min(seconds)


def compare(name: str, width: int, rounds: int) -> dict[str, Any]:
    """Seconds of one draw of all samples, on both sides."""
    from diffusers import DDIMScheduler, DDPMScheduler

    settings = {"num_train_timesteps": 1000, "beta_start": 1e-4, "beta_end": 0.02, "clip_sample": False}
    scheduler = (DDIMScheduler if name == "ddim" else DDPMScheduler)(**settings)
    scheduler.set_timesteps(STEPS)
    kept = scheduler.alphas_cumprod.numpy().astype(np.float64)[scheduler.timesteps.numpy()]
    model = a_denoiser(width)
    times = jax.vmap(model.schedule.at_noise)(jnp.asarray(np.sqrt((1 - kept) / kept), jnp.float32))
    start = np.random.default_rng(2).standard_normal((SAMPLES, DIM)).astype(np.float32)
    kernel, network = reverse_kernel(name, model), TheirNetwork(model)
    x, tensor, key = jnp.asarray(start), torch.from_numpy(start), jax.random.key(0)
    found = interleave(
        f"{name}, {width} wide",
        lambda: jax.block_until_ready(ours_loop(kernel, key, x, times)),
        lambda: theirs_loop(scheduler, network, tensor),
        rounds,
        1,
    )
    found["floor"] = floor(width, rounds)
    ours, theirs = np.asarray(found.pop("ours_end")), found.pop("theirs_end").numpy()
    if name == "ddim":
        return found | {"apart": float(np.abs(ours - theirs).max()), "what": "greatest difference of a coordinate"}
    return found | {
        "apart": float(np.abs(ours.std(0) / theirs.std(0) - 1).max()),
        "what": "relative difference of spread",
    }


def report(results: list[dict[str, Any]], rounds: int) -> str:
    """The page of results."""
    versions = ", ".join(f"{name} {version(name)}" for name in ("mulligan", "jax", "torch", "diffusers"))
    lines = [
        "# Diffusion sampling beside diffusers",
        "",
        f"{SAMPLES} samples in {DIM} dimensions, {STEPS} evaluations of one network ({DEPTH} layers, the same "
        f"weights on both sides), float32; median of {rounds} interleaved rounds, {os.cpu_count()} cores, "
        f"{platform.machine()}, {torch.get_num_threads()} threads of torch; {versions}. Ratio = their time / ours; in "
        "brackets the least and the greatest ratio of any round. Compilation is not counted.",
        "",
        "| sampler | ours, s | diffusers, s | ratio | products alone, s | most that any code reaches | goal | holds "
        "| answers |",
        "|" + "---|" * 9,
    ]
    for r in results:
        low, high = r["spread"]
        most = f"{r['floor']:.3f} | {r['theirs'] / r['floor']:.1f}"
        ratio = f"{r['ratio']:.1f} ({low:.1f} to {high:.1f})"
        lines.append(
            f"| {r['name']} | {r['ours']:.3f} | {r['theirs']:.3f} | {ratio} | {most} | {GOAL:g} | "
            f"{'yes' if r['ratio'] >= GOAL else 'NO'} | {r['what']} {r['apart']:.1e} |"
        )
    lines += [
        "",
        "The wider the network, the more of the time is its matrix products, which both sides have alike: "
        f"{STEPS} evaluations of {SAMPLES} rows are {_flops(WIDTHS[-1]):.0f} GFLOP at {WIDTHS[-1]} and "
        f"{_flops(WIDTHS[0]):.1f} at {WIDTHS[0]}. What a compiled loop can save is the rest. Products alone: the "
        "least of the rounds, by torch.mm; activations, noise and the sampler's own sums come on top.",
    ]
    return "\n".join(lines) + "\n"


def _flops(width: int) -> float:
    """Billions of floating-point operations of the matrix products of all evaluations."""
    return 2e-9 * SAMPLES * STEPS * (DEPTH - 1) * width**2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("-o", type=Path, default=Path(__file__).parent / "results" / "diffusion.md")
    options = parser.parse_args()
    handicaps = [name for name in ("OMP_NUM_THREADS", "OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE") if name in os.environ]
    if handicaps:
        print(f"unset {' and '.join(handicaps)} for a fair comparison: they slow the peer down")
        raise SystemExit(2)
    page = report(
        [compare(name, width, options.rounds) for width in WIDTHS for name in ("ddim", "ancestral")], options.rounds
    )
    options.o.parent.mkdir(parents=True, exist_ok=True)
    options.o.write_text(page, encoding="utf-8")
    print(page)


if __name__ == "__main__":
    main()
