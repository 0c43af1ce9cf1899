"""The one list of what exists: families with their options, laws, tables, efforts. Standard library only.

Everything that names a family reads it here: Python arguments, command-line flags, help texts, messages, the table of
``mulligan families`` and the docs. A new family adds one entry to ``FAMILIES``; a test compares every entry with what
``isinstance`` says of the models it makes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType

from mulligan.entries import DESCENT, EFFORTS, TRAINING, Brought, Effort, Family, Option, near
from mulligan.errors import UsageError

__all__ = [
    "EFFORTS",
    "FAMILIES",
    "LAWS",
    "TABLES",
    "TRAINING",
    "Brought",
    "Effort",
    "Family",
    "Option",
    "find_family",
    "model_classes",
    "near",
    "parse_settings",
]

_REGULARISATION = Option(
    "regularisation", "float", 1e-6, "added to every variance, in units of the standardised columns", 0.0, 1.0
)

_FAMILIES = (
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
    Family(
        "autoregressive",
        ("ar", "made", "rnade"),
        (),
        ("Density", "Sampler"),
        log_p="exact",
        strokes="columns",
        balls="1",
        good_at="tables of mixed columns: exact log p of counts, categories and capped values",
        watch_for="draws one column at a time; the order of the columns matters a little",
        make="mulligan.families.autoregressive:make",
        classes=(
            "mulligan.models.autoregressive:Autoregressive",
            "mulligan.models.ensemble:Ensemble",
            "mulligan.models.columns:Columns",
            "mulligan.nets.masked:MaskedNet",
        ),
        options=(
            Option("order", "names", None, "columns to begin with, in this order; the others follow as they are"),
            Option("members", "integer", None, "models in the ensemble; one on large tables", 1, 256),
            Option("width", "integer", None, "hidden units of each layer of the masked network", 1, 4096),
            Option("depth", "integer", None, "residual blocks of the masked network", 0, 16),
            Option("parts", "integer", None, "parts of the mixture that each number's conditional law is", 1, 256),
            *TRAINING,
        ),
        conditional=True,
    ),
    Family(
        "flow",
        ("normalizing-flow", "normalising-flow", "nsf"),
        ("coupling", "autoregressive"),
        ("Density", "Sampler"),
        log_p="exact",
        strokes="1",
        balls="1",
        good_at="curved and correlated columns, rows by the thousand; log p and samples in one pass",
        watch_for="separate clouds are joined by thin bridges; few rows over-fit",
        make="mulligan.families.flow:make",
        classes=(
            "mulligan.models.flow:Flow",
            "mulligan.models.flow:CouplingLayer",
            "mulligan.models.flow:AutoregressiveLayer",
            "mulligan.models.flow:Mixing",
            "mulligan.nets.mlp:MLP",
            "mulligan.nets.masked:MaskedNet",
        ),
        options=(
            Option("layers", "integer", None, "layers, each a mixing and a spline", 1, 64),
            Option("width", "integer", None, "units of each hidden layer of the conditioning networks", 1, 4096),
            Option("depth", "integer", 2, "hidden layers of the conditioning networks", 0, 16),
            Option("bins", "integer", None, "bins of each spline", 2, 128),
            Option("bound", "float", 5.0, "splines act on [-bound, bound] of the standardised columns", 1.0, 100.0),
            *TRAINING,
        ),
        conditional=True,
    ),
    Family(
        "logistic-mixture",
        ("mixture-of-logistics",),
        (),
        ("Density", "Sampler"),
        log_p="exact",
        strokes="0",
        balls="1",
        good_at="several clouds with heavier tails than a Gaussian's",
        watch_for="correlated columns: within a part they are independent",
        make="mulligan.families.logistic_mixture:make",
        classes=("mulligan.models.logistic_mixture:LogisticMixture",),
        options=(Option("parts", "integer", 16, "number of parts", 1, 512), *DESCENT),
        in_compare=False,
    ),
    Family(
        "energy",
        ("ebm", "energy-based"),
        ("nce", "mle", "score-matching"),
        ("Density", "Energy", "Sampler"),
        log_p="estimate",
        strokes="model",
        balls="1",
        good_at="any shape that a network can bend its reference to; a score up to a constant",
        watch_for="log Z is found afterwards; draws come from chains",
        make="mulligan.families.energy:make",
        classes=(
            "mulligan.samplers.sampled:SampledEnergy",
            "mulligan.models.energy:EnergyModel",
            "mulligan.models.energy:Tilt",
            "mulligan.models.energy:Box",
            "mulligan.nets.mlp:MLP",
        ),
        options=(
            Option(
                "reference",
                "choice",
                None,
                "the law that f tilts",
                choices=("gaussian", "mixture", "flow", "box"),
            ),
            Option("width", "integer", None, "units of each hidden layer of f", 1, 4096),
            Option("depth", "integer", None, "hidden layers of f", 0, 16),
            Option("frequencies", "integer", 0, "random sines and cosines beside x as inputs of f", 0, 4096),
            Option(
                "noise",
                "choice",
                "reference",
                "nce: the law to tell from the data",
                choices=("reference", "flow", "adaptive"),
            ),
            Option("ratio", "integer", 2, "nce: draws of noise a row", 1, 64),
            Option(
                "negatives",
                "choice",
                "persistent",
                "mle: where the chains of a step start",
                choices=("persistent", "cd", "short-run", "replay", "tempered"),
            ),
            Option("sampler_steps", "integer", 10, "mle: Langevin steps of the chains in a step", 1, 10_000),
            Option("chains", "integer", None, "mle: number of chains", 1, 100_000),
            Option(
                "step_size", "float", None, "mle: Langevin's step, in standardised units; adapted if not set", 0.0, 1e6
            ),
            Option(
                "objective",
                "choice",
                "denoising",
                "score-matching: which loss",
                choices=("denoising", "exact", "sliced"),
            ),
            Option("sigma", "float", None, "score-matching: noise of denoising, in standardised units", 1e-3, 10.0),
            *TRAINING,
        ),
    ),
    Family(
        "boltzmann",
        ("rbm", "restricted-boltzmann"),
        ("exact", "pcd", "cd", "tempered"),
        ("Density", "Energy", "Sampler"),
        log_p="estimate",
        strokes="model",
        balls="1",
        good_at="binary columns that go together; log p is a probability, exact while one layer is small",
        watch_for="binary columns only; large machines need annealing for log Z, and their chains mix slowly",
        make="mulligan.families.boltzmann:make",
        classes=(
            "mulligan.models.boltzmann:BoltzmannMachine",
            "mulligan.models.boltzmann:EstimatedBoltzmannMachine",
        ),
        options=(
            Option("hidden", "integer", None, "hidden units", 1, 4096),
            Option("sampler_steps", "integer", None, "Gibbs sweeps of the chains in a step; by effort", 1, 10_000),
            Option("chains", "integer", None, "number of chains", 1, 100_000),
            *TRAINING,
        ),
        binary_only=True,
    ),
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
FAMILIES: Mapping[str, Family] = MappingProxyType({family.name: family for family in _FAMILIES})

# Names that mean a file wherever a file is asked for; an existing file wins.
LAWS: tuple[str, ...] = (
    "eight-gaussians",
    "grid-gaussians",
    "moons",
    "circles",
    "rings",
    "checkerboard",
    "spirals",
    "pinwheel",
    "banana",
    "funnel",
    "double-well",
    "rosenbrock",
    "ising-3x3",
    "potts-2x3",
    "rbm-6x4",
)
TABLES: tuple[str, ...] = ("penguins", "digits", "iris", "wine", "breast_cancer", "diabetes")


def model_classes() -> dict[str, str]:
    """Every class that a model folder may name, as "module:Class" by its name: those of all families."""
    return {place.split(":")[1]: place for family in FAMILIES.values() for place in family.classes}


def find_family(name: str | Brought) -> tuple[Family, str | None]:
    """The family and variant that ``name`` or ``name:variant`` means; aliases are understood.

    A model that the caller brings (``mulligan.Own``) has an entry of its own.

    >>> find_family("gmm")[0].name, find_family("factor:ppca")[1]
    ('mixture', 'ppca')

    Raises UsageError for an unknown family or variant, with the nearest name.
    """
    if not isinstance(name, str):
        entry = getattr(name, "entry", None)
        if not isinstance(entry, Family):
            raise UsageError(f"the family is {name!r}", do="a name, or mulligan.Own(build) for a model of your own")
        return entry, None
    stem, _, variant = name.partition(":")
    stem = stem.strip().lower()
    aliases = {alias: family for family in FAMILIES.values() for alias in family.aliases}
    family = FAMILIES.get(stem) or aliases.get(stem)
    if family is None:
        hint = near(stem, [*FAMILIES, *aliases])
        raise UsageError(f"no family '{stem}'{hint}", do=f"families: {', '.join(FAMILIES)}")
    if stem in family.variants and not variant:
        variant = stem
    if variant and variant not in family.variants:
        listed = ", ".join(family.variants) or "none"
        raise UsageError(
            f"{family.name} has no variant '{variant}'{near(variant, family.variants)}", do=f"variants: {listed}"
        )
    return family, variant or None


def parse_settings(settings: Iterable[str]) -> dict[str, dict[str, str]]:
    """``["mixture.parts=8"]`` to ``{"mixture": {"parts": "8"}}``; raises UsageError for another form."""
    parsed: dict[str, dict[str, str]] = {}
    for setting in settings:
        path, equals, value = setting.partition("=")
        family_name, dot, option = path.partition(".")
        if not (equals and dot and option):
            raise UsageError(f"--set is '{setting}'", do="--set FAMILY.OPTION=VALUE, for example --set mixture.parts=8")
        family, _ = find_family(family_name)
        parsed.setdefault(family.name, {})[option.replace("-", "_")] = value
    return parsed
