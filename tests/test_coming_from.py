"""The README's tables for those who come from another library: each line is run, on both sides."""

import inspect
import operator
import re

import numpy as np
import pytest

import nn
import tape
from tape import Tensor
from tests.checks import ROOT, peer

README = (ROOT / "README.md").read_text(encoding="utf-8")


def rows(introduction):
    """The cells of each row of the table behind a line that begins so."""
    table = README.split(f"\n{introduction}", 1)[1].split("\n|", 1)[1].split("\n\n", 1)[0]
    return [line.strip("|").split(" | ") for line in table.split("\n")[2:]]


def code(cell):
    """The first `code` of a cell."""
    return re.search("`(.+?)`", cell).group(1)


def after(*results):
    """The last one, when the others have been computed too."""
    return results[-1]


def default(function, name):
    return inspect.signature(function).parameters[name].default


def same(found, wanted):
    if isinstance(wanted, (str, tuple, bool)) or wanted is None:
        return (tuple(found) if isinstance(wanted, tuple) else found) == wanted
    return np.allclose(np.asarray(found), wanted, rtol=1e-6)


def f(v):
    return np.sum(v ** 3)


ARRAYS = {"a": np.array([1.0, 2.0, 3.0]), "b": np.array([1.0, 0.0, 2.0])}
HELPERS = {"np": np, "operator": operator, "after": after, "default": default}


def ours():
    """Names as the tables have them, made anew for each line."""
    x = Tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]], requires_grad=True)
    a, b = Tensor(2.0, requires_grad=True), Tensor(-3.0, requires_grad=True)
    return {**HELPERS, "tape": tape, "nn": nn, "Tensor": Tensor, "x": x, "a": a, "b": b}


def ours_of_functions():
    return {**HELPERS, **ARRAYS, "tape": tape, "f": f, "t": Tensor(ARRAYS["a"], requires_grad=True)}


FROM_PYTORCH = rows("Coming from PyTorch")
FROM_AUTOGRAD = rows("Coming from engines that differentiate functions")
FROM_MICROGRAD = rows("Coming from micrograd")


@pytest.mark.parametrize("cells", [row[-2:] for row in FROM_PYTORCH + FROM_MICROGRAD],
                         ids=lambda cells: code(cells[0]))
def test_our_side(cells):
    assert same(eval(code(cells[0]), ours()), eval(code(cells[1]), HELPERS))


@pytest.mark.parametrize("cells", FROM_AUTOGRAD, ids=lambda cells: code(cells[1]))
def test_our_side_of_functions(cells):
    assert same(eval(code(cells[1]), ours_of_functions()), eval(code(cells[2]), HELPERS))


@pytest.mark.parametrize("cells", [row[:2] for row in FROM_PYTORCH], ids=lambda cells: code(cells[0]))
def test_pytorchs_side(cells):
    torch = peer("torch")
    x = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]], requires_grad=True)
    found = eval(code(cells[0]), {**HELPERS, "torch": torch, "F": torch.nn.functional, "x": x})
    wanted = eval(code(cells[1]), HELPERS)
    assert same(bool(found) if isinstance(wanted, bool) else found, wanted)


@pytest.mark.parametrize("cells", FROM_AUTOGRAD, ids=lambda cells: code(cells[0]))
def test_autograds_side(cells):
    autograd = peer("autograd")
    anp = peer("autograd.numpy")
    found = eval(code(cells[0]), {
        **vars(autograd), **vars(peer("autograd.differential_operators")), **ARRAYS, "np": anp,
        "f": lambda v: anp.sum(v ** 3)})
    assert same(found, eval(code(cells[2]), HELPERS))


def test_the_tables_were_found():
    assert [len(FROM_PYTORCH), len(FROM_AUTOGRAD), len(FROM_MICROGRAD)] == [27, 14, 7]
    assert {len(row) for row in FROM_PYTORCH} == {4}
    assert {len(row) for row in FROM_AUTOGRAD + FROM_MICROGRAD} == {3}


@pytest.mark.parametrize("text", [
    "t.view", "t.unsqueeze", "tape.cat", "nn.CrossEntropyLoss", "nn.functional"])
def test_the_names_in_front_of_the_tables_raise(text):
    with pytest.raises(AttributeError, match="which is PyTorch's name. Write "):
        eval(text, {**ours_of_functions(), "nn": nn})
