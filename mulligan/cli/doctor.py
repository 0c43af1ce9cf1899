"""``mulligan doctor``: what this installation is, and whether it works."""

from __future__ import annotations

import os
import platform
import sys
import time
from typing import Any

from mulligan.cli.flags import Common, takes_flags
from mulligan.cli.output import aligned, say, say_json, stdout_width, tell

HELP = "Exit code 6 if JAX cannot compile and run a small program; everything else is only told."
PACKAGES = (
    "jax",
    "jaxlib",
    "equinox",
    "numpy",
    "scipy",
    "scikit-learn",
    "polars",
    "narwhals",
    "safetensors",
    "typer",
    "rich",
)


@takes_flags
def verb(common: Common) -> int:
    found = {"mulligan": _version("mulligan"), **_machine(), **_jax(), **_cache()}
    found["packages"] = {name: _version(name) for name in PACKAGES}
    healthy = found["jax works"] is True
    if common.json:
        say_json(found)
    else:
        packages = "  ".join(f"{name} {version}" for name, version in found.pop("packages").items())
        rows = [(name, _text(value)) for name, value in found.items()]
        say(*aligned(*_headless([*rows, ("packages", packages)]), stdout_width(), wrapped=1))
    missing = [name for name in PACKAGES if _version(name) == "missing"]
    if missing:
        tell(f"mulligan: warning: not installed: {', '.join(missing)}. DO: pip install --force-reinstall mulligan")
    if not healthy:
        from mulligan.errors import SetupError

        raise SetupError(
            f"JAX does not work here: {found['jax works']}",
            why="Nothing but look and families can run" + _without_avx(),
            do="pip install -U 'jax[cpu]', and mulligan doctor again",
        )
    tell("ok     Next:  mulligan look moons", quiet=common.quiet)
    return 0


def _headless(rows: list[tuple[str, str]]) -> tuple[tuple[str, str], list[tuple[str, str]]]:
    return rows[0], rows[1:]


def _text(value: Any) -> str:
    return {True: "yes", False: "no", None: "unknown"}.get(value, str(value)) if not isinstance(value, str) else value


def _version(package: str) -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(package)
    except PackageNotFoundError:
        return "missing"


def _machine() -> dict[str, Any]:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    total, free = _memory()
    return {
        "python": f"{platform.python_version()} ({sys.executable})",
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "cores": cores,
        "threads": os.environ.get("OMP_NUM_THREADS") or f"{cores} (not limited by OMP_NUM_THREADS)",
        "memory": f"{total:.1f} GB, {free:.1f} GB free" if total and free else f"{total:.1f} GB" if total else None,
    }


def _memory() -> tuple[float | None, float | None]:
    """Total and free memory in GB (1e9 bytes); None where the system does not say."""
    try:
        page, total = os.sysconf("SC_PAGE_SIZE"), os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        return None, None
    free = os.sysconf("SC_AVPHYS_PAGES") if "SC_AVPHYS_PAGES" in os.sysconf_names else None
    try:  # what Linux would give to a program, page cache included
        with open("/proc/meminfo", encoding="ascii") as file:
            available = next(line for line in file if line.startswith("MemAvailable"))
        return page * total / 1e9, int(available.split()[1]) * 1024 / 1e9
    except (OSError, StopIteration, ValueError, IndexError):
        return page * total / 1e9, None if free is None else page * free / 1e9


def _jax() -> dict[str, Any]:
    """Devices, and whether a small program compiles, runs and is right."""
    began = time.perf_counter()
    try:
        import jax
        import jax.numpy as jnp

        devices = ", ".join(f"{d.platform}:{d.id}" for d in jax.devices())
        value = float(jax.jit(lambda x: (x @ x.T).sum())(jnp.ones((8, 8))))
        works: bool | str = True if value == 512.0 else f"a sum that is 512 came out as {value}"
    except Exception as error:  # whatever it is, telling it is this verb's work
        return {"device": None, "jax works": f"{type(error).__name__}: {' '.join(str(error).split())}"}
    return {"device": devices, "jax works": works, "jax start": f"{time.perf_counter() - began:.1f} s"}


def _cache() -> dict[str, Any]:
    from mulligan.cache import VARIABLE, cache_folder, why_not_writable

    folder = cache_folder()
    if folder is None:
        return {"cache": f"off ({VARIABLE})", "cache writable": None}
    reason = why_not_writable(folder)
    return {"cache": str(folder), "cache writable": reason or True}


def _without_avx() -> str:
    """A hint where the processor lacks what JAX's wheels are built for."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            flags = next((line for line in file if line.startswith("flags")), "avx")
    except OSError:
        return ""
    return "" if "avx" in flags.split() or flags == "avx" else "; this processor has no AVX, which JAX's wheels need"
