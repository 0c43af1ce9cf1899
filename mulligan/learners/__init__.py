"""Kernels that learn, run by ``mulligan.loop.run`` like any sampler: ``expectation_maximisation``, started by
``seeding``; ``gradient`` with its ``watches``; ``contrastive`` and ``boltzmann``, which keep chains in their state.
"""
