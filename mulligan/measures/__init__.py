"""Did it work: ``likelihood`` (log p of rows), ``partition`` (log Z), ``chains``, ``diagnosis`` and ``modes`` (do the chains
agree), ``stein`` (a discrepancy without Z), ``distances`` (two samples), ``coverage`` (holes), ``calibration``."""
