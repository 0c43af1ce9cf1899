"""Speed side by side with scikit-learn, in one run, as ratios: EM for a Gaussian mixture, and a kernel density.

Rounds are interleaved (ours, theirs, ours, …), so that a busy moment of the machine hits both; the ratio of medians is
stated with the least and greatest ratio of any round. Both sides start from the same parameters and must reach the same
log-likelihood: a fast wrong answer does not count.

    python -m benchmarks.peers [--rounds 7] [-o benchmarks/results/peers.md]
"""

from __future__ import annotations

import argparse
import os
import platform
import time
import warnings
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

ITERATIONS = 5


def em(rounds: int) -> dict[str, object]:
    """One EM iteration, n = 100 000, d = 16, k = 32, full covariances."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.mixture import GaussianMixture as Theirs

    from mulligan.learners.expectation_maximisation import MixtureState, mixture_em
    from mulligan.loop import run

    n, d, k = 100_000, 16, 32
    rng = np.random.default_rng(0)
    centres = 3 * rng.normal(size=(k, d))
    rows = (centres[rng.integers(k, size=n)] + rng.normal(size=(n, d))).astype(np.float32)
    means = rows[rng.choice(n, k, replace=False)]
    state = MixtureState(jnp.full(k, np.float32(1 / k)), jnp.asarray(means), jnp.tile(jnp.eye(d), (k, 1, 1)))
    kernel = mixture_em(rows, "full", 1e-6)
    key = jax.random.key(0)
    run(kernel, key, state, 1)  # compiled before the clock starts; scikit-learn has nothing to compile

    def ours() -> float:
        finished = run(kernel, key, state, ITERATIONS + 1)
        return float(finished.history["log_likelihood"][-1])

    def theirs() -> float:
        model = Theirs(
            k,
            weights_init=np.full(k, 1 / k),
            means_init=means.astype(np.float64),
            precisions_init=np.tile(np.eye(d), (k, 1, 1)),
            max_iter=ITERATIONS + 1,
            tol=0.0,
            reg_covar=1e-6,
            init_params="random",
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            model.fit(rows)
        return float(model.lower_bound_)

    name = f"EM, one iteration: n={n:,}, d={d}, k={k}, full"
    return interleave(name, ours, theirs, rounds, per=ITERATIONS + 1)


def kde(rounds: int) -> dict[str, object]:
    """log p of 5 000 rows under 5 000 kernels in 6 dimensions."""
    from sklearn.neighbors import KernelDensity as Theirs

    from mulligan.measures.likelihood import point_log_prob
    from mulligan.models.kernel_density import KernelDensity

    rng = np.random.default_rng(1)
    centres, rows = (rng.normal(size=(5000, 6)).astype(np.float32) for _ in range(2))
    model = KernelDensity(jnp.asarray(centres), jnp.eye(6), jnp.asarray(0.4))
    peer = Theirs(bandwidth=0.4).fit(centres)
    point_log_prob(model, rows)

    def ours() -> float:
        return float(point_log_prob(model, rows).mean())

    def theirs() -> float:
        return float(peer.score_samples(rows).mean())

    return interleave("KDE, log p of 5,000 rows under 5,000 kernels, d=6", ours, theirs, rounds)


def interleave(
    name: str, ours: Callable[[], float], theirs: Callable[[], float], rounds: int, per: int = 1
) -> dict[str, object]:
    """Seconds of both, round by round, and how far their answers are apart (relative)."""
    seconds: dict[str, list[float]] = {"ours": [], "theirs": []}
    answers: dict[str, float] = {}
    for _ in range(rounds):
        for side, function in (("ours", ours), ("theirs", theirs)):
            clock = time.perf_counter()
            answers[side] = function()
            seconds[side].append((time.perf_counter() - clock) / per)
    a, b = np.array(seconds["ours"]), np.array(seconds["theirs"])
    difference = abs(answers["ours"] - answers["theirs"]) / abs(answers["theirs"])
    ratio = float(np.median(b) / np.median(a))
    spread = (float((b / a).min()), float((b / a).max()))
    return {"name": name, "ours": float(np.median(a)), "theirs": float(np.median(b)), "ratio": ratio} | {
        "spread": spread,
        "difference": difference,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("-o", type=Path, default=Path(__file__).parent / "results" / "peers.md")
    options = parser.parse_args()
    # Some machines are set to an old OpenBLAS kernel, which would slow the peer down: unset them for a fair run.
    handicaps = [name for name in ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE") if name in os.environ]
    if handicaps:
        print(f"unset {' and '.join(handicaps)} for a fair comparison: they slow scikit-learn's matrix products")
        raise SystemExit(2)
    results = [measure(options.rounds) for measure in (em, kde)]
    versions = ", ".join(f"{name} {version(name)}" for name in ("mulligan", "jax", "scikit-learn", "numpy"))
    lines = [
        "# Beside peers",
        "",
        f"Median of {options.rounds} interleaved rounds, {os.cpu_count()} cores, {platform.machine()}; {versions}. "
        "Ratio = their time / ours; in brackets the least and the greatest ratio of any round.",
        "",
        "| what | ours, s | scikit-learn, s | ratio | relative difference of the result |",
        "|---|---|---|---|---|",
    ]
    for r in results:
        low, high = r["spread"]  # type: ignore[misc]
        lines.append(
            f"| {r['name']} | {r['ours']:.4f} | {r['theirs']:.4f} | {r['ratio']:.1f} ({low:.1f} to {high:.1f}) "
            f"| {r['difference']:.1e} |"
        )
    options.o.parent.mkdir(parents=True, exist_ok=True)
    options.o.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
