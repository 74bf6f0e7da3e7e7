"""Operators of users on Tensors and on nodes: names of inputs, booleans, memory, odd rules."""

import functools
import weakref

import numpy as np
import pytest

import tape
import tape.lazy as ad
from tape import Tensor
from tests.checks import reference_counting_alone

X, Y = np.array([1.0, 2.0]), np.array([3.0, 4.0])


@pytest.mark.parametrize("name", ["like", "likelihood", "like_x_", "likes"])
def test_an_input_may_be_called_like_anything(name):
    scope = {}
    exec(f"def forward(x, {name}, /): return x * {name}\n"
         f"rules = (lambda g, {name}: g * {name}), (lambda g, x: g * x)", scope)
    operator = tape.primitive(scope["forward"], *scope["rules"], name="bayes")
    x, y = ad.Variable("x"), ad.Variable("y")
    out = operator(x, y)
    values = ad.Evaluator([out, *ad.gradients(out, [x, y])]).run({x: X, y: Y})
    for value, expected in zip(values, (X * Y, Y, X), strict=True):
        np.testing.assert_array_equal(value, expected)
    node, variables = ad.trace(operator, [X, Y])
    np.testing.assert_array_equal(ad.Evaluator([node]).run(dict(zip(variables, (Y, Y))))[0], Y * Y)


def test_several_inputs_may_be_called_likelihoods():
    operator = tape.primitive(lambda *likelihoods: sum(likelihoods),
                              lambda g, likelihoods: [g for _ in likelihoods])
    x = ad.Variable("x")
    np.testing.assert_array_equal(ad.Evaluator([operator(x, x)]).run({x: X})[0], 2 * X)


def test_a_flag_may_be_an_input():
    double_if = tape.primitive(lambda x, flag, /: x * 2 if flag else x, lambda g, flag: g * 2, None)
    x = ad.Variable("x")
    np.testing.assert_array_equal(ad.Evaluator([double_if(x, True)]).run({x: X})[0], 2 * X)


def made(mask):
    return tape.primitive(lambda x, /: x * mask, lambda g, x: g * mask, name="masked")


def on_nodes(operator):
    x = ad.Variable("x")
    out = operator(x)
    return ad.Evaluator([out, *ad.gradients(out, [x])]).run({x: X})


def on_tensors(operator):
    t = Tensor(X, requires_grad=True)
    (operator(t) + operator(t)).sum().backward()
    return t.grad


@pytest.mark.parametrize("use", [lambda operator: operator(X), on_nodes, on_tensors])
def test_it_is_freed_by_reference_counting_alone(use):
    with reference_counting_alone():
        operator = made(np.ones(2))
        use(operator)
        gone = weakref.ref(operator)
        del operator
        assert gone() is None


def test_an_op_may_have_a_method_called_vjp():
    class Double(ad.Op):
        def __call__(self, a):
            return ad.Node([a], self)

        def compute(self, node, values):
            return values[0] * 2

        def vjp(self, g):
            return g * 2

        def gradient(self, node, output_grad):
            return [self.vjp(output_grad)]
    x = ad.Variable("x")
    (slope,) = ad.gradients(Double()(x), [x])
    np.testing.assert_array_equal(ad.Evaluator([slope]).run({x: X})[0], [2, 2])


def test_a_rule_without_a_place_is_named_by_its_operator():
    operator = tape.primitive(lambda x, /: x * 1, functools.partial(lambda a, g: g[:1], 0), name="cut")
    with pytest.raises(ValueError, match="The rule stands at cut$"):
        operator(Tensor(X, requires_grad=True)).sum().backward()


@pytest.mark.parametrize("pick", [lambda y: y, lambda y: y[np.array([0, 1])], lambda y: y[0:2]])
def test_a_gradient_through_rounded_integers_is_not_rounded(pick):
    rounded = tape.primitive(lambda x, /: np.round(x).astype(int), lambda g: g, name="rounded")
    t = Tensor([0.6, 1.7], requires_grad=True)
    (pick(rounded(t)) * 0.5).sum().backward()
    assert t.grad.tolist() == [0.5, 0.5]


def test_a_frozen_gradient_has_no_shape_of_the_run_in_it():
    def slope(x, y):
        return tape.grad(((x * y) ** 2).sum(), x, create_graph=True).sum(axis=1)
    node, (x, y) = ad.trace(slope, [np.ones((1, 1)), np.ones((1, 3))])
    (found,) = ad.Evaluator([node]).run({x: np.arange(5.0).reshape(5, 1), y: np.ones((5, 3))})
    np.testing.assert_array_equal(found, [0, 6, 12, 18, 24])


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.uint8])
def test_minus_a_number_is_as_weak_as_the_number(dtype):
    x = ad.Variable("x")
    (out,) = ad.Evaluator([ad.neg(-3) * x]).run({x: np.array([1, 2], dtype)})
    assert out.dtype == dtype and out.tolist() == [3, 6]


def test_what_like_is_does_not_change_the_dtype():
    x, y = ad.Variable("x"), ad.Variable("y")
    fed = {x: np.array([1, 2]), y: np.ones((3, 2), np.float32)}
    (out,) = ad.Evaluator([ad.expand_as(x, y)]).run(fed)
    assert out.dtype == np.int64


def test_attributes_of_a_user_are_not_part_of_the_formula():
    x, y = ad.Variable("x"), ad.Variable("y")
    assert ad.Node([x, y], ad.mul, {"note": 3}).name == "(x*y)"
    assert ad.Node([x], ad.power, {"exponent": 2, "note": 3}).name == "(x**2)"
