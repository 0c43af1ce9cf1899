"""Broken twins of EM with empty cells, of Rubin's rules, of imputations and of predictions: each must be refused."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from mulligan.learners.incomplete_rows import incomplete_rows, mixture_step


def covariance_forgotten(state, rows, covariance, regularisation):
    """Conditional means in place of unknown cells, as if they had been seen: their covariance does not enter."""
    (mean,), (factor,) = np.asarray(state.means), np.asarray(state.choleskys)
    whole, sigma = rows.points.copy(), factor @ factor.T
    for pattern in rows.patterns:
        o, u = pattern.observed, pattern.unknown
        slope = sigma[np.ix_(u, o)] @ np.linalg.inv(sigma[np.ix_(o, o)])
        whole[np.ix_(pattern.rows, u)] = mean[u] + (whole[np.ix_(pattern.rows, o)] - mean[o]) @ slope.T
    return mixture_step(state, incomplete_rows(whole), covariance, regularisation)


def incomplete_rows_dropped(points):
    return incomplete_rows(points[~np.isnan(points).any(axis=1)])


def columns_filled_with_their_means(points):
    return incomplete_rows(np.where(np.isnan(points), np.nanmean(points, axis=0), points))


def between_forgotten(q, u, pooled):
    return pooled(np.repeat(q.mean(0)[None], len(q), 0), u)


def finite_number_of_tables_forgotten(q, u, pooled):
    """T = Ū + B in place of Ū + (1 + 1/m)B."""
    estimate, within, between, _, degrees = pooled(q, u)
    return estimate, within, between, within + between, degrees


def draws_without_noise(prediction, noise):
    """Every completed table has the same best guesses."""
    return prediction


def parameters_taken_as_known(prediction, noise):
    return prediction + noise


def weights_not_updated(law):
    """p(k) in place of p(k | x)."""
    flat = np.log(np.exp(law.log_weights).mean(axis=0))
    return replace(law, log_weights=np.broadcast_to(flat, law.log_weights.shape))


def spread_of_the_marginal(law):
    return replace(law, sds=1.5 * law.sds)


def means_not_shifted(law):
    return replace(law, means=np.broadcast_to(law.means.mean(axis=0), law.means.shape))


def of_predictions():
    return [weights_not_updated, spread_of_the_marginal, means_not_shifted]
