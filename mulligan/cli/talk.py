"""How progress looks: a live line on a terminal, one line for every tenth of the work elsewhere, nothing with --quiet.

All of it goes to stderr, so that a result on stdout stays clean.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from mulligan.cli.output import colorful, tell
from mulligan.report.cells import label
from mulligan.report.formatting import one_line, plus_minus, seconds
from mulligan.workbench.talk import Talk

_SHOWN = 2  # numbers of a pulse that a line has room for
TENTHS = 10
LEAST_SECONDS = 1.0  # between two lines: a search over many short runs would otherwise fill a log


class QuietTalk(Talk):
    """Warnings only; the base of the others."""

    def warn(self, text: str) -> None:
        """A warning, on one line."""
        tell(f"mulligan: warning: {one_line(text)}")

    def opens(self, source: str) -> None:
        """The first seconds: a table is read, JAX is loaded."""

    def close(self) -> None:
        """Nothing is left on the screen."""


class LineTalk(QuietTalk):
    """Off a terminal: ``fit mixture 120/300 log_likelihood=-3.31 elapsed=35s`` for every tenth, for files and CI."""

    def __init__(self, verb: str):
        self.verb = verb
        self.label = ""
        self.began = self.told = time.monotonic()
        self.phase = ""
        self.tenth = 0

    def note(self, text: str) -> None:
        """A note, as it is."""
        tell(one_line(text))

    def family_begins(self, label: str, index: int, of: int) -> None:
        """Starts the clock of the family."""
        self.label, self.phase, self.tenth = label, "", 0
        self.began = self.told = time.monotonic()

    def pulse(self, phase: str, step: int, steps: int, latest: dict[str, float]) -> None:
        """A line, if a new tenth is reached."""
        if phase != self.phase:
            self.phase, self.tenth = phase, 0
        tenth, now = TENTHS * step // max(steps, 1), time.monotonic()
        if tenth <= self.tenth or now - self.told < LEAST_SECONDS:
            return
        self.tenth, self.told = tenth, now
        words = [self.verb, self.label, _stage(phase, self.label, self.verb), f"{step}/{steps}", _numbers(latest, "=")]
        tell(" ".join(word for word in [*words, f"elapsed={now - self.began:.0f}s"] if word))

    def family_ends(self, row: dict[str, Any]) -> None:
        """The family's own line."""
        tell(_ended(row))


class LiveTalk(QuietTalk):
    """On a terminal: one line that moves, and a lasting line for each finished family."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

        self.console = Console(stderr=True, highlight=False, no_color=not colorful(sys.stderr))
        self.progress = Progress(
            TextColumn("{task.fields[family]:<14} {task.description}", markup=False),
            BarColumn(bar_width=20),
            TextColumn("{task.fields[numbers]}", markup=False),
            TimeElapsedColumn(),
            console=self.console,
            transient=True,
        )
        self.family = self.name = ""
        self.task: Any = None

    def opens(self, source: str) -> None:
        """Something moves at once, before there is anything to count."""
        self._begin(one_line(source), "reading")

    def note(self, text: str) -> None:
        """A lasting line above the moving one."""
        self.console.print(one_line(text), markup=False)

    def warn(self, text: str) -> None:
        """A lasting line, in yellow where colour is welcome."""
        self.console.print(f"mulligan: warning: {one_line(text)}", style="yellow", markup=False)

    def family_begins(self, label: str, index: int, of: int) -> None:
        """The moving line, as yet without steps."""
        self.name = label
        self.family = label if of <= 1 else f"{index}/{of} {label}"
        self._begin(self.family, "compiling")

    def pulse(self, phase: str, step: int, steps: int, latest: dict[str, float]) -> None:
        """Moves the line."""
        if self.task is None:
            self.family_begins(self.name, 1, 1)
        numbers = f"{step:,}/{steps:,}  {_numbers(latest, ' ')}"
        stage = _stage(phase, self.name, "") or "fitting"
        self.progress.update(self.task, description=stage, completed=step, total=max(steps, 1), numbers=numbers)

    def family_ends(self, row: dict[str, Any]) -> None:
        """The family's own line stays."""
        self._remove()
        self.note(_ended(row))

    def close(self) -> None:
        """Takes the moving line away."""
        self._remove()
        self.progress.stop()

    def _begin(self, family: str, stage: str) -> None:
        self._remove()
        self.progress.start()
        self.task = self.progress.add_task(stage, total=None, family=family, numbers="")

    def _remove(self) -> None:
        if self.task is not None:
            self.progress.remove_task(self.task)
            self.task = None


@contextmanager
def talking(verb: str, source: str, *, quiet: bool) -> Iterator[Any]:
    """The talk that suits stderr; nothing that moves is left on the screen, whatever happens."""
    # NO_COLOR forbids colour, not a line that moves; a dumb terminal cannot move it
    live = sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
    talk = QuietTalk() if quiet else LiveTalk() if live else LineTalk(verb)
    talk.opens(source)
    try:
        yield talk
    finally:
        talk.close()


def _stage(phase: str, label: str, verb: str) -> str:
    """What a phase says beyond the family's name, in brackets."""
    family = label.partition(":")[0]
    rest = phase.removeprefix(family).strip()
    return f"({rest})" if rest and rest != verb else ""


def _numbers(latest: dict[str, float], sign: str) -> str:
    return " ".join(f"{name}{sign}{value:.4g}" for name, value in list(latest.items())[:_SHOWN])


def _ended(row: dict[str, Any]) -> str:
    if row.get("status") == "failed":
        return f"{label(row):<14} failed: {one_line(row.get('reason') or 'no reason was given')}"
    quantity = row.get("log_prob") or {}
    if not quantity or quantity.get("kind") == "none":
        said = "no log p"
    else:
        said = f"log p {plus_minus(quantity)} {quantity.get('unit', '')}, {quantity['kind']}"
    return f"{label(row):<14} {said}   fitted in {seconds(row.get('fit_seconds'))}"
