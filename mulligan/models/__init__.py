"""Models that are fitted, one family a file: ``kernel_density``, ``factor``, ``empirical``.

Gaussians, mixtures and histograms are laws as well as models: they live in ``mulligan.targets``.
"""
