"""The persistent compilation cache of JAX: what was compiled once is not compiled again by the next command.

On for the command line, and by ``mulligan.use_cache()`` in Python; importing the package changes nothing. Compilation
is most of the time of a short fit (measured: a warm cache cuts twelve families from 42 s to 14 s), and JAX's own
threshold of one second would leave out nearly all programs of this library, so the threshold here is 0.
"""

from __future__ import annotations

import os
import tempfile
import warnings
from pathlib import Path

VARIABLE = "MULLIGAN_CACHE"
_warned: set[Path] = set()


def cache_folder() -> Path | None:
    """Where compiled programs are kept, or None if the cache is off.

    ``MULLIGAN_CACHE`` names the folder, or switches the cache off with ``off``; otherwise it is ``mulligan/xla`` in the
    user's cache directory (``XDG_CACHE_HOME``, else ``~/.cache``).
    """
    stated = os.environ.get(VARIABLE, "")
    if stated.strip().lower() == "off":
        return None
    if stated.strip():
        return Path(stated).expanduser()
    home = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(home).expanduser() / "mulligan" / "xla"


def use_cache(folder: str | os.PathLike[str] | None = None) -> Path | None:
    """Keep compiled programs in ``folder`` (by default ``cache_folder()``); returns it, or None if the cache is off.

    ``folder="off"`` switches the cache off. A folder that cannot be written is warned of once and never fails: the
    programs are then compiled anew.

    >>> use_cache("off") is None
    True
    """
    import jax

    off = str(folder).lower() == "off" if folder is not None else False
    place = None if off else cache_folder() if folder is None else Path(folder).expanduser()
    reason = "" if place is None else why_not_writable(place)
    if place is not None and reason:
        if place not in _warned:
            _warned.add(place)
            warnings.warn(
                f"compiled programs cannot be kept in {place} ({reason}): every command compiles anew. "
                f"DO: {VARIABLE}=another/folder, or {VARIABLE}=off",
                UserWarning,
                stacklevel=2,
            )
        place = None
    _point_jax_at(place)
    if place is not None:
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
        jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    return place


def why_not_writable(folder: Path) -> str:
    """Empty if a file can be written into ``folder`` (which is made if it is missing), else the system's reason."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return ""
    except OSError as error:
        return error.strerror or type(error).__name__


def _point_jax_at(place: Path | None) -> None:
    import jax
    from jax.experimental.compilation_cache import compilation_cache

    wanted = None if place is None else str(place)
    if jax.config.values.get("jax_compilation_cache_dir") != wanted:
        jax.config.update("jax_compilation_cache_dir", wanted)
        compilation_cache.reset_cache()  # a cache that was opened before would otherwise stay in use
