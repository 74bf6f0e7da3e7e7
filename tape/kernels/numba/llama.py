"""RMSNorm, row by row as in ``rows.py``, and SwiGLU, element by element."""

from __future__ import annotations

import math

import numpy as np

from tape.kernels import llama as plain
from tape.kernels.numba.compiled import (
    INTEGER, READ, REAL, SUMS, TEAM, WRITE, alike, as_rows, loop, packed, suits)
from tape.kernels.numba.elementwise import flat, over_elements
from tape.kernels.numba.exponential import exp
from tape.kernels.numba.rows import NONE, STEP, of_rows
from tape.kernels.numba.threads import in_parts, own, team_for

# --- RMSNorm ---
#
# Of each row, as derived in `tape.rms_norm`: r = 1 / sqrt(mean(x^2) + eps),
#
#     n = x r,  out = n weight,  h = g weight,  dL/dx = r (h - n mean(h n)),  dL/dweight = sum g n


def rms_norm(x, weight, eps):
    """The result, and r of each row."""
    if not (suits(x) and of_rows(weight, x)):
        return plain.rms_norm(x, weight, eps)
    dtype = x.dtype
    out, rrms = np.empty(x.shape, dtype), np.empty((*x.shape[:-1], 1), dtype)
    _rms_norm[dtype](as_rows(x), NONE[dtype] if weight is None else packed(weight), float(eps),
                     as_rows(out), rrms.reshape(-1), *team_for(x.size))
    return out, {"rrms": rrms}


def rms_norm_backward(g, x, weight, rrms):
    """Gradients of x and weight."""
    if not (alike(g, x) and of_rows(weight, x) and rrms.dtype == x.dtype):
        return plain.rms_norm_backward(g, x, weight, rrms)
    dtype, width = x.dtype, x.shape[-1]
    g_x, g_weight = np.empty(x.shape, dtype), None if weight is None else np.empty(width, dtype)
    _rms_norm_backward[dtype](
        as_rows(g), as_rows(x), np.ones(width, dtype) if weight is None else packed(weight),
        packed(rrms).reshape(-1), as_rows(g_x), NONE[dtype] if weight is None else g_weight,
        *team_for(x.size))
    return g_x, g_weight


@loop(READ(2), READ(1), REAL, WRITE(2), WRITE(1), TEAM, INTEGER)
def _rms_norm(x, weight, eps, out, rrms, team, parts):
    _rms_norm_part(team, parts, (x, weight, eps, out, rrms))


@in_parts(fastmath=SUMS)
def _rms_norm_part(x, weight, eps, out, rrms, number, parts):
    x, out, rrms = own(x, number, parts), own(out, number, parts), own(rrms, number, parts)
    real = x.dtype.type
    rows, width = x.shape
    for i in range(rows):
        squares = 0.0
        for start in range(0, width, STEP):
            part, row = real(0), x[i, start:start + STEP]
            for j in range(row.size):
                part += row[j] * row[j]
            squares += part
        r = real(1 / math.sqrt(squares / width + eps))
        for j in range(width):
            out[i, j] = x[i, j] * r
        if weight.size:
            for j in range(width):
                out[i, j] *= weight[j]
        rrms[i] = r


@loop(READ(2), READ(2), READ(1), READ(1), WRITE(2), WRITE(1), TEAM, INTEGER)
def _rms_norm_backward(g, x, weight, rrms, g_x, g_weight, team, parts):
    sums = np.zeros((parts, x.shape[1]))
    _rms_norm_backward_part(team, parts, (g, x, weight, rrms, g_x, sums))
    for j in range(len(g_weight)):
        g_weight[j] = sums[:, j].sum()


@in_parts(fastmath=SUMS)
def _rms_norm_backward_part(g, x, weight, rrms, g_x, sums, number, parts):
    g, x, g_x, rrms = (own(g, number, parts), own(x, number, parts), own(g_x, number, parts),
                       own(rrms, number, parts))
    g_weight = sums[number]
    real = x.dtype.type
    rows, width = x.shape
    for i in range(rows):
        r, along = rrms[i], 0.0
        for start in range(0, width, STEP):
            part, stop = real(0), start + STEP
            x_part, g_part, w_part = x[i, start:stop], g[i, start:stop], weight[start:stop]
            for j in range(x_part.size):
                part += g_part[j] * w_part[j] * (x_part[j] * r)
            along += part
        for j in range(width):
            g_weight[j] += g[i, j] * (x[i, j] * r)
        mean_hn = real(along / width)
        for j in range(width):
            g_x[i, j] = r * (g[i, j] * weight[j] - x[i, j] * r * mean_hn)


# --- SwiGLU ---
#
# As derived in `tape.swiglu`, with s = 1 / (1 + exp(-gate)) and a = gate s: out = a x,
#
#     dL/dgate = g x (s + a (1 - s)),  dL/dx = g a
#
# s is not kept for the backward pass: to compute it again takes less time than to write and to read it.


def swiglu(gate, x):
    """a x."""
    if not alike(gate, x):
        return plain.swiglu(gate, x)[0]
    return over_elements(_swiglu, gate, x)


def swiglu_backward(g, gate, x):
    """Gradients of gate and x."""
    if not (alike(gate, x) and alike(g, x)):
        return plain.swiglu_backward(g, gate, x, plain.swiglu(gate, x)[1]["s"])
    g_gate, g_x = np.empty(x.shape, x.dtype), np.empty(x.shape, x.dtype)
    _swiglu_backward[x.dtype](*map(flat, (g, gate, x, g_gate, g_x)), *team_for(x.size))
    return g_gate, g_x


@loop(READ(1), READ(1), WRITE(1), TEAM, INTEGER)
def _swiglu(gate, x, out, team, parts):
    _swiglu_part(team, parts, (gate, x, out))


@in_parts()
def _swiglu_part(gate, x, out, number, parts):
    gate, x, out = own(gate, number, parts), own(x, number, parts), own(out, number, parts)
    one = x.dtype.type(1)
    for i in range(x.size):
        out[i] = gate[i] * (one / (one + exp(-gate[i]))) * x[i]


@loop(READ(1), READ(1), READ(1), WRITE(1), WRITE(1), TEAM, INTEGER)
def _swiglu_backward(g, gate, x, g_gate, g_x, team, parts):
    _swiglu_backward_part(team, parts, (g, gate, x, g_gate, g_x))


@in_parts()
def _swiglu_backward_part(g, gate, x, g_gate, g_x, number, parts):
    g, gate, x = own(g, number, parts), own(gate, number, parts), own(x, number, parts)
    g_gate, g_x = own(g_gate, number, parts), own(g_x, number, parts)
    real = x.dtype.type
    one, zero = real(1), real(0)
    for i in range(x.size):
        s = one / (one + exp(-gate[i]))
        a = gate[i] * s
        g_gate[i] = zero if g[i] == zero else g[i] * x[i] * (s + a * (one - s))
        g_x[i] = zero if g[i] == zero else g[i] * a
