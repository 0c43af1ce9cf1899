"""Broken twins of the autoregressive model: patches that the checks of tests/exact/test_autoregressive.py must reject."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from mulligan.data import native
from mulligan.models import autoregressive, columns, heads
from mulligan.models.columns import Columns
from mulligan.nets.masked import MaskedNet


def sees_itself(monkeypatch):
    """Hidden units of degree m see inputs at position m: an output depends on its own column."""
    right = MaskedNet.__call__

    def broken(self, x, given=None):
        return right(eqx.tree_at(lambda n: n.inputs, self, self.inputs - 1), x, given)

    monkeypatch.setattr(MaskedNet, "__call__", broken)


def units_late(monkeypatch):
    """A sampler whose units are known one column after they are needed."""
    right = MaskedNet.advanced

    def broken(self, *arguments):
        return right(eqx.tree_at(lambda n: n.hidden, self, self.hidden + 1), *arguments)

    monkeypatch.setattr(MaskedNet, "advanced", broken)


def units_lost(monkeypatch):
    """A sampler that computes one unit of each degree, where there are two."""
    right = MaskedNet.advanced

    def broken(self, known, x, position, sizes, given=None):
        return right(self, known, x, position, (1, 1), given)

    monkeypatch.setattr(MaskedNet, "advanced", broken)


def width_forgotten(monkeypatch):
    """log(S(b) − S(a)) without log(1 − exp(−(b − a))): two tails multiplied."""
    patch_jnp(monkeypatch, "expm1", lambda x: -jnp.ones_like(x))


def by_difference(monkeypatch):
    """log(S(b) − S(a)) as it stands: 0 − 0 in the tails, and all digits lost where a cell is narrow."""

    def broken(raw, cells, least=1e-3):
        log_weight, mean, scale = heads._mixture(raw, least)
        a = (cells.value - cells.below)[..., None]
        b = (cells.value + cells.above)[..., None]
        inside = jax.nn.sigmoid((b - mean) / scale) - jax.nn.sigmoid((a - mean) / scale)
        return jax.nn.logsumexp(log_weight + jnp.log(inside), axis=-1)

    monkeypatch.setattr(heads, "logistic_log_prob", broken)
    monkeypatch.setattr(autoregressive, "logistic_log_prob", broken)


def scale_forgotten(monkeypatch):
    """A Gaussian without its 1/s."""
    right = heads._mixture

    def broken(raw, least):
        log_weight, mean, scale = right(raw, least)
        return log_weight + jnp.log(scale), mean, scale

    monkeypatch.setattr(heads, "_mixture", broken)


def caps_end(monkeypatch):
    """A cap whose cell ends two standard deviations beyond it."""
    monkeypatch.setattr(columns, "BEYOND", 2.0)


def whole_gaps(monkeypatch):
    """Cells that reach to the neighbours' values instead of half-way."""
    right = Columns._distances
    monkeypatch.setattr(Columns, "_distances", lambda self, c, u, low, high: right(self, c, u, 2 * low, 2 * high))


def atoms_forgotten(monkeypatch):
    """Values off the grid are not known."""
    right = Columns._constants

    def broken(self, z):
        constants = right(self, z)
        return constants._replace(atoms=jnp.full_like(constants.atoms, jnp.inf))

    monkeypatch.setattr(Columns, "_constants", broken)


def rounds_down(monkeypatch):
    """The next value below in place of the nearest one."""
    patch_jnp(monkeypatch, "rint", jnp.floor)


def does_not_snap(monkeypatch):
    """A sampler whose later columns see numbers that no row can hold."""
    monkeypatch.setattr(Columns, "snap", lambda self, z: z)


def first_part_only(monkeypatch):
    """A sampler that draws from the first part of every mixture, and the first level."""
    monkeypatch.setattr(heads, "_pick", lambda weights, uniform: jnp.zeros(uniform.shape, jnp.int32))


def variance_for_sd(monkeypatch):
    """A sampler that spreads a part by the square of its scale."""
    right = heads._picked

    def broken(raw, uniform, least):
        mean, scale = right(raw, uniform, least)
        return mean, scale**2

    monkeypatch.setattr(heads, "_picked", broken)


def slopes_of_cells(monkeypatch):
    """log |dz/dv| added to probabilities, too."""
    monkeypatch.setattr(native, "is_cell", lambda column, values: np.zeros(np.shape(values), bool))


def hides_missing(monkeypatch):
    """A NaN counts as 0."""
    right = autoregressive.Autoregressive.conditionals
    monkeypatch.setattr(
        autoregressive.Autoregressive, "conditionals", lambda self, x, given=None: right(self, jnp.nan_to_num(x), given)
    )


def drawn_in_another_order(model):
    """The model with its columns' positions turned round, its network unchanged."""
    return eqx.tree_at(lambda m: m.positions, model, model.positions[::-1])


class _Patched:
    """jax.numpy with one function replaced."""

    def __init__(self, **changed):
        self.__dict__.update(changed)

    def __getattr__(self, name):
        return getattr(jnp, name)


def patch_jnp(monkeypatch, name, function):
    """Replace one function of jax.numpy in the modules of the model."""
    for module in (heads, columns):
        monkeypatch.setattr(module, "jnp", _Patched(**{name: function}))
