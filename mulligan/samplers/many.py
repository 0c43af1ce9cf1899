"""Many chains in one program, and chains that keep every n-th draw: wrappers, so no sampler has to know of them."""

from __future__ import annotations

from typing import Any, ClassVar

import equinox as eqx
import jax
from jaxtyping import PRNGKeyArray

from mulligan.core import Info, Kernel, Law, Noise, State
from mulligan.loop import repeat


class Many(Kernel):
    """Independent chains of one kernel: everything has a leading axis of chains. ``init`` takes x (chains, …).

    The law is that of the kernel, of each chain; see ``law_of``. Inputs of a step are shared by all chains.
    """

    law: ClassVar[Law] = Law("none")
    kernel: Kernel

    def init(self, key: PRNGKeyArray, x: Any) -> State:
        """A state for each of the positions."""
        chains = jax.tree.leaves(x)[0].shape[0]
        return jax.vmap(self.kernel.init)(jax.random.split(key, chains), x)

    def noise(self, key: PRNGKeyArray, state: State) -> Noise:
        """Each chain's own randomness."""
        chains = jax.tree.leaves(state)[0].shape[0]
        return jax.vmap(self.kernel.noise)(jax.random.split(key, chains), state)

    def move(self, state: State, noise: Noise, input: Any) -> tuple[State, Info]:
        """All chains one step on."""
        return jax.vmap(self.kernel.move, in_axes=(0, 0, None))(state, noise, input)


class Thinned(Kernel):
    """``every`` steps of a kernel as one; info is that of the last of them. Inputs are shared by these steps."""

    law: ClassVar[Law] = Law("none")
    kernel: Kernel
    every: int = eqx.field(static=True)

    def init(self, key: PRNGKeyArray, x: Any) -> State:
        """The kernel's own."""
        return self.kernel.init(key, x)

    def noise(self, key: PRNGKeyArray, state: State) -> PRNGKeyArray:
        """The key of the steps."""
        return key

    def move(self, state: State, noise: PRNGKeyArray, input: Any) -> tuple[State, Info]:
        """``every`` steps on."""
        shared = None if input is None else jax.tree.map(lambda leaf: jax.numpy.stack([leaf] * self.every), input)
        state, info = repeat(self.kernel, noise, state, self.every, shared)
        return state, jax.tree.map(lambda leaf: leaf[-1], info)


def law_of(kernel: Kernel) -> Law:
    """What a kernel claims to keep, seen through wrappers."""
    return law_of(kernel.kernel) if isinstance(kernel, Many | Thinned) else kernel.law
