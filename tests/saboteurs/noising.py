"""Broken twins of the schedules, the noised laws, the reverse samplers and guidance, which tests/exact must reject."""

from __future__ import annotations

from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp

from mulligan.core import Kernel, Law
from mulligan.samplers.reverse import Reversing, Stroke
from mulligan.targets.noising import Bridge, Jump

NOISY = (
    "nothing",
    "sigma swapped",
    "root forgotten",
    "score flipped",
    "noise forgotten",
    "half forgotten",
    "root of the time step forgotten",
)
STILL = ("nothing", "second slope at t", "first slope twice", "score flipped", "forwards")


class Noisy(Kernel):
    """Ancestral sampling (the first mistakes) or the reverse SDE (the last two) with one mistake, by its number."""

    law: ClassVar[Law] = Law("order", 1)
    model: Any
    mistake: Any = eqx.field(converter=jnp.asarray)

    def init(self, key, x):
        return Reversing(x)

    def noise(self, key, state):
        return jax.random.normal(key, state.position.shape)

    def move(self, state, noise, input):
        made = dict(zip(NOISY, self.mistake == jnp.arange(len(NOISY))))
        (t, s), x, schedule = input, state.position, self.model.schedule
        right = self.model.denoise(x, t)
        flipped = (2 * x - schedule.alpha(t) * right) / schedule.alpha(t)  # (x − σ² ∇ log p_t)/α
        denoised = jnp.where(made["score flipped"], flipped, right)
        scale, gained = schedule.jump(s, t)
        near, far = schedule.sigma(s) ** 2, schedule.sigma(t) ** 2
        kept = jnp.where(made["sigma swapped"], far / near, near / far)
        jump = jnp.where(made["root forgotten"], gained * kept, jnp.sqrt(gained * kept))
        jump = jnp.where(made["noise forgotten"], 0.0, jump)
        ancestral = scale * kept * x + schedule.alpha(s) * gained / far * denoised + jump * noise

        dt, score = t - s, schedule.score(x, t, right)
        spread = schedule.diffusion(t) * dt
        back = x - dt * schedule.velocity(x, t, right)
        climb = jnp.where(made["half forgotten"], 1.0, 0.5) * spread * score
        jump = jnp.where(
            made["root of the time step forgotten"], jnp.sqrt(schedule.diffusion(t)) * dt, jnp.sqrt(spread)
        )
        maruyama = back + climb + jump * noise
        x = jnp.where(self.mistake < 5, ancestral, maruyama)
        return Reversing(x), Stroke(x, denoised)


class Still(Kernel):
    """Heun's method with one mistake, by its number."""

    law: ClassVar[Law] = Law("order", 2)
    model: Any
    mistake: Any = eqx.field(converter=jnp.asarray)

    def init(self, key, x):
        return Reversing(x)

    def noise(self, key, state):
        return None

    def move(self, state, noise, input):
        made = dict(zip(STILL, self.mistake == jnp.arange(len(STILL))))
        (t, s), x, schedule = input, state.position, self.model.schedule
        sign = jnp.where(made["score flipped"], -1.0, 1.0)

        def slope(y, at):
            return sign * schedule.velocity(y, at, self.model.denoise(y, at))

        h = (s - t) * jnp.where(made["forwards"], -1.0, 1.0)
        first = slope(x, t)
        second = slope(x + h * first, jnp.where(made["second slope at t"], t, s))
        second = jnp.where(made["first slope twice"], first, second)
        x = x + 0.5 * h * (first + second)
        return Reversing(x), Stroke(x, x)


class Memory(Kernel):
    """The multistep solver, which forgets the half, or forgets the history."""

    law: ClassVar[Law] = Law("order", 2)
    of: Any
    weight: Any = eqx.field(converter=jnp.asarray)

    @property
    def model(self):
        return self.of.model

    def init(self, key, x):
        return self.of.init(key, x)

    def noise(self, key, state):
        return None

    def move(self, state, noise, input):
        # Only ½ h/h₋ multiplies the history: to change the ½ is to change h₋.
        return self.of.move(state._replace(inverse=self.weight * state.inverse), noise, input)


class Drifting(Kernel):
    """A corrector that forgets the half of the Langevin step, around any predictor."""

    law: ClassVar[Law] = Law("order", 1)
    predictor: Any
    ratio: Any
    climb: Any = eqx.field(converter=jnp.asarray)

    def init(self, key, x):
        return self.predictor.init(key, x)

    def noise(self, key, state):
        normal = jax.random.normal(key, (1, state.position.size))
        return self.predictor.noise(key, state), normal

    def move(self, state, noise, input):
        model, s = self.predictor.model, input[1]
        state, stroke = self.predictor.move(state, noise[0], input)
        width = 2 * self.ratio * model.schedule.sigma(s)
        score = model.schedule.score(state.position, s, model.denoise(state.position, s))
        x = state.position + self.climb * width**2 * score + width * noise[1][0]
        return state._replace(position=x), stroke


def late(times):
    """A grid that is off by one: every step is taken from the time before."""
    return jnp.concatenate([times[:1], times[:-1]])


SCHEDULES = ("nothing", "alpha forgotten", "variance of the jump", "ends swapped", "drift forgotten")
LAWS = (
    "nothing",
    "sigma for its square",
    "score flipped",
    "Tweedie by sigma",
    "between forgotten",
    "noise not scaled",
    "half forgotten",
)
GUIDES = ("nothing", "one more", "away from the condition")


def either(made, wrong, right):
    return jax.tree.map(lambda a, b: jnp.where(made, a, b), wrong, right)


class WrongSchedule(eqx.Module):
    """A schedule whose jumps, bridges or derivatives have one mistake, by its number."""

    of: Any
    mistake: Any = eqx.field(converter=jnp.asarray)

    def alpha(self, t):
        return self.of.alpha(t)

    def sigma(self, t):
        return self.of.sigma(t)

    def drift(self, t):
        return self.of.drift(t)

    def at_noise(self, ratio):
        return self.of.at_noise(ratio)

    def flow(self, t):
        return self.of.flow(t)

    def jump(self, s, t):
        scale, variance = self.of.jump(s, t)
        return Jump(scale, either(self.mistake == 1, self.of.sigma(t) ** 2 - self.of.sigma(s) ** 2, variance))

    def bridge(self, s, t):
        bridge = self.of.bridge(s, t)
        bridge = either(self.mistake == 2, bridge._replace(variance=self.of.jump(s, t).variance), bridge)
        return either(self.mistake == 3, Bridge(bridge.of_x_0, bridge.of_x_t, bridge.variance), bridge)

    def diffusion(self, t):
        right = self.of.diffusion(t)
        return either(self.mistake == 4, right + 2 * self.of.drift(t) * self.of.sigma(t) ** 2, right)


class WrongNoised(eqx.Module):
    """A mixture under noise with one mistake, by its number."""

    of: Any
    mistake: Any = eqx.field(converter=jnp.asarray)

    @property
    def schedule(self):
        return self.of.schedule

    def at(self, t):
        return self.of.at(t)

    def log_prob(self, x, t):
        return self.of.log_prob(x, either(self.mistake == 1, jnp.sqrt(t), t))

    def score(self, x, t):
        return either(self.mistake == 2, -self.of.score(x, t), self.of.score(x, t))

    def denoise(self, x, t):
        wrong = (x + self.schedule.sigma(t) * self.of.score(x, t)) / self.schedule.alpha(t)
        return either(self.mistake == 3, wrong, self.of.denoise(x, t))

    def covariance(self, x, t):
        square, v = self.schedule.sigma(t) ** 2, self.of._parts(x, t)[3]
        r = self.of.responsibilities(x, t)
        within = jnp.einsum("k,ik,ikd,ike->de", r, self.of.variances * square / v, self.of.axes, self.of.axes)
        return either(self.mistake == 4, within, self.of.covariance(x, t))

    def noise(self, x, t):
        return self.of.noise(x, t) * either(self.mistake == 5, self.schedule.sigma(t), 1.0)

    def velocity(self, x, t):
        wrong = self.schedule.drift(t) * x - self.schedule.diffusion(t) * self.of.score(x, t)
        return either(self.mistake == 6, wrong, self.of.velocity(x, t))


class WrongGuidance(eqx.Module):
    """Guidance with the weight counted from the other end (1 + w), or away from the condition."""

    of: Any
    mistake: Any = eqx.field(converter=jnp.asarray)

    def denoise(self, x, t):
        weight = jnp.where(self.mistake == 1, self.of.weight + 1, self.of.weight)
        weight = jnp.where(self.mistake == 2, -weight, weight)
        away = self.of.away.denoise(x, t)
        return away + weight * (self.of.towards.denoise(x, t) - away)


class Certain(eqx.Module):
    """Conditioning that takes the posterior of x_0 to be N(D, (σ²/α²) I): no second order."""

    of: Any

    def denoise(self, x, t):
        of, schedule = self.of, self.of.schedule
        denoised = of.model.denoise(x, t)
        variance = (schedule.sigma(t) / schedule.alpha(t)) ** 2
        gain = variance / (variance + of.noise**2)
        return denoised.at[of.index].add(gain * (of.values - denoised[of.index]))

    def score(self, x, t):
        return self.of.schedule.score(x, t, self.denoise(x, t))
