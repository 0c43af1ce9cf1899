"""Rows given evidence by the way that a family has of its own; the others go by the general method of ``completion``.

Definition. An autoregressive model continues rows whose first columns in its order are known, exactly; a vae goes through
its latent vector. Identity: ``density.conditional``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mulligan.data.native import NativeCodec
from mulligan.models.vae import VAE
from mulligan.workbench.incomplete import continued, leading, leading_terms, with_some
from mulligan.workbench.latents import Drawn, latent_rows

if TYPE_CHECKING:
    from mulligan.workbench.fitted import Fitted

Ranges = dict[str, tuple[float, float]] | None


def has_own_way(fitted: Fitted, unknown: np.ndarray, ranges: Ranges = None) -> np.ndarray:
    """Rows of ``unknown`` (n, columns) that ``directly`` answers, bool (n,)."""
    if not isinstance(fitted.codec, NativeCodec):
        return np.zeros(len(unknown), bool)
    if isinstance(fitted.model, VAE):
        return np.ones(len(unknown), bool)
    return (leading(fitted, unknown) >= 0) & (not ranges)


def directly(fitted: Fitted, values: np.ndarray, ranges: Ranges, draws: int, seed: int) -> Drawn:
    """``draws`` rows for each of ``values`` (n, columns; NaN in unknown cells), and log p of what is known of it.

    Where log p is exact it needs no draws, and ``draws`` may be 0.

    >>> import mulligan as mg
    >>> rows = {"a": np.linspace(-1, 1, 200), "b": np.linspace(-1, 1, 200) ** 3}
    >>> fitted = mg.fit(rows, "autoregressive", effort="quick", steps=5, members=1)
    >>> found = directly(fitted, np.array([[0.5, np.nan]]), None, 3, 0)
    >>> found.method, found.values.shape, found.values[0, :, 0].tolist()
    ('exact', (1, 3, 2), [0.5, 0.5, 0.5])
    """
    if isinstance(fitted.model, VAE):
        return latent_rows(fitted, values, ranges, max(1, draws), seed)
    known = leading(fitted, np.isnan(values))
    rows = continued(fitted, values, known, draws, seed) if draws else np.empty((len(values), 0, values.shape[1]))
    return Drawn(rows, leading_terms(fitted, with_some(fitted, values), known), np.zeros(len(values)), "exact", {})
