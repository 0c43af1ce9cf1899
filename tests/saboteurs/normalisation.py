"""A broken twin of any density: log p too high by a constant, which only its integral shows."""

from __future__ import annotations

import math
from typing import ClassVar, Literal

import equinox as eqx
from jaxtyping import Array

from mulligan.core import Density, Sampler


class TimesConstant(Sampler, Density):
    """``factor`` times a density; its draws are right."""

    kind: ClassVar[Literal["exact", "numeric"]] = "exact"
    right: eqx.Module
    factor: float = eqx.field(static=True)

    def log_prob(self, x: Array, given: Array | None = None) -> Array:
        return self.right.log_prob(x, given) + math.log(self.factor)

    def sample(self, key: Array, given: Array | None = None) -> Array:
        return self.right.sample(key, given)
