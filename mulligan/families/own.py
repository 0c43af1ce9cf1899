"""A model of the user's own, trained by maximum likelihood like the families of the catalog: ``mulligan.Own``.

What ``build`` makes is any ``Density`` whose floating arrays are its parameters. It is trained on the encoded points
(standardised coordinates), scored, compared and saved as any other family; it is drawn from if it is a ``Sampler``.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mulligan.catalog import FAMILIES, TRAINING, Effort
from mulligan.core import Density
from mulligan.entries import Family
from mulligan.errors import UsageError
from mulligan.families.recipe import Fitting, Outcome, Recipe
from mulligan.families.training import Candidate, Learning, learn
from mulligan.learners.gradient import Plan, decayed, trainable
from mulligan.objectives.likelihood import Rows, negative_log_likelihood

PLANS: dict[Effort, Plan] = {
    "quick": Plan(600, rate=1e-2),
    "standard": Plan(3000, rate=5e-3),
    "thorough": Plan(20_000, rate=3e-3),
}
DECAYS: dict[Effort, tuple[float, ...]] = {"quick": (0.1,), "standard": (0.1, 10.0, 1.0), "thorough": (0.1, 10.0, 1.0)}


@dataclass(frozen=True)
class Own:
    """A model of your own in place of a family's name: ``mulligan.fit(table, mulligan.Own(build, name="mine"))``.

    ``build(dim, generator, given=0)`` returns a ``mulligan.core.Density`` on R^dim, fresh weights from the NumPy
    generator; ``given`` is passed only if columns are given, and is the number of coordinates that ``log_prob`` then
    finds in its argument ``given``. Its floating arrays are learned (those in a field called ``weights`` are decayed);
    integers, and what is no array, stay as they are. ``name`` is what reports call it.

    Options of the fit are ``decay``, ``rate`` and ``batch``. A checkpoint knows an own model by its name and the shapes
    of its weights: give it another name when you change it.

    Raises UsageError for a name that is taken, or is not lower-case letters, digits and hyphens.

    >>> from mulligan.models.factor import FactorModel
    >>> build = lambda dim, generator: FactorModel(jnp.zeros(dim), jnp.eye(dim), jnp.ones(dim))
    >>> Own(build, name="mine").entry.name
    'mine'
    """

    build: Callable[..., Density]
    name: str = "own"

    def __post_init__(self) -> None:
        taken = {name for family in FAMILIES.values() for name in (family.name, *family.aliases, *family.variants)}
        if not callable(self.build):
            raise UsageError(f"Own({self.build!r})", do="a function: build(dim, generator, given=0) -> Density")
        if self.name in taken or not re.fullmatch(r"[a-z0-9][a-z0-9-]*", self.name):
            why = "the catalog has it" if self.name in taken else "a name is lower-case letters, digits and hyphens"
            raise UsageError(f"an own model called {self.name!r}", why, do="another name")

    @property
    def entry(self) -> Family:
        """What an entry of the catalog says of a family, for this model."""
        return Family(
            self.name,
            (),
            (),
            ("Density",),
            log_p="exact",
            strokes="",
            balls="",
            good_at="what its maker knows",
            watch_for="what its maker does not",
            make=partial(make, own=self),
            options=TRAINING,
            in_compare=False,
            conditional=True,
        )

    def __repr__(self) -> str:
        return f"mulligan.Own(build, name={self.name!r})"


def make(
    variant: str | None, effort: Effort, decay: float | None, rate: float | None, batch: int | None, *, own: Own
) -> Recipe:
    """The recipe; ``decay`` None searches it on select, ``rate`` and ``batch`` of None are the effort's."""
    plan = PLANS[effort]
    plan = replace(plan, batch=batch or plan.batch, rate=rate or plan.rate)
    return partial(fit, own=own, plan=plan, decays=DECAYS[effort] if decay is None else (decay,))


def fit(fitting: Fitting, own: Own, plan: Plan, decays: tuple[float, ...]) -> Outcome:
    """Train, and keep the best on select."""
    train = fitting.train
    build = partial(built, own, fitting.dim, fitting.given)
    if not any(jax.tree.leaves(decayed(trainable(build(np.random.default_rng(0)))[0]))):
        decays = (0.0,)  # nothing would be decayed
    candidates = [Candidate(f"decay={decay:g}", build, replace(plan, decay=decay)) for decay in decays]
    rows = Rows(jnp.asarray(train.flat), None if train.flat_given is None else jnp.asarray(train.flat_given))
    return learn(fitting, Learning(own.name, candidates, negative_log_likelihood, rows, fitting.select), own.name)


def built(own: Own, dim: int, given: int, generator: np.random.Generator) -> Density:
    """What ``build`` makes, checked without computing anything; NumPy arrays become JAX's, so that they are learned.

    Raises UsageError where it is no Density, has nothing to learn, or log_prob of a point is no scalar.
    """
    model = own.build(dim, generator, given=given) if given else own.build(dim, generator)
    if not isinstance(model, Density):
        what = f"{own.name}: build returned a {type(model).__name__}, which is no Density"
        raise UsageError(
            what, do="class Mine(mulligan.core.Density): with kind = 'exact' and log_prob(self, x, given=None)"
        )
    model = jax.tree.map(lambda leaf: jnp.asarray(leaf) if isinstance(leaf, np.ndarray) else leaf, model)
    if not jax.tree.leaves(trainable(model)[0]):
        raise UsageError(
            f"{own.name}: {type(model).__name__} has nothing to learn", do="a field that is a floating array"
        )
    number = jnp.zeros(0).dtype
    point = jax.ShapeDtypeStruct((dim,), number)
    shape = _shape(jax.eval_shape(model.log_prob, point, jax.ShapeDtypeStruct((given,), number) if given else None))
    if shape != ():
        what = f"{own.name}: log_prob of a point of shape ({dim},) is of shape {shape}"
        raise UsageError(what, why="it is log p of one point", do="a scalar: sum over the coordinates")
    return model


def _shape(result: Any) -> Any:
    return getattr(result, "shape", f"no array but a {type(result).__name__}")
