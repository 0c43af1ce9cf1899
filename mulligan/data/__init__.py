"""What a table is, how files become one, and how rows become vectors: NumPy only, no JAX.

Files in reading order: ``table`` (column, schema, table), ``reading`` (files), ``frames`` (DataFrames, arrays),
``inspection`` (from raw cells to a schema, with every finding said), ``images`` and ``pixels`` (pictures as tables),
``builtin`` (shipped tables), ``codec`` (rows to R^d
and back with the log-Jacobian), ``splits`` (train, select, test).
"""
