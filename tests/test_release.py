"""What the tape holds and when it lets go: memory, `.grad` of results, what a failed walk leaves."""

import warnings
import weakref

import numpy as np
import pytest

import tape
from tape import Tensor, grad, ops
from tests.checks import leaf, reference_counting_alone


# --- what is freed ---


def test_reference_counting_alone_frees_a_training_step():
    with reference_counting_alone():
        w = leaf(np.ones((3, 3)))
        refs = []
        for _ in range(3):
            x = Tensor(np.ones((2, 3)))
            h = (x @ w).tanh()
            loss = ops.cross_entropy(ops.layer_norm(h), [0, 1])
            refs += [weakref.ref(t) for t in (h, loss)]
            refs += [weakref.ref(t._record) for t in (h, loss)]
            loss.backward()
            grad((h.detach() @ w).sum(), w, create_graph=True)
        del x, h, loss
        assert [r() for r in refs] == [None] * len(refs)


def test_an_error_in_a_rule_leaves_nothing_behind():
    def broken(g):
        raise ValueError("broken")
    operator = tape.primitive(lambda x, /: x * 1.0, broken)
    with reference_counting_alone():
        y = operator(leaf([1.0]))
        record = weakref.ref(y._record)
        with pytest.raises(ValueError, match="broken"):
            y.backward([1.0])
        del y
        assert record() is None


def test_a_kept_loss_costs_one_scalar():
    x = leaf(np.ones(1000))
    y = x * 2
    saved = weakref.ref((y * y)._record)      # dies at once: nothing holds it
    loss = (y * y).sum()
    middle = weakref.ref(y._record)
    del y
    assert saved() is None and middle() is not None
    loss.backward()
    assert middle() is None
    assert loss.item() == 4000


def test_memory_falls_during_the_walk():
    alive, arrays = [], []

    def count(g):
        alive.append(sum(ref() is not None for ref in arrays))
        return g
    spy = tape.primitive(lambda x, /: x * 1.0, count)
    x = leaf(np.ones(10))
    y = x
    for _ in range(20):
        y = spy(y).tanh()         # tanh keeps its result
        arrays.append(weakref.ref(y._data))
    loss = y.sum()
    del y
    loss.backward()
    # When the walk calls a rule, what the records after it kept is gone.
    assert alive == list(range(19, -1, -1))
    assert all(ref() is None for ref in arrays)


def test_gradients_of_intermediate_results_fall_too():
    alive, gradients = [], []

    def watch(g):
        alive.append(sum(ref() is not None for ref in gradients))
        fresh = g * 1.0
        gradients.append(weakref.ref(fresh))
        return fresh
    spy = tape.primitive(lambda x, /: x * 1.0, watch)
    y = x = leaf(np.ones(3))
    for _ in range(20):
        y = spy(y)
    y.backward(np.ones(3))
    assert max(alive) <= 2
    np.testing.assert_array_equal(x.grad, [1, 1, 1])


# --- .grad of what is not a leaf ---


def test_the_gradient_of_an_intermediate_result_is_none_with_a_hint():
    x = leaf(2.0)
    y = x * x
    (y * y).backward()
    with pytest.warns(UserWarning, match=r"result of mul. Call t.retain_grad\(\) before") as caught:
        assert y.grad is None
    assert caught[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert x.grad == 32 and leaf(1.0).grad is None


def test_retain_grad():
    x = leaf([1.0, 2.0])
    y = x * x
    assert y.retain_grad() is y
    (y * y).sum().backward()
    np.testing.assert_array_equal(y.grad, [2, 8])
    np.testing.assert_array_equal(x.grad, [4, 32])
    assert not np.shares_memory(y.grad, x.grad)
    assert x.retain_grad() is x


def test_retain_grad_of_the_loss_itself_and_of_a_shared_result():
    x = leaf(3.0)
    y = (x + 0).retain_grad()
    z = (y * y + y).retain_grad()
    z.backward(retain_graph=True)
    assert (z.grad, y.grad, x.grad) == (1, 7, 7)
    z.backward()
    assert (z.grad, y.grad, x.grad) == (2, 14, 14)


def test_a_retaining_tensor_may_be_gone_by_the_time_of_the_walk():
    x = leaf(3.0)
    z = (x * x).retain_grad() * 2
    z.backward()
    assert x.grad == 12


# --- what a record does not keep, and what a failed walk does not leave ---


@pytest.mark.parametrize("use", [lambda w, c: w + c, lambda w, c: c - w, lambda w, c: w.sum() + c,
                                 lambda w, c: ops.concatenate([w, c]), lambda w, c: ops.stack([c, w]),
                                 lambda w, c: w / c.sum() + c])
def test_a_constant_that_no_rule_names_is_let_go(use):
    w = leaf(np.ones(100))
    for make in (lambda: np.ones(100), lambda: Tensor(np.ones(100))):
        with reference_counting_alone():
            big = make()
            alive = weakref.ref(big)
            out = use(w, big)
            assert out.requires_grad
            del big
            assert alive() is None


def test_a_failed_walk_leaves_no_gradient_behind():
    calls = []

    def fails_once(g):
        calls.append(g)
        if len(calls) == 1:
            raise RuntimeError("not today")
        return g
    flaky = tape.primitive(lambda x: x * 1, fails_once, name="flaky")
    x = leaf([1.0, 2.0])
    h = flaky(x * 2).retain_grad()
    top = (h * 3).retain_grad()
    with pytest.raises(RuntimeError, match="not today"):
        top.sum().backward(retain_graph=True)
    assert top.grad is None and h._grad is None and x.grad is None
    top.sum().backward()
    assert len(calls) == 2
    np.testing.assert_array_equal(top.grad, [1, 1])
    np.testing.assert_array_equal(h.grad, [3, 3])
    np.testing.assert_array_equal(x.grad, [6, 6])
