"""Chapter 10, latent variables: what a VAE minimises is a KL of joint laws.

Definition. KL(p_data(x) q(z|x) ‖ p(z) p(x|z)) = −H(p_data) − E ELBO = KL(p_data‖p) + E KL(q(z|x)‖p(z|x)), and it is at least
KL(q(z)‖p(z)), q(z) = E q(z|x) the aggregated posterior, which is at most E KL(q(z|x)‖p(z)). With linear networks and one
noise the optimum is probabilistic PCA with its own posterior: the bound is tight there, and no parameter has a slope.
Identity: ``relation.vae``.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from mulligan.data.codec import Part
from mulligan.data.native import NativeCodec
from mulligan.data.table import Column, Schema
from mulligan.lab.identities.pathwise import Affine, Moments, kl, path_law
from mulligan.lab.identities.schedules import kept
from mulligan.lab.identity import Check, Identity, excess, rounding
from mulligan.loop import compile_small
from mulligan.models.columns import columns_of
from mulligan.models.factor import FactorModel, ppca_closed_form
from mulligan.models.vae import VAE, make_vae, prior_divergence

COLUMNS, LATENT = 3, 2
LEAST = 1e-3  # the library adds it to every scale; were it another number, the check would fail


class Linear(eqx.Module):
    """x ↦ W x + b.

    >>> Linear(jnp.eye(2), jnp.ones(2))(jnp.ones(2)).tolist()
    [2.0, 2.0]
    """

    weight: Any
    bias: Any

    def __call__(self, x: Any) -> Any:
        return self.weight @ x + self.bias


class LinearVAE(NamedTuple):
    """z | x ~ N(V x + c, diag s²), x | z ~ N(W z + b, σ² I).

    >>> LinearVAE._fields
    ('V', 'c', 'log_s', 'W', 'b', 'sigma')
    """

    V: Any
    c: Any
    log_s: Any
    W: Any
    b: Any
    sigma: Any


@kept
def template() -> VAE:
    """The library's model of three columns, whose networks will be replaced.

    >>> template().latent
    2
    """
    schema = Schema(tuple(Column(name, "continuous") for name in "abc"))
    columns = columns_of(NativeCodec(schema, tuple(Part(j, 1) for j in range(COLUMNS))))
    return make_vae(columns, np.random.default_rng(0), latent=LATENT, depth=0, noise="shared")


def library_vae(model: VAE, at: LinearVAE) -> VAE:
    """The model with these linear networks.

    >>> parts = jnp.zeros((2, 3)), jnp.zeros(2), jnp.zeros(2), jnp.zeros((3, 2)), jnp.zeros(3), jnp.ones(())
    >>> float(library_vae(template(), LinearVAE(*parts)).posterior(jnp.ones(3)).mean[0])
    0.0
    """
    encoder = Linear(jnp.concatenate([at.V, 0 * at.V]), jnp.concatenate([at.c, at.log_s]))
    raw = jnp.log(jnp.expm1(at.sigma - LEAST))[None]
    return eqx.tree_at(lambda of: (of.encoder, of.decoder, of.raw_scales), model, (encoder, Linear(at.W, at.b), raw))


@compile_small
def _evidence(start: VAE, at: LinearVAE, x: Any, noise: Any) -> Any:
    """E ELBO over nodes of x and of the noise, its slope; KL(q(z|x)‖prior), and log p(x) and p(z|x) of the factor model."""

    def bound(at: LinearVAE) -> Any:
        model = library_vae(start, at)
        return jnp.mean(jax.vmap(lambda row: jnp.mean(jax.vmap(lambda e: model.evidence(e, row))(noise)))(x))

    model, factors = library_vae(start, at), FactorModel(at.b, at.W, at.sigma**2 * jnp.ones(COLUMNS))
    to_prior = jax.vmap(lambda row: prior_divergence(model.posterior(row)))(x)
    return (
        *jax.value_and_grad(bound)(at),
        jnp.mean(to_prior),
        jax.vmap(factors.log_prob)(x),
        jax.vmap(factors.posterior)(x),
    )


def _vae(seed: int, *, weight: float = 1.0, rotate: float = 0.0, exchanged: bool = False) -> Check:
    """Both sides for a random linear VAE, and for the best one: probabilistic PCA, bound tight, slope 0.

    Everything is quadratic in x and in the noise, so means over 2d nodes are exact.
    """
    rng = np.random.default_rng([seed, 103])
    root = rng.normal(size=(COLUMNS, COLUMNS))
    data = Moments(rng.normal(size=COLUMNS) / 2, 0.2 * np.eye(COLUMNS) + root @ root.T / 4)
    spread = np.sqrt(COLUMNS) * np.linalg.cholesky(data.covariance).T
    x = data.mean + np.concatenate([spread, -spread])
    noise = np.sqrt(LATENT) * np.concatenate([np.eye(LATENT), -np.eye(LATENT)])
    entropy = 0.5 * np.linalg.slogdet(2 * np.pi * np.e * data.covariance)[1]

    loadings, variance = ppca_closed_form(data.covariance, LATENT)
    turn = np.array([[np.cos(rotate), -np.sin(rotate)], [np.sin(rotate), np.cos(rotate)]])
    loadings = loadings @ turn
    inverse = np.linalg.inv(loadings.T @ loadings + variance * np.eye(LATENT))
    spot = 0.5 * np.log(variance * np.diag(inverse))
    best = LinearVAE(
        inverse @ loadings.T, -inverse @ loadings.T @ data.mean, spot, loadings, data.mean, np.sqrt(variance)
    )
    shapes: list[Any] = [(LATENT, COLUMNS), LATENT, LATENT, (COLUMNS, LATENT), COLUMNS]
    some = LinearVAE._make([*(0.5 * rng.normal(size=shape) for shape in shapes), rng.uniform(0.4, 0.9)])
    pairs: dict[str, tuple[Any, Any]] = {}
    for name, at in {"some": some, "best": best}.items():
        found = _evidence(template(), *(jax.tree.map(jnp.asarray, part) for part in (at, x, noise)))
        elbo, slope, to_prior, log_p, (means, covariances) = jax.tree.map(np.asarray, found)
        left = -entropy - elbo
        coded = Affine(at.V, at.c, np.diag(np.exp(2 * at.log_s)))
        made = Affine(at.W, at.b, at.sigma**2 * np.eye(COLUMNS))
        q, p = path_law(data, [coded]), path_law(Moments(np.zeros(LATENT), np.eye(LATENT)), [made])
        flipped = np.r_[LATENT : LATENT + COLUMNS, :LATENT]
        joint = kl(q, Moments(p.mean[flipped], p.covariance[np.ix_(flipped, flipped)]))
        of_x = kl(data, Moments(p.mean[LATENT:], p.covariance[LATENT:, LATENT:]))
        given = [kl(Moments(at.V @ r + at.c, coded.spread), Moments(m, c)) for r, m, c in zip(x, means, covariances)]
        code = Moments(q.mean[COLUMNS:], q.covariance[COLUMNS:, COLUMNS:])
        to_mixed = kl(code, Moments(np.zeros(LATENT), np.eye(LATENT)))
        pairs[f"−H − ELBO, {name}"] = (left, joint)
        pairs[f"KL of x and of z given x, {name}"] = (of_x + weight * np.mean(given), joint)
        pairs[f"KL(p_data‖p) from log p, {name}"] = (-entropy - log_p.mean(), of_x)
        pairs[f"at least KL(q(z)‖p(z)), {name}"] = (excess(to_mixed, joint), 0.0)
        sides = (to_prior, to_mixed) if exchanged else (to_mixed, to_prior)
        pairs[f"KL(q(z)‖p(z)) ≤ E KL(q(z|x)‖p(z)), {name}"] = (excess(*sides), 0.0)
        if name == "best":
            pairs["the bound is tight"] = (elbo, log_p.mean())
            pairs["slope 0"] = (np.concatenate([np.ravel(part) for part in slope]), 0.0)
    return rounding(pairs)


IDENTITIES = (
    Identity(
        "relation.vae",
        10,
        "KL(p_data q(z|x)‖p(z)p(x|z)) = KL(p_data‖p) + E KL(q(z|x)‖p(z|x)) ≥ KL(q(z)‖p(z)); the linear optimum is PPCA",
        "rounding",
        _vae,
        {
            "½ of the posterior's KL": {"weight": 0.5},
            "loadings turned": {"rotate": 0.5},
            "E KL(q(z|x)‖p(z)) the smaller": {"exchanged": True},
        },
        "Kingma and Welling 2014; Tipping and Bishop 1999; Hoffman and Johnson 2016; Lucas et al. 2019",
    ),
)
