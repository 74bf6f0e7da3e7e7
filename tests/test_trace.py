"""`trace`: a function that is run once and frozen as a graph, and what such graphs have in them."""

import threading

import numpy as np
import pytest

import nn
import tape
import tape.lazy as ad
from tape import Tensor, grad, no_grad
from tests.checks import leaf
from tests.lazy_checks import assert_eager

RNG = np.random.default_rng(5)

pytestmark = pytest.mark.usefixtures("traced")


def test_a_traced_function_is_frozen():
    model = nn.GPT(nn.GPTConfig(vocab_size=11, block_size=6, n_layer=1, n_head=2, n_embd=8), rng=0)
    idx, targets, new_idx, new_targets = RNG.integers(0, 11, (4, 2, 6))
    parameters = dict(model.named_parameters())
    node, v = ad.trace(lambda idx, targets: model(idx, targets)[1], {"idx": idx, "targets": targets},
                       parameters=parameters)
    assert list(v) == ["idx", "targets", *parameters]
    _, loss = model(new_idx, new_targets)
    loss.backward()
    evaluator = ad.Evaluator([node, *ad.gradients(node, [v[n] for n in parameters])])
    assert_eager(evaluator, v, {"idx": new_idx, "targets": new_targets}, loss, parameters)


def test_trace_records_arrays_of_floats_from_the_start():
    w = leaf([1.0, 2.0])
    (both, total), (x,) = ad.trace(lambda x: (np.sin(x) * w, (x * x).sum()), [np.array([3.0, 4.0])])
    found = ad.Evaluator([both, total]).run({x: np.array([0.5, 1.0])})
    np.testing.assert_array_equal(found[0], np.sin([0.5, 1.0]) * w.data)
    assert found[1] == 1.25


@pytest.mark.parametrize("call, error, message", [
    (lambda: ad.trace(lambda x: x * 2, [3.0]), TypeError, "Tensors or arrays; input0 is a float"),
    (lambda: ad.trace(lambda x: 3.0, [np.ones(2)]), TypeError, "must be a Tensor, got float"),
    (lambda: ad.trace(lambda x, y: x * 2, [np.ones(2), np.ones(2)]), ValueError, "not on .*: input1"),
    (lambda: ad.trace(lambda x: leaf([1.0]).detach(), [np.ones(2)]), ValueError, "recorded operations"),
    (lambda: ad.trace(lambda x: x, np.ones(2)), TypeError, "dict or a list")])
def test_what_cannot_be_traced(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_trace_works_under_no_grad_and_leaves_modes_alone():
    with no_grad():
        node, (x,) = ad.trace(lambda x: x * x, [np.ones(2)])
        assert not (leaf([1.0]) * 2).requires_grad
    np.testing.assert_array_equal(ad.Evaluator([node]).run({x: np.full(2, 3.0)}), [[9, 9]])


def test_a_frozen_constant_is_that_of_the_run():
    w, big = leaf([1.0, 2.0]), np.array([3.0, 4.0])
    fixed = Tensor(np.array([5.0, 6.0]))
    out = (w + big + fixed + 1).sum()
    expected = out.item()
    big *= 10
    fixed.data[:] = 0
    node, (v,) = ad.from_tape(out, [w])
    assert ad.Evaluator([node]).run({v: w.data}) == [expected]
    w.data += 1                                           # not kept by a sum, so no rule would notice
    node, _ = ad.from_tape(out, [])
    assert ad.Evaluator([node]).run({}) == [expected]


def test_layouts_of_frozen_operands_are_those_of_the_run():
    # Sums and products depend on it in the last digit.
    for function in (lambda x, w: np.broadcast_to(x, (4, 5, 6)) @ w, lambda x, w: x.T * 1.0 @ w[:5] if
                     x.ndim == 2 and x.shape[0] == 5 else x @ w, lambda x, w: (x.T @ x).sum(axis=0),
                     lambda x, w: np.broadcast_to(x, (64, 5, 6)).sum(axis=(0, 1))):
        x, w = leaf(RNG.standard_normal((5, 6))), leaf(RNG.standard_normal((6, 6)))
        out = (function(x, w) ** 2).sum() + w.sum()
        node, v = ad.from_tape(out, [x, w])
        fresh = [leaf(RNG.standard_normal(t.shape)) for t in (x, w)]
        expected = (function(*fresh) ** 2).sum() + fresh[1].sum()
        value, *slopes = ad.Evaluator([node, *ad.gradients(node, v)]).run(
            dict(zip(v, (t.data for t in fresh))))
        assert value == expected.item()
        for slope, wanted in zip(slopes, grad(expected, fresh), strict=True):
            np.testing.assert_array_equal(slope, wanted.data)


@pytest.mark.parametrize("exponent", [0.3, -1, -2.5, 0.5, 2, 3, 7, 1.7])
@pytest.mark.parametrize("looked_at", [False, True])
def test_powers_without_axes_to_the_last_bit(exponent, looked_at):
    for start in RNG.uniform(0.1, 9, 40):
        x, fresh = leaf(1.5), leaf(start)
        if looked_at:
            fresh.data
        node, (v,) = ad.from_tape(x ** exponent, [x])
        expected = fresh ** exponent
        value, slope = ad.Evaluator([node, *ad.gradients(node, [v])]).run({v: np.array(start)})
        assert value == expected.data
        assert slope == grad(expected, fresh).data


def test_an_ordinary_run_cannot_be_frozen():
    x = leaf([1.0])
    out = []

    def run():
        out.append(x * 2)
    thread = threading.Thread(target=run)          # where the fixture's mode does not hold
    thread.start()
    thread.join()
    with pytest.raises(RuntimeError, match=r"mul was not traced.*tape.lazy.tracing\(\).*trace\("):
        ad.from_tape(out[0], [x])


@pytest.mark.parametrize("function", [
    lambda x: x - x.max().detach(), lambda x: x * np.sign(x), lambda x: x / total_without_gradient(x),
    lambda x: x * tape.zeros_like(x) + tape.ones_like(x) * x, lambda x: x * (x * x).detach()])
def test_what_passes_no_gradient_is_in_the_graph(function):
    node, (v,) = ad.trace(function, [np.array([1.0, -2.0])])
    fresh = leaf([3.0, 5.0])
    expected = function(fresh)
    value, slope = ad.Evaluator([node, *ad.gradients(node, [v])]).run({v: fresh.data})
    np.testing.assert_array_equal(value, expected.data)
    np.testing.assert_array_equal(slope, grad(expected.sum(), fresh).data)


def total_without_gradient(x):
    with no_grad():
        return (x * x).sum()


def test_an_unused_input_may_be_allowed():
    node, v = ad.trace(lambda x, y: x * 2, {"x": np.ones(2), "y": np.ones(2)}, allow_unused=True)
    assert list(v) == ["x", "y"]
    np.testing.assert_array_equal(ad.Evaluator([node]).run({v["x"]: np.ones(2)}), [[2, 2]])


@pytest.mark.parametrize("change", ["input", "integers"])
def test_an_input_that_changes_during_the_run_is_refused(change):
    def function(x, k):
        y = x * k
        if change == "input":
            x.data[...] = 7
        else:
            k += 1
        return y + x * 2 + x * k
    with pytest.raises(RuntimeError, match="in place"):
        ad.trace(function, [np.array([1.0, 2.0]), np.array([3, 4])])


def test_one_integer_input_as_a_factor_and_as_ids():
    table = leaf(np.eye(3))
    node, v = ad.trace(lambda k: (tape.embedding(table, k) * 2).sum(axis=1) * k * table.sum(),
                       {"k": np.array([0, 2])})
    np.testing.assert_array_equal(ad.Evaluator([node]).run({v["k"]: np.array([1, 2])}), [[6, 12]])
