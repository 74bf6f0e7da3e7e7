"""What does in less time what NumPy does: stable sorting, log(e^x + e^y), running sums and products."""

import numpy as np
import pytest

import tape
import tape.lazy as ad
from tape import kernels
from tests.checks import leaf

RNG = np.random.default_rng(0)


def hard(shape):
    """Ties, zeros of both signs, subnormal numbers, infinities, and NaN of both signs."""
    x = np.round(RNG.standard_normal(shape), 2).astype(np.float32)
    for value in (np.nan, -np.nan, np.inf, -np.inf, 0.0, -0.0, 1e-42, -1e-42):
        x[RNG.random(shape) < 0.1] = value
    return x


# --- sorting ---


SHAPES = [(3000,), (64, 40), (40, 64), (3, 40, 50), (2100, 1), (1, 2100), (70, 31)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("values", ["normal", "ties", "hard"])
def test_a_stable_order_is_numpys(shape, values):
    x = hard(shape) if values == "hard" else RNG.standard_normal(shape, np.float32)
    x = np.maximum(x, 0) if values == "ties" else x
    for layout in (x, x[::-1], x.T, np.asfortranarray(x), x.astype(">f4"), x.astype(np.float64),
                   x.astype(np.float16)):
        before = layout.copy()
        for axis in range(-layout.ndim, layout.ndim):
            found = kernels.stable_order(layout, axis)
            assert found.dtype == np.intp
            np.testing.assert_array_equal(found, np.argsort(layout, axis, kind="stable"))
        np.testing.assert_array_equal(layout, before)


def test_a_nan_that_signals_is_sorted_without_a_warning():
    x = np.arange(3000, dtype=np.float32)
    x.view(np.int32)[5] = 0x7F800001
    with np.errstate(all="raise"):
        assert kernels.stable_order(x, 0)[-1] == 5


@pytest.mark.parametrize("shape, axis", [((4000,), 1), ((4000,), -2), ((60, 60), 2), ((60, 60), "x")])
def test_an_axis_that_there_is_not_is_refused_as_by_numpy(shape, axis):
    x = np.zeros(shape, np.float32)
    with pytest.raises((np.exceptions.AxisError, TypeError)) as ours:
        kernels.stable_order(x, axis)
    with pytest.raises(type(ours.value)) as numpys:
        np.argsort(x, axis, kind="stable")
    assert str(ours.value) == str(numpys.value)


@pytest.mark.parametrize("axis", [0, 1, -1, None])
def test_each_of_many_equal_elements_gets_the_gradient_of_its_own_place(axis):
    x = leaf(RNG.integers(0, 5, (70, 60)), np.float32)
    g = np.arange(x.size, dtype=np.float32).reshape(-1 if axis is None else x.shape)
    out = tape.sort(x, axis)
    out.backward(g)
    np.testing.assert_array_equal(out.data, np.sort(x.data, axis))
    order = np.argsort(x.data, axis, kind="stable")
    expected = np.zeros_like(g)
    np.put_along_axis(expected, order, g, 0 if axis is None else axis)
    np.testing.assert_array_equal(x.grad, expected.reshape(x.shape))


# --- log(e^x + e^y) ---


def exact(x, y):
    """In more digits than float64 has where the machine has them."""
    x, y = np.asarray(x, np.longdouble), np.asarray(y, np.longdouble)
    return np.maximum(x, y) + np.log1p(np.exp(-np.abs(x - y)))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape, other", [((300_000,), (300_000,)), ((70, 60), (60,)), ((70, 60), ()),
                                          ((70, 1), (60,))])
def test_logarithms_of_sums_are_right_to_the_last_digits(dtype, shape, other):
    x, y = (10 * RNG.standard_normal(shape).astype(dtype) for shape in (shape, other))
    found = kernels.logaddexp(x, y)
    assert found.dtype == dtype
    eps = np.finfo(dtype).eps
    # Near 0 the two terms cancel, of which one is rounded: so in proportion to the larger one.
    size = np.maximum(np.abs(exact(x, y)), np.maximum(np.abs(x), np.abs(y)))
    assert (np.abs(found - exact(x, y)) / size).max() < 4 * eps


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_small_second_term_keeps_its_digits(dtype):
    lowest = np.log(np.finfo(dtype).tiny) + 1
    x = np.linspace(lowest, 0, 5000, dtype=dtype)
    found, eps = kernels.logaddexp(x, dtype(0)), np.finfo(dtype).eps
    np.testing.assert_allclose(found, exact(x, 0), rtol=4 * eps)


@pytest.mark.parametrize("many", [1, 3000])
def test_logarithms_of_sums_of_booleans(many):
    found = tape.logaddexp(np.ones(many, bool), np.ones(many, bool))
    np.testing.assert_array_equal(found, np.logaddexp(np.ones(many, bool), np.ones(many, bool)))


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, int])
def test_infinities_nan_and_other_dtypes_as_numpy(dtype):
    values = [-300, -1, 0, 1, 300] if dtype is int else [-np.inf, -300, 0, 1, 300, np.inf, np.nan]
    x, y = (np.tile(a.astype(dtype), 100) for a in np.array(np.meshgrid(values, values)).reshape(2, -1))
    with np.errstate(all="ignore"):
        found, numpys = kernels.logaddexp(x, y), np.logaddexp(x, y)
    assert found.dtype == numpys.dtype
    np.testing.assert_allclose(found, numpys, rtol=1e-6)
    apart = ~(np.isnan(x) | np.isnan(y) | (np.isinf(x) & np.isinf(y)))
    with np.errstate(all="raise", under="ignore"):
        np.testing.assert_allclose(kernels.logaddexp(x[apart], y[apart]), numpys[apart], rtol=1e-6)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_gradients_are_shares_that_sum_to_1(dtype):
    x, y = (leaf(10 * RNG.standard_normal((70, 60)), dtype) for _ in range(2))
    tape.sum(np.logaddexp(x, y)).backward()
    np.testing.assert_allclose(x.grad + y.grad, np.ones(x.shape), rtol=1e-5)
    ahead = x.data.astype(float) - y.data
    np.testing.assert_allclose(x.grad, 1 / (1 + np.exp(-ahead)), rtol=1e-5, atol=1e-30)


@pytest.mark.parametrize("many", [1, 3000])
@pytest.mark.parametrize("x, y, shares", [
    (np.inf, 0, (1, 0)), (-np.inf, 0, (0, 1)), (np.inf, -np.inf, (1, 0)), (-np.inf, -np.inf, (0, 0)),
    (np.inf, np.inf, (0.5, 0.5)), (1e30, -1e30, (1, 0)), (2.0, 2.0, (0.5, 0.5)),
    (np.nan, 1.0, (np.nan, np.nan))])
@pytest.mark.parametrize("f", [np.logaddexp, np.logaddexp2])
def test_shares_at_infinities_and_ties(f, x, y, shares, many):
    tensors = [leaf(np.full(many, value), np.float32) for value in (x, y)]
    with np.errstate(invalid="ignore"):
        f(*tensors).backward(np.full(many, 3))
    for t, share in zip(tensors, shares):
        np.testing.assert_array_equal(t.grad, np.full(many, 3 * share))


# --- running sums and products ---


@pytest.mark.parametrize("shape", [
    (5, 70), (70, 5), (3, 40, 50), (4, 65, 2), (0, 90), (90, 0), (7,), (1, 80)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, ">f4", np.int32, bool])
def test_running_sums_and_products_are_numpys(shape, dtype):
    x = RNG.standard_normal(shape).astype(dtype)
    for layout in (x, x[::-1], x.T, np.asfortranarray(x)):
        before = layout.copy()
        for axis in (None, *range(-layout.ndim, layout.ndim)):
            for ours, numpys in ((tape.cumsum, np.cumsum), (tape.cumprod, np.cumprod)):
                found, dtype = ours(layout, axis), numpys(layout, axis).dtype
                assert found.dtype.newbyteorder("=") == dtype
                wide = numpys(layout.astype(float) if dtype.kind == "f" else layout, axis)
                np.testing.assert_array_equal(found, wide.astype(dtype))       # rounded once
        np.testing.assert_array_equal(layout, before)


@pytest.mark.parametrize("shape, axis", [((10 ** 6,), 0), ((15_625, 64), 0)])
def test_the_last_of_many_running_sums_has_its_digits(shape, axis):
    x = leaf(np.full(shape, 0.1, np.float32))
    out = tape.cumsum(x, axis)
    np.testing.assert_allclose(out.data[-1], np.float32(0.1) * float(shape[0]), rtol=1e-7)
    out.backward(np.full(shape, 0.1, np.float32))
    np.testing.assert_allclose(x.grad[0], np.float32(0.1) * float(shape[0]), rtol=1e-7)


def test_running_sums_of_half_precision_are_rounded_once():
    x = np.ones((3000, 64), np.float16)
    np.testing.assert_array_equal(tape.cumsum(x, 0)[:, 0], np.arange(1, 3001).astype(np.float16))


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int32, np.uint8, bool])
@pytest.mark.parametrize("function", [tape.prod, tape.cumprod, tape.cumsum])
def test_gradients_of_a_graph_that_is_fed_integers_are_those_of_floats(function, dtype):
    node = function(x := ad.Variable("x"), 0)
    evaluator = ad.Evaluator([node, *ad.gradients(node, [x])])
    array = RNG.integers(0, 5, (4, 70)).astype(dtype)
    for found, expected in zip(evaluator.run({x: array}), evaluator.run({x: array.astype(np.float64)})):
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_the_gradient_of_a_running_sum_is_one_from_the_end(axis):
    x = leaf(RNG.standard_normal((5, 70, 3)))
    g = RNG.standard_normal(x.shape)
    tape.cumsum(x, axis).backward(g)
    np.testing.assert_allclose(x.grad, np.flip(np.cumsum(np.flip(g, axis), axis), axis), rtol=1e-12)


@pytest.mark.parametrize("function", [tape.cumsum, tape.cumprod])
def test_an_axis_that_there_is_not(function):
    with pytest.raises(np.exceptions.AxisError, match=r"^cum\w+: axis 2 is out of bounds"):
        function(leaf(np.ones((2, 3))), 2)
