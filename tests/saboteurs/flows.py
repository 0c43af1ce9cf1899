"""Broken twins of splines and flows: tests/exact/test_flow.py must refuse each."""

from __future__ import annotations

import equinox as eqx
import jax.numpy as jnp

from mulligan.models.flow import Flow
from mulligan.nets import spline as sound
from mulligan.nets.spline import inverse_spline, plain_spline


def sign_of_log_slope(parameters, x, bound):
    y, log_slope = plain_spline(parameters, x, bound)
    return y, -log_slope


def newton_once(parameters, y, bound):
    """An inverse that is not: one step of Newton from y itself."""
    value, log_slope = plain_spline(parameters, y, bound)
    x = y - (value - y) / jnp.exp(log_slope)
    return x, -plain_spline(parameters, x, bound)[1]


def steep_tails(parameters, x, bound):
    """Slope ½ at the outermost knots, 1 beyond them."""
    y, log_slope = plain_spline(parameters, x, bound)
    edge = jnp.abs(x) > 0.99 * bound
    return y, jnp.where(edge & (jnp.abs(x) < bound), jnp.log(0.5), log_slope)


def off_by_one_bin(parameters, y, bound):
    """The inverse looks up its bin on the x axis."""
    inside = jnp.abs(y) < bound
    safe = jnp.where(inside, y, 0.0)
    found = sound._pick(sound._grid(parameters, bound), safe, bound, along_y=False)
    x = found.x + (safe - found.y) * found.width / found.height
    return jnp.where(inside, x, y), -plain_spline(parameters, x, bound)[1]


SPLINES = {
    "sign of the log-slope": (sign_of_log_slope, inverse_spline),
    "an inverse that is not": (plain_spline, newton_once),
    "steep tails": (steep_tails, inverse_spline),
    "bin of the wrong axis": (plain_spline, off_by_one_bin),
}


class _Twin(eqx.Module):
    """A flow with one of its two directions replaced."""

    flow: Flow
    fault: str = eqx.field(static=True)

    @property
    def layers(self):
        return self.flow.layers

    def to_latent(self, x):
        z, log_det = self.flow.to_latent(x)
        if self.fault == "sign":
            return z, -log_det
        if self.fault == "no mixing":
            return z, log_det - jnp.sum(self.flow.layers.mixing.log_diagonal)
        return z, log_det

    def from_latent(self, z):
        x, log_det = self.flow.from_latent(z)
        if self.fault == "sign":
            return x, -log_det
        if self.fault == "no mixing":
            return x, log_det + jnp.sum(self.flow.layers.mixing.log_diagonal)
        if self.fault == "order":
            return x[::-1], log_det
        return x, log_det


def off_by_one_mask(flow: Flow) -> Flow:
    """Outputs see their own column: the Jacobian is no longer triangular, and sampling no longer inverts."""
    seen = flow.layers.conditioner.inputs
    return eqx.tree_at(lambda f: f.layers.conditioner.inputs, flow, jnp.maximum(seen - 1, -1))


FLOWS = {
    "sign of the log-determinant": lambda flow: _Twin(flow, "sign"),
    "log-determinant without the mixing": lambda flow: _Twin(flow, "no mixing"),
    "inverse in the wrong order": lambda flow: _Twin(flow, "order"),
    "off-by-one mask": off_by_one_mask,
}
