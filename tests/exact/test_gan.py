"""Generative adversarial networks: their games, the alternation, what they are chosen by, and that they have no density.

Oracles: the best critic log p/g of two finite laws; the Dirac game (Mescheder, Geiger and Nowozin 2018), whose field around
its solution is known in closed form; the alternation of a linear generator and a linear critic, by hand in NumPy; the
energy distance on a line, 2 ∫ (F − G)².
"""

from __future__ import annotations

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from saboteurs.gan import CRITICS, DISTANCES, GAMES, MOVES, SLOPES
from shared_fits import fitted, table

import mulligan as mg
from mulligan.cli import main
from mulligan.core import Density, capabilities, score_of
from mulligan.data.codec import Encoded
from mulligan.errors import NoDensity, UsageError
from mulligan.families.gan import Nearness
from mulligan.families.training import count_parameters
from mulligan.learners.adversarial import GameHealth, adversarial_descent, draws_of
from mulligan.learners.gradient import Minibatch, trainable
from mulligan.loop import compile_small
from mulligan.measures.energy_distance import energy_distance, mean_distance
from mulligan.models.gan import GAN, make_gan
from mulligan.nets.mlp import MLP
from mulligan.objectives.adversarial import NON_SATURATING, PAIRED, WASSERSTEIN, Duel, unit_slope
from mulligan.objectives.likelihood import Rows

# --- the model --------------------------------------------------------------------------------------------------------


def test_the_draws_start_with_the_moments_of_the_rows():
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(300, 3)) @ rng.normal(size=(3, 3)) + [1.0, 0.0, -2.0]
    gan = make_gan(rows, rng, latent=5, width=4)
    z = rng.normal(size=(7, 5)).astype(np.float32)
    draws = np.asarray(jax.vmap(gan.generated)(jnp.asarray(z)))
    assert np.allclose(draws, np.asarray(gan.mean) + z @ np.asarray(gan.factor).T, atol=1e-5)
    assert np.allclose(gan.mean, rows.mean(axis=0), atol=1e-5)
    assert np.allclose(np.asarray(gan.factor) @ np.asarray(gan.factor).T, np.cov(rows.T, bias=True), rtol=1e-4)
    # fewer latents than columns: the first principal axes
    narrow = np.asarray(make_gan(rows, rng, latent=2, width=4).factor)
    singular = np.linalg.svd((rows - rows.mean(axis=0)) / np.sqrt(len(rows)))[1]
    assert narrow.shape == (3, 2) and np.allclose(np.linalg.svd(narrow)[1], singular[:2], rtol=1e-4)


def test_it_is_a_sampler_and_nothing_else():
    gan = make_gan(np.random.default_rng(0).normal(size=(50, 2)), np.random.default_rng(0), width=4)
    assert capabilities(gan) == ("Sampler",) and not isinstance(gan, Density) and not hasattr(gan, "log_prob")
    with pytest.raises(TypeError, match="neither score, log_prob nor energy"):
        score_of(gan)
    learned = [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(trainable(gan)[0])]
    assert learned and all(path.startswith((".network", ".critic")) for path in learned)
    assert count_parameters(gan) == sum(
        a * b + b for a, b in ((8, 4), (4, 4), (4, 4), (4, 2), (2, 4), (4, 4), (4, 4), (4, 1))
    )


# --- the games --------------------------------------------------------------------------------------------------------

P, G = np.array([3, 1, 4]), np.array([2, 5, 1])  # eighths: two laws of three points


def best_critic(critic):
    """Whether c* = log p/g is the best critic, with loss 2 log 2 − 2 JS."""
    rows, draws = np.repeat(np.arange(3), P), np.repeat(np.arange(3), G)
    c = jnp.asarray(np.log(P / G))
    value, slope = jax.value_and_grad(lambda c: critic(c[rows], c[draws]))(c)
    p, g = P / 8, G / 8
    m = (p + g) / 2
    js = 0.5 * (p @ np.log(p / m) + g @ np.log(g / m))
    return abs(float(value) - (2 * np.log(2) - 2 * js)) < 1e-12 and np.abs(slope).max() < 1e-12


def test_the_best_critic_is_the_log_ratio():
    with jax.enable_x64(True):
        assert best_critic(NON_SATURATING.critic)
        assert not any(best_critic(critic) for critic in CRITICS)
        # where row and draw have one law, an idle critic is best; its loss is the game's ``idle``
        same = np.arange(3)
        for game in (NON_SATURATING, PAIRED, WASSERSTEIN):
            flat = jnp.full(3, 0.7 if game is not NON_SATURATING else 0.0)
            value, slope = jax.value_and_grad(lambda c, game=game: game.critic(c[same], c[same]))(flat)
            assert abs(float(value) - game.idle) < 1e-12 and np.abs(slope).max() < 1e-12


PENALTY = 0.3


def field_matrix(game, penalty):
    """The Dirac game: data at 0, draws at θ, critic ψ x. Derivative of (−∂θ generator's, −∂ψ critic's loss) at 0."""

    def velocity(at):
        theta, psi = at
        rows, draws = jnp.zeros((1, 1)), theta[None, None]

        def critics(psi):
            slope = game.penalty(lambda x, given: psi * x[0], Duel(rows, draws), jax.random.key(0))
            return game.critic(psi * rows[:, 0], psi * draws[:, 0]) + (penalty * slope if penalty else 0.0)

        generators = jax.grad(lambda t: game.generator(psi * rows[:, 0], psi * jnp.stack([t])))(theta)
        return -jnp.stack([generators, jax.grad(critics)(psi)])

    return np.asarray(jax.jacfwd(velocity)(jnp.zeros(2)))


def settles_as_stated(game, name):
    """x' = A x: A = [[0, a], [−a, −2γ]] with a = ½ of a logistic game and 1 of Wasserstein's (there without penalty)."""
    a, penalty = (1.0, 0.0) if name == "wasserstein" else (0.5, PENALTY)
    return np.abs(field_matrix(game, penalty) - [[0, a], [-a, -2 * penalty]]).max() < 1e-12


def test_the_penalised_game_settles():
    games = {"non-saturating": NON_SATURATING, "paired": PAIRED, "wasserstein": WASSERSTEIN}
    with jax.enable_x64(True):
        for name, game in games.items():
            assert settles_as_stated(game, name), name
        for fault, (name, game) in GAMES.items():
            assert not settles_as_stated(game, name), fault
        for game in (NON_SATURATING, PAIRED):
            assert np.linalg.eigvals(field_matrix(game, PENALTY)).real.max() < -0.1
            assert abs(np.linalg.eigvals(field_matrix(game, 0.0)).real.max()) < 1e-12  # it circles for ever


def slopes_as_stated(penalty):
    """D(x) = |x|²/2 has slope |x|; two pairs, on the line and through the plane."""
    duel = Duel(jnp.array([[2.0, 0.0], [0.0, 1.0]]), jnp.array([[0.0, 0.0], [0.5, 3.0]]))
    key = jax.random.key(3)
    u = np.asarray(jax.random.uniform(key, (2, 1)))
    between = u * np.asarray(duel.points) + (1 - u) * np.asarray(duel.draws)
    wanted = np.mean((np.linalg.norm(between, axis=1) - 1) ** 2)
    return abs(float(penalty(lambda x, given: 0.5 * jnp.sum(x**2), duel, key)) - wanted) < 1e-5


def test_unit_slopes_are_asked_for_between_rows_and_draws():
    assert slopes_as_stated(unit_slope)
    assert not any(slopes_as_stated(penalty) for penalty in SLOPES)


# --- the alternation --------------------------------------------------------------------------------------------------


def by_hand(kernel, gan, batch, keys, momentum, pace, penalty):
    """Rounds of the non-saturating game with a linear generator and a linear critic of one column, in float64."""
    sigmoid = lambda t: 1 / (1 + np.exp(-t))  # noqa: E731
    mean, factor = float(gan.mean[0]), np.asarray(gan.factor, float)[0]
    a, b = np.asarray(gan.network.weights[0], float)[0].copy(), np.asarray(gan.network.biases[0], float).copy()
    w, c = np.asarray(gan.critic.weights[0], float)[0].copy(), np.asarray(gan.critic.biases[0], float).copy()
    sides = {"generator": [a, b], "critic": [w, c]}
    moments = {side: [(np.zeros_like(p), np.zeros_like(p)) for p in parts] for side, parts in sides.items()}
    taken = {"generator": 0, "critic": 0}
    average = [part.copy() for part in (a, b, w, c)]

    def adam(side, gradients, rate):
        taken[side] += 1
        for i, gradient in enumerate(gradients):
            first, second = moments[side][i]
            first, second = momentum * first + (1 - momentum) * gradient, 0.99 * second + 0.01 * gradient**2
            moments[side][i] = first, second
            ups = first / (1 - momentum ** taken[side]), second / (1 - 0.99 ** taken[side])
            sides[side][i] -= rate * ups[0] / (np.sqrt(ups[1]) + 1e-8)

    def latents(key, n):
        return np.asarray(jax.random.normal(key, (n, gan.latent)), float)

    x = np.asarray(kernel.rows.points, float)[:, 0]
    for step, key in enumerate(keys):
        size = len(batch.rows) // kernel.critic_steps
        for k in range(kernel.critic_steps):
            real = x[np.asarray(batch.rows)[k * size : (k + 1) * size]]
            z = latents(jax.random.split(jax.random.fold_in(key, k))[0], size)
            fake = mean + z @ (factor + a) + b
            on_real, on_fake = -sigmoid(-(w[0] * real + c)), sigmoid(w[0] * fake + c)
            slopes = np.array([np.mean(on_real * real) + np.mean(on_fake * fake) + penalty * 2 * w[0]])
            adam("critic", [slopes, np.array([np.mean(on_real) + np.mean(on_fake)])], pace * float(batch.rate))
        z = latents(jax.random.fold_in(key, kernel.critic_steps), size)
        fake = mean + z @ (factor + a) + b
        pull = -sigmoid(-(w[0] * fake + c)) * w[0]
        adam("generator", [(pull[:, None] * z).mean(axis=0), np.array([pull.mean()])], float(batch.rate))
        keep = min(0.9, (2 + step) / (11 + step))
        for mean_of, part in zip(average, (a, b, w, c)):
            mean_of += (1 - keep) * (part - mean_of)
    return [a, b, w, c, *average]


def test_a_round_is_the_one_of_the_definition():
    rng = np.random.default_rng(1)
    rows = Rows(jnp.asarray(rng.normal(1.0, 2.0, (12, 1)), jnp.float32))
    gan = make_gan(rows.points, rng, latent=2, depth=0)
    network = MLP((jnp.array([[0.3, -0.2]]),), (jnp.array([0.5]),))
    gan = GAN(gan.mean, gan.factor, network, MLP((jnp.array([[0.4]]),), (jnp.array([-0.1]),)))
    numbers = {"penalty": 0.2, "pace": 0.5, "momentum": 0.3}
    kernel = adversarial_descent(NON_SATURATING, gan, rows, critic_steps=2, averaging=0.9, **numbers)
    batch = Minibatch(jnp.asarray(rng.permutation(12)[:8]), jnp.asarray(0.05))
    keys = jax.random.split(jax.random.key(4), 3)
    wanted = by_hand(kernel, gan, batch, keys, numbers["momentum"], numbers["pace"], numbers["penalty"])

    def found(move):
        @compile_small
        def rounds(kernel, state, keys, batch):
            return jax.lax.scan(lambda state, key: (move(kernel, state, key, batch)[0], None), state, keys)[0]

        state = rounds(kernel, jax.tree.map(jnp.asarray, kernel.init(None, gan)), keys, batch)
        leaves = [jax.tree.leaves((part.network, part.critic)) for part in (state.weights, state.averaged)]
        return np.concatenate([np.ravel(leaf) for part in leaves for leaf in part])

    expected = np.concatenate(wanted)
    assert np.allclose(found(type(kernel).move), expected, atol=2e-5)
    for twin in MOVES:
        assert not np.allclose(found(twin), expected, atol=2e-4), twin.__name__


def test_every_row_is_dealt_once_and_small_batches_go_round():
    gan = make_gan(np.zeros((3, 1)) + np.arange(3)[:, None], np.random.default_rng(0), depth=0)
    kernel = adversarial_descent(WASSERSTEIN, gan, Rows(jnp.arange(3.0)[:, None]), penalty=1.0, critic_steps=5)
    state, told = kernel.step(jax.random.key(0), kernel.init(None, gan), Minibatch(jnp.arange(3), jnp.asarray(0.1)))
    assert all(np.isfinite(np.asarray(leaf)).all() for leaf in jax.tree.leaves((state, told)))
    assert draws_of(gan, jax.random.key(0), 4, None).shape == (4, 1)


def test_sick_games_are_told():
    watch = GameHealth(2)
    assert watch(4, None, {"spread": np.array([0.0, 0.0, 1.0, 1.2])}) is None
    assert "shrank to a point" in watch(4, None, {"spread": np.array([1.0, 1.0, 0.0, 0.001])})
    assert "ran away" in watch(4, None, {"spread": np.array([1.0, 1.0, 1e3, 1e3])})


# --- what it is chosen by ---------------------------------------------------------------------------------------------


def distance_as_stated(distance):
    """On a line D² = 2 ∫ (F − G)², less what the unbiased estimate leaves out: points compared with themselves."""
    rng = np.random.default_rng(2)
    for shift in (0.0, 100.0):
        x, y = rng.normal(size=(40, 1)), shift + rng.normal(size=(30, 1))
        both = np.sort(np.concatenate([x, y])[:, 0])
        cdf = [np.searchsorted(np.sort(z[:, 0]), both[:-1], "right") / len(z) for z in (x, y)]
        area = 2 * np.sum(np.diff(both) * (cdf[0] - cdf[1]) ** 2)
        itself = mean_distance(x) / len(x) + mean_distance(y) / len(y)
        if abs(distance(x, y) - (area - itself)) > 1e-4:
            return False
    return True


def test_energy_distance_on_a_line():
    assert distance_as_stated(energy_distance)
    assert not any(distance_as_stated(distance) for distance in DISTANCES)
    assert np.isnan(energy_distance(np.zeros((3, 1)), np.full((3, 1), np.nan)))
    assert abs(energy_distance(np.zeros((9, 2)) + 1e4, np.zeros((9, 2)) + 1e4)) < 1e-3


def test_what_is_nearer_to_the_select_rows_is_preferred():
    rng = np.random.default_rng(3)
    rows = rng.normal(size=(500, 2))
    given = rng.normal(size=(500, 1))
    gan = make_gan(rows, rng, width=4)
    away = GAN(gan.mean + 0.5, gan.factor, gan.network, gan.critic)
    narrow = GAN(gan.mean, 0.5 * gan.factor, gan.network, gan.critic)
    judge = Nearness(Encoded(rows[:, None], np.zeros((500, 1))), seed=0)
    near = judge(gan, False)
    assert abs(near) < 0.02 and judge(gan, False) == near
    assert judge(away, False) < near - 0.05 and judge(narrow, False) < near - 0.05
    assert np.isnan(judge(GAN(gan.mean * jnp.nan, gan.factor, gan.network, gan.critic), False))
    # beside what they are given: draws that ignore it are as far as their dependence is strong
    beside = Nearness(Encoded((rows + 2 * given)[:, None], np.zeros((500, 1)), given), seed=0)
    knows = make_gan(rows, rng, latent=2, depth=0, given=1)
    knows = GAN(knows.mean, knows.factor, MLP((jnp.array([[0, 0, 2.0], [0, 0, 2.0]]),), (jnp.zeros(2),)), knows.critic)
    deaf = make_gan(rows + 2 * given, rng, latent=2, depth=0, given=1)
    assert abs(beside(knows, True)) < 0.02 and beside(deaf, True) < -0.04


# --- no density, said at every door -----------------------------------------------------------------------------------


def test_no_door_gives_a_density(tmp_path, capsys):
    model, rows = fitted("gan:non-saturating", "plane"), table("plane")
    assert model.log_prob_kind == "none" and model.capabilities == ("Sampler",) and model.calibration.size == 0
    for door in (model.log_prob, model.evaluate, model.score):
        with pytest.raises(NoDensity, match="no log density"):
            door(rows)
    folder = model.save(tmp_path / "gan")
    again = mg.load(folder)
    assert np.array_equal(again.sample(50, seed=3).values, model.sample(50, seed=3).values)
    with pytest.raises(NoDensity):
        again.log_prob(rows)
    assert main(["log-prob", str(folder), "banana", "--json"]) == 2
    assert "no log density" in capsys.readouterr().err
    assert main(["sample", str(folder), "-n", "3", "--json"]) == 0
    capsys.readouterr()
    assert main(["show", str(folder), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)


def test_pairs_are_of_the_logistic_game_only():
    with pytest.raises(UsageError, match="pairing pairs"):
        mg.fit(table("plane"), "gan:wasserstein", pairing="pairs", effort="quick", steps=1)
    assert mg.fit(table("plane"), "gan", pairing="pairs", effort="quick", steps=2).label.startswith("gan (paired")


@pytest.mark.slow
@pytest.mark.parametrize("label", ["gan:non-saturating", "gan:wasserstein"])
def test_eight_of_eight_holes(label):
    rows = mg.read("eight-gaussians", rows=10_000)
    row = mg.fit(rows, label, budget="60s").card["row"]
    assert row["holes"]["found"] == 8 and row["log_prob"]["kind"] == "none"
