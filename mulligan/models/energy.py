"""Energy-based model: a reference law tilted by the exponential of a network.

Definition. p(x) = exp(f(x)) q(x)/Z with f a network (f = negative energy up to log q), q a normalised reference that can
be drawn from (a Gaussian, a learned mixture, a flow, or flat on a box) and Z = E_q[exp f(x)]. log Z is a number of the
model, found after training: by quadrature in one or two dimensions (kind ``numeric``), by annealing or importance sampling
elsewhere (kind ``estimate``, with the standard error that all rows share). Theory: chapter 3 (LeCun et al. 2006; Xie, Lu,
Zhu and Wu 2016). Identities ``ebm.log_z``, ``ebm.gradient``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from mulligan.core import Density, Energy, Sampler
from mulligan.nets.mlp import MLP, make_mlp


class Box(Sampler, Density):
    """The uniform law on a box, ``low`` ≤ x ≤ ``high`` (d,): log p = −Σ log(high − low) inside and −∞ outside. Exact.

    >>> box = Box(jnp.zeros(2), 2 * jnp.ones(2))
    >>> round(float(box.log_prob(jnp.ones(2))), 4), float(box.log_prob(3 * jnp.ones(2)))
    (-1.3863, -inf)
    """

    kind: ClassVar[Literal["exact", "numeric"]] = "exact"
    low: Float[Array, " d"]
    high: Float[Array, " d"]

    def log_prob(self, x: Float[Array, " d"], given: Array | None = None) -> Float[Array, ""]:
        """log p(x) in nats; NaN for NaN."""
        inside = jnp.all((x >= self.low) & (x <= self.high))
        log_p = jnp.where(inside, -jnp.sum(jnp.log(self.high - self.low)), -jnp.inf)
        return jnp.where(jnp.isnan(x).any(), jnp.nan, log_p)

    def sample(self, key: PRNGKeyArray, given: Array | None = None) -> Float[Array, " d"]:
        """One draw (d,)."""
        return self.low + (self.high - self.low) * jax.random.uniform(key, self.low.shape, self.low.dtype)


class Tilt(eqx.Module):
    """f(x): a network on x and on sines and cosines of fixed random frequencies (Rahimi and Recht 2007).

    ``frequencies`` (m, d) are not learned: f_θ(x) = net(x, sin Ωx, cos Ωx). With m = 0 it is a plain network. Beyond the
    data's reach a plain network grows along straight lines, so Gaussian tails of the reference dominate it.
    """

    frequencies: Float[Array, "m d"]
    network: MLP

    def __call__(self, x: Float[Array, " d"]) -> Float[Array, ""]:
        if self.frequencies.shape[0]:
            angle = x @ jax.lax.stop_gradient(self.frequencies).T
            x = jnp.concatenate([x, jnp.sin(angle), jnp.cos(angle)])
        return self.network(x)[0]


class EnergyModel(Density, Energy):
    """log p(x) = f(x) + log q(x) − log Z; x is a vector (d,).

    Fields: ``tilt`` f, ``reference`` q (a ``Density`` that is a ``Sampler``), ``log_z``, ``log_z_stderr`` (0 where log Z is
    numeric) and ``kind``. Only the tilt is learned. Before log Z is known it is 0, and ``log_prob`` is unnormalised.

    >>> from mulligan.targets.gaussian import Gaussian
    >>> model = make_energy(Gaussian(jnp.zeros(2), jnp.eye(2)), 2, np.random.default_rng(0), width=8)
    >>> round(float(model.energy(jnp.zeros(2))), 4)  # f starts at 0: the model is its reference
    1.8379
    """

    fixed: ClassVar[tuple[str, ...]] = ("reference", "log_z", "log_z_stderr")
    tilt: Any
    reference: Any
    log_z: Float[Array, ""] = eqx.field(converter=jnp.asarray)
    log_z_stderr: Float[Array, ""] = eqx.field(converter=jnp.asarray)
    kind: Literal["exact", "numeric", "estimate"] = eqx.field(static=True)  # type: ignore[misc]

    def f(self, x: Float[Array, " d"]) -> Float[Array, ""]:
        """f(x), the log of the tilt of q."""
        return self.tilt(x)

    def log_q(self, x: Float[Array, " d"]) -> Float[Array, ""]:
        """log q(x), normalised."""
        return self.reference.log_prob(x)

    def unnormalised(self, x: Float[Array, " d"]) -> Float[Array, ""]:
        """f(x) + log q(x) = log p(x) + log Z; −∞ where q is 0."""
        log_q = self.log_q(x)
        return jnp.where(jnp.isneginf(log_q), -jnp.inf, self.f(x) + log_q)

    def energy(self, x: Float[Array, " d"]) -> Float[Array, ""]:
        """−f(x) − log q(x), of which log p(x) = −energy(x) − log Z."""
        return -self.unnormalised(x)

    def log_prob(self, x: Float[Array, " d"], given: Array | None = None) -> Float[Array, ""]:
        """log p(x) in nats, with log Z as it was found; NaN for NaN."""
        return self.unnormalised(x) - self.log_z


def with_log_z(model: EnergyModel, value: float, stderr: float, kind: Literal["numeric", "estimate"]) -> EnergyModel:
    """The same model with log Z found."""
    number = np.dtype(np.float32)
    return replace(model, log_z=jnp.asarray(value, number), log_z_stderr=jnp.asarray(stderr, number), kind=kind)


def make_energy(
    reference: Any,
    dim: int,
    generator: np.random.Generator,
    *,
    width: int = 128,
    depth: int = 3,
    frequencies: int = 0,
    bandwidth: float = 1.0,
) -> EnergyModel:
    """A model on R^dim that starts as its reference (the last layer is 0): ``depth`` hidden layers of ``width`` units.

    ``frequencies`` sines and cosines with angular frequencies N(0, ``bandwidth``²) are inputs of the network beside x.
    """
    omega = bandwidth * generator.standard_normal((frequencies, dim))
    network = make_mlp([dim + 2 * frequencies, *[width] * depth, 1], generator, zero_last=True)
    zero = jnp.asarray(np.float32(0.0))
    tilt = Tilt(jnp.asarray(omega, jnp.float32), network)
    return EnergyModel(kind="estimate", tilt=tilt, reference=reference, log_z=zero, log_z_stderr=zero)


def box_around(points: np.ndarray, margin: float = 0.5) -> Box:
    """The box of the points (n, d), widened by ``margin`` of its sides at both ends.

    >>> box_around(np.array([[0.0], [2.0]])).low.tolist()
    [-1.0]
    """
    low, high = points.min(axis=0), points.max(axis=0)
    reach = margin * np.maximum(high - low, 1e-3)
    return Box(*(jnp.asarray(side, jnp.float32) for side in (low - reach, high + reach)))


def sizes_of(model: EnergyModel) -> Sequence[int]:
    """Units of each hidden layer of the tilt."""
    return [bias.shape[-1] for bias in model.tilt.network.biases[:-1]]
