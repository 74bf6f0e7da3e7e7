"""Products of matrices in parts: by tiles, or by the BLAS that NumPy brings, from compiled loops."""

from __future__ import annotations

import ctypes

import numpy as np
from llvmlite import binding
from numba import types

from tape.blas import shipped_functions
from tape.kernels.numba.compiled import DTYPES, INTEGER, STRIDED, TEAM, WRITE, inner, loop
from tape.kernels.numba.threads import in_parts, share, team_for
from tape.kernels.numba.tiles import multiply, multiply_panels, panels_of, suits

# cblas_sgemm(layout, transa, transb, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc), and dgemm the same
# with doubles; matrices are given by their addresses. Compiled code finds them by these names.
_ROW_MAJOR, _AS_IT_IS, _TRANSPOSED = 101, 111, 112
if _FUNCTIONS := shipped_functions():
    for _name in "cblas_sgemm", "cblas_dgemm":
        binding.add_symbol("tape_" + _name, ctypes.cast(_FUNCTIONS(_name), ctypes.c_void_p).value)


def _gemm(name, real):
    enum, size = types.int32, types.int64
    return types.ExternalFunction(name, types.void(
        enum, enum, enum, size, size, size, real, size, size, size, size, real, size, size))


_sgemm, _dgemm = _gemm("tape_cblas_sgemm", types.float32), _gemm("tape_cblas_dgemm", types.float64)
# So many multiplications take as long as what other kernels do with an element.
A_STEP = 32


def available():
    """Whether compiled loops can call the BLAS."""
    return _FUNCTIONS is not None


def product(x, y):
    """x @ y of two matrices, or of as many pairs of matrices in arrays of the same leading axes."""
    team, parts = team_for(x.size * y.shape[-1] // A_STEP)
    if not _suit(x, y) or parts == 1 and not (x.ndim == 2 and suits(x, y)):
        return np.matmul(x, y)
    out = np.empty((*x.shape[:-1], y.shape[-1]), x.dtype)
    if x.ndim > 2:
        _products[x.dtype](*(a if a.ndim == 4 else a[None] for a in (x, y, out)), team, parts)
    else:
        long = 2 * len(y) > parts * max(out.shape)             # `rest` then is no larger than x and y
        rest = np.empty((parts - 1 if long else 0, *out.shape), x.dtype)
        _product[x.dtype](x, y, out, rest, team, parts)
    return out


def _suit(x, y):
    """Whether `gemm` takes these: matrices of more than a row and a column, with rows or columns."""
    return (type(x) is type(y) is np.ndarray and x.dtype == y.dtype and x.dtype in DTYPES
            and x.shape[-1] == y.shape[-2] and x.shape[:-2] == y.shape[:-2] and 2 <= x.ndim <= 4
            and min(x.shape[-2:]) > 1 and y.shape[-1] > 1
            and _has_lines(x) and _has_lines(y))


def _has_lines(x):
    """Whether rows, or columns, of the matrices in x have neighbours in memory, one after the other."""
    if x.ndim == 2 and x.flags.forc:
        return x.flags.aligned
    rows, columns = x.strides[-2:]
    size = x.itemsize
    if columns != size:
        rows, columns = columns, rows
    return (x.flags.aligned and columns == size and rows % size == 0
            and rows >= size * x.shape[-1 if x.strides[-1] == size else -2])


@inner()
def gemm(a, b, beta, out):
    """out = a b + beta out, of (m, k) and (k, n).

    The elements of a row or of a column of a and b are neighbours in memory, and those of a row of out.
    """
    size = a.itemsize
    rows, columns, summed = a.shape[0], b.shape[1], a.shape[1]
    flip_a, flip_b = a.strides[1] != size, b.strides[1] != size
    step_a, step_b = a.strides[0 + flip_a] // size, b.strides[0 + flip_b] // size
    how_a, how_b = _TRANSPOSED if flip_a else _AS_IT_IS, _TRANSPOSED if flip_b else _AS_IT_IS
    if size == 4:
        _sgemm(_ROW_MAJOR, how_a, how_b, rows, columns, summed, 1, a.ctypes.data, step_a,
               b.ctypes.data, step_b, beta, out.ctypes.data, out.strides[0] // size)
    else:
        _dgemm(_ROW_MAJOR, how_a, how_b, rows, columns, summed, 1, a.ctypes.data, step_a,
               b.ctypes.data, step_b, beta, out.ctypes.data, out.strides[0] // size)


@inner()
def _multiply(x, y, out):
    """out = x y."""
    if suits(x, y):
        multiply(x, y, out)
    else:
        gemm(x, y, 0, out)


@inner()
def prepared(b, by_tiles):
    """b (k, n) as `times` takes it."""
    return panels_of(b if by_tiles else b[:0, :0]), b


@inner()
def times(a, b, out, adds):
    """out = a b, or out += a b if `adds`; b is `prepared`, and may have more rows and columns."""
    panels, plain = b
    if len(panels):
        multiply_panels(a, panels[:, :a.shape[1]], out, adds)
    else:
        gemm(a, plain[:a.shape[1], :out.shape[1]], adds, out)


@loop(STRIDED(2), STRIDED(2), WRITE(2), WRITE(3), TEAM, INTEGER)
def _product(x, y, out, rest, team, parts):
    _product_part(team, parts, (x, y, out, rest))
    if len(rest):
        _add_part(team, parts, (rest, out))


@in_parts()
def _add_part(rest, out, number, parts):
    """out += the sum of the rest, some rows of it."""
    start, stop = share(number, parts, len(out))
    for other in rest:
        for i in range(start, stop):
            for j in range(out.shape[1]):
                out[i, j] += other[i, j]


@in_parts()
def _product_part(x, y, out, rest, number, parts):
    """Rows of the result, or columns where there are more; with `rest`, some terms of all its sums.

    The gradient of a weight sums over all tokens, of which each thread has had its part in its cache.
    """
    (bottom, right), after, to = out.shape, len(y), out
    top = left = first = 0
    if len(rest):
        first, after = share(number, parts, after)
        to = rest[number - 1] if number else out
    elif bottom >= right:
        top, bottom = share(number, parts, bottom)
    else:
        left, right = share(number, parts, right)
    _multiply(x[top:bottom, first:after], y[first:after, left:right], to[top:bottom, left:right])


@loop(STRIDED(4), STRIDED(4), WRITE(4), TEAM, INTEGER)
def _products(x, y, out, team, parts):
    _products_part(team, parts, (x, y, out))


@in_parts()
def _products_part(x, y, out, number, parts):
    """Some of the pairs of matrices."""
    second = x.shape[1]
    for i in range(*share(number, parts, len(x) * second)):
        a, b = divmod(i, second)
        gemm(x[a, b], y[a, b], 0, out[a, b])
