"""Broken twins of the continuous samplers, which tests/laws/test_samplers_law.py and tests/exact/test_samplers.py reject."""

from __future__ import annotations

from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp

from mulligan.core import Kernel, Law
from mulligan.samplers.hmc import Shot, leapfrog
from mulligan.samplers.langevin import Langevin, UnderdampedLangevin
from mulligan.samplers.metropolis import Decision, Place, RandomWalk, decide
from mulligan.samplers.nuts import NoUTurn
from mulligan.samplers.path import LogDensity
from mulligan.samplers.point import point_at


class Retries(Kernel):
    """A rejected proposal is made anew, up to four times, as if those before had never been."""

    law: ClassVar[Law] = Law("exact")
    of: Any

    def init(self, key, x):
        return self.of.init(key, x)

    def noise(self, key, state):
        return jax.vmap(self.of.noise, in_axes=(0, None))(jax.random.split(key, 4), state)

    def move(self, state, noise, input):
        def attempt(carry, one):
            state, moved = carry
            new, info = self.of.move(state, one, input)
            state = jax.tree.map(lambda a, b: jnp.where(moved, b, a), new, state)
            return (state, moved | (one.uniform < info.acceptance)), info

        (state, _), info = jax.lax.scan(attempt, (state, jnp.asarray(False)), noise)
        return state, jax.tree.map(lambda leaf: leaf[0], info)


class Tempered(eqx.Module):
    """A log density at another temperature."""

    log_density: LogDensity
    beta: Any = eqx.field(converter=jnp.asarray)

    def __call__(self, x):
        return self.beta * self.log_density(x)


WALK = ("drifts", "inverted", "halved", "no accept step", "frozen", "step by place")
ADJUSTED = (
    "no accept step",
    "score flipped",
    "scale forgotten",
    "half the noise",
    "ratio forgotten",
    "ratio inverted",
    "score of the start twice",
    "frozen",
)
ORBIT = (
    "no accept step",
    "momentum not refreshed",
    "momentum too small",
    "kinetic energy forgotten",
    "last half kick forgotten",
    "step by place",
    "frozen",
)


class Walk(Kernel):
    """A random walk with one mistake, by its number: a leaf, so that all of them are one program."""

    law: ClassVar[Law] = Law("exact")
    log_density: LogDensity
    step_size: Any
    mistake: Any = eqx.field(converter=jnp.asarray)

    def init(self, key, x):
        return Place(x, self.log_density(x))

    def noise(self, key, state):
        return Decision(jax.random.normal(key, state.position.shape), jax.random.uniform(jax.random.fold_in(key, 1)))

    def move(self, state, noise, input):
        made = self.mistake == jnp.arange(len(WALK))
        jump = noise.normal + jnp.where(made[0], 0.2, 0.0)
        factor = jnp.where(made[5], 1.5 * jax.nn.sigmoid(state.position[0]), 1.0)
        x = state.position + jnp.sqrt(self.step_size * factor) * jump
        new = Place(x, self.log_density(x))
        ratio = (new.log_density - state.log_density) * jnp.where(made[1], -1.0, jnp.where(made[2], 0.5, 1.0))
        taken, info = decide(state, new, ratio, noise.uniform - jnp.where(made[3], 2.0, 0.0))
        return jax.tree.map(lambda a, b: jnp.where(made[4], b, a), taken, state), info


class Adjusted(Kernel):
    """MALA with one mistake, by its number."""

    law: ClassVar[Law] = Law("exact")
    log_density: LogDensity
    step_size: Any
    scale: Any
    mistake: Any = eqx.field(converter=jnp.asarray)

    def init(self, key, x):
        return point_at(self.log_density, x)

    def noise(self, key, state):
        return Decision(jax.random.normal(key, state.position.shape), jax.random.uniform(jax.random.fold_in(key, 1)))

    def move(self, state, noise, input):
        made = dict(zip(ADJUSTED, self.mistake == jnp.arange(len(ADJUSTED))))
        width = jnp.sqrt(self.step_size) * self.scale
        drift = 0.5 * width * state.score * jnp.where(made["score flipped"], -1.0, 1.0)
        drift = drift / jnp.where(made["scale forgotten"], self.scale, 1.0)
        jump = noise.normal * jnp.where(made["half the noise"], 0.5, 1.0)
        new = point_at(self.log_density, state.position + width * (drift + jump))
        a = 0.5 * width * (state.score + jnp.where(made["score of the start twice"], state.score, new.score))
        sign = jnp.where(made["ratio forgotten"], 0.0, jnp.where(made["ratio inverted"], -1.0, 1.0))
        ratio = new.log_density - state.log_density - sign * 0.5 * jnp.sum(a * (2 * noise.normal + a))
        taken, info = decide(state, new, ratio, noise.uniform - jnp.where(made["no accept step"], 2.0, 0.0))
        return jax.tree.map(lambda a, b: jnp.where(made["frozen"], b, a), taken, state), info


class Orbit(Kernel):
    """Hamiltonian Monte Carlo with one mistake, by its number."""

    law: ClassVar[Law] = Law("exact")
    log_density: LogDensity
    step_size: Any
    steps: int = eqx.field(static=True)
    mistake: Any = eqx.field(converter=jnp.asarray)

    def init(self, key, x):
        return point_at(self.log_density, x)

    def noise(self, key, state):
        key, other = jax.random.split(key)
        return Shot(jax.random.normal(key, state.position.shape), *jax.random.uniform(other, (2,)))

    def move(self, state, noise, input):
        made = dict(zip(ORBIT, self.mistake == jnp.arange(len(ORBIT))))
        start = noise.momentum * jnp.where(made["momentum too small"], 0.7, 1.0)
        start = jnp.where(made["momentum not refreshed"], jnp.ones_like(start), start)
        step = self.step_size * jnp.where(made["step by place"], 1.5 * jax.nn.sigmoid(state.position[0]), 1.0)
        new, momentum = leapfrog(self.log_density, state, start, step, self.steps)
        momentum = momentum - jnp.where(made["last half kick forgotten"], 0.5, 0.0) * step * new.score
        kinetic = 0.5 * jnp.sum((start - momentum) * (start + momentum))
        kinetic = jnp.where(made["kinetic energy forgotten"], 0.0, kinetic)
        ratio = new.log_density - state.log_density + kinetic
        taken, info = decide(state, new, ratio, noise.uniform - jnp.where(made["no accept step"], 2.0, 0.0))
        return jax.tree.map(lambda a, b: jnp.where(made["frozen"], b, a), taken, state), info


class Unadjusted(Kernel):
    """Unadjusted Langevin with one ``mistake``: seen by affine propagation."""

    law: ClassVar[Law] = Law("order", 1)
    log_density: LogDensity
    step_size: Any
    mistake: str = eqx.field(static=True)

    def init(self, key, x):
        return point_at(self.log_density, x)

    def noise(self, key, state):
        return jax.random.normal(key, state.position.shape)

    def move(self, state, noise, input):
        dt = self.step_size
        drift = {"half forgotten": dt, "score flipped": -0.5 * dt}.get(self.mistake, 0.5 * dt) * state.score
        jump = {"root forgotten": dt, "half the noise": 0.5 * jnp.sqrt(dt)}.get(self.mistake, jnp.sqrt(dt)) * noise
        return point_at(self.log_density, state.position + drift + jump), None


class Kinetic(Kernel):
    """Underdamped Langevin with one ``mistake``: seen by affine propagation."""

    law: ClassVar[Law] = Law("order", 2)
    of: UnderdampedLangevin
    mistake: str = eqx.field(static=True)

    def init(self, key, x):
        return self.of.init(key, x)

    def noise(self, key, state):
        return self.of.noise(key, state)

    def move(self, state, noise, input):
        kept = jnp.exp(-self.of.friction * self.of.step_size)
        right = jnp.sqrt(1 - kept**2)
        wrong = {"root of one minus e": jnp.sqrt(1 - kept), "root forgotten": 1 - kept**2}[self.mistake]
        return self.of.move(state, noise * wrong / right, input)


def twins(skewed: LogDensity, correlated: LogDensity) -> list[tuple[str, int, Kernel]]:
    """(mistake, dimension of the target, kernel) of what the laws or the movement must reject."""
    narrow = jnp.asarray([1.0, 0.5])
    walk = {"no accept step": 0.05}
    return [
        *((f"random walk, {name}", 1, Walk(skewed, walk.get(name, 1.0), i)) for i, name in enumerate(WALK)),
        *((f"MALA, {name}", 2, Adjusted(correlated, 0.8, narrow, i)) for i, name in enumerate(ADJUSTED)),
        *((f"HMC, {name}", 1, Orbit(skewed, 0.7, 2, i)) for i, name in enumerate(ORBIT)),
        ("random walk, rejections retried", 1, Retries(RandomWalk(skewed, 4.0))),
        ("Langevin as if it were exact", 1, Langevin(skewed, 0.5)),
        ("NUTS at another temperature", 2, NoUTurn(Tempered(correlated, 0.9), 0.5, jnp.asarray([0.5, 0.4]), 3)),
    ]
