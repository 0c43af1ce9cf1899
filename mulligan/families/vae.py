"""``vae``: a variational autoencoder, by gradient on the ELBO or on IWAE-k; log p is a lower bound, IWAE-k with k stated.

The family has a codec of its own (one coordinate a column, nothing dequantised), so counts and categories have probabilities
given z. Weights are kept by the IWAE bound of the select rows, with few draws at a look and all of them at a choice. How far
the encoded rows are from the prior that samples start from is stated in ``health`` (``measures.latent``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, cast

import numpy as np

from mulligan.catalog import Effort
from mulligan.data.codec import Encoded
from mulligan.data.given import ConditionalCodec, fit_any_codec
from mulligan.data.native import NativeCodec
from mulligan.errors import UsageError
from mulligan.families.recipe import Fitting, Outcome, Recipe
from mulligan.families.training import SMALL, WIDE, Candidate, Learning, learn, training_rows
from mulligan.learners.gradient import Plan
from mulligan.measures.latent import active_units, aggregated_mismatch, annealed_log_prob, encoded_rows
from mulligan.measures.likelihood import row_log_prob
from mulligan.models.columns import columns_of
from mulligan.models.vae import VAE, make_vae
from mulligan.objectives.evidence import Evidence
from mulligan.quantity import mean_of_rows

# Width and depth of both networks on large tables, and on small ones.
SIZES: dict[Effort, tuple[tuple[int, int], tuple[int, int]]] = {
    "quick": ((64, 2), (32, 1)),
    "standard": ((64, 3), (32, 1)),
    "thorough": ((128, 4), (64, 2)),
}
WIDEST: dict[Effort, int] = {"quick": 128, "standard": 256, "thorough": 512}  # of tables with many columns
PLANS: dict[Effort, tuple[Plan, Plan]] = {
    "quick": (Plan(1000, batch=256, rate=5e-3), Plan(400, batch=256, rate=5e-3)),
    "standard": (Plan(6000, batch=256, rate=5e-3, patience=30), Plan(1500, batch=256, rate=5e-3)),
    "thorough": (Plan(30_000, batch=256, rate=2e-3, patience=30), Plan(5000, batch=256, rate=3e-3)),
}
# Of tables with many columns and rows, whose steps take longer and learn from fewer looks.
WIDE_DEPTH = 2
WIDE_LOOKED = 8  # draws at a look
WIDE_PLANS: dict[Effort, Plan] = {
    "quick": Plan(1000, batch=128, rate=2e-3),
    "standard": Plan(6000, batch=128, rate=2e-3, patience=30),
    "thorough": Plan(100_000, batch=128, rate=1e-3, patience=30),
}
DRAWS: dict[Effort, int] = {"quick": 100, "standard": 500, "thorough": 500}  # k of log p
IMPORTANCE = 8  # k of the objective, where it is not set
LOOKED = 32  # draws at a look, where only the order of the looks matters
LARGE_DECAYS = (0.01, 1.0)
SMALL_DECAYS = (0.3, 3.0, 0.03)
MATCHED = 2048  # rows whose posteriors are mixed
ANNEALED = 64  # rows whose log p is also found by annealing, at thorough effort


@dataclass(frozen=True)
class Design:
    """The options of the family, with None where the effort, the table or select decides."""

    effort: Effort
    latent: int | None
    width: int | None
    depth: int | None
    draws: int | None
    importance: int | None
    beta: float
    noise: str
    decay: float | None
    rate: float | None
    batch: int | None


def make(variant: str | None, effort: Effort, **options: Any) -> Recipe:
    """The recipe; sizes of None are the effort's, ``decay`` of None is searched on select.

    Raises UsageError for a β with IWAE-k, which has none.
    """
    design = Design(effort, **options)
    if design.beta != 1 and (design.importance or 1) > 1:
        raise UsageError(
            f"vae: beta={design.beta:g} with importance={design.importance}",
            why="only the ELBO has a KL to weight, and IWAE-k has none",
            do="importance=1, or beta=1",
        )
    return partial(fit, design=design)


def fit(fitting: Fitting, design: Design) -> Outcome:
    """Train, and keep the best on select."""
    given = fitting.codec.given_names if isinstance(fitting.codec, ConditionalCodec) else ()
    codec = fit_any_codec(fitting.train_rows, given, native=True)
    native = cast(NativeCodec, codec.inner if isinstance(codec, ConditionalCodec) else codec)
    small = fitting.rows < SMALL
    columns = columns_of(native)
    wide = not small and columns.dim >= WIDE
    sizes = SIZES[design.effort][small]
    plan = WIDE_PLANS[design.effort] if wide else PLANS[design.effort][small]
    plan = replace(plan, batch=design.batch or plan.batch, rate=design.rate or plan.rate)
    draws = design.draws or DRAWS[design.effort]
    importance = design.importance or (1 if design.beta != 1 else IMPORTANCE)
    width = design.width or int(np.clip(2 * columns.dim, sizes[0], max(sizes[0], WIDEST[design.effort])))
    depth = (WIDE_DEPTH if wide else sizes[1]) if design.depth is None else design.depth
    looked = min(draws, WIDE_LOOKED if wide else LOOKED)
    latent = design.latent or latent_size(columns.dim)
    build = partial(
        _fresh,
        columns=columns,
        latent=latent,
        width=width,
        depth=depth,
        draws=draws,
        noise=design.noise,
        given=codec.given_dim,
    )
    decays: Sequence[float] = SMALL_DECAYS if small else LARGE_DECAYS
    decays = (design.decay,) if design.decay is not None else decays[: 1 if design.effort == "quick" else None]
    candidates = [Candidate(f"decay={decay:g}", build, replace(plan, decay=decay)) for decay in decays]
    rows, objective = training_rows(fitting, codec, Evidence(importance, float(design.beta)))
    learning = Learning(
        "vae",
        candidates,
        objective,
        rows,
        codec.encode(fitting.select_rows.values),
        codec,
        normalise=lambda model, careful: replace(model, draws=draws if careful else looked),
        criterion="the bound of log p of the select rows",
    )
    network = f"{depth} layer{'s' * (depth != 1)} of {width}"
    outcome = learn(fitting, learning, f"vae ({latent} latent, {network}, IWAE-{draws})")
    outcome.health += matched(outcome.model, codec.encode(fitting.train_rows.values).thinned(1), fitting.seed)
    if design.effort == "thorough":
        outcome.health += annealed(outcome.model, learning.select, fitting.seed)
    return outcome


def latent_size(columns: int) -> int:
    """q where it is not set: as many as columns, from 2 to 32.

    >>> latent_size(1), latent_size(11), latent_size(784)
    (2, 11, 32)
    """
    return int(np.clip(columns, 2, 32))


def matched(model: VAE, rows: Any, seed: int) -> list[str]:
    """Sentences on the posteriors of (some of) the rows: their mixture against the prior, and how many units they use."""
    chosen = np.random.default_rng([seed, 2]).permutation(len(rows.points))[:MATCHED]
    means, log_sds = encoded_rows(model, rows.points[chosen, 0], None if rows.given is None else rows.given[chosen])
    mismatch = aggregated_mismatch(means, log_sds, seed)
    used = f"{active_units(means)} of {means.shape[1]} latent units are used"
    ends = "" if mismatch.low is None or mismatch.high is None else f"{mismatch.low:.2f} to {mismatch.high:.2f}"
    return [f"aggregated posterior against the prior: KL {ends or mismatch.value} nats; {used}"]


def annealed(model: VAE, select: Encoded, seed: int) -> list[str]:
    """A sentence on how much closer annealing comes to log p than the bound does, on the same select rows."""
    known = None if select.given is None else select.given[:ANNEALED]
    some = Encoded(select.points[:ANNEALED], select.log_jacobian[:ANNEALED], known)
    closer, acceptance = annealed_log_prob(model, some.points[:, 0], some.given, seed=seed)
    gain = mean_of_rows(closer + some.log_jacobian[:, 0] - row_log_prob(model, some), "lower bound")
    error = "" if gain.stderr is None else f" ± {gain.stderr:.3f}"
    rows = f"{len(closer)} select rows, acceptance {acceptance:.2f}"
    return [f"annealed importance sampling is {gain.value:.3f}{error} nats a row above IWAE-{model.draws} ({rows})"]


def _fresh(generator: np.random.Generator, columns: Any, **sizes: Any) -> VAE:
    return make_vae(columns, generator, **sizes)
