"""e^x and tanh in loops. Of float32 they are computed here, by operations of vectors.

The system's function takes one number at a time, some 3 ns each. By the steps below a loop takes 4, 8
or 16 at once:

1. x = n ln 2 + r with n = round(x / ln 2), so |r| <= ln(2) / 2 = 0.3466, and e^x = 2^n e^r. The product
   n ln 2 must not be rounded before it is taken from x: ln 2 is taken in two parts, of which the first
   has 9 binary digits, so that n times it is exact (W. J. Cody and W. Waite 1980, "Software Manual for
   the Elementary Functions", chapter 6).
2. e^r = 1 + r + r^2/2! + ... + r^7/7!. What is left out is below 0.3466^8 / 8! * e^0.3466 = 7.4e-9,
   where half a unit in the last place of float32 is 3e-8 or 6e-8.
3. 2^n is a float32 whose exponent bits are n + 127. Where the result has no such exponent (it is
   infinite or denormal) 2^n has none either; so 2^n is the product of two powers of half the size.

Rounding r and the polynomial leaves an error below 1.1 units in the last place, which a test bounds
over the whole range; e^x is inf from 88.73 on, 0 below -103.97, denormal between -103.97 and -87.34,
and NaN for NaN.

Of positive x, tanh(x) = 1 - 2 / (e^(2x) + 1) loses digits near 0, where 1 is taken from 1. There
Lambert's continued fraction (1761)

    tanh(x) = x / (1 + x^2 / (3 + x^2 / (5 + x^2 / (7 + x^2 / (9 + ...)))))

is cut behind the 9, which makes it x (945 + 105 x^2 + x^4) / (945 + 420 x^2 + 15 x^4). Up to |x| = 0.6
what is left out is below 1e-9 of it. Both are wrong by less than 3 units in the last place.
"""

from __future__ import annotations

import math

import numpy as np
from numba import types
from numba.extending import overload, register_jitable

from tape.kernels.numba.bits import as_float

_LOW, _HIGH = np.float32(-105), np.float32(89)        # beyond them e^x is 0 and inf
_PER_LN2 = np.float32(1 / math.log(2))
_LN2_FIRST = np.float32(355 / 512)                    # 9 binary digits of ln 2
_LN2_REST = np.float32(math.log(2) - 355 / 512)
_ROUNDS = np.float32(1.5 * 2 ** 23)                   # adding it leaves no digits behind the point
_ZERO, _ONE, _TWO = np.float32(0), np.float32(1), np.float32(2)
_15, _105, _420, _945, _NEAR = (np.float32(x) for x in (15, 105, 420, 945, 0.36))
_C2, _C3, _C4, _C5, _C6, _C7 = (np.float32(1 / math.factorial(k)) for k in range(2, 8))


def exp(x):
    """e^x, in compiled loops alone: of float32 as above, of float64 by the system's function."""
    raise NotImplementedError("this stands for what loops are compiled with; in Python use np.exp")


# Never with sums in another order, whatever loop it stands in: step 1 depends on the order.
@overload(exp, jit_options={"fastmath": {"contract"}, "error_model": "numpy"})
def _exp_of(x):
    return _exp_of_float32 if x == types.float32 else lambda x: math.exp(x)


def _exp_of_float32(x):
    y = _LOW if x < _LOW else x                       # NaN stays NaN
    y = _HIGH if y > _HIGH else y
    n = (y * _PER_LN2 + _ROUNDS) - _ROUNDS
    r = (y - n * _LN2_FIRST) - n * _LN2_REST
    p = _C4 + r * (_C5 + r * (_C6 + r * _C7))
    p = _ONE + r * (_ONE + r * (_C2 + r * (_C3 + r * p)))
    whole = np.int32(n if n == n else _ZERO)
    half = np.int32(whole >> 1)
    return p * _power_of_2(half) * _power_of_2(np.int32(whole - half))


@register_jitable
def _power_of_2(n):
    return as_float(np.int32((n + 127) << 23))


def tanh(x):
    """tanh(x), in compiled loops alone: of float32 as above, of float64 by the system's function."""
    raise NotImplementedError("this stands for what loops are compiled with; in Python use np.tanh")


@overload(tanh, jit_options={"fastmath": {"contract"}, "error_model": "numpy"})
def _tanh_of(x):
    return _tanh_of_float32 if x == types.float32 else lambda x: math.tanh(x)


def _tanh_of_float32(x):
    square = x * x
    near = x * (_945 + square * (_105 + square)) / (_945 + square * (_420 + square * _15))
    far = _ONE - _TWO / (exp(_TWO * abs(x)) + _ONE)
    return near if square < _NEAR else far if x > _ZERO else -far
