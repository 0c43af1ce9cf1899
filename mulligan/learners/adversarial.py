"""Learning by a game: each step the critic descends its loss, then the generator its own, against that critic.

Definition. One step deals its rows to K critic steps; each draws as many points from the generator and moves the critic's
weights ψ along −∂/∂ψ (loss + γ penalty); then the generator's weights θ move once along −∂/∂θ of its loss, with the last
rows and fresh draws. Both by Adam (Kingma and Ba 2015) with β₁ = 0 unless told and β₂ = .99: momentum makes a game circle
(Gidel et al. 2019), and without it Adam is the step of steady length that StyleGAN and its successors use (Karras et al.
2020). The critic's rate is ``pace`` times the generator's (two time scales: Heusel et al. 2017). What is kept and scored
is the exponential average of the weights (Yazıcı et al. 2019).

With the slope penalty γ the step is a contraction near the solution, and without it it is not: test
``test_the_penalised_game_settles`` (Mescheder, Geiger and Nowozin 2018).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from mulligan.core import Kernel, Law
from mulligan.learners.gradient import Minibatch, trainable
from mulligan.models.gan import GAN
from mulligan.objectives.adversarial import Duel, Game
from mulligan.objectives.likelihood import Rows

SECOND = 0.99  # β₂ of Adam
TINY = 1e-8
WIDEST = 100.0


class AdversarialState(NamedTuple):
    """Weights of generator and critic, their average, Adam's two moments of both, and the number of steps taken."""

    weights: Any
    averaged: Any
    first: Any
    second: Any
    rounds: Int[Array, ""]


class AdversarialDescent(Kernel):
    """One round of a game between the critic and the generator of a GAN; ``adversarial_descent`` makes it.

    Arguments: ``game``; ``frozen``, the model without its trainable arrays; ``rows`` (n, d); ``penalty`` γ, ``pace``,
    ``momentum`` β₁ and ``averaging`` as numbers; ``critic_steps`` K.
    """

    law: ClassVar[Law] = Law("none")
    game: Game = eqx.field(static=True)
    frozen: Any
    rows: Rows
    penalty: Float[Array, ""]
    pace: Float[Array, ""]
    momentum: Float[Array, ""]
    averaging: Float[Array, ""]
    critic_steps: int = eqx.field(static=True)

    def init(self, key: PRNGKeyArray, x: GAN) -> AdversarialState:
        """The state from which training a model starts; NumPy zeros, for each compiled fill would cost."""
        weights, _ = trainable(x)
        zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), weights)
        return AdversarialState(weights, weights, zeros, zeros, jnp.asarray(np.zeros((), np.int32)))

    def noise(self, key: PRNGKeyArray, state: AdversarialState) -> PRNGKeyArray:
        """The key of the latents and of the points where slopes are looked at."""
        return key

    def move(
        self, state: AdversarialState, noise: PRNGKeyArray, input: Minibatch
    ) -> tuple[AdversarialState, dict[str, Array]]:
        """K steps of the critic, one of the generator, and the average."""
        size = max(2, input.rows.shape[0] // self.critic_steps)  # of fewer draws no spread could be told
        rounds = jnp.arange(self.critic_steps), jnp.resize(input.rows, (self.critic_steps, size))

        def one(state: AdversarialState, scanned: tuple[Array, Array]) -> tuple[AdversarialState, Any]:
            k, rows = scanned
            return self._critic_step(state, jax.random.fold_in(noise, k), self._dealt(rows), self.pace * input.rate, k)

        state, told = jax.lax.scan(one, state, rounds)
        of_generator, last = jax.random.fold_in(noise, self.critic_steps), self._dealt(rounds[1][-1])
        state, norm = self._generator_step(state, of_generator, last, input.rate)
        told = {**jax.tree.map(lambda values: values[-1], told), "gradient_norm": norm}
        count = (state.rounds + 1).astype(self.averaging.dtype)
        keep = jnp.minimum(self.averaging, (1 + count) / (10 + count))
        averaged = jax.tree.map(lambda mean, w: mean + (1 - keep) * (w - mean), state.averaged, state.weights)
        return state._replace(averaged=averaged, rounds=state.rounds + 1), told

    def model(self, state: AdversarialState) -> GAN:
        """The model with the averaged weights."""
        return eqx.combine(state.averaged, self.frozen)

    def learning(self, state: AdversarialState) -> GAN:
        """The model with the weights as they are now."""
        return eqx.combine(state.weights, self.frozen)

    def _critic_step(
        self, state: AdversarialState, key: PRNGKeyArray, rows: Rows, rate: Array, k: Array
    ) -> tuple[AdversarialState, dict[str, Array]]:
        (points, given), (of_draws, of_penalty) = rows, jax.random.split(key)
        duel = Duel(points, draws_of(self.learning(state), of_draws, points.shape[0], given), given)

        def loss(critic: Any) -> tuple[Array, tuple[Array, Array]]:
            model = eqx.combine(_with(state.weights, "critic", critic), self.frozen)
            return critic_loss(self.game, model, duel, of_penalty, self.penalty)

        gradient, (value, slope) = jax.grad(loss, has_aux=True)(state.weights.critic)
        state = self._moved(state, "critic", gradient, rate, state.rounds * self.critic_steps + k + 1)
        spread = jnp.sum(jnp.var(duel.draws, axis=0)) / jnp.maximum(jnp.sum(self.frozen.factor**2), 1e-12)
        # minus the critic's estimate of the distance, so that it rises as other families' metric does
        return state, {"train": value - self.game.idle, "penalty": slope, "spread": spread}

    def _generator_step(
        self, state: AdversarialState, key: PRNGKeyArray, rows: Rows, rate: Array
    ) -> tuple[AdversarialState, Array]:
        def loss(network: Any) -> Array:
            model = eqx.combine(_with(state.weights, "network", network), self.frozen)
            return generator_loss(self.game, model, key, rows)

        gradient = jax.grad(loss)(state.weights.network)
        norm = jnp.sqrt(sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(gradient)))
        return self._moved(state, "network", gradient, rate, state.rounds + 1), norm

    def _dealt(self, index: Array) -> Rows:
        return jax.tree.map(lambda leaf: leaf[index], self.rows)

    def _moved(self, state: AdversarialState, side: str, gradient: Any, rate: Array, taken: Array) -> AdversarialState:
        """One step of Adam of one side; ``taken`` is the number of its steps, this one included."""
        times = taken.astype(self.momentum.dtype)
        first = jax.tree.map(
            lambda m, g: self.momentum * m + (1 - self.momentum) * g, getattr(state.first, side), gradient
        )
        second = jax.tree.map(lambda v, g: SECOND * v + (1 - SECOND) * g**2, getattr(state.second, side), gradient)
        scale = (1 - self.momentum**times, 1 - SECOND**times)
        weights = jax.tree.map(
            lambda w, m, v: w - rate * (m / scale[0]) / (jnp.sqrt(v / scale[1]) + TINY),
            getattr(state.weights, side),
            first,
            second,
        )
        return state._replace(
            weights=_with(state.weights, side, weights),
            first=_with(state.first, side, first),
            second=_with(state.second, side, second),
        )


@dataclass
class GameHealth:
    """A watch of ``AdversarialDescent``: over the last ``every`` steps, whether the draws shrank to a point or ran away.

    Sick is a variance of the draws below a hundredth, or above a hundred times, that of the start, which is the rows'.
    """

    every: int

    def __call__(self, step: int, state: Any, history: dict[str, np.ndarray]) -> str | None:
        spread = float(np.mean(history["spread"][-self.every :]))
        if 1 / WIDEST <= spread <= WIDEST:
            return None
        what = "shrank to a point" if spread < 1 else "ran away"
        return f"the draws {what} by step {step}: their variance is {spread:.3g} times that of the rows"


def critic_loss(
    game: Game, model: GAN, duel: Duel, key: PRNGKeyArray, penalty: Array
) -> tuple[Array, tuple[Array, Array]]:
    """The critic's loss plus γ times its penalty, and both apart.

    >>> from mulligan.models.gan import make_gan
    >>> from mulligan.objectives.adversarial import WASSERSTEIN
    >>> gan = make_gan(np.random.default_rng(0).normal(size=(9, 1)), np.random.default_rng(0), width=4)
    >>> duel = Duel(jnp.ones((3, 1)), jnp.ones((3, 1)))
    >>> float(critic_loss(WASSERSTEIN, gan, duel, jax.random.key(0), jnp.zeros(()))[0])  # no critic tells equals apart
    0.0
    """
    judge = jax.vmap(model.judged)
    value = game.critic(judge(duel.points, duel.given), judge(duel.draws, duel.given))
    slope = game.penalty(model.judged, duel, key)
    return value + penalty * slope, (value, slope)


def generator_loss(game: Game, model: GAN, key: PRNGKeyArray, rows: Rows) -> Array:
    """The generator's loss with fresh draws, as many as there are rows.

    >>> from mulligan.models.gan import make_gan
    >>> from mulligan.objectives.adversarial import NON_SATURATING
    >>> gan = make_gan(np.random.default_rng(0).normal(size=(9, 1)), np.random.default_rng(0), width=4)
    >>> generator_loss(NON_SATURATING, gan, jax.random.key(0), Rows(jnp.ones((3, 1)))).shape
    ()
    """
    judge = jax.vmap(model.judged)
    draws = draws_of(model, key, rows.points.shape[0], rows.given)
    return game.generator(judge(rows.points, rows.given), judge(draws, rows.given))


def draws_of(model: GAN, key: PRNGKeyArray, n: int, given: Array | None) -> Float[Array, "n d"]:
    """n draws, one for each row of ``given``; the latents are one array of random numbers.

    >>> from mulligan.models.gan import make_gan
    >>> gan = make_gan(np.random.default_rng(0).normal(size=(9, 2)), np.random.default_rng(0), width=4)
    >>> draws_of(gan, jax.random.key(0), 5, None).shape
    (5, 2)
    """
    z = jax.random.normal(key, (n, model.latent), model.mean.dtype)
    return jax.vmap(model.generated)(z, given)


def adversarial_descent(
    game: Game,
    model: GAN,
    rows: Rows,
    *,
    penalty: float,
    critic_steps: int = 1,
    pace: float = 1.0,
    momentum: float = 0.0,
    averaging: float = 0.999,
) -> AdversarialDescent:
    """The kernel that trains a GAN on rows.

    >>> from mulligan.models.gan import make_gan
    >>> from mulligan.objectives.adversarial import NON_SATURATING
    >>> gan = make_gan(np.random.default_rng(0).normal(size=(9, 1)), np.random.default_rng(0), width=4)
    >>> kernel = adversarial_descent(NON_SATURATING, gan, Rows(jnp.ones((9, 1))), penalty=0.1)
    >>> state, info = kernel.step(jax.random.key(0), kernel.init(None, gan), Minibatch(jnp.arange(4), jnp.asarray(0.1)))
    >>> int(state.rounds)
    1
    """
    _, frozen = trainable(model)
    numbers = (jnp.asarray(np.float32(number)) for number in (penalty, pace, momentum, averaging))
    weight, quicker, kept, share = numbers
    rows = jax.tree.map(jnp.asarray, rows)
    return AdversarialDescent(game, frozen, rows, weight, quicker, kept, share, critic_steps)


def _with(weights: Any, side: str, part: Any) -> Any:
    return eqx.tree_at(lambda tree: getattr(tree, side), weights, part)
