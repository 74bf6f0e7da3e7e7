"""Operators that reduce an axis: their gradients spread back over it."""

from __future__ import annotations

import numpy as np

from tape import kernels
from tape.ops.arithmetic import astype_like, where, widened
from tape.primitive import NUMPY_FUNCTIONS, derivative


@derivative(lambda g, like_x, axis, keepdims: broadcast_like(g, like_x, axis, keepdims),
            numpy=np.sum)
def sum(x, /, axis=None, keepdims=False):
    """Sum over `axis` (an int, a tuple, or None for all). Each element's derivative is 1."""
    return kernels.reduce_sum(x, axis, keepdims)


@derivative(lambda g, axis, keepdims: sum(g, axis, keepdims), None)
def broadcast_like(g, like, /, axis=None, keepdims=False):
    """Undo the shape of a reduction: put back the reduced axes, at the lengths that `like` has."""
    return kernels.broadcast(_with_axes(g, like, axis, keepdims), like.shape)


def _with_axes(g, like, axis, keepdims):
    """g with the axes of `like` that a reduction took away, of length 1."""
    if keepdims or axis is None or not like.ndim:           # NumPy sums a number over axis 0, too
        return g
    if axis == -1:                                          # in a quarter of the time
        return np.asarray(g)[..., None]
    shape = list(like.shape)
    for i in axis if isinstance(axis, tuple) else (axis,):
        shape[i] = 1
    return np.asarray(g).reshape(shape)


@derivative(lambda g: g, None)      # as for any broadcasting, the engine sums over the copies
def expand_like(x, like, /):
    """x broadcast to the shape of `like`."""
    return kernels.broadcast(x, like.shape)


@derivative(lambda g, like_x: expand_like(g, like_x), None)
def sum_to_like(x, like, /):
    """x summed over the axes along which `like` was broadcast to x's shape.

    This is what the engine does with every gradient in an ordinary walk, as an operator: in the dtype
    of `like`, or in float32 if that is float16, since the result is to be added to others.
    """
    return kernels.fit_to(np.asarray(x), like.shape, like.dtype)


@derivative(lambda g: g, lambda g: g, elementwise=True)
def accumulate(total, x, /):
    """total + x, laid out in memory as `total`: what the engine does with a third contribution."""
    if not np.ndim(total):
        return total + x
    return np.add(total, x, out=np.empty_like(total))


@derivative(lambda g, like_x: rounded_like(g, like_x), None, elementwise=True)
def rounded_like(x, like, /):
    """A sum of gradients that is complete, in the dtype of `like` if that is of floats."""
    return np.asarray(x).astype(like.dtype, copy=False) if like.dtype.kind == "f" else x


@derivative(None)
def count(like, /, axis=None, ddof=0):
    """How many elements a reduction over `axis` takes together, less `ddof`: to divide a gradient by.

    For float16, which ends at 65,504, an array in float32, so that the quotient is one too.
    """
    n = kernels.length(like, axis) - ddof
    return np.asarray(n, kernels.SINGLE) if like.dtype == kernels.HALF else n


@derivative(lambda g, axis, keepdims: mean(g, axis, keepdims), None)
def spread_mean(g, like, /, axis=None, keepdims=False):
    """g / n in the place of each of the n elements of `like` that have a mean together.

    The mean takes the sum with the factor 1/n, and this spreads with it: each is the transpose of the
    other, and so the rule of the other. In float32 at least: an n above 65,504 is infinite in float16.
    """
    dtype = kernels.sum_dtype(g.dtype)
    share = g / dtype.type(kernels.length(like, axis))
    return kernels.broadcast(_with_axes(share, like, axis, keepdims), like.shape)


@derivative(lambda g, like_x, axis, keepdims: spread_mean(g, like_x, axis, keepdims), numpy=np.mean)
def mean(x, /, axis=None, keepdims=False):
    """Mean over `axis`: with n elements to a mean, each one's derivative is 1/n."""
    return kernels.reduce_mean(x, axis, keepdims)


@derivative(lambda g, axis: centred(g, axis))
def centred(x, /, axis=None):
    """x less its mean over `axis`: a projection, which is its own transpose. In float32 at least."""
    return kernels.centred(x, axis)


@derivative(lambda g, x, like_x, axis, ddof, keepdims:
            broadcast_like(2 * g / count(like_x, axis, ddof), like_x, axis, keepdims)
            * centred(x, axis), numpy=np.var)
def var(x, /, axis=None, ddof=0, keepdims=False):
    """Variance over `axis`: the sum of (x - mean)^2 divided by n - ddof.

    Its derivative is 2 (x_i - mean) / (n - ddof): the term through the mean,
    -2/(n - ddof) * sum_j (x_j - mean) * dmean/dx_i, vanishes because deviations sum to zero.
    """
    return kernels.variance(x, axis, ddof, keepdims)


@derivative(None)
def _counted(x, /, axis, keepdims):
    """How often x holds over `axis`: in float64, since there may be more than float16 can count."""
    return np.asarray(np.sum(x, axis=axis, keepdims=keepdims, dtype=np.float64))


def _share_among_winners(g, out, x, axis, keepdims):
    """Elements that tie for the extreme share its gradient equally, so that it sums to g.

    Where some are NaN the extreme is, and they are equal to it too, if not to each other.
    """
    winners = np.logical_or(np.equal(x, broadcast_like(out, x, axis, keepdims)), np.isnan(x))
    share = astype_like(g / _counted(winners, axis, keepdims), widened(g))
    return where(winners, broadcast_like(share, x, axis, keepdims), 0)


@derivative(_share_among_winners, numpy=np.max)
def max(x, /, axis=None, keepdims=False):
    """Largest element over `axis`; those that tie share the gradient equally."""
    return np.max(x, axis=axis, keepdims=keepdims)


@derivative(_share_among_winners, numpy=np.min)
def min(x, /, axis=None, keepdims=False):
    """Smallest element over `axis`; those that tie share the gradient equally."""
    return np.min(x, axis=axis, keepdims=keepdims)


def _softmax_of(out, x, axis, keepdims):
    """exp(x - logsumexp(x)); where every x was -inf, zeros.

    Divided by its sum, which is 1 but for the digits that logsumexp(x) has lost far from 0.
    """
    finite = where(np.equal(out, -np.inf), 0, out)
    share = np.exp(x - broadcast_like(finite, x, axis, keepdims))
    return _over(share, broadcast_like(sum(share, axis, True), x, axis, True))


@derivative(lambda g, out, x, axis, keepdims:
            broadcast_like(g, x, axis, keepdims) * _softmax_of(out, x, axis, keepdims))
def logsumexp(x, /, axis=None, keepdims=False):
    """log(sum(exp(x))) over `axis`, without overflow.

    d/dx_i log sum_j exp(x_j) = exp(x_i) / sum_j exp(x_j): the softmax, here exp(x_i - out).
    """
    return kernels.logsumexp(x, axis=axis, keepdims=keepdims)


def _over(g, out):
    """g / out, and 0 where out is 0: also for the derivatives, so not 0 / 1."""
    zero = np.equal(out, 0)
    return where(zero, 0, g / where(zero, 1, out))


@derivative(lambda g, out, x, axis, keepdims:
            broadcast_like(_over(g, out), x, axis, keepdims) * x)
def norm(x, /, axis=None, keepdims=False):
    """Euclidean length over `axis`: d|x|/dx_i = x_i / |x|.

    At |x| = 0 there is no derivative, since the length grows in every direction; 0 is taken, and so
    for the derivatives of higher order.
    """
    return kernels.norm(x, axis=axis, keepdims=keepdims)


@derivative(lambda g, out, x, like_x, axis, ddof, keepdims:
            broadcast_like(_over(g, out) / count(like_x, axis, ddof), like_x, axis, keepdims)
            * centred(x, axis), numpy=np.std)
def std(x, /, axis=None, ddof=0, keepdims=False):
    """Standard deviation over `axis`: the square root of `var`.

    Its derivative is that of var over 2 std: (x_i - mean) / ((n - ddof) std), and 0 where std = 0.
    """
    return kernels.deviation(x, axis=axis, ddof=ddof, keepdims=keepdims)


NUMPY_FUNCTIONS[np.amax], NUMPY_FUNCTIONS[np.amin] = max, min
