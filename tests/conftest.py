"""Fixtures of the whole suite: the key of a test is a hash of its name, so order and parallelism change nothing."""

from __future__ import annotations

import gc
import hashlib
import os
import shutil
import tempfile
from itertools import count

import pytest

from mulligan.cache import use_cache

MOST_MAPS = 40_000
BETWEEN_COUNTS = 20  # tests; counting takes some hundredths of a second
_tests = count()


def pytest_configure(config):
    """The test processes share what they compile, in a folder that ends with the run: compilation is most of their time."""
    if hasattr(config, "workerinput") or "JAX_COMPILATION_CACHE_DIR" in os.environ:
        return
    folder = tempfile.mkdtemp(prefix="mulligan-tests-")
    os.environ["JAX_COMPILATION_CACHE_DIR"] = os.environ["MULLIGAN_CACHE"] = folder  # the second: for our own commands
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"
    config.add_cleanup(lambda: shutil.rmtree(folder, ignore_errors=True))


def pytest_addoption(parser):
    parser.addoption("--seed-offset", type=int, default=0, help="shift the random key of every test by this number")


@pytest.fixture(autouse=True)
def _keep_house():
    """A test that switches the shared cache off does so for itself; and programs go before the process is full of them.

    Every compiled program holds some memory maps, of which Linux allows a process 65 530: past that, the compiler
    crashes.
    """
    import jax

    shared = jax.config.values["jax_compilation_cache_dir"]
    yield
    if jax.config.values["jax_compilation_cache_dir"] != shared:
        use_cache(shared)
    if next(_tests) % BETWEEN_COUNTS == 0 and _maps() > MOST_MAPS:
        jax.clear_caches()
        gc.collect()


def _maps() -> int:
    try:
        with open("/proc/self/maps", "rb") as file:
            return sum(1 for _ in file)
    except OSError:  # not Linux
        return 0


@pytest.fixture
def seed(request) -> int:
    """A number in [0, 2³¹) from the test's name, shifted by ``--seed-offset``."""
    digest = hashlib.sha256(request.node.nodeid.encode()).digest()
    return (int.from_bytes(digest[:4], "big") + request.config.getoption("--seed-offset")) % 2**31


@pytest.fixture
def key(seed):
    """The JAX key of the test."""
    import jax

    return jax.random.key(seed)


def pytest_make_parametrize_id(config, val, argname):
    """Bytes never name a test: archives hold the time they were made, and two test processes must agree on names."""
    return argname if isinstance(val, bytes) else None


@pytest.hookimpl(tryfirst=True)  # before xdist reads the groups
def pytest_collection_modifyitems(items):
    """Tests of one family stay in one process: fitting is what they cost, and each process has its own fits."""
    for item in items:
        label = getattr(item, "callspec", None) and item.callspec.params.get("label")
        item.add_marker(pytest.mark.xdist_group(label if isinstance(label, str) else item.path.name))
