"""Learning by gradient: Adam by hand, what is averaged and decayed, minibatches, stops that keep the best."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mulligan.compilations import compilations
from mulligan.learners import gradient
from mulligan.learners.gradient import (
    CAPACITY,
    LEAST_BETWEEN_LOOKS,
    GradientState,
    Minibatch,
    Minibatches,
    Plan,
    decayed,
    gradient_descent,
    seconds_per_step,
    train,
    trainable,
)
from mulligan.loop import run


@pytest.fixture
def x64():
    with jax.enable_x64(True):
        yield


class Layer(eqx.Module):
    """y = weights x + bias, with a number that is not learned."""

    weights: jax.Array
    bias: jax.Array
    order: jax.Array


class Rows(NamedTuple):
    x: np.ndarray
    y: np.ndarray


def squares(model, key, batch):
    errors = batch.x @ model.weights.T + model.bias - batch.y
    loss = 0.5 * jnp.mean(jnp.sum(errors**2, axis=1))
    return loss, {"train": -loss}


def layer(dtype=np.float32, seed=3):
    rng = np.random.default_rng(seed)
    return Layer(*map(jnp.asarray, (rng.normal(size=(2, 3)).astype(dtype), np.zeros(2, dtype), np.arange(3))))


TRUTH = np.array([[1.0, -2.0, 0.5], [0.0, 1.5, -1.0]])


def rows(n=50, dtype=np.float32, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 3))
    y = x @ TRUTH.T + 0.3 * rng.normal(size=(n, 2))
    return Rows(x.astype(dtype), y.astype(dtype))


def score(model):
    held = rows(40, seed=1)
    return -float(np.mean((held.x @ np.asarray(model.weights).T + np.asarray(model.bias) - held.y) ** 2))


def same(left, right):
    return all(np.array_equal(a, b) for a, b in zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True))


# --- one step and many, by hand ---------------------------------------------------------------------------------------


def twin(model, data, inputs, steps, decay, averaging, clip):
    """Adam in NumPy from the papers: clipped gradient, moments, bias correction, decay of the matrix, average."""
    b1, b2, epsilon = 0.9, 0.999, 1e-8
    theta = {"weights": np.asarray(model.weights), "bias": np.asarray(model.bias)}
    mean, m, v = ({name: factor * value for name, value in theta.items()} for factor in (1.0, 0.0, 0.0))
    norms = []
    for t in range(1, steps + 1):
        batch = inputs(t - 1, 1)
        x, y, rate = data.x[batch.rows[0]], data.y[batch.rows[0]], np.float64(batch.rate[0])
        errors = x @ theta["weights"].T + theta["bias"] - y
        g = {"weights": errors.T @ x / len(x), "bias": errors.mean(0)}
        norm = np.sqrt(sum(np.sum(value**2) for value in g.values()))
        norms.append(norm)
        keep = min(averaging, (1 + t) / (10 + t))
        for name in theta:
            clipped = g[name] * min(1.0, clip / norm)
            m[name] = b1 * m[name] + (1 - b1) * clipped
            v[name] = b2 * v[name] + (1 - b2) * clipped**2
            step = (m[name] / (1 - b1**t)) / (np.sqrt(v[name] / (1 - b2**t)) + epsilon)
            shrunk = decay * theta[name] if name == "weights" else 0.0
            theta[name] = theta[name] - rate * (step + shrunk)
            mean[name] = mean[name] + (1 - keep) * (theta[name] - mean[name])
    return theta, mean, np.array(norms)


@pytest.mark.parametrize("decay, clip", [(0.0, 100.0), (0.3, 100.0), (0.3, 0.5)])
def test_sixty_steps_are_those_of_the_papers(x64, key, decay, clip):
    data, model = rows(dtype=np.float64), layer(np.float64)
    inputs = Minibatches(50, 16, 0.05, 100, 10, seed=4)
    kernel = gradient_descent(squares, model, data, decay=decay, averaging=0.95, clip=clip)
    ran = run(kernel, key, kernel.init(key, model), 60, inputs=inputs)
    decay, averaging = float(np.float32(decay)), float(np.float32(0.95))
    theta, mean, norms = twin(model, data, inputs, 60, decay, averaging, clip)
    for name in ("weights", "bias"):
        np.testing.assert_allclose(getattr(ran.state.weights, name), theta[name], rtol=1e-6, atol=1e-7)
        np.testing.assert_allclose(getattr(ran.state.averaged, name), mean[name], rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(ran.history["gradient_norm"], norms, rtol=1e-6)
    assert (norms > clip).any() == (clip < 1)
    assert int(ran.state.moments.count) == 60
    assert np.array_equal(kernel.model(ran.state).order, [0, 1, 2])  # what is no weight stays


@pytest.mark.parametrize("decay", [0.0, 0.2])
def test_steps_are_optax_adamw_with_a_mask(x64, key, decay):
    data, model = rows(dtype=np.float64), layer(np.float64)
    inputs = Minibatches(50, 16, 0.05, 100, 10, seed=4)
    kernel = gradient_descent(squares, model, data, decay=decay, clip=0.5)
    ran = run(kernel, key, kernel.init(key, model), 30, inputs=inputs)
    weights, frozen = trainable(model)
    rates = jnp.asarray(inputs(0, 30).rate, jnp.float64)
    rule = optax.chain(
        optax.clip_by_global_norm(0.5),
        optax.adamw(lambda i: rates[i], weight_decay=float(np.float32(decay)), mask=decayed(weights)),
    )
    state = rule.init(weights)
    for i in range(30):
        index = inputs(i, 1).rows[0]
        batch = Rows(data.x[index], data.y[index])
        g = jax.grad(lambda w, b=batch: squares(eqx.combine(w, frozen), None, b)[0])(weights)
        updates, state = rule.update(g, state, weights)
        weights = optax.apply_updates(weights, updates)
    for left, right in zip(jax.tree.leaves(ran.state.weights), jax.tree.leaves(weights), strict=True):
        np.testing.assert_allclose(left, right, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("forgotten", ["decay", "averaging", "clip"])
def test_a_wrong_number_is_seen(x64, key, forgotten):
    """The twin of the two tests above: they tell another decay, average or clip apart."""
    data, model = rows(dtype=np.float64), layer(np.float64)
    inputs = Minibatches(50, 16, 0.05, 100, 10, seed=4)
    settings = {"decay": 0.5, "averaging": 0.75, "clip": 2.0}
    other = settings | {forgotten: {"decay": 0.4, "averaging": 0.9, "clip": 3.0}[forgotten]}
    kernel = gradient_descent(squares, model, data, **settings)
    found = run(kernel, key, kernel.init(key, model), 40, inputs=inputs).state.averaged.weights
    assert np.allclose(found, twin(model, data, inputs, 40, **settings)[1]["weights"], rtol=1e-6)
    assert not np.allclose(found, twin(model, data, inputs, 40, **other)[1]["weights"], rtol=1e-5)


def test_decay_touches_matrices_and_nothing_else():
    model = layer()
    marked = decayed(trainable(model)[0])
    assert (marked.weights, marked.bias) == (True, False)
    kernel = gradient_descent(
        squares, model, Rows(np.zeros((4, 3), np.float32), np.zeros((4, 2), np.float32)), decay=0.5
    )
    model = Layer(model.weights, jnp.ones(2), model.order)
    zero = Rows(np.zeros((4, 3), np.float32), np.ones((4, 2), np.float32))  # no gradient anywhere
    kernel = gradient_descent(squares, model, zero, decay=0.5)
    state = kernel.init(jax.random.key(0), model)
    state, info = kernel.step(jax.random.key(0), state, Minibatch(jnp.arange(4), jnp.float32(0.1)))
    np.testing.assert_allclose(state.weights.weights, 0.95 * np.asarray(model.weights), rtol=1e-6)
    assert np.array_equal(state.weights.bias, model.bias) and float(info["gradient_norm"]) == 0.0


def test_the_average_starts_with_the_first_weights_and_slows_down():
    """α_1 = 2/11: the first average is 9/11 of the way to the first weights; later ones keep at most ``averaging``."""
    model = layer()
    kernel = gradient_descent(squares, model, rows(), averaging=0.5)
    state = kernel.init(jax.random.key(0), model)
    start = np.asarray(model.weights)
    step = Minibatch(jnp.arange(50), jnp.float32(0.1))
    state, _ = kernel.step(jax.random.key(0), state, step)
    np.testing.assert_allclose(
        state.averaged.weights, start + 9 / 11 * (np.asarray(state.weights.weights) - start), rtol=1e-5
    )
    for _ in range(12):
        before = np.asarray(state.averaged.weights)
        state, _ = kernel.step(jax.random.key(0), state, step)
    expected = before + 0.5 * (np.asarray(state.weights.weights) - before)
    np.testing.assert_allclose(state.averaged.weights, expected, rtol=1e-5)


# --- minibatches and the rate -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("n, batch", [(50, 16), (64, 16), (10, 512), (7, 1)])
def test_each_epoch_is_a_permutation_of_its_own(n, batch):
    inputs = Minibatches(n, batch, 0.1, 1000, 10, seed=9)
    size = min(batch, n)
    each = n // size
    seen = inputs(0, 4 * each).rows
    assert seen.shape == (4 * each, size) and seen.dtype == np.int32
    epochs = seen.reshape(4, each * size)
    for epoch in epochs:
        assert len(np.unique(epoch)) == each * size and epoch.min() >= 0 and epoch.max() < n
    assert not any(np.array_equal(a, b) for i, a in enumerate(epochs) for b in epochs[:i])
    other = Minibatches(n, batch, 0.1, 1000, 10, seed=10)(0, 4 * each).rows
    assert not np.array_equal(other, seen)


def test_rows_left_over_are_seen_in_later_epochs():
    seen = Minibatches(50, 16, 0.1, 1000, 10, seed=9)(0, 60).rows
    counts = np.bincount(seen.ravel(), minlength=50)
    assert counts.min() >= 12 and counts.max() <= 20  # 20 epochs of 48 rows


@pytest.mark.parametrize("chunks", [[200], [1] * 200, [128, 72], [7, 50, 100, 43]])
def test_inputs_are_a_pure_function_of_the_step(chunks):
    inputs = Minibatches(50, 16, 0.1, 150, 10, seed=9)
    whole, start, pieces = inputs(0, 200), 0, []
    for size in chunks:
        pieces.append(inputs(start, size))
        start += size
    assert np.array_equal(np.concatenate([piece.rows for piece in pieces]), whole.rows)
    assert np.array_equal(np.concatenate([piece.rate for piece in pieces]), whole.rate)


def test_the_rate_rises_and_falls_along_a_cosine():
    rate = Minibatches(50, 16, 0.1, 100, 10, seed=9)(0, 120).rate
    step = np.arange(120)
    np.testing.assert_allclose(
        rate[:100], 0.05 * np.minimum(1, (step[:100] + 1) / 10) * (1 + np.cos(np.pi * step[:100] / 100)), rtol=1e-5
    )
    assert rate.dtype == np.float32 and rate[0] == pytest.approx(0.01) and np.all(np.abs(rate[100:]) < 1e-8)
    assert rate.argmax() == 9


def test_a_plan_looks_often_enough_and_not_too_often():
    assert Plan(100).every == LEAST_BETWEEN_LOOKS and Plan(6000).every == 100
    inputs = Plan(100, batch=8, rate=0.5).inputs(50, seed=3)
    assert (inputs.rows, inputs.batch, inputs.rate, inputs.steps, inputs.warmup, inputs.seed) == (50, 8, 0.5, 100, 5, 3)
    assert Plan(1).inputs(50, 0).warmup == 1 and Plan(10**6).inputs(50, 0).warmup == 200


# --- training ---------------------------------------------------------------------------------------------------------

PLAN = Plan(300, batch=16, rate=0.05, patience=4)


def test_the_best_average_on_select_is_kept():
    trained = train(squares, layer(), rows(), score, PLAN, seed=1)
    looks = np.flatnonzero(~np.isnan(trained.history["select"])) + 1
    assert list(looks) == list(range(25, trained.step + 1, 25))
    values = trained.history["select"][looks - 1]
    assert trained.score == values.max() and trained.best_step == looks[values.argmax()]
    assert score(trained.model) == trained.score > score(layer()) and trained.score > -0.2
    assert set(trained.history) == {"train", "gradient_norm", "select"}
    assert all(len(curve) == trained.step for curve in trained.history.values())
    state = run(
        gradient.plain_descent(squares, layer(), rows(), PLAN),
        jax.random.key(1),
        gradient.plain_descent(squares, layer(), rows(), PLAN).init(jax.random.key(1), layer()),
        trained.best_step,
        inputs=PLAN.inputs(50, 1),
        capacity=CAPACITY,
    ).state
    assert isinstance(state, GradientState) and same(trained.model.weights, state.averaged.weights)


@pytest.mark.parametrize("capacity", [1, 7, 64])
def test_chunks_do_not_matter(monkeypatch, capacity):
    whole = train(squares, layer(), rows(), score, PLAN, seed=1)
    monkeypatch.setattr(gradient, "CAPACITY", capacity)
    chunked = train(squares, layer(), rows(), score, PLAN, seed=1)
    assert same(whole.model, chunked.model) and whole.score == chunked.score and whole.step == chunked.step


def test_stop_after_keeps_the_schedule():
    """The first steps of a longer run, not a shorter schedule: what a step sees depends on the plan alone."""
    whole = train(squares, layer(), rows(), score, replace(PLAN, patience=99), seed=1)
    cut = train(squares, layer(), rows(), score, replace(PLAN, patience=99), seed=1, stop_after=60)
    assert cut.step == 60 and np.array_equal(cut.history["train"], whole.history["train"][:60])
    assert np.isfinite(cut.history["select"][[24, 49, 59]]).all()  # the end is a look, too


def test_seeds_decays_and_rates_share_one_program():
    train(squares, layer(), rows(), score, PLAN, seed=1)
    with compilations() as seen:
        for seed, plan in (
            (2, PLAN),
            (1, replace(PLAN, decay=0.3)),
            (1, replace(PLAN, rate=0.01, steps=90, patience=2)),
        ):
            train(squares, layer(seed=seed), rows(seed=seed), score, plan, seed=seed)
    assert seen.count == 0, f"{seen.count} programs compiled for shapes that were known"
    with compilations() as seen:
        train(squares, layer(), rows(), score, replace(PLAN, batch=8), seed=1)
    assert seen.count > 0  # another shape is another program: the counter counts


def breaks(model, key, batch):
    """Its loss is NaN once the bias has moved far enough."""
    loss, info = squares(model, key, batch)
    return loss * jnp.where(jnp.abs(model.bias[0]) > 0.3, jnp.nan, 1.0), info


def test_nan_stops_and_keeps_the_best_of_the_healthy_state():
    data = rows()
    trained = train(breaks, layer(), Rows(data.x, data.y + 2), score, replace(PLAN, patience=99), seed=1)
    assert not trained.run.healthy and "non-finite" in trained.run.stopped and 0 < trained.step < PLAN.steps
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(trained.run.state))
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(trained.model))
    assert np.isfinite(trained.history["train"]).all() and len(trained.history["select"]) == trained.step


def test_nan_scores_keep_the_start():
    trained = train(squares, layer(), rows(), lambda model: float("nan"), PLAN, seed=1)
    assert trained.best_step == 0 and trained.score == -np.inf and same(trained.model, layer())
    assert trained.step == PLAN.patience * PLAN.every


def test_a_step_is_measured_without_its_compilation():
    assert 0 < seconds_per_step(squares, layer(), rows(), PLAN, seed=1) < 0.05
