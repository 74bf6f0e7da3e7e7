"""Sums and means with small rounding errors: in float32 at least, and never of many rows in a row."""

from __future__ import annotations

import functools
import math

import numpy as np

HALF, SINGLE = np.dtype(np.float16), np.dtype(np.float32)
FOLD = 16
SMALL, SHORT = 2 ** 12, 2 ** 7          # elements of an array, and of its rows


def sum_dtype(dtype):
    """What values of this dtype are added up in: float32 at least.

    float16 has 11 binary digits. 2048 + 1 is 2048 there, so a sum of ones would end at 2048.
    """
    return SINGLE if dtype == HALF else dtype


def add(x, y, out=None):
    """x + y, also into x itself."""
    return np.add(x, y, out)


def in_float32(kernel, rounded=True):
    """A kernel that computes in float32 what it is given in float16.

    A result is rounded to float16 once. What goes with it stays in float32, and so do gradients (not
    `rounded`), which the walk adds up and rounds.
    """
    @functools.wraps(kernel)
    def wrapper(x, *others, **attributes):
        if getattr(x, "dtype", None) != HALF:         # not `is`: of an array from a pickle it is equal
            return kernel(x, *others, **attributes)
        operands = [x, *others]
        floats = {a.dtype for a in operands if hasattr(a, "dtype") and a.dtype.kind == "f"}
        result = kernel(*(a.astype(SINGLE) if getattr(a, "dtype", None) == HALF else a
                          for a in operands), **attributes)
        if floats != {HALF} or not rounded:
            return result
        return (result[0].astype(HALF), result[1]) if isinstance(result, tuple) \
            else result.astype(HALF)
    return wrapper


def gradient_in_float32(kernel):
    """`in_float32` for the kernel of a gradient."""
    return in_float32(kernel, rounded=False)


def reduce_sum(x, axis=None, keepdims=False):
    """np.sum with a small rounding error, whichever axes it goes over.

    NumPy adds pairwise along the axis that is contiguous in memory, and the error grows with the
    logarithm of the length. Along the others it adds row to row, and the error grows with the
    number of rows: of the sum of 10,000 rows of 0.1 in float32 four digits would be right. Here 16
    rows become one at a time, so that no sum has more than 16 terms.
    """
    x = np.asarray(x)
    if x.dtype.kind != "f":
        return np.sum(x, axis=axis, keepdims=keepdims)
    if type(axis) is int and axis == -1 and x.ndim == 2 and type(keepdims) is bool and (
            x.size <= SMALL and x.shape[1] <= SHORT and x.dtype != HALF):
        return x.dot(ones(x.shape[1], x.dtype, 1 + keepdims))       # in a third of the time, to begin
    out = x
    if x.size > FOLD and max(x.shape if type(axis) is not int else (x.shape[axis],)) > FOLD:
        for i in _rows_to_add(x, axis):
            out = _added_rows(out, i)
    if x.dtype != HALF:
        return np.add.reduce(out, axis, keepdims=keepdims)
    return np.add.reduce(out, axis, SINGLE, keepdims=keepdims).astype(HALF)


def column_sums(x):
    """sum(x, axis=0) of (N, D), by products with ones, up to 32 terms at once.

    It takes half the time of `reduce_sum`, but the library's threads, which look for work for a while
    afterwards, and so is for where the next products are the library's too.
    """
    rows, width = x.shape
    if rows <= 2 * FOLD or not width:
        return (ones(rows, x.dtype).T @ x)[0]
    whole = rows // FOLD * FOLD
    out = column_sums((ones(FOLD, x.dtype).T @ x[:whole].reshape(FOLD, -1)).reshape(-1, width))
    return out if whole == rows else out + column_sums(x[whole:])


@functools.lru_cache(maxsize=128)
def ones(n, dtype, ndim=2):
    """(n, 1) of ones, or (n,), to add elements up by a product."""
    array = np.ones((n, 1)[:ndim], dtype)
    array.flags.writeable = False         # the cache hands the same array to everybody
    return array


def reduce_mean(x, axis=None, keepdims=False):
    """np.mean, by `reduce_sum`."""
    x = np.asarray(x)
    if x.dtype.kind != "f":
        return np.mean(x, axis=axis, keepdims=keepdims)
    if x.dtype == HALF:
        return reduce_mean(x.astype(SINGLE), axis, keepdims).astype(HALF)
    return reduce_sum(x, axis, keepdims) / length(x, axis)


def variance(x, axis=None, ddof=0, keepdims=False):
    """np.var, by `reduce_sum`; exactly 0 where all elements are equal, whose mean may be rounded."""
    x = np.asarray(x)
    if x.dtype.kind != "f":
        return np.var(x, axis=axis, ddof=ddof, keepdims=keepdims)
    total = reduce_sum(np.square(centred(x, axis)), axis, keepdims)
    return (total / max(length(x, axis) - ddof, 0)).astype(x.dtype, copy=False)


def centred(x, axis=None):
    """x less its mean; less the first of its elements before, which leaves the mean its digits."""
    x = np.asarray(x)
    if x.dtype.kind != "f":
        return x - np.mean(x, axis=axis, keepdims=True)
    out = x.astype(sum_dtype(x.dtype), copy=False)
    out = out - _first(out, axis)
    out -= reduce_mean(out, axis, keepdims=True)
    return out


def _first(x, axis):
    """The first of the elements that a reduction over `axis` takes together; the axes stay."""
    axes = range(x.ndim) if axis is None else [
        i % x.ndim for i in (axis if isinstance(axis, tuple) else (axis,))]
    return x[tuple(slice(0, 1) if i in axes else slice(None) for i in range(x.ndim))]


def length(x, axis):
    """How many elements a reduction of x over `axis` takes together."""
    if axis is None:
        return x.size
    if type(axis) is int:
        return x.shape[axis]
    return math.prod(x.shape[i] for i in (axis if isinstance(axis, tuple) else (axis,)))


def _rows_to_add(x, axis):
    """The axes in `axis` that NumPy would add row to row, if they are long.

    It adds pairwise along the axis whose elements are next to each other in memory, and along those
    that continue it without a gap.
    """
    if axis == -1 and x.flags.c_contiguous:
        return []
    axes = range(x.ndim) if axis is None else [
        i % max(x.ndim, 1) for i in (axis if isinstance(axis, tuple) else (axis,))]
    pairwise, step = set(), None
    long = [i for i in range(x.ndim) if x.shape[i] > 1 and x.strides[i]]      # 0: broadcast
    for i in sorted(long, key=lambda i: abs(x.strides[i])):
        if i not in axes or step not in (None, x.strides[i]):
            break
        pairwise.add(i)
        step = x.strides[i] * x.shape[i]
    return [i for i in axes if i not in pairwise and x.shape[i] > FOLD]


def _added_rows(x, axis):
    """x with an axis shortened to 16 rows or less, by sums of 16."""
    before, after = x.shape[:axis], x.shape[axis + 1:]
    every = (slice(None),) * axis
    while x.shape[axis] > FOLD:
        rows = x.shape[axis] // FOLD
        whole = x[(*every, slice(FOLD * rows))].reshape(*before, FOLD, rows, *after)
        rest = x[(*every, slice(FOLD * rows, None))]
        x = np.add.reduce(whole, axis=axis, dtype=sum_dtype(x.dtype))
        if rest.shape[axis]:
            x = np.concatenate([x, rest], axis=axis)
    return x


def broadcast(x, shape):
    """np.broadcast_to; but a small result is a new array, faster to make and to read than a view."""
    x = np.asarray(x)
    if x.ndim > len(shape) or math.prod(shape) > SMALL:
        return np.broadcast_to(x, shape)
    out = np.empty(shape, x.dtype)
    out[...] = x
    return out


def fit_to(g, shape, dtype):
    """A gradient in the shape of its input, and in its dtype if that is of floats, in float32 at least.

    It is to be added to others. Written with methods, so that it serves Tensors too.
    """
    if g.shape != shape:
        g = unbroadcast(g, shape)
    if g.dtype is dtype and dtype != HALF or dtype.kind != "f":     # that of integers stays as it is
        return g
    dtype = sum_dtype(dtype)
    return g if g.dtype == dtype else g.astype(dtype)


def unbroadcast(g, shape):
    """Sum a gradient over the axes along which its input was broadcast from `shape`.

    Broadcasting copies, and the derivative of copying is summing: if y_i = x for i = 1..n, then
    dL/dx = sum_i dL/dy_i. NumPy broadcasts by adding axes on the left and stretching axes of 1.
    Written with methods, so that it serves Tensors too.
    """
    if g.shape == shape:
        return g
    extra = len(g.shape) - len(shape)
    axes = tuple(range(extra))
    if g.shape[extra:] != shape:
        axes += tuple(
            i + extra for i, size in enumerate(shape) if size == 1 and g.shape[i + extra] != 1)
    if axes and isinstance(g, np.ndarray):      # not rounded to float16 yet
        g = reduce_sum(g.astype(SINGLE) if g.dtype == HALF else g, axes, keepdims=True)
    elif axes:
        g = g.sum(axis=axes, keepdims=True)
    return g.reshape(shape) if extra else g
