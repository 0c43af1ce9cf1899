"""Maximum likelihood as a projection: the data's law, the curve of models, and the theorem of Pythagoras for KL.

Definition. Laws of three genotypes aa, aA, AA are points of a triangle. Random mating with allele frequency π gives the
law ((1−π)², 2π(1−π), π²), a one-parameter exponential family: a curve. For p on the curve KL(p_data‖p) = KL(p_data‖p*) +
KL(p*‖p), with p* the maximum of the likelihood. Serves ``mle.projection`` and the picture of p_data projected onto the
models.
"""

from __future__ import annotations

from typing import Annotated

import numpy as np

from mulligan.lab.experiment import Range, experiment
from mulligan.lab.identity import excess, rounding
from mulligan.lab.recording import Bars, Curve, Panel, Paths, Points, Recording, Scale
from mulligan.quantity import Quantity
from mulligan.targets.counting import Histogram

FRAMES = 25
_CORNERS = np.array([[0.0, 0.0], [0.5, np.sqrt(0.75)], [1.0, 0.0]])  # aa, aA, AA
_GENOTYPES = np.linspace(-0.5, 2.5, 4)  # cells around 0, 1, 2 alleles A


def mating_law(frequency: np.ndarray) -> np.ndarray:
    """((1−π)², 2π(1−π), π²): (…, 3) for π (…,).

    >>> mating_law(np.array(0.5)).tolist()
    [0.25, 0.5, 0.25]
    """
    f = np.asarray(frequency, np.float64)
    return np.stack([(1 - f) ** 2, 2 * f * (1 - f), f**2], axis=-1)


def kl_of_states(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """KL(p‖q) = Σ p log p/q over the last axis, with 0 log 0 = 0.

    >>> float(kl_of_states(np.array([1.0, 0.0]), np.array([0.5, 0.5])).round(4))
    0.6931
    """
    p, q = np.broadcast_arrays(p, q)
    return np.sum(np.where(p > 0, p * (np.log(np.where(p > 0, p, 1.0)) - np.log(q)), 0.0), axis=-1)


def _placed(p: np.ndarray) -> np.ndarray:
    """Where laws (…, 3) lie in the triangle."""
    return p @ _CORNERS


@experiment(2, "Maximum likelihood is a projection onto the models")
def projection(
    *,
    n: Annotated[int, Range(20, 100_000)] = 400,
    inbreeding: Annotated[float, Range(0.0, 0.9)] = 0.5,
    frequency: Annotated[float, Range(0.1, 0.9)] = 0.4,
    seed: int = 0,
) -> Recording:
    """Counted genotypes, the curve of random mating, and KL from the data to each p on it, split at the projection p*.

    KL(p_data‖p) = KL(p_data‖p*) + KL(p*‖p), where p* has the data's mean number of alleles. Parameters: ``n`` people;
    ``inbreeding`` F and allele ``frequency`` of the law they are drawn from, which is off the curve by F. Raises
    UsageError for a value out of its range. Source: Csiszár (1975).

    >>> from mulligan.lab.experiments.projection import projection
    >>> projection(n=50, seed=1).holds
    True
    """
    rng = np.random.default_rng(seed)
    related = np.array([1 - frequency, 0.0, frequency])  # both alleles from one ancestor
    people = rng.choice(3, size=n, p=(1 - inbreeding) * mating_law(np.array(frequency)) + inbreeding * related)
    counted = Histogram.from_rows(people[:, None], [_GENOTYPES])
    data = np.asarray(counted.counts) / n
    best = float(np.clip(data @ np.arange(3) / 2, 1e-6, 1 - 1e-6))
    moving = np.linspace(0.06, 0.94, FRAMES)
    models, nearest = mating_law(moving), mating_law(np.array(best))
    whole, miss, along = kl_of_states(data, models), kl_of_states(data, nearest), kl_of_states(nearest, models)
    return Recording(
        panels=(
            _triangle(data, nearest, models),
            _bars(whole, float(miss), along),
            _curve(data, nearest, moving, whole, best, float(miss)),
        ),
        captions=tuple(
            f"Allele frequency π = {f:.2f}: KL(p_data‖p) = {w:.3f} nats, of which {miss:.3f} is out of the model's reach "
            f"and {a:.3f} is the way along the curve from p*."
            for f, w, a in zip(moving, whole, along)
        ),
        see="The likelihood's maximum p* is the foot of a perpendicular: KL to any other model is the sum of two legs.",
        numbers={
            "KL(p_data‖p)": _exact(whole),
            "KL(p_data‖p*)": _exact(np.atleast_1d(miss)),
            "KL(p*‖p)": _exact(along),
        },
        checks={
            "KL(p_data‖p) = KL(p_data‖p*) + KL(p*‖p) along the curve": rounding({"each p": (whole, miss + along)}),
            "no p on the curve is nearer than p*": rounding({"each p": (excess(miss, whole), 0.0)}),
            "p* has the data's average of the statistic": rounding({"E s": (nearest @ np.arange(3), 2 * best)}),
        },
        rate=4.0,
    )


def _exact(values: np.ndarray) -> tuple[Quantity, ...]:
    return tuple(Quantity(float(v), "exact", float(v), float(v), unit="nats") for v in values)


def _triangle(data: np.ndarray, nearest: np.ndarray, models: np.ndarray) -> Panel:
    curve = _placed(mating_law(np.linspace(0, 1, 60)))
    outline = _placed(np.eye(3)[[0, 1, 2, 0]])
    # laws with the data's average number of alleles A: p_data plus multiples of (1, −2, 1), up to the edges
    ends = [data + t * np.array([1.0, -2.0, 1.0]) for t in (data[1] / 2, -min(data[0], data[2]))]
    still = np.array([60.0])
    layers = (
        Paths("all laws of 3 genotypes", outline[None], still, role="ink", opacity=0.4),
        Paths("the models: random mating", curve[None], still, role="model", width=2.0, opacity=0.9),
        Paths("laws with the data's E s", _placed(np.stack(ends))[None], still, role="data", opacity=0.9),
        Points("p_data", _placed(data)[None, None], role="ink", size=9.0, opacity=1.0),
        Points("p*: the maximum of the likelihood", _placed(nearest)[None, None], role="second", size=9.0, opacity=1.0),
        Points("p, moving", _placed(models)[:, None], role="mark", size=9.0, opacity=1.0),
    )
    x = Scale("share of A alleles (corners: aa left, AA right)", -0.08, 1.08)
    return Panel(
        "laws as points of a triangle", x, Scale("height: share of aA × 0.87", -0.06, 1.38), layers, square=True
    )


def _bars(whole: np.ndarray, miss: float, along: np.ndarray) -> Panel:
    at, none = np.arange(3.0), np.zeros_like(whole)
    layers = (
        Bars("KL(p_data‖p)", at, np.stack([whole, none, none], axis=1), role="mark"),
        Bars("KL(p_data‖p*) + KL(p*‖p)", at, np.stack([none, miss + along, none], axis=1), role="model"),
        Bars("KL(p_data‖p*): cannot be reached", at, np.stack([none, none + miss, none + miss], axis=1), role="second"),
    )
    names = ("whole", "sum of both legs", "first leg alone")
    return Panel("Pythagoras for KL", Scale("", names=names), Scale("nats", 0.0, 1.5 * float(whole.max())), layers)


def _curve(
    data: np.ndarray, nearest: np.ndarray, moving: np.ndarray, whole: np.ndarray, best: float, miss: float
) -> Panel:
    fine = np.linspace(0.05, 0.95, 91)
    laws, most = mating_law(fine), 1.6 * float(whole.max())
    layers = (
        Curve("KL(p_data‖p_π)", fine, kl_of_states(data, laws)[None], role="mark"),
        Curve("KL(p*‖p_π)", fine, kl_of_states(nearest, laws)[None], role="model", dashed=True),
        Points("p", np.stack([moving, whole], axis=-1)[:, None], role="mark", size=9.0),
        Points("p*", np.array([[[best, miss]]]), role="second", size=9.0, opacity=1.0),
    )
    return Panel(
        "one curve is the other, lifted", Scale("allele frequency π", 0.0, 1.0), Scale("nats", 0.0, most), layers
    )
