"""`add_rows`, the gradient of a look-up, with each set of kernels, against `np.add.at` in float64."""

import numpy as np
import pytest

import tape
from tape.kernels import find
from tests.checks import added_at, leaf


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("rows, ids, width", [
    (7, (5, 9), 3), (7, 200, 33), (1, 300, 4), (3, 2_000, 1), (3, 2_000, 20), (900, 1_000, 2),
    (5_000, 300, 8), (5_000, 10, 3), (4, 0, 3), (4, 3, 0)])
def test_rows_are_added_to_the_rows_of_their_ids(kernel_set, dtype, rows, ids, width):
    rng = np.random.default_rng(0)
    out, ids = rng.integers(-9, 9, (rows, width)).astype(dtype), rng.integers(0, rows, ids)
    g = rng.integers(-9, 9, (*ids.shape, width)).astype(dtype)
    expected = out + added_at(out.shape, ids, g)
    find("add_rows")(out, g, ids)
    np.testing.assert_array_equal(out, expected)


@pytest.mark.parametrize("kind", [np.int8, np.int32, np.uint16, ">i8"])
def test_ids_of_any_kind_and_layout(kernel_set, kind):
    rng = np.random.default_rng(0)
    ids = rng.integers(0, 9, (600, 2)).astype(kind)[::2, 1]
    g = np.asfortranarray(rng.integers(-9, 9, (300, 4)).astype(np.float32))
    out = np.zeros((9, 4), np.float32)
    find("add_rows")(out, g, ids)
    np.testing.assert_array_equal(out, added_at((9, 4), ids, g))


@pytest.mark.parametrize("count", [3, 1_000])
def test_ids_count_from_the_end_or_are_refused_before_anything_is_added(kernel_set, count):
    out, ids = np.zeros((4, 2), np.float32), np.full(count, 1)
    ids[1] = -4
    find("add_rows")(out, np.ones((count, 2), np.float32), ids)
    assert out[:, 0].tolist() == [1, count - 1, 0, 0]
    for wrong in (4, -5, 2 ** 40):
        ids[1] = wrong
        with pytest.raises(IndexError):
            find("add_rows")(out, np.ones((count, 2), np.float32), ids)
        assert out[1, 0] == count - 1


@pytest.mark.parametrize("count", [64, 256, 1_000, 100_000])
def test_a_row_taken_many_times_keeps_its_digits(kernel_set, count):
    table, ids = leaf(np.zeros((3, 8)), np.float32), np.zeros(count, int)
    tape.embedding(table, ids).backward(np.full((count, 8), 0.1, np.float32))
    expected = count * np.float64(np.float32(0.1))
    np.testing.assert_allclose(table.grad[0], expected, rtol=4e-7)
    one = leaf(np.zeros(3), np.float32)
    (0.1 * one[ids]).sum().backward()
    np.testing.assert_allclose(one.grad, [expected, 0, 0], rtol=4e-7)


def test_the_gradient_of_a_sum_is_added_too(kernel_set):
    """It is a view of one number, which lies nowhere in rows."""
    table, ids = leaf(np.zeros((5, 4)), np.float32), np.arange(300) % 4
    tape.embedding(table, ids).sum().backward()
    np.testing.assert_array_equal(table.grad, [[75] * 4] * 4 + [[0] * 4])


def test_infinities_and_nan_stay_in_their_rows(kernel_set):
    g = np.ones((300, 2), np.float32)
    g[5], g[6] = np.inf, np.nan
    ids = np.arange(300) % 10
    for many in (ids, np.where(ids == 1, 0, ids)):
        out = np.zeros((10, 2), np.float32)
        find("add_rows")(out, g, many)
        assert np.isposinf(out[5]).all() and np.isnan(out[6]).all()
        assert np.isfinite(out[[0, 2, 3, 4, 7, 8, 9]]).all()
