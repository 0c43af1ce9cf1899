"""The gap-closing helpers of ``core``: a score from a density, an energy, or a noised score at one time."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

from mulligan.core import Energy, NoisedScore, Score, at_time, capabilities, score_of
from mulligan.targets.gaussian import Gaussian

POINT = jnp.asarray([0.3, -1.2])


class Bowl(Energy):
    """−log N(x; 0, I) up to a constant."""

    def energy(self, x):
        return 0.5 * x @ x


class NoisedBowl(NoisedScore):
    """The score of N(0, (1 + t) I)."""

    def score(self, x, t):
        return -x / (1 + t)


@pytest.mark.parametrize("model", [Gaussian(jnp.zeros(2), jnp.eye(2)), Bowl()])
def test_score_of_a_standard_normal_is_minus_x(model):
    score = score_of(model)
    assert isinstance(score, Score) and score_of(score) is score
    np.testing.assert_allclose(score.score(POINT), -POINT, rtol=1e-6)


def test_at_time_fixes_the_noise():
    np.testing.assert_allclose(at_time(NoisedBowl(), 0.5).score(POINT), -POINT / 1.5, rtol=1e-6)
    assert capabilities(NoisedBowl()) == ("NoisedScore",)


def test_what_has_no_score_is_refused():
    with pytest.raises(TypeError, match="neither score, log_prob nor energy"):
        score_of(object())
