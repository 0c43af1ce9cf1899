"""Counts compilations and their seconds, by JAX's own monitoring events.

What a newcomer feels first is compile time, so it is measured apart from fitting; and tests count compilations, because
a second one for the same shapes is a bug.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

_EVENT = "/jax/core/compile/backend_compile_duration"
_TRACE_EVENTS = ("/jax/core/compile/jaxpr_trace_duration", "/jax/core/compile/jaxpr_to_mlir_module_duration")
_listening: list[Compilations] = []
_registered: list[bool] = []


@dataclass
class Compilations:
    """How many programs were compiled (or taken from the persistent cache), and the seconds that it took in all."""

    count: int = 0
    seconds: float = 0.0


@contextmanager
def compilations() -> Iterator[Compilations]:
    """Count what is compiled inside the block.

    >>> with compilations() as seen:
    ...     pass
    >>> seen.count
    0
    """
    if not _registered:
        import jax.monitoring

        jax.monitoring.register_event_duration_secs_listener(_listen)
        _registered.append(True)
    seen = Compilations()
    _listening.append(seen)
    try:
        yield seen
    finally:
        _listening[:] = [other for other in _listening if other is not seen]


def _listen(event: str, duration_secs: float, **_: Any) -> None:
    for seen in _listening:
        if event == _EVENT:
            seen.count += 1
        if event == _EVENT or event in _TRACE_EVENTS:
            seen.seconds += duration_secs
