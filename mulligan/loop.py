"""The only two loops of the library: ``repeat`` inside compiled code, ``run`` on the host.

Step i of any kernel uses the key fold_in(key, i) and the i-th input, never a key that was split and carried. So the
result after n steps is a pure function of (kernel, state, key, n): it does not depend on chunk lengths, on the clock, or
on where a run was interrupted, and a resumed run is bit-equal to one that never stopped.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PRNGKeyArray

from mulligan.core import Info, Kernel, State

PULSE_SECONDS = 0.2  # how often the host looks up; shorter costs throughput, longer feels stuck
# XLA's CPU compiler of jaxlib 0.10.2 hands products and sums to a library ("YNN fusions") that returns wrong numbers for
# some and writes outside its buffers for others (jax issues 39257 and 40412; seen here on a kernel density and on the
# inverse of an autoregressive flow). No type of fusion is handed over, so no program of this library meets it.
SOUND_PROGRAM = {"xla_cpu_experimental_ynn_fusion_type": ""}
SMALL_PROGRAM = SOUND_PROGRAM | {"xla_backend_optimization_level": 1}  # a third less compile time, no slower to run

_outer_event: list[threading.Event] = []  # of the block that owns the handler, in the main thread

Function = TypeVar("Function", bound=Callable[..., Any])


def compile_small(function: Function) -> Function:
    """Compile a function with the options that small programs want; arrays are traced, everything else is static."""
    return eqx.filter_jit(function, compiler_options=SMALL_PROGRAM)  # type: ignore[call-overload]


def repeat(
    kernel: Kernel, key: PRNGKeyArray, state: State, steps: int, inputs: Any = None, start: int = 0
) -> tuple[State, Info]:
    """``steps`` steps of a kernel inside compiled code; differentiable.

    ``inputs`` has a leading axis of ``steps`` (or is None). Returns the last state and the info of every step, stacked.
    """

    def one(carry: State, scanned: tuple[Array, Any]) -> tuple[State, Info]:
        i, item = scanned
        return kernel.step(jax.random.fold_in(key, i), carry, item)

    return jax.lax.scan(one, state, (jnp.arange(start, start + steps), inputs), length=steps)


class Inputs(Protocol):
    """What steps start … start+size−1 receive, as a pytree with a leading axis ``size``: a pure function."""

    def __call__(self, start: int, size: int) -> Any: ...


class Watch(Protocol):
    """Looks at the run after every multiple of ``every`` steps; a returned sentence stops the run."""

    every: int

    def __call__(self, step: int, state: State, history: dict[str, np.ndarray]) -> str | None: ...


class Listener(Protocol):
    """Hears about progress; it must not change anything."""

    def __call__(self, step: int, steps: int, latest: dict[str, float]) -> None: ...


@dataclass(frozen=True)
class Run:
    """What a run came to.

    ``state`` is the last state that was finite, reached after ``step`` steps. ``history`` maps each entry of info to an
    array with one row a step. ``stopped`` is the sentence of whatever ended the run before ``steps`` (None if nothing
    did), ``healthy`` is False after a non-finite value, ``interrupted`` True after Ctrl-C.
    """

    state: State
    step: int
    history: dict[str, np.ndarray]
    stopped: str | None
    healthy: bool
    interrupted: bool
    seconds: float
    compile_seconds: float


def run(
    kernel: Kernel,
    key: PRNGKeyArray,
    state: State,
    steps: int,
    *,
    inputs: Inputs | None = None,
    start: int = 0,
    watch: Sequence[Watch] = (),
    budget: float | None = None,
    listener: Listener | None = None,
    capacity: int = 512,
) -> Run:
    """Run a kernel from step ``start`` to step ``steps``, as one compiled program of traced length.

    ``budget`` (seconds, compilation not counted) can only shorten the run. ``capacity`` is the longest chunk between two
    looks of the host, and the number of inputs asked for at a time. Ctrl-C ends the run after the current chunk; a
    second one raises KeyboardInterrupt at once. A non-finite value in the state or in info ends it with the step and the
    name of the entry, and the state before that step is returned.
    """
    clock = time.perf_counter()
    state = jax.tree.map(jnp.asarray, state)
    advance = partial(_advance, kernel, key, capacity=capacity)
    warm = advance(state, _inputs(inputs, start, capacity), jnp.int32(start), jnp.int32(0))
    jax.block_until_ready(warm)
    compile_seconds = time.perf_counter() - clock

    began = time.perf_counter()
    pieces: list[dict[str, np.ndarray]] = []
    step, length, stopped, healthy = start, 1, None, True
    with interruptible() as interrupted:
        while step < steps and stopped is None:
            size = min([length, capacity, steps - step, *(w.every - step % w.every for w in watch)])
            tick = time.perf_counter()
            outcome = advance(state, _inputs(inputs, step, capacity), jnp.int32(step), jnp.int32(size))
            state, done, healthy, infos, bad = jax.block_until_ready(outcome)
            taken, healthy = int(done) - step, bool(healthy)
            step += taken
            pieces.append({name: np.array(np.asarray(leaf)[:taken]) for name, leaf in _named(infos)})
            if not healthy:
                stopped = f"non-finite {_first_bad(bad)} at step {step + 1}; the state after step {step} is kept"
                break
            length = _next_length(length, size, time.perf_counter() - tick)
            stopped = _consult(watch, step, state, pieces)
            if listener is not None and pieces[-1]:
                listener(step, steps, {k: float(np.mean(v[-1])) for k, v in pieces[-1].items() if len(v)})
            if stopped is None and interrupted.is_set():
                stopped = f"interrupted at step {step}"
            if stopped is None and budget is not None and step < steps and time.perf_counter() - began > budget:
                stopped = f"budget of {budget:.3g} s used up at step {step}"
    return Run(
        state,
        step,
        _joined(pieces),
        stopped,
        healthy,
        interrupted.is_set(),
        time.perf_counter() - began,
        compile_seconds,
    )


@compile_small
def _advance(
    kernel: Kernel, key: PRNGKeyArray, state: State, inputs: Any, start: Array, length: Array, *, capacity: int
) -> tuple[State, Array, Array, Info, Any]:
    """Steps start … start+length−1; stops before the first step whose result is not finite."""

    def one(i: Array, state: State) -> tuple[State, Info]:
        item = jax.tree.map(lambda leaf: leaf[i - start], inputs)
        return kernel.step(jax.random.fold_in(key, i), state, item)

    shapes = jax.eval_shape(one, start, state)
    buffer = jax.tree.map(lambda s: jnp.zeros((capacity, *s.shape), s.dtype), shapes[1])
    flags = jax.tree.map(lambda s: jnp.asarray(False), shapes)

    def going(carry: tuple) -> Array:
        i, healthy = carry[:2]
        return (i < start + length) & healthy

    def body(carry: tuple) -> tuple:
        i, _, state, buffer, _ = carry
        new, info = one(i, state)
        bad = jax.tree.map(_not_finite, (new, info))
        healthy = ~jnp.any(jnp.stack([jnp.asarray(False), *jax.tree.leaves(bad)]))
        state = jax.tree.map(lambda a, b: jnp.where(healthy, a, b), new, state)
        buffer = jax.tree.map(lambda b, v: b.at[i - start].set(v), buffer, info)
        return i + healthy.astype(i.dtype), healthy, state, buffer, bad

    carry = (start, jnp.asarray(True), state, buffer, flags)
    i, healthy, state, buffer, bad = jax.lax.while_loop(going, body, carry)
    return state, i, healthy, buffer, bad


def _not_finite(leaf: Array) -> Array:
    if jnp.issubdtype(leaf.dtype, jnp.inexact):
        return ~jnp.all(jnp.isfinite(leaf))
    return jnp.asarray(False)


def _inputs(inputs: Inputs | None, start: int, capacity: int) -> Any:
    return None if inputs is None else jax.tree.map(jnp.asarray, inputs(start, capacity))


def _named(tree: Any) -> list[tuple[str, Array]]:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return [(jax.tree_util.keystr(path, simple=True, separator=".") or "info", leaf) for path, leaf in leaves]


def _first_bad(flags: tuple[Any, Any]) -> str:
    state, info = flags
    for where, tree in (("info", info), ("state", state)):
        for name, flag in _named(tree):
            if bool(flag):
                return f"{where}.{name}"
    return "value"


def _next_length(length: int, size: int, seconds: float) -> int:
    """Aim at one pulse; a chunk that a watch cut short says nothing against longer ones."""
    if size < length:
        return length
    aim = int(size * PULSE_SECONDS / max(seconds, 1e-6))
    return max(1, min(aim, 8 * length))


def _consult(watch: Sequence[Watch], step: int, state: State, pieces: list[dict[str, np.ndarray]]) -> str | None:
    due = [w for w in watch if step % w.every == 0]
    if not due:
        return None
    history = _joined(pieces)
    pieces[:] = [history]
    sentences = [w(step, state, history) for w in due]
    return next((sentence for sentence in sentences if sentence), None)


def _joined(pieces: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    return {name: np.concatenate([piece[name] for piece in pieces]) for name in (pieces[0] if pieces else ())}


@contextmanager
def interruptible() -> Iterator[threading.Event]:
    """Ctrl-C sets the event; a second one raises. Elsewhere than in the main thread nothing is changed.

    An inner block shares the event of the one around it, so that a search of many runs ends as a whole.
    """
    event = _outer_event[-1] if _outer_event else threading.Event()
    if _outer_event or threading.current_thread() is not threading.main_thread():
        yield event
        return

    def handler(number: int, frame: Any) -> None:
        if event.is_set():
            raise KeyboardInterrupt
        event.set()

    previous = signal.signal(signal.SIGINT, handler)
    _outer_event.append(event)
    try:
        yield event
    finally:
        _outer_event.clear()
        signal.signal(signal.SIGINT, previous)


@dataclass
class EarlyStopping:
    """Keeps the best state by ``score`` (higher is better, usually on the select rows) and stops when it no longer rises.

    Stops once ``patience`` looks in a row (``waited`` counts them) gained no more than ``minimum_gain`` over the best.
    """

    score: Callable[[State], float]
    every: int
    patience: int
    minimum_gain: float = 0.0
    best_state: State = None
    best_score: float = -np.inf
    best_step: int = 0
    scores: list[tuple[int, float]] = field(default_factory=list)
    waited: int = 0

    def __call__(self, step: int, state: State, history: dict[str, np.ndarray]) -> str | None:
        score = float(self.score(state))
        self.scores.append((step, score))
        self.waited = 0 if score > self.best_score + self.minimum_gain else self.waited + 1
        if score > self.best_score:
            self.best_state, self.best_score, self.best_step = state, score, step
        if self.waited >= self.patience:
            return f"no gain since step {self.best_step}"
        return None


@dataclass
class Settled:
    """Stops a monotone climb: the named entry of info gained less than ``tolerance`` over the last ``every`` steps."""

    entry: str
    every: int
    tolerance: float

    def __call__(self, step: int, state: State, history: dict[str, np.ndarray]) -> str | None:
        values = history[self.entry]
        if len(values) <= self.every:
            return None
        gain = float(values[-1] - values[-1 - self.every])
        return f"settled: {self.entry} gained {gain:.1e} in {self.every} steps" if gain < self.tolerance else None
