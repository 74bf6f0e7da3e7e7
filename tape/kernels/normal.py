"""The error function, which NumPy lacks, and what is made of it: the exact GELU.

    erf(x) = 2/sqrt(pi) integral_0^x exp(-t^2) dt,  erfc(x) = 1 - erf(x),
    P(Z <= x) = (1 + erf(x / sqrt(2))) / 2 of a standard normal Z,  P(Z > x) = erfc(x / sqrt(2)) / 2
"""

from __future__ import annotations

import math

import numpy as np

from tape.kernels.numpy import _floating, _scalar_if_without_axes, has_nan
from tape.kernels.pieces import pieces
from tape.kernels.sums import SINGLE, gradient_in_float32, in_float32

# W. J. Cody 1969, "Rational Chebyshev approximations for the error function", Math. Comp. 23: quotients
# of polynomials, coefficients by falling powers. Each is good to 16 digits in its interval.
_SMALL = (      # erf(x) = x P(x^2) / Q(x^2),  |x| <= 0.46875
    (1.85777706184603153e-1, 3.16112374387056560, 1.13864154151050156e2, 3.77485237685302021e2,
     3.20937758913846947e3),
    (1.0, 2.36012909523441209e1, 2.44024637934444173e2, 1.28261652607737228e3, 2.84423683343917062e3))
_MIDDLE = (     # erfc(x) = exp(-x^2) P(x) / Q(x),  0.46875 <= x <= 4
    (2.15311535474403846e-8, 5.64188496988670089e-1, 8.88314979438837594, 6.61191906371416295e1,
     2.98635138197400131e2, 8.81952221241769090e2, 1.71204761263407058e3, 2.05107837782607147e3,
     1.23033935479799725e3),
    (1.0, 1.57449261107098347e1, 1.17693950891312499e2, 5.37181101862009858e2, 1.62138957456669019e3,
     3.29079923573345963e3, 4.36261909014324716e3, 3.43936767414372164e3, 1.23033935480374942e3))
_LARGE = (      # erfc(x) = exp(-x^2) / x (1/sqrt(pi) - y P(y) / Q(y)),  y = 1/x^2,  x >= 4
    (1.63153871373020978e-2, 3.05326634961232344e-1, 3.60344899949804439e-1, 1.25781726111229246e-1,
     1.60837851487422766e-2, 6.58749161529837803e-4),
    (1.0, 2.56852019228982242, 1.87295284992346725, 5.27905102951428412e-1, 6.05183413124413191e-2,
     2.33520497626869185e-3))
END = 60        # erfc(60) = exp(-60^2 / 2) = 0; what is further out has squares that overflow

# P(Z > u) = exp(-u^2 / 2) t P(t) with t = 1 / (1 + TAIL_SCALE u), for u >= 0: the form of C. Hastings
# 1955, "Approximations for Digital Computers". P(Z > u) exp(u^2 / 2) falls as 1 / u does far out, and
# so does t: both are smooth in t. P is of degree 8, coefficients by falling powers, fitted up to
# u = 14.5, where float32 ends. The relative error is below 2e-8, least at this scale, and below 3e-8
# with coefficients that are rounded to float32.
TAIL_SCALE = 0.266
TAIL = (0.0305258152, -0.14092054, 0.208318472, -0.106726147, 0.131644146, 0.0628367543, 0.102469983,
        0.105714722, 0.106136799)
PER_SQRT_2_PI = 1 / math.sqrt(2 * math.pi)


def _polynomial(coefficients, x, out=None):
    """By Horner's rule, in one array."""
    out = np.multiply(x, coefficients[0], out=out)
    for c in coefficients[1:-1]:
        out += c
        out *= x
    out += coefficients[-1]
    return out


def _quotient(coefficients, x):
    numerator, denominator = (_polynomial(of, x) for of in coefficients)
    numerator /= denominator
    return numerator


def _by_intervals(x, complement):
    """erf(x), or erfc(x), of float64 x >= 0 in one axis."""
    out = np.clip(x, 0, END)                                     # NaN stays NaN
    small, large = out <= 0.46875, out > 4
    middle = (out > 0.46875) & ~large
    near, between, far = out[small], out[middle], out[large]
    y = far ** -2
    near *= _quotient(_SMALL, near ** 2)
    between = np.exp(-between ** 2) * _quotient(_MIDDLE, between)
    far = np.exp(-far ** 2) / far * (math.pi ** -0.5 - y * _quotient(_LARGE, y))
    out[small] = 1 - near if complement else near
    out[middle] = between if complement else 1 - between
    out[large] = far if complement else 1 - far
    return out


def erf(x):
    """The error function, computed in float64 and rounded once to the dtype of x."""
    given = _floating(x)
    out = np.empty_like(given)
    for x, y in pieces(given, out):
        x = x.astype(np.float64)
        y[...] = np.copysign(_by_intervals(np.abs(x).reshape(-1), False).reshape(x.shape), x)
    return _scalar_if_without_axes(out)


@in_float32
def normal_cdf(x):
    """P(Z <= x): P(Z > |x|) of negative x, and 1 less that of others."""
    x = _floating(x)
    tail = np.empty_like(x)
    _tail(np.clip(np.abs(x), 0, END, out=np.empty_like(x)), tail)
    return _scalar_if_without_axes(np.where(np.greater(x, 0), 1 - tail, tail))


@in_float32
def gelu_exact(x):
    """max(x, 0) - |x| P(Z > |x|), in which nothing is taken from 1; returns P(Z > |x|) too."""
    x = _floating(x)
    out, tails = np.empty_like(x), np.empty_like(x)
    for x, tail, y in pieces(x, tails, out):
        np.abs(x, out=y)
        np.clip(y, 0, END, out=y)
        _tail(y, tail)
        y *= tail
        np.subtract(np.clip(x, 0, np.inf), y, out=y)
    return _scalar_if_without_axes(out), {"tail": _scalar_if_without_axes(tails)}


def _tail(u, out):
    """P(Z > u) for u >= 0, into `out`."""
    if u.dtype != SINGLE:
        out[...] = 0.5 * _by_intervals(u.reshape(-1) * math.sqrt(0.5), True).reshape(u.shape)
        return
    t = np.multiply(u, TAIL_SCALE, out=np.empty_like(u))
    t += 1
    np.divide(1, t, out=t)
    _polynomial(TAIL, t, out)
    out *= t
    np.square(u, out=t)
    t *= -0.5
    np.exp(t, out=t)
    out *= t


@gradient_in_float32
def gelu_exact_backward(g, x, tail):
    """g * (P(Z <= x) + x exp(-x^2 / 2) / sqrt(2 pi)); derived in `tape.gelu_exact`."""
    x = _floating(x)
    out = np.empty_like(x)
    for x, g, tail, slope in pieces(x, g, tail, out):
        bounded = np.clip(x, -END, END, out=np.empty_like(slope))
        np.square(bounded, out=slope)
        slope *= -0.5
        np.exp(slope, out=slope)
        slope *= PER_SQRT_2_PI
        slope *= bounded
        rest = np.multiply(tail, -2, out=bounded)       # P(Z <= x) = tail + [x > 0] (1 - 2 tail), for
        rest += 1                                       # which np.where takes five times as long
        rest *= np.greater(x, 0)
        slope += rest
        slope += tail
        if has_nan(slope):
            slope[np.equal(g, 0)] = 0
        slope *= g
    return (_scalar_if_without_axes(out),)
