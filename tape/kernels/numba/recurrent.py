"""What a step of a recurrent layer does between the products, element by element.

As derived in ``tape/ops/recurrent.py``, with the parts of a past their functions: of an LSTM

    c' = f c + i g,  y = tanh(c'),  h' = o y
    dc += dh o (1 - y^2)
    da = (dc g i (1 - i),  dc c f (1 - f),  dc i (1 - g^2),  dh y o (1 - o)),  and dc f goes back

and of a GRU, with m = u_n + bias

    h' = (1 - z) n + z h
    da_n = dh (1 - z) (1 - n^2),  da = (da_n m r (1 - r),  dh (h - n) z (1 - z),  da_n)
    du = (da_r,  da_z,  da_n r),  and dh z goes back

Where dh or dc is 0, so is what is made of it: see `tape.kernels.zero_where_undefined`. What the caller
has made, `gates` and the arrays that are written to, is packed and of one dtype.
"""

from __future__ import annotations

from tape.kernels import recurrent as plain
from tape.kernels.numba.compiled import READ, WRITE, inner, is_packed, loop, suits
from tape.kernels.numba.exponential import exp, tanh


def _serve(gates, *others):
    """Whether the loops serve: for what comes from elsewhere, beside what the caller has made."""
    return suits(gates) and all(x.dtype == gates.dtype and is_packed(x) for x in others)


@inner()
def _past(g, slope):
    """g times the slope, and 0 where g is 0, whatever the slope."""
    return g if g == 0 else g * slope


# --- LSTM ---


def lstm_step(gates, c, h_after, c_after):
    """From a in `gates` (B, 4 H) its i, f, g and o, in place; and the other two, (B, H), from these."""
    if _serve(gates, c):
        _lstm_step[c.dtype](gates, c, h_after, c_after)
    else:
        plain.lstm_step(gates, c, h_after, c_after)


def lstm_step_backward(g_h, g_c, gates, c, c_after, g_a):
    """From the gradients of h' and c' that of a, and in the place of `g_c` that of c."""
    if _serve(gates, g_h, g_c, c):
        _lstm_step_backward[c.dtype](g_h, g_c, gates, c, c_after, g_a)
    else:
        plain.lstm_step_backward(g_h, g_c, gates, c, c_after, g_a)


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
def _lstm_step_backward(g_h, g_c, gates, c, c_after, g_a):
    one = gates.dtype.type(1)
    width = c.shape[1]
    for row in range(len(c)):
        a, da = gates[row], g_a[row]
        i, f, g, o = a[:width], a[width:2 * width], a[2 * width:3 * width], a[3 * width:]
        of_i, of_f, of_g, of_o = (da[:width], da[width:2 * width], da[2 * width:3 * width],
                                  da[3 * width:])
        before, after, dh, dc = c[row], c_after[row], g_h[row], g_c[row]
        for j in range(width):
            y = tanh(after[j])
            of_o[j] = _past(dh[j], y * (o[j] * (one - o[j])))
            dc[j] += _past(dh[j], o[j] * (one - y * y))
        for j in range(width):
            of_i[j] = _past(dc[j], g[j] * (i[j] * (one - i[j])))
            of_f[j] = _past(dc[j], before[j] * (f[j] * (one - f[j])))
            of_g[j] = _past(dc[j], i[j] * (one - g[j] * g[j]))
            dc[j] = _past(dc[j], f[j])


# --- GRU ---


def gru_step(u, bias, h, gates, m, h_after):
    """From a in `gates` (B, 3 H) its r, z and n, in place; and m and h' (B, H), from u (B, 3 H)."""
    if _serve(gates, u, bias, h):
        _gru_step[h.dtype](u, bias, h, gates, m, h_after)
    else:
        plain.gru_step(u, bias, h, gates, m, h_after)


def gru_step_backward(g_h, gates, m, h, g_a, g_u):
    """From the gradient of h' those of a and u, and in the place of `g_h` the part of h's by z."""
    if _serve(gates, g_h, h):
        _gru_step_backward[h.dtype](g_h, gates, m, h, g_a, g_u)
    else:
        plain.gru_step_backward(g_h, gates, m, h, g_a, g_u)


@loop(READ(2), READ(1), READ(2), WRITE(2), WRITE(2), WRITE(2))
def _gru_step(u, bias, h, gates, m, h_after):
    one = gates.dtype.type(1)
    width = h.shape[1]
    for row in range(len(h)):
        a, u_row = gates[row], u[row]
        r, z, n = a[:width], a[width:2 * width], a[2 * width:]
        u_r, u_z, u_n = u_row[:width], u_row[width:2 * width], u_row[2 * width:]
        product, before, after = m[row], h[row], h_after[row]
        for j in range(width):
            r[j] = one / (one + exp(-(r[j] + u_r[j])))
        for j in range(width):
            z[j] = one / (one + exp(-(z[j] + u_z[j])))
        for j in range(width):
            product[j] = u_n[j] + bias[j]
            n[j] = tanh(n[j] + r[j] * product[j])
        for j in range(width):
            after[j] = (one - z[j]) * n[j] + z[j] * before[j]


@loop(WRITE(2), READ(2), READ(2), READ(2), WRITE(2), WRITE(2))
def _gru_step_backward(g_h, gates, m, h, g_a, g_u):
    one = gates.dtype.type(1)
    width = h.shape[1]
    for row in range(len(h)):
        a, da, du = gates[row], g_a[row], g_u[row]
        r, z, n = a[:width], a[width:2 * width], a[2 * width:]
        product, before, dh = m[row], h[row], g_h[row]
        for j in range(width):
            of_n = _past(dh[j], (one - z[j]) * (one - n[j] * n[j]))
            of_r = _past(of_n, product[j] * (r[j] * (one - r[j])))
            of_z = _past(dh[j], (before[j] - n[j]) * (z[j] * (one - z[j])))
            da[j], da[width + j], da[2 * width + j] = of_r, of_z, of_n
            du[j], du[width + j], du[2 * width + j] = of_r, of_z, _past(of_n, r[j])
            dh[j] = _past(dh[j], z[j])
