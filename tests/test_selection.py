"""`tape.kernels.where` against np.where, to the last bit; and the operators that use it."""

import numpy as np
import pytest

import tape
from tape.kernels import where
from tape.kernels.selection import FEW

SIZES = 7, FEW, FEW + 5
RNG = np.random.default_rng(0)
SPECIAL = [0.0, -0.0, np.inf, -np.inf, np.nan, 1.5]


def array(size, dtype=np.float32):
    """Random numbers, and what has special bits."""
    x = RNG.standard_normal(size)
    x.flat[:len(SPECIAL)] = SPECIAL
    return x.astype(dtype)


def mask(shape):
    return RNG.random(shape) > 0.5


def same_bits(condition, x, y):
    expected, found = np.where(condition, x, y), where(condition, x, y)
    assert found.dtype == expected.dtype and found.shape == expected.shape
    assert found.tobytes() == expected.tobytes()
    return found


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_arrays_of_each_float_type(size, dtype):
    same_bits(mask(size), array(size, dtype), array(size, dtype)[::-1])


@pytest.mark.parametrize("number", [
    0, 0.0, -0.0, 1, -np.inf, np.nan, np.float32(0), np.float64(0), True])
@pytest.mark.parametrize("size", SIZES)
def test_numbers_for_either_operand(size, number):
    condition, x = mask(size), array(size)
    same_bits(condition, x, number)
    same_bits(condition, number, x)


@pytest.mark.parametrize("shapes", [
    ((90, 100), (3, 90, 100), ()), ((3, 1, 100), (90, 100), (3, 90, 1)), ((), (90, 100), (100,)),
    ((90, 100), (1, 100), (90, 1)), ((3, 90, 100), (100,), (90, 1))])
def test_shapes_that_broadcast(shapes):
    of_condition, of_x, of_y = shapes
    same_bits(np.asarray(mask(of_condition)), np.asarray(RNG.standard_normal(of_x), np.float32),
              np.asarray(RNG.standard_normal(of_y), np.float32))


@pytest.mark.parametrize("x, y", [
    (np.float32, np.float64), (np.float16, np.float32), (np.int64, np.float32), (np.int32, np.int32),
    (np.complex64, np.float32)])
def test_other_and_mixed_types(x, y):
    same_bits(mask(FEW), np.arange(FEW).astype(x), np.arange(FEW).astype(y))


def test_conditions_that_are_no_booleans():
    x, y = array(FEW), array(FEW)[::-1]
    for condition in (np.arange(FEW) % 3, (np.arange(FEW) % 3).astype(np.float32), True):
        same_bits(condition, x, y)


@pytest.mark.parametrize("size", SIZES)
def test_operands_that_are_no_numbers_are_np_wheres(size):
    condition, x = mask(size), np.arange(size, dtype=np.float32)
    for other in (None, "abc", float):
        np.testing.assert_array_equal(where(condition, x, other), np.where(condition, x, other))
    with pytest.raises(ValueError, match=rf"shapes \({size},\) \({size},\) \(3,\)"):
        where(condition, x, array(6)[:3])


def test_true_is_any_byte_but_0():
    condition = (np.arange(FEW) % 3).astype(np.uint8).view(bool)            # 2 is true
    same_bits(condition, array(FEW), array(FEW)[::-1])
    same_bits(condition, array(FEW), 0)
    same_bits(condition, 0, array(FEW))


def test_any_layout_in_memory():
    x = RNG.standard_normal((200, 200)).astype(np.float32)
    for y in (x.T, x[::-1], np.broadcast_to(x[0], x.shape), np.asfortranarray(x)):
        same_bits((x > 0).T, y, x)
        same_bits(x > 0, y, 0)


def test_the_result_is_an_array_of_its_own():
    x = array(FEW)
    for condition in (np.ones(FEW, bool), np.zeros(FEW, bool)):
        for found in (where(condition, x, x), where(condition, x, 0), where(condition, 0, x)):
            assert found.flags.owndata and found.flags.writeable and not np.shares_memory(found, x)


def test_operators_on_large_arrays():
    """Each against its formula in float64, where nothing ties and where all does."""
    x, y = RNG.standard_normal((2, FEW))
    y[:FEW // 2] = x[:FEW // 2]
    g = RNG.standard_normal(FEW)
    g[0] = g[-1] = np.inf                            # kept or dropped, but never multiplied by 0
    larger = np.where(x == y, g / 2, np.where(x > y, g, 0))
    smaller = np.where(x == y, g / 2, np.where(x < y, g, 0))
    for f, of_x, of_y in (
            (tape.maximum, larger, smaller), (tape.minimum, smaller, larger),
            (lambda x, y: tape.where(x > 0, x, y), np.where(x > 0, g, 0), np.where(x > 0, 0, g)),
            (lambda x, y: tape.clip(x, -1, 0.5) + 0 * y, np.where((-1 <= x) & (x <= 0.5), g, 0), None)):
        a, b = (tape.Tensor(v, requires_grad=True) for v in (x, y))
        f(a, b).backward(g)
        np.testing.assert_array_equal(a.grad, of_x)
        if of_y is not None:
            np.testing.assert_array_equal(b.grad, of_y)


def test_the_share_of_a_maximum_has_the_type_of_its_gradient():
    x = tape.Tensor(RNG.integers(0, 3, (100, 100)).astype(np.float32), requires_grad=True)
    x.max(-1).backward(np.ones(100))
    winners = x.data == 2
    assert x.grad.dtype == np.float32
    np.testing.assert_array_equal(x.grad, winners / winners.sum(-1, keepdims=True, dtype=np.float32))
