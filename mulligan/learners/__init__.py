"""Kernels that learn, run by ``mulligan.loop.run`` like any sampler: ``expectation_maximisation``, started by
``seeding``.
"""
