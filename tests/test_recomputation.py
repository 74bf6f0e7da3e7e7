"""`tape.checkpoint`: the same numbers as without it, and less memory."""

import tracemalloc
import weakref

import numpy as np
import pytest

import nn
import tape
import tape.lazy as ad
from tape import Tensor, checkpoint, grad, gradcheck, no_grad
from tests.checks import leaf, reference_counting_alone

RNG = np.random.default_rng(0)
X, W = RNG.normal(size=(4, 5)), RNG.normal(size=(5, 5))


def test_values_and_gradients_are_those_without_it():
    found = []
    for run in (lambda f, *args: f(*args), checkpoint):
        x, w = leaf(X), leaf(W)
        y = run(lambda x: np.tanh(x @ w) * x + w[0], x * 2)
        (y * y).sum().backward()
        found.append((y.numpy(), x.grad, w.grad))
    for plain, recomputed in zip(*found):
        np.testing.assert_array_equal(plain, recomputed)


def test_derivatives_of_second_order():
    assert gradcheck(lambda x, w: checkpoint(lambda x: np.tanh(x @ w) * x, x), [X, W], order=2)
    assert gradcheck(lambda x, w: checkpoint(lambda x, w: np.exp(x @ w / 9), x, w), [X, W], order=2)


def test_checkpoints_in_checkpoints():
    def inner(x):
        return np.sin(x)

    def outer(x):
        return checkpoint(inner, x) * x
    x = leaf(X)
    checkpoint(outer, x).sum().backward()
    np.testing.assert_allclose(x.grad, np.cos(X) * X + np.sin(X), rtol=1e-6)


def test_the_tape_keeps_the_inputs_alone():
    x = leaf(X)
    y = checkpoint(lambda x: np.exp(np.sin(np.exp(np.sin(x)))), x)
    assert "1 records" in tape.show(y)


def test_memory_of_a_deep_stack_falls():
    rng = np.random.default_rng(0)
    blocks = [nn.TransformerBlock(16, 2, rng=rng) for _ in range(12)]
    idle = Tensor(rng.standard_normal((8, 32, 16)).astype(np.float32), requires_grad=True)

    def peak(run):
        tracemalloc.start()
        x = idle
        for block in blocks:
            x = run(block, x)
        x.sum().backward()
        size = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return size
    checkpoint(blocks[0], idle)                     # what is allocated once
    assert peak(checkpoint) < 0.4 * peak(lambda f, x: f(x))


def test_it_is_freed_by_reference_counting_alone():
    for backward in (True, False):
        x = leaf(X)
        y = checkpoint(lambda x: np.exp(x @ W), x)
        kept = weakref.ref(x)
        if backward:
            y.sum().backward()
        with reference_counting_alone():
            del x, y
            assert kept() is None


def test_under_no_grad_and_without_gradients_it_is_a_call():
    with no_grad():
        assert not checkpoint(np.exp, leaf(X)).requires_grad
    out = checkpoint(np.exp, Tensor(X))
    assert not out.requires_grad
    np.testing.assert_array_equal(out.numpy(), np.exp(X))


def test_other_arguments_are_passed_on():
    x = leaf(X)
    y = checkpoint(lambda n, x, scale: n * x * scale, 3, x, Tensor(2.0))
    assert grad(y.sum(), x).numpy()[0, 0] == 6.0


def test_random_functions_are_refused():
    rng, x = np.random.default_rng(0), leaf(X)
    y = checkpoint(lambda x: tape.dropout(x, 0.5, rng), x)
    with pytest.raises(RuntimeError, match="computed something else.*random numbers"):
        y.sum().backward()


def test_results_from_outside_must_be_arguments():
    x = leaf(X)
    h = x * 2
    with pytest.raises(ValueError, match=r"uses a result of mul, shape \(4, 5\), that is not among"):
        checkpoint(lambda x: x * h, x)
    with pytest.raises(ValueError, match="uses a result of mul"):
        checkpoint(lambda: np.exp(h))
    with pytest.raises(TypeError, match="must return one Tensor, got tuple"):
        checkpoint(lambda x: (x, x), x)


@pytest.mark.parametrize("argument", [lambda w: 3 * w, lambda w: w, lambda w: checkpoint(np.sin, w)])
def test_a_leaf_that_lies_behind_an_argument_too_is_counted_once(argument):
    def twice(run):
        w = leaf(W)
        y = run(lambda a: a * w, argument(w))
        first = grad(y.sum(), w, create_graph=True)
        return first.numpy(), grad((first * first).sum(), w).numpy()
    for found, wanted in zip(twice(checkpoint), twice(lambda f, a: f(a))):
        np.testing.assert_allclose(found, wanted, rtol=1e-12)


def test_a_layer_that_is_applied_three_times_has_its_gradients_with_create_graph():
    layer, x = nn.Linear(5, 5, rng=0), leaf(X.astype(np.float32))

    def first(run):
        h = x
        for _ in range(3):
            h = run(layer, h)
        return grad((h * h).sum(), layer.weight, create_graph=True).numpy()
    np.testing.assert_allclose(first(checkpoint), first(lambda f, h: f(h)), rtol=1e-5)


def test_a_trace_contains_the_steps_of_the_function():
    def f(x):
        return checkpoint(lambda x: np.sum(np.sin(x) * x), x)
    node, (x,) = ad.trace(f, [np.array([1.0, 2.0])])
    value, slope = ad.Evaluator([node, *ad.gradients(node, [x])]).run({x: np.array([5.0, 6.0])})
    np.testing.assert_allclose(value, 5 * np.sin(5) + 6 * np.sin(6))
    np.testing.assert_allclose(slope, [np.sin(v) + v * np.cos(v) for v in (5, 6)])


def test_another_array_in_a_tensor_is_noticed_too():
    w, batch = leaf(np.zeros(3)), Tensor(np.array([1.0, 2.0, 3.0]))
    y = checkpoint(lambda w, a: (w * a).sum(), w, batch)
    batch.data = np.full(3, 100.0)
    with pytest.raises(RuntimeError, match="was changed in place"):
        y.backward()


def test_arguments_of_other_kinds_and_repeated_elements_take_no_time():
    x, mask = leaf(X), np.broadcast_to(np.ones((1, 1, 1, 1000)), (64, 64, 1000, 1000))
    y = checkpoint(lambda x, mask, days: x * mask[0, 0, 0, 0], x, mask, np.zeros(9999, "datetime64[D]"))
    y.sum().backward()                               # of 32 GB, were it copied
    np.testing.assert_array_equal(x.grad, np.ones_like(X))


def test_several_results_are_refused_without_arguments_too():
    x = leaf(X)
    with pytest.raises(TypeError, match="must return one Tensor, got tuple"):
        checkpoint(lambda: (x * 2, x))


@pytest.mark.parametrize("wrap", [np.asarray, Tensor])
def test_an_argument_that_is_changed_is_noticed_where_the_result_is_not(wrap):
    w, batch = leaf(np.zeros(3)), wrap(np.array([1.0, 2.0, 3.0]))
    y = checkpoint(lambda w, a: (w * a).sum(), w, batch)
    memory = batch.data if isinstance(batch, Tensor) else batch
    memory[:] = 100
    with pytest.raises(RuntimeError, match=r"an argument, of shape \(3,\), was changed in place"):
        y.backward()


@pytest.mark.parametrize("constant", [lambda a: a.detach() * 2, lambda a: np.sign(a) * 2,
                                      no_grad()(lambda a: a * 2)])
def test_a_result_that_does_not_depend_on_the_arguments_is_a_constant(constant):
    w = leaf(np.array([1.0, 2.0]))
    (checkpoint(constant, w) * w).sum().backward()
    np.testing.assert_array_equal(w.grad, constant(w).data)


def test_a_leaf_as_the_result_gets_its_gradient():
    w, z = leaf(np.ones(2)), leaf(np.ones(2))
    checkpoint(lambda a: z, w).sum().backward()
    np.testing.assert_array_equal(z.grad, [1, 1])
    assert w.grad is None


def test_a_function_of_arrays_alone_is_called():
    np.testing.assert_array_equal(checkpoint(lambda a: a * 2, np.ones(2)), [2, 2])
