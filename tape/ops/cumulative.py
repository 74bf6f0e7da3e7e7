"""Products, and running sums and products."""

from __future__ import annotations

import numpy as np
from numpy.lib.array_utils import normalize_axis_index

from tape.ops.reductions import broadcast_like
from tape.ops.shapes import reshape, reshape_like, squeeze
from tape.primitive import derivative

LONG = 64       # elements of a row; of fewer, calling NumPy for each row takes longer than adding


def _from_its_beginning(x, axis, reverse):
    """x with `axis` as the first, in the order in which a recurrence goes over it; a view."""
    rows = np.moveaxis(x, normalize_axis_index(axis, x.ndim), 0)
    return rows[::-1] if reverse else rows


def _running(ufunc, x, axis, reverse):
    """Running sums or products along an axis, from its end if `reverse`; in float64, rounded once.

    NumPy goes element by element, in the dtype of x: the last of a million sums in float32 has two
    digits. Along any axis but the last, whole rows can be added to each other in a tenth of the time.
    """
    x = np.atleast_1d(x)
    floats = x.dtype.kind == "f"
    out = np.empty(x.shape, np.result_type(x, np.float64) if floats else np.cumsum(x[:0]).dtype)
    given, found = _from_its_beginning(x, axis, reverse), _from_its_beginning(out, axis, reverse)
    if axis % x.ndim == x.ndim - 1 or found[:1].size < LONG:
        ufunc.accumulate(given, out=found)
    else:
        found[:1] = given[:1]
        for n in range(1, len(found)):
            ufunc(found[n - 1], given[n], out=found[n])
    return out.astype(x.dtype, copy=False) if floats else out


@derivative(lambda g, axis, reverse: _cumsum(g, axis, not reverse), name="cumsum")
def _cumsum(x, /, axis, reverse=False):
    return _running(np.add, x, axis, reverse)


def cumsum(x, axis=None):
    """Running sums, out_n = x_0 + ... + x_n, along `axis` (None: of the flattened x).

    x_n is in out_n and all later ones, so its gradient is the running sum of g from the end.
    """
    return _cumsum(reshape(x, (-1,)), 0) if axis is None else _cumsum(x, axis)


# --- running products, exact where elements are zero: nothing is divided by x ---


@derivative(lambda g, axis, reverse: shift(g, axis, 0, not reverse))
def shift(x, /, axis, fill=0, reverse=False):
    """x moved on by one place along `axis`, with the number `fill` in front: out_n = x_(n-1).

    With `reverse` it is moved back, with `fill` at the end: out_n = x_(n+1).
    """
    x = np.asarray(x)
    out = np.empty_like(x)
    given, found = _from_its_beginning(x, axis, reverse), _from_its_beginning(out, axis, reverse)
    found[:1], found[1:] = fill, given[:-1]
    return out


def _recurrence_back(g, x, axis, reverse):
    """h_n = g_n + x_(n+1) h_(n+1): the recurrence below, the other way round."""
    return recurrence(shift(x, axis, 0, not reverse), g, axis, not reverse)


@derivative(lambda g, out, x, axis, reverse:
            _recurrence_back(g, x, axis, reverse) * shift(out, axis, 0, reverse),
            lambda g, x, axis, reverse: _recurrence_back(g, x, axis, reverse))
def recurrence(x, b, /, axis, reverse=False):
    """s_n = x_n s_(n-1) + b_n along `axis`, with s_(-1) = 0; from its end if `reverse`.

    What reaches s_n, h_n = g_n + x_(n+1) h_(n+1), comes from its own cotangent and through the next
    element; then db_n = h_n and dx_n = h_n s_(n-1).
    """
    x, b = np.asarray(x), np.asarray(b)
    dtype = np.result_type(x, b)
    out = np.array(b, dtype=np.result_type(dtype, np.float64) if dtype.kind == "f" else dtype)
    factors, found = _from_its_beginning(x, axis, reverse), _from_its_beginning(out, axis, reverse)
    for n in range(1, len(found)):
        found[n] += factors[n] * found[n - 1]
    return out.astype(dtype, copy=False)


@derivative(lambda g, out, x, axis, reverse:
            _recurrence_back(g, x, axis, reverse) * shift(out, axis, 1, reverse), name="cumprod")
def _cumprod(x, /, axis, reverse=False):
    return _running(np.multiply, x, axis, reverse)


def cumprod(x, axis=None):
    """Running products, out_n = x_0 ... x_n = x_n out_(n-1), along `axis` (None: flattened).

    The derivative is that of `recurrence`, and so right where elements are zero.
    """
    return _cumprod(reshape(x, (-1,)), 0) if axis is None else _cumprod(x, axis)


def _products_of_others(x, axis):
    """For each element the product of all others: of those before it and of those behind it."""
    if axis is None:
        return reshape_like(_products_of_others(reshape(x, (-1,)), 0), x)
    before, behind = (shift(_cumprod(x, axis, end), axis, 1, end) for end in (False, True))
    return before * behind


@derivative(lambda g, x, like_x, axis, keepdims:
            broadcast_like(g, like_x, axis, keepdims) * _products_of_others(x, axis), name="prod")
def _prod(x, /, axis, keepdims):
    return np.prod(x, axis=axis, keepdims=keepdims)


def prod(x, axis=None, keepdims=False):
    """Product over `axis` (an int, a tuple, or None for all).

    d/dx_i is the product of the other elements, made without a division, so it is exact where some
    are zero.
    """
    if not isinstance(axis, tuple):
        return _prod(x, axis, keepdims)
    for a in axis:
        x = _prod(x, a, True)
    return x if keepdims else squeeze(x, axis)
