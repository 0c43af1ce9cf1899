"""Eight schools by NUTS and HMC, beside the published posterior means.

    python -m benchmarks.eight_schools [--chains 16] [--draws 4000] [-o benchmarks/results/eight_schools.md]

Rubin (1981); the non-centred model with half-Cauchy(5) on tau and N(0, 5²) on mu, whose posterior means are published
with their Monte Carlo errors (posteriordb, eight_schools-eight_schools_noncentered). The position is a pytree and tau is
bounded below, so this runs the transforms, their Jacobian, warm-up and diagnostics together. A line holds where our mean
is within 4 combined standard errors of the published one.
"""

from __future__ import annotations

import argparse
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

import mulligan as mg
from mulligan.measures.chains import summarise

EFFECTS = (28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0)
ERRORS = (15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0)
PUBLISHED = {"mu": (4.41, 0.03), "tau": (3.60, 0.03), "theta_1": (6.15, 0.06)}  # mean, MCSE
START = {"mu": 0.0, "tau": 1.0, "eta": np.zeros(8)}
BOUNDS = {"tau": (0, None)}
SAMPLERS = ("nuts", "hmc")
MOST = 4.0


def log_density(position: dict[str, Any]) -> Any:
    """log p(mu, tau, eta, y) up to a constant, theta = mu + tau eta."""
    mu, tau, eta = position["mu"], position["tau"], position["eta"]
    theta = mu + tau * eta
    prior = -0.5 * (mu / 5) ** 2 - jnp.log1p((tau / 5) ** 2) - 0.5 * jnp.sum(eta**2)
    return prior - 0.5 * jnp.sum(((jnp.asarray(EFFECTS) - theta) / jnp.asarray(ERRORS)) ** 2)


def means(result: Any) -> dict[str, tuple[float, float, float]]:
    """Mean, MCSE and bulk ESS of the published quantities."""
    p = result.positions
    columns = {"mu": p["mu"], "tau": p["tau"], "theta_1": p["mu"] + p["tau"] * p["eta"][..., 0]}
    found = {name: summarise(values[..., None]) for name, values in columns.items()}
    return {name: (float(s.mean[0]), float(s.mcse[0]), float(s.ess_bulk[0])) for name, s in found.items()}


def sample(sampler: str, chains: int, draws: int, warm_up: int = 1000, seed: int = 0) -> Any:
    """The posterior by one sampler; acceptance .95, for the funnel between tau and eta is steep near tau = 0."""
    return mg.sample_density(
        log_density,
        start=START,
        bounds=BOUNDS,
        sampler=sampler,
        chains=chains,
        draws=draws,
        warm_up=warm_up,
        acceptance=0.95,
        leapfrogs=16,
        seed=seed,
    )


def distance(ours: tuple[float, float, float], published: tuple[float, float]) -> float:
    """|difference of means| in combined standard errors."""
    return abs(ours[0] - published[0]) / float(np.hypot(ours[1], published[1]))


def page(chains: int, draws: int) -> list[str]:
    """The lines of the page of results."""
    lines = [
        "# Eight schools, non-centred",
        "",
        f"{chains} chains of {draws:,} draws after 1,000 steps of warm-up, acceptance .95, HMC with 16 leapfrogs, seed 0. "
        f"A line holds where the mean is within {MOST:g} combined standard errors of the published one.",
        "",
        "| sampler | quantity | mean ± MCSE | published | distance in SE | bulk ESS | |",
        "|---|---|---|---|---|---|---|",
    ]
    verdicts = []
    for sampler in SAMPLERS:
        began = time.perf_counter()
        result = sample(sampler, chains, draws)
        for name, ours in means(result).items():
            far, (mean, error) = distance(ours, PUBLISHED[name]), PUBLISHED[name]
            holds = "**holds**" if far <= MOST else "**fails**"
            numbers = f"{ours[0]:.3f} ± {ours[1]:.3f} | {mean:.2f} ± {error:.2f} | {far:.1f} | {ours[2]:,.0f}"
            lines.append(f"| {sampler} | {name} | {numbers} | {holds} |")
        verdicts.append(f"- {sampler}: {result.diagnose()} ({time.perf_counter() - began:.0f} s with compiling)")
    versions = ", ".join(f"{name} {version(name)}" for name in ("mulligan", "jax", "blackjax", "arviz-stats"))
    return [
        *lines,
        "",
        *verdicts,
        "",
        f"`python -m benchmarks.eight_schools --chains {chains} --draws {draws}`; {versions}.",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--chains", type=int, default=16)
    parser.add_argument("--draws", type=int, default=4000)
    parser.add_argument("-o", type=Path, default=Path(__file__).parent / "results" / "eight_schools.md")
    options = parser.parse_args()
    text = "\n".join(page(options.chains, options.draws)) + "\n"
    print(text, flush=True)
    options.o.parent.mkdir(parents=True, exist_ok=True)
    options.o.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
