"""A recurrent layer over a whole sequence; derived in ``tape/ops/recurrent.py``.

The loop over time and the products are here for both sets of kernels. What a step does between the
products, element by element, is a kernel of its own, `lstm_step`.
"""

from __future__ import annotations

import numpy as np

from tape.kernels.choice import find
from tape.kernels.numpy import sigmoid
from tape.kernels.products import as_rows, dot
from tape.kernels.sums import gradient_in_float32, in_float32


@in_float32
def lstm(projected, weight, h, c, steps):
    """h and c after each step (2, T, B, H); these, and i, f, g, o of each (T, B, 4 H), are kept."""
    projected, weight, h, c = map(np.asarray, (projected, weight, h, c))
    check_lstm(projected, weight, h, c, steps)
    dtype = np.result_type(projected, weight, h, c, np.float16)
    out, gates = np.empty((2, steps, *h.shape), dtype), np.empty(projected.shape, dtype)
    step = find("lstm_step")
    for t in range(steps):
        np.add(dot(h, weight), projected[t], out=gates[t])
        step(gates[t], c, *out[:, t])
        h, c = out[:, t]
    return out, {"states": out, "gates": gates}


@gradient_in_float32
def lstm_backward(g, weight, h, c, states, gates):
    """Gradients of the projected inputs, the weight, h and c."""
    step, g_gates = find("lstm_step_backward"), np.empty_like(gates)
    g_h = g_c = 0
    for t in reversed(range(len(gates))):
        g_h, g_c = g[0, t] + g_h, g[1, t] + g_c
        step(g_h, g_c, gates[t], states[1, t - 1] if t else c, states[1, t], g_gates[t])
        g_h = dot(g_gates[t], weight.T)
    before = np.concatenate([np.asarray(h, states.dtype)[None], states[0, :-1]])     # (T, B, H)
    return g_gates, dot(as_rows(before).T, as_rows(g_gates)), g_h, g_c


def lstm_step(gates, c, h_after, c_after):
    """From a in `gates` (B, 4 H) its i, f, g and o, in place; and the other two, (B, H), from these."""
    i, f, g, o = np.split(gates, 4, axis=1)
    written = np.tanh(g)
    gates[...] = sigmoid(gates)
    g[...] = written
    np.multiply(f, c, out=c_after)
    c_after += i * g
    np.multiply(o, np.tanh(c_after), out=h_after)


def lstm_step_backward(g_h, g_c, gates, c, c_after, g_gates):
    """From the gradients of h' and c' those of a, in `g_gates`, and of c, in the place of `g_c`."""
    i, f, g, o = np.split(gates, 4, axis=1)
    of_i, of_f, of_g, of_o = np.split(g_gates, 4, axis=1)
    y = np.tanh(c_after)
    g_c += g_h * o * (1 - y * y)
    np.multiply(gates, 1 - gates, out=g_gates)
    np.subtract(1, g * g, out=of_g)
    of_i *= g_c * g
    of_f *= g_c * c
    of_g *= g_c * i
    of_o *= g_h * y
    g_c *= f


def check_lstm(projected, weight, h, c, steps):
    """Raise a ValueError unless the shapes fit."""
    if projected.ndim == 3 and h.ndim == 2 and len(projected) == steps > 0:
        rows, width = h.shape
        if c.shape == h.shape and weight.shape == (width, 4 * width) and (
                projected.shape[1:] == (rows, 4 * width)):
            return
    raise ValueError(f"lstm: projected must have shape (T, B, 4 H) with T = steps >= 1, weight "
                     f"(H, 4 H), and h and c (B, H); got {projected.shape} for {steps} steps, "
                     f"{weight.shape}, {h.shape} and {c.shape}")
