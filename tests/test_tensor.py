"""The Tensor itself: how it is made, what it says about itself, how it behaves in Python.

How NumPy's functions treat it is in test_numpy.py.
"""

import copy
import math
import pickle

import numpy as np
import pytest

import tape
from tape import Tensor, ops
from tests.checks import leaf

# --- construction ---


@pytest.mark.parametrize("data, dtype", [
    (3, np.float32), (3.5, np.float32), ([1, 2], np.float32), ([[1.0], [2.0]], np.float32),
    ((1, 2.5), np.float32), ([], np.float32), (True, np.bool_), ([True, False], np.bool_),
    (np.array([1.0]), np.float64), (np.array([1.0], np.float32), np.float32),
    (np.array([1.0], np.float16), np.float16), (np.array([1, 2]), np.int64),
    (np.array([1], np.uint8), np.uint8), (np.float64(1), np.float64), (np.float32(1), np.float32),
    (np.int64(1), np.int64), (range(3), np.float32)])
def test_dtype_of_what_it_is_made_from(data, dtype):
    t = Tensor(data)
    assert t.dtype == dtype
    assert t.shape == np.shape(data)
    np.testing.assert_array_equal(t.data, np.array(data))


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("other", [
    lambda x: pickle.loads(pickle.dumps(x)), lambda x: x.astype(x.dtype.newbyteorder())])
def test_another_object_for_the_dtype_and_another_order_of_bytes_change_nothing(dtype, other):
    x = np.full(4000, 100, dtype)                # of which the sum of squares is no float16
    array = other(x)
    assert array.dtype is not x.dtype
    given, assigned = Tensor(array, requires_grad=True), Tensor(x, requires_grad=True)
    assigned.data = array
    plain = Tensor(x, requires_grad=True)
    for t in (given, assigned, plain):
        y = tape.norm(t) + tape.layer_norm(t).sum() + t[0] * t[1]
        y.backward()
        assert t.dtype is t.grad.dtype is y.dtype is x.dtype
    np.testing.assert_array_equal(given.grad, plain.grad)
    np.testing.assert_array_equal(assigned.grad, plain.grad)
    if array.dtype == x.dtype:
        np.testing.assert_array_equal(tape.norm(array), tape.norm(x))


def test_dtype_can_be_given():
    assert Tensor(np.array([1, 2]), requires_grad=True, dtype=np.float32).dtype == np.float32


def test_data_is_copied():
    array = np.array([1.0, 2.0])
    t = Tensor(array)
    array[0] = 7
    assert t.tolist() == [1, 2]
    u = Tensor(t)
    u.data[0] = 9
    assert t.tolist() == [1, 2]


@pytest.mark.parametrize("data", [np.array([1, 2]), np.array([True]), np.int32(3), True])
def test_integers_with_requires_grad_are_refused(data):
    with pytest.raises(TypeError, match="requires_grad: only floating-point .* 1.0 rather than 1"):
        Tensor(data, requires_grad=True)
    t = Tensor(data)
    with pytest.raises(TypeError, match="requires_grad: only floating-point"):
        t.requires_grad = True
    assert t.requires_grad is False


@pytest.mark.parametrize("data", ["text", None, object(), [1, None], 1j, np.array(["a"]), {}])
def test_other_things_are_refused(data):
    with pytest.raises(TypeError, match="Tensor: "):
        Tensor(data)


def test_ragged_lists_and_lists_of_graph_tensors_are_refused_with_advice():
    with pytest.raises(ValueError, match="Tensor: .*tape.stack or tape.concatenate"):
        Tensor([[1, 2], [3]])
    with pytest.raises(TypeError, match="tape.stack"):
        Tensor([leaf(1.0), leaf(2.0)])


# --- dtype is kept ---

FLOAT32 = [
    lambda t: t + 1, lambda t: 2.5 * t, lambda t: t / 3, lambda t: 1 / t, lambda t: t ** 2,
    lambda t: t ** 0.5, lambda t: 2 ** t, lambda t: t - np.float64(2), lambda t: np.float64(2) * t,
    lambda t: t ** np.float64(2), lambda t: np.sqrt(64) * t, lambda t: t * np.int64(3),
    lambda t: t * np.array([1, 2, 3]), lambda t: np.array([1, 2, 3]) / t,
    lambda t: t * (t.data > 1), lambda t: t + True, lambda t: t.mean(), lambda t: t.var(ddof=1),
    lambda t: ops.std(t), lambda t: ops.maximum(t, 0), lambda t: ops.where(t > 1, t, np.float64(0)),
    lambda t: ops.where(t > 1, np.array([1, 2, 3]), t), lambda t: ops.norm(t),
    lambda t: t.sum() * 2,
    lambda t: t.sum() / 3, lambda t: t.sum() * np.float64(3), lambda t: t.sum() ** 2.5,
    lambda t: t @ np.array([1, 2, 3]), lambda t: ops.power(np.float64(2), t),
    lambda t: ops.clip(t, 0.5, 2), lambda t: ops.dropout(t, 0.3, 0), lambda t: ops.pad(t, 1),
    lambda t: ops.layer_norm(t), lambda t: ops.concatenate([t, [1, 2]]),
    lambda t: ops.cross_entropy(t, 1), lambda t: t[[0, 0]], lambda t: t + [1, 2, 3],
    lambda t: t * Tensor(2), lambda t: t * Tensor([1.5, 2, 3]),
]


@pytest.mark.parametrize("number", range(len(FLOAT32)))
def test_float32_stays_float32(number):
    t = leaf([0.5, 1.5, 2.5], np.float32)
    result = FLOAT32[number](t)
    assert result.dtype == np.float32
    result.sum().backward()
    assert t.grad.dtype == np.float32


def test_an_integer_tensor_is_as_weak_as_an_integer_array():
    t = leaf([1.0, 2.0], np.float32)
    assert (t * Tensor(np.array([1, 2]))).dtype == np.float32


def test_a_list_of_python_numbers_is_weak():
    # A Tensor made from it would be float32, so as an operand it must not promote either.
    assert (leaf([1.0, 2.0], np.float32) * [0.5, 1.5]).dtype == np.float32


@pytest.mark.parametrize("join, expected", [
    (lambda t: tape.stack([t[0], 1.0]), [5, 1]), (lambda t: np.hstack([0.5, t]), [0.5, 5, 6]),
    (lambda t: np.append(t, 7), [5, 6, 7]), (lambda t: np.append([0.5], t), [0.5, 5, 6]),
    (lambda t: np.block([[t, 0.5]]), [[5, 6, 0.5]]), (lambda t: np.concatenate([[1], t]), [1, 5, 6]),
    (lambda t: np.vstack([[1.0, 2.0], t]), [[1, 2], [5, 6]]),
    (lambda t: np.column_stack([[1.0, 2.0], t]), [[1, 5], [2, 6]]),
    (lambda t: np.dstack([[1.0, 2.0], t]), [[[1, 5], [2, 6]]])])
def test_numbers_and_lists_beside_a_tensor_are_weak_where_they_are_joined(join, expected):
    for dtype in (np.float32, np.float64):
        joined = join(leaf([5.0, 6.0], dtype))
        np.testing.assert_array_equal(joined.data, expected)
        assert joined.dtype == dtype
    wide = tape.hstack([leaf([1.0], np.float32), np.zeros(1)])          # an array is not
    assert wide.dtype == np.float64


def test_float64_arrays_promote_as_in_numpy_and_the_gradient_does_not():
    t = leaf([1.0, 2.0], np.float32)
    y = t * np.array([1.0, 2.0])
    y.sum().backward()
    assert y.dtype == np.float64 and t.grad.dtype == np.float32


def test_integer_tensors_stay_integers():
    t = Tensor(np.array([1, 2]))
    for result in (t + 1, t * t, t + np.array([3, 4]), -t, t.sum(), t.reshape(2, 1)):
        assert result.dtype == np.int64
    assert (t + np.array([3, 4])).tolist() == [4, 6]


def test_whole_numbers_keep_all_their_digits():
    # 2^24 + 1 has no float32; beside a float64 tensor it must not pass through one.
    big = np.array([2 ** 24 + 1, 0])
    t = leaf([1.0, 2.0])
    assert ops.where(Tensor(np.array([True, False])), big, t).tolist() == [2 ** 24 + 1, 2]
    assert (t * 0 + big).tolist() == [2 ** 24 + 1, 0]


def test_a_cast_to_integers_does_not_pretend_to_be_differentiable():
    t = leaf([1.5, 2.5])
    result = t.astype(np.int64)
    assert result.tolist() == [1, 2] and result.dtype == np.int64
    assert not result.requires_grad


def test_a_cast_between_floats_casts_the_gradient_back():
    t = leaf([1.5, 2.5], np.float32)
    y = t.astype(np.float64) * 2
    y.sum().backward()
    assert y.dtype == np.float64 and t.grad.dtype == np.float32


# --- data, shape, copies ---


def test_setting_data():
    t = leaf([1.0, 2.0], np.float32)
    t.data = [3, 4]
    assert t.tolist() == [3, 4] and t.dtype == np.float32
    t.data = np.array([5.0, 6.0])
    assert t.dtype == np.float32
    t.data -= 1
    assert t.tolist() == [4, 5]
    t.data[0] = 9
    assert t.tolist() == [9, 5]
    with pytest.raises(ValueError, match=r"data: the new array must have shape \(2,\), got \(3,\)"):
        t.data = np.zeros(3)
    s = leaf(1.0, np.float32)
    s.data = 2
    s.data += 1
    assert s.item() == 3.0 and s.dtype == np.float32 and isinstance(s.data, np.ndarray)


def test_setting_grad():
    t = leaf([1.0, 2.0], np.float32)
    t.grad = [1, 2]
    assert t.grad.dtype == np.float32
    (t * 1).sum().backward()
    assert t.grad.tolist() == [2, 3]
    with pytest.raises(ValueError, match=r"grad: .* \(2,\); got \(1,\)"):
        t.grad = np.zeros(1)
    t.grad = None
    assert t.grad is None


def test_requires_grad_can_be_set_on_leaves_alone():
    t = Tensor([1.0, 2.0])
    t.requires_grad = True
    y = t * 2
    assert y.requires_grad and not y.is_leaf and t.is_leaf
    with pytest.raises(TypeError, match="requires_grad: .*detach"):
        y.requires_grad = False


def test_what_it_says_about_its_shape():
    t = Tensor(np.zeros((2, 3, 4)))
    assert (t.shape, t.ndim, t.size, len(t)) == ((2, 3, 4), 3, 24, 2)
    s = Tensor(1.0)
    assert (s.shape, s.ndim, s.size) == ((), 0, 1)
    assert isinstance(s.data, np.ndarray) and s.data.shape == ()
    assert isinstance((s * 2).data, np.ndarray)
    assert t.T.shape == (4, 3, 2)


def test_unknown_attributes_are_refused():
    with pytest.raises(AttributeError):
        Tensor(1.0).no_such_thing
    with pytest.raises(AttributeError):
        Tensor(1.0).no_such_thing = 1


def test_item_tolist_and_numpy():
    assert Tensor([[2.5]]).item() == 2.5 and type(Tensor(2).item()) is float
    assert leaf(3.0).item() == 3.0
    with pytest.raises(ValueError, match=r"item: .* shape \(2,\)"):
        Tensor([1.0, 2.0]).item()
    assert Tensor([[1, 2]]).tolist() == [[1.0, 2.0]]
    assert isinstance(leaf([1.0]).numpy(), np.ndarray)


def test_detach_is_a_copy():
    t = leaf([1.0, 2.0])
    for source in (t, t.exp(), leaf(1.0), leaf(1.0) * 2):
        d = source.detach()
        assert d.is_leaf and not d.requires_grad and d.dtype == source.dtype
        assert not np.shares_memory(d.data, source.data)
        d.data += 1


def test_reshape_and_transpose_take_their_arguments_either_way():
    t = Tensor(np.zeros((2, 3, 4)))
    assert t.reshape(6, 4).shape == t.reshape((6, 4)).shape == t.reshape([6, -1]).shape == (6, 4)
    assert t.transpose(2, 0, 1).shape == t.transpose((2, 0, 1)).shape == (4, 2, 3)
    assert t.transpose().shape == (4, 3, 2)
    assert t.reshape(-1).shape == (24,)


# --- Python's protocols ---


def test_len_iter_contains():
    t = leaf([[1.0, 2.0], [3.0, 4.0]])
    rows = list(t)
    assert [row.tolist() for row in rows] == [[1, 2], [3, 4]]
    (rows[1] * 2).sum().backward()
    assert t.grad.tolist() == [[0, 0], [2, 2]]
    assert 3.0 in t and 5.0 not in t
    a, b = t
    assert b.tolist() == [3, 4]
    for function in (len, iter):
        with pytest.raises(TypeError, match=r"a tensor of shape \(\)"):
            function(leaf(1.0))


def test_truth():
    assert bool(leaf(1.0)) is True and bool(Tensor([[0.0]])) is False
    for several in ([1.0, 2.0], np.zeros(0)):
        with pytest.raises(ValueError, match=r"bool: .*ambiguous"):
            bool(Tensor(several))


def test_conversion_to_a_number_must_be_asked_for_in_a_graph():
    assert float(Tensor(2.5)) == 2.5 and int(Tensor(2.5)) == 2
    for function in (float, int, math.exp):
        with pytest.raises(TypeError, match=r"t.item\(\).*For math.exp\(t\) write tape.exp"):
            function(leaf(1.0))
    with pytest.raises(ValueError, match="one element"):
        float(Tensor([1.0, 2.0]))


@pytest.mark.parametrize("tensor, text", [
    (Tensor([1.0, 2.0]), "Tensor([1., 2.])"), (Tensor(2), "Tensor(2.)"),
    (leaf([1.0, 2.0], np.float32), "Tensor([1., 2.], requires_grad=True)"),
    (leaf(1.5), "Tensor(1.5, dtype=float64, requires_grad=True)"),
    (leaf([1.0], np.float32) * 2, "Tensor([2.], from=mul)"), (Tensor([]), "Tensor([])"),
    (Tensor([[1.0], [2.0]]), "Tensor([[1.],\n        [2.]])"),
    (Tensor(True), "Tensor(True, dtype=bool)")])
def test_repr(tensor, text):
    assert repr(tensor) == str(tensor) == text


def test_repr_of_a_large_tensor_is_short():
    assert len(repr(leaf(np.zeros(100_000)))) < 200


def test_format():
    assert f"{leaf(1.23456):.2f}" == "1.23" and f"{Tensor([[2.0]]):.1e}" == "2.0e+00"
    assert f"{Tensor([1.0, 2.0])}" == "Tensor([1., 2.])"
    assert f"loss {leaf(1.5) * 2:6.3f}" == "loss  3.000"


def test_setitem_is_refused_and_shows_the_rewrite():
    for t in (leaf([1.0, 2.0]), Tensor([1.0]), leaf([1.0]) * 2):
        with pytest.raises(TypeError, match=r"tape.where\(mask, value, t\).*tape.concatenate"):
            t[0] = 1.0


@pytest.mark.parametrize("compare", ["__lt__", "__le__", "__gt__", "__ge__", "__eq__", "__ne__"])
@pytest.mark.parametrize("other", [2.0, np.array([2.0, 1.0]), Tensor([2.0, 1.0]), np.float32(2)])
def test_comparisons_give_plain_boolean_arrays(compare, other):
    t = leaf([1.0, 2.0])
    result = getattr(t, compare)(other)
    assert type(result) is np.ndarray and result.dtype == bool
    expected = getattr(t.data, compare)(getattr(other, "data", other))
    assert result.tolist() == expected.tolist()


def test_comparison_with_an_array_on_the_left():
    result = np.array([2.0, 1.0]) < leaf([1.0, 2.0])
    assert type(result) is np.ndarray and result.tolist() == [False, True]


def test_hash_is_by_identity():
    a, b = leaf([1.0, 2.0]), leaf([1.0, 2.0])
    assert len({a, b}) == 2 and {a: "a"}[a] == "a" and hash(a) == hash(a)


def test_python_sum_max_and_sorted():
    parts = [leaf(3.0), leaf(1.0), leaf(2.0)]
    total = sum(parts)
    total.backward()
    assert total.item() == 6 and [p.grad.item() for p in parts] == [1, 1, 1]
    assert max(parts) is parts[0] and sorted(parts)[0] is parts[1]


# --- copies and pickles ---

COPIES = {"pickle": lambda t: pickle.loads(pickle.dumps(t)), "deepcopy": copy.deepcopy,
          "copy": copy.copy}


@pytest.mark.parametrize("name", COPIES)
def test_copy_of_a_leaf_keeps_its_gradient_and_shares_nothing(name):
    t = leaf([1.0, 2.0], np.float32)
    (t * t).sum().backward()
    u = COPIES[name](t)
    assert u.requires_grad and u.is_leaf and u.dtype == np.float32
    assert u.tolist() == [1, 2] and u.grad.tolist() == [2, 4]
    assert not np.shares_memory(u.data, t.data) and not np.shares_memory(u.grad, t.grad)
    (u * 3).sum().backward()
    assert u.grad.tolist() == [5, 7] and t.grad.tolist() == [2, 4]


@pytest.mark.parametrize("name", COPIES)
def test_copy_of_a_recorded_result_is_a_constant(name):
    for y in (leaf([1.0, 2.0]) * 2, leaf(1.0) * 2):
        u = COPIES[name](y)
        assert u.is_leaf and not u.requires_grad and u.tolist() == y.tolist() and u.grad is None


@pytest.mark.parametrize("name", COPIES)
def test_copy_of_a_subclass(name):
    p = Special([1.0, 2.0], requires_grad=True)
    q = COPIES[name](p)
    assert type(q) is Special and q.requires_grad and q.tolist() == [1, 2]


class Special(Tensor):
    """At the top of the module, so that pickle finds it."""


def test_a_container_copied_deeply_keeps_its_sharing():
    t = leaf([1.0])
    a, b = copy.deepcopy([t, t])
    assert a is b and a is not t


# --- errors name the operator ---


@pytest.mark.parametrize("call, error, message", [
    (lambda t: t + np.zeros(3), ValueError, r"add: .*\(2, 2\), \(3,\)"),
    (lambda t: t @ np.zeros((3, 2)), ValueError, r"matmul: .*\(2, 2\), \(3, 2\)"),
    (lambda t: t @ 2, ValueError, "matmul: .*does not have enough dimensions"),
    (lambda t: 2 @ t, ValueError, "matmul: .*does not have enough dimensions"),
    (lambda t: t.reshape(3, 3), ValueError, "reshape: "),
    (lambda t: t.sum(axis=2), ValueError, "sum: "),
    (lambda t: t.transpose(0, 0), ValueError, "transpose: "),
    (lambda t: t * "a", TypeError, "mul: .*got str"),
    (lambda t: t * None, TypeError, "mul: .*None"),
    (lambda t: t + 1j, TypeError, "add: .*complex"), (lambda t: t * {}, TypeError, "mul: .*dict"),
    (lambda t: t.squeeze(0), ValueError, "squeeze: "),
    (lambda t: t.broadcast_to((3, 3)), ValueError, "broadcast_to: "),
    (lambda t: t.softmax(axis=5), ValueError, "softmax: "),
    (lambda t: ops.concatenate([t, np.zeros((2, 3))]), ValueError, "concatenate: "),
    (lambda t: ops.stack([t, t[0]]), ValueError, "stack: "),
    (lambda t: ops.pad(t, 1, mode="edge"), TypeError, "pad: mode must be 'constant'"),
    (lambda t: tape.mean(t, axes=0), TypeError, "mean: .*Did you mean 'axis'"),
    (lambda t: ops.clip(t, Tensor(0.0), Tensor(1.0)), TypeError, "clip: the bounds must be numbers"),
    (lambda t: ops.split(t, 2, axis=4), ValueError, "split: axis must be in"),
    (lambda t: ops.moveaxis(t, [0, 1], [1]), ValueError, "moveaxis: "),
    (lambda t: t ** "2", TypeError, "power: "),
    (lambda t: Tensor(np.array([1, 2])) ** -1, ValueError, "power: ")])
def test_errors_name_the_operator(call, error, message):
    with pytest.raises(error, match="^" + message):
        call(leaf([[1.0, 2.0], [3.0, 4.0]]))


@pytest.mark.parametrize("call", [lambda t: divmod(t, 2), lambda t: t & 1, lambda t: ~t])
def test_operators_that_have_no_derivative_are_type_errors(call):
    with pytest.raises(TypeError):
        call(leaf([1.0]))
