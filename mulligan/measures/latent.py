"""What the latent variables of a model come to: aggregated posterior against prior, units in use, log p by annealing.

Definition. The aggregated posterior of rows x_1 … x_n is q(z) = E q(z|x). Samples start from the prior p(z), so what they
miss by is KL(q(z)‖p(z)) = E KL(q(z|x)‖p(z)) − I, with I the mutual information of x and z under the encoder (Hoffman and
Johnson 2016; identity ``relation.vae``). With z_i ~ q(z|x_i) it lies between two bounds (Poole et al. 2019),
E log q(z_i|x_i)/(1/n Σ_j q(z_i|x_j)) ≤ I ≤ E log q(z_i|x_i)/(1/(n−1) Σ_{j≠i} q(z_i|x_j)).

log p(x) by annealing: from q(z|x) at β = 0, which is importance sampling with the encoder, to p(z)p(x|z) at β = 1 along
q^{1−β}(p(z)p(x|z))^β. Its log mean weight bounds log p(x) from below, too, and nearly reaches it (Wu, Burda, Salakhutdinov
and Grosse 2017). A row that the model drew itself comes with an exact draw of its posterior, from which the reverse run
bounds log p(x) from above (Grosse, Ghahramani and Adams 2015). Theory: ``annealing.ais``, ``annealing.crooks``.
"""

from __future__ import annotations

import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from mulligan.loop import compile_small, repeat
from mulligan.measures.likelihood import in_blocks, log_mean_exp
from mulligan.models.vae import VAE, Posterior
from mulligan.quantity import Quantity, mean_of_rows
from mulligan.samplers.annealing import AnnealedImportance, schedule
from mulligan.samplers.hmc import HamiltonianMonteCarlo
from mulligan.samplers.many import Many
from mulligan.samplers.path import Path

LEAST_VARIANCE = 0.01  # of a unit's posterior means over rows, below which it is not used (Burda et al. 2016)
_LOG_2PI = math.log(2 * math.pi)
_BLOCK = 256  # rows of the table of n² log densities at a time
_STEP_SIZE, _LEAPFROGS = 0.3, 5  # of the moves of annealing, in standard deviations of q(z|x)


class _Encoded(eqx.Module):
    """z ↦ log q(z|x) for one x."""

    posterior: Posterior

    def __call__(self, z: Float[Array, " q"]) -> Float[Array, ""]:
        mean, log_sd = self.posterior
        return -0.5 * jnp.sum(((z - mean) * jnp.exp(-log_sd)) ** 2 + _LOG_2PI) - jnp.sum(log_sd)


class _LogWeight(eqx.Module):
    """z ↦ log p(z) + log p(x|z) − log q(z|x) for one x."""

    model: VAE
    encoded: _Encoded
    x: Array
    given: Array | None

    def __call__(self, z: Float[Array, " q"]) -> Float[Array, ""]:
        prior = -0.5 * jnp.sum(z**2 + _LOG_2PI)
        return self.model.log_likelihood(z, self.x, self.given) + prior - self.encoded(z)


def annealed_log_prob(
    model: VAE, points: np.ndarray, given: np.ndarray | None = None, *, chains: int = 16, rungs: int = 50, seed: int = 0
) -> tuple[np.ndarray, float]:
    """log p(x) of each point (n, d) by annealing from the encoder, float64 (n,), and the mean acceptance of the moves.

    Each is a lower bound in expectation, of ``chains`` runs over ``rungs`` temperatures with a trajectory of Hamiltonian
    Monte Carlo at each. More of either brings it closer; ``mean_of_rows(…, "lower bound")`` states the mean.
    """
    log_w, acceptance = _annealed(model, points, given, None, chains, rungs, seed)
    return log_mean_exp(log_w), acceptance


def simulated_log_prob(
    model: VAE, rows: int = 64, given: np.ndarray | None = None, *, chains: int = 16, rungs: int = 50, seed: int = 0
) -> Quantity:
    """E log p(x) over rows of the model itself, in nats of encoded rows, between both runs of annealing: ``bracket``.

    The lower end needs nothing, the upper one the exact posterior draws that only a model's own rows have. How far the
    ends are apart says what annealing of these lengths is worth for this model (and so what IWAE-k of its rows lacks).
    ``given`` (rows, g) is what each is conditioned on. Raises ValueError for fewer than two rows.
    """
    if rows < 2:
        raise ValueError(f"{rows} rows; a standard error over rows needs two at least")
    keys = jax.random.split(jax.random.fold_in(jax.random.key(seed), 1), rows)
    known = None if given is None else jnp.asarray(given, jnp.float32)
    latents, points = (np.asarray(each) for each in _drawn_pairs(model, keys, known))
    forward, _ = _annealed(model, points, given, None, chains, rungs, seed)
    reverse, _ = _annealed(model, points, given, latents, 1, rungs, seed + 1)
    low = mean_of_rows(log_mean_exp(forward), "lower bound")
    high = mean_of_rows(reverse[:, 0], "upper bound")
    ends = float(low.value or 0.0), float(high.value or 0.0)
    note = f"annealing of {rows} rows of the model, {chains} chains forward, {rungs} temperatures"
    return Quantity(0.5 * sum(ends), "bracket", low.low, high.high, low.stderr, rows, "nats/row", note, *sorted(ends))


def aggregated_mismatch(means: np.ndarray, log_sds: np.ndarray, seed: int = 0) -> Quantity:
    """KL(q(z)‖N(0, I)) in nats, q(z) the law that rows with these posteriors come from; kind ``bracket``.

    ``means`` and ``log_sds`` (n, q) are of N(m_i, diag s_i²), one z_i is drawn from each. ``low`` and ``high`` are the
    outer ends of the 95 % intervals of the two bounds (never below 0), which are far apart where I nears log n; ``value``
    is the middle of the bounds. Raises ValueError for fewer than two rows.

    >>> rng = np.random.default_rng(0)
    >>> q = aggregated_mismatch(0.8 * rng.normal(size=(500, 1)), np.full((500, 1), np.log(0.6)))
    >>> q.low, q.high < 0.1
    (0.0, True)
    """
    means, log_sds = np.asarray(means, np.float64), np.asarray(log_sds, np.float64)
    n, q = means.shape
    if n < 2:
        raise ValueError(f"{n} rows; a mixture of posteriors needs two at least")
    noise = np.random.default_rng([seed, 3]).standard_normal((n, q))
    z = means + np.exp(log_sds) * noise
    own = -0.5 * np.sum(noise**2 + _LOG_2PI, axis=1) - log_sds.sum(1)
    prior = -0.5 * np.sum(z**2 + _LOG_2PI, axis=1)
    others = np.empty(n)
    for start in range(0, n, _BLOCK):
        rows = slice(start, start + _BLOCK)
        table = _log_densities(z[rows], means, log_sds)
        table[np.arange(len(table)), start + np.arange(len(table))] = -np.inf
        peak = table.max(axis=1)
        others[rows] = peak + np.log(np.exp(table - peak[:, None]).sum(axis=1))
    low = mean_of_rows(others - math.log(n - 1) - prior, "lower bound")
    high = mean_of_rows(np.logaddexp(others, own) - math.log(n) - prior, "upper bound")
    ends = sorted(max(0.0, float(end.value or 0.0)) for end in (low, high))  # no divergence is below 0
    outer = None if low.low is None else max(0.0, low.low), high.high
    return Quantity(0.5 * sum(ends), "bracket", *outer, low.stderr, n, "nats", "", *ends)


def active_units(means: np.ndarray) -> int:
    """How many latent units the rows use: those whose posterior means (n, q) vary by more than 0.01 (Burda et al. 2016).

    >>> active_units(np.array([[0.0, 1.0], [0.0, -1.0]]))
    1
    """
    return int(np.sum(np.var(means, axis=0) > LEAST_VARIANCE))


def encoded_rows(model: VAE, points: np.ndarray, given: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Means and log standard deviations of q(z|x) of each point (n, d), float64 (n, q)."""
    known = None if given is None else given.astype(np.float32)
    both = in_blocks(lambda block, g: _posterior_block(model, block, g), points.astype(np.float32), known)
    return both[:, 0], both[:, 1]


def _annealed(
    model: VAE,
    points: np.ndarray,
    given: np.ndarray | None,
    latents: np.ndarray | None,
    chains: int,
    rungs: int,
    seed: int,
) -> tuple[np.ndarray, float]:
    """log weights (n, chains) of all rows, in one program; reverse from ``latents`` (n, q) if they are there."""
    dtype = model.raw_scales.dtype
    reverse = latents is not None
    inputs = jax.tree.map(lambda leaf: leaf.astype(dtype), schedule(np.linspace(0.0, 1.0, rungs + 1), None, reverse))
    known = None if given is None else jnp.asarray(given, dtype)
    starts = jnp.zeros((len(points), model.latent), dtype) if latents is None else jnp.asarray(latents, dtype)
    keys = jax.random.split(jax.random.key(seed), len(points))
    log_w, acceptance = _annealed_rows(model, keys, jnp.asarray(points, dtype), known, starts, inputs, chains, reverse)
    return np.asarray(log_w, np.float64), float(np.mean(acceptance))


@compile_small
def _annealed_rows(
    model: VAE, keys: Any, points: Any, given: Any, starts: Any, inputs: Any, chains: int, reverse: bool
) -> tuple[Any, Any]:
    def row(key: Any, x: Array, known: Array | None, start: Array) -> tuple[Array, Array]:
        of_starts, of_init, of_run = jax.random.split(key, 3)
        posterior = model.posterior(x, known)
        sd, encoded = jnp.exp(posterior.log_sd), _Encoded(posterior)
        path = Path(_LogWeight(model, encoded, x, known), encoded, jnp.asarray(1.0, x.dtype))
        kernel = HamiltonianMonteCarlo(path, jnp.asarray(_STEP_SIZE, x.dtype), _LEAPFROGS, sd)
        runs = Many(AnnealedImportance(kernel, reverse))
        noise = jax.random.normal(of_starts, (chains, model.latent), x.dtype)
        positions = jnp.broadcast_to(start, noise.shape) if reverse else posterior.mean + sd * noise
        state, info = repeat(runs, of_run, runs.init(of_init, positions), inputs[0].shape[0], inputs)
        return state.log_weight, jnp.mean(info.acceptance)

    return jax.vmap(row)(keys, points, given, starts)


@compile_small
def _drawn_pairs(model: VAE, keys: Any, given: Any) -> tuple[Any, Any]:
    return jax.vmap(model.sample_both)(keys, given)


@compile_small
def _posterior_block(model: VAE, block: Any, given: Any) -> Any:
    found = jax.vmap(model.posterior)(jnp.asarray(block), given)
    return jnp.stack([found.mean, found.log_sd], axis=1)


def _log_densities(z: np.ndarray, means: np.ndarray, log_sds: np.ndarray) -> np.ndarray:
    """log N(z_i; m_j, diag s_j²), (rows of z, n): squares expanded, so that it is two matrix products."""
    weight = np.exp(-2 * log_sds)
    square = z**2 @ weight.T - 2 * z @ (means * weight).T + np.sum(means**2 * weight, axis=1)
    return -0.5 * (square + z.shape[1] * _LOG_2PI) - log_sds.sum(1)
