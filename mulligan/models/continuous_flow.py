"""Velocity field: what a continuous flow learns, the direction in which each point moves at each time.

Definition. Time runs from the data, t = 0, to noise, t = 1, along straight paths x_t = (1 − t) x_0 + t e, e ~ N(0, I)
(Lipman et al. 2023; Liu, Gong and Liu 2023; Albergo and Vanden-Eijnden 2023; the schedule ``Straight`` of
``targets.noising``). The velocity is the mean direction of the paths through a point, v(x, t) = E[e − x_0 | x_t = x]: its
flow dx/dt = v(x, t) carries the law of x_0 to N(0, I) (identity ``relation.flow``).

For x_0 ~ N(0, I) and e drawn without regard to x_0 that mean is ((2t − 1)/s) x with s = (1 − t)² + t², and e − x_0 has
variance 1/s around it. So

    v(x, t) = ((2t − 1)/s) x + F(x/√s, t)/√s

with a network F whose inputs and targets have variance 1 at every t (the preconditioning of Karras et al. 2022 for this
path). Where noise is paired with data by optimal transport the paths hardly bend, and v(x, t) = F(x, t). x is the whitened
point W (data − m), so with F = 0, where training starts, the first form is the Gaussian fit.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from mulligan.nets.mlp import make_mlp

Network = Callable[[Array], Array]  # a module whose arrays are its parameters, from one vector to one vector
MakeNetwork = Callable[[int, int, np.random.Generator], Network]  # of (inputs, outputs, generator)
OCTAVES = 3  # pairs of sines and cosines of time
SOONEST, LATEST = 2e-3, 5e-2  # keep log t and log (1 − t) finite as features of time; data are sharp, noise is not
LEAST_VARIANCE = 1e-8  # of the data's widest direction, added in every direction before whitening


class Velocity(eqx.Module):
    """v(x, t) of whitened points x (d,), t in [0, 1]; ``given`` None or (g,).

    ``network`` F sees x, t, ``given``, and sines and cosines of fixed frequencies of x, (m, d) ``frequencies``, with which
    a smooth network makes sharp edges (Tancik et al. 2020). ``mean`` m (d,), ``whitening`` W (d, d) lower triangular and
    ``colouring`` W⁻¹ are not learned either. ``straight`` leaves the linear part out. Made by ``make_velocity``.

    >>> field = make_velocity(2, np.random.default_rng(0), width=8)
    >>> [round(float(v), 4) for v in field(jnp.asarray([1.0, -2.0]), jnp.asarray(0.0))]  # F starts as 0
    [-1.0, 2.0]
    """

    fixed: ClassVar[tuple[str, ...]] = ("frequencies", "mean", "whitening", "colouring")
    network: Network
    frequencies: Float[Array, "m d"]
    mean: Float[Array, " d"]
    whitening: Float[Array, "d d"]
    colouring: Float[Array, "d d"]
    straight: bool = eqx.field(static=True)

    def __call__(self, x: Float[Array, " d"], t: Float[Array, ""], given: Array | None = None) -> Float[Array, " d"]:
        """The velocity at a whitened point and a time."""
        spread = (1 - t) ** 2 + t**2
        scale = jnp.ones_like(spread) if self.straight else jax.lax.rsqrt(spread)
        learned = scale * self.network(self._features(x, scale * x, t, given))
        return learned if self.straight else (2 * t - 1) / spread * x + learned

    def whiten(self, x: Float[Array, " d"]) -> tuple[Float[Array, " d"], Float[Array, ""]]:
        """W (x − m) and log |det W|."""
        return self.whitening @ (x - self.mean), jnp.sum(jnp.log(jnp.diagonal(self.whitening)))

    def colour(self, x: Float[Array, " d"]) -> Float[Array, " d"]:
        """The point whose whitened one is x."""
        return self.colouring @ x + self.mean

    def _features(self, x: Array, scaled: Array, t: Array, given: Array | None) -> Array:
        log_noise = jnp.log((t + SOONEST) / (1 - t + LATEST))
        angle = log_noise * (np.pi / 10) * 2.0 ** jnp.arange(OCTAVES, dtype=x.dtype)
        features = [scaled, log_noise[None] / 3, jnp.sin(angle), jnp.cos(angle)]
        if self.frequencies.shape[0]:
            wave = x @ self.frequencies.T
            features += [jnp.sin(wave), jnp.cos(wave)]
        if given is not None:
            features.append(given)
        return jnp.concatenate(features)


def make_velocity(
    dim: int,
    generator: np.random.Generator,
    *,
    width: int = 64,
    depth: int = 3,
    frequencies: int = 0,
    bandwidth: float = 2.0,
    straight: bool = False,
    given: int = 0,
    points: np.ndarray | None = None,
    network: MakeNetwork | None = None,
) -> Velocity:
    """A velocity field on R^dim whose network starts as 0.

    ``frequencies`` m are drawn with standard deviation ``bandwidth``; ``points`` (n, dim) are what whitening is made from
    (None: no whitening); ``given`` is the number of coordinates conditioned on. ``network(inputs, outputs, generator)``
    makes F in place of the library's. Raises ValueError for ``dim`` < 1.

    >>> rows = np.random.default_rng(1).normal(size=(500, 2)) @ np.array([[3.0, 1.0], [0.0, 0.5]])
    >>> field = make_velocity(2, np.random.default_rng(0), points=rows)
    >>> white, _ = jax.vmap(field.whiten)(jnp.asarray(rows, jnp.float32))
    >>> bool(np.allclose(np.cov(np.asarray(white).T), np.eye(2), atol=0.01))
    True
    """
    if dim < 1:
        raise ValueError(f"dim is {dim}; expected at least 1")
    waves = (bandwidth * generator.normal(size=(frequencies, dim))).astype(np.float32)
    inputs = dim + 1 + 2 * OCTAVES + 2 * frequencies + given
    made = network(inputs, dim, generator) if network else make_mlp([inputs, *[width] * depth, dim], generator, True)
    mean, factor = np.zeros(dim), np.eye(dim)
    if points is not None:
        mean, centred = points.mean(0), points - points.mean(0)
        covariance = centred.T @ centred / len(points)
        floor = LEAST_VARIANCE * max(float(np.linalg.norm(covariance, 2)), 1e-30)
        factor = np.linalg.cholesky(covariance + floor * np.eye(dim))
    arrays = (waves, mean, np.linalg.inv(factor), factor)
    first, centre, whitening, colouring = (jnp.asarray(array.astype(np.float32)) for array in arrays)
    return Velocity(made, first, centre, whitening, colouring, straight)
