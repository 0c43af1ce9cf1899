"""Where a fitted model is conditioned: the coordinates, and the law that proposes points there.

Definition. A Gaussian mixture and a histogram are conditioned in closed form: they propose for themselves. A model with any
other density gets a Gaussian mixture q fitted by EM to its own draws, with a wide part that bounds p/q (Rubin 1987). A
model without density is known by its draws, with the latent vectors that they come from where it has some.
Identity: ``density.conditional``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mulligan.core import Density, Sampler
from mulligan.data.codec import Codec, fit_codec
from mulligan.data.given import ConditionalCodec
from mulligan.data.regions import dequantisation
from mulligan.data.table import Source, Table
from mulligan.errors import DataError, UsageError
from mulligan.learners.expectation_maximisation import MixtureState
from mulligan.learners.incomplete_rows import climb, incomplete_rows, mixture_step
from mulligan.learners.seeding import seeded_state
from mulligan.measures.likelihood import draw, point_log_prob, row_log_prob
from mulligan.models.boxes import Candidates, box_candidates
from mulligan.models.counted import CountedForm, counted_candidates, counted_form, counted_log_prob
from mulligan.models.gan import GAN
from mulligan.models.incomplete import MixtureForm, marginal_log_prob, mixture_form
from mulligan.workbench.latents import generated

if TYPE_CHECKING:
    from mulligan.workbench.fitted import Fitted

PARTS = 12  # of the proposal
PROPOSAL_DRAWS = 3000
WIDE = 0.1  # share of the part that covers all draws with twice their standard deviation
MOST_COORDINATES = 64
POOL = 20_000  # draws of a model without density


@dataclass
class Space:
    """The R^d in which a fitted model is conditioned: ``codec``, and ``form``, the proposal, which for ``closed`` is the
    model itself. ``pool`` (n, d) are draws of a model that has no density, and ``latents`` (n, k) what they come from."""

    fitted: Fitted
    codec: Codec
    form: MixtureForm | CountedForm
    closed: bool
    pool: np.ndarray | None = None
    latents: np.ndarray | None = None

    @property
    def counted(self) -> bool:
        """Whether every answer is found by counting, and so is exact."""
        return isinstance(self.form, CountedForm)

    def candidates(self, low: np.ndarray, high: np.ndarray, draws: int, generator: np.random.Generator) -> Candidates:
        """Weighted points of the proposal in the box of each row, ``low`` to ``high`` (n, d)."""
        if isinstance(self.form, CountedForm):
            return counted_candidates(self.form, low, high, draws, generator)
        return box_candidates(self.form, low, high, draws, generator)

    def log_proposal(self, points: np.ndarray) -> np.ndarray:
        """log q of points (n, d), float64 (n,)."""
        if isinstance(self.form, CountedForm):
            return counted_log_prob(self.form, points)
        return marginal_log_prob(self.form, points, np.zeros(points.shape, bool))

    def log_density(self, points: np.ndarray) -> np.ndarray:
        """log p of points (n, d) of the codec, float64 (n,); −inf where nothing is. DataError where one is NaN or +∞."""
        model, codec = self.fitted.model, self.fitted.codec
        if self.closed:
            return self.log_proposal(points)
        if isinstance(codec, Codec):
            return without_nan(point_log_prob(model, points.astype(np.float32)), self.fitted.label)
        values = self.codec.decode(points)
        added = dequantisation(self.codec, points, values)
        inside = np.isfinite(added)
        log_p = np.full(len(points), -np.inf)
        if inside.any():
            rows = row_log_prob(model, codec.encode(values[inside]))
            log_p[inside] = rows - added[inside]
        return without_nan(log_p, self.fitted.label)


def closed_form(fitted: Fitted) -> MixtureForm | CountedForm | None:
    """The model where it is conditioned in closed form: a Gaussian mixture, or cells; None for any other.

    >>> import mulligan as mg
    >>> fitted = mg.fit(np.random.default_rng(0).normal(size=(300, 2)), "histogram", effort="quick")
    >>> type(closed_form(fitted)).__name__
    'CountedForm'
    """
    if not isinstance(fitted.codec, Codec):
        return None
    return mixture_form(fitted.model) or counted_form(fitted.model)


def space_of(fitted: Fitted, seed: int = 0) -> Space:
    """Where a fitted model is conditioned; made once a model.

    Raises UsageError for a model of p(others | given), for pictures and tables of more than 64 coordinates, and for a model
    that cannot be drawn from.
    """
    if (kept := fitted.__dict__.get("_space")) is not None:
        return kept
    refuse_conditional(fitted)
    if not isinstance(fitted.model, Sampler):
        raise UsageError(f"{fitted.label} cannot be drawn from, so no proposal can be learned")
    form = closed_form(fitted)
    space = _learned_space(fitted, seed) if form is None else Space(fitted, fitted.codec, form, True)  # type: ignore[arg-type]
    fitted.__dict__["_space"] = space
    return space


def refuse_conditional(fitted: Fitted) -> None:
    """Raises UsageError for a model that was fitted with ``given``."""
    if isinstance(fitted.codec, ConditionalCodec):
        why = f"It has p(other columns | {', '.join(fitted.given)}), not the law of all columns"
        raise UsageError(f"{fitted.label} is conditional already", why=why, do="fit it without --given")


def _learned_space(fitted: Fitted, seed: int) -> Space:
    density = isinstance(fitted.model, Density)
    if fitted.codec.dim > MOST_COORDINATES:
        why = "A Gaussian mixture is no proposal for so many: no weight would be worth anything"
        raise UsageError(
            f"{fitted.label} has {fitted.codec.dim} coordinates; expected at most {MOST_COORDINATES}", why=why
        )
    n, latents = PROPOSAL_DRAWS if density else POOL, None
    if isinstance(fitted.model, GAN):
        latents = np.random.default_rng([seed, 617]).standard_normal((n, fitted.model.latent))
        drawn = generated(fitted.model, latents)
    else:
        drawn = draw(fitted.model, n, seed + 7919)
    rows = fitted.codec.decode(drawn)  # type: ignore[call-arg]
    if isinstance(fitted.codec, Codec):
        codec, points = fitted.codec, drawn.astype(np.float64)
    else:
        codec = fit_codec(Table(fitted.schema, rows, Source("draws")))
        points = codec.encode(rows, 1).points[:, 0]
    return Space(
        fitted,
        codec,
        proposal(points[:PROPOSAL_DRAWS]),
        False,
        None if density else points,
        None if density else latents,
    )


def proposal(points: np.ndarray, parts: int = PARTS, seed: int = 0) -> MixtureForm:
    """A Gaussian mixture fitted to points (n, d) by EM, with one wide part for the tails.

    >>> proposal(np.random.default_rng(0).normal(size=(200, 2)), parts=2).means.shape
    (3, 2)
    """
    points = points[np.isfinite(points).all(axis=1)]
    parts = max(1, min(parts, len(points) // (10 * points.shape[1] + 10)))
    seeded = seeded_state(points, parts, parts, np.random.default_rng(seed))
    start = MixtureState(*(np.asarray(leaf, float) for leaf in seeded))  # type: ignore[arg-type]
    rows = incomplete_rows(points)
    found = climb(lambda state: mixture_step(state, rows, "full", 1e-4), start, 40, 1e-3).state
    weights = np.append((1 - WIDE) * np.asarray(found.weights), WIDE)
    d = points.shape[1]
    whole = 4 * np.cov(points.T).reshape(d, d) + 1e-3 * np.eye(d)
    means = np.concatenate([np.asarray(found.means), points.mean(axis=0)[None]])
    factors = np.concatenate([np.asarray(found.choleskys), np.linalg.cholesky(whole)[None]])
    return MixtureForm(np.log(np.maximum(weights, 1e-300)), means, factors)


def without_nan(log_p: np.ndarray, label: str) -> np.ndarray:
    """The log densities; DataError where one is NaN or +∞, for which no weight would be true.

    >>> without_nan(np.array([-1.0, -np.inf]), "a model").tolist()
    [-1.0, -inf]
    """
    wrong = np.isnan(log_p) | (log_p == np.inf)
    if wrong.any():
        why = "Points that the evidence leaves open were tried, and the model gives no number there"
        what = f"log p of {label} is NaN or infinite at {int(wrong.sum()):,} of {wrong.size:,} points"
        raise DataError(what, why=why, do="another seed or family, or a narrower range")
    return log_p
