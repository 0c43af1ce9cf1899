"""Broken twins of the named laws' samplers: each must be rejected by tests/laws/test_targets_law.py.

A twin is (law, what is wrong, sampler), the sampler being a law with other parameters, or a function from a NumPy
generator and n to rows (n, d).
"""

from __future__ import annotations

import math

import jax.numpy as jnp
import numpy as np

from mulligan.targets.curves import NoisyCurve, Rings, two_spirals, upper_and_lower_moon
from mulligan.targets.discrete import Ising, Potts, RestrictedBoltzmann
from mulligan.targets.named import law
from mulligan.targets.shapes import GaussianHoles, Pinwheel, Sheared
from mulligan.targets.wells import DoubleWell


def constant(name):
    return lambda rng, n: np.full((n, law(name).dim), 1.0)


def quadratic_angle(rng, n):
    radius, angle = rng.choice([3.0, 1.5], n), 2 * np.pi * rng.uniform(size=n) ** 1.1
    return radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], -1) + 0.24 * rng.normal(size=(n, 2))


def moons_with_uniform_x(rng, n):
    x = rng.uniform(-1, 1, n)
    upper, lower = np.stack([x, np.sqrt(1 - x**2)], -1), np.stack([1 - x, 0.5 - np.sqrt(1 - x**2)], -1)
    return np.where(rng.uniform(size=(n, 1)) < 0.5, upper, lower) + 0.1 * rng.normal(size=(n, 2))


def other_colour(rng, n):
    cells = np.array([(2 * i, 2 * j) for i in range(-2, 2) for j in range(-2, 2) if (i + j) % 2])
    return cells[rng.integers(8, size=n)] + 2 * rng.uniform(size=(n, 2))


def seven_cells(rng, n):
    cells = np.array([(2 * i, 2 * j) for i in range(-2, 2) for j in range(-2, 2) if (i + j) % 2 == 0])
    return cells[rng.integers(7, size=n)] + 2 * rng.uniform(size=(n, 2))


def variance_for_sd(rng, n):
    v = 3 * rng.normal(size=n)
    return np.stack([v, np.exp(v) * rng.normal(size=n)], -1)


def twins():
    """All of them; made in a function, for a law is an array and arrays want JAX's precision to be set."""
    eight, rbm = GaussianHoles.ring(8, 2.0, 0.2), law("rbm-6x4")
    return [
        ("eight-gaussians", "noise too wide by 7 per cent", GaussianHoles.ring(8, 2.0, 0.214)),
        ("eight-gaussians", "seven holes", GaussianHoles(eight.mixture.means.at[7].set(eight.mixture.means[0]), 0.2)),
        ("eight-gaussians", "constant", constant("eight-gaussians")),
        ("grid-gaussians", "variance for sd", GaussianHoles.grid(5, 2.0, 0.05**2)),
        ("moons", "noise too wide by 7 per cent", NoisyCurve(upper_and_lower_moon, 0.107)),
        ("moons", "x uniform, not the angle", moons_with_uniform_x),
        ("circles", "noise not scaled by three", Rings(jnp.array([3.0, 1.5]), jnp.array(0.08))),
        ("circles", "angle not uniform", quadratic_angle),
        ("rings", "one radius wrong by 0.05", Rings(jnp.array([3.0, 2.25, 1.5, 0.8]), jnp.array(0.08))),
        ("checkerboard", "the other colour", other_colour),
        ("checkerboard", "seven cells", seven_cells),
        ("spirals", "uniform angle", NoisyCurve(two_spirals, 0.1, power=1, nodes=640)),
        ("pinwheel", "twisted the other way", Pinwheel(-0.12)),
        ("banana", "offset forgotten", Sheared(*map(jnp.asarray, (0.0, 2.0, 0.5, 0.25, 0.0)))),
        ("funnel", "e^v for e^(v/2)", variance_for_sd),
        ("double-well", "tilt forgotten", DoubleWell(c=0.0)),
        ("rosenbrock", "variance for sd", Sheared(*map(jnp.asarray, (1.0, math.sqrt(10.0), 0.1, 1.0, 0.0)))),
        ("ising-3x3", "beta too large by 10 per cent", Ising((3, 3), 0.484)),
        ("ising-3x3", "constant", constant("ising-3x3")),
        ("potts-2x3", "sign of beta", Potts((2, 3), 3, -0.5)),
        ("rbm-6x4", "hidden biases forgotten", RestrictedBoltzmann(rbm.W, rbm.b, 0 * rbm.c)),
    ]
