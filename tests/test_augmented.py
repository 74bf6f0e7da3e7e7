"""``p -= step``: a leaf that wants a gradient is changed in place, of a result a new tensor is made."""

import copy
import operator
import pickle

import numpy as np
import pytest

import nn
import tape
from tape import Tensor, no_grad
from tests.checks import leaf

CHANGES = {"+=": (operator.iadd, operator.add), "-=": (operator.isub, operator.sub),
           "*=": (operator.imul, operator.mul), "/=": (operator.itruediv, operator.truediv),
           "**=": (operator.ipow, operator.pow), "%=": (operator.imod, operator.mod)}
SYMBOLS = pytest.mark.parametrize("symbol", CHANGES)
KINDS = pytest.mark.parametrize("make", [
    lambda values: Tensor(values, requires_grad=True), nn.Parameter], ids=["Tensor", "Parameter"])


@SYMBOLS
@KINDS
@pytest.mark.parametrize("start", [[1.0, 4.0], 3.0], ids=["array", "number"])
@pytest.mark.parametrize("change", [2.0, np.float32(2), Tensor(2.0), "array"], ids=str)
def test_under_no_grad_a_leaf_stays_the_same_object_with_the_changed_array(symbol, make, start, change):
    in_place, plain = CHANGES[symbol]
    change = np.full(np.shape(start), 2.0) if isinstance(change, str) else change       # float64
    p = same = make(start)
    array = p.data
    with no_grad():
        p = in_place(p, change)
    assert p is same and p.data is array and type(p) is type(same) and p.requires_grad
    assert p.dtype == np.float32 and p.is_leaf
    np.testing.assert_array_equal(array, plain(np.asarray(start, np.float32), np.float32(2)))


@SYMBOLS
@KINDS
def test_while_recording_a_leaf_refuses_and_names_the_remedy(symbol, make):
    p = make([1.0, 4.0])
    with pytest.raises(RuntimeError, match=r"\(2,\).*with tape.no_grad\(\): p \S+ change, or p.data"):
        CHANGES[symbol][0](p, 2.0)
    assert p.tolist() == [1, 4]
    with no_grad(), tape.enable_grad(), pytest.raises(RuntimeError, match="y = p"):
        CHANGES[symbol][0](p, 2.0)


def test_the_quotient_without_its_rest_is_as_the_others():
    p = same = leaf([1.0, 5.0])
    with pytest.raises(RuntimeError, match=r"//=: a leaf .* y = p // change"):
        p //= 2
    with no_grad():
        p //= 2
    assert p is same and p.tolist() == [0, 2]
    result = before = leaf([5.0]) * 1
    result //= 2
    assert result is not before and result.tolist() == [2]


@SYMBOLS
def test_of_a_result_it_is_a_new_recorded_tensor(symbol):
    in_place, plain = CHANGES[symbol]
    x, y = leaf([1.0, 4.0]), leaf([2.0, 3.0])
    result = x * 1.0
    before = result
    changed = in_place(result, y)
    assert changed is not before and before.tolist() == [1, 4]
    changed.sum().backward()
    other_x, other_y = leaf([1.0, 4.0]), leaf([2.0, 3.0])
    plain(other_x * 1.0, other_y).sum().backward()
    np.testing.assert_array_equal(x.grad, other_x.grad)
    np.testing.assert_array_equal(y.grad, other_y.grad)


@SYMBOLS
def test_of_a_leaf_without_gradient_it_is_a_new_tensor(symbol):
    in_place, plain = CHANGES[symbol]
    total = before = Tensor([1.0, 4.0])
    total = in_place(total, leaf([2.0, 3.0]))
    assert total is not before and total.requires_grad and before.tolist() == [1, 4]
    np.testing.assert_array_equal(total.data, plain(np.array([1.0, 4.0]), np.array([2.0, 3.0])))


def test_a_result_of_no_grad_is_bound_anew():
    x = leaf([1.0, 4.0])
    with no_grad():
        y = z = x * 2
        y += np.ones((3, 2))
    assert y.shape == (3, 2) and z.tolist() == [2, 8]


def test_the_product_of_matrices_is_refused_on_a_leaf_and_recorded_on_a_result():
    w, m = leaf(np.eye(2)), np.full((2, 2), 2.0)
    with no_grad(), pytest.raises(TypeError, match=r"shape \(2, 2\).*p.data = p.data @ change"):
        w @= m
    with pytest.raises(RuntimeError, match="y = p @ change"):
        w @= m
    y = w * 3.0
    y @= m
    np.testing.assert_array_equal(y.data, np.full((2, 2), 6.0))


def test_a_leaf_keeps_shape_and_kind_of_dtype():
    p = leaf([1.0, 4.0])
    with no_grad():
        with pytest.raises(ValueError, match=r"\+=: a leaf keeps its shape \(2,\).*p = p \+ change"):
            p += np.ones((3, 2))
        with pytest.raises(TypeError, match="-=: a leaf keeps .* dtype float64"):
            p -= np.array([1j, 2])
        with pytest.raises(TypeError, match="-=: "):
            p -= None
    assert p.tolist() == [1, 4]


@SYMBOLS
@pytest.mark.parametrize("use", [lambda p: (p * p).sum(), lambda p: p.exp().sum() + (p ** 3).sum()])
def test_a_tape_that_needs_the_old_values_notices(symbol, use):
    p = leaf([1.0, 4.0])
    loss = use(p)
    with no_grad():
        p = CHANGES[symbol][0](p, 3.0)
    with pytest.raises(RuntimeError, match="was changed in place after this operation recorded it"):
        loss.backward()


def test_a_tape_that_does_not_need_them_goes_on():
    p = leaf([1.0, 4.0])
    loss = (p + 1.0).sum()
    with no_grad():
        p += 3.0
    loss.backward()
    np.testing.assert_array_equal(p.grad, [1, 1])


def test_a_loop_over_parameters_trains_as_data_does():
    def trained(update):
        model = nn.Sequential(nn.Linear(2, 3, rng=0), nn.ReLU(), nn.Linear(3, 1, rng=1))
        x, y = np.float32([[0, 1], [1, 0], [1, 1]]), np.float32([[1], [1], [0]])
        losses = []
        for _ in range(5):
            loss = nn.mse(model(x), y)
            model.zero_grad()
            loss.backward()
            update(model)
            losses.append(loss.item())
        return losses, model.state_dict()

    def by_name(model):
        with no_grad():
            for p in model.parameters():
                p -= 0.1 * p.grad

    def by_data(model):
        for p in model.parameters():
            p.data -= 0.1 * p.grad
    (losses, state), (wanted, wanted_state) = trained(by_name), trained(by_data)
    assert losses == wanted and losses[-1] < losses[0]
    for name in state:
        np.testing.assert_array_equal(state[name], wanted_state[name])


def test_an_attribute_stays_the_same_parameter():
    class Line(nn.Module):
        def __init__(self):
            self.w = nn.Parameter([2.0])

        @no_grad()
        def shrink(self):
            self.w *= 0.5
    line = Line()
    w = line.w
    line.shrink()
    assert line.w is w and w.item() == 1 and line.parameters() == [w]


def test_a_frozen_parameter_is_changed_in_either_mode_as_an_average_is():
    p = nn.Parameter([2.0])
    p.requires_grad = False
    same = p
    p *= 0.5
    with no_grad():
        p += 1.0
    assert p is same and p.item() == 2 and not p.requires_grad


@KINDS
def test_a_copy_has_an_array_of_its_own(make):
    p = make([1.0, 4.0])
    for other in (copy.deepcopy(p), pickle.loads(pickle.dumps(p))):
        with no_grad():
            other -= 1.0
        assert other.tolist() == [0, 3] and p.tolist() == [1, 4]
