"""Broken twins of how a Boltzmann machine is drawn from and learned: tests/exact/test_boltzmann.py must refuse each."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp

from mulligan.learners.boltzmann import BoltzmannDescent
from mulligan.models.boltzmann import BoltzmannMachine
from mulligan.objectives.contrastive import Contrast, contrastive_loss


def negative_phase_missing(machine, key, batch):
    return contrastive_loss(machine, key, batch._replace(negatives=jnp.zeros_like(batch.negatives)))


def phases_swapped(machine, key, batch):
    return contrastive_loss(machine, key, Contrast(batch.negatives, batch.points))


class HiddenBiasForgotten(BoltzmannDescent):
    def sampler(self, parameters):
        return BoltzmannDescent.sampler(self, parameters._replace(c=0 * parameters.c))


class CentredParametersForPlain(BoltzmannDescent):
    """Samples the machine of W, b, c as they are learned, with units that are not centred."""

    def sampler(self, parameters):
        c = parameters.c + self.descent.frozen.centre @ parameters.weights
        return BoltzmannDescent.sampler(self, parameters._replace(c=c))


OBJECTIVES = {
    "negative phase missing": negative_phase_missing,
    "phases swapped": phases_swapped,
}
KERNELS = {
    "hidden bias forgotten": HiddenBiasForgotten,
    "centred parameters for plain ones": CentredParametersForPlain,
}


class _Drawer(eqx.Module):
    machine: BoltzmannMachine
    fault: str = eqx.field(static=True)

    def sample(self, key):
        machine = self.machine
        if self.fault == "hidden bias forgotten":
            return machine.sample(key) if machine.c.size >= machine.b.size else _from(machine, 0 * machine.c, key)
        if self.fault == "blocks uniform":
            uniform = jnp.linspace(0, 1, machine.block_cdf.size + 1)[1:].astype(machine.block_cdf.dtype)
            return eqx.tree_at(lambda m: m.block_cdf, machine, uniform).sample(key)
        return eqx.tree_at(lambda m: m.b, machine, 0 * machine.b).sample(key)


def _from(machine, c, key):
    """Hidden units that are fair coins in place of those of the machine's law."""
    of_hidden, of_visible = jax.random.split(key)
    h = (jax.random.uniform(of_hidden, c.shape, c.dtype) < jax.nn.sigmoid(c)).astype(c.dtype)
    odds = machine.b + machine.weights @ h
    return (jax.random.uniform(of_visible, odds.shape, odds.dtype) < jax.nn.sigmoid(odds)).astype(odds.dtype)


DRAWERS = ("hidden bias forgotten", "blocks uniform", "visible bias forgotten")


def drawer(machine, fault):
    return _Drawer(machine, fault)
