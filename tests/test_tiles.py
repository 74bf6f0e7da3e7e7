"""Products by tiles, tape/kernels/numba/tiles.py, against NumPy's."""

import numpy as np
import pytest

pytest.importorskip("numba")

from numba import types  # noqa: E402

import tape  # noqa: E402
from tape.kernels.numba import tiles  # noqa: E402
from tape.kernels.numba.compiled import STRIDED, loop  # noqa: E402
from tape.kernels.numba.products import product  # noqa: E402

pytestmark = pytest.mark.skipif(not tiles.AVAILABLE, reason="this processor has no AVX-512")


@loop(STRIDED(2), STRIDED(2), lambda real: types.Array(real, 2, "A"))
def multiply_in_a_test(a, b, out):
    tiles.multiply(a, b, out)


def by_tiles(a, b):
    """a @ b; around the result there is a margin, which must stay what it was."""
    space = np.full((len(a) + 2, b.shape[1] + 3), 7, np.float32)
    multiply_in_a_test[space.dtype](a, b, space[1:-1, 1:-2])
    margin = space.copy()
    margin[1:-1, 1:-2] = 7
    assert (margin == 7).all()
    return space[1:-1, 1:-2]


def matrix(rng, rows, columns, by_columns, whole=True):
    """A part of a larger matrix, whose elements lie by rows or by columns; between them is NaN."""
    shape = (columns, rows) if by_columns else (rows, columns)
    space = np.full((shape[0] + 1, shape[1] + 5), np.nan, np.float32)
    inside = space[:-1, 2:-3]
    inside[:] = rng.integers(-9, 10, shape) if whole else rng.standard_normal(shape)
    return inside.T if by_columns else inside


@pytest.mark.parametrize("a_by_columns", [False, True])
@pytest.mark.parametrize("b_by_columns", [False, True])
def test_products_of_integers_are_exact(a_by_columns, b_by_columns):
    rng = np.random.default_rng(0)
    sizes = [(2, 2, 2), (6, 384, 64), (7, 385, 65), (64, 16, 128), (13, 17, 31), (128, 5, 200),
             (66, 769, 63), (50, 1540, 70), (700, 191, 129), (9, 2000, 130), (1300, 300, 80),
             (12, 384, 32), (24, 385, 96), (11, 3, 32), (15, 20, 30), (16, 20, 31), (17, 33, 33),
             (29, 800, 160), (1500, 400, 32), (63, 1600, 94)]        # and these in panels of 32
    for rows, terms, columns in sizes:
        a = matrix(rng, rows, terms, a_by_columns)
        b = matrix(rng, terms, columns, b_by_columns)
        expected = a.astype(np.int64) @ b.astype(np.int64)      # below 2^24: exact in float32 too
        np.testing.assert_array_equal(by_tiles(a, b), expected, err_msg=f"{rows, terms, columns}")


def test_rounding_is_that_of_sums_of_float32():
    rng = np.random.default_rng(1)
    a, b = matrix(rng, 130, 800, True, False), matrix(rng, 800, 200, False, False)
    exact, bound = a.astype(float) @ b, np.abs(a).astype(float) @ np.abs(b)
    assert (np.abs(by_tiles(a, b) - exact) <= 20 * 2.0 ** -24 * bound).all()


@pytest.mark.parametrize("a_by_columns", [False, True])
def test_rows_and_columns_have_the_same_bits_in_any_company(a_by_columns):
    rng = np.random.default_rng(2)
    a, b = matrix(rng, 90, 500, a_by_columns, False), matrix(rng, 500, 150, False, False)
    whole = by_tiles(a, b)
    for top, bottom, left, right in [(0, 45, 0, 150), (31, 90, 0, 150), (0, 90, 17, 150),
                                     (3, 9, 64, 66), (0, 90, 32, 64), (5, 30, 10, 106)]:
        np.testing.assert_array_equal(by_tiles(a[top:bottom], b[:, left:right]),
                                      whole[top:bottom, left:right])


def test_infinities_and_nan_stay_in_their_rows_and_columns():
    a, b = np.ones((70, 20), np.float32), np.ones((20, 70), np.float32)
    a[69, 3], a[5, 4], b[7, 69], b[8, 1] = np.inf, np.nan, -np.inf, np.nan
    with np.errstate(invalid="ignore"):
        np.testing.assert_array_equal(by_tiles(a, b), a @ b)
        np.testing.assert_array_equal(by_tiles(a.T.copy().T, b.T.copy().T), a @ b)


def test_zeros_have_the_sign_that_rounding_gives_them():
    a, b = np.full((67, 2), 1e-30, np.float32), np.full((2, 65), -1e-30, np.float32)
    assert np.signbit(by_tiles(a, b)).all()


def test_heads_of_32_go_by_tiles_and_are_those_of_numpys_kernel():
    from tape import kernels
    from tape.kernels import numba as compiled
    rng = np.random.default_rng(4)
    for T, S, D, E in [(32, 32, 32, 32), (64, 64, 32, 96), (50, 75, 32, 32), (130, 130, 96, 32),
                       (1, 40, 32, 64), (70, 200, 64, 32)]:
        x = rng.standard_normal((2, T, 3, D)).astype(np.float32)
        y, z = (rng.standard_normal((2, S, 3, n)).astype(np.float32) for n in (D, E))
        q, k, v = (a.swapaxes(1, 2) for a in (x, y, z))
        (out, kept), (ours, own) = (s.causal_attention(q, k, v, None) for s in (kernels, compiled))
        np.testing.assert_allclose(ours, out, atol=2e-6)
        g = rng.standard_normal(out.shape).astype(np.float32)
        for a, b in zip(compiled.causal_attention_backward(g, q, k, v, None, own["weights"]),
                        kernels.causal_attention_backward(g, q, k, v, None, kept["weights"])):
            np.testing.assert_allclose(a, b, atol=2e-5)


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_the_product_takes_tiles_with_any_number_of_threads(threads, monkeypatch):
    rng = np.random.default_rng(3)
    x, w = matrix(rng, 300, 192, False, False), matrix(rng, 192, 256, False, False)
    g = matrix(rng, 300, 256, False, False)
    monkeypatch.setattr(np, "matmul", None)                     # or the library's would do
    with tape.use_kernels("numba", threads=threads):
        np.testing.assert_array_equal(product(x, w), by_tiles(x, w))
        np.testing.assert_array_equal(product(g, w.T), by_tiles(g, w.T))
        np.testing.assert_allclose(product(x.T, g), by_tiles(x.T, g), atol=1e-3)    # summed in parts
