"""What errors say where they once came late, spoke of something else, or did not come."""

import numpy as np
import pytest

import tape
import tape.lazy as ad
from tape import Tensor, grad, ops
from tests.checks import added_at, leaf

X = leaf(np.ones((2, 3)))


@pytest.mark.parametrize("call, error, message", [
    (lambda: ops.embedding(leaf(np.ones((2, 2, 2))), [0]), ValueError, r"two axes, \(V, D\); got"),
    (lambda: ops.embedding(leaf(np.ones(3)), [0]), ValueError, r"\(V, D\); got shape \(3,\)"),
    (lambda: ops.layer_norm(X, 1e-5), ValueError, "weight must have the shape .* you mean eps=1e-05"),
    (lambda: ops.layer_norm(X, None, 2), ValueError, "bias must have the shape .* Did you mean eps=2"),
    (lambda: ops.causal_attention(X, X, X, scale=leaf(1.0)), TypeError, "a number, got Tensor.*q"),
    (lambda: ops.causal_attention(X, X, X, scale="1"), TypeError, "must be a number, got str"),
    (lambda: ops.split(X, 0), ValueError, "number of pieces must be positive, got 0"),
    (lambda: ops.split(X, 2, axis=1), ValueError, "axis 1 of length 3 cannot be cut into 2"),
    (lambda: ops.split(X, 1, axis=2), ValueError, r"axis must be in \[-2, 2\), got 2"),
    (lambda: ad.Variable("x").dot, AttributeError, "x @ y"),
    (lambda: ad.dot, AttributeError, "x @ y"),
    (lambda: ad.dropout, AttributeError, "mask that is fed"),
    (lambda: ad.kron, AttributeError, "einsum"),
    (lambda: np.linalg.norm(ad.Variable("x"), 1), TypeError, r"norm: how many axes .*axis=1"),
    (lambda: tape.primitive(lambda *a: sum(a), lambda g: g, name="total"), TypeError,
     r"total: .* list with a gradient for each.*like_a"),
    (lambda: grad([X.sum(), X.sum()], X, [1.0]), ValueError, "one of grad_outputs for each")])
def test_an_error_comes_at_once_and_says_what_to_do(call, error, message):
    with pytest.raises(error, match=message):
        call()


@pytest.mark.parametrize("rule, got", [
    (lambda g, like_arrays: [g], "list of 1"), (lambda g, like_arrays: g, "ndarray"),
    (lambda g, like_arrays: [g] * 3, "list of 3")])
def test_a_rule_for_several_inputs_gives_one_gradient_each(rule, got):
    total = tape.primitive(lambda *arrays: arrays[0] + arrays[1], rule, name="total")
    with pytest.raises(TypeError, match=f"total: .* each of them, here 2; got {got}"):
        total(leaf([1.0]), leaf([2.0])).sum().backward()


def test_an_operator_on_any_number_of_inputs():
    total = tape.primitive(lambda *arrays: sum(arrays), lambda g, like_arrays: [g] * len(like_arrays),
                           name="total")
    assert tape.gradcheck(lambda x, y, z: total(x, y, z) * x, [np.ones(2), np.ones((3, 2)), np.ones(1)],
                          order=2)


@pytest.mark.parametrize("shape", [(0, 2), (3, 0, 2)])
def test_attention_over_nothing(shape):
    q = leaf(np.ones(shape))
    out = ops.causal_attention(q, q, q)
    assert out.shape == shape
    out.backward(np.ones(shape))
    assert q.grad.shape == shape


def test_attention_of_no_query_on_some_keys():
    q, k = leaf(np.ones((0, 2))), leaf(np.ones((3, 2)))
    ops.causal_attention(q, k, k).sum().backward()
    np.testing.assert_array_equal(k.grad, np.zeros((3, 2)))


@pytest.mark.parametrize("cotangent", [[5.0], [np.array([5.0])], np.array([5.0]), Tensor([5.0]),
                                       [Tensor(np.array([5.0]))], (5.0,)], ids=repr)
def test_one_cotangent_however_it_is_given(cotangent):
    x = leaf([1.0])
    np.testing.assert_array_equal(grad(x * 2, x, grad_outputs=cotangent).data, [10])


@pytest.mark.parametrize("index", [
    ((0, 0), (1, 1)), ([0, 0], (1, 1)), ((0, 0),), [(0, 0), (1, 1)], (range(2), [0, 0]),
    (slice(None), (0, 0, 1)), ((True, False), [0, 0]), (Ellipsis, (1, 1)), (None, (0, 0)),
    (Tensor(np.array([0, 0])), (1, 1)), np.array([[0, 0], [1, 0]]), (np.int64(1), (0, 0))], ids=repr)
def test_sequences_in_an_index_are_arrays_with_repeats(index):
    x = leaf(np.arange(6.0).reshape(2, 3))
    plain = tuple(i.data if isinstance(i, Tensor) else i for i in index) if isinstance(
        index, tuple) else index
    y = x[index]
    np.testing.assert_array_equal(y.data, x.data[plain])
    g = np.random.default_rng(0).standard_normal(y.shape)
    y.backward(g)
    np.testing.assert_allclose(x.grad, added_at(x.shape, plain, g))
    assert tape.gradcheck(lambda x: x[index], [x.data], order=2)


def test_second_order_of_an_operator_on_any_number_of_inputs():
    product = tape.primitive(lambda *xs: xs[0] * xs[1], lambda g, xs: [g * xs[1], g * xs[0]], name="p")
    shifted = tape.primitive(lambda *xs: np.exp(xs[0] + xs[1]), lambda g, out, xs: [g * out, g * out],
                             name="q")
    for operator in (product, shifted):
        assert tape.gradcheck(lambda a, b: operator(a, b) * a, [np.array(0.3), np.array(0.4)], order=2)
    a, b = leaf(3.0), leaf(4.0)
    slope = grad(product(a, b) * a, a, create_graph=True)
    assert grad(slope, b).item() == 6


def test_the_zero_rule_of_an_elementwise_operator_on_any_number_of_inputs():
    root = tape.primitive(lambda *xs: np.sqrt(xs[0]) + xs[1],
                          lambda g, xs: [g / (2 * np.sqrt(xs[0])), g], name="root", elementwise=True)
    x, y = leaf([0.0, 4.0]), leaf([0.0, 0.0])
    root(x, y).backward(np.array([0.0, 1.0]))
    np.testing.assert_array_equal(x.grad, [0, 0.25])


@pytest.mark.parametrize("call, error, message", [
    (lambda: grad(X.sum(), []), ValueError, "inputs must be one or several Tensors, got none"),
    (lambda: X + [[1], [2, 3]], ValueError, "add: "),
    (lambda: Tensor(np.array([1], np.uint8)) - 1000, OverflowError, "sub: "),
    (lambda: ad.trace(lambda w: w * X, {"w": np.ones(3)}, parameters={"w": X}), ValueError,
     "names of their own; both have w")])
def test_other_errors_name_what_they_are_about(call, error, message):
    with pytest.raises(error, match=message):
        call()
