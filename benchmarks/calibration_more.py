"""More quantities for ``benchmarks.calibration``: trained families, what a fitted law answers, and normal laws.

A split of a setting of these kinds gives at most five quantities:

  trained      two small trainings (continuous flow, diffusion, VAE, GAN, logistic mixture) on moons
    log p             as above; truth by quadrature in the plane of the law, log p by its finer twin where it is numeric
    bound             a VAE's IWAE; truth: E log p by quadrature over the latent unit
    bound's mean      a diffusion's variational bound; truth: its mean over 8 000 fresh rows, one-sided
    bracket           E log p of a VAE's own rows, by annealing both ways; truth: the same by quadrature
    share             of a GAN's draws on one side of a line; truth: that of 200 000 draws
    AUC of itself     two sets of a model's draws against each other; truth 1/2
    difference        of two exact or numeric log p
  operations   one family in turn on moons; truths by quadrature in the plane of the model
    expectation       E tanh(x1 + x2)
    KL(model, law)    and JS, from draws
    log evidence      by weighted draws: of a value of x1, or of two ranges for the families whose value is exact
    integral of p     by importance sampling: 1
  normal laws  a Gaussian fitted to 5 columns of a Gaussian
    KL both ways, chi-square   from draws; truths in closed form
    imputation        share of hidden cells in a 90 % interval; truth: the intervals' mean probability under the law
    flagged           share of rows with conformal p <= .1; truth: that of 20 000 fresh rows

W2 of empirical laws is stated without an interval, so there is nothing to count.
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np
from scipy.special import logsumexp, ndtr
from scipy.stats import multivariate_normal

from benchmarks import calibration as base
from benchmarks.calibration import Claim, Setting
from mulligan.core import Density
from mulligan.data.table import Table
from mulligan.measures.anomaly import conformal_p
from mulligan.measures.distances import two_sample_auc
from mulligan.measures.divergences import Normal, chi_square, js, kl, normal_kl
from mulligan.measures.latent import simulated_log_prob
from mulligan.measures.likelihood import common_error
from mulligan.measures.normalisation import integral_of_model
from mulligan.quantity import Quantity, proportion
from mulligan.samplers.diffused import with_path
from mulligan.samplers.transported import transported
from mulligan.targets.known import gauss_legendre, log_prob_float64
from mulligan.workbench.comparison import difference_on_test
from mulligan.workbench.fitted import Fitted
from mulligan.workbench.imputation import impute
from mulligan.workbench.operations import condition, expectation
from mulligan.workbench.preparation import Prepared

SIDE = 160  # points on each axis of the plane of a model
DRAWS = 1000
FRESH = 8000
MANY = 200_000


class Claims(list[Claim]):
    """The claims of one split."""

    def __init__(self, setting: Setting, split: int):
        super().__init__()
        self.setting, self.split = setting, split

    def add(self, family: str, what: str, quantity: Quantity, truth: float, error: float = 0.0) -> None:
        """One more, unless it has no interval because it is exact."""
        in_errors = error / (quantity.stderr or np.inf)
        self.append(Claim(self.setting.name, family, what, self.split, quantity, float(truth), in_errors))


# --- trained families --------------------------------------------------------------------------------------------------


def claims_of_trained(setting: Setting, split: int) -> list[Claim]:
    """Two families of the setting, in turn."""
    prepared, fits = base.fit_some(setting, split, 2)
    test, claims = prepared.read_test("calibration"), Claims(setting, split)
    means: list[float | None] = []
    for fitted in fits:
        if not isinstance(fitted.model, Density):
            _of_draws(claims, fitted, split)
            means.append(None)
        elif fitted.family == "vae":
            _of_vae(claims, fitted, test, split)
            means.append(None)
        elif fitted.log_prob_kind == "lower bound":  # of the law of its reverse steps, which no quadrature knows
            fresh = base.log_prob_rows(fitted, base.rows_of(setting, FRESH, 10_000_000 + split))
            error = float(fresh.std() / np.sqrt(FRESH))
            claims.add(label_of(fitted), "bound's mean", fitted.evaluate(test), float(fresh.mean()), error)
            means.append(None)
        else:
            mean = _mean_log_p(setting, fitted)
            claims.add(label_of(fitted), "log p", fitted.evaluate(test), mean)
            means.append(mean)
    if means[0] is not None and means[1] is not None:
        pair = fits[0].row_likelihood(test), fits[1].row_likelihood(test)
        kinds = fits[0].log_prob_kind, fits[1].log_prob_kind
        common = common_error(fits[0].model, fits[1].model)
        difference = difference_on_test(*pair, kinds, test.values, prepared.test_clusters, common)
        claims.add(f"{label_of(fits[0])} - {label_of(fits[1])}", "difference", difference, means[0] - means[1])
    for fitted in fits:
        if isinstance(fitted.model, Density) and len(claims) < 5:
            _auc_of_itself(claims, fitted, split)
    return claims


def label_of(fitted: Fitted) -> str:
    """The family with its variant."""
    return fitted.family if fitted.variant is None else f"{fitted.family}:{fitted.variant}"


def _mean_log_p(setting: Setting, fitted: Fitted) -> float:
    """E log p over the law, by quadrature."""
    truth = base.truth_of(setting, True)
    return float(truth.weights @ base.log_prob_rows(finer(fitted), truth.values) / truth.weights.sum())


def finer(fitted: Fitted) -> Fitted:
    """The model with twice as many steps of its solver, where it has one: what its log p is about."""
    model = fitted.model
    if fitted.family == "diffusion":
        return replace(fitted, model=with_path(model, 2 * (len(model.path) - 1)))
    if fitted.family == "continuous-flow":
        twice = transported(model.velocity, steps=2 * (len(model.times) - 1), solver=model.solver)
        return replace(fitted, model=twice)
    return fitted


def _of_draws(claims: Claims, fitted: Fitted, split: int) -> None:
    many = fitted.sample(MANY, 1_000_000 + split).values
    few = fitted.sample(DRAWS, split).values
    at = float(np.quantile(claims_rows(claims.setting)[:, 0], 0.3))
    inside, truth = int((few[:, 0] < at).sum()), float((many[:, 0] < at).mean())
    claims.add(label_of(fitted), "share", proportion(inside, DRAWS), truth, 0.5 / np.sqrt(MANY))
    _auc_of_itself(claims, fitted, split)


def _auc_of_itself(claims: Claims, fitted: Fitted, split: int) -> None:
    one, other = fitted.sample(150, split).values, fitted.sample(150, 2_000_000 + split).values
    claims.add(label_of(fitted), "AUC of itself", two_sample_auc(one, other, fitted.schema, split), 0.5)


@lru_cache
def claims_rows(setting: Setting) -> np.ndarray:
    """Some rows of the law, the same for all splits."""
    return base.rows_of(setting, 2000, 17)


def _of_vae(claims: Claims, fitted: Fitted, test: Table, split: int) -> None:
    truth = base.truth_of(claims.setting, True)
    exact = vae_log_prob(fitted, truth.values)
    claims.add("vae", "bound", fitted.evaluate(test), float(truth.weights @ exact / truth.weights.sum()))
    values, cell = plane(fitted.sample(4000, 3_000_000 + split).values, SIDE)
    log_p = vae_log_prob(fitted, values)
    weights = np.exp(log_p) * cell
    encoded = fitted.codec.encode(values[:1])  # of numbers without cells: one Jacobian for all rows
    entropy = float(weights @ log_p / weights.sum()) - float(encoded.log_jacobian[0, 0])
    claims.add("vae", "bracket", simulated_log_prob(fitted.model, 64, chains=16, rungs=20, seed=split), entropy)


def vae_log_prob(fitted: Fitted, values: np.ndarray) -> np.ndarray:
    """log p of rows under a VAE with one latent unit, by quadrature over it."""
    import jax
    import jax.numpy as jnp

    nodes, weights = gauss_legendre(400, -7.0, 7.0)
    raw = np.asarray(
        jax.jit(jax.vmap(lambda z: fitted.model.laws(z).densities))(jnp.asarray(nodes[:, None], jnp.float32))
    )
    encoded = fitted.codec.encode(values)
    points = encoded.points[:, 0]
    centres, scales = raw[:, :, 1, 0].astype(np.float64), np.logaddexp(0, raw[:, :, 2, 0].astype(np.float64))
    prior = np.log(weights) - 0.5 * nodes**2 - 0.5 * np.log(2 * np.pi)
    total = np.empty(len(points))
    for block in np.array_split(np.arange(len(points)), max(1, len(points) // 2000)):
        standard = (points[block, None] - centres) / scales
        each = (-0.5 * standard**2 - np.log(scales) - 0.5 * np.log(2 * np.pi)).sum(-1)
        total[block] = logsumexp(each + prior, axis=1)
    return total + encoded.log_jacobian[:, 0]


# --- what a fitted law answers -----------------------------------------------------------------------------------------


def plane(rows: np.ndarray, side: int, margin: float = 0.35) -> tuple[np.ndarray, float]:
    """A grid of the plane around these rows, (side², 2), and the area of its cell."""
    reach = margin * np.ptp(rows, axis=0)
    axes = [np.linspace(a, b, side) for a, b in zip(rows.min(0) - reach, rows.max(0) + reach)]
    return np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 2), float(
        np.prod([axis[1] - axis[0] for axis in axes])
    )


def claims_of_operations(setting: Setting, split: int) -> list[Claim]:
    """One family of the setting."""
    fitted = base.fit_some(setting, split, 1)[1][0]
    claims, law = Claims(setting, split), base.law_of(setting)
    name = label_of(fitted)
    drawn = fitted.sample(DRAWS, split).values
    around = np.concatenate([fitted.sample(4000, 4_000_000 + split).values, claims_rows(setting)])
    values, cell = plane(around, SIDE)
    log_p, log_q = base.log_prob_rows(fitted, values), log_prob_float64(law, values)
    p, q = np.exp(log_p) * cell, np.exp(log_q) * cell
    f = np.tanh(values.sum(1))
    found = expectation(fitted, lambda rows: np.tanh(rows.values.sum(1)), draws=DRAWS, seed=5_000_000 + split)
    claims.add(name, "expectation", found, p @ f / p.sum())
    at_p = base.log_prob_rows(fitted, drawn), log_prob_float64(law, drawn)
    inside = p > 1e-14
    claims.add(name, "KL(model, law)", kl(*at_p), p[inside] @ (log_p - log_q)[inside] / p.sum())
    rows = base.rows_of(setting, DRAWS, 6_000_000 + split)
    at_q = base.log_prob_rows(fitted, rows), log_prob_float64(law, rows)
    middle = np.logaddexp(log_p, log_q) - np.log(2)
    truth = 0.5 * (p @ (log_p - middle) / p.sum() + q @ np.where(q > 0, log_q - middle, 0.0) / q.sum())
    claims.add(name, "JS", js(*at_p, *at_q), truth)
    low, high = values.min(0), values.max(0)
    _evidence(claims, fitted, split, low, high)
    claims.add(name, "integral of p", integral_of_model(fitted.model, split), 1.0)
    return claims


def _evidence(claims: Claims, fitted: Fitted, split: int, low: np.ndarray, high: np.ndarray) -> None:
    """log P(evidence) where it is an estimate, against Gauss and Legendre's rule."""
    rows = base.rows_of(claims.setting, 1, 7_000_000 + split)[0]
    names = fitted.schema.names
    closed = fitted.family in ("gaussian", "mixture", "kde", "factor")
    if closed:
        x, u = gauss_legendre(SIDE, float(rows[0]), float(high[0]))
        y, v = gauss_legendre(SIDE, float(rows[1]), float(high[1]))
        points, weights = np.stack(np.meshgrid(x, y, indexing="ij"), -1).reshape(-1, 2), np.outer(u, v).ravel()
        found = condition(fitted, {names[0]: (rows[0], None), names[1]: (rows[1], None)}, seed=split).log_evidence
    else:
        y, weights = gauss_legendre(2 * SIDE, float(low[1]), float(high[1]))
        points = np.stack([np.full_like(y, rows[0]), y], axis=1)
        found = condition(fitted, {names[0]: float(rows[0])}, seed=split).log_evidence
    if found.kind == "estimate":
        truth = logsumexp(base.log_prob_rows(fitted, points), b=weights)
        claims.add(label_of(fitted), "log evidence", found, truth)


# --- normal laws -------------------------------------------------------------------------------------------------------


def claims_of_normal(setting: Setting, split: int) -> list[Claim]:
    """A Gaussian fitted to rows of one: everything is known."""
    prepared, (fitted,) = base.fit_some(setting, split, 1)
    claims, known = Claims(setting, split), base.five_gaussian()
    root = np.asarray(known.cholesky, np.float64)
    p = Normal(np.asarray(known.mean, np.float64), root @ root.T)
    q = fitted_normal(fitted)
    laws = [multivariate_normal(one.mean, one.covariance) for one in (p, q)]
    rng = np.random.default_rng([split, 3])
    x, y = (law.rvs(DRAWS, random_state=rng) for law in laws)
    claims.add(
        "gaussian", "KL(law, model)", kl(laws[0].logpdf(x), base.log_prob_rows(fitted, x)), normal_kl(p, q).value
    )
    claims.add(
        "gaussian", "KL(model, law)", kl(base.log_prob_rows(fitted, y), laws[0].logpdf(y)), normal_kl(q, p).value
    )
    found = chi_square(laws[0].logpdf(y), base.log_prob_rows(fitted, y))
    truth = normal_chi_square(p, q)
    if found.value is not None and truth is not None:
        claims.add("gaussian", "chi-square", found, truth)
    _imputed(claims, fitted, p, split)
    _flagged(claims, fitted, prepared, split)
    return claims


def fitted_normal(fitted: Fitted) -> Normal:
    """The fitted Gaussian in the user's units."""
    mean = np.array([part.mean for part in fitted.codec.parts])  # type: ignore[union-attr]
    scale = np.array([part.scale for part in fitted.codec.parts])  # type: ignore[union-attr]
    inner, root = np.asarray(fitted.model.mean, np.float64), np.asarray(fitted.model.cholesky, np.float64)
    return Normal(mean + scale * inner, scale[:, None] * (root @ root.T) * scale)


def normal_chi_square(p: Normal, q: Normal) -> float | None:
    """∫p²/q − 1 of normal laws; None where it is infinite."""
    of_p, of_q = np.linalg.inv(p.covariance), np.linalg.inv(q.covariance)
    precision = 2 * of_p - of_q
    if np.linalg.eigvalsh(precision)[0] <= 0:
        return None
    linear = 2 * of_p @ p.mean - of_q @ q.mean
    constant = 2 * p.mean @ of_p @ p.mean - q.mean @ of_q @ q.mean
    dets = [np.linalg.slogdet(matrix)[1] for matrix in (p.covariance, q.covariance, precision)]
    log_mean = -dets[0] + 0.5 * dets[1] - 0.5 * dets[2] + 0.5 * (linear @ np.linalg.solve(precision, linear) - constant)
    return float(np.expm1(log_mean))


def _imputed(claims: Claims, fitted: Fitted, law: Normal, split: int) -> None:
    """One cell of each of 150 rows is hidden."""
    rng = np.random.default_rng([split, 4])
    rows = multivariate_normal(law.mean, law.covariance).rvs(2000, random_state=rng)
    hidden = rng.integers(0, 5, len(rows))
    shown = np.where(np.arange(5) == hidden[:, None], np.nan, rows)
    found = impute(fitted, shown, times=1, seed=split)
    precision = np.linalg.inv(law.covariance)
    at = found.cells
    variance = 1 / np.diag(precision)[at[:, 1]]
    centred = rows - law.mean
    away = np.einsum("ij,ij->i", precision[at[:, 1]], centred[at[:, 0]])
    mean = rows[tuple(at.T)] - variance * away
    sd = np.sqrt(variance)
    chance = ndtr((found.high - mean) / sd) - ndtr((found.low - mean) / sd)
    cells = rows[tuple(at.T)]
    held = ((found.low <= cells) & (cells <= found.high))[:150]
    claims.add("gaussian", "imputation", proportion(int(held.sum()), 150), chance.mean(), chance.std() / np.sqrt(2000))


def _flagged(claims: Claims, fitted: Fitted, prepared: Prepared, split: int) -> None:
    held = base.log_prob_rows(fitted, prepared.read_test("calibration").values)
    fresh = base.log_prob_rows(fitted, base.rows_of(claims.setting, 20_000, 8_000_000 + split))
    low = conformal_p(held, fresh) <= 0.1
    few = conformal_p(held, base.log_prob_rows(fitted, base.rows_of(claims.setting, 300, 9_000_000 + split))) <= 0.1
    claims.add("gaussian", "flagged", proportion(int(few.sum()), 300), low.mean(), np.sqrt(0.09 / 20_000))


KINDS: dict[str, Any] = {
    "trained": claims_of_trained,
    "operations": claims_of_operations,
    "normal": claims_of_normal,
}
