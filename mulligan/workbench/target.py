"""A log density as people give it: a function, ``file.py:function`` or a law's name; checked before anything runs.

Everything that samples works on a flat z (d,) without bounds; ``Target`` holds the way there and back. The checks look at
the values and gradients at the starts and far from them, and say what is wrong with the function in words.
"""

from __future__ import annotations

import importlib.util
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from mulligan.catalog import LAWS, near
from mulligan.errors import UsageError
from mulligan.loop import compile_small
from mulligan.samplers.path import LogDensity
from mulligan.samplers.positions import Space, space
from mulligan.targets.discrete import Enumerated
from mulligan.targets.known import KnownLaw

FAR = (1e2, 1e3, 1e4)  # distances at which a density has faded to 0, and a log density has not
FADED = 1e-3  # of the largest value


@dataclass(frozen=True)
class Target:
    """What is to be sampled.

    ``flat`` is the log density on z (d,), with the Jacobian of the transforms; ``space`` leads to the user's positions and
    back (None for a law by name, whose z is x); discrete states have ``levels`` values; ``law`` where it is known.
    """

    name: str
    flat: LogDensity
    dim: int
    names: tuple[str, ...]
    space: Space | None
    law: KnownLaw | None = None
    levels: int = 0
    start: np.ndarray | None = None

    @property
    def centre(self) -> np.ndarray:
        """z (d,) of the start: 0 where none was given."""
        return np.zeros(self.dim, np.float32) if self.start is None else self.start

    def named(self, draws: np.ndarray) -> dict[str, np.ndarray]:
        """Draws (…, d) in the user's coordinates as its variables by name, each (…, its own shape)."""
        if self.space is None:
            return {"x": draws}
        paths, _ = jax.tree_util.tree_flatten_with_path(self.space.tree(jnp.arange(self.dim)))
        named = {}
        for path, where in paths:
            name = jax.tree_util.keystr(path, simple=True, separator=".") or "x"
            named[name] = draws[..., np.asarray(where)]
        return named

    @property
    def discrete(self) -> bool:
        """Whether its states are discrete."""
        return self.levels > 0


def make_target(what: Any, dim: int | None = None, start: Any = None, bounds: Any = None) -> Target:
    """The target that ``what`` means.

    ``what`` is a function from one position to its log density, ``"file.py:function"``, a name of ``catalog.LAWS``, or a
    law. ``dim`` is the length of a vector position; ``start`` one position in its place (a vector, a number, any
    pytree), around which the chains begin; ``bounds`` as for ``Space``. Raises UsageError.

    >>> make_target("banana").names
    ('x1', 'x2')
    """
    if isinstance(what, str) and ":" not in what and what in LAWS:
        from mulligan.targets.named import law

        return _law_target(law(what), what, dim)
    if isinstance(what, KnownLaw):
        return _law_target(what, type(what).__name__, dim)
    name, function = (what, load_function(what)) if isinstance(what, str) else (_name_of(what), what)
    if not callable(function):
        raise UsageError(f"{name} is no function but {type(function).__name__}", do="def logp(x): return ...")
    if dim is None and start is None:
        why = "A function does not say how long its argument is"
        raise UsageError(f"the dimension of {name} is not known", why=why, do="--dim 2 (in Python dim=2 or start=...)")
    if dim is not None and dim < 1:
        raise UsageError(f"dim is {dim}", do="--dim 1 or more")
    example = np.zeros(dim or 1) if start is None else start
    there = space(example, bounds)
    if dim is not None and dim != there.dim:
        raise UsageError(f"dim is {dim}, but start has {there.dim} numbers", do="leave dim out")
    centre = None if start is None else np.asarray(there.unconstrain(start))
    if centre is not None and not np.isfinite(centre).all():
        where = ", ".join(there.names[i] for i in np.flatnonzero(~np.isfinite(centre))[:4])
        raise UsageError("start is not inside its bounds", where, do="a start strictly between low and high")
    log_density = _Scalar(function, name)
    _check_shape(log_density, example)
    vector = isinstance(example, np.ndarray | jnp.ndarray) and np.ndim(example) == 1
    names = _numbered(there.dim) if vector else there.names
    return Target(name, there.lift(log_density), there.dim, names, there, start=centre)


def _numbered(dim: int) -> tuple[str, ...]:
    return tuple(f"x{i + 1}" for i in range(dim))


def _law_target(law: KnownLaw, name: str, dim: int | None) -> Target:
    if dim is not None and dim != law.dim:
        raise UsageError(f"the law {name} has {law.dim} dimensions, not {dim}", do=f"--dim {law.dim}, or leave it out")
    if isinstance(law, Enumerated):
        names = tuple(f"s{i + 1}" for i in range(law.dim))
        return Target(name, law.unnormalised, law.dim, names, None, law, law.levels)
    return Target(name, law.log_prob, law.dim, _numbered(law.dim), None, law)


def load_function(what: str) -> Callable:
    """The function that ``file.py:function`` names. The file is run, as Python would. Raises UsageError."""
    file, colon, function = what.rpartition(":")
    if not colon or not function.isidentifier():
        hint = near(what, LAWS)
        known = f"file.py:function, or one of the laws {', '.join(LAWS)}"
        raise UsageError(f"there is no law '{what}'{hint}", why="It is no file.py:function either", do=known)
    path = Path(file)
    if not path.is_file():
        beside = [str(p) for p in path.parent.glob("*.py")] if path.parent.is_dir() else []
        raise UsageError(f"no file '{file}' here{near(file, beside)}", do="file.py:function")
    spec = importlib.util.spec_from_file_location(f"mulligan_user_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise UsageError(f"'{file}' is no Python file", do="file.py:function")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # a dataclass inside looks its module up
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise _failed(f"'{file}'", error) from error
    found = getattr(module, function, None)
    if not callable(found):
        names = [n for n, v in vars(module).items() if callable(v) and not n.startswith("_")]
        listed = f"{file} has {', '.join(names[:8])}" if names else f"{file} has no function"
        raise UsageError(f"{file} has no function '{function}'{near(function, names)}", why=listed, do=f"{file}:NAME")
    return found


class _Scalar(eqx.Module):
    """The user's function with its result as a float array; what it raises is told as its own fault."""

    function: Callable
    name: str = eqx.field(static=True)

    def __call__(self, x: Any) -> Array:
        try:
            value = self.function(x)
        except (jax.errors.JAXTypeError, jax.errors.JAXIndexError) as error:
            raise UsageError(
                f"JAX cannot follow {self.name}",
                _place(error),
                "It uses NumPy, Python's if or float() on a number that is not known yet",
                "jax.numpy in place of numpy, jnp.where in place of if",
            ) from error
        except UsageError:
            raise
        except Exception as error:
            raise _failed(self.name, error) from error
        try:
            array = jnp.asarray(value)
        except (TypeError, ValueError) as error:
            raise UsageError(
                f"{self.name} returns {type(value).__name__}", why="A log density is one number"
            ) from error
        return array if jnp.issubdtype(array.dtype, jnp.floating) else array.astype(float)


def _check_shape(log_density: _Scalar, start: Any) -> None:
    shape = jax.eval_shape(log_density, jax.tree.map(lambda leaf: jnp.asarray(leaf, float), start)).shape
    if shape != ():
        given = " and ".join(str(np.shape(leaf)) for leaf in jax.tree.leaves(start))
        raise UsageError(
            f"{log_density.name} returns shape {shape} for one position of shape {given}",
            why="It is called with one position at a time, and one number is its log density",
            do="sum over the coordinates: return jnp.sum(...)",
        )


class Probe:
    """Values and gradients of a target at points z (n, d), by one compiled program."""

    def __init__(self, target: Target, points: np.ndarray):
        z = jnp.asarray(points)
        self.points = points
        self.values = np.asarray(_values(target.flat, z), np.float64)
        self.gradients: np.ndarray | None = None
        self.reason = ""
        if target.discrete:
            return
        try:
            self.gradients = np.asarray(_gradients(target.flat, z), np.float64)
        except UsageError:
            raise
        except Exception as error:  # whatever JAX raises on the way back: callbacks, while loops, custom rules
            self.reason = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}".strip(": ")


def gradients_at(target: Target, z: np.ndarray) -> np.ndarray:
    """∇ log density at the draws z (chains, draws, d), like them."""
    rows = jnp.asarray(z).reshape(-1, z.shape[-1])
    return np.asarray(_mapped_gradients(target.flat, rows), np.float64).reshape(z.shape)


@compile_small
def _mapped_gradients(flat: LogDensity, z: Array) -> Array:
    return jax.lax.map(jax.grad(flat), z, batch_size=1024)


@compile_small
def _values(flat: LogDensity, z: Array) -> Array:
    return jax.vmap(flat)(z)


@compile_small
def _gradients(flat: LogDensity, z: Array) -> Array:
    return jax.vmap(jax.grad(flat))(z)


def usable_starts(target: Target, candidates: np.ndarray, chains: int, by_gradient: bool) -> np.ndarray:
    """``chains`` of the candidates z (n, d), in their order, from the upper half by log density. Raises UsageError.

    The lower half is left out because a start far out in a steep tail (log density −10⁴) can hold a chain for a whole run.
    NaN and +∞ are faults of the function wherever they appear; −∞ is a place outside the support, and is passed over.
    """
    probe = Probe(target, candidates)
    wrong = np.isnan(probe.values) | np.isposinf(probe.values)
    if wrong.any():
        first = int(np.flatnonzero(wrong)[0])
        shown = "nan" if np.isnan(probe.values[first]) else "+inf"
        many = f"{int(wrong.sum())} of {wrong.size} starting points"
        why = "−inf says outside the support; nan says nothing"
        do = "return -jnp.inf outside the support, or bounds= and start= inside it"
        raise UsageError(
            f"the log density is {shown} at the start", f"{many}, first {_at(target, candidates[first])}", why, do
        )
    inside = np.isfinite(probe.values)
    if not inside.any():
        why = f"None of {inside.size} points of the reference is inside the support"
        do = "start= a position inside it, or bounds="
        raise UsageError("the log density is −inf at the start", f"first {_at(target, candidates[0])}", why, do)
    if by_gradient:
        _check_gradient(target, probe, inside)
    found = candidates[inside & (probe.values >= np.median(probe.values[inside]))]
    return found[np.arange(chains) % len(found)]


def _check_gradient(target: Target, probe: Probe, inside: np.ndarray) -> None:
    without = "random-walk needs no gradient: --samplers random-walk"
    if probe.gradients is None:
        raise UsageError(
            f"{target.name} is not differentiable", probe.reason, "These samplers follow its gradient", without
        )
    values, gradients = probe.values[inside], probe.gradients[inside]
    broken = ~np.isfinite(gradients).all(axis=1)
    if broken.any():
        first = probe.points[inside][np.flatnonzero(broken)[0]]
        where = f"{int(broken.sum())} of {broken.size} starting points, first {_at(target, first)}"
        why = (
            "Its value is finite there; the usual causes are sqrt or norm at 0, and jnp.where over a branch that is nan"
        )
        raise UsageError(f"the gradient of {target.name} is not finite", where, why, without)
    if np.ptp(values) > 0 and len(values) > 1 and not gradients.any():
        why = "Its values differ, so rounding, comparisons or integers hide the slope"
        raise UsageError(f"{target.name} is not differentiable", "its gradient is 0 everywhere", why, without)


def check_logarithm(target: Target, candidates: np.ndarray, seed: int) -> None:
    """Raises UsageError for a function that looks like a density and not its logarithm.

    A log density that can be normalised falls without end; one that is never negative and fades to 0 is a density. With
    bounds the far points say nothing, and the check is left out.
    """
    if target.space is None or np.isfinite([target.space.low, target.space.high]).any():
        return
    directions = np.random.default_rng(seed).normal(size=(8, target.dim))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    far = np.concatenate([size * directions for size in FAR]).astype(candidates.dtype)
    values = Probe(target, np.concatenate([candidates, far])).values
    close, distant = values[: len(candidates)], values[len(candidates) :]
    if np.isfinite(values).all() and (values >= 0).all() and close.max() > 0 and distant.max() <= FADED * close.max():
        raise UsageError(
            f"{target.name} looks like a density, not its logarithm",
            f"all values are between 0 and {close.max():.3g} and fade to 0 far away",
            "exp of such a function cannot be integrated",
            "return its logarithm, jnp.log(...)",
        )


def _at(target: Target, z: np.ndarray) -> str:
    position = z if target.space is None else np.asarray(target.space.coordinates(jnp.asarray(z)))
    shown = [f"{name} = {value:.3g}" for name, value in zip(target.names[:4], position[:4])]
    return ", ".join(shown) + (", …" if len(position) > 4 else "")


def _name_of(function: Any) -> str:
    name = getattr(function, "__name__", type(function).__name__)
    return "the log density" if name == "<lambda>" else str(name)


def _failed(name: str, error: Exception) -> UsageError:
    text = " ".join(str(error).split())
    return UsageError(f"{name} fails: {type(error).__name__}: {text}"[:300], _place(error))


def _place(error: Exception) -> str:
    """File and line of the user's own code in a traceback: the last frame that is not of an installed package."""
    ours = {Path(__file__).parents[1], Path(jax.__file__).parent}
    frames = traceback.extract_tb(error.__traceback__)
    theirs = [
        f
        for f in frames
        if not any(p in Path(f.filename).resolve().parents for p in ours) and Path(f.filename).is_file()
    ]
    theirs = [f for f in theirs if "site-packages" not in f.filename]
    return f"{Path(theirs[-1].filename).name}, line {theirs[-1].lineno}" if theirs else ""
