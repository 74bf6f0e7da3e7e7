"""Operators on nodes: the values and the gradients of the eager engine, by the same rules."""

import warnings

import numpy as np
import pytest

import tape
import tape.lazy as ad
from tape import Tensor, grad
from tape.gradcheck.cases import CASES
from tape.fusion import Fused
from tests.checks import differences

RNG = np.random.default_rng(3)
# These read the shape of their operand. The error that says so:
NO_NODES = {"dropout": (AttributeError, "a node has no shape before it is computed"),
            **dict.fromkeys((
                "average/weights", "average", "block", "broadcast_arrays",
                "column_stack", "corrcoef", "cov/two", "cov", "gradient/coordinates", "gradient/edge",
                "gradient", "hsplit", "hstack", "meshgrid", "quantile/keepdims", "take/wrap",
                "trapezoid/coordinates", "unstack"),
                (TypeError, r"numpy.(ndim|shape) has no operator here.*Evaluator\(\[node\]\)")),
            **{name: (TypeError, f"{name.split('/')[0]}: how many axes a node has is not known")
               for name in ("dot", "dot/3d", "inner", "kron", "kron/ranks", "tensordot",
                            "tensordot/count", "einsum/ellipsis", "multi_dot", "multi_dot/vectors")},
            **{name: (AttributeError, "a node has no shape before it is computed")
               for name in ("lstsq", "lstsq/wide", "tensorinv", "tensorsolve")}}


def weighted(out):
    """A scalar that depends on each element of `out` in its own way."""
    return tape.sum(out * out * 0.5 + out)


def check(static, eager, arrays, rtol=1e-9, exact=True):
    """Value, gradient and gradient of the gradient of one operator, by three routes."""
    variables = [ad.Variable(name) for name in "xyzwabcde"[:len(arrays)]]
    feed = dict(zip(variables, arrays))
    out = static(*variables)
    slopes = ad.gradients(weighted(out), variables)
    twice = sum((weighted(slope) for slope in slopes[1:]), weighted(slopes[0]))
    curves = ad.gradients(twice, variables)
    count = len(variables)
    value, *found = ad.Evaluator([out, *slopes, *curves]).run(feed)

    leaves = [Tensor(a, requires_grad=True) for a in arrays]
    result = eager(*leaves)
    first = grad(weighted(result), leaves, create_graph=True, allow_unused=True)
    second = grad(sum((weighted(s) for s in first[1:]), weighted(first[0])), leaves, allow_unused=True)
    if exact:
        np.testing.assert_array_equal(value, result.data)
    else:
        np.testing.assert_allclose(value, result.data, rtol=1e-14)
    for i, x in enumerate(arrays):
        assert found[i].shape == found[count + i].shape == x.shape
        assert found[i].dtype == found[count + i].dtype == x.dtype
        np.testing.assert_allclose(found[i], first[i].data, rtol=rtol, atol=1e-12)
        expected = 0 if second[i] is None else second[i].data
        np.testing.assert_allclose(found[count + i], expected, rtol=rtol, atol=1e-10)

    planned = ad.Evaluator([weighted(out)])

    def total(*moved):
        (loss,) = planned.run(dict(zip(variables, moved)))
        return loss
    for i in range(count):
        np.testing.assert_allclose(found[i], differences(total, arrays, i), rtol=2e-6, atol=2e-7)


# --- every operator of the engine, on nodes ---


@pytest.mark.parametrize("case", [c for c in CASES if c.name not in NO_NODES],
                         ids=lambda case: case.name)
def test_an_operator_of_tape_on_nodes(case):
    def function(*xs):
        out = case.function(*xs)
        return tape.concatenate([tape.reshape(x, (-1,)) for x in out]) if isinstance(out, list) else out
    # A graph does not know the lengths by which np.einsum_path chooses an order.
    check(function, function, case.inputs(), exact=case.name != "einsum/optimize")


@pytest.mark.parametrize("name, error, message", [(n, *e) for n, e in NO_NODES.items()], ids=NO_NODES)
def test_what_needs_a_shape_says_that_a_node_has_none(name, error, message):
    (case,) = [c for c in CASES if c.name == name]
    with pytest.raises(error, match=message):
        case.function(*(ad.Variable("x") for _ in case.shapes))


# --- every operator of the static API ---

X2, Y2 = RNG.uniform(0.5, 2.0, (3, 4)), RNG.uniform(0.5, 2.0, (3, 4))
X3, Y3 = RNG.uniform(0.5, 2.0, (2, 3, 4)), RNG.uniform(0.5, 2.0, (2, 3, 4))
SIGNED2, SIGNED3 = X2 - 1.23, X3 - 1.23
IDS = np.array([[0, 2, 2], [1, 0, 2]])


def layer_norm_over(k):
    def function(x):
        out = tape.layer_norm(tape.reshape(x, (*x.shape[:-k], -1)))
        return tape.reshape(out, x.shape)
    return function


API = {
    "add": (ad.add, tape.add, [(X2, Y2), (X3, Y3), (X3, Y3[0]), (X2[:, :1], Y3)]),
    "sub": (ad.sub, tape.sub, [(X2, Y2), (X3, Y3), (X3, Y3[0]), (X2[:, :1], Y3)]),
    "mul": (ad.mul, tape.mul, [(X2, Y2), (X3, Y3), (X3, Y3[0]), (X2[:, :1], Y3)]),
    "div": (ad.div, tape.div, [(X2, Y2), (X3, Y3), (X3, Y3[0]), (X2[:, :1], Y3)]),
    "add_by_const": (lambda x: ad.add_by_const(x, 1.5), lambda x: x + 1.5, [(X2,), (X3,)]),
    "mul_by_const": (lambda x: ad.mul_by_const(x, -2), lambda x: x * -2, [(X2,), (X3,)]),
    "div_by_const": (lambda x: ad.div_by_const(x, 3), lambda x: x / 3, [(X2,), (X3,)]),
    "power": (lambda x: ad.power(x, 2.5), lambda x: x ** 2.5, [(X2,), (X3,)]),
    "sqrt": (ad.sqrt, tape.sqrt, [(X2,), (X3,)]),
    "log": (ad.log, tape.log, [(X2,), (X3,)]),
    "exp": (ad.exp, tape.exp, [(SIGNED2,), (SIGNED3,)]),
    "tanh": (ad.tanh, tape.tanh, [(SIGNED2,), (SIGNED3,)]),
    "relu": (ad.relu, tape.relu, [(SIGNED2,), (SIGNED3,)]),
    "gelu": (ad.gelu, tape.gelu, [(SIGNED2,), (SIGNED3,)]),
    "sum_op int": (lambda x: ad.sum_op(x, 1), lambda x: x.sum(1), [(X2,), (X3,)]),
    "sum_op tuple": (lambda x: ad.sum_op(x, (0, -1), keepdim=True),
                     lambda x: x.sum((0, -1), True), [(X2,), (X3,)]),
    "sum_op list": (lambda x: ad.sum_op(x, dim=[0, 1]), lambda x: x.sum((0, 1)), [(X2,), (X3,)]),
    "mean int": (lambda x: ad.mean(x, -1), lambda x: x.mean(-1), [(X2,), (X3,)]),
    "mean tuple": (lambda x: ad.mean(x, (0, 1)), lambda x: x.mean((0, 1)), [(X2,), (X3,)]),
    "mean list": (lambda x: ad.mean(x, dim=[-2, -1], keepdim=True),
                  lambda x: x.mean((-2, -1), True), [(X2,), (X3,)]),
    "expand_as": (ad.expand_as, lambda x, y: tape.broadcast_to(x, y.shape) + 0 * y,
                  [(X2[:1], Y2), (X3[:1, :, :1], Y3), (X2, Y3)]),
    "expand_as_3d": (ad.expand_as_3d,
                     lambda x, y: tape.broadcast_to(x.expand_dims(1), y.shape) + 0 * y,
                     [(X2[:2], Y3)]),
    "broadcast": (lambda x: ad.broadcast(x, input_shape=[3, 4], target_shape=[2, 3, 4]),
                  lambda x: tape.broadcast_to(x, (2, 3, 4)), [(X2,)]),
    "broadcast ones": (lambda x: ad.broadcast(x, (3, 1), (2, 3, 4)),
                       lambda x: tape.broadcast_to(x, (2, 3, 4)), [(X2[:, :1],)]),
    "transpose": (lambda x: ad.transpose(x, -1, 0), lambda x: x.swapaxes(-1, 0), [(X2,), (X3,)]),
    "matmul": (ad.matmul, tape.matmul, [(X2, Y2.T), (X3, Y3.swapaxes(1, 2)), (X3, Y2.T)]),
    "matmul trans_A": (lambda x, y: ad.matmul(x, y, trans_A=True), lambda x, y: x.swapaxes(-1, -2) @ y,
                       [(X2, Y2), (X3, Y3), (X3, Y2)]),
    "matmul trans_B": (lambda x, y: ad.matmul(x, y, trans_B=True), lambda x, y: x @ y.swapaxes(-1, -2),
                       [(X2, Y2), (X3, Y3), (X3, Y2)]),
    "matmul both": (lambda x, y: ad.matmul(x, y, True, True),
                    lambda x, y: x.swapaxes(-1, -2) @ y.swapaxes(-1, -2), [(X2, Y2.T)]),
    "softmax": (ad.softmax, tape.softmax, [(SIGNED2,), (SIGNED3,)]),
    "softmax dim": (lambda x: ad.softmax(x, dim=0), lambda x: x.softmax(0), [(SIGNED2,), (SIGNED3,)]),
    "log_softmax": (ad.log_softmax, tape.log_softmax, [(SIGNED2,), (SIGNED3,)]),
    "layernorm": (lambda x: ad.layernorm(x, normalized_shape=[4]), layer_norm_over(1),
                  [(SIGNED2,), (SIGNED3,)]),
    "layernorm int": (lambda x: ad.layernorm(x, 4, 1e-5), layer_norm_over(1), [(SIGNED2,)]),
    "layernorm of two axes": (lambda x: ad.layernorm(x, (3, 4)), layer_norm_over(2), [(SIGNED3,)]),
    "matmul_layernorm": (lambda x, y: ad.matmul_layernorm(x, y, [3]),
                         lambda x, y: tape.layer_norm(x @ y), [(X2, Y2.T), (X3, Y2.T)]),
    "matmul_softmax": (lambda x, y: ad.matmul_softmax(x, y, dim=-2),
                       lambda x, y: tape.softmax(x @ y, -2), [(X2, Y2.T), (X3, Y2.T)]),
    "concat": (lambda x, y: ad.concat([x, y], dim=1), lambda x, y: tape.concatenate([x, y], 1),
               [(X2, Y2), (X3, Y3)]),
    "concat one by one": (lambda x, y: ad.concat(x, y, x), lambda x, y: tape.concatenate([x, y, x]),
                          [(X2, Y2)]),
    "reshape": (lambda x: ad.reshape(x, (-1, 2)), lambda x: x.reshape(-1, 2), [(X2,), (X3,)]),
    "embedding": (lambda w: ad.embedding(w, IDS), lambda w: tape.embedding(w, IDS), [(X2,)]),
    "where": (lambda x, y: ad.where(ad.greater(x, y), x, y), lambda x, y: tape.where(
        x.data > y.data, x, y), [(X2, Y2), (X3, Y3), (X3, Y3[0])]),
    "cross_entropy": (lambda x: ad.cross_entropy(x, IDS[0]), lambda x: tape.cross_entropy(x, IDS[0]),
                      [(SIGNED2,)]),
    "cross_entropy 3-D": (lambda x: ad.cross_entropy(x, IDS, ignore_index=2, reduction="sum"),
                          lambda x: tape.cross_entropy(x, IDS, 2, "sum"), [(SIGNED3,)]),
    "number on the left": (lambda x: 2 - x + 3 * x + 1.0 / x + 2 ** x, lambda x: 2 - x + 3 * x
                           + 1.0 / x + 2 ** x, [(X2,)]),
    "number on the right": (lambda x: (x - 2) * 3 / 4 + 1, lambda x: (x - 2) * 3 / 4 + 1, [(X2,)]),
    "array on either side": (lambda x: X2 * x + x / Y2 - (Y2 - x) + (X2 @ X2.T) @ x,
                             lambda x: X2 * x + x / Y2 - (Y2 - x) + (X2 @ X2.T) @ x, [(SIGNED2,)]),
    "minus": (lambda x: -x, lambda x: -x, [(X2,), (X3,)]),
    "@": (lambda x, y: x @ y, lambda x, y: x @ y, [(X2, Y2.T), (X3, Y2.T)]),
}


@pytest.mark.parametrize("name, arrays", [(name, arrays) for name, (_, _, several) in API.items()
                                          for arrays in several],
                         ids=lambda v: v if isinstance(v, str) else "-".join(str(a.shape) for a in v))
def test_an_operator_of_the_api(name, arrays):
    static, eager, _ = API[name]
    check(static, eager, arrays)


def test_every_operator_of_the_api_is_checked():
    other = {"greater", "zeros_like", "ones_like", "neg", "Evaluator", "Node", "Op", "Variable",
             "batched_gradients", "from_tape", "gradients", "placeholder", "show",
             "topological_sort", "trace", "tracing"}
    assert {name.split()[0] for name in API} >= set(ad.__all__) - other


# Expressions of several nodes, which are no one Op's.
EXPRESSIONS = {"number on the left", "number on the right", "array on either side",
               "where"}


def first_arrays(names):
    return pytest.mark.parametrize("name, arrays", [(name, API[name][2][0]) for name in API
                                                    if name in names],
                                   ids=lambda v: v if isinstance(v, str) else "")


@first_arrays(API.keys() - {"array on either side"})            # its arrays are float64
def test_float32_is_kept(name, arrays):
    variables = [ad.Variable(letter) for letter in "xy"[:len(arrays)]]
    feed = {v: a.astype(np.float32) for v, a in zip(variables, arrays)}
    out = API[name][0](*variables)
    for result in ad.Evaluator([out, *ad.gradients(out, variables)]).run(feed):
        assert result.dtype == np.float32


@first_arrays(API.keys() - EXPRESSIONS)
def test_compute_and_gradient_of_the_op_itself(name, arrays):
    """``op.compute`` gives what the Evaluator gives, and ``op.gradient`` what `gradients` gives."""
    variables = [ad.Variable(letter) for letter in "xy"[:len(arrays)]]
    out = API[name][0](*variables)
    feed = dict(zip(variables, arrays))
    (value, *slopes) = ad.Evaluator([out, *ad.gradients(out, variables)]).run(feed)
    values = ad.Evaluator(out.inputs).run(feed)
    given = [node.attrs["value"] if node.op.name == "constant" else v
             for node, v in zip(out.inputs, values)]
    np.testing.assert_array_equal(out.op.compute(out, given), value)
    pulled = out.op.gradient(out, ad.ones_like(out))
    assert len(pulled) == len(out.inputs)
    by_node = [sum(p for p, x in zip(pulled, out.inputs) if x is variable) for variable in variables]
    for a, b in zip(ad.Evaluator(by_node).run(feed), slopes, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12)


def test_greater_is_0_or_1_in_the_dtype_of_the_operands_and_has_no_gradient():
    x, y = ad.Variable("x"), ad.Variable("y")
    out = ad.greater(x, y)
    for dtype in (np.float32, np.float64, np.int64):
        feed = {x: np.array([1, 2, 3], dtype), y: np.array([3, 2, 1], dtype)}
        value, a, b = ad.Evaluator([out, *ad.gradients(out, [x, y])]).run(feed)
        assert value.dtype == a.dtype == b.dtype == dtype
        assert value.tolist() == [0, 0, 1]
        assert a.tolist() == b.tolist() == [0, 0, 0]
    assert ad.Evaluator([ad.greater(x, 2)]).run({x: np.float32([1, 3])})[0].dtype == np.float32


def test_zeros_like_and_ones_like_keep_the_dtype():
    x = ad.Variable("x")
    for dtype in (np.float32, np.float64, np.int32):
        zeros, ones = ad.Evaluator([ad.zeros_like(x), ad.ones_like(x)]).run({x: np.ones((2, 3), dtype)})
        assert zeros.dtype == ones.dtype == dtype
        assert zeros.sum() == 0 and ones.sum() == 6


def test_the_rule_of_the_engine_is_the_one_that_runs():
    """A user's operator has one rule, which is called with an array, a Tensor or a Node."""
    seen = []

    def rule(g, x):
        seen.append(type(g))
        return g * 3 * x ** 2
    cube = tape.primitive(lambda x, /: x ** 3, rule, name="cube")
    x = ad.Variable("x")
    (curve,) = ad.gradients(ad.gradients(cube(x), [x])[0], [x])
    assert ad.Evaluator([cube(x), curve]).run({x: np.array([2.0])}) == [8, 12]
    assert seen == [ad.Node]
    cube(Tensor([2.0], requires_grad=True)).backward()
    assert seen == [ad.Node, np.ndarray]


def test_an_int_array_beside_floats_does_not_widen_them():
    x = ad.Variable("x")
    y = ad.Variable("y")
    value, slope = ad.Evaluator([x * y, *ad.gradients(x * y, [x])]).run(
        {x: np.float32([1, 2]), y: np.array([3, 4])})
    assert value.dtype == slope.dtype == np.float32
    assert slope.tolist() == [3, 4]


def test_a_zero_cotangent_gives_a_zero_gradient():
    x = ad.Variable("x")
    out = ad.where(ad.greater(x, 0), ad.sqrt(x), x)
    (slope,) = ad.Evaluator(ad.gradients(out, [x])).run({x: np.array([-1.0, 0.0, 4.0])})
    np.testing.assert_array_equal(slope, [1, 1, 0.25])


def test_every_fused_operator_is_among_the_cases():
    fused = {p.name for module in (tape.ops.fused, tape.ops.llama, tape.ops.normal, tape.ops.recurrent)
             for p in vars(module).values() if isinstance(p, Fused)}
    assert fused == {"gelu", "gelu_exact", "layer_norm", "cross_entropy", "causal_attention",
                     "causal_self_attention", "attention", "rms_norm", "swiglu", "rnn", "lstm", "gru"}
    assert fused <= {case.operator for case in CASES}


def test_sizes_that_differ_are_warned_of_and_the_axes_normalised():
    """Only how many axes layernorm names counts, and broadcast does not look at input_shape."""
    x, y = ad.Variable("x"), ad.Variable("y")
    for named, like in (([7], [4]), ((5, 4), (3, 4)), (7, 4)):
        out, expected = ad.layernorm(x, named), ad.layernorm(x, like)
        evaluator = ad.Evaluator([out, *ad.gradients(weighted(out), [x])])
        with pytest.warns(UserWarning, match=r"layernorm: normalized_shape is \([57].*\(2, 3, 4\)"):
            found = evaluator.run({x: SIGNED3})
        for a, b in zip(found, ad.Evaluator([expected, *ad.gradients(weighted(expected), [x])]).run(
                {x: SIGNED3}), strict=True):
            np.testing.assert_array_equal(a, b)
    with pytest.warns(UserWarning, match="layernorm: normalized_shape"):
        ad.Evaluator([ad.matmul_layernorm(x, y, [9])]).run({x: X2, y: Y2.T})
    with pytest.warns(UserWarning) as caught, warnings.catch_warnings():
        warnings.simplefilter("default")
        for _ in range(5):
            ad.Evaluator([ad.layernorm(x, [6])]).run({x: SIGNED2})
    assert len(caught) == 1


@pytest.mark.parametrize("array, input_shape", [(X2[0], (3, 4)), (X2[:1], (4,)), (X2, (4,))])
def test_the_gradient_of_broadcast_has_the_shape_of_the_value(array, input_shape):
    x = ad.Variable("x")
    out = ad.broadcast(x, input_shape=input_shape, target_shape=(2, 3, 4))
    value, slope = ad.Evaluator([out, *ad.gradients(out, [x])]).run({x: array})
    np.testing.assert_array_equal(value, np.broadcast_to(array, (2, 3, 4)))
    np.testing.assert_array_equal(slope, np.full(array.shape, 24 / array.size))
