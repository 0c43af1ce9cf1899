"""Networks: plain Equinox modules, initialised with NumPy; no law, no loss."""
