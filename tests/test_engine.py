"""The tape and the walk: nasty graphs, `backward`, what is released and when.

`grad` is in test_grad.py, what may be changed between forward and backward in test_mutation.py,
recording on and off in test_modes.py, derivatives of derivatives in test_higher_order.py.
"""

import warnings
import weakref

import numpy as np
import pytest

import tape
from tape import Tensor, grad, ops
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
        try:
            y.backward([1.0])
        except ValueError as error:
            assert "broken" in str(error)
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
    for _ in range(2):
        try:
            top.sum().backward(retain_graph=True)
        except RuntimeError as error:
            assert "not today" in str(error)
            assert top.grad is None and h._grad is None and x.grad is None
    np.testing.assert_array_equal(top.grad, [1, 1])
    np.testing.assert_array_equal(h.grad, [3, 3])
    np.testing.assert_array_equal(x.grad, [6, 6])


# --- picks are undone in place ---


@pytest.mark.parametrize("pieces", [
    lambda x: [x[i] for i in range(4)], lambda x: list(x), lambda x: ops.split(x, 4),
    lambda x: ops.split(x, [1, 3]), lambda x: [x[1:], x[::-1], x[[0, 0, 3]], x[x.data[:, 0] > 0]],
    lambda x: [ops.embedding(x, [0, 3, 3]), x[(0, 1), (1, 1)], x[..., 0], x * 2],
    lambda x: [x[((0, 0), (1, 1))], x[np.array(2)], x[np.array([True, False, True, True])]]])
@pytest.mark.parametrize("create_graph", [False, True])
def test_several_picks_of_one_array(pieces, create_graph):
    values = np.random.default_rng(0).standard_normal((4, 3))

    def loss(x):
        return sum(((p * p * p).sum() for p in pieces(x)), (x * 0.5).sum())
    assert tape.gradcheck(loss, [values], order=2)
    x = leaf(values)
    slope = grad(loss(x), x, create_graph=create_graph)
    if create_graph:                    # the third derivative, along a line
        def along(step):
            y = leaf(values + step)
            first = grad(loss(y), y, create_graph=True)
            return grad((first * first).sum(), y, create_graph=True).sum(), y
        total, y = along(0.0)
        third = grad(total, y).data.sum()
        ends = [along(step)[0].item() for step in (1e-5, -1e-5)]
        np.testing.assert_allclose(third, (ends[0] - ends[1]) / 2e-5, rtol=1e-6)
    loss(x).backward()
    np.testing.assert_allclose(x.grad, slope.data)


@pytest.mark.parametrize("pick", [
    lambda t: t[[1, 2, 1]], lambda t: t[..., [0, 0]], lambda t: t[(0, 0), (1, 1)], lambda t: t[1:],
    lambda t: ops.embedding(t, [0, 2, 2]), lambda t: ops.split(t, [1])[1].sum() * t[0]])
def test_picks_join_a_sum_of_any_layout(pick):
    # The sum of the two gradients of t * t is laid out as t is: in columns.
    values = np.random.default_rng(0).standard_normal((4, 3))
    assert tape.gradcheck(lambda x: (x.T * 1.0 * (x.T * 2.0)).sum() + (pick(x.T * 1.0) ** 3).sum(),
                          [values])

    def several(x):
        t = x.T * 1.0
        return (t * t).sum() + (pick(t) ** 3).sum() + (t * t * t).sum() + pick(t).sum()
    assert tape.gradcheck(several, [values], order=2)
