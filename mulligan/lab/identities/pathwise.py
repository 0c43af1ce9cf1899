"""Chapter 9, diffusion as a latent variable model and as a flow: KL of whole paths, and likelihood along the ODE.

Definition. Forward q(x_0, …, x_T) = p_data Π q(x_t|x_s), backward p(x_T) Π p_θ(x_s|x_t). KL(q‖p) is −H(p_data) +
E KL(q(x_T|x_0)‖p(x_T)) + Σ_{s>0} E KL(q(x_s|x_t, x_0)‖p_θ(x_s|x_t)) − E log p_θ(x_0|x_Δt). Here q(x_s|x_t, x_0) is the
bridge, for the walk of mean x_t + (Δt/t)(x_0 − x_t) and variance a (t − Δt)/t. With p_θ = N(M_θ, (σ²_{t|s}/α²_{t|s}) I)
and M_θ = (x_t + σ²_{t|s} s_θ)/α_{t|s} a term is (σ²_{t|s}/2σ_t²)|ε − ε̂|² + const, for the walk (Δt/2t)|ε − ε̂|²: the
variational view is the score view. Along the probability-flow ODE log p_0(x_0) = log p_T(x_T) + ∫ div v dt, and a wrong
prior costs KL(p_T‖prior).
Identities: ``diffusion.kl_chain``, ``diffusion.two_views``, ``diffusion.ode_likelihood``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mulligan.lab.identities.diffusion import PLANE, on_plane
from mulligan.lab.identities.halves import plane_laws
from mulligan.lab.identities.noising import normal
from mulligan.lab.identities.schedules import BOTH, Numbers, either, kept, numbers
from mulligan.lab.identity import Check, Identity, excess, rounding
from mulligan.loop import compile_small
from mulligan.samplers.ode import solve_with_divergence
from mulligan.targets.noised import NoisedMixture

DIM = 2


class Affine(NamedTuple):
    """x ↦ N(matrix x + shift, spread).

    >>> Affine(np.eye(2), np.zeros(2), np.eye(2)).shift.tolist()
    [0.0, 0.0]
    """

    matrix: np.ndarray
    shift: np.ndarray
    spread: np.ndarray


class Moments(NamedTuple):
    """Mean and covariance of a Gaussian.

    >>> Moments(np.zeros(1), np.eye(1)).covariance.tolist()
    [[1.0]]
    """

    mean: np.ndarray
    covariance: np.ndarray


def expected_kl(law: Moments, left: Affine, right: Affine) -> float:
    """E KL(left(x) ‖ right(x)) over x ~ ``law``, in closed form.

    >>> kernel = Affine(np.zeros((1, 1)), np.zeros(1), np.eye(1))
    >>> expected_kl(Moments(np.zeros(1), np.eye(1)), kernel, kernel._replace(shift=np.ones(1)))
    0.5
    """
    inverse = np.linalg.inv(right.spread)
    matrix = left.matrix - right.matrix
    shift = matrix @ law.mean + left.shift - right.shift
    square = left.spread + matrix @ law.covariance @ matrix.T + np.outer(shift, shift)
    logs = np.linalg.slogdet(right.spread)[1] - np.linalg.slogdet(left.spread)[1]
    return float(0.5 * (np.trace(inverse @ square) - len(shift) + logs))


def constant(law: Moments) -> Affine:
    """A law as a kernel that does not look at x.

    >>> constant(Moments(np.ones(2), np.eye(2))).matrix.tolist()
    [[0.0, 0.0], [0.0, 0.0]]
    """
    return Affine(np.zeros_like(law.covariance), law.mean, law.covariance)


def kl(p: Moments, q: Moments) -> float:
    """KL(p‖q) of two Gaussians.

    >>> kl(Moments(np.ones(1), np.eye(1)), Moments(np.zeros(1), np.eye(1)))
    0.5
    """
    return expected_kl(p, constant(p), constant(q))


def path_law(start: Moments, kernels: list[Affine]) -> Moments:
    """The joint law of x ~ ``start`` and what each kernel in turn makes of it, in that order.

    >>> path_law(Moments(np.zeros(1), np.eye(1)), [Affine(np.eye(1), np.zeros(1), np.eye(1))]).covariance.tolist()
    [[1.0, 1.0], [1.0, 2.0]]
    """
    mean, covariance = start
    for kernel in kernels:
        reach = np.zeros((len(kernel.shift), len(mean)))
        reach[:, -kernel.matrix.shape[1] :] = kernel.matrix
        cross = reach @ covariance
        mean = np.concatenate([mean, reach @ mean + kernel.shift])
        covariance = np.block([[covariance, cross.T], [cross, reach @ covariance @ reach.T + kernel.spread]])
    return Moments(mean, covariance)


def some_law(rng: np.random.Generator) -> Moments:
    """A Gaussian of the plane.

    >>> some_law(np.random.default_rng(0)).mean.shape
    (2,)
    """
    root = rng.normal(size=(DIM, DIM))
    return Moments(rng.normal(size=DIM), 0.3 * np.eye(DIM) + root @ root.T / 2)


def marginal(law: Moments, alpha: float, sigma: float) -> Moments:
    """The law of α x_0 + σ e.

    >>> marginal(Moments(np.ones(1), np.eye(1)), 2.0, 1.0).covariance.tolist()
    [[5.0]]
    """
    return Moments(alpha * law.mean, alpha**2 * law.covariance + sigma**2 * np.eye(len(law.mean)))


def step_back(law: Moments, at: Numbers, i: int, exact: bool = True) -> Affine:
    """p(x_s|x_t) from time i + 1 to time i of ``at``, for a Gaussian law of x_0: by the score of p_t and its slope.

    ``exact=False`` is what a diffusion model takes: the same mean, the variance σ²_{t|s}/α²_{t|s} without the slope.

    >>> step_back(Moments(np.zeros(1), np.eye(1)), numbers([1.0, 4.0])["EDM"], 0).spread.round(4).tolist()
    [[1.7647]]
    """
    mean, covariance = marginal(law, at.alpha[i + 1], at.sigma[i + 1])
    hessian = -np.linalg.inv(covariance)  # the score is hessian (x − mean)
    v, scale, unit = at.variance[i], at.scale[i], np.eye(len(mean))
    spread = (v * unit + exact * v**2 * hessian) / scale**2
    return Affine((unit + v * hessian) / scale, -v * hessian @ mean / scale, spread)


def _bridge_variance(at: Numbers, i: int) -> float:
    return at.bridge[i]


def _whole_variance(at: Numbers, i: int) -> float:
    """A planted mistake: a for a (t − Δt)/t."""
    return at.variance[i]


def _kl_chain(seed: int, *, variance: Callable = _bridge_variance, ends: float = 1.0, entropy: float = 1.0) -> Check:
    """Joint laws, the theory's sum with bridges, and the chain rule over time: one number, three ways."""
    rng, pairs = np.random.default_rng([seed, 98]), {}
    data, believed, prior = some_law(rng), some_law(rng), some_law(rng)
    unit, zero = np.eye(DIM), np.zeros(DIM)
    for name in BOTH:
        at = numbers([0.0, 0.1, 0.22, 0.4, 0.55])[name]
        n = len(at.alpha) - 1
        # The law that the model takes p_data to be is wrong, and so is its prior.
        back = [step_back(believed, at, i, exact=False) for i in range(n)]
        forward = [Affine(at.scale[i] * unit, zero, at.variance[i] * unit) for i in range(n)]
        q, p = path_law(data, forward), path_law(prior, back[::-1])
        flipped = np.arange(DIM * (n + 1)).reshape(n + 1, DIM)[::-1].ravel()
        joint = kl(q, Moments(p.mean[flipped], p.covariance[np.ix_(flipped, flipped)]))

        last = Affine(at.alpha[n] * unit, zero, at.sigma[n] ** 2 * unit)
        total = -entropy * 0.5 * (DIM * np.log(2 * np.pi * np.e) + np.linalg.slogdet(data.covariance)[1])
        total += ends * expected_kl(data, last, constant(prior))
        for i in range(1, n):
            both = path_law(data, [Affine(at.alpha[i + 1] * unit, zero, at.sigma[i + 1] ** 2 * unit)])
            bridge = Affine(np.hstack([at.of_x_0[i] * unit, at.of_x_t[i] * unit]), zero, variance(at, i) * unit)
            model = back[i]._replace(matrix=np.hstack([np.zeros((DIM, DIM)), back[i].matrix]))
            total += expected_kl(both, bridge, model)
        first = Moments(q.mean[: 2 * DIM], q.covariance[: 2 * DIM, : 2 * DIM])
        error = np.hstack([unit, -back[0].matrix])
        off = error @ first.mean - back[0].shift
        square = error @ first.covariance @ error.T + np.outer(off, off)
        total += 0.5 * np.trace(np.linalg.solve(back[0].spread, square))
        total += 0.5 * (DIM * np.log(2 * np.pi) + np.linalg.slogdet(back[0].spread)[1])

        chain = kl(marginal(data, at.alpha[n], at.sigma[n]), prior)
        for i in range(n):
            later = marginal(data, at.alpha[i + 1], at.sigma[i + 1])
            chain += expected_kl(later, step_back(data, at, i), back[i])
        pairs[f"with bridges, {name}"] = (total, joint)
        pairs[f"the chain rule over time, {name}"] = (chain, joint)
        alone = kl(data, Moments(p.mean[-DIM:], p.covariance[-DIM:, -DIM:]))
        pairs[f"at least KL(p_data‖p_0), {name}"] = (excess(alone, total), 0.0)
    return rounding(pairs, 1e-10)


def _two_views(seed: int, *, half: float = 0.5, swapped: bool = False, root: float = 1.0) -> Check:
    """KL(bridge ‖ N(M_θ, a)) at random x_0, ε and ε̂, less its value at ε̂ = ε; M_θ from the score and from the bridge."""
    rng, pairs = np.random.default_rng([seed, 99]), {}
    times = np.sort(rng.uniform(0.05, 0.9, 6))
    x_0, noise, guess = rng.normal(size=(3, 100, 5))
    for name, at in numbers(times).items():
        a, s, scale, v = at.alpha[1:], at.sigma[1:], at.scale, at.variance
        x_t = a * x_0 + s * noise
        bridge = at.of_x_t * x_t + at.of_x_0 * x_0
        wide = v**root / scale**2

        def divergence(believed: Any) -> tuple[Any, Any]:
            mean = (x_t - v * believed / s) / scale  # noqa: B023
            apart = np.log(wide / at.bridge) + (at.bridge + (bridge - mean) ** 2) / wide - 1  # noqa: B023
            return mean, 0.5 * apart

        (mean, found), (_, least) = divergence(guess), divergence(noise)
        weight = half * v / (at.sigma[:-1] if swapped else s) ** 2
        pairs[f"M_θ, {name}"] = (mean, at.of_x_t * x_t + at.of_x_0 * (x_t - s * guess) / a)
        pairs[f"KL, {name}"] = (found - least, weight * (noise - guess) ** 2)
        snr = (
            at.alpha / at.sigma
        ) ** 2  # with the bridge's own variance the weight of |x_0 − x̂_0|² is ½ (snr(s) − snr(t))
        pairs[f"the bridge's variance, {name}"] = (at.of_x_0**2 / at.bridge, 2 * half * (snr[:-1] - snr[1:]))
        if name == "walk":
            pairs["(Δt/2t)|ε − ε̂|²"] = (found - least, half * np.diff(times) / times[1:] * (noise - guess) ** 2)
    return rounding(pairs)


# --- likelihood along the ODE ------------------------------------------------------------------------------------------

EARLY, LATE = 0.05, 0.4


@compile_small
def _flowed(law: NoisedMixture, x: Any, times: Any) -> Any:
    return jax.vmap(lambda at: solve_with_divergence(law.velocity, at, times, "rk4"))(x)


@compile_small
def _estimated(law: NoisedMixture, x: Any, times: Any, probes: Any) -> Any:
    return jax.vmap(lambda at: solve_with_divergence(law.velocity, at, times, "rk4", probes)[1])(x)


_GRID = np.geomspace(EARLY, LATE, 49)
_SIGNS = np.array([[1, 1], [1, -1], [-1, 1], [-1, -1]], float)


@kept
def flowed(seed: int, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Where the ODE leads from ``EARLY`` to ``LATE`` from every point of ``PLANE``, and ∫ div v. Kept for the mutants."""
    law = NoisedMixture(plane_laws(seed)[0], either(name))
    end, divergence = _flowed(law, jnp.asarray(PLANE), jnp.asarray(_GRID))
    return np.asarray(end), np.asarray(divergence)


@kept
def _walked(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """For the walk: estimates of ∫ div v by all four pairs of signs, (n, 4), and where the ODE leads back to."""
    law = NoisedMixture(plane_laws(seed)[0], either("walk"))
    estimates = _estimated(law, *(jnp.asarray(a) for a in (PLANE, _GRID, _SIGNS)))
    returned, _ = _flowed(law, jnp.asarray(flowed(seed, "walk")[0]), jnp.asarray(_GRID[::-1]))
    return np.asarray(estimates), np.asarray(returned)


def _ode_likelihood(seed: int, *, sign: float = 1.0, probes: int = 4, prior: float = 2.0) -> Check:
    """log p at the start by p_T and ∫ div v; the mean over all signs is the trace; N(0, σ_T² I) costs KL(p_T‖it)."""
    pairs: dict[str, tuple[Any, Any]] = {}
    for name in BOTH:
        (end, divergence), law, at = flowed(seed, name), plane_laws(seed)[0], numbers([EARLY, LATE])[name]
        start, late = on_plane(seed, name, EARLY).mass, on_plane(seed, name, LATE)
        log_p = _log_mixture(law, at, end) + sign * divergence
        here = _log_mixture(law, at, PLANE, 0)
        inner = np.abs(PLANE).max(axis=1) < 4
        pairs[f"log p, {name}"] = (log_p[inner], here[inner])
        if name == "walk":
            estimates, returned = _walked(seed)
            pairs["Hutchinson"] = (estimates[:, :probes].mean(axis=1)[inner], divergence[inner])
            pairs["there and back"] = (returned[inner], PLANE[inner])
        variance = at.sigma[1] ** prior
        flat = lambda x: normal(x, 0.0, variance).sum(axis=-1)  # noqa: E731, B023
        gap = start @ (here - (flat(end) + divergence))
        truth = np.square(at.sigma[1])
        cost = late.mass @ (_log_mixture(law, at, PLANE) - normal(PLANE, 0.0, truth).sum(axis=-1))
        pairs[f"the prior's cost, {name}"] = (gap, cost)
    return rounding(pairs, 1e-6)


def _log_mixture(law: Any, at: Numbers, x: np.ndarray, i: int = 1) -> np.ndarray:
    """log p at the i-th time of ``at``, in NumPy."""
    parts = []
    for weight, mean, root in zip(*(np.asarray(a) for a in (law.weights, law.means, law.choleskys))):
        covariance = at.alpha[i] ** 2 * root @ root.T + at.sigma[i] ** 2 * np.eye(DIM)
        z = np.linalg.solve(np.linalg.cholesky(covariance), (x - at.alpha[i] * mean).T)
        parts.append(np.log(weight) - 0.5 * ((z**2).sum(axis=0) + np.log(np.linalg.det(2 * np.pi * covariance))))
    return np.logaddexp.reduce(parts)


IDENTITIES = (
    Identity(
        "diffusion.kl_chain",
        9,
        "KL of path laws = −H(p_data) + E KL(q(x_T|x_0)‖p) + Σ E KL(bridge‖p_θ(x_s|x_t)) − E log p_θ(x_0|x_Δt)",
        "rounding",
        _kl_chain,
        {
            "a for a(t − Δt)/t": {"variance": _whole_variance},
            "p(x_T) left out": {"ends": 0.0},
            "the data's entropy left out": {"entropy": 0.0},
        },
        "Sohl-Dickstein et al. 2015; Ho, Jain and Abbeel 2020",
    ),
    Identity(
        "diffusion.two_views",
        9,
        "KL(bridge‖N(M_θ, a)) = (Δt/2t)|ε − ε̂|² + const with M_θ = x_t + a s_θ; in general σ²_{t|s}/2σ_t² for Δt/2t",
        "rounding",
        _two_views,
        {"½ missing": {"half": 1.0}, "σ_s for σ_t": {"swapped": True}, "√Δt for Δt": {"root": 0.5}},
        "Wu's tutorial, diffusion; Ho, Jain and Abbeel 2020; Kingma, Salimans, Poole and Ho 2021",
    ),
    Identity(
        "diffusion.ode_likelihood",
        9,
        "log p_0(x_0) = log p_T(x_T) + ∫ div v dt along the ODE; E over ±1 probes is exact; a prior costs KL(p_T‖prior)",
        "rounding",
        _ode_likelihood,
        {
            "sign of the divergence": {"sign": -1.0},
            "one probe": {"probes": 1},
            "σ for σ² in the prior": {"prior": 1.0},
        },
        "Chen et al. 2018; Grathwohl et al. 2019; Song et al. 2021",
    ),
)
