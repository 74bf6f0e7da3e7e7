"""Elementwise and matrix operators on drawn shapes: broadcasting, size-1 and empty axes, operands
on either side that are tensors, arrays, Python numbers or NumPy scalars.

The expected gradients are written out with NumPy here, broadcasting undone by hand.
"""

import operator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, mutually_broadcastable_shapes

from tape import Tensor, ops
from tests.checks import leaf
from tests.reference_engine import sum_to

settings.register_profile("short", max_examples=25, deadline=None, derandomize=True, database=None)
SHORT = settings.get_profile("short")

# name: (ours, NumPy's, d/dx, d/dy) at positive x and y
BINARY = {
    "add": (operator.add, np.add, lambda x, y: 1 + 0 * x, lambda x, y: 1 + 0 * y),
    "sub": (operator.sub, np.subtract, lambda x, y: 1 + 0 * x, lambda x, y: -1 + 0 * y),
    "mul": (operator.mul, np.multiply, lambda x, y: y, lambda x, y: x),
    "div": (operator.truediv, np.divide, lambda x, y: 1 / y, lambda x, y: -x / y ** 2),
    "power": (operator.pow, np.power, lambda x, y: y * x ** (y - 1),
              lambda x, y: x ** y * np.log(x)),
    "maximum": (ops.maximum, np.maximum, lambda x, y: (x > y) * 1.0, lambda x, y: (x < y) * 1.0),
    "minimum": (ops.minimum, np.minimum, lambda x, y: (x < y) * 1.0, lambda x, y: (x > y) * 1.0),
}

SHAPES = mutually_broadcastable_shapes(num_shapes=2, min_side=0, max_dims=3, max_side=3)


def draw(shape, seed):
    return np.random.default_rng(seed).uniform(0.5, 2.0, shape)


def check(ours, x, y, out, dx, dy):
    """Value and gradients of `ours(x, y)`, where x, y or both are leaves."""
    result = ours(x, y)
    assert isinstance(result, Tensor)
    np.testing.assert_allclose(result.data, out, rtol=1e-13)
    assert result.shape == out.shape
    u = draw(out.shape, 3)
    result.backward(u)
    for t, slope in ((x, dx), (y, dy)):
        if isinstance(t, Tensor):
            expected = sum_to(u * np.broadcast_to(slope, out.shape), t.shape)
            assert t.grad.shape == t.shape
            np.testing.assert_allclose(t.grad, expected, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("name", BINARY)
@settings(SHORT)
@given(shapes=SHAPES)
def test_two_tensors(name, shapes):
    ours, numpys, dx, dy = BINARY[name]
    x, y = (draw(s, i) for i, s in enumerate(shapes.input_shapes))
    check(ours, leaf(x), leaf(y), numpys(x, y), dx(x, y), dy(x, y))


@pytest.mark.parametrize("name", BINARY)
@settings(SHORT)
@given(shapes=SHAPES, array_first=st.booleans())
def test_tensor_and_array(name, shapes, array_first):
    ours, numpys, dx, dy = BINARY[name]
    x, y = (draw(s, i) for i, s in enumerate(shapes.input_shapes))
    args = (x, leaf(y)) if array_first else (leaf(x), y)
    check(ours, *args, numpys(x, y), dx(x, y), dy(x, y))


@pytest.mark.parametrize("name", BINARY)
@pytest.mark.parametrize("number", [2, 1.5, True, np.float32(1.5), np.float64(1.5), np.int64(2)],
                         ids=lambda n: f"{type(n).__name__}")
@pytest.mark.parametrize("shape", [(), (3,), (2, 0)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_tensor_and_number(name, number, shape, dtype):
    # Both orders; a number of any kind is weak, so the tensor's dtype is kept.
    ours, numpys, dx, dy = BINARY[name]
    array, c = draw(shape, 0).astype(dtype), float(number)
    tolerance = 1e-6 if dtype == np.float32 else 1e-13
    for flip in (False, True):
        t = leaf(array, dtype)
        result = ours(number, t) if flip else ours(t, number)
        args = (c, array) if flip else (array, c)
        assert isinstance(result, Tensor) and result.dtype == dtype and result.shape == shape
        np.testing.assert_allclose(result.data, numpys(*args), rtol=tolerance)
        result.backward(np.ones(shape))
        slope = np.broadcast_to((dy if flip else dx)(*args), shape)
        np.testing.assert_allclose(t.grad, slope, rtol=tolerance)
        assert t.grad.dtype == dtype


@pytest.mark.parametrize("name", BINARY)
def test_a_tensor_with_itself(name):
    ours, numpys, dx, dy = BINARY[name]
    x = draw((2, 3), 0)
    t = leaf(x)
    ours(t, t).sum().backward()
    half = 0.5 if name in ("maximum", "minimum") else 0    # a tie: half from either side
    np.testing.assert_allclose(t.grad, dx(x, x) + dy(x, x) + 2 * half, rtol=1e-12)


@settings(SHORT)
@given(shapes=mutually_broadcastable_shapes(num_shapes=3, min_side=0, max_dims=3, max_side=3))
def test_where(shapes):
    condition, x, y = (draw(s, i) for i, s in enumerate(shapes.input_shapes))
    condition = condition > 1.2
    a, b = leaf(x), leaf(y)
    out = ops.where(condition, a, b)
    expected = np.where(condition, x, y)
    np.testing.assert_array_equal(out.data, expected)
    u = draw(expected.shape, 3)
    out.backward(u)
    np.testing.assert_allclose(a.grad, sum_to(u * condition, x.shape), rtol=1e-12)
    np.testing.assert_allclose(b.grad, sum_to(u * ~condition, y.shape), rtol=1e-12)


def test_where_with_a_scalar_tensor_sums_over_the_places_it_went_to():
    scalar = leaf(3.0)
    ops.where(np.array([True, False, True]), scalar, 0).sum().backward()
    assert scalar.grad.shape == () and scalar.grad == 2.0


@settings(SHORT)
@given(shape=array_shapes(min_dims=1, min_side=0, max_side=3))
def test_an_empty_sum_has_zero_gradient(shape):
    x = leaf(draw(shape, 0))
    x[:0].sum().backward()
    np.testing.assert_array_equal(x.grad, np.zeros(shape))


# --- matrix products ---


def bilinear_gradient(x, y, u, which):
    """d sum(u * (x @ y)): by the linearity in each operand, one basis vector at a time."""
    target = (x, y)[which]
    out = np.zeros(target.shape)
    for index in np.ndindex(target.shape):
        basis = np.zeros(target.shape)
        basis[index] = 1
        out[index] = np.sum(u * (basis @ y if which == 0 else x @ basis))
    return out


@settings(SHORT, max_examples=80)
@given(shapes=mutually_broadcastable_shapes(signature=np.matmul.signature, min_side=0, max_side=3,
                                            max_dims=2))
def test_matmul_of_all_ranks_and_sizes(shapes):
    x, y = (draw(s, i) for i, s in enumerate(shapes.input_shapes))
    check_matmul(x, y)


@pytest.mark.parametrize("x_shape, y_shape", [
    ((2, 3, 0), (0, 4)), ((0, 3), (3,)), ((0, 2, 3), (3, 4)), ((2, 0), (0, 3)), ((0,), (0,)),
    ((0, 2, 3), (0, 3, 2)), ((2, 0, 3), (3, 4)), ((2, 2, 3), (3, 0))])
def test_matmul_of_empty_arrays(x_shape, y_shape):
    # An empty batch is what the last step of an epoch can be left with.
    check_matmul(draw(x_shape, 0), draw(y_shape, 1))


def check_matmul(x, y):
    a, b = leaf(x), leaf(y)
    out = a @ b
    np.testing.assert_allclose(out.data, x @ y, rtol=1e-12)
    assert out.shape == np.shape(x @ y)
    u = draw(out.shape, 3)
    out.backward(u)
    np.testing.assert_allclose(a.grad, bilinear_gradient(x, y, u, 0), rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(b.grad, bilinear_gradient(x, y, u, 1), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("x_shape, y_shape", [((2, 3), (3, 2)), ((3,), (3,)), ((2, 2, 3), (3, 2))])
def test_matmul_of_tensor_and_array_on_either_side(x_shape, y_shape):
    x, y = draw(x_shape, 0), draw(y_shape, 1)
    u = draw(np.shape(x @ y), 3)
    for args, which in (((leaf(x), y), 0), ((x, leaf(y)), 1)):
        out = args[0] @ args[1]
        assert isinstance(out, Tensor)
        out.backward(u)
        np.testing.assert_allclose(args[which].grad, bilinear_gradient(x, y, u, which), rtol=1e-12)


@pytest.mark.parametrize("transposed", ["x", "y", "both"])
def test_matmul_of_operands_that_are_not_contiguous(transposed):
    x = draw((3, 2, 4), 0).transpose(2, 1, 0) if transposed != "y" else draw((4, 2, 3), 0)
    y = draw((5, 3), 1).T if transposed != "x" else draw((3, 5), 1)
    check_matmul(x, y)


# --- reductions and moves over empty axes ---


ON_EMPTY = {
    "sum": lambda t: t.sum(), "sum of rows": lambda t: t.sum(axis=1),
    "sum, keepdims": lambda t: t.sum(axis=(0, 1), keepdims=True),
    "mean": lambda t: t.mean(axis=0), "max": lambda t: t.max(axis=0),
    "norm": lambda t: ops.norm(t, axis=1), "logsumexp": lambda t: t.logsumexp(axis=0),
    "softmax": lambda t: t.softmax(axis=0), "layer_norm": lambda t: ops.layer_norm(t.T, np.ones(3)),
    "exp": lambda t: t.exp(), "gelu": lambda t: t.gelu(), "clip": lambda t: t.clip(0, 1),
    "reshape": lambda t: t.reshape(0, 3), "transpose": lambda t: t.T,
    "expand_dims": lambda t: t.expand_dims(0), "pad": lambda t: ops.pad(t, 1),
    "concatenate": lambda t: ops.concatenate([t, t], axis=1),
    "stack": lambda t: ops.stack([t, t]), "iteration": lambda t: list(t)[0],
    "slice": lambda t: t[:, 0:0], "rows": lambda t: t[[0, 2, 0]],
    "no rows": lambda t: t[np.array([], int)], "mask": lambda t: t[np.array([True, False, True])],
    "embedding": lambda t: ops.embedding(t, [0, 2]),
}


@pytest.mark.parametrize("name", ON_EMPTY)
def test_empty_axes(name):
    t = leaf(np.zeros((3, 0)))
    ON_EMPTY[name](t).sum().backward()
    assert t.grad.shape == (3, 0)


def test_picking_no_element_at_all_has_zero_gradient():
    t = leaf(np.ones((3, 2)))
    t[[]].sum().backward()
    np.testing.assert_array_equal(t.grad, np.zeros((3, 2)))
