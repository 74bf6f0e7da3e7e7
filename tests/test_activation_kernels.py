"""The kernels of relu, sigmoid, softmax and log_softmax, and of their gradients: both sets."""

import numpy as np
import pytest

import tape
from tape import Tensor, kernels
from tape.ops import activations

NAMES = ["relu", "sigmoid", "softmax", "log_softmax"]
SHAPES = [(3, 5), (2, 3, 7), (1, 600), (90, 50), (700, 128)]       # the last in parts, where compiled
HARD = [[1, 2, 3], [-np.inf] * 3, [-np.inf, 0, 1], [np.inf, 0, 1], [np.nan, 1, 2], [-np.nan, 1, 2],
        [np.inf, -np.inf, np.inf], [3e38, -3e38, 0], [-90, -104, -0.0], [88.7, 90, 1e-40]]


@pytest.fixture
def compiled():
    pytest.importorskip("numba", reason="numba is not installed; pip install -e '.[fast]'")
    from tape.kernels import numba
    return numba


def exact(name, x):
    """In float64, from the definitions."""
    x = np.asarray(x, np.float64)
    if name == "relu":
        return np.maximum(x, 0)
    if name == "sigmoid":
        return 1 / (1 + np.exp(-x))
    e = np.exp(x - x.max(-1, keepdims=True))
    total = e.sum(-1, keepdims=True)
    return e / total if name == "softmax" else x - x.max(-1, keepdims=True) - np.log(total)


def exact_gradient(name, g, x):
    """g times the Jacobian, which for softmax is written out for each row."""
    g, out = np.asarray(g, np.float64), exact(name, x)
    if name == "relu":
        return g * (np.asarray(x) > 0)
    if name == "sigmoid":
        return g * out * (1 - out)
    s = exact("softmax", x)
    if name == "softmax":                                # ds_i/dx_k = s_i ([i = k] - s_k)
        jacobian = s[..., :, None] * (np.eye(s.shape[-1]) - s[..., None, :])
    else:                                                # dy_i/dx_k = [i = k] - s_k
        jacobian = np.eye(s.shape[-1]) - np.broadcast_to(s[..., None, :], (*s.shape, s.shape[-1]))
    return np.einsum("...i,...ik->...k", g, jacobian)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", NAMES)
def test_results_and_gradients_are_those_of_the_definitions(kernel_set, name, shape, dtype):
    rng = np.random.default_rng(0)
    values, g = (rng.standard_normal(shape).astype(dtype) for _ in range(2))
    x = Tensor(3 * values, requires_grad=True)
    out = getattr(tape, name)(x)
    out.backward(g)
    assert out.dtype == x.grad.dtype == dtype and out.shape == shape
    near = {"rtol": 40 * np.finfo(dtype).eps, "atol": 40 * np.finfo(dtype).eps}
    np.testing.assert_allclose(out.data, exact(name, 3 * values), **near)
    np.testing.assert_allclose(x.grad, exact_gradient(name, g, 3 * values), **near)


@pytest.mark.parametrize("many", [1, 2_000])
@pytest.mark.parametrize("name", NAMES)
def test_infinities_nan_and_large_numbers(compiled, name, many):
    for row in np.array(HARD, np.float32):
        rows = np.tile(row, (many, 1))
        with np.errstate(all="ignore"):
            plain, ours = getattr(kernels, name)(rows), getattr(compiled, name)(rows)
            slopes = [getattr(kernel_set, name + "_backward")(np.ones_like(rows), plain)
                      for kernel_set in (kernels, compiled)]
        np.testing.assert_allclose(ours, plain, rtol=1e-6, atol=1e-7, err_msg=str(row))
        np.testing.assert_allclose(*slopes, rtol=1e-6, atol=1e-6, err_msg=str(row))


@pytest.mark.parametrize("size", [4, 10_000])
def test_a_sigmoid_keeps_the_digits_of_small_results(kernel_set, size):
    x = np.resize(np.array([-100.0, -88.0, -20.0, -5.0], np.float32), size)
    np.testing.assert_allclose(tape.sigmoid(Tensor(x)).data, np.exp(x.astype(float)) / (
        1 + np.exp(x.astype(float))), rtol=1e-6, atol=1e-44)


@pytest.mark.parametrize("name", NAMES)
def test_any_layout_and_any_dtype(compiled, name):
    rng = np.random.default_rng(0)
    x, g = rng.standard_normal((2, 80, 66)).astype(np.float32)
    out = getattr(compiled, name)(x)
    slope = getattr(compiled, name + "_backward")(g, out)
    wide = np.zeros((80, 132), np.float32)
    wide[:, ::2] = x
    odd = np.frombuffer(b"\0" + x.tobytes(), x.dtype, offset=1).reshape(x.shape)
    for array in (wide[:, ::2], np.asfortranarray(x), odd):
        again = getattr(compiled, name)(array)
        np.testing.assert_array_equal(again, out)
        np.testing.assert_array_equal(
            getattr(compiled, name + "_backward")(np.asfortranarray(g), again), slope)
    for other in (x.astype(np.float16), x[:0], x[0], np.arange(6).reshape(2, 3), np.float32(2)):
        if np.ndim(other) == 0 and "softmax" in name:
            continue
        ours, plain = getattr(compiled, name)(other), getattr(kernels, name)(other)
        assert np.asarray(ours).dtype == np.asarray(plain).dtype
        np.testing.assert_allclose(ours, plain, rtol=1e-6, atol=1e-7)
    mixed = getattr(compiled, name + "_backward")(g.astype(np.float64), out)
    np.testing.assert_allclose(mixed, slope, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
@pytest.mark.parametrize("axis", [0, 1, -2, 2, None])
def test_along_any_axis(kernel_set, name, axis):
    x, g = np.random.default_rng(0).standard_normal((2, 4, 5, 6))
    t = Tensor(x, requires_grad=True)
    out = getattr(tape, name)(t, axis=axis)
    out.backward(g)
    last = (lambda a: a.reshape(-1)) if axis is None else (lambda a: np.moveaxis(a, axis, -1))
    np.testing.assert_allclose(last(out.data), exact(name, last(x)), atol=1e-14)
    np.testing.assert_allclose(last(t.grad), exact_gradient(name, last(g), last(x)), atol=1e-14)


@pytest.mark.parametrize("name", NAMES)
def test_the_bits_do_not_depend_on_the_number_of_threads(compiled, name):
    x, g = np.random.default_rng(0).standard_normal((2, 700, 130)).astype(np.float32)
    found = []
    for threads in (1, 2, 3):
        with tape.use_kernels("numba", threads=threads):
            out = kernels.find(name)(x)
            found.append((out, kernels.find(name + "_backward")(g, out)))
    for others in found[1:]:
        for a, b in zip(found[0], others):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("loops", ["_softmax_backward", "_log_softmax", "_log_softmax_backward"])
def test_the_bits_do_not_depend_on_where_a_result_lies(compiled, loops):
    from tape.kernels.numba import softmax_rows
    from tape.kernels.numba.threads import NOBODY
    rng, memory = np.random.default_rng(0), np.empty(50_000, np.float32)
    loop = getattr(softmax_rows, loops)
    for width in range(2, 70):
        x = memory[:2 * width].reshape(2, width)
        x[...] = rng.standard_normal((2, width))
        given = (x, x) if loops.endswith("backward") else (x,)
        results = [memory[at:at + 2 * width].reshape(2, width) for at in (2 * width, 40_000)]
        for out in results:
            loop[x.dtype](*given, out, NOBODY, 1)
        np.testing.assert_array_equal(*results)


@pytest.mark.parametrize("name", NAMES)
def test_a_tensor_among_the_operands_of_a_gradient_is_recorded(kernel_set, name):
    x = Tensor(np.array([[0.5, -1.0, 2.0]]), requires_grad=True)
    out = getattr(tape, name)(x)
    (slope,) = tape.grad((out * out).sum(), [x], create_graph=True)
    (bend,) = tape.grad(slope.sum(), [x])
    step = 1e-5

    def slope_at(move):
        t = Tensor(x.data + move, requires_grad=True)
        y = getattr(tape, name)(t)
        (found,) = tape.grad((y * y).sum(), [t])
        return found.sum()
    numeric = [(slope_at(step * unit) - slope_at(-step * unit)) / (2 * step) for unit in np.eye(3)]
    np.testing.assert_allclose(bend[0], numeric, rtol=1e-6, atol=1e-8)


def test_a_zero_gradient_stays_zero_beside_an_infinite_activation(kernel_set):
    x = Tensor(np.array([np.inf, 1.0]), requires_grad=True)
    tape.relu(x).backward(np.array([0.0, 3.0]))
    np.testing.assert_array_equal(x.grad, [0, 3])


def test_gradient_operators_follow_their_operands():
    g, s = np.array([1.0, 2.0]), np.array([0.25, 0.75])
    assert type(activations.softmax_gradient(g, s)) is np.ndarray
    t = activations.softmax_gradient(Tensor(g, requires_grad=True), s)
    assert isinstance(t, Tensor)
    np.testing.assert_allclose(t.data, s * (g - 1.75))


@pytest.mark.parametrize("name", NAMES)
def test_an_array_without_axes(kernel_set, name):
    x = np.array(2.0)
    np.testing.assert_allclose(getattr(tape, name)(x), exact(name, x[None])[0])
    np.testing.assert_allclose(activations.softmax_gradient(x, np.array(1.0)), 0)


@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
def test_a_float16_gradient_that_is_too_large_is_infinite_without_a_warning(kernel_set, name):
    t = Tensor(np.array([5, -5, -5, -5], np.float16), requires_grad=True)
    out = getattr(tape, name)(t)
    with np.errstate(all="raise"):
        out.backward(np.full(4, 60000, np.float16))
    assert t.grad.dtype == np.float16 and np.isneginf(t.grad[0]) == (name == "log_softmax")


@pytest.mark.parametrize("rows", [1, 300])
@pytest.mark.parametrize("offset", [0, 100, 1e5, -1e5])
def test_logarithms_keep_their_digits_where_rows_are_far_from_zero(kernel_set, offset, rows):
    """x - logsumexp(x) has lost them: there the logarithm is rounded to the digits of x."""
    near = np.tile(np.array([[1, 0.5, 0, 0.25]], np.float32), (rows, 1))          # x is exact
    x, targets = Tensor(near + np.float32(offset), requires_grad=True), np.full(rows, 2)
    loss = tape.cross_entropy(x, targets)
    loss.backward()
    known = exact("log_softmax", near)
    np.testing.assert_allclose(tape.log_softmax(x).data, known, rtol=3e-7)
    np.testing.assert_allclose(loss.data, -known[0, 2], rtol=3e-7)
    np.testing.assert_allclose(rows * x.grad, np.exp(known) - np.eye(4)[targets], rtol=0, atol=3e-7)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int32, bool])
@pytest.mark.parametrize("name", ["relu", "sigmoid"])
def test_many_elements_are_those_of_few(kernel_set, name, dtype):
    few = np.array([-np.inf, -1000, -88, -1, -1e-6, -0.0, 0.0, 1e-6, 1, 88, 1000, np.inf, np.nan])
    with np.errstate(all="ignore"):
        few = (few if np.dtype(dtype).kind == "f" else np.arange(13) - 6).astype(dtype)
        many = getattr(tape, name)(np.tile(few, 1_000))
        known = np.tile(getattr(tape, name)(few), (1_000, 1))
        np.testing.assert_array_equal(many.reshape(1_000, 13), known)
        assert many.dtype == known.dtype
