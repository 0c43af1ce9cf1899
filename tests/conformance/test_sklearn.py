"""``mulligan.sklearn``: scikit-learn's own checks, and what a person expects of a density estimator."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import check_estimator

from mulligan.errors import NoDensity, UsageError
from mulligan.sklearn import GenerativeModel

RNG = np.random.default_rng(5)
X = np.concatenate([RNG.normal(-2, 0.5, (60, 2)), RNG.normal(2, 1.0, (60, 2))])
SMALL = {
    "gaussian": GenerativeModel("gaussian"),
    "kde": GenerativeModel("kde", options={"kernel": "spherical"}),
    "mixture": GenerativeModel("mixture", effort="quick", options={"parts": 2, "covariance": "full", "restarts": 1}),
}
UNWEIGHTED = dict.fromkeys(
    ("check_sample_weight_equivalence_on_dense_data", "check_sample_weights_not_overwritten"),
    "the family cannot weigh rows and says so",
)


@pytest.mark.parametrize("family", SMALL)
def test_scikit_learn_accepts_it(family):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        check_estimator(SMALL[family])


@pytest.mark.slow
def test_scikit_learn_accepts_a_network():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        check_estimator(GenerativeModel("flow", effort="quick", steps=5), expected_failed_checks=UNWEIGHTED)


@pytest.mark.parametrize(
    ("family", "options"),
    [
        ("gaussian", {}),
        ("kde", {"bandwidth": 0.4, "kernel": "spherical"}),
        ("kde", {"bandwidth": 0.4, "kernel": "full"}),
        ("mixture", {"parts": 1, "covariance": "full"}),
    ],
)
def test_a_weight_of_two_is_the_row_twice(family, options):
    counts = np.random.default_rng(1).integers(0, 4, len(X))
    weighted = GenerativeModel(family, options=options, random_state=0).fit(X, sample_weight=counts)
    repeated = GenerativeModel(family, options=options, random_state=0).fit(np.repeat(X, counts, axis=0))
    plain = GenerativeModel(family, options=options, random_state=0).fit(X)
    assert np.allclose(weighted.score_samples(X), repeated.score_samples(X), atol=2e-4)
    assert not np.allclose(weighted.score_samples(X), plain.score_samples(X), atol=2e-3)  # weights that are ignored


def test_all_rows_are_fitted():
    model = GenerativeModel("gaussian").fit(X)
    residual = X - X.mean(0)
    covariance = residual.T @ residual / len(X)
    distance = np.einsum("ni,ij,nj->n", residual, np.linalg.inv(covariance), residual)
    exact = -0.5 * distance - 0.5 * np.linalg.slogdet(2 * np.pi * covariance)[1]
    assert np.allclose(model.score_samples(X), exact, atol=1e-3)
    assert np.isclose(model.score(X), exact.mean(), atol=1e-3)
    kde = GenerativeModel("kde", random_state=0).fit(X)
    assert len(kde.fitted_.model.whitened) == len(X) and len(kde.choices_) > 5


def test_grid_search_finds_the_two_clouds_in_a_pipeline():
    base = GenerativeModel("mixture", effort="quick", random_state=0)
    grid = [{"parts": k, "covariance": "full", "restarts": 1} for k in (1, 2)]
    search = GridSearchCV(
        make_pipeline(StandardScaler(), base), {"generativemodel__options": grid}, cv=3, error_score="raise"
    )
    search.fit(np.random.default_rng(0).permutation(X))
    assert search.best_params_["generativemodel__options"]["parts"] == 2
    assert clone(base).get_params() == base.get_params()


def test_names_seeds_and_saving(tmp_path):
    import pandas

    frame = pandas.DataFrame(X, columns=["width", "height"])
    model = GenerativeModel("gaussian", random_state=3).fit(frame)
    assert list(model.feature_names_in_) == ["width", "height"] == list(model.fitted_.schema.names)
    assert np.array_equal(model.sample(5), model.sample(5)) and model.sample(5).shape == (5, 2)
    assert np.array_equal(model.sample(5, random_state=1), model.sample(5, random_state=1))
    assert not np.array_equal(model.sample(5, random_state=1), model.sample(5, random_state=2))
    model.fitted_.save(tmp_path / "model")
    with pytest.raises(ValueError, match="feature names"):
        model.score_samples(frame[["height", "width"]])


def test_a_weighted_kernel_density_is_saved_whole(tmp_path):
    from mulligan.workbench.artifact import load

    model = GenerativeModel("kde", options={"bandwidth": 0.4}, random_state=0).fit(X, sample_weight=np.arange(1, 121))
    again = load(model.fitted_.save(tmp_path / "model"))
    assert np.array_equal(again.log_prob(X[:5]), model.score_samples(X[:5]))
    drawn = model.sample(2000, random_state=0)
    assert (drawn[:, 0] > 0).mean() > 0.65  # the second cloud has three quarters of the weight


def test_what_cannot_be_is_said():
    with pytest.raises(UsageError, match="cannot weigh rows"):
        GenerativeModel("flow").fit(X, sample_weight=np.arange(len(X)))
    with pytest.raises(UsageError, match="validation_fraction"):
        GenerativeModel(validation_fraction=2.0).fit(X)
    with pytest.raises(NoDensity):
        GenerativeModel("resample").fit(X).score_samples(X)
