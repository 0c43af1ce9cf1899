"""What a named law offers beyond a density: its holes, and its entropy, which no model's mean −log p can beat.

Definition. H = −∫ p log p. For any model q, E_p[−log q] = H + KL(p‖q) ≥ H (``mle.kl``). A hole is a disc around a mode;
its share is the law's true mass inside the disc, computed from the density, never assumed to be 1/h. What has no closed
form is integrated by deterministic quadrature in float64, and its tolerance is the change on halving the step.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from functools import lru_cache
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from mulligan.core import Density, Sampler
from mulligan.loop import SOUND_PROGRAM
from mulligan.quantity import Quantity


class Holes(NamedTuple):
    """Discs around the separated modes of a law.

    ``centres`` (h, d), the common ``radius``, and ``shares`` (h,): the law's true mass within each disc.
    """

    centres: np.ndarray
    radius: float
    shares: np.ndarray


class KnownLaw(Sampler, Density):
    """A law of which everything is known: draws, normalised log density, holes and entropy."""

    @property
    @abstractmethod
    def dim(self) -> int:
        """d, the length of a draw."""

    @property
    @abstractmethod
    def holes(self) -> Holes | None:
        """The discs around its modes with their true shares, or None if the law has no separated modes."""

    @abstractmethod
    def entropy(self) -> Quantity:
        """−E log p in nats: ``exact``, or ``numeric`` with its tolerance."""


def exact_entropy(value: float) -> Quantity:
    """An entropy in closed form, as a Quantity."""
    return Quantity(float(value), "exact", float(value), float(value), unit="nats")


def plane_entropy(law: Any, low: tuple[float, float], high: tuple[float, float], step: float) -> Quantity:
    """−∫ p log p over a box of the plane by the trapezoid rule, in float64.

    For a smooth density that is negligible at the border the rule converges faster than any power of ``step``
    (Trefethen and Weideman, 2014). The tolerance is the change from step 2h to h, plus what the mass found differs from
    1. Regions where p = 0 add nothing.
    """
    sizes = [2 * math.ceil((b - a) / step / 2) + 1 for a, b in zip(low, high)]
    axes = [np.linspace(a, b, size) for a, b, size in zip(low, high, sizes)]
    log_p = log_prob_float64(law, np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 2)).reshape(sizes)
    area = math.prod(float(axis[1] - axis[0]) for axis in axes)
    p = np.exp(log_p)
    terms = np.where(p > 0, -p * np.where(p > 0, log_p, 0.0), 0.0)
    value, coarse = float(terms.sum() * area), float(terms[::2, ::2].sum() * 4 * area)
    tolerance = abs(value - coarse) + (1 + abs(value)) * abs(1 - float(p.sum() * area)) + 1e-12
    return numeric_entropy(value, tolerance)


def numeric_entropy(value: float, tolerance: float) -> Quantity:
    """An entropy by deterministic computation, with what that computation may be off.

    1e-6 is added: a law made in float32 has parameters that are off by 1e-7 of their size.
    """
    tolerance = tolerance + 1e-6
    low, high = value - tolerance, value + tolerance
    return Quantity(value, "numeric", low, high, unit="nats", method_low=low, method_high=high)


def disc_shares(law: Any, centres: np.ndarray, radius: float, radii: int = 64, angles: int = 256) -> np.ndarray:
    """∫ p over each disc of the plane: Gauss-Legendre in the radius, trapezoid in the angle, in float64.

    Returns (h,) for centres (h, 2). Both rules converge geometrically for a density that is smooth inside the disc.
    """
    nodes, weights = gauss_legendre(radii, 0.0, radius)
    angle = 2 * np.pi * np.arange(angles) / angles
    ring = np.stack([np.cos(angle), np.sin(angle)], axis=-1)
    points = centres[:, None, None, :] + nodes[:, None, None] * ring
    log_p = log_prob_float64(law, points.reshape(-1, 2)).reshape(len(centres), radii, angles)
    return np.einsum("hra,r->h", np.exp(log_p), weights * nodes) * 2 * np.pi / angles


def log_prob_float64(law: Any, points: np.ndarray) -> np.ndarray:
    """log p at points (n, d) as float64 (n,), whatever the precision of the law.

    Rows are padded to a power of two and taken 2¹⁶ at a time, so that a law is compiled for few shapes.
    """
    n, most = len(points), 1 << 16
    block = min(most, max(1024, 1 << (n - 1).bit_length()))
    padded = np.concatenate([points, np.repeat(points[-1:], -n % block, axis=0)])
    with jax.enable_x64(True):
        double = jax.tree.map(_widen, law)
        parts = [
            np.asarray(_log_prob_rows(double, jnp.asarray(padded[i : i + block], jnp.float64)))
            for i in range(0, len(padded), block)
        ]
    return np.concatenate(parts)[:n]


def _map_log_prob(law: Any, rows: Array) -> Array:
    return jax.lax.map(law.log_prob, rows, batch_size=1024)


_log_prob_rows = eqx.filter_jit(_map_log_prob, compiler_options=SOUND_PROGRAM)  # type: ignore[call-overload]


@lru_cache(maxsize=64)
def _legendre(n: int) -> tuple[np.ndarray, np.ndarray]:
    return np.polynomial.legendre.leggauss(n)


def gauss_legendre(n: int, low: float, high: float) -> tuple[np.ndarray, np.ndarray]:
    """Nodes and weights (n,) of Gauss-Legendre quadrature on [low, high], exact for polynomials of degree 2n − 1."""
    nodes, weights = _legendre(n)
    half = 0.5 * (high - low)
    return low + half * (nodes + 1), half * weights


def _widen(leaf: Any) -> Any:
    is_float = hasattr(leaf, "dtype") and jnp.issubdtype(leaf.dtype, jnp.floating)
    return jnp.asarray(np.asarray(leaf), jnp.float64) if is_float else leaf
