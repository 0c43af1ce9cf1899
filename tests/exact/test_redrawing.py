"""Bits that are drawn anew at each step: right in expectation, a function of the step's key, and never the test's.

What is random is held to its exact law at |z| < 4.75 (level 2e-6); each check refuses broken twins.
"""

from __future__ import annotations

import contextlib
from types import SimpleNamespace

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from saboteurs import redrawing as twins

import mulligan as mg
from mulligan.catalog import FAMILIES
from mulligan.data.codec import Encoded
from mulligan.data.given import fit_any_codec
from mulligan.data.splits import make_split
from mulligan.data.table import ReadOptions
from mulligan.families import autoregressive, vae
from mulligan.families.training import _looked_at, training_rows
from mulligan.learners.gradient import Minibatches, gradient_descent
from mulligan.loop import run
from mulligan.objectives.likelihood import Redrawn, Rows
from mulligan.workbench.preparation import prepare
from mulligan.workbench.resuming import identity_of
from mulligan.workbench.sources import open_rows

Z = 4.75
CHANCES = np.array([[0.0, 1.0, 0.5, 0.3], [0.9, 0.02, 0.5, 0.7]], np.float32)
STEPS = 4096


def seen(model, key, batch):
    """An objective that shows what it was given."""
    return jnp.zeros(()), {"points": batch.points, "uniform": jax.random.uniform(key, batch.points.shape)}


def drawn(seed):
    """The bits and the objective's own numbers of many steps, (steps, 2, 4) each."""
    keys = jax.vmap(lambda i: jax.random.fold_in(jax.random.key(seed), i))(jnp.arange(STEPS))
    # Not compiled as a whole: the operations are then compiled once for all twins.
    info = jax.vmap(lambda key: Redrawn(seen)(None, key, Rows(jnp.asarray(CHANCES)))[1])(keys)
    return np.asarray(info["points"]), np.asarray(info["uniform"])


def check_draws(seed):
    bits, uniform = drawn(seed)
    assert set(np.unique(bits)) == {0.0, 1.0}
    error = np.sqrt(CHANCES * (1 - CHANCES) / STEPS)
    assert np.all(np.abs(bits.mean(0) - CHANCES) <= Z * error)  # and exactly 0 or 1 where the chance is
    free = (bits - CHANCES).reshape(STEPS, -1)[:, 2:]
    sizes = np.sqrt((CHANCES * (1 - CHANCES)).ravel()[2:])
    between = free.T @ free / STEPS / np.outer(sizes, sizes) - np.eye(6)  # pixels are independent,
    assert np.abs(between[~np.eye(6, dtype=bool)]).max() < Z / np.sqrt(STEPS)
    along = (free[1:] * free[:-1]).mean(0) / sizes**2  # and so are steps,
    assert np.abs(along).max() < Z / np.sqrt(STEPS - 1)
    own = ((uniform.reshape(STEPS, -1)[:, 2:] - 0.5) * free).mean(0) / sizes * np.sqrt(12)  # and the objective's key
    assert np.abs(own).max() < Z / np.sqrt(STEPS)


def test_bits_are_drawn_with_their_chances(seed):
    check_draws(seed)


@pytest.mark.parametrize("name", twins.DRAWS)
def test_broken_draws_are_refused(name, monkeypatch, seed):
    twins.DRAWS[name](monkeypatch)
    with pytest.raises(AssertionError):
        check_draws(seed)


def test_a_seed_gives_its_bits(seed):
    first, again, other = (drawn(s)[0] for s in (seed, seed, seed + 1))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


class Coins(eqx.Module):
    """Independent pixels; logits are learned."""

    logits: jax.Array


def coins(model, key, batch):
    mean = jnp.mean(jnp.sum(batch.points * model.logits - jnp.logaddexp(0.0, model.logits), axis=1))
    return -mean, {"train": mean, "white": batch.points.mean()}


def test_a_resumed_training_draws_the_same_bits(seed):
    model = Coins(jnp.zeros(4))
    kernel = gradient_descent(Redrawn(coins), model, Rows(jnp.asarray(CHANCES)))
    key, inputs = jax.random.key(seed), Minibatches(2, 2, 0.1, 9, 1, seed)
    whole = run(kernel, key, kernel.init(key, model), 9, inputs=inputs, capacity=8)
    half = run(kernel, key, kernel.init(key, model), 4, inputs=inputs, capacity=8)
    rest = run(kernel, key, half.state, 9, start=4, inputs=inputs, capacity=8)
    np.testing.assert_array_equal(whole.state.weights.logits, rest.state.weights.logits)
    white = whole.history["white"]
    np.testing.assert_array_equal(white, np.concatenate([half.history["white"], rest.history["white"]]))
    assert len(np.unique(white)) > 1  # the same two rows at every step, and other bits


# --- from the file to the objective ----------------------------------------------------------------------------------------


@pytest.fixture
def bright(seed):
    return np.random.default_rng(seed).integers(0, 256, (60, 3, 2), np.uint8)


def check_chances(bright, seed):
    table = mg.read(bright, binarise="redraw", seed=3)
    np.testing.assert_array_equal(table.values, mg.read(bright, binarise="draw", seed=3).values)
    np.testing.assert_allclose(table.chances, bright.reshape(60, 6) / 255, atol=1e-7)
    train = table.rows(make_split(table, seed).train)
    for values, chances in zip(train.values, train.chances):  # a row keeps its own
        place = np.flatnonzero((table.values == values).all(1) & (table.chances == chances).all(1))
        assert len(place)
    assert table.with_values(table.values).chances is None
    return table


def test_training_rows_keep_their_chances(bright, seed, monkeypatch):
    table = check_chances(bright, seed)
    plain = ReadOptions(binarise="redraw", seed=3)
    assert open_rows(bright, table.schema, plain).chances is None  # a test file is drawn once
    assert mg.read(bright, binarise="draw").chances is None and "anew" in " ".join(table.notes)
    twins.rows_without_chances(monkeypatch)
    with pytest.raises(AssertionError):
        check_chances(bright, seed)


def test_families_train_on_chances_where_there_are_any(bright):
    table = mg.read(bright, binarise="redraw")
    for given in ((), ("p10", "p00")):
        codec = fit_any_codec(table, given, native=True)
        rows, objective = training_rows(SimpleNamespace(train_rows=table), codec, seen)
        kept = [j for j, name in enumerate(table.names) if name not in given]
        np.testing.assert_array_equal(rows.points, table.chances[:, kept])
        assert objective == Redrawn(seen) and (rows.given is None) is (not given)  # equal ones share a program
    once = mg.read(bright, binarise="draw")
    rows, objective = training_rows(SimpleNamespace(train_rows=once), fit_any_codec(once, native=True), seen)
    np.testing.assert_array_equal(rows.points, once.values)
    assert objective is seen


def test_checkpoints_of_the_other_protocol_are_others(bright):
    once, anew = (identity_of({}, prepare(mg.read(bright, binarise=how), 0)) for how in ("draw", "redraw"))
    assert {name for name in once if once[name] != anew[name]} == {"rows are drawn anew"}


# --- tables with many columns --------------------------------------------------------------------------------------------


def learned(module, rows, columns, monkeypatch, **options):
    """What a family would train on bits: the first candidate's model, and its plan."""
    table = mg.read(np.random.default_rng(0).integers(0, 2, (rows, columns // 4, 4)).astype(bool))
    caught = []
    monkeypatch.setattr(module, "learn", lambda fitting, learning, label: caught.append(learning) or None)
    codec = fit_any_codec(table.rows(slice(0, 50)), native=True)
    fitting = SimpleNamespace(codec=codec, train_rows=table, select_rows=table.rows(slice(0, 9)), rows=rows, seed=0)
    monkeypatch.setattr(module, "fit_any_codec", lambda *_, **__: codec)
    names = [option.name for option in FAMILIES[module.__name__.rpartition(".")[2]].options]
    defaults = FAMILIES[module.__name__.rpartition(".")[2]].parse_options(options)
    recipe = module.make(None, "thorough", **{name: defaults[name] for name in names})
    with contextlib.suppress(AttributeError):  # what comes after learning asks for a model
        recipe(fitting)
    candidate = caught[0].candidates[0]
    return candidate.build(np.random.default_rng(0)), candidate.plan


def test_tables_with_many_columns_get_wider_networks(monkeypatch):
    model, plan = learned(autoregressive, 3000, 256, monkeypatch)
    assert model.net.weights[1].shape == (1024, 1024) and len(model.net.weights) == 5 and plan.batch == 128
    assert model.positions.tolist() == list(range(256))  # from the first pixel to the last
    model, plan = learned(autoregressive, 3000, 252, monkeypatch)
    assert model.net.weights[1].shape == (256, 256) and plan.batch == 512
    model, _ = learned(autoregressive, 3000, 256, monkeypatch, width=20, depth=0)
    assert len(model.net.biases[0]) == 20 and len(model.net.weights) == 3
    model, _ = learned(autoregressive, 60, 256, monkeypatch, members=1)
    assert len(model.net.biases[0]) == 256 and len(model.net.weights) == 5
    model, plan = learned(vae, 3000, 256, monkeypatch)
    assert [len(bias) for bias in model.encoder.biases] == [512, 512, 64] and plan.batch == 128
    model, plan = learned(vae, 3000, 252, monkeypatch)
    assert [len(bias) for bias in model.encoder.biases] == [504] * 4 + [64] and plan.batch == 256


def test_a_look_at_a_wide_table_is_at_some_rows():
    rng = np.random.default_rng(0)
    for shape, looked in (((5000, 1, 256), 2048), ((5000, 1, 255), 5000), ((900, 1, 300), 900), ((900, 9, 2), 900)):
        encoded = Encoded(rng.normal(size=shape), rng.normal(size=shape[:2]), rng.normal(size=(shape[0], 2)))
        some = _looked_at(encoded)
        assert len(some.points) == len(some.log_jacobian) == len(some.given) == looked
        place = np.flatnonzero((encoded.given == some.given[-1]).all(1))[0]  # a row keeps what is its own
        np.testing.assert_array_equal(some.points[-1], encoded.points[place, : some.points.shape[1]])
        assert place == shape[0] - 1  # and they come from all over the table
