"""`tape.grad`: gradients as values, of any results, by any inputs."""

import numpy as np
import pytest

from tape import Tensor, grad
from tests.checks import counted, leaf


def test_grad_leaves_every_grad_untouched():
    x = leaf([1.0, 2.0])
    middle = (x * 2).retain_grad()
    x.grad = np.array([5.0, 5.0])
    before = x.grad
    for create_graph in (False, True):
        grad((middle * middle).sum(), x, create_graph=create_graph, retain_graph=True)
    assert x.grad is before and before.tolist() == [5, 5]
    assert middle.grad is None


def test_grad_of_intermediate_results():
    x = leaf(2.0)
    y = x * x
    z = y * y * x
    dz_dy, dz_dx = grad(z, [y, x], retain_graph=True)
    assert dz_dy.item() == 2 * 4 * 2
    assert dz_dx.item() == 5 * 2 ** 4
    assert grad(z, z, retain_graph=True).item() == 1.0
    assert grad(z, y).item() == 16.0


def test_grad_stops_at_its_targets():
    operator, calls = counted()
    x = leaf(2.0)
    y = operator(x)
    z = y * y
    assert grad(z, y, retain_graph=True).item() == 4.0
    assert not calls
    w = leaf(3.0)
    assert grad(operator(x) * w, w).item() == 2.0
    assert not calls


def test_grad_returns_as_the_inputs_were_given():
    x, y = leaf([1.0, 2.0]), leaf([3.0, 4.0])
    assert isinstance(grad((x * y).sum(), x), Tensor)
    pair = grad((x * y).sum(), [x, y])
    assert isinstance(pair, tuple) and len(pair) == 2
    assert not pair[0].requires_grad


def test_grad_of_several_outputs_is_of_their_sum():
    x = leaf(2.0)
    a, b = x * x, x * 3
    assert grad([a, b], x, retain_graph=True).item() == 7.0
    assert grad([a, b], x, [2.0, 10.0], retain_graph=True).item() == 38.0
    assert grad([a, a], x, retain_graph=True).item() == 8.0
    assert grad([a, a * a, x], x).item() == 4 + 32 + 1


def test_an_unconnected_input():
    x, other = leaf(2.0), leaf([1.0, 2.0])
    for create_graph in (False, True):
        with pytest.raises(RuntimeError, match=r"grad: input 1, shape \(2,\), plays no part"):
            grad(x * x, [x, other], create_graph=create_graph)
        dx, none = grad(x * x, [x, other], create_graph=create_graph, allow_unused=True)
        assert dx.item() == 4.0 and none is None


@pytest.mark.parametrize("outputs, inputs, error, message", [
    (lambda x: x * x, lambda x: x.detach(), RuntimeError, "does not require a gradient"),
    (lambda x: x.detach(), lambda x: x, RuntimeError, "grad: nothing was recorded"),
    (lambda x: 3.0, lambda x: x, TypeError, "outputs"),
    (lambda x: x * x, lambda x: [x, 2.0], TypeError, "inputs must be Tensors; number 1 is a float"),
])
def test_wrong_arguments_of_grad(outputs, inputs, error, message):
    x = leaf(2.0)
    with pytest.raises(error, match=message):
        grad(outputs(x), inputs(x))


def test_one_cotangent_for_each_output():
    x = leaf([1.0, 2.0])
    with pytest.raises(ValueError, match="one of grad_outputs for each output; got 1 for 2"):
        grad([x * 1, x * 2], x, [np.ones(2)])
    np.testing.assert_array_equal(grad(x * 3, x, [1, 2]).data, [3, 6])
    np.testing.assert_array_equal(grad(x * 3, x, np.array([1, 2])).data, [3, 6])


def test_gradients_of_grad_are_arrays_of_their_own():
    x = leaf([1.0, 2.0])
    upstream = np.ones(2)
    y = x + 0.0
    (g,) = grad(y, [x], upstream)
    assert not np.shares_memory(g.data, upstream)
    a, b = grad((x * x).sum(), [x, x])
    assert not np.shares_memory(a.data, b.data)
