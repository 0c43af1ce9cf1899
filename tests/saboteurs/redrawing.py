"""Broken twins of rows that are drawn anew at each step: tests/exact/test_redrawing.py must refuse each."""

from __future__ import annotations

import jax

from mulligan.data.table import Table
from mulligan.objectives.likelihood import Redrawn


def _drawing(draw):
    def twin(monkeypatch):
        def broken(self, model, key, batch):
            of_rows, rest = jax.random.split(key)
            points = draw(of_rows, batch.points).astype(batch.points.dtype)
            return self.objective(model, rest, batch._replace(points=points))

        monkeypatch.setattr(Redrawn, "__call__", broken)

    return twin


DRAWS = {
    "the same bits at every step": _drawing(lambda key, p: jax.random.uniform(jax.random.key(0), p.shape) < p),
    "one number for all pixels of a row": _drawing(lambda key, p: jax.random.uniform(key, (len(p), 1)) < p),
    "black for white": _drawing(lambda key, p: jax.random.uniform(key, p.shape) < 1 - p),
    "no draw: half as a threshold": _drawing(lambda key, p: p > 0.5),
    "the brightness itself": _drawing(lambda key, p: p + 0 * jax.random.uniform(key, p.shape)),
}


def rows_without_chances(monkeypatch):
    """Rows of a split keep the chances of the whole table: each is drawn with those of another."""
    right = Table.rows

    def broken(self, index):
        some = right(self, index)
        if self.chances is not None:
            object.__setattr__(some, "chances", self.chances[: len(some)])
        return some

    monkeypatch.setattr(Table, "rows", broken)
