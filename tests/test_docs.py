"""The examples in the engine's docstrings are run."""

import ast
import doctest
import importlib.util
import pkgutil
from pathlib import Path

import pytest

import tape
from tests.checks import ROOT

MODULES = ["tape"] + [m.name for m in pkgutil.walk_packages(tape.__path__, "tape.")]

# Those whose docstrings have an example, and those that promise one.
WITH_EXAMPLES = [name for name in MODULES
                 if ">>> " in Path(importlib.util.find_spec(name).origin).read_text(encoding="utf-8")]
PROMISED = {"tape.tensor", "tape.primitive", "tape.transforms.functions", "tape.show"}


@pytest.mark.usefixtures("taught")
@pytest.mark.parametrize("name", WITH_EXAMPLES)
def test_examples(name):
    result = doctest.testmod(importlib.import_module(name))
    assert result.attempted > 0 and result.failed == 0


def test_modules_that_promise_an_example_have_one():
    assert PROMISED <= set(WITH_EXAMPLES)


FILES = sorted(path for folder in ("tape", "nn") for path in (ROOT / folder).rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_module_says_what_lives_there(path):
    assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
