"""What a step of an LSTM does between the products, element by element; see ``tape/ops/recurrent.py``.

    i, f, g, o = the four parts of a, past their functions
    c' = f c + i g,  y = tanh(c'),  h' = o y

    dc += dh o (1 - y^2)
    da = (dc g i (1 - i),  dc c f (1 - f),  dc i (1 - g^2),  dh y o (1 - o)),  and dc f goes back
"""

from __future__ import annotations

from tape.kernels import recurrent as plain
from tape.kernels.numba.compiled import READ, WRITE, alike, is_packed, loop, suits
from tape.kernels.numba.exponential import exp, tanh


def lstm_step(gates, c, h_after, c_after):
    """From a in `gates` (B, 4 H) its i, f, g and o, in place; and the other two, (B, H), from these."""
    if suits(c) and is_packed(c) and c.dtype == gates.dtype:
        _lstm_step[c.dtype](gates, c, h_after, c_after)
    else:
        plain.lstm_step(gates, c, h_after, c_after)


def lstm_step_backward(g_h, g_c, gates, c, c_after, g_gates):
    """From the gradients of h' and c' those of a, in `g_gates`, and of c, in the place of `g_c`."""
    if alike(c, c_after) and alike(g_h, g_c) and all(map(is_packed, (g_h, g_c, c))) and (
            c.dtype == g_c.dtype):
        _lstm_step_backward[c.dtype](g_h, g_c, gates, c, c_after, g_gates)
    else:
        plain.lstm_step_backward(g_h, g_c, gates, c, c_after, g_gates)


@loop(WRITE(2), READ(2), WRITE(2), WRITE(2))
def _lstm_step(gates, c, h_after, c_after):
    one = gates.dtype.type(1)
    width = c.shape[1]
    for row in range(len(c)):
        a = gates[row]
        i, f, g, o = a[:width], a[width:2 * width], a[2 * width:3 * width], a[3 * width:]
        for s in (i, f, o):
            for j in range(s.size):
                s[j] = one / (one + exp(-s[j]))
        for j in range(g.size):
            g[j] = tanh(g[j])
        before, after, h = c[row], c_after[row], h_after[row]
        for j in range(width):
            after[j] = f[j] * before[j] + i[j] * g[j]
        for j in range(width):
            h[j] = o[j] * tanh(after[j])


@loop(READ(2), WRITE(2), READ(2), READ(2), READ(2), WRITE(2))
def _lstm_step_backward(g_h, g_c, gates, c, c_after, g_gates):
    one = gates.dtype.type(1)
    width = c.shape[1]
    for row in range(len(c)):
        a, da = gates[row], g_gates[row]
        i, f, g, o = a[:width], a[width:2 * width], a[2 * width:3 * width], a[3 * width:]
        of_i, of_f, of_g, of_o = (da[:width], da[width:2 * width], da[2 * width:3 * width],
                                  da[3 * width:])
        before, after, dh, dc = c[row], c_after[row], g_h[row], g_c[row]
        for j in range(width):
            y = tanh(after[j])
            of_o[j] = dh[j] * y * (o[j] * (one - o[j]))
            dc[j] += dh[j] * o[j] * (one - y * y)
        for j in range(width):
            of_i[j] = dc[j] * g[j] * (i[j] * (one - i[j]))
            of_f[j] = dc[j] * before[j] * (f[j] * (one - f[j]))
            of_g[j] = dc[j] * i[j] * (one - g[j] * g[j])
            dc[j] *= f[j]
