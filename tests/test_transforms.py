"""Derivatives of functions: grad(f), value_and_grad, jacobian, hessian, vjp and their like."""

import warnings

import numpy as np
import pytest

import tape
from tape import (
    Tensor, elementwise_grad, grad, hessian, hvp, jacobian, jvp, no_grad, value_and_grad, vjp)
from tests.checks import leaf, peer

X = np.array([0.3, -1.2, 2.0])
MATRIX = np.array([[1.0, 2.0, -1.0], [0.5, 0.0, 3.0]])


def rosenbrock(x):
    return 100 * (x[1] - x[0] ** 2) ** 2 + (1 - x[0]) ** 2


def rosenbrock_hessian(x):
    return np.array([[1200 * x[0] ** 2 - 400 * x[1] + 2, -400 * x[0]], [-400 * x[0], 200]])


def vector(x):
    """R^3 -> R^2, not linear."""
    return np.tanh(MATRIX @ x) * x[0]


def vector_jacobian(x):
    t = np.tanh(MATRIX @ x)
    return (1 - t * t)[:, None] * MATRIX * x[0] + np.outer(t, [1, 0, 0])


# --- values ---

def test_the_gradient_of_a_function_is_an_array_of_the_arguments_shape_and_dtype():
    slope = grad(lambda x: np.sum(x ** 3))(X)
    assert type(slope) is np.ndarray and slope.dtype == np.float64
    np.testing.assert_allclose(slope, 3 * X ** 2, rtol=1e-14)
    assert grad(lambda x: np.sum(x ** 3))(X.astype(np.float32)).dtype == np.float32


def test_a_python_number_counts_as_float64():
    slope = grad(np.tanh)(0.5)
    assert isinstance(slope, np.float64)
    np.testing.assert_allclose(slope, 1 - np.tanh(0.5) ** 2, rtol=1e-15)
    assert grad(lambda x: x ** 2)(3) == 6.0


def test_derivatives_of_derivatives():
    f = np.sin
    for expected in (np.cos(0.7), -np.sin(0.7), -np.cos(0.7), np.sin(0.7)):
        f = grad(f)
        np.testing.assert_allclose(f(0.7), expected, rtol=1e-14)


def test_of_two_nested_derivatives_each_knows_its_own_variable():
    assert grad(lambda x: x * grad(lambda y: x + y)(1.0))(5.0) == 1.0
    assert grad(lambda x: x * grad(lambda y: x * y)(1.0))(5.0) == 10.0
    assert grad(lambda x: grad(lambda y: x * x * y * y)(3.0))(5.0) == 60.0


def test_what_is_given_arrays_returns_arrays_whatever_derivatives_it_takes_inside():
    def product(x, w):
        return np.sum(x * x * w)
    mixed = [lambda w: grad(product)(X, w), lambda w: grad(lambda x: product(x, w))(X),
             lambda w: vjp(lambda x: x * x * w, X)[1](np.ones(3))[0],
             lambda w: jvp(lambda x: x * x * w, X, np.ones(3))[1],
             lambda w: hvp(lambda x: product(x, w), X, X)]
    for derivative in mixed:
        found = jacobian(derivative)(np.ones(3))
        assert type(found) is np.ndarray
        np.testing.assert_allclose(found, np.diag(2 * X))


def test_what_is_recorded_inside_ends_with_the_outermost():
    """A mixed derivative of arrays is an array: the inner variable is nobody's any more."""
    def f(x, y):
        return np.sum(x ** 2 * np.sin(y))
    x, y = X, X[::-1].copy()
    mixed = jacobian(jacobian(f, 0), 1)(x, y)
    assert type(mixed) is np.ndarray
    np.testing.assert_allclose(mixed, np.diag(2 * x * np.cos(y)), rtol=1e-14)
    for found in (jacobian(grad(f, 0), 1)(x, y), grad(lambda x: np.sum(grad(f, 1)(x, y)))(x),
                  hvp(lambda x: np.sum(grad(f, 1)(x, y)), x, x), vjp(grad(f, 0), x, y)[0],
                  vjp(grad(f, 0), x, y)[1](x)[1], jvp(lambda x: vjp(f, x, y)[1](1.0)[1], x, x)[1]):
        assert type(found) is np.ndarray
    assert isinstance(grad(lambda x: x * grad(lambda y: x * y)(1.0))(5.0), np.float64)


def test_argnum_chooses_the_arguments():
    def f(x, y, power=1):
        return np.sum(x * y ** power)
    assert grad(f, 1)(2.0, 3.0) == 2.0
    assert grad(f, argnum=1)(2.0, 3.0, power=2) == 12.0
    assert grad(f, (0, 1))(2.0, 3.0) == (3.0, 2.0)
    assert grad(f, -1)(2.0, 3.0) == 2.0


def test_arguments_may_be_containers_and_so_are_their_derivatives():
    def loss(parameters, x):
        (w, b), scale = parameters["layer"], parameters["scale"]
        return np.sum(np.tanh(x @ w + b)) * scale
    parameters = {"layer": [(np.ones((3, 2))), np.zeros(2)], "scale": 2.0}
    found = grad(loss)(parameters, X)
    assert list(found) == ["layer", "scale"] and isinstance(found["layer"], list)
    t = np.tanh(np.full(2, X.sum()))
    np.testing.assert_allclose(found["layer"][0], np.outer(X, 2 * (1 - t * t)), rtol=1e-14)
    np.testing.assert_allclose(found["layer"][1], 2 * (1 - t * t), rtol=1e-14)
    np.testing.assert_allclose(found["scale"], t.sum(), rtol=1e-14)


def test_value_and_grad_runs_the_function_once():
    calls = []

    def f(x):
        calls.append(x)
        return np.sum(x * x)
    value, slope = value_and_grad(f)(X)
    assert len(calls) == 1 and isinstance(value, np.float64)
    np.testing.assert_allclose(value, (X * X).sum(), rtol=1e-15)
    np.testing.assert_allclose(slope, 2 * X, rtol=1e-15)


def test_elementwise_grad():
    np.testing.assert_allclose(elementwise_grad(np.tanh)(X), 1 - np.tanh(X) ** 2, rtol=1e-14)
    second = elementwise_grad(elementwise_grad(np.exp))(X)
    np.testing.assert_allclose(second, np.exp(X), rtol=1e-14)


def test_jacobian():
    np.testing.assert_allclose(jacobian(vector)(X), vector_jacobian(X), rtol=1e-13)
    assert jacobian(lambda x: np.sum(x))(X).shape == (3,)
    assert jacobian(lambda x: x[:, None] * x)(X).shape == (3, 3, 3)
    assert jacobian(lambda x: x[:0])(X).shape == (0, 3)
    by_w, by_x = jacobian(lambda w, x: w @ x, (0, 1))(MATRIX, X)
    assert by_w.shape == (2, 2, 3) and by_x.tolist() == MATRIX.tolist()
    np.testing.assert_array_equal(by_w[0], [X, np.zeros(3)])


def test_hessian():
    x = np.array([1.2, -0.7])
    np.testing.assert_allclose(hessian(rosenbrock)(x), rosenbrock_hessian(x), rtol=1e-13)
    np.testing.assert_allclose(jacobian(jacobian(rosenbrock))(x), rosenbrock_hessian(x), rtol=1e-13)
    np.testing.assert_allclose(hessian(lambda a, x: a * np.sum(x ** 2), 1)(3.0, x), 6 * np.eye(2))


def test_products_with_the_matrices():
    v, g = np.array([1.0, -2.0, 0.5]), np.array([2.0, 3.0])
    J = vector_jacobian(X)
    value, slope = jvp(vector, (X,), (v,))
    np.testing.assert_allclose(value, vector(X), rtol=1e-14)
    np.testing.assert_allclose(slope, J @ v, rtol=1e-13)
    np.testing.assert_allclose(jvp(vector, X, v)[1], slope)
    value, pull = vjp(vector, X)
    np.testing.assert_allclose(value, vector(X), rtol=1e-14)
    for _ in range(2):
        np.testing.assert_allclose(pull(g)[0], g @ J, rtol=1e-13)
    x, w = np.array([1.2, -0.7]), np.array([0.3, 2.0])
    np.testing.assert_allclose(hvp(rosenbrock, x, w), rosenbrock_hessian(x) @ w, rtol=1e-13)


def test_products_with_several_arguments():
    def f(x, y):
        return np.sum(x ** 2 * y)
    x, y, u, v = (np.array(a) for a in ([1.0, 2.0], [3.0, 4.0], [1.0, 0.0], [0.0, 1.0]))
    assert jvp(f, (x, y), (u, v))[1] == 2 * 3 + 4
    assert [a.tolist() for a in vjp(f, x, y)[1](2.0)] == [[12, 32], [2, 8]]
    by_x, by_y = hvp(f, (x, y), (u, v))           # H = [[2 y, 2 x], [2 x, 0]], a block an argument
    assert by_x.tolist() == [6.0, 4.0] and by_y.tolist() == [2.0, 0.0]


def test_products_are_differentiated_by_their_vectors_too():
    """g . J^T g, v . J v and v . H v, by g and v, where the matrices are diagonal."""
    a, v = np.array([1.0, 2.0, 3.0]), np.array([1.0, -1.0, 2.0])
    square, cube = (lambda x: x ** 2), (lambda x: np.sum(x ** 3))
    pull = vjp(square, a)[1]
    for product, diagonal in [(lambda u: pull(u)[0], 2 * a), (lambda u: jvp(square, a, u)[1], 2 * a),
                              (lambda u: hvp(cube, a, u), 6 * a)]:
        np.testing.assert_allclose(grad(lambda u: np.sum(product(u) * u))(v), 2 * diagonal * v)
        np.testing.assert_allclose(grad(lambda u: np.sum(product(u)))(v), diagonal)
        assert isinstance(product(v), np.ndarray)
        with tape.no_grad():
            assert isinstance(product(leaf(v)), np.ndarray)


def test_the_keys_of_a_tangent_may_stand_in_another_order():
    primal, tangent = {"a": 3.0, "b": 2.0}, {"b": 0.0, "a": 1.0}
    assert jvp(lambda p: p["a"] * p["b"] ** 2, primal, tangent)[1] == 4
    assert hvp(lambda p: p["a"] ** 2 * p["b"], primal, tangent) == {"a": 4, "b": 6}
    for other in ({"a": 1.0}, {"a": 1.0, "c": 0.0}, [1.0, 0.0], 1.0):
        with pytest.raises(ValueError, match="built like the primals: a dict must have the keys"):
            jvp(lambda p: p["a"] * p["b"], primal, other)
    with pytest.raises(ValueError, match="a list must have 2 items"):
        jvp(lambda p: p[0] * p[1], [1.0, 2.0], [1.0])


def test_matrices_of_a_function_of_one_number():
    assert jacobian(lambda x: x ** 3)(2.0) == 12 and hessian(lambda x: x ** 3)(2.0) == 12


def test_what_is_constant_or_linear_has_derivatives_of_zero():
    assert grad(grad(lambda x: 3 * x))(2.0) == 0.0
    assert hvp(lambda x: np.sum(3 * x), X, X).tolist() == [0, 0, 0]
    assert hessian(lambda x: np.sum(x))(X).tolist() == np.zeros((3, 3)).tolist()
    assert jacobian(lambda x, y: y, 0)(X, Tensor(X)).tolist() == np.zeros((3, 3)).tolist()
    assert grad(lambda x, y: np.sum(y), (0, 1))(X, X)[0].tolist() == [0, 0, 0]


def test_an_infinite_derivative_does_not_reach_a_direction_that_avoids_it():
    _, slope = jvp(np.sqrt, np.array([0.0, 4.0]), np.array([0.0, 1.0]))
    assert slope.tolist() == [0.0, 0.25]


# --- with Tensors around ---

def test_a_derivative_that_depends_on_parameters_is_recorded():
    w = leaf([0.5, -1.0])
    slope = grad(lambda x: np.sum(np.tanh(w * x)))(np.array([1.0, 2.0]))
    assert isinstance(slope, Tensor) and slope.requires_grad
    (slope ** 2).sum().backward()                  # d/dw of (w (1 - tanh(w x)^2))^2
    x, v = np.array([1.0, 2.0]), np.array([0.5, -1.0])
    t = np.tanh(v * x)
    np.testing.assert_allclose(
        w.grad, 2 * v * (1 - t * t) * ((1 - t * t) - 2 * v * t * (1 - t * t) * x), rtol=1e-6)


def test_an_argument_may_be_a_tensor_that_wants_a_gradient():
    x = leaf(X)
    slope = grad(lambda x: np.sum(x ** 3))(x)
    assert x.grad is None
    slope.sum().backward()
    np.testing.assert_allclose(x.grad, 6 * X, rtol=1e-6)
    same = grad(lambda y: np.sum(x * y))(x)        # only by its own argument
    np.testing.assert_allclose(same.numpy(), X, rtol=1e-6)


def test_under_no_grad_the_derivative_is_an_array():
    x = leaf(X)
    with no_grad():
        slope = grad(lambda x: np.sum(x ** 3))(x)
    assert type(slope) is np.ndarray
    np.testing.assert_allclose(slope, 3 * X ** 2, rtol=1e-6)


def test_models_and_transforms():
    import nn
    model = nn.Linear(3, 2, rng=0)
    J = jacobian(model)(X.astype(np.float32))
    np.testing.assert_allclose(J.numpy(), model.weight.data.T)
    for p in model.parameters():
        p.requires_grad = False
    assert type(jacobian(model)(X.astype(np.float32))) is np.ndarray


# --- mistakes ---

def test_mistakes_are_explained():
    with pytest.raises(ValueError, match=r"one number, got shape \(3,\).*jacobian.*elementwise_grad"):
        grad(lambda x: x * 2)(X)
    with pytest.raises(TypeError, match="argnum 2 counts the positional arguments.*has 1"):
        grad(np.sum, 2)(X)
    with pytest.raises(TypeError, match="real numbers, got str"):
        grad(lambda x: x)("abc")
    with pytest.raises(TypeError, match="real numbers.*complex128"):
        grad(lambda x: x)(1j)
    with pytest.raises(TypeError, match="must return one array or number, got tuple"):
        grad(lambda x: (x, x))(1.0)
    with pytest.raises(TypeError, match="argnum alone"):
        grad(np.sum, create_graph=True)
    with pytest.raises(TypeError, match="hessian: needs the derivatives by one array.*hvp"):
        hessian(lambda p: p[0] * p[1])([1.0, 2.0])
    with pytest.raises(ValueError, match=r"jvp: each tangent must have the shape.*\(3,\).*\(2,\)"):
        jvp(vector, (X,), (X[:2],))
    with pytest.raises(ValueError, match="hvp: the function must return one number"):
        hvp(vector, X, X)


def test_an_argument_is_named_once():
    with pytest.raises(TypeError, match="argnum must name each argument once"):
        grad(lambda x, y: x * y, (0, -2))(1.0, 2.0)


def test_a_lost_derivative_is_announced():
    with pytest.warns(UserWarning, match="plain float64, so its derivative is zero"):
        assert grad(lambda x: x.data.sum())(X).tolist() == [0, 0, 0]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        grad(lambda x: np.sum(x))(X)


@pytest.mark.parametrize("transform", [grad, value_and_grad, elementwise_grad, jacobian, hessian])
def test_the_announcement_names_the_callers_line(transform):
    with pytest.warns(UserWarning, match="derivative is zero") as found:
        transform(lambda x: 1.0)(X)
    assert found[0].filename == __file__


# --- an independent engine ---

@pytest.mark.parametrize("function", [
    lambda np, x: np.sum(np.sin(x) * np.exp(-x * x)),
    lambda np, x: np.sum(np.log(1 + np.exp(x))) ** 2,
    lambda np, x: np.max(x) * np.sum(x[::-1] * x) / (1 + np.sqrt(np.dot(x, x))),
])
def test_the_same_functions_in_autograd(function):
    anp, autograd = peer("autograd.numpy"), peer("autograd")

    def theirs(x):
        return function(anp, x)

    def ours(x):
        return function(np, x)
    np.testing.assert_allclose(grad(ours)(X), autograd.grad(theirs)(X), rtol=1e-12)
    np.testing.assert_allclose(hessian(ours)(X), autograd.hessian(theirs)(X), rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(hvp(ours, X, X + 1), autograd.hessian(theirs)(X) @ (X + 1), rtol=1e-10)
    np.testing.assert_allclose(
        jacobian(elementwise_grad(ours))(X), autograd.jacobian(autograd.elementwise_grad(theirs))(X),
        rtol=1e-10, atol=1e-12)


def test_public_names():
    for name in ("elementwise_grad", "hessian", "hvp", "jacobian", "jvp", "value_and_grad", "vjp"):
        assert name in tape.__all__
