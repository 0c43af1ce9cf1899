"""Restricted Boltzmann machines: sums over all states, draws that follow them, and the gradient of every learning rule.

Draws and gradients are tested as in tests/laws: independent, so that thresholds are those of a normal and a chi-square law.
"""

from __future__ import annotations

from functools import lru_cache

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from saboteurs import boltzmann as saboteurs
from scipy.special import chdtri

import mulligan.models.boltzmann as boltzmann
from mulligan.errors import UsageError
from mulligan.lab.identities.contrastive import gibbs_sweep
from mulligan.learners.boltzmann import (
    BoltzmannDescent,
    BoltzmannHealth,
    base_logits,
    boltzmann_descent,
    exact_loss,
    fresh_machine,
    movement,
    positions,
)
from mulligan.learners.gradient import Minibatch, gradient_descent, trainable
from mulligan.loop import compile_small
from mulligan.models.boltzmann import (
    CentredMachine,
    EstimatedBoltzmannMachine,
    Parameters,
    enumerated,
    log_partition,
    negative_free_energy,
)
from mulligan.objectives.contrastive import contrastive_loss
from mulligan.objectives.likelihood import Rows
from mulligan.targets.discrete import RestrictedBoltzmann, states

ALPHA, Z = 2e-6, 4.75
DRAWS = 20_000
BETAS = np.array([0.0, 0.3, 0.7, 1.0])


@pytest.fixture
def x64():
    with jax.enable_x64(True):
        yield


def parameters_for(n, m, seed=0, scale=1.0):
    rng = np.random.default_rng([n, m, seed])
    numbers = scale * rng.normal(size=(n, m)), 0.5 * rng.normal(size=n), np.linspace(1.5, -1.0, m)
    return Parameters(*map(jnp.asarray, numbers))


def every(n):
    return jnp.asarray(states(0, 2**n, 2, n), float)


# --- sums over states -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(5, 3), (3, 5), (4, 4)])
def test_log_p_sums_to_one_and_is_the_laws(x64, shape):
    parameters = parameters_for(*shape)
    machine, law = enumerated(parameters), RestrictedBoltzmann(*parameters)
    log_p = jax.vmap(machine.log_prob)(every(shape[0]))
    np.testing.assert_allclose(np.exp(log_p).sum(), 1.0, rtol=1e-12)
    np.testing.assert_allclose(log_p, jax.vmap(law.log_prob)(every(shape[0])), atol=1e-12)
    np.testing.assert_allclose(machine.log_z, law.log_z, rtol=1e-12)
    np.testing.assert_allclose(-jax.vmap(machine.energy)(every(shape[0])) - machine.log_z, log_p, atol=1e-12)
    assert machine.kind == "exact" and machine.log_z_stderr == 0


@pytest.mark.parametrize("shape", [(5, 3), (3, 5)])
def test_log_partition_in_blocks_and_its_gradient(x64, shape, monkeypatch):
    parameters, law = parameters_for(*shape), RestrictedBoltzmann(*parameters_for(*shape))
    p = np.exp(jax.vmap(law.log_prob)(every(shape[0])))
    slope = jax.grad(negative_free_energy)
    of_state = compile_small(jax.vmap(lambda v: ravel_pytree(slope(parameters, v))[0]))
    means = p @ np.asarray(of_state(every(shape[0])))
    for low in (12, 1):  # all states at once, and in four blocks
        monkeypatch.setattr(boltzmann, "_LOW", low)
        value, gradient = compile_small(jax.value_and_grad(lambda p: log_partition(p)))(parameters)
        np.testing.assert_allclose(value, law.log_z, rtol=1e-12)
        np.testing.assert_allclose(ravel_pytree(gradient)[0], means, atol=1e-12)


def test_outside_of_the_states_and_nan():
    machine = enumerated(parameters_for(3, 2))
    estimate = EstimatedBoltzmannMachine(machine.weights, machine.b, machine.c, machine.b, machine.log_z, jnp.zeros(()))
    for model in (machine, estimate):
        log_p = jax.vmap(model.log_prob)(
            jnp.asarray([[0.0, 1, 1], [0, 0.5, 1], [0, 2, 1], [0, -1, 1], [0, jnp.nan, 1]])
        )
        assert np.isfinite(log_p[0]) and np.isneginf(log_p[1:4]).all() and np.isnan(log_p[4])
    np.testing.assert_array_equal(machine.log_prob(jnp.ones(3)), estimate.log_prob(jnp.ones(3)))


def test_too_many_states_are_refused():
    with pytest.raises(UsageError, match="cannot be enumerated"):
        enumerated(parameters_for(21, 21))


def test_centred_and_plain_parameters_are_one_law(x64):
    plain, centre = parameters_for(4, 3), jnp.asarray([0.2, 0.9, 0.5, 0.0])
    machine = CentredMachine(*plain, centre)
    away = every(4) - centre
    by_hand = away @ plain.b + jnp.log(2 * jnp.cosh(0.5 * (plain.c + away @ plain.weights))).sum(axis=1)
    ours = jax.vmap(machine.f)(every(4))
    np.testing.assert_allclose(ours - ours[0], by_hand - by_hand[0], atol=1e-12)
    assert trainable(machine)[0].centre is None and trainable(machine)[0].weights is not None


def test_a_fresh_machine_has_the_base_rates():
    rows = (np.random.default_rng(0).random((500, 3)) < [0.1, 0.5, 0.98]).astype(float)
    machine = fresh_machine(rows, 2, np.random.default_rng(0))
    exact = enumerated(Parameters(*map(np.asarray, machine.parameters())))
    mean = np.exp(np.asarray(jax.vmap(exact.log_prob)(every(3)))) @ np.asarray(every(3))
    np.testing.assert_allclose(mean, rows.mean(axis=0), atol=0.01)
    assert np.isfinite(base_logits(np.ones((4, 2)))).all()


# --- draws ------------------------------------------------------------------------------------------------------------


@compile_small
def drawn(model, key):
    return jax.vmap(model.sample)(jax.random.split(key, DRAWS))


def chi_square(model, law, key):
    """(statistic, threshold) of draws of a model against a law on at most 2^5 states."""
    draws = np.asarray(drawn(model, key))
    n = draws.shape[1]
    counts = np.bincount((draws @ 2 ** np.arange(n)[::-1]).astype(int), minlength=2**n)
    expected = DRAWS * np.exp(np.asarray(jax.vmap(law.log_prob)(every(n)), float))
    few = expected < 20  # cells too thin for the chi-square's law are joined
    counts, expected = (np.append(a[~few], a[few].sum()) for a in (counts, expected))
    kept = expected > 0
    return ((counts - expected)[kept] ** 2 / expected[kept]).sum(), chdtri(kept.sum() - 1, ALPHA)


@pytest.mark.parametrize("shape", [(5, 3), (3, 5)], ids=["hidden enumerated", "visible enumerated"])
def test_draws_follow_the_law(shape, key):
    machine = enumerated(parameters_for(*shape))
    statistic, threshold = chi_square(machine, machine, key)
    assert statistic < threshold, f"chi-square {statistic:.1f}, threshold {threshold:.1f}, n {DRAWS}, alpha {ALPHA}"


@pytest.mark.parametrize("fault", saboteurs.DRAWERS)
def test_wrong_draws_are_seen(fault, key):
    machine = enumerated(parameters_for(5, 3))
    statistic, threshold = chi_square(saboteurs.drawer(machine, fault), machine, key)
    assert statistic > threshold


def test_annealed_draws_near_the_law(key):
    """Bias left after 300 sweeps is far below what 20 000 draws can see; after one it is not."""
    parameters = parameters_for(5, 3)
    machine, zero = enumerated(parameters), jnp.zeros(5)
    for sweeps, near in ((300, True), (1, False)):
        annealed = EstimatedBoltzmannMachine(*parameters, zero, machine.log_z, jnp.zeros(()), sweeps)
        start = eqx.tree_at(lambda m: m.base, annealed, jnp.full(5, 3.0))
        statistic, threshold = chi_square(start, machine, key)
        assert (statistic < threshold) == near, (sweeps, statistic, threshold)


# --- gradients --------------------------------------------------------------------------------------------------------


def test_the_exact_loss_is_minus_the_mean_log_p(x64):
    machine, rows = CentredMachine(*parameters_for(5, 3), jnp.full(5, 0.3)), every(5)[jnp.asarray([1, 7, 7, 30])]
    loss, info = exact_loss(machine, None, Rows(rows))
    law = enumerated(machine.parameters())
    np.testing.assert_allclose(-loss, jax.vmap(law.log_prob)(rows).mean(), atol=1e-12)
    np.testing.assert_allclose(info["train"], -loss)
    p = jnp.exp(jax.vmap(law.log_prob)(every(5)))
    slopes = every_slope(machine)
    expected = p @ slopes - slopes[jnp.asarray([1, 7, 7, 30])].mean(axis=0)
    gradient = exact_gradient(machine, rows)
    np.testing.assert_allclose(gradient, expected, atol=1e-12)


def _slopes(machine, v):
    """∂f(v)/∂θ of what is learned."""
    weights, frozen = trainable(machine)
    return jax.grad(lambda w: eqx.combine(w, frozen).f(v))(weights)


@compile_small
def every_slope(machine):
    return jax.vmap(lambda v: ravel_pytree(_slopes(machine, v))[0])(every(machine.b.size))


@compile_small
def exact_gradient(machine, rows):
    gradient = jax.grad(lambda m: exact_loss(m, None, Rows(rows))[0])(machine)
    return ravel_pytree(trainable(gradient)[0])[0]


@lru_cache
def machine_20_by_10():
    """θ away from the optimum: rows of one machine, weights of another. 2 000 rows."""
    rows = np.asarray(drawn(enumerated(parameters_for(20, 10, 1, 0.6)), jax.random.key(5)))[:2000]
    return CentredMachine(*parameters_for(20, 10, 2, 0.6), jnp.asarray(rows.mean(axis=0))), rows


def stationary(kernel, machine, key):
    """The kernel's state with every chain, and every rung of it, at an exact draw."""
    weights, b, c = machine.parameters()
    state = kernel.init(key, machine)
    if kernel.betas is None:
        exact = drawn(enumerated(machine.parameters()), key)
        return state._replace(chains=state.chains._replace(position=exact))
    rungs = [
        drawn(
            enumerated(Parameters(beta * weights, beta * b + (1 - beta) * kernel.base, beta * c)),
            jax.random.fold_in(key, i),
        )
        for i, beta in enumerate(BETAS)
    ]
    return state._replace(chains=state.chains._replace(positions=jnp.stack(rungs, axis=1)))


@compile_small
def _step(kernel, key, state, input):
    state, info = kernel.step(key, state, input)
    return (
        state,
        info,
        jax.vmap(lambda v: ravel_pytree(_slopes(kernel.descent.learning(state.learned), v))[0])(
            positions(state.chains)
        ),
    )


def z_of_gradient(kernel, machine, rows, key):
    """z of every coordinate of the gradient with which the kernel moves, and info.

    Adam's first moment is a tenth of the gradient after one step. The rows' mean is exact on both sides; the chains are
    independent and follow p, so the error is theirs alone.
    """
    state = stationary(kernel, machine, key)
    start = positions(state.chains)
    still = Minibatch(jnp.arange(len(rows)), jnp.zeros(()))
    state, info, slopes = _step(kernel, jax.random.fold_in(key, 99), state, still)
    gradient = 10 * np.asarray(ravel_pytree(state.learned.moments.mu)[0], float)
    exact = np.asarray(exact_gradient(machine, jnp.asarray(rows)), float)
    error = np.asarray(slopes, float).std(axis=0) / np.sqrt(DRAWS)
    assert not np.array_equal(start, positions(state.chains))
    return (gradient - exact) / error, info


def learner(betas=None, objective=contrastive_loss, cls=BoltzmannDescent):
    machine, rows = machine_20_by_10()
    descent = gradient_descent(objective, machine, Rows(jnp.asarray(rows)), clip=1e6)
    made = boltzmann_descent(descent, base_logits(rows), betas=betas, sweeps=3, chains=DRAWS)
    return cls(made.descent, made.base, made.betas, made.sweeps, made.count), machine, rows


@pytest.mark.parametrize("betas", [None, BETAS], ids=["pcd", "tempered"])
def test_gradient_of_stationary_chains_is_the_exact_one(betas, key):
    z, info = z_of_gradient(*learner(betas), key)
    assert z.size == 20 * 10 + 20 + 10
    assert np.abs(z).max() < Z, f"|z| {np.abs(z).max():.2f} at {np.abs(z).argmax()}, n {DRAWS}, threshold {Z}"
    assert 0.3 < info["movement"] < 1.1  # chains that never move would pass
    assert (betas is None) == (info["swaps"] == 1) and info["swaps"] > 0.05


@pytest.mark.parametrize("fault", [*saboteurs.OBJECTIVES, *saboteurs.KERNELS])
def test_wrong_gradients_are_seen(fault, key):
    objective = saboteurs.OBJECTIVES.get(fault, contrastive_loss)
    z, _ = z_of_gradient(*learner(None, objective, saboteurs.KERNELS.get(fault, BoltzmannDescent)), key)
    assert np.abs(z).max() > 2 * Z


def test_gradient_of_cd_is_that_of_the_law_after_k_sweeps(key):
    """All rows are one state, so the chains follow its row of T²."""
    machine = CentredMachine(*parameters_for(5, 3), jnp.full(5, 0.5))
    plain = RestrictedBoltzmann(*machine.parameters())
    law = np.linalg.matrix_power(np.asarray(gibbs_sweep(plain), float), 2)[11]
    rows = jnp.tile(every(5)[11], (DRAWS, 1))
    descent = gradient_descent(contrastive_loss, machine, Rows(rows), clip=1e6)
    kernel = boltzmann_descent(descent, np.zeros(5), sweeps=2, chains=0)
    state = kernel.init(key, machine)
    assert state.chains is None
    state, _ = compile_small(kernel.step)(key, state, Minibatch(jnp.arange(DRAWS), jnp.zeros(())))
    slopes = np.asarray(every_slope(machine), float)
    mean = law @ slopes
    error = np.sqrt(law @ (slopes - mean) ** 2 / DRAWS)
    z = (10 * np.asarray(ravel_pytree(state.learned.moments.mu)[0], float) - (mean - slopes[11])) / error
    assert np.abs(z).max() < Z
    wrong = np.linalg.matrix_power(np.asarray(gibbs_sweep(plain), float), 1)[11] @ slopes
    assert np.abs((wrong - mean) / error).max() > 2 * Z  # one sweep would be seen


# --- health -----------------------------------------------------------------------------------------------------------


def test_movement_is_one_for_independent_draws_and_zero_for_frozen_ones():
    rng = np.random.default_rng(0)
    a, b = (jnp.asarray((rng.random((20_000, 4)) < [0.1, 0.5, 0.9, 0.3]).astype(np.float32)) for _ in range(2))
    assert movement(a, a) == 0 and abs(movement(a, b) - 1) < 0.03


def test_health_speaks_of_frozen_and_diverged_chains():
    health = BoltzmannHealth(10, 3)
    curves = lambda gap, moved: {"train": np.full(9, gap), "movement": np.full(9, moved)}  # noqa: E731
    assert health(9, None, curves(0.5, 0.4)) is None
    assert "frozen" in health(9, None, curves(0.5, 1e-5))
    assert "worse than 10 fair coins" in health(9, None, curves(-7.0, 0.4))
    assert "do not follow" in health(9, None, curves(7.0, 0.4))
    assert health(9, None, curves(6.9, 0.4)) is None and health(9, None, curves(-6.9, 0.4)) is None
