"""The exact gelu, element by element.

With p = P(Z > |x|) of a standard normal Z, and e = exp(-x^2 / 2), as derived in `tape.gelu_exact`:

    out = max(x, 0) - |x| p
    dout/dx = 1 - p + |x| e / sqrt(2 pi) where x > 0, else p - |x| e / sqrt(2 pi)
"""

from __future__ import annotations

import math

import numpy as np
from numba import types
from numba.extending import overload

from tape.kernels import normal as plain
from tape.kernels.normal import END, PER_SQRT_2_PI, TAIL, TAIL_SCALE
from tape.kernels.numba.compiled import INTEGER, READ, TEAM, WRITE, alike, loop, suits, whole
from tape.kernels.numba.elementwise import over_elements
from tape.kernels.numba.exponential import exp
from tape.kernels.numba.threads import in_parts, own

_SCALE, _ONE, _COEFFICIENTS = np.float32(TAIL_SCALE), np.float32(1), tuple(map(np.float32, TAIL))


def gelu_exact(x):
    """The result; p is not kept for the backward pass, since to compute it takes less time."""
    if not suits(x):
        return gelu_exact(x.astype(np.float64)) if whole(x) else plain.gelu_exact(x)[0]
    return over_elements(_gelu_exact, x)


def gelu_exact_backward(g, x):
    """g dout/dx."""
    if alike(g, x):
        return (over_elements(_gelu_exact_backward, g, x),)
    if whole(x):
        return gelu_exact_backward(g, x.astype(np.float64))
    return plain.gelu_exact_backward(g, x, plain.gelu_exact(x)[1]["tail"])


def tail(u, e):
    """P(Z > u) for u >= 0 and e = exp(-u^2 / 2), in compiled loops alone."""
    raise NotImplementedError("this stands for what loops are compiled with")


@overload(tail, jit_options={"fastmath": {"contract"}, "error_model": "numpy"})
def _tail_of(u, e):
    return _tail_of_float32 if u == types.float32 else lambda u, e: 0.5 * math.erfc(u * math.sqrt(0.5))


def _tail_of_float32(u, e):
    """As in ``tape/kernels/normal.py``."""
    t = _ONE / (_ONE + _SCALE * u)
    p = _COEFFICIENTS[0]
    for c in _COEFFICIENTS[1:]:
        p = p * t + c
    return e * (t * p)


@loop(READ(1), WRITE(1), TEAM, INTEGER)
def _gelu_exact(x, out, team, parts):
    _gelu_exact_part(team, parts, (x, out))


@in_parts()
def _gelu_exact_part(x, out, number, parts):
    x, out = own(x, number, parts), own(out, number, parts)
    real = x.dtype.type
    zero, end, half = real(0), real(END), real(0.5)
    for i in range(x.size):
        v = x[i]
        u = end if abs(v) > end else abs(v)                         # NaN stays NaN
        out[i] = (zero if v < zero else v) - u * tail(u, exp(-half * (u * u)))


@loop(READ(1), READ(1), WRITE(1), TEAM, INTEGER)
def _gelu_exact_backward(g, x, out, team, parts):
    _gelu_exact_backward_part(team, parts, (g, x, out))


@in_parts()
def _gelu_exact_backward_part(g, x, out, number, parts):
    g, x, out = own(g, number, parts), own(x, number, parts), own(out, number, parts)
    real = x.dtype.type
    zero, end, half, one, density = real(0), real(END), real(0.5), real(1), real(PER_SQRT_2_PI)
    for i in range(x.size):
        u = end if abs(x[i]) > end else abs(x[i])
        e = exp(-half * (u * u))
        beyond, rise = tail(u, e), u * (density * e)
        slope = one - beyond + rise if x[i] > zero else beyond - rise
        out[i] = zero if g[i] == zero else slope * g[i]
