"""Sorting, and what is found by sorting: medians and other quantiles."""

from __future__ import annotations

import numpy as np

from tape import kernels
from tape.grad_mode import modes
from tape.ops.arithmetic import isnan, where
from tape.ops.indexing import getitem
from tape.ops.picking import take_along_axis
from tape.ops.reductions import max, min
from tape.ops.shapes import expand_dims, moveaxis, reshape
from tape.primitive import derivative, implements
from tape.promotion import plain


@derivative(None)
def order_of(x, /, axis):
    """The places of x's elements along `axis` from the smallest to the largest; equal ones in order."""
    return kernels.stable_order(x, axis)


@derivative(None)
def partial_order_of(x, /, kth, axis):
    """The same, sorted only as far as `partition` sorts."""
    return np.argpartition(x, kth, axis)


def sort(x, axis=-1):
    """x in ascending order along `axis` (None: flattened); the gradient goes back where each came from.

    Equal elements keep their order, and so each gets the gradient of its own place.
    """
    if axis is None:
        x, axis = reshape(x, (-1,)), 0
    return take_along_axis(x, order_of(x, axis), axis)


@implements(np.sort)
def _numpy_sort(x, axis=-1, kind=None, order=None, *, stable=None):
    return sort(x, axis)            # stable sorting serves every kind=; order= is for records alone


def partition(x, kth, axis=-1):
    """x with its kth smallest element along `axis` in place, smaller ones before it, others behind."""
    if axis is None:
        x, axis = reshape(x, (-1,)), 0
    return take_along_axis(x, partial_order_of(x, kth, axis), axis)


@implements(np.partition)
def _numpy_partition(x, kth, axis=-1, kind="introselect", order=None):
    return partition(x, kth, axis)


@implements(np.ptp)
def ptp(x, axis=None, out=None, keepdims=False):
    """The largest less the smallest element over `axis`; ties share."""
    if out is not None:
        raise TypeError("ptp: a tensor's result cannot be written into an array; leave out= out")
    return max(x, axis, keepdims) - min(x, axis, keepdims)


@derivative(None)
def ranks(like, /, q, up):
    """Between which places of a sorted last axis the quantiles q lie: shape (1, ..., 1, len(q))."""
    height = np.multiply(q, like.shape[-1] - 1)
    height = (np.ceil if up else np.floor)(height).astype(np.intp)
    return height.reshape(*(1,) * (like.ndim - 1), -1)


@derivative(None)
def rank_fraction(like, /, q):
    """How far from the lower to the upper of these places, in the dtype of `like`."""
    height = np.multiply(q, like.shape[-1] - 1)
    return (height - np.floor(height)).astype(like.dtype if like.dtype.kind == "f" else float)


def quantile(x, q, axis=None, keepdims=False):
    """The value below which a share q of the elements over `axis` lies, between two by a straight line.

    q is a number in [0, 1], or a one-dimensional array of them, whose axis comes first in the result.
    The gradient goes to the two elements around it, in inverse proportion to their distance. NaN
    where an element is NaN.
    """
    q = _shares(q)
    if q.ndim > 1 or not np.all((q >= 0) & (q <= 1)):
        raise ValueError(f"quantile: q must be a number in [0, 1] or an array (K,) of them, got {q}")
    if isinstance(axis, tuple):
        raise TypeError("quantile: axis must be an int or None; merge several axes by reshape first")
    rows = sort(reshape(x, (-1,)) if axis is None else moveaxis(x, axis, -1))
    share = tuple(q.reshape(-1).tolist())
    low = take_along_axis(rows, ranks(rows, share, False))
    high = take_along_axis(rows, ranks(rows, share, True))
    last = getitem(rows, (Ellipsis, slice(-1, None)))              # where sorting puts NaN
    if share == (0.5,):                        # a mean, which infinities do not turn into NaN
        found = low / 2 + high / 2
    else:
        found = low + (high - low) * rank_fraction(rows, share)
    found = where(isnan.as_operator(last), last, found)         # (..., K)
    found = moveaxis(found, -1, 0) if q.ndim else getitem(found, (Ellipsis, 0))
    if not keepdims:
        return found
    axes = range(np.ndim(x)) if axis is None else [axis % np.ndim(x)]
    return expand_dims(found, tuple(a + q.ndim for a in axes))


def _shares(q):
    """q as an array: what goes through it is not differentiated."""
    if getattr(q, "requires_grad", False) and modes.get().recording:
        raise TypeError("quantile: q must be a number or an array, since nothing is differentiated by "
                        "it. Of a Tensor pass q.detach()")
    return np.asarray(plain(q), np.float64)


@implements(np.quantile)
def _numpy_quantile(x, q, axis=None, out=None, overwrite_input=False, method="linear",
                    keepdims=False, *, weights=None):
    if out is not None or method != "linear" or weights is not None:
        raise TypeError(f"quantile: of NumPy's methods there is 'linear', without out= and weights=; "
                        f"got method={method!r}")
    return quantile(x, q, axis, keepdims)


def percentile(x, q, axis=None, keepdims=False):
    """`quantile`, with q in [0, 100]."""
    return quantile(x, _shares(q) / 100, axis, keepdims)


@implements(np.percentile)
def _numpy_percentile(x, q, *args, **kwargs):
    return _numpy_quantile(x, _shares(q) / 100, *args, **kwargs)


def median(x, axis=None, keepdims=False):
    """The middle element over `axis`, or the mean of the two in the middle."""
    return quantile(x, 0.5, axis, keepdims)


@implements(np.median)
def _numpy_median(x, axis=None, out=None, overwrite_input=False, keepdims=False):
    return _numpy_quantile(x, 0.5, axis, out, keepdims=keepdims)
