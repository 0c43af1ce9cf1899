"""Learning a restricted Boltzmann machine: contrastive divergence, persistent chains, tempered chains, the exact gradient.

Definition. ∇_θ E_data log p_θ(v) = E_data[−∇F_θ(v)] − E_p[−∇F_θ(v)] (``ebm.gradient``). The second mean, the negative
phase, is over states of chains of block Gibbs sampling: started anew at the rows of the step and stopped after k sweeps
(CD-k, Hinton 2002), going on from step to step (PCD, Tieleman 2008), or at several inverse temperatures that swap states,
of which those at β = 1 are used (Desjardins, Courville, Bengio, Vincent and Delalleau 2010). Where a layer is enumerable
log Z and so the gradient are exact. Serves ``ebm.gradient``, ``cd.bias``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from mulligan.core import Kernel, Law
from mulligan.learners.gradient import GradientDescent, GradientState, Minibatch
from mulligan.loop import compile_small, repeat
from mulligan.models.boltzmann import CentredMachine, Parameters, log_partition, negative_free_energy
from mulligan.objectives.contrastive import Contrast
from mulligan.objectives.likelihood import Rows
from mulligan.samplers.gibbs import BlockGibbs, BoltzmannPath
from mulligan.samplers.many import Many
from mulligan.samplers.tempering import ParallelTempering

LEAST_MOVEMENT = 1e-3  # of that of independent draws, below which chains are called frozen
INITIAL_SCALE = 0.05  # of the weights: hidden units differ, and are far from saturated


class BoltzmannState(NamedTuple):
    """What is learned, and the state of the chains (None for CD, which starts them anew)."""

    learned: GradientState
    chains: Any


class BoltzmannDescent(Kernel):
    """One step of Adam with chains for the negative phase; ``boltzmann_descent`` makes it.

    ``base`` a (n,) are the logits of the reference at β = 0; ``betas`` (K,) rise from 0 to 1, None without tempering;
    ``sweeps`` are made a step. ``count`` chains go on from step to step; none: they start at the step's rows.
    """

    law: ClassVar[Law] = Law("none")
    descent: GradientDescent
    base: Float[Array, " n"]
    betas: Float[Array, " K"] | None
    sweeps: int = eqx.field(static=True)
    count: int = eqx.field(static=True)

    def init(self, key: PRNGKeyArray, x: CentredMachine) -> BoltzmannState:
        """Adam's state, and chains that start at draws of the reference."""
        return BoltzmannState(self.descent.init(key, x), _reference_chains(self, key, x) if self.count else None)

    def noise(self, key: PRNGKeyArray, state: BoltzmannState) -> PRNGKeyArray:
        """The chains' randomness."""
        return key

    def move(self, state: BoltzmannState, noise: PRNGKeyArray, input: Minibatch) -> tuple[BoltzmannState, Any]:
        """The chains, then one update. ``info``: the gap ``train``, ``movement``, ``swaps`` accepted (1 without)."""
        rows = self.descent.batch(input).points
        sampler = self.sampler(self.descent.learning(state.learned).parameters())
        start = sampler.init(noise, rows) if state.chains is None else state.chains
        chains, moves = repeat(sampler, noise, start, self.sweeps)
        before, negatives = positions(start), positions(chains)
        learned, info = self.descent.update(state.learned, noise, Contrast(rows, negatives), input.rate)
        swaps = jnp.ones((), negatives.dtype) if self.betas is None else jnp.mean(moves.swap_acceptance)
        info = {**info, "movement": movement(before, negatives), "swaps": swaps}
        return BoltzmannState(learned, None if state.chains is None else chains), info

    def sampler(self, parameters: Parameters) -> Kernel:
        """The chains' kernel at these parameters; all states of it are states at others, for nothing cached is used."""
        gibbs = BlockGibbs(BoltzmannPath(*parameters, self.base))
        return Many(gibbs if self.betas is None else ParallelTempering(gibbs, self.betas))

    def model(self, state: BoltzmannState) -> CentredMachine:
        """The machine with the averaged weights."""
        return self.descent.model(state.learned)


@compile_small
def _reference_chains(kernel: BoltzmannDescent, key: Any, machine: CentredMachine) -> Any:
    rungs = () if kernel.betas is None else kernel.betas.shape
    shape = (kernel.count, *rungs, kernel.base.shape[0])
    on = jax.random.uniform(key, shape, kernel.base.dtype) < jax.nn.sigmoid(kernel.base)
    return kernel.sampler(machine.parameters()).init(key, on.astype(kernel.base.dtype))


def positions(chains: Any) -> Float[Array, "chains n"]:
    """The visible states at β = 1."""
    return jax.vmap(lambda state: state.position)(chains)


def exact_loss(machine: CentredMachine, key: PRNGKeyArray, batch: Rows) -> tuple[Float[Array, ""], dict[str, Any]]:
    """−mean log p of the rows with log Z summed over the states of the smaller layer; its negative is ``train``.

    >>> machine = CentredMachine(jnp.zeros((2, 1)), jnp.zeros(2), jnp.zeros(1), jnp.zeros(2))
    >>> round(float(exact_loss(machine, jax.random.key(0), Rows(jnp.ones((3, 2))))[0]), 4)
    1.3863
    """
    parameters = machine.parameters()
    log_f = jax.vmap(lambda v: negative_free_energy(parameters, v))(batch.points)
    mean = jnp.mean(log_f) - log_partition(parameters)
    return -mean, {"train": mean}


def boltzmann_descent(
    descent: GradientDescent, base: Any, *, betas: Any = None, sweeps: int = 1, chains: int = 256
) -> BoltzmannDescent:
    """The kernel that trains a machine: PCD; with ``betas`` (K,), rising from 0 to 1, tempered; without ``chains`` CD.

    ``descent`` is the descent of ``contrastive_loss`` for a ``CentredMachine`` on ``Rows``, ``base`` (n,) logits.

    >>> from mulligan.learners.gradient import gradient_descent
    >>> from mulligan.objectives.contrastive import contrastive_loss
    >>> rows = Rows(jnp.ones((4, 2)))
    >>> machine = fresh_machine(np.ones((4, 2)), 3, np.random.default_rng(0))
    >>> kernel = boltzmann_descent(gradient_descent(contrastive_loss, machine, rows), machine.b, chains=8)
    >>> state = kernel.init(jax.random.key(0), machine)
    >>> state, info = kernel.step(jax.random.key(1), state, Minibatch(jnp.arange(4), jnp.asarray(0.1)))
    >>> positions(state.chains).shape, sorted(info)
    ((8, 2), ['gradient_norm', 'movement', 'swaps', 'train'])
    """
    dtype = descent.frozen.centre.dtype
    ladder = None if betas is None else jnp.asarray(np.asarray(betas, np.float64), dtype)
    return BoltzmannDescent(descent, jnp.asarray(base, dtype), ladder, sweeps, chains)


def fresh_machine(rows: np.ndarray, hidden: int, generator: np.random.Generator) -> CentredMachine:
    """Small normal weights, visible biases at the logits of the base rates, all in centred units.

    >>> fresh_machine(np.zeros((3, 4)), 2, np.random.default_rng(0)).weights.shape
    (4, 2)
    """
    logits = base_logits(rows)
    weights = INITIAL_SCALE * generator.normal(size=(rows.shape[1], hidden))
    numbers = (weights, logits, np.zeros(hidden), 1 / (1 + np.exp(-logits)))
    return CentredMachine(*(jnp.asarray(a.astype(np.float32)) for a in numbers))


def base_logits(rows: np.ndarray) -> np.ndarray:
    """Logits (n,) of the columns' means with half a count added to each side, float64.

    >>> base_logits(np.array([[0.0], [1.0]])).tolist()
    [0.0]
    """
    on = rows.sum(axis=0) + 0.5
    return np.log(on) - np.log(len(rows) + 1 - on)


# --- chains -----------------------------------------------------------------------------------------------------------


def movement(before: Float[Array, "chains n"], after: Float[Array, "chains n"]) -> Float[Array, ""]:
    """Share of units that differ, of the share that would between independent draws with the same means: 0 is frozen.

    >>> float(movement(jnp.zeros((2, 3)), jnp.zeros((2, 3))))
    0.0
    """
    mean = jnp.mean(after, axis=0)
    return jnp.mean(jnp.abs(after - before)) / jnp.maximum(jnp.mean(2 * mean * (1 - mean)), 1e-3)


@dataclass
class BoltzmannHealth:
    """Watches a training by chains: a sentence where they froze, or where the machine cannot be what they follow.

    With chains in equilibrium E_data log p = −entropy + gap, the gap being mean f(rows) − mean f(chains). So a gap below
    −n log 2 says that the machine is worse than n fair coins, and one above n log 2 that the chains do not follow it.

    >>> healthy = BoltzmannHealth(units=4, every=2)
    >>> healthy(2, None, {"train": np.array([-9.0, -9.0]), "movement": np.ones(2)})
    'diverged: over the last 2 steps the rows are 9 nats below the chains, worse than 4 fair coins'
    """

    units: int
    every: int

    def __call__(self, step: int, state: Any, history: dict[str, np.ndarray]) -> str | None:
        last = slice(-self.every, None)
        gap, movement = (float(np.mean(history[name][last])) for name in ("train", "movement"))
        over = f"over the last {min(self.every, step)} steps"
        if gap < -self.units * np.log(2):
            return f"diverged: {over} the rows are {-gap:.3g} nats below the chains, worse than {self.units} fair coins"
        if gap > self.units * np.log(2):
            return f"diverged: {over} the chains are {gap:.3g} nats below the rows: they do not follow the machine"
        if movement < LEAST_MOVEMENT:
            return f"frozen: {over} the chains moved {movement:.1e} of what independent draws would"
        return None
