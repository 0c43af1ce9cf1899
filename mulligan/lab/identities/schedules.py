"""The library's noise schedules as numbers at given times, for the checks of chapters 9 and 10.

One program gives the numbers of all schedules, and one ``Tangent`` stands for any of them at a moment: the checks share
what they compile.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, wraps
from typing import Any, NamedTuple, TypeVar, cast

import jax
import jax.numpy as jnp
import numpy as np

from mulligan.loop import compile_small
from mulligan.targets.noising import EDM, Cosine, Schedule, Straight, VariancePreserving, Walk

RATE = 1.3  # σ of the walk
Function = TypeVar("Function", bound=Callable[..., Any])


def kept(function: Function) -> Function:
    """The function with its last results remembered, those in float32 and in float64 apart.

    >>> kept(abs)(-1)
    1
    """
    remembered = lru_cache(maxsize=64)(lambda dtype, *args: function(*args))

    @wraps(function)
    def asked(*args: Any) -> Any:
        return remembered(jax.dtypes.canonicalize_dtype(float), *args)

    return cast(Function, asked)


@kept
def schedules() -> dict[str, Schedule]:
    """The notes' walk, a variance-preserving schedule of moderate noise at ``TIMES``, and the library's others.

    >>> list(schedules())[:2]
    ['walk', 'general']
    """
    low, high = jnp.asarray(0.8), jnp.asarray(4.0)
    named = {"walk": Walk(rate=jnp.asarray(RATE)), "general": VariancePreserving(beta_min=low, beta_max=high)}
    return named | {"cosine": Cosine(), "EDM": EDM(), "straight": Straight()}


BOTH = ("walk", "general")
MOST = 33


class Numbers(NamedTuple):
    """Of one schedule at n times: α, σ, f, g², dα/dt, dσ²/dt; and between neighbours the jump and the bridge.

    >>> Numbers._fields[6:]
    ('scale', 'variance', 'of_x_t', 'of_x_0', 'bridge')
    """

    alpha: Any
    sigma: Any
    drift: Any
    diffusion: Any
    alpha_rate: Any
    variance_rate: Any
    scale: Any
    variance: Any
    of_x_t: Any
    of_x_0: Any
    bridge: Any


@compile_small
def _numbers(every: tuple[Schedule, ...], times: Any) -> Any:
    def one(schedule: Schedule) -> Any:
        values = [of(times) for of in (schedule.alpha, schedule.sigma, schedule.drift, schedule.diffusion)]
        ones = (jnp.ones_like(times),)
        rates = [jax.jvp(of, (times,), ones)[1] for of in (schedule.alpha, lambda t: schedule.sigma(t) ** 2)]
        values += [jnp.broadcast_to(value, times.shape) for value in rates]
        values += [*schedule.jump(times[:-1], times[1:]), *schedule.bridge(times[:-1], times[1:])]
        return Numbers._make(values)

    return tuple(one(schedule) for schedule in every)


def numbers(times: Any) -> dict[str, Numbers]:
    """What every one of ``schedules`` says at n ≤ 33 times; always by the same program.

    >>> numbers([1.0, 4.0])["EDM"].variance.tolist()
    [15.0]
    """
    times = np.asarray(times, np.float64)
    found = _numbers(tuple(schedules().values()), jnp.asarray(np.pad(times, (0, MOST - times.size), mode="edge")))
    cut = [[np.asarray(a)[: times.size - (j > 5)] for j, a in enumerate(one)] for one in found]
    return {name: Numbers(*one) for name, one in zip(schedules(), cut)}


class Tangent(Schedule):
    """A schedule around the time 0 of its own: α(t) = α + α' t, σ²(t) = σ² + (σ²)' t, with f and g² as given.

    At t = 0 a noised law and its slope in t are those of the schedule that the numbers come from. So one compiled program
    serves all schedules.
    """

    t_min: Any
    t_max: Any
    at: Any  # α, σ, f, g², dα/dt, dσ²/dt

    def alpha(self, t: Any) -> Any:
        """α + α' t."""
        return self.at[0] + self.at[4] * t

    def sigma(self, t: Any) -> Any:
        """√(σ² + (σ²)' t)."""
        return jnp.sqrt(self.at[1] ** 2 + self.at[5] * t)

    def drift(self, t: Any) -> Any:
        """f."""
        return self.at[2]

    def diffusion(self, t: Any) -> Any:
        """g²."""
        return self.at[3]

    def at_noise(self, ratio: Any) -> Any:
        """Not of a moment."""
        return jnp.nan * ratio

    def grid(self, steps: int) -> Any:
        """Not of a moment."""
        return jnp.full(steps + 1, jnp.nan)


def moments(name: str, times: Any) -> np.ndarray:
    """The numbers (t, 6) that make a ``Tangent`` of the named schedule at each time.

    >>> moments("EDM", [2.0])[0].tolist()
    [1.0, 2.0, 0.0, 4.0, 0.0, 4.0]
    """
    return np.stack(numbers(times)[name][:6], axis=1)


class Either(Schedule):
    """One of two schedules, chosen by a number of the program, so that both share it.

    >>> bool(either("walk").sigma(jnp.asarray(1.0)) == schedules()["walk"].sigma(jnp.asarray(1.0)))
    True
    """

    t_min: Any
    t_max: Any
    one: Schedule
    other: Schedule
    first: Any

    def alpha(self, t: Any) -> Any:
        """α(t) of the chosen one."""
        return jnp.where(self.first, self.one.alpha(t), self.other.alpha(t))

    def sigma(self, t: Any) -> Any:
        """σ(t) of the chosen one."""
        return jnp.where(self.first, self.one.sigma(t), self.other.sigma(t))

    def drift(self, t: Any) -> Any:
        """f(t) of the chosen one."""
        return jnp.where(self.first, self.one.drift(t), self.other.drift(t))

    def diffusion(self, t: Any) -> Any:
        """g²(t) of the chosen one."""
        return jnp.where(self.first, self.one.diffusion(t), self.other.diffusion(t))

    def at_noise(self, ratio: Any) -> Any:
        """The time of a noise level, of the chosen one."""
        return jnp.where(self.first, self.one.at_noise(ratio), self.other.at_noise(ratio))

    def grid(self, steps: int) -> Any:
        """The usual times of the chosen one."""
        return jnp.where(self.first, self.one.grid(steps), self.other.grid(steps))


def either(name: str) -> Either:
    """The one of ``BOTH`` that is called so.

    >>> float(either("walk").alpha(jnp.asarray(2.0)))
    1.0
    """
    one, other = (schedules()[known] for known in BOTH)
    chosen = one if name == BOTH[0] else other
    return Either(t_min=chosen.t_min, t_max=chosen.t_max, one=one, other=other, first=jnp.asarray(name == BOTH[0]))
