"""Denoising: regress the datum on what is left of it under noise; and the bound of log p that this regression is.

Definition. L(θ) = E w(t) |x_0 − D_θ(x_t, t)|², x_t = α x_0 + σ e: for every w > 0 its minimiser is E[x_0 | x_t], hence the
score (Vincent 2011; identities ``diffusion.denoising``, ``diffusion.parametrizations``). The weights of the other targets:
w = α²/σ² is |e − ê|², w = τ²/(σ²λ) is |v − v̂|² (coordinate by coordinate; τ and λ as in ``models/denoiser.py``), w = 1 the
notes' regression of x_0.

With p_θ(x_s|x_t) the bridge at D in place of x_0, and snr = α²/σ², the chain of KLs is

    −log p_θ(x_0) ≤ KL(q(x_T|x_0)‖p_T) + Σ ½ (snr(s) − snr(t)) E|x_0 − D(x_t, t)|² − E log p_θ(x_0|x_{t_min})

(Sohl-Dickstein et al. 2015, Ho et al. 2020; ``diffusion.kl_chain``), whose limit for many steps is the regression with
w dt = ½ dsnr (Kingma et al. 2021).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from mulligan.models.denoiser import Denoiser, Scales
from mulligan.nets.time import Average
from mulligan.objectives.likelihood import Rows
from mulligan.targets.noising import Schedule, Time

Weighting = Literal["v", "noise", "data"]
HIDDEN = 0.1  # share of the rows that do not see what is given, so that the unconditional model is learned, too
_TAIL = 1e-4  # of the law of the noise that is cut off at both ends


@dataclass(frozen=True)
class Denoising:
    """Mean over rows of w |x_0 − D(x_t, t)|²/d.

    ``weighting`` chooses w. Where ``spread`` is None, times are uniform between those of the schedule; otherwise
    log σ/(α √λ̄) ~ N(``centre``, ``spread``²) (Karras et al. 2022). A batch of n rows takes the n quantiles (i + U)/n with
    one U. With ``both`` each row is used with e and with −e: what e adds to the gradient cancels to first order in σ.
    Equal ones are equal, so they share a program.

    >>> from mulligan.models.denoiser import make_denoiser
    >>> from mulligan.targets.noising import EDM
    >>> model = make_denoiser(2, EDM(), np.random.default_rng(0), width=4)
    >>> rows = Rows(jnp.asarray(np.random.default_rng(1).normal(size=(2000, 2)), jnp.float32))
    >>> loss, _ = Denoising()(model, jax.random.key(0), rows)
    >>> bool(0.9 < loss < 1.1)  # the Gaussian fit of Gaussian data leaves v a variance of 1
    True
    """

    weighting: Weighting = "v"
    centre: float = -1.0
    spread: float | None = 1.3
    both: bool = False

    def __call__(self, model: Denoiser, key: PRNGKeyArray, batch: Rows) -> tuple[Float[Array, ""], dict[str, Any]]:
        """The loss, and minus it as the metric ``train``."""
        of_noise, of_times, of_hiding = jax.random.split(key, 3)
        x = batch.points
        noise = jax.random.normal(of_noise, x.shape, x.dtype)
        times = self.times(model, of_times, len(x))
        shown = None if batch.given is None else jax.random.uniform(of_hiding, (len(x),), x.dtype) >= HIDDEN
        sides = (1, -1) if self.both else (1,)
        marks = None if shown is None else shown.astype(x.dtype)

        def loss_of(network: Any, noise: Array, times: Array) -> Array:
            alone = eqx.tree_at(lambda whole: whole.network, model, network)
            errors = jax.vmap(lambda x, e, t, given, mark: self.errors(alone, x, e, t, given, mark))
            return jnp.mean(jnp.stack([jnp.mean(errors(x, s * noise, times, batch.given, marks)) for s in sides]))

        if isinstance(model.network, Average):
            # Every member has its own loss, on the same rows with another's noise: they err apart from each other.
            count = model.network.count
            turned = [[jnp.roll(drawn, m * (len(x) // count), 0) for m in range(count)] for drawn in (noise, times)]
            losses = eqx.filter_vmap(loss_of)(model.network.members, *map(jnp.stack, turned))
            loss = jnp.sum(losses)
            return loss, {"train": -loss / count}
        loss = loss_of(model.network, noise, times)
        return loss, {"train": -loss}

    def errors(
        self, model: Denoiser, x: Array, e: Array, t: Time, given: Array | None = None, shown: Array | None = None
    ) -> Float[Array, " d"]:
        """w (x_0 − D)² in uncorrelated coordinates of one row x (d,) with noise e (d,) at time t."""
        scales = model.scales(t)
        z = model.inward(x)
        found = model.denoised(scales.alpha * z + scales.sigma * e, scales, given, shown)
        return self.weight(model, scales) * (z - found) ** 2

    def weight(self, model: Denoiser, scales: Scales) -> Array:
        """w, a scalar or (d,)."""
        if self.weighting == "v":
            return (scales.total / scales.sigma) ** 2 / model.variances
        if self.weighting == "noise":
            return (scales.alpha / scales.sigma) ** 2
        return jnp.ones_like(scales.sigma)

    def times(self, model: Denoiser, key: PRNGKeyArray, n: int) -> Float[Array, " n"]:
        """n times, one in each n-th of the law of times."""
        schedule, dtype = model.schedule, model.mean.dtype
        places = (jnp.arange(n, dtype=dtype) + jax.random.uniform(key, (), dtype)) / n
        if self.spread is None:
            return schedule.t_min + (schedule.t_max - schedule.t_min) * places
        normal = jax.scipy.special.ndtri(jnp.clip(places, _TAIL, 1 - _TAIL))
        log_ratio = self.centre + self.spread * normal + 0.5 * jnp.mean(jnp.log(model.variances))
        return jnp.clip(schedule.at_noise(jnp.exp(log_ratio)), schedule.t_min, schedule.t_max)


def gaussian_divergences(
    model: Any, x: Float[Array, " d"], noise: Float[Array, "n d"], times: Float[Array, " n+1"], given: Any = None
) -> Float[Array, " n"]:
    """KL(q(x_s|x_t, x_0)‖p_θ(x_s|x_t)) in nats of the n steps between falling ``times``, at x_t = α x_0 + σ e.

    Both are Gaussians with the variance of the bridge, so each KL is ½ (snr(s) − snr(t)) |x_0 − D(x_t, t)|².

    >>> from mulligan.models.denoiser import make_denoiser
    >>> from mulligan.targets.noising import Walk
    >>> model = make_denoiser(1, Walk(), np.random.default_rng(0), width=4)
    >>> times = jnp.asarray([3.0, 1.0])
    >>> [float(v) for v in gaussian_divergences(model, jnp.ones(1), jnp.zeros((1, 1)), times)]  # ½ (1 − 1/3) (1 − 1/4)²
    [0.1875]
    """
    schedule = model.schedule

    def one(e: Array, t: Time, s: Time) -> Array:
        x_t = schedule.alpha(t) * x + schedule.sigma(t) * e
        found = _denoise(model, x_t, t, given)
        return 0.5 * (_snr(schedule, s) - _snr(schedule, t)) * jnp.sum((x - found) ** 2)

    return jax.vmap(one)(noise, times[:-1], times[1:])


def variational_bound(
    model: Denoiser, x: Float[Array, " d"], noise: Float[Array, "n+1 d"], times: Float[Array, " n+1"], given: Any = None
) -> Float[Array, ""]:
    """The bound of log p_θ(x) on a grid of falling times, for one draw of all noise: at most log p_θ(x) in expectation.

    The KL at the first time is exact; log p_θ(x_0|x_{t_min}) is that of N(D(x_{t_min}), (σ/α)² I).

    >>> from mulligan.models.denoiser import make_denoiser
    >>> from mulligan.targets.noising import EDM
    >>> model = make_denoiser(1, EDM(), np.random.default_rng(0), width=4)  # N(0, 1): log p(1) is −1.42
    >>> noise = jax.random.normal(jax.random.key(0), (1001, 1))
    >>> -2.5 < float(variational_bound(model, jnp.ones(1), noise, model.schedule.grid(1000))) < -1.0
    True
    """
    schedule, last = model.schedule, times[-1]
    middle = jnp.sum(gaussian_divergences(model, x, noise[1:], times, given))
    variance = 1 / _snr(schedule, last)
    x_t = schedule.alpha(last) * x + schedule.sigma(last) * noise[0]
    missed = jnp.sum((x - _denoise(model, x_t, last, given)) ** 2)
    decoded = -0.5 * missed / variance - 0.5 * model.dim * jnp.log(2 * np.pi * variance)
    return decoded - middle - _last_divergence(model, x, times[0])


def continuous_bound(
    model: Denoiser, x: Float[Array, " d"], noise: Float[Array, "k d"], places: Float[Array, " k"], given: Any = None
) -> Float[Array, ""]:
    """The bound for infinitely many steps, by k times: log σ/α at ``places`` in [0, 1] between its ends.

    ½∫|x_0 − D|² dsnr = ∫|e − ê|² d log(σ/α), of which E|e|² = d is known: only the difference is estimated. Its law is
    much narrower than that of ``variational_bound``. In expectation over noise and uniform places it is at most log p.

    >>> from mulligan.models.denoiser import make_denoiser
    >>> from mulligan.targets.noising import EDM
    >>> model = make_denoiser(1, EDM(), np.random.default_rng(0), width=4)  # N(0, 1): log p(1) is −1.42
    >>> noise = jax.random.normal(jax.random.key(0), (1000, 1))
    >>> places = (jnp.arange(1000.0) + 0.5) / 1000
    >>> -1.6 < float(continuous_bound(model, jnp.ones(1), noise, places)) < -1.2
    True
    """
    schedule = model.schedule
    low, high = -schedule.log_ratio(schedule.t_min), -schedule.log_ratio(schedule.t_max)

    def one(e: Array, place: Array) -> Array:
        t = schedule.at_noise(jnp.exp(low + (high - low) * place))
        alpha, sigma = schedule.alpha(t), schedule.sigma(t)
        x_t = alpha * x + sigma * e
        found = _denoise(model, x_t, t, given)
        return jnp.sum((alpha / sigma * (x - found)) ** 2) - jnp.sum(e**2)

    middle = (high - low) * (jnp.mean(jax.vmap(one)(noise, places)) + model.dim)
    decoded = -0.5 * model.dim * (np.log(2 * np.pi) + 1 + 2 * low)
    return decoded - middle - _last_divergence(model, x, schedule.t_max)


def _last_divergence(model: Denoiser, x: Array, t: Time) -> Array:
    """KL(q(x_t|x_0 = x)‖N(α m, α² C + σ² I))."""
    alpha, sigma, total, _ = model.scales(t)
    kept = (sigma / total) ** 2
    return 0.5 * jnp.sum(kept + (alpha * model.inward(x) / total) ** 2 - 1 - jnp.log(kept))


def _denoise(model: Any, x: Array, t: Time, given: Array | None) -> Array:
    return model.denoise(x, t) if given is None else model.denoise(x, t, given)


def _snr(schedule: Schedule, t: Time) -> Array:
    return (schedule.alpha(t) / schedule.sigma(t)) ** 2
