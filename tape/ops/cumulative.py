"""Products, and running sums and products."""

from __future__ import annotations

import numpy as np

from tape import kernels
from tape.ops.reductions import broadcast_like
from tape.ops.shapes import reshape, reshape_like, squeeze
from tape.primitive import derivative


def _running(numpy, x, axis):
    """A running sum or product of x, computed in float32 at least."""
    x = np.asarray(x)
    if x.dtype.kind != "f":
        return numpy(x, axis=axis)
    return numpy(x, axis=axis, dtype=kernels.sum_dtype(x.dtype)).astype(x.dtype, copy=False)


@derivative(lambda g, axis: np.flip(_cumsum(np.flip(g, axis), axis), axis), name="cumsum")
def _cumsum(x, /, axis):
    return _running(np.cumsum, x, axis)


def cumsum(x, axis=None):
    """Running sums, out_n = x_0 + ... + x_n, along `axis` (None: of the flattened x).

    x_n is in out_n and all later ones, so its gradient is the running sum of g from the end.
    """
    return _cumsum(reshape(x, (-1,)), 0) if axis is None else _cumsum(x, axis)


# --- running products, exact where elements are zero: nothing is divided by x ---


@derivative(lambda g, axis: np.flip(shift(np.flip(g, axis), axis), axis))
def shift(x, /, axis, fill=0):
    """x moved on by one place along `axis`, with the number `fill` in front: out_n = x_(n-1)."""
    rows = np.moveaxis(np.asarray(x), axis, 0)
    out = np.empty_like(rows)
    out[:1], out[1:] = fill, rows[:-1]
    return np.moveaxis(out, 0, axis)


def _backward_recurrence(g, x, axis):
    """h_n = g_n + x_(n+1) h_(n+1): the recurrence below, from the end to the front."""
    return np.flip(recurrence(shift(np.flip(x, axis), axis), np.flip(g, axis), axis), axis)


@derivative(lambda g, out, x, axis: _backward_recurrence(g, x, axis) * shift(out, axis),
            lambda g, x, axis: _backward_recurrence(g, x, axis))
def recurrence(x, b, /, axis):
    """s_n = x_n s_(n-1) + b_n along `axis`, with s_(-1) = 0.

    What reaches s_n, h_n = g_n + x_(n+1) h_(n+1), comes from its own cotangent and through the next
    element; then db_n = h_n and dx_n = h_n s_(n-1).
    """
    x, b = np.moveaxis(np.asarray(x), axis, 0), np.moveaxis(np.asarray(b), axis, 0)
    out = np.array(b, dtype=np.result_type(x, b))
    for n in range(1, len(out)):
        out[n] += x[n] * out[n - 1]
    return np.moveaxis(out, 0, axis)


@derivative(lambda g, out, x, axis: _backward_recurrence(g, x, axis) * shift(out, axis, 1),
            name="cumprod")
def _cumprod(x, /, axis):
    return _running(np.cumprod, x, axis)


def cumprod(x, axis=None):
    """Running products, out_n = x_0 ... x_n = x_n out_(n-1), along `axis` (None: flattened).

    The derivative is that of `recurrence`, and so right where elements are zero.
    """
    return _cumprod(reshape(x, (-1,)), 0) if axis is None else _cumprod(x, axis)


def _products_of_others(x, axis):
    """For each element the product of all others: of those before it and of those behind it."""
    if axis is None:
        return reshape_like(_products_of_others(reshape(x, (-1,)), 0), x)
    before = shift(_cumprod(x, axis), axis, 1)
    behind = np.flip(shift(_cumprod(np.flip(x, axis), axis), axis, 1), axis)
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
