"""Graphs of a run that are fed data of another kind: they compute what a run on these data computes."""

import numpy as np
import pytest

import tape
import tape.lazy as ad
from tape.gradcheck.cases import CASES
from tests.checks import leaf

NAN, INF = np.nan, np.inf
POINTS, VALUES = np.array([0.0, 1, 2, 3]), np.array([0.0, 1, 4, 9])
DATA = [[1.0, 2.0, -3.0], [NAN, 2.0, 5.0], [0.0, 0.0, 0.0], [NAN, NAN, NAN], [5.0, -3.0, 0.5]]
FUNCTIONS = {
    "interp": lambda x: np.interp(x, POINTS, VALUES), "median": np.median,
    "quantile": lambda x: np.quantile(x, [0.2, 0.7]), "nansum": np.nansum, "nanprod": np.nanprod,
    "nanmean": np.nanmean, "nanvar": np.nanvar, "nanstd": np.nanstd, "nanmax": np.nanmax,
    "nanmin": np.nanmin, "nancumsum": np.nancumsum, "nancumprod": np.nancumprod,
    "norm": lambda x: np.linalg.norm(x, 3), "norm of a root": lambda x: np.linalg.norm(x, 0.5)}


def assert_fed_as_run(function, traced_at, fed, **tolerance):
    """The graph of a run on `traced_at`, fed other arrays, and its gradients, are those of a run."""
    with np.errstate(all="ignore"):
        node, variables = ad.trace(joined(function), traced_at)
        evaluator = ad.Evaluator([node, *ad.gradients(node, variables)])
        found = evaluator.run(dict(zip(variables, fed)))
        leaves = [leaf(array) for array in fed]
        out = joined(function)(*leaves)
        out.backward(np.ones(out.shape))
    for ours, eager in zip(found, [out.numpy(), *(x.grad for x in leaves)]):
        np.testing.assert_allclose(ours, eager, **tolerance)


def joined(function):
    """The function, or of one with several results the sum of their squares."""
    def one(*inputs):
        out = function(*inputs)
        return sum((part * part).sum() for part in out) if isinstance(out, (list, tuple)) else out
    return one


@pytest.mark.parametrize("name", FUNCTIONS)
def test_what_compares_its_data_compares_those_that_are_fed(name):
    """A comparison in an operator's definition is in the graph, and no constant of the traced run."""
    for traced_at in DATA:
        for fed in DATA:
            assert_fed_as_run(FUNCTIONS[name], [np.array(traced_at)], [np.array(fed)], rtol=1e-12)


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_every_case_of_gradcheck_fed_its_data_moved(case):
    first, second = ([case.draw(rng, shape) for shape in case.shapes]
                     for rng in map(np.random.default_rng, (0, 1)))
    assert_fed_as_run(case.function, first, second, rtol=1e-9, atol=1e-9)


def test_arrays_of_the_other_order_of_bytes_are_computed_with_as_they_are_on_the_tape():
    node, (a,) = ad.trace(lambda a: tape.layer_norm(a)[[0, 0]] + np.median(a), [np.ones((3, 2))])
    evaluator = ad.Evaluator([node, *ad.gradients(node, [a])])
    native = np.random.default_rng(0).standard_normal((3, 2))
    for swapped, array in zip(evaluator.run({a: native.astype(">f8")}), evaluator.run({a: native})):
        assert swapped.dtype is array.dtype
        np.testing.assert_array_equal(swapped, array)
