"""Did it work: ``likelihood`` (log p of rows), ``distances`` (two samples), ``coverage`` (holes), ``calibration``."""
