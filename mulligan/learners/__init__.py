"""Kernels that learn, run by ``mulligan.loop.run`` like any sampler: ``expectation_maximisation``, and where it starts: ``seeding``."""
