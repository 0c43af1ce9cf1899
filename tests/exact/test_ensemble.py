"""Ensembles: a mixture of densities is a density, sampled as one, and its members learn apart from each other."""

from __future__ import annotations

import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mulligan.data.codec import Part
from mulligan.data.native import NativeCodec
from mulligan.data.table import Column, Schema
from mulligan.measures.likelihood import draw
from mulligan.models.autoregressive import make_autoregressive
from mulligan.models.columns import columns_of
from mulligan.models.ensemble import Ensemble
from mulligan.models.flow import stack
from mulligan.objectives.likelihood import Rows, members_negative_log_likelihood

LEVELS = (3, 2, 2)
STATES = jnp.asarray(list(itertools.product(*map(range, LEVELS))), jnp.float32)
WORST = 4.75  # |z| of tests/laws: a false alarm in 2e-6


def ensemble(orders=((0, 1, 2), (2, 0, 1), (1, 2, 0))) -> Ensemble:
    """Members far from each other, on three categories."""
    names = [Column(f"c{k}", "categorical", "text", levels=tuple(map(str, range(k)))) for k in LEVELS]
    columns = columns_of(NativeCodec(Schema(tuple(names)), tuple(Part(j, 1) for j in range(3))))
    members = []
    for i, order in enumerate(orders):
        member = make_autoregressive(columns, np.random.default_rng(i), order=order, width=6, depth=1, frequencies=())
        noise = np.random.default_rng(10 + i)
        disturb = lambda leaf: leaf + noise.normal(size=leaf.shape).astype(np.float32)  # noqa: E731, B023
        floats, rest = eqx.partition(member, eqx.is_inexact_array)
        members.append(eqx.combine(jax.tree.map(disturb, floats), rest))
    return Ensemble(stack(members))


def test_it_sums_to_one_and_is_the_mean_of_its_members():
    model = ensemble()
    each = np.asarray(jax.vmap(model.each_log_prob)(STATES), float)
    log_p = np.asarray(jax.vmap(model.log_prob)(STATES), float)
    assert np.exp(log_p).sum() == pytest.approx(1, abs=1e-6)
    np.testing.assert_allclose(np.exp(log_p), np.exp(each).mean(1), rtol=1e-5)
    assert (log_p >= each.mean(1) - 1e-6).all()  # Jensen
    assert np.abs(each - each[:, :1]).max() > 0.3  # members differ, or nothing was tested
    assert np.isnan(model.log_prob(jnp.asarray([0.0, np.nan, 1.0])))


def largest_z(sampler, model, seed) -> float:
    """The largest |z| of a state's frequency against its probability."""
    n = 25_600
    rows = draw(sampler, n, seed)
    counts = np.array([(rows == state).all(1).sum() for state in np.asarray(STATES)])
    p = np.exp(np.asarray(jax.vmap(model.log_prob)(STATES), float))
    return float(np.max(np.abs(counts - n * p) / np.sqrt(n * p * (1 - p))))


class _FirstMember(eqx.Module):
    """A sampler that never leaves the first member."""

    model: Ensemble

    def sample(self, key, given=None):
        first = jax.tree.map(lambda leaf: leaf[0] if eqx.is_array(leaf) else leaf, self.model.members)
        return first.sample(key, given)


def test_draws_follow_the_mixture(seed):
    model = ensemble()
    assert largest_z(model, model, seed) < WORST
    assert largest_z(_FirstMember(model), model, seed) > WORST


def test_members_with_one_order_have_its_marginals():
    model = ensemble(orders=((1, 0, 2),) * 3)
    p = np.exp(np.asarray(jax.vmap(model.log_prob)(STATES), float)).reshape(LEVELS)
    for level in range(2):
        leading = model.leading_log_prob(jnp.asarray([np.nan, level, np.nan]), 1)
        assert float(jnp.exp(leading)) == pytest.approx(p[:, level].sum(), rel=1e-5)


def test_members_learn_apart():
    model = ensemble()

    def gradient_of_first(other):
        changed = jax.tree.map(
            lambda leaf: leaf.at[1:].multiply(other) if eqx.is_inexact_array(leaf) else leaf, model.members
        )
        found = eqx.filter_grad(lambda m: members_negative_log_likelihood(m, None, Rows(STATES))[0])(Ensemble(changed))
        return [np.asarray(leaf[0]) for leaf in jax.tree.leaves(eqx.filter(found, eqx.is_inexact_array))]

    for one, other in zip(gradient_of_first(1.0), gradient_of_first(0.5)):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-7)
