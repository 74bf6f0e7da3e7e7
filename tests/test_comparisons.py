"""Comparisons mean one thing: arrays of arrays and Tensors, a node beside a node; however spelled."""

import itertools
import operator

import numpy as np
import pytest

import tape.lazy as ad
from tape import Tensor
from tape.lazy import Evaluator, Node
from tape.ops import arithmetic

LEFT, RIGHT = np.array([1.0, 2.0, 3.0]), np.array([2.0, 2.0, 2.0])
SPELLINGS = {
    ">": (operator.gt, np.greater, arithmetic.greater),
    ">=": (operator.ge, np.greater_equal, arithmetic.greater_equal),
    "<": (operator.lt, np.less, arithmetic.less),
    "<=": (operator.le, np.less_equal, arithmetic.less_equal),
    "equal": (np.equal, arithmetic.equal), "not equal": (np.not_equal, arithmetic.not_equal)}
EXPECTED = {
    ">": [False, False, True], ">=": [False, True, True], "<": [True, False, False],
    "<=": [True, True, False], "equal": [False, True, False], "not equal": [True, False, True]}
KINDS = ("array", "Tensor", "recorded", "node")


def operand(kind, values):
    """The values as one of the kinds, and the variables that are to be fed."""
    if kind == "node":
        variable = ad.Variable("v")
        return variable, {variable: values}
    if kind == "array":
        return values, {}
    leaf = Tensor(values, requires_grad=True)
    return (leaf * 1 if kind == "recorded" else leaf), {}


@pytest.mark.parametrize("left, right", list(itertools.product(KINDS, KINDS)))
@pytest.mark.parametrize("name", SPELLINGS)
def test_a_comparison(name, left, right):
    for compare in SPELLINGS[name]:
        (x, fed), (y, more) = operand(left, LEFT), operand(right, RIGHT)
        out = compare(x, y)
        if "node" in (left, right):
            assert isinstance(out, Node)
            (out,) = Evaluator([out]).run({**fed, **more})
        assert type(out) is np.ndarray and out.dtype == bool
        assert out.tolist() == EXPECTED[name]
