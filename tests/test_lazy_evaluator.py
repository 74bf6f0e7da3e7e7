"""The Evaluator: what is fed and refused, what is planned once, what is shared and freed."""

import copy
import pickle
import re
import tracemalloc

import numpy as np
import pytest

import tape
import tape.lazy as ad
from tape import Tensor
from tape.lazy import evaluator as evaluator_module
from tests.lazy_checks import Counted, X, run, variables


# --- what is fed ---


def test_results_come_in_the_order_asked_for():
    x, y = variables()
    assert [v.item() for v in ad.Evaluator([x + y, x, x * y, x + y]).run(
        {x: np.array(2.0), y: np.array(3.0)})] == [5, 2, 6, 5]


def test_all_variables_that_are_missing_are_named():
    x, y, z, unused = variables("xyzu")
    node = x * y + z
    with pytest.raises(ValueError, match="not fed: x, z$"):
        run(node, {y: X, unused: X})
    with pytest.raises(ValueError, match="variable x was not fed"):
        x.op.compute(x, [])


def test_feeds_are_a_dict():
    with pytest.raises(TypeError, match="a dict of Nodes and their arrays, got list"):
        ad.Evaluator([ad.Variable("x")]).run([X])


@pytest.mark.parametrize("key, value, error, message", [
    ("x", X, TypeError, "named by its Node, got the key 'x' of type str"),
    (None, [[1.0]], TypeError, "x must be fed an array of real numbers, got list; np.array"),
    (None, Tensor(X), TypeError, "got Tensor; feed its .data"),
    (None, "text", TypeError, "got str"), (None, None, TypeError, "got NoneType"),
    (None, np.array(["a"]), TypeError, "got an array of <U1"),
    (None, np.array([1j]), TypeError, "got an array of complex128")])
def test_what_a_run_refuses(key, value, error, message):
    x = ad.Variable("x")
    with pytest.raises(error, match=message):
        run(x + 1, {x if key is None else key: value})


def test_a_shape_that_an_operator_refuses_is_named():
    x, y = variables()
    for node, operator in ((x @ y, "matmul"), (ad.matmul(x, y), "matmul"), (x + y, "add")):
        node.name = "logits"
        message = rf"node logits, operator {operator}: .*\(2, 2\), \(3, 1\)"
        with pytest.raises(ValueError, match=message):
            run(node, {x: X, y: np.ones((3, 1))})
    with pytest.raises(ValueError, match=r"layernorm: normalized_shape must .*; got \(1, 2, 2\)"):
        run(ad.layernorm(x, [1, 2, 2]), {x: X})
    with pytest.raises(ValueError, match=r"operator broadcast: .*inputs of shape \(2, 2\)"):
        run(ad.broadcast(x, [2, 2], [2, 3]), {x: X})
    with pytest.raises(ValueError, match="targets must be integers"):
        run(ad.cross_entropy(x, y), {x: X, y: np.array([0.0, 1.0])})
    with pytest.raises(IndexError, match=r"embedding: ids must be in \[0, 2\)"):
        run(ad.embedding(x, y), {x: X, y: np.array([5])})


def test_messages_name_the_operator_once():
    x, y = variables()
    message = "node (x@y), operator matmul: the last axis of the left operand, 2, must be as long as"
    for node in (x @ y, ad.matmul(x, y)):
        node.name = "(x@y)"
        with pytest.raises(ValueError, match=re.escape(message) + r".* one of the right, 3 \("):
            run(node, {x: X, y: np.ones((3, 1))})


def test_a_matrix_is_fed_as_an_array():
    x = ad.Variable("x")
    value = run(x * x, {x: np.ma.array(X)})
    assert type(value) is np.ndarray
    np.testing.assert_array_equal(value, X * X)


def test_numbers_can_be_fed():
    x, y = variables()
    assert run(x + y, {x: 2, y: np.float64(3)}) == 5
    assert run(x * y, {x: 2.5, y: X.astype(np.float32)}).dtype == np.float32


def test_fed_numbers_take_the_dtype_of_the_arrays_beside_them():
    x, y = variables()
    squared = run(x * x, {x: 0.1})
    assert squared.dtype == np.float64 and squared == 0.1 * 0.1
    for dtype in (np.float32, np.float64):
        value = run(x * y, {x: 0.1, y: np.ones(2, dtype)})
        assert value.dtype == dtype and value[0] == dtype(0.1)


def test_a_number_less_a_mask():
    x = ad.Variable("x")
    assert run(1 - x, {x: np.array([True, False])}).tolist() == [0, 1]
    assert run(-x + 1.0, {x: np.array([True, False])}).tolist() == [0, 1]


@pytest.mark.parametrize("op", [ad.gelu, ad.softmax, ad.log_softmax, ad.tanh, ad.exp,
                                lambda x: ad.layernorm(x, 3), lambda x: ad.matmul_softmax(x, x)])
def test_integers_become_floats_as_in_numpy(op):
    x, array = ad.Variable("x"), np.array([[1, 2, 3], [0, 5, 1], [2, 2, 2]])
    value = run(op(x), {x: array})
    assert value.dtype == np.float64
    np.testing.assert_array_equal(value, run(op(x), {x: array.astype(float)}))
    (slope,) = ad.gradients(op(x), [x])
    np.testing.assert_array_equal(run(slope, {x: array}), run(slope, {x: array.astype(float)}))


def test_an_inner_node_can_be_fed():
    x, y = variables()
    inner = x * y
    out = ad.exp(inner) + x
    (slope,) = ad.gradients(out, [inner])
    evaluator = ad.Evaluator([out, slope])
    plain = evaluator.run({x: X, y: X})
    value, found = evaluator.run({x: X, inner: 0 * X})        # y is not needed now
    np.testing.assert_array_equal(value, 1 + X)
    np.testing.assert_array_equal(found, np.ones((2, 2)))
    for a, b in zip(plain, evaluator.run({x: X, y: X})):
        np.testing.assert_array_equal(a, b)
    with pytest.raises(ValueError, match="not fed: x"):
        evaluator.run({inner: X})


def test_a_fed_node_does_not_stand_for_an_equal_one():
    x, y = variables()
    a, b = x + y, x + y
    value = ad.Evaluator([a * 1, b * 1]).run({x: X, y: X, a: 0 * X})
    np.testing.assert_array_equal(value[0], 0 * X)
    np.testing.assert_array_equal(value[1], 2 * X)


FED = np.array([[0.5, 0.25], [1.0, 2.0]])


def through_softmax(x, out):
    """The gradient of sum(x out) with regard to what `out` is the softmax of."""
    return out * (x - np.sum(x * out, -1, keepdims=True))


@pytest.mark.parametrize("make, expected", [
    (ad.softmax, lambda: through_softmax(X, FED)), (tape.softmax, lambda: through_softmax(X, FED)),
    (ad.exp, lambda: X * FED), (ad.sqrt, lambda: X / (2 * FED)),
    (lambda x: ad.matmul_softmax(x, x),
     lambda: through_softmax(X, FED) @ X.T + X.T @ through_softmax(X, FED))],
    ids=["softmax", "tape's softmax", "exp", "sqrt", "matmul_softmax"])
def test_the_gradient_uses_the_value_that_was_fed(make, expected):
    x = ad.Variable("x")
    out = make(x)
    (slope,) = ad.gradients(out * X, [x])
    (value,) = ad.Evaluator([slope]).run({x: X, out: FED})
    np.testing.assert_allclose(value, expected())


def test_integers_that_are_fed_stay_integers():
    x, y = variables()
    assert run(x + 0, {x: 16777217}) == 16777217
    assert run(ad.embedding(y, x), {x: 1, y: X}).tolist() == X[1].tolist()
    assert run(ad.cross_entropy(x, 1), {x: X[0]}) == pytest.approx(np.log(1 + np.exp(-1)))


def test_numbers_of_numpy_are_weak_as_attributes_too():
    x, y = variables()
    feed = {x: X.astype(np.float32), y: np.array([2, 2])}
    for node in (ad.power(x, np.float64(0.5)), ad.greater(x, y)):
        assert run(node, feed).dtype == np.float32
    with pytest.raises(TypeError, match="power: exponent must be known when the graph is built"):
        ad.power(x, y)


@pytest.mark.parametrize("call", [np.tile, np.roll, lambda x, n: tape.sum(x, axis=n)])
@pytest.mark.parametrize("x", [ad.Variable("x"), Tensor(X, requires_grad=True)])
def test_a_node_is_refused_as_an_attribute_of_whatever_operator(call, x):
    with pytest.raises(TypeError, match="must be known when the graph is built, got the node n"):
        call(x, ad.Variable("n"))


# --- the plan ---


def test_two_evaluators_share_nodes():
    x, y = variables()
    shared = ad.exp(x)
    first, second = ad.Evaluator([shared * y]), ad.Evaluator([shared + y, shared])
    feed = {x: X, y: X}
    for _ in range(2):
        np.testing.assert_array_equal(first.run(feed)[0], np.exp(X) * X)
        np.testing.assert_array_equal(second.run(feed)[0], np.exp(X) + X)
        np.testing.assert_array_equal(second.run({x: X, y: X, shared: X})[1], X)


def test_it_plans_once_for_each_set_of_fed_nodes(monkeypatch):
    calls = []

    def counted(*args):
        calls.append(args)
        return make_schedule(*args)
    make_schedule = evaluator_module.make_schedule
    monkeypatch.setattr(evaluator_module, "make_schedule", counted)
    x, y = variables()
    inner = x + y
    evaluator = ad.Evaluator([inner * 2])
    for i in range(3):
        evaluator.run({x: X, y: X})
        assert len(calls) == 1
    for i in range(3):
        evaluator.run({inner: X})
        assert len(calls) == 2


def test_an_evaluator_can_be_copied_and_pickled():
    x, y = variables()
    loss = ad.mean(ad.gelu(ad.embedding(x, y)), (0, 1))
    evaluator = ad.Evaluator([loss, *ad.gradients(loss, [x])])
    expected = evaluator.run({x: X, y: np.array([1, 0])})
    for twin in (copy.deepcopy(evaluator), pickle.loads(pickle.dumps(evaluator))):
        a, b = sorted((node for node in ad.topological_sort(twin.eval_nodes)
                       if isinstance(node, ad.Variable)), key=str)
        for got, wanted in zip(twin.run({a: X, b: np.array([1, 0])}), expected, strict=True):
            np.testing.assert_array_equal(got, wanted)


def test_a_deep_graph_can_be_copied_and_its_evaluator_pickled():
    x = y = ad.Variable("x")
    for _ in range(1_500):               # three times as deep as Python recurses
        y = y * 0.5 + x
    (slope,) = ad.gradients(y, [x])
    twin_x, twin = copy.deepcopy([x, y])
    assert twin_x is not x and run(twin, {twin_x: np.array(1.0)}) == 2
    evaluator = pickle.loads(pickle.dumps(ad.Evaluator([y, slope])))
    (variable,) = [node for node in ad.topological_sort(evaluator.eval_nodes) if not node.inputs]
    assert evaluator.run({variable: np.array(1.0)}) == [2, 2]


def test_what_is_not_needed_is_not_computed_and_nothing_runs_before_run():
    x = ad.Variable("x")
    op = Counted()
    a, b = op(x), op(x * 2)
    unused = op(b)
    evaluator = ad.Evaluator([a])
    assert op.calls == []
    evaluator.run({x: X})
    assert len(op.calls) == 1
    ad.Evaluator([unused]).run({b: X})
    assert len(op.calls) == 2


def test_equal_expressions_are_computed_once_but_a_users_op_is_not_shared(monkeypatch):
    seen = []
    cube = tape.primitive(lambda x, /, n=1: seen.append(n) or x ** 3, lambda g, x: g * 3 * x ** 2)
    x, op = ad.Variable("x"), Counted()
    a = cube(x) + cube(x) + cube(x, n=1.0) + op(x) + op(x)
    np.testing.assert_array_equal(run(a, {x: X}), 3 * X ** 3 + 2 * (X + 1))
    assert seen == [1, 1.0]
    assert len(op.calls) == 2


def test_constants_that_only_compare_equal_are_told_apart():
    x = ad.Variable("x")
    plus, minus = run(ad.where(ad.greater(x, 9), x, 0.0), {x: X}), run(x * 0, {x: X})
    assert plus.tolist() == minus.tolist()
    a, b = ad.Evaluator([1 / (x * 0.0), 1 / (x * -0.0)]).run({x: np.array(1.0)})
    assert a == np.inf and b == -np.inf


# --- memory ---


def test_values_are_freed_after_their_last_use():
    x = y = ad.Variable("x")
    for _ in range(50):
        y = ad.exp(y * 0.5)
    array = np.ones(100_000)
    assert _peak(ad.Evaluator([ad.mean(y, 0)]), {x: array}) < 3.5 * array.nbytes


def test_an_operand_of_which_only_the_shape_matters_is_freed_too():
    x = y = ad.Variable("x")
    parts = []
    for _ in range(20):
        y = y + 1.0
        parts.append(ad.sum_op(y, 0))
    (slope,) = ad.gradients(sum(parts[1:], parts[0]), [x])
    array = np.ones(100_000)
    assert _peak(ad.Evaluator([slope]), {x: array}) < 5.5 * array.nbytes
    assert run(slope, {x: array})[0] == 20


def test_a_kernel_leaves_no_more_than_its_backward_asks_for():
    """Ten times GELU: each keeps its input and one residual, and not its result as well."""
    x = y = ad.Variable("x")
    for _ in range(10):
        y = ad.gelu(y * 1.5)
    (slope,) = ad.gradients(y, [x])
    array = np.ones(100_000)
    assert _peak(ad.Evaluator([slope]), {x: array}) < 27 * array.nbytes


def _peak(evaluator, feed):
    evaluator.run(feed)
    tracemalloc.start()
    evaluator.run(feed)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return peak


def test_results_share_memory_with_nothing():
    x, y = variables()
    constant = np.ones((2, 2))
    total = x + y
    nodes = [x, ad.reshape(x, (4,)), ad.transpose(x, 0, 1), total, total, ad.transpose(total, 0, 1),
             ad.broadcast(x, (2, 2), (3, 2, 2)), *ad.gradients(total, [x, y]), ad.where(x, constant, 1),
             (x + constant).inputs[1], total[:1]]
    feed = {x: X.copy(), y: X.copy()}
    results = ad.Evaluator(nodes).run(feed)
    arrays = [*results, *feed.values()]
    for i, a in enumerate(arrays):
        assert a.flags.writeable
        for b in arrays[:i]:
            assert not np.shares_memory(a, b)


def test_feeds_are_not_changed_and_runs_do_not_depend_on_each_other():
    x, y = variables()
    loss = ad.mean(ad.softmax(x @ y) * x, (0, 1))
    evaluator = ad.Evaluator([loss, *ad.gradients(loss, [x, y])])
    feed = {x: X.copy(), y: X.copy()}
    first = evaluator.run(feed)
    for array in first:
        array *= 0
    second = evaluator.run(feed)
    np.testing.assert_array_equal(feed[x], X)
    assert second[0] != 0
    third = evaluator.run({x: X[:1], y: X})          # another batch size
    assert third[1].shape == (1, 2)


# --- values ---


def test_a_run_computes_without_warnings_where_values_are_infinite():
    x = ad.Variable("x")
    value, slope = ad.Evaluator([ad.log(x), *ad.gradients(ad.log(x), [x])]).run({x: np.array([0.0])})
    assert value == -np.inf and slope == np.inf


def test_compute_of_a_users_op_must_return_an_array():
    class Lists(Counted):
        def compute(self, node, input_values):
            return [1.0, 2.0]
    x = ad.Variable("x")
    with pytest.raises(TypeError, match="operator Lists: compute must return an array, got list"):
        run(Lists()(x) + Lists()(x), {x: X})


@pytest.mark.parametrize("error", [KeyError, IndexError, ZeroDivisionError, ValueError])
def test_an_error_in_a_users_op_is_located(error):
    class Fails(Counted):
        def compute(self, node, input_values):
            raise error("no such thing")
    x = ad.Variable("x")
    with pytest.raises(error, match=r"node Fails\(x\), operator Fails: .*no such thing"):
        run(Fails()(x), {x: X})


def test_a_users_op_may_name_itself_and_return_a_view():
    class Own(Counted):
        def __init__(self):
            self.name = "own"

        def compute(self, node, input_values):
            return np.lib.stride_tricks.sliding_window_view(input_values[0], 2, writeable=True)
    x, array = ad.Variable("x"), np.arange(4.0)
    node = Own()(x)
    assert node.op.name == "own" and str(node) == "own(x)"
    run(node, {x: array})[:] = 9
    np.testing.assert_array_equal(array, np.arange(4.0))


def test_layernorm_of_nothing_and_with_a_numpy_integer():
    x = ad.Variable("x")
    assert run(ad.layernorm(x, 3), {x: np.zeros((0, 3))}).shape == (0, 3)
    assert run(ad.layernorm(x, np.int64(2)), {x: X}).shape == (2, 2)
