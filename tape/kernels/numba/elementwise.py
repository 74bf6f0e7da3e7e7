"""What goes element by element: gelu, and sums of two arrays."""

from __future__ import annotations

import numpy as np

from tape.kernels import numpy as plain
from tape.kernels.numba.compiled import (
    INTEGER, READ, TEAM, WRITE, is_packed, loop, packed, suits, whole)
from tape.kernels.numba.exponential import exp
from tape.kernels.numba.threads import in_parts, own, team_for
from tape.kernels.numpy import GELU_CUBIC, SQRT_2_OVER_PI

_A, _B = 2 * SQRT_2_OVER_PI, 2 * SQRT_2_OVER_PI * GELU_CUBIC


# With a = 2 sqrt(2/pi) and b = 0.044715 a, as derived in `tape.gelu`:
#
#     2u = a x + b x^3,  s = 1 / (1 + exp(-2u)),  out = x s
#     dout/dx = s (1 + x (1 - s) (a + 3 b x^2))
#
# s is not kept for the backward pass: to compute it again takes less time than to write and to read it.

def gelu(x):
    """x s."""
    if not suits(x):
        return gelu(x.astype(np.float64)) if whole(x) else plain.gelu(x)[0]
    out = np.empty(x.shape, x.dtype)
    _gelu[x.dtype](packed(x).reshape(-1), out.reshape(-1), *team_for(x.size))
    return out


def gelu_backward(g, x):
    """g dout/dx."""
    if whole(x):
        return gelu_backward(g, x.astype(np.float64))
    if not (suits(x) and suits(g) and g.dtype == x.dtype):
        return plain.gelu_backward(g, x, plain.gelu(x)[1]["s"])
    out = np.empty(x.shape, x.dtype)
    _gelu_backward[x.dtype](
        packed(g).reshape(-1), packed(x).reshape(-1), out.reshape(-1), *team_for(x.size))
    return (out,)


@loop(READ(1), WRITE(1), TEAM, INTEGER)
def _gelu(x, out, team, parts):
    _gelu_part(team, parts, (x, out))


@in_parts()
def _gelu_part(x, out, number, parts):
    x, out = own(x, number, parts), own(out, number, parts)
    real = x.dtype.type
    a, b, one = real(_A), real(_B), real(1)
    for i in range(x.size):
        v = x[i]
        out[i] = v * (one / (one + exp(-v * (a + b * (v * v)))))


@loop(READ(1), READ(1), WRITE(1), TEAM, INTEGER)
def _gelu_backward(g, x, out, team, parts):
    _gelu_backward_part(team, parts, (g, x, out))


@in_parts()
def _gelu_backward_part(g, x, out, number, parts):
    g, x, out = own(g, number, parts), own(x, number, parts), own(out, number, parts)
    real = x.dtype.type
    a, b, b3, one, zero = real(_A), real(_B), real(3 * _B), real(1), real(0)
    for i in range(x.size):
        v = x[i]
        s = one / (one + exp(-v * (a + b * (v * v))))
        slope = s * (one + v * (a + b3 * (v * v)) * (one - s))
        far = one if v > zero else zero
        slope = slope if slope == slope else far if v == v else v       # v^2 overflowed, or v is NaN
        out[i] = zero if g[i] == zero else slope * g[i]


# --- x + y ---

def add(x, y, out=None):
    """Into a new array, or into x itself."""
    if not (suits(x) and suits(y) and x.dtype == y.dtype and x.shape == y.shape and is_packed(x)
            and is_packed(y) and (out is None or out is x)):
        return np.add(x, y, out)
    if out is not None:
        _add_to[x.dtype](x.reshape(-1), y.reshape(-1), *team_for(x.size))
        return x
    total = np.empty(x.shape, x.dtype)
    _add[x.dtype](x.reshape(-1), y.reshape(-1), total.reshape(-1), *team_for(x.size))
    return total


@loop(READ(1), READ(1), WRITE(1), TEAM, INTEGER)
def _add(x, y, out, team, parts):
    _add_part(team, parts, (x, y, out))


@in_parts()
def _add_part(x, y, out, number, parts):
    x, y, out = own(x, number, parts), own(y, number, parts), own(out, number, parts)
    for i in range(x.size):
        out[i] = x[i] + y[i]


@loop(WRITE(1), READ(1), TEAM, INTEGER)
def _add_to(x, y, team, parts):
    _add_to_part(team, parts, (x, y))


@in_parts()
def _add_to_part(x, y, number, parts):
    x, y = own(x, number, parts), own(y, number, parts)
    for i in range(x.size):
        x[i] += y[i]
