"""Models that are fitted, one family a file: ``kernel_density``, ``factor``, ``autoregressive``, ``flow``,
``energy``, ``boltzmann``, ``logistic_mixture``, ``empirical``; and what several share: ``columns``, ``heads``, ``ensemble``.

Gaussians, mixtures and histograms are laws as well as models: they live in ``mulligan.targets``.
"""
