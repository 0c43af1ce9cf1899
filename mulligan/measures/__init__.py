"""Did it work: ``likelihood`` (log p of rows), ``partition`` (log Z), ``chains``, ``diagnosis`` and ``modes`` (do the chains
agree), ``stein`` (a discrepancy without Z), ``distances``, ``discrepancy``, ``manifold`` and ``frechet`` (two samples;
``samples`` takes all at once, in the ``space`` of a table), ``memory`` (copied rows), ``synthetic_use`` (what a predictor
learns from samples), ``strokes``, ``coverage`` (holes), ``calibration``, ``anomaly`` (p-values)."""
