"""The examples in the engine's docstrings are run."""

import doctest
import importlib
import pkgutil

import pytest

import tape

MODULES = ["tape"] + [m.name for m in pkgutil.walk_packages(tape.__path__, "tape.")]

# Modules whose docstrings promise an example; they must not silently stop having one.
WITH_EXAMPLES = {"tape.tensor", "tape.primitive", "tape.transforms", "tape.show"}


@pytest.mark.parametrize("name", MODULES)
def test_examples(name):
    module = importlib.import_module(name)
    result = doctest.testmod(module)
    assert result.failed == 0
    assert result.attempted > 0 or name not in WITH_EXAMPLES


@pytest.mark.parametrize("name", MODULES)
def test_every_module_says_what_lives_there(name):
    assert importlib.import_module(name).__doc__


def test_all_modules_are_found():
    assert WITH_EXAMPLES <= set(MODULES)
