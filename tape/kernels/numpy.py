"""The fused operators as kernels, and other array code that gains from being ordered for speed.

Each function here has a plain definition elsewhere: the docstring of its operator in ``tape/ops``
derives it, and the tests hold the two against each other. Here the same arithmetic is ordered for
few passes over memory, since that is what an elementwise operation in NumPy costs.
"""

from __future__ import annotations

from typing import Callable

import numpy as np

from tape.kernels.pieces import pieces
from tape.kernels.products import as_rows
from tape.kernels.sums import (
    SHORT, column_sums, gradient_in_float32, in_float32, ones, reduce_sum, variance)

SQRT_2_OVER_PI = 0.7978845608028654     # sqrt(2 / pi)
LONG = 2 ** 12                          # elements of a row, of which products lose the digits of sums
FAR = 1e3                               # see `_far_from_zero`
MANY = 2 ** 13                          # elements; of fewer np.clip takes longer than np.maximum
GELU_CUBIC = 0.044715                   # Hendrycks and Gimpel 2016, arXiv:1606.08415, section 2


def has_nan(x):
    """Found in one pass: a sum of squares is NaN only if one of them is."""
    if 0 < x.size <= 1024:          # argmax, to which NaN is the largest, finds it 0.1 us sooner
        largest = x.item(x.argmax())
        return largest != largest
    x = x.ravel("K")          # in the order of memory, without a copy
    length = x.dot(x)
    return length != length


def zero_where_undefined(gradient, cotangent):
    """0 in the place of each NaN where the cotangent is exactly 0.

    Taken literally, 0 * inf and 0 * NaN are NaN, and where(x > 0, sqrt(x), x) would have a NaN gradient
    through the branch that it did not take. Written with NumPy's functions, so that it serves Tensors
    too; a place without a NaN keeps its derivatives of higher order.
    """
    if not has_nan(np.asarray(getattr(gradient, "_data", gradient))):
        return gradient
    return np.where(np.logical_and(np.isnan(gradient), np.equal(cotangent, 0)), 0, gradient)


def broadcasts_to(shape, larger):
    """Whether an array of `shape` can be broadcast to the shape `larger`."""
    extra = len(larger) - len(shape)
    return extra >= 0 and (shape == larger[extra:] or all(
        n in (1, m) for n, m in zip(shape, larger[extra:])))


_POWERS: dict[float, Callable] = {
    1: np.positive, 2: np.square, 3: lambda x: x * x * x, 0.5: np.sqrt, -1: lambda x: 1 / x,
    -2: lambda x: np.square(1 / x), -0.5: lambda x: 1 / np.sqrt(x + 0)}       # with -0 taken as 0


def power(x, exponent):
    """x ** exponent for a number; NumPy's general power takes several times as long as these.

    Not ``**``, which on a NumPy scalar is another function than on an array, with other last digits.
    """
    floats = getattr(getattr(x, "dtype", None), "kind", "") == "f"
    special = _POWERS.get(exponent) if floats else None
    return special(x) if special else np.power(x, exponent)


def _floating(x):
    x = np.asarray(x)
    return x if x.dtype.kind == "f" else x.astype(np.float64)       # as np.exp does


def _has_short_rows(x, axis):
    """Whether `axis` is the last and short, so that NumPy begins more rows than it computes."""
    return axis == -1 and x.ndim > 0 and 0 < x.shape[-1] <= SHORT and x.flags.c_contiguous


def largest(x, axis):
    """max(x, axis, keepdims=True), -inf of nothing; of short rows by its place, in half the time."""
    if not _has_short_rows(x, axis):
        return np.max(x, axis=axis, keepdims=True, initial=-np.inf)
    rows = as_rows(x)
    return rows[np.arange(len(rows)), rows.argmax(axis=-1)].reshape(*x.shape[:-1], 1)


def _sums_along(x, axis):
    """sum(x, axis, keepdims=True)."""
    return _row_sums(x) if _has_short_rows(x, axis) else reduce_sum(x, axis, keepdims=True)


@in_float32
def softmax(x, axis=-1):
    """exp(x - max) / sum exp(x - max); a row of -inf alone gives zeros rather than NaN."""
    x = _floating(x)
    peak = largest(x, axis)
    e = np.exp(x - np.where(np.isneginf(peak), 0, peak))
    total = _sums_along(e, axis)
    e /= np.where(total == 0, 1, total)
    return e


@gradient_in_float32
def softmax_backward(g, s, axis=-1):
    """s * (g - sum(g * s)); derived in `tape.softmax`."""
    return s * (g - _sums_along(g * s, axis))


@in_float32
def logsumexp(x, axis=None, keepdims=False):
    """max + log sum exp(x - max); -inf for a row of -inf alone."""
    x = _floating(x)
    peak = largest(x, axis)
    peak = np.where(np.isfinite(peak), peak, 0)
    with np.errstate(divide="ignore"):
        out = np.log(_sums_along(np.exp(x - peak), axis)) + peak
    return out if keepdims else np.squeeze(out, axis=axis)


@in_float32
def deviation(x, axis=None, ddof=0, keepdims=False):
    """The square root of `variance`."""
    return np.sqrt(variance(x, axis, ddof, keepdims))


@in_float32
def norm(x, axis=None, keepdims=False):
    """sqrt(sum x^2)."""
    x = _floating(x)
    return np.sqrt(reduce_sum(x * x, axis, keepdims))


@in_float32
def log_softmax(x, axis=-1):
    """(x - max) - log sum exp(x - max); a row of -inf alone stays as it is.

    Not x - logsumexp(x): where x is far from 0, the logarithm has lost its digits there.
    """
    x = _floating(x)
    peak = largest(x, axis)
    out = x - np.where(np.isfinite(peak), peak, 0)
    total = _sums_along(np.exp(out), axis)
    out -= np.log(np.where(total == 0, 1, total))
    return out


@gradient_in_float32
def log_softmax_backward(g, y, axis=-1):
    """g - exp(y) sum(g); derived in `tape.log_softmax`."""
    return g - np.exp(y) * _sums_along(g, axis)


def logaddexp(x, y):
    """m + log(1 + e), with m the larger of x and y, and e = exp(-|x - y|), which is never above 1.

    NumPy's own function goes element by element; here every pass is one that has vector instructions.
    The sum u = 1 + e is rounded, by d = e - (u - 1), which is exact. It is small, so that
    log(1 + e) = log(u + d) is log u + d / u to the last digits: for the smallest e, where u is 1, e.
    """
    many = max(getattr(x, "size", 1), getattr(y, "size", 1)) >= 2 ** 11
    if many and np.result_type(x, y).char in "fd":
        with np.errstate(all="ignore"):
            out, e = np.maximum(x, y), np.subtract(x, y)
            if not has_nan(e):                               # as of inf - inf
                for part, e in pieces(out, e):
                    np.exp(np.negative(np.abs(e, e), e), e)
                    u = 1 + e
                    part += np.log(u)
                    e -= u - 1
                    part += np.divide(e, u, e)
                return out
    return np.logaddexp(x, y)


@in_float32
def sigmoid(x):
    """1 / (1 + exp(-x)), by exponentials of numbers that are never positive.

    The numerator, exp(x) or 1, takes eight times as long by np.where as by a second exponential.
    """
    x = _floating(x)
    negative = np.clip(x, -np.inf, 0) if x.size >= MANY else np.minimum(x, 0)
    return np.exp(negative) / (1 + np.exp(-np.abs(x)))


@gradient_in_float32
def sigmoid_backward(g, s):
    """g s (1 - s)."""
    return g * (s * (1 - s))


def relu(x):
    """max(x, 0)."""
    many = type(x) is np.ndarray and x.size >= MANY and x.dtype.char in "fd"
    return np.clip(x, 0, np.inf) if many else np.maximum(x, 0)


def relu_backward(g, out):
    """g where out > 0."""
    return g * np.greater(out, 0)


@in_float32
def layer_norm(x, weight, bias, eps):
    """Normalise the last axis; returns the result, and the mean and 1/std of each row."""
    check_of_rows("layer_norm", x, weight=weight, bias=bias)
    x = _floating(x)
    dtype = np.result_type(x, x if weight is None else weight, x if bias is None else bias)
    mean = _mean_rows(x)
    out = np.subtract(x, mean, dtype=dtype)
    rstd = reciprocal_rms(out, eps)
    ratio = mean * rstd
    if not np.vdot(ratio, ratio) <= FAR ** 2:                   # or there is a NaN in another row
        out, mean, rstd = _far_from_zero(x, out, mean, rstd, eps)
    out *= rstd
    if weight is not None:
        out *= weight
    if bias is not None:
        out += bias
    return out, {"mean": mean, "rstd": rstd}


def _far_from_zero(x, out, mean, rstd, eps):
    """x less its means, the means and 1/std again, now right for rows whose mean is FAR times the std.

    Rounded, it is wrong in the digits in which the elements differ; less the first they are small.
    """
    mean, rstd = (np.array(each).reshape(*x.shape[:-1], 1) for each in (mean, rstd))
    rows = np.abs(mean * rstd)[..., 0] > FAR             # each row for itself, whatever the others are
    if not rows.any():
        return out, mean, rstd
    first = x[..., :1][rows]
    rest = x[rows] - first                               # (K, D), of the rows that are so far
    offset = _mean_rows(rest)
    rest -= offset
    out[rows], mean[rows], rstd[rows] = rest, first + offset, reciprocal_rms(rest, eps)
    return out, mean, rstd


def check_of_rows(operator, x, **given):
    """Raise a ValueError unless x has rows, and what is given has the shape of one, or is None."""
    if np.ndim(x) == 0:
        raise ValueError(f"{operator}: x must have an axis, along which it is normalised; got a number")
    for name, value in given.items():
        if value is not None and np.shape(value) != x.shape[-1:]:
            hint = "" if np.ndim(value) else f". Did you mean eps={value}?"
            if np.shape(value) == (1,):
                hint = f". The length of a row is no argument: {operator}(x, {', '.join(given)})"
            raise ValueError(f"{operator}: {name} must have the shape of x's last axis, "
                             f"{x.shape[-1:]}; got {np.shape(value)}{hint}")


@gradient_in_float32
def layer_norm_backward(g, x, weight, bias, mean, rstd):
    """Gradients of x, weight and bias; derived in `tape.layer_norm`."""
    normalised = (x - mean) * rstd
    g_x, along, g_weight = past_the_scale(g, normalised, weight)
    g_bias = None if bias is None else column_sums(as_rows(g))
    g_x -= _mean_rows(g_x)
    normalised *= along
    g_x -= normalised
    g_x *= rstd
    return g_x, g_weight, g_bias


def reciprocal_rms(x, eps):
    """1 / sqrt(mean(x^2) + eps) of each row of x."""
    mean_square = _single(_dot_rows(x, x))
    mean_square /= x.shape[-1]
    mean_square += float(eps)
    return np.reciprocal(np.sqrt(mean_square))


def past_the_scale(g, normalised, weight):
    """h = g weight, mean(h n) of each row n of `normalised`, and the gradient of the weight."""
    # Rows side by side in memory, of which a product adds up the elements with small errors.
    product = np.multiply(g, normalised, order="C")
    h = np.array(g, order="C") if weight is None else np.multiply(g, weight, order="C")
    g_weight = None if weight is None else column_sums(as_rows(product))
    return h, _mean_rows(product, weight), g_weight


def _mean_rows(x, factors=None):
    """mean(x, axis=-1, keepdims=True), or that of x times the factors (D,)."""
    mean = _single(_row_sums(x) if factors is None else x @ factors[:, None])
    mean /= x.shape[-1]
    return mean


def _single(x):
    """One number as a scalar, on which arithmetic is five times as fast; other arrays as they are."""
    return x[(0,) * x.ndim] if x.size == 1 else x


def _row_sums(x):
    """sum(x, axis=-1, keepdims=True), by a product with ones: five times as fast on short rows."""
    return x @ ones(x.shape[-1], x.dtype) if x.shape[-1] <= LONG else reduce_sum(x, -1, True)


def _dot_rows(a, b):
    """sum(a * b, axis=-1, keepdims=True), of rows that are not long without the product in memory."""
    return np.vecdot(a, b)[..., None] if a.shape[-1] <= LONG else reduce_sum(a * b, -1, True)


@in_float32
def gelu(x):
    """x * s with s = 1 / (1 + exp(-2u)), which is (1 + tanh(u)) / 2, and exp is faster than tanh."""
    x = _floating(x)
    out, logistic = np.empty_like(x), np.empty_like(x)
    with np.errstate(over="ignore"):                            # exp = inf is s = 0, as it should be
        for x, s, y in pieces(x, logistic, out):
            np.multiply(x, x, out=s)    # becomes -2u = x (-2a - 2ab x^2), with a = sqrt(2/pi)
            s *= -2 * GELU_CUBIC * SQRT_2_OVER_PI                               # and b = 0.044715
            s -= 2 * SQRT_2_OVER_PI
            s *= x
            np.exp(s, out=s)
            s += 1
            np.divide(1, s, out=s)      # in half the time of np.reciprocal
            np.multiply(x, s, out=y)
    return _scalar_if_without_axes(out), {"s": _scalar_if_without_axes(logistic)}


def _scalar_if_without_axes(x):
    return x if x.ndim else x[()]


@gradient_in_float32
def gelu_backward(g, x, s):
    """g * s * [1 + x (1 - s) * 2 du/dx]; derived in `tape.gelu`."""
    x = _floating(x)
    out = np.empty_like(x)
    for x, g, s, slope in pieces(x, g, s, out):
        np.multiply(x, x, out=slope)
        slope *= 6 * GELU_CUBIC * SQRT_2_OVER_PI
        slope += 2 * SQRT_2_OVER_PI                             # 2 du/dx
        slope *= x
        slope *= 1 - s
        slope += 1
        slope *= s
        if has_nan(slope):                      # x^2 overflowed: far out, the slope is 0 or 1
            slope[...] = np.where(np.isnan(slope) & ~np.isnan(x), np.greater(x, 0), slope)
            slope[np.equal(g, 0)] = 0
        slope *= g
    return (_scalar_if_without_axes(out),)
