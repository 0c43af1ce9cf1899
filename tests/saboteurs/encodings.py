"""Broken twins of the codec: each is a patch of ``mulligan.data.codec`` that tests/exact/test_codec.py must reject."""

from __future__ import annotations

import numpy as np

from mulligan.data import codec


def width_forgotten(monkeypatch):
    """A discrete value's bound without the width of its cell."""
    right = codec._encode_number

    def broken(column, part, values, u, m):
        latent, extra = right(column, part, values, u, m)
        low, high = codec._cells(column, part, values)
        return latent, extra - np.log(np.where(high > low, high - low, 1.0))[:, None]

    monkeypatch.setattr(codec, "_encode_number", broken)


def overlapping_cells(monkeypatch):
    """Cells that reach to the neighbours' values instead of half-way."""
    right = codec._cells

    def broken(column, part, values):
        low, high = right(column, part, values)
        return low - (high - low) / 2, high + (high - low) / 2

    monkeypatch.setattr(codec, "_cells", broken)


def mass_forgotten(monkeypatch):
    """A category's draws weighted as if they came from the whole line."""
    right = codec._encode_levels

    def broken(part, codes, u):
        y, _ = right(part, codes, u)
        return y, (0.5 * y**2 + 0.5 * np.log(2 * np.pi)).sum(2)

    monkeypatch.setattr(codec, "_encode_levels", broken)


def equal_shares(monkeypatch):
    """Thresholds that split every stick in half, whatever the categories' shares are."""
    right = codec._sticks

    def broken(part):
        thresholds, mass = right(part)
        return np.zeros_like(thresholds), np.full_like(mass, 0.5)

    monkeypatch.setattr(codec, "_sticks", broken)


def slope_forgotten(monkeypatch):
    """log J without the transform's slope."""
    right = codec.transform

    def broken(column, v):
        latent, slope = right(column, v)
        return latent, np.zeros_like(slope)

    monkeypatch.setattr(codec, "transform", broken)


def scale_upside_down(monkeypatch):
    """log J + log scale in place of − log scale."""
    right = codec._encode_number

    def broken(column, part, values, u, m):
        latent, extra = right(column, part, values, u, m)
        return latent, extra + 2 * np.log(part.scale)

    monkeypatch.setattr(codec, "_encode_number", broken)
