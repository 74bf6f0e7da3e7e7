"""Derivatives of derivatives: against closed forms, nested, and mixed with the same variable."""

import math

import numpy as np
import pytest

import tape
import tape.lazy as ad
from tape import Tensor, enable_grad, grad, no_grad, ops
from tape.gradcheck import gradcheck
from tests.checks import differences, leaf


def derivatives(function, at, order):
    """function(at) and its derivatives up to `order`, each by differentiating the one before."""
    x = leaf(at)
    y = function(x)
    values = [y.item()]
    for _ in range(order):
        y = grad(y, x, create_graph=True)
        values.append(y.item())
    return values


CLOSED = {
    "exp(2x)": (lambda x: ops.exp(2 * x), lambda x: [2 ** n * math.exp(2 * x) for n in range(5)]),
    "sin": (ops.sin, lambda x: [math.sin(x + n * math.pi / 2) for n in range(5)]),
    "cos": (ops.cos, lambda x: [math.cos(x + n * math.pi / 2) for n in range(5)]),
    "log": (ops.log, lambda x: [math.log(x), 1 / x, -1 / x ** 2, 2 / x ** 3, -6 / x ** 4]),
    "1/x": (lambda x: 1 / x, lambda x: [1 / x, -1 / x ** 2, 2 / x ** 3, -6 / x ** 4, 24 / x ** 5]),
    "x^5": (lambda x: x ** 5, lambda x: [x ** 5, 5 * x ** 4, 20 * x ** 3, 60 * x ** 2, 120 * x]),
    "sqrt": (ops.sqrt, lambda x: [x ** .5, .5 * x ** -.5, -.25 * x ** -1.5, .375 * x ** -2.5,
                                  -.9375 * x ** -3.5]),
    "x*x*x*x": (lambda x: x * x * x * x,
                lambda x: [x ** 4, 4 * x ** 3, 12 * x ** 2, 24 * x, 24]),
    "exp(-x^2)": (lambda x: ops.exp(-x * x), lambda x: [
        math.exp(-x * x) * h for h in (1, -2 * x, 4 * x ** 2 - 2, -8 * x ** 3 + 12 * x,
                                       16 * x ** 4 - 48 * x ** 2 + 12)]),
    "sigmoid": (ops.sigmoid, lambda x: (lambda s: [
        s, s * (1 - s), s * (1 - s) * (1 - 2 * s), s * (1 - s) * (1 - 6 * s + 6 * s * s),
        s * (1 - s) * (1 - 2 * s) * (1 - 12 * s + 12 * s * s)])(1 / (1 + math.exp(-x)))),
    "tanh": (ops.tanh, lambda x: (lambda t: [
        t, 1 - t ** 2, -2 * t * (1 - t ** 2), (1 - t ** 2) * (6 * t ** 2 - 2),
        (1 - t ** 2) * (16 * t - 24 * t ** 3)])(math.tanh(x))),
    "2^x": (lambda x: 2.0 ** x, lambda x: [2 ** x * math.log(2) ** n for n in range(5)]),
    "x log x": (lambda x: x * ops.log(x),
                lambda x: [x * math.log(x), math.log(x) + 1, 1 / x, -1 / x ** 2, 2 / x ** 3]),
}


@pytest.mark.parametrize("name", CLOSED)
@pytest.mark.parametrize("at", [0.7, 1.9])
def test_up_to_fourth_order_against_closed_forms(name, at):
    function, closed = CLOSED[name]
    np.testing.assert_allclose(derivatives(function, at, 4), closed(at), rtol=1e-11)


def test_the_third_derivative_of_a_bell_curve_at_zero():
    values = derivatives(lambda x: ops.exp(-x ** 2), 0.0, 4)
    assert values == [1, 0, -2, 0, 12]


@pytest.mark.parametrize("function", [
    lambda x: ops.logsumexp(ops.sin(x) * 2), lambda x: ops.softmax(x * x)[0],
    lambda x: ops.norm(ops.exp(x)), lambda x: ops.var(x ** 3),
    lambda x: ops.layer_norm(x * x, x, x)[1], lambda x: ops.cross_entropy(x * x, 1),
    lambda x: ops.gelu(x).sum(), lambda x: ops.causal_attention(x[:, None], x[:, None], x[:, None]),
    lambda x: (x[None] @ ops.stack([x, x * x, ops.sin(x)])).sum(),
    lambda x: ops.concatenate([x, x * x])[[0, 0, 4]].sum() ** 2],
    ids=["logsumexp", "softmax", "norm", "var", "layer_norm", "cross_entropy", "gelu", "attention",
         "matmul", "concatenate"])
def test_third_order_of_vector_functions_passes_the_checker(function):
    # The checker's second order of a gradient is the function's third order.
    def slope(x):
        with enable_grad():
            x = x if x.requires_grad else Tensor(x, requires_grad=True)
            return grad(function(x).sum(), x, create_graph=True)
    assert gradcheck(slope, [[0.5, 0.9, -0.4]], order=2)


# --- nested and mixed ---


def test_perturbation_confusion_first_case():
    # Inner d/dy of y (x - y) at y := x; the outer x must not be taken for the inner y. As
    # functions: d/dx [x - 2y at y = x] = d/dx (-x) = -1.
    x = leaf(2.0)
    y = x * 1
    inner = grad(y * (x - y), y, create_graph=True)
    assert inner.item() == -2.0
    assert grad(inner, x).item() == -1.0


def test_perturbation_confusion_second_case():
    # d/dx [x * d/dy (x + y) at y = 1] = d/dx [x * 1] = 1, not 2.
    x, y = leaf(1.0), leaf(1.0)
    inner = grad(x + y, y, create_graph=True)
    assert inner.item() == 1.0
    assert grad(x * inner, x).item() == 1.0


def test_perturbation_confusion_third_case():
    # d/dx [x * d/dy (x y) at y = 2] = d/dx x^2 = 2x.
    x, y = leaf(3.0), leaf(2.0)
    assert grad(x * grad(x * y, y, create_graph=True), x).item() == 6.0


def test_an_inner_derivative_at_an_outer_expression():
    # h(x) = f'(g(x)) with f = sin and g = x^2: h'(x) = -sin(x^2) 2x.
    x = leaf(0.8)
    u = x ** 2
    inner = grad(ops.sin(u), u, create_graph=True)
    assert inner.item() == pytest.approx(math.cos(0.64), rel=1e-12)
    assert grad(inner, x).item() == pytest.approx(-math.sin(0.64) * 1.6, rel=1e-12)


def test_three_levels():
    # With z := y and y := x each made from the one before: d/dz (x y z^2) = 2xyz; y times that,
    # by y, with z following, is 6 x y^2; x times that, by x, with y following, is 24 x^3.
    x = leaf(1.5)
    y = x * 1
    z = y * 1
    d_z = grad(x * y * z * z, z, create_graph=True)
    d_y = grad(y * d_z, y, create_graph=True)
    assert d_y.item() == pytest.approx(6 * 1.5 ** 3)
    assert grad(x * d_y, x).item() == pytest.approx(24 * 1.5 ** 3)


def test_a_gradient_step_is_differentiated_through():
    # One step on (w - a)^2 from w, then (w' - b)^2: the derivative by a passes through the step.
    w, a, rate = leaf(1.0), leaf(3.0), 0.1
    step = w - rate * grad((w - a) ** 2, w, create_graph=True)
    loss = (step - 2.0) ** 2
    moved = 1.0 - rate * 2 * (1.0 - 3.0)
    assert loss.item() == pytest.approx((moved - 2) ** 2)
    d_w, d_a = grad(loss, [w, a])
    assert d_a.item() == pytest.approx(2 * (moved - 2) * 2 * rate)
    assert d_w.item() == pytest.approx(2 * (moved - 2) * (1 - 2 * rate))


def test_a_gradient_penalty_goes_to_the_weights_by_backward():
    w, x = leaf([[1.0, 2.0], [3.0, 4.0]]), leaf([0.5, -1.0])
    slope = grad(((w @ x) ** 2).sum(), x, create_graph=True)     # 2 w^T w x
    (slope ** 2).sum().backward()
    expected = differences(lambda w: (2 * w.T @ w @ x.data) ** 2, [w.data], 0)
    np.testing.assert_allclose(w.grad, expected, rtol=1e-7)


def test_the_hessian_is_symmetric_and_right():
    x = leaf([0.3, -0.7, 1.1])
    slope = grad(ops.exp((x * x).sum()) + x[0] * x[1] * x[2], x, create_graph=True)
    rows = [grad(slope[i], x, retain_graph=True).data for i in range(3)]
    v, s = x.data, math.exp(x.data @ x.data)
    cross = np.array([[0, v[2], v[1]], [v[2], 0, v[0]], [v[1], v[0], 0]])
    np.testing.assert_allclose(rows, s * (2 * np.eye(3) + 4 * np.outer(v, v)) + cross, rtol=1e-12)


def test_a_differentiable_cotangent():
    # The derivative of a vjp by its cotangent is the jvp: d(u . J x)/du.
    x, u = leaf([1.0, 2.0]), leaf([1.0, 1.0])
    pulled = grad(x ** 3, x, u, create_graph=True)
    np.testing.assert_array_equal(pulled.data, [3, 12])
    np.testing.assert_array_equal(grad(pulled, u, [10.0, 1.0], retain_graph=True).data, [30, 12])
    np.testing.assert_array_equal(grad(pulled.sum(), x).data, [6, 12])


def test_linear_functions_have_a_gradient_that_is_a_constant():
    x = leaf([1.0, 2.0])
    slope = grad((3 * x).sum(), x, create_graph=True)
    np.testing.assert_array_equal(slope.data, [3, 3])
    assert not slope.requires_grad
    assert grad(slope.sum() + x.sum() * 0, x).data.tolist() == [0, 0]


def test_a_gradient_without_create_graph_is_a_constant():
    x = leaf(3.0)
    y = x ** 3
    slope = grad(y, x, retain_graph=True)
    assert not slope.requires_grad
    with pytest.raises(RuntimeError, match="nothing was recorded"):
        grad(slope, x)


def test_create_graph_keeps_the_first_tape():
    x = leaf(2.0)
    y = x ** 3
    slope = grad(y, x, create_graph=True)
    assert grad(y, x, retain_graph=True).item() == 12.0
    slope.backward()
    assert x.grad == 12.0


def test_create_graph_records_under_no_grad():
    x = leaf(2.0)
    y = x ** 3
    with no_grad():
        slope = grad(y, x, create_graph=True)
    assert grad(slope, x).item() == 12.0


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_higher_orders_keep_the_dtype(dtype):
    x = leaf([0.5, 1.5], dtype)
    y = (ops.layer_norm(x) * x).mean()
    for _ in range(3):
        y = grad(y.sum(), x, create_graph=True)
        assert y.dtype == dtype


# --- where a derivative is infinite or not defined, the others must not suffer ---


def hessian_rows(function, values):
    """The sums of the rows of the Hessian: by the tape, and by the static graph."""
    x = leaf(values)
    with np.errstate(divide="ignore"):
        slope = grad(function(x), x, create_graph=True)
    by_tape = grad(slope.sum(), x).data
    v = ad.Variable("x")
    (first,) = ad.gradients(function(v), [v])
    (curve,) = ad.gradients(tape.sum(first), [v])
    (by_graph,) = ad.Evaluator([curve]).run({v: np.array(values, float)})
    return by_tape, by_graph


@pytest.mark.parametrize("function, values, expected", [
    (lambda x: tape.sum((tape.sqrt(x) - np.array([0.0, 2.0])) ** 2), [0, 4], [0, 0.125]),
    (lambda x: tape.sum((tape.sqrt(x) - np.array([0.0, 2.0])) ** 3), [0, 4], [0, 0]),
    (lambda x: tape.sum(tape.sqrt(x * np.array([0.0, 1.0])) * np.array([0.0, 1.0])), [5, 4],
     [0, -1 / 32]),
    (lambda x: tape.sum(tape.where(np.array([False, True]), tape.log(x), x)), [0, 2], [0, -0.25]),
    (lambda x: tape.norm(x), [0, 0], [0, 0]),
    (lambda x: tape.sum(tape.norm(x, axis=1)), [[0, 0], [3, 4]],
     [[0, 0], [(16 - 12) / 125, (9 - 12) / 125]]),
    (lambda x: tape.std(x), [1, 1, 1], [0, 0, 0]),
    (lambda x: tape.sum((x ** 0.5 - np.array([0.0, 2.0])) ** 2), [0, 4], [0, 0.125]),
    (lambda x: tape.sum(tape.abs(x) * x), [0, 2], [0, 2])])
def test_a_hessian_beside_a_point_without_derivative(function, values, expected):
    for found in hessian_rows(function, values):
        np.testing.assert_allclose(found, expected, atol=1e-15)


def test_the_third_derivative_beside_a_point_without_derivative():
    x = leaf([0.0, 4.0])
    y = ((x.sqrt() - np.array([0.0, 2.0])) ** 2).sum()          # y'' = 2 x^(-3/2) / 2 at the second
    first = grad(y, x, create_graph=True)
    second = grad(first.sum(), x, create_graph=True)
    third = grad(second.sum(), x)
    np.testing.assert_allclose(second.data, [0, 0.125])
    np.testing.assert_allclose(third.data, [0, -1.5 * 4 ** -2.5])


@pytest.mark.parametrize("x, y, mixed", [(2.0, 0.0, 0.5), (2.0, 1.0, 1 + np.log(2)),
                                         (2.0, -1.0, (1 - np.log(2)) / 4), (0.0, 2.0, 0.0)])
def test_the_mixed_derivative_of_a_power(x, y, mixed):
    # d/dy y x^(y-1) = x^(y-1) (1 + y log x)
    for order in ((0, 1), (1, 0)):
        both = [leaf([x]), leaf([y])]
        slope = grad((both[0] ** both[1]).sum(), both[order[0]], create_graph=True)
        np.testing.assert_allclose(grad(slope.sum(), both[order[1]]).data, [mixed])


@pytest.mark.parametrize("shapes", [((3, 2), (2, 3, 2), (2, 3, 2)), ((2, 3, 2), (3, 2), (2, 3, 2)),
                                    ((2, 3, 2), (1, 3, 2), (3, 2)), ((4, 1, 2, 3), (3, 3), (2, 3, 3))])
def test_attention_with_operands_that_broadcast(shapes):
    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal(shape) for shape in shapes]
    assert tape.gradcheck(tape.causal_attention, arrays, order=2)
    nodes = [ad.Variable(name) for name in "qkv"]
    slopes = ad.gradients(tape.sum(tape.causal_attention(*nodes) ** 2), nodes)
    curves = ad.gradients(sum((tape.sum(s * s) for s in slopes[1:]), tape.sum(slopes[0] ** 2)), nodes)
    found = ad.Evaluator([*slopes, *curves]).run(dict(zip(nodes, arrays)))
    leaves = [leaf(a) for a in arrays]
    first = grad((tape.causal_attention(*leaves) ** 2).sum(), leaves, create_graph=True)
    second = grad(sum(((s * s).sum() for s in first[1:]), (first[0] ** 2).sum()), leaves)
    for a, b, x in zip(found, [*first, *second], [*arrays, *arrays]):
        assert a.shape == b.shape == x.shape
        np.testing.assert_allclose(a, b.data, rtol=1e-10, atol=1e-12)
