"""Elements moved, repeated and left out: values, and gradients by the places of the elements."""

import numpy as np
import pytest

import tape
from tape import Tensor, grad, kernels
from tests.checks import leaf

RNG = np.random.default_rng(0)
# name -> calls of NumPy's function, or of ours, on an array of the shape (2, 3, 4).
CALLS = {
    "roll": [lambda f, x: f(x, 2), lambda f, x: f(x, -5, 1), lambda f, x: f(x, (1, -1), (0, 2)),
             lambda f, x: f(x, 1, (0, 1)), lambda f, x: f(x, [1, 2], [2, 2]),
             lambda f, x: f(x, True, 0), lambda f, x: f(x, np.uint8(3), axis=-1),
             lambda f, x: f(x, np.array([3, -1]), (1, 2)), lambda f, x: f(x, 2 ** 63)],
    "flip": [lambda f, x: f(x), lambda f, x: f(x, 1), lambda f, x: f(x, (0, -1))],
    "fliplr": [lambda f, x: f(x)], "flipud": [lambda f, x: f(x)],
    "rot90": [lambda f, x: f(x), lambda f, x: f(x, -1), lambda f, x: f(x, 2, (1, 2)),
              lambda f, x: f(x, np.uint8(3), (-1, 0))],
    "repeat": [lambda f, x: f(x, 3), lambda f, x: f(x, 2, 1), lambda f, x: f(x, [2], -1),
               lambda f, x: f(x, 0, 0), lambda f, x: f(x, [1, 0, 20], 1), lambda f, x: f(x, (0, 0), 0),
               lambda f, x: f(x, np.arange(24)), lambda f, x: f(x, np.int64(40), axis=2)],
    "tile": [lambda f, x: f(x, 2), lambda f, x: f(x, (2, 1, 3)), lambda f, x: f(x, [3, 1, 1, 2]),
             lambda f, x: f(x, ()), lambda f, x: f(x, (0, 1)), lambda f, x: f(x, True),
             lambda f, x: f(x, np.array([2, 2]))],
    "resize": [lambda f, x: f(x, (50,)), lambda f, x: f(x, (2, 2))],
    "rollaxis": [lambda f, x: f(x, 2), lambda f, x: f(x, 0, 3)],
    "delete": [lambda f, x: f(x, 1, 1), lambda f, x: f(x, [0, 5, 7])],
}
EVERY = [(name, call) for name, calls in CALLS.items() for call in calls]
CASES = pytest.mark.parametrize("name, call", EVERY, ids=[f"{name}-{i}" for i, (name, _) in
                                                          enumerate(EVERY)])


@CASES
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_each_element_of_the_gradient_goes_back_to_its_place(kernel_set, name, call, dtype):
    x = RNG.standard_normal((2, 3, 4)).astype(dtype)
    for array in (x, np.asfortranarray(x), x[::-1]):
        t = Tensor(array, requires_grad=True)
        out = call(getattr(tape, name), t)
        expected = call(getattr(np, name), array)
        assert out.dtype == dtype and out.shape == expected.shape
        np.testing.assert_array_equal(out.data, expected)
        g = RNG.standard_normal(out.shape).astype(dtype)
        out.backward(g)
        places, total = call(getattr(np, name), np.arange(24).reshape(2, 3, 4)), np.zeros(24)
        np.add.at(total, places, g.astype(np.float64))
        assert t.grad.dtype == dtype
        np.testing.assert_allclose(t.grad.reshape(-1), total, rtol=2 * np.finfo(dtype).eps,
                                   atol=40 * np.finfo(dtype).eps)


@CASES
def test_gradients_of_these_gradients(name, call):
    """Of L = sum(w f(x)^2) / 2 the gradient is f^T(w f(x)); that of its product with v, f^T(w f(v))."""
    x, v = leaf(RNG.standard_normal((2, 3, 4))), RNG.standard_normal((2, 3, 4))
    out = call(getattr(tape, name), x)
    w = RNG.standard_normal(out.shape)
    slope = grad((out * out * w).sum() / 2, x, create_graph=True)
    turned = Tensor(v, requires_grad=True)
    (call(getattr(tape, name), turned) * w * call(getattr(np, name), v)).sum().backward()
    found = grad((slope * v).sum(), x) if slope._requires_grad else 0 * v
    np.testing.assert_allclose(np.asarray(found.data), turned.grad, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", ["tril", "triu"])
@pytest.mark.parametrize("dtype", [bool, np.int8, np.float16, np.float32, np.float64])
@pytest.mark.parametrize("shape", [(4, 3), (2, 3, 5), (3,), (0, 2), (120, 130)])
def test_triangles_are_numpys(name, dtype, shape):
    x = (4 * RNG.standard_normal(shape)).astype(dtype)
    if dtype == np.float32 and x.size > 10:
        x[0, 0], x[-1, -1], x[0, -1] = np.nan, -np.inf, -0.0
    for k in (0, 1, -2, 7):
        found, expected = getattr(tape, name)(x, k), getattr(np, name)(x, k)
        assert found.dtype == expected.dtype == dtype
        np.testing.assert_array_equal(found, expected)
        if np.dtype(dtype).kind == "f":
            t = Tensor(x, requires_grad=True)
            getattr(tape, name)(t, k).sum().backward()
            np.testing.assert_array_equal(t.grad, getattr(np, name)(np.ones(shape), k).sum(
                0 if len(shape) == 1 else ()))


@pytest.mark.parametrize("size, count", [
    (10, 1000), (1000, 1000), (5000, 3), (3, 0), (200_000, 15_000)])
def test_elements_are_put_back_with_small_errors(kernel_set, size, count):
    places, g = RNG.integers(0, size, count), np.full(count, 0.1, np.float32)
    total, before = np.full(size, 2, np.float32), np.zeros(size)
    kernels.add_elements(total, g, places)
    np.add.at(before, places, g.astype(np.float64))
    np.testing.assert_allclose(total, 2 + before, rtol=1.3e-7)
