"""Every operator: its line of the catalogue, that none lacks one, and what single operators refuse.

Values are in test_values.py and test_peers.py, broadcasting is in test_broadcasting.py; what happens at
kinks, ties and infinities is in test_conventions.py.
"""

import numpy as np
import pytest

import tape
from tape import Tensor, grad, ops
from tape.fusion import Fused
from tape.gradcheck.cases import CASES, DEFINITIONS
from tape.gradcheck import gradcheck
from tape.primitive import NUMPY_FUNCTIONS, Primitive
from tests.checks import check_op, fused_agrees_with_composed, leaf

# Public operators that are constants to the tape.
NOT_DIFFERENTIABLE = {"sign", "zeros_like", "ones_like", "floor", "ceil", "trunc", "rint", "round",
                      "floor_divide", "imag", "matrix_rank"}

# Those that are defined twice.
FUSED = {"gelu", "gelu_exact", "layer_norm", "cross_entropy", "causal_attention",
         "causal_self_attention", "attention", "rms_norm", "swiglu", "rnn", "lstm", "gru"}

NAMES = {case.operator for case in CASES}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_operator(case):
    check_op(case)


@pytest.mark.parametrize("case", [c for c in CASES if c.operator in FUSED], ids=lambda case: case.name)
def test_a_fused_operator_agrees_with_its_definition(case, kernel_set):
    fused_agrees_with_composed(case)


@pytest.mark.parametrize("case", [c for c in CASES if c.operator in {*FUSED, "softmax"}],
                         ids=lambda case: case.name)
def test_an_operator_that_has_kernels_with_each_set(case, kernel_set):
    check_op(case)


# --- completeness ---


def _primitives():
    found = {id(value): value for module in DEFINITIONS for value in vars(module).values()
             if isinstance(value, Primitive)}
    return sorted(found.values(), key=lambda operator: operator.name)


@pytest.mark.parametrize("operator", [p for p in _primitives() if p.differentiable],
                         ids=lambda operator: operator.name)
def test_every_differentiable_primitive_has_a_case(operator):
    assert operator.name in NAMES


def test_the_search_for_primitives_finds_them():
    found = {operator.name for operator in _primitives()}
    assert {"div", "matmul", "softmax", "layer_norm", "scatter_like", "count"} <= found
    assert {p.name for p in _primitives() if isinstance(p, Fused)} == FUSED


@pytest.mark.parametrize("name", ops.__all__)
def test_every_public_operator_has_a_case(name):
    assert (name in NAMES) != (name in NOT_DIFFERENTIABLE)


def test_the_package_offers_every_operator():
    for name in ops.__all__:
        assert getattr(tape, name) is getattr(ops, name)
        assert name in tape.__all__
    assert len(set(tape.__all__)) == len(tape.__all__)
    assert len(set(ops.__all__)) == len(ops.__all__)


def test_case_names_are_unique():
    assert len({case.name for case in CASES}) == len(CASES)


@pytest.mark.parametrize("name", tape.linalg.__all__)
def test_every_function_of_linear_algebra_has_a_case_and_is_numpys(name):
    assert (name in NAMES) != (name in NOT_DIFFERENTIABLE)
    assert getattr(tape.linalg, name).__doc__
    if name not in NOT_DIFFERENTIABLE:
        assert NUMPY_FUNCTIONS[getattr(np.linalg, name)] is getattr(tape.linalg, name)


@pytest.mark.parametrize("name", ops.__all__)
def test_every_public_operator_is_documented(name):
    assert getattr(ops, name).__doc__


# --- methods: each one differentiates or is listed as one that does not ---

METHODS = {
    "T": lambda t: t.T,
    "abs": lambda t: t.abs(),
    "astype": lambda t: t.astype(np.float64),
    "broadcast_to": lambda t: t.broadcast_to((2, 2, 3)),
    "clip": lambda t: t.clip(0.6, 1.1),
    "cumprod": lambda t: t.cumprod(1),
    "cumsum": lambda t: t.cumsum(),
    "diagonal": lambda t: t.diagonal(1),
    "dot": lambda t: t.dot(np.ones((3, 2))),
    "exp": lambda t: t.exp(),
    "expand_dims": lambda t: t.expand_dims(1),
    "gelu": lambda t: t.gelu(),
    "log": lambda t: t.log(),
    "log_softmax": lambda t: t.log_softmax(),
    "logsumexp": lambda t: t.logsumexp(1, keepdims=True),
    "std": lambda t: t.std(0), "norm": lambda t: t.norm(1), "flatten": lambda t: t.flatten(),
    "mT": lambda t: t.mT,
    "matmul": lambda t: t.matmul(np.ones((3, 2))),
    "max": lambda t: t.max(axis=1),
    "mean": lambda t: t.mean(axis=0, keepdims=True),
    "min": lambda t: t.min(),
    "prod": lambda t: t.prod(axis=1, keepdims=True),
    "ravel": lambda t: t.ravel(),
    "relu": lambda t: t.relu(),
    "repeat": lambda t: t.repeat(2, axis=0),
    "reshape": lambda t: t.reshape(3, -1),
    "sigmoid": lambda t: t.sigmoid(),
    "softmax": lambda t: t.softmax(axis=0),
    "split": lambda t: t.split([1], axis=1),
    "sqrt": lambda t: t.sqrt(),
    "squeeze": lambda t: t.squeeze(),
    "sum": lambda t: t.sum(0),
    "swapaxes": lambda t: t.swapaxes(0, 1),
    "take": lambda t: t.take([1, 1], axis=1),
    "tanh": lambda t: t.tanh(),
    "trace": lambda t: t.trace(),
    "transpose": lambda t: t.transpose(1, 0),
    "var": lambda t: t.var(1, ddof=1),
    # Python's operators
    "__abs__": abs,
    "__add__": lambda t: t + 2,
    "__getitem__": lambda t: t[1:, [0, 2]],
    "__iter__": lambda t: list(t),
    "__matmul__": lambda t: t @ t.T,
    "__mod__": lambda t: t % 0.47,
    "__mul__": lambda t: t * t,
    "__neg__": lambda t: -t,
    "__pos__": lambda t: +(t * 1),
    "__pow__": lambda t: t ** 3,
    "__radd__": lambda t: 2 + t,
    "__rmatmul__": lambda t: np.ones((2, 2)) @ t,
    "__rmod__": lambda t: 5.03 % t,
    "__rmul__": lambda t: 2 * t,
    "__rpow__": lambda t: 2 ** t,
    "__rsub__": lambda t: 2 - t,
    "__rtruediv__": lambda t: 2 / t,
    "__sub__": lambda t: t - 2,
    "__truediv__": lambda t: t / 2,
}

# What describes a tensor, hands out its values, or drives the tape.
NOT_DIFFERENTIATING = {
    "all", "any", "argmax", "argmin", "argsort", "round", "__floordiv__", "__rfloordiv__",
    "backward", "data", "detach", "dtype", "grad", "is_leaf", "is_variable", "item", "ndim", "numpy",
    "requires_grad", "retain_grad", "shape", "size", "tolist"}


def test_every_public_method_is_on_one_of_the_two_lists():
    public = {name for name in dir(leaf(1.0)) if not name.startswith("_")}
    assert public == {n for n in METHODS if not n.startswith("_")} | {
        n for n in NOT_DIFFERENTIATING if not n.startswith("_")}


@pytest.mark.parametrize("name", METHODS)
def test_methods_differentiate(name):
    array = np.array([[0.5, 1.3, 0.9], [1.7, 0.7, 1.2]])
    result = METHODS[name](leaf(array))
    for tensor in result if isinstance(result, list) else [result]:
        assert isinstance(tensor, Tensor) and tensor.requires_grad
    assert gradcheck(METHODS[name], [array], order=2)


def _differentiates(operator):
    return getattr(operator, "differentiable", True)     # functions that call several operators do


def _name(operator):
    return getattr(operator, "name", operator.__name__).lstrip("_").removeprefix("numpy_")


@pytest.mark.parametrize(
    "function", [f for f, ours in NUMPY_FUNCTIONS.items() if _differentiates(ours)],
    ids=lambda f: f.__name__)
def test_numpy_functions_lead_to_operators_that_differentiate(function):
    # What NumPy's own function calls must be one of ours, so that no gradient is silently lost.
    assert _name(NUMPY_FUNCTIONS[function]) in NAMES


def test_these_functions_of_numpy_lead_to_operators_without_a_derivative():
    assert {_name(ours) for ours in NUMPY_FUNCTIONS.values() if not _differentiates(ours)} == {
        *NOT_DIFFERENTIABLE, "equal", "not_equal", "less", "less_equal", "greater", "greater_equal",
        "logical_and", "logical_or", "logical_xor", "logical_not", "isnan", "isinf", "isfinite",
        "signbit"}


# --- split, gelu, moveaxis ---


@pytest.mark.parametrize("sections", [5, 2, [1, 3], [0, 10], [3, 2]])
def test_split_cuts_where_numpy_does(sections):
    x = np.arange(10.0)
    ours, numpys = ops.split(leaf(x), sections), np.split(x, sections)
    assert [t.tolist() for t in ours] == [a.tolist() for a in numpys]


def test_split_into_unequal_pieces_is_refused():
    with pytest.raises(ValueError, match="split: axis 0 of length 10"):
        ops.split(leaf(np.zeros(10)), 3)


def test_gelu_is_the_tanh_approximation():
    x = np.linspace(-3, 3, 7)
    tanh = np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x ** 3))
    np.testing.assert_allclose(ops.gelu(x), 0.5 * x * (1 + tanh), rtol=1e-14)


def test_moveaxis_refuses_an_axis_that_is_not_there():
    with pytest.raises(ValueError):
        ops.moveaxis(leaf(np.zeros((2, 3))), 0, 5)


# --- dropout ---


def test_dropout_scales_what_it_keeps_and_its_gradient_has_the_forward_mask():
    x = leaf(np.ones(1000))
    out = ops.dropout(x, 0.25, rng=3)
    out.sum().backward()
    assert set(np.unique(out.data)) == {0.0, 1 / 0.75}
    assert 0.7 < np.mean(out.data != 0) < 0.8
    np.testing.assert_array_equal(x.grad, out.data)


def test_dropout_takes_its_mask_from_the_generator_it_is_given():
    x = leaf(np.ones(50))
    rng = np.random.default_rng(1)
    first, second = ops.dropout(x, 0.5, rng), ops.dropout(x, 0.5, rng)
    assert (first.data != second.data).any()
    np.testing.assert_array_equal(ops.dropout(x, 0.5, 1).data, first.data)


@pytest.mark.parametrize("p", [-0.1, 1, 1.5, float("nan")])
def test_dropout_refuses_other_probabilities(p):
    with pytest.raises(ValueError, match=r"dropout: p must be in \[0, 1\)"):
        ops.dropout(leaf([1.0]), p, 0)


# --- joining many, in linear time ---


@pytest.mark.parametrize("join, shape", [(ops.concatenate, (1,)), (ops.stack, ())])
def test_joining_twenty_thousand_tensors_ends(join, shape):
    # An engine that takes the joined tensors apart pairwise, or whose join copies the whole
    # gradient for each piece, takes minutes here.
    pieces = [leaf(np.full(shape, i)) for i in range(20_000)]
    joined = join(pieces)
    (joined * np.arange(20_000)).sum().backward()
    assert joined.shape == (20_000,)
    assert [piece.grad.item() for piece in pieces] == list(range(20_000))
    assert pieces[0].grad.shape == shape


@pytest.mark.parametrize("join", [ops.concatenate, ops.stack])
def test_one_tensor_joined_with_itself_gets_both_pieces(join):
    x = leaf([1.0, 2.0])
    (join([x, x]) * join([[1.0, 2.0], [30.0, 40.0]])).sum().backward()
    np.testing.assert_array_equal(x.grad, [31.0, 42.0])


def test_concatenate_without_an_axis_flattens():
    x = leaf([[1.0, 2.0]])
    out = ops.concatenate([x, x], axis=None)
    out.backward([1.0, 2.0, 30.0, 40.0])
    np.testing.assert_array_equal(out.data, [1, 2, 1, 2])
    np.testing.assert_array_equal(x.grad, [[31, 42]])


def test_joined_constants_take_no_gradient_and_do_not_promote():
    x = leaf([1.0], np.float32)
    out = ops.concatenate([np.array([1, 2]), x])
    out.sum().backward()
    assert out.dtype == np.float32
    np.testing.assert_array_equal(x.grad, [1.0])


# --- layer norm ---


@pytest.mark.parametrize("shape", [(3,), (1,), (2, 4)])
def test_layer_norm_refuses_a_weight_of_another_shape(shape):
    with pytest.raises(ValueError, match="layer_norm: weight"):
        ops.layer_norm(leaf(np.ones((2, 4))), leaf(np.ones(shape)))


@pytest.mark.parametrize("shape", [(3,), (2, 4)])
def test_layer_norm_refuses_a_bias_of_another_shape(shape):
    # In the forward: an error that waits for backward() points at the wrong line.
    with pytest.raises(ValueError, match="layer_norm"):
        ops.layer_norm(leaf(np.ones((2, 4))), None, leaf(np.ones(shape)))


def test_layer_norm_of_a_constant_row_is_its_bias():
    x, bias = leaf(np.full((2, 4), 3.0)), leaf(np.arange(4.0))
    out = ops.layer_norm(x, None, bias)
    np.testing.assert_array_equal(out.data, [bias.data, bias.data])
    assert np.isfinite(grad(out.sum(), x).data).all()


# --- attention ---


def test_causal_attention_does_not_see_the_future():
    rng = np.random.default_rng(0)
    q, k, v = (rng.standard_normal((5, 4)) for _ in range(3))
    whole = ops.causal_attention(q, k, v)
    for n in range(1, 5):
        np.testing.assert_allclose(ops.causal_attention(q[:n], k[:n], v[:n]), whole[:n], rtol=1e-12)
        # with a prefix already seen, the last queries alone give the same rows
        np.testing.assert_allclose(ops.causal_attention(q[n:], k, v), whole[n:], rtol=1e-12)


def test_causal_attention_refuses_more_queries_than_keys():
    with pytest.raises(ValueError, match="causal_attention: .* T <= S"):
        ops.causal_attention(np.ones((3, 2)), np.ones((2, 2)), np.ones((2, 2)))


# --- plain operands: what NumPy does with lists and Python's numbers ---

PLAIN_CALLS = {
    "add": ([1, 2], [3, 4]), "sub": ([1, 2], [3, 5]), "mul": ([1, 2], [3, 4]), "div": ([1.0], [4]),
    "neg": ([1, -2],), "power": ([1.0, 2.0], [2.0, 3.0]), "maximum": ([1, 5], [3, 4]),
    "matmul": ([[1.0, 2.0]], [[3.0], [4.0]]), "layer_norm": ([[1.0, 2.0]],), "norm": ([3.0, 4.0],),
    "softmax": ([1.0, 2.0],), "sum": ([[1, 2], [3, 4]],), "mean": ([1, 2],), "var": ([1.0, 2.0],),
    "transpose": ([[1, 2], [3, 4]],), "getitem": ([1, 2, 3], [0, 0]), "split": ([1, 2, 3, 4], 2),
    "where": ([True, False], [1, 2], [3, 4]), "gelu": ([1.0, -1.0],), "relu": ([-1, 2],),
    "concatenate": ([[1, 2], [3]],), "stack": ([[1, 2], [3, 4]],), "pad": ([1, 2], 1),
    "embedding": ([[1.0, 2.0], [3.0, 4.0]], [1, 1]), "cross_entropy": ([[1.0, 2.0]], [1]),
    "causal_attention": ([[1.0, 2.0]], [[1.0, 2.0]], [[3.0, 4.0]]), "astype": ([1, 2], np.float32),
    "dropout": ([1.0, 2.0], 0.5, 0), "clip": ([1, 5], 2, 3), "squeeze": ([[1, 2]],)}


@pytest.mark.parametrize("name", PLAIN_CALLS)
def test_lists_are_arrays(name):
    operator, operands = getattr(tape, name), PLAIN_CALLS[name]
    arrays = [np.array(x) if isinstance(x, list) and name not in ("concatenate", "stack") else x
              for x in operands]
    found, expected = operator(*operands), operator(*arrays)
    several = isinstance(found, list)
    for a, b in zip(found if several else [found], expected if several else [expected], strict=True):
        assert not isinstance(a, list)
        np.testing.assert_array_equal(a, b)


def rotation(t):
    return tape.stack([[tape.cos(t), -tape.sin(t), 0.0], [tape.sin(t), tape.cos(t), 0], (0, 0.0, 1)])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_stack_joins_lists_of_lists_of_numbers_and_tensors(dtype):
    t = leaf(0.3, dtype)
    c, s = np.cos(t.data), np.sin(t.data)
    turned = rotation(t)
    assert turned.dtype == dtype and turned.shape == (3, 3)
    np.testing.assert_array_equal(turned.data, [[c, -s, 0], [s, c, 0], [0, 0, 1]])
    (turned * np.arange(9, dtype=dtype).reshape(3, 3)).sum().backward()
    np.testing.assert_allclose(t.grad, -s * 4 + c * 2, rtol=1e-6)
    np.testing.assert_array_equal(rotation(t.data), turned.data)        # of arrays alone: an array
    assert type(rotation(t.data)) is np.ndarray
    x = leaf([1.0, 2.0], dtype)
    deep = tape.stack([[[x[0], 1.0]], [x]], axis=1)                     # (1, 2, 2)
    np.testing.assert_array_equal(deep.data, [[[1, 1], [1, 2]]])
    assert deep.dtype == dtype
    np.testing.assert_array_equal(np.stack([x, [x[1], 5.0]]).data, [[1, 2], [2, 5]])
    assert gradcheck(rotation, [np.array(0.3)])


def test_rows_of_different_lengths_are_no_stack():
    x = leaf([1.0, 2.0])
    with pytest.raises(ValueError, match="stack: all input arrays must have the same shape"):
        tape.stack([[x[0]], [x[0], x[1]]])


@pytest.mark.parametrize("found, expected", [
    (lambda: tape.add([1, 2], [3, 4]), [4, 6]), (lambda: tape.mul([1, 2], 3), [3, 6]),
    (lambda: tape.div(1.0, 0.0), np.inf), (lambda: tape.div([1, -1], 0), [np.inf, -np.inf]),
    (lambda: tape.neg([1, 2]), [-1, -2]), (lambda: tape.power(0.0, -1), np.inf),
    (lambda: tape.add(True, True), True), (lambda: tape.sub((3, 4), (1, 1)), [2, 3])])
def test_plain_numbers_and_lists_by_hand(found, expected):
    with np.errstate(all="ignore"):
        np.testing.assert_array_equal(found(), expected)


def test_a_static_graph_of_numbers_divides_as_numpy_does():
    import tape.lazy as ad
    x = ad.Variable("x")
    np.testing.assert_array_equal(ad.Evaluator([x / x]).run({x: 0.0}), [np.nan])
    np.testing.assert_array_equal(ad.add.compute(x + x, [[1, 2], [3, 4]]), [4, 6])


# --- the axes of a transpose, however they are given ---


@pytest.mark.parametrize("axes", [(2, 0, 1), [2, 0, 1], np.array([2, 0, 1]), [np.array(2), 0, -2],
                                  tuple(np.argsort([1, 2, 0])), None])
def test_axes_of_a_transpose_may_be_any_integers(axes):
    x, g = leaf(np.arange(24.0).reshape(2, 3, 4)), np.random.default_rng(0).standard_normal(24)
    for out in (np.transpose(x, axes), ops.transpose(x, axes), x.transpose(axes)):
        x.grad = None
        out.backward(g.reshape(out.shape))
        order = (2, 1, 0) if axes is None else (2, 0, 1)
        np.testing.assert_array_equal(out.data, x.data.transpose(order))
        np.testing.assert_array_equal(x.grad.transpose(order), g.reshape(out.shape))


@pytest.mark.parametrize("axes", ["abc", 1.5, (None,), (0, 1), (0, 1, 2, 3)])
def test_bad_axes_of_a_transpose_are_named(axes):
    with pytest.raises(ValueError, match="transpose: axes must name each of the 3 axes once, got"):
        np.transpose(leaf(np.zeros((2, 3, 4))), axes)


def test_a_transposed_number_is_a_number():
    assert type(ops.transpose(np.float32(2))) is np.float32
