"""Chapter 9, diffusion: the halves of a short step, forward and back, and what each does to a law.

Definition. Of dx = f x dt + g dB the random half x → α_{t+Δt|t} x + σ_{t+Δt|t} e carries p_t to p_{t+Δt} exactly, and the
deterministic half x + (f x − ½ g² ∇ log p_t) Δt does so up to O(Δt²); both together carry it to p_{t+2Δt}: they have the
same sign, where those of Langevin dynamics oppose (``mulligan.lab.identities.halves``). Backwards, the deterministic half
alone leads from p_t to p_{t−Δt} (the ODE); twice that and the random half lead there, too: "two back, one forward" (the
SDE). For the notes' walk, with a = σ²Δt, these are x + (a/2) ∇ log p_t and x + a ∇ log p_t + √a e. In the plane: p_t on a
grid, averages of eight waves, the steps those of the library's reverse samplers.
Identities: ``diffusion.halves``, ``diffusion.halves.random``, ``diffusion.reverse_ode``, ``diffusion.reverse_sde``.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from mulligan.lab.identities.halves import plane_laws
from mulligan.lab.identities.schedules import BOTH, Tangent, either, kept, moments, numbers, schedules
from mulligan.lab.identities.waves import averages_after, size_of, wave_averages
from mulligan.lab.identity import Check, Identity, order, rounding
from mulligan.loop import compile_small
from mulligan.samplers.reverse import DDIM, Ancestral, EulerODE, ReverseSDE
from mulligan.targets.noised import NoisedMixture
from mulligan.targets.noising import Schedule

SHORT = 2.0 ** -np.arange(8, 13)  # the steps Δt
NOW = 0.3
_AXIS = np.linspace(-10.0, 10.0, 51)
PLANE = np.stack(np.meshgrid(_AXIS, _AXIS, indexing="ij"), axis=-1).reshape(-1, 2)


class OnPlane(NamedTuple):
    """p_t at each point of ``PLANE``: its mass (n,), score, Hess log p_t, and mean and covariance of x_0 given x_t.

    >>> OnPlane._fields
    ('mass', 'score', 'hessian', 'denoised', 'covariance')
    """

    mass: Any
    score: Any
    hessian: Any
    denoised: Any
    covariance: Any


@compile_small
def _on_plane(law: NoisedMixture, now: Any, x: Any) -> Any:
    zero = jnp.zeros(())
    here = eqx.tree_at(lambda noised: noised.schedule, law, Tangent(t_min=zero, t_max=zero, at=now))

    def one(at: Any) -> Any:
        hessian = jax.jacfwd(lambda y: here.score(y, zero))(at)
        score, denoised, covariance = (of(at, zero) for of in (here.score, here.denoise, here.covariance))
        return OnPlane(jnp.exp(here.log_prob(at, zero)), score, hessian, denoised, covariance)

    return jax.vmap(one)(x)


@kept
def on_plane(seed: int, name: str, t: float = NOW) -> OnPlane:
    """The library's noised law, of the first of ``plane_laws`` under the named schedule. Kept for the mutants.

    >>> round(float(on_plane(0, "walk").mass.sum()), 6)
    1.0
    """
    law = NoisedMixture(plane_laws(seed)[0], schedules()["walk"])
    found = OnPlane(*map(np.asarray, _on_plane(law, jnp.asarray(moments(name, [t])[0]), jnp.asarray(PLANE))))
    return found._replace(mass=found.mass * (_AXIS[1] - _AXIS[0]) ** 2)


def _truth(seed: int, name: str, steps: int) -> np.ndarray:
    """E h of p at ``NOW`` + steps Δt, (t, 8)."""
    at = numbers(NOW + steps * SHORT)[name]
    return wave_averages(seed, plane_laws(seed)[0], at.alpha, at.sigma)


# --- forward -----------------------------------------------------------------------------------------------------------


class Carried(NamedTuple):
    """Of one schedule and the steps ``SHORT``: E h (t, 8) after each half and after both.

    >>> Carried._fields
    ('random', 'deterministic', 'both')
    """

    random: np.ndarray
    deterministic: np.ndarray
    both: np.ndarray


@kept
def _carried(seed: int, name: str, half: float, root: float) -> Carried:
    p, score = on_plane(seed, name)[:2]
    found = [numbers([NOW, NOW + dt])[name] for dt in SHORT]
    shrink = np.array([n.scale[0] for n in found])[:, None, None]
    spread = np.array([n.variance[0] for n in found]) ** (0.5 * root)
    moved = PLANE + SHORT[:, None, None] * (found[0].drift[0] * PLANE - half * found[0].diffusion[0] * score)
    return Carried(
        averages_after(seed, shrink * PLANE, spread, p),
        averages_after(seed, moved, np.zeros_like(SHORT), p),
        averages_after(seed, shrink * moved, spread, p),
    )


def _halves(seed: int, *, half: float = 0.5, root: float = 1.0, steps: int = 2) -> Check:
    """The deterministic half lands at t + Δt, both at t + 2Δt, up to Δt²; from t + Δt both are off by Δt."""
    curves = {}
    for name in BOTH:
        at, once = _carried(seed, name, half, root), _truth(seed, name, 1)
        curves[f"the deterministic half, {name}"] = (SHORT, size_of(at.deterministic - once), 2.0)
        curves[f"both halves, {name}"] = (SHORT, size_of(at.both - _truth(seed, name, steps)), 2.0)
        curves[f"both are not one step, {name}"] = (SHORT, size_of(at.both - once), 1.0)
    return order(curves)


def _halves_random(seed: int, *, root: float = 1.0) -> Check:
    """x_t → α_{t+Δt|t} x_t + σ_{t+Δt|t} e carries p_t to p_{t+Δt} exactly, whatever the step."""
    return rounding({name: (_carried(seed, name, 0.5, root).random, _truth(seed, name, 1)) for name in BOTH})


# --- and back ----------------------------------------------------------------------------------------------------------


class Bent(eqx.Module):
    """A noised law whose score is multiplied by ``power``, for planted mistakes: D = x/α + power (E[x_0|x_t] − x/α).

    >>> law = NoisedMixture(plane_laws(0)[0], schedules()["walk"])
    >>> Bent(law, jnp.asarray(0.0)).denoise(jnp.ones(2), jnp.asarray(1.0)).tolist()
    [1.0, 1.0]
    """

    law: NoisedMixture
    power: Any

    @property
    def schedule(self) -> Schedule:
        """The law's."""
        return self.law.schedule

    def denoise(self, x: Any, t: Any) -> Any:
        """x/α + power (E[x_0|x_t = x] − x/α)."""
        whole = x / self.schedule.alpha(t)
        return whole + self.power * (self.law.denoise(x, t) - whole)


class Back(NamedTuple):
    """Where a step of each kernel leads without noise, centre (t, n, 2), and what unit noises add, B (t, n, 2, 2).

    >>> Back._fields
    ('euler', 'ddim', 'sde', 'sde_noise', 'ancestral', 'ancestral_noise')
    """

    euler: Any
    ddim: Any
    sde: Any
    sde_noise: Any
    ancestral: Any
    ancestral_noise: Any


KERNELS = (EulerODE, DDIM, ReverseSDE, Ancestral)  # what a step of ``Back`` is of


@compile_small
def _back(kernels: tuple, law: NoisedMixture, power: Any, x: Any, t: Any, steps: Any) -> Any:
    model = Bent(law, power)
    euler, ddim, sde, ancestral = (kernel(model) for kernel in kernels)
    key, noises = jax.random.key(0), jnp.asarray([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])

    def one(at: Any, dt: Any) -> Any:
        go = lambda kernel, e: kernel.move(kernel.init(key, at), e, (t, t - dt))[0].position  # noqa: E731

        def affine(kernel: Any) -> tuple[Any, Any]:
            landed = jax.vmap(lambda e: go(kernel, e))(noises)
            return landed[0], (landed[1:] - landed[0]).T

        none = noises[0]
        return Back(go(euler, None), go(ddim, none), *affine(sde), *affine(ancestral))

    return jax.vmap(lambda dt: jax.vmap(lambda at: one(at, dt))(x))(steps)


@kept
def reversed_steps(seed: int, name: str, power: float, kernels: tuple = KERNELS) -> Back:
    """One step back from ``NOW`` by each Δt of ``SHORT``, from every point of ``PLANE``. Kept for the mutants."""
    return _stepped(seed, name, power, kernels, SHORT)


@kept
def reversed_at_once(seed: int, name: str, power: float) -> Back:
    """One step from ``NOW`` to 0, the same five times over: it is the same program."""
    return _stepped(seed, name, power, KERNELS, np.full_like(SHORT, NOW))


def _stepped(seed: int, name: str, power: float, kernels: tuple, steps: np.ndarray) -> Back:
    law = NoisedMixture(plane_laws(seed)[0], either(name))
    found = _back(kernels, law, *(jnp.asarray(a) for a in (float(power), PLANE, NOW, steps)))
    return Back(*(np.asarray(a) for a in found))


def _reverse_ode(seed: int, *, power: float = 1.0, steps: int = -1, kernels: tuple = KERNELS) -> Check:
    """Euler's step of the probability-flow ODE, and DDIM's, lead from p_t to p_{t−Δt} up to Δt²."""
    curves = {}
    for name in BOTH:
        at, truth = reversed_steps(seed, name, power, kernels), _truth(seed, name, steps)
        p = on_plane(seed, name).mass
        for kernel, centre in {"Euler": at.euler, "DDIM": at.ddim}.items():
            landed = averages_after(seed, centre, np.zeros_like(SHORT), p)
            curves[f"{kernel}, {name}"] = (SHORT, size_of(landed - truth), 2.0)
    return order(curves)


def _reverse_sde(
    seed: int, *, power: float = 1.0, noise: float = 1.0, root: float = 0.0, kernels: tuple = KERNELS
) -> Check:
    """The SDE's step and the ancestral one lead to p_{t−Δt}; without noise and shrinking the SDE's leads to p_{t−2Δt}."""
    curves = {}
    for name in BOTH:
        at, drift = reversed_steps(seed, name, power, kernels), numbers([NOW])[name].drift[0]
        p = on_plane(seed, name).mass
        once, dt = _truth(seed, name, -1), SHORT[:, None, None]
        grown = noise * dt[..., None] ** root
        two_back = averages_after(seed, at.sde - dt * drift * PLANE, np.zeros_like(SHORT), p)
        curves[f"two back, {name}"] = (SHORT, size_of(two_back - _truth(seed, name, -2)), 2.0)
        for kernel, centre, b in (("SDE", at.sde, at.sde_noise), ("ancestral", at.ancestral, at.ancestral_noise)):
            landed = averages_after(seed, centre, grown * b, p)
            curves[f"{kernel}, {name}"] = (SHORT, size_of(landed - once), 2.0)
    return order(curves)


IDENTITIES = (
    Identity(
        "diffusion.halves",
        9,
        "x + (f x − ½ g² ∇ log p_t) Δt carries p_t to p_{t+Δt}, with the random half to p_{t+2Δt}, up to O(Δt²)",
        "order",
        _halves,
        {
            "½ missing": {"half": 1.0},
            "sign of the score": {"half": -0.5},
            "Δt e for √Δt e": {"root": 2.0},
            "both halves as one step": {"steps": 1},
        },
        "Wu's tutorial, diffusion; Song et al. 2021",
    ),
    Identity(
        "diffusion.halves.random",
        9,
        "α_{t+Δt|t} x + σ_{t+Δt|t} e carries p_t to p_{t+Δt} exactly",
        "rounding",
        _halves_random,
        {"Δt e for √Δt e": {"root": 2.0}},
        "Wu's tutorial, diffusion",
    ),
    Identity(
        "diffusion.reverse_ode",
        9,
        "x − (f x − ½ g² ∇ log p_t) Δt, for the walk x + (a/2) ∇ log p_t, carries p_t to p_{t−Δt} up to O(Δt²)",
        "order",
        _reverse_ode,
        {
            "½ missing": {"power": 2.0},
            "sign of the score": {"power": -1.0},
            "the noise level of the next step": {"steps": -2},
        },
        "Wu's tutorial, diffusion; Song et al. 2021; Song, Meng and Ermon 2021",
    ),
    Identity(
        "diffusion.reverse_sde",
        9,
        "x + (g² ∇ log p_t − f x) Δt + g√Δt e carries p_t to p_{t−Δt} up to O(Δt²): two back, one forward",
        "order",
        _reverse_sde,
        {
            "half of the score": {"power": 0.5},
            "sign of the score": {"power": -1.0},
            "noise halved": {"noise": 0.5},
            "Δt e for √Δt e": {"root": 0.5},
        },
        "Wu's tutorial, diffusion; Anderson 1982; Ho, Jain and Abbeel 2020",
    ),
)
