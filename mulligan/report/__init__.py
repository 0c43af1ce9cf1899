"""The scorecard: JSON, Markdown, terminal lines and one HTML page, made from plain dictionaries.

This layer is at the bottom: it knows no model and no family, only the report (format 1, ``schema/report.schema.json``).
``cells`` says once what the table shows, ``reading`` puts the numbers into sentences, and ``writing``, ``terminal`` and
``html`` are the three places where both are read. ``svg``, ``figures`` and ``panels`` draw.
"""
