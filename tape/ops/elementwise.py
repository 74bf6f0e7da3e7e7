"""More elementwise operators of NumPy's: other bases, remainders, NaN, and steps, whose slope is 0.

The table reads as that of ``arithmetic.py``.
"""

from __future__ import annotations

import math

import numpy as np

from tape import kernels
from tape.comparison import Comparison
from tape.ops.activations import sigmoid
from tape.ops.arithmetic import share_of_larger, where
from tape.primitive import NUMPY_FUNCTIONS, derivative, implements, primitive

LOG_2, LOG_10 = math.log(2), math.log(10)

log2 = primitive(np.log2, lambda g, x: g / (x * LOG_2),
                 doc="Logarithm to base 2; derivative 1 / (x log 2).")
log10 = primitive(np.log10, lambda g, x: g / (x * LOG_10),
                  doc="Logarithm to base 10; derivative 1 / (x log 10).")
exp2 = primitive(np.exp2, lambda g, out: g * (out * LOG_2), doc="2 to the x; derivative 2^x log 2.")
cbrt = primitive(np.cbrt, lambda g, out: g / (3 * out * out),
                 doc="Cube root; derivative 1 / (3 cbrt(x)^2).")
reciprocal = primitive(np.reciprocal, lambda g, out: -g * (out * out),
                       doc="1 / x; derivative -1 / x^2.")
positive = primitive(np.positive, lambda g: g, doc="+x, a copy.")
fabs = primitive(np.fabs, lambda g, x: g * np.sign(x), doc="|x| of floats; derivative 0 at 0.")
conjugate = primitive(np.conjugate, lambda g: g, doc="x, which is real.")


@derivative(lambda g: g, lambda g: -g, elementwise=True)
def lead(x, y, /):
    """x - y; of two equal infinities 0, or -inf if they are negative, so that exp(x) has no share."""
    out = np.subtract(x, y)
    if not kernels.has_nan(out):
        return out
    return np.where(np.logical_and(np.equal(x, y), np.isinf(x)), np.minimum(x, 0), out)


@derivative(lambda g, x, y: g * sigmoid(lead(x, y)),
            lambda g, x, y: g * sigmoid(lead(y, x)),
            numpy=np.logaddexp, elementwise=True, fresh=True)
def logaddexp(x, y, /):
    """log(exp(x) + exp(y)) without overflow.

    d/dx is the share of exp(x) in the sum: exp(x) / (exp(x) + exp(y)) = 1 / (1 + exp(y - x)).
    """
    return kernels.logaddexp(x, y)


logaddexp2 = primitive(np.logaddexp2,
                       lambda g, x, y: g * sigmoid(LOG_2 * lead(x, y)),      # 2^x = e^(x log 2)
                       lambda g, x, y: g * sigmoid(LOG_2 * lead(y, x)),
                       doc="log2(2^x + 2^y) without overflow; d/dx = 2^x / (2^x + 2^y).")


# --- steps: constants to the tape ---

floor = primitive(np.floor, None, doc="The integer below; its derivative is taken as 0.")
ceil = primitive(np.ceil, None, doc="The integer above; its derivative is taken as 0.")
trunc = primitive(np.trunc, None, doc="The integer towards 0; its derivative is taken as 0.")
rint = primitive(np.rint, None, doc="The nearest integer; its derivative is taken as 0.")
floor_divide = primitive(np.floor_divide, None, None, symbol="//",
                         doc="floor(x / y); its derivative is taken as 0.").computes_with_all()
signbit, logical_xor = Comparison(np.signbit), Comparison(np.logical_xor)


@derivative(None, numpy=np.round)
def round(x, /, decimals=0):
    """x rounded to so many decimals; its derivative is taken as 0."""
    return np.round(x, decimals)


@derivative(None, numpy=np.imag)
def imag(x, /):
    """Zeros: tensors are real."""
    return np.zeros_like(x)


heaviside = primitive(np.heaviside, None, lambda g, x: where(np.equal(x, 0), g, 0),
                      doc="0 where x < 0, 1 where x > 0, and y where x = 0; in x a constant."
                      ).computes_with_all()


# --- remainders: x less a multiple of y, the multiple a step ---

remainder = primitive(np.remainder,
                      lambda g: g,
                      lambda g, x, y: -g * np.floor_divide(x, y), symbol="%",
                      doc="x - floor(x / y) y, which has the sign of y; derivatives between the jumps.")

fmod = primitive(np.fmod,
                 lambda g: g,
                 lambda g, out, x, y: -g * np.rint((x - out) / y),    # x / y may round up: 1 / 0.1
                 doc="x - trunc(x / y) y, which has the sign of x; derivatives between the jumps.")

copysign = primitive(np.copysign,
                     lambda g, x, y: g * np.sign(x) * where(np.signbit(y), -1, 1),
                     None, doc="|x| with the sign of y; derivative 0 at x = 0, and in y."
                     ).computes_with_all()

ldexp = primitive(np.ldexp, lambda g, y: np.ldexp(g, y), None, doc="x 2^y for integers y.")


# --- NaN as what is missing ---

fmax = primitive(
    np.fmax,
    lambda g, x, y: where(np.isnan(y), g, where(np.isnan(x), 0, share_of_larger(g, x, y))),
    lambda g, x, y: where(np.isnan(y), 0, where(np.isnan(x), g, share_of_larger(g, y, x))),
    doc="The larger of x and y, or the one that is not NaN; ties share.")

fmin = primitive(
    np.fmin,
    lambda g, x, y: where(np.isnan(y), g, where(np.isnan(x), 0, share_of_larger(g, y, x))),
    lambda g, x, y: where(np.isnan(y), 0, where(np.isnan(x), g, share_of_larger(g, x, y))),
    doc="The smaller of x and y, or the one that is not NaN; ties share.")


@derivative(lambda g, x: where(np.isfinite(x), g, 0), elementwise=True, name="nan_to_num")
def _nan_to_num(x, /, nan, posinf, neginf):
    return np.nan_to_num(x, nan=nan, posinf=posinf, neginf=neginf)


@implements(np.nan_to_num)
def nan_to_num(x, copy=True, nan=0.0, posinf=None, neginf=None):
    """x with numbers in the places of NaN and of the infinities, where the derivative is 0."""
    if not copy:
        raise TypeError("nan_to_num: a tensor is not changed in place; leave copy=False out")
    return _nan_to_num(x, nan, posinf, neginf)


@implements(np.real, np.real_if_close)
def real(x):
    """x, which is real."""
    return positive(x)


@implements(np.copy)
def copy(a, order="K", subok=False):
    """A copy of x, as a result of its own."""
    return positive(a)


NUMPY_FUNCTIONS[np.around], NUMPY_FUNCTIONS[np.fix] = round, trunc
