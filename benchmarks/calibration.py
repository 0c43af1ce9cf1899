"""Are the intervals of this library true? Fit tables from laws known exactly, and count how often they hold the truth.

Each split is an independent table with a split of its own; three families are fitted to it through the workbench, and at
most five of the quantities that a scorecard would show are compared with their truth:

  log p         mean test log p of a family                   truth: E log p_model over the law
  difference    paired, to the family that is best on select  truth: difference of the two
  truth gap     on 800 fresh draws                            truth: -H(law) - E log p_model
  hole share    share of model samples in one disc            truth: the model's mass in the disc, by quadrature
  AUC           test rows against draws from the law itself   truth: 1/2 for any classifier
  bound         low end of a dequantised log P                truth: E log P_model(row), one-sided
  bound's mean  the same end                                  truth: E of the bound itself, one-sided (sharper)

``calibration_more`` adds the families that are trained at length, and what a fitted law answers.

Run: python -m benchmarks.calibration [--splits N] [-o results/calibration.md]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mulligan.catalog import find_family
from mulligan.data.codec import Codec, Encoded
from mulligan.data.table import Column, Schema, Source, Table
from mulligan.measures.calibration import Coverage
from mulligan.measures.distances import two_sample_auc
from mulligan.measures.likelihood import common_error, row_log_prob
from mulligan.quantity import Quantity, proportion
from mulligan.targets.discrete import Enumerated, states
from mulligan.targets.gaussian import Gaussian
from mulligan.targets.known import gauss_legendre, log_prob_float64
from mulligan.targets.named import draw_rows, draw_table, law
from mulligan.workbench.assessment import truth_gap
from mulligan.workbench.comparison import difference_on_test
from mulligan.workbench.fitted import Fitted
from mulligan.workbench.fitting import fit_prepared
from mulligan.workbench.preparation import Prepared, prepare
from mulligan.workbench.sources import open_table
from mulligan.workbench.talk import Talk

TRUTH_ROWS = 300_000  # where quadrature cannot be had: 1/15 of the stated error and less
TRUTH_SEED, GAP_SEED, AUC_SEED = 900_000_001, 300_000_000, 600_000_000
GAP_ROWS, SAMPLES = 800, 1000
SPLITS = 352  # 32 of each setting
OPTIONS: dict[str, dict[str, str]] = {
    "gaussian": {},
    "mixture": {"parts": "8", "covariance": "full", "restarts": "1"},
    "factor": {"factors": "1"},
    "kde": {"kernel": "spherical"},
    "histogram": {"bins": "12", "pseudo_count": "0.1"},
    "autoregressive": {"members": "1", "width": "32", "depth": "1", "parts": "8"},
    "flow": {"layers": "2", "width": "16", "bins": "8"},
    "energy": {"width": "32", "depth": "2"},
    "boltzmann": {"hidden": "6"},
    "logistic-mixture": {"parts": "8"},
    "vae": {"latent": "1", "width": "16", "depth": "1", "draws": "20"},
    "gan": {"width": "16", "depth": "1"},
    "continuous-flow": {"width": "24", "depth": "2", "frequencies": "8", "solver": "rk4", "solver_steps": "12"},
    "diffusion:score": {"width": "24", "depth": "2", "frequencies": "8", "solver": "bound", "members": "1"},
    "diffusion:ddpm": {
        "width": "24",
        "depth": "2",
        "frequencies": "8",
        "solver": "heun",
        "solver_steps": "24",
        "sampler_steps": "20",
        "members": "1",
    },
}
STEPS = {  # of the trainings: an interval is about the model that is there, good or not
    "autoregressive": 200,
    "flow": 200,
    "energy": 200,
    "logistic-mixture": 200,
    "vae": 300,
    "gan": 300,
    "continuous-flow": 300,
    "diffusion:score": 300,
    "diffusion:ddpm": 300,
}


@dataclass(frozen=True)
class Setting:
    """One law with the number of rows, the families in turn, and how its rows are treated before they come in."""

    name: str
    law: str | None
    rows: int
    families: tuple[str, ...]
    step: float | None = None  # rows rounded to this grid: a bound for every family
    copies: int = 1  # each row so often: the errors must go over clusters
    form: str = ""  # of ``calibration_more``; empty: the quantities of a scorecard
    grid: int = 200  # points on each axis of the plane


PLANE = ("gaussian", "mixture", "kde", "histogram")
LEARNED = ("autoregressive", "flow")
TILTED = ("energy",)
TRAINED = ("continuous-flow", "diffusion:score", "vae", "gan", "logistic-mixture", "diffusion:ddpm")
ANSWERING = ("mixture", "flow", "gaussian", "kde", "autoregressive", "logistic-mixture")
SETTINGS = (
    Setting("eight-gaussians", "eight-gaussians", 2000, (*PLANE, *LEARNED, *TILTED)),
    Setting("moons", "moons", 1000, PLANE),
    Setting("banana", "banana", 400, PLANE),
    Setting("rings", "rings", 1000, PLANE),
    Setting("gaussian in 5-D", None, 500, ("gaussian", "mixture", "factor", "kde")),
    Setting("ising-3x3", "ising-3x3", 1000, ("gaussian", "mixture", "factor", *LEARNED, "boltzmann")),
    Setting("moons, rounded to 0.2", "moons", 1000, ("gaussian", "mixture", "histogram"), step=0.2),
    Setting("banana, each row 3 times", "banana", 1200, PLANE, copies=3),
    Setting("moons, trained", "moons", 1000, TRAINED, form="trained", grid=90),
    Setting("moons, answers", "moons", 1000, ANSWERING, form="operations"),
    Setting("normal laws", None, 500, ("gaussian",), form="normal"),
)


class Claim(NamedTuple):
    """A stated quantity with its truth; ``truth_error`` is in units of the stated standard error."""

    setting: str
    family: str
    what: str
    split: int
    quantity: Quantity
    truth: float
    truth_error: float


class Truth(NamedTuple):
    """The law as weighted rows: ``values`` (n, d) and ``weights`` (n,).

    ``log_prob`` is the law's own there and ``entropy`` is known exactly: a control variate for drawn rows. ``size`` is
    the number of draws; 0 where the weights are exact (a sum over all states, quadrature in the plane).
    """

    values: np.ndarray
    weights: np.ndarray
    log_prob: np.ndarray | None
    entropy: float
    size: int

    def mean(self, rows: np.ndarray) -> tuple[float, float]:
        """E of a function of the row over the law, and the error of this computation."""
        if self.log_prob is not None:
            control = self.log_prob + self.entropy
            rows = rows - float(np.cov(rows, control)[0, 1] / control.var()) * control
        value = float(self.weights @ rows)
        return value, float(np.sqrt(self.weights @ (rows - value) ** 2 / self.size)) if self.size else 0.0


# --- laws --------------------------------------------------------------------------------------------------------------


@lru_cache
def five_gaussian() -> Gaussian:
    """A correlated normal law in five columns of unequal scale."""
    root = np.random.default_rng(5).normal(size=(5, 5)) + np.eye(5)
    return Gaussian.from_covariance(np.arange(5.0), root @ root.T)


def rows_of(setting: Setting, rows: int, seed: int) -> np.ndarray:
    """Independent draws (rows, d) as the setting's table would show them."""
    if setting.law is None:
        normal = np.random.default_rng(seed).normal(size=(rows, 5))
        return np.asarray(five_gaussian().mean) + normal @ np.asarray(five_gaussian().cholesky, np.float64).T
    values = draw_rows(setting.law, rows, seed)
    return values if setting.step is None else np.round(np.rint(values / setting.step) * setting.step, 6)


def table_of(setting: Setting, seed: int) -> Table:
    """A table of ``setting.rows`` rows, as a user would bring it."""
    if setting.law is not None and setting.step is None and setting.copies == 1:
        return draw_table(setting.law, setting.rows, seed)
    values = np.repeat(rows_of(setting, setting.rows // setting.copies, seed), setting.copies, axis=0)
    if setting.law is not None:
        return open_table(values)
    columns = tuple(Column(f"x{j + 1}", "continuous") for j in range(values.shape[1]))
    return Table(Schema(columns), values, Source(setting.name), treated_as_iid=True)


def law_of(setting: Setting) -> Any:
    """The law that the rows come from, before rounding."""
    return five_gaussian() if setting.law is None else law(setting.law)


@lru_cache(maxsize=16)
def truth_of(setting: Setting, smooth: bool) -> Truth:
    """The law itself: all states, quadrature in the plane for a ``smooth`` log p_model, many draws otherwise."""
    known = law_of(setting)
    if isinstance(known, Enumerated):
        every = states(0, known.levels**known.dim, known.levels, known.dim).astype(np.float64)
        weights = np.exp(log_prob_float64(known, every))
        return Truth(every, weights / weights.sum(), None, 0.0, 0)
    values, entropy = rows_of(setting, TRUTH_ROWS, TRUTH_SEED), float(known.entropy().value)
    if setting.step is not None:
        values, counts = np.unique(values, axis=0, return_counts=True)
        return Truth(values, counts / TRUTH_ROWS, None, 0.0, TRUTH_ROWS)
    if smooth and known.dim == 2:
        margin = 0.2 * np.ptp(values, axis=0)
        axes = [np.linspace(a, b, setting.grid) for a, b in zip(values.min(0) - margin, values.max(0) + margin)]
        grid = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 2)
        weights = np.exp(log_prob_float64(known, grid)) * np.prod([axis[1] - axis[0] for axis in axes])
        assert abs(weights.sum() - 1) < 1e-5, f"the grid holds {weights.sum()} of {setting.name}"
        inside = weights > 1e-300
        return Truth(grid[inside], weights[inside], None, entropy, 0)
    return Truth(values, np.full(TRUTH_ROWS, 1 / TRUTH_ROWS), log_prob_float64(known, values), entropy, TRUTH_ROWS)


# --- one split ---------------------------------------------------------------------------------------------------------


def log_prob_rows(fitted: Fitted, values: np.ndarray) -> np.ndarray:
    """log p as the library states it, of rows that need no inspection."""
    return fitted.log_prob(Table(fitted.schema, values, Source("fresh")))


def true_log_prob_rows(fitted: Fitted, values: np.ndarray) -> np.ndarray:
    """log P(row) of a dequantised row with so many draws that what they leave out is far below a standard error."""
    draws = 2048 if fitted.codec.dim > 2 else 256
    pieces = np.array_split(values, max(1, len(values) * draws // 200_000))
    return np.concatenate([row_log_prob(fitted.model, fitted.codec.encode(piece, draws)) for piece in pieces])


def mass_in_disc(fitted: Fitted, centre: np.ndarray, radius: float) -> float:
    """∫ p_model over a disc of the plane, by the rule of ``targets.known.disc_shares``."""
    nodes, weights = gauss_legendre(64, 0.0, radius)
    angle = 2 * np.pi * np.arange(128) / 128
    points = centre + nodes[:, None, None] * np.stack([np.cos(angle), np.sin(angle)], axis=-1)
    log_p = log_prob_rows(fitted, points.reshape(-1, 2)).reshape(64, 128)
    return float(np.exp(log_p).sum(1) @ (weights * nodes) * 2 * np.pi / 128)


def expectation(setting: Setting, fitted: Fitted, log_prob: Callable[..., np.ndarray]) -> tuple[float, float]:
    """E log p_model over the law, and the error of this number."""
    truth = truth_of(setting, fitted.family != "histogram")
    return truth.mean(log_prob(fitted, truth.values))


@dataclass(frozen=True)
class Salted(Codec):
    """The codec with draws of this split's own.

    The library's draws are a function of the row alone, so for a law with few distinct rows their luck would be the same
    in every split: one replication, not many.
    """

    split: int = 0

    def encode(self, values: np.ndarray, draws: int | None = None, salt: int = 0) -> Encoded:
        return super().encode(values, draws, salt + 7_000_000 + self.split)


def fit_some(setting: Setting, split: int, some: int = 3) -> tuple[Prepared, list[Fitted]]:
    """A fresh table, its split, and some of the setting's families, in turn."""
    prepared = prepare(table_of(setting, split), split)
    turn, count = split // len(SETTINGS), len(setting.families)
    fits = []
    for name in [setting.families[(turn + offset) % count] for offset in range(some)]:
        entry, variant = find_family(name)
        options = entry.parse_options(OPTIONS[name])
        work = partial(fit_prepared, prepared, entry, variant, options, seed=split, effort="quick", budget=None)
        fitted = work(talk=Talk(), steps=STEPS.get(name))[0]
        if isinstance(fitted.codec, Codec):
            fitted.codec = Salted(fitted.codec.schema, fitted.codec.parts, split)
        fits.append(fitted)
    return prepared, fits


def claims_of_split(setting: Setting, split: int, auc: bool = True) -> list[Claim]:
    """At most five quantities of one split, with their truths."""
    if setting.form:
        from benchmarks.calibration_more import KINDS

        return list(KINDS[setting.form](setting, split))
    prepared, fits = fit_some(setting, split)
    test = prepared.read_test("calibration")
    means = [expectation(setting, fitted, log_prob_rows) for fitted in fits]
    claims: list[Claim] = []

    def add(family: str, what: str, quantity: Quantity, truth: float, error: float) -> None:
        claims.append(Claim(setting.name, family, what, split, quantity, truth, error / (quantity.stderr or np.inf)))

    first, second, third = fits
    if first.codec.dequantises:
        add(first.family, "bound", first.evaluate(test), *expectation(setting, first, true_log_prob_rows))
        name = "bound's mean" if second.codec.dequantises else "log p"  # some families give probabilities
        add(second.family, name, second.evaluate(test), *means[1])
    else:
        add(first.family, "log p", first.evaluate(test), *means[0])
        holes = law(setting.law).holes if setting.law else None
        if holes is None:
            name = "bound's mean" if second.codec.dequantises else "log p"
            add(second.family, name, second.evaluate(test), *means[1])
        elif second.family != "histogram":  # quadrature in a disc wants a smooth density
            centre = holes.centres[(split // len(SETTINGS)) % len(holes.centres)]
            inside = np.linalg.norm(second.sample(SAMPLES, split).values - centre, axis=1) <= holes.radius
            truth = mass_in_disc(second, centre, holes.radius)
            add(second.family, "hole share", proportion(int(inside.sum()), SAMPLES), truth, 0.0)
    best = int(np.argmax([fitted.calibration.mean() for fitted in fits]))
    other = (best + 1 + split // len(SETTINGS) % 2) % 3
    pair = fits[other].row_likelihood(test), fits[best].row_likelihood(test)
    kinds = fits[other].log_prob_kind, fits[best].log_prob_kind
    common = common_error(fits[other].model, fits[best].model)
    difference = difference_on_test(*pair, kinds, test.values, prepared.test_clusters, common)
    label = f"{fits[other].family} - {fits[best].family}"
    add(label, "difference", difference, means[other][0] - means[best][0], means[other][1] + means[best][1])
    if prepared.table.source.law is not None:
        truth, error = expectation(setting, third, true_log_prob_rows) if third.codec.dequantises else means[2]
        entropy = float(law_of(setting).entropy().value)
        add(third.family, "truth gap", fresh_gap(setting, third, split), -entropy - truth, error)
    if auc:
        draws = rows_of(replace(setting, copies=1), len(test), AUC_SEED + split)  # a model does not repeat its draws
        auc_of = partial(two_sample_auc, clusters=prepared.test_clusters)
        add("the law", "AUC", auc_of(test.values, draws, prepared.table.schema, split), 0.5, 0.0)
    return claims


def fresh_gap(setting: Setting, fitted: Fitted, split: int) -> Quantity:
    """``truth_gap`` on draws of this split's own: the library has one set for all, which would be no replication."""
    assert setting.law is not None
    return truth_gap(fitted, setting.law, GAP_ROWS, GAP_SEED + split)


# --- all splits --------------------------------------------------------------------------------------------------------


def claims_of(splits: Iterable[int], until: float) -> list[Claim]:
    """All claims of these splits, whole rounds of settings until the clock says ``until``; runs in a worker."""
    found: list[Claim] = []
    for split in splits:
        if split % len(SETTINGS) == 0 and time.time() > until:
            break
        found += claims_of_split(SETTINGS[split % len(SETTINGS)], split)
    return found


def measure(splits: int, workers: int, minutes: float) -> list[Claim]:
    """``splits`` splits, the settings in turn; the result does not depend on the number of workers.

    After so many minutes a worker ends with the round of settings that it is in, and fewer splits are had.
    """
    rounds, until = -(-splits // len(SETTINGS)), time.time() + 60 * minutes
    jobs = [
        [i for turn in range(worker, rounds, workers) for i in _round(turn) if i < splits] for worker in range(workers)
    ]
    if workers == 1:
        return claims_of(jobs[0], until)
    # spawn, not fork: a forked JAX hangs
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        return [claim for claims in pool.map(claims_of, jobs, [until] * workers) for claim in claims]


def _round(turn: int) -> range:
    return range(turn * len(SETTINGS), (turn + 1) * len(SETTINGS))


def coverage_of(claims: list[Claim]) -> Coverage:
    """The coverage of some of the claims; splits are the clusters."""
    return Coverage.of([c.quantity for c in claims], [c.truth for c in claims], [c.split for c in claims])


def tables(claims: list[Claim]) -> dict[str, list[dict[str, Any]]]:
    """Coverage overall, by kind, by quantity, by law, by family and by all three; one entry a line of a table."""
    keys: dict[str, Callable[[Claim], str]] = {
        "overall": lambda c: "two-sided" if c.quantity.two_sided else "one-sided (bounds)",
        "kind": lambda c: c.quantity.kind,
        "quantity": lambda c: f"{c.what} | {_side(c)}",
        "law": lambda c: f"{c.setting} | {_side(c)}",
        "family": lambda c: f"{c.family} | {_side(c)}",
        "law | family | quantity": lambda c: f"{c.setting} | {c.family} | {c.what}",
    }
    return {title: [_line(label, group) for label, group in _groups(claims, key)] for title, key in keys.items()}


def _side(claim: Claim) -> str:
    return "two-sided" if claim.quantity.two_sided else "one-sided"


def _groups(claims: list[Claim], key: Callable[[Claim], str]) -> Iterable[tuple[str, list[Claim]]]:
    labels = list(dict.fromkeys(key(claim) for claim in claims))
    return [(label, [claim for claim in claims if key(claim) == label]) for label in labels]


def _line(label: str, claims: list[Claim]) -> dict[str, Any]:
    hits = [claim.quantity.contains(claim.truth) for claim in claims]
    several = len({claim.split for claim in claims}) > 1  # one split is one replication: no coverage can be stated
    found = coverage_of(claims) if several else None
    share = None if found is None else found.two_sided or found.one_sided
    two = found is not None and all(claim.quantity.two_sided for claim in claims)
    return {
        "label": label,
        "hits": sum(hits),
        "of": len(hits),
        "splits": len({claim.split for claim in claims}),
        "coverage": None if share is None else share.to_json(),
        "truth_below": found.below if found and two else None,
        "truth_above": found.above if found and two else None,
        "holds": found.holds if found and len(hits) >= 100 else None,
    }


def to_markdown(lines: dict[str, list[dict[str, Any]]], facts: dict[str, Any]) -> str:
    """The tables as text."""
    out = [
        "# Calibration: do the stated 95 % intervals hold the truth?",
        "",
        __doc__.split("\n\n", 1)[1].strip(),
        "",
        *(f"- {key}: {item}" for key, item in facts.items()),
        "",
        "Coverage is followed by its 95 % interval, robust to the dependence within a split. 'holds': that interval meets",
        "[.93, .97], or reaches .93 where one-sided; blank below 100 intervals. 'truth below / above' counts misses.",
    ]
    for title, entries in lines.items():
        out += ["", f"## By {title}" if title != "overall" else "## Overall", ""]
        head = "hits | of | splits | coverage | 95 % | truth below / above | holds |"
        columns = (
            title
            if title in ("law | family | quantity",)
            else f"{title} | form"
            if "|" in entries[0]["label"]
            else title
        )
        out += [f"| {columns} | {head}", "|" + "---|" * (columns.count("|") + head.count("|") + 1)]
        out += [_markdown_line(entry) for entry in entries]
    return "\n".join(out) + "\n"


def _markdown_line(entry: dict[str, Any]) -> str:
    share = entry["coverage"]
    said = ["", ""] if share is None else [f"{share['value']:.3f}", f"{share['low']:.3f} to {share['high']:.3f}"]
    misses = "" if entry["truth_below"] is None else f"{entry['truth_below']} / {entry['truth_above']}"
    holds = {None: "", True: "yes", False: "**no**"}[entry["holds"]]
    cells = [entry["label"], str(entry["hits"]), str(entry["of"]), str(entry["splits"]), *said, misses, holds]
    return "| " + " | ".join(cells) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description="Coverage of the stated intervals on laws known exactly.")
    parser.add_argument("--splits", type=int, default=SPLITS)
    parser.add_argument("--minutes", type=float, default=60.0, help="after which no further round of settings begins")
    parser.add_argument("--workers", type=int, default=min(2, os.cpu_count() or 1))
    parser.add_argument("-o", "--out", type=Path, default=Path(__file__).parent / "results" / "calibration.md")
    given = parser.parse_args()
    began = time.perf_counter()
    made = measure(given.splits, given.workers, given.minutes)
    claims = [c for c in made if c.quantity.low is not None or c.quantity.high is not None]
    facts = {
        "quantities": len(claims),
        "stated without an interval (kind none), and so not counted": len(made) - len(claims),
        "splits": len({claim.split for claim in claims}),
        "largest error of a truth, in stated standard errors": round(max(c.truth_error for c in claims), 3),
        "seconds": round(time.perf_counter() - began),
        "workers": given.workers,
        "command": f"python -m benchmarks.calibration --splits {given.splits} --minutes {given.minutes:g}",
        "asked for": f"{given.splits} splits; the clock may have ended the run before",
        "load of the machine": round(os.getloadavg()[0], 1),
        "python": platform.python_version(),
    }
    lines = tables(claims)
    raw = [{**c._asdict(), "quantity": c.quantity.to_json()} for c in claims]
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(to_markdown(lines, facts), encoding="utf-8")
    text = json.dumps({"facts": facts, "tables": lines, "claims": raw}, indent=None, allow_nan=False)
    given.out.with_suffix(".json").write_text(text + "\n", encoding="utf-8")
    print(given.out.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
