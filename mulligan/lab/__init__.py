"""The tutorial as things that run: statements that are checked, and experiments that are seen.

Identity, Check   identity.py     a statement, its evidence, and the planted mistakes that it must refuse
                  identities/     the statements, chapter by chapter: what ``tests/exact`` asserts
verify            verification.py all of them at one family-wise level: ``mulligan verify``
Recording         recording.py    frames of arrays with captions and numbers: what an experiment returns
                  experiment.py   parameters that are read and checked; storage.py: recordings as npz
                  player.py       a recording as a page that plays offline (page/); drawing.py: as GIF and PNG
EXPERIMENTS       experiments/    the experiments: ``mulligan lab list``, ``mulligan lab NAME``, ``mg.lab.NAME(seed=3)``
                  recordings/     their recordings at default parameters, as shipped

An experiment is an attribute of this module: ``mulligan.lab.langevin_halves(seed=3)``.
"""

from __future__ import annotations

from typing import Any


def __getattr__(name: str) -> Any:
    from mulligan.lab.experiments import EXPERIMENTS, find_experiment

    if name in EXPERIMENTS:
        return find_experiment(name)
    raise AttributeError(f"module 'mulligan.lab' has no attribute {name!r}; experiments: {', '.join(EXPERIMENTS)}")


def __dir__() -> list[str]:
    from mulligan.lab.experiments import EXPERIMENTS

    return sorted(EXPERIMENTS)
