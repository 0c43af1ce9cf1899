"""An ensemble: the equal mixture of several models of one kind, p(x) = (1/M) Σ_m p_m(x).

A mixture of densities is a density: log p(x) = log Σ_m p_m(x) − log M is exact where the members' are, and by Jensen's
inequality never below the mean of the members' log p, so members that over-fitted apart from each other lose less
together (Uria, Murray and Larochelle 2014, who average autoregressive models over orders of the columns).
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from mulligan.core import Density, Sampler
from mulligan.models.autoregressive import Autoregressive


class Ensemble(Sampler, Density):
    """M members as one module whose arrays have a leading axis of members (``mulligan.models.flow.stack`` makes it).

    >>> import numpy as np
    >>> from mulligan.models.autoregressive import make_autoregressive
    >>> from mulligan.data.codec import Part
    >>> from mulligan.data.native import NativeCodec
    >>> from mulligan.data.table import Column, Schema
    >>> from mulligan.models.columns import columns_of
    >>> from mulligan.models.flow import stack
    >>> numbers = Schema((Column("a", "continuous"), Column("b", "continuous")))
    >>> columns = columns_of(NativeCodec(numbers, (Part(0, 1), Part(1, 1))))
    >>> both = [make_autoregressive(columns, np.random.default_rng(i), width=4, depth=1) for i in (0, 1)]
    >>> Ensemble(stack(both)).log_prob(jnp.zeros(2)).shape
    ()
    """

    kind: ClassVar[Literal["exact", "numeric"]] = "exact"
    members: Autoregressive

    @property
    def positions(self) -> Int[Array, " c"]:
        """Each column's place in the order of the first member."""
        return self.members.positions[0]

    def each_log_prob(self, x: Array, given: Array | None = None) -> Float[Array, " m"]:
        """log p_m(x) of every member."""
        return eqx.filter_vmap(lambda member: member.log_prob(x, given))(self.members)

    def log_prob(self, x: Array, given: Array | None = None) -> Float[Array, ""]:
        return _log_mean_exp(self.each_log_prob(x, given))

    def leading_log_prob(self, x: Array, known: int | Array, given: Array | None = None) -> Float[Array, ""]:
        """The exact log p of the first ``known`` columns, for members that share one order."""
        return _log_mean_exp(eqx.filter_vmap(lambda member: member.leading_log_prob(x, known, given))(self.members))

    def sample(self, key: PRNGKeyArray, given: Array | None = None) -> Array:
        which, inner = jax.random.split(key)
        index = jax.random.randint(which, (), 0, self.members.positions.shape[0])
        return self._member(index).sample(inner, given)

    def continued(self, key: PRNGKeyArray, x: Array, known: int | Array, given: Array | None = None) -> Array:
        """A draw of the other columns given the first ``known``, for members that have these first: a member m with
        probability ∝ p_m(known columns), then its draw."""
        which, inner = jax.random.split(key)
        log_p = eqx.filter_vmap(lambda member: member.leading_log_prob(x, known, given))(self.members)
        return self._member(jax.random.categorical(which, log_p)).continued(inner, x, known, given)

    def _member(self, index: Array) -> Any:
        arrays, rest = eqx.partition(self.members, eqx.is_array)
        return eqx.combine(jax.tree.map(lambda leaf: leaf[index], arrays), rest)


def _log_mean_exp(values: Array) -> Array:
    return jax.nn.logsumexp(values, axis=0) - jnp.log(jnp.asarray(values.shape[0], values.dtype))
