"""What people do: open a table, fit a family, compare families, keep and reload what was fitted.

``sources`` (names, files and objects to tables), ``preparation`` (one split, one codec, one encoding for all),
``fitting`` (``fit`` and ``Fitted``), ``comparison`` (``compare`` and ``Scorecard``), ``artifact`` (model folders),
``talk`` (who hears of progress).
"""
