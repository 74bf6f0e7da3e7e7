"""`split_heads` and `merge_heads`: against NumPy's own, as inverses, and what they refuse."""

import numpy as np
import pytest

import tape
from tape import Tensor


@pytest.mark.parametrize("shape, n_head", [
    ((2, 3, 8), 4), ((5, 6), 1), ((2, 2, 1, 6), 6), ((0, 3, 4), 2)])
def test_heads_are_parts_of_rows_and_gradients_go_back_to_them(shape, n_head):
    x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    t = Tensor(x, requires_grad=True)
    heads = tape.split_heads(t, n_head)
    expected = np.stack(np.split(x, n_head, axis=-1), axis=-3)          # (..., H, T, D)
    assert heads.dtype == np.float32 and np.array_equal(heads.data, expected)
    merged = tape.merge_heads(heads * 2, n_head)
    assert np.array_equal(merged.data, 2 * x)
    g = np.random.default_rng(1).standard_normal(shape).astype(np.float32)
    merged.backward(g)
    assert t.grad.dtype == np.float32 and np.array_equal(t.grad, 2 * g)


@pytest.mark.parametrize("operator, shape, n_head", [
    (tape.split_heads, (2, 3, 8), 3), (tape.split_heads, (8,), 2), (tape.split_heads, (2, 8), 0),
    (tape.merge_heads, (2, 3, 4, 5), 2), (tape.merge_heads, (3, 4), 3)])
def test_what_has_no_such_heads_is_refused_with_its_shape(operator, shape, n_head):
    with pytest.raises(ValueError, match=f"{operator.name}: x must have shape .*") as error:
        operator(Tensor(np.zeros(shape)), n_head)
    assert str(shape) in str(error.value)
