"""Variational autoencoder: a latent Gaussian vector, a network that makes a row of it, and one that goes back.

Definition. z ~ N(0, I_q) and p(x|z) = Π_j p(x_j|z), whose parameters a network gives (the decoder): a Gaussian where a
column has a density, the probability of a logistic law's cell where a value has one, softmax for a category; the scales are
learned, one a column or as outputs of the decoder. With q(z|x) = N(m(x), diag s(x)²) (the encoder) and weights
w_i = p(x, z_i)/q(z_i|x), z_i ~ q(z|x) independent,

    log p(x) ≥ E log (1/k Σ_i w_i) ≥ E log w_1 = E_q log p(x|z) − KL(q(z|x)‖N(0, I)),

the IWAE-k bound and the ELBO (Kingma and Welling 2014; Rezende, Mohamed and Wierstra 2014; Burda, Grosse and Salakhutdinov
2016). Nothing is dequantised. Theory: ``relation.vae``.

The draws z_i of ``log_prob`` are hashed from x, so the bound is a number and not a random one, and rows have draws of their
own: over rows the errors average out, and the mean is below E log p up to the standard error over rows. Hashed is the
corner of the grid cell of side 1/16 (in standardised units) that x lies in: within a cell log_prob is smooth, and its
gradient is taken at these draws.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from mulligan.core import Bound, Density, Sampler
from mulligan.models.columns import Cells, Columns
from mulligan.models.heads import (
    category_log_prob,
    gaussian_log_mass,
    gaussian_log_prob,
    gaussian_sample,
    logistic_log_prob,
    logistic_sample,
    softmax_sample,
    spread_logits,
)
from mulligan.nets.mlp import make_mlp

Network = Callable[[Array], Array]

CELL = 1 / 16  # side of the grid cells whose corner is hashed
CHUNK = 20  # draws scored at a time: their activations stay in the cache
_FARTHEST = 8.0  # a number's features are those of ±8 standard deviations beyond them
_LOG_SDS = (-7.0, 3.0)  # of q(z|x)
_LOG_2PI = 1.8378770664093453


class Posterior(NamedTuple):
    """q(z|x) = N(mean, diag exp(2 log_sd)); both (q,)."""

    mean: Array
    log_sd: Array


class Laws(NamedTuple):
    """Of p(x|z): ``densities`` and ``probabilities`` (·, 3, 1) and ``logits`` (·, levels), as ``mulligan.models.heads``
    takes them."""

    densities: Array
    probabilities: Array
    logits: Array


class VAE(Sampler, Density, Bound):
    """log p(x) from below by IWAE-k, k = ``draws``; x is a vector of one coordinate a column. ``make_vae`` makes it.

    Fields: ``columns`` says what each coordinate is; ``encoder`` maps a row's features to m and log s, (2q,), ``decoder`` z
    to the parameters of p(x|z); ``raw_scales`` are the numbers' scales before softplus, (1,) if they share one, else (c,),
    to which the decoder adds its own where ``scaled``.

    >>> from mulligan.data.codec import Part
    >>> from mulligan.data.native import NativeCodec
    >>> from mulligan.data.table import Column, Schema
    >>> from mulligan.models.columns import columns_of
    >>> number = Schema((Column("a", "continuous"),))
    >>> model = make_vae(columns_of(NativeCodec(number, (Part(0, 1),))), np.random.default_rng(0), latent=1, width=4)
    >>> model.log_prob(jnp.zeros(1)).shape, model.sample(jax.random.key(0)).shape
    ((), (1,))
    """

    kind: ClassVar[Literal["lower bound"]] = "lower bound"
    columns: Columns
    encoder: Network
    decoder: Network
    raw_scales: Float[Array, " c"]
    latent: int = eqx.field(static=True)
    draws: int = eqx.field(static=True)
    scaled: bool = eqx.field(static=True, default=False)

    def posterior(self, x: Float[Array, " d"], given: Array | None = None) -> Posterior:
        """q(z|x), or q(z|x, given)."""
        out = self.encoder(_joined(_features(self.columns, x), given))
        return Posterior(out[: self.latent], jnp.clip(out[self.latent :], *_LOG_SDS))

    def laws(self, z: Float[Array, " q"], given: Array | None = None) -> Laws:
        """The parameters of p(x|z)."""
        columns = self.columns
        continuous, numbers = len(columns.continuous), len(columns.continuous) + len(columns.cells)
        out = self.decoder(_joined(z, given))
        scales, free = jnp.broadcast_to(self.raw_scales, (numbers,)), out[numbers:]
        if self.scaled:
            scales, free = scales + out[numbers : 2 * numbers], out[2 * numbers :]
        raw = jnp.stack([jnp.zeros_like(scales), out[:numbers], scales], axis=1)[:, :, None]
        return Laws(raw[:continuous], raw[continuous:], spread_logits(columns.levels, free))

    def log_likelihood(self, z: Float[Array, " q"], x: Float[Array, " d"], given: Array | None = None) -> Array:
        """log p(x|z) in nats, a scalar."""
        return self._log_likelihood(z, *self._valid(x), given)

    def evidence_log_likelihood(
        self, z: Float[Array, " q"], low: Float[Array, " d"], high: Float[Array, " d"]
    ) -> Array:
        """log p(evidence|z): each coordinate is known (low = high), lies between both ends, or is free (both infinite).

        Given z the columns are independent, so free ones leave without a trace. An interval of a column with cells runs
        over the cells of all its values, both ends' included.
        """
        columns, laws = self.columns, self.laws(z)
        dense, cells, named = (_places(of) for of in (columns.continuous, columns.cells, columns.categories))
        free = jnp.isneginf(low) & jnp.isposinf(high)
        known = low == high
        value = jnp.where(known, low, 0.0)
        parts = [
            jnp.where(
                known[dense],
                gaussian_log_prob(laws.densities, value[dense]),
                gaussian_log_mass(laws.densities, low[dense], high[dense]),
            ),
            logistic_log_prob(
                laws.probabilities, columns.interval(low[cells], high[cells]), columns.least_scale(z.dtype)
            ),
            category_log_prob(laws.logits, value[named]),
        ]
        said = [jnp.where(free[at], 0.0, part) for at, part in zip((dense, cells, named), parts) if part.size]
        return sum((jnp.sum(part) for part in said), start=jnp.zeros((), z.dtype))

    def elbo(self, key: PRNGKeyArray, x: Float[Array, " d"], given: Array | None = None) -> Float[Array, ""]:
        """log p(x|z) at one z ~ q(z|x), minus KL(q(z|x)‖N(0, I)) in closed form: at most log p(x) in expectation."""
        return self.evidence(jax.random.normal(key, (self.latent,), self.raw_scales.dtype), x, given)

    def evidence(
        self,
        noise: Float[Array, " q"],
        x: Float[Array, " d"],
        given: Array | None = None,
        beta: float | Array = 1.0,
    ) -> Float[Array, ""]:
        """The ELBO at z = m + s · noise, its KL times β (Higgins et al. 2017)."""
        posterior = self.posterior(x, given)
        z = posterior.mean + jnp.exp(posterior.log_sd) * noise
        return self.log_likelihood(z, x, given) - beta * prior_divergence(posterior)

    def log_weights(
        self, noise: Float[Array, "k q"], x: Float[Array, " d"], given: Array | None = None
    ) -> Float[Array, " k"]:
        """log w_i = log p(x|z_i) + log p(z_i) − log q(z_i|x) at z_i = m + s · noise_i."""
        posterior, valid = self.posterior(x, given), self._valid(x)
        return jax.vmap(lambda e: self._log_weight(e, posterior, valid, given))(noise)

    def log_prob(self, x: Float[Array, " d"], given: Array | None = None) -> Float[Array, ""]:
        """log (1/k Σ w_i) in nats, with k draws hashed from x; NaN for NaN."""
        return self.importance_bound(cell_key(x), x, self.draws, given)

    def importance_bound(
        self, key: PRNGKeyArray, x: Float[Array, " d"], k: int, given: Array | None = None
    ) -> Float[Array, ""]:
        """log (1/k Σ w_i) with draws from a key: at most log p(x) in expectation, and closer with greater k."""
        posterior, valid = self.posterior(x, given), self._valid(x)
        size = min(k, CHUNK)

        def one(total: Array, start: Array) -> tuple[Array, None]:
            noise = jax.random.normal(jax.random.fold_in(key, start), (size, self.latent), x.dtype)
            log_w = jax.vmap(lambda e: self._log_weight(e, posterior, valid, given))(noise)
            log_w = jnp.where(start * size + jnp.arange(size) < k, log_w, -jnp.inf)
            return jnp.logaddexp(total, jax.nn.logsumexp(log_w)), None

        total, _ = jax.lax.scan(one, jnp.asarray(-jnp.inf, x.dtype), jnp.arange(-(-k // size)))
        return jnp.where(jnp.isnan(x).any(), jnp.nan, total - np.log(k).astype(x.dtype))

    def sample(self, key: PRNGKeyArray, given: Array | None = None) -> Float[Array, " d"]:
        """One draw: z from the prior, then a row of p(x|z)."""
        return self.sample_both(key, given)[1]

    def sample_both(self, key: PRNGKeyArray, given: Array | None = None) -> tuple[Array, Array]:
        """A draw of both, (z, x): x is the one of ``sample`` with this key, and z an exact draw of p(z|x)."""
        columns, dtype = self.columns, self.raw_scales.dtype
        of_z, of_row = jax.random.split(key)
        z = jax.random.normal(of_z, (self.latent,), dtype)
        laws = self.laws(z, given)
        # Never 0 or 1: their quantiles are infinite.
        uniform = jax.random.uniform(of_row, (columns.dim, 2), dtype)
        uniform = jnp.clip(uniform, jnp.finfo(dtype).eps / 4, 1 - jnp.finfo(dtype).eps / 2)
        drawn = [
            gaussian_sample(laws.densities, uniform[_places(columns.continuous)]),
            columns.snap(
                logistic_sample(laws.probabilities, uniform[_places(columns.cells)], columns.least_scale(dtype))
            ),
            softmax_sample(laws.logits, uniform[_places(columns.categories)]),
        ]
        where = np.argsort([*columns.continuous, *columns.cells, *columns.categories])
        return z, jnp.concatenate(drawn)[where]

    def _valid(self, x: Array) -> tuple[Array, Cells]:
        return x, self.columns.cells_of(x[_places(self.columns.cells)])

    def _log_weight(self, noise: Array, posterior: Posterior, valid: tuple[Array, Cells], given: Array | None) -> Array:
        z = posterior.mean + jnp.exp(posterior.log_sd) * noise
        of_z = 0.5 * jnp.sum(noise**2 - z**2) + jnp.sum(posterior.log_sd)
        return self._log_likelihood(z, *valid, given) + of_z

    def _log_likelihood(self, z: Array, x: Array, cells: Cells, given: Array | None) -> Array:
        columns, laws = self.columns, self.laws(z, given)
        parts = [
            gaussian_log_prob(laws.densities, x[_places(columns.continuous)]),
            logistic_log_prob(laws.probabilities, cells, columns.least_scale(x.dtype)),
            category_log_prob(laws.logits, x[_places(columns.categories)]),
        ]
        return sum((jnp.sum(part) for part in parts if part.size), start=jnp.zeros((), x.dtype))


def make_vae(
    columns: Columns,
    generator: np.random.Generator,
    *,
    latent: int = 4,
    width: int = 128,
    depth: int = 2,
    draws: int = 500,
    noise: str = "column",
    given: int = 0,
    encoder: Network | None = None,
    decoder: Network | None = None,
) -> VAE:
    """An untrained model of these columns, drawn from a NumPy generator.

    ``latent`` is q, ``width`` and ``depth`` are of both networks (hidden layers; 0 makes them linear), ``draws`` k of the
    bound, ``given`` the size of the vector conditioned on; ``encoder`` and ``decoder`` replace the library's networks. The
    learned scales of numbers are one for all (``noise`` "shared"), one a ``column``, or functions of z (``latent``).
    """
    scaled = noise == "latent"
    numbers = len(columns.continuous) + len(columns.cells)
    logits = sum(columns.levels) - len(columns.levels)
    hidden = [width] * depth
    starts = np.log(np.expm1(np.full(min(numbers, 1) if noise == "shared" else numbers, 0.5)))
    encoder = encoder or make_mlp([numbers + logits + given, *hidden, 2 * latent], generator)
    decoder = decoder or make_mlp([latent + given, *hidden, numbers * (2 if scaled else 1) + logits], generator)
    raw_scales = jnp.asarray(np.asarray(starts, jnp.zeros(0).dtype))
    return VAE(columns, encoder, decoder, raw_scales, int(latent), int(draws), scaled)


def prior_divergence(posterior: Posterior) -> Float[Array, ""]:
    """KL(N(m, diag s²)‖N(0, I)) = ½ Σ (m² + s² − 1 − log s²) in nats.

    >>> float(prior_divergence(Posterior(jnp.array([2.0]), jnp.zeros(1))))
    2.0
    """
    mean, log_sd = posterior
    return 0.5 * jnp.sum(mean**2 + jnp.exp(2 * log_sd) - 1 - 2 * log_sd)


def cell_key(x: Float[Array, " d"]) -> PRNGKeyArray:
    """A key hashed from the corner of the grid cell of side 1/16 that x lies in.

    Each coordinate's number is mixed with its place (the finaliser of MurmurHash3, Appleby 2011) and the results are added,
    in two ways for the two words of a key.

    >>> bool(cell_key(jnp.array([0.01])) == cell_key(jnp.array([0.02])))
    True
    >>> bool(cell_key(jnp.array([0.01, 0.5])) == cell_key(jnp.array([0.5, 0.01])))
    False
    """
    corner = jnp.floor(jax.lax.stop_gradient(x).astype(jnp.float32) / CELL)
    corner = jnp.where(corner == 0, 0.0, corner)  # −0 becomes 0; a compiler may leave out a sum with 0
    bits = jax.lax.bitcast_convert_type(corner, jnp.uint32)
    place = jnp.arange(x.shape[0], dtype=jnp.uint32)
    words = [
        jnp.sum(_mixed(_mixed(bits ^ jnp.uint32(salt)) + place * jnp.uint32(0x9E3779B9)), dtype=jnp.uint32)
        for salt in (0x243F6A88, 0xB7E15162)
    ]
    return jax.random.wrap_key_data(jnp.stack([_mixed(word) for word in words]))


def _mixed(bits: Array) -> Array:
    bits = (bits ^ (bits >> 16)) * jnp.uint32(0x85EBCA6B)
    bits = (bits ^ (bits >> 13)) * jnp.uint32(0xC2B2AE35)
    return bits ^ (bits >> 16)


def _features(columns: Columns, x: Array) -> Array:
    """What the encoder sees of a row: numbers, and of a category which one of its levels after the first it is."""
    z = jnp.clip(x[_places((*columns.continuous, *columns.cells))], -_FARTHEST, _FARTHEST)
    if not columns.categories:
        return z
    levels = np.repeat(np.arange(len(columns.levels)), [k - 1 for k in columns.levels])
    level = np.concatenate([np.arange(1, k) for k in columns.levels])
    hot = jnp.rint(x[_places(columns.categories)])[levels] == level
    return jnp.concatenate([z, hot.astype(x.dtype)])


def _joined(vector: Array, given: Array | None) -> Array:
    return vector if given is None else jnp.concatenate([vector, given])


def _places(columns: tuple[int, ...]) -> np.ndarray:
    return np.asarray(columns, np.int32)
