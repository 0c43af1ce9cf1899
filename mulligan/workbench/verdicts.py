"""What a sampler of a density came to: draws with their verdict, one sampler or several side by side.

Everything that is expensive (R-hat, modes, gradients at the draws) is computed when it is first asked for.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from mulligan.errors import MulliganError, SetupError
from mulligan.loop import compile_small
from mulligan.measures.chains import Chains, inference_data
from mulligan.measures.coverage import holes_found
from mulligan.measures.diagnosis import Diagnosis, diagnose
from mulligan.measures.modes import Modes, find_modes, given_modes
from mulligan.quantity import Quantity, none
from mulligan.targets.discrete import Enumerated
from mulligan.workbench.drawing import Drawn, WarmUp
from mulligan.workbench.rungs import draws_of
from mulligan.workbench.target import Target, gradients_at

TRUE_DRAWS = 1500  # exact draws of a known law in the picture
NO_LOG_Z = "a chain at β = 1 does not see log Z; tempering and annealed estimate it"


@dataclass(frozen=True)
class DensitySamples:
    """Draws of one sampler with all that is known of them.

    ``drawn`` is what the sampler made on the flat z; ``draws``, ``positions``, ``statistics``, ``log_z``, ``diagnose()``,
    ``verdict``, ``warm_up``, ``summary()`` and ``to_arviz()`` are what one looks at.
    """

    sampler: str
    target: Target
    drawn: Drawn
    seed: int
    start_size: float
    look_for_modes: bool = True

    @cached_property
    def draws(self) -> np.ndarray:
        """Draws in the user's own coordinates, (chains, draws, d), float64; their names are ``names``."""
        if self.target.space is None:
            return np.asarray(self.drawn.z, np.float64)
        return np.asarray(_vectors(self.target.space, jnp.asarray(self.drawn.z)), np.float64)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the coordinates: ``mu``, ``theta[0]``, …"""
        return self.target.names

    @cached_property
    def positions(self) -> dict[str, np.ndarray]:
        """Each variable of the user's position by name, (chains, draws, …)."""
        return self.target.named(self.draws)

    @property
    def statistics(self) -> dict[str, np.ndarray]:
        """Numbers of each draw, (chains, draws): acceptance, log density, divergent, …"""
        return self.drawn.statistics

    @property
    def log_z(self) -> Quantity:
        """log ∫ exp(log density), where the sampler knows it."""
        return none(NO_LOG_Z, "nats") if self.drawn.log_z is None else self.drawn.log_z

    @property
    def warm_up(self) -> WarmUp:
        """What the warm-up found, to be used again: ``sample_density(..., warm_up=this.warm_up)``."""
        return self.drawn.warm_up

    @cached_property
    def chains(self) -> Chains:
        """The draws on the flat z as ``measures.chains`` judges them."""
        d = self.drawn
        return Chains(d.z, self.names, d.statistics, d.law, d.strokes, self.target.discrete)

    @cached_property
    def modes(self) -> Modes | None:
        """Modes and who visits them: the holes of a known law, else found by climbing; None where none are looked for."""
        law, z = self.target.law, np.asarray(self.drawn.z, np.float64)
        if self.target.discrete or not self.look_for_modes:
            return None
        if law is not None and law.holes is not None:
            return given_modes(z, law.holes.centres, law.holes.radius)
        try:
            return find_modes(self.target.flat, z)
        except Exception:  # a function without gradient (random-walk takes such): modes are then not looked for
            return None

    @cached_property
    def _diagnosis(self) -> Diagnosis:
        d, law = self.drawn, self.target.law
        holes = None
        if law is not None and law.holes is not None and not self.target.discrete:
            found = law.holes
            holes = holes_found(self.chains.pooled, found.centres, found.radius, found.shares)
        scores = gradients_at(self.target, d.z) if d.law.invariant == "order" else None
        return diagnose(
            self.chains,
            self.modes,
            holes=holes,
            scores=scores,
            start_size=self.start_size,
            stopped=d.stopped,
            weights_ess=d.weights_ess,
        )

    def diagnose(self) -> Diagnosis:
        """The verdict in words, with the numbers behind it."""
        return self._diagnosis

    @property
    def verdict(self) -> str:
        """``ok``, or the worst that was found (see ``measures.diagnosis``)."""
        return self._diagnosis.verdict

    def summary(self) -> dict[str, dict[str, float]]:
        """For each coordinate its mean, sd, MCSE, R-hat and effective sample sizes, in the user's own coordinates."""
        s = Chains(self.draws, self.names, law=self.drawn.law, discrete=self.target.discrete).summary
        columns = ("mean", "sd", "mcse", "rhat", "ess_bulk", "ess_tail")
        return {name: {column: float(getattr(s, column)[i]) for column in columns} for i, name in enumerate(self.names)}

    def to_arviz(self) -> Any:
        """An ArviZ ``DataTree``: posterior with the variables' names, sample_stats. SetupError without arviz-base."""
        from mulligan import __version__

        about = {"inference_library": "mulligan", "inference_library_version": __version__, "sampler": self.sampler}
        return inference_data(self.positions, self.statistics, {**about, "verdict": self.verdict})

    def row(self) -> dict[str, Any]:
        """All numbers as plain data."""
        said = self.diagnose()
        return {
            "sampler": self.sampler,
            "status": "ok",
            "diagnosis": said.to_json(),
            "verdict": said.verdict,
            "log_z": self.log_z.to_json(),
            "strokes_per_draw": self.drawn.strokes,
            "seconds": self.drawn.seconds,
            "warm_up_seconds": self.warm_up.seconds,
            "step_size": None if self.warm_up.tuned is None else float(self.warm_up.tuned.step_size),
            "summary": self.summary(),
            "remarks": dict(self.drawn.remarks),
        }

    def __repr__(self) -> str:
        chains, draws, d = self.drawn.z.shape
        z = "" if self.log_z.value is None else f"\n  log Z {self.log_z}"
        head = f"{self.sampler}: {chains} chains of {draws} draws in {d} dimensions of {self.target.name}"
        return f"{head}\n  {self.diagnose()}{z}"


@dataclass(frozen=True)
class DensityComparison(Mapping[str, Any]):
    """Several samplers side by side: a mapping from name to ``DensitySamples``; ``failed`` holds what could not run."""

    target: Target
    results: dict[str, DensitySamples]
    failed: dict[str, MulliganError]

    def __getitem__(self, name: str) -> DensitySamples:
        if name in self.failed:
            raise self.failed[name]
        return self.results[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.results)

    def __len__(self) -> int:
        return len(self.results)

    @property
    def usable(self) -> tuple[str, ...]:
        """The samplers against whose draws nothing speaks but perhaps their number."""
        return tuple(name for name, result in self.results.items() if result.diagnose().usable)

    def rows(self) -> list[dict[str, Any]]:
        """Plain data of every sampler."""
        rows = [result.row() for result in self.results.values()]
        return rows + [
            {"sampler": name, "status": "failed", "verdict": "failed", "reason": str(error), "advice": error.do}
            for name, error in self.failed.items()
        ]

    def report(self, command: str = "", seed: int = 0) -> dict[str, Any]:
        """Everything as plain data: what ``report.json`` holds and the page shows."""
        from importlib.metadata import version

        law = self.target.law
        return {
            "name": self.target.name,
            "dim": self.target.dim,
            "names": list(self.target.names),
            "known": _known(law),
            "samplers": self.rows(),
            "command": command,
            "seed": seed,
            "versions": {name: version(name) for name in ("mulligan", "jax", "numpy", "blackjax", "arviz-stats")},
        }

    def save(self, folder: str | Path, report: Mapping[str, Any] | None = None) -> None:
        """Write ``index.html``, ``report.json`` and the draws of each sampler (``NAME.npz``) into the folder.

        Raises SetupError where it cannot be written.
        """
        from mulligan.report.density_page import density_html
        from mulligan.report.writing import write_json, write_whole

        folder = Path(folder)
        report = self.report() if report is None else report
        pictures: dict[str, Any] = {
            name: {"draws": result.draws, "chained": result.drawn.weights_ess is None}
            for name, result in self.results.items()
        }
        if self.target.law is not None:
            keys = jax.random.split(jax.random.key(0), TRUE_DRAWS)
            pictures[""] = {"draws": np.asarray(draws_of(self.target.law, keys), np.float64)}
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for name, result in self.results.items():
                arrays = {**result.positions, **{f"statistics.{k}": v for k, v in result.statistics.items()}}
                np.savez(folder / f"{name}.npz", allow_pickle=False, **{k.strip("."): v for k, v in arrays.items()})
        except OSError as error:
            raise SetupError(f"cannot write {folder}", error.strerror or "", do="another -o DIR") from error
        write_json(report, folder / "report.json")
        write_whole(density_html(report, pictures), folder / "index.html")

    def __repr__(self) -> str:
        said = [f"{name}: {result.diagnose()}" for name, result in self.results.items()]
        return "\n".join([*said, *(f"{name} failed: {error}" for name, error in self.failed.items())])


@compile_small
def _vectors(space: Any, z: Array) -> Array:
    return jax.vmap(jax.vmap(space.coordinates))(z)


def _known(law: Any) -> str:
    if law is None:
        return ""
    log_z = float(law.log_z) if isinstance(law, Enumerated) else 0.0
    return f"a known law, log Z = {log_z:.6g}"
