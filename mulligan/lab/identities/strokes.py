"""Chapter 10, energies and diffusions: forward and reverse in one step, and how many strokes a picture needs.

Definition. A reverse-ODE half, from p_t to p_{t−Δt}, and a random forward half, back to p_t, are together a Langevin step
x + (a/2) ∇ log p_t + √a e, a = g²Δt, which leaves p_t where it is up to O(Δt²); the reverse SDE is an ODE step plus a
Langevin step. A diffusion is a ladder of energies: its score has no curl. One step from x_T all the way returns E[x_0|x_T],
whose covariance is Cov x_0 − E Cov(x_0|x_T): blurred. More strokes find more holes, and a critic's slope moves what a model
with one stroke draws towards the data.
Identities: ``relation.ebm``, ``relation.ebm.step``, ``relation.one_stroke``. Experiments: ``relation.one_stroke.holes``,
``relation.guided``.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mulligan.lab.identities.diffusion import NOW, PLANE, SHORT, on_plane, reversed_at_once, reversed_steps
from mulligan.lab.identities.halves import plane_laws
from mulligan.lab.identities.schedules import BOTH, kept, numbers
from mulligan.lab.identities.waves import averages_after, size_of, wave_averages
from mulligan.lab.identity import Check, Identity, excess, order, rounding
from mulligan.loop import compile_small
from mulligan.samplers.reverse import Ancestral
from mulligan.targets.mixture import GaussianMixture
from mulligan.targets.noised import NoisedMixture
from mulligan.targets.noising import EDM

# --- an energy's step --------------------------------------------------------------------------------------------------


def _ebm(seed: int, *, power: float = 1.0, root: float = 1.0, forward: bool = True) -> Check:
    """The reverse ODE's step and the random half, and Langevin's step, keep p_t up to Δt²; either half alone does not."""
    curves = {}
    for name in BOTH:
        at, p = reversed_steps(seed, name, power), on_plane(seed, name)
        found = [numbers([NOW - dt, NOW])[name] for dt in SHORT]
        shrink = np.array([n.scale[0] for n in found])[:, None, None]
        spread = np.array([n.variance[0] for n in found]) ** (0.5 * root) * forward
        now = numbers([NOW])[name]
        still = wave_averages(seed, plane_laws(seed)[0], now.alpha, now.sigma)
        a = SHORT * now.diffusion[0]
        climbed = PLANE + 0.5 * power * a[:, None, None] * p.score
        none = np.zeros_like(SHORT)
        for kind, centre, noise, slope in (
            ("reverse half, then random half", shrink * at.euler, spread, 2.0),
            ("Langevin's step", climbed, a ** (0.5 * root) * forward, 2.0),
            ("the reverse half alone", at.euler, none, 1.0),
            ("the random half alone", shrink * PLANE, spread, 1.0),
        ):
            landed = averages_after(seed, centre, noise, p.mass)
            curves[f"{kind}, {name}"] = (SHORT, size_of(landed - still), slope)
    return order(curves)


def _ebm_step(seed: int, *, share: float = 1.0, root: float = 0.5, curl: float = 0.0) -> Check:
    """ReverseSDE = EulerODE + (a/2) ∇ log p_t + √a e, noise by noise; the score's Jacobian is symmetric."""
    pairs: dict[str, tuple[Any, Any]] = {}
    for name in BOTH:
        at, p, now = reversed_steps(seed, name, 1.0), on_plane(seed, name), numbers([NOW])[name]
        a = (SHORT * now.diffusion[0])[:, None, None]
        pairs[f"ODE and Langevin, {name}"] = (at.sde, at.euler + 0.5 * share * a * p.score)
        pairs[f"their noise, {name}"] = (at.sde_noise, (a**root)[..., None] * np.eye(2))
        if name == "walk":
            pairs["the ODE's step is the gradient half of Langevin's"] = (at.euler - PLANE, 0.5 * share * a * p.score)
        turned = p.hessian + curl * np.array([[0.0, -1.0], [1.0, 0.0]])
        pairs[f"no curl, {name}"] = (turned[:, 0, 1], turned[:, 1, 0])
    return rounding(pairs)


# --- one stroke --------------------------------------------------------------------------------------------------------


def _one_stroke(seed: int, *, power: float = 1.0, share: float = 1.0) -> Check:
    """A step to time 0 is the posterior mean, without noise; its covariance and the mean posterior one add up."""
    pairs: dict[str, tuple[Any, Any]] = {}
    for name in BOTH:
        at, p, law = reversed_at_once(seed, name, power), on_plane(seed, name), plane_laws(seed)[0]
        for kernel, landed in (("DDIM", at.ddim), ("ancestral", at.ancestral)):
            centred = landed[0] - p.mass @ landed[0]
            blurred = np.einsum("n,ni,nj->ij", p.mass, centred, centred)
            lost = share * np.einsum("n,nij->ij", p.mass, p.covariance)
            pairs[f"{kernel} returns E[x_0|x_T], {name}"] = (landed[0], p.denoised)
            pairs[f"{kernel} has its mean, {name}"] = (p.mass @ landed[0], np.asarray(law.mean))
            pairs[f"{kernel} is blurred, {name}"] = (blurred, np.asarray(law.covariance) - lost)
        pairs[f"no noise, {name}"] = (at.ancestral_noise, 0.0)
    return rounding(pairs)


RADIUS, SPREAD, COUNT = 2.0, 0.15, 8


def eight_holes() -> GaussianMixture:
    """Eight narrow Gaussians on a circle of radius 2.

    >>> eight_holes().components
    8
    """
    angle = 2 * np.pi * np.arange(COUNT) / COUNT
    centres = RADIUS * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    return GaussianMixture.from_covariances(np.full(COUNT, 1 / COUNT), centres, [SPREAD**2 * np.eye(2)] * COUNT)


def in_holes(x: np.ndarray) -> np.ndarray:
    """The number of rows (…, n, 2) within three standard deviations of each of the eight centres, (…, 8).

    >>> int(in_holes(np.array([[2.0, 0.0], [0.0, 0.0]])).sum())
    1
    """
    centres = np.asarray(eight_holes().means)
    return (((x[..., None, :] - centres) ** 2).sum(axis=-1) < (3 * SPREAD) ** 2).sum(axis=-2)


def holes_found(x: np.ndarray) -> np.ndarray:
    """How many of the eight holes have at least a third of their true share of the rows (…, n, 2).

    >>> int(holes_found(np.asarray(eight_holes().means)))
    8
    """
    true = (1 - np.exp(-4.5)) / COUNT
    return (in_holes(x) / x.shape[-2] >= true / 3).sum(axis=-1)


STROKES = (1, 2, 4, 8, 16, 32)


@compile_small
def _drawn(law: NoisedMixture, start: Any, noise: Any, times: Any) -> Any:
    """Points (strokes, n, 2) by the ancestral sampler along each row of times, from normals (n, 2) and (steps, n, 2)."""
    kernel = Ancestral(law)

    def one(row: Any, e: Any, noise: Any) -> Any:
        step = lambda state, item: (kernel.move(state, item[0], item[1:])[0], None)  # noqa: E731
        state = kernel.init(jax.random.key(0), law.schedule.sigma(row[0]) * e)
        state, _ = jax.lax.scan(step, state, (noise, row[:-1], row[1:]))
        return law.denoise(state.position, row[-1])

    return jax.vmap(lambda row: jax.vmap(lambda e, noise: one(row, e, noise), (0, 1))(start, noise))(times)


def _one_stroke_holes(seed: int, *, strokes: tuple[int, ...] = STROKES) -> Check:
    """With the true score: one stroke finds none of eight holes, more find never fewer, and 32 find them all."""
    low, high = 0.05, 8.0
    schedule = EDM(t_min=jnp.asarray(low), t_max=jnp.asarray(high))
    rows = []
    for n in strokes:  # the last of n strokes is the posterior mean; waiting at the last time is no step
        times = (
            np.linspace(high ** (1 / 7), low ** (1 / 7), n) ** 7
        )  # the schedule's own, in NumPy: no shape is compiled
        rows.append(np.pad(times, (0, STROKES[-1] - len(times)), mode="edge"))
    rng = np.random.default_rng([seed, 105])
    normals = rng.normal(size=(1000, 2)), rng.normal(size=(STROKES[-1] - 1, 1000, 2)), np.stack(rows)
    drawn = _drawn(NoisedMixture(eight_holes(), schedule), *(jnp.asarray(a) for a in normals))
    found = holes_found(np.asarray(drawn))
    spread = np.asarray(drawn).var(axis=1).sum(axis=1)
    return rounding(
        {
            "one stroke finds none": (found[0], 0.0),
            "never fewer": (excess(found[:-1], found[1:]), 0.0),
            "all in the end": (found[-1], float(COUNT)),
            "one stroke is blurred": (excess(spread[0], 0.1 * spread[-1]), 0.0),
        }
    )


# --- a critic's help ---------------------------------------------------------------------------------------------------


@kept
def _one_gaussian() -> GaussianMixture:
    """What a linear VAE with two latent variables makes of the eight holes: their mean and covariance."""
    law = eight_holes()
    return GaussianMixture.from_covariances([1.0], np.asarray(law.mean)[None], np.asarray(law.covariance)[None])


@compile_small
def _guided(data: GaussianMixture, model: GaussianMixture, x: Any, pull: Any) -> Any:
    """Where twenty steps up the best critic log p_data/p_model lead from draws of the model, (n, 2)."""
    critic = jax.grad(lambda at: data.log_prob(at) - model.log_prob(at))
    return jax.lax.fori_loop(0, 20, lambda _, at: at + pull * jax.vmap(critic)(at), x)


def _guidance(seed: int, *, pull: float = 1.0) -> Check:
    """A linear VAE's draws miss the holes; twenty short steps up the critic bring at least three times as many into them."""
    law = _one_gaussian()
    drawn = (
        np.asarray(law.mean)
        + np.random.default_rng([seed, 106]).normal(size=(2000, 2)) @ np.asarray(law.choleskys[0]).T
    )
    moved = np.asarray(_guided(eight_holes(), law, jnp.asarray(drawn), jnp.asarray(pull * 0.2 * SPREAD**2)))
    before, after = (in_holes(x).sum() / 2000 for x in (drawn, moved))
    return rounding(
        {
            "three times as many": (excess(3 * before, after), 0.0),
            "all holes": (holes_found(moved), float(COUNT)),
        }
    )


IDENTITIES = (
    Identity(
        "relation.ebm",
        10,
        "a reverse-ODE half and a random half, x + (a/2) ∇ log p_t + √a e, leave p_t where it is up to O(Δt²)",
        "order",
        _ebm,
        {
            "½ missing": {"power": 2.0},
            "Δt e for √Δt e": {"root": 2.0},
            "no random half": {"forward": False},
        },
        "Wu's tutorial, relations; Song and Ermon 2019",
    ),
    Identity(
        "relation.ebm.step",
        10,
        "the reverse SDE's step = an ODE step + (a/2) ∇ log p_t + √a e; ∂_i s_j = ∂_j s_i",
        "rounding",
        _ebm_step,
        {"twice the Langevin half": {"share": 2.0}, "a e for √a e": {"root": 1.0}, "a score with curl": {"curl": 0.1}},
        "Wu's tutorial, relations; Song et al. 2021; Karras et al. 2022",
    ),
    Identity(
        "relation.one_stroke",
        10,
        "one step from x_T to 0 returns E[x_0|x_T]; its covariance is Cov x_0 − E Cov(x_0|x_T)",
        "rounding",
        _one_stroke,
        {"sign of the score": {"power": -1.0}, "half of the lost covariance": {"share": 0.5}},
        "Wu's tutorial, relations",
    ),
)

PHENOMENA = (
    Identity(
        "relation.one_stroke.holes",
        10,
        "true score, eight holes: one stroke finds 0 of 8, more strokes never fewer, 32 strokes 8",
        "rounding",
        _one_stroke_holes,
        {"one stroke all along": {"strokes": (1, 1, 1, 1, 1, 1)}},
        "Wu's tutorial, relations",
    ),
    Identity(
        "relation.guided",
        10,
        "x + δ ∇ log p_data/p_model, twenty times, brings at least thrice as many draws of a linear VAE into the holes",
        "rounding",
        _guidance,
        {"the critic's sign": {"pull": -1.0}},
        "Wu's tutorial, relations; Che et al. 2020",
    ),
)
