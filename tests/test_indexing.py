"""Gradients of elements that integer arrays pick, against np.add.at."""

import numpy as np
import pytest

import tape
from tape.ops import indexing

RNG = np.random.default_rng(0)
SHAPES = (7,), (3, 5), (2, 3, 4), (2, 600, 3), (2, 3, 2, 400)
IDS = (), (4,), (2, 3), (0,)


def indices(shape, of_ids):
    """All ways to pick rows along one axis, and some that do more."""
    for axis, length in enumerate(shape):
        ids = RNG.integers(-length, length, of_ids)
        before, after = (slice(None),) * axis, (slice(None),) * (len(shape) - 1 - axis)
        yield from ((*before, ids), (*before, ids, ...), (..., ids, *after), (*before, ids, *after))
    ids = RNG.integers(0, shape[0], of_ids)
    yield from (ids, (ids, None), (None, ids), (ids, ..., slice(0, 1)) if len(shape) > 1 else (ids,),
                (ids,) * len(shape) if min(shape) == shape[0] else ids, (slice(0, 1), np.zeros(2, int))
                if len(shape) > 1 else ids)


@pytest.mark.parametrize("of_ids", IDS)
@pytest.mark.parametrize("shape", SHAPES)
def test_rows_along_any_axis(kernel_set, shape, of_ids):
    for index in indices(shape, of_ids):
        x = tape.Tensor(RNG.standard_normal(shape), requires_grad=True)
        out = 2 * x[index]
        g = RNG.standard_normal(out.shape)
        out.backward(g)
        expected = np.zeros(shape)
        np.add.at(expected, index, 2 * g)
        np.testing.assert_allclose(x.grad, expected, rtol=1e-12, atol=1e-12, err_msg=str(index))


def test_which_axis_rows_are_picked_along():
    ids, all_of_it = np.array([1, 0]), slice(None)
    for index, axis in ((ids, 0), ((ids,), 0), ((all_of_it, ids), 1), ((..., ids), 2),
                        ((..., ids, all_of_it), 1), ((all_of_it, ids, ...), 1),
                        ((all_of_it, ..., ids), 2)):
        found, rows = indexing._rows_along(index, 3)
        assert found == axis and rows is ids
    for index in ((0, ids), (ids, ids), (slice(1), ids), (None, ids), (ids, np.array([True, False]))):
        assert indexing._rows_along(index, 3) == (None, None)


@pytest.mark.parametrize("shape, of_indices, axis", [
    ((3, 4, 5), (3, 2, 5), 1), ((3, 4, 5), (3, 4, 7), -1), ((1, 4, 5), (3, 2, 1), 1), ((6,), (4,), 0),
    ((3, 1), (1, 9), 1), ((3, 4), (5, 1), 0), ((0, 4), (0, 2), 1), ((3, 0), (3, 0), 1),
    ((2, 300), (2, 900), 1), ((300, 7), (300, 2), -1)])
@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int64, np.uint64])
def test_picks_along_an_axis(kernel_set, shape, of_indices, axis, dtype):
    length, lowest = shape[axis], -1 if np.dtype(dtype).kind == "i" else 0
    picked = RNG.integers(lowest * min(length, 100), max(min(length, 100), 1), of_indices).astype(dtype)
    x = tape.Tensor(RNG.standard_normal(shape), requires_grad=True)
    out = tape.take_along_axis(x, picked, axis)
    g = RNG.standard_normal(out.shape)
    out.backward(g)
    places, expected = np.arange(x.size).reshape(shape), np.zeros(x.size)
    np.add.at(expected, np.take_along_axis(places, picked.astype(int), axis), g)
    np.testing.assert_allclose(x.grad.reshape(-1), expected, rtol=1e-12, atol=1e-12)
