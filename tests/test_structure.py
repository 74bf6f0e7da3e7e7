"""The structure of the code: no circles among files, none too long, no function too long."""

import ast
import graphlib

import pytest

from tests.checks import ROOT, run_python

FILES = sorted(path for pattern in ("tape/**/*.py", "nn/**/*.py", "train.py", "generate.py")
               for path in ROOT.glob(pattern))
TREES = {path: ast.parse(path.read_text(encoding="utf-8")) for path in FILES}


def dotted(path):
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def imports(body):
    """What is imported when a module runs, functions called: not what only annotations need."""
    for node in body:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif not (isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING"):
            yield from imports(ast.iter_child_nodes(node))


def graph():
    """For each module those that it imports. A package stands for what its __init__.py names."""
    names = {dotted(path) for path in FILES}
    packages = {dotted(path) for path in FILES if path.name == "__init__.py"}
    found = {}
    for path, tree in TREES.items():
        targets = set(imports(tree.body)) & names
        # `from tape import ops` names the package tape, but needs only its part.
        found[dotted(path)] = {t for t in targets if not (
            t in packages and any(other.startswith(t + ".") for other in targets))}
    return found


def test_no_file_imports_itself_by_way_of_others():
    order = list(graphlib.TopologicalSorter(graph()).static_order())       # raises on a circle
    assert order.index("tape.kernels.numpy") < order.index("tape.engine")
    assert order.index("tape.engine") < order.index("tape.lazy.node")
    assert order.index("tape.engine") < order.index("nn.layers.module") < order.index("train")


def test_the_engine_imports_numpy_and_the_standard_library_alone():
    outside = {name.split(".")[0] for path, tree in TREES.items() if dotted(path).startswith("tape")
               for name in imports(tree.body)}
    assert outside.isdisjoint({"nn", "train", "generate", "torch", "scipy", "sklearn"})
    assert {"tape", "numpy", "weakref"} <= outside


@pytest.mark.parametrize("path", FILES, ids=dotted)
def test_a_file_has_at_most_400_lines_and_a_function_50(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 400
    for node in ast.walk(TREES[path]):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            docstring = ast.get_docstring(node, clean=False) or ""
            lines = node.end_lineno - node.lineno + 1 - len(docstring.splitlines())
            assert lines <= 50, node.name


def test_the_tests_set_the_number_of_threads_before_numpy_is_imported():
    """Where another program keeps the processors busy, BLAS on two threads takes far longer."""
    done = run_python("-c", "import sys, tests.conftest; print('numpy' in sys.modules)")
    assert done.stdout == "False\n", done.stderr


def test_the_static_graph_has_at_most_eight_files():
    assert len(list((ROOT / "tape/lazy").glob("*.py"))) <= 8


def test_a_job_is_short_and_the_script_that_lists_them_shorter():
    jobs = {name: len((ROOT / name).read_text(encoding="utf-8").splitlines()) for name in (
        "nn/jobs/sentences.py", "nn/jobs/text.py", "nn/jobs/images.py", "nn/jobs/names.py",
        "nn/jobs/translate.py", "nn/scripts/train.py")}
    assert jobs.pop("nn/scripts/train.py") <= 100
    assert max(jobs.values()) <= 250
