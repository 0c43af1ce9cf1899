"""∫p by importance sampling: 1 for densities that are normalised, and seen where log p is off by a constant.

A check refuses at 4 standard errors, which a right density does once in 15 000 checks; a log p that is too high by log 1.2
stands ten or more standard errors away at these sizes.
"""

from __future__ import annotations

from dataclasses import replace

import jax.numpy as jnp
import numpy as np
import pytest
from saboteurs.normalisation import TimesConstant

import mulligan as mg
from mulligan.measures.normalisation import complaints, integral_of_model
from mulligan.quantity import Quantity
from mulligan.targets.gaussian import Gaussian
from mulligan.targets.named import law
from mulligan.workbench.assessment import _not_normalised

MODELS = {
    "a normal law in 3-D": lambda: Gaussian.from_covariance(jnp.zeros(3), jnp.diag(jnp.array([1.0, 4.0, 0.01]))),
    "separate clouds": lambda: law("eight-gaussians"),
    "a curve": lambda: law("banana"),
}


@pytest.mark.parametrize("name", MODELS)
def test_normalised_densities_pass_and_their_twins_do_not(name):
    model = MODELS[name]()
    found, wrong = integral_of_model(model, 3), integral_of_model(TimesConstant(model, 1.2), 3)
    assert found.kind == "estimate" and found.stderr < 0.05
    assert not complaints(found), f"{found}"
    assert len(complaints(wrong)) == 1 and "not normalised" in complaints(wrong)[0], f"{wrong}"
    assert wrong.value == pytest.approx(1.2 * found.value, rel=1e-5)  # the proposal does not look at log p


def test_the_error_covers():
    """Standardised by the stated error, 60 estimates of one law are standard normal: variance within 4.75 errors of 1."""
    model = MODELS["a curve"]()
    z = np.array([(found.value - 1) / found.stderr for found in (integral_of_model(model, s, 1024) for s in range(60))])
    assert abs(z.mean()) < 4.75 / np.sqrt(60), z.mean()
    assert abs(z.var() - 1) < 4.75 * np.sqrt(2 / 60), z.var()


def test_a_bound_may_be_below_and_not_above():
    below, above = (Quantity(v, "estimate", v - 0.04, v + 0.04, stderr=0.02) for v in (0.8, 1.2))
    assert complaints(below) and complaints(above)
    assert not complaints(below, bound=True) and complaints(above, bound=True)


def test_many_coordinates_have_none():
    assert integral_of_model(Gaussian(jnp.zeros(5), jnp.eye(5))).kind == "none"


@pytest.mark.parametrize("family", ["gaussian", "kde", "histogram"])
def test_the_health_of_a_fit_says_so(family):
    rows = np.random.default_rng(0).normal(size=(400, 2)) @ np.array([[1.0, 0.7], [0.0, 0.5]])
    fitted = mg.fit(rows, family, effort="quick")
    assert _not_normalised(fitted, True, 0) == []
    said = _not_normalised(replace(fitted, model=TimesConstant(fitted.model, 1.2)), True, 0)
    assert len(said) == 1 and "its log p is not normalised" in said[0]


def test_probabilities_are_not_asked():
    rows = np.random.default_rng(0).integers(0, 4, size=(300, 2))
    fitted = mg.fit({"a": rows[:, 0], "b": rows[:, 1]}, "gaussian", effort="quick")
    assert _not_normalised(replace(fitted, model=TimesConstant(fitted.model, 1.2)), True, 0) == []
