"""The tape and the walk: graphs of many shapes, `backward` once and twice, sums of gradients.

What is freed and when is in test_release.py, picks of elements in test_picks.py, `grad` in
test_grad.py, what may be changed between forward and backward in test_mutation.py,
recording on and off in test_modes.py, derivatives of derivatives in test_higher_order.py.
"""

import weakref

import numpy as np
import pytest

import tape
from tape import Tensor, grad
from tests.checks import counted, leaf, reference_counting_alone


# --- shapes of graphs ---


def chain(x, length):
    for _ in range(length):
        x = x + 1.0
    return x


def test_a_chain_of_a_hundred_thousand_is_walked_and_freed():
    with reference_counting_alone():
        x = leaf(0.0)
        y = chain(x, 100_000)
        first = weakref.ref(y._record)
        y.backward()
        assert x.grad == 1.0 and y.item() == 100_000
        del y
        assert first() is None


@pytest.mark.parametrize("join", [lambda y: y, lambda y: y * y], ids=["chain", "diamond"])
def test_a_deep_tape_that_was_never_walked_is_freed_without_recursion(join):
    with reference_counting_alone():
        x = leaf(0.0)
        start = x * 2.0
        record = weakref.ref(start._record)
        y = join(chain(start, 100_000))
        del start
        assert record() is not None
        del y
        assert record() is None


def test_a_deep_tape_is_shown_and_differentiated_by_grad():
    x = leaf(0.0)
    y = chain(x, 30_000)
    assert tape.show(y).endswith("30000 records, 0 bytes kept")
    assert repr(y) == "Tensor(30000., dtype=float64, from=add)"
    assert grad(y, x, create_graph=True).item() == 1.0


def test_the_order_of_the_walk():
    # Depth first, b's gradient would go back before its second half had arrived.
    a = leaf(1.0)
    b = a + a
    c = b + b
    c.backward()
    assert a.grad == 4.0


def test_doubling_many_times_calls_each_rule_once():
    # 2^60 paths: a walk that follows paths rather than records never ends.
    x = leaf(1.0)
    y, operators = x, []
    for _ in range(60):
        operator, calls = counted()
        operators.append(calls)
        y = operator(y)
        y = y + y
    y.backward()
    assert x.grad == 2.0 ** 60
    assert [len(calls) for calls in operators] == [1] * 60


def test_a_diamond():
    x = leaf(3.0)
    operator, calls = counted()
    top = operator(x * x)
    (top.exp() * 0 + top * 2 + top * top).backward()
    assert len(calls) == 1
    assert x.grad == (2 + 2 * 9) * 6


def test_fan_out():
    x = leaf([1.0, 2.0])
    total = sum(x * float(i) for i in range(1000))
    total.sum().backward()
    np.testing.assert_array_equal(x.grad, [499_500, 499_500])


def test_an_unused_branch_is_neither_called_nor_released():
    x = leaf(2.0)
    operator, calls = counted()
    shared = x * x
    unused = operator(shared)
    used = shared * 3
    used.backward(retain_graph=True)
    assert x.grad == 12.0 and not calls
    unused.backward()
    assert x.grad == 16.0 and len(calls) == 1


def test_a_constant_loss_is_refused():
    with pytest.raises(RuntimeError, match="backward: nothing was recorded"):
        Tensor(2.0).backward()
    with pytest.raises(RuntimeError, match="nothing was recorded"):
        (leaf(2.0).detach() * 3).backward()


def test_a_loss_that_is_a_leaf():
    x = leaf(2.0)
    x.backward()
    x.backward(3.0)
    assert x.grad == 4.0


def test_a_loss_of_several_elements_is_refused_without_a_gradient():
    x = leaf([1.0, 2.0])
    with pytest.raises(ValueError, match=r"backward: .*shape \(2,\).*t.sum\(\)"):
        (x * 2).backward()
    with pytest.raises(ValueError, match=r"backward: gradient must have .* \(2,\), got \(3,\)"):
        (x * 2).backward([1.0, 2.0, 3.0])
    (x.sum().reshape(1, 1) * 2).backward()
    np.testing.assert_array_equal(x.grad, [2, 2])


def test_a_gradient_may_be_a_tensor_a_list_or_a_number():
    x = leaf([1.0, 2.0])
    y = x * 2
    for gradient in ([1, 2], np.array([1, 2]), Tensor([1.0, 2.0]), leaf([1.0, 2.0])):
        y.backward(gradient, retain_graph=True)
    np.testing.assert_array_equal(x.grad, [8, 16])
    assert x.grad.dtype == np.float64


# --- twice ---


def test_backward_twice_with_a_retained_graph():
    x = leaf(3.0)
    y = x * x * x
    y.backward(retain_graph=True)
    assert x.grad == 27.0
    x.grad = None
    y.backward(retain_graph=True)
    assert x.grad == 27.0
    y.backward()
    assert x.grad == 54.0


def test_backward_twice_without_is_refused_in_words():
    x = leaf(3.0)
    y = x * x * x
    y.backward()
    with pytest.raises(RuntimeError) as caught:
        y.backward()
    for word in ("detach()", "retain_graph=True", "mul", "record_lines"):
        assert word in str(caught.value)
    assert str(caught.value).index("detach()") < str(caught.value).index("retain_graph=True")
    assert x.grad == 27.0


def test_a_value_carried_over_from_the_last_step_is_refused_and_detach_mends_it():
    w = leaf(2.0)
    with tape.record_lines():
        carried = w * 1.0
    carried.backward()
    with pytest.raises(RuntimeError, match=r"mul.* recorded at .*test_engine.py:\d+.*detach\(\)"):
        (carried * w).backward()
    w.grad = None
    (carried.detach() * w).backward()
    assert w.grad == 2.0


def test_grad_releases_too_and_says_so():
    x = leaf(3.0)
    y = x * x
    grad(y, x)
    with pytest.raises(RuntimeError, match="released"):
        grad(y, x)


# --- accumulation and ownership ---


def test_gradients_add_up_in_fresh_arrays():
    x = leaf([1.0, 2.0])
    (x * x).sum().backward()
    first = x.grad
    (x * x).sum().backward()
    np.testing.assert_array_equal(first, [2, 4])
    np.testing.assert_array_equal(x.grad, [4, 8])
    assert not np.shares_memory(first, x.grad)


@pytest.mark.parametrize("uses", [1, 2, 3])
def test_a_rule_may_return_an_array_of_its_own(uses):
    # Rule 5: what a rule returns may alias anything, here an array that the rule keeps for ever.
    constant = np.ones(2)
    operator = tape.primitive(lambda x, /: x * 1.0, lambda g: constant, name="constant_slope")
    x = leaf([1.0, 2.0])
    sum(operator(x) for _ in range(uses)).sum().backward()
    np.testing.assert_array_equal(x.grad, [uses, uses])
    np.testing.assert_array_equal(constant, [1, 1])
    assert not np.shares_memory(x.grad, constant)


def test_two_rules_that_return_one_array():
    shared = np.full(2, 3.0)
    operator = tape.primitive(lambda x, y, /: x + y, lambda g: shared, lambda g: shared)
    x, y = leaf([1.0, 2.0]), leaf([1.0, 2.0])
    (operator(x, y) + operator(x, y)).sum().backward()
    np.testing.assert_array_equal(x.grad, [6, 6])
    np.testing.assert_array_equal(y.grad, [6, 6])
    assert not np.shares_memory(x.grad, y.grad)


def test_a_rule_that_returns_its_cotangent_or_what_was_kept():
    x = leaf([1.0, 2.0])
    operator = tape.primitive(lambda x, /: x * x / 2, lambda g, x: x)
    upstream = np.ones(2)
    (operator(x) + x).backward(upstream)
    np.testing.assert_array_equal(x.grad, [2, 3])
    np.testing.assert_array_equal(x.data, [1, 2])
    np.testing.assert_array_equal(upstream, [1, 1])
    y = leaf([1.0, 2.0])
    operator(y).backward(upstream)
    assert not np.shares_memory(y.grad, y.data)


@pytest.mark.parametrize("writeable", [True, False])
def test_a_gradient_that_nothing_else_refers_to_is_handed_over(writeable):
    made = []

    def rule(g, x):
        gradient = g * x
        gradient.flags.writeable = writeable
        made.append(weakref.ref(gradient))
        return gradient
    x = leaf([1.0, 2.0])
    tape.primitive(lambda x: x * x / 2, rule, name="half_square")(x).backward([1.0, 3.0])
    np.testing.assert_array_equal(x.grad, [1, 6])
    assert (made[0]() is x.grad) == writeable          # one that is read-only is copied
    x.grad += 1
