"""The examples in the engine's docstrings are run."""

import doctest
import importlib.util
import pkgutil
from pathlib import Path

import pytest

import tape

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


@pytest.mark.parametrize("name", MODULES)
def test_every_module_says_what_lives_there(name):
    assert importlib.import_module(name).__doc__
