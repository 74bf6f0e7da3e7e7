"""Values changed between forward and backward.

A leaf or a constant Tensor whose own array the tape needs: an error says so. Whatever the tape needs a
copy of: the gradient is that of the forward run. Never a wrong number in silence.
"""

import array

import numpy as np
import pytest

import tape
from tape import Tensor, grad, ops
from tests.checks import SubArray, added_at, leaf


# --- a leaf ---


def test_a_leaf_updated_in_place():
    x = leaf([1.0, 2.0])
    y = (x * x).sum()
    x.data += 10
    with pytest.raises(RuntimeError, match="mul: its input x, .* was changed in place"):
        y.backward()
    assert x.grad is None


@pytest.mark.parametrize("view", [
    lambda x: x.reshape(2, 1), lambda x: x[:], lambda x: x[None], lambda x: x.T,
    lambda x: x.expand_dims(0), lambda x: x.expand_dims(0).squeeze(0), lambda x: x.split(1)[0],
    lambda x: x.broadcast_to((3, 2)) / 3 ** 0.5, lambda x: x.reshape(1, 2).swapaxes(0, 1)],
    ids=["reshape", "slice", "new axis", "T", "expand_dims", "squeeze", "split", "broadcast_to",
         "swapaxes"])
def test_a_leaf_updated_in_place_under_a_view_of_it(view):
    # NumPy's views share memory with the leaf; a result does not, so what was kept stays as it was.
    x = leaf([1.0, 2.0])
    v = view(x)
    y = (v * v).sum()
    x.data += 10
    y.backward()
    np.testing.assert_allclose(x.grad, [2, 4])


def test_a_weight_updated_in_place_under_its_transpose():
    # The pattern of every linear layer: x @ w.T.
    w, x = leaf([[1.0, 2.0]]), leaf([[3.0, 4.0]])
    y = (x @ w.T).sum()
    w.data -= 1
    y.backward()
    np.testing.assert_array_equal(x.grad, [[1, 2]])
    np.testing.assert_array_equal(w.grad, [[3, 4]])


def test_a_result_does_not_change_with_the_leaf_it_was_made_from():
    # No view semantics: a tensor that was computed stays what it was.
    x = leaf([1.0, 2.0])
    results = [x.reshape(2, 1), x[:], x.T, x[0]]
    with tape.no_grad():
        results.append(x.reshape(2, 1))
    before = [t.tolist() for t in results]
    x.data += 10
    assert [t.tolist() for t in results] == before


def test_a_constant_tensor_updated_in_place():
    x, c = leaf([1.0, 1.0]), Tensor([1.0, 2.0])
    y = (x * c).sum()
    c.data += 10
    with pytest.raises(RuntimeError, match="mul: its input y, .* was changed in place"):
        y.backward()


def test_a_view_of_a_constant_tensor_updated_in_place():
    x, c = leaf([1.0, 1.0]), Tensor([1.0, 2.0])
    y = (x * c.reshape(2)).sum()
    c.data += 10
    y.backward()
    np.testing.assert_array_equal(x.grad, [1, 2])


def test_the_error_names_operator_shape_line_and_remedy():
    x = leaf([1.0, 2.0])
    with tape.record_lines():
        y = (x * x).sum()
    x.data += 10
    with pytest.raises(RuntimeError) as caught:
        y.backward()
    for words in ("mul", "test_mutation.py:", "(2,)", "before the update", "t.data = t.data"):
        assert words in str(caught.value)


def test_a_new_array_for_the_leaf_leaves_the_tape_right():
    x = leaf([1.0, 2.0])
    y = (x * x).sum()
    x.data = x.data + 10
    y.backward()
    np.testing.assert_array_equal(x.grad, [2, 4])


def test_a_new_array_and_create_graph_is_refused():
    x = leaf([1.0, 2.0])
    y = (x * x).sum()
    x.data = x.data + 10
    with pytest.raises(RuntimeError, match="given a new array"):
        grad(y, x, create_graph=True)


def test_what_was_not_kept_may_change():
    x = leaf([1.0, 2.0])
    y = (x + 1).exp().sum()
    x.data -= 1
    y.backward()
    np.testing.assert_allclose(x.grad, np.exp([2, 3]))


@pytest.mark.parametrize("touched", [False, True])
def test_a_leaf_without_axes_updated_in_place(touched):
    x = leaf(3.0)
    if touched:
        x.data            # from here on the value is an array inside, not a NumPy scalar
    y = x * x
    x.data += 10
    y.backward()
    assert x.grad == 6


def test_a_nan_leaf_without_axes_goes_through_create_graph():
    x = leaf(np.nan)
    y = x * x
    x.data               # only looked at
    assert np.isnan(grad(y, x, create_graph=True).item())


def test_an_update_after_the_backward_is_what_optimisers_do():
    x = leaf([1.0, 2.0])
    for _ in range(3):
        x.grad = None
        (x * x).sum().backward()
        x.data -= 0.25 * x.grad
    np.testing.assert_allclose(x.data, [0.125, 0.25])


def test_a_retained_graph_notices_an_update_between_two_walks():
    x = leaf([1.0, 2.0])
    y = (x * x).sum()
    y.backward(retain_graph=True)
    x.data += 1
    with pytest.raises(RuntimeError, match="in place"):
        y.backward()


@pytest.mark.parametrize("function", [
    lambda x: ops.layer_norm(x), lambda x: ops.gelu(x), lambda x: ops.cross_entropy(x, [0, 1]),
    lambda x: ops.causal_attention(x, x, x)])
def test_fused_operators_notice_too(function):
    x = leaf([[1.0, 2.0], [3.0, -1.0]])
    y = function(x).sum()
    x.data += 10
    with pytest.raises(RuntimeError, match="in place"):
        y.backward()


# --- arrays of the caller ---


@pytest.mark.parametrize("constant", [
    np.array([3.0, 4.0]), np.array([3.0, 4.0]).view(SubArray), np.array([0, 3.0, 0, 4.0])[1::2],
    np.array([3.0, 4.0], np.float32), np.array([3, 4]), array.array("d", [3.0, 4.0])],
    ids=["array", "subclass", "strided", "float32", "int", "buffer"])
@pytest.mark.parametrize("order", ["tensor first", "tensor second"])
def test_a_constant_that_the_caller_changes_afterwards(constant, order):
    if isinstance(constant, np.ndarray):
        constant = constant.copy() if type(constant) is np.ndarray else constant + 0
    else:
        constant = array.array("d", constant)
    x = leaf([1.0, 2.0])
    y = x * constant if order == "tensor first" else ops.mul(constant, x)
    constant[0], constant[1] = 0, 0
    y.sum().backward()
    np.testing.assert_array_equal(x.grad, [3, 4])


def test_a_constant_that_changes_and_create_graph():
    x, c = leaf([1.0, 2.0]), np.array([3.0, 4.0])
    y = (x * x * c).sum()
    c[:] = 0
    slope = grad(y, x, create_graph=True)
    np.testing.assert_array_equal(slope.data, [6, 16])
    np.testing.assert_array_equal(grad(slope.sum(), x).data, [6, 8])


@pytest.mark.parametrize("function, expected", [
    (lambda x, c: x @ c, [3, 4]), (lambda x, c: x / (1 / c), [3, 4]),
    (lambda x, c: ops.where(c > 3, x, 0), [0, 1]), (lambda x, c: x ** (c - 2), [1, 4]),
    (lambda x, c: ops.maximum(x, c - 2), [.5, .5])])
def test_constants_of_other_operators(function, expected):
    x, c = leaf([1.0, 2.0]), np.array([3.0, 4.0])
    y = function(x, c)
    c[:] = 0
    y.sum().backward()
    np.testing.assert_allclose(x.grad, expected)


def test_a_mask_that_changes():
    x, mask = leaf([1.0, 2.0]), np.array([True, False])
    y = ops.where(mask, x, 0)
    mask[:] = ~mask
    y.sum().backward()
    np.testing.assert_array_equal(x.grad, [1, 0])


@pytest.mark.parametrize("index", [np.array([0, 0]), [0, 0], np.array([True, False]),
                                   (np.array([0, 0]), np.array([1, 1])), ([0, 0], [1, 1])],
                         ids=["array", "list", "mask", "two arrays", "two lists"])
def test_an_index_that_changes(index):
    x = leaf([[1.0, 2.0], [3.0, 4.0]])
    y = x[index]
    expected = added_at((2, 2), index, 1)
    for part in index if isinstance(index, tuple) else (index,):
        part[0], part[1] = 1 - part[0], 1 - part[1]
    y.sum().backward()
    np.testing.assert_array_equal(x.grad, expected)


def test_an_index_tensor_that_changes():
    x, index = leaf([1.0, 2.0]), Tensor(np.array([0, 0]))
    y = x[index]
    index.data += 1
    y.sum().backward()
    np.testing.assert_array_equal(x.grad, [2, 0])


@pytest.mark.parametrize("look_up", [
    lambda x, ids: ops.embedding(x, ids).sum(),
    lambda x, ids: ops.cross_entropy(x, ids, reduction="sum")])
def test_ids_and_targets_that_change(look_up):
    ids = np.array([0, 2, 2])
    values = np.arange(9.0).reshape(3, 3)
    x, untouched = leaf(values), leaf(values)
    look_up(untouched, ids.copy()).backward()
    y = look_up(x, ids)
    ids[:] = 1
    y.backward()
    np.testing.assert_array_equal(x.grad, untouched.grad)


def test_attributes_that_change():
    x, width, axes = leaf([1.0, 2.0]), np.array([1, 2]), [2, 0, 1]
    y = ops.pad(x, width) * np.arange(5.0)
    width[:] = 0
    y.sum().backward()
    np.testing.assert_array_equal(x.grad, [1, 2])
    z = leaf(np.ones((2, 3, 4)))
    moved = ops.transpose(z, axes)
    axes.reverse()
    moved.sum().backward()
    assert z.grad.shape == (2, 3, 4)


def test_the_upstream_gradient_and_the_initial_data_are_copied():
    data, upstream = np.array([1.0, 2.0]), np.array([1.0, 1.0])
    x = Tensor(data, requires_grad=True)
    data[:] = 0
    y = x + 0.0
    y.backward(upstream)
    upstream[:] = 7
    np.testing.assert_array_equal(x.data, [1, 2])
    np.testing.assert_array_equal(x.grad, [1, 1])


def test_two_leaves_that_were_given_one_array():
    # Each takes a copy, so a step on one of them does not reach into the other.
    given = np.array([3.0, 4.0])
    x, y = leaf([1.0, 2.0]), leaf([1.0, 2.0])
    x.data = given
    y.data = given
    loss = (y * y).sum()
    x.data += 1
    loss.backward()
    np.testing.assert_array_equal(y.grad, [6, 8])
    np.testing.assert_array_equal(y.data, [3, 4])
    np.testing.assert_array_equal(given, [3, 4])


# --- results cannot be written to ---


def test_results_are_read_only():
    x = leaf([1.0, 2.0])
    y = x.exp()
    for view in (y.data, y.numpy(), y.data[:1], (x.sum()).data):
        with pytest.raises(ValueError, match="read-only"):
            view[...] = 0
    with pytest.raises(TypeError, match="data: the result of a recorded operation"):
        y.data = np.zeros(2)
    with pytest.raises(ValueError, match="read-only"):
        y.data -= 1


@pytest.mark.parametrize("kept", [True, False])
def test_an_array_read_between_two_tapes_is_watched_by_the_second(kept):
    # No record has the leaf's version when its array is read, so it stays with the leaf.
    x = leaf([1.0, 2.0])
    (x * x).sum().backward()
    version = id(x._version)                # a reference would count as a record's
    array = x.data
    assert x._version is not None and id(x._version) == version
    if not kept:
        del array
    y = (x * x).sum()
    if kept:
        array += 10
    else:
        x.data += 10
    with pytest.raises(RuntimeError, match="mul: its input x, .* was changed in place"):
        y.backward()
