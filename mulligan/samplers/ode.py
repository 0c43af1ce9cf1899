"""Solvers of dx/dt = v(x, t), with the integral of the divergence along the way.

Definition. The solution from x(t_0) to x(t_n). Of a law that is carried along, log p_t(x(t)) falls at the rate div v, so
log p_{t_0}(x(t_0)) = log p_{t_n}(x(t_n)) + ∫ div v(x(t), t) dt (Chen, Rubanova, Bettencourt and Duvenaud 2018; identities
``relation.flow``, ``diffusion.ode_likelihood``). The divergence is the trace of the Jacobian, found by d directional
derivatives, or estimated by ε·(∂v/∂x)ε with signs ε = ±1 (Hutchinson 1989; Grathwohl et al. 2019), whose mean over ε is
the trace. ``solve`` takes a given grid of times by a Runge-Kutta method of order 1 (Euler), 2 (Heun, midpoint) or 4 inside
one scan; ``solve_adaptive`` chooses its steps by an error estimate (Diffrax: Tsitouras' pair of order 5(4)).

Times may run either way. ``x`` is one state (d,), ``velocity(x, t)`` is like x with t a scalar array; use ``jax.vmap``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

Velocity = Callable[[Array, Array], Array]
Method = Literal["euler", "heun", "midpoint", "rk4"]

# Butcher tables of explicit methods: where each stage looks (c), from which earlier stages (a), and how they add up (b).
_TABLES: dict[str, tuple[tuple[float, ...], tuple[tuple[float, ...], ...], tuple[float, ...]]] = {
    "euler": ((0.0,), ((),), (1.0,)),
    "heun": ((0.0, 1.0), ((), (1.0,)), (0.5, 0.5)),
    "midpoint": ((0.0, 0.5), ((), (0.5,)), (0.0, 1.0)),
    "rk4": ((0.0, 0.5, 0.5, 1.0), ((), (0.5,), (0.0, 0.5), (0.0, 0.0, 1.0)), (1 / 6, 1 / 3, 1 / 3, 1 / 6)),
}
NEW_STAGES = 6  # evaluations of a step of Tsitouras' pair: the last of its seven is the first of the next step
METHODS: tuple[str, ...] = get_args(Method)


def evaluations(method: Method) -> int:
    """Evaluations of the velocity in a step of a method.

    >>> evaluations("rk4")
    4
    """
    return len(_table(method)[0])


def solve(velocity: Velocity, x: Float[Array, " d"], times: Float[Array, " n"], method: Method = "heun") -> Array:
    """x at the last of ``times``, from x at the first, one step between neighbours.

    Raises ValueError for an unknown method.

    >>> end = solve(lambda x, t: -x, jnp.ones(1), jnp.linspace(0.0, 1.0, 11), "rk4")
    >>> round(float(end[0]), 4)  # e⁻¹
    0.3679
    """
    return _integrate(velocity, x, times, method)


def solve_with_divergence(
    velocity: Velocity,
    x: Float[Array, " d"],
    times: Float[Array, " n"],
    method: Method = "heun",
    probes: Float[Array, "k d"] | None = None,
) -> tuple[Float[Array, " d"], Array]:
    """x at the last of ``times`` and ∫ div v dt along the way there.

    The integral is a scalar with the exact divergence (d directional derivatives), or (k,), one estimate for each row of
    ``probes`` (``signs``), so that their spread tells the error: each has the integral as its mean.

    >>> _, change = solve_with_divergence(lambda x, t: -2 * x, jnp.ones(3), jnp.linspace(0.0, 1.0, 3))
    >>> float(change)  # three coordinates, each shrinking at rate 2
    -6.0
    """
    return _integrate(with_divergence(velocity, probes), (x, _zero(x, probes)), times, method)


def with_divergence(velocity: Velocity, probes: Array | None = None) -> Callable[[Any, Array], Any]:
    """The velocity of (x, ∫ div v): a function of that pair and t."""

    def both(state: tuple[Array, Array], t: Array) -> tuple[Array, Array]:
        x, _ = state
        value, push = jax.linearize(lambda y: velocity(y, t), x)
        if probes is None:
            return value, jnp.trace(jax.vmap(push)(jnp.eye(x.shape[0], dtype=x.dtype)))
        return value, jnp.sum(probes * jax.vmap(push)(probes), axis=-1)

    return both


def signs(key: PRNGKeyArray, k: int, d: int) -> Float[Array, "k d"]:
    """k probes of d independent signs ±1: of all probes with independent coordinates, those of least variance.

    >>> signs(jax.random.key(0), 2, 3).shape
    (2, 3)
    """
    return jax.random.rademacher(key, (k, d), float)


def signs_of(x: Float[Array, " d"], k: int) -> Float[Array, "k d"]:
    """k probes of signs that are hashed from x: the same for equal x, as good as independent for others.

    >>> bool((signs_of(jnp.ones(3), 4) == signs_of(jnp.ones(3), 4)).all())
    True
    """
    return jax.random.rademacher(hashed_key(x), (k, x.shape[0]), x.dtype)


def hashed_key(x: Float[Array, " d"]) -> PRNGKeyArray:
    """A key that is a hash of x, every bit of every coordinate.

    >>> bool(hashed_key(jnp.array([0.0, 1.0])) == hashed_key(jnp.array([1.0, 0.0])))
    False
    """
    bits = jax.lax.bitcast_convert_type(jax.lax.stop_gradient(x).astype(jnp.float32), jnp.uint32)
    odd = 2 * jnp.arange(x.shape[0], dtype=jnp.uint32) + 1
    mixed = bits * (odd * jnp.uint32(2654435761))  # Knuth's multiplicative hash, another one for each place
    return jax.random.fold_in(jax.random.key(0), jnp.sum(mixed ^ (mixed >> 15), dtype=jnp.uint32))


class Adaptive(NamedTuple):
    """What ``solve_adaptive`` found: the end of x, ∫ div v dt (None where not asked), and evaluations of the velocity.

    ``reached`` is False where the greatest number of steps did not suffice, or a value was not finite; x and divergence
    are NaN then.
    """

    x: Array
    divergence: Array | None
    evaluations: Array
    reached: Array


def solve_adaptive(
    velocity: Velocity,
    x: Float[Array, " d"],
    start: Array | float,
    end: Array | float,
    *,
    divergence: bool = False,
    probes: Float[Array, "k d"] | None = None,
    tolerance: float = 1e-5,
    most_steps: int = 4096,
) -> Adaptive:
    """x at time ``end``, from x at time ``start``, with steps as short as the error asks for.

    A step is accepted where the estimated error of every component, in the root mean square over them, is at most
    ``tolerance``·(1 + |component|). With ``divergence`` (exact, or by ``probes``) its integral is a component like the
    others. float32 cannot hold a tolerance much below 1e-6.

    >>> found = solve_adaptive(lambda x, t: -x, jnp.ones(1), 0.0, 1.0)
    >>> bool(found.reached), round(float(found.x[0]), 3)
    (True, 0.368)
    """
    import diffrax  # a second to import

    state: Any = x
    field: Any = velocity
    if divergence:
        state, field = (x, _zero(x, probes)), with_divergence(velocity, probes)
    start, end = jnp.asarray(start, x.dtype), jnp.asarray(end, x.dtype)
    solution = diffrax.diffeqsolve(
        diffrax.ODETerm(lambda t, y, args: field(y, t)),
        diffrax.Tsit5(),
        start,
        end,
        dt0=None,
        y0=state,
        stepsize_controller=diffrax.PIDController(rtol=tolerance, atol=tolerance),
        max_steps=most_steps,
        throw=False,  # a raise from compiled code is a host callback, which compiles anew at every call
    )
    finite = jnp.stack([jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(solution.ys)])
    reached = (solution.result == diffrax.RESULTS.successful) & jnp.all(finite)
    ended = jax.tree.map(lambda leaf: jnp.where(reached, leaf[0], jnp.nan), solution.ys)
    at_end, change = ended if divergence else (ended, None)
    return Adaptive(at_end, change, 1 + NEW_STAGES * solution.stats["num_steps"], reached)


def _zero(x: Array, probes: Array | None) -> Array:
    return jnp.zeros(() if probes is None else probes.shape[0], x.dtype)


def _table(method: str) -> tuple[tuple[float, ...], tuple[tuple[float, ...], ...], tuple[float, ...]]:
    if method not in _TABLES:
        raise ValueError(f"method is {method!r}; expected one of {', '.join(METHODS)}")
    return _TABLES[method]


def _integrate(field: Callable[[Any, Array], Any], state: Any, times: Array, method: str) -> Any:
    """The state at the last of the times; the state is any pytree of floats."""
    nodes, weights, sums = _table(method)

    def moved(state: Any, step: Array, slopes: list[Any], by: tuple[float, ...]) -> Any:
        used = [(share, slope) for share, slope in zip(by, slopes) if share]
        for share, slope in used:
            state = jax.tree.map(lambda leaf, s, w=share: leaf + w * step * s, state, slope)
        return state

    def one(state: Any, ends: tuple[Array, Array]) -> tuple[Any, None]:
        now, then = ends
        step = then - now
        slopes: list[Any] = []
        for node, row in zip(nodes, weights):
            # The end of the step is its own number: now + (then − now) may be a rounding off, beside a singular time.
            at = then if node == 1.0 else now + node * step
            slopes.append(field(moved(state, step, slopes, row), at))
        return moved(state, step, slopes, sums), None

    times = jnp.asarray(times)
    return jax.lax.scan(one, state, (times[:-1], times[1:]))[0]
