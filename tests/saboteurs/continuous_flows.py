"""Broken twins of the solvers, the velocity field, its objective and the continuous flow: tests/exact/test_ode.py and
tests/exact/test_continuous_flow.py must reject every one."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from mulligan.samplers import ode

# --- solvers: tables of a method, by name of the method whose order they would break ----------------------------------

STAGES = ((), (0.5,), (0.0, 0.5), (0.0, 0.0, 1.0))  # of the classical method of order 4
TABLES = {
    "second stage at the start of the step": ("heun", ((0.0, 0.0), ((), (1.0,)), (0.5, 0.5))),
    "second stage not moved": ("heun", ((0.0, 1.0), ((), (0.0,)), (0.5, 0.5))),
    "all weight on the last stage": ("heun", ((0.0, 1.0), ((), (1.0,)), (0.0, 1.0))),
    "half a step twice": ("rk4", ((0.0, 0.5, 0.5, 0.5), STAGES, (1 / 6, 1 / 3, 1 / 3, 1 / 6))),
    "weights of another rule": ("rk4", ((0.0, 0.5, 0.5, 1.0), STAGES, (1 / 8, 3 / 8, 3 / 8, 1 / 8))),
    "midpoint at the end": ("midpoint", ((0.0, 1.0), ((), (0.5,)), (0.0, 1.0))),
}


def _divergence_by(trace):
    def with_divergence(velocity, probes=None):
        def both(state, t):
            x, _ = state
            value, push = jax.linearize(lambda y: velocity(y, t), x)
            return value, trace(jax.vmap(push), x, probes)

        return both

    return with_divergence


DIVERGENCES = {
    "sign": _divergence_by(lambda push, x, probes: -jnp.trace(push(jnp.eye(len(x))))),
    "sum of all entries": _divergence_by(lambda push, x, probes: jnp.sum(push(jnp.eye(len(x))))),
    "first direction only": _divergence_by(lambda push, x, probes: push(jnp.eye(len(x)))[0, 0]),
}


def unit_probes(key, k, d):
    """Probes of length 1 in place of √d."""
    return jax.random.rademacher(key, (k, d), float) / np.sqrt(d)


def one_sign(key, k, d):
    """The same sign in all places: the off-diagonal entries no longer cancel."""
    return jnp.broadcast_to(jax.random.rademacher(key, (k, 1), float), (k, d))


PROBES = {"of length 1": unit_probes, "one sign for all places": one_sign}


def unhashed(x, k):
    """The same signs for every x."""
    return ode.signs(jax.random.key(0), k, x.shape[0])


def blind_to_small_bits(x, k):
    """Signs that only a large change of x changes."""
    return ode.signs(jax.random.fold_in(jax.random.key(0), jnp.sum(jnp.abs(x)).astype(jnp.uint32)), k, x.shape[0])


HASHES = {"none": unhashed, "coarse": blind_to_small_bits}

# --- objective: (x_0, e, t) to (x_t, target, weight) in place of ((1 − t) x_0 + t e, e − x_0) --------------------------

TARGETS = {
    "sign of the target": lambda x, e, t: ((1 - t) * x + t * e, x - e),
    "α and σ swapped": lambda x, e, t: (t * x + (1 - t) * e, e - x),
    "noise in place of the direction": lambda x, e, t: ((1 - t) * x + t * e, e),
    "noise not faded in": lambda x, e, t: ((1 - t) * x + e, e - x),
}


def broken_error(target):
    """``objectives.flow_matching.squared_error`` with another path or target."""

    def squared_error(model, white, noise, times, given=None):
        def one(x, e, t):
            at, wanted = target(x, e, t)
            return ((1 - t) ** 2 + t**2) * jnp.mean((model(at, t, None) - wanted) ** 2)

        return jnp.mean(jax.vmap(one)(white, noise, times))

    return squared_error


def uniform_times(key, n):
    """Times without regard to how much each matters."""
    return (jnp.arange(n) + jax.random.uniform(key)) / n


def longest(x, e, rounds=2):
    """Exchanges where that makes the paths longer."""
    from mulligan.objectives.flow_matching import paired

    return -paired(x, -e, rounds)


def with_replacement(x, e, rounds=2):
    """The nearest noise of each row, however many rows share it: noise is no longer standard normal."""
    return e[jnp.argmin(jnp.sum((x[:, None] - e) ** 2, -1), 1)]


PAIRINGS = {"longest": longest, "nearest": with_replacement, "none": lambda x, e, rounds=2: e}

# --- the flow ---------------------------------------------------------------------------------------------------------


class _Twin:
    """A continuous flow with a fault in log p."""

    def __init__(self, flow, fault):
        self.flow, self.fault = flow, fault

    def log_prob(self, x):
        start, log_det = self.flow.velocity.whiten(x)
        end, change = self.flow._to_noise(start, None, None)
        normal = -0.5 * (end @ end) - 0.5 * len(end) * np.log(2 * np.pi)
        return {
            "sign of the divergence": normal - change + log_det,
            "divergence forgotten": normal + log_det,
            "whitening forgotten": normal + change,
            "whitening counted backwards": normal + change - log_det,
            "normal at the wrong end": -0.5 * (start @ start) - 0.5 * len(end) * np.log(2 * np.pi) + change + log_det,
        }[self.fault]


FLOWS = {
    fault: lambda flow, fault=fault: _Twin(flow, fault)
    for fault in (
        "sign of the divergence",
        "divergence forgotten",
        "whitening forgotten",
        "whitening counted backwards",
        "normal at the wrong end",
    )
}
