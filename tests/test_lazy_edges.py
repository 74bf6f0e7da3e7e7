"""Static graphs at their edges: deep ones, users' operators, mixed dtypes, and what errors say."""

import gc
import pickle
import re
import weakref

import numpy as np
import pytest

import tape
import tape.lazy as ad
from tape.lazy.tape_ops import op_of


# --- pickles of deep graphs, and operators that are freed ---


def chain(x, length):
    for i in range(length):
        x = x + 1 if i % 2 else x * x
    return x


@pytest.mark.parametrize("dumps", [pickle.dumps, lambda x: pickle.dumps(x, protocol=2), pickle._dumps])
def test_a_deep_graph_pickles_without_recursion(dumps):
    x = ad.Variable("x")
    y = chain(x, 3000)
    again, x2, evaluator = pickle.loads(dumps([y, x, ad.Evaluator([y])]))
    order = ad.topological_sort(again)
    assert order[0] is x2 and len(order) == len(ad.topological_sort(y))
    assert evaluator.eval_nodes[0] is again               # one graph, however it is reached
    assert [node.name for node in order] == [node.name for node in ad.topological_sort(y)]


def test_a_pickle_grows_with_the_graph():
    short, long = (len(pickle.dumps(chain(ad.Variable("x"), n))) / n for n in (1000, 8000))
    assert long < 1.5 * short


def test_a_shared_node_is_pickled_once():
    x = ad.Variable("x")
    left, right = x * 2, x * 3
    a, b = pickle.loads(pickle.dumps((left, right)))
    assert a.inputs[0] is b.inputs[0]


def test_a_users_operator_is_freed_with_its_last_node():
    def use():
        cube = tape.primitive(lambda x: x ** 3, lambda g, x: g * 3 * x ** 2, name="cube")
        x = ad.Variable("x")
        y = cube(x)
        (slope,) = ad.gradients(y, [x])
        np.testing.assert_array_equal(ad.Evaluator([slope]).run({x: np.array([2.0])}), [[12.0]])
        return weakref.ref(cube)
    alive = use()
    gc.collect()
    assert alive() is None


# --- words ---


def test_comparisons_of_a_tensor_and_a_node_make_nodes():
    x, t = ad.Variable("x"), tape.Tensor([1.0, 2.0])
    for node in (t < x, x > t, np.less(t, x), np.greater(x, t)):
        np.testing.assert_array_equal(ad.Evaluator([node]).run({x: np.array([1.5, 1.5])}),
                                      [[True, False]])


OTHER_NAMES = {
    "layer_norm": ad.layernorm, "sum": op_of(tape.ops.sum), "sigmoid": op_of(tape.ops.sigmoid),
    "max_op": op_of(tape.ops.max), "matmul_op": ad.matmul, "mat_mul": ad.matmul,
    "softmax_op": ad.softmax, "add_op": ad.add, "log_op": ad.log, "relu_op": ad.relu,
    "exp_op": ad.exp, "mean_op": ad.mean,
    "reduce_sum": ad.sum_op, "reduce_sum_op": ad.sum_op, "sum_axis": ad.sum_op, "bmm": ad.matmul,
    "zeroslike_op": ad.zeros_like, "expandas3d": ad.expand_as_3d, "addbyconst": ad.add_by_const,
    "mul_byconst_op": ad.mul_by_const, "broadcastto_op": ad.expand_as, "pow": ad.power,
    "power_op": ad.power, "sigmoid_op": op_of(tape.ops.sigmoid), "greater_op": ad.greater}


@pytest.mark.parametrize("name", OTHER_NAMES)
def test_an_operator_by_another_name(name):
    assert getattr(ad, name) is OTHER_NAMES[name]


OWN_HINTS = {"dot": "the product of two nodes is x @ y",
             "dropout": "multiply by a mask that is fed, already divided by 1 - p",
             **dict.fromkeys(["average", "block", "broadcast_arrays", "column_stack", "corrcoef", "cov",
                              "gradient", "hsplit", "hstack", "meshgrid", "unstack"],
                             "it reads the shape of its operand"),
             **dict.fromkeys(["inner", "kron", "tensordot"], "write it as an einsum")}


@pytest.mark.parametrize("name", sorted(set(tape.ops.__all__) - set(ad.__all__) - {"layer_norm"}))
def test_an_operator_that_only_tape_has_is_found(name):
    if name in OWN_HINTS:
        with pytest.raises(AttributeError, match=re.escape(f"no '{name}': {OWN_HINTS[name]}")):
            getattr(ad, name)
    else:
        operator = getattr(tape, name)
        found = getattr(ad, name)
        assert found is operator or found.operator is operator


def test_an_operator_of_tape_takes_the_keywords_of_the_api():
    x, values = ad.Variable("x"), np.array([[1.0, 5.0], [2.0, 3.0]])
    for node, expected in ((ad.max(x, dim=1, keepdim=True), [[5], [3]]), (ad.max_op(x, 0), [2, 5]),
                           (ad.sum(x, dim=[0, 1]), 11), (ad.sum(node_A=x, axis=0), [3, 8]),
                           (ad.logsumexp(x * 0, dim=-1), [np.log(2)] * 2),
                           (ad.broadcast_to(x, (1, 2, 2)), [values]),
                           (ad.sin(x) - ad.sin(x), values * 0)):
        np.testing.assert_array_equal(ad.Evaluator([node]).run({x: values})[0], expected)


@pytest.mark.parametrize("name", sorted(
    # The others are in test_lazy_operators.py.
    set(tape.ops.__all__) - set(OWN_HINTS) - set(tape.ops.LINEAR) - set(tape.ops.NUMPYS)))
def test_an_operator_of_tape_takes_nodes(name):
    arguments = {"concatenate": [[X_NODE, X_NODE]], "stack": [[X_NODE, X_NODE]], "split": [X_NODE, 2],
                 "reshape": [X_NODE, (4,)], "getitem": [X_NODE, 0], "pad": [X_NODE, 1],
                 "clip": [X_NODE, 0, 1], "astype": [X_NODE, np.float32], "power": [X_NODE, 2],
                 "broadcast_to": [X_NODE, (2, 2, 2)], "expand_dims": [X_NODE, 0],
                 "swapaxes": [X_NODE, 0, 1], "moveaxis": [X_NODE, 0, 1],
                 "split_heads": [X_NODE, 2], "merge_heads": [X_NODE, 2],
                 "where": [X_NODE, X_NODE, X_NODE], "causal_attention": [X_NODE] * 3,
                 "swiglu": [X_NODE] * 2, "rotate_pairs": [X_NODE] * 3, "rnn": [*[X_NODE] * 3, 2],
                 "lstm": [*[X_NODE] * 4, 2], "gru": [*[X_NODE] * 4, 2],
                 "attention": [X_NODE] * 4, "causal_self_attention": [X_NODE, 2, *[X_NODE] * 4]}
    binary = {"add", "sub", "mul", "div", "matmul", "maximum", "minimum", "embedding", "cross_entropy"}
    out = getattr(tape, name)(*arguments.get(name, [X_NODE] * (2 if name in binary else 1)))
    nodes = out if isinstance(out, list) else [out]
    assert nodes and all(isinstance(node, ad.Node) for node in nodes)


X_NODE = ad.Variable("x")


def test_a_number_taken_from_unsigned_integers():
    x = ad.Variable("x")
    values = np.array([1, 5, 255], np.uint8)
    for node, expected in ((x - 3, values - np.uint8(3)), (x + 3, values + np.uint8(3)),
                           (3 - x, np.uint8(3) - values), (x * 2, values * np.uint8(2))):
        np.testing.assert_array_equal(ad.Evaluator([node]).run({x: values})[0], expected)


@pytest.mark.parametrize("dtypes", [(np.float64, np.float32), (np.float32, np.float64),
                                    (np.float16, np.float32), (np.float64, np.float16)])
@pytest.mark.parametrize("function", [
    lambda a, b: a @ b, lambda a, b: a * b, lambda a, b: a / b, lambda a, b: tape.maximum(a, b),
    lambda a, b: tape.concatenate([a, b]), lambda a, b: tape.where(tape.relu(a), a, b),
    lambda a, b: tape.layer_norm(a, tape.getitem(b, 0)), lambda a, b: tape.reshape(a, (4,)) * b[0, 0],
    lambda a, b: tape.causal_attention(a, b, a), lambda a, b: tape.mean(a, 0) - b])
def test_a_gradient_has_the_dtype_of_its_operand(function, dtypes):
    arrays = [np.array([[1.0, 2.0], [3.0, 5.0]], dtype) for dtype in dtypes]
    a, b = ad.Variable("a"), ad.Variable("b")
    slopes = ad.gradients(tape.sum(function(a, b) ** 2), [a, b])
    found = ad.Evaluator(slopes).run(dict(zip((a, b), arrays)))
    leaves = [tape.Tensor(x, requires_grad=True) for x in arrays]
    (function(*leaves) ** 2).sum().backward()
    for slope, x, eager in zip(found, arrays, leaves, strict=True):
        assert slope.dtype == x.dtype == eager.grad.dtype
        assert slope.shape == x.shape
        np.testing.assert_allclose(slope, eager.grad, rtol=3e-3 if np.float16 in dtypes else 1e-5)


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.int64])
@pytest.mark.parametrize("function", [
    lambda n, x: n ** x, lambda n, x: x ** n, lambda n, x: n * x, lambda n, x: n / x,
    lambda n, x: x / n, lambda n, x: square(x, n)])
def test_rules_get_integers_as_the_forward_does(function, dtype):
    n, x = ad.Variable("n"), ad.Variable("x")
    integers, floats = np.array([20, 3], dtype), np.array([1.5, 2.0])
    (slope,) = ad.gradients(function(n, x), [x])
    leaf = tape.Tensor(floats, requires_grad=True)
    function(integers, leaf).sum().backward()
    np.testing.assert_array_equal(ad.Evaluator([slope]).run({n: integers, x: floats})[0], leaf.grad)


square = tape.primitive(lambda x, n: x * (n * n), lambda g, n: g * (n * n),
                        lambda g, x, n: 2 * g * x * n, name="square")


def test_a_users_forward_cannot_write_to_what_is_fed():
    def ordered(x):
        x.sort()
        return x * 1.0
    operator, x = tape.primitive(ordered, lambda g: g, name="ordered"), ad.Variable("x")
    fed = np.array([3.0, 1.0])
    with pytest.raises(ValueError, match="read-only"):
        ad.Evaluator([operator(x), x * 1.0]).run({x: fed})
    np.testing.assert_array_equal(fed, [3, 1])


def test_contributions_in_float16_are_added_up_in_float32():
    rng = np.random.default_rng(0)
    x = tape.Tensor(rng.standard_normal(200).astype(np.float16), requires_grad=True)
    c, d, e = rng.standard_normal((3, 200)).astype(np.float16)

    def function(x):
        return (x * c).sum() + (x * d).sum() + ((x + x) * e).sum()
    node, (v,) = ad.trace(function, [x])
    function(x).backward()
    (slope,) = ad.Evaluator(ad.gradients(node, [v])).run({v: x.data})
    np.testing.assert_array_equal(slope, x.grad)


def test_a_node_made_by_hand_may_leave_out_attributes_that_have_a_default():
    x = ad.Variable("x")
    total = ad.Node([x], op_of(tape.ops.sum), {})
    (slope,) = ad.gradients(total, [x])
    value, slope = ad.Evaluator([total, slope]).run({x: np.array([1.0, 2.0])})
    assert value == 3 and slope.tolist() == [1, 1]


def test_a_list_beside_float16_is_float16_in_the_gradient_too():
    def function(x):
        y = x * [1.5, -0.5, 0.1]
        return (y * x * y).sum()
    rng = np.random.default_rng(0)
    for values in rng.uniform(0.1, 2, (20, 3)).astype(np.float16):
        x = tape.Tensor(values, requires_grad=True)
        function(x).backward()
        node, (v,) = ad.trace(function, [values])
        (slope,) = ad.Evaluator(ad.gradients(node, [v])).run({v: values})
        np.testing.assert_array_equal(slope, x.grad)
