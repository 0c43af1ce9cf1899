"""Entries of the families that need no network: counting, closed forms and EM, and the baselines."""

from __future__ import annotations

from mulligan.entries import Family, Option

_REGULARISATION = Option(
    "regularisation", "float", 1e-6, "added to every variance, in units of the standardised columns", 0.0, 1.0
)

CLOSED_FORM = (
    Family(
        "gaussian",
        ("normal", "mvn"),
        (),
        ("Density", "Sampler"),
        log_p="exact",
        strokes="0",
        balls="1",
        good_at="one cloud; a baseline that takes no time",
        watch_for="covers all modes with one",
        make="mulligan.families.gaussian:make",
        incomplete=True,
        weighted=True,
        classes=("mulligan.targets.gaussian:Gaussian",),
        baseline=True,
    ),
    Family(
        "mixture",
        ("gmm", "gaussian-mixture", "em"),
        (),
        ("Density", "Sampler"),
        log_p="exact",
        strokes="0",
        balls="1",
        good_at="several clouds, small tables, a table of parameters",
        watch_for="thin curved supports need many parts",
        make="mulligan.families.mixture:make",
        incomplete=True,
        weighted=True,
        classes=("mulligan.targets.mixture:GaussianMixture",),
        options=(
            Option("parts", "integers", None, "number of Gaussians; several are compared on select", 1, 512),
            Option(
                "covariance", "choice", None, "shape of the parts", choices=("full", "tied", "diagonal", "spherical")
            ),
            Option("restarts", "integer", None, "starts of EM for each choice", 1, 100),
            _REGULARISATION,
        ),
    ),
    Family(
        "kde",
        ("kernel", "kernel-density", "parzen"),
        (),
        ("Density", "Sampler"),
        log_p="exact",
        strokes="0",
        balls="1",
        good_at="any shape in one to three columns",
        watch_for="many columns; the model is the training rows",
        make="mulligan.families.kde:make",
        classes=("mulligan.models.kernel_density:KernelDensity",),
        holds_rows=True,
        weighted=True,
        options=(
            Option("bandwidth", "float", None, "kernel width in units of the standardised columns", 1e-4, 100.0),
            Option("kernel", "choice", None, "shape of the kernel", choices=("spherical", "full")),
        ),
        baseline=True,
    ),
    Family(
        "factor",
        ("ppca", "factor-analysis", "fa"),
        ("analysis", "ppca"),
        ("Density", "Sampler"),
        log_p="exact",
        strokes="0",
        balls="1",
        good_at="many correlated columns, latent variables",
        watch_for="one cloud only",
        make="mulligan.families.factor:make",
        incomplete=True,
        classes=("mulligan.models.factor:FactorModel",),
        options=(
            Option("factors", "integers", None, "number of latent factors; several are compared on select", 0, 512),
        ),
    ),
    Family(
        "histogram",
        ("counting", "bins"),
        (),
        ("Density", "Sampler"),
        log_p="exact",
        strokes="0",
        balls="1",
        good_at="one to three columns, counting",
        watch_for="empty cells grow with every column",
        make="mulligan.families.histogram:make",
        classes=("mulligan.targets.counting:Histogram",),
        options=(
            Option("bins", "integers", None, "cells on each axis; several are compared on select", 2, 1000),
            Option("pseudo_count", "float", None, "added to the count of every cell", 1e-6, 100.0),
        ),
        most_columns=3,
    ),
)

# Shown last: what perfect-looking samples without a model score.
BASELINE = (
    Family(
        "resample",
        ("bootstrap",),
        (),
        ("Sampler",),
        log_p="none",
        strokes="0",
        balls="1",
        good_at="what perfect-looking samples without a model score",
        watch_for="repeats training rows; no log p",
        make="mulligan.families.resample:make",
        classes=("mulligan.models.empirical:Empirical",),
        holds_rows=True,
        baseline=True,
    ),
)
