"""Measurements that take longer than a test: ``peers`` (speed beside scikit-learn), ``tables`` (published protocols),
``laws`` (gaps to laws known exactly, the records to beat), ``calibration`` (do the intervals hold). Results are kept as
text in ``results/``.
"""
