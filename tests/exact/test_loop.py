"""The two loops: a result that depends on nothing but kernel, state, key and number of steps, and stops that say why."""

from __future__ import annotations

import os
import signal
import threading
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mulligan.compilations import compilations
from mulligan.core import Kernel, Law
from mulligan.loop import EarlyStopping, Settled, compile_small, repeat, run


class WalkInfo(NamedTuple):
    height: jax.Array
    pulled: jax.Array


class Walk(Kernel):
    """A noisy walk that is pulled towards its input; breaks at step ``bad`` where ``where`` says."""

    law: ClassVar[Law] = Law("none")
    pull: jax.Array
    bad: jax.Array
    in_info: jax.Array

    def init(self, key, x):
        return x

    def noise(self, key, state):
        return jax.random.normal(key, state["x"].shape)

    def move(self, state, noise, input):
        target = 0.0 if input is None else input
        x = state["x"] + self.pull * (target - state["x"]) + 0.1 * noise
        breaks = state["i"] + 1 == self.bad
        x = jnp.where(breaks & ~self.in_info, jnp.nan, x)
        height = jnp.where(breaks & self.in_info, jnp.inf, jnp.sum(x))
        return {"x": x, "i": state["i"] + 1}, WalkInfo(height, self.pull)


def walk(bad=-1, in_info=False):
    return Walk(jnp.float32(0.1), jnp.int32(bad), jnp.asarray(in_info))


def begin(i=0):
    return {"x": jnp.arange(3.0, dtype=jnp.float32), "i": jnp.int32(i)}


def targets(start, size):
    return np.sin(np.arange(start, start + size)).astype(np.float32)


class Nothing:
    def __init__(self, every):
        self.every, self.seen = every, []

    def __call__(self, step, state, history):
        self.seen.append((step, len(history["height"])))
        return None


def same(left, right):
    return all(np.array_equal(a, b) for a, b in zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True))


# --- the result is a pure function ------------------------------------------------------------------------------------


@pytest.mark.parametrize("capacity, multiples", [(512, []), (7, []), (64, [5]), (64, [3, 10]), (1, [])])
def test_chunks_do_not_matter(key, capacity, multiples):
    reference = run(walk(), key, begin(), 100, inputs=targets, capacity=100)
    watch = [Nothing(every) for every in multiples]
    other = run(walk(), key, begin(), 100, inputs=targets, capacity=capacity, watch=watch)
    assert same(reference.state, other.state)
    assert list(other.history) == ["height", "pulled"]
    assert np.array_equal(reference.history["height"], other.history["height"])
    assert (other.step, other.stopped, other.healthy, other.interrupted) == (100, None, True, False)
    for w in watch:
        assert w.seen == [(step, step) for step in range(w.every, 101, w.every)]


@pytest.mark.parametrize("k", [1, 37, 99])
def test_resumed_is_bit_equal(key, k):
    whole = run(walk(), key, begin(), 100, inputs=targets)
    first = run(walk(), key, begin(), k, inputs=targets)
    rest = run(walk(), key, first.state, 100, start=k, inputs=targets, capacity=13)
    assert same(whole.state, rest.state) and rest.step == 100
    assert np.array_equal(whole.history["height"], np.concatenate([first.history["height"], rest.history["height"]]))


def test_a_forgotten_start_is_seen(key):
    """The twin of resuming: steps counted from 0 again use the wrong keys."""
    whole = run(walk(), key, begin(), 100)
    first = run(walk(), key, begin(), 37)
    assert not same(whole.state, run(walk(), key, first.state, 63).state)


def test_repeat_equals_run(key):
    inputs = targets(0, 50)
    state, info = compile_small(repeat)(walk(), key, begin(), 50, inputs)
    looped = run(walk(), key, begin(), 50, inputs=targets)
    assert same(state, looped.state) and np.array_equal(info.height, looped.history["height"])
    later, _ = compile_small(repeat)(walk(), key, state, 10, targets(50, 10), start=50)
    assert same(later, run(walk(), key, begin(), 60, inputs=targets).state)


def test_a_step_is_move_with_the_steps_own_noise(key):
    """Step i by hand: fold_in(key, i), never a carried key."""
    kernel, state = walk(), begin()
    for i in range(3):
        noise = jax.random.normal(jax.random.fold_in(key, i), (3,))
        state, _ = kernel.move(state, noise, jnp.float32(targets(i, 1)[0]))
    np.testing.assert_allclose(run(walk(), key, begin(), 3, inputs=targets).state["x"], state["x"], rtol=1e-6)


def test_one_compilation_for_any_start_and_length(key):
    kernel, other, state, other_key = walk(), walk(bad=3), begin(), jax.random.key(5)
    run(kernel, key, state, 30)
    with compilations() as seen:
        run(kernel, key, state, 1)
        run(kernel, other_key, state, 77)
        run(other, key, begin(9), 123, start=9, watch=[Nothing(10)])
    assert seen.count == 0, f"{seen.count} programs compiled for shapes that were known"
    with compilations() as seen:
        run(walk(), key, begin(), 30, capacity=31)
    assert seen.count == 1  # another capacity is another program: the counter counts


def test_no_steps(key):
    for start in (0, 40):
        nothing = run(walk(), key, begin(), start, start=start)
        assert same(nothing.state, begin()) and nothing.step == start and nothing.healthy
        assert nothing.stopped is None and nothing.history == {}


# --- stops ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [1, 2, 40, 64, 65])
@pytest.mark.parametrize("in_info, name", [(False, "state.x"), (True, "info.height")])
def test_a_non_finite_value_stops_at_its_step(key, bad, in_info, name):
    finite = run(walk(), key, begin(), bad - 1)
    stopped = run(walk(bad, in_info), key, begin(), 100, capacity=64)
    assert not stopped.healthy and not stopped.interrupted and stopped.step == bad - 1
    assert f"step {bad};" in stopped.stopped and f"after step {bad - 1} is kept" in stopped.stopped
    assert same(stopped.state["x"], finite.state["x"]) and np.isfinite(stopped.state["x"]).all()
    assert all(len(column) == bad - 1 and np.isfinite(column).all() for column in stopped.history.values())
    # A NaN in the state makes the height NaN as well; the info, which says most, is named first.
    assert ("info.height" if not in_info else name) in stopped.stopped


class Quiet(Kernel):
    """Its state turns into NaN while its info stays finite: the failure that is seen only in the state itself."""

    law: ClassVar[Law] = Law("none")
    bad: jax.Array

    def init(self, key, x):
        return x

    def noise(self, key, state):
        return None

    def move(self, state, noise, input):
        weight, i = state
        return (jnp.where(i + 1 == self.bad, jnp.nan, weight + 1), i + 1), jnp.float32(1.0)


def test_a_nan_update_with_finite_info_stops_at_that_step(key):
    stopped = run(Quiet(jnp.int32(17)), key, (jnp.float32(0), jnp.int32(0)), 50)
    assert stopped.step == 16 and float(stopped.state[0]) == 16.0 and not stopped.healthy
    assert "state.0" in stopped.stopped and "step 17" in stopped.stopped


def test_a_start_that_is_not_finite_is_said(key):
    state = begin() | {"x": jnp.array([1.0, jnp.nan, 0.0])}
    stopped = run(walk(), key, state, 10)
    assert not stopped.healthy and stopped.step == 0 and stopped.stopped


def test_early_stopping_keeps_the_best(key):
    def score(state):
        return -abs(float(state["i"]) - 42)

    watch = EarlyStopping(score, every=5, patience=3)
    stopped = run(walk(), key, begin(), 500, watch=[watch])
    assert stopped.step == 55 and stopped.stopped == "no gain since step 40"
    assert (watch.best_step, watch.best_score, int(watch.best_state["i"])) == (40, -2.0, 40)
    assert same(watch.best_state, run(walk(), key, begin(), 40).state)
    assert [step for step, _ in watch.scores] == list(range(5, 60, 5))


def test_early_stopping_counts_looks_without_enough_gain(key):
    watch = EarlyStopping(lambda state: 0.001 * float(state["i"]), every=1, patience=4, minimum_gain=0.01)
    stopped = run(walk(), key, begin(), 500, watch=[watch])
    assert stopped.step < 500 and watch.best_step == stopped.step  # still rising, but by less than asked
    patient = EarlyStopping(lambda state: float(state["i"]), every=1, patience=4)
    assert run(walk(), key, begin(), 50, watch=[patient]).stopped is None


def test_nan_scores_never_become_the_best(key):
    watch = EarlyStopping(lambda state: np.nan if int(state["i"]) > 10 else 1.0, every=5, patience=3)
    stopped = run(walk(), key, begin(), 100, watch=[watch])
    assert watch.best_step == 5 and stopped.step == 20 and stopped.stopped is not None


class Climb(Kernel):
    """info.gain climbs to 1 with ever smaller steps."""

    law: ClassVar[Law] = Law("none")

    def init(self, key, x):
        return x

    def noise(self, key, state):
        return None

    def move(self, state, noise, input):
        return state + (1 - state) / 2, {"gain": state}


def test_settled_stops_a_climb(key):
    stopped = run(Climb(), key, jnp.float32(0), 500, watch=[Settled("gain", 10, 1e-4)])
    assert stopped.step == 30 and stopped.stopped.startswith("settled: gain gained")
    assert run(Climb(), key, jnp.float32(0), 20, watch=[Settled("gain", 10, 1e-9)]).stopped is None


def test_the_first_sentence_stops_and_all_watches_are_asked(key):
    other = Nothing(10)
    stopped = run(walk(), key, begin(), 100, watch=[lambda_watch(10, "enough"), other, lambda_watch(10, "too late")])
    assert stopped.stopped == "enough" and stopped.step == 10 and other.seen == [(10, 10)]


def lambda_watch(every, sentence):
    class Says:
        def __init__(self):
            self.every = every

        def __call__(self, step, state, history):
            return sentence

    return Says()


def test_a_budget_only_shortens_and_its_steps_repeat_it(key):
    shortened = run(walk(), key, begin(), 10**9, budget=0.05)
    assert 0 < shortened.step < 10**9 and shortened.healthy
    assert shortened.stopped == f"budget of 0.05 s used up at step {shortened.step}"
    twin = run(walk(), key, begin(), shortened.step, capacity=100)
    assert same(twin.state, shortened.state) and twin.stopped is None
    generous = run(walk(), key, begin(), 50, budget=3600.0)
    assert generous.step == 50 and generous.stopped is None


def test_listeners_hear_and_change_nothing(key):
    heard = []
    run_with = run(walk(), key, begin(), 40, listener=lambda *a: heard.append(a), watch=[Nothing(10)])
    assert same(run_with.state, run(walk(), key, begin(), 40).state)
    step, steps, latest = heard[-1]
    assert (step, steps) == (40, 40) and set(latest) == {"height", "pulled"}
    assert latest["height"] == pytest.approx(float(run_with.history["height"][-1]))


# --- Ctrl-C -----------------------------------------------------------------------------------------------------------


class PressesControlC:
    def __init__(self, every, times=1):
        self.every, self.times = every, times

    def __call__(self, step, state, history):
        for _ in range(self.times):
            os.kill(os.getpid(), signal.SIGINT)
        return None


def test_ctrl_c_ends_cleanly(key):
    before = signal.getsignal(signal.SIGINT)
    stopped = run(walk(), key, begin(), 1000, watch=[PressesControlC(20)])
    assert signal.getsignal(signal.SIGINT) is before
    assert stopped.interrupted and stopped.healthy and stopped.step == 20
    assert stopped.stopped == "interrupted at step 20"
    assert same(stopped.state, run(walk(), key, begin(), 20).state)


def test_ctrl_c_from_outside(key):
    timer = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT))
    run(walk(), key, begin(), 10)  # compiled, so that the signal meets the loop
    timer.start()
    stopped = run(walk(), key, begin(), 10**9)
    assert stopped.interrupted and 0 < stopped.step < 10**9
    assert same(stopped.state, run(walk(), key, begin(), stopped.step).state)


def test_a_second_ctrl_c_raises_at_once(key):
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        run(walk(), key, begin(), 1000, watch=[PressesControlC(20, times=2)])
    assert signal.getsignal(signal.SIGINT) is before


def test_an_error_in_a_watch_restores_the_handler(key):
    def fails(step, state, history):
        raise ZeroDivisionError

    fails.every = 10
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(ZeroDivisionError):
        run(walk(), key, begin(), 100, watch=[fails])
    assert signal.getsignal(signal.SIGINT) is before


def test_other_threads_leave_signals_alone(key):
    found = {}
    before = signal.getsignal(signal.SIGINT)
    thread = threading.Thread(target=lambda: found.update(state=run(walk(), key, begin(), 20).state))
    thread.start()
    thread.join()
    assert same(found["state"], run(walk(), key, begin(), 20).state) and signal.getsignal(signal.SIGINT) is before
