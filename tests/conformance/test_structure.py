"""How the code is laid out: layers, sizes, docstrings, contracts, light imports. Held by tests, not by memory."""

from __future__ import annotations

import ast
import dataclasses
import doctest
import importlib
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import mulligan

ROOT = Path(mulligan.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))
NAMES = [str(path.relative_to(ROOT)) for path in FILES]
MODULES = [
    ".".join(("mulligan", *path.relative_to(ROOT).with_suffix("").parts)).removesuffix(".__init__") for path in FILES
]

# Imports point downward only; a line is one layer, and layers of one line may not import each other unless named so.
LAYERS = [
    ("errors",),
    ("entries", "intervals"),
    ("catalog", "quantity", "cache", "compilations"),
    ("data",),
    ("report",),
    ("core",),
    ("loop", "checkpoints"),
    ("nets",),
    ("targets",),
    ("models",),
    ("objectives",),
    ("samplers",),
    ("measures",),
    ("learners",),
    ("vision",),
    ("families",),
    ("workbench",),
    ("lab",),
    ("cli", "studio", "sklearn"),
    ("__main__", "__init__"),
]
RANK = {name: rank for rank, layer in enumerate(LAYERS) for name in layer}
LONGEST_FILE, LONGEST_FUNCTION = 330, 70


def tree_of(path):
    return ast.parse(path.read_text(encoding="utf-8"))


def layer_of(path):
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def imported(tree):
    """Names of the modules of ours that a file imports, also inside functions."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] == "mulligan")
        elif isinstance(node, ast.ImportFrom) and (node.level or (node.module or "").split(".")[0] == "mulligan"):
            assert node.level == 0, "imports are absolute"
            if node.module == "mulligan":
                yield from (f"mulligan.{alias.name}" for alias in node.names if alias.name != "__version__")
            else:
                yield node.module


def upward(path, tree):
    """Imports that point to a layer that is not below (or the file's own)."""
    own = layer_of(path)
    found = []
    for name in imported(tree):
        other = [*name.split("."), "__init__"][1]
        if other not in RANK:
            other = "__init__"
        if other != own and RANK[other] >= RANK[own]:
            found.append(f"{own} imports {name}")
    return found


def test_every_file_has_a_layer():
    assert {layer_of(path) for path in FILES} <= set(RANK), {layer_of(path) for path in FILES} - set(RANK)


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_imports_point_downward(path):
    assert not upward(path, tree_of(path))


def test_an_upward_import_is_seen():
    tree = ast.parse("def f():\n    from mulligan.families.mixture import make\n")
    assert upward(ROOT / "loop.py", tree) and not upward(ROOT / "workbench" / "fitting.py", tree)


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_files_and_functions_are_short(path):
    lines = len(path.read_text(encoding="utf-8").splitlines())
    assert lines <= LONGEST_FILE, f"{lines} lines"
    functions = [n for n in ast.walk(tree_of(path)) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)]
    long = {f.name: length_of(f) for f in functions if length_of(f) > LONGEST_FUNCTION}
    assert not long, long


def length_of(function):
    """Lines, the docstring not counted: it has a compulsory example."""
    first = function.body[0]
    is_docstring = ast.get_docstring(function) is not None
    said = first.end_lineno - first.lineno + 1 if is_docstring else 0
    return function.end_lineno - function.lineno + 1 - said


def test_a_long_function_is_seen():
    for body in ("    x = 1\n" * 71, '    """Said.\n\n    More."""\n' + "    x = 1\n" * 71):
        assert length_of(ast.parse("def f():\n" + body).body[0]) == 72


def forbidden(tree):
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Assert):
            found.append(f"assert in line {node.lineno}")
        elif (
            isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("print", "eval", "exec")
        ):
            found.append(f"{node.func.id} in line {node.lineno}")
        elif isinstance(node, ast.Import | ast.ImportFrom):
            module = getattr(node, "module", None) or ""
            names = [module, *(alias.name for alias in node.names)]
            found += [
                f"{n} in line {node.lineno}"
                for n in names
                if n.split(".")[0] in ("pickle", "cloudpickle", "joblib", "dill")
            ]
        elif isinstance(node, ast.Raise) and "NotImplementedError" in ast.unparse(node):
            found.append(f"NotImplementedError in line {node.lineno}")
    return found


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_nothing_forbidden(path):
    assert not forbidden(tree_of(path))


def test_what_is_forbidden_is_seen():
    for line in (
        "print(1)",
        "assert x",
        "import pickle",
        "eval('1')",
        "raise NotImplementedError",
        "from joblib import load",
    ):
        assert forbidden(ast.parse(line)), line


def test_no_dumping_grounds():
    names = {path.stem for path in FILES} | {path.parent.name for path in FILES}
    assert not names & {"utils", "util", "helpers", "helper", "misc", "common"}


# --- docstrings -------------------------------------------------------------------------------------------------------


def undocumented(tree):
    """Public modules, classes and functions without a docstring. A ``verb`` is documented by its module's ``HELP``."""
    missing = [] if ast.get_docstring(tree) else ["the module"]
    targets = [ast.unparse(target) for node in tree.body if isinstance(node, ast.Assign) for target in node.targets]
    for node in tree.body:
        if not isinstance(node, ast.FunctionDef | ast.ClassDef) or node.name.startswith("_") or ast.get_docstring(node):
            continue
        if not (node.name == "verb" and "HELP" in targets):
            missing.append(node.name)
    return missing


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_everything_public_is_documented(path):
    assert not undocumented(tree_of(path))


@pytest.mark.parametrize("name", MODULES)
def test_doctests(name):
    if name == "mulligan.__main__":
        assert "main()" in (ROOT / "__main__.py").read_text()  # importing it runs the command line
        return
    result = doctest.testmod(importlib.import_module(name), optionflags=doctest.ELLIPSIS)
    assert result.failed == 0, f"{result.failed} of {result.attempted} examples of {name} fail"


def test_a_wrong_doctest_is_seen():
    module = type(sys)("wrong")
    module.__doc__ = ">>> 1 + 1\n3\n"
    assert doctest.testmod(module, report=False, verbose=False).failed == 1


def test_most_of_the_library_has_examples():
    finder = doctest.DocTestFinder()
    modules = (importlib.import_module(name) for name in MODULES if not name.endswith("__main__"))
    assert sum(len(test.examples) for module in modules for test in finder.find(module)) > 40


# --- names and contracts ----------------------------------------------------------------------------------------------


def test_no_public_name_is_a_submodules():
    submodules = {path.stem for path in ROOT.glob("*.py")} | {path.name for path in ROOT.iterdir() if path.is_dir()}
    assert not set(mulligan.__all__) & (submodules - {"__init__"})
    assert len(set(mulligan.__all__)) == len(mulligan.__all__)


@pytest.mark.parametrize("name", mulligan.__all__)
def test_every_public_name_is_there_and_documented(name):
    value = getattr(mulligan, name)
    assert name in dir(mulligan)
    if name != "__version__":
        assert inspect.getdoc(value)
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = mulligan.nothing


def descendants(cls):
    for child in cls.__subclasses__():
        yield child
        yield from descendants(child)


def contract_faults(cls):
    """Abstract or final, never both: no concrete ancestor, no overridden method, no inherited field."""
    import equinox as eqx

    faults = []
    for parent in cls.__mro__[1:]:
        if parent in (object, eqx.Module) or not issubclass(parent, eqx.Module):
            continue
        if not (inspect.isabstract(parent) or getattr(parent, "__abstractclassvars__", ())):
            faults.append(f"{cls.__name__} inherits from concrete {parent.__name__}")
        for name, value in vars(parent).items():
            implemented = inspect.isfunction(value) and not getattr(value, "__isabstractmethod__", False)
            if implemented and not name.startswith("__") and name in vars(cls):
                faults.append(f"{cls.__name__} overrides {parent.__name__}.{name}")
        if [field for field in dataclasses.fields(parent) if "Abstract" not in str(field.type)]:
            faults.append(f"{cls.__name__} inherits the fields of {parent.__name__}")
    return faults


def test_abstract_or_final():
    from mulligan import core

    for name in MODULES:
        if not name.endswith("__main__"):
            importlib.import_module(name)
    contracts = (core.Sampler, core.Density, core.Energy, core.Score, core.NoisedScore, core.Bound, core.Kernel)
    classes = {c for contract in contracts for c in descendants(contract) if c.__module__.startswith("mulligan.")}
    assert len(classes) >= 15
    faults = sorted(fault for cls in classes for fault in contract_faults(cls))
    assert not faults, "\n".join(faults)


def test_a_concrete_ancestor_is_seen():
    from mulligan.models.empirical import Empirical

    class Other(Empirical):
        def sample(self, key, given=None):
            return self.rows[0]

    assert len(contract_faults(Other)) == 3  # concrete parent, its method, its fields


# --- light imports ----------------------------------------------------------------------------------------------------


def loaded_by(statement):
    code = f"import sys\n{statement}\nsys.stdout.write(' '.join(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT.parent)
    return {name.split(".")[0] for name in done.stdout.split()}


def test_importing_the_package_is_light():
    assert not loaded_by("import mulligan") & {"jax", "numpy", "scipy", "polars", "equinox", "rich", "typer", "sklearn"}


def test_the_catalog_is_standard_library_only():
    extra = loaded_by("import mulligan.catalog") - loaded_by("pass") - set(sys.stdlib_module_names)
    assert extra <= {"mulligan"}, extra


def test_data_and_report_load_no_jax():
    assert "jax" not in loaded_by("import mulligan.data.codec, mulligan.data.inspection, mulligan.report.writing")
    assert "jax" in loaded_by("import mulligan.core")


# --- the suite itself -------------------------------------------------------------------------------------------------

_ran_here = []


@pytest.mark.parametrize("turn", range(10))
def test_a_file_stays_in_one_process(turn, request):
    """Else each process fits and compiles what the tests of a file share; a scheduler that forgets that is silent."""
    _ran_here.append(turn)
    together = [item for item in request.session.items if item.originalname == request.node.originalname]
    if request.node is together[-1] and getattr(request.config.option, "loadgroup", True):
        assert len(_ran_here) == len(together), "tests of one file were spread over processes: see tests/conftest.py"


@pytest.mark.parametrize(
    "nodeid, group",
    [
        ("tests/exact/test_flow.py::test_dim_is_checked", "test_flow.py"),
        ("tests/exact/test_flow.py::test_nan_in_nan_out[flow:coupling]", "test_flow.py"),
        ("tests/conformance/test_families.py::test_x[flow:coupling:mixed]", "flow"),
        ("tests/conformance/test_families.py::test_x[flow-layers]", "flow"),
        ("tests/conformance/test_families.py::test_x[continuous-flow]", "continuous-flow"),
        ("tests/laws/test_families_law.py::test_x[gaussian-Transposed]", "gaussian"),
        ("tests/laws/test_families_law.py::test_x[gaussians]", "test_families_law.py"),
        ("tests/conformance/test_families.py::test_names_do_not_collide", "test_families.py"),
        ("tests/conformance/test_docs.py::test_x[images.md]", "tests/conformance/test_docs.py::test_x[images.md]"),
    ],
)
def test_groups_of_tests(nodeid, group):
    from conftest import group_of

    assert group_of(nodeid) == group
