"""Chapter 1, counting: the joint density does not say what would happen if x were set.

Definition. Where z chooses x and changes y, p(y | do x) = Σ_z p(y|x,z) p(z) (the g-formula, or adjustment), which equals
inverse-probability weighting E[1(y) 1(x)/p(x|z)] and differs from p(y|x) = Σ_z p(y|x,z) p(z|x).
Identity: ``density.cause``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mulligan.lab.identity import Check, Identity, rounding
from mulligan.loop import compile_small
from mulligan.targets.counting import Histogram

# Charig et al. 1986: counts by stone (small, large), treatment (A, B) and outcome (failure, success).
_KIDNEY_STONES = np.array([[[6, 81], [36, 234]], [[71, 192], [25, 55]]])
# The same stones, but a coin chooses the treatment.
_TOSSED = np.array([[[1, 3], [2, 2]], [[2, 2], [1, 3]]]) * np.array([714, 686])[:, None, None]


class _Study(NamedTuple):
    """What the joint of (z, x, y) says by counting: p(x, y, z), p(z), p(y|x,z), p(x|z), p(z|x), p(y|x)."""

    joint: Any  # (z, x, y)
    stone: Any  # (z,)
    outcome: Any  # (z, x, y)
    chosen: Any  # (z, x)
    stone_given: Any  # (x, z)
    plain: Any  # (x, y)


@compile_small
def _study(law: Histogram) -> _Study:
    two = jnp.arange(2.0)
    each = lambda h: jax.vmap(h)(two)  # noqa: E731
    return _Study(
        law.joint,
        law.marginal([0]).joint,
        each(lambda z: each(lambda x: law.conditional([0, 1], jnp.stack([z, x])).joint)),
        each(lambda z: law.conditional([0], z).marginal([0]).joint),
        each(lambda x: law.conditional([1], x).marginal([0]).joint),
        each(lambda x: law.conditional([1], x).marginal([1]).joint),
    )


def _counted(histogram: Any, counts: np.ndarray) -> _Study:
    """The study of a table of counts, as a histogram with unit cells around the integers."""
    law = histogram([np.arange(size + 1) - 0.5 for size in counts.shape], counts)
    return _Study(*(np.asarray(part) for part in _study(law)))


def _adjusted(study: _Study) -> np.ndarray:
    """Σ_z p(y|x,z) p(z), (x, y)."""
    return np.einsum("zxy,z->xy", study.outcome, study.stone)


def _adjusted_by_the_treated(study: _Study) -> np.ndarray:
    """A planted mistake: p(z|x) in place of p(z), which is p(y|x) again."""
    return np.einsum("zxy,xz->xy", study.outcome, study.stone_given)


def _weighted(study: _Study) -> np.ndarray:
    """E[1(y) 1(x)/p(x|z)], (x, y)."""
    return (study.joint / study.chosen[:, :, None]).sum(axis=0)


def _weighted_by_the_margin(study: _Study) -> np.ndarray:
    """A planted mistake: the weight 1/p(x) in place of 1/p(x|z)."""
    return (study.joint / study.joint.sum(axis=(0, 2))[None, :, None]).sum(axis=0)


def _cause(
    seed: int, *, histogram: Any = Histogram, adjust: Callable = _adjusted, weigh: Callable = _weighted
) -> Check:
    """The g-formula is inverse-probability weighting, and is not p(y|x).

    What separates it from p(y|x) is Σ_z p(y|x,z)(p(z) − p(z|x)); where a coin chooses x, nothing does. In the study of
    kidney stones the two disagree about which treatment is better (Simpson's paradox). A seed adds a few patients.
    """
    extra = np.random.default_rng(seed).integers(0, 3, _KIDNEY_STONES.shape) if seed else 0
    study, tossed = _counted(histogram, _KIDNEY_STONES + extra), _counted(histogram, _TOSSED)
    g_formula = adjust(study)
    confounding = np.einsum("zxy,xz->xy", study.outcome, study.stone - study.stone_given)
    better = [study.plain[0, 1] < study.plain[1, 1], g_formula[0, 1] > g_formula[1, 1]]
    return rounding(
        {
            "g-formula, weighting": (g_formula, weigh(study)),
            "g-formula − p(y|x)": (g_formula - study.plain, confounding),
            "a coin chooses": (adjust(tossed), tossed.plain),
            "the better treatment": (np.array(better, float), 1.0),
        }
    )


IDENTITIES = (
    Identity(
        "density.cause",
        1,
        "Σ_z p(y|x,z) p(z) = E[1(y) 1(x)/p(x|z)] ≠ p(y|x)",
        "rounding",
        _cause,
        {
            "p(z|x) in place of p(z)": {"adjust": _adjusted_by_the_treated},
            "weights 1/p(x) in place of 1/p(x|z)": {"weigh": _weighted_by_the_margin},
        },
        "Robins 1986; Pearl 1995; counts of Charig et al. 1986",
    ),
)
