"""Restricted Boltzmann machines: binary visible and hidden units, joined across the layers and not inside them.

Definition. P(v) = (1/Z) Σ_h exp(vᵀWh + bᵀv + cᵀh) = exp(−F(v))/Z with v in {0, 1}ⁿ, h in {0, 1}ᵐ and the free energy
F(v) = −bᵀv − Σ_j softplus(c_j + (Wᵀv)_j) (Smolensky 1986; Freund and Haussler 1992). Given one layer the units of the other
are independent. So log Z and exact draws cost a sum over the states of the smaller layer; where those are too many, log Z is
estimated elsewhere, and draws are annealed along machines from independent units to this one,
P_β(v) ∝ exp((1 − β) aᵀv + β bᵀv) Π_j (1 + exp(β (c_j + (Wᵀv)_j))), a the logits of the base rates (Salakhutdinov and
Murray 2008). Serves ``ebm.log_z``, ``cd.bias``.
"""

from __future__ import annotations

from typing import ClassVar, Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from mulligan.core import Density, Energy, Sampler
from mulligan.targets.discrete import Enumeration

EXACT_UNITS = 20  # units of the smaller layer up to which log Z is a sum
_LOW = 12  # of them are summed at a time: memory for 2^12 states whatever the layer


class Parameters(NamedTuple):
    """``weights`` W (n, m), ``b`` (n,) of the visible units, ``c`` (m,) of the hidden ones.

    >>> Parameters(jnp.zeros((3, 2)), jnp.zeros(3), jnp.zeros(2)).weights.shape
    (3, 2)
    """

    weights: Array
    b: Array
    c: Array


class BoltzmannMachine(Sampler, Density, Energy):
    """A machine whose log Z and draws are exact, because its smaller layer was enumerated; ``enumerated`` makes it.

    ``weights`` (n, m), ``b`` (n,), ``c`` (m,), ``log_z`` (); ``block_cdf`` (B,) and ``within_cdf`` (B, S) are the law of
    the smaller layer: over blocks of its states, and inside each.

    >>> machine = enumerated(Parameters(np.zeros((2, 3)), np.zeros(2), np.zeros(3)))
    >>> round(float(machine.log_prob(jnp.ones(2))), 4)  # uniform on four states
    -1.3863
    """

    kind: ClassVar[Literal["exact", "numeric", "estimate"]] = "exact"
    fixed: ClassVar[tuple[str, ...]] = ("log_z", "block_cdf", "within_cdf")
    weights: Float[Array, "n m"]
    b: Float[Array, " n"]
    c: Float[Array, " m"]
    log_z: Float[Array, ""]
    block_cdf: Float[Array, " B"]
    within_cdf: Float[Array, "B S"]

    @property
    def log_z_stderr(self) -> float:
        """0: log Z is a sum over all states."""
        return 0.0

    @property
    def strokes(self) -> float:
        """1, the passes through the weights that a draw takes."""
        return 1.0

    def energy(self, x: Float[Array, " n"]) -> Float[Array, ""]:
        """The free energy F(x)."""
        return -negative_free_energy(parameters_of(self), x)

    def log_prob(self, x: Float[Array, " n"], given: Array | None = None) -> Float[Array, ""]:
        """−F(x) − log Z; −∞ where x is not of zeros and ones."""
        return _on_states(x, negative_free_energy(parameters_of(self), x) - self.log_z)

    def sample(self, key: PRNGKeyArray, given: Array | None = None) -> Float[Array, " n"]:
        """An exact draw: the smaller layer from its law, then the visible units given the hidden ones if those it was."""
        n, m = self.weights.shape
        u = jax.random.uniform(key, (2 + n,), self.block_cdf.dtype)
        block = _inverse(self.block_cdf, u[0])
        state = block * self.within_cdf.shape[1] + _inverse(self.within_cdf[block], u[1])
        units = (state // 2 ** jnp.arange(min(n, m) - 1, -1, -1)) % 2
        units = units.astype(self.weights.dtype)
        return units if n <= m else _fired(self.b + self.weights @ units, u[2:])


class EstimatedBoltzmannMachine(Sampler, Density, Energy):
    """A machine whose log Z is estimated, with both layers too large to be enumerated.

    ``base`` a (n,) are the logits of independent units from which annealing starts, ``log_z`` () the estimate and
    ``log_z_stderr`` () its standard error; a draw is annealed over ``sweeps`` temperatures and so follows the law nearly.

    >>> zeros = Parameters(jnp.zeros((2, 3)), jnp.zeros(2), jnp.zeros(3))
    >>> machine = EstimatedBoltzmannMachine(*zeros, jnp.zeros(2), 5 * jnp.log(2.0), jnp.asarray(0.0), sweeps=10)
    >>> round(float(machine.log_prob(jnp.ones(2))), 4)
    -1.3863
    """

    kind: ClassVar[Literal["exact", "numeric", "estimate"]] = "estimate"
    fixed: ClassVar[tuple[str, ...]] = ("base", "log_z", "log_z_stderr")
    weights: Float[Array, "n m"]
    b: Float[Array, " n"]
    c: Float[Array, " m"]
    base: Float[Array, " n"]
    log_z: Float[Array, ""]
    log_z_stderr: Float[Array, ""]
    sweeps: int = eqx.field(static=True, default=1000)

    @property
    def strokes(self) -> float:
        """The sweeps through the weights that a draw takes."""
        return float(self.sweeps)

    def energy(self, x: Float[Array, " n"]) -> Float[Array, ""]:
        """The free energy F(x)."""
        return -negative_free_energy(parameters_of(self), x)

    def log_prob(self, x: Float[Array, " n"], given: Array | None = None) -> Float[Array, ""]:
        """−F(x) minus the estimate of log Z; −∞ where x is not of zeros and ones."""
        return _on_states(x, negative_free_energy(parameters_of(self), x) - self.log_z)

    def sample(self, key: PRNGKeyArray, given: Array | None = None) -> Float[Array, " n"]:
        """A draw (n,) by annealing; see ``annealed_draw``."""
        return annealed_draw(parameters_of(self), self.base, key, self.sweeps)


class CentredMachine(Energy):
    """What is learned: a machine in centred units, log p(v) = (v − μ)ᵀb + Σ_j log 2cosh(½(c_j + (Wᵀ(v − μ))_j)) + constant.

    This is the machine of ``parameters()``, hidden units counted from ½ and visible ones from their means ``centre`` μ
    (n,), which are not learned: coordinates in which one rate suits all parameters (Montavon and Müller
    2012; Melchior, Fischer and Wiskott 2016).

    >>> machine = CentredMachine(jnp.ones((2, 1)), jnp.zeros(2), jnp.zeros(1), jnp.asarray([0.5, 0.0]))
    >>> machine.parameters().c.tolist(), machine.parameters().b.tolist()
    ([-0.5], [-0.5, -0.5])
    """

    fixed: ClassVar[tuple[str, ...]] = ("centre",)
    weights: Float[Array, "n m"]
    b: Float[Array, " n"]
    c: Float[Array, " m"]
    centre: Float[Array, " n"]

    def f(self, x: Float[Array, " n"]) -> Float[Array, ""]:
        """log p(x) up to a constant."""
        return negative_free_energy(self.parameters(), x)

    def energy(self, x: Float[Array, " n"]) -> Float[Array, ""]:
        """−f(x), the free energy."""
        return -self.f(x)

    def parameters(self) -> Parameters:
        """W, b − ½W1, c − Wᵀμ: the same law in units of 0 and 1."""
        return Parameters(self.weights, self.b - 0.5 * self.weights.sum(axis=1), self.c - self.centre @ self.weights)


def parameters_of(machine: BoltzmannMachine | EstimatedBoltzmannMachine) -> Parameters:
    """W, b, c of a machine."""
    return Parameters(machine.weights, machine.b, machine.c)


# --- free energy, annealed draws --------------------------------------------------------------------------------------


def negative_free_energy(parameters: Parameters, v: Float[Array, " n"]) -> Float[Array, ""]:
    """−F(v) = bᵀv + Σ_j softplus(c_j + (Wᵀv)_j).

    >>> round(float(negative_free_energy(Parameters(jnp.zeros((2, 3)), jnp.ones(2), jnp.zeros(3)), jnp.ones(2))), 4)
    4.0794
    """
    weights, b, c = parameters
    return v @ b + jnp.sum(jax.nn.softplus(c + v @ weights))


def annealed_draw(
    parameters: Parameters, base: Float[Array, " n"], key: PRNGKeyArray, sweeps: int
) -> Float[Array, " n"]:
    """v after a sweep of block Gibbs sampling at each β = 1/K … 1, from independent units with logits ``base``.

    >>> big = Parameters(jnp.zeros((2, 1)), jnp.asarray([90.0, -90.0]), jnp.zeros(1))
    >>> annealed_draw(big, jnp.zeros(2), jax.random.key(0), 4).tolist()
    [1.0, 0.0]
    """
    weights, b, c = parameters
    n, m = weights.shape

    def one(v: Array, k: Array) -> tuple[Array, None]:
        u = jax.random.uniform(jax.random.fold_in(key, k), (m + n,), base.dtype)
        beta = k.astype(base.dtype) / sweeps
        h = _fired(beta * (c + v @ weights), u[:m])
        return _fired((1 - beta) * base + beta * (b + weights @ h), u[m:]), None

    # Step 0 is at β = 0, where a sweep draws the reference whatever v was.
    return jax.lax.scan(one, jnp.zeros_like(base), jnp.arange(sweeps + 1))[0]


def _fired(logits: Array, uniforms: Array) -> Array:
    """Units that are on with the probabilities of these logits, 0.0 or 1.0 each."""
    return (uniforms < jax.nn.sigmoid(logits)).astype(logits.dtype)


# --- exact sums -------------------------------------------------------------------------------------------------------


def log_partition(parameters: Parameters) -> Float[Array, ""]:
    """log Z exactly, by the sum over the states of the smaller layer; differentiable.

    >>> zeros = Parameters(jnp.zeros((2, 3)), jnp.zeros(2), jnp.zeros(3))
    >>> round(float(log_partition(zeros)), 4)
    3.4657
    """
    weights, own, other = _smaller_first(parameters)
    k, dtype = own.shape[0], own.dtype
    low = min(k, _LOW)
    units = _units(jnp.arange(2**low), low, dtype)
    inner, own_inner = other + units @ weights[:low], units @ own[:low]

    def one(total: Array, state: Array) -> tuple[Array, None]:
        high = _units(state, k - low, dtype)
        log_f = own_inner + high @ own[low:] + jnp.sum(jax.nn.softplus(inner + high @ weights[low:]), axis=1)
        return jnp.logaddexp(total, jax.nn.logsumexp(log_f)), None

    if k == low:  # no scan where one block is all: nothing to keep for the gradient
        return jax.nn.logsumexp(own_inner + jnp.sum(jax.nn.softplus(inner), axis=1))
    return jax.lax.scan(one, jnp.asarray(-jnp.inf, dtype), jnp.arange(2 ** (k - low)))[0]


def enumerated(parameters: Parameters) -> BoltzmannMachine:
    """The machine of these parameters with its exact log Z and draws; float64 sums over 2^min(n, m) states.

    Raises UsageError for more than 2^20 states.

    >>> enumerated(Parameters(np.zeros((2, 3)), np.zeros(2), np.zeros(3))).within_cdf.shape
    (2, 2)
    """
    weights, own, other = (np.asarray(a, np.float64) for a in _smaller_first(parameters))
    table = Enumeration(2, len(own), lambda s: s @ own + np.logaddexp(0.0, other + s @ weights).sum(axis=1))
    given = Parameters(*(jnp.asarray(np.asarray(a, table.log_z.dtype)) for a in parameters))
    return BoltzmannMachine(*given, table.log_z, table.block_cdf, table.within_cdf)


def _smaller_first(parameters: Parameters) -> tuple[Array, Array, Array]:
    """Weights with a row a unit of the smaller layer, its biases, and those of the other layer."""
    weights, b, c = parameters
    return (weights, b, c) if len(b) <= len(c) else (weights.T, c, b)


def _units(state: Array, units: int, dtype: jnp.dtype) -> Array:
    """The binary digits of whole numbers, the slowest first; a last axis of units."""
    return ((state[..., None] // 2 ** jnp.arange(units - 1, -1, -1)) % 2).astype(dtype)


def _inverse(cdf: Array, u: Array) -> Array:
    return jnp.minimum(jnp.searchsorted(cdf, u, side="right"), cdf.size - 1)


def _on_states(x: Array, log_p: Array) -> Array:
    """log p where x is of zeros and ones, −∞ elsewhere, NaN where x has one."""
    log_p = jnp.where(jnp.all((x == 0) | (x == 1)), log_p, -jnp.inf)
    return jnp.where(jnp.any(jnp.isnan(x)), jnp.nan, log_p)
