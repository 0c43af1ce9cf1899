"""A made-up comparison with every case the scorecard must show: ties, bounds, estimates, no density, a failure."""

from __future__ import annotations

import copy
import math

import numpy as np

from mulligan.quantity import Quantity, none

COLUMNS = ("fixed acidity", "volatile acidity", "alcohol", "pH", "sulphates", "quality", "colour", "age")


def quantity(value, stderr, kind="exact", n=240, unit="nats/row", note="", **method):
    low = None if kind == "upper bound" else value - 1.97 * stderr
    high = None if kind == "lower bound" else value + 1.97 * stderr
    return Quantity(value, kind, low, high, stderr, n, unit, note, **method).to_json()


def family(name, label, log_prob, delta, area, **more):
    base = {
        "family": name,
        "label": label,
        "log_prob": log_prob,
        "delta_to_best": delta,
        "truth_gap": None,
        "two_sample_auc": quantity(area, 0.03, "estimate", 480, "") if area is not None else None,
        "holes": None,
        "strokes": 1,
        "chains": None,
        "parameters": 1000,
        "fit_seconds": 12.3,
        "compile_seconds": 1.9,
        "steps": 1000,
        "sample_seconds_per_1000": 0.012,
        "health": ["integrates to 1.002 ± 0.004"],
        "status": "ok",
        "reason": None,
        "select_log_prob": log_prob["value"],
        "choices": [],
        "table": None,
    }
    return base | more


def example() -> dict:
    """A fresh report each time, so that a test may spoil it."""
    unit = "nats/row"
    mixture_choices = [
        {
            "option": f"parts={k} {cov}",
            "select": -4.2 + 0.1 * k - 0.012 * k * k + (0.1 if cov == "full" else 0),
            "bic": 9e3 + 37.5 * k,
        }
        for k in (1, 2, 4, 7)
        for cov in ("diag", "full")
    ]
    mixture_table = {
        "columns": ["part", "weight", *(f"mean {name}" for name in COLUMNS[:5])],
        "rows": [[k, 0.25, 7.1 + k, 0.5, 10.2, 3.2, -0.66] for k in range(4)],
    }
    families = [
        family(
            "flow",
            "flow",
            quantity(-3.21, 0.09),
            None,
            0.55,
            parameters=34816,
            steps=1700,
            fit_seconds=60.0,
            holes={"found": 5, "of": 5, "low": 5, "high": 5},
        ),
        family(
            "diffusion",
            "diffusion",
            quantity(-3.27, 0.09, "numeric", method_low=-3.2701, method_high=-3.2699),
            quantity(-0.06, 0.05, "numeric"),
            0.53,
            strokes=200,
            parameters=52100,
            sample_seconds_per_1000=0.62,
            holes={"found": 5, "of": 5, "low": 5, "high": 5},
        ),
        family(
            "mixture",
            "mixture (k=7, full)",
            quantity(-3.48, 0.10),
            quantity(-0.27, 0.06),
            0.58,
            strokes=0,
            parameters=545,
            fit_seconds=0.4,
            choices=mixture_choices,
            table=mixture_table,
            steps=84,
        ),
        family(
            "energy",
            "energy",
            quantity(-3.60, 0.11, "estimate", method_low=-3.66, method_high=-3.52),
            quantity(-0.39, 0.09, "estimate"),
            0.61,
            strokes=500,
            chains=256,
            health=["R-hat 1.02 over 256 chains", "acceptance .71"],
            holes={"found": 4, "of": 5, "low": 3, "high": 5},
        ),
        family(
            "vae",
            "vae",
            quantity(-3.74, 0.10, "lower bound", note="IWAE-500"),
            quantity(-0.53, 0.07, "lower bound"),
            0.66,
        ),
        family(
            "gan",
            "gan",
            none("a GAN has no density", unit).to_json(),
            None,
            0.74,
            holes={"found": 3, "of": 5, "low": 3, "high": 3},
        ),
        family(
            "gaussian",
            "gaussian",
            quantity(-5.02, 0.12),
            quantity(-1.81, 0.11),
            0.83,
            strokes=0,
            parameters=44,
            fit_seconds=0.003,
            steps=None,
        ),
        family(
            "resample",
            "resample",
            none("it repeats training rows", unit).to_json(),
            None,
            0.50,
            strokes=0,
            parameters=None,
            fit_seconds=0.0,
        ),
        family(
            "continuous-flow",
            "continuous-flow",
            none("the fit failed", unit).to_json(),
            None,
            None,
            status="failed",
            reason="loss became NaN at step 412; the last healthy state is kept",
            health=[],
            fit_seconds=None,
            sample_seconds_per_1000=None,
            strokes=None,
            parameters=None,
            steps=412,
        ),
    ]
    report = {
        "format": 1,
        "data": {
            "name": "wine.csv",
            "sha256": "3f9c" * 16,
            "rows": 1599,
            "columns": [
                *(
                    {"name": n, "kind": "continuous", "minimum": 0.1, "maximum": 15.9, "transform": "none"}
                    for n in COLUMNS[:5]
                ),
                {"name": "quality", "kind": "integer", "minimum": 3.0, "maximum": 8.0, "step": 1.0},
                {"name": "colour", "kind": "categorical", "levels": ["red", "white", "orange wine from amphorae"]},
                {"name": "age", "kind": "gridded", "minimum": 0.0, "maximum": 52.0, "step": 1.0, "high_cap": 52.0},
                {"name": "site", "kind": "constant", "constant": 3},
            ],
            "measure": "density per unit of fixed acidity, alcohol x probability of the value of quality, colour",
            "notes": [
                "240 duplicate rows (15 %): kept, but never split between train and test",
                "'age' is capped at 52 (38 rows)",
            ],
        },
        "split": {"train": 1119, "select": 240, "test": 240, "seed": 7, "digest": "9b1d04"},
        "families": families,
        "reference": "flow",
        "reading": [],
        "reproduce": {
            "command": "mulligan compare wine.csv --budget 60s --seed 7 -o wine-report",
            "seed": 7,
            "versions": {"mulligan": "0.1.0", "jax": "0.10.2"},
        },
        "selection_note": "Equal terms: one split, 60 s each on 2 threads, settings chosen on select, test read once.",
    }
    return copy.deepcopy(report)


def pictures(report: dict, rows: int = 240) -> dict:
    """Arrays for the figures: skewed, bimodal, integer, categorical and capped columns, each family off differently."""
    rng = np.random.default_rng(0)

    def draw(n, shift=0.0, scale=1.0):
        z = rng.normal(size=(n, 8)) * scale
        out = np.empty((n, 8))
        out[:, 0] = 6.5 + np.exp(0.5 * z[:, 0]) + shift
        out[:, 1] = 0.5 + 0.1 * z[:, 1] - 0.05 * z[:, 0]
        out[:, 2] = np.where(rng.random(n) < 0.4, 9.4, 11.5) + 0.4 * z[:, 2] + shift
        out[:, 3] = 3.3 + 0.1 * z[:, 3] - 0.08 * z[:, 0]
        out[:, 4] = 123456 + 2345 * z[:, 4]
        out[:, 5] = np.clip(np.rint(5.6 + 0.8 * z[:, 5]), 3, 8)
        out[:, 6] = rng.choice(3, n, p=[0.6, 0.3, 0.1])
        out[:, 7] = np.minimum(np.rint(20 + 15 * np.abs(z[:, 7])), 52)
        return out

    ok = [f["family"] for f in report["families"] if f["status"] == "ok"]
    step = np.arange(0, 1700, 10)
    curve = -5 + 1.8 * (1 - np.exp(-step / 300.0))
    return {
        "names": list(COLUMNS),
        "discrete": [False] * 5 + [True] * 3,
        "levels": {"colour": ["red", "white", "orange wine from amphorae"]},
        "real": draw(rows),
        "samples": {name: draw(2000, 0.15 * i, 1 + 0.1 * i) for i, name in enumerate(ok)},
        "curves": {
            "flow": {
                "step": step,
                "train": curve + 0.05 * rng.normal(size=step.size),
                "select": curve - 0.1,
                "unit": "log p, nats/row",
            },
            "energy": {
                "step": step,
                "train": np.where(step == 500, math.nan, 40 * np.exp(-step / 50)),
                "select": None,
                "unit": "energy gap, nats",
            },
            "diffusion": {
                "step": step,
                "train": 1e5 * np.exp(-step / 30) + 0.3,
                "select": 0.35 + 1e5 * np.exp(-step / 30),
                "unit": "denoising loss",
            },
        },
    }


def share(value, stderr, low=0.0, high=1.0, unit="share", n=240):
    return Quantity(
        value, "estimate", max(low, value - 2 * stderr), min(high, value + 2 * stderr), stderr, n, unit
    ).to_json()


# of each family: explained share after samples; copied share and its p; nearer than a test row; KS of its p-values
EVIDENCE = {
    "flow": (0.50, 0.01, 0.4, 0.51, 0.05),
    "diffusion": (0.49, 0.02, 0.2, 0.54, 0.07),
    "mixture": (0.44, -0.03, 0.8, 0.47, 0.04),
    "energy": (0.36, 0.00, 0.5, 0.38, 0.09),
    "vae": (0.31, 0.01, 0.4, 0.61, 0.06),
    "gan": (0.12, 0.02, 0.3, 0.66, 0.14),
    "gaussian": (0.28, -0.01, 0.6, 0.30, 0.05),
    "resample": (0.52, 1.0, 0.0001, 1.0, 0.03),
}


def second_edition() -> dict:
    """The example with what the second edition shows: use of samples, memory, p-values, and a family with a bracket."""
    report = example()
    for row in report["families"]:
        if row["status"] == "failed":
            continue
        explained, copied, chance, nearer, ks = EVIDENCE[row["family"]]
        names = ("mmd", "mmd_p", "sliced_wasserstein", "precision", "recall", "density", "coverage")
        row["samples"] = {name: share(0.9, 0.03) for name in names}
        row["samples"] |= {
            "copied": share(copied, 0.05, -1.0),
            "copied_p": share(chance, 0.01, unit="p"),
            "nearest_sample": share(0.41 - 0.4 * (copied > 0.9), 0.02, high=9.0, unit="spreads"),
            "nearest_test": share(0.45, 0.03, high=9.0, unit="spreads"),
            "nearer": share(nearer, 0.03),
            "rows": 240,
            "expected_coverage": 0.97,
        }
        row["use"] = {
            "samples": share(explained, 0.03, -9.0, unit="of the variation"),
            "real": share(0.52, 0.03, -9.0, unit="of the variation"),
            "difference": share(explained - 0.52, 0.03, -9.0, unit="of the variation"),
            "predictor": "the mean of the 10 nearest rows",
            "columns": [
                {"name": n, "samples": explained - 0.1 * i, "real": 0.52 - 0.02 * i} for i, n in enumerate(COLUMNS)
            ],
            "rows": 1000,
        }
        levels = np.linspace(0, 1, 51)
        row["anomaly"] = {
            "ks": share(ks, 0.0, unit="distance"),
            "bar": 0.124,
            "shares": np.clip(levels + 4 * ks * levels * (1 - levels), 0, 1).tolist(),
            "calibration_rows": 240,
        }
        if row["family"] == "energy":
            row["log_prob"] |= {"kind": "bracket", "method_low": -3.95, "method_high": -3.45, "low": -4.2, "high": -3.2}
            row["delta_to_best"] |= {
                "kind": "bracket",
                "method_low": -0.7,
                "method_high": -0.25,
                "low": -0.9,
                "high": -0.1,
            }
    return report
