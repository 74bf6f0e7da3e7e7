"""Averages, covariances, and reductions that leave NaN out."""

from __future__ import annotations

import numpy as np

from tape.ops.arithmetic import equal, greater, isnan, ones_like, sqrt, square, where
from tape.ops.cumulative import cumprod, cumsum, prod
from tape.ops.reductions import broadcast_like, expand_like, max, mean, min, norm, sum
from tape.ops.stacking import atleast_2d
from tape.ops.joining import concatenate
from tape.primitive import implements


@implements(np.average)
def average(a, axis=None, weights=None, returned=False, *, keepdims=False):
    """The mean over `axis`, or sum(weights a) / sum(weights); with `returned`, that sum too.

    `weights` has the shape of a, or one axis, as long as `axis` is. Differentiable in both.
    """
    if weights is None:
        weights = ones_like(a)
    elif np.shape(weights) != np.shape(a):
        if axis is None or isinstance(axis, tuple) or np.shape(weights) != (np.shape(a)[axis],):
            raise ValueError(f"average: weights must have the shape of a, {np.shape(a)}, or one axis, "
                             f"as long as that which axis= names; got shape {np.shape(weights)} and "
                             f"axis={axis}")
        shape = [1] * np.ndim(a)
        shape[axis] = -1
        weights = expand_like(np.reshape(weights, shape), a)
    total = sum(weights, axis, keepdims)
    found = sum(weights * a, axis, keepdims) / total
    return (found, total) if returned else found


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
    d = rows - mean(rows, 1, True)
    c = d @ np.transpose(d) / (np.shape(rows)[1] - ddof)
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
    """How many elements over `axis` are not NaN, in the dtype of x."""
    return sum(where(isnan.as_operator(x), 0, ones_like(x)), axis, keepdims)


def nansum(x, axis=None, keepdims=False):
    """Sum over `axis` of what is not NaN."""
    return sum(_without_nan(x, 0), axis, keepdims)


def nanprod(x, axis=None, keepdims=False):
    """Product over `axis` of what is not NaN."""
    return prod(_without_nan(x, 1), axis, keepdims)


def nanmean(x, axis=None, keepdims=False):
    """Mean over `axis` of what is not NaN."""
    return nansum(x, axis, keepdims) / _counted(x, axis, keepdims)


def _deviations(x, axis):
    """x less the mean over `axis` of what is not NaN."""
    return x - broadcast_like(nanmean(x, axis, True), x, axis, True)


def _freedom(x, axis, ddof, keepdims):
    """How many elements are not NaN, less `ddof`; NaN where that leaves none."""
    n = _counted(x, axis, keepdims) - ddof
    return where(greater.as_operator(n, 0), n, np.nan)


def nanvar(x, axis=None, ddof=0, keepdims=False):
    """Variance over `axis` of what is not NaN."""
    return nansum(square(_deviations(x, axis)), axis, keepdims) / _freedom(x, axis, ddof, keepdims)


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
