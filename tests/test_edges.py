"""Operands at the edge of what operators take: no axes, no elements, rows far from 0, NaN."""

import numpy as np
import pytest

import nn
import tape
import tape.lazy as ad
from tape import Tensor
from tests.checks import leaf

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("function", [tape.sigmoid, np.exp, tape.softmax, np.sqrt, np.tanh])
def test_who_changes_the_value_of_vjp_changes_no_gradient(function):
    value, pull = tape.vjp(function, np.array([0.5, 1, 2]))
    (before,) = pull(np.ones(3))
    value *= 100
    np.testing.assert_array_equal(pull(np.ones(3))[0], before)


@pytest.mark.parametrize("subscripts", ["->", "...->...", "...", ""])
def test_einsum_of_a_number(subscripts):
    x = leaf(2.0)
    tape.einsum(subscripts, x).backward()
    assert x.grad == 1


@pytest.mark.parametrize("number", [2.0, np.array(2.0), Tensor(2.0)])
@pytest.mark.parametrize("mode", ["full", "same", "valid"])
def test_a_convolution_with_a_number(number, mode):
    for function in (lambda x: np.convolve(x, number, mode), lambda x: np.convolve(number, x, mode),
                     lambda x: np.correlate(x, number, mode)):
        x = leaf([1.0, 2, 3, 4])
        out = function(x)
        out.sum().backward()
        np.testing.assert_array_equal(out.numpy(), 2 * x.numpy())
        np.testing.assert_array_equal(x.grad, [2, 2, 2, 2])


def test_what_fills_up_an_empty_array_has_no_gradient():
    x = leaf(np.zeros((1, 0)))
    np.resize(x, (2,)).sum().backward()
    assert x.grad.shape == (1, 0)


@pytest.mark.parametrize("function", [
    lambda x: np.outer(x, 2.5), lambda x: np.outer(2.5, x), lambda x: np.outer(x, np.float64(2.5)),
    lambda x: np.copysign(x, np.float64(-2)), lambda x: np.copysign(x, [1, -2]),
    lambda x: np.copysign(x, np.array([1, -2])), lambda x: np.heaviside(x, np.array([1, 2])),
    lambda x: np.heaviside([1, 2], x), lambda x: x // np.float64(2), lambda x: x // np.array([1, 2]),
    lambda x: np.floor_divide([3, 5], x)])
def test_numbers_lists_and_integers_widen_nothing(function):
    x = Tensor(np.array([1, -2], np.float32), requires_grad=True)
    assert function(x).dtype == np.float32
    node, (v,) = ad.trace(lambda x: function(x) * x, [x.data])
    assert ad.Evaluator([node]).run({v: x.data})[0].dtype == np.float32


@pytest.mark.parametrize("function", [
    lambda w: tape.linalg.matrix_power(w, 1), lambda w: np.diff(w, 0)])
def test_a_result_is_not_its_operand(function):
    w = leaf([[1.0, 2], [3, 4]])
    out = function(w)
    w.data[...] = 7
    np.testing.assert_array_equal(out.numpy(), [[1, 2], [3, 4]])


@pytest.mark.parametrize("extreme", [np.max, np.min])
def test_a_gradient_does_not_hide_that_the_extreme_is_nan(extreme):
    x = leaf([np.nan, 1, np.nan])
    extreme(x).backward()
    np.testing.assert_array_equal(x.grad, [0.5, 0, 0.5])


@pytest.mark.parametrize("larger", [np.maximum, np.minimum])
def test_beside_nan_both_have_the_gradient(larger):
    x, y = leaf([np.nan, 1, 2, 3]), leaf([1, np.nan, 2, 4])
    larger(x, y).sum().backward()
    first = larger is np.minimum
    np.testing.assert_array_equal(x.grad, [1, 1, 0.5, first])
    np.testing.assert_array_equal(y.grad, [1, 1, 0.5, not first])


# --- rows far from 0 ---


@pytest.mark.parametrize("shape", [(2, 5000), (2, 3), (1, 7), (3,), (1, 1, 3), (4, 2, 65)])
@pytest.mark.parametrize("value", [-54321.0, 12345.678, 0.1, 1e30])
def test_a_layer_norm_of_equal_elements_is_0(kernel_set, shape, value):
    x = leaf(np.full(shape, value), np.float32)
    with np.errstate(over="ignore"):
        out = tape.layer_norm(x)
    np.testing.assert_allclose(out.numpy(), np.zeros(shape), atol=5e-4)


@pytest.mark.parametrize("width", [3, 65, 5000])
def test_rows_far_from_0_keep_what_their_elements_have_of_digits(kernel_set, width):
    """And each row is what it is without the others."""
    x = RNG.standard_normal((6, width)).astype(np.float32)
    x[::2] -= np.float32(54321)
    wide = x.astype(np.float64)
    wide -= wide.mean(-1, keepdims=True)
    expected = wide / np.sqrt(np.mean(wide * wide, -1, keepdims=True) + 1e-5)
    found = tape.layer_norm(x)
    np.testing.assert_allclose(found, expected, atol=5e-3 if kernel_set == "numba" else 1e-5)
    for i in range(6):
        np.testing.assert_allclose(tape.layer_norm(x[i:i + 1])[0], found[i], atol=1e-6)


@pytest.mark.parametrize("other", [np.nan, np.inf, 0.0])
def test_a_row_far_from_0_is_the_same_beside_any_other(kernel_set, other):
    x = (1e5 + RNG.standard_normal((2, 16))).astype(np.float32)
    with np.errstate(all="ignore"):
        before = tape.layer_norm(x)[0]
        x[1] = other
        np.testing.assert_array_equal(tape.layer_norm(x)[0], before)


# --- what is masked, and what is lost in a sum ---


@pytest.mark.parametrize("hidden", [np.nan, np.inf, -np.inf, 1e30])
def test_a_key_of_the_future_does_not_matter(kernel_set, hidden):
    q, v = np.ones((1, 1, 2, 1), np.float32), np.array([1, 2], np.float32).reshape(1, 1, 2, 1)
    k = np.array([0, hidden], np.float32).reshape(1, 1, 2, 1)
    with np.errstate(all="ignore"):
        assert tape.causal_attention(1e30 * q, k, v)[0, 0, 0, 0] == 1


def test_a_small_loss_is_not_lost_among_large_logits(kernel_set):
    logits = np.full((40, 2), 1e16)
    logits[34] = 0
    found = tape.cross_entropy(Tensor(logits), np.zeros(40, int), reduction="sum").item()
    assert found == pytest.approx(40 * np.log(2))


# --- what is said ---


@pytest.mark.parametrize("call, words", [
    (lambda: Tensor([1.0, 2])[Tensor([0, 1])], r"booleans, got float32.*np.array\(\[0, 1\]\)"),
    (lambda: nn.LayerNorm((2, 3)), r"LayerNorm: d must be the length of the last axis.*got \(2, 3\)"),
    (lambda: nn.RMSNorm("2"), "RMSNorm: d must be the length"),
    (lambda: nn.LayerNorm(True), "LayerNorm: d must be the length.*got True"),
    (lambda: tape.grad(lambda x: x, 0.0)(2.0), "argnum must be the number of a positional"),
    (lambda: nn.GPT(10, 4), r"GPT: config must be a GPTConfig, got 10. Write nn.GPT\(nn.GPTConfig"),
    (lambda: tape.grad(lambda x, y: x, "y")(2.0, 3.0), "argnum must be the number of a positional"),
    (lambda: Tensor([1.0]).outer, r"Write np.outer\(t, ...\)"),
    (lambda: Tensor([1.0]).einsum, r"Write np.einsum\(t, ...\)"),
    (lambda: Tensor([1.0]).cbrt, r"Write np.cbrt\(t\)"),
    (lambda: Tensor([1.0]).bincount, "Counts have no derivative")])
def test_a_mistake_is_answered(call, words):
    with pytest.raises((TypeError, IndexError, AttributeError), match=words):
        call()


def test_a_list_with_one_length_is_that_length():
    assert nn.LayerNorm([3]).weight.shape == nn.RMSNorm((3,)).weight.shape == (3,)


def test_which_argument_may_be_said_by_integers_of_numpy():
    for argnum, expected in ((np.arange(2), (3, 2)), ((np.int64(0),), (3,)), (np.int64(1), 2)):
        assert tape.grad(lambda x, y: x * y, argnum)(2.0, 3.0) == expected


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_linear_layer_takes_a_list_in_its_dtype(dtype):
    with nn.parameters_of(dtype):
        layer = nn.Linear(3, 2, rng=0)
    x = [0.1, 0.2, 0.3]
    np.testing.assert_array_equal(layer(x).data, layer(np.array(x, dtype)).data)
