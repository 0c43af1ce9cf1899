"""The path of laws between a reference and a target, and a kernel placed on it.

Definition. π_β(x) = exp(β f(x)) q(x)/Z_β, with β (inverse temperature) from 0 to 1: π_0 is the reference q, which can be
drawn from and is normalised, π_1 the target. For an unnormalised log density log γ take f = log γ − log q; then
log Z_1 = log ∫ γ. Z_β depends on β alone. Theory: chapter 8 (Neal 2001; Geyer 1991).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

LogDensity = Callable[[Array], Array]  # x (d,) to a scalar; a module, a bound method or a module-level function


class Path(eqx.Module):
    """x ↦ β f(x) + log q(x): the unnormalised log density of π_β; call it, or ``at(beta)`` for another β.

    Arguments: ``f`` (negative energy, or log of target over reference) and ``log_q``, both from x (d,) to a scalar;
    ``beta``. Where f is −∞ (outside the target's support) π_β is 0 for β > 0 and q for β = 0. NaN in gives NaN out.

    >>> path = Path(lambda x: -jnp.sum(x**2), lambda x: -0.5 * jnp.sum(x**2), 0.5)
    >>> float(path(jnp.ones(2))), float(path.at(0.0)(jnp.ones(2)))
    (-2.0, -1.0)
    """

    f: LogDensity
    log_q: LogDensity
    beta: Float[Array, ""] = eqx.field(converter=jnp.asarray, default=1.0)

    def __call__(self, x: Array) -> Float[Array, ""]:
        f, log_q = self.f(x), self.log_q(x)
        beta = jnp.asarray(self.beta, f.dtype)
        out = jnp.isneginf(f)
        mixed = beta * jnp.where(out, 0.0, f) + log_q
        return jnp.where(out & (beta > 0), -jnp.inf, mixed)

    def at(self, beta: Any) -> Path:
        """The same path at another inverse temperature."""
        return Path(self.f, self.log_q, beta)


class Ratio(eqx.Module):
    """x ↦ log γ(x) − log q(x): the f of a path from q to an unnormalised density γ.

    >>> float(Ratio(lambda x: 3.0 * x, lambda x: 1.0 * x)(jnp.asarray(2.0)))
    4.0
    """

    log_density: LogDensity
    log_q: LogDensity

    def __call__(self, x: Array) -> Float[Array, ""]:
        return self.log_density(x) - self.log_q(x)


class StandardNormal(eqx.Module):
    """The reference N(0, scale² I) on R^dim: normalised log density, and draws. The default reference of a density.

    >>> q = StandardNormal(2, 3.0)
    >>> round(float(q(jnp.zeros(2))), 4), q.sample(jax.random.key(0)).shape
    (-4.0351, (2,))
    """

    dim: int = eqx.field(static=True)
    scale: Float[Array, ""] = eqx.field(converter=jnp.asarray, default=3.0)

    def __call__(self, x: Float[Array, " d"]) -> Float[Array, ""]:
        """log N(x; 0, scale² I)."""
        scale = jnp.asarray(self.scale, x.dtype)
        return -0.5 * jnp.sum((x / scale) ** 2) - self.dim * (jnp.log(scale) + 0.5 * jnp.log(2 * jnp.pi))

    def sample(self, key: Array) -> Float[Array, " d"]:
        """One draw (dim,)."""
        return self.scale * jax.random.normal(key, (self.dim,), jnp.asarray(self.scale).dtype)


def at(kernel: Any, beta: Any, step_size: Any = None) -> Any:
    """A kernel that samples a ``Path``, moved to another β (and another step size). Free inside compiled code.

    The kernel must have the field ``log_density``, a ``Path``; a state of the old kernel must be made anew by ``init``,
    for it caches the old log density.
    """
    changes = {"log_density": kernel.log_density.at(beta)}
    if step_size is not None:
        changes["step_size"] = step_size
    return dataclasses.replace(kernel, **changes)
