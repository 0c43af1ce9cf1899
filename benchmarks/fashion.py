"""Fashion-MNIST: what a classifier of ours makes of a model's samples, and a training step beside eager PyTorch.

The classifier is a small convolutional network, trained here on the 60 000 labelled training pictures; its accuracy on the
10 000 test pictures is stated, and so is what it makes of as many test pictures as there are samples. The Fréchet distance
is on its last features, and is comparable with nothing but itself.

A training step of the U-Net, equal on both sides: architecture, numbers of channels, weights, batch, picture size, levels
of noise, weighted squared error, Adam. Ours runs as the family ``diffusion`` does: one compiled loop with clipped gradients,
decay and averaged weights, which the twin leaves out. PyTorch is eager, its loop the usual one. Rounds are interleaved.

    mulligan sample fashion -n 500 -o fashion.npy
    env -u OPENBLAS_CORETYPE -u OPENBLAS_L2_SIZE python -m benchmarks.fashion DATA fashion.npy [--rounds 7] [-o FILE]

DATA is the folder of the four files (train-images-idx3-ubyte.gz and so on).
"""

from __future__ import annotations

import argparse
import gzip
import os
import platform
import time
from collections.abc import Callable
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import torch  # before JAX: the other way round its threads crash  # isort: skip
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from mulligan.data.images import read_idx
from mulligan.learners.gradient import CAPACITY, Plan, plain_descent
from mulligan.loop import compile_small, run
from mulligan.measures.frechet import frechet_distance
from mulligan.measures.likelihood import in_blocks
from mulligan.nets.convolution import Encoder, make_encoder
from mulligan.nets.time import LOWEST, RATIO
from mulligan.nets.unet import PAIRS, make_unet

SHAPE, CLASSES, FEATURES = (28, 28, 1), 10, 64
CLASSIFIER = Plan(1200, batch=128, rate=3e-3)
CONFIDENT, MOST_OF_A_CLASS, LEAST_SHARE = 0.8, 0.3, 0.5
NAMES = ("T-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "boot")
BATCH, STEPS, RATE, CHANNELS = 32, 4, 1e-3, (32, 64, 96)


class Labelled(NamedTuple):
    """Pictures (n, 784) from 0 to 1 and their classes."""

    pictures: Any
    classes: Any


class Classifier(eqx.Module):
    """Features of a picture, and from them the logits of the classes."""

    encoder: Encoder
    weights: Float[Array, "c q"]

    def features(self, x: Array) -> Array:
        return jax.nn.silu(self.encoder(x - 0.3))

    def __call__(self, x: Array) -> Array:
        return self.weights @ self.features(x)


def cross_entropy(model: Classifier, key: Any, batch: Labelled) -> tuple[Array, dict[str, Array]]:
    """Mean of −log p(class | picture), each picture turned left for right by chance: clothes stay what they are."""
    turned = jax.random.bernoulli(key, 0.5, (len(batch.classes), 1, 1))
    square = batch.pictures.reshape(-1, *SHAPE[:2])
    pictures = jnp.where(turned, square[:, :, ::-1], square).reshape(len(square), -1)
    logits = jax.vmap(model)(pictures)
    chosen = jnp.take_along_axis(logits, batch.classes[:, None], 1)[:, 0]
    loss = jnp.mean(jax.nn.logsumexp(logits, axis=1) - chosen)
    return loss, {"train": -loss}


def labelled(folder: Path, part: str) -> Labelled:
    name = f"{part}-images-idx3-ubyte.gz"
    pictures = read_idx(name, (folder / name).read_bytes()).reshape(-1, 784)
    marks = gzip.decompress((folder / f"{part}-labels-idx1-ubyte.gz").read_bytes())[8:]
    return Labelled(pictures.astype(np.float32) / 255, np.frombuffer(marks, np.uint8).astype(np.int32))


def classifier(rows: Labelled) -> Classifier:
    """A network trained on these."""
    rng = np.random.default_rng(0)
    reach = np.sqrt(3 / FEATURES)
    last = jnp.asarray(rng.uniform(-reach, reach, (CLASSES, FEATURES)).astype(np.float32))
    fresh = Classifier(make_encoder(SHAPE, FEATURES, rng, channels=(24, 48)), last)
    kernel, key = plain_descent(cross_entropy, fresh, rows, CLASSIFIER), jax.random.key(0)
    inputs = CLASSIFIER.inputs(len(rows.classes), 0)
    done = run(kernel, key, kernel.init(key, fresh), CLASSIFIER.steps, inputs=inputs, capacity=CAPACITY)
    return kernel.model(done.state)


@compile_small
def _judged(model: Classifier, block: Any) -> Any:
    logits = jax.vmap(model)(jnp.asarray(block))
    return jnp.concatenate([jax.nn.softmax(logits), jax.vmap(model.features)(jnp.asarray(block))], axis=1)


def judged(model: Classifier, pictures: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities of the classes (n, 10) and features (n, 64)."""
    both = in_blocks(lambda block: _judged(model, block), pictures)
    return both[:, :CLASSES], both[:, CLASSES:]


def ours() -> Callable[[], None]:
    """Steps of the family ``diffusion``."""
    from mulligan.models.denoiser import make_denoiser
    from mulligan.objectives.denoising import Denoising
    from mulligan.objectives.likelihood import Rows
    from mulligan.targets.noising import EDM

    rows = np.random.default_rng(0).normal(size=(1024, 784)).astype(np.float32)
    model = make_denoiser(
        784,
        EDM(),
        np.random.default_rng(0),
        whole=True,
        points=rows,
        network=lambda inputs, outputs, generator: make_unet(SHAPE, generator, channels=CHANNELS),
    )
    plan = Plan(100_000, BATCH, RATE)
    kernel = plain_descent(Denoising(), model, Rows(jnp.asarray(rows)), plan)
    key, inputs = jax.random.key(0), plan.inputs(len(rows), 0)
    state = kernel.init(key, model)

    def train() -> None:
        done = run(kernel, key, state, STEPS, inputs=inputs, capacity=CAPACITY)
        assert done.step == STEPS and done.healthy

    return train


class TorchBlock(torch.nn.Module):
    """``mulligan.nets.unet.Block``."""

    def __init__(self, inputs: int, outputs: int, features: int):
        super().__init__()
        self.first_norm, self.second_norm = torch.nn.GroupNorm(8, inputs), torch.nn.GroupNorm(8, outputs)
        self.first = torch.nn.Conv2d(inputs, outputs, 3, padding=1)
        self.second = torch.nn.Conv2d(outputs, outputs, 3, padding=1)
        self.level = torch.nn.Linear(features, 2 * outputs, bias=False)
        self.skip = None if inputs == outputs else torch.nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: torch.Tensor, e: torch.Tensor) -> torch.Tensor:
        silu = torch.nn.functional.silu
        scale, shift = self.level(e)[:, :, None, None].chunk(2, dim=1)
        h = self.first(silu(self.first_norm(x)))
        h = self.second(silu(self.second_norm(h) * (1 + scale) + shift))
        return h + (x if self.skip is None else self.skip(x))


class TorchUNet(torch.nn.Module):
    """``mulligan.nets.unet.UNet`` for pictures of more than 16 pixels."""

    def __init__(self, channels: tuple[int, ...]):
        super().__init__()
        wide = 2 * channels[0]
        self.inward = torch.nn.Conv2d(4, channels[0], 3, padding=1)
        steps = list(pairwise(channels))
        self.down = torch.nn.ModuleList([TorchBlock(now, now, wide) for now, _ in steps])
        self.shrinks = torch.nn.ModuleList([torch.nn.Conv2d(4 * now, after, 1) for now, after in steps])
        self.middle = TorchBlock(channels[-1], channels[-1], wide)
        self.grows = torch.nn.ModuleList([torch.nn.Conv2d(after, 4 * now, 1) for now, after in steps[::-1]])
        self.up = torch.nn.ModuleList([TorchBlock(2 * now, now, wide) for now, _ in steps[::-1]])
        self.last_norm, self.outward = torch.nn.GroupNorm(8, channels[0]), torch.nn.Conv2d(channels[0], 4, 3, padding=1)
        self.embed = torch.nn.Sequential(
            torch.nn.Linear(2 * PAIRS, wide), torch.nn.SiLU(), torch.nn.Linear(wide, wide, bias=False), torch.nn.SiLU()
        )

    def forward(self, x: torch.Tensor, level: torch.Tensor) -> torch.Tensor:
        functional = torch.nn.functional
        waves = level[:, None] * torch.from_numpy((LOWEST * RATIO ** np.arange(PAIRS)).astype(np.float32))
        e = self.embed(torch.cat([waves.sin(), waves.cos()], dim=1))
        x, kept = self.inward(functional.pixel_unshuffle(x, 2)), []
        for block, shrink in zip(self.down, self.shrinks):
            x = block(x, e)
            kept.append(x)
            x = shrink(functional.pixel_unshuffle(functional.pad(x, (0, x.shape[3] % 2, 0, x.shape[2] % 2)), 2))
        x = self.middle(x, e)
        for block, grow in zip(self.up, self.grows):
            before = kept.pop()
            grown = functional.pixel_shuffle(grow(x), 2)[:, :, : before.shape[2], : before.shape[3]]
            x = block(torch.cat([grown, before], dim=1), e)
        x = self.outward(functional.silu(self.last_norm(x)))
        return functional.pixel_shuffle(x, 2)


def theirs() -> tuple[Callable[[], None], int]:
    """The same in eager PyTorch, and its number of weights."""
    torch.manual_seed(0)
    torch.set_num_threads(os.cpu_count() or 1)
    net = TorchUNet(CHANNELS)
    optimizer = torch.optim.Adam(net.parameters(), lr=RATE)
    rows = torch.from_numpy(np.random.default_rng(0).normal(size=(1024, 1, 28, 28)).astype(np.float32))

    def train() -> None:
        for i in range(STEPS):
            x = rows[i * BATCH : (i + 1) * BATCH]
            sigma = torch.exp(1.6 * torch.randn(BATCH) - 2.0)[:, None, None, None]
            noisy = x + sigma * torch.randn_like(x)
            total = (1 + sigma**2).sqrt()
            found = noisy / total**2 - sigma / total * net(noisy / total, sigma[:, 0, 0, 0].log())
            loss = ((total / sigma) ** 2 * (x - found) ** 2).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    return train, sum(leaf.numel() for leaf in net.parameters())


def speed(rounds: int) -> list[str]:
    """A table of one row: milliseconds of a step on both sides, and the ratio."""
    mine, (other, weights) = ours(), theirs()
    same = sum(leaf.size for leaf in jax.tree.leaves(make_unet(SHAPE, np.random.default_rng(0), channels=CHANNELS)))
    assert same == weights, (same, weights)
    sides = (mine, other)
    seconds = np.zeros((2, rounds))
    for side in sides:  # compile and warm up
        side()
    for i in range(rounds):
        for place, side in enumerate(sides):
            clock = time.perf_counter()
            side()
            seconds[place, i] = time.perf_counter() - clock
    a, b = 1e3 / STEPS * np.median(seconds, axis=1)
    ratios = seconds[1] / seconds[0]
    spread = f"{b / a:.2f} ({ratios.min():.2f} to {ratios.max():.2f})"
    return [
        f"## A training step of the U-Net ({same:,} weights, channels {CHANNELS}, batches of {BATCH})",
        "",
        f"Median of {rounds} interleaved rounds of {STEPS} steps, {os.cpu_count()} cores, {platform.machine()}; "
        + ", ".join(f"{name} {version(name)}" for name in ("mulligan", "jax", "torch"))
        + ". Ratio = PyTorch's median / ours; in brackets the least and the greatest of any round.",
        "",
        "| ours, ms | eager PyTorch, ms | ratio |",
        "|---|---|---|",
        f"| {a:.0f} | {b:.0f} | {spread} |",
        "",
    ]


def quality(folder: Path, samples: np.ndarray) -> list[str]:
    """What the classifier makes of samples, beside as many test pictures."""
    model, test = classifier(labelled(folder, "train")), labelled(folder, "t10k")
    sure, features = judged(model, test.pictures)
    accuracy = float(np.mean(sure.argmax(1) == test.classes))
    samples = samples.reshape(len(samples), -1).astype(np.float32) / 255
    n = len(samples)
    rows = {"samples": judged(model, samples), "test pictures": (sure[:n], features[:n])}
    lines = [
        f"## {n} samples before a classifier of ours",
        "",
        f"Its test accuracy is {100 * accuracy:.1f} % (10 000 pictures).",
        "",
        f"| | at least {100 * CONFIDENT:.0f} % confident | largest class | Fréchet distance to other test pictures |",
        "|---|---|---|---|",
    ]
    for name, (found, marks) in rows.items():
        shares = np.bincount(found.argmax(1), minlength=CLASSES) / n
        distance = frechet_distance(features[n:], marks, 0, "our classifier")
        known = (
            "none" if distance.value is None else f"{distance.value:.2f} ({distance.low:.2f} to {distance.high:.2f})"
        )
        lines.append(
            f"| {name} | {100 * np.mean(found.max(1) >= CONFIDENT):.0f} % | "
            f"{NAMES[int(shares.argmax())]}, {100 * shares.max():.0f} % | {known} |"
        )
    found = rows["samples"][0]
    shares = np.bincount(found.argmax(1), minlength=CLASSES) / n
    holds = np.mean(found.max(1) >= CONFIDENT) >= LEAST_SHARE and shares.max() <= MOST_OF_A_CLASS
    told = ", ".join(f"{name} {100 * share:.0f} %" for name, share in zip(NAMES, shares))
    claim = f"at least {100 * CONFIDENT:.0f} % confident on at least half, no class above {100 * MOST_OF_A_CLASS:.0f} %"
    return [
        *lines,
        "",
        f"Classes of the samples: {told}.",
        "",
        f"{claim}: **{'holds' if holds else 'does not hold'}**.",
        "",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("samples", type=Path, nargs="?")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("-o", type=Path, default=Path(__file__).parent / "results" / "fashion.md")
    options = parser.parse_args()
    lines = ["# Fashion-MNIST", ""]
    lines += quality(options.data, np.load(options.samples)) if options.samples else []
    lines += speed(options.rounds) if options.rounds else []
    options.o.parent.mkdir(parents=True, exist_ok=True)
    options.o.write_text("\n".join(lines), encoding="utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
