"""e^x and tanh in loops, by operations of vectors.

The system's function takes one number at a time, some 3 ns each. By the steps below a loop takes 4, 8
or 16 at once:

1. x = n ln 2 + r with n = round(x / ln 2), so |r| <= ln(2) / 2 = 0.3466, and e^x = 2^n e^r. The product
   n ln 2 must not be rounded before it is taken from x: ln 2 is taken in two parts, of which the first
   has so few binary digits that n times it is exact (W. J. Cody and W. Waite 1980, "Software Manual
   for the Elementary Functions", chapter 6): 9 for float32, 32 for float64.
2. e^r = 1 + r + r^2/2! + ... + r^k/k!. What is left out is below 0.3466^(k+1) / (k+1)! * e^0.3466. For
   float32 k = 7 leaves out 7.4e-9, where half a unit in the last place is 3e-8 or 6e-8; for float64
   k = 13 leaves out 6e-18 of 6e-17 or 1.1e-16.
3. n is found by adding 1.5 * 2^23 (2^52), a number so large that no digits are left behind the point.
   The last digits of the sum are those of n, as an integer too.
4. 2^n is a float whose exponent bits are n + 127 (n + 1023). Where the result has no such exponent (it
   is infinite or denormal) 2^n has none either; so 2^n is the product of two powers of half the size.

Rounding r and the polynomial leaves an error below 1.1 units in the last place, which a test bounds
over the whole range. In float32, e^x is inf from 88.73 on, 0 below -103.97, denormal between -103.97
and -87.34; in float64 from 709.79, below -745.14, and from there to -708.39. It is NaN for NaN.

Of positive x, tanh(x) = 1 - 2 / (e^(2x) + 1) loses digits near 0, where 1 is taken from 1. There
Lambert's continued fraction (1761)

    tanh(x) = x / (1 + x^2 / (3 + x^2 / (5 + x^2 / (7 + x^2 / (9 + ...)))))

is cut behind the 9, which makes it x (945 + 105 x^2 + x^4) / (945 + 420 x^2 + 15 x^4). Up to |x| = 0.6
what is left out is below 1e-9 of it. Both are wrong by less than 3 units in the last place of float32;
of float64 tanh is the system's.
"""

from __future__ import annotations

import math
from typing import Callable

import numpy as np
from numba import types
from numba.extending import overload

from tape.kernels.numba.bits import as_float, as_integer

_ONE, _TWO = np.float32(1), np.float32(2)
_15, _105, _420, _945, _NEAR = (np.float32(x) for x in (15, 105, 420, 945, 0.36))


def exp(x):
    """e^x, in compiled loops alone, as above."""
    raise NotImplementedError("this stands for what loops are compiled with; in Python use np.exp")


# Never with sums in another order, whatever loop it stands in: step 1 depends on the order.
@overload(exp, jit_options={"fastmath": {"contract"}, "error_model": "numpy"})
def _exp_of(x):
    return _EXP.get(x, _EXP[types.float64])


def _exp_in(real: type, integer: type, low: int, high: int, ln2_first: float, ln2_rest: float,
            terms: int) -> Callable:
    """e^x of this dtype. Below `low` it is 0 and beyond `high` inf; `integer` is of the same size."""
    digits, bias = np.finfo(real).nmant, np.finfo(real).maxexp - 1
    least, most, per_ln2 = real(low), real(high), real(1 / math.log(2))
    first, rest = real(ln2_first), real(ln2_rest)
    rounds = real(1.5 * 2 ** digits)
    bits_of_rounds = integer(rounds.view(integer))
    taylor = tuple(real(1 / math.factorial(k)) for k in range(terms, -1, -1))

    def exp_of(x):
        y = least if x < least else x                 # NaN stays NaN
        y = most if y > most else y
        sum_with_n = y * per_ln2 + rounds
        n = sum_with_n - rounds
        r = (y - n * first) - n * rest
        p = taylor[0]
        for c in taylor[1:]:
            p = p * r + c
        whole = integer(as_integer(sum_with_n) - bits_of_rounds)
        half = integer(whole >> 1)
        other = integer(whole - half)
        return p * as_float(integer((half + bias) << digits)) * as_float(
            integer((other + bias) << digits))
    return exp_of


_EXP = {types.float32: _exp_in(np.float32, np.int32, -105, 89, 355 / 512,
                               math.log(2) - 355 / 512, 7),
        # ln 2 in hexadecimal digits is 0.B17217F7D1CF79ABC9E3...
        types.float64: _exp_in(np.float64, np.int64, -746, 710, 0xB17217F7 / 2 ** 32,
                               0xD1CF79ABC9E3 / 2 ** 80, 13)}


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
    return near if square < _NEAR else far if x > 0 else -far
