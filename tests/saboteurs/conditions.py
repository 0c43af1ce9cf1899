"""Broken twins of conditioning: each must be refused by the laws of tests/laws/test_conditioning_law.py."""

from __future__ import annotations

import numpy as np

from mulligan.data.regions import Region, region_of
from mulligan.models.counted import axis_log_shares
from mulligan.models.incomplete import log_joint
from mulligan.workbench.completion import Weighted, weigh
from mulligan.workbench.incomplete import continued


def evidence_ignored(codec, values, ranges=None):
    """Every coordinate is free."""
    right = region_of(codec, values, ranges)
    return Region(np.full_like(right.low, -np.inf), np.full_like(right.high, np.inf), right.log_jacobian)


def mask_inverted(codec, values, ranges=None):
    """The value that is known of one column is taken for the other's."""
    right = region_of(codec, values, ranges)
    return Region(right.low[:, ::-1], right.high[:, ::-1], right.log_jacobian)


def jacobian_forgotten(codec, values, ranges=None):
    return region_of(codec, values, ranges)._replace(log_jacobian=np.zeros(len(values)))


def weights_of_the_parts_not_updated(law, known):
    """w_k in place of w_k N(x_o; k)."""
    right = log_joint(law, known)
    return np.broadcast_to(right.mean(axis=0), right.shape) * 0.0 - np.log(right.shape[1])


def ratio_forgotten(space, region, draws, generator):
    """The proposal's draws as they come."""
    right = weigh(space, region, draws, generator)
    return Weighted(right.points, np.zeros_like(right.log_weights), right.exact)


def correction_missing(log_ratio, uniform):
    """Every move inside the box is taken."""
    return np.isfinite(log_ratio)


def each_group_from_one_candidate(weighted, draws, generator):
    """A group of particles that all start at one point."""
    return np.repeat(weighted.points[:, :1], draws, axis=1)


def nothing_taken(log_ratio, uniform):
    return np.zeros(log_ratio.shape, bool)


def evidence_not_counted(edges, tails, low, high):
    """Every axis is free."""
    return axis_log_shares(edges, tails, np.full_like(low, -np.inf), np.full_like(high, np.inf))


def cells_uncut(edges, cell, low, high, uniform):
    """A point anywhere in the cell, not only in what the interval leaves of it."""
    nearest = np.clip(cell, 0, len(edges) - 2)
    return edges[nearest] + uniform * (edges[nearest + 1] - edges[nearest])


def front_forgotten(fitted, values, known, draws, seed):
    """Columns behind drawn as if nothing were known of those in front."""
    return continued(fitted, np.full_like(values, np.nan), np.zeros_like(known), draws, seed)
