"""Broken twins of the library's objects: the identities of mulligan/lab must refuse each (tests/exact/test_identities.py).

The mutants of an identity break the statement; these break what the statement is about. A twin is
(id of the identity, what is wrong, the part of its check to replace).
"""

from __future__ import annotations

import dataclasses
from functools import partial

import jax.numpy as jnp
from saboteurs.discrete import first_beta_forgotten, move_at_old_beta, weight_after_move, weight_upside_down
from saboteurs.maximisations import MomentWithoutCovariance, ShiftSubtractedTwice
from saboteurs.samplers import ADJUSTED, ORBIT, Adjusted, Orbit, Unadjusted

from mulligan.lab.identities.annealing import LEVELS, rung_of
from mulligan.lab.identities.contrastive import gibbs_sweep
from mulligan.lab.identities.diffusion import KERNELS
from mulligan.lab.identities.energy import model_of
from mulligan.learners.expectation_maximisation import mixture_em
from mulligan.models.energy import EnergyModel
from mulligan.objectives.noise_contrastive import noise_contrastive_loss
from mulligan.samplers.annealing import AnnealedImportance
from mulligan.samplers.gibbs import Gibbs
from mulligan.samplers.reverse import Ancestral, EulerODE, ReverseSDE
from mulligan.samplers.tempering import exchange
from mulligan.targets.counting import Histogram
from mulligan.targets.noised import NoisedMixture


class NoArea(Histogram):
    """log of the cell's probability, not of its density."""

    def log_prob(self, x, given=None):
        return jnp.log(self.joint[self._place(x)[0]])


class EqualAreas(Histogram):
    """Every cell has the mean area: right wherever the edges are equally spaced."""

    def log_prob(self, x, given=None):
        volume = jnp.prod(jnp.stack([(axis[-1] - axis[0]) / (axis.size - 1) for axis in self.edges]))
        return jnp.log(self.joint[self._place(x)[0]] / volume)


class OneRowShort(Histogram):
    """The marginal loses one count."""

    def marginal(self, axes):
        law = Histogram.marginal(self, axes)
        return Histogram(law.edges, law.counts - (jnp.arange(law.counts.size).reshape(law.counts.shape) == 0))


class UnsortedAxes(Histogram):
    """The marginal forgets the order in which its axes were asked for."""

    def marginal(self, axes):
        return Histogram.marginal(self, sorted(axes))


class DeafConditional(Histogram):
    """The conditional counts in all bins, not inside the given one only."""

    def conditional(self, axes, values):
        return Histogram.marginal(self, [axis for axis in range(self.dim) if axis not in axes])


class NeighbouringBin(Histogram):
    """The conditional counts inside the next bin."""

    def conditional(self, axes, values):
        rolled = Histogram(self.edges, jnp.roll(self.counts, 1, axis=axes), self.pseudo, self.tails)
        return Histogram.conditional(rolled, axes, values)


class HalfTerm(Histogram):
    """The chain of conditionals leaves out its last term."""

    def factorization(self, x):
        return Histogram.factorization(self, x)[:-1]


class CellCentres(Histogram):
    """Draws the centre of a cell, not a point in it."""

    def _within(self, key, edges, cell):
        return 0.5 * (edges[cell] + edges[cell + 1])


def shift_twice(rows, covariance, regularisation):
    kernel = mixture_em(rows, covariance, regularisation)
    return ShiftSubtractedTwice(*(getattr(kernel, field.name) for field in dataclasses.fields(kernel)))


def regularised(rows, covariance, regularisation):
    return mixture_em(rows, covariance, 0.05)


def half_the_rows(rows, covariance, regularisation):
    return mixture_em(rows[::2], covariance, regularisation)


class UphillModel(EnergyModel):
    """The sign of f is flipped."""

    def unnormalised(self, x):
        return self.log_q(x) - self.f(x)


class ModelWithoutReference(EnergyModel):
    """exp(f) alone."""

    def unnormalised(self, x):
        return self.f(x)


def as_model(wrong):
    return lambda tilt, reference: wrong(
        *(getattr(model_of(tilt, reference), f.name) for f in dataclasses.fields(wrong))
    )


def one_sweep_from_the_data(machine, data):
    """CD-1's negative examples, for the law of the model."""
    return data @ gibbs_sweep(machine)


def loss_without_log_ratio(model, key, batch):
    """ν is in the sum, but not in the log odds."""
    ratio = batch.noise.shape[0] / batch.points.shape[0]
    shifted = batch._replace(
        points_offset=batch.points_offset + jnp.log(ratio), noise_offset=batch.noise_offset + jnp.log(ratio)
    )
    return noise_contrastive_loss(model, key, shifted)


def loss_without_ratio(model, key, batch):
    """The noise counts once, whatever ν."""
    once = batch.points.shape[0]
    return noise_contrastive_loss(
        model, key, batch._replace(noise=batch.noise[:once], noise_offset=batch.noise_offset[:once])
    )


def loss_with_one_offset(model, key, batch):
    """The noise's offset is left out."""
    return noise_contrastive_loss(model, key, batch._replace(noise_offset=0 * batch.noise_offset))


def step_of(mistake):
    return lambda log_density, step_size: Unadjusted(log_density, jnp.asarray(step_size), mistake)


def adjusted_of(mistake):
    scale = jnp.asarray([1.0, 1.5])
    return lambda log_density, step_size: Adjusted(log_density, jnp.asarray(step_size), scale, ADJUSTED.index(mistake))


def orbit_of(mistake):
    return lambda log_density, step_size, steps: Orbit(log_density, step_size, steps, ORBIT.index(mistake))


def copied(state, probability, uniforms):
    """The colder position is copied to the hotter rung, the hotter one is lost."""
    after = exchange(state, probability, uniforms)
    return after._replace(positions=after.positions.at[1:].set(state.positions[1:]))


class Late(AnnealedImportance):
    move = weight_after_move


class Hot(AnnealedImportance):
    move = move_at_old_beta


class UpsideDown(AnnealedImportance):
    move = weight_upside_down


class AtOnce(Gibbs):
    """Both sites are drawn given the old values."""

    def move(self, state, noise, input):
        each = [Gibbs.move(dataclasses.replace(self, sites=[i]), state, noise, input)[0].position[i] for i in (0, 1)]
        after, info = Gibbs.move(self, state, noise, input)
        return after._replace(position=jnp.stack(each)), info


def rungs_of(annealing, sweep=Gibbs):
    return partial(rung_of, kernel=lambda path, reverse: annealing(sweep(path, LEVELS), reverse))


class WeightsForResponsibilities(NoisedMixture):
    """The score's parts are weighted as if x told nothing about the component."""

    def score(self, x, t):
        parts = self._parts(x, t)
        return -(jnp.exp(self.log_weights) * parts[2] / parts[3]).ravel() @ self.axes.reshape(-1, self.dim)


class WithinOnly(NoisedMixture):
    """Cov(x_0 | x_t) without the spread between the components."""

    def covariance(self, x, t):
        _, square, _, v, joint = self._parts(x, t)
        return jnp.einsum(
            "k,ik,ikd,ike->de", jnp.exp(joint) / jnp.exp(joint).sum(), self.variances * square / v, self.axes, self.axes
        )


class StepTooFar(EulerODE):
    """Off by one: the step leads to 2s − t."""

    def move(self, state, noise, input):
        t, s = input
        return EulerODE.move(self, state, noise, (t, 2 * s - t))


class NoRoot(ReverseSDE):
    """Δt e for √Δt e."""

    def move(self, state, noise, input):
        return ReverseSDE.move(self, state, noise * jnp.sqrt(input[0] - input[1]), input)


class SharesExchanged(Ancestral):
    """The bridge's mean with the shares of x_t and x_0 exchanged.

    (Exchanging σ_s and σ_t in the noise is no mistake to first order: only the global order sees it.)
    """

    def move(self, state, noise, input):
        t, s = input
        after, stroke = Ancestral.move(self, state, noise, input)
        bridge = self.model.schedule.bridge(s, t)
        moved = (bridge.of_x_0 - bridge.of_x_t) * (state.position - stroke.denoised)
        return after._replace(position=after.position + moved), stroke


def with_kernel(wrong):
    return tuple(wrong if issubclass(wrong, kernel) else kernel for kernel in KERNELS)


TWINS = [
    ("density.joint", "equal areas", {"histogram": EqualAreas}),
    ("density.marginal", "one count lost", {"histogram": OneRowShort}),
    ("density.marginal", "axes sorted", {"histogram": UnsortedAxes}),
    ("density.conditional", "given nothing", {"histogram": DeafConditional}),
    ("density.conditional", "the next bin", {"histogram": NeighbouringBin}),
    ("density.factorization", "last term left out", {"histogram": HalfTerm}),
    ("density.expectation", "given nothing", {"histogram": DeafConditional}),
    ("density.expectation", "the next bin", {"histogram": NeighbouringBin}),
    ("density.expectation.long_run", "centres of cells", {"histogram": CellCentres}),
    ("density.consistency.sample", "no area", {"histogram": NoArea}),
    ("density.cause", "given nothing", {"histogram": DeafConditional}),
    ("mle.covering", "regularised M step", {"em": regularised}),
    ("mle.covering", "half of the rows", {"em": half_the_rows}),
    ("em.monotone", "shift subtracted twice", {"mixture": shift_twice}),
    ("em.monotone", "regularised M step", {"mixture": regularised}),
    ("em.monotone", "half of the rows", {"mixture": half_the_rows}),
    ("em.monotone", "moment without covariance", {"factor": MomentWithoutCovariance}),
    ("ebm.log_z", "sign of f", {"model": as_model(UphillModel)}),
    ("ebm.gradient", "sign of f", {"model": as_model(UphillModel)}),
    ("ebm.gibbs", "reference left out", {"model": as_model(ModelWithoutReference)}),
    ("game.value", "one sweep from the data", {"actor": one_sweep_from_the_data}),
    ("nce.posterior", "log ratio left out of the loss", {"loss": loss_without_log_ratio}),
    ("nce.posterior", "noise counts once", {"loss": loss_without_ratio}),
    ("nce.posterior", "noise without offset", {"loss": loss_with_one_offset}),
    *(
        (id, mistake, {"step": step_of(mistake)})
        for id, mistakes in {
            "langevin.limit.step": ("half the noise",),
            "langevin.stationary": ("half forgotten", "score flipped", "root forgotten", "half the noise"),
            "langevin.stationary.bias": ("half the noise",),
        }.items()
        for mistake in mistakes
    ),
    *(("mala.exact", mistake, {"kernel": adjusted_of(mistake)}) for mistake in ADJUSTED),
    *(("hmc.reversible", mistake, {"kernel": orbit_of(mistake)}) for mistake in ORBIT[1:6]),
    ("tempering.swap", "one β forgotten", {"probability": first_beta_forgotten}),
    ("tempering.swap", "a position copied", {"swap": copied}),
    ("annealing.ais", "weight after the move", {"rung": rungs_of(Late)}),
    ("annealing.ais", "move at the β before", {"rung": rungs_of(Hot)}),
    ("annealing.ais", "both sites at once", {"rung": rungs_of(AnnealedImportance, AtOnce)}),
    ("annealing.crooks", "weight upside down", {"turned": rungs_of(UpsideDown)}),
    ("annealing.crooks", "both sites at once", {"turned": rungs_of(AnnealedImportance, AtOnce)}),
    ("diffusion.vincent", "weights for responsibilities", {"noised": WeightsForResponsibilities}),
    ("diffusion.tweedie", "covariance within components only", {"noised": WithinOnly}),
    ("diffusion.reverse_ode", "a step too far", {"kernels": with_kernel(StepTooFar)}),
    ("diffusion.reverse_sde", "root forgotten", {"kernels": with_kernel(NoRoot)}),
    ("diffusion.reverse_sde", "shares exchanged", {"kernels": with_kernel(SharesExchanged)}),
]
