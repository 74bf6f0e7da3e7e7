"""What the derivative is where mathematics leaves a choice: kinks, ties, poles and infinities.

The rule behind the second half: a cotangent that is exactly zero gives an exactly zero gradient,
whatever the local derivative, so that the branch a `where` did not take leaves no NaN.
"""

import math

import numpy as np
import pytest

from tape import Tensor, grad, no_grad, ops
from tests.checks import leaf


def gradient(function, values, dtype=np.float64):
    """d sum(function(x)) / dx as an array, and NumPy's forward warnings kept quiet."""
    x = leaf(values, dtype)
    with np.errstate(all="ignore"):
        out = function(x)
    out.sum().backward()
    return x.grad


# --- kinks ---


@pytest.mark.parametrize("function, expected", [
    (ops.relu, [0, 0, 1]), (ops.abs, [-1, 0, 1]), (lambda x: ops.norm(x), [-0.6, 0, 0.8]),
    (lambda x: ops.clip(x, 0, 4), [0, 1, 1])], ids=["relu", "abs", "norm", "clip"])
def test_kinks(function, expected):
    np.testing.assert_allclose(gradient(function, [-3.0, 0.0, 4.0]), expected)


def test_relu_of_negative_zero_has_derivative_zero():
    np.testing.assert_array_equal(gradient(ops.relu, [-0.0, 0.0]), [0, 0])


@pytest.mark.parametrize("axis", [None, 0, 1])
def test_norm_of_the_zero_vector_has_derivative_zero_to_second_order(axis):
    x = leaf(np.zeros((2, 3)))
    slope = grad(ops.norm(x, axis=axis).sum(), x, create_graph=True)
    np.testing.assert_array_equal(slope.data, np.zeros((2, 3)))
    np.testing.assert_array_equal(grad(slope.sum(), x).data, np.zeros((2, 3)))


def test_numpys_norm_has_the_same_convention():
    np.testing.assert_array_equal(gradient(np.linalg.norm, [0.0, 0.0]), [0, 0])


# --- ties share equally ---


@pytest.mark.parametrize("function", [ops.max, ops.min], ids=["max", "min"])
def test_ties_of_a_reduction_share_equally(function):
    sign = 1 if function is ops.max else -1
    x = sign * np.array([[1.0, 1, 0], [2, 1, 2], [3, 3, 3], [0, 5, 1]])
    rows = [[.5, .5, 0], [.5, 0, .5], [1 / 3, 1 / 3, 1 / 3], [0, 1, 0]]
    np.testing.assert_allclose(gradient(lambda t: function(t, axis=1), x), rows)
    every = gradient(function, np.ones((2, 2)))
    np.testing.assert_allclose(every, np.full((2, 2), 0.25))


@pytest.mark.parametrize("function", [ops.maximum, ops.minimum, np.maximum, np.minimum])
def test_ties_of_two_share_equally(function):
    x, y = leaf([1.0, 1.0]), leaf([1.0, 1.0])
    function(x, y).sum().backward()
    np.testing.assert_array_equal(x.grad, [.5, .5])
    np.testing.assert_array_equal(y.grad, [.5, .5])


def test_maximum_with_itself_passes_the_whole_gradient():
    np.testing.assert_array_equal(gradient(lambda x: ops.maximum(x, x), [1.0, -2.0]), [1, 1])


@pytest.mark.parametrize("value", [np.inf, -np.inf])
def test_infinite_ties_share_too(value):
    np.testing.assert_array_equal(gradient(ops.max, [value, value]), [.5, .5])


# --- powers at zero ---


@pytest.mark.parametrize("exponent, expected", [(0, 0), (1, 1), (2, 0), (3, 0), (1.5, 0), (0.0, 0)])
def test_power_at_zero(exponent, expected):
    np.testing.assert_array_equal(gradient(lambda x: x ** exponent, [0.0]), [expected])


@pytest.mark.parametrize("exponent", [-2, -1, -0.5, 0.5, 1, 2, 3, 1.5, 4])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_powers_are_numpys(exponent, dtype):
    """Those with a function of their own too, over the whole range of the dtype and at both zeros."""
    largest = np.log10(np.finfo(dtype).max)
    x = np.logspace(-largest * 0.45, largest * 0.45, 1001, dtype=dtype)
    x = np.concatenate([x, np.array([0.0, -0.0, np.inf, np.nan], dtype)])
    with np.errstate(all="ignore"):
        expected = np.power(x.astype(np.float64 if dtype == np.float32 else np.longdouble), exponent)
        np.testing.assert_allclose(ops.power(x, exponent), expected.astype(dtype),
                                   rtol=4 * np.finfo(dtype).eps, atol=np.finfo(dtype).tiny)


@pytest.mark.parametrize("exponent", [0, 1, 2, 3, 4])
def test_higher_derivatives_of_whole_powers_at_zero_are_exact(exponent):
    x = leaf(0.0)
    y, found = x ** exponent, []
    for order in range(1, 6):
        y = grad(y + 0 * x, x, create_graph=True)       # a constant plays a part too, with slope 0
        found.append(y.item())
    assert found == [math.factorial(exponent) if order == exponent else 0 for order in range(1, 6)]


@pytest.mark.parametrize("exponent, dx", [(2.0, 0), (1.0, 1), (0.0, 0), (1.5, 0)])
def test_power_with_a_tensor_exponent_at_base_zero(exponent, dx):
    x, y = leaf([0.0]), leaf([exponent])
    (x ** y).sum().backward()
    np.testing.assert_array_equal(x.grad, [dx])
    np.testing.assert_array_equal(y.grad, [0])


def test_the_exponents_derivative_at_base_zero_is_zero_for_a_negative_exponent_too():
    y = leaf([-1.0])
    with np.errstate(divide="ignore"):
        ops.power(np.array([0.0]), y).sum().backward()
    np.testing.assert_array_equal(y.grad, [0])


def test_x_times_its_root_has_slope_zero_at_zero():
    np.testing.assert_array_equal(gradient(lambda x: x * x ** 0.5, 0.0), 0)
    np.testing.assert_array_equal(gradient(lambda x: x * x.sqrt(), 0.0), 0)


def test_negative_base_with_a_constant_whole_exponent():
    slopes = gradient(lambda x: x ** np.array([2.0, 3.0]), [-2.0, -2.0])
    np.testing.assert_allclose(slopes, [-4, 12])


# --- a zero cotangent gives a zero gradient ---

# name: (function, value where it is singular, its slope and its second derivative at 4)
SINGULAR = {
    "sqrt at 0": (ops.sqrt, 0.0, 1 / 4, -1 / 32),
    "sqrt at -1": (ops.sqrt, -1.0, 1 / 4, -1 / 32),
    "log at 0": (ops.log, 0.0, 1 / 4, -1 / 16),
    "log at -1": (ops.log, -1.0, 1 / 4, -1 / 16),
    "log1p at -1": (ops.log1p, -1.0, 1 / 5, -1 / 25),
    "log1p at -2": (ops.log1p, -2.0, 1 / 5, -1 / 25),
    "1/x at 0": (lambda x: 1 / x, 0.0, -1 / 16, 1 / 32),
    "x/x at 0": (lambda x: x / x, 0.0, 0, 0),
    "sin(x)/x at 0": (lambda x: ops.sin(x) / x, 0.0, np.cos(4) / 4 - np.sin(4) / 16,
                      -np.sin(4) / 4 - np.cos(4) / 8 + np.sin(4) / 32),
    "x**-2 at 0": (lambda x: x ** -2, 0.0, -1 / 32, 6 / 256),
    "x**.5 at 0": (lambda x: x ** 0.5, 0.0, 1 / 4, -1 / 32),
    "x**.5 at -1": (lambda x: x ** 0.5, -1.0, 1 / 4, -1 / 32),
    "x**1.5 at 0": (lambda x: x ** 1.5, 0.0, 3, 3 / 8),
    "x**-.5 tensor at 0": (lambda x: x ** np.full(x.shape, -0.5), 0.0, -1 / 16, 3 / 128),
    "exp at 1000": (ops.exp, 1000.0, np.exp(4), np.exp(4)),
    "expm1 at 1000": (ops.expm1, 1000.0, np.exp(4), np.exp(4)),
    "exp(x)**2 at 1000": (lambda x: ops.exp(x) ** 2, 1000.0, 2 * np.exp(8), 4 * np.exp(8)),
    "exp at NaN": (ops.exp, np.nan, np.exp(4), np.exp(4)),    # missing data, masked away
}

# Ways not to use the first element of the values.
MASK = np.array([False, True])
ROUTES = {
    "where": lambda f: ops.where(MASK, f, 0),
    "where, other branch": lambda f: ops.where(~MASK, 0, f),
    "mask": lambda f: f * MASK,
    "slice": lambda f: f[1:],
    "boolean index": lambda f: f[MASK],
    "integer index": lambda f: f[[1]],
}


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("name", SINGULAR)
def test_no_nan_through_the_element_that_was_not_used(name, route):
    function, bad, slope, _ = SINGULAR[name]
    got = gradient(lambda x: ROUTES[route](function(x)), [bad, 4.0])
    np.testing.assert_allclose(got, [0, slope], rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("name", SINGULAR)
def test_no_nan_in_the_second_derivative_either(name):
    function, bad, slope, second = SINGULAR[name]
    x = leaf([bad, 4.0])
    with np.errstate(all="ignore"):
        out = ops.where(MASK, function(x), 0).sum()
        first = grad(out, x, create_graph=True)
        np.testing.assert_allclose(first.data, [0, slope], rtol=1e-12, atol=1e-13)
        np.testing.assert_allclose(grad(first.sum(), x).data, [0, second], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", SINGULAR)
def test_no_nan_for_a_tensor_without_axes(name):
    # Values without axes are NumPy scalars inside, whose arithmetic is another code path.
    function, bad, _, _ = SINGULAR[name]
    assert gradient(lambda x: ops.where(False, function(x), 0), bad) == 0


@pytest.mark.parametrize("function, bad, limit", [
    (ops.sqrt, 0.0, ops.maximum), (ops.log, 0.0, ops.maximum),
    (lambda x: x ** 0.5, 0.0, ops.maximum), (lambda x: -1 / x, 0.0, ops.maximum),
    (ops.exp, 1000.0, ops.minimum), (lambda x: x ** -2, 0.0, ops.minimum),
    (lambda x: 1 / x, 0.0, ops.minimum)])
def test_no_nan_through_the_side_that_lost(function, bad, limit):
    got = gradient(lambda x: limit(function(x), 0.5), [bad, bad])
    np.testing.assert_array_equal(got, [0, 0])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_root_where_positive(dtype):
    got = gradient(lambda x: ops.where(x > 0, x.sqrt(), x), [-1.0, 0.0, 4.0], dtype)
    np.testing.assert_array_equal(got, [1, 1, 0.25])
    assert got.dtype == dtype


def test_root_where_positive_without_an_exact_zero_beside_it():
    # The NaN of sqrt(-1) is quiet: no flag of the processor announces it in the backward.
    got = gradient(lambda x: ops.where(x > 0, x.sqrt(), x), [-1.0, 4.0])
    np.testing.assert_array_equal(got, [1, 0.25])


def test_safe_division_has_no_nan_in_the_divisors_gradient():
    x, y = leaf([0.0, 3.0]), leaf([0.0, 2.0])
    with np.errstate(all="ignore"):
        ops.where(y != 0, x / y, 0).sum().backward()
    np.testing.assert_array_equal(x.grad, [0, 0.5])
    np.testing.assert_array_equal(y.grad, [0, -0.75])


@pytest.mark.parametrize("function", [ops.gelu, ops.sigmoid, ops.tanh, ops.relu, ops.abs, ops.sin,
                                      lambda x: ops.clip(x, 0, 1), lambda x: ops.maximum(x, 1),
                                      lambda x: x * x, lambda x: x ** 3, lambda x: 2 / x])
@pytest.mark.parametrize("missing", [np.nan, np.inf, -np.inf])
def test_missing_data_that_is_masked_away_leaves_no_nan(function, missing):
    got = gradient(lambda x: ops.where(MASK, function(x), 0), [missing, 4.0])
    assert got[0] == 0 and np.isfinite(got[1])


def test_a_zero_upstream_gradient_is_enough():
    x = leaf([0.0, 4.0])
    x.sqrt().backward([0.0, 1.0])
    np.testing.assert_array_equal(x.grad, [0, 0.25])


def test_a_nonzero_cotangent_still_sees_the_pole():
    # The convention is about zero cotangents alone; it must not hide a real infinity.
    assert gradient(ops.sqrt, [0.0]) == np.inf
    assert gradient(ops.log, [0.0]) == np.inf


def test_two_opposite_infinities_add_up_to_nan_without_an_exception():
    # That is what floating-point arithmetic says they add up to; backward() itself goes on.
    assert np.isnan(gradient(lambda x: x.sqrt() - x.sqrt(), [0.0])).all()
    assert np.isnan(gradient(lambda x: x.sqrt() - 2 * x.sqrt(), 0.0))


def test_an_infinite_and_a_finite_gradient_add_up():
    np.testing.assert_array_equal(gradient(lambda x: x.sqrt() + x, [0.0, 4.0]), [np.inf, 1.25])


@pytest.mark.parametrize("upstream, expected", [([1.0, 1.0], np.inf), ([1.0, -1.0], np.nan)])
def test_infinities_that_broadcasting_sums_up_go_through(upstream, expected):
    x = leaf([0.0])
    (x * np.array([1.0, 1.0])).sqrt().backward(upstream)
    np.testing.assert_array_equal(x.grad, [expected])


def test_std_of_a_constant_does_not_poison_what_it_is_added_to():
    # As for the norm, of which it is one: the subgradient at zero is zero.
    np.testing.assert_array_equal(gradient(ops.std, [2.0, 2.0]), [0, 0])


# --- softmax and its relatives at the ends of the number line ---


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_softmax_family_of_huge_entries(dtype):
    values = [[1e4, 1e4, -1e4], [1e30, 0, -1e30]]
    for function, expected in ((ops.softmax, [[.5, .5, 0], [1, 0, 0]]),
                               (lambda x: x.log_softmax().exp(), [[.5, .5, 0], [1, 0, 0]])):
        with np.errstate(under="ignore"):
            assert function(leaf(values, dtype)).data.tolist() == pytest.approx(
                np.array(expected), rel=1e-3)
        assert np.isfinite(gradient(function, values, dtype)).all()
    np.testing.assert_allclose(ops.logsumexp(leaf(values, dtype), axis=1).data,
                               [1e4 + np.log(2), 1e30], rtol=1e-6)
    slope = gradient(lambda x: ops.logsumexp(x, axis=1), values, dtype)
    np.testing.assert_allclose(slope, [[.5, .5, 0], [1, 0, 0]], rtol=1e-3)


def test_softmax_family_of_minus_infinity():
    values = [0.0, -np.inf, 0.0]
    np.testing.assert_allclose(ops.softmax(leaf(values)).data, [.5, 0, .5])
    np.testing.assert_allclose(ops.log_softmax(leaf(values)).data,
                               [-np.log(2), -np.inf, -np.log(2)])
    np.testing.assert_allclose(ops.logsumexp(leaf(values)).data, np.log(2))
    np.testing.assert_allclose(gradient(lambda x: x.softmax()[0], values), [.25, 0, -.25])
    np.testing.assert_allclose(gradient(lambda x: x.log_softmax()[0], values), [.5, 0, -.5])
    np.testing.assert_allclose(gradient(ops.logsumexp, values), [.5, 0, .5])


def test_a_row_that_is_masked_throughout_gives_zeros():
    values = [[-np.inf, -np.inf], [0.0, 0.0]]
    np.testing.assert_array_equal(ops.softmax(leaf(values)).data, [[0, 0], [.5, .5]])
    np.testing.assert_array_equal(gradient(lambda x: x.softmax()[:, 0], values),
                                  [[0, 0], [.25, -.25]])
    np.testing.assert_array_equal(ops.logsumexp(leaf(values), axis=1).data, [-np.inf, np.log(2)])
    np.testing.assert_array_equal(gradient(lambda x: ops.logsumexp(x, axis=1), values),
                                  [[0, 0], [.5, .5]])


@pytest.mark.parametrize("function, ends", [
    (ops.sigmoid, (0, 1)), (ops.tanh, (-1, 1)), (ops.relu, (0, 1e20)), (ops.gelu, (0, 1e20))])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_activations_saturate_without_nan(function, ends, dtype):
    with np.errstate(over="ignore"):
        np.testing.assert_allclose(function(leaf([-1e20, 1e20], dtype)).data, ends, rtol=1e-6)
    slopes = gradient(function, [-1e20, -1e4, 1e4, 1e20], dtype)
    linear = function in (ops.relu, ops.gelu)
    np.testing.assert_array_equal(slopes, [0, 0, 1, 1] if linear else [0, 0, 0, 0])


def test_attention_with_huge_scores_is_finite():
    rng = np.random.default_rng(0)
    q, k, v = (Tensor(1e3 * rng.standard_normal((4, 3)), requires_grad=True) for _ in range(3))
    out = ops.causal_attention(q, k, v)
    out.sum().backward()
    with no_grad():
        assert np.isfinite(out.data).all()
    assert all(np.isfinite(t.grad).all() for t in (q, k, v))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape, axis", [((3,), None), ((2, 7), 1), ((7, 2), 0), ((3, 5), (0, 1))])
def test_equal_elements_have_no_deviation_whatever_their_mean_rounds_to(dtype, shape, axis):
    for value in np.random.default_rng(0).uniform(0.1, 1, 50).astype(dtype):
        x = np.full(shape, value)
        assert not np.any(ops.std(x, axis=axis)) and not np.any(ops.var(x, axis=axis))
        np.testing.assert_array_equal(gradient(lambda t: ops.std(t, axis=axis), x, dtype), 0)
