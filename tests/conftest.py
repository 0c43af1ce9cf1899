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
from mulligan.catalog import FAMILIES

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


# --- which test process runs what -------------------------------------------------------------------------------------

# Files whose tests take the fits of shared_fits.py: what goes together there is a family.
BY_FAMILY = {"test_families.py", "test_families_law.py", "test_artifact.py"}
# Every test of these is a group of its own: a page shares nothing with the next.
ALONE = {"test_docs.py"}
# The longest groups, so that none of them is begun last while the other process waits; then as they were collected.
LONGEST = (
    *("test_given.py", "diffusion", "test_identities.py", "test_flow.py", "test_energy.py", "test_sample_density.py"),
    *("energy", "test_calibration.py", "flow", "continuous-flow", "autoregressive", "test_docs.py", "test_resume.py"),
    *("test_diffusion.py", "test_structure.py", "test_boltzmann_recovery.py", "test_distances_law.py", "vae", "gan"),
    *("test_targets.py", "test_vae.py", "test_incomplete.py", "test_autoregressive.py", "test_ensemble.py"),
)


def group_of(nodeid: str) -> str:
    """Tests of one group run in one process, for what they share is made once a process: a file's, or a family's."""
    path, _, name = nodeid.partition("::")
    file = path.rsplit("/", 1)[-1]
    if file in ALONE:
        return nodeid
    if file in BY_FAMILY and (case := name.partition("[")[2]):
        families = [family for family in FAMILIES if case.startswith(family) and not case[len(family)].isalnum()]
        return max(families, key=len, default=file)
    return file


def _place(nodeid: str) -> int:
    group = group_of(nodeid)
    begins = [i for i, long in enumerate(LONGEST) if group == long or (long in ALONE and f"/{long}::" in group)]
    return begins[0] if begins else len(LONGEST)


def pytest_collection_modifyitems(items):
    """Group by group, the longest first; xdist hands groups out in this order."""
    order = {group: i for i, group in enumerate(dict.fromkeys(group_of(item.nodeid) for item in items))}
    items.sort(key=lambda item: (_place(item.nodeid), order[group_of(item.nodeid)]))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Groups by ``group_of``: xdist's own ``loadgroup`` does nothing with pytest 9.2 (pytest-xdist issue 1386)."""
    if config.getvalue("dist") != "loadgroup":
        return None
    from xdist.scheduler import LoadScopeScheduling

    class ByGroup(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return group_of(nodeid)

    config.option.loadscopereorder = False  # else by their number of tests
    return ByGroup(config, log)
