"""Broken twins of the library's objects: the identities of mulligan/lab must refuse each (tests/exact/test_identities.py).

The mutants of an identity break the statement; these break what the statement is about. A twin is
(id of the identity, what is wrong, the part of its check to replace).
"""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp
from saboteurs.maximisations import MomentWithoutCovariance, ShiftSubtractedTwice

from mulligan.learners.expectation_maximisation import mixture_em
from mulligan.targets.counting import Histogram


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
]
