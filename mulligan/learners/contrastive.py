"""Learning by contrast: each step draws negatives, from chains or from a noise law, and takes one step of Adam.

Definition. The chains are part of the state, so a run is resumed with them. In one step: the chains move K times under the
model as it is now, from where they start (``persistent``: where they were, Tieleman 2008; ``data``: the rows of the step,
CD-K, Hinton 2002; ``noise``: fresh draws of q, short-run, Nijkamp et al. 2019; ``replay``: where they were but for a share
that starts anew, Du and Mordatch 2019); with several rungs they are tempered, with exchange. Then the weights move up
E_data[∂f] − E_chains[∂f]. For noise-contrastive estimation the negatives are fresh draws of a noise law.

Chains that persist also jump: of M − 1 fresh draws of q and the chain itself one is chosen with probability proportional
to exp f, which keeps p (``samplers.sampled``). Without it chains that cannot cross from mode to mode never report that a
mode has too much weight, and f drifts. Chains are Metropolis-adjusted Langevin, their step size led to an acceptance of
.574 unless it is set; so a chain cannot run away. Where the chains lag behind (an energy gap above 1 over the last steps)
the rate falls in proportion, and they catch up. What remains to watch is that they move at all, and that the gap does not
grow all the same (``ChainHealth``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from mulligan.core import Kernel, Law
from mulligan.learners.gradient import GradientDescent, GradientState, Minibatch
from mulligan.loop import repeat
from mulligan.models.energy import EnergyModel
from mulligan.objectives.contrastive import Contrast
from mulligan.objectives.noise_contrastive import Chase, NoiseContrast
from mulligan.samplers.langevin import MetropolisLangevin
from mulligan.samplers.many import Many
from mulligan.samplers.path import Path
from mulligan.samplers.tempering import swap_probability

Start = Literal["persistent", "data", "noise", "replay"]

TARGET, GAIN = 0.574, 0.1  # acceptance of adjusted Langevin (Roberts and Rosenthal 1998), and how fast the step follows
LAGGING, FADING = 1.0, 0.1  # energy gap above which learning waits for the chains; share of a step in its average
LARGEST_GAP, LEAST_ACCEPTANCE, WIDEST = 50.0, 0.05, 100.0


class ContrastiveState(NamedTuple):
    """``descent``: weights, averages, moments. ``chains`` (n, rungs, d); ``log_step`` the log of their step size.

    ``lag`` is an average of |energy gap| over recent steps: how far the chains are behind.
    """

    descent: GradientState
    chains: Float[Array, "n r d"]
    log_step: Float[Array, ""]
    lag: Float[Array, ""]


class ContrastiveDescent(Kernel):
    """One step of maximum likelihood with negatives from ``chains`` many Markov chains; ``contrastive_loss`` is descended.

    Arguments: ``descent``, made by ``gradient_descent`` with that loss on rows with ``points`` (n, d); ``betas`` (rungs,)
    rising to 1 (one rung: [1.0]); ``step_size`` Δt to begin with; ``restart`` the share of chains that starts anew
    (``replay``); ``start``, ``steps`` K, ``adapted``; ``candidates`` M of a jump at the beginning of each step, 1 for none.
    """

    law: ClassVar[Law] = Law("none")
    descent: GradientDescent
    betas: Float[Array, " r"]
    step_size: Float[Array, ""]
    restart: Float[Array, ""]
    start: Start = eqx.field(static=True)
    steps: int = eqx.field(static=True)
    chains: int = eqx.field(static=True)
    adapted: bool = eqx.field(static=True)
    candidates: int = eqx.field(static=True, default=1)

    def init(self, key: PRNGKeyArray, x: EnergyModel) -> ContrastiveState:
        """Chains at draws of the reference."""
        draws = _draw(x.reference, key, self.chains * self.betas.shape[0])
        chains = draws.reshape(self.chains, self.betas.shape[0], -1)
        return ContrastiveState(
            self.descent.init(key, x), chains, jnp.log(self.step_size), jnp.zeros_like(self.step_size)
        )

    def noise(self, key: PRNGKeyArray, state: ContrastiveState) -> PRNGKeyArray:
        """The key of the starts, the chains and the swaps."""
        return key

    def move(self, state: ContrastiveState, noise: PRNGKeyArray, input: Minibatch) -> tuple[ContrastiveState, Any]:
        """Chains first, then the weights."""
        of_start, of_chains, of_swap, of_loss = jax.random.split(noise, 4)
        model, batch = self.descent.learning(state.descent), self.descent.batch(input)
        chains = self._starts(state.chains, of_start, model, batch.points)
        if self.candidates > 1:
            chains = _jumped(chains, jax.random.fold_in(of_start, 1), model, self.candidates)
        chains, acceptance = self._moved(chains, of_chains, model, jnp.exp(state.log_step))
        if chains.shape[1] > 1:
            chains = _swapped(chains, of_swap, Path(model.f, model.log_q), self.betas)
        negatives = chains[:, -1]
        rate = input.rate * jnp.minimum(1.0, LAGGING / jnp.maximum(state.lag, 1e-6))
        descent, info = self.descent.update(state.descent, of_loss, Contrast(batch.points, negatives), rate)
        lag = state.lag + FADING * (jnp.abs(info["train"]) - state.lag)
        log_step = state.log_step + (GAIN * (acceptance - TARGET) if self.adapted else 0.0)
        spread = jnp.mean(jnp.var(negatives, axis=0)) / jnp.maximum(jnp.mean(jnp.var(batch.points, axis=0)), 1e-12)
        told = {"acceptance": acceptance, "step_size": jnp.exp(log_step), "spread": spread}
        return ContrastiveState(descent, chains, log_step, lag), {**info, **told}

    def model(self, state: ContrastiveState) -> EnergyModel:
        """The model with the averaged weights."""
        return self.descent.model(state.descent)

    def _starts(self, chains: Array, key: PRNGKeyArray, model: EnergyModel, points: Array) -> Array:
        if self.start == "persistent":
            return chains
        if self.start == "data":
            rows = points[jnp.arange(chains.shape[0]) % points.shape[0]]
            return jnp.broadcast_to(rows[:, None], chains.shape)
        of_draws, of_choice = jax.random.split(key)
        fresh = _draw(model.reference, of_draws, chains.shape[0] * chains.shape[1]).reshape(chains.shape)
        if self.start == "noise":
            return fresh
        anew = jax.random.uniform(of_choice, chains.shape[:1]) < self.restart
        return jnp.where(anew[:, None, None], fresh, chains)

    def _moved(self, chains: Array, key: PRNGKeyArray, model: EnergyModel, step_size: Array) -> tuple[Array, Array]:
        def rung(positions: Array, beta: Array, key: PRNGKeyArray) -> tuple[Array, Array]:
            # A flatter law takes longer steps: about 1/β, up to four times.
            size = step_size / jnp.maximum(beta, 0.25)
            kernel = Many(MetropolisLangevin(Path(model.f, model.log_q, beta), size))
            state, info = repeat(kernel, key, kernel.init(key, positions), self.steps)
            return state.position, jnp.mean(info.acceptance)

        keys = jax.random.split(key, self.betas.shape[0])
        moved, acceptance = jax.vmap(rung, in_axes=(1, 0, 0), out_axes=(1, 0))(chains, self.betas, keys)
        return moved, acceptance[-1]


class NoiseDescent(Kernel):
    """One step of noise-contrastive estimation: ``ratio`` fresh draws of ``noise`` a row; the loss of ``descent`` is NCE's.

    ``own`` says that the noise is the model's reference, whose density then cancels.
    """

    law: ClassVar[Law] = Law("none")
    descent: GradientDescent
    noise_law: Any
    ratio: int = eqx.field(static=True)
    own: bool = eqx.field(static=True)

    def init(self, key: PRNGKeyArray, x: EnergyModel) -> GradientState:
        """That of the descent."""
        return self.descent.init(key, x)

    def noise(self, key: PRNGKeyArray, state: GradientState) -> PRNGKeyArray:
        """The key of the draws."""
        return key

    def move(self, state: GradientState, noise: PRNGKeyArray, input: Minibatch) -> tuple[GradientState, Any]:
        """Draw noise, then one update."""
        of_draws, of_loss = jax.random.split(noise)
        model, points = self.descent.learning(state), self.descent.batch(input).points
        drawn = _draw(self.noise_law, of_draws, self.ratio * points.shape[0])
        if self.own:
            offsets = jnp.zeros(points.shape[0], points.dtype), jnp.zeros(drawn.shape[0], points.dtype)
        else:
            log_ratio = jax.vmap(lambda x: model.log_q(x) - self.noise_law.log_prob(x))
            offsets = log_ratio(points), log_ratio(drawn)
        return self.descent.update(state, of_loss, NoiseContrast(points, drawn, *offsets), input.rate)

    def model(self, state: GradientState) -> EnergyModel:
        """The model with the averaged weights."""
        return self.descent.model(state)


class ChaseState(NamedTuple):
    """``descent`` of the model and ``noise`` of the flow that chases it."""

    descent: GradientState
    noise: GradientState


class ChaseDescent(Kernel):
    """One step of noise contrast and one of its noise: the flow is made harder to tell from the data (Gao et al. 2020).

    ``descent`` is that of the model (``noise_contrastive_loss``), ``chase`` that of the flow (``chasing_loss``), ``flow``
    where it starts; ``pace`` is its rate over the model's.
    """

    law: ClassVar[Law] = Law("none")
    descent: GradientDescent
    chase: GradientDescent
    flow: Any
    pace: Float[Array, ""]
    ratio: int = eqx.field(static=True)

    def init(self, key: PRNGKeyArray, x: EnergyModel) -> ChaseState:
        """Both as they start."""
        return ChaseState(self.descent.init(key, x), self.chase.init(key, self.flow))

    def noise(self, key: PRNGKeyArray, state: ChaseState) -> PRNGKeyArray:
        """The key of the latents."""
        return key

    def move(self, state: ChaseState, noise: PRNGKeyArray, input: Minibatch) -> tuple[ChaseState, Any]:
        """Draw from the flow, move the model, then the flow."""
        of_draws, of_loss = jax.random.split(noise)
        points = self.descent.batch(input).points
        model, flow = self.descent.learning(state.descent), self.chase.learning(state.noise)
        latents = jax.random.normal(of_draws, (self.ratio * points.shape[0], points.shape[1]), points.dtype)
        drawn = jax.vmap(lambda z: flow.from_latent(z)[0])(latents)
        log_ratio = jax.vmap(lambda x: model.log_q(x) - flow.log_prob(x))
        batch = NoiseContrast(points, drawn, log_ratio(points), log_ratio(drawn))
        descent, info = self.descent.update(state.descent, of_loss, batch, input.rate)
        pursuit = Chase(points, latents, model)
        chased, _ = self.chase.update(state.noise, of_loss, pursuit, self.pace * input.rate)
        return ChaseState(descent, chased), info

    def model(self, state: ChaseState) -> EnergyModel:
        """The model with the averaged weights."""
        return self.descent.model(state.descent)


@dataclass
class ChainHealth:
    """A watch of ``ContrastiveDescent``: looks at the last ``every`` steps, and says what is wrong and what to do.

    Sick is an energy gap |f(data) − f(chains)| above 50, an acceptance below .05, or chains a hundred times as wide as
    the data.
    """

    every: int

    def __call__(self, step: int, state: Any, history: dict[str, np.ndarray]) -> str | None:
        gap, acceptance, spread = (
            float(np.mean(history[name][-self.every :])) for name in ("train", "acceptance", "spread")
        )
        if abs(gap) > LARGEST_GAP:
            return (
                f"the energy gap is {gap:.3g} at step {step} (healthy: below {LARGEST_GAP:g}), the chains do not follow"
            )
        if acceptance < LEAST_ACCEPTANCE:
            return (
                f"the chains stand still at step {step}: {acceptance:.1%} of their moves are accepted (healthy: 57 %)"
            )
        if spread > WIDEST:
            return f"the chains run away at step {step}: their variance is {spread:.3g} times that of the data"
        return None


def _draw(law: Any, key: PRNGKeyArray, n: int) -> Array:
    return jax.vmap(law.sample)(jax.random.split(key, n))


def _jumped(chains: Array, key: PRNGKeyArray, model: EnergyModel, candidates: int) -> Array:
    """Every chain chooses between itself and fresh draws of the reference; of one rung, at β = 1."""
    of_draws, of_choice = jax.random.split(key)
    n, _, d = chains.shape
    fresh = _draw(model.reference, of_draws, n * (candidates - 1)).reshape(n, candidates - 1, d)
    pool = jnp.concatenate([chains, fresh], axis=1)
    chosen = jax.random.categorical(of_choice, jax.vmap(jax.vmap(model.f))(pool))
    return pool[jnp.arange(n), chosen][:, None]


def _swapped(chains: Array, key: PRNGKeyArray, path: Path, betas: Array) -> Array:
    """One round of exchanges between neighbouring rungs, of even or of odd pairs by a coin (each keeps the product law)."""
    of_coin, of_swap = jax.random.split(key)
    probability = jax.vmap(swap_probability, in_axes=(None, None, 0))(path, betas, chains)  # (n, r − 1)
    parity = jax.random.bernoulli(of_coin).astype(jnp.int32)
    active = (jnp.arange(betas.shape[0] - 1) % 2) == parity
    swap = (jax.random.uniform(of_swap, probability.shape) < probability) & active
    up = jnp.pad(swap, ((0, 0), (0, 1)))[..., None]  # rung i takes the position of i + 1
    down = jnp.pad(swap, ((0, 0), (1, 0)))[..., None]
    return jnp.where(up, jnp.roll(chains, -1, axis=1), jnp.where(down, jnp.roll(chains, 1, axis=1), chains))
