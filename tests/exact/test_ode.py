"""Solvers in float64: their orders on an equation with a closed form, the divergence, probes, adaptive steps."""

from __future__ import annotations

from itertools import product

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from saboteurs.continuous_flows import DIVERGENCES, HASHES, PROBES, TABLES

from mulligan.loop import compile_small
from mulligan.samplers import ode
from mulligan.samplers.ode import METHODS, evaluations, signs, signs_of, solve, solve_adaptive, solve_with_divergence

ORDERS = {"euler": 1, "heun": 2, "midpoint": 2, "rk4": 4}
START = np.array([0.3, -0.8])
GRIDS = (16, 32, 64, 128)  # intervals; at 32 and 64 the method of order 4 is not yet at its slope (4.13)
ENDS = (0.5, 2.0)


@pytest.fixture
def x64():
    with jax.enable_x64(True):
        yield


def velocity(x, t):
    """x' = x² cos t in each coordinate: 1/x + sin t stays what it is, and div v = 2 cos t Σ x."""
    return x**2 * jnp.cos(t)


def truth(x, start, end):
    """The end of the path, and ∫ div v along it: dx/x = x cos t dt, so each coordinate adds 2 log(x(end)/x(start))."""
    end_x = 1 / (1 / x - (np.sin(end) - np.sin(start)))
    return end_x, 2 * np.log(end_x / x).sum()


def padded_grids(start, end):
    """Grids of all sizes in one array: a step of length 0 at the end changes nothing, so one program serves all."""
    return np.stack([np.concatenate([np.linspace(start, end, n + 1), np.full(GRIDS[-1] - n, end)]) for n in GRIDS])


def slopes(method, ends=ENDS) -> np.ndarray:
    """log₂ of the ratio of errors of x and of ∫ div v between the two finest grids."""
    run = compile_small(
        jax.vmap(lambda times: solve_with_divergence(velocity, jnp.asarray(START), times, method), in_axes=0)
    )
    found, change = run(jnp.asarray(padded_grids(*ends)))
    end, true_change = truth(START, *ends)
    errors = np.stack([np.abs(found - end).max(1), np.abs(change - true_change)], 1)
    return np.log2(errors[-2] / errors[-1])


@pytest.mark.parametrize("method", METHODS)
def test_a_method_has_its_order(x64, method):
    np.testing.assert_allclose(slopes(method), ORDERS[method], atol=0.1)
    assert evaluations(method) == {"euler": 1, "heun": 2, "midpoint": 2, "rk4": 4}[method]


@pytest.mark.parametrize("fault", TABLES)
def test_broken_tables_are_refused(x64, fault, monkeypatch):
    method, table = TABLES[fault]
    monkeypatch.setitem(ode._TABLES, method, table)
    assert (np.abs(slopes(method) - ORDERS[method]) > 0.1).any()


def mixed(x, t):
    """A velocity whose Jacobian is no diagonal, so random signs have something to average."""
    turn = jnp.asarray([[0.4, -1.3], [0.6, 0.2]])
    return jnp.tanh(turn @ x + t) + 0.3 * x * x[::-1]


def divergence_error() -> float:
    """The exact divergence against the log-determinant of the solver's own map, and against the mean of all signs."""
    times = jnp.linspace(0.0, 1.0, 201)
    every = jnp.asarray(list(product((-1.0, 1.0), repeat=2)))

    @compile_small
    def all_ways(x):
        ways = [solve_with_divergence(mixed, x, times, "rk4", probes)[1] for probes in (None, every)]
        jacobian = jax.jacfwd(lambda y: solve(mixed, y, times, "rk4"))(x)
        return ways[0], jnp.mean(ways[1]), jnp.linalg.slogdet(jacobian)[1]

    exact, mean, log_det = all_ways(jnp.asarray(START))
    return float(max(abs(exact - log_det), abs(mean - log_det)))


def test_the_divergence_is_that_of_the_map(x64):
    assert divergence_error() < 1e-9


@pytest.mark.parametrize("fault", DIVERGENCES)
def test_broken_divergences_are_refused(x64, fault, monkeypatch):
    monkeypatch.setattr(ode, "with_divergence", DIVERGENCES[fault])
    assert not divergence_error() < 1e-3


def probe_error(make, key) -> float:
    """How far the second moments of many probes are from I, in standard errors of an off-diagonal entry."""
    probes = np.asarray(make(key, 4096, 3))
    return float(np.abs(probes.T @ probes / 4096 - np.eye(3)).max() * 64)


def test_probes_have_unit_second_moments(key):
    assert probe_error(signs, key) < 4.75
    assert probe_error(lambda key, k, d: signs_of(jnp.asarray([0.3, -1.0, 2.0]), k), key) < 4.75


@pytest.mark.parametrize("fault", PROBES)
def test_broken_probes_are_refused(key, fault):
    assert probe_error(PROBES[fault], key) > 4.75


def shared_signs(hashed, seed) -> float:
    """Mean product of the signs of neighbouring floats and of equal ones, in standard errors of independence."""
    x = (np.random.default_rng(seed).normal() + np.arange(4096) * 1e-6).astype(np.float32)
    rows = jnp.asarray(np.stack([x, np.full(4096, 0.5, np.float32)], 1))
    drawn = np.asarray(jax.vmap(lambda row: hashed(row, 1)[0])(rows))
    again = np.asarray(jax.vmap(lambda row: hashed(row, 1)[0])(rows))
    assert (drawn == again).all()
    # floats closer together than their spacing are equal, and so are their signs
    distinct = np.flatnonzero(np.diff(x))
    return float(np.abs((drawn[distinct] * drawn[distinct + 1]).mean(0)).max() * np.sqrt(len(distinct)))


def test_hashed_signs_are_a_function_of_x_and_as_good_as_independent(seed):
    assert shared_signs(signs_of, seed) < 4.75


@pytest.mark.parametrize("fault", HASHES)
def test_broken_hashes_are_refused(seed, fault):
    assert shared_signs(HASHES[fault], seed) > 4.75


def test_there_and_back(x64):
    times = jnp.linspace(0.0, 1.0, 401)
    go = compile_small(lambda x, times: solve(mixed, x, times, "rk4"))
    away = go(jnp.asarray(START), times)
    np.testing.assert_allclose(go(away, times[::-1]), START, atol=1e-10)
    assert np.abs(away - START).max() > 0.3


def test_adaptive_steps_reach_the_end_or_say_not():
    """In float32, as models are: near the closed form; where steps do not suffice, or NaN comes in, NaN goes out."""

    @compile_small
    def both(x):
        found = solve_adaptive(velocity, x, *ENDS, divergence=True)
        hurried = solve_adaptive(velocity, x, *ENDS, divergence=True, most_steps=2)
        return found, hurried, jax.grad(lambda y: solve_adaptive(velocity, y, *ENDS, divergence=True).divergence)(x)

    found, hurried, gradient = both(jnp.asarray(START, jnp.float32))
    end, change = truth(START, *ENDS)
    assert found.reached and not hurried.reached
    np.testing.assert_allclose(found.x, end, rtol=1e-4)
    np.testing.assert_allclose(found.divergence, change, atol=1e-4)
    assert found.evaluations > 6 and np.isnan(hurried.x).all() and np.isnan(hurried.divergence)
    slope = [(truth(START + step, *ENDS)[1] - truth(START - step, *ENDS)[1]) / 2e-5 for step in 1e-5 * np.eye(2)]
    np.testing.assert_allclose(gradient, slope, rtol=1e-3)
    lost, _, _ = both(jnp.asarray([np.nan, 0.1], jnp.float32))
    assert np.isnan(lost.x).all() and not lost.reached


def test_an_unknown_method_is_refused():
    with pytest.raises(ValueError, match="expected one of euler, heun, midpoint, rk4"):
        solve(velocity, jnp.ones(1), jnp.linspace(0.0, 1.0, 3), "rk5")
