"""From noise back to data: the samplers of a diffusion model, each one step from time t to an earlier time s.

Definition. Of x_t = α x_0 + σ e (``targets/noising.py``) a model gives D(x, t) ≈ E[x_0 | x_t = x], hence the score
∇ log p_t(x) = (α D − x)/σ² and the noise ê = (x − α D)/σ. A step should carry p_t to p_s. The posterior q(x_s | x_t) is
sampled with D in the place of x_0 (ancestral, DDIM), or the probability-flow ODE dx/dt = f x − ½ g² ∇ log p_t is followed
back (Euler, Heun, multistep), or the reverse SDE, which is an ODE step plus a Langevin step.
Theory: chapter 9, ``diffusion.reverse_ode``, ``diffusion.reverse_sde``, ``diffusion.robust``, ``diffusion.two_views``.

The model is anything with ``.schedule`` and ``.denoise(x, t)``: trained, guided, or true (``targets/noised.py``). A step's
``input`` is the pair (t, s), s < t. ``law.order``: how fast the law of the last point nears the model's as steps shorten.
The final jump from t_min to 0 is the posterior mean without noise; ``run_reverse`` makes it.
"""

from __future__ import annotations

from collections.abc import Callable
from difflib import get_close_matches
from typing import Any, ClassVar, NamedTuple, Protocol

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from mulligan.core import Kernel, Law
from mulligan.errors import UsageError
from mulligan.loop import repeat
from mulligan.samplers.chance import chance
from mulligan.targets.noising import Schedule, Time

Step = tuple[Time, Time]  # (t, s): from time t to the earlier time s


class Denoiser(Protocol):
    """What a reverse sampler needs of a model."""

    @property
    def schedule(self) -> Schedule:
        """How x_t is made of x_0 and noise."""

    def denoise(self, x: Array, t: Time) -> Array:
        """E[x_0 | x_t = x]; x (d,), t a scalar."""


class Reversing(NamedTuple):
    """The point x_t (d,)."""

    position: Float[Array, " d"]


class Stroke(NamedTuple):
    """What a step showed: the point that it reached, and what the model took it to be a noised picture of before."""

    position: Float[Array, " d"]
    denoised: Float[Array, " d"]


class _Noisy(Kernel):
    """A reverse sampler that takes d normals a step."""

    def init(self, key: PRNGKeyArray, x: Float[Array, " d"]) -> Reversing:
        """At x; the key is not used."""
        return Reversing(x)

    def noise(self, key: PRNGKeyArray, state: Reversing) -> Float[Array, " d"]:
        """d normals."""
        return chance(key, state.position.size, 0, state.position.dtype)[0]


class _Still(Kernel):
    """A reverse sampler that takes no noise."""

    def init(self, key: PRNGKeyArray, x: Float[Array, " d"]) -> Reversing:
        """At x; the key is not used."""
        return Reversing(x)

    def noise(self, key: PRNGKeyArray, state: Reversing) -> None:
        """None."""


class Ancestral(_Noisy):
    """Ancestral sampling (DDPM): x_s ~ q(x_s | x_t, x_0 = D(x_t, t)), the bridge of the schedule. Order 1.

    x_s = (α_{t|s} σ_s²/σ_t²) x_t + (α_s σ²_{t|s}/σ_t²) D + √(σ²_{t|s} σ_s²/σ_t²) e. Argument: ``model``.
    State: ``Reversing``. Ho, Jain & Abbeel (2020), with the smaller of their two variances.

    >>> from mulligan.targets.noised import GaussianMixture, NoisedMixture
    >>> from mulligan.targets.noising import Walk
    >>> kernel = Ancestral(NoisedMixture(GaussianMixture([0.0], [[0.0]], [[[1.0]]]), Walk()))
    >>> state, _ = kernel.move(Reversing(jnp.ones(1)), jnp.zeros(1), (jnp.asarray(4.0), jnp.asarray(1.0)))
    >>> round(float(state.position[0]), 4)  # 1/4 + 3/4 · 1/5
    0.4
    """

    law: ClassVar[Law] = Law("order", 1)
    model: Denoiser

    def move(self, state: Reversing, noise: Float[Array, " d"], input: Step) -> tuple[Reversing, Stroke]:
        """Denoise, and noise again up to the level of s."""
        t, s = input
        denoised = self.model.denoise(state.position, t)
        bridge = self.model.schedule.bridge(s, t)
        x = bridge.of_x_t * state.position + bridge.of_x_0 * denoised + jnp.sqrt(bridge.variance) * noise
        return Reversing(x), Stroke(x, denoised)


class DDIM(_Noisy):
    """x_s = α_s D + √(σ_s² − η² v) ê + η √v e, with v the variance of the bridge and ê = (x − α D)/σ. Order 1.

    Every η has the same marginal laws. η = 1 is ``Ancestral``; η = 0 takes no noise and is Euler's method for x/α as a
    function of σ/α. Arguments: ``model``, ``eta`` η in [0, 1]. State: ``Reversing``. Song, Meng & Ermon (2021).

    >>> from mulligan.targets.noised import GaussianMixture, NoisedMixture
    >>> from mulligan.targets.noising import EDM
    >>> kernel = DDIM(NoisedMixture(GaussianMixture([0.0], [[0.0]], [[[1.0]]]), EDM()))
    >>> state, _ = kernel.move(Reversing(jnp.ones(1)), jnp.zeros(1), (jnp.asarray(2.0), jnp.asarray(1.0)))
    >>> round(float(state.position[0]), 4)  # 1/5 + 1/2 · 4/5
    0.6
    """

    law: ClassVar[Law] = Law("order", 1)
    model: Denoiser
    eta: Float[Array, ""] = eqx.field(converter=jnp.asarray, default=0.0)

    def move(self, state: Reversing, noise: Float[Array, " d"], input: Step) -> tuple[Reversing, Stroke]:
        """The same picture under less noise, a share of it new."""
        t, s = input
        schedule, x = self.model.schedule, state.position
        denoised = self.model.denoise(x, t)
        old = (x - schedule.alpha(t) * denoised) / schedule.sigma(t)
        new = jnp.asarray(self.eta, x.dtype) ** 2 * schedule.bridge(s, t).variance
        kept = jnp.sqrt(jnp.maximum(schedule.sigma(s) ** 2 - new, 0.0))  # below 0 by rounding only
        x = schedule.alpha(s) * denoised + kept * old + jnp.sqrt(new) * noise
        return Reversing(x), Stroke(x, denoised)


class EulerODE(_Still):
    """Euler's method for the probability-flow ODE: x_s = x_t + (s − t) v(x_t, t). Order 1, no noise.

    v = (σ'/σ) x + (α' − α σ'/σ) D. Argument: ``model``. State: ``Reversing``. Song et al. (2021).
    """

    law: ClassVar[Law] = Law("order", 1)
    model: Denoiser

    def move(self, state: Reversing, noise: None, input: Step) -> tuple[Reversing, Stroke]:
        """Along the tangent."""
        t, s = input
        denoised = self.model.denoise(state.position, t)
        x = state.position + (s - t) * self.model.schedule.velocity(state.position, t, denoised)
        return Reversing(x), Stroke(x, denoised)


class HeunODE(_Still):
    """Heun's method for the probability-flow ODE: x' = x + h v(x, t), x_s = x + ½h (v(x, t) + v(x', s)), h = s − t. Order 2.

    Two evaluations of the model a step, no noise, s > 0. Argument: ``model``. State: ``Reversing``. Karras et al. (2022).
    """

    law: ClassVar[Law] = Law("order", 2)
    model: Denoiser

    def move(self, state: Reversing, noise: None, input: Step) -> tuple[Reversing, Stroke]:
        """Along the mean of the tangents at both ends."""
        t, s = input
        model, x = self.model, state.position
        denoised = model.denoise(x, t)
        first = model.schedule.velocity(x, t, denoised)
        there = x + (s - t) * first
        second = model.schedule.velocity(there, s, model.denoise(there, s))
        x = x + 0.5 * (s - t) * (first + second)
        return Reversing(x), Stroke(x, denoised)


class Remembering(NamedTuple):
    """x_t with the denoised point of the step before, and 1 over that step's length in λ = log α/σ (0 at the start)."""

    position: Float[Array, " d"]
    denoised: Float[Array, " d"]
    inverse: Float[Array, ""]


class Multistep(Kernel):
    """DPM-Solver++(2M): the ODE in λ = log α/σ, solved exactly for a denoiser that is linear in λ. Order 2, no noise.

    x_s = (σ_s/σ_t) x_t − α_s (e^{−h} − 1) D̃ with h = λ_s − λ_t and D̃ = D + (h/2h₋)(D − D₋), where D₋ and h₋ are those of
    the step before; the first step has D̃ = D. One evaluation of the model a step. Argument: ``model``. State:
    ``Remembering``. Lu et al. (2022).
    """

    law: ClassVar[Law] = Law("order", 2)
    model: Denoiser

    def init(self, key: PRNGKeyArray, x: Float[Array, " d"]) -> Remembering:
        """At x, without a step before; the key is not used."""
        return Remembering(x, jnp.zeros_like(x), jnp.zeros((), x.dtype))

    def noise(self, key: PRNGKeyArray, state: Remembering) -> None:
        """None."""

    def move(self, state: Remembering, noise: None, input: Step) -> tuple[Remembering, Stroke]:
        """Along the line through the last two denoised points."""
        t, s = input
        schedule = self.model.schedule
        denoised = self.model.denoise(state.position, t)
        h = schedule.log_ratio(s) - schedule.log_ratio(t)  # infinite where α_t = 0; 1/h is then 0, as at the start
        ahead = 0.5 * jnp.where(state.inverse > 0, h, 0.0) * state.inverse
        aim = denoised + ahead * (denoised - state.denoised)
        x = schedule.sigma(s) / schedule.sigma(t) * state.position - schedule.alpha(s) * jnp.expm1(-h) * aim
        return Remembering(x, denoised, 1 / h), Stroke(x, denoised)


class ReverseSDE(_Noisy):
    """Euler-Maruyama for the reverse SDE: x_s = x_t + Δt (½(1 + λ²) g² ∇ log p_t − f x_t) + λ g √Δt e, Δt = t − s. Order 1.

    λ = 1 is the reverse SDE ("two back, one forward"), λ = 0 the ODE; in between and beyond, an ODE step plus a
    Langevin step of size λ² g² Δt. Of the bounds on KL(p_0‖q_0) under any error of the score, that of λ = 1 is the least
    (``diffusion.robust``).
    Arguments: ``model``, ``strength`` λ ≥ 0. State: ``Reversing``. Not from a time at which g is infinite. Anderson (1982),
    Song et al. (2021).
    """

    law: ClassVar[Law] = Law("order", 1)
    model: Denoiser
    strength: Float[Array, ""] = eqx.field(converter=jnp.asarray, default=1.0)

    def move(self, state: Reversing, noise: Float[Array, " d"], input: Step) -> tuple[Reversing, Stroke]:
        """Back along the ODE, up the score, and a jump."""
        t, s = input
        schedule, x = self.model.schedule, state.position
        denoised = self.model.denoise(x, t)
        spread = jnp.asarray(self.strength, x.dtype) ** 2 * schedule.diffusion(t) * (t - s)
        x = x + (s - t) * schedule.velocity(x, t, denoised) + 0.5 * spread * schedule.score(x, t, denoised)
        x = x + jnp.sqrt(spread) * noise
        return Reversing(x), Stroke(x, denoised)


class PredictorCorrector(Kernel):
    """A reverse sampler, each of its steps followed by Langevin steps at the new noise level.

    x ← x + (δ/2) ∇ log p_s(x) + √δ e with δ = (2 r σ_s)², ``corrections`` times. (Song et al. scale by |e|/|∇ log p_s(x)|,
    which is σ_s for pure noise; here the step does not depend on x, and it is stable for r < 1.) At a fixed r the corrector
    has a bias of relative size r² at each level, of which later levels forget most: see the tests.

    Arguments: ``predictor``, any of the other kernels; ``ratio`` r, the paper's signal-to-noise; ``corrections``. State: the
    predictor's. Song et al. (2021).
    """

    law: ClassVar[Law] = Law("order", 1)
    predictor: Any
    ratio: Float[Array, ""] = eqx.field(converter=jnp.asarray, default=0.16)
    corrections: int = eqx.field(static=True, default=1)

    def init(self, key: PRNGKeyArray, x: Float[Array, " d"]) -> Any:
        """The predictor's."""
        return self.predictor.init(key, x)

    def noise(self, key: PRNGKeyArray, state: Any) -> tuple[Any, Float[Array, "corrections d"]]:
        """The predictor's, and d normals for each correction."""
        key_predictor, key_corrector = jax.random.split(key)
        x = state.position
        normals = chance(key_corrector, self.corrections * x.size, 0, x.dtype)[0]
        return self.predictor.noise(key_predictor, state), normals.reshape(self.corrections, x.size)

    def move(self, state: Any, noise: tuple[Any, Array], input: Step) -> tuple[Any, Stroke]:
        """A step back, and Langevin steps where it led."""
        model, (_, s) = self.predictor.model, input
        state, stroke = self.predictor.move(state, noise[0], input)
        width = 2 * jnp.asarray(self.ratio, state.position.dtype) * model.schedule.sigma(s)

        def correct(x: Array, normal: Array) -> tuple[Array, None]:
            score = model.schedule.score(x, s, model.denoise(x, s))
            return x + 0.5 * width**2 * score + width * normal, None

        x, _ = jax.lax.scan(correct, state.position, noise[1])
        return state._replace(position=x), Stroke(x, stroke.denoised)


KERNELS: dict[str, Callable[[Any], Kernel]] = {
    "ancestral": Ancestral,
    "ddim": DDIM,
    "euler": EulerODE,
    "heun": HeunODE,
    "multistep": Multistep,
    "sde": ReverseSDE,
    "predictor-corrector": lambda model: PredictorCorrector(Ancestral(model)),
}


def reverse_kernel(name: str, model: Denoiser) -> Any:
    """The reverse sampler of that name, one of ``KERNELS``. Raises UsageError for an unknown one, with the nearest."""
    if name not in KERNELS:
        near = get_close_matches(name, KERNELS, n=1)
        raise UsageError(
            f"there is no sampler {name!r}", "", f"known: {', '.join(KERNELS)}", near[0] if near else "heun"
        )
    return KERNELS[name](model)


def evaluations(kernel: Any) -> int:
    """Evaluations of the model in a step: the notes' strokes.

    >>> evaluations(PredictorCorrector(HeunODE(None), corrections=3))
    5
    """
    if isinstance(kernel, PredictorCorrector):
        return evaluations(kernel.predictor) + kernel.corrections
    return 2 if isinstance(kernel, HeunODE) else 1


def run_reverse(
    kernel: Any, key: PRNGKeyArray, x: Float[Array, " d"], times: Float[Array, " n+1"]
) -> Float[Array, " d"]:
    """x_0 from x at the first of the falling ``times``: a step between neighbours, then the posterior mean at the last.

    For one example inside compiled code; use ``jax.vmap`` over keys and x. Without a jump: ``loop.repeat`` with the inputs
    (times[:-1], times[1:]), whose info is the path.

    >>> from mulligan.targets.noised import GaussianMixture, NoisedMixture
    >>> from mulligan.targets.noising import EDM
    >>> law = NoisedMixture(GaussianMixture([0.0], [[0.0]], [[[1.0]]]), EDM(t_max=20.0))
    >>> x = run_reverse(HeunODE(law), jax.random.key(0), jnp.full(1, 40.0), law.schedule.grid(80))
    >>> round(float(x[0]), 2)  # 40/√(1 + 20²) = 1.9975
    2.0
    """
    model = getattr(kernel, "predictor", kernel).model
    state = kernel.init(key, x)
    state, _ = repeat(kernel, key, state, times.size - 1, (times[:-1], times[1:]))
    return model.denoise(state.position, times[-1])
