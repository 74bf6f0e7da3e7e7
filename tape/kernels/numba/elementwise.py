"""What goes element by element: gelu, relu and sigmoid, and sums of two arrays."""

from __future__ import annotations

import numpy as np

from tape.kernels import numpy as plain
from tape.kernels.numba.compiled import (
    INTEGER, READ, TEAM, WRITE, alike, is_packed, loop, packed, suits, whole)
from tape.kernels.numba.exponential import exp
from tape.kernels.numba.threads import in_parts, own, team_for
from tape.kernels.numpy import GELU_CUBIC, SQRT_2_OVER_PI

_A, _B = 2 * SQRT_2_OVER_PI, 2 * SQRT_2_OVER_PI * GELU_CUBIC


def over_elements(loops, *arrays):
    """The result of a loop over the elements of these arrays, all of one shape."""
    like = arrays[0]
    out = np.empty(like.shape, like.dtype)
    loops[like.dtype](*map(flat, arrays), out.reshape(-1), *team_for(like.size))
    return out


def flat(x):
    """The elements of x one after the other, packed."""
    return packed(x).reshape(-1)


# --- gelu ---
#
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
    return over_elements(_gelu, x)


def gelu_backward(g, x):
    """g dout/dx."""
    if alike(g, x):
        return (over_elements(_gelu_backward, g, x),)
    if whole(x):
        return gelu_backward(g, x.astype(np.float64))
    return plain.gelu_backward(g, x, plain.gelu(x)[1]["s"])


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
    if not (alike(x, y) and is_packed(x) and is_packed(y) and (out is None or out is x)):
        return np.add(x, y, out)
    if out is None:
        return over_elements(_add, x, y)
    _add_to[x.dtype](x.reshape(-1), y.reshape(-1), *team_for(x.size))
    return x


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


# --- relu and sigmoid ---

def relu(x):
    """max(x, 0)."""
    return over_elements(_relu, x) if suits(x) else plain.relu(x)


def relu_backward(g, out):
    """g where out > 0."""
    return over_elements(_relu_backward, g, out) if alike(g, out) else plain.relu_backward(g, out)


def sigmoid(x):
    """1 / (1 + exp(-x))."""
    if whole(x):
        x = x.astype(np.float64)
    return over_elements(_sigmoid, x) if suits(x) else plain.sigmoid(x)


def sigmoid_backward(g, s):
    """g s (1 - s)."""
    return over_elements(_sigmoid_backward, g, s) if alike(g, s) else plain.sigmoid_backward(g, s)


@loop(READ(1), WRITE(1), TEAM, INTEGER)
def _relu(x, out, team, parts):
    _relu_part(team, parts, (x, out))


@in_parts()
def _relu_part(x, out, number, parts):
    x, out = own(x, number, parts), own(out, number, parts)
    zero = x.dtype.type(0)
    for i in range(x.size):
        out[i] = zero if x[i] <= zero else x[i]              # NaN stays NaN


@loop(READ(1), READ(1), WRITE(1), TEAM, INTEGER)
def _relu_backward(g, y, out, team, parts):
    _relu_backward_part(team, parts, (g, y, out))


@in_parts()
def _relu_backward_part(g, y, out, number, parts):
    g, y, out = own(g, number, parts), own(y, number, parts), own(out, number, parts)
    real = y.dtype.type
    zero, one = real(0), real(1)
    for i in range(y.size):
        out[i] = g[i] * (one if y[i] > zero else zero)


@loop(READ(1), WRITE(1), TEAM, INTEGER)
def _sigmoid(x, out, team, parts):
    _sigmoid_part(team, parts, (x, out))


@in_parts()
def _sigmoid_part(x, out, number, parts):
    x, out = own(x, number, parts), own(out, number, parts)
    real = x.dtype.type
    zero, one = real(0), real(1)
    for i in range(x.size):
        v = x[i]
        e = exp(-v if v > zero else v)                       # of a number that is never positive
        out[i] = (one if v > zero else e) / (one + e)


@loop(READ(1), READ(1), WRITE(1), TEAM, INTEGER)
def _sigmoid_backward(g, s, out, team, parts):
    _sigmoid_backward_part(team, parts, (g, s, out))


@in_parts()
def _sigmoid_backward_part(g, s, out, number, parts):
    g, s, out = own(g, number, parts), own(s, number, parts), own(out, number, parts)
    one = s.dtype.type(1)
    for i in range(s.size):
        out[i] = g[i] * (s[i] * (one - s[i]))
