"""Learning by gradient: an objective and Adam in a kernel, trained by ``train`` with the best on select kept.

Definition. θ ← θ − η_t (m̂_t/(√v̂_t + ε) + λ θ_W): Adam (Kingma and Ba 2015) with decoupled decay λ of the weight matrices
(Loshchilov and Hutter 2019) and gradients clipped to a norm. What is kept and scored is the exponential average of the
weights, θ̄ ← θ̄ + (1 − α_t)(θ − θ̄) (Polyak and Juditsky 1992), α_t = min(α, (1 + t)/(10 + t)). The rate η_t rises linearly and
falls along a cosine to 0 at the last step.

Everything that differs between two runs of one family and shape is an array (weights, rate, decay, rows), so all of them
share one compiled program.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from operator import attrgetter
from typing import Any, ClassVar, NamedTuple, Protocol

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, PRNGKeyArray

from mulligan.checkpoints import Checkpoints
from mulligan.core import Kernel, Law
from mulligan.learners.watches import Callback, Halt, Resumed, Sickness, Watched, with_select
from mulligan.loop import EarlyStopping, Listener, Run, Watch, run

Objective = Callable[[Any, PRNGKeyArray, Any], tuple[Array, dict[str, Array]]]

CAPACITY = 128  # steps between two looks of the host at most, and minibatches prepared at a time
LOOKS = 60  # at the select rows, spread over the planned steps
LEAST_BETWEEN_LOOKS = 25


class GradientState(NamedTuple):
    """Weights being learned, their average, and Adam's moments."""

    weights: Any
    averaged: Any
    moments: Any


class GradientDescent(Kernel):
    """One step of Adam on an objective; ``gradient_descent`` makes it.

    ``objective(model, key, batch) -> (scalar, metrics)`` is a module-level function. ``frozen`` is the model without its
    trainable arrays, ``rows`` any pytree of arrays with a leading axis of rows, of which each input names some.
    """

    law: ClassVar[Law] = Law("none")
    objective: Objective = eqx.field(static=True)
    frozen: Any
    rows: Any
    decay: Float[Array, ""]
    averaging: Float[Array, ""]
    clip: Float[Array, ""]

    def init(self, key: PRNGKeyArray, x: Any) -> GradientState:
        """The state from which training a model starts; NumPy zeros, for each compiled fill would cost."""
        weights, _ = trainable(x)
        shapes = jax.eval_shape(optax.scale_by_adam().init, weights)
        moments = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)
        return GradientState(weights, weights, moments)

    def noise(self, key: PRNGKeyArray, state: GradientState) -> PRNGKeyArray:
        """The objective's own randomness."""
        return key

    def move(self, state: GradientState, noise: PRNGKeyArray, input: Minibatch) -> tuple[GradientState, Any]:
        """One update with the rows and the rate of this step."""
        return self.update(state, noise, self.batch(input), input.rate)

    def batch(self, input: Minibatch) -> Any:
        """The rows of a step."""
        return jax.tree.map(lambda leaf: leaf[input.rows], self.rows)

    def update(self, state: GradientState, key: PRNGKeyArray, batch: Any, rate: Array) -> tuple[GradientState, Any]:
        """One update with any batch that the objective takes."""

        def loss(weights: Any) -> tuple[Array, dict[str, Array]]:
            return self.objective(eqx.combine(weights, self.frozen), key, batch)

        gradient, info = jax.grad(loss, has_aux=True)(state.weights)
        norm = jnp.sqrt(sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(gradient)))
        gradient = jax.tree.map(lambda g: g * jnp.minimum(1.0, self.clip / jnp.maximum(norm, 1e-12)), gradient)
        with jax.numpy_dtype_promotion("standard"):  # Adam's bias correction mixes its integer count with floats
            direction, moments = optax.scale_by_adam().update(gradient, state.moments)
            count = moments.count.astype(self.averaging.dtype)
        shrink = decayed(state.weights)
        weights = jax.tree.map(
            lambda w, step, matrix: w - rate * (step + self.decay * w if matrix else step),
            state.weights,
            direction,
            shrink,
        )
        keep = jnp.minimum(self.averaging, (1 + count) / (10 + count))
        averaged = jax.tree.map(lambda mean, w: mean + (1 - keep) * (w - mean), state.averaged, weights)
        return GradientState(weights, averaged, moments), {**info, "gradient_norm": norm}

    def model(self, state: GradientState) -> Any:
        """The model with the averaged weights."""
        return eqx.combine(state.averaged, self.frozen)

    def learning(self, state: GradientState) -> Any:
        """The model with the weights as they are now, which negatives are drawn from."""
        return eqx.combine(state.weights, self.frozen)


class Minibatch(NamedTuple):
    """Which rows a step sees, and its learning rate; ``Minibatches`` makes them."""

    rows: Any
    rate: Any


def trainable(model: Any) -> tuple[Any, Any]:
    """The floating arrays of a model, and all the rest.

    A class may name fields that are not learned, in ``fixed: ClassVar[tuple[str, ...]]``; they are part of the rest.
    """
    learned = jax.tree.map(eqx.is_inexact_array, model)
    for name in getattr(model, "fixed", ()):
        still = jax.tree.map(lambda leaf: False, getattr(learned, name))
        learned = eqx.tree_at(attrgetter(name), learned, still, is_leaf=lambda leaf: leaf is None)
    return eqx.partition(model, learned)


def decayed(weights: Any) -> Any:
    """True for weight matrices (arrays in a field called ``weights``); biases, scales and mixings are not decayed."""
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: "weights" in jax.tree_util.keystr(path, simple=True, separator="."), weights
    )


def gradient_descent(
    objective: Objective, model: Any, rows: Any, *, decay: float = 0.0, averaging: float = 0.999, clip: float = 10.0
) -> GradientDescent:
    """The kernel that trains a model by an objective on rows.

    >>> from mulligan.objectives.likelihood import Rows, negative_log_likelihood
    >>> from mulligan.targets.gaussian import Gaussian
    >>> model = Gaussian(jnp.zeros(1), jnp.eye(1))
    >>> kernel = gradient_descent(negative_log_likelihood, model, Rows(jnp.ones((4, 1))))
    >>> state = kernel.init(jax.random.key(0), model)
    >>> state, info = kernel.step(jax.random.key(0), state, Minibatch(jnp.arange(4), jnp.asarray(0.1)))
    >>> round(float(state.weights.mean[0]), 2)  # Adam's first step is one rate long
    0.1
    """
    _, frozen = trainable(model)
    numbers = (np.float32(decay), np.float32(averaging), np.float32(clip))
    return GradientDescent(objective, frozen, jax.tree.map(jnp.asarray, rows), *map(jnp.asarray, numbers))


@dataclass(frozen=True)
class Minibatches:
    """Inputs of ``GradientDescent``: step i sees batch i mod (n/B) of epoch i div (n/B), each epoch in its own order.

    A pure function of the step number. Rows left over at the end of an epoch wait for the next one. The rate is
    η (i+1)/W in the first W = ``warmup`` steps, times ½(1 + cos(π i/steps)).
    """

    rows: int
    batch: int
    rate: float
    steps: int
    warmup: int
    seed: int

    def __call__(self, start: int, size: int) -> Minibatch:
        """Batches and rates of steps start … start+size−1."""
        batch = min(self.batch, self.rows)
        each = self.rows // batch
        index = np.empty((size, batch), np.int32)
        for offset in range(size):
            epoch, place = divmod(start + offset, each)
            index[offset] = _epoch_order(self.rows, self.seed, epoch)[place * batch : (place + 1) * batch]
        step = np.arange(start, start + size)
        cosine = 0.5 * (1 + np.cos(np.pi * np.minimum(step / max(self.steps, 1), 1.0)))
        rate = self.rate * np.minimum(1.0, (step + 1) / max(self.warmup, 1)) * cosine
        return Minibatch(index, rate.astype(np.float32))


@lru_cache(maxsize=64)
def _epoch_order(rows: int, seed: int, epoch: int) -> np.ndarray:
    return np.random.default_rng([seed, epoch]).permutation(rows).astype(np.int32)


@dataclass(frozen=True)
class Plan:
    """How long and how fast to train: greatest number of steps, batch, peak rate, decay, looks without gain."""

    steps: int
    batch: int = 512
    rate: float = 2e-3
    decay: float = 0.0
    patience: int = 12
    clip: float = 10.0

    @property
    def every(self) -> int:
        """Steps between two looks at the select rows."""
        return max(LEAST_BETWEEN_LOOKS, self.steps // LOOKS)

    def inputs(self, rows: int, seed: int) -> Minibatches:
        """What each step of the plan sees."""
        return Minibatches(rows, self.batch, self.rate, self.steps, max(1, min(200, self.steps // 20)), seed)


@dataclass(frozen=True)
class Trained:
    """The model with the best averaged weights on select, its score there, and how the run went.

    ``history`` has one value a step: ``train`` (the objective's metric), ``gradient_norm``, and ``select``, NaN between
    looks. ``last`` is the model at the end (None after a failure); ``halted``: by a callback; ``failed``: why, if so.
    """

    model: Any
    last: Any
    score: float
    best_step: int
    step: int
    history: dict[str, np.ndarray]
    run: Run = field(repr=False)
    halted: bool = False
    failed: str | None = None


class Learner(Protocol):
    """What ``train`` runs: a kernel on minibatches whose states hold a model. ``GradientDescent``, and those around it."""

    def init(self, key: PRNGKeyArray, x: Any) -> Any: ...

    def model(self, state: Any) -> Any: ...


def train(
    objective: Objective,
    model: Any,
    rows: Any,
    score: Callable[[Any], float],
    plan: Plan,
    seed: int,
    *,
    name: str = "training",
    stop_after: int | None = None,
    budget: float | None = None,
    listener: Listener | None = None,
    checkpoints: Checkpoints | None = None,
    watch: Sequence[Callback] = (),
    learner: Learner | None = None,
    health: Sequence[Watch] = (),
) -> Trained:
    """Train a model; ``score`` (higher is better, of the select rows) decides which weights are kept and when to stop.

    ``stop_after`` ends the run earlier than the plan without changing the schedule. With ``checkpoints`` the run can be
    killed at any moment: called again with the same arguments it goes on from the last checkpoint ``name`` and ends
    in the same weights, bit for bit. ``watch`` are callbacks, each called at the multiples of its attribute ``every``
    (without one: at every look at the select rows); they change nothing, but a sentence that one returns stops the run.
    ``learner`` is a kernel in place of plain gradient descent (``plain_descent``), ``health`` are watches of it: what one
    says stops the run as failed, and so does a value that is not finite. The best weights of before are kept.
    """
    kernel: Any = learner or plain_descent(objective, model, rows, plan)
    key = jax.random.key(seed)
    state = kernel.init(key, model)

    def look(state: Any) -> float:
        return float("nan") if any(watch.sentence for watch in sick) else score(kernel.model(state))

    stopping = EarlyStopping(look, plan.every, plan.patience)
    sick = [Sickness(watch, watch.every, stopping) for watch in health]
    stopping.best_state = state
    last = plan.steps if stop_after is None else min(plan.steps, stop_after)
    halt = Halt()
    resumed = None if checkpoints is None else Resumed(checkpoints, name, stopping, halt, plan.every)
    watched = [
        Watched(callback, getattr(callback, "every", plan.every), kernel.model, stopping, halt, resumed)
        for callback in watch
    ]
    if resumed is not None:
        state = resumed.restore(state)
    if not watch:
        halt.sentence = None  # without the callback that stopped it, the run goes on
    start = 0 if resumed is None else resumed.start
    waited = stopping.waited >= plan.patience  # before the kill
    ended = f"no gain since step {stopping.best_step}" if waited else halt.sentence
    finished = run(
        kernel,
        key,
        state,
        start if ended else last,
        inputs=plan.inputs(len(jax.tree.leaves(rows)[0]), seed),
        start=start,
        watch=[*sick, stopping, *watched, *([] if resumed is None else [resumed])],
        budget=budget,
        listener=listener,
        capacity=CAPACITY,
    )
    finished = replace(finished, stopped=ended or finished.stopped)
    history = finished.history
    if resumed is not None:
        history = resumed.whole(history)
        resumed.keep(finished.step, finished.state, history)
    if finished.step % plan.every and finished.healthy:
        stopping(finished.step, finished.state, history)  # the end is a look, too; a resumed run does not see it
    history = with_select(history, finished.step, stopping)
    best, halted = kernel.model(stopping.best_state), halt.sentence is not None
    failed = next((watch.sentence for watch in sick if watch.sentence), None if finished.healthy else finished.stopped)
    end, step = None if failed else kernel.model(finished.state), finished.step
    return Trained(best, end, stopping.best_score, stopping.best_step, step, history, finished, halted, failed)


def seconds_per_step(
    objective: Objective, model: Any, rows: Any, plan: Plan, seed: int, steps: int = 24, learner: Learner | None = None
) -> float:
    """Measured seconds of one training step: from a short run whose result is thrown away, compilation not counted."""
    kernel: Any = learner or plain_descent(objective, model, rows, plan)
    key, inputs = jax.random.key(seed), plan.inputs(len(jax.tree.leaves(rows)[0]), seed)
    state = kernel.init(key, model)
    times = [run(kernel, key, state, steps, inputs=inputs, capacity=CAPACITY).seconds for _ in range(2)]
    return min(times) / steps


def plain_descent(objective: Objective, model: Any, rows: Any, plan: Plan) -> GradientDescent:
    """The kernel of a plan: weights are averaged over about a twentieth of its steps."""
    averaging = min(0.999, max(0.5, 1 - 20 / max(plan.steps, 1)))
    return gradient_descent(objective, model, rows, decay=plan.decay, averaging=averaging, clip=plan.clip)
