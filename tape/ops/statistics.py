"""Averages, covariances, and reductions that leave NaN out."""

from __future__ import annotations

import functools

import numpy as np

from tape.ops.arithmetic import (
    equal, greater, isnan, ones_like, sqrt, square, where, widened)
from tape.ops.cumulative import cumprod, cumsum, prod
from tape.ops.reductions import (
    broadcast_like, centred, expand_like, max, mean, min, norm, rounded_like, sum)
from tape.ops.stacking import atleast_2d
from tape.ops.joining import concatenate
from tape.primitive import implements


@implements(np.average)
def average(a, axis=None, weights=None, returned=False, *, keepdims=False):
    """The mean over `axis`, or sum(weights a) / sum(weights); with `returned`, that sum too.

    `weights` has the shape of a, or one axis, as long as `axis` is. Differentiable in both.
    """
    if weights is None:
        found = mean(a, axis, keepdims)
        return (found, sum(ones_like(a), axis, keepdims)) if returned else found
    if np.shape(weights) != np.shape(a):
        if axis is None or isinstance(axis, tuple) or np.shape(weights) != (np.shape(a)[axis],):
            raise ValueError(f"average: weights must have the shape of a, {np.shape(a)}, or one axis, "
                             f"as long as that which axis= names; got shape {np.shape(weights)} and "
                             f"axis={axis}")
        shape = [1] * np.ndim(a)
        shape[axis] = -1
        weights = expand_like(np.reshape(weights, shape), a)
    product = weights * a
    total = sum(widened(weights), axis, keepdims)
    found = rounded_like(sum(widened(product), axis, keepdims) / total, product)
    return (found, rounded_like(total, product)) if returned else found


@implements(np.cov)
def cov(m, y=None, rowvar=True, bias=False, ddof=None, fweights=None, aweights=None, *, dtype=None):
    """Covariances of the rows of m (``rowvar=False``: of its columns): (N, observations) -> (N, N).

    ``c_ij = sum_k (m_ik - mean_i) (m_jk - mean_j) / (n - ddof)``, with ddof 1, or 0 if `bias`.
    """
    if fweights is not None or aweights is not None or dtype is not None:
        raise TypeError("cov: fweights=, aweights= and dtype= have no rule here; write the "
                        "weighted sum (w * d) @ d.T of the deviations d")
    rows = _rows(m, rowvar)
    if y is not None:
        rows = concatenate([rows, _rows(y, rowvar)], 0)
    ddof = (0 if bias else 1) if ddof is None else ddof
    d = centred(rows, 1)
    c = rounded_like(d @ np.transpose(d) / (np.shape(rows)[1] - ddof), rows)
    return c[0, 0] if np.shape(rows)[0] == 1 else c


def _rows(m, rowvar):
    rows = atleast_2d(m)
    return rows if rowvar or np.ndim(m) < 2 else np.transpose(rows)


@implements(np.corrcoef)
def corrcoef(x, y=None, rowvar=True, *, dtype=None):
    """Correlations of the rows of x: the covariances over the roots of the variances."""
    c = cov(x, y, rowvar, dtype=dtype)
    if np.ndim(c) == 0:
        return c / c
    n = np.arange(np.shape(c)[0])
    d = sqrt(c[n, n])
    return c / np.expand_dims(d, 1) / d


# --- NaN left out ---


def _without_nan(x, value):
    return where(isnan.as_operator(x), value, x)


def _counted(x, axis, keepdims):
    """How many elements over `axis` are not NaN, in the dtype of x, but in float32 at least."""
    return sum(where(isnan.as_operator(x), 0, ones_like(widened(x))), axis, keepdims)


def nansum(x, axis=None, keepdims=False):
    """Sum over `axis` of what is not NaN."""
    return sum(_without_nan(x, 0), axis, keepdims)


def nanprod(x, axis=None, keepdims=False):
    """Product over `axis` of what is not NaN."""
    return prod(_without_nan(x, 1), axis, keepdims)


def _in_float32(function):
    """A composition that is computed in float32 where x is in float16, and rounded once."""
    @functools.wraps(function)
    def call(x, *args, **kwargs):
        x = x if hasattr(type(x), "__tape_apply__") else np.asarray(x)
        return rounded_like(function(widened(x), *args, **kwargs), x)
    return call


@_in_float32
def nanmean(x, axis=None, keepdims=False):
    """Mean over `axis` of what is not NaN."""
    return nansum(x, axis, keepdims) / _counted(x, axis, keepdims)


def _deviations(x, axis):
    """x less the mean over `axis` of what is not NaN; twice, since the first mean is rounded."""
    for _ in range(2):
        x = x - broadcast_like(nanmean(x, axis, True), x, axis, True)
    return x


def _freedom(x, axis, ddof, keepdims):
    """How many elements are not NaN, less `ddof`; NaN where that leaves none."""
    n = _counted(x, axis, keepdims) - ddof
    return where(greater.as_operator(n, 0), n, np.nan)


@_in_float32
def nanvar(x, axis=None, ddof=0, keepdims=False):
    """Variance over `axis` of what is not NaN."""
    return nansum(square(_deviations(x, axis)), axis, keepdims) / _freedom(x, axis, ddof, keepdims)


@_in_float32
def nanstd(x, axis=None, ddof=0, keepdims=False):
    """Standard deviation over `axis` of what is not NaN: the root of `nanvar`; derivative 0 where 0."""
    length = norm(_without_nan(_deviations(x, axis), 0), axis, keepdims)
    return length / sqrt(_freedom(x, axis, ddof, keepdims))


def _extreme(reduce, worst, x, axis, keepdims):
    found = reduce(_without_nan(x, worst), axis, keepdims)
    return where(equal.as_operator(_counted(x, axis, keepdims), 0), np.nan, found)


def nanmax(x, axis=None, keepdims=False):
    """Largest over `axis` of what is not NaN; ties share; NaN where nothing is left."""
    return _extreme(max, -np.inf, x, axis, keepdims)


def nanmin(x, axis=None, keepdims=False):
    """Smallest over `axis` of what is not NaN; ties share; NaN where nothing is left."""
    return _extreme(min, np.inf, x, axis, keepdims)


def nancumsum(x, axis=None):
    """Running sums along `axis`, with NaN as 0."""
    return cumsum(_without_nan(x, 0), axis)


def nancumprod(x, axis=None):
    """Running products along `axis`, with NaN as 1."""
    return cumprod(_without_nan(x, 1), axis)
