"""Draws of any log density, by samplers that say when they fail: ``mulligan.sample_density``.

A log density is known up to a constant; the constant is log Z, which only samplers with a ladder find. Every result has a
verdict (``measures.diagnosis``): draws are not handed out without it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from mulligan.catalog import near
from mulligan.errors import MulliganError, UsageError
from mulligan.samplers.path import StandardNormal
from mulligan.samplers.reference import EvenStates
from mulligan.workbench.drawing import INSIDE, METHODS, Settings, WarmUp, draw_plain
from mulligan.workbench.rungs import draw_by_ladder, draws_of
from mulligan.workbench.talk import Talk
from mulligan.workbench.target import Target, check_logarithm, make_target, usable_starts
from mulligan.workbench.verdicts import DensityComparison, DensitySamples

SAMPLERS = tuple(METHODS)
REFERENCE_SD = 3.0
LEAST_CANDIDATES = 256  # of starts: some may lie outside the support


class Around(eqx.Module):
    """The reference N(centre, sd² I): normalised log density, and draws.

    >>> q = Around(jnp.ones(2), 3.0)
    >>> round(float(q(jnp.ones(2))), 4)
    -4.0351
    """

    centre: Float[Array, " d"]
    sd: Float[Array, ""] = eqx.field(converter=jnp.asarray)

    def __call__(self, x: Float[Array, " d"]) -> Float[Array, ""]:
        return StandardNormal(self.centre.size, self.sd)(x - self.centre)

    def sample(self, key: PRNGKeyArray) -> Float[Array, " d"]:
        """One draw (d,)."""
        return self.centre + StandardNormal(self.centre.size, self.sd).sample(key)


class _Given(eqx.Module):
    """A density of this library as a reference."""

    of: Any

    def __call__(self, x: Array) -> Array:
        return self.of.log_prob(x)

    def sample(self, key: PRNGKeyArray) -> Array:
        return self.of.sample(key)


def sample_density(
    log_density: Any,
    dim: int | None = None,
    *,
    start: Any = None,
    bounds: Any = None,
    sampler: str | Sequence[str] | None = None,
    chains: int = 16,
    draws: int = 1000,
    warm_up: int | WarmUp = 500,
    thin: int = 1,
    seed: int = 0,
    reference: Any = None,
    step_size: float | None = None,
    acceptance: float | None = None,
    leapfrogs: int = 10,
    rungs: int | None = None,
    inside: str = "hmc",
    modes: bool = True,
    talk: Talk | None = None,
) -> Any:
    """Draws of p(x) = exp(log_density(x))/Z, a ``DensitySamples``; of several samplers a ``DensityComparison``.

    Arguments: ``log_density`` of one position, ``"file.py:function"`` or a law's name; ``dim``, the length of a vector
    position, or ``start``, one position (any pytree of arrays), with ``bounds`` (low, high; None is open) like it.
    ``sampler``: a name of ``SAMPLERS`` or a list (default nuts; gibbs for discrete laws). ``chains`` of ``draws`` each,
    every ``thin``-th kept, after ``warm_up`` steps, or with the ``.warm_up`` of an earlier result. ``reference``: where
    chains start and the ladder begins, an sd (default 3: N(start, 3² I) on the flat z) or a density of this library.
    ``step_size`` in place of the adapted one; ``acceptance`` to adapt to, in place of the textbook's; ``leapfrogs`` of HMC;
    ``rungs`` and the kernel ``inside`` of tempering.

    Raises UsageError for a log density that cannot be sampled (its shape, NaN, no gradient, a density in its place),
    FitError where the sampler broke down before its first draw; a list of samplers notes such failures instead.

    >>> s = sample_density(lambda x: -0.5 * jnp.sum(x**2), 1, sampler="hmc", chains=8, draws=400, warm_up=200)
    >>> s.verdict, s.draws.shape
    ('ok', (8, 400, 1))
    """
    target = make_target(log_density, dim, start, bounds)
    several = sampler is not None and not isinstance(sampler, str)
    names = _names(sampler, target)
    steps = 0 if isinstance(warm_up, WarmUp) else warm_up
    sizes = Settings(chains, draws, steps, thin, step_size, acceptance, leapfrogs, rungs, inside)
    settings = _settings(target, sizes)
    towards = _reference(reference, target)
    key_start, key_run = jax.random.split(jax.random.key(seed))
    candidates = np.asarray(draws_of(towards, jax.random.split(key_start, max(LEAST_CANDIDATES, 4 * chains))))
    check_logarithm(target, candidates, seed)
    results: dict[str, DensitySamples] = {}
    failed: dict[str, MulliganError] = {}
    for index, name in enumerate(names, 1):
        if talk is not None:
            talk.family_begins(name, index, len(names))
        method = METHODS[name]
        by_gradient = method.by_gradient and not (method.ladder and inside == "random-walk") and not target.discrete
        starts = usable_starts(target, candidates, chains, by_gradient)
        again = warm_up if isinstance(warm_up, WarmUp) else None
        key = jax.random.fold_in(key_run, list(METHODS).index(name))  # the same draws beside other samplers or alone
        try:
            if method.ladder:
                drawn = draw_by_ladder(name, target, towards, starts, settings, key, again, talk)
            else:
                drawn = draw_plain(name, target, starts, settings, key, again, talk)
        except MulliganError as error:
            if not several:
                raise
            failed[name] = error
            continue
        size = float(np.median(np.abs(starts).max(axis=1)))
        results[name] = DensitySamples(name, target, drawn, seed, size, modes)
    return DensityComparison(target, results, failed) if several else results[names[0]]


def _names(sampler: Any, target: Target) -> list[str]:
    default = "gibbs" if target.discrete else "nuts"
    names = [default] if sampler is None else [sampler] if isinstance(sampler, str) else list(dict.fromkeys(sampler))
    if not names:
        raise UsageError("no sampler is named", do=f"sampler={default!r}")
    for name in names:
        if name not in METHODS:
            raise UsageError(f"no sampler '{name}'{near(name, METHODS)}", do=f"samplers: {', '.join(METHODS)}")
        method = METHODS[name]
        if not method.ladder and method.discrete != target.discrete:
            kind = "discrete" if target.discrete else "continuous"
            able = [n for n, m in METHODS.items() if m.ladder or m.discrete == target.discrete]
            raise UsageError(
                f"{name} is not for {kind} states, which {target.name} has", do=f"samplers: {', '.join(able)}"
            )
    return names


def _settings(target: Target, given: Settings) -> Settings:
    """The sizes, checked. Raises UsageError."""
    counts = {"chains": 1, "draws": 1, "thin": 1, "leapfrogs": 1, "warm_up": 0}
    for name, least in counts.items():
        value = getattr(given, name)
        if value < least:
            raise UsageError(f"{name} is {value}; expected at least {least}", do=f"{name}={getattr(Settings(), name)}")
    if given.rungs is not None and given.rungs < 2:
        raise UsageError(f"rungs is {given.rungs}; expected at least 2", do="leave it out: the barrier says how many")
    if given.step_size is not None and not 0 < given.step_size < float("inf"):
        raise UsageError(f"step_size is {given.step_size}; expected a number above 0", do="leave it out")
    if given.acceptance is not None and not 0 < given.acceptance < 1:
        raise UsageError(f"acceptance is {given.acceptance}; expected a number between 0 and 1", do="acceptance=0.9")
    if given.inside not in INSIDE:
        raise UsageError(f"no kernel '{given.inside}'{near(given.inside, INSIDE)}", do=f"inside: {', '.join(INSIDE)}")
    return replace(given, levels=target.levels, dim=target.dim)


def _reference(reference: Any, target: Target) -> Any:
    """The law where chains start and ladders begin, on the flat z."""
    if target.discrete:
        return EvenStates(target.levels, target.dim)
    if reference is not None and hasattr(reference, "log_prob") and hasattr(reference, "sample"):
        return _Given(reference)
    sd = REFERENCE_SD if reference is None else reference
    if not isinstance(sd, int | float) or not 0 < sd < float("inf"):
        do = "reference=3.0, or an object with log_prob and sample"
        raise UsageError(f"reference is {sd!r}; expected a standard deviation or a density", do=do)
    return Around(jnp.asarray(target.centre), jnp.asarray(float(sd)))
