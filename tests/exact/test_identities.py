"""The identities of the tutorial hold on the library's own objects, and every planted mistake is refused.

The same functions are what ``mulligan verify`` prints. Three seeds draw three sets of data; ``--seed-offset`` shifts them.
"""

from __future__ import annotations

import json
import math
from dataclasses import replace

import jax.numpy as jnp
import numpy as np
import pytest
from saboteurs.identities import TWINS

from mulligan.errors import UsageError
from mulligan.lab.identities.phenomena import PHENOMENA
from mulligan.lab.identity import (
    CHAPTERS,
    Check,
    Identity,
    excess,
    find_identity,
    identities,
    mean_and_error,
    monte_carlo,
    order,
    rounding,
    run_identity,
    slope,
    to_json,
)

EVERYTHING = {identity.id: identity for identity in (*identities(), *PHENOMENA)}
MUTANTS = [(identity.id, name) for identity in EVERYTHING.values() for name in identity.mutants]


def told(check: Check, seed: int) -> str:
    """What a failing test prints: the evidence, and one line that repeats it."""
    return f"{check}\nrepeat: run_identity({check.id!r}, seed={seed})"


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("id", EVERYTHING)
def test_holds(request, id, seed):
    seed += request.config.getoption("--seed-offset")
    check = run_identity(id, seed)
    assert check.verdict == "holds", told(check, seed)
    assert check.level == EVERYTHING[id].level


@pytest.mark.parametrize(("id", "mutant"), MUTANTS, ids=lambda part: part.replace(" ", "-"))
def test_planted_mistake_is_refused(request, id, mutant):
    seed = request.config.getoption("--seed-offset")
    check = run_identity(id, seed, mutant)
    assert check.verdict == "fails", told(check, seed)


@pytest.mark.parametrize(
    ("id", "wrong", "parts"), TWINS, ids=[f"{id}-{wrong.replace(' ', '-')}" for id, wrong, _ in TWINS]
)
def test_broken_object_is_refused(request, id, wrong, parts):
    seed = request.config.getoption("--seed-offset")
    check = run_identity(replace(EVERYTHING[id], mutants={wrong: parts}), seed, wrong)
    assert check.verdict == "fails", told(check, seed)


# --- the catalogue ----------------------------------------------------------------------------------------------------


def test_ids_and_chapters():
    assert [identity.id for identity in identities()] == sorted(
        (identity.id for identity in identities()),
        key=[identity.id for c in CHAPTERS for identity in identities(c)].index,
    )
    assert len(EVERYTHING) == len(identities()) + len(PHENOMENA)
    prefixes = {1: {"density"}, 2: {"mle"}, 3: {"ebm"}, 4: {"cd", "em"}, 5: {"game"}, 6: {"nce"}}
    prefixes |= {7: {"langevin", "mala", "hmc"}, 8: {"tempering", "annealing"}, 9: {"diffusion"}, 10: {"relation"}}
    for identity in EVERYTHING.values():
        assert identity.id.split(".")[0] in prefixes[identity.chapter]
        assert identity.statement and identity.mutants
        assert find_identity(identity.id) is identity


def test_the_theory_page_is_covered():
    promised = {
        *("density.joint", "density.marginal", "density.conditional", "density.factorization", "density.expectation"),
        *("density.consistency", "density.curse", "density.cause", "mle.kl", "mle.generalization", "mle.covering"),
        *("mle.chasing", "mle.projection", "cd.gradient", "cd.below", "em.above", "em.monotone", "cd.bias"),
        *("ebm.log_z", "ebm.gradient", "ebm.matching", "ebm.gibbs", "ebm.stein"),
        *("game.value", "game.wasserstein", "game.jensen_shannon", "nce.posterior", "nce.log_z", "nce.efficiency"),
        *("langevin.limit", "langevin.stationary", "langevin.squeeze", "langevin.diffuse"),
        *("mala.exact", "hmc.reversible", "hmc.smooth"),
        *("tempering.slow", "tempering.swap", "annealing.ais", "annealing.crooks"),
        *("diffusion.jump", "diffusion.halves", "diffusion.reverse_ode", "diffusion.reverse_sde", "diffusion.fisher"),
        *("diffusion.robust", "diffusion.vincent", "diffusion.tweedie", "diffusion.denoising"),
        *("diffusion.parametrizations", "diffusion.posterior_gaussian", "diffusion.kl_chain", "diffusion.two_views"),
        *("diffusion.ode_likelihood", "relation.autoregressive", "relation.flow", "relation.vae", "relation.ebm"),
        *("relation.one_stroke", "relation.one_stroke.holes", "relation.guided"),
    }
    assert promised <= set(EVERYTHING)
    experiments = {"density.curse", "mle.chasing", "hmc.smooth", "tempering.slow"}
    experiments |= {"diffusion.robust.ode", "relation.one_stroke.holes", "relation.guided"}
    assert experiments <= {experiment.id for experiment in PHENOMENA}


@pytest.mark.parametrize("call", [lambda: find_identity("density.jiont"), lambda: run_identity("density.jiont")])
def test_unknown_id_names_the_nearest(call):
    with pytest.raises(UsageError, match=r"density\.joint"):
        call()


def test_unknown_mutant_names_those_there_are():
    with pytest.raises(UsageError, match="not divided by the cell's area"):
        run_identity("density.joint", mutant="none such")
    with pytest.raises(UsageError, match="1, 2, 3, 4, 5, 6, 7, 8, 9, 10"):
        identities(99)


def test_an_identity_without_mutant_is_refused():
    with pytest.raises(ValueError, match="no mutant"):
        Identity("x.y", 1, "1 = 1", "rounding", lambda seed: rounding({"": (1, 1)}), {})


def test_same_seed_same_result_and_float32_afterwards():
    assert run_identity("mle.kl.sample", 5) == run_identity("mle.kl.sample", 5)
    assert run_identity("mle.kl.sample", 5).left != run_identity("mle.kl.sample", 6).left
    assert jnp.zeros(()).dtype == jnp.float32


# --- the three levels -------------------------------------------------------------------------------------------------


def test_rounding_reports_the_worst_pair():
    check = rounding({"near": ([1.0, 2.0], [1.0, 2.0 + 1e-12]), "far": (np.ones((2, 2)), [[1.0, 1.0], [0.5, 1.0]])})
    assert (check.left, check.right, check.difference) == (1.0, 0.5, 0.5)
    assert (check.place, check.compared, check.verdict) == ("far", 6, "fails")
    assert rounding({"": (1.0, 1.0 + 0.9e-9)}).verdict == "holds"
    assert rounding({"": (1.0, 1.0 + 1.1e-9)}).verdict == "fails"
    assert rounding({"": (3, 3)}, tolerance=0.0).verdict == "holds"
    assert rounding({"": (3, 4)}, tolerance=0.0).verdict == "fails"


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_fails(bad):
    assert rounding({"good": (1.0, 1.0), "bad": (bad, bad)}).verdict == "fails"
    assert monte_carlo({"good": (9.0, 9.0, 1.0), "bad": (bad, 1.0, 1.0)}).verdict == "fails"
    assert monte_carlo({"error": (1.0, 1.0, bad)}).verdict == "fails"
    assert order({"bad": ([1, 2, 4], [1.0, bad, 3.0], 1.0)}).verdict == "fails"
    assert math.isnan(slope([1, 2], [0.0, 1.0]))
    found = json.dumps(to_json(rounding({"bad": (bad, 1.0)})), allow_nan=False)
    assert json.loads(found)["left"] is None


def test_a_comparison_of_nothing_is_refused():
    with pytest.raises(ValueError, match="without a comparison"):
        rounding({})


def test_monte_carlo_stops_at_4_75_standard_errors():
    assert monte_carlo({"": (4.74, 0.0, 1.0)}).verdict == "holds"
    assert monte_carlo({"": (-4.76, 0.0, 1.0)}).verdict == "fails"
    worst = monte_carlo({"large, sure": (3.0, 0.0, 2.0), "small, surer": (0.1, 0.0, 0.01)})
    assert (worst.place, worst.error) == ("small, surer", 0.01)


def test_order_allows_a_tenth():
    steps = np.array([1.0, 0.5, 0.25])
    assert order({"": (steps, steps**2.09, 2.0)}).verdict == "holds"
    assert order({"": (steps, steps**2.11, 2.0)}).verdict == "fails"
    assert order({"": (steps, steps**2.03, 2.0)}, deviation=0.02).verdict == "fails"


def test_excess_and_mean():
    assert excess([2.0, math.nan], 1.0)[0] == 1.0
    assert math.isnan(excess(math.nan, 1.0))
    mean, error = mean_and_error(np.array([[1.0, 0.0], [3.0, 0.0]]))
    assert mean.tolist() == [2.0, 0.0]
    assert error.tolist() == [1.0, 0.0]


def test_json_has_the_promised_keys():
    found = to_json(run_identity("density.marginal"))
    assert list(found) == ["id", "left", "right", "difference", "error", "verdict", "level"]
    assert (found["id"], found["verdict"], found["level"]) == ("density.marginal", "holds", "rounding")
