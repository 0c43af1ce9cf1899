"""Chapter 1, counting: whoever has the joint density has every operation.

Definition. With n(x, y) points in a cell, p(x, y) = (n(x, y)/n)/(area of the cell); a marginal adds counts, a conditional
counts inside the bin only, p(x, y) = p(x) p(y | x), and E_p h is the long-run average. The checks run on
``mulligan.targets.counting.Histogram`` with cells of unequal widths (equal ones hide a forgotten area), against NumPy's
own counting of the rows.
Identities: ``density.joint``, ``density.marginal``, ``density.conditional``, ``density.factorization``,
``density.expectation``, ``density.expectation.long_run``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mulligan.lab.identity import Check, Identity, mean_and_error, monte_carlo, rounding
from mulligan.loop import compile_small
from mulligan.targets.counting import Histogram
from mulligan.targets.mixture import GaussianMixture

DRAWS = 25_000
_EDGES = tuple(
    np.array([0.0, *inner, 1.0]) for inner in ((0.25, 0.45, 0.7), (0.3, 0.5, 0.75), (0.4, 0.6, 0.7), (0.35, 0.5, 0.65))
)


def _rows(seed: int, dim: int, n: int = 2000) -> np.ndarray:
    """Dependent rows in the unit cube."""
    rng = np.random.default_rng(seed)
    return 0.5 * rng.beta(1.5, 2.0, (n, 1)) + 0.5 * rng.beta(1.0, 1.5, (n, dim))


def cells_of(edges: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Centres (cells, d) and volumes (cells,), in the order of a raveled table of counts.

    >>> [part.tolist() for part in cells_of([np.array([0.0, 1.0, 4.0])])]
    [[[0.5], [2.5]], [1.0, 3.0]]
    """
    middles = np.meshgrid(*(0.5 * (axis[1:] + axis[:-1]) for axis in edges), indexing="ij")
    widths = np.meshgrid(*(np.diff(axis) for axis in edges), indexing="ij")
    return np.stack(middles, axis=-1).reshape(-1, len(edges)), np.prod(widths, axis=0).reshape(-1)


@compile_small
def _log_densities(law: Any, points: Any) -> Any:
    return jax.vmap(law.log_prob)(points)


def densities(law: Any, points: np.ndarray) -> np.ndarray:
    """exp log p at points (n, d) as NumPy (n,), by one compiled program a shape.

    >>> densities(Histogram([[0.0, 2.0]], [3]), np.array([[0.5], [9.0]])).tolist()
    [0.5, 0.0]
    """
    return np.exp(np.asarray(_log_densities(law, jnp.asarray(points))))


# --- the joint, its marginals and conditionals ------------------------------------------------------------------------


def _density_in_cells(law: Any, centres: np.ndarray, volumes: np.ndarray) -> np.ndarray:
    return densities(law, centres)


def _joint(seed: int, *, histogram: Any = Histogram, density: Callable = _density_in_cells) -> Check:
    """Σ p(cell)·volume = 1, and p(cell) is NumPy's count over n and volume, for d = 1 … 4."""
    pairs = {}
    for dim in range(1, 5):
        rows, edges = _rows(seed, dim), _EDGES[:dim]
        centres, volumes = cells_of(edges)
        p = density(histogram.from_rows(rows, edges), centres, volumes)
        counted, _ = np.histogramdd(rows, edges)
        pairs[f"mass, d = {dim}"] = (p @ volumes, 1.0)
        pairs[f"cells, d = {dim}"] = (p, counted.reshape(-1) / len(rows) / volumes)
    return rounding(pairs)


def _kept(law: Any, axes: Sequence[int]) -> Any:
    return law.marginal(axes)


def _marginal(seed: int, *, histogram: Any = Histogram, kept: Callable = _kept) -> Check:
    """The counts of the marginal are the counts of the columns alone: integers, so the tolerance is 0."""
    rows, edges, pairs = _rows(seed, 3), _EDGES[:3], {}
    law = histogram.from_rows(rows, edges)
    for axes in ([0], [1], [2], [0, 1], [2, 0]):
        counted, _ = np.histogramdd(rows[:, axes], [edges[j] for j in axes])
        pairs[f"axes {axes}"] = (kept(law, axes).counts, counted)
    return rounding(pairs, tolerance=0.0)


@compile_small
def _conditional_table(law: Any, xs: Any, ys: Any) -> Any:
    return jax.vmap(lambda x: jax.vmap(law.conditional([0], [x]).log_prob)(ys))(xs)


def _by_first_margin(joint: np.ndarray, p_x: np.ndarray, p_y: np.ndarray) -> np.ndarray:
    return joint / p_x[:, None]


def _conditional(seed: int, *, histogram: Any = Histogram, ratio: Callable = _by_first_margin) -> Check:
    """The law's conditional is p(x, y)/p(x), and is counting of the rows inside the bin only."""
    rows, edges = _rows(seed, 2), _EDGES[:2]
    law = histogram.from_rows(rows, edges)
    xs, ys = (0.5 * (axis[1:] + axis[:-1]) for axis in edges)
    conditional = np.exp(np.asarray(_conditional_table(law, jnp.asarray(xs), jnp.asarray(ys)[:, None])))
    joint = densities(law, cells_of(edges)[0]).reshape(len(xs), len(ys))
    p_x, p_y = (densities(law.marginal([axis]), middle[:, None]) for axis, middle in enumerate((xs, ys)))
    inside = [rows[np.digitize(rows[:, 0], edges[0]) == k + 1, 1] for k in range(len(xs))]
    counted = [np.histogram(part, edges[1])[0] / len(part) / np.diff(edges[1]) for part in inside]
    return rounding(
        {
            "p(x, y)/p(x)": (conditional, ratio(joint, p_x, p_y)),
            "counting inside the bin": (conditional, np.stack(counted)),
        }
    )


@compile_small
def _chain(law: Any, points: Any, first: int) -> Any:
    """log p(first) + log p(second | first) at points (n, 2)."""

    def one(x: Any) -> Any:
        second = 1 - first
        alone = law.marginal([first]).log_prob(x[first : first + 1])
        return alone + law.conditional([first], [x[first]]).log_prob(x[second : second + 1])

    return jax.vmap(one)(points)


@compile_small
def _product_of_margins(law: Any, points: Any, first: int) -> Any:
    both = [jax.vmap(law.marginal([axis]).log_prob)(points[:, axis : axis + 1]) for axis in (0, 1)]
    return both[0] + both[1]


@compile_small
def _terms(law: Any, points: Any) -> Any:
    return jnp.sum(jax.vmap(law.factorization)(points), axis=-1)


def _factorization(seed: int, *, histogram: Any = Histogram, chain: Callable = _chain) -> Check:
    """log p(x, y) = log p(x) + log p(y | x), in either order, and the law's own terms add up to log p for d = 3."""
    rows = _rows(seed, 3)
    plane, space = histogram.from_rows(rows[:, :2], _EDGES[:2]), histogram.from_rows(rows, _EDGES[:3])
    points = jnp.asarray(rows[:200])
    whole = _log_densities(plane, points[:, :2])
    return rounding(
        {
            "x, then y": (whole, chain(plane, points[:, :2], 0)),
            "y, then x": (whole, chain(plane, points[:, :2], 1)),
            "three coordinates": (_log_densities(space, points), _terms(space, points)),
        }
    )


# --- expectation ------------------------------------------------------------------------------------------------------


# Compiled, or every small operation on every shape would be compiled alone: 120 programs in place of 30.
@compile_small
def _given(law: Any, axes: list[int], values: Any) -> Any:
    return law.conditional(axes, values)


@compile_small
def _only(law: Any, axes: list[int]) -> Any:
    return law.marginal(axes)


def _mean_under(law: Any, h: Callable) -> float:
    return law.expectation(h, nodes=4).value


def _mean_over_cells(law: Any, h: Callable) -> float:
    """A planted mistake: every cell weighs the same, however many points it has."""
    return _mean_under(Histogram(law.edges, jnp.ones_like(law.counts)), h)


def _shares(law: Any) -> np.ndarray:
    return np.asarray(_only(law, [0]).joint)


def _equal_shares(law: Any) -> np.ndarray:
    """A planted mistake: the outer average of the tower rule forgets how probable a bin is."""
    bins = law.counts.shape[0]
    return np.full(bins, 1 / bins)


def _expectation(
    seed: int, *, histogram: Any = Histogram, mean: Callable = _mean_under, shares: Callable = _shares
) -> Check:
    """E_p h is the average over the points that were counted, for h constant in cells; and E E[h | x] = E h.

    Over the joint all points are averaged, over a marginal their projections, over a conditional those inside the bin.
    """
    rows, edges = _rows(seed, 2), _EDGES[:2]
    law, rng = histogram.from_rows(rows, edges), np.random.default_rng(seed)
    marks = [rng.normal(size=axis.size - 1) for axis in edges]
    at = [marks[j][np.digitize(rows[:, j], edges[j]) - 1] for j in (0, 1)]

    def mark(j: int, x: Any) -> Any:
        return jnp.asarray(marks[j])[jnp.searchsorted(jnp.asarray(edges[j]), x, side="right") - 1]

    inside = at[0] == marks[0][1]
    cube = lambda x: x[-1] ** 3  # noqa: E731 - the last coordinate of a pair and of y alone
    given = [_given(law, [0], jnp.array([0.5 * (low + high)])) for low, high in zip(edges[0], edges[0][1:])]
    tower = shares(law) @ [mean(part, cube) for part in given]
    return rounding(
        {
            "over the joint": (mean(law, lambda x: mark(0, x[0]) * mark(1, x[1])), np.mean(at[0] * at[1])),
            "over a marginal": (mean(_only(law, [1]), lambda y: mark(1, y[0])), np.mean(at[1])),
            "over a conditional": (mean(given[1], lambda y: mark(1, y[0])), np.mean(at[1][inside])),
            "tower rule": (tower, mean(law, cube)),
        }
    )


@compile_small
def _mixture_given(law: GaussianMixture, index: list[int], values: Any) -> GaussianMixture:
    return law.condition(index, values)


@compile_small
def _second_moment(law: GaussianMixture) -> Any:
    return law.covariance + jnp.outer(law.mean, law.mean)


@compile_small
def _draws(law: Any, key: Any) -> Any:
    return jax.vmap(law.sample)(jax.random.split(key, DRAWS))


def _long_run(seed: int, *, histogram: Any = Histogram, mean: Callable = _mean_under) -> Check:
    """The average over 25 000 draws against E_p h: a histogram, and a mixture with its marginal and conditional."""
    keys = jax.random.split(jax.random.key(seed), 4)
    law = histogram.from_rows(_rows(seed, 2), _EDGES[:2])
    x = np.asarray(_draws(law, keys[0]))
    product = lambda z: z[0] * z[1] ** 2  # noqa: E731
    average, error = mean_and_error(x[:, 0] * x[:, 1] ** 2)
    pairs = {"histogram, E x y²": (average, mean(law, product), error)}
    average, error = mean_and_error((x[:, 0] - 0.4) ** 2)
    pairs["histogram, spread of x"] = (average, mean(law, lambda z: (z[0] - 0.4) ** 2), error)
    mixture = GaussianMixture.from_covariances(
        [0.3, 0.7], [[-1.0, 0.5], [1.0, -0.3]], [[[1.0, 0.4], [0.4, 0.5]], [[0.3, -0.1], [-0.1, 0.9]]]
    )
    x = np.asarray(_draws(mixture, keys[1]))
    average, error = mean_and_error(x[:, :, None] * x[:, None, :])
    pairs["mixture, E x xᵀ"] = (average, _second_moment(mixture), error)
    for name, part, key in (
        ("marginal, E y", _only(mixture, [1]), keys[2]),
        ("conditional, E[y | x = 0.2]", _mixture_given(mixture, [0], jnp.array([0.2])), keys[3]),
    ):
        average, error = mean_and_error(np.asarray(_draws(part, key)))
        pairs[name] = (average, part.mean, error)
    return monte_carlo(pairs)


# --- planted mistakes -------------------------------------------------------------------------------------------------


def _share(law: Any, centres: np.ndarray, volumes: np.ndarray) -> np.ndarray:
    return densities(law, centres) * volumes


def _neighbours_kept(law: Any, axes: Sequence[int]) -> Any:
    return law.marginal([(axis + 1) % law.dim for axis in axes])


def _by_second_margin(joint: np.ndarray, p_x: np.ndarray, p_y: np.ndarray) -> np.ndarray:
    return joint / p_y[None, :]


IDENTITIES = (
    Identity(
        "density.joint",
        1,
        "p(x, y) = (n(x, y)/n)/(area of the cell) integrates to 1, d = 1 … 4",
        "rounding",
        _joint,
        {"not divided by the cell's area": {"density": _share}},
    ),
    Identity(
        "density.marginal",
        1,
        "n(x) = Σ_y n(x, y): the marginal of the joint is the histogram of the column",
        "rounding",
        _marginal,
        {"the neighbouring axes are kept": {"kept": _neighbours_kept}},
    ),
    Identity(
        "density.conditional",
        1,
        "p(y|x) = p(x, y)/p(x) is counting inside the bin only",
        "rounding",
        _conditional,
        {"normalised by the wrong margin": {"ratio": _by_second_margin}},
    ),
    Identity(
        "density.factorization",
        1,
        "p(x, y) = p(x) p(y|x) = p(y) p(x|y)",
        "rounding",
        _factorization,
        {"p(y) in place of p(y|x)": {"chain": _product_of_margins}},
    ),
    Identity(
        "density.expectation",
        1,
        "E_p h is the average over the points, over the joint, a marginal or a conditional; E E[h|x] = E h",
        "rounding",
        _expectation,
        {
            "every cell weighs the same": {"mean": _mean_over_cells},
            "the tower rule forgets p(x)": {"shares": _equal_shares},
        },
    ),
    Identity(
        "density.expectation.long_run",
        1,
        "(1/n) Σ h(x_i) → E_p h for draws of p, of its marginal and of its conditional",
        "monte-carlo",
        _long_run,
        {"every cell weighs the same": {"mean": _mean_over_cells}},
    ),
)
