"""Rows given evidence, through the latent vector that a model makes them of: vae and gan.

Definition. Where rows come from z ~ N(0, I), p(row | evidence) = ∫ p(row | z, evidence) p(z | evidence) dz. Given z the
columns of a vae are independent, so p(evidence | z) is a product over the columns of which something is known, and columns
that are free or in intervals are drawn exactly (``workbench.decoded``). Several groups of annealed particles
(``samplers.particles``) find p(z | evidence), each on its own, and log p(evidence); a group counts by the evidence that it
found, and how far the groups agree is R-hat (Margossian and others 2024). A gan has no p(row | z): its known coordinates
are observed with a normal noise σ, and its intervals are kept as they are, by particles that start inside. Identity:
``density.conditional``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from mulligan.data.native import NativeCodec
from mulligan.loop import compile_small, repeat
from mulligan.measures.chains import summarise
from mulligan.measures.likelihood import in_blocks, log_mean_exp
from mulligan.models.gan import GAN
from mulligan.models.vae import VAE
from mulligan.samplers.particles import AnnealedParticles
from mulligan.workbench.decoded import Ends, columns_given, native_ends, with_numbers, within_ranges

if TYPE_CHECKING:
    from mulligan.workbench.fitted import Fitted

GROUPS, PARTICLES = 4, 64
RUNGS, SETTLED = 28, 4  # rungs, of which so many at least are moves at β = 1
ROWS = 8  # of a block
JUDGED = 16  # rows of which the groups are compared
MOST_COLUMNS = 32  # compared of a row: of a picture some pixels
MOST_RHAT = 1.05
METHOD = "annealed particles in the latent space"


class Drawn(NamedTuple):
    """Rows of p(row | evidence): ``values`` (n, draws, columns) or points, ``log_evidence`` and its ``stderr`` (n,), the
    ``method`` and what it says of itself."""

    values: np.ndarray
    log_evidence: np.ndarray
    stderr: np.ndarray
    method: str
    diagnostics: dict[str, Any]


class Latents(NamedTuple):
    """``z`` (n, groups, S, k), the groups' ``log_evidence`` (n, groups)."""

    z: np.ndarray
    log_evidence: np.ndarray


class Decoded(eqx.Module):
    """z ↦ log p(evidence | z) of a vae."""

    model: VAE
    low: Array
    high: Array

    def __call__(self, z: Float[Array, " k"]) -> Float[Array, ""]:
        return self.model.evidence_log_likelihood(z, self.low, self.high)


class Observed(eqx.Module):
    """z ↦ log N(known coordinates; G(z), σ²) of a gan, −∞ outside its intervals."""

    model: GAN
    low: Array
    high: Array
    noise: Array

    def __call__(self, z: Float[Array, " k"]) -> Float[Array, ""]:
        x = self.model.generated(z)
        known = self.low == self.high
        off = jnp.where(known, (x - jnp.where(known, self.low, 0.0)) / self.noise, 0.0)
        inside = jnp.all(known | ((x >= self.low) & (x <= self.high)))
        return jnp.where(inside, -0.5 * jnp.sum(off**2), -jnp.inf)


def latent_rows(
    fitted: Fitted, values: np.ndarray, ranges: dict[str, tuple[float, float]] | None, draws: int, seed: int
) -> Drawn:
    """Rows of a vae given the known cells (not NaN) of ``values`` (n, columns) and the ranges of all rows."""
    codec: NativeCodec = fitted.codec  # type: ignore[assignment]
    n, columns = values.shape
    runs = max(
        1, -(-draws // (GROUPS * PARTICLES))
    )  # of each row: no particle is drawn much more often than its weight
    ends = native_ends(codec, values, ranges)
    generator = np.random.default_rng([seed, 613])
    starts = generator.standard_normal((n * runs, GROUPS, PARTICLES, fitted.model.latent))
    of = [np.repeat(end, runs, axis=0) for end in (ends.low, ends.high)]
    found = annealed(Decoded, (fitted.model, *of), starts, seed)
    latents = Latents(found.z.reshape(n, runs * GROUPS, *found.z.shape[2:]), found.log_evidence.reshape(n, -1))
    z = chosen(latents.z, latents.log_evidence, draws, generator)
    drawn = columns_given(fitted.model, codec, z, ends, generator)
    rows = codec.decode(drawn.reshape(n * draws, columns)).reshape(drawn.shape)
    rows = np.where(np.isnan(values)[:, None], within_ranges(fitted.schema, rows, ranges), values[:, None])
    judged = latents.z[:JUDGED].reshape(min(n, JUDGED), -1, latents.z.shape[-1])
    ends_judged = Ends(*(end[:JUDGED] for end in ends))
    compared = columns_given(fitted.model, codec, judged, ends_judged, generator)
    told = agreement(compared.reshape(*latents.z[:JUDGED].shape[:3], columns), latents.log_evidence[:JUDGED])
    jacobian = codec.log_jacobians(with_numbers(codec, values))
    log_evidence = log_mean_exp(latents.log_evidence) + np.where(np.isnan(values), 0.0, jacobian).sum(axis=1)
    w = np.exp(latents.log_evidence - latents.log_evidence.max(axis=1, keepdims=True))
    stderr = w.std(axis=1, ddof=1) / w.mean(axis=1) / np.sqrt(w.shape[1])
    return Drawn(rows, log_evidence, stderr, METHOD, {"particles": runs * GROUPS * PARTICLES, **told})


def generator_rows(
    model: GAN,
    low: np.ndarray,
    high: np.ndarray,
    pool: tuple[np.ndarray, np.ndarray],
    noise: float,
    draws: int,
    particles: int,
    seed: int,
) -> Drawn:
    """Points (n, draws, d) of a gan given the boxes ``low`` to ``high`` (n, d), known coordinates seen with ``noise``.

    ``particles`` is how many a row has at least; ``pool`` are latent vectors (m, k) and what is made of them (m, d):
    particles start at those inside the intervals.
    """
    latents, made = pool
    n, runs = len(low), max(1, -(-particles // (GROUPS * PARTICLES)))
    generator = np.random.default_rng([seed, 619])
    starts = np.empty((n, runs * GROUPS, PARTICLES, latents.shape[1]))
    for i in range(n):
        inside = ((made >= low[i]) & (made <= high[i]) | (low[i] == high[i])).all(axis=1)
        starts[i] = latents[generator.choice(np.flatnonzero(inside), starts.shape[1:3])]
    of = [np.repeat(end, runs, axis=0) for end in (low, high)]
    sigma = np.full(len(of[0]), noise)
    found = annealed(Observed, (model, *of, sigma), starts.reshape(n * runs, GROUPS, *starts.shape[2:]), seed)
    z, log_evidence = found.z.reshape(starts.shape), found.log_evidence.reshape(n, -1)
    z_drawn = chosen(z, log_evidence, draws, generator)
    points = generated(model, z_drawn.reshape(n * draws, -1)).reshape(n, draws, -1)
    judged = generated(model, z[:JUDGED].reshape(-1, z.shape[3])).reshape(*z[:JUDGED].shape[:3], -1)
    told = agreement(np.asarray(judged, np.float64), log_evidence[:JUDGED])
    unknown = np.full(n, np.nan)
    told["particles"] = runs * GROUPS * PARTICLES
    return Drawn(points.astype(np.float64), unknown, unknown, METHOD, told)


def generated(model: GAN, latents: np.ndarray) -> np.ndarray:
    """G(z) of latent vectors (m, k), float64 (m, d)."""
    return in_blocks(lambda block: _generated_block(model, block), latents.astype(np.float32))


def annealed(of: Any, arguments: tuple[Any, ...], starts: np.ndarray, seed: int) -> Latents:
    """Groups of particles for each row, from ``starts`` (n, groups, S, k); ``of(model, *row)`` is z ↦ log likelihood, and
    ``arguments`` the model and what belongs to each row (n, …)."""
    model, *rest = arguments
    key = jax.random.key(seed)
    z, log_evidence = [], []
    for at in range(0, len(starts), ROWS):
        padded = [
            np.pad(part, [(0, ROWS - len(part))] + [(0, 0)] * (part.ndim - 1), mode="edge")
            for part in (np.asarray(each[at : at + ROWS], np.float32) for each in (*rest, starts))
        ]
        found = _block(of, model, padded[:-1], padded[-1], jax.random.fold_in(key, at))
        kept = min(ROWS, len(starts) - at)
        z.append(np.asarray(found[0])[:kept])
        log_evidence.append(np.asarray(found[1], np.float64)[:kept])
    return Latents(np.concatenate(z), np.concatenate(log_evidence))


@compile_small
def _block(of: Any, model: Any, rows: Any, starts: Any, key: Any) -> tuple[Any, Any]:
    last = jnp.arange(RUNGS) >= RUNGS - SETTLED - 1

    def group(key: Any, start: Any, likelihood: Any) -> tuple[Any, Any]:
        kernel = AnnealedParticles(likelihood)
        state, _ = repeat(kernel, key, kernel.init(key, start), RUNGS, last)
        return state.position, state.log_evidence

    def row(key: Any, start: Any, *of_row: Any) -> tuple[Any, Any]:
        keys = jax.random.split(key, start.shape[0])
        return jax.vmap(group, (0, 0, None))(keys, start, of(model, *of_row))

    starts = jnp.asarray(starts)
    return jax.vmap(row)(jax.random.split(key, starts.shape[0]), starts, *(jnp.asarray(each) for each in rows))


@compile_small
def _generated_block(model: GAN, block: Any) -> Any:
    return jax.vmap(model.generated)(jnp.asarray(block))


def chosen(z: np.ndarray, log_weights: np.ndarray, draws: int, generator: np.random.Generator) -> np.ndarray:
    """Particles (n, draws, k) of ``z`` (n, groups, S, k), those of a group by its evidence (n, groups): one comb a row."""
    n, groups, size, k = z.shape
    w = np.exp(log_weights - log_weights.max(axis=1, keepdims=True))
    cumulated = np.cumsum(np.repeat(w, size, axis=1), axis=1)
    out = np.empty((n, draws, k))
    for i in range(n):
        teeth = (generator.permutation(draws) + generator.random()) / draws * cumulated[i, -1]
        at = np.minimum(np.searchsorted(cumulated[i], teeth, side="right"), groups * size - 1)
        out[i] = z[i].reshape(-1, k)[at]
    return out


def agreement(x: np.ndarray, log_weights: np.ndarray) -> dict[str, Any]:
    """How far groups of draws ``x`` (n, groups, S, columns) agree: the largest R-hat over rows and columns, and what a row's
    draws are worth, var x/var of the weighted mean of the groups (the least over rows and columns, 32 of them at most).

    >>> found = agreement(np.random.default_rng(0).normal(size=(1, 4, 64, 1)), np.zeros((1, 4)))
    >>> found["rhat"] < 1.05, found["effective_draws"] > 10
    (True, True)
    """
    w = np.exp(log_weights - log_weights.max(axis=1, keepdims=True))
    w /= w.sum(axis=1, keepdims=True)
    rhat, worth = 1.0, float(x.shape[1] * x.shape[2])
    for row, share in zip(x, w):
        free = np.flatnonzero(np.ptp(row, axis=(0, 1)) > 0)
        if not len(free):
            continue
        row, groups = row[..., free[:: -(-len(free) // MOST_COLUMNS)]], len(share)
        each = row.mean(axis=1)
        middle = share @ each
        spread = share @ ((row - middle) ** 2).mean(axis=1)
        error = (share**2) @ (each - middle) ** 2 * groups / (groups - 1)
        worth = min(worth, float(np.min(spread / np.maximum(error, 1e-300))))
        rhat = max(rhat, float(summarise(row, discrete=True).rhat.max()))
    told: dict[str, Any] = {"rhat": rhat, "effective_draws": worth}
    if not rhat < MOST_RHAT:
        told["warning"] = f"groups of draws disagree: R-hat {rhat:.2f}, above {MOST_RHAT}"
    return told
